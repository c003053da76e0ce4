/* rfa run: attention on q, k, v from a file. */
#include <math.h>
#include <string.h>

#include "conformance/check.h"
#include "src/problem.h"
#include "tools/cli.h"
#include "tools/progress.h"
#include "tools/run_job.h"
#include "tools/run_report.h"

#define NAME "rfa run"

static const char about[] =
    "Computes attention of q, k and v from a safetensors file and says how long it took, how much "
    "was skipped and what recall was kept. A skipped block of keys costs its share of softmax "
    "mass; rule recall keeps at least the share that --recall asks for, in every block of queries, "
    "whatever the head does.\n\n"
    "Where the file says its grid (as those of `rfa make` do), tokens are gathered into cubes of "
    "4 x 4 x 4, by which far more can be skipped; results are in the file's order again.";

static const char examples[] = "rfa make --preset tiny -o tiny.safetensors\n"
                               "rfa run tiny.safetensors --recall 0.9 --check\n"
                               "rfa run mine.safetensors --q query --k key --v value --axes bhsd "
                               "--grid 21,45,80";

static const char *const rules[] = {"dense", "blasst", "energy", "recall", NULL};
static const char *const masses[] = {"exact", "estimated", NULL};
static const char *const orders[] = {"diagonal", "raster", "predicted", NULL};
static const char *const axes[] = {"file", "bshd", "bhsd", NULL};

/* What the options fill; the request is made of it. */
typedef struct run_options {
    run_request request;
    const char *q, *k, *v;
    int64_t device, threads, grid_offset, check_blocks;
    int rule, mass, order, axes;
    double recall, threshold, scale;
    bool recall_given, threshold_given, check_blocks_given;
    bool no_cubes, no_recall, check, json;
    cli_integers block, grid;
} run_options;

#define FIELD(member) offsetof(run_options, member)

static const cli_option table[] = {
    {.name = "backend",
     .kind = CLI_TEXT,
     .value = FIELD(request.backend),
     .argument = "NAME",
     .help = "cpu, reference, ...; `rfa devices` lists them",
     .default_text = "the best usable"},
    {.name = "device",
     .kind = CLI_INTEGER,
     .value = FIELD(device),
     .argument = "N",
     .max = 1024,
     .help = "device of that backend",
     .default_text = "the first usable"},
    {.name = "threads",
     .kind = CLI_INTEGER,
     .value = FIELD(threads),
     .argument = "N",
     .max = 65536,
     .help = "threads of CPU backends",
     .default_text = "one a core"},
    {.name = "rule",
     .kind = CLI_CHOICE,
     .value = FIELD(rule),
     .choices = rules,
     .argument = "RULE",
     .help = "when a block is skipped"},
    {.name = "recall",
     .kind = CLI_NUMBER,
     .value = FIELD(recall),
     .argument = "R",
     .max_number = 1,
     .given = FIELD(recall_given),
     .help = "rule recall: the share of softmax mass to keep, above 0 and up to 1"},
    {.name = "threshold",
     .kind = CLI_NUMBER,
     .value = FIELD(threshold),
     .argument = "X",
     .min_number = -INFINITY,
     .max_number = INFINITY,
     .given = FIELD(threshold_given),
     .default_text = "",
     .help = "rule blasst: lambda, 0 to 1; rule energy: log_lambda, 0 or less"},
    {.name = "scaled",
     .kind = CLI_FLAG,
     .value = FIELD(request.scaled),
     .help = "--threshold is scaled by length: blasst's factor a (lambda = a / keys), energy's "
             "target of lost mass"},
    {.name = "mass",
     .kind = CLI_CHOICE,
     .value = FIELD(mass),
     .choices = masses,
     .argument = "KIND",
     .help = "rule recall: sum a block's mass or estimate it (faster, no "
             "guarantee)"},
    {.name = "order",
     .kind = CLI_CHOICE,
     .value = FIELD(order),
     .choices = orders,
     .argument = "ORDER",
     .help = "in which order key blocks are visited"},
    {.name = "block",
     .kind = CLI_INTEGERS,
     .value = FIELD(block),
     .argument = "Q,K[,V]",
     .min = 1,
     .max = 65536,
     .help = "queries and keys of a decision block, and queries that share a visit list",
     .default_text = "64,128,384"},
    {.name = "grid",
     .kind = CLI_INTEGERS,
     .value = FIELD(grid),
     .argument = "T,H,W",
     .min = 1,
     .max = INT32_MAX,
     .exactly = 3,
     .given = FIELD(request.grid_given),
     .help = "frames, rows and columns of the tokens",
     .default_text = "what the file says"},
    {.name = "grid-offset",
     .kind = CLI_INTEGER,
     .value = FIELD(grid_offset),
     .argument = "N",
     .max = INT32_MAX,
     .help = "with --grid: tokens before it"},
    {.name = "no-cubes",
     .kind = CLI_FLAG,
     .value = FIELD(no_cubes),
     .help = "leave tokens in the file's order"},
    {.name = "causal",
     .kind = CLI_FLAG,
     .value = FIELD(request.causal),
     .help = "causal mask, aligned at the end (implies --no-cubes)"},
    {.name = "scale",
     .kind = CLI_NUMBER,
     .value = FIELD(scale),
     .argument = "X",
     .help = "factor on q.k",
     .default_text = "1/sqrt(dim)"},
    {.name = "q",
     .kind = CLI_TEXT,
     .value = FIELD(q),
     .argument = "NAME",
     .help = "tensor that holds the queries"},
    {.name = "k", .kind = CLI_TEXT, .value = FIELD(k), .argument = "NAME", .help = "the keys"},
    {.name = "v", .kind = CLI_TEXT, .value = FIELD(v), .argument = "NAME", .help = "the values"},
    {.name = "axes",
     .kind = CLI_CHOICE,
     .value = FIELD(axes),
     .choices = axes,
     .argument = "ORDER",
     .help = "bshd is (batch, seq, heads, dim); file: what its metadata "
             "says, else bshd. Without a batch axis it is one of 1"},
    {.name = "repeat",
     .kind = CLI_INTEGER,
     .value = FIELD(request.repeat),
     .argument = "N",
     .max = 1000,
     .help = "timed calls after one warm-up; the median counts",
     .default_text = "what half a second holds"},
    {.name = "no-recall",
     .kind = CLI_FLAG,
     .value = FIELD(no_recall),
     .help = "rules blasst and energy: do not spend exponentials on telling the recall"},
    {.name = "check",
     .kind = CLI_FLAG,
     .value = FIELD(check),
     .help = "compare with the float64 oracle: every decision, every output"},
    {.name = "check-blocks",
     .kind = CLI_INTEGER,
     .value = FIELD(check_blocks),
     .argument = "N",
     .max = INT64_MAX,
     .given = FIELD(check_blocks_given),
     .help = "with --check: decision blocks to check, spread over all; 0 means all",
     .default_text = "all, or 512 of a long job"},
    {.name = "json", .kind = CLI_FLAG, .value = FIELD(json), .help = "print one JSON object"},
    {.name = "output",
     .letter = 'o',
     .kind = CLI_TEXT,
     .value = FIELD(request.output),
     .argument = "FILE",
     .help = "write out, lse and recall; not after a failed --check",
     .default_text = ""},
};

#undef FIELD

static const cli_command command = {.name = NAME,
                                    .usage = "rfa run [options] FILE",
                                    .about = about,
                                    .examples = examples,
                                    .options = table,
                                    .option_count = sizeof(table) / sizeof(table[0]),
                                    .operands_min = 1,
                                    .operands_max = 1,
                                    .operand = "a safetensors file with q, k and v"};

static int check_rule(const run_options *o)
{
    bool thresholded = o->rule == RFA_RULE_BLASST || o->rule == RFA_RULE_ENERGY;
    if (thresholded && !o->threshold_given)
        return cli_usage(NAME, "--rule %s needs --threshold", rules[o->rule]);
    if (!thresholded && o->threshold_given)
        return cli_usage(NAME, "--threshold is for the rules blasst and energy");
    if (o->rule != RFA_RULE_RECALL && o->recall_given)
        return cli_usage(NAME, "--recall is for rule recall, not %s", rules[o->rule]);
    if (o->rule == RFA_RULE_RECALL && !(o->recall > 0))
        return cli_usage(NAME, "--recall must be above 0 and at most 1");
    if (o->no_recall && !thresholded)
        return cli_usage(NAME, "--no-recall is for the rules blasst and energy");
    if (o->request.grid_given && (o->no_cubes || o->request.causal))
        return cli_usage(NAME, "--grid cannot be used with --no-cubes or --causal");
    if (o->grid_offset != 0 && !o->request.grid_given)
        return cli_usage(NAME, "--grid-offset is for --grid");
    if (o->scale != 0 && (float)o->scale == 0)
        return cli_usage(NAME, "--scale is too small for a float");
    if (o->check_blocks_given && !o->check)
        return cli_usage(NAME, "--check-blocks is for --check");
    return -1;
}

/* The rest of the request, from options that are not written into it directly. */
static int complete(run_options *o)
{
    run_request *r = &o->request;
    int code = check_rule(o);
    if (code >= 0)
        return code;
    if (o->block.count == 1 || o->block.count > 3)
        return cli_usage(NAME, "--block takes Q,K or Q,K,V");
    r->names[0] = o->q;
    r->names[1] = o->k;
    r->names[2] = o->v;
    r->device = (int32_t)o->device;
    r->threads = (int32_t)o->threads;
    r->axes = o->axes;
    r->rule = (rfa_rule)o->rule;
    r->mass = (rfa_mass)o->mass;
    r->order = (rfa_order)o->order;
    r->scale = (float)o->scale;
    r->knob = o->rule == RFA_RULE_RECALL ? o->recall : o->threshold;
    r->cubes = !o->no_cubes;
    r->grid.offset = o->grid_offset;
    memcpy(r->grid.size, o->grid.values, sizeof(r->grid.size));
    r->block_q = o->block.count > 0 ? (int32_t)o->block.values[0] : 64;
    r->block_k = o->block.count > 0 ? (int32_t)o->block.values[1] : 128;
    r->visit_q = o->block.count > 2 ? (int32_t)o->block.values[2] : rfa_default_visit_q(r->block_q);
    bool tracked = o->rule == RFA_RULE_DENSE || o->rule == RFA_RULE_RECALL;
    r->keep_recall = tracked || !o->no_recall;
    return -1;
}

static void show_progress(void *user, int64_t done, int64_t total)
{
    (void)total;
    progress_update(user, (uint64_t)done);
}

/* The oracle takes some seconds for 1e11 operations; past 2e12 a sample does. */
static int64_t blocks_to_check(const run_options *o, const run_job *job)
{
    double pairs =
        (double)job->batch * (double)job->heads_q * (double)job->len_q * (double)job->len_k;
    if (o->check_blocks_given)
        return o->check_blocks;
    return pairs * (double)job->dim > 2e12 / 4 ? 512 : 0;
}

static rfa_status check(const run_options *o, run_job *job, check_report *report, rfa_error *err)
{
    rfa_attention_args args;
    rfa_problem problem;
    const DLDevice host = {kDLCPU, 0};
    rfa_status status = run_job_host_args(job, &args, err);
    if (status == RFA_OK)
        status = rfa_problem_build(&problem, &args, RFA_FOR_ATTENTION, host, err);
    if (status != RFA_OK)
        return status;
    progress bar;
    check_options options = {.weights = check_weights(job->device.weights, problem.dtype),
                             .progress = show_progress,
                             .user = &bar};
    options.sample = blocks_to_check(o, job);
    int64_t all = job->batch * job->heads_q * problem.blocks_q;
    progress_start(&bar, "checking with the oracle",
                   (uint64_t)(options.sample && options.sample < all ? options.sample : all));
    status = check_outputs(&problem, &options, report, err);
    progress_end(&bar);
    return status;
}

static int run(const run_options *o, run_job *job)
{
    rfa_error err = {""};
    check_report report = {.ok = false};
    rfa_status status = run_job_open(job, &o->request, &err);
    if (status == RFA_OK)
        status = run_job_compute(job, &err);
    if (status == RFA_OK && o->check)
        status = check(o, job, &report, &err);
    bool wanted = o->request.output && (!o->check || report.ok);
    if (status == RFA_OK && wanted)
        status = run_job_save(job, &err);
    if (status != RFA_OK)
        return cli_fail(NAME, status, "%s", err.text);
    const check_report *checked = o->check ? &report : NULL;
    if (!o->json)
        run_report_text(job, checked);
    else if (!run_report_json(job, checked))
        return cli_fail(NAME, RFA_OUT_OF_MEMORY, "no memory for the report");
    if (!cli_flush(NAME))
        return CLI_STATUS + RFA_IO_ERROR;
    return o->check && !report.ok ? CLI_CHECK_FAILED : CLI_OK;
}

int cmd_run(int argc, char **argv)
{
    run_options options = {
        .q = "q", .k = "k", .v = "v", .rule = RFA_RULE_RECALL, .recall = 0.95, .device = -1};
    int code = cli_parse(&command, &options, argc, argv, &options.request.input, NULL);
    if (code < 0)
        code = complete(&options);
    if (code >= 0)
        return code;
    run_job job;
    code = run(&options, &job);
    run_job_close(&job);
    return code;
}
