/* scripts/bind_op.c -- setun.op: an operator written in a script.
 *
 * The script's table becomes a setun_op as any file in ops/ defines one.  The schema says what the
 * shapes are and what an operation costs without Lua (bind_schema.c).  eval, fill and infer, here, and
 * lower (bind_kernel.c) call back into the state, so they work while the script is open; afterwards they
 * fail with a sentence.  An account of what a step really did (counted) is asked for when the script is
 * closed, so it is given as sums of products, like a cost, that may ask for what inputs hold.
 *
 * Rounding.  Lua computes in double.  Elements reach eval as exact doubles, what it returns is
 * rounded to the element type once, and setun.f32(x) rounds in between.  One +, -, *, / or sqrt of
 * f32 values in double, rounded once to f32, is what f32 arithmetic gives: 53 >= 2 * 24 + 2 bits
 * make the double rounding harmless.  A chain of two operations needs setun.f32 between them. */
#include <string.h>

#include "base/error.h"
#include "scripts/bind.h"

#define ARRAY "setun.array"
#define MAX_OPS 1000

typedef struct st_script_port port_type;

typedef struct array {
    setun_view v;
    int64_t    generation;
    int        writable;
} array;

static st_script_op *of(const setun_args *a)
{
    return (st_script_op *)(uintptr_t)a->op;
}

/* ---------------------------------------------------------------- elements */

static void push_element(lua_State *L, const setun_view *v, int64_t i)
{
    const char *p = v->data;
    switch (v->dtype) {
    case SETUN_F32: case SETUN_F16: case SETUN_BF16: case SETUN_Q8:
    case SETUN_Q4_0: case SETUN_Q8_0: case SETUN_Q4_K: case SETUN_Q6_K: lua_pushnumber(L, (double)setun_get_f32(v, i)); return;
    case SETUN_I8: lua_pushinteger(L, ((const int8_t *)(const void *)p)[i]); return;
    case SETUN_U8: lua_pushinteger(L, ((const uint8_t *)(const void *)p)[i]); return;
    case SETUN_I16: lua_pushinteger(L, ((const int16_t *)(const void *)p)[i]); return;
    case SETUN_I32: lua_pushinteger(L, ((const int32_t *)(const void *)p)[i]); return;
    case SETUN_I64: lua_pushinteger(L, ((const int64_t *)(const void *)p)[i]); return;
    default: { /* T2, as drawn in setun/types.h */
        int64_t k = v->dim[v->rank - 1], c = i % k;
        const uint8_t *row = (const uint8_t *)v->data + i / k * setun_row_bytes(SETUN_T2, k);
        uint8_t byte = row[c / SETUN_T2_BLOCK * SETUN_T2_BLOCK_BYTES + c % 32];
        lua_pushinteger(L, (byte >> (c % SETUN_T2_BLOCK / 32 * 2) & 3) - 1);
        return;
    }
    }
}

/* The number at the top of the stack becomes element i; it stays on the stack.  name: of the output that eval
 * gave it for, or NULL where the script wrote to an array. */
static void store_element(lua_State *L, const setun_view *v, int64_t i, const char *name)
{
    static const struct { int64_t low, high; } range[] = {
        [SETUN_I8] = { INT8_MIN, INT8_MAX },    [SETUN_U8] = { 0, UINT8_MAX },
        [SETUN_I16] = { INT16_MIN, INT16_MAX }, [SETUN_I32] = { INT32_MIN, INT32_MAX },
        [SETUN_I64] = { INT64_MIN, INT64_MAX },
    };
    int whole = 0;
    if (lua_type(L, -1) != LUA_TNUMBER && name)
        st_bind_fail(L, "eval gave a %s for %s, not a number", luaL_typename(L, -1), name);
    if (lua_type(L, -1) != LUA_TNUMBER)
        st_bind_fail(L, "an element is set to a %s, not to a number", luaL_typename(L, -1));
    if (v->dtype == SETUN_F32 || v->dtype == SETUN_F16 || v->dtype == SETUN_BF16) {
        setun_put_f32(v, i, (float)lua_tonumber(L, -1));
        return;
    }
    int64_t n = lua_tointegerx(L, -1, &whole);
    if (setun_block(v->dtype) > 1 || !whole || n < range[v->dtype].low || n > range[v->dtype].high)
        st_bind_fail(L, "%s %s%s%s, which is no %s", name ? "eval gave" : "an element is set to", lua_tostring(L, -1),
                     name ? " for " : "", name ? name : "", st_dtype_name(v->dtype));
    switch (v->dtype) {
    case SETUN_I8: ((int8_t *)v->data)[i] = (int8_t)n; break;
    case SETUN_U8: ((uint8_t *)v->data)[i] = (uint8_t)n; break;
    case SETUN_I16: ((int16_t *)v->data)[i] = (int16_t)n; break;
    case SETUN_I32: ((int32_t *)v->data)[i] = (int32_t)n; break;
    default: ((int64_t *)v->data)[i] = n; break;
    }
}

static array *check_array(lua_State *L)
{
    array *x = luaL_checkudata(L, 1, ARRAY);
    if (x->generation != st_bind_script(L)->generation)
        st_bind_fail(L, "an array lives only while eval_all runs");
    return x;
}

static int64_t check_place(lua_State *L, const array *x)
{
    int whole;
    int64_t i = lua_tointegerx(L, 2, &whole);
    if (!whole || i < 0 || i >= setun_count(&x->v))
        st_bind_fail(L, "an array of %I elements has no element %s (the first is 0)",
                     (lua_Integer)setun_count(&x->v), luaL_tolstring(L, 2, NULL));
    return i;
}

/* x[i] from 0 on in row-major order; x.dims; #x */
static int array_index(lua_State *L)
{
    const array *x = check_array(L);
    if (lua_type(L, 2) == LUA_TSTRING && strcmp(lua_tostring(L, 2), "dims") == 0) {
        lua_createtable(L, (int)x->v.rank, 0);
        for (uint32_t d = 0; d < x->v.rank; d++) {
            lua_pushinteger(L, x->v.dim[d]);
            lua_rawseti(L, -2, (lua_Integer)d + 1);
        }
        return 1;
    }
    push_element(L, &x->v, check_place(L, x));
    return 1;
}

static int array_newindex(lua_State *L)
{
    array *x = check_array(L);
    int64_t i = check_place(L, x);
    if (!x->writable)
        return st_bind_fail(L, "an input cannot be written");
    lua_settop(L, 3);
    store_element(L, &x->v, i, NULL);
    return 0;
}

static int array_len(lua_State *L)
{
    lua_pushinteger(L, setun_count(&check_array(L)->v));
    return 1;
}

/* ---------------------------------------------------------------- eval */

typedef struct job {
    st_script_op     *so;
    const setun_args *a;
} job;

void st_bind_push_attrs(lua_State *L, const setun_args *a)
{
    lua_createtable(L, 0, (int)a->n_attr);
    for (uint32_t i = 0; i < a->n_attr; i++) {
        const setun_attr *attr = &a->op->attr[i];
        if (attr->kind == SETUN_ATTR_INT)
            lua_pushinteger(L, a->attr[i].i);
        else if (attr->kind == SETUN_ATTR_FLOAT)
            lua_pushnumber(L, a->attr[i].f);
        else
            lua_pushstring(L, a->attr[i].s);
        lua_setfield(L, -2, attr->name);
    }
}

static void push_arrays(lua_State *L, const setun_view *v, const setun_port *port, uint32_t n, int writable)
{
    lua_createtable(L, 0, (int)n);
    for (uint32_t i = 0; i < n; i++) {
        array *x = lua_newuserdatauv(L, sizeof *x, 0);
        x->v = v[i];
        x->generation = st_bind_script(L)->generation;
        x->writable = writable;
        luaL_setmetatable(L, ARRAY);
        lua_setfield(L, -2, port[i].name);
    }
}

static int run_eval(lua_State *L)
{
    const job *j = lua_touserdata(L, 1);
    const setun_args *a = j->a;
    const setun_op *op = a->op;
    luaL_checkstack(L, (int)(a->n_in + a->n_out) + 10, "too many ports");
    lua_rawgeti(L, LUA_REGISTRYINDEX, j->so->ref);
    lua_getfield(L, -1, j->so->by_element ? "eval" : "eval_all");
    int fn = lua_gettop(L);
    st_bind_place(L);
    if (!j->so->by_element) {
        push_arrays(L, a->in, op->in, a->n_in, 0);
        push_arrays(L, a->out, op->out, a->n_out, 1);
        st_bind_push_attrs(L, a);
        lua_call(L, 3, 0);
        return 0;
    }
    st_bind_push_attrs(L, a);
    for (int64_t i = 0, n = setun_count(&a->out[0]); i < n; i++) {
        lua_pushvalue(L, fn);
        for (uint32_t k = 0; k < a->n_in; k++)
            push_element(L, &a->in[k], i);
        lua_pushvalue(L, fn + 1);
        lua_call(L, (int)a->n_in + 1, (int)a->n_out);
        for (uint32_t k = a->n_out; k-- > 0; lua_pop(L, 1))
            store_element(L, &a->out[k], i, op->out[k].name);
    }
    return 0;
}

static setun_status eval(const setun_args *a, setun_error *err)
{
    st_script_op *so = of(a);
    job j = { so, a };
    if (so->fill_error.text[0]) {
        if (err)
            *err = so->fill_error;
        so->fill_error.text[0] = 0;
        return SETUN_BAD_SCRIPT;
    }
    if (!so->s)
        return st_fail(err, SETUN_BAD_SCRIPT, "operator %s has only a Lua eval: it can be checked but not served",
                       a->op->name);
    so->s->callback++;
    setun_status s = st_bind_call(so->s, run_eval, &j, so->file, err);
    so->s->callback--;
    so->s->generation++;
    return s;
}

/* ---------------------------------------------------------------- fill */

typedef struct filling {
    st_script_op     *so;
    const setun_args *a;
    uint64_t          seed;
} filling;

/* fill(input, seed): input are arrays that hold numbers, of which the script replaces what it wants. */
static int run_fill(lua_State *L)
{
    const filling *f = lua_touserdata(L, 1);
    luaL_checkstack(L, (int)f->a->n_in + 10, "too many ports");
    lua_rawgeti(L, LUA_REGISTRYINDEX, f->so->ref);
    lua_getfield(L, -1, "fill");
    st_bind_place(L);
    push_arrays(L, f->a->in, f->a->op->in, f->a->n_in, 1);
    lua_pushinteger(L, (lua_Integer)(f->seed & INT64_MAX));
    st_bind_push_attrs(L, f->a);
    lua_call(L, 3, 0);
    return 0;
}

static void fill(const setun_args *a, uint64_t seed)
{
    st_script_op *so = of(a);
    filling f = { so, a, seed };
    if (!so->s)
        return; /* eval, which follows, says so */
    so->s->callback++;
    so->fill_error.text[0] = 0;
    (void)st_bind_call(so->s, run_fill, &f, so->file, &so->fill_error);
    so->s->callback--;
    so->s->generation++;
}

/* ---------------------------------------------------------------- infer */

/* A size is a number, or for one that is known only at run time a letter of the cases: "n" or "m". */
static void push_size(lua_State *L, int64_t size)
{
    if (size >= 0)
        lua_pushinteger(L, size);
    else
        lua_pushstring(L, size == SETUN_DIM_TOKENS ? "n" : "m");
}

static int64_t check_size(lua_State *L, const char *name)
{
    int whole;
    lua_Integer n = lua_tointegerx(L, -1, &whole);
    const char *text = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "";
    if (strcmp(text, "n") == 0 || strcmp(text, "m") == 0)
        return *text == 'n' ? SETUN_DIM_TOKENS : SETUN_DIM_OUTPUTS;
    if (!whole || n < 0)
        st_bind_fail(L, "infer gave output %s a dimension that is no size", name);
    return n;
}

/* What infer said about output o; the table of what it returned is at the top. */
static void take_dims(lua_State *L, setun_args *a, uint32_t o, const port_type *t)
{
    const char *name = a->op->out[o].name;
    if (lua_istable(L, -1))
        lua_getfield(L, -1, name);
    else
        lua_pushnil(L);
    if (lua_isnil(L, -1) && t->form[0].any)
        st_bind_fail(L, "infer must return the sizes of %s, such as { %s = {2, 3} }", name, name);
    if (!lua_isnil(L, -1)) {
        lua_Unsigned rank = lua_istable(L, -1) ? lua_rawlen(L, -1) : 0;
        if (rank < 1 || rank > SETUN_MAX_RANK)
            st_bind_fail(L, "infer must give output %s a list of 1 to %d sizes", name, (int)SETUN_MAX_RANK);
        if (!t->form[0].any)
            st_bind_fail(L, "the sizes of output %s are those of its type, %s, and not infer's to say", name, t->text);
        a->out[o].rank = (uint32_t)rank;
        for (uint32_t d = 0; d < rank; d++, lua_pop(L, 1)) {
            lua_rawgeti(L, -1, (lua_Integer)d + 1);
            a->out[o].dim[d] = check_size(L, name);
        }
    }
    lua_pop(L, 1);
}

typedef struct inferring {
    st_script_op *so;
    setun_args   *a;
} inferring;

/* infer(input, attributes): input.x.dims and input.x.type.  Refuses with error(). */
static int run_infer(lua_State *L)
{
    const inferring *j = lua_touserdata(L, 1);
    setun_args *a = j->a;
    luaL_checkstack(L, 16, "infer");
    lua_rawgeti(L, LUA_REGISTRYINDEX, j->so->ref);
    lua_getfield(L, -1, "infer");
    st_bind_place(L);
    lua_createtable(L, 0, (int)a->n_in);
    for (uint32_t i = 0; i < a->n_in; i++) {
        lua_createtable(L, 0, 2);
        lua_createtable(L, (int)a->in[i].rank, 0);
        for (uint32_t d = 0; d < a->in[i].rank; d++) {
            push_size(L, a->in[i].dim[d]);
            lua_rawseti(L, -2, (lua_Integer)d + 1);
        }
        lua_setfield(L, -2, "dims");
        lua_pushstring(L, st_dtype_name(a->in[i].dtype));
        lua_setfield(L, -2, "type");
        lua_setfield(L, -2, a->op->in[i].name);
    }
    st_bind_push_attrs(L, a);
    lua_call(L, 2, 1);
    for (uint32_t o = 0; o < a->n_out; o++)
        take_dims(L, a, o, &j->so->out[o]);
    return 0;
}

static setun_status infer(setun_args *a, setun_error *err)
{
    st_script_op *so = of(a);
    inferring j = { so, a };
    ST_TRY(st_bind_infer_schema(a, so, err));
    if (!so->has_infer)
        return SETUN_OK;
    if (!so->s)
        return st_fail(err, SETUN_BAD_SCRIPT, "operator %s: the script that knows its shapes is closed", a->op->name);
    so->s->callback++;
    setun_status s = st_bind_call(so->s, run_infer, &j, so->file, err);
    so->s->callback--;
    return s;
}

/* ---------------------------------------------------------------- setun.op */

static void *need(lua_State *L, int64_t n, size_t size)
{
    void *p = st_arena_array(st_bind_script(L)->arena, n ? n : 1, (int64_t)size);
    if (!p)
        st_bind_fail(L, "out of memory");
    return p;
}

static const char *keep(lua_State *L, const char *text)
{
    char *copy = st_arena_strdup(st_bind_script(L)->arena, text);
    if (!copy)
        st_bind_fail(L, "out of memory");
    return copy;
}

/* Entry i of a list of tables, pushed: { "x", "f32[...]", doc = "..." }. */
static void push_entry(lua_State *L, const char *op, const char *field, uint32_t i, const char *form)
{
    if (lua_rawgeti(L, -1, (lua_Integer)i + 1) != LUA_TTABLE)
        st_bind_fail(L, "setun.op %s: entry %d of %s is not %s", op, (int)i + 1, field, form);
}

/* The field of the table at the top, or NULL where it is missing. */
static const char *text_field(lua_State *L, const char *name)
{
    const char *text = lua_getfield(L, -1, name) == LUA_TNIL ? NULL : keep(L, st_bind_text(L, -1, name));
    lua_pop(L, 1);
    return text;
}

/* The port whose table is at the top. */
static void read_port(lua_State *L, const char *op, const char *field, const setun_port *in, uint32_t n_in, setun_port *port,
                      port_type *type)
{
    lua_rawgeti(L, -1, 1);
    port->name = keep(L, st_bind_text(L, -1, "a name"));
    lua_rawgeti(L, -2, 2);
    const char *text = keep(L, st_bind_text(L, -1, "a type"));
    lua_pop(L, 2);
    const char *doc = text_field(L, "doc"), *shares = text_field(L, "shares");
    port->doc = text;
    if (doc) {
        port->doc = keep(L, lua_pushfstring(L, "%s: %s", text, doc));
        lua_pop(L, 1);
    }
    if (!st_bind_parse_type(text, type, in, n_in))
        st_bind_fail(L, "setun.op %s: %s %s: '%s' is not a type such as f32[...] or f32[n,64]%s", op, field, port->name, text,
                     in ? " or like x" : "");
    for (uint32_t i = 0; shares && i < n_in && !port->shares; i++)
        port->shares = strcmp(shares, in[i].name) == 0 ? i + 1 : 0;
    if (shares && !port->shares)
        st_bind_fail(L, "setun.op %s: %s %s shares the memory of '%s', which is no input", op, field, port->name, shares);
}

/* Field `input` or `output` at the top of the stack: { x = "f32[...]" } with one entry, or a list
 * { {"x", "f32[...]"}, {"w", "f32[d]"} }.  Pops it. */
static uint32_t read_ports(lua_State *L, const char *op, const char *field, const setun_port *in, uint32_t n_in,
                           const setun_port **ports, port_type **types)
{
    uint32_t n = lua_istable(L, -1) ? (uint32_t)lua_rawlen(L, -1) : 0;
    if (!lua_istable(L, -1))
        st_bind_fail(L, "setun.op %s: %s is missing: { x = \"f32[...]\" }", op, field);
    if (n == 0) { /* into a list of one */
        lua_newtable(L);
        for (lua_pushnil(L); lua_next(L, -3); lua_pop(L, 1), n++) {
            lua_createtable(L, 2, 0);
            lua_pushvalue(L, -3);
            lua_rawseti(L, -2, 1);
            lua_pushvalue(L, -2);
            lua_rawseti(L, -2, 2);
            lua_rawseti(L, -4, 1);
        }
        lua_remove(L, -2);
        if (n != 1)
            st_bind_fail(L, "setun.op %s: %s has %d entries without an order; write a list of {name, type}", op,
                         field, (int)n);
    }
    if (n > ST_MAX_PORTS)
        st_bind_fail(L, "setun.op %s: %s has more than %d entries", op, field, (int)ST_MAX_PORTS);
    setun_port *port = need(L, n, sizeof *port);
    port_type *type = need(L, n, sizeof *type);
    for (uint32_t i = 0; i < n; i++) {
        push_entry(L, op, field, i, "{name, type}");
        read_port(L, op, field, in, n_in, &port[i], &type[i]);
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    *ports = port;
    *types = type;
    return n;
}

/* A letter in an output's type must be known from an input, and [...] from infer. */
static void check_outputs(lua_State *L, const st_script_op *so)
{
    for (uint32_t o = 0; o < so->op.n_out; o++) {
        const st_script_form *f = &so->out[o].form[0];
        int known = !f->any || so->has_infer;
        for (uint32_t d = 0; d < f->rank; d++)
            known &= f->dim[d] >= 0 || st_bind_knows_letter(so, f->dim[d]);
        if (!known)
            st_bind_fail(L, "setun.op %s: output %s: no input says what the letters of '%s' are%s", so->op.name,
                         so->op.out[o].name, so->out[o].text, f->any ? ", and there is no infer" : "");
        if (setun_block(f->dtype) > 1)
            st_bind_fail(L, "setun.op %s: output %s cannot be %s", so->op.name, so->op.out[o].name, st_dtype_name(f->dtype));
    }
}

/* The attribute whose default, or { "float", default = 1e-5, doc = "..." }, is at the top.  Without a default
 * it is required. */
static void read_attr(lua_State *L, const char *op, setun_attr *a)
{
    static const char *const kinds[] = { "int", "float", "string" };
    const char *doc = NULL;
    int described = lua_istable(L, -1), top = lua_gettop(L);
    if (described) {
        if (lua_rawgeti(L, -1, 1) != LUA_TSTRING)
            st_bind_fail(L, "setun.op %s: attribute %s is a table that does not begin with a type: {\"float\", default = 0.5}", op,
                         a->name);
        const char *kind = st_bind_text(L, -1, "an attribute's type");
        for (uint32_t i = 0; i < 3; i++)
            a->kind = strcmp(kind, kinds[i]) == 0 ? SETUN_ATTR_INT + i : a->kind;
        if (!a->kind)
            st_bind_fail(L, "setun.op %s: attribute %s: '%s' is not int, float or string", op, a->name, kind);
        lua_pop(L, 1);
        doc = text_field(L, "doc");
        lua_getfield(L, -1, "default");
        a->required = lua_isnil(L, -1);
    } else {
        lua_pushvalue(L, -1);
        a->kind = lua_isinteger(L, -1) ? SETUN_ATTR_INT : lua_type(L, -1) == LUA_TNUMBER ? SETUN_ATTR_FLOAT
                : lua_type(L, -1) == LUA_TSTRING ? SETUN_ATTR_STRING : 0;
    }
    if (a->required)
        a->doc = keep(L, doc ? doc : kinds[a->kind - SETUN_ATTR_INT]);
    else if (a->kind == SETUN_ATTR_INT && lua_isinteger(L, -1))
        a->fallback.i = lua_tointeger(L, -1);
    else if (a->kind == SETUN_ATTR_FLOAT && lua_type(L, -1) == LUA_TNUMBER)
        a->fallback.f = lua_tonumber(L, -1);
    else if (a->kind == SETUN_ATTR_STRING && lua_type(L, -1) == LUA_TSTRING)
        a->fallback.s = keep(L, st_bind_text(L, -1, "a default"));
    else
        st_bind_fail(L, "setun.op %s: the default of attribute %s is a %s, not %s", op, a->name, luaL_typename(L, -1),
                     described ? kinds[a->kind - SETUN_ATTR_INT] : "a number or string");
    if (!a->doc)
        a->doc = keep(L, lua_pushfstring(L, "%s, default %s", doc ? doc : luaL_typename(L, -1), luaL_tolstring(L, -1, NULL)));
    lua_settop(L, top);
}

/* Field `attr` at the top of the stack: name = default, or name = { type, default = ..., doc = ... }.  In order
 * of names.  Pops it. */
static uint32_t read_attrs(lua_State *L, const char *op, const setun_attr **attrs)
{
    uint32_t n = 0;
    if (lua_isnil(L, -1)) {
        lua_pop(L, 1);
        return 0;
    }
    setun_attr *attr = need(L, ST_MAX_ATTRS, sizeof *attr);
    for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
        setun_attr a = { NULL, NULL, 0, 0, { 0 } };
        uint32_t at = n;
        if (n == ST_MAX_ATTRS)
            st_bind_fail(L, "setun.op %s: more than %d attributes", op, (int)ST_MAX_ATTRS);
        a.name = keep(L, st_bind_text(L, -2, "an attribute's name"));
        read_attr(L, op, &a);
        for (; at > 0 && strcmp(attr[at - 1].name, a.name) > 0; at--)
            attr[at] = attr[at - 1];
        attr[at] = a;
        n++;
    }
    lua_pop(L, 1);
    *attrs = attr;
    return n;
}

/* Field `knobs` at the top of the stack: { {"prefetch", {4096, 8192}, doc = "..."} }.  Pops it. */
static uint32_t read_knobs(lua_State *L, const char *op, const setun_knob **knobs)
{
    uint32_t n = lua_istable(L, -1) ? (uint32_t)lua_rawlen(L, -1) : 0;
    setun_knob *knob = need(L, n, sizeof *knob);
    if (n > SETUN_MAX_KNOBS || (n == 0 && lua_istable(L, -1)))
        st_bind_fail(L, "setun.op %s: knobs must be a list of 1 to %d {name, values}", op, (int)SETUN_MAX_KNOBS);
    for (uint32_t i = 0; i < n; i++) {
        push_entry(L, op, "knobs", i, "{name, values}");
        lua_rawgeti(L, -1, 1);
        knob[i].name = keep(L, st_bind_text(L, -1, "a knob's name"));
        lua_pop(L, 1);
        const char *doc = text_field(L, "doc");
        knob[i].doc = doc ? doc : "";
        lua_rawgeti(L, -1, 2);
        knob[i].n_value = lua_istable(L, -1) && lua_rawlen(L, -1) <= 16 ? (uint32_t)lua_rawlen(L, -1) : 0;
        int64_t *value = need(L, knob[i].n_value, sizeof *value);
        for (uint32_t v = 0; v < knob[i].n_value; v++, lua_pop(L, 1)) {
            int whole;
            lua_rawgeti(L, -1, (lua_Integer)v + 1);
            value[v] = lua_tointegerx(L, -1, &whole);
            if (!whole || lua_type(L, -1) != LUA_TNUMBER)
                st_bind_fail(L, "setun.op %s: value %d of knob %s is not an integer", op, (int)v + 1, knob[i].name);
        }
        if (!knob[i].n_value)
            st_bind_fail(L, "setun.op %s: knob %s needs a list of 1 to 16 values", op, knob[i].name);
        knob[i].value = value;
        lua_pop(L, 2);
    }
    lua_pop(L, 1);
    *knobs = n ? knob : NULL;
    return n;
}

/* Field `cost` or `counted` at the top of the stack: { float_ops = "2*n*d" }, n sums.  Pops it. */
static void read_cost(lua_State *L, const st_script_op *so, const char *field, st_script_sum *sum, size_t n)
{
    static const char *const names[ST_N_COUNTED] = { "int_ops", "float_ops", "bytes", "rows", "row_bytes" };
    for (lua_pushnil(L); lua_istable(L, -2) && lua_next(L, -2); lua_pop(L, 1)) {
        const char *key = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : luaL_typename(L, -2);
        size_t i = 0;
        while (i < n && strcmp(names[i], key) != 0)
            i++;
        if (i == n)
            st_bind_fail(L, "setun.op %s: %s has no field '%s'; int_ops, float_ops%s are", so->op.name, field, key,
                         n == ST_N_COST ? " and bytes" : ", bytes, rows and row_bytes");
        const char *text = lua_type(L, -1) == LUA_TNUMBER || lua_type(L, -1) == LUA_TSTRING ? luaL_tolstring(L, -1, NULL) : "";
        if (!st_bind_parse_cost(text, so, n == ST_N_COUNTED, &sum[i]))
            st_bind_fail(L, "setun.op %s: %s '%s' is not a sum of products such as 2*n*d + #x, of numbers, letters of the "
                         "inputs' types, elements of inputs, row_bytes(w)%s", so->op.name, key, text, n == ST_N_COST ? "" :
                         ", and of f32 or i32 inputs sum(x), largest(x) and positive(x)");
        if (*text)
            lua_pop(L, 1);
    }
    lua_settop(L, 2);
}

static const char *const *read_cases(lua_State *L, const char *op)
{
    int64_t n = lua_istable(L, -1) ? (int64_t)lua_rawlen(L, -1) : 0;
    if (n < 1 || n > 1000)
        st_bind_fail(L, "setun.op %s: cases must be a list of shapes to check it on, such as \"x:f32[7]\"", op);
    const char **cases = need(L, n + 1, sizeof *cases);
    for (int64_t i = 0; i < n; i++) {
        lua_rawgeti(L, -1, i + 1);
        cases[i] = keep(L, st_bind_text(L, -1, "a case"));
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    return cases;
}

/* A field of the table at index 2, pushed: of this type, or nil if it need not be there. */
static int read_field(lua_State *L, const char *op, const char *field, int type, int required)
{
    int have = lua_getfield(L, 2, field);
    if (have != type && !(have == LUA_TNIL && !required))
        st_bind_fail(L, "setun.op %s: %s must be a %s, not %s", op, field, lua_typename(L, type),
                     have == LUA_TNIL ? "missing" : lua_typename(L, have));
    return have != LUA_TNIL;
}

static void read_callbacks(lua_State *L, st_script_op *so)
{
    const char *op = so->op.name;
    so->by_element = read_field(L, op, "eval", LUA_TFUNCTION, 0);
    int whole = read_field(L, op, "eval_all", LUA_TFUNCTION, 0);
    if (so->by_element + whole != 1)
        st_bind_fail(L, "setun.op %s: it needs an eval (one element at a time) or an eval_all (whole arrays)", op);
    if (read_field(L, op, "lower", LUA_TFUNCTION, 0))
        so->op.lower = st_bind_lower;
    for (uint32_t o = 0; so->by_element && o < so->op.n_out; o++)
        if (!so->out[o].like)
            st_bind_fail(L, "setun.op %s: with eval, output %s must be like an input; otherwise write eval_all", op,
                         so->op.out[o].name);
    if (so->by_element && so->op.n_in == 0)
        st_bind_fail(L, "setun.op %s: eval needs an input", op);
    if (read_field(L, op, "fill", LUA_TFUNCTION, 0))
        so->op.fill = fill;
    lua_settop(L, 2);
}

/* upvalue 1: the name; argument 1: the table */
static int define(lua_State *L)
{
    static const char *const fields[] = { "attr", "cases", "cost", "counted", "doc", "eval", "eval_all", "fill", "infer", "input",
                                          "knobs", "lower", "output", "tolerance", "version" };
    st_script *s = st_bind_script(L);
    const char *name = lua_tostring(L, lua_upvalueindex(1));
    setun_error err;
    lua_settop(L, 1);
    st_bind_no_callback(L, "setun.op");
    if (!lua_istable(L, 1) || lua_getmetatable(L, 1))
        return st_bind_fail(L, "setun.op \"%s\" wants a table", name);
    lua_newtable(L); /* 2: a copy, which the script cannot change afterwards */
    for (lua_pushnil(L); lua_next(L, 1); lua_pop(L, 1)) {
        const char *key = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : luaL_typename(L, -2);
        size_t i = 0;
        while (i < SETUN_LEN(fields) && strcmp(key, fields[i]) != 0)
            i++;
        if (i == SETUN_LEN(fields))
            return st_bind_fail(L, "setun.op %s: there is no field '%s'", name, key);
        lua_pushvalue(L, -1);
        lua_setfield(L, 2, fields[i]);
    }
    if (++s->n_ops > MAX_OPS)
        return st_bind_fail(L, "setun.op %s: more than %d operators", name, MAX_OPS);
    st_bind_charge(L, 0);
    st_script_op *so = need(L, 1, sizeof *so);
    setun_op *op = &so->op;
    op->size = sizeof *op;
    op->name = keep(L, name);
    so->file = keep(L, s->file);
    op->infer = infer;
    op->eval = eval;
    read_field(L, name, "doc", LUA_TSTRING, 1);
    op->doc = keep(L, st_bind_text(L, -1, "doc"));
    read_field(L, name, "input", LUA_TTABLE, 1);
    op->n_in = read_ports(L, name, "input", NULL, 0, &op->in, &so->in);
    read_field(L, name, "output", LUA_TTABLE, 1);
    op->n_out = read_ports(L, name, "output", op->in, op->n_in, &op->out, &so->out);
    so->has_infer = read_field(L, name, "infer", LUA_TFUNCTION, 0);
    check_outputs(L, so);
    read_field(L, name, "attr", LUA_TTABLE, 0);
    op->n_attr = read_attrs(L, name, &op->attr);
    read_field(L, name, "knobs", LUA_TTABLE, 0);
    op->n_knob = read_knobs(L, name, &op->knob);
    if (read_field(L, name, "cost", LUA_TTABLE, 0))
        op->cost = st_bind_cost;
    read_cost(L, so, "cost", so->cost, ST_N_COST);
    if (read_field(L, name, "counted", LUA_TTABLE, 0))
        op->counted = st_bind_counted;
    read_cost(L, so, "counted", so->counted, ST_N_COUNTED);
    read_callbacks(L, so);
    read_field(L, name, "cases", LUA_TTABLE, 1);
    op->cases = read_cases(L, name);
    op->tolerance = read_field(L, name, "tolerance", LUA_TNUMBER, 0) ? lua_tonumber(L, -1) : 0.0;
    op->version = 1;
    if (read_field(L, name, "version", LUA_TNUMBER, 0)) {
        lua_Integer v = lua_tointeger(L, -1);
        if (v < 1 || v > INT32_MAX)
            return st_bind_fail(L, "setun.op %s: version must be an integer from 1 on", name);
        op->version = (uint32_t)v;
    }
    lua_settop(L, 2);
    so->ref = luaL_ref(L, LUA_REGISTRYINDEX);
    so->s = s;
    so->next = s->ops;
    s->ops = so;
    if (st_registry_add(s->registry, op, so->file, &err) != SETUN_OK)
        return st_bind_fail(L, "setun.op %s: %s", name, err.text);
    lua_pushstring(L, name);
    return 1;
}

/* setun.op "name" { ... } */
static int l_op(lua_State *L)
{
    st_bind_text(L, 1, "an operator's name");
    lua_settop(L, 1);
    lua_pushcclosure(L, define, 1);
    return 1;
}

/* upvalue 1: which of setun.f32, exp, log; of x rounded to f32 */
static int l_function(lua_State *L)
{
    static const char *const names[] = { "f32", "exp", "log" };
    lua_Integer which = lua_tointeger(L, lua_upvalueindex(1));
    if (lua_type(L, 1) != LUA_TNUMBER)
        return st_bind_fail(L, "setun.%s wants a number, not %s", names[which], luaL_typename(L, 1));
    float x = (float)lua_tonumber(L, 1);
    lua_pushnumber(L, (double)(which == 0 ? x : which == 1 ? setun_expf(x) : setun_logf(x)));
    return 1;
}

/* setun.gumbel(key0, key1, i), the twin of k:gumbel */
static int l_gumbel(lua_State *L)
{
    uint32_t x[3];
    for (int i = 0; i < 3; i++) {
        int whole;
        lua_Integer n = lua_tointegerx(L, i + 1, &whole);
        if (!whole || n < INT32_MIN || n > UINT32_MAX)
            return st_bind_fail(L, "setun.gumbel wants three integers of 32 bits");
        x[i] = (uint32_t)n;
    }
    lua_pushnumber(L, (double)setun_gumbel(x[0], x[1], x[2]));
    return 1;
}

/* setun.tree32 { 32 partial sums }: their sum, in the order that k:dot32 and k:rsum have */
static int l_tree32(lua_State *L)
{
    float p[32];
    if (!lua_istable(L, 1) || lua_rawlen(L, 1) != 32)
        return st_bind_fail(L, "setun.tree32 wants a list of 32 numbers");
    for (int i = 0; i < 32; i++, lua_pop(L, 1)) {
        if (lua_rawgeti(L, 1, i + 1) != LUA_TNUMBER)
            return st_bind_fail(L, "setun.tree32: entry %d is a %s", i + 1, luaL_typename(L, -1));
        p[i] = (float)lua_tonumber(L, -1);
    }
    lua_pushnumber(L, (double)setun_tree32(p));
    return 1;
}

void st_bind_op_close(st_script *s)
{
    for (st_script_op *so = s->ops; so; so = so->next)
        so->s = NULL;
}

void st_bind_op_open(lua_State *L)
{
    static const luaL_Reg none[] = { { NULL, NULL } };
    static const luaL_Reg arrays[] = { { "__newindex", array_newindex }, { "__len", array_len }, { NULL, NULL } };
    static const luaL_Reg own[] = { { "gumbel", l_gumbel }, { "op", l_op }, { "tree32", l_tree32 }, { NULL, NULL } };
    static const char *const functions[] = { "f32", "exp", "log" };
    st_bind_class(L, ARRAY, none, array_index);
    luaL_getmetatable(L, ARRAY);
    luaL_setfuncs(L, arrays, 0);
    lua_pop(L, 1);
    luaL_setfuncs(L, own, 0);
    for (size_t i = 0; i < SETUN_LEN(functions); i++) {
        lua_pushinteger(L, (lua_Integer)i);
        lua_pushcclosure(L, l_function, 1);
        lua_setfield(L, -2, functions[i]);
    }
}
