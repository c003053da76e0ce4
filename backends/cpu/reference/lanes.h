/* The oracle's inner loops. Vectors are stored LANES at a time: element i of
 * LANES neighbouring keys (or LANES neighbouring dims of value i) lie together,
 * so that a compiler vectorises over lanes and every lane is a plain sum in
 * order of i, the same with any vector width. */
#ifndef RFA_REFERENCE_LANES_H
#define RFA_REFERENCE_LANES_H

#include <stdint.h>

#define LANES 16

static inline int64_t lanes_round_up(int64_t count)
{
    return (count + LANES - 1) / LANES * LANES;
}

/* dot[j] = sum_i weights[i] lanes[i][j]; size[j] = sum_i |weights[i] lanes[i][j]| */
void lanes_dot(double *restrict dot, double *restrict size, const double *restrict weights,
               const double *restrict lanes, int64_t count);

/* sum[j] += weights[i] lanes[i][j], i = 0, 1, ... */
void lanes_add(double *restrict sum, const double *restrict weights, const double *restrict lanes,
               int64_t count);
void lanes_add_f32(float *restrict sum, const float *restrict weights, const float *restrict lanes,
                   int64_t count);

#endif
