#include <math.h>

#define CALLS_FN static inline
#include "calls.h"

int main(void)
{
    const unsigned char flags[6] = {RFA_BLOCK_SINK, 0, 0, 0, 0, 0};
    int list[6];
    return call_skip_rule(0.5f, 1) < 0 || call_cube_order(0) != 3 ||
           call_visit_order(flags, list) != 6 || list[0] != 2 || list[1] != 0;
}
