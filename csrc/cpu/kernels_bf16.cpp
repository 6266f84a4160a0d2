// Attention on numbers of 16 bits, by AVX512_BF16.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#include "cpu/bf16.h"
#include "cpu/kernels.h"
#include "cpu/variants.h"

#if defined(__x86_64__)

#include <immintrin.h>

#define TARGET "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma"
#include "cpu/target_begin.h"

namespace electra_fast::cpu {
namespace {

#include "cpu/simd_avx512.h"

#include "cpu/simd_bf16.h"

#include "cpu/tiles.inc"

#include "cpu/attention.inc"

}  // namespace

AttentionKernel bf16_attention_kernel() { return attention_kernel<Bf16>(); }

}  // namespace electra_fast::cpu

#include "cpu/target_end.h"

#endif
