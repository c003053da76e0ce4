/* A backend table that is whole but does nothing, for modules that are broken in
 * just one way. */
#ifndef RFA_TEST_WHOLE_H
#define RFA_TEST_WHOLE_H

#include "backends/backend.h"

#define MODULE_EXPORT __attribute__((visibility("default")))

const rfa_backend *rfa_backend_entry(void);

static rfa_status no(rfa_error *err)
{
    return rfa_fail(err, RFA_UNSUPPORTED, "this module is a test's and does nothing");
}

static rfa_status device_count(int32_t *count, rfa_error *err)
{
    (void)err;
    *count = 0;
    return RFA_OK;
}

static rfa_status device_get(int32_t index, rfa_device_info *info, rfa_error *err)
{
    (void)index;
    (void)info;
    return no(err);
}

static rfa_status context_create(const rfa_context_options *options, void **state, rfa_error *err)
{
    (void)options;
    (void)state;
    return no(err);
}

static void context_destroy(void *state)
{
    (void)state;
}

static DLDevice context_device(void *state)
{
    (void)state;
    return (DLDevice){kDLCPU, 0};
}

static rfa_status plan(void *state, const rfa_problem *p, size_t *size, rfa_error *err)
{
    (void)state;
    (void)p;
    (void)size;
    return no(err);
}

static rfa_status run(void *state, const rfa_problem *p, void *workspace, rfa_error *err)
{
    (void)state;
    (void)p;
    (void)workspace;
    return no(err);
}

static rfa_status merge(void *state, const rfa_merge_problem *p, rfa_error *err)
{
    (void)state;
    (void)p;
    return no(err);
}

static rfa_status workspace_take(void *state, size_t size, void *stream, void **data,
                                 rfa_error *err)
{
    (void)state;
    (void)size;
    (void)stream;
    (void)data;
    return no(err);
}

static rfa_status use_stream(void *state, void *stream, rfa_error *err)
{
    (void)state;
    (void)stream;
    return no(err);
}

static rfa_status alloc_memory(void *state, size_t size, void **data, rfa_error *err)
{
    (void)state;
    (void)size;
    (void)data;
    return no(err);
}

static void free_memory(void *state, void *data)
{
    (void)state;
    (void)data;
}

static rfa_status write_memory(void *state, void *data, size_t offset, const void *host,
                               size_t size, void *stream, rfa_error *err)
{
    (void)state;
    (void)data;
    (void)offset;
    (void)host;
    (void)size;
    (void)stream;
    return no(err);
}

static rfa_status read_memory(void *state, const void *data, size_t offset, void *host, size_t size,
                              void *stream, rfa_error *err)
{
    (void)state;
    (void)data;
    (void)offset;
    (void)host;
    (void)size;
    (void)stream;
    return no(err);
}

static rfa_status make_timer(void *state, void **timer, rfa_error *err)
{
    (void)state;
    (void)timer;
    return no(err);
}

static rfa_status mark_timer(void *state, void *timer, void *stream, rfa_error *err)
{
    (void)state;
    (void)timer;
    (void)stream;
    return no(err);
}

static rfa_status read_timer(void *state, void *timer, double *seconds, rfa_error *err)
{
    (void)state;
    (void)timer;
    (void)seconds;
    return no(err);
}

#define WHOLE_TABLE(its_name)                                                                      \
    {                                                                                              \
        .abi = RFA_BACKEND_ABI, .struct_size = sizeof(rfa_backend), .name = (its_name),            \
        .device_count = device_count, .device_get = device_get, .context_create = context_create,  \
        .context_destroy = context_destroy, .context_device = context_device, .plan = plan,        \
        .run = run, .plan_list = plan, .build_list = run, .merge = merge,                          \
        .workspace_take = workspace_take, .workspace_give = use_stream, .alloc = alloc_memory,     \
        .free = free_memory, .write = write_memory, .read = read_memory,                           \
        .synchronize = use_stream, .timer_create = make_timer, .timer_destroy = free_memory,       \
        .timer_start = mark_timer, .timer_stop = mark_timer, .timer_read = read_timer              \
    }

#endif
