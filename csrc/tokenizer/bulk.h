// Encoding of many texts at once, by several threads, into one array.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "tokenizer/buffer.h"
#include "tokenizer/encoder.h"
#include "tokenizer/parallel.h"
#include "tokenizer/text.h"

namespace electra_fast {

struct Span {
    std::int32_t begin, end;
};

// Rows of tokens: row i is those from offsets[i] to offsets[i + 1].
struct BulkRows {
    Buffer<std::int64_t> offsets;
    Buffer<std::int32_t> ids;
    Buffer<Span> spans;         // empty unless asked for; zeros for special tokens
    Buffer<bool> word_starts;   // empty unless asked for; true for special tokens
};

struct TokenRows {
    Buffer<std::int64_t> offsets;
    Buffer<Token> tokens;
};

// An error in the text of this index.
struct TextError : std::invalid_argument {
    TextError(std::size_t index, const std::string& what) : std::invalid_argument(what), index(index) {}
    std::size_t index;
};

struct BulkOptions {
    std::vector<std::int32_t> prefix, suffix;  // special tokens before and after each text
    bool spans = false, word_starts = false;
    std::size_t n_threads = 1;
};

// Both functions throw TextError, and Stopped if the caller wishes so.
BulkRows encode_bulk(const Encoder& encoder, WorkerPool& pool, std::span<const SourceText> texts, const BulkOptions& options,
                     Stop& stop);
TokenRows encode_tokens(const Encoder& encoder, WorkerPool& pool, std::span<const SourceText> texts, std::size_t n_threads,
                        Stop& stop);

}  // namespace electra_fast
