/* Preloaded into a command: a disk that fails while a file is written. Only regular
 * files are meant; the environment says how:
 *
 *   WRITE_ROOM=n     n bytes can be written in all, then the disk is full; the write
 *                    that reaches the end is cut short first
 *   WRITE_FAIL=call  fsync, close or rename fails with an input/output error
 *
 * In all cases space cannot be reserved in advance, as on file systems that do not
 * know how to, so that a full disk shows only in the middle of the work. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SHOWN __attribute__((visibility("default")))
/* POSIX's way from void * to a function pointer. */
#define FIND_NEXT(function, name)                                                                  \
    do {                                                                                           \
        void *symbol = dlsym(RTLD_NEXT, name);                                                     \
        memcpy(&(function), &symbol, sizeof(function));                                            \
    } while (0)

static bool is_file(int fd)
{
    struct stat info;
    int saved = errno;
    bool regular = fstat(fd, &info) == 0 && S_ISREG(info.st_mode);
    errno = saved;
    return regular;
}

static bool fails(const char *call)
{
    const char *asked = getenv("WRITE_FAIL");
    if (!asked || strcmp(asked, call) != 0)
        return false;
    errno = EIO;
    return true;
}

/* How much of a write there is room for; 0 with errno set when there is none. */
static size_t take_room(size_t size)
{
    static long long used;
    const char *text = getenv("WRITE_ROOM");
    long long room = text ? strtoll(text, NULL, 10) - used : LLONG_MAX;
    if (size > 0 && room <= 0) {
        errno = ENOSPC;
        return 0;
    }
    if ((long long)size > room)
        size = (size_t)room;
    used += (long long)size;
    return size;
}

SHOWN ssize_t pwrite(int fd, const void *data, size_t size, off_t offset)
{
    ssize_t (*real)(int, const void *, size_t, off_t);
    FIND_NEXT(real, "pwrite64");
    if (is_file(fd) && size > 0 && (size = take_room(size)) == 0)
        return -1;
    return real(fd, data, size, offset);
}

SHOWN ssize_t write(int fd, const void *data, size_t size)
{
    ssize_t (*real)(int, const void *, size_t);
    FIND_NEXT(real, "write");
    if (is_file(fd) && size > 0 && (size = take_room(size)) == 0)
        return -1;
    return real(fd, data, size);
}

SHOWN int fallocate(int fd, int mode, off_t offset, off_t length)
{
    (void)fd;
    (void)mode;
    (void)offset;
    (void)length;
    errno = EOPNOTSUPP;
    return -1;
}

SHOWN int fsync(int fd)
{
    int (*real)(int);
    FIND_NEXT(real, "fsync");
    return is_file(fd) && fails("fsync") ? -1 : real(fd);
}

/* Closes all the same, as the kernel does. */
SHOWN int close(int fd)
{
    int (*real)(int);
    FIND_NEXT(real, "close");
    bool written = is_file(fd) && (fcntl(fd, F_GETFL) & O_ACCMODE) != O_RDONLY;
    int result = real(fd);
    return written && fails("close") ? -1 : result;
}

SHOWN int rename(const char *from, const char *to)
{
    int (*real)(const char *, const char *);
    FIND_NEXT(real, "rename");
    return fails("rename") ? -1 : real(from, to);
}
