/* Random problems from a seed, the same on every machine. */
#ifndef RFA_CONFORMANCE_GENERATE_H
#define RFA_CONFORMANCE_GENERATE_H

#include "backends/backend.h"

#define CASE_MAX_BATCH 6

/* How much work: products q.k x dim of about 1, 10 and 100 millions. */
typedef enum conformance_size { SIZE_SMALL, SIZE_MEDIUM, SIZE_LARGE } conformance_size;

typedef enum case_data {
    DATA_NORMAL,
    DATA_HUGE,      /* logits of some thousand */
    DATA_TINY,      /* logits near 0 */
    DATA_DOMINANT,  /* one key has nearly all mass */
    DATA_EQUAL,     /* all keys alike: everything ties */
    DATA_ZERO,      /* all queries 0 */
    DATA_CLUSTERS,  /* tokens look at tokens of their own scene */
    DATA_SINKS,     /* the first keys draw much of the mass */
    DATA_SPIKES,    /* keys far above the others, one in 24 */
    DATA_CONSTANT,  /* all of v alike: so must be all of out */
    DATA_NONFINITE, /* one row of q, k or v holds a NaN or an infinity */
    DATA_CLIFF      /* logits of the later half of the keys are 83 to 84 above the others' */
} case_data;

/* How a tensor lies in memory. */
typedef enum case_layout {
    LAYOUT_NULL,        /* compact, strides NULL */
    LAYOUT_COMPACT,     /* compact, strides given */
    LAYOUT_PADDED,      /* gaps after each row */
    LAYOUT_INTERLEAVED, /* one of three in a packed q, k, v */
    LAYOUT_SWAPPED,     /* the other axis order in memory, and gaps between batches */
    LAYOUT_BROADCAST    /* batches share memory, or heads where there is one batch; inputs */
} case_layout;

enum { CASE_Q, CASE_K, CASE_V, CASE_OUT, CASE_TENSORS };

/* Optional outputs that are asked for. */
enum { CASE_LSE = 1, CASE_RECALL = 2, CASE_VISIT_ORDER = 4, CASE_COUNTS = 8 };

/* One problem, and what is in its tensors. Fields as in rfa_attention_args. */
typedef struct conformance_case {
    char name[48]; /* "small/1f", or a fixed case's name: what --case takes */
    uint64_t seed;
    rfa_dtype dtype, out_dtype;
    rfa_axes axes;
    bool packed;
    int64_t batch, heads, heads_kv, len_q, len_k, total_q, total_k;
    int32_t dim, dim_v;
    int32_t cu_q[CASE_MAX_BATCH + 1], cu_k[CASE_MAX_BATCH + 1];
    case_layout layout[CASE_TENSORS];
    int32_t shift;    /* elements by which tensors are off their alignment */
    bool padded_rows; /* the small tensors have gaps too */
    float scale;
    rfa_mask mask;
    rfa_rule rule;
    rfa_mass mass;
    rfa_knob_form knob_form;
    float knob;
    bool knob_tensor, knob_bad; /* per head; some of them no valid numbers */
    rfa_order order;
    int32_t block_q, block_k, visit_q; /* 0: defaults */
    int64_t list_capacity;
    bool list_masses, list_bad, list_whole; /* whole: every block is listed */
    rfa_grid grids_q[CASE_MAX_BATCH], grids_k[CASE_MAX_BATCH];
    size_t grid_count;
    rfa_range keep_keys[4], dense_queries[4];
    size_t keep_key_count, dense_query_count;
    unsigned outputs;
    uint32_t flags;
    case_data data;
} conformance_case;

void conformance_generate(uint64_t seed, conformance_size size, conformance_case *c);

/* Fixed cases: corners, and what once went wrong. */
size_t conformance_fixed_count(void);
void conformance_fixed(size_t index, conformance_case *c);
/* A case by its name. */
bool conformance_find(const char *name, conformance_case *c);

/* Block sizes with the defaults put in. */
int32_t case_block_q(const conformance_case *c);
int32_t case_block_k(const conformance_case *c);
int32_t case_visit_q(const conformance_case *c);

/* One line that says what the case is. */
void conformance_describe(const conformance_case *c, char *text, size_t size);

/* ---- contents ---- */

/* One row of q, k or v, before rounding to the dtype. */
void case_row(const conformance_case *c, int tensor, int64_t batch, int64_t head, int64_t row,
              double *values);
float case_knob(const conformance_case *c, int64_t batch, int64_t head);
/* One visit list: `capacity` entries and masses; answers the count, which may
 * lie outside 0 .. capacity in a case with list_bad. */
int32_t case_list(const conformance_case *c, int64_t batch, int64_t head, int64_t group,
                  int32_t *indices, float *masses);

#endif
