/* Rounding doubles to f32, f16 and bf16, and back. */
#include "tools/dtype.h"

#include <string.h>

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

/* To a 16-bit format with `mantissa` stored bits and 15 - mantissa exponent bits. */
static inline uint16_t round_to_16(double x, int mantissa)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof(bits));
    uint16_t sign = (uint16_t)(bits >> 48 & 0x8000);
    uint16_t infinity = (uint16_t)(0x7fff >> mantissa << mantissa);
    int min_exponent = 2 - (1 << (14 - mantissa));
    int exponent = (int)(bits >> 52 & 0x7ff) - 1023;
    if (exponent == 1024 && bits << 12)
        return (uint16_t)(sign | infinity | 1u << (mantissa - 1));

    int below = exponent < min_exponent ? min_exponent - exponent : 0;
    int shift = 52 - mantissa + below;
    if (shift > 53)
        return sign; /* below half of the smallest subnormal */
    uint64_t significand = (bits & UINT64_C(0xfffffffffffff)) | UINT64_C(1) << 52;
    uint64_t odd = significand >> shift & 1;
    uint64_t rounded = (significand + (UINT64_C(1) << (shift - 1)) - 1 + odd) >> shift;
    /* A carry out of the mantissa moves on into the exponent, as it should. */
    int64_t result = (int64_t)rounded;
    if (!below)
        result += (int64_t)(exponent - min_exponent) << mantissa;
    return (uint16_t)(sign | (result < infinity ? (uint16_t)result : infinity));
}

static float f16_to_f32(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000) << 16, exponent = half >> 10 & 31,
             mantissa = half & 0x3ff;
    float magnitude;
    if (exponent == 0) {
        magnitude = (float)mantissa * 0x1p-24f;
    } else {
        uint32_t wide = exponent == 31 ? 255 : exponent + 112;
        uint32_t bits = wide << 23 | mantissa << 13;
        memcpy(&magnitude, &bits, sizeof(magnitude));
    }
    uint32_t bits;
    memcpy(&bits, &magnitude, sizeof(bits));
    bits |= sign;
    memcpy(&magnitude, &bits, sizeof(magnitude));
    return magnitude;
}

static float bf16_to_f32(uint16_t value)
{
    uint32_t bits = (uint32_t)value << 16;
    float wide;
    memcpy(&wide, &bits, sizeof(wide));
    return wide;
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
            out[i] = round_to_16(src[i], 10);
    } else {
        uint16_t *out = dst;
        for (size_t i = 0; i < count; i++)
            out[i] = round_to_16(src[i], 7);
    }
}

void dtype_unpack_f32(rfa_dtype dtype, const void *src, size_t count, float *dst)
{
    const uint16_t *in = src;
    if (dtype == RFA_F32)
        memcpy(dst, src, count * sizeof(float));
    else if (dtype == RFA_F16)
        for (size_t i = 0; i < count; i++)
            dst[i] = f16_to_f32(in[i]);
    else
        for (size_t i = 0; i < count; i++)
            dst[i] = bf16_to_f32(in[i]);
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
