/* Which of the compiled instruction sets this processor runs. */
#include <stdlib.h>
#include <string.h>

#include "cpu.h"

/* Narrow to wide. */
static const cpu_kernels *const built[] = {
    &cpu_kernels_portable,
#ifdef RFA_CPU_X86
    &cpu_kernels_avx2,
    &cpu_kernels_avx512,
#endif
};

enum { BUILT = sizeof(built) / sizeof(built[0]) };

/* __builtin_cpu_supports also asks what registers the operating system saves. */
static bool runs_here(const cpu_kernels *kernels)
{
#ifdef RFA_CPU_X86
    __builtin_cpu_init();
    if (kernels == &cpu_kernels_avx2)
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (kernels == &cpu_kernels_avx512)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
               __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
    return kernels == &cpu_kernels_portable;
}

/* " portable avx2", for those that run here. */
static void list_usable(char *text, size_t size)
{
    size_t used = 0;
    text[0] = '\0';
    for (int i = 0; i < BUILT && used < size; i++)
        if (runs_here(built[i]))
            used += (size_t)snprintf(text + used, size - used, " %s", built[i]->isa);
}

rfa_status cpu_choose_kernels(const cpu_kernels **kernels, rfa_error *err)
{
    const char *wanted = getenv("RFA_CPU_ISA");
    char usable[64];
    *kernels = NULL;
    for (int i = 0; i < BUILT; i++)
        if (runs_here(built[i]) && (!wanted || !*wanted || strcmp(wanted, built[i]->isa) == 0))
            *kernels = built[i];
    if (*kernels)
        return RFA_OK;
    list_usable(usable, sizeof(usable));
    return rfa_fail(err, RFA_NO_DEVICE, "RFA_CPU_ISA is \"%.40s\", this processor runs:%s", wanted,
                    usable);
}

void cpu_describe_kernels(const cpu_kernels *chosen, char *text, size_t size)
{
    char usable[64];
    list_usable(usable, sizeof(usable));
    snprintf(text, size, "ISA %s (of%s)", chosen->isa, usable);
}
