/* The exponentials of every set of kernels that runs here, against double precision.
 *
 * Every float from -128 to -2^-6 is tried, and every 251st of the other negative ones;
 * an eighth of them as weights too, which are slow to tell apart.
 * Exits with 1 if a bound is broken; the largest errors are printed. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends/cpu/convert.h"
#include "backends/cpu/cpu.h"

/* What kernels.h promises: errors of `constant` + |x| times `slope` units in the last
 * place, and 0 is as good below `zero`. */
typedef struct bound {
    double constant, slope, zero;
} bound;

typedef struct subject {
    char name[40];
    const cpu_kernels *kernels;
    bool weights; /* the kernel `weights`, else `exponentials` */
    bound bound;
    double worst;       /* error / allowed */
    double worst_error; /* in units in the last place */
    float worst_at;
} subject;

enum { CHUNK = 1024, MOST = 16 };

static double unit(double x)
{
    return ldexp(1, ilogb(x) - 23);
}

/* exp of CHUNK numbers; weights are told apart by their sums over one key. */
static void run(const subject *s, const float *x, float *y)
{
    _Alignas(64) float scores[CHUNK * 32], reference[CHUNK] = {0};
    _Alignas(64) float packed[CHUNK * 32];
    if (s->kernels->enter)
        s->kernels->enter();
    memcpy(y, x, CHUNK * sizeof(*y));
    if (!s->weights)
        s->kernels->exponentials(y, CHUNK, y);
    for (int lane = 0; s->weights && lane < CHUNK; lane += CPU_LANES) {
        memcpy(scores, x + lane, CPU_LANES * sizeof(*x));
        void *to = s->kernels->element == sizeof(float) ? scores : packed;
        s->kernels->weights(scores, 1, CPU_LANES, 1, reference, to, y + lane);
    }
    if (s->kernels->leave)
        s->kernels->leave();
}

/* How much of what is allowed the error takes; infinity where a value must be exact. */
static double share(const bound *b, float x, double expected, float is, double *error)
{
    *error = 0;
    if (isnan(x) || isnan(is))
        return isnan(x) && isnan(is) ? 0 : INFINITY;
    if (is == 0 && x <= b->zero)
        return 0;
    if ((double)x < b->zero - 9 || x == 0 || x == -INFINITY)
        return is == (float)expected || (x < 0 && is == 0) ? 0 : INFINITY;
    *error = fabs((double)is - expected) / unit(expected);
    return *error / (b->constant + b->slope * fabs((double)x));
}

static void judge(subject *s, const float *x, const double *expected)
{
    _Alignas(64) float y[CHUNK];
    double worst = 0, worst_error = 0;
    int at = 0;
    run(s, x, y);
    for (int i = 0; i < CHUNK; i++) {
        double error, of = share(&s->bound, x[i], expected[i], y[i], &error);
        if (!(of <= worst)) {
            worst = of;
            at = i;
        }
        if (error > worst_error)
            worst_error = error;
    }
    if (!(worst <= s->worst) || worst_error > s->worst_error)
#ifdef _OPENMP
#pragma omp critical
#endif
    {
        if (!(worst <= s->worst)) {
            s->worst = worst;
            s->worst_at = x[at];
        }
        s->worst_error = fmax(s->worst_error, worst_error);
    }
}

/* CHUNK floats by their bits, `step` apart. */
static void try_bits(subject *subjects, int count, bool weights, uint32_t first, uint32_t step)
{
    _Alignas(64) float x[CHUNK];
    double expected[CHUNK];
    for (uint32_t i = 0; i < CHUNK; i++) {
        uint64_t bits = (uint64_t)first + (uint64_t)i * step;
        x[i] = cpu_float_of(bits < 0xff800000u ? (uint32_t)bits : 0xff800000u);
        expected[i] = exp((double)x[i]);
    }
    for (int i = 0; i < count; i++)
        if (weights || !subjects[i].weights)
            judge(&subjects[i], x, expected);
}

static void try_range(subject *subjects, int count, float from, float to, uint32_t step)
{
    const uint32_t first = cpu_bits_of(from), end = cpu_bits_of(to);
    const int64_t chunks = (end - first) / (CHUNK * step) + 1;
#ifdef _OPENMP
#pragma omp parallel for schedule(static)
#endif
    for (int64_t i = 0; i < chunks; i++)
        try_bits(subjects, count, i % 8 == 0, first + (uint32_t)i * CHUNK * step, step);
}

static void try_special(subject *subjects, int count)
{
    float x[CHUNK];
    double expected[CHUNK];
    const float special[] = {0, -0.0f, -INFINITY, NAN, -NAN};
    for (int i = 0; i < CHUNK; i++) {
        x[i] = special[i % 5];
        expected[i] = exp((double)x[i]);
    }
    for (int i = 0; i < count; i++)
        judge(&subjects[i], x, expected);
}

static int add(subject *subjects, int count, const char *isa, const char *dtype,
               const cpu_kernels *kernels, const bound *bounds)
{
    for (int w = 0; w < 2; w++) {
        subject *s = &subjects[count++];
        *s = (subject){.kernels = kernels, .weights = w, .bound = bounds[w]};
        snprintf(s->name, sizeof(s->name), "%s, %s, %s", isa, dtype, w ? "weights" : "decays");
    }
    return count;
}

/* Those of all sets that run here, each table of kernels once. */
static int find_subjects(subject *subjects)
{
    static const char *const names[] = {"portable",   "avx2", "avx512",  "neon",
                                        "avx512bf16", "amx",  "neonbf16"};
    static const bound f32[2] = {{1.1, 0, -80}, {1.1, 0, -80}};
    static const bound bf16[2] = {{3.1, 1.25, -79}, {3.1, 1.25, -79}};
    int count = 0;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        const cpu_isa *isa;
        rfa_error err = {""};
        setenv("RFA_CPU_ISA", names[i], 1);
        if (cpu_enable_isa(&isa, &err) != RFA_OK)
            continue;
        if (isa->bf16)
            count = add(subjects, count, names[i], "bf16", isa->bf16, bf16);
        else
            count = add(subjects, count, names[i], "f32", isa->f32, f32);
    }
    return count;
}

int main(void)
{
    subject subjects[MOST];
    int count = find_subjects(subjects), failed = 0;
    try_special(subjects, count);
    try_range(subjects, count, -0.0f, -0x1p-6f, 251);
    try_range(subjects, count, -0x1p-6f, -128, 1);
    try_range(subjects, count, -128, -INFINITY, 251);
    for (int i = 0; i < count; i++) {
        const subject *s = &subjects[i];
        bool good = s->worst <= 1;
        printf(
            "%s %s: off by at most %.2f units in the last place; %.2f of what is allowed, at %a\n",
            good ? "ok" : "FAILED", s->name, s->worst_error, s->worst, (double)s->worst_at);
        failed += !good;
    }
    printf("%d passed, %d failed, 0 skipped\n", count - failed, failed);
    return failed > 0 || count == 0;
}
