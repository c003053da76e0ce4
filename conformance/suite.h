/* The conformance suite on one device: fixed cases, random ones, merges. */
#ifndef RFA_CONFORMANCE_SUITE_H
#define RFA_CONFORMANCE_SUITE_H

#include "conformance/run.h"

typedef struct suite_case {
    const char *name;        /* what --case takes: "one_key", "small/1f", "merge/1f" */
    const char *description; /* what it is, one line */
    const run_outcome *outcome;
    int64_t done, total; /* this case counted */
} suite_case;

typedef struct suite_options {
    const char *backend; /* NULL: the library's choice */
    int32_t device;      /* -1: the first usable one */
    uint64_t seed;
    int64_t cases;    /* random ones, beside the fixed ones */
    bool quick;       /* no large ones */
    bool small;       /* small random ones alone */
    const char *only; /* the name of the one case to run; NULL: all */
    /* After each case; may be NULL. */
    void (*report)(void *user, const suite_case *done);
    void *user;
} suite_options;

typedef struct suite_result {
    int64_t passed, failed, skipped;
    uint64_t decisions, kept, unsure; /* that were compared */
    double worst_ratio;               /* largest error / what was allowed */
} suite_result;

/* RFA_OK: the suite was run, whatever failed in it. RFA_INVALID_ARGUMENT: no case
 * of that name. Otherwise what rfa_context_create answers. */
rfa_status suite_run(const suite_options *options, suite_result *result, rfa_error *err);

#endif
