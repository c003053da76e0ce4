/* Attention on Hopper: a thread block computes one work item after the other, 192 or 128 q rows of
 * one (batch, head). There is one block a multiprocessor at most, and who is all but through with
 * an item takes the next that nobody has, where heads may differ one of the dearest head that has
 * any (queue.cuh): those that keep more than others leave none idle. Loads of an item begin while
 * the one before is computed.
 * What is computed does not depend on who computes it. (Without the preparing kernel, which zeroes
 * the counters, blocks take items in turn.)
 *
 * Who: three consumer warpgroups, or two, have 64 q rows each, which are one decision block
 * (consumer.cuh). They share tiles of 128 keys, which two warps load, one K and one V, and decide
 * apart. A fourth warpgroup is these two, a warp that brings Q (producer.cuh), and a recorder,
 * which writes decisions down (recorder.cuh).
 *
 * Where: shared memory holds Q (48 KiB at head dim 128 with 192 rows), rings of three K and two V
 * tiles (32 KiB each), 128-byte swizzled, 64 elements a row, so head dim 128 is two halves side by
 * side; then barriers and what warps tell each other (layout.cuh). A consumer's thread has two
 * arrays in registers: the output (64 x dim, f32, of the warpgroup) and the scores (64 x 128), in
 * whose place come the weights: 64 + 64 of 160 registers.
 *
 * Order: a warpgroup does one thing after the other, scores, weights, decision, output; that there
 * are three of them keeps the tensor cores busy. Two with two arrays of scores each, which never
 * wait for their own products, were 8 % slower when dense.
 *
 * Weights are 2^(score factor - offset), with a row's offset the largest score of some earlier
 * visit, not of this one. So nobody looks for maxima unless a decision needs them, and the output
 * need not be scaled. If a row's weights come out too large, the warpgroup computes the visit's
 * scores again, raises the offsets to the maxima, as on the first visit, and goes on. Offsets are
 * part of no decision: the rule's shares do not change with them. They move at the same visits in
 * every walk, which is what makes never skipping equal dense bit for bit. Sums run in a fixed order
 * everywhere: repeated runs give the same bits.
 *
 * Handing over, by work item: the K producer finds it and makes it known, when all are through with
 * the one before the last; a warpgroup's q rows may be replaced when it has the last scores of
 * them.
 *
 * By visit n, counted over all items: `wanted` when the first warpgroup keeps it or the last skips
 * it, upon which the V tile is loaded, or not; the next visit's also, ahead of its decision,
 * because kept visits come in runs. `v_ready` when it is there; `done` when all are through with
 * it, after which its place is free. Phases of barriers by visit are told apart by parity alone, so
 * nobody may be SLOTS visits ahead of anybody: the K producer holds visits back at a gate until the
 * recorder and the V producer are close enough. (The V producer opens it after its own waits for
 * `done`, and the recorder when a V tile says that the V producer did so before: else a model of
 * the barriers, tests/cuda/hopper_model.py, finds schedules that hang. Change it with them.)
 *
 * Varied kernels (spans.cuh, hidden_keys.cuh) take causal masks and packs. A warpgroup may see less
 * of the keys than the last one of its item does, to which the list is cut: it passes visits over,
 * as if it skipped them, with scores that are all masked. Rows that see a part of a tile have the
 * rest masked, and where V holds an infinity or a NaN there, take its rows key by key.
 *
 * Checkers: all threads that read or write a work item arrive for themselves, so that racecheck
 * follows. It does not follow what a warp's first lane hands over for the others behind
 * __syncwarp(): visits from the second 32 of a work item on, and places that come round again. That
 * orders them all the same, and the model knows how.
 *
 * What the assembler needs (read its C75xx notes: one of them means that it waits for each product
 * alone):
 * - wgmma_begin() before each product;
 * - one place in the program for each of the two products (C7511): computing scores again is
 *   another turn of the loop;
 * - the first product of a visit's scores reads what was there in name only (wgmma_shared_first);
 * - no branch between the start of the output's product and its end (C7517);
 * - decisions as votes of the warp, so that it knows that a warp agrees, and keeps descriptors,
 *   stages and barriers in uniform registers: 130 bytes of spills without;
 * - rows' kappa, and what they were before offsets were raised, in shared memory (spills);
 * - descriptors as low words: as 64-bit values they took 16 registers more.
 *
 * Tried and lost: pairs of thread blocks that load half of every K tile for both (no gain
 * over one block of 192 rows). Warpgroups that take turns to start their products: no difference.
 * V loaded always, ahead: none either. What follows a visit before, not under, the next one's
 * product: recall with exact masses 10 to 15 % slower. Scores as two halves of 64 keys, one's
 * exponentials under the other's product: all walks 5 to 20 % slower. Weights computed, or the next
 * scores started, before a decision is known, on the guess that it is as the one before: slower.
 *
 * What limits it: power, dense and with half of the blocks kept; else latency in three warps a
 * scheduler. docs/performance.md has the cycles.
 */
#ifndef RFA_HOPPER_ATTENTION_CUH
#define RFA_HOPPER_ATTENTION_CUH

#include "consumer.cuh"
#include "hidden_keys.cuh"
#include "layout.cuh"
#include "producer.cuh"
#include "recorder.cuh"

template <int groups> __device__ __forceinline__ void prepare(const hopper_params &p, exchange *x)
{
    prefetch_map(&p.q);
    prefetch_map(&p.k);
    prefetch_map(&p.v);
    for (int i = 0; i < ITEMS_KNOWN; i++) {
        barrier_init(shared_address(&x->item_ready[i]), 32);
        barrier_init(shared_address(&x->item_taken[i]), 128 * groups + 3 * 32); /* Q, V, recorder */
    }
    for (int i = 0; i < groups; i++) {
        barrier_init(shared_address(&x->q_full[i]), 1);
        barrier_init(shared_address(&x->q_empty[i]), 1);
    }
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

template <typename T, int dim, walk_mode mode, int groups, bool varied>
__device__ __forceinline__ void attend(const hopper_params &p)
{
    extern __shared__ char raw[];
    shared_layout<dim, groups> s(raw);
    if (threadIdx.x == 0)
        prepare<groups>(p, s.x);
    __syncthreads();
    int group = __shfl_sync(~0u, threadIdx.x / 128, 0);
    int warp = __shfl_sync(~0u, threadIdx.x / 32, 0), lane = threadIdx.x % 32;
    if (group == 0) {
        registers_release<producer_registers<groups>>();
        if (warp == 0) {
            key_producer<dim, mode, groups, varied> me = {p, s, lane, {p, lane}};
            me.run();
        } else if (warp == 1) {
            value_producer<dim, mode, groups, varied> me = {p, s, lane};
            me.run();
        } else if (warp == 2) {
            recorder<dim, mode, groups, varied> me = {p, s, lane};
            me.run();
        } else {
            query_producer<dim, groups, varied> me = {p, s, lane};
            me.run();
        }
    } else {
        registers_take<consumer_registers<groups>>();
        consumer<T, dim, mode, groups, varied> me = {p, s, group - 1, (int)threadIdx.x % 128};
        me.run();
    }
}

#endif
