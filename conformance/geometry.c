/* Sequences, blocks and ranges, by the sizes alone: written apart from the
 * oracle, so that the two check each other. */
#include "conformance/check_internal.h"

static int64_t clamp(int64_t x, int64_t low, int64_t high)
{
    return x < low ? low : x > high ? high : x;
}

static const int32_t *offsets(const rfa_view *view)
{
    return (const int32_t *)((const char *)view->data + view->byte_offset);
}

static bool sensible(const int32_t *cu, int64_t total, int64_t longest)
{
    return cu[0] >= 0 && cu[1] >= cu[0] && cu[1] <= total && cu[1] - (int64_t)cu[0] <= longest;
}

static bool grid_fits(const rfa_grid *grids, size_t count, int64_t batch, int64_t len)
{
    rfa_cubes cubes = rfa_problem_cubes(grids, count, batch);
    return cubes.size[0] == 0 ||
           cubes.offset + cubes.size[0] * cubes.size[1] * cubes.size[2] <= len;
}

check_sequence check_sequence_of(const rfa_problem *p, int64_t batch)
{
    if (!p->packed)
        return (check_sequence){.len_q = p->len_q, .len_k = p->len_k};
    const int32_t *cu_q = offsets(&p->cu_q) + batch, *cu_k = offsets(&p->cu_k) + batch;
    if (!sensible(cu_q, p->total_q, p->len_q) || !sensible(cu_k, p->total_k, p->len_k))
        return (check_sequence){.bad = true};
    if (!grid_fits(p->grids_q, p->grid_count, batch, cu_q[1] - cu_q[0]) ||
        !grid_fits(p->grids_k, p->grid_count, batch, cu_k[1] - cu_k[0]))
        return (check_sequence){.bad = true};
    return (check_sequence){.len_q = cu_q[1] - cu_q[0],
                            .len_k = cu_k[1] - cu_k[0],
                            .first_q = cu_q[0],
                            .first_k = cu_k[0]};
}

int64_t check_rows(const rfa_problem *p, const check_sequence *s, int64_t q_block)
{
    return clamp(s->len_q - q_block * p->block_q, 0, p->block_q);
}

int64_t check_unmasked(const rfa_problem *p, const check_sequence *s, int64_t q_block)
{
    int64_t rows = check_rows(p, s, q_block), keys = s->len_k;
    if (rows == 0)
        return 0;
    if (p->causal)
        keys = clamp(q_block * p->block_q + rows + s->len_k - s->len_q, 0, s->len_k);
    return (keys + p->block_k - 1) / p->block_k;
}

static bool in_ranges(const rfa_range *ranges, int32_t count, int64_t token)
{
    for (int32_t i = 0; i < count; i++)
        if (token >= ranges[i].begin && token < ranges[i].end)
            return true;
    return false;
}

static bool touched(const rfa_range *ranges, int32_t count, rfa_cubes cubes, int64_t begin,
                    int64_t end)
{
    for (int64_t i = begin; count > 0 && i < end; i++)
        if (in_ranges(ranges, count, rfa_caller_position(cubes, i)))
            return true;
    return false;
}

bool check_key_block_kept(const rfa_problem *p, const check_sequence *s, int64_t batch,
                          int64_t k_block)
{
    int64_t begin = k_block * p->block_k, end = clamp(begin + p->block_k, 0, s->len_k);
    return touched(p->keep_keys, p->keep_key_count,
                   rfa_problem_cubes(p->grids_k, p->grid_count, batch), begin, end);
}

bool check_q_block_dense(const rfa_problem *p, const check_sequence *s, int64_t batch,
                         int64_t q_block)
{
    int64_t begin = q_block * p->block_q;
    return touched(p->dense_queries, p->dense_query_count,
                   rfa_problem_cubes(p->grids_q, p->grid_count, batch), begin,
                   begin + check_rows(p, s, q_block));
}
