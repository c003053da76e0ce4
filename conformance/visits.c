/* Visit orders against the oracle's, and the problem that the walk follows. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "conformance/check_internal.h"
#include "conformance/element.h"

typedef struct group_scratch {
    int32_t *list;   /* the oracle's order */
    double *masses;  /* beside it */
    double *mass_of; /* by key block; -1: not in the list */
} group_scratch;

static bool scratch_alloc(group_scratch *s, int64_t blocks_k)
{
    s->list = malloc((size_t)blocks_k * sizeof(*s->list));
    s->masses = malloc((size_t)blocks_k * sizeof(*s->masses));
    s->mass_of = malloc((size_t)blocks_k * sizeof(*s->mass_of));
    return s->list && s->masses && s->mass_of;
}

static void scratch_free(group_scratch *s)
{
    free(s->list);
    free(s->masses);
    free(s->mass_of);
}

typedef struct group_place {
    int64_t index, batch, head, group;
} group_place;

static group_place place_of(const rfa_problem *p, int64_t index)
{
    int64_t head = index / p->groups;
    return (group_place){index, head / p->heads_q, head % p->heads_q, index % p->groups};
}

static const int32_t *entries_of(const rfa_view *view, group_place at)
{
    return view_row(view, sizeof(int32_t), at.batch, at.head, at.group);
}

static void fail_at(check *c, group_place at, int64_t slot, const char *what, double is,
                    double expected)
{
    check_fail(c, PLACE_VISITS, at.index,
               "%s: batch %lld, head %lld, visit group %lld, slot %lld is %g, expected %g", what,
               (long long)at.batch, (long long)at.head, (long long)at.group, (long long)slot, is,
               expected);
}

/* Raster, diagonal, list: the one order there is. */
static void same_order(check *c, group_place at, const int32_t *entries, const int32_t *list,
                       int64_t n)
{
    for (int64_t i = 0; i < c->p->blocks_k; i++) {
        int32_t expected = i < n ? list[i] : -1;
        if (entries[i] != expected) {
            fail_at(c, at, i, "visit order", entries[i], expected);
            return;
        }
    }
}

/* Every block of the list once, then nothing. Leaves mass_of filled. */
static bool is_permutation(check *c, group_place at, const int32_t *entries, int64_t n,
                           int64_t slots, group_scratch *s)
{
    for (int64_t j = 0; j < c->p->blocks_k; j++)
        s->mass_of[j] = -1;
    for (int64_t i = 0; i < n; i++)
        s->mass_of[s->list[i]] = fmax(s->masses[i], 0); /* a NaN counts as 0 */
    for (int64_t i = 0; i < slots; i++) {
        int32_t j = entries[i];
        bool good = i < n ? j >= 0 && j < c->p->blocks_k && s->mass_of[j] >= 0 : j == -1;
        if (!good) {
            fail_at(c, at, i, "predicted order is no permutation", j, i < n ? s->list[i] : -1);
            return false;
        }
        if (i < n)
            s->mass_of[j] = -2; /* seen */
    }
    for (int64_t i = 0; i < n; i++)
        s->mass_of[s->list[i]] = fmax(s->masses[i], 0);
    return true;
}

static int64_t forced_blocks(const check *c, group_place at, const int32_t *list, int64_t n)
{
    check_sequence seq = check_sequence_of(c->p, at.batch);
    int64_t forced = 0;
    for (int64_t i = 0; i < n; i++)
        forced += check_key_block_kept(c->p, &seq, at.batch, list[i]);
    return forced;
}

static double mass_room(const check *c, group_place at, double x, double y)
{
    double q_norm = c->query_norm[at.batch * c->p->heads_q + at.head];
    double e = check_logit_error(c, at.batch, at.head, q_norm);
    return (1e-4 + 8 * e) * (x + y) + 1e-7;
}

/* Forced blocks ascending, then best first, near ties either way. */
static void is_sorted(check *c, group_place at, const int32_t *entries, int64_t n,
                      const group_scratch *s)
{
    int64_t forced = forced_blocks(c, at, s->list, n);
    for (int64_t i = 0; i < forced; i++)
        if (entries[i] != s->list[i]) {
            fail_at(c, at, i, "always-keep blocks", entries[i], s->list[i]);
            return;
        }
    double best_after = 0;
    for (int64_t i = n - 1; i >= forced; i--) {
        double mass = s->mass_of[entries[i]];
        if (!(mass >= best_after - mass_room(c, at, mass, best_after)) &&
            !c->options->nonfinite_inputs) {
            fail_at(c, at, i, "predicted order is not sorted: mass", mass, best_after);
            return;
        }
        best_after = fmax(best_after, mass);
    }
}

/* What the walk of a predicted order follows: the backend's order where it is
 * one, with the oracle's masses. */
static void write_walk_list(check *c, group_place at, const int32_t *entries, int64_t n,
                            const group_scratch *s)
{
    int64_t first = at.index * c->p->blocks_k;
    c->walk.counts[at.index] = (int32_t)n;
    for (int64_t i = 0; i < n; i++) {
        c->walk.indices[first + i] = entries[i];
        c->walk.masses[first + i] = (float)s->mass_of[entries[i]];
    }
}

static void check_group(check *c, group_place at, group_scratch *s)
{
    const rfa_problem *p = c->p;
    bool predicted = p->order == RFA_ORDER_PREDICTED;
    int64_t n = oracle_visits(c->given, at.batch, at.head, at.group, s->list, s->masses);
    bool given = p->visit_order.data != NULL;
    const int32_t *entries = given ? entries_of(&p->visit_order, at) : s->list;
    if (!predicted) {
        if (given)
            same_order(c, at, entries, s->list, n);
        return;
    }
    if (!is_permutation(c, at, entries, n, given ? p->blocks_k : n, s))
        return;
    is_sorted(c, at, entries, n, s);
    write_walk_list(c, at, entries, n, s);
}

static rfa_status for_groups(check *c, void (*visit)(check *, group_place, group_scratch *),
                             rfa_error *err)
{
    const rfa_problem *p = c->p;
    bool starved = false;
#pragma omp parallel
    {
        group_scratch s;
        bool ready = scratch_alloc(&s, p->blocks_k);
        if (!ready) {
#pragma omp atomic write
            starved = true;
        }
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < p->batch * p->heads_q * p->groups; i++)
            if (ready)
                visit(c, place_of(p, i), &s);
        scratch_free(&s);
    }
    return starved ? rfa_fail(err, RFA_OUT_OF_MEMORY, "no memory for lists of %lld key blocks",
                              (long long)p->blocks_k)
                   : RFA_OK;
}

static rfa_status walk_alloc(check_walk *walk, const rfa_problem *p, rfa_error *err)
{
    size_t groups = (size_t)(p->batch * p->heads_q * p->groups), slots = (size_t)p->blocks_k;
    walk->counts = calloc(groups, sizeof(*walk->counts));
    walk->indices = calloc(groups * slots, sizeof(*walk->indices));
    walk->masses = calloc(groups * slots, sizeof(*walk->masses));
    if (!walk->counts || !walk->indices || !walk->masses)
        return rfa_fail(err, RFA_OUT_OF_MEMORY, "no memory for %zu lists of %zu key blocks", groups,
                        slots);
    int64_t head = p->groups * p->blocks_k, batch = p->heads_q * head;
    const rfa_view entries = {NULL, 0, {batch, head, p->blocks_k}};
    const rfa_view counts = {walk->counts, 0, {p->heads_q * p->groups, p->groups, 1}};
    walk->problem.order = RFA_ORDER_LIST;
    walk->problem.list_capacity = p->blocks_k;
    walk->problem.list_counts = counts;
    walk->problem.list_indices = walk->problem.list_masses = entries;
    walk->problem.list_indices.data = walk->indices;
    walk->problem.list_masses.data = walk->masses;
    return RFA_OK;
}

rfa_status check_visits(check *c, rfa_error *err)
{
    bool predicted = c->p->order == RFA_ORDER_PREDICTED;
    c->walk.problem = *c->p;
    rfa_status status = predicted ? walk_alloc(&c->walk, c->p, err) : RFA_OK;
    if (status == RFA_OK)
        status = for_groups(c, check_group, err);
    if (status == RFA_OK)
        status = oracle_create(&c->walk.oracle, &c->walk.problem, err);
    return status;
}

void check_walk_free(check_walk *walk)
{
    oracle_destroy(walk->oracle);
    free(walk->indices);
    free(walk->counts);
    free(walk->masses);
}

/* ---- lists built apart ---- */

static void same_masses(check *c, group_place at, const int32_t *entries, int64_t n,
                        const group_scratch *s)
{
    const float *masses = view_row(&c->p->list_masses, sizeof(float), at.batch, at.head, at.group);
    for (int64_t i = 0; i < n; i++) {
        double expected = s->mass_of[entries[i]];
        if (!(fabs((double)masses[i] - expected) <= mass_room(c, at, expected, expected)) &&
            !c->options->nonfinite_inputs) {
            fail_at(c, at, i, "predicted mass", masses[i], expected);
            return;
        }
    }
}

static void check_built_group(check *c, group_place at, group_scratch *s)
{
    const rfa_problem *p = c->p;
    int64_t n = oracle_visits(c->given, at.batch, at.head, at.group, s->list, s->masses);
    int32_t count = *entries_of(&p->list_counts, at);
    const int32_t *entries = entries_of(&p->list_indices, at);
    if (count != n)
        fail_at(c, at, 0, "length of the predicted list", count, (double)n);
    else if (is_permutation(c, at, entries, n, n, s)) {
        is_sorted(c, at, entries, n, s);
        if (p->list_masses.data)
            same_masses(c, at, entries, n, s);
    }
}

rfa_status check_visit_list(const rfa_problem *p, bool nonfinite_inputs, check_report *report,
                            rfa_error *err)
{
    /* A list is built without regard to ranges; attention puts those first. */
    rfa_problem plain = *p;
    plain.keep_key_count = 0;
    const check_options options = {.nonfinite_inputs = nonfinite_inputs};
    check c = {.p = &plain, .options = &options, .report = report, .first_failure = INT64_MAX};
    memset(report, 0, sizeof(*report));
    rfa_status status = oracle_create(&c.given, &plain, err);
    if (status == RFA_OK)
        status = check_norms(&c, err);
    if (status == RFA_OK)
        status = for_groups(&c, check_built_group, err);
    report->ok = status == RFA_OK && c.first_failure == INT64_MAX;
    oracle_destroy(c.given);
    free(c.key_norm);
    free(c.query_norm);
    return status;
}
