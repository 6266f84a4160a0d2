#include "tokenizer/wordpiece.h"

#include <algorithm>
#include <bit>
#include <stdexcept>

namespace electra_fast {
namespace {

// FNV-1a, 64 bits. Pieces that continue a word start from another state, so that "ing" and "##ing" are two keys.
constexpr std::uint64_t kPrime = 0x100000001b3;
constexpr std::uint64_t kWordStart = 0xcbf29ce484222325;
constexpr std::uint64_t kContinuation = 0x9e3779b97f4a7c15;

constexpr std::uint64_t extend(std::uint64_t hash, char byte) {
    return (hash ^ static_cast<unsigned char>(byte)) * kPrime;
}

std::uint64_t hash_of(std::uint64_t start, std::string_view text) {
    for (char byte : text) start = extend(start, byte);
    return start;
}

// FNV's low bits depend on the low bits of the text alone; the high ones mix all of it.
std::size_t home(std::uint64_t hash, std::size_t slots) { return (hash ^ (hash >> 32)) & (slots - 1); }

bool is_ascii(std::string_view text) {
    return std::none_of(text.begin(), text.end(), [](char byte) { return static_cast<unsigned char>(byte) >= 128; });
}

// What a character becomes: a value above kPunctuation is the byte that continues the word.
enum : unsigned char { kDropped = 0, kSpace = 1, kPunctuation = 2 };

std::array<unsigned char, 128> character_table(bool lower_case) {
    std::array<unsigned char, 128> table{};
    for (unsigned char c = 0; c < 128; ++c) {
        const bool upper = c >= 'A' && c <= 'Z';
        const bool alphanumeric = upper || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
        if (c == ' ' || c == '\t' || c == '\n' || c == '\r') {
            table[c] = kSpace;
        } else if (c < 32 || c == 127) {
            table[c] = kDropped;
        } else if (!alphanumeric) {
            table[c] = kPunctuation;
        } else {
            table[c] = upper && lower_case ? c + ('a' - 'A') : c;
        }
    }
    return table;
}

}  // namespace

WordPiece::WordPiece(const std::vector<std::pair<std::string, std::int32_t>>& pieces, std::int32_t unknown_id,
                     std::size_t max_word_length, bool lower_case, std::vector<std::string> whole_tokens)
    : slots_(std::bit_ceil(2 * pieces.size() + 1)),
      characters_(character_table(lower_case)),
      unknown_id_(unknown_id),
      max_word_length_(max_word_length),
      whole_tokens_(std::move(whole_tokens)) {
    if (max_word_length > kLongestWord) {
        throw std::invalid_argument("max_word_length must be at most " + std::to_string(kLongestWord) + ", got " +
                                    std::to_string(max_word_length));
    }
    for (const auto& [piece, id] : pieces) {
        std::string_view spelling = piece;
        // A word is either one mark of punctuation or has none, so "##" itself can only be a prefix.
        const bool continues = spelling.starts_with("##");
        if (continues) spelling.remove_prefix(2);
        if (spelling.empty() || !is_ascii(spelling)) continue;
        insert(hash_of(continues ? kContinuation : kWordStart, spelling), spelling, id);
        longest_piece_ = std::max(longest_piece_, spelling.size());
    }
}

void WordPiece::insert(std::uint64_t hash, std::string_view spelling, std::int32_t id) {
    std::size_t index = home(hash, slots_.size());
    while (slots_[index].length) index = (index + 1) & (slots_.size() - 1);
    slots_[index] = {hash, static_cast<std::uint32_t>(spellings_.size()), static_cast<std::uint32_t>(spelling.size()), id};
    spellings_ += spelling;
}

const WordPiece::Slot* WordPiece::find(std::uint64_t hash, std::string_view spelling) const {
    for (std::size_t index = home(hash, slots_.size());; index = (index + 1) & (slots_.size() - 1)) {
        const Slot& slot = slots_[index];
        if (!slot.length) return nullptr;
        if (slot.hash == hash && std::string_view(spellings_).substr(slot.begin, slot.length) == spelling) return &slot;
    }
}

Rows WordPiece::encode(std::span<const std::optional<std::string_view>> texts, std::span<const std::int32_t> prefix,
                       std::span<const std::int32_t> suffix) const {
    Rows rows;
    std::size_t bytes = 0;
    for (const auto& text : texts) bytes += text ? text->size() : 0;
    rows.ids.reserve(bytes / 4 + texts.size() * (prefix.size() + suffix.size()));
    rows.offsets.reserve(texts.size() + 1);
    rows.offsets.push_back(0);
    std::string buffer;
    for (std::size_t row = 0; row < texts.size(); ++row) {
        const auto& text = texts[row];
        const auto inside = [&text](const std::string& token) { return text->find(token) != text->npos; };
        if (!text || std::any_of(whole_tokens_.begin(), whole_tokens_.end(), inside)) {
            rows.deferred.push_back(static_cast<std::int64_t>(row));
        } else {
            rows.ids.insert(rows.ids.end(), prefix.begin(), prefix.end());
            encode_text(*text, rows.ids, buffer);
            rows.ids.insert(rows.ids.end(), suffix.begin(), suffix.end());
        }
        rows.offsets.push_back(static_cast<std::int64_t>(rows.ids.size()));
    }
    return rows;
}

void WordPiece::encode_text(std::string_view text, std::vector<std::int32_t>& ids, std::string& buffer) const {
    if (buffer.size() < text.size()) buffer.resize(text.size());  // one word at a time, in lower case
    char* const begin = buffer.data();
    char* end = begin;
    std::uint64_t hash = kWordStart;
    const auto end_word = [&] {
        if (end != begin) encode_word({begin, end}, hash, ids);
        end = begin;
        hash = kWordStart;
    };
    for (const char byte : text) {
        const unsigned char character = characters_[static_cast<unsigned char>(byte)];
        if (character > kPunctuation) {
            *end++ = static_cast<char>(character);
            hash = extend(hash, static_cast<char>(character));
        } else if (character != kDropped) {
            end_word();
            if (character == kPunctuation) encode_word({&byte, 1}, extend(kWordStart, byte), ids);
        }
    }
    end_word();
}

void WordPiece::encode_word(std::string_view word, std::uint64_t hash, std::vector<std::int32_t>& ids) const {
    if (word.size() > max_word_length_) {
        ids.push_back(unknown_id_);
        return;
    }
    if (const Slot* whole = find(hash, word)) {
        ids.push_back(whole->id);
        return;
    }
    const std::size_t first = ids.size();
    std::uint64_t start = kWordStart;
    while (!word.empty()) {
        // The hash of the longest candidate, then ever shorter ones: FNV-1a cannot be undone cheaply, so they are kept.
        std::array<std::uint64_t, kLongestWord> hashes;
        const std::size_t limit = std::min(word.size(), longest_piece_);
        for (std::size_t i = 0; i < limit; ++i) hashes[i] = extend(i ? hashes[i - 1] : start, word[i]);
        std::size_t length = limit;
        const Slot* piece = nullptr;
        while (length && !(piece = find(hashes[length - 1], word.substr(0, length)))) --length;
        if (!piece) {
            ids.resize(first);
            ids.push_back(unknown_id_);
            return;
        }
        ids.push_back(piece->id);
        word.remove_prefix(length);
        start = kContinuation;
    }
}

}  // namespace electra_fast
