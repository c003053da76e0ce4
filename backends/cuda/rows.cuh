/* The state of a decision block's rows, and what a block of keys does to it.
 *
 * A thread holds two rows, g and g + 8 of its warp's 16; the four threads of a
 * quad hold the same. Sums over rows go through shuffles and shared memory in one
 * order, so that runs repeat bit for bit. */
#ifndef RFA_CUDA_ROWS_CUH
#define RFA_CUDA_ROWS_CUH

#include <float.h>

#include "device.cuh"

constexpr int MAX_WARPS = 8;

/* m, l and s of the specification, and kappa. */
struct row_state {
    float max, sum, skipped;
    float kappa;
    int kappa_count;
};

/* What a block of keys means to a row. */
struct row_visit {
    float top;       /* max_c S */
    float reference; /* m' = max(m, top); 0 for -inf */
    float decay;     /* exp(m - m') */
    float mass;      /* u, relative to m' */
    int seen;        /* unmasked keys */
};

/* What warps tell each other. */
struct votes {
    float lost[MAX_WARPS], spent[MAX_WARPS];
    int no[MAX_WARPS]; /* a row that keeps the block: a vote or a veto */
};

/* Fast where the weights are rounded anyway. */
template <class T> __device__ __forceinline__ float exponential(float x)
{
    return __expf(x);
}
template <> __device__ __forceinline__ float exponential<float>(float x)
{
    return expf(x);
}

/* `top` and `seen` are set. */
__device__ __forceinline__ void compare_maxima(const row_state &row, row_visit &visit)
{
    float m = larger(row.max, visit.top);
    visit.reference = m == -INFINITY ? 0 : m; /* -inf - -inf would be NaN */
    visit.decay = expf(row.max - visit.reference);
}

__device__ __forceinline__ void estimate_mass(const row_state &row, row_visit &visit)
{
    float kappa = row.kappa_count > 0 ? row.kappa : (float)visit.seen;
    visit.mass = kappa * expf(visit.top - visit.reference);
}

/* ---- The rules --------------------------------------------------------------------------------
 */

__device__ __forceinline__ bool row_votes_skip(rfa_skip_rule rule, const row_state &row,
                                               const row_visit &visit)
{
    /* Relative to m, which keeps digits that m + ln l would round away. */
    float above = visit.top == -INFINITY && row.max == row.max ? visit.top : visit.top - row.max;
    float log_sum = rule.kind == RFA_SKIP_ENERGY ? logf(row.sum) : 0;
    return rfa_row_votes_skip(rule, rfa_above_if_any(visit.top, above), 0, log_sum);
}

/* Whether the rule skips the block, by all threads. `there`: which of the two
 * rows exist. */
__device__ __forceinline__ bool rule_skips(rfa_skip_rule rule, const row_state (&row)[2],
                                           const row_visit (&visit)[2], const bool (&there)[2],
                                           int rows, long n, long visits, float rest, votes &v)
{
    int warps = blockDim.x / WARP, warp = threadIdx.x / WARP;
    float lost = 0, spent = 0;
    bool no = false;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        if (!there[i])
            continue;
        if (rule.kind == RFA_SKIP_RECALL) {
            rfa_row_share share = rfa_share_of_row(rule, row[i].sum * visit[i].decay,
                                                   row[i].skipped * visit[i].decay, visit[i].mass);
            lost += share.lost;
            spent += share.spent;
            no |= share.veto;
        } else {
            no |= !row_votes_skip(rule, row[i], visit[i]);
        }
    }
    lost = rows_sum(lost);
    spent = rows_sum(spent);
    no = __any_sync(ALL_LANES, no);
    if (threadIdx.x % WARP == 0) {
        v.lost[warp] = lost;
        v.spent[warp] = spent;
        v.no[warp] = no;
    }
    __syncthreads();
    lost = spent = 0;
    no = false;
    for (int w = 0; w < warps; w++) {
        lost += v.lost[w];
        spent += v.spent[w];
        no |= v.no[w] != 0;
    }
    if (rule.kind != RFA_SKIP_RECALL)
        return !no;
    return rfa_block_within_budget(rule, n, visits, lost / (float)rows, spent / (float)rows, no,
                                   rest);
}

/* ---- What follows -------------------------------------------------------------------------------
 */

__device__ __forceinline__ void row_kept(row_state &row, const row_visit &visit, bool estimated)
{
    row.max = larger(row.max, visit.top);
    row.sum = row.sum * visit.decay + visit.mass;
    row.skipped *= visit.decay;
    if (estimated && rfa_kappa_learns(visit.top, row.max))
        row.kappa =
            rfa_kappa_update(row.kappa, visit.mass * expf(row.max - visit.top), ++row.kappa_count);
}

__device__ __forceinline__ void row_skipped(row_state &row, const row_visit &visit)
{
    float mass = visit.mass;
    if (visit.top > row.max && row.max == -INFINITY)
        row.max = visit.top; /* nothing is relative to it yet */
    if (visit.top > row.max)
        mass *= expf(visit.top - row.max);
    row.skipped += mass;
    /* Only recalls next to 0 allow this; an infinity would turn into NaN. */
    if (row.skipped > FLT_MAX)
        row.skipped = FLT_MAX;
}

#endif
