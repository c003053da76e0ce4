/* A context: the device's primary context and the kernels in it. */
#include <stdlib.h>
#include <string.h>

#include "cuda_backend.h"

#define OLDEST_CAPABILITY 80

/* The kernels' code, put into the module by the build. */
#define X(name, only) extern const unsigned char rfa_cuda_image_##name[];
CUDA_IMAGES(X)
#undef X

static const struct {
    const unsigned char *code;
    int only;
} images[] = {
#define X(name, only) {rfa_cuda_image_##name, only},
    CUDA_IMAGES(X)
#undef X
};

static const struct {
    const char *name;
    enum cuda_image image;
} kernels[] = {
#define X(name, image) {#name, CUDA_IMAGE_##image},
    CUDA_KERNELS(X)
#undef X
};

rfa_status cuda_enter(const cuda_state *state, rfa_error *err)
{
    return cuda_check(state->driver, state->driver->CtxPushCurrent(state->context),
                      "cuCtxPushCurrent", err);
}

void cuda_leave(const cuda_state *state)
{
    CUcontext own;
    state->driver->CtxPopCurrent(&own);
}

/* ---- Families ----------------------------------------------------------------------------- */

static const char *const families[] = {"generic", "ampere", "hopper"}; /* as cuda_family */

const char *cuda_family_name(enum cuda_family family)
{
    return families[family];
}

rfa_status cuda_choose_family(int capability, enum cuda_family *family, rfa_error *err)
{
    const char *most = getenv("RFA_CUDA_KERNELS");
    enum cuda_family fastest = capability == 90 ? CUDA_FAMILY_HOPPER : CUDA_FAMILY_AMPERE;
    *family = fastest;
    if (!most || !*most)
        return RFA_OK;
    for (int i = 0; i < (int)(sizeof(families) / sizeof(families[0])); i++) {
        if (strcmp(most, families[i]) == 0) {
            *family = (enum cuda_family)cuda_min(i, fastest);
            return RFA_OK;
        }
    }
    return rfa_fail(err, RFA_INVALID_ARGUMENT,
                    "RFA_CUDA_KERNELS is \"%.40s\", expected generic, ampere or hopper", most);
}

/* ---- Kernels ------------------------------------------------------------------------------ */

static rfa_status load_images(cuda_state *state, rfa_error *err)
{
    rfa_status status = RFA_OK;
    for (int i = 0; i < CUDA_IMAGE_COUNT && status == RFA_OK; i++) {
        if (images[i].only && images[i].only != state->capability)
            continue;
        CUresult result = state->driver->ModuleLoadData(&state->module[i], images[i].code);
        status = cuda_check(state->driver, result, "cuModuleLoadData", err);
    }
    return status;
}

/* All of them now: a first launch may be under graph capture, which loads nothing. */
static rfa_status find_kernels(cuda_state *state, rfa_error *err)
{
    const cuda_driver *driver = state->driver;
    rfa_status status = RFA_OK;
    for (int i = 0; i < CUDA_KERNEL_COUNT && status == RFA_OK; i++)
        status =
            cuda_check(driver,
                       driver->ModuleGetFunction(&state->kernel[i], state->module[kernels[i].image],
                                                 kernels[i].name),
                       kernels[i].name, err);
    for (int i = 0; i < cuda_variant_count && status == RFA_OK; i++) {
        const cuda_variant *v = &cuda_variants[i];
        if (!state->module[v->image] || v->family > state->family)
            continue;
        CUfunction *function = &state->variant[i];
        status = cuda_check(driver,
                            driver->ModuleGetFunction(function, state->module[v->image], v->kernel),
                            v->kernel, err);
        if (status == RFA_OK)
            status = cuda_check(
                driver,
                driver->FuncSetAttribute(*function, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                                         state->shared_memory),
                "cuFuncSetAttribute", err);
    }
    return status;
}

/* ---- The device ---------------------------------------------------------------------------- */

rfa_status cuda_device_usable(int capability, rfa_error *err)
{
    if (capability < OLDEST_CAPABILITY)
        return rfa_fail(err, RFA_NO_DEVICE,
                        "the device has compute capability %d.%d, %d.%d is needed", capability / 10,
                        capability % 10, OLDEST_CAPABILITY / 10, OLDEST_CAPABILITY % 10);
    return RFA_OK;
}

static rfa_status read_device(cuda_state *state, rfa_error *err)
{
    const cuda_driver *driver = state->driver;
    int major = 0, minor = 0;
    const struct {
        CUdevice_attribute attribute;
        int *value;
    } asked[] = {
        {CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, &major},
        {CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, &minor},
        {CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, &state->multiprocessors},
        {CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, &state->shared_memory},
    };
    CUresult result = driver->DeviceGet(&state->device, state->index);
    for (size_t i = 0; i < sizeof(asked) / sizeof(asked[0]) && result == CUDA_SUCCESS; i++)
        result = driver->DeviceGetAttribute(asked[i].value, asked[i].attribute, state->device);
    state->capability = 10 * major + minor;
    rfa_status status = cuda_check(driver, result, "cuDeviceGetAttribute", err);
    return status == RFA_OK ? cuda_device_usable(state->capability, err) : status;
}

/* What the environment says to use at most of what the device has. */
static rfa_status limit_by(const char *variable, int *value, rfa_error *err)
{
    const char *most = getenv(variable);
    char *end;
    if (!most || !*most)
        return RFA_OK;
    long count = strtol(most, &end, 10);
    if (*end || count < 1)
        return rfa_fail(err, RFA_INVALID_ARGUMENT, "%s is \"%.40s\", expected a number from 1 on",
                        variable, most);
    *value = (int)cuda_min(count, *value);
    return RFA_OK;
}

/* RFA_CUDA_MULTIPROCESSORS: for the kernels that share work among those. RFA_CUDA_SHARED_MEMORY,
 * in bytes: as if on a smaller card. */
static rfa_status limit_device(cuda_state *state, rfa_error *err)
{
    rfa_status status = limit_by("RFA_CUDA_MULTIPROCESSORS", &state->multiprocessors, err);
    if (status == RFA_OK)
        status = limit_by("RFA_CUDA_SHARED_MEMORY", &state->shared_memory, err);
    return status;
}

static rfa_status open_state(cuda_state *state, rfa_error *err)
{
    rfa_status status = read_device(state, err);
    if (status == RFA_OK)
        status = limit_device(state, err);
    if (status == RFA_OK)
        status = cuda_choose_family(state->capability, &state->family, err);
    if (status == RFA_OK)
        status = cuda_check(state->driver,
                            state->driver->DevicePrimaryCtxRetain(&state->context, state->device),
                            "cuDevicePrimaryCtxRetain", err);
    if (status == RFA_OK)
        status = cuda_enter(state, err);
    if (status != RFA_OK)
        return status;
    status = load_images(state, err);
    if (status == RFA_OK)
        status = find_kernels(state, err);
    cuda_leave(state);
    return status;
}

rfa_status cuda_state_create(int32_t index, cuda_state **state, rfa_error *err)
{
    const cuda_driver *driver;
    *state = NULL;
    rfa_status status = cuda_driver_load(&driver, err);
    if (status != RFA_OK)
        return status;
    if (index < 0 || index >= driver->devices)
        return rfa_fail(err, RFA_NO_DEVICE, "device %d was asked for, the CUDA driver has %d",
                        (int)index, (int)driver->devices);
    cuda_state *made = calloc(1, sizeof(*made));
    if (!made)
        return rfa_fail(err, RFA_OUT_OF_MEMORY, "no memory for a context");
    made->driver = driver;
    made->index = index;
    status = open_state(made, err);
    if (status == RFA_OK)
        *state = made;
    else
        cuda_state_destroy(made);
    return status;
}

void cuda_state_destroy(cuda_state *state)
{
    rfa_error ignored;
    if (state->context && cuda_enter(state, &ignored) == RFA_OK) {
        cuda_workspace_destroy(state);
        for (int i = 0; i < CUDA_IMAGE_COUNT; i++)
            if (state->module[i])
                state->driver->ModuleUnload(state->module[i]);
        cuda_leave(state);
    }
    if (state->context)
        state->driver->DevicePrimaryCtxRelease(state->device);
    free(state);
}
