/* The vocabulary of the column rules in NEON (aarch64): see vector_avx2.h. */
enum { W = 4, AHEAD = 64 };
typedef float32x4_t vf;
typedef struct { float64x2_t lo, hi; } vd;
typedef struct { uint64x2_t lo, hi; } vc;
#define INLINE static inline __attribute__((always_inline))

INLINE vf vf_load(const float *p)
{
    return vreinterpretq_f32_u8(vld1q_u8((const uint8_t *)p)); /* any alignment */
}
INLINE void vf_store(float *p, vf x) { vst1q_u8((uint8_t *)p, vreinterpretq_u8_f32(x)); }
INLINE vf vf_set(float x) { return vdupq_n_f32(x); }
INLINE vf vf_add(vf a, vf b) { return vaddq_f32(a, b); }
INLINE vf vf_sub(vf a, vf b) { return vsubq_f32(a, b); }
INLINE vf vf_min(vf a, vf b) { return vminq_f32(a, b); }
INLINE vf vf_max(vf a, vf b) { return vmaxq_f32(a, b); }
/* Explained in vector_avx2.h. */
INLINE vf vf_taint(vf check, vf x)
{
    uint32x4_t bits = vreinterpretq_u32_f32(x);
    return vreinterpretq_f32_u32(vmaxq_u32(vreinterpretq_u32_f32(check), vaddq_u32(bits, bits)));
}
INLINE int vf_tainted(vf check) { return vmaxvq_u32(vreinterpretq_u32_f32(check)) >= 0xff000000; }
INLINE vf vf_load_f16(const uint16_t *p)
{
    return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8((const uint8_t *)p)));
}
INLINE vf vf_load_bf16(const uint16_t *p)
{
    return vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(vld1_u8((const uint8_t *)p)), 16));
}

INLINE vd vd_set(double x) { return (vd){vdupq_n_f64(x), vdupq_n_f64(x)}; }
INLINE vd vd_widen(vf x) { return (vd){vcvt_f64_f32(vget_low_f32(x)), vcvt_high_f64_f32(x)}; }
INLINE vd vd_load(const float *p) { return vd_widen(vf_load(p)); }
INLINE vf vd_narrow(vd x) { return vcvt_high_f32_f64(vcvt_f32_f64(x.lo), x.hi); }
INLINE vd vd_add(vd a, vd b) { return (vd){vaddq_f64(a.lo, b.lo), vaddq_f64(a.hi, b.hi)}; }
INLINE vd vd_sub(vd a, vd b) { return (vd){vsubq_f64(a.lo, b.lo), vsubq_f64(a.hi, b.hi)}; }
INLINE vd vd_mul(vd a, vd b) { return (vd){vmulq_f64(a.lo, b.lo), vmulq_f64(a.hi, b.hi)}; }
INLINE vd vd_div(vd a, vd b) { return (vd){vdivq_f64(a.lo, b.lo), vdivq_f64(a.hi, b.hi)}; }

INLINE vd vd_fma(vd a, vd b, vd c)
{
    return (vd){vfmaq_f64(c.lo, a.lo, b.lo), vfmaq_f64(c.hi, a.hi, b.hi)};
}
INLINE vd vd_fnma(vd a, vd b, vd c)
{
    return (vd){vfmsq_f64(c.lo, a.lo, b.lo), vfmsq_f64(c.hi, a.hi, b.hi)};
}
/* sum + x on the units that sorting leaves idle: the product is exact. */
INLINE vd vd_plus(vd sum, vd x) { return vd_fma(x, vd_set(1.0), sum); }
#include "divide.h"

INLINE vc vc_greater(vd a, vd b) { return (vc){vcgtq_f64(a.lo, b.lo), vcgtq_f64(a.hi, b.hi)}; }
INLINE float64x2_t masked(uint64x2_t mask, float64x2_t x)
{
    return vreinterpretq_f64_u64(vandq_u64(mask, vreinterpretq_u64_f64(x)));
}
INLINE float64x2_t cleared(uint64x2_t mask, float64x2_t x)
{
    return vreinterpretq_f64_u64(vbicq_u64(vreinterpretq_u64_f64(x), mask));
}
INLINE vd vd_where(vc c, vd x) { return (vd){masked(c.lo, x.lo), masked(c.hi, x.hi)}; }
INLINE vd vd_unless(vc c, vd x) { return (vd){cleared(c.lo, x.lo), cleared(c.hi, x.hi)}; }

/* Rounding to odd: explained in vector_avx2.h. */
INLINE uint32x4_t vd_odd(vd x)
{
    vf near = vd_narrow(x), zero = vdupq_n_f32(0.0f);
    vf error = vd_narrow(vd_mul(vd_sub(x, vd_widen(near)), vd_set(0x1p500)));
    uint32x4_t bits = vreinterpretq_u32_f32(near), one = vdupq_n_u32(1);
    uint32x4_t inexact = vorrq_u32(vcgtq_f32(error, zero), vcltq_f32(error, zero));
    uint32x4_t even = vceqzq_u32(vandq_u32(bits, one));
    int32x4_t away = vreinterpretq_s32_u32(veorq_u32(bits, vreinterpretq_u32_f32(error)));
    uint32x4_t step = vorrq_u32(vreinterpretq_u32_s32(vshrq_n_s32(away, 31)), one);
    return vaddq_u32(bits, vandq_u32(step, vandq_u32(inexact, even)));
}
INLINE void vd_store_f16(uint16_t *p, vd x)
{
    float16x4_t half = vcvt_f16_f32(vreinterpretq_f32_u32(vd_odd(x)));
    vst1_u8((uint8_t *)p, vreinterpret_u8_f16(half));
}
INLINE void vd_store_bf16(uint16_t *p, vd x)
{
    uint32x4_t bits = vd_odd(x);
    uint32x4_t tie = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
    bits = vaddq_u32(bits, vaddq_u32(tie, vdupq_n_u32(0x7fff)));
    vst1_u8((uint8_t *)p, vreinterpret_u8_u16(vshrn_n_u32(bits, 16)));
}
