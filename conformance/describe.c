/* A case in one line. */
#include <stdarg.h>
#include <stdio.h>

#include "conformance/element.h"
#include "conformance/generate.h"

typedef struct line {
    char *text;
    size_t size, used;
} line;

#ifdef __GNUC__
__attribute__((format(printf, 2, 3)))
#endif
static void
add(line *l, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    int n = vsnprintf(l->text + l->used, l->size - l->used, format, list);
    va_end(list);
    l->used += n < 0 ? 0 : (size_t)n;
    if (l->used >= l->size)
        l->used = l->size - 1;
}

static void add_shape(line *l, const conformance_case *c)
{
    add(l, "%s", element_name(c->dtype));
    if (c->out_dtype != c->dtype)
        add(l, ">%s", element_name(c->out_dtype));
    add(l, " %s%lld heads %lld/%lld",
        c->packed ? "pack "
        : c->axes ? "bhsd "
                  : "bshd ",
        (long long)c->batch, (long long)c->heads, (long long)c->heads_kv);
    add(l, " len %lldx%lld dim %d", (long long)c->len_q, (long long)c->len_k, (int)c->dim);
    if (c->dim_v != c->dim)
        add(l, "/%d", (int)c->dim_v);
    if (c->mask == RFA_MASK_CAUSAL)
        add(l, " causal");
    if (c->scale != 0)
        add(l, " scale %g", (double)c->scale);
}

static void add_rule(line *l, const conformance_case *c)
{
    static const char *const rules[] = {"dense", "blasst", "energy", "recall"};
    add(l, ", %s", rules[c->rule]);
    if (c->rule != RFA_RULE_DENSE)
        add(l, "%s %g", c->knob_form == RFA_KNOB_SCALED ? " scaled" : "", (double)c->knob);
    if (c->knob_tensor)
        add(l, c->knob_bad ? " (per head, some bad)" : " (per head)");
    if (c->mass == RFA_MASS_ESTIMATED)
        add(l, " estimated");
}

static void add_order(line *l, const conformance_case *c)
{
    static const char *const orders[] = {"diagonal", "raster", "predicted", "list"};
    add(l, ", %s", orders[c->order]);
    if (c->order == RFA_ORDER_LIST)
        add(l, " of %lld%s%s%s", (long long)c->list_capacity, c->list_whole ? " whole" : "",
            c->list_masses ? " masses" : "", c->list_bad ? " some bad" : "");
    add(l, ", blocks %dx%d visit %d", (int)case_block_q(c), (int)case_block_k(c),
        (int)case_visit_q(c));
}

void conformance_describe(const conformance_case *c, char *text, size_t size)
{
    static const char *const contents[] = {"normal", "huge",     "tiny",      "dominant",
                                           "equal",  "zero",     "clusters",  "sinks",
                                           "spikes", "constant", "nonfinite", "cliff"};
    line l = {text, size, 0};
    text[0] = '\0';
    add_shape(&l, c);
    add_rule(&l, c);
    add_order(&l, c);
    if (c->grid_count > 0)
        add(&l, ", grid");
    if (c->keep_key_count > 0)
        add(&l, ", keep");
    if (c->dense_query_count > 0)
        add(&l, ", dense rows");
    add(&l, ", %s", contents[c->data]);
}
