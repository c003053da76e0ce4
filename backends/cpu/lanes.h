/* What both kernel files share: panels, the vector type, rows to f32 and back. */
#ifndef RFA_CPU_LANES_H
#define RFA_CPU_LANES_H

#include <math.h>
#include <string.h>

#include "convert.h"
#include "kernels.h"

#if defined(__AVX512F__)
enum { VECTOR = 16 };
#elif defined(__AVX2__)
enum { VECTOR = 8 };
#else
enum { VECTOR = 4 };
#endif

typedef float vector __attribute__((vector_size(VECTOR * sizeof(float)), may_alias));

typedef uint32_t words __attribute__((vector_size(VECTOR * sizeof(uint32_t)), may_alias));

#define INLINE static inline __attribute__((always_inline))

INLINE int32_t panel_width(int32_t lanes, int32_t lane)
{
    return lanes - lane < CPU_PANEL ? lanes - lane : CPU_PANEL;
}

/* ---- Squares of VECTOR x VECTOR words ----------------------------------------------- */

/* x0 y0 x1 y1 ..., the first and the second half. */
INLINE words zip_low(words x, words y)
{
#if defined(__AVX512F__)
    return __builtin_shufflevector(x, y, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
#elif defined(__AVX2__)
    return __builtin_shufflevector(x, y, 0, 8, 1, 9, 2, 10, 3, 11);
#else
    return __builtin_shufflevector(x, y, 0, 4, 1, 5);
#endif
}

INLINE words zip_high(words x, words y)
{
#if defined(__AVX512F__)
    return __builtin_shufflevector(x, y, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15,
                                   31);
#elif defined(__AVX2__)
    return __builtin_shufflevector(x, y, 4, 12, 5, 13, 6, 14, 7, 15);
#else
    return __builtin_shufflevector(x, y, 2, 6, 3, 7);
#endif
}

/* Each round is a perfect shuffle; log2 VECTOR of them transpose. */
INLINE void transpose(words x[VECTOR])
{
    for (int round = 1; round < VECTOR; round *= 2) {
        words y[VECTOR];
        for (int i = 0; i < VECTOR / 2; i++) {
            y[2 * i] = zip_low(x[i], x[i + VECTOR / 2]);
            y[2 * i + 1] = zip_high(x[i], x[i + VECTOR / 2]);
        }
        for (int i = 0; i < VECTOR; i++)
            x[i] = y[i];
    }
}

/* ---- Rows ------------------------------------------------------------------------- */

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

static const char *row_at(const cpu_rows *rows, int64_t position)
{
    return rows->data + position * rows->stride * (rows->dtype == RFA_F32 ? 4 : 2);
}

static void load(const cpu_rows *rows, const int64_t *position, int32_t count, int32_t pitch,
                 float *to)
{
    for (int32_t i = 0; i < count; i++)
        load_row(row_at(rows, position[i]), rows->dtype, rows->dim, to + (int64_t)i * pitch);
}

static void store(const float *restrict row, int32_t dim, rfa_dtype dtype, char *to)
{
    uint16_t *restrict narrow = (uint16_t *)to;
    if (dtype == RFA_F32)
        memcpy(to, row, (size_t)dim * sizeof(*row));
    else if (dtype == RFA_F16)
        for (int32_t d = 0; d < dim; d++)
            narrow[d] = cpu_to_half(row[d]);
    else
        for (int32_t d = 0; d < dim; d++)
            narrow[d] = cpu_to_bf16(row[d]);
}

/* VECTOR lanes of one panel. */
static void unpack_lanes(const float *from, int32_t width, int32_t dim, const float *factor,
                         float *rows)
{
    const vector by = *(const vector *)factor;
    int32_t d = 0;
    for (; d + VECTOR <= dim; d += VECTOR) {
        words x[VECTOR];
        for (int i = 0; i < VECTOR; i++)
            x[i] = (words)(*(const vector *)(from + (int64_t)(d + i) * width) * by);
        transpose(x);
        for (int i = 0; i < VECTOR; i++)
            memcpy(rows + (int64_t)i * dim + d, &x[i], sizeof(x[i]));
    }
    for (; d < dim; d++)
        for (int i = 0; i < VECTOR; i++)
            rows[(int64_t)i * dim + d] = from[(int64_t)d * width + i] * by[i];
}

static void unpack(const float *out, int32_t dim, int32_t padded_dim, int32_t lanes,
                   const float *factor, float *rows)
{
    for (int32_t lane = 0; lane < lanes; lane += VECTOR) {
        int32_t panel = lane / CPU_PANEL * CPU_PANEL;
        unpack_lanes(out + (int64_t)panel * padded_dim + lane - panel, panel_width(lanes, panel),
                     dim, factor + lane, rows + (int64_t)lane * dim);
    }
}

/* ---- Masks ------------------------------------------------------------------------- */

static void panel_mask(float *restrict panel, int32_t count, int32_t width,
                       const int32_t *restrict seen)
{
    for (int32_t c = 0; c < count; c++, panel += width)
        for (int32_t i = 0; i < width; i++)
            panel[i] = c < seen[i] ? panel[i] : -(float)INFINITY;
}

#endif
