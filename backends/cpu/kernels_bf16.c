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
#include "lanes.h"

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

/* Weights on their way: portions of keys of one vector of lanes, so that AMX's products
 * can run between them. The sum of each portion is rounded for itself, which keeps the
 * error of long blocks small. */
enum { PORTION = 16 };

typedef struct weighing {
    const float *scores, *reference;
    uint32_t *weights;
    float *sum;
    int32_t count, lanes;
    float factor;      /* of scores and references, for powers of 2 */
    int32_t lane, key; /* where the next portion begins */
} weighing;

/* Weights of keys 0 .. count - 1 (even) of one vector of lanes; their sum. */
INLINE vector run_weights(const float *from, int32_t count, int32_t width, vector scale,
                          vector reference, uint32_t *to)
{
    vector even = {0}, odd = {0};
    for (int32_t c = 0; c < count; c += 2, from += 2 * (int64_t)width, to += width) {
        vector x = exp_2(*(const vector *)from * scale - reference);
        vector y = exp_2(*(const vector *)(from + width) * scale - reference);
        even += x;
        odd += y;
        store_pairs(to, x, y);
    }
    return even + odd;
}

/* Zeros for keys past the last; if their number is odd, the last pairs with such a zero. */
static weighing start_weighing(float *scores_, int32_t count, int32_t lanes, float scale,
                               const float *reference, uint32_t *to, float *sum)
{
    const float log2_e = 1.44269504f;
    for (int32_t lane = 0; lane < lanes; lane += CPU_PANEL) {
        int32_t width = panel_width(lanes, lane);
        float *panel = scores_ + (int64_t)lane * padded(count);
        uint32_t *pairs = to + (int64_t)lane * (padded(count) / 2);
        int64_t used = (int64_t)((count + 1) / 2) * width;
        for (int32_t i = 0; count % 2 && i < width; i++)
            panel[(int64_t)count * width + i] = -(float)INFINITY;
        memset(pairs + used, 0,
               (size_t)((int64_t)(padded(count) / 2) * width - used) * sizeof(*pairs));
    }
    return (weighing){scores_, reference,      to, sum, (count + 1) / 2 * 2,
                      lanes,   scale * log2_e, 0,  0};
}

INLINE bool weighing_ends(const weighing *w)
{
    return w->lane >= w->lanes;
}

INLINE void weigh_portion(weighing *w)
{
    int32_t panel = w->lane / CPU_PANEL * CPU_PANEL, width = panel_width(w->lanes, panel);
    int64_t place = (int64_t)panel * padded(w->count) + w->lane - panel;
    int64_t pairs = (int64_t)panel * (padded(w->count) / 2) + w->lane - panel;
    const float *from = w->scores + place + (int64_t)w->key * width;
    uint32_t *to = w->weights + pairs + (int64_t)(w->key / 2) * width;
    int32_t left = w->count - w->key;
    vector scale = same(w->factor);
    vector relative = *(const vector *)(w->reference + w->lane) * same(1.44269504f);
    vector *sum = (vector *)(w->sum + w->lane), before = w->key == 0 ? (vector){0} : *sum;
    if (left >= PORTION)
        *sum = before + run_weights(from, PORTION, width, scale, relative, to);
    else
        *sum = before + run_weights(from, left, width, scale, relative, to);
    w->key += PORTION;
    if (w->key >= w->count) {
        w->key = 0;
        w->lane += VECTOR;
    }
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
    weighing w = start_weighing(scores_, count, lanes, fabsf(scale), reference, weights_, sum);
    while (!weighing_ends(&w))
        weigh_portion(&w);
}

static void exponentials(const float *x, int32_t n, float *y)
{
    for (int32_t i = 0; i < n; i += VECTOR)
        *(vector *)(y + i) = exp_2(*(const vector *)(x + i) * same(1.44269504f));
}

/* ---- Matrix products ------------------------------------------------------------ */

/* A: `rows` rows of `depth` bf16, by left_place. */
typedef struct left {
    const uint16_t *data;
    int32_t rows, depth;
} left;

#ifdef RFA_CPU_AMX

enum { LEFT_TILE = LEFT_LINES * GRANULE, LINE = TILE_BYTES };

/* Portions of other weights that go along with a product. */
typedef struct company {
    weighing weighing;
    int32_t portions, steps; /* left */
} company;

/* A step's share of the portions. */
INLINE void keep_company(company *with)
{
    int32_t share = (with->portions + with->steps - 1) / with->steps;
    with->portions -= share;
    with->steps--;
    for (; share > 0; share--)
        weigh_portion(&with->weighing);
}

/* Two by `across` tiles of C in registers 0 to 3, the current step of A in 4 and
 * 5 and of B in 6 and 7. The second tiles across are a panel further on. A step's tile
 * products take 64 cycles of a unit of their own.
 *
 * Every instruction that writes a tile waits for a physical register. A core whose other
 * hyperthread is awake has ten of them for the eight tiles of a thread, so that with eight
 * tiles in use loads and products all but take turns. A tile that was set to zero holds
 * none: each is as soon as it has been read for the last time, and between calls all are. */
INLINE void product_tile(const int across, left a, const uint32_t *b, bool add, float *c,
                         company *with)
{
    const uint16_t *a_below = a.data + (int64_t)TILE_LINES * a.depth;
    const uint32_t *b_next = b + (int64_t)CPU_PANEL * (a.depth / 2);
    float *c_below = c + TILE_LINES * CPU_PANEL;
    float *c_next = c + (int64_t)CPU_PANEL * a.rows, *c_last = c_next + TILE_LINES * CPU_PANEL;
    if (add) {
        tile_load(0, c, LINE);
        tile_load(2, c_below, LINE);
        if (across == 2) {
            tile_load(1, c_next, LINE);
            tile_load(3, c_last, LINE);
        }
    }
    for (int32_t t = 0; t < a.depth; t += GRANULE) {
        int64_t step = t / GRANULE;
        tile_load(6, b + step * TILE_LINES * CPU_PANEL, LINE);
        tile_load(4, a.data + step * LEFT_TILE, LINE);
        tile_dot(0, 4, 6);
        if (across == 2) {
            tile_load(7, b_next + step * TILE_LINES * CPU_PANEL, LINE);
            tile_dot(1, 4, 7);
        }
        tile_zero(4);
        tile_load(5, a_below + step * LEFT_TILE, LINE);
        tile_dot(2, 5, 6);
        tile_zero(6);
        if (across == 2) {
            tile_dot(3, 5, 7);
            tile_zero(7);
        }
        tile_zero(5);
        if (with)
            keep_company(with);
    }
    tile_store(0, c, LINE);
    tile_zero(0);
    tile_store(2, c_below, LINE);
    tile_zero(2);
    if (across == 2) {
        tile_store(1, c_next, LINE);
        tile_zero(1);
        tile_store(3, c_last, LINE);
        tile_zero(3);
    }
}

/* C at row i and lane `lane`, two tiles high and, but for the last ones, two across. */
INLINE void product_at(int32_t i, int32_t lane, left a, const uint32_t *b, int32_t lanes, bool add,
                       float *c, company *with)
{
    left rows = {a.data + (int64_t)i * a.depth, a.rows, a.depth};
    b += (int64_t)lane * (a.depth / 2);
    c += (int64_t)lane * a.rows + (int64_t)i * CPU_PANEL;
    if (lane + 2 * CPU_PANEL <= lanes)
        product_tile(2, rows, b, add, c, with);
    else
        product_tile(1, rows, b, add, c, with);
}

INLINE void product_beside(left a, const uint32_t *b, int32_t lanes, bool add, float *c,
                           company *with)
{
    tile_fence();
    for (int32_t i = 0; i < a.rows; i += 2 * TILE_LINES)
        for (int32_t lane = 0; lane < lanes; lane += 2 * CPU_PANEL)
            product_at(i, lane, a, b, lanes, add, c, with);
}

static void product(left a, const uint32_t *b, int32_t lanes, bool add, float *c)
{
    product_beside(a, b, lanes, add, c, NULL);
}

/* Raises the maxima of up to two panels by keys i .. i + 31; not yet scaled. */
INLINE void raise_maxima(int32_t i, int32_t lane, int32_t count, int32_t lanes,
                         const float *scores_, float *max)
{
    int32_t end = lane + 2 * CPU_PANEL < lanes ? lane + 2 * CPU_PANEL : lanes;
    int32_t keys = count - i < 2 * TILE_LINES ? count - i : 2 * TILE_LINES;
    for (; lane < end; lane += CPU_PANEL) {
        vector top, *so_far = (vector *)(max + lane);
        panel_maxima(scores_ + (int64_t)lane * padded(count) + (int64_t)i * CPU_PANEL, keys,
                     CPU_PANEL, 1, (float *)&top);
        /* `greater` answers its second argument where one is NaN. */
        *so_far = i == 0 ? top : (vector)nan_where(has_nan(top, top), greater(top, *so_far));
    }
}

/* While tiles multiply, the maxima of those before are found. */
static void scores_maxima(const void *keys, cpu_block_sizes sizes, const void *q, int32_t lanes,
                          float scale, float *scores_, float *max)
{
    left a = {keys, padded(sizes.count), padded(sizes.dim)};
    int32_t row = 0, before = -1;
    tile_fence();
    for (int32_t i = 0; i < a.rows; i += 2 * TILE_LINES)
        for (int32_t lane = 0; lane < lanes; lane += 2 * CPU_PANEL) {
            product_at(i, lane, a, q, lanes, false, scores_, NULL);
            if (before >= 0)
                raise_maxima(row, before, sizes.count, lanes, scores_, max);
            row = i;
            before = lane;
        }
    raise_maxima(row, before, sizes.count, lanes, scores_, max);
    for (int32_t lane = 0; lane < lanes; lane += VECTOR)
        *(vector *)(max + lane) *= same(fabsf(scale));
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

/* Lanes whose maximum did not move, most of them after a while, are left alone. */
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

static void decay_out(const cpu_product *p, int32_t lanes)
{
    int32_t rows = padded(p->sizes.dim);
    for (int32_t lane = 0; lane < lanes; lane += CPU_PANEL)
        decay_panel(p->decay + lane, rows, panel_width(lanes, lane), p->out + (int64_t)lane * rows);
}

static void accumulate(const cpu_product *p, int32_t lanes)
{
    left a = {p->values, padded(p->sizes.dim), padded(p->sizes.count)};
    decay_out(p, lanes);
    product(a, p->weights, lanes, true, p->out);
}

#ifdef RFA_CPU_AMX
static void weights_accumulate(float *scores_, int32_t count, int32_t lanes, float scale,
                               const float *reference, void *weights_, float *sum,
                               const cpu_product *p)
{
    left a = {p->values, padded(p->sizes.dim), padded(p->sizes.count)};
    int32_t pairs_across = (lanes + 2 * CPU_PANEL - 1) / (2 * CPU_PANEL);
    company with = {
        .weighing = start_weighing(scores_, count, lanes, fabsf(scale), reference, weights_, sum),
        .portions = (count + PORTION - 1) / PORTION * (lanes / VECTOR),
        .steps = a.rows / (2 * TILE_LINES) * pairs_across * (a.depth / GRANULE),
    };
    decay_out(p, lanes);
    product_beside(a, p->weights, lanes, true, p->out, &with);
}
#endif

/* Half `c & 1` of a pair is key c's. */
INLINE float half_of(uint32_t pair, int32_t c)
{
    return cpu_float_of(c & 1 ? pair & 0xffff0000 : pair << 16);
}

static void accumulate_seen(const cpu_product *p, int32_t lanes, const int32_t *seen)
{
    int32_t rows = padded(p->sizes.dim), depth = padded(p->sizes.count);
    for (int32_t lane = 0; lane < lanes; lane++) {
        int32_t panel = lane / CPU_PANEL * CPU_PANEL, width = panel_width(lanes, panel);
        const uint32_t *weight =
            (const uint32_t *)p->weights + (int64_t)panel * (depth / 2) + lane - panel;
        float *to = p->out + (int64_t)panel * rows + lane - panel;
        for (int32_t d = 0; d < p->sizes.dim; d++, to += width) {
            const uint16_t *value = p->values;
            float sum = *to * p->decay[lane];
            for (int32_t c = 0; c < seen[lane]; c++)
                sum += half_of(weight[(int64_t)(c / 2) * width], c) *
                       cpu_from_bf16(value[left_place(d, c, depth)]);
            *to = sum;
        }
    }
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
#ifdef RFA_CPU_AMX
    .scores_maxima = scores_maxima,
    .weights_accumulate = weights_accumulate,
#endif
    .mask = mask,
    .maxima = maxima,
    .weights = weights,
    .accumulate = accumulate,
    .accumulate_seen = accumulate_seen,
    .unpack = unpack_rows,
    .store = store,
    .exponentials = exponentials,
};
