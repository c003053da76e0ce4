/* Options, help, numbers and exit codes of the `rfa` command.
 *
 * A subcommand has a table of options that names members of its struct, which
 * holds the defaults; cli_parse overwrites them and prints the help from the table.
 *
 *   typedef struct make_options { bool verbose; int64_t seed; const char *output; } make_options;
 *   static const cli_option table[] = {
 *       {.name = "seed", .kind = CLI_INTEGER, .value = offsetof(make_options, seed),
 *        .argument = "N", .max = INT64_MAX, .help = "seed of the generator"},
 *       {.name = "output", .letter = 'o', .kind = CLI_TEXT,
 *        .value = offsetof(make_options, output), .argument = "FILE", .help = "where to write"},
 *   };
 *   static const cli_command command = {.name = "rfa make", ..., .options = table,
 *                                       .option_count = 2};
 *   make_options own = {.seed = 1};
 *   int code = cli_parse(&command, &own, argc, argv, NULL, NULL);
 *   if (code >= 0)
 *       return code;
 */
#ifndef RFA_TOOLS_CLI_H
#define RFA_TOOLS_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <rfa/base.h>

/* Exit codes: 0 ok, 1 a check failed, 2 bad usage, 10 + rfa_status for a call
 * that failed (16: a file could not be read or written). */
enum { CLI_OK = 0, CLI_CHECK_FAILED = 1, CLI_USAGE = 2, CLI_STATUS = 10 };

/* Longest list that CLI_INTEGERS takes. */
#define CLI_MAX_INTEGERS 64

typedef struct cli_integers {
    size_t count;
    int64_t values[CLI_MAX_INTEGERS];
} cli_integers;

/* What an option's value is. */
typedef enum cli_kind {
    CLI_FLAG,    /* bool: set to true; takes no value */
    CLI_TEXT,    /* const char *: points into argv */
    CLI_INTEGER, /* int64_t in [min, max] */
    CLI_NUMBER,  /* double in [min_number, max_number]; never NaN; "inf" if allowed by them */
    CLI_CHOICE,  /* int: index into choices */
    CLI_INTEGERS /* cli_integers, comma-separated, each in [min, max]; `exactly` of them
                  * when that is not 0 */
} cli_kind;

typedef struct cli_option {
    const char *name; /* without the dashes */
    char letter;      /* of the short form, or 0 */
    cli_kind kind;
    size_t value;                  /* where it is in the subcommand's struct */
    const char *argument;          /* what the help calls the value: "FILE" */
    const char *help;              /* may hold newlines; wrapped otherwise */
    const char *default_text;      /* NULL: printed from the value; "": none is shown */
    int64_t min, max;              /* both 0: any */
    double min_number, max_number; /* both 0: any finite number */
    const char *const *choices;    /* ended by NULL */
    size_t exactly;
    size_t given; /* where a bool is that is set when the option is given; 0: none */
} cli_option;

typedef struct cli_command {
    const char *name;     /* "rfa make" */
    const char *usage;    /* "rfa make [options] -o FILE" */
    const char *about;    /* what it does, a paragraph or two */
    const char *examples; /* whole lines */
    const cli_option *options;
    size_t option_count;
    size_t operands_min, operands_max; /* arguments that are not options */
    const char *operand;               /* what the first is: "a safetensors file" */
} cli_command;

/* `own`: the subcommand's struct. argv[0] is the subcommand's own word. Returns -1 to go on;
 * otherwise the exit code: 0 after -h or --help, 2 after one line on stderr. Operands are put in
 * `operands` (room for operands_max; NULL when that is 0), their number in
 * *operand_count (may be NULL). "--" ends the options; a lone "-" is an operand. */
int cli_parse(const cli_command *command, void *own, int argc, char **argv, const char **operands,
              size_t *operand_count);
/* `own`: the subcommand's struct, for the defaults. */
void cli_print_help(const cli_command *command, const void *own);

/* One line on stderr, "rfa make: ...", control characters replaced. cli_usage
 * adds how to get help and returns 2; cli_fail returns 10 + status. */
#ifdef __GNUC__
__attribute__((format(printf, 2, 3)))
#endif
int cli_usage(const char *name, const char *format, ...);
#ifdef __GNUC__
__attribute__((format(printf, 3, 4)))
#endif
int cli_fail(const char *name, rfa_status status, const char *format, ...);
#ifdef __GNUC__
__attribute__((format(printf, 2, 3)))
#endif
void cli_warn(const char *name, const char *format, ...);

/* The whole text must be the number: no blanks, no junk, no overflow, no NaN;
 * integers are plain decimals. */
bool cli_integer(const char *text, int64_t *value);
bool cli_number(const char *text, double *value); /* "inf" and "-inf" are numbers */
bool cli_integer_list(const char *text, cli_integers *list);

/* Flushes standard output; false if anything written to it was lost, which is
 * said once. */
bool cli_flush(const char *name);

/* "1.23 GB" of a number of bytes, in powers of 1000; returns buffer. */
char *cli_bytes(uint64_t bytes, char *buffer, size_t size);

/* Subcommands; argv[0] is the subcommand's word, the result the exit code. */
int cmd_devices(int argc, char **argv);
int cmd_make(int argc, char **argv);
int cmd_run(int argc, char **argv);
int cmd_bench(int argc, char **argv);
int cmd_verify(int argc, char **argv);

#endif
