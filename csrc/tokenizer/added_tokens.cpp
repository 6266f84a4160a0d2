#include "tokenizer/added_tokens.h"

#include <algorithm>
#include <stdexcept>

#include "tokenizer/characters.h"

namespace electra_fast {
namespace {

std::vector<std::pair<std::string, std::int32_t>> with_indices(const std::vector<AddedToken>& tokens) {
    std::vector<std::pair<std::string, std::int32_t>> keys;
    for (const AddedToken& token : tokens) {
        if (token.content.empty()) throw std::invalid_argument("an added token must not be empty");
        keys.emplace_back(token.content, static_cast<std::int32_t>(keys.size()));
    }
    return keys;
}

// The start of the last character before `end`.
std::size_t character_before(std::string_view text, std::size_t end) {
    do --end;
    while ((text[end] & 0xc0) == 0x80);
    return end;
}

char32_t character_at(std::string_view text, std::size_t at) {
    const char* pointer = text.data() + at;
    return read_utf8(pointer);
}

}  // namespace

AddedTokens::AddedTokens(std::vector<AddedToken> tokens, bool split_special)
    : tokens_(std::move(tokens)), split_special_(split_special), trie_(with_indices(tokens_)) {
    for (const AddedToken& token : tokens_) {
        bool& begins = begins_token_[static_cast<unsigned char>(token.content[0])];
        if (!begins) first_bytes_ += token.content[0];
        begins = true;
    }
}

bool AddedTokens::reach_across_space() const {
    return std::any_of(tokens_.begin(), tokens_.end(), [](const AddedToken& token) {
        return token.lstrip || token.rstrip || token.content.find_first_of(" \t\n\r") != std::string::npos;
    });
}

std::size_t AddedTokens::next_candidate(std::string_view text, std::size_t from) const {
    if (first_bytes_.size() == 1) return std::min(text.find(first_bytes_[0], from), text.size());
    while (from < text.size() && !begins_token_[static_cast<unsigned char>(text[from])]) ++from;
    return from;
}

void AddedTokens::split(std::string_view text, std::vector<Part>& parts) const {
    parts.clear();
    std::size_t done = 0;  // parts cover text[0, done)
    for (std::size_t at = tokens_.empty() ? text.size() : next_candidate(text, 0); at < text.size();) {
        const Trie::Match match = trie_.longest_prefix(text.substr(at));
        if (!match.length) {
            at = next_candidate(text, at + 1);
            continue;
        }
        const AddedToken& token = tokens_[static_cast<std::size_t>(match.value)];
        std::size_t start = at, stop = at + match.length;
        at = next_candidate(text, stop);
        if (split_special_ && token.special) continue;
        if (token.single_word && ((start > 0 && is_in_words(character_at(text, character_before(text, start)))) ||
                                  (stop < text.size() && is_in_words(character_at(text, stop))))) {
            continue;
        }
        if (token.lstrip) start = std::max(start, done);  // the token before may have taken the white space between
        while (token.lstrip && start > done && is_white_space(character_at(text, character_before(text, start)))) {
            start = character_before(text, start);
        }
        while (token.rstrip && stop < text.size() && is_white_space(character_at(text, stop))) {
            const char* pointer = text.data() + stop;
            read_utf8(pointer);
            stop = static_cast<std::size_t>(pointer - text.data());
        }
        if (done < start) parts.push_back({text.substr(done, start - done), Trie::kNoValue});
        if (start < stop) parts.push_back({text.substr(start, stop - start), token.id});
        done = stop;
    }
    if (done < text.size()) parts.push_back({text.substr(done), Trie::kNoValue});
}

}  // namespace electra_fast
