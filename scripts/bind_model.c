/* scripts/bind_model.c -- setun.model, the hyperparameters hp, and running a model script.
 *
 * Strict in one more way than the graph: a key of the configuration that the script neither read nor
 * listed as harmless is refused, because ignoring it might mean computing another model. */
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "base/str.h"
#include "scripts/bind.h"

#define HPARAMS "setun.hparams"
#define MODEL "setun.model"

/* ---------------------------------------------------------------- hyperparameters */

/* hp.key: a number, string or boolean; nil when absent or null; another hp for an object or array.
 * What was asked for is remembered. */
static int hp_index(lua_State *L)
{
    st_handle *h = luaL_checkudata(L, 1, HPARAMS);
    if (!h->b->open)
        return st_bind_fail(L, "the hyperparameters are gone after build");
    const st_script_model *m = h->b->m;
    int root = h->text[0] == 0;
    const char *key;
    if (lua_isinteger(L, 2))
        key = lua_pushfstring(L, "%s%I", h->text, lua_tointeger(L, 2));
    else
        key = lua_pushfstring(L, "%s%s", h->text, st_bind_text(L, 2, "a key"));
    size_t n = strlen(key);
    if (root && strcmp(key, "n_ctx") == 0) {
        lua_pushinteger(L, m->n_ctx);
        return 1;
    }
    if (root && strcmp(key, "kv") == 0) {
        lua_pushstring(L, st_dtype_name(m->kv_dtype));
        return 1;
    }
    int nested = 0;
    for (int64_t k = 0; k < m->n_hp; k++) {
        int64_t i = (h->b->last + k) % m->n_hp;
        const st_hparam *p = &m->hp[i];
        if (strncmp(p->key, key, n) != 0)
            continue;
        nested |= p->key[n] == '.';
        if (p->key[n])
            continue;
        h->b->read[i] = 1;
        h->b->last = i;
        switch (p->kind) {
        case ST_HP_INT: lua_pushinteger(L, p->i); break;
        case ST_HP_FLOAT: lua_pushnumber(L, p->f); break;
        case ST_HP_BOOL: lua_pushboolean(L, p->i != 0); break;
        case ST_HP_STRING: lua_pushstring(L, p->s); break;
        default: lua_pushnil(L); break;
        }
        return 1;
    }
    if (!nested) {
        lua_pushnil(L);
        return 1;
    }
    lua_getiuservalue(L, 1, 1);
    st_bind_push_handle(L, HPARAMS, h->b, lua_gettop(L), 0, lua_pushfstring(L, "%s.", key));
    return 1;
}

static int is_ignored(lua_State *L, int list, const char *key)
{
    int found = 0;
    for (lua_Integer i = 1; !found && lua_rawgeti(L, list, i) != LUA_TNIL; i++, lua_pop(L, 1)) {
        size_t n = 0;
        const char *p = lua_type(L, -1) == LUA_TSTRING ? lua_tolstring(L, -1, &n) : "";
        if (n > 2 && strcmp(p + n - 2, ".*") == 0) /* "generation.*": all below */
            found = strncmp(key, p, n - 1) == 0;
        else
            found = strcmp(key, p) == 0;
    }
    if (!found)
        lua_pop(L, 1); /* the nil that ended the list */
    return found;
}

/* A key nobody read may change what the model computes: refuse it by name.  Null is the same as
 * absent.  list is the stack index of the script's `ignore`. */
static void refuse_unread(lua_State *L, int list, const st_build *b, const char *file, setun_error *refusal)
{
    const st_script_model *m = b->m;
    for (int64_t i = 0; i < m->n_hp; i++) {
        const st_hparam *p = &m->hp[i];
        char value[80];
        if (b->read[i] || p->kind == ST_HP_NULL || (lua_istable(L, list) && is_ignored(L, list, p->key)))
            continue;
        if (p->kind == ST_HP_INT)
            (void)snprintf(value, sizeof value, "%lld", (long long)p->i);
        else if (p->kind == ST_HP_FLOAT)
            (void)snprintf(value, sizeof value, "%g", p->f);
        else if (p->kind == ST_HP_BOOL)
            (void)snprintf(value, sizeof value, "%s", p->i ? "true" : "false");
        else
            (void)snprintf(value, sizeof value, "\"%.60s\"", p->s);
        (void)st_fail(refusal, SETUN_BAD_SCRIPT, "config.json: key '%s' = %s is not understood by %s", p->key, value,
                      file);
        return;
    }
}

/* ---------------------------------------------------------------- models */

static void check_list(lua_State *L, int table, const char *field, int required)
{
    lua_getfield(L, table, field);
    if (lua_isnil(L, -1) && !required) {
        lua_pop(L, 1);
        return;
    }
    lua_Integer n = lua_istable(L, -1) ? (lua_Integer)lua_rawlen(L, -1) : 0;
    for (lua_Integer i = 1; i <= n; i++) {
        lua_rawgeti(L, -1, i);
        st_bind_text(L, -1, field);
        lua_pop(L, 1);
    }
    if (n == 0)
        st_bind_fail(L, "setun.model: %s must be a list of strings", field);
    lua_pop(L, 1);
}

/* setun.model { architectures = {...}, keys = {...}, tensors = {...}, names = {...}, ignore = {...},
 *               pooling = "last", packing = setun.packing "..." {...}, quantizer = "int4", build = function(g, hp) } */
static int l_model(lua_State *L)
{
    static const char *const fields[] = { "architectures", "build", "ignore", "keys", "names", "packing", "pooling",
                                          "quantizer", "tensors" };
    enum { FIELDS = sizeof fields / sizeof fields[0] };
    lua_settop(L, 1);
    if (!lua_istable(L, 1) || lua_getmetatable(L, 1))
        return st_bind_fail(L, "setun.model wants a table");
    for (lua_pushnil(L); lua_next(L, 1); lua_pop(L, 1)) {
        const char *key = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : luaL_typename(L, -2);
        size_t i = 0;
        while (i < FIELDS && strcmp(key, fields[i]) != 0)
            i++;
        if (i == FIELDS)
            return st_bind_fail(L, "setun.model: there is no field '%s'", key);
    }
    check_list(L, 1, "architectures", 1);
    check_list(L, 1, "ignore", 0);
    check_list(L, 1, "keys", 0);
    check_list(L, 1, "tensors", 0);
    if (lua_getfield(L, 1, "pooling") != LUA_TNIL && lua_type(L, -1) != LUA_TSTRING)
        return st_bind_fail(L, "setun.model: pooling must be a string");
    lua_pop(L, 1);
    if (lua_getfield(L, 1, "packing") != LUA_TNIL && !st_bind_packing(L, -1))
        return st_bind_fail(L, "setun.model: packing must be a setun.packing");
    lua_pop(L, 1);
    if (lua_getfield(L, 1, "build") != LUA_TFUNCTION)
        return st_bind_fail(L, "setun.model: build must be a function of g and hp");
    int names = lua_getfield(L, 1, "names");
    if (names != LUA_TNIL && names != LUA_TTABLE)
        return st_bind_fail(L, "setun.model: names must be a table");
    lua_newuserdatauv(L, 1, 1);
    lua_createtable(L, 0, FIELDS); /* a copy: the script may change its own table later */
    for (size_t i = 0; i < FIELDS; i++) {
        lua_getfield(L, 1, fields[i]);
        lua_setfield(L, -2, fields[i]);
    }
    lua_setiuservalue(L, -2, 1);
    luaL_setmetatable(L, MODEL);
    return 1;
}

typedef struct model_job {
    const char            *path, *chunk, *arch;
    const st_script_model *m;
    st_build              *b;
    const char            *pooling;
    const st_script_packing *packing;
    const char            *quantizer;
    int                    fit;        /* of the script that was chosen */
    const char            *best, *best_chunk; /* its path and name; NULL: none yet */
    st_str                 known;      /* "BitNetForCausalLM (bitnet_b158.lua), ..." */
    char                   lacks[200]; /* "; bitnet_embedding_qwen3.lua is for models with blk.0.attn_q_norm_in" */
    setun_error            refusal;    /* code 0: none */
} model_job;

#define CHOSEN "setun.chosen" /* registry: the model that will be built */
#define BUILD "setun.build"   /* registry: keeps the build alive while C holds a pointer to it */

/* How well a model script suits: 0 not at all, 1 by its architecture, 2 by that and by what else it asks for. */
enum { UNFIT, FITS, FITS_EXACTLY };

/* Does the configuration have the key, or keys below it? */
static int has_key(const st_script_model *m, const char *key)
{
    size_t n = strlen(key);
    for (int64_t i = 0; i < m->n_hp; i++)
        if (strncmp(m->hp[i].key, key, n) == 0 && (m->hp[i].key[n] == 0 || m->hp[i].key[n] == '.'))
            return 1;
    return 0;
}

/* Some models have the architecture of others in their config.json, and differ in tensors or keys.  A script
 * for those lists what they have and the others lack.  How many entries have the lists of the definition at
 * index def, and is everything there? */
static int count_asked(lua_State *L, int def, model_job *j, int *all)
{
    static const char *const fields[] = { "keys", "tensors" };
    const st_script_model *m = j->m;
    int n = 0, list = def + 1;
    *all = 1;
    for (int f = 0; f < 2; f++) {
        int is_list = lua_getfield(L, def, fields[f]) == LUA_TTABLE;
        for (lua_Integer i = 1; is_list && lua_rawgeti(L, list, i) == LUA_TSTRING; i++, n++, lua_settop(L, list)) {
            const char *name = lua_tostring(L, -1);
            if (f == 1)
                lua_getfield(L, def, "names");
            if (f == 0 ? has_key(m, name) : m->has(m->user, st_bind_file_name(L, m, name)))
                continue;
            if (*all)
                (void)snprintf(j->lacks, sizeof j->lacks, "; %s is for models with %s", j->chunk, name);
            *all = 0;
        }
        lua_settop(L, def);
    }
    return n;
}

/* Is the architecture in the definition's list?  Known ones of scripts that ask for nothing more are kept for
 * the message that none is. */
static int has_architecture(lua_State *L, int def, model_job *j, int asked)
{
    int found = 0;
    lua_getfield(L, def, "architectures");
    for (lua_Integer i = 1; lua_rawgeti(L, def + 1, i) == LUA_TSTRING; i++, lua_settop(L, def + 1)) {
        found |= strcmp(lua_tostring(L, -1), j->arch) == 0;
        if (!asked)
            st_str_addf(&j->known, "%s%s (%s)", j->known.len ? ", " : "", lua_tostring(L, -1), j->chunk);
    }
    lua_settop(L, def);
    return found;
}

static int load_model(lua_State *L)
{
    model_job *j = lua_touserdata(L, 1);
    char lacks[sizeof j->lacks];
    st_bind_file(L, j->path, lua_pushfstring(L, "=%s", j->chunk));
    if (!luaL_testudata(L, -1, MODEL)) {
        lua_pushfstring(L, "%s: a model script ends with return setun.model {...}", j->chunk);
        return lua_error(L);
    }
    int model = lua_gettop(L), fit = FITS_EXACTLY, all;
    lua_getiuservalue(L, model, 1);
    if (j->arch) {
        memcpy(lacks, j->lacks, sizeof lacks);
        int def = lua_gettop(L), asked = count_asked(L, def, j, &all), named = has_architecture(L, def, j, asked);
        if (!named)
            memcpy(j->lacks, lacks, sizeof lacks); /* of no interest to this model */
        fit = !named || !all ? UNFIT : asked ? FITS_EXACTLY : FITS;
    }
    if (fit <= j->fit)
        return 0;
    j->fit = fit;
    j->best = j->path;
    j->best_chunk = j->chunk;
    lua_pushvalue(L, model);
    lua_setfield(L, LUA_REGISTRYINDEX, CHOSEN);
    return 0;
}

static int run_build(lua_State *L)
{
    model_job *j = lua_touserdata(L, 1);
    st_build *build = st_bind_push_build(L, j->m);
    int b = lua_gettop(L);
    lua_pushvalue(L, b);
    lua_setfield(L, LUA_REGISTRYINDEX, BUILD);
    j->b = build; /* only now: without its place in the registry an error would free it */
    lua_getfield(L, LUA_REGISTRYINDEX, CHOSEN);
    lua_getiuservalue(L, -1, 1);
    int def = lua_gettop(L);
    if (lua_getfield(L, def, "pooling") == LUA_TSTRING &&
        !(j->pooling = st_arena_strdup(st_bind_script(L)->arena, lua_tostring(L, -1))))
        return st_bind_fail(L, "out of memory");
    if (lua_getfield(L, def, "quantizer") != LUA_TNIL)
        j->quantizer = st_bind_quantizer_use(L, lua_gettop(L), 0);
    lua_settop(L, def);
    lua_getfield(L, def, "packing");
    j->packing = st_bind_packing(L, -1);
    lua_getfield(L, def, "names");
    lua_setiuservalue(L, b, 1);
    lua_getfield(L, def, "build");
    st_bind_push_handle(L, ST_CLASS_GRAPH, j->b, b, 0, "");
    st_bind_push_handle(L, HPARAMS, j->b, b, 0, "");
    lua_call(L, 2, 0);
    if (j->b->g->n_output == 0) {
        lua_pushfstring(L, "%s: build made no output; it ends with g:output(\"logits\", y)", j->chunk);
        return lua_error(L);
    }
    lua_getfield(L, def, "ignore");
    refuse_unread(L, lua_gettop(L), j->b, j->chunk, &j->refusal);
    return 0;
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* Load models in order of their names.  One that asks for more than the architecture, and finds it, is better
 * than one that does not; of equals the first. */
static setun_status choose(st_script *s, model_job *j, setun_error *err)
{
    char **names, *dir = st_arena_printf(s->arena, "%s/models", s->lib_dir);
    int64_t n;
    setun_status status = SETUN_OK;
    if (!dir)
        return st_fail(err, SETUN_NO_MEMORY, "out of memory while looking for a model script");
    ST_TRY(st_dir_list(dir, &names, &n, err));
    for (int64_t i = 0; status == SETUN_OK && j->fit < FITS_EXACTLY && i < n; i++) {
        size_t len = strlen(names[i]);
        if (len < 5 || strcmp(names[i] + len - 4, ".lua") != 0 || names[i][0] == '.')
            continue;
        j->path = st_arena_printf(s->arena, "%s/%s", dir, names[i]);
        if (!j->path)
            status = st_fail(err, SETUN_NO_MEMORY, "out of memory while looking for a model script");
        else {
            j->chunk = base_name(j->path);
            status = st_bind_call(s, load_model, j, j->chunk, err);
        }
    }
    st_dir_free(names, n);
    if (status == SETUN_OK && !j->best)
        status = st_fail(err, SETUN_UNKNOWN, "no script in %s is for the architecture '%s'; there are %.300s%s",
                         dir, j->arch, j->known.text && !j->known.failed ? j->known.text : "none", j->lacks);
    j->path = j->best;
    j->chunk = j->best_chunk;
    return status;
}

static setun_status build_model(st_script *s, model_job *j, const char *file, setun_error *err)
{
    if (!file) {
        ST_TRY(choose(s, j, err));
    } else {
        /* A file named by the user is used whatever architectures it lists. */
        j->arch = NULL;
        j->path = st_arena_strdup(s->arena, file);
        if (!j->path)
            return st_fail(err, SETUN_NO_MEMORY, "out of memory before running %s", file);
        j->chunk = base_name(j->path);
        ST_TRY(st_bind_call(s, load_model, j, j->chunk, err));
    }
    return st_bind_call(s, run_build, j, j->chunk, err);
}

setun_status st_script_model_build(st_script *s, const char *file, const char *arch, const st_script_model *m,
                                   st_script_made *made, setun_error *err)
{
    model_job j = { .arch = arch, .m = m };
    setun_status status = build_model(s, &j, file, err);
    st_str_free(&j.known);
    *made = (st_script_made){ NULL, j.path, j.pooling, j.packing, j.quantizer };
    if (j.b) {
        j.b->open = 0; /* the script may still hold it; m is gone when this returns */
        made->graph = j.b->g;
    }
    if (status == SETUN_OK && j.refusal.code)
        status = st_fail(err, j.refusal.code, "%s", j.refusal.text);
    if (status != SETUN_OK)
        made->graph = NULL;
    return status;
}

/* ---------------------------------------------------------------- opening */

void st_bind_model_open(lua_State *L)
{
    static const luaL_Reg none[] = { { NULL, NULL } };
    static const luaL_Reg own[] = { { "model", l_model }, { NULL, NULL } };
    st_bind_class(L, HPARAMS, none, hp_index);
    st_bind_class(L, MODEL, none, NULL);
    luaL_setfuncs(L, own, 0);
}
