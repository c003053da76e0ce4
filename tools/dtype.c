/* Rounding doubles to f32, f16 and bf16, and back. */
#include "tools/dtype.h"

#include <string.h>

#include "backends/half.h"

const char *const dtype_names[] = {"f32", "f16", "bf16", NULL};

size_t dtype_size(rfa_dtype dtype)
{
    return dtype == RFA_F32 ? 4 : 2;
}

const char *dtype_name(rfa_dtype dtype)
{
    return dtype_names[dtype];
}

DLDataType dtype_dlpack(rfa_dtype dtype)
{
    DLDataType type = {dtype == RFA_BF16 ? kDLBfloat : kDLFloat, (uint8_t)(8 * dtype_size(dtype)),
                       1};
    return type;
}

void dtype_pack(rfa_dtype dtype, const double *src, size_t count, void *dst)
{
    if (dtype == RFA_F32) {
        float *out = dst;
        for (size_t i = 0; i < count; i++)
            out[i] = (float)src[i];
    } else if (dtype == RFA_F16) {
        uint16_t *out = dst;
        for (size_t i = 0; i < count; i++)
            out[i] = rfa_f16_of_double(src[i]);
    } else {
        uint16_t *out = dst;
        for (size_t i = 0; i < count; i++)
            out[i] = rfa_bf16_of_double(src[i]);
    }
}

void dtype_unpack_f32(rfa_dtype dtype, const void *src, size_t count, float *dst)
{
    const uint16_t *in = src;
    if (dtype == RFA_F32)
        memcpy(dst, src, count * sizeof(float));
    else if (dtype == RFA_F16)
        for (size_t i = 0; i < count; i++)
            dst[i] = rfa_f16_to_f32(in[i]);
    else
        for (size_t i = 0; i < count; i++)
            dst[i] = rfa_bf16_to_f32(in[i]);
}

void dtype_unpack(rfa_dtype dtype, const void *src, size_t count, double *dst)
{
    float part[256];
    size_t size = dtype_size(dtype);
    for (size_t done = 0; done < count; done += 256) {
        size_t n = count - done < 256 ? count - done : 256;
        dtype_unpack_f32(dtype, (const char *)src + done * size, n, part);
        for (size_t i = 0; i < n; i++)
            dst[done + i] = part[i];
    }
}
