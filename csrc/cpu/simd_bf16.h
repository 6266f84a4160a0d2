// Numbers of 16 bits in memory, floats in the registers of simd_avx512.h; pairs of them for AVX512_BF16's products.

INLINE Vector widened(__m256i x) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16)); }
INLINE Vector load(const Bf16* p) { return widened(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
INLINE Vector load_first(const Bf16* p, Index n) { return widened(_mm256_maskz_loadu_epi16(before(n), p)); }
// Rounds to nearest, halves to even; NaN stays NaN.
INLINE void store_first(Bf16* p, Vector x, Index n) {
    _mm256_mask_storeu_epi16(p, before(n), (__m256i)_mm512_cvtneps_pbh(x));
}

using Pairs = __m512bh;

INLINE Pair operand_at(const Bf16* p) {
    Pair pair;
    std::memcpy(&pair, p, sizeof pair);
    return pair;
}
INLINE Pairs all(Pair x) {
    std::int32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    return (__m512bh)_mm512_set1_epi32(bits);
}
INLINE Pairs load(const Pair* p) { return (__m512bh)_mm512_loadu_si512(p); }
// The sums of products of pairs, and c.
INLINE Vector fma(Pairs a, Pairs b, Vector c) { return _mm512_dpbf16_ps(c, a, b); }

INLINE const Pair* operands(const Bf16* p) { return reinterpret_cast<const Pair*>(p); }

// Pairs of rows, to a panel of B [n_rows / 2, panel, 2], with zeros after the last row and the last column.
INLINE void lay_out(const Bf16* from, Index stride, Index n_rows, Index n_columns, Bf16* to) {
    constexpr Index kWidth = kLanes * kTileVectors, kRegister = 2 * kLanes;
    alignas(64) static constexpr std::uint16_t kLow[] = {0, 32, 1, 33, 2,  34, 3,  35, 4,  36, 5,  37, 6,  38, 7,  39,
                                                         8, 40, 9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47};
    const __m512i low = _mm512_load_si512(kLow), high = _mm512_add_epi16(low, _mm512_set1_epi16(kLanes));
    for (Index row = 0; row < n_rows; row += 2)
        for (Index column = 0; column < kWidth; column += kRegister) {
            const Index left = n_columns - column;
            const auto mask = static_cast<__mmask32>(left >= kRegister ? ~0u : left <= 0 ? 0 : (1u << left) - 1);
            const Bf16* const place = from + row * stride + column;
            const __m512i a = _mm512_maskz_loadu_epi16(mask, place);
            const __m512i b = _mm512_maskz_loadu_epi16(row + 1 < n_rows ? mask : 0, place + stride);
            Bf16* const pairs = to + row * kWidth + 2 * column;
            _mm512_storeu_si512(pairs, _mm512_permutex2var_epi16(a, low, b));
            _mm512_storeu_si512(pairs + kRegister, _mm512_permutex2var_epi16(a, high, b));
        }
}
