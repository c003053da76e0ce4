/* Attention by mma.sync and cp.async, for the common case: f16 or bf16, head dims
 * to 128, decision blocks of 64 x 128, no causal mask. attention.cuh serves the rest.
 *
 * Who: a block of threads computes 128 query rows, two decision blocks of four
 * warps each, which share the tiles of keys and values and decide apart. Of a
 * decision block's four warps, two halve its rows (32 each, so that every fragment
 * of keys or values feeds two matrix instructions) and two halve the keys (64
 * each): the warps of one half of the rows agree on the row maxima, hold partial
 * sums of the output over their own keys, and add them up at the very end.
 *
 * Where: q and two tiles each of 128 keys and of their values in shared memory, rows
 * in chunks of 16 bytes, chunk c of row r at c ^ (r & 7), so that neither copies nor
 * ldmatrix meet bank conflicts. Scores (32 x 64 a warp) and output (32 x DIM) are
 * registers; what decisions remember of a row is in shared memory, because there are
 * no registers left for it.
 *
 * Order: the two decision blocks work in opposite phases, one barrier of the whole
 * block apart, so that the softmax of one runs under the products of the other:
 *
 *   phase 2 n      0: scores of visit n          1: softmax, values of visit n - 1
 *   phase 2 n + 1  0: softmax, values of visit n  1: scores of visit n
 *
 * Keys n + 1 and values n are fetched by decision block 0 after its scores, because
 * softmax and values take longer than scores do; values only if one of the two kept the
 * visit before, as far as is known; whoever keeps a visit whose values are not there
 * fetches them. Decisions are made by every warp of a decision block for
 * itself, from the same numbers. Where shared memory is too small for two tiles of
 * values, every tile is fetched by the first that needs it.
 *
 * One formula for the kept path in every walk, and own_sum apart from the sums
 * that decisions read, is what makes never skipping equal dense bit for bit.
 *
 * Tried: both decision blocks in the same phase, one tile each of keys and values:
 * 279 TFLOP/s where FlashAttention-2 had 359 (H200, dense, L 27,280, D 128, bf16). */
#ifndef RFA_CUDA_AMPERE_CUH
#define RFA_CUDA_AMPERE_CUH

#include "ampere.h"
#include "device.cuh"
#include "tile.cuh"

namespace ampere
{

constexpr int ROWS = AMPERE_ROWS, BLOCK_Q = AMPERE_BLOCK_Q, BLOCK_K = AMPERE_BLOCK_K;
constexpr int THREADS = AMPERE_THREADS;
constexpr int WARP_ROWS = 32, WARP_KEYS = 64;

/* As cuda_walk. */
enum walk_mode { WALK_DENSE = 1, WALK_VOTE = 2, WALK_ESTIMATED = 3, WALK_EXACT = 4 };

/* What decisions know of a row: kept and skipped mass relative to max, and kappa. */
struct account {
    float max, kept, skipped;
    float kappa, learned; /* learned: from how many visits */
    float top; /* last visit's exp(max of the visit - max) if kappa is to learn from it */
};

/* By decision block, half of the keys, row. */
struct exchange {
    float top[2][2][BLOCK_Q], sum[2][2][BLOCK_Q];
    account row[2][BLOCK_Q];
    /* Of a thread's own four rows: running maxima, and the sums over its own columns that
     * divide its output. */
    float4 own_max[THREADS], own_sum[THREADS];
    int visits, rows[2], kept[2]; /* rows: of each decision block that exist */
    int keeps[2][2];              /* by decision block, parity of the visit */
    int loaded[2];                /* which visit's values a tile holds, or -1 */
    int block[4];                 /* of visits at hand, by the last bits of their number */
    float rest[4];
    float limit[2]; /* NaN: keeps everything */
    cuda_sequence sequence;
    const void *keys, *values; /* the head's, from the first row of the sequence on */
    const int32_t *list;       /* the visit group's */
    const float *list_rest;    /* or NULL */
};

static_assert(sizeof(exchange) <= AMPERE_EXCHANGE_BYTES, "the host counts shared memory");

template <int DIM> struct layout {
    static constexpr int pitch = DIM * 2, tile = 128 * pitch; /* bytes */
    static constexpr int q = 0, k = tile, x = 3 * tile, v = x + AMPERE_EXCHANGE_BYTES;
};

__device__ __forceinline__ float exp2_fast(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

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

__device__ __forceinline__ float warp_sum(float x)
{
    for (int step = 1; step < WARP; step *= 2)
        x += __shfl_xor_sync(ALL_LANES, x, step);
    return x;
}

/* Among the four warps of a decision block. */
__device__ __forceinline__ void group_sync(int group)
{
    asm volatile("barrier.sync %0, 128;" ::"r"(group + 1) : "memory");
}

__device__ __forceinline__ void load_matrices_at(uint32_t (&r)[4], uint32_t at)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}

__device__ __forceinline__ void load_matrices_transposed_at(uint32_t (&r)[4], uint32_t at)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}

__device__ __forceinline__ void copy_chunk(uint32_t to, const void *from, bool there)
{
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to), "l"(from),
                 "r"(there ? 16 : 0)
                 : "memory");
}

__device__ __forceinline__ void copy_word(void *to, const void *from)
{
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(shared_address(to)), "l"(from)
                 : "memory");
}

/* threadIdx.x and blockIdx, read again: what follows from them is not worth registers
 * all along. */
#define READ_AGAIN(name, special)                                                                  \
    __device__ __forceinline__ int name()                                                          \
    {                                                                                              \
        int x;                                                                                     \
        asm volatile("mov.u32 %0, %%" special ";" : "=r"(x));                                      \
        return x;                                                                                  \
    }

READ_AGAIN(thread_now, "tid.x")
READ_AGAIN(block_x_now, "ctaid.x")
READ_AGAIN(block_y_now, "ctaid.y")
READ_AGAIN(block_z_now, "ctaid.z")

/* 128 rows from `from` on, of which `rows` exist and `chunks` chunks of each, by
 * `threads` neighbouring threads. */
template <class T, int DIM, int threads>
__device__ __forceinline__ void load_tile(uint32_t to, const T *from, int64_t stride, int rows,
                                          int chunks)
{
    constexpr int per_row = DIM / 8, step = threads / per_row;
    int thread = thread_now() % threads, row = thread / per_row, chunk = thread % per_row;
    const T *at = from + row * stride + chunk * 8;
    to += row * layout<DIM>::pitch + ((chunk ^ (row & 7)) << 4);
#pragma unroll
    for (int i = 0; i < 128 / step; i++) {
        bool there = row + i * step < rows && chunk < chunks;
        copy_chunk(to + i * step * layout<DIM>::pitch, there ? at : from, there);
        at += step * stride;
    }
}

/* ---- The walk -------------------------------------------------------------------------------- */

template <class T, int DIM, walk_mode MODE> struct walk {
    using at = layout<DIM>;
    static constexpr bool decides = MODE != WALK_DENSE;

    const cuda_call &c;
    uint32_t shared; /* address of q */
    exchange &x;
    bool deep;    /* two tiles of values */
    bool pending; /* sums of the last visit are still to be counted */

    /* Rows 16 i / 2 + 8 (i % 2) + lane() / 4 of the warp's 32. */
    float score[2][8][4], out[2][DIM / 8][4];

    __device__ __forceinline__ static int lane()
    {
        return thread_now() % WARP;
    }

    /* Of this warp: its decision block, and which half of its rows and of the keys. */
    __device__ __forceinline__ static int group()
    {
        return thread_now() / 128;
    }

    __device__ __forceinline__ static int half_rows()
    {
        return thread_now() / 32 % 2;
    }

    __device__ __forceinline__ static int half_keys()
    {
        return thread_now() / 64 % 2;
    }

    __device__ __forceinline__ static int warp_row(int i)
    {
        return half_rows() * WARP_ROWS + i / 2 * 16 + i % 2 * 8 + lane() / 4;
    }

    /* ---- Start ---- */

    __device__ __forceinline__ walk(const cuda_call &call, char *raw, bool two_tiles)
        : c(call), shared(shared_address(raw)), x(*(exchange *)(raw + at::x)), deep(two_tiles)
    {
        const cuda_sequence s = c.sequence[sequence_index(c, batch())];
        pending = false;
        if (threadIdx.x == 0) {
            int64_t visit_group = first_row() / c.visit_q;
            x.sequence = s;
            int64_t head_kv = head() / (c.heads_q / c.heads_kv);
            int64_t place = batch() * c.list_stride[0] + head() * c.list_stride[1] +
                            visit_group * c.list_stride[2];
            x.keys = row_at<const T>(c.seen_k, batch(), head_kv, s.first_k);
            x.values = row_at<const T>(c.seen_v, batch(), head_kv, s.first_k);
            x.list = c.list + place;
            x.list_rest = c.list_rest ? c.list_rest + place : nullptr;
            x.visits = 0;
            if (first_row() < s.len_q)
                x.visits = c.list_count[head_index() * c.groups + visit_group];
        }
        if (threadIdx.x % 128 == 0) {
            x.rows[group()] = (int)smaller(BLOCK_Q, s.len_q - first_row() - group() * BLOCK_Q);
            x.kept[group()] = 0;
            x.loaded[group()] = -1;
            x.keeps[group()][0] = x.keeps[group()][1] = false;
        }
        __syncthreads();
        find_rule();
        x.own_sum[threadIdx.x] = {0, 0, 0, 0};
        x.own_max[threadIdx.x] = {-INFINITY, -INFINITY, -INFINITY, -INFINITY};
#pragma unroll
        for (int i = 0; i < DIM; i++)
            out[i / (DIM / 2)][i / 4 % (DIM / 8)][i % 4] = 0;
    }

    /* Registers are too few to hold what can be had again. */

    __device__ __forceinline__ static int batch()
    {
        return block_z_now();
    }

    __device__ __forceinline__ static int head()
    {
        return block_y_now();
    }

    /* Of the block of threads, in its sequence. */
    __device__ __forceinline__ static int first_row()
    {
        return block_x_now() * ROWS;
    }

    __device__ __forceinline__ int visits() const
    {
        return x.visits;
    }

    /* Of this warp's decision block that exist. */
    __device__ __forceinline__ int rows() const
    {
        return x.rows[group()];
    }

    __device__ __forceinline__ int64_t head_index() const
    {
        return batch() * c.heads_q + head();
    }

    __device__ __forceinline__ int q_block() const
    {
        return first_row() / BLOCK_Q + group();
    }

    /* scale log2(e) */
    __device__ __forceinline__ float factor() const
    {
        return c.scale * 1.44269504088896340736f;
    }

    __device__ __forceinline__ rfa_skip_rule rule() const
    {
        return {c.rule, x.limit[group()], c.share, c.pace, {0, 0}};
    }

    __device__ __forceinline__ void find_rule()
    {
        if (!decides)
            return;
        bool dense =
            rows() > 0 && c.dense_rows[sequence_index(c, batch()) * c.blocks_q + q_block()];
        if (threadIdx.x % 128 == 0)
            x.limit[group()] = dense ? NAN : c.limits[head_index()];
        if (threadIdx.x % 128 < BLOCK_Q)
            x.row[group()][threadIdx.x % 128] = {-INFINITY, 0, 0, 0, 0, 0};
    }

    __device__ __forceinline__ uint32_t *decision_words() const
    {
        return c.decisions.data && q_block() < c.blocks_q
                   ? row_at<uint32_t>(c.decisions, batch(), head(), q_block())
                   : nullptr;
    }

    __device__ __forceinline__ void clear_decisions()
    {
        uint32_t *words = decision_words();
        for (int64_t i = threadIdx.x % 128; words && i < ceil_div(c.blocks_k, 32); i += 128)
            words[i] = 0;
    }

    /* ---- Loads ---- */

    /* The first two entries; the others arrive with the keys. */
    __device__ __forceinline__ void start_list()
    {
        int n = threadIdx.x;
        if (n >= 2 || n >= visits())
            return;
        x.block[n] = x.list[n];
        x.rest[n] = x.list_rest ? x.list_rest[n] : RFA_NO_PREDICTION;
    }

    __device__ __forceinline__ void copy_entry(int n)
    {
        if (threadIdx.x != 0 || n >= visits())
            return;
        copy_word(&x.block[n % 4], x.list + n);
        if (x.list_rest)
            copy_word(&x.rest[n % 4], x.list_rest + n);
        else
            x.rest[n % 4] = RFA_NO_PREDICTION;
    }

    __device__ __forceinline__ void load_queries()
    {
        const cuda_sequence s = c.sequence[sequence_index(c, batch())];
        const T *from = row_at<const T>(c.seen_q, batch(), head(), s.first_q + first_row());
        load_tile<T, DIM, THREADS>(shared + at::q, from, c.seen_q.stride[2],
                                   (int)smaller(ROWS, s.len_q - first_row()), (c.dim + 7) / 8);
    }

    __device__ __forceinline__ int keys_of(int block) const
    {
        return min(BLOCK_K, (int)x.sequence.len_k - block * BLOCK_K);
    }

    __device__ __forceinline__ void load_keys(int n)
    {
        int block = x.block[n % 4];
        const T *from = (const T *)x.keys + (int64_t)block * BLOCK_K * c.seen_k.stride[2];
        load_tile<T, DIM, THREADS / 2>(shared + at::k + n % 2 * at::tile, from, c.seen_k.stride[2],
                                       keys_of(block), (c.dim + 7) / 8);
    }

    __device__ __forceinline__ uint32_t values_at(int n) const
    {
        return shared + at::v + (deep ? n % 2 * at::tile : 0);
    }

    __device__ __forceinline__ void load_values(int n)
    {
        int block = x.block[n % 4];
        const T *from = (const T *)x.values + (int64_t)block * BLOCK_K * c.seen_v.stride[2];
        load_tile<T, DIM, THREADS / 2>(values_at(n), from, c.seen_v.stride[2], keys_of(block),
                                       (c.dim_v + 7) / 8);
    }

    /* ---- Scores ---- */

    __device__ __forceinline__ void multiply_keys(int n_visit)
    {
        int thread = thread_now(), own = thread % WARP, swizzle = own % 8;
        int q_row = thread / 128 * BLOCK_Q + thread / WARP % 2 * WARP_ROWS + own % 16;
        int k_row = thread / 64 % 2 * WARP_KEYS + own % 8 + own / 16 * 8;
        uint32_t q = shared + at::q + q_row * at::pitch + ((own / 16 ^ swizzle) << 4);
        uint32_t k = shared + at::k + n_visit % 2 * at::tile + k_row * at::pitch +
                     ((own / 8 % 2 ^ swizzle) << 4);
#pragma unroll
        for (int i = 0; i < 64; i++)
            score[i / 32][i / 4 % 8][i % 4] = 0;
#pragma unroll
        for (int step = 0; step < DIM / 16; step++) {
            uint32_t a[2][4], b[4];
            uint32_t mix = (step * 2 % 8) << 4, far = step / 4 * 128;
            load_matrices_at(a[0], (q ^ mix) + far);
            load_matrices_at(a[1], (q ^ mix) + far + 16 * at::pitch);
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

    __device__ __forceinline__ void mask_past_end(int block)
    {
        int keys = keys_of(block) - half_keys() * WARP_KEYS - lane() % 4 * 2;
        if (keys + lane() % 4 * 2 >= WARP_KEYS)
            return;
#pragma unroll
        for (int i = 0; i < 64; i++)
            if (i / 4 % 8 * 8 + i % 2 >= keys)
                score[i / 32][i / 4 % 8][i % 4] = -INFINITY;
    }

    __device__ __forceinline__ void share_maxima()
    {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float top = -INFINITY;
#pragma unroll
            for (int n = 0; n < 8; n++)
                top =
                    larger(top, larger(score[i / 2][n][i % 2 * 2], score[i / 2][n][i % 2 * 2 + 1]));
            top = quad_max(top);
            if (lane() % 4 == 0)
                x.top[group()][half_keys()][warp_row(i)] = top;
        }
    }

    /* ---- Softmax ---- */

    /* The running maxima if the visit is kept. */
    __device__ __forceinline__ void find_next(float (&next)[4]) const
    {
        const float4 own = x.own_max[threadIdx.x];
        const float before[4] = {own.x, own.y, own.z, own.w};
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int row = warp_row(i);
            next[i] = larger(before[i], larger(x.top[group()][0][row], x.top[group()][1][row]));
        }
    }

    /* Scores become exp(S - m'); sums of this thread's columns. */
    __device__ __forceinline__ void weigh(const float (&next)[4], float (&sum)[4])
    {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float offset = (next[i] == -INFINITY ? 0 : next[i]) * factor();
            float even = 0, odd = 0;
#pragma unroll
            for (int n = 0; n < 8; n++) {
                float &a = score[i / 2][n][i % 2 * 2], &b = score[i / 2][n][i % 2 * 2 + 1];
                a = exp2_fast(fmaf(a, factor(), -offset));
                b = exp2_fast(fmaf(b, factor(), -offset));
                even += a;
                odd += b;
            }
            sum[i] = even + odd;
        }
    }

    __device__ __forceinline__ void share_sums(const float (&sum)[4])
    {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float all = quad_sum(sum[i]);
            if (lane() % 4 == 0)
                x.sum[group()][half_keys()][warp_row(i)] = all;
        }
    }

    /* Rescales what is there to the new maxima. */
    __device__ __forceinline__ void rescale(const float (&next)[4], const float (&sum)[4])
    {
        const float4 own = x.own_max[threadIdx.x];
        float decay[4] = {own.x, own.y, own.z, own.w};
        bool same = true;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float reference = next[i] == -INFINITY ? 0 : next[i];
            decay[i] = exp2_fast((decay[i] - reference) * factor());
            same &= decay[i] == 1;
        }
        x.own_max[threadIdx.x] = {next[0], next[1], next[2], next[3]};
        float4 &sums = x.own_sum[threadIdx.x];
        sums = {fmaf(sums.x, decay[0], sum[0]), fmaf(sums.y, decay[1], sum[1]),
                fmaf(sums.z, decay[2], sum[2]), fmaf(sums.w, decay[3], sum[3])};
        if (__all_sync(ALL_LANES, same))
            return;
#pragma unroll
        for (int i = 0; i < DIM; i++) {
            int m = i / (DIM / 2), e = i % 4;
            out[m][i / 4 % (DIM / 8)][e] *= decay[m * 2 + e / 2];
        }
    }

    __device__ __forceinline__ void multiply_values(int n_visit)
    {
        int thread = thread_now(), own = thread % WARP;
        int row = thread / 64 % 2 * WARP_KEYS + own % 16;
        uint32_t v = values_at(n_visit) + row * at::pitch + ((own / 16 ^ own % 8) << 4);
        uint32_t weight[2][4][4]; /* by 16 rows, 16 keys: an operand each */
#pragma unroll
        for (int i = 0; i < 32; i++) {
            const float *pair = &score[i / 16][i / 4 % 4 * 2 + i % 4 / 2][i % 2 * 2];
            weight[i / 16][i / 4 % 4][i % 4] = pack(pair[0], pair[1], T());
        }
#pragma unroll
        for (int k = 0; k < 4; k++) {
#pragma unroll
            for (int d = 0; d < DIM / 16; d++) {
                uint32_t mix = (d * 2 % 8) << 4, far = d / 4 * 128, b[4];
                load_matrices_transposed_at(b, (v ^ mix) + far + k * 16 * at::pitch);
#pragma unroll
                for (int m = 0; m < 2; m++) {
                    multiply_add(out[m][2 * d], weight[m][k], b[0], b[1], T());
                    multiply_add(out[m][2 * d + 1], weight[m][k], b[2], b[3], T());
                }
            }
        }
    }

    /* ---- Decisions: a lane() looks at rows lane() and lane() + 32 of its decision block ---- */

    struct row_visit {
        account row;
        float top, next, reference, decay;
        float mass; /* true or estimated, relative to next */
        bool exists;
    };

    /* The last visit's sums join an account that was brought to its maximum. */
    __device__ __forceinline__ void count_pending(account &a, int row) const
    {
        float mass = x.sum[group()][0][row] + x.sum[group()][1][row];
        a.kept += mass;
        if (MODE == WALK_ESTIMATED && a.top > 0) {
            a.learned += 1;
            a.kappa = rfa_kappa_update(a.kappa, mass / a.top, (int)a.learned);
        }
    }

    __device__ __forceinline__ row_visit look(int row, float keys) const
    {
        row_visit w;
        w.row = x.row[group()][row];
        if (MODE != WALK_EXACT && pending)
            count_pending(w.row, row);
        w.exists = row < rows();
        w.top = larger(x.top[group()][0][row], x.top[group()][1][row]);
        w.next = larger(w.row.max, w.top);
        w.reference = w.next == -INFINITY ? 0 : w.next;
        w.decay = exp2_fast((w.row.max - w.reference) * factor());
        w.row.top = exp2_fast((w.top - w.reference) * factor());
        w.mass = 0;
        if (MODE == WALK_EXACT)
            w.mass = x.sum[group()][0][row] + x.sum[group()][1][row];
        if (MODE == WALK_ESTIMATED)
            w.mass = w.row.top * (w.row.learned > 0 ? w.row.kappa : keys);
        return w;
    }

    __device__ __forceinline__ bool votes_skip(const row_visit &w) const
    {
        float above =
            w.top == -INFINITY && w.row.max == w.row.max ? w.top : (w.top - w.row.max) * c.scale;
        float lse = c.rule == RFA_SKIP_ENERGY ? __logf(w.row.kept) : 0;
        return !w.exists || rfa_row_votes_skip(rule(), above, 0, lse);
    }

    __device__ __forceinline__ bool rule_skips(const row_visit (&w)[2], int n, float block_rest)
    {
        if (MODE == WALK_VOTE || (MODE == WALK_EXACT && c.rule != RFA_SKIP_RECALL))
            return __all_sync(ALL_LANES, votes_skip(w[0]) & votes_skip(w[1]));
        float lost = 0, spent = 0;
        bool veto = false;
#pragma unroll
        for (int r = 0; r < 2; r++) {
            rfa_row_share share = rfa_share_of_row(rule(), w[r].row.kept * w[r].decay,
                                                   w[r].row.skipped * w[r].decay, w[r].mass);
            lost += w[r].exists ? share.lost : 0;
            spent += w[r].exists ? share.spent : 0;
            veto |= w[r].exists && share.veto;
        }
        veto = __any_sync(ALL_LANES, veto);
        return rfa_block_within_budget(rule(), n, visits(), warp_sum(lost) / (float)rows(),
                                       warp_sum(spent) / (float)rows(), veto, block_rest);
    }

    __device__ __forceinline__ account after_keeping(const row_visit &w) const
    {
        account a = w.row;
        a.max = w.next;
        a.kept = a.kept * w.decay + (MODE == WALK_EXACT ? w.mass : 0);
        a.skipped *= w.decay;
        if (!rfa_kappa_learns((w.top - w.reference) * c.scale, 0))
            a.top = 0;
        return a;
    }

    __device__ __forceinline__ account after_skipping(const row_visit &w) const
    {
        account a = w.row;
        float mass = w.mass;
        if (MODE == WALK_VOTE)
            return a;
        if (a.max == -INFINITY) /* nothing is relative to it yet */
            a.max = w.top;
        float reference = a.max == -INFINITY ? 0 : a.max;
        if (w.reference > reference)
            mass *= exp2_fast((w.reference - reference) * factor());
        /* Only recalls next to 0 come near this; an infinity would turn into NaN. */
        a.skipped = fminf(a.skipped + mass, 3.402823466e38f);
        return a;
    }

    __device__ __forceinline__ bool is_always_kept(int block) const
    {
        return c.key_flags[sequence_index(c, batch()) * c.blocks_k + block] & RFA_BLOCK_ALWAYS_KEEP;
    }

    /* Whether this warp's decision block keeps visit n. */
    __device__ __forceinline__ bool decide(int n)
    {
        int block = x.block[n % 4];
        const row_visit w[2] = {look(lane(), (float)keys_of(block)),
                                look(lane() + WARP, (float)keys_of(block))};
        bool keep = n == 0 || isnan(x.limit[group()]) || is_always_kept(block) ||
                    !rule_skips(w, n, x.rest[n % 4]);
        group_sync(group()); /* all have looked */
        if (threadIdx.x % 128 < WARP) {
#pragma unroll
            for (int r = 0; r < 2; r++)
                x.row[group()][lane() + WARP * r] =
                    keep ? after_keeping(w[r]) : after_skipping(w[r]);
        }
        if (threadIdx.x % 128 == 0)
            x.keeps[group()][n % 2] = keep;
        pending = keep;
        return keep;
    }

    __device__ __forceinline__ void record(int block)
    {
        uint32_t *words = decision_words();
        x.kept[group()]++;
        if (words)
            words[block / 32] |= 1u << block % 32;
    }

    /* ---- A visit ---- */

    /* Whether visit n is expected to be kept, before anyone has decided it. */
    __device__ __forceinline__ bool is_likely(int n) const
    {
        return !decides || n < 2 || x.keeps[0][(n - 1) % 2] || x.keeps[1][n % 2];
    }

    __device__ __forceinline__ bool lacks_values(int n) const
    {
        return x.loaded[deep ? n % 2 : 0] != n;
    }

    /* By one decision block alone, for itself and for the other. */
    __device__ __forceinline__ void fetch_values(int n)
    {
        if (!lacks_values(n))
            return;
        load_values(n);
        commit_copies();
    }

    __device__ __forceinline__ void await_values(int n)
    {
        if (lacks_values(n)) {
            wait_copies<0>();
            group_sync(group());
            if (threadIdx.x % 128 == 0)
                x.loaded[deep ? n % 2 : 0] = n;
        } else if (group() == 0) {
            wait_copies<1>(); /* the next keys may still be on their way */
            group_sync(0);
        }
    }

    /* In phase 2 n, by decision block 0, which has time then. */
    __device__ __forceinline__ void load_ahead(int n)
    {
        if (deep && n < visits()) {
            bool likely = is_likely(n);
            if (likely)
                load_values(n);
            if (threadIdx.x == 0)
                x.loaded[n % 2] = likely ? n : -1;
        }
        commit_copies();
        if (n + 1 < visits())
            load_keys(n + 1);
        copy_entry(n + 2);
        commit_copies();
    }

    __device__ __forceinline__ void score_visit(int n)
    {
        multiply_keys(n);
        mask_past_end(x.block[n % 4]);
        share_maxima();
    }

    __device__ __forceinline__ void finish_visit(int n)
    {
        float next[4], sum[4];
        bool early = !deep && is_likely(n);
        if (early)
            fetch_values(n);
        find_next(next);
        if (MODE == WALK_EXACT) {
            weigh(next, sum);
            share_sums(sum);
            group_sync(group());
        }
        if (decides && !decide(n))
            return;
        if (!early)
            fetch_values(n);
        if (MODE == WALK_EXACT)
            find_next(next); /* again, rather than keep it in registers */
        else
            weigh(next, sum);
        if (MODE == WALK_VOTE || MODE == WALK_ESTIMATED)
            share_sums(sum);
        rescale(next, sum);
        await_values(n);
        multiply_values(n);
        if (threadIdx.x % 128 == 0)
            record(x.block[n % 4]);
    }

    __device__ __forceinline__ void phase(int t)
    {
        int n = (t - group()) >> 1;
        if (rows() <= 0)
            return;
        if (t % 2 == group()) {
            if (n < visits())
                score_visit(n);
            if (group() == 0)
                load_ahead(n);
        } else if (n >= 0) {
            finish_visit(n);
        }
    }

    /* ---- End ---- */

    /* The partial sums over the upper half of the keys join those over the lower
     * one. True for the warps that then have the rows. */
    __device__ __forceinline__ bool join_halves(float (&sum)[4])
    {
        float *part = (float *)__cvta_shared_to_generic(shared + at::k);
        int slot = (group() * 2 + half_rows()) * WARP + lane(); /* of 128 */
        __syncthreads();
#pragma unroll
        for (int i = 0; i < 4; i++)
            sum[i] = quad_sum((&x.own_sum[threadIdx.x].x)[i]);
        if (half_keys() == 1) {
#pragma unroll
            for (int i = 0; i < DIM; i++)
                part[i * 128 + slot] = out[i / (DIM / 2)][i / 4 % (DIM / 8)][i % 4];
#pragma unroll
            for (int i = 0; i < 4; i++)
                if (lane() % 4 == 0)
                    x.top[group()][0][warp_row(i)] = sum[i];
        }
        __syncthreads();
        if (half_keys() == 1)
            return false;
#pragma unroll
        for (int i = 0; i < DIM; i++)
            out[i / (DIM / 2)][i / 4 % (DIM / 8)][i % 4] += part[i * 128 + slot];
#pragma unroll
        for (int i = 0; i < 4; i++)
            sum[i] += x.top[group()][0][warp_row(i)];
        return true;
    }

    __device__ __forceinline__ int64_t caller_row(int row) const
    {
        int64_t position = first_row() + group() * BLOCK_Q + row;
        const cuda_sequence &s = x.sequence;
        if (c.order_q)
            position = c.order_q[(c.one_order ? 0 : s.first_q) + position];
        return s.first_q + position;
    }

    template <class O> __device__ __forceinline__ void write_row(int i, int64_t row, float sum)
    {
        O *to = row_at<O>(c.out, batch(), head(), row);
        float inverse = sum == 0 ? 0 : 1 / sum;
#pragma unroll
        for (int d = 0; d < DIM / 8; d++) {
            int element = d * 8 + lane() % 4 * 2;
            float a = out[i / 2][d][i % 2 * 2] * inverse,
                  b = out[i / 2][d][i % 2 * 2 + 1] * inverse;
            if (element >= c.dim_v)
                continue;
            if (sizeof(O) == 4)
                *(float2 *)(to + element) = make_float2(a, b);
            else
                *(uint32_t *)(to + element) = pack(a, b, T());
        }
    }

    __device__ __forceinline__ void write_rows(const float (&sum)[4])
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
                    sum[i] == 0 ? -INFINITY
                                : (&x.own_max[threadIdx.x].x)[i] * c.scale + logf(sum[i]);
        }
    }

    /* By one warp of the decision block. */
    __device__ __forceinline__ void report()
    {
        float sum = 0;
        for (int row = lane(); row < rows(); row += WARP) {
            float recall = 1;
            if (decides) {
                account a = x.row[group()][row];
                if (MODE != WALK_EXACT && pending)
                    count_pending(a, row);
                recall = a.skipped == 0 ? 1 : a.kept / (a.kept + a.skipped);
            }
            sum += recall;
            if (c.recall.data)
                row_at<float>(c.recall, batch(), head(), 0)[caller_row(row)] = recall;
        }
        sum = warp_sum(sum);
        if (lane() != 0 || q_block() >= c.blocks_q)
            return;
        c.block_kept[head_index() * c.blocks_q + q_block()] = x.kept[group()];
        c.block_recall[head_index() * c.blocks_q + q_block()] = sum;
    }

    __device__ __forceinline__ void run()
    {
        clear_decisions();
        load_queries();
        start_list();
        __syncthreads(); /* the sequence and the list are there */
        if (visits() > 0 && group() == 0)
            load_keys(0);
        commit_copies();
        wait_copies<0>();
        __syncthreads();
#pragma unroll 1
        for (int t = 0; t <= 2 * visits(); t++) {
            phase(t);
            if (t % 2 == 1)
                wait_copies<0>(); /* the next keys */
            __syncthreads();
        }
        float sum[4];
        wait_copies<0>();
        if (join_halves(sum))
            write_rows(sum);
        if (threadIdx.x % 128 < WARP)
            report();
    }
};

} // namespace ampere

/* Blocks: one for each 128 query rows of a head; 256 threads; shared memory for three
 * tiles, the exchange, and one or two tiles of values. */
#define AMPERE_KERNEL(name, type, dim, mode)                                                       \
    extern "C" __global__ void __launch_bounds__(ampere::THREADS, 1)                               \
        name(const __grid_constant__ cuda_call c, int two_tiles)                                   \
    {                                                                                              \
        extern __shared__ __align__(1024) char raw[];                                              \
        ampere::walk<type, dim, ampere::mode>(c, raw, two_tiles).run();                            \
    }

#define AMPERE_KERNELS(name, type, dim)                                                            \
    AMPERE_KERNEL(name##_dense, type, dim, WALK_DENSE)                                             \
    AMPERE_KERNEL(name##_vote, type, dim, WALK_VOTE)                                               \
    AMPERE_KERNEL(name##_estimated, type, dim, WALK_ESTIMATED)                                     \
    AMPERE_KERNEL(name##_exact, type, dim, WALK_EXACT)

#endif
