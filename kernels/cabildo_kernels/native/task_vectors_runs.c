/* Task vectors: the path's function, threads over spans of columns, the control word. */
#include "task_vectors.h"

#include "parallel.h"

enum { SPAN_COLUMNS = 24576 };

typedef int (*histogram_function)(const tv_pair *, int64_t, int64_t, int64_t, uint64_t *);
typedef int64_t (*find_function)(const tv_pair *, int64_t, int64_t, uint32_t, int64_t, int64_t *);
typedef uint64_t (*combine_function)(const tv_combination *, int64_t, int64_t, int *);

/* In the order of dispatch.PATHS; an absent path is never asked for, and answers as baseline. */
#if defined(__x86_64__)
#define TV_TABLE(name) {name##_baseline, name##_avx2, name##_avx512, name##_baseline}
#elif defined(__aarch64__) && defined(__ARM_NEON)
#define TV_TABLE(name) {name##_baseline, name##_baseline, name##_baseline, name##_neon}
#else
#define TV_TABLE(name) {name##_baseline, name##_baseline, name##_baseline, name##_baseline}
#endif

static const histogram_function histograms[] = TV_TABLE(tv_histogram);
static const find_function finds[] = TV_TABLE(tv_find);
static const combine_function combines[] = TV_TABLE(tv_combine);

int tv_histogram(int path, const tv_pair *pair, int64_t size, int64_t prefix, uint64_t *counts)
{
    fp_control saved = fp_enter();
    int failed = histograms[path](pair, 0, size, prefix, counts);
    fp_leave(saved);
    return failed;
}

int64_t tv_find(int path, const tv_pair *pair, int64_t size, uint32_t bits, int64_t nth,
                int64_t *seen)
{
    fp_control saved = fp_enter();
    int64_t index = finds[path](pair, 0, size, bits, nth, seen);
    fp_leave(saved);
    return index;
}

struct combine_call {
    combine_function run;
    const tv_combination *job;
    int64_t size;
    uint64_t bad_rows;
    int bad_base;
};

static void combine_span(void *context, size_t index)
{
    struct combine_call *call = context;
    int64_t begin = (int64_t)index * SPAN_COLUMNS;
    int64_t end = call->size - begin < SPAN_COLUMNS ? call->size : begin + SPAN_COLUMNS;
    int bad_base = 0;
    uint64_t bad_rows = call->run(call->job, begin, end, &bad_base);
    __atomic_fetch_or(&call->bad_rows, bad_rows, __ATOMIC_RELAXED);
    __atomic_fetch_or(&call->bad_base, bad_base, __ATOMIC_RELAXED);
}

void tv_combine(int path, const tv_combination *job, int64_t size, int threads, uint64_t *bad_rows,
                int *bad_base)
{
    struct combine_call call = {combines[path], job, size, 0, 0};
    parallel_spans(combine_span, &call, (size_t)((size + SPAN_COLUMNS - 1) / SPAN_COLUMNS),
                   threads);
    *bad_rows = call.bad_rows;
    *bad_base = call.bad_base;
}
