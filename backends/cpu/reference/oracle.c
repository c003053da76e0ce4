/* Set-up: sequences, token orders, range flags. */
#include <stdlib.h>

#include "oracle_internal.h"

void *oracle_array(int64_t count, int64_t each, size_t size)
{
    size_t n = (size_t)(count > 0 ? count : 1), m = (size_t)(each > 0 ? each : 1);
    if (n > SIZE_MAX / size / m)
        return NULL;
    return calloc(n, m * size);
}

const oracle_sequence *oracle_sequence_of(const oracle *o, int64_t batch)
{
    return &o->sequence[o->p->packed ? batch : 0];
}

bool oracle_bad_sequence(const oracle *o, int64_t batch)
{
    return oracle_sequence_of(o, batch)->bad;
}

void oracle_load_q(const oracle *o, int64_t batch, int64_t head, int64_t position, float *row)
{
    const rfa_problem *p = o->p;
    const oracle_sequence *s = oracle_sequence_of(o, batch);
    int64_t at = s->first_q + s->order_q[position];
    load_row(row, p->dtype, view_at(&p->q, element_size(p->dtype), batch, head, at), p->dim);
}

void oracle_load_k(const oracle *o, int64_t batch, int64_t head, int64_t position, float *row)
{
    const rfa_problem *p = o->p;
    const oracle_sequence *s = oracle_sequence_of(o, batch);
    int64_t at = s->first_k + s->order_k[position], head_kv = oracle_head_kv(p, head);
    load_row(row, p->dtype, view_at(&p->k, element_size(p->dtype), batch, head_kv, at), p->dim);
}

void oracle_load_v(const oracle *o, int64_t batch, int64_t head, int64_t position, float *row)
{
    const rfa_problem *p = o->p;
    const oracle_sequence *s = oracle_sequence_of(o, batch);
    int64_t at = s->first_k + s->order_k[position], head_kv = oracle_head_kv(p, head);
    load_row(row, p->dtype, view_at(&p->v, element_size(p->dtype), batch, head_kv, at), p->dim_v);
}

/* ---- Sequences ------------------------------------------------------------------ */

/* False when the cumulative lengths of sequence `batch` make no sense. */
static bool packed_length(const rfa_view *cu, int64_t batch, int64_t total, int64_t longest,
                          int64_t *first, int64_t *len)
{
    const int32_t *begin = view_at(cu, sizeof(*begin), 0, 0, 0);
    *first = begin[batch];
    *len = (int64_t)begin[batch + 1] - *first;
    return *first >= 0 && *len >= 0 && *first + *len <= total && *len <= longest;
}

static rfa_cubes cubes_of(const rfa_grid *grids, size_t count, int64_t batch)
{
    return rfa_problem_cubes(grids, grids ? count : 0, batch);
}

/* A packed sequence may be shorter than the grid that it was given. */
static bool grid_fits(rfa_cubes g, int64_t len)
{
    if (g.size[0] == 0 || g.size[1] == 0 || g.size[2] == 0)
        return true;
    if (g.size[0] > len || g.size[1] > len || g.size[2] > len || g.offset > len)
        return false;
    int64_t frame = g.size[1] * g.size[2];
    return frame <= len && g.offset + frame * g.size[0] <= len;
}

static void measure_sequence(const rfa_problem *p, int64_t batch, oracle_sequence *s)
{
    bool good = true;
    s->len_q = p->len_q;
    s->len_k = p->len_k;
    if (p->packed) {
        good = packed_length(&p->cu_q, batch, p->total_q, p->len_q, &s->first_q, &s->len_q);
        good &= packed_length(&p->cu_k, batch, p->total_k, p->len_k, &s->first_k, &s->len_k);
    }
    good = good && grid_fits(cubes_of(p->grids_q, p->grid_count, batch), s->len_q) &&
           grid_fits(cubes_of(p->grids_k, p->grid_count, batch), s->len_k);
    if (!good) {
        s->bad = true;
        s->first_q = s->first_k = s->len_q = s->len_k = 0;
    }
    s->blocks_q = oracle_ceil_div(s->len_q, p->block_q);
    s->blocks_k = oracle_ceil_div(s->len_k, p->block_k);
    s->groups = oracle_ceil_div(s->len_q, p->visit_q);
}

/* ---- Token order ---------------------------------------------------------------- */

/* Appends the cube that begins at `from`, in raster order. */
static int64_t append_cube(rfa_cubes g, const int64_t from[3], int64_t *order, int64_t n)
{
    int64_t end[3];
    for (int axis = 0; axis < 3; axis++)
        end[axis] = from[axis] + oracle_min(g.cube[axis], g.size[axis] - from[axis]);
    for (int64_t t = from[0]; t < end[0]; t++)
        for (int64_t h = from[1]; h < end[1]; h++)
            for (int64_t w = from[2]; w < end[2]; w++)
                order[n++] = g.offset + (t * g.size[1] + h) * g.size[2] + w;
    return n;
}

static int64_t *token_order(rfa_cubes g, int64_t len)
{
    int64_t *order = oracle_array(len, 1, sizeof(*order));
    int64_t n = 0, from[3], step[3];
    if (!order)
        return NULL;
    for (int axis = 0; axis < 3; axis++)
        step[axis] = oracle_min(g.cube[axis], len > 0 ? len : 1);
    for (from[0] = 0; from[0] < g.size[0]; from[0] += step[0])
        for (from[1] = 0; from[1] < g.size[1]; from[1] += step[1])
            for (from[2] = 0; from[2] < g.size[2]; from[2] += step[2])
                n = append_cube(g, from, order, n);
    int64_t grid_end = g.offset + n;
    for (int64_t i = 0; i < g.offset && n < len; i++)
        order[n++] = i;
    for (int64_t i = grid_end; n < len; i++)
        order[n++] = i;
    return order;
}

/* ---- Ranges --------------------------------------------------------------------- */

/* One flag a block: does it hold a token of a range? */
static bool *touched_blocks(const int64_t *order, int64_t len, int64_t block, int64_t blocks,
                            const rfa_range *ranges, int32_t count)
{
    bool *touched = oracle_array(blocks, 1, sizeof(*touched));
    if (!touched)
        return NULL;
    for (int64_t i = 0; i < len; i++)
        for (int32_t r = 0; r < count; r++)
            if (order[i] >= ranges[r].begin && order[i] < ranges[r].end)
                touched[i / block] = true;
    return touched;
}

static bool prepare_sequence(const rfa_problem *p, int64_t batch, oracle_sequence *s)
{
    const rfa_range sinks = {0, RFA_SINK_KEYS};
    measure_sequence(p, batch, s);
    size_t grids = s->bad ? 0 : p->grid_count;
    s->order_q = token_order(cubes_of(p->grids_q, grids, batch), s->len_q);
    s->order_k = token_order(cubes_of(p->grids_k, grids, batch), s->len_k);
    if (!s->order_q || !s->order_k)
        return false;
    s->keep = touched_blocks(s->order_k, s->len_k, p->block_k, s->blocks_k, p->keep_keys,
                             p->keep_key_count);
    s->sink = touched_blocks(s->order_k, s->len_k, p->block_k, s->blocks_k, &sinks, 1);
    s->dense = touched_blocks(s->order_q, s->len_q, p->block_q, s->blocks_q, p->dense_queries,
                              p->dense_query_count);
    return s->keep && s->sink && s->dense;
}

/* ---- Life ------------------------------------------------------------------------ */

static rfa_status prepare(oracle *o, rfa_error *err)
{
    o->sequence = oracle_array(o->sequence_count, 1, sizeof(*o->sequence));
    bool done = o->sequence;
    for (int64_t b = 0; done && b < o->sequence_count; b++)
        done = prepare_sequence(o->p, b, &o->sequence[b]);
    if (!done)
        return rfa_fail(err, RFA_OUT_OF_MEMORY, "no memory for the token orders of %lld sequences",
                        (long long)o->sequence_count);
    return oracle_prepare_lists(o, err);
}

rfa_status oracle_create(oracle **result, const rfa_problem *p, rfa_error *err)
{
    oracle *o = oracle_array(1, 1, sizeof(*o));
    *result = NULL;
    if (!o)
        return rfa_fail(err, RFA_OUT_OF_MEMORY, "no memory for the oracle");
    o->p = p;
    o->sequence_count = p->packed ? p->batch : 1;
    rfa_status status = prepare(o, err);
    if (status != RFA_OK) {
        oracle_destroy(o);
        return status;
    }
    *result = o;
    return RFA_OK;
}

void oracle_destroy(oracle *o)
{
    if (!o)
        return;
    for (int64_t b = 0; o->sequence && b < o->sequence_count; b++) {
        free(o->sequence[b].order_q);
        free(o->sequence[b].order_k);
        free(o->sequence[b].keep);
        free(o->sequence[b].sink);
        free(o->sequence[b].dense);
    }
    free(o->sequence);
    free(o->list);
    free(o->list_index);
    free(o->list_mass);
    free(o);
}
