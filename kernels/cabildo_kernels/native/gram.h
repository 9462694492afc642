/* The Gram matrix over the fixed grid: what is asked for, and what every path offers.
 *
 * Here: the task as the Cython side fills it in, and the grid's numbers. Never here: threads,
 * checks, the sum over superblocks (gram_run.h and gram_matrix.py: the same for all paths).
 */
#ifndef CABILDO_GRAM_H
#define CABILDO_GRAM_H

#include <stddef.h>
#include <stdint.h>

enum {
    GRAM_MOST_ROWS = 64,
    GRAM_LANES = 4,                        /* logical lanes of a pair: column modulo 4 */
    GRAM_BLOCK = 64,                       /* columns summed from +0.0 in each lane */
    GRAM_GROUPS = GRAM_BLOCK / GRAM_LANES, /* steps of a block */
    GRAM_SUPERBLOCK = 24576,               /* columns whose lanes are added up once */
    GRAM_STRIP = 4,                        /* rows that lie together in a panel */
    GRAM_STRIP_SIZE = GRAM_GROUPS * GRAM_STRIP * GRAM_LANES, /* doubles */
    GRAM_PADDED_SIZE = GRAM_BLOCK * sizeof(float),           /* bytes */
};

/* In the order of rows.ELEMENT_TYPES. */
enum gram_type { GRAM_F32, GRAM_F16, GRAM_BF16 };

struct gram_vector {
    const char *data; /* contiguous, any alignment */
    int type;         /* enum gram_type */
};

struct gram_task {
    int rows; /* 1..GRAM_MOST_ROWS */
    size_t columns;
    struct gram_vector row[GRAM_MOST_ROWS];
    struct gram_vector base;   /* data NULL: nothing is subtracted */
    struct gram_vector vector; /* data NULL: Gram matrix; else dot products with it */
    size_t first;              /* superblock that index 0 stands for */
    double *sums;              /* [superblocks][rows][rows], or [superblocks][rows] */
};

/* What a thread needs while it sums a superblock; nothing in it outlives that. */
struct gram_workspace {
    double *panel[2]; /* [strips][GRAM_STRIP_SIZE] */
    double *sums;     /* of all pairs of whole strips, in lanes */
    char *padded;     /* [rows + 2][GRAM_BLOCK * sizeof(float)] */
    float base[GRAM_BLOCK];
};

/* Sum one superblock. A path that this build lacks is NULL. */
typedef void (*gram_path)(const struct gram_task *task, size_t index, struct gram_workspace *);
extern const gram_path gram_baseline, gram_avx2, gram_avx512, gram_avx512_halves, gram_neon;

#endif
