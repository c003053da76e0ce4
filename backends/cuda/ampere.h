/* How the kernels of ampere.cuh are started. Grid: (ceil(len_q / rows), heads, batch).
 * Shared memory: AMPERE_EXCHANGE_BYTES, q, and a ring of tiles of AMPERE_BLOCK_K rows.
 * Parameters: a cuda_call and, as an int, how many tiles the ring holds. */
#ifndef RFA_CUDA_AMPERE_H
#define RFA_CUDA_AMPERE_H

#ifndef AMP_G64
#define AMP_G64 2
#define AMP_T64 1
#endif

/* Decision blocks of a block of threads, and blocks of threads that share a
 * multiprocessor, by head dim. */
#define AMPERE_GROUPS(dim) ((dim) == 64 ? AMP_G64 : 2)
#define AMPERE_TOGETHER(dim) ((dim) == 64 ? AMP_T64 : 1)
#define AMPERE_EXCHANGE_BYTES(groups) (512 + 12288 * (groups))

enum {
    AMPERE_BLOCK_Q = 64,
    AMPERE_BLOCK_K = 128,
    AMPERE_FEWEST_TILES = 2,
    AMPERE_MOST_TILES = 4
};

#endif
