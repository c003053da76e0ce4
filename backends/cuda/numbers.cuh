/* Arithmetic that the attention kernels share: instructions with names, and sums over the lanes
 * that hold one row, or a warp's 16 rows, of a tile laid out as mma.sync and wgmma lay out sums:
 * the four lanes of a quad hold a row's columns, a lane has two rows. Needs nothing of ours, so
 * that it can come before the skip rule. */
#ifndef RFA_CUDA_NUMBERS_CUH
#define RFA_CUDA_NUMBERS_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>

template <class T> constexpr bool is_bf16 = false;
template <> inline constexpr bool is_bf16<__nv_bfloat16> = true;

constexpr unsigned ALL_LANES = 0xffffffffu;
constexpr int WARP = 32;

/* Off by a unit in the last place, and 0 for what is next to infinity or subnormal: who divides
 * by masses keeps them from that. As RFA_RECIPROCAL of the fast kernels. */
__device__ __forceinline__ float reciprocal_fast(float x)
{
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

__device__ __forceinline__ float exp2_fast(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* max(x, y), or NaN where either is. */
__device__ __forceinline__ float larger(float x, float y)
{
    float z;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(z) : "f"(x), "f"(y));
    return z;
}

constexpr float LARGEST = 3.402823466e38f; /* finite number */

/* Over the four lanes of a quad, that hold one row. */
__device__ __forceinline__ float quad_sum(float x)
{
    x += __shfl_xor_sync(ALL_LANES, x, 1);
    return x + __shfl_xor_sync(ALL_LANES, x, 2);
}

__device__ __forceinline__ float quad_max(float x)
{
    x = larger(x, __shfl_xor_sync(ALL_LANES, x, 1));
    return larger(x, __shfl_xor_sync(ALL_LANES, x, 2));
}

/* Over a warp's 16 rows; x is the sum of a lane's two. */
__device__ __forceinline__ float rows_sum(float x)
{
    for (int step = 4; step < WARP; step *= 2)
        x += __shfl_xor_sync(ALL_LANES, x, step);
    return x;
}

#endif
