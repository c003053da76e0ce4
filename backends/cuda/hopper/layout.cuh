/* What the warps of a thread block share: tiles, barriers, what they tell each other; and
 * which part of the problem the block works on. */
#ifndef RFA_HOPPER_LAYOUT_CUH
#define RFA_HOPPER_LAYOUT_CUH

#include <math.h>
#include <stddef.h>
#include <stdint.h>

#include "backends/cuda/numbers.cuh"
#define RFA_RECIPROCAL(x) reciprocal_fast(x)
#include "backends/skip_rule.h"

#include "params.h"
#include "pipeline.cuh"

/* What a consumer does about decisions. */
enum walk_mode {
    WALK_DENSE,
    WALK_VOTE,      /* blasst, energy: no masses, no recall */
    WALK_MEASURED,  /* the same with recall: masses of what is skipped */
    WALK_ESTIMATED, /* recall with estimated masses */
    WALK_EXACT      /* recall with exact masses */
};

template <int dim> struct tile {
    static constexpr int halves = dim / 64; /* boxes of 64 elements, side by side */
    static constexpr uint32_t q_half = HOPPER_BLOCK_Q * 128, q_bytes = q_half * halves;
    static constexpr uint32_t k_half = HOPPER_BLOCK_K * 128, k_bytes = k_half * halves;
    static constexpr uint32_t box = 64 * 128; /* 64 rows of one half */
};

/* Barriers by visit, and how many visits pass between two openings of the gate: all phases that
 * anybody still waits for are of the last SLOTS visits. Visits are read from the list 32 at a time,
 * while those 32 before them are walked and those before these are written down. */
enum { SLOTS = 8, GATE_VISITS = 4, VISITS_AT_ONCE = 32, VISITS_KNOWN = 4 * VISITS_AT_ONCE };
static_assert(HOPPER_V_STAGES == 2 && SLOTS == 2 * GATE_VISITS, "what the gate was proved for");

/* Named barriers: of all consumers, and one a consumer warpgroup. */
enum { CONSUMERS_BARRIER = 1, GROUP_BARRIER = 2 };

/* Flags of a visit, above its key block: KEEP << group for a warpgroup that must keep it; RAGGED
 * where somebody's row does not see all of its keys; PASSED << group where none of a warpgroup's
 * rows sees any. The last is used by varied kernels alone: lengths below 2^31 leave it room. */
constexpr uint32_t KEEP = 1u << 29, ALL_KEEP = 7 * KEEP, RAGGED = 1u << 28, PASSED = 1u << 25;
template <bool varied> constexpr uint32_t block_bits = (varied ? PASSED : RAGGED) - 1;

/* Those after the last visit mean nothing. */
struct __align__(16) visit_entry
{
    uint32_t block; /* and flags */
    rfa_visit_budget budget;
};

/* Of a q row, what is seldom needed. */
union __align__(16) row_memory
{
    struct {
        float offset, sum, skipped;
    } before; /* offsets were raised */
    struct {
        float kappa, learned;
    } estimate;
};

/* The `groups` x 64 q rows of a (batch, head) that a thread block is at work on. */
struct __align__(16) work_item
{
    int32_t block, head, batch; /* block: the first decision block; -1: no more work */
    int32_t visits;             /* key blocks to walk */
    float limit;                /* of the rule */

    /* Of q, the first. */
    __device__ __forceinline__ int row() const
    {
        return block * HOPPER_BLOCK_Q;
    }
    /* Where (batch, head) is in compact arrays. */
    __device__ __forceinline__ int64_t head_index(const hopper_params &p) const
    {
        return (int64_t)batch * p.heads_q + head;
    }
    __device__ __forceinline__ int head_kv(const hopper_params &p) const
    {
        return head / (p.heads_q / p.heads_kv);
    }
    __device__ __forceinline__ int64_t first_entry(const hopper_params &p) const
    {
        return batch * p.list_stride[0] + head * p.list_stride[1] +
               row() / p.visit_q * p.list_stride[2];
    }
};

/* Of a work item of a varied kernel: where its tokens are, and what its rows see of the keys. */
struct item_span {
    int32_t len_q, len_k;     /* of its sequence */
    int32_t first_q, first_k; /* rows of the tensors before the sequence's */
    int32_t order;            /* where the sequence begins in order_q */
    int32_t batch;            /* of the tensors */
    int32_t listed;           /* entries of its list: it walks those of them that some row sees */
    int32_t seen[HOPPER_MOST_GROUPS]; /* a warpgroup sees something of key blocks 0 .. seen - 1 */
    int32_t counted[HOPPER_MOST_GROUPS]; /* visits that it counts */
    /* How far the K producer has read the list: in all, and counted by each warpgroup. */
    int32_t read, numbered[HOPPER_MOST_GROUPS];
};

/* Work items known at once: what loads is ahead of what computes. The next one is taken when so
 * many visits are left to load. */
enum { ITEMS_KNOWN = 2, LAST_VISITS = 4 };

/* By work item: `item_ready` once it is known, `item_taken` when all are through with it. By visit
 * n, counted over all items of the block: `wanted` once somebody keeps it, or all skip it; `done`
 * when all warps are through with it; `v_ready` when its V tile is there, or nobody needs it. */
struct exchange {
    uint64_t item_ready[ITEMS_KNOWN], item_taken[ITEMS_KNOWN];
    uint64_t q_full[HOPPER_MOST_GROUPS], q_empty[HOPPER_MOST_GROUPS]; /* by work item */
    uint64_t k_full[HOPPER_K_STAGES], k_empty[HOPPER_K_STAGES];
    uint64_t wanted[SLOTS], done[SLOTS], v_ready[SLOTS];
    uint64_t gate; /* by the recorder after every fourth visit, by the V producer two later */
    uint32_t votes[SLOTS]; /* how many skip; KEPT << group for each warpgroup that keeps */
    visit_entry visit[VISITS_KNOWN];
    float4 lost[HOPPER_MOST_GROUPS][2], spent[HOPPER_MOST_GROUPS][2]; /* parity; a warp each */
    float recall[HOPPER_MOST_GROUPS][ITEMS_KNOWN][4];
    work_item item[ITEMS_KNOWN];
    row_memory memory[HOPPER_MOST_GROUPS][HOPPER_BLOCK_Q];
    /* Of varied kernels: */
    item_span span[ITEMS_KNOWN];
    rfa_visit_budget budget[HOPPER_MOST_GROUPS][VISITS_KNOWN];
    int32_t keys[HOPPER_MOST_GROUPS]; /* of the sequence that a warpgroup is at work on */
    int32_t row_keys[HOPPER_MOST_GROUPS][HOPPER_BLOCK_Q]; /* that it sees, the sequence's first */
};
static_assert(sizeof(exchange) <= HOPPER_EXCHANGE_BYTES, "room for it");

constexpr uint32_t KEPT = 1u << 8, ALL_KEPT = 7 * KEPT;

template <int dim, int groups> struct shared_layout {
    using t = tile<dim>;
    uint32_t q, k, v;
    exchange *x;
    uint32_t exchange_address;

    __device__ explicit shared_layout(char *raw)
    {
        uint32_t start = shared_address(raw), pad = (1024 - start % 1024) % 1024;
        uint32_t tiles = groups * t::q_bytes + (HOPPER_K_STAGES + HOPPER_V_STAGES) * t::k_bytes;
        q = start + pad;
        k = q + groups * t::q_bytes;
        v = k + HOPPER_K_STAGES * t::k_bytes;
        x = (exchange *)(raw + pad + tiles);
        exchange_address = q + tiles;
    }
};

/* The barrier `field` of a shared_layout `s`, of its stage or slot. */
#define BARRIER(field, slot)                                                                       \
    (s.exchange_address + (uint32_t)offsetof(exchange, field) + (uint32_t)(slot)*8)

/* Waits for visit n's phase of one of the barriers by visit. */
#define WAIT_FOR_VISIT(field, n) barrier_wait(BARRIER(field, (n) % SLOTS), (n) / SLOTS & 1)

/* ---- Work items, by each role ------------------------------------------------------------ */

/* The block's i-th, once it is known. */
template <class layout> __device__ __forceinline__ work_item take_item(const layout &s, uint32_t i)
{
    barrier_wait(BARRIER(item_ready, i % ITEMS_KNOWN), i / ITEMS_KNOWN & 1);
    return s.x->item[i % ITEMS_KNOWN];
}

/* By all threads of the role. */
template <class layout> __device__ __forceinline__ void leave_item(const layout &s, uint32_t i)
{
    barrier_arrive(BARRIER(item_taken, i % ITEMS_KNOWN));
}

__device__ __forceinline__ rfa_skip_rule rule_of(const hopper_params &p, float limit)
{
    return {p.rule, limit, p.share, p.pace, {0.f, 0.f}};
}

#endif
