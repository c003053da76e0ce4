/* Attention over random q, k, v with 95 % recall on whatever device is best.
 * cc attention.c $(pkg-config --cflags --libs rfa) -o attention */
#include <rfa/rfa.h>
#include <stdio.h>
#include <stdlib.h>

enum { BATCH = 1, LEN = 2048, HEADS = 4, DIM = 64 };

/* A compact tensor in the context's memory; values may be NULL. */
static int make(rfa_context *ctx, DLTensor *t, int ndim, int64_t *shape, DLDataType dtype,
                const void *values)
{
    size_t size = dtype.bits / 8;
    for (int i = 0; i < ndim; i++)
        size *= (size_t)shape[i];
    *t =
        (DLTensor){.device = rfa_context_device(ctx), .ndim = ndim, .shape = shape, .dtype = dtype};
    return rfa_device_alloc(ctx, size, &t->data) == RFA_OK &&
           (!values || rfa_device_write(ctx, t->data, 0, values, size, NULL) == RFA_OK);
}

int main(void)
{
    static float values[BATCH * LEN * HEADS * DIM], result[BATCH * LEN * HEADS * DIM];
    int64_t shape[] = {BATCH, LEN, HEADS, DIM}, counts_shape[] = {sizeof(rfa_counts)};
    const DLDataType f32 = {kDLFloat, 32, 1}, bytes = {kDLUInt, 8, 1};
    DLTensor q, k, v, out, counts;
    rfa_counts told;
    rfa_context *ctx;
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++)
        values[i] = 4.0f * (float)rand() / (float)RAND_MAX - 2.0f;
    if (rfa_context_create(&ctx, NULL) != RFA_OK)
        goto failed;
    if (!make(ctx, &q, 4, shape, f32, values) || !make(ctx, &k, 4, shape, f32, values) ||
        !make(ctx, &v, 4, shape, f32, values) || !make(ctx, &out, 4, shape, f32, NULL) ||
        !make(ctx, &counts, 1, counts_shape, bytes, NULL))
        goto failed;

    rfa_attention_args args = RFA_ATTENTION_ARGS_INIT;
    args.q = &q, args.k = &k, args.v = &v, args.out = &out, args.counts = &counts;
    args.rule = RFA_RULE_RECALL;
    args.knob = 0.95f;
    if (rfa_attention(ctx, &args) != RFA_OK || rfa_synchronize(ctx, NULL) != RFA_OK ||
        rfa_device_read(ctx, out.data, 0, result, sizeof(result), NULL) != RFA_OK ||
        rfa_device_read(ctx, counts.data, 0, &told, sizeof(told), NULL) != RFA_OK)
        goto failed;
    printf("%s kept %.1f %% of the blocks and %.4f of the softmax mass; out[0] = %g\n",
           rfa_context_backend(ctx), 100.0 * (double)told.blocks_kept / (double)told.blocks_total,
           (double)told.recall_mean, (double)result[0]);
    DLTensor *made[] = {&q, &k, &v, &out, &counts};
    for (size_t i = 0; i < sizeof(made) / sizeof(made[0]); i++)
        rfa_device_free(ctx, made[i]->data);
    rfa_context_destroy(ctx);
    return 0;
failed:
    fprintf(stderr, "rfa: %s\n", rfa_last_error(NULL));
    return 1;
}
