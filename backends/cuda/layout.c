/* A problem as the kernels see it, and the workspace: what it holds, and where. */
#include <string.h>

#include "cuda_backend.h"

#define SHARED_SORT 4096 /* as in predicted.cu */
#define SORT_WORKERS 512

/* Hands out parts of a workspace, or only counts when there is none. */
typedef struct placer {
    char *base;
    uint64_t used;
    bool overflow;
} placer;

static void *place(placer *at, uint64_t count, uint64_t each, uint64_t size)
{
    const uint64_t line = 256;
    uint64_t bytes, begin = at->used;
    at->overflow |= __builtin_mul_overflow(count, each, &bytes) ||
                    __builtin_mul_overflow(bytes, size, &bytes) || bytes > UINT64_MAX / 4 ||
                    begin > UINT64_MAX / 4;
    if (at->overflow)
        return NULL;
    at->used = (begin + bytes + line - 1) / line * line;
    return at->base ? at->base + begin : NULL;
}

/* ---- The problem ------------------------------------------------------------------------ */

static cuda_rows rows_of(const rfa_view *view)
{
    cuda_rows rows = {NULL, {view->stride[0], view->stride[1], view->stride[2]}};
    if (view->data)
        rows.data = (char *)view->data + view->byte_offset;
    return rows;
}

static void set_shape(cuda_call *c, const rfa_problem *p)
{
    c->batch = p->batch;
    c->sequences = p->packed ? p->batch : 1;
    c->heads_q = p->heads_q;
    c->heads_kv = p->heads_kv;
    c->len_q = p->len_q;
    c->len_k = p->len_k;
    c->total_q = p->total_q;
    c->total_k = p->total_k;
    c->blocks_q = p->blocks_q;
    c->blocks_k = p->blocks_k;
    c->groups = p->groups;
    c->dim = p->dim;
    c->dim_v = p->dim_v;
    c->block_q = p->block_q;
    c->block_k = p->block_k;
    c->visit_q = p->visit_q;
    c->dtype = (int32_t)p->dtype;
    c->out_dtype = (int32_t)p->out_dtype;
    c->packed = p->packed;
    c->causal = p->causal;
    c->order = (int32_t)p->order;
    c->one_order = p->grid_count == 1;
    c->scale = p->scale;
    c->pool_count_q = cuda_ceil_div(p->len_q, RFA_POOL_ROWS);
    c->pool_count_k = cuda_ceil_div(p->len_k, RFA_POOL_ROWS);
}

static bool orders_by_mass(const rfa_problem *p)
{
    return p->order == RFA_ORDER_PREDICTED || (p->order == RFA_ORDER_LIST && p->list_masses.data);
}

static bool has_own_lists(const rfa_problem *p)
{
    return p->order == RFA_ORDER_PREDICTED || p->order == RFA_ORDER_LIST;
}

static void set_rule(cuda_call *c, const rfa_problem *p)
{
    c->rule = (int32_t)p->rule;
    c->knob_scaled = p->knob_scaled;
    c->tracked = p->track_recall;
    c->estimated = p->rule == RFA_RULE_RECALL && p->mass == RFA_MASS_ESTIMATED;
    c->exact = p->track_recall && p->rule != RFA_RULE_DENSE && !c->estimated;
    c->knob = p->knob;
    c->knobs = rows_of(&p->knobs);
    c->share = 3;
    c->pace = 1;
    if (has_own_lists(p)) {
        c->share = orders_by_mass(p) ? 2 : 2.5f;
        c->pace = 0;
    }
}

static cuda_lists lists_of(const rfa_problem *p)
{
    cuda_rows index = rows_of(&p->list_indices), count = rows_of(&p->list_counts);
    cuda_rows mass = rows_of(&p->list_masses);
    cuda_lists lists = {
        .index = index.data, .mass = mass.data, .count = count.data, .capacity = p->list_capacity};
    memcpy(lists.stride, index.stride, sizeof(lists.stride));
    memcpy(lists.mass_stride, mass.stride, sizeof(lists.mass_stride));
    memcpy(lists.count_stride, count.stride, sizeof(lists.count_stride));
    return lists;
}

static void set_tensors(cuda_call *c, const rfa_problem *p)
{
    c->q = rows_of(&p->q);
    c->k = rows_of(&p->k);
    c->v = rows_of(&p->v);
    c->cu_q = rows_of(&p->cu_q).data;
    c->cu_k = rows_of(&p->cu_k).data;
    c->out = rows_of(&p->out);
    c->lse = rows_of(&p->lse);
    c->recall = rows_of(&p->recall);
    c->decisions = rows_of(&p->decisions);
    c->visit_order = rows_of(&p->visit_order);
    c->counts = rows_of(&p->counts).data;
    c->given = lists_of(p);
}

/* ---- q, k and v in computed order --------------------------------------------------------- */

/* Rows of whole 16-byte chunks, on 16-byte boundaries. */
static bool is_aligned(const cuda_rows *rows, int32_t size, int32_t dim, int64_t batch,
                       int64_t heads, int64_t count)
{
    const int64_t extent[3] = {batch, heads, count};
    bool aligned = (uintptr_t)rows->data % 16 == 0 && dim * size % 16 == 0;
    for (int i = 0; i < 3; i++)
        aligned &= extent[i] <= 1 || rows->stride[i] * size % 16 == 0;
    return aligned;
}

/* The rows themselves, or a place for their copies. */
static bool place_rows(cuda_rows *seen, const cuda_rows *rows, const rfa_problem *p, bool maps,
                       int64_t heads, int64_t count, int32_t dim, placer *at)
{
    int32_t size = cuda_size_of(p->dtype), per = 16 / size;
    int64_t batch = p->packed ? 1 : p->batch, pitch = cuda_ceil_div(dim, per) * per;
    *seen = *rows;
    if (p->grid_count == 0 && is_aligned(rows, size, dim, batch, heads, count) &&
        (!maps || cuda_map_fits(rows, batch, heads, count)))
        return false;
    uint64_t all = (uint64_t)(batch * heads); /* both are factors of a tensor's size */
    seen->data = place(at, all, (uint64_t)count, (uint64_t)(pitch * size));
    seen->stride[0] = p->packed ? 0 : heads * count * pitch;
    seen->stride[1] = count * pitch;
    seen->stride[2] = pitch;
    return true;
}

static void place_orders(cuda_call *c, const rfa_problem *p, placer *at)
{
    if (p->grid_count == 0)
        return;
    bool one = p->grid_count == 1;
    c->order_q = place(at, (uint64_t)(one ? p->len_q : p->total_q), 1, sizeof(int32_t));
    c->order_k = place(at, (uint64_t)(one ? p->len_k : p->total_k), 1, sizeof(int32_t));
}

/* ---- Lists ----------------------------------------------------------------------------------- */

static void place_pools(cuda_call *c, const rfa_problem *p, placer *at)
{
    int64_t pools_q = p->batch * c->pool_count_q, pools_k = p->batch * c->pool_count_k;
    if (p->packed) {
        pools_q = p->total_q / RFA_POOL_ROWS + p->batch;
        pools_k = p->total_k / RFA_POOL_ROWS + p->batch;
    }
    uint64_t pitch = (uint64_t)cuda_ceil_div(p->dim, 4) * 4 * sizeof(float);
    c->pools_q = place(at, (uint64_t)pools_q, (uint64_t)p->heads_q, pitch);
    c->pools_k = place(at, (uint64_t)pools_k, (uint64_t)p->heads_kv, pitch);
    uint64_t size = 1;
    while (size < (uint64_t)p->blocks_k)
        size *= 2;
    int64_t tasks = p->batch * p->heads_q * p->groups;
    c->sort_workers = tasks;
    c->sort_size = (int64_t)size;
    if (size > SHARED_SORT) {
        c->sort_workers = cuda_min(tasks, SORT_WORKERS);
        c->sort = place(at, (uint64_t)c->sort_workers, size, sizeof(*c->sort));
    }
}

/* Lists that the predicted order builds for itself. */
static void place_built(cuda_call *c, const rfa_problem *p, uint64_t lists, placer *at)
{
    cuda_lists *built = &c->built;
    *built = (cuda_lists){.capacity = p->blocks_k};
    built->index = place(at, lists, (uint64_t)p->blocks_k, sizeof(int32_t));
    built->mass = place(at, lists, (uint64_t)p->blocks_k, sizeof(float));
    built->count = place(at, lists, 1, sizeof(int32_t));
    const int64_t counts[3] = {p->heads_q * p->groups, p->groups, 1};
    for (int i = 0; i < 3; i++) {
        built->count_stride[i] = counts[i];
        built->stride[i] = built->mass_stride[i] = counts[i] * p->blocks_k;
    }
    c->given = *built;
}

static void place_lists(cuda_call *c, const rfa_problem *p, placer *at)
{
    uint64_t lists = (uint64_t)(p->batch * p->heads_q * p->groups), slots = (uint64_t)p->blocks_k;
    c->list_count = place(at, lists, 1, sizeof(int32_t));
    if (!has_own_lists(p)) {
        /* One for all heads. */
        c->list = place(at, (uint64_t)(c->sequences * p->groups), slots, sizeof(int32_t));
        c->list_stride[0] = p->packed ? p->groups * p->blocks_k : 0;
        c->list_stride[2] = p->blocks_k;
        return;
    }
    c->list = place(at, lists, slots, sizeof(int32_t));
    c->list_stride[0] = p->heads_q * p->groups * p->blocks_k;
    c->list_stride[1] = p->groups * p->blocks_k;
    c->list_stride[2] = p->blocks_k;
    c->bad_indices = place(at, lists, 1, sizeof(int32_t));
    c->listed = place(at, lists, (uint64_t)cuda_ceil_div(p->blocks_k, 32), sizeof(uint32_t));
    if (orders_by_mass(p))
        c->list_rest = place(at, lists, slots, sizeof(float));
    if (p->order == RFA_ORDER_PREDICTED)
        place_built(c, p, lists, at);
}

/* ---- What a call does without ------------------------------------------------------------- */

/* The Hopper kernels walk every block in raster order by themselves. Of the limits only
 * those that take no logarithm are set by hopper.c: a device's may round otherwise. */
static bool needs_nothing(const rfa_problem *p, const cuda_variant *variant)
{
    bool simple = p->rule == RFA_RULE_DENSE || p->rule == RFA_RULE_RECALL ||
                  (p->rule == RFA_RULE_ENERGY && !p->knob_scaled);
    return variant && variant->maps && !variant->varied && simple && !p->knobs.data &&
           p->order == RFA_ORDER_RASTER && p->grid_count == 0 && p->keep_key_count == 0 &&
           p->dense_query_count == 0 && !p->visit_order.data && !p->counts.data;
}

/* ---- All of it ----------------------------------------------------------------------------------
 */

/* What the preparing kernels write of every sequence. */
static void place_tables(cuda_call *c, const rfa_problem *p, placer *at)
{
    uint64_t sequences = (uint64_t)c->sequences;
    c->key_flags = place(at, sequences, (uint64_t)p->blocks_k, 1);
    c->dense_rows = place(at, sequences, (uint64_t)p->blocks_q, 1);
}

static void place_all(cuda_layout *l, const rfa_problem *p, const cuda_variant *variant, placer *at)
{
    bool maps = variant && variant->maps;
    cuda_call *c = &l->call;
    uint64_t heads = (uint64_t)(p->batch * p->heads_q);
    l->prepared = !needs_nothing(p, variant);
    if (l->prepared)
        c->sequence = place(at, (uint64_t)c->sequences, 1, sizeof(*c->sequence));
    place_orders(c, p, at);
    l->gather.q = place_rows(&c->seen_q, &c->q, p, maps, p->heads_q, p->total_q, p->dim, at);
    l->gather.k = place_rows(&c->seen_k, &c->k, p, maps, p->heads_kv, p->total_k, p->dim, at);
    if (p->order == RFA_ORDER_PREDICTED)
        place_pools(c, p, at);
    if (!variant) {
        c->built = c->given;
        place_tables(c, p, at);
        return;
    }
    l->gather.v = place_rows(&c->seen_v, &c->v, p, maps, p->heads_kv, p->total_k, p->dim_v, at);
    if (!l->prepared)
        return;
    place_tables(c, p, at);
    c->limits = place(at, heads, 1, sizeof(float));
    place_lists(c, p, at);
    c->block_visits = place(at, heads, (uint64_t)p->blocks_q, sizeof(int32_t));
    c->block_kept = place(at, heads, (uint64_t)p->blocks_q, sizeof(int32_t));
    c->block_recall = place(at, heads, (uint64_t)p->blocks_q, sizeof(float));
    if (variant->causal)
        c->gave_up = place(at, 1, 1, sizeof(*c->gave_up));
    if (maps) {
        c->taken = place(at, heads, 1, sizeof(*c->taken));
        c->cost = place(at, heads, 1, sizeof(*c->cost));
    }
}

/* Every kernel's threads must fit into one grid of blocks. */
static bool fits_grids(const rfa_problem *p)
{
    const uint64_t blocks = INT32_MAX, chunks = 64; /* of 16 bytes in a row, at most */
    uint64_t heads, rows = (uint64_t)(p->len_q > p->len_k ? p->len_q : p->len_k);
    uint64_t decisions, slots, copies, flags;
    return !__builtin_mul_overflow((uint64_t)p->batch, (uint64_t)p->heads_q, &heads) &&
           !__builtin_mul_overflow(heads, (uint64_t)p->blocks_q, &decisions) &&
           !__builtin_mul_overflow(heads, (uint64_t)(p->groups * p->blocks_k), &slots) &&
           !__builtin_mul_overflow(heads, rows * chunks, &copies) &&
           !__builtin_mul_overflow((uint64_t)p->batch, (uint64_t)(p->blocks_q + p->blocks_k),
                                   &flags) &&
           decisions <= blocks && slots / 128 <= blocks && copies / 256 <= blocks &&
           flags / 8 < blocks;
}

rfa_status cuda_layout_of(cuda_layout *l, const rfa_problem *p, const cuda_variant *variant,
                          void *workspace, rfa_error *err)
{
    placer at = {.base = workspace};
    memset(l, 0, sizeof(*l));
    if (!fits_grids(p))
        return rfa_fail(err, RFA_UNSUPPORTED,
                        "%lld x %lld heads of %lld queries and %lld keys are more than one grid "
                        "of 2^31 blocks of threads takes",
                        (long long)p->batch, (long long)p->heads_q, (long long)p->len_q,
                        (long long)p->len_k);
    set_shape(&l->call, p);
    set_rule(&l->call, p);
    set_tensors(&l->call, p);
    place_all(l, p, variant, &at);
    l->size = (size_t)at.used;
    if (at.overflow)
        return rfa_fail(err, RFA_OUT_OF_MEMORY,
                        "the workspace for %lld x %lld heads of %lld queries is larger than memory",
                        (long long)p->batch, (long long)p->heads_q, (long long)p->len_q);
    return RFA_OK;
}
