/* What librfa's own files share. */
#ifndef RFA_INTERNAL_H
#define RFA_INTERNAL_H

#include "backends/backend.h"

struct rfa_context {
    const rfa_backend *backend;
    void *state;
    int32_t device; /* its index; -1: given as OpenCL handles */
    rfa_error error;
};

/* Keeps the sentence of a failed call for rfa_last_error, on the context (which
 * may be NULL) and on the thread. Returns `status`. */
rfa_status rfa_record(rfa_context *ctx, rfa_status status, const rfa_error *err);

/* ---- registry.c ---- */

typedef struct rfa_module {
    char *name;
    char *path;
    rfa_status status;
    char *why;
    const rfa_backend *backend; /* NULL if unusable */
} rfa_module;

/* The modules found, loaded at the first call; never changes afterwards.
 * RFA_OUT_OF_MEMORY: none, and the next call tries again. */
rfa_status rfa_modules(const rfa_module **modules, size_t *count, rfa_error *err);
/* RFA_NO_DEVICE with a sentence when there is none of this name;
 * RFA_OUT_OF_MEMORY. */
rfa_status rfa_find_backend(const char *name, const rfa_backend **backend, rfa_error *err);

/* ---- module.c ---- */

/* Loads one file. On failure the sentence says why and nothing stays loaded. */
rfa_status rfa_module_load(const char *path, const rfa_backend **backend, rfa_error *err);

#endif
