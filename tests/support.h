/* Host tensors, a small valid problem, and captured output, for tests of the API. */
#ifndef RFA_TEST_SUPPORT_H
#define RFA_TEST_SUPPORT_H

#include <stdbool.h>

#include <rfa/rfa.h>

enum { TEST_MAX_DIMS = 5 };

extern const DLDataType type_f32, type_f16, type_bf16, type_i32, type_u32, type_u8;

/* A compact host tensor of zeros with shape and strides of its own, so that a
 * test may change any field; strides are filled in. Asserts on no memory. */
DLTensor *tensor_new(DLDataType type, int ndim, const int64_t *shape);
#define TENSOR(type, ...)                                                                          \
    tensor_new((type), (int)(sizeof((const int64_t[]){__VA_ARGS__}) / sizeof(int64_t)),            \
               (const int64_t[]){__VA_ARGS__})
void tensor_free(DLTensor *tensor);
size_t tensor_bytes(const DLTensor *tensor);
float *tensor_floats(const DLTensor *tensor);
/* f32 only: numbers in [-1, 1) that depend on the seed alone. */
void tensor_fill(DLTensor *tensor, uint32_t seed);

/* B 2, Lq 200, Lk 300, H 4, Hkv 2, D 16, Dv 24, f32, rule recall at 0.9 on the
 * given context, with every output that all rules have, poisoned. */
enum { OUTPUTS = 6, EXTRAS = 4 };
typedef struct small_problem {
    rfa_context *ctx;
    DLTensor *q, *k, *v;
    DLTensor *output[OUTPUTS]; /* out, lse, recall, decisions, visit_order, counts */
    DLTensor *extra[EXTRAS];
    rfa_attention_args args;
} small_problem;

rfa_context *context_on(const char *backend, int32_t threads);
/* Borrows the context. */
void small_create(small_problem *s, rfa_context *ctx);
void small_destroy(small_problem *s);
/* Hands a tensor to the problem, which frees it; returns it. */
DLTensor *small_keep(small_problem *s, DLTensor *tensor);
/* The arguments as small_create left them. */
void small_reset_args(small_problem *s);
void small_poison(small_problem *s);
bool small_is_poisoned(const small_problem *s);

/* Breaks a small problem on backend cpu and expects rfa_attention, rfa_supports and
 * rfa_workspace_size to refuse it alike, with this status and these words; to touch
 * no output and print nothing; and the context to work afterwards. */
typedef void (*break_fn)(small_problem *s);
void expect_refused(break_fn break_it, rfa_status status, const char *words);
/* The same of rfa_build_visit_list. */
void expect_list_refused(break_fn break_it, rfa_status status, const char *words);

/* A test that breaks the problem `s` by the given statements. */
#define REFUSED(suite, name, status, words, ...)                                                   \
    static void break_##name(small_problem *s)                                                     \
    {                                                                                              \
        __VA_ARGS__;                                                                               \
    }                                                                                              \
    Test(suite, name)                                                                              \
    {                                                                                              \
        expect_refused(break_##name, status, words);                                               \
    }

/* Sends stdout and stderr into a file until capture_end, which answers how many
 * bytes were written meanwhile. */
typedef struct capture {
    int file, saved_out, saved_err;
} capture;
void capture_begin(capture *c);
long capture_end(capture *c);

#endif
