/* f32, f16 and bf16 elements, and where they lie in a view of host memory. */
#ifndef RFA_CONFORMANCE_ELEMENT_H
#define RFA_CONFORMANCE_ELEMENT_H

#include "backends/backend.h"

size_t element_size(rfa_dtype dtype);
DLDataType element_type(rfa_dtype dtype);
const char *element_name(rfa_dtype dtype);
double element_load(rfa_dtype dtype, const void *element);
/* Rounds to nearest, ties to even; too large becomes an infinity. */
void element_store(rfa_dtype dtype, void *element, double value);
/* Distance of neighbouring numbers of this type around `value`. */
double element_ulp(rfa_dtype dtype, double value);

/* First byte of a row of elements of `size` bytes. */
static inline void *view_row(const rfa_view *view, size_t size, int64_t batch, int64_t head,
                             int64_t row)
{
    int64_t at = batch * view->stride[0] + head * view->stride[1] + row * view->stride[2];
    return (char *)view->data + view->byte_offset + at * (int64_t)size;
}

static inline float view_f32(const rfa_view *view, int64_t batch, int64_t head, int64_t row)
{
    return *(const float *)view_row(view, sizeof(float), batch, head, row);
}

#endif
