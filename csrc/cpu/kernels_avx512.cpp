// The kernels for AVX-512, with VNNI's products of bytes where the processor has them.

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

#include "cpu/bytes.inc"

#define VPDPBUSD "vpdpbusd"
#include "cpu/dots_x86.inc"

}  // namespace

Kernels avx512_kernels(bool has_vnni) {
    return {has_vnni ? "AVX-512 with VNNI" : "AVX-512",
            kPanel,
            kTileRows,
            multiply,
            norm,
            attend,
            attention_scratch,
            has_vnni ? byte_kernels<DotOfBytes>() : byte_kernels<DotOfWords>()};
}

}  // namespace electra_fast::cpu

#include "cpu/target_end.h"

#endif
