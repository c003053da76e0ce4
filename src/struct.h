/* Structs of callers that were built against an older or a newer header. */
#ifndef RFA_STRUCT_H
#define RFA_STRUCT_H

#include <stddef.h>

#include "backends/backend.h"

/* A public struct begins with its size and grows at its end alone. */
typedef struct rfa_struct_spec {
    const char *name;        /* of the argument */
    const char *initialiser; /* the macro that sets the size */
    size_t first;            /* bytes of the first released version */
    size_t size;             /* bytes of this version */
} rfa_struct_spec;

/* The size of a struct whose last member is this one. */
#define RFA_SIZE_THROUGH(type, member) (offsetof(type, member) + sizeof(((type *)0)->member))

/* Copies what the caller has into *own, of spec->size bytes: fields that an older
 * caller lacks become zero, fields that this version does not know must be zero. */
rfa_status rfa_struct_take(const rfa_struct_spec *spec, const void *given, void *own,
                           rfa_error *err);

#endif
