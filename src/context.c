/* Devices and contexts. */
#include "src/internal.h"

#include <stdlib.h>
#include <string.h>

#include "src/struct.h"

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

/* A device that cannot be had is passed over; without any, the first one's reason
 * is the answer. */
static rfa_status first_usable(const rfa_backend *backend, int32_t *device, rfa_error *err)
{
    rfa_device_info info;
    int32_t count = 0;
    rfa_status status = backend->device_count(&count, err), first = RFA_OK;
    rfa_error why;
    for (int32_t i = 0; status == RFA_OK && i < count; i++) {
        memset(&info, 0, sizeof(info));
        why.text[0] = '\0';
        rfa_status got = backend->device_get(i, &info, &why);
        if (got == RFA_OK && info.status == RFA_OK) {
            *device = i;
            return RFA_OK;
        }
        if (got == RFA_OK)
            got = rfa_fail(&why, info.status, "%s", info.why);
        if (first == RFA_OK) {
            first = got;
            *err = why;
        }
    }
    if (status == RFA_OK && first == RFA_OK)
        return rfa_fail(err, RFA_NO_DEVICE, "backend %s has no device", backend->name);
    return status == RFA_OK ? first : status;
}

/* What a context is made of. */
typedef struct choice {
    const rfa_backend *backend;
    int32_t device;
} choice;

/* The registry is sorted by preference; the oracle is never chosen unasked. */
static rfa_status choose_any(choice *chosen, rfa_error *err)
{
    size_t count;
    const rfa_module *modules;
    rfa_status status = rfa_modules(&modules, &count, err);
    if (status != RFA_OK)
        return status;
    const char *starved = NULL;
    for (size_t i = 0; i < count; i++) {
        rfa_error ignored = {""};
        if (modules[i].status == RFA_OUT_OF_MEMORY)
            starved = modules[i].path;
        if (!modules[i].backend || strcmp(modules[i].name, "reference") == 0)
            continue;
        if (first_usable(modules[i].backend, &chosen->device, &ignored) == RFA_OK) {
            chosen->backend = modules[i].backend;
            return RFA_OK;
        }
    }
    if (starved)
        return rfa_fail(err, RFA_OUT_OF_MEMORY, "memory ran out in loading %s", starved);
    return rfa_fail(err, RFA_NO_DEVICE,
                    "no backend has a usable device (`rfa devices` says why for each)");
}

static rfa_status choose(const rfa_context_options *options, choice *chosen, rfa_error *err)
{
    const char *name = options->backend, *preferred = getenv("RFA_BACKEND");
    if (!name && preferred && preferred[0])
        name = preferred;
    rfa_status status =
        name ? rfa_find_backend(name, &chosen->backend, err) : choose_any(chosen, err);
    if (status == RFA_OK && options->device >= 0)
        chosen->device = options->device;
    else if (status == RFA_OK && name && !options->opencl_device)
        status = first_usable(chosen->backend, &chosen->device, err);
    return status;
}

static const rfa_struct_spec options_spec = {"options", "RFA_CONTEXT_OPTIONS_INIT",
                                             RFA_SIZE_THROUGH(rfa_context_options, opencl_device),
                                             sizeof(rfa_context_options)};

static rfa_status check_options(const rfa_context_options *options, rfa_error *err)
{
    if (options->threads < 0 || options->threads > 65536)
        return rfa_fail(err, RFA_INVALID_ARGUMENT, "options.threads is %d, expected 0 to 65536",
                        (int)options->threads);
    if (options->device < -1)
        return rfa_fail(err, RFA_NO_DEVICE, "options.device is %d", (int)options->device);
    if (!options->opencl_context != !options->opencl_device)
        return rfa_fail(err, RFA_INVALID_ARGUMENT,
                        "options.opencl_context and opencl_device go together, one is NULL");
    return RFA_OK;
}

static rfa_status create(rfa_context **ctx, const rfa_context_options *options, rfa_error *err)
{
    choice chosen = {NULL, 0};
    rfa_context_options own;
    rfa_status status = rfa_struct_take(&options_spec, options, &own, err);
    if (status == RFA_OK)
        status = check_options(&own, err);
    if (status == RFA_OK)
        status = choose(&own, &chosen, err);
    if (status != RFA_OK)
        return status;
    if (own.opencl_context && strcmp(chosen.backend->name, "opencl") != 0)
        return rfa_fail(err, RFA_UNSUPPORTED, "OpenCL handles were given to backend %s",
                        chosen.backend->name);
    rfa_context *made = calloc(1, sizeof(*made));
    if (!made)
        return rfa_fail(err, RFA_OUT_OF_MEMORY, "no memory for a context");
    made->backend = chosen.backend;
    made->device = own.opencl_device ? -1 : chosen.device;
    own.device = chosen.device;
    status = chosen.backend->context_create(&own, &made->state, err);
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

static rfa_status describe(const rfa_context *ctx, rfa_device_info *info, rfa_error *err)
{
    if (!ctx || !info)
        return rfa_fail(err, RFA_INVALID_ARGUMENT, "%s is NULL", ctx ? "info" : "ctx");
    if (ctx->device < 0)
        return rfa_fail(err, RFA_UNSUPPORTED,
                        "the context's device was given as OpenCL handles, which have no index");
    memset(info, 0, sizeof(*info));
    return ctx->backend->device_get(ctx->device, info, err);
}

rfa_status rfa_context_info(rfa_context *ctx, rfa_device_info *info)
{
    rfa_error err = {""};
    return rfa_record(ctx, describe(ctx, info, &err), &err);
}
