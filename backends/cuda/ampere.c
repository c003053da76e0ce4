/* Starts the kernels of ampere/. */
#include "ampere/launch.h"

#include "cuda_backend.h"

static int groups_of(const cuda_variant *v)
{
    return v->width <= AMPERE_NARROW ? AMPERE_NARROW_GROUPS : AMPERE_WIDE_GROUPS;
}

static int rows_of(const cuda_variant *v)
{
    return groups_of(v) * AMPERE_BLOCK_Q;
}

static size_t shared_bytes_with(const cuda_variant *v, int tiles, size_t exchange)
{
    size_t elements = (size_t)(rows_of(v) * v->width + tiles * AMPERE_BLOCK_K * v->tile);
    return 2 * elements + (size_t)groups_of(v) * exchange;
}

static size_t shared_bytes(const cuda_variant *v, int tiles)
{
    return shared_bytes_with(
        v, tiles, v->walk == CUDA_WALK_DENSE ? AMPERE_DENSE_EXCHANGE_BYTES : AMPERE_EXCHANGE_BYTES);
}

static int fewest_tiles(const cuda_variant *v)
{
    return v->tile < v->width ? AMPERE_FEWEST_HALVES : AMPERE_FEWEST_TILES;
}

/* Blocks of threads that a multiprocessor takes. */
static int blocks_at_once(const cuda_variant *v, const cuda_state *state, int tiles)
{
    const size_t own = 1024; /* of every block and of the multiprocessor */
    int most = v->width <= AMPERE_NARROW ? AMPERE_NARROW_BLOCKS : 1;
    return (int)cuda_min(
        most, (int64_t)(((size_t)state->shared_memory + own) / (shared_bytes(v, tiles) + own)));
}

/* More blocks at once are worth more than a longer ring. */
static int tiles_of(const cuda_variant *v, const cuda_state *state)
{
    int tiles = AMPERE_MOST_TILES;
    while (tiles > fewest_tiles(v) &&
           blocks_at_once(v, state, tiles) < blocks_at_once(v, state, fewest_tiles(v)))
        tiles--;
    return tiles;
}

bool cuda_ampere_takes(const cuda_variant *v, const cuda_state *state, const rfa_problem *p)
{
    return cuda_is_common(v, p) && v->causal == p->causal &&
           /* Whatever the walk. */
           shared_bytes_with(v, fewest_tiles(v), AMPERE_EXCHANGE_BYTES) <=
               (size_t)state->shared_memory;
}

rfa_status cuda_ampere_launch(const cuda_variant *v, const cuda_state *state, CUfunction kernel,
                              const rfa_problem *p, const cuda_call *call, rfa_error *err)
{
    cuda_call own = *call;
    int tiles = tiles_of(v, state);
    void *parameters[] = {&own, &tiles};
    CUresult result = state->driver->LaunchKernel(
        kernel, (unsigned)cuda_ceil_div(p->len_q, rows_of(v)), (unsigned)p->heads_q,
        (unsigned)p->batch, (unsigned)(groups_of(v) * AMPERE_GROUP_THREADS), 1, 1,
        (unsigned)shared_bytes(v, tiles), p->stream, parameters, NULL);
    rfa_status status = cuda_check(state->driver, result, v->kernel, err);
    /* Which computes the call if this kernel gave up. */
    return status == RFA_OK && v->causal ? cuda_launch_any_card(state, p, call, err) : status;
}
