/* Whole calls of the softmax family: the path's table, spans of work, scratch memory.
 *
 * Here: what is the same on every path. Never here: arithmetic.
 */
#include "softmax.h"

#include <math.h>
#include <stdlib.h>

#include "parallel.h"

extern const softmax_kernels softmax_baseline;
#if defined(__x86_64__)
extern const softmax_kernels softmax_avx2, softmax_avx512;
#elif defined(__aarch64__)
extern const softmax_kernels softmax_neon;
#endif

/* As dispatch.PATHS. */
enum { PATH_BASELINE_INDEX, PATH_AVX2_INDEX, PATH_AVX512_INDEX, PATH_NEON_INDEX };

static const softmax_kernels *table_of(int path) {
    switch (path) {
#if defined(__x86_64__)
    case PATH_AVX2_INDEX:
        return &softmax_avx2;
    case PATH_AVX512_INDEX:
        return &softmax_avx512;
#elif defined(__aarch64__)
    case PATH_NEON_INDEX:
        return &softmax_neon;
#endif
    default:
        return &softmax_baseline;
    }
}

/* A call cut into spans of `unit` items each; the callee works on [first, last). */
typedef struct span_call {
    int64_t (*work)(const struct span_call *call, int64_t first, int64_t last);
    const softmax_kernels *table;
    int64_t items, unit;
    int64_t result;
    const float *in[3];
    const int64_t *indptr;
    float *out;
    int64_t *indices;
    const attention_shape *shape;
    int64_t experts, k, scratch_floats;
    int flag; /* renormalise; or decode */
} span_call;

static void run_span(void *context, size_t index) {
    span_call *call = context;
    int64_t first = (int64_t)index * call->unit;
    int64_t last = first + call->unit < call->items ? first + call->unit : call->items;
    int64_t result = call->work(call, first, last);
    if (result != 0) {
        __atomic_store_n(&call->result, result, __ATOMIC_RELAXED);
    }
}

/* One span on one thread; a few for each of several, so that a slow core does not hold up all. */
static int64_t run_spans(span_call *call, int threads, int64_t multiple) {
    int64_t pieces = threads > 1 ? 4 * (int64_t)threads : 1;
    int64_t unit = (call->items + pieces - 1) / pieces;
    call->unit = (unit + multiple - 1) / multiple * multiple;
    if (call->items > 0) {
        int64_t count = (call->items + call->unit - 1) / call->unit;
        parallel_spans(run_span, call, (size_t)count, threads);
    }
    return call->result;
}

static int64_t sparse_span(const span_call *call, int64_t first, int64_t last) {
    return call->table->sparse_softmax(call->in[0], call->indptr, first, last, call->out);
}

int64_t run_sparse_softmax(int path, int threads, const float *data, const int64_t *indptr,
                           int64_t rows, float *out) {
    span_call call = {.work = sparse_span, .table = table_of(path), .items = rows,
                      .in = {data}, .indptr = indptr, .out = out};
    return run_spans(&call, threads, 1);
}

static int64_t moe_span(const span_call *call, int64_t first, int64_t last) {
    float *scratch = aligned_alloc(64, (size_t)call->scratch_floats * sizeof(float));
    if (scratch == NULL) {
        return OUT_OF_MEMORY;
    }
    int64_t result = call->table->moe_topk(call->in[0], first, last, call->experts, call->k,
                                           call->flag, call->out, call->indices, scratch);
    free(scratch);
    return result;
}

int64_t run_moe_topk(int path, int threads, const float *logits, int64_t rows, int64_t experts,
                     int64_t k, int renormalise, float *weights, int64_t *indices) {
    span_call call = {.work = moe_span, .table = table_of(path), .items = rows, .in = {logits},
                      .out = weights, .indices = indices, .experts = experts, .k = k,
                      .scratch_floats = 16 * (experts + 2 * k), .flag = renormalise};
    return run_spans(&call, threads, 16);
}

static int64_t attention_span(const span_call *call, int64_t first, int64_t last) {
    float *scratch = aligned_alloc(64, (size_t)call->scratch_floats * sizeof(float));
    if (scratch == NULL) {
        return OUT_OF_MEMORY;
    }
    int64_t result = (call->flag ? call->table->decode : call->table->prefill)(
        call->in[0], call->in[1], call->in[2], call->out, call->shape, first, last, scratch);
    free(scratch);
    return result;
}

static int64_t padded(int64_t size, int64_t unit) { return (size + unit - 1) / unit * unit; }

static float scale_rounded(const double *given, int64_t features) {
    return (float)(given == NULL ? 1.0 / sqrt((double)features) : *given);
}

float attention_scale(const double *given, int64_t features) {
    /* volatile: the compiler must not move the division over the change of the control word. */
    float (*volatile rounded)(const double *, int64_t) = scale_rounded;
    fp_control saved = fp_enter();
    float scale = rounded(given, features);
    fp_leave(saved);
    return scale;
}

int64_t run_attention(int path, int threads, int decode, const float *q, const float *k,
                      const float *v, float *out, const attention_shape *shape, int64_t batches) {
    if (batches * shape->query_heads == 0) {
        return 0; /* nothing to do, and no number of query heads to keep together */
    }
    int64_t keys = padded(shape->keys, 64), features = padded(shape->features, 64);
    int64_t rows = decode ? keys + 2 * features : PREFILL_ROWS * (keys + features);
    int64_t laid_out = 0, floats, bytes;
    /* An array of stride zero may have more keys than memory has bytes. */
    if ((!decode && __builtin_mul_overflow(2 * keys, features, &laid_out)) ||
        __builtin_add_overflow(laid_out, rows, &floats) ||
        __builtin_mul_overflow(floats, (int64_t)sizeof(float), &bytes)) {
        return OUT_OF_MEMORY;
    }
    span_call call = {.work = attention_span, .table = table_of(path),
                      .items = batches * shape->query_heads, .in = {q, k, v}, .out = out,
                      .shape = shape, .scratch_floats = floats, .flag = decode};
    /* Query heads that share keys stay together: the prefill lays the keys out once for them. */
    return run_spans(&call, threads, decode ? 1 : shape->query_heads / shape->key_heads);
}

void run_small_matmul(int path, const float *a, const float *b, float *out, int64_t m, int64_t k,
                      int64_t n) {
    fp_control saved = fp_enter();
    table_of(path)->small_matmul(a, b, out, m, k, n);
    fp_leave(saved);
}

void run_exponentials(int path, const float *t, float *out, int64_t size) {
    fp_control saved = fp_enter();
    table_of(path)->exponentials(t, out, size);
    fp_leave(saved);
}
