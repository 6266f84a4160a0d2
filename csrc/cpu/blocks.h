// The two halves of a layer, forward and backward, on packed tokens: the ops attention_block and feed_forward_block.
//
// attention_block: y = LayerNorm(x + dropout(attention(x Wq', x Wk', x Wv') Wo' + b))
// feed_forward_block: y = LayerNorm(x + dropout(GELU(x Wi' + b) Wo' + b))
//
// All pointers are to fp32 in rows. A forward saves what its backward would take longer to compute than to read: queries,
// keys, values and attention's result, or what comes before GELU; the sums before LayerNorm; and a row's statistics.

#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <vector>

#include "cpu/block_kernels.h"

namespace electra_fast::cpu {

struct NormParameters {
    const float *weight, *bias;
};

// What a call needs besides its numbers.
struct Call {
    const BlockKernels& kernels;
    int n_threads;
    const std::function<bool()>& wants_stop;  // asked now and then, in the thread that calls
};

struct AttentionBlock {
    long n_tokens, hidden, heads;
    std::vector<std::int32_t> starts;  // of sequences; rises from 0 to n_tokens
    bool causal;
    const float* x;                    // [n_tokens, hidden]
    std::array<const float*, 4> weights, biases;  // of queries, keys, values and the output
    NormParameters norm;
    float eps;
    Dropout attention_dropout, output_dropout;
};

struct FeedForwardBlock {
    long n_tokens, hidden, inner;
    const float* x;
    std::array<const float*, 2> weights, biases;  // of the inner layer and of the output
    NormParameters norm;
    float eps;
    Dropout dropout;
};

// Where gradients go; null where nobody wants one.
template <std::size_t n>
struct BlockGradients {
    float* x;
    std::array<float*, n> weights, biases;
    float *norm_weight, *norm_bias;
};

// Floats per token that a forward saves; it takes the room of one token more. They depend on the sizes alone.
long saved_columns(const BlockKernels& kernels, AttentionBlock block);
long saved_columns(const BlockKernels& kernels, FeedForwardBlock block);

// Throw std::invalid_argument for sizes or starts that cannot be, and std::bad_alloc. Return false, with the results
// undone, once the call was to stop. `saved` is null if no backward follows.
bool forward(const Call& call, const AttentionBlock& block, float* out, float* saved);
bool forward(const Call& call, const FeedForwardBlock& block, float* out, float* saved);
bool backward(const Call& call, const AttentionBlock& block, const float* dout, const float* saved,
              const BlockGradients<4>& gradients);
bool backward(const Call& call, const FeedForwardBlock& block, const float* dout, const float* saved,
              const BlockGradients<2>& gradients);

}  // namespace electra_fast::cpu
