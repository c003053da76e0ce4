/* Checks the caller's arguments once and turns them into one plain problem. */
#include "src/problem.h"

#include <math.h>
#include <string.h>

#include "backends/skip_rule.h"
#include "src/overlap.h"
#include "src/struct.h"
#include "src/tensor.h"

/* Visit distances are exact in 64 bits up to here. */
#define MAX_LEN ((int64_t)1 << 30)
#define MAX_BLOCK 4096
#define MAX_VISIT_Q 65536

static int64_t ceil_div(int64_t a, int64_t b)
{
    return a / b + (a % b != 0);
}

static rfa_status check_enum(int value, int last, const char *name, rfa_error *err)
{
    if (value < 0 || value > last)
        return rfa_fail(err, RFA_INVALID_ARGUMENT, "%s is %d, expected 0 to %d", name, value, last);
    return RFA_OK;
}

/* ---- the struct and its enums ---- */

static const rfa_struct_spec args_spec = {"args", "RFA_ATTENTION_ARGS_INIT",
                                          RFA_SIZE_THROUGH(rfa_attention_args, workspace_size),
                                          sizeof(rfa_attention_args)};

static rfa_status check_enums(const rfa_attention_args *a, rfa_error *err)
{
    const struct {
        int value, last;
        const char *name;
    } fields[] = {{(int)a->axes, RFA_AXES_BHSD, "axes"},
                  {(int)a->mask, RFA_MASK_CAUSAL, "mask"},
                  {(int)a->rule, RFA_RULE_RECALL, "rule"},
                  {(int)a->mass, RFA_MASS_ESTIMATED, "mass"},
                  {(int)a->knob_form, RFA_KNOB_SCALED, "knob_form"},
                  {(int)a->order, RFA_ORDER_LIST, "order"}};
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        rfa_status status = check_enum(fields[i].value, fields[i].last, fields[i].name, err);
        if (status != RFA_OK)
            return status;
    }
    if (a->flags & ~RFA_FLAG_TRACK_RECALL)
        return rfa_fail(err, RFA_UNSUPPORTED, "flags has bits that this version does not know: %#x",
                        (unsigned)a->flags);
    return RFA_OK;
}

/* ---- q, k, v, out ---- */

typedef struct axis_places {
    int ndim, batch, row, head, dim;
} axis_places;

static axis_places places_of(rfa_axes axes, bool packed)
{
    if (packed)
        return (axis_places){3, -1, 0, 1, 2};
    if (axes == RFA_AXES_BHSD)
        return (axis_places){4, 0, 2, 1, 3};
    return (axis_places){4, 0, 1, 2, 3};
}

/* Checks one of q, k, v, out against the lengths it must have (-1: any). */
static rfa_status take_rows(const DLTensor *t, const char *name, rfa_dtype dtype, axis_places at,
                            int64_t batch, int64_t rows, int64_t heads, int64_t dim, bool written,
                            DLDevice device, rfa_view *view, rfa_error *err)
{
    rfa_tensor_spec spec = rfa_tensor_spec_of(name, dtype, at.ndim);
    if (at.batch >= 0)
        spec.shape[at.batch] = batch;
    spec.shape[at.row] = rows;
    spec.shape[at.head] = heads;
    spec.shape[at.dim] = dim;
    spec.written = written;
    rfa_status status = rfa_tensor_check(t, &spec, device, err);
    if (status == RFA_OK)
        *view = rfa_tensor_view(t, at.batch, at.head, at.row);
    return status;
}

static rfa_status check_dim(const char *name, int64_t dim, rfa_error *err)
{
    if (dim > RFA_MAX_DIM)
        return rfa_fail(err, RFA_UNSUPPORTED, "%s has head dim %lld, at most %d is supported", name,
                        (long long)dim, RFA_MAX_DIM);
    return RFA_OK;
}

static rfa_status check_lengths(const rfa_problem *p, rfa_error *err)
{
    if (p->total_q > MAX_LEN || p->total_k > MAX_LEN)
        return rfa_fail(err, RFA_UNSUPPORTED,
                        "lengths are %lld and %lld, at most 2^30 is supported",
                        (long long)p->total_q, (long long)p->total_k);
    if (p->heads_q % p->heads_kv != 0)
        return rfa_fail(err, RFA_INVALID_ARGUMENT,
                        "q has %lld heads, which is no multiple of k's %lld", (long long)p->heads_q,
                        (long long)p->heads_kv);
    return RFA_OK;
}

static rfa_status take_q_and_k(rfa_problem *p, const rfa_attention_args *a, axis_places at,
                               DLDevice device, rfa_error *err)
{
    rfa_status status = rfa_tensor_dtype(a->q, "q", &p->dtype, err);
    if (status == RFA_OK)
        status = take_rows(a->q, "q", p->dtype, at, -1, -1, -1, -1, false, device, &p->q, err);
    if (status == RFA_OK)
        status = check_dim("q", a->q->shape[at.dim], err);
    if (status != RFA_OK)
        return status;
    p->batch = p->packed ? 1 : a->q->shape[at.batch];
    p->total_q = p->len_q = a->q->shape[at.row];
    p->heads_q = a->q->shape[at.head];
    p->dim = (int32_t)a->q->shape[at.dim];
    status =
        take_rows(a->k, "k", p->dtype, at, p->batch, -1, -1, p->dim, false, device, &p->k, err);
    if (status != RFA_OK)
        return status;
    p->total_k = p->len_k = a->k->shape[at.row];
    p->heads_kv = a->k->shape[at.head];
    return check_lengths(p, err);
}

static rfa_status take_v_and_out(rfa_problem *p, const rfa_attention_args *a, axis_places at,
                                 DLDevice device, rfa_error *err)
{
    rfa_status status = take_rows(a->v, "v", p->dtype, at, p->batch, p->total_k, p->heads_kv, -1,
                                  false, device, &p->v, err);
    if (status == RFA_OK)
        status = check_dim("v", a->v->shape[at.dim], err);
    if (status == RFA_OK)
        status = rfa_tensor_dtype(a->out, "out", &p->out_dtype, err);
    if (status != RFA_OK)
        return status;
    p->dim_v = (int32_t)a->v->shape[at.dim];
    if (p->out_dtype != p->dtype && p->out_dtype != RFA_F32)
        return rfa_fail(err, RFA_INVALID_ARGUMENT, "out must have the dtype of q, or f32");
    return take_rows(a->out, "out", p->out_dtype, at, p->batch, p->total_q, p->heads_q, p->dim_v,
                     true, device, &p->out, err);
}

/* ---- packed sequences ---- */

static rfa_status take_offsets(const DLTensor *t, const char *name, int64_t entries,
                               DLDevice device, rfa_view *view, rfa_error *err)
{
    rfa_tensor_spec spec = {.name = name, .code = kDLInt, .bits = 32, .ndim = 1};
    spec.shape[0] = entries;
    rfa_status status = rfa_tensor_check(t, &spec, device, err);
    if (status == RFA_OK)
        *view = rfa_tensor_view(t, -1, -1, 0);
    return status;
}

static rfa_status take_max_len(int64_t given, int64_t total, const char *name, int64_t *len,
                               rfa_error *err)
{
    if (given < 1 || given > total)
        return rfa_fail(err, RFA_INVALID_ARGUMENT, "%s is %lld, expected 1 to %lld", name,
                        (long long)given, (long long)total);
    *len = given;
    return RFA_OK;
}

static rfa_status take_packs(rfa_problem *p, const rfa_attention_args *a, DLDevice device,
                             rfa_error *err)
{
    if (!p->packed)
        return RFA_OK;
    if (!a->cu_seqlens_q || !a->cu_seqlens_k)
        return rfa_fail(err, RFA_INVALID_ARGUMENT, "%s is NULL, the other one is given",
                        a->cu_seqlens_q ? "cu_seqlens_k" : "cu_seqlens_q");
    rfa_status status = take_offsets(a->cu_seqlens_q, "cu_seqlens_q", -1, device, &p->cu_q, err);
    if (status != RFA_OK)
        return status;
    int64_t entries = a->cu_seqlens_q->shape[0];
    if (entries < 2)
        return rfa_fail(err, RFA_INVALID_ARGUMENT,
                        "cu_seqlens_q has %lld entries, expected 2 or more", (long long)entries);
    p->batch = entries - 1;
    status = take_offsets(a->cu_seqlens_k, "cu_seqlens_k", entries, device, &p->cu_k, err);
    if (status == RFA_OK)
        status = take_max_len(a->max_len_q, p->total_q, "max_len_q", &p->len_q, err);
    if (status == RFA_OK)
        status = take_max_len(a->max_len_k, p->total_k, "max_len_k", &p->len_k, err);
    return status;
}

/* ---- scale, rule, blocks ---- */

static rfa_status take_scale(rfa_problem *p, const rfa_attention_args *a, rfa_error *err)
{
    if (!isfinite(a->scale))
        return rfa_fail(err, RFA_INVALID_ARGUMENT, "scale is %g", (double)a->scale);
    p->scale = a->scale != 0 ? a->scale : 1.0f / sqrtf((float)p->dim);
    p->causal = a->mask == RFA_MASK_CAUSAL;
    return RFA_OK;
}

static rfa_status check_knob(const rfa_attention_args *a, rfa_error *err)
{
    static const char *const names[4][2] = {{"", ""},
                                            {"lambda in [0, 1]", "a scale factor >= 0"},
                                            {"log_lambda <= 0", "a lost mass in [0, 1]"},
                                            {"a recall in (0, 1]", ""}};
    bool scaled = a->knob_form == RFA_KNOB_SCALED;
    if (a->rule == RFA_RULE_RECALL && scaled)
        return rfa_fail(err, RFA_INVALID_ARGUMENT, "knob_form: rule recall has no scaled knob");
    if (a->rule != RFA_RULE_RECALL && a->mass != RFA_MASS_EXACT)
        return rfa_fail(err, RFA_INVALID_ARGUMENT, "mass: estimated masses are for rule recall");
    if (!a->knobs && !rfa_knob_valid((int)a->rule, scaled, a->knob))
        return rfa_fail(err, RFA_INVALID_ARGUMENT, "knob is %g, this rule takes %s",
                        (double)a->knob, names[a->rule][scaled]);
    return RFA_OK;
}

static rfa_status take_rule(rfa_problem *p, const rfa_attention_args *a, DLDevice device,
                            rfa_error *err)
{
    rfa_status status = check_knob(a, err);
    if (status != RFA_OK)
        return status;
    p->rule = a->rule;
    p->mass = a->mass;
    p->knob_scaled = a->knob_form == RFA_KNOB_SCALED;
    p->knob = a->knob;
    p->track_recall = a->rule == RFA_RULE_DENSE || a->rule == RFA_RULE_RECALL || a->recall ||
                      (a->flags & RFA_FLAG_TRACK_RECALL);
    if (!a->knobs || a->rule == RFA_RULE_DENSE)
        return RFA_OK;
    rfa_tensor_spec spec = rfa_tensor_spec_of("knobs", RFA_F32, 2);
    spec.shape[0] = p->batch;
    spec.shape[1] = p->heads_q;
    status = rfa_tensor_check(a->knobs, &spec, device, err);
    if (status == RFA_OK)
        p->knobs = rfa_tensor_view(a->knobs, 0, 1, -1);
    return status;
}

static rfa_status take_blocks(rfa_problem *p, const rfa_attention_args *a, rfa_error *err)
{
    p->block_q = a->block_q ? a->block_q : 64;
    p->block_k = a->block_k ? a->block_k : 128;
    if (p->block_q < 1 || p->block_q > MAX_BLOCK || p->block_k < 1 || p->block_k > MAX_BLOCK)
        return rfa_fail(err, RFA_INVALID_ARGUMENT, "blocks are %d x %d, expected 1 to %d each",
                        (int)p->block_q, (int)p->block_k, MAX_BLOCK);
    p->visit_q = a->visit_q ? a->visit_q : rfa_default_visit_q(p->block_q);
    if (p->visit_q < p->block_q || p->visit_q % p->block_q != 0 || p->visit_q > MAX_VISIT_Q)
        return rfa_fail(err, RFA_INVALID_ARGUMENT,
                        "visit_q is %d, expected a multiple of block_q = %d up to %d",
                        (int)p->visit_q, (int)p->block_q, MAX_VISIT_Q);
    p->blocks_q = ceil_div(p->len_q, p->block_q);
    p->blocks_k = ceil_div(p->len_k, p->block_k);
    p->groups = ceil_div(p->len_q, p->visit_q);
    return RFA_OK;
}

/* ---- visit order ---- */

static rfa_status check_predicted(const rfa_problem *p, rfa_error *err)
{
    if (p->visit_q % RFA_POOL_ROWS != 0 || p->block_k % RFA_POOL_ROWS != 0)
        return rfa_fail(err, RFA_INVALID_ARGUMENT,
                        "predicted order needs visit_q and block_k that are multiples of %d, they "
                        "are %d and %d",
                        RFA_POOL_ROWS, (int)p->visit_q, (int)p->block_k);
    return RFA_OK;
}

static rfa_status take_list(rfa_problem *p, const rfa_attention_args *a, bool written,
                            DLDevice device, rfa_error *err)
{
    rfa_tensor_spec indices = {.name = "list_indices", .code = kDLInt, .bits = 32, .ndim = 4};
    indices.written = written;
    const int64_t shape[4] = {p->batch, p->heads_q, p->groups, -1};
    memcpy(indices.shape, shape, sizeof(shape));
    rfa_status status = rfa_tensor_check(a->list_indices, &indices, device, err);
    if (status != RFA_OK)
        return status;
    p->list_indices = rfa_tensor_view(a->list_indices, 0, 1, 2);
    p->list_capacity = a->list_indices->shape[3];
    if (written && p->list_capacity < p->blocks_k)
        return rfa_fail(err, RFA_INVALID_ARGUMENT,
                        "list_indices has room for %lld key blocks, there are %lld",
                        (long long)p->list_capacity, (long long)p->blocks_k);
    rfa_tensor_spec counts = indices;
    counts.name = "list_counts";
    counts.ndim = 3;
    status = rfa_tensor_check(a->list_counts, &counts, device, err);
    if (status != RFA_OK)
        return status;
    p->list_counts = rfa_tensor_view(a->list_counts, 0, 1, 2);
    if (!a->list_masses)
        return RFA_OK;
    rfa_tensor_spec masses = rfa_tensor_spec_of("list_masses", RFA_F32, 4);
    masses.written = written;
    memcpy(masses.shape, shape, sizeof(shape));
    masses.shape[3] = p->list_capacity;
    status = rfa_tensor_check(a->list_masses, &masses, device, err);
    if (status == RFA_OK)
        p->list_masses = rfa_tensor_view(a->list_masses, 0, 1, 2);
    return status;
}

static rfa_status take_order(rfa_problem *p, const rfa_attention_args *a, rfa_purpose purpose,
                             DLDevice device, rfa_error *err)
{
    p->order = purpose == RFA_FOR_VISIT_LIST ? RFA_ORDER_PREDICTED : a->order;
    if (p->order == RFA_ORDER_PREDICTED) {
        rfa_status status = check_predicted(p, err);
        if (status != RFA_OK)
            return status;
    }
    if (purpose == RFA_FOR_VISIT_LIST || p->order == RFA_ORDER_LIST)
        return take_list(p, a, purpose == RFA_FOR_VISIT_LIST, device, err);
    return RFA_OK;
}

/* ---- grids and ranges ---- */

static rfa_status check_grid(const rfa_grid *grid, int64_t len, const char *name, size_t index,
                             rfa_error *err)
{
    int64_t tokens = 1, end;
    int empty = 0;
    for (int i = 0; i < 3; i++) {
        if (grid->size[i] < 0 || grid->cube[i] < 0 || grid->offset < 0)
            return rfa_fail(err, RFA_INVALID_ARGUMENT, "%s[%zu] has a negative number", name,
                            index);
        empty += grid->size[i] == 0;
        if (__builtin_mul_overflow(tokens, grid->size[i], &tokens) || grid->cube[i] > MAX_LEN)
            return rfa_fail(err, RFA_INVALID_ARGUMENT, "%s[%zu] is too large", name, index);
    }
    if (empty == 3)
        return RFA_OK;
    if (empty > 0)
        return rfa_fail(err, RFA_INVALID_ARGUMENT, "%s[%zu] is %lld x %lld x %lld", name, index,
                        (long long)grid->size[0], (long long)grid->size[1],
                        (long long)grid->size[2]);
    if (__builtin_add_overflow(tokens, grid->offset, &end) || end > len)
        return rfa_fail(err, RFA_INVALID_ARGUMENT,
                        "%s[%zu] ends at token %lld of a sequence of %lld", name, index,
                        (long long)end, (long long)len);
    return RFA_OK;
}

static rfa_status take_grids(rfa_problem *p, const rfa_attention_args *a, rfa_error *err)
{
    if (a->grid_count == 0)
        return RFA_OK;
    if (a->grid_count != 1 && !(p->packed && a->grid_count == (size_t)p->batch))
        return rfa_fail(err, RFA_INVALID_ARGUMENT,
                        "grid_count is %zu, expected 0, 1, or the number of packed sequences",
                        a->grid_count);
    if (!a->grids_q || !a->grids_k)
        return rfa_fail(err, RFA_INVALID_ARGUMENT, "%s is NULL though grid_count is %zu",
                        a->grids_q ? "grids_k" : "grids_q", a->grid_count);
    if (p->causal)
        return rfa_fail(err, RFA_UNSUPPORTED, "a grid cannot be used with the causal mask");
    for (size_t i = 0; i < a->grid_count; i++) {
        rfa_status status = check_grid(&a->grids_q[i], p->len_q, "grids_q", i, err);
        if (status == RFA_OK)
            status = check_grid(&a->grids_k[i], p->len_k, "grids_k", i, err);
        if (status != RFA_OK)
            return status;
    }
    p->grids_q = a->grids_q;
    p->grids_k = a->grids_k;
    p->grid_count = a->grid_count;
    return RFA_OK;
}

static rfa_status take_ranges(const rfa_range *ranges, size_t count, int64_t len, const char *name,
                              rfa_range *own, int32_t *own_count, rfa_error *err)
{
    if (count > RFA_MAX_RANGES)
        return rfa_fail(err, RFA_INVALID_ARGUMENT, "%s has %zu ranges, at most %d are taken", name,
                        count, RFA_MAX_RANGES);
    if (count > 0 && !ranges)
        return rfa_fail(err, RFA_INVALID_ARGUMENT, "%s is NULL though its count is %zu", name,
                        count);
    for (size_t i = 0; i < count; i++) {
        if (ranges[i].begin < 0 || ranges[i].begin >= ranges[i].end || ranges[i].end > len)
            return rfa_fail(err, RFA_INVALID_ARGUMENT,
                            "%s[%zu] is %lld to %lld, expected a range within 0 to %lld", name, i,
                            (long long)ranges[i].begin, (long long)ranges[i].end, (long long)len);
        own[i] = ranges[i];
    }
    *own_count = (int32_t)count;
    return RFA_OK;
}

/* ---- outputs ---- */

/* lse and recall: (batch, heads, rows), or (heads, rows) packed. */
static rfa_status take_row_output(const rfa_problem *p, const DLTensor *t, const char *name,
                                  DLDevice device, rfa_view *view, rfa_error *err)
{
    if (!t)
        return RFA_OK;
    rfa_tensor_spec spec = rfa_tensor_spec_of(name, RFA_F32, p->packed ? 2 : 3);
    int at = 0;
    if (!p->packed)
        spec.shape[at++] = p->batch;
    spec.shape[at++] = p->heads_q;
    spec.shape[at] = p->total_q;
    spec.written = true;
    rfa_status status = rfa_tensor_check(t, &spec, device, err);
    if (status != RFA_OK)
        return status;
    *view = rfa_tensor_view(t, p->packed ? -1 : 0, at - 1, -1);
    view->stride[2] = 1;
    return RFA_OK;
}

static rfa_status take_block_output(const rfa_problem *p, const DLTensor *t, const char *name,
                                    DLDataTypeCode code, int64_t rows, int64_t row_length,
                                    bool written, DLDevice device, rfa_view *view, rfa_error *err)
{
    if (!t)
        return RFA_OK;
    rfa_tensor_spec spec = {.name = name, .code = code, .bits = 32, .ndim = 4, .written = written};
    const int64_t shape[4] = {p->batch, p->heads_q, rows, row_length};
    memcpy(spec.shape, shape, sizeof(shape));
    rfa_status status = rfa_tensor_check(t, &spec, device, err);
    if (status == RFA_OK)
        *view = rfa_tensor_view(t, 0, 1, 2);
    return status;
}

static rfa_status take_counts(const DLTensor *t, DLDevice device, rfa_view *view, rfa_error *err)
{
    if (!t)
        return RFA_OK;
    rfa_tensor_spec spec = {.name = "counts", .code = kDLUInt, .bits = 8, .ndim = 1};
    spec.shape[0] = -1; /* a newer header's may be longer */
    spec.written = true;
    rfa_status status = rfa_tensor_check(t, &spec, device, err);
    if (status != RFA_OK)
        return status;
    if (t->shape[0] < (int64_t)sizeof(rfa_counts))
        return rfa_fail(err, RFA_INVALID_ARGUMENT, "counts has length %lld, expected %zu or more",
                        (long long)t->shape[0], sizeof(rfa_counts));
    uint64_t at = t->byte_offset;
    if (device.device_type != kDLOpenCL)
        at += (uintptr_t)t->data;
    if (at % 8 != 0)
        return rfa_fail(err, RFA_INVALID_ARGUMENT, "counts is not aligned to 8 bytes");
    *view = rfa_tensor_view(t, -1, -1, -1);
    return RFA_OK;
}

static rfa_status take_outputs(rfa_problem *p, const rfa_attention_args *a, DLDevice device,
                               rfa_error *err)
{
    int64_t words = ceil_div(p->blocks_k, 32);
    rfa_status status = take_row_output(p, a->lse, "lse", device, &p->lse, err);
    if (status == RFA_OK)
        status = take_row_output(p, a->recall, "recall", device, &p->recall, err);
    if (status == RFA_OK)
        status = take_block_output(p, a->decisions, "decisions", kDLUInt, p->blocks_q, words, true,
                                   device, &p->decisions, err);
    if (status == RFA_OK)
        status = take_block_output(p, a->replay, "replay", kDLUInt, p->blocks_q, words, false,
                                   device, &p->replay, err);
    if (status == RFA_OK)
        status = take_block_output(p, a->visit_order, "visit_order", kDLInt, p->groups, p->blocks_k,
                                   true, device, &p->visit_order, err);
    if (status == RFA_OK)
        status = take_counts(a->counts, device, &p->counts, err);
    return status;
}

/* ---- no output over another tensor ---- */

static rfa_status check_attention_overlap(const rfa_problem *p, const rfa_attention_args *a,
                                          DLDevice device, rfa_error *err)
{
    rfa_extents e;
    rfa_extents_start(&e, device);
    rfa_extents_add_output(&e, a->out, "out", NULL);
    rfa_extents_add_output(&e, a->lse, "lse", NULL);
    rfa_extents_add_output(&e, a->recall, "recall", NULL);
    rfa_extents_add_output(&e, a->decisions, "decisions", NULL);
    rfa_extents_add_output(&e, a->visit_order, "visit_order", NULL);
    rfa_extents_add_output(&e, a->counts, "counts", NULL);
    rfa_extents_add_input(&e, a->q, "q", -1);
    rfa_extents_add_input(&e, a->k, "k", -1);
    rfa_extents_add_input(&e, a->v, "v", -1);
    rfa_extents_add_input(&e, a->cu_seqlens_q, "cu_seqlens_q", -1);
    rfa_extents_add_input(&e, a->cu_seqlens_k, "cu_seqlens_k", -1);
    rfa_extents_add_input(&e, a->replay, "replay", -1);
    if (p->knobs.data) /* without, what is given was not looked at */
        rfa_extents_add_input(&e, a->knobs, "knobs", -1);
    if (p->order == RFA_ORDER_LIST) {
        rfa_extents_add_input(&e, a->list_indices, "list_indices", -1);
        rfa_extents_add_input(&e, a->list_counts, "list_counts", -1);
        rfa_extents_add_input(&e, a->list_masses, "list_masses", -1);
    }
    return rfa_extents_check(&e, err);
}

static rfa_status check_list_overlap(const rfa_attention_args *a, DLDevice device, rfa_error *err)
{
    rfa_extents e;
    rfa_extents_start(&e, device);
    rfa_extents_add_output(&e, a->list_indices, "list_indices", NULL);
    rfa_extents_add_output(&e, a->list_counts, "list_counts", NULL);
    rfa_extents_add_output(&e, a->list_masses, "list_masses", NULL);
    rfa_extents_add_input(&e, a->q, "q", -1);
    rfa_extents_add_input(&e, a->k, "k", -1);
    rfa_extents_add_input(&e, a->cu_seqlens_q, "cu_seqlens_q", -1);
    rfa_extents_add_input(&e, a->cu_seqlens_k, "cu_seqlens_k", -1);
    return rfa_extents_check(&e, err);
}

/* ---- all of it ---- */

static rfa_status build(rfa_problem *p, const rfa_attention_args *a, rfa_purpose purpose,
                        DLDevice device, rfa_error *err)
{
    p->packed = a->cu_seqlens_q || a->cu_seqlens_k;
    p->stream = a->stream;
    axis_places at = places_of(a->axes, p->packed);
    bool attention = purpose == RFA_FOR_ATTENTION;
    rfa_status status = check_enums(a, err);
    if (status == RFA_OK)
        status = take_q_and_k(p, a, at, device, err);
    if (status == RFA_OK && attention)
        status = take_v_and_out(p, a, at, device, err);
    if (status == RFA_OK)
        status = take_packs(p, a, device, err);
    if (status == RFA_OK)
        status = take_scale(p, a, err);
    if (status == RFA_OK && attention)
        status = take_rule(p, a, device, err);
    if (status == RFA_OK)
        status = take_blocks(p, a, err);
    if (status == RFA_OK)
        status = take_order(p, a, purpose, device, err);
    if (status == RFA_OK)
        status = take_grids(p, a, err);
    if (status == RFA_OK)
        status = take_ranges(a->keep_keys, a->keep_key_count, p->len_k, "keep_keys", p->keep_keys,
                             &p->keep_key_count, err);
    if (status == RFA_OK)
        status = take_ranges(a->dense_queries, a->dense_query_count, p->len_q, "dense_queries",
                             p->dense_queries, &p->dense_query_count, err);
    if (status == RFA_OK && attention)
        status = take_outputs(p, a, device, err);
    if (status != RFA_OK)
        return status;
    return attention ? check_attention_overlap(p, a, device, err)
                     : check_list_overlap(a, device, err);
}

rfa_status rfa_problem_build(rfa_problem *p, const rfa_attention_args *args, rfa_purpose purpose,
                             DLDevice device, rfa_error *err)
{
    rfa_attention_args own;
    memset(p, 0, sizeof(*p));
    rfa_status status = rfa_struct_take(&args_spec, args, &own, err);
    return status == RFA_OK ? build(p, &own, purpose, device, err) : status;
}
