/* The workload's random numbers, each a function of (seed, purpose, head, row, i). */
#ifndef RFA_TOOLS_WORKLOAD_RANDOM_H
#define RFA_TOOLS_WORKLOAD_RANDOM_H

#include <stddef.h>
#include <stdint.h>

/* What a number is for. The numbers are part of the workload: never change one. */
typedef enum random_purpose {
    RANDOM_OBJECT_EMBEDDING = 0, /* row: object */
    RANDOM_OBJECT_MOTION = 1,    /* row: object; y, x, velocity y, velocity x */
    RANDOM_FIELD = 2,            /* row: feature * channels + channel; f_t, f_h, f_w, phase */
    RANDOM_WHITE = 3,            /* row: token */
    RANDOM_POSITION_VECTOR = 4,  /* u */
    RANDOM_MATRIX_A = 5,         /* row: scene channel */
    RANDOM_MATRIX_B = 6,
    RANDOM_MATRIX_V = 7,
    RANDOM_SINK_VECTOR = 8, /* w */
    RANDOM_NOISE_Q = 9,     /* row: token */
    RANDOM_NOISE_K = 10,
    RANDOM_NOISE_V = 11
} random_purpose;

typedef struct random_stream {
    uint64_t seed;
    random_purpose purpose;
    uint32_t head; /* 0 for what belongs to the whole file */
    uint64_t row;
} random_stream;

/* Numbers 0 .. count - 1 of the stream; count at most 2^18. */
void random_uniforms(random_stream stream, size_t count, double *out); /* in (0, 1) */
void random_normals(random_stream stream, size_t count, double *out);

#endif
