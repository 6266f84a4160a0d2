// A batch of the encoder: sequences of tokens, those of them that are read, and the chunks that it is computed in.

#pragma once

#include <cstdint>
#include <vector>

#include "cpu/index.h"

namespace electra_fast::cpu {

// T tokens in sequences that begin at `starts`, whose last entry is T. They are sums of rows of the tables
// [T, embedding], or embedded already [T, hidden].
struct Batch {
    std::vector<std::int32_t> starts;
    Index n_tokens;
    const float* values;
    bool is_embedded;
    bool causal;
    // The tokens [n_read] whose last hidden states are wanted, in this order; all are, in theirs, if n_read is negative.
    const std::int64_t* read = nullptr;
    Index n_read = -1;

    bool reads_some() const { return n_read >= 0; }
};

// Throws std::invalid_argument unless the starts mark sequences.
void check_starts(const Batch& batch);

// The tokens that are read, each once and in their order in the batch. A batch that reads all has none.
struct Reads {
    // Throws std::out_of_range for a token that is not there.
    explicit Reads(const Batch& batch);

    std::vector<Index> tokens;
    // Which of `tokens` is the first in each sequence, and how many there are.
    std::vector<std::int32_t> starts;
    // Where the i-th token goes to: the places from first_places[i] up to first_places[i + 1].
    std::vector<Index> places, first_places;
};

// Some whole sequences of a batch that go through all layers before the next chunk does.
struct Chunk {
    Index first_sequence, n_sequences, first_token, n_tokens;
    Index longest;  // tokens of a sequence
    Index n_read, most_read;  // tokens that are read, of all and of a sequence
};

std::vector<Chunk> chunks_of(const Batch& batch, const Reads& reads, int n_threads);

}  // namespace electra_fast::cpu
