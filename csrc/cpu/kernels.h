// The kernels of the encoder, once for each instruction set: tiles of matrix products, LayerNorm, bytes, attention.

#pragma once

#include <cstdint>
#include <string_view>

#include "cpu/index.h"

namespace electra_fast::cpu {

enum class Ending { kNone, kGelu, kAdd };

// The product C = ending(A W' + bias), by tiles: some rows of A by one panel of W'. Strides are distances between rows.
//
// W' [k, n] is cut into panels of `panel` columns, each [k, panel] in one piece. Zeros fill up the last panel and the
// bias. C has room for all columns of the panels.
struct Product {
    const float* a = nullptr;  // [rows, k]
    Index a_stride = 0;
    const float* weight = nullptr;
    const float* bias = nullptr;
    float* c = nullptr;  // [rows, n]
    Index c_stride = 0;
    const float* added = nullptr;  // kAdd: [rows, n], c_stride apart
    Index k = 0;
    Ending ending = Ending::kNone;

    // A product in eight bits: row r of A is row_scale[r] (codes[r] - row_zero[r]) with codes of 256 numbers, column j of
    // the weights is column_scale[j] times whole numbers from -127 to 127. Panels are then [k / group, panel, group];
    // `group` divides k.
    const std::uint8_t* codes = nullptr;  // [rows, k], a_stride bytes apart; null if A is `a`
    const float* row_scale = nullptr;
    const std::int32_t* row_zero = nullptr;
    const std::int8_t* weight_bytes = nullptr;
    const float* column_scale = nullptr;
    const std::int32_t* column_sum = nullptr;  // sum of a column's whole numbers
};

// The attention softmax(q k' scale) v of one head of a sequence, for its queries first_query <= i < last_query. They are
// as many as keys where it is causal.
struct AttentionHead {
    const float* queries;         // of the first query; those of others are queries_stride apart
    Index queries_stride;
    const float *keys, *values;   // of the sequence's first token; those of others are keys_stride apart
    Index keys_stride;
    float* out;                   // the result of the first query, out_stride apart; may be the queries themselves
    Index out_stride;
    Index length, head_size, first_query, last_query;
    float scale;
    bool causal;
};

// Computes attention; `scratch` has room for scratch_size(length, head_size) floats.
struct AttentionKernel {
    void (*attend)(const AttentionHead&, float* scratch);
    Index (*scratch_size)(Index length, Index head_size);
};

// Products in eight bits. Their sums are exact, so a product of the same numbers is the same with all instruction sets.
struct ByteKernels {
    Index group;  // terms of a column that lie side by side in a panel
    Index code_size;  // bytes of a code of A
    void (*multiply)(const Product&, Index first_row, Index last_row, Index panel);
    // Converts n numbers to codes as in Product and fills them up to a multiple of `group` with the code that stands for
    // 0; may write 64 bytes more. The scale is NaN where x holds NaN or an infinite number.
    void (*quantize)(const float* x, Index n, std::uint8_t* codes, float* scale, std::int32_t* zero);
};

struct Kernels {
    const char* name;
    Index panel;  // columns of a panel of weights
    Index tile_rows;  // the number of rows of a tile is best a multiple of this

    void (*multiply)(const Product&, Index first_row, Index last_row, Index panel);
    // LayerNorm of n numbers; out may be x.
    void (*norm)(const float* x, const float* weight, const float* bias, float eps, Index n, float* out);
    AttentionKernel attention;
    // For an encoder in eight bits: on numbers of 16 bits where the processor has products of those.
    AttentionKernel attention_beside_bytes;
    ByteKernels bytes;
};

// The best kernels for this processor; null if it has neither AVX-512, nor AVX2 with FMA, nor NEON. `limit` names the
// best to take, "avx512", "avx2" or "neon", in this order; with any other there are none.
const Kernels* kernels_of(std::string_view limit);

}  // namespace electra_fast::cpu
