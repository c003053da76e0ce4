/* The counts that a call leaves: recomputed from sizes, lists and decisions. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "conformance/check_internal.h"
#include "conformance/element.h"

/* `list`: room for the key blocks of a group. */
static int64_t listed_blocks(const check *c, int64_t batch, int64_t head, int64_t q_block,
                             int64_t unmasked, int32_t *list)
{
    const rfa_problem *p = c->p;
    if (p->order != RFA_ORDER_LIST)
        return unmasked;
    int64_t n = oracle_visits(c->given, batch, head, q_block * p->block_q / p->visit_q, list, NULL);
    int64_t visited = 0;
    for (int64_t i = 0; i < n; i++)
        visited += list[i] < unmasked;
    return visited;
}

static int64_t kept_blocks(const rfa_problem *p, int64_t batch, int64_t head, int64_t q_block)
{
    const uint32_t *words = check_decision_words(p, batch, head, q_block);
    int64_t kept = 0;
    for (int64_t w = 0; w < (p->blocks_k + 31) / 32; w++)
        kept += __builtin_popcount(words[w]);
    return kept;
}

static void count_blocks(const check *c, rfa_counts *expected, int32_t *list)
{
    const rfa_problem *p = c->p;
    for (int64_t i = 0; i < p->batch * p->heads_q * p->blocks_q; i++) {
        int64_t q_block = i % p->blocks_q, head = i / p->blocks_q % p->heads_q;
        int64_t batch = i / p->blocks_q / p->heads_q;
        check_sequence s = check_sequence_of(p, batch);
        int64_t unmasked = check_unmasked(p, &s, q_block);
        expected->blocks_total += (uint64_t)unmasked;
        expected->blocks_visited +=
            (uint64_t)listed_blocks(c, batch, head, q_block, unmasked, list);
        expected->blocks_kept += (uint64_t)kept_blocks(p, batch, head, q_block);
    }
}

static void count_bad(const check *c, rfa_counts *expected)
{
    const rfa_problem *p = c->p;
    for (int64_t batch = 0; batch < p->batch; batch++) {
        expected->bad_sequences += check_sequence_of(p, batch).bad;
        for (int64_t head = 0; head < p->heads_q; head++) {
            expected->bad_knobs += oracle_bad_knob(c->given, batch, head);
            for (int64_t group = 0; group < p->groups; group++)
                expected->bad_indices += (uint64_t)oracle_bad_indices(c->given, batch, head, group);
        }
    }
}

static rfa_recall_kind expected_kind(const rfa_problem *p)
{
    if (!p->track_recall)
        return RFA_RECALL_ABSENT;
    return p->rule == RFA_RULE_RECALL && p->mass == RFA_MASS_ESTIMATED ? RFA_RECALL_ESTIMATED
                                                                       : RFA_RECALL_EXACT;
}

static void same_count(check *c, const char *name, uint64_t is, uint64_t expected)
{
    if (is != expected)
        check_fail(c, PLACE_COUNTS, 0, "counts.%s is %llu, expected %llu", name,
                   (unsigned long long)is, (unsigned long long)expected);
}

static void same_mean(check *c, const char *name, double is, double expected, double room)
{
    if (!(fabs(is - expected) <= room))
        check_fail(c, PLACE_COUNTS, 0, "counts.%s is %.9g, expected %.9g within %.3g", name, is,
                   expected, room);
}

/* Means of the recall that the backend wrote for each row. */
static void means_of_rows(const rfa_problem *p, double *mean, double *smallest)
{
    double sum = 0, rows = 0;
    *smallest = INFINITY;
    for (int64_t i = 0; i < p->batch * p->heads_q * p->blocks_q; i++) {
        int64_t q_block = i % p->blocks_q, head = i / p->blocks_q % p->heads_q;
        int64_t batch = i / p->blocks_q / p->heads_q;
        check_sequence s = check_sequence_of(p, batch);
        rfa_cubes cubes = rfa_problem_cubes(p->grids_q, p->grid_count, batch);
        int64_t n = check_rows(p, &s, q_block);
        double part = 0;
        for (int64_t r = 0; r < n; r++) {
            int64_t token = rfa_caller_position(cubes, q_block * p->block_q + r);
            part += view_f32(&p->recall, batch, head, s.first_q + token);
        }
        sum += part;
        rows += (double)n;
        if (n > 0)
            *smallest = fmin(*smallest, part / (double)n);
    }
    *mean = sum / rows;
}

static void check_recall_counts(check *c, const rfa_counts *counts)
{
    const rfa_problem *p = c->p;
    if (!p->track_recall) {
        if (!isnan(counts->recall_mean) || !isnan(counts->recall_block_min))
            check_fail(c, PLACE_COUNTS, 0,
                       "counts.recall_mean and recall_block_min are %g and %g, expected NaN: "
                       "recall was not tracked",
                       (double)counts->recall_mean, (double)counts->recall_block_min);
        return;
    }
    double mean = c->recall_sum / (double)c->rows, smallest = c->recall_min, room;
    room = 1e-4;
    if (p->recall.data) {
        means_of_rows(p, &mean, &smallest);
        room = 1e-5;
    } else if (c->report->blocks_checked < c->report->blocks_all) {
        return; /* a sample tells no mean */
    }
    bool judged = c->recall_known || !c->options->nonfinite_inputs;
    if (judged && c->rows > 0) {
        same_mean(c, "recall_mean", counts->recall_mean, mean, room);
        same_mean(c, "recall_block_min", counts->recall_block_min, smallest, room);
    }
}

static void check_scope(check *c, const rfa_counts *counts)
{
    bool partial = counts->blocks_visited < counts->blocks_total;
    same_count(c, "recall_scope", counts->recall_scope,
               partial ? RFA_RECALL_VISITED_KEYS : RFA_RECALL_ALL_KEYS);
}

rfa_status check_counts(check *c, rfa_error *err)
{
    const rfa_problem *p = c->p;
    rfa_counts counts, expected = {0};
    if (!p->counts.data)
        return RFA_OK;
    memcpy(&counts, (const char *)p->counts.data + p->counts.byte_offset, sizeof(counts));
    int32_t *list = malloc((size_t)p->blocks_k * sizeof(*list));
    if (!list)
        return rfa_fail(err, RFA_OUT_OF_MEMORY, "no memory for a list of %lld key blocks",
                        (long long)p->blocks_k);
    count_blocks(c, &expected, list);
    count_bad(c, &expected);
    free(list);
    same_count(c, "blocks_total", counts.blocks_total, expected.blocks_total);
    same_count(c, "blocks_visited", counts.blocks_visited, expected.blocks_visited);
    same_count(c, "blocks_kept", counts.blocks_kept, expected.blocks_kept);
    same_count(c, "bad_knobs", counts.bad_knobs, expected.bad_knobs);
    same_count(c, "bad_indices", counts.bad_indices, expected.bad_indices);
    same_count(c, "bad_sequences", counts.bad_sequences, expected.bad_sequences);
    same_count(c, "recall_kind", counts.recall_kind, (uint64_t)expected_kind(p));
    check_scope(c, &counts);
    check_recall_counts(c, &counts);
    return RFA_OK;
}
