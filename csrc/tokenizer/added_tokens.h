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
    bool single_word = false;  // only where no word character touches it
    bool lstrip = false;       // takes the white space before it along
    bool rstrip = false;       // and behind it
    bool special = false;
};

class AddedTokens {
public:
    // split_special: leave special tokens in the text as ordinary text.
    AddedTokens(std::vector<AddedToken> tokens, bool split_special);

    bool empty() const { return tokens_.empty(); }

    // Whether a match may take in white space of ASCII.
    bool reach_across_space() const;

    // Parts of a text, in order and without gaps: tokens, and between them what is not one (id Trie::kNoValue).
    struct Part {
        std::string_view text;
        std::int32_t id;
    };

    // Leaves the parts in `parts`; those between tokens are never empty.
    void split(std::string_view text, std::vector<Part>& parts) const;

private:
    std::size_t next_candidate(std::string_view text, std::size_t from) const;

    std::vector<AddedToken> tokens_;
    bool split_special_;
    Trie trie_;  // to indices of tokens_
    std::array<bool, 256> begins_token_{};
    std::string first_bytes_;
};

}  // namespace electra_fast
