/* Include first in a C file of the AVX2 path; the file's code then stands inside #if PATH_AVX2. */
#if defined(__x86_64__)
#define PATH_AVX2 1
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c")
#endif
#include <immintrin.h>
#endif
