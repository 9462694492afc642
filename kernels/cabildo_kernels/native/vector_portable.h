/* The vocabulary of the column rules in plain C, one lane at a time, for any CPU: see vector_avx2.h.
 *
 * Not in GNU C vectors: gcc 12 takes a vector that was narrowed and widened again for the vector
 * itself, which drops the rounding.
 */
#if defined(__FLT_EVAL_METHOD__) && __FLT_EVAL_METHOD__ != 0
#error "float and double arithmetic must be rounded to its own type: use the fallback here"
#endif
#include "half.h"

enum { W = 1, AHEAD = 16 };
typedef float vf;
typedef double vd;
typedef int vc;
#define INLINE static inline __attribute__((always_inline))

INLINE vf vf_load(const float *p)
{
    vf x;
    memcpy(&x, p, sizeof x); /* any alignment */
    return x;
}
INLINE void vf_store(float *p, vf x) { memcpy(p, &x, sizeof x); }
INLINE vf vf_set(float x) { return x; }
INLINE vf vf_add(vf a, vf b) { return a + b; }
INLINE vf vf_sub(vf a, vf b) { return a - b; }
INLINE vf vf_min(vf a, vf b) { return a < b ? a : b; }
INLINE vf vf_max(vf a, vf b) { return a < b ? b : a; }
/* check becomes NaN with the first x that is not finite: 0 times it is. */
INLINE vf vf_taint(vf check, vf x) { return check + x * 0.0f; }
INLINE int vf_tainted(vf check) { return check != check; }
INLINE uint16_t load_half(const uint16_t *p)
{
    uint16_t half;
    memcpy(&half, p, sizeof half);
    return half;
}
INLINE vf vf_load_f16(const uint16_t *p) { return float_of_f16(load_half(p)); }
INLINE vf vf_load_bf16(const uint16_t *p)
{
    uint32_t bits = (uint32_t)load_half(p) << 16;
    vf x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

INLINE vd vd_set(double x) { return x; }
INLINE vd vd_widen(vf x) { return x; }
INLINE vd vd_load(const float *p) { return vf_load(p); }
INLINE vf vd_narrow(vd x) { return (vf)x; }
INLINE vd vd_add(vd a, vd b) { return a + b; }
INLINE vd vd_sub(vd a, vd b) { return a - b; }
INLINE vd vd_mul(vd a, vd b) { return a * b; }
INLINE vd vd_div(vd a, vd b) { return a / b; }

INLINE vd vd_plus(vd sum, vd x) { return vd_add(sum, x); }
INLINE vd vd_over_count(vd x, int count) { return vd_div(x, vd_set((double)count)); }

INLINE vc vc_greater(vd a, vd b) { return a > b; }
INLINE vd vd_where(vc c, vd x) { return c ? x : 0.0; }
INLINE vd vd_unless(vc c, vd x) { return c ? 0.0 : x; }

/* Rounding to odd: explained in vector_avx2.h. */
INLINE uint32_t vd_odd(vd x)
{
    vf near = vd_narrow(x);
    vd error = x - near;
    uint32_t bits;
    memcpy(&bits, &near, sizeof bits);
    if ((error > 0.0 || error < 0.0) && bits % 2 == 0)
        bits = (error > 0.0) == (bits >> 31 == 0) ? bits + 1 : bits - 1;
    return bits;
}
INLINE void store_half(uint16_t *p, uint32_t half)
{
    uint16_t x = (uint16_t)half;
    memcpy(p, &x, sizeof x);
}
INLINE void vd_store_f16(uint16_t *p, vd x) { store_half(p, f16_of_float_bits(vd_odd(x))); }
INLINE void vd_store_bf16(uint16_t *p, vd x)
{
    uint32_t bits = vd_odd(x);
    store_half(p, (bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
