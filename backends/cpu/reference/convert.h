/* The three element types: reading rows of them as floats, rounding to them. */
#ifndef RFA_REFERENCE_CONVERT_H
#define RFA_REFERENCE_CONVERT_H

#include <math.h>
#include <string.h>

#include "backends/backend.h"

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

static inline float float_of_bits(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof(x));
    return x;
}

static inline float float_of_bf16(uint16_t h)
{
    return float_of_bits((uint32_t)h << 16);
}

static inline float float_of_f16(uint16_t h)
{
    uint32_t exponent = h & 0x7c00u, sign = (h & 0x8000u) << 16;
    float subnormal = (float)(h & 0x3ffu) * 0x1p-24f;
    uint32_t rebias = exponent == 0x7c00u ? 224u << 23 : 112u << 23;
    float normal = float_of_bits(((h & 0x7fffu) << 13) + rebias);
    float x = exponent == 0 ? subnormal : normal;
    return sign ? -x : x;
}

/* Rounds to nearest, ties to even, into an IEEE-like 16-bit format; straight
 * from double, so that nothing is rounded twice. */
static inline uint16_t half_of_double(double x, int mantissa_bits, int bias)
{
    uint16_t sign = signbit(x) ? 0x8000u : 0;
    uint16_t infinity = (uint16_t)(0x7fffu >> mantissa_bits << mantissa_bits);
    int exponent;
    if (isnan(x))
        return (uint16_t)(sign | infinity | 1u << (mantissa_bits - 1));
    double fraction = frexp(fabs(x), &exponent);
    int field = exponent - 1 + bias;
    if (isinf(x) || field >= 2 * bias + 1)
        return sign | infinity;
    if (x == 0)
        return sign;
    /* The sum carries into the exponent by itself, up to infinity. */
    double ulps = ldexp(fraction, mantissa_bits + 1 + (field < 1 ? field - 1 : 0));
    int64_t below = field < 1 ? 0 : (int64_t)(field - 1) << mantissa_bits;
    return (uint16_t)(sign | (uint16_t)(below + (int64_t)nearbyint(ulps)));
}

static inline uint16_t f16_of_double(double x)
{
    return half_of_double(x, 10, 15);
}

static inline uint16_t bf16_of_double(double x)
{
    return half_of_double(x, 7, 127);
}

static inline float round_to_dtype(rfa_dtype dtype, float x)
{
    if (dtype == RFA_F16)
        return float_of_f16(f16_of_double(x));
    if (dtype == RFA_BF16)
        return float_of_bf16(bf16_of_double(x));
    return x;
}

static inline void load_row(float *restrict to, rfa_dtype dtype, const void *from, int64_t count)
{
    const uint16_t *halves = from;
    switch (dtype) {
    case RFA_F32: memcpy(to, from, (size_t)count * sizeof(float)); break;
    case RFA_F16:
        for (int64_t i = 0; i < count; i++)
            to[i] = float_of_f16(halves[i]);
        break;
    case RFA_BF16:
        for (int64_t i = 0; i < count; i++)
            to[i] = float_of_bf16(halves[i]);
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
            halves[i] = dtype == RFA_F16 ? f16_of_double(from[i]) : bf16_of_double(from[i]);
    }
}

#endif
