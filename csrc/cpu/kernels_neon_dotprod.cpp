// Products of bytes by NEON's `sdot`, of most processors since ARMv8.2.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#include "cpu/kernels.h"
#include "cpu/variants.h"

#if defined(__aarch64__)

#include <arm_neon.h>

#define TARGET "arch=armv8.2-a+dotprod"
#include "cpu/target_begin.h"

namespace electra_fast::cpu {
namespace {

#include "cpu/simd_neon.h"

#include "cpu/tiles.inc"

#include "cpu/endings.inc"

#include "cpu/bytes.inc"

#define HAS_DOTPROD
#include "cpu/dots_neon.inc"

}  // namespace

ByteKernels dotprod_byte_kernels() { return byte_kernels<DotOfSignedBytes>(); }

}  // namespace electra_fast::cpu

#include "cpu/target_end.h"

#endif
