/* Random numbers that are the same on every machine: splitmix64, and nothing of
 * the C library. */
#ifndef RFA_CONFORMANCE_RNG_H
#define RFA_CONFORMANCE_RNG_H

#include <stdbool.h>
#include <stdint.h>

typedef struct rng {
    uint64_t state;
} rng;

static inline uint64_t rng_mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static inline uint64_t rng_next(rng *r)
{
    r->state += 0x9e3779b97f4a7c15u;
    return rng_mix(r->state);
}

/* An independent stream for each (seed, tag). */
static inline rng rng_stream(uint64_t seed, uint64_t tag)
{
    rng r = {rng_mix(seed + 0x9e3779b97f4a7c15u) ^ rng_mix(~tag)};
    return r;
}

/* 0 .. n - 1; the bias of the modulus does not matter here. */
static inline int64_t rng_below(rng *r, int64_t n)
{
    return (int64_t)(rng_next(r) % (uint64_t)n);
}

static inline int64_t rng_between(rng *r, int64_t low, int64_t high)
{
    return low + rng_below(r, high - low + 1);
}

/* True once in n. */
static inline bool rng_once_in(rng *r, int64_t n)
{
    return rng_below(r, n) == 0;
}

static inline double rng_uniform(rng *r)
{
    return (double)(rng_next(r) >> 11) * 0x1p-53;
}

/* Mean 0, variance 1: a sum of four uniforms, which needs no log or cos. */
static inline double rng_normal(rng *r)
{
    double sum = rng_uniform(r) + rng_uniform(r);
    sum += rng_uniform(r) + rng_uniform(r);
    return (sum - 2) * 1.7320508075688772;
}

#endif
