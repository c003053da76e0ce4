/* What the oracle's files share. */
#ifndef RFA_ORACLE_INTERNAL_H
#define RFA_ORACLE_INTERNAL_H

#define RFA_REAL double
#include <math.h>
#include "backends/skip_rule.h"

#include "convert.h"
#include "lanes.h"
#include "mass.h"
#include "oracle.h"

/* One batch entry's tokens; packed: one sequence. A bad one has no tokens. */
typedef struct oracle_sequence {
    bool bad;
    int64_t len_q, len_k;
    int64_t first_q, first_k;   /* rows of the pack before it */
    int64_t blocks_q, blocks_k; /* of these lengths, like the next */
    int64_t groups;
    int64_t *order_q, *order_k; /* computed position -> caller's position */
    bool *keep, *sink;          /* by key block: always kept; holds an attention sink */
    bool *dense;                /* by q block: keeps what it visits */
} oracle_sequence;

/* The visit list of one group. */
typedef struct oracle_list {
    int64_t length;
    int64_t bad; /* the caller's entries that were ignored */
    int32_t *index;
    float *mass;
} oracle_list;

struct oracle {
    const rfa_problem *p;
    int64_t sequence_count; /* packed: one for each; otherwise one for all */
    oracle_sequence *sequence;
    bool has_masses;
    int64_t list_batch, list_heads; /* 1 where the lists do not depend on it */
    oracle_list *list;              /* (list_batch, list_heads, groups) */
    int32_t *list_index;            /* blocks_k slots for each list */
    float *list_mass;
};

/* calloc for count x each elements of `size` bytes, never of nothing. */
void *oracle_array(int64_t count, int64_t each, size_t size);

const oracle_sequence *oracle_sequence_of(const oracle *o, int64_t batch);
oracle_list *oracle_list_of(const oracle *o, int64_t batch, int64_t head, int64_t group);

static inline int64_t oracle_head_kv(const rfa_problem *p, int64_t head)
{
    return head / (p->heads_q / p->heads_kv);
}

static inline int64_t oracle_ceil_div(int64_t x, int64_t by)
{
    return (x + by - 1) / by;
}

static inline int64_t oracle_min(int64_t x, int64_t y)
{
    return x < y ? x : y;
}

/* The mask, whole: query r of the sequence sees its keys 0 .. this - 1. (Under
 * the causal mask computed order is the caller's.) */
static inline int64_t oracle_seen_keys(const rfa_problem *p, const oracle_sequence *s, int64_t r)
{
    int64_t seen = p->causal ? r + 1 + s->len_k - s->len_q : s->len_k;
    return seen < 0 ? 0 : oracle_min(seen, s->len_k);
}

/* Element rows of the caller's tensors by computed position, as floats. */
void oracle_load_q(const oracle *o, int64_t batch, int64_t head, int64_t position, float *row);
void oracle_load_k(const oracle *o, int64_t batch, int64_t head, int64_t position, float *row);
void oracle_load_v(const oracle *o, int64_t batch, int64_t head, int64_t position, float *row);

/* oracle_visits.c, oracle_predict.c: fill the lists once. */
rfa_status oracle_prepare_lists(oracle *o, rfa_error *err);
/* Predicted masses of every (group, key block) of one head, rounded as a list
 * holds them; groups x blocks_k of the problem. */
rfa_status oracle_predict(const oracle *o, int64_t batch, int64_t head, float *masses,
                          rfa_error *err);

/* ---- One decision block --------------------------------------------------------- */

typedef struct oracle_row {
    mass kept;
    mass skipped; /* as the rule tracks it */
    mass skipped_exact;
    double kappa;
    int kappa_count;
    double size;   /* largest sum_i |q_i k_i| scale among kept keys */
    double value;  /* sum of weights x max_d |v_d|, relative to kept.max */
    double spread; /* sum of their squares */
    /* Of the block at hand: */
    int64_t seen; /* unmasked keys, the first ones */
    mass block;
    mass block_tracked;
    double block_size;
} oracle_row;

typedef struct oracle_scratch {
    int64_t rows, keys;     /* capacity: rows, and keys rounded up to whole lanes */
    int64_t dim_v;          /* rounded up to whole lanes */
    oracle_row *row;        /* [rows] */
    float *element;         /* one row of q, k or v */
    double *q;              /* [rows][dim] */
    double *k;              /* [keys / LANES][dim][LANES] */
    double *v;              /* [dim_v / LANES][keys][LANES] */
    double *v_size;         /* [keys]: max_d |v_d| */
    double *weight;         /* [rows][keys]: logits, then exponentials */
    double *acc;            /* [rows][dim_v] */
    double *rest;           /* [blocks_k]: T_n of each list entry */
    mass *share;            /* [blocks_k][rows], for block_mass */
    float *q32, *k32, *v32; /* oracle_plain's, laid out alike */
    float *weight32, *acc32, *row_max32, *row_sum32;
} oracle_scratch;

/* oracle_rule.c */
rfa_skip_rule oracle_rule(const oracle *o, int64_t batch, int64_t head);

typedef struct oracle_verdict {
    bool keep;
    bool unsure;
} oracle_verdict;

/* What the rule says of the block that rows[].block* describe, at visit n of
 * `visits`; rounding is e of the specification. */
oracle_verdict oracle_decide(rfa_skip_rule rule, const oracle_row *rows, int64_t count, int64_t n,
                             int64_t visits, double rest, double rounding);

#endif
