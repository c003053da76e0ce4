/* NULLs, struct sizes, workspaces, contexts, device memory and error sentences. */
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "src/struct.h"
#include "tests/support.h"

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

TestSuite(calls, .init = set_up, .fini = tear_down);

static bool says(const rfa_context *where, const char *words)
{
    return strstr(rfa_last_error(where), words) != NULL;
}

/* ---- structs that are too small, too large, or not there ---- */

REFUSED(structs, size_zero, RFA_INVALID_ARGUMENT, "struct_size is 0", s->args.struct_size = 0)
REFUSED(structs, size_too_small, RFA_INVALID_ARGUMENT, "struct_size is", s->args.struct_size -= 8)
REFUSED(structs, size_within_the_first_version, RFA_INVALID_ARGUMENT, "struct_size is",
        s->args.struct_size -= 1)
REFUSED(structs, size_absurd, RFA_INVALID_ARGUMENT, "struct_size is",
        s->args.struct_size = SIZE_MAX)

/* A caller built against a newer header, whose struct is longer. */
typedef struct newer_args {
    rfa_attention_args known;
    uint64_t unknown[4];
} newer_args;

Test(calls, args_of_a_newer_header)
{
    newer_args newer = {.known = small.args};
    newer.known.struct_size = sizeof(newer);
    cr_expect_eq(rfa_attention(ctx, &newer.known), RFA_OK, "%s", rfa_last_error(ctx));
    newer.unknown[2] = 1;
    cr_expect_eq(rfa_attention(ctx, &newer.known), RFA_INVALID_ARGUMENT);
    cr_expect(says(ctx, "does not know"), "%s", rfa_last_error(ctx));
}

Test(calls, options_of_a_newer_header)
{
    struct {
        rfa_context_options known;
        uint64_t unknown;
    } newer = {.known = RFA_CONTEXT_OPTIONS_INIT};
    rfa_context *made = NULL;
    newer.known.backend = "cpu";
    newer.known.struct_size = sizeof(newer);
    cr_expect_eq(rfa_context_create(&made, &newer.known), RFA_OK, "%s", rfa_last_error(NULL));
    rfa_context_destroy(made);
    newer.unknown = (uint64_t)1 << 63; /* its last byte */
    cr_expect_eq(rfa_context_create(&made, &newer.known), RFA_INVALID_ARGUMENT);
    cr_expect(says(NULL, "options sets a field"), "%s", rfa_last_error(NULL));
}

/* A struct that has grown by `added` since its first version. */
typedef struct grown {
    size_t struct_size;
    int64_t first, added;
} grown;

Test(structs, of_an_older_header)
{
    const rfa_struct_spec spec = {"given", "INIT", RFA_SIZE_THROUGH(grown, first), sizeof(grown)};
    const grown older = {RFA_SIZE_THROUGH(grown, first), 7, 99}; /* 99 is not its own */
    grown own = {1, 2, 3};
    rfa_error err = {""};
    cr_expect_eq(rfa_struct_take(&spec, &older, &own, &err), RFA_OK, "%s", err.text);
    cr_expect(own.first == 7 && own.added == 0, "%d %d", (int)own.first, (int)own.added);
    const grown present = {sizeof(grown), 7, 99};
    cr_expect_eq(rfa_struct_take(&spec, &present, &own, &err), RFA_OK, "%s", err.text);
    cr_expect(own.first == 7 && own.added == 99);
    const grown short_one = {sizeof(size_t), 7, 99};
    cr_expect_eq(rfa_struct_take(&spec, &short_one, &own, &err), RFA_INVALID_ARGUMENT);
    cr_expect_not_null(strstr(err.text, "INIT"), "%s", err.text);
}

/* What lies behind the counts belongs to the caller. */
Test(calls, counts_of_a_newer_header)
{
    const int64_t known = (int64_t)sizeof(rfa_counts);
    DLTensor *counts = small_keep(&small, TENSOR(type_u8, known + 16));
    uint8_t *bytes = counts->data;
    memset(bytes, 0xab, (size_t)known + 16);
    small.args.counts = counts;
    cr_expect_eq(rfa_attention(ctx, &small.args), RFA_OK, "%s", rfa_last_error(ctx));
    cr_expect_gt(((const rfa_counts *)counts->data)->blocks_total, 0);
    for (int64_t i = known; i < known + 16; i++)
        cr_expect_eq(bytes[i], 0xab, "byte %d", (int)i);
}

REFUSED(structs, counts_too_short, RFA_INVALID_ARGUMENT, "counts has length",
        s->output[5]->shape[0] -= 8)

Test(calls, null_context)
{
    size_t size = 1;
    void *data = NULL;
    char why[64] = "";
    rfa_merge_args merge = RFA_MERGE_ARGS_INIT;
    cr_expect_eq(rfa_attention(NULL, &small.args), RFA_INVALID_ARGUMENT);
    cr_expect(says(NULL, "ctx is NULL"), "%s", rfa_last_error(NULL));
    cr_expect_eq(rfa_build_visit_list(NULL, &small.args), RFA_INVALID_ARGUMENT);
    cr_expect_eq(rfa_supports(NULL, &small.args, why, sizeof(why)), RFA_INVALID_ARGUMENT);
    cr_expect_str_eq(why, "ctx is NULL");
    cr_expect_eq(rfa_workspace_size(NULL, &small.args, &size), RFA_INVALID_ARGUMENT);
    cr_expect_eq(rfa_merge(NULL, &merge), RFA_INVALID_ARGUMENT);
    cr_expect_eq(rfa_device_alloc(NULL, 1, &data), RFA_INVALID_ARGUMENT);
    cr_expect_eq(rfa_device_write(NULL, &size, 0, &size, 1, NULL), RFA_INVALID_ARGUMENT);
    cr_expect_eq(rfa_device_read(NULL, &size, 0, &size, 1, NULL), RFA_INVALID_ARGUMENT);
    cr_expect_eq(rfa_synchronize(NULL, NULL), RFA_INVALID_ARGUMENT);
    rfa_device_free(NULL, NULL);
    rfa_context_destroy(NULL);
    cr_expect_str_eq(rfa_context_backend(NULL), "");
}

Test(calls, null_args)
{
    size_t size = 77;
    cr_expect_eq(rfa_attention(ctx, NULL), RFA_INVALID_ARGUMENT);
    cr_expect(says(ctx, "args is NULL"), "%s", rfa_last_error(ctx));
    cr_expect_eq(rfa_build_visit_list(ctx, NULL), RFA_INVALID_ARGUMENT);
    cr_expect_eq(rfa_supports(ctx, NULL, NULL, 0), RFA_INVALID_ARGUMENT);
    cr_expect_eq(rfa_workspace_size(ctx, NULL, &size), RFA_INVALID_ARGUMENT);
    cr_expect_eq(rfa_workspace_size(ctx, &small.args, NULL), RFA_INVALID_ARGUMENT);
    cr_expect_eq(rfa_merge(ctx, NULL), RFA_INVALID_ARGUMENT);
}

/* ---- why ---- */

Test(calls, why_is_always_ended)
{
    char why[16];
    memset(why, 'x', sizeof(why));
    small.args.q = NULL;
    cr_expect_eq(rfa_supports(ctx, &small.args, why, 4), RFA_INVALID_ARGUMENT);
    cr_expect_str_eq(why, "q i");
    cr_expect_eq(why[4], 'x', "written past why_size");
    cr_expect_eq(rfa_supports(ctx, &small.args, why, 0), RFA_INVALID_ARGUMENT);
    cr_expect_str_eq(why, "q i");
    cr_expect_eq(rfa_supports(ctx, &small.args, NULL, 0), RFA_INVALID_ARGUMENT);
    cr_expect_eq(rfa_supports(ctx, &small.args, NULL, 100), RFA_INVALID_ARGUMENT);
    small_reset_args(&small);
    cr_expect_eq(rfa_supports(ctx, &small.args, why, sizeof(why)), RFA_OK);
    cr_expect_str_eq(why, "");
    cr_expect(small_is_poisoned(&small), "rfa_supports computed something");
}

/* ---- last error ---- */

static void *fails_on_another_thread(void *message)
{
    rfa_attention(NULL, NULL);
    strncpy(message, rfa_last_error(NULL), 63);
    return NULL;
}

Test(calls, last_error_is_the_contexts_and_the_threads)
{
    rfa_context *other = context_on("reference", 1);
    cr_expect_str_eq(rfa_last_error(ctx), "");
    small.args.q = NULL;
    rfa_attention(ctx, &small.args);
    cr_expect_str_eq(rfa_last_error(other), "", "the other context did not fail");
    cr_expect(says(NULL, "q is NULL"));
    small_reset_args(&small);
    small.args.k = NULL;
    rfa_attention(other, &small.args);
    cr_expect(says(ctx, "q is NULL") && says(other, "k is NULL") && says(NULL, "k is NULL"));

    char theirs[64] = "";
    pthread_t thread;
    cr_assert_eq(pthread_create(&thread, NULL, fails_on_another_thread, theirs), 0);
    cr_assert_eq(pthread_join(thread, NULL), 0);
    cr_expect_str_eq(theirs, "ctx is NULL");
    cr_expect(says(NULL, "k is NULL"), "another thread's error shows here");
    rfa_context_destroy(other);
}

Test(calls, names_of_statuses)
{
    for (int i = RFA_OK; i <= RFA_IO_ERROR; i++)
        for (int j = RFA_OK; j < i; j++)
            cr_expect_str_neq(rfa_status_name((rfa_status)i), rfa_status_name((rfa_status)j));
    cr_expect_str_eq(rfa_status_name((rfa_status)99), "unknown status");
    cr_expect_str_eq(rfa_status_name((rfa_status)-1), "unknown status");
    cr_expect_str_eq(rfa_version(), TEST_VERSION);
}

/* ---- workspace ---- */

Test(calls, workspace_of_the_size_that_was_asked_for)
{
    size_t size = 0;
    cr_assert_eq(rfa_workspace_size(ctx, &small.args, &size), RFA_OK, "%s", rfa_last_error(ctx));
    if (size == 0)
        return;
    unsigned char *memory = aligned_alloc(256, (size + 511) / 256 * 256);
    cr_assert_not_null(memory);
    memset(memory, 0xee, size + 64);
    small.args.workspace = memory;
    small.args.workspace_size = size - 1;
    cr_expect_eq(rfa_attention(ctx, &small.args), RFA_OUT_OF_MEMORY);
    cr_expect(says(ctx, "workspace_size is"), "%s", rfa_last_error(ctx));
    cr_expect(small_is_poisoned(&small));
    small.args.workspace = memory + 8;
    small.args.workspace_size = size;
    cr_expect_eq(rfa_attention(ctx, &small.args), RFA_INVALID_ARGUMENT);
    cr_expect(says(ctx, "workspace is not aligned"), "%s", rfa_last_error(ctx));
    small.args.workspace = memory;
    cr_expect_eq(rfa_attention(ctx, &small.args), RFA_OK, "%s", rfa_last_error(ctx));
    for (int i = 0; i < 64; i++)
        cr_expect_eq(memory[size + (size_t)i], 0xee, "written past the workspace");
    free(memory);
}

/* ---- contexts ---- */

static void expect_no_context(const rfa_context_options *options, rfa_status status,
                              const char *words)
{
    rfa_context *made = ctx; /* anything but NULL */
    cr_expect_eq(rfa_context_create(&made, options), status, "%s: %s", words, rfa_last_error(NULL));
    cr_expect_null(made);
    cr_expect(says(NULL, words), "\"%s\" does not say \"%s\"", rfa_last_error(NULL), words);
}

Test(calls, contexts_that_cannot_be)
{
    const rfa_context_options defaults = RFA_CONTEXT_OPTIONS_INIT;
    rfa_context_options options = defaults;
    int handle = 0;
    cr_expect_eq(rfa_context_create(NULL, &options), RFA_INVALID_ARGUMENT);
    options.struct_size = 0;
    expect_no_context(&options, RFA_INVALID_ARGUMENT, "struct_size is 0");
    options.struct_size = sizeof(options) - 1;
    expect_no_context(&options, RFA_INVALID_ARGUMENT, "struct_size is");
    options = defaults;
    options.backend = "abacus";
    expect_no_context(&options, RFA_NO_DEVICE, "abacus");
    options.backend = "";
    expect_no_context(&options, RFA_NO_DEVICE, "backend");
    options.backend = "../cpu";
    expect_no_context(&options, RFA_NO_DEVICE, "../cpu");
    options.backend = "cpu";
    options.device = 1;
    expect_no_context(&options, RFA_NO_DEVICE, "1");
    options.device = -2;
    expect_no_context(&options, RFA_NO_DEVICE, "-2");
    options.device = 0;
    options.threads = -1;
    expect_no_context(&options, RFA_INVALID_ARGUMENT, "threads is -1");
    options.threads = 0;
    options.opencl_context = &handle;
    expect_no_context(&options, RFA_INVALID_ARGUMENT, "opencl_device");
    options.opencl_device = &handle;
    expect_no_context(&options, RFA_UNSUPPORTED, "OpenCL");
}

Test(calls, default_context_is_never_the_oracle)
{
    rfa_context *made = NULL;
    cr_assert_eq(rfa_context_create(&made, NULL), RFA_OK, "%s", rfa_last_error(NULL));
    cr_expect_str_neq(rfa_context_backend(made), "reference");
    rfa_context_destroy(made);
    cr_expect_eq(rfa_context_device(ctx).device_type, kDLCPU);
}

/* ---- device memory ---- */

Test(calls, device_memory)
{
    void *data = NULL;
    char in[300], out[300];
    memset(in, 7, sizeof(in));
    memset(out, 0, sizeof(out));
    cr_assert_eq(rfa_device_alloc(ctx, 300, &data), RFA_OK, "%s", rfa_last_error(ctx));
    cr_expect_eq((uintptr_t)data % 256, 0);
    cr_expect_eq(rfa_device_write(ctx, data, 0, in, 300, NULL), RFA_OK);
    in[17] = 9;
    cr_expect_eq(rfa_device_write(ctx, data, 100, in + 17, 1, NULL), RFA_OK);
    cr_expect_eq(rfa_device_read(ctx, data, 99, out, 3, NULL), RFA_OK);
    cr_expect(out[0] == 7 && out[1] == 9 && out[2] == 7);
    cr_expect_eq(rfa_synchronize(ctx, NULL), RFA_OK);
    rfa_device_free(ctx, data);
    rfa_device_free(ctx, NULL);
    cr_expect_eq(rfa_device_alloc(ctx, 0, &data), RFA_INVALID_ARGUMENT);
    cr_expect_eq(rfa_device_alloc(ctx, 16, NULL), RFA_INVALID_ARGUMENT);
    cr_expect_eq(rfa_device_alloc(ctx, SIZE_MAX - 100, &data), RFA_OUT_OF_MEMORY);
    cr_expect_null(data);
    cr_expect_eq(rfa_device_alloc(ctx, SIZE_MAX / 4, &data), RFA_OUT_OF_MEMORY);
    cr_expect_null(data);
}

/* ---- timers ---- */

Test(calls, a_timer_times)
{
    rfa_timer *timer = NULL;
    double seconds = -1;
    const struct timespec nap = {0, 20 * 1000 * 1000};
    cr_assert_eq(rfa_timer_create(ctx, &timer), RFA_OK, "%s", rfa_last_error(ctx));
    for (int i = 0; i < 2; i++) { /* a timer may be used again */
        cr_expect_eq(rfa_timer_start(timer, NULL), RFA_OK);
        nanosleep(&nap, NULL);
        cr_expect_eq(rfa_timer_stop(timer, NULL), RFA_OK);
        cr_expect_eq(rfa_timer_read(timer, &seconds), RFA_OK);
        cr_expect(seconds >= 0.02 && seconds < 10, "%g s", seconds);
    }
    rfa_timer_destroy(timer);
    rfa_timer_destroy(NULL);
}

Test(calls, timers_out_of_turn)
{
    rfa_timer *timer = NULL;
    double seconds = 0;
    cr_assert_eq(rfa_timer_create(ctx, &timer), RFA_OK);
    cr_expect_eq(rfa_timer_stop(timer, NULL), RFA_INVALID_ARGUMENT);
    cr_expect(says(ctx, "not started"), "%s", rfa_last_error(ctx));
    cr_expect_eq(rfa_timer_start(timer, NULL), RFA_OK);
    cr_expect_eq(rfa_timer_read(timer, &seconds), RFA_INVALID_ARGUMENT);
    cr_expect(says(ctx, "not stopped"), "%s", rfa_last_error(ctx));
    cr_expect_eq(rfa_timer_stop(timer, NULL), RFA_OK);
    cr_expect_eq(rfa_timer_read(timer, NULL), RFA_INVALID_ARGUMENT);
    cr_expect_eq(rfa_timer_start(timer, NULL), RFA_OK); /* what was timed before is gone */
    cr_expect_eq(rfa_timer_read(timer, &seconds), RFA_INVALID_ARGUMENT);
    rfa_timer_destroy(timer);
    cr_expect_eq(rfa_timer_create(NULL, &timer), RFA_INVALID_ARGUMENT);
    cr_expect_null(timer);
    cr_expect_eq(rfa_timer_create(ctx, NULL), RFA_INVALID_ARGUMENT);
    cr_expect_eq(rfa_timer_start(NULL, NULL), RFA_INVALID_ARGUMENT);
    cr_expect_eq(rfa_timer_stop(NULL, NULL), RFA_INVALID_ARGUMENT);
    cr_expect_eq(rfa_timer_read(NULL, &seconds), RFA_INVALID_ARGUMENT);
}

Test(calls, context_describes_its_device)
{
    rfa_device_info own, listed;
    cr_assert_eq(rfa_context_info(ctx, &own), RFA_OK, "%s", rfa_last_error(ctx));
    cr_assert_eq(rfa_device_get("cpu", 0, &listed), RFA_OK);
    cr_expect_str_eq(own.name, listed.name);
    cr_expect_eq(own.weights, listed.weights);
    cr_expect_eq(rfa_context_info(ctx, NULL), RFA_INVALID_ARGUMENT);
    cr_expect_eq(rfa_context_info(NULL, &own), RFA_INVALID_ARGUMENT);
}
