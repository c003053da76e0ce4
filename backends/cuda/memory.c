/* Device memory. */
#include "cuda_backend.h"

/* Under graph capture the driver would refuse, and spoil the capture. */
static bool is_capturing(const cuda_state *state)
{
    CUstreamCaptureStatus status;
    return state->driver->StreamIsCapturing(CU_STREAM_LEGACY, &status) ==
           CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
}

rfa_status cuda_alloc(void *data_of_state, size_t size, void **data, rfa_error *err)
{
    const cuda_state *state = data_of_state;
    CUdeviceptr address = 0;
    *data = NULL;
    rfa_status status = cuda_enter(state, err);
    if (status != RFA_OK)
        return status;
    if (is_capturing(state)) {
        status = rfa_fail(err, RFA_OUT_OF_MEMORY,
                          "%zu bytes cannot be allocated while a stream is captured into a graph, "
                          "give a workspace",
                          size);
    } else {
        CUresult result = state->driver->MemAlloc(&address, size);
        status = cuda_check(state->driver, result, "cuMemAlloc", err);
        if (result == CUDA_ERROR_OUT_OF_MEMORY)
            status =
                rfa_fail(err, RFA_OUT_OF_MEMORY,
                         "the device has no room for %zu bytes (CUDA_ERROR_OUT_OF_MEMORY)", size);
        if (result == CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED)
            status = RFA_OUT_OF_MEMORY;
    }
    cuda_leave(state);
    *data = (void *)(uintptr_t)address;
    return status;
}

void cuda_free(void *data_of_state, void *data)
{
    const cuda_state *state = data_of_state;
    rfa_error ignored;
    if (!data || cuda_enter(state, &ignored) != RFA_OK)
        return;
    state->driver->MemFree((CUdeviceptr)(uintptr_t)data);
    cuda_leave(state);
}

/* Waits for a copy that was queued with this result, and for all before it. */
static rfa_status finish_copy(const cuda_state *state, CUresult result, void *stream,
                              const char *what, rfa_error *err)
{
    if (result == CUDA_SUCCESS)
        result = state->driver->StreamSynchronize((CUstream)stream);
    return cuda_check(state->driver, result, what, err);
}

rfa_status cuda_write(void *data_of_state, void *data, size_t offset, const void *host, size_t size,
                      void *stream, rfa_error *err)
{
    const cuda_state *state = data_of_state;
    rfa_status status = size > 0 ? cuda_enter(state, err) : RFA_OK;
    if (status != RFA_OK || size == 0)
        return status;
    CUdeviceptr to = (CUdeviceptr)(uintptr_t)data + offset;
    CUresult result = state->driver->MemcpyHtoDAsync(to, host, size, (CUstream)stream);
    status = finish_copy(state, result, stream, "cuMemcpyHtoDAsync", err);
    cuda_leave(state);
    return status;
}

rfa_status cuda_read(void *data_of_state, const void *data, size_t offset, void *host, size_t size,
                     void *stream, rfa_error *err)
{
    const cuda_state *state = data_of_state;
    rfa_status status = size > 0 ? cuda_enter(state, err) : RFA_OK;
    if (status != RFA_OK || size == 0)
        return status;
    CUdeviceptr from = (CUdeviceptr)(uintptr_t)data + offset;
    CUresult result = state->driver->MemcpyDtoHAsync(host, from, size, (CUstream)stream);
    status = finish_copy(state, result, stream, "cuMemcpyDtoHAsync", err);
    cuda_leave(state);
    return status;
}

rfa_status cuda_synchronize(void *data_of_state, void *stream, rfa_error *err)
{
    const cuda_state *state = data_of_state;
    rfa_status status = cuda_enter(state, err);
    if (status != RFA_OK)
        return status;
    status = cuda_check(state->driver, state->driver->StreamSynchronize((CUstream)stream),
                        "cuStreamSynchronize", err);
    cuda_leave(state);
    return status;
}
