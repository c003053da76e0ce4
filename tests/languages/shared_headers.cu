#define CALLS_FN static __device__
#include "calls.h"

__global__ void shared_headers(float x, long n, const unsigned char *flags, int *list,
                               rfa_index *out)
{
    out[0] = call_skip_rule(x, n);
    out[1] = call_cube_order(n);
    out[2] = call_visit_order(flags, list);
}
