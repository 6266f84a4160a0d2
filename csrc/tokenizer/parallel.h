// Runs work on several threads, each with its own worker.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "spare.h"
#include "threads.h"
#include "tokenizer/encoder.h"
#include "tokenizer/stop.h"

namespace electra_fast {

// Workers of finished threads; they keep their caches for the next call.
using WorkerPool = Spare<Worker, 64>;

// Calls work(worker) with a worker of the pool.
template <typename Work>
void run_with_worker(WorkerPool& pool, Stop& stop, const Work& work) {
    std::unique_ptr<Worker> worker = pool.take();
    if (!worker) worker = std::make_unique<Worker>();
    worker->stop = &stop;
    work(*worker);
    worker->stop = nullptr;
    pool.give_back(std::move(worker));
}

// Calls work(worker) once on each of n_threads threads, including this one; on fewer if the system gives no more.
// An error of one thread stops the others, and is thrown here once all have ended.
template <typename Work>
void run_on_threads(std::size_t n_threads, WorkerPool& pool, Stop& stop, const Work& work) {
    std::mutex mutex;
    std::condition_variable one_ended;
    std::size_t n_ended = 0;  // of the other threads
    const auto run = [&](std::size_t rank) {
        try {
            run_with_worker(pool, stop, work);
        } catch (...) {
            stop.fail();
        }
        if (rank == 0) return;
        const std::lock_guard lock(mutex);
        ++n_ended;
        one_ended.notify_one();
    };
    std::vector<std::thread> threads = begin_threads(n_threads, run);
    run(0);
    // This thread alone can be asked to stop, also while it waits for the others.
    for (std::unique_lock lock(mutex); n_ended < threads.size(); one_ended.wait_for(lock, Stop::kPeriod)) {
        lock.unlock();
        stop.ask();
        lock.lock();
    }
    for (std::thread& thread : threads) thread.join();
    stop.rethrow();
}

}  // namespace electra_fast
