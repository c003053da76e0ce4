#include "conformance/check.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "conformance/check_internal.h"
#include "conformance/rng.h"

rfa_dtype check_weights(uint32_t declared, rfa_dtype dtype)
{
    static const uint32_t bits[] = {
        [RFA_F32] = 0, [RFA_F16] = RFA_WEIGHTS_F16, [RFA_BF16] = RFA_WEIGHTS_BF16};
    return declared & bits[dtype] ? dtype : RFA_F32;
}

void check_fail(check *c, int part, int64_t place, const char *format, ...)
{
    char text[sizeof(c->report->failure)];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof(text), format, list);
    va_end(list);
    int64_t rank = ((int64_t)part << 56) + place;
#pragma omp critical(rfa_check_fail)
    if (rank < c->first_failure) {
        c->first_failure = rank;
        memcpy(c->report->failure, text, sizeof(text));
    }
}

static bool scratch_alloc(check_scratch *s, const check *c)
{
    const rfa_problem *p = c->p;
    memset(s, 0, sizeof(*s));
    if (oracle_block_alloc(c->walk.oracle, false, &s->block, NULL) != RFA_OK)
        return false;
    s->plain = malloc((size_t)p->block_q * (size_t)p->dim_v * sizeof(*s->plain));
    s->list = malloc((size_t)p->blocks_k * sizeof(*s->list));
    s->counted = malloc((size_t)s->block.words * sizeof(*s->counted));
    return s->plain && s->list && s->counted;
}

static void scratch_free(check_scratch *s)
{
    oracle_block_free(&s->block);
    free(s->plain);
    free(s->list);
    free(s->counted);
}

/* The i-th of n decision blocks to check: one, at random, of each n-th part. */
static int64_t sampled(const check *c, int64_t i, int64_t n)
{
    int64_t all = c->report->blocks_all;
    if (n == all)
        return i;
    int64_t begin = (int64_t)((__int128)all * i / n), end = (int64_t)((__int128)all * (i + 1) / n);
    rng r = rng_stream(c->options->seed, (uint64_t)i);
    return begin + rng_below(&r, end - begin);
}

static void advance(const check *c, int64_t *done, int64_t n)
{
#pragma omp critical(rfa_check_progress)
    {
        ++*done;
        if (c->options->progress)
            c->options->progress(c->options->user, *done, n);
    }
}

static rfa_status check_blocks(check *c, rfa_error *err)
{
    int64_t all = c->report->blocks_all, wanted = c->options->sample, done = 0;
    int64_t n = wanted > 0 && wanted < all ? wanted : all;
    bool starved = false;
#pragma omp parallel
    {
        check_scratch scratch;
        bool ready = scratch_alloc(&scratch, c);
        if (!ready) {
#pragma omp atomic write
            starved = true;
        }
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < n; i++)
            if (ready) {
                check_block(c, sampled(c, i, n), &scratch);
                advance(c, &done, n);
            }
        scratch_free(&scratch);
    }
    return starved ? rfa_fail(err, RFA_OUT_OF_MEMORY, "no memory for the oracle's blocks") : RFA_OK;
}

static void finish_report(check *c, rfa_status status)
{
    check_report *report = c->report;
    report->ok = status == RFA_OK && c->first_failure == INT64_MAX;
    report->recall_mean_oracle = c->exact_sum / (double)c->rows;
    report->recall_block_min_oracle = c->exact_min;
}

rfa_status check_outputs(const rfa_problem *p, const check_options *options, check_report *report,
                         rfa_error *err)
{
    check c = {.p = p, .options = options, .report = report, .first_failure = INT64_MAX};
    memset(report, 0, sizeof(*report));
    if (!p->out.data || !p->decisions.data)
        return rfa_fail(err, RFA_INVALID_ARGUMENT, "the checker needs %s",
                        p->out.data ? "decisions" : "out");
    c.recall_min = c.exact_min = INFINITY;
    c.recall_known = true;
    report->blocks_all = p->batch * p->heads_q * p->blocks_q;
    rfa_status status = oracle_create(&c.given, p, err);
    if (status == RFA_OK)
        status = check_norms(&c, err);
    if (status == RFA_OK)
        status = check_visits(&c, err);
    if (status == RFA_OK)
        status = check_blocks(&c, err);
    if (status == RFA_OK)
        status = check_counts(&c, err);
    finish_report(&c, status);
    check_walk_free(&c.walk);
    oracle_destroy(c.given);
    free(c.key_norm);
    free(c.query_norm);
    return status;
}
