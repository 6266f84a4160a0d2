#include "tokenizer/text.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>

#include "tokenizer/characters.h"

namespace electra_fast {
namespace {

template <typename Unit>
std::size_t behind_space(const Unit* units, std::size_t from, std::size_t n) {
    while (from < n && units[from] != ' ' && units[from] != '\t' && units[from] != '\n' && units[from] != '\r') ++from;
    return from < n ? from + 1 : n;
}

// Writes units[from] up to units[n] to `out`; returns the end of what is written.
template <typename Unit>
char* write_utf8(const Unit* units, std::size_t from, std::size_t n, char* out) {
    constexpr std::size_t kStep = 32;
    for (std::size_t i = from; i < n;) {
        // Most text is ASCII, so a step of only ASCII is narrowed at once.
        while (i + kStep <= n) {
            Unit all = 0;
            for (std::size_t k = 0; k < kStep; ++k) all |= units[i + k];
            if (all >= 0x80) break;
            for (std::size_t k = 0; k < kStep; ++k) out[k] = static_cast<char>(units[i + k]);
            out += kStep;
            i += kStep;
        }
        for (const std::size_t end = std::min(i + kStep, n); i < end; ++i) {
            const std::uint32_t c = units[i];
            if (c < 0x80) {
                *out++ = static_cast<char>(c);
            } else if (c < 0x800) {
                *out++ = static_cast<char>(0xc0 | c >> 6);
                *out++ = static_cast<char>(0x80 | (c & 0x3f));
            } else if (c < 0x10000) {
                if (c >= 0xd800 && c < 0xe000) throw SurrogateError(c, i);
                *out++ = static_cast<char>(0xe0 | c >> 12);
                *out++ = static_cast<char>(0x80 | (c >> 6 & 0x3f));
                *out++ = static_cast<char>(0x80 | (c & 0x3f));
            } else {
                *out++ = static_cast<char>(0xf0 | c >> 18);
                *out++ = static_cast<char>(0x80 | (c >> 12 & 0x3f));
                *out++ = static_cast<char>(0x80 | (c >> 6 & 0x3f));
                *out++ = static_cast<char>(0x80 | (c & 0x3f));
            }
        }
    }
    return out;
}

template <typename Unit>
std::string_view as_utf8(const Unit* units, std::size_t n, Buffer<char>& bytes, Stop* stop) {
    bytes.clear();
    char* const begin = bytes.reserve(n * (sizeof(Unit) == 1 ? 2 : sizeof(Unit) == 2 ? 3 : 4));
    char* end = begin;
    for (std::size_t from = 0; from < n; from += Stop::kStep) {
        if (stop && from) stop->check();
        end = write_utf8(units, from, std::min(from + Stop::kStep, n), end);
    }
    return {begin, static_cast<std::size_t>(end - begin)};
}

std::string hexadecimal(std::uint32_t value) {
    std::array<char, 16> digits{};
    std::snprintf(digits.data(), digits.size(), "U+%04X", value);
    return digits.data();
}

}  // namespace

SurrogateError::SurrogateError(std::uint32_t surrogate, std::size_t position)
    : std::invalid_argument("must be well-formed Unicode, got half of a surrogate pair, " + hexadecimal(surrogate) +
                            ", at character " + std::to_string(position)),
      surrogate(surrogate),
      position(position) {}

std::size_t SourceText::behind_space(std::size_t from) const {
    switch (form) {
        case Form::kUcs2:
            return electra_fast::behind_space(static_cast<const std::uint16_t*>(data), from, n_units);
        case Form::kUcs4:
            return electra_fast::behind_space(static_cast<const std::uint32_t*>(data), from, n_units);
        default:
            return electra_fast::behind_space(static_cast<const std::uint8_t*>(data), from, n_units);
    }
}

std::string_view to_utf8(const SourceText& text, Buffer<char>& scratch, Stop* stop) {
    switch (text.form) {
        case SourceText::Form::kLatin1:
            return as_utf8(static_cast<const std::uint8_t*>(text.data), text.n_units, scratch, stop);
        case SourceText::Form::kUcs2:
            return as_utf8(static_cast<const std::uint16_t*>(text.data), text.n_units, scratch, stop);
        case SourceText::Form::kUcs4:
            return as_utf8(static_cast<const std::uint32_t*>(text.data), text.n_units, scratch, stop);
        default:
            return {static_cast<const char*>(text.data), text.n_units};
    }
}

std::size_t find_ill_formed(std::string_view bytes) {
    const auto at = [&](std::size_t i) { return i < bytes.size() ? static_cast<unsigned char>(bytes[i]) : 0u; };
    std::size_t i = 0;
    while (i < bytes.size()) {
        std::uint64_t eight;
        while (i + 8 <= bytes.size() && (std::memcpy(&eight, bytes.data() + i, 8), !(eight & 0x8080808080808080))) i += 8;
        if (i == bytes.size()) break;
        const unsigned first = at(i), second = at(i + 1);
        // The second byte's range rules out surrogates, overlong forms and what lies beyond U+10FFFF (Unicode, table 3-7).
        const unsigned lowest = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
        const unsigned highest = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
        const std::size_t length = first < 0x80 ? 1 : first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0;
        if (length == 0 || (length > 1 && (second < lowest || second > highest))) return i;
        for (std::size_t k = 2; k < length; ++k) {
            if ((at(i + k) & 0xc0) != 0x80) return i;
        }
        i += length;
    }
    return i;
}

}  // namespace electra_fast
