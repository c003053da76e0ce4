#include <math.h>

#define CALLS_FN static inline
#include "calls.h"

int main(void)
{
    return call_skip_rule(0.5f, 1) < 0 || call_cube_order(0) != 3;
}
