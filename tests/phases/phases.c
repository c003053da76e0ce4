/* Where the time of a call goes: wraps the kernels of a cpu module with a clock.
 *
 * When the process ends, one line for each phase goes to stderr: its share of the time
 * that all threads together spent between the start and the end of parallel work.
 * One dtype and one calling thread at a time. The clock itself is in "rest". */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "backends/cpu/cpu.h"

enum { PACKING, SCORES, MAXIMA, WEIGHTS, PRODUCTS, OUTPUT, IDLE, PHASES };

static const char *const phase_names[PHASES] = {
    [PACKING] = "packing of q, k and v",    [SCORES] = "scores",
    [MAXIMA] = "masks and maxima",          [WEIGHTS] = "exponentials",
    [PRODUCTS] = "weights times values",    [OUTPUT] = "output",
    [IDLE] = "waiting for the last thread",
};

static const cpu_kernels *inner;
static _Atomic uint64_t total_ns, phase_ns[PHASES];
static _Thread_local uint64_t own_ns[PHASES], entered;
/* Threads in parallel work now; those that left it, when, and when the last of them did. */
static pthread_mutex_t leaving = PTHREAD_MUTEX_INITIALIZER;
static uint64_t inside, left, left_sum, left_last;

static uint64_t clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void add(int phase, uint64_t start)
{
    own_ns[phase] += clock_ns() - start;
}

static void enter(void)
{
    if (inner->enter)
        inner->enter();
    memset(own_ns, 0, sizeof(own_ns));
    entered = clock_ns();
    pthread_mutex_lock(&leaving);
    inside++;
    pthread_mutex_unlock(&leaving);
}

/* The last thread to leave tells how long the others have been waiting. */
static void leave(void)
{
    uint64_t now = clock_ns(), waited = 0;
    for (int i = 0; i < PHASES; i++)
        phase_ns[i] += own_ns[i];
    pthread_mutex_lock(&leaving);
    left++;
    left_sum += now;
    left_last = now > left_last ? now : left_last;
    if (--inside == 0) {
        waited = left * left_last - left_sum;
        left = left_sum = 0;
    }
    pthread_mutex_unlock(&leaving);
    phase_ns[IDLE] += waited;
    total_ns += now - entered + waited;
    if (inner->leave)
        inner->leave();
}

static void pack_q(const cpu_rows *rows, const int64_t *position, int32_t count, int32_t lanes,
                   float scale, void *q)
{
    uint64_t start = clock_ns();
    inner->pack_q(rows, position, count, lanes, scale, q);
    add(PACKING, start);
}

static void pack_k(const cpu_rows *rows, const int64_t *position, int32_t count, void *keys)
{
    uint64_t start = clock_ns();
    inner->pack_k(rows, position, count, keys);
    add(PACKING, start);
}

static bool pack_v(const cpu_rows *rows, const int64_t *position, int32_t count, void *values)
{
    uint64_t start = clock_ns();
    bool finite = inner->pack_v(rows, position, count, values);
    add(PACKING, start);
    return finite;
}

static void scores(const void *keys, cpu_block_sizes sizes, const void *q, int32_t lanes, float *to)
{
    uint64_t start = clock_ns();
    inner->scores(keys, sizes, q, lanes, to);
    add(SCORES, start);
}

static void mask(float *of, int32_t count, int32_t lanes, const int32_t *seen)
{
    uint64_t start = clock_ns();
    inner->mask(of, count, lanes, seen);
    add(MAXIMA, start);
}

static void maxima(const float *of, int32_t count, int32_t lanes, float scale, float *max)
{
    uint64_t start = clock_ns();
    inner->maxima(of, count, lanes, scale, max);
    add(MAXIMA, start);
}

static void weights(float *of, int32_t count, int32_t lanes, float scale, const float *reference,
                    void *to, float *sum)
{
    uint64_t start = clock_ns();
    inner->weights(of, count, lanes, scale, reference, to, sum);
    add(WEIGHTS, start);
}

static void accumulate(const void *values, cpu_block_sizes sizes, const void *by, int32_t lanes,
                       const float *decay, float *out)
{
    uint64_t start = clock_ns();
    inner->accumulate(values, sizes, by, lanes, decay, out);
    add(PRODUCTS, start);
}

static void unpack(const float *out, int32_t dim, int32_t lanes, const float *factor, float *rows)
{
    uint64_t start = clock_ns();
    inner->unpack(out, dim, lanes, factor, rows);
    add(OUTPUT, start);
}

static void store(const float *row, int32_t dim, rfa_dtype dtype, char *to)
{
    uint64_t start = clock_ns();
    inner->store(row, dim, dtype, to);
    add(OUTPUT, start);
}

/* The linker's --wrap puts these two in place of and behind the module's own. */
const cpu_kernels *__real_cpu_kernels_for(const cpu_isa *isa, const rfa_problem *p);
const cpu_kernels *__wrap_cpu_kernels_for(const cpu_isa *isa, const rfa_problem *p);

const cpu_kernels *__wrap_cpu_kernels_for(const cpu_isa *isa, const rfa_problem *p)
{
    static cpu_kernels timed;
    inner = __real_cpu_kernels_for(isa, p);
    timed = *inner;
    timed.enter = enter;
    timed.leave = leave;
    timed.pack_q = pack_q;
    timed.pack_k = pack_k;
    timed.pack_v = pack_v;
    timed.scores = scores;
    timed.mask = mask;
    timed.maxima = maxima;
    timed.weights = weights;
    timed.accumulate = accumulate;
    timed.unpack = unpack;
    timed.store = store;
    return &timed;
}

__attribute__((destructor)) static void report(void)
{
    uint64_t total = total_ns, rest = total;
    if (total == 0)
        return;
    for (int i = 0; i < PHASES; i++) {
        rest -= phase_ns[i];
        fprintf(stderr, "%-28s %5.1f %%\n", phase_names[i],
                100 * (double)phase_ns[i] / (double)total);
    }
    fprintf(stderr, "%-28s %5.1f %%\n", "rest: decisions, rows' state",
            100 * (double)rest / (double)total);
    fprintf(stderr, "%-28s %8.1f ms\n", "all threads together", (double)total / 1e6);
}
