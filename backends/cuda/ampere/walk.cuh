/* One warp's walk over the visits of its decision block: what it knows, and who it is. What it
 * does is in the files named below. */
#ifndef RFA_CUDA_AMPERE_WALK_CUH
#define RFA_CUDA_AMPERE_WALK_CUH

#include "layout.cuh"

namespace ampere
{

template <class T, int DIM, int TILE, bool CAUSAL, walk_mode MODE> struct walk {
    static constexpr bool decides = MODE != WALK_DENSE;
    using at = layout<DIM, TILE, decides>;
    using exchange = ampere::exchange<at::groups>;
    static constexpr int GROUPS = at::groups, ROWS = at::rows, THREADS = at::threads;
    static constexpr int PARTS = DIM / TILE; /* tiles of a visit's keys, and of its values */
    /* Visit by visit it is written down what is kept, and asked whether the keys end here; else
     * both is done once, before the first visit. (Wide, that would spill.) */
    static constexpr bool records = decides || CAUSAL || DIM > AMPERE_NARROW;
    /* Exponentials take turns with the products of the values. (Wide, that would spill.) */
    static constexpr bool interleaves = MODE != WALK_EXACT && DIM <= AMPERE_NARROW;
    static_assert(PARTS == 1 || (AMPERE_FEWEST_HALVES > PARTS && !interleaves),
                  "room for late values; weights are computed once");
    /* A block of threads without rows visits nothing, but a decision block may have none. */
    static constexpr bool has_rows = GROUPS == 1;

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
        /* Under a causal mask the last rows, which see most, go first. */
        int block = CAUSAL ? (int)gridDim.x - 1 - block_x_now() : block_x_now();
        return block * ROWS;
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

    /* ---- start.cuh ---- */

    __device__ walk(const cuda_call &call, char *raw, int ring_slots);
    __device__ void describe();
    __device__ void start_barriers();
    __device__ void start_deciding();
    __device__ uint32_t *decision_words() const;
    __device__ void clear_decisions();
    __device__ void find_ragged();
    __device__ void record_all();

    /* ---- loads.cuh ---- */

    __device__ void load_queries();
    __device__ int block_of(int n) const;
    __device__ int keys_of(int block) const;
    __device__ int keys_of_row(int row, int block) const;
    __device__ bool sees(int block) const;
    __device__ uint32_t slot_at(int slot) const;
    __device__ uint32_t full_at(int slot) const;
    __device__ uint32_t free_at(int slot) const;
    __device__ bool is_likely(int n) const;
    __device__ void load(uint32_t i, int slot);
    __device__ void await_tile();
    __device__ void leave_tile(int i);
    __device__ void next_tile(int i);
    __device__ uint32_t late_at(int n) const;
    __device__ volatile int *claim_of(int n) const;
    __device__ bool claims(int n);
    __device__ void fetch_late(int n);
    __device__ void await_values(int n);
    __device__ void check_values(int block);

    /* ---- softmax.cuh ---- */

    __device__ void multiply_keys(int part);
    __device__ void mask_past_end(int block);
    __device__ void mask_unseen(int block);
    __device__ void find_tops(float (&top)[4]) const;
    __device__ void weigh(int step, const float (&offset)[4], float (&part)[4]);
    __device__ void find_offsets(const float (&next)[4], float (&offset)[4]) const;
    __device__ void rescale(const float (&next)[4]);
    __device__ void multiply_values(int step, int part);

    /* ---- decisions.cuh ---- */

    __device__ void tell_tops(int n, const float (&top)[4]);
    __device__ void recall_tops(int n, float (&top)[4]) const;
    __device__ void tell_sums(int n, const float (&part)[4]);
    __device__ uint32_t told_at() const;
    __device__ account known(int row, int n) const;
    __device__ void know(int row, int n, const account &a);
    __device__ decider<MODE> decider_now() const;
    __device__ void start_accounts();
    __device__ row_visit look(int r, int n, int block) const;
    __device__ void settle(const row_visit &w, int r, int n, bool keep);
    __device__ int number_of(int n) const;
    __device__ bool counts(int block);
    __device__ bool decide(int n, int block);
    __device__ void record(int block);

    /* ---- finish.cuh ---- */

    __device__ bool join_halves(char *raw, float (&sum)[4]);
    __device__ int64_t caller_row(int row) const;
    template <class O> __device__ void write_row(int i, int64_t row, float sum);
    __device__ void write_rows(const float (&sum)[4]);
    __device__ void report();

    /* ---- attention.cuh ---- */

    __device__ void find_next(const float (&top)[4], float (&next)[4]) const;
    __device__ void weigh_all(const float (&next)[4], float (&part)[4]);
    __device__ void keep(int n, const float (&top)[4], float (&part)[4]);
    __device__ void visit(int n);
    __device__ void run(char *raw);
};

} // namespace ampere

#endif
