/* One decision block: its decisions, then its values. */
#include <math.h>
#include <string.h>

#include "conformance/check_internal.h"
#include "conformance/element.h"

/* What is being checked, and what is found, before it joins the report. */
typedef struct block_check {
    check *c;
    const rfa_problem *p;
    check_sequence seq;
    int64_t index, batch, head, q_block;
    int64_t unmasked;          /* key blocks with an unmasked pair: the first ones */
    const uint32_t *decisions; /* the backend's */
    check_scratch *scratch;
    oracle_block *block;
    double logit_error; /* of its worst row */
    bool tainted;       /* some row saw a NaN or an infinity */
    check_report found;
    double recall_sum, exact_sum;
} block_check;

static void fail_block(block_check *b, const char *what, int64_t k_block)
{
    check_fail(b->c, PLACE_BLOCKS, b->index, "batch %lld, head %lld, block (%lld, %lld): %s",
               (long long)b->batch, (long long)b->head, (long long)b->q_block, (long long)k_block,
               what);
}

static void fail_row(block_check *b, int64_t row, const char *what, double is, double expected,
                     double allowed)
{
    check_fail(b->c, PLACE_BLOCKS, b->index,
               "batch %lld, head %lld, row %lld: %s is %.9g, expected %.9g within %.3g",
               (long long)b->batch, (long long)b->head, (long long)row, what, is, expected,
               allowed);
}

/* ---- decisions ---- */

static void set_bit(uint32_t *words, int64_t j)
{
    words[j / 32] |= 1u << (j % 32);
}

/* Marks the counted visits; answers the first one, or -1. */
static int64_t mark_counted(block_check *b)
{
    const check *c = b->c;
    int64_t group = b->q_block * b->p->block_q / b->p->visit_q, first = -1;
    int64_t n = oracle_visits(c->walk.oracle, b->batch, b->head, group, b->scratch->list, NULL);
    memset(b->scratch->counted, 0, (size_t)b->block->words * sizeof(uint32_t));
    for (int64_t i = 0; i < n; i++)
        if (b->scratch->list[i] < b->unmasked) {
            set_bit(b->scratch->counted, b->scratch->list[i]);
            if (first < 0)
                first = b->scratch->list[i];
        }
    return first;
}

/* What holds whatever the rule says. */
static void check_structure(block_check *b, int64_t first)
{
    const uint32_t *counted = b->scratch->counted;
    for (int64_t w = 0; w < b->block->words; w++)
        if (b->decisions[w] & ~counted[w]) {
            fail_block(b, "kept, though it is masked, absent or not visited",
                       32 * w + __builtin_ctz(b->decisions[w] & ~counted[w]));
            return;
        }
    if (first >= 0 && !check_bit(b->decisions, first))
        fail_block(b, "the first visit was skipped", first);
    bool dense = check_q_block_dense(b->p, &b->seq, b->batch, b->q_block);
    for (int64_t j = 0; j < b->unmasked; j++)
        if (check_bit(counted, j) && !check_bit(b->decisions, j) &&
            (dense || check_key_block_kept(b->p, &b->seq, b->batch, j))) {
            fail_block(b, "skipped, though a range keeps it", j);
            return;
        }
}

static void check_rule(block_check *b)
{
    const oracle_block *o = b->block;
    for (int64_t j = 0; j < b->unmasked; j++) {
        if (!check_bit(b->scratch->counted, j))
            continue;
        bool kept = check_bit(b->decisions, j);
        b->found.decisions++;
        b->found.kept += kept;
        if (check_bit(o->unsure, j)) {
            b->found.unsure++;
        } else if (check_bit(o->derived, j) != kept) {
            b->found.decisions_wrong++;
            fail_block(b, kept ? "kept, the rule says skip" : "skipped, the rule says keep", j);
        }
    }
}

/* ---- rows ---- */

static bool row_tainted(const block_check *b, int32_t r)
{
    const oracle_block *o = b->block;
    bool finite = isfinite(o->rounding[r]) && o->lse[r] < INFINITY && isfinite(o->recall_exact[r]);
    for (int32_t d = 0; finite && d < b->p->dim_v; d++)
        finite = isfinite(o->out[(int64_t)r * b->p->dim_v + d]);
    return !finite;
}

/* Section 8, lse and recall: errors of a logit, in e. Tensor cores cut sums off, in each of dim /
 * 16 steps, where other arithmetic rounds them. */
static double logit_errors(const block_check *b)
{
    return b->p->dtype == RFA_F32 ? 8 : 8 + (double)b->p->dim / 16;
}

static void check_lse(block_check *b, int32_t r, double e)
{
    if (!b->p->lse.data)
        return;
    int64_t row = b->block->row[r];
    double is = view_f32(&b->p->lse, b->batch, b->head, row), expected = b->block->lse[r];
    if (is == expected) /* -inf too */
        return;
    double scale = fmax(b->c->options->rounding_scale, 1);
    double allowed = scale * (logit_errors(b) * e + 0x1p-22 * fabs(expected) + 1e-5);
    if (!isfinite(expected))
        allowed = 0;
    b->found.max_lse_error = fmax(b->found.max_lse_error, fabs(is - expected));
    if (!(fabs(is - expected) <= allowed))
        fail_row(b, row, "lse", is, expected, allowed);
}

static void check_recall(block_check *b, int32_t r, double e)
{
    if (!b->p->recall.data)
        return;
    int64_t row = b->block->row[r];
    double is = view_f32(&b->p->recall, b->batch, b->head, row), expected = b->block->recall[r];
    double scale = fmax(b->c->options->rounding_scale, 1);
    double allowed = scale * (logit_errors(b) * e + 2e-5);
    b->found.max_recall_error = fmax(b->found.max_recall_error, fabs(is - expected));
    if (!(fabs(is - expected) <= allowed))
        fail_row(b, row, "recall", is, expected, allowed);
}

/* Half a unit in the last place of the largest weight, 1; f32 ones count as exact. */
static double weight_unit(rfa_dtype weights)
{
    return weights == RFA_F32 ? 0 : element_ulp(weights, 1) / 2;
}

/* Section 8, values. The floor grows with the dim: a logit that builds up evenly
 * over its sum is rounded at each of dim steps, and plain may be luckier there. */
static double row_error(const block_check *b, int32_t r)
{
    double scale = fmax(b->c->options->rounding_scale, 1) * (1 + sqrt(b->p->dim) / 4);
    double error =
        scale * b->block->rounding[r] + weight_unit(b->c->options->weights) * b->block->spread[r];
    for (int32_t d = 0; d < b->p->dim_v; d++) {
        int64_t at = (int64_t)r * b->p->dim_v + d;
        double off = fabs((double)b->scratch->plain[at] - b->block->out[at]);
        if (off > error) /* not fmax: gcc 12 for aarch64 stops in such a loop */
            error = off;
    }
    return error;
}

static void note_error(block_check *b, double error, double allowed, int64_t row, int64_t element)
{
    check_report *f = &b->found;
    f->worst_ratio = fmax(f->worst_ratio, error / allowed);
    if (!(error <= f->max_abs_error)) {
        f->max_abs_error = error;
        f->max_abs_error_allowed = allowed;
        f->worst = (check_place){b->batch, b->head, row, element};
    }
}

static void check_values(block_check *b, int32_t r)
{
    const rfa_problem *p = b->p;
    size_t size = element_size(p->out_dtype);
    int64_t row = b->block->row[r];
    const char *out = view_row(&p->out, size, b->batch, b->head, row);
    double error = row_error(b, r);
    for (int32_t d = 0; d < p->dim_v; d++) {
        double expected = b->block->out[(int64_t)r * p->dim_v + d];
        double is = element_load(p->out_dtype, out + (size_t)d * size);
        double allowed = 2 * error + element_ulp(p->out_dtype, expected);
        note_error(b, fabs(is - expected), allowed, row, d);
        if (!(fabs(is - expected) <= allowed)) {
            check_fail(b->c, PLACE_BLOCKS, b->index,
                       "batch %lld, head %lld, row %lld, element %d of out is %.9g, expected %.9g "
                       "within %.3g",
                       (long long)b->batch, (long long)b->head, (long long)row, (int)d, is,
                       expected, allowed);
            return;
        }
    }
}

static void check_row(block_check *b, int32_t r)
{
    int64_t row = b->block->row[r];
    const rfa_problem *p = b->p;
    double q_norm = check_row_norm(&p->q, p->dtype, p->dim, b->batch, b->head, row);
    double e = check_logit_error(b->c, b->batch, b->head, q_norm);
    if (row_tainted(b, r)) {
        b->tainted = true;
        if (!b->c->options->nonfinite_inputs)
            fail_row(b, row, "the oracle's own result", b->block->lse[r], 0, 0);
        return;
    }
    b->logit_error = fmax(b->logit_error, e);
    b->recall_sum += b->block->recall[r];
    b->exact_sum += b->block->recall_exact[r];
    check_lse(b, r, e);
    check_recall(b, r, e);
    check_values(b, r);
}

/* ---- the promise of rule recall ---- */

static double knob_of(const rfa_problem *p, int64_t batch, int64_t head)
{
    return p->knobs.data ? view_f32(&p->knobs, batch, head, 0) : p->knob;
}

static void check_promise(block_check *b)
{
    const rfa_problem *p = b->p;
    double target = knob_of(p, b->batch, b->head);
    if (p->rule != RFA_RULE_RECALL || p->mass != RFA_MASS_EXACT || b->block->rows == 0 ||
        b->block->counted != b->block->unmasked || !(target > 0 && target <= 1))
        return;
    double room = 1e-4 + 8 * b->logit_error, mean = b->exact_sum / b->block->rows;
    if (!(mean >= target - room))
        check_fail(b->c, PLACE_BLOCKS, b->index,
                   "batch %lld, head %lld, query block %lld keeps %.6g of its mass, less than %.6g",
                   (long long)b->batch, (long long)b->head, (long long)b->q_block, mean, target);
    for (int32_t r = 0; r < b->block->rows; r++)
        if (!(b->block->recall_exact[r] >= 1 - fmax(0.5, 1 - target) - room))
            fail_row(b, b->block->row[r], "recall of one row", b->block->recall_exact[r],
                     1 - fmax(0.5, 1 - target), room);
}

/* ---- all of it ---- */

static void join_report(check_report *all, const check_report *one)
{
    all->decisions += one->decisions;
    all->decisions_wrong += one->decisions_wrong;
    all->unsure += one->unsure;
    all->kept += one->kept;
    if (!(one->max_abs_error <= all->max_abs_error)) {
        all->max_abs_error = one->max_abs_error;
        all->max_abs_error_allowed = one->max_abs_error_allowed;
        all->worst = one->worst;
    }
    all->worst_ratio = fmax(all->worst_ratio, one->worst_ratio);
    all->max_lse_error = fmax(all->max_lse_error, one->max_lse_error);
    all->max_recall_error = fmax(all->max_recall_error, one->max_recall_error);
}

static void join(const block_check *b)
{
    check *c = b->c;
#pragma omp critical(rfa_check_join)
    {
        join_report(c->report, &b->found);
        c->report->blocks_checked++;
        if (b->tainted)
            c->recall_known = false;
        int32_t rows = b->block->rows;
        c->rows += rows;
        c->recall_sum += b->recall_sum;
        c->exact_sum += b->exact_sum;
        if (rows > 0) {
            c->recall_min = fmin(c->recall_min, b->recall_sum / rows);
            c->exact_min = fmin(c->exact_min, b->exact_sum / rows);
        }
    }
}

void check_block(check *c, int64_t index, check_scratch *scratch)
{
    const rfa_problem *p = c->p;
    int64_t head = index / p->blocks_q;
    block_check b = {.c = c, .p = p, .index = index, .scratch = scratch, .block = &scratch->block};
    b.batch = head / p->heads_q;
    b.head = head % p->heads_q;
    b.q_block = index % p->blocks_q;
    b.seq = check_sequence_of(p, b.batch);
    b.unmasked = check_unmasked(p, &b.seq, b.q_block);
    b.decisions = check_decision_words(p, b.batch, b.head, b.q_block);
    oracle_walk(c->walk.oracle, b.batch, b.head, b.q_block, b.decisions, b.block);
    int64_t first = mark_counted(&b);
    check_structure(&b, c->options->values_only ? -1 : first);
    if (b.block->rows != check_rows(p, &b.seq, b.q_block) || b.block->unmasked != b.unmasked) {
        fail_block(&b, "oracle and checker do not agree about its rows or key blocks", 0);
        return;
    }
    oracle_plain(c->walk.oracle, b.batch, b.head, b.q_block, c->options->weights, b.block,
                 scratch->plain);
    for (int32_t r = 0; r < b.block->rows; r++)
        check_row(&b, r);
    if (!c->options->values_only)
        check_rule(&b);
    if (!b.tainted)
        check_promise(&b);
    join(&b);
}
