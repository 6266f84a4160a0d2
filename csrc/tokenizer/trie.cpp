#include "tokenizer/trie.h"

#include <algorithm>

namespace electra_fast {
namespace {

constexpr std::uint32_t kFree = 0xffffffff;  // the parent of nodes that are not in use, and of the root
constexpr std::uint32_t kMaxTries = 64;

}  // namespace

Trie::Trie(std::vector<std::pair<std::string, std::int32_t>> keys) {
    std::stable_sort(keys.begin(), keys.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    nodes_.assign(kFirstChild, {0, kFree, kNoValue});

    // A node, and the keys that pass through it, which agree in their first `depth` bytes.
    struct Task {
        std::uint32_t node;
        std::size_t depth, first, last;
    };
    std::vector<Task> tasks{{0, 0, 0, keys.size()}};
    std::vector<unsigned char> bytes;
    while (!tasks.empty()) {
        auto [node, depth, first, last] = tasks.back();
        tasks.pop_back();
        for (; first < last && keys[first].first.size() == depth; ++first) nodes_[node].value = keys[first].second;
        if (first == last) continue;  // a leaf's base stays 0: no node has it as parent
        const std::size_t first_task = tasks.size();
        bytes.clear();
        for (std::size_t i = first; i < last; ++i) {
            const auto byte = static_cast<unsigned char>(keys[i].first[depth]);
            if (bytes.empty() || bytes.back() != byte) {
                bytes.push_back(byte);
                tasks.push_back({0, depth + 1, i, i});
            }
            tasks.back().last = i + 1;
        }
        const std::uint32_t base = find_base(bytes);
        nodes_[node].base = base;
        for (std::size_t i = 0; i < bytes.size(); ++i) {
            nodes_[base + bytes[i]].parent = node;
            tasks[first_task + i].node = base + bytes[i];
        }
    }
    // A base is at most the last node that is in use, and any byte may be looked up from there.
    const auto in_use = [](const Node& node) { return node.parent != kFree; };
    const auto last = std::find_if(nodes_.rbegin(), nodes_.rend(), in_use);
    nodes_.resize(static_cast<std::size_t>(nodes_.rend() - last) + 256, {0, kFree, kNoValue});
    nodes_.shrink_to_fit();
}

// A base that puts all children on free nodes, with room for any byte after it. Single children fill the gaps; siblings
// seldom fit there, so they look where it is less crowded.
std::uint32_t Trie::find_base(std::span<const unsigned char> bytes) {
    while (first_free_ < nodes_.size() && nodes_[first_free_].parent != kFree) ++first_free_;
    const std::uint32_t first = (bytes.size() == 1 ? first_free_ : std::max(first_free_, uncrowded_)) - bytes.front();
    std::uint32_t base = first;
    const auto taken = [&](unsigned char byte) { return nodes_[base + byte].parent != kFree; };
    for (;; ++base) {
        if (nodes_.size() < base + 256) nodes_.resize(base + nodes_.size() / 2 + 256, {0, kFree, kNoValue});
        if (std::none_of(bytes.begin(), bytes.end(), taken)) break;
    }
    if (bytes.size() > 1 && base - first > kMaxTries) uncrowded_ = base;
    return base;
}

}  // namespace electra_fast
