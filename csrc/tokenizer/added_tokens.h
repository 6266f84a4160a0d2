// Tokens that are found in the text as they stand, before it is split into words.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/trie.h"

namespace electra_fast {

struct AddedToken {
    std::string content;
    std::int32_t id;
    bool single_word = false;  // matches only where no word character touches it
    bool lstrip = false;       // takes along the white space before it
    bool rstrip = false;       // takes along the white space after it
    bool special = false;
};

class AddedTokens {
public:
    // split_special: leave special tokens in the text as ordinary text.
    AddedTokens(std::vector<AddedToken> tokens, bool split_special);

    bool empty() const { return tokens_.empty(); }

    // Tells whether a match may take in white space of ASCII.
    bool reach_across_space() const;

    // A part of a text: an added token, or the text between two of them (id Trie::kNoValue).
    struct Part {
        std::string_view text;
        std::int32_t id;
    };

    // Splits a text into `parts`, in order and without gaps; those between tokens are never empty.
    void split(std::string_view text, std::vector<Part>& parts) const;

private:
    std::size_t next_candidate(std::string_view text, std::size_t from) const;

    std::vector<AddedToken> tokens_;
    bool split_special_;
    Trie trie_;  // values are indices of tokens_
    std::array<bool, 256> begins_token_{};
    std::string first_bytes_;
};

}  // namespace electra_fast
