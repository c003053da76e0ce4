/* How the kernels of attention.cuh are started. Grid: (ceil(len_q / rows), heads, batch), rows
 * and threads those of the decision blocks that a block of threads holds. Shared memory: for
 * each decision block AMPERE_EXCHANGE_BYTES, or AMPERE_DENSE_EXCHANGE_BYTES where everything is
 * kept, and q; a ring of tiles of AMPERE_BLOCK_K rows. Parameters: a cuda_call and, as an int,
 * how many tiles the ring holds. Wide kernels exist twice: with tiles of whole rows, and of half
 * ones, where a block of threads has no room for two of those. */
#ifndef RFA_CUDA_AMPERE_LAUNCH_H
#define RFA_CUDA_AMPERE_LAUNCH_H

enum {
    AMPERE_BLOCK_Q = 64,
    AMPERE_BLOCK_K = 128,
    AMPERE_GROUP_THREADS = 128,         /* of a decision block */
    AMPERE_EXCHANGE_BYTES = 8704,       /* of a decision block */
    AMPERE_DENSE_EXCHANGE_BYTES = 3072, /* the same where everything is kept */
    AMPERE_NARROW = 64,                 /* head dims to this are narrow, those beyond are wide */
    AMPERE_NARROW_GROUPS = 1,           /* decision blocks of a block of threads */
    AMPERE_WIDE_GROUPS = 2,
    AMPERE_NARROW_BLOCKS = 3, /* of threads that a multiprocessor has registers for */
    AMPERE_FEWEST_TILES = 2,  /* keys, values */
    /* Tiles of half rows: values that nobody expected need two places beside a third, whose keys
     * others may still read. */
    AMPERE_FEWEST_HALVES = 3,
    AMPERE_MOST_TILES = 4
};

#endif
