/* scripts/bind_quantizer.c -- setun.quantizer: how activations are rounded before they meet ternary weights.
 *
 *     return setun.quantizer "topk" {
 *       doc = "...", source = "arXiv ...",
 *       value = { default = 0.5, from = 0.001, to = 1, means = "share of a row that is kept" },
 *       apply = function(g, x, value, name) ... end,
 *     }
 *
 * apply gets a graph, rows of floats, the value and the name of the weight that they will be multiplied with.  It gives
 * q, scale and sum, as quantize_i8 does, for exact sums of integers; or floats of the same shape, and then the
 * declaration says floats = true.  Library code asks for it with g:quantize (bind_graph.c), so that the model's own
 * quantiser can be swapped from outside.  Not here: what is the model's own, which runtime/quantizer.c knows. */
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "scripts/bind.h"

#define QUANTIZER "setun.quantizer"
#define CHOSEN "setun.quantizer.chosen" /* registry: the definition that g:quantize uses */

typedef struct definition { /* a userdata; user value 1: apply */
    const char *name, *doc, *source, *means; /* in the arena */
    int         has_value, whole, floats;
    double      fallback, from, to;
} definition;

static const char *keep(lua_State *L, const char *text)
{
    const char *copy = st_arena_strdup(st_bind_script(L)->arena, text);
    if (!copy)
        st_bind_fail(L, "out of memory");
    return copy;
}

/* ---------------------------------------------------------------- declaring one */

/* No key of the table at index i but these. */
static void check_keys(lua_State *L, int i, const char *what, const char *const *known, size_t n)
{
    for (lua_pushnil(L); lua_next(L, i); lua_pop(L, 1)) {
        const char *key = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : luaL_typename(L, -2);
        size_t k = 0;
        while (k < n && strcmp(key, known[k]) != 0)
            k++;
        if (k == n)
            st_bind_fail(L, "%s has no field '%s'", what, key);
    }
}

static double number(lua_State *L, int i, const char *name, const char *key)
{
    if (lua_getfield(L, i, key) != LUA_TNUMBER)
        st_bind_fail(L, "quantizer %s: value.%s must be a number", name, key);
    double v = lua_tonumber(L, -1);
    lua_pop(L, 1);
    return v;
}

static int is_value(const definition *d, double v)
{
    return v >= d->from && v <= d->to && (!d->whole || v == (double)(int64_t)v);
}

/* value = { default = 64, from = 1, to = 4096, whole = true, means = "..." } at the top of the stack. */
static void read_value(lua_State *L, definition *d)
{
    static const char *const known[] = { "default", "from", "means", "to", "whole" };
    int i = lua_gettop(L);
    d->has_value = 1;
    check_keys(L, i, "value of a quantizer", known, SETUN_LEN(known));
    d->fallback = number(L, i, d->name, "default");
    d->from = number(L, i, d->name, "from");
    d->to = number(L, i, d->name, "to");
    lua_getfield(L, i, "whole");
    d->whole = lua_toboolean(L, -1);
    lua_getfield(L, i, "means");
    d->means = keep(L, st_bind_text(L, -1, "value.means"));
    if (!(d->from <= d->to && d->from >= -1e15 && d->to <= 1e15) || !is_value(d, d->fallback))
        st_bind_fail(L, "quantizer %s: value.default must be what value.from, to and whole allow", d->name);
    lua_settop(L, i);
}

/* Names stand on command lines and in messages. */
static int is_name(const char *name, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!((name[i] >= 'a' && name[i] <= 'z') || (name[i] >= '0' && name[i] <= '9') || (i && strchr("-._", name[i]))))
            return 0;
    return n > 0 && n <= 40;
}

/* upvalue 1: the name; argument 1: the table */
static int define(lua_State *L)
{
    static const char *const known[] = { "apply", "doc", "floats", "source", "value" };
    const char *name = lua_tostring(L, lua_upvalueindex(1));
    lua_settop(L, 1);
    st_bind_no_callback(L, "setun.quantizer");
    if (!lua_istable(L, 1) || lua_getmetatable(L, 1))
        return st_bind_fail(L, "setun.quantizer \"%s\" wants a table", name);
    check_keys(L, 1, "a quantizer", known, SETUN_LEN(known));
    st_bind_charge(L, 0);
    definition *d = lua_newuserdatauv(L, sizeof *d, 1);
    memset(d, 0, sizeof *d);
    d->name = keep(L, name);
    lua_getfield(L, 1, "doc");
    d->doc = keep(L, st_bind_text(L, -1, "doc"));
    d->source = lua_getfield(L, 1, "source") == LUA_TNIL ? "" : keep(L, st_bind_text(L, -1, "source"));
    lua_getfield(L, 1, "floats");
    d->floats = lua_toboolean(L, -1);
    int type = lua_getfield(L, 1, "value");
    if (type == LUA_TTABLE)
        read_value(L, d);
    else if (type != LUA_TNIL)
        return st_bind_fail(L, "quantizer %s: value is a table such as { default = 64, from = 1, to = 4096, means = \"...\" }", name);
    lua_settop(L, 2);
    if (lua_getfield(L, 1, "apply") != LUA_TFUNCTION)
        return st_bind_fail(L, "quantizer %s: apply must be a function of g, x, value and name", name);
    lua_setiuservalue(L, 2, 1);
    luaL_setmetatable(L, QUANTIZER);
    return 1;
}

/* setun.quantizer "name" { ... } */
static int l_quantizer(lua_State *L)
{
    const char *name = st_bind_text(L, 1, "a quantizer's name");
    if (!is_name(name, strlen(name)))
        return st_bind_fail(L, "a quantizer's name is of lower case letters, digits, - . and _, and '%s' is not", name);
    lua_settop(L, 1);
    lua_pushcclosure(L, define, 1);
    return 1;
}

/* ---------------------------------------------------------------- choosing one */

/* "int4, int8, ...": what lib_dir has, in the arena. */
static const char *list_names(const st_script *s)
{
    char **names, *text = "";
    int64_t n;
    setun_error err;
    const char *dir = st_arena_printf(s->arena, "%s/quantizers", s->lib_dir);
    if (!dir || st_dir_list(dir, &names, &n, &err) != SETUN_OK)
        return "none";
    for (int64_t i = 0; text && i < n; i++) {
        size_t len = strlen(names[i]);
        if (len > 4 && strcmp(names[i] + len - 4, ".lua") == 0)
            text = st_arena_printf(s->arena, "%s%s%.*s", text, *text ? ", " : "", (int)len - 4, names[i]);
    }
    st_dir_free(names, n);
    return text && *text ? text : "none";
}

/* The file of a name, and what is behind its = sign or NULL: NAME, NAME=VALUE, FILE.lua, FILE.lua=VALUE.  Only who runs
 * the program may name a file. */
static const char *find_file(lua_State *L, const char *spec, int may_name_file, const char **value)
{
    const st_script *s = st_bind_script(L);
    const char *dot = strstr(spec, ".lua"), *end = dot && (dot[4] == 0 || dot[4] == '=') ? dot + 4 : NULL;
    const char *sign = end ? end : strchr(spec, '='), *path;
    int64_t bytes, time;
    size_t n = sign ? (size_t)(sign - spec) : strlen(spec);
    *value = sign && *sign == '=' ? sign + 1 : NULL;
    if (end && !may_name_file)
        st_bind_fail(L, "a script chooses a quantizer by name, or declares one with setun.quantizer, and no file: %s", spec);
    if (end)
        path = st_arena_strndup(s->arena, spec, n);
    else if (!is_name(spec, n))
        path = NULL;
    else
        path = st_arena_printf(s->arena, "%s/quantizers/%.*s.lua", s->lib_dir, (int)n, spec);
    if (!path || (!end && st_file_stat(path, &bytes, &time, NULL) != SETUN_OK))
        st_bind_fail(L, "there is no quantizer '%s'; there are %s, and FILE.lua for one of your own", lua_pushlstring(L, spec, n),
                     list_names(s));
    return path;
}

/* The value that text says, or the default. */
static double read_text(lua_State *L, const definition *d, const char *text)
{
    char range[80];
    double v = d->fallback;
    if (!text)
        return v;
    if (!d->has_value)
        st_bind_fail(L, "the quantizer %s takes no value, so '=%s' must go", d->name, text);
    int is_number = lua_stringtonumber(L, text) != 0;
    if (is_number) {
        v = lua_tonumber(L, -1);
        lua_pop(L, 1);
    }
    (void)snprintf(range, sizeof range, "%s from %.14g to %.14g", d->whole ? "whole number" : "number", d->from, d->to);
    if (!is_number || !is_value(d, v))
        st_bind_fail(L, "the quantizer %s=%s: %s must be a %s", d->name, text, d->means, range);
    return v;
}

/* The definition at the top with the value that text says. */
static st_script_quantizer *make(lua_State *L, const char *text)
{
    st_script *s = st_bind_script(L);
    const definition *d = lua_touserdata(L, -1);
    st_script_quantizer *q = st_arena_alloc(s->arena, sizeof *q);
    char value[40];
    if (!q)
        st_bind_fail(L, "out of memory");
    *q = (st_script_quantizer){ .name = d->name, .doc = d->doc, .source = d->source, .floats = d->floats, .whole = d->whole };
    q->value = read_text(L, d, text);
    if (d->has_value) {
        (void)snprintf(value, sizeof value, "%.14g", q->value);
        q->name = keep(L, lua_pushfstring(L, "%s=%s", d->name, value));
        lua_pop(L, 1);
    }
    return q;
}

const char *st_bind_quantizer_use(lua_State *L, int i, int from_outside)
{
    st_script *s = st_bind_script(L);
    const char *value = NULL;
    if (luaL_testudata(L, i, QUANTIZER)) {
        lua_pushvalue(L, i);
    } else {
        const char *path = find_file(L, st_bind_text(L, i, "a quantizer's name"), from_outside, &value), *slash = strrchr(path, '/');
        st_bind_file(L, path, lua_pushfstring(L, "=%s", slash ? slash + 1 : path));
        if (!luaL_testudata(L, -1, QUANTIZER))
            st_bind_fail(L, "%s: a quantizer's file ends with return setun.quantizer \"name\" {...}", slash ? slash + 1 : path);
    }
    st_script_quantizer *q = make(L, value);
    if (from_outside || !s->quantizer) {
        lua_setfield(L, LUA_REGISTRYINDEX, CHOSEN);
        s->quantizer = q;
    }
    lua_settop(L, i);
    return q->name;
}

static int choose(lua_State *L)
{
    const char *spec = lua_touserdata(L, 1);
    lua_pushstring(L, spec);
    (void)st_bind_quantizer_use(L, 2, 1);
    return 0;
}

setun_status st_script_quantizer_choose(st_script *s, const char *spec, setun_error *err)
{
    char *copy = st_arena_strdup(s->arena, spec);
    return copy ? st_bind_call(s, choose, copy, "--quantizer", err) : st_fail(err, SETUN_NO_MEMORY, "no memory for a name");
}

const st_script_quantizer *st_script_quantizer_chosen(const st_script *s)
{
    return s->quantizer;
}

/* ---------------------------------------------------------------- using it */

int st_bind_quantizer_apply(lua_State *L, int graph, int x, const char *name)
{
    st_script *s = st_bind_script(L);
    st_script_quantizer *q = s->quantizer;
    int base = lua_gettop(L);
    if (s->quantizing)
        return st_bind_fail(L, "a quantizer cannot ask for itself: call operators in apply, not g:quantize");
    luaL_checkstack(L, 12, "too many results");
    lua_getfield(L, LUA_REGISTRYINDEX, CHOSEN);
    const definition *d = lua_touserdata(L, -1);
    lua_getiuservalue(L, -1, 1);
    lua_pushvalue(L, graph);
    lua_pushvalue(L, x);
    if (!d->has_value)
        lua_pushnil(L);
    else if (q->whole)
        lua_pushinteger(L, (lua_Integer)q->value);
    else
        lua_pushnumber(L, q->value);
    lua_pushstring(L, name);
    s->quantizing = 1; /* caught only so that it ends in any case; the error goes on */
    int status = lua_pcall(L, 4, LUA_MULTRET, 0);
    s->quantizing = 0;
    if (status != LUA_OK)
        return lua_error(L);
    q->used++;
    lua_remove(L, base + 1);
    return lua_gettop(L) - base;
}

void st_bind_quantizer_open(lua_State *L)
{
    static const luaL_Reg none[] = { { NULL, NULL } };
    static const luaL_Reg own[] = { { "quantizer", l_quantizer }, { NULL, NULL } };
    st_bind_class(L, QUANTIZER, none, NULL);
    luaL_setfuncs(L, own, 0);
}
