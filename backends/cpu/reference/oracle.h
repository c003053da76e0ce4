/* The oracle: docs/specification.md done plainly, in float64.
 *
 * It works on one decision block at a time, so that a caller may check all
 * blocks or a sample. It is linked into the `reference` backend and into the
 * conformance checker, never into another backend.
 *
 * All views of the problem must be host memory.
 */
#ifndef RFA_ORACLE_H
#define RFA_ORACLE_H

#include "backends/backend.h"

typedef struct oracle oracle;

/* Prepares token orders, range flags, predicted lists: what decision blocks
 * share. The problem must outlive the oracle. RFA_OUT_OF_MEMORY. */
rfa_status oracle_create(oracle **result, const rfa_problem *p, rfa_error *err);
void oracle_destroy(oracle *o);

/* One decision block. Arrays belong to the oracle_block. */
typedef struct oracle_block {
    int32_t rows;         /* queries that exist; 0 for a block past the end of a short sequence */
    int64_t *row;         /* where each lies: row index of q and out views, packs counted whole */
    double *out;          /* rows x dim_v */
    double *lse;          /* of kept keys */
    double *recall;       /* as the rule tracked it (estimated masses if so asked) */
    double *recall_exact; /* of the visited keys, by exact masses, whatever the rule tracked */
    /* Unit of rounding error to expect in each output row from f32 arithmetic:
     * 2^-24 (4 + largest sum_i |q_i k_i| scale) * sum_c p_c max_d |v_c,d|. */
    double *rounding;
    /* Of weights rounded one by one: sqrt(sum_c (p_c max_d |v_c,d|)^2). */
    double *spread;
    int64_t counted, kept; /* N of the specification, and how many were kept */
    int64_t unmasked;      /* key blocks with an unmasked pair, visited or not */
    uint32_t *followed;    /* decisions this walk followed: given ones or its own */
    uint32_t *derived;     /* what the rule says at each visit, from the state so far */
    uint32_t *unsure;      /* visits whose deciding comparison is within rounding */
    int64_t words;         /* length of the three */
    /* For tools that compare with the best possible: each key block's exact share
     * of softmax mass, mean over rows; NULL unless oracle_block_alloc was asked. */
    double *block_mass;
    void *scratch;
} oracle_block;

rfa_status oracle_block_alloc(const oracle *o, bool want_block_mass, oracle_block *block,
                              rfa_error *err);
void oracle_block_free(oracle_block *block);

/* Walks decision block `index` of (batch, head). `decisions`: `words` words to
 * follow, or NULL to follow the rule. Thread-safe over different blocks. */
void oracle_walk(const oracle *o, int64_t batch, int64_t head, int64_t index,
                 const uint32_t *decisions, oracle_block *block);

/* The same rows by a plain implementation in f32, keeping what block->followed
 * says: two passes, row by row, weights rounded to `weights` before they meet v
 * (RFA_F32 for none), output not rounded. out: rows x dim_v. */
void oracle_plain(const oracle *o, int64_t batch, int64_t head, int64_t index, rfa_dtype weights,
                  const oracle_block *block, float *out);

/* The visit list of one group as the specification orders it; masses may be
 * NULL. Both have blocks_k slots; returns the length. */
int64_t oracle_visits(const oracle *o, int64_t batch, int64_t head, int64_t group, int32_t *list,
                      double *masses);

/* How many list entries of (batch, head, group) are out of range or repeated,
 * and whether this (batch, head) has a knob its rule does not allow. */
int64_t oracle_bad_indices(const oracle *o, int64_t batch, int64_t head, int64_t group);
bool oracle_bad_knob(const oracle *o, int64_t batch, int64_t head);
/* Packed: sequences whose cumulative lengths make no sense, taken as empty. */
bool oracle_bad_sequence(const oracle *o, int64_t batch);

#endif
