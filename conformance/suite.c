#include "conformance/suite.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "conformance/rng.h"

#define MERGE_PREFIX "merge/"

typedef struct suite {
    const suite_options *options;
    suite_result *result;
    run_target target;
    int64_t done, total;
} suite;

/* ---- contexts ---- */

static rfa_status open_context(const suite_options *o, const char *backend, int32_t threads,
                               rfa_context **ctx, rfa_error *err)
{
    rfa_context_options options = RFA_CONTEXT_OPTIONS_INIT;
    options.backend = backend;
    options.device = o->device;
    options.threads = threads;
    rfa_status status = rfa_context_create(ctx, &options);
    return status == RFA_OK ? status : rfa_fail(err, status, "%s", rfa_last_error(NULL));
}

static rfa_status open_target(suite *s, rfa_error *err)
{
    static const int32_t threads[] = {1, 2, 3};
    run_target *t = &s->target;
    rfa_status status = open_context(s->options, s->options->backend, 0, &t->ctx, err);
    if (status != RFA_OK)
        return status;
    t->backend = rfa_context_backend(t->ctx);
    rfa_device_info info;
    status = rfa_context_info(t->ctx, &info);
    if (status != RFA_OK)
        return rfa_fail(err, status, "%s", rfa_last_error(t->ctx));
    t->weights = info.weights;
    if (rfa_context_device(t->ctx).device_type != kDLCPU)
        return RFA_OK;
    for (int i = 0; i < 3 && status == RFA_OK; i++) {
        status = open_context(s->options, t->backend, threads[i], &t->other[i], err);
        t->others += status == RFA_OK;
    }
    return status;
}

static void close_target(run_target *t)
{
    for (int i = 0; i < t->others; i++)
        rfa_context_destroy(t->other[i]);
    rfa_context_destroy(t->ctx);
}

/* ---- cases ---- */

static void tell(suite *s, const char *name, const char *description, const run_outcome *outcome)
{
    suite_result *r = s->result;
    r->passed += outcome->result == RUN_PASSED;
    r->failed += outcome->result == RUN_FAILED;
    r->skipped += outcome->result == RUN_SKIPPED;
    r->decisions += outcome->report.decisions;
    r->kept += outcome->report.kept;
    r->unsure += outcome->report.unsure;
    r->worst_ratio = fmax(r->worst_ratio, outcome->report.worst_ratio);
    const suite_case done = {name, description, outcome, ++s->done, s->total};
    if (s->options->report)
        s->options->report(s->options->user, &done);
}

static void attention_case(suite *s, const conformance_case *c)
{
    char description[300];
    run_outcome outcome;
    conformance_describe(c, description, sizeof(description));
    run_case(&s->target, c, &outcome);
    tell(s, c->name, description, &outcome);
}

static void merge_of_seed(suite *s, uint64_t seed)
{
    char name[48];
    run_outcome outcome;
    snprintf(name, sizeof(name), MERGE_PREFIX "%" PRIx64, seed);
    run_merge(&s->target, seed, &outcome);
    tell(s, name, "merge of random parts", &outcome);
}

/* Mostly small, so that many shapes are seen; some large enough for long walks. */
static conformance_size size_of(const suite *s, int64_t i)
{
    if (s->options->small)
        return SIZE_SMALL;
    if (!s->options->quick && i % 16 == 15)
        return SIZE_LARGE;
    return i % 4 == 3 ? SIZE_MEDIUM : SIZE_SMALL;
}

static void random_case(suite *s, int64_t i)
{
    rng r = rng_stream(s->options->seed, (uint64_t)i);
    uint64_t seed = rng_next(&r);
    conformance_case c;
    if (i % 10 == 9) {
        merge_of_seed(s, seed);
        return;
    }
    conformance_generate(seed, size_of(s, i), &c);
    attention_case(s, &c);
}

static void all_cases(suite *s)
{
    int64_t fixed = s->options->small ? 0 : (int64_t)conformance_fixed_count();
    conformance_case c;
    s->total = fixed + s->options->cases;
    for (int64_t i = 0; i < fixed; i++) {
        conformance_fixed((size_t)i, &c);
        attention_case(s, &c);
    }
    for (int64_t i = 0; i < s->options->cases; i++)
        random_case(s, i);
}

static rfa_status one_case(suite *s, rfa_error *err)
{
    const char *name = s->options->only;
    size_t prefix = strlen(MERGE_PREFIX);
    conformance_case c;
    char *end = NULL;
    s->total = 1;
    if (strncmp(name, MERGE_PREFIX, prefix) == 0) {
        uint64_t seed = strtoull(name + prefix, &end, 16);
        if (end == name + prefix || *end != '\0')
            return rfa_fail(err, RFA_INVALID_ARGUMENT, "no case is called \"%s\"", name);
        merge_of_seed(s, seed);
        return RFA_OK;
    }
    if (!conformance_find(name, &c))
        return rfa_fail(err, RFA_INVALID_ARGUMENT, "no case is called \"%s\"", name);
    attention_case(s, &c);
    return RFA_OK;
}

rfa_status suite_run(const suite_options *options, suite_result *result, rfa_error *err)
{
    suite s = {.options = options, .result = result};
    memset(result, 0, sizeof(*result));
    rfa_status status = open_target(&s, err);
    if (status == RFA_OK && options->only)
        status = one_case(&s, err);
    else if (status == RFA_OK)
        all_cases(&s);
    close_target(&s.target);
    return status;
}
