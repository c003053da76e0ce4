/* Bounds of the rounding error in f32 logits: 2^-24 |q| |k| scale. */
#include <math.h>
#include <stdlib.h>

#include "conformance/check_internal.h"
#include "conformance/element.h"

/* Elements that are not finite are left out: rows that see them are not judged. */
double check_row_norm(const rfa_view *view, rfa_dtype dtype, int32_t dim, int64_t batch,
                      int64_t head, int64_t row)
{
    size_t size = element_size(dtype);
    const char *data = view_row(view, size, batch, head, row);
    double sum = 0;
    for (int32_t d = 0; d < dim; d++) {
        double x = element_load(dtype, data + (size_t)d * size);
        sum += isfinite(x) ? x * x : 0;
    }
    return sqrt(sum);
}

static double largest_norm(const rfa_problem *p, const rfa_view *view, int64_t batch, int64_t head,
                           int64_t first, int64_t rows)
{
    double largest = 0;
    for (int64_t row = first; row < first + rows; row++)
        largest = fmax(largest, check_row_norm(view, p->dtype, p->dim, batch, head, row));
    return largest;
}

rfa_status check_norms(check *c, rfa_error *err)
{
    const rfa_problem *p = c->p;
    int64_t heads = p->heads_q, heads_kv = p->heads_kv;
    c->query_norm = calloc((size_t)(p->batch * heads), sizeof(double));
    c->key_norm = calloc((size_t)(p->batch * heads_kv), sizeof(double));
    if (!c->query_norm || !c->key_norm)
        return rfa_fail(err, RFA_OUT_OF_MEMORY, "no memory for the norms of %lld heads",
                        (long long)(p->batch * (heads + heads_kv)));
#pragma omp parallel for schedule(dynamic)
    for (int64_t i = 0; i < p->batch * (heads + heads_kv); i++) {
        int64_t batch = i / (heads + heads_kv), head = i % (heads + heads_kv);
        check_sequence s = check_sequence_of(p, batch);
        if (head < heads)
            c->query_norm[batch * heads + head] =
                largest_norm(p, &p->q, batch, head, s.first_q, s.len_q);
        else
            c->key_norm[batch * heads_kv + head - heads] =
                largest_norm(p, &p->k, batch, head - heads, s.first_k, s.len_k);
    }
    return RFA_OK;
}

double check_logit_error(const check *c, int64_t batch, int64_t head, double q_norm)
{
    const rfa_problem *p = c->p;
    int64_t head_kv = head / (p->heads_q / p->heads_kv);
    return 0x1p-24 * q_norm * c->key_norm[batch * p->heads_kv + head_kv] * fabs((double)p->scale);
}
