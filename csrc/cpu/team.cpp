#include "cpu/team.h"

#ifndef _WIN32
#include <unistd.h>
#endif

namespace electra_fast::cpu {

namespace {

#ifdef _WIN32
int getpid() { return 0; }  // no process is forked there
#endif

// The process that OpenMP's threads belong to. A forked child has none of them, and would wait for them.
const auto kLoadedBy = getpid();

OpenMp& runtime() {
    static OpenMp chosen;
    return chosen;
}

}  // namespace

bool OpenMp::is_usable() const { return parallel && getpid() == kLoadedBy; }

const OpenMp& openmp() { return runtime(); }

void use_openmp(const OpenMp& given) {
    // The first runtime stays: teams may be at work with it.
    if (!runtime().parallel) runtime() = given;
}

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

}  // namespace electra_fast::cpu
