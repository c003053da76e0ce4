/* Loading one backend module. */
#include "src/internal.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The dynamic loader maps a truncated file without complaint and then faults in
 * it, so the file's length is compared with what its headers promise first. */
static rfa_status check_elf(int fd, uint64_t size, rfa_error *err)
{
    ElfW(Ehdr) head;
    if (size < sizeof(head) || pread(fd, &head, sizeof(head), 0) != (ssize_t)sizeof(head))
        return rfa_fail(err, RFA_IO_ERROR, "the file is too short to be a module");
    if (memcmp(head.e_ident, ELFMAG, SELFMAG) != 0)
        return rfa_fail(err, RFA_IO_ERROR, "the file is not a shared object");
    if (head.e_phentsize != sizeof(ElfW(Phdr)))
        return rfa_fail(err, RFA_IO_ERROR, "the file is built for another kind of machine");
    if (head.e_shoff > size ||
        (uint64_t)head.e_shnum * head.e_shentsize > size - (uint64_t)head.e_shoff)
        return rfa_fail(err, RFA_IO_ERROR, "the file is truncated");
    for (unsigned i = 0; i < head.e_phnum; i++) {
        ElfW(Phdr) part;
        uint64_t at = (uint64_t)head.e_phoff + i * sizeof(part);
        if (pread(fd, &part, sizeof(part), (off_t)at) != (ssize_t)sizeof(part))
            return rfa_fail(err, RFA_IO_ERROR, "the file is truncated");
        if (part.p_offset > size || part.p_filesz > size - part.p_offset)
            return rfa_fail(err, RFA_IO_ERROR, "the file is truncated");
    }
    return RFA_OK;
}

static rfa_status check_file(const char *path, rfa_error *err)
{
    struct stat info;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return rfa_fail(err, RFA_IO_ERROR, "the file cannot be opened: %s", strerror(errno));
    rfa_status status;
    if (fstat(fd, &info) != 0)
        status = rfa_fail(err, RFA_IO_ERROR, "the file cannot be read: %s", strerror(errno));
    else if (!S_ISREG(info.st_mode))
        status = rfa_fail(err, RFA_IO_ERROR, "it is not a regular file");
    else
        status = check_elf(fd, (uint64_t)info.st_size, err);
    close(fd);
    return status;
}

static bool is_whole(const rfa_backend *b)
{
    return b->name && b->name[0] && b->device_count && b->device_get && b->context_create &&
           b->context_destroy && b->context_device && b->plan && b->run && b->plan_list &&
           b->build_list && b->merge && b->workspace_take && b->workspace_give && b->alloc &&
           b->free && b->write && b->read && b->synchronize && b->timer_create &&
           b->timer_destroy && b->timer_start && b->timer_stop && b->timer_read;
}

static rfa_status check_table(const rfa_backend *backend, rfa_error *err)
{
    if (!backend)
        return rfa_fail(err, RFA_NO_DEVICE, "the module declined to load");
    if (backend->abi != RFA_BACKEND_ABI)
        return rfa_fail(err, RFA_UNSUPPORTED, "the module has backend ABI %u, this library has %u",
                        (unsigned)backend->abi, (unsigned)RFA_BACKEND_ABI);
    if (backend->struct_size != sizeof(rfa_backend))
        return rfa_fail(err, RFA_UNSUPPORTED,
                        "the module's backend table has %u bytes, this library's has %zu",
                        (unsigned)backend->struct_size, sizeof(rfa_backend));
    if (!is_whole(backend))
        return rfa_fail(err, RFA_UNSUPPORTED, "the module's backend table has empty slots");
    return RFA_OK;
}

rfa_status rfa_module_load(const char *path, const rfa_backend **backend, rfa_error *err)
{
    rfa_status status = check_file(path, err);
    if (status != RFA_OK)
        return status;
    errno = 0;
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    /* Without memory the loader may give another reason. */
    if (!handle && errno == ENOMEM)
        return rfa_fail(err, RFA_OUT_OF_MEMORY, "memory ran out in loading the module: %s",
                        dlerror());
    if (!handle)
        return rfa_fail(err, RFA_NO_DEVICE, "the module cannot be loaded: %s", dlerror());

    rfa_backend_entry_fn entry = NULL;
    void *symbol = dlsym(handle, RFA_BACKEND_ENTRY);
    /* POSIX's way from void * to a function pointer. */
    memcpy(&entry, &symbol, sizeof(entry));
    if (!entry) {
        status = rfa_fail(err, RFA_UNSUPPORTED, "the module does not export " RFA_BACKEND_ENTRY);
    } else {
        *backend = entry();
        status = check_table(*backend, err);
    }
    if (status != RFA_OK) {
        *backend = NULL;
        dlclose(handle);
    }
    return status; /* an accepted module stays loaded until the process ends */
}
