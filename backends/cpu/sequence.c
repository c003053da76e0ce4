/* What tasks share of a sequence: lengths, token orders, range flags. */
#include <string.h>

#include "cpu.h"

/* ---- Lengths ------------------------------------------------------------------------ */

/* False when the cumulative lengths of sequence `batch` make no sense. */
static bool packed_length(const rfa_view *view, int64_t batch, int64_t total, int64_t longest,
                          int64_t *first, int64_t *len)
{
    const int32_t *cumulative = (const int32_t *)cpu_at(view, sizeof(int32_t), 0, 0, 0);
    *first = cumulative[batch];
    *len = (int64_t)cumulative[batch + 1] - *first;
    return *first >= 0 && *len >= 0 && *first + *len <= total && *len <= longest;
}

static rfa_cubes cubes_of(const rfa_problem *p, const rfa_grid *grids, int64_t batch)
{
    return rfa_problem_cubes(grids, grids ? p->grid_count : 0, batch);
}

/* A packed sequence may be shorter than the grid that it was given. */
static bool grid_fits(rfa_cubes g, int64_t len)
{
    if (g.size[0] == 0)
        return true;
    if (g.size[0] > len || g.size[1] > len || g.size[2] > len || g.offset > len)
        return false;
    int64_t frame = g.size[1] * g.size[2];
    return frame <= len && g.offset + frame * g.size[0] <= len;
}

static void measure_sequence(const cpu_job *job, int64_t batch, cpu_sequence *s)
{
    const rfa_problem *p = job->p;
    const cpu_layout *l = &job->layout;
    bool good = true;
    *s = (cpu_sequence){.len_q = p->len_q, .len_k = p->len_k};
    if (p->packed) {
        good = packed_length(&p->cu_q, batch, p->total_q, p->len_q, &s->first_q, &s->len_q);
        good &= packed_length(&p->cu_k, batch, p->total_k, p->len_k, &s->first_k, &s->len_k);
    }
    if (!good || !grid_fits(cubes_of(p, p->grids_q, batch), s->len_q) ||
        !grid_fits(cubes_of(p, p->grids_k, batch), s->len_k))
        *s = (cpu_sequence){.bad = true};
    /* One grid gives all sequences one order: the lengths do not enter. */
    if (p->grids_q && p->grid_count > 0)
        s->order_q = l->order_q + (p->grid_count == 1 ? 0 : s->first_q);
    if (p->grids_k && p->grid_count > 0)
        s->order_k = l->order_k + (p->grid_count == 1 ? 0 : s->first_k);
    s->key_flags = l->key_flags + batch * p->blocks_k;
    s->dense_rows = l->dense_rows + batch * p->blocks_q;
}

bool cpu_measure_sequences(const cpu_job *job)
{
    int64_t count = job->p->packed ? job->p->batch : 1, end_q = 0, end_k = 0;
    bool overlap = false;
    for (int64_t b = 0; b < count; b++) {
        cpu_sequence *s = &job->layout.sequence[b];
        measure_sequence(job, b, s);
        if (s->bad)
            continue;
        overlap |= s->first_q < end_q || s->first_k < end_k;
        end_q = s->first_q + s->len_q;
        end_k = s->first_k + s->len_k;
    }
    return overlap;
}

const cpu_sequence *cpu_sequence_of(const cpu_job *job, int64_t batch)
{
    return &job->layout.sequence[job->p->packed ? batch : 0];
}

/* ---- Token order and flags ------------------------------------------------------------ */

static void fill_order(const cpu_job *job, rfa_cubes cubes, int64_t len, int64_t *order)
{
    (void)job;
#ifdef _OPENMP
#pragma omp parallel for num_threads(job->layout.threads)
#endif
    for (int64_t i = 0; i < len; i++)
        order[i] = rfa_caller_position(cubes, i);
}

/* Sets `flag` for the blocks that hold a token of the range. */
static void flag_blocks(const int64_t *order, int64_t len, int64_t block, rfa_range range,
                        uint8_t flag, uint8_t *flags)
{
    int64_t begin = range.begin > 0 ? range.begin : 0, end = cpu_min(range.end, len);
    if (begin >= end)
        return;
    for (int64_t i = 0; order && i < len; i++)
        if (order[i] >= begin && order[i] < end)
            flags[i / block] |= flag;
    for (int64_t j = begin / block; !order && j * block < end; j++)
        flags[j] |= flag;
}

static void fill_flags(const rfa_problem *p, const cpu_sequence *s, uint8_t *key_flags,
                       uint8_t *dense_rows)
{
    const rfa_range sinks = {0, RFA_SINK_KEYS};
    memset(key_flags, 0, (size_t)p->blocks_k);
    memset(dense_rows, 0, (size_t)p->blocks_q);
    flag_blocks(s->order_k, s->len_k, p->block_k, sinks, RFA_BLOCK_SINK, key_flags);
    for (int32_t i = 0; i < p->keep_key_count; i++)
        flag_blocks(s->order_k, s->len_k, p->block_k, p->keep_keys[i], RFA_BLOCK_ALWAYS_KEEP,
                    key_flags);
    for (int32_t i = 0; i < p->dense_query_count; i++)
        flag_blocks(s->order_q, s->len_q, p->block_q, p->dense_queries[i], 1, dense_rows);
}

static void prepare_orders(const cpu_job *job, int64_t batch, const cpu_sequence *s)
{
    const rfa_problem *p = job->p;
    bool shared = p->grid_count == 1;
    if (shared && batch > 0)
        return;
    if (s->order_q)
        fill_order(job, cubes_of(p, p->grids_q, batch), shared ? p->len_q : s->len_q,
                   job->layout.order_q + (shared ? 0 : s->first_q));
    if (s->order_k)
        fill_order(job, cubes_of(p, p->grids_k, batch), shared ? p->len_k : s->len_k,
                   job->layout.order_k + (shared ? 0 : s->first_k));
}

void cpu_prepare_sequences(const cpu_job *job, int64_t begin, int64_t end)
{
    const rfa_problem *p = job->p;
    int64_t count = p->packed ? end : cpu_min(end, 1);
    for (int64_t b = begin; b < count; b++) {
        const cpu_sequence *s = &job->layout.sequence[b];
        prepare_orders(job, b, s);
        fill_flags(p, s, job->layout.key_flags + b * p->blocks_k,
                   job->layout.dense_rows + b * p->blocks_q);
    }
}
