/* The pieces of `rfa bench`: variants of attention on one set of inputs, each
 * proved against the oracle before it is timed, all timed in turn. */
#ifndef RFA_TOOLS_BENCH_H
#define RFA_TOOLS_BENCH_H

#include <stdio.h>

#include "tools/cli.h"
#include "tools/device_tensor.h"
#include "tools/workload.h"

#define BENCH_MAX_VARIANTS 16
#define BENCH_MAX_ROUNDS 100
#define BENCH_MAX_PEERS 4

/* "recall:0.9:estimated" taken apart. */
typedef struct bench_variant {
    char label[64];
    rfa_rule rule;
    double knob;
    rfa_mass mass;
    bool scaled;
    double listed; /* share of the key blocks in a visit list; 0: no list */
} bench_variant;

typedef struct bench_request {
    workload_spec workload; /* dtype is set per case */
    int64_t batch;
    bool video; /* a grid of video tokens; otherwise one row of tokens of kind diffuse */
    /* Lengths of packed sequences, which together are the row of tokens; count 0: not packed. */
    cli_integers packed;
    bool cubes, causal;
    rfa_order order;
    int32_t block_q, block_k, visit_q;
    bench_variant variants[BENCH_MAX_VARIANTS];
    int variant_count;
    int rounds;
    int64_t check_blocks;
    int32_t threads;
    const char *peer, *python, *peer_isa; /* NULL: none, python3, whatever it likes */
} bench_request;

/* One line of the result. */
typedef struct bench_row {
    char backend[32], device[128], detail[128], dtype[8], label[64];
    int64_t batch, heads, len, dim; /* packed: sequences; tokens of all of them */
    bool causal, packed;
    double pairs;      /* unmasked, of a head, in all */
    char failure[256]; /* why it was not timed; "" if it was */
    bool failed;       /* wrong, not merely unsupported */
    rfa_counts counts;
    bool has_counts;
    int rounds, calls;                   /* so many calls in each round */
    double times[BENCH_MAX_ROUNDS];      /* seconds a call, by round; by the device's clock */
    double host_times[BENCH_MAX_ROUNDS]; /* seconds until a call returned; 0 for peers */
    double median, fastest, slowest;     /* seconds */
    double host;                         /* median of host_times */
    double tflops;                       /* dense operations, of these pairs, over the median */
    double over_dense;                   /* dense median / own median; 0: no dense */
    double over_peer;                    /* best peer median / own median; 0: no peer */
} bench_row;

typedef struct bench_result {
    bench_row *rows;
    size_t count, capacity;
} bench_result;

/* "dense,recall:0.9,..." into variants. RFA_INVALID_ARGUMENT with a sentence. */
rfa_status bench_parse_variants(const char *text, bench_request *request, rfa_error *err);

/* Makes inputs of `dtype` on one device, checks and times every variant and peer,
 * and appends their rows. A variant that is unsupported or wrong is a row too. */
rfa_status bench_run(const bench_request *request, const char *backend, int32_t device,
                     rfa_dtype dtype, bench_result *result, rfa_error *err);
void bench_result_free(bench_result *result);

/* ---- the clock ---- */

/* How many calls of this length make a round that is long enough to time. */
int bench_calls_for(double seconds);
/* Seconds a call on args->stream, by the device's clock, and until a call returns
 * to the host. */
rfa_status bench_time_calls(rfa_context *ctx, rfa_timer *timer, const rfa_attention_args *args,
                            int calls, double *seconds, double *host_seconds, rfa_error *err);

/* ---- inputs ---- */

/* q, k, v as (batch, len, heads, dim) on the context's device; packed as (tokens, heads, dim), and
 * cu_seqlens. */
rfa_status bench_make_inputs(const bench_request *request, rfa_context *ctx, rfa_dtype dtype,
                             attention_tensors *tensors, rfa_error *err);

/* A visit list for every (batch, head, group). */
typedef struct bench_list {
    device_tensor indices, counts;
} bench_list;

rfa_status bench_list_make(const bench_request *request, rfa_context *ctx, double share,
                           bench_list *list, rfa_error *err);
/* Also for one that was not made, or in part. */
void bench_list_free(rfa_context *ctx, bench_list *list);

/* ---- peers: another implementation in a process of its own ---- */

typedef struct bench_peer bench_peer;

/* Starts the helper on the same tensors and device and waits until it has them. */
rfa_status bench_peer_start(const bench_request *request, rfa_context *ctx,
                            attention_tensors *tensors, bench_peer **peer, rfa_error *err);
int bench_peer_count(const bench_peer *peer);
const char *bench_peer_name(const bench_peer *peer, int index);
/* Seconds a call of one of its implementations, over `calls` of them. */
rfa_status bench_peer_time(bench_peer *peer, int index, int calls, double *seconds, rfa_error *err);
void bench_peer_stop(bench_peer *peer);

/* ---- reports ---- */

bool bench_report_table(FILE *out, const bench_result *result);
bool bench_report_markdown(FILE *out, const bench_result *result);
bool bench_report_csv(FILE *out, const bench_result *result);
bool bench_report_json(FILE *out, const bench_result *result);

#endif
