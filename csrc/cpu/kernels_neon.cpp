// The kernels for NEON, which every 64-bit ARM processor has; products of bytes from kernels_neon_dotprod.cpp and
// kernels_neon_i8mm.cpp where the processor has instructions for them.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#include "cpu/kernels.h"
#include "cpu/variants.h"

#if defined(__aarch64__)

#include <arm_neon.h>

#define TARGET "+simd"
#include "cpu/target_begin.h"

namespace electra_fast::cpu {
namespace {

#include "cpu/simd_neon.h"

#include "cpu/tiles.inc"

#include "cpu/endings.inc"

#include "cpu/kernels.inc"

#include "cpu/attention.inc"

#include "cpu/bytes.inc"

#include "cpu/dots_neon.inc"

}  // namespace

Kernels neon_kernels(bool has_dotprod, bool has_i8mm) {
    return {has_i8mm ? "NEON with I8MM" : has_dotprod ? "NEON with dot products" : "NEON",
            kPanel,
            kTileRows,
            multiply,
            norm,
            attention_kernel<float>(),
            attention_kernel<float>(),
            has_i8mm      ? i8mm_byte_kernels()
            : has_dotprod ? dotprod_byte_kernels()
                          : byte_kernels<DotOfSignedBytes>()};
}

}  // namespace electra_fast::cpu

#include "cpu/target_end.h"

#endif
