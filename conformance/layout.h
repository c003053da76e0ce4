/* Where a case's q, k, v and out lie in memory. */
#ifndef RFA_CONFORMANCE_LAYOUT_H
#define RFA_CONFORMANCE_LAYOUT_H

#include "conformance/generate.h"
#include "conformance/guarded.h"

guarded_layout layout_of(const conformance_case *c, int tensor);
/* Indices of an element: (batch, row, head, element) in the case's axis order. */
typedef struct layout_place {
    int64_t at[GUARDED_MAX_DIMS];
} layout_place;
layout_place layout_at(const conformance_case *c, int64_t batch, int64_t head, int64_t row,
                       int64_t element);

#endif
