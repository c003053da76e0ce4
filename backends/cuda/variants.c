/* The attention kernels: one table says which takes a problem and how it starts.
 * The first that takes it wins, so faster ones stand first. */
#include "cuda_backend.h"

/* ---- Any card since Ampere: attention.cuh ------------------------------------------------- */

enum { WARP_ROWS = 16, MOST_ROWS = 128 };

static int32_t rows_of(const rfa_problem *p)
{
    return (int32_t)cuda_min(p->block_q, p->len_q);
}

static int32_t warps_of(const rfa_problem *p)
{
    return (int32_t)cuda_ceil_div(rows_of(p), WARP_ROWS);
}

/* As shared_tiles of attention.cuh lays it out. */
static size_t shared_bytes(const cuda_variant *v, const rfa_problem *p)
{
    size_t warps = (size_t)warps_of(p), row = (size_t)(v->width * cuda_size_of(v->dtype)) + 16;
    size_t rows = warps * WARP_ROWS + (v->small ? 16 : 2 * (size_t)v->keys);
    return 128 + warps * 16 * 18 * sizeof(float) + rows * row;
}

static bool takes(const cuda_variant *v, const cuda_state *state, const rfa_problem *p)
{
    return v->dtype == p->dtype && p->dim <= v->width && p->dim_v <= v->width &&
           cuda_min(p->block_k, p->len_k) <= v->keys && rows_of(p) <= MOST_ROWS &&
           shared_bytes(v, p) <= (size_t)state->shared_memory;
}

static rfa_status launch(const cuda_variant *v, const cuda_state *state, CUfunction kernel,
                         const rfa_problem *p, const cuda_call *call, rfa_error *err)
{
    cuda_call own = *call;
    void *parameters[] = {&own};
    unsigned blocks = (unsigned)(p->batch * p->heads_q * p->blocks_q);
    CUresult result =
        state->driver->LaunchKernel(kernel, blocks, 1, 1, (unsigned)warps_of(p) * 32, 1, 1,
                                    (unsigned)shared_bytes(v, p), p->stream, parameters, NULL);
    return cuda_check(state->driver, result, v->kernel, err);
}

#define ANY_CARD(dtype_, name, width_, keys_, suffix, small_)                                      \
    {                                                                                              \
        .kernel = "rfa_attend_" #name "_" #width_ "_" #suffix,                                     \
        .image = CUDA_IMAGE_attention_##name, .dtype = (dtype_), .width = (width_),                \
        .keys = (keys_), .small = (small_), .takes = takes, .launch = launch                       \
    }

/* ---- The fast families ---------------------------------------------------------------------- */

enum cuda_walk cuda_walk_of(const rfa_problem *p)
{
    if (p->rule == RFA_RULE_DENSE)
        return CUDA_WALK_DENSE;
    if (p->rule == RFA_RULE_RECALL)
        return p->mass == RFA_MASS_ESTIMATED ? CUDA_WALK_ESTIMATED : CUDA_WALK_EXACT;
    return p->track_recall ? CUDA_WALK_MEASURED : CUDA_WALK_VOTE;
}

/* They write their output in pairs of elements. */
static bool takes_pairs(const rfa_problem *p)
{
    uintptr_t pair = 2 * (uintptr_t)cuda_size_of(p->out_dtype);
    bool even = ((uintptr_t)p->out.data + p->out.byte_offset) % pair == 0 && p->dim_v % 2 == 0;
    for (int i = 0; i < 3; i++)
        even &= p->out.stride[i] % 2 == 0;
    return even;
}

/* Nothing here but the walk depends on the rule: never skipping must find the
 * same kernels as dense. */
bool cuda_is_common(const cuda_variant *v, const rfa_problem *p)
{
    const int64_t most = 65535; /* of a grid's second and third size, which ampere's has */
    return v->dtype == p->dtype && p->dim <= v->width && p->dim_v <= v->width &&
           v->walk == cuda_walk_of(p) && p->scale > 0 && p->block_q == 64 && p->block_k == 128 &&
           p->visit_q % v->rows == 0 && p->heads_q <= most && p->batch <= most &&
           p->len_q <= INT32_MAX - v->rows && p->len_k <= INT32_MAX - 128 && takes_pairs(p);
}

#define AMPERE_KERNEL(dtype_, name, width_, tile_, causal_, suffix, walk_)                         \
    {                                                                                              \
        .kernel = "rfa_ampere_" #name "_" #width_ suffix, .image = CUDA_IMAGE_ampere_##name,       \
        .family = CUDA_FAMILY_AMPERE, .dtype = (dtype_), .width = (width_), .rows = 128,           \
        .tile = (tile_), .causal = (causal_), .walk = CUDA_WALK_##walk_,                           \
        .takes = cuda_ampere_takes, .launch = cuda_ampere_launch                                   \
    }

#define AMPERE_WALKS(dtype, name, width, tile, causal, form)                                       \
    AMPERE_KERNEL(dtype, name, width, tile, causal, form "_dense", DENSE),                         \
        AMPERE_KERNEL(dtype, name, width, tile, causal, form "_vote", VOTE),                       \
        AMPERE_KERNEL(dtype, name, width, tile, causal, form "_exact", MEASURED),                  \
        AMPERE_KERNEL(dtype, name, width, tile, causal, form "_estimated", ESTIMATED),             \
        AMPERE_KERNEL(dtype, name, width, tile, causal, form "_exact", EXACT)

#define AMPERE(dtype, name, width, tile, form)                                                     \
    AMPERE_WALKS(dtype, name, width, tile, false, form),                                           \
        AMPERE_WALKS(dtype, name, width, tile, true, form "_causal")

#define HOPPER_KERNEL(dtype_, name, width_, suffix, walk_, rows_, varied_)                         \
    {                                                                                              \
        .kernel = "hopper_" #name "_" #width_ "_" suffix, .image = CUDA_IMAGE_hopper,              \
        .family = CUDA_FAMILY_HOPPER, .dtype = (dtype_), .width = (width_), .rows = (rows_),       \
        .maps = true, .varied = (varied_), .walk = CUDA_WALK_##walk_, .takes = cuda_hopper_takes,  \
        .launch = cuda_hopper_launch                                                               \
    }

#define HOPPER_WALKS(dtype, name, width, suffix, rows, varied)                                     \
    HOPPER_KERNEL(dtype, name, width, "dense" suffix, DENSE, rows, varied),                        \
        HOPPER_KERNEL(dtype, name, width, "vote" suffix, VOTE, rows, varied),                      \
        HOPPER_KERNEL(dtype, name, width, "measured" suffix, MEASURED, rows, varied),              \
        HOPPER_KERNEL(dtype, name, width, "estimated" suffix, ESTIMATED, rows, varied),            \
        HOPPER_KERNEL(dtype, name, width, "exact" suffix, EXACT, rows, varied)

#define HOPPER(dtype, name, width)                                                                 \
    HOPPER_WALKS(dtype, name, width, "_192", 192, false),                                          \
        HOPPER_WALKS(dtype, name, width, "_128", 128, false),                                      \
        HOPPER_WALKS(dtype, name, width, "_varied_192", 192, true)

/* ---- All of them --------------------------------------------------------------------------- */

const cuda_variant cuda_variants[] = {
    HOPPER(RFA_BF16, bf16, 64),
    HOPPER(RFA_BF16, bf16, 128),
    HOPPER(RFA_F16, f16, 64),
    HOPPER(RFA_F16, f16, 128),
    AMPERE(RFA_BF16, bf16, 64, 64, ""),
    AMPERE(RFA_BF16, bf16, 128, 128, ""),
    AMPERE(RFA_BF16, bf16, 128, 64, "_halves"),
    AMPERE(RFA_F16, f16, 64, 64, ""),
    AMPERE(RFA_F16, f16, 128, 128, ""),
    AMPERE(RFA_F16, f16, 128, 64, "_halves"),
    ANY_CARD(RFA_F16, f16, 64, 64, 64, false),
    ANY_CARD(RFA_F16, f16, 64, 128, 128, false),
    ANY_CARD(RFA_F16, f16, 128, 64, 64, false),
    ANY_CARD(RFA_F16, f16, 128, 128, 128, false),
    ANY_CARD(RFA_F16, f16, 256, 128, 128, false),
    ANY_CARD(RFA_F16, f16, 128, 128, small, true),
    ANY_CARD(RFA_F16, f16, 256, 128, small, true),
    ANY_CARD(RFA_BF16, bf16, 64, 64, 64, false),
    ANY_CARD(RFA_BF16, bf16, 64, 128, 128, false),
    ANY_CARD(RFA_BF16, bf16, 128, 64, 64, false),
    ANY_CARD(RFA_BF16, bf16, 128, 128, 128, false),
    ANY_CARD(RFA_BF16, bf16, 256, 128, 128, false),
    ANY_CARD(RFA_BF16, bf16, 128, 128, small, true),
    ANY_CARD(RFA_BF16, bf16, 256, 128, small, true),
    ANY_CARD(RFA_F32, f32, 64, 128, small, true),
    ANY_CARD(RFA_F32, f32, 128, 128, small, true),
    ANY_CARD(RFA_F32, f32, 256, 128, small, true),
};

const int cuda_variant_count = sizeof(cuda_variants) / sizeof(cuda_variants[0]);

_Static_assert(sizeof(cuda_variants) / sizeof(cuda_variants[0]) <= CUDA_MAX_VARIANTS,
               "cuda_state has room for every variant");

rfa_status cuda_launch_any_card(const cuda_state *state, const rfa_problem *p,
                                const cuda_call *call, rfa_error *err)
{
    for (int i = 0; i < cuda_variant_count; i++) {
        const cuda_variant *v = &cuda_variants[i];
        if (v->family == CUDA_FAMILY_GENERIC && v->takes(v, state, p))
            return v->launch(v, state, state->variant[i], p, call, err);
    }
    return rfa_fail(err, RFA_UNSUPPORTED, "no kernel for any card takes this");
}

rfa_status cuda_choose_variant(const cuda_state *state, const rfa_problem *p, int *variant,
                               rfa_error *err)
{
    if (p->replay.data)
        return rfa_fail(err, RFA_UNSUPPORTED,
                        "replay is given, only the reference backend follows decisions");
    for (int i = 0; i < cuda_variant_count; i++) {
        const cuda_variant *v = &cuda_variants[i];
        if (state->variant[i] && v->takes(v, state, p)) {
            *variant = i;
            return RFA_OK;
        }
    }
    if (rows_of(p) > MOST_ROWS || cuda_min(p->block_k, p->len_k) > 128)
        return rfa_fail(err, RFA_UNSUPPORTED,
                        "decision blocks are %d x %d, this backend takes at most 128 x 128",
                        (int)p->block_q, (int)p->block_k);
    return rfa_fail(err, RFA_UNSUPPORTED,
                    "decision blocks of %d rows with head dims %d and %d need more than the "
                    "device's %d bytes of shared memory",
                    (int)p->block_q, (int)p->dim, (int)p->dim_v, state->shared_memory);
}
