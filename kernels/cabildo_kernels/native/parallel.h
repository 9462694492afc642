/* Threads for the length of one call.
 *
 * Here: handing the indices 0..count-1 (superblocks, rows, heads) to the calling thread and to
 * threads - 1 more, each with the default floating-point control word. Threads are started and
 * joined within the call: no pool outlives it, so forks and interpreter exit need no care. Never
 * here: deciding how many threads (threads.py does), or anything that depends on who computes what.
 */
#ifndef CABILDO_PARALLEL_H
#define CABILDO_PARALLEL_H

#include <pthread.h>
#include <stddef.h>

#include "fp_control.h"

enum { PARALLEL_MOST = 256 };

typedef void (*span_function)(void *context, size_t index);

struct parallel_work {
    span_function run;
    void *context;
    size_t count;
    size_t next;
};

static void *parallel_worker(void *argument)
{
    struct parallel_work *work = argument;
    fp_control saved = fp_enter();
    for (;;) {
        size_t index = __atomic_fetch_add(&work->next, 1, __ATOMIC_RELAXED);
        if (index >= work->count)
            break;
        work->run(work->context, index);
    }
    fp_leave(saved);
    return NULL;
}

/* Run every index once. A thread that cannot be started is no error: the others do its work. */
static void parallel_spans(span_function run, void *context, size_t count, int threads)
{
    struct parallel_work work = {run, context, count, 0};
    pthread_t others[PARALLEL_MOST];
    int started = 0;
    if (threads > PARALLEL_MOST)
        threads = PARALLEL_MOST;
    while (started < threads - 1 && (size_t)(started + 1) < count) {
        if (pthread_create(&others[started], NULL, parallel_worker, &work) != 0)
            break;
        started++;
    }
    parallel_worker(&work);
    for (int i = 0; i < started; i++)
        pthread_join(others[i], NULL);
}

#endif
