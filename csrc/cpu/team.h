// Threads that work through the steps of one call together.

#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <functional>
#include <thread>
#include <vector>

#include "threads.h"

namespace electra_fast::cpu {

// The end of a call before its time. The thread that made the call asks for it; its team looks here between pieces of
// work and leaves them undone.
class Stop {
public:
    // `wants` may be expensive, for it is asked ten times a second at most. Once it has said yes it is not asked again.
    explicit Stop(const std::function<bool()>& wants) : wants_(wants), next_(Clock::now() + kPause) {}

    // Asks; only for the thread that made the call.
    void ask() {
        const Clock::time_point now = Clock::now();
        if (now < next_ || is_set()) return;
        next_ = now + kPause;
        if (wants_()) is_set_.store(true, std::memory_order_relaxed);
    }
    bool is_set() const { return is_set_.load(std::memory_order_relaxed); }

private:
    using Clock = std::chrono::steady_clock;
    static constexpr std::chrono::milliseconds kPause{100};

    const std::function<bool()>& wants_;
    Clock::time_point next_;
    alignas(64) std::atomic<bool> is_set_{false};
};

// Lets all threads of a team wait for each other. Steps take microseconds, so threads spin; a thread that waits for
// long, for example because more threads than cores run, yields to others.
class Barrier {
public:
    // Tells whether to go on. All threads get the same answer: the last one to arrive looks at `stop`, and nobody who
    // could set it is running then.
    bool wait(int n_threads, const Stop& stop) {
        const int round = round_.load(std::memory_order_acquire);
        if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == n_threads) {
            arrived_.store(0, std::memory_order_relaxed);
            const int next = stop.is_set() ? kStopped : round + 1;
            round_.store(next, std::memory_order_release);
            return next != kStopped;
        }
        int now = round;
        for (int looks = 0; (now = round_.load(std::memory_order_acquire)) == round; ++looks) {
            if (looks < kLooks) {
                pause();
            } else {
                std::this_thread::yield();
            }
        }
        return now != kStopped;
    }

private:
    static constexpr int kLooks = 4000, kStopped = -1;

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

// Tells whether the system gives this thread a team of `most` now. OpenMP's runtime ends the process where it cannot
// start its threads, so they are tried first, once for each size that grows.
bool can_start(int most);

// Calls work(rank, size) once on each of `most` threads, including this one, or on fewer if the system gives no more;
// `size` is the number of threads that run. `work` must not throw.
template <typename Work>
void run_team(int most, const Work& work) {
    if (most > 1 && openmp().is_usable() && can_start(most)) {
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
