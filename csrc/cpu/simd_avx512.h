// Registers of sixteen floats, on AVX-512: the vocabulary of kernels.inc.

static constexpr int kLanes = 16;
// A tile of 6 rows and 4 registers of columns takes 29 of 32 registers: 24 for sums, 4 for the panel, 1 for the row.
static constexpr int kTileRows = 6;
static constexpr int kTileVectors = 4;

using Vector = __m512;

INLINE Vector zero() { return _mm512_setzero_ps(); }
INLINE Vector all(float x) { return _mm512_set1_ps(x); }
INLINE Vector load(const float* p) { return _mm512_loadu_ps(p); }
INLINE void store(float* p, Vector x) { _mm512_storeu_ps(p, x); }
INLINE Vector add(Vector a, Vector b) { return _mm512_add_ps(a, b); }
INLINE Vector sub(Vector a, Vector b) { return _mm512_sub_ps(a, b); }
INLINE Vector mul(Vector a, Vector b) { return _mm512_mul_ps(a, b); }
INLINE Vector div(Vector a, Vector b) { return _mm512_div_ps(a, b); }
INLINE Vector square_root(Vector x) { return _mm512_sqrt_ps(x); }
INLINE Vector min(Vector a, Vector b) { return _mm512_min_ps(a, b); }
INLINE Vector max(Vector a, Vector b) { return _mm512_max_ps(a, b); }
INLINE Vector round(Vector x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
// a b + c, rounded once.
INLINE Vector fma(Vector a, Vector b, Vector c) { return _mm512_fmadd_ps(a, b, c); }
INLINE Vector abs(Vector x) { return _mm512_abs_ps(x); }
// |x| with the sign of y.
INLINE Vector with_sign(Vector x, Vector y) {
    return _mm512_castsi512_ps(
        _mm512_ternarylogic_epi32(_mm512_set1_epi32(INT32_MIN), _mm512_castps_si512(y), _mm512_castps_si512(x), 0xca));
}
// 2^n for whole numbers n from -126 to 127.
INLINE Vector power_of_two(Vector n) {
    const __m512i exponent = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
    return _mm512_castsi512_ps(_mm512_slli_epi32(exponent, 23));
}
INLINE float sum(Vector x) { return _mm512_reduce_add_ps(x); }
INLINE float largest(Vector x) { return _mm512_reduce_max_ps(x); }
INLINE float smallest(Vector x) { return _mm512_reduce_min_ps(x); }
// The lanes of x before n, and those of y from n on.
INLINE Vector first(Vector x, int n, Vector y) {
    return _mm512_mask_blend_ps(static_cast<__mmask16>(n >= 16 ? 0xffff : (1 << n) - 1), y, x);
}
// The first n of the numbers at p, which may be all there are, and zeros; n may be 0 and more than a register holds.
INLINE __mmask16 before(Index n) { return static_cast<__mmask16>(n >= kLanes ? 0xffff : n <= 0 ? 0 : (1 << n) - 1); }
INLINE Vector load_first(const float* p, Index n) { return _mm512_maskz_loadu_ps(before(n), p); }
INLINE void store_first(float* p, Vector x, Index n) { _mm512_mask_storeu_ps(p, before(n), x); }
// x where its bit is set, else zero.
INLINE Vector keep(Vector x, const std::uint8_t* bits) {
    std::uint16_t mask;
    std::memcpy(&mask, bits, sizeof mask);
    return _mm512_maskz_mov_ps(static_cast<__mmask16>(mask), x);
}

// Whole numbers of 32 bits.
using Words = __m512i;

INLINE Words all_words(std::uint32_t x) { return _mm512_set1_epi32(static_cast<int>(x)); }
INLINE Words load_words(const void* p) { return _mm512_loadu_si512(p); }
INLINE Words add_words(Words a, Words b) { return _mm512_add_epi32(a, b); }
INLINE Words sub_words(Words a, Words b) { return _mm512_sub_epi32(a, b); }
INLINE Words min_words(Words a, Words b) { return _mm512_min_epi32(a, b); }
INLINE Words max_words(Words a, Words b) { return _mm512_max_epi32(a, b); }
INLINE Words multiply_low(Words a, Words b) { return _mm512_mullo_epi32(a, b); }
INLINE Words to_words(Vector x) { return _mm512_cvtps_epi32(x); }
INLINE Vector to_floats(Words x) { return _mm512_cvtepi32_ps(x); }
// Bytes as numbers of 16 bits, twice as many as there are lanes.
INLINE Words widen(const std::int8_t* p) {
    return _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
// Computes sums += a[0] b[0] + a[1] b[1] of the two numbers of 16 bits in each lane. With intrinsics, gcc 12 multiplies
// ahead and keeps sums on the stack.
INLINE void add_pairs(Words& sums, Words a, Words b) {
    Words product;
    __asm__("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0" : "+v"(sums), "=&v"(product) : "v"(a), "v"(b));
}
// Stores whole numbers from 0 to 255.
INLINE void store_codes(std::uint16_t* p, Words x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(x));
}
INLINE void store_codes(std::uint8_t* p, Words x) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(x));
}
INLINE Words xor_words(Words a, Words b, Words c) { return _mm512_ternarylogic_epi32(a, b, c, 0x96); }
// The upper and lower halves of products of 32 bits.
INLINE void multiply_words(Words x, Words by, Words* high, Words* low) {
    const Words even = _mm512_mul_epu32(x, by), odd = _mm512_mul_epu32(_mm512_srli_epi64(x, 32), by);
    *high = _mm512_mask_blend_epi32(0xaaaa, _mm512_srli_epi64(even, 32), odd);
    *low = _mm512_mask_blend_epi32(0xaaaa, even, _mm512_slli_epi64(odd, 32));
}
// The order in which lanes take groups, so that write_bits writes groups in theirs.
INLINE Words group_order() { return _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15); }
// Writes a byte per group: a bit for each half of its four words, set where the half is not below the threshold.
INLINE void write_bits(const Words (&words)[4], std::uint32_t threshold, std::uint8_t* bits) {
    const Words low01 = _mm512_unpacklo_epi32(words[0], words[1]), high01 = _mm512_unpackhi_epi32(words[0], words[1]);
    const Words low23 = _mm512_unpacklo_epi32(words[2], words[3]), high23 = _mm512_unpackhi_epi32(words[2], words[3]);
    const Words groups[4] = {_mm512_unpacklo_epi64(low01, low23), _mm512_unpackhi_epi64(low01, low23),
                             _mm512_unpacklo_epi64(high01, high23), _mm512_unpackhi_epi64(high01, high23)};
    const Words least = _mm512_set1_epi16(static_cast<short>(threshold));
    UNROLL
    for (int i = 0; i < 4; ++i) {
        const std::uint32_t mask = _mm512_cmpge_epu16_mask(groups[i], least);
        std::memcpy(bits + 4 * i, &mask, sizeof mask);
    }
}
INLINE Vector unpack_pairs(Vector a, Vector b, bool high) {
    const __m512d x = _mm512_castps_pd(a), y = _mm512_castps_pd(b);
    return _mm512_castpd_ps(high ? _mm512_unpackhi_pd(x, y) : _mm512_unpacklo_pd(x, y));
}
// Transposes a square of `kLanes` rows.
INLINE void transpose(const float* from, Index from_stride, float* to, Index to_stride) {
    __m512 r[16], t[16];
    UNROLL
    for (int i = 0; i < 16; ++i) r[i] = _mm512_loadu_ps(from + i * from_stride);
    UNROLL
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
    UNROLL
    for (int i = 0; i < 16; i += 4) {
        r[i] = unpack_pairs(t[i], t[i + 2], false);
        r[i + 1] = unpack_pairs(t[i], t[i + 2], true);
        r[i + 2] = unpack_pairs(t[i + 1], t[i + 3], false);
        r[i + 3] = unpack_pairs(t[i + 1], t[i + 3], true);
    }
    // r[4 a + b] has, in each quarter q, column 4 q + b of rows 4 a to 4 a + 3.
    UNROLL
    for (int b = 0; b < 4; ++b) {
        const __m512 first = _mm512_shuffle_f32x4(r[b], r[4 + b], 0x88), second = _mm512_shuffle_f32x4(r[8 + b], r[12 + b], 0x88);
        const __m512 third = _mm512_shuffle_f32x4(r[b], r[4 + b], 0xdd), fourth = _mm512_shuffle_f32x4(r[8 + b], r[12 + b], 0xdd);
        _mm512_storeu_ps(to + b * to_stride, _mm512_shuffle_f32x4(first, second, 0x88));
        _mm512_storeu_ps(to + (8 + b) * to_stride, _mm512_shuffle_f32x4(first, second, 0xdd));
        _mm512_storeu_ps(to + (4 + b) * to_stride, _mm512_shuffle_f32x4(third, fourth, 0x88));
        _mm512_storeu_ps(to + (12 + b) * to_stride, _mm512_shuffle_f32x4(third, fourth, 0xdd));
    }
}
