/* The help text, from a subcommand's table. */
#include "tools/cli.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define WIDTH 80
#define INDENT 26 /* where an option's text begins */

/* Prints words from column `column` on, later lines indented; newlines are kept. */
static void print_wrapped(const char *text, int indent, int column)
{
    bool line_start = true;
    while (*text) {
        if (*text == '\n') {
            printf("\n");
            text++;
            column = 0;
            line_start = true;
            continue;
        }
        size_t word = strcspn(text, " \n");
        if (!line_start && column + 1 + (int)word > WIDTH) {
            printf("\n");
            column = 0;
            line_start = true;
        }
        if (column < indent && line_start)
            column += printf("%*s", indent - column, "");
        else if (!line_start)
            column += printf(" ");
        column += printf("%.*s", (int)word, text);
        line_start = false;
        text += word;
        text += *text == ' ';
    }
    printf("\n");
}

static void format_integers(const cli_integers *list, char *text, size_t size)
{
    size_t used = 0;
    text[0] = 0;
    for (size_t i = 0; i < list->count && used < size; i++)
        used += (size_t)snprintf(text + used, size - used, "%s%lld", i ? "," : "",
                                 (long long)list->values[i]);
}

/* What the option's value is before anything is parsed. */
static void format_default(const cli_option *option, const void *value, char *text, size_t size)
{
    text[0] = 0;
    if (option->default_text) {
        snprintf(text, size, "%s", option->default_text);
        return;
    }
    switch (option->kind) {
    case CLI_FLAG: break;
    case CLI_TEXT:
        if (*(const char *const *)value)
            snprintf(text, size, "%s", *(const char *const *)value);
        break;
    case CLI_INTEGER: snprintf(text, size, "%lld", (long long)*(const int64_t *)value); break;
    case CLI_NUMBER:
        if (!isnan(*(const double *)value))
            snprintf(text, size, "%g", *(const double *)value);
        break;
    case CLI_CHOICE: snprintf(text, size, "%s", option->choices[*(const int *)value]); break;
    case CLI_INTEGERS: format_integers(value, text, size); break;
    }
}

static int print_option_head(const cli_option *option)
{
    int column = option->letter ? printf("  -%c, --%s", option->letter, option->name)
                                : printf("      --%s", option->name);
    if (option->kind != CLI_FLAG)
        column += printf(" %s", option->argument ? option->argument : "VALUE");
    if (column >= INDENT - 1) {
        printf("\n");
        column = 0;
    }
    return column;
}

static void print_option(const cli_option *option, const void *value)
{
    char fallback[256], text[2048];
    snprintf(text, sizeof(text), "%s", option->help);
    size_t used = strlen(text);
    format_default(option, value, fallback, sizeof(fallback));
    if (option->kind == CLI_CHOICE) {
        used += (size_t)snprintf(text + used, sizeof(text) - used, ": ");
        for (int i = 0; option->choices[i] && used < sizeof(text); i++)
            used += (size_t)snprintf(text + used, sizeof(text) - used, "%s%s", i ? ", " : "",
                                     option->choices[i]);
    }
    used = strlen(text);
    if (fallback[0])
        snprintf(text + used, sizeof(text) - used, "%s(default: %s)",
                 used && text[used - 1] == '\n' ? "" : " ", fallback);
    int column = print_option_head(option);
    print_wrapped(text, INDENT, column);
}

static void print_examples(const char *text)
{
    printf("\nExamples:\n");
    while (*text) {
        int line = (int)strcspn(text, "\n");
        printf("  %.*s\n", line, text);
        text += line + (text[line] == '\n');
    }
}

void cli_print_help(const cli_command *command, const void *own)
{
    static const bool no = false;
    static const cli_option help = {
        .name = "help", .letter = 'h', .kind = CLI_FLAG, .help = "print this text"};
    printf("Usage: %s\n\n", command->usage);
    if (command->about) {
        print_wrapped(command->about, 0, 0);
        printf("\n");
    }
    printf("Options:\n");
    for (size_t i = 0; i < command->option_count; i++)
        print_option(&command->options[i], (const char *)own + command->options[i].value);
    print_option(&help, &no);
    if (command->examples)
        print_examples(command->examples);
}
