/* The context's own workspace on a CUDA device: several streams, growth, graphs, and
 * timers and copies in a stream's order. Needs a driver alone to run; without a card
 * it is skipped with the reason. Results of the same call must have the same bits. */
#include <dlfcn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <rfa/rfa.h>

enum { SKIPPED = 77, CALLS = 24, HEADS = 2, DIM = 64, FRAME = 256, MOST_FRAMES = 16 };
enum { MOST_ELEMENTS = MOST_FRAMES * FRAME * HEADS * DIM };

static int passed, failed;

static void expect(bool good, const char *what, const rfa_context *ctx)
{
    *(good ? &passed : &failed) += 1;
    if (!good)
        printf("FAILED %s (last error: %s)\n", what, rfa_last_error(ctx));
}

/* ---- the driver, without its header ---- */

static struct {
    int (*init)(unsigned);
    int (*retain)(void **context, int device);
    int (*set_current)(void *context);
    int (*stream_create)(void **stream, unsigned flags);
    int (*stream_destroy)(void *stream);
    int (*begin_capture)(void *stream, int mode);
    int (*end_capture)(void *stream, void **graph);
    int (*instantiate)(void **run, void *graph, unsigned long long flags);
    int (*launch)(void *run, void *stream);
} driver;

static bool load_driver(int device)
{
    const struct {
        const char *name;
        void *place;
    } calls[] = {{"cuInit", &driver.init},
                 {"cuDevicePrimaryCtxRetain", &driver.retain},
                 {"cuCtxSetCurrent", &driver.set_current},
                 {"cuStreamCreate", &driver.stream_create},
                 {"cuStreamDestroy_v2", &driver.stream_destroy},
                 {"cuStreamBeginCapture_v2", &driver.begin_capture},
                 {"cuStreamEndCapture", &driver.end_capture},
                 {"cuGraphInstantiateWithFlags", &driver.instantiate},
                 {"cuGraphLaunch", &driver.launch}};
    void *library = dlopen("libcuda.so.1", RTLD_NOW), *context = NULL;
    if (!library)
        return false;
    for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
        void *found = dlsym(library, calls[i].name);
        if (!found)
            return false;
        memcpy(calls[i].place, &found, sizeof(found));
    }
    return driver.init(0) == 0 && driver.retain(&context, device) == 0 &&
           driver.set_current(context) == 0;
}

/* ---- a call, its outputs, and what they should be ---- */

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
static void *stream[2];

static void test_two_streams(void)
{
    bool ok = true;
    for (int i = 0; i < CALLS && ok; i++) {
        ok = call_clear(&one, stream[0]) && call_clear(&other, stream[1]);
        for (int j = 0; j < 4 && ok; j++)
            ok = call_on(&one, stream[0]) && call_on(&other, stream[1]);
        ok = ok && call_is_right(&one, stream[0]) && call_is_right(&other, stream[1]);
    }
    expect(ok, "two streams in turn", one.ctx);
}

static void test_stream_that_goes(void)
{
    void *gone = NULL;
    bool ok = driver.stream_create(&gone, 1) == 0 && call_clear(&one, gone);
    for (int i = 0; i < 4 && ok; i++)
        ok = call_on(&one, gone);
    ok = ok && driver.stream_destroy(gone) == 0 && call_on(&other, stream[1]) &&
         call_is_right(&other, stream[1]) && rfa_synchronize(one.ctx, NULL) == RFA_OK &&
         call_is_right(&one, stream[1]);
    expect(ok, "a stream that is destroyed after a call", one.ctx);
}

/* A longer video takes more workspace, in the middle of queued work. */
static void test_growth(void)
{
    size_t before = 0, after = 0;
    bool ok = call_clear(&one, stream[0]) && call_clear(&large, stream[1]) &&
              rfa_workspace_size(one.ctx, &one.args, &before) == RFA_OK &&
              rfa_workspace_size(one.ctx, &large.args, &after) == RFA_OK;
    expect(ok && before > 0 && after > before, "sizes of workspaces", one.ctx);
    for (int i = 0; i < 4 && ok; i++)
        ok = call_on(&one, stream[0]);
    ok = ok && call_on(&large, stream[1]) && call_is_right(&one, stream[0]) &&
         call_is_right(&large, stream[1]);
    expect(ok, "growth while work is queued", one.ctx);
}

/* ---- graphs ---- */

static void *end_capture(void *on)
{
    void *graph = NULL, *run = NULL;
    bool ok = driver.end_capture(on, &graph) == 0 && driver.instantiate(&run, graph, 0) == 0;
    return ok ? run : NULL;
}

/* A fresh context has no workspace yet: it says so, and the capture goes on with one
 * of the caller's. */
static void test_capture_without_room(void)
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
    ok = ok && driver.begin_capture(stream[0], 0) == 0;
    expect(ok && rfa_attention(fresh, &one.args) == RFA_OUT_OF_MEMORY &&
               strstr(rfa_last_error(fresh), "pass a workspace"),
           "no room under capture", fresh);
    one.args.workspace = workspace;
    one.args.workspace_size = size;
    ok = ok && rfa_attention(fresh, &one.args) == RFA_OK;
    void *run = end_capture(stream[0]);
    ok = ok && run && call_clear(&one, stream[0]) && driver.launch(run, stream[0]) == 0 &&
         call_is_right(&one, stream[0]);
    expect(ok, "a graph with a workspace of the caller's", fresh);
    one.args.workspace = NULL;
    one.args.workspace_size = 0;
    rfa_device_free(fresh, workspace);
    rfa_context_destroy(fresh);
}

/* Runs of the graph and calls take turns, also after the workspace has grown. */
static void test_capture_of_own_workspace(void)
{
    bool ok = driver.begin_capture(stream[0], 1) == 0;
    ok = call_on(&one, stream[0]) && ok;
    void *run = end_capture(stream[0]);
    ok = ok && run != NULL;
    for (int i = 0; i < CALLS && ok; i++) {
        call *beside = i < CALLS / 2 ? &other : &larger;
        ok = call_clear(&one, stream[0]) && call_clear(beside, stream[1]) &&
             driver.launch(run, stream[0]) == 0 && call_on(beside, stream[1]) &&
             driver.launch(run, stream[0]) == 0 && call_is_right(beside, stream[1]) &&
             call_is_right(&one, stream[0]);
    }
    expect(ok, "a graph with the context's workspace", one.ctx);
}

static double seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* The device's time is within what the host saw; to queue a call takes less. */
static void test_timer(void)
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
    expect(ok && device > 0 && device <= whole * 1.01, "timer", one.ctx);
    printf("%d calls: %.3f ms on the device, %.3f ms until queued, %.3f ms in all\n", CALLS,
           1e3 * device, 1e3 * queued, 1e3 * whole);
}

/* What is larger is first done on a context of its own, so that it makes the common
 * one's workspace grow later. */
static bool make_calls(rfa_context *ctx, rfa_context *apart)
{
    bool ok = driver.stream_create(&stream[0], 1) == 0 && driver.stream_create(&stream[1], 1) == 0;
    ok = ok && call_make(&one, ctx, 8, 1) && call_make(&other, ctx, 8, 100) &&
         call_make(&large, apart, 12, 200) && call_make(&larger, apart, MOST_FRAMES, 300);
    large.ctx = larger.ctx = ctx;
    return ok;
}

int main(void)
{
    rfa_context *ctx = NULL, *apart = NULL;
    rfa_context_options options = RFA_CONTEXT_OPTIONS_INIT;
    options.backend = "cuda";
    if (rfa_context_create(&ctx, &options) != RFA_OK) {
        printf("SKIP: %s\n0 passed, 0 failed, 1 skipped\n", rfa_last_error(NULL));
        return SKIPPED;
    }
    bool ready = rfa_context_create(&apart, &options) == RFA_OK &&
                 load_driver(rfa_context_device(ctx).device_id) && make_calls(ctx, apart);
    expect(ready, "calls on the default stream", NULL);
    if (ready) {
        test_two_streams();
        test_stream_that_goes();
        test_growth();
        test_capture_without_room();
        test_capture_of_own_workspace();
        test_timer();
        call_free(&one);
        call_free(&other);
        call_free(&large);
        call_free(&larger);
    }
    rfa_context_destroy(apart);
    rfa_context_destroy(ctx);
    printf("%d passed, %d failed, 0 skipped\n", passed, failed);
    return failed > 0;
}
