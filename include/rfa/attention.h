/* Recall-targeted sparse attention: arguments, outputs, calls. */
#ifndef RFA_ATTENTION_H
#define RFA_ATTENTION_H

#include <stddef.h>
#include <stdint.h>

#include <dlpack/dlpack.h>

#include <rfa/base.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- What is computed ------------------------------------------------------
 *
 *   S[r,c] = scale * <q_r, k_c>,  o_r = sum_c softmax_c(S[r,:]) v_c
 *
 * by FlashAttention's walk over blocks of keys, which skips blocks that carry
 * little softmax mass. recall_r is the share of row r's softmax mass that was
 * kept; |o_r - dense_r| <= 2 (1 - recall_r) max|v|.
 *
 * A decision block is block_q queries x block_k keys: one decision. The
 * visit_q queries of a visit group share one ordered list of key blocks.
 * "Computed order" is the order of tokens after the gather into cubes; it is
 * the caller's order where no grid is given. docs/how-it-works.md explains. */

/* The visit_q that 0 stands for: the largest multiple of block_q up to 384, or block_q. It suits
 * kernels that share tiles between 192 queries, and those that do between 128. */
static inline int32_t rfa_default_visit_q(int32_t block_q)
{
    return block_q > 0 && block_q <= 384 ? 384 / block_q * block_q : block_q;
}

typedef enum rfa_axes {
    RFA_AXES_BSHD = 0, /* (batch, seq, heads, dim): the default */
    RFA_AXES_BHSD = 1  /* (batch, heads, seq, dim) */
} rfa_axes;

typedef enum rfa_mask {
    RFA_MASK_NONE = 0,
    /* Key c is seen by query r when c <= r + len_k - len_q (aligned at the
     * end, as FlashAttention 2.1 and later do). */
    RFA_MASK_CAUSAL = 1
} rfa_mask;

typedef enum rfa_rule {
    RFA_RULE_DENSE = 0, /* keep every block */
    /* BLASST (arXiv 2512.12087): skip when the block's row max is below the
     * running row max by more than -ln(lambda), for all rows. Knob: lambda in
     * [0, 1]. */
    RFA_RULE_BLASST = 1,
    /* DynSparse (arXiv 2606.16317): skip when row max - running lse <
     * log_lambda, for all rows. Knob: log_lambda in [-inf, 0]. */
    RFA_RULE_ENERGY = 2,
    /* This library's rule: keep the recall target. Knob: R in (0, 1]. The mean
     * recall of every decision block is >= R, each row's is >= 1 - max(1/2, 1-R),
     * with exact masses and all keys visited. */
    RFA_RULE_RECALL = 3
} rfa_rule;

typedef enum rfa_knob_form {
    RFA_KNOB_DIRECT = 0, /* as said at the rule */
    /* blasst: a scale factor a, lambda = min(1, a / len_k). energy: a target P
     * in [0, 1] of lost mass, log_lambda = min(0, ln P + ln(block_k / len_k)),
     * the paper's eq. 7. Not for recall. */
    RFA_KNOB_SCALED = 1
} rfa_knob_form;

typedef enum rfa_mass {
    RFA_MASS_EXACT = 0, /* the block's exponentials are summed: recall holds */
    /* The block's mass is estimated from its row max and the shape of kept
     * blocks, without exponentials: faster, recall is an estimate. */
    RFA_MASS_ESTIMATED = 1
} rfa_mass;

typedef enum rfa_order {
    RFA_ORDER_DIAGONAL = 0,  /* nearest block, then the first 16 keys' blocks, then nearest first */
    RFA_ORDER_RASTER = 1,    /* 0, 1, 2, ... */
    RFA_ORDER_PREDICTED = 2, /* by mass estimated from means of 32 tokens */
    RFA_ORDER_LIST = 3       /* the caller's list */
} rfa_order;

/* A video grid inside a sequence: tokens offset .. offset + t*h*w - 1 are
 * frames x rows x columns in raster order. Attention is then computed on cubes
 * of tokens, which gathers near tokens into one block. All zero: no grid. */
typedef struct rfa_grid {
    int64_t offset;
    int64_t size[3]; /* t, h, w */
    int64_t cube[3]; /* tokens of a cube on each axis; 0 means 4 */
} rfa_grid;

/* Tokens begin <= i < end, in the caller's order. */
typedef struct rfa_range {
    int64_t begin, end;
} rfa_range;

/* At most this many ranges of a kind. */
#define RFA_MAX_RANGES 16

/* Counts that a call leaves in device memory; copy them when convenient. A later
 * version may add fields at the end. */
typedef struct rfa_counts {
    uint64_t blocks_total;   /* decision blocks that hold at least one unmasked pair */
    uint64_t blocks_visited; /* of those, visited: all of them unless a list leaves some out */
    uint64_t blocks_kept;    /* of those, kept */
    uint64_t bad_knobs;   /* (batch, head) pairs run dense because their knob was no valid number */
    uint64_t bad_indices; /* list entries ignored: out of range or listed before */
    uint64_t bad_sequences; /* packed sequences ignored: their cumulative lengths make no sense */
    float recall_mean;      /* over all query rows; NaN when recall was not tracked */
    float recall_block_min; /* smallest mean over the rows of a decision block; NaN likewise */
    uint32_t recall_kind;   /* rfa_recall_kind */
    uint32_t recall_scope;  /* rfa_recall_scope */
} rfa_counts;

typedef enum rfa_recall_kind {
    RFA_RECALL_ABSENT = 0, /* blasst and energy without tracking */
    RFA_RECALL_EXACT = 1,
    RFA_RECALL_ESTIMATED = 2
} rfa_recall_kind;

typedef enum rfa_recall_scope {
    RFA_RECALL_ALL_KEYS = 0,
    RFA_RECALL_VISITED_KEYS = 1 /* a list left keys out; recall speaks of the others only */
} rfa_recall_scope;

/* rfa_attention_args.flags */
/* blasst and energy: track recall (costs the exponentials of skipped blocks)
 * even when no `recall` tensor is given. Giving one implies it. */
#define RFA_FLAG_TRACK_RECALL 1u

/* ---- Arguments ---------------------------------------------------------------
 *
 * Tensors are DLPack's, borrowed, on the context's device, and must live until
 * the stream has passed the call. Strides NULL means compact; any positive or
 * zero strides with a unit last stride are taken; byte_offset is honoured.
 * Outputs must not overlap inputs or each other: RFA_INVALID_ARGUMENT where that
 * is certain; views that interleave are not looked into.
 *
 * B batch, Lq/Lk lengths, H heads of q, Hkv heads of k and v (H a multiple of
 * Hkv), D dim of q and k, Dv dim of v and out, each 1 to 256. Shapes below are
 * for RFA_AXES_BSHD; BHSD swaps seq and heads.
 *
 * Packed batches: q (total_q, H, D), k (total_k, Hkv, D), v and out likewise,
 * with cu_seqlens_q and cu_seqlens_k; B is then the number of sequences and Lq,
 * Lk the longest. Row outputs are (H, total_q). */
typedef struct rfa_attention_args {
    size_t struct_size; /* set by RFA_ATTENTION_ARGS_INIT */

    const DLTensor *q;   /* (B, Lq, H, D); f32, f16 or bf16 */
    const DLTensor *k;   /* (B, Lk, Hkv, D), dtype of q */
    const DLTensor *v;   /* (B, Lk, Hkv, Dv), dtype of q */
    const DLTensor *out; /* (B, Lq, H, Dv), dtype of q, or f32 (for partial results) */
    rfa_axes axes;
    float scale; /* 0 (default): 1 / sqrt(D) */
    rfa_mask mask;

    /* Packed batches: int32 (B + 1) on the device, cumulative, from 0; and the
     * longest lengths, on the host. */
    const DLTensor *cu_seqlens_q;
    const DLTensor *cu_seqlens_k;
    int64_t max_len_q;
    int64_t max_len_k;

    rfa_rule rule;
    rfa_mass mass; /* rule recall only */
    rfa_knob_form knob_form;
    float knob;
    /* f32 (B, H) on the device; replaces `knob` and is read by the kernel. A
     * value that the rule does not allow means dense for that head and is counted. */
    const DLTensor *knobs;

    rfa_order order;
    int32_t block_q; /* 0: 64 */
    int32_t block_k; /* 0: 128 */
    int32_t visit_q; /* a multiple of block_q; 0: the largest one up to 384, or block_q */

    /* RFA_ORDER_LIST. Visit groups G = ceil(Lq / visit_q). */
    const DLTensor *list_indices; /* int32 (B, H, G, capacity): key blocks in computed order */
    const DLTensor *list_counts;  /* int32 (B, H, G): how many of them are listed */
    const DLTensor *list_masses;  /* f32, shape of list_indices; optional */

    /* Cube order. Host memory, read during the call: a captured graph keeps the
     * grids that it was captured with. 0 (none), 1 grid for every batch entry, or
     * B grids for packed sequences, of which a GPU backend may take fewer
     * (RFA_UNSUPPORTED). Not with the causal mask. */
    const rfa_grid *grids_q;
    const rfa_grid *grids_k;
    size_t grid_count;

    /* Keys always kept and visited first; queries that keep every block they
     * visit. Host memory, read during the call; of each sequence when packed. */
    const rfa_range *keep_keys;
    size_t keep_key_count;
    const rfa_range *dense_queries;
    size_t dense_query_count;

    /* Optional outputs. KB = ceil(Lk / block_k), QB = ceil(Lq / block_q). */
    const DLTensor *lse;         /* f32 (B, H, Lq): log sum exp over the kept keys, natural log */
    const DLTensor *recall;      /* f32 (B, H, Lq); 1 for a row without unmasked keys */
    const DLTensor *decisions;   /* uint32 (B, H, QB, ceil(KB / 32)): bit j % 32 of word j / 32 is 1
                                  * when key block j was kept; blocks in computed order */
    const DLTensor *visit_order; /* int32 (B, H, G, KB): key blocks as visited, then -1 */
    const DLTensor *counts;      /* uint8 (sizeof(rfa_counts)), 8-byte aligned. May be longer, as
                                  * a later header's is: the rest is left alone */

    /* Decisions to follow instead of the rule; shape of `decisions`. Backend
     * reference only. */
    const DLTensor *replay;

    uint32_t flags; /* RFA_FLAG_* */

    /* cudaStream_t, hipStream_t or cl_command_queue; NULL: the default one. */
    void *stream;
    /* Device memory of at least rfa_workspace_size bytes, aligned to 256, not
     * used by anything else until the call has finished on the device. NULL:
     * the context keeps one and grows it when it must; calls that share it run one
     * after the other, whatever their streams. It cannot grow under graph capture
     * (RFA_OUT_OF_MEMORY), and a graph that holds it may run while the context
     * lives. */
    void *workspace;
    size_t workspace_size;
} rfa_attention_args;

#ifdef __cplusplus
} /* extern "C" */
static inline rfa_attention_args rfa_attention_args_init()
{
    rfa_attention_args args = rfa_attention_args();
    args.struct_size = sizeof(args);
    return args;
}
#define RFA_ATTENTION_ARGS_INIT rfa_attention_args_init()
extern "C" {
#else
#define RFA_ATTENTION_ARGS_INIT                                                                    \
    {                                                                                              \
        .struct_size = sizeof(rfa_attention_args)                                                  \
    }
#endif

/* ---- Calls -------------------------------------------------------------------- */

/* Would rfa_attention take these arguments on this context? RFA_OK; or the
 * status that rfa_attention would give, with one sentence in `why` (always
 * ended with a NUL when why_size > 0; `why` may be NULL). */
RFA_API rfa_status rfa_supports(rfa_context *ctx, const rfa_attention_args *args, char *why,
                                size_t why_size);

/* Bytes of workspace that rfa_attention needs for these arguments; may be 0.
 * Errors as rfa_supports. */
RFA_API rfa_status rfa_workspace_size(rfa_context *ctx, const rfa_attention_args *args,
                                      size_t *size);
/* The same for rfa_build_visit_list. */
RFA_API rfa_status rfa_visit_list_workspace_size(rfa_context *ctx, const rfa_attention_args *args,
                                                 size_t *size);

/* Computes attention on the caller's stream. Device backends return without
 * waiting. Outputs are written whole; on any error that is found before work
 * is queued, they are untouched.
 * RFA_INVALID_ARGUMENT, RFA_UNSUPPORTED: see rfa_last_error. RFA_OUT_OF_MEMORY:
 * no memory, or the given workspace is too small. RFA_DEVICE_ERROR. */
RFA_API rfa_status rfa_attention(rfa_context *ctx, const rfa_attention_args *args);

/* Builds the visit list of RFA_ORDER_PREDICTED: for every (batch, head, visit
 * group) all key blocks with an unmasked pair, best first by estimated mass.
 * Reads of `args` what attention would (order is taken as predicted; out, rule
 * and outputs are ignored) and writes list_indices (capacity >= KB),
 * list_counts and, if given, list_masses. rfa_attention with RFA_ORDER_LIST and
 * the same masses then computes what RFA_ORDER_PREDICTED does. Needs visit_q and
 * block_k that are multiples of 32. Errors as rfa_attention. */
RFA_API rfa_status rfa_build_visit_list(rfa_context *ctx, const rfa_attention_args *args);

/* ---- Merge of partial results ---------------------------------------------------
 *
 * Attention over disjoint key sets, computed apart (sequence parallelism, ring
 * attention), merges exactly through lse:  out = sum_i exp(lse_i - lse) out_i.
 * Recall merges by mass, sum_i exp(lse_i) / sum_i (exp(lse_i) / recall_i). Lost
 * mass adds up: shards that must keep R together take R_i = 1 - (1 - R) / parts. */

#define RFA_MAX_MERGE_PARTS 64

typedef struct rfa_merge_args {
    size_t struct_size; /* set by RFA_MERGE_ARGS_INIT */
    size_t parts;       /* 1 to RFA_MAX_MERGE_PARTS */
    /* `parts` pointers each. Part outputs (B, L, H, D) by `axes`, or (total, H, D)
     * packed; f32, f16 or bf16, all alike. lse f32 (B, H, L), or (H, total). */
    const DLTensor *const *part_out;
    const DLTensor *const *part_lse;
    const DLTensor *const *part_recall; /* optional, like lse */
    rfa_axes axes;
    const DLTensor *out;    /* shape of a part; dtype of the parts, or any of the three
                             * when the parts are f32. May be the first part itself. */
    const DLTensor *lse;    /* optional; may be the first part's */
    const DLTensor *recall; /* optional, needs part_recall; may be the first part's */
    void *stream;
} rfa_merge_args;

#ifdef __cplusplus
} /* extern "C" */
static inline rfa_merge_args rfa_merge_args_init()
{
    rfa_merge_args args = rfa_merge_args();
    args.struct_size = sizeof(args);
    return args;
}
#define RFA_MERGE_ARGS_INIT rfa_merge_args_init()
extern "C" {
#else
#define RFA_MERGE_ARGS_INIT                                                                        \
    {                                                                                              \
        .struct_size = sizeof(rfa_merge_args)                                                      \
    }
#endif

/* Merges on the caller's stream; a row whose parts are all empty (lse -inf)
 * gives output 0, lse -inf, recall 1. Errors as rfa_attention. */
RFA_API rfa_status rfa_merge(rfa_context *ctx, const rfa_merge_args *args);

#ifdef __cplusplus
}
#endif
#endif
