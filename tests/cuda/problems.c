#include "problems.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define F32                                                                                        \
    {                                                                                              \
        kDLFloat, 32, 1                                                                            \
    }
#define F16                                                                                        \
    {                                                                                              \
        kDLFloat, 16, 1                                                                            \
    }
#define BF16                                                                                       \
    {                                                                                              \
        kDLBfloat, 16, 1                                                                           \
    }

const problem_kind problem_kinds[] = {
    {"dense", BF16, 1, 2, 2, 300, 700, 128, .rule = RFA_RULE_DENSE, .launches = 2},
    {"recall", BF16, 2, 4, 2, 300, 700, 128, .rule = RFA_RULE_RECALL, .tensors = true,
     .launches = 3},
    {"estimated", F16, 1, 2, 2, 520, 700, 64, .rule = RFA_RULE_RECALL, .mass = RFA_MASS_ESTIMATED,
     .tensors = true, .launches = 3},
    {"energy", BF16, 1, 2, 2, 300, 700, 64, .rule = RFA_RULE_ENERGY, .order = RFA_ORDER_RASTER,
     .launches = 1},
    {"cubes", BF16, 1, 2, 2, 723, 723, 128, .rule = RFA_RULE_RECALL, .cubes = true, .tensors = true,
     .launches = 5},
    {"predicted", F16, 1, 2, 1, 300, 900, 128, .rule = RFA_RULE_RECALL,
     .order = RFA_ORDER_PREDICTED, .tensors = true, .launches = 6},
    {"causal", BF16, 1, 2, 2, 400, 400, 128, .mask = RFA_MASK_CAUSAL, .rule = RFA_RULE_RECALL,
     .tensors = true, .launches = 3},
    {"pack", BF16, 3, 4, 2, 300, 700, 128, .packed = true, .rule = RFA_RULE_RECALL, .tensors = true,
     .launches = 3},
    {"gathered pack", F16, 2, 2, 2, 200, 300, 60, .packed = true, .rule = RFA_RULE_DENSE,
     .launches = 3},
    {"wide", F16, 1, 2, 2, 100, 300, 200, .rule = RFA_RULE_RECALL, .tensors = true, .launches = 3},
    {"single", F32, 1, 2, 2, 150, 300, 72, .rule = RFA_RULE_RECALL, .tensors = true, .launches = 3},
    {"raster", BF16, 1, 2, 2, 300, 700, 128, .rule = RFA_RULE_DENSE, .order = RFA_ORDER_RASTER,
     .launches = 1},
    {"bare recall", BF16, 1, 2, 2, 300, 700, 128, .rule = RFA_RULE_RECALL, .launches = 2},
};

const int problem_kind_count = sizeof(problem_kinds) / sizeof(problem_kinds[0]);

static DLTensor *add(problem *p, DLDataType dtype, int64_t n0, int64_t n1, int64_t n2, int64_t n3)
{
    int i = p->tensors++, ndim = 0;
    const int64_t shape[4] = {n0, n1, n2, n3};
    size_t size = dtype.bits / 8;
    for (; ndim < 4 && shape[ndim] > 0; ndim++) {
        p->shape[i][ndim] = shape[ndim];
        size *= (size_t)shape[ndim];
    }
    p->size[i] = size;
    p->tensor[i] = (DLTensor){
        .device = rfa_context_device(p->ctx), .ndim = ndim, .dtype = dtype, .shape = p->shape[i]};
    if (rfa_device_alloc(p->ctx, size, &p->tensor[i].data) != RFA_OK)
        fprintf(stderr, "%s\n", rfa_last_error(p->ctx));
    return &p->tensor[i];
}

/* (batch, len, heads, dim), or, in a pack, (rows of all sequences, heads, dim). */
static DLTensor *add_rows(problem *p, const problem_kind *kind, int64_t len, int64_t heads)
{
    if (!kind->packed)
        return add(p, kind->dtype, kind->batch, len, heads, kind->dim);
    return add(p, kind->dtype, kind->batch * len, heads, kind->dim, 0);
}

/* Rows after the last sequence are nobody's. */
static DLTensor *add_offsets(problem *p, int64_t batch, int64_t len)
{
    const DLDataType i32 = {kDLInt, 32, 1};
    int32_t offsets[16] = {0};
    DLTensor *tensor = add(p, i32, batch + 1, 0, 0, 0);
    for (int64_t i = 0; i < batch; i++)
        offsets[i + 1] = offsets[i] + (int32_t)(i % 2 ? len / 2 : len);
    if (tensor->data && rfa_device_write(p->ctx, tensor->data, 0, offsets,
                                         (size_t)(batch + 1) * sizeof(int32_t), NULL) != RFA_OK)
        fprintf(stderr, "%s\n", rfa_last_error(p->ctx));
    return tensor;
}

static void add_outputs(problem *p, const problem_kind *kind)
{
    const DLDataType f32 = F32, words = {kDLUInt, 32, 1}, bytes = {kDLUInt, 8, 1};
    int64_t q_blocks = (kind->len_q + 63) / 64, words_k = (kind->len_k + 4095) / 4096;
    p->knobs = add(p, f32, kind->batch, kind->heads, 0, 0);
    p->args.knobs = p->knobs;
    for (int i = 0; i < 2; i++) {
        DLTensor *rows = kind->packed ? add(p, f32, kind->heads, p->args.q->shape[0], 0, 0)
                                      : add(p, f32, kind->batch, kind->heads, kind->len_q, 0);
        *(i == 0 ? &p->args.lse : &p->args.recall) = rows;
    }
    p->args.decisions = add(p, words, kind->batch, kind->heads, q_blocks, words_k);
    p->args.counts = add(p, bytes, sizeof(rfa_counts), 0, 0, 0);
}

static bool take_workspace(problem *p)
{
    if (rfa_workspace_size(p->ctx, &p->args, &p->workspace_size) != RFA_OK ||
        (p->workspace_size > 0 &&
         rfa_device_alloc(p->ctx, p->workspace_size, &p->args.workspace) != RFA_OK)) {
        fprintf(stderr, "%s\n", rfa_last_error(p->ctx));
        return false;
    }
    p->args.workspace_size = p->workspace_size;
    return true;
}

bool problem_create(problem *p, rfa_context *ctx, const problem_kind *kind)
{
    memset(p, 0, sizeof(*p));
    p->ctx = ctx;
    p->args = (rfa_attention_args)RFA_ATTENTION_ARGS_INIT;
    p->args.q = add_rows(p, kind, kind->len_q, kind->heads);
    p->args.k = add_rows(p, kind, kind->len_k, kind->heads_kv);
    p->args.v = add_rows(p, kind, kind->len_k, kind->heads_kv);
    p->out = add_rows(p, kind, kind->len_q, kind->heads);
    p->args.out = p->out;
    if (kind->packed) {
        p->args.cu_seqlens_q = add_offsets(p, kind->batch, kind->len_q);
        p->args.cu_seqlens_k = add_offsets(p, kind->batch, kind->len_k);
        p->args.max_len_q = kind->len_q;
        p->args.max_len_k = kind->len_k;
    }
    p->args.mask = kind->mask;
    p->args.rule = kind->rule;
    p->args.mass = kind->mass;
    p->args.order = kind->order;
    p->args.knob = kind->rule == RFA_RULE_ENERGY ? -3 : 0.8f;
    if (kind->cubes) {
        p->grid = (rfa_grid){3, {8, 9, 10}, {0, 0, 0}};
        p->args.grids_q = p->args.grids_k = &p->grid;
        p->args.grid_count = 1;
    }
    if (kind->tensors)
        add_outputs(p, kind);
    for (int i = 0; i < p->tensors; i++)
        if (!p->tensor[i].data)
            return false;
    return problem_fill(p, PROBLEM_SEED) && (!p->knobs || problem_set_knob(p, p->args.knob)) &&
           take_workspace(p);
}

void problem_destroy(problem *p)
{
    for (int i = 0; i < p->tensors; i++)
        rfa_device_free(p->ctx, p->tensor[i].data);
    rfa_device_free(p->ctx, p->args.workspace);
}

/* Sums of few bits between -2 and 2, so that any of the types takes them as they are;
 * some keys matter more than others. */
static float value_at(unsigned *state, bool strong)
{
    *state = *state * 1664525u + 1013904223u;
    float x = (float)((*state >> 24) & 63) / 32 - 1;
    return strong ? 2 * x : x;
}

static void store(void *to, DLDataType dtype, size_t i, float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof(bits));
    if (dtype.bits == 32) {
        ((float *)to)[i] = x;
    } else if (dtype.code == kDLBfloat) {
        ((uint16_t *)to)[i] = (uint16_t)(bits >> 16);
    } else {
        /* Only normal numbers and 0 come here. */
        uint32_t sign = bits >> 16 & 0x8000, exponent = bits >> 23 & 255;
        uint32_t fraction = bits >> 13 & 1023;
        ((uint16_t *)to)[i] = (uint16_t)(x == 0 ? sign : sign | (exponent - 112) << 10 | fraction);
    }
}

bool problem_fill(problem *p, unsigned seed)
{
    bool done = true;
    for (int t = 0; t < 3; t++) {
        unsigned state = seed * 77u + (unsigned)t;
        size_t width = p->tensor[t].dtype.bits / 8, count = p->size[t] / width;
        const int64_t *last = p->shape[t] + p->tensor[t].ndim - 2;
        size_t row = (size_t)(last[0] * last[1]);
        char *values = malloc(p->size[t]);
        if (!values)
            return false;
        for (size_t i = 0; i < count; i++)
            store(values, p->tensor[t].dtype, i, value_at(&state, i / row % 37 < 9));
        done &= rfa_device_write(p->ctx, p->tensor[t].data, 0, values, p->size[t], NULL) == RFA_OK;
        free(values);
    }
    return done;
}

bool problem_set_knob(problem *p, float knob)
{
    float values[64];
    size_t size = (size_t)(p->knobs->shape[0] * p->knobs->shape[1]) * sizeof(float);
    for (size_t i = 0; i < size / sizeof(float); i++)
        values[i] = knob;
    return rfa_device_write(p->ctx, p->knobs->data, 0, values, size, NULL) == RFA_OK;
}

size_t problem_out_size(const problem *p)
{
    return p->size[p->out - p->tensor];
}

bool problem_read(problem *p, void *to, void *stream)
{
    return rfa_device_read(p->ctx, p->out->data, 0, to, problem_out_size(p), stream) == RFA_OK;
}
