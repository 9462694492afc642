/* Four fp64 lanes in one register, and the conversions to them: AVX2 with FMA and F16C. */
#define INLINE static inline __attribute__((always_inline))

typedef __m256d quad;
typedef __m128 narrow;
enum { STEP = 1 };

INLINE quad quad_zero(void) { return _mm256_setzero_pd(); }
INLINE quad quad_load(const double *p) { return _mm256_load_pd(p); }
INLINE void quad_store(double *p, quad v) { _mm256_store_pd(p, v); }
INLINE quad quad_add(quad a, quad b) { return _mm256_add_pd(a, b); }
/* Written out: gcc chooses other forms from the intrinsic, and then spills accumulators. */
INLINE void quad_fma(quad *acc, quad a, quad b)
{
    __asm__("vfmadd231pd %2, %1, %0" : "+v"(*acc) : "v"(a), "v"(b));
}

INLINE narrow narrow_load(const char *p) { return _mm_loadu_ps((const float *)p); }
INLINE void narrow_store(float *p, narrow x) { _mm_storeu_ps(p, x); }
INLINE narrow narrow_f16(const char *p) { return _mm_cvtph_ps(_mm_loadl_epi64((const __m128i *)p)); }
INLINE narrow narrow_bf16(const char *p)
{
    __m128i bits = _mm_cvtepu16_epi32(_mm_loadl_epi64((const __m128i *)p));
    return _mm_castsi128_ps(_mm_slli_epi32(bits, 16));
}
INLINE narrow narrow_sub(narrow a, narrow b) { return _mm_sub_ps(a, b); }
INLINE void narrow_widen(narrow x, double *to) { _mm256_store_pd(to, _mm256_cvtps_pd(x)); }
