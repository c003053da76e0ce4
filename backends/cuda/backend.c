/* The vtable of the cuda backend: devices, contexts, calls. */
#include <string.h>

#include "cuda_backend.h"

/* ---- Devices ---------------------------------------------------------------------------- */

static rfa_status device_count(int32_t *count, rfa_error *err)
{
    const cuda_driver *driver;
    *count = 0;
    rfa_status status = cuda_driver_load(&driver, err);
    if (status == RFA_OK)
        *count = driver->devices;
    return status;
}

static rfa_status describe_device(const cuda_driver *driver, CUdevice device, rfa_device_info *info,
                                  int *capability, rfa_error *err)
{
    int major = 0, minor = 0, processors = 0;
    size_t memory = 0;
    CUresult result = driver->DeviceGetName(info->name, (int)sizeof(info->name), device);
    if (result == CUDA_SUCCESS)
        result = driver->DeviceTotalMem(&memory, device);
    if (result == CUDA_SUCCESS)
        result = driver->DeviceGetAttribute(&major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
                                            device);
    if (result == CUDA_SUCCESS)
        result = driver->DeviceGetAttribute(&minor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
                                            device);
    if (result == CUDA_SUCCESS)
        result = driver->DeviceGetAttribute(&processors, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT,
                                            device);
    info->memory = memory;
    info->compute_units = processors;
    *capability = 10 * major + minor;
    snprintf(info->detail, sizeof(info->detail), "compute capability %d.%d, driver %d.%d", major,
             minor, driver->version / 1000, driver->version % 1000 / 10);
    return cuda_check(driver, result, "cuDeviceGetAttribute", err);
}

/* Which kernels will run, after what the detail says already. */
static rfa_status name_kernels(int capability, rfa_device_info *info, rfa_error *err)
{
    enum cuda_family family;
    size_t used = strlen(info->detail);
    rfa_status status = cuda_choose_family(capability, &family, err);
    if (status == RFA_OK)
        snprintf(info->detail + used, sizeof(info->detail) - used, ", %s kernels",
                 cuda_family_name(family));
    return status;
}

static rfa_status device_get(int32_t index, rfa_device_info *info, rfa_error *err)
{
    const cuda_driver *driver;
    CUdevice device;
    int capability;
    rfa_error why = {""};
    rfa_status status = cuda_driver_load(&driver, err);
    if (status != RFA_OK)
        return status;
    if (index < 0 || index >= driver->devices)
        return rfa_fail(err, RFA_NO_DEVICE, "there is no device %d, the CUDA driver has %d",
                        (int)index, (int)driver->devices);
    memset(info, 0, sizeof(*info));
    info->device = (DLDevice){kDLCUDA, index};
    info->weights = RFA_WEIGHTS_F16 | RFA_WEIGHTS_BF16;
    status = cuda_check(driver, driver->DeviceGet(&device, index), "cuDeviceGet", err);
    if (status == RFA_OK)
        status = describe_device(driver, device, info, &capability, err);
    if (status != RFA_OK)
        return status;
    info->status = cuda_device_usable(capability, &why);
    if (info->status == RFA_OK)
        info->status = name_kernels(capability, info, &why);
    snprintf(info->why, sizeof(info->why), "%.255s", why.text);
    return RFA_OK;
}

/* ---- Contexts ------------------------------------------------------------------------------ */

static rfa_status context_create(const rfa_context_options *options, void **result, rfa_error *err)
{
    cuda_state *state;
    rfa_status status = cuda_state_create(options->device, &state, err);
    *result = state;
    return status;
}

static void context_destroy(void *state)
{
    cuda_state_destroy(state);
}

static DLDevice context_device(void *state)
{
    return (DLDevice){kDLCUDA, ((const cuda_state *)state)->index};
}

/* ---- Calls ----------------------------------------------------------------------------------- */

static rfa_status plan(void *state, const rfa_problem *p, size_t *workspace_size, rfa_error *err)
{
    cuda_layout layout;
    int variant;
    *workspace_size = 0;
    rfa_status status = cuda_choose_variant(state, p, &variant, err);
    if (status == RFA_OK)
        status = cuda_layout_of(&layout, p, &cuda_variants[variant], NULL, err);
    if (status == RFA_OK)
        *workspace_size = layout.size;
    return status;
}

static rfa_status plan_list(void *state, const rfa_problem *p, size_t *workspace_size,
                            rfa_error *err)
{
    cuda_layout layout;
    (void)state;
    *workspace_size = 0;
    rfa_status status = cuda_layout_of(&layout, p, NULL, NULL, err);
    if (status == RFA_OK)
        *workspace_size = layout.size;
    return status;
}

static rfa_status run(void *state, const rfa_problem *p, void *workspace, rfa_error *err)
{
    return cuda_run(state, p, workspace, err);
}

static rfa_status build_list(void *state, const rfa_problem *p, void *workspace, rfa_error *err)
{
    return cuda_build_list(state, p, workspace, err);
}

static rfa_status merge(void *state, const rfa_merge_problem *p, rfa_error *err)
{
    return cuda_merge_parts(state, p, err);
}

static const rfa_backend backend = {
    .abi = RFA_BACKEND_ABI,
    .struct_size = sizeof(rfa_backend),
    .name = "cuda",
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
    .workspace_take = cuda_workspace_take,
    .workspace_give = cuda_workspace_give,
    .alloc = cuda_alloc,
    .free = cuda_free,
    .write = cuda_write,
    .read = cuda_read,
    .synchronize = cuda_synchronize,
    .timer_create = cuda_timer_create,
    .timer_destroy = cuda_timer_destroy,
    .timer_start = cuda_timer_start,
    .timer_stop = cuda_timer_stop,
    .timer_read = cuda_timer_read,
};

__attribute__((visibility("default"))) const rfa_backend *rfa_backend_entry(void);

const rfa_backend *rfa_backend_entry(void)
{
    return &backend;
}
