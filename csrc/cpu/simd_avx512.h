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
