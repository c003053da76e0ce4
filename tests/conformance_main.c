/* Runs the conformance suite on one device. Exit code 0: all that ran passed; 1:
 * something failed; 77: nothing ran; 2: bad usage. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "conformance/suite.h"

enum { EXIT_BAD_USAGE = 2, EXIT_ALL_SKIPPED = 77 };

typedef struct arguments {
    suite_options suite;
    bool verbose, has_seed;
} arguments;

static const char usage[] =
    "usage: rfa_conformance [--backend NAME] [--device N] [--seed S] [--cases N]\n"
    "                       [--case NAME] [--quick] [--small] [--verbose]\n"
    "  --cases N    random cases beside the fixed ones (400; with --quick or --small 150)\n"
    "  --case NAME  one case, by the name that a failure printed\n"
    "  --quick      no large cases\n"
    "  --small      small random cases alone, for slow machines\n"
    "  --verbose    a line for every case\n";

static bool read_number(const char *text, uint64_t most, uint64_t *value)
{
    char *end;
    errno = 0;
    *value = strtoull(text, &end, 0);
    return errno == 0 && end != text && *end == '\0' && text[0] != '-' && *value <= most;
}

/* Takes one option that has a value. */
static bool take_option(arguments *a, const char *name, const char *value)
{
    uint64_t number;
    if (strcmp(name, "--backend") == 0) {
        a->suite.backend = value;
        return true;
    }
    if (strcmp(name, "--case") == 0) {
        a->suite.only = value;
        return true;
    }
    if (strcmp(name, "--seed") == 0) {
        a->has_seed = true;
        return read_number(value, UINT64_MAX, &a->suite.seed);
    }
    if (!read_number(value, INT32_MAX, &number))
        return false;
    if (strcmp(name, "--device") == 0)
        a->suite.device = (int32_t)number;
    else if (strcmp(name, "--cases") == 0)
        a->suite.cases = (int64_t)number;
    else
        return false;
    return true;
}

static bool parse(arguments *a, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--quick") == 0)
            a->suite.quick = true;
        else if (strcmp(argv[i], "--small") == 0)
            a->suite.small = true;
        else if (strcmp(argv[i], "--verbose") == 0)
            a->verbose = true;
        else if (i + 1 < argc && take_option(a, argv[i], argv[i + 1]))
            i++;
        else
            return false;
    }
    if (a->suite.cases < 0)
        a->suite.cases = a->suite.quick || a->suite.small ? 150 : 400;
    return true;
}

static void report(void *user, const suite_case *done)
{
    static const char *const words[] = {"ok", "FAILED", "SKIP"};
    const arguments *a = user;
    const run_outcome *o = done->outcome;
    if (!a->verbose && o->result == RUN_PASSED)
        return;
    printf("%s %s: %s%s%s\n", words[o->result], done->name, done->description,
           o->text[0] ? ": " : "", o->text);
    if (o->result == RUN_FAILED)
        printf("  repeat: rfa_conformance --case %s%s%s --device %d\n", done->name,
               a->suite.backend ? " --backend " : "", a->suite.backend ? a->suite.backend : "",
               (int)a->suite.device);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    arguments a = {.suite = {.cases = -1, .report = report}};
    suite_result result;
    rfa_error err = {""};
    a.suite.user = &a;
    if (!parse(&a, argc, argv)) {
        fputs(usage, stderr);
        return EXIT_BAD_USAGE;
    }
    if (!a.has_seed)
        a.suite.seed = (uint64_t)time(NULL);
    printf("seed %" PRIu64 "\n", a.suite.seed);
    rfa_status status = suite_run(&a.suite, &result, &err);
    if (status == RFA_INVALID_ARGUMENT) {
        fprintf(stderr, "rfa_conformance: %s\n", err.text);
        return EXIT_BAD_USAGE;
    }
    if (status != RFA_OK)
        printf("SKIP %s: %s\n", a.suite.backend ? a.suite.backend : "any backend", err.text);
    else
        printf("%" PRIu64 " decisions compared, %" PRIu64 " kept, %" PRIu64
               " within rounding; largest error %.2f of what is allowed\n",
               result.decisions, result.kept, result.unsure, result.worst_ratio);
    printf("%" PRId64 " passed, %" PRId64 " failed, %" PRId64 " skipped\n", result.passed,
           result.failed, result.skipped + (status != RFA_OK));
    if (result.failed > 0)
        return EXIT_FAILURE;
    return result.passed > 0 ? EXIT_SUCCESS : EXIT_ALL_SKIPPED;
}
