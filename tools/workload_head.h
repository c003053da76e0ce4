/* One head of the synthetic workload: from scene features to rows of q, k or v. */
#ifndef RFA_TOOLS_WORKLOAD_HEAD_H
#define RFA_TOOLS_WORKLOAD_HEAD_H

#include "tools/workload.h"
#include "tools/workload_scene.h"

/* Tokens that are worked on together, so that a head's matrix is read once for
 * all of them. Results do not depend on it. */
#define HEAD_TOKENS 8
/* Matrix columns are padded to a multiple of this. */
#define HEAD_COLUMNS 4

/* What the tokens of a batch need, whatever the head. */
typedef struct head_batch {
    int64_t first_token;
    int count; /* up to HEAD_TOKENS; the rest of x is 0 */
    double x[HEAD_TOKENS][SCENE_CHANNELS];
    /* Of rotary pair i: dims 2i and 2i + 1 within its axis. */
    double cosine[HEAD_TOKENS][WORKLOAD_MAX_DIM / 2], sine[HEAD_TOKENS][WORKLOAD_MAX_DIM / 2];
} head_batch;

/* The pairs of dims that turn, and how fast. */
typedef struct rotary {
    int pairs;
    int first_dim[WORKLOAD_MAX_DIM / 2]; /* of the pair */
    int axis[WORKLOAD_MAX_DIM / 2];      /* 0 t, 1 h, 2 w */
    double turns[WORKLOAD_MAX_DIM / 2];  /* per step of the index */
} rotary;

/* The fixed random parts of a head for one of q, k, v. */
typedef struct workload_head {
    const workload_spec *spec;
    const rotary *turn; /* q and k */
    workload_tensor which;
    int32_t index;
    workload_kind kind;
    int32_t columns;                 /* spec->dim, padded */
    double *matrix;                  /* [SCENE_CHANNELS][columns], the caller's */
    double vector[WORKLOAD_MAX_DIM]; /* u */
    double sink[WORKLOAD_MAX_DIM];   /* w */
} workload_head;

void rotary_init(rotary *r, int32_t dim);
void head_batch_init(head_batch *batch, const scene *s, const rotary *r, int64_t first_token,
                     int count);

/* Doubles that a head's matrix takes. */
size_t head_matrix_size(int32_t dim);
/* spec, turn, which, index and matrix are set; fills the rest. */
void head_init(workload_head *h);
/* rows[i]: token first_token + i, spec->dim wide. */
void head_rows(const workload_head *h, const head_batch *batch, double rows[][WORKLOAD_MAX_DIM]);

#endif
