/* Attention by mma.sync and cp.async, for the common case: f16 or bf16, head dims
 * to 128, decision blocks of 64 x 128, no causal mask. attention.cuh serves the rest.
 *
 * Who: four warps compute a decision block. Two halve its rows (32 each, so that every
 * fragment of keys or values feeds two matrix instructions) and two halve the keys (64 each).
 * To head dim 64 a decision block is a block of threads of its own, and a multiprocessor
 * has registers for three. Beyond, two make a block of threads, the only one there is room
 * for: they share the tiles of keys and values and decide apart.
 * The warps of either half of the keys keep running maxima, sums and output of their own,
 * as if the keys had been split between two machines; the halves join at the very end.
 * So without decisions no warp ever waits for another's numbers.
 *
 * Where: q and a ring of two to four tiles of 128 keys or of their values in shared
 * memory, swizzled (ampere_pieces.cuh). Scores (32 x 64 a warp), weights and output
 * (32 x DIM) are registers.
 *
 * Order: keys and values of the visits take slots of the ring in turn. Every warp loads its
 * share of a tile and waits on two barriers a slot: all shares have landed, all warps are
 * done with what was there. Whoever is ahead can get up to a tile further, so that the softmax
 * of one warp runs under the products of another. A walk that decides loads values ahead only
 * if somebody kept the visit before the last, which in the default order is the neighbour;
 * whoever keeps a visit whose values are not there fetches them, once for all.
 *
 * Decisions (ampere_decide.cuh): the four warps tell each other maxima, and sums, once a
 * visit, and each draws the same conclusion. Two of them then bring the accounts up to date.
 *
 * One formula for the kept path in every walk, and sums of its own apart from those that
 * decisions read, is what makes never skipping equal dense bit for bit.
 *
 * Tried and lost, with the figures of docs/performance.md: the two decision blocks in opposite
 * phases, a barrier of all threads between, the halves of the keys sharing their maxima;
 * exponentials between the products of the values, or between those of the visit before (head
 * dim 64); loads a tile later; a warp that only loads (no registers: a ninth warp leaves 168
 * to each thread of all); two decision blocks a block of threads at head dim 64; accounts of
 * every warp's own, brought up to date under the next products.
 */
#ifndef RFA_CUDA_AMPERE_CUH
#define RFA_CUDA_AMPERE_CUH

#include "ampere_decide.cuh"

namespace ampere
{

constexpr int WARP_ROWS = 32, WARP_KEYS = 64;
constexpr int GROUP_THREADS = AMPERE_GROUP_THREADS; /* of a decision block */

constexpr int blocks_of(int dim)
{
    return dim <= AMPERE_NARROW ? AMPERE_NARROW_BLOCKS : 1;
}

constexpr int groups_of(int dim)
{
    return dim <= AMPERE_NARROW ? AMPERE_NARROW_GROUPS : AMPERE_WIDE_GROUPS;
}

/* Shared by all warps. */
template <int GROUPS> struct exchange {
    uint64_t full[AMPERE_MOST_TILES], free[AMPERE_MOST_TILES]; /* by slot of the ring */
    uint64_t told[GROUPS]; /* a decision block's warps have told what they saw */
    uint64_t late[2];      /* by parity of the visit: values fetched late */
    int claim[2][4];       /* by parity, quarter of a tile: 2 (visit + 1) + parity of `late` */
    int keeps[4][GROUPS];  /* by the last bits of the visit */
    int kept[GROUPS];
    bool kept_last[GROUPS * GROUP_THREADS]; /* as each thread knows it */
    tally seen[GROUPS];
    float4 known[GROUPS][2][2][BLOCK_Q]; /* by parity of the visit, half: accounts of rows */
    float4 sum[GROUPS * GROUP_THREADS];  /* of a thread's own four rows, over its own columns */
    float limit[GROUPS];                 /* NaN: keeps everything */
    int rows[GROUPS];                    /* that exist */
    int visits, slots;                   /* slots: of the ring */
    cuda_sequence sequence;
    row_source source[2]; /* keys, values: from the first row of the sequence on */
    const int32_t *list;  /* the visit group's */
    const float *rest;    /* or NULL */
    const uint8_t *flags; /* of key blocks */
};

template <int DIM> struct layout : tile_layout<DIM> {
    static constexpr int groups = groups_of(DIM), rows = groups * BLOCK_Q,
                         threads = groups * GROUP_THREADS;
    static constexpr int x = 0, q = groups * AMPERE_EXCHANGE_BYTES, ring = q + rows * DIM * 2;
    static_assert(sizeof(exchange<groups>) <= q, "the host counts shared memory");
};

template <class T, int DIM, walk_mode MODE> struct walk {
    using at = layout<DIM>;
    using exchange = ampere::exchange<at::groups>;
    static constexpr int GROUPS = at::groups, ROWS = at::rows, THREADS = at::threads;
    static constexpr bool decides = MODE != WALK_DENSE;

    const cuda_call &c;
    uint32_t shared; /* its address */
    exchange &x;
    place_in_ring place;

    /* Rows 16 i / 2 + 8 (i % 2) + lane() / 4 of the warp's 32. */
    float max[4]; /* over this warp's keys */
    float score[2][8][4], out[2][DIM / 8][4];
    uint32_t weight[4][2][4]; /* by 16 keys, 16 rows: an operand each */

    /* ---- Who ---- */

    /* By shifts: divisions of what might be negative take registers that are not there. */

    __device__ __forceinline__ static int lane()
    {
        return thread_now() & 31;
    }

    /* Of this warp: its decision block, and which half of its rows and of the keys. */
    __device__ __forceinline__ static int group()
    {
        return thread_now() >> 7;
    }

    __device__ __forceinline__ static int half_rows()
    {
        return thread_now() / 32 % 2;
    }

    __device__ __forceinline__ static int half_keys()
    {
        return thread_now() >> 6 & 1;
    }

    __device__ __forceinline__ static int warp_row(int i)
    {
        return half_rows() * WARP_ROWS + i / 2 * 16 + i % 2 * 8 + lane() / 4;
    }

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

    /* Whether this warp's decision block kept the last visit; in shared memory, because
     * there is no register left. */
    __device__ __forceinline__ bool kept_last() const
    {
        return ((const volatile bool *)x.kept_last)[thread_now()];
    }

    __device__ __forceinline__ void remember(bool keep)
    {
        ((volatile bool *)x.kept_last)[thread_now()] = keep;
    }

    /* scale log2(e) */
    __device__ __forceinline__ float factor() const
    {
        return c.scale * 1.44269504088896340736f;
    }

    /* ---- Start ---- */

    __device__ __forceinline__ walk(const cuda_call &call, char *raw, int ring_slots)
        : c(call), shared(shared_address(raw)), x(*(exchange *)(raw + at::x))
    {
        place = {0, 0};
        if (threadIdx.x == 0) {
            x.slots = ring_slots;
            describe();
            start_barriers();
        }
        __syncthreads();
#pragma unroll
        for (int i = 0; i < 4; i++) {
            max[i] = -INFINITY;
        }
        x.sum[threadIdx.x] = {0, 0, 0, 0};
        remember(false);
#pragma unroll
        for (int i = 0; i < DIM; i++)
            out[i / (DIM / 2)][i / 4 % (DIM / 8)][i % 4] = 0;
    }

    /* By one thread. */
    __device__ __forceinline__ void describe()
    {
        int64_t n = sequence_index(c, batch());
        const cuda_sequence s = c.sequence[n];
        int64_t group_of_visits = first_row() / c.visit_q;
        int64_t head_kv = head() / (c.heads_q / c.heads_kv);
        int64_t entry = batch() * c.list_stride[0] + head() * c.list_stride[1] +
                        group_of_visits * c.list_stride[2];
        x.sequence = s;
        x.source[0] = {(const char *)row_at<const T>(c.seen_k, batch(), head_kv, s.first_k),
                       c.seen_k.stride[2] * (int)sizeof(T), (c.dim + 7) / 8};
        x.source[1] = {(const char *)row_at<const T>(c.seen_v, batch(), head_kv, s.first_k),
                       c.seen_v.stride[2] * (int)sizeof(T), (c.dim_v + 7) / 8};
        x.list = c.list + entry;
        x.rest = c.list_rest ? c.list_rest + entry : nullptr;
        x.flags = c.key_flags + n * c.blocks_k;
        x.visits = 0;
        if (first_row() < s.len_q)
            x.visits = c.list_count[head_index() * c.groups + group_of_visits];
#pragma unroll
        for (int g = 0; g < GROUPS; g++) {
            int block = first_row() / BLOCK_Q + g;
            x.rows[g] = (int)smaller(BLOCK_Q, s.len_q - first_row() - g * BLOCK_Q);
            x.kept[g] = 0;
            if (decides)
                x.limit[g] = x.rows[g] > 0 && c.dense_rows[n * c.blocks_q + block]
                                 ? NAN
                                 : c.limits[head_index()];
        }
    }

    __device__ __forceinline__ void start_barriers()
    {
#pragma unroll
        for (int i = 0; i < AMPERE_MOST_TILES; i++) {
            start_barrier(&x.full[i], THREADS);
            start_barrier(&x.free[i], THREADS / WARP);
        }
#pragma unroll
        for (int g = 0; g < GROUPS; g++)
            start_barrier(&x.told[g], 4);
#pragma unroll
        for (int i = 0; i < 2; i++) {
            start_barrier(&x.late[i], 4 * WARP);
            for (int j = 0; j < 4; j++)
                x.claim[i][j] = 1; /* whose successor has parity 0 */
        }
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
        for (int64_t i = threadIdx.x % GROUP_THREADS; words && i < ceil_div(c.blocks_k, 32);
             i += GROUP_THREADS)
            words[i] = 0;
    }

    /* ---- Loads ---- */

    __device__ __forceinline__ void load_queries()
    {
        const T *from =
            row_at<const T>(c.seen_q, batch(), head(), x.sequence.first_q + first_row());
        load_tile<DIM, ROWS, THREADS>(
            shared + at::q, (const char *)from, c.seen_q.stride[2] * (int)sizeof(T),
            (int)smaller(ROWS, x.sequence.len_q - first_row()), (c.dim + 7) / 8, thread_now());
    }

    __device__ __forceinline__ int block_of(int n) const
    {
        return __ldg(x.list + (uint32_t)n);
    }

    __device__ __forceinline__ int keys_of(int block) const
    {
        return min(BLOCK_K, (int)x.sequence.len_k - block * BLOCK_K);
    }

    __device__ __forceinline__ uint32_t slot_at(int slot) const
    {
        return shared + at::ring + slot * at::bytes;
    }

    __device__ __forceinline__ uint32_t full_at(int slot) const
    {
        return shared + at::x + (int)offsetof(exchange, full) + slot * 8;
    }

    __device__ __forceinline__ uint32_t free_at(int slot) const
    {
        return shared + at::x + (int)offsetof(exchange, free) + slot * 8;
    }

    /* Whether somebody is expected to keep visit n: all warps say the same, since they know
     * visit n - 2 when they first ask. In the default order that is its neighbour. */
    __device__ __forceinline__ bool is_likely(int n) const
    {
        if (!decides || n < 2)
            return true;
        int any = 0;
#pragma unroll
        for (int g = 0; g < GROUPS; g++)
            any |= ((volatile int *)x.keeps[(n - 2) % 4])[g];
        return any;
    }

    /* Tile i: keys of visit i / 2, or its values if they are likely to be wanted. */
    __device__ __forceinline__ void load(int i, int slot)
    {
        int n = i / 2;
        if (n >= x.visits)
            return;
        if (i % 2 == 0 || is_likely(n)) {
            const row_source &from = x.source[i % 2];
            int block = block_of(n);
            load_tile<DIM, BLOCK_K, THREADS>(slot_at(slot),
                                             from.first + (int64_t)block * BLOCK_K * from.pitch,
                                             from.pitch, keys_of(block), from.chunks, thread_now());
        }
        arrive_after_copies(full_at(slot));
    }

    __device__ __forceinline__ void await_tile()
    {
        wait_for(full_at(place.slot), place.parity);
    }

    /* This warp is done with tile i. */
    __device__ __forceinline__ void leave_tile(int i)
    {
        int slots = x.slots;
        place_in_ring next = before(place, slots);
        __syncwarp();
        if (lane() == 0)
            arrive(free_at(place.slot));
        place = after(place, slots);
        wait_for(free_at(next.slot), next.parity);
        load(i + slots - 1, next.slot);
    }

    /* ---- Scores ---- */

    __device__ __forceinline__ void multiply_keys()
    {
        int thread = thread_now(), own = thread & 31, swizzle = own % 8;
        int q_row = (thread >> 7) * BLOCK_Q + (thread >> 5 & 1) * WARP_ROWS + own % 16;
        int k_row = (thread >> 6 & 1) * WARP_KEYS + own % 8 + own / 16 * 8;
        uint32_t q = shared + at::q + q_row * at::pitch + ((own / 16 ^ swizzle) << 4);
        uint32_t k = slot_at(place.slot) + k_row * at::pitch + ((own / 8 % 2 ^ swizzle) << 4);
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

    __device__ __forceinline__ void find_tops(float (&top)[4]) const
    {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            top[i] = -INFINITY;
#pragma unroll
            for (int n = 0; n < 8; n++)
                top[i] = larger(top[i],
                                larger(score[i / 2][n][i % 2 * 2], score[i / 2][n][i % 2 * 2 + 1]));
            top[i] = quad_max(top[i]);
        }
    }

    /* ---- Softmax ---- */

    /* Of 16 keys: scores become exp(S - m'), rounded; sums of this thread's columns. */
    __device__ __forceinline__ void weigh(int step, const float (&offset)[4], float (&part)[4])
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

    __device__ __forceinline__ void find_offsets(const float (&next)[4], float (&offset)[4]) const
    {
#pragma unroll
        for (int i = 0; i < 4; i++)
            offset[i] = (next[i] == -INFINITY ? 0 : next[i]) * factor();
    }

    /* What is there already is brought to the new maxima. */
    __device__ __forceinline__ void rescale(const float (&next)[4])
    {
        float decay[4];
        bool same = true;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float reference = next[i] == -INFINITY ? 0 : next[i];
            decay[i] = exp2_fast((max[i] - reference) * factor());
            same &= decay[i] == 1;
            max[i] = next[i];
        }
        float4 &sum = x.sum[decides ? thread_now() : threadIdx.x];
        sum = {sum.x * decay[0], sum.y * decay[1], sum.z * decay[2], sum.w * decay[3]};
        if (__all_sync(ALL_LANES, same))
            return;
#pragma unroll
        for (int i = 0; i < DIM; i++) {
            int m = i / (DIM / 2), e = i % 4;
            out[m][i / 4 % (DIM / 8)][e] *= decay[m * 2 + e / 2];
        }
    }

    __device__ __forceinline__ void multiply_values(int step)
    {
        int thread = thread_now(), own = thread & 31;
        int row = (thread >> 6 & 1) * WARP_KEYS + own % 16;
        uint32_t v = slot_at(place.slot) + row * at::pitch + ((own / 16 ^ own % 8) << 4);
#pragma unroll
        for (int d = 0; d < DIM / 16; d++) {
            uint32_t mix = (d * 2 % 8) << 4, far = d / 4 * 128, b[4];
            load_matrices_transposed_at(b, (v ^ mix) + far + step * 16 * at::pitch);
#pragma unroll
            for (int m = 0; m < 2; m++) {
                multiply_add(out[m][2 * d], weight[step][m], b[0], b[1], T());
                multiply_add(out[m][2 * d + 1], weight[step][m], b[2], b[3], T());
            }
        }
    }

    /* ---- Decisions ---- */

    __device__ __forceinline__ void tell_tops(int n, const float (&top)[4])
    {
        x.seen[group()].top[n % 2][half_keys()][warp_row(lane() % 4)] = own_of_quad(top, lane());
    }

    /* What this warp told, again: rather than keep it in registers. */
    __device__ __forceinline__ void recall_tops(int n, float (&top)[4]) const
    {
        const volatile float *told = x.seen[group()].top[n % 2][half_keys()];
#pragma unroll
        for (int i = 0; i < 4; i++)
            top[i] = told[warp_row(i)];
    }

    __device__ __forceinline__ void tell_sums(int n, const float (&part)[4])
    {
        float all[4];
#pragma unroll
        for (int i = 0; i < 4; i++)
            all[i] = quad_sum(part[i]);
        x.seen[group()].sum[n % 2][half_keys()][warp_row(lane() % 4)] = own_of_quad(all, lane());
    }

    __device__ __forceinline__ uint32_t told_at() const
    {
        return shared + at::x + (int)offsetof(exchange, told) + group() * 8;
    }

    /* What is known of a row after visit n. */
    __device__ __forceinline__ account known(int row, int n) const
    {
        const float4(*at)[BLOCK_Q] = x.known[group()][n & 1];
        float4 a = at[0][row], b = at[1][row];
        return {a.x, {a.y, a.z}, a.w, b.x, b.y, b.z, b.w};
    }

    __device__ __forceinline__ void know(int row, int n, const account &a)
    {
        float4(*at)[BLOCK_Q] = x.known[group()][n & 1];
        at[0][row] = {a.max, a.half[0], a.half[1], a.kept};
        at[1][row] = {a.skipped, a.kappa, a.learned, a.top};
    }

    __device__ __forceinline__ decider<MODE> decider_now() const
    {
        return {x.seen[group()],
                {c.rule, x.limit[group()], c.share, c.pace, {0, 0}},
                factor(),
                c.scale,
                x.rows[group()]};
    }

    __device__ __forceinline__ void start_accounts()
    {
        int row = threadIdx.x % GROUP_THREADS;
        if (row < BLOCK_Q)
            know(row, -1, {-INFINITY, {-INFINITY, -INFINITY}, 0, 0, 0, 0, 0});
    }

    /* Visit n as row r of this lane sees it; sums of the visit before, if that was kept, are
     * not in the account yet. */
    __device__ __forceinline__ row_visit look(int r, int n, int block) const
    {
        const decider<MODE> d = decider_now();
        int row = lane() + WARP * r;
        account a = known(row, n - 1);
        if (MODE != WALK_EXACT && kept_last())
            d.count(a, row, (n - 1) % 2);
        return d.look(a, row, n % 2, (float)keys_of(block));
    }

    __device__ __forceinline__ void settle(const row_visit &w, int r, int n, bool keep)
    {
        know(lane() + WARP * r, n,
             keep ? decider_now().after_keeping(w) : decider_now().after_skipping(w));
    }

    /* Whether this warp's decision block keeps visit n. One warp for each row of a lane
     * brings accounts up to date; they are asked for once all have told the next visit. */
    __device__ __forceinline__ bool decide(int n, int block)
    {
        float rest = x.rest ? __ldg(x.rest + (uint32_t)n) : RFA_NO_PREDICTION;
        bool always =
            n == 0 || isnan(x.limit[group()]) || (__ldg(x.flags + block) & RFA_BLOCK_ALWAYS_KEEP);
        opinion own = {0, 0, false};
        wait_for(told_at(), n % 2);
#pragma unroll(DIM <= AMPERE_NARROW ? 1 : 2)
        for (int r = 0; r < 2; r++)
            decider_now().ask(look(r, n, block), own);
        bool keep = rows() > 0 && (always || !decider_now().skips(own, n, x.visits, rest));
        keep = __any_sync(ALL_LANES, keep);
        if (threadIdx.x % GROUP_THREADS == 0)
            x.keeps[n % 4][group()] = keep;
        int r = thread_now() >> 5 & 3;
        if (r < 2)
            settle(look(r, n, block), r, n, keep);
        remember(keep);
        return keep;
    }

    /* By one thread of the decision block. */
    __device__ __forceinline__ void record(int block)
    {
        uint32_t *words = decision_words();
        x.kept[group()]++;
        if (words)
            atomicOr(words + block / 32, 1u << block % 32);
    }

    /* ---- Values that nobody expected to want ---- */

    __device__ __forceinline__ uint32_t late_at(int n) const
    {
        return shared + at::x + (int)offsetof(exchange, late) + n % 2 * 8;
    }

    __device__ __forceinline__ volatile int *claim_of(int n) const
    {
        return &x.claim[n % 2][thread_now() >> 5 & 3];
    }

    /* By one lane: whether its warp is the first to want its quarter of visit n's values. */
    __device__ __forceinline__ bool claims(int n)
    {
        int before = *claim_of(n), claimed = 2 * (n + 1) + (~before & 1);
        return before / 2 != n + 1 && atomicCAS((int *)claim_of(n), before, claimed) == before;
    }

    /* A tile is fetched in quarters, each by the warp of that number of the decision block
     * that comes first. */
    __device__ __forceinline__ void fetch_late(int n)
    {
        if (!__any_sync(ALL_LANES, lane() == 0 && claims(n)))
            return;
        int block = block_of(n), row = (thread_now() >> 5 & 3) * 32;
        const row_source &from = x.source[1];
        load_quarter<DIM>(slot_at(place.slot) + row * at::pitch,
                          from.first + ((int64_t)block * BLOCK_K + row) * from.pitch, from.pitch,
                          keys_of(block) - row, from.chunks, lane());
        arrive_after_copies(late_at(n));
    }

    __device__ __forceinline__ void await_values(int n)
    {
        await_tile();
        if (decides && !is_likely(n))
            wait_for(late_at(n), *claim_of(n) & 1);
    }

    /* ---- A visit ---- */

    __device__ __forceinline__ void find_next(const float (&top)[4], float (&next)[4]) const
    {
#pragma unroll
        for (int i = 0; i < 4; i++)
            next[i] = larger(max[i], top[i]);
    }

    __device__ __forceinline__ void weigh_all(const float (&next)[4], float (&part)[4])
    {
        float offset[4];
        find_offsets(next, offset);
#pragma unroll
        for (int step = 0; step < 4; step++)
            weigh(step, offset, part);
    }

    __device__ __forceinline__ void keep(int n, const float (&top)[4], float (&part)[4])
    {
        float next[4];
        find_next(top, next);
        if (MODE != WALK_EXACT)
            weigh_all(next, part);
        rescale(next);
        await_values(n);
#pragma unroll
        for (int step = 0; step < 4; step++)
            multiply_values(step);
        float4 &sum = x.sum[decides ? thread_now() : threadIdx.x];
        sum = {sum.x + part[0], sum.y + part[1], sum.z + part[2], sum.w + part[3]};
    }

    __device__ __forceinline__ void visit(int n)
    {
        int block = block_of(n);
        float top[4], part[4] = {0, 0, 0, 0};
        await_tile();
        multiply_keys();
        leave_tile(2 * n);
        mask_past_end(block);
        find_tops(top);
        if (decides)
            tell_tops(n, top);
        if (MODE == WALK_EXACT) {
            float next[4];
            find_next(top, next);
            weigh_all(next, part);
            tell_sums(n, part);
        }
        bool keeps = rows() > 0;
        if (decides) {
            __syncwarp();
            if (lane() == 0)
                arrive(told_at());
            /* Wide: `block` would spill where masses are estimated; narrow: asking again would. */
            keeps = decide(n, DIM > AMPERE_NARROW ? block_of(n) : block);
            if (keeps && !is_likely(n))
                fetch_late(n);
        }
        if (keeps) {
            if (decides)
                recall_tops(n, top);
            keep(n, top, part);
            if (MODE == WALK_VOTE || MODE == WALK_ESTIMATED)
                tell_sums(n, part);
            if (threadIdx.x % GROUP_THREADS == 0)
                record(block_of(n));
        } else {
            await_tile(); /* else copies to come could overtake these */
        }
        leave_tile(2 * n + 1);
    }

    /* ---- End ---- */

    /* The partial sums over the upper half of the keys join those over the lower
     * one. True for the warps that then have the rows. */
    __device__ __forceinline__ bool join_halves(char *raw, float (&sum)[4])
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
                    sum[i] == 0 ? -INFINITY : max[i] * c.scale + logf(sum[i]);
        }
    }

    /* By one warp of the decision block. */
    __device__ __forceinline__ void report()
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

    __device__ __forceinline__ void run(char *raw)
    {
        clear_decisions();
        load_queries();
        if (decides)
            start_accounts();
        for (int i = 0; i < x.slots - 1; i++)
            load(i, i);
        if (x.visits == 0)
            wait_copies<0>();
        __syncthreads(); /* decisions are clear */
#pragma unroll 1
        for (int n = 0; n < x.visits; n++)
            visit(n);
        float sum[4];
        if (join_halves(raw, sum))
            write_rows(sum);
        if (threadIdx.x % GROUP_THREADS < WARP)
            report();
    }
};

} // namespace ampere

#define AMPERE_KERNEL(name, type, dim, mode)                                                       \
    extern "C" __global__ void __launch_bounds__(ampere::layout<dim>::threads,                     \
                                                 ampere::blocks_of(dim))                           \
        name(const __grid_constant__ cuda_call c, int slots)                                       \
    {                                                                                              \
        extern __shared__ __align__(1024) char raw[];                                              \
        ampere::walk<type, dim, ampere::mode>(c, raw, slots).run(raw);                             \
    }

#define AMPERE_KERNELS(name, type, dim)                                                            \
    AMPERE_KERNEL(name##_dense, type, dim, WALK_DENSE)                                             \
    AMPERE_KERNEL(name##_vote, type, dim, WALK_VOTE)                                               \
    AMPERE_KERNEL(name##_estimated, type, dim, WALK_ESTIMATED)                                     \
    AMPERE_KERNEL(name##_exact, type, dim, WALK_EXACT)

#endif
