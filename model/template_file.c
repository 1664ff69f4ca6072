/* model/template_file.c -- where a model keeps its chat template.
 *
 *     chat_template.jinja                 the text itself; newer repositories
 *     chat_template.json                  {"chat_template": text or list}
 *     tokenizer_config.json               the same member among others, and bos_token, eos_token
 *     GGUF key tokenizer.chat_template    the text, and the ids of both tokens
 *
 * A list has {"name", "template"}; the one called default is for conversations.  The first that is there is
 * taken, in this order, which is the reference's. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "model/gguf.h"
#include "model/json.h"
#include "model/template.h"

#define FILE_LIMIT ((int64_t)16 << 20) /* tokenizer_config.json may list every added token */

static setun_status no_memory(setun_error *err) { return st_fail(err, SETUN_NO_MEMORY, "no memory for a chat template"); }

/* "text", or {"content": "text"} as older files have it; NULL for anything else. */
static const char *token_text(const json_t *root, const char *key, st_arena *arena)
{
    const json_t *v = json_object_get(root, key);
    const char *text = json_string_value(json_is_object(v) ? json_object_get(v, "content") : v);
    return text ? st_arena_strdup(arena, text) : NULL;
}

/* The template among a list of named ones. */
static setun_status from_list(const json_t *list, const char *from, const json_t **text, setun_error *err)
{
    size_t n = json_array_size(list);
    for (size_t i = 0; i < n; i++) {
        const json_t *item = json_array_get(list, i);
        const char *name = json_string_value(json_object_get(item, "name"));
        const json_t *t = json_object_get(item, "template");
        if (!name || !json_is_string(t))
            return st_fail(err, SETUN_BAD_FILE, "%s: an element is not a name and a template", from);
        if (strcmp(name, "default") == 0)
            *text = t;
    }
    return *text ? SETUN_OK : st_fail(err, SETUN_UNKNOWN, "%s: none of the %zu templates is called 'default'", from, n);
}

static setun_status from_root(st_template *t, const json_t *root, const char *path, st_arena *arena, setun_error *err)
{
    const json_t *v = json_object_get(root, "chat_template"), *text = json_is_string(v) ? v : NULL;
    const char *from = st_arena_printf(arena, "chat_template of %s", path);
    if (!from)
        return no_memory(err);
    if (!json_is_object(root))
        return st_fail(err, SETUN_BAD_FILE, "%s: not a JSON object", path);
    if (!v || json_is_null(v))
        return SETUN_DECLINED;
    if (json_is_array(v))
        ST_TRY(from_list(v, from, &text, err));
    if (!text)
        return st_fail(err, SETUN_BAD_FILE, "%s: neither a text nor a list", from);
    return st_template_parse(json_string_value(text), (int64_t)json_string_length(text), from, arena, t, err);
}

/* want_text 0: only the names of the tokens. */
static setun_status from_json(st_template *t, const char *path, int want_text, st_arena *arena, setun_error *err)
{
    json_t *root;
    if (st_is_absent(path))
        return SETUN_DECLINED;
    ST_TRY(st_json_load(path, FILE_LIMIT, NULL, &root, err));
    t->bos = token_text(root, "bos_token", arena);
    t->eos = token_text(root, "eos_token", arena);
    setun_status status = want_text ? from_root(t, root, path, arena, err) : SETUN_OK;
    json_decref(root);
    return status;
}

static setun_status from_directory(st_template *t, const char *dir, st_arena *arena, setun_error *err)
{
    static const char *const names[] = {"chat_template.jinja", "chat_template.json", "tokenizer_config.json"};
    char *path[3], *text = NULL;
    int64_t n;
    for (int i = 0; i < 3; i++)
        if (!(path[i] = st_arena_printf(arena, "%s/%s", dir, names[i])))
            return no_memory(err);
    setun_status status = SETUN_DECLINED;
    if (!st_is_absent(path[0])) {
        ST_TRY(st_file_read(path[0], ST_TEMPLATE_LIMIT, &text, &n, err));
        status = st_template_parse(text, n, path[0], arena, t, err);
        free(text);
    }
    if (status == SETUN_DECLINED)
        status = from_json(t, path[1], 1, arena, err);
    setun_status tokens = status < 0 ? SETUN_OK : from_json(t, path[2], status == SETUN_DECLINED, arena, err);
    return status == SETUN_DECLINED || tokens < 0 ? tokens : status;
}

static int64_t id_of(const st_gguf *g, const char *key)
{
    const st_gguf_value *v = st_gguf_find(g, key);
    int64_t id;
    return v && st_gguf_int(v, 0, &id) == 0 && id >= 0 ? id : -1;
}

static setun_status from_gguf(st_template *t, const char *path, st_arena *arena, setun_error *err)
{
    st_gguf g = {0};
    int64_t n = 0;
    const char *from = st_arena_printf(arena, "tokenizer.chat_template of %s", path);
    setun_status status = from ? st_gguf_open(&g, path, ST_I2S_ASK, arena, err) : no_memory(err);
    if (status == SETUN_OK) {
        const st_gguf_value *v = st_gguf_find(&g, "tokenizer.chat_template");
        const char *text = v ? st_gguf_text(v, &n) : NULL;
        t->bos_id = id_of(&g, "tokenizer.ggml.bos_token_id");
        t->eos_id = id_of(&g, "tokenizer.ggml.eos_token_id");
        status = text ? st_template_parse(text, n, from, arena, t, err)
               : v    ? st_fail(err, SETUN_BAD_FILE, "%s: not a string", from)
                      : SETUN_DECLINED;
    }
    st_gguf_close(&g);
    return status;
}

setun_status st_template_open(st_template *t, const char *path, st_arena *arena, setun_error *err)
{
    *t = (st_template){.from = "", .text = "", .bos_id = -1, .eos_id = -1};
    return st_gguf_is(path) ? from_gguf(t, path, arena, err) : from_directory(t, path, arena, err);
}
