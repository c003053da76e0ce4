/* The three element types: reading rows of them as floats, rounding to them. */
#ifndef RFA_REFERENCE_CONVERT_H
#define RFA_REFERENCE_CONVERT_H

#include <string.h>

#include "backends/backend.h"
#include "backends/half.h"

static inline size_t element_size(rfa_dtype dtype)
{
    return dtype == RFA_F32 ? 4 : 2;
}

/* Where element 0 of (batch, head, row) lies, for elements of `size` bytes. */
static inline void *view_at(const rfa_view *view, size_t size, int64_t batch, int64_t head,
                            int64_t row)
{
    int64_t element = batch * view->stride[0] + head * view->stride[1] + row * view->stride[2];
    return (char *)view->data + view->byte_offset + element * (int64_t)size;
}

static inline float round_to_dtype(rfa_dtype dtype, float x)
{
    if (dtype == RFA_F16)
        return rfa_f16_to_f32(rfa_f16_of_double(x));
    if (dtype == RFA_BF16)
        return rfa_bf16_to_f32(rfa_bf16_of_double(x));
    return x;
}

static inline void load_row(float *restrict to, rfa_dtype dtype, const void *from, int64_t count)
{
    const uint16_t *halves = from;
    switch (dtype) {
    case RFA_F32: memcpy(to, from, (size_t)count * sizeof(float)); break;
    case RFA_F16:
        for (int64_t i = 0; i < count; i++)
            to[i] = rfa_f16_to_f32(halves[i]);
        break;
    case RFA_BF16:
        for (int64_t i = 0; i < count; i++)
            to[i] = rfa_bf16_to_f32(halves[i]);
        break;
    }
}

static inline void store_row(void *to, rfa_dtype dtype, const double *from, int64_t count)
{
    uint16_t *halves = to;
    float *floats = to;
    for (int64_t i = 0; i < count; i++) {
        if (dtype == RFA_F32)
            floats[i] = (float)from[i];
        else
            halves[i] = dtype == RFA_F16 ? rfa_f16_of_double(from[i]) : rfa_bf16_of_double(from[i]);
    }
}

#endif
