#include "conformance/layout.h"

#include "conformance/element.h"

/* Physical strides of (batch, row, head), whatever the tensor's axis order. */
typedef struct strides {
    int64_t batch, row, head;
} strides;

static strides rows_outside(int64_t rows, int64_t heads, int64_t width)
{
    return (strides){rows * heads * width, heads * width, width};
}

static strides heads_outside(int64_t rows, int64_t heads, int64_t width)
{
    return (strides){rows * heads * width, width, rows * width};
}

static strides strides_of(const conformance_case *c, case_layout layout, int64_t rows,
                          int64_t heads, int64_t width)
{
    bool heads_first = c->axes == RFA_AXES_BHSD && !c->packed;
    int64_t gap = layout == LAYOUT_PADDED || layout == LAYOUT_SWAPPED ? 1 + c->seed % 7 : 0;
    if (layout == LAYOUT_INTERLEAVED)
        return (strides){rows * 3 * heads * width, 3 * heads * width, width};
    if (layout == LAYOUT_SWAPPED)
        heads_first = !heads_first;
    strides s = heads_first ? heads_outside(rows, heads, width + gap)
                            : rows_outside(rows, heads, width + gap);
    if (layout == LAYOUT_SWAPPED)
        s.batch += 2 * width;
    if (layout == LAYOUT_BROADCAST && c->batch > 1)
        s.batch = 0;
    else if (layout == LAYOUT_BROADCAST)
        s.head = 0;
    return s;
}

layout_place layout_at(const conformance_case *c, int64_t batch, int64_t head, int64_t row,
                       int64_t element)
{
    if (c->packed)
        return (layout_place){{row, head, element, 0}};
    if (c->axes == RFA_AXES_BHSD)
        return (layout_place){{batch, head, row, element}};
    return (layout_place){{batch, row, head, element}};
}

guarded_layout layout_of(const conformance_case *c, int tensor)
{
    bool query = tensor == CASE_Q || tensor == CASE_OUT;
    int64_t rows = query ? c->total_q : c->total_k, heads = query ? c->heads : c->heads_kv;
    int64_t width = tensor == CASE_V || tensor == CASE_OUT ? c->dim_v : c->dim;
    strides s = strides_of(c, c->layout[tensor], rows, heads, width);
    layout_place shape = layout_at(c, c->batch, heads, rows, width);
    layout_place stride = layout_at(c, s.batch, s.head, s.row, 1);
    guarded_layout layout = {.ndim = c->packed ? 3 : 4, .shift = c->shift};
    layout.type = element_type(tensor == CASE_OUT ? c->out_dtype : c->dtype);
    layout.null_strides = c->layout[tensor] == LAYOUT_NULL;
    for (int i = 0; i < layout.ndim; i++) {
        layout.shape[i] = shape.at[i];
        layout.stride[i] = stride.at[i];
    }
    return layout;
}
