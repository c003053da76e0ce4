#include "driver.h"

#include <dlfcn.h>
#include <pthread.h>
#include <string.h>

/* Kernels are built by this toolkit; drivers of its major version run them. */
#define OLDEST_DRIVER (CUDA_VERSION / 1000 * 1000)

typedef CUresult (*get_address_fn)(const char *name, void **address, int version, cuuint64_t flags,
                                   CUdriverProcAddressQueryResult *result);

static struct {
    pthread_once_t once;
    cuda_driver driver;
    rfa_status status;
    rfa_error why;
} loaded = {.once = PTHREAD_ONCE_INIT};

static get_address_fn find_get_address(void *library)
{
    void *address = dlsym(library, "cuGetProcAddress_v2");
    get_address_fn function;
    memcpy(&function, &address, sizeof(function)); /* ISO C has no such cast */
    return function;
}

static rfa_status resolve(cuda_driver *driver, get_address_fn get, rfa_error *err)
{
    static const char *const names[] = {
#define X(name) "cu" #name,
        CUDA_DRIVER_CALLS(X)
#undef X
    };
    void **const places[] = {
#define X(name) (void **)&driver->name,
        CUDA_DRIVER_CALLS(X)
#undef X
    };
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        CUdriverProcAddressQueryResult found;
        if (get(names[i], places[i], CUDA_VERSION, 0, &found) != CUDA_SUCCESS || !*places[i])
            return rfa_fail(err, RFA_NO_DEVICE,
                            "the CUDA driver is too old: it has no %s, version %d.%d is needed",
                            names[i], OLDEST_DRIVER / 1000, OLDEST_DRIVER % 1000 / 10);
    }
    return RFA_OK;
}

static rfa_status start_driver(cuda_driver *driver, rfa_error *err)
{
    int count = 0;
    CUresult result = driver->DriverGetVersion(&driver->version);
    if (result == CUDA_SUCCESS && driver->version < OLDEST_DRIVER)
        return rfa_fail(err, RFA_NO_DEVICE,
                        "the CUDA driver is too old: it is of version %d.%d, %d.%d is needed",
                        driver->version / 1000, driver->version % 1000 / 10, OLDEST_DRIVER / 1000,
                        OLDEST_DRIVER % 1000 / 10);
    if (result == CUDA_SUCCESS)
        result = driver->Init(0);
    if (result == CUDA_ERROR_NO_DEVICE)
        return RFA_OK; /* a driver without a card */
    if (result == CUDA_SUCCESS)
        result = driver->DeviceGetCount(&count);
    if (result != CUDA_SUCCESS) {
        const char *name = NULL;
        driver->GetErrorName(result, &name);
        return rfa_fail(err, RFA_NO_DEVICE, "the CUDA driver does not start: %s",
                        name ? name : "unknown error");
    }
    driver->devices = count;
    return RFA_OK;
}

static void load(void)
{
    rfa_error *err = &loaded.why;
    void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        loaded.status = rfa_fail(err, RFA_NO_DEVICE,
                                 "there is no NVIDIA driver: libcuda.so.1 cannot be loaded");
        return;
    }
    get_address_fn get = find_get_address(library);
    if (!get) {
        loaded.status =
            rfa_fail(err, RFA_NO_DEVICE, "the CUDA driver is too old: version %d.%d is needed",
                     OLDEST_DRIVER / 1000, OLDEST_DRIVER % 1000 / 10);
        return;
    }
    loaded.status = resolve(&loaded.driver, get, err);
    if (loaded.status == RFA_OK)
        loaded.status = start_driver(&loaded.driver, err);
}

rfa_status cuda_driver_load(const cuda_driver **driver, rfa_error *err)
{
    pthread_once(&loaded.once, load);
    *driver = &loaded.driver;
    if (loaded.status != RFA_OK)
        return rfa_fail(err, loaded.status, "%s", loaded.why.text);
    return RFA_OK;
}

static rfa_status status_of(CUresult result)
{
    switch (result) {
    case CUDA_SUCCESS: return RFA_OK;
    case CUDA_ERROR_OUT_OF_MEMORY: return RFA_OUT_OF_MEMORY;
    case CUDA_ERROR_NO_DEVICE:
    case CUDA_ERROR_INVALID_DEVICE:
    case CUDA_ERROR_DEVICE_UNAVAILABLE: return RFA_NO_DEVICE;
    default: return RFA_DEVICE_ERROR;
    }
}

/* Faults of kernels that ran before; the context is of no more use. */
static bool is_lasting(CUresult result)
{
    switch (result) {
    case CUDA_ERROR_ILLEGAL_ADDRESS:
    case CUDA_ERROR_ILLEGAL_INSTRUCTION:
    case CUDA_ERROR_MISALIGNED_ADDRESS:
    case CUDA_ERROR_INVALID_ADDRESS_SPACE:
    case CUDA_ERROR_INVALID_PC:
    case CUDA_ERROR_HARDWARE_STACK_ERROR:
    case CUDA_ERROR_ASSERT:
    case CUDA_ERROR_LAUNCH_FAILED:
    case CUDA_ERROR_LAUNCH_TIMEOUT:
    case CUDA_ERROR_ECC_UNCORRECTABLE: return true;
    default: return false;
    }
}

rfa_status cuda_check(const cuda_driver *driver, CUresult result, const char *what, rfa_error *err)
{
    const char *name = NULL, *text = NULL;
    if (result == CUDA_SUCCESS)
        return RFA_OK;
    driver->GetErrorName(result, &name);
    driver->GetErrorString(result, &text);
    return rfa_fail(err, status_of(result), "%s: %s (%s)%s", what, name ? name : "unknown error",
                    text ? text : "no description",
                    is_lasting(result) ? ", a fault of work queued earlier on this device" : "");
}
