/* Memory of one decision block's walk. */
#include <stdlib.h>
#include <string.h>

#include "oracle_internal.h"

static bool allocate_scratch(const rfa_problem *p, bool want_block_mass, oracle_scratch *s)
{
    s->rows = oracle_min(p->block_q, p->len_q);
    s->keys = lanes_round_up(oracle_min(p->block_k, p->len_k));
    s->dim_v = lanes_round_up(p->dim_v);
    s->row = oracle_array(s->rows, 1, sizeof(*s->row));
    s->element = oracle_array(p->dim > p->dim_v ? p->dim : p->dim_v, 1, sizeof(*s->element));
    s->q = oracle_array(s->rows, p->dim, sizeof(*s->q));
    s->k = oracle_array(s->keys, p->dim, sizeof(*s->k));
    s->v = oracle_array(s->keys, s->dim_v, sizeof(*s->v));
    s->v_size = oracle_array(s->keys, 1, sizeof(*s->v_size));
    s->weight = oracle_array(s->rows, s->keys, sizeof(*s->weight));
    s->acc = oracle_array(s->rows, s->dim_v, sizeof(*s->acc));
    s->rest = oracle_array(p->blocks_k, 1, sizeof(*s->rest));
    s->share = want_block_mass ? oracle_array(p->blocks_k, s->rows, sizeof(*s->share)) : NULL;
    s->q32 = oracle_array(s->rows, p->dim, sizeof(*s->q32));
    s->k32 = oracle_array(s->keys, p->dim, sizeof(*s->k32));
    s->v32 = oracle_array(s->keys, s->dim_v, sizeof(*s->v32));
    s->weight32 = oracle_array(s->rows, s->keys, sizeof(*s->weight32));
    s->acc32 = oracle_array(s->rows, s->dim_v, sizeof(*s->acc32));
    s->row_max32 = oracle_array(s->rows, 1, sizeof(*s->row_max32));
    s->row_sum32 = oracle_array(s->rows, 1, sizeof(*s->row_sum32));
    return s->row && s->element && s->q && s->k && s->v && s->v_size && s->weight && s->acc &&
           s->rest && (s->share || !want_block_mass) && s->q32 && s->k32 && s->v32 && s->weight32 &&
           s->acc32 && s->row_max32 && s->row_sum32;
}

static void free_scratch(oracle_scratch *s)
{
    free(s->row);
    free(s->element);
    free(s->q);
    free(s->k);
    free(s->v);
    free(s->v_size);
    free(s->weight);
    free(s->acc);
    free(s->rest);
    free(s->share);
    free(s->q32);
    free(s->k32);
    free(s->v32);
    free(s->weight32);
    free(s->acc32);
    free(s->row_max32);
    free(s->row_sum32);
    free(s);
}

rfa_status oracle_block_alloc(const oracle *o, bool want_block_mass, oracle_block *block,
                              rfa_error *err)
{
    const rfa_problem *p = o->p;
    int64_t rows = oracle_min(p->block_q, p->len_q);
    memset(block, 0, sizeof(*block));
    block->words = oracle_ceil_div(p->blocks_k, 32);
    block->row = oracle_array(rows, 1, sizeof(*block->row));
    block->out = oracle_array(rows, p->dim_v, sizeof(*block->out));
    block->lse = oracle_array(rows, 1, sizeof(*block->lse));
    block->recall = oracle_array(rows, 1, sizeof(*block->recall));
    block->recall_exact = oracle_array(rows, 1, sizeof(*block->recall_exact));
    block->rounding = oracle_array(rows, 1, sizeof(*block->rounding));
    block->spread = oracle_array(rows, 1, sizeof(*block->spread));
    block->followed = oracle_array(block->words, 1, sizeof(*block->followed));
    block->derived = oracle_array(block->words, 1, sizeof(*block->derived));
    block->unsure = oracle_array(block->words, 1, sizeof(*block->unsure));
    block->scratch = oracle_array(1, 1, sizeof(oracle_scratch));
    if (want_block_mass)
        block->block_mass = oracle_array(p->blocks_k, 1, sizeof(*block->block_mass));
    if (block->row && block->out && block->lse && block->recall && block->recall_exact &&
        block->rounding && block->spread && block->followed && block->derived && block->unsure &&
        block->scratch && (block->block_mass || !want_block_mass) &&
        allocate_scratch(p, want_block_mass, block->scratch))
        return RFA_OK;
    oracle_block_free(block);
    return rfa_fail(err, RFA_OUT_OF_MEMORY, "no memory to walk blocks of %d queries and %d keys",
                    (int)p->block_q, (int)p->block_k);
}

void oracle_block_free(oracle_block *block)
{
    free(block->row);
    free(block->out);
    free(block->lse);
    free(block->recall);
    free(block->recall_exact);
    free(block->rounding);
    free(block->spread);
    free(block->followed);
    free(block->derived);
    free(block->unsure);
    free(block->block_mass);
    if (block->scratch)
        free_scratch(block->scratch);
    memset(block, 0, sizeof(*block));
}
