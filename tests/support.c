#include "tests/support.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

const DLDataType type_f32 = {kDLFloat, 32, 1}, type_f16 = {kDLFloat, 16, 1},
                 type_bf16 = {kDLBfloat, 16, 1}, type_i32 = {kDLInt, 32, 1},
                 type_u32 = {kDLUInt, 32, 1}, type_u8 = {kDLUInt, 8, 1};

enum { POISON = 0xa5 };

typedef struct owned_tensor {
    DLTensor dl; /* first, so that a DLTensor * is one of these */
    int64_t shape[TEST_MAX_DIMS], strides[TEST_MAX_DIMS];
    void *memory; /* what dl.data was, whatever the test does to it */
    size_t bytes;
} owned_tensor;

DLTensor *tensor_new(DLDataType type, int ndim, const int64_t *shape)
{
    owned_tensor *t = calloc(1, sizeof(*t));
    cr_assert_not_null(t);
    cr_assert_leq(ndim, TEST_MAX_DIMS);
    int64_t count = 1;
    for (int i = ndim - 1; i >= 0; i--) {
        t->shape[i] = shape[i];
        t->strides[i] = count;
        count *= shape[i];
    }
    t->bytes = (size_t)count * type.bits / 8;
    t->memory = aligned_alloc(256, (t->bytes + 255) / 256 * 256);
    cr_assert_not_null(t->memory);
    memset(t->memory, 0, t->bytes);
    t->dl = (DLTensor){.data = t->memory,
                       .device = {kDLCPU, 0},
                       .ndim = ndim,
                       .dtype = type,
                       .shape = t->shape,
                       .strides = t->strides};
    return &t->dl;
}

void tensor_free(DLTensor *tensor)
{
    if (!tensor)
        return;
    free(((owned_tensor *)tensor)->memory);
    free(tensor);
}

size_t tensor_bytes(const DLTensor *tensor)
{
    return ((const owned_tensor *)tensor)->bytes;
}

float *tensor_floats(const DLTensor *tensor)
{
    return ((const owned_tensor *)tensor)->memory;
}

void tensor_fill(DLTensor *tensor, uint32_t seed)
{
    float *values = tensor_floats(tensor);
    for (size_t i = 0; i < tensor_bytes(tensor) / sizeof(float); i++) {
        seed = seed * 1664525u + 1013904223u;
        values[i] = (float)(seed >> 8) / 8388608.0f - 1.0f;
    }
}

void small_reset_args(small_problem *s)
{
    s->args = (rfa_attention_args)RFA_ATTENTION_ARGS_INIT;
    s->args.q = s->q;
    s->args.k = s->k;
    s->args.v = s->v;
    s->args.out = s->output[0];
    s->args.lse = s->output[1];
    s->args.recall = s->output[2];
    s->args.decisions = s->output[3];
    s->args.visit_order = s->output[4];
    s->args.counts = s->output[5];
    s->args.rule = RFA_RULE_RECALL;
    s->args.knob = 0.9f;
}

rfa_context *context_on(const char *backend, int32_t threads)
{
    rfa_context_options options = RFA_CONTEXT_OPTIONS_INIT;
    rfa_context *ctx = NULL;
    options.backend = backend;
    options.threads = threads;
    cr_assert_eq(rfa_context_create(&ctx, &options), RFA_OK, "%s", rfa_last_error(NULL));
    return ctx;
}

void small_create(small_problem *s, rfa_context *ctx)
{
    memset(s, 0, sizeof(*s));
    s->ctx = ctx;
    s->q = TENSOR(type_f32, 2, 200, 4, 16);
    s->k = TENSOR(type_f32, 2, 300, 2, 16);
    s->v = TENSOR(type_f32, 2, 300, 2, 24);
    s->output[0] = TENSOR(type_f32, 2, 200, 4, 24);
    s->output[1] = TENSOR(type_f32, 2, 4, 200);
    s->output[2] = TENSOR(type_f32, 2, 4, 200);
    s->output[3] = TENSOR(type_u32, 2, 4, 4, 1);
    s->output[4] = TENSOR(type_i32, 2, 4, 1, 3);
    s->output[5] = TENSOR(type_u8, sizeof(rfa_counts));
    tensor_fill(s->q, 1);
    tensor_fill(s->k, 2);
    tensor_fill(s->v, 3);
    small_reset_args(s);
    small_poison(s);
}

void small_destroy(small_problem *s)
{
    tensor_free(s->q);
    tensor_free(s->k);
    tensor_free(s->v);
    for (int i = 0; i < OUTPUTS; i++)
        tensor_free(s->output[i]);
    for (int i = 0; i < EXTRAS; i++)
        tensor_free(s->extra[i]);
}

DLTensor *small_keep(small_problem *s, DLTensor *tensor)
{
    for (int i = 0; i < EXTRAS; i++)
        if (!s->extra[i])
            return s->extra[i] = tensor;
    cr_assert_fail("more than %d extra tensors", EXTRAS);
    return NULL;
}

void small_poison(small_problem *s)
{
    for (int i = 0; i < OUTPUTS; i++)
        memset(tensor_floats(s->output[i]), POISON, tensor_bytes(s->output[i]));
}

bool small_is_poisoned(const small_problem *s)
{
    for (int i = 0; i < OUTPUTS; i++) {
        const unsigned char *bytes = (const unsigned char *)tensor_floats(s->output[i]);
        for (size_t j = 0; j < tensor_bytes(s->output[i]); j++)
            if (bytes[j] != POISON)
                return false;
    }
    return true;
}

static void expect_error(rfa_context *ctx, const char *call, rfa_status got, rfa_status status,
                         const char *words)
{
    const char *error = rfa_last_error(ctx);
    cr_expect_eq(got, status, "%s: %s (%s), expected %s", call, rfa_status_name(got), error,
                 rfa_status_name(status));
    cr_expect_not_null(strstr(error, words), "%s: \"%s\" does not say \"%s\"", call, error, words);
    cr_expect_str_eq(rfa_last_error(NULL), error, "%s: the thread's last error differs", call);
}

static void expect_works(rfa_context *ctx)
{
    small_problem good;
    small_create(&good, ctx);
    cr_expect_eq(rfa_attention(ctx, &good.args), RFA_OK, "afterwards: %s", rfa_last_error(ctx));
    small_destroy(&good);
}

void expect_refused(break_fn break_it, rfa_status status, const char *words)
{
    small_problem s;
    capture quiet;
    char why[512] = "untouched";
    size_t size;
    rfa_context *ctx = context_on("cpu", 1);
    small_create(&s, ctx);
    break_it(&s);
    capture_begin(&quiet);
    rfa_status of_attention = rfa_attention(ctx, &s.args);
    long printed = capture_end(&quiet);
    expect_error(ctx, "rfa_attention", of_attention, status, words);
    expect_error(ctx, "rfa_supports", rfa_supports(ctx, &s.args, why, sizeof(why)), status, words);
    cr_expect_str_eq(why, rfa_last_error(ctx));
    expect_error(ctx, "rfa_workspace_size", rfa_workspace_size(ctx, &s.args, &size), status, words);
    cr_expect_eq(printed, 0, "%ld bytes were printed", printed);
    cr_expect(small_is_poisoned(&s), "outputs were touched");
    small_destroy(&s);
    expect_works(ctx);
    rfa_context_destroy(ctx);
}

void expect_list_refused(break_fn break_it, rfa_status status, const char *words)
{
    small_problem s;
    size_t size;
    rfa_context *ctx = context_on("cpu", 1);
    small_create(&s, ctx);
    s.args.list_indices = small_keep(&s, TENSOR(type_i32, 2, 4, 1, 3));
    s.args.list_counts = small_keep(&s, TENSOR(type_i32, 2, 4, 1));
    s.args.list_masses = small_keep(&s, TENSOR(type_f32, 2, 4, 1, 3));
    break_it(&s);
    expect_error(ctx, "rfa_build_visit_list", rfa_build_visit_list(ctx, &s.args), status, words);
    expect_error(ctx, "rfa_visit_list_workspace_size",
                 rfa_visit_list_workspace_size(ctx, &s.args, &size), status, words);
    cr_expect(small_is_poisoned(&s), "outputs were touched");
    small_destroy(&s);
    expect_works(ctx);
    rfa_context_destroy(ctx);
}

void capture_begin(capture *c)
{
    fflush(NULL);
    c->file = memfd_create("captured", 0);
    c->saved_out = dup(STDOUT_FILENO);
    c->saved_err = dup(STDERR_FILENO);
    cr_assert(c->file >= 0 && c->saved_out >= 0 && c->saved_err >= 0);
    dup2(c->file, STDOUT_FILENO);
    dup2(c->file, STDERR_FILENO);
}

long capture_end(capture *c)
{
    fflush(NULL);
    long written = (long)lseek(c->file, 0, SEEK_END);
    dup2(c->saved_out, STDOUT_FILENO);
    dup2(c->saved_err, STDERR_FILENO);
    close(c->saved_out);
    close(c->saved_err);
    close(c->file);
    return written;
}
