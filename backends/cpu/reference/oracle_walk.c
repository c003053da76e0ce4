/* The walk of one decision block over its visit list. */
#include <string.h>

#include "oracle_internal.h"

typedef struct walk {
    const oracle *o;
    const rfa_problem *p;
    const oracle_sequence *sequence;
    const oracle_list *list;
    oracle_block *block;
    oracle_scratch *scratch;
    int64_t batch, head;
    int64_t first_row, rows;
    int64_t seen; /* by the last row, which sees most: keys 0 .. seen - 1 */
    rfa_skip_rule rule;
    bool dense, estimated;
    int64_t visits, n; /* N of the specification; number of the visit at hand */
    double size;       /* largest sum_i |q_i k_i| scale so far */
} walk;

/* ---- Set-up ------------------------------------------------------------------------ */

static void load_queries(walk *w)
{
    oracle_scratch *s = w->scratch;
    int64_t dim = w->p->dim;
    for (int64_t r = 0; r < w->rows; r++) {
        int64_t position = w->first_row + r;
        w->block->row[r] = w->sequence->first_q + w->sequence->order_q[position];
        oracle_load_q(w->o, w->batch, w->head, position, s->element);
        for (int64_t i = 0; i < dim; i++)
            s->q[r * dim + i] = s->element[i];
    }
}

static void clear_block(const rfa_problem *p, int64_t rows, oracle_block *block)
{
    oracle_scratch *s = block->scratch;
    size_t words = (size_t)block->words * sizeof(uint32_t);
    block->rows = (int32_t)rows;
    block->counted = block->kept = block->unmasked = 0;
    memset(block->followed, 0, words);
    memset(block->derived, 0, words);
    memset(block->unsure, 0, words);
    memset(s->acc, 0, (size_t)(s->rows * s->dim_v) * sizeof(*s->acc));
    for (int64_t r = 0; r < rows; r++)
        s->row[r] =
            (oracle_row){.kept = MASS_NONE, .skipped = MASS_NONE, .skipped_exact = MASS_NONE};
    for (int64_t j = 0; block->block_mass && j < p->blocks_k; j++)
        block->block_mass[j] = 0;
    for (int64_t i = 0; s->share && i < p->blocks_k * s->rows; i++)
        s->share[i] = MASS_NONE;
}

static bool has_unmasked_pair(const walk *w, int64_t j)
{
    return j * w->p->block_k < w->seen;
}

/* N, and T_n of every list entry. */
static void look_ahead(walk *w)
{
    const oracle_list *list = w->list;
    double total = 0;
    for (int64_t i = list->length - 1; i >= 0; i--) {
        w->visits += has_unmasked_pair(w, list->index[i]);
        w->scratch->rest[i] = total;
        total += list->mass[i];
    }
    for (int64_t i = 0; i < list->length; i++) {
        if (!w->o->has_masses)
            w->scratch->rest[i] = RFA_NO_PREDICTION;
        else if (total != 0)
            w->scratch->rest[i] /= total;
    }
}

/* ---- One block: logits, row maxima, sums ------------------------------------------- */

static int64_t load_keys(walk *w, int64_t j)
{
    oracle_scratch *s = w->scratch;
    int64_t dim = w->p->dim, first = j * w->p->block_k;
    int64_t count = oracle_min(w->p->block_k, w->sequence->len_k - first);
    for (int64_t c = 0; c < count; c++) {
        oracle_load_k(w->o, w->batch, w->head, first + c, s->element);
        double *lane = s->k + c / LANES * LANES * dim + c % LANES;
        for (int64_t i = 0; i < dim; i++)
            lane[i * LANES] = s->element[i];
    }
    return count;
}

static void score_row(walk *w, int64_t r)
{
    oracle_scratch *s = w->scratch;
    oracle_row *row = &s->row[r];
    double *weight = s->weight + r * s->keys, dot[LANES], size[LANES];
    double scale = w->p->scale, max = -INFINITY;
    row->block_size = 0;
    for (int64_t c = 0; c < row->seen; c += LANES) {
        lanes_dot(dot, size, s->q + r * w->p->dim, s->k + c * w->p->dim, w->p->dim);
        for (int64_t i = 0; i < oracle_min(LANES, row->seen - c); i++) {
            weight[c + i] = scale * dot[i];
            max = larger(max, weight[c + i]);
            row->block_size = fmax(row->block_size, size[i] * fabs(scale));
        }
    }
    row->block = (mass){max, 0};
    for (int64_t c = 0; c < row->seen; c++) {
        weight[c] = max == -INFINITY ? 0 : exp(weight[c] - max);
        row->block.sum += weight[c];
    }
}

static void estimate_mass(const walk *w, oracle_row *row)
{
    row->block_tracked = row->block;
    if (w->estimated && row->block.sum != 0)
        row->block_tracked.sum = row->kappa_count > 0 ? row->kappa : (double)row->seen;
}

static void score_block(walk *w, int64_t j)
{
    oracle_scratch *s = w->scratch;
    int64_t count = load_keys(w, j);
    for (int64_t r = 0; r < w->rows; r++) {
        oracle_row *row = &s->row[r];
        int64_t seen = oracle_seen_keys(w->p, w->sequence, w->first_row + r) - j * w->p->block_k;
        row->seen = seen < 0 ? 0 : oracle_min(seen, count);
        score_row(w, r);
        estimate_mass(w, row);
        w->size = fmax(w->size, row->block_size);
        if (s->share)
            s->share[j * s->rows + r] = row->block;
    }
}

/* ---- Keep or skip --------------------------------------------------------------------- */

static void load_values(walk *w, int64_t j)
{
    oracle_scratch *s = w->scratch;
    int64_t first = j * w->p->block_k;
    int64_t count = oracle_min(w->p->block_k, w->sequence->len_k - first);
    for (int64_t c = 0; c < count; c++) {
        oracle_load_v(w->o, w->batch, w->head, first + c, s->element);
        s->v_size[c] = 0;
        for (int64_t d = 0; d < w->p->dim_v; d++) {
            s->v[(d / LANES * s->keys + c) * LANES + d % LANES] = s->element[d];
            s->v_size[c] = fmax(s->v_size[c], fabs((double)s->element[d]));
        }
    }
}

/* The online-softmax step: everything relative to the new running max. */
static void keep_row(walk *w, int64_t r)
{
    oracle_scratch *s = w->scratch;
    oracle_row *row = &s->row[r];
    double *acc = s->acc + r * s->dim_v, *weight = s->weight + r * s->keys;
    double before = row->kept.max;
    if (row->block.sum == 0)
        return;
    row->kept = mass_add(row->kept, row->block);
    double rescale = exp(before - row->kept.max);
    double factor = exp(row->block.max - row->kept.max);
    for (int64_t d = 0; d < s->dim_v; d++)
        acc[d] *= rescale;
    row->value *= rescale;
    row->spread *= rescale * rescale;
    for (int64_t c = 0; c < row->seen; c++) {
        weight[c] *= factor;
        double size = weight[c] * s->v_size[c];
        row->value += size;
        row->spread += size * size;
    }
    for (int64_t d = 0; d < s->dim_v; d += LANES)
        lanes_add(acc + d, weight, s->v + d * s->keys, row->seen);
    row->size = fmax(row->size, row->block_size);
    if (w->estimated && rfa_kappa_learns(row->block.max, row->kept.max))
        row->kappa = rfa_kappa_update(row->kappa, row->block.sum, (double)++row->kappa_count);
}

static void apply(walk *w, int64_t j, bool keep)
{
    if (keep)
        load_values(w, j);
    for (int64_t r = 0; r < w->rows; r++) {
        oracle_row *row = &w->scratch->row[r];
        if (keep) {
            keep_row(w, r);
        } else {
            row->skipped = mass_add(row->skipped, row->block_tracked);
            row->skipped_exact = mass_add(row->skipped_exact, row->block);
        }
    }
}

static bool get_bit(const uint32_t *words, int64_t j)
{
    return words[j / 32] >> (j % 32) & 1;
}

static void set_bit(uint32_t *words, int64_t j, bool bit)
{
    words[j / 32] |= (uint32_t)bit << (j % 32);
}

static void visit_block(walk *w, int64_t j, double rest, const uint32_t *decisions)
{
    bool always = w->n == 0 || w->dense || w->sequence->keep[j];
    oracle_verdict verdict = {.keep = true};
    score_block(w, j);
    if (!always)
        verdict = oracle_decide(w->rule, w->scratch->row, w->rows, w->n, w->visits, rest,
                                0x1p-24 * w->size);
    bool keep = decisions ? get_bit(decisions, j) : verdict.keep;
    set_bit(w->block->derived, j, verdict.keep);
    set_bit(w->block->unsure, j, verdict.unsure);
    set_bit(w->block->followed, j, keep);
    w->block->kept += keep;
    apply(w, j, keep);
    w->n++;
}

/* ---- Results --------------------------------------------------------------------------- */

static void finish_row(const walk *w, int64_t r)
{
    const oracle_scratch *s = w->scratch;
    const oracle_row *row = &s->row[r];
    oracle_block *block = w->block;
    double inverse = row->kept.sum == 0 ? 0 : 1 / row->kept.sum;
    for (int64_t d = 0; d < w->p->dim_v; d++)
        block->out[r * w->p->dim_v + d] = s->acc[r * s->dim_v + d] * inverse;
    block->lse[r] = mass_log(row->kept);
    block->recall[r] = mass_share(row->kept, row->skipped);
    block->recall_exact[r] = mass_share(row->kept, row->skipped_exact);
    block->rounding[r] = 0x1p-24 * (4 + row->size) * row->value * inverse;
    block->spread[r] = sqrt(row->spread) * inverse;
}

/* Visits what the list left out, then each row's shares, averaged. */
static void measure_block_masses(walk *w)
{
    const oracle_scratch *s = w->scratch;
    for (int64_t j = 0; j < w->block->unmasked; j++) {
        bool listed = false;
        for (int64_t i = 0; i < w->list->length && !listed; i++)
            listed = w->list->index[i] == j;
        if (!listed)
            score_block(w, j);
    }
    for (int64_t r = 0; r < w->rows; r++) {
        mass all = MASS_NONE;
        for (int64_t j = 0; j < w->block->unmasked; j++)
            all = mass_add(all, s->share[j * s->rows + r]);
        for (int64_t j = 0; all.sum != 0 && j < w->block->unmasked; j++)
            w->block->block_mass[j] +=
                mass_at(s->share[j * s->rows + r], all.max) / all.sum / (double)w->rows;
    }
}

void oracle_walk(const oracle *o, int64_t batch, int64_t head, int64_t index,
                 const uint32_t *decisions, oracle_block *block)
{
    const rfa_problem *p = o->p;
    const oracle_sequence *s = oracle_sequence_of(o, batch);
    walk w = {.o = o,
              .p = p,
              .sequence = s,
              .block = block,
              .scratch = block->scratch,
              .batch = batch,
              .head = head,
              .first_row = index * p->block_q};
    if (w.first_row < s->len_q)
        w.rows = oracle_min(p->block_q, s->len_q - w.first_row);
    clear_block(p, w.rows, block);
    if (w.rows == 0)
        return;
    w.list = oracle_list_of(o, batch, head, w.first_row / p->visit_q);
    w.seen = oracle_seen_keys(p, s, w.first_row + w.rows - 1);
    w.rule = oracle_rule(o, batch, head);
    w.dense = s->dense[index];
    w.estimated = w.rule.kind == RFA_SKIP_RECALL && p->mass == RFA_MASS_ESTIMATED;
    block->unmasked = oracle_ceil_div(w.seen, p->block_k);
    look_ahead(&w);
    load_queries(&w);
    for (int64_t i = 0; i < w.list->length; i++)
        if (has_unmasked_pair(&w, w.list->index[i]))
            visit_block(&w, w.list->index[i], w.scratch->rest[i], decisions);
    block->counted = w.n;
    for (int64_t r = 0; r < w.rows; r++)
        finish_row(&w, r);
    if (block->block_mass)
        measure_block_masses(&w);
}
