/* Device memory and streams, for programs that bring neither. */
#include "src/internal.h"

static rfa_status null_argument(rfa_context *ctx, const char *name)
{
    rfa_error err;
    return rfa_record(ctx, rfa_fail(&err, RFA_INVALID_ARGUMENT, "%s is NULL", name), &err);
}

rfa_status rfa_device_alloc(rfa_context *ctx, size_t size, void **data)
{
    rfa_error err = {""};
    if (!ctx || !data)
        return null_argument(ctx, ctx ? "data" : "ctx");
    *data = NULL;
    if (size == 0)
        return rfa_record(ctx, rfa_fail(&err, RFA_INVALID_ARGUMENT, "size is 0"), &err);
    rfa_status status = ctx->backend->alloc(ctx->state, size, data, &err);
    if (status != RFA_OK)
        *data = NULL;
    return rfa_record(ctx, status, &err);
}

void rfa_device_free(rfa_context *ctx, void *data)
{
    if (ctx && data)
        ctx->backend->free(ctx->state, data);
}

rfa_status rfa_device_write(rfa_context *ctx, void *data, size_t offset, const void *host,
                            size_t size, void *stream)
{
    rfa_error err = {""};
    if (!ctx || !data || !host)
        return null_argument(ctx, !ctx ? "ctx" : !data ? "data" : "host");
    rfa_status status = ctx->backend->write(ctx->state, data, offset, host, size, stream, &err);
    return rfa_record(ctx, status, &err);
}

rfa_status rfa_device_read(rfa_context *ctx, const void *data, size_t offset, void *host,
                           size_t size, void *stream)
{
    rfa_error err = {""};
    if (!ctx || !data || !host)
        return null_argument(ctx, !ctx ? "ctx" : !data ? "data" : "host");
    rfa_status status = ctx->backend->read(ctx->state, data, offset, host, size, stream, &err);
    return rfa_record(ctx, status, &err);
}

rfa_status rfa_synchronize(rfa_context *ctx, void *stream)
{
    rfa_error err = {""};
    if (!ctx)
        return null_argument(ctx, "ctx");
    return rfa_record(ctx, ctx->backend->synchronize(ctx->state, stream, &err), &err);
}
