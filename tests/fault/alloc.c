/* The n-th allocation fails, for every n that a call reaches, alone or with all
 * that follow: the call succeeds or says that memory ran out, in one sentence; it
 * leaves outputs untouched, frees what it took, and works when called again.
 *
 * failing_malloc.h says what is not counted. Leaks show as allocations of the call
 * that are left when its context is gone; LeakSanitizer, where it is built in,
 * also sees those of the first use, which keeps the list of backends. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "failing_malloc.h"
#include "jobs.h"

static const char *const backends[] = {"cpu", "reference"};
enum { BACKENDS = 2, THREADS = 2, MOST = 100000 };

static int passed, failed;

/* One attempt: what is tried and which allocation fails. */
typedef struct attempt {
    const char *what;
    const char *backend; /* NULL: the default one */
    job_kind kind;
    long at;
    bool onwards;
} attempt;

static bool complain(const attempt *a, const char *what, const char *detail)
{
    printf("FAILED %s, %s: allocation %ld%s: %s%s%s\n", a->backend ? a->backend : "default backend",
           a->what, a->at, a->onwards ? " and later ones" : "", what, detail[0] ? ": " : "",
           detail);
    return false;
}

static bool is_a_sentence(const char *text)
{
    return strlen(text) > 8 && !strchr(text, '\n');
}

static rfa_status create(const attempt *a, rfa_context **ctx)
{
    rfa_context_options options = RFA_CONTEXT_OPTIONS_INIT;
    options.backend = a->backend;
    options.threads = THREADS;
    return rfa_context_create(ctx, &options);
}

/* RFA_OK, or RFA_OUT_OF_MEMORY after an allocation did fail, with a sentence. */
static bool is_fair(const attempt *a, rfa_status status, const char *error, long failures)
{
    if (status == RFA_OK)
        return true;
    if (status != RFA_OUT_OF_MEMORY)
        return complain(a, rfa_status_name(status), error);
    if (failures == 0)
        return complain(a, "out of memory, but nothing failed", error);
    return is_a_sentence(error) || complain(a, "no sentence", error);
}

/* ---- A call on a context ------------------------------------------------------------ */

static bool call_under_failure(const attempt *a, job *j, rfa_context *ctx)
{
    rfa_status status = job_call(j, ctx);
    if (!is_fair(a, status, rfa_last_error(ctx), status != RFA_OK))
        return false;
    if (status == RFA_OK && !job_is_as_remembered(j))
        return complain(a, "other bits than without the failure", "");
    if (status != RFA_OK && !job_is_poisoned(j))
        return complain(a, "failed, and outputs were touched", "");
    fail_pause();
    job_poison(j);
    if (job_call(j, ctx) != RFA_OK)
        return complain(a, "the context does not work afterwards", rfa_last_error(ctx));
    return job_is_as_remembered(j) || complain(a, "other bits afterwards", "");
}

static bool try_call(const attempt *a, job *j, fail_tally *tally)
{
    rfa_context *ctx;
    if (create(a, &ctx) != RFA_OK)
        return complain(a, "no context", rfa_last_error(NULL));
    job_poison(j);
    fail_arm(a->at, a->onwards);
    bool ok = call_under_failure(a, j, ctx);
    rfa_context_destroy(ctx);
    *tally = fail_disarm();
    if (ok && tally->left != 0)
        ok = complain(a, "allocations were left", "");
    return ok;
}

/* The bits that the call gives when nothing fails. */
static bool remember(const attempt *a, job *j)
{
    rfa_context *ctx;
    if (create(a, &ctx) != RFA_OK)
        return complain(a, "no context", rfa_last_error(NULL));
    bool ok = job_call(j, ctx) == RFA_OK ||
              complain(a, "fails when nothing is wrong", rfa_last_error(ctx));
    job_remember(j);
    rfa_context_destroy(ctx);
    return ok;
}

/* A backend that finds its own memory must be seen to ask for it; the cpu backend
 * asks for a workspace only, and for nothing to merge. */
static bool reaches_enough(const attempt *a, long reached)
{
    bool reference = strcmp(a->backend, "reference") == 0;
    long least = a->kind == JOB_MERGE ? 0 : reference ? 8 : 1;
    return reached >= least || complain(a, "too few allocations were seen", "");
}

static void test_calls(const char *backend, job_kind kind, bool onwards)
{
    attempt a = {.what = job_name(kind), .backend = backend, .kind = kind, .onwards = onwards};
    job *j = job_new(kind, 1);
    fail_tally tally = {.failed = 1};
    bool ok = j && remember(&a, j);
    for (a.at = 1; ok && tally.failed > 0 && a.at < MOST; a.at++)
        ok = try_call(&a, j, &tally);
    ok = ok && reaches_enough(&a, a.at - 2);
    job_free(j);
    if (ok)
        printf("ok %s, %s, allocations reached: %ld%s\n", backend, job_name(kind), a.at - 2,
               onwards ? ", each with all later ones" : "");
    *(ok ? &passed : &failed) += 1;
}

/* A workspace that cannot grow: what worked before still does. */
static void test_growth(void)
{
    attempt a = {.what = "a larger workspace", .backend = "cpu", .kind = JOB_PREDICTED, .at = 1};
    job *small = job_new(JOB_LIST, 1), *large = job_new(JOB_PREDICTED, 2);
    rfa_context *ctx = NULL;
    bool ok = small && large && remember(&a, large) && create(&a, &ctx) == RFA_OK &&
              job_call(small, ctx) == RFA_OK;
    job_remember(small);
    job_poison(large);
    fail_arm(1, false);
    ok = ok && call_under_failure(&a, large, ctx);
    fail_tally tally = fail_disarm();
    if (ok && tally.failed == 0)
        ok = complain(&a, "the workspace did not grow", "");
    job_poison(small);
    ok = ok && job_call(small, ctx) == RFA_OK && job_is_as_remembered(small);
    rfa_context_destroy(ctx);
    job_free(small);
    job_free(large);
    printf("%s a workspace that cannot grow\n", ok ? "ok" : "FAILED");
    *(ok ? &passed : &failed) += 1;
}

/* ---- Contexts -------------------------------------------------------------------------- */

static bool try_context(const attempt *a, fail_tally *tally)
{
    rfa_context *ctx = NULL;
    fail_arm(a->at, a->onwards);
    rfa_status status = create(a, &ctx);
    fail_pause();
    bool ok = is_fair(a, status, rfa_last_error(NULL), status != RFA_OK);
    if (ok && (status == RFA_OK) != (ctx != NULL))
        ok = complain(a, "status and context do not agree", "");
    rfa_context_destroy(ctx);
    *tally = fail_disarm();
    return ok;
}

static void test_contexts(const char *backend)
{
    attempt a = {.what = "a context", .backend = backend};
    fail_tally tally = {.failed = 1};
    bool ok = rfa_backend_count() > 0; /* the list is kept, and counted nowhere */
    for (a.at = 1; ok && tally.failed > 0 && a.at < MOST; a.at++) {
        ok = try_context(&a, &tally);
        if (ok && tally.left != 0)
            ok = complain(&a, "allocations were left", "");
    }
    if (ok && a.at - 2 < 2)
        ok = complain(&a, "too few allocations were seen", "");
    if (ok)
        printf("ok %s, a context, allocations reached: %ld\n", backend, a.at - 2);
    *(ok ? &passed : &failed) += 1;
}

/* ---- The first use ---------------------------------------------------------------------- */

/* A module that the loader had no memory for stays out until the process ends; its
 * line says so. */
static bool lost_a_module(void)
{
    rfa_backend_info info;
    for (size_t i = 0; i < rfa_backend_count(); i++)
        if (rfa_backend_get(i, &info) == RFA_OK && info.status == RFA_OUT_OF_MEMORY)
            return true;
    return false;
}

static bool works_afterwards(const attempt *a)
{
    rfa_context *ctx = NULL;
    rfa_status status = create(a, &ctx);
    if (status == RFA_OUT_OF_MEMORY && lost_a_module())
        return true;
    if (status != RFA_OK)
        return complain(a, "no context afterwards", rfa_last_error(NULL));
    job *j = job_new(a->kind, 1);
    bool ok = j && (job_call(j, ctx) == RFA_OK ||
                    complain(a, "does not work afterwards", rfa_last_error(ctx)));
    job_free(j);
    rfa_context_destroy(ctx);
    return ok;
}

enum { CHILD_OK = 0, CHILD_BEYOND = 10, CHILD_FAILED = 11 };

/* The list of backends is made once in a process, so every attempt gets its own. */
static int first_use(const attempt *a)
{
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        fail_tally tally;
        bool ok = try_context(a, &tally) && works_afterwards(a);
        exit(!ok ? CHILD_FAILED : tally.failed > 0 ? CHILD_OK : CHILD_BEYOND);
    }
    int status;
    if (child < 0 || waitpid(child, &status, 0) != child)
        return CHILD_FAILED;
    int code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    if (code == CHILD_OK || code == CHILD_BEYOND || code == CHILD_FAILED)
        return code;
    char text[64]; /* a sanitizer has an exit code of its own, for leaks too */
    snprintf(text, sizeof(text), "wait status 0x%x", (unsigned)status);
    complain(a, "the process died", text);
    return CHILD_FAILED;
}

static void test_first_use(const char *backend, bool onwards)
{
    attempt a = {.what = "first use", .backend = backend, .onwards = onwards};
    int result = CHILD_OK, bad = 0;
    for (a.at = 1; result != CHILD_BEYOND && a.at < MOST && bad < 10; a.at++) {
        result = first_use(&a);
        bad += result == CHILD_FAILED;
    }
    if (bad == 0 && a.at - 2 < 10) {
        complain(&a, "too few allocations were seen", "");
        bad++;
    }
    if (bad == 0)
        printf("ok %s, first use, allocations reached: %ld%s\n",
               backend ? backend : "default backend", a.at - 2,
               onwards ? ", each with all later ones" : "");
    *(bad == 0 ? &passed : &failed) += 1;
}

int main(void)
{
    unsetenv("RFA_BACKEND");
    unsetenv("RFA_BACKEND_PATH");
    /* First, while this process has not made the list itself. */
    for (int onwards = 0; onwards < 2; onwards++) {
        test_first_use("cpu", onwards);
        test_first_use(NULL, onwards);
    }
    for (int b = 0; b < BACKENDS; b++) {
        test_contexts(backends[b]);
        for (int kind = 0; kind < JOB_KINDS; kind++)
            for (int onwards = 0; onwards < 2; onwards++)
                test_calls(backends[b], (job_kind)kind, onwards);
    }
    test_growth();
    printf("%d passed, %d failed, 0 skipped\n", passed, failed);
    return failed > 0;
}
