/* rfa bench: how fast, on every device, beside its own dense and a peer. */
#include <math.h>
#include <string.h>

#include "tools/bench.h"
#include "tools/cli.h"
#include "tools/dtype.h"

#define NAME "rfa bench"

static const char about[] =
    "Times dense and sparse attention, each variant in turn, several rounds, each of which begins "
    "with another. Every variant first proves itself against the float64 oracle on a sample of "
    "decision blocks; one that is wrong is not timed, and the exit status says so.\n\n"
    "Inputs are the synthetic video workload of --preset or --grid, gathered into cubes, or with "
    "--shape one row of tokens, or with --packed several in a pack. With --peer torch, PyTorch's "
    "scaled_dot_product_attention runs on "
    "the same tensors, device and number of threads, in turn with the others; on a CPU either side "
    "first rests until the other's threads sleep, and makes a call that is not timed.";

static const char examples[] =
    "rfa bench --grid 13,22,40 --heads 5 --variants dense,recall:0.9,recall:0.9:estimated\n"
    "rfa bench --shape 1,8,4096,128 --dtype bf16,f32 --variants dense --peer torch --markdown";

static const char *const orders[] = {"diagonal", "raster", "predicted", NULL};
static const char *const peers[] = {"none", "torch", NULL};
static const char *const isas[] = {"any", "avx512", "avx2", NULL};

typedef struct bench_options {
    bench_request request;
    const char *backends, *preset, *kinds, *variants, *dtypes;
    int64_t device, heads, dim, rounds, threads, seed;
    cli_integers grid, shape, block;
    int order, peer, peer_isa;
    bool heads_given, dim_given, no_cubes, json, csv, markdown;
} bench_options;

#define FIELD(member) offsetof(bench_options, member)

static const cli_option table[] = {
    {.name = "backend",
     .kind = CLI_TEXT,
     .value = FIELD(backends),
     .argument = "A,B",
     .default_text = "all usable but reference",
     .help = "backends to time"},
    {.name = "device",
     .kind = CLI_INTEGER,
     .value = FIELD(device),
     .argument = "N",
     .min = -1,
     .max = 1024,
     .default_text = "all",
     .help = "device of those backends"},
    {.name = "threads",
     .kind = CLI_INTEGER,
     .value = FIELD(threads),
     .argument = "N",
     .max = 65536,
     .default_text = "one a core",
     .help = "threads of CPU backends, and of the peer"},
    {.name = "preset",
     .kind = CLI_TEXT,
     .value = FIELD(preset),
     .argument = "NAME",
     .default_text = "",
     .help = "a workload of `rfa make --help`"},
    {.name = "grid",
     .kind = CLI_INTEGERS,
     .value = FIELD(grid),
     .argument = "T,H,W",
     .min = 1,
     .max = INT32_MAX,
     .exactly = 3,
     .default_text = "9,22,40",
     .help = "frames, rows and columns of the workload"},
    {.name = "shape",
     .kind = CLI_INTEGERS,
     .value = FIELD(shape),
     .argument = "B,H,L,D",
     .min = 1,
     .max = INT32_MAX,
     .exactly = 4,
     .default_text = "",
     .help = "instead of a video: batch, heads, length, dim"},
    {.name = "packed",
     .kind = CLI_INTEGERS,
     .value = FIELD(request.packed),
     .argument = "L,L",
     .min = 1,
     .max = INT32_MAX,
     .default_text = "",
     .help = "instead of a video: packed sequences of these lengths, with --heads and --dim"},
    {.name = "heads",
     .kind = CLI_INTEGER,
     .value = FIELD(heads),
     .argument = "N",
     .min = 1,
     .max = WORKLOAD_MAX_HEADS,
     .given = FIELD(heads_given),
     .default_text = "the preset's, or 5",
     .help = "heads"},
    {.name = "dim",
     .kind = CLI_INTEGER,
     .value = FIELD(dim),
     .argument = "N",
     .min = 1,
     .max = WORKLOAD_MAX_DIM,
     .given = FIELD(dim_given),
     .default_text = "the preset's, or 128",
     .help = "head dim"},
    {.name = "kinds",
     .kind = CLI_TEXT,
     .value = FIELD(kinds),
     .argument = "A,B",
     .default_text = "all five in turn",
     .help = "head kinds of the workload"},
    {.name = "seed",
     .kind = CLI_INTEGER,
     .value = FIELD(seed),
     .argument = "N",
     .max = INT64_MAX,
     .help = "of the workload"},
    {.name = "dtype",
     .kind = CLI_TEXT,
     .value = FIELD(dtypes),
     .argument = "A,B",
     .help = "f32, f16, bf16"},
    {.name = "variants",
     .kind = CLI_TEXT,
     .value = FIELD(variants),
     .argument = "A,B",
     .help = "dense, recall:R, recall:R:estimated, blasst:LAMBDA, energy:LOG_LAMBDA; :scaled "
             "after the last two scales by length; list:G, all of a visit list that holds a "
             "random share G of the blocks"},
    {.name = "order",
     .kind = CLI_CHOICE,
     .value = FIELD(order),
     .choices = orders,
     .argument = "ORDER",
     .help = "visit order"},
    {.name = "no-cubes",
     .kind = CLI_FLAG,
     .value = FIELD(no_cubes),
     .help = "leave video tokens in raster order"},
    {.name = "causal",
     .kind = CLI_FLAG,
     .value = FIELD(request.causal),
     .help = "causal mask, for the peer too (implies --no-cubes)"},
    {.name = "block",
     .kind = CLI_INTEGERS,
     .value = FIELD(block),
     .argument = "Q,K[,V]",
     .min = 1,
     .max = 65536,
     .default_text = "64,128,384",
     .help = "decision block, and queries that share a visit list"},
    {.name = "rounds",
     .kind = CLI_INTEGER,
     .value = FIELD(rounds),
     .argument = "N",
     .min = 1,
     .max = BENCH_MAX_ROUNDS,
     .help = "timed rounds after one of warm-up"},
    {.name = "check-blocks",
     .kind = CLI_INTEGER,
     .value = FIELD(request.check_blocks),
     .argument = "N",
     .min = 1,
     .max = INT64_MAX,
     .help = "decision blocks that each variant proves itself on"},
    {.name = "peer",
     .kind = CLI_CHOICE,
     .value = FIELD(peer),
     .choices = peers,
     .argument = "WHO",
     .help = "compare with another implementation"},
    {.name = "python",
     .kind = CLI_TEXT,
     .value = FIELD(request.python),
     .argument = "PATH",
     .default_text = "python3",
     .help = "the Python that has PyTorch"},
    {.name = "peer-isa",
     .kind = CLI_CHOICE,
     .value = FIELD(peer_isa),
     .choices = isas,
     .argument = "ISA",
     .help = "cap PyTorch's and oneDNN's CPU instructions (ATEN_CPU_CAPABILITY, "
             "ONEDNN_MAX_CPU_ISA)"},
    {.name = "json", .kind = CLI_FLAG, .value = FIELD(json), .help = "print JSON"},
    {.name = "csv", .kind = CLI_FLAG, .value = FIELD(csv), .help = "print CSV"},
    {.name = "markdown",
     .kind = CLI_FLAG,
     .value = FIELD(markdown),
     .help = "print a Markdown table"},
};

#undef FIELD

static const cli_command command = {.name = NAME,
                                    .usage = "rfa bench [options]",
                                    .about = about,
                                    .examples = examples,
                                    .options = table,
                                    .option_count = sizeof(table) / sizeof(table[0])};

/* ---- from options to a request ---- */

/* One row of tokens. */
static void take_row(workload_spec *spec, int64_t tokens)
{
    const int64_t line[3] = {1, 1, tokens};
    memcpy(spec->grid, line, sizeof(line));
    spec->kinds[0] = WORKLOAD_DIFFUSE;
    spec->kind_count = 1;
}

static int64_t sum_of(const cli_integers *list)
{
    int64_t sum = 0;
    for (size_t i = 0; i < list->count; i++)
        sum += list->values[i];
    return sum;
}

static int take_workload(bench_options *o)
{
    workload_spec *spec = &o->request.workload;
    const int64_t usual[3] = {9, 22, 40};
    const cli_integers *packed = &o->request.packed;
    if ((o->preset != NULL) + (o->grid.count > 0) + (o->shape.count > 0) + (packed->count > 0) > 1)
        return cli_usage(NAME, "--preset, --grid, --shape and --packed exclude each other");
    const workload_preset *preset = o->preset ? workload_find_preset(o->preset) : NULL;
    if (o->preset && !preset)
        return cli_usage(NAME, "there is no preset named %s", o->preset);
    if (o->shape.count > 0 && (o->heads_given || o->dim_given || o->kinds))
        return cli_usage(NAME, "--shape says heads and dim, and its tokens are of kind diffuse");
    if (packed->count > 0 && o->kinds)
        return cli_usage(NAME, "packed tokens are of kind diffuse");
    o->request.batch = o->shape.count > 0 ? o->shape.values[0] : 1;
    o->request.video = o->shape.count == 0 && packed->count == 0;
    memcpy(spec->grid,
           preset          ? preset->grid
           : o->grid.count ? o->grid.values
                           : usual,
           sizeof(spec->grid));
    spec->heads = (int32_t)(preset && !o->heads_given ? preset->heads : o->heads);
    spec->dim = preset && !o->dim_given ? preset->dim : (int32_t)o->dim;
    if (o->shape.count > 0) {
        spec->heads = (int32_t)o->shape.values[1];
        spec->dim = (int32_t)o->shape.values[3];
        take_row(spec, o->shape.values[2]);
    }
    if (packed->count > 0)
        take_row(spec, sum_of(packed));
    spec->seed = (uint64_t)o->seed;
    return -1;
}

static int take_kinds(bench_options *o)
{
    workload_spec *spec = &o->request.workload;
    char copy[512], *rest = NULL;
    if (!o->kinds)
        return -1;
    if ((size_t)snprintf(copy, sizeof(copy), "%s", o->kinds) >= sizeof(copy))
        return cli_usage(NAME, "--kinds is too long");
    for (char *one = strtok_r(copy, ",", &rest); one; one = strtok_r(NULL, ",", &rest)) {
        if (spec->kind_count == 64 || !workload_find_kind(one, &spec->kinds[spec->kind_count]))
            return cli_usage(NAME, "%s is no head kind", one);
        spec->kind_count++;
    }
    return -1;
}

/* What packed sequences do not go with. */
static int check_packed(const bench_options *o)
{
    const bench_request *r = &o->request;
    if (r->packed.count == 0)
        return -1;
    if (sum_of(&r->packed) > INT32_MAX)
        return cli_usage(NAME, "packed sequences have 2^31 tokens or more");
    if (o->peer)
        return cli_usage(NAME, "the peer does not take packed sequences");
    for (int i = 0; i < r->variant_count; i++)
        if (r->variants[i].listed > 0)
            return cli_usage(NAME, "packed sequences have no variant %s", r->variants[i].label);
    return -1;
}

static int complete(bench_options *o)
{
    bench_request *r = &o->request;
    rfa_error err;
    int code = take_workload(o);
    if (code < 0)
        code = take_kinds(o);
    if (code >= 0)
        return code;
    if (o->json + o->csv + o->markdown > 1)
        return cli_usage(NAME, "--json, --csv and --markdown exclude each other");
    if (o->block.count == 1 || o->block.count > 3)
        return cli_usage(NAME, "--block takes Q,K or Q,K,V");
    if (bench_parse_variants(o->variants, r, &err) != RFA_OK)
        return cli_usage(NAME, "%s", err.text);
    code = check_packed(o);
    if (code >= 0)
        return code;
    if (workload_check(&r->workload, &err) != RFA_OK)
        return cli_usage(NAME, "%s", err.text);
    r->block_q = o->block.count > 0 ? (int32_t)o->block.values[0] : 64;
    r->block_k = o->block.count > 0 ? (int32_t)o->block.values[1] : 128;
    r->visit_q = rfa_default_visit_q(r->block_q);
    if (o->block.count > 2)
        r->visit_q = (int32_t)o->block.values[2];
    r->cubes = !o->no_cubes && !r->causal;
    r->order = (rfa_order)o->order;
    r->rounds = (int)o->rounds;
    r->threads = (int32_t)o->threads;
    r->peer = o->peer ? peers[o->peer] : NULL;
    r->peer_isa = o->peer_isa ? isas[o->peer_isa] : NULL;
    return -1;
}

/* ---- which devices and dtypes ---- */

static bool in_list(const char *list, const char *word)
{
    size_t length = strlen(word);
    for (const char *at = list; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL)
        if (strncmp(at, word, length) == 0 && (at[length] == ',' || !at[length]))
            return true;
    return false;
}

static rfa_status bench_dtypes(const bench_options *o, const char *backend, int32_t device,
                               bench_result *result, rfa_error *err)
{
    rfa_status status = RFA_OK;
    for (int i = 0; dtype_names[i] && status == RFA_OK; i++)
        if (in_list(o->dtypes, dtype_names[i]))
            status = bench_run(&o->request, backend, device, (rfa_dtype)i, result, err);
    return status;
}

static rfa_status bench_backend(const bench_options *o, const char *backend, bench_result *result,
                                rfa_error *err)
{
    int32_t count = 0;
    rfa_status status = device_status(NULL, rfa_device_count(backend, &count), err);
    for (int32_t i = 0; i < count && status == RFA_OK; i++) {
        rfa_device_info info;
        if (o->device >= 0 && i != o->device)
            continue;
        status = device_status(NULL, rfa_device_get(backend, i, &info), err);
        if (status == RFA_OK && info.status != RFA_OK)
            cli_warn(NAME, "SKIP %s device %d: %s", backend, (int)i, info.why);
        else if (status == RFA_OK)
            status = bench_dtypes(o, backend, i, result, err);
    }
    return status;
}

static rfa_status bench_all(const bench_options *o, bench_result *result, rfa_error *err)
{
    size_t count;
    rfa_status status = device_backends(&count, err);
    for (size_t i = 0; i < count && status == RFA_OK; i++) {
        rfa_backend_info info;
        status = device_status(NULL, rfa_backend_get(i, &info), err);
        if (status != RFA_OK || info.status != RFA_OK)
            continue;
        bool wanted =
            o->backends ? in_list(o->backends, info.name) : strcmp(info.name, "reference") != 0;
        if (wanted)
            status = bench_backend(o, info.name, result, err);
    }
    if (status == RFA_OK && result->count == 0)
        status = rfa_fail(err, RFA_NO_DEVICE,
                          "nothing to time: no such backend, device or dtype "
                          "(`rfa devices` lists them)");
    return status;
}

static bool report(const bench_options *o, const bench_result *result)
{
    if (o->json)
        return bench_report_json(stdout, result);
    if (o->csv)
        return bench_report_csv(stdout, result);
    if (o->markdown)
        return bench_report_markdown(stdout, result);
    return bench_report_table(stdout, result);
}

int cmd_bench(int argc, char **argv)
{
    bench_options options = {.variants = "dense,recall:0.9,recall:0.95,recall:0.9:estimated",
                             .dtypes = "bf16",
                             .device = -1,
                             .heads = 5,
                             .dim = 128,
                             .rounds = 5,
                             .seed = 1,
                             .request = {.check_blocks = 24}};
    int code = cli_parse(&command, &options, argc, argv, NULL, NULL);
    if (code < 0)
        code = complete(&options);
    if (code >= 0)
        return code;
    bench_result result = {0};
    rfa_error err = {""};
    rfa_status status = bench_all(&options, &result, &err);
    bool wrong = false;
    for (size_t i = 0; i < result.count; i++)
        wrong = wrong || result.rows[i].failed;
    bool told = result.count == 0 || report(&options, &result);
    bench_result_free(&result);
    if (status != RFA_OK)
        return cli_fail(NAME, status, "%s", err.text);
    if (!told || !cli_flush(NAME))
        return cli_fail(NAME, RFA_IO_ERROR, "the report could not be written");
    return wrong ? CLI_CHECK_FAILED : CLI_OK;
}
