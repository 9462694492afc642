/* Tiles whose accumulators are quads: for 16 registers of four lanes, or 32 of two.
 *
 * Here: which pairs of rows a tile holds, and one group of 4 columns of it. Included by
 * gram_vector_{avx2,neon,baseline}.h after quad.
 */
typedef quad total;
enum { WIDTH = GRAM_LANES, MOST_TOTALS = 10, SHAPES = 3, BESIDE = 2 };
/* DIAGONAL: a strip with itself. UPPER, LOWER: its first or last two rows with another strip. */
enum { DIAGONAL, UPPER, LOWER };
#define FOR_EACH_SHAPE(WRITE) WRITE(DIAGONAL) WRITE(UPPER)
/* UPPER and LOWER are one function: offset_of() moves it by two rows. */
#define TILE_TABLE {WAYS_OF(DIAGONAL), WAYS_OF(UPPER), WAYS_OF(UPPER)}

struct pair { int a, b; };

INLINE int totals_of(int shape) { return shape == DIAGONAL ? 10 : 8; }
INLINE int offset_of(int shape) { return shape == LOWER ? 2 * GRAM_LANES : 0; }
INLINE struct pair pair_of(int shape, int sum)
{
    static const struct pair diagonal[] = {{0, 0}, {0, 1}, {0, 2}, {0, 3}, {1, 1},
                                           {1, 2}, {1, 3}, {2, 2}, {2, 3}, {3, 3}};
    if (shape == DIAGONAL)
        return diagonal[sum];
    return (struct pair){(shape == LOWER ? 2 : 0) + sum / 4, sum % 4};
}

INLINE total total_zero(void) { return quad_zero(); }
INLINE total total_load(const double *p) { return quad_load(p); }
INLINE void total_store(double *p, total v) { quad_store(p, v); }
INLINE total total_add(total a, total b) { return quad_add(a, b); }

INLINE void step(int shape, total *acc, const double *a, const double *b)
{
    quad r0 = quad_load(a), r1 = quad_load(a + 4);
    if (shape == DIAGONAL) {
        quad r2 = quad_load(a + 8), r3 = quad_load(a + 12);
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
        quad_fma(&acc[GRAM_STRIP + j], r1, c);
    }
}
