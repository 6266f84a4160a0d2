#include "cpu/team.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <exception>
#include <limits>
#include <memory>
#include <thread>
#include <vector>

#include "threads.h"

#ifndef _WIN32
#include <time.h>
#include <unistd.h>
#endif

namespace electra_fast::cpu {

namespace {

using Work = std::function<Nanoseconds(int rank, int size)>;

#ifdef _WIN32
int getpid() { return 0; }  // no process is forked there
Nanoseconds computed_time() { return Nanoseconds(0); }  // nobody asks: there is no OpenMP to borrow from
#else
// The time that this thread has computed.
Nanoseconds computed_time() {
    timespec time{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return std::chrono::seconds(time.tv_sec) + Nanoseconds(time.tv_nsec);
}
#endif

// --- torch's threads ---

// The process that OpenMP's threads belong to. A forked child has none of them, and would wait for them.
const auto kLoadedBy = getpid();

OpenMp openmp;

// Tells whether the system gives this thread a team of `most` now. OpenMP's runtime ends the process where it cannot
// start its threads, so they are tried first, once for each size that grows.
bool can_start(int most) {
    thread_local int known = 1;
    if (most <= known) return true;
    std::atomic<bool> are_all_here{false};
    const auto stay = [&](std::size_t) {
        while (!are_all_here.load(std::memory_order_acquire)) std::this_thread::yield();
    };
    std::vector<std::thread> threads = begin_threads(static_cast<std::size_t>(most), stay);
    are_all_here.store(true, std::memory_order_release);
    for (std::thread& thread : threads) thread.join();
    if (static_cast<int>(threads.size()) + 1 < most) return false;
    known = most;
    return true;
}

// Whether other processes compute on our cores, as far as calls on torch's threads tell.
class SharedCores {
public:
    bool are_here() const { return Clock::now().time_since_epoch().count() < until_.load(std::memory_order_relaxed); }

    // Tells of a call, and for how long one of its threads was kept from computing. Where that was a millisecond and a
    // quarter of the call, and so again within eight calls, cores count as shared for two seconds.
    void note(Nanoseconds lost, Nanoseconds call) {
        if (lost < std::chrono::milliseconds(1) || lost < call / 4) {
            if (n_suspected_.load(std::memory_order_relaxed) > 0) n_suspected_.fetch_sub(1, std::memory_order_relaxed);
        } else if (n_suspected_.exchange(8, std::memory_order_relaxed) > 0) {
            until_.store((Clock::now() + std::chrono::seconds(2)).time_since_epoch().count(), std::memory_order_relaxed);
        }
    }

private:
    std::atomic<Clock::rep> until_{std::numeric_limits<Clock::rep>::min()};
    std::atomic<int> n_suspected_{0};  // calls that are still under suspicion
};

SharedCores shared_cores;

void run_on_openmp(int most, const Work& work) {
    const auto enter = [](void* data) {
        (*static_cast<const Work*>(data))(openmp.thread_number(), openmp.n_threads());
    };
    openmp.parallel(enter, const_cast<Work*>(&work), static_cast<unsigned>(most), 0);
}

// The same, and finds out whether cores are shared. To ask for times of threads enters the system, where a thread may lose
// its core: it is not for the many short calls of a training step.
void run_and_watch(int most, const Work& work) {
    struct Call {
        const Work& work;
        Clock::time_point begin = Clock::now();
        std::atomic<Nanoseconds::rep> lost{0};
    } call{work};
    const auto enter = [](void* data) {
        Call& call = *static_cast<Call*>(data);
        const Nanoseconds before = computed_time(), slept = call.work(openmp.thread_number(), openmp.n_threads());
        const Nanoseconds lost = Clock::now() - call.begin - slept - (computed_time() - before);
        Nanoseconds::rep known = call.lost.load(std::memory_order_relaxed);
        while (lost.count() > known && !call.lost.compare_exchange_weak(known, lost.count())) {}
    };
    openmp.parallel(enter, &call, static_cast<unsigned>(most), 0);
    shared_cores.note(Nanoseconds(call.lost.load(std::memory_order_relaxed)), Clock::now() - call.begin);
}

// --- threads of ours ---

// A thread that sleeps until a call has work for it, and after it. It lives as long as the process.
class Helper {
public:
    // Returns a helper that nobody has, or null where the system gives no more threads.
    static Helper* take();
    void give_back();

    // Lets it call work(rank, size) once, soon.
    void begin(const Work& work, int rank, int size);
    // Returns when it is not at work, and will not be: what it has not begun by now it does not begin.
    void end();

private:
    enum State : int { kIdle, kAsked, kAtWork };

    static Helper* start();
    void serve();

    std::atomic<int> state_{kIdle};
    const Work* work_ = nullptr;
    int rank_ = 0, size_ = 0;
    const int process_ = static_cast<int>(getpid());  // a forked child does not have its parent's threads
};

// Helpers that nobody has, without a lock: a process may be forked at any time.
std::array<std::atomic<Helper*>, 256> idle_helpers;

Helper* Helper::take() {
    for (auto& place : idle_helpers) {
        if (!place.load(std::memory_order_relaxed)) continue;
        Helper* const helper = place.exchange(nullptr, std::memory_order_acquire);
        if (helper && helper->process_ == getpid()) return helper;
    }
    return start();
}

void Helper::give_back() {
    for (auto& place : idle_helpers) {
        Helper* none = nullptr;
        if (place.compare_exchange_strong(none, this, std::memory_order_release)) return;
    }
}

Helper* Helper::start() try {
    auto helper = std::make_unique<Helper>();
    std::thread([serving = helper.get()] { serving->serve(); }).detach();
    return helper.release();
} catch (const std::exception&) {
    return nullptr;
}

void Helper::serve() {
    for (;;) {
        state_.wait(kIdle, std::memory_order_relaxed);
        int asked = kAsked;
        if (!state_.compare_exchange_strong(asked, kAtWork, std::memory_order_acquire)) continue;
        (*work_)(rank_, size_);
        state_.store(kIdle, std::memory_order_release);
        state_.notify_all();
    }
}

void Helper::begin(const Work& work, int rank, int size) {
    work_ = &work;
    rank_ = rank;
    size_ = size;
    state_.store(kAsked, std::memory_order_release);
    state_.notify_all();
}

void Helper::end() {
    int asked = kAsked;
    if (state_.compare_exchange_strong(asked, kIdle, std::memory_order_relaxed)) return;
    while (state_.load(std::memory_order_acquire) == kAtWork) state_.wait(kAtWork, std::memory_order_acquire);
}

void run_with_helpers(int most, const Work& work) {
    std::vector<Helper*> helpers(static_cast<std::size_t>(most) - 1);
    std::generate(helpers.begin(), helpers.end(), Helper::take);
    helpers.erase(std::remove(helpers.begin(), helpers.end(), nullptr), helpers.end());
    const int size = static_cast<int>(helpers.size()) + 1;
    for (int rank = 1; rank < size; ++rank) helpers[static_cast<std::size_t>(rank) - 1]->begin(work, rank, size);
    work(0, size);
    for (Helper* const helper : helpers) {
        helper->end();
        helper->give_back();
    }
}

}  // namespace

void use_openmp(const OpenMp& given) {
    // The first runtime stays: teams may be at work with it.
    if (!openmp.parallel) openmp = given;
}

void run_team(int most, Others others, const Work& work) {
    const bool has_openmp = openmp.parallel && getpid() == kLoadedBy;
    if (most <= 1) {
        work(0, 1);
    } else if (others == Others::kTorchs && has_openmp && can_start(most)) {
        run_on_openmp(most, work);
    } else if (has_openmp && !shared_cores.are_here() && can_start(most)) {
        run_and_watch(most, work);
    } else {
        run_with_helpers(most, work);
    }
}

}  // namespace electra_fast::cpu
