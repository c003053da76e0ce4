/* Merging partial results by their lse, row by row, in float64. */
#include "convert.h"
#include "cpu.h"

static float read_element(const char *row, rfa_dtype dtype, int64_t d)
{
    switch (dtype) {
    case RFA_F16: return cpu_from_half(((const uint16_t *)row)[d]);
    case RFA_BF16: return cpu_from_bf16(((const uint16_t *)row)[d]);
    default: return ((const float *)row)[d];
    }
}

static void write_element(char *row, rfa_dtype dtype, int64_t d, float x)
{
    switch (dtype) {
    case RFA_F16: ((uint16_t *)row)[d] = cpu_to_half(x); break;
    case RFA_BF16: ((uint16_t *)row)[d] = cpu_to_bf16(x); break;
    default: ((float *)row)[d] = x;
    }
}

/* What the parts' rows weigh: weight[i] = exp(lse_i - max), their sum, the merged lse. */
typedef struct row_weights {
    double weight[RFA_MAX_MERGE_PARTS];
    double sum, lse, recall;
} row_weights;

static float row_number(const rfa_view *view, int64_t batch, int64_t head, int64_t row)
{
    return *(const float *)cpu_at(view, sizeof(float), batch, head, row);
}

static void weigh_parts(const rfa_merge_problem *p, int64_t batch, int64_t head, int64_t row,
                        row_weights *w)
{
    double max = -INFINITY, mass = 0;
    for (size_t i = 0; i < p->parts; i++) {
        w->weight[i] = (double)row_number(&p->part_lse[i], batch, head, row);
        max = w->weight[i] <= max ? max : w->weight[i]; /* a NaN goes on */
        if (isnan(max))
            break;
    }
    w->sum = 0;
    w->recall = 1;
    w->lse = max;
    if (max == -INFINITY)
        return;
    for (size_t i = 0; i < p->parts; i++) {
        w->weight[i] = exp((double)row_number(&p->part_lse[i], batch, head, row) - max);
        w->sum += w->weight[i];
        if (p->recall.data && w->weight[i] != 0)
            mass += w->weight[i] / (double)row_number(&p->part_recall[i], batch, head, row);
    }
    w->lse = max + log(w->sum);
    if (p->recall.data)
        w->recall = w->sum / mass;
}

/* Every number of the row is read before it is written: the output may be the
 * first part. */
static void merge_row(const rfa_merge_problem *p, int64_t batch, int64_t head, int64_t row)
{
    row_weights w;
    size_t size = cpu_size_of(p->dtype);
    char *out = cpu_at(&p->out, cpu_size_of(p->out_dtype), batch, head, row);
    weigh_parts(p, batch, head, row, &w);
    for (int64_t d = 0; d < p->dim; d++) {
        double sum = 0;
        for (size_t i = 0; i < p->parts && w.sum != 0; i++)
            if (w.weight[i] != 0) /* an empty part's output means nothing; NOLINT: it is set */
                sum += w.weight[i] *
                       (double)read_element(cpu_at(&p->part_out[i], size, batch, head, row),
                                            p->dtype, d);
        write_element(out, p->out_dtype, d, w.sum == 0 ? 0 : (float)(sum / w.sum));
    }
    if (p->lse.data)
        *(float *)cpu_at(&p->lse, sizeof(float), batch, head, row) = (float)w.lse;
    if (p->recall.data)
        *(float *)cpu_at(&p->recall, sizeof(float), batch, head, row) = (float)w.recall;
}

rfa_status cpu_merge(const cpu_state *state, const rfa_merge_problem *p, rfa_error *err)
{
    int64_t rows = p->batch * p->heads * p->len;
    (void)state;
    (void)err;
#ifdef _OPENMP
#pragma omp parallel for num_threads(state->threads)
#endif
    for (int64_t i = 0; i < rows; i++)
        merge_row(p, i / p->len / p->heads, i / p->len % p->heads, i % p->len);
    return RFA_OK;
}
