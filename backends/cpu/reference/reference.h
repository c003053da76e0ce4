/* The `reference` backend: the oracle behind the module interface. */
#ifndef RFA_REFERENCE_H
#define RFA_REFERENCE_H

#include "backends/backend.h"
#include "backends/host_memory.h"

typedef struct reference_state {
    int32_t threads; /* at least 1 */
    rfa_host_workspace workspace;
} reference_state;

rfa_status reference_run(void *state, const rfa_problem *p, void *workspace, rfa_error *err);
rfa_status reference_build_list(void *state, const rfa_problem *p, void *workspace, rfa_error *err);
rfa_status reference_merge(void *state, const rfa_merge_problem *p, rfa_error *err);

#endif
