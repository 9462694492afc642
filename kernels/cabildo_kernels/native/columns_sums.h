/* Weighted sums of rows in double: multiply, then add, in the order of the rows; never fused.
 *
 * A sum starts from +0.0, so the sign of a zero among the rows cannot matter. A row that is not
 * finite makes every sum not finite, whatever its weight (0 times infinity is NaN).
 */

INLINE void finish_sum(const struct columns_task *task, vd sum, char *out, size_t column)
{
    if (task->divisor != 1.0)
        sum = vd_add(vd_div(sum, vd_set(task->divisor)), vd_set(0.0)); /* 0 / -3 is -0.0 */
    store_result(task->out_type, out, column, sum);
}

/* OUTPUTS sums of VECTORS * W columns at once. */
#define DEFINE_SUMS(OUTPUTS, VECTORS)                                                              \
    static vf sums_##OUTPUTS##_##VECTORS(const struct columns_task *task, const double *weights,   \
                                         const float *const *x, size_t from, size_t to, char *out, \
                                         size_t out_stride, vf check)                              \
    {                                                                                              \
        int rows = task->rows;                                                                     \
        for (size_t c = from; c < to; c += VECTORS * W) {                                          \
            vd sum[OUTPUTS][VECTORS];                                                              \
            for (int k = 0; k < OUTPUTS; k++)                                                      \
                for (int v = 0; v < VECTORS; v++)                                                  \
                    sum[k][v] = vd_set(0.0);                                                       \
            for (int i = 0; i < rows; i++)                                                         \
                for (int v = 0; v < VECTORS; v++) {                                                \
                    vd value = vd_load(x[i] + c + v * W);                                          \
                    __builtin_prefetch(x[i] + c + v * W + AHEAD);                                  \
                    for (int k = 0; k < OUTPUTS; k++)                                              \
                        sum[k][v] =                                                                \
                            vd_add(sum[k][v], vd_mul(vd_set(weights[k * rows + i]), value));       \
                }                                                                                  \
            for (int k = 0; k < OUTPUTS; k++)                                                      \
                for (int v = 0; v < VECTORS; v++) {                                                \
                    check = vf_taint(check, vd_narrow(vd_sub(sum[k][v], sum[k][v])));              \
                    finish_sum(task, sum[k][v], out + (size_t)k * out_stride,                      \
                               c + (size_t)v * W);                                                 \
                }                                                                                  \
        }                                                                                          \
        return check;                                                                              \
    }
DEFINE_SUMS(1, 1)
DEFINE_SUMS(1, 2)
DEFINE_SUMS(4, 1)
DEFINE_SUMS(4, 2)

/* Every output in turn, four at a time, over a tile of columns that stays in L1. */
static void weighted_sums(const struct columns_task *task, const float *const *x, size_t count,
                          char *out, size_t out_stride, vf *check)
{
    size_t tile = task->outputs == 1 ? count : 4096 / (size_t)task->rows / 32 * 32;
    for (size_t c = 0, to; c < count; c = to) {
        to = count - c < tile ? count : c + tile;
        size_t pairs = c + (to - c) / (2 * W) * (2 * W);
        for (int k = 0; k < task->outputs;) {
            const double *weights = task->weights + (size_t)k * (size_t)task->rows;
            char *sums = out + (size_t)k * out_stride;
            if (task->outputs - k >= 4) {
                *check = sums_4_2(task, weights, x, c, pairs, sums, out_stride, *check);
                *check = sums_4_1(task, weights, x, pairs, to, sums, out_stride, *check);
                k += 4;
            } else {
                *check = sums_1_2(task, weights, x, c, pairs, sums, out_stride, *check);
                *check = sums_1_1(task, weights, x, pairs, to, sums, out_stride, *check);
                k += 1;
            }
        }
    }
}
