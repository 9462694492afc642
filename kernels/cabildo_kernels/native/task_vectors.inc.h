/* The loops over task vectors, compiled once for each instruction set.

   Included by task_vectors_<path>.c after TV_PATH is defined. Written for the compiler's vectoriser:
   tiles of one block, no branch inside, the same operations in the same order on every path. */
#if defined(__GNUC__) && !defined(__clang__)
/* Comparisons may be vectorised: our control word masks all exceptions. Changes no result. */
#pragma GCC optimize("no-trapping-math")
#endif

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "task_vectors.h"

#define TV_PASTE(name, path) name##_##path
#define TV_NAME(name, path) TV_PASTE(name, path)
#define TV_FN(name) TV_NAME(name, TV_PATH)

enum { TILE = 64, MANY = 256, MOST_ROWS = 64, INFINITE_BITS = 0x7f800000 };

static inline void load_floats(const void *source, int kind, int64_t first, int count, float *out)
{
    if (kind == TV_BF16) {
        uint16_t bits[MANY]; /* copied: an array of the caller may lie at any address */
        uint32_t wide[MANY];
        memcpy(bits, (const char *)source + 2 * first, (size_t)count * sizeof(uint16_t));
        for (int c = 0; c < count; c++) wide[c] = (uint32_t)bits[c] << 16;
        memcpy(out, wide, (size_t)count * sizeof(float));
    } else {
        memcpy(out, (const char *)source + 4 * first, (size_t)count * sizeof(float));
    }
}

/* fl32(x - base), or x itself. */
static inline void load_difference(const tv_pair *pair, int64_t first, int count, float *out)
{
    float base[MANY];
    load_floats(pair->row, pair->kind, first, count, out);
    if (!pair->base) return;
    load_floats(pair->base, pair->base_kind, first, count, base);
    for (int c = 0; c < count; c++) out[c] = out[c] - base[c];
}

static inline void load_magnitudes(const tv_pair *pair, int64_t first, int count, uint32_t *out)
{
    float difference[MANY];
    load_difference(pair, first, count, difference);
    memcpy(out, difference, (size_t)count * sizeof(float));
    for (int c = 0; c < count; c++) out[c] &= 0x7fffffffu;
}

static void histogram_high(const tv_pair *pair, int64_t begin, int64_t end, uint32_t *tables)
{
    uint32_t bits[MANY];
    for (int64_t at = begin; at < end; at += MANY) {
        int count = end - at < MANY ? (int)(end - at) : MANY;
        load_magnitudes(pair, at, count, bits);
        int c = 0;
        /* Two tables: equal neighbours do not wait for each other's store. */
        for (; c + 1 < count; c += 2) {
            tables[bits[c] >> TV_LOW_BITS]++;
            tables[TV_HIGH_BINS + (bits[c + 1] >> TV_LOW_BITS)]++;
        }
        if (c < count) tables[bits[c] >> TV_LOW_BITS]++;
    }
}

static void histogram_low(const tv_pair *pair, int64_t begin, int64_t end, uint32_t prefix,
                          uint32_t *tables)
{
    uint32_t bits[MANY];
    for (int64_t at = begin; at < end; at += MANY) {
        int count = end - at < MANY ? (int)(end - at) : MANY;
        load_magnitudes(pair, at, count, bits);
        /* Compacted without a branch: which entries match cannot be predicted. */
        int matches = 0;
        for (int c = 0; c < count; c++) {
            uint32_t entry = bits[c];
            bits[matches] = entry;
            matches += (entry >> TV_LOW_BITS) == prefix;
        }
        for (int m = 0; m < matches; m++) tables[bits[m] & (TV_LOW_BINS - 1)]++;
    }
}

/* Adds to `counts` how many magnitudes have each value of their leading 16 bits (prefix < 0), or,
   among those with that prefix, of their 15 low bits. Returns -1, with `counts` as they were, where
   there is no memory. */
int TV_FN(tv_histogram)(const tv_pair *pair, int64_t begin, int64_t end, int64_t prefix,
                         uint64_t *counts)
{
    enum { SPAN = 1 << 30 }; /* 32-bit counters do not overflow within one */
    uint32_t *tables = malloc(2 * TV_HIGH_BINS * sizeof(uint32_t));
    if (!tables) return -1;
    for (int64_t at = begin; at < end; at += SPAN) {
        int64_t stop = end - at < SPAN ? end : at + SPAN;
        memset(tables, 0, 2 * TV_HIGH_BINS * sizeof(uint32_t));
        if (prefix < 0) {
            histogram_high(pair, at, stop, tables);
            for (int bin = 0; bin < TV_HIGH_BINS; bin++)
                counts[bin] += (uint64_t)tables[bin] + tables[TV_HIGH_BINS + bin];
        } else {
            histogram_low(pair, at, stop, (uint32_t)prefix, tables);
            for (int bin = 0; bin < TV_LOW_BINS; bin++) counts[bin] += tables[bin];
        }
    }
    free(tables);
    return 0;
}

/* The index of the nth (from 0) magnitude equal to `bits`, or -1; `seen` counts those before. */
int64_t TV_FN(tv_find)(const tv_pair *pair, int64_t begin, int64_t end, uint32_t bits, int64_t nth,
                       int64_t *seen)
{
    uint32_t magnitudes[MANY];
    int64_t found = 0;
    for (int64_t at = begin; at < end; at += MANY) {
        int count = end - at < MANY ? (int)(end - at) : MANY;
        uint32_t equal = 0;
        load_magnitudes(pair, at, count, magnitudes);
        for (int c = 0; c < count; c++) equal += magnitudes[c] == bits;
        if (found + (int64_t)equal <= nth) {
            found += equal;
            continue;
        }
        for (int c = 0; c < count; c++)
            if (magnitudes[c] == bits && found++ == nth) {
                *seen = nth;
                return at + c;
            }
    }
    *seen = found;
    return -1;
}

/* How many of a tile's entries, whose first has index `first`, lie below `stop`. */
static inline int32_t below(int64_t stop, int64_t first)
{
    int64_t rest = stop - first;
    return rest < 0 ? 0 : rest > TILE ? TILE : (int32_t)rest;
}

/* One row's tile: the kept differences as fp64 (0 where dropped); returns its non-finite bits. */
static inline uint32_t load_kept(const tv_combination *job, int row, int64_t at, int count,
                                 const float *base, double *out)
{
    float difference[TILE];
    uint32_t bits[TILE];
    uint32_t keep_bits = job->keep_bits[row], drop_bits = job->drop_bits[row], bad = 0;
    int32_t keep_stop = below(job->keep_stop[row], job->start + at);
    int32_t drop_stop = below(job->drop_stop[row], job->start + at);
    load_floats(job->rows[row], job->kinds[row], at, count, difference);
    for (int c = 0; c < count; c++) difference[c] = difference[c] - base[c];
    memcpy(bits, difference, sizeof bits);
    for (int c = 0; c < count; c++) {
        uint32_t size = bits[c] & 0x7fffffffu;
        uint32_t keep = (size > keep_bits) | ((size == keep_bits) & (c < keep_stop));
        uint32_t drop = (size > drop_bits) | ((size == drop_bits) & (c < drop_stop));
        bad |= (uint32_t)(size >= INFINITE_BITS);
        bits[c] &= 0u - (keep & ~drop & 1u);
    }
    memcpy(difference, bits, sizeof difference);
    for (int c = 0; c < count; c++) out[c] = (double)difference[c];
    if (job->factors && job->factors[row]) {
        const double *factor = job->factors[row] + at;
        for (int c = 0; c < count; c++) out[c] = out[c] * factor[c];
    }
    return bad;
}

static inline void elect(const tv_combination *job, double (*kept)[TILE], double *vote)
{
    for (int c = 0; c < TILE; c++) vote[c] = 0.0;
    for (int row = 0; row < job->n; row++) {
        double weight = job->votes[row];
        if (job->elect == TV_ELECT_SUM)
            for (int c = 0; c < TILE; c++) vote[c] = vote[c] + weight * kept[row][c];
        else
            for (int c = 0; c < TILE; c++) {
                double value = weight * kept[row][c];
                vote[c] = vote[c] + ((value > 0.0 ? 1.0 : 0.0) - (value < 0.0 ? 1.0 : 0.0));
            }
    }
    for (int c = 0; c < TILE; c++) vote[c] = vote[c] >= 0.0 ? 1.0 : -1.0;
}

/* The sum of the weighted differences that agree with the vote, divided where asked for. */
static inline void merge_elected(const tv_combination *job, double (*kept)[TILE], double *merged)
{
    double vote[TILE], weights[TILE];
    elect(job, kept, vote);
    for (int c = 0; c < TILE; c++) merged[c] = weights[c] = 0.0;
    for (int row = 0; row < job->n; row++) {
        double weight = job->weights[row], voter = job->votes[row];
        for (int c = 0; c < TILE; c++) {
            double agrees = (voter * kept[row][c]) * vote[c] > 0.0 ? 1.0 : 0.0;
            merged[c] = merged[c] + agrees * (weight * kept[row][c]);
            weights[c] = weights[c] + agrees * weight;
        }
    }
    if (job->normalise)
        for (int c = 0; c < TILE; c++) merged[c] = weights[c] == 0.0 ? 0.0 : merged[c] / weights[c];
}

static inline void merge_all(const tv_combination *job, double (*kept)[TILE], double *merged)
{
    double total = 0.0;
    for (int c = 0; c < TILE; c++) merged[c] = 0.0;
    for (int row = 0; row < job->n; row++) {
        double weight = job->weights[row];
        total = total + weight;
        for (int c = 0; c < TILE; c++) merged[c] = merged[c] + weight * kept[row][c];
    }
    if (job->normalise)
        for (int c = 0; c < TILE; c++) merged[c] = total == 0.0 ? 0.0 : merged[c] / total;
}

/* To bfloat16 with one rounding: the rounding to float32 before it is undone on exact halves. */
static inline uint16_t bf16_of(double value)
{
    float narrow = (float)value;
    uint32_t bits;
    memcpy(&bits, &narrow, sizeof bits);
    uint32_t half = (bits & 0xffffu) == 0x8000u, odd = (bits >> 16) & 1u;
    double size = fabs(value), narrowed = fabs((double)narrow);
    uint32_t above = size > narrowed, under = size < narrowed;
    uint32_t up = half ? (above | (odd & ~under & 1u)) : ((bits >> 15) & 1u);
    return (uint16_t)((bits >> 16) + up);
}

static inline void store(const tv_combination *job, int64_t at, int count, const double *values)
{
    if (job->out_kind == TV_F64) {
        memcpy((double *)job->out + at, values, (size_t)count * sizeof(double));
    } else if (job->out_kind == TV_F32) {
        float *out = (float *)job->out + at;
        for (int c = 0; c < count; c++) out[c] = (float)values[c];
    } else {
        uint16_t *out = (uint16_t *)job->out + at;
        for (int c = 0; c < count; c++) out[c] = bf16_of(values[c]);
    }
}

/* Combines entries [begin, end); returns the rows with NaN, Inf or an overflowing difference. */
uint64_t TV_FN(tv_combine)(const tv_combination *job, int64_t begin, int64_t end, int *bad_base)
{
    double kept[MOST_ROWS][TILE], merged[TILE];
    float base[TILE];
    uint64_t bad_rows = 0;
    for (int row = 0; row < job->n; row++)
        for (int c = 0; c < TILE; c++) kept[row][c] = 0.0;
    for (int64_t at = begin; at < end; at += TILE) {
        int count = end - at < TILE ? (int)(end - at) : TILE;
        uint32_t bits[TILE], bad = 0;
        load_floats(job->base, job->base_kind, at, count, base);
        memcpy(bits, base, sizeof bits);
        for (int c = 0; c < count; c++) bad |= (bits[c] & 0x7fffffffu) >= INFINITE_BITS;
        if (bad) {
            *bad_base = 1;
            return bad_rows;
        }
        for (int row = 0; row < job->n; row++)
            if (load_kept(job, row, at, count, base, kept[row])) bad_rows |= 1ull << row;
        if (job->elect == TV_ELECT_NONE)
            merge_all(job, kept, merged);
        else
            merge_elected(job, kept, merged);
        if (job->columns)
            for (int c = 0; c < count; c++) merged[c] = job->columns[at + c] ? merged[c] : 0.0;
        for (int c = 0; c < count; c++) /* + 0.0: -0.0 of the base becomes +0.0 */
            merged[c] = ((double)base[c] + 0.0) + job->scale * merged[c];
        store(job, at, count, merged);
    }
    return bad_rows;
}
