/* A call: sequences, tasks in parallel, counts. */
#include <string.h>

#include "cpu.h"

static cpu_job start_job(const cpu_state *state, const rfa_problem *p, bool list_only)
{
    cpu_job job = {.p = p, .list_only = list_only};
    job.kernels = cpu_kernels_for(state->isa, p);
    job.f32 = state->isa->f32;
    job.estimated = p->rule == RFA_RULE_RECALL && p->mass == RFA_MASS_ESTIMATED;
    job.exact = p->track_recall && p->rule != RFA_RULE_DENSE && !job.estimated;
    return job;
}

/* ---- Attention -------------------------------------------------------------------------- */

/* Heads differ in how much they skip, and only running them shows it: after one task
 * of each, those come first whose last finished task cost most, so that no long one is
 * left for the end while other threads have nothing more to do. For the same reason the
 * last tasks are parts of groups, although those read a head's k and v more often. Heads of much
 * the same cost follow one another, for their k and v to stay in caches. */
static int cost_class(int64_t cost)
{
    int exponent = 63 - __builtin_clzll((uint64_t)cost | 1);
    return 2 * exponent + (int)(cost >> (exponent > 0 ? exponent - 1 : 0) & 1);
}

/* Heads that are looked at before one is chosen. */
enum { CHOICE = 64 };

/* The head that goes first, or -1 if there is none left. */
static int64_t choose_head(const cpu_job *job, int64_t heads)
{
    int64_t blocks = job->p->groups * job->layout.group_blocks;
    int64_t best = -1, front = atomic_load_explicit(job->layout.front, memory_order_relaxed);
    int best_class = -1;
    for (int64_t h = front, end = cpu_min(front + CHOICE, heads); h < end; h++) {
        const cpu_turn *turn = &job->layout.turn[h];
        if (atomic_load_explicit(&turn->begun, memory_order_relaxed) >= blocks) {
            if (best < 0)
                end = cpu_min(h + 1 + CHOICE, heads);
            continue;
        }
        if (best < 0 && h > front)
            atomic_store_explicit(job->layout.front, h, memory_order_relaxed);
        int class = cost_class(atomic_load_explicit(&turn->cost, memory_order_relaxed));
        if (class > best_class) {
            best = h;
            best_class = class;
        }
    }
    return best;
}

/* How many decision blocks make a task now; no task has blocks of two groups. */
static int64_t share_of_left(const cpu_job *job)
{
    int64_t left = atomic_load_explicit(job->layout.left, memory_order_relaxed);
    int64_t share = left / job->layout.threads;
    return share < 1 ? 1 : cpu_min(share, job->layout.group_blocks);
}

/* The next blocks of a head: the number of the first, or -1 if none are left. */
static int64_t begin_blocks(const cpu_job *job, cpu_turn *turn, int64_t *count)
{
    const int64_t each = job->layout.group_blocks, all = job->p->groups * each;
    int64_t first = atomic_load_explicit(&turn->begun, memory_order_relaxed);
    do {
        if (first >= all)
            return -1;
        *count = cpu_min(share_of_left(job), each - first % each);
    } while (!atomic_compare_exchange_weak_explicit(&turn->begun, &first, first + *count,
                                                    memory_order_relaxed, memory_order_relaxed));
    atomic_fetch_sub_explicit(job->layout.left, *count, memory_order_relaxed);
    return first;
}

/* The next task, or false after the last. */
static bool take_task(const cpu_job *job, int64_t first_head, int64_t heads, cpu_task *task)
{
    const rfa_problem *p = job->p;
    const int64_t each = job->layout.group_blocks;
    for (int64_t head; (head = choose_head(job, heads)) >= 0;) {
        cpu_turn *turn = &job->layout.turn[head];
        int64_t count, first = begin_blocks(job, turn, &count);
        if (first < 0)
            continue;   /* another thread was faster */
        if (first == 0) /* the others look at other heads, as long as there are some */
            atomic_store_explicit(&turn->cost, 0, memory_order_relaxed);
        /* Under the causal mask later groups see more. */
        int64_t group = first / each, begin = first % each;
        *task = (cpu_task){.batch = (first_head + head) / p->heads_q,
                           .head = (first_head + head) % p->heads_q,
                           .group = p->causal ? p->groups - 1 - group : group,
                           .begin = begin,
                           .end = begin + count};
        return true;
    }
    return false;
}

/* Scores of a visit take about as long as the product of a kept block. */
static int64_t cost_of_block(const cpu_job *job, const cpu_task *task)
{
    const cpu_result *results = cpu_results_of(job, task->batch, task->head, task->group);
    int64_t cost = 0, blocks = 0;
    for (int64_t i = task->begin; i < task->end; i++) {
        cost += results[i].visited + results[i].kept;
        blocks += results[i].rows > 0;
    }
    return blocks ? cost / blocks : -1; /* a part may lie past the sequence's end */
}

static void attend_tasks(const cpu_job *job, int64_t first_head, int64_t heads)
{
    cpu_scratch scratch;
    cpu_task task;
    cpu_scratch_of(&scratch, job, cpu_thread_number());
    if (job->kernels->enter)
        job->kernels->enter();
    while (take_task(job, first_head, heads, &task)) {
        int64_t head = task.batch * job->p->heads_q + task.head - first_head;
        cpu_attend(job, task, &scratch);
        int64_t cost = cost_of_block(job, &task);
        if (cost >= 0)
            atomic_store_explicit(&job->layout.turn[head].cost, cost, memory_order_relaxed);
    }
    if (job->kernels->leave)
        job->kernels->leave();
}

/* All that reads k and v of these (batch entry, kv head). */
static void attend_wave(const cpu_job *job, int64_t first_pair, int64_t pairs)
{
    int64_t share = job->p->heads_q / job->p->heads_kv;
    cpu_forget_packed(job);
    for (int64_t h = 0; h < pairs * share; h++) {
        atomic_store_explicit(&job->layout.turn[h].begun, 0, memory_order_relaxed);
        atomic_store_explicit(&job->layout.turn[h].cost, INT64_MAX, memory_order_relaxed);
    }
    atomic_store_explicit(job->layout.front, 0, memory_order_relaxed);
    atomic_store_explicit(job->layout.left,
                          pairs * share * job->p->groups * job->layout.group_blocks,
                          memory_order_relaxed);
#ifdef _OPENMP
#pragma omp parallel num_threads(job->layout.threads)
#endif
    attend_tasks(job, first_pair * share, pairs * share);
}

static void attend_all(const cpu_job *job, int64_t begin, int64_t end)
{
    int64_t last = end * job->p->heads_kv, wave = job->layout.wave;
    for (int64_t pair = begin * job->p->heads_kv; pair < last; pair += wave)
        attend_wave(job, pair, cpu_min(wave, last - pair));
}

static void attend_sequences(const cpu_job *job, int64_t begin, int64_t end)
{
    cpu_prepare_sequences(job, begin, end);
    if (job->p->order == RFA_ORDER_PREDICTED)
        cpu_pool_keys(job, begin, end);
    attend_all(job, begin, end);
}

/* ---- Counts ------------------------------------------------------------------------------- */

static void add_results(const cpu_job *job, rfa_counts *counts)
{
    double recall = 0, rows = 0, recall_min = 1;
    int64_t blocks = job->layout.groups * job->layout.group_blocks;
    for (int64_t i = 0; i < blocks; i++) {
        const cpu_result *result = &job->layout.result[i];
        double mean = result->recall / (double)result->rows;
        counts->blocks_total += (uint64_t)result->total;
        counts->blocks_visited += (uint64_t)result->visited;
        counts->blocks_kept += (uint64_t)result->kept;
        counts->bad_indices += (uint64_t)result->bad_indices;
        recall += result->recall;
        rows += (double)result->rows;
        if (result->rows > 0 && !(mean >= recall_min) && !isnan(recall_min))
            recall_min = mean;
    }
    /* Without any row nothing was lost. */
    counts->recall_mean = rows > 0 ? (float)(recall / rows) : 1;
    counts->recall_block_min = (float)recall_min;
}

static void count_bad(const cpu_job *job, rfa_counts *counts)
{
    for (int64_t b = 0; b < job->p->batch; b++) {
        counts->bad_sequences += job->p->packed && cpu_sequence_of(job, b)->bad;
        for (int64_t h = 0; h < job->p->heads_q; h++) {
            bool bad;
            (void)cpu_rule_of(job, b, h, &bad);
            counts->bad_knobs += bad;
        }
    }
}

static void write_counts(const cpu_job *job)
{
    const rfa_problem *p = job->p;
    rfa_counts counts = {0};
    add_results(job, &counts);
    count_bad(job, &counts);
    counts.recall_scope =
        counts.blocks_visited < counts.blocks_total ? RFA_RECALL_VISITED_KEYS : RFA_RECALL_ALL_KEYS;
    counts.recall_kind = job->estimated ? RFA_RECALL_ESTIMATED : RFA_RECALL_EXACT;
    if (!p->track_recall) {
        counts.recall_kind = RFA_RECALL_ABSENT;
        counts.recall_mean = counts.recall_block_min = (float)NAN;
    }
    memcpy(cpu_at(&p->counts, 1, 0, 0, 0), &counts, sizeof(counts));
}

rfa_status cpu_run(const cpu_state *state, const rfa_problem *p, void *workspace, rfa_error *err)
{
    cpu_job job = start_job(state, p, false);
    rfa_status status = cpu_layout_of(&job.layout, state, p, false, workspace, err);
    if (status != RFA_OK)
        return status;
    if (!cpu_measure_sequences(&job)) {
        attend_sequences(&job, 0, p->batch);
    } else {
        /* Sequences that overlap by mistake must not race for a row. */
        for (int64_t b = 0; b < p->batch; b++)
            attend_sequences(&job, b, b + 1);
    }
    if (p->counts.data)
        write_counts(&job);
    return RFA_OK;
}

/* ---- Predicted lists ---------------------------------------------------------------------------
 */

static void write_list(const cpu_job *job, int64_t batch, int64_t head, int64_t group,
                       const cpu_scratch *scratch)
{
    const rfa_problem *p = job->p;
    int32_t *index = (int32_t *)cpu_at(&p->list_indices, 4, batch, head, group);
    int64_t count = 0;
    if (group * p->visit_q < cpu_sequence_of(job, batch)->len_q)
        count = cpu_predicted_list(job, batch, head, group, scratch);
    *(int32_t *)cpu_at(&p->list_counts, 4, batch, head, group) = (int32_t)count;
    for (int64_t i = 0; i < p->list_capacity; i++)
        index[i] = i < count ? scratch->list[i] : -1;
    if (!p->list_masses.data)
        return;
    float *mass = (float *)cpu_at(&p->list_masses, 4, batch, head, group);
    for (int64_t i = 0; i < p->list_capacity; i++)
        mass[i] = i < count ? scratch->list_mass[i] : 0;
}

static void list_sequences(const cpu_job *job, int64_t begin, int64_t end)
{
    int64_t groups = job->p->groups, per_sequence = job->p->heads_q * groups;
    cpu_prepare_sequences(job, begin, end);
    cpu_pool_keys(job, begin, end);
#ifdef _OPENMP
#pragma omp parallel num_threads(job->layout.threads)
#endif
    {
        cpu_scratch scratch;
        cpu_scratch_of(&scratch, job, cpu_thread_number());
#ifdef _OPENMP
#pragma omp for schedule(dynamic)
#endif
        for (int64_t i = begin * per_sequence; i < end * per_sequence; i++)
            write_list(job, i / per_sequence, i % per_sequence / groups, i % groups, &scratch);
    }
}

rfa_status cpu_build_list(const cpu_state *state, const rfa_problem *p, void *workspace,
                          rfa_error *err)
{
    cpu_job job = start_job(state, p, true);
    rfa_status status = cpu_layout_of(&job.layout, state, p, true, workspace, err);
    if (status != RFA_OK)
        return status;
    if (!cpu_measure_sequences(&job)) {
        list_sequences(&job, 0, p->batch);
    } else {
        for (int64_t b = 0; b < p->batch; b++)
            list_sequences(&job, b, b + 1);
    }
    return RFA_OK;
}
