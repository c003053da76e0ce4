#include "jobs.h"

#include <stdlib.h>
#include <string.h>

enum { LQ = 100, LK = 150, HEADS = 2, DIM = 16, DIM_V = 24, BLOCK = 32, GROUP = 64 };
enum { BLOCKS_Q = (LQ + BLOCK - 1) / BLOCK, BLOCKS_K = (LK + BLOCK - 1) / BLOCK };
enum { GROUPS = (LQ + GROUP - 1) / GROUP, PARTS = 3 };
enum { ARENA = 1 << 18, TENSORS = 24, ALIGNMENT = 256, POISON = 0xa5 };

typedef struct tensor {
    DLTensor dl;
    int64_t shape[4];
    size_t bytes;
} tensor;

typedef struct arena {
    _Alignas(ALIGNMENT) unsigned char bytes[ARENA];
    size_t used;
} arena;

struct job {
    job_kind kind;
    uint32_t seed;
    rfa_attention_args args;
    rfa_merge_args merge;
    const DLTensor *part_out[PARTS], *part_lse[PARTS], *part_recall[PARTS];
    rfa_grid grid;
    rfa_range keep[2], dense;
    tensor tensors[TENSORS];
    int tensor_count;
    arena input, output, remembered;
};

static const DLDataType f32 = {kDLFloat, 32, 1}, bf16 = {kDLBfloat, 16, 1};
static const DLDataType i32 = {kDLInt, 32, 1}, u32 = {kDLUInt, 32, 1}, u8 = {kDLUInt, 8, 1};

/* ---- Tensors ------------------------------------------------------------------------ */

/* Dimensions of length 0 at the end are none. */
static tensor *place(job *j, arena *where, DLDataType type, int64_t a, int64_t b, int64_t c,
                     int64_t d)
{
    const int64_t shape[4] = {a, b, c, d};
    tensor *t = &j->tensors[j->tensor_count++];
    t->dl = (DLTensor){.data = where->bytes + where->used,
                       .device = {kDLCPU, 0},
                       .dtype = type,
                       .shape = t->shape};
    t->bytes = type.bits / 8;
    while (t->dl.ndim < 4 && shape[t->dl.ndim] > 0) {
        t->shape[t->dl.ndim] = shape[t->dl.ndim];
        t->bytes *= (size_t)shape[t->dl.ndim++];
    }
    where->used += (t->bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    if (j->tensor_count > TENSORS || where->used > ARENA)
        abort(); /* the sizes above are wrong */
    return t;
}

static uint32_t next_random(job *j)
{
    return j->seed = j->seed * 1664525u + 1013904223u;
}

/* Numbers in [-2, 2). */
static const DLTensor *filled(job *j, DLDataType type, int64_t a, int64_t b, int64_t c, int64_t d)
{
    tensor *t = place(j, &j->input, type, a, b, c, d);
    for (size_t i = 0; i < t->bytes / (type.bits / 8); i++) {
        float x = (float)(next_random(j) >> 8) / 4194304.0f - 2.0f;
        uint32_t bits;
        memcpy(&bits, &x, sizeof(bits));
        if (type.bits == 32)
            ((uint32_t *)t->dl.data)[i] = bits;
        else
            ((uint16_t *)t->dl.data)[i] = (uint16_t)(bits >> 16);
    }
    return &t->dl;
}

static const DLTensor *written(job *j, DLDataType type, int64_t a, int64_t b, int64_t c, int64_t d)
{
    return &place(j, &j->output, type, a, b, c, d)->dl;
}

static const DLTensor *integers(job *j, int64_t count, const int32_t *values)
{
    tensor *t = place(j, &j->input, i32, count, 0, 0, 0);
    memcpy(t->dl.data, values, t->bytes);
    return &t->dl;
}

/* ---- Calls -------------------------------------------------------------------------- */

static void set_blocks(rfa_attention_args *a)
{
    a->rule = RFA_RULE_RECALL;
    a->knob = 0.8f;
    a->block_q = a->block_k = BLOCK;
    a->visit_q = GROUP;
}

static void make_attention(job *j, int64_t batch, DLDataType type)
{
    rfa_attention_args *a = &j->args;
    a->q = filled(j, type, batch, LQ, HEADS, DIM);
    a->k = filled(j, type, batch, LK, 1, DIM);
    a->v = filled(j, type, batch, LK, 1, DIM_V);
    a->out = written(j, type, batch, LQ, HEADS, DIM_V);
    a->lse = written(j, f32, batch, HEADS, LQ, 0);
    a->recall = written(j, f32, batch, HEADS, LQ, 0);
    a->decisions = written(j, u32, batch, HEADS, BLOCKS_Q, 1);
    a->visit_order = written(j, i32, batch, HEADS, GROUPS, BLOCKS_K);
    a->counts = written(j, u8, sizeof(rfa_counts), 0, 0, 0);
    set_blocks(a);
}

static void make_packed(job *j)
{
    static const int32_t queries[] = {0, 70, 70, LQ}, keys[] = {0, 90, 110, LK};
    rfa_attention_args *a = &j->args;
    a->q = filled(j, f32, LQ, HEADS, DIM, 0);
    a->k = filled(j, f32, LK, 1, DIM, 0);
    a->v = filled(j, f32, LK, 1, DIM_V, 0);
    a->out = written(j, f32, LQ, HEADS, DIM_V, 0);
    a->lse = written(j, f32, HEADS, LQ, 0, 0);
    a->recall = written(j, f32, HEADS, LQ, 0, 0);
    a->counts = written(j, u8, sizeof(rfa_counts), 0, 0, 0);
    a->cu_seqlens_q = integers(j, 4, queries);
    a->cu_seqlens_k = integers(j, 4, keys);
    a->max_len_q = 70;
    a->max_len_k = 90;
    set_blocks(a);
}

static void add_ranges(job *j)
{
    j->keep[0] = (rfa_range){40, 44};
    j->keep[1] = (rfa_range){140, 150};
    j->dense = (rfa_range){33, 35};
    j->args.keep_keys = j->keep;
    j->args.keep_key_count = 2;
    j->args.dense_queries = &j->dense;
    j->args.dense_query_count = 1;
}

/* Every other key block, the last first. */
static void add_list(job *j)
{
    enum { LISTS = HEADS * GROUPS, CAPACITY = 3 };
    tensor *index = place(j, &j->input, i32, 1, HEADS, GROUPS, CAPACITY);
    tensor *count = place(j, &j->input, i32, 1, HEADS, GROUPS, 0);
    tensor *mass = place(j, &j->input, f32, 1, HEADS, GROUPS, CAPACITY);
    for (int i = 0; i < LISTS * CAPACITY; i++) {
        ((int32_t *)index->dl.data)[i] = BLOCKS_K - 1 - 2 * (i % CAPACITY);
        ((float *)mass->dl.data)[i] = 1.0f / (float)(1 + i % CAPACITY);
    }
    for (int i = 0; i < LISTS; i++)
        ((int32_t *)count->dl.data)[i] = CAPACITY;
    j->args.order = RFA_ORDER_LIST;
    j->args.list_indices = &index->dl;
    j->args.list_counts = &count->dl;
    j->args.list_masses = &mass->dl;
}

static void add_grid(job *j)
{
    j->grid = (rfa_grid){3, {3, 4, 7}, {0, 0, 0}};
    j->args.grids_q = j->args.grids_k = &j->grid;
    j->args.grid_count = 1;
}

static void make_causal(job *j)
{
    make_attention(j, 1, f32);
    tensor *knobs = place(j, &j->input, f32, 1, HEADS, 0, 0);
    ((float *)knobs->dl.data)[0] = 0.05f;
    ((float *)knobs->dl.data)[1] = 0.5f;
    j->args.knobs = &knobs->dl;
    j->args.rule = RFA_RULE_BLASST;
    j->args.mask = RFA_MASK_CAUSAL;
    add_ranges(j);
}

static void make_list_call(job *j)
{
    j->args.q = filled(j, f32, 1, LQ, HEADS, DIM);
    j->args.k = filled(j, f32, 1, LK, 1, DIM);
    j->args.list_indices = written(j, i32, 1, HEADS, GROUPS, BLOCKS_K);
    j->args.list_counts = written(j, i32, 1, HEADS, GROUPS, 0);
    j->args.list_masses = written(j, f32, 1, HEADS, GROUPS, BLOCKS_K);
    set_blocks(&j->args);
    j->args.v = filled(j, f32, 1, LK, 1, DIM_V);
}

static void make_merge(job *j)
{
    rfa_merge_args *m = &j->merge;
    for (int i = 0; i < PARTS; i++) {
        j->part_out[i] = filled(j, f32, 1, LQ, HEADS, DIM_V);
        j->part_lse[i] = filled(j, f32, 1, HEADS, LQ, 0);
        tensor *recall = place(j, &j->input, f32, 1, HEADS, LQ, 0);
        for (int n = 0; n < HEADS * LQ; n++)
            ((float *)recall->dl.data)[n] = 1.0f - (float)(n % 7) / 16.0f;
        j->part_recall[i] = &recall->dl;
    }
    m->parts = PARTS;
    m->part_out = j->part_out;
    m->part_lse = j->part_lse;
    m->part_recall = j->part_recall;
    m->out = written(j, bf16, 1, LQ, HEADS, DIM_V);
    m->lse = written(j, f32, 1, HEADS, LQ, 0);
    m->recall = written(j, f32, 1, HEADS, LQ, 0);
}

static void make(job *j)
{
    switch (j->kind) {
    case JOB_PLAIN: make_attention(j, 2, f32); break;
    case JOB_PACKED: make_packed(j); break;
    case JOB_PREDICTED:
        make_attention(j, 1, f32);
        add_ranges(j);
        j->args.order = RFA_ORDER_PREDICTED;
        break;
    case JOB_LIST:
        make_attention(j, 1, f32);
        add_list(j);
        break;
    case JOB_CUBES:
        make_attention(j, 1, f32);
        add_grid(j);
        break;
    case JOB_ESTIMATED:
        make_attention(j, 1, bf16);
        j->args.mass = RFA_MASS_ESTIMATED;
        break;
    case JOB_CAUSAL: make_causal(j); break;
    case JOB_BUILD_LIST: make_list_call(j); break;
    case JOB_MERGE:
    case JOB_KINDS: make_merge(j); break;
    }
}

job *job_new(job_kind kind, uint32_t seed)
{
    job *j = aligned_alloc(ALIGNMENT, (sizeof(job) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
    if (!j)
        return NULL;
    memset(j, 0, sizeof(*j));
    j->kind = kind;
    j->seed = seed;
    j->args = (rfa_attention_args)RFA_ATTENTION_ARGS_INIT;
    j->merge = (rfa_merge_args)RFA_MERGE_ARGS_INIT;
    make(j);
    job_poison(j);
    return j;
}

void job_free(job *j)
{
    free(j);
}

const char *job_name(job_kind kind)
{
    static const char *const names[JOB_KINDS] = {
        "plain",     "packed", "predicted",          "list", "cubes",
        "estimated", "causal", "build a visit list", "merge"};
    return names[kind];
}

rfa_status job_call(job *j, rfa_context *ctx)
{
    if (j->kind == JOB_MERGE)
        return rfa_merge(ctx, &j->merge);
    if (j->kind == JOB_BUILD_LIST)
        return rfa_build_visit_list(ctx, &j->args);
    return rfa_attention(ctx, &j->args);
}

rfa_attention_args *job_args(job *j)
{
    return &j->args;
}

void job_poison(job *j)
{
    memset(j->output.bytes, POISON, ARENA);
}

bool job_is_poisoned(const job *j)
{
    for (size_t i = 0; i < ARENA; i++)
        if (j->output.bytes[i] != POISON)
            return false;
    return true;
}

void job_remember(job *j)
{
    j->remembered = j->output;
}

bool job_is_as_remembered(const job *j)
{
    return memcmp(j->remembered.bytes, j->output.bytes, ARENA) == 0;
}

bool job_gave_the_same(const job *a, const job *b)
{
    return memcmp(a->output.bytes, b->output.bytes, ARENA) == 0;
}
