/* Small cases with results known by hand, and results that must be equal bit for
 * bit. Each runs on backend cpu and on reference. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support.h"

static const char *const backends[] = {"cpu", "reference"};

/* A tiny problem in f32 whose k and q are zeros, so that all weights are equal. */
typedef struct tiny {
    rfa_context *ctx;
    DLTensor *q, *k, *v, *out, *lse, *recall, *decisions, *counts;
    rfa_attention_args args;
} tiny;

static void tiny_create(tiny *t, const char *backend, int64_t len_q, int64_t len_k, int64_t heads,
                        int64_t heads_kv, int64_t dim)
{
    t->ctx = context_on(backend, 1);
    t->args = (rfa_attention_args)RFA_ATTENTION_ARGS_INIT;
    t->args.block_q = 2;
    t->args.block_k = 2;
    t->args.visit_q = 2;
    t->args.q = t->q = TENSOR(type_f32, 1, len_q, heads, dim);
    t->args.k = t->k = TENSOR(type_f32, 1, len_k, heads_kv, dim);
    t->args.v = t->v = TENSOR(type_f32, 1, len_k, heads_kv, 1);
    t->args.out = t->out = TENSOR(type_f32, 1, len_q, heads, 1);
    t->args.lse = t->lse = TENSOR(type_f32, 1, heads, len_q);
    t->args.recall = t->recall = TENSOR(type_f32, 1, heads, len_q);
    t->args.decisions = t->decisions =
        TENSOR(type_u32, 1, heads, (len_q + 1) / 2, (len_k + 63) / 64);
    t->args.counts = t->counts = TENSOR(type_u8, sizeof(rfa_counts));
}

static void tiny_destroy(tiny *t)
{
    DLTensor *tensors[] = {t->q, t->k, t->v, t->out, t->lse, t->recall, t->decisions, t->counts};
    for (int i = 0; i < 8; i++)
        tensor_free(tensors[i]);
    rfa_context_destroy(t->ctx);
}

static void tiny_run(tiny *t)
{
    cr_assert_eq(rfa_attention(t->ctx, &t->args), RFA_OK, "%s", rfa_last_error(t->ctx));
}

static void tiny_values(tiny *t, int count, const float *values)
{
    memcpy(tensor_floats(t->v), values, (size_t)count * sizeof(float));
}

static rfa_counts counts_of(const DLTensor *counts)
{
    rfa_counts copy;
    memcpy(&copy, tensor_floats(counts), sizeof(copy));
    return copy;
}

static void expect_row(const tiny *t, int row, float out, float lse, float recall)
{
    cr_expect_float_eq(tensor_floats(t->out)[row], out, 1e-5f, "out[%d] %g, expected %g", row,
                       (double)tensor_floats(t->out)[row], (double)out);
    if (isinf(lse))
        cr_expect_eq(tensor_floats(t->lse)[row], lse);
    else
        cr_expect_float_eq(tensor_floats(t->lse)[row], lse, 1e-5f, "lse[%d] %g, expected %g", row,
                           (double)tensor_floats(t->lse)[row], (double)lse);
    cr_expect_float_eq(tensor_floats(t->recall)[row], recall, 1e-5f, "recall[%d] %g, expected %g",
                       row, (double)tensor_floats(t->recall)[row], (double)recall);
}

/* ---- dense ---- */

static void one_key(const char *backend)
{
    tiny t;
    tiny_create(&t, backend, 1, 1, 1, 1, 4);
    for (int i = 0; i < 4; i++) {
        tensor_floats(t.q)[i] = (float)i;
        tensor_floats(t.k)[i] = 1;
    }
    tensor_floats(t.v)[0] = -7.25f;
    tiny_run(&t);
    expect_row(&t, 0, -7.25f, 3, 1); /* (0 + 1 + 2 + 3) / sqrt(4) */
    rfa_counts counts = counts_of(t.counts);
    cr_expect(counts.blocks_total == 1 && counts.blocks_visited == 1 && counts.blocks_kept == 1);
    cr_expect_eq(counts.recall_kind, RFA_RECALL_EXACT);
    tiny_destroy(&t);
}

static void equal_keys(const char *backend)
{
    tiny t;
    tiny_create(&t, backend, 3, 5, 1, 1, 1);
    tiny_values(&t, 5, (const float[]){1, 2, 3, 4, 10});
    tiny_run(&t);
    for (int row = 0; row < 3; row++)
        expect_row(&t, row, 4, logf(5), 1);
    cr_expect_eq(counts_of(t.counts).blocks_total, 6);
    tiny_destroy(&t);
}

static void one_dominant_key(const char *backend)
{
    tiny t;
    tiny_create(&t, backend, 1, 5, 1, 1, 1);
    tiny_values(&t, 5, (const float[]){1, 2, 3, 4, 10});
    tensor_floats(t.q)[0] = 1000;
    tensor_floats(t.k)[3] = 1000; /* a logit of a million */
    tiny_run(&t);
    expect_row(&t, 0, 4, 1e6f, 1);
    tiny_destroy(&t);
}

/* Values next to the largest number, and a maximum that rises a little from one block to the next:
 * weights are never much above 1. */
static void large_values(const char *backend)
{
    tiny t;
    tiny_create(&t, backend, 1, 4, 1, 1, 1);
    tiny_values(&t, 4, (const float[]){1e38f, 1e38f, 1e38f, 1e38f});
    t.args.order = RFA_ORDER_RASTER;
    tensor_floats(t.q)[0] = 1;
    memcpy(tensor_floats(t.k), (const float[]){0, -60, 4.9f, -60}, 4 * sizeof(float));
    tiny_run(&t);
    cr_expect_float_eq(tensor_floats(t.out)[0] / 1e38f, 1, 1e-5f, "%g",
                       (double)tensor_floats(t.out)[0]);
    tiny_destroy(&t);
}

static void causal(const char *backend)
{
    tiny t;
    tiny_create(&t, backend, 4, 2, 1, 1, 1); /* rows 0 and 1 see nothing, 2 sees key 0 */
    tiny_values(&t, 2, (const float[]){3, 5});
    t.args.mask = RFA_MASK_CAUSAL;
    tiny_run(&t);
    expect_row(&t, 0, 0, -INFINITY, 1);
    expect_row(&t, 1, 0, -INFINITY, 1);
    expect_row(&t, 2, 3, 0, 1);
    expect_row(&t, 3, 4, logf(2), 1);
    rfa_counts counts = counts_of(t.counts);
    cr_expect_eq(counts.blocks_total, 1, "%d", (int)counts.blocks_total);
    cr_expect_eq(counts.recall_mean, 1);
    tiny_destroy(&t);
}

static void grouped_heads(const char *backend)
{
    tiny t;
    tiny_create(&t, backend, 2, 3, 6, 2, 1);
    tiny_values(&t, 6, (const float[]){1, 20, 2, 40, 3, 60}); /* means 2 and 40 */
    tiny_run(&t);
    for (int row = 0; row < 2; row++)
        for (int head = 0; head < 6; head++)
            cr_expect_float_eq(tensor_floats(t.out)[row * 6 + head], head < 3 ? 2 : 40, 1e-5f);
    tiny_destroy(&t);
}

static void scale_replaces_the_default(const char *backend)
{
    tiny t;
    tiny_create(&t, backend, 1, 1, 1, 1, 4);
    tensor_floats(t.q)[0] = tensor_floats(t.k)[0] = 2;
    t.args.scale = -3;
    tiny_run(&t);
    cr_expect_float_eq(tensor_floats(t.lse)[0], -12, 1e-5f);
    tiny_destroy(&t);
}

/* ---- rules by hand: two blocks, of logits 0 0 | x x ---- */

static void two_blocks(tiny *t, const char *backend, float x)
{
    tiny_create(t, backend, 1, 4, 1, 1, 1);
    tiny_values(t, 4, (const float[]){1, 3, 100, 100});
    tensor_floats(t->q)[0] = 1;
    tensor_floats(t->k)[2] = tensor_floats(t->k)[3] = x;
    t->args.order = RFA_ORDER_RASTER;
}

static void recall_by_hand(const char *backend)
{
    tiny t;
    /* exp(x) = 1/9: of the mass, 0.1 is in the second block. R = 0.89 lets it go,
     * R = 0.91 does not. */
    two_blocks(&t, backend, logf(1.0f / 9));
    t.args.rule = RFA_RULE_RECALL;
    t.args.knob = 0.89f;
    tiny_run(&t);
    expect_row(&t, 0, 2, logf(2), 0.9f);
    cr_expect_eq(*(uint32_t *)t.decisions->data, 1);
    rfa_counts counts = counts_of(t.counts);
    cr_expect(counts.blocks_total == 2 && counts.blocks_visited == 2 && counts.blocks_kept == 1);
    cr_expect_float_eq(counts.recall_mean, 0.9f, 1e-6f);
    cr_expect_float_eq(counts.recall_block_min, 0.9f, 1e-6f);
    cr_expect_eq(counts.recall_scope, RFA_RECALL_ALL_KEYS);
    t.args.knob = 0.91f;
    tiny_run(&t);
    expect_row(&t, 0, 0.9f * 2 + 0.1f * 100, logf(2 / 0.9f), 1);
    cr_expect_eq(*(uint32_t *)t.decisions->data, 3);
    tiny_destroy(&t);
}

static void blasst_by_hand(const char *backend)
{
    tiny t;
    two_blocks(&t, backend, -2);
    t.args.rule = RFA_RULE_BLASST;
    t.args.knob = expf(-1.9f);
    tiny_run(&t);
    expect_row(&t, 0, 2, logf(2), 1 / (1 + expf(-2)));
    cr_expect_eq(*(uint32_t *)t.decisions->data, 1);
    t.args.knob = expf(-2.1f);
    tiny_run(&t);
    cr_expect_eq(*(uint32_t *)t.decisions->data, 3);
    t.args.knob_form = RFA_KNOB_SCALED; /* lambda = a / 4 */
    t.args.knob = 4 * expf(-1.9f);
    tiny_run(&t);
    cr_expect_eq(*(uint32_t *)t.decisions->data, 1);
    tiny_destroy(&t);
}

static void energy_by_hand(const char *backend)
{
    tiny t;
    two_blocks(&t, backend, -2); /* a - (m + ln l) = -2 - ln 2 = -2.69 */
    t.args.rule = RFA_RULE_ENERGY;
    t.args.knob = -2.6f;
    tiny_run(&t);
    cr_expect_eq(*(uint32_t *)t.decisions->data, 1);
    t.args.knob = -2.8f;
    tiny_run(&t);
    cr_expect_eq(*(uint32_t *)t.decisions->data, 3);
    t.args.knob_form = RFA_KNOB_SCALED; /* ln P + ln(2 / 4) */
    t.args.knob = 2 * expf(-2.6f);
    tiny_run(&t);
    cr_expect_eq(*(uint32_t *)t.decisions->data, 1);
    tiny_destroy(&t);
}

static void untracked_recall_is_absent(const char *backend)
{
    tiny t;
    two_blocks(&t, backend, -2);
    t.args.rule = RFA_RULE_BLASST;
    t.args.knob = 0.5f;
    t.args.recall = NULL;
    tiny_run(&t);
    rfa_counts counts = counts_of(t.counts);
    cr_expect_eq(counts.recall_kind, RFA_RECALL_ABSENT);
    cr_expect(isnan(counts.recall_mean) && isnan(counts.recall_block_min));
    t.args.flags = RFA_FLAG_TRACK_RECALL;
    tiny_run(&t);
    counts = counts_of(t.counts);
    cr_expect_eq(counts.recall_kind, RFA_RECALL_EXACT);
    cr_expect_float_eq(counts.recall_mean, 1 / (1 + expf(-2)), 1e-6f);
    tiny_destroy(&t);
}

/* ---- ranges and lists by hand ---- */

static void ranges_keep(const char *backend)
{
    tiny t;
    two_blocks(&t, backend, -30);
    const rfa_range last_key = {3, 4}, first_query = {0, 1};
    t.args.rule = RFA_RULE_RECALL;
    t.args.knob = 0.5f;
    tiny_run(&t);
    cr_expect_eq(*(uint32_t *)t.decisions->data, 1);
    t.args.keep_keys = &last_key;
    t.args.keep_key_count = 1;
    tiny_run(&t);
    cr_expect_eq(*(uint32_t *)t.decisions->data, 3,
                 "the range's block goes first; it is kept, and "
                 "block 0 holds the mass");
    t.args.keep_key_count = 0;
    t.args.dense_queries = &first_query;
    t.args.dense_query_count = 1;
    tiny_run(&t);
    cr_expect_eq(*(uint32_t *)t.decisions->data, 3);
    tiny_destroy(&t);
}

static void lists(const char *backend)
{
    tiny t;
    two_blocks(&t, backend, 0);
    DLTensor *indices = TENSOR(type_i32, 1, 1, 1, 5), *count = TENSOR(type_i32, 1, 1, 1);
    const int32_t entries[] = {-1, 1, 7, 1, 2};
    memcpy(indices->data, entries, sizeof(entries));
    *(int32_t *)count->data = 99; /* clamped to the capacity */
    t.args.order = RFA_ORDER_LIST;
    t.args.list_indices = indices;
    t.args.list_counts = count;
    tiny_run(&t);
    expect_row(&t, 0, 100, logf(2), 1);
    rfa_counts counts = counts_of(t.counts);
    cr_expect_eq(counts.bad_indices, 4, "%d", (int)counts.bad_indices);
    cr_expect(counts.blocks_total == 2 && counts.blocks_visited == 1 && counts.blocks_kept == 1);
    cr_expect_eq(counts.recall_scope, RFA_RECALL_VISITED_KEYS);
    *(int32_t *)count->data = -5;
    tiny_run(&t);
    cr_expect(tensor_floats(t.out)[0] == 0 && tensor_floats(t.lse)[0] == -INFINITY);
    cr_expect_eq(counts_of(t.counts).blocks_visited, 0);
    tensor_free(indices);
    tensor_free(count);
    tiny_destroy(&t);
}

static void bad_knobs_mean_dense(const char *backend)
{
    tiny t;
    tiny_create(&t, backend, 1, 4, 4, 1, 1);
    DLTensor *knobs = TENSOR(type_f32, 1, 4);
    const float values[] = {0.5f, NAN, 1.5f, 0};
    memcpy(knobs->data, values, sizeof(values));
    for (int head = 0; head < 4; head++)
        tensor_floats(t.q)[head] = 1;
    tensor_floats(t.k)[2] = tensor_floats(t.k)[3] = -30;
    t.args.order = RFA_ORDER_RASTER;
    t.args.rule = RFA_RULE_RECALL;
    t.args.knobs = knobs;
    tiny_run(&t);
    const uint32_t *decisions = t.decisions->data;
    cr_expect(decisions[0] == 1 && decisions[1] == 3 && decisions[2] == 3 && decisions[3] == 3);
    cr_expect_eq(counts_of(t.counts).bad_knobs, 3);
    tensor_free(knobs);
    tiny_destroy(&t);
}

/* ---- NaN ---- */

static void nan_stays_in_its_rows(const char *backend)
{
    tiny t;
    tiny_create(&t, backend, 4, 4, 1, 1, 1);
    tiny_values(&t, 4, (const float[]){1, 2, 3, 4});
    tensor_floats(t.q)[1] = NAN;
    t.args.rule = RFA_RULE_RECALL;
    t.args.knob = 0.9f;
    tiny_run(&t);
    expect_row(&t, 0, 2.5f, logf(4), 1);
    expect_row(&t, 2, 2.5f, logf(4), 1);
    expect_row(&t, 3, 2.5f, logf(4), 1);
    /* A key that only the last row sees. */
    tensor_floats(t.q)[1] = 0;
    tensor_floats(t.v)[3] = NAN;
    t.args.mask = RFA_MASK_CAUSAL;
    tiny_run(&t);
    expect_row(&t, 0, 1, 0, 1);
    expect_row(&t, 1, 1.5f, logf(2), 1);
    expect_row(&t, 2, 2, logf(3), 1);
    cr_expect(isnan(tensor_floats(t.out)[3]));
    tiny_destroy(&t);
}

/* ---- bit for bit ---- */

static unsigned char *outputs_of(const small_problem *s, size_t *size)
{
    *size = 0;
    for (int i = 0; i < OUTPUTS; i++)
        *size += tensor_bytes(s->output[i]);
    unsigned char *all = malloc(*size), *at = all;
    cr_assert_not_null(all);
    for (int i = 0; i < OUTPUTS; i++) {
        memcpy(at, tensor_floats(s->output[i]), tensor_bytes(s->output[i]));
        at += tensor_bytes(s->output[i]);
    }
    return all;
}

static void expect_outputs(small_problem *s, rfa_context *ctx, const unsigned char *expected,
                           const char *what)
{
    size_t size;
    small_poison(s);
    cr_assert_eq(rfa_attention(ctx, &s->args), RFA_OK, "%s: %s", what, rfa_last_error(ctx));
    unsigned char *got = outputs_of(s, &size);
    cr_expect_arr_eq(got, expected, size, "%s: the bits differ", what);
    free(got);
}

static void threads_change_nothing(const char *backend)
{
    small_problem s;
    rfa_context *one = context_on(backend, 1);
    small_create(&s, one);
    for (size_t i = 0; i < tensor_bytes(s.q) / sizeof(float); i++)
        tensor_floats(s.q)[i] *= 6; /* so that some blocks are skipped */
    s.args.block_q = 16;
    s.args.block_k = 100;
    s.args.visit_q = 32;
    tensor_free(s.output[3]);
    tensor_free(s.output[4]);
    s.args.decisions = s.output[3] = TENSOR(type_u32, 2, 4, 13, 1);
    s.args.visit_order = s.output[4] = TENSOR(type_i32, 2, 4, 7, 3);
    s.args.knob = 0.6f;
    size_t size;
    cr_assert_eq(rfa_attention(one, &s.args), RFA_OK, "%s", rfa_last_error(one));
    unsigned char *expected = outputs_of(&s, &size);
    rfa_counts counts = counts_of(s.output[5]);
    cr_expect_lt(counts.blocks_kept, counts.blocks_total, "nothing was skipped");
    for (int32_t threads = 2; threads <= 7; threads += threads == 3 ? 4 : 1) {
        rfa_context *many = context_on(backend, threads);
        for (int again = 0; again < 2; again++)
            expect_outputs(&s, many, expected, "more threads");
        rfa_context_destroy(many);
    }
    free(expected);
    small_destroy(&s);
    rfa_context_destroy(one);
}

/* Decisions, output and lse; the others say how the recall came about. */
static void never_skipping_is_dense(const char *backend)
{
    small_problem dense, s;
    rfa_context *ctx = context_on(backend, 1);
    small_create(&dense, ctx);
    small_create(&s, ctx);
    dense.args.rule = RFA_RULE_DENSE;
    cr_assert_eq(rfa_attention(ctx, &dense.args), RFA_OK, "%s", rfa_last_error(ctx));
    const struct {
        rfa_rule rule;
        float knob;
    } never[] = {{RFA_RULE_BLASST, 0}, {RFA_RULE_ENERGY, -INFINITY}, {RFA_RULE_RECALL, 1}};
    for (int i = 0; i < 3; i++) {
        small_poison(&s);
        s.args.rule = never[i].rule;
        s.args.knob = never[i].knob;
        cr_assert_eq(rfa_attention(ctx, &s.args), RFA_OK, "%s", rfa_last_error(ctx));
        for (int j = 0; j < OUTPUTS - 1; j++)
            cr_expect_arr_eq(tensor_floats(s.output[j]), tensor_floats(dense.output[j]),
                             tensor_bytes(s.output[j]), "rule %d, output %d", (int)never[i].rule,
                             j);
    }
    small_destroy(&s);
    small_destroy(&dense);
    rfa_context_destroy(ctx);
}

static void axis_orders_agree(const char *backend)
{
    small_problem s;
    size_t size;
    rfa_context *ctx = context_on(backend, 1);
    small_create(&s, ctx);
    cr_assert_eq(rfa_attention(ctx, &s.args), RFA_OK, "%s", rfa_last_error(ctx));
    unsigned char *expected = outputs_of(&s, &size);
    DLTensor *tensors[] = {s.q, s.k, s.v, s.output[0]};
    for (int i = 0; i < 4; i++) { /* the same memory, the two axes named the other way */
        int64_t rows = tensors[i]->shape[1], stride = tensors[i]->strides[1];
        tensors[i]->shape[1] = tensors[i]->shape[2];
        tensors[i]->strides[1] = tensors[i]->strides[2];
        tensors[i]->shape[2] = rows;
        tensors[i]->strides[2] = stride;
    }
    s.args.axes = RFA_AXES_BHSD;
    expect_outputs(&s, ctx, expected, "bhsd");
    free(expected);
    small_destroy(&s);
    rfa_context_destroy(ctx);
}

static void predicted_is_its_own_list(const char *backend)
{
    small_problem s;
    size_t size;
    rfa_context *ctx = context_on(backend, 1);
    small_create(&s, ctx);
    s.args.order = RFA_ORDER_PREDICTED;
    s.args.counts = NULL; /* they name another scope */
    cr_assert_eq(rfa_attention(ctx, &s.args), RFA_OK, "%s", rfa_last_error(ctx));
    unsigned char *expected = outputs_of(&s, &size);
    s.args.list_indices = small_keep(&s, TENSOR(type_i32, 2, 4, 1, 3));
    s.args.list_counts = small_keep(&s, TENSOR(type_i32, 2, 4, 1));
    s.args.list_masses = small_keep(&s, TENSOR(type_f32, 2, 4, 1, 3));
    cr_assert_eq(rfa_build_visit_list(ctx, &s.args), RFA_OK, "%s", rfa_last_error(ctx));
    s.args.order = RFA_ORDER_LIST;
    expect_outputs(&s, ctx, expected, "the list of rfa_build_visit_list");
    free(expected);
    small_destroy(&s);
    rfa_context_destroy(ctx);
}

/* Cubes change which tokens share a block, not what dense attention is. */
static void cubes_give_the_callers_order(const char *backend)
{
    small_problem plain, s;
    const rfa_grid grid_q = {3, {3, 7, 9}, {2, 4, 4}}, grid_k = {20, {4, 8, 8}, {0, 0, 0}};
    rfa_context *ctx = context_on(backend, 1);
    small_create(&plain, ctx);
    small_create(&s, ctx);
    plain.args.rule = s.args.rule = RFA_RULE_DENSE;
    s.args.grids_q = &grid_q;
    s.args.grids_k = &grid_k;
    s.args.grid_count = 1;
    cr_assert_eq(rfa_attention(ctx, &plain.args), RFA_OK, "%s", rfa_last_error(ctx));
    cr_assert_eq(rfa_attention(ctx, &s.args), RFA_OK, "%s", rfa_last_error(ctx));
    for (int i = 0; i < 2; i++)
        for (size_t j = 0; j < tensor_bytes(s.output[i]) / sizeof(float); j++)
            cr_assert_float_eq(tensor_floats(s.output[i])[j], tensor_floats(plain.output[i])[j],
                               1e-5f);
    small_destroy(&s);
    small_destroy(&plain);
    rfa_context_destroy(ctx);
}

static void packs_are_separate(const char *backend)
{
    small_problem whole;
    rfa_context *ctx = context_on(backend, 1);
    small_create(&whole, ctx);
    cr_assert_eq(rfa_attention(ctx, &whole.args), RFA_OK, "%s", rfa_last_error(ctx));
    /* Batch entries 0 and 1 as sequences of one pack, and a third that makes no sense. */
    DLTensor *cu_q = TENSOR(type_i32, 4), *cu_k = TENSOR(type_i32, 4);
    DLTensor *out = TENSOR(type_f32, 400, 4, 24), *counts = TENSOR(type_u8, sizeof(rfa_counts));
    const int32_t of_q[] = {0, 200, 400, 100}, of_k[] = {0, 300, 600, 600};
    memcpy(cu_q->data, of_q, sizeof(of_q));
    memcpy(cu_k->data, of_k, sizeof(of_k));
    DLTensor *tensors[] = {whole.q, whole.k, whole.v};
    for (int i = 0; i < 3; i++) {
        tensors[i]->ndim = 3;
        tensors[i]->shape++;
        tensors[i]->strides++;
        tensors[i]->shape[0] *= 2;
    }
    whole.args.cu_seqlens_q = cu_q;
    whole.args.cu_seqlens_k = cu_k;
    whole.args.max_len_q = 200;
    whole.args.max_len_k = 300;
    whole.args.out = out;
    whole.args.counts = counts;
    whole.args.lse = whole.args.recall = whole.args.decisions = whole.args.visit_order = NULL;
    cr_assert_eq(rfa_attention(ctx, &whole.args), RFA_OK, "%s", rfa_last_error(ctx));
    cr_expect_arr_eq(out->data, tensor_floats(whole.output[0]), tensor_bytes(out));
    cr_expect_eq(counts_of(counts).bad_sequences, 1);
    tensor_free(cu_q);
    tensor_free(cu_k);
    tensor_free(out);
    tensor_free(counts);
    small_destroy(&whole);
    rfa_context_destroy(ctx);
}

#define ON_BOTH(name)                                                                              \
    Test(attention, name)                                                                          \
    {                                                                                              \
        for (int i = 0; i < 2; i++)                                                                \
            name(backends[i]);                                                                     \
    }

ON_BOTH(one_key)
ON_BOTH(equal_keys)
ON_BOTH(one_dominant_key)
ON_BOTH(large_values)
ON_BOTH(causal)
ON_BOTH(grouped_heads)
ON_BOTH(scale_replaces_the_default)
ON_BOTH(recall_by_hand)
ON_BOTH(blasst_by_hand)
ON_BOTH(energy_by_hand)
ON_BOTH(untracked_recall_is_absent)
ON_BOTH(ranges_keep)
ON_BOTH(lists)
ON_BOTH(bad_knobs_mean_dense)
ON_BOTH(nan_stays_in_its_rows)
ON_BOTH(threads_change_nothing)
ON_BOTH(never_skipping_is_dense)
ON_BOTH(axis_orders_agree)
ON_BOTH(predicted_is_its_own_list)
ON_BOTH(cubes_give_the_callers_order)
ON_BOTH(packs_are_separate)
