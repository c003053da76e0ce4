/* cJSON prints doubles well; floats, 64-bit integers and foreign text need care. */
#include "tools/json.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

bool json_add_number(cJSON *object, const char *name, double value)
{
    if (!isfinite(value))
        return cJSON_AddNullToObject(object, name) != NULL;
    return cJSON_AddNumberToObject(object, name, value) != NULL;
}

bool json_add_f32(cJSON *object, const char *name, float value)
{
    char text[32];
    if (!isfinite(value))
        return cJSON_AddNullToObject(object, name) != NULL;
    for (int digits = 1; digits <= 9; digits++) {
        snprintf(text, sizeof(text), "%.*g", digits, (double)value);
        if (strtof(text, NULL) == value)
            break;
    }
    return cJSON_AddRawToObject(object, name, text) != NULL;
}

bool json_add_integer(cJSON *object, const char *name, int64_t value)
{
    char text[32];
    snprintf(text, sizeof(text), "%" PRId64, value);
    return cJSON_AddRawToObject(object, name, text) != NULL;
}

bool json_add_unsigned(cJSON *object, const char *name, uint64_t value)
{
    char text[32];
    snprintf(text, sizeof(text), "%" PRIu64, value);
    return cJSON_AddRawToObject(object, name, text) != NULL;
}

/* Bytes of the well-formed UTF-8 sequence at `text`, or 0. */
static size_t utf8_sequence(const unsigned char *text, size_t size)
{
    unsigned char first = text[0];
    size_t length = first < 0x80   ? 1
                    : first < 0xc2 ? 0
                    : first < 0xe0 ? 2
                    : first < 0xf0 ? 3
                    : first < 0xf5 ? 4
                                   : 0;
    if (length == 0 || length > size)
        return 0;
    for (size_t i = 1; i < length; i++)
        if ((text[i] & 0xc0) != 0x80)
            return 0;
    /* Over-long forms, surrogates, and what lies beyond U+10FFFF. */
    if ((first == 0xe0 && text[1] < 0xa0) || (first == 0xed && text[1] > 0x9f) ||
        (first == 0xf0 && text[1] < 0x90) || (first == 0xf4 && text[1] > 0x8f))
        return 0;
    return length;
}

bool json_is_utf8(const void *text, size_t size)
{
    const unsigned char *bytes = text;
    for (size_t i = 0; i < size;) {
        size_t length = utf8_sequence(bytes + i, size - i);
        if (length == 0)
            return false;
        i += length;
    }
    return true;
}

bool json_add_text(cJSON *object, const char *name, const char *value)
{
    if (!value)
        return cJSON_AddNullToObject(object, name) != NULL;
    char *copy = strdup(value);
    if (!copy)
        return false;
    size_t size = strlen(copy);
    for (size_t i = 0; i < size;) {
        size_t length = utf8_sequence((unsigned char *)copy + i, size - i);
        if (length == 0)
            copy[i] = '?';
        i += length ? length : 1;
    }
    bool added = cJSON_AddStringToObject(object, name, copy) != NULL;
    free(copy);
    return added;
}

bool json_add_bool(cJSON *object, const char *name, bool value)
{
    return cJSON_AddBoolToObject(object, name, value) != NULL;
}

bool json_print(FILE *out, const cJSON *json)
{
    char *text = cJSON_Print(json);
    if (!text)
        return false;
    fprintf(out, "%s\n", text);
    cJSON_free(text);
    return true;
}
