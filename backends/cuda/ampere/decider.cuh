/* Decisions of the kernels of attention.cuh: what a visit means to the 64 rows of a
 * decision block, and whether the rule skips it.
 *
 * Each of the decision block's four warps decides for itself, from the same numbers in
 * the same order, so no warp waits for another's answer. A lane answers for two rows; what
 * it knows of them is in shared memory, because there are no registers left for it. */
#ifndef RFA_CUDA_AMPERE_DECIDER_CUH
#define RFA_CUDA_AMPERE_DECIDER_CUH

#include "pieces.cuh"

namespace ampere
{

/* As cuda_walk. */
enum walk_mode { WALK_DENSE = 1, WALK_VOTE = 2, WALK_ESTIMATED = 3, WALK_EXACT = 4 };

/* What decisions know of a row. The warps of either half of the keys have a running
 * maximum of their own, and sums relative to it. */
struct account {
    float max; /* what masses are relative to */
    float half[2];
    float kept, skipped;
    float kappa, learned; /* learned: from how many visits */
    float top; /* last visit's exp(max of the visit - max) if kappa is to learn from it */
};

/* By parity of the visit, half of the keys, row of the decision block. */
struct tally {
    float top[2][2][BLOCK_Q], sum[2][2][BLOCK_Q];
};

/* One visit of one row. */
struct row_visit {
    account row;
    float top[2], next[2]; /* by half: maximum of the visit, running maximum if kept */
    float all_top, all_next, reference, decay;
    float mass; /* true or estimated, relative to all_next */
    bool exists;
};

struct opinion {
    float lost, spent; /* summed over rows */
    bool against;      /* a vote or a veto */
};

template <walk_mode MODE> struct decider {
    const tally &seen;
    rfa_skip_rule rule;
    float factor, scale; /* factor: scale log2(e) */
    int rows;            /* of the decision block that exist */

    /* The sums of a kept visit, once its warps have told them. */
    __device__ __forceinline__ void count(account &a, int row, int parity) const
    {
        float base = a.max == -INFINITY ? 0 : a.max;
        float mass = seen.sum[parity][0][row] * exp2_fast((a.half[0] - base) * factor) +
                     seen.sum[parity][1][row] * exp2_fast((a.half[1] - base) * factor);
        a.kept += mass;
        if (MODE == WALK_ESTIMATED && a.top > 0) {
            a.learned += 1;
            a.kappa = rfa_kappa_update(a.kappa, mass / a.top, a.learned);
        }
    }

    /* A visit to a block of so many keys. */
    __device__ __forceinline__ row_visit look(account known, int row, int parity, float keys) const
    {
        row_visit w;
        w.row = known;
        w.exists = row < rows;
#pragma unroll
        for (int h = 0; h < 2; h++) {
            w.top[h] = seen.top[parity][h][row];
            w.next[h] = larger(w.row.half[h], w.top[h]);
        }
        w.all_top = larger(w.top[0], w.top[1]);
        w.all_next = larger(w.row.max, w.all_top);
        w.reference = w.all_next == -INFINITY ? 0 : w.all_next;
        w.decay = exp2_fast((w.row.max - w.reference) * factor);
        w.mass = 0;
        if (MODE == WALK_EXACT)
            w.mass = seen.sum[parity][0][row] * exp2_fast((w.next[0] - w.reference) * factor) +
                     seen.sum[parity][1][row] * exp2_fast((w.next[1] - w.reference) * factor);
        if (MODE == WALK_ESTIMATED) {
            w.row.top = exp2_fast((w.all_top - w.reference) * factor);
            w.mass = w.row.top * (w.row.learned > 0 ? w.row.kappa : keys);
        }
        return w;
    }

    __device__ __forceinline__ bool votes_skip(const row_visit &w) const
    {
        float above = w.all_top == -INFINITY && w.row.max == w.row.max
                          ? w.all_top
                          : (w.all_top - w.row.max) * scale;
        float lse = rule.kind == RFA_SKIP_ENERGY ? __logf(w.row.kept) : 0;
        return !w.exists || rfa_row_votes_skip(rule, rfa_above_if_any(w.all_top, above), 0, lse);
    }

    __device__ __forceinline__ bool by_votes() const
    {
        return MODE == WALK_VOTE || (MODE == WALK_EXACT && rule.kind != RFA_SKIP_RECALL);
    }

    /* What one row says to skipping. */
    __device__ __forceinline__ void ask(const row_visit &w, opinion &all) const
    {
        if (by_votes()) {
            all.against |= !votes_skip(w);
            return;
        }
        rfa_row_share share =
            rfa_share_of_row(rule, w.row.kept * w.decay, w.row.skipped * w.decay, w.mass);
        all.lost += w.exists ? share.lost : 0;
        all.spent += w.exists ? share.spent : 0;
        all.against |= w.exists && share.veto;
    }

    /* By all lanes, each with the opinion of its rows. */
    __device__ __forceinline__ bool skips(const opinion &own, int n, int visits, float rest) const
    {
        bool against = __any_sync(ALL_LANES, own.against);
        if (by_votes())
            return !against;
        float each = RFA_RECIPROCAL((float)rows);
        return rfa_block_within_budget(rule, n, visits, warp_sum(own.lost) * each,
                                       warp_sum(own.spent) * each, against, rest);
    }

    __device__ __forceinline__ account after_keeping(const row_visit &w) const
    {
        account a = w.row;
        a.max = w.all_next;
        a.half[0] = w.next[0];
        a.half[1] = w.next[1];
        a.kept = a.kept * w.decay + (MODE == WALK_EXACT ? w.mass : 0);
        a.skipped *= w.decay;
        if (!rfa_kappa_learns((w.all_top - w.reference) * scale, 0))
            a.top = 0;
        return a;
    }

    __device__ __forceinline__ account after_skipping(const row_visit &w) const
    {
        account a = w.row;
        float mass = w.mass;
        if (MODE == WALK_VOTE)
            return a;
        if (a.max == -INFINITY) /* nothing is relative to it yet */
            a.max = w.all_top;
        float reference = a.max == -INFINITY ? 0 : a.max;
        if (w.reference > reference)
            mass *= exp2_fast((w.reference - reference) * factor);
        /* Only recalls next to 0 come near this; an infinity would turn into NaN. */
        a.skipped = fminf(a.skipped + mass, LARGEST);
        return a;
    }
};

} // namespace ampere

#endif
