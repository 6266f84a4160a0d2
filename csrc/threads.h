// Threads that live for one call.
#pragma once

#include <cstddef>
#include <system_error>
#include <thread>
#include <vector>

namespace electra_fast {

// Begins threads beside this one, which call work(1) to work(n_threads - 1), or as many of them as the system gives.
// The caller joins them; `work` must live until then, and must not throw.
template <typename Work>
std::vector<std::thread> begin_threads(std::size_t n_threads, const Work& work) {
    std::vector<std::thread> threads;
    threads.reserve(n_threads);
    try {
        for (std::size_t rank = 1; rank < n_threads; ++rank) threads.emplace_back([&work, rank] { work(rank); });
    } catch (const std::system_error&) {
        // No more threads are to be had: those that run, and this one, do the work.
    }
    return threads;
}

}  // namespace electra_fast
