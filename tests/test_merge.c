/* Merging partial results, by hand and against attention over all keys at once. */
#include <criterion/criterion.h>
#include <math.h>

#include "tests/support.h"

enum { PARTS = 3, ROWS = 200 };

typedef struct partials {
    rfa_context *ctx;
    DLTensor *out[PARTS], *lse[PARTS], *recall[PARTS];
    const DLTensor *out_of[PARTS], *lse_of[PARTS], *recall_of[PARTS];
    DLTensor *merged, *merged_lse, *merged_recall;
    rfa_merge_args args;
} partials;

/* (1, rows, 1, dim) parts of zeros. */
static void create(partials *p, const char *backend, int64_t rows, int64_t dim)
{
    p->ctx = context_on(backend, 1);
    for (int i = 0; i < PARTS; i++) {
        p->out_of[i] = p->out[i] = TENSOR(type_f32, 1, rows, 1, dim);
        p->lse_of[i] = p->lse[i] = TENSOR(type_f32, 1, 1, rows);
        p->recall_of[i] = p->recall[i] = TENSOR(type_f32, 1, 1, rows);
    }
    p->merged = TENSOR(type_f32, 1, rows, 1, dim);
    p->merged_lse = TENSOR(type_f32, 1, 1, rows);
    p->merged_recall = TENSOR(type_f32, 1, 1, rows);
    p->args = (rfa_merge_args)RFA_MERGE_ARGS_INIT;
    p->args.parts = PARTS;
    p->args.part_out = p->out_of;
    p->args.part_lse = p->lse_of;
    p->args.part_recall = p->recall_of;
    p->args.out = p->merged;
    p->args.lse = p->merged_lse;
    p->args.recall = p->merged_recall;
}

static void destroy(partials *p)
{
    for (int i = 0; i < PARTS; i++) {
        tensor_free(p->out[i]);
        tensor_free(p->lse[i]);
        tensor_free(p->recall[i]);
    }
    tensor_free(p->merged);
    tensor_free(p->merged_lse);
    tensor_free(p->merged_recall);
    rfa_context_destroy(p->ctx);
}

static void set_part(partials *p, int part, int64_t row, float out, float lse, float recall)
{
    tensor_floats(p->out[part])[row] = out;
    tensor_floats(p->lse[part])[row] = lse;
    tensor_floats(p->recall[part])[row] = recall;
}

static void by_hand(const char *backend)
{
    partials p;
    create(&p, backend, 4, 1);
    /* Masses 1, 2, 5: (1 * 8 + 2 * 4 + 5 * 16) / 8; recall 8 / (1 + 4 + 5). */
    set_part(&p, 0, 0, 8, 0, 1);
    set_part(&p, 1, 0, 4, logf(2), 0.5f);
    set_part(&p, 2, 0, 16, logf(5), 1);
    /* One part alone has keys. */
    set_part(&p, 0, 1, 0, -INFINITY, 1);
    set_part(&p, 1, 1, 3, -7, 0.25f);
    set_part(&p, 2, 1, 0, -INFINITY, 1);
    /* None has; whatever their outputs say. */
    set_part(&p, 0, 2, NAN, -INFINITY, 1);
    set_part(&p, 1, 2, 1, -INFINITY, 1);
    set_part(&p, 2, 2, 2, -INFINITY, 1);
    /* Far apart, where exp overflows on its own. */
    set_part(&p, 0, 3, 1, 1000, 1);
    set_part(&p, 1, 3, 2, -1000, 0.5f);
    set_part(&p, 2, 3, 3, 1000, 1);
    cr_assert_eq(rfa_merge(p.ctx, &p.args), RFA_OK, "%s", rfa_last_error(p.ctx));
    const float *out = tensor_floats(p.merged), *lse = tensor_floats(p.merged_lse),
                *recall = tensor_floats(p.merged_recall);
    cr_expect_float_eq(out[0], 12, 1e-5f);
    cr_expect_float_eq(lse[0], logf(8), 1e-6f);
    cr_expect_float_eq(recall[0], 0.8f, 1e-6f);
    cr_expect_float_eq(out[1], 3, 1e-6f);
    cr_expect_float_eq(lse[1], -7, 1e-6f);
    cr_expect_float_eq(recall[1], 0.25f, 1e-6f);
    cr_expect(out[2] == 0 && lse[2] == -INFINITY && recall[2] == 1, "%g %g %g", (double)out[2],
              (double)lse[2], (double)recall[2]);
    cr_expect_float_eq(out[3], 2, 1e-5f);
    cr_expect_float_eq(lse[3], 1000 + logf(2), 1e-3f);
    cr_expect_float_eq(recall[3], 1, 1e-6f);
    destroy(&p);
}

Test(merge, by_hand_on_cpu)
{
    by_hand("cpu");
}

Test(merge, by_hand_on_reference)
{
    by_hand("reference");
}

Test(merge, into_the_first_part)
{
    partials p;
    create(&p, "cpu", 4, 1);
    for (int i = 0; i < PARTS; i++)
        for (int row = 0; row < 4; row++)
            set_part(&p, i, row, (float)(i + row), (float)i * 0.5f, 1 - 0.1f * (float)i);
    cr_assert_eq(rfa_merge(p.ctx, &p.args), RFA_OK, "%s", rfa_last_error(p.ctx));
    p.args.out = p.out[0];
    p.args.lse = p.lse[0];
    p.args.recall = p.recall[0];
    cr_assert_eq(rfa_merge(p.ctx, &p.args), RFA_OK, "%s", rfa_last_error(p.ctx));
    for (int row = 0; row < 4; row++) {
        cr_expect_eq(tensor_floats(p.out[0])[row], tensor_floats(p.merged)[row]);
        cr_expect_eq(tensor_floats(p.lse[0])[row], tensor_floats(p.merged_lse)[row]);
        cr_expect_eq(tensor_floats(p.recall[0])[row], tensor_floats(p.merged_recall)[row]);
    }
    destroy(&p);
}

/* The keys of the small problem in two halves; dense, so that both ways keep all. */
Test(merge, halves_of_the_keys_make_the_whole)
{
    small_problem whole, half;
    partials p;
    create(&p, "cpu", 4, 1); /* for its arrays only */
    small_create(&whole, p.ctx);
    small_create(&half, p.ctx);
    whole.args.rule = half.args.rule = RFA_RULE_DENSE;
    cr_assert_eq(rfa_attention(p.ctx, &whole.args), RFA_OK, "%s", rfa_last_error(p.ctx));
    DLTensor *outs[2], *lses[2];
    const DLTensor *outs_of[2], *lses_of[2];
    half.k->shape[1] = half.v->shape[1] = 150;
    half.args.decisions = half.args.visit_order = half.args.counts = half.args.recall = NULL;
    for (int i = 0; i < 2; i++) {
        outs_of[i] = half.args.out = outs[i] = TENSOR(type_f32, 2, 200, 4, 24);
        lses_of[i] = half.args.lse = lses[i] = TENSOR(type_f32, 2, 4, 200);
        half.k->byte_offset = (uint64_t)i * 150 * 2 * 16 * sizeof(float);
        half.v->byte_offset = (uint64_t)i * 150 * 2 * 24 * sizeof(float);
        cr_assert_eq(rfa_attention(p.ctx, &half.args), RFA_OK, "%s", rfa_last_error(p.ctx));
    }
    p.args.parts = 2;
    p.args.part_out = outs_of;
    p.args.part_lse = lses_of;
    p.args.part_recall = NULL;
    p.args.recall = NULL;
    p.args.out = outs[0];
    p.args.lse = lses[0];
    cr_assert_eq(rfa_merge(p.ctx, &p.args), RFA_OK, "%s", rfa_last_error(p.ctx));
    for (size_t i = 0; i < tensor_bytes(outs[0]) / sizeof(float); i++)
        cr_assert_float_eq(tensor_floats(outs[0])[i], tensor_floats(whole.output[0])[i], 2e-6f);
    for (size_t i = 0; i < tensor_bytes(lses[0]) / sizeof(float); i++)
        cr_assert_float_eq(tensor_floats(lses[0])[i], tensor_floats(whole.output[1])[i], 4e-6f);
    for (int i = 0; i < 2; i++) {
        tensor_free(outs[i]);
        tensor_free(lses[i]);
    }
    small_destroy(&half);
    small_destroy(&whole);
    destroy(&p);
}

/* ---- refused ---- */

static void expect_refused_merge(partials *p, rfa_status status, const char *words)
{
    cr_expect_eq(rfa_merge(p->ctx, &p->args), status, "%s: %s", words, rfa_last_error(p->ctx));
    cr_expect_not_null(strstr(rfa_last_error(p->ctx), words), "\"%s\" does not say \"%s\"",
                       rfa_last_error(p->ctx), words);
    cr_expect_eq(tensor_floats(p->merged)[0], 42, "the output was touched");
}

Test(merge, refuses_what_makes_no_sense)
{
    partials p;
    create(&p, "cpu", 4, 2);
    tensor_floats(p.merged)[0] = 42;
    const rfa_merge_args good = p.args;
    p.args.struct_size = 0;
    expect_refused_merge(&p, RFA_INVALID_ARGUMENT, "struct_size is 0");
    p.args = good;
    p.args.parts = 0;
    expect_refused_merge(&p, RFA_INVALID_ARGUMENT, "parts is 0");
    p.args.parts = RFA_MAX_MERGE_PARTS + 1;
    expect_refused_merge(&p, RFA_INVALID_ARGUMENT, "parts is 65");
    p.args = good;
    p.args.part_out = NULL;
    expect_refused_merge(&p, RFA_INVALID_ARGUMENT, "part_out is NULL");
    p.args = good;
    p.args.part_lse = NULL;
    expect_refused_merge(&p, RFA_INVALID_ARGUMENT, "part_lse is NULL");
    p.args = good;
    p.args.part_recall = NULL;
    expect_refused_merge(&p, RFA_INVALID_ARGUMENT, "part_recall");
    p.args = good;
    p.args.out = NULL;
    expect_refused_merge(&p, RFA_INVALID_ARGUMENT, "out is NULL");
    p.args = good;
    p.args.axes = (rfa_axes)5;
    expect_refused_merge(&p, RFA_INVALID_ARGUMENT, "axes is 5");
    p.args = good;
    p.out_of[1] = NULL;
    expect_refused_merge(&p, RFA_INVALID_ARGUMENT, "part_out[1] is NULL");
    p.out_of[1] = p.out[1];
    p.out[2]->shape[1] = 3;
    expect_refused_merge(&p, RFA_INVALID_ARGUMENT, "part_out[2] has length 3");
    p.out[2]->shape[1] = 4;
    p.out[2]->dtype = type_f16;
    expect_refused_merge(&p, RFA_INVALID_ARGUMENT, "part_out[2] is float16");
    p.out[2]->dtype = type_f32;
    p.lse[1]->dtype = type_bf16;
    expect_refused_merge(&p, RFA_INVALID_ARGUMENT, "part_lse[1] is bfloat16");
    p.lse[1]->dtype = type_f32;
    p.recall[0]->ndim = 2;
    expect_refused_merge(&p, RFA_INVALID_ARGUMENT, "part_recall[0] has 2 dimensions");
    p.recall[0]->ndim = 3;
    p.merged_lse->device.device_type = kDLCUDA;
    expect_refused_merge(&p, RFA_INVALID_ARGUMENT, "lse is on device");
    p.merged_lse->device.device_type = kDLCPU;
    cr_expect_eq(rfa_merge(p.ctx, &p.args), RFA_OK, "%s", rfa_last_error(p.ctx));
    destroy(&p);
}

/* ---- in place ---- */

static void expect_overlap(partials *p, const char *words)
{
    cr_expect_eq(rfa_merge(p->ctx, &p->args), RFA_INVALID_ARGUMENT, "%s", words);
    cr_expect_not_null(strstr(rfa_last_error(p->ctx), words), "\"%s\" does not say \"%s\"",
                       rfa_last_error(p->ctx), words);
}

Test(merge, in_place_of_the_first_part_alone)
{
    partials p;
    create(&p, "cpu", 4, 2);
    const rfa_merge_args good = p.args;
    p.args.out = p.out[0];
    p.args.lse = p.lse[0];
    p.args.recall = p.recall[0];
    cr_expect_eq(rfa_merge(p.ctx, &p.args), RFA_OK, "%s", rfa_last_error(p.ctx));
    p.args = good;
    p.args.out = p.out[1];
    expect_overlap(&p, "out is an output and shares memory with part_out[1]");
    p.args = good;
    p.args.lse = p.lse[2];
    expect_overlap(&p, "lse is an output and shares memory with part_lse[2]");
    p.args = good;
    p.args.recall = p.lse[0];
    expect_overlap(&p, "recall is an output and shares memory with part_lse[0]");
    p.args = good;
    p.args.recall = p.merged_lse;
    expect_overlap(&p, "lse is an output and shares memory with recall");
    /* The first part's memory, but other elements of it. */
    p.args = good;
    DLTensor moved = *p.out[0], narrow = *p.out[0];
    moved.byte_offset = 4;
    p.args.out = &moved;
    expect_overlap(&p, "out is an output and shares memory with part_out[0]");
    p.args.out = &narrow;
    for (int i = 0; i < 2; i++) {
        narrow.dtype = i ? type_f16 : type_bf16;
        expect_overlap(&p, "out is an output and shares memory with part_out[0]");
    }
    destroy(&p);
}
