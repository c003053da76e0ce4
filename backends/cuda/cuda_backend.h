/* What the host files of the cuda backend share.
 *
 *   backend.c       the vtable: devices, contexts
 *   driver.c        the driver, loaded at run time
 *   state.c         a context: device, kernels
 *   memory.c        device memory
 *   workspace.c     a context's own workspace
 *   timer.c         timers
 *   layout.c        workspace: one function sizes it and places what is in it
 *   run.c           a call: which kernels, in which order
 *   variants.c      the attention kernels: which one takes a problem
 *   ampere.c        how those of ampere/ start
 *   hopper.c        how those of hopper/ start
 *   call.h          what kernels are given
 *
 *   prepare.cu      lengths, token order, flags, limits, gather; visit lists
 *   numbers.cuh     arithmetic that attention kernels share
 *   shared_memory.cuh  words and addresses of shared memory, likewise
 *   lists.cuh       how visit lists are made
 *   predicted.cu    the predicted order's masses and lists
 *   attention.cuh   attention, by rows.cuh (decisions) and tile.cuh (matrices)
 *   ampere/         attention in the common case, by mma.sync
 *   hopper/         attention by the instructions that only Hopper has
 *   counts.cu       rfa_counts
 *   merge.cu        partial results
 */
#ifndef RFA_CUDA_BACKEND_H
#define RFA_CUDA_BACKEND_H

#include "backends/backend.h"

#include "call.h"
#include "driver.h"

/* ---- Kernels ------------------------------------------------------------------------- */

/* X(name, image): kernels beside those of the attention variants. */
#define CUDA_KERNELS(X)                                                                            \
    X(rfa_prepare, prepare)                                                                        \
    X(rfa_prepare_cubes, prepare)                                                                  \
    X(rfa_make_lists, prepare)                                                                     \
    X(rfa_gather, prepare)                                                                         \
    X(rfa_pool_tokens, predicted)                                                                  \
    X(rfa_predict_lists, predicted)                                                                \
    X(rfa_count, counts)                                                                           \
    X(rfa_merge_rows, merge)

/* X(name, only): compiled code; only: 0, or the one capability it is for. */
#define CUDA_IMAGES(X)                                                                             \
    X(prepare, 0)                                                                                  \
    X(predicted, 0)                                                                                \
    X(counts, 0)                                                                                   \
    X(merge, 0)                                                                                    \
    X(attention_f32, 0)                                                                            \
    X(attention_f16, 0)                                                                            \
    X(attention_bf16, 0)                                                                           \
    X(ampere_f16, 0)                                                                               \
    X(ampere_bf16, 0)                                                                              \
    X(hopper, 90)

enum cuda_image {
#define X(name, only) CUDA_IMAGE_##name,
    CUDA_IMAGES(X)
#undef X
        CUDA_IMAGE_COUNT
};

enum cuda_kernel {
#define X(name, image) CUDA_KERNEL_##name,
    CUDA_KERNELS(X)
#undef X
        CUDA_KERNEL_COUNT
};

/* ---- A context ------------------------------------------------------------------------ */

/* Kernels of one kind, from those that do everything to the fastest. */
enum cuda_family { CUDA_FAMILY_GENERIC, CUDA_FAMILY_AMPERE, CUDA_FAMILY_HOPPER };

enum { CUDA_MAX_VARIANTS = 160 };

/* Memory that captured graphs hold. */
typedef struct cuda_kept_block {
    void *data;
    struct cuda_kept_block *next;
} cuda_kept_block;

typedef struct cuda_workspace {
    void *data;
    size_t size;
    bool captured;         /* a graph holds data */
    CUevent last;          /* the work that used it last; NULL before the first */
    cuda_kept_block *kept; /* earlier ones */
} cuda_workspace;

typedef struct cuda_state {
    const cuda_driver *driver;
    int32_t index;
    CUdevice device;
    CUcontext context;       /* the device's primary one, retained */
    int capability;          /* 10 major + minor */
    int multiprocessors;     /* to be used at most */
    int shared_memory;       /* bytes that a block of threads may have */
    enum cuda_family family; /* the fastest that may be used */
    CUmodule module[CUDA_IMAGE_COUNT];
    CUfunction kernel[CUDA_KERNEL_COUNT];
    CUfunction variant[CUDA_MAX_VARIANTS]; /* NULL: not for this device */
    cuda_workspace workspace;
} cuda_state;

/* ---- state.c ---------------------------------------------------------------------------- */

rfa_status cuda_state_create(int32_t index, cuda_state **state, rfa_error *err);
void cuda_state_destroy(cuda_state *state);
/* RFA_OK, or why this backend does not run on the device. */
rfa_status cuda_device_usable(int capability, rfa_error *err);

/* The fastest family for a device, or the one that RFA_CUDA_KERNELS names if that is
 * slower: tests compare them so. RFA_INVALID_ARGUMENT when it names none. */
rfa_status cuda_choose_family(int capability, enum cuda_family *family, rfa_error *err);
const char *cuda_family_name(enum cuda_family family);

/* Makes the state's context current; the caller's comes back with cuda_leave. */
rfa_status cuda_enter(const cuda_state *state, rfa_error *err);
void cuda_leave(const cuda_state *state);

/* ---- memory.c --------------------------------------------------------------------------- */

rfa_status cuda_alloc(void *state, size_t size, void **data, rfa_error *err);
void cuda_free(void *state, void *data);
rfa_status cuda_write(void *state, void *data, size_t offset, const void *host, size_t size,
                      void *stream, rfa_error *err);
rfa_status cuda_read(void *state, const void *data, size_t offset, void *host, size_t size,
                     void *stream, rfa_error *err);
rfa_status cuda_synchronize(void *state, void *stream, rfa_error *err);

/* ---- workspace.c ------------------------------------------------------------------------ */

rfa_status cuda_workspace_take(void *state, size_t size, void *stream, void **data, rfa_error *err);
rfa_status cuda_workspace_give(void *state, void *stream, rfa_error *err);
/* The state's context is current. */
void cuda_workspace_destroy(cuda_state *state);

/* ---- timer.c ---------------------------------------------------------------------------- */

rfa_status cuda_timer_create(void *state, void **timer, rfa_error *err);
void cuda_timer_destroy(void *state, void *timer);
rfa_status cuda_timer_start(void *state, void *timer, void *stream, rfa_error *err);
rfa_status cuda_timer_stop(void *state, void *timer, void *stream, rfa_error *err);
rfa_status cuda_timer_read(void *state, void *timer, double *seconds, rfa_error *err);

/* ---- layout.c --------------------------------------------------------------------------- */

typedef struct cuda_variant cuda_variant;

/* Which of q, k and v are gathered into the workspace. */
typedef struct cuda_gathers {
    bool q, k, v;
} cuda_gathers;

typedef struct cuda_layout {
    cuda_call call; /* without a workspace, its addresses mean nothing */
    cuda_gathers gather;
    bool prepared; /* tables and lists are made, beyond what a gather or the attention needs */
    size_t size;
} cuda_layout;

/* Fills the call of an attention kernel, or, with NULL, of building a list, and
 * sizes its workspace; with a workspace (not NULL), places it too. RFA_OUT_OF_MEMORY when the size
 * does not fit, RFA_UNSUPPORTED when the grids of threads do not. */
rfa_status cuda_layout_of(cuda_layout *layout, const rfa_problem *p, const cuda_variant *variant,
                          void *workspace, rfa_error *err);

/* ---- variants.c ------------------------------------------------------------------------- */

/* What a walk keeps account of; families may have a kernel for each. */
enum cuda_walk {
    CUDA_WALK_ANY,
    CUDA_WALK_DENSE,
    CUDA_WALK_VOTE,      /* blasst or energy, recall not asked for */
    CUDA_WALK_ESTIMATED, /* recall with estimated masses */
    CUDA_WALK_EXACT,     /* recall with exact masses */
    CUDA_WALK_MEASURED   /* blasst, energy with recall */
};

/* One attention kernel. */
struct cuda_variant {
    const char *kernel; /* its name in the image */
    enum cuda_image image;
    enum cuda_family family;
    rfa_dtype dtype;
    int32_t width; /* dims are padded to this */
    int32_t keys;  /* of a block, at most */
    bool small;    /* keys and values pass through shared memory 16 at a time */
    bool maps;     /* reads q, k and v through tensor maps */
    bool varied;   /* for causal masks and packs, and only for these; Hopper */
    int32_t rows;  /* of q computed together; fast families */
    int32_t tile;  /* columns of a tile of keys or values; Ampere */
    bool causal;   /* for causal masks, and only for these; Ampere */
    enum cuda_walk walk;
    /* Whether it takes this problem, on a device that it runs on. */
    bool (*takes)(const cuda_variant *variant, const cuda_state *state, const rfa_problem *p);
    rfa_status (*launch)(const cuda_variant *variant, const cuda_state *state, CUfunction kernel,
                         const rfa_problem *p, const cuda_call *call, rfa_error *err);
};

extern const cuda_variant cuda_variants[];
extern const int cuda_variant_count;

/* The first that takes the problem: its place in cuda_variants. RFA_UNSUPPORTED
 * and a sentence if none does. */
/* Starts the first kernel that any card has for this problem. */
rfa_status cuda_launch_any_card(const cuda_state *state, const rfa_problem *p,
                                const cuda_call *call, rfa_error *err);
rfa_status cuda_choose_variant(const cuda_state *state, const rfa_problem *p, int *variant,
                               rfa_error *err);

/* What the fast families have in common: the walk that the problem needs, and
 * whether its blocks, types and output suit them. */
enum cuda_walk cuda_walk_of(const rfa_problem *p);
bool cuda_is_common(const cuda_variant *variant, const rfa_problem *p);

/* ---- ampere.c ---------------------------------------------------------------------------- */

bool cuda_ampere_takes(const cuda_variant *variant, const cuda_state *state, const rfa_problem *p);
rfa_status cuda_ampere_launch(const cuda_variant *variant, const cuda_state *state,
                              CUfunction kernel, const rfa_problem *p, const cuda_call *call,
                              rfa_error *err);

/* ---- hopper.c ---------------------------------------------------------------------------- */

bool cuda_hopper_takes(const cuda_variant *variant, const cuda_state *state, const rfa_problem *p);
rfa_status cuda_hopper_launch(const cuda_variant *variant, const cuda_state *state,
                              CUfunction kernel, const rfa_problem *p, const cuda_call *call,
                              rfa_error *err);
/* Whether a tensor map can describe these rows; others are gathered. */
bool cuda_map_fits(const cuda_rows *rows, int64_t batch, int64_t heads, int64_t count);

/* ---- run.c ------------------------------------------------------------------------------- */

rfa_status cuda_run(const cuda_state *state, const rfa_problem *p, void *workspace, rfa_error *err);
rfa_status cuda_build_list(const cuda_state *state, const rfa_problem *p, void *workspace,
                           rfa_error *err);
rfa_status cuda_merge_parts(const cuda_state *state, const rfa_merge_problem *p, rfa_error *err);

/* ---- Small things ------------------------------------------------------------------------ */

static inline int64_t cuda_ceil_div(int64_t x, int64_t by)
{
    return x / by + (x % by != 0);
}

static inline int64_t cuda_min(int64_t x, int64_t y)
{
    return x < y ? x : y;
}

static inline int32_t cuda_size_of(rfa_dtype dtype)
{
    return dtype == RFA_F32 ? 4 : 2;
}

#endif
