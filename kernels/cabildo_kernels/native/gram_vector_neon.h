/* Lanes and conversions of the Gram matrix in NEON: a quad is two registers. */
#define INLINE static inline __attribute__((always_inline))

typedef struct {
    float64x2_t low, high;
} quad;
typedef float32x4_t narrow;
enum { STEP = 1 };

INLINE quad quad_zero(void) { return (quad){vdupq_n_f64(0.0), vdupq_n_f64(0.0)}; }
INLINE quad quad_load(const double *p) { return (quad){vld1q_f64(p), vld1q_f64(p + 2)}; }
INLINE void quad_store(double *p, quad v)
{
    vst1q_f64(p, v.low);
    vst1q_f64(p + 2, v.high);
}
INLINE quad quad_add(quad a, quad b)
{
    return (quad){vaddq_f64(a.low, b.low), vaddq_f64(a.high, b.high)};
}
INLINE void quad_fma(quad *acc, quad a, quad b)
{
    acc->low = vfmaq_f64(acc->low, a.low, b.low);
    acc->high = vfmaq_f64(acc->high, a.high, b.high);
}

INLINE narrow narrow_load(const char *p)
{
    return vreinterpretq_f32_u8(vld1q_u8((const uint8_t *)p)); /* any alignment */
}
INLINE void narrow_store(float *p, narrow x) { vst1q_f32(p, x); }
INLINE narrow narrow_f16(const char *p)
{
    return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8((const uint8_t *)p)));
}
INLINE narrow narrow_bf16(const char *p)
{
    uint16x4_t bits = vreinterpret_u16_u8(vld1_u8((const uint8_t *)p));
    return vreinterpretq_f32_u32(vshll_n_u16(bits, 16));
}
INLINE narrow narrow_sub(narrow a, narrow b) { return vsubq_f32(a, b); }
INLINE void narrow_widen(narrow x, double *to)
{
    vst1q_f64(to, vcvt_f64_f32(vget_low_f32(x)));
    vst1q_f64(to + 2, vcvt_high_f64_f32(x));
}

#include "gram_tiles_quad.h"
