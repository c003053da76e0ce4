/* The context's own workspace on a card: several streams, growth, graphs, and timers
 * and copies in a stream's order. Results of the same call must have the same bits. */
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "device_driver.h"

enum { CALLS = 24, HEADS = 2, DIM = 64, FRAME = 256, MOST_FRAMES = 16 };
enum { MOST_ELEMENTS = MOST_FRAMES * FRAME * HEADS * DIM };

/* ---- A call, its outputs, and what they should be ---- */

typedef struct call {
    rfa_context *ctx;
    DLTensor q, k, v, out;
    int64_t shape[4];
    rfa_grid grid;
    rfa_attention_args args;
    size_t bytes; /* of a tensor */
    uint16_t expected[MOST_ELEMENTS], got[MOST_ELEMENTS];
} call;

static bool make_tensor(call *c, DLTensor *t, uint32_t seed)
{
    static uint16_t values[MOST_ELEMENTS];
    for (int i = 0; i < MOST_ELEMENTS; i++) { /* bf16 in about [-2, 2] */
        seed = seed * 1664525u + 1013904223u;
        values[i] = (uint16_t)((seed >> 16 & 0x8000) | 0x3f00 | (seed >> 24));
    }
    *t = (DLTensor){.device = rfa_context_device(c->ctx),
                    .ndim = 4,
                    .dtype = {kDLBfloat, 16, 1},
                    .shape = c->shape};
    return rfa_device_alloc(c->ctx, c->bytes, &t->data) == RFA_OK &&
           rfa_device_write(c->ctx, t->data, 0, values, c->bytes, NULL) == RFA_OK;
}

/* A video of so many frames, gathered into the workspace; done once, alone. */
static bool call_make(call *c, rfa_context *ctx, int64_t frames, uint32_t seed)
{
    const int64_t shape[4] = {1, frames * FRAME, HEADS, DIM};
    c->ctx = ctx;
    memcpy(c->shape, shape, sizeof(shape));
    c->bytes = (size_t)(frames * FRAME * HEADS * DIM) * sizeof(c->got[0]);
    c->args = (rfa_attention_args)RFA_ATTENTION_ARGS_INIT;
    c->grid = (rfa_grid){0, {frames, 16, 16}, {0, 0, 0}};
    c->args.q = &c->q;
    c->args.k = &c->k;
    c->args.v = &c->v;
    c->args.out = &c->out;
    c->args.rule = RFA_RULE_RECALL;
    c->args.knob = 0.9f;
    c->args.grids_q = c->args.grids_k = &c->grid;
    c->args.grid_count = 1;
    return make_tensor(c, &c->q, seed) && make_tensor(c, &c->k, seed + 1) &&
           make_tensor(c, &c->v, seed + 2) && make_tensor(c, &c->out, seed + 3) &&
           rfa_attention(ctx, &c->args) == RFA_OK &&
           rfa_device_read(ctx, c->out.data, 0, c->expected, c->bytes, NULL) == RFA_OK;
}

static void call_free(call *c)
{
    rfa_device_free(c->ctx, c->q.data);
    rfa_device_free(c->ctx, c->k.data);
    rfa_device_free(c->ctx, c->v.data);
    rfa_device_free(c->ctx, c->out.data);
}

static bool call_clear(call *c, void *stream)
{
    memset(c->got, 0, c->bytes);
    return rfa_device_write(c->ctx, c->out.data, 0, c->got, c->bytes, stream) == RFA_OK;
}

static bool call_on(call *c, void *stream)
{
    c->args.stream = stream;
    return rfa_attention(c->ctx, &c->args) == RFA_OK;
}

static bool call_is_right(call *c, void *stream)
{
    return rfa_device_read(c->ctx, c->out.data, 0, c->got, c->bytes, stream) == RFA_OK &&
           memcmp(c->got, c->expected, c->bytes) == 0;
}

/* ---- tests ---- */

static call one, other, large, larger;
static CUstream stream[2];

static int test_two_streams(void)
{
    bool ok = true;
    for (int i = 0; i < CALLS && ok; i++) {
        ok = call_clear(&one, stream[0]) && call_clear(&other, stream[1]);
        for (int j = 0; j < 4 && ok; j++)
            ok = call_on(&one, stream[0]) && call_on(&other, stream[1]);
        ok = ok && call_is_right(&one, stream[0]) && call_is_right(&other, stream[1]);
    }
    return expect(ok, "two streams in turn");
}

static int test_stream_that_goes(void)
{
    CUstream gone = NULL;
    bool ok =
        cu.StreamCreate(&gone, CU_STREAM_NON_BLOCKING) == CUDA_SUCCESS && call_clear(&one, gone);
    for (int i = 0; i < 4 && ok; i++)
        ok = call_on(&one, gone);
    ok = ok && cu.StreamDestroy(gone) == CUDA_SUCCESS && call_on(&other, stream[1]) &&
         call_is_right(&other, stream[1]) && rfa_synchronize(one.ctx, NULL) == RFA_OK &&
         call_is_right(&one, stream[1]);
    return expect(ok, "a stream that is destroyed after a call");
}

/* A longer video takes more workspace, in the middle of queued work. */
static int test_growth(void)
{
    size_t before = 0, after = 0;
    bool ok = call_clear(&one, stream[0]) && call_clear(&large, stream[1]) &&
              rfa_workspace_size(one.ctx, &one.args, &before) == RFA_OK &&
              rfa_workspace_size(one.ctx, &large.args, &after) == RFA_OK;
    int result = expect(ok && before > 0 && after > before, "sizes of workspaces");
    for (int i = 0; i < 4 && ok; i++)
        ok = call_on(&one, stream[0]);
    ok = ok && call_on(&large, stream[1]) && call_is_right(&one, stream[0]) &&
         call_is_right(&large, stream[1]);
    return result | expect(ok, "growth while work is queued");
}

/* ---- graphs ---- */

static CUgraphExec end_capture(CUstream on)
{
    CUgraph graph = NULL;
    CUgraphExec run = NULL;
    bool ok = cu.StreamEndCapture(on, &graph) == CUDA_SUCCESS &&
              cu.GraphInstantiateWithFlags(&run, graph, 0) == CUDA_SUCCESS;
    return ok ? run : NULL;
}

/* A fresh context has no workspace yet: it says so, and the capture goes on with one
 * of the caller's. */
static int test_capture_without_room(void)
{
    rfa_context *fresh = NULL;
    rfa_context_options options = RFA_CONTEXT_OPTIONS_INIT;
    size_t size = 0;
    options.backend = "cuda";
    bool ok = rfa_context_create(&fresh, &options) == RFA_OK &&
              rfa_workspace_size(fresh, &one.args, &size) == RFA_OK &&
              rfa_device_alloc(fresh, size, &one.args.workspace) == RFA_OK;
    void *workspace = one.args.workspace;
    one.args.workspace = NULL;
    one.args.stream = stream[0];
    ok = ok && cu.StreamBeginCapture(stream[0], CU_STREAM_CAPTURE_MODE_GLOBAL) == CUDA_SUCCESS;
    int result = expect(ok && rfa_attention(fresh, &one.args) == RFA_OUT_OF_MEMORY &&
                            strstr(rfa_last_error(fresh), "pass a workspace"),
                        "no room under capture");
    one.args.workspace = workspace;
    one.args.workspace_size = size;
    ok = ok && rfa_attention(fresh, &one.args) == RFA_OK;
    CUgraphExec run = end_capture(stream[0]);
    ok = ok && run && call_clear(&one, stream[0]) &&
         cu.GraphLaunch(run, stream[0]) == CUDA_SUCCESS && call_is_right(&one, stream[0]);
    result |= expect(ok, "a graph with a workspace of the caller's");
    one.args.workspace = NULL;
    one.args.workspace_size = 0;
    rfa_device_free(fresh, workspace);
    rfa_context_destroy(fresh);
    return result;
}

/* Runs of the graph and calls take turns, also after the workspace has grown. */
static int test_capture_of_own_workspace(void)
{
    bool ok = cu.StreamBeginCapture(stream[0], CU_STREAM_CAPTURE_MODE_THREAD_LOCAL) == CUDA_SUCCESS;
    ok = call_on(&one, stream[0]) && ok;
    CUgraphExec run = end_capture(stream[0]);
    ok = ok && run != NULL;
    for (int i = 0; i < CALLS && ok; i++) {
        call *beside = i < CALLS / 2 ? &other : &larger;
        ok = call_clear(&one, stream[0]) && call_clear(beside, stream[1]) &&
             cu.GraphLaunch(run, stream[0]) == CUDA_SUCCESS && call_on(beside, stream[1]) &&
             cu.GraphLaunch(run, stream[0]) == CUDA_SUCCESS && call_is_right(beside, stream[1]) &&
             call_is_right(&one, stream[0]);
    }
    return expect(ok, "a graph with the context's workspace");
}

static double seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* The device's time is within what the host saw; to queue a call takes less. */
static int test_timer(void)
{
    rfa_timer *timer = NULL;
    double device = 0, start = seconds_now();
    bool ok =
        rfa_timer_create(one.ctx, &timer) == RFA_OK && rfa_timer_start(timer, stream[0]) == RFA_OK;
    for (int i = 0; i < CALLS && ok; i++)
        ok = call_on(&one, stream[0]);
    ok = ok && rfa_timer_stop(timer, stream[0]) == RFA_OK;
    double queued = seconds_now() - start;
    ok = ok && rfa_timer_read(timer, &device) == RFA_OK;
    double whole = seconds_now() - start;
    rfa_timer_destroy(timer);
    fprintf(stderr, "  %d calls: %.3f ms on the device, %.3f ms until queued, %.3f ms in all\n",
            CALLS, 1e3 * device, 1e3 * queued, 1e3 * whole);
    return expect(ok && device > 0 && device <= whole * 1.01, "timer");
}

/* ---- Each on contexts of its own ---- */

/* What is larger is first done on a context apart, so that it makes the common one's
 * workspace grow later. */
static bool make_calls(rfa_context *ctx, rfa_context *apart)
{
    bool ok = ctx && apart && call_make(&one, ctx, 8, 1) && call_make(&other, ctx, 8, 100) &&
              call_make(&large, apart, 12, 200) && call_make(&larger, apart, MOST_FRAMES, 300);
    large.ctx = larger.ctx = ctx;
    return ok;
}

static int with_calls(int (*test)(void))
{
    enter(0);
    rfa_context *ctx = open_context(0), *apart = open_context(0);
    stream[0] = make_stream();
    stream[1] = make_stream();
    bool ready = make_calls(ctx, apart);
    int result = ready ? test() : expect(false, "calls on the default stream");
    if (ready) {
        call_free(&one);
        call_free(&other);
        call_free(&large);
        call_free(&larger);
    }
    rfa_context_destroy(apart);
    rfa_context_destroy(ctx);
    return result;
}

int two_streams(void)
{
    return with_calls(test_two_streams);
}

int stream_that_goes(void)
{
    return with_calls(test_stream_that_goes);
}

int workspace_grows(void)
{
    return with_calls(test_growth);
}

int capture_without_room(void)
{
    return with_calls(test_capture_without_room);
}

int capture_of_own_workspace(void)
{
    return with_calls(test_capture_of_own_workspace);
}

int timer(void)
{
    return with_calls(test_timer);
}
