/* The column rules of one path: include after the path's vector_*.h, then define COLUMNS_PATH.
 *
 * Here: cutting a span of columns into what the rules take (float32 rows, whole vectors), and the
 * choice of the rule. The rules are in columns_ordered.h and columns_sums.h. A vector holds W
 * neighbouring columns of one row; nothing is ever added across the lanes, so W cannot change a bit.
 */
#include "columns_ordered.h"
#include "columns_sums.h"

/* Scratch for rows that are not float32 and for the last columns: about half of L1. */
enum { SCRATCH_FLOATS = 4096, LINE = 64 };

static size_t element_size(enum element_type type) { return type == F32 ? 4 : 2; }

/* Copy `count` values of a row to float32 and append zeros up to `padded`. */
static void widen_row(const void *from, enum element_type type, size_t count, size_t padded,
                      float *to)
{
    size_t whole = count / W * W;
    uint16_t tail[W];
    if (type == F32) {
        memcpy(to, from, count * sizeof *to);
        memset(to + count, 0, (padded - count) * sizeof *to);
        return;
    }
    const uint16_t *half = from; /* only ever read through loads of any alignment */
    for (size_t c = 0; c < whole; c += W)
        vf_store(to + c, type == F16 ? vf_load_f16(half + c) : vf_load_bf16(half + c));
    if (whole < count) {
        memset(tail, 0, sizeof tail);
        memcpy(tail, (const char *)from + 2 * whole, 2 * (count - whole));
        vf_store(to + whole, type == F16 ? vf_load_f16(tail) : vf_load_bf16(tail));
        whole += W;
    }
    memset(to + whole, 0, (padded - whole) * sizeof *to);
}

/* One rule over `count` columns, a multiple of W. */
static void apply_rule(const struct columns_task *task, const float *const *x, size_t count,
                       char *out, size_t out_stride, vf *check)
{
    if (task->rule == WEIGHTED_SUM)
        weighted_sums(task, x, count, out, out_stride, check);
    else
        ordered_rule(task, x, count, out, check);
}

/* Columns begin..end-1 by way of scratch, a tile at a time. */
static void through_scratch(const struct columns_task *task, size_t begin, size_t end, vf *check)
{
    float scratch[SCRATCH_FLOATS + W] __attribute__((aligned(64)));
    char last[ROWS_MOST * W * sizeof(float)];
    const float *x[ROWS_MOST];
    size_t tile = SCRATCH_FLOATS / (size_t)task->rows / 16 * 16;
    size_t width = element_size(task->out_type), stride = task->columns * width;
    for (size_t at = begin; at < end; at += tile) {
        size_t count = end - at < tile ? end - at : tile;
        size_t whole = count / W * W;
        for (int i = 0; i < task->rows; i++) {
            const char *from = task->row[i];
            float *to = scratch + (size_t)i * tile;
            widen_row(from + at * element_size(task->type[i]), task->type[i], count,
                      (count + W - 1) / W * W, to);
            x[i] = to;
        }
        char *out = (char *)task->out + at * width;
        apply_rule(task, x, whole, out, stride, check);
        if (whole < count) {
            for (int i = 0; i < task->rows; i++)
                x[i] += whole;
            apply_rule(task, x, W, last, W * width, check);
            for (int k = 0; k < task->outputs; k++)
                memcpy(out + whole * width + (size_t)k * stride, last + (size_t)k * W * width,
                       (count - whole) * width);
        }
    }
}

/* Columns from begin to where the first row reaches a cache line: rows of one allocator begin alike,
 * and a load across two lines costs twice where so many rows compete for the same places in L1. */
static size_t columns_to_line(const struct columns_task *task, size_t begin, size_t end)
{
    uintptr_t from = (uintptr_t)task->row[0] + begin * sizeof(float);
    size_t columns = from % sizeof(float) ? 0 : (size_t)(-from % LINE) / sizeof(float);
    return columns < end - begin ? columns : end - begin;
}

static void run_columns(struct columns_task *task, size_t begin, size_t end)
{
    vf check = vf_set(0.0f);
    if (task->all_f32) {
        const float *x[ROWS_MOST];
        size_t width = element_size(task->out_type), first = columns_to_line(task, begin, end);
        through_scratch(task, begin, begin + first, &check);
        begin += first;
        first = (end - begin) / W * W;
        for (int i = 0; i < task->rows; i++)
            x[i] = (const float *)task->row[i] + begin;
        apply_rule(task, x, first, (char *)task->out + begin * width, task->columns * width,
                   &check);
        begin += first;
    }
    through_scratch(task, begin, end, &check);
    if (vf_tainted(check))
        __atomic_store_n(&task->suspect, 1, __ATOMIC_RELAXED);
}
