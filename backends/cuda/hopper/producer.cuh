/* The warps that load tiles: one keeps a ring of K tiles filled, one brings V tiles. */
#ifndef RFA_HOPPER_PRODUCER_CUH
#define RFA_HOPPER_PRODUCER_CUH

#include "layout.cuh"

/* One lane: 128 rows of K or V. */
template <int dim>
__device__ __forceinline__ void load_tile(const CUtensorMap *map, uint32_t to, uint32_t barrier,
                                          uint32_t block, int head_kv, int batch)
{
    using t = tile<dim>;
    int first = (int)((block & BLOCK_BITS) * HOPPER_BLOCK_K);
    barrier_arrive_expect(barrier, t::k_bytes);
#pragma unroll
    for (int i = 0; i < t::halves; i++) {
        uint32_t half = to + i * t::k_half;
        load_box(half, map, barrier, i * 64, first, head_kv, batch);
        load_box(half + t::box, map, barrier, i * 64, first + 64, head_kv, batch);
    }
}

/* ---- Q, the visits, K ---------------------------------------------------------------------- */

template <int dim, walk_mode mode, int groups> struct key_producer {
    using t = tile<dim>;
    const hopper_params &p;
    const shared_layout<dim, groups> &s;
    const place &at;
    int lane;

    __device__ __forceinline__ void load_q()
    {
        uint32_t barrier = BARRIER(q_full, 0);
        barrier_arrive_expect(barrier, groups * t::q_bytes);
        for (int group = 0; group < groups; group++)
            for (int half = 0; half < t::halves; half++)
                load_box(s.q + group * t::q_bytes + half * t::q_half, &p.q, barrier, half * 64,
                         at.row<groups>() + group * HOPPER_BLOCK_Q, at.head(), at.batch());
    }

    /* Flags of the warpgroups whose rows keep all they visit. */
    __device__ __forceinline__ uint32_t dense_groups()
    {
        uint32_t flags = 0;
        for (int group = 0; group < groups; group++) {
            int block = at.decision_block<groups>() + group;
            bool dense = at.rule.limit != at.rule.limit ||
                         (p.dense_rows && block < p.blocks_q && p.dense_rows[block]);
            flags |= dense ? KEEP << group : 0;
        }
        return flags;
    }

    /* Puts the visits from n on where the others find them, one a lane. */
    __device__ __forceinline__ void read_list(int n, uint32_t flags)
    {
        int slot = n + lane;
        bool listed = slot < at.visits;
        int64_t first = at.first_entry<groups>(p);
        int block = listed && p.list ? p.list[first + slot] : slot;
        visit_entry entry = {(uint32_t)block | flags, {0, 0, 0}};
        if (mode != WALK_DENSE &&
            (n + lane == 0 || (listed && p.always_keep && p.always_keep[block] & 1)))
            entry.block |= ALL_KEEP;
        if ((int64_t)(block + 1) * HOPPER_BLOCK_K > p.len_k)
            entry.block |= RAGGED;
        float rest =
            listed && p.list && p.list_rest ? p.list_rest[first + slot] : RFA_NO_PREDICTION;
        if (mode == WALK_ESTIMATED || mode == WALK_EXACT)
            entry.budget = rfa_budget_of_visit(at.rule, (float)slot, (float)at.visits, rest);
        s.x->visit[slot % VISITS_KNOWN] = entry;
    }

    __device__ __forceinline__ void run()
    {
        ring<HOPPER_K_STAGES> stage;
        uint32_t flags = mode == WALK_DENSE ? 0 : dense_groups();
        if (lane == 0)
            load_q();
        read_list(0, flags);
        group_sync(LIST_BARRIER, 64); /* with the warp that brings V */
#pragma unroll 1
        for (int n = 0; n < at.visits; n++) {
            if (n % VISITS_AT_ONCE == 0) { /* a batch ahead: V tiles come ahead of their visit */
                read_list(n + VISITS_AT_ONCE, flags);
                __syncwarp();
            }
            if (mode != WALK_DENSE && n % GATE_VISITS == 0 && n >= SLOTS)
                barrier_wait(BARRIER(gate, 0), n / GATE_VISITS & 1);
            barrier_wait(BARRIER(k_empty, stage.stage), stage.parity ^ 1);
            if (lane == 0)
                load_tile<dim>(&p.k, s.k + stage.stage * t::k_bytes, BARRIER(k_full, stage.stage),
                               s.x->visit[n % VISITS_KNOWN].block, at.head_kv(p), at.batch());
            stage.next();
            __syncwarp();
        }
    }
};

/* ---- V ------------------------------------------------------------------------------------- */

/* The tile of a visit lies in one of two places in turn. It is loaded when the first warpgroup
 * keeps the visit, or ahead of that if the visit before was kept: kept visits come in runs. */
template <int dim, walk_mode mode, int groups> struct value_producer {
    using t = tile<dim>;
    const hopper_params &p;
    const shared_layout<dim, groups> &s;
    const place &at;
    int lane;

    __device__ __forceinline__ void load(int n)
    {
        if (n >= HOPPER_V_STAGES) /* all are through with what was there */
            WAIT_FOR_VISIT(done, n - HOPPER_V_STAGES);
        if (lane == 0)
            load_tile<dim>(&p.v, s.v + n % HOPPER_V_STAGES * t::k_bytes,
                           BARRIER(v_ready, n % SLOTS), s.x->visit[n % VISITS_KNOWN].block,
                           at.head_kv(p), at.batch());
    }

    /* Whether somebody keeps visit n. (If its tile was loaded ahead, all may be through with it
     * and the votes gone. Then the next one is not loaded ahead, no more.) */
    __device__ __forceinline__ bool is_wanted(int n)
    {
        WAIT_FOR_VISIT(wanted, n);
        bool kept = ((volatile uint32_t *)s.x->votes)[n % SLOTS] >= KEPT;
        return __any_sync(~0u, kept);
    }

    /* By now `done` of the visits whose V places were taken over has been seen to pass: those to
     * come may pass it again. */
    __device__ __forceinline__ void open_gate(int n)
    {
        if (mode != WALK_DENSE && n % GATE_VISITS == 1 && n > GATE_VISITS && lane == 0)
            barrier_arrive(BARRIER(gate, 0));
    }

    __device__ __forceinline__ void run()
    {
        group_sync(LIST_BARRIER, 64); /* the first visits are known */
        bool kept = true;             /* the visit before */
#pragma unroll 1
        for (int n = 0; n < at.visits; n++) {
            /* A tile that was fetched in vain may still be on its way to the same place. */
            if (mode != WALK_DENSE && n >= HOPPER_V_STAGES)
                WAIT_FOR_VISIT(v_ready, n - HOPPER_V_STAGES);
            if (mode == WALK_DENSE || kept) {
                load(n);
                open_gate(n);
                kept = mode == WALK_DENSE || is_wanted(n);
            } else {
                kept = is_wanted(n);
                if (kept)
                    load(n);
                else if (lane == 0) /* nobody waits for this phase, but it must pass */
                    barrier_arrive(BARRIER(v_ready, n % SLOTS));
                open_gate(n);
            }
            __syncwarp();
        }
        /* The block must not end while a tile is on its way. */
        for (int n = at.visits < HOPPER_V_STAGES ? 0 : at.visits - HOPPER_V_STAGES; n < at.visits;
             n++)
            WAIT_FOR_VISIT(v_ready, n);
    }
};

#endif
