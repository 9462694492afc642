/* The walk over superblocks, blocks and tiles: a template that each path includes.
 *
 * The path's gram_vector_*.h brings, before this:
 *   quad    four fp64 lanes: quad_zero, quad_load, quad_store (aligned), quad_add, and
 *           quad_fma(&acc, a, b) for acc += a * b (the product of widened floats is exact, so
 *           fused or not gives the same bits)
 *   narrow  4 * STEP floats: narrow_load, narrow_store (any alignment), narrow_f16, narrow_bf16,
 *           narrow_sub, and narrow_widen(x, to), which stores them as fp64 at `to` and, the second
 *           four, at to + 16
 *   tiles   total (an accumulator of WIDTH doubles: total_zero, total_load, ...), the shapes
 *           DIAGONAL and those in tiles_beside(), totals_of(shape), pair_of(shape, sum), step()
 *
 * A panel holds a block of 64 columns of all rows as fp64: [strip of 4 rows][group of 4
 * columns][row of strip][lane]. Two panels are used in turn: while the tiles of one are summed,
 * each tile also converts its share of the next block into the other and prefetches it for a
 * later block. That overlap is what makes the kernel fast: the two kinds of work use different
 * units of the core.
 */
#include <string.h>

enum {
    AHEAD = 4 * GRAM_BLOCK, /* columns from the block converted to the one prefetched */
    ROW_SIZE = GRAM_LANES,
    GROUP_SIZE = GRAM_STRIP * GRAM_LANES,
    MOST_TILES = (GRAM_MOST_ROWS / GRAM_STRIP) * (GRAM_MOST_ROWS / GRAM_STRIP),
};

/* A tile's loop: sums of strips a and b go to `sums`; of one or two rows, next to each other in a
 * strip, a block from `source` on is converted to `target`. */
typedef void (*tile_function)(const double *a, const double *b, double *sums, const char *source,
                              double *target, const float *base, const char *source2);

struct tile_plan {
    tile_function sum, sum_and_convert;
    int a, b;            /* where the strips begin in a panel, in doubles */
    int sums;            /* its place among the sums */
    int target;          /* place of the rows that it converts, in the other panel */
    const char *source;  /* first column of the first of them */
    const char *source2; /* and of the second */
    size_t size;         /* of an element, in bytes */
    int shape, strip_a, strip_b;
};

struct walk {
    const struct gram_task *task;
    struct gram_workspace *space;
    int tiles, alone;
    struct tile_plan plan[MOST_TILES];
    uint8_t row_alone[GRAM_MOST_ROWS]; /* rows that no tile converts */
};

INLINE size_t size_of(int type) { return type == GRAM_F32 ? 4 : 2; }

INLINE narrow load_elements(int type, const char *p)
{
    if (type == GRAM_F32)
        return narrow_load(p);
    return type == GRAM_F16 ? narrow_f16(p) : narrow_bf16(p);
}

/* STEP groups of one row, from `group` on, into a panel; `type` and `centred` are constants. */
INLINE void convert(int type, int centred, const char *source, const float *base, int group,
                    double *target)
{
    narrow x = load_elements(type, source + (size_t)group * GRAM_LANES * size_of(type));
    if (centred)
        x = narrow_sub(x, narrow_load((const char *)(base + group * GRAM_LANES)));
    narrow_widen(x, target + group * GROUP_SIZE);
}

INLINE void convert_groups(int type, int centred, const char *source, const float *base,
                           double *target)
{
    for (int group = 0; group < GRAM_GROUPS; group += STEP)
        convert(type, centred, source, base, group, target);
}

/* A whole block of one row; base may be NULL. */
static void convert_row(int type, const char *source, const float *base, double *target)
{
    if (type == GRAM_F32)
        base ? convert_groups(GRAM_F32, 1, source, base, target)
             : convert_groups(GRAM_F32, 0, source, base, target);
    else if (type == GRAM_F16)
        base ? convert_groups(GRAM_F16, 1, source, base, target)
             : convert_groups(GRAM_F16, 0, source, base, target);
    else
        base ? convert_groups(GRAM_BF16, 1, source, base, target)
             : convert_groups(GRAM_BF16, 0, source, base, target);
}

/* One tile over one block; `shape`, `rows`, `type` and `centred` are constants at each call. */
INLINE void tile(int shape, int rows, int type, int centred, const double *a, const double *b,
                 double *sums, const char *source, double *target, const float *base,
                 const char *source2)
{
    total acc[MOST_TOTALS];
    for (int i = 0; i < totals_of(shape); i++)
        acc[i] = total_zero();
#pragma GCC unroll 16
    for (int group = 0; group < GRAM_GROUPS; group++) {
        size_t at = (size_t)group * GRAM_LANES * size_of(type);
        step(shape, acc, a + group * GROUP_SIZE, b + group * GROUP_SIZE);
        if (rows > 0 && group % STEP == 0)
            convert(type, centred, source, base, group, target);
        if (rows > 1 && group % STEP == 0)
            convert(type, centred, source2, base, group, target + ROW_SIZE);
        if (rows > 0 && at % 64 == 0)
            __builtin_prefetch(source + AHEAD * size_of(type) + at);
        if (rows > 1 && at % 64 == 0)
            __builtin_prefetch(source2 + AHEAD * size_of(type) + at);
    }
    for (int i = 0; i < totals_of(shape); i++)
        total_store(sums + i * WIDTH, total_add(total_load(sums + i * WIDTH), acc[i]));
}

/* What a tile converts meanwhile: nothing, one row of a type, or two float32 rows. */
enum { NOTHING, ONE_ROW, TWO_ROWS = ONE_ROW + 6, WAYS = TWO_ROWS + 2 };

#define TILE(shape, rows, type, centred)                                                           \
    static void tile_##shape##_##rows##_##type##_##centred(                                        \
        const double *a, const double *b, double *sums, const char *source, double *target,        \
        const float *base, const char *source2)                                                    \
    {                                                                                              \
        tile(shape, rows, GRAM_##type, centred, a, b, sums, source, target, base, source2);        \
    }
#define TILES(shape)                                                                               \
    TILE(shape, 0, F32, 0)                                                                         \
    TILE(shape, 1, F32, 0)                                                                         \
    TILE(shape, 1, F32, 1)                                                                         \
    TILE(shape, 1, F16, 0)                                                                         \
    TILE(shape, 1, F16, 1)                                                                         \
    TILE(shape, 1, BF16, 0)                                                                        \
    TILE(shape, 1, BF16, 1)                                                                        \
    TILE(shape, 2, F32, 0)                                                                         \
    TILE(shape, 2, F32, 1)
#define WAYS_OF(shape)                                                                             \
    {                                                                                              \
        tile_##shape##_0_F32_0, tile_##shape##_1_F32_0, tile_##shape##_1_F32_1,                    \
            tile_##shape##_1_F16_0, tile_##shape##_1_F16_1, tile_##shape##_1_BF16_0,               \
            tile_##shape##_1_BF16_1, tile_##shape##_2_F32_0, tile_##shape##_2_F32_1                \
    }
FOR_EACH_SHAPE(TILES)
#undef TILES

static const tile_function tile_functions[SHAPES][WAYS] = TILE_TABLE;

INLINE int place_of(int row)
{
    return row / GRAM_STRIP * GRAM_STRIP_SIZE + row % GRAM_STRIP * ROW_SIZE;
}

/* All tiles of the panel. */
static void sum_block(const struct walk *walk, const double *panel)
{
    for (const struct tile_plan *plan = walk->plan; plan < walk->plan + walk->tiles; plan++)
        plan->sum(panel + plan->a, panel + plan->b, walk->space->sums + plan->sums, NULL, NULL,
                  NULL, NULL);
}

/* The same, while the block from `column` on is converted to the other panel. */
static void sum_and_convert_block(const struct walk *walk, const double *panel, double *other,
                                  size_t column, const float *base)
{
    for (const struct tile_plan *plan = walk->plan; plan < walk->plan + walk->tiles; plan++)
        plan->sum_and_convert(
            panel + plan->a, panel + plan->b, walk->space->sums + plan->sums,
            plan->source + column * plan->size, other + plan->target, base,
            plan->source2 + column * plan->size);
    for (int i = 0; i < walk->alone; i++) {
        int row = walk->row_alone[i];
        const struct gram_vector *vector = &walk->task->row[row];
        convert_row(vector->type, vector->data + column * size_of(vector->type), base,
                    other + place_of(row));
    }
}

/* The base of one block as 64 floats: in place, or widened into the workspace. */
static const float *base_block(const struct gram_vector *base, size_t column, float *widened)
{
    if (base->data == NULL)
        return NULL;
    const char *source = base->data + column * size_of(base->type);
    for (int group = 0; group < GRAM_GROUPS; group += STEP) {
        const char *p = source + (size_t)group * GRAM_LANES * size_of(base->type);
        narrow_store(widened + group * GRAM_LANES, load_elements(base->type, p));
    }
    return widened;
}

static void convert_all(const struct gram_task *task, size_t column, const float *base,
                        double *panel)
{
    for (int row = 0; row < task->rows; row++) {
        const struct gram_vector *vector = &task->row[row];
        convert_row(vector->type, vector->data + column * size_of(vector->type), base,
                    panel + place_of(row));
    }
}

/* The same vector with its last columns and zeros after them in `padded`. */
static struct gram_vector short_block(struct gram_vector vector, size_t column, size_t columns,
                                      char *padded)
{
    if (vector.data == NULL)
        return vector;
    size_t size = size_of(vector.type);
    memset(padded, 0, GRAM_PADDED_SIZE);
    memcpy(padded, vector.data + column * size, columns * size);
    return (struct gram_vector){padded, vector.type};
}

/* A task over the last, short block of a superblock, with zeros up to 64 columns. */
static struct gram_task short_task(const struct gram_task *task, size_t column, size_t columns,
                                   struct gram_workspace *space)
{
    struct gram_task last = {.rows = task->rows, .columns = GRAM_BLOCK};
    char *padded = space->padded;
    for (int row = 0; row < task->rows; row++, padded += GRAM_PADDED_SIZE)
        last.row[row] = short_block(task->row[row], column, columns, padded);
    last.base = short_block(task->base, column, columns, padded);
    last.vector = short_block(task->vector, column, columns, padded + GRAM_PADDED_SIZE);
    return last;
}

/* Rows first..end-1 fall to this tile; what it cannot take is converted alone. */
static void share_out(struct walk *walk, struct tile_plan *plan, int first, int end)
{
    const struct gram_vector *row = walk->task->row;
    int way = NOTHING, taken = 0;
    if (first < end) {
        int pair = end - first > 1 && row[first].type == GRAM_F32 &&
                   row[first + 1].type == GRAM_F32 && (first + 1) % GRAM_STRIP != 0;
        taken = pair ? 2 : 1;
        way = (pair ? TWO_ROWS : ONE_ROW + 2 * row[first].type) + (walk->task->base.data != NULL);
        plan->source = row[first].data;
        plan->source2 = row[first + taken - 1].data;
        plan->size = size_of(row[first].type);
        plan->target = place_of(first);
    }
    plan->sum = tile_functions[plan->shape][NOTHING];
    plan->sum_and_convert = tile_functions[plan->shape][way];
    for (int i = first + taken; i < end; i++)
        walk->row_alone[walk->alone++] = i;
}

static void plan_tiles(struct walk *walk)
{
    int n = walk->task->rows, strips = (n + GRAM_STRIP - 1) / GRAM_STRIP, count = 0, at = 0;
    for (int a = 0; a < strips; a++)
        for (int b = a; b < strips; b++)
            for (int i = 0; i < (a == b ? 1 : BESIDE); i++) {
                int shape = a == b ? DIAGONAL : DIAGONAL + 1 + i;
                walk->plan[count++] = (struct tile_plan){
                    .a = a * GRAM_STRIP_SIZE + offset_of(shape), .b = b * GRAM_STRIP_SIZE,
                    .sums = at, .shape = shape, .strip_a = a, .strip_b = b,
                    .source = walk->task->row[0].data, .source2 = walk->task->row[0].data};
                at += totals_of(shape) * WIDTH;
            }
    for (int t = 0; t < count; t++)
        share_out(walk, &walk->plan[t], t * n / count, (t + 1) * n / count);
    walk->tiles = count;
    memset(walk->space->sums, 0, at * sizeof(double));
    /* Rows that are not there: no result needs them, but denormals among them would cost time. */
    for (int panel = 0; panel < 2 && n % GRAM_STRIP; panel++)
        memset(walk->space->panel[panel] + (strips - 1) * GRAM_STRIP_SIZE, 0,
               GRAM_STRIP_SIZE * sizeof(double));
}

static void reduce(const struct walk *walk, double *sums)
{
    int n = walk->task->rows;
    for (int t = 0; t < walk->tiles; t++) {
        const struct tile_plan *plan = &walk->plan[t];
        for (int pair = 0; pair < totals_of(plan->shape) * WIDTH / GRAM_LANES; pair++) {
            struct pair of = pair_of(plan->shape, pair);
            int i = plan->strip_a * GRAM_STRIP + of.a, j = plan->strip_b * GRAM_STRIP + of.b;
            const double *lane = walk->space->sums + plan->sums + pair * GRAM_LANES;
            if (i < n && j < n)
                sums[i * n + j] = sums[j * n + i] = (lane[0] + lane[2]) + (lane[1] + lane[3]);
        }
    }
}

static void gram_superblock(const struct gram_task *task, size_t begin, size_t end, double *sums,
                            struct gram_workspace *space)
{
    struct walk walk;
    size_t blocks = (end - begin) / GRAM_BLOCK, rest = (end - begin) % GRAM_BLOCK;
    walk.task = task;
    walk.space = space;
    walk.alone = 0;
    plan_tiles(&walk);
    if (blocks)
        convert_all(task, begin, base_block(&task->base, begin, space->base), space->panel[0]);
    for (size_t block = 0; block < blocks; block++) {
        double *panel = space->panel[block % 2], *other = space->panel[(block + 1) % 2];
        size_t next = begin + (block + 1) * GRAM_BLOCK;
        if (block + 1 < blocks)
            sum_and_convert_block(&walk, panel, other, next,
                                  base_block(&task->base, next, space->base));
        else
            sum_block(&walk, panel);
    }
    if (rest) {
        struct gram_task ending = short_task(task, end - rest, rest, space);
        convert_all(&ending, 0, base_block(&ending.base, 0, space->base), space->panel[0]);
        sum_block(&walk, space->panel[0]);
    }
    reduce(&walk, sums);
}

/* Block sums of (row - base) * vector, added to lanes[rows][4]. */
static void dots_block(const struct gram_task *task, size_t column, double *lanes,
                       struct gram_workspace *space)
{
    const struct gram_vector *vector = &task->vector;
    const float *base = base_block(&task->base, column, space->base);
    double *values = space->panel[0], *x = space->panel[1];
    convert_row(vector->type, vector->data + column * size_of(vector->type), NULL, values);
    for (int row = 0; row < task->rows; row++) {
        int type = task->row[row].type;
        const char *source = task->row[row].data + column * size_of(type);
        double *at = x + row % 2 * ROW_SIZE; /* two places in turn: no wait for the last row */
        convert_row(type, source, base, at);
        quad acc = quad_zero();
        for (int group = 0; group < GRAM_GROUPS; group++)
            quad_fma(&acc, quad_load(at + group * GROUP_SIZE),
                     quad_load(values + group * GROUP_SIZE));
        for (size_t line = 0; line < GRAM_BLOCK * size_of(type); line += 64)
            __builtin_prefetch(source + AHEAD * size_of(type) + line);
        double *sum = lanes + row * GRAM_LANES;
        quad_store(sum, quad_add(quad_load(sum), acc));
    }
}

static void dots_superblock(const struct gram_task *task, size_t begin, size_t end, double *sums,
                            struct gram_workspace *space)
{
    double *lanes = space->sums;
    size_t rest = (end - begin) % GRAM_BLOCK;
    memset(lanes, 0, task->rows * GRAM_LANES * sizeof(double));
    for (size_t column = begin; column + GRAM_BLOCK <= end; column += GRAM_BLOCK)
        dots_block(task, column, lanes, space);
    if (rest) {
        struct gram_task ending = short_task(task, end - rest, rest, space);
        dots_block(&ending, 0, lanes, space);
    }
    for (int row = 0; row < task->rows; row++, lanes += GRAM_LANES)
        sums[row] = (lanes[0] + lanes[2]) + (lanes[1] + lanes[3]);
}

static void run_gram(const struct gram_task *task, size_t index, struct gram_workspace *space)
{
    size_t n = task->rows, begin = (task->first + index) * GRAM_SUPERBLOCK;
    size_t end = task->columns - begin < GRAM_SUPERBLOCK ? task->columns : begin + GRAM_SUPERBLOCK;
    if (task->vector.data)
        dots_superblock(task, begin, end, task->sums + index * n, space);
    else
        gram_superblock(task, begin, end, task->sums + index * n * n, space);
}
