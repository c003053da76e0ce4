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

/* Grows the context's own workspace. Work queued on the stream that used it
 * last must be over before another stream, or the allocator, gets it. */
static rfa_status own_workspace(rfa_context *ctx, size_t needed, void *stream, rfa_error *err)
{
    const rfa_backend *backend = ctx->backend;
    rfa_status status = RFA_OK;
    bool grow = needed > ctx->workspace_size;
    if (ctx->workspace && (grow || stream != ctx->workspace_stream))
        status = backend->synchronize(ctx->state, ctx->workspace_stream, err);
    if (status == RFA_OK && grow) {
        if (ctx->workspace)
            backend->free(ctx->state, ctx->workspace);
        ctx->workspace = NULL;
        ctx->workspace_size = 0;
        status = backend->alloc(ctx->state, needed, &ctx->workspace, err);
        if (status == RFA_OK)
            ctx->workspace_size = needed;
        else
            ctx->workspace = NULL;
    }
    if (status == RFA_OK)
        ctx->workspace_stream = stream;
    return status;
}

static rfa_status run(rfa_context *ctx, const rfa_attention_args *args, rfa_purpose purpose,
                      rfa_error *err)
{
    rfa_problem problem;
    size_t needed;
    void *workspace = NULL;
    rfa_status status = plan(ctx, args, purpose, &problem, &needed, err);
    if (status == RFA_OK && needed > 0) {
        if (args->workspace) {
            status = check_workspace(args, needed, ctx->backend->context_device(ctx->state), err);
            workspace = args->workspace;
        } else {
            status = own_workspace(ctx, needed, args->stream, err);
            workspace = ctx->workspace;
        }
    }
    if (status != RFA_OK)
        return status;
    if (purpose == RFA_FOR_VISIT_LIST)
        return ctx->backend->build_list(ctx->state, &problem, workspace, err);
    return ctx->backend->run(ctx->state, &problem, workspace, err);
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
