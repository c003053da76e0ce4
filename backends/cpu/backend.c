/* The vtable of the cpu backend: the device, contexts, calls. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cpu.h"

/* ---- The device --------------------------------------------------------------------------- */

/* The value of a /proc/cpuinfo line "key   : value", or "". */
static void read_cpuinfo(const char *key, char *value, size_t size)
{
    char line[256];
    FILE *file = fopen("/proc/cpuinfo", "re");
    value[0] = '\0';
    while (file && value[0] == '\0' && fgets(line, sizeof(line), file)) {
        size_t length = strlen(key);
        char *colon = strchr(line, ':');
        if (!colon || strncmp(line, key, length) != 0 ||
            line + length + strspn(line + length, " \t") != colon)
            continue;
        line[strcspn(line, "\n")] = '\0';
        snprintf(value, size, "%s", colon + 1 + (colon[1] == ' '));
    }
    if (file)
        fclose(file);
}

static void name_processor(char *name, size_t size)
{
    static const char *const keys[] = {"model name", "Model", "cpu model", "cpu", "uarch"};
    name[0] = '\0';
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]) && name[0] == '\0'; i++)
        read_cpuinfo(keys[i], name, size);
    if (name[0] == '\0')
        snprintf(name, size, "processor");
}

static rfa_status device_count(int32_t *count, rfa_error *err)
{
    (void)err;
    *count = 1;
    return RFA_OK;
}

static rfa_status device_get(int32_t index, rfa_device_info *info, rfa_error *err)
{
    const cpu_isa *isa;
    rfa_error why = {""};
    if (index != 0)
        return rfa_fail(err, RFA_NO_DEVICE, "there is no device %d, the cpu backend has one",
                        (int)index);
    memset(info, 0, sizeof(*info));
    name_processor(info->name, sizeof(info->name));
    info->device = (DLDevice){kDLCPU, 0};
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    info->memory = pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page : 0;
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    info->compute_units = cores > 0 ? (int32_t)cores : 0;
    info->status = cpu_choose_isa(&isa, &why);
    if (info->status == RFA_OK) {
        cpu_describe_isa(isa, info->detail, sizeof(info->detail));
        info->weights = isa->bf16 ? RFA_WEIGHTS_BF16 : 0;
    }
    snprintf(info->why, sizeof(info->why), "%.255s", why.text);
    return RFA_OK;
}

/* ---- Contexts ------------------------------------------------------------------------------ */

static int32_t default_threads(void)
{
#ifdef _OPENMP
    return omp_get_max_threads();
#else
    return 1;
#endif
}

static rfa_status context_create(const rfa_context_options *options, void **result, rfa_error *err)
{
    const cpu_isa *isa;
    *result = NULL;
    if (options->device != 0)
        return rfa_fail(err, RFA_NO_DEVICE, "there is no device %d, the cpu backend has one",
                        (int)options->device);
    rfa_status status = cpu_enable_isa(&isa, err);
    if (status != RFA_OK)
        return status;
    cpu_state *state = malloc(sizeof(*state));
    if (!state)
        return rfa_fail(err, RFA_OUT_OF_MEMORY, "no memory for a context");
    int32_t threads = options->threads > 0 ? options->threads : default_threads();
    *state =
        (cpu_state){.isa = isa, .threads = threads < CPU_MAX_THREADS ? threads : CPU_MAX_THREADS};
#ifndef _OPENMP
    state->threads = 1;
#endif
    *result = state;
    return RFA_OK;
}

static void context_destroy(void *state)
{
    free(((cpu_state *)state)->workspace.data);
    free(state);
}

static DLDevice context_device(void *state)
{
    (void)state;
    return (DLDevice){kDLCPU, 0};
}

/* ---- Attention ------------------------------------------------------------------------------- */

static rfa_status plan_for(void *state, const rfa_problem *p, bool list_only,
                           size_t *workspace_size, rfa_error *err)
{
    cpu_layout layout;
    *workspace_size = 0;
    if (p->replay.data)
        return rfa_fail(err, RFA_UNSUPPORTED,
                        "replay is given, only the reference backend follows decisions");
    rfa_status status = cpu_layout_of(&layout, state, p, list_only, NULL, err);
    if (status == RFA_OK)
        *workspace_size = layout.size;
    return status;
}

static rfa_status plan(void *state, const rfa_problem *p, size_t *workspace_size, rfa_error *err)
{
    return plan_for(state, p, false, workspace_size, err);
}

static rfa_status plan_list(void *state, const rfa_problem *p, size_t *workspace_size,
                            rfa_error *err)
{
    return plan_for(state, p, true, workspace_size, err);
}

static rfa_status run(void *state, const rfa_problem *p, void *workspace, rfa_error *err)
{
    return cpu_run(state, p, workspace, err);
}

static rfa_status build_list(void *state, const rfa_problem *p, void *workspace, rfa_error *err)
{
    return cpu_build_list(state, p, workspace, err);
}

static rfa_status merge(void *state, const rfa_merge_problem *p, rfa_error *err)
{
    return cpu_merge(state, p, err);
}

static rfa_status workspace_take(void *state, size_t size, void *stream, void **data,
                                 rfa_error *err)
{
    (void)stream;
    return rfa_host_workspace_take(&((cpu_state *)state)->workspace, size, data, err);
}

static const rfa_backend backend = {
    .abi = RFA_BACKEND_ABI,
    .struct_size = sizeof(rfa_backend),
    .name = "cpu",
    .device_count = device_count,
    .device_get = device_get,
    .context_create = context_create,
    .context_destroy = context_destroy,
    .context_device = context_device,
    .plan = plan,
    .run = run,
    .plan_list = plan_list,
    .build_list = build_list,
    .merge = merge,
    .workspace_take = workspace_take,
    RFA_HOST_MEMORY_SLOTS,
};

__attribute__((visibility("default"))) const rfa_backend *rfa_backend_entry(void);

const rfa_backend *rfa_backend_entry(void)
{
    return &backend;
}
