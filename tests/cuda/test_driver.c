/* What the cuda backend answers where the driver is missing, too old or in trouble,
 * and what its calls ask of one: with drivers that run nothing (fake_driver.c), so
 * that no card is needed. Each case is a process of its own, because a driver is
 * loaded once.
 *
 * usage: test_driver FAKE_LIBRARY OLD_LIBRARY */
#include <dlfcn.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <rfa/rfa.h>

#include "fake_driver.h"
#include "problems.h"

enum { PASSED = 0, FAILED = 1, SKIPPED = 77 };

#define STREAM ((void *)0x5eed)

static fake_driver *fake;

/* ---- Expectations ------------------------------------------------------------------------ */

static int expect(bool holds, const char *what)
{
    if (!holds)
        fprintf(stderr, "  not so: %s; last error: %s\n", what, rfa_last_error(NULL));
    return holds ? PASSED : FAILED;
}

static rfa_status open_device(int device, rfa_context **ctx)
{
    rfa_context_options options = RFA_CONTEXT_OPTIONS_INIT;
    options.backend = "cuda";
    options.device = device;
    return rfa_context_create(ctx, &options);
}

static rfa_status open_context(rfa_context **ctx)
{
    return open_device(0, ctx);
}

/* Opening a context gives this status and a sentence with this in it. */
static int expect_closed(rfa_status status, const char *sentence)
{
    rfa_context *ctx = NULL;
    rfa_status got = open_context(&ctx);
    if (got == status && !ctx && strstr(rfa_last_error(NULL), sentence))
        return PASSED;
    fprintf(stderr, "  status %d, expected %d; \"%s\", expected \"%s\"\n", (int)got, (int)status,
            rfa_last_error(NULL), sentence);
    return FAILED;
}

/* ---- Drivers that do not serve -------------------------------------------------------------- */

static int no_driver(void)
{
    if (dlopen("libcuda.so.1", RTLD_NOW)) {
        printf("SKIP: this machine has an NVIDIA driver\n");
        return SKIPPED;
    }
    return expect_closed(RFA_NO_DEVICE, "libcuda.so.1");
}

static int old_entry(void)
{
    return expect_closed(RFA_NO_DEVICE, "too old");
}

static int old_version(void)
{
    fake->version = 10020;
    return expect_closed(RFA_NO_DEVICE, "it is of version 10.2");
}

static int lacking_call(void)
{
    fake->lacks = "cuTensorMapEncodeTiled";
    return expect_closed(RFA_NO_DEVICE, "it has no cuTensorMapEncodeTiled");
}

static int no_card(void)
{
    fake->init = 100; /* CUDA_ERROR_NO_DEVICE */
    return expect_closed(RFA_NO_DEVICE, "the CUDA driver has 0");
}

static int broken_start(void)
{
    fake->init = 803; /* CUDA_ERROR_SYSTEM_DRIVER_MISMATCH */
    return expect_closed(RFA_NO_DEVICE, "does not start");
}

static int old_card(void)
{
    rfa_device_info info;
    fake->capability = 75;
    return expect_closed(RFA_NO_DEVICE, "compute capability 7.5, 8.0 is needed") |
           expect(rfa_device_get("cuda", 0, &info) == RFA_OK && info.status == RFA_NO_DEVICE &&
                      strstr(info.why, "7.5"),
                  "the device is listed with the reason");
}

static int unknown_kernels(void)
{
    setenv("RFA_CUDA_KERNELS", "fast", 1);
    return expect_closed(RFA_INVALID_ARGUMENT, "RFA_CUDA_KERNELS is \"fast\"");
}

static int wrong_limits(const char *variable)
{
    int result = PASSED;
    const char *const wrong[] = {"0", "-1", "2x", "many"};
    char sentence[64];
    snprintf(sentence, sizeof(sentence), "%s is \"", variable);
    for (int i = 0; i < 4; i++) {
        setenv(variable, wrong[i], 1);
        result |= expect_closed(RFA_INVALID_ARGUMENT, sentence);
    }
    return result;
}

static int unknown_multiprocessors(void)
{
    return wrong_limits("RFA_CUDA_MULTIPROCESSORS");
}

static int unknown_shared_memory(void)
{
    return wrong_limits("RFA_CUDA_SHARED_MEMORY");
}

/* ---- Calls on a driver that serves ------------------------------------------------------------
 */

/* One call, counted: queued on its stream, nothing else. */
static int check_call(rfa_context *ctx, const problem_kind *kind, bool hopper)
{
    /* Of which another kernel computes what the first finds that it cannot. */
    bool twice = fake->capability == 86 && kind->mask == RFA_MASK_CAUSAL;
    problem p;
    if (!problem_create(&p, ctx, kind))
        return expect(false, kind->name);
    int allocations = fake->allocations, frees = fake->frees, waits = fake->waits;
    int copies = fake->copies, launches = fake->launches;
    fake->launches_elsewhere = 0;
    fake->stream = p.args.stream = STREAM;
    rfa_status status = rfa_attention(ctx, &p.args);
    bool quiet = fake->allocations == allocations && fake->frees == frees && fake->waits == waits &&
                 fake->copies == copies;
    launches = fake->launches - launches;
    fprintf(stderr, "  %s: %d launches\n", kind->name, launches);
    /* Other kernels always read tables that a launch before them makes. */
    int most = (hopper || kind->launches > 1 ? kind->launches : 2) + twice;
    int result = expect(status == RFA_OK, kind->name) | expect(launches == most, "launches") |
                 expect(fake->launches_elsewhere == 0, "launches on the caller's stream alone") |
                 expect(quiet, "no allocation, copy or wait in a call") |
                 expect(fake->depth == 0 && fake->unbalanced == 0, "the caller's context is back");
    problem_destroy(&p);
    return result;
}

static int check_calls(bool hopper)
{
    rfa_context *ctx;
    if (open_context(&ctx) != RFA_OK)
        return expect(false, "a context");
    int result = PASSED;
    for (int i = 0; i < problem_kind_count; i++)
        result |= check_call(ctx, &problem_kinds[i], hopper);
    rfa_context_destroy(ctx);
    return result | expect(fake->loads == 0 && fake->retained == 0 && fake->depth == 0,
                           "a context leaves nothing behind");
}

static int calls_only_launch(void)
{
    return check_calls(true);
}

/* Starts the attention of a problem of 40 heads: last_grid and last_kernel of `fake` are its. */
static bool attend(int64_t dim, rfa_rule rule)
{
    const problem_kind kind = {"many heads", {kDLBfloat, 16, 1}, 1, 40, 40, 200, 300,
                               dim,          .rule = rule};
    rfa_context *ctx;
    problem p;
    bool done = false;
    fake->last_grid = 0;
    fake->last_kernel = "";
    if (open_context(&ctx) != RFA_OK)
        return false;
    if (problem_create(&p, ctx, &kind)) {
        p.args.stream = STREAM;
        done = rfa_attention(ctx, &p.args) == RFA_OK;
        problem_destroy(&p);
    }
    rfa_context_destroy(ctx);
    return done;
}

static bool starts_blocks(unsigned count)
{
    return attend(64, RFA_RULE_DENSE) && fake->last_grid == count;
}

static bool starts(const char *kernel, int64_t dim, rfa_rule rule)
{
    return attend(dim, rule) && strcmp(fake->last_kernel, kernel) == 0;
}

/* Hopper's blocks of threads, one a multiprocessor, share what there is to do. */
static int blocks_share_work(void)
{
    int result = expect(starts_blocks(4), "one block a multiprocessor");
    setenv("RFA_CUDA_MULTIPROCESSORS", "3", 1);
    result |= expect(starts_blocks(3), "fewer if told so");
    setenv("RFA_CUDA_MULTIPROCESSORS", "1000", 1);
    return result | expect(starts_blocks(4), "no more than there are");
}

/* 99 KiB, as on 8.6, 8.9 and 12.0, hold tiles of half rows at head dim 128. */
static int kernels_suit_cards(void)
{
    int result = expect(starts("hopper_bf16_128_exact_192", 128, RFA_RULE_RECALL), "hopper");
    setenv("RFA_CUDA_SHARED_MEMORY", "101376", 1);
    result |= expect(starts("rfa_ampere_bf16_128_halves_exact", 128, RFA_RULE_RECALL),
                     "as if on a smaller card");
    unsetenv("RFA_CUDA_SHARED_MEMORY");
    fake->capability = 80;
    fake->shared = 166912;
    result |= expect(starts("rfa_ampere_bf16_128_exact", 128, RFA_RULE_RECALL), "8.0");
    fake->capability = 120;
    fake->shared = 101376;
    result |= expect(starts("rfa_ampere_bf16_128_halves_dense", 128, RFA_RULE_DENSE), "dense") |
              expect(starts("rfa_ampere_bf16_128_halves_exact", 128, RFA_RULE_RECALL), "recall") |
              expect(starts("rfa_ampere_bf16_64_exact", 64, RFA_RULE_RECALL), "head dim 64");
    fake->shared = 49152;
    return result | expect(starts("rfa_attend_bf16_128_small", 128, RFA_RULE_RECALL), "too small");
}

static int calls_only_launch_generic(void)
{
    setenv("RFA_CUDA_KERNELS", "generic", 1);
    return check_calls(false);
}

static int calls_only_launch_ampere(void)
{
    fake->capability = 86;
    return check_calls(false);
}

static int memory_runs_out(void)
{
    rfa_context *ctx;
    void *data = NULL;
    if (open_context(&ctx) != RFA_OK)
        return expect(false, "a context");
    int result = expect(rfa_device_alloc(ctx, (size_t)1 << 40, &data) == RFA_OUT_OF_MEMORY && !data,
                        "a status for too much memory") |
                 expect(strstr(rfa_last_error(ctx), "no room for") != NULL, "its sentence") |
                 expect(rfa_device_alloc(ctx, 100, &data) == RFA_OK && data, "memory after it");
    rfa_device_free(ctx, data);
    rfa_context_destroy(ctx);
    return result;
}

/* The context's own workspace does not fit; once it does, the same call runs. */
static int no_room_for_workspace(void)
{
    rfa_context *ctx;
    problem p;
    if (open_context(&ctx) != RFA_OK || !problem_create(&p, ctx, &problem_kinds[0]))
        return expect(false, "a problem");
    rfa_attention_args args = p.args;
    args.workspace = NULL;
    args.workspace_size = 0;
    size_t memory = fake->memory;
    int launches = fake->launches;
    fake->memory = 16;
    int result = expect(rfa_attention(ctx, &args) == RFA_OUT_OF_MEMORY &&
                            fake->launches == launches && fake->depth == 0,
                        "a status without a launch") |
                 expect(strstr(rfa_last_error(ctx), "no room for") != NULL, "its sentence");
    fake->memory = memory;
    result |= expect(rfa_attention(ctx, &args) == RFA_OK, "the call after it");
    problem_destroy(&p);
    rfa_context_destroy(ctx);
    return result;
}

/* A graph would hold memory that is not there: an answer, not an allocation. */
static int capture_without_workspace(void)
{
    rfa_context *ctx;
    problem p;
    if (open_context(&ctx) != RFA_OK || !problem_create(&p, ctx, &problem_kinds[0]))
        return expect(false, "a problem");
    rfa_attention_args args = p.args;
    args.workspace = NULL;
    args.workspace_size = 0;
    int allocations = fake->allocations, launches = fake->launches;
    fake->capturing = 1;
    rfa_status status = rfa_attention(ctx, &args);
    int result = expect(status == RFA_OUT_OF_MEMORY && fake->allocations == allocations &&
                            fake->launches == launches,
                        "no allocation under capture") |
                 expect(strstr(rfa_last_error(ctx), "workspace") != NULL, "its sentence");
    fake->capturing = 0;
    result |= expect(rfa_attention(ctx, &args) == RFA_OK, "the context's own workspace");
    problem_destroy(&p);
    rfa_context_destroy(ctx);
    return result;
}

static int earlier_fault(void)
{
    rfa_context *ctx;
    problem p;
    if (open_context(&ctx) != RFA_OK || !problem_create(&p, ctx, &problem_kinds[0]))
        return expect(false, "a problem");
    fake->launch = fake->synchronize = 700; /* CUDA_ERROR_ILLEGAL_ADDRESS */
    const char *sentence = "a fault of work queued earlier";
    int result = expect(rfa_attention(ctx, &p.args) == RFA_DEVICE_ERROR &&
                            strstr(rfa_last_error(ctx), sentence),
                        "a fault seen by a launch") |
                 expect(rfa_synchronize(ctx, STREAM) == RFA_DEVICE_ERROR &&
                            strstr(rfa_last_error(ctx), sentence),
                        "a fault seen by a wait") |
                 expect(fake->depth == 0, "the caller's context is back");
    problem_destroy(&p);
    rfa_context_destroy(ctx);
    return result;
}

/* Every tensor of a call in turn is on the other device. */
static int check_strangers(const problem *own, const problem *other, const char *sentence)
{
    static const size_t places[] = {
        offsetof(rfa_attention_args, q),      offsetof(rfa_attention_args, k),
        offsetof(rfa_attention_args, v),      offsetof(rfa_attention_args, out),
        offsetof(rfa_attention_args, knobs),  offsetof(rfa_attention_args, lse),
        offsetof(rfa_attention_args, recall), offsetof(rfa_attention_args, decisions),
        offsetof(rfa_attention_args, counts),
    };
    int result = PASSED, launches = fake->launches;
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        rfa_attention_args args = own->args;
        memcpy((char *)&args + places[i], (const char *)&other->args + places[i],
               sizeof(DLTensor *));
        result |= expect(rfa_attention(own->ctx, &args) == RFA_INVALID_ARGUMENT,
                         "a status for a tensor on another device") |
                  expect(strstr(rfa_last_error(own->ctx), sentence) != NULL, sentence);
    }
    return result | expect(fake->launches == launches, "nothing is queued");
}

static int other_device_is_refused(void)
{
    problem p[2];
    fake->devices = 2;
    for (int d = 0; d < 2; d++) {
        rfa_context *ctx;
        if (open_device(d, &ctx) != RFA_OK || !problem_create(&p[d], ctx, &problem_kinds[1]))
            return expect(false, "a problem on each of two devices");
        p[d].args.stream = fake->stream;
    }
    int result =
        check_strangers(&p[0], &p[1],
                        "is on device type 2 number 1, the context is on 2 number 0") |
        check_strangers(&p[1], &p[0], "is on device type 2 number 0, the context is on 2 number 1");
    for (int d = 0; d < 2; d++) {
        rfa_context *ctx = p[d].ctx;
        result |= expect(rfa_attention(ctx, &p[d].args) == RFA_OK, "a call after that");
        problem_destroy(&p[d]);
        rfa_context_destroy(ctx);
    }
    return result;
}

/* What a call costs the host, without the driver's part. */
static int own_cost(void)
{
    rfa_context *ctx;
    problem p;
    struct timespec begin, end;
    double best = 1;
    if (open_context(&ctx) != RFA_OK || !problem_create(&p, ctx, &problem_kinds[0]))
        return expect(false, "a problem");
    for (int round = 0; round < 20; round++) {
        clock_gettime(CLOCK_MONOTONIC, &begin);
        for (int i = 0; i < 100; i++)
            rfa_attention(ctx, &p.args);
        clock_gettime(CLOCK_MONOTONIC, &end);
        double seconds =
            (double)(end.tv_sec - begin.tv_sec) + 1e-9 * (double)(end.tv_nsec - begin.tv_nsec);
        best = seconds / 100 < best ? seconds / 100 : best;
    }
    fprintf(stderr, "  %.2f us a call\n", 1e6 * best);
    problem_destroy(&p);
    rfa_context_destroy(ctx);
    return expect(best < 10e-6, "under 10 us");
}

/* ---- All of it --------------------------------------------------------------------------------
 */

enum library { NONE, OLD, FAKE };

#define CASE(library, name)                                                                        \
    {                                                                                              \
#name, library, name                                                                       \
    }

static const struct {
    const char *name;
    enum library library;
    int (*run)(void);
} cases[] = {
    CASE(NONE, no_driver),
    CASE(OLD, old_entry),
    CASE(FAKE, old_version),
    CASE(FAKE, lacking_call),
    CASE(FAKE, no_card),
    CASE(FAKE, broken_start),
    CASE(FAKE, old_card),
    CASE(FAKE, unknown_kernels),
    CASE(FAKE, unknown_multiprocessors),
    CASE(FAKE, unknown_shared_memory),
    CASE(FAKE, calls_only_launch),
    CASE(FAKE, blocks_share_work),
    CASE(FAKE, kernels_suit_cards),
    CASE(FAKE, calls_only_launch_ampere),
    CASE(FAKE, calls_only_launch_generic),
    CASE(FAKE, memory_runs_out),
    CASE(FAKE, no_room_for_workspace),
    CASE(FAKE, capture_without_workspace),
    CASE(FAKE, earlier_fault),
    CASE(FAKE, other_device_is_refused),
    CASE(FAKE, own_cost),
};

/* The library's own name is libcuda.so.1: whoever asks for that later gets it. */
static bool load(const char *path)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
    if (!library) {
        fprintf(stderr, "%s\n", dlerror());
        return false;
    }
    fake = dlsym(library, FAKE_DRIVER_SYMBOL);
    if (fake)
        *fake = (fake_driver){.version = 99000,
                              .devices = 1,
                              .capability = 90,
                              .shared = 232448,
                              .memory = (size_t)1 << 30,
                              .stream = STREAM};
    return true;
}

static int run_case(int i, char **argv)
{
    unsetenv("RFA_CUDA_KERNELS");
    unsetenv("RFA_CUDA_MULTIPROCESSORS");
    unsetenv("RFA_CUDA_SHARED_MEMORY");
    unsetenv("RFA_BACKEND");
    if (cases[i].library != NONE && !load(cases[i].library == OLD ? argv[2] : argv[1]))
        return FAILED;
    return cases[i].run();
}

int main(int argc, char **argv)
{
    int count[3] = {0, 0, 0};
    if (argc != 3) {
        fprintf(stderr, "usage: test_driver FAKE_LIBRARY OLD_LIBRARY\n");
        return 2;
    }
    for (int i = 0; i < (int)(sizeof(cases) / sizeof(cases[0])); i++) {
        int status = 0;
        fflush(stdout);
        pid_t child = fork();
        if (child == 0)
            exit(run_case(i, argv));
        waitpid(child, &status, 0);
        int result = WIFEXITED(status) ? WEXITSTATUS(status) : FAILED;
        count[result == PASSED ? 0 : result == SKIPPED ? 2 : 1]++;
        printf("%s: %s\n", cases[i].name,
               result == PASSED    ? "passed"
               : result == SKIPPED ? "skipped"
                                   : "FAILED");
    }
    printf("%d passed, %d failed, %d skipped\n", count[0], count[1], count[2]);
    return count[1] > 0;
}
