/* A backend on host memory that computes nothing, and fails where the environment
 * says, at the time of the call:
 *
 *   FAILING_SLOT=run       the slot of the table that fails ("": none)
 *   FAILING_STATUS=5       with which status
 *   FAILING_SILENTLY=1     without a sentence
 *   FAILING_DEVICE=2       DLPack's type of its device; otherwise the CPU
 *   FAILING_UNUSABLE=1     two devices, of which only the second is usable
 *   FAILING_NAME=cuda      another name than "failing", when it is loaded
 *
 * A slot that fails leaves nonsense in its outputs. */
#include <stdlib.h>
#include <string.h>

#include "backends/host_memory.h"

#define SHOWN __attribute__((visibility("default")))

enum { WORKSPACE = 4096 };

typedef struct state {
    DLDevice device;
    rfa_host_workspace workspace;
    bool taken; /* every take must be followed by a give */
} state;

static bool is_set(const char *name)
{
    const char *value = getenv(name);
    return value && value[0];
}

static rfa_status attempt(const char *slot, rfa_error *err)
{
    const char *fails = getenv("FAILING_SLOT"), *number = getenv("FAILING_STATUS");
    if (!fails || strcmp(fails, slot) != 0)
        return RFA_OK;
    rfa_status status = (rfa_status)(number ? strtol(number, NULL, 10) : RFA_DEVICE_ERROR);
    if (is_set("FAILING_SILENTLY"))
        return status;
    return rfa_fail(err, status, "slot %s fails with %s", slot, rfa_status_name(status));
}

static void *nonsense(void)
{
    return (void *)(uintptr_t)0xdead0000u;
}

/* ---- Devices and contexts ------------------------------------------------------------ */

static DLDevice device(void)
{
    const char *type = getenv("FAILING_DEVICE");
    return (DLDevice){type ? (DLDeviceType)strtol(type, NULL, 10) : kDLCPU, 0};
}

static rfa_status device_count(int32_t *count, rfa_error *err)
{
    rfa_status status = attempt("device_count", err);
    *count = status != RFA_OK ? 77 : is_set("FAILING_UNUSABLE") ? 2 : 1;
    return status;
}

static rfa_status device_get(int32_t index, rfa_device_info *info, rfa_error *err)
{
    rfa_status status = attempt("device_get", err);
    memset(info, 0, sizeof(*info));
    snprintf(info->name, sizeof(info->name), status == RFA_OK ? "nothing much" : "nonsense");
    info->device = device();
    if (index == 0 && is_set("FAILING_UNUSABLE")) {
        info->status = RFA_NO_DEVICE;
        snprintf(info->why, sizeof(info->why), "it is too old");
    }
    return status;
}

static rfa_status context_create(const rfa_context_options *options, void **result, rfa_error *err)
{
    *result = nonsense();
    rfa_status status = attempt("context_create", err);
    if (status == RFA_OK && options->device == 0 && is_set("FAILING_UNUSABLE"))
        status = rfa_fail(err, RFA_NO_DEVICE, "device 0 is too old");
    if (status != RFA_OK)
        return status;
    state *made = calloc(1, sizeof(*made));
    if (!made)
        return rfa_fail(err, RFA_OUT_OF_MEMORY, "no memory for a context");
    made->device = device();
    *result = made;
    return RFA_OK;
}

static void context_destroy(void *context)
{
    free(((state *)context)->workspace.data);
    free(context);
}

static DLDevice context_device(void *context)
{
    return ((state *)context)->device;
}

/* ---- Calls ----------------------------------------------------------------------------- */

static rfa_status plan_as(const char *slot, size_t *size, rfa_error *err)
{
    rfa_status status = attempt(slot, err);
    *size = status == RFA_OK ? WORKSPACE : SIZE_MAX;
    return status;
}

static rfa_status plan(void *context, const rfa_problem *p, size_t *size, rfa_error *err)
{
    (void)context;
    (void)p;
    return plan_as("plan", size, err);
}

static rfa_status plan_list(void *context, const rfa_problem *p, size_t *size, rfa_error *err)
{
    (void)context;
    (void)p;
    return plan_as("plan_list", size, err);
}

/* Uses what it was promised: all of the workspace, and one output. */
static rfa_status run(void *context, const rfa_problem *p, void *workspace, rfa_error *err)
{
    rfa_status status = attempt("run", err);
    (void)context;
    memset(workspace, 1, WORKSPACE);
    if (status == RFA_OK && p->counts.data)
        memset((char *)p->counts.data + p->counts.byte_offset, 0, sizeof(rfa_counts));
    return status;
}

static rfa_status build_list(void *context, const rfa_problem *p, void *workspace, rfa_error *err)
{
    rfa_status status = attempt("build_list", err);
    (void)context;
    memset(workspace, 1, WORKSPACE);
    if (status == RFA_OK)
        memset((char *)p->list_counts.data + p->list_counts.byte_offset, 0, sizeof(int32_t));
    return status;
}

static rfa_status merge(void *context, const rfa_merge_problem *p, rfa_error *err)
{
    rfa_status status = attempt("merge", err);
    (void)context;
    if (status == RFA_OK)
        memset((char *)p->out.data + p->out.byte_offset, 0, 2);
    return status;
}

/* ---- Memory ------------------------------------------------------------------------------ */

static rfa_status alloc_memory(void *context, size_t size, void **data, rfa_error *err)
{
    (void)context;
    *data = nonsense();
    rfa_status status = attempt("alloc", err);
    if (status != RFA_OK)
        return status;
    status = rfa_host_alloc(context, size, data, err);
    if (status == RFA_OK)
        memset(*data, 0, size);
    return status;
}

static rfa_status workspace_take(void *context, size_t size, void *stream, void **data,
                                 rfa_error *err)
{
    state *own = context;
    (void)stream;
    *data = nonsense();
    rfa_status status = attempt("workspace_take", err);
    if (status != RFA_OK)
        return status;
    if (own->taken)
        return rfa_fail(err, RFA_DEVICE_ERROR, "the workspace was not given back");
    status = rfa_host_workspace_take(&own->workspace, size, data, err);
    own->taken = status == RFA_OK;
    return status;
}

static rfa_status workspace_give(void *context, void *stream, rfa_error *err)
{
    (void)stream;
    ((state *)context)->taken = false;
    return attempt("workspace_give", err);
}

static rfa_status write_memory(void *context, void *data, size_t offset, const void *host,
                               size_t size, void *stream, rfa_error *err)
{
    rfa_status status = attempt("write", err);
    if (status == RFA_OK)
        status = rfa_host_write(context, data, offset, host, size, stream, err);
    return status;
}

static rfa_status read_memory(void *context, const void *data, size_t offset, void *host,
                              size_t size, void *stream, rfa_error *err)
{
    rfa_status status = attempt("read", err);
    if (status == RFA_OK)
        status = rfa_host_read(context, data, offset, host, size, stream, err);
    return status;
}

static rfa_status synchronize(void *context, void *stream, rfa_error *err)
{
    (void)context;
    (void)stream;
    return attempt("synchronize", err);
}

/* ---- Timers ------------------------------------------------------------------------------ */

static rfa_status make_timer(void *context, void **timer, rfa_error *err)
{
    *timer = nonsense();
    rfa_status status = attempt("timer_create", err);
    return status == RFA_OK ? rfa_host_timer_create(context, timer, err) : status;
}

static rfa_status start_timer(void *context, void *timer, void *stream, rfa_error *err)
{
    rfa_status status = attempt("timer_start", err);
    return status == RFA_OK ? rfa_host_timer_start(context, timer, stream, err) : status;
}

static rfa_status stop_timer(void *context, void *timer, void *stream, rfa_error *err)
{
    rfa_status status = attempt("timer_stop", err);
    return status == RFA_OK ? rfa_host_timer_stop(context, timer, stream, err) : status;
}

static rfa_status read_timer(void *context, void *timer, double *seconds, rfa_error *err)
{
    rfa_status status = attempt("timer_read", err);
    return status == RFA_OK ? rfa_host_timer_read(context, timer, seconds, err) : status;
}

SHOWN const rfa_backend *rfa_backend_entry(void);

const rfa_backend *rfa_backend_entry(void)
{
    static rfa_backend table = {
        .abi = RFA_BACKEND_ABI,
        .struct_size = sizeof(rfa_backend),
        .name = "failing",
        .device_count = device_count,
        .device_get = device_get,
        .context_create = context_create,
        .context_destroy = context_destroy,
        .context_device = context_device,
        .plan = plan,
        .run = run,
        .plan_list = plan_list,
        .build_list = build_list,
        .merge = merge,
        .workspace_take = workspace_take,
        .workspace_give = workspace_give,
        .alloc = alloc_memory,
        .free = rfa_host_free,
        .write = write_memory,
        .read = read_memory,
        .synchronize = synchronize,
        .timer_create = make_timer,
        .timer_destroy = rfa_host_free,
        .timer_start = start_timer,
        .timer_stop = stop_timer,
        .timer_read = read_timer,
    };
    if (is_set("FAILING_NAME"))
        table.name = getenv("FAILING_NAME");
    return &table;
}
