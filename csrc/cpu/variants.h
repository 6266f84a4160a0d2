// The instruction sets that kernels are compiled for.

#pragma once

#include "cpu/block_kernels.h"
#include "cpu/kernels.h"

namespace electra_fast::cpu {

Kernels avx512_kernels(bool has_vnni, bool has_bf16);
AttentionKernel bf16_attention_kernel();
Kernels avx2_kernels(bool has_vnni);
ByteKernels avx_vnni_byte_kernels();
Kernels neon_kernels(bool has_dotprod, bool has_i8mm);
ByteKernels dotprod_byte_kernels();
ByteKernels i8mm_byte_kernels();
const BlockKernels<float>& avx512_block_kernels();
const BlockKernels<float>& avx2_block_kernels();
const BlockKernels<float>& neon_block_kernels();
const BlockKernels<Bf16>& bf16_block_kernels();

}  // namespace electra_fast::cpu
