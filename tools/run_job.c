/* One attention job of `rfa run`. */
#include "tools/run_job.h"

#include <stdlib.h>
#include <string.h>

#include "tools/cli.h"
#include "tools/dtype.h"
#include "tools/progress.h"

#define CHUNK ((size_t)32 << 20)

/* ---- loading ---- */

/* Index of the first NaN or infinity, or -1: those have all exponent bits set. */
static int64_t find_nonfinite(rfa_dtype dtype, const void *data, int64_t count)
{
    const uint16_t mask16 = dtype == RFA_F16 ? 0x7c00 : 0x7f80;
    for (int64_t i = 0; i < count; i++) {
        bool bad;
        if (dtype == RFA_F32) {
            const uint32_t *bits = data;
            bad = (bits[i] & 0x7f800000u) == 0x7f800000u;
        } else {
            const uint16_t *bits = data;
            bad = (bits[i] & mask16) == mask16;
        }
        if (bad)
            return i;
    }
    return -1;
}

static rfa_status load_chunk(run_job *job, const st_tensor *from, device_tensor *to, size_t offset,
                             size_t size, void *staging, rfa_error *err)
{
    rfa_dtype dtype = (rfa_dtype)from->dtype;
    void *host = staging ? staging : (char *)to->host + offset;
    rfa_status status = st_read(&job->file, from, offset, host, size, err);
    if (status != RFA_OK)
        return status;
    size_t element = dtype_size(dtype);
    int64_t bad = find_nonfinite(dtype, host, (int64_t)(size / element));
    if (bad >= 0)
        return rfa_fail(err, RFA_INVALID_ARGUMENT,
                        "%s: tensor %s has a NaN or infinity at element %lld", job->request->input,
                        from->name, (long long)((int64_t)(offset / element) + bad));
    if (!staging)
        return RFA_OK;
    return device_status(
        job->ctx, rfa_device_write(job->ctx, to->tensor.data, offset, host, size, NULL), err);
}

static rfa_status load_tensor(run_job *job, const st_tensor *from, device_tensor *to, progress *bar,
                              uint64_t *done, rfa_error *err)
{
    void *staging = NULL;
    rfa_status status = RFA_OK;
    if (!job->host_is_device) {
        staging = malloc(CHUNK);
        if (!staging)
            return rfa_fail(err, RFA_OUT_OF_MEMORY, "no memory for %zu bytes", CHUNK);
    }
    for (size_t at = 0; at < to->size && status == RFA_OK; at += CHUNK) {
        size_t size = to->size - at < CHUNK ? to->size - at : CHUNK;
        status = load_chunk(job, from, to, at, size, staging, err);
        progress_update(bar, *done += size);
    }
    free(staging);
    return status;
}

/* (seq, heads, dim) and (heads, seq, dim) count as a batch of one. */
static rfa_status place_tensor(run_job *job, const st_tensor *from, device_tensor *to,
                               rfa_error *err)
{
    int64_t shape[4] = {1, 0, 0, 0};
    const char *path = job->request->input;
    if (from->dtype == ST_UNSUPPORTED)
        return rfa_fail(err, RFA_UNSUPPORTED, "%s: tensor %s is %s, expected F32, F16 or BF16",
                        path, from->name, from->dtype_name);
    if (from->ndim != 3 && from->ndim != 4)
        return rfa_fail(err, RFA_INVALID_ARGUMENT,
                        "%s: tensor %s has %d dimensions, expected 4 (or 3 for a batch of one)",
                        path, from->name, (int)from->ndim);
    for (int i = 0; i < from->ndim; i++) {
        shape[4 - from->ndim + i] = from->shape[i];
        if (from->shape[i] < 1)
            return rfa_fail(err, RFA_INVALID_ARGUMENT, "%s: tensor %s has length 0 in dimension %d",
                            path, from->name, i);
    }
    return device_tensor_make(job->ctx, to, dtype_dlpack((rfa_dtype)from->dtype), 4, shape, err);
}

static rfa_status load_inputs(run_job *job, rfa_error *err)
{
    device_tensor *const to[3] = {&job->tensors.q, &job->tensors.k, &job->tensors.v};
    const st_tensor *from[3];
    uint64_t total = 0, done = 0;
    rfa_status status = RFA_OK;
    for (int i = 0; i < 3 && status == RFA_OK; i++) {
        from[i] = st_find(&job->file, job->request->names[i]);
        if (!from[i])
            return rfa_fail(err, RFA_INVALID_ARGUMENT,
                            "%s: there is no tensor named %s (--%c names another)",
                            job->request->input, job->request->names[i], "qkv"[i]);
        if (from[i]->ndim != from[0]->ndim)
            return rfa_fail(err, RFA_INVALID_ARGUMENT, "%s: tensor %s has %d dimensions, %s has %d",
                            job->request->input, from[i]->name, (int)from[i]->ndim, from[0]->name,
                            (int)from[0]->ndim);
        status = place_tensor(job, from[i], to[i], err);
        total += to[i]->size;
    }
    progress bar;
    progress_start(&bar, "loading", total);
    for (int i = 0; i < 3 && status == RFA_OK; i++)
        status = load_tensor(job, from[i], to[i], &bar, &done, err);
    progress_end(&bar);
    return status;
}

/* ---- axes, grid, arguments ---- */

static rfa_status choose_axes(run_job *job, rfa_axes *axes, rfa_error *err)
{
    const char *said = st_metadata(&job->file, "axes");
    *axes = job->request->axes == RUN_AXES_BHSD ? RFA_AXES_BHSD : RFA_AXES_BSHD;
    if (job->request->axes != RUN_AXES_FILE || !said || strcmp(said, "bshd") == 0)
        return RFA_OK;
    if (strcmp(said, "bhsd") != 0)
        return rfa_fail(err, RFA_INVALID_ARGUMENT,
                        "%s: metadata axes is \"%s\", expected bshd or bhsd (--axes overrides it)",
                        job->request->input, said);
    *axes = RFA_AXES_BHSD;
    return RFA_OK;
}

static rfa_status choose_grid(run_job *job, rfa_error *err)
{
    const run_request *r = job->request;
    const char *said = st_metadata(&job->file, "grid");
    const char *offset = st_metadata(&job->file, "grid_offset");
    if (!r->cubes || r->causal || (!r->grid_given && !said))
        return RFA_OK;
    job->has_grid = true;
    job->grid = r->grid;
    if (r->grid_given)
        return RFA_OK;
    cli_integers sizes;
    if (!cli_integer_list(said, &sizes) || sizes.count != 3 ||
        (offset && !cli_integer(offset, &job->grid.offset)))
        return rfa_fail(err, RFA_INVALID_ARGUMENT,
                        "%s: metadata grid is \"%s\" with offset \"%s\", expected T,H,W and a "
                        "number (--grid or --no-cubes overrides it)",
                        r->input, said, offset ? offset : "0");
    memcpy(job->grid.size, sizes.values, sizeof(job->grid.size));
    return RFA_OK;
}

static void note_shape(run_job *job, rfa_axes axes)
{
    int row = axes == RFA_AXES_BHSD ? 2 : 1, head = 3 - row;
    job->batch = job->tensors.q.shape[0];
    job->len_q = job->tensors.q.shape[row];
    job->heads_q = job->tensors.q.shape[head];
    job->len_k = job->tensors.k.shape[row];
    job->heads_kv = job->tensors.k.shape[head];
    job->dim = job->tensors.q.shape[3];
    job->dim_v = job->tensors.v.shape[3];
}

static rfa_status make_args(run_job *job, rfa_error *err)
{
    const run_request *r = job->request;
    rfa_attention_args *a = &job->args;
    *a = (rfa_attention_args)RFA_ATTENTION_ARGS_INIT;
    rfa_status status = choose_axes(job, &a->axes, err);
    if (status == RFA_OK)
        status = choose_grid(job, err);
    if (status != RFA_OK)
        return status;
    a->scale = r->scale;
    a->mask = r->causal ? RFA_MASK_CAUSAL : RFA_MASK_NONE;
    a->rule = r->rule;
    a->knob = (float)r->knob;
    a->knob_form = r->scaled ? RFA_KNOB_SCALED : RFA_KNOB_DIRECT;
    a->mass = r->mass;
    a->order = r->order;
    a->block_q = r->block_q;
    a->block_k = r->block_k;
    a->visit_q = r->visit_q;
    if (job->has_grid) {
        a->grids_q = a->grids_k = &job->grid;
        a->grid_count = 1;
    }
    note_shape(job, a->axes);
    status = attention_tensors_make_outputs(job->ctx, &job->tensors, a, r->keep_recall, err);
    if (status == RFA_OK)
        status = device_status(job->ctx, rfa_supports(job->ctx, a, NULL, 0), err);
    return status;
}

rfa_status run_job_open(run_job *job, const run_request *request, rfa_error *err)
{
    *job = (run_job){.request = request};
    rfa_status status = st_open(request->input, &job->file, err);
    if (status != RFA_OK)
        return status;
    rfa_context_options options = RFA_CONTEXT_OPTIONS_INIT;
    options.backend = request->backend;
    options.device = request->device;
    options.threads = request->threads;
    status = device_status(NULL, rfa_context_create(&job->ctx, &options), err);
    if (status != RFA_OK)
        return status;
    job->host_is_device = rfa_context_device(job->ctx).device_type == kDLCPU;
    status = device_status(job->ctx, rfa_context_info(job->ctx, &job->device), err);
    if (status == RFA_OK)
        status = load_inputs(job, err);
    if (status == RFA_OK)
        status = make_args(job, err);
    if (status == RFA_OK && request->output)
        status = st_writer_create(&job->writer, request->output, err);
    return status;
}

/* ---- computing ---- */

static int compare_times(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static rfa_status one_call(run_job *job, double *seconds, rfa_error *err)
{
    double start = progress_now();
    rfa_status status = rfa_attention(job->ctx, &job->args);
    if (status == RFA_OK)
        status = rfa_synchronize(job->ctx, NULL);
    *seconds = progress_now() - start;
    return device_status(job->ctx, status, err);
}

/* A first call that took long is its own measurement; a short one warms up. */
static rfa_status timed_calls(run_job *job, rfa_error *err)
{
    enum { MOST = 1000 };
    double times[MOST], spent = 0, first;
    int64_t count = 0, asked = job->request->repeat < MOST ? job->request->repeat : MOST;
    progress bar;
    progress_start(&bar, "computing", 0);
    progress_update(&bar, 0);
    rfa_status status = one_call(job, &first, err);
    progress_end(&bar);
    if (status == RFA_OK && asked == 0 && first > 0.5) {
        job->time_ms = 1e3 * first;
        return RFA_OK;
    }
    while (status == RFA_OK && (asked ? count < asked : count < 10 && spent < 0.5)) {
        status = one_call(job, &times[count], err);
        spent += times[count++];
    }
    if (status != RFA_OK)
        return status;
    qsort(times, (size_t)count, sizeof(times[0]), compare_times);
    job->time_ms =
        1e3 * (count % 2 ? times[count / 2] : (times[count / 2 - 1] + times[count / 2]) / 2);
    return RFA_OK;
}

rfa_status run_job_compute(run_job *job, rfa_error *err)
{
    rfa_status status = timed_calls(job, err);
    if (status == RFA_OK)
        status = device_tensor_fetch(job->ctx, &job->tensors.counts, err);
    if (status == RFA_OK)
        memcpy(&job->result, job->tensors.counts.host, sizeof(job->result));
    return status;
}

rfa_status run_job_host_args(run_job *job, rfa_attention_args *args, rfa_error *err)
{
    *args = job->args;
    return attention_tensors_fetch(job->ctx, &job->tensors, args, err);
}

/* ---- saving ---- */

static rfa_status save_tensor(run_job *job, st_writer *writer, device_tensor *t, rfa_error *err)
{
    rfa_status status = device_tensor_fetch(job->ctx, t, err);
    if (status != RFA_OK || !t->host)
        return status;
    return st_writer_append(writer, t->host, t->size, err);
}

static rfa_status write_tensors(run_job *job, st_writer *writer, rfa_error *err)
{
    rfa_dtype dtype = (rfa_dtype)st_find(&job->file, job->request->names[0])->dtype;
    rfa_status status = st_writer_metadata(writer, "format", "rfa-attention-1", err);
    if (status == RFA_OK)
        status = st_writer_metadata(writer, "axes",
                                    job->args.axes == RFA_AXES_BHSD ? "bhsd" : "bshd", err);
    if (status == RFA_OK)
        status = st_writer_tensor(writer, "lse", RFA_F32, 3, job->tensors.lse.shape, NULL, err);
    if (status == RFA_OK && job->tensors.recall.tensor.data)
        status =
            st_writer_tensor(writer, "recall", RFA_F32, 3, job->tensors.recall.shape, NULL, err);
    if (status == RFA_OK)
        status = st_writer_tensor(writer, "out", dtype, 4, job->tensors.out.shape, NULL, err);
    if (status == RFA_OK)
        status = st_writer_begin(writer, err);
    if (status == RFA_OK)
        status = save_tensor(job, writer, &job->tensors.lse, err);
    if (status == RFA_OK)
        status = save_tensor(job, writer, &job->tensors.recall, err);
    if (status == RFA_OK)
        status = save_tensor(job, writer, &job->tensors.out, err);
    return status == RFA_OK ? st_writer_commit(writer, err) : status;
}

rfa_status run_job_save(run_job *job, rfa_error *err)
{
    return write_tensors(job, job->writer, err);
}

void run_job_close(run_job *job)
{
    st_writer_destroy(job->writer);
    attention_tensors_free(job->ctx, &job->tensors);
    rfa_context_destroy(job->ctx);
    st_close(&job->file);
}
