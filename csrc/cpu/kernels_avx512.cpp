// The kernels for AVX-512, with VNNI's products of bytes where the processor has them.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#include "cpu/kernels.h"
#include "cpu/variants.h"

#if defined(__x86_64__)

#include <immintrin.h>

#define TARGET "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma"
#include "cpu/target_begin.h"

namespace electra_fast::cpu {
namespace {

#include "cpu/simd_avx512.h"

#include "cpu/tiles.inc"

#include "cpu/kernels.inc"

// Loads the n numbers of x that are left after whole registers, filled up with zeros.
INLINE Vector load_some(const float* x, long n) {
    alignas(64) float some[kLanes];
    for (long i = 0; i < kLanes; ++i) some[i] = i < n ? x[i] : 0.0f;
    return load(some);
}

// Finds the least and the largest number first. A byte stands for 0 exactly, so that padding costs no accuracy.
void quantize(const float* x, long n, std::uint8_t* bytes, float* scale, std::int32_t* zero_byte) {
    const long whole = n / kLanes * kLanes;
    Vector low = zero(), high = zero(), broken = zero();  // `broken` becomes NaN, which low and high may lose
    const auto look_at = [&](Vector some) INLINE_LAMBDA {
        low = min(low, some);
        high = max(high, some);
        broken = fma(some, zero(), broken);
    };
    for (long i = 0; i < whole; i += kLanes) look_at(load(x + i));
    if (whole < n) look_at(load_some(x + whole, n - whole));
    const float least = smallest(low), range = largest(high) - least;
    if (!std::isfinite(range + sum(broken))) {
        *scale = std::numeric_limits<float>::quiet_NaN();
        *zero_byte = 0;
        __builtin_memset(bytes, 0, static_cast<std::size_t>(round_up(n, 4)));
        return;
    }
    // Numbers so small that a float cannot hold their step count as zeros.
    const float step = range >= 255 * std::numeric_limits<float>::min() ? range / 255 : 1;
    *scale = step;
    *zero_byte = static_cast<std::int32_t>(std::nearbyint(-least / step));
    const Vector factor = all(1 / step);
    const __m512i shift = _mm512_set1_epi32(*zero_byte);
    for (long i = 0; i < n; i += kLanes) {
        const Vector some = i < whole ? load(x + i) : load_some(x + i, n - i);
        const __m512i numbers = _mm512_add_epi32(_mm512_cvtps_epi32(mul(some, factor)), shift);
        const __m128i packed = _mm512_cvtusepi32_epi8(_mm512_max_epi32(numbers, _mm512_setzero_si512()));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(bytes + i), packed);
    }
}

// Computes sums += a b, four bytes per sum. With the intrinsic, gcc 12 copies each sum to the stack and back, which
// halves the speed.
INLINE void add_products(__m512i& sums, __m512i a, __m512i b) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sums) : "v"(a), "v"(b));
}

template <int Rows, Ending ending>
INLINE void byte_tile(const Product& product, const std::int8_t* weight, long row, long panel) {
    __m512i sums[Rows][kTileVectors];
    UNROLL
    for (int i = 0; i < Rows; ++i) UNROLL for (int j = 0; j < kTileVectors; ++j) sums[i][j] = _mm512_setzero_si512();
    const std::uint8_t* const a = product.bytes + row * product.a_stride;
    for (long step = 0; step < product.k; step += 4) {
        __m512i columns[kTileVectors];
        UNROLL
        for (int j = 0; j < kTileVectors; ++j)
            columns[j] = _mm512_loadu_si512(weight + step * kPanel + 4 * j * kLanes);
        UNROLL
        for (int i = 0; i < Rows; ++i) {
            std::int32_t four;
            __builtin_memcpy(&four, a + i * product.a_stride + step, 4);
            const __m512i x = _mm512_set1_epi32(four);
            UNROLL
            for (int j = 0; j < kTileVectors; ++j) add_products(sums[i][j], x, columns[j]);
        }
    }
    UNROLL
    for (int i = 0; i < Rows; ++i) {
        const __m512i row_zero = _mm512_set1_epi32(product.row_zero[row + i]);
        const Vector row_scale = all(product.row_scale[row + i]);
        UNROLL
        for (int j = 0; j < kTileVectors; ++j) {
            const long column = panel * kPanel + j * kLanes;
            const __m512i offset = _mm512_mullo_epi32(row_zero, _mm512_loadu_si512(product.column_sum + column));
            const Vector whole = _mm512_cvtepi32_ps(_mm512_sub_epi32(sums[i][j], offset));
            const Vector scale = mul(row_scale, load(product.column_scale + column));
            write<ending>(fma(whole, scale, load(product.bias + column)), product, row + i, column);
        }
    }
}

template <Ending ending>
INLINE void multiply_byte_rows(const Product& product, long first_row, long last_row, long panel) {
    const std::int8_t* const weight = product.weight_bytes + panel * product.k * kPanel;
    for_tiles(first_row, last_row, [&](long row, auto rows) INLINE_LAMBDA {
        byte_tile<rows(), ending>(product, weight, row, panel);
        if constexpr (ending == Ending::kGelu) gelu_rows(product, row, rows(), panel);
    });
}

void multiply_bytes(const Product& product, long first_row, long last_row, long panel) {
    switch (product.ending) {
        case Ending::kNone: return multiply_byte_rows<Ending::kNone>(product, first_row, last_row, panel);
        case Ending::kGelu: return multiply_byte_rows<Ending::kGelu>(product, first_row, last_row, panel);
        case Ending::kAdd: return multiply_byte_rows<Ending::kAdd>(product, first_row, last_row, panel);
    }
}

}  // namespace

Kernels avx512_kernels(bool has_vnni) {
    return {has_vnni ? "AVX-512 with VNNI" : "AVX-512",
            kPanel,
            kTileRows,
            multiply,
            has_vnni ? multiply_bytes : nullptr,
            norm,
            quantize,
            attend,
            attention_scratch};
}

}  // namespace electra_fast::cpu

#include "cpu/target_end.h"

#endif
