/* model/pooling.c -- how the hidden states of a text's tokens become one vector.
 *
 * sentence-transformers puts modules.json into a model's directory: a list of steps, each with a directory
 * of its own.  Transformer is the model itself, Pooling and Normalize are what is read here; any other
 * step (a dense layer, say) would change the vectors, so it is refused. */
#include "model/pooling.h"

#include <jansson.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "model/json.h"

/* SETUN_POOL_LAST, _MEAN and _CLS of setun.h; the layers below see setun/types.h alone. */
enum { UNSAID, LAST, MEAN, CLS };

static const struct {
    const char *name, *old, *now; /* Setun's, the flag of sentence-transformers, its newer spelling */
} kinds[] = {
    [LAST] = { "last", "pooling_mode_lasttoken", "lasttoken" },
    [MEAN] = { "mean", "pooling_mode_mean_tokens", "mean" },
    [CLS] = { "cls", "pooling_mode_cls_token", "cls" },
};
#define N_KIND ((int32_t)(sizeof kinds / sizeof kinds[0]))

int32_t st_pooling_find(const char *name)
{
    for (int32_t i = LAST; name && i < N_KIND; i++)
        if (strcmp(name, kinds[i].name) == 0)
            return i;
    return UNSAID;
}

const char *st_pooling_name(int32_t kind)
{
    return kind > UNSAID && kind < N_KIND ? kinds[kind].name : "unknown";
}

/* One member of the configuration of the pooling module. */
static setun_status read_member(st_pooling *p, const char *key, json_t *value, setun_error *err)
{
    static const char *const sizes[] = { "word_embedding_dimension", "embedding_dimension" };
    int32_t kind = UNSAID;
    if (strcmp(key, sizes[0]) == 0 || strcmp(key, sizes[1]) == 0)
        return SETUN_OK;
    if (strcmp(key, "include_prompt") == 0) {
        if (json_is_true(value))
            return SETUN_OK;
        return st_fail(err, SETUN_UNKNOWN, "%s: include_prompt is not true: which tokens are a prompt is not known to Setun",
                       p->file);
    }
    int is_name = strcmp(key, "pooling_mode") == 0 && json_is_string(value);
    if (!is_name && json_is_false(value) && strncmp(key, "pooling_mode_", 13) == 0)
        return SETUN_OK; /* a way that is not used need not be known */
    for (int32_t i = LAST; i < N_KIND; i++)
        if (is_name ? strcmp(json_string_value(value), kinds[i].now) == 0
                    : strcmp(key, kinds[i].old) == 0 && json_is_true(value))
            kind = i;
    if (!kind)
        return st_fail(err, SETUN_UNKNOWN, "%s: %s%s%s is not known to Setun; it pools lasttoken, mean and cls", p->file, key,
                       is_name ? " " : "", is_name ? json_string_value(value) : "");
    if (p->kind && p->kind != kind)
        return st_fail(err, SETUN_UNKNOWN, "%s: two ways of pooling together, %s and %s, are not supported", p->file,
                       st_pooling_name(p->kind), st_pooling_name(kind));
    p->kind = kind;
    return SETUN_OK;
}

static setun_status read_config(st_pooling *p, setun_error *err)
{
    const char *key;
    json_t *root, *value;
    setun_status s = SETUN_OK;
    ST_TRY(st_json_load(p->file, ST_JSON_SMALL, NULL, &root, err));
    if (!json_is_object(root))
        s = st_fail(err, SETUN_BAD_FILE, "%s: not a JSON object", p->file);
    json_object_foreach(root, key, value) {
        if (s == SETUN_OK)
            s = read_member(p, key, value, err);
    }
    json_decref(root);
    if (s == SETUN_OK && !p->kind)
        s = st_fail(err, SETUN_BAD_FILE, "%s: names no way of pooling", p->file);
    return s;
}

static int ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

/* The list of steps: Transformer, Pooling, and perhaps Normalize. */
static setun_status read_modules(st_pooling *p, json_t *list, const char *dir, const char *path, st_arena *arena,
                                 setun_error *err)
{
    static const char *const order[] = { ".Transformer", ".Pooling", ".Normalize" };
    size_t n = json_array_size(list);
    for (size_t i = 0; i < n; i++) {
        json_t *item = json_array_get(list, i);
        const char *type = json_string_value(json_object_get(item, "type"));
        const char *sub = json_string_value(json_object_get(item, "path"));
        if (!type || !sub)
            return st_fail(err, SETUN_BAD_FILE, "%s: a module without type or path", path);
        if (i > 2 || !ends_with(type, order[i]))
            return st_fail(err, SETUN_UNKNOWN, "%s: module %zu is %s; Setun knows a Transformer, then Pooling, then Normalize", path,
                           i, type);
        /* The name comes from a stranger's file, and must not lead out of the directory. */
        if (i == 0 ? *sub != 0 : *sub == 0 || *sub == '.' || strchr(sub, '/'))
            return st_fail(err, SETUN_UNKNOWN, "%s: module %zu cannot be in '%s'", path, i, sub);
        if (i == 1) {
            if (!(p->file = st_arena_printf(arena, "%s/%s/config.json", dir, sub)))
                return st_fail(err, SETUN_NO_MEMORY, "no memory for %s", path);
            ST_TRY(read_config(p, err));
        }
    }
    if (n < 2)
        return st_fail(err, SETUN_BAD_FILE, "%s: not a list of a Transformer and a Pooling module", path);
    p->raw = n == 2;
    return SETUN_OK;
}

setun_status st_pooling_read(st_pooling *p, const char *path, st_arena *arena, setun_error *err)
{
    const char *file = st_arena_printf(arena, "%s/modules.json", path);
    json_t *root;
    *p = (st_pooling){ 0, 0, NULL };
    if (!file)
        return st_fail(err, SETUN_NO_MEMORY, "no memory for %s", path);
    if (st_is_absent(file))
        return SETUN_OK;
    ST_TRY(st_json_load(file, ST_JSON_SMALL, NULL, &root, err));
    setun_status s = read_modules(p, root, path, file, arena, err);
    json_decref(root);
    return s;
}
