#include "conformance/run.h"

#include <string.h>

#include "conformance/run_internal.h"
#include "src/problem.h"

static const DLDevice host_device = {kDLCPU, 0};

bool run_unsupported(const run_state *s, const rfa_attention_args *args)
{
    return rfa_supports(s->target->ctx, args, NULL, 0) == RFA_UNSUPPORTED;
}

rfa_status run_attend_again(run_state *s, rfa_context *ctx, const rfa_attention_args *args,
                            unsigned which, const char *what, rfa_error *err)
{
    rfa_error why;
    rfa_status status = bench_attend(&s->b, ctx, args, &why);
    if (status != RFA_OK)
        return rfa_fail(err, status, "%s: %.400s", what, why.text);
    return bench_same(&s->b, &s->first, which, what, err);
}

/* ---- the case's own call ---- */

static rfa_status check_first(run_state *s, rfa_error *err)
{
    bench_host host;
    rfa_problem p;
    const check_options options = {.weights = check_weights(s->target->weights, s->c->dtype),
                                   .nonfinite_inputs = s->c->data == DATA_NONFINITE};
    bench_host_args(&s->b, &s->b.args, &host);
    rfa_status status = rfa_problem_build(&p, &host.args, RFA_FOR_ATTENTION, host_device, err);
    if (status == RFA_OK)
        status = check_outputs(&p, &options, &s->outcome->report, err);
    if (status == RFA_OK && !s->outcome->report.ok)
        status = rfa_fail(err, RFA_DEVICE_ERROR, "%s", s->outcome->report.failure);
    return status;
}

static rfa_status run_first(run_state *s, rfa_error *err)
{
    rfa_status status = bench_attend(&s->b, s->target->ctx, &s->b.args, err);
    if (status == RFA_OK)
        status = bench_save(&s->b, &s->first, err);
    return status == RFA_OK ? check_first(s, err) : status;
}

/* ---- again ---- */

static rfa_status run_own_workspace(run_state *s, rfa_error *err)
{
    rfa_attention_args args = s->b.args;
    guarded workspace;
    char why[128];
    rfa_status status = bench_workspace(&s->b, &args, &workspace, err);
    if (status == RFA_OK)
        status = run_attend_again(s, s->target->ctx, &args, BENCH_ALL_OUTPUTS,
                                  "again with a workspace of the caller's", err);
    if (status == RFA_OK && workspace.tensor.data) {
        status = guarded_download(&workspace, err);
        if (status == RFA_OK && !guarded_intact(&workspace, why, sizeof(why)))
            status = rfa_fail(err, RFA_DEVICE_ERROR, "workspace %s", why);
        args.workspace_size--;
        if (status == RFA_OK)
            status = bench_refused(&s->b, s->target->ctx, &args, RFA_OUT_OF_MEMORY,
                                   "a workspace one byte too small", err);
    }
    guarded_free(&workspace);
    return status;
}

static rfa_status run_other_contexts(run_state *s, rfa_error *err)
{
    rfa_status status = RFA_OK;
    for (int i = 0; i < s->target->others && status == RFA_OK; i++)
        status = run_attend_again(s, s->target->other[i], &s->b.args, BENCH_ALL_OUTPUTS,
                                  "again with another number of threads", err);
    return status;
}

static rfa_status run_all(run_state *s, rfa_error *err)
{
    rfa_status status = run_first(s, err);
    if (status == RFA_OK)
        status = run_own_workspace(s, err);
    if (status == RFA_OK)
        status = run_other_contexts(s, err);
    if (status == RFA_OK)
        status = run_fewer_outputs(s, err);
    if (status == RFA_OK)
        status = run_replay(s, err);
    if (status == RFA_OK)
        status = run_never_skipping(s, err);
    if (status == RFA_OK)
        status = run_predicted_list(s, err);
    if (status == RFA_OK)
        status = run_split_keys(s, err);
    return status;
}

static void conclude(run_outcome *outcome, run_result result, const char *text)
{
    outcome->result = result;
    snprintf(outcome->text, sizeof(outcome->text), "%s", text);
}

void run_case(const run_target *target, const conformance_case *c, run_outcome *outcome)
{
    run_state s = {.target = target, .c = c, .outcome = outcome};
    rfa_error err = {""};
    char why[sizeof(err.text)] = "";
    memset(outcome, 0, sizeof(*outcome));
    rfa_status status = bench_open(&s.b, target->ctx, c, &err);
    rfa_status supported =
        status == RFA_OK ? rfa_supports(target->ctx, &s.b.args, why, sizeof(why)) : RFA_OK;
    if (status == RFA_OK && supported == RFA_OK)
        status = run_all(&s, &err);
    if (status != RFA_OK)
        conclude(outcome, RUN_FAILED, err.text);
    else if (supported != RFA_OK)
        conclude(outcome, supported == RFA_UNSUPPORTED ? RUN_SKIPPED : RUN_FAILED, why);
    bench_forget(&s.first);
    bench_close(&s.b);
}
