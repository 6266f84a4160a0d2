// WordPiece over ASCII text: BERT's cleaning, splitting and greedy longest match in one pass over the bytes.
//
// Over ASCII, BERT's normaliser and pre-tokeniser are a table of 128 entries: a character is dropped (control characters),
// ends a word (white space), is a word of its own (punctuation), or continues a word, in lower case if asked for. Words are
// then cut into pieces of the vocabulary, which one hash table holds. FNV-1a is computed a byte at a time, so the hashes of
// all prefixes of a word come from one pass over it, and the whole word's hash falls out of the scan: the common word, itself
// in the vocabulary, costs one look-up.
//
// Unicode is left to the caller, who also has the tables for it. There is no Python here, and after construction nothing
// changes: any number of threads may share one encoder.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace electra_fast {

struct Rows {
    std::vector<std::int32_t> ids;       // all rows, one after the other
    std::vector<std::int64_t> offsets;   // row i is ids[offsets[i], offsets[i + 1])
    std::vector<std::int64_t> deferred;  // rows left empty: their texts are for the caller to encode
};

class WordPiece {
public:
    static constexpr std::size_t kLongestWord = 128;

    // pieces: the vocabulary, "##" marking pieces that continue a word; those that are not ASCII are passed over.
    // max_word_length: longer words become unknown_id as a whole; at most kLongestWord.
    // whole_tokens: texts with one of these in them are deferred, as matching added tokens comes before all else.
    WordPiece(const std::vector<std::pair<std::string, std::int32_t>>& pieces, std::int32_t unknown_id,
              std::size_t max_word_length, bool lower_case, std::vector<std::string> whole_tokens);

    // Encodes texts; one that is absent, or that holds a whole token, is deferred. Each other row is framed by prefix and suffix.
    Rows encode(std::span<const std::optional<std::string_view>> texts, std::span<const std::int32_t> prefix,
                std::span<const std::int32_t> suffix) const;

private:
    struct Slot {
        std::uint64_t hash;
        std::uint32_t begin;   // in spellings_
        std::uint32_t length;  // 0: the slot is free
        std::int32_t id;
    };

    void encode_text(std::string_view text, std::vector<std::int32_t>& ids, std::string& buffer) const;
    void encode_word(std::string_view word, std::uint64_t hash, std::vector<std::int32_t>& ids) const;
    const Slot* find(std::uint64_t hash, std::string_view spelling) const;
    void insert(std::uint64_t hash, std::string_view spelling, std::int32_t id);

    std::vector<Slot> slots_;  // open addressing, at most half full
    std::string spellings_;    // every piece, without "##"
    std::array<unsigned char, 128> characters_;
    std::size_t longest_piece_ = 0;
    std::int32_t unknown_id_;
    std::size_t max_word_length_;
    std::vector<std::string> whole_tokens_;
};

}  // namespace electra_fast
