/* JSON output over cJSON: numbers as they are meant to be read. The add and
 * print functions answer false when memory ran out. */
#ifndef RFA_TOOLS_JSON_H
#define RFA_TOOLS_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cjson/cJSON.h>

/* NaN and infinities become null. json_add_f32 writes the shortest decimals that
 * read back as the same float (0.9, not 0.89999997615814209). */
bool json_add_number(cJSON *object, const char *name, double value);
bool json_add_f32(cJSON *object, const char *name, float value);
bool json_add_integer(cJSON *object, const char *name, int64_t value);
bool json_add_unsigned(cJSON *object, const char *name, uint64_t value);
/* NULL becomes null; bytes that are no UTF-8 become '?'. */
bool json_add_text(cJSON *object, const char *name, const char *value);
bool json_add_bool(cJSON *object, const char *name, bool value);

bool json_is_utf8(const void *text, size_t size);

/* Prints indented, with a newline at the end. */
bool json_print(FILE *out, const cJSON *json);

#endif
