/* runtime/density.c -- how many gates are open and how many int8 activations are 0, layer by layer.
 *
 * Nothing goes by the names of layers.  In a program's graph
 *
 *     gate --> relu2, relu2_mul, or an operator with a port "gate" --> ... --> i8 --> product with t2
 *
 * the first operator makes a layer, what the last one reads is the layer's down input, and the i8
 * inputs of all other products with ternary matrices are "other".  Values are looked at when the step
 * that reads them has run.  Neurons are dead if the stored rows say so: no text is needed for that.
 *
 * Neighbours: rows of one chunk, eight at a time, each an element's bit
 *
 *     bit 0 1 2 3 4 5 6 7   token          two need it: (m | m >> 1) & 0x55, four: once more & 0x11,
 *                                          eight: m != 0; groups that are not full are left out */
#include <inttypes.h>
#include <string.h>

#include "base/error.h"
#include "runtime/session.h"

#define GROUPS 4 /* one token, 2, 4, 8 */

typedef enum kind { NOTHING, GATE, DOWN, OTHER } kind;

/* What to look at when a node has run; a node may show two things. */
typedef struct role {
    struct { uint8_t kind, port; int32_t layer; int64_t columns; } look[2];
} role;

typedef struct counts {
    double used[GROUPS], all[GROUPS];
} counts;

typedef struct layer {
    counts   gate, down, other;
    double   zero_gate, zero_up, dead; /* shares; -1 unknown */
} layer;

struct st_density {
    role   *role[ST_N_PROGRAM]; /* per node */
    layer  *layer;
    int32_t n_layer;
    counts  other;              /* of a model without layers */
};

/* ---------------------------------------------------------------- structure */

static int port_named(const setun_op *op, const char *name)
{
    for (uint32_t i = 0; i < op->n_in; i++)
        if (strcmp(op->in[i].name, name) == 0)
            return (int)i;
    return -1;
}

static int gate_port(const setun_op *op)
{
    if (strcmp(op->name, "relu2_mul") == 0 || strcmp(op->name, "relu2") == 0)
        return 0;
    return port_named(op, "gate");
}

/* The port of a product's int8 activations, or -1: one i8 and one t2 input. */
static int product_port(const st_graph *g, const st_node *n, const setun_view **weights)
{
    int q = -1;
    *weights = NULL;
    for (uint32_t i = 0; i < n->op->n_in; i++) {
        const setun_view *v = &g->value[n->in[i]].view;
        if (v->dtype == SETUN_I8 && v->rank == 2 && q < 0)
            q = (int)i;
        if (v->dtype == SETUN_T2 && !*weights)
            *weights = v;
    }
    return *weights ? q : -1;
}

/* The int8 value that v becomes: through operators that keep its shape. */
static st_value_id quantised(const st_graph *g, st_value_id v, int depth)
{
    for (st_node_id i = 0; i < g->n_node && depth < 4; i++) {
        const st_node *n = &g->node[i];
        const st_value *out = &g->value[n->out[0]];
        for (uint32_t j = 0; j < n->op->n_in; j++) {
            if (n->in[j] != v)
                continue;
            if (out->view.dtype == SETUN_I8)
                return n->out[0];
            st_value_id q = st_view_same(&out->view, &g->value[v].view) ? quantised(g, n->out[0], depth + 1) : ST_NO_ID;
            if (q != ST_NO_ID)
                return q;
        }
    }
    return ST_NO_ID;
}

static void add_role(role *r, kind k, int port, int32_t at, int64_t columns)
{
    int i = r->look[0].kind != NOTHING;
    r->look[i].kind = (uint8_t)k;
    r->look[i].port = (uint8_t)port;
    r->look[i].layer = at;
    r->look[i].columns = columns;
}

/* Roles of all nodes of a program; returns the number of layers. */
static int32_t find_roles(const st_graph *g, role *r, st_arena *tmp)
{
    int32_t n_layer = 0, at = 0;
    int32_t *down = st_arena_array(tmp, g->n_value + 1, sizeof *down); /* 1 + layer, of an int8 value */
    uint8_t *seen = st_arena_array(tmp, g->n_value + 1, 1);
    if (!down || !seen)
        return -1;
    for (st_node_id i = 0; i < g->n_node; i++) {
        const st_node *n = &g->node[i];
        int port = gate_port(n->op);
        if (port < 0 || g->value[n->in[port]].view.rank != 2 || g->value[n->in[port]].view.dtype != SETUN_F32)
            continue;
        add_role(&r[i], GATE, port, n_layer++, g->value[n->in[port]].view.dim[1]);
        st_value_id q = quantised(g, n->out[0], 0);
        if (q != ST_NO_ID)
            down[q] = n_layer;
    }
    for (st_node_id i = 0; i < g->n_node; i++) {
        const st_node *n = &g->node[i];
        const setun_view *w;
        int port = product_port(g, n, &w);
        if (port < 0 || seen[n->in[port]])
            continue;
        st_value_id q = n->in[port];
        /* Rows of i8 are padded to 128 columns; a transposed matrix has its inputs in the first dimension. */
        int64_t wide = g->value[q].view.dim[1], columns = wide;
        for (int k = 0; k < 2; k++)
            columns = (w->dim[k] + 127) / 128 * 128 == wide ? w->dim[k] : columns;
        seen[q] = 1;
        if (down[q]) {
            add_role(&r[i], DOWN, port, down[q] - 1, columns);
            at = down[q];
        } else {
            add_role(&r[i], OTHER, port, at < n_layer ? at : n_layer - 1, columns);
        }
    }
    return n_layer;
}

/* The rows of weights that make value v, if it is one product with a stored ternary matrix. */
static const setun_view *rows_of(const st_graph *g, st_value_id v, int64_t n_row)
{
    const setun_view *w = NULL;
    if (g->value[v].kind == ST_TEMP && product_port(g, &g->node[g->value[v].node], &w) >= 0 && w->data && w->dim[0] == n_row)
        return w;
    return NULL;
}

static int is_zero_row(const setun_view *w, int64_t r)
{
    int64_t bytes = setun_row_bytes(SETUN_T2, w->dim[1]), i = 0;
    const uint8_t *row = (const uint8_t *)w->data + r * bytes;
    while (i < bytes && row[i] == 0x55) /* four times code 1 */
        i++;
    return i == bytes;
}

/* Neurons that give 0 whatever comes in.  The up row is the operator's own, or what the gate meets. */
static void find_dead(const st_graph *g, const st_node *n, int port, layer *l)
{
    int64_t rows = g->value[n->in[port]].view.dim[1];
    const setun_view *gate = rows_of(g, n->in[port], rows), *up = NULL, *own;
    if (product_port(g, n, &own) >= 0 && own->data && own->dim[0] == rows)
        up = own;
    for (uint32_t i = 0; i < n->op->n_in && !up; i++)
        up = (int)i == port ? NULL : rows_of(g, n->in[i], rows);
    l->zero_gate = gate ? 0 : -1;
    l->zero_up = up ? 0 : -1;
    l->dead = gate && up ? 0 : -1;
    for (int64_t r = 0; r < rows; r++) {
        int a = gate && is_zero_row(gate, r), b = up && is_zero_row(up, r);
        l->zero_gate += a / (double)rows;
        l->zero_up += b / (double)rows;
        l->dead += l->dead < 0 ? 0 : (a || b) / (double)rows;
    }
}

setun_status st_density_start(setun_session *s, setun_error *err)
{
    struct st_density *d = s->density ? s->density : st_arena_alloc(s->arena, sizeof *d);
    if (s->m->packed.name)
        return st_fail(err, SETUN_UNKNOWN, "zeros are counted with the built-in form of weights, and these are in the packing %s "
                       "(without it there are as many)", s->m->packed.name);
    if (!d)
        return st_fail(err, SETUN_NO_MEMORY, "no memory to count zeros");
    for (int i = 0; i < ST_N_PROGRAM && !s->density; i++) {
        if (!s->program[i])
            continue;
        const st_graph *g = s->program[i]->graph;
        st_arena *tmp = st_arena_new();
        d->role[i] = st_arena_array(s->arena, g->n_node + 1, sizeof *d->role[i]);
        int32_t n = tmp && d->role[i] ? find_roles(g, d->role[i], tmp) : -1;
        st_arena_free(tmp);
        if (n < 0)
            return st_fail(err, SETUN_NO_MEMORY, "no memory to count zeros");
        if (d->layer)
            continue; /* all programs compute the same layers */
        d->n_layer = n;
        d->layer = st_arena_array(s->arena, n + 1, sizeof *d->layer);
        if (!d->layer)
            return st_fail(err, SETUN_NO_MEMORY, "no memory to count zeros");
        for (st_node_id j = 0; j < g->n_node; j++)
            for (int k = 0; k < 2; k++)
                if (d->role[i][j].look[k].kind == GATE)
                    find_dead(g, &g->node[j], d->role[i][j].look[k].port, &d->layer[d->role[i][j].look[k].layer]);
    }
    for (int32_t i = 0; i < d->n_layer; i++)
        memset(&d->layer[i], 0, offsetof(layer, zero_gate));
    memset(&d->other, 0, sizeof d->other);
    s->density = d;
    return SETUN_OK;
}

/* ---------------------------------------------------------------- counting */

static void add_group(counts *c, int64_t n_row, int64_t columns, const int64_t used[GROUPS])
{
    for (int i = 0; i < GROUPS; i++) {
        c->used[i] += (double)used[i];
        c->all[i] += (double)((n_row >> i) * columns);
    }
}

/* Up to eight rows, `stride` elements apart: of every element, the tokens that use it. */
#define COUNT(name, type, test) \
    static void name(const type *row, int64_t n_row, int64_t stride, int64_t columns, counts *c) \
    { \
        int64_t used[GROUPS] = {0, 0, 0, 0}; \
        for (int64_t i = 0; i < columns; i++) { \
            unsigned m = 0; \
            for (int64_t t = 0; t < n_row; t++) \
                m |= (unsigned)(row[t * stride + i] test 0) << t; \
            unsigned two = (m | m >> 1) & 0x55u & ((1u << (n_row & ~1)) - 1); \
            unsigned four = ((m | m >> 1) & 0x55u), all = 0; \
            four = (four | four >> 2) & 0x11u & ((1u << (n_row & ~3)) - 1); \
            all = n_row == 8 && m; \
            used[0] += __builtin_popcount(m); \
            used[1] += __builtin_popcount(two); \
            used[2] += __builtin_popcount(four); \
            used[3] += all; \
        } \
        add_group(c, n_row, columns, used); \
    }
COUNT(count_open, float, >)
COUNT(count_nonzero, int8_t, !=)

void st_density_see(setun_session *s, int which, st_node_id n, const setun_args *a)
{
    struct st_density *d = s->density;
    const role *r = &d->role[which][n];
    for (int k = 0; k < 2 && r->look[k].kind != NOTHING; k++) {
        const setun_view *v = &a->in[r->look[k].port];
        layer *l = r->look[k].layer >= 0 ? &d->layer[r->look[k].layer] : NULL;
        int64_t columns = r->look[k].columns, stride = v->dim[1];
        for (int64_t t = 0; t < v->dim[0]; t += 8) {
            int64_t rows = v->dim[0] - t < 8 ? v->dim[0] - t : 8;
            if (r->look[k].kind == GATE)
                count_open((const float *)v->data + t * stride, rows, stride, columns, &l->gate);
            else
                count_nonzero((const int8_t *)v->data + t * stride, rows, stride, columns,
                              r->look[k].kind == DOWN ? &l->down : l ? &l->other : &d->other);
        }
    }
}

/* ---------------------------------------------------------------- results */

static double share(const counts *c, int i)
{
    return c->all[i] > 0 ? c->used[i] / c->all[i] : -1;
}

static void one(const layer *l, setun_density *out)
{
    for (int i = 0; i < GROUPS; i++) {
        out->gates[i] = share(&l->gate, i);
        out->down[i] = share(&l->down, i);
    }
    out->other = share(&l->other, 0);
    out->zero_gate = l->zero_gate;
    out->zero_up = l->zero_up;
    out->dead = l->dead;
}

/* The mean of those that are known. */
static void mean(const struct st_density *d, size_t field, setun_density *out)
{
    double sum = 0;
    int32_t n = 0;
    for (int32_t i = 0; i < d->n_layer; i++) {
        setun_density l;
        double v;
        one(&d->layer[i], &l);
        memcpy(&v, (const char *)&l + field, sizeof v);
        n += v >= 0;
        sum += v >= 0 ? v : 0;
    }
    double v = n ? sum / n : -1;
    memcpy((char *)out + field, &v, sizeof v);
}

void setun_session_density(const setun_session *s, int32_t at, setun_density *out)
{
    const struct st_density *d = s->density;
    setun_density all = {.size = out->size, .n_layer = d ? d->n_layer : 0};
    for (int i = 0; d && i < ST_N_PROGRAM; i++)
        all.n_token += s->run[i].counted_rows;
    for (size_t f = offsetof(setun_density, gates); f < sizeof all; f += sizeof(double)) {
        const double unknown = -1;
        memcpy((char *)&all + f, &unknown, sizeof unknown);
        if (d && at < 0)
            mean(d, f, &all);
    }
    if (d && at >= 0 && at < d->n_layer)
        one(&d->layer[at], &all);
    if (d && d->n_layer == 0)
        all.other = share(&d->other, 0);
    memcpy(out, &all, out->size < sizeof all ? out->size : sizeof all);
}

static void number(double v, const char *before, st_str *t)
{
    st_str_add(t, before);
    if (v < 0)
        st_str_add(t, "null");
    else
        st_str_addf(t, "%.5f", v);
}

static void print_json(const setun_density *d, const char *name, st_str *t)
{
    st_str_addf(t, "{%s, \"gates_open\": [", name);
    for (int i = 0; i < GROUPS; i++)
        number(d->gates[i], i ? ", " : "", t);
    st_str_add(t, "], \"down_nonzero\": [");
    for (int i = 0; i < GROUPS; i++)
        number(d->down[i], i ? ", " : "", t);
    number(d->other, "], \"other_nonzero\": ", t);
    number(d->zero_gate, ", \"zero_gate_rows\": ", t);
    number(d->zero_up, ", \"zero_up_rows\": ", t);
    number(d->dead, ", \"dead_neurons\": ", t);
    st_str_add(t, "}");
}

static void percent(double v, int width, st_str *t)
{
    if (v < 0)
        st_str_addf(t, " %*s", width, "-");
    else
        st_str_addf(t, " %*.2f", width, 100 * v);
}

static void print_row(const setun_density *d, const char *name, st_str *t)
{
    st_str_addf(t, "%-5s", name);
    for (int i = 0; i < GROUPS; i++)
        percent(d->gates[i], i ? 6 : 7, t);
    st_str_add(t, "  ");
    for (int i = 0; i < GROUPS; i++)
        percent(d->down[i], i ? 6 : 7, t);
    st_str_add(t, "  ");
    percent(d->other, 7, t);
    st_str_add(t, "  ");
    percent(d->zero_gate, 6, t);
    percent(d->zero_up, 6, t);
    percent(d->dead, 6, t);
    st_str_add(t, "\n");
}

static void print_text(const setun_session *s, const setun_density *d, st_str *t)
{
    char name[32];
    if (d->n_layer == 0) {
        st_str_add(t, "not gated by relu2: no layer has a gate that can be counted\n");
        if (d->other >= 0)
            st_str_addf(t, "int8 activations of the ternary matrices that are not 0: %.2f %%\n", 100 * d->other);
        return;
    }
    st_str_addf(t, "%" PRId64 " tokens; shares in percent; 2, 4, 8: what so many neighbouring tokens need together\n", d->n_token);
    st_str_addf(t, "%-5s %7s %6s %6s %6s   %7s %6s %6s %6s   %7s   %6s %6s %6s\n", "", "gates>0", "2", "4", "8", "down!=0", "2", "4", "8",
                "other!=0", "gate=0", "up=0", "dead");
    for (int32_t i = 0; i < d->n_layer; i++) {
        setun_density l = {.size = sizeof l};
        setun_session_density(s, i, &l);
        (void)snprintf(name, sizeof name, "%d", i);
        print_row(&l, name, t);
    }
    print_row(d, "mean", t);
}

setun_status setun_session_density_print(const setun_session *s, int32_t json, setun_write_fn *out, void *user, setun_error *err)
{
    setun_density d = {.size = sizeof d};
    st_str t = {0};
    char name[64];
    setun_session_density(s, -1, &d);
    if (json) {
        st_str_addf(&t, "{\"gated_by_relu2\": %s, \"tokens\": %" PRId64 ",\n \"mean\": ", d.n_layer ? "true" : "false", d.n_token);
        (void)snprintf(name, sizeof name, "\"layers\": %d", d.n_layer);
        print_json(&d, name, &t);
        st_str_add(&t, ",\n \"layers\": [");
        for (int32_t i = 0; i < d.n_layer; i++) {
            setun_density l = {.size = sizeof l};
            setun_session_density(s, i, &l);
            (void)snprintf(name, sizeof name, "\"layer\": %d", i);
            st_str_add(&t, i ? ",\n  " : "\n  ");
            print_json(&l, name, &t);
        }
        st_str_add(&t, "]}\n");
    } else {
        print_text(s, &d, &t);
    }
    setun_status status = t.failed ? st_fail(err, SETUN_NO_MEMORY, "no memory for the text")
                        : out(user, t.text ? t.text : "", t.len)
                        ? st_fail(err, SETUN_CANCELLED, "cancelled by the caller, who took no more text") : SETUN_OK;
    st_str_free(&t);
    return status;
}
