/* What only the device sees: visit lists, masses, knobs and cumulative lengths
 * of any content, on the cpu backend. Memory outside the tensors is the address
 * sanitizer's business; here, counts must make sense and output be finite. */
#include <math.h>
#include <stdlib.h>

#include <rfa/rfa.h>

#include "fuzz/bytes.h"

enum {
    HEADS = 2,
    LEN = 80,
    DIM = 8,
    BLOCK = 16,
    VISIT = 32,
    GROUPS = 3,
    CAPACITY = 7,
    SEQUENCES = 3
};
enum { ROWS = SEQUENCES * HEADS * GROUPS };

static void require(int condition)
{
    if (!condition)
        abort();
}

static rfa_context *context(void)
{
    static rfa_context *ctx;
    rfa_context_options options = RFA_CONTEXT_OPTIONS_INIT;
    options.backend = "cpu";
    options.threads = 1;
    if (!ctx)
        require(rfa_context_create(&ctx, &options) == RFA_OK);
    return ctx;
}

/* Everything on the heap, so that the sanitizer guards its ends. */
static void *take_heap(fuzz_bytes *bytes, size_t size)
{
    void *memory = malloc(size);
    require(memory != NULL);
    fuzz_take(bytes, memory, size);
    return memory;
}

static DLTensor tensor_of(void *data, DLDataType dtype, int ndim, int64_t *shape)
{
    return (DLTensor){
        .data = data, .device = {kDLCPU, 0}, .ndim = ndim, .dtype = dtype, .shape = shape};
}

static void check_counts(const rfa_counts *c)
{
    require(c->blocks_kept <= c->blocks_visited && c->blocks_visited <= c->blocks_total);
    require(c->bad_knobs <= SEQUENCES * HEADS && c->bad_sequences <= SEQUENCES);
    require(c->bad_indices <= ROWS * CAPACITY);
    require(isnan(c->recall_mean) || (c->recall_mean >= 0 && c->recall_mean <= 1.0001f));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_bytes bytes = {data, size};
    const DLDataType f32 = {kDLFloat, 32, 1}, i32 = {kDLInt, 32, 1}, u8 = {kDLUInt, 8, 1};
    int mode = fuzz_byte(&bytes);
    int packed = mode & 1;
    int64_t rows[] = {LEN, HEADS, DIM}, batch_rows[] = {1, LEN, HEADS, DIM};
    int64_t batch = packed ? SEQUENCES : 1;
    int64_t lists[] = {batch, HEADS, GROUPS, CAPACITY}, knob_shape[] = {batch, HEADS};
    int64_t offsets[] = {SEQUENCES + 1}, counts_shape[] = {sizeof(rfa_counts)};
    int64_t *shape = packed ? rows : batch_rows;
    int ndim = packed ? 3 : 4;

    int32_t *cu = take_heap(&bytes, 2 * (SEQUENCES + 1) * sizeof(*cu));
    int32_t *counts = take_heap(&bytes, ROWS * sizeof(*counts));
    int32_t *indices = take_heap(&bytes, ROWS * CAPACITY * sizeof(*indices));
    float *masses = take_heap(&bytes, ROWS * CAPACITY * sizeof(*masses));
    float *knobs = take_heap(&bytes, SEQUENCES * HEADS * sizeof(*knobs));
    float *values = malloc(LEN * HEADS * DIM * sizeof(*values));
    float *out = calloc(LEN * HEADS * DIM, sizeof(*out));
    rfa_counts *told = calloc(1, sizeof(*told));
    require(values && out && told);
    for (int i = 0; i < LEN * HEADS * DIM; i++)
        values[i] = (float)(i * 7919 % 1000) / 250 - 2;

    DLTensor q = tensor_of(values, f32, ndim, shape), o = tensor_of(out, f32, ndim, shape);
    DLTensor cu_q = tensor_of(cu, i32, 1, offsets), cu_k = tensor_of(cu + 4, i32, 1, offsets);
    DLTensor list_indices = tensor_of(indices, i32, 4, lists);
    DLTensor list_counts = tensor_of(counts, i32, 3, lists);
    DLTensor list_masses = tensor_of(masses, f32, 4, lists);
    DLTensor knob_tensor = tensor_of(knobs, f32, 2, knob_shape);
    DLTensor counts_tensor = tensor_of(told, u8, 1, counts_shape);
    rfa_attention_args args = RFA_ATTENTION_ARGS_INIT;
    args.q = args.k = args.v = &q;
    args.out = &o;
    if (packed) {
        args.cu_seqlens_q = &cu_q;
        args.cu_seqlens_k = &cu_k;
        args.max_len_q = args.max_len_k = LEN;
    }
    args.rule = (rfa_rule)(mode >> 1 & 3);
    args.mass = args.rule == RFA_RULE_RECALL ? (rfa_mass)(mode >> 3 & 1) : RFA_MASS_EXACT;
    args.mask = (rfa_mask)(mode >> 4 & 1);
    args.order = RFA_ORDER_LIST;
    args.block_q = args.block_k = BLOCK;
    args.visit_q = VISIT;
    args.knobs = &knob_tensor;
    args.list_indices = &list_indices;
    args.list_counts = &list_counts;
    args.list_masses = mode >> 5 & 1 ? &list_masses : NULL;
    args.counts = &counts_tensor;
    require(rfa_attention(context(), &args) == RFA_OK);
    check_counts(told);
    for (int i = 0; i < LEN * HEADS * DIM; i++)
        require(isfinite(out[i]));

    void *all[] = {cu, counts, indices, masses, knobs, values, out, told};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        free(all[i]);
    return 0;
}
