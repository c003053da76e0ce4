/* The module's table and its one device. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifdef _OPENMP
#include <omp.h>
#endif

#include "reference.h"

/* ---- Device and context --------------------------------------------------------------- */

static rfa_status device_count(int32_t *count, rfa_error *err)
{
    (void)err;
    *count = 1;
    return RFA_OK;
}

static rfa_status device_get(int32_t index, rfa_device_info *info, rfa_error *err)
{
    if (index != 0)
        return rfa_fail(err, RFA_NO_DEVICE, "reference has one device, 0, not %d", (int)index);
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    memset(info, 0, sizeof(*info));
    snprintf(info->name, sizeof(info->name), "host processor");
    snprintf(info->detail, sizeof(info->detail), "float64 oracle, plain C");
    info->device = (DLDevice){kDLCPU, 0};
    info->memory = pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page : 0;
    info->compute_units = cores > 0 ? (int32_t)cores : 0;
    info->status = RFA_OK;
    return RFA_OK;
}

static int32_t default_threads(void)
{
#ifdef _OPENMP
    return omp_get_max_threads();
#else
    return 1;
#endif
}

static rfa_status context_create(const rfa_context_options *options, void **state, rfa_error *err)
{
    *state = NULL;
    if (options->device != 0)
        return rfa_fail(err, RFA_NO_DEVICE, "reference has one device, 0, not %d",
                        (int)options->device);
    if (options->opencl_context || options->opencl_device)
        return rfa_fail(err, RFA_UNSUPPORTED, "reference takes no OpenCL handles");
    if (options->threads < 0)
        return rfa_fail(err, RFA_INVALID_ARGUMENT, "threads is %d, expected 0 or more",
                        (int)options->threads);
    reference_state *context = calloc(1, sizeof(*context));
    if (!context)
        return rfa_fail(err, RFA_OUT_OF_MEMORY, "no memory for a context");
    context->threads = options->threads > 0 ? options->threads : default_threads();
    *state = context;
    return RFA_OK;
}

static void context_destroy(void *state)
{
    free(((reference_state *)state)->workspace.data);
    free(state);
}

static DLDevice context_device(void *state)
{
    (void)state;
    return (DLDevice){kDLCPU, 0};
}

/* It does everything, and finds its memory itself. */
static rfa_status plan(void *state, const rfa_problem *p, size_t *workspace_size, rfa_error *err)
{
    (void)state;
    (void)p;
    (void)err;
    *workspace_size = 0;
    return RFA_OK;
}

/* Never asked for, as no plan wants any; it works all the same. */
static rfa_status workspace_take(void *state, size_t size, void *stream, void **data,
                                 rfa_error *err)
{
    (void)stream;
    return rfa_host_workspace_take(&((reference_state *)state)->workspace, size, data, err);
}

/* ---- Table ------------------------------------------------------------------------------- */

static const rfa_backend backend = {
    .abi = RFA_BACKEND_ABI,
    .struct_size = sizeof(rfa_backend),
    .name = "reference",
    .device_count = device_count,
    .device_get = device_get,
    .context_create = context_create,
    .context_destroy = context_destroy,
    .context_device = context_device,
    .plan = plan,
    .run = reference_run,
    .plan_list = plan,
    .build_list = reference_build_list,
    .merge = reference_merge,
    .workspace_take = workspace_take,
    RFA_HOST_MEMORY_SLOTS,
};

#ifdef __GNUC__
__attribute__((visibility("default")))
#endif
const rfa_backend *
rfa_backend_entry(void);

const rfa_backend *rfa_backend_entry(void)
{
    return &backend;
}
