/* Softmax arithmetic of a warpgroup's 64 x 128 scores, laid out as wgmma.cuh says: a row's
 * four threads (a quad) hold 32 of its columns each, a thread has two rows. */
#ifndef RFA_HOPPER_SOFTMAX_CUH
#define RFA_HOPPER_SOFTMAX_CUH

#include "backends/cuda/numbers.cuh"
#include "wgmma.cuh"

template <typename T> __device__ __forceinline__ uint32_t pack(float low, float high)
{
    uint32_t both;
    if (is_bf16<T>)
        asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    else
        asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    return both;
}

template <typename T> __device__ __forceinline__ float2 unpack(uint32_t both)
{
    if (is_bf16<T>)
        return make_float2(__uint_as_float(both << 16), __uint_as_float(both & 0xffff0000u));
    const __half2 pair = *(const __half2 *)&both;
    return __half22float2(pair);
}

/* Of pairs: 0, or NaN once some x was an infinity or a NaN. */
template <typename T> __device__ __forceinline__ uint32_t add_zero_times(uint32_t x, uint32_t zeros)
{
    if (is_bf16<T>)
        asm("fma.rn.bf16x2 %0, %1, %2, %0;" : "+r"(zeros) : "r"(x), "r"(0));
    else
        asm("fma.rn.f16x2 %0, %1, %2, %0;" : "+r"(zeros) : "r"(x), "r"(0));
    return zeros;
}

/* Thread i's word j becomes thread j's word i, in every quad. quad: the thread's number in it. */
__device__ __forceinline__ void transpose_quad(uint32_t (&word)[4], int quad)
{
#pragma unroll
    for (int step = 1; step <= 2; step *= 2) {
        const bool upper = quad & step;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int low = step == 1 ? 2 * i : i, high = low + step;
            uint32_t given = upper ? word[low] : word[high];
            uint32_t got = __shfl_xor_sync(~0u, given, step);
            word[low] = upper ? got : word[low];
            word[high] = upper ? word[high] : got;
        }
    }
}

/* quad: the thread's number in its quad. */
__device__ __forceinline__ void mask_past_end(float (&score)[64], int keys, int quad)
{
    int left = keys - 2 * quad;
#pragma unroll
    for (int i = 0; i < 64; i++)
        if (i / 4 * 8 + i % 2 >= left)
            score[i] = -INFINITY;
}

/* keys: that each of the two rows sees. */
__device__ __forceinline__ void mask_unseen(float (&score)[64], const int (&keys)[2], int quad)
{
#pragma unroll
    for (int i = 0; i < 64; i++)
        if (i / 4 * 8 + i % 2 + 2 * quad >= keys[i / 2 % 2])
            score[i] = -INFINITY;
}

__device__ __forceinline__ void compare_maxima(const float (&score)[64], float (&top)[2])
{
#pragma unroll
    for (int r = 0; r < 2; r++) {
        float part[4] = {score[2 * r], score[2 * r + 1], score[2 * r + 4], score[2 * r + 5]};
#pragma unroll
        for (int j = 4; j < 32; j++)
            part[j % 4] = larger(part[j % 4], score[4 * (j / 2) + 2 * r + j % 2]);
        top[r] = quad_max(larger(larger(part[0], part[1]), larger(part[2], part[3])));
    }
}

/* Scores to 2^(score factor - offset), and their sums over the rows. */
__device__ __forceinline__ void exponentials(float (&score)[64], float factor,
                                             const float (&offset)[2], float (&mass)[2])
{
    constexpr int chains = 2; /* of additions a row; 4 were 3 % slower */
#pragma unroll
    for (int r = 0; r < 2; r++) {
        float sum[chains];
#pragma unroll
        for (int j = 0; j < 16; j++) { /* pairs, added up before they join: 1 to 2 % faster */
            float &x = score[4 * j + 2 * r], &y = score[4 * j + 2 * r + 1];
            x = exp2_fast(fmaf(x, factor, -offset[r]));
            y = exp2_fast(fmaf(y, factor, -offset[r]));
            sum[j % chains] = j < chains ? x + y : sum[j % chains] + (x + y);
        }
        mass[r] = quad_sum(sum[0] + sum[1]);
    }
}

#endif
