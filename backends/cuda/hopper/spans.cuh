/* Work of the varied kernels, whose rows need not see all keys: causal masks, and sequences of a
 * pack. By the K producer's warp. */
#ifndef RFA_HOPPER_SPANS_CUH
#define RFA_HOPPER_SPANS_CUH

#include "backends/visit_order.h"
#include "layout.cuh"

/* ---- Which rows a number means ------------------------------------------------------------- */

/* Numbers run over the q rows of a head, the heads, then the sequences. Those of a pack are as long
 * as they are, so the search goes on from where the last number, a smaller one, was. */
template <int groups> struct span_search {
    static constexpr int item_rows = groups * HOPPER_BLOCK_Q;
    uint32_t sequence = 0, before = 0; /* before: numbers of earlier sequences */

    /* Of a head. One at least, so that somebody clears an empty sequence's decisions. */
    __device__ __forceinline__ uint32_t items_of(const hopper_params &p, uint32_t n)
    {
        int64_t items = (p.sequences[n].len_q + item_rows - 1) / item_rows;
        return items > 0 ? (uint32_t)items : 1;
    }

    /* False: there is no such number. */
    __device__ __forceinline__ bool find(const hopper_params &p, int lane, uint32_t number)
    {
#pragma unroll 1
        for (; sequence < (uint32_t)p.batch; sequence += 32) {
            uint32_t n = sequence + lane;
            uint32_t own = n < (uint32_t)p.batch ? items_of(p, n) * (uint32_t)p.heads_q : 0;
            uint32_t upto = own;
#pragma unroll
            for (int step = 1; step < 32; step *= 2) {
                uint32_t below = __shfl_up_sync(~0u, upto, step);
                upto += lane >= step ? below : 0;
            }
            uint32_t there = __ballot_sync(~0u, number - before < upto);
            if (there) {
                int holder = __ffs((int)there) - 1;
                before += __shfl_sync(~0u, upto - own, holder);
                sequence += holder;
                return true;
            }
            before += __shfl_sync(~0u, upto, 31);
        }
        return false;
    }

    /* Its place; block -1: none. */
    __device__ __forceinline__ work_item find_item(const hopper_params &p, int lane,
                                                   uint32_t number)
    {
        work_item item = {-1, 0, 0, 0, 0};
        if (p.packed ? !find(p, lane, number) : number >= (uint32_t)p.items)
            return item;
        uint32_t of_head = p.packed ? items_of(p, sequence) : (uint32_t)p.items_head;
        uint32_t at = number - before, place = at % of_head;
        /* Under the causal mask later rows see more: the longest first. */
        item.block = (int)(p.causal ? of_head - 1 - place : place) * groups;
        item.head = (int)(at / of_head % (uint32_t)p.heads_q);
        item.batch = p.packed ? (int)sequence : (int)(at / of_head / (uint32_t)p.heads_q);
        return item;
    }
};

/* ---- What its rows see ----------------------------------------------------------------------- */

__device__ __forceinline__ int sequence_of(const hopper_params &p, const work_item &item)
{
    return p.packed ? item.batch : 0;
}

/* One lane. */
template <int groups>
__device__ __forceinline__ void describe_span(const hopper_params &p, const work_item &item,
                                              item_span &span)
{
    const cuda_sequence s = p.sequences[sequence_of(p, item)];
    const rfa_visit_shape shape = {s.len_q, s.len_k, p.visit_q, HOPPER_BLOCK_K, p.causal};
    span.len_q = (int)s.len_q;
    span.len_k = (int)s.len_k;
    span.first_q = (int)s.first_q;
    span.first_k = (int)s.first_k;
    span.order = p.one_order ? 0 : (int)s.first_q;
    span.batch = p.packed ? 0 : item.batch;
    span.listed = p.list_counts[item.head_index(p) * p.groups + item.row() / p.visit_q];
    span.read = 0;
#pragma unroll 1
    for (int group = 0; group < groups; group++) {
        int block = item.block + group;
        bool exists = (int64_t)block * HOPPER_BLOCK_Q < s.len_q;
        span.numbered[group] = 0;
        span.seen[group] =
            exists ? (int)rfa_visible_blocks(shape, (int64_t)(block + 1) * HOPPER_BLOCK_Q) : 0;
        span.counted[group] = exists ? p.block_visits[item.head_index(p) * p.blocks_q + block] : 0;
    }
}

template <int groups>
__device__ __forceinline__ int most_of(const int32_t (&of)[HOPPER_MOST_GROUPS])
{
    int most = 0;
#pragma unroll
    for (int group = 0; group < groups; group++)
        most = of[group] > most ? of[group] : most;
    return most;
}

/* ---- Its visits ---------------------------------------------------------------------------------
 */

/* What each warpgroup makes of a visit, one a lane: flags; and, of recall, budgets into `slot`.
 * seen: by anybody. */
template <int groups, bool budgets, class layout>
__device__ __forceinline__ uint32_t number_visits(const hopper_params &p, const layout &s,
                                                  item_span &span, float limit, int block,
                                                  bool seen, bool always, float rest, int slot)
{
    const uint32_t below = (1u << threadIdx.x % 32) - 1;
    uint32_t flags = 0;
#pragma unroll 1
    for (int group = 0; group < groups; group++) {
        bool sees = seen && block < span.seen[group];
        uint32_t all = __ballot_sync(~0u, sees);
        int before = span.numbered[group], n = before + __popc(all & below);
        flags |= !sees ? PASSED << group : n == 0 || always ? KEEP << group : 0;
        if (budgets && sees)
            s.x->budget[group][slot] =
                rfa_budget_of_visit(rule_of(p, limit), (float)n, (float)span.counted[group], rest);
        __syncwarp();
        if (threadIdx.x % 32 == 0)
            span.numbered[group] = before + __popc(all);
    }
    return flags;
}

/* Up to `room` entries of the list, and 32, from span.read on become visits n .. of the block; how
 * many do, or -1 where the list ends. flags: of all visits. */
template <int groups, walk_mode mode, class layout>
__device__ __forceinline__ int read_entries(const hopper_params &p, const layout &s,
                                            const work_item &item, item_span &span, uint32_t n,
                                            int room, uint32_t flags, int lane)
{
    int left = span.listed - span.read, take = room < left ? room : left;
    bool listed = lane < take;
    int64_t entry = item.first_entry(p) + span.read + lane;
    int block = listed ? p.list[entry] : 0;
    bool seen = listed && block < most_of<groups>(span.seen);
    uint32_t all = __ballot_sync(~0u, seen);
    int slot = (int)((n + __popc(all & ((1u << lane) - 1))) % VISITS_KNOWN);
    bool always = seen && mode != WALK_DENSE &&
                  p.always_keep[(int64_t)sequence_of(p, item) * p.blocks_k + block] & 1;
    constexpr bool budgets = mode == WALK_ESTIMATED || mode == WALK_EXACT;
    float rest = budgets && seen && p.list_rest ? p.list_rest[entry] : RFA_NO_PREDICTION;
    flags |=
        number_visits<groups, budgets>(p, s, span, item.limit, block, seen, always, rest, slot);
    int64_t end = (int64_t)(block + 1) * HOPPER_BLOCK_K;
    if (end > span.len_k || (p.causal && end > (int64_t)item.row() + 1 + span.len_k - span.len_q))
        flags |= RAGGED;
    if (seen)
        s.x->visit[slot].block = (uint32_t)block | flags;
    __syncwarp();
    if (lane == 0)
        span.read += take;
    __syncwarp();
    return take > 0 ? __popc(all) : -1;
}

#endif
