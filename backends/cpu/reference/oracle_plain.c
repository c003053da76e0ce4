/* A plain implementation in f32 of what the walk kept: the measure of how far
 * off f32 may be. Every sum goes in order of its index. */
#include <string.h>

#include "oracle_internal.h"

typedef struct plain {
    const oracle *o;
    const rfa_problem *p;
    const oracle_sequence *sequence;
    oracle_scratch *scratch;
    int64_t batch, head, first_row, rows;
} plain;

static void load_queries(plain *a)
{
    for (int64_t r = 0; r < a->rows; r++) {
        oracle_load_q(a->o, a->batch, a->head, a->first_row + r, a->scratch->q32 + r * a->p->dim);
        a->scratch->row_max32[r] = -INFINITY;
        a->scratch->row_sum32[r] = 0;
    }
}

/* Logits of key block j: weight32, and how many keys each row sees. */
static void score_block(plain *a, int64_t j)
{
    oracle_scratch *s = a->scratch;
    int64_t dim = a->p->dim, first = j * a->p->block_k;
    int64_t count = oracle_min(a->p->block_k, a->sequence->len_k - first);
    for (int64_t c = 0; c < count; c++) {
        oracle_load_k(a->o, a->batch, a->head, first + c, s->element);
        for (int64_t i = 0; i < dim; i++)
            s->k32[(c / LANES * dim + i) * LANES + c % LANES] = s->element[i];
    }
    for (int64_t r = 0; r < a->rows; r++) {
        int64_t seen = oracle_seen_keys(a->p, a->sequence, a->first_row + r) - first;
        s->row[r].seen = seen < 0 ? 0 : oracle_min(seen, count);
        for (int64_t c = 0; c < s->row[r].seen; c += LANES) {
            float dot[LANES] = {0};
            lanes_add_f32(dot, s->q32 + r * dim, s->k32 + c * dim, dim);
            for (int64_t i = 0; i < LANES; i++)
                s->weight32[r * s->keys + c + i] = a->p->scale * dot[i];
        }
    }
}

static void take_max(plain *a)
{
    oracle_scratch *s = a->scratch;
    for (int64_t r = 0; r < a->rows; r++) {
        for (int64_t c = 0; c < s->row[r].seen; c++)
            s->row_max32[r] = (float)larger(s->row_max32[r], s->weight32[r * s->keys + c]);
    }
}

static void add_values(plain *a, int64_t j, rfa_dtype weights)
{
    oracle_scratch *s = a->scratch;
    int64_t first = j * a->p->block_k;
    int64_t count = oracle_min(a->p->block_k, a->sequence->len_k - first);
    for (int64_t c = 0; c < count; c++) {
        oracle_load_v(a->o, a->batch, a->head, first + c, s->element);
        for (int64_t d = 0; d < a->p->dim_v; d++)
            s->v32[(d / LANES * s->keys + c) * LANES + d % LANES] = s->element[d];
    }
    for (int64_t r = 0; r < a->rows; r++) {
        float *weight = s->weight32 + r * s->keys;
        for (int64_t c = 0; c < s->row[r].seen; c++) {
            float x = s->row_max32[r] == -INFINITY ? 0 : expf(weight[c] - s->row_max32[r]);
            s->row_sum32[r] += x;
            weight[c] = round_to_dtype(weights, x);
        }
        for (int64_t d = 0; d < s->dim_v; d += LANES)
            lanes_add_f32(s->acc32 + r * s->dim_v + d, weight, s->v32 + d * s->keys,
                          s->row[r].seen);
    }
}

void oracle_plain(const oracle *o, int64_t batch, int64_t head, int64_t index, rfa_dtype weights,
                  const oracle_block *block, float *out)
{
    oracle_scratch *s = block->scratch;
    plain a = {.o = o,
               .p = o->p,
               .sequence = oracle_sequence_of(o, batch),
               .scratch = s,
               .batch = batch,
               .head = head,
               .first_row = index * o->p->block_q,
               .rows = block->rows};
    load_queries(&a);
    memset(s->acc32, 0, (size_t)(s->rows * s->dim_v) * sizeof(*s->acc32));
    for (int pass = 0; pass < 2; pass++) {
        for (int64_t j = 0; j < o->p->blocks_k; j++) {
            if (!(block->followed[j / 32] >> (j % 32) & 1))
                continue;
            score_block(&a, j);
            if (pass == 0)
                take_max(&a);
            else
                add_values(&a, j, weights);
        }
    }
    for (int64_t r = 0; r < a.rows; r++)
        for (int64_t d = 0; d < o->p->dim_v; d++)
            out[r * o->p->dim_v + d] =
                s->row_sum32[r] == 0 ? 0 : s->acc32[r * s->dim_v + d] / s->row_sum32[r];
}
