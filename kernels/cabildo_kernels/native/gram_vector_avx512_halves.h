/* Tiles of the Gram matrix for an AVX-512 CPU whose 512-bit units are two halves in turn (Zen 4).
 *
 * Here: the 32 registers of AVX-512 at 256 bits. A tile of two whole strips, 16 accumulators, needs
 * fewer loads a product than AVX2's 16 registers allow, and no rows are computed twice.
 */
#include "gram_quad_avx.h"

typedef quad total;
enum { WIDTH = GRAM_LANES, MOST_TOTALS = 16, SHAPES = 2, BESIDE = 1 };
enum { DIAGONAL, BETWEEN };
#define FOR_EACH_SHAPE(WRITE) WRITE(DIAGONAL) WRITE(BETWEEN)
#define TILE_TABLE {WAYS_OF(DIAGONAL), WAYS_OF(BETWEEN)}

struct pair { int a, b; };

INLINE int totals_of(int shape) { return shape == DIAGONAL ? 10 : 16; }
INLINE int offset_of(int shape) { return shape & 0; }
INLINE struct pair pair_of(int shape, int sum)
{
    static const struct pair diagonal[] = {{0, 0}, {0, 1}, {0, 2}, {0, 3}, {1, 1},
                                           {1, 2}, {1, 3}, {2, 2}, {2, 3}, {3, 3}};
    return shape == DIAGONAL ? diagonal[sum] : (struct pair){sum / 4, sum % 4};
}

INLINE total total_zero(void) { return quad_zero(); }
INLINE total total_load(const double *p) { return quad_load(p); }
INLINE void total_store(double *p, total v) { quad_store(p, v); }
INLINE total total_add(total a, total b) { return quad_add(a, b); }

INLINE void step(int shape, total *acc, const double *a, const double *b)
{
    quad r0 = quad_load(a), r1 = quad_load(a + 4), r2 = quad_load(a + 8), r3 = quad_load(a + 12);
    if (shape == DIAGONAL) {
        quad_fma(&acc[0], r0, r0);
        quad_fma(&acc[1], r0, r1);
        quad_fma(&acc[2], r0, r2);
        quad_fma(&acc[3], r0, r3);
        quad_fma(&acc[4], r1, r1);
        quad_fma(&acc[5], r1, r2);
        quad_fma(&acc[6], r1, r3);
        quad_fma(&acc[7], r2, r2);
        quad_fma(&acc[8], r2, r3);
        quad_fma(&acc[9], r3, r3);
        return;
    }
    for (int j = 0; j < GRAM_STRIP; j++) {
        quad c = quad_load(b + j * GRAM_LANES);
        quad_fma(&acc[j], r0, c);
        quad_fma(&acc[4 + j], r1, c);
        quad_fma(&acc[8 + j], r2, c);
        quad_fma(&acc[12 + j], r3, c);
    }
}
