/* Include first in a C file of the AVX-512 path; the file's code then stands inside #if PATH_AVX512. */
#if defined(__x86_64__)
#define PATH_AVX512 1
#ifdef __clang__
#pragma clang attribute push(                                                                      \
    __attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")
#endif
#include <immintrin.h>
#endif
