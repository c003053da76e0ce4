/* Checking and timing of `rfa bench`. */
#include "tools/bench.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "conformance/check.h"
#include "src/problem.h"
#include "tools/dtype.h"
#include "tools/progress.h"

/* One device's work in progress. */
typedef struct bench_job {
    const bench_request *request;
    rfa_context *ctx;
    rfa_device_info device;
    rfa_dtype dtype;
    attention_tensors tensors;
    bench_list lists[BENCH_MAX_VARIANTS]; /* of variants that take one */
    rfa_grid grid;
    bench_peer *peer;
    rfa_timer *timer;
    size_t first; /* this job's first row of the result */
    progress bar;
} bench_job;

/* ---- rows ---- */

static double pairs_of_sequence(double len, bool causal)
{
    return len * (causal ? len + 1 : 2 * len) / 2;
}

/* Unmasked, of a head. */
static double pairs_of(const bench_request *r)
{
    double pairs = 0;
    for (size_t i = 0; i < r->packed.count; i++)
        pairs += pairs_of_sequence((double)r->packed.values[i], r->causal);
    if (r->packed.count > 0)
        return pairs;
    return (double)r->batch * pairs_of_sequence((double)workload_tokens(&r->workload), r->causal);
}

static bench_row *add_row(bench_result *result, const bench_job *job, const char *backend,
                          const char *label, rfa_error *err)
{
    if (result->count == result->capacity) {
        size_t capacity = result->capacity ? 2 * result->capacity : 16;
        bench_row *grown = realloc(result->rows, capacity * sizeof(*grown));
        if (!grown) {
            rfa_fail(err, RFA_OUT_OF_MEMORY, "no memory for results");
            return NULL;
        }
        result->rows = grown;
        result->capacity = capacity;
    }
    bench_row *row = &result->rows[result->count++];
    memset(row, 0, sizeof(*row));
    snprintf(row->backend, sizeof(row->backend), "%s", backend);
    snprintf(row->device, sizeof(row->device), "%s", job->device.name);
    snprintf(row->detail, sizeof(row->detail), "%s", job->device.detail);
    snprintf(row->dtype, sizeof(row->dtype), "%s", dtype_name(job->dtype));
    snprintf(row->label, sizeof(row->label), "%s", label);
    row->packed = job->request->packed.count > 0;
    row->pairs = pairs_of(job->request);
    row->batch = row->packed ? (int64_t)job->request->packed.count : job->request->batch;
    row->heads = job->request->workload.heads;
    row->len = workload_tokens(&job->request->workload);
    row->dim = job->request->workload.dim;
    row->causal = job->request->causal;
    return row;
}

void bench_result_free(bench_result *result)
{
    free(result->rows);
    *result = (bench_result){0};
}

static int compare_times(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Sorts in place. */
static double median_of(double *times, size_t count)
{
    qsort(times, count, sizeof(times[0]), compare_times);
    return count % 2 ? times[count / 2] : (times[count / 2 - 1] + times[count / 2]) / 2;
}

static void summarise(bench_row *row)
{
    size_t count = (size_t)row->rounds;
    if (count == 0)
        return;
    row->median = median_of(row->times, count);
    row->fastest = row->times[0];
    row->slowest = row->times[count - 1];
    row->host = median_of(row->host_times, count);
    double operations = 4.0 * (double)row->heads * row->pairs * (double)row->dim;
    row->tflops = operations / row->median / 1e12;
}

/* Ratios within one job: over its own dense row and over the fastest peer. */
static void compare_rows(bench_row *rows, size_t count)
{
    double dense = 0, peer = 0;
    for (size_t i = 0; i < count; i++) {
        bool own = rows[i].has_counts;
        if (own && strcmp(rows[i].label, "dense") == 0)
            dense = rows[i].median;
        if (!own && rows[i].median > 0 && (peer == 0 || rows[i].median < peer))
            peer = rows[i].median;
    }
    for (size_t i = 0; i < count; i++) {
        if (!rows[i].has_counts || rows[i].median == 0)
            continue;
        rows[i].over_dense = dense / rows[i].median;
        rows[i].over_peer = peer / rows[i].median;
    }
}

/* ---- one variant ---- */

static bench_list *list_of(bench_job *job, const bench_variant *variant)
{
    return &job->lists[variant - job->request->variants];
}

static rfa_attention_args variant_args(bench_job *job, const bench_variant *variant)
{
    const bench_request *r = job->request;
    rfa_attention_args args = RFA_ATTENTION_ARGS_INIT;
    args.rule = variant->rule;
    args.knob = (float)variant->knob;
    args.mass = variant->mass;
    args.knob_form = variant->scaled ? RFA_KNOB_SCALED : RFA_KNOB_DIRECT;
    args.mask = r->causal ? RFA_MASK_CAUSAL : RFA_MASK_NONE;
    args.order = variant->listed > 0 ? RFA_ORDER_LIST : r->order;
    args.list_indices = device_tensor_there(&list_of(job, variant)->indices);
    args.list_counts = device_tensor_there(&list_of(job, variant)->counts);
    args.block_q = r->block_q;
    args.block_k = r->block_k;
    args.visit_q = r->visit_q;
    args.cu_seqlens_q = args.cu_seqlens_k = device_tensor_there(&job->tensors.cu_seqlens);
    for (size_t i = 0; i < r->packed.count; i++)
        if (args.max_len_q < r->packed.values[i])
            args.max_len_q = args.max_len_k = r->packed.values[i];
    if (r->video && r->cubes) {
        args.grids_q = args.grids_k = &job->grid;
        args.grid_count = 1;
    }
    return args;
}

static rfa_status check_against_oracle(bench_job *job, const bench_variant *variant,
                                       rfa_attention_args args, bench_row *row, rfa_error *err)
{
    rfa_problem problem;
    check_report report;
    check_options options = {.weights = check_weights(job->device.weights, job->dtype),
                             .sample = job->request->check_blocks,
                             .seed = 1};
    const DLDevice host = {kDLCPU, 0};
    rfa_status status = attention_tensors_fetch(job->ctx, &job->tensors, &args, err);
    args.list_indices = device_tensor_here(&list_of(job, variant)->indices);
    args.list_counts = device_tensor_here(&list_of(job, variant)->counts);
    if (status == RFA_OK)
        memcpy(&row->counts, job->tensors.counts.host, sizeof(row->counts));
    if (status == RFA_OK && options.sample > 0)
        status = rfa_problem_build(&problem, &args, RFA_FOR_ATTENTION, host, err);
    if (status != RFA_OK || options.sample == 0)
        return status;
    status = check_outputs(&problem, &options, &report, err);
    if (status == RFA_OK && !report.ok) {
        row->failed = true;
        snprintf(row->failure, sizeof(row->failure), "%s", report.failure);
    }
    return status;
}

/* Proves a variant, or notes why it cannot be timed. */
static rfa_status prove(bench_job *job, const bench_variant *variant, bench_row *row,
                        rfa_error *err)
{
    rfa_status status = RFA_OK;
    if (variant->listed > 0)
        status =
            bench_list_make(job->request, job->ctx, variant->listed, list_of(job, variant), err);
    rfa_attention_args args = variant_args(job, variant);
    if (status == RFA_OK)
        status = attention_tensors_make_outputs(job->ctx, &job->tensors, &args, true, err);
    if (status == RFA_OK) {
        status = rfa_supports(job->ctx, &args, row->failure, sizeof(row->failure));
        bool unsupported = status == RFA_UNSUPPORTED; /* a row that says so */
        status = unsupported ? RFA_OK : device_status(job->ctx, status, err);
        if (status == RFA_OK && !unsupported)
            status = device_status(job->ctx, rfa_attention(job->ctx, &args), err);
        if (status == RFA_OK && !unsupported)
            status = check_against_oracle(job, variant, args, row, err);
    }
    attention_tensors_free_outputs(job->ctx, &job->tensors);
    row->has_counts = !row->failure[0];
    return status;
}

/* On a CPU beside a peer, first wait until its threads sleep: OpenMP's spin for some 20 ms when
 * they are through, in the way of others. Then a call that is not timed wakes the own ones. The
 * peer does the same. */
static rfa_status take_over(bench_job *job, const rfa_attention_args *args, rfa_error *err)
{
    const struct timespec rest = {.tv_nsec = 50 * 1000 * 1000};
    if (!job->peer || rfa_context_device(job->ctx).device_type != kDLCPU)
        return RFA_OK;
    nanosleep(&rest, NULL);
    return device_status(job->ctx, rfa_attention(job->ctx, args), err);
}

/* Outputs as a model would ask for: out alone. */
static rfa_status time_variant(bench_job *job, const bench_variant *variant, bench_row *row,
                               double *seconds, rfa_error *err)
{
    rfa_attention_args args = variant_args(job, variant);
    args.q = device_tensor_there(&job->tensors.q);
    args.k = device_tensor_there(&job->tensors.k);
    args.v = device_tensor_there(&job->tensors.v);
    args.out = device_tensor_there(&job->tensors.out);
    rfa_status status = take_over(job, &args, err);
    if (status == RFA_OK)
        status = bench_time_calls(job->ctx, job->timer, &args, row->calls, seconds,
                                  &row->host_times[row->rounds], err);
    return status;
}

/* ---- one device ---- */

/* Row `index` is a variant or, behind these, a peer. */
static rfa_status time_row(bench_job *job, int index, bench_row *row, double *seconds,
                           rfa_error *err)
{
    int variants = job->request->variant_count;
    if (index < variants)
        return time_variant(job, &job->request->variants[index], row, seconds, err);
    return bench_peer_time(job->peer, index - variants, row->calls, seconds, err);
}

/* The warm-up: one call to wake everything, one that says how many make a round. */
static rfa_status warm_up(bench_job *job, int index, bench_row *row, rfa_error *err)
{
    double seconds = 0;
    rfa_status status = RFA_OK;
    row->calls = 1;
    for (int i = 0; i < 2 && status == RFA_OK; i++)
        status = time_row(job, index, row, &seconds, err);
    row->calls = bench_calls_for(seconds);
    return status;
}

/* Every round begins with another row: what runs before one leaves a device warm or at rest. */
static rfa_status time_round(bench_job *job, bench_row *rows, int round, rfa_error *err)
{
    int count = job->request->variant_count + bench_peer_count(job->peer);
    int first = round > 0 ? round % count : 0;
    rfa_status status = RFA_OK;
    for (int turn = 0; turn < count && status == RFA_OK; turn++) {
        int i = (first + turn) % count;
        bench_row *row = &rows[i];
        if (row->failure[0])
            continue;
        status = round < 0 ? warm_up(job, i, row, err)
                           : time_row(job, i, row, &row->times[row->rounds], err);
        row->rounds += round >= 0 && status == RFA_OK;
    }
    return status;
}

static rfa_status time_all(bench_job *job, bench_result *result, rfa_error *err)
{
    const DLDataType dtype = job->tensors.q.tensor.dtype;
    rfa_status status = device_tensor_make(job->ctx, &job->tensors.out, dtype,
                                           job->tensors.q.tensor.ndim, job->tensors.q.shape, err);
    if (status == RFA_OK)
        status = device_status(job->ctx, rfa_timer_create(job->ctx, &job->timer), err);
    progress_start(&job->bar, "timing", (uint64_t)job->request->rounds + 1);
    for (int round = -1; round < job->request->rounds && status == RFA_OK; round++) {
        status = time_round(job, result->rows + job->first, round, err);
        progress_update(&job->bar, (uint64_t)round + 2);
    }
    progress_end(&job->bar);
    return status;
}

static rfa_status prove_all(bench_job *job, bench_result *result, rfa_error *err)
{
    const bench_request *r = job->request;
    rfa_status status = RFA_OK;
    progress_start(&job->bar, "checking against the oracle", (uint64_t)r->variant_count);
    for (int i = 0; i < r->variant_count && status == RFA_OK; i++) {
        bench_row *row =
            add_row(result, job, rfa_context_backend(job->ctx), r->variants[i].label, err);
        status = row ? prove(job, &r->variants[i], row, err) : RFA_OUT_OF_MEMORY;
        progress_update(&job->bar, (uint64_t)i + 1);
    }
    progress_end(&job->bar);
    return status;
}

static rfa_status start_peer(bench_job *job, bench_result *result, rfa_error *err)
{
    if (!job->request->peer)
        return RFA_OK;
    rfa_status status = bench_peer_start(job->request, job->ctx, &job->tensors, &job->peer, err);
    for (int i = 0; status == RFA_OK && i < bench_peer_count(job->peer); i++) {
        bench_row *row =
            add_row(result, job, job->request->peer, bench_peer_name(job->peer, i), err);
        status = row ? RFA_OK : RFA_OUT_OF_MEMORY;
    }
    return status;
}

rfa_status bench_run(const bench_request *request, const char *backend, int32_t device,
                     rfa_dtype dtype, bench_result *result, rfa_error *err)
{
    bench_job job = {.request = request, .dtype = dtype, .first = result->count};
    memcpy(job.grid.size, request->workload.grid, sizeof(job.grid.size));
    rfa_context_options options = RFA_CONTEXT_OPTIONS_INIT;
    options.backend = backend;
    options.device = device;
    options.threads = request->threads;
    rfa_status status = device_status(NULL, rfa_context_create(&job.ctx, &options), err);
    if (status == RFA_OK)
        status = device_status(NULL, rfa_context_info(job.ctx, &job.device), err);
    if (status == RFA_OK)
        status = bench_make_inputs(request, job.ctx, dtype, &job.tensors, err);
    if (status == RFA_OK)
        status = prove_all(&job, result, err);
    if (status == RFA_OK)
        status = start_peer(&job, result, err);
    if (status == RFA_OK)
        status = time_all(&job, result, err);
    bench_peer_stop(job.peer);
    rfa_timer_destroy(job.timer);
    if (job.ctx)
        attention_tensors_free(job.ctx, &job.tensors);
    for (int i = 0; job.ctx && i < BENCH_MAX_VARIANTS; i++)
        bench_list_free(job.ctx, &job.lists[i]);
    rfa_context_destroy(job.ctx);
    for (size_t i = job.first; i < result->count; i++)
        summarise(&result->rows[i]);
    compare_rows(result->rows + job.first, result->count - job.first);
    return status;
}
