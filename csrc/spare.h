// Objects that calls borrow without a lock: a process that is forked in the middle of a call finds nothing locked.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <memory>

namespace electra_fast {

// Keeps up to N objects between the calls that use them.
template <typename T, std::size_t N>
class Spare {
public:
    Spare() = default;
    ~Spare() {
        for (auto& place : places_) delete place.load();
    }
    Spare(const Spare&) = delete;
    Spare& operator=(const Spare&) = delete;

    // Returns an object that no other call is using, or null.
    std::unique_ptr<T> take() {
        for (auto& place : places_) {
            if (T* const found = place.exchange(nullptr)) return std::unique_ptr<T>(found);
        }
        return nullptr;
    }

    // Keeps the object for a later call, or deletes it if all places are taken.
    void give_back(std::unique_ptr<T> object) {
        for (auto& place : places_) {
            T* expected = nullptr;
            if (place.compare_exchange_strong(expected, object.get())) {
                static_cast<void>(object.release());
                return;
            }
        }
    }

private:
    std::array<std::atomic<T*>, N> places_{};
};

}  // namespace electra_fast
