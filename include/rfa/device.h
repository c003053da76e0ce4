/* Backends, devices, contexts, and device memory. */
#ifndef RFA_DEVICE_H
#define RFA_DEVICE_H

#include <stddef.h>
#include <stdint.h>

#include <dlpack/dlpack.h>

#include <rfa/base.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Backends ----------------------------------------------------------
 * A backend is a module (a shared object named rfa_backend_*.so) that is
 * loaded at the first call that needs the list. Folders searched, in order:
 * the one named by RFA_BACKEND_PATH in the environment if set; the folder that
 * holds librfa; its subfolder "rfa"; if these two hold no module, the folder
 * chosen at installation. The current directory is never searched. The first
 * module of a name wins. */

typedef struct rfa_backend_info {
    /* "reference", "cpu", "cuda", ...; for a module that could not be loaded,
     * its file name; for a folder that could not be read, its path. */
    const char *name;
    /* Full path of the module or folder. */
    const char *path;
    /* RFA_OK if loaded; otherwise `why` says in one sentence why not. */
    rfa_status status;
    const char *why;
} rfa_backend_info;

/* How many modules were found, the unusable ones counted too. 0 also when memory
 * ran out, which rfa_backend_get then says; the next call looks again. */
RFA_API size_t rfa_backend_count(void);

/* Describes backend `index` of rfa_backend_count(). The strings belong to the
 * library and live until the process ends.
 * RFA_INVALID_ARGUMENT: no such index, or info is NULL. RFA_OUT_OF_MEMORY. */
RFA_API rfa_status rfa_backend_get(size_t index, rfa_backend_info *info);

/* ---- Devices ------------------------------------------------------------ */

/* Whether softmax weights are rounded to v's dtype before they meet v, as tensor
 * cores take them. Conformance judges errors by it. */
#define RFA_WEIGHTS_F16 1u  /* where v is f16 */
#define RFA_WEIGHTS_BF16 2u /* where v is bf16 */

typedef struct rfa_device_info {
    char name[128];        /* "NVIDIA H200", the processor's name, ... */
    char detail[128];      /* what the kernels were chosen by: ISA, compute capability */
    DLDevice device;       /* what tensors for this device carry */
    uint64_t memory;       /* bytes in all, 0 if not known */
    int32_t compute_units; /* cores, multiprocessors; 0 if not known */
    uint32_t weights;      /* RFA_WEIGHTS_*: set if any kernel that may be chosen rounds them */
    rfa_status status;     /* RFA_OK if usable; otherwise `why` says why not */
    char why[256];
} rfa_device_info;

/* How many devices backend `name` sees. 0 with RFA_OK is a fair answer (a
 * driver without a card); a missing driver is RFA_NO_DEVICE with a sentence.
 * RFA_INVALID_ARGUMENT: NULL. RFA_NO_DEVICE: no such backend. */
RFA_API rfa_status rfa_device_count(const char *name, int32_t *count);

/* Describes device `index` of backend `name`; errors as rfa_device_count, and
 * RFA_NO_DEVICE for an index it does not have. */
RFA_API rfa_status rfa_device_get(const char *name, int32_t index, rfa_device_info *info);

/* ---- Contexts ------------------------------------------------------------
 * A context binds one backend and one device and keeps what calls reuse. One
 * thread at a time may use a context; different contexts are independent. */

typedef struct rfa_context_options {
    size_t struct_size; /* set by RFA_CONTEXT_OPTIONS_INIT */
    /* Backend name. NULL: RFA_BACKEND from the environment; without it, the
     * first of cuda, hip, opencl, cpu that has a usable device. */
    const char *backend;
    /* Device index within the backend; -1 (default): the first usable one. */
    int32_t device;
    /* Threads for CPU backends; 0 (default): what OpenMP would use. Results
     * do not depend on it. */
    int32_t threads;
    /* OpenCL only: the caller's cl_context and cl_device_id, both or neither.
     * Borrowed; they must outlive the context. */
    void *opencl_context;
    void *opencl_device;
} rfa_context_options;

#ifdef __cplusplus
} /* extern "C" */
static inline rfa_context_options rfa_context_options_init()
{
    rfa_context_options options = rfa_context_options();
    options.struct_size = sizeof(options);
    options.device = -1;
    return options;
}
#define RFA_CONTEXT_OPTIONS_INIT rfa_context_options_init()
extern "C" {
#else
#define RFA_CONTEXT_OPTIONS_INIT                                                                   \
    {                                                                                              \
        .struct_size = sizeof(rfa_context_options), .device = -1                                   \
    }
#endif

/* Creates a context. `options` NULL means all defaults. On failure *ctx is
 * NULL and rfa_last_error(NULL) says why.
 * RFA_NO_DEVICE: no such backend or device, or none usable. RFA_UNSUPPORTED:
 * OpenCL handles given to another backend. RFA_OUT_OF_MEMORY. */
RFA_API rfa_status rfa_context_create(rfa_context **ctx, const rfa_context_options *options);

/* Destroys a context and its workspace, once work that uses that workspace is
 * over; waits for nothing else. Graphs captured without a workspace of the
 * caller's must not run any more. NULL is allowed. */
RFA_API void rfa_context_destroy(rfa_context *ctx);

/* The backend's name ("cpu") and the device that tensors must be on. */
RFA_API const char *rfa_context_backend(const rfa_context *ctx);
RFA_API DLDevice rfa_context_device(const rfa_context *ctx);
/* Describes that device as rfa_device_get does. RFA_INVALID_ARGUMENT: NULL.
 * RFA_UNSUPPORTED: the context was made from OpenCL handles. */
RFA_API rfa_status rfa_context_info(rfa_context *ctx, rfa_device_info *info);

/* ---- Device memory --------------------------------------------------------
 * For programs that want one code path for every backend. Callers that have
 * tensors already (PyTorch, CuPy, their own cudaMalloc) need none of it. */

/* Allocates `size` bytes (> 0), aligned to at least 256; *data is what goes
 * into DLTensor.data. RFA_OUT_OF_MEMORY when there is no room. */
RFA_API rfa_status rfa_device_alloc(rfa_context *ctx, size_t size, void **data);
/* Frees what rfa_device_alloc gave; NULL is allowed. */
RFA_API void rfa_device_free(rfa_context *ctx, void *data);
/* Copies `size` bytes between host memory and `data` + `offset`, after all earlier
 * work on `stream` (NULL: the default one); returns when the copy is done. */
RFA_API rfa_status rfa_device_write(rfa_context *ctx, void *data, size_t offset, const void *host,
                                    size_t size, void *stream);
RFA_API rfa_status rfa_device_read(rfa_context *ctx, const void *data, size_t offset, void *host,
                                   size_t size, void *stream);
/* Waits until `stream` (NULL: the context's default) has finished its work and
 * reports what failed in it. */
RFA_API rfa_status rfa_synchronize(rfa_context *ctx, void *stream);

/* ---- Timers ----------------------------------------------------------------
 * How long work on a stream takes, by the device's own clock, without what it
 * takes the host to queue it. On CPUs, the monotonic clock. */

typedef struct rfa_timer rfa_timer;

/* Creates a timer, which belongs to the context and must be destroyed before it.
 * On failure *timer is NULL. RFA_OUT_OF_MEMORY, RFA_DEVICE_ERROR. */
RFA_API rfa_status rfa_timer_create(rfa_context *ctx, rfa_timer **timer);
RFA_API void rfa_timer_destroy(rfa_timer *timer); /* NULL is allowed */
/* Queues the two ends of what is timed, both on the same stream. A timer may be
 * used again. RFA_UNSUPPORTED: a queue that keeps no time (OpenCL without
 * profiling). RFA_INVALID_ARGUMENT: NULL, or a stop without a start. */
RFA_API rfa_status rfa_timer_start(rfa_timer *timer, void *stream);
RFA_API rfa_status rfa_timer_stop(rfa_timer *timer, void *stream);
/* Waits until the stop has passed and gives the seconds between.
 * RFA_INVALID_ARGUMENT: NULL, or no start and stop before. */
RFA_API rfa_status rfa_timer_read(rfa_timer *timer, double *seconds);

#ifdef __cplusplus
}
#endif
#endif
