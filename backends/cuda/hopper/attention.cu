/* The kernels by name: input type, head dim, walk. params.h says how to launch them. */
#include "attention.cuh"

#define HOPPER_KERNEL(name, type, dim, mode)                                                       \
    extern "C" __global__ void __launch_bounds__(HOPPER_THREADS, 1)                                \
        name(const __grid_constant__ hopper_params p)                                              \
    {                                                                                              \
        attend<type, dim, mode, false>(p);                                                         \
    }                                                                                              \
    extern "C" __global__ void __launch_bounds__(HOPPER_THREADS, 1) __cluster_dims__(2, 1, 1)      \
        name##_pair(const __grid_constant__ hopper_params p)                                       \
    {                                                                                              \
        attend<type, dim, mode, true>(p);                                                          \
    }

#define HOPPER_MODES(name, type, dim)                                                              \
    HOPPER_KERNEL(name##_dense, type, dim, WALK_DENSE)                                             \
    HOPPER_KERNEL(name##_vote, type, dim, WALK_VOTE)                                               \
    HOPPER_KERNEL(name##_estimated, type, dim, WALK_ESTIMATED)                                     \
    HOPPER_KERNEL(name##_exact, type, dim, WALK_EXACT)

HOPPER_MODES(hopper_bf16_128, __nv_bfloat16, 128)
HOPPER_MODES(hopper_bf16_64, __nv_bfloat16, 64)
HOPPER_MODES(hopper_f16_128, __half, 128)
HOPPER_MODES(hopper_f16_64, __half, 64)
