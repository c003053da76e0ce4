/* Checks the arguments of a merge and turns them into one plain problem. */
#include "src/problem.h"

#include <string.h>

#include "src/overlap.h"
#include "src/struct.h"
#include "src/tensor.h"

static const rfa_struct_spec args_spec = {"args", "RFA_MERGE_ARGS_INIT",
                                          RFA_SIZE_THROUGH(rfa_merge_args, stream),
                                          sizeof(rfa_merge_args)};

static rfa_status check_args(const rfa_merge_args *a, rfa_error *err)
{
    if (a->parts < 1 || a->parts > RFA_MAX_MERGE_PARTS)
        return rfa_fail(err, RFA_INVALID_ARGUMENT, "parts is %zu, expected 1 to %d", a->parts,
                        RFA_MAX_MERGE_PARTS);
    if ((int)a->axes < 0 || a->axes > RFA_AXES_BHSD)
        return rfa_fail(err, RFA_INVALID_ARGUMENT, "axes is %d, expected 0 or 1", (int)a->axes);
    if (!a->part_out || !a->part_lse)
        return rfa_fail(err, RFA_INVALID_ARGUMENT, "%s is NULL",
                        a->part_out ? "part_lse" : "part_out");
    if (a->recall && !a->part_recall)
        return rfa_fail(err, RFA_INVALID_ARGUMENT, "recall is asked for without part_recall");
    return RFA_OK;
}

/* Lengths come from the first part, so that every other tensor has something
 * to be compared with. */
static rfa_status take_shape(rfa_merge_problem *p, const rfa_merge_args *a, int places[4],
                             rfa_error *err)
{
    const DLTensor *first = a->part_out[0];
    rfa_status status = rfa_tensor_dtype(first, "part_out[0]", &p->dtype, err);
    if (status != RFA_OK)
        return status;
    if ((first->ndim != 3 && first->ndim != 4) || !first->shape)
        return rfa_fail(err, RFA_INVALID_ARGUMENT,
                        "part_out[0] has %d dimensions, expected 4, or 3 when packed",
                        (int)first->ndim);
    bool packed = first->ndim == 3, bhsd = !packed && a->axes == RFA_AXES_BHSD;
    places[0] = packed ? -1 : 0;
    places[1] = packed ? 1 : bhsd ? 1 : 2; /* head */
    places[2] = packed ? 0 : bhsd ? 2 : 1; /* row */
    places[3] = first->ndim - 1;
    p->batch = packed ? 1 : first->shape[0];
    p->heads = first->shape[places[1]];
    p->len = first->shape[places[2]];
    if (first->shape[places[3]] > RFA_MAX_DIM)
        return rfa_fail(err, RFA_UNSUPPORTED,
                        "part_out[0] has head dim %lld, at most %d is supported",
                        (long long)first->shape[places[3]], RFA_MAX_DIM);
    p->dim = (int32_t)first->shape[places[3]];
    return RFA_OK;
}

static rfa_status take_out(const rfa_merge_problem *p, const DLTensor *t, const char *name,
                           rfa_dtype dtype, const int places[4], bool written, DLDevice device,
                           rfa_view *view, rfa_error *err)
{
    rfa_tensor_spec spec = rfa_tensor_spec_of(name, dtype, places[0] < 0 ? 3 : 4);
    if (places[0] >= 0)
        spec.shape[places[0]] = p->batch;
    spec.shape[places[1]] = p->heads;
    spec.shape[places[2]] = p->len;
    spec.shape[places[3]] = p->dim;
    spec.written = written;
    rfa_status status = rfa_tensor_check(t, &spec, device, err);
    if (status == RFA_OK)
        *view = rfa_tensor_view(t, places[0], places[1], places[2]);
    return status;
}

static rfa_status take_row(const rfa_merge_problem *p, const DLTensor *t, const char *name,
                           bool packed, bool written, DLDevice device, rfa_view *view,
                           rfa_error *err)
{
    rfa_tensor_spec spec = rfa_tensor_spec_of(name, RFA_F32, packed ? 2 : 3);
    int at = 0;
    if (!packed)
        spec.shape[at++] = p->batch;
    spec.shape[at++] = p->heads;
    spec.shape[at] = p->len;
    spec.written = written;
    rfa_status status = rfa_tensor_check(t, &spec, device, err);
    if (status != RFA_OK)
        return status;
    *view = rfa_tensor_view(t, packed ? -1 : 0, at - 1, -1);
    view->stride[2] = 1;
    return RFA_OK;
}

static rfa_status take_part(rfa_merge_problem *p, const rfa_merge_args *a, size_t i,
                            const int places[4], DLDevice device, rfa_error *err)
{
    char name[48];
    bool packed = places[0] < 0;
    snprintf(name, sizeof(name), "part_out[%zu]", i);
    rfa_status status =
        take_out(p, a->part_out[i], name, p->dtype, places, false, device, &p->part_out[i], err);
    snprintf(name, sizeof(name), "part_lse[%zu]", i);
    if (status == RFA_OK)
        status = take_row(p, a->part_lse[i], name, packed, false, device, &p->part_lse[i], err);
    snprintf(name, sizeof(name), "part_recall[%zu]", i);
    if (status == RFA_OK && a->part_recall)
        status =
            take_row(p, a->part_recall[i], name, packed, false, device, &p->part_recall[i], err);
    return status;
}

/* Outputs may be the first part's own tensors. */
static rfa_status check_overlap(const rfa_merge_args *a, DLDevice device, rfa_error *err)
{
    rfa_extents e;
    rfa_extents_start(&e, device);
    rfa_extents_add_output(&e, a->out, "out", a->part_out[0]);
    rfa_extents_add_output(&e, a->lse, "lse", a->part_lse[0]);
    rfa_extents_add_output(&e, a->recall, "recall", a->part_recall ? a->part_recall[0] : NULL);
    for (size_t i = 0; i < a->parts; i++) {
        rfa_extents_add_input(&e, a->part_out[i], "part_out", (int)i);
        rfa_extents_add_input(&e, a->part_lse[i], "part_lse", (int)i);
        if (a->part_recall)
            rfa_extents_add_input(&e, a->part_recall[i], "part_recall", (int)i);
    }
    return rfa_extents_check(&e, err);
}

static rfa_status build(rfa_merge_problem *p, const rfa_merge_args *a, DLDevice device,
                        rfa_error *err)
{
    int places[4] = {0};
    rfa_status status = check_args(a, err);
    if (status == RFA_OK)
        status = take_shape(p, a, places, err);
    if (status != RFA_OK)
        return status;
    p->parts = a->parts;
    p->stream = a->stream;
    for (size_t i = 0; i < a->parts && status == RFA_OK; i++)
        status = take_part(p, a, i, places, device, err);
    if (status == RFA_OK)
        status = rfa_tensor_dtype(a->out, "out", &p->out_dtype, err);
    if (status == RFA_OK && p->out_dtype != p->dtype && p->dtype != RFA_F32)
        status = rfa_fail(err, RFA_INVALID_ARGUMENT,
                          "out must have the dtype of the parts unless they are f32");
    if (status == RFA_OK)
        status = take_out(p, a->out, "out", p->out_dtype, places, true, device, &p->out, err);
    if (status == RFA_OK && a->lse)
        status = take_row(p, a->lse, "lse", places[0] < 0, true, device, &p->lse, err);
    if (status == RFA_OK && a->recall)
        status = take_row(p, a->recall, "recall", places[0] < 0, true, device, &p->recall, err);
    return status == RFA_OK ? check_overlap(a, device, err) : status;
}

rfa_status rfa_merge_problem_build(rfa_merge_problem *p, const rfa_merge_args *args,
                                   DLDevice device, rfa_error *err)
{
    rfa_merge_args own;
    memset(p, 0, sizeof(*p));
    rfa_status status = rfa_struct_take(&args_spec, args, &own, err);
    return status == RFA_OK ? build(p, &own, device, err) : status;
}
