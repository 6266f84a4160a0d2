// The kernels of the two halves of a layer, once for each instruction set: products forward and backward, rows of
// dropout and LayerNorm, and attention within one sequence. T is the type of numbers in memory, float or Bf16. All
// arithmetic is that of floats, except that products multiply pairs of Bf16; statistics are floats in memory too.
//
// Matrices between two products are in panels, [columns / panel, rows, panel]: whichever of its two dimensions a product
// sums over, it reads them in order. Matrices of torch are in rows.

#pragma once

#include <cstdint>
#include <string_view>

#include "cpu/bf16.h"
#include "cpu/index.h"

namespace electra_fast::cpu {

// A matrix: the number in row i and column j is data[j / panel * panel_stride + i * row_stride + j % panel].
template <typename T>
struct Matrix {
    T* data = nullptr;
    Index row_stride = 0, panel_stride = 0;

    operator Matrix<const T>() const { return {data, row_stride, panel_stride}; }
    // The same matrix from another panel on.
    Matrix from_panel(Index panel) const { return {data + panel * panel_stride, row_stride, panel_stride}; }
};

// Dropout by ops/philox.py: an element is kept where its 16 bits are not below the threshold, and multiplied by scale.
struct Dropout {
    std::uint32_t threshold = 0;  // of 65536; 0: there is no dropout
    float scale = 1;
    std::uint64_t seed = 0;
};

// What becomes of the sums of a product, x = A B.
enum class End {
    kBias,          // c = x + bias
    kGelu,          // c = x + bias, second = GELU(c); the two may be one matrix
    kResidual,      // c = dropout(x + bias) + other
    kAdd,           // c = x + other, or x where there is no other
    kGeluBackward,  // c = x GELU'(other), second = GELU(other)
};

// The product of A [rows, k], by rows or in panels, and B [k, n], packed in panels whose last one zeros fill up; a
// panel of Bf16 is [k / 2, panel, 2], and k is even.
template <typename T>
struct BlockProduct {
    Matrix<const T> a;
    const T* b = nullptr;
    Index k = 0, n = 0;
    End end = End::kBias;
    const T* bias = nullptr;  // [n]
    Matrix<const T> other;
    Matrix<T> c, second;
    const std::uint8_t* bits = nullptr;  // kResidual: a row's bits, from `bits_stride` bytes per row; null: no dropout
    Index bits_stride = 0;
    float scale = 1;
};

// The gradient of a weight [n, k]: out = dY' X, summed over tokens, and of its bias: the sums of dY's columns.
template <typename T>
struct WeightGradient {
    Matrix<const T> dy;  // [tokens, n] in panels
    Matrix<const T> x;   // [tokens, k] in rows or panels
    Index n_tokens, n, k;
    T* out;              // [n, k] in rows; null if nobody wants it
    T* bias;             // [n]; null if nobody wants it
    bool adds = false;   // to what is there already
};

// The logits of some rows over a vocabulary of n, in panels; they are floats, whatever T is.
struct Logits {
    Matrix<float> values;
    Index n;
};
// What a row's softmax takes from one panel of its logits: the largest, and the sums of exp(x - largest) and of
// exp((x - largest) / temperature). Each is [panels, rows].
struct PanelSums {
    float *largest, *sums, *tempered;
    Index n_rows;
};

// LayerNorm of the rows of `sums`, forward and backward. Statistics are [2, tokens]: mean, and 1 / standard deviation.
template <typename T>
struct NormForward {
    Matrix<const T> sums;
    const T *weight, *bias;
    float eps;
    Index n, n_tokens;
    T* out;             // [tokens, n] in rows
    float* statistics;
};
template <typename T>
struct NormBackward {
    const T* dout;      // [tokens, n] in rows
    Matrix<const T> sums;
    const T* weight;
    const float* statistics;
    Index n, n_tokens;
    Dropout dropout;
    Matrix<T> dsums;    // gradient of the sums
    Matrix<T> dbranch;  // after dropout, as dsums lies; dsums itself without dropout
    const Index* tokens = nullptr;  // the row of dropout's bits for each row; null: the row itself
};

// Attention of one head within one sequence; all matrices are those of the whole batch, in panels. Keys and values have a
// row for each token; queries, and what belongs to them, have one for each token that somebody reads.
template <typename T>
struct BlockAttention {
    Matrix<const T> queries, keys, values;
    const Index* rows;           // [n_queries]: this sequence's rows of queries
    const Index* tokens;         // [n_rows]: the token of each row of queries
    Index n_queries, n_rows;
    Index first_token, length, head, head_size;
    bool causal;
    Dropout dropout;
    float* statistics;          // [heads, 2, n_rows]: a row's largest score and 1 / its sum of exponentials
    Matrix<T> out;              // forward: the result
    Matrix<const T> dattended;  // backward: the gradient of the result
    Matrix<T> dqueries, dkeys, dvalues;  // backward: gradients
};

// The numbers of AdamW's update of a tensor: p = kept p - rate m / (sqrt(v) inverse_root + eps).
struct AdamWRates {
    float rate, inverse_root, kept, beta2, rest1, rest2, eps, grad_scale;  // resti: 1 - betai
};

template <typename T>
struct BlockKernels {
    Index panel;
    Index task_rows;  // rows of a product that are one task

    // Packs a panel of B = W' of W [n, k] in rows, for columns panel * `panel` and on.
    void (*pack_transposed)(const T* weight, Index n, Index k, Index panel, T* to);
    // Packs a panel of B = W of W [n, k] in rows.
    void (*pack)(const T* weight, Index n, Index k, Index panel, T* to);
    Index (*bits_stride)(Index n);
    // Draws which of n elements of a row dropout keeps; writes bits_stride(n) bytes.
    void (*draw_bits)(const Dropout&, std::uint32_t row, std::uint32_t head, Index n, std::uint8_t* bits);
    Index product_scratch;  // floats of scratch memory for the next two
    void (*multiply)(const BlockProduct<T>&, Index first_row, Index last_row, Index panel, float* scratch);
    // Computes the gradient of a panel of rows by a panel of columns, and of the bias with the first columns.
    void (*weight_gradient)(const WeightGradient<T>&, Index row_panel, Index column_panel, float* scratch);
    // Sums of a panel's logits in some rows.
    void (*sum_logits)(const Logits&, float temperature, Index first_row, Index last_row, Index panel, const PanelSums&);
    // Turns a panel's logits x of label y into gradients of the cross-entropy: dloss (exp(x - log_sum) - [x is y's]).
    // `to` has the shape of the logits, and may be these.
    void (*logits_backward)(const Logits&, const float* log_sums, const std::int64_t* labels, const float* dlosses,
                            Index first_row, Index last_row, Index panel, const Matrix<float>& to);
    // Dropout of a row of n numbers; `bits` has bits_stride(n) bytes. out may be x.
    void (*drop)(const Dropout&, std::uint32_t row, Index n, const float* x, float* out, std::uint8_t* bits);
    void (*norm)(const NormForward<T>&, Index first_row, Index last_row);
    // Adds the gradients of weight and bias to `partial` [2, n]; `bits` has bits_stride(n) bytes.
    void (*norm_backward)(const NormBackward<T>&, Index first_row, Index last_row, float* partial, std::uint8_t* bits);
    Index (*attention_scratch)(Index n_queries, Index length, Index head_size);
    void (*attend)(const BlockAttention<T>&, float* scratch);
    Index (*attention_backward_scratch)(Index n_queries, Index length, Index head_size);
    void (*attend_backward)(const BlockAttention<T>&, float* scratch);
    void (*project)(const Matrix<const float>& x, const float* weight, float offset, Index n, Index first_row, Index last_row,
                    float* out);
    // Backward of GELU(x) . weight; adds the weight's gradient to `partial` [n].
    void (*project_backward)(const Matrix<const float>& x, const float* weight, const float* dout, Index n, Index first_row,
                             Index last_row, const Matrix<float>& dx, float* partial);
    // Backward of GELU(x): dx = dout GELU'(x); dout is [rows, n] in rows.
    void (*gelu_backward)(const Matrix<const float>& x, const float* dout, Index n, Index first_row, Index last_row,
                          const Matrix<float>& dx);
    double (*sum_of_squares)(const float* x, Index n);
    void (*adamw)(const AdamWRates&, const float* grad, Index n, float* param, float* exp_avg, float* exp_avg_sq);
};

// The kernels of the instruction set that kernels_of(limit) takes; null if there are none. Those of Bf16 need
// AVX512_BF16 beside AVX-512.
template <typename T>
const BlockKernels<T>* block_kernels_of(std::string_view limit);
template <>
const BlockKernels<float>* block_kernels_of(std::string_view limit);
template <>
const BlockKernels<Bf16>* block_kernels_of(std::string_view limit);

}  // namespace electra_fast::cpu
