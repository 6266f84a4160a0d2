// Memory of results that stays with the process for later ones: fresh pages take longer than what fills them.

#pragma once

#include <cstddef>
#include <memory>

namespace electra_fast::cpu {

// Memory of one result. Callers hold the GIL where one is made and where it ends.
class Room {
public:
    // Throws std::bad_alloc.
    explicit Room(std::size_t n_bytes);
    ~Room();
    Room(const Room&) = delete;
    Room& operator=(const Room&) = delete;

    std::byte* data() const;
    std::size_t n_bytes() const { return n_bytes_; }

    struct Block;

private:
    const std::size_t n_bytes_;
    std::unique_ptr<Block> block_;
};

}  // namespace electra_fast::cpu
