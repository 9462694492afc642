/* Lanes, conversions and tiles of the Gram matrix in AVX-512.
 *
 * A register holds two pairs of rows: four lanes of row i twice, times four lanes each of rows j
 * and j + 1, which lie side by side in a strip. Tiles: a strip with itself (6 registers, 10 pairs
 * and two of them twice) and with another strip (8 registers, 16 pairs).
 */
#include "gram_quad_avx.h"

typedef __m512d total;
enum { WIDTH = 8, MOST_TOTALS = 8, SHAPES = 2, BESIDE = 1 };
enum { DIAGONAL, BETWEEN };
#define FOR_EACH_SHAPE(WRITE) WRITE(DIAGONAL) WRITE(BETWEEN)
#define TILE_TABLE {WAYS_OF(DIAGONAL), WAYS_OF(BETWEEN)}

struct pair { int a, b; };

INLINE int totals_of(int shape) { return shape == DIAGONAL ? 6 : 8; }
INLINE int offset_of(int shape) { return shape & 0; }
INLINE struct pair pair_of(int shape, int sum)
{
    static const struct pair diagonal[] = {{0, 0}, {0, 1}, {0, 2}, {0, 3}, {1, 0}, {1, 1},
                                           {1, 2}, {1, 3}, {2, 2}, {2, 3}, {3, 2}, {3, 3}};
    return shape == DIAGONAL ? diagonal[sum] : (struct pair){sum / 4, sum % 4};
}

INLINE total total_zero(void) { return _mm512_setzero_pd(); }
INLINE total total_load(const double *p) { return _mm512_load_pd(p); }
INLINE void total_store(double *p, total v) { _mm512_store_pd(p, v); }
INLINE total total_add(total a, total b) { return _mm512_add_pd(a, b); }
INLINE void total_fma(total *acc, total a, total b)
{
    __asm__("vfmadd231pd %2, %1, %0" : "+v"(*acc) : "v"(a), "v"(b));
}
INLINE total twice(const double *row) { return _mm512_broadcast_f64x4(_mm256_load_pd(row)); }

INLINE void step(int shape, total *acc, const double *a, const double *b)
{
    total r0 = twice(a), r1 = twice(a + 4), r2 = twice(a + 8), r3 = twice(a + 12);
    total low = total_load(b), high = total_load(b + 8);
    total_fma(&acc[0], r0, low);
    total_fma(&acc[1], r0, high);
    total_fma(&acc[2], r1, low);
    total_fma(&acc[3], r1, high);
    if (shape == DIAGONAL) {
        total_fma(&acc[4], r2, high);
        total_fma(&acc[5], r3, high);
        return;
    }
    total_fma(&acc[4], r2, low);
    total_fma(&acc[5], r2, high);
    total_fma(&acc[6], r3, low);
    total_fma(&acc[7], r3, high);
}
