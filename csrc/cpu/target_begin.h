// Code after this may use the instructions that TARGET names, whatever the rest of the program is compiled for. Include
// headers of other libraries before it: their inline functions must not depend on TARGET.

#define PRAGMA_(x) _Pragma(#x)
#define PRAGMA(x) PRAGMA_(x)

#if defined(__clang__)
PRAGMA(clang attribute push(__attribute__((target(TARGET))), apply_to = function))
#define UNROLL _Pragma("unroll")
#else
PRAGMA(GCC push_options)
PRAGMA(GCC target(TARGET))
#if defined(__aarch64__)
// Before registers are given out, gcc would load the rows of a step ahead, and keep sums on the stack instead.
#pragma GCC optimize("no-schedule-insns")
#endif
#define UNROLL _Pragma("GCC unroll 8")
#endif

#define INLINE static inline __attribute__((always_inline))
#define INLINE_LAMBDA __attribute__((always_inline))
