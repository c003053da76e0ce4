/* The workspace: what it holds, and where. */
#include "cpu.h"

/* Hands out parts of a workspace, or only counts when there is none. */
typedef struct placer {
    char *base;
    uint64_t used;
    bool overflow;
} placer;

static void *place(placer *at, int64_t count, uint64_t each, uint64_t size)
{
    const uint64_t line = 64; /* vectors are loaded aligned; scratches share no line */
    uint64_t bytes, begin = at->used;
    at->overflow |= __builtin_mul_overflow((uint64_t)count, each, &bytes) ||
                    __builtin_mul_overflow(bytes, size, &bytes) || bytes > UINT64_MAX / 4 ||
                    begin > UINT64_MAX / 4;
    if (at->overflow)
        return NULL;
    at->used = (begin + bytes + line - 1) / line * line;
    return at->base ? at->base + begin : NULL;
}

/* ---- Shared by all threads --------------------------------------------------------- */

static int64_t order_length(const rfa_problem *p, const rfa_grid *grids, int64_t len, int64_t total)
{
    if (!grids || p->grid_count == 0)
        return 0;
    return p->grid_count == 1 ? len : total;
}

static void place_shared(cpu_layout *l, const rfa_problem *p, bool list_only, placer *at)
{
    int64_t sequences = p->packed ? p->batch : 1;
    l->sequence = place(at, sequences, 1, sizeof(*l->sequence));
    l->order_q = place(at, order_length(p, p->grids_q, p->len_q, p->total_q), 1, sizeof(int64_t));
    l->order_k = place(at, order_length(p, p->grids_k, p->len_k, p->total_k), 1, sizeof(int64_t));
    l->key_flags = place(at, sequences, (uint64_t)p->blocks_k, 1);
    l->dense_rows = place(at, sequences, (uint64_t)p->blocks_q, 1);
    l->result = place(at, list_only ? 0 : l->groups, (uint64_t)l->group_blocks, sizeof(*l->result));
    l->key_pools = NULL;
    if (p->order == RFA_ORDER_PREDICTED) {
        int64_t pools = cpu_first_pool(p, p->batch, p->total_k);
        l->key_pools = place(at, pools, (uint64_t)p->heads_kv * (uint64_t)p->dim, sizeof(float));
    }
}

/* Key blocks of a decision block that is worth a thread of its own: a tenth of a millisecond. */
enum { WORTH_A_THREAD = 16 };

/* Enough pairs at a time that threads seldom wait at the end of a wave. */
#define WAVE_GROUPS 32 /* a thread */

static void place_packed(cpu_layout *l, const rfa_problem *p, const cpu_kernels *kernels,
                         placer *at)
{
    int64_t per_pair = p->heads_q / p->heads_kv * p->groups, pairs = p->batch * p->heads_kv;
    uint64_t keys = (uint64_t)cpu_padded(kernels, cpu_min(p->block_k, p->len_k));
    l->wave = cpu_min(pairs, cpu_ceil_div((int64_t)l->threads * WAVE_GROUPS, per_pair + !per_pair));
    l->keys_size = keys * (uint64_t)cpu_padded(kernels, p->dim) * (uint64_t)kernels->element;
    l->values_size = keys * (uint64_t)cpu_padded(kernels, p->dim_v) * (uint64_t)kernels->element;
    l->turn = place(at, l->wave, (uint64_t)(p->heads_q / p->heads_kv), sizeof(*l->turn));
    l->front = place(at, 1, 1, sizeof(*l->front));
    l->left = place(at, 1, 1, sizeof(*l->left));
    l->keys_state = place(at, l->wave, (uint64_t)p->blocks_k, sizeof(*l->keys_state));
    l->values_state = place(at, l->wave, (uint64_t)p->blocks_k, sizeof(*l->values_state));
    l->keys = place(at, l->wave, (uint64_t)p->blocks_k, l->keys_size);
    l->values = place(at, l->wave, (uint64_t)p->blocks_k, l->values_size);
}

/* ---- A thread's own ------------------------------------------------------------------ */

static void place_rows(cpu_scratch *s, const cpu_layout *l, const rfa_problem *p,
                       const cpu_kernels *kernels, placer *at)
{
    int64_t lanes = l->group_blocks * l->lanes;
    int64_t keys = cpu_padded(kernels, cpu_min(p->block_k, p->len_k));
    s->q = place(at, lanes, (uint64_t)cpu_padded(kernels, p->dim), (uint64_t)kernels->element);
    s->out = place(at, lanes, (uint64_t)cpu_padded(kernels, p->dim_v), sizeof(float));
    s->scores = place(at, keys, (uint64_t)l->lanes, sizeof(float));
    s->weights = s->scores;
    if (kernels->element != sizeof(float))
        s->weights = place(at, keys, (uint64_t)l->lanes, (uint64_t)kernels->element);
    s->rows = place(at, l->lanes, (uint64_t)p->dim_v, sizeof(float));
    s->factor = place(at, l->lanes, 1, sizeof(float));
    s->position_q = place(at, cpu_min(p->visit_q, p->len_q), 1, sizeof(int64_t));
    float **const of_group[] = {&s->max, &s->offset, &s->log_sum, &s->kappa};
    for (size_t i = 0; i < sizeof(of_group) / sizeof(of_group[0]); i++)
        *of_group[i] = place(at, lanes, 1, sizeof(float));
    s->sum = place(at, lanes, 1, sizeof(double));
    s->skipped = place(at, lanes, 1, sizeof(double));
    s->kappa_count = place(at, lanes, 1, sizeof(int32_t));
    s->block = place(at, l->group_blocks, 1, sizeof(*s->block));
    float **const of_block[] = {&s->block_max, &s->reference, &s->decay,
                                &s->mass,      &s->lost,      &s->spent};
    for (size_t i = 0; i < sizeof(of_block) / sizeof(of_block[0]); i++)
        *of_block[i] = place(at, l->lanes, 1, sizeof(float));
    s->seen = place(at, l->lanes, 1, sizeof(int32_t));
}

static void place_lists(cpu_scratch *s, const rfa_problem *p, placer *at)
{
    s->list = place(at, p->blocks_k, 1, sizeof(int32_t));
    s->list_mass = place(at, p->blocks_k, 1, sizeof(float));
    s->rest = place(at, p->blocks_k, 1, sizeof(float));
    s->listed = place(at, p->blocks_k, 1, 1);
    if (p->order != RFA_ORDER_PREDICTED)
        return;
    int64_t pools = cpu_ceil_div(p->len_k, RFA_POOL_ROWS);
    s->pooled_q = place(at, CPU_LANES, (uint64_t)p->dim, sizeof(float));
    s->pool_scores = place(at, pools + CPU_SLACK, CPU_LANES, sizeof(float));
    s->block_mass = place(at, p->blocks_k, 1, sizeof(double));
    s->sort = place(at, p->blocks_k, 1, sizeof(uint64_t));
}

static void place_scratch(cpu_scratch *s, const cpu_layout *l, const rfa_problem *p,
                          const cpu_kernels *kernels, bool list_only, placer *at)
{
    *s = (cpu_scratch){0};
    s->row = place(at, p->dim > p->dim_v ? p->dim : p->dim_v, 1, sizeof(float));
    s->position_k = place(at, cpu_min(p->block_k, p->len_k) + RFA_POOL_ROWS, 1, sizeof(int64_t));
    place_lists(s, p, at);
    if (!list_only)
        place_rows(s, l, p, kernels, at);
}

/* ---- Both -------------------------------------------------------------------------- */

rfa_status cpu_layout_of(cpu_layout *l, const cpu_state *state, const rfa_problem *p,
                         bool list_only, void *workspace, rfa_error *err)
{
    const cpu_kernels *kernels = cpu_kernels_for(state->isa, p);
    placer at = {.base = workspace};
    placer thread = {.base = NULL};
    cpu_scratch scratch;
    *l = (cpu_layout){0};
    l->lanes = (int32_t)cpu_ceil_div(cpu_min(p->block_q, p->len_q), CPU_LANES) * CPU_LANES;
    l->group_blocks = cpu_min(p->visit_q / p->block_q, p->blocks_q);
    at.overflow = __builtin_mul_overflow(p->batch, p->heads_q, &l->groups) ||
                  __builtin_mul_overflow(l->groups, p->groups, &l->groups);
    bool few = !at.overflow && l->groups < state->threads;
    bool parts = few && !list_only && p->blocks_k >= WORTH_A_THREAD;
    int64_t tasks = parts ? l->groups * l->group_blocks : l->groups;
    l->threads = (int32_t)cpu_min(state->threads, tasks > 0 ? tasks : 1);

    place_shared(l, p, list_only, &at);
    if (!list_only)
        place_packed(l, p, kernels, &at);
    place_scratch(&scratch, l, p, kernels, list_only, &thread);
    l->scratch_size = (size_t)thread.used;
    l->scratch_base = place(&at, l->threads, thread.used, 1);
    l->size = (size_t)at.used;
    if (at.overflow || thread.overflow || at.used > SIZE_MAX / 2)
        return rfa_fail(err, RFA_OUT_OF_MEMORY,
                        "the workspace for %lld x %lld heads of %lld queries is larger than memory",
                        (long long)p->batch, (long long)p->heads_q, (long long)p->len_q);
    return RFA_OK;
}

void cpu_scratch_of(cpu_scratch *scratch, const cpu_job *job, int32_t thread)
{
    const cpu_layout *l = &job->layout;
    placer at = {.base = l->scratch_base + (size_t)thread * l->scratch_size};
    place_scratch(scratch, l, job->p, job->kernels, job->list_only, &at);
}
