/* Tensors in the memory of a context, for the commands that compute. */
#ifndef RFA_TOOLS_DEVICE_TENSOR_H
#define RFA_TOOLS_DEVICE_TENSOR_H

#include "backends/backend.h"

/* A compact tensor on a device. `host` is a copy of what it holds, or NULL; on a
 * CPU device the two are the same memory. */
typedef struct device_tensor {
    DLTensor tensor;
    int64_t shape[4];
    size_t size; /* bytes */
    void *host;
    DLTensor host_tensor;
} device_tensor;

/* Turns a library status into the same with its sentence in *err. */
rfa_status device_status(rfa_context *ctx, rfa_status status, rfa_error *err);
/* rfa_backend_count, whose 0 does not tell a want of memory from a want of backends. */
rfa_status device_backends(size_t *count, rfa_error *err);

/* Allocates on the context's device; every length must be positive. */
rfa_status device_tensor_make(rfa_context *ctx, device_tensor *t, DLDataType dtype, int ndim,
                              const int64_t *shape, rfa_error *err);
/* Makes t->host hold what the device holds. Does nothing for an empty tensor. */
rfa_status device_tensor_fetch(rfa_context *ctx, device_tensor *t, rfa_error *err);
/* Also for an empty one, and twice. */
void device_tensor_free(rfa_context *ctx, device_tensor *t);

/* For arguments: the tensor on the device, or its copy; NULL if there is none. */
const DLTensor *device_tensor_there(device_tensor *t);
const DLTensor *device_tensor_here(device_tensor *t);

/* The tensors of one call of rfa_attention. cu_seqlens: of q and of k, or none. */
typedef struct attention_tensors {
    device_tensor q, k, v, cu_seqlens, out, lse, recall, decisions, visit_order, counts;
} attention_tensors;

/* Makes the outputs for q, k, v of the given axes and block sizes (all set), or of packed
 * sequences of the given longest lengths, and points args at all tensors; recall only if asked
 * for. */
rfa_status attention_tensors_make_outputs(rfa_context *ctx, attention_tensors *t,
                                          rfa_attention_args *args, bool recall, rfa_error *err);
/* Copies of everything, and args with every tensor replaced by its copy. */
rfa_status attention_tensors_fetch(rfa_context *ctx, attention_tensors *t, rfa_attention_args *args,
                                   rfa_error *err);
void attention_tensors_free_outputs(rfa_context *ctx, attention_tensors *t);
void attention_tensors_free(rfa_context *ctx, attention_tensors *t);

#endif
