/* scripts/bind_graph.c -- the graph builder that a model script sees as g.
 *
 * Every operator of the registry is a method of g, found by name when it is asked for, so an
 * operator that a plugin or a script adds needs no word here:
 *
 *     y = g:rmsnorm(x, w, {eps = 1e-5})     inputs in schema order, then attributes by name
 *     q, scale, sum = g:quantize_i8(x)      all outputs
 *     b = g:scope("blk.%d", 3)              the same builder with a prefix for names and messages
 *
 * Objects that scripts hold keep the build alive (user value 1), and a build that has ended answers
 * every call with an error, so nothing a script keeps can reach a graph it should not. */
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "scripts/bind.h"

#define VALUE "setun.value"
#define MAX_SCOPE 400 /* bytes of a prefix; names have 1024 */

st_handle *st_bind_push_handle(lua_State *L, const char *class, st_build *b, int build_index, st_value_id id,
                               const char *text)
{
    size_t n = strlen(text) + 1;
    st_handle *h = lua_newuserdatauv(L, sizeof *h + n, 1);
    h->b = b;
    h->id = id;
    memcpy(h->text, text, n);
    lua_pushvalue(L, build_index);
    lua_setiuservalue(L, -2, 1);
    luaL_setmetatable(L, class);
    return h;
}

/* Argument 1 as an open graph; its build is pushed and stays on the stack at *build_index. */
static st_handle *check_graph(lua_State *L, int *build_index)
{
    st_handle *h = luaL_testudata(L, 1, ST_CLASS_GRAPH);
    if (!h)
        st_bind_fail(L, "call methods of a graph with a colon: g:name(...)");
    else if (!h->b->open)
        st_bind_fail(L, "this graph is finished");
    st_bind_no_callback(L, "a graph");
    lua_getiuservalue(L, 1, 1);
    *build_index = lua_gettop(L);
    return h;
}

static void check_view_text(lua_State *L, int i, setun_view *v)
{
    const char *text = st_bind_text(L, i, "the type"), *end = st_view_parse(text, v);
    if (!end || *end)
        st_bind_fail(L, "'%s' is not a type such as f32[n,256]", text);
}

/* prefix and name joined by a dot, pushed. */
static const char *push_name(lua_State *L, const char *prefix, const char *name)
{
    return lua_pushfstring(L, "%s%s%s", prefix, prefix[0] && name[0] ? "." : "", name);
}

/* ---------------------------------------------------------------- operators */

static const setun_op *check_op(lua_State *L, const setun_op *op)
{
    if (op->n_in > ST_MAX_PORTS || op->n_out > ST_MAX_PORTS || op->n_attr > ST_MAX_ATTRS)
        st_bind_fail(L, "%s: its schema is too large", op->name);
    return op;
}

/* Adds the node and pushes handles of its outputs; inputs and attributes are read already. */
static int add_node(lua_State *L, st_build *b, int build_index, const setun_op *op, const st_value_id *in,
                    const setun_value *attr, const char *scope, const char *inner)
{
    setun_error err;
    st_value_id out[ST_MAX_PORTS];
    char where[128];
    luaL_checkstack(L, (int)op->n_out + 8, "too many outputs");
    st_bind_charge(L, 0);
    const char *full = push_name(L, scope, inner);
    st_bind_where(L, where, sizeof where);
    if (st_graph_add_node(b->g, op, in, attr, where, full, out, &err) != SETUN_OK)
        return st_bind_error(L, &err);
    for (uint32_t i = 0; i < op->n_out; i++)
        st_bind_push_handle(L, VALUE, b, build_index, out[i], scope);
    return (int)op->n_out;
}

static void read_attr(lua_State *L, const setun_op *op, const setun_attr *a, setun_value *v)
{
    int whole = 0;
    switch (a->kind) {
    case SETUN_ATTR_INT:
        v->i = lua_tointegerx(L, -1, &whole);
        if (lua_type(L, -1) != LUA_TNUMBER || !whole)
            st_bind_fail(L, "%s: attribute %s must be an integer", op->name, a->name);
        break;
    case SETUN_ATTR_FLOAT:
        if (lua_type(L, -1) != LUA_TNUMBER)
            st_bind_fail(L, "%s: attribute %s must be a number, not %s", op->name, a->name,
                         luaL_typename(L, -1));
        v->f = lua_tonumber(L, -1);
        break;
    default:
        if (lua_type(L, -1) != LUA_TSTRING)
            st_bind_fail(L, "%s: attribute %s must be a string, not %s", op->name, a->name,
                         luaL_typename(L, -1));
        v->s = st_bind_text(L, -1, a->name); /* the table keeps the string alive */
        break;
    }
}

/* The table at index i (0: none) as values in schema order; the extra key `at` names the node's inner
 * scope.  Unknown keys are refused: a misspelt attribute must not become a default. */
static const char *read_attrs(lua_State *L, int i, const setun_op *op, setun_value *attr)
{
    const char *at = "";
    for (uint32_t k = 0; k < op->n_attr; k++) {
        const setun_attr *a = &op->attr[k];
        int type = LUA_TNIL;
        attr[k] = a->fallback;
        if (i) {
            lua_pushstring(L, a->name);
            type = lua_rawget(L, i);
        }
        if (type != LUA_TNIL)
            read_attr(L, op, a, &attr[k]);
        else if (a->required)
            st_bind_fail(L, "%s: attribute %s is missing: %s", op->name, a->name, a->doc ? a->doc : "");
        if (i)
            lua_pop(L, 1);
    }
    if (!i)
        return at;
    for (lua_pushnil(L); lua_next(L, i); lua_pop(L, 1)) {
        const char *key = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : NULL;
        uint32_t k = 0;
        while (key && k < op->n_attr && strcmp(key, op->attr[k].name) != 0)
            k++;
        if (key && k == op->n_attr && strcmp(key, "at") == 0) {
            at = st_bind_text(L, -1, "at");
            continue;
        }
        if (!key || k == op->n_attr)
            st_bind_fail(L, "%s has no attribute '%s'", op->name, key ? key : luaL_typename(L, -2));
    }
    return at;
}

static st_handle *check_value(lua_State *L, int i, const st_build *b, const char *op, const char *port)
{
    st_handle *h = luaL_testudata(L, i, VALUE);
    if (!h)
        st_bind_fail(L, "%s: input %s is %s, not a value of the graph", op, port,
                     lua_isnone(L, i) ? "missing" : luaL_typename(L, i));
    else if (h->b != b)
        st_bind_fail(L, "%s: input %s belongs to another graph", op, port);
    return h;
}

/* upvalue 1: the operator */
static int call_op(lua_State *L)
{
    const setun_op *op = check_op(L, lua_touserdata(L, lua_upvalueindex(1)));
    int n = lua_gettop(L), b, n_in = (int)op->n_in;
    st_value_id in[ST_MAX_PORTS];
    setun_value attr[ST_MAX_ATTRS];
    st_handle *g = check_graph(L, &b);
    const st_script *s = st_bind_script(L);
    if (s->quantizer && !s->quantizing && strcmp(op->name, "quantize_i8") == 0)
        return st_bind_fail(L, "the quantizer %s cannot take the place of quantize_i8 that a script calls itself: call g:quantize, "
                            "or leave it to nn.linear", s->quantizer->name);
    for (int i = 0; i < n_in; i++)
        in[i] = check_value(L, i + 2 <= n ? i + 2 : b + 1, g->b, op->name, op->in[i].name)->id;
    if (n > n_in + 2 || (n == n_in + 2 && !lua_istable(L, n)))
        return st_bind_fail(L, "%s takes %d inputs and then a table of attributes, not %s", op->name, n_in,
                            luaL_typename(L, n_in + 2));
    const char *at = read_attrs(L, n == n_in + 2 ? n : 0, op, attr);
    return add_node(L, g->b, b, op, in, attr, g->text, at);
}

/* x + y, x * y.  The node belongs to the scope of the right side: in `x = x + block(b, x)` the left
 * one is older. */
static int call_sign(lua_State *L, const char *name)
{
    st_handle *l = luaL_testudata(L, 1, VALUE), *r = luaL_testudata(L, 2, VALUE);
    const setun_op *op = st_registry_find(st_bind_script(L)->registry, name);
    if (!l || !r)
        return st_bind_fail(L, "%s works on two values of a graph, not on a %s", name, luaL_typename(L, l ? 2 : 1));
    if (!op || op->n_in != 2 || op->n_attr != 0)
        return st_bind_fail(L, "there is no operator '%s' of two inputs", name);
    if (!l->b->open)
        return st_bind_fail(L, "this graph is finished");
    st_bind_no_callback(L, "a graph");
    if (l->b != r->b)
        return st_bind_fail(L, "%s: the values belong to two graphs", name);
    st_value_id in[2] = { l->id, r->id };
    lua_getiuservalue(L, 1, 1);
    return add_node(L, l->b, lua_gettop(L), check_op(L, op), in, NULL, r->text, "");
}

static int value_add(lua_State *L) { return call_sign(L, "add"); }
static int value_mul(lua_State *L) { return call_sign(L, "mul"); }

/* upvalue 1: methods */
static int graph_index(lua_State *L)
{
    const char *key = st_bind_text(L, 2, "a method's name");
    if (lua_getfield(L, lua_upvalueindex(1), key) != LUA_TNIL)
        return 1;
    const setun_op *op = st_registry_find(st_bind_script(L)->registry, key);
    if (!op)
        return st_bind_fail(L, "there is no operator or method '%s'", key);
    lua_pushlightuserdata(L, (void *)(uintptr_t)op);
    lua_pushcclosure(L, call_op, 1);
    return 1;
}

static int value_index(lua_State *L)
{
    st_handle *h = luaL_checkudata(L, 1, VALUE);
    const char *key = st_bind_text(L, 2, "a field's name");
    if (!h->b->open)
        return st_bind_fail(L, "this graph is finished");
    setun_view v = h->b->g->value[h->id].view;
    if (strcmp(key, "shape") == 0) {
        setun_text t;
        lua_pushstring(L, setun_view_text(&v, &t));
    } else if (strcmp(key, "name") == 0) {
        lua_pushstring(L, h->b->g->value[h->id].name);
    } else if (strcmp(key, "dtype") == 0) {
        lua_pushstring(L, st_dtype_name(v.dtype));
    } else if (strcmp(key, "dims") == 0) {
        lua_createtable(L, (int)v.rank, 0);
        for (uint32_t i = 0; i < v.rank; i++) {
            if (v.dim[i] < 0)
                lua_pushstring(L, v.dim[i] == SETUN_DIM_TOKENS ? "n" : "m");
            else
                lua_pushinteger(L, v.dim[i]);
            lua_rawseti(L, -2, (lua_Integer)i + 1);
        }
    } else {
        return st_bind_fail(L, "a value has no field '%s'; it has shape, dtype, dims and name", key);
    }
    return 1;
}

/* ---------------------------------------------------------------- sources and outputs */

static int add_value(lua_State *L, st_handle *g, int build_index, const char *name, st_value_kind kind,
                     const setun_view *v)
{
    setun_error err;
    st_value_id id;
    st_bind_charge(L, 0);
    if (st_graph_add_value(g->b->g, name, kind, v, &id, &err) != SETUN_OK)
        return st_bind_error(L, &err);
    st_bind_push_handle(L, VALUE, g->b, build_index, id, g->text);
    return 1;
}

static int graph_input(lua_State *L)
{
    static const struct { const char *name; int64_t rows; } inputs[] = {
        { "tokens", SETUN_DIM_TOKENS }, { "positions", SETUN_DIM_TOKENS }, { "outputs", SETUN_DIM_OUTPUTS }
    };
    int b;
    const char *name = st_bind_text(L, 2, "an input's name");
    setun_view v = { NULL, 0, 0, { 1, 1, 1, 1 } };
    int typed = !lua_isnoneornil(L, 3);
    if (typed)
        check_view_text(L, 3, &v);
    st_handle *g = check_graph(L, &b);
    if (typed && g->b->m)
        return st_bind_fail(L, "input: the inputs of a model have fixed types");
    for (size_t i = 0; !typed && i < 3; i++)
        if (strcmp(name, inputs[i].name) == 0) {
            v.dtype = SETUN_I32;
            v.rank = 1;
            v.dim[0] = inputs[i].rows;
        }
    if (!v.dtype)
        return st_bind_fail(L, "input: a model has the inputs tokens, positions and outputs, not '%s'", name);
    st_value_id old = st_graph_find(g->b->g, name);
    if (old != ST_NO_ID && g->b->g->value[old].kind == ST_INPUT && st_view_same(&g->b->g->value[old].view, &v)) {
        st_bind_push_handle(L, VALUE, g->b, b, old, g->text);
        return 1;
    }
    return add_value(L, g, b, name, ST_INPUT, &v);
}

/* The parts of a name that are numbers. */
typedef struct numbers {
    const char *at[4];
    int         length[4], n;
} numbers;

/* form with the numbers in the places of its %d.  Pushes the result; key is what form was found under. */
static const char *push_filled(lua_State *L, const char *form, const char *key, const numbers *v)
{
    int used = 0;
    luaL_Buffer out;
    luaL_buffinit(L, &out);
    for (const char *f = form; *f; f++) {
        if (f[0] != '%' || f[1] != 'd') {
            luaL_addchar(&out, *f);
            continue;
        }
        if (used < v->n)
            luaL_addlstring(&out, v->at[used], (size_t)v->length[used]);
        used++;
        f++;
    }
    luaL_pushresult(&out);
    if (used != v->n)
        st_bind_fail(L, "the script's names have '%s' for '%s': the numbers do not fit", form, key);
    return lua_tostring(L, -1);
}

/* The table at the top is a list of names: put in its place the first that the file has, else its first. */
static void pick_name(lua_State *L, const st_script_model *m, const char *key, const numbers *v)
{
    int list = lua_gettop(L);
    for (lua_Integer i = 1; lua_rawgeti(L, list, i) == LUA_TSTRING; i++, lua_settop(L, list))
        if (m->has(m->user, push_filled(L, lua_tostring(L, -1), key, v))) {
            lua_settop(L, list + 1);
            lua_replace(L, list);
            return;
        }
    lua_settop(L, list);
    lua_rawgeti(L, list, 1);
    lua_replace(L, list);
}

const char *st_bind_file_name(lua_State *L, const st_script_model *m, const char *name)
{
    char key[MAX_SCOPE + 1];
    const char *p = name;
    numbers v = { .n = 0 };
    size_t n = 0;
    if (strlen(name) > MAX_SCOPE)
        st_bind_fail(L, "the name '%s' is too long", name);
    if (lua_isnil(L, -1)) {
        lua_pushstring(L, name);
        return lua_tostring(L, -1);
    }
    while (*p) { /* part by part; a part of digits only is a number; "%d" is never longer than "0." */
        size_t len = strcspn(p, "."), digits = strspn(p, "0123456789");
        if (len == digits && len > 0 && v.n < 4 && n + 2 < sizeof key) {
            v.at[v.n] = p;
            v.length[v.n++] = (int)len;
            memcpy(key + n, "%d", 2);
            n += 2;
        } else if (n + len < sizeof key) {
            memcpy(key + n, p, len);
            n += len;
        }
        p += len;
        if (*p == '.' && n + 1 < sizeof key) {
            key[n++] = '.';
            p++;
        }
    }
    key[n < sizeof key ? n : sizeof key - 1] = 0;
    lua_pushstring(L, key);
    if (lua_rawget(L, -2) == LUA_TTABLE)
        pick_name(L, m, key, &v);
    if (lua_type(L, -1) != LUA_TSTRING)
        st_bind_fail(L, "the script's names have no entry '%s'", key);
    return push_filled(L, lua_tostring(L, -1), key, &v);
}

static const char *push_file_name(lua_State *L, int build_index, const char *name)
{
    const st_build *b = lua_touserdata(L, build_index);
    lua_getiuservalue(L, build_index, 1);
    return st_bind_file_name(L, b->m, name);
}

/* Every tensor of the file is taken once and for one name: a second one would be a slip of the
 * script, or a way to make the host convert it again and again.  file is at the top of the stack. */
static void claim(lua_State *L, int build_index, const char *file, const char *name)
{
    lua_getiuservalue(L, build_index, 2);
    lua_pushstring(L, file);
    if (lua_rawget(L, -2) != LUA_TNIL)
        st_bind_fail(L, "tensor '%s' is already used as %s, now wanted as %s", file, lua_tostring(L, -1), name);
    lua_pop(L, 1);
    lua_pushstring(L, file);
    lua_pushstring(L, name);
    lua_rawset(L, -3);
    lua_pop(L, 1);
}

static const st_script_model *check_model(lua_State *L, const st_build *b)
{
    if (!b->m)
        st_bind_fail(L, "this graph has no model to take weights from");
    return b->m;
}

static int graph_weight(lua_State *L)
{
    int b;
    setun_error err;
    setun_view v = { NULL, 0, 0, { 1, 1, 1, 1 } };
    uint32_t want = 0;
    const char *part = st_bind_text(L, 2, "a weight's name");
    if (!lua_isnoneornil(L, 3)) {
        const char *type = st_bind_text(L, 3, "the element type");
        if (strcmp(type, "f32") != 0)
            return st_bind_fail(L, "weight: a tensor is converted to f32 or not at all, not to %s", type);
        want = SETUN_F32;
    }
    st_handle *g = check_graph(L, &b);
    const char *name = push_name(L, g->text, part);
    st_value_id old = st_graph_find(g->b->g, name);
    if (old != ST_NO_ID) {
        const st_value *o = &g->b->g->value[old];
        if (o->kind != ST_CONST || o->view.dtype == SETUN_T2 || (want && o->view.dtype != want))
            return st_bind_fail(L, "weight: %s was taken before as %s", name, st_dtype_name(o->view.dtype));
        st_bind_push_handle(L, VALUE, g->b, b, old, g->text);
        return 1;
    }
    const st_script_model *m = check_model(L, g->b);
    const char *file = push_file_name(L, b, name);
    claim(L, b, file, name);
    int64_t since = st_bind_pause(st_bind_script(L));
    setun_status s = m->tensor(m->user, file, want, &v, &err);
    st_bind_resume(st_bind_script(L), since);
    if (s != SETUN_OK)
        return st_bind_error(L, &err);
    return add_value(L, g, b, name, ST_CONST, &v);
}

/* Do the outcomes of a quantizer at the indices first .. first + n - 1 have the types that products want for x? */
static void check_quantized(lua_State *L, const st_build *b, const st_script_quantizer *q, const setun_view *x, int first, int n)
{
    static const uint32_t types[] = { SETUN_I8, SETUN_F32, SETUN_I32 };
    setun_view want = *x;
    for (int i = 0; i < n; i++) {
        const setun_view *v = &b->g->value[check_value(L, first + i, b, q->name, "a result of apply")->id].view;
        setun_text is, wants;
        if (n == 3) {
            want = (setun_view){ NULL, types[i], i ? 1 : 2, { x->dim[0], i ? 1 : setun_t2_padded(x->dim[1]), 1, 1 } };
        } else if (!q->floats) {
            st_bind_fail(L, "quantizer %s: apply gives floats, and so the declaration must say floats = true", q->name);
        }
        if (!st_view_same(v, &want))
            st_bind_fail(L, "quantizer %s: result %d of apply is %s, not %s", q->name, i + 1, setun_view_text(v, &is),
                         setun_view_text(&want, &wants));
    }
}

/* q, scale, sum = g:quantize(x, name [, weight_only]): x for a product of ternary weights, in the way that was chosen; or
 * x alone, if it stays floats.  name is that of the weight; weight_only: it was trained with floats. */
static int graph_quantize(lua_State *L)
{
    int b;
    const st_script *s = st_bind_script(L);
    const char *name = st_bind_text(L, 3, "the name of the weight");
    lua_settop(L, 4);
    st_handle *g = check_graph(L, &b), *x = check_value(L, 2, g->b, "quantize", "x");
    const setun_view view = g->b->g->value[x->id].view;
    if (!s->quantizer && lua_toboolean(L, 4)) {
        lua_pushvalue(L, 2);
        return 1;
    }
    if (!s->quantizer) {
        const setun_op *op = st_registry_find(s->registry, "quantize_i8");
        return op ? add_node(L, g->b, b, check_op(L, op), &x->id, NULL, g->text, "") : st_bind_fail(L, "there is no operator 'quantize_i8'");
    }
    if (view.dtype != SETUN_F32 || view.rank != 2)
        return st_bind_fail(L, "quantize: x must be f32 of rank 2");
    int first = lua_gettop(L) + 1, n = st_bind_quantizer_apply(L, 1, 2, name);
    if (n != 1 && n != 3)
        return st_bind_fail(L, "quantizer %s: apply gave %d results, wants q, scale and sum, or floats alone", s->quantizer->name, n);
    check_quantized(L, g->b, s->quantizer, &view, first, n);
    return n;
}

/* What the graph so far tells about the zeros of value v, seen through a norm, which keeps them. */
static int32_t zeros_of(const st_graph *g, st_value_id v)
{
    for (int norm = 0; g->value[v].kind == ST_TEMP; norm = 1) {
        const st_node *n = &g->node[g->value[v].node];
        if (strcmp(n->op->name, "mul") == 0 && n->op->n_in == 2) {
            for (int i = 0; i < 2; i++)
                if (g->value[n->in[i]].kind == ST_TEMP &&
                    strncmp(g->node[g->value[n->in[i]].node].op->name, "relu", 4) == 0)
                    return ST_ZEROS_RELU;
            return ST_ZEROS_GATED;
        }
        if (norm || strcmp(n->op->name, "rmsnorm") != 0)
            break;
        v = n->in[0];
    }
    return ST_ZEROS_UNKNOWN;
}

/* Pushes what g:ternary gives for a matrix that the graph has, whose scale has this value id. */
static int push_ternary(lua_State *L, const st_handle *g, int b, st_value_id codes, st_value_id scale, int across)
{
    lua_getiuservalue(L, b, 2);
    lua_rawgeti(L, -1, (lua_Integer)scale);
    lua_Integer form = lua_tointeger(L, -1);
    st_bind_push_handle(L, VALUE, g->b, b, codes, g->text);
    st_bind_push_handle(L, VALUE, g->b, b, scale, g->text);
    lua_pushboolean(L, across);
    lua_createtable(L, 0, 2);
    lua_pushinteger(L, form / 2);
    lua_setfield(L, -2, "group");
    lua_pushboolean(L, form % 2 != 0);
    lua_setfield(L, -2, "weight_only");
    return 4;
}

/* codes, scale, across, form = g:ternary(name [, x]), or nil if the tensor is an ordinary matrix.  x is what
 * it will be multiplied with: then codes may be transposed (for ternary_matmul_t), and across is true.
 * form.group: weights of a row that share a scale, 0: all; form.weight_only: x must not be quantised. */
static int graph_ternary(lua_State *L)
{
    int b, across = 0;
    int32_t zeros = ST_ZEROS_UNKNOWN;
    setun_error err;
    st_script_ternary t;
    const char *part = st_bind_text(L, 2, "a weight's name");
    int has_input = !lua_isnoneornil(L, 3);
    lua_settop(L, 3);
    st_handle *g = check_graph(L, &b);
    const st_script_quantizer *q = st_bind_script(L)->quantizer;
    if (has_input && !(q && q->floats)) /* products of floats want rows */
        zeros = zeros_of(g->b->g, check_value(L, 3, g->b, "ternary", "x")->id);
    const char *name = push_name(L, g->text, part);
    const char *scale_name = lua_pushfstring(L, "%s.scale", name), *across_name = lua_pushfstring(L, "%s.t", name);
    st_value_id old = st_graph_find(g->b->g, name), old_scale = st_graph_find(g->b->g, scale_name);
    if (old == ST_NO_ID && old_scale != ST_NO_ID) {
        old = st_graph_find(g->b->g, across_name);
        across = old != ST_NO_ID;
        if (across && !has_input)
            return st_bind_fail(L, "ternary: %s is transposed already, so this call must name its input, too", name);
    }
    if (old != ST_NO_ID && old_scale != ST_NO_ID)
        return push_ternary(L, g, b, old, old_scale, across);
    const st_script_model *m = check_model(L, g->b);
    const char *file = push_file_name(L, b, name);
    int64_t since = st_bind_pause(st_bind_script(L));
    setun_status s = m->ternary(m->user, file, zeros, &t, &err);
    st_bind_resume(st_bind_script(L), since);
    if (s == SETUN_DECLINED) {
        lua_pushnil(L);
        return 1;
    }
    if (s != SETUN_OK)
        return st_bind_error(L, &err);
    if (old != ST_NO_ID || old_scale != ST_NO_ID) /* an ordinary matrix may be asked for again, as a tied head is */
        return st_bind_fail(L, "ternary: the name %s is used already", name);
    claim(L, b, file, name);
    add_value(L, g, b, t.across ? across_name : name, ST_CONST, &t.codes);
    add_value(L, g, b, scale_name, ST_CONST, &t.scale);
    old = st_graph_find(g->b->g, t.across ? across_name : name);
    old_scale = st_graph_find(g->b->g, scale_name);
    lua_getiuservalue(L, b, 2);
    lua_pushinteger(L, 2 * (lua_Integer)t.group + (t.weight_only != 0));
    lua_rawseti(L, -2, (lua_Integer)old_scale);
    return push_ternary(L, g, b, old, old_scale, t.across);
}

static int graph_has(lua_State *L)
{
    int b;
    const char *part = st_bind_text(L, 2, "a weight's name");
    st_handle *g = check_graph(L, &b);
    const st_script_model *m = check_model(L, g->b);
    const char *file = push_file_name(L, b, push_name(L, g->text, part));
    lua_pushboolean(L, m->has(m->user, file));
    return 1;
}

/* g:repeats(name, of): is the one tensor a copy of the other?  Then the file's use of it is done. */
static int graph_repeats(lua_State *L)
{
    int b;
    const char *part = st_bind_text(L, 2, "a weight's name"), *of = st_bind_text(L, 3, "a weight's name");
    st_handle *g = check_graph(L, &b);
    const st_script_model *m = check_model(L, g->b);
    const char *file = push_file_name(L, b, push_name(L, g->text, part));
    const char *other = push_file_name(L, b, push_name(L, g->text, of));
    int64_t since = st_bind_pause(st_bind_script(L));
    int same = m->repeats && m->repeats(m->user, file, other);
    st_bind_resume(st_bind_script(L), since);
    lua_pushboolean(L, same);
    return 1;
}

/* The sizes in the list at index i, each at least 1. */
static void read_dims(lua_State *L, int i, setun_view *v)
{
    if (!lua_istable(L, i) || lua_rawlen(L, i) > SETUN_MAX_RANK)
        st_bind_fail(L, "the sizes must be a list of up to %d numbers", SETUN_MAX_RANK);
    v->rank = (uint32_t)lua_rawlen(L, i);
    for (uint32_t d = 0; d < SETUN_MAX_RANK; d++) {
        int whole = 1;
        lua_rawgeti(L, i, (lua_Integer)d + 1);
        v->dim[d] = d < v->rank ? lua_tointegerx(L, -1, &whole) : 1;
        if (!whole || v->dim[d] < 1)
            st_bind_fail(L, "size %d is not a number from 1 on", (int)d + 1);
        lua_pop(L, 1);
    }
}

static uint32_t read_dtype(lua_State *L, int i)
{
    const char *name = st_bind_text(L, i, "the element type");
    uint32_t dtype = st_dtype_find(name, strlen(name));
    if (!dtype)
        st_bind_fail(L, "'%s' is not an element type", name);
    return dtype;
}

static int graph_state(lua_State *L)
{
    int b;
    setun_view v = { NULL, 0, 0, { 1, 1, 1, 1 } };
    const char *part = st_bind_text(L, 2, "a state's name");
    v.dtype = read_dtype(L, 3);
    read_dims(L, 4, &v);
    st_handle *g = check_graph(L, &b);
    return add_value(L, g, b, push_name(L, g->text, part), ST_STATE, &v);
}

/* g:const(name, "f32", {2, 2}, {1, 0, 0, 1}): numbers written in the script */
static int graph_const(lua_State *L)
{
    int b;
    setun_view v = { NULL, 0, 0, { 1, 1, 1, 1 } };
    const char *part = st_bind_text(L, 2, "a constant's name");
    v.dtype = read_dtype(L, 3);
    read_dims(L, 4, &v);
    if (v.dtype != SETUN_F32 && v.dtype != SETUN_I32)
        return st_bind_fail(L, "const: numbers in a script become f32 or i32, not %s", st_dtype_name(v.dtype));
    int64_t n = 1;
    for (uint32_t d = 0; d < v.rank; d++)
        if (st_mul_i64(n, v.dim[d], &n))
            return st_bind_fail(L, "const: the sizes are too large");
    if (!lua_istable(L, 5) || (int64_t)lua_rawlen(L, 5) != n)
        return st_bind_fail(L, "const: the values must be a list of %I numbers", (lua_Integer)n);
    st_handle *g = check_graph(L, &b);
    st_bind_charge(L, 4 * n);
    v.data = st_arena_array(g->b->g->arena, n, 4);
    if (!v.data)
        return st_bind_fail(L, "const: out of memory");
    for (int64_t i = 0; i < n; i++) {
        int whole = 0;
        lua_rawgeti(L, 5, i + 1);
        lua_Integer number = lua_tointegerx(L, -1, &whole);
        if (lua_type(L, -1) != LUA_TNUMBER || (v.dtype == SETUN_I32 && (!whole || number != (int32_t)number)))
            return st_bind_fail(L, "const: value %I is not a number that fits", (lua_Integer)i + 1);
        if (v.dtype == SETUN_F32)
            ((float *)v.data)[i] = (float)lua_tonumber(L, -1);
        else
            ((int32_t *)v.data)[i] = (int32_t)number;
        lua_pop(L, 1);
    }
    return add_value(L, g, b, push_name(L, g->text, part), ST_CONST, &v);
}

static int graph_output(lua_State *L)
{
    int b;
    setun_error err;
    const char *name = st_bind_text(L, 2, "an output's name");
    st_handle *g = check_graph(L, &b), *v = check_value(L, 3, g->b, "output", name);
    if (st_graph_add_output(g->b->g, name, v->id, &err) != SETUN_OK)
        return st_bind_error(L, &err);
    return 0;
}

/* g:name(part): what the script's names and messages call a weight of this scope, "blk.3.attn_q" */
static int graph_name(lua_State *L)
{
    int b;
    const char *part = st_bind_text(L, 2, "a weight's name");
    push_name(L, check_graph(L, &b)->text, part);
    return 1;
}

/* g:scope("blk.%d", i): %d is all it formats */
static int graph_scope(lua_State *L)
{
    int b, arg = 3;
    const char *form = st_bind_text(L, 2, "a scope's name");
    int n = lua_gettop(L);
    st_handle *g = check_graph(L, &b);
    luaL_Buffer out;
    luaL_buffinit(L, &out);
    luaL_addstring(&out, g->text);
    if (g->text[0])
        luaL_addchar(&out, '.');
    for (const char *f = form; *f; f++) {
        if (f[0] != '%') {
            luaL_addchar(&out, *f);
            continue;
        }
        char digits[32];
        if (f[1] != 'd' || arg > n || !lua_isinteger(L, arg))
            return st_bind_fail(L, "scope: '%s' needs one integer for each %%d, and knows nothing else", form);
        (void)snprintf(digits, sizeof digits, "%lld", (long long)lua_tointeger(L, arg++));
        luaL_addstring(&out, digits);
        f++;
    }
    luaL_pushresult(&out);
    if (lua_rawlen(L, -1) > MAX_SCOPE)
        return st_bind_fail(L, "scope: the name is longer than %d bytes", MAX_SCOPE);
    st_bind_push_handle(L, ST_CLASS_GRAPH, g->b, b, 0, lua_tostring(L, -1));
    return 1;
}

/* The text form, for tests and for looking at what one built. */
static int graph_text(lua_State *L)
{
    int b;
    st_handle *g = check_graph(L, &b);
    /* A st_str cannot be held over a raise: measure, allocate in Lua, then print again. */
    st_str out = { 0 };
    st_graph_print(g->b->g, &out);
    size_t len = out.len;
    int failed = out.failed;
    st_str_free(&out);
    if (failed)
        return st_bind_fail(L, "text: out of memory");
    char *copy = lua_newuserdatauv(L, len + 1, 0);
    st_graph_print(g->b->g, &out);
    failed = out.failed || out.len != len;
    if (!failed)
        memcpy(copy, out.text, len);
    st_str_free(&out);
    if (failed)
        return st_bind_fail(L, "text: out of memory");
    lua_pushlstring(L, copy, len);
    return 1;
}

/* ---------------------------------------------------------------- opening */

/* A build on an empty graph, pushed. */
st_build *st_bind_push_build(lua_State *L, const st_script_model *m)
{
    setun_error err;
    size_t n_hp = m ? (size_t)m->n_hp : 0;
    st_build *b = lua_newuserdatauv(L, sizeof *b + n_hp, 2);
    memset(b, 0, sizeof *b + n_hp);
    lua_newtable(L);
    lua_setiuservalue(L, -2, 2);
    st_bind_charge(L, 0);
    if (st_graph_new(&b->g, st_bind_script(L)->arena, &err) != SETUN_OK)
        st_bind_error(L, &err);
    b->m = m;
    b->open = 1;
    return b;
}

/* setun.graph(): a graph without a model, for tests and experiments */
static int l_graph(lua_State *L)
{
    st_bind_no_callback(L, "setun.graph");
    st_build *b = st_bind_push_build(L, NULL);
    st_bind_push_handle(L, ST_CLASS_GRAPH, b, lua_gettop(L), 0, "");
    return 1;
}

void st_bind_graph_open(lua_State *L)
{
    static const luaL_Reg graph[] = {
        { "const", graph_const },   { "has", graph_has },     { "input", graph_input },
        { "name", graph_name }, { "output", graph_output }, { "quantize", graph_quantize }, { "repeats", graph_repeats }, { "scope", graph_scope },
        { "state", graph_state },
        { "ternary", graph_ternary }, { "text", graph_text }, { "weight", graph_weight },
        { NULL, NULL }
    };
    static const luaL_Reg none[] = { { NULL, NULL } };
    static const luaL_Reg signs[] = { { "__add", value_add }, { "__mul", value_mul }, { NULL, NULL } };
    static const luaL_Reg own[] = { { "graph", l_graph }, { NULL, NULL } };
    st_bind_class(L, ST_CLASS_GRAPH, graph, graph_index);
    st_bind_class(L, VALUE, none, value_index);
    luaL_getmetatable(L, VALUE);
    luaL_setfuncs(L, signs, 0);
    lua_pop(L, 1);
    luaL_setfuncs(L, own, 0);
}
