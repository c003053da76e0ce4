/* A module's calls fail, each slot with each status, with and without a sentence: the
 * status and the sentence reach the caller, nothing leaks, what was not begun leaves
 * outputs untouched, and the context works afterwards. rfa_backend_failing.c is the
 * module. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "failing_malloc.h"
#include "jobs.h"

/* The module reads them at every call; they change in place, without an allocation. */
static char slot_setting[64] = "FAILING_SLOT=", status_setting[32] = "FAILING_STATUS=",
            silent_setting[32] = "FAILING_SILENTLY=";

static void set_failure(const char *slot, int status, bool silent)
{
    snprintf(slot_setting, sizeof(slot_setting), "FAILING_SLOT=%s", slot);
    snprintf(status_setting, sizeof(status_setting), "FAILING_STATUS=%d", status);
    snprintf(silent_setting, sizeof(silent_setting), "FAILING_SILENTLY=%s", silent ? "1" : "");
}

static void set_no_failure(void)
{
    set_failure("", 0, false);
}

/* ---- Calls that reach a slot ---------------------------------------------------------- */

typedef struct fixture {
    rfa_context *ctx, *other;
    job *attention, *list, *merge;
    void *data;
    char host[64];
} fixture;

static rfa_status count_devices(fixture *f)
{
    int32_t count;
    (void)f;
    return rfa_device_count("failing", &count);
}

static rfa_status describe_device(fixture *f)
{
    rfa_device_info info;
    (void)f;
    return rfa_device_get("failing", 0, &info);
}

static rfa_status create_context(fixture *f)
{
    rfa_context_options options = RFA_CONTEXT_OPTIONS_INIT;
    options.backend = "failing";
    f->other = f->ctx;
    rfa_status status = rfa_context_create(&f->other, &options);
    if ((status == RFA_OK) != (f->other != NULL))
        return (rfa_status)-1;
    rfa_context_destroy(f->other);
    return status;
}

static rfa_status ask_support(fixture *f)
{
    char why[512];
    rfa_status status = rfa_supports(f->ctx, job_args(f->attention), why, sizeof(why));
    const char *expected = status == RFA_OK ? "" : rfa_last_error(f->ctx);
    return strcmp(why, expected) == 0 ? status : (rfa_status)-1;
}

static rfa_status ask_size(fixture *f)
{
    size_t size;
    return rfa_workspace_size(f->ctx, job_args(f->attention), &size);
}

static rfa_status ask_list_size(fixture *f)
{
    size_t size;
    return rfa_visit_list_workspace_size(f->ctx, job_args(f->list), &size);
}

static rfa_status attend(fixture *f)
{
    return job_call(f->attention, f->ctx);
}

static rfa_status build_list(fixture *f)
{
    return job_call(f->list, f->ctx);
}

static rfa_status merge_parts(fixture *f)
{
    return job_call(f->merge, f->ctx);
}

static rfa_status allocate(fixture *f)
{
    void *data = f;
    rfa_status status = rfa_device_alloc(f->ctx, 100, &data);
    if ((status == RFA_OK) != (data != NULL))
        return (rfa_status)-1;
    rfa_device_free(f->ctx, data);
    return status;
}

static rfa_status write_data(fixture *f)
{
    return rfa_device_write(f->ctx, f->data, 8, f->host, sizeof(f->host), f);
}

static rfa_status read_data(fixture *f)
{
    return rfa_device_read(f->ctx, f->data, 8, f->host, sizeof(f->host), f);
}

static rfa_status synchronize(fixture *f)
{
    return rfa_synchronize(f->ctx, NULL);
}

static rfa_status time_nothing(fixture *f)
{
    rfa_timer *timer = (rfa_timer *)f;
    double seconds = 0;
    rfa_status status = rfa_timer_create(f->ctx, &timer);
    if ((status == RFA_OK) != (timer != NULL))
        return (rfa_status)-1;
    if (status == RFA_OK)
        status = rfa_timer_start(timer, f);
    if (status == RFA_OK)
        status = rfa_timer_stop(timer, f);
    if (status == RFA_OK)
        status = rfa_timer_read(timer, &seconds);
    rfa_timer_destroy(timer);
    return status == RFA_OK && !(seconds >= 0) ? (rfa_status)-1 : status;
}

static rfa_status describe_context(fixture *f)
{
    rfa_device_info info;
    return rfa_context_info(f->ctx, &info);
}

typedef struct reach {
    const char *slot, *call;
    rfa_status (*make)(fixture *f);
    bool on_context; /* its error is the context's too */
    bool used;       /* on a context that was used before, and so has a workspace */
    bool late;       /* it fails after work was done: outputs were written */
} reach;

static const reach reaches[] = {
    {"device_count", "rfa_device_count", count_devices, false, false, false},
    {"device_count", "rfa_device_get", describe_device, false, false, false},
    {"device_get", "rfa_device_get", describe_device, false, false, false},
    {"device_get", "rfa_context_info", describe_context, true, false, false},
    {"device_count", "rfa_context_create", create_context, false, false, false},
    {"device_get", "rfa_context_create", create_context, false, false, false},
    {"context_create", "rfa_context_create", create_context, false, false, false},
    {"plan", "rfa_supports", ask_support, true, false, false},
    {"plan", "rfa_workspace_size", ask_size, true, false, false},
    {"plan", "rfa_attention", attend, true, true, false},
    {"run", "rfa_attention", attend, true, false, false},
    {"plan_list", "rfa_workspace_size of a list", ask_list_size, true, false, false},
    {"plan_list", "rfa_build_visit_list", build_list, true, false, false},
    {"build_list", "rfa_build_visit_list", build_list, true, false, false},
    {"merge", "rfa_merge", merge_parts, true, false, false},
    {"workspace_take", "rfa_attention", attend, true, false, false},
    {"workspace_take", "rfa_build_visit_list", build_list, true, true, false},
    {"workspace_give", "rfa_attention", attend, true, false, true},
    {"alloc", "rfa_device_alloc", allocate, true, false, false},
    {"write", "rfa_device_write", write_data, true, false, false},
    {"read", "rfa_device_read", read_data, true, false, false},
    {"synchronize", "rfa_synchronize", synchronize, true, false, false},
    {"timer_create", "rfa_timer_create", time_nothing, true, false, false},
    {"timer_start", "rfa_timer_start", time_nothing, true, false, false},
    {"timer_stop", "rfa_timer_stop", time_nothing, true, false, false},
    {"timer_read", "rfa_timer_read", time_nothing, true, false, false},
};
enum { REACHES = sizeof(reaches) / sizeof(reaches[0]) };

/* ---- One failure ------------------------------------------------------------------------ */

static bool complain(const reach *r, rfa_status status, const char *what)
{
    printf("FAILED %s, slot %s with %s: %s (last error: \"%s\")\n", r->call, r->slot,
           rfa_status_name(status), what, rfa_last_error(NULL));
    return false;
}

static bool check_sentence(const reach *r, rfa_status status, bool silent, const rfa_context *ctx)
{
    char expected[128];
    snprintf(expected, sizeof(expected),
             silent ? "%.0s%s, and the backend does not say why" : "slot %s fails with %s", r->slot,
             rfa_status_name(status));
    if (strcmp(rfa_last_error(NULL), expected) != 0)
        return complain(r, status, "another sentence");
    if (r->on_context && strcmp(rfa_last_error(ctx), expected) != 0)
        return complain(r, status, "another sentence on the context");
    return true;
}

static bool are_poisoned(const fixture *f)
{
    return job_is_poisoned(f->attention) && job_is_poisoned(f->list) && job_is_poisoned(f->merge);
}

/* Twice, because the first failure must not pass for work that was done. */
static bool fails_twice(const reach *r, rfa_status status, bool silent, fixture *f)
{
    for (int i = 0; i < 2; i++) {
        set_failure(r->slot, (int)status, silent);
        rfa_status got = r->make(f);
        set_no_failure();
        if (got != status)
            return complain(r, status,
                            got == (rfa_status)-1 ? "status and outputs do not agree"
                                                  : rfa_status_name(got));
        if (!check_sentence(r, status, silent, f->ctx))
            return false;
        if (!r->late && !are_poisoned(f))
            return complain(r, status, "outputs were touched");
    }
    return true;
}

static bool works(const reach *r, rfa_status status, fixture *f)
{
    if (r->make(f) != RFA_OK)
        return complain(r, status, "the call does not work afterwards");
    job_args(f->attention)->stream = NULL;
    for (int i = 0; i < REACHES; i++)
        if (reaches[i].make(f) != RFA_OK)
            return complain(r, status, "another call does not work afterwards");
    return true;
}

static bool open_fixture(fixture *f, bool used)
{
    rfa_context_options options = RFA_CONTEXT_OPTIONS_INIT;
    options.backend = "failing";
    if (rfa_context_create(&f->ctx, &options) != RFA_OK ||
        rfa_device_alloc(f->ctx, 100, &f->data) != RFA_OK)
        return false;
    job_args(f->attention)->stream = NULL;
    bool ok = !used || attend(f) == RFA_OK;
    job_poison(f->attention);
    job_poison(f->list);
    job_poison(f->merge);
    return ok;
}

/* The context is destroyed while its synchronize fails: it goes all the same. */
static void close_fixture(fixture *f)
{
    rfa_device_free(f->ctx, f->data);
    set_failure("synchronize", RFA_DEVICE_ERROR, false);
    rfa_context_destroy(f->ctx);
    set_no_failure();
    f->ctx = NULL;
}

static bool test_failure(const reach *r, rfa_status status, bool silent, fixture *f)
{
    set_no_failure();
    fail_arm(0, false);
    bool ok = open_fixture(f, r->used) || complain(r, status, "no context");
    ok = ok && fails_twice(r, status, silent, f) && works(r, status, f);
    close_fixture(f);
    if (fail_disarm().left != 0)
        ok = complain(r, status, "memory was left behind");
    return ok;
}

/* ---- The default backend ------------------------------------------------------------------ */

static const char *const preferred_slots[] = {"device_count", "device_get", ""};

/* A backend that is preferred, but whose devices cannot be had, is passed over. */
static bool choose_default(const char *slot)
{
    rfa_context *ctx = NULL;
    setenv("FAILING_NAME", "cuda", 1);
    set_failure(slot, RFA_DEVICE_ERROR, false);
    bool ok = rfa_context_create(&ctx, NULL) == RFA_OK &&
              strcmp(rfa_context_backend(ctx), slot[0] ? "cpu" : "cuda") == 0;
    if (!ok)
        printf("FAILED the default backend when %s fails is \"%s\": %s\n",
               slot[0] ? slot : "nothing", rfa_context_backend(ctx), rfa_last_error(NULL));
    rfa_context_destroy(ctx);
    return ok;
}

/* A device that is listed as unusable is passed over, unless it is asked for. */
static bool choose_device(const char *name)
{
    rfa_context *ctx = NULL;
    rfa_device_info info;
    rfa_context_options options = RFA_CONTEXT_OPTIONS_INIT;
    set_no_failure();
    setenv("FAILING_NAME", "cuda", 1);
    setenv("FAILING_UNUSABLE", "1", 1);
    options.backend = name[0] ? name : NULL;
    bool ok = rfa_context_create(&ctx, &options) == RFA_OK &&
              strcmp(rfa_context_backend(ctx), "cuda") == 0 &&
              rfa_context_info(ctx, &info) == RFA_OK && info.status == RFA_OK;
    rfa_context_destroy(ctx);
    options.device = 0;
    ok = ok && rfa_context_create(&ctx, &options) == RFA_NO_DEVICE;
    if (!ok)
        printf("FAILED to choose the usable device: %s\n", rfa_last_error(NULL));
    return ok;
}

/* In a process of its own: modules are loaded once. */
static bool test_default(bool (*choose)(const char *what), const char *what)
{
    int status;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0)
        exit(choose(what) ? 0 : 1);
    return child > 0 && waitpid(child, &status, 0) == child && status == 0;
}

int main(void)
{
    int passed = 0, failed = 0;
    fixture f = {0};
    setenv("RFA_BACKEND_PATH", FAILING_MODULE_FOLDER, 1);
    unsetenv("RFA_BACKEND");
    unsetenv("FAILING_DEVICE");
    putenv(slot_setting);
    putenv(status_setting);
    putenv(silent_setting);
    for (int i = 0; i < 3; i++)
        *(test_default(choose_default, preferred_slots[i]) ? &passed : &failed) += 1;
    *(test_default(choose_device, "") ? &passed : &failed) += 1;
    *(test_default(choose_device, "cuda") ? &passed : &failed) += 1;

    f.attention = job_new(JOB_PLAIN, 1);
    f.list = job_new(JOB_BUILD_LIST, 1);
    f.merge = job_new(JOB_MERGE, 1);
    bool ready = f.attention && f.list && f.merge && rfa_backend_count() > 0;
    for (int i = 0; ready && i < REACHES; i++) {
        bool ok = true;
        for (int status = RFA_INVALID_ARGUMENT; status <= RFA_IO_ERROR; status++)
            for (int silent = 0; silent < 2; silent++)
                ok = test_failure(&reaches[i], (rfa_status)status, silent, &f) && ok;
        *(ok ? &passed : &failed) += 1;
    }
    job_free(f.attention);
    job_free(f.list);
    job_free(f.merge);
    printf("%d passed, %d failed, 0 skipped\n", passed, failed + !ready);
    return failed > 0 || !ready;
}
