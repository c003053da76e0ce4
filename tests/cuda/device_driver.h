/* What the tests on a card share: the driver, for what the library has no call for, and
 * small things. A test case is a function; test_device.c runs each in a process of its
 * own. */
#ifndef CUDA_DEVICE_DRIVER_H
#define CUDA_DEVICE_DRIVER_H

#include <stdbool.h>

#include <cuda.h>

#include <rfa/rfa.h>

enum { PASSED = 0, FAILED = 1, SKIPPED = 77 };

#define DEVICE_CALLS(X)                                                                            \
    X(CtxGetCurrent)                                                                               \
    X(CtxSetCurrent)                                                                               \
    X(DeviceGet)                                                                                   \
    X(DeviceGetCount)                                                                              \
    X(DevicePrimaryCtxRetain)                                                                      \
    X(GraphDestroy)                                                                                \
    X(GraphExecDestroy)                                                                            \
    X(GraphInstantiateWithFlags)                                                                   \
    X(GraphLaunch)                                                                                 \
    X(Init)                                                                                        \
    X(LaunchKernel)                                                                                \
    X(MemAlloc)                                                                                    \
    X(ModuleGetFunction)                                                                           \
    X(ModuleLoadData)                                                                              \
    X(StreamBeginCapture)                                                                          \
    X(StreamCreate)                                                                                \
    X(StreamDestroy)                                                                               \
    X(StreamEndCapture)                                                                            \
    X(StreamSynchronize)                                                                           \
    X(StreamWaitValue32)                                                                           \
    X(StreamWriteValue32)

typedef struct device_driver {
#define X(name) __typeof__(cu##name) *(name);
    DEVICE_CALLS(X)
#undef X
} device_driver;

extern device_driver cu;

/* Finds the calls and starts the driver. */
bool load_driver(void);

/* PASSED or FAILED, which a case joins by |; what does not hold goes to stderr. */
int expect(bool holds, const char *what);

/* The device's primary context, which the library uses too, becomes current here. */
CUcontext enter(int device);
rfa_context *open_context(int device);
CUstream make_stream(void);

/* ---- Cases of test_workspace.c: the context's own workspace ---- */

int two_streams(void);
int stream_that_goes(void);
int workspace_grows(void);
int capture_without_room(void);
int capture_of_own_workspace(void);
int timer(void);

#endif
