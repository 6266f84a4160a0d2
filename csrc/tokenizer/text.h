// Texts as callers hold them, and their conversion to UTF-8.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>

#include "tokenizer/buffer.h"
#include "tokenizer/stop.h"

namespace electra_fast {

// A view of code units. kUtf8 must be well-formed; other forms hold one code point per unit, as Python's strings do.
struct SourceText {
    enum class Form : std::uint8_t { kUtf8, kLatin1, kUcs2, kUcs4 };

    const void* data = nullptr;
    std::size_t n_units = 0;
    Form form = Form::kUtf8;

    std::size_t unit_size() const { return form == Form::kUcs4 ? 4 : form == Form::kUcs2 ? 2 : 1; }
    std::size_t n_bytes() const { return n_units * unit_size(); }
    SourceText slice(std::size_t from, std::size_t to) const {
        return {static_cast<const char*>(data) + from * unit_size(), to - from, form};
    }

    // The position after the first white space of ASCII at or after `from`; n_units if there is none.
    std::size_t behind_space(std::size_t from) const;
};

// An error: the text holds half of a surrogate pair, which is no character and has no UTF-8.
struct SurrogateError : std::invalid_argument {
    SurrogateError(std::uint32_t surrogate, std::size_t position);

    std::uint32_t surrogate;
    std::size_t position;  // in code units
};

// The text as UTF-8: a view of the text itself, or of a copy in scratch. Throws SurrogateError, and Stopped if there is a
// `stop` that says so.
std::string_view to_utf8(const SourceText& text, Buffer<char>& scratch, Stop* stop);

// The offset of the first byte that is not part of well-formed UTF-8; the size if there is none.
std::size_t find_ill_formed(std::string_view bytes);

}  // namespace electra_fast
