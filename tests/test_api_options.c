/* Rules, knobs, blocks, orders, lists, grids and ranges that make no sense. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdint.h>

#include "tests/support.h"

/* ---- numbers ---- */

REFUSED(options, scale_nan, RFA_INVALID_ARGUMENT, "scale", s->args.scale = NAN)
REFUSED(options, scale_infinite, RFA_INVALID_ARGUMENT, "scale", s->args.scale = INFINITY)
REFUSED(options, unknown_axes, RFA_INVALID_ARGUMENT, "axes is 2", s->args.axes = (rfa_axes)2)
REFUSED(options, unknown_mask, RFA_INVALID_ARGUMENT, "mask is 9", s->args.mask = (rfa_mask)9)
REFUSED(options, unknown_rule, RFA_INVALID_ARGUMENT, "rule is 4", s->args.rule = (rfa_rule)4)
REFUSED(options, unknown_mass, RFA_INVALID_ARGUMENT, "mass is 2", s->args.mass = (rfa_mass)2)
REFUSED(options, unknown_form, RFA_INVALID_ARGUMENT, "knob_form is 7",
        s->args.knob_form = (rfa_knob_form)7)
REFUSED(options, unknown_order, RFA_INVALID_ARGUMENT, "order is -1", s->args.order = (rfa_order)-1)
REFUSED(options, unknown_flag, RFA_UNSUPPORTED, "flags", s->args.flags = 0x80)

REFUSED(options, recall_zero, RFA_INVALID_ARGUMENT, "knob is 0", s->args.knob = 0)
REFUSED(options, recall_above_one, RFA_INVALID_ARGUMENT, "knob is 1.5", s->args.knob = 1.5f)
REFUSED(options, recall_negative, RFA_INVALID_ARGUMENT, "knob is -0.5", s->args.knob = -0.5f)
REFUSED(options, recall_nan, RFA_INVALID_ARGUMENT, "knob is", s->args.knob = NAN)
REFUSED(options, recall_infinite, RFA_INVALID_ARGUMENT, "knob is inf", s->args.knob = INFINITY)
REFUSED(options, recall_scaled, RFA_INVALID_ARGUMENT, "knob_form",
        s->args.knob_form = RFA_KNOB_SCALED)
REFUSED(options, lambda_above_one, RFA_INVALID_ARGUMENT, "knob is 2",
        s->args.rule = RFA_RULE_BLASST, s->args.knob = 2)
REFUSED(options, lambda_negative, RFA_INVALID_ARGUMENT, "knob is -1",
        s->args.rule = RFA_RULE_BLASST, s->args.knob = -1)
REFUSED(options, lambda_nan, RFA_INVALID_ARGUMENT, "knob is", s->args.rule = RFA_RULE_BLASST,
        s->args.knob = NAN)
REFUSED(options, log_lambda_positive, RFA_INVALID_ARGUMENT, "knob is 0.1",
        s->args.rule = RFA_RULE_ENERGY, s->args.knob = 0.1f)
REFUSED(options, lost_mass_above_one, RFA_INVALID_ARGUMENT, "knob is 2",
        s->args.rule = RFA_RULE_ENERGY, s->args.knob_form = RFA_KNOB_SCALED, s->args.knob = 2)
REFUSED(options, estimated_for_energy, RFA_INVALID_ARGUMENT, "mass", s->args.rule = RFA_RULE_ENERGY,
        s->args.knob = -3, s->args.mass = RFA_MASS_ESTIMATED)
REFUSED(options, knobs_of_another_shape, RFA_INVALID_ARGUMENT, "knobs has length 3",
        s->args.knobs = small_keep(s, TENSOR(type_f32, 2, 3)))
REFUSED(options, knobs_of_another_dtype, RFA_INVALID_ARGUMENT, "knobs is float16",
        s->args.knobs = small_keep(s, TENSOR(type_f16, 2, 4)))

/* ---- blocks ---- */

REFUSED(options, block_q_negative, RFA_INVALID_ARGUMENT, "-64", s->args.block_q = -64)
REFUSED(options, block_k_negative, RFA_INVALID_ARGUMENT, "-1", s->args.block_k = -1)
REFUSED(options, block_q_huge, RFA_INVALID_ARGUMENT, "2147483647", s->args.block_q = INT32_MAX)
REFUSED(options, visit_q_no_multiple, RFA_INVALID_ARGUMENT, "visit_q is 100", s->args.visit_q = 100)
REFUSED(options, visit_q_below_block_q, RFA_INVALID_ARGUMENT, "visit_q is 32", s->args.visit_q = 32)
REFUSED(options, visit_q_negative, RFA_INVALID_ARGUMENT, "visit_q is -64", s->args.visit_q = -64)

Test(options, default_visit_q_is_a_multiple_of_block_q)
{
    cr_expect_eq(rfa_default_visit_q(64), 384);
    cr_expect_eq(rfa_default_visit_q(128), 384);
    cr_expect_eq(rfa_default_visit_q(100), 300);
    cr_expect_eq(rfa_default_visit_q(256), 256);
    cr_expect_eq(rfa_default_visit_q(384), 384);
    cr_expect_eq(rfa_default_visit_q(385), 385, "a group is one block at least");
}

/* ---- orders and lists ---- */

static void give_list(small_problem *s)
{
    s->args.order = RFA_ORDER_LIST;
    s->args.list_indices = small_keep(s, TENSOR(type_i32, 2, 4, 1, 3));
    s->args.list_counts = small_keep(s, TENSOR(type_i32, 2, 4, 1));
    s->args.list_masses = small_keep(s, TENSOR(type_f32, 2, 4, 1, 3));
}

REFUSED(options, predicted_visit_q, RFA_INVALID_ARGUMENT, "multiples of 32",
        s->args.order = RFA_ORDER_PREDICTED, s->args.block_q = 8, s->args.visit_q = 48)
REFUSED(options, predicted_block_k, RFA_INVALID_ARGUMENT, "multiples of 32",
        s->args.order = RFA_ORDER_PREDICTED, s->args.block_k = 100)
REFUSED(options, list_missing, RFA_INVALID_ARGUMENT, "list_indices is NULL",
        s->args.order = RFA_ORDER_LIST)
REFUSED(options, list_counts_missing, RFA_INVALID_ARGUMENT, "list_counts is NULL", give_list(s),
        s->args.list_counts = NULL)
REFUSED(options, list_rank, RFA_INVALID_ARGUMENT, "list_indices has 3 dimensions", give_list(s),
        s->extra[0]->ndim = 3)
REFUSED(options, list_groups, RFA_INVALID_ARGUMENT, "list_indices has length 2 in dimension 2",
        give_list(s), s->extra[0]->shape[2] = 2)
REFUSED(options, list_of_int64, RFA_INVALID_ARGUMENT, "list_indices is int64", give_list(s),
        s->extra[0]->dtype.bits = 64)
REFUSED(options, list_counts_shape, RFA_INVALID_ARGUMENT, "list_counts has length 3", give_list(s),
        s->extra[1]->shape[1] = 3)
REFUSED(options, list_masses_shape, RFA_INVALID_ARGUMENT, "list_masses has length 2", give_list(s),
        s->extra[2]->shape[3] = 2)
REFUSED(options, list_masses_dtype, RFA_INVALID_ARGUMENT, "list_masses is float16", give_list(s),
        s->extra[2]->dtype = type_f16)

static void small_capacity(small_problem *s)
{
    s->extra[0]->shape[3] = 2;
}

static void no_indices(small_problem *s)
{
    s->args.list_indices = NULL;
}

static void no_counts(small_problem *s)
{
    s->args.list_counts = NULL;
}

static void odd_visit_q(small_problem *s)
{
    s->args.block_q = 8;
    s->args.visit_q = 8;
}

static void groups_on_one_place(small_problem *s)
{
    s->extra[0]->strides[1] = 0;
}

Test(options, build_visit_list_refuses)
{
    expect_list_refused(small_capacity, RFA_INVALID_ARGUMENT, "room for 2 key blocks, there are 3");
    expect_list_refused(no_indices, RFA_INVALID_ARGUMENT, "list_indices is NULL");
    expect_list_refused(no_counts, RFA_INVALID_ARGUMENT, "list_counts is NULL");
    expect_list_refused(odd_visit_q, RFA_INVALID_ARGUMENT, "multiples of 32");
    expect_list_refused(groups_on_one_place, RFA_INVALID_ARGUMENT, "list_indices is an output");
}

/* ---- grids ---- */

static void give_grids(small_problem *s, rfa_grid q, rfa_grid k)
{
    static rfa_grid grids[2];
    grids[0] = q;
    grids[1] = k;
    s->args.grids_q = &grids[0];
    s->args.grids_k = &grids[1];
    s->args.grid_count = 1;
}

static const rfa_grid grid_q = {0, {2, 10, 10}, {0, 0, 0}}, grid_k = {0, {3, 10, 10}, {0, 0, 0}};

static rfa_grid sized(int64_t t, int64_t h, int64_t w)
{
    return (rfa_grid){0, {t, h, w}, {0, 0, 0}};
}

REFUSED(options, grid_too_long, RFA_INVALID_ARGUMENT, "grids_q[0]",
        give_grids(s, sized(3, 10, 10), grid_k))
REFUSED(options, grid_past_the_end, RFA_INVALID_ARGUMENT, "grids_k[0]",
        give_grids(s, grid_q, (rfa_grid){1, {3, 10, 10}, {0, 0, 0}}))
REFUSED(options, grid_half_empty, RFA_INVALID_ARGUMENT, "grids_q[0]",
        give_grids(s, sized(0, 10, 10), grid_k))
REFUSED(options, grid_negative, RFA_INVALID_ARGUMENT, "grids_q[0]",
        give_grids(s, sized(-2, -10, 10), grid_k))
REFUSED(options, grid_negative_offset, RFA_INVALID_ARGUMENT, "grids_k[0]",
        give_grids(s, grid_q, (rfa_grid){-1, {3, 10, 10}, {0, 0, 0}}))
REFUSED(options, grid_negative_cube, RFA_INVALID_ARGUMENT, "grids_q[0]",
        give_grids(s, (rfa_grid){0, {2, 10, 10}, {4, -4, 4}}, grid_k))
REFUSED(options, grid_that_overflows, RFA_INVALID_ARGUMENT, "grids_q[0]",
        give_grids(s, sized(INT64_MAX, INT64_MAX, 2), grid_k))
REFUSED(options, grid_offset_that_overflows, RFA_INVALID_ARGUMENT, "grids_q[0]",
        give_grids(s, (rfa_grid){INT64_MAX, {2, 10, 10}, {0, 0, 0}}, grid_k))
REFUSED(options, grid_with_causal, RFA_UNSUPPORTED, "causal", give_grids(s, grid_q, grid_k),
        s->args.mask = RFA_MASK_CAUSAL)
REFUSED(options, grids_of_q_alone, RFA_INVALID_ARGUMENT, "grids_k is NULL",
        give_grids(s, grid_q, grid_k), s->args.grids_k = NULL)
REFUSED(options, grids_of_k_alone, RFA_INVALID_ARGUMENT, "grids_q is NULL",
        give_grids(s, grid_q, grid_k), s->args.grids_q = NULL)
REFUSED(options, two_grids_unpacked, RFA_INVALID_ARGUMENT, "grid_count is 2",
        give_grids(s, grid_q, grid_k), s->args.grid_count = 2)

/* ---- ranges ---- */

static rfa_range ranges[RFA_MAX_RANGES + 1];

static void give_keys(small_problem *s, int64_t begin, int64_t end)
{
    ranges[0] = (rfa_range){begin, end};
    s->args.keep_keys = ranges;
    s->args.keep_key_count = 1;
}

static void give_queries(small_problem *s, int64_t begin, int64_t end)
{
    ranges[0] = (rfa_range){begin, end};
    s->args.dense_queries = ranges;
    s->args.dense_query_count = 1;
}

REFUSED(options, keys_reversed, RFA_INVALID_ARGUMENT, "keep_keys[0]", give_keys(s, 20, 10))
REFUSED(options, keys_outside, RFA_INVALID_ARGUMENT, "keep_keys[0] is 0 to 301",
        give_keys(s, 0, 301))
REFUSED(options, keys_negative, RFA_INVALID_ARGUMENT, "keep_keys[0]", give_keys(s, -1, 10))
REFUSED(options, keys_missing, RFA_INVALID_ARGUMENT, "keep_keys is NULL", give_keys(s, 0, 1),
        s->args.keep_keys = NULL)
REFUSED(options, keys_too_many, RFA_INVALID_ARGUMENT, "17 ranges", give_keys(s, 0, 1),
        s->args.keep_key_count = RFA_MAX_RANGES + 1)
REFUSED(options, keys_far_too_many, RFA_INVALID_ARGUMENT, "keep_keys has", give_keys(s, 0, 1),
        s->args.keep_key_count = SIZE_MAX)
REFUSED(options, queries_reversed, RFA_INVALID_ARGUMENT, "dense_queries[0]",
        give_queries(s, 20, 10))
REFUSED(options, queries_outside, RFA_INVALID_ARGUMENT, "dense_queries[0] is 0 to 201",
        give_queries(s, 0, 201))
REFUSED(options, queries_huge, RFA_INVALID_ARGUMENT, "dense_queries[0]",
        give_queries(s, INT64_MAX - 1, INT64_MAX))
REFUSED(options, queries_too_many, RFA_INVALID_ARGUMENT, "17 ranges", give_queries(s, 0, 1),
        s->args.dense_query_count = RFA_MAX_RANGES + 1)

/* ---- what one backend does not do ---- */

REFUSED(options, replay_on_cpu, RFA_UNSUPPORTED, "replay",
        s->args.replay = small_keep(s, TENSOR(type_u32, 2, 4, 4, 1)))

/* ---- valid at the edge ---- */

typedef struct accepted {
    rfa_rule rule;
    rfa_knob_form form;
    float knob;
} accepted;

Test(options, edge_knobs_are_accepted)
{
    const accepted cases[] = {
        {RFA_RULE_RECALL, RFA_KNOB_DIRECT, 1},         {RFA_RULE_RECALL, RFA_KNOB_DIRECT, 1e-30f},
        {RFA_RULE_BLASST, RFA_KNOB_DIRECT, 0},         {RFA_RULE_BLASST, RFA_KNOB_DIRECT, 1},
        {RFA_RULE_BLASST, RFA_KNOB_SCALED, 5000},      {RFA_RULE_BLASST, RFA_KNOB_SCALED, INFINITY},
        {RFA_RULE_ENERGY, RFA_KNOB_DIRECT, -INFINITY}, {RFA_RULE_ENERGY, RFA_KNOB_DIRECT, 0},
        {RFA_RULE_ENERGY, RFA_KNOB_SCALED, 0},         {RFA_RULE_ENERGY, RFA_KNOB_SCALED, 1},
        {RFA_RULE_DENSE, RFA_KNOB_DIRECT, NAN}};
    small_problem s;
    rfa_context *ctx = context_on("cpu", 1);
    small_create(&s, ctx);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        s.args.rule = cases[i].rule;
        s.args.knob_form = cases[i].form;
        s.args.knob = cases[i].knob;
        cr_expect_eq(rfa_attention(ctx, &s.args), RFA_OK, "case %zu: %s", i, rfa_last_error(ctx));
    }
    small_destroy(&s);
    rfa_context_destroy(ctx);
}

Test(options, edge_grids_and_ranges_are_accepted)
{
    small_problem s;
    rfa_context *ctx = context_on("cpu", 1);
    small_create(&s, ctx);
    give_keys(&s, 0, 300);
    give_queries(&s, 199, 200);
    cr_expect_eq(rfa_attention(ctx, &s.args), RFA_OK, "%s", rfa_last_error(ctx));
    give_grids(&s, grid_q, grid_k);
    cr_expect_eq(rfa_attention(ctx, &s.args), RFA_OK, "%s", rfa_last_error(ctx));
    give_grids(&s, sized(0, 0, 0), (rfa_grid){299, {1, 1, 1}, {9, 9, 9}});
    cr_expect_eq(rfa_attention(ctx, &s.args), RFA_OK, "%s", rfa_last_error(ctx));
    small_destroy(&s);
    rfa_context_destroy(ctx);
}
