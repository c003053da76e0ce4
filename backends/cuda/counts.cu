/* rfa_counts of a call, by one block of threads in a fixed order. */
#include "device.cuh"

constexpr int THREADS = 512;

/* The layout of rfa_counts, which the host checks. */
struct counts_out {
    unsigned long long blocks_total, blocks_visited, blocks_kept;
    unsigned long long bad_knobs, bad_indices, bad_sequences;
    float recall_mean, recall_block_min;
    unsigned recall_kind, recall_scope;
};

struct sums {
    long long total, visited, kept, bad_knobs, bad_indices, bad_sequences, rows;
    double recall, recall_min;
};

__device__ static double smaller_or_nan(double x, double y)
{
    return x < y || x != x ? x : y;
}

__device__ static void add(sums &to, const sums &from)
{
    to.total += from.total;
    to.visited += from.visited;
    to.kept += from.kept;
    to.bad_knobs += from.bad_knobs;
    to.bad_indices += from.bad_indices;
    to.bad_sequences += from.bad_sequences;
    to.rows += from.rows;
    to.recall += from.recall;
    to.recall_min = smaller_or_nan(to.recall_min, from.recall_min);
}

/* There are fewer than 2^31 of them, and division is quicker so. */
__device__ static void add_blocks(const cuda_call &c, sums &sum)
{
    const uint32_t per_head = (uint32_t)c.blocks_q, heads = (uint32_t)c.heads_q;
    const uint32_t all = (uint32_t)(c.batch * c.heads_q * c.blocks_q);
    for (uint32_t i = threadIdx.x; i < all; i += THREADS) {
        uint32_t head = i / per_head, block = i - head * per_head;
        const cuda_sequence &s = c.sequence[c.packed ? head / heads : 0];
        int64_t len_q = s.len_q, row = (int64_t)block * c.block_q;
        int64_t rows = smaller(c.block_q, len_q - row);
        if (rows <= 0)
            continue;
        float recall = c.block_recall[i];
        sum.total += c.causal ? rfa_visible_blocks(shape_of(c, s), row + rows)
                              : (uint32_t)(s.len_k + c.block_k - 1) / (uint32_t)c.block_k;
        sum.visited += c.block_visits[i];
        sum.kept += c.block_kept[i];
        sum.rows += rows;
        sum.recall += (double)recall;
        sum.recall_min = smaller_or_nan(sum.recall_min, (double)recall / (double)rows);
    }
}

__device__ static void write_counts(const cuda_call &c, const sums &sum, counts_out *out)
{
    counts_out counts;
    counts.blocks_total = (unsigned long long)sum.total;
    counts.blocks_visited = (unsigned long long)sum.visited;
    counts.blocks_kept = (unsigned long long)sum.kept;
    counts.bad_knobs = (unsigned long long)sum.bad_knobs;
    counts.bad_indices = (unsigned long long)sum.bad_indices;
    counts.bad_sequences = (unsigned long long)sum.bad_sequences;
    counts.recall_mean = c.tracked ? (sum.rows ? (float)(sum.recall / (double)sum.rows) : 1) : NAN;
    counts.recall_block_min = c.tracked ? (float)sum.recall_min : NAN;
    counts.recall_kind = !c.tracked ? 0 : c.estimated ? 2 : 1;
    counts.recall_scope = sum.visited < sum.total;
    *out = counts;
}

extern "C" __global__ void __launch_bounds__(THREADS) rfa_count(const __grid_constant__ cuda_call c)
{
    __shared__ sums all[THREADS];
    sums sum = {0, 0, 0, 0, 0, 0, 0, 0, 1};
    add_blocks(c, sum);
    for (int64_t i = threadIdx.x; i < c.batch * c.heads_q; i += THREADS)
        sum.bad_knobs += c.rule != RFA_SKIP_DENSE && isnan(c.limits[i]);
    for (int64_t i = threadIdx.x; c.bad_indices && i < c.batch * c.heads_q * c.groups; i += THREADS)
        sum.bad_indices += c.bad_indices[i];
    for (int64_t i = threadIdx.x; c.packed && i < c.batch; i += THREADS)
        sum.bad_sequences += c.sequence[i].bad;
    all[threadIdx.x] = sum;
    for (int half = THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half)
            add(all[threadIdx.x], all[threadIdx.x + half]);
    }
    if (threadIdx.x == 0)
        write_counts(c, all[0], (counts_out *)c.counts);
}
