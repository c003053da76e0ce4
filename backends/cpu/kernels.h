/* The arithmetic that is compiled once per instruction set.
 *
 * Rows of q lie in lanes: a tile of scores is (key, lane), so that everything
 * that is per row (max, sum, exponentials, masks) is plain vector arithmetic
 * and k and v are read as scalars, without a transpose. A decision block has a
 * multiple of CPU_LANES lanes, in panels of CPU_PANEL: an array "by panel" of
 * `n` entries a lane holds panel after panel, each (n, lanes of the panel), so
 * that what the inner loops walk is contiguous. The last panel may be narrower.
 */
#ifndef RFA_CPU_KERNELS_H
#define RFA_CPU_KERNELS_H

#include <stdint.h>

#include "backends/backend.h"

#define CPU_LANES 16
#define CPU_PANEL 64
/* Rows that the matrix kernels may read and write beyond the ones asked for. */
#define CPU_SLACK 8

/* q, k or v of one head: `dim` elements a row, rows `stride` elements apart. */
typedef struct cpu_rows {
    const char *data;
    int64_t stride;
    rfa_dtype dtype;
    int32_t dim;
} cpu_rows;

typedef struct cpu_kernels {
    const char *isa;

    /* to[i][0 .. dim) = row position[i], as f32, `pitch` apart. */
    void (*load)(const cpu_rows *rows, const int64_t *position, int32_t count, int32_t pitch,
                 float *to);

    /* scores (by panel, count + CPU_SLACK) = keys (count + CPU_SLACK, dim) times
     * q (by panel, dim). */
    void (*scores)(const float *keys, int32_t count, int32_t dim, const float *q, int32_t lanes,
                   float *scores);

    /* Sets the scores of keys at or past seen[lane] to -inf. */
    void (*mask)(float *scores, int32_t count, int32_t lanes, const int32_t *seen);

    /* The largest score of each lane; NaN if it has a NaN. */
    void (*maxima)(const float *scores, int32_t count, int32_t lanes, float *max);

    /* scores = exp(scores - reference[lane]), sum[lane] = their sum. */
    void (*weights)(float *scores, int32_t count, int32_t lanes, const float *reference,
                    float *sum);

    /* out (by panel, dim + CPU_SLACK) = decay[lane] * out + values (count, dim +
     * CPU_SLACK) transposed times weights (by panel, count + CPU_SLACK). */
    void (*accumulate)(const float *values, int32_t count, int32_t dim, const float *weights,
                       int32_t lanes, const float *decay, float *out);

    /* y = exp(x), x <= 0 or NaN; may be the same array. */
    void (*exponentials)(const float *x, int32_t n, float *y);
} cpu_kernels;

extern const cpu_kernels cpu_kernels_portable;
#ifdef RFA_CPU_X86
extern const cpu_kernels cpu_kernels_avx2;
extern const cpu_kernels cpu_kernels_avx512;
#endif

#endif
