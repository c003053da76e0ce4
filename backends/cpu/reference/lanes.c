#include <math.h>
#include <string.h>

#include "lanes.h"

/* Clones for wider vectors make the oracle 2.4 times as fast. They are static
 * because GCC exports a public one's resolver in spite of hidden visibility.
 * Resolvers run before a sanitizer is ready. GCC 12 at -O3 would unroll the loops over
 * lanes before it vectorises them, and then does not. */
#if defined(__GNUC__) && !defined(__clang__)
#define KEEP_LOOP _Pragma("GCC unroll 1")
#if defined(__x86_64__) && defined(__gnu_linux__) && defined(__GLIBC__) &&                         \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define CLONES __attribute__((target_clones("default", "avx2", "avx512f")))
#endif
#else
#define KEEP_LOOP
#endif
#ifndef CLONES
#define CLONES
#endif

static CLONES void dot_product(double *restrict dot, double *restrict size,
                               const double *restrict weights, const double *restrict lanes,
                               int64_t count)
{
    double sum[LANES] = {0}, sum_abs[LANES] = {0};
    for (int64_t i = 0; i < count; i++) {
        KEEP_LOOP
        for (int j = 0; j < LANES; j++) {
            double product = weights[i] * lanes[i * LANES + j];
            sum[j] += product;
            sum_abs[j] += fabs(product);
        }
    }
    memcpy(dot, sum, sizeof(sum));
    memcpy(size, sum_abs, sizeof(sum_abs));
}

static CLONES void add(double *restrict sum, const double *restrict weights,
                       const double *restrict lanes, int64_t count)
{
    double local[LANES];
    memcpy(local, sum, sizeof(local));
    for (int64_t i = 0; i < count; i++) {
        KEEP_LOOP
        for (int j = 0; j < LANES; j++)
            local[j] += weights[i] * lanes[i * LANES + j];
    }
    memcpy(sum, local, sizeof(local));
}

static CLONES void add_f32(float *restrict sum, const float *restrict weights,
                           const float *restrict lanes, int64_t count)
{
    float local[LANES];
    memcpy(local, sum, sizeof(local));
    for (int64_t i = 0; i < count; i++) {
        KEEP_LOOP
        for (int j = 0; j < LANES; j++)
            local[j] += weights[i] * lanes[i * LANES + j];
    }
    memcpy(sum, local, sizeof(local));
}

void lanes_dot(double *restrict dot, double *restrict size, const double *restrict weights,
               const double *restrict lanes, int64_t count)
{
    dot_product(dot, size, weights, lanes, count);
}

void lanes_add(double *restrict sum, const double *restrict weights, const double *restrict lanes,
               int64_t count)
{
    add(sum, weights, lanes, count);
}

void lanes_add_f32(float *restrict sum, const float *restrict weights, const float *restrict lanes,
                   int64_t count)
{
    add_f32(sum, weights, lanes, count);
}
