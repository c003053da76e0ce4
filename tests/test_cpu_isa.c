/* RFA_CPU_ISA: every set of kernels by its name, and names that cannot be had. */
#include <criterion/criterion.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <rfa/rfa.h>

/* A set of kernels and the words of /proc/cpuinfo that it needs. */
static const struct {
    const char *name, *flags[6];
} sets[] = {
    {"portable", {0}},
#if defined(__x86_64__)
    {"avx2", {"avx2", "fma"}},
    {"avx512", {"avx2", "fma", "avx512f", "avx512vl", "avx512bw", "avx512dq"}},
    {"avx512bf16", {"avx512f", "avx512vl", "avx512bw", "avx512dq", "avx512_bf16"}},
    {"amx", {"avx512f", "avx512_bf16", "amx_tile", "amx_bf16"}},
#elif defined(__aarch64__)
    {"neon", {"asimd"}},
    {"neonbf16", {"asimd", "bf16"}},
#endif
};

enum { SETS = sizeof(sets) / sizeof(sets[0]) };

/* Whether the first line of /proc/cpuinfo that lists flags has this word. */
static bool processor_has(const char *flag)
{
    char line[8192];
    bool found = false, listed = false;
    FILE *file = fopen("/proc/cpuinfo", "re");
    cr_assert_not_null(file);
    while (!listed && fgets(line, sizeof(line), file)) {
        listed = strncmp(line, "flags", 5) == 0 || strncmp(line, "Features", 8) == 0;
        char *rest = line;
        for (char *word; listed && (word = strtok_r(rest, " \t\n", &rest));)
            found |= strcmp(word, flag) == 0;
    }
    fclose(file);
    return found;
}

static bool processor_runs(int set)
{
    for (int i = 0; i < 6 && sets[set].flags[i]; i++)
        if (!processor_has(sets[set].flags[i]))
            return false;
    return true;
}

static rfa_device_info device(void)
{
    rfa_device_info info;
    cr_assert_eq(rfa_device_get("cpu", 0, &info), RFA_OK, "%s", rfa_last_error(NULL));
    return info;
}

/* The device and a context say the same: this status, and one sentence with these words. */
static void expect_refused(rfa_status status, const char *name, const char *words)
{
    rfa_context *ctx = NULL;
    rfa_context_options options = RFA_CONTEXT_OPTIONS_INIT;
    options.backend = "cpu";
    setenv("RFA_CPU_ISA", name, 1);
    rfa_device_info info = device();
    cr_expect_eq(info.status, status, "\"%s\": %d", name, (int)info.status);
    cr_expect_eq(rfa_context_create(&ctx, &options), status, "\"%s\"", name);
    cr_expect_null(ctx);
    cr_expect_not_null(strstr(rfa_last_error(NULL), info.why), "%s", rfa_last_error(NULL));
    char quoted[64];
    snprintf(quoted, sizeof(quoted), "RFA_CPU_ISA is \"%.40s\"", name);
    cr_expect_not_null(strstr(info.why, quoted), "%s", info.why);
    cr_expect_not_null(strstr(info.why, words), "%s", info.why);
    cr_expect_not_null(strstr(info.why, " portable"), "what could be had: %s", info.why);
    cr_expect_null(strchr(info.why, '\n'), "%s", info.why);
}

Test(cpu_isa, every_name_is_used_or_refused_as_the_processor_is)
{
    for (int i = 0; i < SETS; i++) {
        if (!processor_runs(i)) {
            expect_refused(RFA_NO_DEVICE, sets[i].name, "this processor runs only:");
            continue;
        }
        rfa_context *ctx = NULL;
        rfa_context_options options = RFA_CONTEXT_OPTIONS_INIT;
        char words[32];
        options.backend = "cpu";
        setenv("RFA_CPU_ISA", sets[i].name, 1);
        rfa_device_info info = device();
        snprintf(words, sizeof(words), "ISA %s (of", sets[i].name);
        cr_expect_eq(info.status, RFA_OK, "%s: %s", sets[i].name, info.why);
        cr_expect_not_null(strstr(info.detail, words), "%s: %s", sets[i].name, info.detail);
        cr_expect_eq(rfa_context_create(&ctx, &options), RFA_OK, "%s", rfa_last_error(NULL));
        rfa_context_destroy(ctx);
    }
}

Test(cpu_isa, names_of_nothing_are_said_and_not_replaced)
{
    static const char *const names[] = {
        "z80",
        "AVX2",
        "avx",
        "portable ",
        " portable",
        "portable,avx2",
        "avx512bf16x",
        "%s%n",
        "a name that is far longer than the sentence which shall quote it has room for",
#ifdef __x86_64__
        "neon",
#else
        "avx2",
#endif
    };
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        expect_refused(RFA_INVALID_ARGUMENT, names[i], "no set of kernels of this build");
}

Test(cpu_isa, without_a_name_one_that_runs_is_chosen)
{
    unsetenv("RFA_CPU_ISA");
    rfa_device_info unset = device();
    cr_expect_eq(unset.status, RFA_OK, "%s", unset.why);
    cr_expect_eq(strncmp(unset.detail, "ISA ", 4), 0, "%s", unset.detail);
    for (int i = 0; i < SETS; i++) {
        char usable[32];
        snprintf(usable, sizeof(usable), " %s", sets[i].name);
        const char *list = strstr(unset.detail, "(of"), *at = list ? strstr(list, usable) : NULL;
        while (at && at[strlen(usable)] != ' ' && at[strlen(usable)] != ')')
            at = strstr(at + 1, usable); /* avx512 within avx512bf16 */
        cr_expect_eq(at != NULL, processor_runs(i), "%s: %s", sets[i].name, unset.detail);
    }
    setenv("RFA_CPU_ISA", "", 1);
    rfa_device_info empty = device();
    cr_expect_str_eq(empty.detail, unset.detail);
}

Test(cpu_isa, a_refusal_leaves_nothing_behind)
{
    rfa_context *ctx = NULL;
    rfa_context_options options = RFA_CONTEXT_OPTIONS_INIT;
    options.backend = "cpu";
    setenv("RFA_CPU_ISA", "z80", 1);
    cr_expect_eq(rfa_context_create(&ctx, &options), RFA_INVALID_ARGUMENT);
    cr_expect_null(ctx);
    unsetenv("RFA_CPU_ISA");
    cr_expect_eq(rfa_context_create(&ctx, &options), RFA_OK, "%s", rfa_last_error(NULL));
    rfa_context_destroy(ctx);
}
