// The kernels for AVX-512, with VNNI's products of bytes and the attention of kernels_bf16.cpp where the
// processor has them.

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

#include "cpu/endings.inc"

#include "cpu/kernels.inc"

#include "cpu/attention.inc"

#include "cpu/bytes.inc"

#define VPDPBUSD "vpdpbusd"
#include "cpu/dots_x86.inc"

}  // namespace

Kernels avx512_kernels(bool has_vnni, bool has_bf16) {
    return {!has_vnni ? "AVX-512" : has_bf16 ? "AVX-512 with VNNI and BF16" : "AVX-512 with VNNI",
            kPanel,
            kTileRows,
            multiply,
            norm,
            attention_kernel<float>(),
            has_bf16 ? bf16_attention_kernel() : attention_kernel<float>(),
            has_vnni ? byte_kernels<DotOfBytes>() : byte_kernels<DotOfWords>()};
}

}  // namespace electra_fast::cpu

#include "cpu/target_end.h"

#endif
