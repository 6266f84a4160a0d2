// The embedding of packed tokens, dropout(LayerNorm(word + type + position)), forward and backward: the op
// embed_norm_project but for its product.

#pragma once

#include "cpu/blocks.h"
#include "cpu/index.h"
#include "cpu/tokens.h"

namespace electra_fast::cpu {

struct Embedding {
    Tokens tokens;
    Index width;
    NormParameters<float> norm;
    float eps;
    Dropout dropout;
};

// Gradients of the tables, of their shapes, and of LayerNorm's parameters; null where nobody wants one.
struct EmbeddingGradients {
    float *words, *types, *positions, *norm_weight, *norm_bias;
    std::int64_t padding_id;  // whose row of words gets no gradient; negative: there is none
};

// Throw std::out_of_range for a token that is not in a table; otherwise as the functions of blocks.h. `statistics` is
// [2, n_tokens], for the backward.
bool forward(const Call<float>& call, const Embedding& embedding, float* out, float* statistics);
bool backward(const Call<float>& call, const Embedding& embedding, const float* dout, const float* statistics,
              const EmbeddingGradients& gradients);

}  // namespace electra_fast::cpu
