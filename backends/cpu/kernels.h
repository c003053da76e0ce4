/* The arithmetic that is compiled once per instruction set.
 *
 * Rows of q lie in lanes: a tile of scores is (key, lane), so that everything
 * that is per row (max, sum, exponentials, masks) is plain vector arithmetic.
 * Both matrix products then have rows of k, or of v transposed, on one side and
 * lanes on the other. A decision block has a multiple of CPU_LANES lanes, in
 * panels of CPU_PANEL: an array "by panel" of `n` entries a lane holds panel
 * after panel, each (n, lanes of the panel), so that what the inner loops walk
 * is contiguous. The last panel may be narrower.
 *
 * kernels_f32.c works in f32 for every dtype. kernels_bf16.c takes bf16 inputs
 * as they are, rounds the weights to bf16 and sums in f32; its arrays of bf16
 * are by pairs: two neighbours of the summed dimension in one 32-bit number.
 */
#ifndef RFA_CPU_KERNELS_H
#define RFA_CPU_KERNELS_H

#include <stdint.h>

#include "backends/backend.h"

#define CPU_LANES 16
#ifdef RFA_CPU_AMX
#define CPU_PANEL 16 /* the width of a tile, which is then 1024 bytes on end */
#else
#define CPU_PANEL 64
#endif
/* Entries that the register tiles of kernels_f32.c reach beyond those asked for. */
#define CPU_SLACK 8
/* How far above a row's maximum its offset is put, for maxima to rise without it: 8 ln 2, so that
 * the maximum's weight is 2^-8 and bf16 holds it exactly. (The weight of a higher maximum that
 * comes later is rounded as all are: a row of one dominant key is then off by that rounding.) */
#define CPU_HEADROOM 5.54517744f

/* q, k or v of one head: `dim` elements a row, rows `stride` elements apart. */
typedef struct cpu_rows {
    const char *data;
    int64_t stride;
    rfa_dtype dtype;
    int32_t dim;
} cpu_rows;

/* Of a packed block of k or v. */
typedef struct cpu_block_sizes {
    int32_t count, dim; /* keys; elements of each */
} cpu_block_sizes;

typedef struct cpu_kernels {
    /* Bytes of a packed q, k, v or weight. Arrays have room for
     * cpu_padded(kernels, n) entries where n are asked for; the matrix kernels
     * read and write those too. */
    int32_t element, granule, slack;

    /* What a thread needs before and after; may be NULL. */
    void (*enter)(void);
    void (*leave)(void);

    /* to[i][0 .. dim) = row position[i], as f32, `pitch` apart. */
    void (*load)(const cpu_rows *rows, const int64_t *position, int32_t count, int32_t pitch,
                 float *to);

    /* Rows of q into lanes, by panel, zeros in lanes without a row. Scores are
     * those of `scale` times q after `scores` and `maxima`. */
    void (*pack_q)(const cpu_rows *rows, const int64_t *position, int32_t count, int32_t lanes,
                   float scale, void *q);
    void (*pack_k)(const cpu_rows *rows, const int64_t *position, int32_t count, void *keys);
    /* False if v has a NaN or an infinity there. */
    bool (*pack_v)(const cpu_rows *rows, const int64_t *position, int32_t count, void *values);

    /* scores (by panel) = keys times q. */
    void (*scores)(const void *keys, cpu_block_sizes sizes, const void *q, int32_t lanes,
                   float *scores);

    /* Sets the scores of keys at or past seen[lane] to -inf. */
    void (*mask)(float *scores, int32_t count, int32_t lanes, const int32_t *seen);

    /* The largest score of each lane; NaN if it has a NaN. */
    void (*maxima)(const float *scores, int32_t count, int32_t lanes, float scale, float *max);

    /* Weights are relative to offsets, which are ahead of the maxima: an offset stays as long as
     * no score is above it, so that outputs seldom decay. reference = the offset once the block
     * is kept, 0 instead of -inf (as -inf - -inf would be NaN), NaN where there is one; decay =
     * offset - reference, of which the exponential is still to be taken. By lane, as what
     * follows. */
    void (*compare_maxima)(const float *offset, const float *block_max, int32_t lanes,
                           float *reference, float *decay);
    /* After a kept block, with exp of that decay: max = the larger of both, the offset that
     * compare_maxima meant, sum = sum decay + mass, skipped decays. */
    void (*keep_rows)(const float *block_max, const float *decay, const float *mass, int32_t lanes,
                      float *max, float *offset, double *sum, double *skipped);
    /* After a skipped block: skipped += mass, brought to the offset, which only moves from -inf,
     * and so does max. */
    void (*skip_rows)(const float *block_max, const float *reference, const float *mass,
                      int32_t lanes, float *max, float *offset, double *skipped);

    /* mass *= kappa where that was learned from `count` blocks, else by how many keys it saw. */
    void (*estimate)(const float *kappa, const int32_t *count, const int32_t *seen, int32_t lanes,
                     float *mass);
    /* kappa learns from a kept block. top: exp of block_max in the unit of mass; max: with it. */
    void (*learn)(const float *block_max, const float *max, const float *mass, const float *top,
                  int32_t lanes, float *kappa, int32_t *count);
    /* Of rule recall, P being limit: what the first `rows` lanes would lose with the block, and
     * have lost, to totals; whether some of these has a veto. lost and spent are for its use. */
    bool (*losses)(float limit, const double *sum, const double *skipped, const float *decay,
                   const float *mass, int32_t rows, int32_t lanes, float *lost, float *spent,
                   double totals[2]);

    /* weights (by panel) = exp(score - reference[lane]), sum[lane] = their sum.
     * With elements of 4 bytes, weights are the scores' own array. */
    void (*weights)(float *scores, int32_t count, int32_t lanes, float scale,
                    const float *reference, void *weights, float *sum);

    /* out (by panel) = decay[lane] * out + values transposed times weights. */
    void (*accumulate)(const void *values, cpu_block_sizes sizes, const void *weights,
                       int32_t lanes, const float *decay, float *out);
    /* The same, without products of weights past seen[lane]; slow. */
    void (*accumulate_seen)(const void *values, cpu_block_sizes sizes, const void *weights,
                            int32_t lanes, const float *decay, const int32_t *seen, float *out);

    /* rows[lane][0 .. dim) = out (by panel) times factor[lane]. */
    void (*unpack)(const float *out, int32_t dim, int32_t lanes, const float *factor, float *rows);

    /* to = row, rounded to dtype. */
    void (*store)(const float *row, int32_t dim, rfa_dtype dtype, char *to);

    /* y = exp(x), x <= 0 (or above by a rounding) or NaN; may be the same array. Like weights, off
     * by at most 1.1 units in the last place, and by 3.1 + 1.25 |x| in kernels_bf16.c; 0 where that
     * is below 1e-34 (some weights not before 1e-38). */
    void (*exponentials)(const float *x, int32_t n, float *y);
} cpu_kernels;

static inline int32_t cpu_padded(const cpu_kernels *kernels, int64_t n)
{
    int32_t granule = kernels->granule;
    return (int32_t)((n + granule - 1) / granule * granule) + kernels->slack;
}

extern const cpu_kernels cpu_kernels_portable;
#ifdef RFA_CPU_X86
extern const cpu_kernels cpu_kernels_avx2;
extern const cpu_kernels cpu_kernels_avx512;
extern const cpu_kernels cpu_kernels_avx512bf16;
extern const cpu_kernels cpu_kernels_amx;
#endif
#ifdef RFA_CPU_ARM
extern const cpu_kernels cpu_kernels_neon;
extern const cpu_kernels cpu_kernels_neonbf16;
#endif

#endif
