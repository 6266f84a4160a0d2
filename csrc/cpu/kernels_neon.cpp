// The kernels for NEON, which every 64-bit ARM processor has.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#include "cpu/kernels.h"
#include "cpu/variants.h"

#if defined(__aarch64__)

#include <arm_neon.h>

#define TARGET "arch=armv8-a"
#include "cpu/target_begin.h"

namespace electra_fast::cpu {
namespace {

#include "cpu/simd_neon.h"

#include "cpu/tiles.inc"

#include "cpu/kernels.inc"

}  // namespace

Kernels neon_kernels() {
    return {"NEON", kPanel, kTileRows, multiply, nullptr, norm, nullptr, attend, attention_scratch};
}

}  // namespace electra_fast::cpu

#include "cpu/target_end.h"

#endif
