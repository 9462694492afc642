/* Sixteen float32 lanes: the unit of order of the softmax family, whatever the registers are.
 *
 * Here: one value type `lanes` and the few operations that the templates need, for AVX-512 (one
 * register), AVX2 (two) and anything else (four GCC vectors: SSE2 and NEON). Every operation is
 * IEEE and the same in each of the three; multiply and add are never fused. Sums over lanes go
 * l + (l+8), then + (l+4), (l+2), (l+1).
 * Never here: a reduction in another order, an approximate instruction (rcp, rsqrt), libm.
 *
 * Include after choosing the target; LANES_AVX512 or LANES_AVX2 picks the registers.
 */
#ifndef CABILDO_LANES_H
#define CABILDO_LANES_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#define LANES 16

typedef float quad __attribute__((vector_size(16)));
typedef int32_t quad_bits __attribute__((vector_size(16)));

#define IN static inline __attribute__((always_inline))

IN quad quad_load(const float *p) {
    quad v;
    memcpy(&v, p, sizeof v);
    return v;
}

IN void quad_store(float *p, quad v) { memcpy(p, &v, sizeof v); }

/* to[i * stride + j] = j-th row's i-th, four by four. */
IN void quad_transpose(const float *row0, const float *row1, const float *row2, const float *row3,
                       float *to, int64_t stride) {
    quad a = quad_load(row0), b = quad_load(row1), c = quad_load(row2), d = quad_load(row3);
    quad ab0 = __builtin_shufflevector(a, b, 0, 4, 1, 5);
    quad ab1 = __builtin_shufflevector(a, b, 2, 6, 3, 7);
    quad cd0 = __builtin_shufflevector(c, d, 0, 4, 1, 5);
    quad cd1 = __builtin_shufflevector(c, d, 2, 6, 3, 7);
    quad_store(to, __builtin_shufflevector(ab0, cd0, 0, 1, 4, 5));
    quad_store(to + stride, __builtin_shufflevector(ab0, cd0, 2, 3, 6, 7));
    quad_store(to + 2 * stride, __builtin_shufflevector(ab1, cd1, 0, 1, 4, 5));
    quad_store(to + 3 * stride, __builtin_shufflevector(ab1, cd1, 2, 3, 6, 7));
}

IN float quad_sum(quad v) { return (v[0] + v[2]) + (v[1] + v[3]); }

#if defined(LANES_AVX512)
#include <immintrin.h>

typedef __m512 lanes;
typedef __mmask16 lane_mask;

IN lanes lanes_set(float x) { return _mm512_set1_ps(x); }
IN lanes lanes_load(const float *p) { return _mm512_loadu_ps(p); }
IN void lanes_store(float *p, lanes v) { _mm512_storeu_ps(p, v); }
IN lanes lanes_load_part(const float *p, int count, float fill) {
    return _mm512_mask_loadu_ps(_mm512_set1_ps(fill), (__mmask16)((1u << count) - 1u), p);
}
IN void lanes_store_part(float *p, int count, lanes v) {
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << count) - 1u), v);
}
IN lanes lanes_add(lanes a, lanes b) { return _mm512_add_ps(a, b); }
IN lanes lanes_sub(lanes a, lanes b) { return _mm512_sub_ps(a, b); }
IN lanes lanes_mul(lanes a, lanes b) { return _mm512_mul_ps(a, b); }
IN lanes lanes_div(lanes a, lanes b) { return _mm512_div_ps(a, b); }
IN lanes lanes_max(lanes a, lanes b) { return _mm512_max_ps(a, b); }
IN lane_mask lanes_greater(lanes a, lanes b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
IN lane_mask lanes_unordered(lanes a) { return _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q); }
IN lanes lanes_select(lane_mask m, lanes yes, lanes no) { return _mm512_mask_blend_ps(m, no, yes); }
IN lane_mask mask_none(void) { return 0; }
IN lane_mask mask_or(lane_mask a, lane_mask b) { return (lane_mask)(a | b); }
IN unsigned mask_bits(lane_mask m) { return m; }
IN lanes lanes_scale(lanes p, lanes n) { /* p * 2^n, n as the low bits of a magic sum */
    return _mm512_castsi512_ps(_mm512_add_epi32(
        _mm512_castps_si512(p), _mm512_slli_epi32(_mm512_castps_si512(n), 23)));
}
IN quad lanes_fold(lanes v) {
    __m256 high = _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(v), 1));
    __m256 half = _mm256_add_ps(_mm512_castps512_ps256(v), high);
    return (quad)_mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
}
IN float lanes_top(lanes v) {
    __m256 high = _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(v), 1));
    __m256 half = _mm256_max_ps(_mm512_castps512_ps256(v), high);
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
    __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps(two, two, 1)));
}

#elif defined(LANES_AVX2)
#include <immintrin.h>

typedef struct {
    __m256 a, b;
} lanes;
typedef lanes lane_mask;

IN lanes lanes_set(float x) { return (lanes){_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
IN lanes lanes_load(const float *p) { return (lanes){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
IN void lanes_store(float *p, lanes v) {
    _mm256_storeu_ps(p, v.a);
    _mm256_storeu_ps(p + 8, v.b);
}
IN __m256i half_mask(int count) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
IN lanes lanes_load_part(const float *p, int count, float fill) {
    __m256i first = half_mask(count), second = half_mask(count - 8);
    __m256 other = _mm256_set1_ps(fill);
    /* Nothing is read where the mask is off, so the address of an empty half is harmless. */
    return (lanes){
        _mm256_blendv_ps(other, _mm256_maskload_ps(p, first), _mm256_castsi256_ps(first)),
        _mm256_blendv_ps(other, _mm256_maskload_ps(p + (count > 8 ? 8 : 0), second),
                         _mm256_castsi256_ps(second))};
}
IN void lanes_store_part(float *p, int count, lanes v) {
    _mm256_maskstore_ps(p, half_mask(count), v.a);
    if (count > 8) {
        _mm256_maskstore_ps(p + 8, half_mask(count - 8), v.b);
    }
}
#define BOTH(name, call)                                                                           \
    IN lanes name(lanes x, lanes y) { return (lanes){call(x.a, y.a), call(x.b, y.b)}; }
BOTH(lanes_add, _mm256_add_ps)
BOTH(lanes_sub, _mm256_sub_ps)
BOTH(lanes_mul, _mm256_mul_ps)
BOTH(lanes_div, _mm256_div_ps)
BOTH(lanes_max, _mm256_max_ps)
BOTH(mask_or, _mm256_or_ps)
#undef BOTH
IN lane_mask lanes_greater(lanes x, lanes y) {
    return (lanes){_mm256_cmp_ps(x.a, y.a, _CMP_GT_OQ), _mm256_cmp_ps(x.b, y.b, _CMP_GT_OQ)};
}
IN lane_mask lanes_unordered(lanes x) {
    return (lanes){_mm256_cmp_ps(x.a, x.a, _CMP_UNORD_Q), _mm256_cmp_ps(x.b, x.b, _CMP_UNORD_Q)};
}
IN lanes lanes_select(lane_mask m, lanes yes, lanes no) {
    return (lanes){_mm256_blendv_ps(no.a, yes.a, m.a), _mm256_blendv_ps(no.b, yes.b, m.b)};
}
IN lane_mask mask_none(void) { return lanes_set(0.0f); }
IN unsigned mask_bits(lane_mask m) {
    return (unsigned)_mm256_movemask_ps(m.a) | (unsigned)_mm256_movemask_ps(m.b) << 8;
}
IN __m256 scale_half(__m256 p, __m256 n) {
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p),
                                                _mm256_slli_epi32(_mm256_castps_si256(n), 23)));
}
IN lanes lanes_scale(lanes p, lanes n) {
    return (lanes){scale_half(p.a, n.a), scale_half(p.b, n.b)};
}
IN quad lanes_fold(lanes v) {
    __m256 half = _mm256_add_ps(v.a, v.b);
    return (quad)_mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
}
IN float lanes_top(lanes v) {
    __m256 half = _mm256_max_ps(v.a, v.b);
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
    __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps(two, two, 1)));
}

#else /* GCC vectors of four: SSE2, NEON, or whatever the compiler lowers them to */

typedef struct {
    quad a, b, c, d;
} lanes;
typedef struct {
    quad_bits a, b, c, d;
} lane_mask;

#define EACH4(expression)                                                                          \
    { expression(a), expression(b), expression(c), expression(d) }

IN lanes lanes_set(float x) {
    quad v = {x, x, x, x};
    return (lanes){v, v, v, v};
}
IN lanes lanes_load(const float *p) {
    return (lanes){quad_load(p), quad_load(p + 4), quad_load(p + 8), quad_load(p + 12)};
}
IN void lanes_store(float *p, lanes v) {
    quad_store(p, v.a);
    quad_store(p + 4, v.b);
    quad_store(p + 8, v.c);
    quad_store(p + 12, v.d);
}
IN lanes lanes_load_part(const float *p, int count, float fill) {
    float whole[LANES];
    for (int l = 0; l < LANES; l++) {
        whole[l] = l < count ? p[l] : fill;
    }
    return lanes_load(whole);
}
IN void lanes_store_part(float *p, int count, lanes v) {
    float whole[LANES];
    lanes_store(whole, v);
    memcpy(p, whole, (size_t)count * sizeof *p);
}
IN quad quad_select(quad_bits m, quad yes, quad no) {
    return (quad)((m & (quad_bits)yes) | (~m & (quad_bits)no));
}
IN quad quad_max(quad x, quad y) { return quad_select(x > y, x, y); }
#define ADD(f) x.f + y.f
#define SUB(f) x.f - y.f
#define MUL(f) x.f *y.f
#define DIV(f) x.f / y.f
#define MAX(f) quad_max(x.f, y.f)
#define OR(f) x.f | y.f
#define GREATER(f) x.f > y.f
#define UNORDERED(f) x.f != x.f
#define SELECT(f) quad_select(m.f, yes.f, no.f)
#define SCALE(f) (quad)((quad_uints)p.f + ((quad_uints)n.f << 23))
typedef uint32_t quad_uints __attribute__((vector_size(16)));
IN lanes lanes_add(lanes x, lanes y) { return (lanes)EACH4(ADD); }
IN lanes lanes_sub(lanes x, lanes y) { return (lanes)EACH4(SUB); }
IN lanes lanes_mul(lanes x, lanes y) { return (lanes)EACH4(MUL); }
IN lanes lanes_div(lanes x, lanes y) { return (lanes)EACH4(DIV); }
IN lanes lanes_max(lanes x, lanes y) { return (lanes)EACH4(MAX); }
IN lane_mask mask_or(lane_mask x, lane_mask y) { return (lane_mask)EACH4(OR); }
IN lane_mask lanes_greater(lanes x, lanes y) { return (lane_mask)EACH4(GREATER); }
IN lane_mask lanes_unordered(lanes x) { return (lane_mask)EACH4(UNORDERED); }
IN lanes lanes_select(lane_mask m, lanes yes, lanes no) { return (lanes)EACH4(SELECT); }
IN lane_mask mask_none(void) { return (lane_mask){{0}, {0}, {0}, {0}}; }
IN unsigned mask_bits(lane_mask m) {
    unsigned bits = 0;
    for (int l = 0; l < 4; l++) {
        bits |= (unsigned)(m.a[l] & 1) << l | (unsigned)(m.b[l] & 1) << (l + 4) |
                (unsigned)(m.c[l] & 1) << (l + 8) | (unsigned)(m.d[l] & 1) << (l + 12);
    }
    return bits;
}
IN lanes lanes_scale(lanes p, lanes n) { return (lanes)EACH4(SCALE); }
IN quad lanes_fold(lanes v) { return (v.a + v.c) + (v.b + v.d); }
IN float lanes_top(lanes v) {
    quad m = quad_max(quad_max(v.a, v.c), quad_max(v.b, v.d));
    float x = m[0] > m[1] ? m[0] : m[1], y = m[2] > m[3] ? m[2] : m[3];
    return x > y ? x : y;
}
#undef ADD
#undef SUB
#undef MUL
#undef DIV
#undef MAX
#undef OR
#undef GREATER
#undef UNORDERED
#undef SELECT
#undef SCALE
#undef EACH4
#endif

IN float lanes_sum(lanes v) { return quad_sum(lanes_fold(v)); }

/* exp(t) for t <= 0, 0 below EXP_LOWEST: t = n ln2 + r with |r| <= ln2 / 2 (ln2 in two parts, the
 * first short enough that n * LN2_HIGH is exact), exp(r) = 1 + r + r^2 q(r) with q of degree 4
 * fitted for the relative error (3.1e-9 before rounding; with rounding below 1.1 units in the last
 * place, as the tests measure), times 2^n through the exponent's bits. Everything stays normal.
 * NaN stays NaN. */
#define EXP_LOWEST -87.0f
#define EXP_LOG2E 1.44269504f
#define EXP_MAGIC 12582912.0f /* 1.5 * 2^23: adding it rounds to an integer, nearest even */
#define EXP_LN2_HIGH 0.693359375f
#define EXP_LN2_LOW -2.12194440e-4f
#define EXP_C4 1.3814467e-3f
#define EXP_C3 8.368781e-3f
#define EXP_C2 4.1668394e-2f
#define EXP_C1 1.6666520e-1f
#define EXP_C0 4.9999993e-1f

IN lanes lanes_exp(lanes t) {
    lanes magic = lanes_set(EXP_MAGIC);
    lanes shifted = lanes_add(lanes_mul(t, lanes_set(EXP_LOG2E)), magic);
    lanes n = lanes_sub(shifted, magic);
    lanes r = lanes_sub(t, lanes_mul(n, lanes_set(EXP_LN2_HIGH)));
    r = lanes_sub(r, lanes_mul(n, lanes_set(EXP_LN2_LOW)));
    lanes q = lanes_add(lanes_mul(lanes_set(EXP_C4), r), lanes_set(EXP_C3));
    q = lanes_add(lanes_mul(q, r), lanes_set(EXP_C2));
    q = lanes_add(lanes_mul(q, r), lanes_set(EXP_C1));
    q = lanes_add(lanes_mul(q, r), lanes_set(EXP_C0));
    lanes p = lanes_add(lanes_mul(lanes_mul(r, r), q), r);
    p = lanes_add(p, lanes_set(1.0f));
    return lanes_select(lanes_greater(lanes_set(EXP_LOWEST), t), lanes_set(0.0f),
                        lanes_scale(p, shifted));
}

#endif
