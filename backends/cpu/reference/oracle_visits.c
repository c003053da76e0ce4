/* Visit lists: which key blocks a group visits, in which order. */
#include <stdlib.h>

#include "oracle_internal.h"

typedef struct visit {
    int rank; /* always kept; nearest; sink; the others */
    int64_t distance;
    int32_t index;
    float mass;
} visit;

enum { RANK_KEPT, RANK_NEAREST, RANK_SINK, RANK_OTHER };

static int compare_visits(const void *a, const void *b)
{
    const visit *x = a, *y = b;
    if (x->rank != y->rank)
        return x->rank < y->rank ? -1 : 1;
    if (x->distance != y->distance)
        return x->distance < y->distance ? -1 : 1;
    return x->index < y->index ? -1 : x->index > y->index;
}

static int compare_masses(const void *a, const void *b)
{
    const visit *x = a, *y = b;
    if (x->mass != y->mass)
        return x->mass > y->mass ? -1 : 1;
    return x->index < y->index ? -1 : x->index > y->index;
}

oracle_list *oracle_list_of(const oracle *o, int64_t batch, int64_t head, int64_t group)
{
    int64_t b = o->list_batch > 1 ? batch : 0, h = o->list_heads > 1 ? head : 0;
    return &o->list[(b * o->list_heads + h) * o->p->groups + group];
}

/* Key blocks 0 .. this - 1 have an unmasked pair with the group; no other is in
 * its list. */
static int64_t visible_blocks(const rfa_problem *p, const oracle_sequence *s, int64_t group)
{
    int64_t last_row = oracle_min((group + 1) * p->visit_q, s->len_q) - 1;
    return oracle_ceil_div(oracle_seen_keys(p, s, last_row), p->block_k);
}

/* ---- Candidates, one function an order: they fill visits and return how many ---- */

static int64_t raster_visits(int64_t visible, visit *visits)
{
    for (int64_t j = 0; j < visible; j++)
        visits[j] = (visit){RANK_OTHER, j, (int32_t)j, 0};
    return visible;
}

/* Distances times 2 Lq, which makes them whole. */
static int64_t diagonal_visits(const rfa_problem *p, const oracle_sequence *s, int64_t group,
                               int64_t visible, visit *visits)
{
    int64_t middle = p->causal
                         ? s->len_q * ((2 * group + 1) * p->visit_q + 2 * (s->len_k - s->len_q))
                         : (2 * group + 1) * p->visit_q * s->len_k;
    visit *nearest = NULL;
    for (int64_t j = 0; j < visible; j++) {
        int64_t distance = (2 * j + 1) * p->block_k * s->len_q - middle;
        visits[j] = (visit){RANK_OTHER, distance < 0 ? -distance : distance, (int32_t)j, 0};
        if (!s->keep[j] && (!nearest || visits[j].distance < nearest->distance))
            nearest = &visits[j];
        if (s->sink[j])
            visits[j].rank = RANK_SINK;
    }
    if (nearest)
        nearest->rank = RANK_NEAREST;
    for (int64_t j = 0; j < visible; j++)
        if (visits[j].rank == RANK_SINK)
            visits[j].distance = j;
    return visible;
}

static int64_t listed_visits(const oracle *o, int64_t batch, int64_t head, int64_t group,
                             int64_t visible, visit *visits, bool *listed, int64_t *bad)
{
    const rfa_problem *p = o->p;
    const oracle_sequence *s = oracle_sequence_of(o, batch);
    const int32_t *index = view_at(&p->list_indices, sizeof(*index), batch, head, group);
    const float *masses = NULL;
    if (o->has_masses)
        masses = view_at(&p->list_masses, sizeof(*masses), batch, head, group);
    int64_t count = *(const int32_t *)view_at(&p->list_counts, sizeof(int32_t), batch, head, group);
    int64_t n = 0;
    for (int64_t j = 0; j < s->blocks_k; j++)
        listed[j] = false;
    for (int64_t i = 0; i < oracle_min(count, p->list_capacity); i++) {
        if (index[i] < 0 || index[i] >= s->blocks_k || listed[index[i]]) {
            ++*bad;
            continue;
        }
        listed[index[i]] = true;
        if (index[i] >= visible)
            continue;
        visits[n] = (visit){RANK_OTHER, n, index[i], masses && masses[i] > 0 ? masses[i] : 0};
        n++;
    }
    return n;
}

static int64_t predicted_visits(int64_t visible, const float *masses, visit *visits)
{
    for (int64_t j = 0; j < visible; j++)
        visits[j] = (visit){RANK_OTHER, 0, (int32_t)j, masses[j] > 0 ? masses[j] : 0};
    qsort(visits, (size_t)visible, sizeof(*visits), compare_masses);
    for (int64_t i = 0; i < visible; i++)
        visits[i].distance = i;
    return visible;
}

/* ---- From candidates to the list ------------------------------------------------- */

/* Always-keep blocks first, those that the candidates lack as well. */
static int64_t raise_kept(const oracle_sequence *s, int64_t visible, visit *visits, int64_t count,
                          bool *listed)
{
    for (int64_t j = 0; j < visible; j++)
        listed[j] = false;
    for (int64_t i = 0; i < count; i++) {
        listed[visits[i].index] = true;
        if (s->keep[visits[i].index]) {
            visits[i].rank = RANK_KEPT;
            visits[i].distance = 0;
        }
    }
    for (int64_t j = 0; j < visible; j++)
        if (s->keep[j] && !listed[j])
            visits[count++] = (visit){RANK_KEPT, 0, (int32_t)j, 0};
    return count;
}

static void fill_list(const oracle *o, int64_t batch, int64_t head, int64_t group,
                      const float *predicted, visit *visits, bool *listed)
{
    const rfa_problem *p = o->p;
    const oracle_sequence *s = oracle_sequence_of(o, batch);
    oracle_list *list = oracle_list_of(o, batch, head, group);
    int64_t visible = visible_blocks(p, s, group), count = 0;
    switch (p->order) {
    case RFA_ORDER_RASTER: count = raster_visits(visible, visits); break;
    case RFA_ORDER_DIAGONAL: count = diagonal_visits(p, s, group, visible, visits); break;
    case RFA_ORDER_PREDICTED:
        count = predicted_visits(visible, predicted + group * p->blocks_k, visits);
        break;
    case RFA_ORDER_LIST:
        count = listed_visits(o, batch, head, group, visible, visits, listed, &list->bad);
        break;
    }
    count = raise_kept(s, visible, visits, count, listed);
    qsort(visits, (size_t)count, sizeof(*visits), compare_visits);
    for (int64_t i = 0; i < count; i++) {
        list->index[i] = visits[i].index;
        list->mass[i] = visits[i].mass;
    }
    list->length = count;
}

static bool allocate_lists(oracle *o)
{
    const rfa_problem *p = o->p;
    bool by_head = p->order == RFA_ORDER_PREDICTED || p->order == RFA_ORDER_LIST;
    o->has_masses =
        p->order == RFA_ORDER_PREDICTED || (p->order == RFA_ORDER_LIST && p->list_masses.data);
    o->list_batch = by_head || p->packed ? p->batch : 1;
    o->list_heads = by_head ? p->heads_q : 1;
    int64_t lists = o->list_batch * o->list_heads * p->groups;
    o->list = oracle_array(lists, 1, sizeof(*o->list));
    o->list_index = oracle_array(lists, p->blocks_k, sizeof(*o->list_index));
    o->list_mass = oracle_array(lists, p->blocks_k, sizeof(*o->list_mass));
    if (!o->list || !o->list_index || !o->list_mass)
        return false;
    for (int64_t i = 0; i < lists; i++) {
        o->list[i].index = o->list_index + i * p->blocks_k;
        o->list[i].mass = o->list_mass + i * p->blocks_k;
    }
    return true;
}

static rfa_status fill_lists(oracle *o, float *predicted, visit *visits, bool *listed,
                             rfa_error *err)
{
    for (int64_t b = 0; b < o->list_batch; b++) {
        for (int64_t h = 0; h < o->list_heads; h++) {
            rfa_status status = RFA_OK;
            if (predicted)
                status = oracle_predict(o, b, h, predicted, err);
            if (status != RFA_OK)
                return status;
            for (int64_t g = 0; g < oracle_sequence_of(o, b)->groups; g++)
                fill_list(o, b, h, g, predicted, visits, listed);
        }
    }
    return RFA_OK;
}

rfa_status oracle_prepare_lists(oracle *o, rfa_error *err)
{
    const rfa_problem *p = o->p;
    bool predict = p->order == RFA_ORDER_PREDICTED;
    visit *visits = oracle_array(p->blocks_k, 1, sizeof(*visits));
    bool *listed = oracle_array(p->blocks_k, 1, sizeof(*listed));
    float *predicted = predict ? oracle_array(p->groups, p->blocks_k, sizeof(*predicted)) : NULL;
    rfa_status status;
    if (visits && listed && (predicted || !predict) && allocate_lists(o))
        status = fill_lists(o, predicted, visits, listed, err);
    else
        status = rfa_fail(err, RFA_OUT_OF_MEMORY,
                          "no memory for visit lists of %lld groups and %lld key blocks",
                          (long long)p->groups, (long long)p->blocks_k);
    free(visits);
    free(listed);
    free(predicted);
    return status;
}

/* ---- Questions --------------------------------------------------------------------- */

int64_t oracle_visits(const oracle *o, int64_t batch, int64_t head, int64_t group, int32_t *list,
                      double *masses)
{
    const oracle_list *from = oracle_list_of(o, batch, head, group);
    for (int64_t i = 0; i < from->length; i++) {
        list[i] = from->index[i];
        if (masses)
            masses[i] = from->mass[i];
    }
    return from->length;
}

int64_t oracle_bad_indices(const oracle *o, int64_t batch, int64_t head, int64_t group)
{
    return oracle_list_of(o, batch, head, group)->bad;
}
