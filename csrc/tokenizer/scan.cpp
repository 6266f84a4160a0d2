#include "tokenizer/scan.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define ELECTRA_FAST_X86
#elif defined(__aarch64__)
#include <arm_neon.h>
#define ELECTRA_FAST_NEON
#endif

namespace electra_fast {
namespace {

void scan_scalar(const char* text, std::size_t n_blocks, BlockMasks* masks) {
    for (std::size_t block = 0; block < n_blocks; ++block, text += kBlock) {
        std::uint64_t spaces = 0, continuations = 0;
        for (std::size_t i = 0; i < kBlock; ++i) {
            const char byte = text[i];
            spaces |= std::uint64_t{byte == ' ' || byte == '\t' || byte == '\n' || byte == '\r'} << i;
            continuations |= std::uint64_t{(byte & 0xc0) == 0x80} << i;
        }
        masks[block] = {spaces, continuations};
    }
}

// The vector versions look up the low four bits of a byte in this table: the byte is a space if it finds itself there.
// x86's look-up gives 0 for bytes from 128 on. Bytes 128 to 191 are the signed ones below -64.
alignas(16) constexpr char kSpaceByLowBits[16] = {' ', 0, 1, 1, 1, 1, 1, 1, 1, '\t', '\n', 1, 1, '\r', 1, 1};

#ifdef ELECTRA_FAST_X86

__attribute__((target("avx2"))) std::uint64_t to_mask(__m256i low, __m256i high) {
    const std::uint64_t upper = static_cast<std::uint32_t>(_mm256_movemask_epi8(high));
    return upper << 32 | static_cast<std::uint32_t>(_mm256_movemask_epi8(low));
}

__attribute__((target("avx2"))) void scan_avx2(const char* text, std::size_t n_blocks, BlockMasks* masks) {
    const __m256i table = _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(kSpaceByLowBits)));
    const __m256i limit = _mm256_set1_epi8(-64);
    for (std::size_t block = 0; block < n_blocks; ++block, text += kBlock) {
        const __m256i low = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(text));
        const __m256i high = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(text + 32));
        masks[block] = {to_mask(_mm256_cmpeq_epi8(_mm256_shuffle_epi8(table, low), low),
                             _mm256_cmpeq_epi8(_mm256_shuffle_epi8(table, high), high)),
                        to_mask(_mm256_cmpgt_epi8(limit, low), _mm256_cmpgt_epi8(limit, high))};
    }
}

__attribute__((target("avx512f,avx512bw"))) void scan_avx512(const char* text, std::size_t n_blocks, BlockMasks* masks) {
    const __m512i table = _mm512_broadcast_i32x4(_mm_load_si128(reinterpret_cast<const __m128i*>(kSpaceByLowBits)));
    const __m512i limit = _mm512_set1_epi8(-64);
    for (std::size_t block = 0; block < n_blocks; ++block, text += kBlock) {
        const __m512i bytes = _mm512_loadu_si512(text);
        masks[block] = {_mm512_cmpeq_epi8_mask(_mm512_shuffle_epi8(table, bytes), bytes),
                        _mm512_cmpgt_epi8_mask(limit, bytes)};
    }
}

#endif

#ifdef ELECTRA_FAST_NEON

// Makes one bit of each lane: it keeps its bit of eight, and three pairwise additions gather 64 lanes into 8 bytes.
std::uint64_t to_mask(uint8x16_t a, uint8x16_t b, uint8x16_t c, uint8x16_t d) {
    const uint8x16_t bits = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    const uint8x16_t low = vpaddq_u8(vandq_u8(a, bits), vandq_u8(b, bits));
    const uint8x16_t high = vpaddq_u8(vandq_u8(c, bits), vandq_u8(d, bits));
    const uint8x16_t sums = vpaddq_u8(low, high);
    return vgetq_lane_u64(vreinterpretq_u64_u8(vpaddq_u8(sums, sums)), 0);
}

void scan_neon(const char* text, std::size_t n_blocks, BlockMasks* masks) {
    const uint8x16_t table = vld1q_u8(reinterpret_cast<const std::uint8_t*>(kSpaceByLowBits));
    const auto is_space = [&](uint8x16_t bytes) {
        return vceqq_u8(vqtbl1q_u8(table, vandq_u8(bytes, vdupq_n_u8(15))), bytes);
    };
    const auto continues = [](uint8x16_t bytes) { return vcltq_s8(vreinterpretq_s8_u8(bytes), vdupq_n_s8(-64)); };
    for (std::size_t block = 0; block < n_blocks; ++block, text += kBlock) {
        const auto* bytes = reinterpret_cast<const std::uint8_t*>(text);
        const uint8x16_t a = vld1q_u8(bytes), b = vld1q_u8(bytes + 16), c = vld1q_u8(bytes + 32), d = vld1q_u8(bytes + 48);
        masks[block] = {to_mask(is_space(a), is_space(b), is_space(c), is_space(d)),
                        to_mask(continues(a), continues(b), continues(c), continues(d))};
    }
}

#endif

std::vector<InstructionSet> find_instruction_sets() {
    std::vector<InstructionSet> sets;
#ifdef ELECTRA_FAST_X86
    if (__builtin_cpu_supports("avx512bw")) sets.push_back({"avx512", scan_avx512});
    if (__builtin_cpu_supports("avx2")) sets.push_back({"avx2", scan_avx2});
#endif
#ifdef ELECTRA_FAST_NEON
    sets.push_back({"neon", scan_neon});
#endif
    sets.push_back({"scalar", scan_scalar});
    return sets;
}

}  // namespace

// The list is made when the library is loaded: a static of the function would have a lock that a fork may leave taken.
static const std::vector<InstructionSet> kInstructionSets = find_instruction_sets();

const std::vector<InstructionSet>& instruction_sets() { return kInstructionSets; }

}  // namespace electra_fast
