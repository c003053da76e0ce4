/* The synthetic workload as a whole: presets, checks, parallel generation. */
#include "tools/workload.h"

#include <stdlib.h>
#include <string.h>

#include "tools/dtype.h"
#include "tools/workload_head.h"
#include "tools/workload_scene.h"

const workload_preset workload_presets[] = {
    {"wan2.2-14b-720p", {21, 45, 80}, 40, 128},
    {"wan2.2-5b-720p", {31, 22, 40}, 24, 128},
    {"wan2.1-1.3b-480p", {21, 30, 52}, 12, 128},
    {"hunyuan-720p", {33, 45, 80}, 24, 128},
    {"tiny", {5, 12, 20}, 5, 64},
    {NULL, {0, 0, 0}, 0, 0},
};

static const char *const kind_names[WORKLOAD_KINDS] = {
    [WORKLOAD_LOCAL] = "local",     [WORKLOAD_OBJECT] = "object", [WORKLOAD_MIXED] = "mixed",
    [WORKLOAD_DIFFUSE] = "diffuse", [WORKLOAD_SINK] = "sink",
};

const workload_preset *workload_find_preset(const char *name)
{
    for (const workload_preset *p = workload_presets; p->name; p++)
        if (!strcmp(p->name, name))
            return p;
    return NULL;
}

const char *workload_kind_name(workload_kind kind)
{
    return kind_names[kind];
}

bool workload_find_kind(const char *name, workload_kind *kind)
{
    for (int i = 0; i < WORKLOAD_KINDS; i++)
        if (!strcmp(kind_names[i], name)) {
            *kind = (workload_kind)i;
            return true;
        }
    return false;
}

workload_kind workload_head_kind(const workload_spec *spec, int32_t head)
{
    if (spec->kind_count == 0)
        return (workload_kind)(head % WORKLOAD_KINDS);
    return spec->kinds[head % spec->kind_count];
}

int64_t workload_tokens(const workload_spec *spec)
{
    return spec->grid[0] * spec->grid[1] * spec->grid[2];
}

static rfa_status check_size(const workload_spec *spec, rfa_error *err)
{
    const uint64_t limit = UINT64_C(1) << 53;
    uint64_t size = 3 * dtype_size(spec->dtype) * (uint64_t)spec->heads * (uint64_t)spec->dim;
    for (int axis = 0; axis < 3; axis++) {
        if (spec->grid[axis] < 1)
            return rfa_fail(err, RFA_INVALID_ARGUMENT, "grid %lld,%lld,%lld: sizes start at 1",
                            (long long)spec->grid[0], (long long)spec->grid[1],
                            (long long)spec->grid[2]);
        if ((uint64_t)spec->grid[axis] > limit / size)
            return rfa_fail(err, RFA_INVALID_ARGUMENT,
                            "grid %lld,%lld,%lld with %d heads of %d dims passes 2^53 bytes",
                            (long long)spec->grid[0], (long long)spec->grid[1],
                            (long long)spec->grid[2], (int)spec->heads, (int)spec->dim);
        size *= (uint64_t)spec->grid[axis];
    }
    return RFA_OK;
}

rfa_status workload_check(const workload_spec *spec, rfa_error *err)
{
    const int32_t max_kinds = (int32_t)(sizeof(spec->kinds) / sizeof(spec->kinds[0]));
    if (spec->heads < 1 || spec->heads > WORKLOAD_MAX_HEADS)
        return rfa_fail(err, RFA_INVALID_ARGUMENT, "%d heads: 1 to %d are possible",
                        (int)spec->heads, WORKLOAD_MAX_HEADS);
    if (spec->dim < 1 || spec->dim > WORKLOAD_MAX_DIM)
        return rfa_fail(err, RFA_INVALID_ARGUMENT, "dim %d: 1 to %d are possible", (int)spec->dim,
                        WORKLOAD_MAX_DIM);
    if (spec->dtype != RFA_F32 && spec->dtype != RFA_F16 && spec->dtype != RFA_BF16)
        return rfa_fail(err, RFA_INVALID_ARGUMENT, "dtype %d is none of f32, f16, bf16",
                        (int)spec->dtype);
    if (spec->kind_count < 0 || spec->kind_count > max_kinds)
        return rfa_fail(err, RFA_INVALID_ARGUMENT, "%d head kinds: at most %d can be listed",
                        (int)spec->kind_count, (int)max_kinds);
    for (int32_t i = 0; i < spec->kind_count; i++)
        if ((unsigned)spec->kinds[i] >= WORKLOAD_KINDS)
            return rfa_fail(err, RFA_INVALID_ARGUMENT, "head kind %d does not exist",
                            (int)spec->kinds[i]);
    return check_size(spec, err);
}

/* ---- Generation -------------------------------------------------------------------- */

typedef struct generator {
    scene scene;
    rotary turn;
    workload_head heads[WORKLOAD_MAX_HEADS];
    double *matrices;
} generator;

static void generator_destroy(generator *g)
{
    if (g)
        free(g->matrices);
    free(g);
}

static generator *generator_create(const workload_spec *spec, workload_tensor which)
{
    generator *g = malloc(sizeof(*g));
    if (!g)
        return NULL;
    size_t matrix = head_matrix_size(spec->dim);
    g->matrices = malloc((size_t)spec->heads * matrix * sizeof(double));
    if (!g->matrices) {
        generator_destroy(g);
        return NULL;
    }
    scene_init(&g->scene, spec->seed, spec->grid);
    rotary_init(&g->turn, spec->dim);
#pragma omp parallel for schedule(static)
    for (int32_t i = 0; i < spec->heads; i++) {
        workload_head *h = &g->heads[i];
        h->spec = spec;
        h->turn = &g->turn;
        h->which = which;
        h->index = i;
        h->matrix = g->matrices + (size_t)i * matrix;
        head_init(h);
    }
    return g;
}

static void fill_batch(const generator *g, const workload_spec *spec, int64_t token, int count,
                       char *dst)
{
    head_batch batch;
    double rows[HEAD_TOKENS][WORKLOAD_MAX_DIM];
    size_t row_size = (size_t)spec->dim * dtype_size(spec->dtype);
    head_batch_init(&batch, &g->scene, &g->turn, token, count);
    for (int32_t h = 0; h < spec->heads; h++) {
        head_rows(&g->heads[h], &batch, rows);
        for (int i = 0; i < count; i++) {
            size_t place = (size_t)i * (size_t)spec->heads + (size_t)h;
            dtype_pack(spec->dtype, rows[i], (size_t)spec->dim, dst + place * row_size);
        }
    }
}

rfa_status workload_fill(const workload_spec *spec, workload_tensor which, int64_t first_token,
                         int64_t token_count, void *dst, rfa_error *err)
{
    rfa_status status = workload_check(spec, err);
    if (status)
        return status;
    int64_t tokens = workload_tokens(spec);
    if (first_token < 0 || token_count < 0 || first_token > tokens ||
        token_count > tokens - first_token)
        return rfa_fail(err, RFA_INVALID_ARGUMENT, "tokens %lld + %lld of a grid of %lld",
                        (long long)first_token, (long long)token_count, (long long)tokens);
    if (which != WORKLOAD_Q && which != WORKLOAD_K && which != WORKLOAD_V)
        return rfa_fail(err, RFA_INVALID_ARGUMENT, "tensor %d is none of q, k, v", (int)which);
    generator *g = generator_create(spec, which);
    if (!g)
        return rfa_fail(err, RFA_OUT_OF_MEMORY, "no memory for the matrices of %d heads",
                        (int)spec->heads);

    size_t token_size = (size_t)spec->heads * (size_t)spec->dim * dtype_size(spec->dtype);
#pragma omp parallel for schedule(dynamic, 4)
    for (int64_t done = 0; done < token_count; done += HEAD_TOKENS) {
        int64_t left = token_count - done;
        int count = left < HEAD_TOKENS ? (int)left : HEAD_TOKENS;
        fill_batch(g, spec, first_token + done, count, (char *)dst + (size_t)done * token_size);
    }
    generator_destroy(g);
    return RFA_OK;
}

uint64_t workload_checksum(uint64_t state, const void *data, size_t size)
{
    const unsigned char *bytes = data;
    for (size_t i = 0; i < size; i++)
        state = (state ^ bytes[i]) * UINT64_C(0x100000001b3);
    return state;
}
