/* Headers that lie, and files that are not there, cut short or unwritable. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tools/safetensors.h"

/* ---- headers ---- */

typedef struct header_case {
    const char *json;
    uint64_t data_size;
} header_case;

static rfa_status parse(const char *json, uint64_t data_size, rfa_error *err)
{
    st_file file;
    rfa_status status = st_parse(json, strlen(json), data_size, &file, err);
    st_close(&file);
    return status;
}

#define TENSOR_OF(dtype, shape, offsets)                                                           \
    "{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"
#define ONE(dtype, shape, offsets) "{\"a\":" TENSOR_OF(dtype, shape, offsets) "}"
#define TWO(shape, first, second)                                                                  \
    "{\"a\":" TENSOR_OF("F32", shape, first) ",\"b\":" TENSOR_OF("F32", shape, second) "}"

Test(safetensors, honest_headers)
{
    const header_case cases[] = {
        {ONE("F32", "[2,3]", "[0,24]"), 24},
        {ONE("BF16", "[2,3]", "[0,12]"), 12},
        {ONE("F16", "[]", "[0,2]"), 2}, /* a scalar */
        {ONE("F32", "[0,5]", "[0,0]"), 0},
        {ONE("I64", "[2]", "[0,16]"), 16}, /* legal, though rfa does not compute with it */
        {TWO("[2]", "[0,8]", "[8,16]"), 16},
        {TWO("[2]", "[8,16]", "[0,8]"), 16},
        {"{}", 0},
        {"{\"__metadata__\":{\"grid\":\"1,2,3\"}}", 0},
        {ONE("F32", "[1]", "[0,4]") "      ", 4}, /* the format pads with blanks */
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        rfa_error err = {""};
        cr_expect_eq(parse(cases[i].json, cases[i].data_size, &err), RFA_OK, "%s: %s",
                     cases[i].json, err.text);
    }
}

Test(safetensors, headers_that_lie)
{
    const header_case cases[] = {
        {"", 0},
        {"nonsense", 0},
        {"[1,2,3]", 0},
        {"\"text\"", 0},
        {"null", 0},
        {"{\"a\":", 0},
        {ONE("F32", "[2,3]", "[0,24]"), 23}, /* cut short */
        {ONE("F32", "[2,3]", "[0,24]"), 25}, /* bytes that nobody owns */
        {ONE("F32", "[2,3]", "[0,20]"), 20}, /* shape and offsets disagree */
        {ONE("F32", "[2,3]", "[0,28]"), 28},
        {ONE("F32", "[2,3]", "[24,0]"), 24}, /* reversed */
        {ONE("F32", "[2,3]", "[-24,0]"), 24},
        {ONE("F32", "[2,-3]", "[0,24]"), 24},
        {ONE("F32", "[-2,-3]", "[0,24]"), 24},
        {ONE("F32", "[2.5]", "[0,10]"), 10},
        {ONE("F32", "[2]", "[0,8.5]"), 8},
        {ONE("F32", "[2]", "[0]"), 8},
        {ONE("F32", "[2]", "[0,8,16]"), 8},
        {ONE("F32", "[2]", "\"0,8\""), 8},
        {ONE("F32", "\"2\"", "[0,8]"), 8},
        {ONE("F32", "[\"2\"]", "[0,8]"), 8},
        {ONE("F32", "null", "[0,8]"), 8},
        {ONE("F32", "[1e300]", "[0,8]"), 8},
        {ONE("F32", "[9223372036854775807,4]", "[0,8]"), 8},
        {ONE("F32", "[4294967296,4294967296]", "[0,0]"), 0}, /* 2^64 is 0 in 64 bits */
        {ONE("F32", "[4611686018427387904]", "[0,0]"), 0},   /* 2^62 x 4 bytes likewise */
        {ONE("F32", "[2]", "[18446744073709551608,18446744073709551616]"), 8},
        {ONE("F32", "[2]", "[0,18446744073709551624]"), 8},
        {ONE("F32", "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]", "[0,4]"), 4},
        {ONE("F33", "[2]", "[0,8]"), 8},
        {ONE("f32", "[2]", "[0,8]"), 8},
        {"{\"a\":{\"dtype\":7,\"shape\":[2],\"data_offsets\":[0,8]}}", 8},
        {"{\"a\":{\"shape\":[2],\"data_offsets\":[0,8]}}", 8},
        {"{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,8]}}", 8},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2]}}", 8},
        {"{\"a\":[]}", 0},
        {"{\"a\":3}", 0},
        {TWO("[2]", "[0,8]", "[0,8]"), 8},   /* one place for two */
        {TWO("[2]", "[0,8]", "[4,12]"), 12}, /* overlapping */
        {TWO("[2]", "[0,8]", "[9,17]"), 17}, /* a gap */
        {TWO("[2]", "[1,9]", "[9,17]"), 17},
        {"{\"a\":" TENSOR_OF("F32", "[1]", "[0,4]") ",\"a\":" TENSOR_OF("F32", "[1]", "[4,8]") "}",
         8}, /* the same name twice */
        {"{\"__metadata__\":3}", 0},
        {"{\"__metadata__\":{\"grid\":[1,2,3]}}", 0},
        {ONE("F32", "[1]", "[0,4]") "x", 4},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        rfa_error err = {""};
        cr_expect_eq(parse(cases[i].json, cases[i].data_size, &err), RFA_IO_ERROR, "%s",
                     cases[i].json);
        cr_expect_gt(strlen(err.text), 8, "%s: no sentence", cases[i].json);
        cr_expect_null(strchr(err.text, '\n'), "%s", err.text);
    }
}

Test(safetensors, header_with_bytes_after_a_nul)
{
    static const char json[] = "{}\0{\"a\":1}";
    st_file file;
    rfa_error err = {""};
    cr_expect_eq(st_parse(json, sizeof(json) - 1, 0, &file, &err), RFA_IO_ERROR);
    st_close(&file);
}

Test(safetensors, deep_nesting_does_not_crash)
{
    enum { DEPTH = 2000000 };
    char *json = malloc(DEPTH + 16);
    cr_assert_not_null(json);
    const char opening[] = {'[', '{'};
    for (int i = 0; i < 2; i++) {
        rfa_error err = {""};
        memset(json, opening[i], DEPTH);
        memcpy(json, "{\"a\":", 5);
        json[DEPTH] = '\0';
        cr_expect_eq(parse(json, 0, &err), RFA_IO_ERROR);
    }
    free(json);
}

/* ---- files ---- */

static void write_bytes(const char *path, const void *bytes, size_t size)
{
    FILE *file = fopen(path, "wb");
    cr_assert_not_null(file);
    cr_assert_eq(fwrite(bytes, 1, size, file), size);
    cr_assert_eq(fclose(file), 0);
}

static void expect_refused(const char *path, const char *what)
{
    st_file file;
    rfa_error err = {""};
    cr_expect_eq(st_open(path, &file, &err), RFA_IO_ERROR, "%s", what);
    cr_expect_gt(strlen(err.text), 8, "%s: no sentence", what);
    st_close(&file);
    st_close(&file);
}

Test(safetensors, files_that_are_none)
{
    char folder[] = "/tmp/rfa-test-XXXXXX", path[64], pipe[64];
    cr_assert_not_null(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/a.safetensors", folder);
    snprintf(pipe, sizeof(pipe), "%s/pipe", folder);
    cr_assert_eq(mkfifo(pipe, 0600), 0);
    expect_refused("/nonexistent/a.safetensors", "missing");
    expect_refused(folder, "a folder");
    expect_refused(pipe, "a pipe: must not block");
    expect_refused("/dev/zero", "a device");
    write_bytes(path, "", 0);
    expect_refused(path, "empty");
    write_bytes(path, "\x02\0\0\0", 4);
    expect_refused(path, "half a length");
    write_bytes(path, "\x02\0\0\0\0\0\0\0{", 9);
    expect_refused(path, "half a header");
    write_bytes(path, "\xff\xff\xff\xff\xff\xff\xff\xff{}", 10);
    expect_refused(path, "a length of 2^64 - 1");
    write_bytes(path, "\xff\xff\xff\xff\xff\xff\xff\x7f{}", 10);
    expect_refused(path, "a length of 2^63 - 1");
    write_bytes(path, "\0\0\0\0\0\0\0\0", 8);
    expect_refused(path, "a header of nothing");
    remove(path);
    remove(pipe);
    rmdir(folder);
}

/* ---- writing, reading back ---- */

static void put(st_writer *writer, const void *data, size_t size)
{
    rfa_error err;
    cr_assert_eq(st_writer_append(writer, data, size, &err), RFA_OK, "%s", err.text);
}

static st_writer *writer_of(const char *path)
{
    st_writer *writer = NULL;
    rfa_error err = {""};
    const int64_t a[] = {2, 3}, b[] = {5};
    cr_assert_eq(st_writer_create(&writer, path, &err), RFA_OK, "%s", err.text);
    cr_assert_eq(st_writer_metadata(writer, "grid", "1,\"2\",\n3", &err), RFA_OK, "%s", err.text);
    cr_assert_eq(st_writer_tensor(writer, "first", RFA_F32, 2, a, NULL, &err), RFA_OK, "%s",
                 err.text);
    cr_assert_eq(st_writer_tensor(writer, "second", RFA_BF16, 1, b, NULL, &err), RFA_OK, "%s",
                 err.text);
    return writer;
}

static int files_in(const char *folder)
{
    char command[128], count[16] = "";
    snprintf(command, sizeof(command), "ls -A %s | wc -l", folder);
    FILE *out = popen(command, "r");
    cr_assert(out && fgets(count, sizeof(count), out));
    pclose(out);
    return atoi(count);
}

Test(safetensors, what_was_written_is_read)
{
    char folder[] = "/tmp/rfa-test-XXXXXX", path[64];
    const float first[6] = {1, 2, 3, 4, 5, 6};
    const uint16_t second[5] = {7, 8, 9, 10, 11};
    float first_back[6];
    uint16_t second_back[2];
    rfa_error err = {""};
    st_file file;
    cr_assert_not_null(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/a.safetensors", folder);
    st_writer *writer = writer_of(path);
    cr_assert_eq(st_writer_begin(writer, &err), RFA_OK, "%s", err.text);
    put(writer, first, 10);
    put(writer, (const char *)first + 10, sizeof(first) - 10);
    put(writer, second, sizeof(second));
    cr_expect_neq(access(path, F_OK), 0, "visible before it is whole");
    cr_assert_eq(st_writer_commit(writer, &err), RFA_OK, "%s", err.text);
    st_writer_destroy(writer);
    cr_expect_eq(files_in(folder), 1);

    cr_assert_eq(st_open(path, &file, &err), RFA_OK, "%s", err.text);
    cr_expect_str_eq(st_metadata(&file, "grid"), "1,\"2\",\n3");
    cr_expect_null(st_metadata(&file, "other"));
    cr_expect_null(st_find(&file, "third"));
    const st_tensor *a = st_find(&file, "first"), *b = st_find(&file, "second");
    cr_assert(a && b);
    cr_expect(a->dtype == ST_F32 && a->ndim == 2 && a->shape[0] == 2 && a->shape[1] == 3);
    cr_expect(b->dtype == ST_BF16 && b->ndim == 1 && b->shape[0] == 5);
    cr_assert_eq(st_read(&file, a, 0, first_back, sizeof(first), &err), RFA_OK, "%s", err.text);
    cr_expect_arr_eq(first_back, first, sizeof(first));
    cr_assert_eq(st_read(&file, b, 4, second_back, 4, &err), RFA_OK, "%s", err.text);
    cr_expect(second_back[0] == 9 && second_back[1] == 10);
    cr_expect_neq(st_read(&file, b, 8, second_back, 4, &err), RFA_OK, "past the tensor's end");
    cr_expect_neq(st_read(&file, b, UINT64_MAX - 1, second_back, 4, &err), RFA_OK);
    /* Cut short while it is open: an error, no SIGBUS. */
    cr_assert_eq(truncate(path, 64), 0);
    cr_expect_eq(st_read(&file, b, 0, second_back, 4, &err), RFA_IO_ERROR);
    st_close(&file);
    remove(path);
    rmdir(folder);
}

Test(safetensors, uncommitted_leaves_nothing_and_keeps_the_old)
{
    char folder[] = "/tmp/rfa-test-XXXXXX", path[64], old[4] = "";
    const float first[6] = {0};
    rfa_error err = {""};
    cr_assert_not_null(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/a.safetensors", folder);
    write_bytes(path, "old", 3);
    st_writer *writer = writer_of(path);
    cr_assert_eq(st_writer_begin(writer, &err), RFA_OK, "%s", err.text);
    put(writer, first, sizeof(first));
    cr_expect_neq(st_writer_commit(writer, &err), RFA_OK, "the second tensor is missing");
    st_writer_destroy(writer);
    st_writer_destroy(NULL);
    cr_expect_eq(files_in(folder), 1);
    FILE *file = fopen(path, "rb");
    cr_assert_not_null(file);
    cr_expect_eq(fread(old, 1, sizeof(old), file), 3);
    fclose(file);
    cr_expect_arr_eq(old, "old", 3);
    remove(path);
    rmdir(folder);
}

Test(safetensors, writers_that_cannot)
{
    st_writer *writer = NULL;
    rfa_error err = {""};
    const float first[6] = {0};
    const int64_t huge[2] = {INT64_MAX, INT64_MAX}, negative[1] = {-1};
    const char *const bad[] = {"/nonexistent/a.safetensors", "/proc/a.safetensors", "/tmp", ""};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        rfa_status status = st_writer_create(&writer, bad[i], &err);
        if (status == RFA_OK)
            status = st_writer_begin(writer, &err);
        cr_expect_neq(status, RFA_OK, "%s", bad[i]);
        st_writer_destroy(writer);
        writer = NULL;
    }
    writer = writer_of("/dev/full");
    rfa_status status = st_writer_begin(writer, &err);
    if (status == RFA_OK)
        status = st_writer_append(writer, first, sizeof(first), &err);
    if (status == RFA_OK)
        status = st_writer_append(writer, first, 10, &err);
    if (status == RFA_OK)
        status = st_writer_commit(writer, &err);
    cr_expect_eq(status, RFA_IO_ERROR, "a full disk was not noticed");
    st_writer_destroy(writer);
    cr_assert_eq(st_writer_create(&writer, "/tmp/rfa-test-never.safetensors", &err), RFA_OK);
    cr_expect_neq(st_writer_tensor(writer, "a", RFA_F32, 2, huge, NULL, &err), RFA_OK);
    cr_expect_neq(st_writer_tensor(writer, "a", RFA_F32, 1, negative, NULL, &err), RFA_OK);
    st_writer_destroy(writer);
    cr_expect_neq(access("/tmp/rfa-test-never.safetensors", F_OK), 0);
}
