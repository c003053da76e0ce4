/* rfa verify: the conformance suite on every device of this machine. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>

#include <rfa/rfa.h>

#include "conformance/suite.h"
#include "tools/cli.h"
#include "tools/device_tensor.h"
#include "tools/progress.h"

#define NAME "rfa verify"
#define SHOWN_FAILURES 20 /* of a device */

static const char about[] =
    "Checks that the devices of this machine compute what the reference computes: random and fixed "
    "problems of every shape, type, rule, order and layout, with guard regions around all memory. "
    "What cannot run is listed with its reason. The text is made to be pasted into an issue.";

static const char examples[] = "rfa verify\n"
                               "rfa verify --full --backend cuda\n"
                               "rfa verify --backend cpu --seed 7 --case small/1f";

typedef struct verify {
    bool quick, full;
    const char *backend;
    const char *only;
    int64_t device, seed;
    bool device_given;
    progress progress;
    char label[64];
    int64_t shown;                   /* failures of the device at hand */
    int64_t passed, failed, skipped; /* devices */
} verify;

/* ---- one device ------------------------------------------------------------------- */

static void report_case(void *user, const suite_case *done)
{
    verify *v = user;
    progress_update(&v->progress, (uint64_t)done->done);
    if (done->outcome->result != RUN_FAILED || v->shown++ >= SHOWN_FAILURES)
        return;
    progress_end(&v->progress);
    printf("  FAILED %s: %s\n    %s\n", done->name, done->description, done->outcome->text);
    progress_start(&v->progress, v->label, (uint64_t)done->total);
}

static int64_t cases_of(const verify *v)
{
    return v->full ? 4000 : 300;
}

static void skip_device(verify *v, const char *name, const char *reason)
{
    printf("%-14s SKIP: %s\n", name, reason);
    v->skipped++;
}

static void print_result(verify *v, const suite_result *r, double seconds)
{
    printf("  %s: %" PRId64 " passed, %" PRId64 " failed, %" PRId64 " skipped in %.0f s\n",
           r->failed > 0   ? "FAILED"
           : r->passed > 0 ? "ok"
                           : "SKIP, it supports no case",
           r->passed, r->failed, r->skipped, seconds);
    printf("  %" PRIu64 " decisions compared, %" PRIu64 " kept, %" PRIu64
           " within rounding; largest error %.2f of what is allowed\n",
           r->decisions, r->kept, r->unsure, r->worst_ratio);
    v->failed += r->failed > 0;
    v->passed += r->failed == 0 && r->passed > 0;
    v->skipped += r->failed == 0 && r->passed == 0;
}

/* A device that says it is usable and then takes no context fails. */
static int verify_device(verify *v, const char *backend, int32_t index)
{
    rfa_device_info info;
    suite_result result;
    rfa_error err = {""};
    snprintf(v->label, sizeof(v->label), "%s:%d", backend, (int)index);
    rfa_status status = rfa_device_get(backend, index, &info);
    if (status != RFA_OK || info.status != RFA_OK) {
        skip_device(v, v->label, status != RFA_OK ? rfa_last_error(NULL) : info.why);
        return CLI_OK;
    }
    printf("%-14s %s%s%s\n", v->label, info.name, info.detail[0] ? ", " : "", info.detail);
    fflush(stdout);
    const suite_options options = {.backend = backend,
                                   .device = index,
                                   .seed = (uint64_t)v->seed,
                                   .cases = cases_of(v),
                                   .quick = !v->full,
                                   .only = v->only,
                                   .report = report_case,
                                   .user = v};
    double start = progress_now();
    v->shown = 0;
    progress_start(&v->progress, v->label, 0);
    status = suite_run(&options, &result, &err);
    progress_end(&v->progress);
    if (v->only && status == RFA_INVALID_ARGUMENT)
        return cli_usage(NAME, "%s", err.text);
    if (status != RFA_OK) {
        printf("  FAILED: %s\n", err.text);
        v->failed++;
        return CLI_OK;
    }
    if (v->shown > SHOWN_FAILURES)
        printf("  ... and %" PRId64 " more\n", v->shown - SHOWN_FAILURES);
    print_result(v, &result, progress_now() - start);
    return CLI_OK;
}

/* ---- all of them -------------------------------------------------------------------- */

static int verify_backend(verify *v, const rfa_backend_info *backend)
{
    int32_t count = 0;
    if (backend->status != RFA_OK) {
        skip_device(v, backend->name, backend->why);
        return CLI_OK;
    }
    if (rfa_device_count(backend->name, &count) != RFA_OK) {
        skip_device(v, backend->name, rfa_last_error(NULL));
        return CLI_OK;
    }
    if (count == 0)
        skip_device(v, backend->name, "it sees no device");
    int code = CLI_OK;
    for (int32_t i = 0; i < count && code == CLI_OK; i++)
        if (!v->device_given || i == v->device)
            code = verify_device(v, backend->name, i);
    return code;
}

/* The reference is what others are compared with: checked when named, or with
 * --full. */
static bool chosen(const verify *v, const rfa_backend_info *backend)
{
    if (!v->backend)
        return v->full || strcmp(backend->name, "reference") != 0;
    /* A module that could not be loaded has its file's name alone. */
    if (backend->status != RFA_OK)
        return strstr(backend->name, v->backend) != NULL;
    return strcmp(v->backend, backend->name) == 0;
}

static void print_machine(const verify *v)
{
    struct utsname os;
    printf("rfa %s", rfa_version());
    if (uname(&os) == 0)
        printf(", %s %s %s", os.sysname, os.release, os.machine);
    printf(", seed %" PRId64 "%s\n", v->seed, v->full ? ", full" : "");
}

static int verify_all(verify *v)
{
    rfa_backend_info info;
    rfa_error err = {""};
    size_t count;
    int64_t found = 0;
    int code = CLI_OK;
    rfa_status status = device_backends(&count, &err);
    if (status != RFA_OK)
        return cli_fail(NAME, status, "%s", err.text);
    print_machine(v);
    for (size_t i = 0; i < count && code == CLI_OK; i++)
        if (rfa_backend_get(i, &info) == RFA_OK && chosen(v, &info)) {
            found++;
            code = verify_backend(v, &info);
        }
    if (code != CLI_OK)
        return code;
    if (found == 0)
        return cli_fail(NAME, RFA_NO_DEVICE, v->backend ? "there is no backend %.100s" : "%s",
                        v->backend ? v->backend : "no backend modules were found");
    printf("devices: %" PRId64 " passed, %" PRId64 " failed, %" PRId64 " skipped\n", v->passed,
           v->failed, v->skipped);
    if (v->failed > 0)
        return CLI_CHECK_FAILED;
    if (v->passed == 0)
        return cli_fail(NAME, RFA_NO_DEVICE, "nothing was checked: no device could run");
    return CLI_OK;
}

#define FIELD(member) offsetof(verify, member)

static const cli_option table[] = {
    {.name = "quick",
     .kind = CLI_FLAG,
     .value = FIELD(quick),
     .help = "some 330 problems (default)"},
    {.name = "full",
     .kind = CLI_FLAG,
     .value = FIELD(full),
     .help = "some 4000 problems, large ones too, and the reference itself: minutes"},
    {.name = "backend",
     .kind = CLI_TEXT,
     .value = FIELD(backend),
     .argument = "NAME",
     .help = "this backend alone"},
    {.name = "device",
     .kind = CLI_INTEGER,
     .value = FIELD(device),
     .argument = "N",
     .max = INT32_MAX,
     .default_text = "",
     .given = FIELD(device_given),
     .help = "this device of each backend alone"},
    {.name = "seed",
     .kind = CLI_INTEGER,
     .value = FIELD(seed),
     .argument = "N",
     .max = INT64_MAX,
     .help = "of the random problems"},
    {.name = "case",
     .kind = CLI_TEXT,
     .value = FIELD(only),
     .argument = "NAME",
     .help = "one problem, by the name that a failure printed"},
};

#undef FIELD

static const cli_command command = {.name = NAME,
                                    .usage = "rfa verify [--quick | --full] [options]",
                                    .about = about,
                                    .examples = examples,
                                    .options = table,
                                    .option_count = sizeof(table) / sizeof(table[0])};

int cmd_verify(int argc, char **argv)
{
    verify v = {.seed = 1};
    int code = cli_parse(&command, &v, argc, argv, NULL, NULL);
    if (code >= 0)
        return code;
    if (v.quick && v.full)
        return cli_usage(NAME, "--quick and --full exclude each other");
    return verify_all(&v);
}
