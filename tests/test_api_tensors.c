/* Every way in which a tensor may be wrong, and what the library answers. */
#include <criterion/criterion.h>
#include <stdint.h>

#include "tests/support.h"

/* ---- rank, shape, dtype, device, memory ---- */

REFUSED(tensors, q_null, RFA_INVALID_ARGUMENT, "q is NULL", s->args.q = NULL)
REFUSED(tensors, k_null, RFA_INVALID_ARGUMENT, "k is NULL", s->args.k = NULL)
REFUSED(tensors, v_null, RFA_INVALID_ARGUMENT, "v is NULL", s->args.v = NULL)
REFUSED(tensors, out_null, RFA_INVALID_ARGUMENT, "out is NULL", s->args.out = NULL)
REFUSED(tensors, q_rank_3, RFA_INVALID_ARGUMENT, "q has 3 dimensions, expected 4", s->q->ndim = 3)
REFUSED(tensors, v_rank_0, RFA_INVALID_ARGUMENT, "v has 0 dimensions, expected 4", s->v->ndim = 0)
REFUSED(tensors, k_rank_negative, RFA_INVALID_ARGUMENT, "k has -1", s->k->ndim = -1)
REFUSED(tensors, k_rank_huge, RFA_INVALID_ARGUMENT, "k has 2147483647", s->k->ndim = INT32_MAX)
REFUSED(tensors, q_no_shape, RFA_INVALID_ARGUMENT, "q has no shape", s->q->shape = NULL)
REFUSED(tensors, k_no_data, RFA_INVALID_ARGUMENT, "k has no data", s->k->data = NULL)
REFUSED(tensors, out_no_data, RFA_INVALID_ARGUMENT, "out has no data", s->output[0]->data = NULL)
REFUSED(tensors, q_f64, RFA_UNSUPPORTED, "q is float64", s->q->dtype.bits = 64)
REFUSED(tensors, q_int32, RFA_UNSUPPORTED, "q is int32", s->q->dtype.code = kDLInt)
REFUSED(tensors, q_bf32, RFA_UNSUPPORTED, "q is bfloat32", s->q->dtype.code = kDLBfloat)
REFUSED(tensors, q_two_lanes, RFA_UNSUPPORTED, "q is float32 x 2", s->q->dtype.lanes = 2)
REFUSED(tensors, k_of_another_dtype, RFA_INVALID_ARGUMENT, "k is float16", s->k->dtype.bits = 16)
REFUSED(tensors, v_of_another_dtype, RFA_INVALID_ARGUMENT, "v is bfloat16", s->v->dtype = type_bf16)
REFUSED(tensors, out_f16_of_f32, RFA_INVALID_ARGUMENT, "out", s->output[0]->dtype = type_f16)
REFUSED(tensors, q_on_cuda, RFA_INVALID_ARGUMENT, "q is on device",
        s->q->device.device_type = kDLCUDA)
REFUSED(tensors, out_on_opencl, RFA_INVALID_ARGUMENT, "out is on device",
        s->output[0]->device.device_type = kDLOpenCL)
REFUSED(tensors, q_misaligned, RFA_INVALID_ARGUMENT, "q is not aligned", s->q->byte_offset = 2)
REFUSED(tensors, lse_misaligned, RFA_INVALID_ARGUMENT, "lse is not aligned",
        s->output[1]->byte_offset = 1)

/* ---- lengths ---- */

REFUSED(tensors, q_empty_batch, RFA_INVALID_ARGUMENT, "q has length 0 in dimension 0",
        s->q->shape[0] = 0)
REFUSED(tensors, q_no_rows, RFA_INVALID_ARGUMENT, "q has length 0 in dimension 1",
        s->q->shape[1] = 0)
REFUSED(tensors, k_no_rows, RFA_INVALID_ARGUMENT, "k has length 0 in dimension 1",
        s->k->shape[1] = 0)
REFUSED(tensors, k_no_heads, RFA_INVALID_ARGUMENT, "k has length 0 in dimension 2",
        s->k->shape[2] = 0)
REFUSED(tensors, v_no_dim, RFA_INVALID_ARGUMENT, "v has length 0 in dimension 3",
        s->v->shape[3] = 0)
REFUSED(tensors, q_negative_length, RFA_INVALID_ARGUMENT, "q has length -200",
        s->q->shape[1] = -200)
REFUSED(tensors, k_another_batch, RFA_INVALID_ARGUMENT, "k has length 1 in dimension 0, expected 2",
        s->k->shape[0] = 1)
REFUSED(tensors, k_another_dim, RFA_INVALID_ARGUMENT, "k has length 8 in dimension 3, expected 16",
        s->k->shape[3] = 8)
REFUSED(tensors, v_another_length, RFA_INVALID_ARGUMENT,
        "v has length 299 in dimension 1, expected 300", s->v->shape[1] = 299)
REFUSED(tensors, v_other_heads, RFA_INVALID_ARGUMENT, "v has length 1 in dimension 2, expected 2",
        s->v->shape[2] = 1)
REFUSED(tensors, heads_no_multiple, RFA_INVALID_ARGUMENT, "multiple of k's 3",
        s->args.k = small_keep(s, TENSOR(type_f32, 2, 300, 3, 16)))
REFUSED(tensors, more_heads_in_k, RFA_INVALID_ARGUMENT, "multiple of k's 4", s->q->shape[2] = 2,
        s->args.k = small_keep(s, TENSOR(type_f32, 2, 300, 4, 16)))
REFUSED(tensors, dim_above_256, RFA_UNSUPPORTED, "257",
        s->args.q = small_keep(s, TENSOR(type_f32, 2, 200, 4, 257)),
        s->args.k = small_keep(s, TENSOR(type_f32, 2, 300, 2, 257)))
REFUSED(tensors, dim_v_above_256, RFA_UNSUPPORTED, "257",
        s->args.v = small_keep(s, TENSOR(type_f32, 2, 300, 2, 257)),
        s->args.out = small_keep(s, TENSOR(type_f32, 2, 200, 4, 257)))
REFUSED(tensors, out_another_dim, RFA_INVALID_ARGUMENT,
        "out has length 16 in dimension 3, expected 24", s->output[0]->shape[3] = 16)
REFUSED(tensors, out_another_length, RFA_INVALID_ARGUMENT, "out has length 100",
        s->output[0]->shape[1] = 100)
REFUSED(tensors, axes_taken_the_other_way, RFA_INVALID_ARGUMENT, "200 heads",
        s->args.axes = RFA_AXES_BHSD)
REFUSED(tensors, lengths_past_the_limit, RFA_UNSUPPORTED, "2^30",
        s->k->shape[1] = ((int64_t)1 << 30) + 1, s->k->strides[1] = 0)

/* ---- strides ---- */

REFUSED(tensors, last_stride_2, RFA_UNSUPPORTED, "q has stride 2 in its last dimension",
        s->q->strides[3] = 2)
REFUSED(tensors, last_stride_0, RFA_UNSUPPORTED, "k has stride 0 in its last dimension",
        s->k->strides[3] = 0)
REFUSED(tensors, negative_stride, RFA_UNSUPPORTED, "v has stride -48", s->v->strides[1] = -48)
REFUSED(tensors, negative_last_stride, RFA_UNSUPPORTED, "q has stride -1", s->q->strides[3] = -1)
REFUSED(tensors, strides_that_overflow, RFA_INVALID_ARGUMENT, "q is larger than 64 bits",
        s->q->strides[0] = INT64_MAX / 2, s->q->strides[1] = INT64_MAX / 2)
REFUSED(tensors, lengths_that_overflow, RFA_INVALID_ARGUMENT, "q is larger than 64 bits",
        s->q->strides = NULL, s->q->shape[0] = s->q->shape[1] = s->q->shape[2] = (int64_t)1 << 40)
REFUSED(tensors, bytes_that_overflow, RFA_INVALID_ARGUMENT, "k is larger than 64 bits",
        s->k->strides[0] = INT64_MAX / 3)
REFUSED(tensors, offset_that_overflows, RFA_INVALID_ARGUMENT, "q is larger than 64 bits",
        s->q->byte_offset = UINT64_MAX - 3)
REFUSED(tensors, out_rows_on_one_place, RFA_INVALID_ARGUMENT, "out is an output",
        s->output[0]->strides[1] = 0)
REFUSED(tensors, out_heads_that_overlap, RFA_INVALID_ARGUMENT, "out is an output",
        s->output[0]->strides[2] = 23)
REFUSED(tensors, lse_batches_that_overlap, RFA_INVALID_ARGUMENT, "lse is an output",
        s->output[1]->strides[0] = 0)

/* ---- optional outputs ---- */

REFUSED(tensors, lse_f16, RFA_INVALID_ARGUMENT, "lse is float16", s->output[1]->dtype = type_f16)
REFUSED(tensors, lse_shape, RFA_INVALID_ARGUMENT, "lse has length 199",
        s->output[1]->shape[2] = 199)
REFUSED(tensors, lse_rank, RFA_INVALID_ARGUMENT, "lse has 2 dimensions", s->output[1]->ndim = 2)
REFUSED(tensors, recall_heads, RFA_INVALID_ARGUMENT, "recall has length 3",
        s->output[2]->shape[1] = 3)
REFUSED(tensors, recall_strided_rows, RFA_UNSUPPORTED, "recall has stride 2",
        s->output[2]->strides[2] = 2)
REFUSED(tensors, decisions_of_signed_words, RFA_INVALID_ARGUMENT, "decisions is int32",
        s->output[3]->dtype = type_i32)
REFUSED(tensors, decisions_blocks, RFA_INVALID_ARGUMENT, "decisions has length 3",
        s->output[3]->shape[2] = 3)
REFUSED(tensors, decisions_words, RFA_INVALID_ARGUMENT, "decisions has length 2",
        s->output[3]->shape[3] = 2)
REFUSED(tensors, visit_order_slots, RFA_INVALID_ARGUMENT, "visit_order has length 2",
        s->output[4]->shape[3] = 2)
REFUSED(tensors, counts_too_small, RFA_INVALID_ARGUMENT, "counts has length 8",
        s->output[5]->shape[0] = 8)
REFUSED(tensors, counts_of_floats, RFA_INVALID_ARGUMENT, "counts is float32",
        s->output[5]->dtype = type_f32)
REFUSED(tensors, counts_misaligned, RFA_INVALID_ARGUMENT, "counts is not aligned",
        s->output[5]->byte_offset = 4)

/* ---- packed sequences ---- */

static void pack(small_problem *s)
{
    static int64_t lengths[4] = {400, 600, 600, 400};
    DLTensor *tensors[4] = {s->q, s->k, s->v, s->output[0]};
    for (int i = 0; i < 4; i++) { /* (2, L, H, D) as (2 L, H, D) */
        tensors[i]->ndim = 3;
        tensors[i]->shape++;
        tensors[i]->strides++;
        tensors[i]->shape[0] = lengths[i];
    }
    for (int i = 1; i < 3; i++) { /* (2, H, L) as (H, 2 L) */
        s->output[i]->ndim = 2;
        s->output[i]->shape++;
        s->output[i]->strides++;
        s->output[i]->shape[1] = 400;
        s->output[i]->strides[0] = 400;
    }
    DLTensor *cu_q = small_keep(s, TENSOR(type_i32, 3)), *cu_k = small_keep(s, TENSOR(type_i32, 3));
    const int32_t of_q[3] = {0, 200, 400}, of_k[3] = {0, 300, 600};
    for (int i = 0; i < 3; i++) {
        ((int32_t *)cu_q->data)[i] = of_q[i];
        ((int32_t *)cu_k->data)[i] = of_k[i];
    }
    s->args.cu_seqlens_q = cu_q;
    s->args.cu_seqlens_k = cu_k;
    s->args.max_len_q = 200;
    s->args.max_len_k = 300;
}

Test(tensors, packed_is_accepted_when_right)
{
    small_problem s;
    rfa_context *ctx = context_on("cpu", 1);
    small_create(&s, ctx);
    pack(&s);
    cr_expect_eq(rfa_attention(ctx, &s.args), RFA_OK, "%s", rfa_last_error(ctx));
    small_destroy(&s);
    rfa_context_destroy(ctx);
}

REFUSED(tensors, packed_without_cu_k, RFA_INVALID_ARGUMENT, "cu_seqlens_k is NULL", pack(s),
        s->args.cu_seqlens_k = NULL)
REFUSED(tensors, packed_without_cu_q, RFA_INVALID_ARGUMENT, "cu_seqlens_q is NULL", pack(s),
        s->args.cu_seqlens_q = NULL)
REFUSED(tensors, packed_of_int64, RFA_INVALID_ARGUMENT, "cu_seqlens_q is int64", pack(s),
        s->extra[0]->dtype.bits = 64)
REFUSED(tensors, packed_of_rank_2, RFA_INVALID_ARGUMENT, "cu_seqlens_q has 2 dimensions", pack(s),
        s->extra[0]->ndim = 2)
REFUSED(tensors, packed_of_no_sequence, RFA_INVALID_ARGUMENT, "cu_seqlens_q has 1 entries", pack(s),
        s->extra[0]->shape[0] = 1)
REFUSED(tensors, packed_of_different_counts, RFA_INVALID_ARGUMENT, "cu_seqlens_k has length 2",
        pack(s), s->extra[1]->shape[0] = 2)
REFUSED(tensors, packed_without_max_len, RFA_INVALID_ARGUMENT, "max_len_q is 0", pack(s),
        s->args.max_len_q = 0)
REFUSED(tensors, packed_max_len_past_the_pack, RFA_INVALID_ARGUMENT, "max_len_k is 601", pack(s),
        s->args.max_len_k = 601)
REFUSED(tensors, packed_max_len_negative, RFA_INVALID_ARGUMENT, "max_len_k is -1", pack(s),
        s->args.max_len_k = -1)
REFUSED(tensors, packed_with_rank_4, RFA_INVALID_ARGUMENT, "v has 4 dimensions, expected 3",
        pack(s), s->v->ndim = 4)
