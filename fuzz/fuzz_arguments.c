/* The argument checks of attention, visit lists and merges: whatever the structs
 * hold, a status with a sentence; and what is taken keeps the promises of
 * rfa_problem. No tensor's data is read. */
#include <math.h>
#include <stdlib.h>

#include "fuzz/bytes.h"
#include "src/problem.h"

enum { TENSORS = 16, DIMS = 5, PARTS = 3, NEWER = 16 };

typedef struct fuzz_tensor {
    DLTensor tensor;
    int64_t shape[DIMS], strides[DIMS];
} fuzz_tensor;

static void require(int condition)
{
    if (!condition)
        abort();
}

/* Mostly numbers that shapes have, now and then any 64 bits. */
static int64_t take_number(fuzz_bytes *bytes)
{
    static const int64_t usual[] = {1, 2, 4, 8, 16, 64, 100, 128, 256, 300};
    int choice = fuzz_upto(bytes, 15);
    int64_t any;
    if (choice < 10)
        return usual[choice];
    if (choice < 14)
        return fuzz_byte(bytes);
    fuzz_take(bytes, &any, sizeof(any));
    return any;
}

/* Where a tensor's data is: its own place as a rule, so that outputs lie apart. */
static void *take_address(int place, int shape)
{
    if (shape == 33)
        return NULL;
    if (shape == 34)
        return (void *)(uintptr_t)0x1001; /* not aligned */
    if (shape < 56)
        return (void *)(uintptr_t)0x1000; /* the same as others */
    return (void *)((uintptr_t)(place + 1) << 44);
}

static const DLTensor *take_tensor(fuzz_bytes *bytes, fuzz_tensor *all, int place, int usual_ndim)
{
    static const DLDataType types[] = {{kDLFloat, 16, 1}, {kDLBfloat, 16, 1}, {kDLFloat, 32, 1},
                                       {kDLInt, 32, 1},   {kDLUInt, 32, 1},   {kDLUInt, 8, 1},
                                       {kDLFloat, 64, 1}, {kDLFloat, 32, 4}};
    fuzz_tensor *t = &all[place];
    int shape = fuzz_byte(bytes);
    if (shape < 32)
        return NULL;
    t->tensor.data = take_address(place, shape);
    /* One axis less: packed. */
    t->tensor.ndim = shape < 48 ? fuzz_upto(bytes, DIMS) : usual_ndim - (shape % 8 == 7);
    t->tensor.dtype = types[fuzz_upto(bytes, 7)];
    t->tensor.device = (DLDevice){shape == 40 ? kDLCUDA : kDLCPU, 0};
    t->tensor.shape = shape == 41 ? NULL : t->shape;
    t->tensor.strides = shape < 128 ? NULL : t->strides;
    for (int i = 0; i < DIMS; i++)
        t->shape[i] = take_number(bytes);
    for (int i = 0; i < DIMS && t->tensor.strides; i++)
        t->strides[i] = take_number(bytes);
    if (shape == 42)
        fuzz_take(bytes, &t->tensor.byte_offset, sizeof(t->tensor.byte_offset));
    return &t->tensor;
}

static void check_view(const rfa_view *view)
{
    for (int i = 0; i < 3 && view->data; i++)
        require(view->stride[i] >= 0);
}

static void check_problem(const rfa_problem *p, rfa_purpose purpose)
{
    require(p->batch >= 1 && p->heads_q >= 1 && p->heads_kv >= 1);
    require(p->heads_q % p->heads_kv == 0);
    require(p->len_q >= 1 && p->len_k >= 1 && p->len_q <= p->total_q && p->len_k <= p->total_k);
    require(p->dim >= 1 && p->dim <= 256);
    require(p->block_q >= 1 && p->block_k >= 1 && p->visit_q % p->block_q == 0);
    require(p->blocks_q >= 1 && p->blocks_k >= 1 && p->groups >= 1);
    require(p->scale != 0 && isfinite(p->scale));
    require(p->q.data && p->k.data);
    require(purpose == RFA_FOR_VISIT_LIST || (p->v.data && p->out.data && p->dim_v >= 1));
    require(p->keep_key_count <= RFA_MAX_RANGES && p->dense_query_count <= RFA_MAX_RANGES);
    const rfa_view *views[] = {&p->q,   &p->k,      &p->v,         &p->out,          &p->knobs,
                               &p->lse, &p->recall, &p->decisions, &p->list_indices, &p->replay};
    for (size_t i = 0; i < sizeof(views) / sizeof(views[0]); i++)
        check_view(views[i]);
}

static void take_tensors(fuzz_bytes *b, fuzz_tensor *t, rfa_attention_args *a)
{
    a->q = take_tensor(b, t, 0, 4);
    a->k = take_tensor(b, t, 1, 4);
    a->v = take_tensor(b, t, 2, 4);
    a->out = take_tensor(b, t, 3, 4);
    a->cu_seqlens_q = take_tensor(b, t, 4, 1);
    a->cu_seqlens_k = take_tensor(b, t, 5, 1);
    a->knobs = take_tensor(b, t, 6, 2);
    a->list_indices = take_tensor(b, t, 7, 4);
    a->list_counts = take_tensor(b, t, 8, 3);
    a->list_masses = take_tensor(b, t, 9, 4);
    a->lse = take_tensor(b, t, 10, 3);
    a->recall = take_tensor(b, t, 11, 3);
    a->decisions = take_tensor(b, t, 12, 4);
    a->visit_order = take_tensor(b, t, 13, 4);
    a->counts = take_tensor(b, t, 14, 1);
    a->replay = take_tensor(b, t, 15, 4);
}

static void take_numbers(fuzz_bytes *b, rfa_attention_args *a)
{
    int modes[6];
    for (int i = 0; i < 6; i++)
        modes[i] = fuzz_upto(b, 4);
    a->axes = (rfa_axes)modes[0];
    a->mask = (rfa_mask)modes[1];
    a->rule = (rfa_rule)modes[2];
    a->mass = (rfa_mass)modes[3];
    a->knob_form = (rfa_knob_form)modes[4];
    a->order = (rfa_order)modes[5];
    a->scale = fuzz_upto(b, 3) ? 0 : fuzz_float(b);
    a->knob = fuzz_float(b);
    a->block_q = (int32_t)take_number(b);
    a->block_k = (int32_t)take_number(b);
    a->visit_q = (int32_t)take_number(b);
    a->max_len_q = take_number(b);
    a->max_len_k = take_number(b);
    a->flags = (uint32_t)fuzz_upto(b, 3);
}

/* The struct of a newer header, as long as it says it is. */
typedef struct newer_args {
    rfa_attention_args known;
    uint8_t unknown[NEWER];
} newer_args;

static void take_size(fuzz_bytes *b, newer_args *args)
{
    int choice = fuzz_byte(b);
    if (choice >= 8)
        fuzz_take(b, args->unknown, sizeof(args->unknown));
    if (choice >= 4)
        args->known.struct_size = sizeof(args->known) + (size_t)fuzz_upto(b, NEWER);
    else if (choice > 0)
        fuzz_take(b, &args->known.struct_size, 2); /* up to what it was */
    if (args->known.struct_size > sizeof(*args))
        args->known.struct_size = sizeof(*args);
}

static void check_attention(fuzz_bytes *b, newer_args *args, rfa_purpose purpose)
{
    rfa_problem problem;
    rfa_error err = {""};
    take_size(b, args);
    rfa_status status =
        rfa_problem_build(&problem, &args->known, purpose, (DLDevice){kDLCPU, 0}, &err);
    if (status == RFA_OK)
        check_problem(&problem, purpose);
    else
        require(err.text[0] != '\0');
}

static void check_merge(fuzz_bytes *b)
{
    fuzz_tensor t[3 * PARTS + 3] = {0};
    const DLTensor *part[3][PARTS];
    rfa_merge_args args = RFA_MERGE_ARGS_INIT;
    rfa_merge_problem problem;
    rfa_error err = {""};
    args.parts = (size_t)fuzz_upto(b, PARTS);
    args.axes = (rfa_axes)fuzz_upto(b, 2);
    for (int i = 0; i < 3 * PARTS; i++)
        part[i / PARTS][i % PARTS] = take_tensor(b, t, i, i / PARTS == 0 ? 4 : 3);
    args.part_out = part[0];
    args.part_lse = part[1];
    args.part_recall = fuzz_upto(b, 1) ? part[2] : NULL;
    args.out = take_tensor(b, t, 3 * PARTS, 4);
    args.lse = take_tensor(b, t, 3 * PARTS + 1, 3);
    args.recall = take_tensor(b, t, 3 * PARTS + 2, 3);
    rfa_status status = rfa_merge_problem_build(&problem, &args, (DLDevice){kDLCPU, 0}, &err);
    require(status == RFA_OK
                ? problem.batch >= 1 && problem.heads >= 1 && problem.len >= 1 &&
                      problem.dim >= 1 && problem.dim <= RFA_MAX_DIM && problem.out.data
                : err.text[0] != '\0');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_bytes bytes = {data, size};
    fuzz_tensor tensors[TENSORS] = {0};
    rfa_grid grids[2] = {0};
    rfa_range ranges[RFA_MAX_RANGES] = {0};
    newer_args newer = {.known = RFA_ATTENTION_ARGS_INIT};
    rfa_attention_args args = newer.known;
    take_numbers(&bytes, &args);
    take_tensors(&bytes, tensors, &args);
    fuzz_take(&bytes, grids, sizeof(grids));
    fuzz_take(&bytes, ranges, sizeof(ranges));
    args.grids_q = &grids[0];
    args.grids_k = &grids[1];
    args.grid_count = (size_t)fuzz_upto(&bytes, 1);
    args.keep_keys = args.dense_queries = ranges;
    args.keep_key_count = (size_t)fuzz_upto(&bytes, 2);
    args.dense_query_count = (size_t)fuzz_upto(&bytes, RFA_MAX_RANGES + 1);
    if (args.dense_query_count == RFA_MAX_RANGES)
        args.dense_query_count = 0;
    rfa_purpose purpose = fuzz_upto(&bytes, 3) ? RFA_FOR_ATTENTION : RFA_FOR_VISIT_LIST;
    newer.known = args;
    check_attention(&bytes, &newer, purpose);
    if (bytes.size > 0)
        check_merge(&bytes);
    return 0;
}
