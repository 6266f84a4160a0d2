// A cache from chunks, the text between white space as it stands, to their tokens. Each thread has one of fixed size.
//
// A chunk of at most 15 bytes is its own key: the bytes, then zeros, then the length. Two entries share a cache line and
// are looked at together; a new one takes the first place, the first moves to the second, and the second goes. Up to
// three tokens lie in the entry, spans included. More of them lie in a ring; once later ones overwrite them there, the
// entry is as good as absent. Longer chunks, up to 64 bytes, have entries of their own, with their bytes beside them and
// all tokens in the ring: outside of ASCII most words are so long.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

#include "pages.h"
#include "tokenizer/token.h"

namespace electra_fast {

static_assert(std::endian::native == std::endian::little);

namespace detail {

// Masks for lengths 0 to 15: the low and the high half of as many 0xff bytes.
consteval std::array<std::uint64_t, 32> masks_by_length() {
    std::array<std::uint64_t, 32> masks{};
    for (std::size_t length = 1; length < 16; ++length) {
        masks[2 * length] = length >= 8 ? ~std::uint64_t{0} : (std::uint64_t{1} << 8 * length) - 1;
        masks[2 * length + 1] = length > 8 ? (std::uint64_t{1} << 8 * (length - 8)) - 1 : 0;
    }
    return masks;
}

inline constexpr std::array<std::uint64_t, 32> kMasks = masks_by_length();

}  // namespace detail

struct ChunkKey {
    static constexpr std::size_t kLongest = 15;

    std::uint64_t low, high;  // not set by default: an array of keys would be cleared for every text

    // length: at least 1. padded: whether 16 bytes can be read from `text` on.
    static ChunkKey of(const char* text, std::size_t length, bool padded) {
        if (length > kLongest) return {0, std::uint64_t{kLongest + 1} << 56};  // no entry has this key
        ChunkKey key{};
        if (padded) [[likely]] {
            std::memcpy(&key, text, 16);
            key.low &= detail::kMasks[2 * length];
            key.high &= detail::kMasks[2 * length + 1];
        } else {
            std::memcpy(&key, text, length);
        }
        key.high |= std::uint64_t{length} << 56;
        return key;
    }

    // Compares both halves at once, so that there is one branch.
    bool operator==(const ChunkKey& other) const { return ((low ^ other.low) | (high ^ other.high)) == 0; }
};

class WordCache {
public:
    static constexpr std::uint32_t kInline = 3;

    struct Entry {
        ChunkKey key;                     // {0, 0}: no entry
        std::array<std::int32_t, 4> ids;  // the last is the layout; all four are 16 bytes, copied at once

        std::uint32_t layout() const { return static_cast<std::uint32_t>(ids[kInline]); }
        std::uint32_t n_tokens() const { return layout() & 15; }
        // The layout of the first, second or third token, for entries of at most kInline tokens.
        std::uint32_t begin(std::uint32_t token) const { return layout() >> (8 * token + 4) & 15; }
        std::uint32_t end(std::uint32_t token) const { return layout() >> (8 * token + 8) & 15; }
        std::uint32_t starts_word(std::uint32_t token) const { return token ? layout() >> (27 + token) & 1 : 0; }
        // The number of tokens that the ring had taken before these, for entries of more than kInline.
        std::uint64_t ring_position() const { return std::bit_cast<std::uint64_t>(std::array{ids[0], ids[1]}); }
    };

    struct SmallToken {
        std::int32_t id;
        std::uint8_t begin, end, word;
    };

    WordCache() : lines_(kLines), long_(kLongs), ring_(kRing) {}

    std::size_t line_of(const ChunkKey& key) const {
        // A multiply-shift hash: the upper bits depend on all of the key.
        return (key.low * 0x9e3779b97f4a7c15 + key.high * 0xc2b2ae3d27d4eb4f) >> (64 - kLineBits);
    }
    void prefetch(std::size_t line) const { __builtin_prefetch(&lines_[line]); }

    // The entry of a key, or null.
    const Entry* find(std::size_t line, const ChunkKey& key) const {
        const auto& entries = lines_[line].entries;
        const Entry& entry = entries[entries[1].key == key];  // an index, not a branch, which could not be predicted
        return entry.key == key ? &entry : nullptr;
    }

    // The tokens of an entry with more than kInline; null if they are gone.
    const SmallToken* in_ring(const Entry& entry) const {
        return known_at(entry.ring_position());
    }

    // A chunk of more than ChunkKey::kLongest bytes, and of kMostBytes at most.
    static constexpr std::size_t kMostBytes = 64;
    struct LongEntry {
        std::uint64_t position;  // of the tokens in the ring
        std::uint32_t n_tokens;
        std::uint32_t length;    // 0: no entry
        std::array<char, kMostBytes> bytes;
    };

    // The place of a long chunk's entry.
    static std::size_t place_of(std::string_view chunk) {
        std::uint64_t hash = chunk.size();
        const auto mix = [&hash](const char* eight) {
            std::uint64_t word;
            std::memcpy(&word, eight, 8);
            hash = std::rotl(hash ^ word, 29) * 0x9e3779b97f4a7c15;
        };
        for (std::size_t i = 0; i + 8 < chunk.size(); i += 8) mix(chunk.data() + i);
        mix(chunk.data() + chunk.size() - 8);
        return (hash ^ hash >> 32) * 0xc2b2ae3d27d4eb4f >> (64 - kLongBits);
    }

    // The tokens of a long chunk, and how many they are; null if they are not known.
    const SmallToken* find_long(std::size_t place, std::string_view chunk, std::uint32_t& n_tokens) const {
        const LongEntry& entry = long_[place];
        if (entry.length != chunk.size() || std::memcmp(entry.bytes.data(), chunk.data(), chunk.size()) != 0) return nullptr;
        n_tokens = entry.n_tokens;
        return known_at(entry.position);
    }

    void insert_long(std::size_t place, std::string_view chunk, const std::vector<Token>& tokens) {
        LongEntry& entry = long_[place];
        entry.position = put_in_ring(tokens);
        entry.n_tokens = static_cast<std::uint32_t>(tokens.size());
        entry.length = static_cast<std::uint32_t>(chunk.size());
        std::memcpy(entry.bytes.data(), chunk.data(), chunk.size());
    }

    void insert(std::size_t line, const ChunkKey& key, const std::vector<Token>& tokens) {
        Entry entry{key, {}};
        auto layout = static_cast<std::uint32_t>(tokens.size());
        if (tokens.size() > kInline) {
            const auto position = std::bit_cast<std::array<std::int32_t, 2>>(put_in_ring(tokens));
            entry.ids = {position[0], position[1]};
        } else {
            for (std::size_t i = 0; i < tokens.size(); ++i) {
                entry.ids[i] = tokens[i].id;
                layout |= tokens[i].begin << (8 * i + 4) | tokens[i].end << (8 * i + 8);
                if (i && tokens[i].word != tokens[i - 1].word) layout |= 1u << (27 + i);
            }
        }
        entry.ids[kInline] = static_cast<std::int32_t>(layout);
        auto& [first, second] = lines_[line].entries;
        // A key that comes again because its tokens have left the ring must not stand there twice.
        if (!(first.key == key)) second = first;
        first = entry;
    }

private:
    // 4 MB. Four times as much is 6 % faster on long texts, but its first touches stall the first pass of every thread.
    static constexpr int kLineBits = 16;
    static constexpr std::size_t kLines = std::size_t{1} << kLineBits, kRing = std::size_t{1} << 18;

    static constexpr int kLongBits = 14;
    static constexpr std::size_t kLongs = std::size_t{1} << kLongBits;

    struct alignas(64) Line {
        std::array<Entry, 2> entries{};
    };

    // The tokens that were written at a position; null if later ones lie there.
    const SmallToken* known_at(std::uint64_t position) const {
        return written_ - position <= kRing ? &ring_[position % kRing] : nullptr;
    }

    // Writes tokens in one piece, and returns their position.
    std::uint64_t put_in_ring(const std::vector<Token>& tokens) {
        if (written_ % kRing + tokens.size() > kRing) written_ += kRing - written_ % kRing;
        const std::uint64_t position = written_;
        for (const auto& [id, begin, end, word] : tokens) {
            ring_[written_++ % kRing] = {id, static_cast<std::uint8_t>(begin), static_cast<std::uint8_t>(end),
                                         static_cast<std::uint8_t>(word)};
        }
        return position;
    }

    ZeroedPages<Line> lines_;
    ZeroedPages<LongEntry> long_;
    ZeroedPages<SmallToken> ring_;
    std::uint64_t written_ = 0;
};

}  // namespace electra_fast
