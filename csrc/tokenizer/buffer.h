// An array of plain values that grows and leaves new ones unset: std::vector would write zeros over each page first.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <memory>
#include <new>
#include <type_traits>

#include "pages.h"

namespace electra_fast {

template <typename T>
class Buffer {
    static_assert(std::is_trivially_copyable_v<T>);
    struct Free {
        void operator()(T* values) const { std::free(values); }
    };

public:
    std::size_t size() const { return size_; }
    T* data() { return values_.get(); }
    const T* data() const { return values_.get(); }
    T& operator[](std::size_t i) { return values_.get()[i]; }
    const T& operator[](std::size_t i) const { return values_.get()[i]; }

    // Makes room for more values and returns where they begin; `advance` says how many were written.
    T* reserve(std::size_t more) {
        if (size_ + more > capacity_) reallocate(std::max(size_ + more, capacity_ + capacity_ / 2));
        return values_.get() + size_;
    }
    void advance(std::size_t written) { size_ += written; }
    void push_back(T value) {
        *reserve(1) = value;
        ++size_;
    }
    void resize(std::size_t n) {
        if (n > capacity_) reallocate(n);
        size_ = n;
    }
    // Copies n values of another buffer, from `begin` on, to `at`, for which there is room.
    void place(const Buffer& other, std::size_t begin, std::size_t n, std::size_t at) {
        std::copy_n(other.data() + begin, n, data() + at);
    }
    void clear() { size_ = 0; }
    // Hands over the values, for std::free. Spare room stays: that memory is untouched, and if it were given back,
    // malloc would take other memory, page by page, for the next array of this size.
    T* release() {
        reserve(1);  // a pointer to something, even for no values
        size_ = capacity_ = 0;
        return values_.release();
    }

private:
    // From this size on glibc's malloc never uses freed memory again, so that every page faults.
    static constexpr std::size_t kAlwaysFresh = std::size_t{32} << 20;

    void reallocate(std::size_t capacity) {
        // realloc to no bytes may free, so we ask for at least one.
        void* moved = std::realloc(values_.get(), std::max<std::size_t>(capacity * sizeof(T), 1));
        if (!moved) throw std::bad_alloc();
        static_cast<void>(values_.release());
        values_.reset(static_cast<T*>(moved));
        capacity_ = capacity;
        if (capacity * sizeof(T) >= kAlwaysFresh) advise_huge_pages(moved, usable(moved, capacity * sizeof(T)));
    }

    // The bytes of a piece of memory, of which n_bytes were asked for.
    static std::size_t usable([[maybe_unused]] void* memory, [[maybe_unused]] std::size_t n_bytes) {
#ifdef __GLIBC__
        return malloc_usable_size(memory);
#else
        return n_bytes;
#endif
    }

    std::unique_ptr<T, Free> values_;
    std::size_t size_ = 0, capacity_ = 0;
};

}  // namespace electra_fast
