/* How a walk of attention.cuh begins: what its block of threads is to do, barriers, decisions
 * cleared. */
#ifndef RFA_CUDA_AMPERE_START_CUH
#define RFA_CUDA_AMPERE_START_CUH

#include "walk.cuh"

namespace ampere
{

template <class T, int DIM, int TILE, bool CAUSAL, walk_mode MODE>
__device__ __forceinline__ walk<T, DIM, TILE, CAUSAL, MODE>::walk(const cuda_call &call, char *raw,
                                                                  int ring_slots)
    : c(call), shared(shared_address(raw)), x(*(exchange *)(raw + at::x))
{
    place = {0, 0};
    if (threadIdx.x == 0) {
        x.slots = ring_slots;
        describe();
        start_barriers();
        if (decides)
            start_deciding();
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 4; i++) {
        max[i] = -INFINITY;
    }
    x.sum[threadIdx.x] = {0, 0, 0, 0};
    if (decides)
        remember(false);
    if (CAUSAL && decides && threadIdx.x % WARP == 0)
        x.numbered[threadIdx.x / WARP] = 0;
#pragma unroll
    for (int i = 0; i < DIM; i++)
        out[i / (DIM / 2)][i / 4 % (DIM / 8)][i % 4] = 0;
}

/* By one thread. */
template <class T, int DIM, int TILE, bool CAUSAL, walk_mode MODE>
__device__ __forceinline__ void walk<T, DIM, TILE, CAUSAL, MODE>::describe()
{
    int64_t n = sequence_index(c, batch());
    const cuda_sequence s = c.sequence[n];
    int64_t group_of_visits = first_row() / c.visit_q;
    int64_t head_kv = head() / (c.heads_q / c.heads_kv);
    int64_t entry =
        batch() * c.list_stride[0] + head() * c.list_stride[1] + group_of_visits * c.list_stride[2];
    x.sequence = s;
    x.source[0] = {(const char *)row_at<const T>(c.seen_k, batch(), head_kv, s.first_k),
                   c.seen_k.stride[2] * (int)sizeof(T), (c.dim + 7) / 8};
    x.source[1] = {(const char *)row_at<const T>(c.seen_v, batch(), head_kv, s.first_k),
                   c.seen_v.stride[2] * (int)sizeof(T), (c.dim_v + 7) / 8};
    x.list = c.list + entry;
    x.rest = c.list_rest ? c.list_rest + entry : nullptr;
    x.flags = c.key_flags + n * c.blocks_k;
    x.visits = 0;
    x.ragged = CAUSAL ? (int)(first_row() + 1 + s.len_k - s.len_q) : -1;
    if (first_row() < s.len_q)
        x.visits = c.list_count[head_index() * c.groups + group_of_visits];
#pragma unroll
    for (int g = 0; g < GROUPS; g++) {
        int block = first_row() / BLOCK_Q + g;
        x.rows[g] = (int)smaller(BLOCK_Q, s.len_q - first_row() - g * BLOCK_Q);
        if (CAUSAL && decides && x.rows[g] > 0)
            x.counted[g] = c.block_visits[head_index() * c.blocks_q + block];
        x.kept[g] = records || x.rows[g] <= 0 ? 0 : x.visits;
        if (decides)
            x.limit[g] = x.rows[g] > 0 && c.dense_rows[n * c.blocks_q + block]
                             ? NAN
                             : c.limits[head_index()];
    }
}

template <class T, int DIM, int TILE, bool CAUSAL, walk_mode MODE>
__device__ __forceinline__ void walk<T, DIM, TILE, CAUSAL, MODE>::start_barriers()
{
#pragma unroll
    for (int i = 0; i < AMPERE_MOST_TILES; i++) {
        start_barrier(&x.full[i], THREADS);
        start_barrier(&x.free[i], THREADS / WARP);
    }
}

template <class T, int DIM, int TILE, bool CAUSAL, walk_mode MODE>
__device__ __forceinline__ void walk<T, DIM, TILE, CAUSAL, MODE>::start_deciding()
{
#pragma unroll
    for (int g = 0; g < GROUPS; g++)
        start_barrier(&x.told[g], 4);
#pragma unroll
    for (int i = 0; i < 2; i++) {
        start_barrier(&x.late[i], 4 * WARP);
        for (int j = 0; j < 4; j++)
            x.claim[i][j] = 1; /* whose successor has parity 0 */
    }
}

template <class T, int DIM, int TILE, bool CAUSAL, walk_mode MODE>
__device__ __forceinline__ uint32_t *walk<T, DIM, TILE, CAUSAL, MODE>::decision_words() const
{
    return c.decisions.data && q_block() < c.blocks_q
               ? row_at<uint32_t>(c.decisions, batch(), head(), q_block())
               : nullptr;
}

template <class T, int DIM, int TILE, bool CAUSAL, walk_mode MODE>
__device__ __forceinline__ void walk<T, DIM, TILE, CAUSAL, MODE>::clear_decisions()
{
    uint32_t *words = decision_words();
    for (int64_t i = threadIdx.x % GROUP_THREADS; words && i < ceil_div(c.blocks_k, 32);
         i += GROUP_THREADS)
        words[i] = 0;
}

template <class T, int DIM, int TILE, bool CAUSAL, walk_mode MODE>
__device__ __forceinline__ void walk<T, DIM, TILE, CAUSAL, MODE>::find_ragged()
{
    for (int n = threadIdx.x % GROUP_THREADS; n < x.visits; n += GROUP_THREADS)
        if (keys_of(block_of(n)) < BLOCK_K)
            x.ragged = n;
}

/* Every visit is kept. */
template <class T, int DIM, int TILE, bool CAUSAL, walk_mode MODE>
__device__ __forceinline__ void walk<T, DIM, TILE, CAUSAL, MODE>::record_all()
{
    uint32_t *words = rows() > 0 ? decision_words() : nullptr;
    for (int n = threadIdx.x % GROUP_THREADS; words && n < x.visits; n += GROUP_THREADS) {
        int block = block_of(n);
        atomicOr(words + block / 32, 1u << block % 32);
    }
}

} // namespace ampere

#endif
