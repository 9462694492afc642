/* Lanes and conversions of the Gram matrix in GCC's vectors: SSE2, NEON or whatever there is.
 *
 * Multiply, then add: the product of two widened floats is exact, so this is what the fused
 * instruction of the other paths gives.
 */
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

typedef double two __attribute__((vector_size(16)));
typedef struct {
    two low, high;
} quad;
typedef float narrow __attribute__((vector_size(16)));
typedef uint32_t narrow_bits __attribute__((vector_size(16)));
enum { STEP = 1 };

INLINE quad quad_zero(void) { return (quad){{0.0, 0.0}, {0.0, 0.0}}; }
INLINE quad quad_load(const double *p)
{
    quad v;
    memcpy(&v.low, p, sizeof v.low);
    memcpy(&v.high, p + 2, sizeof v.high);
    return v;
}
INLINE void quad_store(double *p, quad v)
{
    memcpy(p, &v.low, sizeof v.low);
    memcpy(p + 2, &v.high, sizeof v.high);
}
INLINE quad quad_add(quad a, quad b) { return (quad){a.low + b.low, a.high + b.high}; }
INLINE void quad_fma(quad *acc, quad a, quad b)
{
    acc->low += a.low * b.low;
    acc->high += a.high * b.high;
}

INLINE narrow narrow_load(const char *p)
{
    narrow x;
    memcpy(&x, p, sizeof x);
    return x;
}
INLINE void narrow_store(float *p, narrow x) { memcpy(p, &x, sizeof x); }
INLINE narrow_bits bits_of(const char *p)
{
    uint16_t h[4];
    memcpy(h, p, sizeof h);
    return (narrow_bits){h[0], h[1], h[2], h[3]};
}
INLINE narrow narrow_bf16(const char *p) { return (narrow)(bits_of(p) << 16); }
/* Exponent and fraction, read as float32, are 2^-112 of the value, denormals included. */
INLINE narrow narrow_f16(const char *p)
{
    narrow_bits bits = bits_of(p), size = (bits & 0x7fff) << 13;
    narrow_bits special = (narrow_bits)((bits & 0x7c00) == 0x7c00) & 0x7f800000;
    narrow_bits value = (narrow_bits)((narrow)size * 0x1p112f);
    return (narrow)(value | special | (bits & 0x8000) << 16);
}
INLINE narrow narrow_sub(narrow a, narrow b) { return a - b; }
INLINE void narrow_widen(narrow x, double *to)
{
    quad_store(to, (quad){{x[0], x[1]}, {x[2], x[3]}});
}

#include "gram_tiles_quad.h"
