// Work for several threads, with no lock and no thread that outlives a call: a child that is forked in the middle of one
// finds nothing taken and waits for nobody.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <exception>
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

// Calls task(index, worker) for every index below n_tasks; rethrows the exception of the lowest index that has one.
template <typename Task>
void for_each_task(std::size_t n_tasks, std::size_t n_threads, WorkerPool& pool, const Task& task) {
    std::atomic<std::size_t> next{0};
    std::vector<std::exception_ptr> errors(n_tasks);
    const auto work = [&] {
        std::unique_ptr<Worker> worker;
        for (std::size_t index; (index = next.fetch_add(1)) < n_tasks;) {
            try {
                if (!worker) worker = pool.take();
                task(index, *worker);
            } catch (...) {
                errors[index] = std::current_exception();
            }
        }
        if (worker) pool.give_back(std::move(worker));
    };
    std::vector<std::thread> threads;
    try {
        for (std::size_t i = 1; i < std::min(n_threads, n_tasks); ++i) threads.emplace_back(work);
    } catch (const std::system_error&) {
        // No more threads are to be had: those that run, and this one, do the work.
    }
    work();
    for (std::thread& thread : threads) thread.join();
    for (const std::exception_ptr& error : errors) {
        if (error) std::rethrow_exception(error);
    }
}

}  // namespace electra_fast
