/* The skip rule, once for every backend.
 *
 * Plain enough for C11, CUDA C++, HIP C++ and OpenCL C. It holds no
 * exponentials: a backend brings each row's masses to a common scale (such as
 * its new running max m' = max(m, a)) in the way that suits its hardware and
 * asks here what follows. Sources: BLASST (arXiv 2512.12087), DynSparse (arXiv
 * 2606.16317); the rule `recall` is this project's own, docs/how-it-works.md
 * proves what it promises.
 *
 * Every comparison is written so that a NaN keeps the block. In C, the includer
 * brings <math.h> for INFINITY.
 */
#ifndef RFA_SKIP_RULE_H
#define RFA_SKIP_RULE_H

/* The oracle includes this with RFA_REAL double. */
#ifndef RFA_REAL
#define RFA_REAL float
#endif

#ifndef RFA_RULE_FN
#if defined(__CUDACC__) || defined(__HIPCC__)
#define RFA_RULE_FN static __device__ __forceinline__
#else
#define RFA_RULE_FN static inline
#endif
#endif

/* A kernel may bring a faster one that is off by some units in the last place. */
#ifndef RFA_RECIPROCAL
#define RFA_RECIPROCAL(x) (1 / (x))
#endif

enum { RFA_SKIP_DENSE = 0, RFA_SKIP_BLASST = 1, RFA_SKIP_ENERGY = 2, RFA_SKIP_RECALL = 3 };

/* How far a comparison may be off: backends leave it at zero. The oracle
 * widens it both ways to learn whether a decision was within rounding. */
typedef struct rfa_lean {
    RFA_REAL relative;
    RFA_REAL absolute;
} rfa_lean;

typedef struct rfa_skip_rule {
    int kind;       /* RFA_SKIP_* */
    RFA_REAL limit; /* blasst: ln lambda; energy: log_lambda; recall: P = 1 - R */
    RFA_REAL share; /* recall: multiple of a fair share of the budget left */
    RFA_REAL pace;  /* recall: multiple of the budget due so far */
    rfa_lean lean;
} rfa_skip_rule;

/* For `rest` below where no prediction exists: more than any budget. */
#define RFA_NO_PREDICTION ((RFA_REAL)2)

RFA_RULE_FN RFA_REAL rfa_lean_room(rfa_lean lean, RFA_REAL x, RFA_REAL limit)
{
    RFA_REAL ax = x < 0 ? -x : x;
    RFA_REAL al = limit < 0 ? -limit : limit;
    /* Infinite limits have no neighbourhood (and inf * 0 would be NaN). */
    if (lean.relative == 0 && lean.absolute == 0)
        return 0;
    return lean.relative * (ax + al) + lean.absolute;
}

RFA_RULE_FN int rfa_at_most(rfa_lean lean, RFA_REAL x, RFA_REAL limit)
{
    return x <= limit + rfa_lean_room(lean, x, limit);
}

RFA_RULE_FN int rfa_below(rfa_lean lean, RFA_REAL x, RFA_REAL limit)
{
    return x < limit + rfa_lean_room(lean, x, limit);
}

/* Which knobs a rule takes; a NaN is none of them. */
RFA_RULE_FN int rfa_knob_valid(int kind, int scaled, RFA_REAL knob)
{
    switch (kind) {
    case RFA_SKIP_DENSE: return 1;
    case RFA_SKIP_BLASST: return scaled ? knob >= 0 : knob >= 0 && knob <= 1;
    case RFA_SKIP_ENERGY: return scaled ? knob >= 0 && knob <= 1 : knob <= 0;
    default: return knob > 0 && knob <= 1;
    }
}

/* ---- blasst and energy: every row votes, one `keep` keeps the block ----------
 *
 * a: the row's max in this block; m: its running max before; lse: m + ln l.
 * All natural logs. */

/* `a` as a vote may be told it where all is relative to `m` instead: a - m, but -inf, which says
 * that the row has nothing in the block, only if `a` itself is that, not where m is +inf. */
RFA_RULE_FN RFA_REAL rfa_above_if_any(RFA_REAL a, RFA_REAL above)
{
    const RFA_REAL largest = (RFA_REAL)3.402823466e38f;
    return above < -largest && a >= -largest ? -largest : above;
}

RFA_RULE_FN int rfa_row_votes_skip(rfa_skip_rule rule, RFA_REAL a, RFA_REAL m, RFA_REAL lse)
{
    RFA_REAL reference = rule.kind == RFA_SKIP_BLASST ? (m > a ? m : a) : lse;
    /* A row that met a NaN keeps everything. blasst does not look at sums: a row that saw +inf
     * has one that is NaN, but a maximum to go by. */
    if (m != m || (rule.kind != RFA_SKIP_BLASST && lse != lse))
        return 0;
    if (a == -(RFA_REAL)INFINITY)
        return 1; /* nothing of this row is in the block */
    return rfa_below(rule.lean, a - reference, rule.limit);
}

/* ---- recall: shares of the row's mass, averaged over the block's rows ---------
 *
 * l, s, u: kept mass, skipped mass and this block's mass of one row, all
 * to one common scale, such as the row's m' = max(m, a). A row that has no mass at all adds 0. */

typedef struct rfa_row_share {
    RFA_REAL lost;  /* u / (l + s + u): what skipping this block would lose */
    RFA_REAL spent; /* s / (l + s + u): what earlier skips lost */
    int veto;       /* this row alone would lose more than it may */
} rfa_row_share;

RFA_RULE_FN rfa_row_share rfa_share_of_row(rfa_skip_rule rule, RFA_REAL l, RFA_REAL s, RFA_REAL u)
{
    RFA_REAL most = rule.limit > (RFA_REAL)0.5 ? rule.limit : (RFA_REAL)0.5;
    RFA_REAL total = l + s + u;
    RFA_REAL inverse = total == 0 ? (RFA_REAL)0 : RFA_RECIPROCAL(total);
    rfa_row_share share;
    share.lost = u * inverse;
    share.spent = s * inverse;
    share.veto = !rfa_at_most(rule.lean, share.lost + share.spent, most);
    return share;
}

/* How the budget is spread over the visits. listed: the order is the caller's
 * list or predicted; masses: it comes with predicted masses. */
RFA_RULE_FN void rfa_spread_budget(int listed, int masses, rfa_skip_rule *rule)
{
    rule->share = listed ? (masses ? (RFA_REAL)2 : (RFA_REAL)2.5) : (RFA_REAL)3;
    rule->pace = listed ? (RFA_REAL)0 : (RFA_REAL)1;
}

/* What a visit may spend, which is known before its masses are. */
typedef struct rfa_visit_budget {
    RFA_REAL fair; /* of the budget left: what one visit may take */
    RFA_REAL due;  /* of all mass: what may be lost by now */
    RFA_REAL rest; /* predicted share of the visits after this one, or RFA_NO_PREDICTION */
} rfa_visit_budget;

/* n: this visit's number among `visits` counted ones of the decision block, both as reals
 * (conversions of 64-bit integers are slow on GPUs). */
RFA_RULE_FN rfa_visit_budget rfa_budget_of_visit(rfa_skip_rule rule, RFA_REAL n, RFA_REAL visits,
                                                 RFA_REAL rest)
{
    rfa_visit_budget visit;
    visit.fair = rule.share * RFA_RECIPROCAL(visits - n);
    visit.due = rule.pace * rule.limit * (n + 1) * RFA_RECIPROCAL(visits);
    visit.rest = rest;
    return visit;
}

/* lost, spent: means of rfa_row_share over the rows that exist; veto: any row's. */
RFA_RULE_FN int rfa_visit_within_budget(rfa_skip_rule rule, rfa_visit_budget visit, RFA_REAL lost,
                                        RFA_REAL spent, int veto)
{
    RFA_REAL budget = rule.limit;
    RFA_REAL used = spent + lost;
    /* Without branches: on a GPU each of them waits. */
    return (budget > 0) & !veto & rfa_at_most(rule.lean, used, budget) &
           (rfa_at_most(rule.lean, lost, visit.fair * (budget - spent)) |
            rfa_at_most(rule.lean, used, visit.due) |
            rfa_at_most(rule.lean, used + visit.rest, budget));
}

/* Both in one. */
RFA_RULE_FN int rfa_block_within_budget(rfa_skip_rule rule, RFA_REAL n, RFA_REAL visits,
                                        RFA_REAL lost, RFA_REAL spent, int veto, RFA_REAL rest)
{
    return rfa_visit_within_budget(rule, rfa_budget_of_visit(rule, n, visits, rest), lost, spent,
                                   veto);
}

/* ---- estimated masses: kappa, the running mean of rowsum / exp(rowmax) ---------- */

/* Which kept blocks teach kappa: those whose max is near the running one. */
RFA_RULE_FN int rfa_kappa_learns(RFA_REAL a, RFA_REAL m_new)
{
    return a >= m_new - (RFA_REAL)16 && a > -(RFA_REAL)INFINITY;
}

/* count_after: with this ratio, as a real. */
RFA_RULE_FN RFA_REAL rfa_kappa_update(RFA_REAL kappa, RFA_REAL ratio, RFA_REAL count_after)
{
    return kappa + (ratio - kappa) * RFA_RECIPROCAL(count_after);
}

#endif
