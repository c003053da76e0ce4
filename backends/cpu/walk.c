/* A task: a visit group of one head or some of its decision blocks, from q to out.
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
    int64_t batch, head, head_kv, group;
    int64_t rows;       /* of the group, that exist */
    int64_t begin, end; /* its decision blocks that are this task's and exist */
    int64_t visits;     /* length of the list */
    rfa_skip_rule rule;
} walk;

/* The key block at hand. */
typedef struct tile {
    int64_t block, first; /* number; first key */
    int32_t keys;
    bool always_keep;
    float rest;
    const void *packed_keys, *packed_values; /* NULL until needed */
    bool finite;                             /* of the values */
} tile;

/* ---- Start --------------------------------------------------------------------------- */

static walk start_walk(const cpu_job *job, cpu_task task, const cpu_scratch *scratch)
{
    const rfa_problem *p = job->p;
    walk w = {.job = job, .scratch = scratch};
    bool bad;
    w.batch = task.batch;
    w.head = task.head;
    w.group = task.group;
    w.sequence = cpu_sequence_of(job, w.batch);
    w.head_kv = w.head / (p->heads_q / p->heads_kv);
    w.rows = cpu_min(p->visit_q, w.sequence->len_q - w.group * p->visit_q);
    w.begin = task.begin;
    w.end = w.rows > 0 ? cpu_min(cpu_ceil_div(w.rows, p->block_q), task.end) : 0;
    w.rule = cpu_rule_of(job, w.batch, w.head, &bad);
    return w;
}

/* Outputs by block exist for the longest sequence; a shorter one has 0 there. */
static void clear_decisions(const walk *w, cpu_task task)
{
    const rfa_problem *p = w->job->p;
    int64_t first = w->group * (p->visit_q / p->block_q);
    int64_t end = cpu_min(first + task.end, p->blocks_q);
    size_t words = (size_t)cpu_ceil_div(p->blocks_k, 32);
    for (int64_t i = first + task.begin; p->decisions.data && i < end; i++)
        memset(cpu_at(&p->decisions, sizeof(uint32_t), w->batch, w->head, i), 0,
               words * sizeof(uint32_t));
}

static void write_visit_order(const walk *w)
{
    const rfa_problem *p = w->job->p;
    if (!p->visit_order.data || w->begin > 0)
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
    const cpu_kernels *kernels = w->job->kernels;
    cpu_block *block = &w->scratch->block[index];
    int64_t row = index * p->block_q, number = w->group * (p->visit_q / p->block_q) + index;
    *block = (cpu_block){.rows = (int32_t)cpu_min(p->block_q, w->rows - row),
                         .row = w->group * p->visit_q + row,
                         .lane = index * w->job->layout.lanes,
                         .result = cpu_results_of(w->job, w->batch, w->head, w->group) + index};
    block->visible = rfa_visible_blocks(cpu_shape_of(p, w->sequence), block->row + block->rows);
    block->dense = w->rule.kind == RFA_SKIP_DENSE || w->sequence->dense_rows[number];
    block->q = w->scratch->q + block->lane * cpu_padded(kernels, p->dim) * kernels->element;
    block->out = w->scratch->out + block->lane * cpu_padded(kernels, p->dim_v);
    if (p->decisions.data)
        block->decisions =
            (uint32_t *)cpu_at(&p->decisions, sizeof(uint32_t), w->batch, w->head, number);
    for (int64_t i = 0; i < w->visits; i++)
        block->visits += w->scratch->list[i] < block->visible;
    block->result->rows = block->rows;
    block->result->total = block->visible;
    block->result->visited = block->visits;
}

static void clear_rows(const walk *w)
{
    const cpu_scratch *s = w->scratch;
    size_t first = (size_t)(w->begin * w->job->layout.lanes);
    size_t lanes = (size_t)(w->end * w->job->layout.lanes) - first;
    size_t entries = (size_t)cpu_padded(w->job->kernels, w->job->p->dim_v);
    memset(s->out + first * entries, 0, lanes * entries * sizeof(*s->out));
    memset(s->sum + first, 0, lanes * sizeof(*s->sum));
    memset(s->skipped + first, 0, lanes * sizeof(*s->skipped));
    memset(s->kappa + first, 0, lanes * sizeof(*s->kappa));
    memset(s->kappa_count + first, 0, lanes * sizeof(*s->kappa_count));
    for (size_t i = first; i < first + lanes; i++)
        s->max[i] = s->offset[i] = s->log_sum[i] = -(float)INFINITY;
}

static void load_queries(const walk *w)
{
    const rfa_problem *p = w->job->p;
    const cpu_sequence *s = w->sequence;
    cpu_rows q = cpu_rows_of(p, &p->q, w->batch, w->head, p->dim);
    for (int64_t r = 0; r < w->rows; r++) {
        int64_t row = w->group * p->visit_q + r;
        w->scratch->position_q[r] = s->first_q + (s->order_q ? s->order_q[row] : row);
    }
    for (int64_t i = w->begin; i < w->end; i++) {
        const cpu_block *block = &w->scratch->block[i];
        w->job->kernels->pack_q(&q, w->scratch->position_q + i * p->block_q, block->rows,
                                w->job->layout.lanes, p->scale, block->q);
    }
}

/* ---- One visit ------------------------------------------------------------------------------ */

/* How many keys of the tile each lane sees; true if some row does not see all. If all do,
 * only estimated masses look at the numbers. */
static bool count_seen(const walk *w, const tile *t, const cpu_block *block)
{
    const cpu_sequence *s = w->sequence;
    int32_t lanes = w->job->layout.lanes, *seen = w->scratch->seen;
    int64_t first = t->keys;
    if (w->job->p->causal)
        first = block->row + 1 + s->len_k - s->len_q - t->first;
    if (first >= t->keys && !w->job->estimated)
        return false;
    /* A lane sees one key more than the lane before. */
    int32_t from = (int32_t)cpu_min(first > -lanes ? first : -lanes, t->keys);
    for (int32_t i = 0; i < lanes; i++) {
        int32_t here = from + i < t->keys ? from + i : t->keys;
        seen[i] = here > 0 ? here : 0;
    }
    return first < t->keys;
}

static void keep_block(const walk *w, tile *t, cpu_block *block, bool partly_masked)
{
    const cpu_job *job = w->job;
    const cpu_scratch *s = w->scratch;
    const cpu_block_sizes sizes = {t->keys, job->p->dim_v};
    if (!t->packed_values)
        t->packed_values = cpu_packed_values(job, w->batch, w->head_kv, t->block, s, &t->finite);
    /* Rows must not meet values that the mask hides from them where 0 times the
     * value is not 0. */
    if (partly_masked && !t->finite)
        job->kernels->accumulate_seen(t->packed_values, sizes, s->weights, job->layout.lanes,
                                      s->decay, s->seen, block->out);
    else
        job->kernels->accumulate(t->packed_values, sizes, s->weights, job->layout.lanes, s->decay,
                                 block->out);
    cpu_rows_kept(job, w->rule, block, s);
    if (block->decisions)
        block->decisions[t->block / 32] |= 1u << (t->block % 32);
    block->result->kept++;
}

/* The block's exponentials into weights, their sums into mass. */
static void weigh(const walk *w, const tile *t)
{
    const cpu_scratch *s = w->scratch;
    w->job->kernels->weights(s->scores, t->keys, w->job->layout.lanes, w->job->p->scale,
                             s->reference, s->weights, s->mass);
}

static void visit(const walk *w, tile *t, cpu_block *block)
{
    const cpu_job *job = w->job;
    const cpu_scratch *s = w->scratch;
    int32_t lanes = job->layout.lanes;
    bool keep = block->n == 0 || block->dense || t->always_keep;
    bool weighed = keep || job->exact;
    bool partly_masked = count_seen(w, t, block);

    job->kernels->scores(t->packed_keys, (cpu_block_sizes){t->keys, job->p->dim}, block->q, lanes,
                         s->scores);
    if (partly_masked)
        job->kernels->mask(s->scores, t->keys, lanes, s->seen);
    job->kernels->maxima(s->scores, t->keys, lanes, job->p->scale, s->block_max);
    cpu_compare_maxima(job, block, s);
    if (weighed)
        weigh(w, t);
    else if (job->estimated)
        cpu_estimate_masses(job, block, s);
    if (!keep)
        keep = !cpu_rule_skips(job, w->rule, block, t->rest, s);
    if (keep && !weighed)
        weigh(w, t);
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
    for (int64_t i = w->begin; i < w->end; i++) {
        cpu_block *block = &w->scratch->block[i];
        if (j >= block->visible)
            continue;
        if (!t.packed_keys)
            t.packed_keys = cpu_packed_keys(w->job, w->batch, w->head_kv, j, w->scratch);
        visit(w, &t, block);
    }
}

/* ---- Results ----------------------------------------------------------------------------------
 */

/* Writes one row's outputs and returns its recall. */
static double finish_row(const walk *w, const cpu_block *block, int32_t i)
{
    const rfa_problem *p = w->job->p;
    const cpu_scratch *s = w->scratch;
    int64_t row = s->position_q[block->row - w->group * p->visit_q + i];
    double sum = s->sum[block->lane + i], skipped = s->skipped[block->lane + i];
    float *out = s->rows + (int64_t)i * p->dim_v;
    if (sum == 0)
        memset(out, 0, (size_t)p->dim_v * sizeof(*out));
    w->job->kernels->store(out, p->dim_v, p->out_dtype,
                           cpu_at(&p->out, cpu_size_of(p->out_dtype), w->batch, w->head, row));

    double recall = skipped == 0 ? 1 : sum / (sum + skipped);
    if (p->lse.data)
        *(float *)cpu_at(&p->lse, sizeof(float), w->batch, w->head, row) =
            sum == 0 ? -(float)INFINITY : (float)((double)s->offset[block->lane + i] + log(sum));
    if (p->recall.data)
        *(float *)cpu_at(&p->recall, sizeof(float), w->batch, w->head, row) = (float)recall;
    return recall;
}

static void finish_block(const walk *w, const cpu_block *block)
{
    const cpu_scratch *s = w->scratch;
    int32_t lanes = w->job->layout.lanes;
    double recall = 0;
    for (int32_t i = 0; i < lanes; i++)
        s->factor[i] = (float)(1 / s->sum[block->lane + i]);
    w->job->kernels->unpack(block->out, w->job->p->dim_v, lanes, s->factor, s->rows);
    for (int32_t i = 0; i < block->rows; i++)
        recall += finish_row(w, block, i);
    block->result->recall = recall;
}

void cpu_attend(const cpu_job *job, cpu_task task, const cpu_scratch *scratch)
{
    cpu_result *results = cpu_results_of(job, task.batch, task.head, task.group);
    int64_t bad_indices = 0;
    walk w = start_walk(job, task, scratch);
    memset(results + task.begin, 0, (size_t)(task.end - task.begin) * sizeof(*results));
    clear_decisions(&w, task);
    if (w.begin < w.end)
        w.visits = cpu_visit_list(job, w.batch, w.head, w.group, scratch, &bad_indices);
    write_visit_order(&w);
    if (w.begin == 0)
        results[0].bad_indices = bad_indices;
    if (w.begin >= w.end)
        return;
    for (int64_t i = w.begin; i < w.end; i++)
        place_block(&w, i);
    clear_rows(&w);
    load_queries(&w);
    for (int64_t i = 0; i < w.visits; i++)
        visit_tile(&w, i);
    for (int64_t i = w.begin; i < w.end; i++)
        finish_block(&w, &scratch->block[i]);
}
