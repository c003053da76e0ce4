/* Attention on any card since Ampere.
 *
 * A block of threads walks the visit list of one decision block: up to 128 query
 * rows, 16 a warp, and blocks of up to BLOCK keys. Scores of a block (BLOCK / 8
 * tiles), outputs (WIDTH / 8 tiles) and the rows' state stay in registers; q and
 * one tile each of keys and values lie in shared memory. While values are
 * multiplied, the next keys arrive.
 *
 * Per visit: scores, row maxima, (exponentials,) decision, and if the block is
 * kept, values, (exponentials,) weights x values. A skipped block's values are
 * never loaded, and with estimated masses its exponentials never taken.
 *
 * SMALL: keys and values pass through one tile of 16 rows, for cards and types
 * where more does not fit. f32 has no tensor cores and takes multiply-adds.
 *
 * WIDTH: 64, 128 or 256, what dim and dim_v are padded to with zeros. */
#ifndef RFA_CUDA_ATTENTION_CUH
#define RFA_CUDA_ATTENTION_CUH

#include "rows.cuh"
#include "tile.cuh"

constexpr int MAX_THREADS = MAX_WARPS * WARP;
constexpr int STEP = 16; /* keys of one matrix instruction */

/* Also computed by variants.c. */
template <class T, int WIDTH, int BLOCK, bool SMALL> struct shared_tiles {
    static constexpr int pitch = WIDTH + PAD<T>;
    static constexpr int tile_rows = SMALL ? STEP : BLOCK;
    votes *vote;
    weight_tile *weights; /* by warp */
    T *q, *k, *v;

    __device__ explicit shared_tiles(char *raw)
    {
        vote = (votes *)raw;
        weights = (weight_tile *)(raw + 128);
        q = (T *)(weights + blockDim.x / WARP);
        k = q + blockDim.x / WARP * 16 * pitch;
        v = SMALL ? k : k + tile_rows * pitch;
    }
};
static_assert(sizeof(votes) <= 128 && sizeof(weight_tile) % 16 == 0, "shared memory's layout");

/* The decision block at hand, the same for all threads. */
struct decision_block {
    int64_t index; /* (batch, head, q block) */
    int64_t batch, head, head_kv, number;
    int64_t row; /* the first, of the sequence */
    int rows;
    int64_t visible; /* key blocks 0 .. visible - 1 hold unmasked pairs for it */
    const int32_t *list;
    const float *rest;
    const uint8_t *key_flags;
    int64_t listed; /* entries of the list */
    long visits;    /* N */
    bool dense;
    rfa_skip_rule rule;
    uint32_t *decisions; /* or NULL */
};

__device__ __forceinline__ decision_block find_block(const cuda_call &c, const cuda_sequence &s,
                                                     int64_t index)
{
    decision_block b;
    place_of_head at = split_index(index, c.heads_q, c.blocks_q);
    int64_t n = sequence_index(c, at.batch), head = at.batch * c.heads_q + at.head;
    b.index = index;
    b.batch = at.batch;
    b.head = at.head;
    b.head_kv = at.head / (c.heads_q / c.heads_kv);
    b.number = at.n;
    b.row = at.n * c.block_q;
    b.rows = (int)smaller(c.block_q, s.len_q - b.row);
    b.visible = rfa_visible_blocks(shape_of(c, s), b.row + c.block_q);
    int64_t group = b.row / c.visit_q;
    int64_t offset =
        element_offset(cuda_rows{nullptr, {c.list_stride[0], c.list_stride[1], c.list_stride[2]}},
                       at.batch, at.head, group);
    b.list = c.list + offset;
    b.rest = c.list_rest ? c.list_rest + offset : nullptr;
    b.key_flags = c.key_flags + n * c.blocks_k;
    b.listed = c.list_count[head * c.groups + group];
    b.visits = c.block_visits[index];
    b.rule.kind = c.rule;
    b.rule.limit = c.limits[head];
    b.rule.share = c.share;
    b.rule.pace = c.pace;
    b.rule.lean = {0, 0};
    b.dense = isnan(b.rule.limit) || c.dense_rows[n * c.blocks_q + at.n];
    b.decisions =
        c.decisions.data ? row_at<uint32_t>(c.decisions, at.batch, at.head, at.n) : nullptr;
    return b;
}

/* The first entry from `i` on that this block counts, or b.listed. */
__device__ __forceinline__ int64_t next_visit(const decision_block &b, int64_t i)
{
    while (i < b.listed && b.list[i] >= b.visible)
        i++;
    return i;
}

template <class T, int WIDTH, int BLOCK, bool SMALL> struct walk {
    using tiles = shared_tiles<T, WIDTH, BLOCK, SMALL>;
    static constexpr int pitch = tiles::pitch;
    static constexpr bool plain = sizeof(T) == 4;

    const cuda_call &c;
    const cuda_sequence &s;
    const decision_block &b;
    tiles shared;
    const T *keys, *values; /* of the head, first row of the sequence */
    const T *own_q;         /* the warp's rows in shared memory */
    row_state row[2];
    row_visit visit[2];
    bool there[2];
    int64_t first_seen[2]; /* keys that the row sees, of the sequence */
    float score[BLOCK / 8][4], out[WIDTH / 8][4];

    __device__ walk(const cuda_call &call, const cuda_sequence &sequence,
                    const decision_block &block, char *raw)
        : c(call), s(sequence), b(block), shared(raw)
    {
        keys = row_at<const T>(c.seen_k, b.batch, b.head_kv, s.first_k);
        values = row_at<const T>(c.seen_v, b.batch, b.head_kv, s.first_k);
        own_q = shared.q + threadIdx.x / WARP * 16 * pitch;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            int r = own_row(i);
            row[i] = {-INFINITY, 0, 0, 0, 0};
            there[i] = r < b.rows;
            first_seen[i] = c.causal ? b.row + r + 1 + s.len_k - s.len_q : s.len_k;
        }
#pragma unroll
        for (int d = 0; d < WIDTH / 8; d++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                out[d][e] = 0;
    }

    /* Of the decision block. */
    __device__ __forceinline__ int own_row(int i) const
    {
        return threadIdx.x / WARP * 16 + threadIdx.x % WARP / 4 + i * 8;
    }

    /* ---- loads ---- */

    __device__ __forceinline__ int keys_of(int64_t j) const
    {
        return (int)smaller(c.block_k, s.len_k - j * c.block_k);
    }

    __device__ __forceinline__ void load_queries()
    {
        const T *from = row_at<const T>(c.seen_q, b.batch, b.head, s.first_q + b.row);
        load_rows<T, WIDTH>(shared.q, from, c.seen_q.stride[2], b.rows, blockDim.x / WARP * 16,
                            dim_in_chunks(c.dim));
    }

    __device__ __forceinline__ static int dim_in_chunks(int dim)
    {
        constexpr int per = 16 / (int)sizeof(T);
        return (dim + per - 1) / per * per;
    }

    /* Rows first .. of key block j into `to`. */
    __device__ __forceinline__ void load_keys(int64_t j, int first, T *to)
    {
        const T *from = keys + (j * c.block_k + first) * c.seen_k.stride[2];
        load_rows<T, WIDTH>(to, from, c.seen_k.stride[2], keys_of(j) - first, tiles::tile_rows,
                            dim_in_chunks(c.dim));
    }

    __device__ __forceinline__ void load_values(int64_t j, int first, T *to)
    {
        const T *from = values + (j * c.block_k + first) * c.seen_v.stride[2];
        load_rows<T, WIDTH>(to, from, c.seen_v.stride[2], keys_of(j) - first, tiles::tile_rows,
                            dim_in_chunks(c.dim_v));
    }

    /* ---- scores ---- */

    /* The next 16 keys' tile, where tiles are small: loaded now. */
    __device__ __forceinline__ const T *key_step(int64_t j, int step)
    {
        if (!SMALL)
            return shared.k + step * STEP * pitch;
        __syncthreads();
        load_keys(j, step * STEP, shared.k);
        commit_copies();
        wait_copies<0>();
        __syncthreads();
        return shared.k;
    }

    __device__ __forceinline__ void score_block(int64_t j)
    {
        int count = keys_of(j);
#pragma unroll
        for (int n = 0; n < BLOCK / 8; n++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                score[n][e] = 0;
#pragma unroll
        for (int step = 0; step < BLOCK / STEP; step++) {
            if (step * STEP < count) {
                const T *k = key_step(j, step);
                add_scores<T, WIDTH>(score[2 * step], score[2 * step + 1], own_q, k, c.dim);
            }
        }
    }

    /* Scales and masks, and finds the rows' maxima. True if some row that exists
     * does not see all of the block's keys. */
    __device__ __forceinline__ bool finish_scores(int64_t j)
    {
        int count = keys_of(j), t = threadIdx.x % 4;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            int64_t seen = smaller(first_seen[i] - j * c.block_k, count);
            visit[i].seen = seen > 0 ? (int)seen : 0;
            visit[i].top = -INFINITY;
        }
#pragma unroll
        for (int n = 0; n < BLOCK / 8; n++) {
#pragma unroll
            for (int e = 0; e < 4; e++) {
                bool sees = n * 8 + 2 * t + e % 2 < visit[e / 2].seen;
                score[n][e] = sees ? c.scale * score[n][e] : -INFINITY;
                visit[e / 2].top = larger(visit[e / 2].top, score[n][e]);
            }
        }
#pragma unroll
        for (int i = 0; i < 2; i++) {
            visit[i].top = quad_max(visit[i].top);
            compare_maxima(row[i], visit[i]);
        }
        return c.causal && b.row + 1 + s.len_k - s.len_q - j * c.block_k < count;
    }

    /* Scores become exp(S - m'), and their sums the rows' masses. */
    __device__ __forceinline__ void weigh()
    {
        float sum[2] = {0, 0};
#pragma unroll
        for (int n = 0; n < BLOCK / 8; n++) {
#pragma unroll
            for (int e = 0; e < 4; e++) {
                score[n][e] = exponential<T>(score[n][e] - visit[e / 2].reference);
                sum[e / 2] += score[n][e];
            }
        }
        visit[0].mass = quad_sum(sum[0]);
        visit[1].mass = quad_sum(sum[1]);
    }

    /* ---- values ---- */

    __device__ __forceinline__ void add_step(int step, const T *v, bool by_key)
    {
        float(&w0)[4] = score[2 * step];
        float(&w1)[4] = score[2 * step + 1];
        if constexpr (!plain) {
            if (!by_key) {
                add_values<T, WIDTH>(out, w0, w1, v, c.dim_v);
                return;
            }
        }
        const int seen[2] = {visit[0].seen - step * STEP, visit[1].seen - step * STEP};
        add_values_plain<T, WIDTH>(out, w0, w1, v, c.dim_v, seen,
                                   shared.weights[threadIdx.x / WARP]);
    }

    /* Values are in shared memory, or, where tiles are small, loaded on the way.
     * Where the mask hides a value that is not finite, 0 times it would not be 0. */
    __device__ __forceinline__ void accumulate(int64_t j, bool partly_masked)
    {
        int count = keys_of(j);
        bool by_key = false;
#pragma unroll
        for (int d = 0; d < WIDTH / 8; d++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                out[d][e] *= visit[e / 2].decay;
        if (!SMALL && partly_masked)
            by_key = __syncthreads_or(any_special<T, WIDTH>(shared.v, count));
#pragma unroll
        for (int step = 0; step < BLOCK / STEP; step++) {
            if (step * STEP < count) {
                const T *v = shared.v + (SMALL ? 0 : step * STEP * pitch);
                if (SMALL) {
                    __syncthreads();
                    load_values(j, step * STEP, shared.v);
                    commit_copies();
                    wait_copies<0>();
                    __syncthreads();
                    if (partly_masked && !plain)
                        by_key = __syncthreads_or(any_special<T, WIDTH>(v, STEP));
                }
                add_step(step, v, by_key);
            }
        }
    }

    /* ---- a visit ---- */

    /* Entry i of the list, the n-th that counts; its keys are on their way, and
     * those of `next` set out. Returns whether it was kept. */
    __device__ __forceinline__ bool take(int64_t i, int64_t next, long n)
    {
        int64_t j = b.list[i];
        bool keep = n == 0 || b.dense || (b.key_flags[j] & RFA_BLOCK_ALWAYS_KEEP);
        bool decided = keep;
        wait_copies<0>();
        __syncthreads();
        score_block(j);
        bool partly_masked = finish_scores(j);
        float rest = b.rest ? b.rest[i] : RFA_NO_PREDICTION;
        if (!decided && !c.exact) {
            if (c.estimated) {
                estimate_mass(row[0], visit[0]);
                estimate_mass(row[1], visit[1]);
            }
            keep = !rule_skips(b.rule, row, visit, there, b.rows, n, b.visits, rest, *shared.vote);
            decided = true;
        }
        if (keep || !decided)
            weigh();
        if (!decided)
            keep = !rule_skips(b.rule, row, visit, there, b.rows, n, b.visits, rest, *shared.vote);
        else
            __syncthreads(); /* the keys have been read */
        if (!SMALL && keep) {
            load_values(j, 0, shared.v);
            commit_copies();
        }
        if (!SMALL && next < b.listed)
            load_keys(b.list[next], 0, shared.k);
        commit_copies();
        if (keep) {
            wait_copies<1>();
            __syncthreads();
            accumulate(j, partly_masked);
        }
#pragma unroll
        for (int r = 0; r < 2; r++) {
            if (keep)
                row_kept(row[r], visit[r], c.estimated);
            else if (c.exact || c.estimated)
                row_skipped(row[r], visit[r]);
        }
        if (keep && b.decisions && threadIdx.x == 0)
            atomicOr(&b.decisions[j / 32], 1u << (j % 32));
        return keep;
    }

    /* ---- results ---- */

    __device__ __forceinline__ int64_t caller_row(int i) const
    {
        int64_t position = b.row + own_row(i);
        if (c.order_q)
            position = c.order_q[(c.one_order ? 0 : s.first_q) + position];
        return s.first_q + position;
    }

    template <class O> __device__ __forceinline__ void write_row(int i, int64_t at)
    {
        O *to = row_at<O>(c.out, b.batch, b.head, at);
#pragma unroll
        for (int d = 0; d < WIDTH / 8; d++) {
#pragma unroll
            for (int e = 0; e < 2; e++) {
                int element = d * 8 + threadIdx.x % 4 * 2 + e;
                if (element < c.dim_v)
                    store_float(to + element, row[i].sum == 0 ? 0 : out[d][2 * i + e] / row[i].sum);
            }
        }
    }

    /* Writes the rows and returns this thread's share of the sum of their recalls. */
    __device__ __forceinline__ float write_rows()
    {
        float recalls = 0;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            if (!there[i])
                continue;
            int64_t at = caller_row(i);
            float recall = row[i].skipped == 0 ? 1 : row[i].sum / (row[i].sum + row[i].skipped);
            recalls += recall;
            if (c.out_dtype == CUDA_F32)
                write_row<float>(i, at);
            else
                write_row<T>(i, at);
            if (threadIdx.x % 4 != 0)
                continue;
            if (c.lse.data)
                row_at<float>(c.lse, b.batch, b.head, 0)[at] =
                    row[i].sum == 0 ? -INFINITY : row[i].max + logf(row[i].sum);
            if (c.recall.data)
                row_at<float>(c.recall, b.batch, b.head, 0)[at] = recall;
        }
        return recalls;
    }
};

__device__ __forceinline__ void clear_decisions(const cuda_call &c, const decision_block &b)
{
    for (int64_t i = threadIdx.x; b.decisions && i < ceil_div(c.blocks_k, 32); i += blockDim.x)
        b.decisions[i] = 0;
    __syncthreads(); /* before bits are set */
}

template <class T, int WIDTH, int BLOCK, bool SMALL>
__device__ __forceinline__ void attend(const cuda_call &c)
{
    extern __shared__ __align__(16) char raw[];
    /* Under the causal mask later blocks see more: the longest first. */
    int64_t index = c.causal ? (int64_t)gridDim.x - 1 - blockIdx.x : blockIdx.x;
    int64_t batch = index / c.blocks_q / c.heads_q;
    const cuda_sequence s = c.sequence[sequence_index(c, batch)];
    const decision_block b = find_block(c, s, index);
    clear_decisions(c, b);
    if (b.rows <= 0)
        return;

    walk<T, WIDTH, BLOCK, SMALL> w(c, s, b, raw);
    int64_t i = next_visit(b, 0);
    w.load_queries();
    if (!SMALL && i < b.listed)
        w.load_keys(b.list[i], 0, w.shared.k);
    commit_copies();
    int kept = 0;
    for (long n = 0; i < b.listed; n++) {
        int64_t next = next_visit(b, i + 1);
        kept += w.take(i, next, n);
        i = next;
    }
    float recalls = rows_sum(w.write_rows());
    wait_copies<0>();
    __syncthreads();
    votes &v = *w.shared.vote;
    if (threadIdx.x % WARP == 0)
        v.lost[threadIdx.x / WARP] = recalls;
    __syncthreads();
    if (threadIdx.x != 0)
        return;
    recalls = 0;
    for (int warp = 0; warp < (int)blockDim.x / WARP; warp++)
        recalls += v.lost[warp];
    c.block_kept[index] = kept;
    c.block_recall[index] = recalls;
}

/* Blocks: one for each decision block; threads: 32 for each 16 rows of block_q. */
#define ATTENTION_KERNEL(name, type, width, block, small)                                          \
    extern "C" __global__ void __launch_bounds__(MAX_THREADS, 1)                                   \
        name(const __grid_constant__ cuda_call c)                                                  \
    {                                                                                              \
        if (!c.gave_up || *c.gave_up)                                                              \
            attend<type, width, block, small>(c);                                                  \
    }

#endif
