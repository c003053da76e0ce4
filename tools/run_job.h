/* One attention job of `rfa run`: tensors from a file onto a device, timed
 * calls, outputs back on the host. */
#ifndef RFA_TOOLS_RUN_JOB_H
#define RFA_TOOLS_RUN_JOB_H

#include "tools/device_tensor.h"
#include "tools/safetensors.h"

/* What the command line asks for. Texts point into argv. */
typedef struct run_request {
    const char *input, *output;
    const char *backend;
    int32_t device, threads;
    const char *names[3]; /* of q, k, v in the file */
    int axes;             /* run_axes; RUN_AXES_FILE: what the file says, or bshd */
    rfa_rule rule;
    double knob;
    bool scaled;
    rfa_mass mass;
    rfa_order order;
    bool causal;
    float scale;
    int32_t block_q, block_k, visit_q;
    bool cubes; /* where a grid is known and the mask allows it */
    bool grid_given;
    rfa_grid grid;
    bool keep_recall; /* track recall under blasst and energy too */
    int64_t repeat;   /* timed calls; 0: as many as half a second holds, at most 10 */
} run_request;

enum { RUN_AXES_FILE, RUN_AXES_BSHD, RUN_AXES_BHSD };

typedef struct run_job {
    const run_request *request;
    st_file file;
    rfa_context *ctx;
    bool host_is_device;
    rfa_device_info device;
    attention_tensors tensors;
    rfa_attention_args args;
    rfa_grid grid;
    bool has_grid;
    int64_t batch, heads_q, heads_kv, len_q, len_k, dim, dim_v; /* for the report */
    st_writer
        *writer;    /* of the output; made first, so that a bad target is known before the work */
    double time_ms; /* median */
    rfa_counts result;
} run_job;

/* Opens the file and the device and loads q, k, v; refuses NaN and infinity. */
rfa_status run_job_open(run_job *job, const run_request *request, rfa_error *err);
/* Computes, times, and brings the counts back. */
rfa_status run_job_compute(run_job *job, rfa_error *err);
/* The arguments with every tensor as host memory, outputs and inputs read back:
 * what the oracle looks at. */
rfa_status run_job_host_args(run_job *job, rfa_attention_args *args, rfa_error *err);
/* Writes out, lse and recall as a safetensors file. */
rfa_status run_job_save(run_job *job, rfa_error *err);
/* Frees everything; also after a failure. */
void run_job_close(run_job *job);

#endif
