/* q = gain * rms(pos u + con rms(x Wq) + noise e), then the rotation; v = x Wv + noise. */
#include "tools/workload_head.h"

#include <math.h>
#include <string.h>

#include "tools/detmath.h"
#include "tools/workload_random.h"

#define SINK_TOKENS 16
#define SINK_KEY_WEIGHT 2.2
#define SINK_QUERY_WEIGHT 0.6
#define SHARED_WEIGHT 0.3 /* of B in A + B and A - B */
#define VALUE_NOISE 0.3

typedef struct recipe {
    double position, content, noise, gain;
} recipe;

static const recipe recipes[WORKLOAD_KINDS] = {
    [WORKLOAD_LOCAL] = {1.0, 0.35, 0.25, 1.30}, [WORKLOAD_OBJECT] = {0.15, 1.0, 0.3, 1.25},
    [WORKLOAD_MIXED] = {0.5, 0.8, 0.4, 1.10},   [WORKLOAD_DIFFUSE] = {0.2, 0.5, 0.8, 0.85},
    [WORKLOAD_SINK] = {0.4, 0.6, 0.4, 1.10},
};

/* ---- Rotary embedding ---------------------------------------------------------- */

void rotary_init(rotary *r, int32_t dim)
{
    const double log_base = 9.210340371976184; /* ln 10000 */
    const double turns_per_radian = 0.15915494309189535;
    int side = 2 * (dim / 6);
    int axis_dims[3] = {dim - 2 * side, side, side};
    int first = 0;
    r->pairs = 0;
    for (int axis = 0; axis < 3; axis++) {
        for (int i = 0; i < axis_dims[axis] / 2; i++) {
            double exponent = -2.0 * (double)i / (double)axis_dims[axis];
            r->first_dim[r->pairs] = first + 2 * i;
            r->axis[r->pairs] = axis;
            r->turns[r->pairs] = det_exp(exponent * log_base) * turns_per_radian;
            r->pairs++;
        }
        first += axis_dims[axis];
    }
}

static void rotary_of_token(const rotary *r, const int64_t index[3], double *cosine, double *sine)
{
    for (int i = 0; i < r->pairs; i++)
        det_sincos_turns((double)index[r->axis[i]] * r->turns[i], &sine[i], &cosine[i]);
}

static void rotate(const rotary *r, const double *cosine, const double *sine, double *row)
{
    for (int i = 0; i < r->pairs; i++) {
        double *pair = row + r->first_dim[i];
        double x = pair[0], y = pair[1];
        pair[0] = x * cosine[i] - y * sine[i];
        pair[1] = x * sine[i] + y * cosine[i];
    }
}

/* ---- Tokens ------------------------------------------------------------------------ */

void head_batch_init(head_batch *batch, const scene *s, const rotary *r, int64_t first_token,
                     int count)
{
    const int64_t *grid = s->grid;
    batch->first_token = first_token;
    batch->count = count;
    memset(batch->x, 0, sizeof(batch->x));
    for (int i = 0; i < count; i++) {
        int64_t token = first_token + i;
        int64_t index[3] = {token / (grid[1] * grid[2]), token / grid[2] % grid[1],
                            token % grid[2]};
        scene_features(s, token, batch->x[i]);
        rotary_of_token(r, index, batch->cosine[i], batch->sine[i]);
    }
}

/* ---- Heads --------------------------------------------------------------------------- */

size_t head_matrix_size(int32_t dim)
{
    size_t columns = ((size_t)dim + HEAD_COLUMNS - 1) / HEAD_COLUMNS * HEAD_COLUMNS;
    return SCENE_CHANNELS * columns;
}

static random_stream stream_of(const workload_head *h, random_purpose purpose, uint64_t row)
{
    random_stream stream = {h->spec->seed, purpose, (uint32_t)h->index, row};
    return stream;
}

static void matrix_init(workload_head *h)
{
    const double deviation = 0.125; /* sqrt(1/64) */
    size_t dim = (size_t)h->spec->dim;
    double sign = h->which == WORKLOAD_Q ? SHARED_WEIGHT : -SHARED_WEIGHT;
    double b[WORKLOAD_MAX_DIM];
    for (uint64_t c = 0; c < SCENE_CHANNELS; c++) {
        double *row = h->matrix + c * (size_t)h->columns;
        memset(row, 0, (size_t)h->columns * sizeof(double));
        if (h->which == WORKLOAD_V) {
            random_normals(stream_of(h, RANDOM_MATRIX_V, c), dim, row);
        } else {
            random_normals(stream_of(h, RANDOM_MATRIX_A, c), dim, row);
            random_normals(stream_of(h, RANDOM_MATRIX_B, c), dim, b);
            for (size_t d = 0; d < dim; d++)
                row[d] += sign * b[d];
        }
        for (size_t d = 0; d < dim; d++)
            row[d] *= deviation;
    }
}

void head_init(workload_head *h)
{
    size_t dim = (size_t)h->spec->dim;
    h->kind = workload_head_kind(h->spec, h->index);
    h->columns = (int32_t)(head_matrix_size(h->spec->dim) / SCENE_CHANNELS);
    random_normals(stream_of(h, RANDOM_POSITION_VECTOR, 0), dim, h->vector);
    random_normals(stream_of(h, RANDOM_SINK_VECTOR, 0), dim, h->sink);
    matrix_init(h);
}

/* ---- Rows ------------------------------------------------------------------------------ */

/* Every element is summed over the channels in order; the tile is as large as
 * the registers of a plain x86-64 hold. */
static void multiply_tile(const double (*x)[SCENE_CHANNELS], const double *matrix, int columns,
                          double (*rows)[WORKLOAD_MAX_DIM])
{
    double sum[4][HEAD_COLUMNS] = {{0}};
    for (int c = 0; c < SCENE_CHANNELS; c++)
        for (int i = 0; i < 4; i++)
            for (int d = 0; d < HEAD_COLUMNS; d++)
                sum[i][d] += x[i][c] * matrix[c * columns + d];
    for (int i = 0; i < 4; i++)
        memcpy(rows[i], sum[i], sizeof(sum[i]));
}

static void multiply(const workload_head *h, const head_batch *batch,
                     double rows[][WORKLOAD_MAX_DIM])
{
    const double(*x)[SCENE_CHANNELS] = (const double(*)[SCENE_CHANNELS])batch->x;
    for (int d = 0; d < h->columns; d += HEAD_COLUMNS)
        for (int i = 0; i < batch->count; i += 4)
            multiply_tile(x + i, h->matrix + d, h->columns,
                          (double(*)[WORKLOAD_MAX_DIM]) & rows[i][d]);
}

/* row *= scale / rms(row). Four partial sums, so that the order is fixed and the
 * adds need not wait for each other. */
static void normalise(double *row, int32_t dim, double scale)
{
    double sum[4] = {0};
    int32_t d = 0;
    for (; d + 4 <= dim; d += 4)
        for (int lane = 0; lane < 4; lane++)
            sum[lane] += row[d + lane] * row[d + lane];
    for (; d < dim; d++)
        sum[d % 4] += row[d] * row[d];
    double mean = ((sum[0] + sum[1]) + (sum[2] + sum[3])) / (double)dim;
    double factor = mean > 0 ? scale / sqrt(mean) : 0;
    for (d = 0; d < dim; d++)
        row[d] *= factor;
}

static void value_row(const workload_head *h, int64_t token, double *row)
{
    double noise[WORKLOAD_MAX_DIM];
    random_normals(stream_of(h, RANDOM_NOISE_V, (uint64_t)token), (size_t)h->spec->dim, noise);
    for (int32_t d = 0; d < h->spec->dim; d++)
        row[d] += VALUE_NOISE * noise[d];
}

static void query_or_key_row(const workload_head *h, const head_batch *batch, int i, double *row)
{
    const recipe *r = &recipes[h->kind];
    int32_t dim = h->spec->dim;
    int64_t token = batch->first_token + i;
    random_purpose purpose = h->which == WORKLOAD_Q ? RANDOM_NOISE_Q : RANDOM_NOISE_K;
    double noise[WORKLOAD_MAX_DIM];
    random_normals(stream_of(h, purpose, (uint64_t)token), (size_t)dim, noise);

    normalise(row, dim, r->content);
    for (int32_t d = 0; d < dim; d++)
        row[d] += r->position * h->vector[d] + r->noise * noise[d];
    normalise(row, dim, r->gain);
    rotate(h->turn, batch->cosine[i], batch->sine[i], row);

    double sink = h->which == WORKLOAD_Q ? SINK_QUERY_WEIGHT : SINK_KEY_WEIGHT;
    if (h->kind == WORKLOAD_SINK && (h->which == WORKLOAD_Q || token < SINK_TOKENS))
        for (int32_t d = 0; d < dim; d++)
            row[d] += sink * h->sink[d];
}

void head_rows(const workload_head *h, const head_batch *batch, double rows[][WORKLOAD_MAX_DIM])
{
    multiply(h, batch, rows);
    for (int i = 0; i < batch->count; i++) {
        if (h->which == WORKLOAD_V)
            value_row(h, batch->first_token + i, rows[i]);
        else
            query_or_key_row(h, batch, i, rows[i]);
    }
}
