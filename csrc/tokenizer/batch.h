// A batch as models take it: texts and pairs cut to a length, framed by special tokens, and laid out in columns.
//
// The rules are those of `tokenizers`: texts are cut before they are framed; parts that are cut off become further
// rows, each of the first text with each of the second; and a part overlaps the one before by `stride` tokens.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "tokenizer/bulk.h"
#include "tokenizer/token.h"

namespace electra_fast {

enum class Side { kRight, kLeft };

struct Truncation {
    enum class Strategy { kLongestFirst, kOnlyFirst, kOnlySecond };

    Strategy strategy;
    std::size_t max_length;  // length of a row, special tokens included
    std::size_t stride;
    Side side;
};

// A piece of a row: a text or a special token, and its type.
struct FramePiece {
    std::optional<std::size_t> sequence;  // 0 or 1; none: the special token `id`
    std::int32_t id;
    std::int32_t type_id;
};

struct Frame {
    std::vector<FramePiece> single, pair;
};

enum class Column { kIds, kTypeIds, kAttentionMask, kSpecialTokensMask, kOffsets, kWords, kSequences };

// How rows are filled up: to `width` tokens, with what, on which side. A width of 0 leaves rows as they are.
struct Filling {
    std::size_t width;
    Side side;
    std::int64_t id, type_id;

    // The value that a column is filled up with.
    std::int64_t of(Column column) const;
};

// Tokens with spans and words, made when somebody asks for them: that takes half as long again as their ids.
class LateTokens {
public:
    explicit LateTokens(std::function<Buffer<Token>()> make) : make_(std::move(make)) {}
    ~LateTokens() { delete made_.load(); }
    LateTokens(const LateTokens&) = delete;
    LateTokens& operator=(const LateTokens&) = delete;

    // Threads may call this at once; none waits for another, and all get those of the first that is done.
    const Buffer<Token>& get() const {
        const Buffer<Token>* found = made_.load();
        if (found) return *found;
        auto made = std::make_unique<const Buffer<Token>>(make_());
        return made_.compare_exchange_strong(found, made.get()) ? *made.release() : *found;
    }

private:
    const std::function<Buffer<Token>()> make_;
    mutable std::atomic<const Buffer<Token>*> made_{nullptr};
};

class Batch {
public:
    // ids: the sequences of all samples in order, n_sequences of them, 1 or 2, for each sample. tokens: those of the
    // ids. Throws invalid_argument if a sample cannot be cut as asked.
    Batch(BulkRows ids, std::shared_ptr<const LateTokens> tokens, const std::vector<std::uint8_t>& n_sequences,
          std::shared_ptr<const Frame> frame, const std::optional<Truncation>& truncation);

    // The same samples, with rows for the parts that were cut off after each sample's first row, or without them.
    Batch with_overflow(bool overflow) const;

    std::size_t n_rows() const { return rows_.size(); }
    std::size_t sample(std::size_t row) const { return rows_[row].sample; }
    std::size_t n_sequences(std::size_t row) const { return rows_.at(row).n_sequences; }
    std::size_t length(std::size_t row) const { return rows_[row].length; }
    // The length of the longest row, 0 if there is none.
    std::size_t longest() const;
    // The length that the rows [first, last) have in common once they are filled up to a width; nothing if they differ,
    // or if there are none.
    std::optional<std::size_t> common_length(std::size_t first, std::size_t last, std::size_t width) const;

    // Writes a column of the rows [first, last), row by row. kOffsets has two values per token; -1 stands for no word
    // and no sequence.
    void column(Column column, std::size_t first, std::size_t last, const Filling& filling, std::int64_t* out) const;

private:
    struct Part {
        std::size_t begin, end;  // tokens
    };
    struct Sample {
        std::size_t n_sequences = 0;
        std::array<std::size_t, 2> first_part{}, n_parts{};  // of each sequence; the first is kept
    };
    struct Samples {
        std::vector<Sample> samples;
        std::vector<Part> parts;
    };
    struct Row {
        std::size_t sample, n_sequences;
        std::array<Part, 2> parts;  // of each sequence
        std::size_t length = 0;     // tokens, special ones included
    };

    Batch() = default;
    static void cut(Part whole, std::size_t length, const Truncation& truncation, std::vector<Part>& parts);
    // A row of one part of each sequence of a sample, given by their numbers.
    Row row_of(std::size_t sample, std::size_t first, std::size_t second) const;
    const std::vector<FramePiece>& frame_of(const Row& row) const;

    std::shared_ptr<const Buffer<std::int32_t>> ids_;
    std::shared_ptr<const LateTokens> tokens_;
    std::shared_ptr<const Samples> samples_;
    std::shared_ptr<const Frame> frame_;
    std::vector<Row> rows_;
};

}  // namespace electra_fast
