/* Calls every function of the headers that all backends share. Included by one
 * small source for each language that must compile them; CALLS_FN is how that
 * language marks a function that a kernel may call. */
#ifndef RFA_TEST_CALLS_H
#define RFA_TEST_CALLS_H

#include "backends/cube_order.h"
#include "backends/skip_rule.h"
#include "backends/visit_order.h"

CALLS_FN int call_skip_rule(float x, long n)
{
    rfa_lean exact = {0, 0};
    rfa_skip_rule rule = {RFA_SKIP_RECALL, 0.1f, 3.0f, 1.0f, {0, 0}};
    rfa_row_share share = rfa_share_of_row(rule, x, x, x);
    int answers = rfa_knob_valid(RFA_SKIP_ENERGY, 0, x);
    answers += rfa_at_most(exact, x, 1) + rfa_below(exact, x, 1);
    answers += rfa_row_votes_skip(rule, x, x, x);
    answers += rfa_block_within_budget(rule, n, n + 2, share.lost, share.spent, share.veto,
                                       RFA_NO_PREDICTION);
    answers += rfa_kappa_learns(x, x) + (int)rfa_kappa_update(x, x, 1);
    return answers;
}

CALLS_FN rfa_index call_cube_order(rfa_index p)
{
    rfa_cubes cubes = {3, {5, 6, 7}, {4, 4, 4}};
    return rfa_caller_position(cubes, rfa_min_index(p, 209));
}

/* flags and list hold 6 blocks. */
CALLS_FN rfa_index call_visit_order(const RFA_GLOBAL unsigned char *flags, RFA_GLOBAL int *list)
{
    rfa_visit_shape shape = {60, 60, 20, 10, 0};
    return rfa_list_visits(shape, 1, 1, flags, list);
}

#endif
