/* Writing safetensors: the whole new file or none. */
#include "tools/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cjson/cJSON.h>

#include "tools/cleanup.h"
#include "tools/dtype.h"
#include "tools/json.h"
#include "tools/path.h"

#define MAX_SIZE (UINT64_C(1) << 53)

typedef struct extent {
    uint64_t begin, end; /* bytes, from the start of the tensor data */
} extent;

struct st_writer {
    char *path;      /* as the caller named it */
    char *target;    /* where the file goes: symbolic links resolved */
    char *temporary; /* NULL when written directly, or before st_writer_begin */
    int fd;
    bool direct;

    cJSON *json, *metadata; /* metadata belongs to json */
    extent *extents;
    size_t count;
    uint64_t data_offset, data_size;
    uint64_t position; /* of st_writer_append, in the data */
    uint64_t written;  /* bytes of data so far */
};

static rfa_status fail_write(const st_writer *w, int error, rfa_error *err)
{
    return rfa_fail(err, RFA_IO_ERROR, "cannot write %s: %s", path_brief(w->path), strerror(error));
}

static rfa_status no_memory(const st_writer *w, rfa_error *err)
{
    return rfa_fail(err, RFA_OUT_OF_MEMORY, "no memory to write %s", path_brief(w->path));
}

/* ---- Declaration ------------------------------------------------------------------------ */

/* Finds out now what would otherwise fail after hours of work. */
static rfa_status find_target(st_writer *w, rfa_error *err)
{
    struct stat info;
    size_t length = strlen(w->path);
    if (length == 0)
        return rfa_fail(err, RFA_INVALID_ARGUMENT, "the name of the file to write is empty");
    if (stat(w->path, &info) < 0) {
        if (errno != ENOENT)
            return fail_write(w, errno, err);
        if (w->path[length - 1] == '/')
            return fail_write(w, EISDIR, err);
        w->target = strdup(w->path);
    } else if (S_ISDIR(info.st_mode)) {
        return fail_write(w, EISDIR, err);
    } else if (!S_ISREG(info.st_mode)) {
        w->direct = true;
        w->target = strdup(w->path);
    } else {
        if (access(w->path, W_OK) < 0)
            return fail_write(w, errno, err);
        w->target = realpath(w->path, NULL);
    }
    return w->target ? RFA_OK : no_memory(w, err);
}

rfa_status st_writer_create(st_writer **writer, const char *path, rfa_error *err)
{
    *writer = NULL;
    st_writer *w = calloc(1, sizeof(*w));
    if (!w)
        return rfa_fail(err, RFA_OUT_OF_MEMORY, "no memory to write a file");
    w->fd = -1;
    w->path = strdup(path);
    w->json = cJSON_CreateObject();
    rfa_status status = w->path && w->json
                            ? find_target(w, err)
                            : rfa_fail(err, RFA_OUT_OF_MEMORY, "no memory to write a file");
    if (status) {
        st_writer_destroy(w);
        return status;
    }
    *writer = w;
    return RFA_OK;
}

rfa_status st_writer_metadata(st_writer *w, const char *key, const char *value, rfa_error *err)
{
    if (!w->metadata)
        w->metadata = cJSON_AddObjectToObject(w->json, "__metadata__");
    if (!w->metadata)
        return no_memory(w, err);
    if (cJSON_GetObjectItemCaseSensitive(w->metadata, key))
        return rfa_fail(err, RFA_INVALID_ARGUMENT, "metadata '%.80s' is given twice", key);
    return json_add_text(w->metadata, key, value) ? RFA_OK : no_memory(w, err);
}

static rfa_status tensor_bytes(const char *name, rfa_dtype dtype, int32_t ndim,
                               const int64_t *shape, uint64_t *bytes, rfa_error *err)
{
    bool empty = false;
    *bytes = dtype_size(dtype);
    if (ndim < 0 || ndim > ST_MAX_DIMS)
        return rfa_fail(err, RFA_INVALID_ARGUMENT, "tensor '%.80s' has %d dimensions", name,
                        (int)ndim);
    for (int32_t i = 0; i < ndim; i++) {
        uint64_t size = (uint64_t)shape[i];
        if (shape[i] < 0 || (size && *bytes > MAX_SIZE / size))
            return rfa_fail(err, RFA_INVALID_ARGUMENT, "the shape of tensor '%.80s' overflows",
                            name);
        *bytes *= size ? size : 1;
        empty |= size == 0;
    }
    if (empty)
        *bytes = 0;
    return RFA_OK;
}

static bool add_numbers(cJSON *object, const char *name, int32_t count, const int64_t *numbers)
{
    cJSON *list = cJSON_AddArrayToObject(object, name);
    for (int32_t i = 0; list && i < count; i++) {
        char text[32];
        snprintf(text, sizeof(text), "%" PRId64, numbers[i]);
        cJSON *item = cJSON_CreateRaw(text);
        if (!item || !cJSON_AddItemToArray(list, item)) {
            cJSON_Delete(item);
            return false;
        }
    }
    return list != NULL;
}

rfa_status st_writer_tensor(st_writer *w, const char *name, rfa_dtype dtype, int32_t ndim,
                            const int64_t *shape, size_t *index, rfa_error *err)
{
    static const char *const spelling[] = {"F32", "F16", "BF16"};
    uint64_t bytes;
    rfa_status status = tensor_bytes(name, dtype, ndim, shape, &bytes, err);
    if (status)
        return status;
    if (cJSON_GetObjectItemCaseSensitive(w->json, name))
        return rfa_fail(err, RFA_INVALID_ARGUMENT, "tensor '%.80s' is declared twice", name);
    if (w->data_size + bytes > MAX_SIZE)
        return rfa_fail(err, RFA_INVALID_ARGUMENT, "the tensors together pass 2^53 bytes");
    extent *extents = realloc(w->extents, (w->count + 1) * sizeof(extent));
    if (!extents)
        return no_memory(w, err);
    w->extents = extents;

    extent place = {w->data_size, w->data_size + bytes};
    int64_t offsets[2] = {(int64_t)place.begin, (int64_t)place.end};
    cJSON *entry = cJSON_AddObjectToObject(w->json, name);
    if (!entry || !json_add_text(entry, "dtype", spelling[dtype]) ||
        !add_numbers(entry, "shape", ndim, shape) ||
        !add_numbers(entry, "data_offsets", 2, offsets))
        return no_memory(w, err);
    extents[w->count] = place;
    if (index)
        *index = w->count;
    w->count++;
    w->data_size = place.end;
    return RFA_OK;
}

/* ---- The file ------------------------------------------------------------------------------ */

static rfa_status write_at(st_writer *w, uint64_t offset, const void *data, size_t size,
                           rfa_error *err)
{
    for (size_t done = 0; done < size;) {
        const char *from = (const char *)data + done;
        ssize_t put = w->direct ? write(w->fd, from, size - done)
                                : pwrite(w->fd, from, size - done, (off_t)(offset + done));
        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            return fail_write(w, put < 0 ? errno : EIO, err);
        done += (size_t)put;
    }
    return RFA_OK;
}

static uint64_t random_number(void)
{
    uint64_t number;
    struct timespec now;
    if (getrandom(&number, sizeof(number), GRND_NONBLOCK) == (ssize_t)sizeof(number))
        return number;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_nsec * UINT64_C(0x9e3779b97f4a7c15) ^ (uint64_t)getpid();
}

/* Not mkstemp: the name must be registered before the file exists, and the mode
 * is the umask's. */
static rfa_status create_temporary(st_writer *w, rfa_error *err)
{
    const char *slash = strrchr(w->target, '/');
    int folder = slash ? (int)(slash - w->target + 1) : 0;
    for (int attempt = 0; attempt < 16; attempt++) {
        if (asprintf(&w->temporary, "%.*s.rfa-%016" PRIx64, folder, w->target, random_number()) <
            0) {
            w->temporary = NULL;
            return no_memory(w, err);
        }
        bool registered = cleanup_register(w->temporary);
        w->fd = open(w->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (w->fd >= 0 && registered)
            return RFA_OK;
        int error = w->fd < 0 ? errno : ENAMETOOLONG;
        if (w->fd >= 0)
            unlink(w->temporary);
        cleanup_forget(w->temporary);
        free(w->temporary);
        w->temporary = NULL;
        if (error != EEXIST)
            return fail_write(w, error, err);
    }
    return fail_write(w, EEXIST, err);
}

static rfa_status open_target(st_writer *w, rfa_error *err)
{
    if (!w->direct)
        return create_temporary(w, err);
    w->fd = open(w->target, O_WRONLY | O_CLOEXEC | O_NOCTTY);
    return w->fd < 0 ? fail_write(w, errno, err) : RFA_OK;
}

/* A full disk is known now, where the file system can tell. */
static rfa_status reserve_space(st_writer *w, rfa_error *err)
{
#ifdef __linux__
    off_t size = (off_t)(w->data_offset + w->data_size);
    if (!w->direct && fallocate(w->fd, 0, 0, size) < 0 && (errno == ENOSPC || errno == EFBIG))
        return fail_write(w, errno, err);
#endif
    return RFA_OK;
}

rfa_status st_writer_begin(st_writer *w, rfa_error *err)
{
    if (w->fd >= 0)
        return rfa_fail(err, RFA_INVALID_ARGUMENT, "%s is begun twice", path_brief(w->path));
    char *json = cJSON_PrintUnformatted(w->json);
    size_t length = json ? strlen(json) : 0;
    size_t padded = (length + 7) / 8 * 8;
    char *header = json && length <= ST_MAX_HEADER - 8 ? malloc(8 + padded) : NULL;
    if (header) {
        for (int i = 0; i < 8; i++)
            header[i] = (char)((uint64_t)padded >> (8 * i));
        memset(header + 8, ' ', padded);
        memcpy(header + 8, json, length);
    }
    cJSON_free(json);
    if (!header)
        return length > ST_MAX_HEADER - 8 ? rfa_fail(err, RFA_INVALID_ARGUMENT,
                                                     "a header of %zu bytes is too long", length)
                                          : no_memory(w, err);
    w->data_offset = 8 + padded;
    rfa_status status = open_target(w, err);
    if (!status)
        status = reserve_space(w, err);
    if (!status)
        status = write_at(w, 0, header, 8 + padded, err);
    free(header);
    return status;
}

static rfa_status write_data(st_writer *w, uint64_t position, const void *data, size_t size,
                             rfa_error *err)
{
    if (w->fd < 0)
        return rfa_fail(err, RFA_INVALID_ARGUMENT, "%s is not begun", path_brief(w->path));
    if (w->direct && position != w->written)
        return rfa_fail(err, RFA_UNSUPPORTED, "%s takes tensors in their order only",
                        path_brief(w->path));
    rfa_status status = write_at(w, w->data_offset + position, data, size, err);
    if (!status)
        w->written += size;
    return status;
}

rfa_status st_writer_append(st_writer *w, const void *data, size_t size, rfa_error *err)
{
    if (size > w->data_size - w->position)
        return rfa_fail(err, RFA_INVALID_ARGUMENT, "%zu bytes more than the tensors of %s have",
                        (size_t)(size - (w->data_size - w->position)), path_brief(w->path));
    rfa_status status = write_data(w, w->position, data, size, err);
    if (!status)
        w->position += size;
    return status;
}

rfa_status st_writer_write(st_writer *w, size_t index, uint64_t offset, const void *data,
                           size_t size, rfa_error *err)
{
    if (index >= w->count)
        return rfa_fail(err, RFA_INVALID_ARGUMENT, "tensor %zu of %zu", index, w->count);
    extent place = w->extents[index];
    if (offset > place.end - place.begin || size > place.end - place.begin - offset)
        return rfa_fail(err, RFA_INVALID_ARGUMENT, "bytes %llu + %zu of a tensor that has %llu",
                        (unsigned long long)offset, size,
                        (unsigned long long)(place.end - place.begin));
    return write_data(w, place.begin + offset, data, size, err);
}

rfa_status st_writer_commit(st_writer *w, rfa_error *err)
{
    if (w->fd < 0 || w->written != w->data_size)
        return rfa_fail(err, RFA_INVALID_ARGUMENT, "%s has %llu of its %llu bytes of tensors",
                        path_brief(w->path), (unsigned long long)w->written,
                        (unsigned long long)w->data_size);
    if (!w->direct && fsync(w->fd) < 0)
        return fail_write(w, errno, err);
    int closed = close(w->fd);
    w->fd = -1;
    if (closed < 0)
        return fail_write(w, errno, err);
    if (w->direct)
        return RFA_OK;
    if (rename(w->temporary, w->target) < 0)
        return fail_write(w, errno, err);
    cleanup_forget(w->temporary);
    free(w->temporary);
    w->temporary = NULL;
    return RFA_OK;
}

bool st_writer_is_direct(const st_writer *w)
{
    return w->direct;
}

uint64_t st_writer_size(const st_writer *w)
{
    return w->data_offset + w->data_size;
}

void st_writer_destroy(st_writer *w)
{
    if (!w)
        return;
    if (w->fd >= 0)
        close(w->fd);
    if (w->temporary) {
        unlink(w->temporary);
        cleanup_forget(w->temporary);
    }
    cJSON_Delete(w->json);
    free(w->extents);
    free(w->temporary);
    free(w->target);
    free(w->path);
    free(w);
}
