/* What comes before the attention: lengths of sequences, token order, flags of
 * blocks, limits of the rule, visit lists, and the gather of q, k and v into computed
 * order. Launches cost the host more than this work costs the device, so one kernel
 * does all that does not wait for another's.
 *
 * The gather also serves tensors whose rows do not lie on 16-byte boundaries:
 * everything behind it reads rows of whole, zero-filled 16-byte chunks. */
#include "lists.cuh"

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

/* Sequence `n`; of gridless calls `q` and `k` are NULL. */
__device__ static cuda_sequence measure(const cuda_call &c, int64_t n, const rfa_cubes *q,
                                        const rfa_cubes *k)
{
    cuda_sequence s = {c.len_q, c.len_k, 0, 0, 0};
    bool good = true;
    if (c.packed) {
        good = packed_length(c.cu_q, n, c.total_q, c.len_q, &s.first_q, &s.len_q);
        good &= packed_length(c.cu_k, n, c.total_k, c.len_k, &s.first_k, &s.len_k);
    }
    if (q)
        good &= grid_fits(*q, s.len_q) && grid_fits(*k, s.len_k);
    if (!good)
        s = {0, 0, 0, 0, 1};
    return s;
}

/* ---- Limits ---------------------------------------------------------------------------- */

__device__ static float limit_of(const cuda_call &c, int64_t batch, int64_t head, double len_k)
{
    float knob = c.knobs.data ? *row_at<const float>(c.knobs, batch, head, 0) : c.knob;
    if (c.rule == RFA_SKIP_DENSE || !rfa_knob_valid(c.rule, c.knob_scaled, knob))
        return NAN;
    if (c.rule == RFA_SKIP_BLASST)
        return (float)log(c.knob_scaled ? fmin(1.0, (double)knob / len_k) : (double)knob);
    if (c.rule == RFA_SKIP_ENERGY)
        return c.knob_scaled ? (float)fmin(0.0, log((double)knob) + log(c.block_k / len_k)) : knob;
    return 1.0f - knob;
}

/* A warp writes what is known of sequence `n`: lengths, and, for attention, its heads'
 * limits and that no work is taken. */
__device__ static void write_sequence(const cuda_call &c, int64_t n, const cuda_sequence &s)
{
    int lane = threadIdx.x % WARP;
    int64_t end = (c.packed ? n + 1 : c.batch) * c.heads_q;
    if (lane == 0)
        c.sequence[n] = s;
    if (lane == 0 && n == 0 && c.gave_up)
        *c.gave_up = 0;
    for (int64_t i = n * c.heads_q + lane; c.limits && i < end; i += WARP) {
        c.limits[i] = limit_of(c, i / c.heads_q, i % c.heads_q, (double)s.len_k);
        if (c.taken)
            c.taken[i] = c.cost[i] = 0;
    }
}

/* ---- In the caller's token order ----------------------------------------------------------- */

/* 32 of sequence `n`'s blocks, one a lane: key blocks, then q blocks. */
__device__ static void write_flags(const cuda_call &c, int64_t n, const cuda_sequence &s,
                                   const cuda_ranges &ranges, int64_t index)
{
    const block_flags flags = {nullptr, &ranges, c.block_k, s.len_k};
    if (index < c.blocks_k) {
        c.key_flags[n * c.blocks_k + index] = (uint8_t)flags.at(index);
        return;
    }
    int64_t block = index - c.blocks_k, first = block * c.block_q;
    if (block < c.blocks_q)
        c.dense_rows[n * c.blocks_q + block] = block_flags::touched(
            ranges.dense, ranges.dense_count, first, smaller(first + c.block_q, s.len_q));
}

/* Everything that calls without a grid need before the attention, or, of the
 * predicted order, before its lists. A warp for each sequence, then one for each 32 of
 * its blocks, then one for each list. */
extern "C" __global__ void rfa_prepare(const __grid_constant__ cuda_call c,
                                       const __grid_constant__ cuda_ranges ranges)
{
    int64_t chunks = ceil_div(c.blocks_k + c.blocks_q, WARP), index = global_warp();
    int64_t tables = c.sequences * (1 + chunks);
    if (index < tables) {
        int64_t n = index / (1 + chunks), chunk = index % (1 + chunks);
        const cuda_sequence s = measure(c, n, nullptr, nullptr);
        if (chunk == 0)
            write_sequence(c, n, s);
        else
            write_flags(c, n, s, ranges, (chunk - 1) * WARP + threadIdx.x % WARP);
        return;
    }
    index -= tables;
    if (c.order == CUDA_PREDICTED || index >= count_lists(c))
        return;
    const cuda_sequence s = measure(c, sequence_of_list(c, index), nullptr, nullptr);
    const block_flags flags = {nullptr, &ranges, c.block_k, s.len_k};
    make_list(c, s, flags, index);
}

/* ---- In cube order -------------------------------------------------------------------------- */

__device__ static bool in_ranges(const int64_t (*range)[2], int count, int64_t token)
{
    bool in = false;
    for (int i = 0; i < count; i++)
        in |= token >= range[i][0] && token < range[i][1];
    return in;
}

/* The tokens of one block, by a warp: where they come from, and the block's flags. One
 * grid has one order of the longest length, whatever the sequences' own. */
__device__ static void order_block(const cuda_call &c, int64_t n, const cuda_sequence &s,
                                   const cuda_ranges &ranges, const rfa_cubes &g, bool keys,
                                   int64_t block)
{
    int64_t width = keys ? c.block_k : c.block_q, len = keys ? s.len_k : s.len_q;
    int64_t end = (block + 1) * width;
    int32_t *order = keys ? c.order_k : c.order_q;
    if (!c.one_order)
        order += keys ? s.first_k : s.first_q;
    end = smaller(end, !c.one_order ? len : keys ? c.len_k : c.len_q);
    bool writes = !c.one_order || n == 0, marked = false, sink = false;
    for (int64_t i = block * width + threadIdx.x % WARP; i < end; i += WARP) {
        int64_t token = rfa_caller_position(g, i);
        if (writes)
            order[i] = (int32_t)token;
        if (i >= len)
            continue;
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

/* What calls with grids need before the gather and the lists, for the sequences
 * grids.first .. + count - 1; with one grid for all of them, grids.q[0] and k[0] hold
 * for every sequence. A warp for each sequence and for each of its blocks. */
extern "C" __global__ void rfa_prepare_cubes(const __grid_constant__ cuda_call c,
                                             const __grid_constant__ cuda_ranges ranges,
                                             const __grid_constant__ cuda_grids grids)
{
    int64_t tasks = 1 + c.blocks_k + c.blocks_q, i = global_warp() / tasks;
    int64_t n = grids.first + i, block = global_warp() % tasks - 1;
    if (i >= grids.count)
        return;
    const int grid = c.one_order ? 0 : (int)i;
    const cuda_sequence s = measure(c, n, &grids.q[grid], &grids.k[grid]);
    if (block < 0)
        write_sequence(c, n, s);
    else if (block < c.blocks_k)
        order_block(c, n, s, ranges, grids.k[grid], true, block);
    else
        order_block(c, n, s, ranges, grids.q[grid], false, block - c.blocks_k);
}

/* A warp for each list, where something had to come before it. */
extern "C" __global__ void rfa_make_lists(const __grid_constant__ cuda_call c)
{
    int64_t index = global_warp();
    if (index >= count_lists(c))
        return;
    int64_t n = sequence_of_list(c, index);
    const cuda_sequence s = c.sequence[n];
    const block_flags flags = {c.key_flags + n * c.blocks_k, nullptr, c.block_k, s.len_k};
    make_list(c, s, flags, index);
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
    cuda_sequence s = {c.len_q, c.len_k, 0, 0, 0};
    if (c.packed || g.order)
        s = c.sequence[sequence_index(c, at.batch)];
    int64_t first = g.keys ? s.first_k : s.first_q, order_first = c.one_order ? 0 : first;
    if (at.n >= (g.keys ? s.len_k : s.len_q))
        return;
    int64_t row = first + (g.order ? g.order[order_first + at.n] : at.n);
    const T *from = row_at<const T>(g.from, at.batch, at.head, row);
    T *to = row_at<T>(g.to, at.batch, at.head, first + at.n);
    int chunk = (int)(index % chunks);
    *(uint4 *)(to + chunk * per) = load_chunk(from, chunk, g.dim, (uintptr_t)from % 16 == 0);
}

/* A thread for each (batch, head, row, chunk); blockIdx.y: a tensor. */
extern "C" __global__ void rfa_gather(const __grid_constant__ cuda_call c,
                                      const __grid_constant__ cuda_gathered all)
{
    if (c.dtype == CUDA_F32)
        gather_rows<uint32_t>(c, all.of[blockIdx.y]);
    else
        gather_rows<uint16_t>(c, all.of[blockIdx.y]);
}
