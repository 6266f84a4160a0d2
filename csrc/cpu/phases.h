// Threads that go through the phases of a call together, taking tasks one after another: whoever comes late does less.

#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <functional>

#include "cpu/index.h"
#include "cpu/team.h"

namespace electra_fast::cpu {

constexpr std::size_t kMostPhases = 8;

// What the threads of a call share.
struct Phases {
    explicit Phases(Stop& stop) : stop(stop) {}

    struct alignas(64) Counter {
        std::atomic<Index> next{0};
    };
    std::array<Counter, kMostPhases> counters;
    Barrier barrier;
    Stop& stop;
};

// One thread's way through them.
class Worker {
public:
    Worker(Phases& phases, int rank, int n_threads) : rank(rank), phases_(phases), n_threads_(n_threads) {}

    // Calls task(i) for some i < n_tasks, until all threads together have made all calls. Returns false where the call
    // is to stop, with tasks undone; all threads get the same answer.
    template <typename Task>
    bool each(Index n_tasks, const Task& task) {
        std::atomic<Index>& next = phases_.counters[phase_++].next;
        for (Index i; (i = next.fetch_add(1, std::memory_order_relaxed)) < n_tasks;) {
            if (rank == 0) phases_.stop.ask();
            if (phases_.stop.is_set()) break;
            task(i);
        }
        return phases_.barrier.wait(n_threads_, phases_.stop);
    }

    const int rank;

private:
    Phases& phases_;
    const int n_threads_;
    std::size_t phase_ = 0;
};

// Calls work(worker) on each of up to n_threads threads; returns false once `stop` is set. `work` must not throw.
template <typename Work>
bool run_phases(int n_threads, Stop& stop, const Work& work) {
    Phases phases(stop);
    run_team(n_threads, Others::kTorchs, [&](int rank, int size) {
        Worker worker(phases, rank, size);
        work(worker);
        return Nanoseconds(0);
    });
    return !stop.is_set();
}

template <typename Work>
bool run_phases(int n_threads, const std::function<bool()>& wants_stop, const Work& work) {
    Stop stop(wants_stop);
    return run_phases(n_threads, stop, work);
}

}  // namespace electra_fast::cpu
