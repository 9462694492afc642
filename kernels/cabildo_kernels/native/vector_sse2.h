/* The vocabulary of the column rules in SSE2, which every x86-64 has: see vector_avx2.h. */
#include <emmintrin.h>

#include "half.h"

enum { W = 4, AHEAD = 64 };
typedef __m128 vf;
typedef struct { __m128d lo, hi; } vd;
typedef vd vc;
#define INLINE static inline __attribute__((always_inline))

INLINE vf vf_load(const float *p) { return _mm_loadu_ps(p); }
INLINE void vf_store(float *p, vf x) { _mm_storeu_ps(p, x); }
INLINE vf vf_set(float x) { return _mm_set1_ps(x); }
INLINE vf vf_add(vf a, vf b) { return _mm_add_ps(a, b); }
INLINE vf vf_sub(vf a, vf b) { return _mm_sub_ps(a, b); }
INLINE vf vf_min(vf a, vf b) { return _mm_min_ps(a, b); }
INLINE vf vf_max(vf a, vf b) { return _mm_max_ps(a, b); }
/* check becomes NaN with the first x that is not finite: 0 times it is. */
INLINE vf vf_taint(vf check, vf x) { return _mm_add_ps(check, _mm_mul_ps(x, _mm_setzero_ps())); }
INLINE int vf_tainted(vf check) { return _mm_movemask_ps(_mm_cmpunord_ps(check, check)) != 0; }
INLINE vf vf_load_f16(const uint16_t *p)
{
    uint16_t half[4];
    memcpy(half, p, sizeof half);
    return _mm_setr_ps(float_of_f16(half[0]), float_of_f16(half[1]), float_of_f16(half[2]),
                       float_of_f16(half[3]));
}
INLINE vf vf_load_bf16(const uint16_t *p)
{
    __m128i half = _mm_loadl_epi64((const __m128i *)p);
    return _mm_castsi128_ps(_mm_unpacklo_epi16(_mm_setzero_si128(), half));
}

INLINE vd vd_set(double x) { return (vd){_mm_set1_pd(x), _mm_set1_pd(x)}; }
INLINE vd vd_widen(vf x) { return (vd){_mm_cvtps_pd(x), _mm_cvtps_pd(_mm_movehl_ps(x, x))}; }
INLINE vd vd_load(const float *p) { return vd_widen(vf_load(p)); }
INLINE vf vd_narrow(vd x) { return _mm_movelh_ps(_mm_cvtpd_ps(x.lo), _mm_cvtpd_ps(x.hi)); }
INLINE vd vd_add(vd a, vd b) { return (vd){_mm_add_pd(a.lo, b.lo), _mm_add_pd(a.hi, b.hi)}; }
INLINE vd vd_sub(vd a, vd b) { return (vd){_mm_sub_pd(a.lo, b.lo), _mm_sub_pd(a.hi, b.hi)}; }
INLINE vd vd_mul(vd a, vd b) { return (vd){_mm_mul_pd(a.lo, b.lo), _mm_mul_pd(a.hi, b.hi)}; }
INLINE vd vd_div(vd a, vd b) { return (vd){_mm_div_pd(a.lo, b.lo), _mm_div_pd(a.hi, b.hi)}; }

INLINE vd vd_plus(vd sum, vd x) { return vd_add(sum, x); }
INLINE vd vd_over_count(vd x, int count) { return vd_div(x, vd_set((double)count)); }

INLINE vc vc_greater(vd a, vd b) { return (vc){_mm_cmpgt_pd(a.lo, b.lo), _mm_cmpgt_pd(a.hi, b.hi)}; }
INLINE vd vd_where(vc c, vd x) { return (vd){_mm_and_pd(c.lo, x.lo), _mm_and_pd(c.hi, x.hi)}; }
INLINE vd vd_unless(vc c, vd x)
{
    return (vd){_mm_andnot_pd(c.lo, x.lo), _mm_andnot_pd(c.hi, x.hi)};
}

/* Rounding to odd: explained in vector_avx2.h. */
INLINE __m128i vd_odd(vd x)
{
    vf near = vd_narrow(x), zero = _mm_setzero_ps();
    vf error = vd_narrow(vd_mul(vd_sub(x, vd_widen(near)), vd_set(0x1p500)));
    __m128i bits = _mm_castps_si128(near), one = _mm_set1_epi32(1);
    __m128i inexact =
        _mm_castps_si128(_mm_or_ps(_mm_cmpgt_ps(error, zero), _mm_cmplt_ps(error, zero)));
    __m128i even = _mm_cmpeq_epi32(_mm_and_si128(bits, one), _mm_setzero_si128());
    __m128i away = _mm_xor_si128(bits, _mm_castps_si128(error));
    __m128i step = _mm_or_si128(_mm_srai_epi32(away, 31), one);
    return _mm_add_epi32(bits, _mm_and_si128(step, _mm_and_si128(inexact, even)));
}
INLINE void vd_store_f16(uint16_t *p, vd x)
{
    uint32_t odd[4];
    uint16_t half[4];
    _mm_storeu_si128((__m128i *)odd, vd_odd(x));
    for (int i = 0; i < 4; i++)
        half[i] = f16_of_float_bits(odd[i]);
    memcpy(p, half, sizeof half);
}
INLINE void vd_store_bf16(uint16_t *p, vd x)
{
    __m128i bits = vd_odd(x), one = _mm_set1_epi32(1);
    __m128i tie = _mm_and_si128(_mm_srli_epi32(bits, 16), one);
    bits = _mm_add_epi32(bits, _mm_add_epi32(tie, _mm_set1_epi32(0x7fff)));
    /* Signed packing keeps what an arithmetic shift leaves: 16 bits with their sign. */
    bits = _mm_srai_epi32(bits, 16);
    _mm_storel_epi64((__m128i *)p, _mm_packs_epi32(bits, bits));
}
