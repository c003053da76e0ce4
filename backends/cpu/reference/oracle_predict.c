/* Masses that the `predicted` order sorts by, from means of RFA_POOL_ROWS tokens. */
#include <stdlib.h>
#include <string.h>

#include "oracle_internal.h"

typedef struct pools {
    int64_t count_q, count_k; /* pools */
    double *q;                /* [count_q][dim] */
    double *k;                /* [count_k / LANES][dim][LANES] */
    double *score;            /* [count_k]: logits of one pooled row, then exponentials */
    double *share;            /* [blocks_k]: sums of one group */
    float *element;
} pools;

typedef void load_fn(const oracle *o, int64_t batch, int64_t head, int64_t position, float *row);

static int64_t pool_size(int64_t pool, int64_t len)
{
    return oracle_min(RFA_POOL_ROWS, len - pool * RFA_POOL_ROWS);
}

/* Means of `len` tokens; element i of pool n goes to `to` where the layout has it. */
static void pool_tokens(const oracle *o, int64_t batch, int64_t head, load_fn *load, int64_t len,
                        double *to, bool in_lanes, float *element)
{
    int64_t dim = o->p->dim, step = in_lanes ? LANES : 1;
    for (int64_t n = 0; n * RFA_POOL_ROWS < len; n++) {
        double *mean = in_lanes ? to + n / LANES * LANES * dim + n % LANES : to + n * dim;
        for (int64_t i = 0; i < pool_size(n, len); i++) {
            load(o, batch, head, n * RFA_POOL_ROWS + i, element);
            for (int64_t d = 0; d < dim; d++)
                mean[d * step] += element[d];
        }
        for (int64_t d = 0; d < dim; d++)
            mean[d * step] /= (double)pool_size(n, len);
    }
}

static void pooled_logits(const rfa_problem *p, const pools *pool, const double *q, int64_t count)
{
    double dot[LANES], size[LANES];
    for (int64_t n = 0; n < count; n += LANES) {
        lanes_dot(dot, size, q, pool->k + n * p->dim, p->dim);
        for (int64_t i = n; i < oracle_min(count, n + LANES); i++)
            pool->score[i] = p->scale * dot[i - n];
    }
}

/* Adds one pooled row's share of each key block to pool->share. A row that sees
 * nothing, or whose scores are not finite, adds 0. */
static void add_pooled_row(const rfa_problem *p, const oracle_sequence *s, const pools *pool,
                           int64_t n)
{
    int64_t last_row = oracle_min((n + 1) * RFA_POOL_ROWS, s->len_q) - 1;
    int64_t count = oracle_ceil_div(oracle_seen_keys(p, s, last_row), RFA_POOL_ROWS);
    double max = -INFINITY, sum = 0;
    pooled_logits(p, pool, pool->q + n * p->dim, count);
    for (int64_t i = 0; i < count; i++)
        max = larger(max, pool->score[i]);
    for (int64_t i = 0; i < count; i++) {
        pool->score[i] = exp(pool->score[i] - max) * (double)pool_size(i, s->len_k);
        sum += pool->score[i];
    }
    if (!(sum > 0 && isfinite(sum)))
        return;
    for (int64_t i = 0; i < count; i++)
        pool->share[i * RFA_POOL_ROWS / p->block_k] += pool->score[i] / sum;
}

static void predict_groups(const oracle *o, const oracle_sequence *s, const pools *pool,
                           float *masses)
{
    const rfa_problem *p = o->p;
    int64_t group_pools = oracle_ceil_div(p->visit_q, RFA_POOL_ROWS);
    for (int64_t g = 0; g < s->groups; g++) {
        int64_t first = g * group_pools, end = oracle_min(first + group_pools, pool->count_q);
        memset(pool->share, 0, (size_t)s->blocks_k * sizeof(*pool->share));
        for (int64_t n = first; n < end; n++)
            add_pooled_row(p, s, pool, n);
        for (int64_t j = 0; j < s->blocks_k; j++)
            masses[g * p->blocks_k + j] = (float)(pool->share[j] / (double)(end - first));
    }
}

rfa_status oracle_predict(const oracle *o, int64_t batch, int64_t head, float *masses,
                          rfa_error *err)
{
    const rfa_problem *p = o->p;
    const oracle_sequence *s = oracle_sequence_of(o, batch);
    pools pool = {.count_q = oracle_ceil_div(s->len_q, RFA_POOL_ROWS),
                  .count_k = oracle_ceil_div(s->len_k, RFA_POOL_ROWS)};
    rfa_status status = RFA_OK;
    pool.q = oracle_array(pool.count_q, p->dim, sizeof(*pool.q));
    pool.k = oracle_array(lanes_round_up(pool.count_k), p->dim, sizeof(*pool.k));
    pool.score = oracle_array(pool.count_k, 1, sizeof(*pool.score));
    pool.share = oracle_array(s->blocks_k, 1, sizeof(*pool.share));
    pool.element = oracle_array(p->dim, 1, sizeof(*pool.element));
    if (pool.q && pool.k && pool.score && pool.share && pool.element) {
        pool_tokens(o, batch, head, oracle_load_q, s->len_q, pool.q, false, pool.element);
        pool_tokens(o, batch, head, oracle_load_k, s->len_k, pool.k, true, pool.element);
        predict_groups(o, s, &pool, masses);
    } else {
        status = rfa_fail(err, RFA_OUT_OF_MEMORY, "no memory for %lld pooled queries, %lld keys",
                          (long long)pool.count_q, (long long)pool.count_k);
    }
    free(pool.q);
    free(pool.k);
    free(pool.score);
    free(pool.share);
    free(pool.element);
    return status;
}
