// What follows may use the instructions that TARGET names, whatever the rest of the program is compiled for. Headers of
// others come before: what they define inline must not depend on it.

#define PRAGMA_(x) _Pragma(#x)
#define PRAGMA(x) PRAGMA_(x)

#if defined(__clang__)
PRAGMA(clang attribute push(__attribute__((target(TARGET))), apply_to = function))
#define UNROLL _Pragma("unroll")
#else
PRAGMA(GCC push_options)
PRAGMA(GCC target(TARGET))
#define UNROLL _Pragma("GCC unroll 8")
#endif

#define INLINE static inline __attribute__((always_inline))
#define INLINE_LAMBDA __attribute__((always_inline))
