/* What is in a case's tensors. Every row comes from a stream of its own, so that
 * rows can be made in any order. */
#include <math.h>

#include "conformance/generate.h"
#include "conformance/rng.h"

enum { STREAM_KNOBS = 16, STREAM_LISTS, STREAM_DIRECTION, STREAM_SCENE, STREAM_PLANT };

static rng stream(const conformance_case *c, int what, int64_t batch, int64_t head, int64_t row)
{
    uint64_t tag = rng_mix((uint64_t)what * 1000003u + (uint64_t)batch) + (uint64_t)head;
    return rng_stream(c->seed, rng_mix(tag) + (uint64_t)row);
}

static double scale_of(const conformance_case *c)
{
    return c->scale != 0 ? (double)c->scale : 1 / sqrt((double)c->dim);
}

static int32_t dim_of(const conformance_case *c, int tensor)
{
    return tensor == CASE_V ? c->dim_v : c->dim;
}

static void draw_row(const conformance_case *c, int tensor, int64_t batch, int64_t head,
                     int64_t row, double size, double *values)
{
    rng r = stream(c, tensor, batch, head, row);
    for (int32_t d = 0; d < dim_of(c, tensor); d++)
        values[d] = size * rng_normal(&r);
}

/* values += amount * (a fixed direction of mean square 1) */
static void add_direction(const conformance_case *c, int what, int64_t which, double amount,
                          double *values)
{
    rng r = stream(c, what, 0, 0, which);
    for (int32_t d = 0; d < c->dim; d++)
        values[d] += amount * (rng_once_in(&r, 2) ? 1 : -1);
}

/* Amounts of a shared direction, in q and in k, that add `logit` to the logit. */
static double q_amount(const conformance_case *c, double logit)
{
    return sqrt(logit / (fabs(scale_of(c)) * c->dim));
}

static double k_amount(const conformance_case *c, double logit)
{
    return copysign(q_amount(c, logit), scale_of(c));
}

static void add_scene(const conformance_case *c, int tensor, int64_t row, double *values)
{
    int64_t total = tensor == CASE_Q ? c->total_q : c->total_k, scene = row * 8 / total;
    double amount = tensor == CASE_Q ? q_amount(c, 8) : k_amount(c, 8);
    add_direction(c, STREAM_SCENE, scene, amount, values);
}

/* Queries and, of the keys, the `chosen` ones point the same way: so far are these above others. */
static void raise_logits(const conformance_case *c, int tensor, bool chosen, double logits,
                         double *values)
{
    if (tensor == CASE_Q)
        add_direction(c, STREAM_DIRECTION, 0, q_amount(c, logits), values);
    else if (chosen)
        add_direction(c, STREAM_DIRECTION, 0, k_amount(c, logits), values);
}

static bool is_dominant(const conformance_case *c, int64_t row)
{
    rng r = stream(c, STREAM_PLANT, 0, 0, 0);
    return row == rng_below(&r, c->total_k);
}

static bool is_spike(const conformance_case *c, int64_t row)
{
    rng r = stream(c, STREAM_PLANT, 0, 0, row);
    return rng_once_in(&r, 24);
}

static void plant_nonfinite(const conformance_case *c, int tensor, int64_t batch, int64_t head,
                            int64_t row, double *values)
{
    static const double bad[] = {NAN, INFINITY, -INFINITY};
    rng r = stream(c, STREAM_PLANT, 0, 0, 0);
    int at = (int)rng_below(&r, 3);
    int64_t rows = at == CASE_Q ? c->total_q : c->total_k;
    int64_t heads = at == CASE_Q ? c->heads : c->heads_kv;
    int64_t at_row = rng_below(&r, rows), at_head = rng_below(&r, heads);
    int64_t at_batch = c->packed ? 0 : rng_below(&r, c->batch), d = rng_below(&r, dim_of(c, at));
    if (tensor == at && row == at_row && head == at_head && batch == at_batch)
        values[d] = bad[rng_below(&r, 3)];
}

/* DATA_HUGE and DATA_TINY: the standard deviation of a logit. */
static double size_for_logits(const conformance_case *c, double deviation)
{
    return sqrt(deviation / (fabs(scale_of(c)) * sqrt((double)c->dim)));
}

static double size_of_rows(const conformance_case *c, int tensor)
{
    bool logits = tensor != CASE_V;
    switch (c->data) {
    case DATA_HUGE: return logits ? size_for_logits(c, 1000) : 10;
    case DATA_CLIFF: return logits ? size_for_logits(c, 1e-3) : 1;
    case DATA_TINY: return logits ? size_for_logits(c, 1e-3) : 1e-3;
    case DATA_ZERO: return tensor == CASE_Q ? 0 : 1;
    case DATA_CLUSTERS:
    case DATA_SINKS:
    case DATA_SPIKES:
    case DATA_DOMINANT: return logits ? size_for_logits(c, 0.5) : 1;
    default: return 1;
    }
}

static void shape_logits(const conformance_case *c, int tensor, int64_t row, double *values)
{
    if (c->data == DATA_CLUSTERS)
        add_scene(c, tensor, row, values);
    if (c->data == DATA_SINKS)
        raise_logits(c, tensor, row < RFA_SINK_KEYS, 6, values);
    if (c->data == DATA_SPIKES)
        raise_logits(c, tensor, is_spike(c, row), 25, values);
    if (c->data == DATA_DOMINANT)
        raise_logits(c, tensor, is_dominant(c, row), 25, values);
    if (c->data == DATA_CLIFF)
        raise_logits(c, tensor, row >= c->total_k / 2, 83.5, values);
}

void case_row(const conformance_case *c, int tensor, int64_t batch, int64_t head, int64_t row,
              double *values)
{
    bool alike = (c->data == DATA_EQUAL && tensor == CASE_K) ||
                 (c->data == DATA_CONSTANT && tensor == CASE_V);
    draw_row(c, tensor, batch, head, alike ? 0 : row, size_of_rows(c, tensor), values);
    if (tensor != CASE_V)
        shape_logits(c, tensor, row, values);
    if (c->data == DATA_NONFINITE)
        plant_nonfinite(c, tensor, batch, head, row, values);
}

/* ---- knobs and lists ---- */

float case_knob(const conformance_case *c, int64_t batch, int64_t head)
{
    static const float bad[] = {NAN, INFINITY, 1e30f, -3.0f, 0.0f, -0.0f, 1.5f};
    rng r = stream(c, STREAM_KNOBS, batch, head, 0);
    if (c->knob_bad && rng_once_in(&r, 2))
        return bad[rng_below(&r, sizeof(bad) / sizeof(bad[0]))];
    return rng_once_in(&r, 2) ? c->knob : c->knob * 0.75f;
}

static int64_t common_divisor(int64_t a, int64_t b)
{
    return b == 0 ? a : common_divisor(b, a % b);
}

static int32_t bad_index(rng *r, int64_t blocks, const int32_t *indices, int64_t slot)
{
    const int32_t bad[] = {-1, -1000, (int32_t)blocks, INT32_MAX, INT32_MIN};
    if (slot > 0 && rng_once_in(r, 3))
        return indices[rng_below(r, slot)];
    return bad[rng_below(r, sizeof(bad) / sizeof(bad[0]))];
}

/* Falling fast, so that what is left soon fits into a budget. */
static float draw_mass(rng *r, int64_t slot, bool bad)
{
    if (bad && rng_once_in(r, 12))
        return rng_once_in(r, 2) ? NAN : -1.0f;
    double mass = rng_uniform(r);
    for (int64_t i = 0; i < slot; i++)
        mass *= 0.75;
    return (float)mass;
}

int32_t case_list(const conformance_case *c, int64_t batch, int64_t head, int64_t group,
                  int32_t *indices, float *masses)
{
    rng r = stream(c, STREAM_LISTS, batch, head, group);
    int64_t block_k = case_block_k(c), blocks = (c->len_k + block_k - 1) / block_k;
    int64_t step = rng_between(&r, 1, blocks), start = rng_below(&r, blocks);
    while (common_divisor(step, blocks) != 1)
        step++;
    for (int64_t i = 0; i < c->list_capacity; i++) {
        indices[i] = (int32_t)((start + i * step) % blocks);
        if (i >= blocks || (c->list_bad && rng_once_in(&r, 5)))
            indices[i] = bad_index(&r, blocks, indices, i);
        masses[i] = draw_mass(&r, i, c->list_bad);
    }
    int64_t most = c->list_capacity < blocks ? c->list_capacity : blocks;
    if (c->list_bad && rng_once_in(&r, 4))
        return rng_once_in(&r, 2) ? -5 : (int32_t)c->list_capacity + 9;
    return (int32_t)(c->list_whole ? blocks : rng_between(&r, rng_once_in(&r, 8) ? 0 : 1, most));
}
