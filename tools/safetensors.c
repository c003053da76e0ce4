/* Reading safetensors: the header is checked as a whole before anything is believed. */
#include "tools/safetensors.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cjson/cJSON.h>

#include "tools/json.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "safetensors data is little-endian and is read as it is"
#endif

#define METADATA "__metadata__"
#define MAX_EXACT 9007199254740992.0 /* 2^53: JSON numbers arrive as doubles */

/* ---- Dtypes --------------------------------------------------------------------------- */

typedef struct dtype_entry {
    const char *name;
    st_dtype dtype;
    uint32_t bits;
} dtype_entry;

static const dtype_entry dtypes[] = {
    {"F32", ST_F32, 32},
    {"F16", ST_F16, 16},
    {"BF16", ST_BF16, 16},
    {"F64", ST_UNSUPPORTED, 64},
    {"C64", ST_UNSUPPORTED, 64},
    {"I64", ST_UNSUPPORTED, 64},
    {"U64", ST_UNSUPPORTED, 64},
    {"I32", ST_UNSUPPORTED, 32},
    {"U32", ST_UNSUPPORTED, 32},
    {"I16", ST_UNSUPPORTED, 16},
    {"U16", ST_UNSUPPORTED, 16},
    {"I8", ST_UNSUPPORTED, 8},
    {"U8", ST_UNSUPPORTED, 8},
    {"BOOL", ST_UNSUPPORTED, 8},
    {"F8_E4M3", ST_UNSUPPORTED, 8},
    {"F8_E5M2", ST_UNSUPPORTED, 8},
    {"F8_E8M0", ST_UNSUPPORTED, 8},
    {"F6_E2M3", ST_UNSUPPORTED, 6},
    {"F6_E3M2", ST_UNSUPPORTED, 6},
    {"F4", ST_UNSUPPORTED, 4},
};

static const dtype_entry *find_dtype(const char *name)
{
    for (size_t i = 0; i < sizeof(dtypes) / sizeof(dtypes[0]); i++)
        if (!strcmp(dtypes[i].name, name))
            return &dtypes[i];
    return NULL;
}

/* ---- One tensor of the header ------------------------------------------------------------ */

static bool whole_number(const cJSON *item, uint64_t *value)
{
    if (!cJSON_IsNumber(item) || !(item->valuedouble >= 0) || !(item->valuedouble < MAX_EXACT))
        return false;
    *value = (uint64_t)item->valuedouble;
    return (double)*value == item->valuedouble;
}

/* The fields of a tensor's object; *again names one that is there twice. */
typedef struct tensor_fields {
    const cJSON *dtype, *shape, *offsets;
    const char *again;
} tensor_fields;

static tensor_fields find_fields(const cJSON *object)
{
    tensor_fields fields = {NULL, NULL, NULL, NULL};
    const cJSON *item;
    cJSON_ArrayForEach(item, object)
    {
        const cJSON **field = !strcmp(item->string, "dtype")          ? &fields.dtype
                              : !strcmp(item->string, "shape")        ? &fields.shape
                              : !strcmp(item->string, "data_offsets") ? &fields.offsets
                                                                      : NULL;
        if (field && *field)
            fields.again = item->string;
        if (field)
            *field = item;
    }
    return fields;
}

static rfa_status parse_shape(const cJSON *json, st_tensor *t, uint64_t *elements, rfa_error *err)
{
    const cJSON *item;
    bool empty = false;
    *elements = 1;
    if (!cJSON_IsArray(json))
        return rfa_fail(err, RFA_IO_ERROR, "tensor '%.80s' has no list as its shape", t->name);
    cJSON_ArrayForEach(item, json)
    {
        uint64_t size;
        if (t->ndim == ST_MAX_DIMS)
            return rfa_fail(err, RFA_IO_ERROR, "tensor '%.80s' has more than %d dimensions",
                            t->name, ST_MAX_DIMS);
        if (!whole_number(item, &size))
            return rfa_fail(err, RFA_IO_ERROR,
                            "dimension %d of tensor '%.80s' is no whole number below 2^53",
                            (int)t->ndim, t->name);
        t->shape[t->ndim++] = (int64_t)size;
        empty |= size == 0;
        if (size && *elements > (UINT64_C(1) << 56) / size)
            return rfa_fail(err, RFA_IO_ERROR, "the shape of tensor '%.80s' overflows", t->name);
        *elements *= size ? size : 1;
    }
    if (empty)
        *elements = 0;
    return RFA_OK;
}

static rfa_status parse_offsets(const cJSON *json, uint64_t data_size, st_tensor *t, rfa_error *err)
{
    if (!json || !cJSON_IsArray(json) || cJSON_GetArraySize(json) != 2 ||
        !whole_number(json->child, &t->begin) || !whole_number(json->child->next, &t->end))
        return rfa_fail(err, RFA_IO_ERROR,
                        "data_offsets of tensor '%.80s' are no two whole numbers below 2^53",
                        t->name);
    if (t->begin > t->end)
        return rfa_fail(err, RFA_IO_ERROR,
                        "tensor '%.80s' ends at byte %llu before it begins at %llu", t->name,
                        (unsigned long long)t->end, (unsigned long long)t->begin);
    if (t->end > data_size)
        return rfa_fail(err, RFA_IO_ERROR,
                        "tensor '%.80s' ends at byte %llu of the data, which has %llu: cut short?",
                        t->name, (unsigned long long)t->end, (unsigned long long)data_size);
    return RFA_OK;
}

static rfa_status parse_tensor(const cJSON *json, uint64_t data_size, st_tensor *t, rfa_error *err)
{
    uint64_t elements;
    t->name = json->string;
    if (!cJSON_IsObject(json))
        return rfa_fail(err, RFA_IO_ERROR, "the header's entry '%.80s' is no object", t->name);
    tensor_fields fields = find_fields(json);
    if (fields.again)
        return rfa_fail(err, RFA_IO_ERROR, "tensor '%.80s' has two fields '%s'", t->name,
                        fields.again);
    if (!fields.dtype || !cJSON_IsString(fields.dtype))
        return rfa_fail(err, RFA_IO_ERROR, "tensor '%.80s' has no dtype", t->name);
    const dtype_entry *dtype = find_dtype(fields.dtype->valuestring);
    if (!dtype)
        return rfa_fail(err, RFA_IO_ERROR, "tensor '%.80s' has the unknown dtype '%.40s'", t->name,
                        fields.dtype->valuestring);
    t->dtype = dtype->dtype;
    t->dtype_name = dtype->name;

    rfa_status status = parse_shape(fields.shape, t, &elements, err);
    if (!status)
        status = parse_offsets(fields.offsets, data_size, t, err);
    if (status)
        return status;
    uint64_t bits = elements * dtype->bits;
    if (bits % 8)
        return rfa_fail(err, RFA_IO_ERROR, "tensor '%.80s' of dtype %s fills no whole bytes",
                        t->name, dtype->name);
    if (bits / 8 != t->end - t->begin)
        return rfa_fail(err, RFA_IO_ERROR,
                        "tensor '%.80s' has %llu bytes, but its shape and dtype %s need %llu",
                        t->name, (unsigned long long)(t->end - t->begin), dtype->name,
                        (unsigned long long)(bits / 8));
    return RFA_OK;
}

/* ---- The whole header ---------------------------------------------------------------------- */

static int compare_names(const void *a, const void *b)
{
    return strcmp(((const st_tensor *)a)->name, ((const st_tensor *)b)->name);
}

static int compare_places(const void *a, const void *b)
{
    const st_tensor *x = a, *y = b;
    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    if (x->end != y->end)
        return x->end < y->end ? -1 : 1;
    return strcmp(x->name, y->name);
}

static int compare_pairs(const void *a, const void *b)
{
    return strcmp(((const st_pair *)a)->key, ((const st_pair *)b)->key);
}

/* Leaves the tensors in the order of their data. */
static rfa_status check_tensors(st_file *file, uint64_t data_size, rfa_error *err)
{
    st_tensor *t = file->tensors;
    uint64_t end = 0;
    qsort(t, file->tensor_count, sizeof(*t), compare_names);
    for (size_t i = 1; i < file->tensor_count; i++)
        if (!strcmp(t[i - 1].name, t[i].name))
            return rfa_fail(err, RFA_IO_ERROR, "two tensors are named '%.80s'", t[i].name);
    qsort(t, file->tensor_count, sizeof(*t), compare_places);
    for (size_t i = 0; i < file->tensor_count; i++) {
        if (t[i].begin < end)
            return rfa_fail(err, RFA_IO_ERROR, "tensors '%.80s' and '%.80s' overlap", t[i - 1].name,
                            t[i].name);
        if (t[i].begin > end)
            return rfa_fail(err, RFA_IO_ERROR,
                            "%llu bytes before tensor '%.80s' belong to no tensor",
                            (unsigned long long)(t[i].begin - end), t[i].name);
        end = t[i].end;
    }
    if (end != data_size)
        return rfa_fail(err, RFA_IO_ERROR, "the last %llu bytes belong to no tensor",
                        (unsigned long long)(data_size - end));
    return RFA_OK;
}

static rfa_status parse_metadata(const cJSON *json, st_file *file, rfa_error *err)
{
    const cJSON *item;
    if (!cJSON_IsObject(json))
        return rfa_fail(err, RFA_IO_ERROR, METADATA " is no object");
    if (file->metadata)
        return rfa_fail(err, RFA_IO_ERROR, "the header has two entries " METADATA);
    file->metadata = calloc((size_t)cJSON_GetArraySize(json) + 1, sizeof(st_pair));
    if (!file->metadata)
        return rfa_fail(err, RFA_OUT_OF_MEMORY, "no memory for the metadata");
    cJSON_ArrayForEach(item, json)
    {
        if (!cJSON_IsString(item))
            return rfa_fail(err, RFA_IO_ERROR, "metadata '%.80s' is no string", item->string);
        st_pair pair = {item->string, item->valuestring};
        file->metadata[file->metadata_count++] = pair;
    }
    qsort(file->metadata, file->metadata_count, sizeof(st_pair), compare_pairs);
    for (size_t i = 1; i < file->metadata_count; i++)
        if (!strcmp(file->metadata[i - 1].key, file->metadata[i].key))
            return rfa_fail(err, RFA_IO_ERROR, "metadata '%.80s' is there twice",
                            file->metadata[i].key);
    return RFA_OK;
}

static rfa_status parse_entries(st_file *file, uint64_t data_size, rfa_error *err)
{
    const cJSON *item;
    file->tensors = calloc((size_t)cJSON_GetArraySize(file->json) + 1, sizeof(st_tensor));
    if (!file->tensors)
        return rfa_fail(err, RFA_OUT_OF_MEMORY, "no memory for the list of tensors");
    cJSON_ArrayForEach(item, (cJSON *)file->json)
    {
        bool metadata = !strcmp(item->string, METADATA);
        rfa_status status =
            metadata ? parse_metadata(item, file, err)
                     : parse_tensor(item, data_size, &file->tensors[file->tensor_count], err);
        if (status)
            return status;
        file->tensor_count += !metadata;
    }
    return check_tensors(file, data_size, err);
}

static rfa_status parse_json(const char *text, size_t size, st_file *file, rfa_error *err)
{
    const char *end;
    if (size > ST_MAX_HEADER)
        return rfa_fail(err, RFA_IO_ERROR, "its header of %zu bytes passes the limit of %d", size,
                        ST_MAX_HEADER);
    if (size == 0 || text[0] != '{')
        return rfa_fail(err, RFA_IO_ERROR, "its header does not begin with '{'");
    if (memchr(text, 0, size) || !json_is_utf8(text, size))
        return rfa_fail(err, RFA_IO_ERROR, "its header is no UTF-8 text");
    errno = 0; /* cJSON itself does not tell a want of memory from bad text */
    file->json = cJSON_ParseWithLengthOpts(text, size, &end, false);
    if (!file->json && errno == ENOMEM)
        return rfa_fail(err, RFA_OUT_OF_MEMORY, "no memory for its header of %zu bytes", size);
    if (!file->json)
        return rfa_fail(err, RFA_IO_ERROR, "its header is no JSON near byte %zu",
                        end ? (size_t)(end - text) : 0);
    for (; end < text + size; end++)
        if (!strchr(" \t\r\n", *end))
            return rfa_fail(err, RFA_IO_ERROR, "text follows the JSON of its header at byte %zu",
                            (size_t)(end - text));
    return RFA_OK;
}

/* The sentence quotes names from the file, which may hold escape sequences. */
static void make_printable(rfa_error *err)
{
    for (char *c = err ? err->text : NULL; c && *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = '?';
}

rfa_status st_parse(const void *header, size_t header_len, uint64_t data_size, st_file *file,
                    rfa_error *err)
{
    memset(file, 0, sizeof(*file));
    file->fd = -1;
    rfa_status status = parse_json(header, header_len, file, err);
    if (!status)
        status = parse_entries(file, data_size, err);
    if (status) {
        make_printable(err);
        st_close(file);
    }
    return status;
}

const st_tensor *st_find(const st_file *file, const char *name)
{
    for (size_t i = 0; i < file->tensor_count; i++)
        if (!strcmp(file->tensors[i].name, name))
            return &file->tensors[i];
    return NULL;
}

const char *st_metadata(const st_file *file, const char *key)
{
    for (size_t i = 0; i < file->metadata_count; i++)
        if (!strcmp(file->metadata[i].key, key))
            return file->metadata[i].value;
    return NULL;
}

void st_close(st_file *file)
{
    if (file->path && file->fd >= 0)
        close(file->fd);
    cJSON_Delete(file->json);
    free(file->tensors);
    free(file->metadata);
    free(file->path);
    memset(file, 0, sizeof(*file));
    file->fd = -1;
}
