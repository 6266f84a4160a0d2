// The kernels of the blocks for NEON.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#include "cpu/block_kernels.h"
#include "cpu/variants.h"

#if defined(__aarch64__)

#include <arm_neon.h>

#define TARGET "+simd"
#include "cpu/target_begin.h"

namespace electra_fast::cpu {
namespace {

#include "cpu/simd_neon.h"

#include "cpu/tiles.inc"

#include "cpu/block_products.inc"

#include "cpu/block_rows.inc"

#include "cpu/block_attention.inc"

#include "cpu/block_logits.inc"

#include "cpu/block_gate.inc"

#include "cpu/block_optimizer.inc"

#include "cpu/block_table.inc"

}  // namespace

const BlockKernels<float>& neon_block_kernels() { return table_of_block_kernels<float>(); }

}  // namespace electra_fast::cpu

#include "cpu/target_end.h"

#endif
