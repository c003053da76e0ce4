/* The synthetic workload: the same bytes everywhere, and the shape of its scores. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tools/dtype.h"
#include "tools/workload.h"

static workload_spec tiny_spec(void)
{
    const workload_preset *tiny = workload_find_preset("tiny");
    cr_assert_not_null(tiny);
    workload_spec spec = {.heads = tiny->heads, .dim = tiny->dim, .dtype = RFA_BF16, .seed = 1};
    memcpy(spec.grid, tiny->grid, sizeof(spec.grid));
    return spec;
}

static size_t bytes_of(const workload_spec *spec, int64_t tokens)
{
    return (size_t)(tokens * spec->heads * spec->dim) * dtype_size(spec->dtype);
}

static void *fill(const workload_spec *spec, workload_tensor which, int64_t first, int64_t count)
{
    rfa_error err = {""};
    void *data = malloc(bytes_of(spec, count));
    cr_assert_not_null(data);
    cr_assert_eq(workload_fill(spec, which, first, count, data, &err), RFA_OK, "%s", err.text);
    return data;
}

Test(workload, tiny_has_its_checksum)
{
    workload_spec spec = tiny_spec();
    uint64_t sum = WORKLOAD_CHECKSUM_START;
    for (int i = 0; i < 3; i++) {
        void *data = fill(&spec, (workload_tensor)i, 0, workload_tokens(&spec));
        sum = workload_checksum(sum, data, bytes_of(&spec, workload_tokens(&spec)));
        free(data);
    }
    cr_expect_eq(sum, WORKLOAD_TINY_CHECKSUM, "checksum %#llx", (unsigned long long)sum);
}

Test(workload, checksum_is_fnv_1a)
{
    cr_expect_eq(workload_checksum(WORKLOAD_CHECKSUM_START, "foobar", 6),
                 UINT64_C(0x85944171f73967e8));
}

Test(workload, any_part_can_be_made_alone)
{
    workload_spec spec = tiny_spec();
    for (int i = 0; i < 3; i++) {
        char *whole = fill(&spec, (workload_tensor)i, 0, workload_tokens(&spec));
        for (int64_t first = 0; first < workload_tokens(&spec); first += 397) {
            int64_t count = first + 13 < workload_tokens(&spec) ? 13 : 1;
            void *part = fill(&spec, (workload_tensor)i, first, count);
            cr_expect_arr_eq(part, whole + bytes_of(&spec, first), bytes_of(&spec, count));
            free(part);
        }
        free(whole);
    }
}

Test(workload, seeds_and_tensors_differ)
{
    workload_spec one = tiny_spec(), two = tiny_spec();
    two.seed = 2;
    void *q = fill(&one, WORKLOAD_Q, 0, 20), *k = fill(&one, WORKLOAD_K, 0, 20);
    void *v = fill(&one, WORKLOAD_V, 0, 20), *other = fill(&two, WORKLOAD_Q, 0, 20);
    cr_expect_neq(memcmp(q, k, bytes_of(&one, 20)), 0);
    cr_expect_neq(memcmp(k, v, bytes_of(&one, 20)), 0);
    cr_expect_neq(memcmp(q, other, bytes_of(&one, 20)), 0);
    free(q);
    free(k);
    free(v);
    free(other);
}

/* q = gain * rms(...), and the rotation keeps lengths: every row's root mean square
 * is its kind's gain; a sink head's is not, for 0.6 w is added. */
Test(workload, rows_have_the_length_of_their_gain)
{
    static const double gains[] = {1.30, 1.25, 1.10, 0.85};
    workload_spec spec = tiny_spec();
    spec.dtype = RFA_F32;
    const float *q = fill(&spec, WORKLOAD_Q, 100, 50);
    for (int64_t token = 0; token < 50; token++)
        for (int head = 0; head < 4; head++) {
            const float *row = q + (token * spec.heads + head) * spec.dim;
            double sum = 0;
            for (int i = 0; i < spec.dim; i++)
                sum += (double)row[i] * row[i];
            cr_expect_float_eq(sqrt(sum / spec.dim), gains[head], 1e-4);
        }
    free((void *)q);
}

Test(workload, kinds_cycle)
{
    workload_spec spec = tiny_spec();
    workload_kind kind;
    for (int head = 0; head < 12; head++)
        cr_expect_eq(workload_head_kind(&spec, head), (workload_kind)(head % WORKLOAD_KINDS));
    spec.kind_count = 2;
    spec.kinds[0] = WORKLOAD_SINK;
    spec.kinds[1] = WORKLOAD_LOCAL;
    cr_expect_eq(workload_head_kind(&spec, 4), WORKLOAD_SINK);
    cr_expect_eq(workload_head_kind(&spec, 3), WORKLOAD_LOCAL);
    for (int i = 0; i < WORKLOAD_KINDS; i++) {
        cr_expect(workload_find_kind(workload_kind_name((workload_kind)i), &kind));
        cr_expect_eq(kind, (workload_kind)i);
    }
    cr_expect_not(workload_find_kind("strange", &kind));
    cr_expect_null(workload_find_preset("strange"));
}

Test(workload, presets_of_the_specification)
{
    static const workload_preset expected[] = {{"wan2.2-14b-720p", {21, 45, 80}, 40, 128},
                                               {"wan2.2-5b-720p", {31, 22, 40}, 24, 128},
                                               {"wan2.1-1.3b-480p", {21, 30, 52}, 12, 128},
                                               {"hunyuan-720p", {33, 45, 80}, 24, 128},
                                               {"tiny", {5, 12, 20}, 5, 64}};
    for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++) {
        const workload_preset *found = workload_find_preset(expected[i].name);
        cr_assert_not_null(found, "%s", expected[i].name);
        cr_expect_arr_eq(found->grid, expected[i].grid, sizeof(found->grid));
        cr_expect(found->heads == expected[i].heads && found->dim == expected[i].dim);
    }
}

Test(workload, bad_specs)
{
    rfa_error err = {""};
    char byte[8] = "";
    for (int i = 0; i < 8; i++) {
        workload_spec spec = tiny_spec();
        switch (i) {
        case 0: spec.grid[1] = 0; break;
        case 1: spec.grid[0] = -5; break;
        case 2: spec.grid[0] = spec.grid[1] = spec.grid[2] = INT64_MAX / 2; break;
        case 3: spec.heads = 0; break;
        case 4: spec.heads = WORKLOAD_MAX_HEADS + 1; break;
        case 5: spec.dim = 0; break;
        case 6: spec.dim = WORKLOAD_MAX_DIM + 1; break;
        default: spec.kind_count = -1; break;
        }
        cr_expect_eq(workload_check(&spec, &err), RFA_INVALID_ARGUMENT, "spec %d", i);
        cr_expect_eq(workload_fill(&spec, WORKLOAD_Q, 0, 1, byte, &err), RFA_INVALID_ARGUMENT,
                     "spec %d", i);
    }
    workload_spec spec = tiny_spec();
    cr_expect_eq(workload_fill(&spec, WORKLOAD_Q, 1200, 1, byte, &err), RFA_INVALID_ARGUMENT);
    cr_expect_eq(workload_fill(&spec, WORKLOAD_Q, -1, 1, byte, &err), RFA_INVALID_ARGUMENT);
    cr_expect_eq(workload_fill(&spec, WORKLOAD_Q, 1, INT64_MAX, byte, &err), RFA_INVALID_ARGUMENT);
}
