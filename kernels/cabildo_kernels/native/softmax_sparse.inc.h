/* Template: softmax of CSR rows, and softmax with top-k of a router's logits.
 *
 * Here: the loops over lanes.h. Included by softmax.inc.h once for each instruction set.
 */

/* Largest of a row, with the lanes that hold NaN. */
IN float row_top(const float *x, int64_t size, unsigned *unordered) {
    lanes top = lanes_set(-INFINITY);
    lane_mask bad = mask_none();
    int64_t i = 0;
    for (; i + LANES <= size; i += LANES) {
        lanes v = lanes_load(x + i);
        bad = mask_or(bad, lanes_unordered(v));
        top = lanes_max(top, v);
    }
    if (i < size) {
        lanes v = lanes_load_part(x + i, (int)(size - i), -INFINITY);
        bad = mask_or(bad, lanes_unordered(v));
        top = lanes_max(top, v);
    }
    *unordered = mask_bits(bad);
    return lanes_top(top);
}

/* out = exp(x - top); returns the sum: lanes in order of the groups of 16, then over the lanes. */
IN float row_exponentials(const float *x, int64_t size, float top, float *out) {
    lanes sum = lanes_set(0.0f), shift = lanes_set(top);
    int64_t i = 0;
    for (; i + LANES <= size; i += LANES) {
        lanes e = lanes_exp(lanes_sub(lanes_load(x + i), shift));
        sum = lanes_add(sum, e);
        lanes_store(out + i, e);
    }
    if (i < size) {
        int rest = (int)(size - i);
        lanes e = lanes_exp(lanes_sub(lanes_load_part(x + i, rest, -INFINITY), shift));
        sum = lanes_add(sum, e);
        lanes_store_part(out + i, rest, e);
    }
    return lanes_sum(sum);
}

static int64_t NAME(sparse_softmax)(const float *data, const int64_t *indptr, int64_t first,
                                    int64_t last, float *out) {
    for (int64_t row = first; row < last; row++) {
        int64_t start = indptr[row], size = indptr[row + 1] - start;
        const float *x = data + start;
        float *y = out + start;
        unsigned unordered;
        float top = row_top(x, size, &unordered);
        if (unordered || top == INFINITY) {
            return row + 1;
        }
        if (top == -INFINITY) { /* empty, or masked as a whole */
            memset(y, 0, (size_t)size * sizeof *y);
            continue;
        }
        if (size <= LANES) { /* stays in registers */
            lanes v = lanes_load_part(x, (int)size, -INFINITY);
            lanes e = lanes_exp(lanes_sub(v, lanes_set(top)));
            lanes_store_part(y, (int)size, lanes_div(e, lanes_set(lanes_sum(e))));
            continue;
        }
        lanes sum = lanes_set(row_exponentials(x, size, top, y));
        int64_t i = 0;
        for (; i + LANES <= size; i += LANES) {
            lanes_store(y + i, lanes_div(lanes_load(y + i), sum));
        }
        if (i < size) {
            int rest = (int)(size - i);
            lanes_store_part(y + i, rest, lanes_div(lanes_load_part(y + i, rest, 0.0f), sum));
        }
    }
    return 0;
}

/* columns[expert][lane] = logits[lane][expert] of up to 16 rows; absent rows repeat the last. */
IN void gather_rows(const float *logits, int64_t rows, int64_t experts, float *columns) {
    for (int64_t group = 0; group < LANES; group += 4) {
        const float *x[4];
        for (int64_t i = 0; i < 4; i++) {
            int64_t row = group + i < rows ? group + i : rows - 1;
            x[i] = logits + row * experts;
        }
        int64_t e = 0;
        for (; e + 4 <= experts; e += 4) {
            quad_transpose(x[0] + e, x[1] + e, x[2] + e, x[3] + e, columns + e * LANES + group,
                           LANES);
        }
        for (; e < experts; e++) {
            for (int64_t i = 0; i < 4; i++) {
                columns[e * LANES + group + i] = x[i][e];
            }
        }
    }
}

/* Sixteen rows side by side, one a lane: the k best so far are kept sorted, the earlier expert
 * first among equals, because only a strictly larger one moves in. */
IN unsigned pick_columns(const float *columns, int64_t experts, int64_t k, float *best,
                         float *chosen) {
    lane_mask bad = mask_none();
    for (int64_t j = 0; j < k; j++) {
        lanes_store(best + j * LANES, lanes_set(-INFINITY));
        lanes_store(chosen + j * LANES, lanes_set(0.0f));
    }
    for (int64_t e = 0; e < experts; e++) {
        lanes value = lanes_load(columns + e * LANES);
        lanes carried = value, carried_index = lanes_set((float)e);
        bad = mask_or(bad, lanes_unordered(value));
        for (int64_t j = 0; j < k; j++) {
            lanes held = lanes_load(best + j * LANES), held_index = lanes_load(chosen + j * LANES);
            lane_mask moves = lanes_greater(value, held);
            lanes_store(best + j * LANES, lanes_select(moves, carried, held));
            lanes_store(chosen + j * LANES, lanes_select(moves, carried_index, held_index));
            carried = lanes_select(moves, held, carried);
            carried_index = lanes_select(moves, held_index, carried_index);
        }
    }
    return mask_bits(bad);
}

/* The same for the two usual counts, with the best in registers. */
IN unsigned pick_two(const float *columns, int64_t experts, int64_t k, float *best,
                     float *chosen) {
    lanes first = lanes_set(-INFINITY), second = first;
    lanes first_index = lanes_set(0.0f), second_index = first_index;
    lane_mask bad = mask_none();
    for (int64_t e = 0; e < experts; e++) {
        lanes value = lanes_load(columns + e * LANES), index = lanes_set((float)e);
        bad = mask_or(bad, lanes_unordered(value));
        lane_mask tops = lanes_greater(value, first), moves = lanes_greater(value, second);
        second = lanes_select(tops, first, lanes_select(moves, value, second));
        second_index = lanes_select(tops, first_index, lanes_select(moves, index, second_index));
        first = lanes_select(tops, value, first);
        first_index = lanes_select(tops, index, first_index);
    }
    lanes_store(best, first);
    lanes_store(chosen, first_index);
    if (k == 2) {
        lanes_store(best + LANES, second);
        lanes_store(chosen + LANES, second_index);
    }
    return mask_bits(bad);
}

IN lanes column_sum(const float *columns, int64_t size, lanes top) {
    lanes sum = lanes_set(0.0f);
    for (int64_t e = 0; e < size; e++) {
        sum = lanes_add(sum, lanes_exp(lanes_sub(lanes_load(columns + e * LANES), top)));
    }
    return sum;
}

static int64_t NAME(moe_topk)(const float *logits, int64_t first, int64_t last, int64_t experts,
                              int64_t k, int renormalise, float *weights, int64_t *indices,
                              float *scratch) {
    float *columns = scratch, *best = scratch + LANES * experts, *chosen = best + LANES * k;
    for (int64_t row = first; row < last; row += LANES) {
        int64_t rows = last - row < LANES ? last - row : LANES;
        gather_rows(logits + row * experts, rows, experts, columns);
        unsigned bad = k <= 2 ? pick_two(columns, experts, k, best, chosen)
                              : pick_columns(columns, experts, k, best, chosen);
        for (int64_t lane = 0; lane < rows; lane++) {
            float top = best[lane], lowest = best[(k - 1) * LANES + lane];
            if ((bad >> lane & 1u) || top == INFINITY || lowest == -INFINITY) {
                return row + lane + 1;
            }
        }
        lanes top = lanes_load(best);
        lanes sum = renormalise ? column_sum(best, k, top) : column_sum(columns, experts, top);
        for (int64_t j = 0; j < k; j++) {
            lanes e = lanes_exp(lanes_sub(lanes_load(best + j * LANES), top));
            lanes_store(best + j * LANES, lanes_div(e, sum));
        }
        for (int64_t lane = 0; lane < rows; lane++) {
            for (int64_t j = 0; j < k; j++) {
                weights[(row + lane) * k + j] = best[j * LANES + lane];
                indices[(row + lane) * k + j] = (int64_t)chosen[j * LANES + lane];
            }
        }
    }
    return 0;
}
