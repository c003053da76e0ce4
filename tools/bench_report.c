/* How `rfa bench` shows its rows. */
#include "tools/bench.h"

#include <math.h>
#include <string.h>

#include "tools/json.h"

static double share(const bench_row *row, uint64_t blocks)
{
    return row->counts.blocks_total ? (double)blocks / (double)row->counts.blocks_total : 0;
}

static void shape_text(const bench_row *row, char *text, size_t size)
{
    snprintf(text, size, "%lldx%lldx%lldx%lld", (long long)row->batch, (long long)row->heads,
             (long long)row->len, (long long)row->dim);
}

/* A number, or nothing where there is none to give. */
static const char *cell(char *text, size_t size, const char *format, double value, bool there)
{
    text[0] = '\0';
    if (there && isfinite(value))
        snprintf(text, size, format, value);
    return text;
}

enum { CELLS = 12, CELL_SIZE = 72 };

static const char *const titles[CELLS] = {"backend", "dtype",   "shape B x H x L x D",
                                          "variant", "ms",      "spread",
                                          "host us", "TFLOP/s", "visited",
                                          "kept",    "recall",  "x dense"};

static void fill_cells(const bench_row *row, char cells[CELLS][CELL_SIZE])
{
    bool timed = row->median > 0;
    double spread = timed ? 100 * (row->slowest - row->fastest) / row->median : 0;
    snprintf(cells[0], CELL_SIZE, "%s", row->backend);
    snprintf(cells[1], CELL_SIZE, "%s", row->dtype);
    shape_text(row, cells[2], CELL_SIZE);
    snprintf(cells[3], CELL_SIZE, "%s", row->label);
    cell(cells[4], CELL_SIZE, "%.3f", 1e3 * row->median, timed);
    cell(cells[5], CELL_SIZE, "%.1f %%", spread, timed);
    cell(cells[6], CELL_SIZE, "%.1f", 1e6 * row->host, row->host > 0);
    cell(cells[7], CELL_SIZE, "%.3f", row->tflops, timed);
    cell(cells[8], CELL_SIZE, "%.3f", share(row, row->counts.blocks_visited), row->has_counts);
    cell(cells[9], CELL_SIZE, "%.3f", share(row, row->counts.blocks_kept), row->has_counts);
    cell(cells[10], CELL_SIZE, "%.4f", (double)row->counts.recall_mean, row->has_counts);
    cell(cells[11], CELL_SIZE, "%.2f", row->over_dense, row->over_dense > 0);
}

static void peer_cell(const bench_row *row, char *text)
{
    cell(text, CELL_SIZE, "%.2f", row->over_peer, row->over_peer > 0);
}

static bool any_peer(const bench_result *result)
{
    for (size_t i = 0; i < result->count; i++)
        if (result->rows[i].over_peer > 0)
            return true;
    return false;
}

static void print_notes(FILE *out, const bench_result *result, const char *lead)
{
    for (size_t i = 0; i < result->count; i++) {
        const bench_row *row = &result->rows[i];
        bool first = i == 0 || strcmp(row[-1].device, row->device) != 0;
        if (first)
            fprintf(out, "%sdevice: %s, %s\n", lead, row->device, row->detail);
        if (row->failure[0])
            fprintf(out, "%s%s %s %s: %s: %s\n", lead, row->backend, row->dtype, row->label,
                    row->failed ? "WRONG, not timed" : "SKIP", row->failure);
    }
    bool causal = result->count > 0 && result->rows[0].causal;
    bool packed = result->count > 0 && result->rows[0].packed;
    fprintf(out,
            "%sms: median of the rounds, by the device's clock; spread: (slowest - fastest) / "
            "median; host us: until a call returns, which on a CPU is all of it; TFLOP/s: %s over "
            "the time, also where blocks were skipped\n",
            lead,
            packed   ? "4 H D times the pairs inside the B sequences, which have L tokens in all,"
            : causal ? "4 B H D times the L (L + 1) / 2 pairs under the causal mask"
                     : "4 B H L^2 D");
}

bool bench_report_table(FILE *out, const bench_result *result)
{
    static const int widths[CELLS] = {-9, -5, -20, -22, 11, 8, 11, 9, 7, 7, 7, 8};
    char cells[CELLS][CELL_SIZE], peer[CELL_SIZE];
    bool peers = any_peer(result);
    for (int i = 0; i < CELLS; i++)
        fprintf(out, "%*s%s", widths[i], titles[i], i + 1 < CELLS ? " " : "");
    fprintf(out, "%s\n", peers ? "  x peer" : "");
    for (size_t r = 0; r < result->count; r++) {
        fill_cells(&result->rows[r], cells);
        for (int i = 0; i < CELLS; i++)
            fprintf(out, "%*s%s", widths[i], cells[i], i + 1 < CELLS ? " " : "");
        peer_cell(&result->rows[r], peer);
        fprintf(out, peers ? "%8s\n" : "%s\n", peers ? peer : "");
    }
    print_notes(out, result, "");
    return !ferror(out);
}

bool bench_report_markdown(FILE *out, const bench_result *result)
{
    char cells[CELLS][CELL_SIZE], peer[CELL_SIZE];
    for (int i = 0; i < CELLS; i++)
        fprintf(out, "| %s ", titles[i]);
    fprintf(out, "| x peer |\n");
    for (int i = 0; i <= CELLS; i++)
        fprintf(out, "| --- ");
    fprintf(out, "|\n");
    for (size_t r = 0; r < result->count; r++) {
        fill_cells(&result->rows[r], cells);
        for (int i = 0; i < CELLS; i++)
            fprintf(out, "| %s ", cells[i]);
        peer_cell(&result->rows[r], peer);
        fprintf(out, "| %s |\n", peer);
    }
    fprintf(out, "\n");
    print_notes(out, result, "- ");
    return !ferror(out);
}

/* Texts come from drivers and messages: quoted, quotes doubled. */
static void csv_text(FILE *out, const char *text)
{
    fputc('"', out);
    for (; *text; text++) {
        if (*text == '"')
            fputc('"', out);
        fputc(*text, out);
    }
    fputs("\",", out);
}

bool bench_report_csv(FILE *out, const bench_result *result)
{
    fprintf(out, "backend,device,detail,dtype,variant,failure,batch,heads,len,dim,rounds,ms_median,"
                 "ms_min,ms_max,host_us,tflops,blocks_total,blocks_visited,blocks_kept,recall_mean,"
                 "recall_block_min,speedup_dense,speedup_peer,causal,packed\n");
    for (size_t i = 0; i < result->count; i++) {
        const bench_row *r = &result->rows[i];
        const char *const texts[] = {r->backend, r->device, r->detail,
                                     r->dtype,   r->label,  r->failure};
        for (size_t t = 0; t < sizeof(texts) / sizeof(texts[0]); t++)
            csv_text(out, texts[t]);
        fprintf(out,
                "%lld,%lld,%lld,%lld,%d,%.6f,%.6f,%.6f,%.3f,%.6f,%llu,%llu,%llu,%g,%g,%.4f,%.4f,%d,"
                "%d\n",
                (long long)r->batch, (long long)r->heads, (long long)r->len, (long long)r->dim,
                r->rounds, 1e3 * r->median, 1e3 * r->fastest, 1e3 * r->slowest, 1e6 * r->host,
                r->tflops, (unsigned long long)r->counts.blocks_total,
                (unsigned long long)r->counts.blocks_visited,
                (unsigned long long)r->counts.blocks_kept, (double)r->counts.recall_mean,
                (double)r->counts.recall_block_min, r->over_dense, r->over_peer, r->causal,
                r->packed);
    }
    return !ferror(out);
}

static bool add_counts(cJSON *json, const bench_row *r)
{
    if (!r->has_counts)
        return true;
    return json_add_unsigned(json, "blocks_total", r->counts.blocks_total) &&
           json_add_unsigned(json, "blocks_visited", r->counts.blocks_visited) &&
           json_add_unsigned(json, "blocks_kept", r->counts.blocks_kept) &&
           json_add_f32(json, "recall_mean", r->counts.recall_mean) &&
           json_add_f32(json, "recall_block_min", r->counts.recall_block_min);
}

static bool add_ratio(cJSON *json, const char *name, double ratio)
{
    return json_add_number(json, name, ratio > 0 ? ratio : NAN);
}

static bool add_row(cJSON *json, const bench_row *r)
{
    return json_add_text(json, "backend", r->backend) && json_add_text(json, "device", r->device) &&
           json_add_text(json, "detail", r->detail) && json_add_text(json, "dtype", r->dtype) &&
           json_add_text(json, "variant", r->label) &&
           json_add_text(json, "failure", r->failure[0] ? r->failure : NULL) &&
           json_add_integer(json, "batch", r->batch) && json_add_integer(json, "heads", r->heads) &&
           json_add_integer(json, "len", r->len) && json_add_integer(json, "dim", r->dim) &&
           json_add_bool(json, "causal", r->causal) && json_add_bool(json, "packed", r->packed) &&
           json_add_integer(json, "rounds", r->rounds) &&
           json_add_number(json, "ms_median", r->median > 0 ? 1e3 * r->median : NAN) &&
           json_add_number(json, "ms_min", r->median > 0 ? 1e3 * r->fastest : NAN) &&
           json_add_number(json, "ms_max", r->median > 0 ? 1e3 * r->slowest : NAN) &&
           json_add_number(json, "host_us", r->host > 0 ? 1e6 * r->host : NAN) &&
           add_ratio(json, "tflops", r->tflops) &&
           add_ratio(json, "speedup_dense", r->over_dense) &&
           add_ratio(json, "speedup_peer", r->over_peer) && add_counts(json, r);
}

bool bench_report_json(FILE *out, const bench_result *result)
{
    cJSON *json = cJSON_CreateObject();
    cJSON *rows = json ? cJSON_AddArrayToObject(json, "rows") : NULL;
    bool ok = rows && json_add_text(json, "version", rfa_version());
    for (size_t i = 0; ok && i < result->count; i++) {
        cJSON *row = cJSON_CreateObject();
        ok = row && cJSON_AddItemToArray(rows, row) && add_row(row, &result->rows[i]);
    }
    ok = ok && json_print(out, json);
    cJSON_Delete(json);
    return ok;
}
