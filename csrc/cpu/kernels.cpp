// The choice of the kernels that this processor runs.

#include "cpu/kernels.h"

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#elif defined(__aarch64__)
#include <sys/auxv.h>
#endif

#include "cpu/variants.h"

namespace electra_fast::cpu {

#if defined(__x86_64__)
// Whether there is VNNI in registers of AVX2, a bit of its own: compilers' lists of features have it late.
static bool has_avx_vnni() {
    unsigned a = 0, b = 0, c = 0, d = 0;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & 1u << 4);
}
#elif defined(__APPLE__)
static bool has_feature(const char* name) {
    int value = 0;
    std::size_t size = sizeof value;
    return sysctlbyname(name, &value, &size, nullptr, 0) == 0 && value;
}
static bool has_dotprod() { return has_feature("hw.optional.arm.FEAT_DotProd"); }
static bool has_i8mm() { return has_feature("hw.optional.arm.FEAT_I8MM"); }
#elif defined(__aarch64__)
// The bits of Linux's HWCAP_ASIMDDP and HWCAP2_I8MM, which old headers lack.
static bool has_dotprod() { return getauxval(AT_HWCAP) & 1ul << 20; }
static bool has_i8mm() { return getauxval(AT_HWCAP2) & 1ul << 13; }
#endif

const Kernels* kernels_of(std::string_view limit) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl") && limit == "avx512") {
        static const Kernels kernels = avx512_kernels(
            __builtin_cpu_supports("avx512vnni"), __builtin_cpu_supports("avx512bf16"));
        return &kernels;
    }
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && (limit == "avx512" || limit == "avx2")) {
        static const Kernels kernels = avx2_kernels(has_avx_vnni());
        return &kernels;
    }
#elif defined(__aarch64__)
    if (limit == "avx512" || limit == "avx2" || limit == "neon") {
        static const Kernels kernels = neon_kernels(has_dotprod(), has_i8mm());
        return &kernels;
    }
#endif
    return nullptr;
}

}  // namespace electra_fast::cpu
