/* What a backend module is, and the one plain description of a problem that it
 * gets. Not installed; RFA_BACKEND_ABI changes with it.
 *
 * A module exports one function, rfa_backend_entry. The library has checked
 * every problem before a backend sees it: shapes match, strides fit in 64 bits,
 * knobs given by value are valid, block sizes are set.
 */
#ifndef RFA_BACKEND_H
#define RFA_BACKEND_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <rfa/rfa.h>

#include "cube_order.h"

#define RFA_BACKEND_ABI 2
#define RFA_BACKEND_ENTRY "rfa_backend_entry"
#define RFA_MAX_DIM 256
#define RFA_SINK_KEYS 16 /* the diagonal order's attention sinks */
#define RFA_POOL_ROWS 32 /* the predicted order's pooling */

typedef struct rfa_error {
    char text[512];
} rfa_error;

#ifdef __GNUC__
__attribute__((format(printf, 2, 3)))
#endif
static inline int
rfa_say(rfa_error *err, const char *format, ...)
{
    va_list list;
    int length = 0;
    va_start(list, format);
    if (err)
        length = vsnprintf(err->text, sizeof(err->text), format, list);
    va_end(list);
    return length;
}

static inline rfa_status rfa_status_after(int said, rfa_status status)
{
    (void)said;
    return status;
}

/* Writes the sentence and gives the status back: `return rfa_fail(err, status,
 * format, ...)`. A macro, because static analysis does not see which status comes
 * back from a function with variable arguments. */
#define rfa_fail(err, status, ...) rfa_status_after(rfa_say((err), __VA_ARGS__), (status))

typedef enum rfa_dtype { RFA_F32, RFA_F16, RFA_BF16 } rfa_dtype;

/* A tensor with a unit last stride, as (batch, head, row, element), strides in
 * elements. data is DLTensor's: for OpenCL a cl_mem. data NULL: not given.
 * Packed tensors have stride[0] 0 and rows counted over the whole pack. Row
 * outputs (batch, head, row) have stride[2] 1 and one element a row. */
typedef struct rfa_view {
    void *data;
    uint64_t byte_offset;
    int64_t stride[3];
} rfa_view;

typedef struct rfa_problem {
    rfa_dtype dtype, out_dtype;
    int64_t batch; /* packed: the number of sequences */
    int64_t heads_q, heads_kv;
    int64_t len_q, len_k;     /* packed: the longest */
    int64_t total_q, total_k; /* packed: rows in the pack; otherwise len_q, len_k */
    int32_t dim, dim_v;
    float scale; /* never 0 */
    bool causal;

    rfa_view q, k, v, out;
    bool packed;
    rfa_view cu_q, cu_k; /* int32 [batch + 1], stride 1 */

    rfa_rule rule;
    rfa_mass mass;
    bool knob_scaled;
    float knob;
    rfa_view knobs; /* f32: stride[0] batch, stride[1] head */

    rfa_order order;
    int32_t block_q, block_k, visit_q;
    int64_t blocks_q, blocks_k, groups; /* of len_q, len_k: ceil by block_q, block_k, visit_q */

    rfa_view list_indices, list_counts,
        list_masses; /* (batch, head, group, slot); counts: stride[2] */
    int64_t list_capacity;

    /* Host memory that lives for the call: 0, 1, or `batch` (packed) of each.
     * Read through rfa_problem_cubes. Work that runs later, or again from a
     * captured graph, must bring its own copy, as kernel parameters do; a backend
     * that cannot carry that many refuses them in plan. */
    const rfa_grid *grids_q, *grids_k;
    size_t grid_count;

    rfa_range keep_keys[RFA_MAX_RANGES], dense_queries[RFA_MAX_RANGES];
    int32_t keep_key_count, dense_query_count;

    rfa_view lse, recall; /* (batch, head, row) */
    rfa_view decisions;   /* uint32 (batch, head, q block, word) */
    rfa_view visit_order; /* int32 (batch, head, group, slot), blocks_k slots */
    rfa_view counts;      /* one rfa_counts */
    rfa_view replay;      /* like decisions */
    bool track_recall;    /* dense and recall: always true; blasst, energy: if asked for */

    void *stream;
} rfa_problem;

/* The cubes of one batch entry's q or k tokens, defaults filled in; all sizes 0
 * where there is no grid. */
static inline rfa_cubes rfa_problem_cubes(const rfa_grid *grids, size_t count, int64_t batch)
{
    rfa_cubes cubes = {0, {0, 0, 0}, {4, 4, 4}};
    if (count == 0)
        return cubes;
    const rfa_grid *grid = &grids[count == 1 ? 0 : batch];
    cubes.offset = grid->offset;
    for (int axis = 0; axis < 3; axis++) {
        cubes.size[axis] = grid->size[axis];
        if (grid->cube[axis] > 0)
            cubes.cube[axis] = grid->cube[axis];
    }
    return cubes;
}

typedef struct rfa_merge_problem {
    size_t parts;
    rfa_dtype dtype, out_dtype;
    int64_t batch, heads, len; /* packed: batch 1, len = total */
    int32_t dim;
    rfa_view part_out[RFA_MAX_MERGE_PARTS];    /* (batch, head, row, element) */
    rfa_view part_lse[RFA_MAX_MERGE_PARTS];    /* (batch, head, row) */
    rfa_view part_recall[RFA_MAX_MERGE_PARTS]; /* all or none */
    rfa_view out, lse, recall;
    void *stream;
} rfa_merge_problem;

/* Every slot is required. Slots take a `state` that context_create made, and
 * are called by one thread at a time per state. Each may be called after any
 * other failed; what a failed one left in its outputs is not used. */
typedef struct rfa_backend {
    uint32_t abi;         /* RFA_BACKEND_ABI */
    uint32_t struct_size; /* sizeof(rfa_backend) */
    const char *name;

    rfa_status (*device_count)(int32_t *count, rfa_error *err);
    rfa_status (*device_get)(int32_t index, rfa_device_info *info, rfa_error *err);

    rfa_status (*context_create)(const rfa_context_options *options, void **state, rfa_error *err);
    void (*context_destroy)(void *state);
    DLDevice (*context_device)(void *state);

    /* The one selector behind rfa_supports, rfa_workspace_size and run: RFA_OK
     * and the bytes needed, or RFA_UNSUPPORTED and a sentence. */
    rfa_status (*plan)(void *state, const rfa_problem *p, size_t *workspace_size, rfa_error *err);
    /* plan answered RFA_OK; workspace holds what it asked for (NULL if 0). */
    rfa_status (*run)(void *state, const rfa_problem *p, void *workspace, rfa_error *err);

    /* The same two for building a predicted visit list; p->order is predicted
     * and the list views are where it goes. */
    rfa_status (*plan_list)(void *state, const rfa_problem *p, size_t *workspace_size,
                            rfa_error *err);
    rfa_status (*build_list)(void *state, const rfa_problem *p, void *workspace, rfa_error *err);

    rfa_status (*merge)(void *state, const rfa_merge_problem *p, rfa_error *err);

    /* The state's own workspace, for callers that bring none; context_destroy frees
     * it once the work that uses it is over. take: `size` bytes (> 0), aligned to 256,
     * for work about to be queued on `stream`, which waits there, not on the host, for
     * the work of earlier takers. To grow it, memory in use by queued work must not be
     * freed, nor memory that a captured graph was given. Under graph capture it does
     * not grow: RFA_OUT_OF_MEMORY, and a sentence that says to pass a workspace.
     * give: that work is queued, or failed to be. The stream may be gone after it, so
     * what later takers wait for is noted here. */
    rfa_status (*workspace_take)(void *state, size_t size, void *stream, void **data,
                                 rfa_error *err);
    rfa_status (*workspace_give)(void *state, void *stream, rfa_error *err);

    rfa_status (*alloc)(void *state, size_t size, void **data, rfa_error *err);
    void (*free)(void *state, void *data);
    /* Copies in the order of `stream`; the copy is done on return. */
    rfa_status (*write)(void *state, void *data, size_t offset, const void *host, size_t size,
                        void *stream, rfa_error *err);
    rfa_status (*read)(void *state, const void *data, size_t offset, void *host, size_t size,
                       void *stream, rfa_error *err);
    rfa_status (*synchronize)(void *state, void *stream, rfa_error *err);

    /* Time on a stream, by the device's own clock: start and stop are queued like
     * work; read waits for the stop and gives the seconds between. On a CPU, the
     * monotonic clock. RFA_UNSUPPORTED where a queue keeps no time. */
    rfa_status (*timer_create)(void *state, void **timer, rfa_error *err);
    void (*timer_destroy)(void *state, void *timer);
    rfa_status (*timer_start)(void *state, void *timer, void *stream, rfa_error *err);
    rfa_status (*timer_stop)(void *state, void *timer, void *stream, rfa_error *err);
    rfa_status (*timer_read)(void *state, void *timer, double *seconds, rfa_error *err);
} rfa_backend;

/* What a module exports under RFA_BACKEND_ENTRY. The table is static and lives
 * as long as the process; the library never unloads a module it accepted. */
typedef const rfa_backend *(*rfa_backend_entry_fn)(void);

#endif
