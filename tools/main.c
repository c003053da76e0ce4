/* The `rfa` command: picks the subcommand. */
#include <stdio.h>
#include <string.h>

#include <rfa/rfa.h>

#include "tools/cleanup.h"
#include "tools/cli.h"

#define NAME "rfa"

typedef struct subcommand {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *about;
} subcommand;

static const subcommand subcommands[] = {
    {"devices", cmd_devices, "list backends and devices, usable or why not"},
    {"make", cmd_make, "write q, k, v of a synthetic video to a safetensors file"},
    {"run", cmd_run, "compute attention of q, k, v from a safetensors file"},
    {"bench", cmd_bench, "measure dense and sparse speed"},
    {"verify", cmd_verify, "check every device of this machine against the reference"},
};

#define SUBCOMMANDS (sizeof(subcommands) / sizeof(subcommands[0]))

static void print_overview(FILE *out)
{
    fprintf(out, "Usage: rfa COMMAND [options]\n\n"
                 "Recall-targeted sparse flash attention.\n\nCommands:\n");
    for (size_t i = 0; i < SUBCOMMANDS; i++)
        fprintf(out, "  %-9s %s\n", subcommands[i].name, subcommands[i].about);
    fprintf(out,
            "  %-9s print this text, or that of a command\n\n"
            "'rfa COMMAND --help' explains a command; 'rfa --version' prints the version.\n\n"
            "Exit codes: 0 done; 1 a check failed; 2 wrong usage; otherwise 10 + the\n"
            "library's status: 11 invalid argument, 12 unsupported, 13 out of memory,\n"
            "14 no device, 15 device error, 16 a file could not be read or written.\n",
            "help");
}

static const subcommand *find(const char *name)
{
    for (size_t i = 0; i < SUBCOMMANDS; i++)
        if (!strcmp(subcommands[i].name, name))
            return &subcommands[i];
    return NULL;
}

static int unknown(const char *word)
{
    return cli_usage(NAME, word[0] == '-' ? "unknown option '%.100s'" : "unknown command '%.100s'",
                     word);
}

static bool asks_for_help(const char *word)
{
    return !strcmp(word, "help") || !strcmp(word, "-h") || !strcmp(word, "--help");
}

static int help(int argc, char **argv)
{
    if (argc < 2 || asks_for_help(argv[1])) {
        print_overview(stdout);
        return CLI_OK;
    }
    const subcommand *command = find(argv[1]);
    char option[] = "--help";
    char *arguments[] = {argv[1], option, NULL};
    return command ? command->run(2, arguments) : unknown(argv[1]);
}

static int dispatch(int argc, char **argv)
{
    if (argc < 2) {
        print_overview(stderr);
        return CLI_USAGE;
    }
    const char *word = argv[1];
    if (asks_for_help(word))
        return help(argc - 1, argv + 1);
    if (!strcmp(word, "--version")) {
        printf("rfa %s\n", rfa_version());
        return CLI_OK;
    }
    const subcommand *command = find(word);
    return command ? command->run(argc - 1, argv + 1) : unknown(word);
}

int main(int argc, char **argv)
{
    cleanup_install();
    int code = dispatch(argc, argv);
    if (!cli_flush(NAME) && code == CLI_OK)
        code = CLI_STATUS + RFA_IO_ERROR;
    return code;
}
