/* bf16 inputs as they are, for AMX, AVX-512 BF16 and NEON with BF16; compiled
 * once for each, with RFA_CPU_ISA_NAME (and RFA_CPU_AMX for the first).
 *
 * Both matrix products are one routine again: C (rows, lanes) = A (rows, depth)
 * times B (depth, lanes). A is k, or v transposed, row by row; B is q or the
 * weights, by pairs of the summed dimension, which is what tiles and dot
 * instructions take. All extents are multiples of GRANULE, so that tiles are
 * always whole: rows beyond those asked for are zeros.
 *
 * q is not scaled before it is rounded; scores are raw products until the
 * maxima and the exponentials apply the scale. A negative scale turns q's signs,
 * so that the largest product stays the largest score.
 */
#include <math.h>

#include "bf16_vectors.h"
#include "rows.h"

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)

enum { GRANULE = 32, LEFT_LINES = 16 };

static int32_t padded(int32_t n)
{
    return (n + GRANULE - 1) / GRANULE * GRANULE;
}

/* ---- Packing -------------------------------------------------------------------- */

/* Where A, of `pitch` columns, has (row, column). For AMX tiles lie one behind the
 * other, 16 rows of 32, which is how they load fastest. Either way 16 rows are on end. */
INLINE int64_t left_place(int32_t row, int32_t column, int32_t pitch)
{
#ifdef RFA_CPU_AMX
    return (int64_t)(row / LEFT_LINES) * LEFT_LINES * pitch +
           (column / GRANULE * LEFT_LINES + row % LEFT_LINES) * GRANULE + column % GRANULE;
#else
    return (int64_t)row * pitch + column;
#endif
}

/* Zeros from the last multiple of 16 rows below `rows` on, before what exists is written. */
static void clear_last_rows(uint16_t *left, int32_t rows, int32_t pitch)
{
    int32_t first = rows / LEFT_LINES * LEFT_LINES;
    memset(left + (int64_t)first * pitch, 0,
           (size_t)(padded(rows) - first) * (size_t)pitch * sizeof(*left));
}

/* Two neighbours of a row, the first in the low half; 0 past its end. */
INLINE uint32_t pair_of(const uint16_t *row, int32_t d, int32_t dim)
{
    uint32_t high = d + 1 < dim ? row[d + 1] : 0;
    return row[d] | high << 16;
}

/* VECTOR rows into VECTOR lanes: pair i of row r to lane r, line i. */
static void pack_q_lanes(const uint16_t *const row[VECTOR], int32_t dim, uint32_t signs,
                         int32_t width, uint32_t *to)
{
    int32_t d = 0;
    for (; d + 2 * VECTOR <= dim; d += 2 * VECTOR, to += VECTOR * (int64_t)width) {
        words x[VECTOR];
        for (int r = 0; r < VECTOR; r++) {
            memcpy(&x[r], row[r] + d, sizeof(x[r]));
            x[r] ^= signs;
        }
        transpose(x);
        for (int i = 0; i < VECTOR; i++)
            *(words *)(to + i * (int64_t)width) = x[i];
    }
    for (; d < dim; d += 2, to += width)
        for (int r = 0; r < VECTOR; r++)
            to[r] = pair_of(row[r], d, dim) ^ signs;
    for (; d < padded(dim); d += 2, to += width)
        memset(to, 0, VECTOR * sizeof(*to));
}

static const uint16_t zeros[RFA_MAX_DIM];

/* q (by panel, pairs of dim). */
static void pack_q(const cpu_rows *rows, const int64_t *position, int32_t count, int32_t lanes,
                   float scale, void *q)
{
    int32_t dim_pairs = padded(rows->dim) / 2;
    for (int32_t lane = 0; lane < lanes; lane += VECTOR) {
        int32_t panel = lane / CPU_PANEL * CPU_PANEL;
        const uint16_t *row[VECTOR];
        for (int32_t r = 0; r < VECTOR; r++)
            row[r] = lane + r < count ? (const uint16_t *)row_at(rows, position[lane + r]) : zeros;
        pack_q_lanes(row, rows->dim, scale < 0 ? 0x80008000 : 0, panel_width(lanes, panel),
                     (uint32_t *)q + (int64_t)panel * dim_pairs + lane - panel);
    }
}

/* keys (padded count, padded dim). */
static void pack_k(const cpu_rows *rows, const int64_t *position, int32_t count, void *keys)
{
    int32_t pitch = padded(rows->dim);
    clear_last_rows(keys, count, pitch);
    for (int32_t c = 0; c < count; c++) {
        const uint16_t *row = (const uint16_t *)row_at(rows, position[c]);
        for (int32_t d = 0; d < pitch; d += GRANULE) {
            uint16_t *to = (uint16_t *)keys + left_place(c, d, pitch);
            int32_t there = rows->dim - d < GRANULE ? rows->dim - d : GRANULE;
            memcpy(to, row + d, (size_t)there * sizeof(*to));
            memset(to + there, 0, (size_t)(GRANULE - there) * sizeof(*to));
        }
    }
}

/* 2 VECTOR keys of v from number c on, transposed; sets bits of `special` where they are not
 * finite. */
static void pack_v_keys(const uint16_t *const row[2 * VECTOR], int32_t dim, int32_t c,
                        int32_t pitch, words *special, uint16_t *values)
{
    const words exponents = (words){0} + 0x7f807f80u, one = (words){0} + 0x00800080u;
    int32_t d = 0;
    for (; d + VECTOR <= dim; d += VECTOR) {
        words x[VECTOR];
        for (int i = 0; i < VECTOR; i++) {
            x[i] = widen(row[2 * i] + d) | widen(row[2 * i + 1] + d) << 16;
            /* An exponent of ones carries into the sign's place. */
            *special |= ((x[i] & exponents) + one) & 0x80008000u;
        }
        transpose(x);
        for (int i = 0; i < VECTOR; i++)
            *(words *)(values + left_place(d + i, c, pitch)) = x[i];
    }
    for (; d < dim; d++) {
        uint16_t *to = values + left_place(d, c, pitch);
        for (int i = 0; i < 2 * VECTOR; i++) {
            to[i] = row[i][d];
            (*special)[0] |= (to[i] & 0x7f80) == 0x7f80;
        }
    }
}

/* values (padded dim, padded count): v transposed. */
static bool pack_v(const cpu_rows *rows, const int64_t *position, int32_t count, void *values)
{
    int32_t pitch = padded(count);
    words special = {0};
    clear_last_rows(values, rows->dim, pitch);
    for (int32_t c = 0; c < pitch; c += 2 * VECTOR) {
        const uint16_t *row[2 * VECTOR];
        for (int32_t i = 0; i < 2 * VECTOR; i++)
            row[i] = c + i < count ? (const uint16_t *)row_at(rows, position[c + i]) : zeros;
        pack_v_keys(row, rows->dim, c, pitch, &special, values);
    }
    for (int i = 0; i < VECTOR; i++)
        if (special[i])
            return false;
    return true;
}

/* ---- Matrix products ------------------------------------------------------------ */

/* A: `rows` rows of `depth` bf16, by left_place. */
typedef struct left {
    const uint16_t *data;
    int32_t rows, depth;
} left;

#ifdef RFA_CPU_AMX

enum { LEFT_TILE = LEFT_LINES * GRANULE, LINE = TILE_BYTES };

/* Two tiles of C, one above the other, in registers 0 and 1; the current step of A in 4
 * and 5, of B in 6.
 *
 * Every instruction that writes a tile waits for a physical register. A core whose other
 * hyperthread is awake seems to have ten of them for a thread's eight tiles, so that with
 * all eight in use loads and products all but take turns. A tile that was set to zero
 * holds none: each is as soon as it has been read for the last time, and between calls
 * all are. Few sums leave more registers to loads than they cost loads. */
INLINE void product_tile(left a, const uint32_t *b, bool add, float *c)
{
    const uint16_t *a_below = a.data + (int64_t)TILE_LINES * a.depth;
    float *c_below = c + TILE_LINES * CPU_PANEL;
    if (add) {
        tile_load(0, c, LINE);
        tile_load(1, c_below, LINE);
    }
    for (int32_t t = 0; t < a.depth; t += GRANULE) {
        int64_t step = t / GRANULE;
        tile_load(6, b + step * TILE_LINES * CPU_PANEL, LINE);
        tile_load(4, a.data + step * LEFT_TILE, LINE);
        tile_dot(0, 4, 6);
        tile_zero(4);
        tile_load(5, a_below + step * LEFT_TILE, LINE);
        tile_dot(1, 5, 6);
        tile_zero(6);
        tile_zero(5);
    }
    tile_store(0, c, LINE);
    tile_zero(0);
    tile_store(1, c_below, LINE);
    tile_zero(1);
}

static void product(left a, const uint32_t *b, int32_t lanes, bool add, float *c)
{
    tile_fence();
    for (int32_t i = 0; i < a.rows; i += 2 * TILE_LINES, c += 2 * TILE_LINES * CPU_PANEL) {
        left rows = {a.data + (int64_t)i * a.depth, a.rows, a.depth};
        for (int32_t lane = 0; lane < lanes; lane += CPU_PANEL)
            product_tile(rows, b + (int64_t)lane * (a.depth / 2), add, c + (int64_t)lane * a.rows);
    }
}

#else

INLINE void product_tile(const int vectors, const int rows, left a, const uint32_t *b,
                         int32_t width, bool add, float *c)
{
    vector sum[TILE_ROWS][4];
    for (int i = 0; i < rows; i++)
        for (int v = 0; v < vectors; v++) {
            const vector *from = (const vector *)(c + (int64_t)i * width + v * VECTOR);
            sum[i][v] = add ? *from : (vector){0};
        }
    for (int32_t t = 0; t < a.depth; t += 2, b += width) {
        pair_vector x[4];
        for (int v = 0; v < vectors; v++)
            x[v] = load_pairs(b + v * VECTOR);
        for (int i = 0; i < rows; i++) {
            pair_vector y = same_pair(a.data + (int64_t)i * a.depth + t);
            for (int v = 0; v < vectors; v++)
                sum[i][v] = dot_pairs(sum[i][v], x[v], y);
        }
    }
    for (int i = 0; i < rows; i++)
        for (int v = 0; v < vectors; v++)
            *(vector *)(c + (int64_t)i * width + v * VECTOR) = sum[i][v];
}

static void product_panel(left a, const uint32_t *b, int32_t width, bool add, float *c)
{
    for (int32_t i = 0; i < a.rows; i += TILE_ROWS, c += TILE_ROWS * (int64_t)width) {
        int32_t lane = 0;
        for (; lane + 4 * VECTOR <= width; lane += 4 * VECTOR)
            product_tile(4, TILE_ROWS, a, b + lane, width, add, c + lane);
        for (; lane < width; lane += VECTOR)
            product_tile(1, TILE_ROWS, a, b + lane, width, add, c + lane);
        a.data += TILE_ROWS * (int64_t)a.depth;
    }
}

static void product(left a, const uint32_t *b, int32_t lanes, bool add, float *c)
{
    for (int32_t lane = 0; lane < lanes; lane += CPU_PANEL)
        product_panel(a, b + (int64_t)lane * (a.depth / 2), panel_width(lanes, lane), add,
                      c + (int64_t)lane * a.rows);
}

#endif

static void scores(const void *keys, cpu_block_sizes sizes, const void *q, int32_t lanes,
                   float *scores_)
{
    int32_t rows = padded(sizes.count), depth = padded(sizes.dim);
    left a = {keys, rows, depth};
    product(a, q, lanes, false, scores_);
}

/* Lanes whose offset did not move, most of them after a while, are left alone. */
static void decay_panel(const float *decay, int32_t rows, int32_t width, float *out)
{
    for (int32_t lane = 0; lane < width; lane += VECTOR) {
        vector by = *(const vector *)(decay + lane);
        if (!any_but_one(by))
            continue;
        for (int32_t i = 0; i < rows; i++) {
            vector *x = (vector *)(out + (int64_t)i * width + lane);
            *x = *x * by;
        }
    }
}

static void accumulate(const void *values, cpu_block_sizes sizes, const void *weights_,
                       int32_t lanes, const float *decay, float *out)
{
    int32_t rows = padded(sizes.dim), depth = padded(sizes.count);
    left a = {values, rows, depth};
    for (int32_t lane = 0; lane < lanes; lane += CPU_PANEL)
        decay_panel(decay + lane, rows, panel_width(lanes, lane), out + (int64_t)lane * rows);
    product(a, weights_, lanes, true, out);
}

/* Half `c & 1` of a pair is key c's. */
INLINE float half_of(uint32_t pair, int32_t c)
{
    return cpu_float_of(c & 1 ? pair & 0xffff0000 : pair << 16);
}

static void accumulate_seen(const void *values, cpu_block_sizes sizes, const void *weights_,
                            int32_t lanes, const float *decay, const int32_t *seen, float *out)
{
    int32_t rows = padded(sizes.dim), depth = padded(sizes.count);
    for (int32_t lane = 0; lane < lanes; lane++) {
        int32_t panel = lane / CPU_PANEL * CPU_PANEL, width = panel_width(lanes, panel);
        const uint32_t *weight =
            (const uint32_t *)weights_ + (int64_t)panel * (depth / 2) + lane - panel;
        float *to = out + (int64_t)panel * rows + lane - panel;
        for (int32_t d = 0; d < sizes.dim; d++, to += width) {
            const uint16_t *value = values;
            float sum = *to * decay[lane];
            for (int32_t c = 0; c < seen[lane]; c++)
                sum += half_of(weight[(int64_t)(c / 2) * width], c) *
                       cpu_from_bf16(value[left_place(d, c, depth)]);
            *to = sum;
        }
    }
}

/* ---- Softmax, a vector of lanes at a time --------------------------------------- */

static void panel_maxima(const float *panel, int32_t count, int32_t width, float scale, float *max)
{
    const vector least = same(-(float)INFINITY);
    for (int32_t lane = 0; lane < width; lane += VECTOR) {
        vector top[4] = {least, least, least, least};
        unordered any = {0};
        const float *from = panel + lane;
        int32_t c = 0;
        for (; c + 4 <= count; c += 4, from += 4 * (int64_t)width) {
            vector x[4];
            for (int i = 0; i < 4; i++) {
                x[i] = *(const vector *)(from + i * (int64_t)width);
                top[i] = greater(x[i], top[i]);
            }
            any |= has_nan(x[0], x[1]) | has_nan(x[2], x[3]);
        }
        for (; c < count; c++, from += width) {
            vector x = *(const vector *)from;
            top[0] = greater(x, top[0]);
            any |= has_nan(x, x);
        }
        top[0] = greater(greater(top[0], top[1]), greater(top[2], top[3]));
        *(vector *)(max + lane) = nan_where(any, top[0] * same(scale));
    }
}

/* Sums go in runs of this many keys, which keeps their rounding error small for
 * long blocks. */
#define SUM_RUN 128

enum { WEIGH_PAIRS = 4 };

/* 2^x of `n` vectors, a step of all before the next: chains of dependent steps one behind
 * the other would fill the scheduler with what has to wait. */
INLINE void exp_2_of_each(const int n, vector *x)
{
    vector fraction[WEIGH_PAIRS * 2], y[WEIGH_PAIRS * 2];
    for (int i = 0; i < n; i++)
        fraction[i] = fraction_of(x[i]);
    in_order(n, fraction);
    for (int i = 0; i < n; i++)
        y[i] = same(EXP_2_C5) * fraction[i] + EXP_2_C4;
    in_order(n, y);
    for (int i = 0; i < n; i++)
        y[i] = y[i] * fraction[i] + EXP_2_C3;
    in_order(n, y);
    for (int i = 0; i < n; i++)
        y[i] = y[i] * fraction[i] + EXP_2_C2;
    in_order(n, y);
    for (int i = 0; i < n; i++)
        y[i] = y[i] * fraction[i] + EXP_2_C1;
    in_order(n, y);
    for (int i = 0; i < n; i++)
        y[i] = y[i] * fraction[i] + 1.0f;
    in_order(n, y);
    for (int i = 0; i < n; i++)
        x[i] = times_power(y[i], x[i]);
    in_order(n, x);
}

/* Weights of `pairs` pairs of keys. */
INLINE void weigh_pairs(const int pairs, const float *from, int32_t width, vector scale,
                        vector reference, uint32_t *to, vector *even, vector *odd)
{
    vector x[WEIGH_PAIRS * 2];
    for (int i = 0; i < 2 * pairs; i++)
        x[i] = *(const vector *)(from + i * (int64_t)width) * scale - reference;
    in_order(2 * pairs, x);
    exp_2_of_each(2 * pairs, x);
    for (int i = 0; i < pairs; i++) {
        *even += x[2 * i];
        *odd += x[2 * i + 1];
        store_pairs(to + i * (int64_t)width, x[2 * i], x[2 * i + 1]);
    }
}

/* Weights of keys 0 .. count - 1 (even) of one vector of lanes; their sum. */
INLINE vector run_weights(const float *from, int32_t count, int32_t width, vector scale,
                          vector reference, uint32_t *to)
{
    vector even = {0}, odd = {0};
    int32_t c = 0;
    for (; c + 2 * WEIGH_PAIRS <= count; c += 2 * WEIGH_PAIRS) {
        weigh_pairs(WEIGH_PAIRS, from, width, scale, reference, to, &even, &odd);
        from += 2 * WEIGH_PAIRS * (int64_t)width;
        to += WEIGH_PAIRS * (int64_t)width;
    }
    for (; c < count; c += 2, from += 2 * (int64_t)width, to += width)
        weigh_pairs(1, from, width, scale, reference, to, &even, &odd);
    return even + odd;
}

/* Zeros for keys past `count`; the last odd one pairs with such a zero. */
static void panel_weights(float *panel, int32_t count, int32_t width, float scale,
                          const float *reference, uint32_t *to, float *sum)
{
    const float log2_e = 1.44269504f;
    if (count % 2)
        for (int32_t i = 0; i < width; i++)
            panel[(int64_t)count * width + i] = -(float)INFINITY;
    for (int32_t lane = 0; lane < width; lane += VECTOR) {
        vector total = {0}, relative = *(const vector *)(reference + lane) * same(log2_e);
        for (int32_t c = 0; c < count; c += SUM_RUN) {
            int32_t run = count - c < SUM_RUN ? (count - c + 1) / 2 * 2 : SUM_RUN;
            total +=
                run_weights(panel + (int64_t)c * width + lane, run, width, same(scale * log2_e),
                            relative, to + (int64_t)(c / 2) * width + lane);
        }
        *(vector *)(sum + lane) = total;
    }
    int64_t used = (int64_t)((count + 1) / 2) * width, all = (int64_t)(padded(count) / 2) * width;
    memset(to + used, 0, (size_t)(all - used) * sizeof(*to));
}

static void mask(float *scores_, int32_t count, int32_t lanes, const int32_t *seen)
{
    for (int32_t lane = 0; lane < lanes; lane += CPU_PANEL)
        panel_mask(scores_ + (int64_t)lane * padded(count), count, panel_width(lanes, lane),
                   seen + lane);
}

static void maxima(const float *scores_, int32_t count, int32_t lanes, float scale, float *max)
{
    for (int32_t lane = 0; lane < lanes; lane += CPU_PANEL)
        panel_maxima(scores_ + (int64_t)lane * padded(count), count, panel_width(lanes, lane),
                     fabsf(scale), max + lane);
}

static void weights(float *scores_, int32_t count, int32_t lanes, float scale,
                    const float *reference, void *weights_, float *sum)
{
    uint32_t before = flush_tiny();
    for (int32_t lane = 0; lane < lanes; lane += CPU_PANEL)
        panel_weights(scores_ + (int64_t)lane * padded(count), count, panel_width(lanes, lane),
                      fabsf(scale), reference + lane,
                      (uint32_t *)weights_ + (int64_t)lane * (padded(count) / 2), sum + lane);
    keep_tiny(before);
}

static void exponentials(const float *x, int32_t n, float *y)
{
    for (int32_t i = 0; i < n; i += VECTOR)
        *(vector *)(y + i) = exp_2(*(const vector *)(x + i) * same(1.44269504f));
}

/* ---- The table -------------------------------------------------------------------- */

static void unpack_rows(const float *out, int32_t dim, int32_t lanes, const float *factor,
                        float *rows)
{
    unpack(out, dim, padded(dim), lanes, factor, rows);
}

#ifdef RFA_CPU_AMX
static void leave(void)
{
    tile_release();
}
#endif

const cpu_kernels JOIN(cpu_kernels_, RFA_CPU_ISA_NAME) = {
    .element = sizeof(uint16_t),
    .granule = GRANULE,
#ifdef RFA_CPU_AMX
    .enter = tile_configure,
    .leave = leave,
#endif
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
