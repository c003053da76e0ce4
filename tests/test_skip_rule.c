/* The skip rule by examples small enough to compute by hand. */
#include <criterion/criterion.h>
#include <math.h>

#include "backends/skip_rule.h"

static const rfa_lean exact = {0, 0};

static rfa_skip_rule rule_of(int kind, float limit)
{
    rfa_skip_rule rule = {kind, limit, 3, 1, {0, 0}};
    return rule;
}

Test(skip_rule, lean_widens_comparisons_both_ways)
{
    rfa_lean lean = {0.25f, 0};
    cr_expect(rfa_at_most(exact, 1, 1));
    cr_expect_not(rfa_at_most(exact, 1.25f, 1));
    cr_expect(rfa_at_most(lean, 1.25f, 1)); /* room 0.25 (1.25 + 1) */
    cr_expect_not(rfa_below(exact, 1, 1));
    cr_expect(rfa_below(lean, 1, 1));
    rfa_lean strict = {-0.25f, 0};
    cr_expect_not(rfa_at_most(strict, 1, 1));
    cr_expect(rfa_at_most(strict, 0.5f, 1)); /* 0.5 <= 1 - 0.375 */
    cr_expect(rfa_below(exact, -1, INFINITY), "no lean: an infinite limit stays one");
    cr_expect_not(rfa_below(exact, -1, -INFINITY));
}

Test(skip_rule, nan_never_compares_true)
{
    cr_expect_not(rfa_at_most(exact, NAN, 1));
    cr_expect_not(rfa_at_most(exact, 1, NAN));
    cr_expect_not(rfa_below(exact, NAN, 1));
    cr_expect_not(rfa_below(exact, 1, NAN));
}

Test(skip_rule, knobs_that_each_rule_takes)
{
    cr_expect(rfa_knob_valid(RFA_SKIP_DENSE, 0, NAN));
    cr_expect(rfa_knob_valid(RFA_SKIP_BLASST, 0, 0));
    cr_expect(rfa_knob_valid(RFA_SKIP_BLASST, 0, 1));
    cr_expect_not(rfa_knob_valid(RFA_SKIP_BLASST, 0, 1.01f));
    cr_expect_not(rfa_knob_valid(RFA_SKIP_BLASST, 0, -0.01f));
    cr_expect(rfa_knob_valid(RFA_SKIP_BLASST, 1, 500));
    cr_expect_not(rfa_knob_valid(RFA_SKIP_BLASST, 1, -1));
    cr_expect(rfa_knob_valid(RFA_SKIP_ENERGY, 0, -INFINITY));
    cr_expect(rfa_knob_valid(RFA_SKIP_ENERGY, 0, 0));
    cr_expect_not(rfa_knob_valid(RFA_SKIP_ENERGY, 0, 0.01f));
    cr_expect(rfa_knob_valid(RFA_SKIP_ENERGY, 1, 0));
    cr_expect(rfa_knob_valid(RFA_SKIP_ENERGY, 1, 1));
    cr_expect_not(rfa_knob_valid(RFA_SKIP_ENERGY, 1, 1.01f));
    cr_expect_not(rfa_knob_valid(RFA_SKIP_ENERGY, 1, -0.01f));
    cr_expect(rfa_knob_valid(RFA_SKIP_RECALL, 0, 1));
    cr_expect(rfa_knob_valid(RFA_SKIP_RECALL, 0, 1e-30f));
    cr_expect_not(rfa_knob_valid(RFA_SKIP_RECALL, 0, 0));
    cr_expect_not(rfa_knob_valid(RFA_SKIP_RECALL, 0, 1.0001f));
    for (int kind = RFA_SKIP_BLASST; kind <= RFA_SKIP_RECALL; kind++)
        for (int scaled = 0; scaled < 2; scaled++)
            cr_expect_not(rfa_knob_valid(kind, scaled, NAN), "rule %d takes NaN", kind);
}

Test(skip_rule, blasst_votes_by_the_running_max)
{
    rfa_skip_rule rule = rule_of(RFA_SKIP_BLASST, logf(0.1f)); /* -2.303 */
    cr_expect(rfa_row_votes_skip(rule, 0, 2.4f, 99), "2.4 below the max");
    cr_expect_not(rfa_row_votes_skip(rule, 0, 2.2f, 99));
    cr_expect_not(rfa_row_votes_skip(rule, 5, 2, 99), "a new max is never below itself");
    cr_expect(rfa_row_votes_skip(rule, -INFINITY, -INFINITY, -INFINITY), "nothing to lose");
    cr_expect_not(rfa_row_votes_skip(rule, 0, -INFINITY, -INFINITY));
    cr_expect_not(rfa_row_votes_skip(rule, NAN, 2, 2));
    cr_expect_not(rfa_row_votes_skip(rule, 0, NAN, NAN));
    cr_expect(rfa_row_votes_skip(rule, 2, INFINITY, NAN), "a row that saw +inf has a maximum");
}

Test(skip_rule, blasst_edges)
{
    rfa_skip_rule never = rule_of(RFA_SKIP_BLASST, -INFINITY); /* lambda 0 */
    cr_expect_not(rfa_row_votes_skip(never, -1e30f, 1e30f, 0));
    rfa_skip_rule all = rule_of(RFA_SKIP_BLASST, 0); /* lambda 1 */
    cr_expect(rfa_row_votes_skip(all, 1, 1.001f, 0));
    cr_expect_not(rfa_row_votes_skip(all, 1, 1, 0), "equal is not below");
}

Test(skip_rule, finite_scores_after_infinity_are_something)
{
    cr_expect_eq(rfa_above_if_any(-3, -5), -5);
    cr_expect_eq(rfa_above_if_any(-INFINITY, -INFINITY), -INFINITY, "nothing there");
    float above = rfa_above_if_any(2, -INFINITY); /* relative to a maximum of +inf */
    cr_expect(above < -1e38f && above > -INFINITY);
    cr_expect_not(rfa_row_votes_skip(rule_of(RFA_SKIP_BLASST, -INFINITY), above, 0, 0));
    cr_expect(rfa_row_votes_skip(rule_of(RFA_SKIP_BLASST, -5), above, 0, 0));
    cr_expect(isnan(rfa_above_if_any(2, NAN)));
}

Test(skip_rule, energy_votes_by_the_running_lse)
{
    rfa_skip_rule rule = rule_of(RFA_SKIP_ENERGY, -3);
    cr_expect(rfa_row_votes_skip(rule, 1, 99, 4.1f));
    cr_expect_not(rfa_row_votes_skip(rule, 1, 99, 3.9f));
    cr_expect_not(rfa_row_votes_skip(rule, 1, 99, -INFINITY), "an empty row keeps");
    cr_expect(rfa_row_votes_skip(rule, -INFINITY, 0, 0));
    cr_expect_not(rfa_row_votes_skip(rule, 1, 99, NAN));
    rfa_skip_rule never = rule_of(RFA_SKIP_ENERGY, -INFINITY);
    cr_expect_not(rfa_row_votes_skip(never, -1e30f, 1e30f, 1e30f));
}

Test(skip_rule, shares_of_a_row)
{
    rfa_skip_rule rule = rule_of(RFA_SKIP_RECALL, 0.1f);
    rfa_row_share share = rfa_share_of_row(rule, 6, 1, 1);
    cr_expect_float_eq(share.lost, 0.125f, 1e-7f);
    cr_expect_float_eq(share.spent, 0.125f, 1e-7f);
    cr_expect_not(share.veto);
    share = rfa_share_of_row(rule, 0, 0, 0);
    cr_expect(share.lost == 0 && share.spent == 0 && !share.veto, "0/0 is 0");
    cr_expect(rfa_share_of_row(rule, NAN, 0, 1).veto);
    cr_expect(rfa_share_of_row(rule, 1, 0, INFINITY).veto);
}

Test(skip_rule, a_row_that_would_lose_half_vetoes)
{
    rfa_skip_rule rule = rule_of(RFA_SKIP_RECALL, 0.1f);
    cr_expect_not(rfa_share_of_row(rule, 2, 1, 1).veto, "exactly half is allowed");
    cr_expect(rfa_share_of_row(rule, 2, 1, 1.01f).veto);
    rule.limit = 0.75f; /* where the budget is larger than half, it is the bound */
    cr_expect_not(rfa_share_of_row(rule, 1, 1, 2).veto);
    cr_expect(rfa_share_of_row(rule, 1, 1, 2.1f).veto);
}

Test(skip_rule, budget_by_a_fair_share)
{
    /* P = 0.125, 10 visits: at n = 5, nothing spent, a share is 3 * 0.125 / 5. */
    rfa_skip_rule rule = rule_of(RFA_SKIP_RECALL, 0.125f);
    rule.pace = 0;
    cr_expect(rfa_block_within_budget(rule, 5, 10, 0.074f, 0, 0, RFA_NO_PREDICTION));
    cr_expect_not(rfa_block_within_budget(rule, 5, 10, 0.076f, 0, 0, RFA_NO_PREDICTION));
    cr_expect(rfa_block_within_budget(rule, 9, 10, 0.0625f, 0.0625f, 0, RFA_NO_PREDICTION));
    cr_expect_not(rfa_block_within_budget(rule, 9, 10, 0.063f, 0.0625f, 0, RFA_NO_PREDICTION),
                  "the whole budget is the bound");
}

Test(skip_rule, budget_by_pace)
{
    /* share 0 leaves the pace: at n = 4 of 10, half of P is due. */
    rfa_skip_rule rule = rule_of(RFA_SKIP_RECALL, 0.125f);
    rule.share = 0;
    cr_expect(rfa_block_within_budget(rule, 4, 10, 0.03125f, 0.03125f, 0, RFA_NO_PREDICTION));
    cr_expect_not(rfa_block_within_budget(rule, 4, 10, 0.032f, 0.03125f, 0, RFA_NO_PREDICTION));
}

Test(skip_rule, budget_by_the_predicted_rest)
{
    rfa_skip_rule rule = rule_of(RFA_SKIP_RECALL, 0.125f);
    rule.share = 0;
    rule.pace = 0;
    cr_expect(rfa_block_within_budget(rule, 1, 10, 0.0625f, 0.03125f, 0, 0.03125f));
    cr_expect_not(rfa_block_within_budget(rule, 1, 10, 0.0625f, 0.03125f, 0, 0.032f));
    cr_expect_not(rfa_block_within_budget(rule, 1, 10, 0.0625f, 0, 0, RFA_NO_PREDICTION));
    cr_expect_not(rfa_block_within_budget(rule, 1, 10, 0.0625f, 0, 0, NAN));
}

Test(skip_rule, budget_edges_keep)
{
    rfa_skip_rule rule = rule_of(RFA_SKIP_RECALL, 0.125f);
    cr_expect(rfa_block_within_budget(rule, 5, 10, 0, 0, 0, RFA_NO_PREDICTION));
    cr_expect_not(rfa_block_within_budget(rule, 5, 10, 0, 0, 1, RFA_NO_PREDICTION), "veto");
    cr_expect_not(rfa_block_within_budget(rule, 5, 10, NAN, 0, 0, RFA_NO_PREDICTION));
    cr_expect_not(rfa_block_within_budget(rule, 5, 10, 0, NAN, 0, RFA_NO_PREDICTION));
    rule.limit = 0; /* R = 1: also where every exponential underflows */
    cr_expect_not(rfa_block_within_budget(rule, 5, 10, 0, 0, 0, 0));
    rule.limit = NAN;
    cr_expect_not(rfa_block_within_budget(rule, 5, 10, 0, 0, 0, 0));
}

Test(skip_rule, kappa_is_a_running_mean_of_near_blocks)
{
    cr_expect(rfa_kappa_learns(0, 16));
    cr_expect_not(rfa_kappa_learns(0, 16.01f));
    cr_expect_not(rfa_kappa_learns(-INFINITY, -INFINITY));
    cr_expect_not(rfa_kappa_learns(NAN, 0));
    float kappa = rfa_kappa_update(128, 10, 1);
    cr_expect_float_eq(kappa, 10, 1e-6f, "the first block replaces the start");
    kappa = rfa_kappa_update(kappa, 20, 2);
    kappa = rfa_kappa_update(kappa, 60, 3);
    cr_expect_float_eq(kappa, 30, 1e-5f);
}
