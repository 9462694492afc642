/* The vocabulary of the column rules in AVX2: W float lanes, and the same lanes as doubles.
 *
 * vf is W floats, vd W doubles, vc W conditions; AHEAD is how many columns ahead rows are fetched
 * into the cache. Every vector_*.h defines the same words.
 */
enum { W = 8, AHEAD = 64 };
typedef __m256 vf;
typedef struct { __m256d lo, hi; } vd;
typedef vd vc;
#define INLINE static inline __attribute__((always_inline))

INLINE vf vf_load(const float *p) { return _mm256_loadu_ps(p); }
INLINE void vf_store(float *p, vf x) { _mm256_storeu_ps(p, x); }
INLINE vf vf_set(float x) { return _mm256_set1_ps(x); }
INLINE vf vf_add(vf a, vf b) { return _mm256_add_ps(a, b); }
INLINE vf vf_sub(vf a, vf b) { return _mm256_sub_ps(a, b); }
INLINE vf vf_min(vf a, vf b) { return _mm256_min_ps(a, b); }
INLINE vf vf_max(vf a, vf b) { return _mm256_max_ps(a, b); }
/* check stays below 0xff000000 in every lane, as integers, while each x is finite: twice its bits
 * drops the sign, and integers leave the units that sorting needs alone. */
INLINE vf vf_taint(vf check, vf x)
{
    __m256i bits = _mm256_castps_si256(x);
    return _mm256_castsi256_ps(
        _mm256_max_epu32(_mm256_castps_si256(check), _mm256_add_epi32(bits, bits)));
}
INLINE int vf_tainted(vf check)
{
    __m256i least = _mm256_set1_epi32((int)0xff000000), bits = _mm256_castps_si256(check);
    return _mm256_movemask_epi8(_mm256_cmpeq_epi32(_mm256_max_epu32(bits, least), bits)) != 0;
}
INLINE vf vf_load_f16(const uint16_t *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}
INLINE vf vf_load_bf16(const uint16_t *p)
{
    __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}

INLINE vd vd_set(double x) { return (vd){_mm256_set1_pd(x), _mm256_set1_pd(x)}; }
INLINE vd vd_widen(vf x)
{
    return (vd){_mm256_cvtps_pd(_mm256_castps256_ps128(x)),
                _mm256_cvtps_pd(_mm256_extractf128_ps(x, 1))};
}
INLINE vd vd_load(const float *p)
{
    return (vd){_mm256_cvtps_pd(_mm_loadu_ps(p)), _mm256_cvtps_pd(_mm_loadu_ps(p + 4))};
}
INLINE vf vd_narrow(vd x)
{
    return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm256_cvtpd_ps(x.lo)),
                                _mm256_cvtpd_ps(x.hi), 1);
}
INLINE vd vd_add(vd a, vd b) { return (vd){_mm256_add_pd(a.lo, b.lo), _mm256_add_pd(a.hi, b.hi)}; }
INLINE vd vd_sub(vd a, vd b) { return (vd){_mm256_sub_pd(a.lo, b.lo), _mm256_sub_pd(a.hi, b.hi)}; }
INLINE vd vd_mul(vd a, vd b) { return (vd){_mm256_mul_pd(a.lo, b.lo), _mm256_mul_pd(a.hi, b.hi)}; }
INLINE vd vd_div(vd a, vd b) { return (vd){_mm256_div_pd(a.lo, b.lo), _mm256_div_pd(a.hi, b.hi)}; }

INLINE vd vd_fma(vd a, vd b, vd c)
{
    return (vd){_mm256_fmadd_pd(a.lo, b.lo, c.lo), _mm256_fmadd_pd(a.hi, b.hi, c.hi)};
}
INLINE vd vd_fnma(vd a, vd b, vd c)
{
    return (vd){_mm256_fnmadd_pd(a.lo, b.lo, c.lo), _mm256_fnmadd_pd(a.hi, b.hi, c.hi)};
}
INLINE vd vd_plus(vd sum, vd x) { return vd_add(sum, x); }
#include "divide.h"

INLINE vc vc_greater(vd a, vd b)
{
    return (vc){_mm256_cmp_pd(a.lo, b.lo, _CMP_GT_OQ), _mm256_cmp_pd(a.hi, b.hi, _CMP_GT_OQ)};
}
INLINE vd vd_where(vc c, vd x)
{
    return (vd){_mm256_and_pd(c.lo, x.lo), _mm256_and_pd(c.hi, x.hi)};
}
INLINE vd vd_unless(vc c, vd x)
{
    return (vd){_mm256_andnot_pd(c.lo, x.lo), _mm256_andnot_pd(c.hi, x.hi)};
}

/* float32 bits of x rounded to odd: rounding them once more, to a type at least two bits shorter,
 * gives what rounding x itself would. The error of the first rounding is scaled so that its sign
 * outlives the conversion. */
INLINE __m256i vd_odd(vd x)
{
    vf near = vd_narrow(x);
    vf error = vd_narrow(vd_mul(vd_sub(x, vd_widen(near)), vd_set(0x1p500)));
    __m256i bits = _mm256_castps_si256(near), one = _mm256_set1_epi32(1);
    __m256i inexact = _mm256_castps_si256(_mm256_cmp_ps(error, _mm256_setzero_ps(), _CMP_NEQ_OQ));
    __m256i even = _mm256_cmpeq_epi32(_mm256_and_si256(bits, one), _mm256_setzero_si256());
    __m256i away = _mm256_xor_si256(bits, _mm256_castps_si256(error));
    __m256i step = _mm256_or_si256(_mm256_srai_epi32(away, 31), one);
    return _mm256_add_epi32(bits, _mm256_and_si256(step, _mm256_and_si256(inexact, even)));
}
INLINE void vd_store_f16(uint16_t *p, vd x)
{
    __m128i half = _mm256_cvtps_ph(_mm256_castsi256_ps(vd_odd(x)), _MM_FROUND_TO_NEAREST_INT);
    _mm_storeu_si128((__m128i *)p, half);
}
INLINE void vd_store_bf16(uint16_t *p, vd x)
{
    __m256i bits = vd_odd(x), one = _mm256_set1_epi32(1);
    __m256i tie = _mm256_and_si256(_mm256_srli_epi32(bits, 16), one);
    bits = _mm256_add_epi32(bits, _mm256_add_epi32(tie, _mm256_set1_epi32(0x7fff)));
    bits = _mm256_srli_epi32(bits, 16);
    __m256i packed = _mm256_packus_epi32(bits, bits);
    packed = _mm256_permute4x64_epi64(packed, 0x08);
    _mm_storeu_si128((__m128i *)p, _mm256_castsi256_si128(packed));
}
