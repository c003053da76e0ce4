/* Compiled once per instruction set, with RFA_CPU_ISA_NAME.
 *
 * Both matrix products are one routine: a block of TILE_ROWS x TILE_VECTORS
 * accumulators stays in registers while it walks the summed dimension; each
 * step loads TILE_VECTORS vectors of lanes and TILE_ROWS scalars. Sums start at
 * zero for every key block and join the output with one multiply-add, which
 * also applies the online softmax's decay.
 *
 * Lanes over keys instead, with q as the scalars, was not taken: it needs k
 * transposed once per tile and a horizontal max and sum for every row.
 */
#include "kernels.h"

#include <math.h>

#include "vexp.h"

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#define TEXT_(a) #a
#define TEXT(a) TEXT_(a)

/* Register tiles: accumulators + lane vectors + one scalar fit the register file
 * (32, 16, 32 and, elsewhere, 16), and there are enough independent chains to
 * hide the latency of a multiply-add. 5 x 4 and 6 x 4 were no faster on AVX-512. */
#if defined(__AVX512F__)
enum { VECTOR = 16, TILE_VECTORS = 4, TILE_ROWS = 4 };
#elif defined(__AVX2__)
enum { VECTOR = 8, TILE_VECTORS = 2, TILE_ROWS = 6 };
#elif defined(__aarch64__)
enum { VECTOR = 4, TILE_VECTORS = 4, TILE_ROWS = 4 };
#else
enum { VECTOR = 4, TILE_VECTORS = 2, TILE_ROWS = 4 };
#endif

typedef float vector __attribute__((vector_size(VECTOR * sizeof(float)), may_alias));

#define INLINE static inline __attribute__((always_inline))

/* ---- Panels --------------------------------------------------------------------- */

static int32_t panel_width(int32_t lanes, int32_t lane)
{
    return lanes - lane < CPU_PANEL ? lanes - lane : CPU_PANEL;
}

/* ---- Rows to f32 ---------------------------------------------------------------- */

static void load_row(const char *from, rfa_dtype dtype, int32_t dim, float *restrict to)
{
    const uint16_t *restrict narrow = (const uint16_t *)from;
    if (dtype == RFA_F32)
        memcpy(to, from, (size_t)dim * sizeof(*to));
    else if (dtype == RFA_F16)
        for (int32_t d = 0; d < dim; d++)
            to[d] = cpu_from_half(narrow[d]);
    else
        for (int32_t d = 0; d < dim; d++)
            to[d] = cpu_from_bf16(narrow[d]);
}

static void load(const cpu_rows *rows, const int64_t *position, int32_t count, int32_t pitch,
                 float *to)
{
    int64_t row_size = rows->stride * (rows->dtype == RFA_F32 ? 4 : 2);
    for (int32_t i = 0; i < count; i++)
        load_row(rows->data + position[i] * row_size, rows->dtype, rows->dim,
                 to + (int64_t)i * pitch);
}

/* ---- Matrix products ------------------------------------------------------------ */

/* One register tile of  sum over t of  scalar[t * step + row * pitch] * lane[t * width + ...]:
 * stored to `out` (rows `width` apart), or joined to it where there is a decay. */
INLINE void product_tile(int vectors, int rows, const float *scalar, int64_t step, int64_t pitch,
                         const float *lane, int32_t depth, int32_t width, const float *decay,
                         float *out)
{
    vector sum[8][4];
    for (int i = 0; i < rows; i++)
        for (int v = 0; v < vectors; v++)
            sum[i][v] = (vector){0};
    for (int32_t t = 0; t < depth; t++) {
        vector x[4];
        for (int v = 0; v < vectors; v++)
            x[v] = *(const vector *)(lane + (int64_t)t * width + v * VECTOR);
        for (int i = 0; i < rows; i++) {
            float a = scalar[t * step + i * pitch];
            for (int v = 0; v < vectors; v++)
                sum[i][v] += a * x[v];
        }
    }
    for (int i = 0; i < rows; i++)
        for (int v = 0; v < vectors; v++) {
            vector *to = (vector *)(out + (int64_t)i * width + v * VECTOR);
            if (decay)
                *to = *to * *(const vector *)(decay + v * VECTOR) + sum[i][v];
            else
                *to = sum[i][v];
        }
}

/* All lanes of one panel for TILE_ROWS rows. */
INLINE void product_panel(const float *scalar, int64_t step, int64_t pitch, const float *lanes,
                          int32_t depth, int32_t width, const float *decay, float *out)
{
    int32_t lane = 0;
    for (; lane + TILE_VECTORS * VECTOR <= width; lane += TILE_VECTORS * VECTOR)
        product_tile(TILE_VECTORS, TILE_ROWS, scalar, step, pitch, lanes + lane, depth, width,
                     decay ? decay + lane : decay, out + lane);
    for (; lane + 2 * VECTOR <= width; lane += 2 * VECTOR)
        product_tile(2, TILE_ROWS, scalar, step, pitch, lanes + lane, depth, width,
                     decay ? decay + lane : decay, out + lane);
    for (; lane < width; lane += VECTOR)
        product_tile(1, TILE_ROWS, scalar, step, pitch, lanes + lane, depth, width,
                     decay ? decay + lane : decay, out + lane);
}

static void scores(const float *keys, int32_t count, int32_t dim, const float *q, int32_t lanes,
                   float *scores_)
{
    for (int32_t lane = 0; lane < lanes; lane += CPU_PANEL) {
        int32_t width = panel_width(lanes, lane);
        const float *panel = q + (int64_t)lane * dim;
        float *to = scores_ + (int64_t)lane * (count + CPU_SLACK);
        for (int32_t c = 0; c < count; c += TILE_ROWS)
            product_panel(keys + (int64_t)c * dim, 1, dim, panel, dim, width, NULL,
                          to + (int64_t)c * width);
    }
}

static void accumulate(const float *values, int32_t count, int32_t dim, const float *weights_,
                       int32_t lanes, const float *decay, float *out)
{
    for (int32_t lane = 0; lane < lanes; lane += CPU_PANEL) {
        int32_t width = panel_width(lanes, lane);
        const float *panel = weights_ + (int64_t)lane * (count + CPU_SLACK);
        float *to = out + (int64_t)lane * (dim + CPU_SLACK);
        for (int32_t d = 0; d < dim; d += TILE_ROWS)
            product_panel(values + d, dim + CPU_SLACK, 1, panel, count, width, decay + lane,
                          to + (int64_t)d * width);
    }
}

/* ---- Softmax, a panel at a time ---------------------------------------------------
 *
 * The inner loops run over lanes and keep their sums in small arrays, not in
 * local scalars: that is the form which compilers vectorise whatever they do
 * about the outer loop. */

static void panel_mask(float *restrict panel, int32_t count, int32_t width,
                       const int32_t *restrict seen)
{
    for (int32_t c = 0; c < count; c++, panel += width)
        for (int32_t i = 0; i < width; i++)
            panel[i] = c < seen[i] ? panel[i] : -(float)INFINITY;
}

static void panel_maxima(const float *restrict panel, int32_t count, int32_t width,
                         float *restrict max)
{
    int32_t is_nan[CPU_PANEL] = {0};
    for (int32_t i = 0; i < width; i++)
        max[i] = -(float)INFINITY;
    for (int32_t c = 0; c < count; c++, panel += width)
        for (int32_t i = 0; i < width; i++) {
            max[i] = panel[i] > max[i] ? panel[i] : max[i];
            is_nan[i] |= panel[i] != panel[i];
        }
    for (int32_t i = 0; i < width; i++)
        max[i] = is_nan[i] ? (float)NAN : max[i];
}

/* Sums go in runs of this many keys, which keeps their rounding error small for
 * long blocks. */
#define SUM_RUN 64

static void panel_weights(float *restrict panel, int32_t count, int32_t width,
                          const float *restrict reference, float *restrict sum)
{
    memset(sum, 0, (size_t)width * sizeof(*sum));
    for (int32_t begin = 0; begin < count; begin += SUM_RUN) {
        int32_t end = begin + SUM_RUN < count ? begin + SUM_RUN : count;
        float run[CPU_PANEL] = {0};
        for (int32_t c = begin; c < end; c++, panel += width)
            for (int32_t i = 0; i < width; i++) {
                panel[i] = cpu_exp(panel[i] - reference[i]);
                run[i] += panel[i];
            }
        for (int32_t i = 0; i < width; i++)
            sum[i] += run[i];
    }
}

static void mask(float *scores_, int32_t count, int32_t lanes, const int32_t *seen)
{
    for (int32_t lane = 0; lane < lanes; lane += CPU_PANEL)
        panel_mask(scores_ + (int64_t)lane * (count + CPU_SLACK), count, panel_width(lanes, lane),
                   seen + lane);
}

static void maxima(const float *scores_, int32_t count, int32_t lanes, float *max)
{
    for (int32_t lane = 0; lane < lanes; lane += CPU_PANEL)
        panel_maxima(scores_ + (int64_t)lane * (count + CPU_SLACK), count, panel_width(lanes, lane),
                     max + lane);
}

static void weights(float *scores_, int32_t count, int32_t lanes, const float *reference,
                    float *sum)
{
    for (int32_t lane = 0; lane < lanes; lane += CPU_PANEL)
        panel_weights(scores_ + (int64_t)lane * (count + CPU_SLACK), count,
                      panel_width(lanes, lane), reference + lane, sum + lane);
}

static void exponentials(const float *x, int32_t n, float *y)
{
    for (int32_t i = 0; i < n; i++)
        y[i] = cpu_exp(x[i]);
}

const cpu_kernels JOIN(cpu_kernels_, RFA_CPU_ISA_NAME) = {
    .isa = TEXT(RFA_CPU_ISA_NAME),
    .load = load,
    .scores = scores,
    .mask = mask,
    .maxima = maxima,
    .weights = weights,
    .accumulate = accumulate,
    .exponentials = exponentials,
};
