// The two halves of a layer, forward and backward, on packed tokens: the ops attention_block and feed_forward_block.
//
// attention_block: y = LayerNorm(x + dropout(attention(x Wq', x Wk', x Wv') Wo' + b))
// feed_forward_block: y = LayerNorm(x + dropout(GELU(x Wi' + b) Wo' + b))
//
// All matrices are in rows, of numbers of type T: float, or Bf16 where all sizes are even. A forward saves what its
// backward would take longer to compute than to read: queries, keys, values and attention's result, or what comes before
// GELU; the sums before LayerNorm; and a row's statistics, which are floats.

#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <utility>
#include <vector>

#include "cpu/block_kernels.h"
#include "cpu/index.h"

namespace electra_fast::cpu {

template <typename T>
struct NormParameters {
    const T *weight, *bias;
};

// What a call needs besides its numbers.
template <typename T>
struct Call {
    const BlockKernels<T>& kernels;
    int n_threads;
    const std::function<bool()>& wants_stop;  // asked now and then, in the thread that calls
};

template <typename T>
struct AttentionBlock {
    Index n_tokens, hidden, heads;
    std::vector<std::int32_t> starts;  // of sequences; rises from 0 to n_tokens
    bool causal;
    const T* x;                        // [n_tokens, hidden]
    std::array<const T*, 4> weights, biases;  // of queries, keys, values and the output
    NormParameters<T> norm;
    float eps;
    Dropout attention_dropout, output_dropout;
    std::optional<std::vector<Index>> read = {};  // the tokens whose results are computed, in this order; none: all

    // Rows of the result.
    Index n_rows() const { return read ? static_cast<Index>(read->size()) : n_tokens; }
};

template <typename T>
struct FeedForwardBlock {
    Index n_tokens, hidden, inner;
    const T* x;
    std::array<const T*, 2> weights, biases;  // of the inner layer and of the output
    NormParameters<T> norm;
    float eps;
    Dropout dropout;
};

// Where gradients go; null where nobody wants one.
template <typename T, std::size_t n>
struct BlockGradients {
    T* x;
    std::array<T*, n> weights, biases;
    T *norm_weight, *norm_bias;
};

// Numbers per token that a forward saves, and of an attention_block per row of its result too; it takes the room of one
// token and one row more. They depend on the sizes alone.
template <typename T>
std::pair<Index, Index> saved_columns(const BlockKernels<T>& kernels, AttentionBlock<T> block);
template <typename T>
Index saved_columns(const BlockKernels<T>& kernels, FeedForwardBlock<T> block);

// Throw std::invalid_argument for sizes or starts that cannot be, std::out_of_range for a token to read that is none, and
// std::bad_alloc. Return false, with the results undone, once the call was to stop. `saved` is null if no backward
// follows.
template <typename T>
bool forward(const Call<T>& call, const AttentionBlock<T>& block, T* out, T* saved);
template <typename T>
bool forward(const Call<T>& call, const FeedForwardBlock<T>& block, T* out, T* saved);
template <typename T>
bool backward(const Call<T>& call, const AttentionBlock<T>& block, const T* dout, const T* saved,
              const BlockGradients<T, 4>& gradients);
template <typename T>
bool backward(const Call<T>& call, const FeedForwardBlock<T>& block, const T* dout, const T* saved,
              const BlockGradients<T, 2>& gradients);

}  // namespace electra_fast::cpu
