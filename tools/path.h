/* Paths in messages. */
#ifndef RFA_TOOLS_PATH_H
#define RFA_TOOLS_PATH_H

#include <string.h>

/* The path, or its end, so that a sentence of 512 characters keeps its reason. */
static inline const char *path_brief(const char *path)
{
    const size_t most = 160;
    size_t length = strlen(path);
    return length <= most ? path : path + length - most;
}

#endif
