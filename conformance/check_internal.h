/* What the checker's files share. */
#ifndef RFA_CONFORMANCE_CHECK_INTERNAL_H
#define RFA_CONFORMANCE_CHECK_INTERNAL_H

#include "backends/cpu/reference/oracle.h"
#include "conformance/check.h"

/* The problem as a walk sees it. Order predicted is walked as an explicit list
 * in the order that the backend chose, with the oracle's masses. */
typedef struct check_walk {
    rfa_problem problem;
    oracle *oracle; /* of `problem` */
    int32_t *indices, *counts;
    float *masses;
} check_walk;

typedef struct check {
    const rfa_problem *p;
    const check_options *options;
    check_report *report;
    oracle *given; /* of *p */
    check_walk walk;
    double *key_norm;   /* largest |k| of (batch, kv head) */
    double *query_norm; /* largest |q| of (batch, head) */
    int64_t first_failure;
    /* Over the blocks that were walked, by the tracked and by exact masses. */
    double recall_sum, recall_min, exact_sum, exact_min;
    int64_t rows;
    bool recall_known; /* every row walked had a recall to judge */
} check;

/* Failures are reported by the smallest place; parts of the check go first. */
enum { PLACE_VISITS = 0, PLACE_BLOCKS = 1, PLACE_COUNTS = 2 };
#ifdef __GNUC__
__attribute__((format(printf, 4, 5)))
#endif
void check_fail(check *c, int part, int64_t place, const char *format, ...);

/* ---- geometry.c: what the sizes alone say ---- */

typedef struct check_sequence {
    int64_t len_q, len_k, first_q, first_k; /* all 0 for a bad sequence */
    bool bad;
} check_sequence;

check_sequence check_sequence_of(const rfa_problem *p, int64_t batch);
/* Rows of a decision block, and its key blocks with an unmasked pair, which are
 * always the first ones. */
int64_t check_rows(const rfa_problem *p, const check_sequence *s, int64_t q_block);
int64_t check_unmasked(const rfa_problem *p, const check_sequence *s, int64_t q_block);
/* Whether a range given by the caller touches the block. */
bool check_key_block_kept(const rfa_problem *p, const check_sequence *s, int64_t batch,
                          int64_t k_block);
bool check_q_block_dense(const rfa_problem *p, const check_sequence *s, int64_t batch,
                         int64_t q_block);

static inline const uint32_t *check_decision_words(const rfa_problem *p, int64_t batch,
                                                   int64_t head, int64_t q_block)
{
    const rfa_view *d = &p->decisions;
    int64_t at = batch * d->stride[0] + head * d->stride[1] + q_block * d->stride[2];
    return (const uint32_t *)((const char *)d->data + d->byte_offset) + at;
}

static inline bool check_bit(const uint32_t *words, int64_t j)
{
    return words[j / 32] >> (j % 32) & 1;
}

/* ---- norms.c: the rounding to expect in logits ---- */

rfa_status check_norms(check *c, rfa_error *err);
double check_row_norm(const rfa_view *view, rfa_dtype dtype, int32_t dim, int64_t batch,
                      int64_t head, int64_t row);
/* e of check.h for one row, or for the worst row of a head. */
double check_logit_error(const check *c, int64_t batch, int64_t head, double q_norm);

/* ---- visits.c ---- */

/* Checks visit_order and prepares c->walk. */
rfa_status check_visits(check *c, rfa_error *err);
void check_walk_free(check_walk *walk);

/* ---- block.c ---- */

typedef struct check_scratch {
    oracle_block block;
    float *plain;      /* block_q x dim_v */
    int32_t *list;     /* blocks_k */
    uint32_t *counted; /* words */
} check_scratch;

/* One decision block; adds to the report and the sums of `c`. */
void check_block(check *c, int64_t index, check_scratch *scratch);

/* ---- counts.c ---- */

rfa_status check_counts(check *c, rfa_error *err);

#endif
