/* Status codes, error messages and versions of librfa. */
#ifndef RFA_BASE_H
#define RFA_BASE_H

#if defined(RFA_BUILDING_LIBRARY) && defined(__GNUC__)
#define RFA_API __attribute__((visibility("default")))
#else
#define RFA_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define RFA_VERSION_MAJOR 0
#define RFA_VERSION_MINOR 1
#define RFA_VERSION_PATCH 0

/* What every function of the library answers. RFA_OK is 0; the numbers are
 * part of the ABI and never change their meaning. */
typedef enum rfa_status {
    RFA_OK = 0,
    /* An argument is wrong whatever the device: shapes that do not match, a
     * recall outside (0, 1], a NULL where a tensor is needed. */
    RFA_INVALID_ARGUMENT = 1,
    /* A valid request that this backend or this version does not do. */
    RFA_UNSUPPORTED = 2,
    /* Host or device memory ran out, or the caller's workspace is too small. */
    RFA_OUT_OF_MEMORY = 3,
    /* No such backend, no such device, or its driver is missing. */
    RFA_NO_DEVICE = 4,
    /* The device or its driver failed, perhaps from earlier work. */
    RFA_DEVICE_ERROR = 5,
    /* A file could not be read, written or understood. */
    RFA_IO_ERROR = 6
} rfa_status;

/* The status's name, such as "invalid argument"; "unknown status" for any
 * other number. The string is static. */
RFA_API const char *rfa_status_name(rfa_status status);

typedef struct rfa_context rfa_context;

/* One sentence that says what was wrong with which argument in the last call
 * that failed on `ctx`; "" if none did. With NULL: the last failed call of the
 * calling thread, whatever its context, including calls that take none.
 * The string belongs to the library and is good until the next rfa call on the
 * same context (or, with NULL, from the same thread). */
RFA_API const char *rfa_last_error(const rfa_context *ctx);

/* The version of the library that is loaded, as "major.minor.patch"; compare
 * with RFA_VERSION_* of the headers. The string is static. */
RFA_API const char *rfa_version(void);

#ifdef __cplusplus
}
#endif
#endif
