/* Starts the kernels of ampere.cuh. */
#include "ampere.h"

#include "cuda_backend.h"

static size_t shared_bytes(const cuda_variant *v, int tiles)
{
    int rows = AMPERE_ROWS + tiles * AMPERE_BLOCK_K;
    return (size_t)rows * (size_t)v->width * 2 + AMPERE_EXCHANGE_BYTES;
}

bool cuda_ampere_takes(const cuda_variant *v, const cuda_state *state, const rfa_problem *p)
{
    return cuda_is_common(v, p) &&
           shared_bytes(v, AMPERE_FEWEST_TILES) <= (size_t)state->shared_memory;
}

rfa_status cuda_ampere_launch(const cuda_variant *v, const cuda_state *state, CUfunction kernel,
                              const rfa_problem *p, const cuda_call *call, rfa_error *err)
{
    cuda_call own = *call;
    int tiles = AMPERE_MOST_TILES;
    while (tiles > AMPERE_FEWEST_TILES && shared_bytes(v, tiles) > (size_t)state->shared_memory)
        tiles--;
    void *parameters[] = {&own, &tiles};
    CUresult result =
        state->driver->LaunchKernel(kernel, (unsigned)cuda_ceil_div(p->len_q, AMPERE_ROWS),
                                    (unsigned)p->heads_q, (unsigned)p->batch, AMPERE_THREADS, 1, 1,
                                    (unsigned)shared_bytes(v, tiles), p->stream, parameters, NULL);
    return cuda_check(state->driver, result, v->kernel, err);
}
