/* graph/rules.c -- rewriting: the same bits from fewer nodes.
 *
 * Two copies are made.  The first drops nodes that nobody needs, computes nodes that depend on
 * constants alone, and makes every common node once.  The second replaces pairs of nodes by fused
 * operators: each fusion is a row of st_rules, beside its function.
 *
 *     graph --copy--> no dead, constant or common nodes --match rules, copy--> graph
 *
 * A pair is fused at the place of its second node, so the first one's reads move down.  That is
 * right as long as nothing they read is updated in place in between; `sole` checks it.  Nodes that
 * update memory in place are never merged or moved.  Not here: any choice by speed. */
#include "graph/rules.h"

#include <string.h>

#include "base/error.h"
#include "base/table.h"

#define MAX_FOLD_BYTES ((int64_t)256 << 20) /* larger constants are left to be computed */
#define MAX_FOLD_WORK  1e10                 /* operations of a scalar eval: some seconds at most */

typedef struct fused {
    const setun_op *op;
    st_value_id     in[ST_MAX_PORTS];
    setun_value     attr[ST_MAX_ATTRS];
} fused;

struct st_rewrite {
    const st_graph    *g;
    const st_registry *registry;
    st_arena          *tmp;
    uint32_t          *uses;   /* of a value: reads by nodes and outputs */
    st_node_id        *killed; /* of a value: the node that updates it in place, or ST_NO_ID */
    fused            **with;   /* of a node: what replaces it, or NULL */
    uint8_t           *gone;   /* of a node: it is part of a later one */
    setun_error       *err;
};

static setun_status no_memory(setun_error *err)
{
    return st_fail(err, SETUN_NO_MEMORY, "out of memory while simplifying the graph");
}

static int is_in_place(const setun_op *op)
{
    for (uint32_t o = 0; o < op->n_out; o++)
        if (op->out[o].shares)
            return 1;
    return 0;
}

/* Of every value, the live node that updates it in place; live NULL: all nodes are. */
static st_node_id *find_killers(const st_graph *g, const uint8_t *live, st_arena *tmp)
{
    st_node_id *killed = st_arena_array(tmp, (int64_t)g->n_value + 1, (int64_t)sizeof *killed);
    if (!killed)
        return NULL;
    for (st_value_id v = 0; v < g->n_value; v++)
        killed[v] = ST_NO_ID;
    for (st_node_id n = 0; n < g->n_node; n++)
        for (uint32_t o = 0; o < g->node[n].op->n_out; o++)
            if ((!live || live[n]) && g->node[n].op->out[o].shares)
                killed[g->node[n].in[g->node[n].op->out[o].shares - 1]] = n;
    return killed;
}

/* ---------------------------------------------------------------- fusions */

static const st_value_id *inputs_of(const struct st_rewrite *r, st_node_id n)
{
    return r->with[n] ? r->with[n]->in : r->g->node[n].in;
}

static const setun_op *op_of(const struct st_rewrite *r, st_node_id n)
{
    return r->with[n] ? r->with[n]->op : r->g->node[n].op;
}

/* The node that makes v, if its operator is the registry's `name` and only node n uses it, so that
 * it can be computed as part of n.  ST_NO_ID otherwise. */
static st_node_id sole(const struct st_rewrite *r, st_value_id v, const char *name, st_node_id n)
{
    const st_value *x = &r->g->value[v];
    const st_node *p;
    if (x->kind != ST_TEMP || r->uses[v] != 1)
        return ST_NO_ID;
    p = &r->g->node[x->node];
    if (strcmp(p->op->name, name) != 0 || p->op != st_registry_find(r->registry, name))
        return ST_NO_ID;
    if (p->op->n_out != 1 || is_in_place(p->op) || r->with[x->node] || r->gone[x->node])
        return ST_NO_ID;
    for (uint32_t i = 0; i < p->op->n_in; i++)
        if (r->killed[p->in[i]] != ST_NO_ID && r->killed[p->in[i]] <= n)
            return ST_NO_ID;
    return x->node;
}

static int is_op(const struct st_rewrite *r, st_node_id n, const char *name, uint32_t n_in)
{
    const setun_op *op = r->g->node[n].op;
    return strcmp(op->name, name) == 0 && op->n_in == n_in && op == st_registry_find(r->registry, name) &&
           !is_in_place(op);
}

/* Attributes go by name.  One that the fused operator lacks would be lost, so then nothing is fused;
 * unless it has its default value, which says no more than its absence. */
static int pass_attrs(const st_node *from, fused *f, uint32_t *given)
{
    for (uint32_t i = 0; i < from->op->n_attr; i++) {
        const setun_attr *a = &from->op->attr[i];
        uint32_t k = 0;
        while (k < f->op->n_attr && strcmp(f->op->attr[k].name, a->name) != 0)
            k++;
        if (k == f->op->n_attr && !a->required && st_attr_same(a, &from->attr[i], &a->fallback))
            continue;
        if (k == f->op->n_attr || f->op->attr[k].kind != a->kind || (*given >> k & 1))
            return 0;
        f->attr[k] = from->attr[i];
        *given |= UINT32_C(1) << k;
    }
    return 1;
}

/* Replace p and n by op_name on in[0..n_in).  Declines unless the operator exists and gives what n
 * gave, type for type. */
static setun_status fuse(struct st_rewrite *r, st_node_id p, st_node_id n, const char *op_name,
                         const st_value_id *in, uint32_t n_in)
{
    const st_graph *g = r->g;
    const st_node *node = &g->node[n];
    setun_view vin[ST_MAX_PORTS], vout[ST_MAX_PORTS];
    uint32_t given = 0;
    setun_error inner = {0};
    setun_status s;
    const setun_op *op = st_registry_find(r->registry, op_name);
    fused *f;
    if (!op || op->n_in != n_in || op->n_out != node->op->n_out || is_in_place(op))
        return SETUN_DECLINED;
    f = st_arena_alloc(r->tmp, sizeof *f);
    if (!f)
        return no_memory(r->err);
    f->op = op;
    for (uint32_t i = 0; i < op->n_attr; i++)
        f->attr[i] = op->attr[i].fallback;
    if (!pass_attrs(&g->node[p], f, &given) || !pass_attrs(node, f, &given))
        return SETUN_DECLINED;
    for (uint32_t i = 0; i < op->n_attr; i++)
        if (op->attr[i].required && !(given >> i & 1))
            return SETUN_DECLINED;
    for (uint32_t i = 0; i < n_in; i++) {
        f->in[i] = in[i];
        vin[i] = g->value[in[i]].view;
        vin[i].data = NULL;
    }
    setun_args a = {sizeof a, n_in, op->n_out, op->n_attr, op, vin, vout, f->attr, NULL};
    s = st_infer(&a, &inner);
    if (s == SETUN_NO_MEMORY)
        return no_memory(r->err);
    if (s != SETUN_OK)
        return SETUN_DECLINED;
    for (uint32_t o = 0; o < op->n_out; o++)
        if (!st_view_same(&vout[o], &g->value[node->out[o]].view))
            return SETUN_DECLINED;
    r->with[n] = f;
    r->gone[p] = 1;
    return SETUN_OK;
}

/* quantize_i8(rmsnorm(x, w)): the row is still in cache, and its f32 form never reaches memory. */
static setun_status norm_quantize(struct st_rewrite *r, st_node_id n)
{
    st_node_id p;
    if (!is_op(r, n, "quantize_i8", 1))
        return SETUN_DECLINED;
    p = sole(r, r->g->node[n].in[0], "rmsnorm", n);
    if (p == ST_NO_ID || r->g->node[p].op->n_in != 2)
        return SETUN_DECLINED;
    return fuse(r, p, n, "rmsnorm_i8", r->g->node[p].in, 2);
}

/* mul(relu2(a), b) and mul(b, relu2(a)): a product of floats does not depend on the order (the
 * payload of a NaN aside, which nothing reads). */
static setun_status relu2_gate(struct st_rewrite *r, st_node_id n)
{
    const st_value_id *of = r->g->node[n].in;
    if (!is_op(r, n, "mul", 2))
        return SETUN_DECLINED;
    for (uint32_t side = 0; side < 2; side++) {
        st_node_id p = sole(r, of[side], "relu2", n);
        st_value_id in[2];
        if (p == ST_NO_ID || r->g->node[p].op->n_in != 1)
            continue;
        in[0] = r->g->node[p].in[0];
        in[1] = of[1 - side];
        return fuse(r, p, n, "relu2_mul", in, 2);
    }
    return SETUN_DECLINED;
}

/* May the sign of v's zeros be forgotten?  Yes where v is read only to be normalised and rounded to
 * int8.  The norm uses x * x, the same for both zeros, and (x * r) * w, a zero or (r or w not finite) a
 * NaN; the quantisation uses the magnitude of that and rounds it, and int8 has one zero. */
static int zero_sign_is_lost(const struct st_rewrite *r, st_value_id v, int is_normal)
{
    const st_graph *g = r->g;
    for (uint32_t i = 0; i < g->n_output; i++)
        if (g->output[i].value == v)
            return 0;
    for (st_node_id n = 0; n < g->n_node; n++)
        for (uint32_t i = 0; i < g->node[n].op->n_in; i++) {
            if (g->node[n].in[i] != v)
                continue;
            if (i > 0 || r->killed[v] != ST_NO_ID)
                return 0;
            if (is_op(r, n, is_normal ? "quantize_i8" : "rmsnorm_i8", is_normal ? 1 : 2))
                continue;
            if (is_normal || !is_op(r, n, "rmsnorm", 2) || !zero_sign_is_lost(r, g->node[n].out[0], 1))
                return 0;
        }
    return 1;
}

/* relu2_mul(gate, ternary_matmul(...)), whether it was written so or the row above has just made it:
 * rows whose gate is closed are not read.  The fused operator gives +0 where the two give a zero of
 * either sign, hence zero_sign_is_lost. */
static setun_status gated_matmul(struct st_rewrite *r, st_node_id n)
{
    const setun_op *op = op_of(r, n);
    st_value_id in[6];
    st_node_id p;
    if (strcmp(op->name, "relu2_mul") != 0 || op->n_in != 2 || op->n_attr > 0 || is_in_place(op) ||
        op != st_registry_find(r->registry, "relu2_mul"))
        return SETUN_DECLINED;
    p = sole(r, inputs_of(r, n)[1], "ternary_matmul", n);
    if (p == ST_NO_ID || r->g->node[p].op->n_in != 5 || !zero_sign_is_lost(r, r->g->node[n].out[0], 0))
        return SETUN_DECLINED;
    memcpy(in, r->g->node[p].in, 5 * sizeof *in);
    in[5] = inputs_of(r, n)[0];
    return fuse(r, p, n, "ternary_matmul_gated", in, 6);
}

const st_rule st_rules[] = {
    {"common", "two equal nodes -> one",
     "graph setun/1\n"
     "input x f32[n,256]\n"
     "%a = relu2 x\n"
     "%b = relu2 x\n"
     "%c = add %a %b\n"
     "output y %c\n",
     "graph setun/1\n"
     "input x f32[n,256]\n"
     "%a = relu2 x\n"
     "%c = add %a %a\n"
     "output y %c\n",
     NULL},
    {"dead", "a node that nobody needs -> nothing",
     "graph setun/1\n"
     "input x f32[n,256]\n"
     "const w f32[256]\n"
     "%a = rmsnorm x w {eps=1e-05}\n"
     "%b = relu2 %a\n"
     "%c = relu2 x\n"
     "output y %c\n",
     "graph setun/1\n"
     "input x f32[n,256]\n"
     "%c = relu2 x\n"
     "output y %c\n",
     NULL},
    {"constant", "a node of constants alone -> its value",
     "graph setun/1\n"
     "input positions i32[n]\n"
     "input x f32[n,2,64]\n"
     "%t = rope_table {theta=10000 dim=64 positions=16}\n"
     "%y = rope x %t positions {pairing=\"neox\"}\n"
     "output y %y\n",
     "graph setun/1\n"
     "input positions i32[n]\n"
     "input x f32[n,2,64]\n"
     "const rope_table.table f32[16,64]\n"
     "%y = rope x rope_table.table positions {pairing=\"neox\"}\n"
     "output y %y\n",
     NULL},
    {"rmsnorm_i8", "rmsnorm -> quantize_i8",
     "graph setun/1\n"
     "input x f32[n,200]\n"
     "const w f32[200]\n"
     "%h = rmsnorm x w {eps=1e-05}\n"
     "%q %scale %sum = quantize_i8 %h\n"
     "output q %q\n"
     "output scale %scale\n"
     "output sum %sum\n",
     "graph setun/1\n"
     "input x f32[n,200]\n"
     "const w f32[200]\n"
     "%q %scale %sum = rmsnorm_i8 x w {eps=1e-05}\n"
     "output q %q\n"
     "output scale %scale\n"
     "output sum %sum\n",
     norm_quantize},
    {"relu2_mul", "relu2 -> mul",
     "graph setun/1\n"
     "input gate f32[n,300]\n"
     "input up f32[n,300]\n"
     "%r = relu2 gate\n"
     "%y = mul up %r\n"
     "output y %y\n",
     "graph setun/1\n"
     "input gate f32[n,300]\n"
     "input up f32[n,300]\n"
     "%y = relu2_mul gate up\n"
     "output y %y\n",
     relu2_gate},
    {"ternary_matmul_gated", "ternary_matmul -> relu2_mul, for rmsnorm_i8 alone",
     "graph setun/1\n"
     "input gate f32[n,300]\n"
     "input q i8[n,256]\n"
     "input scale f32[n]\n"
     "input sum i32[n]\n"
     "const w t2[300,200]\n"
     "const ws f32[1]\n"
     "const g f32[300]\n"
     "%up = ternary_matmul q scale sum w ws\n"
     "%y = relu2_mul gate %up\n"
     "%q %scale %sum = rmsnorm_i8 %y g {eps=1e-05}\n"
     "output q8 %q\n"
     "output scale8 %scale\n"
     "output sum8 %sum\n",
     "graph setun/1\n"
     "input gate f32[n,300]\n"
     "input q i8[n,256]\n"
     "input scale f32[n]\n"
     "input sum i32[n]\n"
     "const w t2[300,200]\n"
     "const ws f32[1]\n"
     "const g f32[300]\n"
     "%y = ternary_matmul_gated q scale sum w ws gate\n"
     "%q %scale %sum = rmsnorm_i8 %y g {eps=1e-05}\n"
     "output q8 %q\n"
     "output scale8 %scale\n"
     "output sum8 %sum\n",
     gated_matmul},
    {NULL, NULL, NULL, NULL, NULL},
};

/* ---------------------------------------------------------------- first copy */

typedef struct copy {
    const st_graph *g;
    st_graph       *h;
    st_arena       *tmp, *arena; /* scratch; what the result keeps */
    st_value_id    *map;         /* value of g -> value of h */
    st_node_id     *killed;
    uint8_t        *live;        /* of a node of g */
    st_table       *seen;        /* what a node computes -> its node in h */
    uint32_t        n_folded;
    setun_error    *err;
} copy;

/* Wanted are the graph's outputs, what updates a state, and whatever those read. */
static void find_live(const copy *c)
{
    const st_graph *g = c->g;
    for (uint32_t i = 0; i < g->n_output; i++)
        if (g->value[g->output[i].value].kind == ST_TEMP)
            c->live[g->value[g->output[i].value].node] = 1;
    for (st_node_id n = g->n_node; n-- > 0;) {
        const st_node *node = &g->node[n];
        for (uint32_t o = 0; o < node->op->n_out; o++)
            if (g->value[g->value[node->out[o]].root].kind == ST_STATE)
                c->live[n] = 1;
        for (uint32_t i = 0; c->live[n] && i < node->op->n_in; i++)
            if (g->value[node->in[i]].kind == ST_TEMP)
                c->live[g->value[node->in[i]].node] = 1;
    }
}

static int is_updated(const copy *c, const st_node *n)
{
    for (uint32_t o = 0; o < n->op->n_out; o++)
        if (c->killed[n->out[o]] != ST_NO_ID)
            return 1;
    return is_in_place(n->op);
}

/* May the node be computed now?  All inputs have data, all sizes are known, and it is not so large
 * that loading would suffer more than running gains. */
static int can_fold(const copy *c, const st_node *n, const st_value_id *in, setun_args *a)
{
    int64_t sum = 0;
    setun_cost cost = {0, 0, 0};
    if (is_updated(c, n))
        return 0;
    for (uint32_t i = 0; i < n->op->n_in; i++) {
        a->in[i] = c->h->value[in[i]].view;
        if (c->h->value[in[i]].kind != ST_CONST || !a->in[i].data)
            return 0;
    }
    for (uint32_t o = 0; o < n->op->n_out; o++) {
        a->out[o] = c->g->value[n->out[o]].view;
        if (st_view_check(&a->out[o], 0, NULL) != SETUN_OK ||
            st_add_i64(sum, setun_view_bytes(&a->out[o]), &sum) || sum > MAX_FOLD_BYTES)
            return 0;
    }
    if (SETUN_HAS(setun_op, n->op, cost))
        n->op->cost(a, &cost);
    return cost.int_ops + cost.float_ops <= MAX_FOLD_WORK;
}

static setun_status add_const(copy *c, const st_node *n, uint32_t port, const setun_view *view, st_value_id *id)
{
    const char *name = st_arena_printf(c->tmp, "%s.%s", n->op->name, n->op->out[port].name);
    /* Scripts choose names too; a number that only grows ends any clash. */
    while (name && (st_graph_find(c->g, name) != ST_NO_ID || st_graph_find(c->h, name) != ST_NO_ID))
        name = st_arena_printf(c->tmp, "%s.%s.%u", n->op->name, n->op->out[port].name, ++c->n_folded);
    if (!name)
        return no_memory(c->err);
    return st_graph_add_value(c->h, name, ST_CONST, view, id, c->err);
}

static setun_status fold(copy *c, const st_node *n, const st_value_id *in, int *done)
{
    setun_view vin[ST_MAX_PORTS], vout[ST_MAX_PORTS];
    setun_args a = {sizeof a, n->op->n_in, n->op->n_out, n->op->n_attr, n->op, vin, vout, n->attr, NULL};
    setun_status s;
    *done = can_fold(c, n, in, &a);
    if (!*done)
        return SETUN_OK;
    for (uint32_t o = 0; o < n->op->n_out; o++) {
        vout[o].data = st_arena_alloc(c->arena, setun_view_bytes(&vout[o]) + ST_CASE_SLACK);
        if (!vout[o].data)
            return no_memory(c->err);
    }
    s = n->op->eval(&a, c->err);
    if (s != SETUN_OK) {
        st_node_wrap(c->err, n->op, n->where, n->scope);
        return s < 0 ? s : st_fail(c->err, SETUN_FAILED, "%s: eval declined", n->op->name);
    }
    for (uint32_t o = 0; o < n->op->n_out; o++)
        ST_TRY(add_const(c, n, o, &vout[o], &c->map[n->out[o]]));
    return SETUN_OK;
}

/* The bytes that tell what a node computes: operator, inputs, attributes. */
static setun_status make_key(const copy *c, const st_node *n, const st_value_id *in, const char **key, size_t *len)
{
    size_t bytes = sizeof n->op + n->op->n_in * sizeof *in, at = 0;
    char *k;
    for (uint32_t i = 0; i < n->op->n_attr; i++)
        bytes += n->op->attr[i].kind == SETUN_ATTR_STRING ? strlen(n->attr[i].s) + 1 : sizeof n->attr[i].i;
    k = st_arena_alloc(c->tmp, (int64_t)bytes);
    if (!k)
        return no_memory(c->err);
    memcpy(k, &n->op, sizeof n->op);
    at = sizeof n->op;
    if (n->op->n_in)
        memcpy(k + at, in, n->op->n_in * sizeof *in);
    at += n->op->n_in * sizeof *in;
    for (uint32_t i = 0; i < n->op->n_attr; i++) {
        int is_text = n->op->attr[i].kind == SETUN_ATTR_STRING;
        size_t size = is_text ? strlen(n->attr[i].s) + 1 : sizeof n->attr[i].i;
        memcpy(k + at, is_text ? (const void *)n->attr[i].s : (const void *)&n->attr[i], size);
        at += size;
    }
    *key = k;
    *len = bytes;
    return SETUN_OK;
}

static setun_status copy_node(copy *c, st_node_id id)
{
    const st_node *n = &c->g->node[id];
    st_value_id in[ST_MAX_PORTS], out[ST_MAX_PORTS];
    const char *key = NULL;
    size_t len = 0;
    int64_t twin;
    int done;
    for (uint32_t i = 0; i < n->op->n_in; i++)
        in[i] = c->map[n->in[i]];
    ST_TRY(make_key(c, n, in, &key, &len));
    /* What somebody updates in place must have its own copy, and an update happens every time. */
    if (!is_updated(c, n) && st_table_get(c->seen, key, len, &twin)) {
        for (uint32_t o = 0; o < n->op->n_out; o++)
            c->map[n->out[o]] = c->map[c->g->node[twin].out[o]];
        return SETUN_OK;
    }
    ST_TRY(fold(c, n, in, &done));
    if (!done) {
        ST_TRY(st_graph_add_node(c->h, n->op, in, n->attr, n->where, n->scope, out, c->err));
        for (uint32_t o = 0; o < n->op->n_out; o++)
            c->map[n->out[o]] = out[o];
    }
    if (!is_updated(c, n) && st_table_put(c->seen, key, len, id))
        return no_memory(c->err);
    return SETUN_OK;
}

static setun_status copy_graph(copy *c)
{
    const st_graph *g = c->g;
    ST_TRY(st_graph_new(&c->h, c->tmp, c->err));
    c->map = st_arena_array(c->tmp, (int64_t)g->n_value + 1, (int64_t)sizeof *c->map);
    c->live = st_arena_array(c->tmp, (int64_t)g->n_node + 1, 1);
    if (!c->map || !c->live || !c->seen)
        return no_memory(c->err);
    find_live(c);
    c->killed = find_killers(g, c->live, c->tmp);
    if (!c->killed)
        return no_memory(c->err);
    for (st_value_id v = 0; v < g->n_value; v++) {
        const st_value *x = &g->value[v];
        if (x->kind != ST_TEMP)
            ST_TRY(st_graph_add_value(c->h, x->name, x->kind, &x->view, &c->map[v], c->err));
        else if (x->port == 0 && c->live[x->node])
            ST_TRY(copy_node(c, x->node));
    }
    for (uint32_t i = 0; i < g->n_output; i++)
        ST_TRY(st_graph_add_output(c->h, g->output[i].name, c->map[g->output[i].value], c->err));
    return SETUN_OK;
}

/* ---------------------------------------------------------------- second copy */

/* Every row sees every node, in the table's order, also what an earlier row has made of it. */
static setun_status match(struct st_rewrite *r)
{
    for (st_node_id n = 0; n < r->g->n_node; n++) {
        for (const st_rule *rule = st_rules; rule->name; rule++) {
            setun_status s = rule->apply ? rule->apply(r, n) : SETUN_DECLINED;
            if (s != SETUN_OK && s != SETUN_DECLINED)
                return s;
        }
    }
    return SETUN_OK;
}

static void count_uses(struct st_rewrite *r)
{
    memset(r->uses, 0, r->g->n_value * sizeof *r->uses);
    for (st_node_id n = 0; n < r->g->n_node; n++)
        for (uint32_t i = 0; !r->gone[n] && i < op_of(r, n)->n_in; i++)
            r->uses[inputs_of(r, n)[i]]++;
    for (uint32_t i = 0; i < r->g->n_output; i++)
        r->uses[r->g->output[i].value]++;
}

/* Inputs stay even if unused, because they are the graph's interface. */
static setun_status emit(const struct st_rewrite *r, st_arena *arena, st_graph **out)
{
    const st_graph *g = r->g;
    st_value_id *map = st_arena_array(r->tmp, (int64_t)g->n_value + 1, (int64_t)sizeof *map);
    if (!map)
        return no_memory(r->err);
    ST_TRY(st_graph_new(out, arena, r->err));
    for (st_value_id v = 0; v < g->n_value; v++) {
        const st_value *x = &g->value[v];
        st_value_id in[ST_MAX_PORTS], made[ST_MAX_PORTS];
        const st_node *n;
        const setun_op *op;
        if (x->kind == ST_INPUT || (x->kind != ST_TEMP && r->uses[v]))
            ST_TRY(st_graph_add_value(*out, x->name, x->kind, &x->view, &map[v], r->err));
        if (x->kind != ST_TEMP || x->port != 0 || r->gone[x->node])
            continue;
        n = &g->node[x->node];
        op = op_of(r, x->node);
        for (uint32_t i = 0; i < op->n_in; i++)
            in[i] = map[inputs_of(r, x->node)[i]];
        ST_TRY(st_graph_add_node(*out, op, in, r->with[x->node] ? r->with[x->node]->attr : n->attr, n->where, n->scope,
                                 made, r->err));
        for (uint32_t o = 0; o < op->n_out; o++)
            map[n->out[o]] = made[o];
    }
    for (uint32_t i = 0; i < g->n_output; i++)
        ST_TRY(st_graph_add_output(*out, g->output[i].name, map[g->output[i].value], r->err));
    return SETUN_OK;
}

static setun_status rewrite(struct st_rewrite *r, st_arena *arena, st_graph **out)
{
    const st_graph *g = r->g;
    r->uses = st_arena_array(r->tmp, (int64_t)g->n_value + 1, (int64_t)sizeof *r->uses);
    r->with = st_arena_array(r->tmp, (int64_t)g->n_node + 1, (int64_t)sizeof *r->with);
    r->gone = st_arena_array(r->tmp, (int64_t)g->n_node + 1, 1);
    r->killed = find_killers(g, NULL, r->tmp);
    if (!r->uses || !r->with || !r->gone || !r->killed)
        return no_memory(r->err);
    count_uses(r);
    ST_TRY(match(r));
    count_uses(r);
    return emit(r, arena, out);
}

setun_status st_graph_simplify(const st_graph *g, const st_registry *r, st_arena *arena, st_graph **out,
                               setun_error *err)
{
    copy c = {.g = g, .arena = arena, .err = err};
    struct st_rewrite w = {.registry = r, .err = err};
    setun_status s;
    c.tmp = w.tmp = st_arena_new();
    c.seen = st_table_new(256);
    s = c.tmp ? copy_graph(&c) : no_memory(err);
    w.g = c.h;
    if (s == SETUN_OK)
        s = rewrite(&w, arena, out);
    st_table_free(c.seen);
    st_arena_free(c.tmp);
    return s;
}
