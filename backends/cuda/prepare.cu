/* What comes before the lists: lengths of sequences, token order, flags of
 * blocks, limits of the rule, and the gather of q, k and v into computed order.
 *
 * The gather also serves tensors whose rows do not lie on 16-byte boundaries:
 * everything behind it reads rows of whole, zero-filled 16-byte chunks. */
#include "device.cuh"

/* ---- Sequences ------------------------------------------------------------------------- */

/* False when the cumulative lengths of sequence `n` make no sense. */
__device__ static bool packed_length(const int32_t *cumulative, int64_t n, int64_t total,
                                     int64_t longest, int64_t *first, int64_t *len)
{
    *first = cumulative[n];
    *len = (int64_t)cumulative[n + 1] - *first;
    return *first >= 0 && *len >= 0 && *first + *len <= total && *len <= longest;
}

/* A packed sequence may be shorter than the grid that it was given. */
__device__ static bool grid_fits(const rfa_cubes &g, int64_t len)
{
    if (g.size[0] == 0)
        return true;
    if (g.size[0] > len || g.size[1] > len || g.size[2] > len || g.offset > len)
        return false;
    int64_t frame = g.size[1] * g.size[2];
    return frame <= len && g.offset + frame * g.size[0] <= len;
}

/* One thread for each sequence of grids.first .. + count - 1; with one grid for
 * all of them, grids.q[0] and k[0] hold for every thread. */
extern "C" __global__ void rfa_measure_sequences(const __grid_constant__ cuda_call c,
                                                 const __grid_constant__ cuda_grids grids)
{
    int64_t i = global_thread(), n = grids.first + i;
    if (i >= grids.count)
        return;
    const int grid = c.one_order ? 0 : (int)i;
    cuda_sequence s = {c.len_q, c.len_k, 0, 0, 0};
    bool good = true;
    if (c.packed) {
        good = packed_length(c.cu_q, n, c.total_q, c.len_q, &s.first_q, &s.len_q);
        good &= packed_length(c.cu_k, n, c.total_k, c.len_k, &s.first_k, &s.len_k);
    }
    if (c.order_q)
        good &= grid_fits(grids.q[grid], s.len_q) && grid_fits(grids.k[grid], s.len_k);
    if (!good)
        s = {0, 0, 0, 0, 1};
    c.sequence[n] = s;
}

/* ---- Token order ----------------------------------------------------------------------- */

/* blockIdx.y: a sequence of `grids`; one grid has one order of the longest
 * length, whatever the sequences' own. */
extern "C" __global__ void rfa_order_tokens(const __grid_constant__ cuda_call c,
                                            const __grid_constant__ cuda_grids grids)
{
    int64_t i = global_thread();
    cuda_sequence s = {c.len_q, c.len_k, 0, 0, 0};
    if (!c.one_order)
        s = c.sequence[grids.first + blockIdx.y];
    if (i < s.len_q)
        c.order_q[s.first_q + i] = (int32_t)rfa_caller_position(grids.q[blockIdx.y], i);
    if (i < s.len_k)
        c.order_k[s.first_k + i] = (int32_t)rfa_caller_position(grids.k[blockIdx.y], i);
}

/* ---- Flags ----------------------------------------------------------------------------- */

__device__ static bool in_ranges(const int64_t (*range)[2], int count, int64_t token)
{
    bool in = false;
    for (int i = 0; i < count; i++)
        in |= token >= range[i][0] && token < range[i][1];
    return in;
}

/* A warp for each (sequence, block): key blocks first, then q blocks. */
extern "C" __global__ void rfa_flag_blocks(const __grid_constant__ cuda_call c,
                                           const __grid_constant__ cuda_ranges ranges)
{
    int64_t per_sequence = c.blocks_k + c.blocks_q, index = global_warp();
    int64_t n = index / per_sequence, block = index % per_sequence;
    if (n >= c.sequences)
        return;
    const cuda_sequence s = c.sequence[n];
    bool keys = block < c.blocks_k;
    block -= keys ? 0 : c.blocks_k;
    const int32_t *order = keys ? c.order_k : c.order_q;
    if (order && !c.one_order)
        order += keys ? s.first_k : s.first_q;
    int64_t width = keys ? c.block_k : c.block_q;
    int64_t end = smaller((block + 1) * width, keys ? s.len_k : s.len_q);
    bool marked = false, sink = false;
    for (int64_t i = block * width + threadIdx.x % WARP; i < end; i += WARP) {
        int64_t token = order ? order[i] : i;
        marked |= keys ? in_ranges(ranges.keep, ranges.keep_count, token)
                       : in_ranges(ranges.dense, ranges.dense_count, token);
        sink |= token < CUDA_SINK_KEYS;
    }
    marked = __any_sync(ALL_LANES, marked);
    sink = __any_sync(ALL_LANES, sink);
    if (threadIdx.x % WARP != 0)
        return;
    if (keys)
        c.key_flags[n * c.blocks_k + block] =
            (marked ? RFA_BLOCK_ALWAYS_KEEP : 0) | (sink ? RFA_BLOCK_SINK : 0);
    else
        c.dense_rows[n * c.blocks_q + block] = marked;
}

/* A warp for each sequence: how many always-keep blocks come before each. */
extern "C" __global__ void rfa_rank_kept(const __grid_constant__ cuda_call c)
{
    int64_t n = global_warp();
    int lane = threadIdx.x % WARP;
    if (n >= c.sequences)
        return;
    int32_t before = 0;
    for (int64_t first = 0; first < c.blocks_k; first += WARP) {
        int64_t j = first + lane;
        bool kept = j < c.blocks_k && (c.key_flags[n * c.blocks_k + j] & RFA_BLOCK_ALWAYS_KEEP);
        unsigned all = __ballot_sync(ALL_LANES, kept);
        if (j < c.blocks_k)
            c.kept_rank[n * c.blocks_k + j] = before + __popc(all & ((1u << lane) - 1));
        before += __popc(all);
    }
}

/* ---- Limits ---------------------------------------------------------------------------- */

/* A thread for each (batch, head). */
extern "C" __global__ void rfa_set_limits(const __grid_constant__ cuda_call c)
{
    int64_t i = global_thread(), batch = i / c.heads_q, head = i % c.heads_q;
    if (batch >= c.batch)
        return;
    double len_k = (double)c.sequence[sequence_index(c, batch)].len_k;
    float knob = c.knobs.data ? *row_at<const float>(c.knobs, batch, head, 0) : c.knob;
    float limit = NAN;
    if (c.rule == RFA_SKIP_DENSE || !rfa_knob_valid(c.rule, c.knob_scaled, knob))
        limit = NAN;
    else if (c.rule == RFA_SKIP_BLASST)
        limit = (float)log(c.knob_scaled ? fmin(1.0, (double)knob / len_k) : (double)knob);
    else if (c.rule == RFA_SKIP_ENERGY)
        limit = c.knob_scaled ? (float)fmin(0.0, log((double)knob) + log(c.block_k / len_k)) : knob;
    else
        limit = 1.0f - knob;
    c.limits[i] = limit;
}

/* ---- Gather ---------------------------------------------------------------------------- */

/* Elements chunk * per .. of a row, zeros past its end. */
template <class T>
__device__ static uint4 load_chunk(const T *row, int chunk, int dim, bool aligned)
{
    constexpr int per = 16 / (int)sizeof(T);
    uint4 whole = {0, 0, 0, 0};
    if (aligned && (chunk + 1) * per <= dim)
        return *(const uint4 *)(row + chunk * per);
    T *part = (T *)&whole;
#pragma unroll
    for (int i = 0; i < per; i++)
        if (chunk * per + i < dim)
            part[i] = row[chunk * per + i];
    return whole;
}

template <class T> __device__ static void gather_rows(const cuda_call &c, const cuda_gather &g)
{
    constexpr int per = 16 / (int)sizeof(T);
    int64_t chunks = g.pitch / per, index = global_thread();
    place_of_head at = split_index(index / chunks, g.heads, g.rows);
    if (at.batch >= c.batch)
        return;
    const cuda_sequence &s = c.sequence[sequence_index(c, at.batch)];
    int64_t first = g.keys ? s.first_k : s.first_q, order_first = c.one_order ? 0 : first;
    if (at.n >= (g.keys ? s.len_k : s.len_q))
        return;
    int64_t row = first + (g.order ? g.order[order_first + at.n] : at.n);
    const T *from = row_at<const T>(g.from, at.batch, at.head, row);
    T *to = row_at<T>(g.to, at.batch, at.head, first + at.n);
    int chunk = (int)(index % chunks);
    *(uint4 *)(to + chunk * per) = load_chunk(from, chunk, g.dim, (uintptr_t)from % 16 == 0);
}

/* A thread for each (batch, head, row, chunk). */
extern "C" __global__ void rfa_gather(const __grid_constant__ cuda_call c,
                                      const __grid_constant__ cuda_gather g)
{
    if (g.size == 4)
        gather_rows<uint32_t>(c, g);
    else
        gather_rows<uint16_t>(c, g);
}
