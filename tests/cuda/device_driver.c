#include "device_driver.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

device_driver cu;

typedef CUresult (*get_address_fn)(const char *name, void **address, int version, cuuint64_t flags,
                                   CUdriverProcAddressQueryResult *result);

bool load_driver(void)
{
    static const char *const names[] = {
#define X(name) "cu" #name,
        DEVICE_CALLS(X)
#undef X
    };
    void **const places[] = {
#define X(name) (void **)&cu.name,
        DEVICE_CALLS(X)
#undef X
    };
    void *library = dlopen("libcuda.so.1", RTLD_NOW);
    void *address = library ? dlsym(library, "cuGetProcAddress_v2") : NULL;
    get_address_fn get;
    CUdriverProcAddressQueryResult found;
    memcpy(&get, &address, sizeof(get));
    for (size_t i = 0; get && i < sizeof(names) / sizeof(names[0]); i++)
        if (get(names[i], places[i], CUDA_VERSION, 0, &found) != CUDA_SUCCESS)
            return false;
    return get && cu.Init(0) == CUDA_SUCCESS;
}

int expect(bool holds, const char *what)
{
    if (!holds)
        fprintf(stderr, "  not so: %s; last error: %s\n", what, rfa_last_error(NULL));
    return holds ? PASSED : FAILED;
}

CUcontext enter(int device)
{
    CUdevice handle;
    CUcontext context = NULL;
    cu.DeviceGet(&handle, device);
    cu.DevicePrimaryCtxRetain(&context, handle);
    cu.CtxSetCurrent(context);
    return context;
}

rfa_context *open_context(int device)
{
    rfa_context_options options = RFA_CONTEXT_OPTIONS_INIT;
    rfa_context *ctx = NULL;
    options.backend = "cuda";
    options.device = device;
    if (rfa_context_create(&ctx, &options) != RFA_OK)
        fprintf(stderr, "  %s\n", rfa_last_error(NULL));
    return ctx;
}

CUstream make_stream(void)
{
    CUstream stream = NULL;
    cu.StreamCreate(&stream, CU_STREAM_NON_BLOCKING);
    return stream;
}
