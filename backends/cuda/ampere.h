/* How the kernels of ampere.cuh are started. Grid: (ceil(len_q / AMPERE_ROWS), heads,
 * batch). Shared memory: three tiles of 128 rows, AMPERE_EXCHANGE_BYTES, and one or
 * two more tiles. Parameters: a cuda_call and, as an int, whether there are two. */
#ifndef RFA_CUDA_AMPERE_H
#define RFA_CUDA_AMPERE_H

enum {
    AMPERE_ROWS = 128, /* q rows of a block of threads: two decision blocks */
    AMPERE_BLOCK_Q = 64,
    AMPERE_BLOCK_K = 128,
    AMPERE_THREADS = 256,
    AMPERE_EXCHANGE_BYTES = 13824
};

#endif
