/* Attention by mma.sync and cp.async, for the common case: f16 or bf16, head dims
 * to 128, decision blocks of 64 x 128. ../attention.cuh serves the rest.
 *
 * Who: four warps compute a decision block. Two halve its rows (32 each, so that every
 * fragment of keys or values feeds two matrix instructions) and two halve the keys (64 each).
 * To head dim 64 a decision block is a block of threads of its own, and a multiprocessor
 * has registers for three. Beyond, two make a block of threads, the only one there is room
 * for: they share the tiles of keys and values and decide apart.
 * The warps of either half of the keys keep running maxima, sums and output of their own,
 * as if the keys had been split between two machines; the halves join at the very end.
 * So without decisions no warp ever waits for another's numbers.
 *
 * Where: q and a ring of two to four tiles of 128 keys or of their values in shared
 * memory, swizzled (pieces.cuh). Scores (32 x 64 a warp), weights and output
 * (32 x DIM) are registers.
 *
 * Cards with 99 KiB for a block of threads have no room for two tiles of 128 elements a row beside
 * q. There the ring holds three tiles of 64, a block's keys are two of them, and so are its values:
 * 11 to 17 % slower for two more handings over a visit, whatever the length of the ring.
 *
 * Causal masks have kernels of their own. A visit of which a decision block sees nothing is
 * computed all the same, with scores that are all masked, and skipped without being counted. Where
 * values that the mask hides from some row are not finite, 0 times them is not 0: who finds that
 * says so (gave_up), and ../attention.cuh, which comes next, computes the call instead of nothing.
 *
 * Order: keys and values of the visits take slots of the ring in turn. Every warp loads its
 * share of a tile and waits on two barriers a slot: all shares have landed, all warps are
 * done with what was there. Whoever is ahead can get up to a tile further, so that the softmax
 * of one warp runs under the products of another. To head dim 64 a warp's own exponentials, of
 * 16 keys at a time, take turns with the products of those keys' values, where its decisions do
 * not need the sums first (exact masses). A walk that decides loads values ahead only
 * if somebody kept the visit before the last, which in the default order is the neighbour;
 * whoever keeps a visit whose values are not there fetches them, once for all.
 *
 * Decisions (decider.cuh, decisions.cuh): the four warps tell each other maxima, and sums, once a
 * visit, and each draws the same conclusion. Two of them then bring the accounts up to date.
 *
 * One formula for the kept path in every walk, and sums of its own apart from those that
 * decisions read, is what makes never skipping equal dense bit for bit.
 *
 * Tried and lost, with the figures of docs/performance.md: the two decision blocks in opposite
 * phases, a barrier of all threads between, the halves of the keys sharing their maxima;
 * exponentials between the products of the values with two decision blocks a block of threads
 * (with one they win) or between those of the visit before (head dim 64); weights computed 16
 * keys ahead of their products (head dim 64: no faster); loads a tile later, or in the middle of
 * products (tiles of half rows); a warp that only loads (no registers: a ninth warp leaves 168 to
 * each thread of all); two decision blocks a block of threads at head dim 64; accounts of every
 * warp's own, brought up to date under the next products.
 */
#ifndef RFA_CUDA_AMPERE_ATTENTION_CUH
#define RFA_CUDA_AMPERE_ATTENTION_CUH

#include "decisions.cuh"
#include "finish.cuh"
#include "loads.cuh"
#include "softmax.cuh"
#include "start.cuh"

namespace ampere
{

template <class T, int DIM, int TILE, bool CAUSAL, walk_mode MODE>
__device__ __forceinline__ void walk<T, DIM, TILE, CAUSAL, MODE>::find_next(const float (&top)[4],
                                                                            float (&next)[4]) const
{
#pragma unroll
    for (int i = 0; i < 4; i++)
        next[i] = larger(max[i], top[i]);
}

template <class T, int DIM, int TILE, bool CAUSAL, walk_mode MODE>
__device__ __forceinline__ void walk<T, DIM, TILE, CAUSAL, MODE>::weigh_all(const float (&next)[4],
                                                                            float (&part)[4])
{
    float offset[4];
    find_offsets(next, offset);
#pragma unroll
    for (int step = 0; step < 4; step++)
        weigh(step, offset, part);
}

template <class T, int DIM, int TILE, bool CAUSAL, walk_mode MODE>
__device__ __forceinline__ void walk<T, DIM, TILE, CAUSAL, MODE>::keep(int n, const float (&top)[4],
                                                                       float (&part)[4])
{
    float next[4];
    find_next(top, next);
    if (MODE != WALK_EXACT && !interleaves)
        weigh_all(next, part);
    rescale(next);
    await_values(n);
    constexpr bool checks_first = !decides && DIM > AMPERE_NARROW; /* else it would spill */
    float offset[4];
    if (interleaves)
        find_offsets(next, offset);
#pragma unroll
    for (int i = 0; i < PARTS; i++) {
        if (i > 0)
            next_tile(2 * PARTS * n + PARTS + i);
        if (CAUSAL && checks_first)
            check_values(block_of(n));
#pragma unroll
        for (int step = 0; step < 4; step++) {
            if (interleaves)
                weigh(step, offset, part);
            multiply_values(step, i);
        }
        if (CAUSAL && !checks_first)
            check_values(block_of(n));
    }
    float4 &sum = x.sum[decides ? thread_now() : threadIdx.x];
    sum = {sum.x + part[0], sum.y + part[1], sum.z + part[2], sum.w + part[3]};
}

template <class T, int DIM, int TILE, bool CAUSAL, walk_mode MODE>
__device__ __forceinline__ void walk<T, DIM, TILE, CAUSAL, MODE>::visit(int n)
{
    int block = records ? block_of(n) : 0; /* else once in a walk, so read where it is wanted */
    float top[4], part[4] = {0, 0, 0, 0};
    await_tile();
#pragma unroll
    for (int i = 0; i < PARTS; i++) {
        if (i > 0)
            next_tile(2 * PARTS * n + i);
        multiply_keys(i);
    }
    leave_tile(2 * PARTS * n + PARTS - 1);
    if (CAUSAL)
        mask_unseen(decides || DIM > AMPERE_NARROW ? block : block_of(n));
    else if (records)
        mask_past_end(block);
    else if (n == x.ragged)
        mask_past_end(block_of(n));
    find_tops(top);
    if (decides)
        tell_tops(n, top);
    if (MODE == WALK_EXACT) {
        float next[4];
        find_next(top, next);
        weigh_all(next, part);
        tell_sums(n, part);
    }
    bool keeps = (has_rows || rows() > 0) && (decides || !CAUSAL || sees(block_of(n)));
    if (decides) {
        __syncwarp();
        if (lane() == 0)
            arrive(told_at());
        /* Wide: `block` would spill where masses are estimated; narrow: asking again would. */
        keeps = decide(n, DIM > AMPERE_NARROW ? block_of(n) : block);
        if (keeps && !is_likely(n))
            fetch_late(n);
    }
    if (keeps) {
        if (decides)
            recall_tops(n, top);
        keep(n, top, part);
        if (MODE == WALK_VOTE || MODE == WALK_ESTIMATED)
            tell_sums(n, part);
        if (records && threadIdx.x % GROUP_THREADS == 0)
            record(block_of(n));
    } else {
        await_tile(); /* else copies to come could overtake these */
#pragma unroll
        for (int i = 1; i < PARTS; i++)
            next_tile(2 * PARTS * n + PARTS + i);
    }
    leave_tile(2 * PARTS * n + 2 * PARTS - 1);
}

template <class T, int DIM, int TILE, bool CAUSAL, walk_mode MODE>
__device__ __forceinline__ void walk<T, DIM, TILE, CAUSAL, MODE>::run(char *raw)
{
    clear_decisions();
    load_queries();
    if (decides)
        start_accounts();
    for (int i = 0; i < x.slots - 1; i++)
        load(i, i);
    if (x.visits == 0)
        wait_copies<0>();
    if (!records)
        find_ragged();
    __syncthreads(); /* decisions are clear */
    if (!records)
        record_all();
#pragma unroll 1
    for (int n = 0; n < x.visits; n++)
        visit(n);
    float sum[4];
    if (join_halves(raw, sum))
        write_rows(sum);
    if (threadIdx.x % GROUP_THREADS < WARP)
        report();
}

} // namespace ampere

#define AMPERE_KERNEL(name, type, dim, tile, causal, mode)                                         \
    extern "C" __global__ void __launch_bounds__(ampere::groups_of(dim) * ampere::GROUP_THREADS,   \
                                                 ampere::blocks_of(dim))                           \
        name(const __grid_constant__ cuda_call c, int slots)                                       \
    {                                                                                              \
        extern __shared__ __align__(1024) char raw[];                                              \
        ampere::walk<type, dim, tile, causal, ampere::mode>(c, raw, slots).run(raw);               \
    }

#define AMPERE_WALKS(name, type, dim, tile, causal)                                                \
    AMPERE_KERNEL(name##_dense, type, dim, tile, causal, WALK_DENSE)                               \
    AMPERE_KERNEL(name##_vote, type, dim, tile, causal, WALK_VOTE)                                 \
    AMPERE_KERNEL(name##_estimated, type, dim, tile, causal, WALK_ESTIMATED)                       \
    AMPERE_KERNEL(name##_exact, type, dim, tile, causal, WALK_EXACT)

/* tile: columns of a tile. */
#define AMPERE_KERNELS(name, type, dim, tile)                                                      \
    AMPERE_WALKS(name, type, dim, tile, false)                                                     \
    AMPERE_WALKS(name##_causal, type, dim, tile, true)

#endif
