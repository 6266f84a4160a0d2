// The kernels of the encoder, once for each instruction set: tiles of matrix products, LayerNorm, bytes, attention.

#pragma once

#include <cstdint>
#include <string_view>

namespace electra_fast::cpu {

enum class Ending { kNone, kGelu, kAdd };

// The product C = ending(A W' + bias), by tiles: some rows of A by one panel of W'. Strides are distances between rows.
//
// W' [k, n] is cut into panels of `panel` columns, each [k, panel] in one piece. Zeros fill up the last panel and the
// bias. C has room for all columns of the panels.
struct Product {
    const float* a = nullptr;  // [rows, k]
    long a_stride = 0;
    const float* weight = nullptr;
    const float* bias = nullptr;
    float* c = nullptr;  // [rows, n]
    long c_stride = 0;
    const float* added = nullptr;  // kAdd: [rows, n], c_stride apart
    long k = 0;
    Ending ending = Ending::kNone;

    // A product in eight bits: row r of A is row_scale[r] (bytes[r] - row_zero[r]), column j of the weights is
    // column_scale[j] times whole numbers from -127 to 127. Panels are then [k / 4, panel, 4]; 4 divides k.
    const std::uint8_t* bytes = nullptr;  // [rows, k], a_stride apart; null if A is `a`
    const float* row_scale = nullptr;
    const std::int32_t* row_zero = nullptr;
    const std::int8_t* weight_bytes = nullptr;
    const float* column_scale = nullptr;
    const std::int32_t* column_sum = nullptr;  // sum of a column's whole numbers
};

// The attention softmax(q k' scale) v of one head, for the queries first_query <= i < last_query of a sequence.
struct AttentionHead {
    const float* qkv;                 // the head's queries in the sequence's first row
    long qkv_stride;
    long keys_offset, values_offset;  // distances from a row's queries
    float* out;                       // the head's columns in the sequence's first row of the result
    long out_stride;
    long length, head_size, first_query, last_query;
    float scale;
    bool causal;
};

struct Kernels {
    const char* name;
    long panel;  // columns of a panel of weights
    long tile_rows;  // the number of rows of a tile is best a multiple of this

    void (*multiply)(const Product&, long first_row, long last_row, long panel);
    // Multiplies bytes; null if the processor has no instruction for it.
    void (*multiply_bytes)(const Product&, long first_row, long last_row, long panel);
    // LayerNorm of n numbers; out may be x.
    void (*norm)(const float* x, const float* weight, const float* bias, float eps, long n, float* out);
    // Converts x to bytes as in Product and fills them up to a multiple of 4 with the byte that stands for 0. The scale
    // is NaN where x holds NaN or an infinite number.
    void (*quantize)(const float* x, long n, std::uint8_t* bytes, float* scale, std::int32_t* zero);
    // Computes attention; `scratch` has room for attention_scratch(length, head_size) floats.
    void (*attend)(const AttentionHead&, float* scratch);
    long (*attention_scratch)(long length, long head_size);
};

// The best kernels for this processor; null if it has neither AVX2 with FMA nor AVX-512. `limit` names the best to
// take, "avx512" or "avx2"; with any other there are none.
const Kernels* kernels_of(std::string_view limit);

}  // namespace electra_fast::cpu
