/* rfa_merge alone: random parts, against sums in double. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "conformance/bench.h"
#include "conformance/element.h"
#include "conformance/rng.h"
#include "conformance/run.h"

typedef struct merge_case {
    uint64_t seed;
    int parts;
    rfa_axes axes;
    bool packed, in_place, with_lse, with_recall;
    int64_t batch, heads, len;
    int32_t dim;
    rfa_dtype dtype, out_dtype;
    conformance_case memory; /* shift and padding alone */
} merge_case;

typedef struct merge_bench {
    merge_case c;
    rfa_context *ctx;
    guarded part_out[RFA_MAX_MERGE_PARTS], part_lse[RFA_MAX_MERGE_PARTS],
        part_recall[RFA_MAX_MERGE_PARTS];
    guarded out, lse, recall; /* unless in place */
} merge_bench;

static void draw_case(uint64_t seed, merge_case *c)
{
    static const int32_t dims[] = {1, 3, 8, 64, 80, 128, 256};
    rng r = rng_stream(seed, 77);
    memset(c, 0, sizeof(*c));
    c->seed = seed;
    c->parts = (int)rng_between(&r, 1, rng_once_in(&r, 6) ? RFA_MAX_MERGE_PARTS : 5);
    c->axes = rng_once_in(&r, 2) ? RFA_AXES_BHSD : RFA_AXES_BSHD;
    c->packed = rng_once_in(&r, 4);
    c->batch = c->packed ? 1 : rng_between(&r, 1, 3);
    c->heads = rng_between(&r, 1, 5);
    c->len = rng_between(&r, 1, 70);
    c->dim = dims[rng_below(&r, 7)];
    c->dtype = (rfa_dtype)rng_below(&r, 3);
    c->out_dtype = c->dtype == RFA_F32 ? (rfa_dtype)rng_below(&r, 3) : c->dtype;
    c->in_place = c->dtype == c->out_dtype && rng_once_in(&r, 2);
    c->with_lse = !rng_once_in(&r, 4);
    c->with_recall = !rng_once_in(&r, 3);
    c->memory.shift = rng_once_in(&r, 2) ? 0 : (int32_t)rng_between(&r, 1, 7);
    c->memory.padded_rows = rng_once_in(&r, 2);
}

/* ---- tensors ---- */

static guarded_layout out_layout(const merge_case *c, rfa_dtype dtype)
{
    const int64_t bshd[4] = {c->batch, c->len, c->heads, c->dim},
                  bhsd[4] = {c->batch, c->heads, c->len, c->dim};
    bool heads_first = c->axes == RFA_AXES_BHSD && !c->packed;
    const int64_t *shape = heads_first ? bhsd : bshd;
    return bench_small_layout(&c->memory, element_type(dtype), c->packed ? 3 : 4,
                              shape + c->packed);
}

static guarded_layout row_layout(const merge_case *c)
{
    const int64_t shape[3] = {c->batch, c->heads, c->len};
    return bench_small_layout(&c->memory, element_type(RFA_F32), c->packed ? 2 : 3,
                              shape + c->packed);
}

typedef struct row_place {
    int64_t batch, head, row;
} row_place;

static row_place row_of(const merge_case *c, int64_t i)
{
    return (row_place){i / c->len / c->heads, i / c->len % c->heads, i % c->len};
}

static int64_t rows_of(const merge_case *c)
{
    return c->batch * c->heads * c->len;
}

static void out_index(const merge_case *c, row_place p, int64_t at[4])
{
    bool heads_first = c->axes == RFA_AXES_BHSD;
    const int64_t packed[4] = {p.row, p.head, 0, 0};
    const int64_t bshd[4] = {p.batch, p.row, p.head, 0}, bhsd[4] = {p.batch, p.head, p.row, 0};
    memcpy(at, c->packed ? packed : heads_first ? bhsd : bshd, 4 * sizeof(*at));
}

static char *out_row(const merge_case *c, guarded *g, row_place p)
{
    int64_t at[4];
    out_index(c, p, at);
    return guarded_at(g, at[0], at[1], at[2], at[3]);
}

static const char *out_row_seen(const merge_case *c, const guarded *g, row_place p)
{
    int64_t at[4];
    out_index(c, p, at);
    return guarded_seen(g, at[0], at[1], at[2], at[3]);
}

static float *row_value(const merge_case *c, guarded *g, row_place p)
{
    return c->packed ? guarded_at(g, p.head, p.row, 0, 0)
                     : guarded_at(g, p.batch, p.head, p.row, 0);
}

static float row_value_seen(const merge_case *c, const guarded *g, row_place p)
{
    return *(const float *)(c->packed ? guarded_seen(g, p.head, p.row, 0, 0)
                                      : guarded_seen(g, p.batch, p.head, p.row, 0));
}

static double draw_lse(rng *r)
{
    if (rng_once_in(r, 5))
        return -INFINITY;
    double lse = 3 * rng_normal(r);
    return rng_once_in(r, 10) ? 300 * lse : lse;
}

static void fill_part(merge_bench *b, int i)
{
    const merge_case *c = &b->c;
    rng r = rng_stream(c->seed, 1000 + (uint64_t)i);
    size_t size = element_size(c->dtype);
    for (int64_t n = 0; n < rows_of(c); n++) {
        row_place p = row_of(c, n);
        double lse = draw_lse(&r), recall = 1 - 0.9 * rng_uniform(&r);
        char *row = out_row(c, &b->part_out[i], p);
        for (int32_t d = 0; d < c->dim; d++)
            element_store(c->dtype, row + (size_t)d * size, lse == -INFINITY ? 0 : rng_normal(&r));
        *row_value(c, &b->part_lse[i], p) = (float)lse;
        *row_value(c, &b->part_recall[i], p) = lse == -INFINITY ? 1.0f : (float)recall;
    }
}

static rfa_status open_part(merge_bench *b, int i, rfa_error *err)
{
    const merge_case *c = &b->c;
    guarded_layout out = out_layout(c, c->dtype), row = row_layout(c);
    guarded *g[3] = {&b->part_out[i], &b->part_lse[i], &b->part_recall[i]};
    bool own = i == 0 && c->in_place, written[3] = {own, own && c->with_lse, own && c->with_recall};
    rfa_status status = guarded_alloc(g[0], b->ctx, &out, c->seed, err);
    for (int t = 1; t < 3 && status == RFA_OK; t++)
        status = guarded_alloc(g[t], b->ctx, &row, c->seed, err);
    if (status != RFA_OK)
        return status;
    fill_part(b, i);
    for (int t = 0; t < 3 && status == RFA_OK; t++) {
        if (written[t])
            status = guarded_open_all(g[t], err);
        if (status == RFA_OK)
            status = guarded_upload(g[t], err);
    }
    return status;
}

static rfa_status open_output(merge_bench *b, guarded *g, guarded_layout layout, rfa_error *err)
{
    rfa_status status = guarded_alloc(g, b->ctx, &layout, b->c.seed + 1, err);
    if (status == RFA_OK)
        status = guarded_open_all(g, err);
    return status == RFA_OK ? guarded_upload(g, err) : status;
}

static rfa_status open_merge(merge_bench *b, rfa_error *err)
{
    rfa_status status = RFA_OK;
    for (int i = 0; i < b->c.parts && status == RFA_OK; i++)
        status = open_part(b, i, err);
    if (status != RFA_OK || b->c.in_place)
        return status;
    status = open_output(b, &b->out, out_layout(&b->c, b->c.out_dtype), err);
    if (status == RFA_OK)
        status = open_output(b, &b->lse, row_layout(&b->c), err);
    return status == RFA_OK ? open_output(b, &b->recall, row_layout(&b->c), err) : status;
}

static void close_merge(merge_bench *b)
{
    for (int i = 0; i < b->c.parts; i++) {
        guarded_free(&b->part_out[i]);
        guarded_free(&b->part_lse[i]);
        guarded_free(&b->part_recall[i]);
    }
    guarded_free(&b->out);
    guarded_free(&b->lse);
    guarded_free(&b->recall);
}

/* ---- the call ---- */

static rfa_status call_merge(merge_bench *b)
{
    const DLTensor *out[RFA_MAX_MERGE_PARTS] = {NULL}, *lse[RFA_MAX_MERGE_PARTS] = {NULL},
                   *recall[RFA_MAX_MERGE_PARTS] = {NULL};
    const merge_case *c = &b->c;
    rfa_merge_args args = RFA_MERGE_ARGS_INIT;
    for (int i = 0; i < c->parts; i++) {
        out[i] = &b->part_out[i].tensor;
        lse[i] = &b->part_lse[i].tensor;
        recall[i] = &b->part_recall[i].tensor;
    }
    args.parts = (size_t)c->parts;
    args.part_out = out;
    args.part_lse = lse;
    args.part_recall = c->with_recall ? recall : NULL;
    args.axes = c->axes;
    args.out = c->in_place ? out[0] : &b->out.tensor;
    if (c->with_lse)
        args.lse = c->in_place ? lse[0] : &b->lse.tensor;
    if (c->with_recall)
        args.recall = c->in_place ? recall[0] : &b->recall.tensor;
    rfa_status status = rfa_merge(b->ctx, &args);
    return status == RFA_OK ? rfa_synchronize(b->ctx, NULL) : status;
}

static rfa_status read_one(guarded *g, const char *name, int part, rfa_error *err)
{
    char why[128];
    if (!g->tensor.data)
        return RFA_OK;
    rfa_status status = guarded_download(g, err);
    if (status == RFA_OK && !guarded_intact(g, why, sizeof(why)))
        status = rfa_fail(err, RFA_DEVICE_ERROR, "%s %d %s", name, part, why);
    return status;
}

static rfa_status read_merge(merge_bench *b, rfa_error *err)
{
    rfa_status status = RFA_OK;
    for (int i = 0; i < b->c.parts && status == RFA_OK; i++) {
        status = read_one(&b->part_out[i], "part out", i, err);
        if (status == RFA_OK)
            status = read_one(&b->part_lse[i], "part lse", i, err);
        if (status == RFA_OK)
            status = read_one(&b->part_recall[i], "part recall", i, err);
    }
    if (status == RFA_OK)
        status = read_one(&b->out, "merged out", 0, err);
    if (status == RFA_OK)
        status = read_one(&b->lse, "merged lse", 0, err);
    return status == RFA_OK ? read_one(&b->recall, "merged recall", 0, err) : status;
}

/* ---- the result ---- */

typedef struct expected_row {
    double weight[RFA_MAX_MERGE_PARTS]; /* sum to 1; all 0 for an empty row */
    double lse, recall, relative;       /* relative error to allow */
} expected_row;

static expected_row expect_row(merge_bench *b, row_place p)
{
    expected_row e = {.lse = -INFINITY, .recall = 1};
    double top = -INFINITY, sum = 0, whole = 0, largest = 0;
    for (int i = 0; i < b->c.parts; i++) {
        double lse = *row_value(&b->c, &b->part_lse[i], p);
        top = fmax(top, lse);
        largest = fmax(largest, isfinite(lse) ? fabs(lse) : 0);
    }
    for (int i = 0; i < b->c.parts && top > -INFINITY; i++) {
        e.weight[i] = exp(*row_value(&b->c, &b->part_lse[i], p) - top);
        sum += e.weight[i];
        whole += e.weight[i] / *row_value(&b->c, &b->part_recall[i], p);
    }
    for (int i = 0; i < b->c.parts && sum > 0; i++)
        e.weight[i] /= sum;
    e.lse = sum > 0 ? top + log(sum) : -INFINITY;
    e.recall = sum > 0 ? sum / whole : 1;
    e.relative = 0x1p-22 * (8 + largest);
    return e;
}

static rfa_status check_number(row_place p, const char *name, double is, double expected,
                               double allowed, rfa_error *err)
{
    if (is == expected || fabs(is - expected) <= allowed)
        return RFA_OK;
    return rfa_fail(err, RFA_DEVICE_ERROR,
                    "batch %lld, head %lld, row %lld: merged %s is %.9g, expected %.9g within %.3g",
                    (long long)p.batch, (long long)p.head, (long long)p.row, name, is, expected,
                    allowed);
}

static rfa_status check_row(merge_bench *b, row_place p, rfa_error *err)
{
    const merge_case *c = &b->c;
    const guarded *out = c->in_place ? &b->part_out[0] : &b->out,
                  *lse = c->in_place ? &b->part_lse[0] : &b->lse,
                  *recall = c->in_place ? &b->part_recall[0] : &b->recall;
    expected_row e = expect_row(b, p);
    rfa_status status = RFA_OK;
    for (int32_t d = 0; d < c->dim && status == RFA_OK; d++) {
        double sum = 0, size = 0;
        for (int i = 0; i < c->parts; i++) {
            const char *row = out_row(c, &b->part_out[i], p);
            double x = element_load(c->dtype, row + (size_t)d * element_size(c->dtype));
            sum += e.weight[i] * x;
            size += e.weight[i] * fabs(x);
        }
        const char *row = out_row_seen(c, out, p) + (size_t)d * element_size(c->out_dtype);
        status = check_number(p, "out", element_load(c->out_dtype, row), sum,
                              e.relative * size + element_ulp(c->out_dtype, sum), err);
    }
    if (status == RFA_OK && c->with_lse)
        status = check_number(p, "lse", row_value_seen(c, lse, p), e.lse,
                              isfinite(e.lse) ? e.relative : 0, err);
    if (status == RFA_OK && c->with_recall)
        status = check_number(p, "recall", row_value_seen(c, recall, p), e.recall, e.relative, err);
    return status;
}

static rfa_status check_merge(merge_bench *b, rfa_error *err)
{
    rfa_status status = read_merge(b, err);
    for (int64_t n = 0; n < rows_of(&b->c) && status == RFA_OK; n++)
        status = check_row(b, row_of(&b->c, n), err);
    return status;
}

void run_merge(const run_target *target, uint64_t seed, run_outcome *outcome)
{
    merge_bench *b = calloc(1, sizeof(*b));
    rfa_error err = {"no memory for a merge"};
    rfa_status status = b ? RFA_OK : RFA_OUT_OF_MEMORY, called = RFA_OK;
    memset(outcome, 0, sizeof(*outcome));
    if (status == RFA_OK) {
        draw_case(seed, &b->c);
        b->ctx = target->ctx;
        status = open_merge(b, &err);
    }
    if (status == RFA_OK)
        called = call_merge(b);
    if (called != RFA_OK)
        rfa_fail(&err, called, "rfa_merge: %s", rfa_last_error(target->ctx));
    else if (status == RFA_OK)
        status = check_merge(b, &err);
    if (called == RFA_UNSUPPORTED)
        outcome->result = RUN_SKIPPED;
    else if (called != RFA_OK || status != RFA_OK)
        outcome->result = RUN_FAILED;
    if (outcome->result != RUN_PASSED)
        snprintf(outcome->text, sizeof(outcome->text), "%s", err.text);
    if (b)
        close_merge(b);
    free(b);
}
