/* What `rfa run` prints. */
#include "tools/run_report.h"

#include <math.h>

#include "tools/dtype.h"
#include "tools/json.h"

static const char *const rule_names[] = {"dense", "blasst", "energy", "recall"};
static const char *const recall_kinds[] = {NULL, "exact", "estimated"};
static const char *const recall_scopes[] = {"all keys", "visited keys"};
static const char *const order_names[] = {"diagonal", "raster", "predicted", "list"};

static double dense_operations(const run_job *job)
{
    double pairs =
        (double)job->batch * (double)job->heads_q * (double)job->len_q * (double)job->len_k;
    return 2 * pairs * (double)(job->dim + job->dim_v);
}

static double tflops(const run_job *job)
{
    return dense_operations(job) / job->time_ms / 1e9;
}

static double sparsity(const rfa_counts *counts)
{
    if (counts->blocks_total == 0)
        return 0;
    return 1 - (double)counts->blocks_kept / (double)counts->blocks_total;
}

static rfa_dtype dtype_of(const run_job *job)
{
    return (rfa_dtype)st_find(&job->file, job->request->names[0])->dtype;
}

/* ---- JSON ---- */

static bool add_shape(cJSON *json, const run_job *job)
{
    cJSON *shape = cJSON_AddObjectToObject(json, "shape");
    return shape && json_add_integer(shape, "batch", job->batch) &&
           json_add_integer(shape, "heads_q", job->heads_q) &&
           json_add_integer(shape, "heads_kv", job->heads_kv) &&
           json_add_integer(shape, "len_q", job->len_q) &&
           json_add_integer(shape, "len_k", job->len_k) &&
           json_add_integer(shape, "dim", job->dim) && json_add_integer(shape, "dim_v", job->dim_v);
}

static bool add_integers(cJSON *json, const char *name, const int64_t *values, int count)
{
    cJSON *array = cJSON_AddArrayToObject(json, name);
    for (int i = 0; array && i < count; i++) {
        cJSON *item = cJSON_CreateNumber((double)values[i]);
        if (!item || !cJSON_AddItemToArray(array, item))
            return false;
    }
    return array != NULL;
}

static bool add_method(cJSON *json, const run_job *job)
{
    const run_request *r = job->request;
    const int64_t block[2] = {job->args.block_q, job->args.block_k};
    bool ok = json_add_text(json, "rule", rule_names[r->rule]);
    if (r->rule == RFA_RULE_DENSE)
        ok = ok && json_add_text(json, "target", NULL);
    else
        ok = ok && json_add_f32(json, "target", job->args.knob);
    ok = ok && json_add_text(json, "mass", r->mass == RFA_MASS_EXACT ? "exact" : "estimated") &&
         json_add_text(json, "order", order_names[r->order]);
    if (job->has_grid)
        ok = ok && add_integers(json, "grid", job->grid.size, 3);
    else
        ok = ok && json_add_text(json, "grid", NULL);
    return ok && add_integers(json, "block", block, 2) &&
           json_add_integer(json, "visit_q", job->args.visit_q);
}

static bool add_results(cJSON *json, const run_job *job)
{
    const rfa_counts *c = &job->result;
    return json_add_number(json, "time_ms", job->time_ms) &&
           json_add_number(json, "tflops", tflops(job)) &&
           json_add_unsigned(json, "blocks_total", c->blocks_total) &&
           json_add_unsigned(json, "blocks_visited", c->blocks_visited) &&
           json_add_unsigned(json, "blocks_kept", c->blocks_kept) &&
           json_add_number(json, "sparsity", sparsity(c)) &&
           json_add_f32(json, "recall_mean", c->recall_mean) &&
           json_add_f32(json, "recall_block_min", c->recall_block_min) &&
           json_add_text(json, "recall_kind", recall_kinds[c->recall_kind % 3]) &&
           json_add_text(json, "recall_scope", recall_scopes[c->recall_scope % 2]);
}

static bool add_check(cJSON *json, const check_report *check)
{
    if (!check)
        return true;
    cJSON *part = cJSON_AddObjectToObject(json, "check");
    return part && json_add_unsigned(part, "decisions", check->decisions) &&
           json_add_unsigned(part, "decisions_wrong", check->decisions_wrong) &&
           json_add_number(part, "max_abs_error", check->max_abs_error) &&
           json_add_number(part, "max_abs_error_allowed", check->max_abs_error_allowed) &&
           json_add_bool(part, "ok", check->ok) &&
           json_add_text(part, "failure", check->ok ? NULL : check->failure) &&
           json_add_integer(part, "blocks_checked", check->blocks_checked) &&
           json_add_number(json, "recall_mean_oracle", check->recall_mean_oracle) &&
           json_add_number(json, "recall_block_min_oracle", check->recall_block_min_oracle);
}

bool run_report_json(const run_job *job, const check_report *check)
{
    cJSON *json = cJSON_CreateObject();
    bool ok = json && json_add_text(json, "backend", rfa_context_backend(job->ctx)) &&
              json_add_text(json, "device", job->device.name) &&
              json_add_text(json, "dtype", dtype_name(dtype_of(job))) && add_shape(json, job) &&
              add_method(json, job) && add_results(json, job) && add_check(json, check) &&
              json_print(stdout, json);
    cJSON_Delete(json);
    return ok;
}

/* ---- text ---- */

static void print_target(const run_job *job)
{
    const run_request *r = job->request;
    switch (r->rule) {
    case RFA_RULE_DENSE: printf("dense"); break;
    case RFA_RULE_RECALL:
        printf("recall >= %g, %s masses", r->knob,
               r->mass == RFA_MASS_EXACT ? "exact" : "estimated");
        break;
    case RFA_RULE_BLASST:
    case RFA_RULE_ENERGY:
        printf("%s, threshold %g%s", rule_names[r->rule], r->knob, r->scaled ? " (scaled)" : "");
        break;
    }
    printf(", %s order, blocks of %d x %d", order_names[r->order], (int)job->args.block_q,
           (int)job->args.block_k);
    if (job->has_grid)
        printf(", cubes of grid %lld x %lld x %lld", (long long)job->grid.size[0],
               (long long)job->grid.size[1], (long long)job->grid.size[2]);
    printf("\n");
}

static void print_check(const check_report *check)
{
    printf("check     %s: %llu decisions compared with the oracle, %llu wrong;"
           " largest error %.3g, %.3g allowed there\n",
           check->ok ? "ok" : "FAILED", (unsigned long long)check->decisions,
           (unsigned long long)check->decisions_wrong, check->max_abs_error,
           check->max_abs_error_allowed);
    if (check->blocks_checked < check->blocks_all)
        printf("          a sample: %lld of %lld decision blocks (--check-blocks 0 takes all)\n",
               (long long)check->blocks_checked, (long long)check->blocks_all);
    if (!check->ok)
        printf("          %s\n", check->failure);
    printf("oracle    recall of what was kept: mean %.4f, worst decision block %.4f\n",
           check->recall_mean_oracle, check->recall_block_min_oracle);
}

void run_report_text(const run_job *job, const check_report *check)
{
    const rfa_counts *c = &job->result;
    printf("input     %s: batch %lld, %lld heads (%lld of k and v), %lld x %lld tokens, dim %lld, "
           "%s\n",
           job->request->input, (long long)job->batch, (long long)job->heads_q,
           (long long)job->heads_kv, (long long)job->len_q, (long long)job->len_k,
           (long long)job->dim, dtype_name(dtype_of(job)));
    printf("backend   %s on %s\n", rfa_context_backend(job->ctx), job->device.name);
    printf("method    ");
    print_target(job);
    printf("time      %.3f ms, %.3f TFLOP/s counted as dense\n", job->time_ms, tflops(job));
    printf("blocks    %llu with work, %llu kept: %.1f %% skipped\n",
           (unsigned long long)c->blocks_total, (unsigned long long)c->blocks_kept,
           100 * sparsity(c));
    if (!isnan(c->recall_mean))
        printf("recall    mean %.4f, worst decision block %.4f%s\n", (double)c->recall_mean,
               (double)c->recall_block_min,
               c->recall_kind == RFA_RECALL_ESTIMATED ? " (estimates)" : "");
    if (check)
        print_check(check);
    if (job->request->output && (!check || check->ok))
        printf("written   %s\n", job->request->output);
}
