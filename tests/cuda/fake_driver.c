/* A libcuda.so.1 that runs nothing: it says what a test tells it to say, and counts
 * what it is asked, so that a machine without a card tells whether calls stay on
 * their stream, allocate, wait, or leave contexts behind. Its memory is the host's. */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <cuda.h>

#include "fake_driver.h"

__attribute__((visibility("default"))) fake_driver fake_cuda_driver;
#define self fake_cuda_driver

/* ---- Start, devices -------------------------------------------------------------------- */

static CUresult DriverGetVersion(int *version)
{
    *version = self.version;
    return CUDA_SUCCESS;
}

static CUresult Init(unsigned flags)
{
    (void)flags;
    return (CUresult)self.init;
}

static CUresult DeviceGetCount(int *count)
{
    *count = self.devices;
    return CUDA_SUCCESS;
}

static CUresult DeviceGet(CUdevice *device, int index)
{
    *device = index;
    return CUDA_SUCCESS;
}

static CUresult DeviceGetName(char *name, int size, CUdevice device)
{
    (void)device;
    strncpy(name, "no card", (size_t)size);
    return CUDA_SUCCESS;
}

static CUresult DeviceTotalMem(size_t *size, CUdevice device)
{
    (void)device;
    *size = (size_t)1 << 30;
    return CUDA_SUCCESS;
}

static CUresult DeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device)
{
    (void)device;
    switch (attribute) {
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: *value = self.capability / 10; break;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: *value = self.capability % 10; break;
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: *value = 4; break;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN: *value = self.shared; break;
    default: *value = 0;
    }
    return CUDA_SUCCESS;
}

static CUresult GetErrorName(CUresult error, const char **name)
{
    *name = error == CUDA_ERROR_ILLEGAL_ADDRESS ? "CUDA_ERROR_ILLEGAL_ADDRESS"
            : error == CUDA_ERROR_OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY"
                                                : "CUDA_ERROR_OTHER";
    return CUDA_SUCCESS;
}

static CUresult GetErrorString(CUresult error, const char **text)
{
    (void)error;
    *text = "as the test wished";
    return CUDA_SUCCESS;
}

/* ---- Contexts --------------------------------------------------------------------------- */

static CUresult DevicePrimaryCtxRetain(CUcontext *context, CUdevice device)
{
    (void)device;
    self.retained++;
    *context = (CUcontext)(void *)&self;
    return CUDA_SUCCESS;
}

static CUresult DevicePrimaryCtxRelease(CUdevice device)
{
    (void)device;
    self.retained--;
    return CUDA_SUCCESS;
}

static CUresult CtxPushCurrent(CUcontext context)
{
    (void)context;
    if (++self.depth > self.deepest)
        self.deepest = self.depth;
    return CUDA_SUCCESS;
}

static CUresult CtxPopCurrent(CUcontext *context)
{
    *context = (CUcontext)(void *)&self;
    self.unbalanced += self.depth <= 0;
    self.depth--;
    return CUDA_SUCCESS;
}

/* ---- Kernels ----------------------------------------------------------------------------- */

static CUresult ModuleLoadData(CUmodule *module, const void *image)
{
    (void)image;
    self.loads++;
    *module = (CUmodule)(void *)&self;
    return CUDA_SUCCESS;
}

static CUresult ModuleUnload(CUmodule module)
{
    (void)module;
    self.loads--;
    return CUDA_SUCCESS;
}

static CUresult ModuleGetFunction(CUfunction *function, CUmodule module, const char *name)
{
    (void)module;
    *function = (CUfunction)name;
    return CUDA_SUCCESS;
}

static CUresult FuncSetAttribute(CUfunction function, CUfunction_attribute attribute, int value)
{
    (void)function;
    (void)attribute;
    (void)value;
    return CUDA_SUCCESS;
}

static CUresult LaunchKernel(CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                             unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared,
                             CUstream stream, void **parameters, void **extra)
{
    bool sound = function && parameters && !extra && grid_x && grid_y && grid_z && block_y == 1 &&
                 block_z == 1 && block_x >= 1 && block_x <= 1024 && grid_y <= 65535 &&
                 grid_z <= 65535;
    self.launches++;
    self.last_grid = grid_x * grid_y * grid_z;
    self.last_kernel = (const char *)function;
    self.launches_elsewhere += (void *)stream != self.stream;
    self.unbalanced += self.depth <= 0;
    if (shared > self.most_shared)
        self.most_shared = shared;
    return sound ? (CUresult)self.launch : CUDA_ERROR_INVALID_VALUE;
}

static CUresult TensorMapEncodeTiled(CUtensorMap *map, CUtensorMapDataType type, cuuint32_t rank,
                                     void *address, const cuuint64_t *sizes,
                                     const cuuint64_t *strides, const cuuint32_t *box,
                                     const cuuint32_t *steps, CUtensorMapInterleave interleave,
                                     CUtensorMapSwizzle swizzle, CUtensorMapL2promotion promotion,
                                     CUtensorMapFloatOOBfill fill)
{
    bool sound = (size_t)address % 16 == 0 && rank == 4 && steps[0] == 1;
    (void)type;
    (void)interleave;
    (void)swizzle;
    (void)promotion;
    (void)fill;
    for (cuuint32_t i = 0; i < rank; i++)
        sound &= sizes[i] >= 1 && sizes[i] <= (cuuint64_t)1 << 32 && box[i] >= 1 && box[i] <= 256;
    for (cuuint32_t i = 0; i + 1 < rank; i++)
        sound &= strides[i] % 16 == 0 && strides[i] > 0 && strides[i] < (cuuint64_t)1 << 40;
    memset(map, 0, sizeof(*map));
    return sound ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/* ---- Memory, streams, events -------------------------------------------------------------- */

static CUresult MemAlloc(CUdeviceptr *address, size_t size)
{
    void *data = size > self.memory ? NULL : aligned_alloc(256, (size + 255) / 256 * 256);
    self.allocations++;
    *address = (CUdeviceptr)(size_t)data;
    return data ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

static CUresult MemFree(CUdeviceptr address)
{
    self.frees++;
    free((void *)(size_t)address);
    return CUDA_SUCCESS;
}

static CUresult MemcpyDtoHAsync(void *to, CUdeviceptr from, size_t size, CUstream stream)
{
    (void)stream;
    self.copies++;
    memcpy(to, (void *)(size_t)from, size);
    return CUDA_SUCCESS;
}

static CUresult MemcpyHtoDAsync(CUdeviceptr to, const void *from, size_t size, CUstream stream)
{
    (void)stream;
    self.copies++;
    memcpy((void *)(size_t)to, from, size);
    return CUDA_SUCCESS;
}

static CUresult StreamSynchronize(CUstream stream)
{
    (void)stream;
    self.waits++;
    return (CUresult)self.synchronize;
}

static CUresult StreamIsCapturing(CUstream stream, CUstreamCaptureStatus *status)
{
    (void)stream;
    *status = self.capturing ? CU_STREAM_CAPTURE_STATUS_ACTIVE : CU_STREAM_CAPTURE_STATUS_NONE;
    return CUDA_SUCCESS;
}

static CUresult StreamWaitEvent(CUstream stream, CUevent event, unsigned flags)
{
    (void)stream;
    (void)event;
    (void)flags;
    return CUDA_SUCCESS;
}

static CUresult EventCreate(CUevent *event, unsigned flags)
{
    (void)flags;
    *event = (CUevent)(void *)&self;
    return CUDA_SUCCESS;
}

static CUresult EventDestroy(CUevent event)
{
    (void)event;
    return CUDA_SUCCESS;
}

static CUresult EventRecordWithFlags(CUevent event, CUstream stream, unsigned flags)
{
    (void)event;
    (void)stream;
    (void)flags;
    return CUDA_SUCCESS;
}

static CUresult EventSynchronize(CUevent event)
{
    (void)event;
    self.waits++;
    return (CUresult)self.synchronize;
}

static CUresult EventElapsedTime(float *milliseconds, CUevent start, CUevent stop)
{
    (void)start;
    (void)stop;
    *milliseconds = 1;
    return CUDA_SUCCESS;
}

/* ---- The one entry -------------------------------------------------------------------------- */

#define CALL(name)                                                                                 \
    {                                                                                              \
        "cu" #name, (void (*)(void))(name)                                                         \
    }

static const struct {
    const char *name;
    void (*function)(void);
} calls[] = {
    CALL(CtxPopCurrent),
    CALL(CtxPushCurrent),
    CALL(DeviceGet),
    CALL(DeviceGetAttribute),
    CALL(DeviceGetCount),
    CALL(DeviceGetName),
    CALL(DevicePrimaryCtxRelease),
    CALL(DevicePrimaryCtxRetain),
    CALL(DeviceTotalMem),
    CALL(DriverGetVersion),
    CALL(EventCreate),
    CALL(EventDestroy),
    CALL(EventElapsedTime),
    CALL(EventRecordWithFlags),
    CALL(EventSynchronize),
    CALL(FuncSetAttribute),
    CALL(GetErrorName),
    CALL(GetErrorString),
    CALL(Init),
    CALL(LaunchKernel),
    CALL(MemAlloc),
    CALL(MemFree),
    CALL(MemcpyDtoHAsync),
    CALL(MemcpyHtoDAsync),
    CALL(ModuleGetFunction),
    CALL(ModuleLoadData),
    CALL(ModuleUnload),
    CALL(StreamIsCapturing),
    CALL(StreamSynchronize),
    CALL(StreamWaitEvent),
    CALL(TensorMapEncodeTiled),
};

__attribute__((visibility("default"))) CUresult
cuGetProcAddress_v2(const char *symbol, void **pfn, int cudaVersion, cuuint64_t flags,
                    CUdriverProcAddressQueryResult *symbolStatus)
{
    (void)cudaVersion;
    (void)flags;
    *pfn = NULL;
    *symbolStatus = CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
    for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
        if (strcmp(calls[i].name, symbol) != 0 || (self.lacks && strcmp(self.lacks, symbol) == 0))
            continue;
        memcpy(pfn, &calls[i].function, sizeof(*pfn));
        *symbolStatus = CU_GET_PROC_ADDRESS_SUCCESS;
        return CUDA_SUCCESS;
    }
    return CUDA_ERROR_NOT_FOUND;
}
