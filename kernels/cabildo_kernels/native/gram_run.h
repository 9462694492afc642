/* From a task to threads: a workspace for each, superblocks to whoever is free; and the sum over
 * superblocks afterwards. */
#ifndef CABILDO_GRAM_RUN_H
#define CABILDO_GRAM_RUN_H

#include <stdlib.h>

#include "gram.h"
#include "parallel.h"

#if defined(__x86_64__)
#include <cpuid.h>
/* Whether 512-bit operations go through 256-bit units twice: AMD's family 25 (Zen 4). */
static int gram_halves_preferred(void)
{
    unsigned a, b, c, d;
    if (!__get_cpuid(0, &a, &b, &c, &d) || b != signature_AMD_ebx)
        return 0;
    return __get_cpuid(1, &a, &b, &c, &d) && (a >> 8 & 0xf) + (a >> 20 & 0xff) == 25;
}
#else
static int gram_halves_preferred(void) { return 0; }
#endif

struct gram_work {
    const struct gram_task *task;
    gram_path path;
    char *memory; /* of all workspaces */
    size_t size;  /* of one; a multiple of 64 bytes, as all its parts */
    char taken[PARALLEL_MOST];
};

static int gram_strips(int rows) { return (rows + GRAM_STRIP - 1) / GRAM_STRIP; }

static size_t gram_panel_size(int rows) { return (size_t)gram_strips(rows) * GRAM_STRIP_SIZE; }

static size_t gram_sums_size(int rows)
{
    size_t strips = gram_strips(rows);
    return strips * (strips + 1) / 2 * GRAM_STRIP * GRAM_STRIP * GRAM_LANES;
}

static size_t gram_workspace_size(int rows)
{
    return (2 * gram_panel_size(rows) + gram_sums_size(rows)) * sizeof(double) +
           (size_t)(rows + 2) * GRAM_PADDED_SIZE;
}

static void gram_span(void *context, size_t index)
{
    struct gram_work *work = context;
    int mine = 0, rows = work->task->rows;
    while (__atomic_test_and_set(&work->taken[mine], __ATOMIC_ACQUIRE))
        mine++; /* there are as many as threads: one is free */
    double *memory = (double *)(work->memory + mine * work->size);
    struct gram_workspace space;
    space.panel[0] = memory;
    space.panel[1] = memory + gram_panel_size(rows);
    space.sums = memory + 2 * gram_panel_size(rows);
    space.padded = (char *)(space.sums + gram_sums_size(rows));
    work->path(work->task, index, &space);
    __atomic_clear(&work->taken[mine], __ATOMIC_RELEASE);
}

/* Sum `count` superblocks. Returns 0, or -1 where memory is short. */
static int gram_run(const struct gram_task *task, gram_path path, size_t count, int threads)
{
    if (threads > PARALLEL_MOST)
        threads = PARALLEL_MOST;
    if ((size_t)threads > count)
        threads = count ? (int)count : 1;
    struct gram_work work = {.task = task, .path = path, .size = gram_workspace_size(task->rows)};
    work.memory = aligned_alloc(64, (size_t)threads * work.size);
    if (work.memory == NULL)
        return -1;
    parallel_spans(gram_span, &work, count, threads);
    free(work.memory);
    return 0;
}

static void gram_add_each(double *total, const double *sums, size_t count, size_t size)
{
    for (size_t block = 0; block < count; block++)
        for (size_t i = 0; i < size; i++)
            total[i] += sums[block * size + i];
}

/* Add the sums of `count` superblocks to the total, one superblock after another. */
static void gram_add(double *total, const double *sums, size_t count, size_t size)
{
    /* volatile: the compiler must not move additions over the change of the control word. */
    void (*volatile add)(double *, const double *, size_t, size_t) = gram_add_each;
    fp_control saved = fp_enter();
    add(total, sums, count, size);
    fp_leave(saved);
}

#endif
