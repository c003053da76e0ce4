/* Many threads, each with contexts of its own: they race for the first use of the
 * library, run calls of every kind on both CPU backends with errors in between, and
 * get the bits that one thread alone gets, and only their own errors. Contexts then
 * change threads.
 *
 * Meant for the thread sanitizer (-Db_sanitize=thread -Dopenmp=disabled: the OpenMP
 * runtime is not instrumented, so that its barriers would look like races); true
 * without it too. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jobs.h"

enum { THREADS = 6, ROUNDS = 2 };

static const char *const backends[] = {"cpu", "reference"};

typedef struct worker {
    pthread_t thread;
    int number;
    bool ok;
    rfa_context *ctx; /* left for the next thread */
    job *jobs[JOB_KINDS];
} worker;

static pthread_barrier_t start;

static bool complain(const worker *w, const char *what)
{
    printf("FAILED thread %d: %s: %s\n", w->number, what, rfa_last_error(NULL));
    return false;
}

static rfa_status create(rfa_context **ctx, const char *backend)
{
    rfa_context_options options = RFA_CONTEXT_OPTIONS_INIT;
    options.backend = backend;
    options.threads = 2;
    return rfa_context_create(ctx, &options);
}

/* Every thread comes in by another door. */
static bool use_first(const worker *w)
{
    rfa_backend_info info;
    rfa_device_info device;
    rfa_context *ctx = NULL;
    int32_t count;
    switch (w->number % 5) {
    case 0: return rfa_backend_count() >= 2;
    case 1: return rfa_backend_get(1, &info) == RFA_OK && info.path[0] == '/';
    case 2: return rfa_device_count("reference", &count) == RFA_OK && count == 1;
    case 3: return rfa_device_get("cpu", 0, &device) == RFA_OK && device.status == RFA_OK;
    default:
        if (rfa_context_create(&ctx, NULL) != RFA_OK)
            return false;
        rfa_context_destroy(ctx);
        return true;
    }
}

/* An error of this thread's own, on a context and without one. */
static bool make_errors(const worker *w, rfa_context *ctx)
{
    char name[32];
    int32_t count;
    job *bad = job_new(JOB_PLAIN, 1);
    snprintf(name, sizeof(name), "abacus%d", w->number);
    bool ok = rfa_device_count(name, &count) == RFA_NO_DEVICE &&
              strstr(rfa_last_error(NULL), name) != NULL;
    if (!ok || !bad) {
        job_free(bad);
        return complain(w, "not its own error");
    }
    job_args(bad)->block_q = -1 - w->number;
    snprintf(name, sizeof(name), "%d", -1 - w->number);
    ok = job_call(bad, ctx) == RFA_INVALID_ARGUMENT && strstr(rfa_last_error(NULL), name) != NULL &&
         strcmp(rfa_last_error(ctx), rfa_last_error(NULL)) == 0 && job_is_poisoned(bad);
    job_free(bad);
    return ok || complain(w, "not its own error of a call");
}

/* `first`: sets what later calls on the same backend are compared with. */
static bool run_jobs(worker *w, rfa_context *ctx, bool first)
{
    for (int i = 0; i < JOB_KINDS; i++) {
        job *j = w->jobs[(i + w->number) % JOB_KINDS];
        job_poison(j);
        if (job_call(j, ctx) != RFA_OK)
            return complain(w, "a call failed");
        if (first)
            job_remember(j);
        else if (!job_is_as_remembered(j))
            return complain(w, "a call gave other bits than before");
        if (!make_errors(w, ctx))
            return false;
    }
    return true;
}

static bool work(worker *w)
{
    for (int b = 0; b < 2; b++)
        for (int round = 0; round < ROUNDS; round++) {
            const char *backend = backends[(b + w->number) % 2];
            if (create(&w->ctx, backend) != RFA_OK)
                return complain(w, "no context");
            if (!run_jobs(w, w->ctx, round == 0))
                return false;
            if (b == 1 && round == ROUNDS - 1)
                break; /* the next thread goes on with it */
            rfa_context_destroy(w->ctx);
            w->ctx = NULL;
        }
    return true;
}

static void *begin(void *argument)
{
    worker *w = argument;
    pthread_barrier_wait(&start);
    w->ok = use_first(w) || complain(w, "the first use failed");
    w->ok = w->ok && work(w);
    return NULL;
}

/* With another thread's context: same backend, so the same bits. */
static void *go_on(void *argument)
{
    worker *w = argument;
    w->ok = run_jobs(w, w->ctx, false);
    rfa_context_destroy(w->ctx);
    w->ctx = NULL;
    return NULL;
}

static bool run_all(worker *workers, void *(*function)(void *))
{
    bool ok = true;
    for (int i = 0; i < THREADS; i++)
        if (pthread_create(&workers[i].thread, NULL, function, &workers[i]) != 0) {
            printf("FAILED a thread cannot be started\n");
            _Exit(1); /* the others wait at the barrier */
        }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(workers[i].thread, NULL);
        ok = ok && workers[i].ok;
    }
    return ok;
}

/* Threads of one parity ended on one backend, with jobs of one seed. */
static bool all_alike(const worker *workers)
{
    for (int i = 2; i < THREADS; i++)
        for (int kind = 0; kind < JOB_KINDS; kind++)
            if (!job_gave_the_same(workers[i].jobs[kind], workers[i - 2].jobs[kind])) {
                printf("FAILED threads %d and %d: %s gave different bits\n", i, i - 2,
                       job_name((job_kind)kind));
                return false;
            }
    return true;
}

static int passed, failed;

static void count(bool ok, const char *what)
{
    *(ok ? &passed : &failed) += 1;
    printf("%s %s\n", ok ? "ok" : "FAILED", what);
}

int main(void)
{
    worker workers[THREADS] = {{0}};
    bool ready = pthread_barrier_init(&start, NULL, THREADS) == 0;
    for (int i = 0; i < THREADS; i++) {
        workers[i].number = i;
        for (int kind = 0; kind < JOB_KINDS; kind++) {
            workers[i].jobs[kind] = job_new((job_kind)kind, (uint32_t)(kind + 1));
            ready = ready && workers[i].jobs[kind];
        }
    }
    if (!ready) {
        printf("FAILED no memory\n0 passed, 1 failed, 0 skipped\n");
        return 1;
    }
    bool ok = run_all(workers, begin);
    count(ok, "the first use, contexts, calls and errors in all threads at once");
    count(ok && all_alike(workers), "the same bits in all threads");
    count(ok && run_all(workers, go_on), "contexts that change threads");
    for (int i = 0; i < THREADS; i++) {
        rfa_context_destroy(workers[i].ctx);
        for (int kind = 0; kind < JOB_KINDS; kind++)
            job_free(workers[i].jobs[kind]);
    }
    pthread_barrier_destroy(&start);
    printf("%d passed, %d failed, 0 skipped\n", passed, failed);
    return failed > 0;
}
