/* The warp that counts what was kept and writes it down bit by bit. */
#ifndef RFA_HOPPER_RECORDER_CUH
#define RFA_HOPPER_RECORDER_CUH

#include "layout.cuh"

template <int dim, walk_mode mode, int groups, bool varied> struct recorder {
    const hopper_params &p;
    const shared_layout<dim, groups> &s;
    int lane;
    work_item at;
    int kept[groups]; /* of this lane's visits, in the work item */

    __device__ __forceinline__ int block_of(int group)
    {
        return at.block + group;
    }

    __device__ __forceinline__ uint32_t *words(int group)
    {
        return p.decisions + at.batch * p.decisions_stride[0] + at.head * p.decisions_stride[1] +
               block_of(group) * p.decisions_stride[2];
    }

    /* Votes on visit n, once everybody is through with it. */
    __device__ __forceinline__ uint32_t take_votes(uint32_t n)
    {
        WAIT_FOR_VISIT(done, n);
        /* The V producer may look too late. */
        uint32_t votes = lane == 0 ? atomicExch(&s.x->votes[n % SLOTS], 0u) : 0;
        if (n % GATE_VISITS == GATE_VISITS - 1)
            open_gate(n);
        return __shfl_sync(~0u, votes, 0);
    }

    /* Not before the V producer has opened it the time before, two visits ago: the last visit of a
     * work item may be done without keys that the gate held back. */
    __device__ __forceinline__ void open_gate(uint32_t n)
    {
        if (n > GATE_VISITS) {
            WAIT_FOR_VISIT(v_ready, n - 1);
            barrier_wait(BARRIER(gate, 0), (n / GATE_VISITS & 1) ^ 1); /* over: for synccheck */
        }
        if (lane == 0)
            barrier_arrive(BARRIER(gate, 0));
    }

    __device__ __forceinline__ void write(int group, uint32_t block)
    {
        kept[group]++;
        if (p.decisions && block_of(group) < p.blocks_q)
            atomicOr(words(group) + block / 32, 1u << block % 32);
    }

    /* The item's next 32 visits, one a lane: from the k-th, n of all, on. */
    __device__ __forceinline__ void record(uint32_t n, int k)
    {
        int count = at.visits - k < 32 ? at.visits - k : 32;
        uint32_t own = lane < count && mode == WALK_DENSE ? ALL_KEPT : 0, block = 0;
#pragma unroll 1
        for (int i = 0; i < count && mode != WALK_DENSE; i++) {
            uint32_t votes = take_votes(n + i);
            own = lane == i ? votes : own;
        }
        if (mode == WALK_DENSE)
            block = (uint32_t)(lane < count && p.list ? p.list[at.first_entry(p) + k + lane]
                                                      : k + lane);
        else if (lane < count) /* not yet written over: the gate saw to it */
            block = s.x->visit[(n + lane) % VISITS_KNOWN].block & block_bits<varied>;
#pragma unroll
        for (int group = 0; group < groups; group++)
            if (own & KEPT << group)
                write(group, block);
    }

    /* Dense: 32 entries of the list, of which each warpgroup keeps what it sees. */
    __device__ __forceinline__ void record_seen(const item_span &span, int k)
    {
        bool listed = k + lane < span.listed;
        int block = listed ? p.list[at.first_entry(p) + k + lane] : 0;
#pragma unroll
        for (int group = 0; group < groups; group++)
            if (listed && block < span.seen[group])
                write(group, (uint32_t)block);
    }

    /* The item's visits; n: its first. */
    __device__ __forceinline__ void record_all(uint32_t n, const item_span &span)
    {
        const int count = varied && mode == WALK_DENSE ? span.listed : at.visits;
#pragma unroll 1
        for (int k = 0; k < count; k += 32) {
            if (varied && mode == WALK_DENSE)
                record_seen(span, k);
            else
                record(n + k, k);
        }
    }

    /* Nobody has the blocks after a pack's shorter sequences: who has a head's last rows. */
    __device__ __forceinline__ void clear_beyond(const item_span &span)
    {
        int last = at.block + groups;
        if (!p.decisions || (int64_t)last * HOPPER_BLOCK_Q < span.len_q)
            return;
#pragma unroll 1
        for (; last < p.blocks_q; last++)
#pragma unroll 1
            for (int i = lane; i < p.decision_words; i += 32)
                words(last - at.block)[i] = 0;
    }

    __device__ __forceinline__ void clear()
    {
#pragma unroll
        for (int group = 0; group < groups; group++) {
            kept[group] = 0;
#pragma unroll 1
            for (int i = lane; p.decisions && block_of(group) < p.blocks_q && i < p.decision_words;
                 i += 32)
                words(group)[i] = 0;
        }
        __syncwarp(); /* before bits are set */
    }

    __device__ __forceinline__ void report()
    {
#pragma unroll
        for (int group = 0; group < groups; group++) {
#pragma unroll 1
            for (int step = 16; step > 0; step /= 2)
                kept[group] += __shfl_xor_sync(~0u, kept[group], step);
            if (lane == 0 && p.block_kept && block_of(group) < p.blocks_q)
                p.block_kept[at.head_index(p) * p.blocks_q + block_of(group)] = kept[group];
        }
    }

    __device__ __forceinline__ void run()
    {
        uint32_t n = 0; /* visits before the item's */
#pragma unroll 1
        for (uint32_t i = 0;; i++) {
            at = take_item(s, i);
            if (at.block < 0)
                break;
            const item_span &span = s.x->span[i % ITEMS_KNOWN];
            if (varied)
                clear_beyond(span);
            clear();
            record_all(n, span);
            report();
            leave_item(s, i);
            n += (uint32_t)at.visits;
        }
    }
};

#endif
