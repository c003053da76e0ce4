/* Reading and writing safetensors files.
 *
 * A file is 8 bytes of little-endian header length, that many bytes of JSON
 * (name -> dtype, shape, data_offsets), then the tensors' bytes without gaps.
 * Files come from strangers: the reader checks everything before it answers,
 * and reads tensors with pread, so that a file cut short while it is open is an
 * error and not a SIGBUS.
 *
 * Every function that can fail returns RFA_OK or a status with one sentence in
 * *err: RFA_IO_ERROR when the file is at fault, RFA_INVALID_ARGUMENT when the
 * request is, RFA_OUT_OF_MEMORY.
 */
#ifndef RFA_TOOLS_SAFETENSORS_H
#define RFA_TOOLS_SAFETENSORS_H

#include "backends/backend.h"

#define ST_MAX_HEADER 100000000 /* bytes of JSON; the format's own limit */
#define ST_MAX_DIMS 16

/* The first three are rfa_dtype's numbers. */
typedef enum st_dtype {
    ST_F32 = RFA_F32,
    ST_F16 = RFA_F16,
    ST_BF16 = RFA_BF16,
    ST_UNSUPPORTED /* a dtype of the format that rfa does not compute with: I64, F64, ... */
} st_dtype;

typedef struct st_tensor {
    const char *name;
    st_dtype dtype;
    const char *dtype_name; /* as the file spells it: "BF16" */
    int32_t ndim;
    int64_t shape[ST_MAX_DIMS];
    uint64_t begin, end; /* bytes, from the start of the tensor data */
} st_tensor;

typedef struct st_pair {
    const char *key, *value;
} st_pair;

/* Tensors are in the order of their data, metadata in the order of its keys.
 * Strings belong to the file. */
typedef struct st_file {
    st_tensor *tensors;
    size_t tensor_count;
    st_pair *metadata;
    size_t metadata_count;

    char *path;           /* NULL after st_parse */
    int fd;               /* -1 after st_parse */
    uint64_t data_offset; /* of the tensor data in the file */
    void *json;           /* the parsed header, which owns the strings */
} st_file;

/* Opens a regular file and checks its header. On failure *file is closed. */
rfa_status st_open(const char *path, st_file *file, rfa_error *err);
/* The same on the header alone: header_len bytes of JSON, to be followed by
 * data_size bytes of tensors. Touches no file. */
rfa_status st_parse(const void *header, size_t header_len, uint64_t data_size, st_file *file,
                    rfa_error *err);
/* Also for a file that was refused, one of all zeros, and twice. */
void st_close(st_file *file);

/* NULL if the file has none of that name. */
const st_tensor *st_find(const st_file *file, const char *name);
const char *st_metadata(const st_file *file, const char *key);

/* Reads `size` bytes of a tensor from its byte `offset` on into `dst`. */
rfa_status st_read(const st_file *file, const st_tensor *tensor, uint64_t offset, void *dst,
                   size_t size, rfa_error *err);

/* ---- Writing -----------------------------------------------------------------
 *
 *   st_writer_create, st_writer_metadata..., st_writer_tensor..., st_writer_begin,
 *   st_writer_append... or st_writer_write..., st_writer_commit, st_writer_destroy
 *
 * Bytes go to a temporary file beside the target, which st_writer_commit renames:
 * whoever looks sees the old file or the whole new one. A target that exists and
 * is no regular file (/dev/stdout, a pipe) is written directly instead. With
 * cleanup_install (cleanup.h) a signal removes the temporary file too. */

typedef struct st_writer st_writer;

rfa_status st_writer_create(st_writer **writer, const char *path, rfa_error *err);
rfa_status st_writer_metadata(st_writer *writer, const char *key, const char *value,
                              rfa_error *err);
/* Declares the next tensor; *index (may be NULL) is its number for
 * st_writer_write. Data is laid out in the order of declaration: declare wide
 * dtypes first and everything stays aligned. */
rfa_status st_writer_tensor(st_writer *writer, const char *name, rfa_dtype dtype, int32_t ndim,
                            const int64_t *shape, size_t *index, rfa_error *err);
/* Creates the temporary file, reserves the space, writes the header. */
rfa_status st_writer_begin(st_writer *writer, rfa_error *err);
/* The next bytes, tensor after tensor. */
rfa_status st_writer_append(st_writer *writer, const void *data, size_t size, rfa_error *err);
/* Bytes of tensor `index` from its byte `offset` on, in any order (a pipe takes
 * them in order only). Every byte is to be written once. */
rfa_status st_writer_write(st_writer *writer, size_t index, uint64_t offset, const void *data,
                           size_t size, rfa_error *err);
/* Flushes to the disk and puts the file in its place. */
rfa_status st_writer_commit(st_writer *writer, rfa_error *err);
/* The target is written directly, so that standard output may be the target. */
bool st_writer_is_direct(const st_writer *writer);
/* Bytes of the whole file; known after st_writer_begin. */
uint64_t st_writer_size(const st_writer *writer);
/* Removes the temporary file unless committed. NULL is allowed. */
void st_writer_destroy(st_writer *writer);

#endif
