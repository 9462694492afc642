/* Task vectors: differences to a base, selected by magnitude, voted on and combined.

   A magnitude is the 31 bits below the sign of fl32(x - base): as integers they sort as the numbers
   do. A bound (bits, stop) says which entries are among the largest k of a tensor: those above
   `bits`, and of those equal to it the ones with an index below `stop`.

   Arithmetic of `combine`, entry by entry and in row order, each operation rounded once in fp64:
   t = (double)fl32(x - base) [* factor]; vote = sum votes[i] * t; merged = sum weights[i] * t;
   out = (base + 0.0) + scale * (merged / divisor), rounded once to the output's type. */
#ifndef CABILDO_TASK_VECTORS_H
#define CABILDO_TASK_VECTORS_H

#include <stdint.h>

enum { TV_F32 = 0, TV_BF16 = 1, TV_F64 = 2 };
enum { TV_ELECT_NONE = 0, TV_ELECT_SUM = 1, TV_ELECT_COUNT = 2 };
enum { TV_HIGH_BINS = 1 << 16, TV_LOW_BINS = 1 << 15, TV_LOW_BITS = 15 };

typedef struct {
    const void *row;
    int kind;
    const void *base; /* NULL: magnitudes of the row itself */
    int base_kind;
} tv_pair;

typedef struct {
    int n;
    int64_t start; /* index in the tensor of element 0 */
    const void *const *rows;
    const int *kinds;
    const void *base;
    int base_kind;
    const double *weights;
    const double *votes;
    const uint32_t *keep_bits; /* kept: inside this bound ... */
    const int64_t *keep_stop;
    const uint32_t *drop_bits; /* ... and not inside that one */
    const int64_t *drop_stop;
    const double *const *factors; /* NULL, or one array (or NULL) for each row */
    const uint8_t *columns;       /* NULL, or 0 where the output is the base */
    int elect;
    int normalise; /* divide by the sum of the weights that agree (elect) or of all (none) */
    double scale;
    void *out;
    int out_kind;
} tv_combination;

#define TV_DECLARE(path)                                                                       \
    int tv_histogram_##path(const tv_pair *pair, int64_t begin, int64_t end, int64_t prefix,   \
                            uint64_t *counts);                                                 \
    int64_t tv_find_##path(const tv_pair *pair, int64_t begin, int64_t end, uint32_t bits,     \
                           int64_t nth, int64_t *seen);                                        \
    uint64_t tv_combine_##path(const tv_combination *job, int64_t begin, int64_t end,          \
                               int *bad_base);

TV_DECLARE(baseline)
TV_DECLARE(avx2)
TV_DECLARE(avx512)
TV_DECLARE(neon)

/* The same on the chosen path, under the default floating-point control word. */
int tv_histogram(int path, const tv_pair *pair, int64_t size, int64_t prefix, uint64_t *counts);
int64_t tv_find(int path, const tv_pair *pair, int64_t size, uint32_t bits, int64_t nth,
                int64_t *seen);
void tv_combine(int path, const tv_combination *job, int64_t size, int threads, uint64_t *bad_rows,
                int *bad_base);

#endif
