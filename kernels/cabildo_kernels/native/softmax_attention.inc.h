/* Template: attention of one query (decode) and of a short prompt (prefill).
 *
 * Here: the loops over lanes.h. Included by softmax.inc.h once for each instruction set.
 */

#define KEY_BLOCK 64

IN const float *head_of(const float *base, attention_strides s, int64_t batch, int64_t head) {
    return base + batch * s.batch + head * s.head;
}

/* Sixteen lanes of q . k, folded to four. */
IN quad dot_quad(const float *q, const float *k, int64_t features) {
    lanes sum = lanes_set(0.0f);
    int64_t i = 0;
    for (; i + LANES <= features; i += LANES) {
        sum = lanes_add(sum, lanes_mul(lanes_load(q + i), lanes_load(k + i)));
    }
    if (i < features) { /* q is padded with zeros */
        int rest = (int)(features - i);
        sum = lanes_add(sum, lanes_mul(lanes_load(q + i), lanes_load_part(k + i, rest, 0.0f)));
    }
    return lanes_fold(sum);
}

/* Four sums of four lanes each: (0 + 2) + (1 + 3). */
IN quad quad_sums(quad a, quad b, quad c, quad d) {
    quad ab = __builtin_shufflevector(a, b, 0, 1, 4, 5) + __builtin_shufflevector(a, b, 2, 3, 6, 7);
    quad cd = __builtin_shufflevector(c, d, 0, 1, 4, 5) + __builtin_shufflevector(c, d, 2, 3, 6, 7);
    return __builtin_shufflevector(ab, cd, 0, 2, 4, 6) + __builtin_shufflevector(ab, cd, 1, 3, 5, 7);
}

/* The hardware's prefetchers stop at each page: a cache that memory must serve is fetched
 * this many rows ahead (a third off the time of 8,192 keys). Fetching past the end is harmless. */
#define AHEAD_ROWS 32
#define AHEAD_FROM_BYTES (8 << 20)

IN void fetch_ahead(const float *row, int64_t stride, int64_t size) {
    uintptr_t address = (uintptr_t)row + (uintptr_t)(AHEAD_ROWS * stride) * sizeof *row;
    for (int64_t i = 0; i < size; i += LANES) {
        __builtin_prefetch((const void *)(address + (uintptr_t)i * sizeof *row));
    }
}

/* scores[s] = (q . k[s]) * scale */
IN void decode_scores(const float *q, const float *k, int64_t stride, int64_t keys,
                      int64_t features, float scale, float *scores, const int ahead) {
    int64_t s = 0;
    for (; s + 4 <= keys; s += 4) {
        const float *row = k + s * stride;
        for (int i = 0; ahead && i < 4; i++) {
            fetch_ahead(row + i * stride, stride, features);
        }
        quad dots = quad_sums(dot_quad(q, row, features), dot_quad(q, row + stride, features),
                              dot_quad(q, row + 2 * stride, features),
                              dot_quad(q, row + 3 * stride, features));
        quad_store(scores + s, dots * (quad){scale, scale, scale, scale});
    }
    for (; s < keys; s++) {
        scores[s] = quad_sum(dot_quad(q, k + s * stride, features)) * scale;
    }
}

/* total[0..16 width) += sum over one block of keys of p[s] v[s], in the order of s from +0. */
#define ADD_BLOCK(name, width)                                                                     \
    IN void name(const float *p, const float *v, int64_t stride, int64_t keys, float *total,      \
                 const int ahead) {                                                                \
        lanes sum[width];                                                                          \
        for (int w = 0; w < width; w++) {                                                          \
            sum[w] = lanes_set(0.0f);                                                              \
        }                                                                                          \
        for (int64_t s = 0; s < keys; s++) {                                                       \
            lanes weight = lanes_set(p[s]);                                                        \
            if (ahead) {                                                                           \
                fetch_ahead(v + s * stride, stride, width * LANES);                                \
            }                                                                                      \
            for (int w = 0; w < width; w++) {                                                      \
                lanes value = lanes_load(v + s * stride + w * LANES);                              \
                sum[w] = lanes_add(sum[w], lanes_mul(weight, value));                              \
            }                                                                                      \
        }                                                                                          \
        for (int w = 0; w < width; w++) {                                                          \
            lanes_store(total + w * LANES, lanes_add(lanes_load(total + w * LANES), sum[w]));      \
        }                                                                                          \
    }
ADD_BLOCK(add_block_4, 4)
ADD_BLOCK(add_block_1, 1)
#undef ADD_BLOCK

IN void add_block_part(const float *p, const float *v, int64_t stride, int64_t keys, int count,
                       float *total) {
    lanes sum = lanes_set(0.0f);
    for (int64_t s = 0; s < keys; s++) {
        lanes value = lanes_load_part(v + s * stride, count, 0.0f);
        sum = lanes_add(sum, lanes_mul(lanes_set(p[s]), value));
    }
    lanes_store(total, lanes_add(lanes_load(total), sum));
}

/* out = total / sum; false where a result is not finite. */
IN int divide_row(const float *total, float sum, int64_t features, float *out) {
    unsigned bad = 0;
    lanes divisor = lanes_set(sum), zero = lanes_set(0.0f);
    for (int64_t i = 0; i < features; i += LANES) {
        int rest = features - i < LANES ? (int)(features - i) : LANES;
        lanes result = lanes_div(lanes_load_part(total + i, rest, 0.0f), divisor);
        bad |= mask_bits(lanes_unordered(lanes_mul(result, zero)));
        if (rest == LANES) {
            lanes_store(out + i, result);
        } else {
            lanes_store_part(out + i, rest, result);
        }
    }
    return bad == 0;
}

/* total[0..features) = sum over the keys of p v, block after block. */
IN void decode_values(const float *p, const float *v, int64_t stride, int64_t keys,
                      int64_t features, float *total, const int ahead) {
    for (int64_t s = 0; s < keys; s += KEY_BLOCK) {
        int64_t size = keys - s < KEY_BLOCK ? keys - s : KEY_BLOCK, i = 0;
        const float *block = v + s * stride;
        for (; i + 4 * LANES <= features; i += 4 * LANES) {
            add_block_4(p + s, block + i, stride, size, total + i, ahead);
        }
        for (; i + LANES <= features; i += LANES) {
            add_block_1(p + s, block + i, stride, size, total + i, ahead);
        }
        if (i < features) {
            add_block_part(p + s, block + i, stride, size, (int)(features - i), total + i);
        }
    }
}

static int64_t NAME(decode)(const float *q, const float *k, const float *v, float *out,
                            const attention_shape *shape, int64_t first, int64_t last,
                            float *scratch) {
    int64_t keys = shape->keys, features = shape->features;
    int64_t padded = (features + LANES - 1) / LANES * LANES;
    float *query = scratch, *total = query + padded, *scores = total + padded;
    int64_t group = shape->query_heads / shape->key_heads;
    int ahead = (last - first) * keys * features * 8 > AHEAD_FROM_BYTES;
    for (int64_t pair = first; pair < last; pair++) {
        int64_t batch = pair / shape->query_heads, head = pair % shape->query_heads;
        const float *keys_of = head_of(k, shape->k, batch, head / group);
        const float *values = head_of(v, shape->v, batch, head / group);
        memset(query, 0, (size_t)(2 * padded) * sizeof *query);
        memcpy(query, head_of(q, shape->q, batch, head), (size_t)features * sizeof *query);
        if (ahead) {
            decode_scores(query, keys_of, shape->k.row, keys, features, shape->scale, scores, 1);
        } else {
            decode_scores(query, keys_of, shape->k.row, keys, features, shape->scale, scores, 0);
        }
        unsigned unordered;
        float top = row_top(scores, keys, &unordered);
        if (unordered || top == INFINITY || top == -INFINITY) {
            return pair + 1;
        }
        float sum = row_exponentials(scores, keys, top, scores);
        if (ahead) {
            decode_values(scores, values, shape->v.row, keys, features, total, 1);
        } else {
            decode_values(scores, values, shape->v.row, keys, features, total, 0);
        }
        float *result = out + batch * shape->out.batch + head * shape->out.head;
        if (!divide_row(total, sum, features, result)) {
            return pair + 1;
        }
    }
    return 0;
}

/* c[i][0..16 width) = sum over r of a[i][r] b[r][..], i < rows, in the order of r from +0. */
#define PRODUCT(name, tile_rows, width)                                                            \
    static void name(const float *a, int64_t a_stride, const float *b, int64_t b_stride,           \
                     int64_t depth, float *c, int64_t c_stride) {                                  \
        lanes sum[tile_rows][width];                                                               \
        for (int i = 0; i < tile_rows; i++) {                                                      \
            for (int w = 0; w < width; w++) {                                                      \
                sum[i][w] = lanes_set(0.0f);                                                       \
            }                                                                                      \
        }                                                                                          \
        for (int64_t r = 0; r < depth; r++) {                                                      \
            lanes value[width];                                                                    \
            for (int w = 0; w < width; w++) {                                                      \
                value[w] = lanes_load(b + r * b_stride + w * LANES);                               \
            }                                                                                      \
            for (int i = 0; i < tile_rows; i++) {                                                  \
                lanes weight = lanes_set(a[i * a_stride + r]);                                     \
                for (int w = 0; w < width; w++) {                                                  \
                    sum[i][w] = lanes_add(sum[i][w], lanes_mul(weight, value[w]));                 \
                }                                                                                  \
            }                                                                                      \
        }                                                                                          \
        for (int i = 0; i < tile_rows; i++) {                                                      \
            for (int w = 0; w < width; w++) {                                                      \
                lanes_store(c + i * c_stride + w * LANES, sum[i][w]);                              \
            }                                                                                      \
        }                                                                                          \
    }
PRODUCT(NAME(tile_product), TILE_ROWS, TILE_WIDTH)
PRODUCT(NAME(row_product), 1, TILE_WIDTH)
#undef PRODUCT

/* panel[r][key] = k[key][r] for up to PREFILL_KEYS keys, the rest zero. */
IN void transpose_keys(const float *k, int64_t stride, int64_t keys, int64_t features,
                       float *panel) {
    for (int64_t s = 0; s < PREFILL_KEYS; s += 4) {
        const float *row = k + s * stride;
        int64_t r = 0;
        for (; s + 4 <= keys && r + 4 <= features; r += 4) {
            quad_transpose(row + r, row + stride + r, row + 2 * stride + r, row + 3 * stride + r,
                           panel + r * PREFILL_KEYS + s, PREFILL_KEYS);
        }
        for (; r < features; r++) {
            for (int64_t i = 0; i < 4; i++) {
                panel[r * PREFILL_KEYS + s + i] = s + i < keys ? row[i * stride + r] : 0.0f;
            }
        }
    }
}

/* A product over any number of rows and columns of a padded C (a multiple of PREFILL_KEYS). */
IN void wide_product(const float *a, int64_t a_stride, const float *b, int64_t b_stride,
                     int64_t depth, float *c, int64_t c_stride, int64_t rows, int64_t columns) {
    for (int64_t j = 0; j < columns; j += TILE_WIDTH * LANES) {
        int64_t i = 0;
        for (; i + TILE_ROWS <= rows; i += TILE_ROWS) {
            NAME(tile_product)(a + i * a_stride, a_stride, b + j, b_stride, depth,
                               c + i * c_stride + j, c_stride);
        }
        for (; i < rows; i++) {
            NAME(row_product)(a + i * a_stride, a_stride, b + j, b_stride, depth,
                              c + i * c_stride + j, c_stride);
        }
    }
}

/* The softmax of one row of scores, not yet divided; entries up to `bound` past `keys` become 0. */
IN int prefill_row(float *scores, int64_t keys, int64_t bound, float scale, float *sum) {
    lanes factor = lanes_set(scale);
    for (int64_t s = 0; s < keys; s += LANES) { /* rows are padded to whole lanes */
        lanes_store(scores + s, lanes_mul(lanes_load(scores + s), factor));
    }
    unsigned unordered;
    float top = row_top(scores, keys, &unordered);
    if (unordered || top == INFINITY || top == -INFINITY) {
        return 0;
    }
    *sum = row_exponentials(scores, keys, top, scores);
    for (int64_t s = keys; s < bound; s++) {
        scores[s] = 0.0f;
    }
    return 1;
}

IN int64_t round_up(int64_t size, int64_t unit) { return (size + unit - 1) / unit * unit; }

/* One head's keys in panels, and its values with whole panels of features. */
typedef struct {
    float *panels;
    const float *values;
    int64_t values_stride;
} NAME(head);

IN NAME(head) pack_head(const float *k, const float *v, const attention_shape *shape,
                        float *panels, float *values) {
    int64_t features = shape->features, padded = round_up(features, PREFILL_KEYS);
    for (int64_t s = 0; s < shape->keys; s += PREFILL_KEYS) {
        int64_t size = shape->keys - s < PREFILL_KEYS ? shape->keys - s : PREFILL_KEYS;
        transpose_keys(k + s * shape->k.row, shape->k.row, size, features, panels + s * features);
    }
    if (padded == features) {
        return (NAME(head)){panels, v, shape->v.row};
    }
    for (int64_t s = 0; s < shape->keys; s++) {
        memcpy(values + s * padded, v + s * shape->v.row, (size_t)features * sizeof *values);
        memset(values + s * padded + features, 0, (size_t)(padded - features) * sizeof *values);
    }
    return (NAME(head)){panels, values, padded};
}

/* Queries [start, start + rows) of one head; false where a result is not finite. */
static int NAME(prefill_tile)(const float *q, NAME(head) head, float *out,
                              const attention_shape *shape, int64_t start, int64_t rows,
                              float *scores, float *totals) {
    int64_t keys = shape->keys, features = shape->features;
    int64_t padded_keys = round_up(keys, PREFILL_KEYS), padded = round_up(features, PREFILL_KEYS);
    int64_t seen = shape->causal ? start + rows : keys; /* what none of them sees is skipped */
    float sums[PREFILL_ROWS];
    for (int64_t s = 0; s < seen; s += PREFILL_KEYS) {
        wide_product(q + start * shape->q.row, shape->q.row, head.panels + s * features,
                     PREFILL_KEYS, features, scores + s, padded_keys, rows, PREFILL_KEYS);
    }
    for (int64_t i = 0; i < rows; i++) {
        int64_t own = shape->causal ? start + i + 1 : keys;
        if (!prefill_row(scores + i * padded_keys, own, seen, shape->scale, &sums[i])) {
            return 0;
        }
    }
    wide_product(scores, padded_keys, head.values, head.values_stride, seen, totals, padded, rows,
                 padded);
    for (int64_t i = 0; i < rows; i++) {
        if (!divide_row(totals + i * padded, sums[i], features,
                        out + (start + i) * shape->out.row)) {
            return 0;
        }
    }
    return 1;
}

static int64_t NAME(prefill)(const float *q, const float *k, const float *v, float *out,
                             const attention_shape *shape, int64_t first, int64_t last,
                             float *scratch) {
    int64_t padded_keys = round_up(shape->keys, PREFILL_KEYS);
    int64_t padded = round_up(shape->features, PREFILL_KEYS);
    float *panels = scratch, *values = panels + padded_keys * shape->features;
    float *scores = values + padded_keys * padded, *totals = scores + PREFILL_ROWS * padded_keys;
    int64_t group = shape->query_heads / shape->key_heads, packed = -1;
    NAME(head) head = {panels, values, padded};
    for (int64_t pair = first; pair < last; pair++) {
        int64_t batch = pair / shape->query_heads, number = pair % shape->query_heads;
        if (pair / group != packed) { /* heads that share keys follow each other */
            packed = pair / group;
            head = pack_head(head_of(k, shape->k, batch, number / group),
                             head_of(v, shape->v, batch, number / group), shape, panels, values);
        }
        const float *queries = head_of(q, shape->q, batch, number);
        float *result = out + batch * shape->out.batch + number * shape->out.head;
        for (int64_t start = 0; start < shape->queries; start += PREFILL_ROWS) {
            int64_t rows = shape->queries - start;
            rows = rows < PREFILL_ROWS ? rows : PREFILL_ROWS;
            if (!NAME(prefill_tile)(queries, head, result, shape, start, rows, scores, totals)) {
                return pair + 1;
            }
        }
    }
    return 0;
}

static void NAME(small_matmul)(const float *a, const float *b, float *out, int64_t m, int64_t k,
                               int64_t n) {
    lanes rows[LANES];
    int width = (int)n;
    for (int64_t r = 0; r < k; r++) {
        rows[r] = width == LANES ? lanes_load(b + r * n) : lanes_load_part(b + r * n, width, 0.0f);
    }
    for (int64_t i = 0; i < m; i++) {
        lanes sum = lanes_set(0.0f);
        for (int64_t r = 0; r < k; r++) {
            sum = lanes_add(sum, lanes_mul(lanes_set(a[i * k + r]), rows[r]));
        }
        if (width == LANES) {
            lanes_store(out + i * n, sum);
        } else {
            lanes_store_part(out + i * n, width, sum);
        }
    }
}
