// Work stealing: threads go through the phases of a call together, each with a share of a phase's tasks. Whoever is
// done takes tasks from the shares of others, and nobody waits for a thread that is late.

#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "cpu/index.h"
#include "cpu/team.h"

namespace electra_fast::cpu {

// What the threads of a call share. A phase is over when its tasks are done, so nobody waits for a thread that has
// none, be it asleep: it finds later that the phase is over.
class Shares {
public:
    explicit Shares(int n_threads) : shares_(static_cast<std::size_t>(n_threads)) {}

    // Takes a piece of a thread's share of a phase, which has `n` of them: the owner from the front, others from the
    // back. Returns the piece, or -1 if none is left.
    int take(std::uint32_t phase, int rank, int n, bool is_owner) {
        std::atomic<std::uint64_t>& share = shares_[static_cast<std::size_t>(rank)].taken;
        std::uint64_t taken = share.load(std::memory_order_relaxed);
        for (;;) {
            // Where nobody has taken a piece in this phase, the counts are those of an earlier one.
            const std::uint64_t counts = taken >> 32 == phase ? taken : std::uint64_t{phase} << 32;
            const int front = static_cast<int>(counts & 0xffff), back = static_cast<int>(counts >> 16 & 0xffff);
            if (taken >> 32 > phase || front + back >= n) return -1;
            if (share.compare_exchange_weak(taken, counts + (is_owner ? 1 : 1 << 16), std::memory_order_relaxed))
                return is_owner ? front : n - 1 - back;
        }
    }

    // Tells that a thread has done so many of a phase's pieces; the last one begins the next phase.
    void finish(int n, int n_pieces) {
        if (n_done_.fetch_add(n, std::memory_order_acq_rel) + n != n_pieces) return;
        n_done_.store(0, std::memory_order_relaxed);
        phase_.fetch_add(1, std::memory_order_release);
        phase_.notify_all();
    }

    // Waits until the phase, of which no piece is left, is over, and adds the time that it has slept. Returns false
    // once the call is to stop.
    bool wait(std::uint32_t phase, Nanoseconds& slept) const {
        Clock::time_point awake_until{};
        for (int looks = 1;; ++looks) {
            const std::uint32_t now = phase_.load(std::memory_order_acquire);
            if (now != phase) return now < kStopped;
            if (looks % kLooks) {
                pause();
            } else if (looks == kLooks) {
                awake_until = Clock::now() + kAwake;
            } else if (const auto begin = Clock::now(); begin >= awake_until) {
                phase_.wait(now, std::memory_order_acquire);
                slept += Clock::now() - begin;
            }
        }
    }

    // Ends all phases. Tasks of other threads may still be running.
    void stop() {
        phase_.fetch_or(kStopped, std::memory_order_relaxed);
        phase_.notify_all();
    }

private:
    // Phases take microseconds, so a thread waits awake at first. A thread that waits for long waits for one that has
    // lost its core to other processes: asleep it leaves that one its own.
    static constexpr std::chrono::microseconds kAwake{100};
    static constexpr int kLooks = 64;
    static constexpr std::uint32_t kStopped = 1u << 31;

    // The phase, and how many pieces have been taken in it from the back and from the front.
    struct alignas(64) Share {
        std::atomic<std::uint64_t> taken{0};
    };
    std::vector<Share> shares_;
    alignas(64) std::atomic<std::uint32_t> phase_{0};
    alignas(64) std::atomic<int> n_done_{0};
};

// One thread's way through them.
class Thief {
public:
    Thief(Shares& shares, Stop& stop, int rank, int n_threads)
        : rank(rank), n_threads(n_threads), shared_(shares), stop_(stop) {}

    // Calls task(i) for some i < n_tasks, until all threads together have made all calls. Returns false where the call
    // is to stop, with tasks undone. A thread takes neighbours as long as it can: what they read is read in order.
    template <typename Task>
    bool each(Index n_tasks, const Task& task) {
        if (n_tasks == 0) return true;
        const int n_pieces = static_cast<int>(std::min<Index>(n_tasks, kPieces * n_threads));
        int n_done = 0;
        for (int i = 0; i < n_threads; ++i) {
            const int owner = (rank + i) % n_threads;
            const int first = n_pieces * owner / n_threads, n = n_pieces * (owner + 1) / n_threads - first;
            for (int piece; (piece = shared_.take(phase_, owner, n, i == 0)) >= 0; ++n_done) {
                const Index number = first + piece, end = n_tasks * (number + 1) / n_pieces;
                for (Index j = n_tasks * number / n_pieces; j < end; ++j) {
                    if (rank == 0) stop_.ask();
                    if (stop_.is_set()) {
                        shared_.stop();
                        return false;
                    }
                    task(j);
                }
            }
        }
        if (n_done) shared_.finish(n_done, n_pieces);
        return shared_.wait(phase_++, slept_);
    }

    Nanoseconds slept() const { return slept_; }

    const int rank, n_threads;

private:
    // Pieces that a thread's share of a phase is taken in.
    static constexpr int kPieces = 32;

    Shares& shared_;
    Stop& stop_;
    std::uint32_t phase_ = 0;
    Nanoseconds slept_{0};
};

// Calls work(thief) on each of up to n_threads threads; returns false once `wants_stop` said yes. `work` must not throw.
template <typename Work>
bool run_stealing(int n_threads, const std::function<bool()>& wants_stop, const Work& work) {
    Stop stop(wants_stop);
    Shares shares(n_threads);
    run_team(n_threads, Others::kSleepers, [&](int rank, int size) {
        Thief thief(shares, stop, rank, size);
        work(thief);
        return thief.slept();
    });
    return !stop.is_set();
}

}  // namespace electra_fast::cpu
