// Work for several threads, with no lock and no thread that outlives a call: a child that is forked in the middle of one
// finds nothing taken and waits for nobody.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <memory>
#include <system_error>
#include <thread>
#include <vector>

#include "tokenizer/encoder.h"

namespace electra_fast {

// Keeps the workers of finished threads, with what their caches know, for later ones.
class WorkerPool {
public:
    WorkerPool() = default;
    ~WorkerPool() {
        for (auto& place : places_) delete place.load();
    }
    WorkerPool(const WorkerPool&) = delete;
    WorkerPool& operator=(const WorkerPool&) = delete;

    std::unique_ptr<Worker> take() {
        for (auto& place : places_) {
            if (Worker* worker = place.exchange(nullptr)) return std::unique_ptr<Worker>(worker);
        }
        return std::make_unique<Worker>();
    }

    void give_back(std::unique_ptr<Worker> worker) {
        for (auto& place : places_) {
            Worker* expected = nullptr;
            if (place.compare_exchange_strong(expected, worker.get())) {
                static_cast<void>(worker.release());
                return;
            }
        }
    }

private:
    std::array<std::atomic<Worker*>, 64> places_{};
};

// Calls work(worker) on n_threads threads, this one among them. work must not throw.
template <typename Work>
void run_on_threads(std::size_t n_threads, WorkerPool& pool, const Work& work) {
    const auto run = [&] {
        std::unique_ptr<Worker> worker = pool.take();
        work(*worker);
        pool.give_back(std::move(worker));
    };
    std::vector<std::thread> threads;
    try {
        for (std::size_t i = 1; i < n_threads; ++i) threads.emplace_back(run);
    } catch (const std::system_error&) {
        // No more threads are to be had: those that run, and this one, do the work.
    }
    run();
    for (std::thread& thread : threads) thread.join();
}

}  // namespace electra_fast
