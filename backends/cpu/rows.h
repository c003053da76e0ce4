/* State of rows, by lane: what the kernels do between their products. Lanes without a row are
 * computed too, and nobody reads them; only sums over rows leave them out.
 *
 * Loops that the compiler vectorises, but for the rare one: conditions are values, not branches. */
#ifndef RFA_CPU_ROWS_H
#define RFA_CPU_ROWS_H

#include <float.h>

#include "backends/skip_rule.h"
#include "lanes.h"

typedef double wide_vector __attribute__((vector_size(VECTOR * sizeof(double)), may_alias));

/* ---- A block's maxima ------------------------------------------------------------------ */

/* max(m, a), or NaN where either is. */
INLINE float larger(float m, float a)
{
    float top = m > a ? m : a;
    return m == m ? top : m;
}

/* The offset after a block of maximum a. */
INLINE float moved(float offset, float a)
{
    float next = a > offset ? a + CPU_HEADROOM : offset;
    return a == a ? next : a;
}

static void compare_maxima(const float *restrict offset, const float *restrict block_max,
                           int32_t lanes, float *restrict reference, float *restrict decay)
{
    for (int32_t i = 0; i < lanes; i++) {
        float next = moved(offset[i], block_max[i]);
        reference[i] = next == -(float)INFINITY ? 0 : next;
        decay[i] = offset[i] - reference[i];
    }
}

static void keep_rows(const float *restrict block_max, const float *restrict decay,
                      const float *restrict mass, int32_t lanes, float *restrict max,
                      float *restrict offset, double *restrict sum, double *restrict skipped)
{
    for (int32_t i = 0; i < lanes; i++) {
        max[i] = larger(max[i], block_max[i]);
        offset[i] = moved(offset[i], block_max[i]);
    }
    for (int32_t i = 0; i < lanes; i++) {
        double d = (double)decay[i];
        sum[i] = sum[i] * d + (double)mass[i];
        skipped[i] *= d;
    }
}

static void skip_rows_that_rise(const float *reference, const float *offset, const float *mass,
                                int32_t lanes, double *skipped)
{
    for (int32_t i = 0; i < lanes; i++) {
        double rise = (double)reference[i] - (double)offset[i];
        bool rises = reference[i] > offset[i] && offset[i] > -(float)INFINITY;
        skipped[i] += rises ? (double)mass[i] * exp(rise) : (double)mass[i];
    }
}

static void skip_rows(const float *restrict block_max, const float *restrict reference,
                      const float *restrict mass, int32_t lanes, float *restrict max,
                      float *restrict offset, double *restrict skipped)
{
    int32_t rising = 0;
    for (int32_t i = 0; i < lanes; i++) {
        float a = block_max[i], m = max[i], r = reference[i];
        /* Nothing is relative to it yet. */
        int first = (a > m) & (m == -(float)INFINITY);
        max[i] = first ? a : m;
        float o = first ? r : offset[i];
        offset[i] = o;
        rising |= (r > o) & (o > -(float)INFINITY);
    }
    if (rising)
        skip_rows_that_rise(reference, offset, mass, lanes, skipped);
    else
        for (int32_t i = 0; i < lanes; i++)
            skipped[i] += (double)mass[i];
    /* Only recalls next to 0 allow this; an infinity would turn into NaN. */
    for (int32_t i = 0; i < lanes; i++)
        skipped[i] = skipped[i] > DBL_MAX ? DBL_MAX : skipped[i];
}

/* ---- Masses -------------------------------------------------------------------------------- */

static void estimate(const float *restrict kappa, const int32_t *restrict count,
                     const int32_t *restrict seen, int32_t lanes, float *restrict mass)
{
    for (int32_t i = 0; i < lanes; i++) {
        float by = count[i] > 0 ? kappa[i] : (float)seen[i];
        mass[i] *= by;
    }
}

static void learn(const float *restrict block_max, const float *restrict max,
                  const float *restrict mass, const float *restrict top, int32_t lanes,
                  float *restrict kappa, int32_t *restrict count)
{
    for (int32_t i = 0; i < lanes; i++) {
        int learns = rfa_kappa_learns(block_max[i], max[i]), after = count[i] + 1;
        float learned = rfa_kappa_update(kappa[i], mass[i] / top[i], (float)after);
        kappa[i] = learns ? learned : kappa[i];
        count[i] = learns ? after : count[i];
    }
}

/* ---- What skipping would lose --------------------------------------------------------------- */

/* Of the first `rows` lanes; the arrays have `lanes`. */
static double sum_of_rows(float *x, int32_t rows, int32_t lanes)
{
    wide_vector sum = {0};
    for (int32_t i = rows; i < lanes; i++)
        x[i] = 0;
    for (int32_t i = 0; i < lanes; i += VECTOR)
        sum += __builtin_convertvector(*(const vector *)(x + i), wide_vector);
    double all = 0;
    for (int i = 0; i < VECTOR; i++)
        all += sum[i];
    return all;
}

static bool losses(float limit, const double *restrict sum, const double *restrict skipped,
                   const float *restrict decay, const float *restrict mass, int32_t rows,
                   int32_t lanes, float *restrict lost, float *restrict spent, double totals[2])
{
    const rfa_skip_rule rule = {.kind = RFA_SKIP_RECALL, .limit = limit};
    int32_t veto = 0;
    for (int32_t i = 0; i < lanes; i++) {
        double d = (double)decay[i];
        rfa_row_share share =
            rfa_share_of_row(rule, (float)(sum[i] * d), (float)(skipped[i] * d), mass[i]);
        lost[i] = share.lost;
        spent[i] = share.spent;
        veto |= share.veto & (i < rows);
    }
    totals[0] = sum_of_rows(lost, rows, lanes);
    totals[1] = sum_of_rows(spent, rows, lanes);
    return veto;
}

#endif
