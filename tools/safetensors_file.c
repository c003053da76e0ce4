/* Reading safetensors: the part that touches files. */
#include "tools/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tools/path.h"

#define PREFIX 8 /* bytes that hold the header's length */

static rfa_status read_at(int fd, const char *path, uint64_t offset, void *dst, size_t size,
                          rfa_error *err)
{
    for (size_t done = 0; done < size;) {
        ssize_t got = pread(fd, (char *)dst + done, size - done, (off_t)(offset + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return rfa_fail(err, RFA_IO_ERROR, "cannot read %s: %s", path_brief(path),
                            strerror(errno));
        if (got == 0)
            return rfa_fail(err, RFA_IO_ERROR, "%s became shorter while it was read",
                            path_brief(path));
        done += (size_t)got;
    }
    return RFA_OK;
}

static rfa_status open_regular(const char *path, int *fd, uint64_t *size, rfa_error *err)
{
    struct stat info;
    /* O_NONBLOCK: opening a pipe must not wait for somebody to write into it. */
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (*fd < 0 || fstat(*fd, &info) < 0)
        return rfa_fail(err, RFA_IO_ERROR, "cannot open %s: %s", path_brief(path), strerror(errno));
    if (S_ISDIR(info.st_mode))
        return rfa_fail(err, RFA_IO_ERROR, "%s is a directory, not a safetensors file",
                        path_brief(path));
    if (!S_ISREG(info.st_mode))
        return rfa_fail(err, RFA_IO_ERROR, "%s is not a regular file", path_brief(path));
    *size = (uint64_t)info.st_size;
    return RFA_OK;
}

static rfa_status header_length(const st_file *file, uint64_t size, uint64_t *length,
                                rfa_error *err)
{
    unsigned char bytes[PREFIX];
    if (size < PREFIX)
        return rfa_fail(err, RFA_IO_ERROR, "%s has %llu bytes: too short for a safetensors file",
                        path_brief(file->path), (unsigned long long)size);
    rfa_status status = read_at(file->fd, file->path, 0, bytes, sizeof(bytes), err);
    if (status)
        return status;
    *length = 0;
    for (int i = 0; i < PREFIX; i++)
        *length |= (uint64_t)bytes[i] << (8 * i);
    if (*length > ST_MAX_HEADER)
        return rfa_fail(err, RFA_IO_ERROR,
                        "%s is no safetensors file: its first bytes give a header of %llu bytes",
                        path_brief(file->path), (unsigned long long)*length);
    if (*length > size - PREFIX)
        return rfa_fail(
            err, RFA_IO_ERROR, "%s is cut short: its header has %llu bytes, the file %llu",
            path_brief(file->path), (unsigned long long)*length, (unsigned long long)size);
    return RFA_OK;
}

/* Puts the parsed header into *file, which keeps its path and descriptor. */
static rfa_status read_header(st_file *file, uint64_t size, rfa_error *err)
{
    uint64_t length = 0;
    st_file parsed;
    rfa_error reason = {""};
    rfa_status status = header_length(file, size, &length, err);
    if (status)
        return status;
    char *text = malloc(length ? (size_t)length : 1);
    if (!text)
        return rfa_fail(err, RFA_OUT_OF_MEMORY, "no memory for the header of %s",
                        path_brief(file->path));
    status = read_at(file->fd, file->path, PREFIX, text, (size_t)length, err);
    if (!status) {
        status = st_parse(text, (size_t)length, size - PREFIX - length, &parsed, &reason);
        if (status)
            rfa_fail(err, status, "%s: %.300s", path_brief(file->path), reason.text);
    }
    free(text);
    if (status)
        return status;
    parsed.path = file->path;
    parsed.fd = file->fd;
    parsed.data_offset = PREFIX + length;
    *file = parsed;
    return RFA_OK;
}

rfa_status st_open(const char *path, st_file *file, rfa_error *err)
{
    uint64_t size = 0;
    memset(file, 0, sizeof(*file));
    file->fd = -1;
    file->path = strdup(path);
    rfa_status status = file->path ? open_regular(path, &file->fd, &size, err)
                                   : rfa_fail(err, RFA_OUT_OF_MEMORY, "no memory for a path");
    if (!status)
        status = read_header(file, size, err);
    if (status)
        st_close(file);
    return status;
}

rfa_status st_read(const st_file *file, const st_tensor *tensor, uint64_t offset, void *dst,
                   size_t size, rfa_error *err)
{
    uint64_t bytes = tensor->end - tensor->begin;
    if (file->fd < 0)
        return rfa_fail(err, RFA_INVALID_ARGUMENT, "the file is not open");
    if (offset > bytes || size > bytes - offset)
        return rfa_fail(err, RFA_INVALID_ARGUMENT,
                        "bytes %llu + %zu of tensor '%.80s', which has %llu",
                        (unsigned long long)offset, size, tensor->name, (unsigned long long)bytes);
    return read_at(file->fd, file->path, file->data_offset + tensor->begin + offset, dst, size,
                   err);
}
