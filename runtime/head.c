/* runtime/head.c -- the screened head: the largest logits without reading all of the 16-bit rows.
 *
 * If the script's logits are a product with a stored float matrix, a second graph is made whose end
 *
 *     logits = matmul(x, w)
 *
 * is replaced by a cascade in which fewer and fewer rows are read with more and more bits:
 *
 *     part, sum, norm = head_split(x)                                                  integers for x
 *     up, dot, peak = head_bounds(part, sum, norm, noise, codes, bounds)               all rows, 6 bits
 *     seed        = head_seed(up, peak, top);  value = head_rescore(x, w, seed)        some rows, exactly
 *     list, least = head_select(up, peak, noise, seed, value, top)
 *     up          = head_refine(part, sum, norm, noise, dot, fine, bounds, list)       some rows, 8 bits
 *     ids, count  = head_keep(list, up, least)
 *     values      = head_rescore(x, w, ids, count)                                     few rows, exactly
 *
 * ops/head_kernels.h proves that the largest values, with their bits and order, are those of the first
 * form.  Scripts do not know of it.  Models whose head has another form do without. */
#include "runtime/head.h"

#include <math.h>
#include <string.h>

#include "base/error.h"
#include "graph/rules.h"
#include "setun/numerics.h"

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
    setun_status s = st_weights_head(m->weights, w, m->engine->o.n_threads, &m->head, err);
    m->lacks |= s == SETUN_FULL;
    return s == SETUN_DECLINED ? SETUN_OK : s;
}

/* Add an operator; what it reads is listed by value, what it makes goes to out. */
static setun_status add(st_graph *g, const st_registry *r, const char *name, const st_value_id *in, st_value_id *out,
                        setun_error *err)
{
    return st_graph_add_node(g, st_registry_find(r, name), in, NULL, NULL, "head", out, err);
}

setun_status st_head_graph(setun_model *m, st_graph **out, setun_error *err)
{
    static const int64_t symbolic[SETUN_N_SYMBOLS] = {-1, -1};
    static const char *const ops[] = {"head_split", "head_bounds", "head_seed", "head_select", "head_refine", "head_keep",
                                      "head_rescore"};
    const st_registry *r = m->engine->registry;
    const setun_view one = {NULL, SETUN_I32, 1, {1, 1, 1, 1}}, four = {NULL, SETUN_I32, 2, {SETUN_DIM_OUTPUTS, 4, 1, 1}};
    const st_node *n = m->head.code.data ? find(m->simple, r) : NULL;
    const setun_view rows = n ? m->simple->value[n->in[1]].view : one;
    const struct {
        const char       *name;
        st_value_kind     kind;
        const setun_view *view;
    } outer[6] = {{ST_HEAD_CODE, ST_CONST, &m->head.code}, {ST_HEAD_FINE, ST_CONST, &m->head.fine},
                  {ST_HEAD_BOUNDS, ST_CONST, &m->head.meta}, {ST_HEAD_TOP, ST_INPUT, &one}, {ST_HEAD_NOISE, ST_INPUT, &four},
                  {ST_HEAD_ROWS, ST_CONST, &rows}};
    enum { CODE, FINE, META, TOP, NOISE, ROWS };
    st_value_id v[6], x[3], bound[3], seed[2], first, select[3], refined, kept[2], value;
    st_graph *g;
    *out = NULL;
    for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++)
        if (!st_registry_find(r, ops[i]))
            n = NULL;
    for (size_t i = 0; i < 6; i++)
        if (st_graph_find(m->simple, outer[i].name) != ST_NO_ID)
            n = NULL;
    if (!n)
        return SETUN_OK;
    /* A copy has the same ids; without its outputs, what nobody needs any more is dropped below. */
    ST_TRY(st_graph_bind(m->simple, symbolic, m->arena, &g, err));
    const st_value_id row = n->in[0];
    g->n_output = 0;
    for (size_t i = 0; i < 6; i++)
        ST_TRY(st_graph_add_value(g, outer[i].name, outer[i].kind, outer[i].view, &v[i], err));
    ST_TRY(add(g, r, "head_split", &row, x, err));
    ST_TRY(add(g, r, "head_bounds", (const st_value_id[]){x[0], x[1], x[2], v[NOISE], v[CODE], v[META]}, bound, err));
    ST_TRY(add(g, r, "head_seed", (const st_value_id[]){bound[0], bound[2], v[TOP]}, seed, err));
    ST_TRY(add(g, r, "head_rescore", (const st_value_id[]){row, v[ROWS], seed[0], seed[1]}, &first, err));
    ST_TRY(add(g, r, "head_select", (const st_value_id[]){bound[0], bound[2], v[NOISE], seed[0], seed[1], first, v[TOP]}, select,
               err));
    ST_TRY(add(g, r, "head_refine", (const st_value_id[]){x[0], x[1], x[2], v[NOISE], bound[1], v[FINE], v[META], select[0],
                                                          select[1]}, &refined, err));
    ST_TRY(add(g, r, "head_keep", (const st_value_id[]){select[0], select[1], refined, select[2]}, kept, err));
    ST_TRY(add(g, r, "head_rescore", (const st_value_id[]){row, v[ROWS], kept[0], kept[1]}, &value, err));
    ST_TRY(st_graph_add_output(g, "ids", kept[0], err));
    ST_TRY(st_graph_add_output(g, "count", kept[1], err));
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

/* The largest logit / temp + noise, of equals the lower id; a NaN is never it. */
static int32_t draw(const setun_screen *screen, const float *value, const int32_t *id, int64_t n, float *best, int32_t *best_id)
{
    float most = -INFINITY;
    for (int64_t i = 0; i < n; i++) {
        float z = value[i] / screen->temp + setun_gumbel(screen->key[0], screen->key[1], (uint32_t)id[i]);
        if (z > most) {
            most = z;
            *best = value[i];
            *best_id = id[i];
        }
    }
    return most - most == 0.0f;
}

int32_t st_head_answer(const setun_screen *screen, const float *value, const int32_t *id, int64_t n, float *best,
                       int32_t *best_id)
{
    int64_t k = screen->below < 0.0f && n > 0 ? (n < SETUN_MAX_TOP ? n : SETUN_MAX_TOP) : screen->n;
    if (n < k)
        return 0;
    if (screen->temp > 0.0f)
        return draw(screen, value, id, n, best, best_id);
    int finite = st_head_best(value, id, n, k, best, best_id);
    if (!(screen->below < 0.0f))
        return finite ? (int32_t)k : 0;
    /* Rounded down, as in ops/head_select.c. */
    float least = (best[0] + screen->below) - (fabsf(best[0]) + fabsf(screen->below)) * 0x1p-20f;
    int32_t m = 0;
    while (m < k && best[m] >= least)
        m++;
    return best[0] - best[0] == 0.0f && (m < k || k == n) ? m : 0;
}
