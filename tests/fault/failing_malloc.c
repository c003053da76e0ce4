#include "failing_malloc.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- The allocator behind ------------------------------------------------------ */

/* glibc's own names; under a sanitizer, its interceptors, which may be given the
 * memory of early callers too. */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *old, size_t size);
void *__libc_memalign(size_t alignment, size_t size);
void __libc_free(void *memory);

#define WEAK __attribute__((weak))
void *__interceptor_malloc(size_t size) WEAK;
void *__interceptor_calloc(size_t count, size_t size) WEAK;
void *__interceptor_realloc(void *old, size_t size) WEAK;
void *__interceptor_memalign(size_t alignment, size_t size) WEAK;
void __interceptor_free(void *memory) WEAK;

#define REAL(name, ...)                                                                            \
    (__interceptor_##name ? __interceptor_##name(__VA_ARGS__) : __libc_##name(__VA_ARGS__))

/* ---- Counting ------------------------------------------------------------------- */

enum { MOST_LEFT = 1 << 15 };

static atomic_bool armed;
static atomic_bool onwards_too;
static atomic_long fail_at, counted, failures;
static atomic_flag lock = ATOMIC_FLAG_INIT;
static uintptr_t left[MOST_LEFT]; /* counted, not freed: inverted, lest a leak look used */
static long left_count;
/* Not to be found through the loader, which allocates for that. */
#define PER_THREAD static _Thread_local __attribute__((tls_model("initial-exec")))
PER_THREAD bool in_dlopen, dlopen_failed, in_sanitizer;

static void lock_left(void)
{
    while (atomic_flag_test_and_set(&lock))
        ;
}

static void remember(void *memory)
{
    lock_left();
    if (left_count < MOST_LEFT)
        left[left_count] = ~(uintptr_t)memory;
    left_count++; /* past the end: reported, never freed */
    atomic_flag_clear(&lock);
}

/* Young memory is freed first, so it is looked for from the end. */
static bool forget(const void *memory)
{
    lock_left();
    long i = (left_count < MOST_LEFT ? left_count : MOST_LEFT) - 1;
    while (i >= 0 && left[i] != ~(uintptr_t)memory)
        i--;
    if (i >= 0 && --left_count < MOST_LEFT)
        left[i] = left[left_count];
    atomic_flag_clear(&lock);
    return i >= 0;
}

static bool is_named(const char *path, const char *name)
{
    const char *slash = strrchr(path, '/');
    return strncmp(slash ? slash + 1 : path, name, strlen(name)) == 0;
}

static bool is_counted(const void *caller)
{
    Dl_info info;
    if (!atomic_load(&armed) || in_sanitizer)
        return false;
    if (!dladdr(caller, &info) || !info.dli_fname)
        return true;
    if (is_named(info.dli_fname, "libgomp") || is_named(info.dli_fname, "libomp"))
        return false;
    if (info.dli_sname && strcmp(info.dli_sname, "_IO_file_doallocate") == 0)
        return false;
    return in_dlopen || !is_named(info.dli_fname, "ld-");
}

static bool fails_now(void)
{
    long n = atomic_fetch_add(&counted, 1) + 1, at = atomic_load(&fail_at);
    if (at == 0 || !(n == at || (n > at && atomic_load(&onwards_too))) || dlopen_failed)
        return false;
    dlopen_failed = in_dlopen;
    atomic_fetch_add(&failures, 1);
    errno = ENOMEM;
    return true;
}

/* ---- Steering ------------------------------------------------------------------- */

void fail_arm(long at, bool onwards)
{
    atomic_store(&counted, 0);
    atomic_store(&failures, 0);
    atomic_store(&fail_at, at);
    atomic_store(&onwards_too, onwards);
    left_count = 0;
    atomic_store(&armed, true);
}

void fail_pause(void)
{
    atomic_store(&fail_at, 0);
}

fail_tally fail_disarm(void)
{
    atomic_store(&armed, false);
    return (fail_tally){atomic_load(&counted), atomic_load(&failures), left_count};
}

#ifdef FAILING_MALLOC_PRELOADED
__attribute__((constructor)) static void begin(void)
{
    const char *at = getenv("FAIL_AT");
    if (at)
        fail_arm(strtol(at, NULL, 10), getenv("FAIL_ONWARDS") != NULL);
}

__attribute__((destructor)) static void end(void)
{
    char text[96];
    const char *path = getenv("FAIL_REPORT");
    if (!path || !atomic_load(&armed))
        return;
    fail_tally tally = fail_disarm();
    int length =
        snprintf(text, sizeof(text), "%ld %ld %ld\n", tally.allocations, tally.failed, tally.left);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, text, (size_t)length) != length)
        _exit(99);
    close(fd);
}
#endif

/* ---- What replaces the C library's ------------------------------------------------ */

#define CALLER __builtin_return_address(0)
#define SHOWN __attribute__((visibility("default"), noinline))

static void *allocate(size_t alignment, size_t size, const void *caller)
{
    bool counts = is_counted(caller);
    if (counts && fails_now())
        return NULL;
    void *memory = alignment ? REAL(memalign, alignment, size) : REAL(malloc, size);
    if (counts && memory)
        remember(memory);
    return memory;
}

SHOWN void *malloc(size_t size)
{
    return allocate(0, size, CALLER);
}

SHOWN void *calloc(size_t count, size_t size)
{
    bool counts = is_counted(CALLER);
    if (counts && fails_now())
        return NULL;
    void *memory = REAL(calloc, count, size);
    if (counts && memory)
        remember(memory);
    return memory;
}

SHOWN void *realloc(void *old, size_t size)
{
    bool counts = is_counted(CALLER);
    if (counts && size > 0 && fails_now())
        return NULL;
    bool known = old && atomic_load(&armed) && forget(old);
    void *memory = REAL(realloc, old, size);
    if ((counts || known) && (memory || size > 0))
        remember(memory ? memory : old);
    return memory;
}

SHOWN void *reallocarray(void *old, size_t count, size_t size)
{
    size_t bytes;
    bool counts = is_counted(CALLER);
    if (__builtin_mul_overflow(count, size, &bytes) || (counts && bytes > 0 && fails_now())) {
        errno = ENOMEM;
        return NULL;
    }
    bool known = old && atomic_load(&armed) && forget(old);
    void *memory = REAL(realloc, old, bytes);
    if ((counts || known) && (memory || bytes > 0))
        remember(memory ? memory : old);
    return memory;
}

SHOWN void *aligned_alloc(size_t alignment, size_t size)
{
    return allocate(alignment, size, CALLER);
}

SHOWN void *memalign(size_t alignment, size_t size)
{
    return allocate(alignment, size, CALLER);
}

SHOWN int posix_memalign(void **memory, size_t alignment, size_t size)
{
    if (alignment < sizeof(void *) || (alignment & (alignment - 1)))
        return EINVAL;
    int saved = errno;
    void *made = allocate(alignment, size, CALLER);
    errno = saved;
    if (made)
        *memory = made;
    return made ? 0 : ENOMEM;
}

/* A sanitizer's strdup would go round the malloc above. */
SHOWN char *strdup(const char *text)
{
    size_t size = strlen(text) + 1;
    char *copy = allocate(0, size, CALLER);
    return copy ? memcpy(copy, text, size) : NULL;
}

SHOWN void free(void *memory)
{
    if (memory && atomic_load(&armed))
        forget(memory);
    if (__interceptor_free)
        __interceptor_free(memory);
    else
        __libc_free(memory);
}

static void *next(const char *name)
{
    return dlsym(RTLD_NEXT, name);
}

SHOWN void *dlopen(const char *path, int flags)
{
    void *(*real)(const char *, int);
    void *symbol = next("dlopen");
    memcpy(&real, &symbol, sizeof(real));
    in_dlopen = true;
    void *handle = real(path, flags);
    in_dlopen = dlopen_failed = false;
    return handle;
}

/* Found before anything fails: a dlopen that ran out of memory may keep the
 * loader's lock, and a new thread that calls dlsym would wait for it for ever. */
static int (*real_getattr)(pthread_t, pthread_attr_t *);

__attribute__((constructor)) static void find_getattr(void)
{
    void *symbol = next("pthread_getattr_np");
    memcpy(&real_getattr, &symbol, sizeof(real_getattr));
}

/* The address sanitizer asks for every new thread's stack, and ends the process
 * when there is no answer. */
SHOWN int pthread_getattr_np(pthread_t thread, pthread_attr_t *attributes)
{
    if (!real_getattr)
        find_getattr();
    in_sanitizer = true;
    int result = real_getattr(thread, attributes);
    in_sanitizer = false;
    return result;
}
