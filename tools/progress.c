/* Redraws one line with carriage returns; the estimate assumes an even pace. */
#include "tools/progress.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define EVERY 0.1    /* seconds between redraws */
#define PATIENCE 0.5 /* work that ends sooner shows nothing */

double progress_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void format_seconds(double seconds, char *text, size_t size)
{
    long s = (long)(seconds + 0.5);
    if (s < 60)
        snprintf(text, size, "%lds", s);
    else if (s < 3600)
        snprintf(text, size, "%ldm %02lds", s / 60, s % 60);
    else
        snprintf(text, size, "%ldh %02ldm", s / 3600, s / 60 % 60);
}

static void draw(progress *p, uint64_t done, double now)
{
    char elapsed[32], rest[32];
    double share = p->total ? (double)done / (double)p->total : 0;
    double seconds = now - p->start;
    format_seconds(seconds, elapsed, sizeof(elapsed));
    int width = fprintf(stderr, "\r%s  ", p->what);
    if (share > 0) {
        format_seconds(seconds / share - seconds, rest, sizeof(rest));
        width += fprintf(stderr, "%3d%%  %s, about %s left", (int)(100 * share), elapsed, rest);
    } else {
        width += fprintf(stderr, "%s", elapsed);
    }
    if (width < p->width)
        fprintf(stderr, "%*s", p->width - width, "");
    fflush(stderr);
    p->width = width > p->width ? width : p->width;
    p->last = now;
}

void progress_start(progress *p, const char *what, uint64_t total)
{
    memset(p, 0, sizeof(*p));
    p->what = what;
    p->total = total;
    p->on = isatty(STDERR_FILENO) == 1;
    p->start = progress_now();
    p->last = p->start + PATIENCE - EVERY;
}

void progress_update(progress *p, uint64_t done)
{
    if (!p->on)
        return;
    double now = progress_now();
    if (now - p->last >= EVERY)
        draw(p, p->total && done > p->total ? p->total : done, now);
}

void progress_end(progress *p)
{
    if (p->on && p->width) {
        fprintf(stderr, "\r%*s\r", p->width, "");
        fflush(stderr);
    }
    p->on = false;
}
