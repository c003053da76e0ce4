/* What the rule of section 3 says of one block, and how surely. */
#include "oracle_internal.h"

static float knob_of(const oracle *o, int64_t batch, int64_t head)
{
    const rfa_problem *p = o->p;
    if (!p->knobs.data)
        return p->knob;
    /* (batch, head) alone: the row stride means nothing. */
    return *(const float *)view_at(&p->knobs, sizeof(float), batch, head, 0);
}

bool oracle_bad_knob(const oracle *o, int64_t batch, int64_t head)
{
    return !rfa_knob_valid((int)o->p->rule, o->p->knob_scaled, knob_of(o, batch, head));
}

static double limit_of(const rfa_problem *p, float knob, double len_k)
{
    switch (p->rule) {
    case RFA_RULE_BLASST: return log(p->knob_scaled ? fmin(1, knob / len_k) : knob);
    case RFA_RULE_ENERGY:
        return p->knob_scaled ? fmin(0, log(knob) + log(p->block_k / len_k)) : knob;
    case RFA_RULE_RECALL: return 1.0f - knob;
    default: return 0;
    }
}

rfa_skip_rule oracle_rule(const oracle *o, int64_t batch, int64_t head)
{
    const rfa_problem *p = o->p;
    rfa_skip_rule rule = {.kind = (int)p->rule};
    if (oracle_bad_knob(o, batch, head))
        rule.kind = RFA_SKIP_DENSE;
    double len_k = (double)oracle_sequence_of(o, batch)->len_k;
    rule.limit = limit_of(p, knob_of(o, batch, head), len_k);
    rfa_spread_budget(o->has_masses || p->order == RFA_ORDER_LIST, o->has_masses, &rule);
    return rule;
}

static bool all_rows_vote(rfa_skip_rule rule, const oracle_row *rows, int64_t count)
{
    for (int64_t r = 0; r < count; r++)
        if (!rfa_row_votes_skip(rule, rows[r].block.max, rows[r].kept.max, mass_log(rows[r].kept)))
            return false;
    return true;
}

static bool within_budget(rfa_skip_rule rule, const oracle_row *rows, int64_t count, int64_t n,
                          int64_t visits, double rest)
{
    double lost = 0, spent = 0;
    int veto = 0;
    for (int64_t r = 0; r < count; r++) {
        mass kept = rows[r].kept, skipped = rows[r].skipped, block = rows[r].block_tracked;
        /* Shares do not depend on the reference. With the skipped mass's own
         * max in it, no decisions that are replayed can overflow. */
        double reference = larger(larger(kept.max, skipped.max), block.max);
        rfa_row_share share = rfa_share_of_row(
            rule, mass_at(kept, reference), mass_at(skipped, reference), mass_at(block, reference));
        lost += share.lost;
        spent += share.spent;
        veto |= share.veto;
    }
    return rfa_block_within_budget(rule, (long)n, (long)visits, lost / (double)count,
                                   spent / (double)count, veto, rest);
}

oracle_verdict oracle_decide(rfa_skip_rule rule, const oracle_row *rows, int64_t count, int64_t n,
                             int64_t visits, double rest, double rounding)
{
    bool budget = rule.kind == RFA_SKIP_RECALL;
    double relative = 1e-4 + (budget ? 4 * rounding : 0);
    double absolute = 1e-7 + (budget ? 0 : 4 * rounding);
    bool skip[3];
    if (rule.kind == RFA_SKIP_DENSE)
        return (oracle_verdict){.keep = true, .unsure = false};
    for (int side = -1; side <= 1; side++) {
        rule.lean = (rfa_lean){side * relative, side * absolute};
        skip[side + 1] = budget ? within_budget(rule, rows, count, n, visits, rest)
                                : all_rows_vote(rule, rows, count);
    }
    return (oracle_verdict){.keep = !skip[1], .unsure = skip[0] != skip[1] || skip[1] != skip[2]};
}
