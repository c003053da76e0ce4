/* The visit list of one group: which key blocks, in which order, and what share
 * of the predicted mass comes after each. */
#include <string.h>

#include "cpu.h"

rfa_visit_shape cpu_shape_of(const rfa_problem *p, const cpu_sequence *s)
{
    rfa_visit_shape shape = {s->len_q, s->len_k, p->visit_q, p->block_k, p->causal};
    return shape;
}

/* ---- Lists that come with an order of their own --------------------------------------- */

static int64_t caller_list(const cpu_job *job, const cpu_sequence *s, int64_t batch, int64_t head,
                           int64_t group, int64_t visible, const cpu_scratch *scratch,
                           int64_t *bad_indices)
{
    const rfa_problem *p = job->p;
    const int32_t *index = (const int32_t *)cpu_at(&p->list_indices, 4, batch, head, group);
    int64_t count = *(const int32_t *)cpu_at(&p->list_counts, 4, batch, head, group);
    int64_t blocks = cpu_ceil_div(s->len_k, p->block_k), n = 0;
    const float *mass = NULL;
    if (p->list_masses.data)
        mass = (const float *)cpu_at(&p->list_masses, 4, batch, head, group);
    memset(scratch->listed, 0, (size_t)blocks);
    for (int64_t i = 0; i < cpu_min(count, p->list_capacity); i++) {
        if (index[i] < 0 || index[i] >= blocks || scratch->listed[index[i]]) {
            ++*bad_indices;
            continue;
        }
        scratch->listed[index[i]] = 1;
        if (index[i] >= visible)
            continue; /* masked for the whole group */
        scratch->list[n] = index[i];
        scratch->list_mass[n++] = mass && mass[i] > 0 ? mass[i] : 0;
    }
    return n;
}

/* Moves always-keep blocks to the front, ascending, and puts in those that the
 * list lacks. */
static int64_t raise_kept(const cpu_sequence *s, int64_t visible, int64_t count,
                          const cpu_scratch *scratch)
{
    int64_t kept = 0, others = 0;
    for (int64_t j = 0; j < visible; j++)
        kept += (s->key_flags[j] & RFA_BLOCK_ALWAYS_KEEP) != 0;
    if (kept == 0)
        return count;
    /* Kept blocks' masses wait by block while the others close up at the end. */
    float *mass_of = scratch->rest;
    memset(mass_of, 0, (size_t)visible * sizeof(*mass_of));
    for (int64_t i = 0; i < count; i++) {
        int32_t j = scratch->list[i];
        if (s->key_flags[j] & RFA_BLOCK_ALWAYS_KEEP) {
            mass_of[j] = scratch->list_mass[i];
        } else {
            scratch->list[others] = j;
            scratch->list_mass[others++] = scratch->list_mass[i];
        }
    }
    memmove(scratch->list + kept, scratch->list, (size_t)others * sizeof(*scratch->list));
    memmove(scratch->list_mass + kept, scratch->list_mass, (size_t)others * sizeof(float));
    for (int64_t j = 0, i = 0; j < visible; j++) {
        if (s->key_flags[j] & RFA_BLOCK_ALWAYS_KEEP) {
            scratch->list[i] = (int32_t)j;
            scratch->list_mass[i++] = mass_of[j];
        }
    }
    return kept + others;
}

/* T_n of every visit: suffix sums over the whole. */
static void predict_rest(int64_t count, const cpu_scratch *scratch)
{
    double total = 0, after = 0;
    for (int64_t i = count - 1; i >= 0; i--)
        total += (double)scratch->list_mass[i];
    for (int64_t i = count - 1; i >= 0; i--) {
        scratch->rest[i] = after == 0 ? 0 : (float)(after / total);
        after += (double)scratch->list_mass[i];
    }
}

int64_t cpu_visit_list(const cpu_job *job, int64_t batch, int64_t head, int64_t group,
                       const cpu_scratch *scratch, int64_t *bad_indices)
{
    const rfa_problem *p = job->p;
    const cpu_sequence *s = cpu_sequence_of(job, batch);
    rfa_visit_shape shape = cpu_shape_of(p, s);
    int64_t visible = rfa_visible_blocks(shape, (group + 1) * p->visit_q), count;
    if (p->order == RFA_ORDER_RASTER || p->order == RFA_ORDER_DIAGONAL)
        return rfa_list_visits(shape, group, p->order == RFA_ORDER_DIAGONAL, s->key_flags,
                               scratch->list);
    if (p->order == RFA_ORDER_PREDICTED)
        count = cpu_predicted_list(job, batch, head, group, scratch);
    else
        count = caller_list(job, s, batch, head, group, visible, scratch, bad_indices);
    count = raise_kept(s, visible, count, scratch);
    if (cpu_orders_by_mass(p))
        predict_rest(count, scratch);
    return count;
}
