/* What every kernel of this backend is given by value: one call, resolved to
 * device addresses. Plain C, shared by the host code and the kernels. */
#ifndef RFA_CUDA_CALL_H
#define RFA_CUDA_CALL_H

#include <stdint.h>

#include "backends/cube_order.h"

/* As rfa_dtype. */
enum { CUDA_F32 = 0, CUDA_F16 = 1, CUDA_BF16 = 2 };

/* As rfa_order. */
enum { CUDA_DIAGONAL = 0, CUDA_RASTER = 1, CUDA_PREDICTED = 2, CUDA_LIST = 3 };

enum { CUDA_POOL_ROWS = 32, CUDA_SINK_KEYS = 16 };

/* Elements of rows by (batch, head, row); strides in elements. NULL: not given. */
typedef struct cuda_rows {
    void *data;
    int64_t stride[3];
} cuda_rows;

/* One batch entry's tokens; of a pack, one sequence. */
typedef struct cuda_sequence {
    int64_t len_q, len_k;
    int64_t first_q, first_k; /* rows of the pack before it */
    int64_t bad;              /* lengths that make no sense: no tokens */
} cuda_sequence;

/* A visit list for every (batch, head, group), `stride` apart; counts compact. */
typedef struct cuda_lists {
    int32_t *index;
    float *mass;
    int32_t *count;
    int64_t stride[3], mass_stride[3], count_stride[3];
    int64_t capacity;
} cuda_lists;

typedef struct cuda_call {
    int64_t batch, sequences; /* sequences: of a pack, else 1 */
    int64_t heads_q, heads_kv;
    int64_t len_q, len_k;     /* the longest */
    int64_t total_q, total_k; /* rows of a pack, else len_q, len_k */
    int64_t blocks_q, blocks_k, groups;
    int32_t dim, dim_v;
    int32_t block_q, block_k, visit_q;
    int32_t dtype, out_dtype;
    int32_t packed, causal, order, one_order; /* one_order: one grid for all sequences */
    float scale;

    int32_t rule; /* RFA_SKIP_* */
    int32_t knob_scaled;
    int32_t exact, estimated, tracked; /* every block's exponentials; estimates; recall is known */
    float knob, share, pace;
    cuda_rows knobs;
    const int32_t *cu_q, *cu_k;

    cuda_rows q, k, v;                /* the caller's */
    cuda_rows seen_q, seen_k, seen_v; /* in computed order, rows of whole 16-byte chunks */
    cuda_rows out, lse, recall, decisions, visit_order;
    void *counts;            /* rfa_counts */
    cuda_lists given, built; /* the caller's or the predicted ones; where a list goes to */

    /* In the workspace. */
    cuda_sequence *sequence;
    int32_t *order_q, *order_k; /* computed -> caller's position, or NULL */
    uint8_t *key_flags;         /* (sequence, key block): RFA_BLOCK_* */
    uint8_t *dense_rows;        /* (sequence, q block) */
    float *limits;              /* (batch, head): limit of the rule, NaN: dense */
    float *pools_q, *pools_k;   /* (batch, head, pool, element): means of CUDA_POOL_ROWS rows */
    int64_t pool_count_q, pool_count_k; /* of a batch entry, at most */
    uint64_t *sort;                     /* (worker, sort_size), or NULL: shared memory does */
    int64_t sort_size, sort_workers;
    uint32_t *listed; /* (batch, head, group): bits by key block */
    int32_t *list;    /* (batch, head, group, slot); list_stride may be 0 */
    float *list_rest; /* T_n, laid out like list; NULL: none */
    int64_t list_stride[3];
    int32_t *list_count;   /* (batch, head, group) */
    int32_t *bad_indices;  /* (batch, head, group) */
    int32_t *block_visits; /* (batch, head, q block): N */
    int32_t *block_kept;   /* (batch, head, q block) */
    float *block_recall;   /* (batch, head, q block): sum over rows */
    /* Zeroed, by (batch, head), or NULL: work items that blocks took beyond those they began with
     * (where all heads are alike, of all of them, in taken[0]); what one item cost. */
    uint32_t *taken, *cost;
    /* Zeroed: not 0 once a kernel found that it does not compute this call right, upon which the
     * one for any shape does. Or NULL: that one computes what it is given. */
    uint32_t *gave_up;
} cuda_call;

/* Host data that the first kernels get beside the call: under graph capture a
 * parameter is copied, host memory would not be. */
enum { CUDA_GRIDS_AT_ONCE = 16, CUDA_MAX_RANGES = 16 };

typedef struct cuda_grids {
    int64_t first; /* sequence */
    int64_t count;
    rfa_cubes q[CUDA_GRIDS_AT_ONCE], k[CUDA_GRIDS_AT_ONCE];
} cuda_grids;

typedef struct cuda_ranges {
    int32_t keep_count, dense_count;
    int64_t keep[CUDA_MAX_RANGES][2], dense[CUDA_MAX_RANGES][2];
} cuda_ranges;

/* One of q, k, v to be gathered. */
typedef struct cuda_gather {
    cuda_rows from, to;
    const int32_t *order; /* or NULL */
    int64_t heads, rows;  /* rows: of the longest sequence */
    int32_t dim, pitch;   /* elements of a row: there, and here */
    int32_t keys;         /* 0: q's rows; 1: those of k and v */
} cuda_gather;

typedef struct cuda_gathered {
    cuda_gather of[3];
} cuda_gathered;

/* ---- merge ---- */

enum { CUDA_MAX_PARTS = 64 };

typedef struct cuda_part {
    const void *out;
    const float *lse, *recall;
    int64_t out_stride[3], lse_stride[2], recall_stride[2];
} cuda_part;

typedef struct cuda_merge {
    int32_t parts, dim, dtype, out_dtype;
    int64_t batch, heads, len;
    cuda_rows out, lse, recall;
    cuda_part part[CUDA_MAX_PARTS];
} cuda_merge;

#endif
