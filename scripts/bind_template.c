/* scripts/bind_template.c -- setun.template: which format a model's conversations have, and rendering them.
 *
 * Messages are slices of C memory that Lua can cut but not read.  So nothing that somebody typed can be
 * mistaken for a marker, and messages may be longer than a script's strings. */
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "scripts/bind.h"

#define TEMPLATE "setun.template"
#define CHAT "setun.chat"
#define SLICE "setun.slice"
#define CHOSEN "setun.template.chosen" /* registry: the template that is used */
#define RUNNING "setun.chat.running"   /* registry: keeps the conversation alive while C points to it */

/* A conversation being rendered; a userdata, so that slices that a template kept find it closed. */
typedef struct rendering {
    const st_chat *chat; /* NULL: over */
    setun_status (*add)(void *user, int64_t i, const char *text, int64_t n, setun_error *err);
    void          *user;
    setun_error    refusal; /* code 0: none */
} rendering;

/* Bytes from begin to end of a message; user value 1: the conversation. */
typedef struct slice {
    rendering *of;
    int64_t    i, begin, end;
} slice;

/* ---------------------------------------------------------------- slices */

static slice *check_slice(lua_State *L, int at)
{
    slice *s = luaL_checkudata(L, at, SLICE);
    if (!s->of->chat)
        st_bind_fail(L, "the messages are gone after render");
    return s;
}

static slice *push_slice(lua_State *L, rendering *of, int of_index, int64_t i, int64_t begin, int64_t end)
{
    slice *s = lua_newuserdatauv(L, sizeof *s, 1);
    *s = (slice){of, i, begin, end};
    lua_pushvalue(L, of_index);
    lua_setiuservalue(L, -2, 1);
    luaL_setmetatable(L, SLICE);
    return s;
}

/* A part of the slice at 1. */
static int part(lua_State *L, int64_t begin, int64_t end)
{
    const slice *s = lua_touserdata(L, 1);
    lua_getiuservalue(L, 1, 1);
    push_slice(L, s->of, lua_gettop(L), s->i, begin, end);
    return 1;
}

/* s:trim(), s:trim("\n"): without white space, or these characters, at both ends; ltrim, rtrim: at one. */
static int trim(lua_State *L, int left, int right)
{
    const slice *s = check_slice(L, 1);
    const char *set = lua_isnoneornil(L, 2) ? NULL : st_bind_text(L, 2, "what is cut off");
    const char *p = s->of->chat->message[s->i].text;
    int64_t b = s->begin, e = s->end;
    if (!set) {
        st_message_trim(p, &b, &e, left, right);
        return part(L, b, e);
    }
    while (left && b < e && p[b] && strchr(set, p[b]))
        b++;
    while (right && b < e && p[e - 1] && strchr(set, p[e - 1]))
        e--;
    return part(L, b, e);
}

static int slice_trim(lua_State *L) { return trim(L, 1, 1); }
static int slice_ltrim(lua_State *L) { return trim(L, 1, 0); }
static int slice_rtrim(lua_State *L) { return trim(L, 0, 1); }

/* Where what is in the slice, at its first or last place; -1: nowhere. */
static int64_t find(lua_State *L, const slice *s, int last, int64_t *length)
{
    const char *what = st_bind_text(L, 2, "what is looked for"), *p = s->of->chat->message[s->i].text;
    int64_t n = (int64_t)strlen(what), at = -1;
    *length = n;
    for (int64_t i = s->begin; n && i + n <= s->end && (last || at < 0); i++)
        if (p[i] == what[0] && memcmp(p + i, what, (size_t)n) == 0)
            at = i;
    return at;
}

/* s:before(x): up to the first x; s:after(x): behind the last x.  Without an x all of it. */
static int slice_before(lua_State *L)
{
    const slice *s = check_slice(L, 1);
    int64_t n, at = find(L, s, 0, &n);
    return part(L, s->begin, at < 0 ? s->end : at);
}

static int slice_after(lua_State *L)
{
    const slice *s = check_slice(L, 1);
    int64_t n, at = find(L, s, 1, &n);
    return part(L, at < 0 ? s->begin : at + n, s->end);
}

static int slice_has(lua_State *L)
{
    const slice *s = check_slice(L, 1);
    int64_t n;
    lua_pushboolean(L, find(L, s, 0, &n) >= 0);
    return 1;
}

static int slice_empty(lua_State *L)
{
    const slice *s = check_slice(L, 1);
    lua_pushboolean(L, s->begin == s->end);
    return 1;
}

/* message.role, or a method; upvalue 1: the methods */
static int slice_index(lua_State *L)
{
    const slice *s = check_slice(L, 1);
    const char *key = st_bind_text(L, 2, "a key");
    if (strcmp(key, "role") == 0)
        lua_pushstring(L, s->of->chat->message[s->i].role);
    else
        lua_getfield(L, lua_upvalueindex(1), key);
    return 1;
}

/* ---------------------------------------------------------------- the conversation */

static rendering *check_chat(lua_State *L)
{
    rendering *r = luaL_checkudata(L, 1, CHAT);
    if (!r->chat)
        st_bind_fail(L, "the conversation is gone after render");
    return r;
}

static int give(lua_State *L, rendering *r, int64_t i, const char *text, int64_t n)
{
    if (n && r->add(r->user, i, text, n, &r->refusal) != SETUN_OK)
        return st_bind_error(L, &r->refusal);
    lua_settop(L, 1);
    return 1; /* so that calls can be chained */
}

/* chat:mark(string): a marker, in which special tokens are recognised. */
static int chat_mark(lua_State *L)
{
    rendering *r = check_chat(L);
    const char *text = st_bind_text(L, 2, "a marker");
    return give(L, r, -1, text, (int64_t)strlen(text));
}

/* chat:text(slice): what somebody said. */
static int chat_text(lua_State *L)
{
    rendering *r = check_chat(L);
    const slice *s = check_slice(L, 2);
    return give(L, r, s->i, r->chat->message[s->i].text + s->begin, s->end - s->begin);
}

/* chat.prompt, chat.think, chat.bos, chat.eos, chat.date, chat.messages, or a method */
static int chat_index(lua_State *L)
{
    const rendering *r = check_chat(L);
    const st_chat *c = r->chat;
    const char *key = st_bind_text(L, 2, "a key");
    const struct { const char *key, *text; } texts[] = {{"bos", c->bos}, {"eos", c->eos}, {"date", c->date}};
    for (size_t i = 0; i < 3; i++)
        if (strcmp(key, texts[i].key) == 0) {
            if (!texts[i].text)
                return st_bind_fail(L, "the template needs the text of %s, which the model's files do not tell", key);
            lua_pushstring(L, texts[i].text);
            return 1;
        }
    if (strcmp(key, "prompt") == 0)
        lua_pushboolean(L, c->prompt);
    else if (strcmp(key, "think") == 0 && c->think < 0)
        lua_pushnil(L);
    else if (strcmp(key, "think") == 0)
        lua_pushboolean(L, c->think);
    else if (strcmp(key, "messages") == 0)
        lua_getiuservalue(L, 1, 1);
    else
        lua_getfield(L, lua_upvalueindex(1), key);
    return 1;
}

/* ---------------------------------------------------------------- definitions */

static int is_list(lua_State *L, int at)
{
    lua_Integer n = lua_istable(L, at) ? (lua_Integer)lua_rawlen(L, at) : -1;
    int good = n >= 0 && n <= 1000;
    for (lua_Integer i = 1; good && i <= n; i++, lua_pop(L, 1))
        good = lua_rawgeti(L, at, i) == LUA_TSTRING;
    return good;
}

/* setun.template { name = ..., must = {...}, may = {...}, tokens = {...}, stop = {...}, thinks = ..., repairs = ..., render = ... } */
static int l_template(lua_State *L)
{
    static const char *const fields[] = {"may", "must", "name", "render", "repairs", "stop", "thinks", "tokens"};
    const size_t n_fields = sizeof fields / sizeof fields[0];
    lua_settop(L, 1);
    if (!lua_istable(L, 1) || lua_getmetatable(L, 1))
        return st_bind_fail(L, "setun.template wants a table");
    for (lua_pushnil(L); lua_next(L, 1); lua_pop(L, 1)) {
        const char *key = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : luaL_typename(L, -2);
        size_t i = 0;
        while (i < n_fields && strcmp(key, fields[i]))
            i++;
        if (i == n_fields)
            return st_bind_fail(L, "setun.template: there is no field '%s'", key);
        int list = strcmp(key, "may") == 0 || strcmp(key, "must") == 0 || strcmp(key, "stop") == 0 || strcmp(key, "tokens") == 0;
        if (list && !is_list(L, lua_gettop(L)))
            return st_bind_fail(L, "setun.template: %s must be a list of strings", key);
    }
    lua_getfield(L, 1, "name");
    (void)st_bind_text(L, -1, "setun.template: name");
    if (lua_getfield(L, 1, "render") != LUA_TFUNCTION)
        return st_bind_fail(L, "setun.template: render must be a function of a conversation");
    if (lua_getfield(L, 1, "repairs") == LUA_TTABLE) {
        lua_getfield(L, -1, "must");
        int good = is_list(L, lua_gettop(L));
        lua_getfield(L, -2, "architectures");
        good &= is_list(L, lua_gettop(L));
        good &= lua_getfield(L, -3, "why") == LUA_TSTRING;
        if (!good)
            return st_bind_fail(L, "setun.template: repairs needs the lists must and architectures, and why");
    }
    lua_newuserdatauv(L, 1, 1);
    lua_createtable(L, 0, (int)n_fields); /* a copy: the script may change its own table later */
    for (size_t i = 0; i < n_fields; i++) {
        lua_getfield(L, 1, fields[i]);
        lua_setfield(L, -2, fields[i]);
    }
    lua_setiuservalue(L, -2, 1);
    luaL_setmetatable(L, TEMPLATE);
    return 1;
}

/* ---------------------------------------------------------------- choosing */

typedef struct choice {
    const char         *path, *chunk, *name, *arch;
    const char *const  *mark;
    int64_t             n_mark;
    st_script_template *t;
    int                 n_found, no_memory;
    char                known[300]; /* "bitnet, chatml, ..." */
    char                strange[120]; /* of the format that lacks least, a mark that it does not know */
    int64_t             least;
} choice;

/* Is text in the list at this place?  Leaves nothing on Lua's stack, which has no room for a value per mark. */
static int is_in(lua_State *L, int list, const char *text)
{
    int found = 0;
    lua_Integer n = lua_istable(L, list) ? (lua_Integer)lua_rawlen(L, list) : 0;
    for (lua_Integer i = 1; i <= n && !found; i++) {
        found = lua_rawgeti(L, list, i) == LUA_TSTRING && strcmp(lua_tostring(L, -1), text) == 0;
        lua_pop(L, 1);
    }
    return found;
}

/* How many of the marks are not in the lists at a and b; *first gets one of them. */
static int64_t unknown_marks(lua_State *L, int a, int b, const choice *c, const char **first)
{
    int64_t n = 0;
    for (int64_t m = 0; m < c->n_mark; m++)
        if (!is_in(L, a, c->mark[m]) && !is_in(L, b, c->mark[m]) && n++ == 0)
            *first = c->mark[m];
    return n;
}

/* Are all strings of the list among the marks? */
static int has_all(lua_State *L, int list, const choice *c)
{
    lua_Integer n = lua_istable(L, list) ? (lua_Integer)lua_rawlen(L, list) : -1;
    int all = n >= 0;
    for (lua_Integer i = 1; i <= n && all; i++) {
        const char *text = lua_rawgeti(L, list, i) == LUA_TSTRING ? lua_tostring(L, -1) : NULL;
        int found = 0;
        for (int64_t m = 0; text && m < c->n_mark && !found; m++)
            found = strcmp(text, c->mark[m]) == 0;
        all = found;
        lua_pop(L, 1);
    }
    return all;
}

/* The template whose fields are in the table def, and the marks: 1 it writes them, 2 it repairs them. */
static int matches(lua_State *L, int def, choice *c)
{
    const char *first = "";
    int top = lua_gettop(L), must = top + 1, may = top + 2, repairs = top + 3;
    lua_getfield(L, def, "must");
    lua_getfield(L, def, "may");
    lua_getfield(L, def, "repairs");
    int64_t n = unknown_marks(L, must, may, c, &first);
    int all = has_all(L, must, c), result = all && n == 0;
    if (all && n && n < c->least) { /* a relative: worth telling how they differ */
        c->least = n;
        (void)snprintf(c->strange, sizeof c->strange, "; %s, its nearest, does not write '%.60s'",
                       c->known + (strrchr(c->known, ' ') ? strrchr(c->known, ' ') + 1 - c->known : 0), first);
    }
    if (!result && lua_istable(L, repairs) && c->arch) {
        lua_getfield(L, repairs, "must");
        int wrong = lua_gettop(L);
        lua_getfield(L, repairs, "architectures");
        if (is_in(L, wrong + 1, c->arch) && has_all(L, wrong, c) && unknown_marks(L, wrong, wrong, c, &first) == 0)
            result = 2;
    }
    lua_settop(L, top);
    return result;
}

/* The list in field key as C strings in the arena. */
static const char *const *strings(lua_State *L, int def, const char *key)
{
    st_arena *arena = st_bind_script(L)->arena;
    lua_Integer n = lua_getfield(L, def, key) == LUA_TTABLE ? (lua_Integer)lua_rawlen(L, -1) : 0;
    const char **list = st_arena_array(arena, n + 1, sizeof *list);
    for (lua_Integer i = 0; list && i < n; i++) {
        (void)lua_rawgeti(L, -1, i + 1);
        if (!(list[i] = st_arena_strdup(arena, lua_tostring(L, -1))))
            list = NULL;
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    return list;
}

static int load_template(lua_State *L)
{
    choice *c = lua_touserdata(L, 1);
    st_arena *arena = st_bind_script(L)->arena;
    st_bind_file(L, c->path, lua_pushfstring(L, "=%s", c->chunk));
    if (!luaL_testudata(L, -1, TEMPLATE)) {
        lua_pushfstring(L, "%s: a chat template ends with return setun.template {...}", c->chunk);
        return lua_error(L);
    }
    lua_getiuservalue(L, -1, 1);
    int def = lua_gettop(L);
    lua_getfield(L, def, "name");
    const char *name = lua_tostring(L, -1);
    size_t n = strlen(c->known);
    (void)snprintf(c->known + n, sizeof c->known - n, "%s%s", n ? ", " : "", name);
    int how = c->name ? strcmp(name, c->name) == 0 : matches(L, def, c);
    if (!how)
        return 0;
    st_script_template *t = st_arena_alloc(arena, sizeof *t);
    c->no_memory = !t || !(t->name = st_arena_strdup(arena, name)) || !(t->token = strings(L, def, "tokens")) ||
                   !(t->stop = strings(L, def, "stop"));
    if (c->no_memory)
        return 0;
    t->file = c->path;
    t->repairs = "";
    lua_getfield(L, def, "thinks");
    t->thinks = lua_toboolean(L, -1);
    if (how == 2) {
        lua_getfield(L, def, "repairs");
        lua_getfield(L, -1, "why");
        c->no_memory = !(t->repairs = st_arena_strdup(arena, lua_tostring(L, -1)));
    }
    c->t = t;
    c->n_found++;
    lua_pushvalue(L, def);
    lua_setfield(L, LUA_REGISTRYINDEX, CHOSEN);
    return 0;
}

setun_status st_script_template_find(st_script *s, const char *name, const char *arch, const char *const *mark,
                                     int64_t n_mark, const st_script_template **t, setun_error *err)
{
    choice c = {.name = name, .arch = arch, .mark = mark, .n_mark = n_mark, .least = ST_SCRIPT_STRING};
    char **names, *dir = st_arena_printf(s->arena, "%s/templates", s->lib_dir);
    int64_t n;
    setun_status status = SETUN_OK;
    *t = NULL;
    if (!dir)
        return st_fail(err, SETUN_NO_MEMORY, "out of memory while looking for a chat template");
    ST_TRY(st_dir_list(dir, &names, &n, err));
    for (int64_t i = 0; status == SETUN_OK && i < n; i++) {
        size_t len = strlen(names[i]);
        if (len < 5 || strcmp(names[i] + len - 4, ".lua") != 0 || names[i][0] == '.')
            continue;
        c.path = st_arena_printf(s->arena, "%s/%s", dir, names[i]);
        c.chunk = c.path ? c.path + strlen(dir) + 1 : "";
        status = c.path ? st_bind_call(s, load_template, &c, c.chunk, err) : SETUN_NO_MEMORY;
        if (!c.path || c.no_memory)
            status = st_fail(err, SETUN_NO_MEMORY, "out of memory while looking for a chat template");
    }
    st_dir_free(names, n);
    if (status == SETUN_OK && name && !c.n_found)
        return st_fail(err, SETUN_UNKNOWN, "there is no chat template '%s'; there are %s", name, c.known);
    if (status == SETUN_OK && !c.n_found && !n_mark)
        return st_fail(err, SETUN_UNKNOWN, "one would have to be asked for (--template NAME): %s", c.known);
    if (status == SETUN_OK && !c.n_found)
        return st_fail(err, SETUN_UNKNOWN, "not a format that Setun knows (%s)%s; --template NAME takes one anyway", c.known, c.strange);
    if (status == SETUN_OK && c.n_found > 1)
        return st_fail(err, SETUN_BAD_SCRIPT, "%s: more than one chat template fits; the last is %s", dir, c.t->name);
    *t = c.t;
    return status;
}

/* ---------------------------------------------------------------- rendering */

static int run_render(lua_State *L)
{
    const rendering *job = lua_touserdata(L, 1);
    rendering *r = lua_newuserdatauv(L, sizeof *r, 1);
    *r = *job;
    int at = lua_gettop(L);
    lua_pushvalue(L, at);
    lua_setfield(L, LUA_REGISTRYINDEX, RUNNING);
    luaL_setmetatable(L, CHAT);
    lua_newtable(L);
    for (int64_t i = 0; i < r->chat->n; i++) {
        push_slice(L, r, at, i, 0, r->chat->message[i].n);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    lua_setiuservalue(L, at, 1);
    lua_getfield(L, LUA_REGISTRYINDEX, CHOSEN);
    lua_getfield(L, -1, "render");
    lua_pushvalue(L, at);
    lua_call(L, 1, 0);
    return 0;
}

/* The script may still hold the conversation, whose messages are the caller's. */
static int end_render(lua_State *L)
{
    setun_error *refusal = lua_touserdata(L, 1);
    if (lua_getfield(L, LUA_REGISTRYINDEX, RUNNING) == LUA_TUSERDATA) {
        rendering *r = lua_touserdata(L, -1);
        r->chat = NULL;
        *refusal = r->refusal;
    }
    lua_pushnil(L);
    lua_setfield(L, LUA_REGISTRYINDEX, RUNNING);
    return 0;
}

setun_status st_script_template_render(st_script *s, const st_chat *chat,
                                       setun_status (*add)(void *user, int64_t i, const char *text, int64_t n, setun_error *err),
                                       void *user, setun_error *err)
{
    rendering job = {.chat = chat, .add = add, .user = user};
    setun_error refusal = {0};
    setun_status status = st_bind_call(s, run_render, &job, "chat template", err);
    setun_status ended = st_bind_call(s, end_render, &refusal, "chat template", status == SETUN_OK ? err : NULL);
    if (refusal.code) /* the caller's own words, without the place in the script */
        return st_fail(err, refusal.code, "%s", refusal.text);
    return status == SETUN_OK ? ended : status;
}

/* ---------------------------------------------------------------- opening */

void st_bind_template_open(lua_State *L)
{
    static const luaL_Reg none[] = {{NULL, NULL}};
    static const luaL_Reg of_slice[] = {{"trim", slice_trim}, {"ltrim", slice_ltrim}, {"rtrim", slice_rtrim},
                                        {"before", slice_before}, {"after", slice_after}, {"has", slice_has},
                                        {"empty", slice_empty}, {NULL, NULL}};
    static const luaL_Reg of_chat[] = {{"mark", chat_mark}, {"text", chat_text}, {NULL, NULL}};
    static const luaL_Reg own[] = {{"template", l_template}, {NULL, NULL}};
    st_bind_class(L, TEMPLATE, none, NULL);
    st_bind_class(L, SLICE, of_slice, slice_index);
    st_bind_class(L, CHAT, of_chat, chat_index);
    luaL_setfuncs(L, own, 0);
}
