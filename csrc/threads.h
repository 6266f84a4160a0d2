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
    // Where the system gives no more threads, or no memory for them, those that run and this one do the work. No
    // exception may leave: the threads that run would end the process when nobody has joined them.
    try {
        for (std::size_t rank = 1; rank < n_threads; ++rank) threads.emplace_back([&work, rank] { work(rank); });
    } catch (const std::exception&) {
    }
    return threads;
}

}  // namespace electra_fast
