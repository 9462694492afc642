/* Rules on sorted columns: median, trimmed mean, mean around the median.
 *
 * Up to 16 rows a column is sorted in registers. Above, groups of up to 16 are sorted in registers
 * and merged in L1. A row of zeros of either sign sorts as it likes: the results start from +0.0, so
 * no sign of a zero survives. `check` remembers any value that is not finite.
 */
#include "networks.h"

INLINE void store_result(enum element_type type, char *out, size_t column, vd x)
{
    if (type == F32)
        vf_store((float *)out + column, vd_narrow(x));
    else if (type == F16)
        vd_store_f16((uint16_t *)out + column, x);
    else
        vd_store_bf16((uint16_t *)out + column, x);
}

#define LOAD(i)                                                                                    \
    vf v##i = vf_load(x[i] + c);                                                                   \
    check = vf_taint(check, v##i);                                                                 \
    __builtin_prefetch(x[i] + c + AHEAD);
#define KEEP(i) vf_store(sorted + i * W, v##i);
#define COMPARE(i, j)                                                                              \
    {                                                                                              \
        vf low = vf_min(v##i, v##j);                                                               \
        v##j = vf_max(v##i, v##j);                                                                 \
        v##i = low;                                                                                \
    }
#define SORT_COLUMNS(N)                                                                            \
    EACH_##N(LOAD) SORT_##N(COMPARE)

/* Sort columns c..c+W-1 of N rows into sorted[N][W]. */
#define DEFINE_SORT(N)                                                                             \
    INLINE vf sort_##N(const float *const *x, size_t c, float *sorted, vf check)                   \
    {                                                                                              \
        SORT_COLUMNS(N) EACH_##N(KEEP) return check;                                               \
    }                                                                                              \
    static vf sort_##N##_apart(const float *const *x, size_t c, float *sorted, vf check)           \
    {                                                                                              \
        return sort_##N(x, c, sorted, check);                                                      \
    }

#define MIDDLE_ODD(k) middle = vd_widen(vf_add(v##k, vf_set(0.0f)));
#define MIDDLE_EVEN(j, k)                                                                          \
    middle = vd_widen(vf_add(v##j, vf_set(0.0f)));                                                 \
    middle = vd_mul(vd_add(middle, vd_widen(v##k)), vd_set(0.5));

#define DEFINE_MEDIAN(N, MIDDLE)                                                                   \
    static vf median_##N(const float *const *x, size_t count, enum element_type type, char *out,   \
                         vf check)                                                                 \
    {                                                                                              \
        for (size_t c = 0; c < count; c += W) {                                                    \
            vd middle;                                                                             \
            SORT_COLUMNS(N) MIDDLE store_result(type, out, c, middle);                             \
        }                                                                                          \
        return check;                                                                              \
    }

/* Rank rules on sorted[rows][W]. */
INLINE vd trimmed_mean(const float *sorted, int first, int last)
{
    vd sum = vd_set(0.0);
    for (int i = first; i < last; i++)
        sum = vd_plus(sum, vd_load(sorted + i * W));
    return vd_over_count(sum, last - first);
}

INLINE vd middle_of(const float *sorted, int rows)
{
    vd low = vd_add(vd_load(sorted + (rows - 1) / 2 * W), vd_set(0.0));
    if (rows % 2)
        return low;
    return vd_mul(vd_add(low, vd_load(sorted + rows / 2 * W)), vd_set(0.5));
}

/* The window of `keep` sorted values nearest the median begins after every value that is further
 * from it than the value `keep` places above; that condition, once false, stays false. */
INLINE vd mean_around(const float *sorted, int rows, int keep)
{
    vd middle = middle_of(sorted, rows), sum = vd_set(0.0);
    vc dropped[ROWS_MOST];
    for (int i = 0; i < rows - keep; i++)
        dropped[i] = vc_greater(vd_sub(middle, vd_load(sorted + i * W)),
                                vd_sub(vd_load(sorted + (i + keep) * W), middle));
    for (int i = 0; i < rows; i++) {
        vd value = vd_load(sorted + i * W);
        if (i < rows - keep)
            value = vd_unless(dropped[i], value);
        if (i >= keep)
            value = vd_where(dropped[i - keep], value);
        sum = vd_plus(sum, value);
    }
    return vd_over_count(sum, keep);
}

INLINE vd rank_rule(const struct columns_task *task, const float *sorted)
{
    if (task->rule == TRIMMED_MEAN)
        return trimmed_mean(sorted, task->trim, task->rows - task->trim);
    if (task->rule == MEAN_AROUND_MEDIAN)
        return mean_around(sorted, task->rows, task->keep);
    return middle_of(sorted, task->rows);
}

#define DEFINE_RANKS(N)                                                                            \
    static vf ranks_##N(const struct columns_task *task, const float *const *x, size_t count,      \
                        char *out, vf check)                                                       \
    {                                                                                              \
        float sorted[N * W] __attribute__((aligned(64)));                                          \
        for (size_t c = 0; c < count; c += W) {                                                    \
            check = sort_##N(x, c, sorted, check);                                                 \
            store_result(task->out_type, out, c, rank_rule(task, sorted));                         \
        }                                                                                          \
        return check;                                                                              \
    }

/* Trimmed mean where at least INNER(N) values go at each end: the comparators that only those need
 * go too, as the compiler finds that nothing reads what they make. */
#define INNER(N) ((N) * 5 / 16)
#define KEEP_INNER(i)                                                                              \
    if (i >= inner && i < rows - inner)                                                            \
        vf_store(sorted + i * W, v##i);
#define DEFINE_TRIMMED(N)                                                                          \
    static vf trimmed_##N(const struct columns_task *task, const float *const *x, size_t count,    \
                          char *out, vf check)                                                     \
    {                                                                                              \
        enum { rows = N, inner = INNER(N) };                                                       \
        float sorted[N * W] __attribute__((aligned(64)));                                          \
        for (size_t c = 0; c < count; c += W) {                                                    \
            SORT_COLUMNS(N) EACH_##N(KEEP_INNER) vd mean =                                         \
                trimmed_mean(sorted, task->trim, rows - task->trim);                               \
            store_result(task->out_type, out, c, mean);                                            \
        }                                                                                          \
        return check;                                                                              \
    }

#define DEFINE(N, MIDDLE)                                                                          \
    DEFINE_SORT(N) DEFINE_MEDIAN(N, MIDDLE) DEFINE_RANKS(N) DEFINE_TRIMMED(N)
DEFINE(1, MIDDLE_ODD(0))
DEFINE(2, MIDDLE_EVEN(0, 1))
DEFINE(3, MIDDLE_ODD(1))
DEFINE(4, MIDDLE_EVEN(1, 2))
DEFINE(5, MIDDLE_ODD(2))
DEFINE(6, MIDDLE_EVEN(2, 3))
DEFINE(7, MIDDLE_ODD(3))
DEFINE(8, MIDDLE_EVEN(3, 4))
DEFINE(9, MIDDLE_ODD(4))
DEFINE(10, MIDDLE_EVEN(4, 5))
DEFINE(11, MIDDLE_ODD(5))
DEFINE(12, MIDDLE_EVEN(5, 6))
DEFINE(13, MIDDLE_ODD(6))
DEFINE(14, MIDDLE_EVEN(6, 7))
DEFINE(15, MIDDLE_ODD(7))
DEFINE(16, MIDDLE_EVEN(7, 8))

#define TABLE(NAME)                                                                                \
    {NULL,      NAME(1),  NAME(2),  NAME(3),  NAME(4),  NAME(5),  NAME(6),  NAME(7), NAME(8),      \
     NAME(9),   NAME(10), NAME(11), NAME(12), NAME(13), NAME(14), NAME(15), NAME(16)}
#define SORT_NAME(N) sort_##N##_apart
#define MEDIAN_NAME(N) median_##N
#define RANKS_NAME(N) ranks_##N
#define TRIMMED_NAME(N) trimmed_##N
typedef vf (*sort_function)(const float *const *, size_t, float *, vf);
typedef vf (*median_function)(const float *const *, size_t, enum element_type, char *, vf);
typedef vf (*ranks_function)(const struct columns_task *, const float *const *, size_t, char *, vf);
static const sort_function SORTS[] = TABLE(SORT_NAME);
static const median_function MEDIANS[] = TABLE(MEDIAN_NAME);
static const ranks_function RANKS[] = TABLE(RANKS_NAME);
static const ranks_function TRIMMED[] = TABLE(TRIMMED_NAME);

#define TAKE(i) vf v##i = vf_load(sorted + i * W);
static void merge_32(float *sorted) { EACH_32(TAKE) MERGE_32(COMPARE) EACH_32(KEEP) }
static void merge_64(float *sorted) { EACH_64(TAKE) MERGE_64(COMPARE) EACH_64(KEEP) }

/* The k-th smallest (from 1) of two sorted runs: the least, over all ways to take k values from their
 * beginnings, of the greatest value taken. */
INLINE vf kth_of_two(const float *a, int a_rows, const float *b, int b_rows, int k)
{
    vf best = vf_set(__builtin_inff());
    int from = k > b_rows ? k - b_rows : 0, to = k < a_rows ? k : a_rows;
    for (int i = from; i <= to; i++) {
        vf most;
        if (i == 0)
            most = vf_load(b + (k - 1) * W);
        else if (i == k)
            most = vf_load(a + (k - 1) * W);
        else
            most = vf_max(vf_load(a + (i - 1) * W), vf_load(b + (k - i - 1) * W));
        best = vf_min(best, most);
    }
    return best;
}

/* 17..64 rows: two or four groups in runs of 16 places, the free ones +inf; two sorted runs of 16
 * or 32 places are left, of which the median needs no merge. */
static vf ordered_many(const struct columns_task *task, const float *const *x, size_t count,
                       char *out, vf check)
{
    float sorted[ROWS_MOST * W] __attribute__((aligned(64)));
    int rows = task->rows, groups = rows > 32 ? 4 : 2, first[5];
    int half = groups * 8;
    for (int g = 0; g <= groups; g++)
        first[g] = rows * g / groups;
    int low_rows = first[groups / 2], high_rows = rows - low_rows;
    const float *low = sorted, *high = sorted + half * W;
    for (size_t c = 0; c < count; c += W) {
        for (int g = 0; g < groups; g++) {
            for (int i = first[g + 1] - first[g]; i < 16; i++)
                vf_store(sorted + (16 * g + i) * W, vf_set(__builtin_inff()));
            check = SORTS[first[g + 1] - first[g]](x + first[g], c, sorted + 16 * g * W, check);
        }
        if (groups == 4) {
            merge_32(sorted);
            merge_32(sorted + 32 * W);
        }
        if (task->rule == MEDIAN) {
            vd middle = vd_widen(kth_of_two(low, low_rows, high, high_rows, (rows + 1) / 2));
            middle = vd_add(middle, vd_set(0.0));
            if (rows % 2 == 0) {
                vf upper = kth_of_two(low, low_rows, high, high_rows, rows / 2 + 1);
                middle = vd_mul(vd_add(middle, vd_widen(upper)), vd_set(0.5));
            }
            store_result(task->out_type, out, c, middle);
            continue;
        }
        if (groups == 4)
            merge_64(sorted);
        else
            merge_32(sorted);
        store_result(task->out_type, out, c, rank_rule(task, sorted));
    }
    return check;
}

static void ordered_rule(const struct columns_task *task, const float *const *x, size_t count,
                         char *out, vf *check)
{
    if (task->rows > 16)
        *check = ordered_many(task, x, count, out, *check);
    else if (task->rule == MEDIAN)
        *check = MEDIANS[task->rows](x, count, task->out_type, out, *check);
    else if (task->rule == TRIMMED_MEAN && task->trim >= INNER(task->rows))
        *check = TRIMMED[task->rows](task, x, count, out, *check);
    else
        *check = RANKS[task->rows](task, x, count, out, *check);
}
