#include "conformance/element.h"

#include <math.h>
#include <string.h>

typedef struct format {
    const char *name;
    int bits, precision, min_exponent, max_exponent;
    uint8_t code;
} format;

static const format formats[] = {
    [RFA_F32] = {"f32", 32, 24, -126, 127, kDLFloat},
    [RFA_F16] = {"f16", 16, 11, -14, 15, kDLFloat},
    [RFA_BF16] = {"bf16", 16, 8, -126, 127, kDLBfloat},
};

size_t element_size(rfa_dtype dtype)
{
    return (size_t)formats[dtype].bits / 8;
}

DLDataType element_type(rfa_dtype dtype)
{
    return (DLDataType){formats[dtype].code, (uint8_t)formats[dtype].bits, 1};
}

const char *element_name(rfa_dtype dtype)
{
    return formats[dtype].name;
}

double element_ulp(rfa_dtype dtype, double value)
{
    const format *f = &formats[dtype];
    int exponent = f->min_exponent;
    if (value != 0 && isfinite(value) && ilogb(value) > exponent)
        exponent = ilogb(value);
    return ldexp(1.0, exponent - f->precision + 1);
}

static uint32_t f32_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    return bits;
}

static float f32_of_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

static float f16_load(uint16_t bits)
{
    uint32_t sign = (uint32_t)(bits & 0x8000) << 16, size = bits & 0x7fff;
    if (size >= 0x7c00)
        return f32_of_bits(sign | 0x7f800000 | (size & 0x3ff) << 13);
    /* The exponent's bias moves from 15 to 127; exact for subnormals too. */
    return f32_of_bits(sign | f32_bits(f32_of_bits(size << 13) * 0x1p112f));
}

double element_load(rfa_dtype dtype, const void *element)
{
    uint16_t bits;
    float value;
    if (dtype == RFA_F32) {
        memcpy(&value, element, sizeof(value));
        return value;
    }
    memcpy(&bits, element, sizeof(bits));
    return dtype == RFA_F16 ? f16_load(bits) : f32_of_bits((uint32_t)bits << 16);
}

/* `value` is one of f16's numbers. */
static uint16_t f16_bits(double value)
{
    unsigned sign = signbit(value) ? 0x8000 : 0;
    double size = fabs(value);
    if (isnan(value))
        return 0x7e00;
    if (isinf(value))
        return (uint16_t)(sign | 0x7c00);
    if (size < 0x1p-14)
        return (uint16_t)(sign | (unsigned)ldexp(size, 24));
    int exponent = ilogb(size);
    unsigned fraction = (unsigned)ldexp(size, 10 - exponent) - 1024;
    return (uint16_t)(sign | (unsigned)(exponent + 15) << 10 | fraction);
}

void element_store(rfa_dtype dtype, void *element, double value)
{
    if (isfinite(value)) {
        double ulp = element_ulp(dtype, value);
        value = copysign(rint(value / ulp) * ulp, value);
        if (value != 0 && ilogb(value) > formats[dtype].max_exponent)
            value = copysign(INFINITY, value);
    }
    float single = (float)value;
    uint16_t bits = dtype == RFA_F16 ? f16_bits(value) : (uint16_t)(f32_bits(single) >> 16);
    memcpy(element, dtype == RFA_F32 ? (const void *)&single : &bits, element_size(dtype));
}
