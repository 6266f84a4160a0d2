// BERT's normalizer, compiled into one table of characters for a choice of rules.
//
// The rules and their order are those of `tokenizers`: clean, set CJK characters apart, decompose and drop accents,
// lower-case. All but canonical reordering act on one character at a time, so together they are one look-up.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace electra_fast {

struct Rules {
    bool clean_text = true;
    bool handle_chinese_chars = true;
    bool strip_accents = true;
    bool lowercase = true;
    bool final_sigma = false;  // a word's last capital sigma gets the final form, as in Google's Python code
};

// Reads one character of well-formed UTF-8 and steps over it.
inline char32_t read_utf8(const char*& text) {
    const auto next = [&text] { return static_cast<unsigned char>(*text++); };
    const char32_t first = next();
    if (first < 0x80) return first;
    char32_t value = first < 0xe0 ? first & 0x1f : first < 0xf0 ? first & 0x0f : first & 0x07;
    for (int more = first < 0xe0 ? 1 : first < 0xf0 ? 2 : 3; more; --more) value = value << 6 | (next() & 0x3f);
    return value;
}

void append_utf8(char32_t character, std::string& text);

bool is_white_space(char32_t character);
bool is_in_words(char32_t character);  // true for \w of a regular expression

// The pre-tokenizer's action at a character of normalized text.
enum class Split : std::uint8_t { kNone, kPunctuation, kSpace };

class Characters {
public:
    enum class Change : std::uint8_t {
        kNone,
        kDropped,
        kIsolated,    // gets a space before it and one after it
        kReplaced,    // becomes the replacement
        kContextual,  // becomes something that depends on the characters around it: use `normalize`
    };

    struct Entry {
        Change change = Change::kNone;
        Split split = Split::kNone;
        std::uint16_t length = 0;       // bytes of the replacement
        std::uint32_t replacement = 0;  // start of the replacement
    };

    explicit Characters(const Rules& rules);

    const Entry& operator[](char32_t character) const {
        return entries_[blocks_[character >> kBlockBits] << kBlockBits | (character & ((1u << kBlockBits) - 1))];
    }

    std::string_view replacement(const Entry& entry) const {
        return {replacements_.data() + entry.replacement, entry.length};
    }

    struct Normalized {
        char32_t character;
        std::uint32_t source;  // index of the character that `tokenizers` takes it to come from
    };

    // Applies the rules to a run of characters that begins and ends at white space, reordering included.
    std::vector<Normalized> normalize(const std::u32string& text) const;

private:
    static constexpr unsigned kBlockBits = 8;

    Entry compile(char32_t character);

    Rules rules_;
    std::vector<std::uint16_t> blocks_;
    std::vector<Entry> entries_;
    std::string replacements_;
};

}  // namespace electra_fast
