/* model/history.c -- conversations as JSON: read strictly, written in one piece or not at all. */
#include "model/history.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "base/str.h"
#include "model/json.h"

static setun_status read_message(const json_t *item, const char *path, size_t i, st_arena *arena, st_message *m, setun_error *err)
{
    const char *role = json_string_value(json_object_get(item, "role"));
    const json_t *content = json_object_get(item, "content");
    if (json_object_size(item) != 2 || !role || !json_is_string(content))
        return st_fail(err, SETUN_BAD_FILE, "%s: message %zu is not {\"role\": text, \"content\": text}", path, i + 1);
    if (!(m->role = st_message_role(role)))
        return st_fail(err, SETUN_BAD_FILE, "%s: message %zu has the role '%.40s'; system, user and assistant are known", path, i + 1, role);
    m->n = (int64_t)json_string_length(content);
    m->text = st_arena_strndup(arena, json_string_value(content), (size_t)m->n);
    return m->text ? SETUN_OK : st_fail(err, SETUN_NO_MEMORY, "no memory to read %s", path);
}

static setun_status read_root(const json_t *root, const char *path, st_arena *arena, const st_message **list, int64_t *n, setun_error *err)
{
    const json_t *messages = json_object_get(root, "messages");
    if (json_integer_value(json_object_get(root, "setun_chat")) != 1 || !json_is_array(messages) || json_object_size(root) != 2)
        return st_fail(err, SETUN_BAD_FILE, "%s: not a conversation, {\"setun_chat\": 1, \"messages\": [...]}", path);
    size_t count = json_array_size(messages);
    if (count > ST_HISTORY_MESSAGES)
        return st_fail(err, SETUN_BAD_FILE, "%s: %zu messages; at most %d are read", path, count, ST_HISTORY_MESSAGES);
    st_message *h = st_arena_array(arena, (int64_t)count + 1, sizeof *h);
    if (!h)
        return st_fail(err, SETUN_NO_MEMORY, "no memory to read %s", path);
    for (size_t i = 0; i < count; i++)
        ST_TRY(read_message(json_array_get(messages, i), path, i, arena, &h[i], err));
    *list = h;
    *n = (int64_t)count;
    return st_message_check(h, *n, path, err);
}

setun_status st_history_read(const char *path, st_arena *arena, const st_message **list, int64_t *n, setun_error *err)
{
    json_t *root;
    /* Zero bytes are refused by the JSON library. */
    ST_TRY(st_json_load(path, ST_HISTORY_BYTES, NULL, &root, err));
    setun_status s = read_root(root, path, arena, list, n, err);
    json_decref(root);
    return s;
}

setun_status st_history_write(const char *path, const st_message *list, int64_t n, setun_error *err)
{
    st_str t = {0};
    st_out *o = NULL;
    st_str_add(&t, "{\"setun_chat\": 1, \"messages\": [");
    for (int64_t i = 0; i < n; i++) {
        st_str_addf(&t, "%s\n  {\"role\": \"%s\", \"content\": ", i ? "," : "", list[i].role);
        st_str_add_json(&t, list[i].text, (size_t)list[i].n);
        st_str_add(&t, "}");
    }
    st_str_add(&t, "\n]}\n");
    setun_status s = t.failed ? st_fail(err, SETUN_NO_MEMORY, "no memory to write %s", path) : st_out_open(&o, path, 1, err);
    if (s == SETUN_OK && (s = st_out_write(o, t.text, (int64_t)t.len, err)) != SETUN_OK)
        st_out_abort(o);
    else if (s == SETUN_OK)
        s = st_out_commit(o, err);
    st_str_free(&t);
    return s;
}
