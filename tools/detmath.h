/* exp, log, sin and cos that give the same bits on every machine.
 *
 * Only IEEE 754 double additions, multiplications and divisions in a written
 * order (the project is compiled without contraction), and no branches, so that
 * compilers vectorise the callers' loops. Good to about 1e-15; a test holds them
 * to 1e-14. Polynomials are plain Taylor series over reduced arguments. */
#ifndef RFA_TOOLS_DETMATH_H
#define RFA_TOOLS_DETMATH_H

#include <float.h>
#include <stdint.h>
#include <string.h>

/* 16 is 0 for machines that compute in f16 too. */
#if FLT_EVAL_METHOD != 0 && FLT_EVAL_METHOD != 16
#error "doubles must be rounded after every operation: on 32-bit x86 use -msse2 -mfpmath=sse"
#endif

static inline uint64_t det_bits(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof(bits));
    return bits;
}

static inline double det_from_bits(uint64_t bits)
{
    double x;
    memcpy(&x, &bits, sizeof(x));
    return x;
}

/* x + DET_ROUNDER has x rounded to an integer in its low bits, for |x| < 2^51. */
#define DET_ROUNDER 6755399441055744.0 /* 1.5 * 2^52 */

/* ln 2 in two parts; multiples of the first below 2^20 are exact. */
#define DET_LN2_HI 0x1.62e42fee00000p-1
#define DET_LN2_LO 0x1.a39ef35793c76p-33

/* For -700 <= x <= 700. */
static inline double det_exp(double x)
{
    double rounded = x * 0x1.71547652b82fep+0 + DET_ROUNDER;
    double k = rounded - DET_ROUNDER;
    double r = (x - k * DET_LN2_HI) - k * DET_LN2_LO;
    double p = 1.0 / 6227020800.0;
    p = p * r + 1.0 / 479001600.0;
    p = p * r + 1.0 / 39916800.0;
    p = p * r + 1.0 / 3628800.0;
    p = p * r + 1.0 / 362880.0;
    p = p * r + 1.0 / 40320.0;
    p = p * r + 1.0 / 5040.0;
    p = p * r + 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 0.5;
    p = p * r + 1.0;
    p = p * r + 1.0;
    return p * det_from_bits((det_bits(rounded) + 1023) << 52);
}

/* For normal x > 0. */
static inline double det_log(double x)
{
    /* x = 2^e m with sqrt(1/2) <= m < sqrt(2), about. */
    uint64_t bits = det_bits(x);
    uint64_t offset = bits - UINT64_C(0x3fe6a09e00000000);
    uint64_t biased = (offset >> 52) ^ 0x800; /* e + 2048: no negative shifts needed */
    double m = det_from_bits(bits - (offset & UINT64_C(0xfff0000000000000)));
    double e = det_from_bits(UINT64_C(0x4330000000000000) | biased) - (4503599627370496.0 + 2048.0);
    double s = (m - 1.0) / (m + 1.0);
    double z = s * s;
    double p = 1.0 / 23.0;
    p = p * z + 1.0 / 21.0;
    p = p * z + 1.0 / 19.0;
    p = p * z + 1.0 / 17.0;
    p = p * z + 1.0 / 15.0;
    p = p * z + 1.0 / 13.0;
    p = p * z + 1.0 / 11.0;
    p = p * z + 1.0 / 9.0;
    p = p * z + 1.0 / 7.0;
    p = p * z + 1.0 / 5.0;
    p = p * z + 1.0 / 3.0;
    p = p * z;
    return e * DET_LN2_HI + (e * DET_LN2_LO + 2.0 * (s + s * p));
}

/* sin and cos of 2 pi turns, |turns| < 2^48. The reduction is exact. */
static inline void det_sincos_turns(double turns, double *sine, double *cosine)
{
    double quarters = turns * 4.0;
    double rounded = quarters + DET_ROUNDER;
    uint64_t quadrant = det_bits(rounded);
    double x = (quarters - (rounded - DET_ROUNDER)) * 0x1.921fb54442d18p+0;
    double z = x * x;
    double s = 1.0 / 355687428096000.0;
    s = s * z - 1.0 / 1307674368000.0;
    s = s * z + 1.0 / 6227020800.0;
    s = s * z - 1.0 / 39916800.0;
    s = s * z + 1.0 / 362880.0;
    s = s * z - 1.0 / 5040.0;
    s = s * z + 1.0 / 120.0;
    s = s * z - 1.0 / 6.0;
    s = x + x * (z * s);
    double c = 1.0 / 20922789888000.0;
    c = c * z - 1.0 / 87178291200.0;
    c = c * z + 1.0 / 479001600.0;
    c = c * z - 1.0 / 3628800.0;
    c = c * z + 1.0 / 40320.0;
    c = c * z - 1.0 / 720.0;
    c = c * z + 1.0 / 24.0;
    c = c * z - 0.5;
    c = 1.0 + z * c;

    /* An odd quadrant swaps the two; sin is negative in 2 and 3, cos in 1 and 2. */
    uint64_t swap = 0 - (quadrant & 1);
    uint64_t s_bits = det_bits(s), c_bits = det_bits(c);
    uint64_t difference = (s_bits ^ c_bits) & swap;
    *sine = det_from_bits(s_bits ^ difference ^ ((quadrant & 2) << 62));
    *cosine = det_from_bits(c_bits ^ difference ^ (((quadrant + 1) & 2) << 62));
}

static inline double det_cos_turns(double turns)
{
    double sine, cosine;
    det_sincos_turns(turns, &sine, &cosine);
    return cosine;
}

#endif
