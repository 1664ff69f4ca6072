/* graph/verify.c -- every invariant of a graph, checked from nothing but the graph.
 *
 * The builder already refuses what is wrong; this file trusts it in nothing, so that a mistake in
 * the builder or in a rewriting rule is found between two stages and named.  Not here: plans.
 *
 * The order of values is the heart: a node's outputs come after its inputs and after the outputs of
 * the node before, so walking values by id is walking the program. */
#include <string.h>

#include "base/error.h"
#include "graph/graph.h"

typedef struct check {
    const st_graph *g;
    st_arena       *arena;
    st_value_id    *current; /* of a root: the newest value in its memory so far */
    setun_error    *err;
} check;

static setun_status bad_value(const check *c, st_value_id v, const char *why)
{
    const char *name = c->g->value[v].name;
    return st_fail(c->err, SETUN_BAD_ARG, "graph: value %u%s%s%s %s", v, name && name[0] ? " (" : "",
                   name ? name : "", name && name[0] ? ")" : "", why);
}

static setun_status bad_node(const check *c, st_node_id n, setun_status s)
{
    const st_node *node = &c->g->node[n];
    if (s == SETUN_OK)
        return s;
    st_node_wrap(c->err, node->op, node->where, node->scope);
    st_wrap(c->err, "graph: node %u", n);
    return s;
}

static setun_status source(const check *c, st_value_id v)
{
    const st_value *x = &c->g->value[v];
    setun_error inner = {0};
    if (!x->name || !x->name[0])
        return bad_value(c, v, "has no name");
    if (st_graph_find(c->g, x->name) != v)
        return bad_value(c, v, "has a name that the index does not lead to");
    if (x->node != ST_NO_ID || x->port != 0 || x->root != v)
        return bad_value(c, v, "is not made by a node, but says so");
    if (st_view_check(&x->view, x->kind == ST_INPUT, &inner) != SETUN_OK)
        return bad_value(c, v, inner.text);
    return SETUN_OK;
}

static setun_status read_value(const check *c, const st_node *n, st_value_id first_out, uint32_t port)
{
    const st_graph *g = c->g;
    st_value_id v = n->in[port];
    if (v >= first_out)
        return st_fail(c->err, SETUN_BAD_ARG, "input %s is value %u, which does not exist yet",
                       n->op->in[port].name, v);
    if (c->current[g->value[v].root] != v)
        return st_fail(c->err, SETUN_BAD_ARG, "input %s is value %u, which was updated in place before",
                       n->op->in[port].name, v);
    return SETUN_OK;
}

/* The memory an output lives in: its own, or that of the input it shares. */
static setun_status write_value(const check *c, const st_node *n, uint32_t port)
{
    const st_graph *g = c->g;
    st_value_id v = n->out[port];
    uint32_t shares = n->op->out[port].shares;
    if (!shares) {
        if (g->value[v].root != v)
            return st_fail(c->err, SETUN_BAD_ARG, "output %s shares memory, but its operator does not say so",
                           n->op->out[port].name);
        c->current[v] = v;
        return SETUN_OK;
    }
    st_value_id root = g->value[n->in[shares - 1]].root;
    if (g->value[v].root != root)
        return st_fail(c->err, SETUN_BAD_ARG, "output %s does not share the memory of input %s",
                       n->op->out[port].name, n->op->in[shares - 1].name);
    if (g->value[root].kind != ST_STATE && g->value[root].kind != ST_TEMP)
        return st_fail(c->err, SETUN_BAD_ARG, "input %s is updated in place, but may not be written",
                       n->op->in[shares - 1].name);
    for (uint32_t i = 0; i < n->op->n_in; i++)
        if (i != shares - 1 && g->value[n->in[i]].root == root)
            return st_fail(c->err, SETUN_BAD_ARG, "input %s is updated in place and also read as %s",
                           n->op->in[shares - 1].name, n->op->in[i].name);
    c->current[root] = v;
    return SETUN_OK;
}

static setun_status node_body(const check *c, st_node_id id, st_value_id first_out)
{
    const st_node *n = &c->g->node[id];
    setun_view in[ST_MAX_PORTS], out[ST_MAX_PORTS];
    setun_args a = {sizeof a, n->op->n_in, n->op->n_out, n->op->n_attr, n->op, in, out, n->attr, NULL};
    for (uint32_t i = 0; i < n->op->n_in; i++) {
        ST_TRY(read_value(c, n, first_out, i));
        in[i] = c->g->value[n->in[i]].view;
        in[i].data = NULL;
    }
    for (uint32_t i = 0; i < n->op->n_attr; i++)
        if (n->op->attr[i].kind == SETUN_ATTR_STRING && !n->attr[i].s)
            return st_fail(c->err, SETUN_BAD_ARG, "attribute %s has no text", n->op->attr[i].name);
    ST_TRY(st_infer(&a, c->err));
    for (uint32_t o = 0; o < n->op->n_out; o++) {
        const st_value *v;
        if (n->out[o] != first_out + o || n->out[o] >= c->g->n_value)
            return st_fail(c->err, SETUN_BAD_ARG, "output %s is not the next value", n->op->out[o].name);
        v = &c->g->value[n->out[o]];
        if (v->kind != ST_TEMP || v->node != id || v->port != o || v->root >= c->g->n_value)
            return st_fail(c->err, SETUN_BAD_ARG, "output %s does not lead back to its node", n->op->out[o].name);
        if (!st_view_same(&v->view, &out[o]))
            return st_fail(c->err, SETUN_BAD_SHAPE, "output %s has not the type that infer gives", n->op->out[o].name);
        ST_TRY(write_value(c, n, o));
    }
    return SETUN_OK;
}

static setun_status walk(const check *c)
{
    const st_graph *g = c->g;
    st_node_id next = 0;
    for (st_value_id v = 0; v < g->n_value; v++) {
        const st_value *x = &g->value[v];
        if (x->kind == ST_INPUT || x->kind == ST_CONST || x->kind == ST_STATE) {
            ST_TRY(source(c, v));
            c->current[v] = v;
            continue;
        }
        if (x->kind != ST_TEMP)
            return bad_value(c, v, "is of no known kind");
        if (x->node != next || x->port != 0 || next >= g->n_node)
            return bad_value(c, v, "comes out of order");
        const st_node *n = &g->node[next];
        if (!n->op || !n->op->infer || n->op->n_in > ST_MAX_PORTS || n->op->n_out > ST_MAX_PORTS || !n->op->n_out ||
            n->op->n_attr > ST_MAX_ATTRS || !n->where || !n->scope)
            return bad_value(c, v, "is made by a broken node");
        ST_TRY(bad_node(c, next, node_body(c, next, v)));
        v += n->op->n_out - 1;
        next++;
    }
    if (next != g->n_node)
        return st_fail(c->err, SETUN_BAD_ARG, "graph: node %u has no outputs among the values", next);
    for (st_value_id v = 0; v < g->n_value; v++)
        if (g->value[v].root == v && g->value[v].latest != c->current[v])
            return bad_value(c, v, "does not know its newest contents");
    return SETUN_OK;
}

static setun_status outputs(const check *c)
{
    const st_graph *g = c->g;
    for (uint32_t i = 0; i < g->n_output; i++) {
        const st_output *o = &g->output[i];
        if (!o->name || !o->name[0])
            return st_fail(c->err, SETUN_BAD_ARG, "graph: output %u has no name", i);
        if (o->value >= g->n_value)
            return st_fail(c->err, SETUN_BAD_ARG, "graph: output %s is value %u, which does not exist", o->name,
                           o->value);
        if (c->current[g->value[o->value].root] != o->value)
            return st_fail(c->err, SETUN_BAD_ARG, "graph: output %s is value %u, which is updated in place later",
                           o->name, o->value);
        for (uint32_t k = 0; k < i; k++)
            if (strcmp(g->output[k].name, o->name) == 0)
                return st_fail(c->err, SETUN_BAD_ARG, "graph: the output name %s is used twice", o->name);
    }
    return SETUN_OK;
}

setun_status st_graph_verify(const st_graph *g, setun_error *err)
{
    check c = {g, NULL, NULL, err};
    setun_status s;
    if (g->n_value > ST_MAX_VALUES || g->n_node > g->n_value || g->n_output > ST_MAX_OUTPUTS)
        return st_fail(err, SETUN_BAD_ARG, "graph: %u values, %u nodes and %u outputs are not possible", g->n_value,
                       g->n_node, g->n_output);
    /* An arena of its own, because many threads may read one finished graph. */
    c.arena = st_arena_new();
    c.current = c.arena ? st_arena_array(c.arena, (int64_t)g->n_value + 1, (int64_t)sizeof *c.current) : NULL;
    s = c.current ? walk(&c) : st_fail(err, SETUN_NO_MEMORY, "out of memory while checking a graph");
    if (s == SETUN_OK)
        s = outputs(&c);
    st_arena_free(c.arena);
    return s;
}
