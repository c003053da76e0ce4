/* The CUDA driver, loaded at run time: a machine without one loads this module
 * all the same and hears why there is no device. */
#ifndef RFA_CUDA_DRIVER_H
#define RFA_CUDA_DRIVER_H

#include <cuda.h>

#include "backends/backend.h"

/* Calls of the driver, named without their "cu". */
#define CUDA_DRIVER_CALLS(X)                                                                       \
    X(CtxPopCurrent)                                                                               \
    X(CtxPushCurrent)                                                                              \
    X(DeviceGet)                                                                                   \
    X(DeviceGetAttribute)                                                                          \
    X(DeviceGetCount)                                                                              \
    X(DeviceGetName)                                                                               \
    X(DevicePrimaryCtxRelease)                                                                     \
    X(DevicePrimaryCtxRetain)                                                                      \
    X(DeviceTotalMem)                                                                              \
    X(DriverGetVersion)                                                                            \
    X(EventCreate)                                                                                 \
    X(EventDestroy)                                                                                \
    X(EventElapsedTime)                                                                            \
    X(EventRecordWithFlags)                                                                        \
    X(EventSynchronize)                                                                            \
    X(FuncSetAttribute)                                                                            \
    X(GetErrorName)                                                                                \
    X(GetErrorString)                                                                              \
    X(Init)                                                                                        \
    X(LaunchKernel)                                                                                \
    X(MemAlloc)                                                                                    \
    X(MemFree)                                                                                     \
    X(MemcpyDtoHAsync)                                                                             \
    X(MemcpyHtoDAsync)                                                                             \
    X(ModuleGetFunction)                                                                           \
    X(ModuleLoadData)                                                                              \
    X(ModuleUnload)                                                                                \
    X(StreamIsCapturing)                                                                           \
    X(StreamSynchronize)                                                                           \
    X(StreamWaitEvent)                                                                             \
    X(TensorMapEncodeTiled)

typedef struct cuda_driver {
#define X(name) __typeof__(cu##name) *(name);
    CUDA_DRIVER_CALLS(X)
#undef X
    int version; /* 1000 major + 10 minor */
    int32_t devices;
} cuda_driver;

/* The driver, loaded and initialised once in the process. RFA_NO_DEVICE and a
 * sentence where there is none or an older one; 0 devices is RFA_OK. */
rfa_status cuda_driver_load(const cuda_driver **driver, rfa_error *err);

/* The status of what the driver call `what` answered, and a sentence. */
rfa_status cuda_check(const cuda_driver *driver, CUresult result, const char *what, rfa_error *err);

#endif
