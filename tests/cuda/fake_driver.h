/* What tests ask of the driver that is none: how it behaves, and what it saw. */
#ifndef FAKE_DRIVER_H
#define FAKE_DRIVER_H

#include <stddef.h>

typedef struct fake_driver {
    /* Behaviour, set before the library looks for a driver. */
    int version;       /* as cuDriverGetVersion answers */
    const char *lacks; /* the name of a call that it does not have */
    int init;          /* what cuInit answers */
    int devices;       /* how many cards */
    int capability;    /* 10 major + minor */
    int shared;        /* bytes of shared memory that a block of threads may have */
    size_t memory;     /* cuMemAlloc refuses more than this at once */
    int launch;        /* what cuLaunchKernel answers */
    int synchronize;   /* what cuStreamSynchronize answers */
    int capturing;     /* whether every stream is under capture */
    void *stream;      /* where launches are expected */

    /* What it saw. */
    int launches, launches_elsewhere, allocations, frees, waits, loads, copies;
    int depth;               /* of the stack of contexts */
    int deepest;             /* that it has been */
    int unbalanced;          /* pops of an empty stack, launches without a context */
    int retained;            /* primary contexts */
    const char *last_kernel; /* the library's own name of what was launched last */
    unsigned last_grid;      /* blocks of threads that it asked for */
    unsigned most_shared;    /* bytes of shared memory that a launch asked for */
} fake_driver;

/* The library exports one, under this name. */
#define FAKE_DRIVER_SYMBOL "fake_cuda_driver"

#endif
