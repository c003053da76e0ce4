/* Merging partial results through their lse, in float64. */
#include "convert.h"
#include "mass.h"
#include "reference.h"

enum { MAX_DIM = 256 };

typedef struct row_weights {
    double weight[RFA_MAX_MERGE_PARTS]; /* share of the merged mass */
    double lse, recall;
} row_weights;

static double read_float(const rfa_view *view, int64_t batch, int64_t head, int64_t row)
{
    return *(const float *)view_at(view, sizeof(float), batch, head, row);
}

static row_weights weigh_parts(const rfa_merge_problem *p, int64_t batch, int64_t head, int64_t row)
{
    row_weights w = {.recall = 1};
    double max = -INFINITY, kept = 0, all = 0;
    for (size_t i = 0; i < p->parts; i++)
        max = larger(max, read_float(&p->part_lse[i], batch, head, row));
    for (size_t i = 0; i < p->parts; i++) {
        double lse = read_float(&p->part_lse[i], batch, head, row);
        w.weight[i] = lse == -INFINITY ? 0 : exp(lse - max);
        kept += w.weight[i];
        if (p->recall.data && w.weight[i] != 0)
            all += w.weight[i] / read_float(&p->part_recall[i], batch, head, row);
    }
    w.lse = kept == 0 ? -INFINITY : max + log(kept);
    for (size_t i = 0; i < p->parts && kept != 0; i++)
        w.weight[i] /= kept;
    if (all != 0)
        w.recall = kept / all;
    return w;
}

/* Reads all of a row's parts before it writes: outputs may be the first part. */
static void merge_row(const rfa_merge_problem *p, int64_t batch, int64_t head, int64_t row)
{
    row_weights w = weigh_parts(p, batch, head, row);
    double out[MAX_DIM] = {0};
    float part[MAX_DIM];
    for (size_t i = 0; i < p->parts; i++) {
        if (w.weight[i] == 0)
            continue;
        const rfa_view *view = &p->part_out[i];
        load_row(part, p->dtype, view_at(view, element_size(p->dtype), batch, head, row), p->dim);
        for (int32_t d = 0; d < p->dim; d++)
            out[d] += w.weight[i] * part[d];
    }
    store_row(view_at(&p->out, element_size(p->out_dtype), batch, head, row), p->out_dtype, out,
              p->dim);
    if (p->lse.data)
        *(float *)view_at(&p->lse, sizeof(float), batch, head, row) = (float)w.lse;
    if (p->recall.data)
        *(float *)view_at(&p->recall, sizeof(float), batch, head, row) = (float)w.recall;
}

rfa_status reference_merge(void *state, const rfa_merge_problem *p, rfa_error *err)
{
    const reference_state *context = state;
    int64_t rows = p->batch * p->heads * p->len;
    (void)err;
    (void)context;
#ifdef _OPENMP
#pragma omp parallel for schedule(static) num_threads(context->threads)
#endif
    for (int64_t i = 0; i < rows; i++)
        merge_row(p, i / p->len / p->heads, i / p->len % p->heads, i % p->len);
    return RFA_OK;
}
