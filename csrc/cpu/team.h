// Threads that work through the steps of one call together.

#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <thread>

namespace electra_fast::cpu {

using Clock = std::chrono::steady_clock;
using Nanoseconds = std::chrono::nanoseconds;

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
    static constexpr std::chrono::milliseconds kPause{100};

    const std::function<bool()>& wants_;
    Clock::time_point next_;
    alignas(64) std::atomic<bool> is_set_{false};
};

// Tells the processor that this thread looks for something again and again.
inline void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

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

    alignas(64) std::atomic<int> arrived_{0};
    alignas(64) std::atomic<int> round_{0};
};

// An OpenMP runtime, to borrow torch's threads: they stay awake for some milliseconds after each of torch's ops, so
// threads of our own would have to share the cores with them.
struct OpenMp {
    void (*parallel)(void (*work)(void*), void* data, unsigned n_threads, unsigned flags) = nullptr;  // GOMP_parallel
    int (*thread_number)() = nullptr;
    int (*n_threads)() = nullptr;
};

// Names the runtime; only the first call counts.
void use_openmp(const OpenMp& given);

// The threads of a team besides the one that makes the call: torch's, or, without OpenMP, ours, which sleep between
// calls.
//
// Torch's threads stay awake, which is a weakness on a busy machine: they use up the time that the system gives them,
// and lose their core in the middle of a call. kSleepers are torch's threads on a quiet machine and ours on a busy one.
// They are for inference: between the parts of a training step torch's ops keep torch's threads awake anyway.
enum class Others { kTorchs, kSleepers };

// Calls work(rank, size) on this thread and on up to size - 1 others, where `size` is at most `most`. What an other has
// not begun when this thread has ended is not called. `work` returns how long it has slept, and must not throw.
void run_team(int most, Others others, const std::function<Nanoseconds(int rank, int size)>& work);

}  // namespace electra_fast::cpu
