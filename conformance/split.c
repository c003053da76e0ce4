/* Keys in parts: attention over each apart, merged, against the oracle over all
 * of them. Parts begin at key blocks, so that their decisions join into those of
 * one walk. */
#include <stdlib.h>
#include <string.h>

#include "conformance/layout.h"
#include "conformance/rng.h"
#include "conformance/run_internal.h"
#include "src/problem.h"

#define MAX_PARTS 4

typedef struct part {
    int64_t first_block, blocks;
    DLTensor k, v; /* views of the bench's */
    int64_t shape_k[4], shape_v[4];
    guarded out, lse, recall, decisions;
} part;

typedef struct split {
    run_state *s;
    int count;
    part parts[MAX_PARTS];
    guarded lse, recall; /* of the merge; its out is the bench's */
    double target;       /* recall over all keys; 1: dense */
    uint32_t *joined;    /* decisions over all keys */
} split;

static int64_t words_of(int64_t blocks)
{
    return (blocks + 31) / 32;
}

static bool can_split(const run_state *s)
{
    const conformance_case *c = s->c;
    return !c->packed && c->mask == RFA_MASK_NONE && c->grid_count == 0 && s->b.blocks_k > 1 &&
           c->data != DATA_NONFINITE;
}

/* ---- parts ---- */

static void cut(split *x, rng *r)
{
    int64_t blocks = x->s->b.blocks_k, first = 0;
    int64_t most = blocks < MAX_PARTS ? blocks : MAX_PARTS;
    x->count = (int)rng_between(r, 2, most);
    for (int i = 0; i < x->count; i++) {
        int64_t left = x->count - 1 - i, end = blocks;
        if (left > 0)
            end = rng_between(r, first + 1, blocks - left);
        x->parts[i].first_block = first;
        x->parts[i].blocks = end - first;
        first = end;
    }
}

static DLTensor rows_of(const conformance_case *c, guarded *g, int64_t first, int64_t rows,
                        int64_t *shape)
{
    int axis = c->axes == RFA_AXES_BHSD ? 2 : 1;
    DLTensor t = g->tensor;
    memcpy(shape, g->layout.shape, 4 * sizeof(*shape));
    shape[axis] = rows;
    t.shape = shape;
    t.strides = g->layout.stride;
    t.byte_offset += (uint64_t)(first * g->layout.stride[axis]) * (g->layout.type.bits / 8u);
    return t;
}

static rfa_status alloc_output(run_state *s, guarded *g, const guarded_layout *layout,
                               rfa_error *err)
{
    rfa_status status = guarded_alloc(g, s->b.ctx, layout, s->c->seed + 5, err);
    if (status == RFA_OK)
        status = guarded_open_all(g, err);
    return status == RFA_OK ? guarded_upload(g, err) : status;
}

static guarded_layout row_layout(const conformance_case *c)
{
    const int64_t shape[3] = {c->batch, c->heads, c->len_q};
    return bench_small_layout(c, (DLDataType){kDLFloat, 32, 1}, 3, shape);
}

static rfa_status open_part(split *x, part *one, rfa_error *err)
{
    run_state *s = x->s;
    const conformance_case *c = s->c;
    const int64_t shape[4] = {c->batch, c->heads, s->b.blocks_q, words_of(one->blocks)};
    guarded_layout out = layout_of(c, CASE_OUT), rows = row_layout(c);
    guarded_layout decisions = bench_small_layout(c, (DLDataType){kDLUInt, 32, 1}, 4, shape);
    int64_t block_k = case_block_k(c), first = one->first_block * block_k;
    int64_t end = first + one->blocks * block_k, keys = (end < c->len_k ? end : c->len_k) - first;
    out.type = (DLDataType){kDLFloat, 32, 1};
    one->k = rows_of(c, &s->b.t[BENCH_K], first, keys, one->shape_k);
    one->v = rows_of(c, &s->b.t[BENCH_V], first, keys, one->shape_v);
    rfa_status status = alloc_output(s, &one->out, &out, err);
    if (status == RFA_OK)
        status = alloc_output(s, &one->lse, &rows, err);
    if (status == RFA_OK)
        status = alloc_output(s, &one->recall, &rows, err);
    return status == RFA_OK ? alloc_output(s, &one->decisions, &decisions, err) : status;
}

static rfa_attention_args part_args(const split *x, const part *one)
{
    const conformance_case *c = x->s->c;
    rfa_attention_args a = RFA_ATTENTION_ARGS_INIT;
    a.q = x->s->b.args.q;
    a.k = &one->k;
    a.v = &one->v;
    a.out = &one->out.tensor;
    a.axes = c->axes;
    a.scale = c->scale;
    a.block_q = c->block_q;
    a.block_k = case_block_k(c);
    a.visit_q = c->visit_q;
    a.lse = &one->lse.tensor;
    a.recall = &one->recall.tensor;
    a.decisions = &one->decisions.tensor;
    a.rule = x->target < 1 ? RFA_RULE_RECALL : RFA_RULE_DENSE;
    a.knob = (float)(1 - (1 - x->target) / x->count);
    return a;
}

static rfa_status read_output(guarded *g, const char *name, rfa_error *err)
{
    char why[128];
    rfa_status status = guarded_download(g, err);
    if (status == RFA_OK && !guarded_intact(g, why, sizeof(why)))
        status = rfa_fail(err, RFA_DEVICE_ERROR, "parts of the keys: %s %s", name, why);
    return status;
}

static rfa_status attend_part(split *x, part *one, rfa_error *err)
{
    rfa_context *ctx = x->s->target->ctx;
    rfa_attention_args args = part_args(x, one);
    rfa_status status = rfa_attention(ctx, &args);
    if (status == RFA_OK)
        status = rfa_synchronize(ctx, NULL);
    if (status != RFA_OK)
        return rfa_fail(err, status, "parts of the keys: %s", rfa_last_error(ctx));
    status = read_output(&one->out, "out", err);
    if (status == RFA_OK)
        status = read_output(&one->lse, "lse", err);
    if (status == RFA_OK)
        status = read_output(&one->recall, "recall", err);
    return status == RFA_OK ? read_output(&one->decisions, "decisions", err) : status;
}

/* ---- merge ---- */

static void join_decisions(split *x, const part *one)
{
    const conformance_case *c = x->s->c;
    int64_t blocks_q = x->s->b.blocks_q, words = words_of(x->s->b.blocks_k);
    for (int64_t i = 0; i < c->batch * c->heads * blocks_q; i++) {
        const uint32_t *from = guarded_seen(&one->decisions, i / blocks_q / c->heads,
                                            i / blocks_q % c->heads, i % blocks_q, 0);
        for (int64_t j = 0; j < one->blocks; j++)
            if (from[j / 32] >> (j % 32) & 1) {
                int64_t at = one->first_block + j;
                x->joined[i * words + at / 32] |= 1u << (at % 32);
            }
    }
}

static rfa_status merge_parts(split *x, rfa_error *err)
{
    const DLTensor *out[MAX_PARTS], *lse[MAX_PARTS], *recall[MAX_PARTS];
    rfa_context *ctx = x->s->target->ctx;
    guarded *merged = &x->s->b.t[BENCH_OUT];
    rfa_merge_args args = RFA_MERGE_ARGS_INIT;
    for (int i = 0; i < x->count; i++) {
        out[i] = &x->parts[i].out.tensor;
        lse[i] = &x->parts[i].lse.tensor;
        recall[i] = &x->parts[i].recall.tensor;
    }
    args.parts = (size_t)x->count;
    args.part_out = out;
    args.part_lse = lse;
    args.part_recall = recall;
    args.axes = x->s->c->axes;
    args.out = &merged->tensor;
    args.lse = &x->lse.tensor;
    args.recall = &x->recall.tensor;
    guarded_poison(merged, x->s->c->seed + 6);
    rfa_status status = guarded_upload(merged, err);
    if (status != RFA_OK)
        return status;
    status = rfa_merge(ctx, &args);
    if (status == RFA_OK)
        status = rfa_synchronize(ctx, NULL);
    if (status != RFA_OK)
        return rfa_fail(err, status, "rfa_merge: %s", rfa_last_error(ctx));
    status = read_output(merged, "merged out", err);
    if (status == RFA_OK)
        status = read_output(&x->lse, "merged lse", err);
    return status == RFA_OK ? read_output(&x->recall, "merged recall", err) : status;
}

/* The call over all keys that the merge stands for. */
static rfa_attention_args whole_args(const split *x, const bench_host *host, const DLTensor *lse,
                                     const DLTensor *recall, const DLTensor *decisions)
{
    rfa_attention_args a = RFA_ATTENTION_ARGS_INIT;
    a.q = host->args.q;
    a.k = host->args.k;
    a.v = host->args.v;
    a.out = host->args.out;
    a.axes = host->args.axes;
    a.scale = host->args.scale;
    a.block_q = host->args.block_q;
    a.block_k = case_block_k(x->s->c);
    a.visit_q = host->args.visit_q;
    a.order = RFA_ORDER_RASTER;
    a.rule = x->target < 1 ? RFA_RULE_RECALL : RFA_RULE_DENSE;
    a.knob = (float)x->target;
    a.lse = lse;
    a.recall = recall;
    a.decisions = decisions;
    return a;
}

static rfa_status check_merged(split *x, rfa_error *err)
{
    run_state *s = x->s;
    const DLTensor lse = guarded_host(&x->lse), recall = guarded_host(&x->recall);
    int64_t shape[4] = {s->c->batch, s->c->heads, s->b.blocks_q, words_of(s->b.blocks_k)};
    const DLTensor decisions = {.data = x->joined,
                                .device = {kDLCPU, 0},
                                .ndim = 4,
                                .dtype = {kDLUInt, 32, 1},
                                .shape = shape};
    const check_options options = {.weights = check_weights(s->target->weights, s->c->dtype),
                                   .values_only = true,
                                   .rounding_scale = 8};
    bench_host host;
    check_report report = {0};
    rfa_problem p;
    bench_host_args(&s->b, &s->b.args, &host);
    const rfa_attention_args args = whole_args(x, &host, &lse, &recall, &decisions);
    rfa_status status = rfa_problem_build(&p, &args, RFA_FOR_ATTENTION, (DLDevice){kDLCPU, 0}, err);
    if (status == RFA_OK)
        status = check_outputs(&p, &options, &report, err);
    if (status == RFA_OK && !report.ok)
        status = rfa_fail(err, RFA_DEVICE_ERROR, "%d parts of the keys, merged: %s", x->count,
                          report.failure);
    return status;
}

/* ---- all of it ---- */

static rfa_status open_split(split *x, rfa_error *err)
{
    run_state *s = x->s;
    guarded_layout rows = row_layout(s->c);
    rfa_status status = alloc_output(s, &x->lse, &rows, err);
    if (status == RFA_OK)
        status = alloc_output(s, &x->recall, &rows, err);
    for (int i = 0; i < x->count && status == RFA_OK; i++)
        status = open_part(x, &x->parts[i], err);
    if (status != RFA_OK)
        return status;
    size_t blocks = (size_t)(s->c->batch * s->c->heads * s->b.blocks_q);
    x->joined = calloc(blocks * (size_t)words_of(s->b.blocks_k), sizeof(*x->joined));
    return x->joined ? RFA_OK : rfa_fail(err, RFA_OUT_OF_MEMORY, "no memory for decisions");
}

static void close_split(split *x)
{
    for (int i = 0; i < x->count; i++) {
        guarded_free(&x->parts[i].out);
        guarded_free(&x->parts[i].lse);
        guarded_free(&x->parts[i].recall);
        guarded_free(&x->parts[i].decisions);
    }
    guarded_free(&x->lse);
    guarded_free(&x->recall);
    free(x->joined);
}

static rfa_status run_parts(split *x, rfa_error *err)
{
    rfa_attention_args args = part_args(x, &x->parts[0]);
    if (run_unsupported(x->s, &args))
        return RFA_OK;
    rfa_status status = RFA_OK;
    for (int i = 0; i < x->count && status == RFA_OK; i++) {
        status = attend_part(x, &x->parts[i], err);
        if (status == RFA_OK)
            join_decisions(x, &x->parts[i]);
    }
    if (status == RFA_OK)
        status = merge_parts(x, err);
    return status == RFA_OK ? check_merged(x, err) : status;
}

rfa_status run_split_keys(run_state *s, rfa_error *err)
{
    static const double targets[] = {1, 0.95, 0.8, 0.5};
    rng r = rng_stream(s->c->seed, 93);
    split x = {.s = s};
    if (!can_split(s))
        return RFA_OK;
    x.target = targets[rng_below(&r, 4)];
    cut(&x, &r);
    rfa_status status = open_split(&x, err);
    if (status == RFA_OK)
        status = run_parts(&x, err);
    close_split(&x);
    return status;
}
