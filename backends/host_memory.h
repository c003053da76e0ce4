/* Memory, workspace and timers of a backend whose device is the host: the slots
 * that the CPU modules share. Work is done when a call returns, so streams mean
 * nothing and nobody waits. */
#ifndef RFA_HOST_MEMORY_H
#define RFA_HOST_MEMORY_H

#include <stdlib.h>
#include <string.h>
#include <time.h>
#ifdef __linux__
#include <sys/mman.h>
#endif

#include "backend.h"

enum { RFA_HOST_ALIGNMENT = 256, RFA_HOST_HUGE_PAGE = 2 << 20 };

static inline rfa_status rfa_host_alloc_aligned(size_t step, size_t size, void **data,
                                                rfa_error *err)
{
    *data = NULL;
    if (size <= SIZE_MAX - step)
        *data = aligned_alloc(step, (size + step - 1) / step * step);
    return *data ? RFA_OK : rfa_fail(err, RFA_OUT_OF_MEMORY, "no memory for %zu bytes", size);
}

static inline rfa_status rfa_host_alloc(void *state, size_t size, void **data, rfa_error *err)
{
    (void)state;
    return rfa_host_alloc_aligned(RFA_HOST_ALIGNMENT, size, data, err);
}

static inline void rfa_host_free(void *state, void *data)
{
    (void)state;
    free(data);
}

static inline rfa_status rfa_host_write(void *state, void *data, size_t offset, const void *host,
                                        size_t size, void *stream, rfa_error *err)
{
    (void)state;
    (void)stream;
    (void)err;
    if (size > 0)
        memcpy((char *)data + offset, host, size);
    return RFA_OK;
}

static inline rfa_status rfa_host_read(void *state, const void *data, size_t offset, void *host,
                                       size_t size, void *stream, rfa_error *err)
{
    (void)state;
    (void)stream;
    (void)err;
    if (size > 0)
        memcpy(host, (const char *)data + offset, size);
    return RFA_OK;
}

static inline rfa_status rfa_host_synchronize(void *state, void *stream, rfa_error *err)
{
    (void)state;
    (void)stream;
    (void)err;
    return RFA_OK;
}

/* ---- workspace: a member of the state ---- */

typedef struct rfa_host_workspace {
    void *data;
    size_t size;
} rfa_host_workspace;

/* Attention walks through more small pages than processors remember the places of. The wish
 * outlives the memory where that goes back to the heap, so it is for workspace, which seldom
 * does, and for no other. */
static inline void rfa_host_prefer_huge_pages(void *data, size_t size)
{
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    (void)madvise(data, size, MADV_HUGEPAGE); /* without them it works as well */
#else
    (void)data;
    (void)size;
#endif
}

static inline rfa_status rfa_host_workspace_take(rfa_host_workspace *own, size_t size, void **data,
                                                 rfa_error *err)
{
    rfa_status status = RFA_OK;
    if (size > own->size) {
        free(own->data); /* first: there may not be room for both */
        own->size = 0;
        const bool large = size >= 2 * (size_t)RFA_HOST_HUGE_PAGE;
        const size_t step = large ? RFA_HOST_HUGE_PAGE : RFA_HOST_ALIGNMENT;
        status = rfa_host_alloc_aligned(step, size, &own->data, err);
        if (status == RFA_OK) {
            own->size = size;
            if (large)
                rfa_host_prefer_huge_pages(own->data, size);
        }
    }
    *data = own->data;
    return status;
}

static inline rfa_status rfa_host_workspace_give(void *state, void *stream, rfa_error *err)
{
    (void)state;
    (void)stream;
    (void)err;
    return RFA_OK;
}

/* ---- timers ---- */

typedef struct rfa_host_timer {
    struct timespec start, stop;
} rfa_host_timer;

static inline rfa_status rfa_host_timer_create(void *state, void **timer, rfa_error *err)
{
    (void)state;
    *timer = calloc(1, sizeof(rfa_host_timer));
    return *timer ? RFA_OK : rfa_fail(err, RFA_OUT_OF_MEMORY, "no memory for a timer");
}

static inline rfa_status rfa_host_timer_start(void *state, void *timer, void *stream,
                                              rfa_error *err)
{
    (void)state;
    (void)stream;
    (void)err;
    clock_gettime(CLOCK_MONOTONIC, &((rfa_host_timer *)timer)->start);
    return RFA_OK;
}

static inline rfa_status rfa_host_timer_stop(void *state, void *timer, void *stream, rfa_error *err)
{
    (void)state;
    (void)stream;
    (void)err;
    clock_gettime(CLOCK_MONOTONIC, &((rfa_host_timer *)timer)->stop);
    return RFA_OK;
}

static inline rfa_status rfa_host_timer_read(void *state, void *timer, double *seconds,
                                             rfa_error *err)
{
    const rfa_host_timer *t = (const rfa_host_timer *)timer;
    (void)state;
    (void)err;
    *seconds = (double)(t->stop.tv_sec - t->start.tv_sec) +
               1e-9 * (double)(t->stop.tv_nsec - t->start.tv_nsec);
    return RFA_OK;
}

/* The slots above that need nothing of the state, for a backend's table. */
#define RFA_HOST_MEMORY_SLOTS                                                                      \
    .workspace_give = rfa_host_workspace_give, .alloc = rfa_host_alloc, .free = rfa_host_free,     \
    .write = rfa_host_write, .read = rfa_host_read, .synchronize = rfa_host_synchronize,           \
    .timer_create = rfa_host_timer_create, .timer_destroy = rfa_host_free,                         \
    .timer_start = rfa_host_timer_start, .timer_stop = rfa_host_timer_stop,                        \
    .timer_read = rfa_host_timer_read

#endif
