/* An allocator in front of the C library's (or a sanitizer's) whose n-th
 * allocation fails.
 *
 * Linked into a program, it serves the program and every library that it loads,
 * and is steered by the calls below. Preloaded into a command it is armed from the
 * start by its environment: FAIL_AT=n, FAIL_ONWARDS=1, and FAIL_REPORT=file, where
 * "allocations failed left" is written at the end.
 *
 * Not counted, and never failed:
 *   - what the OpenMP runtime allocates: it ends the process when it gets no
 *     memory, and has no way to say so;
 *   - what the dynamic loader allocates outside dlopen: the stacks and thread
 *     storage of new threads (the OpenMP runtime starts them and gives up
 *     likewise), and lazily made thread storage, whose first use cannot fail;
 *   - stdio's buffers, which it does without, and keeps for standard output.
 * In one dlopen only one allocation fails: glibc keeps the loader's lock when it gets
 * no memory to clean up after a first failure either.
 * Everything else that reaches malloc counts: the library, its modules, the command,
 * cJSON, the C library on their behalf (strdup, asprintf, fopen, scandir, qsort)
 * and the loader in dlopen. */
#ifndef RFA_TEST_FAILING_MALLOC_H
#define RFA_TEST_FAILING_MALLOC_H

#include <stdbool.h>

typedef struct fail_tally {
    long allocations, failed; /* counted ones */
    long left;                /* of those, not freed yet */
} fail_tally;

/* Starts over: counts, remembers what is not freed, and fails allocation number
 * `at` (from 1; 0: none), or with `onwards` that one and all later ones. All
 * threads count alike. */
void fail_arm(long at, bool onwards);
/* Fails no more, but goes on counting. */
void fail_pause(void);
/* Stops counting. */
fail_tally fail_disarm(void);

#endif
