#include "conformance/element.h"

#include <math.h>
#include <string.h>

#include "backends/half.h"

typedef struct format {
    const char *name;
    int bits, precision, min_exponent;
    uint8_t code;
} format;

static const format formats[] = {
    [RFA_F32] = {"f32", 32, 24, -126, kDLFloat},
    [RFA_F16] = {"f16", 16, 11, -14, kDLFloat},
    [RFA_BF16] = {"bf16", 16, 8, -126, kDLBfloat},
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

double element_load(rfa_dtype dtype, const void *element)
{
    uint16_t bits;
    float value;
    if (dtype == RFA_F32) {
        memcpy(&value, element, sizeof(value));
        return value;
    }
    memcpy(&bits, element, sizeof(bits));
    return dtype == RFA_F16 ? rfa_f16_to_f32(bits) : rfa_bf16_to_f32(bits);
}

void element_store(rfa_dtype dtype, void *element, double value)
{
    float single = (float)value;
    uint16_t bits = dtype == RFA_F16 ? rfa_f16_of_double(value) : rfa_bf16_of_double(value);
    memcpy(element, dtype == RFA_F32 ? (const void *)&single : &bits, element_size(dtype));
}
