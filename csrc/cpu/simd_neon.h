// Registers of eight floats, as pairs of NEON's: the vocabulary of kernels.inc.

static constexpr int kLanes = 8;
// A tile of 6 rows and 2 pairs of columns takes 29 of 32 registers: 24 for sums, 4 for the panel, 1 for the row.
static constexpr int kTileRows = 6;
static constexpr int kTileVectors = 2;

struct Vector {
    float32x4_t low, high;
};

INLINE Vector all(float x) { return {vdupq_n_f32(x), vdupq_n_f32(x)}; }
INLINE Vector zero() { return all(0); }
INLINE Vector load(const float* p) { return {vld1q_f32(p), vld1q_f32(p + 4)}; }
INLINE void store(float* p, Vector x) {
    vst1q_f32(p, x.low);
    vst1q_f32(p + 4, x.high);
}
INLINE Vector add(Vector a, Vector b) { return {vaddq_f32(a.low, b.low), vaddq_f32(a.high, b.high)}; }
INLINE Vector sub(Vector a, Vector b) { return {vsubq_f32(a.low, b.low), vsubq_f32(a.high, b.high)}; }
INLINE Vector mul(Vector a, Vector b) { return {vmulq_f32(a.low, b.low), vmulq_f32(a.high, b.high)}; }
INLINE Vector div(Vector a, Vector b) { return {vdivq_f32(a.low, b.low), vdivq_f32(a.high, b.high)}; }
INLINE Vector square_root(Vector x) { return {vsqrtq_f32(x.low), vsqrtq_f32(x.high)}; }
// NaN where either is.
INLINE Vector min(Vector a, Vector b) { return {vminq_f32(a.low, b.low), vminq_f32(a.high, b.high)}; }
INLINE Vector max(Vector a, Vector b) { return {vmaxq_f32(a.low, b.low), vmaxq_f32(a.high, b.high)}; }
INLINE Vector round(Vector x) { return {vrndnq_f32(x.low), vrndnq_f32(x.high)}; }
// a b + c, rounded once.
INLINE Vector fma(Vector a, Vector b, Vector c) {
    return {vfmaq_f32(c.low, a.low, b.low), vfmaq_f32(c.high, a.high, b.high)};
}
INLINE Vector abs(Vector x) { return {vabsq_f32(x.low), vabsq_f32(x.high)}; }
// |x| with the sign of y.
INLINE Vector with_sign(Vector x, Vector y) {
    const uint32x4_t sign = vdupq_n_u32(0x80000000u);
    return {vbslq_f32(sign, y.low, x.low), vbslq_f32(sign, y.high, x.high)};
}
// 2^n for whole numbers n from -126 to 127.
INLINE float32x4_t power_of_two(float32x4_t n) {
    return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127)), 23));
}
INLINE Vector power_of_two(Vector n) { return {power_of_two(n.low), power_of_two(n.high)}; }
// In AVX2's order, so that results have its bits.
INLINE float sum(Vector x) {
    const float32x4_t half = vaddq_f32(x.low, x.high);
    return vaddv_f32(vadd_f32(vget_low_f32(half), vget_high_f32(half)));
}
INLINE float largest(Vector x) { return vmaxvq_f32(vmaxq_f32(x.low, x.high)); }
INLINE float smallest(Vector x) { return vminvq_f32(vminq_f32(x.low, x.high)); }
// The lanes of x before n, and those of y from n on.
INLINE Vector first(Vector x, int n, Vector y) {
    const int32x4_t lane = {0, 1, 2, 3};
    return {vbslq_f32(vcltq_s32(lane, vdupq_n_s32(n)), x.low, y.low),
            vbslq_f32(vcltq_s32(lane, vdupq_n_s32(n - 4)), x.high, y.high)};
}
// The first n of the numbers at p, which may be all there are, and zeros; n may be 0 and more than a register holds.
INLINE float32x4_t load_four(const float* p, Index n) {
    if (n >= 4) return vld1q_f32(p);
    const float32x2_t none = vdup_n_f32(0);
    const float32x2_t low = n >= 2 ? vld1_f32(p) : n == 1 ? vld1_lane_f32(p, none, 0) : none;
    return vcombine_f32(low, n == 3 ? vld1_lane_f32(p + 2, none, 0) : none);
}
INLINE void store_four(float* p, float32x4_t x, Index n) {
    if (n >= 4) return vst1q_f32(p, x);
    if (n >= 2) vst1_f32(p, vget_low_f32(x));
    if (n == 1) vst1q_lane_f32(p, x, 0);
    if (n == 3) vst1q_lane_f32(p + 2, x, 2);
}
INLINE Vector load_first(const float* p, Index n) { return {load_four(p, n), load_four(p + 4, n - 4)}; }
INLINE void store_first(float* p, Vector x, Index n) {
    store_four(p, x.low, n);
    store_four(p + 4, x.high, n - 4);
}
// x where its bit is set, else zero.
INLINE float32x4_t keep_four(float32x4_t x, uint32x4_t bits, uint32x4_t own) {
    return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(x), vtstq_u32(bits, own)));
}
INLINE Vector keep(Vector x, const std::uint8_t* bits) {
    const uint32x4_t all_bits = vdupq_n_u32(*bits), low = {1, 2, 4, 8}, high = {16, 32, 64, 128};
    return {keep_four(x.low, all_bits, low), keep_four(x.high, all_bits, high)};
}

// Whole numbers of 32 bits.
struct Words {
    uint32x4_t low, high;
};

INLINE Words all_words(std::uint32_t x) { return {vdupq_n_u32(x), vdupq_n_u32(x)}; }
INLINE Words load_words(const void* p) {
    const auto* const words = static_cast<const std::uint32_t*>(p);
    return {vld1q_u32(words), vld1q_u32(words + 4)};
}
INLINE Words add_words(Words a, Words b) { return {vaddq_u32(a.low, b.low), vaddq_u32(a.high, b.high)}; }
INLINE Words sub_words(Words a, Words b) { return {vsubq_u32(a.low, b.low), vsubq_u32(a.high, b.high)}; }
INLINE Words multiply_low(Words a, Words b) { return {vmulq_u32(a.low, b.low), vmulq_u32(a.high, b.high)}; }
// The same numbers with signs.
INLINE int32x4_t with_signs(uint32x4_t x) { return vreinterpretq_s32_u32(x); }
INLINE Words words_of(int32x4_t low, int32x4_t high) {
    return {vreinterpretq_u32_s32(low), vreinterpretq_u32_s32(high)};
}
INLINE Words min_words(Words a, Words b) {
    return words_of(vminq_s32(with_signs(a.low), with_signs(b.low)), vminq_s32(with_signs(a.high), with_signs(b.high)));
}
INLINE Words max_words(Words a, Words b) {
    return words_of(vmaxq_s32(with_signs(a.low), with_signs(b.low)), vmaxq_s32(with_signs(a.high), with_signs(b.high)));
}
INLINE Words to_words(Vector x) { return words_of(vcvtnq_s32_f32(x.low), vcvtnq_s32_f32(x.high)); }
INLINE Vector to_floats(Words x) { return {vcvtq_f32_s32(with_signs(x.low)), vcvtq_f32_s32(with_signs(x.high))}; }
// Stores whole numbers from -128 to 127.
INLINE void store_codes(std::int8_t* p, Words x) {
    const int16x8_t narrow = vcombine_s16(vmovn_s32(with_signs(x.low)), vmovn_s32(with_signs(x.high)));
    vst1_s8(p, vmovn_s16(narrow));
}
INLINE Words xor_words(Words a, Words b, Words c) {
    return {veorq_u32(veorq_u32(a.low, b.low), c.low), veorq_u32(veorq_u32(a.high, b.high), c.high)};
}
// The upper and lower halves of products of 32 bits.
INLINE void multiply_words(uint32x4_t x, uint32x4_t by, uint32x4_t* high, uint32x4_t* low) {
    const uint32x4_t first = vreinterpretq_u32_u64(vmull_u32(vget_low_u32(x), vget_low_u32(by)));
    const uint32x4_t second = vreinterpretq_u32_u64(vmull_high_u32(x, by));
    *high = vuzp2q_u32(first, second);
    *low = vuzp1q_u32(first, second);
}
INLINE void multiply_words(Words x, Words by, Words* high, Words* low) {
    multiply_words(x.low, by.low, &high->low, &low->low);
    multiply_words(x.high, by.high, &high->high, &low->high);
}
// The order in which lanes take groups, so that write_bits writes groups in theirs.
INLINE Words group_order() { return {uint32x4_t{0, 1, 2, 3}, uint32x4_t{4, 5, 6, 7}}; }
// Writes a byte per group: a bit for each half of its four words, set where the half is not below the threshold.
INLINE void write_bits(const Words (&words)[4], std::uint32_t threshold, std::uint8_t* bits) {
    const uint16x8_t least = vdupq_n_u16(static_cast<std::uint16_t>(threshold));
    uint16x8_t own = {1, 2, 1, 2, 1, 2, 1, 2}, low = vdupq_n_u16(0), high = low;
    UNROLL
    for (const Words& word : words) {
        low = vorrq_u16(low, vandq_u16(own, vcgeq_u16(vreinterpretq_u16_u32(word.low), least)));
        high = vorrq_u16(high, vandq_u16(own, vcgeq_u16(vreinterpretq_u16_u32(word.high), least)));
        own = vshlq_n_u16(own, 2);
    }
    vst1_u8(bits, vmovn_u16(vpaddq_u16(low, high)));
}
INLINE float32x4_t join_halves(float32x4_t a, float32x4_t b, bool high) {
    const float64x2_t x = vreinterpretq_f64_f32(a), y = vreinterpretq_f64_f32(b);
    return vreinterpretq_f32_f64(high ? vzip2q_f64(x, y) : vzip1q_f64(x, y));
}
// Transposes a square of `kLanes` rows.
INLINE void transpose(const float* from, Index from_stride, float* to, Index to_stride) {
    UNROLL
    for (int i = 0; i < 8; i += 4) UNROLL for (int j = 0; j < 8; j += 4) {
        const float* const row = from + i * from_stride + j;
        float* const column = to + j * to_stride + i;
        const float32x4_t a = vld1q_f32(row), b = vld1q_f32(row + from_stride);
        const float32x4_t c = vld1q_f32(row + 2 * from_stride), d = vld1q_f32(row + 3 * from_stride);
        const float32x4_t even01 = vtrn1q_f32(a, b), odd01 = vtrn2q_f32(a, b);
        const float32x4_t even23 = vtrn1q_f32(c, d), odd23 = vtrn2q_f32(c, d);
        vst1q_f32(column, join_halves(even01, even23, false));
        vst1q_f32(column + to_stride, join_halves(odd01, odd23, false));
        vst1q_f32(column + 2 * to_stride, join_halves(even01, even23, true));
        vst1q_f32(column + 3 * to_stride, join_halves(odd01, odd23, true));
    }
}
