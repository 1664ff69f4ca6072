/* scripts/bind_op.c -- setun.op: an operator written in a script.
 *
 * The script's table becomes a setun_op as any file in ops/ defines one.  infer needs no Lua: the
 * schema says it all ("f32[n,h]", "like x").  eval, here, and lower (bind_kernel.c) call back into
 * the state, so they work while the script is open; afterwards they fail with a sentence.
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
#define MAX_LETTERS 26

/* "f32[...]", "f32[n,256]", "like x", "i8 like x" */
struct st_script_port {
    uint32_t dtype;    /* 0: that of the input `like` */
    int32_t  like;     /* 1 + index of an input, or 0 */
    int32_t  any;      /* [...]: any rank */
    uint32_t rank;
    int64_t  dim[SETUN_MAX_RANK]; /* a size, or -1 - letter */
};
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

/* ---------------------------------------------------------------- types */

static const char *parse_dims(const char *p, port_type *t)
{
    if (strncmp(p, "[...]", 5) == 0) {
        t->any = 1;
        return p + 5;
    }
    if (*p++ != '[')
        return NULL;
    while (*p != ']') {
        int64_t d = 0;
        if (t->rank == SETUN_MAX_RANK || (t->rank && *p++ != ','))
            return NULL;
        if (*p >= 'a' && *p <= 'z') {
            d = -1 - (*p++ - 'a');
        } else {
            if (*p < '0' || *p > '9')
                return NULL;
            while (*p >= '0' && *p <= '9' && d < INT32_MAX)
                d = 10 * d + (*p++ - '0');
        }
        t->dim[t->rank++] = d;
    }
    return p + 1;
}

/* Returns 0 when text is not a type of this form; an output may be like an input. */
static int parse_type(const char *text, port_type *t, const setun_port *in, uint32_t n_in)
{
    size_t n = strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789");
    memset(t, 0, sizeof *t);
    if (strncmp(text, "like ", 5) != 0) {
        t->dtype = st_dtype_find(text, n);
        if (!t->dtype)
            return 0;
        text += n;
        text += *text == ' ';
    }
    if (strncmp(text, "like ", 5) == 0 && in) {
        for (uint32_t i = 0; i < n_in; i++)
            if (strcmp(text + 5, in[i].name) == 0)
                t->like = 1 + (int32_t)i;
        return t->like != 0;
    }
    const char *end = parse_dims(text, t);
    return end && *end == 0;
}

static setun_status match(const setun_args *a, uint32_t i, const port_type *t, int64_t *letter, uint8_t *bound,
                          setun_error *err)
{
    const setun_view *v = &a->in[i];
    setun_text text;
    if (v->dtype != t->dtype)
        return setun_fail(err, SETUN_BAD_SHAPE, "%s is %s, wants %s", a->op->in[i].name, setun_view_text(v, &text),
                          a->op->in[i].doc);
    for (uint32_t d = 1; d < v->rank; d++)
        if (v->dim[d] < 1)
            return setun_fail(err, SETUN_BAD_SHAPE, "%s is %s; dimension %u must be at least 1", a->op->in[i].name,
                              setun_view_text(v, &text), d);
    if (t->any)
        return SETUN_OK;
    int fits = v->rank == t->rank;
    for (uint32_t d = 0; fits && d < t->rank; d++) {
        int64_t want = t->dim[d];
        if (want < 0) {
            int64_t l = -1 - want;
            fits = !bound[l] || letter[l] == v->dim[d];
            bound[l] = 1;
            letter[l] = v->dim[d];
        } else {
            fits = want == v->dim[d];
        }
    }
    if (fits)
        return SETUN_OK;
    return setun_fail(err, SETUN_BAD_SHAPE, "%s is %s, which does not fit %s of %s", a->op->in[i].name,
                      setun_view_text(v, &text), a->op->in[i].doc, a->op->name);
}

static setun_status infer(setun_args *a, setun_error *err)
{
    const st_script_op *so = of(a);
    int64_t letter[MAX_LETTERS] = { 0 };
    uint8_t bound[MAX_LETTERS] = { 0 };
    for (uint32_t i = 0; i < a->n_in; i++) {
        ST_TRY(match(a, i, &so->in[i], letter, bound, err));
        for (uint32_t d = 0; so->by_element && d < SETUN_MAX_RANK; d++)
            if (a->in[i].rank != a->in[0].rank || a->in[i].dim[d] != a->in[0].dim[d])
                return setun_fail(err, SETUN_BAD_SHAPE, "%s and %s have different shapes, but eval takes one "
                                  "element of each", a->op->in[0].name, a->op->in[i].name);
    }
    for (uint32_t o = 0; o < a->n_out; o++) {
        const port_type *t = &so->out[o];
        setun_view *v = &a->out[o];
        if (t->like) {
            *v = a->in[t->like - 1];
            v->data = NULL;
            v->dtype = t->dtype ? t->dtype : v->dtype;
            continue;
        }
        v->dtype = t->dtype;
        v->rank = t->rank;
        for (uint32_t d = 0; d < SETUN_MAX_RANK; d++)
            v->dim[d] = d >= t->rank ? 1 : t->dim[d] < 0 ? letter[-1 - t->dim[d]] : t->dim[d];
    }
    return SETUN_OK;
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

/* The number at the top of the stack becomes element i; it stays on the stack. */
static void store_element(lua_State *L, const setun_view *v, int64_t i, const char *name)
{
    static const struct { int64_t low, high; } range[] = {
        [SETUN_I8] = { INT8_MIN, INT8_MAX },    [SETUN_U8] = { 0, UINT8_MAX },
        [SETUN_I16] = { INT16_MIN, INT16_MAX }, [SETUN_I32] = { INT32_MIN, INT32_MAX },
        [SETUN_I64] = { INT64_MIN, INT64_MAX },
    };
    int whole = 0;
    if (lua_type(L, -1) != LUA_TNUMBER)
        st_bind_fail(L, "eval gave a %s for %s, not a number", luaL_typename(L, -1), name);
    if (v->dtype == SETUN_F32 || v->dtype == SETUN_F16 || v->dtype == SETUN_BF16) {
        setun_put_f32(v, i, (float)lua_tonumber(L, -1));
        return;
    }
    int64_t n = lua_tointegerx(L, -1, &whole);
    if (setun_block(v->dtype) > 1 || !whole || n < range[v->dtype].low || n > range[v->dtype].high)
        st_bind_fail(L, "eval gave %s for %s, which is no %s", lua_tostring(L, -1), name, st_dtype_name(v->dtype));
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
    store_element(L, &x->v, i, "an output");
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
    if (!so->s)
        return st_fail(err, SETUN_BAD_SCRIPT, "operator %s has only a Lua eval: it can be checked but not served",
                       a->op->name);
    so->s->callback++;
    setun_status s = st_bind_call(so->s, run_eval, &j, so->file, err);
    so->s->callback--;
    so->s->generation++;
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

/* Field `input` or `output` at the top of the stack: { x = "f32[...]" } with one entry, or a list
 * { {"x", "f32[...]"}, {"w", "f32[d]"} }.  Pops it. */
static uint32_t read_ports(lua_State *L, const char *op, const char *field, const setun_port *in, uint32_t n_in,
                           const setun_port **ports, port_type **types)
{
    uint32_t n = lua_istable(L, -1) ? (uint32_t)lua_rawlen(L, -1) : 0;
    int list = n > 0;
    if (!lua_istable(L, -1))
        st_bind_fail(L, "setun.op %s: %s is missing: { x = \"f32[...]\" }", op, field);
    if (!list) {
        for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1))
            n++;
        if (n != 1)
            st_bind_fail(L, "setun.op %s: %s has %d entries without an order; write a list of {name, type}", op,
                         field, (int)n);
    }
    if (n > ST_MAX_PORTS)
        st_bind_fail(L, "setun.op %s: %s has more than %d entries", op, field, (int)ST_MAX_PORTS);
    setun_port *port = need(L, n, sizeof *port);
    port_type *type = need(L, n, sizeof *type);
    for (uint32_t i = 0; i < n; i++) {
        if (list) {
            if (lua_rawgeti(L, -1, (lua_Integer)i + 1) != LUA_TTABLE)
                st_bind_fail(L, "setun.op %s: entry %d of %s is not {name, type}", op, (int)i + 1, field);
            lua_rawgeti(L, -1, 1);
            lua_rawgeti(L, -2, 2);
            lua_remove(L, -3);
        } else {
            lua_pushnil(L);
            lua_next(L, -2);
        }
        port[i].name = keep(L, st_bind_text(L, -2, "a name"));
        port[i].doc = keep(L, st_bind_text(L, -1, "a type"));
        lua_pop(L, 2);
        if (!parse_type(port[i].doc, &type[i], in, n_in) || (in && type[i].any))
            st_bind_fail(L, "setun.op %s: %s %s: '%s' is not a type such as f32[...] or f32[n,64]%s", op, field,
                         port[i].name, port[i].doc, in ? " or like x" : "");
    }
    lua_pop(L, 1);
    *ports = port;
    *types = type;
    return n;
}

/* A letter in an output's type must be known from an input. */
static void check_letters(lua_State *L, const st_script_op *so)
{
    for (uint32_t o = 0; o < so->op.n_out; o++)
        for (uint32_t d = 0; d < so->out[o].rank; d++) {
            int known = so->out[o].dim[d] >= 0;
            for (uint32_t i = 0; i < so->op.n_in; i++)
                for (uint32_t e = 0; e < so->in[i].rank; e++)
                    known |= so->in[i].dim[e] == so->out[o].dim[d];
            if (!known)
                st_bind_fail(L, "setun.op %s: output %s: no input says what the letters of '%s' are", so->op.name,
                             so->op.out[o].name, so->op.out[o].doc);
        }
}

/* Field `attr` at the top of the stack: name = default.  In order of names; the default's type is the
 * attribute's.  Pops it. */
static uint32_t read_attrs(lua_State *L, const char *op, const setun_attr **attrs)
{
    uint32_t n = 0;
    if (lua_isnil(L, -1)) {
        lua_pop(L, 1);
        return 0;
    }
    if (!lua_istable(L, -1))
        st_bind_fail(L, "setun.op %s: attr must be a table of defaults: { cap = 6.0 }", op);
    setun_attr *attr = need(L, ST_MAX_ATTRS, sizeof *attr);
    for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
        setun_attr a = { NULL, "", 0, 0, { 0 } };
        uint32_t at = n;
        if (n == ST_MAX_ATTRS)
            st_bind_fail(L, "setun.op %s: more than %d attributes", op, (int)ST_MAX_ATTRS);
        a.name = keep(L, st_bind_text(L, -2, "an attribute's name"));
        a.doc = keep(L, lua_pushfstring(L, "%s, default %s", luaL_typename(L, -1), luaL_tolstring(L, -1, NULL)));
        lua_pop(L, 2);
        if (lua_isinteger(L, -1)) {
            a.kind = SETUN_ATTR_INT;
            a.fallback.i = lua_tointeger(L, -1);
        } else if (lua_type(L, -1) == LUA_TNUMBER) {
            a.kind = SETUN_ATTR_FLOAT;
            a.fallback.f = lua_tonumber(L, -1);
        } else if (lua_type(L, -1) == LUA_TSTRING) {
            a.kind = SETUN_ATTR_STRING;
            a.fallback.s = keep(L, st_bind_text(L, -1, "a default"));
        } else {
            st_bind_fail(L, "setun.op %s: the default of attribute %s is a %s, not a number or string", op, a.name,
                         luaL_typename(L, -1));
        }
        for (; at > 0 && strcmp(attr[at - 1].name, a.name) > 0; at--)
            attr[at] = attr[at - 1];
        attr[at] = a;
        n++;
    }
    lua_pop(L, 1);
    *attrs = attr;
    return n;
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
    for (uint32_t o = 0; o < so->op.n_out; o++)
        if (setun_block(so->out[o].dtype) > 1)
            st_bind_fail(L, "setun.op %s: output %s cannot be %s", op, so->op.out[o].name,
                         st_dtype_name(so->out[o].dtype));
    lua_pop(L, 3);
}

/* upvalue 1: the name; argument 1: the table */
static int define(lua_State *L)
{
    static const char *const fields[] = { "attr", "cases", "doc", "eval", "eval_all", "input", "lower", "output",
                                          "tolerance", "version" };
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
    check_letters(L, so);
    read_field(L, name, "attr", LUA_TTABLE, 0);
    op->n_attr = read_attrs(L, name, &op->attr);
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

/* setun.f32(x): x rounded to f32 */
static int l_f32(lua_State *L)
{
    if (lua_type(L, 1) != LUA_TNUMBER)
        return st_bind_fail(L, "setun.f32 wants a number, not %s", luaL_typename(L, 1));
    lua_pushnumber(L, (double)(float)lua_tonumber(L, 1));
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
    static const luaL_Reg own[] = { { "f32", l_f32 }, { "op", l_op }, { NULL, NULL } };
    st_bind_class(L, ARRAY, none, array_index);
    luaL_getmetatable(L, ARRAY);
    luaL_setfuncs(L, arrays, 0);
    lua_pop(L, 1);
    luaL_setfuncs(L, own, 0);
}
