/* f16 and bf16 to and from f32, exact one way, to nearest even the other. */
#ifndef RFA_CPU_CONVERT_H
#define RFA_CPU_CONVERT_H

#include <stdint.h>
#include <string.h>

static inline uint32_t cpu_bits_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof(bits));
    return bits;
}

static inline float cpu_float_of(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof(x));
    return x;
}

static inline float cpu_from_bf16(uint16_t b)
{
    return cpu_float_of((uint32_t)b << 16);
}

/* Without branches, so that a loop of it vectorises, and without subnormal
 * operands, which are slow. */
static inline float cpu_from_half(uint16_t h)
{
    const uint32_t infinity = 0x0f800000, least = 113u << 23; /* 2^-14 */
    uint32_t magnitude = (uint32_t)(h & 0x7fff) << 13;
    uint32_t exponent = magnitude & infinity;
    uint32_t normal = magnitude + (112u << 23);
    /* A subnormal half counts units of 2^-24, as the mantissa of 2^-14 + x does. */
    float subnormal = cpu_float_of(magnitude + least) - cpu_float_of(least);
    uint32_t bits = exponent == infinity ? normal + (112u << 23) : normal;
    bits = exponent == 0 ? cpu_bits_of(subnormal) : bits;
    return cpu_float_of(bits | (uint32_t)(h & 0x8000) << 16);
}

static inline uint16_t cpu_to_bf16(float x)
{
    uint32_t bits = cpu_bits_of(x);
    if ((bits & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(bits >> 16 | 0x40); /* a NaN stays one */
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static inline uint16_t cpu_to_half(float x)
{
    uint32_t bits = cpu_bits_of(x), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000)
        return (uint16_t)(sign | 0x7e00);
    if (magnitude >= 143u << 23) /* 2^16 */
        return (uint16_t)(sign | 0x7c00);
    if (magnitude < 113u << 23) /* next to 1/2 a float's unit is a subnormal half's */
        return (uint16_t)(sign | (cpu_bits_of(cpu_float_of(magnitude) + 0.5f) - (126u << 23)));
    magnitude += 0xfff + (magnitude >> 13 & 1);
    return (uint16_t)(sign | (magnitude - (112u << 23)) >> 13);
}

#endif
