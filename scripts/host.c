/* scripts/host.c -- the closed Lua world: what a script may use, how long, how much.
 *
 * Not here: graphs (bind_graph.c) and operators (bind_kernel.c).
 *
 * A script comes with a stranger's weights, so four walls stand around it:
 *
 *   memory   an allocator that counts.  Above half the limit the next instruction raises, with a
 *            line; at the limit the allocator refuses, which is the last resort.
 *   steps    a count hook.  Once a limit is passed every further step raises and pcall hands the
 *            error on, so a loop around pcall ends too.
 *   time     library functions written in C run without hooks.  Those that can be slow are left
 *            out, rewritten or bounded by their arguments; strings are short; and a clock stops
 *            what still adds up.
 *   names    libraries are copied by white list, so a new Lua brings nothing in unseen.
 *
 * A graph must be the same in every run, so what differs between runs is gone as well: the order
 * of pairs (it is sorted here), addresses in tostring, random numbers, and libm. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lualib.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/file.h"
#include "base/hash.h"
#include "scripts/bind.h"

#define STRIDE 1000                /* instructions between two looks at the limits */
#define MAX_SECONDS 20             /* of a script's own time in one call; honest ones need 0.1 */
#define MAX_FILE (1 << 20)         /* bytes of one script */
#define MAX_NEST 16                /* host -> script -> host -> script ... */
#define MAX_MATCH_COST 1000000000  /* single-character steps of one pattern match, about a second */

st_script *st_bind_script(lua_State *L)
{
    return *(st_script **)lua_getextraspace(L);
}

/* ---------------------------------------------------------------- limits */

static void hook(lua_State *L, lua_Debug *ar);

/* Look at every step, or at every STRIDE steps.  Setting a hook walks the whole stack of calls, which
 * a script can make deep, so it is set only when that changes. */
static void watch(st_script *s, int single)
{
    if (s->single != single)
        lua_sethook(s->L, hook, LUA_MASKCOUNT, single ? 1 : STRIDE);
    s->single = single;
}

static void hook(lua_State *L, lua_Debug *ar)
{
    st_script *s = st_bind_script(L);
    (void)ar;
    s->steps_left -= STRIDE;
    if (!s->broken && s->used > s->soft)
        lua_gc(L, LUA_GCCOLLECT); /* the sum may be mostly garbage */
    int stopped = !s->broken && s->stop && s->stop(s->stop_user);
    if (stopped || s->broken || s->big_string || s->used > s->soft || s->steps_left < 0 || st_now_ns() > s->deadline) {
        s->broken = 1;
        watch(s, 1);
        if (stopped)
            st_bind_fail(L, "interrupted");
        if (s->big_string)
            st_bind_fail(L, "a string of %I bytes; a script's strings have at most %d",
                         (lua_Integer)s->big_string, ST_SCRIPT_STRING);
        if (s->used > s->soft)
            st_bind_fail(L, "the script uses more than %I bytes of memory", (lua_Integer)s->soft);
        if (s->steps_left < 0)
            st_bind_fail(L, "the script ran more than %I steps", (lua_Integer)s->steps);
        st_bind_fail(L, "the script ran longer than %d seconds", MAX_SECONDS);
    }
    watch(s, 0);
}

void st_bind_tick(lua_State *L)
{
    st_script *s = st_bind_script(L);
    if (st_now_ns() > s->deadline) {
        s->broken = 1;
        st_bind_fail(L, "the script ran longer than %d seconds", MAX_SECONDS);
    }
}

void st_bind_no_callback(lua_State *L, const char *what)
{
    if (st_bind_script(L)->callback)
        st_bind_fail(L, "%s cannot be used inside eval, lower or quantise", what);
}

void st_bind_charge(lua_State *L, int64_t bytes)
{
    st_script *s = st_bind_script(L);
    int64_t have = st_arena_bytes(s->arena) - s->arena_base;
    if (have > s->limit || bytes > s->limit - have) {
        s->broken = 1;
        st_bind_fail(L, "the script's graphs and operators use more than %I bytes", (lua_Integer)s->limit);
    }
}

int64_t st_bind_pause(st_script *s)
{
    s->arena_paused = st_arena_bytes(s->arena);
    return st_now_ns();
}

void st_bind_resume(st_script *s, int64_t since)
{
    s->deadline += st_now_ns() - since;
    s->arena_base += st_arena_bytes(s->arena) - s->arena_paused;
}

/* Lua's allocator.  For a new object old is its type, which is how a string is known.
 * Setting the hook from here is allowed: Lua offers it to signal handlers. */
static void *allocate(void *user, void *p, size_t old, size_t size)
{
    st_script *s = user;
    size_t had = p ? old : 0;
    if (size == 0) {
        free(p);
        s->used -= (int64_t)had;
        return NULL;
    }
    if (size > had) {
        if (size > ST_SCRIPT_BLOCK || s->used + (int64_t)(size - had) > s->limit)
            return NULL;
        int long_string = !p && old == LUA_TSTRING && size > ST_SCRIPT_STRING + 64;
        if (long_string)
            s->big_string = (int64_t)size;
        if (s->L && (long_string || s->used + (int64_t)(size - had) > s->soft))
            watch(s, 1);
    }
    void *q = realloc(p, size);
    if (q)
        s->used += (int64_t)size - (int64_t)had;
    return q ? q : size <= had ? p : NULL; /* Lua relies on shrinking never failing */
}

/* ---------------------------------------------------------------- errors */

int st_bind_line(lua_State *L, lua_Debug *line)
{
    lua_Debug ar;
    int found = 0;
    for (int level = 0; level < 64 && lua_getstack(L, level, &ar); level++) {
        if (!lua_getinfo(L, "Sl", &ar) || ar.currentline <= 0)
            continue;
        int lib = strncmp(ar.short_src, "lib/", 4) == 0;
        if (!found || !lib)
            *line = ar;
        found = 1;
        if (!lib)
            break;
    }
    return found;
}

void st_bind_where(lua_State *L, char *out, size_t cap)
{
    lua_Debug ar;
    if (st_bind_line(L, &ar))
        (void)snprintf(out, cap, "%s:%d", ar.short_src, ar.currentline);
    else
        (void)snprintf(out, cap, "%s", st_bind_script(L)->place);
}

void st_bind_place(lua_State *L)
{
    st_script *s = st_bind_script(L);
    lua_Debug ar;
    lua_pushvalue(L, -1);
    if (lua_getinfo(L, ">S", &ar) && ar.linedefined > 0)
        (void)snprintf(s->place, sizeof s->place, "%.60s:%d", ar.short_src, ar.linedefined);
}

static int raise_at(lua_State *L, const char *text)
{
    char where[128];
    st_bind_where(L, where, sizeof where);
    if (where[0])
        lua_pushfstring(L, "%s: %s", where, text);
    else
        lua_pushstring(L, text);
    return lua_error(L);
}

int st_bind_fail(lua_State *L, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    const char *text = lua_pushvfstring(L, fmt, ap);
    va_end(ap);
    return raise_at(L, text);
}

/* Does text begin with "file.lua:12: "? */
static int has_place(const char *text)
{
    const char *p = strchr(text, ':');
    if (!p || p - text < 5 || strncmp(p - 4, ".lua", 4) != 0 || p[1] < '0' || p[1] > '9')
        return 0;
    p++;
    while (*p >= '0' && *p <= '9')
        p++;
    return p[0] == ':' && p[1] == ' ';
}

int st_bind_error(lua_State *L, const setun_error *err)
{
    if (!has_place(err->text))
        return raise_at(L, err->text);
    lua_pushstring(L, err->text);
    return lua_error(L);
}

/* The message handler: any error value becomes a string with a place.  A value that is not a string
 * is described by its type only; its __tostring is the script's and is not called. */
static int handler(lua_State *L)
{
    char where[128];
    const char *text = lua_type(L, 1) == LUA_TSTRING ? lua_tostring(L, 1) : NULL;
    if (text && has_place(text))
        return 1;
    st_bind_where(L, where, sizeof where);
    if (!where[0])
        (void)snprintf(where, sizeof where, "%.100s", st_bind_script(L)->file);
    if (text && strncmp(text, where, strlen(where)) == 0)
        lua_pushstring(L, text);
    else if (text)
        lua_pushfstring(L, "%s: %s", where, text);
    else
        lua_pushfstring(L, "%s: an error was raised with a %s instead of a message", where, luaL_typename(L, 1));
    return 1;
}

/* One line of valid UTF-8, whatever the script put into its message. */
static void clean(char *out, size_t cap, const char *text, size_t n)
{
    size_t len = n < cap - 1 ? n : cap - 1, bad = 0;
    memcpy(out, text, len);
    out[len] = 0;
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)out[i] < 0x20 || out[i] == 0x7f)
            out[i] = ' ';
    while (bad += st_utf8_valid(out + bad, len - bad), bad < len)
        out[bad] = '?';
}

setun_status st_bind_call(st_script *s, lua_CFunction fn, void *arg, const char *what, setun_error *err)
{
    lua_State *L = s->L;
    const char *was = s->file;
    int top = lua_gettop(L);
    if (s->depth >= MAX_NEST)
        return st_fail(err, SETUN_BAD_SCRIPT, "%s: more than %d calls between host and script inside each other",
                       what, MAX_NEST);
    if (!lua_checkstack(L, 8))
        return st_fail(err, SETUN_BAD_SCRIPT, "%s: the script's stack is full", what);
    if (s->depth++ == 0) {
        s->steps_left = s->steps;
        s->deadline = st_now_ns() + (int64_t)MAX_SECONDS * 1000000000;
        s->broken = 0;
        s->big_string = 0;
        s->single = 0;
        lua_sethook(L, hook, LUA_MASKCOUNT, STRIDE);
    }
    s->file = what;
    lua_pushcfunction(L, handler);
    lua_pushcfunction(L, fn);
    lua_pushlightuserdata(L, arg);
    int status = lua_pcall(L, 1, 0, top + 1);
    setun_status result = SETUN_OK;
    if (status == LUA_ERRMEM)
        result = st_fail(err, SETUN_BAD_SCRIPT, "%s: the script needs more memory than the %lld MiB it may have",
                         what, (long long)(s->limit >> 20));
    else if (status != LUA_OK) {
        char text[480];
        size_t n = 0;
        const char *m = lua_type(L, -1) == LUA_TSTRING ? lua_tolstring(L, -1, &n) : NULL;
        if (m)
            clean(text, sizeof text, m, n);
        if (m && has_place(text))
            result = st_fail(err, SETUN_BAD_SCRIPT, "%s", text);
        else if (m && strncmp(text, what, strlen(what)) == 0)
            result = st_fail(err, SETUN_BAD_SCRIPT, "%s", text);
        else
            result = st_fail(err, SETUN_BAD_SCRIPT, "%s: %s", what, m ? text : "failed without a message");
    }
    lua_settop(L, top);
    s->place[0] = 0;
    s->file = was;
    s->depth--;
    return result;
}

/* ---------------------------------------------------------------- rewritten library functions */

const char *st_bind_text(lua_State *L, int i, const char *what)
{
    size_t n = 0;
    const char *text = lua_type(L, i) == LUA_TSTRING ? lua_tolstring(L, i, &n) : NULL;
    if (!text)
        st_bind_fail(L, "%s must be a string, not %s", what, luaL_typename(L, i));
    else if (strlen(text) != n)
        st_bind_fail(L, "%s contains a zero byte", what);
    return text;
}

/* As luaL_tolstring, but without addresses, which differ from run to run. */
static const char *to_text(lua_State *L, int i, size_t *n)
{
    int t = lua_type(L, i);
    if (t != LUA_TTABLE && t != LUA_TFUNCTION && t != LUA_TUSERDATA && t != LUA_TLIGHTUSERDATA)
        return luaL_tolstring(L, i, n);
    if (luaL_getmetafield(L, i, "__tostring") != LUA_TNIL) {
        lua_pop(L, 1);
        return luaL_tolstring(L, i, n);
    }
    int name = luaL_getmetafield(L, i, "__name");
    if (name != LUA_TNIL && name != LUA_TSTRING)
        lua_pop(L, 1);
    if (name != LUA_TSTRING)
        lua_pushstring(L, luaL_typename(L, i));
    return lua_tolstring(L, -1, n);
}

static int l_tostring(lua_State *L)
{
    luaL_checkany(L, 1);
    to_text(L, 1, NULL);
    return 1;
}

static int l_print(lua_State *L)
{
    st_script *s = st_bind_script(L);
    int n = lua_gettop(L);
    luaL_Buffer b;
    if (!s->print)
        return 0;
    for (int i = 1; i <= n; i++) { /* strings first: a buffer keeps the top of the stack to itself */
        to_text(L, i, NULL);
        lua_replace(L, i);
    }
    luaL_buffinit(L, &b);
    for (int i = 1; i <= n; i++) {
        if (i > 1)
            luaL_addchar(&b, '\t');
        lua_pushvalue(L, i);
        luaL_addvalue(&b);
    }
    luaL_pushresult(&b);
    s->print(s->print_user, lua_tostring(L, -1));
    return 0;
}

/* A passed limit or exhausted memory is not an error that a script may handle. */
static int l_pcall(lua_State *L)
{
    st_script *s = st_bind_script(L);
    luaL_checkany(L, 1);
    lua_pushboolean(L, 1);
    lua_insert(L, 1);
    int status = lua_pcall(L, lua_gettop(L) - 2, LUA_MULTRET, 0);
    if (status == LUA_ERRMEM)
        s->broken = 1;
    if (status != LUA_OK && s->broken)
        return lua_error(L);
    if (status != LUA_OK) {
        lua_pushboolean(L, 0);
        lua_insert(L, -2);
        return 2;
    }
    return lua_gettop(L);
}

/* Finalizers would run while the state closes, weak tables make results depend on the collector. */
static int l_setmetatable(lua_State *L)
{
    static const char *const refused[] = { "__gc", "__mode" };
    luaL_checktype(L, 1, LUA_TTABLE);
    if (!lua_isnil(L, 2))
        luaL_checktype(L, 2, LUA_TTABLE);
    if (luaL_getmetafield(L, 1, "__metatable") != LUA_TNIL)
        return st_bind_fail(L, "setmetatable: the metatable is protected");
    lua_settop(L, 2);
    for (int i = 0; i < 2 && lua_istable(L, 2); i++) {
        lua_pushstring(L, refused[i]);
        if (lua_rawget(L, 2) != LUA_TNIL)
            return st_bind_fail(L, "setmetatable: a script may not use %s", refused[i]);
        lua_pop(L, 1);
    }
    lua_setmetatable(L, 1);
    return 1;
}

typedef struct sort_key {
    const char *s; /* NULL: an integer */
    size_t      n;
    lua_Integer i;
} sort_key;

static int compare_keys(const void *pa, const void *pb)
{
    const sort_key *a = pa, *b = pb;
    if (!a->s || !b->s)
        return a->s ? 1 : b->s ? -1 : a->i < b->i ? -1 : a->i > b->i;
    int c = memcmp(a->s, b->s, a->n < b->n ? a->n : b->n);
    return c ? c : a->n < b->n ? -1 : a->n > b->n;
}

static int next_sorted(lua_State *L)
{
    for (;;) {
        lua_Integer i = lua_tointeger(L, lua_upvalueindex(2)) + 1;
        lua_pushinteger(L, i);
        lua_replace(L, lua_upvalueindex(2));
        lua_settop(L, 0);
        if (lua_rawgeti(L, lua_upvalueindex(3), i) == LUA_TNIL)
            return 1;
        lua_pushvalue(L, 1);
        if (lua_rawget(L, lua_upvalueindex(1)) != LUA_TNIL)
            return 2;
    }
}

/* pairs in the order integers, then strings, each ascending.  Lua's own order depends on a seed that
 * differs from run to run, and so would the graph. */
static int l_pairs(lua_State *L)
{
    size_t n = 0, i = 0;
    luaL_checktype(L, 1, LUA_TTABLE);
    st_bind_tick(L);
    lua_settop(L, 1);
    for (lua_pushnil(L); lua_next(L, 1); lua_pop(L, 1), n++)
        if (!lua_isinteger(L, -2) && lua_type(L, -2) != LUA_TSTRING)
            return st_bind_fail(L, "pairs: a key is a %s; only integers and strings have an order",
                                luaL_typename(L, -2));
    sort_key *key = lua_newuserdatauv(L, (n + 1) * sizeof *key, 0);
    for (lua_pushnil(L); lua_next(L, 1); lua_pop(L, 1), i++) {
        key[i].s = lua_type(L, -2) == LUA_TSTRING ? lua_tolstring(L, -2, &key[i].n) : NULL;
        key[i].i = key[i].s ? 0 : lua_tointeger(L, -2);
    }
    qsort(key, n, sizeof *key, compare_keys);
    lua_pushvalue(L, 1);
    lua_pushinteger(L, 0);
    lua_createtable(L, n < 4096 ? (int)n : 0, 0);
    for (i = 0; i < n; i++) {
        if (key[i].s)
            lua_pushlstring(L, key[i].s, key[i].n);
        else
            lua_pushinteger(L, key[i].i);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    lua_pushcclosure(L, next_sorted, 3);
    return 1;
}

/* Lua's own loops once per copy even if the result is empty. */
static int l_rep(lua_State *L)
{
    size_t l = 0, ls = 0;
    const char *text = luaL_checklstring(L, 1, &l), *sep = luaL_optlstring(L, 3, "", &ls);
    lua_Integer n = luaL_checkinteger(L, 2);
    luaL_Buffer b;
    if (n <= 0 || l + ls == 0) {
        lua_pushliteral(L, "");
        return 1;
    }
    if (n > ST_SCRIPT_STRING || (size_t)n * (l + ls) > ST_SCRIPT_STRING)
        return st_bind_fail(L, "string.rep: the result has more than %d bytes", ST_SCRIPT_STRING);
    size_t done = l + ls, total = (size_t)n * done - ls;
    char *to = luaL_buffinitsize(L, &b, total + ls);
    memcpy(to, text, l);
    memcpy(to + l, sep, ls);
    for (; done < total; done *= 2) /* what is there is whole copies; append it once more */
        memcpy(to + done, to, done < total - done ? done : total - done);
    luaL_pushresultsize(&b, total);
    return 1;
}

/* string.format without addresses: %p is refused, and tables and functions print as their type. */
static int l_format(lua_State *L)
{
    size_t n;
    const char *f = luaL_checklstring(L, 1, &n);
    for (size_t i = 0; i < n; i++) {
        if (f[i] != '%')
            continue;
        i++;
        while (i < n && strchr("-+ #0123456789.", f[i]) && f[i])
            i++;
        if (i < n && f[i] == 'p')
            return st_bind_fail(L, "string.format: a script may not print addresses with %%p");
    }
    for (int i = 2, top = lua_gettop(L); i <= top; i++)
        if (lua_type(L, i) != LUA_TNUMBER && lua_type(L, i) != LUA_TSTRING) {
            to_text(L, i, NULL);
            lua_replace(L, i);
        }
    int args = lua_gettop(L);
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    lua_call(L, args, 1);
    return 1;
}

/* How long may matching pattern on n bytes take?  Each repetition can try every length, each start
 * can be tried, and a try costs at most the pattern's length:
 *     cost <= length * (n + 1) ^ (repetitions + (anchored ? 0 : 1))
 * Lua's matcher runs without hooks, so what could be slow is refused beforehand. */
static void check_pattern(lua_State *L, const char *name)
{
    size_t n, m;
    int q = 0;
    (void)luaL_checklstring(L, 1, &n);
    const char *p = luaL_checklstring(L, 2, &m);
    for (size_t i = 0; i < m; i++) {
        if (p[i] == '%' && i + 1 < m) {
            i++;
            q += p[i] == 'b' || (p[i] >= '0' && p[i] <= '9');
        } else if (p[i] == '[') {
            i += i + 1 < m && p[i + 1] == '^' ? 2 : 1;
            for (size_t first = i; i < m && (p[i] != ']' || i == first); i++)
                if (p[i] == '%')
                    i++;
        } else {
            q += p[i] == '*' || p[i] == '+' || p[i] == '-' || p[i] == '?';
        }
    }
    double cost = (double)(m + 1);
    for (int i = p[0] == '^' ? 0 : -1; i < q; i++)
        cost *= (double)(n + 1);
    if (cost > MAX_MATCH_COST)
        st_bind_fail(L, "%s: a pattern with %d repetitions on %I bytes could take too long", name, q,
                     (lua_Integer)n);
    st_bind_tick(L);
}

/* upvalue 1: the library's function; upvalue 2: its name */
static int pass_on(lua_State *L)
{
    int n = lua_gettop(L);
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    lua_call(L, n, LUA_MULTRET);
    return lua_gettop(L);
}

static int l_match(lua_State *L)
{
    const char *name = lua_tostring(L, lua_upvalueindex(2));
    if (strcmp(name, "find") == 0 && lua_toboolean(L, 4))
        st_bind_tick(L); /* a plain search of at most ST_SCRIPT_STRING squared, by memchr and memcmp */
    else
        check_pattern(L, name);
    return pass_on(L);
}

/* With __len or __index a table can pretend to have 2^60 elements, and these loop over them in C. */
static int l_table(lua_State *L)
{
    if (lua_istable(L, 1) && lua_getmetatable(L, 1))
        return st_bind_fail(L, "table.%s: the table has a metatable", lua_tostring(L, lua_upvalueindex(2)));
    st_bind_tick(L);
    return pass_on(L);
}

static int is_lib_name(const char *name)
{
    size_t n = strlen(name);
    for (size_t i = 0; i < n; i++)
        if (!((name[i] >= 'a' && name[i] <= 'z') || (name[i] >= '0' && name[i] <= '9') || name[i] == '_'))
            return 0;
    return n > 0 && n <= 40;
}

/* upvalue 1: what is loaded, by name; false while it loads */
static int l_require(lua_State *L)
{
    const char *name = st_bind_text(L, 1, "require's name");
    if (!is_lib_name(name))
        return st_bind_fail(L, "require: '%s' is not the name of a library; such names are lower case letters, "
                            "digits and _", name);
    lua_settop(L, 1);
    int have = lua_getfield(L, lua_upvalueindex(1), name);
    if (have == LUA_TBOOLEAN && !lua_toboolean(L, -1))
        return st_bind_fail(L, "require: library '%s' needs itself, or failed before", name);
    if (have != LUA_TNIL)
        return 1;
    lua_pushboolean(L, 0);
    lua_setfield(L, lua_upvalueindex(1), name);
    const char *path = lua_pushfstring(L, "%s/lib/%s.lua", st_bind_script(L)->lib_dir, name);
    const char *chunk = lua_pushfstring(L, "=lib/%s.lua", name);
    st_bind_file(L, path, chunk);
    if (lua_isnil(L, -1) || (lua_isboolean(L, -1) && !lua_toboolean(L, -1)))
        return st_bind_fail(L, "require: library '%s' returns nothing", name);
    lua_pushvalue(L, -1);
    lua_setfield(L, lua_upvalueindex(1), name);
    return 1;
}

/* ---------------------------------------------------------------- opening */

/* Size and time are asked for first: who writes meanwhile is then seen to have written later. */
static void note_file(lua_State *L, const char *path)
{
    st_script *s = st_bind_script(L);
    st_script_file *f = st_arena_alloc(s->arena, sizeof *f);
    if (!f || !(f->path = st_arena_strdup(s->arena, path)))
        st_bind_fail(L, "out of memory");
    if (st_file_stat(path, &f->bytes, &f->mtime_ns, NULL) != SETUN_OK)
        f->bytes = f->mtime_ns = -1;
    f->next = s->files;
    s->files = f;
}

const st_script_file *st_script_files(const st_script *s) { return s->files; }

void st_bind_file(lua_State *L, const char *path, const char *chunk)
{
    setun_error err;
    char *text = NULL;
    int64_t n = 0;
    note_file(L, path);
    if (st_file_read(path, MAX_FILE, &text, &n, &err) != SETUN_OK)
        st_bind_error(L, &err);
    st_bind_script(L)->files->hash = st_hash(ST_HASH_INIT, text, (size_t)n);
    int binary = n > 0 && text[0] == LUA_SIGNATURE[0];
    int status = binary ? LUA_OK : luaL_loadbufferx(L, n ? text : "", (size_t)n, chunk, "t");
    free(text); /* loading is protected, so nothing was raised since it was read */
    if (binary) {
        lua_pushfstring(L, "%s:1: compiled Lua is not accepted, only its text", chunk + 1);
        lua_error(L);
    }
    if (status != LUA_OK)
        lua_error(L);
    /* A file's globals are its own; it sees the library behind them. */
    lua_newtable(L);
    lua_createtable(L, 0, 2);
    lua_pushglobaltable(L);
    lua_setfield(L, -2, "__index");
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
    lua_setmetatable(L, -2);
    lua_setupvalue(L, -2, 1);
    lua_call(L, 0, 1);
}

void st_bind_class(lua_State *L, const char *name, const luaL_Reg *methods, lua_CFunction index)
{
    luaL_newmetatable(L, name);
    lua_newtable(L);
    luaL_setfuncs(L, methods, 0);
    if (index)
        lua_pushcclosure(L, index, 1); /* upvalue 1: the methods */
    lua_setfield(L, -2, "__index");
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
    lua_pop(L, 1);
}

/* Copy the named fields of the table at the top into the table below it; pops the source. */
static void copy_fields(lua_State *L, const char *const *names)
{
    for (; *names; names++) {
        lua_getfield(L, -1, *names);
        lua_setfield(L, -3, *names);
    }
    lua_pop(L, 1);
}

/* Put fn around field `name` of the table at the top. */
static void wrap_field(lua_State *L, const char *name, lua_CFunction fn)
{
    lua_getfield(L, -1, name);
    lua_pushstring(L, name);
    lua_pushcclosure(L, fn, 2);
    lua_setfield(L, -2, name);
}

static int open_world(lua_State *L)
{
    static const char *const base[] = { "assert", "error", "getmetatable", "ipairs", "rawequal", "rawget",
                                        "rawlen", "rawset", "select", "tonumber", "type", NULL };
    static const char *const string[] = { "byte", "char", "find", "format", "gmatch", "gsub", "len", "lower",
                                          "match", "reverse", "sub", "upper", NULL };
    static const char *const table[] = { "concat", "insert", "pack", "remove", "unpack", NULL };
    static const char *const math[] = { "abs", "ceil", "floor", "fmod", "huge", "max", "maxinteger", "min",
                                        "mininteger", "modf", "pi", "sqrt", "tointeger", "type", "ult", NULL };
    static const char *const utf8[] = { "char", "charpattern", "codepoint", "codes", "len", "offset", NULL };
    static const char *const searches[] = { "find", "gmatch", "gsub", "match", NULL };
    static const char *const loops[] = { "concat", "insert", "remove", "unpack", NULL };
    static const luaL_Reg own[] = { { "pairs", l_pairs },   { "pcall", l_pcall },
                                    { "print", l_print },   { "setmetatable", l_setmetatable },
                                    { "tostring", l_tostring }, { NULL, NULL } };
    lua_settop(L, 0);
    lua_newtable(L); /* 1: what scripts see as their globals */
    luaL_requiref(L, "_G", luaopen_base, 0);
    copy_fields(L, base);
    luaL_setfuncs(L, own, 0);
    lua_newtable(L);
    lua_pushcclosure(L, l_require, 1);
    lua_setfield(L, 1, "require");

    lua_newtable(L);
    luaL_requiref(L, "string", luaopen_string, 0);
    copy_fields(L, string);
    for (const char *const *p = searches; *p; p++)
        wrap_field(L, *p, l_match);
    wrap_field(L, "format", l_format);
    lua_pushcfunction(L, l_rep);
    lua_setfield(L, -2, "rep");
    lua_pushliteral(L, "");
    lua_getmetatable(L, -1); /* of all strings */
    lua_pushvalue(L, -3);
    lua_setfield(L, -2, "__index");
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
    lua_pop(L, 2);
    lua_setfield(L, 1, "string");

    lua_newtable(L);
    luaL_requiref(L, "table", luaopen_table, 0);
    copy_fields(L, table);
    for (const char *const *p = loops; *p; p++)
        wrap_field(L, *p, l_table);
    lua_setfield(L, 1, "table");

    lua_newtable(L);
    luaL_requiref(L, "math", luaopen_math, 0);
    copy_fields(L, math);
    lua_setfield(L, 1, "math");

    lua_newtable(L);
    luaL_requiref(L, "utf8", luaopen_utf8, 0);
    copy_fields(L, utf8);
    lua_setfield(L, 1, "utf8");

    lua_newtable(L);
    st_bind_graph_open(L);
    st_bind_model_open(L);
    st_bind_template_open(L);
    st_bind_op_open(L);
    st_bind_packing_open(L);
    st_bind_lab_open(L);
    st_bind_quantizer_open(L);
    st_bind_kernel_open(L);
    lua_setfield(L, 1, "setun");

    /* The libraries' own tables go: nothing but the copies can be reached. */
    lua_pushnil(L);
    lua_setfield(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
    lua_pushvalue(L, 1);
    lua_rawseti(L, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS);
    return 0;
}

setun_status st_script_open(st_script **out, const char *lib_dir, st_registry *r, st_arena *arena,
                            const st_script_limits *limits, setun_error *err)
{
    st_script *s = calloc(1, sizeof *s);
    *out = NULL;
    if (!s)
        return st_fail(err, SETUN_NO_MEMORY, "no memory for a script");
    s->registry = r;
    s->arena = arena;
    s->lib_dir = st_arena_strdup(arena, lib_dir);
    s->arena_base = st_arena_bytes(arena);
    s->file = "script";
    s->limit = limits && limits->memory_bytes ? limits->memory_bytes : (int64_t)256 << 20;
    s->soft = s->limit; /* until the state is complete */
    s->steps = limits && limits->steps ? limits->steps : 200000000;
    lua_State *L = s->lib_dir ? lua_newstate(allocate, s) : NULL;
    if (!L) {
        free(s);
        return st_fail(err, SETUN_NO_MEMORY, "no memory for a Lua state");
    }
    *(st_script **)lua_getextraspace(L) = s;
    s->L = L;
    setun_status status = st_bind_call(s, open_world, NULL, "scripts", err);
    s->soft = s->limit / 2;
    if (status != SETUN_OK) {
        st_script_close(s);
        return status;
    }
    *out = s;
    return SETUN_OK;
}

void st_script_close(st_script *s)
{
    if (!s)
        return;
    st_bind_op_close(s);
    lua_sethook(s->L, NULL, 0, 0);
    lua_close(s->L);
    free(s);
}

static int run_file(lua_State *L)
{
    const char *path = lua_touserdata(L, 1), *slash = strrchr(path, '/');
    st_bind_file(L, path, lua_pushfstring(L, "=%s", slash ? slash + 1 : path));
    return 0;
}

setun_status st_script_ops(st_script *s, const char *file, setun_error *err)
{
    char *path = st_arena_strdup(s->arena, file);
    if (!path)
        return st_fail(err, SETUN_NO_MEMORY, "out of memory before running %s", file);
    const char *slash = strrchr(path, '/');
    return st_bind_call(s, run_file, path, slash ? slash + 1 : path, err);
}

void st_script_on_print(st_script *s, void (*fn)(void *user, const char *text), void *user)
{
    s->print = fn;
    s->print_user = user;
}
