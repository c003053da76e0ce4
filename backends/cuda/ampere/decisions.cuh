/* How the warps of attention.cuh decide: what they tell each other, and the accounts of rows. What
 * it means says decider.cuh. */
#ifndef RFA_CUDA_AMPERE_DECISIONS_CUH
#define RFA_CUDA_AMPERE_DECISIONS_CUH

#include "walk.cuh"

namespace ampere
{

template <class T, int DIM, int TILE, bool CAUSAL, walk_mode MODE>
__device__ __forceinline__ void walk<T, DIM, TILE, CAUSAL, MODE>::tell_tops(int n,
                                                                            const float (&top)[4])
{
    x.seen[group()].top[n % 2][half_keys()][warp_row(lane() % 4)] = own_of_quad(top, lane());
}

/* What this warp told, again: rather than keep it in registers. */
template <class T, int DIM, int TILE, bool CAUSAL, walk_mode MODE>
__device__ __forceinline__ void walk<T, DIM, TILE, CAUSAL, MODE>::recall_tops(int n,
                                                                              float (&top)[4]) const
{
    const volatile float *told = x.seen[group()].top[n % 2][half_keys()];
#pragma unroll
    for (int i = 0; i < 4; i++)
        top[i] = told[warp_row(i)];
}

template <class T, int DIM, int TILE, bool CAUSAL, walk_mode MODE>
__device__ __forceinline__ void walk<T, DIM, TILE, CAUSAL, MODE>::tell_sums(int n,
                                                                            const float (&part)[4])
{
    float all[4];
#pragma unroll
    for (int i = 0; i < 4; i++)
        all[i] = quad_sum(part[i]);
    x.seen[group()].sum[n % 2][half_keys()][warp_row(lane() % 4)] = own_of_quad(all, lane());
}

template <class T, int DIM, int TILE, bool CAUSAL, walk_mode MODE>
__device__ __forceinline__ uint32_t walk<T, DIM, TILE, CAUSAL, MODE>::told_at() const
{
    return shared + at::x + (int)offsetof(exchange, told) + group() * 8;
}

/* What is known of a row after visit n. */
template <class T, int DIM, int TILE, bool CAUSAL, walk_mode MODE>
__device__ __forceinline__ account walk<T, DIM, TILE, CAUSAL, MODE>::known(int row, int n) const
{
    const float4(*at)[BLOCK_Q] = x.known[group()][n & 1];
    float4 a = at[0][row], b = at[1][row];
    return {a.x, {a.y, a.z}, a.w, b.x, b.y, b.z, b.w};
}

template <class T, int DIM, int TILE, bool CAUSAL, walk_mode MODE>
__device__ __forceinline__ void walk<T, DIM, TILE, CAUSAL, MODE>::know(int row, int n,
                                                                       const account &a)
{
    float4(*at)[BLOCK_Q] = x.known[group()][n & 1];
    at[0][row] = {a.max, a.half[0], a.half[1], a.kept};
    at[1][row] = {a.skipped, a.kappa, a.learned, a.top};
}

template <class T, int DIM, int TILE, bool CAUSAL, walk_mode MODE>
__device__ __forceinline__ decider<MODE> walk<T, DIM, TILE, CAUSAL, MODE>::decider_now() const
{
    return {x.seen[group()],
            {c.rule, x.limit[group()], c.share, c.pace, {0, 0}},
            factor(),
            c.scale,
            x.rows[group()]};
}

template <class T, int DIM, int TILE, bool CAUSAL, walk_mode MODE>
__device__ __forceinline__ void walk<T, DIM, TILE, CAUSAL, MODE>::start_accounts()
{
    int row = threadIdx.x % GROUP_THREADS;
    if (row < BLOCK_Q)
        know(row, -1, {-INFINITY, {-INFINITY, -INFINITY}, 0, 0, 0, 0, 0});
}

/* Visit n as row r of this lane sees it; sums of the visit before, if that was kept, are
 * not in the account yet. */
template <class T, int DIM, int TILE, bool CAUSAL, walk_mode MODE>
__device__ __forceinline__ row_visit walk<T, DIM, TILE, CAUSAL, MODE>::look(int r, int n,
                                                                            int block) const
{
    const decider<MODE> d = decider_now();
    int row = lane() + WARP * r;
    account a = known(row, n - 1);
    if (MODE != WALK_EXACT && kept_last())
        d.count(a, row, (n - 1) % 2);
    return d.look(a, row, n % 2, (float)keys_of_row(row, block));
}

template <class T, int DIM, int TILE, bool CAUSAL, walk_mode MODE>
__device__ __forceinline__ void walk<T, DIM, TILE, CAUSAL, MODE>::settle(const row_visit &w, int r,
                                                                         int n, bool keep)
{
    know(lane() + WARP * r, n,
         keep ? decider_now().after_keeping(w) : decider_now().after_skipping(w));
}

/* Visit n's number among those that count. */
template <class T, int DIM, int TILE, bool CAUSAL, walk_mode MODE>
__device__ __forceinline__ int walk<T, DIM, TILE, CAUSAL, MODE>::number_of(int n) const
{
    return CAUSAL ? ((const volatile int *)x.numbered)[thread_now() >> 5] : n;
}

/* Whether a visit does, upon which the next one has the next number. */
template <class T, int DIM, int TILE, bool CAUSAL, walk_mode MODE>
__device__ __forceinline__ bool walk<T, DIM, TILE, CAUSAL, MODE>::counts(int block)
{
    bool seen = sees(block);
    __syncwarp();
    if (lane() == 0 && seen)
        ((volatile int *)x.numbered)[thread_now() >> 5]++;
    return seen;
}

/* Whether this warp's decision block keeps visit n. One warp for each row of a lane
 * brings accounts up to date; they are asked for once all have told the next visit. (Where there
 * are registers for it the lane's two rows are looked at once, else again for that.) */
template <class T, int DIM, int TILE, bool CAUSAL, walk_mode MODE>
__device__ __forceinline__ bool walk<T, DIM, TILE, CAUSAL, MODE>::decide(int n, int block)
{
    float rest = x.rest ? __ldg(x.rest + (uint32_t)n) : RFA_NO_PREDICTION;
    int flags = __ldg(x.flags + block);
    opinion own = {0, 0, false};
    wait_for(told_at(), n % 2);
    bool always =
        number_of(n) == 0 | isnan(x.limit[group()]) | (flags & RFA_BLOCK_ALWAYS_KEEP) != 0;
    constexpr bool looks_once = DIM > AMPERE_NARROW && MODE == WALK_EXACT;
    row_visit low, high;
    if (looks_once) {
        low = look(0, n, block);
        high = look(1, n, block);
        decider_now().ask(low, own);
        decider_now().ask(high, own);
    } else {
#pragma unroll(DIM <= AMPERE_NARROW ? 1 : 2)
        for (int r = 0; r < 2; r++)
            decider_now().ask(look(r, n, block), own);
    }
    bool keep = (has_rows || rows() > 0) &&
                (always || !decider_now().skips(own, number_of(n),
                                                CAUSAL ? x.counted[group()] : x.visits, rest));
    if (CAUSAL)
        keep &= counts(block);
    keep = __any_sync(ALL_LANES, keep);
    if (threadIdx.x % GROUP_THREADS == 0)
        x.keeps[n % 4][group()] = keep;
    int r = thread_now() >> 5 & 3;
    if (looks_once) {
        if (r == 0)
            settle(low, 0, n, keep);
        else if (r == 1)
            settle(high, 1, n, keep);
    } else if (r < 2)
        settle(look(r, n, block), r, n, keep);
    remember(keep);
    return keep;
}

/* By one thread of the decision block. */
template <class T, int DIM, int TILE, bool CAUSAL, walk_mode MODE>
__device__ __forceinline__ void walk<T, DIM, TILE, CAUSAL, MODE>::record(int block)
{
    uint32_t *words = decision_words();
    x.kept[group()]++;
    if (words)
        atomicOr(words + block / 32, 1u << block % 32);
}

} // namespace ampere

#endif
