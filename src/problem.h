/* From the caller's arguments to the one plain problem that backends see. */
#ifndef RFA_PROBLEM_H
#define RFA_PROBLEM_H

#include "backends/backend.h"

typedef enum rfa_purpose { RFA_FOR_ATTENTION, RFA_FOR_VISIT_LIST } rfa_purpose;

/* Checks everything that does not depend on the backend and fills *p, which
 * borrows from args. `device`: where tensors must be. */
rfa_status rfa_problem_build(rfa_problem *p, const rfa_attention_args *args, rfa_purpose purpose,
                             DLDevice device, rfa_error *err);
rfa_status rfa_merge_problem_build(rfa_merge_problem *p, const rfa_merge_args *args,
                                   DLDevice device, rfa_error *err);

#endif
