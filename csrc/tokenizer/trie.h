// A trie over bytes in a double array (Aoe 1989): node n's child by byte b is node base[n] + b, if that node's parent is n.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace electra_fast {

class Trie {
public:
    static constexpr std::int32_t kNoValue = -1;

    struct Match {
        std::size_t length = 0;  // bytes of the key; 0: no match
        std::int32_t value = kNoValue;
    };

    // keys: not empty; the last of two equal ones counts. values: at least 0.
    explicit Trie(std::vector<std::pair<std::string, std::int32_t>> keys);

    // Finds the longest key that text begins with.
    Match longest_prefix(std::string_view text) const {
        Match match;
        std::uint32_t node = 0;
        for (std::size_t i = 0; i < text.size(); ++i) {
            const std::uint32_t child = nodes_[node].base + static_cast<unsigned char>(text[i]);
            if (nodes_[child].parent != node) break;
            node = child;
            if (nodes_[node].value != kNoValue) match = {i + 1, nodes_[node].value};
        }
        return match;
    }

private:
    struct Node {
        std::uint32_t base;
        std::uint32_t parent;
        std::int32_t value;
    };
    static constexpr std::uint32_t kFirstChild = 256;  // lower nodes could be children by some bytes only

    std::uint32_t find_base(std::span<const unsigned char> bytes);

    std::vector<Node> nodes_;
    std::uint32_t first_free_ = kFirstChild;  // no free node is below this one
    std::uint32_t uncrowded_ = kFirstChild;   // few free nodes are below this one
};

}  // namespace electra_fast
