/* The safetensors header: whatever the bytes, a status; and when they are taken,
 * every tensor lies within the data, without overlap. */
#include <stdlib.h>

#include "fuzz/bytes.h"
#include "tools/safetensors.h"

static void require(int condition)
{
    if (!condition)
        abort();
}

static void check_file(const st_file *file, uint64_t data_size)
{
    uint64_t at = 0;
    for (size_t i = 0; i < file->tensor_count; i++) {
        const st_tensor *t = &file->tensors[i];
        require(t->begin <= t->end && t->end <= data_size && t->begin >= at);
        require(st_find(file, t->name) != NULL);
        require(t->ndim >= 0 && t->ndim <= ST_MAX_DIMS);
        at = t->end;
    }
    for (size_t i = 0; i < file->metadata_count; i++)
        require(st_metadata(file, file->metadata[i].key) != NULL);
}

/* The first 8 bytes say how long the data are, the rest is the header. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_bytes bytes = {data, size};
    uint64_t data_size;
    st_file file;
    rfa_error err = {""};
    fuzz_take(&bytes, &data_size, sizeof(data_size));
    /* A copy of the exact size, so that a read past it is seen. */
    char *header = malloc(bytes.size ? bytes.size : 1);
    if (!header)
        return 0;
    memcpy(header, bytes.data, bytes.size);
    rfa_status status = st_parse(header, bytes.size, data_size, &file, &err);
    if (status == RFA_OK)
        check_file(&file, data_size);
    else
        require(err.text[0] != '\0');
    st_close(&file);
    free(header);
    return 0;
}
