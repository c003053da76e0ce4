/* Who is in a block of threads of attention.cuh, and what its shared memory holds. */
#ifndef RFA_CUDA_AMPERE_LAYOUT_CUH
#define RFA_CUDA_AMPERE_LAYOUT_CUH

#include "decider.cuh"

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
    float4 sum[GROUPS * GROUP_THREADS]; /* of a thread's own four rows, over its own columns */
    cuda_sequence sequence;
    row_source source[2]; /* keys, values: from the first row of the sequence on */
    const int32_t *list;  /* the visit group's */
    const float *rest;    /* or NULL */
    const uint8_t *flags; /* of key blocks */
    int kept[GROUPS];
    int rows[GROUPS];  /* that exist */
    int visits, slots; /* slots: of the ring */
    union {
        int ragged;     /* the visit of the block in which the keys end, or -1 */
        int first_keys; /* causal: how many keys the first row sees; the next one sees one more */
    };

    /* For decisions. Where all is kept there is no room from here on. */
    float4 known[GROUPS][2][2][BLOCK_Q]; /* by parity of the visit, half: accounts of rows */
    tally seen[GROUPS];
    uint64_t told[GROUPS]; /* a decision block's warps have told what they saw */
    uint64_t late[2];      /* by parity of the visit: values fetched late */
    int claim[2][4];       /* by parity, quarter of a tile: 2 (visit + 1) + parity of `late` */
    int keeps[4][GROUPS];  /* by the last bits of the visit */
    bool kept_last[GROUPS * GROUP_THREADS];      /* as each thread knows it */
    float limit[GROUPS];                         /* NaN: keeps everything */
    int counted[GROUPS];                         /* causal: visits that count */
    int numbered[GROUPS * GROUP_THREADS / WARP]; /* causal: of them so far, as each warp knows */
};

/* TILE: columns of a tile. */
template <int DIM, int TILE, bool DECIDES> struct layout : tile_layout<TILE> {
    static constexpr int groups = groups_of(DIM), rows = groups * BLOCK_Q,
                         threads = groups * GROUP_THREADS;
    static constexpr int q_pitch = tile_layout<DIM>::pitch;
    static constexpr int x = 0,
                         q = groups *
                             (DECIDES ? AMPERE_EXCHANGE_BYTES : AMPERE_DENSE_EXCHANGE_BYTES),
                         ring = q + rows * DIM * 2;
    static_assert((DECIDES ? sizeof(exchange<groups>) : offsetof(exchange<groups>, known)) <= q,
                  "the host counts shared memory");
};

} // namespace ampere

#endif
