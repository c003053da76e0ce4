/* What the Hopper attention kernel is given: one plain struct, passed by value
 * as its __grid_constant__ parameter, and the numbers the host needs to launch
 * it. Plain C, so that host code without nvcc can fill it.
 *
 * Launch: at most as many thread blocks as run at once and as there are work items. An item is the
 * next `rows` q rows of a (batch, head), heads after rows and batch entries after heads, so that
 * neighbours share one head's K and V in L2 (queue.cuh says in which order they come); rows, 192 or
 * 128, is the last part of a kernel's name, a thread block has rows / 64 = `groups` consumer
 * warpgroups, HOPPER_THREADS(groups) threads and HOPPER_SHARED_BYTES(head_dim, groups) of dynamic
 * shared memory (raise CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES first). With lists, visit_q
 * is a multiple of rows.
 *
 * Tensor maps (cuTensorMapEncodeTiled), for q, k and v alike: 4 dimensions
 * (element, row, head, batch), 16-bit type of the tensor (bf16 or f16),
 * CU_TENSOR_MAP_SWIZZLE_128B, interleave none, out-of-bounds fill zero, element
 * strides 1, L2 promotion 256 B. Box: 64 elements x 64 rows. Dimension sizes are
 * the tensor's own (dim or dim_v, len, heads, batch): rows and elements past them
 * read as zero, which is how ragged lengths and head dims between 65 and 128 (or
 * below 64) are served.
 *
 * What the maps ask of the tensors: base address a multiple of 16 bytes, row, head
 * and batch strides multiples of 16 bytes (8 elements) and below 2^40 bytes, unit
 * last stride, lengths below 2^32. (A dimension of size 1 may be given any
 * such stride, say 16 bytes.) out needs a unit last stride and an even
 * base element and even strides: it is written in pairs of elements, or, where strides, base
 * and dim_v allow (out_wide), in eights.
 *
 * Kernels (attention.cu):
 * hopper_{bf16,f16}_{64,128}_{dense,vote,measured,estimated,exact}_{128,192,varied_192}; head dim
 * 64 or 128 is the larger of dim and dim_v, rounded up. `varied` ones take causal masks and packs,
 * in which rows need not see all keys of a list, and are slower without need by some percent: they
 * always have lists, `taken`, `limits`, `always_keep` and `dense_rows`, the last two by sequence,
 * and maps over the whole pack. `vote` is blasst or energy without recall, `measured`
 * with; `estimated` and `exact` are recall with such masses. Compile with -prec-div=false.
 *
 * Not here, and so for other kernels: scale <= 0, block_q != 64, block_k != 128, visit_q no
 * multiple of 128 or 192, or, varied, of 192, head dims over 128, f32 inputs, replay. Odd dim_v.
 */
#ifndef RFA_HOPPER_PARAMS_H
#define RFA_HOPPER_PARAMS_H

#include <stdint.h>

#include <cuda.h>

#include "backends/cuda/call.h"

enum {
    HOPPER_BLOCK_Q = 64, /* one consumer warpgroup each */
    HOPPER_BLOCK_K = 128,
    HOPPER_MOST_GROUPS = 3, /* consumer warpgroups of a thread block: 3, or 2 */
    HOPPER_K_STAGES = 3,    /* K tiles in flight */
    HOPPER_V_STAGES = 2,
    HOPPER_EXCHANGE_BYTES = 12288
};

#define HOPPER_THREADS(groups) (128 * ((groups) + 1))

/* Tiles of q, k and v; then barriers and exchanges; 1024 to align the tiles. */
#define HOPPER_SHARED_BYTES(head_dim, groups)                                                      \
    ((size_t)(head_dim)*2 *                                                                        \
         ((groups)*HOPPER_BLOCK_Q + (HOPPER_K_STAGES + HOPPER_V_STAGES) * HOPPER_BLOCK_K) +        \
     HOPPER_EXCHANGE_BYTES + 1024)

typedef struct hopper_params {
    CUtensorMap q, k, v; /* 64-byte aligned: keep them first */

    void *out;              /* the inputs' type, or f32 if out_f32 */
    int64_t out_stride[3];  /* batch, head, row; elements */
    const int32_t *order_q; /* where each row goes in out, lse and recall; NULL: as computed */
    float *lse;             /* f32 (batch, head, row), or NULL */
    int64_t lse_stride[2];  /* batch, head */
    float *recall;          /* likewise */
    int64_t recall_stride[2];
    /* (batch, head, q block): sums of the rows' recall and kept blocks; NULL or
     * compact. Reduce them in a fixed order for the mean and the minimum. */
    float *block_recall;
    int32_t *block_kept;
    uint32_t *decisions;         /* bits by key block, or NULL */
    int64_t decisions_stride[3]; /* batch, head, q block; words */
    int32_t decision_words;      /* ceil(blocks_k / 32): all are written */

    /* Visit lists by (batch, head, visit group), entries already checked, in
     * range and without repeats. NULL: raster order. */
    const int32_t *list;
    const int32_t *list_counts; /* compact (batch, head, group) */
    const float *list_rest;     /* T_n of each entry, laid out like list; NULL: none */
    int64_t list_stride[3];     /* batch, head, group; entries */
    int32_t visit_q, groups;

    const float *limits;        /* compact (batch, head): ln lambda, log_lambda or P; NaN means
                                   dense for this head. NULL: `limit` */
    const uint8_t *always_keep; /* by key block, bit 0; NULL: none */
    const uint8_t *dense_rows;  /* by q block, not 0: keep all; NULL: none */

    int64_t len_q, len_k;
    int32_t heads_q, heads_kv, dim_v;
    int32_t blocks_q;          /* ceil(len_q / 64) */
    int32_t items_head, items; /* of a head, ceil(len_q / rows); in all */
    /* Zeroed: how many items beyond each block's first are taken. A block that is all but through
     * with one takes the next: who has less to do gets more. NULL: blocks take items in turn. */
    uint32_t *taken;
    /* Zeroed, by (batch, head), heads in all: what one of its items took. Then `taken` is by head
     * too. NULL: items are taken in order. */
    uint32_t *cost;
    uint32_t heads; /* (batch, head) pairs */
    /* With `cost`, how many of a head's items blocks begin with, and of how many first heads one
     * more; else how many of all. */
    uint32_t begun, begun_more;
    int32_t rule; /* RFA_SKIP_* of backends/skip_rule.h */
    int32_t out_f32;
    int32_t out_wide; /* rows of out may be written by 16 bytes: not f32, and all is aligned */
    float scale;      /* > 0 */
    float limit, share, pace;

    /* Of the kernels for causal masks and packs (`varied`), which need lists and `taken` too. */
    const cuda_sequence *sequences; /* by batch entry of a pack, else one */
    const int32_t *block_visits;    /* compact (batch, head, q block): visits that it counts */
    int32_t batch, packed, causal, one_order, blocks_k;
} hopper_params;

#endif
