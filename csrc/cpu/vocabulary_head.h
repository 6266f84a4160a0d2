// The vocabulary head on masked rows: the op mlm_head, forward and backward.
//
// With logits x = h W' + b: losses are log(sum of exp(x)) - x[label]. A sample is drawn from softmax(x / temperature) by
// inverting its cumulative sum. Where logits are few they are kept for the backward, else it computes them again.

#pragma once

#include <cstdint>

#include "cpu/blocks.h"
#include "cpu/index.h"

namespace electra_fast::cpu {

struct VocabularyHead {
    Index n_rows, width, vocabulary;
    const float* hidden;  // [n_rows, width]
    const float* weight;  // [vocabulary, width]
    const float* bias;    // [vocabulary]
    const std::int64_t* labels;
};

struct Samples {
    const float* uniform;  // [n_rows] in [0, 1); null for no samples
    float temperature;
    bool never_label;      // a label is never drawn
    std::int64_t* out;     // [n_rows]
};

// [n_rows] each.
struct HeadResults {
    float* losses;
    bool* is_correct;  // no logit is above the label's
};

// Floats that a forward saves for its backward: logits, if they are few, and [n_rows] logarithms of sums.
Index saved_floats(const BlockKernels<float>& kernels, const VocabularyHead& head);

struct HeadGradients {
    float *hidden, *weight, *bias;  // null where nobody wants one
};

// Throw std::out_of_range for a label that is not in the vocabulary; otherwise as the functions of blocks.h.
bool forward(const Call<float>& call, const VocabularyHead& head, const Samples& samples, const HeadResults& results,
             float* saved);
bool backward(const Call<float>& call, const VocabularyHead& head, const float* saved, const float* dlosses,
              const HeadGradients& gradients);

}  // namespace electra_fast::cpu
