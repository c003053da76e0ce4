/* What the cuda backend promises on a card: the caller's stream alone, graphs that
 * are captured once and run with other inputs and knobs, several threads and
 * devices, the caller's context left as it was, and an answer after a fault. Each
 * case is a process of its own; without a card all are skipped. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "device_driver.h"
#include "problems.h"

enum { SECONDS = 120 };
enum { KINDS = 4 }; /* of problems that threads and devices take */

/* What the problem gives now, by a call of its own; the caller frees it. */
static void *result_of(problem *p, CUstream stream)
{
    void *out = malloc(problem_out_size(p));
    p->args.stream = stream;
    if (out && rfa_attention(p->ctx, &p->args) == RFA_OK && problem_read(p, out, stream))
        return out;
    free(out);
    return NULL;
}

/* ---- Graphs ------------------------------------------------------------------------------------
 */

static bool capture(problem *p, CUstream stream, CUgraphExec *made)
{
    CUgraph graph = NULL;
    p->args.stream = stream;
    cu.StreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_GLOBAL);
    rfa_status status = rfa_attention(p->ctx, &p->args);
    CUresult result = cu.StreamEndCapture(stream, &graph);
    bool good = status == RFA_OK && result == CUDA_SUCCESS &&
                cu.GraphInstantiateWithFlags(made, graph, 0) == CUDA_SUCCESS;
    if (graph)
        cu.GraphDestroy(graph);
    return good;
}

/* Other values and knobs than those at hand give, by the graph, what a call gives. */
static int check_replay(problem *p, CUstream stream, CUgraphExec graph, unsigned seed, float knob)
{
    size_t size = problem_out_size(p);
    void *replayed = malloc(size);
    if (!replayed)
        return expect(false, "memory");
    bool filled = problem_fill(p, seed) && (!p->knobs || problem_set_knob(p, knob));
    cu.GraphLaunch(graph, stream);
    int result = expect(filled && problem_read(p, replayed, stream), "the graph runs");
    void *called = result_of(p, stream);
    result |=
        expect(called && memcmp(called, replayed, size) == 0, "a graph gives what a call gives");
    free(replayed);
    free(called);
    return result;
}

static int check_graph(rfa_context *ctx, CUstream stream, const problem_kind *kind, bool own)
{
    problem p;
    CUgraphExec graph = NULL;
    if (!problem_create(&p, ctx, kind))
        return expect(false, kind->name);
    if (own) {
        free(result_of(&p, stream)); /* the context's workspace grows */
        rfa_device_free(ctx, p.args.workspace);
        p.args.workspace = NULL;
        p.args.workspace_size = 0;
        free(result_of(&p, stream));
    }
    int result = expect(capture(&p, stream, &graph), kind->name);
    if (result == PASSED)
        result = check_replay(&p, stream, graph, 1, 0.8f) |
                 check_replay(&p, stream, graph, 2, 0.8f) |
                 check_replay(&p, stream, graph, 2, 0.5f) | check_replay(&p, stream, graph, 3, -1);
    if (result != PASSED)
        fprintf(stderr, "  in %s\n", kind->name);
    if (graph)
        cu.GraphExecDestroy(graph);
    problem_destroy(&p);
    return result;
}

static int graphs(void)
{
    enter(0);
    rfa_context *ctx = open_context(0);
    CUstream stream = make_stream();
    int result = PASSED;
    for (int i = 0; ctx && i < problem_kind_count; i++)
        result |= check_graph(ctx, stream, &problem_kinds[i], i == 1);
    rfa_context_destroy(ctx);
    return ctx ? result : FAILED;
}

/* The first call of a process under capture: nothing is left to load then. */
static int capture_first(void)
{
    enter(0);
    rfa_context *ctx = open_context(0);
    int result = ctx ? check_graph(ctx, make_stream(), &problem_kinds[4], false) : FAILED;
    rfa_context_destroy(ctx);
    return result;
}

/* ---- Packs -------------------------------------------------------------------------------------
 */

/* Puts NaN in place of q, k and v from row `first` of a pack's tensor on, `count` rows. */
static bool spoil(problem *p, const DLTensor *rows, int64_t first, int64_t count)
{
    size_t row = (size_t)(rows->shape[1] * rows->shape[2]) * 2, size = (size_t)count * row;
    void *nans = malloc(size);
    if (!nans)
        return false;
    memset(nans, 0xff, size);
    bool done =
        rfa_device_write(p->ctx, rows->data, (size_t)first * row, nans, size, NULL) == RFA_OK;
    free(nans);
    return done;
}

/* What a sequence gives, bit by bit, does not depend on its neighbours' rows or on nobody's. */
static int sequences_apart(void)
{
    const problem_kind three = {"three sequences", {kDLBfloat, 16, 1},    3, 4, 2, 300, 700, 128,
                                .packed = true,    .rule = RFA_RULE_DENSE};
    const problem_kind *kind = &three;
    problem p;
    enter(0);
    rfa_context *ctx = open_context(0);
    CUstream stream = make_stream();
    if (!ctx || !problem_create(&p, ctx, kind))
        return expect(false, kind->name);
    int64_t middle_q = kind->len_q, middle_k = kind->len_k; /* half as long as the others */
    int64_t end_q = middle_q + middle_q / 2, end_k = middle_k + middle_k / 2;
    char *before = result_of(&p, stream);
    bool spoilt = spoil(&p, p.args.q, middle_q, middle_q / 2);
    for (int i = 0; i < 2; i++) {
        const DLTensor *rows = i == 0 ? p.args.k : p.args.v;
        spoilt &= spoil(&p, rows, middle_k, middle_k / 2) &&
                  spoil(&p, rows, end_k + middle_k, rows->shape[0] - end_k - middle_k);
    }
    char *after = result_of(&p, stream);
    size_t row = (size_t)(kind->heads * kind->dim) * 2;
    int result = expect(before && after && spoilt, kind->name);
    if (result == PASSED)
        result = expect(memcmp(before, after, (size_t)middle_q * row) == 0, "the first") |
                 expect(memcmp(before + (size_t)end_q * row, after + (size_t)end_q * row,
                               (size_t)middle_q * row) == 0,
                        "the last");
    free(before);
    free(after);
    problem_destroy(&p);
    rfa_context_destroy(ctx);
    return result;
}

/* ---- Streams
 * -------------------------------------------------------------------------------------- */

/* Behind a stream that stands still, calls return; then it goes on, and they are right. */
static int calls_do_not_wait(void)
{
    CUdeviceptr flag = 0;
    problem p;
    enter(0);
    rfa_context *ctx = open_context(0);
    CUstream stream = make_stream(), other = make_stream();
    int result = PASSED;
    cu.MemAlloc(&flag, 4);
    for (int i = 0; ctx && i < problem_kind_count; i++) {
        cu.StreamWriteValue32(other, flag, 0, CU_STREAM_WRITE_VALUE_DEFAULT);
        cu.StreamSynchronize(other);
        if (!problem_create(&p, ctx, &problem_kinds[i]))
            return expect(false, problem_kinds[i].name);
        size_t size = problem_out_size(&p);
        void *after = malloc(size);
        if (!after)
            return expect(false, "memory");
        p.args.stream = stream;
        cu.StreamWaitValue32(stream, flag, 1, CU_STREAM_WAIT_VALUE_EQ);
        result |= expect(rfa_attention(ctx, &p.args) == RFA_OK, "a call behind a halt");
        cu.StreamWriteValue32(other, flag, 1, CU_STREAM_WRITE_VALUE_DEFAULT);
        result |= expect(problem_read(&p, after, stream), "its result");
        void *expected = result_of(&p, stream);
        result |= expect(expected && memcmp(expected, after, size) == 0, problem_kinds[i].name);
        free(after);
        free(expected);
        problem_destroy(&p);
    }
    rfa_context_destroy(ctx);
    return ctx ? result : FAILED;
}

/* ---- Threads, devices, contexts ----------------------------------------------------------------
 */

typedef struct job {
    int device, kind;
    size_t size;
    void *out; /* NULL: it failed */
} job;

static void *work(void *data)
{
    job *own = data;
    problem p;
    own->out = NULL;
    enter(own->device);
    rfa_context *ctx = open_context(own->device);
    CUstream stream = make_stream();
    if (ctx && problem_create(&p, ctx, &problem_kinds[own->kind])) {
        own->size = problem_out_size(&p);
        for (int round = 0; round < 20; round++) {
            free(own->out);
            own->out = result_of(&p, stream);
        }
        problem_destroy(&p);
    }
    rfa_context_destroy(ctx);
    return NULL;
}

/* Jobs i and i + kinds are alike. */
static int check_jobs(job *jobs, int kinds)
{
    int result = PASSED;
    for (int i = 0; i < kinds; i++) {
        const job *a = &jobs[i], *b = &jobs[i + kinds];
        result |=
            expect(a->out && b->out && memcmp(a->out, b->out, a->size) == 0, problem_kinds[i].name);
    }
    return result;
}

/* Every job by a thread of its own, all at once. */
static int check_threads(job *jobs, int kinds)
{
    pthread_t thread[2 * KINDS];
    for (int i = 0; i < 2 * kinds; i++)
        pthread_create(&thread[i], NULL, work, &jobs[i]);
    for (int i = 0; i < 2 * kinds; i++)
        pthread_join(thread[i], NULL);
    return check_jobs(jobs, kinds);
}

static int threads(void)
{
    job jobs[2 * KINDS];
    for (int i = 0; i < 2 * KINDS; i++)
        jobs[i] = (job){.device = 0, .kind = i % KINDS};
    return check_threads(jobs, KINDS);
}

/* One thread calls now here, now there, on one kind of problem. */
static int alternate(int kind)
{
    problem p[2];
    CUstream stream[2];
    bool good = true;
    for (int d = 0; d < 2; d++) {
        enter(d);
        rfa_context *ctx = open_context(d);
        stream[d] = make_stream();
        if (!ctx || !problem_create(&p[d], ctx, &problem_kinds[kind]))
            return expect(false, problem_kinds[kind].name);
        p[d].args.stream = stream[d];
    }
    for (int round = 0; round < 40; round++)
        good &= rfa_attention(p[round % 2].ctx, &p[round % 2].args) == RFA_OK;
    void *out[2] = {result_of(&p[0], stream[0]), result_of(&p[1], stream[1])};
    good &= out[0] && out[1] && memcmp(out[0], out[1], problem_out_size(&p[0])) == 0;
    for (int d = 0; d < 2; d++) {
        rfa_context *ctx = p[d].ctx;
        free(out[d]);
        problem_destroy(&p[d]);
        rfa_context_destroy(ctx);
    }
    return expect(good, problem_kinds[kind].name);
}

static int two_devices(void)
{
    job jobs[2 * KINDS];
    int count = 0, result = PASSED;
    cu.DeviceGetCount(&count);
    if (count < 2) {
        printf("SKIP: this machine has one device\n");
        return SKIPPED;
    }
    for (int i = 0; i < 2 * KINDS; i++)
        jobs[i] = (job){.device = i / KINDS, .kind = i % KINDS};
    result |= check_threads(jobs, KINDS);
    for (int kind = 0; kind < KINDS; kind++)
        result |= alternate(kind);
    return result;
}

static bool is_current(CUcontext expected)
{
    CUcontext current = NULL;
    return cu.CtxGetCurrent(&current) == CUDA_SUCCESS && current == expected;
}

/* Whatever was current before a call is after it: nothing, or another device. */
static int current_context_stays(void)
{
    int count = 0, result = PASSED;
    cu.DeviceGetCount(&count);
    CUcontext other = enter(count - 1), before[] = {NULL, other};
    for (int i = 0; i < 2; i++) {
        problem p;
        cu.CtxSetCurrent(before[i]);
        rfa_context *ctx = open_context(0);
        result |= expect(ctx && is_current(before[i]), "after opening a context");
        result |= expect(problem_create(&p, ctx, &problem_kinds[1]) && is_current(before[i]),
                         "after allocating and copying");
        void *out = result_of(&p, NULL);
        result |= expect(out && is_current(before[i]), "after a call");
        free(out);
        rfa_synchronize(ctx, NULL);
        problem_destroy(&p);
        rfa_context_destroy(ctx);
        result |= expect(is_current(before[i]), "after closing it");
    }
    return result;
}

/* ---- Trouble
 * -------------------------------------------------------------------------------------- */

static int memory_runs_out(void)
{
    problem p;
    void *data = NULL;
    rfa_context *ctx = open_context(0);
    if (!ctx || !problem_create(&p, ctx, &problem_kinds[0]))
        return expect(false, "a problem");
    int result = expect(rfa_device_alloc(ctx, (size_t)1 << 50, &data) == RFA_OUT_OF_MEMORY && !data,
                        "a status for too much memory") |
                 expect(strstr(rfa_last_error(ctx), "no room for") != NULL, "its sentence");
    void *out = result_of(&p, NULL);
    result |= expect(out != NULL, "a call after it");
    free(out);
    problem_destroy(&p);
    rfa_context_destroy(ctx);
    return result;
}

/* A kernel of the caller's writes to address 0; the library's next answers say so. */
static int earlier_fault(void)
{
    static const char ptx[] = ".version 7.0\n.target sm_80\n.address_size 64\n"
                              ".visible .entry fault()\n{\n.reg .b64 %a;\nmov.u64 %a, 0;\n"
                              "st.global.u32 [%a], 1;\nret;\n}\n";
    CUmodule module;
    CUfunction function;
    problem p;
    enter(0);
    rfa_context *ctx = open_context(0);
    CUstream stream = make_stream();
    if (!ctx || !problem_create(&p, ctx, &problem_kinds[0]) ||
        cu.ModuleLoadData(&module, ptx) != CUDA_SUCCESS ||
        cu.ModuleGetFunction(&function, module, "fault") != CUDA_SUCCESS)
        return expect(false, "a kernel that fails");
    cu.LaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, stream, NULL, NULL);
    cu.StreamSynchronize(stream);
    p.args.stream = stream;
    int result = expect(rfa_attention(ctx, &p.args) == RFA_DEVICE_ERROR, "a call after a fault") |
                 expect(strstr(rfa_last_error(ctx), "a fault of work queued earlier") != NULL,
                        "its sentence") |
                 expect(rfa_synchronize(ctx, stream) == RFA_DEVICE_ERROR, "a wait after a fault");
    fprintf(stderr, "  \"%s\"\n", rfa_last_error(ctx));
    problem_destroy(&p);
    rfa_context_destroy(ctx);
    return result;
}

/* ---- All of it --------------------------------------------------------------------------------
 */

#define CASE(name)                                                                                 \
    {                                                                                              \
#name, name                                                                                \
    }

static const struct {
    const char *name;
    int (*run)(void);
} cases[] = {
    CASE(graphs),
    CASE(capture_first),
    CASE(sequences_apart),
    CASE(calls_do_not_wait),
    CASE(threads),
    CASE(two_devices),
    CASE(current_context_stays),
    CASE(two_streams),
    CASE(stream_that_goes),
    CASE(workspace_grows),
    CASE(capture_without_room),
    CASE(capture_of_own_workspace),
    CASE(timer),
    CASE(memory_runs_out),
    CASE(earlier_fault),
};

static int run_case(int i)
{
    rfa_device_info info;
    rfa_status status = rfa_device_get("cuda", 0, &info);
    if (status != RFA_OK || info.status != RFA_OK) {
        printf("SKIP: %s\n", status == RFA_OK ? info.why : rfa_last_error(NULL));
        return SKIPPED;
    }
    alarm(SECONDS); /* what hangs has failed */
    return load_driver() ? cases[i].run() : expect(false, "the driver's calls");
}

int main(void)
{
    int count[3] = {0, 0, 0};
    for (int i = 0; i < (int)(sizeof(cases) / sizeof(cases[0])); i++) {
        int status = 0;
        fflush(stdout);
        pid_t child = fork();
        if (child == 0)
            exit(run_case(i));
        waitpid(child, &status, 0);
        int result = WIFEXITED(status) ? WEXITSTATUS(status) : FAILED;
        count[result == PASSED ? 0 : result == SKIPPED ? 2 : 1]++;
        printf("%s: %s\n", cases[i].name,
               result == PASSED    ? "passed"
               : result == SKIPPED ? "skipped"
                                   : "FAILED");
    }
    printf("%d passed, %d failed, %d skipped\n", count[0], count[1], count[2]);
    return count[1] > 0 ? FAILED : count[0] > 0 ? PASSED : SKIPPED;
}
