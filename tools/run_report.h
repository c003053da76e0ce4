/* What `rfa run` prints. */
#ifndef RFA_TOOLS_RUN_REPORT_H
#define RFA_TOOLS_RUN_REPORT_H

#include "conformance/check.h"
#include "tools/run_job.h"

/* Printed by `rfa run --json`; `check` may be NULL. False if memory ran out. */
bool run_report_json(const run_job *job, const check_report *check);
/* The same for people. */
void run_report_text(const run_job *job, const check_report *check);

#endif
