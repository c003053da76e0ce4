/* What a consumer does about keys that rows do not see, and rows that are another sequence's:
 * varied kernels. */
#ifndef RFA_HOPPER_HIDDEN_KEYS_CUH
#define RFA_HOPPER_HIDDEN_KEYS_CUH

#include "consumer.cuh"

/* Zeros in place of V's rows beyond a pack's sequence, which are another's or nobody's: own
 * rows must not even learn whether they are finite. Warpgroups that keep the visit all do so.
 */
template <typename T, int dim, walk_mode mode, int groups, bool varied>
__device__ __forceinline__ void
consumer<T, dim, mode, groups, varied>::clear_values_beyond(uint32_t tile, int rows)
{
#pragma unroll
    for (int half = 0; half < t::halves; half++)
#pragma unroll 1
        for (int chunk = rows * 8 + thread; chunk < HOPPER_BLOCK_K * 8; chunk += 128)
            store_shared(tile + half * t::k_half + (uint32_t)chunk * 16, {0, 0, 0, 0});
    fence_for_products();
    group_sync(GROUP_BARRIER + group, 128);
}

/* Whether V's tile of visit n holds an infinity or a NaN, where some row does not see all of
 * its keys: 0 times that would not be 0. */
template <typename T, int dim, walk_mode mode, int groups, bool varied>
__device__ __forceinline__ bool
consumer<T, dim, mode, groups, varied>::hides_special(uint32_t listed, uint32_t n)
{
    /* Estimated masses: asking after the warpgroup's own rows too would spill. */
    const bool hidden = mode == WALK_ESTIMATED ? listed & RAGGED : hides_keys(listed);
    if (!varied || !__any_sync(~0u, hidden))
        return false;
    WAIT_FOR_VISIT(v_ready, n);
    uint32_t tile = s.v + n % HOPPER_V_STAGES * t::k_bytes;
    const int rows = s.x->keys[group] - (int)(listed & block_bits<varied>)*HOPPER_BLOCK_K;
    if (p.packed && rows < HOPPER_BLOCK_K)
        clear_values_beyond(tile, rows);
    tile += (uint32_t)thread * 16;
    uint32_t zeros = 0;          /* until 0 times something is NaN */
#pragma unroll(measures ? 1 : 4) /* more would spill */
    for (int i = 0; i < (int)t::k_bytes / (128 * 16); i++, tile += 128 * 16) {
        if (i * 16 % HOPPER_BLOCK_K + thread / 8 >= rows) /* others may be clearing it */
            continue;
        const uint4 x = load_shared(tile);
        zeros = add_zero_times<T>(x.x, add_zero_times<T>(x.y, zeros));
        zeros = add_zero_times<T>(x.z, add_zero_times<T>(x.w, zeros));
    }
    const bool special = zeros & 0x7fff7fff;
    return __any_sync(~0u, !group_all(GROUP_BARRIER + group, 128, !special));
}

/* A row's weight of one of the keys that its four threads have in `word`. */
template <typename T, int dim, walk_mode mode, int groups, bool varied>
__device__ __forceinline__ float consumer<T, dim, mode, groups, varied>::weight_of(float word,
                                                                                   int key)
{
    uint32_t pair = __shfl_sync(~0u, __float_as_uint(word), (thread % 32 & ~3) + key % 8 / 2);
    float2 both = unpack<T>(pair);
    return key % 2 ? both.y : both.x;
}

/* Output += packed weights times the V tile of visit n, key by key, of each row's first keys
 * alone. */
template <typename T, int dim, walk_mode mode, int groups, bool varied>
__device__ __forceinline__ void
consumer<T, dim, mode, groups, varied>::add_values_by_key(uint32_t listed, uint32_t n)
{
    const uint32_t tile = s.v + n % HOPPER_V_STAGES * t::k_bytes + thread % 4 * 4;
#pragma unroll 1
    for (int key = 0; key < HOPPER_BLOCK_K; key++) {
        const bool later = key % 16 >= 8;
        float low = weight_of(later ? score[2] : score[0], key);
        float high = weight_of(later ? score[3] : score[1], key);
        const bool low_sees = key < keys_seen(listed, 0), high_sees = key < keys_seen(listed, 1);
        const uint32_t row = tile + (uint32_t)(key * 128 + key % 8 * 16); /* of chunk 0 */
#pragma unroll
        for (int i = 0; i < out_registers / 4; i++) {
            float2 v =
                unpack<T>(load_shared_word((row ^ i % 8 * 16) + (uint32_t)(i / 8) * t::k_half));
            if (low_sees) {
                out[4 * i] = fmaf(low, v.x, out[4 * i]);
                out[4 * i + 1] = fmaf(low, v.y, out[4 * i + 1]);
            }
            if (high_sees) {
                out[4 * i + 2] = fmaf(high, v.x, out[4 * i + 2]);
                out[4 * i + 3] = fmaf(high, v.y, out[4 * i + 3]);
            }
        }
        if (key % 16 == 15) {
#pragma unroll
            for (int i = 0; i < 28; i++)
                score[i / 4 * 8 + i % 4] = score[i / 4 * 8 + 8 + i % 4];
        }
    }
}

/* Of row r, of all keys: the rows' four threads write the same. */
template <typename T, int dim, walk_mode mode, int groups, bool varied>
__device__ __forceinline__ int
consumer<T, dim, mode, groups, varied>::keys_of_row(const work_item &item, const item_span &span,
                                                    int r)
{
    int64_t row = item.row() + group * HOPPER_BLOCK_Q + own_row(r);
    int64_t keys = row + 1 + span.len_k - span.len_q;
    return !p.causal || keys > span.len_k ? span.len_k : keys < 0 ? 0 : (int)keys;
}

/* Rows beyond the sequence are another's q, which would tell its own rows how to sum. */
template <typename T, int dim, walk_mode mode, int groups, bool varied>
__device__ __forceinline__ void consumer<T, dim, mode, groups, varied>::clear_rows_beyond()
{
    for (uint32_t at = (uint32_t)thread * 16; at < t::q_bytes; at += 128 * 16)
        if ((int)(at % t::q_half / 128) >= rows)
            store_shared(s.q + group * t::q_bytes + at, {0, 0, 0, 0});
    fence_for_products();
    group_sync(GROUP_BARRIER + group, 128);
}

#endif
