/* The calls: check once, ask the backend's selector, find a workspace, run. */
#include "src/internal.h"
#include "src/problem.h"

static rfa_status null_context(void)
{
    rfa_error err;
    return rfa_record(NULL, rfa_fail(&err, RFA_INVALID_ARGUMENT, "ctx is NULL"), &err);
}

static rfa_status plan(rfa_context *ctx, const rfa_attention_args *args, rfa_purpose purpose,
                       rfa_problem *p, size_t *workspace_size, rfa_error *err)
{
    *workspace_size = 0;
    rfa_status status =
        rfa_problem_build(p, args, purpose, ctx->backend->context_device(ctx->state), err);
    if (status != RFA_OK)
        return status;
    if (purpose == RFA_FOR_VISIT_LIST)
        return ctx->backend->plan_list(ctx->state, p, workspace_size, err);
    return ctx->backend->plan(ctx->state, p, workspace_size, err);
}

static rfa_status check_workspace(const rfa_attention_args *args, size_t needed, DLDevice device,
                                  rfa_error *err)
{
    if (args->workspace_size < needed)
        return rfa_fail(err, RFA_OUT_OF_MEMORY, "workspace_size is %zu, this call needs %zu",
                        args->workspace_size, needed);
    if (device.device_type != kDLOpenCL && (uintptr_t)args->workspace % 256 != 0)
        return rfa_fail(err, RFA_INVALID_ARGUMENT, "workspace is not aligned to 256 bytes");
    return RFA_OK;
}

static rfa_status execute(rfa_context *ctx, const rfa_problem *p, rfa_purpose purpose,
                          void *workspace, rfa_error *err)
{
    if (purpose == RFA_FOR_VISIT_LIST)
        return ctx->backend->build_list(ctx->state, p, workspace, err);
    return ctx->backend->run(ctx->state, p, workspace, err);
}

/* With the context's own workspace. Given back even if the call failed: part of
 * its work may be queued. */
static rfa_status execute_on_own(rfa_context *ctx, const rfa_problem *p, rfa_purpose purpose,
                                 size_t needed, rfa_error *err)
{
    void *workspace = NULL;
    rfa_error later;
    rfa_status status =
        ctx->backend->workspace_take(ctx->state, needed, p->stream, &workspace, err);
    if (status != RFA_OK)
        return status;
    status = execute(ctx, p, purpose, workspace, err);
    bool failed = status != RFA_OK;
    rfa_status given = ctx->backend->workspace_give(ctx->state, p->stream, failed ? &later : err);
    return failed ? status : given;
}

static rfa_status run(rfa_context *ctx, const rfa_attention_args *args, rfa_purpose purpose,
                      rfa_error *err)
{
    rfa_problem problem;
    size_t needed;
    rfa_status status = plan(ctx, args, purpose, &problem, &needed, err);
    if (status != RFA_OK)
        return status;
    if (needed == 0)
        return execute(ctx, &problem, purpose, NULL, err);
    if (!args->workspace)
        return execute_on_own(ctx, &problem, purpose, needed, err);
    status = check_workspace(args, needed, ctx->backend->context_device(ctx->state), err);
    return status == RFA_OK ? execute(ctx, &problem, purpose, args->workspace, err) : status;
}

rfa_status rfa_attention(rfa_context *ctx, const rfa_attention_args *args)
{
    rfa_error err = {""};
    if (!ctx)
        return null_context();
    return rfa_record(ctx, run(ctx, args, RFA_FOR_ATTENTION, &err), &err);
}

rfa_status rfa_build_visit_list(rfa_context *ctx, const rfa_attention_args *args)
{
    rfa_error err = {""};
    if (!ctx)
        return null_context();
    return rfa_record(ctx, run(ctx, args, RFA_FOR_VISIT_LIST, &err), &err);
}

rfa_status rfa_supports(rfa_context *ctx, const rfa_attention_args *args, char *why,
                        size_t why_size)
{
    rfa_error err = {""};
    rfa_problem problem;
    size_t needed;
    rfa_status status = ctx ? plan(ctx, args, RFA_FOR_ATTENTION, &problem, &needed, &err)
                            : rfa_fail(&err, RFA_INVALID_ARGUMENT, "ctx is NULL");
    rfa_record(ctx, status, &err);
    if (why && why_size > 0)
        snprintf(why, why_size, "%s", status == RFA_OK ? "" : rfa_last_error(NULL));
    return status;
}

static rfa_status workspace_size(rfa_context *ctx, const rfa_attention_args *args,
                                 rfa_purpose purpose, size_t *size)
{
    rfa_error err = {""};
    rfa_problem problem;
    if (!ctx)
        return null_context();
    if (!size)
        return rfa_record(ctx, rfa_fail(&err, RFA_INVALID_ARGUMENT, "size is NULL"), &err);
    return rfa_record(ctx, plan(ctx, args, purpose, &problem, size, &err), &err);
}

rfa_status rfa_workspace_size(rfa_context *ctx, const rfa_attention_args *args, size_t *size)
{
    return workspace_size(ctx, args, RFA_FOR_ATTENTION, size);
}

rfa_status rfa_visit_list_workspace_size(rfa_context *ctx, const rfa_attention_args *args,
                                         size_t *size)
{
    return workspace_size(ctx, args, RFA_FOR_VISIT_LIST, size);
}

static rfa_status merge(rfa_context *ctx, const rfa_merge_args *args, rfa_error *err)
{
    rfa_merge_problem problem;
    rfa_status status =
        rfa_merge_problem_build(&problem, args, ctx->backend->context_device(ctx->state), err);
    return status == RFA_OK ? ctx->backend->merge(ctx->state, &problem, err) : status;
}

rfa_status rfa_merge(rfa_context *ctx, const rfa_merge_args *args)
{
    rfa_error err = {""};
    if (!ctx)
        return null_context();
    return rfa_record(ctx, merge(ctx, args, &err), &err);
}
