/* A task: one visit group of one head, from q to out.
 *
 * The group's rows, scaled and transposed into lanes, stay in the thread's
 * scratch, and so do their outputs. The group walks its list once; keys are
 * widened to f32 once for all decision blocks of the group, values once and only
 * if one of them keeps the block. For each decision block: scores, row maxima,
 * (exponentials,) decision, (exponentials,) weights times values. Dense and
 * never-skipping rules do the very same arithmetic. */
#include <string.h>

#include "convert.h"
#include "cpu.h"

typedef struct walk {
    const cpu_job *job;
    const cpu_scratch *scratch;
    const cpu_sequence *sequence;
    cpu_result *result;
    int64_t batch, head, group;
    int64_t rows, blocks; /* of the group, that exist */
    int64_t visits;       /* length of the list */
    rfa_skip_rule rule;
    cpu_rows q, k, v;
} walk;

/* The key block at hand. */
typedef struct tile {
    int64_t block, first; /* number; first key */
    int32_t keys;
    bool always_keep;
    float rest;
    bool keys_loaded, values_loaded;
} tile;

/* ---- Start --------------------------------------------------------------------------- */

static cpu_rows rows_of(const rfa_problem *p, const rfa_view *view, int64_t batch, int64_t head,
                        int32_t dim)
{
    const char *data = cpu_at(view, cpu_size_of(p->dtype), batch, head, 0);
    return (cpu_rows){data, view->stride[2], p->dtype, dim};
}

static walk start_walk(const cpu_job *job, int64_t task, const cpu_scratch *scratch,
                       cpu_result *result)
{
    const rfa_problem *p = job->p;
    walk w = {.job = job, .scratch = scratch, .result = result};
    bool bad;
    w.group = task % p->groups;
    w.head = task / p->groups % p->heads_q;
    w.batch = task / p->groups / p->heads_q;
    w.sequence = cpu_sequence_of(job, w.batch);
    int64_t head_kv = w.head / (p->heads_q / p->heads_kv);
    w.q = rows_of(p, &p->q, w.batch, w.head, p->dim);
    w.k = rows_of(p, &p->k, w.batch, head_kv, p->dim);
    w.v = rows_of(p, &p->v, w.batch, head_kv, p->dim_v);
    w.rows = cpu_min(p->visit_q, w.sequence->len_q - w.group * p->visit_q);
    w.blocks = w.rows > 0 ? cpu_ceil_div(w.rows, p->block_q) : 0;
    w.rule = cpu_rule_of(job, w.batch, w.head, &bad);
    return w;
}

/* Outputs by block exist for the longest sequence; a shorter one has 0 there. */
static void clear_decisions(const walk *w)
{
    const rfa_problem *p = w->job->p;
    int64_t first = w->group * (p->visit_q / p->block_q);
    int64_t end = cpu_min(first + p->visit_q / p->block_q, p->blocks_q);
    size_t words = (size_t)cpu_ceil_div(p->blocks_k, 32);
    for (int64_t i = first; p->decisions.data && i < end; i++)
        memset(cpu_at(&p->decisions, sizeof(uint32_t), w->batch, w->head, i), 0,
               words * sizeof(uint32_t));
}

static void write_visit_order(const walk *w)
{
    const rfa_problem *p = w->job->p;
    if (!p->visit_order.data)
        return;
    int32_t *slot = (int32_t *)cpu_at(&p->visit_order, 4, w->batch, w->head, w->group);
    if (w->visits > 0)
        memcpy(slot, w->scratch->list, (size_t)w->visits * sizeof(*slot));
    for (int64_t i = w->visits; i < p->blocks_k; i++)
        slot[i] = -1;
}

static void place_block(const walk *w, int64_t index)
{
    const rfa_problem *p = w->job->p;
    cpu_block *block = &w->scratch->block[index];
    int64_t row = index * p->block_q, number = w->group * (p->visit_q / p->block_q) + index;
    *block = (cpu_block){.rows = (int32_t)cpu_min(p->block_q, w->rows - row),
                         .row = w->group * p->visit_q + row,
                         .lane = index * w->job->layout.lanes};
    block->visible = rfa_visible_blocks(cpu_shape_of(p, w->sequence), block->row + block->rows);
    block->dense = w->rule.kind == RFA_SKIP_DENSE || w->sequence->dense_rows[number];
    block->q = w->scratch->q + block->lane * p->dim;
    block->out = w->scratch->out + block->lane * (p->dim_v + CPU_SLACK);
    if (p->decisions.data)
        block->decisions =
            (uint32_t *)cpu_at(&p->decisions, sizeof(uint32_t), w->batch, w->head, number);
    for (int64_t i = 0; i < w->visits; i++)
        block->visits += w->scratch->list[i] < block->visible;
    w->result->total += block->visible;
    w->result->visited += block->visits;
}

static void clear_rows(const walk *w)
{
    const cpu_scratch *s = w->scratch;
    size_t lanes = (size_t)(w->blocks * w->job->layout.lanes);
    memset(s->q, 0, lanes * (size_t)w->job->p->dim * sizeof(*s->q));
    memset(s->out, 0, lanes * (size_t)(w->job->p->dim_v + CPU_SLACK) * sizeof(*s->out));
    memset(s->sum, 0, lanes * sizeof(*s->sum));
    memset(s->skipped, 0, lanes * sizeof(*s->skipped));
    memset(s->kappa, 0, lanes * sizeof(*s->kappa));
    memset(s->kappa_count, 0, lanes * sizeof(*s->kappa_count));
    for (size_t i = 0; i < lanes; i++)
        s->max[i] = s->log_sum[i] = -(float)INFINITY;
}

/* Where a lane's entry 0 lies in an array by panel with `entries` a lane, and
 * how far apart its entries are. */
static int64_t lane_offset(const walk *w, int32_t lane, int64_t entries, int64_t *step)
{
    int32_t panel = lane / CPU_PANEL * CPU_PANEL;
    *step = cpu_min(CPU_PANEL, w->job->layout.lanes - panel);
    return panel * entries + lane - panel;
}

static void load_queries(const walk *w)
{
    const rfa_problem *p = w->job->p;
    const cpu_sequence *s = w->sequence;
    for (int64_t r = 0; r < w->rows; r++) {
        int64_t row = w->group * p->visit_q + r, step;
        int64_t *position = &w->scratch->position_q[r];
        *position = s->first_q + (s->order_q ? s->order_q[row] : row);
        w->job->kernels->load(&w->q, position, 1, p->dim, w->scratch->row);
        float *q = w->scratch->block[r / p->block_q].q;
        q += lane_offset(w, (int32_t)(r % p->block_q), p->dim, &step);
        for (int32_t d = 0; d < p->dim; d++)
            q[d * step] = w->scratch->row[d] * p->scale;
    }
}

/* ---- Keys and values ---------------------------------------------------------------------- */

static void load_keys(const walk *w, tile *t)
{
    int32_t dim = w->job->p->dim;
    const int64_t *order = w->sequence->order_k;
    for (int32_t i = 0; i < t->keys; i++)
        w->scratch->position_k[i] =
            w->sequence->first_k + (order ? order[t->first + i] : t->first + i);
    float *keys = w->scratch->keys;
    w->job->kernels->load(&w->k, w->scratch->position_k, t->keys, dim, keys);
    memset(keys + (int64_t)t->keys * dim, 0, (size_t)dim * CPU_SLACK * sizeof(*keys));
    t->keys_loaded = true;
}

static void load_values(const walk *w, tile *t)
{
    int32_t dim = w->job->p->dim_v, pitch = dim + CPU_SLACK;
    float *values = w->scratch->values;
    w->job->kernels->load(&w->v, w->scratch->position_k, t->keys, pitch, values);
    for (int32_t i = 0; i < t->keys; i++)
        memset(values + (int64_t)i * pitch + dim, 0, CPU_SLACK * sizeof(*values));
    t->values_loaded = true;
}

/* How many keys of the tile each lane sees; true if some row does not see all. */
static bool count_seen(const walk *w, const tile *t, const cpu_block *block)
{
    const cpu_sequence *s = w->sequence;
    int64_t first = w->job->p->causal ? block->row + 1 + s->len_k - s->len_q - t->first : t->keys;
    int64_t slope = w->job->p->causal ? 1 : 0;
    for (int32_t i = 0; i < w->job->layout.lanes; i++) {
        int64_t seen = cpu_min(first + i * slope, t->keys);
        w->scratch->seen[i] = seen > 0 ? (int32_t)seen : 0;
    }
    return first < t->keys;
}

static bool values_are_finite(const walk *w, const tile *t)
{
    int64_t count = t->keys * (int64_t)(w->job->p->dim_v + CPU_SLACK);
    const uint32_t exponent = 0x7f800000;
    uint32_t special = 0;
    for (int64_t i = 0; i < count; i++)
        special |= (cpu_bits_of(w->scratch->values[i]) & exponent) == exponent;
    return !special;
}

/* Rows must not meet values that the mask hides from them where 0 times the
 * value is not 0. */
static void accumulate_seen(const walk *w, const tile *t, const cpu_block *block)
{
    const cpu_scratch *s = w->scratch;
    int64_t dim = w->job->p->dim_v, step;
    for (int32_t i = 0; i < block->rows; i++) {
        const float *weight = s->scores + lane_offset(w, i, t->keys + CPU_SLACK, &step);
        float *out = block->out + lane_offset(w, i, dim + CPU_SLACK, &step);
        for (int64_t d = 0; d < dim; d++) {
            const float *value = s->values + d;
            float sum = 0;
            for (int32_t c = 0; c < s->seen[i]; c++)
                sum += weight[c * step] * value[c * (dim + CPU_SLACK)];
            out[d * step] = out[d * step] * s->decay[i] + sum;
        }
    }
}

/* ---- One visit ------------------------------------------------------------------------------ */

static void keep_block(const walk *w, tile *t, cpu_block *block, bool partly_masked)
{
    const cpu_scratch *s = w->scratch;
    if (!t->values_loaded)
        load_values(w, t);
    if (partly_masked && !values_are_finite(w, t))
        accumulate_seen(w, t, block);
    else
        w->job->kernels->accumulate(s->values, t->keys, w->job->p->dim_v, s->scores,
                                    w->job->layout.lanes, s->decay, block->out);
    cpu_rows_kept(w->job, w->rule, block, s);
    if (block->decisions)
        block->decisions[t->block / 32] |= 1u << (t->block % 32);
    w->result->kept++;
}

static void visit(const walk *w, tile *t, cpu_block *block)
{
    const cpu_job *job = w->job;
    const cpu_scratch *s = w->scratch;
    int32_t lanes = job->layout.lanes;
    bool keep = block->n == 0 || block->dense || t->always_keep;
    bool weighed = keep || job->exact;
    bool partly_masked = count_seen(w, t, block);

    job->kernels->scores(s->keys, t->keys, job->p->dim, block->q, lanes, s->scores);
    if (partly_masked)
        job->kernels->mask(s->scores, t->keys, lanes, s->seen);
    job->kernels->maxima(s->scores, t->keys, lanes, s->block_max);
    cpu_compare_maxima(job, block, s);
    if (weighed)
        job->kernels->weights(s->scores, t->keys, lanes, s->reference, s->mass);
    else if (job->estimated)
        cpu_estimate_masses(job, block, s);
    if (!keep)
        keep = !cpu_rule_skips(job, w->rule, block, t->rest, s);
    if (keep && !weighed)
        job->kernels->weights(s->scores, t->keys, lanes, s->reference, s->mass);
    if (keep)
        keep_block(w, t, block, partly_masked);
    else if (job->exact || job->estimated)
        cpu_rows_skipped(job, block, s);
    block->n++;
}

static void visit_tile(const walk *w, int64_t visit_number)
{
    const rfa_problem *p = w->job->p;
    int64_t j = w->scratch->list[visit_number], first = j * p->block_k;
    tile t = {.block = j, .first = first};
    t.keys = (int32_t)cpu_min(p->block_k, w->sequence->len_k - first);
    t.always_keep = w->sequence->key_flags[j] & RFA_BLOCK_ALWAYS_KEEP;
    t.rest = cpu_orders_by_mass(p) ? w->scratch->rest[visit_number] : RFA_NO_PREDICTION;
    for (int64_t i = 0; i < w->blocks; i++) {
        cpu_block *block = &w->scratch->block[i];
        if (j >= block->visible)
            continue;
        if (!t.keys_loaded)
            load_keys(w, &t);
        visit(w, &t, block);
    }
}

/* ---- Results ----------------------------------------------------------------------------------
 */

static void store_row(const float *from, rfa_dtype dtype, int32_t dim, char *to)
{
    uint16_t *narrow = (uint16_t *)to;
    if (dtype == RFA_F32)
        memcpy(to, from, (size_t)dim * sizeof(*from));
    for (int32_t d = 0; d < dim && dtype == RFA_F16; d++)
        narrow[d] = cpu_to_half(from[d]);
    for (int32_t d = 0; d < dim && dtype == RFA_BF16; d++)
        narrow[d] = cpu_to_bf16(from[d]);
}

/* Writes one row's outputs and returns its recall. */
static double finish_row(const walk *w, const cpu_block *block, int32_t i)
{
    const rfa_problem *p = w->job->p;
    const cpu_scratch *s = w->scratch;
    int64_t row = s->position_q[block->row - w->group * p->visit_q + i], step;
    double sum = s->sum[block->lane + i], skipped = s->skipped[block->lane + i];
    const float *out = block->out + lane_offset(w, i, p->dim_v + CPU_SLACK, &step);
    for (int32_t d = 0; d < p->dim_v; d++)
        s->row[d] = sum == 0 ? 0 : out[d * step] / (float)sum;
    store_row(s->row, p->out_dtype, p->dim_v,
              cpu_at(&p->out, cpu_size_of(p->out_dtype), w->batch, w->head, row));

    double recall = skipped == 0 ? 1 : sum / (sum + skipped);
    if (p->lse.data)
        *(float *)cpu_at(&p->lse, sizeof(float), w->batch, w->head, row) =
            sum == 0 ? -(float)INFINITY : (float)((double)s->max[block->lane + i] + log(sum));
    if (p->recall.data)
        *(float *)cpu_at(&p->recall, sizeof(float), w->batch, w->head, row) = (float)recall;
    return recall;
}

static void finish_block(const walk *w, const cpu_block *block)
{
    double recall = 0;
    for (int32_t i = 0; i < block->rows; i++)
        recall += finish_row(w, block, i);
    double mean = recall / block->rows;
    w->result->rows += block->rows;
    w->result->recall += recall;
    if (!(mean >= w->result->recall_min) && !isnan(w->result->recall_min))
        w->result->recall_min = mean;
}

void cpu_attend(const cpu_job *job, int64_t task, const cpu_scratch *scratch, cpu_result *result)
{
    *result = (cpu_result){.recall_min = 1};
    walk w = start_walk(job, task, scratch, result);
    clear_decisions(&w);
    if (w.rows > 0)
        w.visits = cpu_visit_list(job, w.batch, w.head, w.group, scratch, result);
    write_visit_order(&w);
    if (w.rows <= 0)
        return;
    for (int64_t i = 0; i < w.blocks; i++)
        place_block(&w, i);
    clear_rows(&w);
    load_queries(&w);
    for (int64_t i = 0; i < w.visits; i++)
        visit_tile(&w, i);
    for (int64_t i = 0; i < w.blocks; i++)
        finish_block(&w, &scratch->block[i]);
}
