/* scripts/bind_console.c -- Lua for somebody at a console: one input at a time, and tensor(name).
 *
 * Not here: which model is asked (the caller of st_script_console).  Inputs see the world of scripts, with its limits;
 * unlike a file's, their global variables stay for the next input. */
#include <string.h>

#include "base/error.h"
#include "scripts/bind.h"

#define TENSOR "setun.tensor"
#define CHUNK "=console.lua" /* so that messages begin with a place */

typedef struct st_held {
    setun_tensor     *t;
    setun_tensor_info info;  /* size 0: not asked for yet */
} st_held;

static setun_tensor *held(lua_State *L)
{
    st_held *h = luaL_checkudata(L, 1, TENSOR);
    if (!h->t)
        st_bind_fail(L, "the tensor is gone");
    return h->t;
}

/* tensor "blk.0.attn_q" */
static int l_tensor(lua_State *L)
{
    const st_console *c = st_bind_script(L)->console;
    const char *name = st_bind_text(L, 1, "a tensor's name");
    st_held *h = lua_newuserdatauv(L, sizeof *h, 0);
    setun_error err;
    memset(h, 0, sizeof *h);
    luaL_setmetatable(L, TENSOR); /* from here on the collector lets go of it */
    int64_t since = st_bind_pause(st_bind_script(L));
    setun_status s = c->get(c->user, name, &h->t, &err);
    st_bind_resume(st_bind_script(L), since);
    return s == SETUN_OK ? 1 : st_bind_error(L, &err);
}

static int tensor_gc(lua_State *L)
{
    st_held *h = lua_touserdata(L, 1);
    if (h->t)
        st_bind_script(L)->console->drop(h->t);
    h->t = NULL;
    return 0;
}

static const setun_tensor_info *about(lua_State *L)
{
    const st_console *c = st_bind_script(L)->console;
    setun_tensor *t = held(L);
    st_held *h = lua_touserdata(L, 1);
    setun_error err;
    if (h->info.size)
        return &h->info;
    int64_t since = st_bind_pause(st_bind_script(L));
    setun_status s = c->about(c->user, t, &h->info, &err);
    st_bind_resume(st_bind_script(L), since);
    if (s != SETUN_OK) {
        h->info.size = 0;
        st_bind_error(L, &err);
    }
    return &h->info;
}

/* t(i, j): one number, by indices from 0 as everywhere else that speaks of tensors. */
static int tensor_call(lua_State *L)
{
    setun_tensor *t = held(L);
    int64_t index[SETUN_MAX_RANK] = {0};
    int n = lua_gettop(L) - 1;
    double value = 0;
    setun_error err;
    for (int i = 0; i < n && i < SETUN_MAX_RANK; i++)
        index[i] = luaL_checkinteger(L, i + 2);
    if (st_bind_script(L)->console->at(t, index, n, &value, &err) != SETUN_OK)
        return st_bind_error(L, &err);
    lua_pushnumber(L, value);
    return 1;
}

typedef struct st_printed {
    size_t n;
    char   text[ST_SCRIPT_STRING];
} st_printed;

/* Raises nothing: the printer that calls this holds memory. */
static int keep_text(void *user, const char *text, size_t n)
{
    st_printed *p = user;
    p->n = n;
    memcpy(p->text, text, n < sizeof p->text ? n : sizeof p->text);
    return 0;
}

static int print_part(lua_State *L, const char *slice)
{
    setun_error err;
    setun_tensor *t = held(L);
    st_printed *p = lua_newuserdatauv(L, sizeof *p, 0);
    if (st_bind_script(L)->console->print(t, slice, keep_text, p, &err) != SETUN_OK)
        return st_bind_error(L, &err);
    if (p->n > sizeof p->text)
        return st_bind_fail(L, "%I bytes of text; ask for a smaller slice", (lua_Integer)p->n);
    lua_pushlstring(L, p->text, p->n - 1); /* without the end of its last line */
    return 1;
}

static int tensor_text(lua_State *L) { return print_part(L, NULL); }

/* t:slice "[0:2, :]": as text */
static int tensor_slice(lua_State *L) { return print_part(L, st_bind_text(L, 2, "a slice")); }

/* t.min, t.shape ...: numbers of setun_tensor_info. */
static int tensor_index(lua_State *L)
{
    const char *key = st_bind_text(L, 2, "a field");
    if (strcmp(key, "slice") == 0) {
        lua_pushcfunction(L, tensor_slice);
        return 1;
    }
    const setun_tensor_info *i = about(L);
    const struct { const char *name; double value; } numbers[] = {
        {"min", i->min}, {"max", i->max}, {"mean", i->mean}, {"rms", i->rms}, {"scale", i->scale_max}};
    const struct { const char *name; int64_t value; } counts[] = {
        {"count", i->count}, {"minus", i->n_code[0]}, {"zeros", i->n_code[1]}, {"plus", i->n_code[2]}};
    for (size_t k = 0; k < sizeof numbers / sizeof numbers[0]; k++)
        if (strcmp(key, numbers[k].name) == 0) {
            lua_pushnumber(L, numbers[k].value);
            return 1;
        }
    for (size_t k = 0; k < sizeof counts / sizeof counts[0]; k++)
        if (strcmp(key, counts[k].name) == 0) {
            lua_pushinteger(L, counts[k].value);
            return 1;
        }
    if (strcmp(key, "type") == 0) {
        lua_pushstring(L, i->type);
        return 1;
    }
    if (strcmp(key, "shape") != 0)
        return st_bind_fail(L, "a tensor has no field '%s'; it has shape, type, count, min, max, mean, rms, minus, zeros, plus, "
                            "scale and slice", key);
    lua_createtable(L, (int)i->rank, 0);
    for (uint32_t d = 0; d < i->rank; d++) {
        lua_pushinteger(L, i->dim[d]);
        lua_rawseti(L, -2, (lua_Integer)d + 1);
    }
    return 1;
}

static int open_console(lua_State *L)
{
    static const luaL_Reg own[] = {
        {"__index", tensor_index}, {"__call", tensor_call}, {"__tostring", tensor_text}, {"__gc", tensor_gc}, {NULL, NULL}};
    luaL_newmetatable(L, TENSOR);
    luaL_setfuncs(L, own, 0);
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
    lua_pushcfunction(L, l_tensor);
    lua_setglobal(L, "tensor");
    return 0;
}

setun_status st_script_console(st_script *s, const st_console *c, setun_error *err)
{
    s->console = c;
    s->stop = c->stop;
    s->stop_user = c->user;
    return st_bind_call(s, open_console, NULL, "console", err);
}

/* "1 + 2" is no statement, but its value is what one wants to see. */
static int run_input(lua_State *L)
{
    const char *text = lua_touserdata(L, 1);
    lua_settop(L, 0);
    lua_getglobal(L, "print");
    const char *expression = lua_pushfstring(L, "return %s", text);
    if (luaL_loadbufferx(L, expression, strlen(expression), CHUNK, "t") != LUA_OK) {
        lua_settop(L, 1);
        if (luaL_loadbufferx(L, text, strlen(text), CHUNK, "t") != LUA_OK)
            return lua_error(L);
    } else {
        lua_remove(L, 2);
    }
    lua_call(L, 0, LUA_MULTRET);
    int n = lua_gettop(L) - 1;
    if (n > 0)
        lua_call(L, n, 0);
    return 0;
}

setun_status st_script_eval(st_script *s, const char *text, setun_error *err)
{
    return st_bind_call(s, run_input, (void *)(uintptr_t)text, "console.lua", err);
}
