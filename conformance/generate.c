/* Draws the shape, the layout and the options of one random case. */
#include "conformance/generate.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conformance/rng.h"

#define COUNT_OF(array) ((int64_t)(sizeof(array) / sizeof((array)[0])))
#define PICK(r, array) ((array)[rng_below((r), COUNT_OF(array))])

static const char *const size_names[] = {"small", "medium", "large"};

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

int32_t case_block_q(const conformance_case *c)
{
    return c->block_q ? c->block_q : 64;
}

int32_t case_block_k(const conformance_case *c)
{
    return c->block_k ? c->block_k : 128;
}

int32_t case_visit_q(const conformance_case *c)
{
    return c->visit_q ? c->visit_q : rfa_default_visit_q(case_block_q(c));
}

/* ---- shapes ---- */

static void draw_types(rng *r, conformance_case *c)
{
    static const rfa_dtype types[] = {RFA_F32, RFA_F16, RFA_BF16};
    static const int32_t dims[] = {1,  3,  8,  16, 24,  40,  64,  64,  64,
                                   72, 80, 96, 96, 128, 128, 128, 160, 256};
    c->dtype = PICK(r, types);
    c->out_dtype = rng_once_in(r, 3) ? RFA_F32 : c->dtype;
    c->axes = rng_once_in(r, 2) ? RFA_AXES_BHSD : RFA_AXES_BSHD;
    c->dim = rng_once_in(r, 8) ? (int32_t)rng_between(r, 1, 256) : PICK(r, dims);
    c->dim_v = rng_once_in(r, 4) ? PICK(r, dims) : c->dim;
}

static int64_t draw_len(rng *r, conformance_size size, bool keys)
{
    static const int64_t corners[] = {1,  2,  3,  15,  16,  17,  31,  32,  33,
                                      63, 64, 65, 127, 128, 129, 255, 256, 257};
    static const int64_t most_q[] = {150, 400, 900}, most_k[] = {400, 1500, 4000};
    if (rng_once_in(r, 4))
        return PICK(r, corners);
    return rng_between(r, 1, keys ? most_k[size] : most_q[size]);
}

static double work_of(const conformance_case *c)
{
    return (double)(c->batch * c->heads * c->len_q) * (double)c->len_k * (c->dim + c->dim_v) / 2;
}

/* Gives up batches and heads first, length last. */
static void fit_budget(conformance_case *c, conformance_size size)
{
    static const double budgets[] = {1e6, 1e7, 1e8};
    while (work_of(c) > budgets[size]) {
        if (c->batch > 1)
            c->batch--;
        else if (c->heads > c->heads_kv)
            c->heads = c->heads_kv;
        else if (c->heads > 1)
            c->heads = c->heads_kv = c->heads / 2;
        else if (c->len_q > 70)
            c->len_q = c->len_q * 2 / 3;
        else
            c->len_k = c->len_k * 2 / 3;
    }
}

static void draw_shape(rng *r, conformance_size size, conformance_case *c)
{
    static const int64_t kv[] = {1, 1, 2, 3, 4}, shared[] = {1, 1, 2, 3, 8};
    c->batch = rng_between(r, 1, 3);
    c->heads_kv = PICK(r, kv);
    c->heads = c->heads_kv * PICK(r, shared);
    c->len_q = draw_len(r, size, false);
    c->len_k = rng_once_in(r, 3) ? c->len_q : draw_len(r, size, true);
    fit_budget(c, size);
    c->total_q = c->len_q;
    c->total_k = c->len_k;
}

/* Cumulative lengths up to `longest` each; returns the total. */
static int64_t draw_offsets(rng *r, int64_t batch, int64_t longest, int32_t *cu)
{
    cu[0] = 0;
    for (int64_t i = 0; i < batch; i++) {
        int64_t len = rng_once_in(r, 5) ? 0 : rng_between(r, 1, longest);
        cu[i + 1] = cu[i] + (int32_t)len;
    }
    return cu[batch];
}

/* One sequence whose lengths make no sense, without making others overlap. */
static void spoil_offsets(rng *r, conformance_case *c)
{
    int32_t *cu = rng_once_in(r, 2) ? c->cu_q : c->cu_k;
    int64_t *total = cu == c->cu_q ? &c->total_q : &c->total_k;
    int64_t longest = cu == c->cu_q ? c->len_q : c->len_k, at = rng_below(r, c->batch - 1);
    switch (rng_below(r, 3)) {
    case 0: /* past the end, then decreasing: two of them */
        cu[at + 1] = (int32_t)*total + 1000;
        break;
    case 1: /* longer than the maximum */
        for (int64_t i = at + 1; i <= c->batch; i++)
            cu[i] += (int32_t)longest + 1;
        *total += longest + 1;
        break;
    default: /* below 0 */ cu[0] = -3;
    }
}

static void draw_packs(rng *r, conformance_case *c)
{
    if (!rng_once_in(r, 5))
        return;
    c->packed = true;
    c->axes = RFA_AXES_BSHD;
    c->batch = rng_between(r, 1, CASE_MAX_BATCH - 1);
    c->len_q = ceil_div(c->len_q, 2);
    c->len_k = ceil_div(c->len_k, 2);
    c->total_q = draw_offsets(r, c->batch, c->len_q, c->cu_q);
    c->total_k = draw_offsets(r, c->batch, c->len_k, c->cu_k);
    if (c->batch > 1 && rng_once_in(r, 4))
        spoil_offsets(r, c);
    /* Rows after the last sequence belong to nobody. */
    c->total_q += c->total_q < c->len_q ? c->len_q : rng_below(r, 4);
    c->total_k += c->total_k < c->len_k ? c->len_k : rng_below(r, 4);
}

/* ---- memory ---- */

static void draw_layouts(rng *r, conformance_case *c)
{
    for (int i = 0; i < CASE_TENSORS; i++)
        c->layout[i] = (case_layout)rng_between(r, LAYOUT_NULL, LAYOUT_SWAPPED);
    if (!c->packed && rng_once_in(r, 5))
        c->layout[rng_once_in(r, 2) ? CASE_K : CASE_V] = LAYOUT_BROADCAST;
    c->shift = rng_once_in(r, 2) ? 0 : (int32_t)rng_between(r, 1, 9);
    c->padded_rows = rng_once_in(r, 3);
}

/* ---- rule, blocks, order ---- */

static float draw_knob(rng *r, const conformance_case *c)
{
    static const float recalls[] = {0.3f, 0.5f, 0.7f, 0.8f, 0.9f, 0.9f, 0.95f, 0.99f, 1.0f, 1e-6f};
    static const float lambdas[] = {0.0f, 1e-4f, 1e-2f, 0.1f, 0.5f, 1.0f};
    static const float logs[] = {-INFINITY, -12.0f, -8.0f, -5.0f, -3.0f, -1.0f, 0.0f};
    static const float masses[] = {0.0f, 0.01f, 0.05f, 0.1f, 0.3f, 1.0f};
    bool scaled = c->knob_form == RFA_KNOB_SCALED;
    switch (c->rule) {
    case RFA_RULE_BLASST: return PICK(r, lambdas) * (scaled ? (float)c->len_k : 1.0f);
    case RFA_RULE_ENERGY: return scaled ? PICK(r, masses) : PICK(r, logs);
    case RFA_RULE_RECALL: return PICK(r, recalls);
    default: return 0;
    }
}

static void draw_rule(rng *r, conformance_case *c)
{
    static const rfa_rule rules[] = {RFA_RULE_DENSE,  RFA_RULE_BLASST, RFA_RULE_ENERGY,
                                     RFA_RULE_RECALL, RFA_RULE_RECALL, RFA_RULE_RECALL};
    c->rule = PICK(r, rules);
    bool voting = c->rule == RFA_RULE_BLASST || c->rule == RFA_RULE_ENERGY;
    if (voting && rng_once_in(r, 2))
        c->knob_form = RFA_KNOB_SCALED;
    if (c->rule == RFA_RULE_RECALL && rng_once_in(r, 3))
        c->mass = RFA_MASS_ESTIMATED;
    if (voting && rng_once_in(r, 3))
        c->flags = RFA_FLAG_TRACK_RECALL;
    c->knob = draw_knob(r, c);
    c->knob_tensor = rng_once_in(r, 4);
    c->knob_bad = c->knob_tensor && rng_once_in(r, 2);
    c->mask = rng_once_in(r, 4) ? RFA_MASK_CAUSAL : RFA_MASK_NONE;
    static const float scales[] = {0.05f, 0.3f, 1.0f, -0.2f};
    c->scale = rng_once_in(r, 6) ? PICK(r, scales) : 0;
}

static void draw_blocks(rng *r, conformance_case *c)
{
    static const int32_t sizes[][2] = {{64, 128}, {64, 128}, {64, 64}, {16, 16},   {16, 32},
                                       {32, 64},  {128, 64}, {7, 5},   {128, 128}, {33, 31}};
    if (rng_once_in(r, 3)) { /* defaults, but visit groups that suit kernels or don't */
        c->visit_q = 64 * (int32_t)rng_between(r, 0, 6);
        return;
    }
    int64_t i = rng_below(r, COUNT_OF(sizes));
    c->block_q = sizes[i][0];
    c->block_k = sizes[i][1];
    if (rng_once_in(r, 2))
        c->visit_q = c->block_q * (int32_t)rng_between(r, 1, 5);
}

static void draw_list(rng *r, conformance_case *c)
{
    int64_t blocks = ceil_div(c->len_k, case_block_k(c));
    c->list_whole = rng_once_in(r, 4);
    c->list_masses = rng_once_in(r, 2);
    c->list_bad = !c->list_whole && rng_once_in(r, 3);
    c->list_capacity = c->list_whole ? blocks : rng_between(r, 1, blocks + 3);
}

static void draw_order(rng *r, conformance_case *c)
{
    static const rfa_order orders[] = {RFA_ORDER_DIAGONAL, RFA_ORDER_DIAGONAL, RFA_ORDER_RASTER,
                                       RFA_ORDER_PREDICTED, RFA_ORDER_LIST};
    c->order = PICK(r, orders);
    if (c->order == RFA_ORDER_LIST)
        draw_list(r, c);
    if (c->order == RFA_ORDER_PREDICTED &&
        (case_visit_q(c) % RFA_POOL_ROWS || case_block_k(c) % RFA_POOL_ROWS)) {
        c->block_q = 32;
        c->block_k = 32 * (int32_t)rng_between(r, 1, 3);
        c->visit_q = 0;
    }
}

/* ---- grids and ranges ---- */

static void draw_grid(rng *r, int64_t len, rfa_grid *grid)
{
    if (len < 1)
        return;
    int64_t w = rng_between(r, 1, smaller(len, 14)), h = rng_between(r, 1, smaller(len / w, 11));
    int64_t t = rng_between(r, 1, len / w / h);
    const int64_t size[3] = {t, h, w};
    for (int axis = 0; axis < 3; axis++) {
        grid->size[axis] = size[axis];
        grid->cube[axis] = rng_once_in(r, 2) ? 0 : rng_between(r, 1, 6);
    }
    grid->offset = rng_between(r, 0, len - t * h * w);
}

static void draw_grids(rng *r, conformance_case *c)
{
    if (c->mask == RFA_MASK_CAUSAL || !rng_once_in(r, 4))
        return;
    c->grid_count = c->packed ? (size_t)c->batch : 1;
    for (size_t i = 0; i < c->grid_count; i++) {
        int64_t len_q = c->packed ? c->cu_q[i + 1] - c->cu_q[i] : c->len_q;
        int64_t len_k = c->packed ? c->cu_k[i + 1] - c->cu_k[i] : c->len_k;
        draw_grid(r, smaller(len_q, c->len_q), &c->grids_q[i]);
        draw_grid(r, smaller(len_k, c->len_k), &c->grids_k[i]);
    }
}

static size_t draw_ranges(rng *r, int64_t len, rfa_range *ranges)
{
    size_t count = rng_once_in(r, 5) ? (size_t)rng_between(r, 1, 3) : 0;
    for (size_t i = 0; i < count; i++) {
        ranges[i].begin = rng_below(r, len);
        ranges[i].end =
            rng_between(r, ranges[i].begin + 1, smaller(len, ranges[i].begin + 1 + len / 8));
    }
    return count;
}

/* ---- all of it ---- */

static void draw_outputs(rng *r, conformance_case *c)
{
    c->outputs = (unsigned)rng_below(r, 16);
    if (rng_once_in(r, 2))
        c->outputs = CASE_LSE | CASE_RECALL | CASE_VISIT_ORDER | CASE_COUNTS;
    if (c->order == RFA_ORDER_PREDICTED)
        c->outputs |= CASE_VISIT_ORDER; /* judged along it */
}

void conformance_generate(uint64_t seed, conformance_size size, conformance_case *c)
{
    static const case_data data[] = {DATA_NORMAL,   DATA_NORMAL,   DATA_CLUSTERS, DATA_CLUSTERS,
                                     DATA_CLUSTERS, DATA_SINKS,    DATA_SPIKES,   DATA_SPIKES,
                                     DATA_HUGE,     DATA_TINY,     DATA_DOMINANT, DATA_EQUAL,
                                     DATA_ZERO,     DATA_CONSTANT, DATA_NONFINITE};
    rng r = rng_stream(seed, (uint64_t)size);
    memset(c, 0, sizeof(*c));
    snprintf(c->name, sizeof(c->name), "%s/%llx", size_names[size], (unsigned long long)seed);
    c->seed = seed;
    draw_types(&r, c);
    draw_shape(&r, size, c);
    draw_packs(&r, c);
    draw_layouts(&r, c);
    draw_rule(&r, c);
    draw_blocks(&r, c);
    draw_order(&r, c);
    draw_grids(&r, c);
    c->keep_key_count = draw_ranges(&r, c->len_k, c->keep_keys);
    c->dense_query_count = draw_ranges(&r, c->len_q, c->dense_queries);
    draw_outputs(&r, c);
    c->data = PICK(&r, data);
}

static bool find_fixed(const char *name, conformance_case *c)
{
    for (size_t i = 0; i < conformance_fixed_count(); i++) {
        conformance_fixed(i, c);
        if (strcmp(c->name, name) == 0)
            return true;
    }
    return false;
}

bool conformance_find(const char *name, conformance_case *c)
{
    for (int size = SIZE_SMALL; size <= SIZE_LARGE; size++) {
        size_t prefix = strlen(size_names[size]);
        char *end;
        if (strncmp(name, size_names[size], prefix) != 0 || name[prefix] != '/')
            continue;
        unsigned long long seed = strtoull(name + prefix + 1, &end, 16);
        if (end == name + prefix + 1 || *end != '\0')
            return false;
        conformance_generate(seed, (conformance_size)size, c);
        return true;
    }
    return find_fixed(name, c);
}
