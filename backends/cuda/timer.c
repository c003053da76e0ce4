/* Timers: two events on a stream. */
#include <stdlib.h>

#include "cuda_backend.h"

typedef struct cuda_timer {
    CUevent start, stop;
} cuda_timer;

void cuda_timer_destroy(void *data_of_state, void *timer)
{
    const cuda_state *state = data_of_state;
    cuda_timer *own = timer;
    rfa_error ignored;
    if (cuda_enter(state, &ignored) == RFA_OK) {
        if (own->start)
            state->driver->EventDestroy(own->start);
        if (own->stop)
            state->driver->EventDestroy(own->stop);
        cuda_leave(state);
    }
    free(own);
}

rfa_status cuda_timer_create(void *data_of_state, void **timer, rfa_error *err)
{
    const cuda_state *state = data_of_state;
    *timer = NULL;
    cuda_timer *made = calloc(1, sizeof(*made));
    if (!made)
        return rfa_fail(err, RFA_OUT_OF_MEMORY, "no memory for a timer");
    rfa_status status = cuda_enter(state, err);
    if (status == RFA_OK) {
        CUresult result = state->driver->EventCreate(&made->start, CU_EVENT_DEFAULT);
        if (result == CUDA_SUCCESS)
            result = state->driver->EventCreate(&made->stop, CU_EVENT_DEFAULT);
        status = cuda_check(state->driver, result, "cuEventCreate", err);
        cuda_leave(state);
    }
    if (status == RFA_OK)
        *timer = made;
    else
        cuda_timer_destroy(data_of_state, made);
    return status;
}

static rfa_status record(const cuda_state *state, CUevent event, void *stream, rfa_error *err)
{
    rfa_status status = cuda_enter(state, err);
    if (status != RFA_OK)
        return status;
    status = cuda_check(
        state->driver,
        state->driver->EventRecordWithFlags(event, (CUstream)stream, CU_EVENT_RECORD_DEFAULT),
        "cuEventRecordWithFlags", err);
    cuda_leave(state);
    return status;
}

rfa_status cuda_timer_start(void *state, void *timer, void *stream, rfa_error *err)
{
    return record(state, ((cuda_timer *)timer)->start, stream, err);
}

rfa_status cuda_timer_stop(void *state, void *timer, void *stream, rfa_error *err)
{
    return record(state, ((cuda_timer *)timer)->stop, stream, err);
}

rfa_status cuda_timer_read(void *data_of_state, void *timer, double *seconds, rfa_error *err)
{
    const cuda_state *state = data_of_state;
    const cuda_timer *own = timer;
    float milliseconds = 0;
    rfa_status status = cuda_enter(state, err);
    if (status != RFA_OK)
        return status;
    CUresult result = state->driver->EventSynchronize(own->stop);
    status = cuda_check(state->driver, result, "cuEventSynchronize", err);
    if (status == RFA_OK)
        status = cuda_check(state->driver,
                            state->driver->EventElapsedTime(&milliseconds, own->start, own->stop),
                            "cuEventElapsedTime", err);
    cuda_leave(state);
    *seconds = 1e-3 * (double)milliseconds;
    return status;
}
