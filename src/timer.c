/* Timers: a backend's, and what was done with it. */
#include "src/internal.h"

#include <stdlib.h>

struct rfa_timer {
    rfa_context *ctx;
    void *own; /* the backend's */
    bool started, stopped;
};

static rfa_status create(rfa_context *ctx, rfa_timer **timer, rfa_error *err)
{
    rfa_timer *made = calloc(1, sizeof(*made));
    if (!made)
        return rfa_fail(err, RFA_OUT_OF_MEMORY, "no memory for a timer");
    made->ctx = ctx;
    rfa_status status = ctx->backend->timer_create(ctx->state, &made->own, err);
    if (status == RFA_OK)
        *timer = made;
    else
        free(made);
    return status;
}

rfa_status rfa_timer_create(rfa_context *ctx, rfa_timer **timer)
{
    rfa_error err = {""};
    if (timer)
        *timer = NULL;
    if (!ctx || !timer)
        return rfa_record(
            ctx, rfa_fail(&err, RFA_INVALID_ARGUMENT, "%s is NULL", ctx ? "timer" : "ctx"), &err);
    return rfa_record(ctx, create(ctx, timer, &err), &err);
}

void rfa_timer_destroy(rfa_timer *timer)
{
    if (!timer)
        return;
    timer->ctx->backend->timer_destroy(timer->ctx->state, timer->own);
    free(timer);
}

static rfa_status null_timer(void)
{
    rfa_error err;
    return rfa_record(NULL, rfa_fail(&err, RFA_INVALID_ARGUMENT, "timer is NULL"), &err);
}

rfa_status rfa_timer_start(rfa_timer *timer, void *stream)
{
    rfa_error err = {""};
    if (!timer)
        return null_timer();
    rfa_context *ctx = timer->ctx;
    rfa_status status = ctx->backend->timer_start(ctx->state, timer->own, stream, &err);
    timer->started = status == RFA_OK;
    timer->stopped = false;
    return rfa_record(ctx, status, &err);
}

rfa_status rfa_timer_stop(rfa_timer *timer, void *stream)
{
    rfa_error err = {""};
    if (!timer)
        return null_timer();
    rfa_context *ctx = timer->ctx;
    rfa_status status = timer->started
                            ? ctx->backend->timer_stop(ctx->state, timer->own, stream, &err)
                            : rfa_fail(&err, RFA_INVALID_ARGUMENT, "the timer was not started");
    timer->stopped = status == RFA_OK;
    return rfa_record(ctx, status, &err);
}

rfa_status rfa_timer_read(rfa_timer *timer, double *seconds)
{
    rfa_error err = {""};
    if (!timer)
        return null_timer();
    rfa_context *ctx = timer->ctx;
    rfa_status status = RFA_OK;
    if (!seconds)
        status = rfa_fail(&err, RFA_INVALID_ARGUMENT, "seconds is NULL");
    else if (!timer->stopped)
        status = rfa_fail(&err, RFA_INVALID_ARGUMENT, "the timer was not stopped");
    else
        status = ctx->backend->timer_read(ctx->state, timer->own, seconds, &err);
    return rfa_record(ctx, status, &err);
}
