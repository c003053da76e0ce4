/* Whether outputs share memory with inputs or with each other. */
#ifndef RFA_OVERLAP_H
#define RFA_OVERLAP_H

#include "backends/backend.h"

/* Enough for every tensor of a call, or of a merge. */
enum { RFA_OVERLAP_MAX = 3 * RFA_MAX_MERGE_PARTS + 3 };

/* Where a checked tensor lies. A tensor fills its first and its last `run` bytes
 * without gaps, and all of them when it is compact. */
typedef struct rfa_extent {
    const char *name; /* "part_lse", with the index beside it; -1: none */
    int index;
    bool written;
    const DLTensor *tensor;
    const DLTensor *may_be; /* the input that this output may be the same as */
    uintptr_t buffer;       /* OpenCL: the handle, in which offsets count */
    uint64_t begin, end, run;
} rfa_extent;

typedef struct rfa_extents {
    rfa_extent at[RFA_OVERLAP_MAX];
    size_t count;
    DLDevice device;
} rfa_extents;

void rfa_extents_start(rfa_extents *e, DLDevice device);
/* Add a checked tensor; NULL is left out. An output may be the very same tensor
 * (memory, strides, type) as the input `may_be`. */
void rfa_extents_add_input(rfa_extents *e, const DLTensor *tensor, const char *name, int index);
void rfa_extents_add_output(rfa_extents *e, const DLTensor *tensor, const char *name,
                            const DLTensor *may_be);

/* RFA_INVALID_ARGUMENT and a sentence if an output certainly shares bytes with
 * another tensor: if their filled ends meet. Views that interleave, or whose gaps
 * may hold the other, pass. */
rfa_status rfa_extents_check(const rfa_extents *e, rfa_error *err);

#endif
