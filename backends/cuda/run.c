/* A call: which kernels, in which order. Nothing here waits, allocates or copies
 * host memory, so that a call can be captured into a graph. */
#include <string.h>

#include "cuda_backend.h"

/* A call on its way to the stream. The first error stays. */
typedef struct queue {
    const cuda_state *state;
    CUstream stream;
    rfa_status status;
    rfa_error *err;
} queue;

/* At least `threads` threads, in blocks of `width`; y: the grid's second size. */
static void launch(queue *q, enum cuda_kernel kernel, const char *name, int64_t threads,
                   unsigned width, unsigned y, void **parameters)
{
    if (q->status != RFA_OK || threads <= 0)
        return;
    unsigned blocks = (unsigned)cuda_ceil_div(threads, width);
    CUresult result = q->state->driver->LaunchKernel(q->state->kernel[kernel], blocks, y, 1, width,
                                                     1, 1, 0, q->stream, parameters, NULL);
    q->status = cuda_check(q->state->driver, result, name, q->err);
}

#define LAUNCH(queue, kernel, threads, width, ...)                                                 \
    launch((queue), CUDA_KERNEL_##kernel, #kernel, (threads), (width), 1, (void *[]){__VA_ARGS__})

enum { WIDTH = 256, WARP = 32 };

/* ---- What comes before the lists ------------------------------------------------------------ */

/* Grids travel as parameters, some at a time. */
static void measure_sequences(queue *q, const rfa_problem *p, cuda_call *c)
{
    cuda_grids grids;
    int64_t step = p->grid_count > 1 ? CUDA_GRIDS_AT_ONCE : c->sequences;
    for (int64_t first = 0; first < c->sequences; first += step) {
        memset(&grids, 0, sizeof(grids));
        grids.first = first;
        grids.count = cuda_min(step, c->sequences - first);
        int64_t copies = p->grid_count > 1 ? grids.count : (int64_t)p->grid_count;
        for (int64_t i = 0; i < copies; i++) {
            grids.q[i] = rfa_problem_cubes(p->grids_q, p->grid_count, first + i);
            grids.k[i] = rfa_problem_cubes(p->grids_k, p->grid_count, first + i);
        }
        LAUNCH(q, rfa_measure_sequences, grids.count, 64, c, &grids);
        if (p->grid_count == 0 || (p->grid_count == 1 && first > 0))
            continue;
        int64_t longest = p->len_q > p->len_k ? p->len_q : p->len_k;
        void *parameters[] = {c, &grids};
        launch(q, CUDA_KERNEL_rfa_order_tokens, "rfa_order_tokens", longest, WIDTH,
               (unsigned)copies, parameters);
    }
}

static void gather(queue *q, const rfa_problem *p, cuda_call *c, const cuda_rows *from,
                   const cuda_rows *to, bool keys, int32_t dim)
{
    cuda_gather g = {.from = *from, .to = *to, .order = keys ? c->order_k : c->order_q};
    g.heads = keys ? p->heads_kv : p->heads_q;
    g.rows = keys ? p->len_k : p->len_q;
    g.dim = dim;
    g.size = cuda_size_of(p->dtype);
    g.pitch = (int32_t)to->stride[2];
    g.keys = keys;
    int64_t chunks = g.pitch / (16 / g.size);
    LAUNCH(q, rfa_gather, p->batch * g.heads * g.rows * chunks, WIDTH, c, &g);
}

static void gather_all(queue *q, const rfa_problem *p, cuda_layout *l)
{
    cuda_call *c = &l->call;
    if (l->gather.q)
        gather(q, p, c, &c->q, &c->seen_q, false, p->dim);
    if (l->gather.k)
        gather(q, p, c, &c->k, &c->seen_k, true, p->dim);
    if (l->gather.v)
        gather(q, p, c, &c->v, &c->seen_v, true, p->dim_v);
}

static void flag_blocks(queue *q, const rfa_problem *p, cuda_call *c)
{
    cuda_ranges ranges = {.keep_count = p->keep_key_count, .dense_count = p->dense_query_count};
    for (int i = 0; i < p->keep_key_count; i++) {
        ranges.keep[i][0] = p->keep_keys[i].begin;
        ranges.keep[i][1] = p->keep_keys[i].end;
    }
    for (int i = 0; i < p->dense_query_count; i++) {
        ranges.dense[i][0] = p->dense_queries[i].begin;
        ranges.dense[i][1] = p->dense_queries[i].end;
    }
    LAUNCH(q, rfa_flag_blocks, c->sequences * (c->blocks_k + c->blocks_q) * WARP, WIDTH, c,
           &ranges);
}

/* ---- Lists --------------------------------------------------------------------------------------
 */

static void predict_lists(queue *q, cuda_call *c)
{
    int64_t pools = c->batch * (c->heads_kv * c->pool_count_k + c->heads_q * c->pool_count_q);
    LAUNCH(q, rfa_pool_tokens, pools * WARP, WIDTH, c);
    LAUNCH(q, rfa_predict_lists, c->sort_workers * WIDTH, WIDTH, c);
}

static void list_visits(queue *q, const rfa_problem *p, cuda_call *c)
{
    int64_t heads = c->batch * c->heads_q;
    if (p->order == RFA_ORDER_RASTER || p->order == RFA_ORDER_DIAGONAL) {
        LAUNCH(q, rfa_list_by_place, c->sequences * c->groups, 32, c);
    } else {
        LAUNCH(q, rfa_rank_kept, c->sequences * WARP, WIDTH, c);
        if (p->order == RFA_ORDER_PREDICTED)
            predict_lists(q, c);
        LAUNCH(q, rfa_arrange_lists, heads * c->groups * WARP, 128, c);
    }
    LAUNCH(q, rfa_count_visits, heads * c->blocks_q * WARP, WIDTH, c);
    if (c->visit_order.data)
        LAUNCH(q, rfa_write_visit_order, heads * c->groups * c->blocks_k, WIDTH, c);
}

/* ---- Calls --------------------------------------------------------------------------------------
 */

static void attend(queue *q, const rfa_problem *p, cuda_layout *l, int variant)
{
    cuda_call *c = &l->call;
    const cuda_variant *v = &cuda_variants[variant];
    measure_sequences(q, p, c);
    gather_all(q, p, l);
    flag_blocks(q, p, c);
    LAUNCH(q, rfa_set_limits, c->batch * c->heads_q, WIDTH, c);
    list_visits(q, p, c);
    if (q->status == RFA_OK)
        q->status = v->launch(v, q->state, q->state->variant[variant], p, c, q->err);
    if (c->counts)
        LAUNCH(q, rfa_count, 512, 512, c);
}

rfa_status cuda_run(const cuda_state *state, const rfa_problem *p, void *workspace, rfa_error *err)
{
    cuda_layout layout;
    int variant;
    queue q = {.state = state, .stream = p->stream, .err = err};
    q.status = cuda_choose_variant(state, p, &variant, err);
    if (q.status == RFA_OK)
        q.status = cuda_layout_of(&layout, p, &cuda_variants[variant], workspace, err);
    if (q.status == RFA_OK)
        q.status = cuda_enter(state, err);
    if (q.status != RFA_OK)
        return q.status;
    attend(&q, p, &layout, variant);
    cuda_leave(state);
    return q.status;
}

rfa_status cuda_build_list(const cuda_state *state, const rfa_problem *p, void *workspace,
                           rfa_error *err)
{
    cuda_layout layout;
    queue q = {.state = state, .stream = p->stream, .err = err};
    q.status = cuda_layout_of(&layout, p, NULL, workspace, err);
    if (q.status == RFA_OK)
        q.status = cuda_enter(state, err);
    if (q.status != RFA_OK)
        return q.status;
    measure_sequences(&q, p, &layout.call);
    gather_all(&q, p, &layout);
    predict_lists(&q, &layout.call);
    cuda_leave(state);
    return q.status;
}

/* ---- Merge
 * ----------------------------------------------------------------------------------------- */

_Static_assert((int)CUDA_MAX_PARTS == (int)RFA_MAX_MERGE_PARTS, "parts of a merge");
_Static_assert((int)CUDA_MAX_RANGES == (int)RFA_MAX_RANGES, "ranges of a call");
_Static_assert((int)CUDA_POOL_ROWS == (int)RFA_POOL_ROWS, "rows of a pool");
_Static_assert((int)CUDA_SINK_KEYS == (int)RFA_SINK_KEYS, "keys of the sink");
_Static_assert(sizeof(rfa_counts) == 64, "counts.cu knows its layout");

static cuda_rows rows_of(const rfa_view *view)
{
    cuda_rows rows = {NULL, {view->stride[0], view->stride[1], view->stride[2]}};
    if (view->data)
        rows.data = (char *)view->data + view->byte_offset;
    return rows;
}

static void set_part(cuda_part *part, const rfa_merge_problem *p, size_t i)
{
    cuda_rows out = rows_of(&p->part_out[i]), lse = rows_of(&p->part_lse[i]);
    cuda_rows recall = rows_of(&p->part_recall[i]);
    part->out = out.data;
    part->lse = lse.data;
    part->recall = recall.data;
    memcpy(part->out_stride, out.stride, sizeof(part->out_stride));
    memcpy(part->lse_stride, lse.stride, sizeof(part->lse_stride));
    memcpy(part->recall_stride, recall.stride, sizeof(part->recall_stride));
}

rfa_status cuda_merge_parts(const cuda_state *state, const rfa_merge_problem *p, rfa_error *err)
{
    cuda_merge m = {.parts = (int32_t)p->parts,
                    .dim = p->dim,
                    .dtype = (int32_t)p->dtype,
                    .out_dtype = (int32_t)p->out_dtype,
                    .batch = p->batch,
                    .heads = p->heads,
                    .len = p->len,
                    .out = rows_of(&p->out),
                    .lse = rows_of(&p->lse),
                    .recall = rows_of(&p->recall)};
    queue q = {.state = state, .stream = p->stream, .err = err};
    for (size_t i = 0; i < p->parts; i++)
        set_part(&m.part[i], p, i);
    int64_t rows;
    if (__builtin_mul_overflow(p->batch * p->heads, p->len, &rows) || rows / 8 >= INT32_MAX)
        return rfa_fail(err, RFA_UNSUPPORTED, "%lld x %lld heads of %lld rows are too many",
                        (long long)p->batch, (long long)p->heads, (long long)p->len);
    q.status = cuda_enter(state, err);
    if (q.status != RFA_OK)
        return q.status;
    LAUNCH(&q, rfa_merge_rows, rows * WARP, WIDTH, &m);
    cuda_leave(state);
    return q.status;
}
