/* Variants and inputs of `rfa bench`. */
#include "tools/bench.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "backends/skip_rule.h"
#include "tools/cli.h"
#include "tools/dtype.h"
#include "tools/progress.h"

/* ---- variants ---- */

static bool parse_rule(const char *text, rfa_rule *rule)
{
    static const char *const names[] = {"dense", "blasst", "energy", "recall"};
    for (int i = 0; i < 4; i++) {
        if (strcmp(text, names[i]) == 0) {
            *rule = (rfa_rule)i;
            return true;
        }
    }
    return false;
}

/* Dense on a list with this share of the blocks. */
static rfa_status parse_list(const char *share, const char *extra, bench_variant *variant,
                             rfa_error *err)
{
    if (!share || extra || !cli_number(share, &variant->listed) ||
        !(variant->listed > 0 && variant->listed <= 1))
        return rfa_fail(err, RFA_INVALID_ARGUMENT,
                        "variant \"%s\": a share of the blocks above 0 and at most 1 is expected "
                        "after list",
                        variant->label);
    return RFA_OK;
}

static rfa_status parse_variant(char *text, bench_variant *variant, rfa_error *err)
{
    char *rest = NULL;
    *variant = (bench_variant){.rule = RFA_RULE_DENSE};
    snprintf(variant->label, sizeof(variant->label), "%s", text);
    char *name = strtok_r(text, ":", &rest), *knob = strtok_r(NULL, ":", &rest);
    char *extra = strtok_r(NULL, ":", &rest);
    if (name && strcmp(name, "list") == 0)
        return parse_list(knob, extra, variant, err);
    if (!name || !parse_rule(name, &variant->rule) || strtok_r(NULL, ":", &rest))
        return rfa_fail(err, RFA_INVALID_ARGUMENT,
                        "variant \"%s\": expected dense, recall:R, blasst:X, energy:X or list:G",
                        variant->label);
    bool dense = variant->rule == RFA_RULE_DENSE;
    if (dense != !knob || (knob && !cli_number(knob, &variant->knob)))
        return rfa_fail(err, RFA_INVALID_ARGUMENT, "variant \"%s\": %s", variant->label,
                        dense ? "dense takes no number" : "a number is expected after the rule");
    if (extra && strcmp(extra, "estimated") == 0)
        variant->mass = RFA_MASS_ESTIMATED;
    else if (extra && strcmp(extra, "scaled") == 0)
        variant->scaled = true;
    else if (extra)
        return rfa_fail(err, RFA_INVALID_ARGUMENT,
                        "variant \"%s\": expected estimated or scaled, not %s", variant->label,
                        extra);
    if (!rfa_knob_valid((int)variant->rule, variant->scaled, (float)variant->knob))
        return rfa_fail(err, RFA_INVALID_ARGUMENT, "variant \"%s\": %g is no value for this rule",
                        variant->label, variant->knob);
    return RFA_OK;
}

rfa_status bench_parse_variants(const char *text, bench_request *request, rfa_error *err)
{
    char *copy = strdup(text), *rest = NULL;
    rfa_status status = copy ? RFA_OK : rfa_fail(err, RFA_OUT_OF_MEMORY, "no memory");
    request->variant_count = 0;
    char *one = copy ? strtok_r(copy, ",", &rest) : NULL;
    for (; one && status == RFA_OK; one = strtok_r(NULL, ",", &rest)) {
        if (request->variant_count == BENCH_MAX_VARIANTS)
            status =
                rfa_fail(err, RFA_INVALID_ARGUMENT, "more than %d variants", BENCH_MAX_VARIANTS);
        else
            status = parse_variant(one, &request->variants[request->variant_count++], err);
    }
    free(copy);
    if (status == RFA_OK && request->variant_count == 0)
        return rfa_fail(err, RFA_INVALID_ARGUMENT, "no variant is named");
    return status;
}

/* ---- inputs ---- */

/* One tensor, chunk by chunk, so that the host needs little memory. Batch entries
 * differ by their seed. */
static rfa_status fill(const bench_request *request, const workload_spec *spec, rfa_context *ctx,
                       workload_tensor which, device_tensor *t, progress *bar, uint64_t *done,
                       rfa_error *err)
{
    int64_t tokens = workload_tokens(spec);
    size_t row = (size_t)spec->heads * (size_t)spec->dim * dtype_size(spec->dtype);
    int64_t chunk = 4096 < tokens ? 4096 : tokens;
    void *staging = malloc((size_t)chunk * row);
    rfa_status status = staging ? RFA_OK : rfa_fail(err, RFA_OUT_OF_MEMORY, "no memory for inputs");
    workload_spec entry = *spec;
    for (int64_t b = 0; b < request->batch && status == RFA_OK; b++, entry.seed++) {
        for (int64_t at = 0; at < tokens && status == RFA_OK; at += chunk) {
            int64_t count = tokens - at < chunk ? tokens - at : chunk;
            size_t offset = (size_t)(b * tokens + at) * row;
            status = workload_fill(&entry, which, at, count, staging, err);
            if (status == RFA_OK)
                status = device_status(ctx,
                                       rfa_device_write(ctx, t->tensor.data, offset, staging,
                                                        (size_t)count * row, NULL),
                                       err);
            progress_update(bar, *done += (uint64_t)count);
        }
    }
    free(staging);
    return status;
}

static rfa_status make_lengths(const cli_integers *packed, rfa_context *ctx, device_tensor *t,
                               rfa_error *err)
{
    const DLDataType i32 = {kDLInt, 32, 1};
    const int64_t shape[1] = {(int64_t)packed->count + 1};
    int32_t cumulative[CLI_MAX_INTEGERS + 1] = {0};
    for (size_t i = 0; i < packed->count; i++)
        cumulative[i + 1] = cumulative[i] + (int32_t)packed->values[i];
    rfa_status status = device_tensor_make(ctx, t, i32, 1, shape, err);
    if (status != RFA_OK)
        return status;
    return device_status(ctx, rfa_device_write(ctx, t->tensor.data, 0, cumulative, t->size, NULL),
                         err);
}

rfa_status bench_make_inputs(const bench_request *request, rfa_context *ctx, rfa_dtype dtype,
                             attention_tensors *tensors, rfa_error *err)
{
    device_tensor *const all[3] = {&tensors->q, &tensors->k, &tensors->v};
    const workload_tensor which[3] = {WORKLOAD_Q, WORKLOAD_K, WORKLOAD_V};
    workload_spec spec = request->workload;
    spec.dtype = dtype;
    const int64_t shape[4] = {request->batch, workload_tokens(&spec), spec.heads, spec.dim};
    const int first = request->packed.count > 0; /* axis */
    uint64_t done = 0;
    progress bar;
    progress_start(&bar, "making inputs", 3 * (uint64_t)(shape[0] * shape[1]));
    rfa_status status = RFA_OK;
    for (int i = 0; i < 3 && status == RFA_OK; i++) {
        status =
            device_tensor_make(ctx, all[i], dtype_dlpack(dtype), 4 - first, shape + first, err);
        if (status == RFA_OK)
            status = fill(request, &spec, ctx, which[i], all[i], &bar, &done, err);
    }
    progress_end(&bar);
    if (status == RFA_OK && request->packed.count > 0)
        status = make_lengths(&request->packed, ctx, &tensors->cu_seqlens, err);
    return status;
}
