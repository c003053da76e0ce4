/* Visit lists of `rfa bench`: so large a share of the key blocks, drawn at random for
 * every visit group, in random order. */
#include "tools/bench.h"

#include <math.h>
#include <stdlib.h>

/* The first `count` places of a shuffle of 0 .. blocks - 1; `all` holds these. */
static void draw(int32_t *all, int64_t blocks, int64_t count, uint64_t *state, int32_t *list)
{
    for (int64_t i = 0; i < count; i++) {
        *state = *state * 6364136223846793005u + 1442695040888963407u;
        int64_t other = i + (int64_t)((*state >> 33) % (uint64_t)(blocks - i));
        int32_t drawn = all[other];
        all[other] = all[i];
        all[i] = list[i] = drawn;
    }
}

static void fill(device_tensor *indices, device_tensor *counts, int64_t blocks, int32_t *all)
{
    const int64_t *shape = indices->shape;
    int64_t lists = shape[0] * shape[1] * shape[2];
    uint64_t state = 1;
    for (int64_t j = 0; j < blocks; j++)
        all[j] = (int32_t)j;
    for (int64_t i = 0; i < lists; i++) {
        draw(all, blocks, shape[3], &state, (int32_t *)indices->host + i * shape[3]);
        ((int32_t *)counts->host)[i] = (int32_t)shape[3];
    }
}

static rfa_status send(rfa_context *ctx, device_tensor *t, rfa_error *err)
{
    return device_status(ctx, rfa_device_write(ctx, t->tensor.data, 0, t->host, t->size, NULL),
                         err);
}

rfa_status bench_list_make(const bench_request *r, rfa_context *ctx, double share, bench_list *list,
                           rfa_error *err)
{
    const DLDataType i32 = {kDLInt, 32, 1};
    int64_t len = workload_tokens(&r->workload), blocks = (len + r->block_k - 1) / r->block_k;
    int64_t count = (int64_t)llround(share * (double)blocks);
    const int64_t shape[4] = {r->batch, r->workload.heads, (len + r->visit_q - 1) / r->visit_q,
                              count > 0 ? count : 1};
    rfa_status status = device_tensor_make(ctx, &list->indices, i32, 4, shape, err);
    if (status == RFA_OK)
        status = device_tensor_make(ctx, &list->counts, i32, 3, shape, err);
    if (status == RFA_OK) /* makes the copies on the host */
        status = device_tensor_fetch(ctx, &list->indices, err);
    if (status == RFA_OK)
        status = device_tensor_fetch(ctx, &list->counts, err);
    if (status != RFA_OK)
        return status;
    int32_t *all = calloc((size_t)blocks, sizeof(*all));
    if (!all)
        return rfa_fail(err, RFA_OUT_OF_MEMORY, "no memory for a visit list");
    fill(&list->indices, &list->counts, blocks, all);
    free(all);
    status = send(ctx, &list->indices, err);
    return status == RFA_OK ? send(ctx, &list->counts, err) : status;
}

void bench_list_free(rfa_context *ctx, bench_list *list)
{
    device_tensor_free(ctx, &list->indices);
    device_tensor_free(ctx, &list->counts);
}
