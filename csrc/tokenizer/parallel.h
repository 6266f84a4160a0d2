// Runs work on several threads, each with its own worker.
#pragma once

#include <cstddef>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "spare.h"
#include "threads.h"
#include "tokenizer/encoder.h"

namespace electra_fast {

// Workers of finished threads; they keep their caches for the next call.
using WorkerPool = Spare<Worker, 64>;

inline std::unique_ptr<Worker> take_worker(WorkerPool& pool) {
    std::unique_ptr<Worker> worker = pool.take();
    return worker ? std::move(worker) : std::make_unique<Worker>();
}

// Calls work(worker) once on each of n_threads threads, including this one; on fewer if the system gives no more.
// `work` must not throw.
template <typename Work>
void run_on_threads(std::size_t n_threads, WorkerPool& pool, const Work& work) {
    const auto run = [&](std::size_t) {
        std::unique_ptr<Worker> worker = take_worker(pool);
        work(*worker);
        pool.give_back(std::move(worker));
    };
    std::vector<std::thread> threads = begin_threads(n_threads, run);
    run(0);
    for (std::thread& thread : threads) thread.join();
}

}  // namespace electra_fast
