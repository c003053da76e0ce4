/* Calls that must agree with each other, whatever the oracle says. */
#include <math.h>
#include <string.h>

#include "conformance/run_internal.h"
#include "conformance/rng.h"
#include "src/problem.h"

/* Outputs that are not asked for change nothing. */
rfa_status run_fewer_outputs(run_state *s, rfa_error *err)
{
    rfa_attention_args args = s->b.args;
    args.lse = args.recall = args.decisions = args.visit_order = args.counts = NULL;
    return run_attend_again(s, s->target->ctx, &args, BENCH_BIT(BENCH_OUT),
                            "again without optional outputs", err);
}

/* ---- never skipping is dense ---- */

static void never_skip(run_state *s, rfa_attention_args *args)
{
    rng r = rng_stream(s->c->seed, 91);
    args->knobs = NULL;
    args->mass = RFA_MASS_EXACT;
    args->knob_form = RFA_KNOB_DIRECT;
    args->rule = (rfa_rule)rng_between(&r, RFA_RULE_BLASST, RFA_RULE_RECALL);
    args->knob = args->rule == RFA_RULE_BLASST   ? 0.0f
                 : args->rule == RFA_RULE_ENERGY ? -INFINITY
                                                 : 1.0f;
    if (args->rule == RFA_RULE_RECALL && rng_once_in(&r, 2))
        args->mass = RFA_MASS_ESTIMATED;
}

rfa_status run_never_skipping(run_state *s, rfa_error *err)
{
    static const char *const what[] = {"", "blasst 0 against dense", "energy -inf against dense",
                                       "recall 1 against dense"};
    rfa_attention_args dense = s->b.args, never = s->b.args;
    bench_snapshot saved;
    dense.rule = RFA_RULE_DENSE;
    dense.mass = RFA_MASS_EXACT;
    dense.knob_form = RFA_KNOB_DIRECT;
    dense.knobs = NULL;
    never_skip(s, &never);
    if (run_unsupported(s, &dense) || run_unsupported(s, &never))
        return RFA_OK;
    rfa_status status = bench_attend(&s->b, s->target->ctx, &dense, err);
    if (status == RFA_OK)
        status = bench_save(&s->b, &saved, err);
    if (status != RFA_OK)
        return status;
    status = bench_attend(&s->b, s->target->ctx, &never, err);
    if (status == RFA_OK)
        status = bench_same(
            &s->b, &saved, BENCH_BIT(BENCH_OUT) | BENCH_BIT(BENCH_LSE) | BENCH_BIT(BENCH_DECISIONS),
            what[never.rule], err);
    bench_forget(&saved);
    return status;
}

/* ---- replay ---- */

/* The reference follows decisions; no other backend does, and each says so. */
rfa_status run_replay(run_state *s, rfa_error *err)
{
    rfa_attention_args args = s->b.args;
    guarded replay;
    const guarded *decisions = &s->b.t[BENCH_DECISIONS];
    rfa_status status = guarded_alloc(&replay, s->b.ctx, &decisions->layout, 0, err);
    if (status == RFA_OK) {
        memcpy(replay.image, s->first.seen[BENCH_DECISIONS], replay.size);
        status = guarded_upload(&replay, err);
    }
    args.replay = &replay.tensor;
    if (status == RFA_OK && strcmp(s->target->backend, "reference") != 0)
        status = bench_refused(&s->b, s->target->ctx, &args, RFA_UNSUPPORTED, "replay", err);
    else if (status == RFA_OK)
        status = run_attend_again(s, s->target->ctx, &args, BENCH_ALL_OUTPUTS,
                                  "replay of its own decisions", err);
    guarded_free(&replay);
    return status;
}

/* ---- order predicted is its own list ---- */

typedef struct built_list {
    guarded indices, counts, masses;
} built_list;

static rfa_status list_alloc(run_state *s, built_list *list, rfa_error *err)
{
    static const DLDataType int32_type = {kDLInt, 32, 1}, f32_type = {kDLFloat, 32, 1};
    const conformance_case *c = s->c;
    rng r = rng_stream(c->seed, 92);
    int64_t capacity = s->b.blocks_k + (rng_once_in(&r, 2) ? 3 : 0);
    const int64_t shape[4] = {c->batch, c->heads, s->b.groups, capacity};
    guarded_layout indices = bench_small_layout(c, int32_type, 4, shape);
    guarded_layout counts = bench_small_layout(c, int32_type, 3, shape);
    guarded_layout masses = bench_small_layout(c, f32_type, 4, shape);
    memset(list, 0, sizeof(*list));
    rfa_status status = guarded_alloc(&list->indices, s->b.ctx, &indices, c->seed, err);
    if (status == RFA_OK)
        status = guarded_alloc(&list->counts, s->b.ctx, &counts, c->seed, err);
    if (status == RFA_OK)
        status = guarded_alloc(&list->masses, s->b.ctx, &masses, c->seed, err);
    return status;
}

static rfa_status for_list(built_list *list, rfa_status (*act)(guarded *, rfa_error *),
                           rfa_error *err)
{
    rfa_status status = act(&list->indices, err);
    if (status == RFA_OK)
        status = act(&list->counts, err);
    return status == RFA_OK ? act(&list->masses, err) : status;
}

static rfa_status list_intact(guarded *g, rfa_error *err)
{
    char why[128];
    rfa_status status = guarded_download(g, err);
    if (status == RFA_OK && !guarded_intact(g, why, sizeof(why)))
        status = rfa_fail(err, RFA_DEVICE_ERROR, "a tensor of the built list %s", why);
    return status;
}

/* The list against the oracle's. */
static rfa_status check_list(run_state *s, built_list *list, rfa_error *err)
{
    const DLTensor indices = guarded_host(&list->indices), counts = guarded_host(&list->counts),
                   masses = guarded_host(&list->masses);
    bench_host host;
    rfa_problem p;
    check_report report = {0};
    bench_host_args(&s->b, &s->b.args, &host);
    host.args.list_indices = &indices;
    host.args.list_counts = &counts;
    host.args.list_masses = &masses;
    rfa_status status =
        rfa_problem_build(&p, &host.args, RFA_FOR_VISIT_LIST, (DLDevice){kDLCPU, 0}, err);
    if (status == RFA_OK)
        status = check_visit_list(&p, s->c->data == DATA_NONFINITE, &report, err);
    if (status == RFA_OK && !report.ok)
        status = rfa_fail(err, RFA_DEVICE_ERROR, "rfa_build_visit_list: %s", report.failure);
    return status;
}

static rfa_status build_list(run_state *s, rfa_attention_args *args, built_list *list,
                             rfa_error *err)
{
    rfa_status status = list_alloc(s, list, err);
    if (status == RFA_OK)
        status = for_list(list, guarded_open_all, err);
    if (status == RFA_OK)
        status = for_list(list, guarded_upload, err);
    if (status != RFA_OK)
        return status;
    args->list_indices = &list->indices.tensor;
    args->list_counts = &list->counts.tensor;
    args->list_masses = &list->masses.tensor;
    status = rfa_build_visit_list(s->target->ctx, args);
    if (status == RFA_OK)
        status = rfa_synchronize(s->target->ctx, NULL);
    if (status != RFA_OK)
        return rfa_fail(err, status, "rfa_build_visit_list: %s", rfa_last_error(s->target->ctx));
    status = for_list(list, list_intact, err);
    return status == RFA_OK ? check_list(s, list, err) : status;
}

rfa_status run_predicted_list(run_state *s, rfa_error *err)
{
    rfa_attention_args args = s->b.args;
    built_list list;
    if (s->c->order != RFA_ORDER_PREDICTED)
        return RFA_OK;
    rfa_status status = build_list(s, &args, &list, err);
    args.order = RFA_ORDER_LIST;
    if (status == RFA_OK && !run_unsupported(s, &args))
        status = run_attend_again(s, s->target->ctx, &args,
                                  BENCH_ALL_OUTPUTS &
                                      ~BENCH_BIT(BENCH_COUNTS), /* which name another scope */
                                  "its own predicted list", err);
    guarded_free(&list.indices);
    guarded_free(&list.counts);
    guarded_free(&list.masses);
    return status;
}
