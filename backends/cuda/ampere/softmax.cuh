/* The arithmetic of a visit of attention.cuh: scores, weights, values. */
#ifndef RFA_CUDA_AMPERE_SOFTMAX_CUH
#define RFA_CUDA_AMPERE_SOFTMAX_CUH

#include "walk.cuh"

namespace ampere
{

/* ---- Scores ---------------------------------------------------------------------------------- */

template <class T, int DIM, int TILE, bool CAUSAL, walk_mode MODE>
__device__ __forceinline__ void walk<T, DIM, TILE, CAUSAL, MODE>::multiply_keys(int part)
{
    int thread = thread_now(), own = thread & 31, swizzle = own % 8;
    int q_row = (thread >> 7) * BLOCK_Q + (thread >> 5 & 1) * WARP_ROWS + own % 16;
    int k_row = (thread >> 6 & 1) * WARP_KEYS + own % 8 + own / 16 * 8;
    uint32_t q =
        shared + at::q + q_row * at::q_pitch + part * at::pitch + ((own / 16 ^ swizzle) << 4);
    uint32_t k = slot_at(place.slot) + k_row * at::pitch + ((own / 8 % 2 ^ swizzle) << 4);
#pragma unroll
    for (int i = 0; i < 64 && part == 0; i++)
        score[i / 32][i / 4 % 8][i % 4] = 0;
#pragma unroll
    for (int step = 0; step < TILE / 16; step++) {
        uint32_t a[2][4], b[4];
        uint32_t mix = (step * 2 % 8) << 4, far = step / 4 * 128;
        load_matrices_at(a[0], (q ^ mix) + far);
        load_matrices_at(a[1], (q ^ mix) + far + 16 * at::q_pitch);
#pragma unroll
        for (int n = 0; n < 4; n++) {
            load_matrices_at(b, (k ^ mix) + far + n * 16 * at::pitch);
#pragma unroll
            for (int m = 0; m < 2; m++) {
                multiply_add(score[m][2 * n], a[m], b[0], b[1], T());
                multiply_add(score[m][2 * n + 1], a[m], b[2], b[3], T());
            }
        }
    }
}

template <class T, int DIM, int TILE, bool CAUSAL, walk_mode MODE>
__device__ __forceinline__ void walk<T, DIM, TILE, CAUSAL, MODE>::mask_past_end(int block)
{
    int keys = keys_of(block) - half_keys() * WARP_KEYS - lane() % 4 * 2;
    if (keys + lane() % 4 * 2 >= WARP_KEYS)
        return;
#pragma unroll
    for (int i = 0; i < 64; i++)
        if (i / 4 % 8 * 8 + i % 2 >= keys)
            score[i / 32][i / 4 % 8][i % 4] = -INFINITY;
}

/* The same, and what the mask hides. */
template <class T, int DIM, int TILE, bool CAUSAL, walk_mode MODE>
__device__ __forceinline__ void walk<T, DIM, TILE, CAUSAL, MODE>::mask_unseen(int block)
{
    if (keys_of_row(half_rows() * WARP_ROWS, block) >= (half_keys() + 1) * WARP_KEYS)
        return;
    const int before = half_keys() * WARP_KEYS + lane() % 4 * 2;
    const int end = keys_of(block) - before;
    const int seen = x.first_keys + group() * BLOCK_Q + warp_row(0) - block * BLOCK_K - before;
#pragma unroll
    for (int r = 0; r < 4; r++) {
        int keys = min(seen + r / 2 * 16 + r % 2 * 8, end);
#pragma unroll
        for (int i = 0; i < 16; i++)
            if (i / 2 * 8 + i % 2 >= keys)
                score[r / 2][i / 2][r % 2 * 2 + i % 2] = -INFINITY;
    }
}

template <class T, int DIM, int TILE, bool CAUSAL, walk_mode MODE>
__device__ __forceinline__ void walk<T, DIM, TILE, CAUSAL, MODE>::find_tops(float (&top)[4]) const
{
#pragma unroll
    for (int i = 0; i < 4; i++) {
        top[i] = larger(score[i / 2][0][i % 2 * 2], score[i / 2][0][i % 2 * 2 + 1]);
#pragma unroll
        for (int n = 1; n < 8; n++)
            top[i] =
                larger(top[i], larger(score[i / 2][n][i % 2 * 2], score[i / 2][n][i % 2 * 2 + 1]));
        top[i] = quad_max(top[i]);
    }
}

/* ---- Softmax and values ---------------------------------------------------------------------- */

/* Of 16 keys: scores become exp(S - m'), rounded; sums of this thread's columns. */
template <class T, int DIM, int TILE, bool CAUSAL, walk_mode MODE>
__device__ __forceinline__ void
walk<T, DIM, TILE, CAUSAL, MODE>::weigh(int step, const float (&offset)[4], float (&part)[4])
{
#pragma unroll
    for (int i = 0; i < 4; i++) {
#pragma unroll
        for (int n = 0; n < 2; n++) {
            const float *pair = &score[i / 2][2 * step + n][i % 2 * 2];
            float a = exp2_fast(fmaf(pair[0], factor(), -offset[i]));
            float b = exp2_fast(fmaf(pair[1], factor(), -offset[i]));
            part[i] += a + b;
            weight[step][i / 2][i % 2 + 2 * n] = pack(a, b, T());
        }
    }
}

template <class T, int DIM, int TILE, bool CAUSAL, walk_mode MODE>
__device__ __forceinline__ void
walk<T, DIM, TILE, CAUSAL, MODE>::find_offsets(const float (&next)[4], float (&offset)[4]) const
{
#pragma unroll
    for (int i = 0; i < 4; i++)
        offset[i] = (next[i] == -INFINITY ? 0 : next[i]) * factor();
}

/* What is there already is brought to the new maxima. */
template <class T, int DIM, int TILE, bool CAUSAL, walk_mode MODE>
__device__ __forceinline__ void walk<T, DIM, TILE, CAUSAL, MODE>::rescale(const float (&next)[4])
{
    float decay[4];
    bool same = true;
#pragma unroll
    for (int i = 0; i < 4; i++)
        same &= max[i] == next[i];
    if (!decides && __all_sync(ALL_LANES, same))
        return;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float reference = next[i] == -INFINITY ? 0 : next[i];
        decay[i] = exp2_fast((max[i] - reference) * factor());
        max[i] = next[i];
    }
    float4 &sum = x.sum[decides ? thread_now() : threadIdx.x];
    sum = {sum.x * decay[0], sum.y * decay[1], sum.z * decay[2], sum.w * decay[3]};
    if (decides && __all_sync(ALL_LANES, same)) /* sooner, it would spill */
        return;
#pragma unroll
    for (int i = 0; i < DIM; i++) {
        int m = i / (DIM / 2), e = i % 4;
        out[m][i / 4 % (DIM / 8)][e] *= decay[m * 2 + e / 2];
    }
}

template <class T, int DIM, int TILE, bool CAUSAL, walk_mode MODE>
__device__ __forceinline__ void walk<T, DIM, TILE, CAUSAL, MODE>::multiply_values(int step,
                                                                                  int part)
{
    int thread = thread_now(), own = thread & 31;
    int row = (thread >> 6 & 1) * WARP_KEYS + own % 16;
    uint32_t v = slot_at(place.slot) + row * at::pitch + ((own / 16 ^ own % 8) << 4);
#pragma unroll
    for (int d = 0; d < TILE / 16; d++) {
        uint32_t mix = (d * 2 % 8) << 4, far = d / 4 * 128, b[4];
        int column = part * (TILE / 8) + 2 * d; /* of 8 elements */
        load_matrices_transposed_at(b, (v ^ mix) + far + step * 16 * at::pitch);
#pragma unroll
        for (int m = 0; m < 2; m++) {
            multiply_add(out[m][column], weight[step][m], b[0], b[1], T());
            multiply_add(out[m][column + 1], weight[step][m], b[2], b[3], T());
        }
    }
}

} // namespace ampere

#endif
