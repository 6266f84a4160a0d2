// The instruction sets that kernels are compiled for.

#pragma once

#include "cpu/kernels.h"

namespace electra_fast::cpu {

Kernels avx512_kernels(bool has_vnni);
Kernels avx2_kernels();

}  // namespace electra_fast::cpu
