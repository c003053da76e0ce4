/* Parses options by a subcommand's table; prints errors and exit codes. */
#include "tools/cli.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Messages ----------------------------------------------------------------------- */

static void print_line(const char *name, const char *format, va_list list, const char *end)
{
    char text[1024];
    vsnprintf(text, sizeof(text), format, list);
    /* File names may hold anything; one message stays one line. */
    for (char *c = text; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = '?';
    fflush(stdout);
    fprintf(stderr, "%s: %s%s\n", name, text, end);
}

int cli_usage(const char *name, const char *format, ...)
{
    char hint[128];
    va_list list;
    snprintf(hint, sizeof(hint), "; see '%s --help'", name);
    va_start(list, format);
    print_line(name, format, list, hint);
    va_end(list);
    return CLI_USAGE;
}

int cli_fail(const char *name, rfa_status status, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    print_line(name, format, list, "");
    va_end(list);
    return CLI_STATUS + (int)status;
}

void cli_warn(const char *name, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    print_line(name, format, list, "");
    va_end(list);
}

bool cli_flush(const char *name)
{
    static bool told; /* a command and main may both ask */
    errno = 0;
    if (!told && fflush(stdout) == 0 && !ferror(stdout))
        return true;
    if (told)
        return false;
    told = true;
    cli_warn(name, "cannot write standard output%s%s", errno ? ": " : "",
             errno ? strerror(errno) : "");
    return false;
}

char *cli_bytes(uint64_t bytes, char *buffer, size_t size)
{
    static const char *const units[] = {"bytes", "kB", "MB", "GB", "TB", "PB", "EB"};
    double value = (double)bytes;
    int unit = 0;
    /* 999.5 kB would print as 1e+03 kB. */
    for (; value >= (unit ? 999.5 : 1000); unit++)
        value /= 1000;
    if (unit == 0)
        snprintf(buffer, size, "%.0f %s", value, bytes == 1 ? "byte" : units[0]);
    else
        snprintf(buffer, size, "%.3g %s", value, units[unit]);
    return buffer;
}

/* ---- Numbers ------------------------------------------------------------------------ */

bool cli_integer(const char *text, int64_t *value)
{
    const char *digits = text + (*text == '-');
    if (!*digits || strspn(digits, "0123456789") != strlen(digits))
        return false;
    errno = 0;
    long long parsed = strtoll(text, NULL, 10);
    if (errno)
        return false;
    *value = parsed;
    return true;
}

bool cli_number(const char *text, double *value)
{
    const char *digits = text + (*text == '-');
    char *end;
    if (!strcmp(digits, "inf")) {
        *value = digits == text ? INFINITY : -INFINITY;
        return true;
    }
    if (!*digits || strspn(digits, "0123456789.eE+-") != strlen(digits))
        return false;
    double parsed = strtod(text, &end);
    if (end == text || *end || !isfinite(parsed))
        return false;
    *value = parsed;
    return true;
}

bool cli_integer_list(const char *text, cli_integers *list)
{
    cli_integers parsed = {0};
    for (;;) {
        char item[32];
        size_t length = strcspn(text, ",");
        if (length >= sizeof(item) || parsed.count == CLI_MAX_INTEGERS)
            return false;
        memcpy(item, text, length);
        item[length] = 0;
        if (!cli_integer(item, &parsed.values[parsed.count++]))
            return false;
        if (!text[length])
            break;
        text += length + 1;
    }
    *list = parsed;
    return true;
}

/* ---- Values ------------------------------------------------------------------------- */

static bool in_range(const cli_option *option, int64_t value)
{
    bool any = option->min == 0 && option->max == 0;
    return any || (value >= option->min && value <= option->max);
}

/* Each checks, and stores where `value` is not NULL. */
static bool set_number(const cli_option *option, const char *text, void *value)
{
    double number;
    bool any = option->min_number == 0 && option->max_number == 0;
    if (!cli_number(text, &number) || (any && !isfinite(number)) ||
        (!any && !(number >= option->min_number && number <= option->max_number)))
        return false;
    if (value)
        *(double *)value = number;
    return true;
}

static bool set_integers(const cli_option *option, const char *text, void *value)
{
    cli_integers list;
    if (!cli_integer_list(text, &list) || (option->exactly && list.count != option->exactly))
        return false;
    for (size_t i = 0; i < list.count; i++)
        if (!in_range(option, list.values[i]))
            return false;
    if (value)
        *(cli_integers *)value = list;
    return true;
}

static bool set_choice(const cli_option *option, const char *text, void *value)
{
    for (int i = 0; option->choices[i]; i++)
        if (!strcmp(option->choices[i], text)) {
            if (value)
                *(int *)value = i;
            return true;
        }
    return false;
}

static bool set_value(const cli_option *option, const char *text, void *value)
{
    int64_t integer;
    switch (option->kind) {
    case CLI_FLAG:
        if (value)
            *(bool *)value = true;
        return true;
    case CLI_TEXT:
        if (value)
            *(const char **)value = text;
        return true;
    case CLI_INTEGER:
        if (!cli_integer(text, &integer) || !in_range(option, integer))
            return false;
        if (value)
            *(int64_t *)value = integer;
        return true;
    case CLI_NUMBER: return set_number(option, text, value);
    case CLI_CHOICE: return set_choice(option, text, value);
    case CLI_INTEGERS: return set_integers(option, text, value);
    }
    return false;
}

/* ---- The command line ----------------------------------------------------------------- */

static size_t append(char *text, size_t size, size_t used, const char *more)
{
    size_t left = size - used, length = strlen(more);
    snprintf(text + used, left, "%s", more);
    return used + (length < left ? length : left - 1);
}

static void describe_integers(const cli_option *option, char *text, size_t size)
{
    char range[64] = "", count[32] = "";
    if (option->max == INT64_MAX)
        snprintf(range, sizeof(range), " from %lld on", (long long)option->min);
    else if (option->min || option->max)
        snprintf(range, sizeof(range), " from %lld to %lld", (long long)option->min,
                 (long long)option->max);
    if (option->exactly)
        snprintf(count, sizeof(count), "%zu ", option->exactly);
    if (option->kind == CLI_INTEGER)
        snprintf(text, size, "a whole number%s", range);
    else
        snprintf(text, size, "%scomma-separated whole numbers%s", count, range);
}

static void describe_choices(const cli_option *option, char *text, size_t size)
{
    size_t used = append(text, size, 0, "one of ");
    for (int i = 0; option->choices[i]; i++) {
        used = append(text, size, used, i ? ", " : "");
        used = append(text, size, used, option->choices[i]);
    }
}

static int bad_value(const cli_command *command, const cli_option *option, const char *value)
{
    char expected[512];
    if (option->kind == CLI_CHOICE)
        describe_choices(option, expected, sizeof(expected));
    else if (option->kind == CLI_INTEGER || option->kind == CLI_INTEGERS)
        describe_integers(option, expected, sizeof(expected));
    else if (option->min_number == 0 && option->max_number == 0)
        snprintf(expected, sizeof(expected), "a number");
    else
        snprintf(expected, sizeof(expected), "a number from %g to %g", option->min_number,
                 option->max_number);
    return cli_usage(command->name, "--%s takes %s, not '%.100s'", option->name, expected, value);
}

typedef struct parser {
    const cli_command *command;
    char *own;      /* the subcommand's struct */
    int argc, next; /* next argument */
    char **argv;
    bool store; /* the first pass only checks, so that help shows the defaults */
} parser;

static const cli_option *find_long(const cli_command *command, const char *name, size_t length)
{
    for (size_t i = 0; i < command->option_count; i++)
        if (strlen(command->options[i].name) == length &&
            !strncmp(command->options[i].name, name, length))
            return &command->options[i];
    return NULL;
}

static const cli_option *find_letter(const cli_command *command, char letter)
{
    for (size_t i = 0; i < command->option_count; i++)
        if (command->options[i].letter && command->options[i].letter == letter)
            return &command->options[i];
    return NULL;
}

/* `attached`: the value in the same argument, or NULL. */
static int take_option(parser *p, const cli_option *option, const char *attached)
{
    const char *value = attached;
    if (option->kind == CLI_FLAG) {
        if (attached)
            return cli_usage(p->command->name, "--%s takes no value", option->name);
    } else if (!value) {
        if (p->next == p->argc)
            return cli_usage(p->command->name, "--%s needs a value", option->name);
        value = p->argv[p->next++];
    }
    if (!set_value(option, value, p->store ? p->own + option->value : NULL))
        return bad_value(p->command, option, value);
    if (p->store && option->given)
        *(bool *)(p->own + option->given) = true;
    return -1;
}

static int take_long(parser *p, const char *text)
{
    size_t length = strcspn(text, "=");
    const cli_option *option = find_long(p->command, text, length);
    if (!option)
        return cli_usage(p->command->name, "unknown option '--%.*s'",
                         length < 100 ? (int)length : 100, text);
    return take_option(p, option, text[length] ? text + length + 1 : NULL);
}

static int take_short(parser *p, const char *text)
{
    const cli_option *option = find_letter(p->command, text[0]);
    if (!option)
        return cli_usage(p->command->name, "unknown option '-%.100s'", text);
    return take_option(p, option, text[1] ? text + 1 : NULL);
}

static int check_operands(const cli_command *command, size_t count, const char *last)
{
    if (count < command->operands_min)
        return cli_usage(command->name, "%s is missing",
                         command->operand ? command->operand : "an argument");
    if (count > command->operands_max)
        return cli_usage(command->name, "unexpected argument '%.100s'", last);
    return -1;
}

static int parse_pass(parser *p, const char **operands, size_t *operand_count)
{
    size_t count = 0;
    bool options_ended = false;
    const char *extra = NULL;
    int code = -1;
    for (p->next = 1; p->next < p->argc && code < 0;) {
        const char *text = p->argv[p->next++];
        if (options_ended || text[0] != '-' || !text[1]) {
            if (count >= p->command->operands_max && !extra)
                extra = text;
            else if (!extra && p->store)
                operands[count] = text;
            count++;
        } else if (!strcmp(text, "--")) {
            options_ended = true;
        } else if (!strcmp(text, "-h") || !strcmp(text, "--help")) {
            cli_print_help(p->command, p->own);
            return CLI_OK;
        } else {
            code = text[1] == '-' ? take_long(p, text + 2) : take_short(p, text + 1);
        }
    }
    if (code < 0)
        code = check_operands(p->command, count, extra);
    if (code < 0 && operand_count)
        *operand_count = count;
    return code;
}

int cli_parse(const cli_command *command, void *own, int argc, char **argv, const char **operands,
              size_t *operand_count)
{
    parser p = {command, own, argc, 1, argv, false};
    int code = parse_pass(&p, operands, operand_count);
    if (code >= 0)
        return code;
    p.store = true;
    return parse_pass(&p, operands, operand_count);
}
