/* f16 and bf16: exact to f32; from double to nearest, ties to even, in one rounding.
 * In integers alone, so that every machine and rounding mode gives the same bits.
 * A kernel may have faster ones of its own. */
#ifndef RFA_HALF_H
#define RFA_HALF_H

#include <stdint.h>
#include <string.h>

static inline float rfa_f32_of_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

static inline float rfa_bf16_to_f32(uint16_t bits)
{
    return rfa_f32_of_bits((uint32_t)bits << 16);
}

static inline float rfa_f16_to_f32(uint16_t bits)
{
    uint32_t exponent = bits >> 10 & 31, mantissa = bits & 0x3ff;
    if (exponent == 0) {
        float size = (float)mantissa * 0x1p-24f;
        return bits & 0x8000 ? -size : size;
    }
    uint32_t wide = exponent == 31 ? 255 : exponent + 112; /* the bias is 127, not 15 */
    return rfa_f32_of_bits((uint32_t)(bits & 0x8000) << 16 | wide << 23 | mantissa << 13);
}

/* To a 16-bit format with `mantissa` stored bits and 15 - mantissa exponent bits. */
static inline uint16_t rfa_round_to_16(double x, int mantissa)
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

static inline uint16_t rfa_f16_of_double(double x)
{
    return rfa_round_to_16(x, 10);
}

static inline uint16_t rfa_bf16_of_double(double x)
{
    return rfa_round_to_16(x, 7);
}

#endif
