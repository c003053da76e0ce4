/* Runs one case on a backend and says whether it did right. */
#ifndef RFA_CONFORMANCE_RUN_H
#define RFA_CONFORMANCE_RUN_H

#include "conformance/check.h"
#include "conformance/generate.h"

#define RUN_MAX_CONTEXTS 4

/* The backend under test. */
typedef struct run_target {
    const char *backend;
    rfa_context *ctx;
    uint32_t weights; /* RFA_WEIGHTS_* as its device declares */
    /* Further contexts of the same device that must give the same bits: other
     * numbers of threads. */
    rfa_context *other[RUN_MAX_CONTEXTS];
    int others;
} run_target;

typedef enum run_result { RUN_PASSED, RUN_FAILED, RUN_SKIPPED } run_result;

typedef struct run_outcome {
    run_result result;
    char text[640];      /* why it failed or was skipped, one sentence */
    check_report report; /* of the case's own call; merges: zero */
} run_outcome;

/* What a call must do:
 *  - be supported, or say why not (skipped);
 *  - agree with the oracle (check.h) and leave all other memory alone;
 *  - give the same bits again: with a workspace of the caller's of exactly the
 *    size asked for, on the target's other contexts, with fewer outputs;
 *  - refuse a workspace that is too small, untouched outputs and all;
 *  - equal dense bit for bit when a rule's knob says never to skip;
 *  - order predicted: equal its own built list;
 *  - merge: parts of the keys, apart and merged, against the oracle over all. */
void run_case(const run_target *target, const conformance_case *c, run_outcome *outcome);

/* rfa_merge alone, on random parts. */
void run_merge(const run_target *target, uint64_t seed, run_outcome *outcome);

#endif
