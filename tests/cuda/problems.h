/* Attention problems that between them reach every kernel of the cuda backend. */
#ifndef CUDA_PROBLEMS_H
#define CUDA_PROBLEMS_H

#include <stdbool.h>

#include <rfa/rfa.h>

enum { PROBLEM_TENSORS = 16, PROBLEM_SEED = 1 };

typedef struct problem_kind {
    const char *name;
    DLDataType dtype;
    int64_t batch, heads, heads_kv, len_q, len_k, dim;
    rfa_mask mask;
    rfa_rule rule;
    rfa_mass mass;
    rfa_order order;
    bool packed;  /* `batch` sequences, of which every other one is half as long */
    bool cubes;   /* of a grid of 8 x 9 x 10 after 3 other tokens */
    bool tensors; /* knob and every output as tensors */
    int launches; /* kernels of a call on Hopper */
} problem_kind;

extern const problem_kind problem_kinds[];
extern const int problem_kind_count;

/* Arguments and the tensors that they point to. */
typedef struct problem {
    rfa_context *ctx;
    rfa_attention_args args;
    DLTensor tensor[PROBLEM_TENSORS];
    int64_t shape[PROBLEM_TENSORS][4];
    size_t size[PROBLEM_TENSORS];
    int tensors;
    rfa_grid grid;
    size_t workspace_size;
    DLTensor *knobs, *out; /* among the tensors */
} problem;

/* Allocates everything, fills the inputs and takes a workspace of the size that the
 * library names. False, with the sentence on stderr, if something fails. */
bool problem_create(problem *p, rfa_context *ctx, const problem_kind *kind);
void problem_destroy(problem *p);

/* Fills q, k and v with values that `seed` gives. */
bool problem_fill(problem *p, unsigned seed);
/* Sets every head's knob. */
bool problem_set_knob(problem *p, float knob);
/* Copies the output to `to`, which holds size[out] bytes; after the work on `stream`. */
bool problem_read(problem *p, void *to, void *stream);
size_t problem_out_size(const problem *p);

#endif
