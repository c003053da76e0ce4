/* k and v as the kernels want them, one key block at a time.
 *
 * The first thread that needs a block packs it, for all query blocks and for all
 * heads that share it; blocks that nobody needs are never packed. A block's state
 * tells the others: nothing yet, somebody is at it, there. */
#include <sched.h>
#include <string.h>

#include "cpu.h"

enum { PACK_NOTHING, PACK_BUSY, PACK_FINITE, PACK_SPECIAL };

void cpu_forget_packed(const cpu_job *job)
{
    const cpu_layout *l = &job->layout;
    int64_t count = l->wave * job->p->blocks_k;
    for (int64_t i = 0; i < count; i++) {
        atomic_store_explicit(&l->keys_state[i], PACK_NOTHING, memory_order_relaxed);
        atomic_store_explicit(&l->values_state[i], PACK_NOTHING, memory_order_relaxed);
    }
}

static int64_t place_of(const cpu_job *job, int64_t batch, int64_t head_kv, int64_t block)
{
    int64_t pair = batch * job->p->heads_kv + head_kv;
    return pair % job->layout.wave * job->p->blocks_k + block;
}

/* True if it is the caller who packs; otherwise the block is there. */
static bool claim(_Atomic uint32_t *state)
{
    uint32_t seen = atomic_load_explicit(state, memory_order_acquire);
    if (seen == PACK_NOTHING &&
        atomic_compare_exchange_strong_explicit(state, &seen, PACK_BUSY, memory_order_acquire,
                                                memory_order_acquire))
        return true;
    for (int tries = 0; seen == PACK_BUSY; tries++) {
        if (tries > 100)
            sched_yield(); /* there may be more threads than processors */
        seen = atomic_load_explicit(state, memory_order_acquire);
    }
    return false;
}

/* Where the block's rows are in the view; answers how many. */
static int32_t locate_rows(const cpu_job *job, int64_t batch, int64_t block,
                           const cpu_scratch *scratch)
{
    const cpu_sequence *s = cpu_sequence_of(job, batch);
    int64_t first = block * job->p->block_k;
    int32_t count = (int32_t)cpu_min(job->p->block_k, s->len_k - first);
    for (int32_t i = 0; i < count; i++)
        scratch->position_k[i] = s->first_k + (s->order_k ? s->order_k[first + i] : first + i);
    return count;
}

const void *cpu_packed_keys(const cpu_job *job, int64_t batch, int64_t head_kv, int64_t block,
                            const cpu_scratch *scratch)
{
    int64_t place = place_of(job, batch, head_kv, block);
    _Atomic uint32_t *state = &job->layout.keys_state[place];
    char *keys = job->layout.keys + place * (int64_t)job->layout.keys_size;
    if (claim(state)) {
        cpu_rows rows = cpu_rows_of(job->p, &job->p->k, batch, head_kv, job->p->dim);
        int32_t count = locate_rows(job, batch, block, scratch);
        job->kernels->pack_k(&rows, scratch->position_k, count, keys);
        atomic_store_explicit(state, PACK_FINITE, memory_order_release);
    }
    return keys;
}

const void *cpu_packed_values(const cpu_job *job, int64_t batch, int64_t head_kv, int64_t block,
                              const cpu_scratch *scratch, bool *finite)
{
    int64_t place = place_of(job, batch, head_kv, block);
    _Atomic uint32_t *state = &job->layout.values_state[place];
    char *values = job->layout.values + place * (int64_t)job->layout.values_size;
    if (claim(state)) {
        cpu_rows rows = cpu_rows_of(job->p, &job->p->v, batch, head_kv, job->p->dim_v);
        int32_t count = locate_rows(job, batch, block, scratch);
        bool plain = job->kernels->pack_v(&rows, scratch->position_k, count, values);
        atomic_store_explicit(state, plain ? PACK_FINITE : PACK_SPECIAL, memory_order_release);
    }
    *finite = atomic_load_explicit(state, memory_order_relaxed) == PACK_FINITE;
    return values;
}
