/* Tensors in the memory of a context. */
#include "tools/device_tensor.h"

#include <stdlib.h>
#include <string.h>

rfa_status device_status(rfa_context *ctx, rfa_status status, rfa_error *err)
{
    if (status != RFA_OK)
        return rfa_fail(err, status, "%s", rfa_last_error(ctx));
    return RFA_OK;
}

rfa_status device_backends(size_t *count, rfa_error *err)
{
    rfa_backend_info info;
    *count = 0;
    if (rfa_backend_get(0, &info) == RFA_OUT_OF_MEMORY)
        return device_status(NULL, RFA_OUT_OF_MEMORY, err);
    *count = rfa_backend_count();
    return RFA_OK;
}

rfa_status device_tensor_make(rfa_context *ctx, device_tensor *t, DLDataType dtype, int ndim,
                              const int64_t *shape, rfa_error *err)
{
    size_t size = dtype.bits / 8;
    for (int i = 0; i < ndim; i++) {
        t->shape[i] = shape[i];
        if (__builtin_mul_overflow(size, (size_t)shape[i], &size))
            return rfa_fail(err, RFA_OUT_OF_MEMORY, "a tensor passes 2^64 bytes");
    }
    t->tensor = (DLTensor){
        .device = rfa_context_device(ctx), .ndim = ndim, .dtype = dtype, .shape = t->shape};
    t->size = size;
    rfa_status status = rfa_device_alloc(ctx, size, &t->tensor.data);
    if (t->tensor.device.device_type == kDLCPU)
        t->host = t->tensor.data;
    return device_status(ctx, status, err);
}

rfa_status device_tensor_fetch(rfa_context *ctx, device_tensor *t, rfa_error *err)
{
    if (!t->tensor.data || t->host == t->tensor.data)
        return RFA_OK;
    if (!t->host)
        t->host = malloc(t->size);
    if (!t->host)
        return rfa_fail(err, RFA_OUT_OF_MEMORY, "no memory for %zu bytes", t->size);
    return device_status(ctx, rfa_device_read(ctx, t->tensor.data, 0, t->host, t->size, NULL), err);
}

void device_tensor_free(rfa_context *ctx, device_tensor *t)
{
    if (t->host != t->tensor.data)
        free(t->host);
    rfa_device_free(ctx, t->tensor.data);
    *t = (device_tensor){0};
}

const DLTensor *device_tensor_there(device_tensor *t)
{
    return t->tensor.data ? &t->tensor : NULL;
}

const DLTensor *device_tensor_here(device_tensor *t)
{
    t->host_tensor = t->tensor;
    t->host_tensor.data = t->host;
    t->host_tensor.device = (DLDevice){kDLCPU, 0};
    return t->host ? &t->host_tensor : NULL;
}

/* ---- the tensors of a call ---- */

enum { INPUTS = 4, TENSORS = 10 };

static void list_tensors(attention_tensors *t, device_tensor *all[TENSORS])
{
    device_tensor *const tensors[TENSORS] = {
        &t->q,   &t->k,      &t->v,      &t->cu_seqlens, &t->out,
        &t->lse, &t->recall, &t->counts, &t->decisions,  &t->visit_order};
    memcpy(all, tensors, sizeof(tensors));
}

static void point_args(attention_tensors *t, rfa_attention_args *args,
                       const DLTensor *(*tensor_of)(device_tensor *))
{
    args->q = tensor_of(&t->q);
    args->k = tensor_of(&t->k);
    args->v = tensor_of(&t->v);
    args->cu_seqlens_q = args->cu_seqlens_k = tensor_of(&t->cu_seqlens);
    args->out = tensor_of(&t->out);
    args->lse = tensor_of(&t->lse);
    args->recall = tensor_of(&t->recall);
    args->decisions = tensor_of(&t->decisions);
    args->visit_order = tensor_of(&t->visit_order);
    args->counts = tensor_of(&t->counts);
}

static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* Shapes of outputs. */
typedef struct output_shapes {
    int64_t out[4], rows[3], bits[4], visits[4];
    int axes; /* of out; rows has one less */
} output_shapes;

static output_shapes shapes_of(const attention_tensors *t, const rfa_attention_args *args)
{
    bool packed = t->cu_seqlens.tensor.data != NULL;
    int row = args->axes == RFA_AXES_BHSD ? 2 : 1, head = 3 - row;
    const int64_t *q = t->q.shape;
    int64_t batch = packed ? t->cu_seqlens.shape[0] - 1 : q[0], heads = packed ? q[1] : q[head];
    int64_t len_q = packed ? args->max_len_q : q[row];
    int64_t blocks_k = ceil_div(packed ? args->max_len_k : t->k.shape[row], args->block_k);
    output_shapes s = {
        .out = {q[0], q[1], q[2], t->v.shape[3]},
        .rows = {batch, heads, len_q},
        .bits = {batch, heads, ceil_div(len_q, args->block_q), ceil_div(blocks_k, 32)},
        .visits = {batch, heads, ceil_div(len_q, args->visit_q), blocks_k},
        .axes = 4};
    if (packed) {
        s.out[2] = t->v.shape[2];
        s.rows[0] = heads;
        s.rows[1] = q[0];
        s.axes = 3;
    }
    return s;
}

rfa_status attention_tensors_make_outputs(rfa_context *ctx, attention_tensors *t,
                                          rfa_attention_args *args, bool recall, rfa_error *err)
{
    const DLDataType f32 = {kDLFloat, 32, 1}, i32 = {kDLInt, 32, 1};
    const DLDataType u32 = {kDLUInt, 32, 1}, u8 = {kDLUInt, 8, 1};
    const output_shapes s = shapes_of(t, args);
    const int64_t counts[1] = {(int64_t)sizeof(rfa_counts)};
    rfa_status status = device_tensor_make(ctx, &t->out, t->q.tensor.dtype, s.axes, s.out, err);
    if (status == RFA_OK)
        status = device_tensor_make(ctx, &t->lse, f32, s.axes - 1, s.rows, err);
    if (status == RFA_OK && recall)
        status = device_tensor_make(ctx, &t->recall, f32, s.axes - 1, s.rows, err);
    if (status == RFA_OK)
        status = device_tensor_make(ctx, &t->decisions, u32, 4, s.bits, err);
    if (status == RFA_OK)
        status = device_tensor_make(ctx, &t->visit_order, i32, 4, s.visits, err);
    if (status == RFA_OK)
        status = device_tensor_make(ctx, &t->counts, u8, 1, counts, err);
    point_args(t, args, device_tensor_there);
    return status;
}

rfa_status attention_tensors_fetch(rfa_context *ctx, attention_tensors *t, rfa_attention_args *args,
                                   rfa_error *err)
{
    device_tensor *all[TENSORS];
    list_tensors(t, all);
    for (int i = 0; i < TENSORS; i++) {
        rfa_status status = device_tensor_fetch(ctx, all[i], err);
        if (status != RFA_OK)
            return status;
    }
    point_args(t, args, device_tensor_here);
    return RFA_OK;
}

void attention_tensors_free_outputs(rfa_context *ctx, attention_tensors *t)
{
    device_tensor *all[TENSORS];
    list_tensors(t, all);
    for (int i = INPUTS; i < TENSORS; i++)
        device_tensor_free(ctx, all[i]);
}

void attention_tensors_free(rfa_context *ctx, attention_tensors *t)
{
    device_tensor *all[TENSORS];
    list_tensors(t, all);
    for (int i = 0; i < TENSORS; i++)
        device_tensor_free(ctx, all[i]);
}
