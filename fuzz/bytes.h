/* Values out of a fuzzer's bytes; zeros when they are used up. */
#ifndef RFA_FUZZ_BYTES_H
#define RFA_FUZZ_BYTES_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct fuzz_bytes {
    const uint8_t *data;
    size_t size;
} fuzz_bytes;

static inline void fuzz_take(fuzz_bytes *from, void *to, size_t size)
{
    size_t here = size < from->size ? size : from->size;
    memset(to, 0, size);
    if (here > 0)
        memcpy(to, from->data, here);
    from->data += here;
    from->size -= here;
}

static inline uint8_t fuzz_byte(fuzz_bytes *from)
{
    uint8_t value;
    fuzz_take(from, &value, sizeof(value));
    return value;
}

/* 0 to `most`. */
static inline int fuzz_upto(fuzz_bytes *from, int most)
{
    return fuzz_byte(from) % (most + 1);
}

static inline float fuzz_float(fuzz_bytes *from)
{
    float value;
    fuzz_take(from, &value, sizeof(value));
    return value;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
