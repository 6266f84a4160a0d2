// Registers of eight floats, on AVX2 with FMA: the vocabulary of kernels.inc.

static constexpr int kLanes = 8;
// A tile of 6 rows and 2 registers of columns takes 15 of 16 registers: 12 for sums, 2 for the panel, 1 for the row.
static constexpr int kTileRows = 6;
static constexpr int kTileVectors = 2;

using Vector = __m256;

INLINE Vector zero() { return _mm256_setzero_ps(); }
INLINE Vector all(float x) { return _mm256_set1_ps(x); }
INLINE Vector load(const float* p) { return _mm256_loadu_ps(p); }
INLINE void store(float* p, Vector x) { _mm256_storeu_ps(p, x); }
INLINE Vector add(Vector a, Vector b) { return _mm256_add_ps(a, b); }
INLINE Vector sub(Vector a, Vector b) { return _mm256_sub_ps(a, b); }
INLINE Vector mul(Vector a, Vector b) { return _mm256_mul_ps(a, b); }
INLINE Vector div(Vector a, Vector b) { return _mm256_div_ps(a, b); }
INLINE Vector square_root(Vector x) { return _mm256_sqrt_ps(x); }
INLINE Vector min(Vector a, Vector b) { return _mm256_min_ps(a, b); }
INLINE Vector max(Vector a, Vector b) { return _mm256_max_ps(a, b); }
INLINE Vector round(Vector x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
// a b + c, rounded once.
INLINE Vector fma(Vector a, Vector b, Vector c) { return _mm256_fmadd_ps(a, b, c); }
INLINE Vector abs(Vector x) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x); }
// |x| with the sign of y.
INLINE Vector with_sign(Vector x, Vector y) {
    const Vector sign = _mm256_set1_ps(-0.0f);
    return _mm256_or_ps(_mm256_andnot_ps(sign, x), _mm256_and_ps(sign, y));
}
// 2^n for whole numbers n from -126 to 127.
INLINE Vector power_of_two(Vector n) {
    const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23));
}
INLINE float sum(Vector x) {
    __m128 half = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
}
INLINE float largest(Vector x) {
    __m128 half = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    half = _mm_max_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_max_ss(half, _mm_movehdup_ps(half)));
}
INLINE float smallest(Vector x) {
    __m128 half = _mm_min_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    half = _mm_min_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_min_ss(half, _mm_movehdup_ps(half)));
}
// The lanes of x before n, and those of y from n on.
INLINE Vector first(Vector x, int n, Vector y) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_blendv_ps(y, x, _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(n), lane)));
}
// The first n of the numbers at p, which may be all there are, and zeros; n may be 0 and more than a register holds.
INLINE __m256i before(Index n) {
    const int most = n >= kLanes ? kLanes : n <= 0 ? 0 : static_cast<int>(n);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(most), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
INLINE Vector load_first(const float* p, Index n) { return n >= kLanes ? load(p) : _mm256_maskload_ps(p, before(n)); }
INLINE void store_first(float* p, Vector x, Index n) { n >= kLanes ? store(p, x) : _mm256_maskstore_ps(p, before(n), x); }
// x where its bit is set, else zero.
INLINE Vector keep(Vector x, const std::uint8_t* bits) {
    const __m256i bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    const __m256i set = _mm256_and_si256(_mm256_set1_epi32(*bits), bit);
    return _mm256_and_ps(x, _mm256_castsi256_ps(_mm256_cmpeq_epi32(set, bit)));
}

// Whole numbers of 32 bits.
using Words = __m256i;

INLINE Words all_words(std::uint32_t x) { return _mm256_set1_epi32(static_cast<int>(x)); }
INLINE Words load_words(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
INLINE Words add_words(Words a, Words b) { return _mm256_add_epi32(a, b); }
INLINE Words sub_words(Words a, Words b) { return _mm256_sub_epi32(a, b); }
INLINE Words min_words(Words a, Words b) { return _mm256_min_epi32(a, b); }
INLINE Words max_words(Words a, Words b) { return _mm256_max_epi32(a, b); }
INLINE Words multiply_low(Words a, Words b) { return _mm256_mullo_epi32(a, b); }
INLINE Words to_words(Vector x) { return _mm256_cvtps_epi32(x); }
INLINE Vector to_floats(Words x) { return _mm256_cvtepi32_ps(x); }
// Bytes as numbers of 16 bits, twice as many as there are lanes.
INLINE Words widen(const std::int8_t* p) {
    return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
// Computes sums += a[0] b[0] + a[1] b[1] of the two numbers of 16 bits in each lane. With intrinsics, gcc 12 multiplies
// ahead and keeps sums on the stack.
INLINE void add_pairs(Words& sums, Words a, Words b) {
    Words product;
    __asm__("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0" : "+v"(sums), "=&v"(product) : "v"(a), "v"(b));
}
// Stores whole numbers from 0 to 255.
INLINE __m128i narrow(Words x) { return _mm_packus_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1)); }
INLINE void store_codes(std::uint16_t* p, Words x) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), narrow(x)); }
INLINE void store_codes(std::uint8_t* p, Words x) {
    _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packus_epi16(narrow(x), _mm_setzero_si128()));
}
INLINE Words xor_words(Words a, Words b, Words c) { return _mm256_xor_si256(_mm256_xor_si256(a, b), c); }
// The upper and lower halves of products of 32 bits.
INLINE void multiply_words(Words x, Words by, Words* high, Words* low) {
    const Words even = _mm256_mul_epu32(x, by), odd = _mm256_mul_epu32(_mm256_srli_epi64(x, 32), by);
    *high = _mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xaa);
    *low = _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xaa);
}
// The order in which lanes take groups, so that write_bits writes groups in theirs.
INLINE Words group_order() { return _mm256_setr_epi32(0, 1, 4, 5, 2, 3, 6, 7); }
// Writes a byte per group: a bit for each half of its four words, set where the half is not below the threshold.
INLINE void write_bits(const Words (&words)[4], std::uint32_t threshold, std::uint8_t* bits) {
    const Words low01 = _mm256_unpacklo_epi32(words[0], words[1]), high01 = _mm256_unpackhi_epi32(words[0], words[1]);
    const Words low23 = _mm256_unpacklo_epi32(words[2], words[3]), high23 = _mm256_unpackhi_epi32(words[2], words[3]);
    const Words least = _mm256_set1_epi16(static_cast<short>(threshold));
    Words groups[4] = {_mm256_unpacklo_epi64(low01, low23), _mm256_unpackhi_epi64(low01, low23),
                       _mm256_unpacklo_epi64(high01, high23), _mm256_unpackhi_epi64(high01, high23)};
    UNROLL
    for (Words& group : groups) group = _mm256_cmpeq_epi16(_mm256_max_epu16(group, least), group);
    UNROLL
    for (int i = 0; i < 2; ++i) {
        const int mask = _mm256_movemask_epi8(_mm256_packs_epi16(groups[2 * i], groups[2 * i + 1]));
        std::memcpy(bits + 4 * i, &mask, sizeof mask);
    }
}
INLINE Vector unpack_pairs(Vector a, Vector b, bool high) {
    const __m256d x = _mm256_castps_pd(a), y = _mm256_castps_pd(b);
    return _mm256_castpd_ps(high ? _mm256_unpackhi_pd(x, y) : _mm256_unpacklo_pd(x, y));
}
// Transposes a square of `kLanes` rows.
INLINE void transpose(const float* from, Index from_stride, float* to, Index to_stride) {
    __m256 r[8], t[8];
    UNROLL
    for (int i = 0; i < 8; ++i) r[i] = _mm256_loadu_ps(from + i * from_stride);
    UNROLL
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    UNROLL
    for (int i = 0; i < 8; i += 4) {
        r[i] = unpack_pairs(t[i], t[i + 2], false);
        r[i + 1] = unpack_pairs(t[i], t[i + 2], true);
        r[i + 2] = unpack_pairs(t[i + 1], t[i + 3], false);
        r[i + 3] = unpack_pairs(t[i + 1], t[i + 3], true);
    }
    // r[4 a + b] has, in half h, column 4 h + b of rows 4 a to 4 a + 3.
    UNROLL
    for (int b = 0; b < 4; ++b) {
        _mm256_storeu_ps(to + b * to_stride, _mm256_permute2f128_ps(r[b], r[4 + b], 0x20));
        _mm256_storeu_ps(to + (4 + b) * to_stride, _mm256_permute2f128_ps(r[b], r[4 + b], 0x31));
    }
}
