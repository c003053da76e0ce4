#define CALLS_FN static inline
#include "calls.h"

__kernel void shared_headers(float x, long n, __global const unsigned char *flags,
                             __global int *list, __global rfa_index *out)
{
    out[0] = call_skip_rule(x, n);
    out[1] = call_cube_order(n);
    out[2] = call_visit_order(flags, list);
}
