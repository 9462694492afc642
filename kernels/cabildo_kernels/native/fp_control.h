/* The floating-point control word: IEEE defaults for our arithmetic, the caller's word afterwards.
 *
 * Here: setting and restoring rounding mode and flushing of denormals for one thread. Never here:
 * arithmetic. Call the work between fp_enter() and fp_leave() through a function pointer, so that
 * the compiler cannot move its operations over the change of the word.
 */
#ifndef CABILDO_FP_CONTROL_H
#define CABILDO_FP_CONTROL_H

#if defined(__x86_64__)
#include <immintrin.h>
typedef unsigned int fp_control;
/* Round to nearest, denormals kept, every exception masked, no flag raised. */
static inline fp_control fp_enter(void)
{
    fp_control saved = _mm_getcsr();
    _mm_setcsr(0x1f80);
    return saved;
}
static inline void fp_leave(fp_control saved) { _mm_setcsr(saved); }

#elif defined(__aarch64__)
typedef unsigned long long fp_control;
static inline fp_control fp_enter(void)
{
    fp_control saved, defaults = 0;
    __asm__ volatile("mrs %0, fpcr" : "=r"(saved));
    __asm__ volatile("msr fpcr, %0" : : "r"(defaults) : "memory");
    return saved;
}
static inline void fp_leave(fp_control saved)
{
    __asm__ volatile("msr fpcr, %0" : : "r"(saved) : "memory");
}

#else
#include <fenv.h>
typedef fenv_t fp_control;
static inline fp_control fp_enter(void)
{
    fp_control saved;
    fegetenv(&saved);
    fesetenv(FE_DFL_ENV);
    return saved;
}
static inline void fp_leave(fp_control saved) { fesetenv(&saved); }
#endif

#endif
