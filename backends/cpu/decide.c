/* Keep or skip: one block of keys for the rows of one decision block.
 *
 * The loops over lanes also run over lanes without a row, whose values nobody
 * reads; only what becomes a decision looks at rows that exist. */
#include "cpu.h"

rfa_skip_rule cpu_rule_of(const cpu_job *job, int64_t batch, int64_t head, bool *bad)
{
    const rfa_problem *p = job->p;
    double len_k = (double)cpu_sequence_of(job, batch)->len_k;
    float knob = p->knob;
    if (p->knobs.data) /* (batch, head) alone: the row stride means nothing */
        knob = *(const float *)cpu_at(&p->knobs, sizeof(float), batch, head, 0);
    *bad = !rfa_knob_valid((int)p->rule, p->knob_scaled, knob);

    rfa_skip_rule rule = {.kind = *bad ? RFA_SKIP_DENSE : (int)p->rule};
    rfa_spread_budget(p->order == RFA_ORDER_LIST || p->order == RFA_ORDER_PREDICTED,
                      cpu_orders_by_mass(p), &rule);
    if (rule.kind == RFA_SKIP_BLASST)
        rule.limit = (float)log(p->knob_scaled ? fmin(1, (double)knob / len_k) : (double)knob);
    else if (rule.kind == RFA_SKIP_ENERGY && p->knob_scaled)
        rule.limit = (float)fmin(0, log((double)knob) + log(p->block_k / len_k));
    else if (rule.kind == RFA_SKIP_ENERGY)
        rule.limit = knob;
    else if (rule.kind == RFA_SKIP_RECALL)
        rule.limit = 1.0f - knob;
    return rule;
}

void cpu_compare_maxima(const cpu_job *job, const cpu_block *block, const cpu_scratch *scratch)
{
    const int32_t lanes = job->layout.lanes;
    job->kernels->compare_maxima(scratch->offset + block->lane, scratch->block_max, lanes,
                                 scratch->reference, scratch->decay);
    job->kernels->exponentials(scratch->decay, lanes, scratch->decay);
}

/* exp of the block's maxima, in the unit of masses. */
static void weigh_maxima(const cpu_job *job, const cpu_scratch *scratch, float *to)
{
    int32_t lanes = job->layout.lanes;
    for (int32_t i = 0; i < lanes; i++)
        to[i] = scratch->block_max[i] - scratch->reference[i];
    job->kernels->exponentials(to, lanes, to);
}

void cpu_estimate_masses(const cpu_job *job, const cpu_block *block, const cpu_scratch *scratch)
{
    weigh_maxima(job, scratch, scratch->mass);
    job->kernels->estimate(scratch->kappa + block->lane, scratch->kappa_count + block->lane,
                           scratch->seen, job->layout.lanes, scratch->mass);
}

/* ---- The rules ------------------------------------------------------------------------- */

static bool all_rows_vote(rfa_skip_rule rule, const cpu_block *block, const cpu_scratch *scratch)
{
    const float *max = scratch->max + block->lane, *log_sum = scratch->log_sum + block->lane;
    const float *offset = scratch->offset + block->lane; /* log_sum is relative to it */
    const float *origin = rule.kind == RFA_SKIP_ENERGY ? offset : max;
    for (int32_t i = 0; i < block->rows; i++) {
        /* Relative to m (or nearly), which keeps digits that m + ln l would round away. */
        float a = scratch->block_max[i];
        /* A row that met a NaN has one as its maximum, and here as the difference. */
        float above = a == -(float)INFINITY && max[i] == max[i] ? a : a - origin[i];
        if (!rfa_row_votes_skip(rule, rfa_above_if_any(a, above), 0, log_sum[i]))
            return false;
    }
    return true;
}

static bool within_budget(const cpu_job *job, rfa_skip_rule rule, const cpu_block *block,
                          float rest, const cpu_scratch *scratch)
{
    double totals[2]; /* lost, spent */
    bool veto = job->kernels->losses(
        rule.limit, scratch->sum + block->lane, scratch->skipped + block->lane, scratch->decay,
        scratch->mass, block->rows, job->layout.lanes, scratch->lost, scratch->spent, totals);
    return rfa_block_within_budget(rule, (long)block->n, (long)block->visits,
                                   (float)(totals[0] / block->rows),
                                   (float)(totals[1] / block->rows), veto, rest);
}

bool cpu_rule_skips(const cpu_job *job, rfa_skip_rule rule, const cpu_block *block, float rest,
                    const cpu_scratch *scratch)
{
    switch (rule.kind) {
    case RFA_SKIP_BLASST:
    case RFA_SKIP_ENERGY: return all_rows_vote(rule, block, scratch);
    case RFA_SKIP_RECALL: return within_budget(job, rule, block, rest, scratch);
    default: return false;
    }
}

/* ---- What follows for the rows ----------------------------------------------------------- */

/* kappa: the running mean of rowsum / exp(rowmax). mass is relative to the reference;
 * `max` is m' already. */
static void learn_kappa(const cpu_job *job, const cpu_block *block, const cpu_scratch *scratch)
{
    float *top = scratch->lost;
    weigh_maxima(job, scratch, top);
    job->kernels->learn(scratch->block_max, scratch->max + block->lane, scratch->mass, top,
                        job->layout.lanes, scratch->kappa + block->lane,
                        scratch->kappa_count + block->lane);
}

void cpu_rows_kept(const cpu_job *job, rfa_skip_rule rule, const cpu_block *block,
                   const cpu_scratch *scratch)
{
    double *sum = scratch->sum + block->lane;
    job->kernels->keep_rows(scratch->block_max, scratch->decay, scratch->mass, job->layout.lanes,
                            scratch->max + block->lane, scratch->offset + block->lane, sum,
                            scratch->skipped + block->lane);
    if (rule.kind == RFA_SKIP_ENERGY)
        for (int32_t i = 0; i < job->layout.lanes; i++)
            scratch->log_sum[block->lane + i] = logf((float)sum[i]);
    if (job->estimated)
        learn_kappa(job, block, scratch);
}

void cpu_rows_skipped(const cpu_job *job, const cpu_block *block, const cpu_scratch *scratch)
{
    job->kernels->skip_rows(scratch->block_max, scratch->reference, scratch->mass,
                            job->layout.lanes, scratch->max + block->lane,
                            scratch->offset + block->lane, scratch->skipped + block->lane);
}
