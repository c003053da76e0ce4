/* exp for arguments up to 0, as a loop that the compiler vectorises. */
#ifndef RFA_CPU_VEXP_H
#define RFA_CPU_VEXP_H

#include "convert.h"

/* Below this exp counts as 0: smaller weights would meet v as subnormals,
 * which cost a hundred cycles each, and no f32 sum that holds a 1 sees them. */
#define CPU_EXP_ZERO (-80.0f)

/* exp(x) for x <= 0 (and up to 88), within 1.1 units in the last place where x
 * >= CPU_EXP_ZERO, 0 below and for -inf, NaN for NaN. The polynomial's own
 * relative error is 3e-9 (found by a Remez exchange on +-ln 2 / 2). */
static inline float cpu_exp(float x)
{
    const float to_integer = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer */
    float shifted = x * 1.44269504f + to_integer;
    float n = shifted - to_integer;
    /* ln 2 in two parts, the first short enough that n times it is exact. */
    float r = (x - n * 0.693145752f) - n * 1.42860677e-6f;
    float tail = 0.00138145402f;
    tail = tail * r + 0.00836874511f;
    tail = tail * r + 0.0416683908f;
    tail = tail * r + 0.166665204f;
    tail = tail * r + 0.499999934f;
    float mantissa = (r * r) * tail + r + 1.0f;
    /* A product, not a sum of exponent bits: NaN must stay NaN. */
    float scale = cpu_float_of((cpu_bits_of(shifted) << 23) + (127u << 23));
    return x < CPU_EXP_ZERO ? 0.0f : mantissa * scale;
}

#endif
