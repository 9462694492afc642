/* Which instruction-set paths this CPU and operating system can run. */
#ifndef CABILDO_CPU_H
#define CABILDO_CPU_H

/* In the order of dispatch.PATHS; bit i of cpu_paths() stands for path i. */
enum { PATH_INDEX_BASELINE, PATH_INDEX_AVX2, PATH_INDEX_AVX512, PATH_INDEX_NEON };

static int cpu_paths(void)
{
    int paths = 1 << PATH_INDEX_BASELINE;
#if defined(__x86_64__)
    __builtin_cpu_init();
    /* A CPU with AVX2 has F16C; a virtual machine may hide it. */
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
        __builtin_cpu_supports("f16c")) {
        paths |= 1 << PATH_INDEX_AVX2;
        if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
            __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
            paths |= 1 << PATH_INDEX_AVX512;
    }
#elif defined(__aarch64__) && defined(__ARM_NEON)
    paths |= 1 << PATH_INDEX_NEON;
#endif
    return paths;
}

#endif
