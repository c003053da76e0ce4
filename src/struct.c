/* Structs of callers that were built against an older or a newer header. */
#include "src/struct.h"

#include <string.h>

/* No version will be larger: a larger number is memory that nobody set. */
#define LARGEST 65536

rfa_status rfa_struct_take(const rfa_struct_spec *spec, const void *given, void *own,
                           rfa_error *err)
{
    const char *bytes = given;
    size_t size;
    if (!given)
        return rfa_fail(err, RFA_INVALID_ARGUMENT, "%s is NULL", spec->name);
    memcpy(&size, given, sizeof(size));
    if (size < spec->first || size > LARGEST)
        return rfa_fail(err, RFA_INVALID_ARGUMENT,
                        "%s.struct_size is %zu, expected %zu: set it with %s", spec->name, size,
                        spec->size, spec->initialiser);
    for (size_t i = spec->size; i < size; i++)
        if (bytes[i] != 0)
            return rfa_fail(err, RFA_INVALID_ARGUMENT,
                            "%s sets a field at byte %zu that this version does not know",
                            spec->name, i);
    memset(own, 0, spec->size);
    memcpy(own, given, size < spec->size ? size : spec->size);
    return RFA_OK;
}
