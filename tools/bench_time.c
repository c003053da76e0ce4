/* The clock of `rfa bench`. */
#include "tools/bench.h"

#include <math.h>

#include "tools/progress.h"

/* Calls that are shorter are timed several in a row, so that what a mark on the
 * stream costs does not show. */
#define SHORTEST 0.02
#define MOST_CALLS 1024
/* What a call costs the host is told by the first ones: a queue that is full makes
 * later ones wait for the device. */
#define HOST_CALLS 16

int bench_calls_for(double seconds)
{
    if (!(seconds > SHORTEST / MOST_CALLS))
        return MOST_CALLS;
    return seconds >= SHORTEST ? 1 : (int)ceil(SHORTEST / seconds);
}

rfa_status bench_time_calls(rfa_context *ctx, rfa_timer *timer, const rfa_attention_args *args,
                            int calls, double *seconds, double *host_seconds, rfa_error *err)
{
    int told = calls < HOST_CALLS ? calls : HOST_CALLS;
    rfa_status status = rfa_timer_start(timer, args->stream);
    double start = progress_now();
    for (int i = 0; i < calls && status == RFA_OK; i++) {
        status = rfa_attention(ctx, args);
        if (i + 1 == told)
            *host_seconds = (progress_now() - start) / told;
    }
    if (status == RFA_OK)
        status = rfa_timer_stop(timer, args->stream);
    if (status == RFA_OK)
        status = rfa_timer_read(timer, seconds);
    /* What failed on the device is told here. */
    if (status == RFA_OK)
        status = rfa_synchronize(ctx, args->stream);
    *seconds /= calls;
    return device_status(ctx, status, err);
}
