/* Visit lists: which key blocks each group walks, in which order, and what share
 * of the predicted mass comes after each. */
#include "device.cuh"

/* ---- raster and diagonal: one list for all heads ---------------------------------------- */

/* A thread for each (sequence, group). */
extern "C" __global__ void rfa_list_by_place(const __grid_constant__ cuda_call c)
{
    int64_t i = global_thread(), n = i / c.groups, group = i % c.groups;
    if (n >= c.sequences)
        return;
    const cuda_sequence s = c.sequence[n];
    int64_t count = 0;
    if (group * c.visit_q < s.len_q)
        count = rfa_list_visits(shape_of(c, s), group, c.order == CUDA_DIAGONAL,
                                c.key_flags + n * c.blocks_k,
                                c.list + n * c.list_stride[0] + group * c.list_stride[2]);
    int64_t first = c.packed ? n : 0, end = c.packed ? n + 1 : c.batch;
    for (int64_t batch = first; batch < end; batch++)
        for (int64_t head = 0; head < c.heads_q; head++)
            c.list_count[(batch * c.heads_q + head) * c.groups + group] = (int32_t)count;
}

/* ---- lists that come with an order of their own ------------------------------------------ */

/* One group's list under construction, by one warp. */
struct arranged {
    int32_t *list;
    float *mass; /* becomes T_n; or NULL */
    uint32_t *listed;
    const uint8_t *flags;
    const int32_t *rank;
    int64_t visible, blocks;
    int32_t kept, others, bad;
};

/* Always-keep blocks first, ascending; their masses may come later. */
__device__ static void place_kept(arranged &a, int lane)
{
    a.kept = 0;
    for (int64_t first = 0; first < a.visible; first += WARP) {
        int64_t j = first + lane;
        bool kept = j < a.visible && (a.flags[j] & RFA_BLOCK_ALWAYS_KEEP);
        if (kept) {
            a.list[a.rank[j]] = (int32_t)j;
            if (a.mass)
                a.mass[a.rank[j]] = 0;
        }
        a.kept += __popc(__ballot_sync(ALL_LANES, kept));
    }
}

/* Takes 32 entries of a list, one a lane; j < 0 and beyond `blocks` are bad. */
__device__ static void take_entries(arranged &a, bool there, int32_t j, float mass, int lane)
{
    bool in_range = there && j >= 0 && j < a.blocks;
    /* Lanes out of range match nobody: no block has their number. */
    unsigned same = __match_any_sync(ALL_LANES, in_range ? j : -1 - lane);
    bool first = in_range && (same & ((1u << lane) - 1)) == 0;
    uint32_t bit = 1u << (j & 31);
    if (first)
        first = !(a.listed[j >> 5] & bit);
    __syncwarp();
    if (first)
        atomicOr(&a.listed[j >> 5], bit);
    __syncwarp();
    a.bad += __popc(__ballot_sync(ALL_LANES, there && !first));

    bool taken = first && j < a.visible;
    bool kept = taken && (a.flags[j] & RFA_BLOCK_ALWAYS_KEEP);
    unsigned others = __ballot_sync(ALL_LANES, taken && !kept);
    if (kept && a.mass)
        a.mass[a.rank[j]] = mass;
    if (taken && !kept) {
        int32_t slot = a.kept + a.others + __popc(others & ((1u << lane) - 1));
        a.list[slot] = j;
        if (a.mass)
            a.mass[slot] = mass;
    }
    a.others += __popc(others);
}

/* Inclusive sum from the warp's last lane down to this one. */
__device__ static double sum_from_above(double x, int lane)
{
    for (int step = 1; step < WARP; step *= 2) {
        double above = __shfl_down_sync(ALL_LANES, x, step);
        x += lane + step < WARP ? above : 0;
    }
    return x;
}

/* Masses become T_n: suffix sums over the whole. */
__device__ static void predict_rest(float *mass, int64_t count, int lane)
{
    int64_t last = (count - 1) / WARP * WARP;
    double total = 0;
    for (int pass = 0; pass < 2; pass++) {
        double after = 0;
        for (int64_t first = last; first >= 0 && count > 0; first -= WARP) {
            int64_t i = first + lane;
            double own = i < count ? (double)mass[i] : 0;
            double from_here = sum_from_above(own, lane);
            double rest = after + __shfl_down_sync(ALL_LANES, from_here, 1) * (lane < WARP - 1);
            if (pass == 1 && i < count)
                mass[i] = rest == 0 ? 0 : (float)(rest / total);
            after += __shfl_sync(ALL_LANES, from_here, 0);
        }
        total = after;
    }
}

/* A warp for each (batch, head, group): checks c.given, moves always-keep blocks
 * to the front and puts in those that it lacks. */
extern "C" __global__ void rfa_arrange_lists(const __grid_constant__ cuda_call c)
{
    int64_t index = global_warp(), words = ceil_div(c.blocks_k, 32);
    int lane = threadIdx.x % WARP;
    place_of_head at = split_index(index, c.heads_q, c.groups);
    if (at.batch >= c.batch)
        return;
    int64_t n = sequence_index(c, at.batch), offset = index * c.blocks_k;
    const cuda_sequence s = c.sequence[n];
    arranged a = {c.list + offset,
                  c.list_rest ? c.list_rest + offset : nullptr,
                  c.listed + index * words,
                  c.key_flags + n * c.blocks_k,
                  c.kept_rank + n * c.blocks_k,
                  rfa_visible_blocks(shape_of(c, s), (at.n + 1) * c.visit_q),
                  ceil_div(s.len_k, c.block_k),
                  0,
                  0,
                  0};
    if (at.n * c.visit_q < s.len_q) {
        const cuda_lists &g = c.given;
        const int32_t *from =
            g.index + at.batch * g.stride[0] + at.head * g.stride[1] + at.n * g.stride[2];
        const float *mass = g.mass ? g.mass + at.batch * g.mass_stride[0] +
                                         at.head * g.mass_stride[1] + at.n * g.mass_stride[2]
                                   : nullptr;
        int64_t count = g.count[at.batch * g.count_stride[0] + at.head * g.count_stride[1] +
                                at.n * g.count_stride[2]];
        count = smaller(count, g.capacity);
        for (int64_t w = lane; w < words; w += WARP)
            a.listed[w] = 0;
        place_kept(a, lane);
        __syncwarp();
        for (int64_t first = 0; first < count; first += WARP) {
            int64_t i = first + lane;
            float m = mass && i < count ? mass[i] : 0;
            take_entries(a, i < count, i < count ? from[i] : -1, m > 0 ? m : 0, lane);
        }
        __syncwarp();
        if (a.mass)
            predict_rest(a.mass, a.kept + a.others, lane);
    }
    if (lane == 0) {
        c.list_count[index] = a.kept + a.others;
        c.bad_indices[index] = a.bad;
    }
}

/* ---- what the lists say -------------------------------------------------------------------- */

/* A warp for each (batch, head, q block): how many visits it counts. */
extern "C" __global__ void rfa_count_visits(const __grid_constant__ cuda_call c)
{
    int64_t index = global_warp();
    int lane = threadIdx.x % WARP;
    place_of_head at = split_index(index, c.heads_q, c.blocks_q);
    if (at.batch >= c.batch)
        return;
    const cuda_sequence s = c.sequence[sequence_index(c, at.batch)];
    int64_t row = at.n * c.block_q, group = row / c.visit_q, visits = 0;
    if (row < s.len_q) {
        int64_t visible = rfa_visible_blocks(shape_of(c, s), row + c.block_q);
        visits = c.list_count[(at.batch * c.heads_q + at.head) * c.groups + group];
        if (c.causal) {
            const int32_t *list = c.list + at.batch * c.list_stride[0] +
                                  at.head * c.list_stride[1] + group * c.list_stride[2];
            int seen = 0;
            for (int64_t i = lane; i < visits; i += WARP)
                seen += list[i] < visible;
            visits = __reduce_add_sync(ALL_LANES, seen);
        }
    }
    if (lane == 0)
        c.block_visits[index] = (int32_t)visits;
}

/* A thread for each (batch, head, group, slot) of visit_order. */
extern "C" __global__ void rfa_write_visit_order(const __grid_constant__ cuda_call c)
{
    int64_t index = global_thread(), slot = index % c.blocks_k;
    place_of_head at = split_index(index / c.blocks_k, c.heads_q, c.groups);
    if (at.batch >= c.batch)
        return;
    int64_t count = c.list_count[index / c.blocks_k];
    const int32_t *list =
        c.list + at.batch * c.list_stride[0] + at.head * c.list_stride[1] + at.n * c.list_stride[2];
    row_at<int32_t>(c.visit_order, at.batch, at.head, at.n)[slot] = slot < count ? list[slot] : -1;
}
