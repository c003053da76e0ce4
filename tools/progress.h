/* One line of progress on stderr, when that is a terminal; otherwise silent. */
#ifndef RFA_TOOLS_PROGRESS_H
#define RFA_TOOLS_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

typedef struct progress {
    const char *what; /* "making q, k, v"; must outlive the progress */
    uint64_t total;
    double start, last; /* seconds */
    int width;          /* of what is on the screen; 0: nothing */
    bool on;
} progress;

/* `total` in any unit; 0 shows the elapsed time only. */
void progress_start(progress *p, const char *what, uint64_t total);
/* Cheap: redraws at most ten times a second. One thread at a time. */
void progress_update(progress *p, uint64_t done);
/* Clears the line; call before anything else is printed. May be called twice. */
void progress_end(progress *p);

/* Monotonic seconds. */
double progress_now(void);

#endif
