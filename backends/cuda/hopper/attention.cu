/* The kernels by name: input type, head dim, walk, q rows of a work item. params.h says how
 * to launch them. */
#include "attention.cuh"

#define HOPPER_KERNEL(name, type, dim, mode, groups, varied)                                       \
    extern "C" __global__ void __launch_bounds__(HOPPER_THREADS(groups), 1)                        \
        name(const __grid_constant__ hopper_params p)                                              \
    {                                                                                              \
        attend<type, dim, mode, groups, varied>(p);                                                \
    }

#define HOPPER_SIZES(name, type, dim, mode)                                                        \
    HOPPER_KERNEL(name##_128, type, dim, mode, 2, false)                                           \
    HOPPER_KERNEL(name##_192, type, dim, mode, 3, false)                                           \
    HOPPER_KERNEL(name##_varied_192, type, dim, mode, 3, true)

#define HOPPER_MODES(name, type, dim)                                                              \
    HOPPER_SIZES(name##_dense, type, dim, WALK_DENSE)                                              \
    HOPPER_SIZES(name##_vote, type, dim, WALK_VOTE)                                                \
    HOPPER_SIZES(name##_measured, type, dim, WALK_MEASURED)                                        \
    HOPPER_SIZES(name##_estimated, type, dim, WALK_ESTIMATED)                                      \
    HOPPER_SIZES(name##_exact, type, dim, WALK_EXACT)

HOPPER_MODES(hopper_bf16_64, __nv_bfloat16, 64)
HOPPER_MODES(hopper_bf16_128, __nv_bfloat16, 128)
HOPPER_MODES(hopper_f16_64, __half, 64)
HOPPER_MODES(hopper_f16_128, __half, 128)
