/* From a task to threads: a workspace for each, superblocks to whoever is free. */
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
    struct gram_workspace *spaces;
    char taken[PARALLEL_MOST];
};

static void gram_span(void *context, size_t index)
{
    struct gram_work *work = context;
    int space = 0;
    while (__atomic_test_and_set(&work->taken[space], __ATOMIC_ACQUIRE))
        space++; /* there are as many as threads: one is free */
    work->path(work->task, index, &work->spaces[space]);
    __atomic_clear(&work->taken[space], __ATOMIC_RELEASE);
}

/* Sum `count` superblocks. Returns 0, or -1 where memory is short. */
static int gram_run(const struct gram_task *task, gram_path path, size_t count, int threads)
{
    if (threads > PARALLEL_MOST)
        threads = PARALLEL_MOST;
    if ((size_t)threads > count)
        threads = count ? (int)count : 1;
    struct gram_work work = {.task = task, .path = path};
    work.spaces = aligned_alloc(64, (size_t)threads * sizeof(struct gram_workspace));
    if (work.spaces == NULL)
        return -1;
    parallel_spans(gram_span, &work, count, threads);
    free(work.spaces);
    return 0;
}

#endif
