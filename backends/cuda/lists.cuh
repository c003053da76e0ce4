/* Visit lists: which key blocks each group walks, in which order, and what share
 * of the predicted mass comes after each. A warp writes one list, and what follows
 * from it: how many visits the decision blocks of its group count, and visit_order. */
#ifndef RFA_CUDA_LISTS_CUH
#define RFA_CUDA_LISTS_CUH

#include "device.cuh"

/* RFA_BLOCK_* of a sequence's key blocks: from a table, or, in the caller's token
 * order, from the ranges themselves. */
struct block_flags {
    const uint8_t *table; /* or NULL */
    const cuda_ranges *ranges;
    int64_t block_k, len_k;

    __device__ __forceinline__ int at(int64_t block) const
    {
        return table ? table[block]
                     : flags_of_tokens(*ranges, block * block_k,
                                       smaller((block + 1) * block_k, len_k));
    }

    __device__ static bool touched(const int64_t (*range)[2], int count, int64_t first, int64_t end)
    {
        bool in = false;
        for (int i = 0; i < count; i++)
            in |= first < end && first < range[i][1] && range[i][0] < end &&
                  range[i][0] < range[i][1];
        return in;
    }

    /* Of a key block that holds the caller's tokens first .. end - 1. */
    __device__ static int flags_of_tokens(const cuda_ranges &ranges, int64_t first, int64_t end)
    {
        bool kept = touched(ranges.keep, ranges.keep_count, first, end);
        bool sink = first < end && first < CUDA_SINK_KEYS;
        return (kept ? RFA_BLOCK_ALWAYS_KEEP : 0) | (sink ? RFA_BLOCK_SINK : 0);
    }
};

/* One group's list under construction. */
struct list_maker {
    const cuda_call &c;
    const cuda_sequence &s;
    block_flags flags;
    int64_t group, visible; /* key blocks that some row of the group sees */
    int32_t *list;
    int lane;
    int count;

    __device__ __forceinline__ list_maker(const cuda_call &call, const cuda_sequence &sequence,
                                          const block_flags &of, int64_t n, int32_t *to)
        : c(call), s(sequence), flags(of), group(n), list(to), lane(threadIdx.x % WARP), count(0)
    {
        visible =
            exists() ? rfa_visible_blocks(shape_of(c, s), (group + 1) * (int64_t)c.visit_q) : 0;
    }

    __device__ __forceinline__ bool exists() const
    {
        return group * c.visit_q < s.len_q;
    }

    /* Where this lane's block goes among those that are `taken`; all lanes call it. */
    __device__ __forceinline__ int slot(bool taken)
    {
        unsigned all = __ballot_sync(ALL_LANES, taken);
        int own = count + __popc(all & ((1u << lane) - 1));
        count += __popc(all);
        return own;
    }

    /* Blocks whose flags have `any` and not `none`, but not `except`, ascending;
     * `any` 0: all. */
    __device__ __forceinline__ void append(int any, int none, int64_t except)
    {
        for (int64_t first = 0; first < visible; first += WARP) {
            int64_t j = first + lane;
            int own = j < visible ? flags.at(j) : none;
            bool taken = j < visible && (any == 0 || (own & any)) && !(own & none) && j != except;
            int to = slot(taken);
            if (taken)
                list[to] = (int32_t)j;
        }
    }

    /* The nearest block that is not kept always, or -1. */
    __device__ __forceinline__ int64_t find_nearest(const rfa_outward &walk)
    {
        for (int64_t first = 0; first < visible; first += WARP) {
            int64_t j = first + lane < visible ? rfa_outward_at(walk, first + lane) : -1;
            unsigned free =
                __ballot_sync(ALL_LANES, j >= 0 && !(flags.at(j) & RFA_BLOCK_ALWAYS_KEEP));
            if (free)
                return __shfl_sync(ALL_LANES, j, __ffs((int)free) - 1);
        }
        return -1;
    }

    /* As rfa_list_visits, whose list this is. */
    __device__ __forceinline__ void list_by_place()
    {
        append(RFA_BLOCK_ALWAYS_KEEP, 0, -1);
        if (c.order != CUDA_DIAGONAL) {
            append(0, RFA_BLOCK_ALWAYS_KEEP, -1);
            return;
        }
        const rfa_outward walk = rfa_outward_from(shape_of(c, s), group, visible);
        int64_t nearest = visible > 0 ? find_nearest(walk) : -1;
        if (nearest < 0)
            return;
        if (lane == 0)
            list[count] = (int32_t)nearest;
        count++;
        append(RFA_BLOCK_SINK, RFA_BLOCK_ALWAYS_KEEP, nearest);
        for (int64_t first = 0; first < visible; first += WARP) {
            int64_t j = first + lane < visible ? rfa_outward_at(walk, first + lane) : -1;
            bool taken =
                j >= 0 && j != nearest && !(flags.at(j) & (RFA_BLOCK_ALWAYS_KEEP | RFA_BLOCK_SINK));
            int to = slot(taken);
            if (taken)
                list[to] = (int32_t)j;
        }
    }

    /* The visits that a decision block counts. */
    __device__ __forceinline__ int visits_of(int64_t row)
    {
        if (row >= s.len_q || !c.causal)
            return row >= s.len_q ? 0 : count;
        int64_t seen_blocks = rfa_visible_blocks(shape_of(c, s), row + c.block_q);
        int seen = 0;
        for (int i = lane; i < count; i += WARP)
            seen += list[i] < seen_blocks;
        return __reduce_add_sync(ALL_LANES, seen);
    }

    /* The list is written: what follows from it, for heads first .. end - 1 of all
     * (batch, head). */
    __device__ __forceinline__ void report(int64_t first, int64_t end)
    {
        __syncwarp();
        for (int64_t head = first + lane; head < end; head += WARP)
            c.list_count[head * c.groups + group] = count;
        int64_t block = group * (c.visit_q / c.block_q);
        int64_t last = smaller(block + c.visit_q / c.block_q, c.blocks_q);
        for (; block < last; block++) {
            int visits = visits_of(block * c.block_q);
            for (int64_t head = first + lane; head < end; head += WARP)
                c.block_visits[head * c.blocks_q + block] = visits;
        }
        for (int64_t head = first; c.visit_order.data && head < end; head++) {
            int32_t *to = row_at<int32_t>(c.visit_order, head / c.heads_q, head % c.heads_q, group);
            for (int64_t i = lane; i < c.blocks_k; i += WARP)
                to[i] = i < count ? list[i] : -1;
        }
    }
};

/* ---- lists that come with an order of their own ------------------------------------------ */

struct arranged {
    list_maker &maker;
    float *mass; /* becomes T_n; or NULL */
    uint32_t *listed;
    int64_t blocks;
    int32_t kept, bad;

    /* Always-keep blocks first, ascending; their masses may come later. */
    __device__ __forceinline__ void place_kept()
    {
        maker.append(RFA_BLOCK_ALWAYS_KEEP, 0, -1);
        kept = maker.count;
        for (int i = maker.lane; mass && i < kept; i += WARP)
            mass[i] = 0;
        __syncwarp();
    }

    /* Where place_kept put block j. */
    __device__ __forceinline__ int rank_of(int32_t j) const
    {
        int low = 0, high = kept - 1;
        while (low < high) {
            int middle = (low + high) / 2;
            if (maker.list[middle] < j)
                low = middle + 1;
            else
                high = middle;
        }
        return low;
    }

    /* Takes 32 entries of a list, one a lane; j < 0 and beyond `blocks` are bad. */
    __device__ __forceinline__ void take_entries(bool there, int32_t j, float m)
    {
        bool in_range = there && j >= 0 && j < blocks;
        /* Lanes out of range match nobody: no block has their number. */
        unsigned same = __match_any_sync(ALL_LANES, in_range ? j : -1 - maker.lane);
        bool first = in_range && (same & ((1u << maker.lane) - 1)) == 0;
        uint32_t bit = 1u << (j & 31);
        if (first)
            first = !(listed[j >> 5] & bit);
        __syncwarp();
        if (first)
            atomicOr(&listed[j >> 5], bit);
        __syncwarp();
        bad += __popc(__ballot_sync(ALL_LANES, there && !first));

        bool taken = first && j < maker.visible;
        bool always = taken && (maker.flags.at(j) & RFA_BLOCK_ALWAYS_KEEP);
        int to = maker.slot(taken && !always);
        if (always)
            to = rank_of(j);
        if (taken && !always)
            maker.list[to] = j;
        if (taken && mass)
            mass[to] = m;
    }
};

/* Inclusive sum from the warp's last lane down to this one. */
__device__ __forceinline__ double sum_from_above(double x, int lane)
{
    for (int step = 1; step < WARP; step *= 2) {
        double above = __shfl_down_sync(ALL_LANES, x, step);
        x += lane + step < WARP ? above : 0;
    }
    return x;
}

/* Masses become T_n: suffix sums over the whole. */
__device__ __forceinline__ void predict_rest(float *mass, int64_t count, int lane)
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

/* Takes the entries of c.given in turn. */
__device__ __forceinline__ void take_given(const cuda_call &c, const place_of_head &at, arranged &a)
{
    const cuda_lists &g = c.given;
    const int32_t *from =
        g.index + at.batch * g.stride[0] + at.head * g.stride[1] + at.n * g.stride[2];
    const float *mass = g.mass ? g.mass + at.batch * g.mass_stride[0] + at.head * g.mass_stride[1] +
                                     at.n * g.mass_stride[2]
                               : nullptr;
    int64_t count = g.count[at.batch * g.count_stride[0] + at.head * g.count_stride[1] +
                            at.n * g.count_stride[2]];
    count = smaller(count, g.capacity);
    for (int64_t first = 0; first < count; first += WARP) {
        int64_t i = first + a.maker.lane;
        float m = mass && i < count ? mass[i] : 0;
        a.take_entries(i < count, i < count ? from[i] : -1, m > 0 ? m : 0);
    }
    __syncwarp();
}

/* ---- A warp's work -------------------------------------------------------------------------- */

/* The (batch, head, group) `index`: checks c.given, moves always-keep blocks to the
 * front and puts in those that it lacks. */
__device__ __forceinline__ void arrange_list(const cuda_call &c, const cuda_sequence &s,
                                             const block_flags &flags, int64_t index)
{
    place_of_head at = split_index(index, c.heads_q, c.groups);
    int64_t words = ceil_div(c.blocks_k, 32), offset = index * c.blocks_k;
    list_maker maker(c, s, flags, at.n, c.list + offset);
    arranged a = {maker,
                  c.list_rest ? c.list_rest + offset : nullptr,
                  c.listed + index * words,
                  ceil_div(s.len_k, c.block_k),
                  0,
                  0};
    if (maker.exists()) {
        for (int64_t w = maker.lane; w < words; w += WARP)
            a.listed[w] = 0;
        a.place_kept();
        take_given(c, at, a);
        if (a.mass)
            predict_rest(a.mass, maker.count, maker.lane);
    }
    if (maker.lane == 0)
        c.bad_indices[index] = a.bad;
    int64_t head = at.batch * c.heads_q + at.head;
    maker.report(head, head + 1);
}

/* raster and diagonal: one list for all heads of the (sequence, group) `index`. */
__device__ __forceinline__ void place_list(const cuda_call &c, const cuda_sequence &s,
                                           const block_flags &flags, int64_t index)
{
    int64_t n = index / c.groups, group = index % c.groups;
    list_maker maker(c, s, flags, group, c.list + n * c.list_stride[0] + group * c.list_stride[2]);
    maker.list_by_place();
    maker.report(n * c.heads_q, (c.packed ? n + 1 : c.batch) * c.heads_q);
}

__device__ __forceinline__ bool has_own_lists(const cuda_call &c)
{
    return c.order == CUDA_PREDICTED || c.order == CUDA_LIST;
}

/* How many lists there are, and which sequence one is of. */
__device__ __forceinline__ int64_t count_lists(const cuda_call &c)
{
    return (has_own_lists(c) ? c.batch * c.heads_q : c.sequences) * c.groups;
}

__device__ __forceinline__ int64_t sequence_of_list(const cuda_call &c, int64_t index)
{
    return has_own_lists(c) ? sequence_index(c, index / c.groups / c.heads_q) : index / c.groups;
}

__device__ __forceinline__ void make_list(const cuda_call &c, const cuda_sequence &s,
                                          const block_flags &flags, int64_t index)
{
    if (has_own_lists(c))
        arrange_list(c, s, flags, index);
    else
        place_list(c, s, flags, index);
}

#endif
