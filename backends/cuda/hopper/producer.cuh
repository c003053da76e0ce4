/* The warps that load tiles: one finds work and keeps a ring of K tiles filled, one brings Q, one
 * V. */
#ifndef RFA_HOPPER_PRODUCER_CUH
#define RFA_HOPPER_PRODUCER_CUH

#include "layout.cuh"
#include "queue.cuh"
#include "spans.cuh"

/* One lane: 128 rows of K or V, of a sequence that begins at row `origin`. */
template <int dim, bool varied>
__device__ __forceinline__ void load_tile(const CUtensorMap *map, uint32_t to, uint32_t barrier,
                                          uint32_t block, int origin, int head_kv, int batch)
{
    using t = tile<dim>;
    int first = (int)((block & block_bits<varied>)*HOPPER_BLOCK_K) + origin;
    barrier_arrive_expect(barrier, t::k_bytes);
#pragma unroll
    for (int i = 0; i < t::halves; i++) {
        uint32_t half = to + i * t::k_half;
        load_box(half, map, barrier, i * 64, first, head_kv, batch);
        load_box(half + t::box, map, barrier, i * 64, first + 64, head_kv, batch);
    }
}

/* ---- Work, the visits, K ------------------------------------------------------------------- */

template <int dim, walk_mode mode, int groups, bool varied> struct key_producer {
    using t = tile<dim>;
    const hopper_params &p;
    const shared_layout<dim, groups> &s;
    int lane;
    work_queue queue;
    span_search<groups> search;
    ring<HOPPER_K_STAGES> stage;

    __device__ __forceinline__ work_item find_item(uint32_t number)
    {
        if (varied)
            return search.find_item(p, lane, number);
        work_item item = {-1, 0, 0, 0, 0};
        if (number >= (uint32_t)p.items)
            return item;
        int head = (int)number / p.items_head;
        item.block = (int)number % p.items_head * groups;
        item.head = head % p.heads_q;
        item.batch = head / p.heads_q;
        item.visits = (int)((p.len_k + HOPPER_BLOCK_K - 1) / HOPPER_BLOCK_K);
        if (p.list)
            item.visits = p.list_counts[item.head_index(p) * p.groups + item.row() / p.visit_q];
        item.limit = p.limits ? p.limits[item.head_index(p)] : p.limit;
        return item;
    }

    __device__ __forceinline__ item_span &span_of(uint32_t i)
    {
        return s.x->span[i % ITEMS_KNOWN];
    }

    /* Until all are through with the item before the last. */
    __device__ __forceinline__ void await_place(uint32_t i)
    {
        barrier_wait(BARRIER(item_taken, i % ITEMS_KNOWN), (i / ITEMS_KNOWN & 1) ^ 1);
    }

    /* What rows see of it: in the place where others find it. */
    __device__ __forceinline__ void describe(uint32_t i, work_item &item)
    {
        await_place(i);
        if (lane == 0)
            describe_span<groups>(p, item, span_of(i));
        __syncwarp();
        item.visits = most_of<groups>(span_of(i).counted);
        item.limit = p.limits[item.head_index(p)];
    }

    /* To all roles. */
    __device__ __forceinline__ void announce(uint32_t i, const work_item &item)
    {
        await_place(i); /* again, where it was described: passes at once */
        if (lane == 0)
            s.x->item[i % ITEMS_KNOWN] = item;
        barrier_arrive(BARRIER(item_ready, i % ITEMS_KNOWN)); /* each lane, of its visit too */
    }

    /* Flags of the warpgroups whose rows keep all they visit. */
    __device__ __forceinline__ uint32_t dense_groups(const work_item &item)
    {
        uint32_t flags = 0;
        for (int group = 0; group < groups; group++) {
            int block = item.block + group;
            int64_t row = varied ? (int64_t)sequence_of(p, item) * p.blocks_q + block : block;
            bool dense = item.limit != item.limit ||
                         (p.dense_rows && block < p.blocks_q && p.dense_rows[row]);
            flags |= dense ? KEEP << group : 0;
        }
        return flags;
    }

    /* Puts the item's visits from k on where the others find them, one a lane. n: its first. */
    __device__ __forceinline__ void read_list(const work_item &item, uint32_t n, int k,
                                              uint32_t flags)
    {
        int slot = k + lane;
        bool listed = slot < item.visits;
        int64_t first = item.first_entry(p);
        int block = listed && p.list ? p.list[first + slot] : slot;
        visit_entry entry = {(uint32_t)block | flags, {0, 0, 0}};
        if (mode != WALK_DENSE &&
            (slot == 0 || (listed && p.always_keep && p.always_keep[block] & 1)))
            entry.block |= ALL_KEEP;
        if ((int64_t)(block + 1) * HOPPER_BLOCK_K > p.len_k)
            entry.block |= RAGGED;
        float rest =
            listed && p.list && p.list_rest ? p.list_rest[first + slot] : RFA_NO_PREDICTION;
        if (mode == WALK_ESTIMATED || mode == WALK_EXACT)
            entry.budget =
                rfa_budget_of_visit(rule_of(p, item.limit), (float)slot, (float)item.visits, rest);
        s.x->visit[(n + slot) % VISITS_KNOWN] = entry;
        __syncwarp();
    }

    /* The same of visits k .. k + 31 where rows may see some of the keys only. */
    __device__ __forceinline__ void read_seen(const work_item &item, item_span &span, uint32_t n,
                                              int k, uint32_t flags)
    {
        const int end = item.visits < k + VISITS_AT_ONCE ? item.visits : k + VISITS_AT_ONCE;
#pragma unroll 1
        while (k < end) {
            int more = read_entries<groups, mode>(p, s, item, span, n + k, end - k, flags, lane);
            k = more < 0 ? end : k + more;
        }
    }

    __device__ __forceinline__ void read_visits(const work_item &item, uint32_t i, uint32_t n,
                                                int k, uint32_t flags)
    {
        if (varied)
            read_seen(item, span_of(i), n, k, flags);
        else
            read_list(item, n, k, flags);
    }

    /* Visits from .. end - 1 of item i. first: its first. */
    __device__ __forceinline__ void load_keys(const work_item &item, uint32_t i, uint32_t first,
                                              uint32_t flags, int from, int end)
    {
        int head_kv = item.head_kv(p);
#pragma unroll 1
        for (int k = from; k < end; k++) {
            const uint32_t n = first + k;
            /* Half a batch ahead: V tiles come ahead of their visit. */
            if (k % VISITS_AT_ONCE == VISITS_AT_ONCE / 2)
                read_visits(item, i, first, k + VISITS_AT_ONCE / 2, flags);
            if (mode != WALK_DENSE && n % GATE_VISITS == 0 && n >= SLOTS)
                barrier_wait(BARRIER(gate, 0), n / GATE_VISITS & 1);
            barrier_wait(BARRIER(k_empty, stage.stage), stage.parity ^ 1);
            if (lane == 0)
                load_tile<dim, varied>(
                    &p.k, s.k + stage.stage * t::k_bytes, BARRIER(k_full, stage.stage),
                    s.x->visit[n % VISITS_KNOWN].block, varied ? span_of(i).first_k : 0, head_kv,
                    varied ? span_of(i).batch : item.batch);
            stage.next();
            __syncwarp();
        }
    }

    /* Loads the item's keys; answers the next one's number. That is taken late: a block that sits
     * on an item behind a long one keeps it from others. */
    __device__ __forceinline__ uint32_t walk(const work_item &item, uint32_t i, uint32_t n,
                                             uint32_t flags, uint32_t number)
    {
        const int last = item.visits > LAST_VISITS ? item.visits - LAST_VISITS : 0;
        load_keys(item, i, n, flags, 0, last);
        number = queue.next(number, (uint32_t)item.head_index(p));
        load_keys(item, i, n, flags, last, item.visits);
        return number;
    }

    __device__ __forceinline__ void run()
    {
        uint32_t n = 0; /* visits so far */
        uint32_t number = queue.first();
#pragma unroll 1
        for (uint32_t i = 0;; i++) {
            work_item item = find_item(number);
            uint32_t flags = 0;
            if (item.block >= 0) {
                if (varied)
                    describe(i, item);
                flags = mode == WALK_DENSE ? 0 : dense_groups(item);
                read_visits(item, i, n, 0, flags);
            }
            announce(i, item);
            if (item.block < 0)
                break;
            number = walk(item, i, n, flags, number);
            n += (uint32_t)item.visits;
        }
    }
};

/* ---- Q ------------------------------------------------------------------------------------- */

/* A lane brings each warpgroup's rows, when the warpgroup has computed the last scores of those
 * before, whatever the others have. */
template <int dim, int groups, bool varied> struct query_producer {
    using t = tile<dim>;
    const hopper_params &p;
    const shared_layout<dim, groups> &s;
    int lane;

    __device__ __forceinline__ void load_rows(const work_item &item, uint32_t i)
    {
        const item_span &span = s.x->span[i % ITEMS_KNOWN];
        uint32_t barrier = BARRIER(q_full, lane);
        barrier_arrive_expect(barrier, t::q_bytes);
#pragma unroll
        for (int half = 0; half < t::halves; half++)
            load_box(s.q + lane * t::q_bytes + half * t::q_half, &p.q, barrier, half * 64,
                     (varied ? span.first_q : 0) + item.row() + lane * HOPPER_BLOCK_Q, item.head,
                     varied ? span.batch : item.batch);
    }

    __device__ __forceinline__ void run()
    {
#pragma unroll 1
        for (uint32_t i = 0;; i++) {
            const work_item item = take_item(s, i);
            if (item.block < 0)
                break;
            for (bool waits = lane < groups; __any_sync(~0u, waits); __nanosleep(100)) {
                if (waits && barrier_passed(BARRIER(q_empty, lane), (i & 1) ^ 1)) {
                    load_rows(item, i);
                    waits = false;
                }
            }
            leave_item(s, i);
        }
    }
};

/* ---- V ------------------------------------------------------------------------------------- */

/* The tile of a visit lies in one of two places in turn. It is loaded when the first warpgroup
 * keeps the visit, or ahead of that if the visit before was kept: kept visits come in runs. */
template <int dim, walk_mode mode, int groups, bool varied> struct value_producer {
    using t = tile<dim>;
    const hopper_params &p;
    const shared_layout<dim, groups> &s;
    int lane;
    int head_kv, batch; /* of the work item */
    int origin = 0;     /* of its sequence's rows */

    __device__ __forceinline__ void load(uint32_t n)
    {
        if (n >= HOPPER_V_STAGES) /* all are through with what was there */
            WAIT_FOR_VISIT(done, n - HOPPER_V_STAGES);
        if (lane == 0)
            load_tile<dim, varied>(&p.v, s.v + n % HOPPER_V_STAGES * t::k_bytes,
                                   BARRIER(v_ready, n % SLOTS), s.x->visit[n % VISITS_KNOWN].block,
                                   origin, head_kv, batch);
    }

    /* Whether somebody keeps visit n. (If its tile was loaded ahead, all may be through with it
     * and the votes gone. Then the next one is not loaded ahead, no more.) */
    __device__ __forceinline__ bool is_wanted(uint32_t n)
    {
        WAIT_FOR_VISIT(wanted, n);
        bool kept = lane == 0 && atomicOr(&s.x->votes[n % SLOTS], 0u) >= KEPT;
        return __any_sync(~0u, kept);
    }

    /* By now `done` of the visits whose V places were taken over has been seen to pass: those to
     * come may pass it again. */
    __device__ __forceinline__ void open_gate(uint32_t n)
    {
        if (mode != WALK_DENSE && n % GATE_VISITS == 1 && n > GATE_VISITS && lane == 0)
            barrier_arrive(BARRIER(gate, 0));
    }

    /* kept: somebody keeps the visit before, and then visit n. */
    __device__ __forceinline__ void visit(uint32_t n, bool &kept)
    {
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

    __device__ __forceinline__ void run()
    {
        uint32_t n = 0;
#pragma unroll 1
        for (uint32_t i = 0;; i++) {
            const work_item item = take_item(s, i);
            if (item.block < 0)
                break;
            bool kept = true; /* its first visit will be */
            head_kv = item.head_kv(p);
            batch = varied ? s.x->span[i % ITEMS_KNOWN].batch : item.batch;
            origin = varied ? s.x->span[i % ITEMS_KNOWN].first_k : 0;
#pragma unroll 1
            for (int k = 0; k < item.visits; k++, n++)
                visit(n, kept);
            leave_item(s, i);
        }
        /* The block must not end while a tile is on its way. */
        for (uint32_t last = n < HOPPER_V_STAGES ? 0 : n - HOPPER_V_STAGES; last < n; last++)
            WAIT_FOR_VISIT(v_ready, last);
    }
};

#endif
