// The kernels for AVX2 with FMA. There is no product of bytes, because the sums of AVX2's own saturate.

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

#include "cpu/kernels.inc"

}  // namespace

Kernels avx2_kernels() {
    return {"AVX2", kPanel, kTileRows, multiply, nullptr, norm, nullptr, attend, attention_scratch};
}

}  // namespace electra_fast::cpu

#include "cpu/target_end.h"

#endif
