// Large pieces of memory, straight from the system's pages.
#pragma once

#ifdef _WIN32
#ifndef NOMINMAX
#define NOMINMAX
#endif
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
#else
#include <sys/mman.h>
#include <unistd.h>
#endif
#ifdef __GLIBC__
#include <malloc.h>
#endif

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <utility>
#include <vector>

namespace electra_fast {

constexpr std::size_t kHugePage = std::size_t{2} << 20;

// Asks for huge pages, if the system has them: they take one page fault per two megabytes instead of one per four
// kilobytes, and fewer address translations if memory is touched at random. The advice is for all pages that hold some of
// the data: one for a part of a mapping would part it, and realloc could not move it but would copy all of it.
inline void advise_huge_pages([[maybe_unused]] void* data, [[maybe_unused]] std::size_t n_bytes) {
#ifdef MADV_HUGEPAGE
    const auto page = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
    const auto begin = reinterpret_cast<std::uintptr_t>(data) / page * page;
    const auto end = (reinterpret_cast<std::uintptr_t>(data) + n_bytes + page - 1) / page * page;
    madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);  // an advice: may be refused
#endif
}

// Pages of zeros, which take memory only where they are touched; throws std::bad_alloc where there are none.
inline void* take_pages(std::size_t n_bytes) {
#ifdef _WIN32
    void* const memory = VirtualAlloc(nullptr, n_bytes, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE);
    if (!memory) throw std::bad_alloc();
#else
    void* const memory = mmap(nullptr, n_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
#endif
    return memory;
}

inline void give_back_pages(void* memory, [[maybe_unused]] std::size_t n_bytes) {
#ifdef _WIN32
    VirtualFree(memory, 0, MEM_RELEASE);
#else
    munmap(memory, n_bytes);
#endif
}

// Gives free memory of the allocator back to the system, where the allocator knows how.
inline void trim_memory() {
#ifdef __GLIBC__
    malloc_trim(0);
#endif
}

// a b, for sizes of memory; throws std::bad_alloc where no memory could be that large.
inline std::size_t size_product(std::size_t a, std::size_t b) {
    std::size_t product;
    if (__builtin_mul_overflow(a, b, &product) || product > PTRDIFF_MAX / 2) throw std::bad_alloc();
    return product;
}

// An array of zeros that takes memory only where it is touched. All bytes zero must be a valid T.
template <typename T>
class ZeroedPages {
public:
    explicit ZeroedPages(std::size_t n) : n_bytes_(size_product(n, sizeof(T)) + kHugePage), memory_(take_pages(n_bytes_)) {
        advise_huge_pages(memory_, n_bytes_);
        const auto address = reinterpret_cast<std::uintptr_t>(memory_);
        values_ = reinterpret_cast<T*>((address + kHugePage - 1) / kHugePage * kHugePage);
    }
    ~ZeroedPages() { give_back_pages(memory_, n_bytes_); }
    ZeroedPages(const ZeroedPages&) = delete;
    ZeroedPages& operator=(const ZeroedPages&) = delete;

    // Lets the system take the pages, with what is in them, where it runs short of memory, until they are written again.
    void offer() {
#ifdef MADV_FREE
        madvise(memory_, n_bytes_, MADV_FREE);
#endif
    }

    T* data() { return values_; }
    const T* data() const { return values_; }
    T& operator[](std::size_t i) { return values_[i]; }
    const T& operator[](std::size_t i) const { return values_[i]; }

private:
    const std::size_t n_bytes_;
    void* const memory_;
    T* values_;
};

// Memory of arrays that end together. They share huge pages: an array with pages of its own takes up to one too many.
class Arena {
public:
    // n zeros, which begin at a cache line. All bytes zero must be a valid T. Throws std::bad_alloc.
    template <typename T>
    T* take(std::size_t n) {
        const std::size_t n_bytes = size_product((size_product(n, sizeof(T)) + kAlignment - 1) / kAlignment, kAlignment);
        if (n_bytes > left_) {
            const std::size_t size = std::max(n_bytes, kBlock);
            blocks_.push_back(std::make_unique<ZeroedPages<std::byte>>(size));
            next_ = blocks_.back()->data();
            left_ = size;
        }
        left_ -= n_bytes;
        return reinterpret_cast<T*>(std::exchange(next_, next_ + n_bytes));
    }

private:
    static constexpr std::size_t kAlignment = 64;
    // Bytes asked of the system at once: many pages, so that few are filled in part.
    static constexpr std::size_t kBlock = std::size_t{32} << 20;

    std::vector<std::unique_ptr<ZeroedPages<std::byte>>> blocks_;
    std::byte* next_ = nullptr;
    std::size_t left_ = 0;
};

}  // namespace electra_fast
