/* rfa make: the synthetic workload as a safetensors file. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/cli.h"
#include "tools/dtype.h"
#include "tools/progress.h"
#include "tools/safetensors.h"
#include "tools/workload.h"

#define NAME "rfa make"
#define CHUNK_BYTES (32 << 20) /* made and written at a time */

static const char about[] =
    "Writes q, k and v of a synthetic video, each of shape (1, tokens, heads, dim), to a "
    "safetensors file: moving objects, a smooth background and noise, seen by heads of five "
    "kinds. The same options give the same bytes on every machine. It stands in for captured "
    "tensors and says nothing about the quality of a model.\n\n"
    "A preset has the shape of a known model's self-attention; --grid, --heads and --dim "
    "replace its numbers.";

static const char examples[] =
    "rfa make -o tiny.safetensors\n"
    "rfa make --preset wan2.1-1.3b-480p --dtype f16 -o wan.safetensors\n"
    "rfa make --grid 13,22,40 --heads 2 --kinds local,object --dim 128 -o two.safetensors";

typedef struct make_options {
    const char *preset, *kinds, *output;
    cli_integers grid;
    int64_t heads, dim, seed;
    int dtype;
} make_options;

/* ---- Options ------------------------------------------------------------------------- */

/* The presets' part of the help, which they themselves write. */
static char preset_help[512];

static void describe_presets(char *text, size_t size)
{
    size_t used = (size_t)snprintf(text, size, "shape to start from, one of");
    for (const workload_preset *p = workload_presets; p->name && used < size; p++)
        used += (size_t)snprintf(text + used, size - used,
                                 "\n%s: %lld x %lld x %lld tokens, %d heads of %d", p->name,
                                 (long long)p->grid[0], (long long)p->grid[1],
                                 (long long)p->grid[2], (int)p->heads, (int)p->dim);
    if (used < size)
        snprintf(text + used, size - used, "\n");
}

#define FIELD(member) offsetof(make_options, member)

static const cli_option table[] = {
    {.name = "preset",
     .kind = CLI_TEXT,
     .value = FIELD(preset),
     .argument = "NAME",
     .help = preset_help},
    {.name = "grid",
     .kind = CLI_INTEGERS,
     .value = FIELD(grid),
     .argument = "T,H,W",
     .exactly = 3,
     .min = 1,
     .max = INT64_MAX,
     .help = "frames, rows and columns of tokens",
     .default_text = "the preset's"},
    {.name = "heads",
     .kind = CLI_INTEGER,
     .value = FIELD(heads),
     .argument = "N",
     .min = 1,
     .max = WORKLOAD_MAX_HEADS,
     .help = "how many heads",
     .default_text = "the preset's"},
    {.name = "kinds",
     .kind = CLI_TEXT,
     .value = FIELD(kinds),
     .argument = "A,B,...",
     .help = "kinds of the heads, repeated in this order: local, object, mixed, diffuse, sink",
     .default_text = "all five"},
    {.name = "dim",
     .kind = CLI_INTEGER,
     .value = FIELD(dim),
     .argument = "D",
     .min = 1,
     .max = WORKLOAD_MAX_DIM,
     .help = "dims of a head",
     .default_text = "the preset's"},
    {.name = "dtype",
     .kind = CLI_CHOICE,
     .value = FIELD(dtype),
     .argument = "TYPE",
     .choices = dtype_names,
     .help = "type of the elements"},
    {.name = "seed",
     .kind = CLI_INTEGER,
     .value = FIELD(seed),
     .argument = "N",
     .max = INT64_MAX,
     .help = "another number, another video"},
    {.name = "output",
     .letter = 'o',
     .kind = CLI_TEXT,
     .value = FIELD(output),
     .argument = "FILE",
     .help = "the file to write (required)"},
};

#undef FIELD

static const cli_command command = {.name = NAME,
                                    .usage = "rfa make [options] -o FILE",
                                    .about = about,
                                    .examples = examples,
                                    .options = table,
                                    .option_count = sizeof(table) / sizeof(table[0])};

static int parse(make_options *o, int argc, char **argv)
{
    describe_presets(preset_help, sizeof(preset_help));
    int code = cli_parse(&command, o, argc, argv, NULL, NULL);
    if (code < 0 && !o->output)
        code = cli_usage(NAME, "-o FILE is missing");
    return code;
}

static int parse_kinds(const char *text, workload_spec *spec)
{
    const int32_t most = (int32_t)(sizeof(spec->kinds) / sizeof(spec->kinds[0]));
    for (;;) {
        char name[32];
        size_t length = strcspn(text, ",");
        snprintf(name, sizeof(name), "%.*s", length < 31 ? (int)length : 31, text);
        if (spec->kind_count == most)
            return cli_usage(NAME, "--kinds takes at most %d kinds", (int)most);
        if (!workload_find_kind(name, &spec->kinds[spec->kind_count++]))
            return cli_usage(NAME, "--kinds takes local, object, mixed, diffuse and sink, not '%s'",
                             name);
        if (!text[length])
            return -1;
        text += length + 1;
    }
}

static int make_spec(const make_options *o, workload_spec *spec)
{
    rfa_error err = {""};
    const workload_preset *preset = workload_find_preset(o->preset);
    if (!preset)
        return cli_usage(NAME, "there is no preset '%.100s'", o->preset);
    for (int axis = 0; axis < 3; axis++)
        spec->grid[axis] = o->grid.count ? o->grid.values[axis] : preset->grid[axis];
    spec->heads = o->heads ? (int32_t)o->heads : preset->heads;
    spec->dim = o->dim ? (int32_t)o->dim : preset->dim;
    spec->dtype = (rfa_dtype)o->dtype;
    spec->seed = (uint64_t)o->seed;
    int code = o->kinds ? parse_kinds(o->kinds, spec) : -1;
    if (code < 0 && workload_check(spec, &err))
        code = cli_usage(NAME, "%s", err.text);
    return code;
}

/* ---- The file --------------------------------------------------------------------------- */

static rfa_status add_metadata(st_writer *writer, const workload_spec *spec, rfa_error *err)
{
    char grid[80], seed[32], kinds[WORKLOAD_MAX_HEADS * 8] = "";
    size_t used = 0;
    snprintf(grid, sizeof(grid), "%lld,%lld,%lld", (long long)spec->grid[0],
             (long long)spec->grid[1], (long long)spec->grid[2]);
    snprintf(seed, sizeof(seed), "%llu", (unsigned long long)spec->seed);
    for (int32_t h = 0; h < spec->heads; h++)
        used += (size_t)snprintf(kinds + used, sizeof(kinds) - used, "%s%s", h ? "," : "",
                                 workload_kind_name(workload_head_kind(spec, h)));
    const st_pair pairs[] = {{"format", "rfa-video-1"}, {"axes", "bshd"}, {"grid", grid},
                             {"grid_offset", "0"},      {"kinds", kinds}, {"seed", seed}};
    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        rfa_status status = st_writer_metadata(writer, pairs[i].key, pairs[i].value, err);
        if (status)
            return status;
    }
    return RFA_OK;
}

static rfa_status declare(st_writer *writer, const workload_spec *spec, rfa_error *err)
{
    const char *const names[] = {"q", "k", "v"};
    int64_t shape[4] = {1, workload_tokens(spec), spec->heads, spec->dim};
    rfa_status status = add_metadata(writer, spec, err);
    for (int i = 0; !status && i < 3; i++)
        status = st_writer_tensor(writer, names[i], spec->dtype, 4, shape, NULL, err);
    return status ? status : st_writer_begin(writer, err);
}

static rfa_status write_tensors(st_writer *writer, const workload_spec *spec, rfa_error *err)
{
    int64_t tokens = workload_tokens(spec);
    int64_t token_bytes = (int64_t)spec->heads * spec->dim * (int64_t)dtype_size(spec->dtype);
    int64_t most = CHUNK_BYTES / token_bytes > 0 ? CHUNK_BYTES / token_bytes : 1;
    most = most < tokens ? most : tokens;
    void *chunk = malloc((size_t)(most * token_bytes));
    if (!chunk)
        return rfa_fail(err, RFA_OUT_OF_MEMORY, "no memory for %lld tokens", (long long)most);

    progress line;
    rfa_status status = RFA_OK;
    progress_start(&line, "making q, k, v", 3 * (uint64_t)tokens);
    for (int which = 0; which < 3; which++)
        for (int64_t done = 0; !status && done < tokens; done += most) {
            int64_t now = tokens - done < most ? tokens - done : most;
            status = workload_fill(spec, (workload_tensor)which, done, now, chunk, err);
            if (!status)
                status = st_writer_append(writer, chunk, (size_t)(now * token_bytes), err);
            progress_update(&line, (uint64_t)which * (uint64_t)tokens + (uint64_t)(done + now));
        }
    progress_end(&line);
    free(chunk);
    return status;
}

static void report(const st_writer *writer, const workload_spec *spec, const char *path)
{
    char size[32];
    int64_t tokens = workload_tokens(spec);
    /* The file itself may be going to standard output. */
    FILE *out = st_writer_is_direct(writer) ? stderr : stdout;
    fprintf(out,
            "wrote %s: q, k, v of %lld token%s (%lld x %lld x %lld), %d head%s of %d, %s, %s\n",
            path, (long long)tokens, tokens == 1 ? "" : "s", (long long)spec->grid[0],
            (long long)spec->grid[1], (long long)spec->grid[2], (int)spec->heads,
            spec->heads == 1 ? "" : "s", (int)spec->dim, dtype_name(spec->dtype),
            cli_bytes(st_writer_size(writer), size, sizeof(size)));
}

int cmd_make(int argc, char **argv)
{
    make_options options = {.preset = "tiny", .dtype = RFA_BF16, .seed = 1};
    workload_spec spec = {.kind_count = 0};
    rfa_error err = {""};
    st_writer *writer = NULL;
    int code = parse(&options, argc, argv);
    if (code < 0)
        code = make_spec(&options, &spec);
    if (code >= 0)
        return code;

    rfa_status status = st_writer_create(&writer, options.output, &err);
    if (!status)
        status = declare(writer, &spec, &err);
    if (!status)
        status = write_tensors(writer, &spec, &err);
    if (!status)
        status = st_writer_commit(writer, &err);
    if (!status)
        report(writer, &spec, options.output);
    st_writer_destroy(writer);
    return status ? cli_fail(NAME, status, "%s", err.text) : CLI_OK;
}
