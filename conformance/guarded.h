/* Tensors on a device with guard regions before and after, for tests.
 *
 * The whole buffer is filled with a pattern first: guards, gaps between strided
 * rows, and the elements of outputs. In floating-point buffers the pattern is
 * made of NaNs, so that reading outside a tensor shows too. After a run nothing
 * may have changed but the elements that were opened for writing.
 */
#ifndef RFA_CONFORMANCE_GUARDED_H
#define RFA_CONFORMANCE_GUARDED_H

#include "backends/backend.h"

#define GUARDED_MAX_DIMS 4

typedef struct guarded_layout {
    DLDataType type;
    int32_t ndim;
    int64_t shape[GUARDED_MAX_DIMS];
    int64_t stride[GUARDED_MAX_DIMS]; /* elements */
    bool null_strides;                /* the tensor's strides are NULL: compact */
    int32_t shift;                    /* elements between the alignment of 256 and the first */
    bool bare_front; /* no guard before: where a handle cannot point inside a buffer */
} guarded_layout;

typedef struct guarded {
    DLTensor tensor; /* what calls are given; data NULL: not allocated */
    guarded_layout layout;
    rfa_context *ctx;
    size_t size;     /* of the buffer, guards and all */
    size_t first;    /* byte of the first element: tensor.byte_offset */
    uint8_t *image;  /* what the device was given */
    uint8_t *seen;   /* what it held when last read back */
    uint8_t *opened; /* by element from the buffer's start: may be written; NULL: none */
} guarded;

void guarded_compact(guarded_layout *layout);

/* Allocates on the context's device and fills the image with the pattern of
 * `nonce`. The struct must not move afterwards: tensor points into it. */
rfa_status guarded_alloc(guarded *g, rfa_context *ctx, const guarded_layout *layout, uint64_t nonce,
                         rfa_error *err);
void guarded_free(guarded *g);

/* The element's bytes in the image, or in what was read back. */
void *guarded_at(guarded *g, int64_t i, int64_t j, int64_t k, int64_t l);
const void *guarded_seen(const guarded *g, int64_t i, int64_t j, int64_t k, int64_t l);

/* Opens one element, or all, for writing. */
rfa_status guarded_open(guarded *g, int64_t i, int64_t j, int64_t k, int64_t l, rfa_error *err);
rfa_status guarded_open_all(guarded *g, rfa_error *err);

/* Fills the whole image anew; for outputs, before each run. */
void guarded_poison(guarded *g, uint64_t nonce);
rfa_status guarded_upload(guarded *g, rfa_error *err);
rfa_status guarded_download(guarded *g, rfa_error *err);

/* Whether what was read back is the image outside opened elements; if not,
 * writes where into `why`. */
bool guarded_intact(const guarded *g, char *why, size_t why_size);
/* Whether the opened elements of two readings have the same bits. `seen`: an
 * earlier copy of g->seen. */
bool guarded_same(const guarded *g, const uint8_t *seen, char *why, size_t why_size);

/* The same tensor over what was read back, on the host. */
DLTensor guarded_host(const guarded *g);

#endif
