/* Attention on host memory: every decision block walked by the oracle. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#ifdef _OPENMP
#include <omp.h>
#endif

#include "convert.h"
#include "oracle.h"
#include "reference.h"

/* What one decision block adds to the counts. Summed in a fixed order, so that
 * they do not depend on the number of threads. */
typedef struct block_result {
    int64_t rows, unmasked, counted, kept;
    double recall; /* sum over rows */
} block_result;

typedef struct run {
    const rfa_problem *p;
    oracle *oracle;
    int32_t threads;
    oracle_block *blocks;  /* one a thread */
    block_result *results; /* one a decision block of one batch entry */
    rfa_counts counts;
    double recall, recall_rows, recall_min;
} run;

static int thread_number(void)
{
#ifdef _OPENMP
    return omp_get_thread_num();
#else
    return 0;
#endif
}

/* ---- One decision block ------------------------------------------------------------ */

static void write_float(const rfa_view *view, int64_t batch, int64_t head, int64_t row, double x)
{
    if (view->data)
        *(float *)view_at(view, sizeof(float), batch, head, row) = (float)x;
}

static void write_block(const rfa_problem *p, int64_t batch, int64_t head, int64_t index,
                        const oracle_block *block)
{
    for (int32_t r = 0; r < block->rows; r++) {
        void *out = view_at(&p->out, element_size(p->out_dtype), batch, head, block->row[r]);
        store_row(out, p->out_dtype, block->out + (int64_t)r * p->dim_v, p->dim_v);
        write_float(&p->lse, batch, head, block->row[r], block->lse[r]);
        write_float(&p->recall, batch, head, block->row[r], block->recall[r]);
    }
    if (p->decisions.data)
        memcpy(view_at(&p->decisions, sizeof(uint32_t), batch, head, index), block->followed,
               (size_t)block->words * sizeof(uint32_t));
}

static void run_block(run *a, int64_t batch, int64_t work)
{
    const rfa_problem *p = a->p;
    int64_t head = work / p->blocks_q, index = work % p->blocks_q;
    oracle_block *block = &a->blocks[thread_number()];
    const uint32_t *replay = NULL;
    if (p->replay.data)
        replay = view_at(&p->replay, sizeof(*replay), batch, head, index);
    oracle_walk(a->oracle, batch, head, index, replay, block);
    write_block(p, batch, head, index, block);
    block_result *result = &a->results[work];
    *result = (block_result){block->rows, block->unmasked, block->counted, block->kept, 0};
    for (int32_t r = 0; r < block->rows; r++)
        result->recall += block->recall[r];
}

/* ---- All of them ---------------------------------------------------------------------- */

static void add_results(run *a)
{
    for (int64_t i = 0; i < a->p->heads_q * a->p->blocks_q; i++) {
        const block_result *result = &a->results[i];
        if (result->rows == 0)
            continue;
        double mean = result->recall / (double)result->rows;
        a->counts.blocks_total += (uint64_t)result->unmasked;
        a->counts.blocks_visited += (uint64_t)result->counted;
        a->counts.blocks_kept += (uint64_t)result->kept;
        a->recall += result->recall;
        a->recall_rows += (double)result->rows;
        if (!(mean >= a->recall_min) && !isnan(a->recall_min))
            a->recall_min = mean;
    }
}

/* Batch entries one after the other: packed sequences that overlap by mistake
 * then cannot race for a row. */
static void run_blocks(run *a)
{
    int64_t work = a->p->heads_q * a->p->blocks_q;
    for (int64_t b = 0; b < a->p->batch; b++) {
#ifdef _OPENMP
#pragma omp parallel for schedule(dynamic) num_threads(a->threads)
#endif
        for (int64_t i = 0; i < work; i++)
            run_block(a, b, i);
        add_results(a);
    }
}

static void write_visit_orders(const run *a)
{
    const rfa_problem *p = a->p;
    for (int64_t b = 0; b < p->batch; b++) {
        for (int64_t h = 0; h < p->heads_q; h++) {
            for (int64_t g = 0; g < p->groups; g++) {
                int32_t *slot = view_at(&p->visit_order, sizeof(*slot), b, h, g);
                int64_t length = oracle_visits(a->oracle, b, h, g, slot, NULL);
                for (int64_t i = length; i < p->blocks_k; i++)
                    slot[i] = -1;
            }
        }
    }
}

static void count_bad(run *a)
{
    const rfa_problem *p = a->p;
    for (int64_t b = 0; b < p->batch; b++) {
        a->counts.bad_sequences += p->packed && oracle_bad_sequence(a->oracle, b);
        for (int64_t h = 0; h < p->heads_q; h++) {
            a->counts.bad_knobs += oracle_bad_knob(a->oracle, b, h);
            for (int64_t g = 0; g < p->groups && p->order == RFA_ORDER_LIST; g++)
                a->counts.bad_indices += (uint64_t)oracle_bad_indices(a->oracle, b, h, g);
        }
    }
}

static void write_counts(run *a)
{
    const rfa_problem *p = a->p;
    bool estimated = p->rule == RFA_RULE_RECALL && p->mass == RFA_MASS_ESTIMATED;
    count_bad(a);
    a->counts.recall_scope = a->counts.blocks_visited < a->counts.blocks_total
                                 ? RFA_RECALL_VISITED_KEYS
                                 : RFA_RECALL_ALL_KEYS;
    if (p->track_recall) {
        a->counts.recall_kind = estimated ? RFA_RECALL_ESTIMATED : RFA_RECALL_EXACT;
        /* Without any row nothing was lost. */
        a->counts.recall_mean = a->recall_rows > 0 ? (float)(a->recall / a->recall_rows) : 1;
        a->counts.recall_block_min = (float)a->recall_min;
    } else {
        a->counts.recall_kind = RFA_RECALL_ABSENT;
        a->counts.recall_mean = a->counts.recall_block_min = NAN;
    }
    memcpy(view_at(&p->counts, 1, 0, 0, 0), &a->counts, sizeof(a->counts));
}

static rfa_status prepare(run *a, rfa_error *err)
{
    int64_t results = a->p->heads_q * a->p->blocks_q;
    rfa_status status = oracle_create(&a->oracle, a->p, err);
    if (status != RFA_OK)
        return status;
    if (a->threads > results)
        a->threads = results > 0 ? (int32_t)results : 1;
    a->blocks = calloc((size_t)a->threads, sizeof(*a->blocks));
    a->results = calloc(results > 0 ? (size_t)results : 1, sizeof(*a->results));
    if (!a->blocks || !a->results)
        return rfa_fail(err, RFA_OUT_OF_MEMORY, "no memory for the results of %lld blocks",
                        (long long)results);
    for (int32_t t = 0; t < a->threads && status == RFA_OK; t++)
        status = oracle_block_alloc(a->oracle, false, &a->blocks[t], err);
    return status;
}

rfa_status reference_run(void *state, const rfa_problem *p, void *workspace, rfa_error *err)
{
    const reference_state *context = state;
    run a = {.p = p, .threads = context->threads, .recall_min = 1};
    (void)workspace;
    rfa_status status = prepare(&a, err);
    if (status == RFA_OK) {
        run_blocks(&a);
        if (p->visit_order.data)
            write_visit_orders(&a);
        if (p->counts.data)
            write_counts(&a);
    }
    for (int32_t t = 0; a.blocks && t < a.threads; t++)
        oracle_block_free(&a.blocks[t]);
    free(a.blocks);
    free(a.results);
    oracle_destroy(a.oracle);
    return status;
}

/* ---- The predicted list ------------------------------------------------------------------ */

static void write_list(const oracle *o, const rfa_problem *p, int64_t b, int64_t h, int64_t g,
                       double *masses)
{
    int32_t *index = view_at(&p->list_indices, sizeof(*index), b, h, g);
    int64_t length = oracle_visits(o, b, h, g, index, masses);
    for (int64_t i = length; i < p->list_capacity; i++)
        index[i] = -1;
    *(int32_t *)view_at(&p->list_counts, sizeof(int32_t), b, h, g) = (int32_t)length;
    if (!p->list_masses.data)
        return;
    float *mass = view_at(&p->list_masses, sizeof(*mass), b, h, g);
    for (int64_t i = 0; i < p->list_capacity; i++)
        mass[i] = i < length ? (float)masses[i] : 0;
}

rfa_status reference_build_list(void *state, const rfa_problem *p, void *workspace, rfa_error *err)
{
    /* Always-keep blocks move to the front when the list is visited, not here. */
    rfa_problem by_mass = *p;
    oracle *o = NULL;
    (void)state;
    (void)workspace;
    by_mass.order = RFA_ORDER_PREDICTED;
    by_mass.keep_key_count = 0;
    double *masses = calloc(p->blocks_k > 0 ? (size_t)p->blocks_k : 1, sizeof(*masses));
    if (!masses)
        return rfa_fail(err, RFA_OUT_OF_MEMORY, "no memory for %lld masses",
                        (long long)p->blocks_k);
    rfa_status status = oracle_create(&o, &by_mass, err);
    for (int64_t b = 0; status == RFA_OK && b < p->batch; b++)
        for (int64_t h = 0; h < p->heads_q; h++)
            for (int64_t g = 0; g < p->groups; g++)
                write_list(o, p, b, h, g, masses);
    oracle_destroy(o);
    free(masses);
    return status;
}
