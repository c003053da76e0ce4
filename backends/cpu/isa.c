/* Which of the compiled instruction sets this processor runs. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#ifdef RFA_CPU_X86
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif
#ifdef RFA_CPU_ARM
#include <sys/auxv.h>
#endif

#include "cpu.h"

/* From the least to the best. */
static const cpu_isa built[] = {
    {"portable", &cpu_kernels_portable, NULL},
#ifdef RFA_CPU_X86
    {"avx2", &cpu_kernels_avx2, NULL},
    {"avx512", &cpu_kernels_avx512, NULL},
    {"avx512bf16", &cpu_kernels_avx512, &cpu_kernels_avx512bf16},
    {"amx", &cpu_kernels_avx512, &cpu_kernels_amx},
#endif
#ifdef RFA_CPU_ARM
    {"neon", &cpu_kernels_neon, NULL},
    {"neonbf16", &cpu_kernels_neon, &cpu_kernels_neonbf16},
#endif
};

enum { BUILT = sizeof(built) / sizeof(built[0]) };

/* ---- What the processor and the operating system say ----------------------------- */

#ifdef RFA_CPU_X86

/* The kernel's names for asking about and for the tiles' registers. */
enum { ARCH_GET_XCOMP_SUPP = 0x1021, ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };

#ifdef RFA_CPU_AMX_EMULATED

static bool has_tiles(void)
{
    return true;
}

static bool permit_tiles(void)
{
    return true;
}

#else

/* AMX-TILE and AMX-BF16, with both tile states saved by the operating system. */
static bool has_tiles(void)
{
    const unsigned amx_bf16 = 1u << 22, amx_tile = 1u << 24, xsave = 1u << 27;
    const uint64_t states = 3u << 17;
    unsigned a, b, c, d, low, high;
    uint64_t supported = 0;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & xsave))
        return false;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    if ((low & states) != states || !__get_cpuid_count(7, 0, &a, &b, &c, &d))
        return false;
    if (!(d & amx_bf16) || !(d & amx_tile))
        return false;
    return syscall(SYS_arch_prctl, ARCH_GET_XCOMP_SUPP, &supported) == 0 &&
           supported >> XFEATURE_XTILEDATA & 1;
}

/* Tiles make a thread's saved state larger by 8 KiB, so that Linux wants to be
 * asked, once a process. It refuses where some signal stack is too small. */
static bool permit_tiles(void)
{
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}

#endif

/* __builtin_cpu_supports also asks what registers the operating system saves. */
static bool runs_here(const cpu_isa *isa)
{
    __builtin_cpu_init();
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                  __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
    bool avx512bf16 = avx512 && __builtin_cpu_supports("avx512bf16");
    if (isa->bf16 == &cpu_kernels_amx)
        return avx512bf16 && has_tiles();
    if (isa->bf16 == &cpu_kernels_avx512bf16)
        return avx512bf16;
    if (isa->f32 == &cpu_kernels_avx512)
        return avx512;
    return isa->f32 == &cpu_kernels_portable || avx2;
}

static bool enable(const cpu_isa *isa)
{
    return isa->bf16 != &cpu_kernels_amx || permit_tiles();
}

/* On Sapphire Rapids a bf16 dot product takes four times an f32 multiply-add: 0.48
 * TFLOP/s against 0.69 with f32 kernels, on 16 cores. */
static bool chosen_unasked(const cpu_isa *isa)
{
    return isa->bf16 != &cpu_kernels_avx512bf16 || !__builtin_cpu_is("intel");
}

#else

static bool runs_here(const cpu_isa *isa)
{
#ifdef RFA_CPU_ARM
    const unsigned long bf16 = 1u << 14; /* HWCAP2_BF16 */
    if (isa->bf16 == &cpu_kernels_neonbf16)
        return getauxval(AT_HWCAP2) & bf16;
#endif
    (void)isa;
    return true;
}

static bool enable(const cpu_isa *isa)
{
    (void)isa;
    return true;
}

/* NEON's bf16 kernels have run a few cases under qemu only. */
static bool chosen_unasked(const cpu_isa *isa)
{
    return !isa->bf16;
}

#endif

/* ---- The choice -------------------------------------------------------------------- */

/* " portable avx2": those that run here, or all that were compiled. */
static void list_isas(bool all, char *text, size_t size)
{
    size_t used = 0;
    text[0] = '\0';
    for (int i = 0; i < BUILT && used < size; i++)
        if (all || runs_here(&built[i]))
            used += (size_t)snprintf(text + used, size - used, " %s", built[i].name);
}

static bool is_built(const char *name)
{
    for (int i = 0; i < BUILT; i++)
        if (strcmp(name, built[i].name) == 0)
            return true;
    return false;
}

/* The best one up to number `last`, or NULL. */
static const cpu_isa *best_isa(const char *wanted, int last)
{
    for (int i = last; i >= 0; i--) {
        bool asked =
            wanted && *wanted ? strcmp(wanted, built[i].name) == 0 : chosen_unasked(&built[i]);
        if (asked && runs_here(&built[i]))
            return &built[i];
    }
    return NULL;
}

rfa_status cpu_choose_isa(const cpu_isa **isa, rfa_error *err)
{
    const char *wanted = getenv("RFA_CPU_ISA");
    char names[80];
    *isa = best_isa(wanted, BUILT - 1);
    if (*isa)
        return RFA_OK;
    bool known = wanted && is_built(wanted);
    list_isas(!known, names, sizeof(names));
    if (!known)
        return rfa_fail(err, RFA_INVALID_ARGUMENT,
                        "RFA_CPU_ISA is \"%.40s\", no set of kernels of this build, which has:%s",
                        wanted, names);
    return rfa_fail(err, RFA_NO_DEVICE, "RFA_CPU_ISA is \"%.40s\", this processor runs only:%s",
                    wanted, names);
}

rfa_status cpu_enable_isa(const cpu_isa **isa, rfa_error *err)
{
    const char *wanted = getenv("RFA_CPU_ISA");
    rfa_status status = cpu_choose_isa(isa, err);
    while (status == RFA_OK && !enable(*isa)) {
        *isa = best_isa(wanted, (int)(*isa - built) - 1);
        if (!*isa)
            status = rfa_fail(err, RFA_NO_DEVICE,
                              "RFA_CPU_ISA is \"%.40s\", but the operating system refuses its "
                              "registers: %s",
                              wanted, strerror(errno));
    }
    return status;
}

void cpu_describe_isa(const cpu_isa *chosen, char *text, size_t size)
{
    char usable[80];
    list_isas(false, usable, sizeof(usable));
    snprintf(text, size, "ISA %s (of%s)", chosen->name, usable);
}

/* Below this the padding of bf16 tiles costs more than they gain. */
#define LEAST_BF16_DIM 16

const cpu_kernels *cpu_kernels_for(const cpu_isa *isa, const rfa_problem *p)
{
    bool narrow = p->dtype == RFA_BF16 && p->dim >= LEAST_BF16_DIM && p->dim_v >= LEAST_BF16_DIM;
    return narrow && isa->bf16 ? isa->bf16 : isa->f32;
}
