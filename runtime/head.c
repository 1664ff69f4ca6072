/* runtime/head.c -- the screened head: the largest logits without reading all of the 16-bit rows.
 *
 * If the script's logits are a product with a stored float matrix, a second graph is made whose end
 *
 *     logits = matmul(x, w)
 *
 * is replaced by
 *
 *     part, sum, norm = head_split(x)                              ids, count = head_select(lo, up, top)
 *     lo, up = head_bounds(part, sum, norm, codes, bounds)         values = head_rescore(x, w, ids, count)
 *
 * ops/head_bounds.c proves that the largest values, with their bits and order, are those of the first
 * form.  Scripts do not know of it.  Models whose head has another form do without. */
#include "runtime/head.h"

#include <string.h>

#include "base/error.h"
#include "graph/rules.h"

/* The node that makes the logits, if it is one that can be screened. */
static const st_node *find(const st_graph *g, const st_registry *r)
{
    for (uint32_t i = 0; i < g->n_output; i++) {
        const st_value *v = &g->value[g->output[i].value];
        if (strcmp(g->output[i].name, "logits") || v->kind != ST_TEMP)
            continue;
        const st_node *n = &g->node[v->node];
        const st_value *w = n->op->n_in == 2 ? &g->value[n->in[1]] : NULL;
        if (n->op == st_registry_find(r, "matmul") && w && w->kind == ST_CONST && w->view.data && v->view.rank == 2 &&
            v->view.dim[0] == SETUN_DIM_OUTPUTS && w->view.dim[1] <= ST_HEAD_MAX_COLUMNS)
            return n;
    }
    return NULL;
}

setun_status st_head_prepare(setun_model *m, setun_error *err)
{
    const st_node *n = m->engine->o.full_head ? NULL : find(m->graph, m->engine->registry);
    if (!n)
        return SETUN_OK;
    const setun_view *w = &m->graph->value[n->in[1]].view;
    m->head_rows = w->data;
    m->head_dtype = w->dtype;
    m->head_columns = w->dim[1];
    setun_status s = st_weights_head(m->weights, w, m->engine->o.n_threads, &m->head_code, &m->head_bounds, err);
    return s == SETUN_DECLINED ? SETUN_OK : s;
}

static setun_status add(st_graph *g, const st_registry *r, const char *name, const st_value_id *in, st_value_id *out,
                        setun_error *err)
{
    return st_graph_add_node(g, st_registry_find(r, name), in, NULL, NULL, "head", out, err);
}

setun_status st_head_graph(setun_model *m, st_graph **out, setun_error *err)
{
    static const int64_t symbolic[SETUN_N_SYMBOLS] = {-1, -1};
    static const char *const ops[] = {"head_split", "head_bounds", "head_select", "head_rescore"};
    const st_registry *r = m->engine->registry;
    const setun_view one = {NULL, SETUN_I32, 1, {1, 1, 1, 1}};
    const st_node *n = m->head_code.data ? find(m->simple, r) : NULL;
    st_value_id split[3], bounds[5], up[2], select[3], listed[2], rescore[4], value;
    st_graph *g;
    *out = NULL;
    for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++)
        if (!st_registry_find(r, ops[i]))
            n = NULL;
    if (!n || st_graph_find(m->simple, ST_HEAD_CODE) != ST_NO_ID || st_graph_find(m->simple, ST_HEAD_BOUNDS) != ST_NO_ID ||
        st_graph_find(m->simple, ST_HEAD_TOP) != ST_NO_ID)
        return SETUN_OK;
    /* A copy has the same ids; without its outputs, what nobody needs any more is dropped below. */
    ST_TRY(st_graph_bind(m->simple, symbolic, m->arena, &g, err));
    g->n_output = 0;
    ST_TRY(st_graph_add_value(g, ST_HEAD_CODE, ST_CONST, &m->head_code, &bounds[3], err));
    ST_TRY(st_graph_add_value(g, ST_HEAD_BOUNDS, ST_CONST, &m->head_bounds, &bounds[4], err));
    ST_TRY(st_graph_add_value(g, ST_HEAD_TOP, ST_INPUT, &one, &select[2], err));
    ST_TRY(add(g, r, "head_split", &n->in[0], split, err));
    memcpy(bounds, split, sizeof split);
    ST_TRY(add(g, r, "head_bounds", bounds, up, err));
    memcpy(select, up, sizeof up);
    ST_TRY(add(g, r, "head_select", select, listed, err));
    rescore[0] = n->in[0];
    rescore[1] = n->in[1];
    memcpy(rescore + 2, listed, sizeof listed);
    ST_TRY(add(g, r, "head_rescore", rescore, &value, err));
    ST_TRY(st_graph_add_output(g, "ids", listed[0], err));
    ST_TRY(st_graph_add_output(g, "count", listed[1], err));
    ST_TRY(st_graph_add_output(g, "values", value, err));
    ST_TRY(st_graph_simplify(g, r, m->arena, out, err));
    return st_graph_verify(*out, err);
}

/* ---------------------------------------------------------------- choosing */

/* a comes before b, which has a lower number or an earlier place: as in ops/topk.c. */
static int before(float a, float b)
{
    return a > b || (a == a && b != b);
}

int st_head_best(const float *value, const int32_t *id, int64_t n, int64_t k, float *best, int32_t *best_id)
{
    int finite = 1;
    for (int64_t i = 0; i < n; i++) {
        int64_t at = i < k ? i : k;
        while (at > 0 && before(value[i], best[at - 1])) {
            at--;
            if (at + 1 < k) {
                best[at + 1] = best[at];
                best_id[at + 1] = best_id[at];
            }
        }
        if (at < k) {
            best[at] = value[i];
            best_id[at] = id ? id[i] : (int32_t)i;
        }
    }
    for (int64_t i = 0; i < k; i++)
        finite &= best[i] - best[i] == 0.0f;
    return finite;
}
