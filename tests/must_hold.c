/* What rule `recall` promises, measured on the synthetic video of `rfa make --grid
 * 13,22,40 --heads 5 --dim 128`: no per-head setting, decisions by backend cpu,
 * recall by the oracle's exact masses. Prints the README's table.
 *
 * must_hold [N]: measures recall on every Nth decision block only (default 1: all),
 * which shortens the oracle's part; decisions are always made for all of them. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends/cpu/reference/oracle.h"
#include "src/problem.h"
#include "tools/workload.h"

enum { T = 13, H = 22, W = 40, TOKENS = T * H * W, HEADS = 5, DIM = 128 };
enum { BLOCK_Q = 64, BLOCK_K = 128 };
enum { BLOCKS_Q = (TOKENS + BLOCK_Q - 1) / BLOCK_Q, BLOCKS_K = (TOKENS + BLOCK_K - 1) / BLOCK_K };
enum { WORDS = (BLOCKS_K + 31) / 32, TARGETS = 4 };

static const float targets[TARGETS] = {0.80f, 0.90f, 0.95f, 0.99f};
enum { AT_90 = 1 };

typedef uint32_t decision_map[HEADS][BLOCKS_Q][WORDS];
typedef double mass_map[HEADS][BLOCKS_Q][BLOCKS_K];

typedef struct experiment {
    int64_t every; /* measure blocks 0, every, 2 every, ... */
    uint16_t *tensors[3];
    uint16_t *out;
    decision_map *decisions; /* of each target */
    mass_map *mass;          /* exact, mean over the block's rows */
    rfa_attention_args args;
    DLTensor q, k, v, out_tensor, decisions_tensor;
    int64_t shape[4], decisions_shape[4];
    rfa_grid grid;
} experiment;

typedef struct result {
    double skipped; /* share of the measured decision blocks' key blocks */
    double best;    /* the most that could be skipped at the same mean recall */
    double recall_mean, recall_min;
} result;

/* ---- set-up ---- */

static workload_spec workload(void)
{
    return (workload_spec){
        .grid = {T, H, W}, .heads = HEADS, .dim = DIM, .dtype = RFA_BF16, .seed = 1};
}

static DLTensor tensor_of(void *data, int64_t *shape, DLDataType type)
{
    return (DLTensor){
        .data = data, .device = {kDLCPU, 0}, .ndim = 4, .dtype = type, .shape = shape};
}

static void set_args(experiment *e)
{
    const DLDataType bf16 = {kDLBfloat, 16, 1}, words = {kDLUInt, 32, 1};
    const int64_t shape[4] = {1, TOKENS, HEADS, DIM};
    const int64_t decisions_shape[4] = {1, HEADS, BLOCKS_Q, WORDS};
    memcpy(e->shape, shape, sizeof(shape));
    memcpy(e->decisions_shape, decisions_shape, sizeof(decisions_shape));
    e->q = tensor_of(e->tensors[WORKLOAD_Q], e->shape, bf16);
    e->k = tensor_of(e->tensors[WORKLOAD_K], e->shape, bf16);
    e->v = tensor_of(e->tensors[WORKLOAD_V], e->shape, bf16);
    e->out_tensor = tensor_of(e->out, e->shape, bf16);
    e->decisions_tensor = tensor_of(e->decisions, e->decisions_shape, words);
    e->grid = (rfa_grid){0, {T, H, W}, {0, 0, 0}};
    e->args = (rfa_attention_args)RFA_ATTENTION_ARGS_INIT;
    e->args.q = &e->q;
    e->args.k = &e->k;
    e->args.v = &e->v;
    e->args.out = &e->out_tensor;
    e->args.decisions = &e->decisions_tensor;
    e->args.rule = RFA_RULE_RECALL;
    e->args.knob = targets[0];
    e->args.grids_q = e->args.grids_k = &e->grid;
    e->args.grid_count = 1;
}

static rfa_status create(experiment *e, rfa_error *err)
{
    size_t bytes = (size_t)TOKENS * HEADS * DIM * sizeof(uint16_t);
    workload_spec spec = workload();
    e->out = malloc(bytes);
    e->decisions = calloc(TARGETS, sizeof(*e->decisions));
    e->mass = calloc(1, sizeof(*e->mass));
    if (!e->out || !e->decisions || !e->mass)
        return rfa_fail(err, RFA_OUT_OF_MEMORY, "no memory");
    for (int i = 0; i < 3; i++) {
        e->tensors[i] = malloc(bytes);
        if (!e->tensors[i])
            return rfa_fail(err, RFA_OUT_OF_MEMORY, "no memory");
        rfa_status status = workload_fill(&spec, (workload_tensor)i, 0, TOKENS, e->tensors[i], err);
        if (status != RFA_OK)
            return status;
    }
    set_args(e);
    return RFA_OK;
}

static void destroy(experiment *e)
{
    for (int i = 0; i < 3; i++)
        free(e->tensors[i]);
    free(e->out);
    free(e->decisions);
    free(e->mass);
}

/* ---- decisions and exact masses ---- */

static rfa_status decide(experiment *e, rfa_error *err)
{
    rfa_context_options options = RFA_CONTEXT_OPTIONS_INIT;
    rfa_context *ctx = NULL;
    options.backend = "cpu";
    rfa_status status = rfa_context_create(&ctx, &options);
    for (int i = 0; i < TARGETS && status == RFA_OK; i++) {
        fprintf(stderr, "attention at recall %.2f ...\n", (double)targets[i]);
        e->args.knob = targets[i];
        e->decisions_tensor.data = &e->decisions[i];
        status = rfa_attention(ctx, &e->args);
    }
    if (status != RFA_OK)
        rfa_fail(err, status, "%s", rfa_last_error(NULL));
    rfa_context_destroy(ctx);
    return status;
}

/* Walks one decision block of every head; any decisions give the same masses. */
static rfa_status measure_block(const experiment *e, const oracle *o, int64_t index,
                                oracle_block *block, rfa_error *err)
{
    for (int head = 0; head < HEADS; head++) {
        double total = 0;
        oracle_walk(o, 0, head, index, e->decisions[0][head][index], block);
        for (int j = 0; j < BLOCKS_K; j++) {
            (*e->mass)[head][index][j] = block->block_mass[j];
            total += block->block_mass[j];
        }
        if (!(fabs(total - 1) < 1e-9))
            return rfa_fail(err, RFA_DEVICE_ERROR, "the oracle's masses add up to %g", total);
    }
    return RFA_OK;
}

static rfa_status measure(experiment *e, rfa_error *err)
{
    const DLDevice host = {kDLCPU, 0};
    rfa_problem problem;
    oracle *o = NULL;
    rfa_status status = rfa_problem_build(&problem, &e->args, RFA_FOR_ATTENTION, host, err);
    if (status == RFA_OK)
        status = oracle_create(&o, &problem, err);
    if (status != RFA_OK)
        return status;
    fprintf(stderr, "exact masses of %d decision blocks ...\n",
            HEADS * (int)((BLOCKS_Q + e->every - 1) / e->every));
#pragma omp parallel
    {
        oracle_block block;
        rfa_error own = {""};
        rfa_status mine = oracle_block_alloc(o, true, &block, &own);
        bool allocated = mine == RFA_OK;
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < BLOCKS_Q; i += e->every)
            if (mine == RFA_OK)
                mine = measure_block(e, o, i, &block, &own);
        if (allocated)
            oracle_block_free(&block);
        if (mine != RFA_OK) {
#pragma omp critical
            {
                *err = own;
                status = mine;
            }
        }
    }
    oracle_destroy(o);
    return status;
}

/* ---- what follows from them ---- */

static int rows_of(int64_t index)
{
    int64_t left = TOKENS - index * BLOCK_Q;
    return (int)(left < BLOCK_Q ? left : BLOCK_Q);
}

static int descending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x < y) - (x > y);
}

/* The fewest key blocks by which the mean recall of the measured decision blocks is
 * still `recall_mean`: whoever knows the exact masses takes the largest first. */
static int64_t best_possible(const experiment *e, int head, double recall_mean)
{
    int64_t kept = 0, all = 0, rows = 0;
    double *masses = malloc(sizeof(double) * BLOCKS_Q * BLOCKS_K), sum = 0;
    if (!masses)
        return 0;
    for (int64_t i = 0; i < BLOCKS_Q; i += e->every) {
        for (int j = 0; j < BLOCKS_K; j++)
            masses[all++] = (*e->mass)[head][i][j] * rows_of(i);
        rows += rows_of(i);
    }
    qsort(masses, (size_t)all, sizeof(double), descending);
    while (kept < all && sum < recall_mean * (double)rows)
        sum += masses[kept++];
    free(masses);
    return kept;
}

static bool is_kept(const experiment *e, int target, int head, int64_t index, int block)
{
    return e->decisions[target][head][index][block / 32] >> (block % 32) & 1;
}

static result judge(const experiment *e, int target, int head)
{
    result r = {.recall_min = 2};
    int64_t kept = 0, all = 0, rows = 0;
    for (int64_t i = 0; i < BLOCKS_Q; i += e->every) {
        double recall = 0;
        for (int j = 0; j < BLOCKS_K; j++)
            if (is_kept(e, target, head, i, j)) {
                recall += (*e->mass)[head][i][j];
                kept++;
            }
        all += BLOCKS_K;
        rows += rows_of(i);
        r.recall_mean += recall * rows_of(i);
        r.recall_min = recall < r.recall_min ? recall : r.recall_min;
    }
    r.recall_mean /= (double)rows;
    r.skipped = 1 - (double)kept / (double)all;
    r.best = 1 - (double)best_possible(e, head, r.recall_mean) / (double)all;
    return r;
}

/* ---- the report ---- */

static int passed, failed;

static void expect(double value, double least, const char *what)
{
    bool ok = value >= least;
    *(ok ? &passed : &failed) += 1;
    printf("%s: %s: %.4f, at least %.4f\n", ok ? "holds" : "FAILS", what, value, least);
}

static const char *kind_of(int head)
{
    workload_spec spec = workload();
    return workload_kind_name(workload_head_kind(&spec, head));
}

static void print_table(result results[TARGETS][HEADS])
{
    printf("| head | target | skipped | best possible | mean recall | smallest block recall |\n");
    printf("| --- | --- | --- | --- | --- | --- |\n");
    for (int i = 0; i < TARGETS; i++)
        for (int head = 0; head < HEADS; head++) {
            const result *r = &results[i][head];
            printf("| %s | %.2f | %.3f | %.3f | %.4f | %.4f |\n", kind_of(head), (double)targets[i],
                   r->skipped, r->best, r->recall_mean, r->recall_min);
        }
}

static void report(const experiment *e)
{
    result results[TARGETS][HEADS];
    char what[128];
    double share = 0;
    for (int i = 0; i < TARGETS; i++)
        for (int head = 0; head < HEADS; head++)
            results[i][head] = judge(e, i, head);
    print_table(results);
    for (int i = 0; i < TARGETS; i++)
        for (int head = 0; head < HEADS; head++) {
            snprintf(what, sizeof(what), "smallest block recall, %s head", kind_of(head));
            expect(results[i][head].recall_min, (double)targets[i] - 1e-4, what);
        }
    expect(results[AT_90][WORKLOAD_OBJECT].skipped, 0.85, "skipped on the object head at 0.90");
    expect(results[AT_90][WORKLOAD_SINK].skipped, 0.95, "skipped on the sink head at 0.90");
    for (int head = WORKLOAD_LOCAL; head <= WORKLOAD_MIXED; head++)
        share += results[AT_90][head].skipped / results[AT_90][head].best / 3;
    expect(share, 0.85, "share of the best possible at 0.90, mean of local, object and mixed");
}

int main(int argc, char **argv)
{
    experiment e = {.every = argc > 1 ? strtol(argv[1], NULL, 10) : 1};
    rfa_error err = {""};
    if (e.every < 1 || e.every > BLOCKS_Q) {
        fprintf(stderr, "usage: must_hold [1 to %d]\n", BLOCKS_Q);
        return 2;
    }
    rfa_status status = create(&e, &err);
    if (status == RFA_OK)
        status = decide(&e, &err);
    if (status == RFA_OK)
        status = measure(&e, &err);
    if (status == RFA_OK)
        report(&e);
    else
        fprintf(stderr, "must_hold: %s: %s\n", rfa_status_name(status), err.text);
    destroy(&e);
    printf("%d passed, %d failed, 0 skipped\n", passed, failed);
    return status != RFA_OK || failed > 0;
}
