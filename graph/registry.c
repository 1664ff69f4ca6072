/* graph/registry.c -- operator name -> descriptor, whoever wrote it.
 *
 * The door is the same for ops/, plugins and scripts, so nothing is believed: a descriptor is read
 * only as far as its size says, and one that cannot be right is refused with the reason.  What an
 * operator computes is not judged here but by `setun check`, which needs its cases; so they are
 * required and must at least parse. */
#include "graph/registry.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/table.h"
#include "graph/graph.h"

/* The descriptor as first promised ends with tolerance; a longer one is from the future and fine. */
#define FIRST_SIZE (offsetof(setun_op, tolerance) + sizeof(double))
#define LARGEST_SIZE 65536u /* beyond this the size field is garbage */
#define LONGEST_NAME 63
#define MOST_CASES 4096

typedef struct entry {
    const setun_op *op;
    const char     *origin;
} entry;

struct st_registry {
    st_arena *arena;
    st_table *table; /* name -> index; keys are the descriptors' own names */
    entry    *entry;
    int64_t   n, cap;
};

setun_status st_registry_new(st_registry **r, setun_error *err)
{
    st_registry *made = calloc(1, sizeof *made);
    if (made) {
        made->arena = st_arena_new();
        made->table = st_table_new(64);
    }
    if (!made || !made->arena || !made->table) {
        st_registry_free(made);
        return st_fail(err, SETUN_NO_MEMORY, "out of memory for the operator registry");
    }
    *r = made;
    return SETUN_OK;
}

void st_registry_free(st_registry *r)
{
    if (!r)
        return;
    st_table_free(r->table);
    st_arena_free(r->arena);
    free(r);
}

/* ---------------------------------------------------------------- checks */

/* Lower case, digits, '_' and '.', starting with a letter: safe in text forms, file names, symbols. */
static int good_name(const char *s)
{
    size_t n;
    if (!s || !(*s >= 'a' && *s <= 'z'))
        return 0;
    n = strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789_.");
    return s[n] == 0 && n <= LONGEST_NAME;
}

/* Attribute and port names may have capitals as well; "in" would read as a word of the text form. */
static int good_part(const char *s)
{
    size_t n;
    if (!s || !((*s >= 'a' && *s <= 'z') || (*s >= 'A' && *s <= 'Z') || *s == '_'))
        return 0;
    n = strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_");
    return s[n] == 0 && n <= LONGEST_NAME;
}

static setun_status bad(setun_error *err, const char *why, const char *name)
{
    return st_fail(err, SETUN_BAD_ARG, "%s%s%s", why, name ? " " : "", name ? name : "");
}

static setun_status check_ports(const setun_port *port, uint32_t n, uint32_t n_in, int is_out, setun_error *err)
{
    for (uint32_t i = 0; i < n; i++) {
        if (!good_part(port[i].name))
            return st_fail(err, SETUN_BAD_ARG, "%s %u has no usable name", is_out ? "output" : "input", i);
        if (port[i].reserved || (port[i].shares && (!is_out || port[i].shares > n_in)))
            return bad(err, "shares or reserved is out of range for", port[i].name);
        for (uint32_t k = 0; k < i; k++) {
            if (strcmp(port[k].name, port[i].name) == 0)
                return bad(err, "two ports are called", port[i].name);
            if (port[i].shares && port[k].shares == port[i].shares)
                return bad(err, "two outputs share one input, the second is", port[i].name);
        }
    }
    return SETUN_OK;
}

static setun_status check_attrs(const setun_op *op, setun_error *err)
{
    for (uint32_t i = 0; i < op->n_attr; i++) {
        const setun_attr *a = &op->attr[i];
        if (!good_part(a->name))
            return st_fail(err, SETUN_BAD_ARG, "attribute %u has no usable name", i);
        if (a->kind < SETUN_ATTR_INT || a->kind > SETUN_ATTR_STRING || a->required > 1)
            return bad(err, "kind or required is out of range for attribute", a->name);
        if (a->kind == SETUN_ATTR_STRING && !a->required && !a->fallback.s)
            return bad(err, "there is no default text for attribute", a->name);
        for (uint32_t k = 0; k < i; k++)
            if (strcmp(op->attr[k].name, a->name) == 0)
                return bad(err, "two attributes are called", a->name);
    }
    return SETUN_OK;
}

/* Knobs are newer than the first descriptors: without the field there are none. */
static setun_status check_knobs(const setun_op *op, setun_error *err)
{
    if (!SETUN_HAS(setun_op, op, knob))
        return SETUN_OK;
    if (op->n_knob > SETUN_MAX_KNOBS || op->reserved2)
        return st_fail(err, SETUN_BAD_ARG, "it has %u knobs (at most %u are possible), or a reserved field is not zero",
                       op->n_knob, SETUN_MAX_KNOBS);
    for (uint32_t i = 0; i < op->n_knob; i++) {
        if (!good_part(op->knob[i].name))
            return st_fail(err, SETUN_BAD_ARG, "knob %u has no usable name", i);
        if (!op->knob[i].value || op->knob[i].n_value < 1 || op->knob[i].n_value > 16 || op->knob[i].reserved)
            return bad(err, "1 to 16 values are possible, or reserved is not zero, for knob", op->knob[i].name);
        for (uint32_t k = 0; k < i; k++)
            if (strcmp(op->knob[k].name, op->knob[i].name) == 0)
                return bad(err, "two knobs are called", op->knob[i].name);
    }
    return SETUN_OK;
}

static setun_status check_cases(const setun_op *op, setun_error *err)
{
    st_arena *tmp = st_arena_new();
    setun_status s = tmp ? SETUN_OK : st_fail(err, SETUN_NO_MEMORY, "out of memory");
    st_mark mark = {0};
    if (s == SETUN_OK && !op->cases[0])
        s = bad(err, "there is no case to check it on", NULL);
    if (tmp)
        mark = st_arena_mark(tmp);
    for (int i = 0; s == SETUN_OK && op->cases[i]; i++) {
        setun_args shape;
        int64_t size[SETUN_N_SYMBOLS];
        if (i == MOST_CASES)
            s = bad(err, "the list of cases has no end", NULL);
        else
            s = st_case_parse(op, op->cases[i], tmp, &shape, size, err);
        st_arena_rewind(tmp, mark);
    }
    st_arena_free(tmp);
    return s;
}

static setun_status check(const setun_op *op, setun_error *err)
{
    if (!op->doc || !op->doc[0])
        return bad(err, "there is no documentation", NULL);
    if (op->n_in > ST_MAX_PORTS || op->n_out > ST_MAX_PORTS || op->n_attr > ST_MAX_ATTRS || op->n_out == 0)
        return st_fail(err, SETUN_BAD_ARG, "%u inputs, %u outputs and %u attributes are not possible (at most %u, "
                       "1 to %u, %u)", op->n_in, op->n_out, op->n_attr, ST_MAX_PORTS, ST_MAX_PORTS, ST_MAX_ATTRS);
    if ((op->n_in && !op->in) || !op->out || (op->n_attr && !op->attr))
        return bad(err, "a table of ports or attributes is missing", NULL);
    if (op->reserved)
        return bad(err, "a reserved field is not zero", NULL);
    if (!op->infer || !op->eval || !op->cases)
        return bad(err, "this is required and missing:", !op->infer ? "infer" : !op->eval ? "eval" : "cases");
    if (!(op->tolerance >= 0) || op->tolerance > 1)
        return bad(err, "the tolerance is not between 0 and 1", NULL);
    ST_TRY(check_ports(op->in, op->n_in, op->n_in, 0, err));
    ST_TRY(check_ports(op->out, op->n_out, op->n_in, 1, err));
    ST_TRY(check_attrs(op, err));
    ST_TRY(check_knobs(op, err));
    return check_cases(op, err);
}

/* ---------------------------------------------------------------- the table */

static setun_status no_memory(setun_error *err)
{
    return st_fail(err, SETUN_NO_MEMORY, "out of memory for the operator registry");
}

setun_status st_registry_add(st_registry *r, const setun_op *op, const char *origin, setun_error *err)
{
    setun_status s;
    int64_t old;
    char *copy;
    if (!op)
        return st_fail(err, SETUN_BAD_ARG, "%s: an operator is missing", origin);
    if (op->size < FIRST_SIZE || op->size > LARGEST_SIZE)
        return st_fail(err, SETUN_BAD_ARG, "%s: an operator's descriptor says it has %u bytes, wants %zu or more",
                       origin, op->size, FIRST_SIZE);
    if (!good_name(op->name))
        return st_fail(err, SETUN_BAD_ARG, "%s: an operator has no usable name (a-z, 0-9, '_' and '.', at most %d)",
                       origin, LONGEST_NAME);
    if (st_table_get(r->table, op->name, strlen(op->name), &old))
        return st_fail(err, SETUN_BAD_ARG, "%s: there is an operator %s already, from %s", origin, op->name,
                       r->entry[old].origin);
    s = check(op, err);
    if (s != SETUN_OK) {
        st_wrap(err, "%s: operator %s", origin, op->name);
        return s;
    }
    if (r->n == r->cap) {
        int64_t cap = r->cap ? 2 * r->cap : 32;
        entry *more = st_arena_array(r->arena, cap, (int64_t)sizeof *more);
        if (!more)
            return no_memory(err);
        if (r->n)
            memcpy(more, r->entry, (size_t)r->n * sizeof *more);
        r->entry = more;
        r->cap = cap;
    }
    copy = st_arena_strdup(r->arena, origin);
    if (!copy || st_table_put(r->table, op->name, strlen(op->name), r->n))
        return no_memory(err);
    r->entry[r->n].op = op;
    r->entry[r->n++].origin = copy;
    return SETUN_OK;
}

const setun_op *st_registry_find(const st_registry *r, const char *name)
{
    int64_t i;
    return st_table_get(r->table, name, strlen(name), &i) ? r->entry[i].op : NULL;
}

int64_t st_registry_count(const st_registry *r)
{
    return r->n;
}

const setun_op *st_registry_at(const st_registry *r, int64_t i)
{
    return i >= 0 && i < r->n ? r->entry[i].op : NULL;
}

const char *st_registry_origin(const st_registry *r, int64_t i)
{
    return i >= 0 && i < r->n ? r->entry[i].origin : NULL;
}
