/* Attention on Hopper: one thread block computes 128 q rows of one (batch, head).
 *
 * Who: one producer warp feeds two consumer warpgroups. Each consumer has 64 q
 * rows, which are one decision block, and shares the K and V tiles of 128 keys.
 *
 * Where: shared memory holds Q (32 KiB at head dim 128) and rings of three K and
 * three V tiles (32 KiB each), 128-byte swizzled, 64 elements a row, so head dim
 * 128 is two halves side by side. A consumer's scores (64 x 128, f32), its output
 * (64 x dim, f32) and the weights that wait for their V tile (64 x 128, 16-bit)
 * are registers: 64 + 64 + 32 a thread of the 240 it may use.
 *
 * Order, per visit n and consumer: issue scores(n) = Q K(n); issue output +=
 * weights(n') V(n') of the last kept visit n'; wait for the scores; row maxima;
 * decision; exponentials while that product is still running; wait for it;
 * rescale the output if a row's maximum moved; pack the weights. So the weights
 * trail their decision by one visit, and the softmax of each warpgroup runs under
 * both warpgroups' products. A skipped visit issues no second product, and with
 * votes and estimated masses no exponentials.
 *
 * Handing over: mbarriers k_full, k_empty, v_full, v_empty per stage. In the
 * walks that decide, V is fetched on demand: both consumers say what they decided
 * (`decided`, `keeps`), and only if one kept the visit does the producer load its
 * V tile, and with it the next visit's, ahead of its decision. The V ring counts
 * visits, loaded or not, so that both consumers know a tile's stage by n. There
 * `decided` says what v_empty says in the dense walk: who has decided visit n is
 * done with the V tile of visit n - 2.
 * The producer settles visit n - 3 after it loads K(n); hence four flags.
 *
 * One formula for the kept path in every walk, and own_sum apart from the sums
 * that decisions read, is what makes never skipping equal dense bit for bit.
 * Sums run in a fixed order everywhere: repeated runs give the same bits.
 *
 * Things that look odd: after_exponentials(), and the wgmma_pin that ends
 * exponentials(), because the assembler otherwise moves the wait for the product
 * in flight ahead of all the exponentials. wgmma_begin() stands before each
 * product, or the assembler serialises them (C7520). Descriptors are kept as low
 * words: as 64-bit values they took 16 registers more and doubled the moves
 * between products.
 *
 * Tried: Q as a register operand (fits dense; no clear gain, in a run whose order
 * was not balanced; spills where decisions need registers). The warpgroups taking
 * turns to issue, passed on after issuing or after the scores: 1 to 3 % slower at
 * head dim 128, up to 3 % faster for dense at 64. V on demand without fetching
 * ahead: never skipping with exact masses took 13 % longer, but kept visits
 * scattered at random took 6 to 8 % less, for want of tiles fetched in vain.
 */
#ifndef RFA_HOPPER_ATTENTION_CUH
#define RFA_HOPPER_ATTENTION_CUH

#include <math.h>
#include <stdint.h>

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
};

enum { GROUP_BARRIER = 1 }; /* named barriers: one a warpgroup */

enum { FLAG_STAGES = 4 };
constexpr uint32_t ALWAYS_KEEP = 1u << 31;

struct exchange {
    uint64_t q_full;
    uint64_t k_full[HOPPER_STAGES], k_empty[HOPPER_STAGES];
    uint64_t v_full[HOPPER_STAGES], v_empty[HOPPER_STAGES]; /* v_empty: dense only */
    uint64_t decided[FLAG_STAGES];
    uint2 visit[HOPPER_STAGES]; /* key block and flag; rest, as bits */
    uint32_t keeps[FLAG_STAGES][2];
    float4 lost[2][2], spent[2][2]; /* warpgroup, parity; a warp each */
    float recall[2][4];
};
static_assert(sizeof(exchange) <= 512, "HOPPER_SHARED_BYTES counts 512");

template <int dim> struct shared_layout {
    using t = tile<dim>;
    uint32_t q, k, v;
    exchange *x;

    __device__ explicit shared_layout(char *raw)
    {
        uint32_t start = shared_address(raw), pad = (1024 - start % 1024) % 1024;
        q = start + pad;
        k = q + 2 * t::q_bytes;
        v = k + HOPPER_STAGES * t::k_bytes;
        x = (exchange *)(raw + pad + 2 * t::q_bytes + 2 * HOPPER_STAGES * t::k_bytes);
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

template <int dim, walk_mode mode> struct producer {
    using t = tile<dim>;
    const hopper_params &p;
    const shared_layout<dim> &s;
    const place &at;
    int lane;
    uint32_t entry; /* this lane's of the 32 visits at hand */
    float rest;
    ring<HOPPER_STAGES> k, v;

    __device__ __forceinline__ void load_tile(const CUtensorMap *map, uint32_t to, uint32_t barrier,
                                              uint32_t block)
    {
        barrier_arrive_expect(barrier, t::k_bytes);
#pragma unroll
        for (int half = 0; half < t::halves; half++)
            load_box(to + half * t::k_half, map, barrier, half * 64,
                     (int)((block & ~ALWAYS_KEEP) * HOPPER_BLOCK_K), at.head_kv, at.batch);
    }

    __device__ __forceinline__ void load_q()
    {
        uint32_t barrier = shared_address(&s.x->q_full);
        barrier_arrive_expect(barrier, 2 * t::q_bytes);
        for (int group = 0; group < 2; group++)
            for (int half = 0; half < t::halves; half++)
                load_box(s.q + group * t::q_bytes + half * t::q_half, &p.q, barrier, half * 64,
                         at.row + group * HOPPER_BLOCK_Q, at.head, at.batch);
    }

    __device__ __forceinline__ void read_list(int n)
    {
        int slot = n + lane;
        bool listed = slot < at.visits;
        entry = (uint32_t)(listed && at.list ? at.list[slot] : slot);
        rest = listed && at.rest ? at.rest[slot] : RFA_NO_PREDICTION;
        if (listed && p.always_keep && (p.always_keep[entry] & 1))
            entry |= ALWAYS_KEEP;
    }

    __device__ __forceinline__ void load_k(uint32_t block, float block_rest)
    {
        barrier_wait(shared_address(&s.x->k_empty[k.stage]), k.parity ^ 1);
        if (lane == 0) {
            s.x->visit[k.stage] = make_uint2(block, __float_as_uint(block_rest));
            load_tile(&p.k, s.k + k.stage * t::k_bytes, shared_address(&s.x->k_full[k.stage]),
                      block);
        }
        k.next();
    }

    __device__ __forceinline__ void load_v(uint32_t block)
    {
        uint32_t full = shared_address(&s.x->v_full[v.stage]);
        /* Dense: both consumers are done with what was here. Otherwise both have decided the visit
         * before this one, and so are done with the third before; but a tile that was fetched ahead
         * and then skipped may still be on its way. */
        uint32_t before = mode == WALK_DENSE ? shared_address(&s.x->v_empty[v.stage]) : full;
        barrier_wait(before, v.parity ^ 1);
        if (lane == 0)
            load_tile(&p.v, s.v + v.stage * t::k_bytes, full, block);
        v.next();
    }

    /* V if one of the two decision blocks kept the visit; then the next visit's too, ahead of its
     * decision, because kept visits come in runs. Returns whether it fetched that. */
    __device__ __forceinline__ bool load_v_if_kept(int n, bool fetched, uint32_t block,
                                                   uint32_t next_block)
    {
        int slot = n % FLAG_STAGES;
        barrier_wait(shared_address(&s.x->decided[slot]), n / FLAG_STAGES & 1);
        const volatile uint32_t *keeps = s.x->keeps[slot];
        bool kept = keeps[0] | keeps[1];
        __syncwarp(); /* lane 0 speaks for the warp's reads */
        if (kept && !fetched)
            load_v(block);
        if (!kept && !fetched) { /* nobody waits for this phase, but it must pass */
            uint32_t full = shared_address(&s.x->v_full[v.stage]);
            barrier_wait(full, v.parity ^ 1);
            if (lane == 0)
                barrier_arrive(full);
            v.next();
        }
        bool ahead = kept && n + 1 < at.visits;
        if (ahead)
            load_v(next_block);
        return ahead;
    }

    __device__ __forceinline__ void run()
    {
        /* V trails K: by one tile, or until the visit is decided. */
        constexpr int trail = mode == WALK_DENSE ? 1 : HOPPER_STAGES;
        bool fetched = false;           /* the next V to decide on */
        uint32_t recent[HOPPER_STAGES]; /* the last visits' key blocks, newest first */
        if (lane == 0)
            load_q();
        for (int n = 0; n < at.visits + trail; n++) {
            if (n % 32 == 0)
                read_list(n);
            uint32_t block = __shfl_sync(~0u, entry, n % 32);
            float block_rest = __shfl_sync(~0u, rest, n % 32);
            if (n < at.visits)
                load_k(block, block_rest);
            if (n >= trail) {
                if (mode == WALK_DENSE)
                    load_v(recent[trail - 1]);
                else
                    fetched = load_v_if_kept(n - trail, fetched, recent[trail - 1],
                                             recent[trail > 1 ? trail - 2 : 0]);
            }
#pragma unroll
            for (int i = trail - 1; i > 0; i--)
                recent[i] = recent[i - 1];
            recent[0] = block;
        }
        drain();
    }

    /* The block must not end while a tile that nobody wanted is on its way. */
    __device__ __forceinline__ void drain()
    {
#pragma unroll 1
        for (int i = 0; i < HOPPER_STAGES && mode != WALK_DENSE; i++) {
            barrier_wait(shared_address(&s.x->v_full[v.stage]), v.parity ^ 1);
            v.next();
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

/* One row of a decision block. The four threads that share a row hold the same
 * values, but for `own_sum`, which counts a thread's own columns. */
struct row_state {
    float max;     /* over kept keys, unscaled */
    float own_sum; /* what divides the output */
    float sum, skipped;
    float kappa;
    int learned;
    bool exists;
};

/* What one block of keys means for a row. */
struct row_visit {
    float max;       /* of its scores, unscaled */
    float next;      /* the running max if the block is kept */
    float reference; /* next, or 0 where that is -inf */
    float decay;     /* exp(old running max - next) */
    float own_mass;  /* sum of exp(score - next) over the thread's columns */
    float mass;      /* over all of them, true or estimated */
    float top;       /* exp(max - next), for estimates */
};

/* ---- Consumer: one warpgroup, one decision block ------------------------------------------ */

template <typename T, int dim, walk_mode mode> struct consumer {
    using t = tile<dim>;
    static constexpr int out_registers = dim / 2;

    const hopper_params &p;
    const shared_layout<dim> &s;
    const place &at;
    int group, thread; /* warpgroup; thread in it */
    float factor;      /* scale log2(e) */
    rfa_skip_rule rule;
    bool dense;
    float inverse_rows;
    int kept;

    row_state row[2];
    float scores[64];
    float out[out_registers];
    uint32_t weights[32];
    int pending_stage; /* of the V tile that `weights` wait for */
    uint32_t pending_parity;
    ring<HOPPER_STAGES> k, v;

    /* ---- Products ---- */

    __device__ __forceinline__ void issue_scores()
    {
        uint32_t q = wgmma_operand(s.q + group * t::q_bytes, 16);
        uint32_t keys = wgmma_operand(s.k + k.stage * t::k_bytes, 16);
#pragma unroll
        for (int step = 0; step < dim / 16; step++) {
            int half = step / 4, inside = step % 4 * 32;
            uint32_t b = keys + ((half * t::k_half + inside) >> 4);
            wgmma_shared<T>(scores, q + ((half * t::q_half + inside) >> 4), b, step > 0);
        }
        wgmma_commit();
    }

    __device__ __forceinline__ void issue_output()
    {
        uint32_t values = wgmma_operand(s.v + pending_stage * t::k_bytes, t::k_half);
#pragma unroll
        for (int step = 0; step < HOPPER_BLOCK_K / 16; step++)
            wgmma_registers<T>(out, weights[4 * step], weights[4 * step + 1], weights[4 * step + 2],
                               weights[4 * step + 3], values + (step * 16 * 128 >> 4));
        wgmma_commit();
    }

    __device__ __forceinline__ void release(uint64_t *barrier)
    {
        __syncwarp(); /* this lane speaks for the warp's reads */
        if (thread % 32 == 0)
            barrier_arrive(shared_address(barrier));
    }

    /* ---- Scores to weights ---- */

    __device__ __forceinline__ void mask_past_end(int block)
    {
        int64_t keys = p.len_k - (int64_t)block * HOPPER_BLOCK_K;
        if (keys >= HOPPER_BLOCK_K)
            return;
        int left = (int)keys - 2 * (thread % 4);
#pragma unroll
        for (int i = 0; i < 64; i++)
            if (i / 4 * 8 + i % 2 >= left)
                scores[i] = -INFINITY;
    }

    __device__ __forceinline__ void compare_maxima(row_visit (&visit)[2])
    {
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float a = scores[2 * r], b = scores[2 * r + 1];
#pragma unroll
            for (int j = 1; j < 16; j++) {
                a = larger(a, scores[4 * j + 2 * r]);
                b = larger(b, scores[4 * j + 2 * r + 1]);
            }
            row_visit &w = visit[r];
            w.max = quad_max(larger(a, b));
            w.next = larger(row[r].max, w.max);
            w.reference = w.next == -INFINITY ? 0.f : w.next;
            w.decay = exp2_fast((row[r].max - w.reference) * factor);
        }
    }

    __device__ __forceinline__ void exponentials(row_visit (&visit)[2])
    {
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float offset = visit[r].reference * factor, a = 0, b = 0;
#pragma unroll
            for (int j = 0; j < 16; j++) {
                float &x = scores[4 * j + 2 * r], &y = scores[4 * j + 2 * r + 1];
                x = exp2_fast(fmaf(x, factor, -offset));
                y = exp2_fast(fmaf(y, factor, -offset));
                a += x;
                b += y;
            }
            visit[r].own_mass = a + b;
        }
        wgmma_pin(scores); /* here, under the product in flight, not after waiting for it */
    }

    /* Keeps the assembler from waiting for the product in flight before the exponentials: masses
     * are never negative, which it does not know, so this is a plain __syncwarp that comes last. */
    __device__ __forceinline__ void after_exponentials(const row_visit (&visit)[2])
    {
        __syncwarp(__ballot_sync(~0u, !(visit[0].own_mass < 0) & !(visit[1].own_mass < 0)));
    }

    /* The block is kept: its weights wait in registers for its V tile. */
    __device__ __forceinline__ void keep_rows(const row_visit (&visit)[2])
    {
#pragma unroll
        for (int r = 0; r < 2; r++) {
            row[r].max = visit[r].next;
            row[r].own_sum = fmaf(row[r].own_sum, visit[r].decay, visit[r].own_mass);
        }
#pragma unroll
        for (int i = 0; i < 32; i++)
            weights[i] = pack<T>(scores[2 * i], scores[2 * i + 1]);
        pending_stage = v.stage;
        pending_parity = v.parity;
    }

    /* ---- Decisions ---- */

    __device__ __forceinline__ void estimate_masses(row_visit (&visit)[2], int block)
    {
        int64_t left = p.len_k - (int64_t)block * HOPPER_BLOCK_K;
        float keys = (float)(left < HOPPER_BLOCK_K ? left : HOPPER_BLOCK_K);
#pragma unroll
        for (int r = 0; r < 2; r++) {
            visit[r].top = exp2_fast((visit[r].max - visit[r].reference) * factor);
            visit[r].mass = visit[r].top * (row[r].learned > 0 ? row[r].kappa : keys);
        }
    }

    __device__ __forceinline__ bool all_rows_vote(const row_visit (&visit)[2])
    {
        bool skip = true;
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float a = visit[r].max;
            float above = a == -INFINITY ? a : (a - row[r].max) * p.scale;
            float lse = rule.kind == RFA_SKIP_ENERGY ? __logf(row[r].sum) : 0.f;
            skip &= !row[r].exists | (bool)rfa_row_votes_skip(rule, above, 0.f, lse);
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
            lost += row[r].exists ? share.lost : 0.f;
            spent += row[r].exists ? share.spent : 0.f;
            veto |= row[r].exists & (bool)share.veto;
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
        return rfa_block_within_budget(rule, n, at.visits,
                                       ((l.x + l.y) + (l.z + l.w)) * inverse_rows,
                                       ((w.x + w.y) + (w.z + w.w)) * inverse_rows, veto, rest);
    }

    __device__ __forceinline__ bool rule_skips(const row_visit (&visit)[2], int n, float rest)
    {
        if (mode == WALK_VOTE || (mode == WALK_EXACT && rule.kind != RFA_SKIP_RECALL))
            return all_rows_vote(visit);
        return within_budget(visit, n, rest);
    }

    /* The sums that decisions read, which the output does not. */
    __device__ __forceinline__ void count_kept(row_visit (&visit)[2])
    {
#pragma unroll
        for (int r = 0; r < 2; r++) {
            row_visit &w = visit[r];
            if (mode == WALK_DENSE || (mode == WALK_VOTE && rule.kind != RFA_SKIP_ENERGY))
                continue;
            if (mode != WALK_EXACT)
                w.mass = quad_sum(w.own_mass);
            row[r].sum = fmaf(row[r].sum, w.decay, w.mass);
            if (mode == WALK_VOTE)
                continue;
            row[r].skipped *= w.decay;
            if (mode == WALK_ESTIMATED) {
                float below = (w.max - w.reference) * p.scale;
                if (rfa_kappa_learns(below, 0.f))
                    row[r].kappa = rfa_kappa_update(row[r].kappa, w.mass / w.top, ++row[r].learned);
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
            float mass = visit[r].mass;
            if (visit[r].reference > reference)
                mass *= exp2_fast((visit[r].reference - reference) * factor);
            /* Only recalls next to 0 come near this; an infinity would turn into NaN. */
            row[r].skipped = fminf(row[r].skipped + mass, 3.402823466e38f);
        }
    }

    __device__ __forceinline__ void publish(int n, bool keep)
    {
        if (thread == 0)
            s.x->keeps[n % FLAG_STAGES][group] = keep;
        release(&s.x->decided[n % FLAG_STAGES]);
    }

    __device__ __forceinline__ void record(int block)
    {
        kept++;
        int q_block = at.row / HOPPER_BLOCK_Q + group;
        if (thread == 0 && p.decisions && q_block < p.blocks_q)
            atomicOr(decision_words(q_block) + block / 32, 1u << block % 32);
    }

    __device__ __forceinline__ uint32_t *decision_words(int q_block)
    {
        return p.decisions + at.batch * p.decisions_stride[0] + at.head * p.decisions_stride[1] +
               q_block * p.decisions_stride[2];
    }

    /* ---- One visit ---- */

    /* have: weights of an earlier visit are waiting. Returns whether this one's do now. */
    template <bool have> __device__ __forceinline__ bool step(int n)
    {
        barrier_wait(shared_address(&s.x->k_full[k.stage]), k.parity);
        uint2 listed = s.x->visit[k.stage];
        int block = (int)(listed.x & ~ALWAYS_KEEP);

        wgmma_pin(scores);
        wgmma_pin(out);
        wgmma_begin();
        issue_scores();
        if (have) {
            barrier_wait(shared_address(&s.x->v_full[pending_stage]), pending_parity);
            wgmma_begin();
            issue_output();
        }
        wgmma_wait<have ? 1 : 0>();
        wgmma_pin(scores);
        release(&s.x->k_empty[k.stage]);
        k.next();

        row_visit visit[2];
        mask_past_end(block);
        compare_maxima(visit);
        if (mode == WALK_EXACT) {
            exponentials(visit);
            visit[0].mass = quad_sum(visit[0].own_mass);
            visit[1].mass = quad_sum(visit[1].own_mass);
        }
        if (mode == WALK_ESTIMATED)
            estimate_masses(visit, block);
        bool keep = true;
        if (mode != WALK_DENSE) {
            keep = n == 0 || dense || (listed.x & ALWAYS_KEEP);
            if (!keep)
                keep = !rule_skips(visit, n, __uint_as_float(listed.y));
            publish(n, keep);
        }
        if (keep && mode != WALK_EXACT)
            exponentials(visit);
        if (have) {
            if (keep)
                after_exponentials(visit);
            wgmma_wait<0>();
            wgmma_pin(out);
        }
        if (keep && __any_sync(~0u, !(visit[0].decay == 1.f) | !(visit[1].decay == 1.f))) {
#pragma unroll
            for (int i = 0; i < out_registers; i++)
                out[i] *= visit[i / 2 % 2].decay;
        }
        if (mode == WALK_DENSE && have)
            release(&s.x->v_empty[pending_stage]);
        if (keep) {
            count_kept(visit);
            keep_rows(visit);
            record(block);
        } else {
            count_skipped(visit);
        }
        v.next();
        return keep;
    }

    __device__ __forceinline__ void finish_last()
    {
        barrier_wait(shared_address(&s.x->v_full[pending_stage]), pending_parity);
        wgmma_pin(out);
        wgmma_begin();
        issue_output();
        wgmma_wait<0>();
        wgmma_pin(out);
    }

    /* ---- Start and end ---- */

    __device__ __forceinline__ void start()
    {
        factor = p.scale * 1.44269504088896340736f;
        int64_t rows = p.len_q - (at.row + group * HOPPER_BLOCK_Q);
        inverse_rows =
            rows <= 0 ? 0.f : 1.f / (float)(rows < HOPPER_BLOCK_Q ? rows : HOPPER_BLOCK_Q);
        kept = 0;
        for (int r = 0; r < 2; r++) {
            row[r] = {-INFINITY, 0.f, 0.f, 0.f, 0.f, 0, false};
            row[r].exists = thread / 32 * 16 + thread % 32 / 4 + 8 * r < rows;
        }
#pragma unroll
        for (int i = 0; i < 64; i++)
            scores[i] = 0;
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

    __device__ __forceinline__ void clear_decisions()
    {
        int q_block = at.row / HOPPER_BLOCK_Q + group;
        if (!p.decisions || q_block >= p.blocks_q)
            return;
        for (int i = thread; i < p.decision_words; i += 128)
            decision_words(q_block)[i] = 0;
        group_sync(GROUP_BARRIER + group, 128); /* before thread 0 sets bits */
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
            if (!row[r].exists)
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
            float sum = quad_sum(row[r].own_sum);
            inverse[r] = sum == 0 ? 0.f : 1.f / sum;
            recall[r] = row[r].skipped == 0 ? 1.f : row[r].sum / (row[r].sum + row[r].skipped);
            all += row[r].exists ? recall[r] : 0.f;
            if (!row[r].exists || thread % 4 != 0)
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
        if (p.block_kept)
            p.block_kept[slot] = kept;
    }

    __device__ __forceinline__ void run()
    {
        start();
        clear_decisions();
        barrier_wait(shared_address(&s.x->q_full), 0);
        bool have = false;
        int n = 0;
        if (n < at.visits)
            have = step<false>(n++);
        while (n < at.visits) {
            if (mode == WALK_DENSE || have)
                have = step<true>(n);
            else
                have = step<false>(n);
            n++;
        }
        if (have)
            finish_last();
        finish();
    }
};

/* ---- The kernel ------------------------------------------------------------------------------ */

template <int dim> __device__ __forceinline__ void prepare(const hopper_params &p, exchange *x)
{
    prefetch_map(&p.q);
    prefetch_map(&p.k);
    prefetch_map(&p.v);
    const int consumer_warps = 8;
    barrier_init(shared_address(&x->q_full), 1);
    for (int i = 0; i < HOPPER_STAGES; i++) {
        barrier_init(shared_address(&x->k_full[i]), 1);
        barrier_init(shared_address(&x->v_full[i]), 1);
        barrier_init(shared_address(&x->k_empty[i]), consumer_warps);
        barrier_init(shared_address(&x->v_empty[i]), consumer_warps);
    }
    for (int i = 0; i < FLAG_STAGES; i++)
        barrier_init(shared_address(&x->decided[i]), consumer_warps);
    barrier_init_done();
}

template <typename T, int dim, walk_mode mode>
__device__ __forceinline__ void attend(const hopper_params &p)
{
    extern __shared__ char raw[];
    shared_layout<dim> s(raw);
    if (threadIdx.x == 0)
        prepare<dim>(p, s.x);
    __syncthreads();
    place at = find_place(p);
    int group = __shfl_sync(~0u, threadIdx.x / 128, 0);
    if (group == 0) {
        registers_release<24>();
        if (threadIdx.x < 32) {
            producer<dim, mode> me = {p, s, at, (int)threadIdx.x};
            me.run();
        }
    } else {
        registers_take<240>();
        consumer<T, dim, mode> me = {p, s, at, group - 1, (int)threadIdx.x % 128};
        me.run();
    }
}

#endif
