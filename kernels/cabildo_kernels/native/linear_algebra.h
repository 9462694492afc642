/* Eigenvalues of many small symmetric matrices: what is asked for, and what every path offers.
 *
 * Here: the task as the Cython side fills it in. Never here: checks (linear_algebra.py).
 */
#ifndef CABILDO_LINEAR_ALGEBRA_H
#define CABILDO_LINEAR_ALGEBRA_H

#include <stddef.h>
#include <stdint.h>

enum { AT_ONCE = 8 }; /* matrices that one call of a path works on, one a lane */

struct eigen_task {
    size_t count; /* matrices */
    int size;     /* rows of each */
    int sweeps;
    const double *matrices; /* [count][size][size], or NULL: */
    const double *gram;     /* [n][n], of which */
    const int16_t *subsets; /* [count][size] are the rows */
    int n;
    double *values;  /* [count][size] ascending; of subsets [count], the largest, over size */
    double *vectors; /* [count][size][size], columns, or NULL */
    int failed;      /* 1: sweeps were not enough, 2: no memory */
};

/* Work on matrices index * AT_ONCE and the next seven. A path that this build lacks is NULL. */
typedef void (*eigen_path)(struct eigen_task *task, size_t index);
extern const eigen_path eigen_baseline, eigen_avx2, eigen_avx512, eigen_neon;

#endif
