/* runtime/trace.c -- see trace.h.
 *
 * Steps are looked at while a session runs, as runtime/density.c does.  Kept is a hash per node, so that
 * all layers of any model fit: which step differs is the question, and weights, which are compared by their
 * values, say by how much.  Only floats count: int8 rows are made of them and have padding.
 *
 *     embed  rmsnorm_i8  ternary_matmul  ...  add | rmsnorm_i8 ...
 *            in "blk.0"  in "blk.0.attn_q"        in "blk.0" | in "blk.1"
 *                                            ^ what leaves the first layer is its last float result */
#include "runtime/trace.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/hash.h"
#include "runtime/session.h"

setun_status st_trace_start(setun_session *s, st_trace *t, setun_error *err)
{
    const st_graph *g = s->program[ST_MANY]->graph; /* that for one token has the same nodes */
    for (uint32_t i = 0; i < s->m->n_backend; i++)
        if (!SETUN_HAS(setun_backend_v1, st_session_api(s, i), program_observe))
            return st_fail(err, SETUN_DECLINED, "backend '%s' does not show what its steps compute",
                           s->m->backend[i]->backend_info.name);
    t->n = g->n_node;
    t->step = st_arena_array(t->arena, t->n + 1, sizeof *t->step);
    if (!t->step)
        return st_fail(err, SETUN_NO_MEMORY, "no memory to follow steps");
    for (int64_t i = 0; i < t->n; i++) {
        st_trace_step *step = &t->step[i];
        step->hash = ST_HASH_INIT;
        step->op = st_arena_strdup(t->arena, g->node[i].op->name);
        step->scope = st_arena_strdup(t->arena, g->node[i].scope);
        if (!step->op || !step->scope)
            return st_fail(err, SETUN_NO_MEMORY, "no memory to follow steps");
    }
    s->trace = t;
    s->note |= ST_NOTE_TRACE;
    return SETUN_OK;
}

void st_trace_see(setun_session *s, int which, st_node_id n, const setun_args *a)
{
    const st_graph *g = s->program[which]->graph;
    st_trace_step *step = n < s->trace->n ? &s->trace->step[n] : NULL;
    for (uint32_t i = 0; step && i < a->n_out; i++) {
        const setun_view *v = &a->out[i];
        int64_t count = 1;
        /* Of a cache only the new rows are this run's, and they are some step's results already. */
        if (g->value[g->value[g->node[n].out[i]].root].kind != ST_TEMP)
            continue;
        /* Whether a step that only gives memory another shape is run at all is up to the backend. */
        if (s->trace->see && !g->node[n].op->out[i].shares)
            s->trace->see(s->trace->user, n, i, v);
        if (v->dtype != SETUN_F32)
            continue;
        for (uint32_t k = 0; k < v->rank; k++)
            count *= v->dim[k];
        if (!step->columns)
            step->columns = v->rank ? v->dim[v->rank - 1] : 1;
        step->hash = setun_hash(step->hash, v->data, count);
    }
}

/* ---------------------------------------------------------------- two of them */

int64_t st_trace_layer(const char *scope)
{
    for (const char *p = scope; *p; p++)
        if (strchr("0123456789", *p) && (p == scope || p[-1] == '.')) {
            size_t n = strspn(p, "0123456789");
            if (n < 10 && (p[n] == '.' || !p[n]))
                return atoi(p);
        }
    return -1;
}

/* The last float result of the first layer. */
static const st_trace_step *layer_output(const st_trace *t, int64_t *layer)
{
    const st_trace_step *last = NULL;
    *layer = -1;
    for (int64_t i = 0; i < t->n; i++) {
        int64_t at = st_trace_layer(t->step[i].scope);
        if (*layer < 0)
            *layer = at;
        if (at >= 0 && at == *layer && t->step[i].columns)
            last = &t->step[i];
    }
    return last;
}

void st_trace_compare(const st_trace *a, const st_trace *b, st_trace_difference *d)
{
    int64_t other, most = a->n > b->n ? a->n : b->n;
    const st_trace_step *out_a = layer_output(a, &d->layer), *out_b = layer_output(b, &other);
    d->first = -1;
    d->apart = 0;
    for (int64_t i = 0; i < most && d->first < 0; i++) {
        /* The same product may be another operator: how weights lie depends on their zeros. */
        d->apart = i >= a->n || i >= b->n || a->step[i].columns != b->step[i].columns ||
                   strcmp(a->step[i].scope, b->step[i].scope) != 0;
        if (d->apart || a->step[i].hash != b->step[i].hash)
            d->first = i;
    }
    if (!out_a || !out_b || other != d->layer)
        d->layer = -1;
    d->layer_differs = d->layer >= 0 && (out_a->columns != out_b->columns || out_a->hash != out_b->hash);
}
