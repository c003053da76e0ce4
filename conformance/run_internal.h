/* What the runner's files share: one bench, its case's outputs, an outcome. */
#ifndef RFA_CONFORMANCE_RUN_INTERNAL_H
#define RFA_CONFORMANCE_RUN_INTERNAL_H

#include "conformance/bench.h"
#include "conformance/run.h"

typedef struct run_state {
    const run_target *target;
    const conformance_case *c;
    bench b;
    bench_snapshot first; /* the case's own outputs */
    run_outcome *outcome;
} run_state;

/* Each answers RFA_OK where all is well or the backend does not do it. */
rfa_status run_never_skipping(run_state *s, rfa_error *err);
rfa_status run_predicted_list(run_state *s, rfa_error *err);
rfa_status run_replay(run_state *s, rfa_error *err);
rfa_status run_fewer_outputs(run_state *s, rfa_error *err);
rfa_status run_split_keys(run_state *s, rfa_error *err);

/* True when the backend answers that it does not do this; then *status is RFA_OK. */
bool run_unsupported(const run_state *s, const rfa_attention_args *args);
rfa_status run_attend_again(run_state *s, rfa_context *ctx, const rfa_attention_args *args,
                            unsigned which, const char *what, rfa_error *err);
#endif
