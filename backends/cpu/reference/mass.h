/* Sums of exponentials, held as sum * exp(max), so that none overflows. */
#ifndef RFA_REFERENCE_MASS_H
#define RFA_REFERENCE_MASS_H

#include <math.h>

typedef struct mass {
    double max, sum; /* (-inf, 0): nothing */
} mass;

#define MASS_NONE ((mass){-INFINITY, 0})

/* Unlike fmax, lets a NaN through. */
static inline double larger(double x, double y)
{
    return x > y || isnan(x) ? x : y;
}

/* The mass relative to exp(reference). */
static inline double mass_at(mass x, double reference)
{
    return x.sum == 0 ? 0 : x.sum * exp(x.max - reference);
}

static inline mass mass_add(mass x, mass y)
{
    if (y.sum == 0)
        return x;
    double max = larger(x.max, y.max);
    return (mass){max, mass_at(x, max) + mass_at(y, max)};
}

static inline double mass_log(mass x)
{
    return x.sum == 0 ? -INFINITY : x.max + log(x.sum);
}

/* x / (x + y); 1 where neither has any mass. */
static inline double mass_share(mass x, mass y)
{
    double max = larger(x.max, y.max);
    double part = mass_at(x, max), rest = mass_at(y, max);
    return part + rest == 0 ? 1 : part / (part + rest);
}

#endif
