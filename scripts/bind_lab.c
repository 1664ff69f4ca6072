/* scripts/bind_lab.c -- setun.lab: an experiment, described in a script.
 *
 *     return setun.lab {
 *       model = "model", text = "text.txt", windows = 4,
 *       measure = { "size", "perplexity", "kl", "layers", "speed" },       -- these are all, and the default
 *       variants = {
 *         { name = "as it is" },                                           -- the base: the first, or base = "name"
 *         { name = "base3", packing = "base3.lua", kv = "q8" },            -- options of the command line
 *       },
 *     }
 *
 * Keys of a variant but for name and model are options of the command line, with '_' for '-'; which there are is
 * not known here, so that a new one needs no change: whoever loads the variants refuses what he does not know.
 * Not here: running anything (runtime/lab.c). */
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "scripts/bind.h"

#define MOST_VARIANTS 64
#define MOST_OPTIONS 32
#define MOST_NAME 60
#define MOST_TOKENS 64 /* whose logits are computed at once where layers are compared */

static const char *const measures[ST_LAB_MEASURES] = { "size", "perplexity", "kl", "layers", "speed" };

const char *st_script_lab_measure(int i)
{
    return i >= 0 && i < ST_LAB_MEASURES ? measures[i] : NULL;
}

/* Memory of the arena, within what a script may have. */
static void *take(lua_State *L, int64_t n, int64_t size)
{
    st_bind_charge(L, n * size);
    void *p = st_arena_array(st_bind_script(L)->arena, n, size);
    if (!p)
        st_bind_fail(L, "out of memory");
    return p;
}

static const char *keep(lua_State *L, const char *text)
{
    size_t n = strlen(text) + 1;
    return memcpy(take(L, (int64_t)n, 1), text, n);
}

/* Field `key` of the table as a text that is not empty; NULL: it is absent, which may be refused. */
static const char *text_field(lua_State *L, int table, const char *key, const char *whose, int needed)
{
    char what[MOST_NAME + 80];
    const char *text = NULL;
    (void)snprintf(what, sizeof what, "%s of %s", key, whose);
    if (lua_getfield(L, table, key) != LUA_TNIL) {
        text = keep(L, st_bind_text(L, -1, what));
        if (!*text || !st_text_plain(text, strlen(text)) || strpbrk(text, "\t\r\n"))
            st_bind_fail(L, "%s is empty or no plain text", what);
    } else if (needed) {
        st_bind_fail(L, "%s is missing", what);
    }
    lua_pop(L, 1);
    return text;
}

static int64_t number_field(lua_State *L, const char *key, int64_t low, int64_t high, int64_t fallback)
{
    int whole, have = lua_getfield(L, 1, key) != LUA_TNIL;
    lua_Integer v = lua_tointegerx(L, -1, &whole);
    if (have && (!whole || lua_type(L, -1) != LUA_TNUMBER || v < low || v > high))
        st_bind_fail(L, "%s of setun.lab is %s; a whole number from %I to %I is wanted", key, luaL_tolstring(L, -1, NULL),
                     (lua_Integer)low, (lua_Integer)high);
    lua_settop(L, 1);
    return have ? v : fallback;
}

/* ---------------------------------------------------------------- variants */

/* "cpu_features" as the command line spells it. */
static const char *option_name(lua_State *L, const char *key, const char *variant)
{
    size_t n = strlen(key);
    if (n != strspn(key, "abcdefghijklmnopqrstuvwxyz0123456789_") || !n || n > MOST_NAME)
        st_bind_fail(L, "variant '%s': '%s' is not the name of an option", variant, key);
    char *name = take(L, (int64_t)n + 1, 1);
    for (size_t i = 0; i <= n; i++)
        name[i] = (char)(key[i] == '_' ? '-' : key[i]);
    return name;
}

/* The value at the top: a text, a number, or true for an option that takes none. */
static const char *option_value(lua_State *L, const char *key, const char *variant)
{
    char what[2 * MOST_NAME + 40];
    int type = lua_type(L, -1);
    if (type == LUA_TBOOLEAN)
        return NULL;
    if (type != LUA_TSTRING && type != LUA_TNUMBER)
        st_bind_fail(L, "variant '%s': %s is a %s; an option is a text, a number or true", variant, key, luaL_typename(L, -1));
    (void)snprintf(what, sizeof what, "%s of variant '%s'", key, variant);
    (void)luaL_tolstring(L, -1, NULL);
    const char *value = keep(L, st_bind_text(L, -1, what));
    lua_pop(L, 1);
    return value;
}

static int earlier(const st_script_option *a, const st_script_option *b) { return strcmp(a->name, b->name) < 0; }

/* The options of the variant at `table`, sorted, because a table of Lua has no order. */
static void read_options(lua_State *L, int table, st_script_variant *v)
{
    st_script_option *list = take(L, MOST_OPTIONS, sizeof *list);
    for (lua_pushnil(L); lua_next(L, table); lua_pop(L, 1)) {
        if (lua_type(L, -2) != LUA_TSTRING)
            st_bind_fail(L, "variant '%s' has a key that is a %s; keys are names", v->name, luaL_typename(L, -2));
        const char *key = st_bind_text(L, -2, "a key");
        if (strcmp(key, "name") == 0 || strcmp(key, "model") == 0 || (lua_isboolean(L, -1) && !lua_toboolean(L, -1)))
            continue;
        if (v->n_option == MOST_OPTIONS)
            st_bind_fail(L, "variant '%s' has more than %d options", v->name, MOST_OPTIONS);
        st_script_option one = { option_name(L, key, v->name), option_value(L, key, v->name) };
        int at = v->n_option++;
        for (; at > 0 && earlier(&one, &list[at - 1]); at--)
            list[at] = list[at - 1];
        list[at] = one;
    }
    v->option = list;
}

static void read_variants(lua_State *L, st_script_lab *lab)
{
    if (lua_getfield(L, 1, "variants") != LUA_TTABLE || lua_getmetatable(L, -1))
        st_bind_fail(L, "variants of setun.lab is missing: a list such as { { name = \"base\" }, { name = \"q8\", kv = \"q8\" } }");
    lua_Integer n = (lua_Integer)lua_rawlen(L, 2);
    if (n < 1 || n > MOST_VARIANTS)
        st_bind_fail(L, "variants of setun.lab has %I entries; 1 to %d are wanted", n, MOST_VARIANTS);
    st_script_variant *list = take(L, n, sizeof *list);
    for (lua_Integer i = 0; i < n; i++) {
        char whose[40];
        (void)snprintf(whose, sizeof whose, "variant %d", (int)i + 1);
        if (lua_rawgeti(L, 2, i + 1) != LUA_TTABLE)
            st_bind_fail(L, "%s is a %s, not a table such as { name = \"q8\", kv = \"q8\" }", whose, luaL_typename(L, -1));
        list[i].name = text_field(L, 3, "name", whose, 1);
        if (strlen(list[i].name) > MOST_NAME)
            st_bind_fail(L, "the name of %s has more than %d bytes", whose, MOST_NAME);
        for (lua_Integer k = 0; k < i; k++)
            if (strcmp(list[k].name, list[i].name) == 0)
                st_bind_fail(L, "two variants are named '%s'", list[i].name);
        list[i].model = text_field(L, 3, "model", whose, 0);
        read_options(L, 3, &list[i]);
        lua_settop(L, 2);
    }
    lab->variant = list;
    lab->n_variant = (int32_t)n;
    lua_settop(L, 1);
}

/* ---------------------------------------------------------------- the whole */

static void read_measures(lua_State *L, st_script_lab *lab)
{
    lab->measure = lab->text ? (1u << ST_LAB_MEASURES) - 1 : 1u << ST_LAB_SIZE;
    if (lua_getfield(L, 1, "measure") == LUA_TTABLE) {
        lab->measure = 0;
        for (lua_Integer i = 1, n = (lua_Integer)lua_rawlen(L, 2); i <= n; i++) {
            int m = 0;
            lua_rawgeti(L, 2, i);
            const char *name = st_bind_text(L, -1, "an entry of measure");
            while (m < ST_LAB_MEASURES && strcmp(measures[m], name) != 0)
                m++;
            if (m == ST_LAB_MEASURES)
                st_bind_fail(L, "there is no measure '%s'; there are size, perplexity, kl, layers and speed", name);
            lab->measure |= 1u << m;
            lua_settop(L, 2);
        }
        if (!lab->measure)
            st_bind_fail(L, "measure of setun.lab is an empty list: leave it out to measure everything");
    } else if (!lua_isnil(L, -1)) {
        st_bind_fail(L, "measure of setun.lab is a %s, not a list such as { \"size\", \"perplexity\" }", luaL_typename(L, -1));
    }
    if (lab->measure != 1u << ST_LAB_SIZE && !lab->text)
        st_bind_fail(L, "text of setun.lab is missing: all measures but size need a text");
    lua_settop(L, 1);
}

static void check_keys(lua_State *L)
{
    static const char *const known[] = { "base", "convention", "decode", "measure", "model", "prefill", "runs", "stride", "text",
                                         "tokens", "variants", "window", "windows" };
    for (lua_pushnil(L); lua_next(L, 1); lua_pop(L, 1)) {
        size_t i = 0;
        const char *key = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : luaL_typename(L, -2);
        while (i < SETUN_LEN(known) && strcmp(key, known[i]) != 0)
            i++;
        if (i == SETUN_LEN(known))
            st_bind_fail(L, "setun.lab has no key '%s'; there are base, convention, decode, measure, model, prefill, runs, stride, "
                         "text, tokens, variants, window and windows", key);
    }
}

/* setun.lab { ... } */
static int l_lab(lua_State *L)
{
    st_script *s = st_bind_script(L);
    lua_settop(L, 1);
    st_bind_no_callback(L, "setun.lab");
    if (!lua_istable(L, 1) || lua_getmetatable(L, 1))
        return st_bind_fail(L, "setun.lab wants a table");
    if (s->lab)
        return st_bind_fail(L, "a file describes one experiment, and this is the second setun.lab");
    st_script_lab *lab = take(L, 1, sizeof *lab);
    check_keys(L);
    lab->model = text_field(L, 1, "model", "setun.lab", 1);
    lab->text = text_field(L, 1, "text", "setun.lab", 0);
    lab->convention = text_field(L, 1, "convention", "setun.lab", 0);
    lab->window = number_field(L, "window", 2, 1 << 20, 0);
    lab->stride = number_field(L, "stride", 1, 1 << 20, 0);
    lab->windows = number_field(L, "windows", 1, 1 << 30, 0);
    lab->tokens = number_field(L, "tokens", 2, MOST_TOKENS, 48);
    lab->prefill = number_field(L, "prefill", 1, 1 << 16, 128);
    lab->decode = number_field(L, "decode", 1, 1 << 16, 32);
    lab->runs = number_field(L, "runs", 5, 101, 5);
    read_variants(L, lab);
    read_measures(L, lab);
    const char *base = text_field(L, 1, "base", "setun.lab", 0);
    while (base && lab->base < lab->n_variant && strcmp(lab->variant[lab->base].name, base) != 0)
        lab->base++;
    if (lab->base == lab->n_variant)
        return st_bind_fail(L, "base of setun.lab is '%s', and no variant is named so", base);
    s->lab = lab;
    return 0;
}

void st_bind_lab_open(lua_State *L)
{
    static const luaL_Reg own[] = { { "lab", l_lab }, { NULL, NULL } };
    luaL_setfuncs(L, own, 0);
}

setun_status st_script_lab_read(st_script *s, const char *file, const st_script_lab **lab, setun_error *err)
{
    ST_TRY(st_script_ops(s, file, err));
    *lab = s->lab;
    return s->lab ? SETUN_OK : st_fail(err, SETUN_BAD_SCRIPT, "%s describes no experiment (setun.lab)", file);
}
