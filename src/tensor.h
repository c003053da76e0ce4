/* Checks of one DLTensor, and the view that backends get of it. */
#ifndef RFA_TENSOR_H
#define RFA_TENSOR_H

#include "backends/backend.h"

enum { RFA_TENSOR_MAX_DIMS = 4 };

/* What a tensor must be. shape: -1 where any positive length will do. */
typedef struct rfa_tensor_spec {
    const char *name;
    DLDataTypeCode code;
    uint8_t bits;
    int ndim;
    int64_t shape[RFA_TENSOR_MAX_DIMS];
    bool written; /* then no two elements may share memory */
} rfa_tensor_spec;

/* Checks everything but the meaning: rank, lengths, dtype, device, strides,
 * alignment, extents that fit in 64 bits. */
rfa_status rfa_tensor_check(const DLTensor *tensor, const rfa_tensor_spec *spec, DLDevice device,
                            rfa_error *err);

/* f32, f16 or bf16; RFA_UNSUPPORTED with a sentence otherwise. */
rfa_status rfa_tensor_dtype(const DLTensor *tensor, const char *name, rfa_dtype *dtype,
                            rfa_error *err);
rfa_tensor_spec rfa_tensor_spec_of(const char *name, rfa_dtype dtype, int ndim);

/* Stride of one axis in elements; 0 for an axis of length 1. */
int64_t rfa_tensor_stride(const DLTensor *tensor, int axis);

/* A view of a checked tensor whose batch, head and row axes are at the given
 * places; -1 for an axis it does not have. */
rfa_view rfa_tensor_view(const DLTensor *tensor, int batch, int head, int row);

#endif
