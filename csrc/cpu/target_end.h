// Ends the part of a file that target_begin.h begins.

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
