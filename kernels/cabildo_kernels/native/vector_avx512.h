/* The vocabulary of the column rules in AVX-512 (F, BW, DQ, VL): see vector_avx2.h. */
enum { W = 16, AHEAD = 64 };
typedef __m512 vf;
typedef struct { __m512d lo, hi; } vd;
typedef struct { __mmask8 lo, hi; } vc;
#define INLINE static inline __attribute__((always_inline))

INLINE vf vf_load(const float *p) { return _mm512_loadu_ps(p); }
INLINE void vf_store(float *p, vf x) { _mm512_storeu_ps(p, x); }
INLINE vf vf_set(float x) { return _mm512_set1_ps(x); }
INLINE vf vf_add(vf a, vf b) { return _mm512_add_ps(a, b); }
INLINE vf vf_sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
INLINE vf vf_min(vf a, vf b) { return _mm512_min_ps(a, b); }
INLINE vf vf_max(vf a, vf b) { return _mm512_max_ps(a, b); }
/* Explained in vector_avx2.h. */
INLINE vf vf_taint(vf check, vf x)
{
    __m512i bits = _mm512_castps_si512(x);
    return _mm512_castsi512_ps(
        _mm512_max_epu32(_mm512_castps_si512(check), _mm512_add_epi32(bits, bits)));
}
INLINE int vf_tainted(vf check)
{
    __m512i least = _mm512_set1_epi32((int)0xff000000);
    return _mm512_cmpge_epu32_mask(_mm512_castps_si512(check), least) != 0;
}
INLINE vf vf_load_f16(const uint16_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}
INLINE vf vf_load_bf16(const uint16_t *p)
{
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}

INLINE vd vd_set(double x) { return (vd){_mm512_set1_pd(x), _mm512_set1_pd(x)}; }
INLINE vd vd_widen(vf x)
{
    return (vd){_mm512_cvtps_pd(_mm512_castps512_ps256(x)),
                _mm512_cvtps_pd(_mm512_extractf32x8_ps(x, 1))};
}
INLINE vd vd_load(const float *p)
{
    return (vd){_mm512_cvtps_pd(_mm256_loadu_ps(p)), _mm512_cvtps_pd(_mm256_loadu_ps(p + 8))};
}
INLINE vf vd_narrow(vd x)
{
    return _mm512_insertf32x8(_mm512_castps256_ps512(_mm512_cvtpd_ps(x.lo)),
                              _mm512_cvtpd_ps(x.hi), 1);
}
INLINE vd vd_add(vd a, vd b) { return (vd){_mm512_add_pd(a.lo, b.lo), _mm512_add_pd(a.hi, b.hi)}; }
INLINE vd vd_sub(vd a, vd b) { return (vd){_mm512_sub_pd(a.lo, b.lo), _mm512_sub_pd(a.hi, b.hi)}; }
INLINE vd vd_mul(vd a, vd b) { return (vd){_mm512_mul_pd(a.lo, b.lo), _mm512_mul_pd(a.hi, b.hi)}; }
INLINE vd vd_div(vd a, vd b) { return (vd){_mm512_div_pd(a.lo, b.lo), _mm512_div_pd(a.hi, b.hi)}; }

INLINE vd vd_fma(vd a, vd b, vd c)
{
    return (vd){_mm512_fmadd_pd(a.lo, b.lo, c.lo), _mm512_fmadd_pd(a.hi, b.hi, c.hi)};
}
INLINE vd vd_fnma(vd a, vd b, vd c)
{
    return (vd){_mm512_fnmadd_pd(a.lo, b.lo, c.lo), _mm512_fnmadd_pd(a.hi, b.hi, c.hi)};
}
/* sum + x on the units that sorting leaves idle: the product is exact. */
INLINE vd vd_plus(vd sum, vd x) { return vd_fma(x, vd_set(1.0), sum); }
#include "divide.h"

INLINE vc vc_greater(vd a, vd b)
{
    return (vc){_mm512_cmp_pd_mask(a.lo, b.lo, _CMP_GT_OQ),
                _mm512_cmp_pd_mask(a.hi, b.hi, _CMP_GT_OQ)};
}
INLINE vd vd_where(vc c, vd x)
{
    return (vd){_mm512_maskz_mov_pd(c.lo, x.lo), _mm512_maskz_mov_pd(c.hi, x.hi)};
}
INLINE vd vd_unless(vc c, vd x)
{
    return (vd){_mm512_maskz_mov_pd((__mmask8)~c.lo, x.lo),
                _mm512_maskz_mov_pd((__mmask8)~c.hi, x.hi)};
}

/* Rounding to odd: explained in vector_avx2.h. */
INLINE __m512i vd_odd(vd x)
{
    vf near = vd_narrow(x);
    vf error = vd_narrow(vd_mul(vd_sub(x, vd_widen(near)), vd_set(0x1p500)));
    __m512i bits = _mm512_castps_si512(near), one = _mm512_set1_epi32(1);
    __mmask16 inexact = _mm512_cmp_ps_mask(error, _mm512_setzero_ps(), _CMP_NEQ_OQ);
    __mmask16 even = _mm512_testn_epi32_mask(bits, one);
    __m512i away = _mm512_xor_si512(bits, _mm512_castps_si512(error));
    __m512i step = _mm512_or_si512(_mm512_srai_epi32(away, 31), one);
    return _mm512_mask_add_epi32(bits, (__mmask16)(inexact & even), bits, step);
}
INLINE void vd_store_f16(uint16_t *p, vd x)
{
    __m256i half = _mm512_cvtps_ph(_mm512_castsi512_ps(vd_odd(x)), _MM_FROUND_TO_NEAREST_INT);
    _mm256_storeu_si256((__m256i *)p, half);
}
INLINE void vd_store_bf16(uint16_t *p, vd x)
{
    __m512i bits = vd_odd(x), one = _mm512_set1_epi32(1);
    __m512i tie = _mm512_and_si512(_mm512_srli_epi32(bits, 16), one);
    bits = _mm512_add_epi32(bits, _mm512_add_epi32(tie, _mm512_set1_epi32(0x7fff)));
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtepi32_epi16(_mm512_srli_epi32(bits, 16)));
}
