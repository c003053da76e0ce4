/* How the kernels of ampere.cuh are started. Grid: (ceil(len_q / AMPERE_ROWS), heads,
 * batch). Shared memory: AMPERE_EXCHANGE_BYTES, q, and a ring of tiles of AMPERE_BLOCK_K
 * rows. Parameters: a cuda_call and, as an int, how many tiles the ring holds. */
#ifndef RFA_CUDA_AMPERE_H
#define RFA_CUDA_AMPERE_H

enum {
    AMPERE_BLOCK_Q = 64,
    AMPERE_BLOCK_K = 128,
    AMPERE_GROUPS = 2, /* decision blocks of a block of threads */
    AMPERE_ROWS = AMPERE_GROUPS * AMPERE_BLOCK_Q,
    AMPERE_THREADS = AMPERE_GROUPS * 128,
    AMPERE_EXCHANGE_BYTES = 25088,
    AMPERE_FEWEST_TILES = 2,
    AMPERE_MOST_TILES = 4
};

#endif
