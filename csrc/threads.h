// Threads that live as long as one call.
#pragma once

#include <cstddef>
#include <exception>
#include <thread>
#include <vector>

namespace electra_fast {

// Starts threads that call work(1) to work(n_threads - 1); fewer if the system gives no more. The caller does work(0)
// itself and joins the threads. `work` must live until then, and must not throw.
template <typename Work>
std::vector<std::thread> begin_threads(std::size_t n_threads, const Work& work) {
    std::vector<std::thread> threads;
    threads.reserve(n_threads);
    try {
        for (std::size_t rank = 1; rank < n_threads; ++rank) threads.emplace_back([&work, rank] { work(rank); });
    } catch (const std::exception&) {
        // The system gives no more threads, or no memory for one: those that run, and this one, do the work.
    }
    return threads;
}

}  // namespace electra_fast
