/* Cyclic Jacobi on eight matrices at once, one a lane: a template that each path includes.
 *
 * The loops over lanes are what the compiler turns into vectors; + - * / and square root are the
 * same in all of them, and -ffp-contract=off keeps products and sums apart. The definition of the
 * bits, with the same names, is fallback/linear_algebra.py.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define EACH_LANE for (int l = 0; l < AT_ONCE; l++)

typedef double lanes[AT_ONCE];

/* Rotate the plane of x and y. */
INLINE void turn(double *restrict x, double *restrict y, const double *restrict sine,
                 const double *restrict tau)
{
    EACH_LANE
    {
        double old_x = x[l], old_y = y[l];
        x[l] = old_x - sine[l] * (old_y + old_x * tau[l]);
        y[l] = old_y + sine[l] * (old_x - old_y * tau[l]);
    }
}

/* x where the mask is all ones, +0.0 where it is zero: no branch, so that the loops stay vectors. */
INLINE double where(uint64_t mask, double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    bits &= mask;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* Rotate every matrix where entry (p, q) still matters; whether there was one. */
static int rotate(lanes *restrict a, lanes *restrict vectors, int k, int p, int q)
{
    double *restrict entry = a[p * k + q], *restrict app = a[p * k + p],
                     *restrict aqq = a[q * k + q];
    lanes sine, tau;
    uint64_t matters[AT_ONCE], any = 0;
    EACH_LANE
    {
        double size = fabs(entry[l]), at_p = fabs(app[l]), at_q = fabs(aqq[l]);
        matters[l] = -(uint64_t)((at_p + size != at_p) | (at_q + size != at_q));
    }
    EACH_LANE any |= matters[l];
    if (!any) {
        EACH_LANE entry[l] = 0.0;
        return 0;
    }
    EACH_LANE
    {
        double theta = (aqq[l] - app[l]) / (entry[l] + entry[l]);
        double root = sqrt(theta * theta + 1.0);
        double sign = theta < 0.0 ? -1.0 : 1.0;
        double tangent = where(matters[l], sign / (fabs(theta) + root));
        double cosine = 1.0 / sqrt(tangent * tangent + 1.0);
        double shift = where(matters[l], tangent * entry[l]);
        sine[l] = tangent * cosine;
        tau[l] = sine[l] / (cosine + 1.0);
        app[l] = app[l] - shift;
        aqq[l] = aqq[l] + shift;
        entry[l] = 0.0;
    }
    for (int i = 0; i < p; i++)
        turn(a[i * k + p], a[i * k + q], sine, tau);
    for (int i = p + 1; i < q; i++)
        turn(a[p * k + i], a[i * k + q], sine, tau);
    for (int i = q + 1; i < k; i++)
        turn(a[p * k + i], a[q * k + i], sine, tau);
    for (int i = 0; vectors && i < k; i++)
        turn(vectors[i * k + p], vectors[i * k + q], sine, tau);
    return 1;
}

/* Whether every matrix came to a sweep without a rotation. */
static int jacobi(lanes *a, lanes *vectors, int k, int sweeps)
{
    for (int sweep = 0; sweep < sweeps; sweep++) {
        int rotated = 0;
        for (int p = 0; p < k - 1; p++)
            for (int q = p + 1; q < k; q++)
                rotated |= rotate(a, vectors, k, p, q);
        if (!rotated)
            return 1;
    }
    return k == 1;
}

/* Centred Gram matrices of eight subsets. */
static void centre(const struct eigen_task *task, const size_t *which, lanes *a)
{
    int k = task->size;
    lanes *means = a + k * k, total = {0};
    for (int i = 0; i < k; i++) {
        lanes row = {0};
        for (int j = 0; j < k; j++)
            EACH_LANE
            {
                const int16_t *subset = task->subsets + which[l] * k;
                a[i * k + j][l] = task->gram[subset[i] * task->n + subset[j]];
                row[l] = row[l] + a[i * k + j][l];
            }
        EACH_LANE
        {
            total[l] = total[l] + row[l];
            means[i][l] = row[l] / (double)k;
        }
    }
    EACH_LANE total[l] = total[l] / (double)(k * k);
    for (int i = 0; i < k; i++)
        for (int j = 0; j < k; j++)
            EACH_LANE a[i * k + j][l] = ((a[i * k + j][l] - means[i][l]) - means[j][l]) + total[l];
}

static void write_top(const struct eigen_task *task, size_t matrix, lanes *a, int l)
{
    int k = task->size;
    double top = 0.0; /* a covariance has no negative eigenvalue: rounding only */
    for (int i = 0; i < k; i++)
        top = a[i * k + i][l] > top ? a[i * k + i][l] : top;
    task->values[matrix] = top / (double)k;
}

/* Values ascending, equal ones in the order of the diagonal; their vectors in columns. */
static void write_sorted(const struct eigen_task *task, size_t matrix, lanes *a, lanes *vectors,
                         int l, int *order)
{
    int k = task->size;
    double *values = task->values + matrix * k;
    for (int i = 0; i < k; i++) {
        double value = a[i * k + i][l] + 0.0;
        int at = i;
        for (; at > 0 && values[at - 1] > value; at--) {
            values[at] = values[at - 1];
            order[at] = order[at - 1];
        }
        values[at] = value;
        order[at] = i;
    }
    for (int i = 0; vectors && i < k; i++)
        for (int j = 0; j < k; j++)
            task->vectors[(matrix * k + i) * k + j] = vectors[i * k + order[j]][l] + 0.0;
}

static void run_eigen(struct eigen_task *task, size_t index)
{
    int k = task->size, *order = NULL;
    size_t size = (size_t)k * k, first = index * AT_ONCE, which[AT_ONCE];
    lanes *a = aligned_alloc(64, ((task->vectors ? 2 : 1) * size + 2 * k) * sizeof(lanes));
    if (a == NULL) {
        task->failed = 2;
        return;
    }
    lanes *vectors = task->vectors ? a + size + 2 * k : NULL;
    order = (int *)(a + size + k);
    EACH_LANE which[l] = first + l < task->count ? first + l : task->count - 1;
    if (task->subsets)
        centre(task, which, a);
    else
        for (size_t i = 0; i < size; i++)
            EACH_LANE a[i][l] = task->matrices[which[l] * size + i];
    for (int i = 0; vectors && i < k; i++)
        for (int j = 0; j < k; j++)
            EACH_LANE vectors[i * k + j][l] = i == j;
    if (!jacobi(a, vectors, k, task->sweeps))
        task->failed = 1;
    for (int l = 0; l < AT_ONCE && first + l < task->count; l++)
        if (task->subsets)
            write_top(task, first + l, a, l);
        else
            write_sorted(task, first + l, a, vectors, l, order);
    free(a);
}
