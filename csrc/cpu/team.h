// Threads that work through the steps of one call together.

#pragma once

#include <atomic>
#include <cstddef>
#include <thread>
#include <vector>

#include "threads.h"

namespace electra_fast::cpu {

// Lets all threads of a team wait for each other. Steps take microseconds, so threads spin; a thread that waits for
// long, for example because more threads than cores run, yields to others.
class Barrier {
public:
    void wait(int n_threads) {
        const int round = round_.load(std::memory_order_acquire);
        if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == n_threads) {
            arrived_.store(0, std::memory_order_relaxed);
            round_.store(round + 1, std::memory_order_release);
            return;
        }
        for (int looks = 0; round_.load(std::memory_order_acquire) == round; ++looks) {
            if (looks < kLooks) {
                pause();
            } else {
                std::this_thread::yield();
            }
        }
    }

private:
    static constexpr int kLooks = 4000;

    static void pause() {
#if defined(__x86_64__)
        __builtin_ia32_pause();
#endif
    }

    alignas(64) std::atomic<int> arrived_{0};
    alignas(64) std::atomic<int> round_{0};
};

// An OpenMP runtime, to borrow torch's threads: they stay awake for some milliseconds after each of torch's ops, so
// threads of our own would have to share the cores with them.
struct OpenMp {
    void (*parallel)(void (*work)(void*), void* data, unsigned n_threads, unsigned flags) = nullptr;  // GOMP_parallel
    int (*thread_number)() = nullptr;
    int (*n_threads)() = nullptr;

    bool is_usable() const;
};

// The runtime that gives teams their threads; not usable before use_openmp has named one.
const OpenMp& openmp();
void use_openmp(const OpenMp& given);

// Calls work(rank, size) once on each of `most` threads, including this one, or on fewer if the system gives no more;
// `size` is the number of threads that run. `work` must not throw.
template <typename Work>
void run_team(int most, const Work& work) {
    if (most > 1 && openmp().is_usable()) {
        const auto enter = [](void* data) {
            (*static_cast<const Work*>(data))(openmp().thread_number(), openmp().n_threads());
        };
        openmp().parallel(enter, const_cast<Work*>(&work), static_cast<unsigned>(most), 0);
        return;
    }
    std::atomic<int> size{0};
    const auto wait_and_work = [&](std::size_t rank) {
        while (!size.load(std::memory_order_acquire)) std::this_thread::yield();
        work(static_cast<int>(rank), size.load(std::memory_order_relaxed));
    };
    std::vector<std::thread> threads = begin_threads(static_cast<std::size_t>(most), wait_and_work);
    size.store(static_cast<int>(threads.size()) + 1, std::memory_order_release);
    wait_and_work(0);
    for (std::thread& thread : threads) thread.join();
}

}  // namespace electra_fast::cpu
