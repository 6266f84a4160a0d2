// The end of a call before its work is done: its caller wishes it, or one of its threads has failed.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <exception>
#include <functional>
#include <thread>
#include <utility>

namespace electra_fast {

// Thrown where work ends early; whoever began the work calls `Stop::rethrow` then.
struct Stopped {};

class Stop {
public:
    // Text between two checks, in bytes: a fraction of a millisecond's work, which hides what a check costs.
    static constexpr std::size_t kStep = std::size_t{1} << 16;
    static constexpr std::chrono::milliseconds kPeriod{50};

    // wish: whether the call shall end; asked once a period, and only by the thread that makes this object.
    explicit Stop(std::function<bool()> wish) : wish_(std::move(wish)) {}
    Stop(const Stop&) = delete;
    Stop& operator=(const Stop&) = delete;

    // Throws Stopped if the call must end.
    void check() {
        if (std::this_thread::get_id() == caller_) ask();
        if (is_set_.load(std::memory_order_relaxed)) throw Stopped();
    }

    // Asks the caller for its wish, if a period is over.
    void ask() {
        const auto now = std::chrono::steady_clock::now();
        if (now - asked_ < kPeriod) return;
        if (wish_()) is_set_ = true;
        asked_ = std::chrono::steady_clock::now();
    }

    // Ends the call for the error that is being handled. The first one is kept, and Stopped is none.
    void fail() {
        if (!is_set_.exchange(true)) error_ = std::current_exception();
    }

    // Throws what has ended the call, if anything has. All threads must have ended.
    void rethrow() const {
        if (error_) std::rethrow_exception(error_);
        if (is_set_) throw Stopped();
    }

private:
    const std::thread::id caller_ = std::this_thread::get_id();
    const std::function<bool()> wish_;
    std::chrono::steady_clock::time_point asked_ = std::chrono::steady_clock::now();
    std::atomic<bool> is_set_{false};
    std::exception_ptr error_;
};

}  // namespace electra_fast
