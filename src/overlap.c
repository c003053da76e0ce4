/* Whether outputs share memory with inputs or with each other. */
#include "src/overlap.h"

#include "src/tensor.h"

/* Elements from the first on without a gap; axes of length 1 do not matter. */
static uint64_t run_length(const DLTensor *t)
{
    uint64_t run = 1;
    for (int i = t->ndim - 1; i >= 0; i--) {
        if (t->shape[i] > 1 && (uint64_t)rfa_tensor_stride(t, i) != run)
            break;
        run *= (uint64_t)t->shape[i];
    }
    return run;
}

/* No more is set: the rest is large, and this is on every call's way. */
void rfa_extents_start(rfa_extents *e, DLDevice device)
{
    e->count = 0;
    e->device = device;
}

static rfa_extent *add(rfa_extents *e, const DLTensor *t, const char *name, int index)
{
    uint64_t bytes = t->dtype.bits / 8, last = 0;
    bool handle = e->device.device_type == kDLOpenCL;
    for (int i = 0; i < t->ndim; i++)
        last += (uint64_t)(t->shape[i] - 1) * (uint64_t)rfa_tensor_stride(t, i);
    rfa_extent *x = &e->at[e->count++];
    *x = (rfa_extent){.name = name, .index = index, .tensor = t};
    x->buffer = handle ? (uintptr_t)t->data : 0;
    x->begin = t->byte_offset + (handle ? 0 : (uintptr_t)t->data);
    x->end = x->begin + (last + 1) * bytes;
    x->run = run_length(t) * bytes;
    return x;
}

void rfa_extents_add_input(rfa_extents *e, const DLTensor *tensor, const char *name, int index)
{
    if (tensor && e->count < RFA_OVERLAP_MAX)
        add(e, tensor, name, index);
}

void rfa_extents_add_output(rfa_extents *e, const DLTensor *tensor, const char *name,
                            const DLTensor *may_be)
{
    if (!tensor || e->count == RFA_OVERLAP_MAX)
        return;
    rfa_extent *x = add(e, tensor, name, -1);
    x->written = true;
    x->may_be = may_be;
}

static bool meet(uint64_t a, uint64_t a_end, uint64_t b, uint64_t b_end)
{
    return a < b_end && b < a_end;
}

static bool share_bytes(const rfa_extent *x, const rfa_extent *y)
{
    if (x->buffer != y->buffer || !meet(x->begin, x->end, y->begin, y->end))
        return false;
    uint64_t x_head = x->begin + x->run, x_tail = x->end - x->run;
    uint64_t y_head = y->begin + y->run, y_tail = y->end - y->run;
    return meet(x->begin, x_head, y->begin, y_head) || meet(x->begin, x_head, y_tail, y->end) ||
           meet(x_tail, x->end, y->begin, y_head) || meet(x_tail, x->end, y_tail, y->end);
}

static bool same_tensor(const rfa_extent *x, const rfa_extent *y)
{
    const DLTensor *a = x->tensor, *b = y->tensor;
    bool same = x->begin == y->begin && a->dtype.code == b->dtype.code &&
                a->dtype.bits == b->dtype.bits && a->ndim == b->ndim;
    for (int i = 0; same && i < a->ndim; i++)
        same = a->shape[i] == b->shape[i] && rfa_tensor_stride(a, i) == rfa_tensor_stride(b, i);
    return same;
}

static const char *name_of(const rfa_extent *x, char *text, size_t size)
{
    if (x->index < 0)
        return x->name;
    snprintf(text, size, "%s[%d]", x->name, x->index);
    return text;
}

rfa_status rfa_extents_check(const rfa_extents *e, rfa_error *err)
{
    char one[48], other[48];
    for (size_t i = 0; i < e->count; i++) {
        const rfa_extent *x = &e->at[i];
        for (size_t j = 0; x->written && j < e->count; j++) {
            const rfa_extent *y = &e->at[j];
            if (i == j || !share_bytes(x, y))
                continue;
            if (x->may_be && y->tensor == x->may_be && same_tensor(x, y))
                continue;
            return rfa_fail(err, RFA_INVALID_ARGUMENT, "%s is an output and shares memory with %s",
                            name_of(x, one, sizeof(one)), name_of(y, other, sizeof(other)));
        }
    }
    return RFA_OK;
}
