// Memory of results that stays with the process for later ones: fresh pages take longer than what fills them.

#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <deque>
#include <iterator>
#include <memory>
#include <new>
#include <optional>
#include <utility>

#include "pages.h"

namespace electra_fast {

// Memory of one result. Callers hold the GIL where one is made and where it ends.
class Room {
public:
    // Throws std::bad_alloc.
    explicit Room(std::size_t n_bytes) : n_bytes_(n_bytes), block_(kept().take(block_size(n_bytes))) {}
    ~Room() { kept().give_back(std::move(block_)); }
    Room(const Room&) = delete;
    Room& operator=(const Room&) = delete;

    std::byte* data() const { return block_->data(); }
    std::size_t n_bytes() const { return n_bytes_; }

private:
    // Bytes that nobody uses and that are kept in any case.
    static constexpr std::size_t kAlwaysKept = std::size_t{256} << 20;
    // Rooms that are taken before what was in use earlier is forgotten: those of a few training steps.
    static constexpr long kWindow = 10'000;
    // From so many bytes on memory has pages of its own, huge ones where the system has them.
    static constexpr std::size_t kOwnPages = std::size_t{8} << 20;
    static constexpr std::size_t kAlignment = 64;

    // The bytes of a block for so many: with 8 sizes between two powers of two, results of nearly the same size share
    // blocks.
    static std::size_t block_size(std::size_t n_bytes) {
        const std::size_t step = std::max(kAlignment, std::bit_floor(n_bytes) / 8);
        return (n_bytes + step - 1) / step * step;
    }

    struct Block {
        explicit Block(std::size_t n) : n_bytes(n) {
            if (n >= kOwnPages) {
                pages.emplace(n);
            } else {
                memory = static_cast<std::byte*>(::operator new(n, std::align_val_t{kAlignment}));
            }
        }
        ~Block() { ::operator delete(memory, std::align_val_t{kAlignment}); }
        Block(const Block&) = delete;
        Block& operator=(const Block&) = delete;

        std::byte* data() { return pages ? pages->data() : memory; }
        // Lets the system take the memory, with what is in it, where it runs short.
        void offer() {
            if (pages) pages->offer();
        }

        const std::size_t n_bytes;
        std::optional<ZeroedPages<std::byte>> pages;
        std::byte* memory = nullptr;
    };

    // Blocks that nobody uses; those that came back last are taken first, and the others go first. More is kept than
    // always while all memory together, in use or not, is no more than lately was in use at once, and half of that: what a
    // training step saves is free at its end, gradients have other sizes, and the next step needs both again. The system
    // may take large blocks meanwhile.
    class Kept {
    public:
        std::unique_ptr<Block> take(std::size_t n_bytes) {
            if (++n_taken_ % kWindow == 0) {
                earlier_ = most_;
                most_ = in_use_;
            }
            std::unique_ptr<Block> found = find(n_bytes);
            if (!found) found = std::make_unique<Block>(n_bytes);
            in_use_ += found->n_bytes;
            most_ = std::max(most_, in_use_);
            trim();
            return found;
        }
        void give_back(std::unique_ptr<Block> block) {
            in_use_ -= block->n_bytes;
            free_ += block->n_bytes;
            block->offer();
            blocks_.push_back(std::move(block));
            trim();
        }

    private:
        // A free block of that size, or else one of up to twice that: results of many sizes, as of batches of texts,
        // would each have memory of their own otherwise, more than the caches hold. Those with pages of their own are
        // beyond the caches anyway.
        std::unique_ptr<Block> find(std::size_t n_bytes) {
            auto found = blocks_.rend();
            for (auto block = blocks_.rbegin(); block != blocks_.rend(); ++block) {
                const std::size_t size = (*block)->n_bytes;
                if (size == n_bytes) {
                    found = block;
                    break;
                }
                if (found == blocks_.rend() && size < kOwnPages && n_bytes < size && size <= 2 * n_bytes) found = block;
            }
            if (found == blocks_.rend()) return nullptr;
            std::unique_ptr<Block> block = std::move(*found);
            blocks_.erase(std::next(found).base());
            free_ -= block->n_bytes;
            return block;
        }
        void trim() {
            for (; free_ > kAlwaysKept && in_use_ + free_ > std::max(most_, earlier_) / 2 * 3; blocks_.pop_front())
                free_ -= blocks_.front()->n_bytes;
        }

        std::deque<std::unique_ptr<Block>> blocks_;
        std::size_t in_use_ = 0, free_ = 0;
        std::size_t most_ = 0, earlier_ = 0;  // in use at once, in this window and in the one before
        long n_taken_ = 0;
    };

    // Never destroyed: tensors may end after what a program's end destroys.
    static Kept& kept() {
        static Kept& all = *new Kept;
        return all;
    }

    const std::size_t n_bytes_;
    std::unique_ptr<Block> block_;
};

}  // namespace electra_fast
