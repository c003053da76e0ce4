/* How a walk of attention.cuh ends: the halves of the keys join, rows and recalls are written. */
#ifndef RFA_CUDA_AMPERE_FINISH_CUH
#define RFA_CUDA_AMPERE_FINISH_CUH

#include "walk.cuh"

namespace ampere
{

/* The partial sums over the upper half of the keys join those over the lower
 * one. True for the warps that then have the rows. */
template <class T, int DIM, int TILE, bool CAUSAL, walk_mode MODE>
__device__ __forceinline__ bool walk<T, DIM, TILE, CAUSAL, MODE>::join_halves(char *raw,
                                                                              float (&sum)[4])
{
    float *part = (float *)(raw + at::q);
    int slot = (group() * 2 + half_rows()) * WARP + lane(); /* of 64 GROUPS */
    constexpr int others = 64 * GROUPS;
#pragma unroll
    for (int i = 0; i < 4; i++)
        sum[i] = quad_sum((&x.sum[threadIdx.x].x)[i]);
    __syncthreads(); /* nobody needs the tiles any more */
    if (half_keys() == 1) {
#pragma unroll
        for (int i = 0; i < DIM; i++)
            part[i * others + slot] = out[i / (DIM / 2)][i / 4 % (DIM / 8)][i % 4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            part[(DIM + i) * others + slot] = max[i];
            part[(DIM + 4 + i) * others + slot] = sum[i];
        }
    }
    __syncthreads();
    if (half_keys() == 1)
        return false;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float other = part[(DIM + i) * others + slot], both = larger(max[i], other);
        float reference = both == -INFINITY ? 0 : both;
        float mine = exp2_fast((max[i] - reference) * factor());
        float theirs = exp2_fast((other - reference) * factor());
        sum[i] = sum[i] * mine + part[(DIM + 4 + i) * others + slot] * theirs;
        max[i] = both;
#pragma unroll
        for (int j = 0; j < DIM / 4; j++) {
            float &own = out[i / 2][j / 2][i % 2 * 2 + j % 2];
            int index = i / 2 * (DIM / 2) + j / 2 * 4 + i % 2 * 2 + j % 2;
            own = own * mine + part[index * others + slot] * theirs;
        }
    }
    return true;
}

template <class T, int DIM, int TILE, bool CAUSAL, walk_mode MODE>
__device__ __forceinline__ int64_t walk<T, DIM, TILE, CAUSAL, MODE>::caller_row(int row) const
{
    int64_t position = first_row() + group() * BLOCK_Q + row;
    const cuda_sequence &s = x.sequence;
    if (c.order_q)
        position = c.order_q[(c.one_order ? 0 : s.first_q) + position];
    return s.first_q + position;
}

template <class T, int DIM, int TILE, bool CAUSAL, walk_mode MODE>
template <class O>
__device__ __forceinline__ void walk<T, DIM, TILE, CAUSAL, MODE>::write_row(int i, int64_t row,
                                                                            float sum)
{
    O *to = row_at<O>(c.out, batch(), head(), row);
    float inverse = sum == 0 ? 0 : 1 / sum;
#pragma unroll
    for (int d = 0; d < DIM / 8; d++) {
        int element = d * 8 + lane() % 4 * 2;
        float a = out[i / 2][d][i % 2 * 2] * inverse, b = out[i / 2][d][i % 2 * 2 + 1] * inverse;
        if (element >= c.dim_v)
            continue;
        if (sizeof(O) == 4)
            *(float2 *)(to + element) = make_float2(a, b);
        else
            *(uint32_t *)(to + element) = pack(a, b, T());
    }
}

template <class T, int DIM, int TILE, bool CAUSAL, walk_mode MODE>
__device__ __forceinline__ void walk<T, DIM, TILE, CAUSAL, MODE>::write_rows(const float (&sum)[4])
{
#pragma unroll
    for (int i = 0; i < 4; i++) {
        if (warp_row(i) >= rows())
            continue;
        int64_t row = caller_row(warp_row(i));
        if (c.out_dtype == CUDA_F32)
            write_row<float>(i, row, sum[i]);
        else
            write_row<T>(i, row, sum[i]);
        if (c.lse.data && lane() % 4 == 0)
            row_at<float>(c.lse, batch(), head(), 0)[row] =
                sum[i] == 0 ? -INFINITY : max[i] * c.scale + logf(sum[i]);
    }
}

/* By one warp of the decision block. */
template <class T, int DIM, int TILE, bool CAUSAL, walk_mode MODE>
__device__ __forceinline__ void walk<T, DIM, TILE, CAUSAL, MODE>::report()
{
    float total = 0;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        int row = lane() + WARP * r;
        float recall = 1;
        if (row >= rows())
            continue;
        if (decides) {
            account a = known(row, x.visits - 1);
            if (MODE != WALK_EXACT && kept_last())
                decider_now().count(a, row, (x.visits - 1) % 2);
            recall = a.skipped == 0 ? 1 : a.kept / (a.kept + a.skipped);
        }
        total += recall;
        if (c.recall.data)
            row_at<float>(c.recall, batch(), head(), 0)[caller_row(row)] = recall;
    }
    total = warp_sum(total);
    if (lane() != 0 || q_block() >= c.blocks_q)
        return;
    c.block_kept[head_index() * c.blocks_q + q_block()] = x.kept[group()];
    c.block_recall[head_index() * c.blocks_q + q_block()] = total;
}

} // namespace ampere

#endif
