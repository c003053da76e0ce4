/* The checker: a backend's outputs against the oracle, as section 6 of
 * docs/specification.md says.
 *
 * 1. The oracle walks along the backend's own decisions; every decision must be
 *    the one that the rule gives from there, or within rounding of it.
 * 2. With those decisions, each output element may be off by twice the largest
 *    error of a plain implementation in its row, plus one unit in the last place.
 * 3. Row outputs, visit order and counts are recomputed.
 *
 * Row outputs are compared with tolerances of f32 arithmetic. With e = 2^-24
 * |q_r| max_c |k_c| scale, the rounding to expect in a logit:
 *
 *   lse      8 e + 2^-22 |lse| + 1e-5
 *   recall   8 e + 2e-5
 *   predicted masses x, y may stand in either order when
 *            |x - y| <= (1e-4 + 8 e)(|x| + |y|) + 1e-7
 *   block recall (rule recall, exact masses, all keys visited)
 *            >= R - 1e-4 - 8 e
 */
#ifndef RFA_CONFORMANCE_CHECK_H
#define RFA_CONFORMANCE_CHECK_H

#include "backends/backend.h"

typedef struct check_options {
    /* Precision in which the backend rounds softmax weights before they meet v:
     * what check_weights says. */
    rfa_dtype weights;
    int64_t sample; /* decision blocks to check, spread over all of them; 0: all */
    uint64_t seed;  /* of the sample */
    /* q, k or v hold a NaN or an infinity: rows that see one are not judged, all
     * others are. */
    bool nonfinite_inputs;
    /* The outputs went through further f32 steps (a merge): this many times the
     * rounding error is allowed. 0 means 1. */
    double rounding_scale;
    /* The decisions are not one walk's (merged parts): judge values alone. */
    bool values_only;
    /* Called now and then, by one thread at a time; may be NULL. */
    void (*progress)(void *user, int64_t done, int64_t total);
    void *user;
} check_options;

typedef struct check_place {
    int64_t batch, head, row, element; /* row: of the q and out views */
} check_place;

typedef struct check_report {
    bool ok;
    char failure[256]; /* the first failure, one sentence; "" when ok */
    int64_t blocks_checked, blocks_all;
    uint64_t decisions;           /* how many were compared */
    uint64_t decisions_wrong;     /* beyond rounding */
    uint64_t unsure;              /* different, or might be, within rounding */
    uint64_t kept;                /* of `decisions` */
    double max_abs_error;         /* of out */
    double max_abs_error_allowed; /* what was allowed for that element */
    check_place worst;            /* where that was */
    double worst_ratio;           /* largest error / allowance of any element */
    double max_lse_error, max_recall_error;
    double recall_mean_oracle;      /* exact masses, over the rows checked */
    double recall_block_min_oracle; /* smallest mean of a checked decision block */
} check_report;

/* The `weights` of options, by what the device declares and the problem's dtype. */
rfa_dtype check_weights(uint32_t declared, rfa_dtype dtype);

/* All views of `p` are host memory and its outputs hold what the backend wrote:
 * out and decisions always; lse, recall, visit_order and counts are checked where
 * given. Order predicted is judged along visit_order, so give it there: without,
 * the oracle's own order is taken, and near ties may look like wrong decisions.
 *
 * RFA_OK: the check was made, report->ok is its result. RFA_INVALID_ARGUMENT: out
 * or decisions are missing. RFA_OUT_OF_MEMORY. Uses OpenMP's threads. */
rfa_status check_outputs(const rfa_problem *p, const check_options *options, check_report *report,
                         rfa_error *err);

/* A list that rfa_build_visit_list wrote (list_indices, list_counts, list_masses
 * of `p`, host memory; p->order is predicted): each group's is a permutation of
 * the blocks with an unmasked pair, sorted within rounding, masses as the
 * oracle's. Answers like check_outputs; fills ok and failure alone. */
rfa_status check_visit_list(const rfa_problem *p, bool nonfinite_inputs, check_report *report,
                            rfa_error *err);

#endif
