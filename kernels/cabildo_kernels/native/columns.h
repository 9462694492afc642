/* What a column rule is asked to do, as the Cython side fills it in and every path reads it. */
#ifndef CABILDO_COLUMNS_H
#define CABILDO_COLUMNS_H

#include <stddef.h>
#include <stdint.h>

enum { ROWS_MOST = 64, SUPERBLOCK = 24576 };
/* In the order of rows.ELEMENT_TYPES. */
enum element_type { F32, F16, BF16 };
enum column_rule { MEDIAN, TRIMMED_MEAN, MEAN_AROUND_MEDIAN, WEIGHTED_SUM };

struct columns_task {
    enum column_rule rule;
    int rows;                      /* 1..ROWS_MOST */
    int all_f32;                   /* every row is float32: read in place, no scratch */
    size_t columns;
    const void *row[ROWS_MOST];    /* contiguous, any alignment */
    uint8_t type[ROWS_MOST];       /* enum element_type of each row */
    int trim;                      /* values left out at each end */
    int keep;                      /* values kept around the median */
    int outputs;                   /* weighted sums to make: 1..ROWS_MOST */
    const double *weights;         /* [outputs][rows] */
    double divisor;
    void *out;                     /* [outputs][columns] */
    enum element_type out_type;
    int suspect;                   /* set when a value may not be finite: look closely */
};

/* Work on columns begin..end-1. A path that this build lacks is NULL. */
typedef void (*columns_path)(struct columns_task *task, size_t begin, size_t end);
extern const columns_path columns_baseline, columns_avx2, columns_avx512, columns_neon;

#endif
