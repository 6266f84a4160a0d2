// Many texts at once, by several threads, into one array.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>

#include "tokenizer/buffer.h"
#include "tokenizer/encoder.h"
#include "tokenizer/parallel.h"
#include "tokenizer/text.h"

namespace electra_fast {

template <typename T>
struct Rows {
    Buffer<T> tokens;              // all rows, one after the other
    Buffer<std::int64_t> offsets;  // row i is tokens[offsets[i], offsets[i + 1])
};

// What is wrong with the text of this index.
struct TextError : std::invalid_argument {
    TextError(std::size_t index, const std::string& what) : std::invalid_argument(what), index(index) {}
    std::size_t index;
};

// The tokens (T = Token) or ids (T = int32) of each text, between a prefix and a suffix. Throws TextError.
template <typename T>
Rows<T> encode_texts(const Encoder& encoder, WorkerPool& pool, std::span<const SourceText> texts, std::span<const T> prefix,
                     std::span<const T> suffix, std::size_t n_threads);

}  // namespace electra_fast
