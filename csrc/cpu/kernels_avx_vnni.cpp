// Products of bytes by AVX-VNNI: VNNI's in registers of AVX2, for processors without AVX-512.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#include "cpu/kernels.h"
#include "cpu/variants.h"

#if defined(__x86_64__)

#include <immintrin.h>

#define TARGET "avx2,fma,avxvnni"
#include "cpu/target_begin.h"

namespace electra_fast::cpu {
namespace {

#include "cpu/simd_avx2.h"

#include "cpu/tiles.inc"

#include "cpu/endings.inc"

#include "cpu/bytes.inc"

#define VPDPBUSD "%{vex%} vpdpbusd"
#include "cpu/dots_x86.inc"

}  // namespace

ByteKernels avx_vnni_byte_kernels() { return byte_kernels<DotOfBytes>(); }

}  // namespace electra_fast::cpu

#include "cpu/target_end.h"

#endif
