/* Outputs over inputs, outputs over outputs: refused when certain, taken otherwise. */
#include <criterion/criterion.h>
#include <stdint.h>
#include <string.h>

#include "src/overlap.h"
#include "tests/support.h"

/* Puts tensor `a` into the memory of `b`, `bytes` behind its start. */
static void put(DLTensor *a, const DLTensor *b, int64_t bytes)
{
    a->data = (char *)b->data + bytes;
}

/* The problem's tensors keep their own memory; these borrow another's. */
static DLTensor *borrow(small_problem *s, const DLTensor *shape_of, const DLTensor *memory_of,
                        int64_t bytes)
{
    static DLTensor views[4];
    static int next;
    DLTensor *view = &views[next++ % 4];
    (void)s;
    *view = *shape_of;
    put(view, memory_of, bytes);
    return view;
}

static int64_t bytes_of(const DLTensor *t)
{
    return (int64_t)tensor_bytes(t);
}

/* Puts two tensors into one piece of memory, the second `bytes` behind the first. */
static void put_together(small_problem *s, const DLTensor **first, const DLTensor **second,
                         int64_t bytes)
{
    int64_t size = bytes_of(*first) + bytes + bytes_of(*second);
    DLTensor *memory = small_keep(s, TENSOR(type_u8, size));
    *first = borrow(s, *first, memory, 0);
    *second = borrow(s, *second, memory, bytes);
}

/* ---- attention: certain ---- */

REFUSED(overlap, out_is_q, RFA_INVALID_ARGUMENT, "out is an output and shares memory with q",
        put_together(s, &s->args.out, &s->args.q, 0))
REFUSED(overlap, out_ends_in_k, RFA_INVALID_ARGUMENT, "out is an output and shares memory with k",
        put_together(s, &s->args.out, &s->args.k, bytes_of(s->output[0]) - 4))
REFUSED(overlap, out_begins_in_v, RFA_INVALID_ARGUMENT, "out is an output and shares memory with v",
        put_together(s, &s->args.v, &s->args.out, bytes_of(s->v) - 4))
REFUSED(overlap, lse_is_recall, RFA_INVALID_ARGUMENT,
        "lse is an output and shares memory with recall",
        s->args.recall = borrow(s, s->output[2], s->output[1], 0))
REFUSED(overlap, decisions_in_out, RFA_INVALID_ARGUMENT,
        "out is an output and shares memory with decisions",
        s->args.decisions = borrow(s, s->output[3], s->output[0], 64))
REFUSED(overlap, visit_order_in_q, RFA_INVALID_ARGUMENT,
        "visit_order is an output and shares memory with q",
        s->args.visit_order = borrow(s, s->output[4], s->q, 0))
REFUSED(overlap, counts_in_k, RFA_INVALID_ARGUMENT, "counts is an output and shares memory with k",
        s->args.counts = borrow(s, s->output[5], s->k, 512))

/* byte_offset counts. */
static void move_by_offset(small_problem *s)
{
    put_together(s, &s->args.out, &s->args.q, bytes_of(s->output[0]));
    DLTensor *out = borrow(s, s->args.out, s->args.out, 0);
    out->byte_offset = 4;
    s->args.out = out;
}

Test(overlap, by_byte_offset)
{
    expect_refused(move_by_offset, RFA_INVALID_ARGUMENT, "shares memory with q");
}

/* Two outputs with the same gaps, that begin at the same row. */
static void interleave_badly(small_problem *s)
{
    DLTensor *wide = small_keep(s, TENSOR(type_f32, 2, 4, 400));
    static int64_t strides[3] = {1600, 400, 1};
    DLTensor *lse = borrow(s, s->output[1], wide, 0), *recall = borrow(s, s->output[2], wide, 796);
    lse->strides = recall->strides = strides;
    s->args.lse = lse;
    s->args.recall = recall;
}

Test(overlap, interleaved_by_one_element)
{
    expect_refused(interleave_badly, RFA_INVALID_ARGUMENT, "lse is an output and shares memory");
}

/* ---- attention: apart ---- */

static rfa_context *ctx;
static small_problem small;

static void set_up(void)
{
    ctx = context_on("cpu", 1);
    small_create(&small, ctx);
}

static void tear_down(void)
{
    small_destroy(&small);
    rfa_context_destroy(ctx);
}

TestSuite(apart, .init = set_up, .fini = tear_down);

static void expect_taken(void)
{
    cr_expect_eq(rfa_attention(ctx, &small.args), RFA_OK, "%s", rfa_last_error(ctx));
}

/* Rows of lse and of recall in turn: their extents meet, their elements do not. */
Test(apart, interleaved_outputs)
{
    DLTensor *wide = small_keep(&small, TENSOR(type_f32, 2, 4, 400));
    static int64_t strides[3] = {1600, 400, 1};
    DLTensor *lse = borrow(&small, small.output[1], wide, 0);
    DLTensor *recall = borrow(&small, small.output[2], wide, 800);
    lse->strides = recall->strides = strides;
    small.args.lse = lse;
    small.args.recall = recall;
    expect_taken();
}

/* q, k and v of one projection, which is how models hold them, and out beside. */
Test(apart, one_buffer_of_all_heads)
{
    enum { LEN = 64, HEADS = 2, DIM = 16, WIDTH = 4 * HEADS * DIM };
    DLTensor *all = small_keep(&small, TENSOR(type_f32, 1, LEN, WIDTH));
    static int64_t shape[4] = {1, LEN, HEADS, DIM}, strides[4] = {LEN * WIDTH, WIDTH, DIM, 1};
    DLTensor views[4];
    tensor_fill(all, 5);
    for (int i = 0; i < 4; i++)
        views[i] = (DLTensor){.data = tensor_floats(all) + (size_t)i * HEADS * DIM,
                              .device = all->device,
                              .ndim = 4,
                              .dtype = all->dtype,
                              .shape = shape,
                              .strides = strides};
    rfa_attention_args args = RFA_ATTENTION_ARGS_INIT;
    args.q = &views[0];
    args.k = &views[1];
    args.v = &views[2];
    args.out = &views[3];
    cr_expect_eq(rfa_attention(ctx, &args), RFA_OK, "%s", rfa_last_error(ctx));
    views[3].data = tensor_floats(all) + 2 * HEADS * DIM + DIM; /* v's second head */
    cr_expect_eq(rfa_attention(ctx, &args), RFA_INVALID_ARGUMENT);
}

Test(apart, end_to_end)
{
    int64_t room = bytes_of(small.output[1]) + bytes_of(small.output[2]);
    DLTensor *both = small_keep(&small, TENSOR(type_u8, room));
    small.args.lse = borrow(&small, small.output[1], both, 0);
    small.args.recall = borrow(&small, small.output[2], both, bytes_of(small.output[1]));
    expect_taken();
}

Test(apart, inputs_may_be_one)
{
    small.args.k = small.args.v = small.k;
    DLTensor *out = small_keep(&small, TENSOR(type_f32, 2, 200, 4, 16));
    small.args.out = out;
    expect_taken();
}

/* ---- visit lists ---- */

Test(apart, visit_list_over_q)
{
    DLTensor *indices = small_keep(&small, TENSOR(type_i32, 2, 4, 1, 3));
    DLTensor *counts = small_keep(&small, TENSOR(type_i32, 2, 4, 1));
    small.args.list_indices = indices;
    small.args.list_counts = counts;
    cr_expect_eq(rfa_build_visit_list(ctx, &small.args), RFA_OK, "%s", rfa_last_error(ctx));
    small.args.list_counts = borrow(&small, counts, indices, 4);
    cr_expect_eq(rfa_build_visit_list(ctx, &small.args), RFA_INVALID_ARGUMENT);
    small.args.list_counts = borrow(&small, counts, small.q, 0);
    cr_expect_eq(rfa_build_visit_list(ctx, &small.args), RFA_INVALID_ARGUMENT);
    cr_expect_not_null(strstr(rfa_last_error(ctx), "list_counts is an output and shares memory"),
                       "%s", rfa_last_error(ctx));
}

/* ---- random views in one small memory, against every byte they have ---- */

enum { ROOM = 512 };

typedef struct view {
    DLTensor tensor;
    int64_t shape[3], strides[3];
    bool taken[ROOM], gaps;
    int first, last; /* bytes */
} view;

static int draw(uint32_t *state, int most)
{
    *state = *state * 1664525u + 1013904223u;
    return (int)(*state >> 16) % (most + 1);
}

static void draw_view(view *v, char *memory, uint32_t *state)
{
    const int64_t size = draw(state, 1) ? 4 : 2;
    int64_t run = 1;
    memset(v, 0, sizeof(*v));
    v->tensor = (DLTensor){.data = memory,
                           .device = {kDLCPU, 0},
                           .ndim = 3,
                           .dtype = size == 4 ? type_f32 : type_f16,
                           .shape = v->shape,
                           .strides = v->strides,
                           .byte_offset = (uint64_t)(size * draw(state, 30))};
    for (int i = 2; i >= 0; i--) {
        v->shape[i] = 1 + draw(state, 2);
        v->strides[i] = i == 2 ? 1 : run + (draw(state, 1) ? draw(state, 3) : 0);
        run = v->shape[i] * v->strides[i];
        if (v->shape[i] == 1) /* then a stride means nothing */
            v->strides[i] = draw(state, 50);
    }
    v->first = (int)v->tensor.byte_offset;
    for (int64_t i = 0; i < v->shape[0] * v->shape[1] * v->shape[2] * size; i++) {
        int64_t element = i / size,
                at[3] = {element / v->shape[2] / v->shape[1], element / v->shape[2] % v->shape[1],
                         element % v->shape[2]};
        int64_t where = at[0] * v->strides[0] + at[1] * v->strides[1] + at[2] * v->strides[2];
        v->last = v->first + (int)(where * size + i % size);
        v->taken[v->last] = true;
    }
    for (int i = v->first; i <= v->last; i++)
        v->gaps |= !v->taken[i];
}

static bool share(const view *a, const view *b)
{
    for (int i = 0; i < ROOM; i++)
        if (a->taken[i] && b->taken[i])
            return true;
    return false;
}

Test(overlap, random_views)
{
    static char memory[ROOM];
    static view a, b;
    uint32_t state = 1;
    int refused = 0, shared = 0;
    for (int i = 0; i < 200000; i++) {
        rfa_extents e;
        rfa_error err;
        draw_view(&a, memory, &state);
        draw_view(&b, memory, &state);
        rfa_extents_start(&e, (DLDevice){kDLCPU, 0});
        rfa_extents_add_output(&e, &a.tensor, "a", NULL);
        rfa_extents_add_input(&e, &b.tensor, "b", -1);
        bool told = rfa_extents_check(&e, &err) != RFA_OK;
        bool ends =
            a.first == b.first || a.first == b.last || a.last == b.first || a.last == b.last;
        refused += told;
        shared += share(&a, &b);
        cr_assert(!told || share(&a, &b), "%d: refused, but nothing is shared", i);
        cr_assert(told || (!ends && (a.gaps || b.gaps || !share(&a, &b))),
                  "%d: taken, but memory is shared", i);
    }
    cr_expect(refused > 50000 && refused > shared * 3 / 4, "%d of %d", refused, shared);
}
