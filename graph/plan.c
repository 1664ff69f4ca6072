/* graph/plan.c -- the order of nodes, where every temporary lives, and who runs what.
 *
 * Input: a verified graph.  Output: steps, and one offset per temporary in one buffer.  Not here:
 * kernels (runtime/load.c) and running anything (backends/).
 *
 *     step      0    1    2    3    4
 *     %5        [=========]                  a value lives from the step that makes it to the last
 *     %6             [=========]             one that uses it, both included: a kernel may not
 *     %7                  [=========]        write over what it still reads.  %5 and %7 overlap in
 *                                            step 2; a value made in step 3 may take %5's place.
 *
 * Values that share memory (an update in place) are one life, that of their root.  The order is
 * that of the graph: it was written by someone who knew the model, and it is what messages name. */
#include "graph/plan.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"

#define ALIGN 64 /* a cache line, and the alignment that kernels are promised */

static setun_status no_memory(setun_error *err)
{
    return st_fail(err, SETUN_NO_MEMORY, "out of memory while planning");
}

static const char *dim_name(int64_t symbol)
{
    return symbol == SETUN_DIM_TOKENS ? "n" : "m";
}

/* Bytes of a value at the upper bound, rounded up so that neighbours stay aligned. */
static setun_status bound_bytes(const st_graph *g, st_value_id v, const int64_t bound[SETUN_N_SYMBOLS],
                                int64_t *bytes, setun_error *err)
{
    setun_view view = g->value[v].view;
    setun_status s;
    st_view_bind(&view, bound);
    if (view.rank && view.dim[0] < 0)
        return st_fail(err, SETUN_BAD_ARG, "plan: value %u depends on %s, which has no upper bound", v,
                       dim_name(view.dim[0]));
    s = st_view_check(&view, 0, err);
    if (s != SETUN_OK) {
        st_wrap(err, "plan: value %u", v);
        return s;
    }
    *bytes = (setun_view_bytes(&view) + ALIGN - 1) / ALIGN * ALIGN;
    return SETUN_OK;
}

/* ---------------------------------------------------------------- lives */

static int is_placed(const st_graph *g, st_value_id v)
{
    return g->value[v].kind == ST_TEMP && g->value[v].root == v;
}

/* Fills first and last of every temporary root.  Nodes are walked in order, so the last writer of
 * `last` is the latest user. */
static void find_lives(const st_graph *g, st_place *place)
{
    for (st_node_id n = 0; n < g->n_node; n++) {
        const st_node *node = &g->node[n];
        for (uint32_t i = 0; i < node->op->n_in; i++)
            place[g->value[node->in[i]].root].last = n;
        for (uint32_t o = 0; o < node->op->n_out; o++) {
            st_value_id root = g->value[node->out[o]].root;
            if (root == node->out[o])
                place[root].first = n;
            place[root].last = n;
        }
    }
    for (uint32_t i = 0; i < g->n_output; i++)
        place[g->value[g->output[i].value].root].last = g->n_node - 1;
}

/* ---------------------------------------------------------------- places */

typedef struct item {
    int64_t     bytes, offset;
    st_value_id v;
    uint32_t    first, last;
} item;

/* Largest first; among equals the order of the graph, so that the result is one. */
static int by_size(const void *a, const void *b)
{
    const item *x = a, *y = b;
    if (x->bytes != y->bytes)
        return x->bytes > y->bytes ? -1 : 1;
    return x->v < y->v ? -1 : x->v > y->v;
}

/* The lowest gap that fits between items that live at the same time.  done is sorted by offset; the
 * new one is inserted there. */
static int64_t place_one(item *done, uint32_t n, item *it)
{
    uint32_t at = n;
    it->offset = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (done[i].last < it->first || done[i].first > it->last)
            continue;
        if (done[i].offset - it->offset >= it->bytes)
            break;
        if (done[i].offset + done[i].bytes > it->offset)
            it->offset = done[i].offset + done[i].bytes;
    }
    while (at > 0 && done[at - 1].offset > it->offset) {
        done[at] = done[at - 1];
        at--;
    }
    done[at] = *it;
    return it->offset + it->bytes;
}

static setun_status place_all(st_plan *p, st_arena *tmp, setun_error *err)
{
    const st_graph *g = p->graph;
    item *todo = st_arena_array(tmp, (int64_t)g->n_value + 1, (int64_t)sizeof *todo);
    item *done = st_arena_array(tmp, (int64_t)g->n_value + 1, (int64_t)sizeof *done);
    uint32_t n = 0;
    if (!todo || !done)
        return no_memory(err);
    for (st_value_id v = 0; v < g->n_value; v++) {
        st_place *at = &p->place[v];
        if (!is_placed(g, v))
            continue;
        ST_TRY(bound_bytes(g, v, p->bound, &at->bytes, err));
        if (st_add_i64(p->sum_bytes, at->bytes, &p->sum_bytes) || p->sum_bytes > INT64_MAX / 2)
            return st_fail(err, SETUN_FULL, "plan: the temporaries are too large for this machine");
        if (at->bytes == 0)
            continue;
        todo[n].v = v;
        todo[n].bytes = at->bytes;
        todo[n].first = at->first;
        todo[n++].last = at->last;
    }
    if (n)
        qsort(todo, n, sizeof *todo, by_size);
    for (uint32_t i = 0; i < n; i++) {
        int64_t end = place_one(done, i, &todo[i]);
        p->place[todo[i].v].offset = todo[i].offset;
        p->bytes = end > p->bytes ? end : p->bytes;
    }
    /* Whoever holds an alias finds the place of its root in it; memory that is not the plan's is
     * marked by no bytes. */
    for (st_value_id v = 0; v < g->n_value; v++) {
        st_value_id root = g->value[v].root;
        if (root != v)
            p->place[v] = p->place[root];
    }
    return SETUN_OK;
}

/* ---------------------------------------------------------------- backends */

static setun_status name_node(const st_graph *g, st_node_id n, setun_status s, setun_error *err)
{
    const st_node *node = &g->node[n];
    st_node_wrap(err, node->op, node->where, node->scope);
    return s;
}

static setun_status choose(const st_graph *g, st_node_id n, uint32_t n_backend, st_plan_cost *cost, void *user,
                           uint32_t *best, setun_error *err)
{
    double least = 0, c;
    int found = 0;
    *best = 0;
    for (uint32_t b = 0; cost && b < n_backend; b++) {
        setun_status s;
        c = -1;
        s = cost(user, b, g, n, &c);
        if (s == SETUN_DECLINED)
            continue;
        if (s != SETUN_OK)
            return name_node(g, n, st_fail(err, s, "backend %u failed to say what it costs", b), err);
        if (!(c >= 0))
            return name_node(g, n, st_fail(err, SETUN_BAD_ARG, "backend %u gave a cost that is not a time", b), err);
        /* Strictly less: among equals the first in the caller's list. */
        if (!found || c < least) {
            least = c;
            *best = b;
            found = 1;
        }
    }
    if (cost && !found)
        return name_node(g, n, st_fail(err, SETUN_UNKNOWN, "no backend runs it (%u asked)", n_backend), err);
    return SETUN_OK;
}

/* ---------------------------------------------------------------- building */

setun_status st_plan_build(const st_graph *g, const int64_t bound[SETUN_N_SYMBOLS], uint32_t n_backend,
                           st_plan_cost *cost, void *user, st_arena *arena, st_plan **out, setun_error *err)
{
    st_plan *p = st_arena_alloc(arena, sizeof *p);
    st_arena *tmp;
    setun_status s;
    if (!p)
        return no_memory(err);
    p->graph = g;
    p->n_step = g->n_node;
    p->step = st_arena_array(arena, (int64_t)g->n_node + 1, (int64_t)sizeof *p->step);
    p->place = st_arena_array(arena, (int64_t)g->n_value + 1, (int64_t)sizeof *p->place);
    if (!p->step || !p->place)
        return no_memory(err);
    for (uint32_t i = 0; i < SETUN_N_SYMBOLS; i++)
        p->bound[i] = bound[i];
    for (st_node_id n = 0; n < g->n_node; n++) {
        p->step[n].node = n;
        ST_TRY(choose(g, n, n_backend, cost, user, &p->step[n].backend, err));
    }
    if (g->n_node)
        find_lives(g, p->place);
    tmp = st_arena_new();
    if (!tmp)
        return no_memory(err);
    s = place_all(p, tmp, err);
    st_arena_free(tmp);
    if (s == SETUN_OK)
        *out = p;
    return s;
}

/* ---------------------------------------------------------------- verifying */

/* One use of one value, against the life and place the plan gives it. */
static setun_status check_use(const st_plan *p, st_value_id v, uint32_t step, const char *verb, setun_error *err)
{
    const st_graph *g = p->graph;
    const st_place *at = &p->place[v], *root = &p->place[g->value[v].root];
    if (g->value[g->value[v].root].kind != ST_TEMP)
        return SETUN_OK;
    if (at->offset != root->offset || at->bytes != root->bytes)
        return st_fail(err, SETUN_BAD_ARG, "plan: value %u is not where value %u is, whose memory it shares", v,
                       g->value[v].root);
    if (step < root->first || step > root->last)
        return st_fail(err, SETUN_BAD_ARG, "plan: value %u is %s in step %u, but lives from %u to %u", v, verb, step,
                       root->first, root->last);
    return SETUN_OK;
}

static setun_status check_steps(const st_plan *p, setun_error *err)
{
    const st_graph *g = p->graph;
    if (p->n_step != g->n_node)
        return st_fail(err, SETUN_BAD_ARG, "plan: %u steps for %u nodes", p->n_step, g->n_node);
    for (uint32_t s = 0; s < p->n_step; s++) {
        const st_node *node = &g->node[s];
        if (p->step[s].node != s)
            return st_fail(err, SETUN_BAD_ARG, "plan: step %u runs node %u out of order", s, p->step[s].node);
        for (uint32_t i = 0; i < node->op->n_in; i++)
            ST_TRY(check_use(p, node->in[i], s, "read", err));
        for (uint32_t o = 0; o < node->op->n_out; o++)
            ST_TRY(check_use(p, node->out[o], s, "written", err));
    }
    for (uint32_t i = 0; i < g->n_output && p->n_step; i++)
        ST_TRY(check_use(p, g->output[i].value, p->n_step - 1, "given back", err));
    return SETUN_OK;
}

setun_status st_plan_verify(const st_plan *p, setun_error *err)
{
    const st_graph *g = p->graph;
    ST_TRY(check_steps(p, err));
    for (st_value_id v = 0; v < g->n_value; v++) {
        const st_place *a = &p->place[v];
        int64_t want;
        if (!is_placed(g, v))
            continue;
        ST_TRY(bound_bytes(g, v, p->bound, &want, err));
        if (a->bytes < want || a->offset < 0 || a->offset % ALIGN || a->offset > p->bytes - a->bytes)
            return st_fail(err, SETUN_BAD_ARG, "plan: value %u has %lld bytes at %lld, wants %lld in a buffer of %lld",
                           v, (long long)a->bytes, (long long)a->offset, (long long)want, (long long)p->bytes);
        for (st_value_id w = 0; w < v; w++) {
            const st_place *b = &p->place[w];
            if (!is_placed(g, w) || a->last < b->first || b->last < a->first)
                continue;
            if (a->offset < b->offset + b->bytes && b->offset < a->offset + a->bytes)
                return st_fail(err, SETUN_BAD_ARG, "plan: values %u and %u live at the same time in the same memory", w,
                               v);
        }
    }
    return SETUN_OK;
}

/* ---------------------------------------------------------------- printing */

static void print_size(st_str *out, int64_t symbol, const int64_t bound[SETUN_N_SYMBOLS])
{
    if (bound[-symbol - 1] >= 0)
        st_str_addf(out, " %s=%lld", dim_name(symbol), (long long)bound[-symbol - 1]);
}

void st_plan_print(const st_plan *p, const char *const *backend_names, st_str *out)
{
    const st_graph *g = p->graph;
    int64_t saved = p->sum_bytes ? (int64_t)((double)(p->sum_bytes - p->bytes) * 1000.0 / (double)p->sum_bytes) : 0;
    st_str_add(out, "plan setun/1");
    print_size(out, SETUN_DIM_TOKENS, p->bound);
    print_size(out, SETUN_DIM_OUTPUTS, p->bound);
    st_str_add(out, "\n step  backend    operator               offset       bytes  until  value\n");
    for (uint32_t s = 0; s < p->n_step; s++) {
        const st_node *node = &g->node[p->step[s].node];
        char number[16];
        const char *backend = backend_names ? backend_names[p->step[s].backend] : NULL;
        if (!backend) {
            (void)snprintf(number, sizeof number, "%u", p->step[s].backend);
            backend = number;
        }
        for (uint32_t o = 0; o < node->op->n_out; o++) {
            st_value_id v = node->out[o];
            const st_place *at = &p->place[v];
            if (o == 0)
                st_str_addf(out, "%5u  %-9s  %-18s", s, backend, node->op->name);
            else
                st_str_addf(out, "%36s", "");
            if (g->value[g->value[v].root].kind == ST_TEMP)
                st_str_addf(out, " %10lld  %10lld  %5u  ", (long long)at->offset, (long long)at->bytes, at->last);
            else
                st_str_addf(out, " %10s  %10s  %5s  ", "-", "-", "-");
            st_value_print(g, v, out);
            st_str_add(out, " ");
            st_view_print(&g->value[v].view, out);
            if (g->value[v].root != v) {
                st_str_add(out, " in ");
                st_value_print(g, g->value[v].root, out);
            }
            st_str_add(out, "\n");
        }
    }
    st_str_addf(out, "temporaries %lld bytes, %lld without reuse, saved %lld.%lld %%\n", (long long)p->bytes,
                (long long)p->sum_bytes, (long long)(saved / 10), (long long)(saved % 10));
}
