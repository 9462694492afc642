/* The softmax family's kernels: one table of functions for each instruction set.
 *
 * Here: what every path offers, with its contract. Never here: Python, checks of shapes (the
 * callers have done them), threads (a call works on the range it is given).
 * The functions return the number of the first bad row plus one, or 0.
 */
#ifndef CABILDO_SOFTMAX_H
#define CABILDO_SOFTMAX_H

#include <stdint.h>

/* Element strides of one [batch, heads, sequence, features] array whose last axis is contiguous. */
typedef struct {
    int64_t batch, head, row;
} attention_strides;

typedef struct {
    int64_t query_heads, key_heads, queries, keys, features;
    float scale;
    int causal;
    attention_strides q, k, v, out;
} attention_shape;

typedef struct {
    /* Softmax of the CSR rows [first, last). -inf is a masked entry and gives 0; a row of nothing
     * else gives zeros. NaN or +inf is a bad row. */
    int64_t (*sparse_softmax)(const float *data, const int64_t *indptr, int64_t first,
                              int64_t last, float *out);

    /* The k largest of each row and their softmax weights, for rows [first, last) of a C-order
     * [rows, experts] array. Bad: NaN, +inf, or fewer than k entries above -inf. scratch holds
     * 16 * (experts + 2 k) floats. */
    int64_t (*moe_topk)(const float *logits, int64_t first, int64_t last, int64_t experts,
                        int64_t k, int renormalise, float *weights, int64_t *indices,
                        float *scratch);

    /* One query against keys and values, for (batch, query head) pairs [first, last). Bad: a
     * result that is not finite. scratch holds the keys, rounded up to 64, and the features,
     * rounded up to 16, as floats. */
    int64_t (*decode)(const float *q, const float *k, const float *v, float *out,
                      const attention_shape *shape, int64_t first, int64_t last, float *scratch);

    /* Queries of a prompt against its keys and values, for (batch, query head) pairs. scratch:
     * what softmax_runs.c computes. */
    int64_t (*prefill)(const float *q, const float *k, const float *v, float *out,
                       const attention_shape *shape, int64_t first, int64_t last, float *scratch);

    /* out[m, n] = a[m, k] b[k, n], C order, n <= 16, each sum in the order of k from +0. */
    void (*small_matmul)(const float *a, const float *b, float *out, int64_t m, int64_t k,
                         int64_t n);

    /* out = exp(t), t <= 0: for the test of its error. */
    void (*exponentials)(const float *t, float *out, int64_t size);
} softmax_kernels;

#define PREFILL_ROWS 24 /* queries at a time */
#define PREFILL_KEYS 32 /* keys, and features, in a panel: two registers of 16 lanes */

/* Whole calls, on `threads` threads, each with the default floating-point control word. `path` is
 * the dispatcher's index of the instruction set. They return the number of a bad row plus one (any
 * of them), 0, or OUT_OF_MEMORY. */
enum { OUT_OF_MEMORY = -1 };

int64_t run_sparse_softmax(int path, int threads, const float *data, const int64_t *indptr,
                           int64_t rows, float *out);
int64_t run_moe_topk(int path, int threads, const float *logits, int64_t rows, int64_t experts,
                     int64_t k, int renormalise, float *weights, int64_t *indices);
/* What scores are multiplied with: `given` rounded to float, 1 / sqrt(features) where it is NULL;
 * computed here, because the caller's rounding mode must not reach it. */
float attention_scale(const double *given, int64_t features);
int64_t run_attention(int path, int threads, int decode, const float *q, const float *k,
                      const float *v, float *out, const attention_shape *shape, int64_t batches);
void run_small_matmul(int path, const float *a, const float *b, float *out, int64_t m, int64_t k,
                      int64_t n);
void run_exponentials(int path, const float *t, float *out, int64_t size);

#endif
