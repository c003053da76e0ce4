/* Small calls of every kind, for tests that make them fail or run them in many
 * threads: the same call gives the same bits whenever it succeeds. */
#ifndef RFA_TEST_JOBS_H
#define RFA_TEST_JOBS_H

#include <stdbool.h>
#include <stdint.h>

#include <rfa/rfa.h>

typedef enum job_kind {
    JOB_PLAIN,     /* a batch of two, grouped heads, every output */
    JOB_PACKED,    /* sequences of 70, 0 and 30 queries */
    JOB_PREDICTED, /* the library's own list, and always-keep ranges */
    JOB_LIST,      /* the caller's list, with masses */
    JOB_CUBES,     /* a grid with text round it */
    JOB_ESTIMATED, /* estimated masses, bf16 */
    JOB_CAUSAL,    /* blasst with a knob for each head, dense queries */
    JOB_BUILD_LIST,
    JOB_MERGE,
    JOB_KINDS
} job_kind;

typedef struct job job;

/* NULL without memory. `seed` chooses the numbers. */
job *job_new(job_kind kind, uint32_t seed);
void job_free(job *j);
const char *job_name(job_kind kind);

/* rfa_attention, rfa_build_visit_list or rfa_merge. */
rfa_status job_call(job *j, rfa_context *ctx);
/* The arguments of a call that is no merge; a test may change them. */
rfa_attention_args *job_args(job *j);

/* All outputs, one after the other. */
void job_poison(job *j);
bool job_is_poisoned(const job *j);
/* Remembers the outputs, which later ones are compared with, bit for bit. */
void job_remember(job *j);
bool job_is_as_remembered(const job *j);
/* Do two jobs hold the same outputs? */
bool job_gave_the_same(const job *a, const job *b);

#endif
