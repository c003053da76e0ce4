/* Devices, contexts, and device memory: the parts of a backend that callers
 * reach directly. */
#include "src/internal.h"

#include <stdlib.h>
#include <string.h>

/* ---- devices ---- */

static rfa_status device_count(const char *name, int32_t *count, rfa_error *err)
{
    const rfa_backend *backend = NULL;
    if (!name || !count)
        return rfa_fail(err, RFA_INVALID_ARGUMENT, "%s is NULL", name ? "count" : "name");
    *count = 0;
    rfa_status status = rfa_find_backend(name, &backend, err);
    return status == RFA_OK ? backend->device_count(count, err) : status;
}

rfa_status rfa_device_count(const char *name, int32_t *count)
{
    rfa_error err = {""};
    return rfa_record(NULL, device_count(name, count, &err), &err);
}

static rfa_status device_get(const char *name, int32_t index, rfa_device_info *info, rfa_error *err)
{
    const rfa_backend *backend = NULL;
    int32_t count = 0;
    if (!info)
        return rfa_fail(err, RFA_INVALID_ARGUMENT, "info is NULL");
    rfa_status status = device_count(name, &count, err);
    if (status == RFA_OK && (index < 0 || index >= count))
        status = rfa_fail(err, RFA_NO_DEVICE, "device %d was asked for, backend %s has %d",
                          (int)index, name, (int)count);
    if (status == RFA_OK)
        status = rfa_find_backend(name, &backend, err);
    if (status != RFA_OK)
        return status;
    memset(info, 0, sizeof(*info));
    return backend->device_get(index, info, err);
}

rfa_status rfa_device_get(const char *name, int32_t index, rfa_device_info *info)
{
    rfa_error err = {""};
    return rfa_record(NULL, device_get(name, index, info, &err), &err);
}

/* ---- contexts ---- */

static bool has_usable_device(const rfa_backend *backend)
{
    rfa_error err = {""};
    rfa_device_info info;
    int32_t count = 0;
    if (backend->device_count(&count, &err) != RFA_OK)
        return false;
    for (int32_t i = 0; i < count; i++) {
        memset(&info, 0, sizeof(info));
        if (backend->device_get(i, &info, &err) == RFA_OK && info.status == RFA_OK)
            return true;
    }
    return false;
}

/* The registry is sorted by preference; the oracle is never chosen unasked. */
static rfa_status choose_backend(const char *name, const rfa_backend **backend, rfa_error *err)
{
    const char *preferred = getenv("RFA_BACKEND");
    if (!name && preferred && preferred[0])
        name = preferred;
    if (name)
        return rfa_find_backend(name, backend, err);
    size_t count;
    const rfa_module *modules;
    rfa_status status = rfa_modules(&modules, &count, err);
    if (status != RFA_OK)
        return status;
    const char *starved = NULL;
    for (size_t i = 0; i < count; i++) {
        if (modules[i].status == RFA_OUT_OF_MEMORY)
            starved = modules[i].path;
        if (!modules[i].backend || strcmp(modules[i].name, "reference") == 0)
            continue;
        if (has_usable_device(modules[i].backend)) {
            *backend = modules[i].backend;
            return RFA_OK;
        }
    }
    if (starved)
        return rfa_fail(err, RFA_OUT_OF_MEMORY, "memory ran out in loading %s", starved);
    return rfa_fail(err, RFA_NO_DEVICE,
                    "no backend has a usable device (`rfa devices` says why for each)");
}

static rfa_status check_options(const rfa_context_options *options, rfa_error *err)
{
    if (options->struct_size < sizeof(rfa_context_options))
        return rfa_fail(err, RFA_INVALID_ARGUMENT,
                        "options.struct_size is %zu, expected %zu: set it with "
                        "RFA_CONTEXT_OPTIONS_INIT",
                        options->struct_size, sizeof(rfa_context_options));
    if (options->threads < 0 || options->threads > 65536)
        return rfa_fail(err, RFA_INVALID_ARGUMENT, "options.threads is %d, expected 0 to 65536",
                        (int)options->threads);
    if (options->device < 0)
        return rfa_fail(err, RFA_NO_DEVICE, "options.device is %d", (int)options->device);
    if (!options->opencl_context != !options->opencl_device)
        return rfa_fail(err, RFA_INVALID_ARGUMENT,
                        "options.opencl_context and opencl_device go together, one is NULL");
    return RFA_OK;
}

static rfa_status create(rfa_context **ctx, const rfa_context_options *options, rfa_error *err)
{
    const rfa_backend *backend = NULL;
    rfa_status status = check_options(options, err);
    if (status == RFA_OK)
        status = choose_backend(options->backend, &backend, err);
    if (status != RFA_OK)
        return status;
    if (options->opencl_context && strcmp(backend->name, "opencl") != 0)
        return rfa_fail(err, RFA_UNSUPPORTED, "OpenCL handles were given to backend %s",
                        backend->name);
    rfa_context *made = calloc(1, sizeof(*made));
    if (!made)
        return rfa_fail(err, RFA_OUT_OF_MEMORY, "no memory for a context");
    made->backend = backend;
    status = backend->context_create(options, &made->state, err);
    if (status == RFA_OK)
        *ctx = made;
    else
        free(made);
    return status;
}

rfa_status rfa_context_create(rfa_context **ctx, const rfa_context_options *options)
{
    rfa_error err = {""};
    rfa_context_options defaults = RFA_CONTEXT_OPTIONS_INIT;
    if (!ctx)
        return rfa_record(NULL, rfa_fail(&err, RFA_INVALID_ARGUMENT, "ctx is NULL"), &err);
    *ctx = NULL;
    return rfa_record(NULL, create(ctx, options ? options : &defaults, &err), &err);
}

void rfa_context_destroy(rfa_context *ctx)
{
    if (!ctx)
        return;
    if (ctx->workspace) {
        rfa_error ignored;
        ctx->backend->synchronize(ctx->state, ctx->workspace_stream, &ignored);
        ctx->backend->free(ctx->state, ctx->workspace);
    }
    ctx->backend->context_destroy(ctx->state);
    free(ctx);
}

const char *rfa_context_backend(const rfa_context *ctx)
{
    return ctx ? ctx->backend->name : "";
}

DLDevice rfa_context_device(const rfa_context *ctx)
{
    DLDevice none = {kDLCPU, -1};
    return ctx ? ctx->backend->context_device(ctx->state) : none;
}

/* ---- device memory ---- */

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
                            size_t size)
{
    rfa_error err = {""};
    if (!ctx || !data || !host)
        return null_argument(ctx, !ctx ? "ctx" : !data ? "data" : "host");
    return rfa_record(ctx, ctx->backend->write(ctx->state, data, offset, host, size, &err), &err);
}

rfa_status rfa_device_read(rfa_context *ctx, const void *data, size_t offset, void *host,
                           size_t size)
{
    rfa_error err = {""};
    if (!ctx || !data || !host)
        return null_argument(ctx, !ctx ? "ctx" : !data ? "data" : "host");
    return rfa_record(ctx, ctx->backend->read(ctx->state, data, offset, host, size, &err), &err);
}

rfa_status rfa_synchronize(rfa_context *ctx, void *stream)
{
    rfa_error err = {""};
    if (!ctx)
        return null_argument(ctx, "ctx");
    return rfa_record(ctx, ctx->backend->synchronize(ctx->state, stream, &err), &err);
}
