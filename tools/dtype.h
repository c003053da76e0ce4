/* f32, f16 and bf16: sizes, names, conversions of arrays. */
#ifndef RFA_TOOLS_DTYPE_H
#define RFA_TOOLS_DTYPE_H

#include "backends/backend.h"

size_t dtype_size(rfa_dtype dtype);
const char *dtype_name(rfa_dtype dtype); /* "f32", "f16", "bf16" */
DLDataType dtype_dlpack(rfa_dtype dtype);

/* For a CLI_CHOICE option: names in the order of rfa_dtype, then NULL. */
extern const char *const dtype_names[];

/* Rounds to nearest, ties to even, once (never through float); too large
 * becomes infinite, subnormals are kept, NaN stays NaN. */
void dtype_pack(rfa_dtype dtype, const double *src, size_t count, void *dst);
void dtype_unpack(rfa_dtype dtype, const void *src, size_t count, double *dst);
void dtype_unpack_f32(rfa_dtype dtype, const void *src, size_t count, float *dst);

#endif
