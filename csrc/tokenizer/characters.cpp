#include "tokenizer/characters.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <utility>

namespace electra_fast {
namespace {

struct Run {
    std::uint32_t first;
    std::uint32_t properties;
};

struct Mapping {
    std::uint32_t from;
    char32_t to[4];
};

#include "tokenizer/unicode_tables.inc"

constexpr char32_t kCapitalSigma = 0x3a3, kFinalSigma = 0x3c2;
constexpr char32_t kCodePoints = 0x110000;
constexpr char32_t kFirstSyllable = 0xac00, kLastSyllable = 0xd7a3;

// The bits of `properties` in make_unicode_tables.py.
struct Properties {
    std::uint32_t bits;
    bool is_dropped() const { return (bits & 3) == 1; }
    bool is_space() const { return (bits & 3) == 2; }
    bool is_cjk() const { return bits >> 2 & 1; }
    Split split() const { return static_cast<Split>(bits >> 3 & 3); }
    bool is_mark() const { return bits >> 5 & 1; }
    bool is_cased() const { return bits >> 6 & 1; }
    bool is_ignored_by_case() const { return bits >> 7 & 1; }
    bool is_in_words() const { return bits >> 8 & 1; }
    std::uint32_t combining_class() const { return bits >> 9; }
};

const Run* run_of(char32_t character) {
    const auto after = [](char32_t c, const Run& run) { return c < run.first; };
    return std::upper_bound(std::begin(kProperties), std::end(kProperties), character, after) - 1;
}

Properties properties_of(char32_t character) { return {run_of(character)->properties}; }

// The first mapping from this character or a later one.
template <std::size_t n>
const Mapping* mapping_from(const Mapping (&table)[n], char32_t character) {
    const auto before = [](const Mapping& mapping, char32_t c) { return mapping.from < c; };
    return std::lower_bound(table, table + n, character, before);
}

template <std::size_t n>
std::u32string look_up(const Mapping (&table)[n], char32_t character) {
    const Mapping* mapping = mapping_from(table, character);
    if (mapping == table + n || mapping->from != character) return {character};
    return {mapping->to, std::find(mapping->to, mapping->to + 4, U'\0')};
}

std::u32string decompose(char32_t character) {
    if (character < kFirstSyllable || character > kLastSyllable) return look_up(kDecompositions, character);
    const char32_t index = character - kFirstSyllable, last = index % 28;
    std::u32string jamo{0x1100 + index / 588, 0x1161 + index % 588 / 28};
    if (last) jamo += 0x11a7 + last;
    return jamo;
}

// Python's rule: a cased character comes before and none after; case-ignorable characters do not count.
bool is_final_sigma(const std::u32string& text, std::size_t index) {
    const auto counts = [](char32_t c) { return !properties_of(c).is_ignored_by_case() && !properties_of(c).is_dropped(); };
    const auto before = std::find_if(text.rend() - static_cast<std::ptrdiff_t>(index), text.rend(), counts);
    const auto after = std::find_if(text.begin() + static_cast<std::ptrdiff_t>(index) + 1, text.end(), counts);
    return before != text.rend() && properties_of(*before).is_cased() &&
           (after == text.end() || !properties_of(*after).is_cased());
}

}  // namespace

void append_utf8(char32_t character, std::string& text) {
    const auto put = [&text](char32_t byte) { text += static_cast<char>(byte); };
    if (character < 0x80) return put(character);
    if (character < 0x800) {
        put(0xc0 | character >> 6);
    } else if (character < 0x10000) {
        put(0xe0 | character >> 12);
        put(0x80 | (character >> 6 & 0x3f));
    } else {
        put(0xf0 | character >> 18);
        put(0x80 | (character >> 12 & 0x3f));
        put(0x80 | (character >> 6 & 0x3f));
    }
    put(0x80 | (character & 0x3f));
}

bool is_white_space(char32_t character) { return properties_of(character).split() == Split::kSpace; }

bool is_in_words(char32_t character) { return properties_of(character).is_in_words(); }

Characters::Characters(const Rules& rules) : rules_(rules) {
    constexpr char32_t kBlockSize = 1u << kBlockBits;
    std::map<std::uint32_t, std::uint16_t> uniform;  // blocks without a mapping whose characters share their properties
    for (char32_t first = 0; first < kCodePoints; first += kBlockSize) {
        const char32_t last = first + kBlockSize - 1;
        const bool has_syllables = first <= kLastSyllable && last >= kFirstSyllable;
        const bool is_uniform = run_of(first) == run_of(last) && !has_syllables &&
                                mapping_from(kDecompositions, first) == mapping_from(kDecompositions, last + 1) &&
                                mapping_from(kLowerCase, first) == mapping_from(kLowerCase, last + 1);
        const auto next = static_cast<std::uint16_t>(entries_.size() >> kBlockBits);
        const std::uint32_t properties = run_of(first)->properties;
        if (is_uniform) {
            const auto [known, is_new] = uniform.try_emplace(properties, next);
            blocks_.push_back(known->second);
            if (!is_new) continue;
        } else {
            blocks_.push_back(next);
        }
        for (char32_t c = first; c <= last; ++c) entries_.push_back(compile(c));
    }
}

Characters::Entry Characters::compile(char32_t character) {
    Entry entry;
    entry.split = properties_of(character).split();
    const bool is_sigma = rules_.final_sigma && rules_.lowercase && character == kCapitalSigma;
    const auto is_reordered = [](char32_t c) { return properties_of(c).combining_class() && !properties_of(c).is_mark(); };
    const std::u32string parts = decompose(character);
    if (is_sigma || (rules_.strip_accents && std::any_of(parts.begin(), parts.end(), is_reordered))) {
        entry.change = Change::kContextual;
        return entry;
    }
    std::string text;
    for (const Normalized& normalized : normalize({character})) append_utf8(normalized.character, text);
    std::string original;
    append_utf8(character, original);
    if (text == original) return entry;
    entry.change = text.empty() ? Change::kDropped : text == " " + original + " " ? Change::kIsolated : Change::kReplaced;
    if (entry.change != Change::kReplaced) return entry;
    entry.length = static_cast<std::uint16_t>(text.size());
    entry.replacement = static_cast<std::uint32_t>(replacements_.size());
    replacements_ += text;
    return entry;
}

std::vector<Characters::Normalized> Characters::normalize(const std::u32string& text) const {
    std::vector<Normalized> cleaned;
    for (std::uint32_t i = 0; i < text.size(); ++i) {
        const Properties properties = properties_of(text[i]);
        char32_t character = text[i];
        if (rules_.clean_text && properties.is_dropped()) continue;
        if (rules_.clean_text && properties.is_space()) character = U' ';
        if (rules_.final_sigma && rules_.lowercase && character == kCapitalSigma && is_final_sigma(text, i)) {
            character = kFinalSigma;
        }
        const bool apart = rules_.handle_chinese_chars && properties.is_cjk();
        if (apart) cleaned.push_back({U' ', i});
        cleaned.push_back({character, i});
        if (apart) cleaned.push_back({U' ', i});
    }

    std::vector<Normalized> stripped;
    if (rules_.strip_accents) {
        struct Part {
            char32_t character;
            bool is_first;  // among the parts of its character
        };
        std::vector<Part> parts;
        for (const Normalized& whole : cleaned) {
            bool is_first = true;
            for (const char32_t c : decompose(whole.character)) parts.push_back({c, std::exchange(is_first, false)});
        }
        const auto class_of = [](const Part& part) { return properties_of(part.character).combining_class(); };
        for (auto run = parts.begin(); run != parts.end();) {
            const auto end = std::find_if(run, parts.end(), [&](const Part& part) { return class_of(part) == 0; });
            std::stable_sort(run, end, [&](const Part& a, const Part& b) { return class_of(a) < class_of(b); });
            run = end == parts.end() ? end : end + 1;
        }
        // `tokenizers` does not trace what reordering moves. It gives each first part the next character as its source,
        // and the other parts the same character as the part before, wherever they came from.
        std::size_t used = 0;
        for (const Part& part : parts) {
            used += part.is_first;
            if (properties_of(part.character).is_mark()) continue;
            stripped.push_back({part.character, cleaned[used ? used - 1 : 0].source});
        }
    } else {
        stripped = std::move(cleaned);
    }
    if (!rules_.lowercase) return stripped;

    std::vector<Normalized> lower;
    for (const Normalized& upper : stripped) {
        for (const char32_t c : look_up(kLowerCase, upper.character)) lower.push_back({c, upper.source});
    }
    return lower;
}

}  // namespace electra_fast
