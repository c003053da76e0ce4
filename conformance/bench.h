/* A case's tensors on a device, and one checked call. */
#ifndef RFA_CONFORMANCE_BENCH_H
#define RFA_CONFORMANCE_BENCH_H

#include "conformance/generate.h"
#include "conformance/guarded.h"

enum {
    BENCH_Q,
    BENCH_K,
    BENCH_V,
    BENCH_CU_Q,
    BENCH_CU_K,
    BENCH_KNOBS,
    BENCH_LIST_INDICES,
    BENCH_LIST_COUNTS,
    BENCH_LIST_MASSES,
    BENCH_INPUTS,
    BENCH_OUT = BENCH_INPUTS,
    BENCH_LSE,
    BENCH_RECALL,
    BENCH_DECISIONS,
    BENCH_VISIT_ORDER,
    BENCH_COUNTS,
    BENCH_TENSORS
};

typedef struct bench {
    const conformance_case *c;
    rfa_context *ctx;
    int64_t blocks_q, blocks_k, groups;
    guarded t[BENCH_TENSORS];
    rfa_attention_args args; /* the case's, over these tensors */
    uint64_t nonce;          /* of the outputs' next poison */
} bench;

/* The struct must not move until it is closed. */
rfa_status bench_open(bench *b, rfa_context *ctx, const conformance_case *c, rfa_error *err);
void bench_close(bench *b);

/* Poisons all outputs, calls rfa_attention on `ctx` (of the bench's device),
 * reads everything back, and checks that nothing changed but the outputs' own
 * elements. Any status but RFA_OK is a failure that `err` tells. */
rfa_status bench_attend(bench *b, rfa_context *ctx, const rfa_attention_args *args, rfa_error *err);
/* A call that must be refused with `expected`, outputs untouched. */
rfa_status bench_refused(bench *b, rfa_context *ctx, const rfa_attention_args *args,
                         rfa_status expected, const char *what, rfa_error *err);
/* Fills a workspace of exactly the size asked for, guarded; sets it in *args. */
rfa_status bench_workspace(bench *b, rfa_attention_args *args, guarded *workspace, rfa_error *err);

/* Arguments whose tensors are host copies of what was read back last. */
typedef struct bench_host {
    rfa_attention_args args;
    DLTensor t[BENCH_TENSORS];
} bench_host;
void bench_host_args(const bench *b, const rfa_attention_args *args, bench_host *host);

/* What outputs held, to compare with later runs. */
typedef struct bench_snapshot {
    uint8_t *seen[BENCH_TENSORS];
} bench_snapshot;
rfa_status bench_save(const bench *b, bench_snapshot *snapshot, rfa_error *err);
void bench_forget(bench_snapshot *snapshot);
#define BENCH_BIT(tensor) (1u << (tensor))
#define BENCH_ALL_OUTPUTS (BENCH_BIT(BENCH_TENSORS) - BENCH_BIT(BENCH_OUT))
/* Whether the outputs in `which` are those of the snapshot, bit for bit. */
rfa_status bench_same(const bench *b, const bench_snapshot *snapshot, unsigned which,
                      const char *what, rfa_error *err);

/* A layout of a small tensor, with gaps between its rows in some cases. */
guarded_layout bench_small_layout(const conformance_case *c, DLDataType type, int32_t ndim,
                                  const int64_t *shape);
/* Rows of lse and out that belong to a valid sequence. */
bool bench_owned_row(const conformance_case *c, int64_t row);

#endif
