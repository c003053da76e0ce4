#ifndef RFA_HOPPER_ATTENTION_CUH
#define RFA_HOPPER_ATTENTION_CUH

#include "consumer.cuh"
#include "layout.cuh"
#include "producer.cuh"
#include "recorder.cuh"

template <int groups>
__device__ __forceinline__ void prepare(const hopper_params &p, exchange *x)
{
    prefetch_map(&p.q);
    prefetch_map(&p.k);
    prefetch_map(&p.v);
    barrier_init(shared_address(&x->q_full), 1);
    for (int i = 0; i < HOPPER_K_STAGES; i++) {
        barrier_init(shared_address(&x->k_full[i]), 1);
        barrier_init(shared_address(&x->k_empty[i]), groups);
    }
    for (int i = 0; i < SLOTS; i++) {
        barrier_init(shared_address(&x->wanted[i]), 1);
        barrier_init(shared_address(&x->done[i]), 4 * groups);
        barrier_init(shared_address(&x->v_ready[i]), 1);
        x->votes[i] = 0;
    }
    barrier_init(shared_address(&x->gate), 2);
    barrier_init_done();
}

/* Registers a thread: 64K in all. */
template <int groups> constexpr int producer_registers = groups == 3 ? 32 : 24;
template <int groups> constexpr int consumer_registers = groups == 3 ? 160 : 240;

template <typename T, int dim, walk_mode mode, int groups>
__device__ __forceinline__ void attend(const hopper_params &p)
{
    extern __shared__ char raw[];
    shared_layout<dim, groups> s(raw);
    if (threadIdx.x == 0)
        prepare<groups>(p, s.x);
    __syncthreads();
    place at = find_place<groups>(p);
    int group = __shfl_sync(~0u, threadIdx.x / 128, 0);
    int warp = __shfl_sync(~0u, threadIdx.x / 32, 0), lane = threadIdx.x % 32;
    if (group == 0) {
        registers_release<producer_registers<groups>>();
        if (warp == 0) {
            key_producer<dim, mode, groups> me = {p, s, at, lane};
            me.run();
        } else if (warp == 1) {
            value_producer<dim, mode, groups> me = {p, s, at, lane};
            me.run();
        } else if (warp == 2) {
            recorder<dim, mode, groups> me = {p, s, at, lane};
            me.run();
        }
    } else {
        registers_take<consumer_registers<groups>>();
        consumer<T, dim, mode, groups> me = {p, s, at, group - 1, (int)threadIdx.x % 128};
        me.run();
    }
}

#endif
