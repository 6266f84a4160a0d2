// The kernels for AVX2 with FMA, with products of bytes from kernels_avx_vnni.cpp where the processor has them.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#include "cpu/kernels.h"
#include "cpu/variants.h"

#if defined(__x86_64__)

#include <immintrin.h>

#define TARGET "avx2,fma"
#include "cpu/target_begin.h"

namespace electra_fast::cpu {
namespace {

#include "cpu/simd_avx2.h"

#include "cpu/tiles.inc"

#include "cpu/endings.inc"

#include "cpu/kernels.inc"

#include "cpu/attention.inc"

#include "cpu/bytes.inc"

#include "cpu/dots_x86.inc"

}  // namespace

Kernels avx2_kernels(bool has_vnni) {
    return {has_vnni ? "AVX2 with VNNI" : "AVX2",
            kPanel,
            kTileRows,
            multiply,
            norm,
            attention_kernel<float>(),
            attention_kernel<float>(),
            has_vnni ? avx_vnni_byte_kernels() : byte_kernels<DotOfWords>()};
}

}  // namespace electra_fast::cpu

#include "cpu/target_end.h"

#endif
