/* What the files of the cpu backend share.
 *
 *   backend.c    the vtable: devices, contexts, calls
 *   isa.c        which kernels this processor runs
 *   layout.c     workspace: one function sizes it and places what is in it
 *   run.c        a call: sequences in turn, tasks in parallel, counts
 *   sequence.c   lengths, token orders, range flags
 *   lists.c      the visit list of one group
 *   predicted.c  the masses that the predicted order sorts by
 *   pack.c       k and v as the kernels want them, once per head
 *   walk.c       a task: a visit group of one head or a part of it, from q to out
 *   decide.c     keep or skip one block
 *   merge.c      partial results
 *   kernels_*.c  the arithmetic, compiled once per instruction set
 */
#ifndef RFA_CPU_H
#define RFA_CPU_H

#include <math.h>
#include <stdatomic.h>

#ifdef _OPENMP
#include <omp.h>
#endif

#include "backends/backend.h"
#include "backends/host_memory.h"
#include "backends/skip_rule.h"
#include "backends/visit_order.h"

#include "kernels.h"

/* More would only risk the OpenMP runtime's giving up on starting them. */
#define CPU_MAX_THREADS 1024

/* An instruction set: kernels for any dtype, and for bf16 inputs where it has better. */
typedef struct cpu_isa {
    const char *name;
    const cpu_kernels *f32, *bf16;
} cpu_isa;

typedef struct cpu_state {
    const cpu_isa *isa;
    int32_t threads;
    rfa_host_workspace workspace;
} cpu_state;

/* ---- What a call keeps in its workspace ------------------------------------------ */

/* One batch entry's tokens; of a pack, one sequence. */
typedef struct cpu_sequence {
    bool bad; /* lengths that make no sense, or a grid that does not fit: no tokens */
    int64_t len_q, len_k;
    int64_t first_q, first_k;              /* rows of the pack before it */
    const int64_t *order_q, *order_k;      /* computed -> caller's position; NULL: the same */
    const uint8_t *key_flags, *dense_rows; /* by key block RFA_BLOCK_*; by q block */
} cpu_sequence;

/* What one decision block adds to the counts; summed in order of blocks, so that
 * they do not depend on the number of threads. */
typedef struct cpu_result {
    int64_t rows, total, visited, kept;
    int64_t bad_indices; /* of its group's list; 0 but for the first block of a group */
    double recall;       /* sum over rows */
} cpu_result;

/* One decision block of the group at hand. */
typedef struct cpu_block {
    int32_t rows;        /* that exist */
    int64_t row;         /* the first, of the sequence */
    int64_t lane;        /* its first lane in the rows' state */
    int64_t visible;     /* key blocks 0 .. visible - 1 hold unmasked pairs for it */
    int64_t visits, n;   /* N and n of the specification */
    bool dense;          /* keeps what it visits */
    void *q;             /* packed */
    float *out;          /* by panel */
    uint32_t *decisions; /* words to set bits in, or NULL */
    cpu_result *result;
} cpu_block;

/* One thread's arrays, for one task at a time. "Lanes": see kernels.h. */
typedef struct cpu_scratch {
    char *q;                            /* packed, by decision block */
    float *out;                         /* by decision block, then by panel */
    float *scores;                      /* of one key block, by panel */
    void *weights;                      /* likewise, packed; may be the same array */
    float *rows, *factor;               /* a decision block's output, row by row; 1 / l */
    float *row;                         /* one row of anything */
    float *max, *log_sum, *kappa;       /* rows' state, by lane of the group */
    float *offset;                      /* of sum, log_sum and skipped: kernels.h */
    double *sum, *skipped;              /* l and s */
    int32_t *kappa_count;               /* how many blocks taught kappa */
    cpu_block *block;                   /* by decision block */
    float *block_max, *reference;       /* of one block, by lane: a; the offset then */
    float *decay, *mass, *lost, *spent; /* of offsets; u; shares, or for a while anything */
    int32_t *seen;                      /* unmasked keys */
    int64_t *position_q, *position_k;   /* rows of the views: the group's, the key block's */
    int32_t *list;                      /* visits */
    float *list_mass, *rest;            /* of each visit: predicted mass; T_n */
    uint8_t *listed;                    /* by key block */
    float *pooled_q, *pool_scores;      /* predicted order */
    double *block_mass;                 /* by key block */
    uint64_t *sort;                     /* by key block */
} cpu_scratch;

/* Decision blocks begin .. end - 1 of a visit group of one head: what a thread does in
 * one go. The last group may have fewer. */
typedef struct cpu_task {
    int64_t batch, head, group, begin, end;
} cpu_task;

/* What is still to be done of one head; see run.c. */
typedef struct cpu_turn {
    _Atomic int64_t begun; /* decision blocks, of groups that all have the same number */
    _Atomic int64_t cost;  /* of a block of the last task that ended; INT64_MAX before */
} cpu_turn;

typedef struct cpu_layout {
    size_t size;
    int32_t threads;
    int64_t groups;       /* visit groups of all heads */
    int32_t lanes;        /* of a decision block */
    int64_t group_blocks; /* decision blocks of a visit group, at most */
    int64_t wave;         /* pairs of batch entry and kv head whose k and v are packed at a time */
    size_t keys_size, values_size; /* of a packed block */
    size_t scratch_size;           /* a thread's */
    char *scratch_base;            /* these only with a workspace: */
    cpu_sequence *sequence;
    int64_t *order_q, *order_k;
    uint8_t *key_flags, *dense_rows;
    float *key_pools;
    char *keys, *values;          /* packed, by pair of the wave, then by key block */
    _Atomic uint32_t *keys_state; /* see pack.c; likewise */
    _Atomic uint32_t *values_state;
    cpu_turn *turn;         /* by q head of the wave */
    _Atomic int64_t *front; /* of it: nothing is to be done before this one */
    _Atomic int64_t *left;  /* decision blocks of the wave that nobody began */
    cpu_result *result;     /* by (batch, head, group, decision block) */
} cpu_layout;

/* A call, read by all threads. */
typedef struct cpu_job {
    const rfa_problem *p;
    const cpu_kernels *kernels; /* of attention */
    const cpu_kernels *f32;     /* of predictions */
    cpu_layout layout;
    bool list_only; /* rfa_build_visit_list */
    bool exact;     /* the rule needs the exponentials of every block */
    bool estimated;
} cpu_job;

/* ---- layout.c --------------------------------------------------------------------- */

/* Sizes everything; with a workspace (not NULL), places it too.
 * RFA_OUT_OF_MEMORY when the size does not fit. */
rfa_status cpu_layout_of(cpu_layout *layout, const cpu_state *state, const rfa_problem *p,
                         bool list_only, void *workspace, rfa_error *err);
void cpu_scratch_of(cpu_scratch *scratch, const cpu_job *job, int32_t thread);

/* ---- sequence.c ------------------------------------------------------------------- */

/* Fills layout.sequence, but for what cpu_prepare_sequences fills; true if
 * sequences overlap, so that they must run one after the other. */
bool cpu_measure_sequences(const cpu_job *job);
/* Token orders and flags of sequences begin .. end - 1. */
void cpu_prepare_sequences(const cpu_job *job, int64_t begin, int64_t end);
/* The entry of layout.sequence that holds for a batch entry. */
const cpu_sequence *cpu_sequence_of(const cpu_job *job, int64_t batch);

/* ---- lists.c ---------------------------------------------------------------------- */

/* Fills scratch->list, and rest where the order predicts masses; returns the
 * length. Adds to *bad_indices. */
int64_t cpu_visit_list(const cpu_job *job, int64_t batch, int64_t head, int64_t group,
                       const cpu_scratch *scratch, int64_t *bad_indices);
rfa_visit_shape cpu_shape_of(const rfa_problem *p, const cpu_sequence *s);

/* ---- predicted.c ------------------------------------------------------------------ */

/* Where a sequence's pools begin, when the keys before it are `first_k`: every
 * sequence has pools of its own, and CPU_SLACK more. */
static inline int64_t cpu_first_pool(const rfa_problem *p, int64_t batch, int64_t first_k)
{
    int64_t pools = p->packed ? first_k / RFA_POOL_ROWS
                              : batch * ((p->len_k + RFA_POOL_ROWS - 1) / RFA_POOL_ROWS);
    return pools + batch * (CPU_SLACK + 1);
}
/* Means of RFA_POOL_ROWS keys, for all kv heads of sequences begin .. end - 1. */
void cpu_pool_keys(const cpu_job *job, int64_t begin, int64_t end);
/* Fills scratch->list and list_mass, best first; returns the length. */
int64_t cpu_predicted_list(const cpu_job *job, int64_t batch, int64_t head, int64_t group,
                           const cpu_scratch *scratch);

/* ---- pack.c ------------------------------------------------------------------------ */

/* Before tasks of another wave. */
void cpu_forget_packed(const cpu_job *job);
/* Key block `block` of a kv head, packed by whichever thread needs it first. */
const void *cpu_packed_keys(const cpu_job *job, int64_t batch, int64_t head_kv, int64_t block,
                            const cpu_scratch *scratch);
/* *finite: v has no NaN and no infinity there. */
const void *cpu_packed_values(const cpu_job *job, int64_t batch, int64_t head_kv, int64_t block,
                              const cpu_scratch *scratch, bool *finite);

/* ---- decide.c --------------------------------------------------------------------- */

/* The rule and knob of a head; *bad: it runs dense because of a bad knob. */
rfa_skip_rule cpu_rule_of(const cpu_job *job, int64_t batch, int64_t head, bool *bad);
/* From block_max: the reference, and what kept and skipped masses decay by to reach it. */
void cpu_compare_maxima(const cpu_job *job, const cpu_block *block, const cpu_scratch *scratch);
/* scratch->mass from the running means, for estimated masses. */
void cpu_estimate_masses(const cpu_job *job, const cpu_block *block, const cpu_scratch *scratch);
/* What the rule says of a block whose maxima (and masses, if it needs them) are
 * in scratch. rest: T_n, or RFA_NO_PREDICTION. */
bool cpu_rule_skips(const cpu_job *job, rfa_skip_rule rule, const cpu_block *block, float rest,
                    const cpu_scratch *scratch);
/* Rows' state after the block was kept or skipped. */
void cpu_rows_kept(const cpu_job *job, rfa_skip_rule rule, const cpu_block *block,
                   const cpu_scratch *scratch);
void cpu_rows_skipped(const cpu_job *job, const cpu_block *block, const cpu_scratch *scratch);

/* ---- walk.c, run.c, merge.c, isa.c ------------------------------------------------- */

void cpu_attend(const cpu_job *job, cpu_task task, const cpu_scratch *scratch);
/* Where the results of a group begin. */
static inline cpu_result *cpu_results_of(const cpu_job *job, int64_t batch, int64_t head,
                                         int64_t group)
{
    const rfa_problem *p = job->p;
    int64_t number = (batch * p->heads_q + head) * p->groups + group;
    return job->layout.result + number * job->layout.group_blocks;
}

rfa_status cpu_run(const cpu_state *state, const rfa_problem *p, void *workspace, rfa_error *err);
rfa_status cpu_build_list(const cpu_state *state, const rfa_problem *p, void *workspace,
                          rfa_error *err);
rfa_status cpu_merge(const cpu_state *state, const rfa_merge_problem *p, rfa_error *err);

/* The instruction set to use: RFA_CPU_ISA's choice, else the best that runs
 * here. RFA_NO_DEVICE when RFA_CPU_ISA names one that does not run here,
 * RFA_INVALID_ARGUMENT when it names none that was compiled. */
rfa_status cpu_choose_isa(const cpu_isa **isa, rfa_error *err);
/* The same, and gets from the operating system what using it takes. */
rfa_status cpu_enable_isa(const cpu_isa **isa, rfa_error *err);
/* "ISA avx512 (of portable avx2 avx512)". */
void cpu_describe_isa(const cpu_isa *chosen, char *text, size_t size);
/* What attends to this problem. */
const cpu_kernels *cpu_kernels_for(const cpu_isa *isa, const rfa_problem *p);

/* ---- Small things ------------------------------------------------------------------- */

static inline int64_t cpu_ceil_div(int64_t x, int64_t by)
{
    return x / by + (x % by != 0);
}

static inline int64_t cpu_min(int64_t x, int64_t y)
{
    return x < y ? x : y;
}

static inline int32_t cpu_thread_number(void)
{
#ifdef _OPENMP
    return omp_get_thread_num();
#else
    return 0;
#endif
}

static inline size_t cpu_size_of(rfa_dtype dtype)
{
    return dtype == RFA_F32 ? 4 : 2;
}

/* Element 0 of (batch, head, row). */
static inline char *cpu_at(const rfa_view *view, size_t size, int64_t batch, int64_t head,
                           int64_t row)
{
    int64_t element = batch * view->stride[0] + head * view->stride[1] + row * view->stride[2];
    return (char *)view->data + view->byte_offset + element * (int64_t)size;
}

static inline cpu_rows cpu_rows_of(const rfa_problem *p, const rfa_view *view, int64_t batch,
                                   int64_t head, int32_t dim)
{
    const char *data = cpu_at(view, cpu_size_of(p->dtype), batch, head, 0);
    return (cpu_rows){data, view->stride[2], p->dtype, dim};
}

static inline bool cpu_orders_by_mass(const rfa_problem *p)
{
    return p->order == RFA_ORDER_PREDICTED || (p->order == RFA_ORDER_LIST && p->list_masses.data);
}

#endif
