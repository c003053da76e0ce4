/* The argument checks: whatever the struct holds, a status with a sentence; and
 * what is taken keeps the promises of rfa_problem. No tensor's data is read. */
#include <math.h>
#include <stdlib.h>

#include "fuzz/bytes.h"
#include "src/problem.h"

enum { TENSORS = 16, DIMS = 5 };

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

static const DLTensor *take_tensor(fuzz_bytes *bytes, fuzz_tensor *t, int usual_ndim)
{
    static const DLDataType types[] = {{kDLFloat, 16, 1}, {kDLBfloat, 16, 1}, {kDLFloat, 32, 1},
                                       {kDLInt, 32, 1},   {kDLUInt, 32, 1},   {kDLUInt, 8, 1},
                                       {kDLFloat, 64, 1}, {kDLFloat, 32, 4}};
    int shape = fuzz_byte(bytes);
    if (shape < 32)
        return NULL;
    t->tensor.data = shape == 33 ? NULL : (void *)(uintptr_t)(shape == 34 ? 0x1001 : 0x1000);
    t->tensor.ndim = shape < 48 ? fuzz_upto(bytes, DIMS) : usual_ndim;
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
    a->q = take_tensor(b, &t[0], 4);
    a->k = take_tensor(b, &t[1], 4);
    a->v = take_tensor(b, &t[2], 4);
    a->out = take_tensor(b, &t[3], 4);
    a->cu_seqlens_q = take_tensor(b, &t[4], 1);
    a->cu_seqlens_k = take_tensor(b, &t[5], 1);
    a->knobs = take_tensor(b, &t[6], 2);
    a->list_indices = take_tensor(b, &t[7], 4);
    a->list_counts = take_tensor(b, &t[8], 3);
    a->list_masses = take_tensor(b, &t[9], 4);
    a->lse = take_tensor(b, &t[10], 3);
    a->recall = take_tensor(b, &t[11], 3);
    a->decisions = take_tensor(b, &t[12], 4);
    a->visit_order = take_tensor(b, &t[13], 4);
    a->counts = take_tensor(b, &t[14], 1);
    a->replay = take_tensor(b, &t[15], 4);
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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_bytes bytes = {data, size};
    fuzz_tensor tensors[TENSORS] = {0};
    rfa_grid grids[2] = {0};
    rfa_range ranges[RFA_MAX_RANGES] = {0};
    rfa_attention_args args = RFA_ATTENTION_ARGS_INIT;
    rfa_problem problem;
    rfa_error err = {""};
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
    rfa_status status = rfa_problem_build(&problem, &args, purpose, (DLDevice){kDLCPU, 0}, &err);
    if (status == RFA_OK)
        check_problem(&problem, purpose);
    else
        require(err.text[0] != '\0');
    return 0;
}
