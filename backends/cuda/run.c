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

/* ---- What comes before the attention -------------------------------------------------------- */

static cuda_ranges ranges_of(const rfa_problem *p)
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
    return ranges;
}

/* As count_lists of lists.cuh. */
static int64_t lists_of_call(const cuda_call *c)
{
    bool own = c->order == CUDA_PREDICTED || c->order == CUDA_LIST;
    return (own ? c->batch * c->heads_q : c->sequences) * c->groups;
}

/* Without a grid; all but the predicted order's lists. */
static void prepare(queue *q, cuda_call *c, cuda_ranges *ranges)
{
    int64_t tables = c->sequences * (1 + cuda_ceil_div(c->blocks_k + c->blocks_q, WARP));
    int64_t lists = c->order == CUDA_PREDICTED ? 0 : lists_of_call(c);
    LAUNCH(q, rfa_prepare, (tables + lists) * WARP, 128, c, ranges);
}

/* Grids travel as parameters, some at a time. */
static void prepare_cubes(queue *q, const rfa_problem *p, cuda_call *c, cuda_ranges *ranges)
{
    cuda_grids grids;
    int64_t step = p->grid_count > 1 ? CUDA_GRIDS_AT_ONCE : c->sequences;
    for (int64_t first = 0; first < c->sequences; first += step) {
        memset(&grids, 0, sizeof(grids));
        grids.first = first;
        grids.count = cuda_min(step, c->sequences - first);
        int64_t copies = p->grid_count > 1 ? grids.count : 1;
        for (int64_t i = 0; i < copies; i++) {
            grids.q[i] = rfa_problem_cubes(p->grids_q, p->grid_count, first + i);
            grids.k[i] = rfa_problem_cubes(p->grids_k, p->grid_count, first + i);
        }
        LAUNCH(q, rfa_prepare_cubes, grids.count * (1 + c->blocks_k + c->blocks_q) * WARP, 128, c,
               ranges, &grids);
    }
}

/* The tensors to gather, all in one launch. */
typedef struct gathering {
    cuda_gathered all;
    unsigned count;
    int64_t threads; /* that the largest takes */
} gathering;

static void add_gather(gathering *g, const rfa_problem *p, const cuda_call *c,
                       const cuda_rows *from, const cuda_rows *to, bool keys, int32_t dim)
{
    cuda_gather *one = &g->all.of[g->count++];
    *one = (cuda_gather){.from = *from, .to = *to, .order = keys ? c->order_k : c->order_q};
    one->heads = keys ? p->heads_kv : p->heads_q;
    one->rows = keys ? p->len_k : p->len_q;
    one->dim = dim;
    one->pitch = (int32_t)to->stride[2];
    one->keys = keys;
    int64_t chunks = one->pitch / (16 / cuda_size_of(p->dtype));
    int64_t threads = p->batch * one->heads * one->rows * chunks;
    g->threads = threads > g->threads ? threads : g->threads;
}

static void gather(queue *q, const rfa_problem *p, cuda_layout *l)
{
    cuda_call *c = &l->call;
    gathering g = {.count = 0};
    if (l->gather.q)
        add_gather(&g, p, c, &c->q, &c->seen_q, false, p->dim);
    if (l->gather.k)
        add_gather(&g, p, c, &c->k, &c->seen_k, true, p->dim);
    if (l->gather.v)
        add_gather(&g, p, c, &c->v, &c->seen_v, true, p->dim_v);
    void *parameters[] = {c, &g.all};
    launch(q, CUDA_KERNEL_rfa_gather, "rfa_gather", g.threads, WIDTH, g.count, parameters);
}

static void predict_lists(queue *q, cuda_call *c)
{
    int64_t pools = c->batch * (c->heads_kv * c->pool_count_k + c->heads_q * c->pool_count_q);
    LAUNCH(q, rfa_pool_tokens, pools * WARP, WIDTH, c);
    LAUNCH(q, rfa_predict_lists, c->sort_workers * WIDTH, WIDTH, c);
}

/* ---- Calls --------------------------------------------------------------------------------------
 */

static void attend(queue *q, const rfa_problem *p, cuda_layout *l, int variant)
{
    cuda_call *c = &l->call;
    const cuda_variant *v = &cuda_variants[variant];
    cuda_ranges ranges = ranges_of(p);
    bool cubes = p->grid_count > 0, predicted = p->order == RFA_ORDER_PREDICTED;
    if (cubes)
        prepare_cubes(q, p, c, &ranges);
    else if (l->prepared)
        prepare(q, c, &ranges);
    gather(q, p, l);
    if (predicted)
        predict_lists(q, c);
    if (cubes || predicted)
        LAUNCH(q, rfa_make_lists, lists_of_call(c) * WARP, 128, c);
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
    cuda_ranges none = {.keep_count = 0};
    if (p->grid_count > 0)
        prepare_cubes(&q, p, &layout.call, &none);
    else
        prepare(&q, &layout.call, &none);
    gather(&q, p, &layout);
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
