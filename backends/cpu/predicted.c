/* The predicted order: masses of key blocks from means of RFA_POOL_ROWS tokens.
 *
 * Sixteen pooled queries at a time take the lanes of the ordinary score kernel,
 * pooled keys the place of keys. */
#include <float.h>
#include <string.h>

#include "cpu.h"

/* ---- Pools ----------------------------------------------------------------------------- */

static float *key_pools_of(const cpu_job *job, int64_t batch, int64_t head_kv)
{
    const rfa_problem *p = job->p;
    const cpu_sequence *s = cpu_sequence_of(job, batch);
    int64_t pools = cpu_ceil_div(s->len_k, RFA_POOL_ROWS) + CPU_SLACK;
    int64_t first = cpu_first_pool(p, batch, s->first_k) * p->heads_kv + head_kv * pools;
    return job->layout.key_pools + first * p->dim;
}

/* The mean of the rows of pool `pool`, element d to mean[d * step]. */
static void pool_rows(const cpu_job *job, const cpu_rows *rows, const int64_t *order,
                      int64_t first_row, int64_t len, int64_t pool, int64_t step,
                      const cpu_scratch *scratch, float *mean)
{
    int64_t begin = pool * RFA_POOL_ROWS, count = cpu_min(RFA_POOL_ROWS, len - begin);
    for (int32_t d = 0; d < rows->dim; d++)
        mean[d * step] = 0;
    for (int64_t i = begin; i < begin + count; i++) {
        int64_t position = first_row + (order ? order[i] : i);
        job->f32->load(rows, &position, 1, rows->dim, scratch->row);
        for (int32_t d = 0; d < rows->dim; d++)
            mean[d * step] += scratch->row[d];
    }
    for (int32_t d = 0; d < rows->dim; d++)
        mean[d * step] /= (float)count;
}

static void pool_head(const cpu_job *job, int64_t batch, int64_t head_kv,
                      const cpu_scratch *scratch)
{
    const rfa_problem *p = job->p;
    const cpu_sequence *s = cpu_sequence_of(job, batch);
    cpu_rows rows = cpu_rows_of(p, &p->k, batch, head_kv, p->dim);
    int64_t pools = cpu_ceil_div(s->len_k, RFA_POOL_ROWS);
    float *mean = key_pools_of(job, batch, head_kv);
    if (pools == 0)
        return; /* a bad sequence has no place of its own */
    for (int64_t n = 0; n < pools; n++)
        pool_rows(job, &rows, s->order_k, s->first_k, s->len_k, n, 1, scratch, mean + n * p->dim);
    memset(mean + pools * p->dim, 0, (size_t)p->dim * CPU_SLACK * sizeof(*mean));
}

void cpu_pool_keys(const cpu_job *job, int64_t begin, int64_t end)
{
    int64_t heads = job->p->heads_kv;
#ifdef _OPENMP
#pragma omp parallel num_threads(job->layout.threads)
#endif
    {
        cpu_scratch scratch;
        cpu_scratch_of(&scratch, job, cpu_thread_number());
#ifdef _OPENMP
#pragma omp for schedule(dynamic)
#endif
        for (int64_t i = begin * heads; i < end * heads; i++)
            pool_head(job, i / heads, i % heads, &scratch);
    }
}

/* ---- Masses ------------------------------------------------------------------------------ */

/* Scores of pooled rows first .. first + count - 1 against `pools` pooled keys,
 * then exp(score - max) in place. */
static void weigh_pools(const cpu_job *job, int64_t batch, int64_t head, int64_t first,
                        int32_t count, int32_t pools, const cpu_scratch *scratch)
{
    const rfa_problem *p = job->p;
    const cpu_sequence *s = cpu_sequence_of(job, batch);
    cpu_rows rows = cpu_rows_of(p, &p->q, batch, head, p->dim);
    float max[CPU_LANES], sum[CPU_LANES];
    int32_t seen[CPU_LANES] = {0};
    memset(scratch->pooled_q, 0, (size_t)p->dim * CPU_LANES * sizeof(float));
    for (int32_t i = 0; i < count; i++) {
        float *mean = scratch->pooled_q + i;
        pool_rows(job, &rows, s->order_q, s->first_q, s->len_q, first + i, CPU_LANES, scratch,
                  mean);
        for (int32_t d = 0; d < p->dim; d++)
            mean[d * CPU_LANES] *= p->scale;
        int64_t last_row = cpu_min((first + i + 1) * RFA_POOL_ROWS, s->len_q) - 1;
        int64_t keys = p->causal ? last_row + 1 + s->len_k - s->len_q : s->len_k;
        seen[i] = keys > 0 ? (int32_t)cpu_min(cpu_ceil_div(keys, RFA_POOL_ROWS), pools) : 0;
    }
    const float *means = key_pools_of(job, batch, head / (p->heads_q / p->heads_kv));
    job->f32->scores(means, (cpu_block_sizes){pools, p->dim}, scratch->pooled_q, CPU_LANES,
                     scratch->pool_scores);
    job->f32->mask(scratch->pool_scores, pools, CPU_LANES, seen);
    job->f32->maxima(scratch->pool_scores, pools, CPU_LANES, 1, max);
    job->f32->weights(scratch->pool_scores, pools, CPU_LANES, 1, max, scratch->pool_scores, sum);
}

/* Adds the rows' shares of every key block to block_mass. A row that sees
 * nothing, or whose scores are not finite, adds 0. */
static void add_shares(const cpu_job *job, const cpu_sequence *s, int32_t count, int32_t pools,
                       const cpu_scratch *scratch)
{
    int64_t per_block = job->p->block_k / RFA_POOL_ROWS;
    double total[CPU_LANES] = {0};
    for (int64_t n = 0; n < pools; n++) {
        float keys = (float)cpu_min(RFA_POOL_ROWS, s->len_k - n * RFA_POOL_ROWS);
        float *weight = scratch->pool_scores + n * CPU_LANES;
        for (int32_t i = 0; i < CPU_LANES; i++) {
            weight[i] *= keys;
            total[i] += (double)weight[i];
        }
    }
    double inverse[CPU_LANES] = {0};
    for (int32_t i = 0; i < count; i++)
        inverse[i] = total[i] > 0 && total[i] <= DBL_MAX ? 1 / total[i] : 0;
    for (int64_t n = 0; n < pools; n++)
        for (int32_t i = 0; i < count; i++)
            if (inverse[i] > 0)
                scratch->block_mass[n / per_block] +=
                    (double)scratch->pool_scores[n * CPU_LANES + i] * inverse[i];
}

/* ---- The list ------------------------------------------------------------------------------ */

/* Ascending, in place. */
static void heap_sort(uint64_t *keys, int64_t count)
{
    for (int64_t begin = count / 2, end = count; end > 1;) {
        uint64_t key;
        if (begin > 0) {
            key = keys[--begin];
        } else {
            key = keys[--end];
            keys[end] = keys[0];
        }
        int64_t at = begin;
        for (int64_t child; (child = 2 * at + 1) < end; at = child) {
            child += child + 1 < end && keys[child + 1] > keys[child];
            if (keys[child] <= key)
                break;
            keys[at] = keys[child];
        }
        keys[at] = key;
    }
}

/* Sorts by mass, best first, ties to the lower block. Masses are not negative,
 * so that their bits sort as they do. */
static void sort_blocks(int64_t count, const cpu_scratch *scratch)
{
    for (int64_t j = 0; j < count; j++) {
        float mass = (float)scratch->block_mass[j];
        uint32_t bits;
        memcpy(&bits, &mass, sizeof(bits));
        scratch->sort[j] = (uint64_t)~bits << 32 | (uint64_t)j;
    }
    heap_sort(scratch->sort, count);
    for (int64_t i = 0; i < count; i++) {
        uint32_t bits = ~(uint32_t)(scratch->sort[i] >> 32);
        scratch->list[i] = (int32_t)(uint32_t)scratch->sort[i];
        memcpy(&scratch->list_mass[i], &bits, sizeof(bits));
    }
}

int64_t cpu_predicted_list(const cpu_job *job, int64_t batch, int64_t head, int64_t group,
                           const cpu_scratch *scratch)
{
    const rfa_problem *p = job->p;
    const cpu_sequence *s = cpu_sequence_of(job, batch);
    int64_t blocks = rfa_visible_blocks(cpu_shape_of(p, s), (group + 1) * p->visit_q);
    int64_t first = group * (p->visit_q / RFA_POOL_ROWS);
    int64_t end =
        cpu_min(first + p->visit_q / RFA_POOL_ROWS, cpu_ceil_div(s->len_q, RFA_POOL_ROWS));
    int32_t pools = (int32_t)cpu_min(blocks * (p->block_k / RFA_POOL_ROWS),
                                     cpu_ceil_div(s->len_k, RFA_POOL_ROWS));
    memset(scratch->block_mass, 0, (size_t)blocks * sizeof(*scratch->block_mass));
    for (int64_t row = first; row < end && blocks > 0; row += CPU_LANES) {
        int32_t count = (int32_t)cpu_min(CPU_LANES, end - row);
        weigh_pools(job, batch, head, row, count, pools, scratch);
        add_shares(job, s, count, pools, scratch);
    }
    for (int64_t j = 0; j < blocks; j++)
        scratch->block_mass[j] /= (double)(end - first);
    sort_blocks(blocks, scratch);
    return blocks;
}
