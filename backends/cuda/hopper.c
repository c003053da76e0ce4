/* Starts the Hopper kernels: which problems they take, and what they are given
 * (hopper/params.h). */
#include <math.h>
#include <string.h>

#include "backends/skip_rule.h"
#include "cuda_backend.h"
#include "hopper/params.h"

bool cuda_hopper_takes(const cuda_variant *v, const cuda_state *state, const rfa_problem *p)
{
    const int64_t most = INT32_MAX - v->rows - HOPPER_BLOCK_K; /* coordinates of tensor maps */
    size_t shared = HOPPER_SHARED_BYTES(v->width, v->rows / HOPPER_BLOCK_Q);
    return shared <= (size_t)state->shared_memory && cuda_is_common(v, p) &&
           v->varied == (p->causal || p->packed) && p->total_q <= most && p->total_k <= most;
}

/* ---- What they are given --------------------------------------------------------------------- */

/* Strides are whole 16 bytes already. */
bool cuda_map_fits(const cuda_rows *rows, int64_t batch, int64_t heads, int64_t count)
{
    const int64_t extent[3] = {batch, heads, count}, most = (int64_t)1 << 39;
    bool fits = true;
    for (int i = 0; i < 3; i++)
        fits &= extent[i] <= 1 || (rows->stride[i] > 0 && rows->stride[i] < most);
    return fits;
}

/* A dimension of one row, head or batch entry may have any stride: its own may not fit. */
static cuuint64_t map_stride(int64_t stride, int64_t extent)
{
    return extent <= 1 ? 16 : 2 * (cuuint64_t)stride;
}

/* Dimensions are (element, row, head, batch); a box holds 64 rows of 64 elements. */
static rfa_status encode_map(CUtensorMap *map, const cuda_driver *driver, const cuda_call *c,
                             const cuda_rows *rows, int32_t dim, int64_t count, int64_t heads,
                             rfa_error *err)
{
    const int64_t batch = c->packed ? 1 : c->batch;
    const cuuint64_t sizes[4] = {(cuuint64_t)dim, (cuuint64_t)count, (cuuint64_t)heads,
                                 (cuuint64_t)batch};
    const cuuint64_t strides[3] = {map_stride(rows->stride[2], count),
                                   map_stride(rows->stride[1], heads),
                                   map_stride(rows->stride[0], batch)};
    const cuuint32_t boxes[4] = {64, 64, 1, 1}, steps[4] = {1, 1, 1, 1};
    CUtensorMapDataType type =
        c->dtype == CUDA_BF16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16;
    CUresult result = driver->TensorMapEncodeTiled(
        map, type, 4, rows->data, sizes, strides, boxes, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
        CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
        CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    return cuda_check(driver, result, "cuTensorMapEncodeTiled", err);
}

static rfa_status encode_maps(hopper_params *h, const cuda_driver *driver, const cuda_call *c,
                              rfa_error *err)
{
    rfa_status status =
        encode_map(&h->q, driver, c, &c->seen_q, c->dim, c->total_q, c->heads_q, err);
    if (status == RFA_OK)
        status = encode_map(&h->k, driver, c, &c->seen_k, c->dim, c->total_k, c->heads_kv, err);
    if (status == RFA_OK)
        status = encode_map(&h->v, driver, c, &c->seen_v, c->dim_v, c->total_k, c->heads_kv, err);
    return status;
}

/* By 16 bytes. */
static bool is_wide(const cuda_rows *out, int32_t dtype, int32_t dim)
{
    const int per = 8;
    bool wide = dtype != CUDA_F32 && dim % per == 0 && (uintptr_t)out->data % 16 == 0;
    for (int i = 0; i < 3; i++)
        wide &= out->stride[i] % per == 0;
    return wide;
}

static void set_outputs(hopper_params *h, const cuda_call *c)
{
    h->out = c->out.data;
    h->lse = c->lse.data;
    h->recall = c->recall.data;
    h->decisions = c->decisions.data;
    memcpy(h->out_stride, c->out.stride, sizeof(h->out_stride));
    memcpy(h->lse_stride, c->lse.stride, sizeof(h->lse_stride));
    memcpy(h->recall_stride, c->recall.stride, sizeof(h->recall_stride));
    memcpy(h->decisions_stride, c->decisions.stride, sizeof(h->decisions_stride));
    h->decision_words = (int32_t)cuda_ceil_div(c->blocks_k, 32);
    h->block_recall = c->block_recall;
    h->block_kept = c->block_kept;
    h->order_q = c->order_q;
    h->out_f32 = c->out_dtype == CUDA_F32;
    h->out_wide = is_wide(&c->out, c->out_dtype, c->dim_v);
}

static void set_lists(hopper_params *h, const cuda_call *c)
{
    h->list = c->list;
    h->list_counts = c->list_count;
    h->list_rest = c->list_rest;
    memcpy(h->list_stride, c->list_stride, sizeof(h->list_stride));
    h->visit_q = c->visit_q;
    h->groups = (int32_t)c->groups;
    h->limits = c->limits;
    h->limit = c->rule == RFA_SKIP_DENSE    ? NAN
               : c->rule == RFA_SKIP_RECALL ? 1.0f - c->knob
                                            : c->knob; /* log_lambda: layout.c allows no other */
    h->always_keep = c->key_flags;
    h->dense_rows = c->dense_rows;
}

/* What the kernels for causal masks and packs want to know besides. */
static void set_sequences(hopper_params *h, const cuda_call *c)
{
    h->sequences = c->sequence;
    h->block_visits = c->block_visits;
    h->batch = (int32_t)c->batch;
    h->packed = c->packed;
    h->causal = c->causal;
    h->one_order = c->one_order;
    h->blocks_k = (int32_t)c->blocks_k;
}

/* Of all heads, at most: of a pack, sequences' lengths are known to the device alone. (Where they
 * overlap there are more, which blocks find all the same.) */
static int64_t most_items(const cuda_call *c, int rows)
{
    int64_t items = c->batch * cuda_ceil_div(c->len_q, rows);
    if (c->packed)
        items = cuda_min(items, c->total_q / rows + c->batch);
    return c->heads_q * items; /* layout.c: blocks_q of all heads fit */
}

/* Whether one head's work may be more than another's. Under a causal mask that of rows differs
 * more. Blocks that begin with other heads each have nobody to share keys with (8 x 32 heads of
 * 2,048 tokens: 6 % slower with energy, 30 % on lists of a half), and where there are many heads
 * the last one is a small part of it all. Where items are of a few visits, looking for one takes as
 * long (lists of a tenth: 25 % at 2,048 keys, 10 at 4,096, nothing at 8,192). */
static bool heads_differ(const cuda_call *c, unsigned blocks)
{
    const int64_t fewest = 64; /* key blocks */
    bool own_lists = c->order == CUDA_LIST, decides = c->rule != RFA_SKIP_DENSE;
    return !c->causal && !c->packed && (decides || own_lists) &&
           3 * c->batch * c->heads_q <= blocks && c->blocks_k >= fewest;
}

/* How `blocks` of threads share the items. */
static void set_queue(hopper_params *h, const cuda_call *c, unsigned blocks)
{
    h->heads = (uint32_t)(c->batch * c->heads_q);
    h->taken = c->taken;
    h->begun = blocks;
    if (!c->taken || !heads_differ(c, blocks))
        return;
    h->cost = c->cost;
    h->begun = blocks / h->heads;
    h->begun_more = blocks % h->heads;
}

/* rows: of a work item */
static void set_problem(hopper_params *h, const cuda_call *c, int rows)
{
    h->items_head = (int32_t)cuda_ceil_div(c->len_q, rows);
    h->items = (int32_t)most_items(c, rows);
    h->len_q = c->len_q;
    h->len_k = c->len_k;
    h->heads_q = (int32_t)c->heads_q;
    h->heads_kv = (int32_t)c->heads_kv;
    h->dim_v = c->dim_v;
    h->blocks_q = (int32_t)c->blocks_q;
    h->rule = c->rule;
    h->scale = c->scale;
    h->share = c->share;
    h->pace = c->pace;
}

rfa_status cuda_hopper_launch(const cuda_variant *v, const cuda_state *state, CUfunction kernel,
                              const rfa_problem *p, const cuda_call *c, rfa_error *err)
{
    hopper_params h;
    void *parameters[] = {&h};
    memset(&h, 0, sizeof(h));
    rfa_status status = encode_maps(&h, state->driver, c, err);
    if (status != RFA_OK)
        return status;
    set_problem(&h, c, v->rows);
    set_lists(&h, c);
    set_outputs(&h, c);
    if (v->varied)
        set_sequences(&h, c);
    int groups = v->rows / HOPPER_BLOCK_Q;
    unsigned blocks = (unsigned)cuda_min(h.items, state->multiprocessors);
    set_queue(&h, c, blocks);
    CUresult result = state->driver->LaunchKernel(
        kernel, blocks, 1, 1, (unsigned)HOPPER_THREADS(groups), 1, 1,
        (unsigned)HOPPER_SHARED_BYTES(v->width, groups), p->stream, parameters, NULL);
    return cuda_check(state->driver, result, v->kernel, err);
}
