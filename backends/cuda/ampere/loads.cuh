/* How the walks of attention.cuh load tiles: the ring in which keys and values take turns, and
 * values that nobody expected to want. */
#ifndef RFA_CUDA_AMPERE_LOADS_CUH
#define RFA_CUDA_AMPERE_LOADS_CUH

#include "walk.cuh"

namespace ampere
{

/* ---- The ring -------------------------------------------------------------------------------- */

template <class T, int DIM, int TILE, bool CAUSAL, walk_mode MODE>
__device__ __forceinline__ void walk<T, DIM, TILE, CAUSAL, MODE>::load_queries()
{
    const T *from = row_at<const T>(c.seen_q, batch(), head(), x.sequence.first_q + first_row());
    load_tile<DIM, ROWS, THREADS>(
        shared + at::q, (const char *)from, c.seen_q.stride[2] * (int)sizeof(T),
        (int)smaller(ROWS, x.sequence.len_q - first_row()), (c.dim + 7) / 8, thread_now());
}

template <class T, int DIM, int TILE, bool CAUSAL, walk_mode MODE>
__device__ __forceinline__ int walk<T, DIM, TILE, CAUSAL, MODE>::block_of(int n) const
{
    return __ldg(x.list + (uint32_t)n);
}

template <class T, int DIM, int TILE, bool CAUSAL, walk_mode MODE>
__device__ __forceinline__ int walk<T, DIM, TILE, CAUSAL, MODE>::keys_of(int block) const
{
    return min(BLOCK_K, (int)x.sequence.len_k - block * BLOCK_K);
}

/* Of a block's keys, how many a row of the decision block sees: the first ones. */
template <class T, int DIM, int TILE, bool CAUSAL, walk_mode MODE>
__device__ __forceinline__ int walk<T, DIM, TILE, CAUSAL, MODE>::keys_of_row(int row,
                                                                             int block) const
{
    if (!CAUSAL)
        return keys_of(block);
    int keys = x.first_keys + group() * BLOCK_Q + row - block * BLOCK_K;
    keys = keys < 0 ? 0 : keys;
    return min(keys, keys_of(block));
}

/* Whether a row of this warp's decision block sees something of it. */
template <class T, int DIM, int TILE, bool CAUSAL, walk_mode MODE>
__device__ __forceinline__ bool walk<T, DIM, TILE, CAUSAL, MODE>::sees(int block) const
{
    return !CAUSAL || keys_of_row(rows() - 1, block) > 0;
}

template <class T, int DIM, int TILE, bool CAUSAL, walk_mode MODE>
__device__ __forceinline__ uint32_t walk<T, DIM, TILE, CAUSAL, MODE>::slot_at(int slot) const
{
    return shared + at::ring + slot * at::bytes;
}

template <class T, int DIM, int TILE, bool CAUSAL, walk_mode MODE>
__device__ __forceinline__ uint32_t walk<T, DIM, TILE, CAUSAL, MODE>::full_at(int slot) const
{
    return shared + at::x + (int)offsetof(exchange, full) + slot * 8;
}

template <class T, int DIM, int TILE, bool CAUSAL, walk_mode MODE>
__device__ __forceinline__ uint32_t walk<T, DIM, TILE, CAUSAL, MODE>::free_at(int slot) const
{
    return shared + at::x + (int)offsetof(exchange, free) + slot * 8;
}

/* Whether somebody is expected to keep visit n: all warps say the same, since they know
 * visit n - 2 when they first ask. In the default order that is its neighbour. */
template <class T, int DIM, int TILE, bool CAUSAL, walk_mode MODE>
__device__ __forceinline__ bool walk<T, DIM, TILE, CAUSAL, MODE>::is_likely(int n) const
{
    if (!decides || n < 2)
        return true;
    int any = 0;
#pragma unroll
    for (int g = 0; g < GROUPS; g++)
        any |= ((volatile int *)x.keeps[(n - 2) % 4])[g];
    return any;
}

/* Tile i: a part of some visit's keys, or of its values if they are likely to be wanted. By
 * shifts, as in walk.cuh. */
template <class T, int DIM, int TILE, bool CAUSAL, walk_mode MODE>
__device__ __forceinline__ void walk<T, DIM, TILE, CAUSAL, MODE>::load(uint32_t i, int slot)
{
    int n = i / (2 * PARTS), values = i / PARTS % 2, part = i % PARTS;
    if (n >= x.visits)
        return;
    if (!values || is_likely(n)) {
        const row_source &from = x.source[values];
        int block = block_of(n);
        load_tile<TILE, BLOCK_K, THREADS>(
            slot_at(slot), from.first + (int64_t)block * BLOCK_K * from.pitch + part * at::pitch,
            from.pitch, keys_of(block), from.chunks - part * (TILE / 8), thread_now());
    }
    arrive_after_copies(records ? full_at(slot) : uniform(full_at(slot)));
}

template <class T, int DIM, int TILE, bool CAUSAL, walk_mode MODE>
__device__ __forceinline__ void walk<T, DIM, TILE, CAUSAL, MODE>::await_tile()
{
    wait_for(full_at(place.slot), place.parity);
}

/* This warp is done with tile i. */
template <class T, int DIM, int TILE, bool CAUSAL, walk_mode MODE>
__device__ __forceinline__ void walk<T, DIM, TILE, CAUSAL, MODE>::leave_tile(int i)
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

/* From the tile before to tile i. */
template <class T, int DIM, int TILE, bool CAUSAL, walk_mode MODE>
__device__ __forceinline__ void walk<T, DIM, TILE, CAUSAL, MODE>::next_tile(int i)
{
    leave_tile(i - 1);
    await_tile();
}

/* ---- Values that nobody expected to want ----------------------------------------------------- */

template <class T, int DIM, int TILE, bool CAUSAL, walk_mode MODE>
__device__ __forceinline__ uint32_t walk<T, DIM, TILE, CAUSAL, MODE>::late_at(int n) const
{
    return shared + at::x + (int)offsetof(exchange, late) + n % 2 * 8;
}

template <class T, int DIM, int TILE, bool CAUSAL, walk_mode MODE>
__device__ __forceinline__ volatile int *walk<T, DIM, TILE, CAUSAL, MODE>::claim_of(int n) const
{
    return &x.claim[n % 2][thread_now() >> 5 & 3];
}

/* By one lane: whether its warp is the first to want its quarter of visit n's values. */
template <class T, int DIM, int TILE, bool CAUSAL, walk_mode MODE>
__device__ __forceinline__ bool walk<T, DIM, TILE, CAUSAL, MODE>::claims(int n)
{
    int before = *claim_of(n), claimed = 2 * (n + 1) + (~before & 1);
    return before / 2 != n + 1 && atomicCAS((int *)claim_of(n), before, claimed) == before;
}

/* Values are fetched in quarters, each by the warp of that number of the decision block
 * that comes first. */
template <class T, int DIM, int TILE, bool CAUSAL, walk_mode MODE>
__device__ __forceinline__ void walk<T, DIM, TILE, CAUSAL, MODE>::fetch_late(int n)
{
    if (!__any_sync(ALL_LANES, lane() == 0 && claims(n)))
        return;
    int block = block_of(n), row = (thread_now() >> 5 & 3) * 32;
    const row_source &from = x.source[1];
    const char *first = from.first + ((int64_t)block * BLOCK_K + row) * from.pitch;
    place_in_ring to = place;
#pragma unroll
    for (int part = 0; part < PARTS; part++, to = after(to, x.slots))
        load_quarter<TILE>(slot_at(to.slot) + row * at::pitch, first + part * at::pitch, from.pitch,
                           keys_of(block) - row, from.chunks - part * (TILE / 8), lane());
    arrive_after_copies(late_at(n));
}

template <class T, int DIM, int TILE, bool CAUSAL, walk_mode MODE>
__device__ __forceinline__ void walk<T, DIM, TILE, CAUSAL, MODE>::await_values(int n)
{
    await_tile();
    if (decides && !is_likely(n))
        wait_for(late_at(n), *claim_of(n) & 1);
}

/* Of keys that the mask hides from some row of the warp, values that are not finite: 0 times them
 * is not 0. Who finds one leaves the call to the kernel for any shape, which comes next. */
template <class T, int DIM, int TILE, bool CAUSAL, walk_mode MODE>
__device__ __forceinline__ void walk<T, DIM, TILE, CAUSAL, MODE>::check_values(int block)
{
    constexpr uint32_t exponents = is_bf16<T> ? 0x7f807f80 : 0x7c007c00;
    constexpr uint32_t carry = is_bf16<T> ? 0x00800080 : 0x04000400;
    if (keys_of_row(half_rows() * WARP_ROWS, block) >= (half_keys() + 1) * WARP_KEYS)
        return;
    uint32_t found = 0, at = slot_at(place.slot) + half_keys() * WARP_KEYS * at::pitch;
#pragma unroll 1
    for (int i = lane() * 4; i < WARP_KEYS * at::pitch; i += WARP * 4)
        found |= ((load_shared_word(at + i) & exponents) + carry) & 0x80008000;
    if (found)
        *c.gave_up = 1;
}

} // namespace ampere

#endif
