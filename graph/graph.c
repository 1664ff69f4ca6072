/* graph/graph.c -- building a graph: values, nodes, outputs, and the index of names.
 *
 * Not here: the text form (print.c, parse.c), whole-graph checks (verify.c), rewriting (rules.c).
 *
 * Everything lies in flat arrays of the arena that double when full; the outgrown halves stay in the
 * arena, at most as much again.  A failed call leaves the graph as it was. */
#include "graph/graph.h"

#include <string.h>

#include "base/error.h"
#include "base/hash.h"

static setun_status no_memory(setun_error *err)
{
    return st_fail(err, SETUN_NO_MEMORY, "out of memory while building the graph");
}

/* Room for n more elements, or 0; the old array stays valid for readers of old pointers. */
static int reserve(st_arena *arena, void **array, uint32_t *cap, uint32_t used, uint32_t n, int64_t size)
{
    uint32_t want = *cap ? *cap : 16;
    void *p;
    if (used + n <= *cap)
        return 1;
    while (want < used + n)
        want *= 2;
    p = st_arena_array(arena, want, size);
    if (!p)
        return 0;
    if (used)
        memcpy(p, *array, (size_t)used * (size_t)size);
    *array = p;
    *cap = want;
    return 1;
}

setun_status st_graph_new(st_graph **g, st_arena *arena, setun_error *err)
{
    *g = st_arena_alloc(arena, sizeof **g);
    if (!*g)
        return no_memory(err);
    (*g)->arena = arena;
    return SETUN_OK;
}

/* ---------------------------------------------------------------- names */

/* The slot of name, or the empty one where it would go.  The index is at most half full, so there
 * is always an empty slot to stop at. */
static uint32_t find_slot(const st_graph *g, const char *name)
{
    uint32_t mask = g->n_slot - 1, i = (uint32_t)st_hash(ST_HASH_INIT, name, strlen(name)) & mask;
    while (g->slot[i] && strcmp(g->value[g->slot[i] - 1].name, name) != 0)
        i = (i + 1) & mask;
    return i;
}

static int grow_names(st_graph *g)
{
    uint32_t n = g->n_slot ? 2 * g->n_slot : 64;
    uint32_t *slot;
    if (2 * (g->n_named + 1) <= g->n_slot)
        return 1;
    slot = st_arena_array(g->arena, n, (int64_t)sizeof *slot);
    if (!slot)
        return 0;
    g->slot = slot;
    g->n_slot = n;
    for (uint32_t v = 0; v < g->n_value; v++)
        if (g->value[v].name[0])
            slot[find_slot(g, g->value[v].name)] = v + 1;
    return 1;
}

st_value_id st_graph_find(const st_graph *g, const char *name)
{
    uint32_t found = g->n_slot && name[0] ? g->slot[find_slot(g, name)] : 0;
    return found ? found - 1 : ST_NO_ID;
}

/* ---------------------------------------------------------------- values and outputs */

static setun_status check_name(const char *name, const char *what, setun_error *err)
{
    size_t n;
    if (!name || !name[0])
        return st_fail(err, SETUN_BAD_ARG, "%s needs a name", what);
    n = strlen(name);
    if (n > ST_MAX_NAME)
        return st_fail(err, SETUN_BAD_ARG, "the name of %s has %zu bytes, at most %d are allowed", what, n,
                       ST_MAX_NAME);
    if (st_utf8_valid(name, n) != n)
        return st_fail(err, SETUN_BAD_ARG, "the name of %s is not valid UTF-8", what);
    return SETUN_OK;
}

static const char *kind_name(st_value_kind kind)
{
    return kind == ST_INPUT ? "an input" : kind == ST_CONST ? "a constant" : kind == ST_STATE ? "a state" : "?";
}

setun_status st_graph_add_value(st_graph *g, const char *name, st_value_kind kind, const setun_view *view,
                                st_value_id *id, setun_error *err)
{
    st_value *v;
    char *copy;
    setun_status s;
    if (kind != ST_INPUT && kind != ST_CONST && kind != ST_STATE)
        return st_fail(err, SETUN_BAD_ARG, "only inputs, constants and states are added as values");
    ST_TRY(check_name(name, kind_name(kind), err));
    /* The number of rows of a run is known per call; weights and caches outlive calls. */
    s = st_view_check(view, kind == ST_INPUT, err);
    if (s != SETUN_OK) {
        st_wrap(err, "%s \"%s\"", kind_name(kind), name);
        return s;
    }
    if (st_graph_find(g, name) != ST_NO_ID)
        return st_fail(err, SETUN_BAD_ARG, "the name \"%s\" is used twice", name);
    if (g->n_value >= ST_MAX_VALUES)
        return st_fail(err, SETUN_FULL, "a graph has at most %u values", ST_MAX_VALUES);
    copy = st_arena_strdup(g->arena, name);
    if (!copy || !grow_names(g) ||
        !reserve(g->arena, (void **)&g->value, &g->cap_value, g->n_value, 1, (int64_t)sizeof *v))
        return no_memory(err);
    g->slot[find_slot(g, name)] = g->n_value + 1;
    g->n_named++;
    *id = g->n_value++;
    v = &g->value[*id];
    v->name = copy;
    v->kind = kind;
    v->view = *view;
    v->node = ST_NO_ID;
    v->port = 0;
    v->root = v->latest = *id;
    return SETUN_OK;
}

/* A value that an in-place operator has overwritten can no longer be read. */
static setun_status check_fresh(const st_graph *g, st_value_id v, const char *user, setun_error *err)
{
    st_value_id latest = g->value[g->value[v].root].latest;
    const st_node *by;
    if (latest == v)
        return SETUN_OK;
    by = &g->node[g->value[latest].node];
    return st_fail(err, SETUN_BAD_ARG, "%s reads %s after %s%s%s has updated it in place; use the result of that",
                   user, g->value[v].name[0] ? g->value[v].name : "a value", by->op->name,
                   by->where[0] ? " at " : "", by->where);
}

setun_status st_graph_add_output(st_graph *g, const char *name, st_value_id v, setun_error *err)
{
    char *copy;
    ST_TRY(check_name(name, "an output", err));
    if (v >= g->n_value)
        return st_fail(err, SETUN_BAD_ARG, "output \"%s\": there is no value %u", name, v);
    ST_TRY(check_fresh(g, v, "an output", err));
    for (uint32_t i = 0; i < g->n_output; i++)
        if (strcmp(g->output[i].name, name) == 0)
            return st_fail(err, SETUN_BAD_ARG, "the output name \"%s\" is used twice", name);
    if (g->n_output >= ST_MAX_OUTPUTS)
        return st_fail(err, SETUN_FULL, "a graph has at most %u outputs", ST_MAX_OUTPUTS);
    copy = st_arena_strdup(g->arena, name);
    if (!copy || !reserve(g->arena, (void **)&g->output, &g->cap_output, g->n_output, 1,
                          (int64_t)sizeof *g->output))
        return no_memory(err);
    g->output[g->n_output].name = copy;
    g->output[g->n_output++].value = v;
    return SETUN_OK;
}

/* ---------------------------------------------------------------- nodes */

static setun_status check_schema(const setun_op *op, setun_error *err)
{
    if (!op || !op->name || !op->infer)
        return st_fail(err, SETUN_BAD_ARG, "a node needs an operator");
    if (op->n_in > ST_MAX_PORTS || op->n_out > ST_MAX_PORTS || op->n_out == 0 || op->n_attr > ST_MAX_ATTRS)
        return st_fail(err, SETUN_BAD_ARG, "%s has %u inputs, %u outputs and %u attributes, which is not possible",
                       op->name, op->n_in, op->n_out, op->n_attr);
    return SETUN_OK;
}

static setun_status take_attrs(const setun_op *op, const setun_value *given, setun_value *attr, setun_error *err)
{
    for (uint32_t i = 0; i < op->n_attr; i++) {
        const setun_attr *a = &op->attr[i];
        if (!given && a->required)
            return st_fail(err, SETUN_BAD_ARG, "attribute %s is required and was not given", a->name);
        attr[i] = given ? given[i] : a->fallback;
        if (a->kind != SETUN_ATTR_STRING)
            continue;
        if (!attr[i].s)
            return st_fail(err, SETUN_BAD_ARG, "attribute %s has no text", a->name);
        ST_TRY(attr[i].s[0] ? check_name(attr[i].s, "an attribute's text", err) : SETUN_OK);
    }
    return SETUN_OK;
}

/* What an output with port.shares needs: memory that may be written, and nobody else reading it in
 * the same node. */
static setun_status check_in_place(const st_graph *g, const setun_op *op, const st_value_id *in, setun_error *err)
{
    for (uint32_t o = 0; o < op->n_out; o++) {
        uint32_t port = op->out[o].shares;
        const st_value *root;
        if (!port)
            continue;
        root = &g->value[g->value[in[port - 1]].root];
        if (root->kind != ST_STATE && root->kind != ST_TEMP)
            return st_fail(err, SETUN_BAD_ARG, "input %s is updated in place, so it cannot be %s (\"%s\")",
                           op->in[port - 1].name, kind_name(root->kind), root->name);
        for (uint32_t i = 0; i < op->n_in; i++)
            if (i != port - 1 && g->value[in[i]].root == g->value[in[port - 1]].root)
                return st_fail(err, SETUN_BAD_ARG, "input %s is updated in place, but %s reads the same memory",
                               op->in[port - 1].name, op->in[i].name);
    }
    return SETUN_OK;
}

/* Copies of everything the node owns, before anything in the graph changes. */
static int make_node(st_graph *g, st_node *node, const setun_op *op, const st_value_id *in,
                     const setun_value *attr, const char *where, const char *scope)
{
    node->op = op;
    node->in = st_arena_array(g->arena, (int64_t)op->n_in + op->n_out, (int64_t)sizeof *in);
    node->attr = st_arena_array(g->arena, op->n_attr ? op->n_attr : 1, (int64_t)sizeof *attr);
    node->where = where[0] ? st_arena_strdup(g->arena, where) : "";
    /* Neighbours come from the same scope, so one copy serves a block. */
    if (g->n_node && strcmp(g->node[g->n_node - 1].scope, scope) == 0)
        node->scope = g->node[g->n_node - 1].scope;
    else
        node->scope = st_arena_strdup(g->arena, scope);
    if (!node->in || !node->attr || !node->where || !node->scope)
        return 0;
    node->out = node->in + op->n_in;
    if (op->n_in)
        memcpy(node->in, in, op->n_in * sizeof *in);
    for (uint32_t i = 0; i < op->n_attr; i++) {
        node->attr[i] = attr[i];
        if (op->attr[i].kind == SETUN_ATTR_STRING)
            node->attr[i].s = st_arena_strdup(g->arena, attr[i].s);
        if (op->attr[i].kind == SETUN_ATTR_STRING && !node->attr[i].s)
            return 0;
    }
    return 1;
}

static setun_status add_node(st_graph *g, const setun_op *op, const st_value_id *in, const setun_value *given,
                             const char *where, const char *scope, st_value_id *out, setun_error *err)
{
    setun_view vin[ST_MAX_PORTS], vout[ST_MAX_PORTS];
    setun_value attr[ST_MAX_ATTRS];
    setun_args a = {sizeof a, op->n_in, op->n_out, op->n_attr, op, vin, vout, attr, NULL};
    st_node node;
    ST_TRY(take_attrs(op, given, attr, err));
    for (uint32_t i = 0; i < op->n_in; i++) {
        if (in[i] >= g->n_value)
            return st_fail(err, SETUN_BAD_ARG, "input %s: there is no value %u", op->in[i].name, in[i]);
        ST_TRY(check_fresh(g, in[i], op->in[i].name, err));
        vin[i] = g->value[in[i]].view;
        vin[i].data = NULL;
    }
    ST_TRY(st_infer(&a, err));
    ST_TRY(check_in_place(g, op, in, err));
    if (g->n_value + op->n_out > ST_MAX_VALUES)
        return st_fail(err, SETUN_FULL, "a graph has at most %u values", ST_MAX_VALUES);
    if (!make_node(g, &node, op, in, attr, where, scope) ||
        !reserve(g->arena, (void **)&g->value, &g->cap_value, g->n_value, op->n_out, (int64_t)sizeof *g->value) ||
        !reserve(g->arena, (void **)&g->node, &g->cap_node, g->n_node, 1, (int64_t)sizeof *g->node))
        return no_memory(err);
    for (uint32_t o = 0; o < op->n_out; o++) {
        st_value_id id = g->n_value++;
        st_value *v = &g->value[id];
        out[o] = node.out[o] = id;
        v->name = "";
        v->kind = ST_TEMP;
        v->view = vout[o];
        v->view.data = NULL;
        v->node = g->n_node;
        v->port = o;
        v->root = op->out[o].shares ? g->value[in[op->out[o].shares - 1]].root : id;
        v->latest = id;
        g->value[v->root].latest = id;
    }
    g->node[g->n_node++] = node;
    return SETUN_OK;
}

setun_status st_graph_add_node(st_graph *g, const setun_op *op, const st_value_id *in, const setun_value *attr,
                               const char *where, const char *scope, st_value_id *out, setun_error *err)
{
    setun_status s;
    ST_TRY(check_schema(op, err));
    where = where ? where : "";
    scope = scope ? scope : "";
    if (where[0])
        ST_TRY(check_name(where, "a place", err));
    if (scope[0])
        ST_TRY(check_name(scope, "a scope", err));
    s = add_node(g, op, in, attr, where, scope, out, err);
    if (s != SETUN_OK)
        st_node_wrap(err, op, where, scope);
    return s;
}

/* ---------------------------------------------------------------- binding */

setun_status st_graph_bind(const st_graph *g, const int64_t size[SETUN_N_SYMBOLS], st_arena *arena,
                           st_graph **out, setun_error *err)
{
    st_value_id made[ST_MAX_PORTS];
    ST_TRY(st_graph_new(out, arena, err));
    /* Values are walked in the order of their ids, so the copy gives out the same ids. */
    for (st_value_id i = 0; i < g->n_value; i++) {
        const st_value *v = &g->value[i];
        const st_node *n;
        if (v->kind != ST_TEMP) {
            setun_view view = v->view;
            st_view_bind(&view, size);
            ST_TRY(st_graph_add_value(*out, v->name, v->kind, &view, made, err));
            continue;
        }
        n = &g->node[v->node];
        if (v->port == 0)
            ST_TRY(st_graph_add_node(*out, n->op, n->in, n->attr, n->where, n->scope, made, err));
    }
    for (uint32_t i = 0; i < g->n_output; i++)
        ST_TRY(st_graph_add_output(*out, g->output[i].name, g->output[i].value, err));
    return SETUN_OK;
}
