/* Everything in f32; compiled once per instruction set, with RFA_CPU_ISA_NAME.
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
#include <math.h>

#include "rows.h"
#include "vexp.h"

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)

/* Register tiles: accumulators + lane vectors + one scalar fit the register file
 * (32, 16, 32 and, elsewhere, 16), and there are enough independent chains to
 * hide the latency of a multiply-add. 5 x 4 and 6 x 4 were no faster on AVX-512. */
#if defined(__AVX512F__)
enum { TILE_VECTORS = 4, TILE_ROWS = 4 };
#elif defined(__AVX2__)
enum { TILE_VECTORS = 2, TILE_ROWS = 6 };
#elif defined(RFA_CPU_NEON)
enum { TILE_VECTORS = 4, TILE_ROWS = 4 };
#else
enum { TILE_VECTORS = 2, TILE_ROWS = 4 };
#endif

/* ---- Packing -------------------------------------------------------------------- */

static void pack_q(const cpu_rows *rows, const int64_t *position, int32_t count, int32_t lanes,
                   float scale, void *q)
{
    float row[RFA_MAX_DIM], *to = q;
    memset(q, 0, (size_t)lanes * (size_t)rows->dim * sizeof(float));
    for (int32_t r = 0; r < count; r++) {
        int32_t panel = r / CPU_PANEL * CPU_PANEL, width = panel_width(lanes, panel);
        load(rows, position + r, 1, 0, row);
        for (int32_t d = 0; d < rows->dim; d++)
            to[(int64_t)panel * rows->dim + (int64_t)d * width + r - panel] = row[d] * scale;
    }
}

static void pack_k(const cpu_rows *rows, const int64_t *position, int32_t count, void *keys)
{
    load(rows, position, count, rows->dim, keys);
    memset((float *)keys + (int64_t)count * rows->dim, 0,
           (size_t)rows->dim * CPU_SLACK * sizeof(float));
}

static bool pack_v(const cpu_rows *rows, const int64_t *position, int32_t count, void *values)
{
    const uint32_t exponent = 0x7f800000;
    int32_t pitch = rows->dim + CPU_SLACK;
    uint32_t special = 0;
    load(rows, position, count, pitch, values);
    for (int32_t i = 0; i < count; i++) {
        float *row = (float *)values + (int64_t)i * pitch;
        memset(row + rows->dim, 0, CPU_SLACK * sizeof(*row));
        for (int32_t d = 0; d < rows->dim; d++)
            special |= (cpu_bits_of(row[d]) & exponent) == exponent;
    }
    return !special;
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

static void scores(const void *keys, cpu_block_sizes sizes, const void *q, int32_t lanes,
                   float *scores_)
{
    int32_t count = sizes.count, dim = sizes.dim;
    for (int32_t lane = 0; lane < lanes; lane += CPU_PANEL) {
        int32_t width = panel_width(lanes, lane);
        const float *panel = (const float *)q + (int64_t)lane * dim;
        float *to = scores_ + (int64_t)lane * (count + CPU_SLACK);
        for (int32_t c = 0; c < count; c += TILE_ROWS)
            product_panel((const float *)keys + (int64_t)c * dim, 1, dim, panel, dim, width, NULL,
                          to + (int64_t)c * width);
    }
}

static void accumulate(const void *values, cpu_block_sizes sizes, const void *weights_,
                       int32_t lanes, const float *decay, float *out)
{
    int32_t count = sizes.count, dim = sizes.dim;
    for (int32_t lane = 0; lane < lanes; lane += CPU_PANEL) {
        int32_t width = panel_width(lanes, lane);
        const float *panel = (const float *)weights_ + (int64_t)lane * (count + CPU_SLACK);
        float *to = out + (int64_t)lane * (dim + CPU_SLACK);
        for (int32_t d = 0; d < dim; d += TILE_ROWS)
            product_panel((const float *)values + d, dim + CPU_SLACK, 1, panel, count, width,
                          decay + lane, to + (int64_t)d * width);
    }
}

static void accumulate_seen(const void *values, cpu_block_sizes sizes, const void *weights_,
                            int32_t lanes, const float *decay, const int32_t *seen, float *out)
{
    int32_t count = sizes.count, dim = sizes.dim;
    for (int32_t lane = 0; lane < lanes; lane++) {
        int32_t panel = lane / CPU_PANEL * CPU_PANEL, width = panel_width(lanes, panel);
        const float *weight = (const float *)weights_ + (int64_t)panel * (count + CPU_SLACK);
        float *to = out + (int64_t)panel * (dim + CPU_SLACK) + lane - panel;
        for (int32_t d = 0; d < dim; d++, to += width) {
            const float *value = (const float *)values + d;
            float sum = 0;
            for (int32_t c = 0; c < seen[lane]; c++)
                sum += weight[(int64_t)c * width + lane - panel] *
                       value[(int64_t)c * (dim + CPU_SLACK)];
            *to = *to * decay[lane] + sum;
        }
    }
}

/* ---- Softmax, a panel at a time ---------------------------------------------------
 *
 * The inner loops run over lanes and keep their sums in small arrays, not in
 * local scalars: that is the form which compilers vectorise whatever they do
 * about the outer loop. */

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

static void maxima(const float *scores_, int32_t count, int32_t lanes, float scale, float *max)
{
    (void)scale;
    for (int32_t lane = 0; lane < lanes; lane += CPU_PANEL)
        panel_maxima(scores_ + (int64_t)lane * (count + CPU_SLACK), count, panel_width(lanes, lane),
                     max + lane);
}

static void weights(float *scores_, int32_t count, int32_t lanes, float scale,
                    const float *reference, void *weights_, float *sum)
{
    (void)scale;
    (void)weights_;
    for (int32_t lane = 0; lane < lanes; lane += CPU_PANEL)
        panel_weights(scores_ + (int64_t)lane * (count + CPU_SLACK), count,
                      panel_width(lanes, lane), reference + lane, sum + lane);
}

static void unpack_rows(const float *out, int32_t dim, int32_t lanes, const float *factor,
                        float *rows)
{
    unpack(out, dim, dim + CPU_SLACK, lanes, factor, rows);
}

static void exponentials(const float *x, int32_t n, float *y)
{
    for (int32_t i = 0; i < n; i++)
        y[i] = cpu_exp(x[i]);
}

const cpu_kernels JOIN(cpu_kernels_, RFA_CPU_ISA_NAME) = {
    .element = sizeof(float),
    .granule = 1,
    .slack = CPU_SLACK,
    .load = load,
    .pack_q = pack_q,
    .pack_k = pack_k,
    .pack_v = pack_v,
    .scores = scores,
    .mask = mask,
    .maxima = maxima,
    .compare_maxima = compare_maxima,
    .keep_rows = keep_rows,
    .skip_rows = skip_rows,
    .estimate = estimate,
    .learn = learn,
    .losses = losses,
    .weights = weights,
    .accumulate = accumulate,
    .accumulate_seen = accumulate_seen,
    .unpack = unpack_rows,
    .store = store,
    .exponentials = exponentials,
};
