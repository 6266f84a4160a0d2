// Threads that work through the steps of one call together, and end with it: a child that is forked later finds nothing
// taken and waits for nobody.

#pragma once

#include <atomic>
#include <system_error>
#include <thread>
#include <vector>

namespace electra_fast::cpu {

// Where all threads of a team meet. Steps take microseconds, so they wait awake; one that has to wait for long, as where
// more threads than cores run, lets others go first.
class Barrier {
public:
    explicit Barrier(int n_threads) : n_threads_(n_threads) {}

    void wait() {
        const int round = round_.load(std::memory_order_acquire);
        if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == n_threads_) {
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

    const int n_threads_;
    alignas(64) std::atomic<int> arrived_{0};
    alignas(64) std::atomic<int> round_{0};
};

// Calls work(rank, barrier) on n_threads threads, this one among them as rank 0, or on as many as the system gives; work
// must not throw. The size of the team is in `n_threads` before work begins.
template <typename Work>
void run_team(int& n_threads, const Work& work) {
    std::atomic<Barrier*> ready{nullptr};
    std::vector<std::thread> threads;
    threads.reserve(static_cast<std::size_t>(n_threads));
    try {
        for (int rank = 1; rank < n_threads; ++rank)
            threads.emplace_back([&, rank] {
                Barrier* barrier = nullptr;
                while (!(barrier = ready.load(std::memory_order_acquire))) std::this_thread::yield();
                work(rank, *barrier);
            });
    } catch (const std::system_error&) {
        // No more threads are to be had: those that run, and this one, do the work.
    }
    n_threads = static_cast<int>(threads.size()) + 1;
    Barrier barrier(n_threads);
    ready.store(&barrier, std::memory_order_release);
    work(0, barrier);
    for (std::thread& thread : threads) thread.join();
}

}  // namespace electra_fast::cpu
