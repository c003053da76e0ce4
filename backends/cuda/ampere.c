/* Starts the kernels of ampere.cuh. */
#include "ampere.h"

#include "cuda_backend.h"

/* With one or two tiles of values. */
static size_t shared_bytes(const cuda_variant *v, int value_tiles)
{
    return (size_t)(3 + value_tiles) * 128 * (size_t)v->width * 2 + AMPERE_EXCHANGE_BYTES;
}

bool cuda_ampere_takes(const cuda_variant *v, const cuda_state *state, const rfa_problem *p)
{
    return cuda_is_common(v, p) && shared_bytes(v, 1) <= (size_t)state->shared_memory;
}

rfa_status cuda_ampere_launch(const cuda_variant *v, const cuda_state *state, CUfunction kernel,
                              const rfa_problem *p, const cuda_call *call, rfa_error *err)
{
    cuda_call own = *call;
    int two = shared_bytes(v, 2) <= (size_t)state->shared_memory;
    void *parameters[] = {&own, &two};
    CUresult result = state->driver->LaunchKernel(
        kernel, (unsigned)cuda_ceil_div(p->len_q, AMPERE_ROWS), (unsigned)p->heads_q,
        (unsigned)p->batch, AMPERE_THREADS, 1, 1, (unsigned)shared_bytes(v, 1 + two), p->stream,
        parameters, NULL);
    return cuda_check(state->driver, result, v->kernel, err);
}
