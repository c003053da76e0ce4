/* The backend registry among modules that are broken in every way we thought of.
 * Each test is a process of its own, so each loads the registry anew. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <rfa/rfa.h>

/* From meson.build: the folder of the real modules, and that of the broken ones. */
static const char *const real_folder = TEST_BUILD_ROOT;
static const char *const broken_folder = TEST_MODULE_FOLDER;

/* The entry whose path ends in `file`. */
static rfa_backend_info find(const char *file)
{
    rfa_backend_info info;
    for (size_t i = 0; i < rfa_backend_count(); i++) {
        cr_assert_eq(rfa_backend_get(i, &info), RFA_OK);
        size_t length = strlen(info.path), tail = strlen(file);
        if (length >= tail && strcmp(info.path + length - tail, file) == 0)
            return info;
    }
    cr_assert_fail("%s is not listed", file);
    return info;
}

static void expect_refused(const char *file, rfa_status status, const char *word)
{
    rfa_backend_info info = find(file);
    cr_expect_eq(info.status, status, "%s: %s, expected %s", file, rfa_status_name(info.status),
                 rfa_status_name(status));
    cr_expect_not_null(strstr(info.why, word), "%s: \"%s\" does not say \"%s\"", file, info.why,
                       word);
    cr_expect_not_null(strstr(file, info.name), "%s is named %s", file, info.name);
}

/* Whatever else was found, cpu and reference must work. */
static void expect_rest_works(void)
{
    const char *const names[] = {"cpu", "reference"};
    for (int i = 0; i < 2; i++) {
        rfa_context_options options = RFA_CONTEXT_OPTIONS_INIT;
        rfa_context *ctx = NULL;
        options.backend = names[i];
        cr_assert_eq(rfa_context_create(&ctx, &options), RFA_OK, "%s", rfa_last_error(NULL));
        cr_expect_str_eq(rfa_context_backend(ctx), names[i]);
        rfa_context_destroy(ctx);
        rfa_device_info device;
        cr_expect_eq(rfa_device_get(names[i], 0, &device), RFA_OK, "%s", rfa_last_error(NULL));
        cr_expect_eq(device.status, RFA_OK, "%s", device.why);
        cr_expect_neq(device.name[0], '\0');
    }
}

static rfa_status create_default(rfa_context **ctx)
{
    return rfa_context_create(ctx, NULL);
}

Test(registry, finds_its_modules_beside_the_library)
{
    cr_assert_geq(rfa_backend_count(), 2);
    for (size_t i = 0; i < rfa_backend_count(); i++) {
        rfa_backend_info info;
        cr_assert_eq(rfa_backend_get(i, &info), RFA_OK);
        cr_expect(info.path[0] == '/', "%s", info.path);
        cr_expect_eq(info.status, RFA_OK, "%s: %s", info.path, info.why);
    }
    expect_rest_works();
}

Test(registry, broken_modules_are_listed_with_their_reason)
{
    setenv("RFA_BACKEND_PATH", broken_folder, 1);
    expect_refused("rfa_backend_wrong_abi.so", RFA_UNSUPPORTED, "ABI");
    expect_refused("rfa_backend_wrong_size.so", RFA_UNSUPPORTED, "bytes");
    expect_refused("rfa_backend_no_symbol.so", RFA_UNSUPPORTED, "rfa_backend_entry");
    expect_refused("rfa_backend_null.so", RFA_NO_DEVICE, "declined");
    expect_refused("rfa_backend_empty_slot.so", RFA_UNSUPPORTED, "slot");
    expect_refused("rfa_backend_no_name.so", RFA_UNSUPPORTED, "slot");
    expect_refused("rfa_backend_no_driver.so", RFA_NO_DEVICE, "rfa_a_driver_that_nobody_has");
    rfa_backend_info idle = find("rfa_backend_idle.so");
    cr_expect_eq(idle.status, RFA_OK, "%s", idle.why);
    cr_expect_str_eq(idle.name, "idle");
    expect_rest_works();
}

Test(registry, refused_modules_are_no_backends)
{
    setenv("RFA_BACKEND_PATH", broken_folder, 1);
    rfa_context_options options = RFA_CONTEXT_OPTIONS_INIT;
    rfa_context *ctx = NULL;
    options.backend = "wrong_abi";
    cr_expect_eq(rfa_context_create(&ctx, &options), RFA_NO_DEVICE);
    cr_expect_null(ctx);
    cr_expect_not_null(strstr(rfa_last_error(NULL), "wrong_abi"), "%s", rfa_last_error(NULL));
}

Test(registry, the_first_module_of_a_name_wins)
{
    setenv("RFA_BACKEND_PATH", TEST_MODULE_FOLDER "/twin", 1);
    /* Loads as "cpu", before the real one is met. */
    rfa_backend_info twin = find("/rfa_backend_twin.so");
    cr_expect_eq(twin.status, RFA_OK, "%s", twin.why);
    cr_expect_str_eq(twin.name, "cpu");
    expect_refused("/rfa_backend_cpu.so", RFA_UNSUPPORTED, "rfa_backend_twin.so");
}

/* The folder that is named is also the library's own. */
Test(registry, one_folder_by_two_ways)
{
    setenv("RFA_BACKEND_PATH", TEST_BUILD_ROOT, 1);
    rfa_backend_info one, other;
    size_t count = rfa_backend_count();
    cr_expect_geq(count, 2);
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < i; j++) {
            cr_assert_eq(rfa_backend_get(i, &one), RFA_OK);
            cr_assert_eq(rfa_backend_get(j, &other), RFA_OK);
            cr_expect_str_neq(one.path, other.path);
        }
    rfa_backend_info cpu = find("/rfa_backend_cpu.so");
    cr_expect_eq(cpu.status, RFA_OK, "%s", cpu.why);
}

/* Files that are no modules at all, made in a folder of their own. */

static void write_file(const char *folder, const char *name, const void *bytes, size_t size)
{
    char path[512];
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    FILE *file = fopen(path, "wb");
    cr_assert_not_null(file, "%s", path);
    cr_assert_eq(fwrite(bytes, 1, size, file), size);
    cr_assert_eq(fclose(file), 0);
}

static void *read_module(size_t *size)
{
    char path[512];
    snprintf(path, sizeof(path), "%s/rfa_backend_cpu.so", real_folder);
    struct stat info;
    FILE *file = fopen(path, "rb");
    cr_assert(file && stat(path, &info) == 0, "%s", path);
    *size = (size_t)info.st_size;
    void *bytes = malloc(*size);
    cr_assert_not_null(bytes);
    cr_assert_eq(fread(bytes, 1, *size, file), *size);
    fclose(file);
    return bytes;
}

static void remove_folder(const char *folder, const char *const *names, int count)
{
    char path[512];
    for (int i = 0; i < count; i++) {
        snprintf(path, sizeof(path), "%s/%s", folder, names[i]);
        remove(path);
    }
    cr_expect_eq(rmdir(folder), 0);
}

Test(registry, files_that_are_no_modules)
{
    static const char *const names[] = {"rfa_backend_empty.so",   "rfa_backend_text.so",
                                        "rfa_backend_head.so",    "rfa_backend_half.so",
                                        "rfa_backend_all_but.so", "rfa_backend_dangling.so",
                                        "rfa_backend_pipe.so",    "rfa_backend_unlisted.txt"};
    char folder[] = "/tmp/rfa-test-XXXXXX", path[512];
    cr_assert_not_null(mkdtemp(folder));
    size_t size;
    void *module = read_module(&size);
    write_file(folder, names[0], "", 0);
    write_file(folder, names[1], "this is a text file, long enough to hold an ELF header: ...", 59);
    write_file(folder, names[2], module, 64);
    write_file(folder, names[3], module, size / 2);
    write_file(folder, names[4], module, size - 1);
    snprintf(path, sizeof(path), "%s/%s", folder, names[5]);
    cr_assert_eq(symlink("/nonexistent/module.so", path), 0);
    snprintf(path, sizeof(path), "%s/%s", folder, names[6]);
    cr_assert_eq(mkfifo(path, 0600), 0);
    write_file(folder, names[7], "", 0);
    free(module);

    setenv("RFA_BACKEND_PATH", folder, 1);
    size_t here = 0;
    for (size_t i = 0; i < rfa_backend_count(); i++) {
        rfa_backend_info info;
        cr_assert_eq(rfa_backend_get(i, &info), RFA_OK);
        if (strncmp(info.path, folder, strlen(folder)) != 0)
            continue;
        here++;
        cr_expect_eq(info.status, RFA_IO_ERROR, "%s: %s", info.path, rfa_status_name(info.status));
        cr_expect_gt(strlen(info.why), 8, "%s", info.path);
    }
    cr_expect_eq(here, 7, "%zu listed", here);
    expect_refused(names[3], RFA_IO_ERROR, "truncated");
    expect_rest_works();
    remove_folder(folder, names, 8);
}

Test(registry, a_missing_folder_is_listed)
{
    setenv("RFA_BACKEND_PATH", "/nonexistent/rfa-modules", 1);
    rfa_backend_info info = find("/nonexistent/rfa-modules");
    cr_expect_eq(info.status, RFA_IO_ERROR);
    cr_expect_str_eq(info.name, "/nonexistent/rfa-modules");
    cr_expect_not_null(strstr(info.why, "No such file"), "%s", info.why);
    expect_rest_works();
}

Test(registry, the_current_directory_is_never_searched)
{
    cr_assert_eq(chdir(broken_folder), 0);
    for (int i = 0; i < 2; i++) {
        if (i == 1)
            setenv("RFA_BACKEND_PATH", ".", 1);
        for (size_t j = 0; j < rfa_backend_count(); j++) {
            rfa_backend_info info;
            cr_assert_eq(rfa_backend_get(j, &info), RFA_OK);
            cr_expect_null(strstr(info.path, "wrong_abi"), "%s", info.path);
        }
    }
}

Test(registry, a_relative_folder_is_refused)
{
    cr_assert_eq(chdir(broken_folder), 0);
    setenv("RFA_BACKEND_PATH", ".", 1);
    rfa_backend_info info = find(".");
    cr_expect_eq(info.status, RFA_INVALID_ARGUMENT);
    cr_expect_not_null(strstr(info.why, "absolute"), "%s", info.why);
    expect_rest_works();
}

Test(registry, bad_indices_and_names)
{
    rfa_backend_info info;
    rfa_device_info device;
    int32_t count = -7;
    cr_expect_eq(rfa_backend_get(rfa_backend_count(), &info), RFA_INVALID_ARGUMENT);
    cr_expect_eq(rfa_backend_get(SIZE_MAX, &info), RFA_INVALID_ARGUMENT);
    cr_expect_eq(rfa_backend_get(0, NULL), RFA_INVALID_ARGUMENT);
    cr_expect_eq(rfa_device_count("abacus", &count), RFA_NO_DEVICE);
    cr_expect_not_null(strstr(rfa_last_error(NULL), "abacus"), "%s", rfa_last_error(NULL));
    cr_expect_eq(rfa_device_count(NULL, &count), RFA_INVALID_ARGUMENT);
    cr_expect_eq(rfa_device_count("cpu", NULL), RFA_INVALID_ARGUMENT);
    cr_expect_eq(rfa_device_count("cpu", &count), RFA_OK);
    cr_expect_eq(count, 1);
    cr_expect_eq(rfa_device_get("cpu", 1, &device), RFA_NO_DEVICE);
    cr_expect_eq(rfa_device_get("cpu", -1, &device), RFA_NO_DEVICE);
    cr_expect_eq(rfa_device_get("cpu", INT32_MIN, &device), RFA_NO_DEVICE);
    cr_expect_eq(rfa_device_get("cpu", 0, NULL), RFA_INVALID_ARGUMENT);
    cr_expect_eq(rfa_device_get("abacus", 0, &device), RFA_NO_DEVICE);
}

Test(registry, the_environment_chooses_the_backend)
{
    rfa_context *ctx = NULL;
    setenv("RFA_BACKEND", "reference", 1);
    cr_assert_eq(create_default(&ctx), RFA_OK, "%s", rfa_last_error(NULL));
    cr_expect_str_eq(rfa_context_backend(ctx), "reference");
    rfa_context_destroy(ctx);

    rfa_context_options options = RFA_CONTEXT_OPTIONS_INIT;
    options.backend = "cpu"; /* the caller's word counts more */
    cr_assert_eq(rfa_context_create(&ctx, &options), RFA_OK, "%s", rfa_last_error(NULL));
    cr_expect_str_eq(rfa_context_backend(ctx), "cpu");
    rfa_context_destroy(ctx);

    setenv("RFA_BACKEND", "abacus", 1);
    cr_expect_eq(create_default(&ctx), RFA_NO_DEVICE);
    cr_expect_null(ctx);
    cr_expect_not_null(strstr(rfa_last_error(NULL), "abacus"), "%s", rfa_last_error(NULL));
}
