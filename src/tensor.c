/* Checks of one DLTensor. */
#include "src/tensor.h"

static const char *code_name(unsigned code)
{
    switch (code) {
    case kDLInt: return "int";
    case kDLUInt: return "uint";
    case kDLFloat: return "float";
    case kDLBfloat: return "bfloat";
    }
    return "other";
}

/* Whether a backend on `device` can reach memory that a tensor says is on `at`. */
static bool reachable(DLDevice at, DLDevice device)
{
    if (device.device_type == kDLCPU)
        return at.device_type == kDLCPU || at.device_type == kDLCUDAHost ||
               at.device_type == kDLROCMHost;
    if (device.device_type == kDLCUDA && at.device_type == kDLCUDAManaged)
        return at.device_id == device.device_id;
    return at.device_type == device.device_type && at.device_id == device.device_id;
}

static int64_t compact_stride(const DLTensor *tensor, int axis)
{
    int64_t stride = 1;
    for (int i = tensor->ndim - 1; i > axis; i--)
        if (__builtin_mul_overflow(stride, tensor->shape[i], &stride))
            return -1;
    return stride;
}

int64_t rfa_tensor_stride(const DLTensor *tensor, int axis)
{
    if (tensor->shape[axis] == 1)
        return 0;
    return tensor->strides ? tensor->strides[axis] : compact_stride(tensor, axis);
}

static rfa_status check_shape(const DLTensor *t, const rfa_tensor_spec *spec, rfa_error *err)
{
    if (t->ndim != spec->ndim)
        return rfa_fail(err, RFA_INVALID_ARGUMENT, "%s has %d dimensions, expected %d", spec->name,
                        (int)t->ndim, spec->ndim);
    if (!t->shape)
        return rfa_fail(err, RFA_INVALID_ARGUMENT, "%s has no shape", spec->name);
    for (int i = 0; i < spec->ndim; i++) {
        if (t->shape[i] < 1)
            return rfa_fail(err, RFA_INVALID_ARGUMENT, "%s has length %lld in dimension %d",
                            spec->name, (long long)t->shape[i], i);
        if (spec->shape[i] >= 0 && t->shape[i] != spec->shape[i])
            return rfa_fail(err, RFA_INVALID_ARGUMENT,
                            "%s has length %lld in dimension %d, expected %lld", spec->name,
                            (long long)t->shape[i], i, (long long)spec->shape[i]);
    }
    return RFA_OK;
}

static rfa_status check_strides(const DLTensor *t, const rfa_tensor_spec *spec, rfa_error *err)
{
    int64_t last = 0, bytes = spec->bits / 8;
    for (int i = 0; i < spec->ndim; i++) {
        int64_t stride = rfa_tensor_stride(t, i), reach;
        if (stride < 0 && t->strides)
            return rfa_fail(err, RFA_UNSUPPORTED, "%s has stride %lld in dimension %d: negative",
                            spec->name, (long long)stride, i);
        if (i == spec->ndim - 1 && t->shape[i] > 1 && stride != 1)
            return rfa_fail(err, RFA_UNSUPPORTED, "%s has stride %lld in its last dimension, not 1",
                            spec->name, (long long)stride);
        if (stride < 0 || __builtin_mul_overflow(t->shape[i] - 1, stride, &reach) ||
            __builtin_add_overflow(last, reach, &last))
            return rfa_fail(err, RFA_INVALID_ARGUMENT, "%s is larger than 64 bits can count",
                            spec->name);
    }
    int64_t size;
    if (last == INT64_MAX || __builtin_mul_overflow(last + 1, bytes, &size) ||
        t->byte_offset > (uint64_t)INT64_MAX - (uint64_t)size)
        return rfa_fail(err, RFA_INVALID_ARGUMENT, "%s is larger than 64 bits can count",
                        spec->name);
    return RFA_OK;
}

/* Taken by rising stride, each axis must step over all that the ones before it
 * reach; then no two indices meet in one element. */
static bool elements_apart(const DLTensor *t)
{
    int axes[RFA_TENSOR_MAX_DIMS];
    int64_t reach = 0;
    for (int i = 0; i < t->ndim; i++) {
        int at = i;
        for (; at > 0 && rfa_tensor_stride(t, axes[at - 1]) > rfa_tensor_stride(t, i); at--)
            axes[at] = axes[at - 1];
        axes[at] = i;
    }
    for (int i = 0; i < t->ndim; i++) {
        int axis = axes[i];
        if (t->shape[axis] == 1)
            continue;
        if (rfa_tensor_stride(t, axis) <= reach)
            return false;
        reach += (t->shape[axis] - 1) * rfa_tensor_stride(t, axis);
    }
    return true;
}

static rfa_status check_memory(const DLTensor *t, const rfa_tensor_spec *spec, DLDevice device,
                               rfa_error *err)
{
    uint64_t bytes = spec->bits / 8;
    if (!t->data)
        return rfa_fail(err, RFA_INVALID_ARGUMENT, "%s has no data", spec->name);
    if (!reachable(t->device, device))
        return rfa_fail(err, RFA_INVALID_ARGUMENT,
                        "%s is on device type %d number %d, the context is on %d number %d",
                        spec->name, (int)t->device.device_type, (int)t->device.device_id,
                        (int)device.device_type, (int)device.device_id);
    uint64_t at = t->byte_offset;
    if (device.device_type != kDLOpenCL) /* there, data is a handle */
        at += (uintptr_t)t->data;
    if (at % bytes != 0)
        return rfa_fail(err, RFA_INVALID_ARGUMENT, "%s is not aligned to its element size %d",
                        spec->name, (int)bytes);
    if (spec->written && !elements_apart(t))
        return rfa_fail(err, RFA_INVALID_ARGUMENT,
                        "%s is an output and has strides by which elements share memory",
                        spec->name);
    return RFA_OK;
}

rfa_status rfa_tensor_check(const DLTensor *t, const rfa_tensor_spec *spec, DLDevice device,
                            rfa_error *err)
{
    if (!t)
        return rfa_fail(err, RFA_INVALID_ARGUMENT, "%s is NULL", spec->name);
    rfa_status status = check_shape(t, spec, err);
    if (status != RFA_OK)
        return status;
    if (t->dtype.code != spec->code || t->dtype.bits != spec->bits || t->dtype.lanes != 1)
        return rfa_fail(err, RFA_INVALID_ARGUMENT, "%s is %s%d x %d, expected %s%d", spec->name,
                        code_name(t->dtype.code), (int)t->dtype.bits, (int)t->dtype.lanes,
                        code_name(spec->code), (int)spec->bits);
    status = check_strides(t, spec, err);
    return status == RFA_OK ? check_memory(t, spec, device, err) : status;
}

rfa_status rfa_tensor_dtype(const DLTensor *t, const char *name, rfa_dtype *dtype, rfa_error *err)
{
    if (!t)
        return rfa_fail(err, RFA_INVALID_ARGUMENT, "%s is NULL", name);
    bool one = t->dtype.lanes == 1;
    if (one && t->dtype.code == kDLFloat && t->dtype.bits == 32)
        *dtype = RFA_F32;
    else if (one && t->dtype.code == kDLFloat && t->dtype.bits == 16)
        *dtype = RFA_F16;
    else if (one && t->dtype.code == kDLBfloat && t->dtype.bits == 16)
        *dtype = RFA_BF16;
    else
        return rfa_fail(err, RFA_UNSUPPORTED, "%s is %s%d x %d, expected f32, f16 or bf16", name,
                        code_name(t->dtype.code), (int)t->dtype.bits, (int)t->dtype.lanes);
    return RFA_OK;
}

rfa_tensor_spec rfa_tensor_spec_of(const char *name, rfa_dtype dtype, int ndim)
{
    rfa_tensor_spec spec = {.name = name, .ndim = ndim, .shape = {-1, -1, -1, -1}};
    spec.code = dtype == RFA_BF16 ? kDLBfloat : kDLFloat;
    spec.bits = dtype == RFA_F32 ? 32 : 16;
    return spec;
}

rfa_view rfa_tensor_view(const DLTensor *t, int batch, int head, int row)
{
    rfa_view view = {.data = t->data, .byte_offset = t->byte_offset};
    const int axes[3] = {batch, head, row};
    for (int i = 0; i < 3; i++)
        view.stride[i] = axes[i] < 0 ? 0 : rfa_tensor_stride(t, axes[i]);
    return view;
}
