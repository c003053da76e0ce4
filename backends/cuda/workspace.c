/* A context's own workspace.
 *
 * One event stands for the work that used it last: it is recorded on the taker's
 * stream when the work is queued, and the next taker's stream waits for it, also
 * when it is the same one, because a stream that was destroyed may come back under
 * its old address. In a captured graph record and wait become nodes, so that every
 * run of the graph waits and is waited for like a call. */
#include <stdlib.h>

#include "cuda_backend.h"

/* The legacy stream answers with an error while another stream's capture forbids
 * its use. */
static bool is_capturing(const cuda_state *state, void *stream)
{
    CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_NONE;
    CUresult result = state->driver->StreamIsCapturing((CUstream)stream, &status);
    return result == CUDA_ERROR_STREAM_CAPTURE_IMPLICIT || status != CU_STREAM_CAPTURE_STATUS_NONE;
}

/* Graphs hold this block's address until the context goes. */
static rfa_status keep_block(cuda_workspace *own, rfa_error *err)
{
    cuda_kept_block *block = malloc(sizeof(*block));
    if (!block)
        return rfa_fail(err, RFA_OUT_OF_MEMORY, "no memory for a note on the workspace");
    *block = (cuda_kept_block){own->data, own->kept};
    own->kept = block;
    return RFA_OK;
}

/* Waits for the work that is queued on it, which is rare: sizes settle after the
 * first calls. */
static rfa_status free_block(cuda_state *state, rfa_error *err)
{
    const cuda_driver *driver = state->driver;
    rfa_status status = cuda_check(driver, driver->EventSynchronize(state->workspace.last),
                                   "cuEventSynchronize", err);
    if (status == RFA_OK)
        driver->MemFree((CUdeviceptr)(uintptr_t)state->workspace.data);
    return status;
}

static rfa_status drop_block(cuda_state *state, rfa_error *err)
{
    cuda_workspace *own = &state->workspace;
    if (!own->data)
        return RFA_OK;
    rfa_status status = own->captured ? keep_block(own, err) : free_block(state, err);
    if (status == RFA_OK) {
        own->data = NULL;
        own->size = 0;
        own->captured = false;
    }
    return status;
}

static rfa_status grow(cuda_state *state, size_t size, bool capturing, rfa_error *err)
{
    cuda_workspace *own = &state->workspace;
    if (capturing)
        return rfa_fail(err, RFA_OUT_OF_MEMORY,
                        "the context's workspace of %zu bytes cannot grow to %zu while the stream "
                        "is captured into a graph: pass a workspace",
                        own->size, size);
    rfa_status status = RFA_OK;
    if (!own->last)
        status = cuda_check(state->driver,
                            state->driver->EventCreate(&own->last, CU_EVENT_DISABLE_TIMING),
                            "cuEventCreate", err);
    if (status == RFA_OK)
        status = drop_block(state, err);
    if (status == RFA_OK)
        status = cuda_alloc(state, size, &own->data, err);
    if (status == RFA_OK)
        own->size = size;
    return status;
}

rfa_status cuda_workspace_take(void *data_of_state, size_t size, void *stream, void **data,
                               rfa_error *err)
{
    cuda_state *state = data_of_state;
    cuda_workspace *own = &state->workspace;
    rfa_status status = cuda_enter(state, err);
    if (status != RFA_OK)
        return status;
    bool capturing = is_capturing(state, stream);
    if (size > own->size)
        status = grow(state, size, capturing, err);
    if (status == RFA_OK)
        status = cuda_check(state->driver,
                            state->driver->StreamWaitEvent((CUstream)stream, own->last,
                                                           capturing ? CU_EVENT_WAIT_EXTERNAL
                                                                     : CU_EVENT_WAIT_DEFAULT),
                            "cuStreamWaitEvent", err);
    cuda_leave(state);
    *data = own->data;
    return status;
}

rfa_status cuda_workspace_give(void *data_of_state, void *stream, rfa_error *err)
{
    cuda_state *state = data_of_state;
    cuda_workspace *own = &state->workspace;
    rfa_status status = cuda_enter(state, err);
    if (status != RFA_OK)
        return status;
    bool capturing = is_capturing(state, stream);
    own->captured |= capturing;
    status = cuda_check(state->driver,
                        state->driver->EventRecordWithFlags(own->last, (CUstream)stream,
                                                            capturing ? CU_EVENT_RECORD_EXTERNAL
                                                                      : CU_EVENT_RECORD_DEFAULT),
                        "cuEventRecordWithFlags", err);
    cuda_leave(state);
    return status;
}

/* The state's context is current. */
void cuda_workspace_destroy(cuda_state *state)
{
    cuda_workspace *own = &state->workspace;
    if (own->last)
        state->driver->EventSynchronize(own->last);
    if (own->data)
        state->driver->MemFree((CUdeviceptr)(uintptr_t)own->data);
    while (own->kept) {
        cuda_kept_block *block = own->kept;
        own->kept = block->next;
        state->driver->MemFree((CUdeviceptr)(uintptr_t)block->data);
        free(block);
    }
    if (own->last)
        state->driver->EventDestroy(own->last);
}
