#include "cpu/room.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <deque>
#include <new>
#include <optional>
#include <utility>

#include "pages.h"

namespace electra_fast::cpu {

namespace {

// Bytes that nobody uses and that are kept all the same.
constexpr std::size_t kMostKept = std::size_t{256} << 20;
// From so many bytes on memory has pages of its own, huge ones where the system has them.
constexpr std::size_t kOwnPages = std::size_t{8} << 20;
constexpr std::size_t kAlignment = 64;

// The bytes of a block for so many: with 8 sizes between two powers of two, results of nearly the same size share blocks.
std::size_t block_size(std::size_t n_bytes) {
    const std::size_t step = std::max(kAlignment, std::bit_floor(n_bytes) / 8);
    return (n_bytes + step - 1) / step * step;
}

}  // namespace

struct Room::Block {
    explicit Block(std::size_t n) : n_bytes(n) {
        if (n >= kOwnPages) {
            pages.emplace(n);
        } else if (!(memory = static_cast<std::byte*>(std::aligned_alloc(kAlignment, n)))) {
            throw std::bad_alloc();
        }
    }
    ~Block() { std::free(memory); }
    Block(const Block&) = delete;
    Block& operator=(const Block&) = delete;

    std::byte* data() { return pages ? pages->data() : memory; }

    const std::size_t n_bytes;

private:
    std::optional<ZeroedPages<std::byte>> pages;
    std::byte* memory = nullptr;
};

namespace {

// Blocks that nobody uses; those that came back last are taken first, and the others go first.
class Kept {
public:
    std::unique_ptr<Room::Block> take(std::size_t n_bytes) {
        for (auto block = blocks_.rbegin(); block != blocks_.rend(); ++block) {
            if ((*block)->n_bytes != n_bytes) continue;
            std::unique_ptr<Room::Block> found = std::move(*block);
            blocks_.erase(std::next(block).base());
            n_bytes_ -= n_bytes;
            return found;
        }
        return std::make_unique<Room::Block>(n_bytes);
    }
    void give_back(std::unique_ptr<Room::Block> block) {
        n_bytes_ += block->n_bytes;
        blocks_.push_back(std::move(block));
        for (; n_bytes_ > kMostKept; blocks_.pop_front()) n_bytes_ -= blocks_.front()->n_bytes;
    }

private:
    std::deque<std::unique_ptr<Room::Block>> blocks_;
    std::size_t n_bytes_ = 0;
};

// Never destroyed: tensors may end after what a program's end destroys.
Kept& kept() {
    static Kept& all = *new Kept;
    return all;
}

}  // namespace

Room::Room(std::size_t n_bytes) : n_bytes_(n_bytes), block_(kept().take(block_size(n_bytes))) {}
Room::~Room() { kept().give_back(std::move(block_)); }
std::byte* Room::data() const { return block_->data(); }

}  // namespace electra_fast::cpu
