#include "conformance/guarded.h"

#include <stdlib.h>
#include <string.h>

#include "conformance/rng.h"

/* More than a tile of 64 rows x 128 halves, so that a whole stray tile shows. */
#define GUARD_BYTES ((size_t)16384)

static size_t element_bytes(const guarded_layout *layout)
{
    return layout->type.bits / 8u;
}

void guarded_compact(guarded_layout *layout)
{
    int64_t stride = 1;
    for (int32_t i = layout->ndim - 1; i >= 0; i--) {
        layout->stride[i] = stride;
        stride *= layout->shape[i];
    }
}

/* Elements from the first to the last, both counted. */
static int64_t extent(const guarded_layout *layout)
{
    int64_t last = 0;
    for (int32_t i = 0; i < layout->ndim; i++)
        last += (layout->shape[i] - 1) * layout->stride[i];
    return last + 1;
}

static void set_tensor(guarded *g, void *data)
{
    bool compact = g->layout.null_strides;
    g->tensor = (DLTensor){.data = data,
                           .device = rfa_context_device(g->ctx),
                           .ndim = g->layout.ndim,
                           .dtype = g->layout.type,
                           .shape = g->layout.shape,
                           .strides = compact ? NULL : g->layout.stride,
                           .byte_offset = g->first};
}

rfa_status guarded_alloc(guarded *g, rfa_context *ctx, const guarded_layout *layout, uint64_t nonce,
                         rfa_error *err)
{
    size_t bytes = element_bytes(layout), body;
    memset(g, 0, sizeof(*g));
    g->ctx = ctx;
    g->layout = *layout;
    g->first = (layout->bare_front ? 0 : GUARD_BYTES) + (size_t)layout->shift * bytes;
    body = g->first + (size_t)extent(layout) * bytes + GUARD_BYTES;
    g->size = (body + 255) / 256 * 256;
    g->image = malloc(g->size);
    g->seen = aligned_alloc(256, g->size);
    if (!g->image || !g->seen)
        return rfa_fail(err, RFA_OUT_OF_MEMORY, "no host memory for a buffer of %zu bytes",
                        g->size);
    void *data = NULL;
    rfa_status status = rfa_device_alloc(ctx, g->size, &data);
    if (status != RFA_OK)
        return rfa_fail(err, status, "%s", rfa_last_error(ctx));
    set_tensor(g, data);
    guarded_poison(g, nonce);
    return RFA_OK;
}

void guarded_free(guarded *g)
{
    if (g->tensor.data)
        rfa_device_free(g->ctx, g->tensor.data);
    free(g->image);
    free(g->seen);
    free(g->opened);
    memset(g, 0, sizeof(*g));
}

static size_t element_index(const guarded *g, int64_t i, int64_t j, int64_t k, int64_t l)
{
    const int64_t *stride = g->layout.stride, at[GUARDED_MAX_DIMS] = {i, j, k, l};
    int64_t index = 0;
    for (int32_t d = 0; d < g->layout.ndim; d++)
        index += at[d] * stride[d];
    return g->first / element_bytes(&g->layout) + (size_t)index;
}

void *guarded_at(guarded *g, int64_t i, int64_t j, int64_t k, int64_t l)
{
    return g->image + element_index(g, i, j, k, l) * element_bytes(&g->layout);
}

const void *guarded_seen(const guarded *g, int64_t i, int64_t j, int64_t k, int64_t l)
{
    return g->seen + element_index(g, i, j, k, l) * element_bytes(&g->layout);
}

/* ---- what may be written ---- */

static rfa_status need_opened(guarded *g, rfa_error *err)
{
    if (!g->opened)
        g->opened = calloc(g->size / element_bytes(&g->layout), 1);
    return g->opened ? RFA_OK : rfa_fail(err, RFA_OUT_OF_MEMORY, "no host memory for a mask");
}

rfa_status guarded_open(guarded *g, int64_t i, int64_t j, int64_t k, int64_t l, rfa_error *err)
{
    rfa_status status = need_opened(g, err);
    if (status == RFA_OK)
        g->opened[element_index(g, i, j, k, l)] = 1;
    return status;
}

rfa_status guarded_open_all(guarded *g, rfa_error *err)
{
    int64_t n[GUARDED_MAX_DIMS] = {1, 1, 1, 1};
    rfa_status status = need_opened(g, err);
    if (status != RFA_OK)
        return status;
    for (int32_t d = 0; d < g->layout.ndim; d++)
        n[d] = g->layout.shape[d];
    for (int64_t i = 0; i < n[0]; i++)
        for (int64_t j = 0; j < n[1]; j++)
            for (int64_t k = 0; k < n[2]; k++)
                for (int64_t l = 0; l < n[3]; l++)
                    g->opened[element_index(g, i, j, k, l)] = 1;
    return RFA_OK;
}

/* ---- pattern ---- */

/* A NaN in f32, f16 and bf16 with noise in its payload; noise alone in integers,
 * where a stray -1 or 0 must show as well. */
static void write_pattern(uint8_t *element, DLDataType type, uint64_t noise)
{
    uint32_t wide = (uint32_t)noise;
    uint16_t half = (uint16_t)noise;
    bool real = type.code == kDLFloat || type.code == kDLBfloat;
    if (real && type.bits == 32)
        wide = 0x7fc00000u | (wide & 0x3fffffu);
    if (real && type.bits == 16)
        half = type.code == kDLFloat ? (uint16_t)(0x7e00 | (half & 0x1ff))
                                     : (uint16_t)(0x7fc0 | (half & 0x3f));
    if (type.bits == 32)
        memcpy(element, &wide, sizeof(wide));
    else if (type.bits == 16)
        memcpy(element, &half, sizeof(half));
    else
        *element = (uint8_t)noise;
}

void guarded_poison(guarded *g, uint64_t nonce)
{
    size_t bytes = element_bytes(&g->layout);
    rng r = rng_stream(nonce, g->size);
    for (size_t at = 0; at < g->size; at += bytes)
        write_pattern(g->image + at, g->layout.type, rng_next(&r));
}

/* ---- to the device and back ---- */

rfa_status guarded_upload(guarded *g, rfa_error *err)
{
    rfa_status status = rfa_device_write(g->ctx, g->tensor.data, 0, g->image, g->size, NULL);
    return status == RFA_OK ? status : rfa_fail(err, status, "%s", rfa_last_error(g->ctx));
}

rfa_status guarded_download(guarded *g, rfa_error *err)
{
    rfa_status status = rfa_device_read(g->ctx, g->tensor.data, 0, g->seen, g->size, NULL);
    return status == RFA_OK ? status : rfa_fail(err, status, "%s", rfa_last_error(g->ctx));
}

bool guarded_intact(const guarded *g, char *why, size_t why_size)
{
    size_t bytes = element_bytes(&g->layout), end = g->first + (size_t)extent(&g->layout) * bytes;
    for (size_t at = 0; at < g->size; at += bytes) {
        if (memcmp(g->image + at, g->seen + at, bytes) == 0 || (g->opened && g->opened[at / bytes]))
            continue;
        if (at < g->first)
            snprintf(why, why_size, "was written %zu bytes before its start", g->first - at);
        else if (at >= end)
            snprintf(why, why_size, "was written %zu bytes past its end", at - end);
        else
            snprintf(why, why_size, "was changed at byte %zu, which nothing may write",
                     at - g->first);
        return false;
    }
    return true;
}

bool guarded_same(const guarded *g, const uint8_t *seen, char *why, size_t why_size)
{
    size_t bytes = element_bytes(&g->layout);
    for (size_t at = 0; g->opened && at < g->size; at += bytes)
        if (g->opened[at / bytes] && memcmp(g->seen + at, seen + at, bytes) != 0) {
            snprintf(why, why_size, "differs at byte %zu", at - g->first);
            return false;
        }
    return true;
}

DLTensor guarded_host(const guarded *g)
{
    DLTensor host = g->tensor;
    host.data = g->seen;
    host.device = (DLDevice){kDLCPU, 0};
    return host;
}
