/* The kernels by name: input type, head dim, walk. params.h says how to launch them. */
#include "attention.cuh"

#define HOPPER_KERNEL(name, type, dim, mode)                                                       \
    extern "C" __global__ void __launch_bounds__(HOPPER_THREADS, 1)                                \
        name(const __grid_constant__ hopper_params p)                                              \
    {                                                                                              \
        attend<type, dim, mode, false>(p);                                                         \
    }

#define HOPPER_PAIR(name, type, dim, mode)                                                         \
    HOPPER_KERNEL(name, type, dim, mode)                                                           \
    extern "C" __global__ void __launch_bounds__(HOPPER_THREADS, 1) __cluster_dims__(2, 1, 1)      \
        name##_pair(const __grid_constant__ hopper_params p)                                       \
    {                                                                                              \
        attend<type, dim, mode, true>(p);                                                          \
    }

#define HOPPER_MODES(kernel, name, type, dim)                                                      \
    kernel(name##_dense, type, dim, WALK_DENSE) kernel(name##_vote, type, dim, WALK_VOTE)          \
        kernel(name##_estimated, type, dim, WALK_ESTIMATED)                                        \
            kernel(name##_exact, type, dim, WALK_EXACT)

/* Pairs pay where tiles are large: at head dim 64 they took 3 % longer. */
HOPPER_MODES(HOPPER_PAIR, hopper_bf16_128, __nv_bfloat16, 128)
HOPPER_MODES(HOPPER_KERNEL, hopper_bf16_64, __nv_bfloat16, 64)
HOPPER_MODES(HOPPER_PAIR, hopper_f16_128, __half, 128)
HOPPER_MODES(HOPPER_KERNEL, hopper_f16_64, __half, 64)
