/* Cases with names: corners that a random draw seldom hits. */
#include <stdio.h>
#include <string.h>

#include "conformance/generate.h"

#define ALL_OUTPUTS (CASE_LSE | CASE_RECALL | CASE_VISIT_ORDER | CASE_COUNTS)

static void one_token(conformance_case *c)
{
    c->len_q = c->len_k = 1;
}

static void one_key(conformance_case *c)
{
    c->len_k = 1;
    c->dtype = c->out_dtype = RFA_BF16;
}

static void one_query(conformance_case *c)
{
    c->len_q = 1;
    c->len_k = 1025;
}

static void causal_more_queries(conformance_case *c)
{
    c->len_q = 300;
    c->len_k = 130;
    c->mask = RFA_MASK_CAUSAL;
    c->order = RFA_ORDER_RASTER;
}

static void causal_more_keys(conformance_case *c)
{
    c->len_q = 70;
    c->len_k = 700;
    c->mask = RFA_MASK_CAUSAL;
}

static void causal_first_blocks_empty(conformance_case *c)
{
    c->len_q = 400;
    c->len_k = 3;
    c->mask = RFA_MASK_CAUSAL;
    c->rule = RFA_RULE_ENERGY;
    c->knob = -3;
}

/* Only its first row does not see the whole of the third key block. */
static void causal_one_pair_masked(conformance_case *c)
{
    c->len_q = 192;
    c->len_k = 382;
    c->mask = RFA_MASK_CAUSAL;
}

static void dim_one(conformance_case *c)
{
    c->dim = c->dim_v = 1;
    c->dtype = c->out_dtype = RFA_F16;
}

static void dim_256(conformance_case *c)
{
    c->dim = c->dim_v = 256;
    c->dtype = c->out_dtype = RFA_BF16;
}

static void wide_values(conformance_case *c)
{
    c->dim = 3;
    c->dim_v = 256;
}

static void narrow_values(conformance_case *c)
{
    c->dim = 256;
    c->dim_v = 1;
}

static void block_beyond_sequence(conformance_case *c)
{
    c->len_q = 20;
    c->len_k = 50;
    c->block_q = 256;
    c->block_k = 512;
    c->visit_q = 1024;
}

static void blocks_of_one(conformance_case *c)
{
    c->len_q = 37;
    c->len_k = 65;
    c->block_q = c->block_k = c->visit_q = 1;
    c->knob = 0.7f;
}

static void ragged_by_one(conformance_case *c)
{
    c->len_q = 257;
    c->len_k = 769;
    c->dtype = c->out_dtype = RFA_F16;
}

static void tiny_target(conformance_case *c)
{
    c->knob = 1e-30f; /* P is 1 in f32: no row can veto */
    c->len_k = 300;   /* so few visits that even the first could be skipped */
    c->mask = RFA_MASK_CAUSAL;
    c->order = RFA_ORDER_RASTER;
}

static void tiny_target_estimated(conformance_case *c)
{
    tiny_target(c);
    c->mass = RFA_MASS_ESTIMATED;
}

static void huge_raster(conformance_case *c)
{
    c->data = DATA_HUGE;
    c->order = RFA_ORDER_RASTER;
}

static void huge_never_skipping(conformance_case *c)
{
    c->data = DATA_HUGE;
    c->knob = 1;
}

static void all_ties(conformance_case *c)
{
    c->data = DATA_EQUAL;
    c->rule = RFA_RULE_BLASST;
    c->knob = 1;
    c->order = RFA_ORDER_PREDICTED;
}

static void sinks_predicted(conformance_case *c)
{
    c->data = DATA_SINKS;
    c->order = RFA_ORDER_PREDICTED;
}

static void many_predicted(conformance_case *c)
{
    c->len_k = 1100;
    c->block_q = c->block_k = 32;
    c->visit_q = 64;
    c->knob = 0.8f;
    c->order = RFA_ORDER_PREDICTED;
}

/* Kept blocks far below the running max, from which kappa must not learn. */
static void many_spikes_estimated(conformance_case *c)
{
    c->keep_keys[0] = (rfa_range){90, 300};
    c->keep_key_count = 1;
    c->data = DATA_SPIKES;
    c->mass = RFA_MASS_ESTIMATED;
    c->block_q = c->block_k = 16;
    c->order = RFA_ORDER_RASTER;
    c->knob = 0.3f;
}

static void list_with_falling_masses(conformance_case *c)
{
    c->order = RFA_ORDER_LIST;
    c->block_q = 16;
    c->block_k = 16;
    c->list_capacity = 38;
    c->list_masses = c->list_whole = true;
    c->knob = 0.5f;
}

static void list_with_bad_masses(conformance_case *c)
{
    list_with_falling_masses(c);
    c->list_whole = false;
    c->list_bad = true;
}

static void nothing_listed(conformance_case *c)
{
    c->order = RFA_ORDER_LIST;
    c->list_capacity = 1;
    c->list_bad = true;
}

static void list_over_capacity(conformance_case *c)
{
    c->order = RFA_ORDER_LIST;
    c->list_capacity = 17;
    c->list_bad = c->list_masses = true;
}

static void packed_with_empties(conformance_case *c)
{
    static const int32_t cu_q[] = {0, 0, 100, 100, 165, 166}, cu_k[] = {0, 40, 340, 340, 340, 341};
    c->packed = true;
    c->batch = 5;
    c->len_q = 100;
    c->len_k = 300;
    c->total_q = 170;
    c->total_k = 341;
    memcpy(c->cu_q, cu_q, sizeof(cu_q));
    memcpy(c->cu_k, cu_k, sizeof(cu_k));
}

static void packed_causal_bad_sequence(conformance_case *c)
{
    static const int32_t cu_q[] = {0, 64, 9999, 70, 134}, cu_k[] = {0, 200, 210, 230, 400};
    packed_with_empties(c);
    c->batch = 4;
    c->len_q = 64;
    c->len_k = 200;
    c->total_k = 400;
    c->mask = RFA_MASK_CAUSAL;
    memcpy(c->cu_q, cu_q, sizeof(cu_q));
    memcpy(c->cu_k, cu_k, sizeof(cu_k));
}

static void packed_longer_than_said(conformance_case *c)
{
    packed_with_empties(c);
    c->len_k = 290;
    c->len_q = 99;
}

/* Knobs scale with a sequence's own length, not with the longest. */
static void packed_energy_scaled(conformance_case *c)
{
    static const int32_t cu_q[] = {0, 60, 160}, cu_k[] = {0, 80, 380};
    packed_with_empties(c);
    c->batch = 2;
    c->total_k = 380;
    memcpy(c->cu_q, cu_q, sizeof(cu_q));
    memcpy(c->cu_k, cu_k, sizeof(cu_k));
    c->rule = RFA_RULE_ENERGY;
    c->knob_form = RFA_KNOB_SCALED;
    c->knob = 0.3f;
    c->block_q = c->block_k = 16;
}

static void packed_blasst_scaled(conformance_case *c)
{
    packed_energy_scaled(c);
    c->rule = RFA_RULE_BLASST;
    c->knob = 40;
    c->data = DATA_NORMAL;
    c->block_q = 2;
}

static void cubes_with_text(conformance_case *c)
{
    const rfa_grid grid_q = {5, {3, 7, 9}, {0, 0, 0}}, grid_k = {30, {5, 9, 11}, {2, 3, 4}};
    c->grid_count = 1;
    c->len_q = 200;
    c->len_k = 530;
    c->grids_q[0] = grid_q;
    c->grids_k[0] = grid_k;
    c->keep_keys[0] = (rfa_range){0, 30};
    c->keep_key_count = 1;
}

/* The second sequence is shorter than its grid. */
static void packed_cubes_one_too_large(conformance_case *c)
{
    static const int32_t cu_q[] = {0, 60, 90, 130}, cu_k[] = {0, 210, 250, 450};
    const rfa_grid grid = {0, {3, 4, 5}, {0, 0, 0}}, large = {2, {2, 4, 5}, {2, 2, 0}};
    packed_with_empties(c);
    c->batch = 3;
    c->len_q = 64;
    c->len_k = 220;
    c->total_q = 133;
    c->total_k = 450;
    memcpy(c->cu_q, cu_q, sizeof(cu_q));
    memcpy(c->cu_k, cu_k, sizeof(cu_k));
    c->grid_count = 3;
    c->grids_q[0] = c->grids_k[0] = c->grids_k[1] = c->grids_k[2] = grid;
    c->grids_q[1] = large;
}

/* Three query heads share each head of keys; every list is of its own keys. */
static void grouped_predicted(conformance_case *c)
{
    many_predicted(c);
    c->heads = 6;
}

/* Keys of each sequence in cubes of their own: other sizes, offsets and cubes. */
static void packed_cubes_of_their_own(conformance_case *c)
{
    static const int32_t cu_q[] = {0, 64, 94, 154}, cu_k[] = {0, 210, 330, 630};
    const rfa_grid q[] = {
        {0, {3, 4, 5}, {0, 0, 0}}, {3, {1, 5, 5}, {1, 2, 2}}, {10, {2, 5, 5}, {2, 0, 3}}};
    const rfa_grid k[] = {
        {10, {5, 5, 8}, {0, 0, 0}}, {0, {2, 6, 10}, {1, 3, 5}}, {40, {4, 8, 8}, {3, 2, 0}}};
    packed_with_empties(c);
    c->batch = 3;
    c->len_q = 64;
    c->len_k = 300;
    c->total_q = 154;
    c->total_k = 630;
    memcpy(c->cu_q, cu_q, sizeof(cu_q));
    memcpy(c->cu_k, cu_k, sizeof(cu_k));
    c->grid_count = 3;
    memcpy(c->grids_q, q, sizeof(q));
    memcpy(c->grids_k, k, sizeof(k));
    c->block_q = 16;
    c->block_k = 32;
    c->visit_q = 32;
}

/* One grid for all sequences, which end at different tokens behind it. */
static void packed_cubes_alike(conformance_case *c)
{
    const rfa_grid q = {2, {2, 4, 5}, {0, 0, 0}}, k = {6, {4, 6, 7}, {2, 0, 3}};
    packed_cubes_of_their_own(c);
    c->cu_q[2] = 110; /* the second sequence has 46 queries and 180 keys */
    c->cu_k[2] = 390;
    c->grid_count = 1;
    for (int i = 0; i < CASE_MAX_BATCH; i++) {
        c->grids_q[i] = q;
        c->grids_k[i] = k;
    }
}

static void nan_in_values(conformance_case *c)
{
    c->data = DATA_NONFINITE;
    c->mask = RFA_MASK_CAUSAL;
    c->len_q = c->len_k = 300;
}

/* A random problem, by its seed, under the name of what it found. */
static void draw_as(conformance_case *c, uint64_t seed, conformance_size size)
{
    char name[sizeof(c->name)];
    memcpy(name, c->name, sizeof(name));
    conformance_generate(seed, size, c);
    memcpy(c->name, name, sizeof(name));
}

/* A row that met a NaN keeps blocks of which it sees nothing, too. */
static void nan_row_sees_nothing(conformance_case *c)
{
    draw_as(c, 0x53474bd3b737a817, SIZE_MEDIUM);
}

/* blasst goes by the maximum of a row that saw an infinity, not by its sum. */
static void infinite_row_votes(conformance_case *c)
{
    draw_as(c, 0xedb32f3a09ef3c71, SIZE_SMALL);
}

/* Finite scores are something, also of a row that saw +inf: blasst at lambda 0 keeps them. */
static void finite_after_infinity(conformance_case *c)
{
    draw_as(c, 0xd90c00bcbfab4f7d, SIZE_SMALL);
}

/* Estimated masses next to the largest f32, relative to what was seen before. */
static void cliff_of_estimates(conformance_case *c)
{
    c->dtype = c->out_dtype = RFA_BF16;
    c->len_q = 64;
    c->len_k = 256;
    c->order = RFA_ORDER_RASTER;
    c->mass = RFA_MASS_ESTIMATED;
    c->data = DATA_CLIFF;
}

/* A pooled row that is not finite says nothing about the order. */
static void infinity_in_predicted(conformance_case *c)
{
    draw_as(c, 0x23e0efd799dc3b17, SIZE_SMALL);
}

/* More rows than a GPU computes at once: what computes some goes on with others, which may have
 * another head, fewer visits or none. */
static void more_rows_than_at_once(conformance_case *c)
{
    c->dtype = c->out_dtype = RFA_BF16;
    c->heads = 60;
    c->heads_kv = 12;
    c->len_q = 500;
    c->len_k = 330;
    c->dim = c->dim_v = 16;
}

static void more_rows_in_raster_order(conformance_case *c)
{
    more_rows_than_at_once(c);
    c->order = RFA_ORDER_RASTER;
    c->outputs = CASE_LSE | CASE_RECALL;
}

static void more_rows_estimated(conformance_case *c)
{
    more_rows_than_at_once(c);
    c->mass = RFA_MASS_ESTIMATED;
    c->knob_tensor = c->knob_bad = true;
}

/* Eight visits each, most of them skipped. */
static void more_rows_of_eight_visits(conformance_case *c)
{
    more_rows_than_at_once(c);
    c->len_k = 1024;
    c->knob = 0.6f;
    c->mass = RFA_MASS_ESTIMATED;
}

static void more_rows_dense(conformance_case *c)
{
    more_rows_than_at_once(c);
    c->rule = RFA_RULE_DENSE;
}

static void more_rows_with_lists(conformance_case *c)
{
    more_rows_than_at_once(c);
    c->order = RFA_ORDER_LIST;
    c->list_capacity = 3;
    c->list_bad = true;
}

/* Causal, some 40 visits, of which rows that share a list see different ones. */
static void causal_many_visits(conformance_case *c)
{
    c->dtype = c->out_dtype = RFA_BF16;
    c->len_q = 500;
    c->len_k = 5100;
    c->dim = c->dim_v = 128;
    c->mask = RFA_MASK_CAUSAL;
}

static void causal_many_visits_estimated(conformance_case *c)
{
    causal_many_visits(c);
    c->mass = RFA_MASS_ESTIMATED;
    c->keep_keys[0] = (rfa_range){4700, 4950};
    c->dense_queries[0] = (rfa_range){330, 331};
    c->keep_key_count = c->dense_query_count = 1;
}

static void causal_many_visits_dense(conformance_case *c)
{
    causal_many_visits(c);
    c->dtype = c->out_dtype = RFA_F16;
    c->rule = RFA_RULE_DENSE;
}

static void causal_votes(conformance_case *c)
{
    causal_many_visits(c);
    c->len_q = c->len_k = 900;
    c->dim = c->dim_v = 64;
    c->rule = RFA_RULE_ENERGY;
    c->knob = -4;
    c->flags = RFA_FLAG_TRACK_RECALL;
}

/* Sequences of which some are many times longer than others. */
static void packed_uneven(conformance_case *c)
{
    static const int32_t cu_q[] = {0, 900, 901, 901, 1100, 1292, 1360};
    static const int32_t cu_k[] = {0, 10, 1500, 1600, 3300, 3492, 3700};
    c->packed = true;
    c->dtype = c->out_dtype = RFA_BF16;
    c->batch = 6;
    c->heads = 4;
    c->len_q = 900;
    c->len_k = 1700;
    c->total_q = 1370;
    c->total_k = 3705;
    c->dim = c->dim_v = 128;
    memcpy(c->cu_q, cu_q, sizeof(cu_q));
    memcpy(c->cu_k, cu_k, sizeof(cu_k));
}

static void packed_uneven_causal(conformance_case *c)
{
    packed_uneven(c);
    c->mask = RFA_MASK_CAUSAL;
    c->dtype = c->out_dtype = RFA_F16;
    c->order = RFA_ORDER_PREDICTED;
}

/* A value that is not finite, in a tile of keys of which some rows see a part. */
static void hidden_infinity(conformance_case *c)
{
    c->dtype = c->out_dtype = RFA_BF16;
    c->len_q = c->len_k = 192;
    c->mask = RFA_MASK_CAUSAL;
    c->data = DATA_NONFINITE;
    c->seed = 15;
}

static void hidden_infinity_dense(conformance_case *c)
{
    hidden_infinity(c);
    c->dtype = c->out_dtype = RFA_F16;
    c->dim = c->dim_v = 128;
    c->rule = RFA_RULE_DENSE;
}

/* The same in the sequence behind, in a tile that holds the end of the one before. */
static void infinity_next_door(conformance_case *c)
{
    static const int32_t cu_q[] = {0, 100, 250}, cu_k[] = {0, 100, 250};
    c->packed = true;
    c->dtype = c->out_dtype = RFA_BF16;
    c->batch = 2;
    c->len_q = c->len_k = 150;
    c->total_q = c->total_k = 250;
    memcpy(c->cu_q, cu_q, sizeof(cu_q));
    memcpy(c->cu_k, cu_k, sizeof(cu_k));
    c->data = DATA_NONFINITE;
    c->seed = 5;
}

/* More than 64 key blocks, few heads: where blocks of threads choose whose rows come next, given
 * fewer of them than there are pieces of work (RFA_CUDA_MULTIPROCESSORS=6). */
static void many_keys_few_heads(conformance_case *c)
{
    c->dtype = c->out_dtype = RFA_BF16;
    c->len_q = 600;
    c->len_k = 8300;
}

static void everything_kept_by_ranges(conformance_case *c)
{
    c->keep_keys[0] = (rfa_range){0, c->len_k};
    c->dense_queries[0] = (rfa_range){c->len_q - 1, c->len_q};
    c->keep_key_count = c->dense_query_count = 1;
    c->knob = 0.3f;
}

static void everything_at_once(conformance_case *c)
{
    cubes_with_text(c);
    c->batch = 2;
    c->heads = 6;
    c->heads_kv = 2;
    c->dim = 80;
    c->dim_v = 96;
    c->dtype = RFA_BF16;
    c->out_dtype = RFA_F32;
    c->axes = RFA_AXES_BHSD;
    c->layout[CASE_Q] = LAYOUT_INTERLEAVED;
    c->layout[CASE_K] = LAYOUT_SWAPPED;
    c->layout[CASE_V] = LAYOUT_BROADCAST;
    c->layout[CASE_OUT] = LAYOUT_PADDED;
    c->shift = 3;
    c->padded_rows = true;
    c->mass = RFA_MASS_ESTIMATED;
    c->knob_tensor = c->knob_bad = true;
    c->order = RFA_ORDER_LIST;
    c->list_capacity = 4;
    c->list_masses = c->list_bad = true;
    c->dense_queries[0] = (rfa_range){70, 75};
    c->dense_query_count = 1;
}

#define CASE(name)                                                                                 \
    {                                                                                              \
#name, name                                                                                \
    }

static const struct {
    const char *name;
    void (*edit)(conformance_case *c);
} fixed[] = {
    CASE(one_token),
    CASE(one_key),
    CASE(one_query),
    CASE(causal_more_queries),
    CASE(causal_more_keys),
    CASE(causal_first_blocks_empty),
    CASE(causal_one_pair_masked),
    CASE(dim_one),
    CASE(dim_256),
    CASE(wide_values),
    CASE(narrow_values),
    CASE(block_beyond_sequence),
    CASE(blocks_of_one),
    CASE(ragged_by_one),
    CASE(tiny_target),
    CASE(tiny_target_estimated),
    CASE(huge_raster),
    CASE(huge_never_skipping),
    CASE(all_ties),
    CASE(sinks_predicted),
    CASE(many_predicted),
    CASE(many_spikes_estimated),
    CASE(list_with_falling_masses),
    CASE(list_with_bad_masses),
    CASE(nothing_listed),
    CASE(list_over_capacity),
    CASE(packed_with_empties),
    CASE(packed_causal_bad_sequence),
    CASE(packed_longer_than_said),
    CASE(packed_energy_scaled),
    CASE(packed_blasst_scaled),
    CASE(cubes_with_text),
    CASE(packed_cubes_one_too_large),
    CASE(nan_in_values),
    CASE(nan_row_sees_nothing),
    CASE(infinite_row_votes),
    CASE(finite_after_infinity),
    CASE(cliff_of_estimates),
    CASE(infinity_in_predicted),
    CASE(more_rows_than_at_once),
    CASE(more_rows_in_raster_order),
    CASE(more_rows_estimated),
    CASE(more_rows_of_eight_visits),
    CASE(more_rows_dense),
    CASE(more_rows_with_lists),
    CASE(everything_kept_by_ranges),
    CASE(everything_at_once),
    CASE(grouped_predicted),
    CASE(packed_cubes_of_their_own),
    CASE(packed_cubes_alike),
    CASE(causal_many_visits),
    CASE(causal_many_visits_estimated),
    CASE(causal_many_visits_dense),
    CASE(causal_votes),
    CASE(packed_uneven),
    CASE(packed_uneven_causal),
    CASE(hidden_infinity),
    CASE(hidden_infinity_dense),
    CASE(infinity_next_door),
    CASE(many_keys_few_heads),
};

size_t conformance_fixed_count(void)
{
    return sizeof(fixed) / sizeof(fixed[0]);
}

/* Recall 0.9, everything else default, on scenes of 4 or more key blocks. */
void conformance_fixed(size_t index, conformance_case *c)
{
    memset(c, 0, sizeof(*c));
    snprintf(c->name, sizeof(c->name), "%s", fixed[index].name);
    c->seed = index + 1;
    c->dtype = c->out_dtype = (rfa_dtype)(index % 3);
    c->batch = 1;
    c->heads = c->heads_kv = 2;
    c->len_q = 150;
    c->len_k = 600;
    c->dim = c->dim_v = 64;
    c->rule = RFA_RULE_RECALL;
    c->knob = 0.9f;
    c->outputs = ALL_OUTPUTS;
    c->data = DATA_CLUSTERS;
    fixed[index].edit(c);
    if (!c->packed) {
        c->total_q = c->len_q;
        c->total_k = c->len_k;
    }
}
