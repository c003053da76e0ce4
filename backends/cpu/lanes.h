/* What both kernel files share: panels, the vector type, rows to f32 and back. */
#ifndef RFA_CPU_LANES_H
#define RFA_CPU_LANES_H

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

#define INLINE static inline __attribute__((always_inline))

INLINE int32_t panel_width(int32_t lanes, int32_t lane)
{
    return lanes - lane < CPU_PANEL ? lanes - lane : CPU_PANEL;
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

/* A square at a time, so that neither side walks memory in long strides only. */
static void unpack(const float *out, int32_t dim, int32_t padded_dim, int32_t lanes,
                   const float *factor, float *rows)
{
    for (int32_t lane = 0; lane < lanes; lane += CPU_LANES) {
        int32_t panel = lane / CPU_PANEL * CPU_PANEL, width = panel_width(lanes, panel);
        const float *from = out + (int64_t)panel * padded_dim + lane - panel;
        for (int32_t d = 0; d < dim; d++)
            for (int32_t i = 0; i < CPU_LANES; i++)
                rows[(int64_t)(lane + i) * dim + d] =
                    from[(int64_t)d * width + i] * factor[lane + i];
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
