// The logits of the replaced-token head, GELU(h W' + b) . w + c, forward and backward: the op rtd_head but for its loss.

#pragma once

#include "cpu/blocks.h"
#include "cpu/index.h"

namespace electra_fast::cpu {

struct ReplacedTokenHead {
    Index n_tokens, hidden;
    const float* x;             // [n_tokens, hidden]
    const float *weight, *bias; // of the dense layer: [hidden, hidden] and [hidden]
    const float *gate, *offset; // w [hidden] and c [1]
};

// Null where nobody wants one.
struct ReplacedTokenGradients {
    float *x, *weight, *bias, *gate, *offset;
};

// Floats per token that a forward saves, what comes before GELU; it takes the room of one token more.
Index saved_columns(const BlockKernels<float>& kernels, const ReplacedTokenHead& head);
// As the functions of blocks.h; `logits` and `dlogits` are [n_tokens].
bool forward(const Call<float>& call, const ReplacedTokenHead& head, float* logits, float* saved);
bool backward(const Call<float>& call, const ReplacedTokenHead& head, const float* dlogits, const float* saved,
              const ReplacedTokenGradients& gradients);

}  // namespace electra_fast::cpu
