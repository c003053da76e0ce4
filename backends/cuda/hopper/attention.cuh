/* Attention on Hopper: one thread block computes 128 q rows of one (batch, head).
 *
 * Who: a producer warp feeds two consumer warpgroups, and a recorder warp writes down what they
 * decide. Each consumer has 64 q rows, which are one decision block, and shares the K and V tiles
 * of 128 keys. Two thread blocks may be a pair (a cluster): each then loads half of every K tile
 * for both, and in the dense walk half of every V tile.
 *
 * Where: shared memory holds Q (32 KiB at head dim 128) and rings of three K and three V tiles (32
 * KiB each), 128-byte swizzled, 64 elements a row, so head dim 128 is two halves side by side. A
 * consumer has three arrays in registers: the output (64 x dim, f32) and `even` and `odd` (64 x
 * 128), which hold the scores of every other visit, and then its weights until they have been
 * multiplied: 64 + 64 + 64 of the 240 registers a thread may use.
 *
 * Order, visit n, scores in `own`: if the visit before was kept, its weights wait in `other`; issue
 * output += weights V, otherwise there is room: issue scores(n + 1) into `other`. Under that
 * product, the row maxima, with exact masses the exponentials, and the decision. If weights waited,
 * now that their product has ended, issue scores(n + 1). Under it, if the visit is kept: the
 * exponentials, the output rescaled if a row's maximum moved, the weights packed in place. So there
 * is a product in flight under all of the softmax, weights trail their decision by one visit, and a
 * skipped visit issues no second product and, with votes and estimated masses, no exponentials.
 * Which array has the scores and whether weights wait is known by the place in the program: walk()
 * is a small state machine of four copies of step(), or the arrays would move between registers.
 *
 * Handing over: mbarriers k_full, k_empty, v_full, v_empty per stage. In the walks that decide, V
 * is fetched on demand: both consumers say what they decided (`decided`, `keeps`), and only if one
 * kept the visit does the producer load its V tile, and with it the next visit's, ahead of its
 * decision. The V ring counts visits, loaded or not, so that both consumers know a tile's stage by
 * n. There `decided` says what v_empty says in the dense walk: who has decided visit n is done with
 * the V tile of visit n - 2. The producer settles visit n - 3 after it loads K(n), and waits for
 * the recorder, so that flags are written again only when both have read them.
 *
 * One formula for the kept path in every walk is what makes never skipping equal dense bit for bit.
 * Sums run in a fixed order everywhere: repeated runs give the same bits.
 *
 * What the assembler needs (read its C75xx notes: one of them means that it waits for each product
 * alone, and the kernel is 1.5 times slower):
 * - wgmma_begin() before each product;
 * - the first product of a visit's scores reads what was there in name only (wgmma_shared_first):
 *   as an output alone, it spilled registers in the exact walk;
 * - in the walks that decide, no product in flight from one step to the next (C7515), and
 *   wgmma_pin(own), wgmma_pin(out) after decisions without exponentials (C7511);
 * - arrays chosen by the place in the program, never by a variable, or they go to local memory;
 * - the decision as __any_sync, so that it knows that a warp agrees, and keeps descriptors, stages
 *   and barriers in uniform registers: that was 12 % of the time with estimated masses;
 * - descriptors as low words: as 64-bit values they took 16 registers more.
 *
 * Tried and lost: arriving at the pair's barriers with .release.cluster (a MEMBAR.GPU before each,
 * 1.5 times slower than no pairs). Scores of one visit at a time, product and softmax in turn: 1.06
 * x cuDNN where two arrays give 1.17 x, dense, head dim 128. Q as a register operand (spills). The
 * warpgroups taking turns to issue: 1 to 3 % slower at head dim 128. V on demand without fetching
 * ahead: never skipping with exact masses took 13 % longer, but kept visits scattered at random
 * took 6 to 8 % less, for want of tiles fetched in vain.
 *
 * What limits it: of a visit's time with exact masses a warp is mostly waiting for its own
 * arithmetic (two consumer warps a scheduler, 5.5 cycles an instruction), not for tiles or tensor
 * cores.
 */
#ifndef RFA_HOPPER_ATTENTION_CUH
#define RFA_HOPPER_ATTENTION_CUH

#include <math.h>
#include <stddef.h>
#include <stdint.h>

/* Of masses that are at least 1e-30 or 0: nothing else reaches a decision. */
static __device__ __forceinline__ float hopper_reciprocal(float x)
{
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
#define RFA_RECIPROCAL(x) hopper_reciprocal(x)
#include "backends/skip_rule.h"

#include "params.h"
#include "pipeline.cuh"
#include "wgmma.cuh"

/* What a consumer does about decisions; each costs more than the one before. */
enum walk_mode {
    WALK_DENSE,
    WALK_VOTE,      /* blasst, energy: no masses, no recall */
    WALK_ESTIMATED, /* recall with estimated masses */
    WALK_EXACT      /* recall with exact masses; blasst, energy with recall */
};

template <int dim> struct tile {
    static constexpr int halves = dim / 64; /* boxes of 64 elements, side by side */
    static constexpr uint32_t q_half = HOPPER_BLOCK_Q * 128, q_bytes = q_half * halves;
    static constexpr uint32_t k_half = HOPPER_BLOCK_K * 128, k_bytes = k_half * halves;
    static constexpr uint32_t box = 64 * 128; /* 64 rows of one half */
};

enum { GROUP_BARRIER = 1 }; /* named barriers: one a warpgroup */

enum { FLAG_STAGES = 8, FLAGS_AT_ONCE = 4, VISITS_AT_ONCE = 32 };
/* Flags of a visit, above its key block. */
constexpr uint32_t ALWAYS_KEEP = 1u << 31, RAGGED = 1u << 30, BLOCK_BITS = RAGGED - 1;

struct exchange {
    uint64_t q_full;
    uint64_t k_full[HOPPER_STAGES], k_empty[HOPPER_STAGES];
    uint64_t v_full[HOPPER_STAGES], v_empty[HOPPER_STAGES]; /* v_empty: dense only */
    uint64_t decided[FLAG_STAGES];
    uint64_t recorded;               /* once for FLAGS_AT_ONCE visits */
    uint2 visit[2 * VISITS_AT_ONCE]; /* key block and flags; rest, as bits */
    uint32_t keeps[FLAG_STAGES][2];
    float4 lost[2][2], spent[2][2]; /* warpgroup, parity; a warp each */
    float recall[2][4];
};
static_assert(sizeof(exchange) <= 1024, "HOPPER_SHARED_BYTES counts 1024");

template <int dim> struct shared_layout {
    using t = tile<dim>;
    uint32_t q, k, v;
    exchange *x;
    uint32_t exchange_address;

    /* The barrier `field`, of its stage. */
#define BARRIER(field, stage)                                                                      \
    (s.exchange_address + (uint32_t)offsetof(exchange, field) + (uint32_t)(stage)*8)

    __device__ explicit shared_layout(char *raw)
    {
        uint32_t start = shared_address(raw), pad = (1024 - start % 1024) % 1024;
        q = start + pad;
        k = q + 2 * t::q_bytes;
        v = k + HOPPER_STAGES * t::k_bytes;
        x = (exchange *)(raw + pad + 2 * t::q_bytes + 2 * HOPPER_STAGES * t::k_bytes);
        exchange_address = v + HOPPER_STAGES * t::k_bytes;
    }
};

/* ---- Who works on what ------------------------------------------------------------------ */

struct place {
    int batch, head, head_kv;
    int row;    /* first q row of the thread block */
    int visits; /* key blocks to walk */
    const int32_t *list;
    const float *rest;
};

__device__ __forceinline__ place find_place(const hopper_params &p)
{
    place at;
    at.batch = blockIdx.z;
    at.head = blockIdx.y;
    at.head_kv = at.head / (p.heads_q / p.heads_kv);
    at.row = blockIdx.x * HOPPER_ROWS;
    at.list = nullptr;
    at.rest = nullptr;
    at.visits = (int)((p.len_k + HOPPER_BLOCK_K - 1) / HOPPER_BLOCK_K);
    if (p.list) {
        int group = at.row / p.visit_q;
        int64_t first =
            at.batch * p.list_stride[0] + at.head * p.list_stride[1] + group * p.list_stride[2];
        at.list = p.list + first;
        at.rest = p.list_rest ? p.list_rest + first : nullptr;
        at.visits = p.list_counts[((int64_t)at.batch * p.heads_q + at.head) * p.groups + group];
    }
    return at;
}

/* ---- Producer: one warp that keeps the rings of K and V tiles filled --------------------- */

template <int dim, walk_mode mode, bool pair> struct producer {
    using t = tile<dim>;
    const hopper_params &p;
    const shared_layout<dim> &s;
    const place &at;
    int lane;
    ring<HOPPER_STAGES> k, v;

    /* shared: each block of a pair brings half of the keys, for both. */
    template <bool shared>
    __device__ __forceinline__ void load_tile(const CUtensorMap *map, uint32_t to, uint32_t barrier,
                                              uint32_t block)
    {
        int first = (int)((block & BLOCK_BITS) * HOPPER_BLOCK_K);
        barrier_arrive_expect(barrier, t::k_bytes);
#pragma unroll
        for (int i = 0; i < t::halves; i++) {
            uint32_t half = to + i * t::k_half;
            if (shared) {
                int part = (int)cluster_rank();
                load_box_to_pair(half + part * t::box, map, barrier, i * 64, first + part * 64,
                                 at.head_kv, at.batch);
            } else {
                load_box(half, map, barrier, i * 64, first, at.head_kv, at.batch);
                load_box(half + t::box, map, barrier, i * 64, first + 64, at.head_kv, at.batch);
            }
        }
    }

    __device__ __forceinline__ void load_q()
    {
        uint32_t barrier = BARRIER(q_full, 0);
        barrier_arrive_expect(barrier, 2 * t::q_bytes);
        for (int group = 0; group < 2; group++)
            for (int half = 0; half < t::halves; half++)
                load_box(s.q + group * t::q_bytes + half * t::q_half, &p.q, barrier, half * 64,
                         at.row + group * HOPPER_BLOCK_Q, at.head, at.batch);
    }

    /* Puts the visits from n on where the consumers find them, one a lane. */
    __device__ __forceinline__ void read_list(int n)
    {
        int slot = n + lane;
        bool listed = slot < at.visits;
        int block = listed && at.list ? at.list[slot] : slot;
        uint32_t entry = (uint32_t)block;
        if (listed && p.always_keep && (p.always_keep[block] & 1))
            entry |= ALWAYS_KEEP;
        if ((int64_t)(block + 1) * HOPPER_BLOCK_K > p.len_k)
            entry |= RAGGED;
        float rest = listed && at.rest ? at.rest[slot] : RFA_NO_PREDICTION;
        s.x->visit[slot % (2 * VISITS_AT_ONCE)] = make_uint2(entry, __float_as_uint(rest));
        __syncwarp();
    }

    __device__ __forceinline__ void load_k(int n)
    {
        barrier_wait(BARRIER(k_empty, k.stage), k.parity ^ 1);
        if (lane == 0)
            load_tile<pair>(&p.k, s.k + k.stage * t::k_bytes, BARRIER(k_full, k.stage),
                            s.x->visit[n % (2 * VISITS_AT_ONCE)].x);
        k.next();
    }

    __device__ __forceinline__ void load_v(int n)
    {
        uint32_t full = BARRIER(v_full, v.stage);
        /* Dense: both consumers are done with what was here. Otherwise both have decided the visit
         * before this one, and so are done with the third before; but a tile that was fetched ahead
         * and then skipped may still be on its way. */
        uint32_t before = mode == WALK_DENSE ? BARRIER(v_empty, v.stage) : full;
        barrier_wait(before, v.parity ^ 1);
        if (lane == 0)
            load_tile<pair && mode == WALK_DENSE>(&p.v, s.v + v.stage * t::k_bytes, full,
                                                  s.x->visit[n % (2 * VISITS_AT_ONCE)].x);
        v.next();
    }

    /* V if one of the two decision blocks kept the visit; then the next visit's too, ahead of its
     * decision, because kept visits come in runs. Returns whether it fetched that. */
    __device__ __forceinline__ bool load_v_if_kept(int n, bool fetched)
    {
        int slot = n % FLAG_STAGES;
        barrier_wait(BARRIER(decided, slot), n / FLAG_STAGES & 1);
        const volatile uint32_t *keeps = s.x->keeps[slot];
        bool kept = keeps[0] | keeps[1];
        __syncwarp(); /* lane 0 speaks for the warp's reads */
        if (kept && !fetched)
            load_v(n);
        if (!kept && !fetched) { /* nobody waits for this phase, but it must pass */
            uint32_t full = BARRIER(v_full, v.stage);
            barrier_wait(full, v.parity ^ 1);
            if (lane == 0)
                barrier_arrive(full);
            v.next();
        }
        bool ahead = kept && n + 1 < at.visits;
        if (ahead)
            load_v(n + 1);
        return ahead;
    }

    __device__ __forceinline__ void run()
    {
        /* V trails K: by one tile, or until the visit is decided. */
        constexpr int trail = mode == WALK_DENSE ? 1 : HOPPER_STAGES;
        bool fetched = false; /* the next V to decide on */
        if (lane == 0)
            load_q();
#pragma unroll 1
        for (int n = 0; n < at.visits + trail; n++) {
            if (n % VISITS_AT_ONCE == 0)
                read_list(n);
            /* Flags are written again only when they have been recorded. */
            if (mode != WALK_DENSE && n % FLAGS_AT_ONCE == 0 && n >= FLAG_STAGES)
                barrier_wait(BARRIER(recorded, 0), n / FLAGS_AT_ONCE & 1);
            if (n < at.visits)
                load_k(n);
            if (n >= trail) {
                if (mode == WALK_DENSE)
                    load_v(n - trail);
                else
                    fetched = load_v_if_kept(n - trail, fetched);
            }
        }
        drain();
    }

    /* The block must not end while a tile that nobody wanted is on its way. */
    __device__ __forceinline__ void drain()
    {
#pragma unroll 1
        for (int i = 0; i < HOPPER_STAGES && mode != WALK_DENSE; i++) {
            barrier_wait(BARRIER(v_full, v.stage), v.parity ^ 1);
            v.next();
        }
    }
};

/* ---- Recorder: one warp that counts what was kept and writes it down bit by bit ------------ */

template <walk_mode mode> struct recorder {
    const hopper_params &p;
    exchange *x;
    const place &at;
    int lane;
    int kept[2] = {0, 0}; /* of this lane's visits, by warpgroup */

    __device__ __forceinline__ int block_of(int group)
    {
        return at.row / HOPPER_BLOCK_Q + group;
    }

    __device__ __forceinline__ uint32_t *words(int group)
    {
        return p.decisions + at.batch * p.decisions_stride[0] + at.head * p.decisions_stride[1] +
               block_of(group) * p.decisions_stride[2];
    }

    /* Bit g: warpgroup g kept visit n. */
    __device__ __forceinline__ uint32_t keeps_of(int n)
    {
        if (mode == WALK_DENSE)
            return 3;
        barrier_wait(shared_address(&x->decided[n % FLAG_STAGES]), n / FLAG_STAGES & 1);
        const volatile uint32_t *keeps = x->keeps[n % FLAG_STAGES];
        uint32_t both = keeps[0] | keeps[1] << 1;
        __syncwarp();
        if (n % FLAGS_AT_ONCE == FLAGS_AT_ONCE - 1 && lane == 0)
            barrier_arrive(shared_address(&x->recorded));
        return both;
    }

    __device__ __forceinline__ void write(int group, uint32_t block)
    {
        kept[group]++;
        if (p.decisions && block_of(group) < p.blocks_q)
            atomicOr(words(group) + block / 32, 1u << block % 32);
    }

    /* 32 visits, one a lane. */
    __device__ __forceinline__ void record(int first)
    {
        int count = at.visits - first < 32 ? at.visits - first : 32;
        uint32_t own = 0;
#pragma unroll 1
        for (int i = 0; i < count; i++) {
            uint32_t both = keeps_of(first + i);
            own = lane == i ? both : own;
        }
        int slot = first + lane;
        uint32_t block;
        if (mode == WALK_DENSE)
            block = (uint32_t)(lane < count && at.list ? at.list[slot] : slot);
        else /* the producer, a few visits ahead, has not written over it */
            block = x->visit[slot % (2 * VISITS_AT_ONCE)].x & BLOCK_BITS;
        if (own & 1)
            write(0, block);
        if (own & 2)
            write(1, block);
    }

    __device__ __forceinline__ void run()
    {
#pragma unroll
        for (int group = 0; group < 2; group++)
#pragma unroll 1
            for (int i = lane; p.decisions && block_of(group) < p.blocks_q && i < p.decision_words;
                 i += 32)
                words(group)[i] = 0;
        __syncwarp(); /* before bits are set */
#pragma unroll 1
        for (int n = 0; n < at.visits; n += 32)
            record(n);
#pragma unroll
        for (int group = 0; group < 2; group++) {
#pragma unroll 1
            for (int step = 16; step > 0; step /= 2)
                kept[group] += __shfl_xor_sync(~0u, kept[group], step);
            int64_t head = (int64_t)at.batch * p.heads_q + at.head;
            if (lane == 0 && p.block_kept && block_of(group) < p.blocks_q)
                p.block_kept[head * p.blocks_q + block_of(group)] = kept[group];
        }
    }
};

/* ---- Softmax arithmetic ------------------------------------------------------------------ */

__device__ __forceinline__ float exp2_fast(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* NaN where either is. */
__device__ __forceinline__ float larger(float x, float y)
{
    float z;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(z) : "f"(x), "f"(y));
    return z;
}

/* A row's four threads hold 32 of its columns each. */
__device__ __forceinline__ float quad_sum(float x)
{
    x += __shfl_xor_sync(~0u, x, 1);
    return x + __shfl_xor_sync(~0u, x, 2);
}

__device__ __forceinline__ float quad_max(float x)
{
    x = larger(x, __shfl_xor_sync(~0u, x, 1));
    return larger(x, __shfl_xor_sync(~0u, x, 2));
}

template <typename T> __device__ __forceinline__ uint32_t pack(float low, float high)
{
    uint32_t both;
    if (is_bf16<T>)
        asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    else
        asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    return both;
}

/* One row of a decision block. The four threads that share a row hold the same. */
struct row_state {
    float max; /* over kept keys, unscaled */
    float sum, skipped;
    float log_sum; /* energy's, of `sum` */
    float kappa;
    int learned;
    float weight; /* in means over rows; 0: the row does not exist */
};

/* What one block of keys means for a row. */
struct row_visit {
    float max;       /* of its scores, unscaled */
    float next;      /* the running max if the block is kept */
    float reference; /* next, or 0 where that is -inf */
    float decay;     /* exp(old running max - next) */
    float mass;      /* sum of exp(score - next), true or estimated */
};

/* ---- Consumer: one warpgroup, one decision block ------------------------------------------ */

template <typename T, int dim, walk_mode mode, bool pair> struct consumer {
    using t = tile<dim>;
    static constexpr int out_registers = dim / 2;
    /* Chains of additions a row: short ones end soon after the last exponential, but at head dim
     * 64 they took 6 % longer. */
    static constexpr int sums = dim == 128 ? 8 : 2;

    const hopper_params &p;
    const shared_layout<dim> &s;
    const place &at;
    int group, thread; /* warpgroup; thread in it */
    uint32_t to_pair;  /* lanes 0 and 1: from an address here to that in each block of a pair */
    float factor;      /* scale log2(e) */
    rfa_skip_rule rule;
    bool dense;

    row_state row[2];
    float even[64], odd[64]; /* scores of visits 0, 2, ... and 1, 3, ...; then weights */
    float out[out_registers];
    ring<HOPPER_STAGES> tile; /* of the visit at hand: its place in both rings */

    /* ---- Products ---- */

    __device__ __forceinline__ void issue_scores(float (&scores)[64], uint32_t stage)
    {
        uint32_t q = wgmma_operand(s.q + group * t::q_bytes, 16);
        uint32_t keys = wgmma_operand(s.k + stage * t::k_bytes, 16);
        wgmma_pin(scores);
        wgmma_begin();
        wgmma_shared_first<T>(scores, q, keys);
#pragma unroll
        for (int step = 1; step < dim / 16; step++) {
            int half = step / 4, inside = step % 4 * 32;
            uint32_t b = keys + ((half * t::k_half + inside) >> 4);
            wgmma_shared<T>(scores, q + ((half * t::q_half + inside) >> 4), b);
        }
        wgmma_commit();
    }

    /* Output += weights times the V tile of `stage`. */
    __device__ __forceinline__ void issue_output(float (&weights)[64], uint32_t stage)
    {
        uint32_t values = wgmma_operand(s.v + stage * t::k_bytes, t::k_half);
        wgmma_pin(out);
        wgmma_begin();
#pragma unroll
        for (int step = 0; step < HOPPER_BLOCK_K / 16; step++)
            wgmma_registers<T>(
                out, __float_as_uint(weights[4 * step]), __float_as_uint(weights[4 * step + 1]),
                __float_as_uint(weights[4 * step + 2]), __float_as_uint(weights[4 * step + 3]),
                values + (step * 16 * 128 >> 4));
        wgmma_commit();
    }

    __device__ __forceinline__ void release(uint32_t barrier)
    {
        __syncwarp(); /* this lane speaks for the warp's reads */
        if (thread % 32 == 0)
            barrier_arrive(barrier);
    }

    /* The same to both blocks of a pair, whose producers share the tile. */
    __device__ __forceinline__ void release_shared(uint32_t barrier)
    {
        if (!pair) {
            release(barrier);
            return;
        }
        __syncwarp();
        if (thread % 32 < 2)
            cluster_barrier_arrive(barrier + to_pair);
    }

    /* ---- Scores to weights ---- */

    /* How many keys of a block exist. */
    __device__ __forceinline__ int keys_of(uint32_t listed)
    {
        return listed & RAGGED ? (int)(p.len_k % HOPPER_BLOCK_K) : HOPPER_BLOCK_K;
    }

    __device__ __forceinline__ void mask_past_end(float (&scores)[64], int keys)
    {
        int left = keys - 2 * (thread % 4);
#pragma unroll
        for (int i = 0; i < 64; i++)
            if (i / 4 * 8 + i % 2 >= left)
                scores[i] = -INFINITY;
    }

    __device__ __forceinline__ void compare_maxima(const float (&scores)[64], row_visit (&visit)[2])
    {
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float top[4] = {scores[2 * r], scores[2 * r + 1], scores[2 * r + 4], scores[2 * r + 5]};
#pragma unroll
            for (int j = 4; j < 32; j++)
                top[j % 4] = larger(top[j % 4], scores[4 * (j / 2) + 2 * r + j % 2]);
            row_visit &w = visit[r];
            w.max = quad_max(larger(larger(top[0], top[1]), larger(top[2], top[3])));
            w.next = larger(row[r].max, w.max);
            w.reference = w.next == -INFINITY ? 0.f : w.next;
        }
    }

    __device__ __forceinline__ void compute_decays(row_visit (&visit)[2])
    {
#pragma unroll
        for (int r = 0; r < 2; r++)
            visit[r].decay = exp2_fast((row[r].max - visit[r].reference) * factor);
    }

    __device__ __forceinline__ void exponentials(float (&scores)[64], row_visit (&visit)[2])
    {
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float offset = visit[r].reference * factor;
            float sum[sums];
#pragma unroll
            for (int j = 0; j < 32; j++) {
                float &x = scores[4 * (j / 2) + 2 * r + j % 2];
                x = exp2_fast(fmaf(x, factor, -offset));
                sum[j % sums] = j < sums ? x : sum[j % sums] + x;
            }
#pragma unroll
            for (int step = sums / 2; step > 0; step /= 2)
#pragma unroll
                for (int i = 0; i < step; i++)
                    sum[i] += sum[i + step];
            visit[r].mass = quad_sum(sum[0]);
        }
    }

    /* The block is kept: its weights, in the place of its scores, wait for their V tile. */
    __device__ __forceinline__ void keep_rows(float (&scores)[64], const row_visit (&visit)[2])
    {
#pragma unroll
        for (int i = 0; i < 32; i++)
            scores[i] = __uint_as_float(pack<T>(scores[2 * i], scores[2 * i + 1]));
        if (__any_sync(~0u, !(visit[0].decay == 1.f) | !(visit[1].decay == 1.f))) {
#pragma unroll
            for (int i = 0; i < out_registers; i++)
                out[i] *= visit[i / 2 % 2].decay;
        }
    }

    /* ---- Decisions ---- */

    __device__ __forceinline__ void estimate_masses(row_visit (&visit)[2], int keys)
    {
#pragma unroll
        for (int r = 0; r < 2; r++) {
            visit[r].mass = exp2_fast((visit[r].max - visit[r].reference) * factor) *
                            (row[r].learned > 0 ? row[r].kappa : (float)keys);
        }
    }

    __device__ __forceinline__ bool all_rows_vote(const row_visit (&visit)[2])
    {
        bool skip = true;
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float a = visit[r].max;
            bool nothing = a == -INFINITY && row[r].max == row[r].max; /* else a NaN stays one */
            float above = nothing ? a : (a - row[r].max) * p.scale;
            /* Where every decision is a vote, the logarithm is taken when the sum changes. */
            float log_sum = row[r].log_sum;
            if (mode == WALK_EXACT)
                log_sum = rule.kind == RFA_SKIP_ENERGY ? __logf(row[r].sum) : 0.f;
            skip &= !(row[r].weight > 0) | (bool)rfa_row_votes_skip(rule, above, 0.f, log_sum);
        }
        return group_all(GROUP_BARRIER + group, 128, skip);
    }

    __device__ __forceinline__ bool within_budget(const row_visit (&visit)[2], int n, float rest)
    {
        float lost = 0, spent = 0;
        bool veto = false;
#pragma unroll
        for (int r = 0; r < 2; r++) {
            rfa_row_share share = rfa_share_of_row(rule, row[r].sum * visit[r].decay,
                                                   row[r].skipped * visit[r].decay, visit[r].mass);
            /* Where a row that does not exist has a NaN, so have those that do. */
            lost = fmaf(row[r].weight, share.lost, lost);
            spent = fmaf(row[r].weight, share.spent, spent);
            veto |= row[r].weight > 0 & (bool)share.veto;
        }
        /* Threads of a row hold the same: even ones add up what would be lost, odd ones
         * what was spent. */
        float sum = thread % 2 ? spent : lost;
        sum += __shfl_xor_sync(~0u, sum, 4);
        sum += __shfl_xor_sync(~0u, sum, 8);
        sum += __shfl_xor_sync(~0u, sum, 16);
        float4 *all = thread % 2 ? &s.x->spent[group][n % 2] : &s.x->lost[group][n % 2];
        if (thread % 32 < 2)
            ((float *)all)[thread / 32] = sum;
        veto = !group_all(GROUP_BARRIER + group, 128, !veto);
        float4 l = s.x->lost[group][n % 2], w = s.x->spent[group][n % 2];
        return rfa_block_within_budget(rule, (float)n, (float)at.visits, (l.x + l.y) + (l.z + l.w),
                                       (w.x + w.y) + (w.z + w.w), veto, rest);
    }

    __device__ __forceinline__ bool rule_skips(const row_visit (&visit)[2], int n, float rest)
    {
        if (mode == WALK_VOTE || (mode == WALK_EXACT && rule.kind != RFA_SKIP_RECALL))
            return all_rows_vote(visit);
        return within_budget(visit, n, rest);
    }

    __device__ __forceinline__ void count_kept(const row_visit (&visit)[2])
    {
#pragma unroll
        for (int r = 0; r < 2; r++) {
            const row_visit &w = visit[r];
            row[r].max = w.next;
            row[r].sum = fmaf(row[r].sum, w.decay, w.mass);
            if (mode == WALK_VOTE && rule.kind == RFA_SKIP_ENERGY)
                row[r].log_sum = __logf(row[r].sum);
            if (mode != WALK_ESTIMATED && mode != WALK_EXACT)
                continue;
            row[r].skipped *= w.decay;
            if (mode == WALK_ESTIMATED) {
                float below = w.max - w.reference;
                if (rfa_kappa_learns(below * p.scale, 0.f))
                    row[r].kappa = rfa_kappa_update(
                        row[r].kappa, w.mass * exp2_fast(-below * factor), ++row[r].learned);
            }
        }
    }

    __device__ __forceinline__ void count_skipped(const row_visit (&visit)[2])
    {
#pragma unroll
        for (int r = 0; r < 2; r++) {
            if (mode != WALK_ESTIMATED && mode != WALK_EXACT)
                continue;
            if (row[r].max == -INFINITY) /* nothing is relative to it yet */
                row[r].max = visit[r].max;
            float reference = row[r].max == -INFINITY ? 0.f : row[r].max;
            /* 1 where the maximum is no larger. */
            float mass = visit[r].mass * exp2_fast((visit[r].reference - reference) * factor);
            /* Only recalls next to 0 come near this; an infinity would turn into NaN. */
            row[r].skipped = fminf(row[r].skipped + mass, 3.402823466e38f);
        }
    }

    __device__ __forceinline__ void publish(int n, bool keep)
    {
        if (thread == 0)
            s.x->keeps[n % FLAG_STAGES][group] = keep;
        release(BARRIER(decided, n % FLAG_STAGES));
    }

    /* ---- One visit ---- */

    /* The product of the next visit's scores. After the last visit it repeats an old tile, which
     * nobody reads: simpler than a walk that ends in another way. */
    __device__ __forceinline__ void issue_next_scores(float (&scores)[64], int n)
    {
        ring<HOPPER_STAGES> next = tile;
        next.next();
        if (n + 1 < at.visits)
            barrier_wait(BARRIER(k_full, next.stage), next.parity);
        issue_scores(scores, next.stage);
    }

    __device__ __forceinline__ bool decide(const row_visit (&visit)[2], int n, uint2 listed)
    {
        if (mode == WALK_DENSE)
            return true;
        bool keep = n == 0 || dense || (listed.x & ALWAYS_KEEP);
        if (!keep)
            keep = !rule_skips(visit, n, __uint_as_float(listed.y));
        publish(n, keep);
        return __any_sync(~0u, keep); /* all threads agree; so the compiler knows it */
    }

    /* Visit n, whose scores are in `own` or on their way there. have: the weights of the visit
     * before it wait in `other`. Returns whether its own do now. */
    template <bool have>
    __device__ __forceinline__ bool step(float (&own)[64], float (&other)[64], int n)
    {
        const ring<HOPPER_STAGES> before = tile.before();
        if (have) {
            barrier_wait(BARRIER(v_full, before.stage), before.parity);
            issue_output(other, before.stage);
        } else {
            issue_next_scores(other, n);
        }
        if (mode == WALK_DENSE) {
            wgmma_wait<1>();
            wgmma_pin(own);
        }
        uint2 listed = s.x->visit[n % (2 * VISITS_AT_ONCE)];
        release_shared(BARRIER(k_empty, tile.stage));

        row_visit visit[2];
        if (listed.x & RAGGED)
            mask_past_end(own, keys_of(listed.x));
        compare_maxima(own, visit);
        if (mode == WALK_EXACT)
            exponentials(own, visit);
        compute_decays(visit);
        if (mode == WALK_ESTIMATED)
            estimate_masses(visit, keys_of(listed.x));
        bool keep = decide(visit, n, listed);
        if (mode == WALK_VOTE || mode == WALK_ESTIMATED) {
            wgmma_pin(own); /* or the compiler splits them between branches and runs out */
            wgmma_pin(out);
        }
        if (have) {
            wgmma_wait<0>();
            wgmma_pin(out);
            wgmma_pin((float(&)[32])other); /* the weights, half as many as scores */
            if (mode == WALK_DENSE)
                release_shared(BARRIER(v_empty, before.stage));
            issue_next_scores(other, n);
        }
        if (keep) {
            if (mode != WALK_EXACT)
                exponentials(own, visit);
            keep_rows(own, visit);
            count_kept(visit);
        } else {
            count_skipped(visit);
        }
        tile.next();
        if (mode != WALK_DENSE) {
            wgmma_wait<0>();
            wgmma_pin(other);
        }
        return keep;
    }

    __device__ __forceinline__ void walk()
    {
        int n = 0;
        barrier_wait(BARRIER(k_full, 0), 0);
        issue_scores(even, 0);
        if (mode != WALK_DENSE) {
            wgmma_wait<0>();
            wgmma_pin(even);
        }

        /* Where the scores are, and whether weights wait: each place in the program knows. */
    even_without : {
        bool kept = step<false>(even, odd, n++);
        if (n == at.visits) {
            if (kept)
                goto end_even;
            goto end;
        }
        if (kept)
            goto odd_with;
    }
    odd_without : {
        bool kept = step<false>(odd, even, n++);
        if (n == at.visits) {
            if (kept)
                goto end_odd;
            goto end;
        }
        if (kept)
            goto even_with;
        goto even_without;
    }
    odd_with : {
        bool kept = step<true>(odd, even, n++);
        if (n == at.visits) {
            if (kept)
                goto end_odd;
            goto end;
        }
        if (!kept)
            goto even_without;
    }
    even_with : {
        bool kept = step<true>(even, odd, n++);
        if (n == at.visits) {
            if (kept)
                goto end_even;
            goto end;
        }
        if (kept)
            goto odd_with;
        goto odd_without;
    }
    end_even:
        wgmma_wait<0>();
        finish_last(even);
        return;
    end_odd:
        wgmma_wait<0>();
        finish_last(odd);
        return;
    end:
        wgmma_wait<0>();
    }

    __device__ __forceinline__ void finish_last(float (&weights)[64])
    {
        const ring<HOPPER_STAGES> before = tile.before();
        barrier_wait(BARRIER(v_full, before.stage), before.parity);
        issue_output(weights, before.stage);
        wgmma_wait<0>();
        wgmma_pin(out);
    }

    /* ---- Start and end ---- */

    __device__ __forceinline__ void start()
    {
        factor = p.scale * 1.44269504088896340736f;
        to_pair = pair ? cluster_address(s.exchange_address, thread % 2) - s.exchange_address : 0;
        int64_t rows = p.len_q - (at.row + group * HOPPER_BLOCK_Q);
        float share = 1.f / (float)(rows < HOPPER_BLOCK_Q ? rows : HOPPER_BLOCK_Q);
        for (int r = 0; r < 2; r++) {
            bool exists = thread / 32 * 16 + thread % 32 / 4 + 8 * r < rows;
            row[r] = {-INFINITY, 0.f, 0.f, 0.f, 0.f, 0, exists ? share : 0.f};
        }
#pragma unroll
        for (int i = 0; i < 64; i++)
            even[i] = odd[i] = 0;
#pragma unroll
        for (int i = 0; i < out_registers; i++)
            out[i] = 0;
        if (mode == WALK_DENSE)
            return;
        float limit = p.limits ? p.limits[at.batch * p.heads_q + at.head] : p.limit;
        rule = {p.rule, limit, p.share, p.pace, {0.f, 0.f}};
        int q_block = at.row / HOPPER_BLOCK_Q + group;
        dense = limit != limit || (p.dense_rows && rows > 0 && p.dense_rows[q_block]);
    }

    /* Where the output has this thread's r-th row. */
    __device__ __forceinline__ int64_t output_row(int r)
    {
        int64_t row = at.row + group * HOPPER_BLOCK_Q + thread / 32 * 16 + thread % 32 / 4 + 8 * r;
        return p.order_q ? p.order_q[row] : row;
    }

    __device__ __forceinline__ void store_rows(const float (&inverse)[2])
    {
#pragma unroll
        for (int r = 0; r < 2; r++) {
            if (!(row[r].weight > 0))
                continue;
            int64_t start = at.batch * p.out_stride[0] + at.head * p.out_stride[1] +
                            output_row(r) * p.out_stride[2];
#pragma unroll
            for (int j = 0; j < out_registers / 4; j++) {
                int column = 8 * j + 2 * (thread % 4);
                float x = out[4 * j + 2 * r] * inverse[r], y = out[4 * j + 2 * r + 1] * inverse[r];
                if (column >= p.dim_v)
                    continue;
                if (p.out_f32)
                    *(float2 *)((float *)p.out + start + column) = make_float2(x, y);
                else
                    *(uint32_t *)((T *)p.out + start + column) = pack<T>(x, y);
            }
        }
    }

    __device__ __forceinline__ void finish()
    {
        float inverse[2], recall[2], all = 0;
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float sum = row[r].sum;
            inverse[r] = sum == 0 ? 0.f : 1.f / sum;
            recall[r] = row[r].skipped == 0 ? 1.f : row[r].sum / (row[r].sum + row[r].skipped);
            all += row[r].weight > 0 ? recall[r] : 0.f;
            if (!(row[r].weight > 0) || thread % 4 != 0)
                continue;
            if (p.lse)
                p.lse[at.batch * p.lse_stride[0] + at.head * p.lse_stride[1] + output_row(r)] =
                    sum == 0 ? -INFINITY : row[r].max * p.scale + logf(sum);
            if (p.recall)
                p.recall[at.batch * p.recall_stride[0] + at.head * p.recall_stride[1] +
                         output_row(r)] = recall[r];
        }
        store_rows(inverse);
        report_block(all);
    }

    __device__ __forceinline__ void report_block(float recall)
    {
        int q_block = at.row / HOPPER_BLOCK_Q + group;
        recall += __shfl_xor_sync(~0u, recall, 4);
        recall += __shfl_xor_sync(~0u, recall, 8);
        recall += __shfl_xor_sync(~0u, recall, 16);
        if (thread % 32 == 0)
            s.x->recall[group][thread / 32] = recall;
        group_sync(GROUP_BARRIER + group, 128);
        if (thread != 0 || q_block >= p.blocks_q)
            return;
        const float *w = s.x->recall[group];
        int64_t slot = ((int64_t)at.batch * p.heads_q + at.head) * p.blocks_q + q_block;
        if (p.block_recall)
            p.block_recall[slot] = (w[0] + w[1]) + (w[2] + w[3]);
    }

    __device__ __forceinline__ void run()
    {
        start();
        barrier_wait(BARRIER(q_full, 0), 0);
        if (at.visits > 0)
            walk();
        finish();
    }
};

/* ---- The kernel ------------------------------------------------------------------------------ */

template <int dim, bool pair>
__device__ __forceinline__ void prepare(const hopper_params &p, exchange *x)
{
    prefetch_map(&p.q);
    prefetch_map(&p.k);
    prefetch_map(&p.v);
    const int consumer_warps = 8;
    barrier_init(shared_address(&x->q_full), 1);
    for (int i = 0; i < HOPPER_STAGES; i++) {
        barrier_init(shared_address(&x->k_full[i]), 1);
        barrier_init(shared_address(&x->v_full[i]), 1);
        barrier_init(shared_address(&x->k_empty[i]), consumer_warps * (pair ? 2 : 1));
        barrier_init(shared_address(&x->v_empty[i]), consumer_warps * (pair ? 2 : 1));
    }
    for (int i = 0; i < FLAG_STAGES; i++)
        barrier_init(shared_address(&x->decided[i]), consumer_warps);
    barrier_init(shared_address(&x->recorded), 1);
    barrier_init_done();
}

template <bool pair> __device__ __forceinline__ void sync_all()
{
    if (pair)
        cluster_sync();
    else
        __syncthreads();
}

template <typename T, int dim, walk_mode mode, bool pair>
__device__ __forceinline__ void attend(const hopper_params &p)
{
    extern __shared__ char raw[];
    shared_layout<dim> s(raw);
    if (threadIdx.x == 0)
        prepare<dim, pair>(p, s.x);
    sync_all<pair>();
    place at = find_place(p);
    int group = __shfl_sync(~0u, threadIdx.x / 128, 0);
    if (group == 0) {
        registers_release<24>();
        if (threadIdx.x < 32) {
            producer<dim, mode, pair> me = {p, s, at, (int)threadIdx.x};
            me.run();
        } else if (threadIdx.x < 64) {
            recorder<mode> me = {p, s.x, at, (int)threadIdx.x - 32};
            me.run();
        }
    } else {
        registers_take<240>();
        consumer<T, dim, mode, pair> me = {p, s, at, group - 1, (int)threadIdx.x % 128};
        me.run();
    }
    if (pair) { /* the other block may still write here */
        __syncwarp();
        cluster_sync();
    }
}

#endif
