#include "conformance/bench.h"

#include <stdlib.h>
#include <string.h>

#include "conformance/element.h"
#include "conformance/layout.h"
#include "conformance/rng.h"

static const char *const tensor_names[BENCH_TENSORS] = {"q",
                                                        "k",
                                                        "v",
                                                        "cu_seqlens_q",
                                                        "cu_seqlens_k",
                                                        "knobs",
                                                        "list_indices",
                                                        "list_counts",
                                                        "list_masses",
                                                        "out",
                                                        "lse",
                                                        "recall",
                                                        "decisions",
                                                        "visit_order",
                                                        "counts"};

static const DLDataType int32_type = {kDLInt, 32, 1}, uint32_type = {kDLUInt, 32, 1},
                        f32_type = {kDLFloat, 32, 1}, byte_type = {kDLUInt, 8, 1};

static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

guarded_layout bench_small_layout(const conformance_case *c, DLDataType type, int32_t ndim,
                                  const int64_t *shape)
{
    guarded_layout layout = {.type = type, .ndim = ndim, .shift = c->shift};
    memcpy(layout.shape, shape, (size_t)ndim * sizeof(*shape));
    guarded_compact(&layout);
    layout.null_strides = !c->padded_rows || ndim == 1;
    for (int32_t i = ndim - 2; !layout.null_strides && i >= 0; i--)
        layout.stride[i] = layout.stride[i + 1] * shape[i + 1] + 2 + i;
    return layout;
}

static bool sensible(const int32_t *cu, int64_t total, int64_t longest, const rfa_grid *grid)
{
    int64_t len = cu[1] - (int64_t)cu[0], tokens = grid->size[0] * grid->size[1] * grid->size[2];
    bool fits = tokens == 0 || grid->offset + tokens <= len;
    return cu[0] >= 0 && len >= 0 && cu[1] <= total && len <= longest && fits;
}

bool bench_owned_row(const conformance_case *c, int64_t row)
{
    for (int64_t i = 0; c->packed && i < c->batch; i++)
        if (row >= c->cu_q[i] && row < c->cu_q[i + 1] &&
            sensible(c->cu_q + i, c->total_q, c->len_q, &c->grids_q[i]) &&
            sensible(c->cu_k + i, c->total_k, c->len_k, &c->grids_k[i]))
            return true;
    return !c->packed;
}

/* ---- inputs ---- */

static void fill_rows(bench *b, int tensor)
{
    const conformance_case *c = b->c;
    bool query = tensor == CASE_Q;
    int64_t batches = c->packed ? 1 : c->batch, heads = query ? c->heads : c->heads_kv;
    int64_t rows = query ? c->total_q : c->total_k;
    int32_t width = tensor == CASE_V ? c->dim_v : c->dim;
    double values[256];
    for (int64_t i = 0; i < batches * heads * rows; i++) {
        int64_t batch = i / rows / heads, head = i / rows % heads, row = i % rows;
        layout_place at = layout_at(c, batch, head, row, 0);
        case_row(c, tensor, batch, head, row, values);
        char *element = guarded_at(&b->t[tensor], at.at[0], at.at[1], at.at[2], at.at[3]);
        for (int32_t d = 0; d < width; d++)
            element_store(c->dtype, element + (size_t)d * element_size(c->dtype), values[d]);
    }
}

static rfa_status open_rows(bench *b, int tensor, rfa_error *err)
{
    guarded_layout layout = layout_of(b->c, tensor);
    rfa_status status = guarded_alloc(&b->t[tensor], b->ctx, &layout, b->c->seed + 1, err);
    if (status != RFA_OK)
        return status;
    fill_rows(b, tensor);
    return guarded_upload(&b->t[tensor], err);
}

static rfa_status open_offsets(bench *b, int tensor, const int32_t *cu, rfa_error *err)
{
    const int64_t shape[1] = {b->c->batch + 1};
    guarded_layout layout = bench_small_layout(b->c, int32_type, 1, shape);
    rfa_status status = guarded_alloc(&b->t[tensor], b->ctx, &layout, b->c->seed + 1, err);
    if (status != RFA_OK)
        return status;
    memcpy(guarded_at(&b->t[tensor], 0, 0, 0, 0), cu, (size_t)shape[0] * sizeof(*cu));
    return guarded_upload(&b->t[tensor], err);
}

static rfa_status open_knobs(bench *b, rfa_error *err)
{
    const int64_t shape[2] = {b->c->batch, b->c->heads};
    guarded_layout layout = bench_small_layout(b->c, f32_type, 2, shape);
    guarded *g = &b->t[BENCH_KNOBS];
    rfa_status status = guarded_alloc(g, b->ctx, &layout, b->c->seed + 1, err);
    if (status != RFA_OK)
        return status;
    for (int64_t batch = 0; batch < shape[0]; batch++)
        for (int64_t head = 0; head < shape[1]; head++) {
            float knob = case_knob(b->c, batch, head);
            memcpy(guarded_at(g, batch, head, 0, 0), &knob, sizeof(knob));
        }
    return guarded_upload(g, err);
}

static void fill_lists(bench *b)
{
    const conformance_case *c = b->c;
    for (int64_t i = 0; i < c->batch * c->heads * b->groups; i++) {
        int64_t group = i % b->groups, head = i / b->groups % c->heads;
        int64_t batch = i / b->groups / c->heads;
        int32_t count = case_list(c, batch, head, group,
                                  guarded_at(&b->t[BENCH_LIST_INDICES], batch, head, group, 0),
                                  guarded_at(&b->t[BENCH_LIST_MASSES], batch, head, group, 0));
        memcpy(guarded_at(&b->t[BENCH_LIST_COUNTS], batch, head, group, 0), &count, sizeof(count));
    }
}

static rfa_status open_lists(bench *b, rfa_error *err)
{
    const conformance_case *c = b->c;
    const int64_t shape[4] = {c->batch, c->heads, b->groups, c->list_capacity};
    guarded_layout indices = bench_small_layout(c, int32_type, 4, shape);
    guarded_layout counts = bench_small_layout(c, int32_type, 3, shape);
    guarded_layout masses = bench_small_layout(c, f32_type, 4, shape);
    guarded *g = b->t;
    rfa_status status = guarded_alloc(&g[BENCH_LIST_INDICES], b->ctx, &indices, c->seed, err);
    if (status == RFA_OK)
        status = guarded_alloc(&g[BENCH_LIST_COUNTS], b->ctx, &counts, c->seed, err);
    if (status == RFA_OK)
        status = guarded_alloc(&g[BENCH_LIST_MASSES], b->ctx, &masses, c->seed, err);
    if (status != RFA_OK)
        return status;
    fill_lists(b);
    for (int i = BENCH_LIST_INDICES; status == RFA_OK && i <= BENCH_LIST_MASSES; i++)
        status = guarded_upload(&g[i], err);
    return status;
}

static rfa_status open_inputs(bench *b, rfa_error *err)
{
    const conformance_case *c = b->c;
    rfa_status status = open_rows(b, CASE_Q, err);
    if (status == RFA_OK)
        status = open_rows(b, CASE_K, err);
    if (status == RFA_OK)
        status = open_rows(b, CASE_V, err);
    if (status == RFA_OK && c->packed)
        status = open_offsets(b, BENCH_CU_Q, c->cu_q, err);
    if (status == RFA_OK && c->packed)
        status = open_offsets(b, BENCH_CU_K, c->cu_k, err);
    if (status == RFA_OK && c->knob_tensor)
        status = open_knobs(b, err);
    if (status == RFA_OK && c->order == RFA_ORDER_LIST)
        status = open_lists(b, err);
    return status;
}

/* ---- outputs ---- */

/* out: only rows of valid sequences may be written. */
static rfa_status open_out(bench *b, rfa_error *err)
{
    const conformance_case *c = b->c;
    guarded *g = &b->t[BENCH_OUT];
    guarded_layout layout = layout_of(c, CASE_OUT);
    rfa_status status = guarded_alloc(g, b->ctx, &layout, 0, err);
    int64_t batches = c->packed ? 1 : c->batch, rows = c->total_q;
    for (int64_t i = 0; status == RFA_OK && i < batches * c->heads * rows; i++)
        for (int64_t d = 0; status == RFA_OK && d < c->dim_v; d++) {
            layout_place p = layout_at(c, i / rows / c->heads, i / rows % c->heads, i % rows, d);
            if (bench_owned_row(c, i % rows))
                status = guarded_open(g, p.at[0], p.at[1], p.at[2], p.at[3], err);
        }
    return status;
}

static rfa_status open_row_output(bench *b, int tensor, rfa_error *err)
{
    const conformance_case *c = b->c;
    const int64_t shape[3] = {c->batch, c->heads, c->total_q}, *own = shape + c->packed;
    guarded_layout layout = bench_small_layout(c, f32_type, c->packed ? 2 : 3, own);
    rfa_status status = guarded_alloc(&b->t[tensor], b->ctx, &layout, 0, err);
    if (status != RFA_OK || !c->packed)
        return status == RFA_OK ? guarded_open_all(&b->t[tensor], err) : status;
    for (int64_t head = 0; status == RFA_OK && head < c->heads; head++)
        for (int64_t row = 0; status == RFA_OK && row < c->total_q; row++)
            if (bench_owned_row(c, row))
                status = guarded_open(&b->t[tensor], head, row, 0, 0, err);
    return status;
}

static rfa_status open_whole_output(bench *b, int tensor, DLDataType type, int32_t ndim,
                                    const int64_t *shape, rfa_error *err)
{
    guarded_layout layout = bench_small_layout(b->c, type, ndim, shape);
    if (tensor == BENCH_COUNTS)
        layout.shift *= 8;
    rfa_status status = guarded_alloc(&b->t[tensor], b->ctx, &layout, 0, err);
    return status == RFA_OK ? guarded_open_all(&b->t[tensor], err) : status;
}

static rfa_status open_outputs(bench *b, rfa_error *err)
{
    const conformance_case *c = b->c;
    const int64_t decisions[4] = {c->batch, c->heads, b->blocks_q, ceil_div(b->blocks_k, 32)};
    const int64_t visits[4] = {c->batch, c->heads, b->groups, b->blocks_k};
    const int64_t counts[1] = {sizeof(rfa_counts)};
    rfa_status status = open_out(b, err);
    if (status == RFA_OK)
        status = open_whole_output(b, BENCH_DECISIONS, uint32_type, 4, decisions, err);
    if (status == RFA_OK && (c->outputs & CASE_LSE))
        status = open_row_output(b, BENCH_LSE, err);
    if (status == RFA_OK && (c->outputs & CASE_RECALL))
        status = open_row_output(b, BENCH_RECALL, err);
    if (status == RFA_OK && (c->outputs & CASE_VISIT_ORDER))
        status = open_whole_output(b, BENCH_VISIT_ORDER, int32_type, 4, visits, err);
    if (status == RFA_OK && (c->outputs & CASE_COUNTS))
        status = open_whole_output(b, BENCH_COUNTS, byte_type, 1, counts, err);
    return status;
}

/* ---- arguments ---- */

/* Each tensor's field in the arguments. */
static void set_tensors(rfa_attention_args *a, const DLTensor *const t[BENCH_TENSORS])
{
    a->q = t[BENCH_Q];
    a->k = t[BENCH_K];
    a->v = t[BENCH_V];
    a->cu_seqlens_q = t[BENCH_CU_Q];
    a->cu_seqlens_k = t[BENCH_CU_K];
    a->knobs = t[BENCH_KNOBS];
    a->list_indices = t[BENCH_LIST_INDICES];
    a->list_counts = t[BENCH_LIST_COUNTS];
    a->list_masses = t[BENCH_LIST_MASSES];
    a->out = t[BENCH_OUT];
    a->lse = t[BENCH_LSE];
    a->recall = t[BENCH_RECALL];
    a->decisions = t[BENCH_DECISIONS];
    a->visit_order = t[BENCH_VISIT_ORDER];
    a->counts = t[BENCH_COUNTS];
}

static void get_tensors(const rfa_attention_args *a, const DLTensor *t[BENCH_TENSORS])
{
    const DLTensor *const own[BENCH_TENSORS] = {a->q,
                                                a->k,
                                                a->v,
                                                a->cu_seqlens_q,
                                                a->cu_seqlens_k,
                                                a->knobs,
                                                a->list_indices,
                                                a->list_counts,
                                                a->list_masses,
                                                a->out,
                                                a->lse,
                                                a->recall,
                                                a->decisions,
                                                a->visit_order,
                                                a->counts};
    memcpy(t, own, sizeof(own));
}

static void set_args(bench *b)
{
    const conformance_case *c = b->c;
    const DLTensor *t[BENCH_TENSORS];
    b->args = (rfa_attention_args)RFA_ATTENTION_ARGS_INIT;
    for (int i = 0; i < BENCH_TENSORS; i++)
        t[i] = b->t[i].tensor.data ? &b->t[i].tensor : NULL;
    if (!c->list_masses)
        t[BENCH_LIST_MASSES] = NULL;
    set_tensors(&b->args, t);
    b->args.axes = c->axes;
    b->args.scale = c->scale;
    b->args.mask = c->mask;
    b->args.max_len_q = c->packed ? c->len_q : 0;
    b->args.max_len_k = c->packed ? c->len_k : 0;
    b->args.rule = c->rule;
    b->args.mass = c->mass;
    b->args.knob_form = c->knob_form;
    b->args.knob = c->knob;
    b->args.order = c->order;
    b->args.block_q = c->block_q;
    b->args.block_k = c->block_k;
    b->args.visit_q = c->visit_q;
    b->args.grids_q = c->grids_q;
    b->args.grids_k = c->grids_k;
    b->args.grid_count = c->grid_count;
    b->args.keep_keys = c->keep_keys;
    b->args.keep_key_count = c->keep_key_count;
    b->args.dense_queries = c->dense_queries;
    b->args.dense_query_count = c->dense_query_count;
    b->args.flags = c->flags;
}

rfa_status bench_open(bench *b, rfa_context *ctx, const conformance_case *c, rfa_error *err)
{
    memset(b, 0, sizeof(*b));
    b->c = c;
    b->ctx = ctx;
    b->blocks_q = ceil_div(c->len_q, case_block_q(c));
    b->blocks_k = ceil_div(c->len_k, case_block_k(c));
    b->groups = ceil_div(c->len_q, case_visit_q(c));
    rfa_status status = open_inputs(b, err);
    if (status == RFA_OK)
        status = open_outputs(b, err);
    if (status == RFA_OK)
        set_args(b);
    return status;
}

void bench_close(bench *b)
{
    for (int i = 0; i < BENCH_TENSORS; i++)
        guarded_free(&b->t[i]);
}

void bench_host_args(const bench *b, const rfa_attention_args *args, bench_host *host)
{
    const DLTensor *t[BENCH_TENSORS];
    host->args = *args;
    get_tensors(args, t);
    for (int i = 0; i < BENCH_TENSORS; i++) {
        if (b->t[i].tensor.data)
            host->t[i] = guarded_host(&b->t[i]);
        t[i] = t[i] ? &host->t[i] : NULL;
    }
    set_tensors(&host->args, t);
    host->args.workspace = NULL;
    host->args.workspace_size = 0;
}

/* ---- a call ---- */

static rfa_status poison_outputs(bench *b, rfa_error *err)
{
    rfa_status status = RFA_OK;
    b->nonce++;
    for (int i = BENCH_OUT; i < BENCH_TENSORS && status == RFA_OK; i++)
        if (b->t[i].tensor.data) {
            guarded_poison(&b->t[i], rng_mix(b->c->seed) + b->nonce);
            status = guarded_upload(&b->t[i], err);
        }
    return status;
}

static rfa_status read_back(bench *b, rfa_error *err)
{
    rfa_status status = RFA_OK;
    char why[128];
    for (int i = 0; i < BENCH_TENSORS && status == RFA_OK; i++) {
        if (!b->t[i].tensor.data)
            continue;
        status = guarded_download(&b->t[i], err);
        if (status == RFA_OK && !guarded_intact(&b->t[i], why, sizeof(why)))
            status = rfa_fail(err, RFA_DEVICE_ERROR, "%s %s", tensor_names[i], why);
    }
    return status;
}

rfa_status bench_attend(bench *b, rfa_context *ctx, const rfa_attention_args *args, rfa_error *err)
{
    rfa_status status = poison_outputs(b, err);
    if (status != RFA_OK)
        return status;
    status = rfa_attention(ctx, args);
    if (status == RFA_OK)
        status = rfa_synchronize(ctx, NULL);
    if (status != RFA_OK)
        return rfa_fail(err, status, "%s: %s", rfa_status_name(status), rfa_last_error(ctx));
    return read_back(b, err);
}

static rfa_status outputs_untouched(bench *b, const char *what, rfa_error *err)
{
    for (int i = BENCH_OUT; i < BENCH_TENSORS; i++) {
        if (!b->t[i].tensor.data)
            continue;
        rfa_status status = guarded_download(&b->t[i], err);
        if (status != RFA_OK)
            return status;
        if (memcmp(b->t[i].seen, b->t[i].image, b->t[i].size) != 0)
            return rfa_fail(err, RFA_DEVICE_ERROR, "%s: refused, yet %s was written", what,
                            tensor_names[i]);
    }
    return RFA_OK;
}

rfa_status bench_refused(bench *b, rfa_context *ctx, const rfa_attention_args *args,
                         rfa_status expected, const char *what, rfa_error *err)
{
    rfa_status status = poison_outputs(b, err);
    if (status != RFA_OK)
        return status;
    rfa_status answer = rfa_attention(ctx, args);
    if (answer != expected)
        return rfa_fail(err, RFA_DEVICE_ERROR, "%s: the answer is \"%s\", expected \"%s\"", what,
                        rfa_status_name(answer), rfa_status_name(expected));
    return outputs_untouched(b, what, err);
}

rfa_status bench_workspace(bench *b, rfa_attention_args *args, guarded *workspace, rfa_error *err)
{
    size_t size = 0;
    memset(workspace, 0, sizeof(*workspace));
    rfa_status status = rfa_workspace_size(b->ctx, args, &size);
    if (status != RFA_OK)
        return rfa_fail(err, status, "rfa_workspace_size: %s", rfa_last_error(b->ctx));
    if (size == 0)
        return RFA_OK;
    bool handle = rfa_context_device(b->ctx).device_type == kDLOpenCL;
    guarded_layout layout = {.type = byte_type, .ndim = 1, .null_strides = true};
    layout.shape[0] = (int64_t)size;
    layout.stride[0] = 1;
    layout.bare_front = handle;
    status = guarded_alloc(workspace, b->ctx, &layout, b->c->seed, err);
    if (status == RFA_OK)
        status = guarded_open_all(workspace, err);
    if (status == RFA_OK)
        status = guarded_upload(workspace, err);
    args->workspace = (char *)workspace->tensor.data + (handle ? 0 : workspace->first);
    args->workspace_size = size;
    return status;
}

/* ---- snapshots ---- */

rfa_status bench_save(const bench *b, bench_snapshot *snapshot, rfa_error *err)
{
    memset(snapshot, 0, sizeof(*snapshot));
    for (int i = BENCH_OUT; i < BENCH_TENSORS; i++) {
        if (!b->t[i].tensor.data)
            continue;
        snapshot->seen[i] = malloc(b->t[i].size);
        if (!snapshot->seen[i])
            return rfa_fail(err, RFA_OUT_OF_MEMORY, "no host memory for a snapshot");
        memcpy(snapshot->seen[i], b->t[i].seen, b->t[i].size);
    }
    return RFA_OK;
}

void bench_forget(bench_snapshot *snapshot)
{
    for (int i = 0; i < BENCH_TENSORS; i++)
        free(snapshot->seen[i]);
    memset(snapshot, 0, sizeof(*snapshot));
}

rfa_status bench_same(const bench *b, const bench_snapshot *snapshot, unsigned which,
                      const char *what, rfa_error *err)
{
    char why[128];
    for (int i = BENCH_OUT; i < BENCH_TENSORS; i++)
        if ((which & BENCH_BIT(i)) && b->t[i].tensor.data &&
            !guarded_same(&b->t[i], snapshot->seen[i], why, sizeof(why)))
            return rfa_fail(err, RFA_DEVICE_ERROR, "%s: %s %s", what, tensor_names[i], why);
    return RFA_OK;
}
