// The choice of the kernels that this processor runs.

#include "cpu/kernels.h"

#include "cpu/variants.h"

namespace electra_fast::cpu {

const Kernels* kernels_of(std::string_view limit) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl") && limit == "avx512") {
        static const Kernels kernels = avx512_kernels(__builtin_cpu_supports("avx512vnni"));
        return &kernels;
    }
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && (limit == "avx512" || limit == "avx2")) {
        static const Kernels kernels = avx2_kernels();
        return &kernels;
    }
#endif
    return nullptr;
}

}  // namespace electra_fast::cpu
