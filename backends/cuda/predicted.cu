/* The predicted order: masses of key blocks from means of 32 tokens.
 *
 * A block of threads takes one visit group after another. Eight pooled queries at
 * a time sit in shared memory; each thread scores pooled keys against them twice:
 * first for every row's max and sum, then, key block by key block, for the shares.
 * The shares of a key block belong to one thread, so sums have a fixed order. */
#include <float.h>

#include "device.cuh"

constexpr int THREADS = 256, WARPS = THREADS / WARP;
constexpr int ROWS = 8; /* pooled queries at a time */
constexpr int MAX_DIM = 256;
constexpr int SHARED_SORT = 4096; /* also in layout.c: longer lists sort in the workspace */

__host__ __device__ constexpr int pool_pitch(int dim)
{
    return (dim + 3) / 4 * 4;
}

/* ---- Pools ------------------------------------------------------------------------------ */

/* Pools of a batch entry start here; packs have one more for each sequence. */
__device__ static int64_t first_pool(const cuda_call &c, int64_t batch, int64_t first_row,
                                     int64_t count)
{
    return c.packed ? first_row / CUDA_POOL_ROWS + batch : batch * count;
}

__device__ static int64_t all_pools(const cuda_call &c, int64_t total, int64_t count)
{
    return c.packed ? total / CUDA_POOL_ROWS + c.batch : c.batch * count;
}

__device__ static float *key_pools(const cuda_call &c, const cuda_sequence &s, int64_t batch,
                                   int64_t head)
{
    int64_t row = head * all_pools(c, c.total_k, c.pool_count_k) +
                  first_pool(c, batch, s.first_k, c.pool_count_k);
    return c.pools_k + row * pool_pitch(c.dim);
}

__device__ static float *query_pools(const cuda_call &c, const cuda_sequence &s, int64_t batch,
                                     int64_t head)
{
    int64_t row = head * all_pools(c, c.total_q, c.pool_count_q) +
                  first_pool(c, batch, s.first_q, c.pool_count_q);
    return c.pools_q + row * pool_pitch(c.dim);
}

/* Rows are whole chunks of 16 bytes, zeros past their end: four elements at once. */
template <class T>
__device__ __forceinline__ static void pool_rows(const cuda_call &c, const cuda_rows &rows,
                                                 int64_t batch, int64_t head, int64_t first,
                                                 int64_t count, float *mean)
{
    struct alignas(4 * sizeof(T)) four {
        T x[4];
    };
    const T *from = row_at<const T>(rows, batch, head, first);
    for (int d = threadIdx.x % WARP * 4; d < pool_pitch(c.dim); d += WARP * 4) {
        float sum[4] = {0, 0, 0, 0};
#pragma unroll 8
        for (int i = 0; i < (int)count; i++) {
            four row = *(const four *)(from + i * rows.stride[2] + d);
#pragma unroll
            for (int j = 0; j < 4; j++)
                sum[j] += to_float(row.x[j]);
        }
#pragma unroll
        for (int j = 0; j < 4; j++)
            mean[d + j] = d + j < c.dim ? sum[j] / (float)count : 0;
    }
}

/* A warp for each (batch, kv head, key pool), then each (batch, head, query pool). */
extern "C" __global__ void rfa_pool_tokens(const __grid_constant__ cuda_call c)
{
    int64_t index = global_warp(), of_keys = c.batch * c.heads_kv * c.pool_count_k;
    bool keys = index < of_keys;
    place_of_head at = keys ? split_index(index, c.heads_kv, c.pool_count_k)
                            : split_index(index - of_keys, c.heads_q, c.pool_count_q);
    if (at.batch >= c.batch)
        return;
    const cuda_sequence s = c.sequence[sequence_index(c, at.batch)];
    int64_t begin = at.n * CUDA_POOL_ROWS, len = keys ? s.len_k : s.len_q;
    if (begin >= len)
        return;
    float *mean = keys ? key_pools(c, s, at.batch, at.head) : query_pools(c, s, at.batch, at.head);
    const cuda_rows &rows = keys ? c.seen_k : c.seen_q;
    int64_t first = (keys ? s.first_k : s.first_q) + begin;
    int64_t count = smaller(CUDA_POOL_ROWS, len - begin);
    mean += at.n * pool_pitch(c.dim);
    if (c.dtype == CUDA_F32)
        pool_rows<float>(c, rows, at.batch, at.head, first, count, mean);
    else if (c.dtype == CUDA_F16)
        pool_rows<__half>(c, rows, at.batch, at.head, first, count, mean);
    else
        pool_rows<__nv_bfloat16>(c, rows, at.batch, at.head, first, count, mean);
}

/* ---- Masses ------------------------------------------------------------------------------ */

struct pooled_queries {
    float q[ROWS][MAX_DIM];
    int visible[ROWS]; /* key pools that each row sees */
    float max[ROWS], inverse[ROWS];
    float warp_max[WARPS][ROWS], warp_sum[WARPS][ROWS];
};

struct group_at_hand {
    const float *queries, *keys; /* pools */
    int64_t len_k;
    int first, end; /* pooled rows of the group */
    int pools;      /* key pools that some row of it sees */
    int64_t blocks;
};

__device__ static void score_pool(const cuda_call &c, const pooled_queries &shared,
                                  const float *key, float (&score)[ROWS])
{
    for (int i = 0; i < ROWS; i++)
        score[i] = 0;
    for (int d = 0; d < pool_pitch(c.dim); d += 4) {
        float4 k = *(const float4 *)(key + d);
#pragma unroll
        for (int i = 0; i < ROWS; i++) {
            float4 q = *(const float4 *)&shared.q[i][d];
            score[i] = fmaf(q.w, k.w, fmaf(q.z, k.z, fmaf(q.y, k.y, fmaf(q.x, k.x, score[i]))));
        }
    }
}

/* Sum relative to max, of two such pairs; a max of -inf has no mass. */
__device__ static void add_masses(float &max, float &sum, float other_max, float other_sum)
{
    float top = larger(max, other_max), base = top == -INFINITY ? 0 : top;
    sum = sum * expf(max - base) + other_sum * expf(other_max - base);
    max = top;
}

__device__ static float pool_keys(const group_at_hand &g, int pool)
{
    return (float)smaller(CUDA_POOL_ROWS, g.len_k - (int64_t)pool * CUDA_POOL_ROWS);
}

__device__ static void load_pooled_rows(const cuda_call &c, const cuda_sequence &s,
                                        const group_at_hand &g, int first, pooled_queries &shared)
{
    int pitch = pool_pitch(c.dim);
    for (int i = threadIdx.x; i < ROWS * pitch; i += THREADS) {
        int row = i / pitch, d = i % pitch;
        bool there = first + row < g.end;
        shared.q[row][d] = there ? g.queries[(int64_t)(first + row) * pitch + d] * c.scale : 0;
    }
    if (threadIdx.x >= ROWS)
        return;
    int64_t last = smaller((int64_t)(first + threadIdx.x + 1) * CUDA_POOL_ROWS, s.len_q) - 1;
    int64_t keys = c.causal ? last + 1 + s.len_k - s.len_q : s.len_k;
    bool there = first + (int)threadIdx.x < g.end && keys > 0;
    shared.visible[threadIdx.x] = there ? (int)smaller(ceil_div(keys, CUDA_POOL_ROWS), g.pools) : 0;
}

/* Every row's max over its pools and the inverse of its mass; 0 for rows that see
 * nothing or whose scores are not finite. */
__device__ static void weigh_rows(const cuda_call &c, const group_at_hand &g,
                                  pooled_queries &shared)
{
    float max[ROWS], sum[ROWS], score[ROWS];
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
        max[i] = -INFINITY;
        sum[i] = 0;
    }
    for (int pool = threadIdx.x; pool < g.pools; pool += THREADS) {
        score_pool(c, shared, g.keys + (int64_t)pool * pool_pitch(c.dim), score);
#pragma unroll
        for (int i = 0; i < ROWS; i++)
            if (pool < shared.visible[i])
                add_masses(max[i], sum[i], score[i], pool_keys(g, pool));
    }
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
        for (int step = WARP / 2; step > 0; step /= 2) {
            float other_max = __shfl_xor_sync(ALL_LANES, max[i], step);
            float other_sum = __shfl_xor_sync(ALL_LANES, sum[i], step);
            add_masses(max[i], sum[i], other_max, other_sum);
        }
        if (lane == 0) {
            shared.warp_max[warp][i] = max[i];
            shared.warp_sum[warp][i] = sum[i];
        }
    }
    __syncthreads();
    if (threadIdx.x < ROWS) {
        float all_max = -INFINITY, all_sum = 0;
        for (int w = 0; w < WARPS; w++)
            add_masses(all_max, all_sum, shared.warp_max[w][threadIdx.x],
                       shared.warp_sum[w][threadIdx.x]);
        shared.max[threadIdx.x] = all_max;
        shared.inverse[threadIdx.x] = all_sum > 0 && all_sum <= FLT_MAX ? 1 / all_sum : 0;
    }
    __syncthreads();
}

/* Adds the rows' shares of every key block. */
__device__ static void add_shares(const cuda_call &c, const group_at_hand &g,
                                  const pooled_queries &shared, double *mass)
{
    int per_block = c.block_k / CUDA_POOL_ROWS;
    float score[ROWS];
    for (int64_t j = threadIdx.x; j < g.blocks; j += THREADS) {
        double sum = 0;
        int first = (int)j * per_block, end = (int)smaller(first + per_block, g.pools);
        for (int pool = first; pool < end; pool++) {
            score_pool(c, shared, g.keys + (int64_t)pool * pool_pitch(c.dim), score);
            float keys = pool_keys(g, pool);
#pragma unroll
            for (int i = 0; i < ROWS; i++)
                if (pool < shared.visible[i] && shared.inverse[i] > 0)
                    sum += (double)(expf(score[i] - shared.max[i]) * keys * shared.inverse[i]);
        }
        mass[j] += sum;
    }
}

/* ---- The list ------------------------------------------------------------------------------ */

/* Ascending; size is a power of two. */
__device__ static void bitonic_sort(uint64_t *keys, int64_t size)
{
    for (int64_t run = 2; run <= size; run *= 2) {
        for (int64_t step = run / 2; step > 0; step /= 2) {
            for (int64_t i = threadIdx.x; i < size / 2; i += THREADS) {
                int64_t low = i / step * 2 * step + i % step, high = low + step;
                uint64_t a = keys[low], b = keys[high];
                if ((a > b) == ((low & run) == 0)) {
                    keys[low] = b;
                    keys[high] = a;
                }
            }
            __syncthreads();
        }
    }
}

/* Best first, ties to the lower block. Masses are not negative, so that their
 * bits sort as they do. */
__device__ static void sort_blocks(const group_at_hand &g, uint64_t *keys)
{
    int64_t size = 1;
    while (size < g.blocks)
        size *= 2;
    for (int64_t j = threadIdx.x; j < size; j += THREADS) {
        uint64_t key = UINT64_MAX;
        if (j < g.blocks) {
            float mass = (float)(__longlong_as_double((long long)keys[j]) / (g.end - g.first));
            key = (uint64_t)~__float_as_uint(mass) << 32 | (uint64_t)j;
        }
        keys[j] = key;
    }
    __syncthreads();
    bitonic_sort(keys, size);
}

__device__ static void write_list(const cuda_call &c, const place_of_head &at, int64_t count,
                                  const uint64_t *keys)
{
    const cuda_lists &to = c.built;
    int32_t *index =
        to.index + at.batch * to.stride[0] + at.head * to.stride[1] + at.n * to.stride[2];
    float *mass = to.mass ? to.mass + at.batch * to.mass_stride[0] + at.head * to.mass_stride[1] +
                                at.n * to.mass_stride[2]
                          : nullptr;
    for (int64_t i = threadIdx.x; i < to.capacity; i += THREADS) {
        index[i] = i < count ? (int32_t)(uint32_t)keys[i] : -1;
        if (mass)
            mass[i] = i < count ? __uint_as_float(~(uint32_t)(keys[i] >> 32)) : 0;
    }
    if (threadIdx.x == 0)
        to.count[at.batch * to.count_stride[0] + at.head * to.count_stride[1] +
                 at.n * to.count_stride[2]] = (int32_t)count;
}

__device__ static group_at_hand find_group(const cuda_call &c, const cuda_sequence &s,
                                           const place_of_head &at)
{
    group_at_hand g;
    g.queries = query_pools(c, s, at.batch, at.head);
    g.keys = key_pools(c, s, at.batch, at.head / (c.heads_q / c.heads_kv));
    g.len_k = s.len_k;
    g.first = (int)(at.n * (c.visit_q / CUDA_POOL_ROWS));
    g.end = (int)smaller(g.first + c.visit_q / CUDA_POOL_ROWS, ceil_div(s.len_q, CUDA_POOL_ROWS));
    g.blocks = 0;
    if (g.first < g.end)
        g.blocks = rfa_visible_blocks(shape_of(c, s), (at.n + 1) * c.visit_q);
    g.pools =
        (int)smaller(g.blocks * (c.block_k / CUDA_POOL_ROWS), ceil_div(s.len_k, CUDA_POOL_ROWS));
    return g;
}

/* Blocks of THREADS threads take (batch, head, group) in turn; c.sort_workers of
 * them. */
extern "C" __global__ void __launch_bounds__(THREADS)
    rfa_predict_lists(const __grid_constant__ cuda_call c)
{
    __shared__ pooled_queries shared;
    __shared__ uint64_t shared_keys[SHARED_SORT];
    uint64_t *keys = c.sort ? c.sort + blockIdx.x * c.sort_size : shared_keys;
    for (int64_t task = blockIdx.x; task < c.batch * c.heads_q * c.groups; task += gridDim.x) {
        place_of_head at = split_index(task, c.heads_q, c.groups);
        const cuda_sequence s = c.sequence[sequence_index(c, at.batch)];
        group_at_hand g = find_group(c, s, at);
        for (int64_t j = threadIdx.x; j < g.blocks; j += THREADS)
            keys[j] = 0; /* the double 0 */
        for (int first = g.first; first < g.end && g.blocks > 0; first += ROWS) {
            __syncthreads();
            load_pooled_rows(c, s, g, first, shared);
            __syncthreads();
            weigh_rows(c, g, shared);
            add_shares(c, g, shared, (double *)keys);
        }
        __syncthreads();
        sort_blocks(g, keys);
        write_list(c, at, g.blocks, keys);
        __syncthreads();
    }
}
