/* model/trace_index.c -- see trace_index.h. */
#include "model/trace_index.h"

#include <inttypes.h>
#include <string.h>

#include "base/error.h"
#include "base/table.h"
#include "model/json.h"

#define VERSION 1

void st_trace_index_print(const st_trace_index *x, st_str *s)
{
    st_str_addf(s, "{\"setun_trace\": %d, \"model\": ", VERSION);
    st_str_add_json(s, x->model, strlen(x->model));
    st_str_add(s, ",\n \"tokens\": [");
    for (int64_t i = 0; i < x->n_token; i++)
        st_str_addf(s, "%s%" PRId32, i ? "," : "", x->token[i]);
    st_str_add(s, "],\n \"tensors\": [");
    for (int64_t i = 0; i < x->n; i++) {
        const st_trace_tensor *t = &x->tensor[i];
        st_str_addf(s, "%s\n  {\"name\": \"%s\", \"file\": \"%s.npy\", \"op\": ", i ? "," : "", t->name, t->name);
        st_str_add_json(s, t->op, strlen(t->op));
        st_str_addf(s, ", \"step\": %" PRId64 ", \"type\": \"%s\", \"shape\": [", t->step, t->type);
        for (uint32_t k = 0; k < t->rank; k++)
            st_str_addf(s, "%s%" PRId64, k ? "," : "", t->dim[k]);
        st_str_add(s, "], \"where\": ");
        st_str_add_json(s, t->where, strlen(t->where));
        st_str_add(s, "}");
    }
    st_str_add(s, "]}\n");
}

/* ---------------------------------------------------------------- reading */

typedef struct reader {
    st_trace_index *x;
    const char     *path;
    st_arena       *arena;
    setun_error    *err;
} reader;

static setun_status refuse(const reader *r, const char *what)
{
    return st_fail(r->err, SETUN_BAD_FILE, "%s: %s", r->path, what);
}

/* A string that can be shown on a terminal, in one line. */
static setun_status copy_text(const reader *r, const json_t *from, const char *key, const char **to)
{
    const char *text = json_string_value(json_object_get(from, key));
    *to = NULL;
    if (!text || !st_text_plain(text, strlen(text)) || strpbrk(text, "\t\n\r"))
        return st_fail(r->err, SETUN_BAD_FILE, "%s: '%s' is missing or no plain text", r->path, key);
    *to = st_arena_strdup(r->arena, text);
    return *to ? SETUN_OK : st_fail(r->err, SETUN_NO_MEMORY, "no memory for %s", r->path);
}

/* Also what keeps a file inside the directory. */
static int is_plain(const char *name)
{
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    size_t n = strlen(name);
    return n > 0 && n < 240 && name[0] != '.' && strspn(name, allowed) == n;
}

static int whole(const json_t *v, int64_t most, int64_t *out)
{
    *out = json_integer_value(v);
    return json_is_integer(v) && *out >= 0 && *out <= most;
}

static setun_status read_tensor(const reader *r, const json_t *from, st_trace_tensor *t)
{
    const json_t *shape = json_object_get(from, "shape");
    const char *file;
    ST_TRY(copy_text(r, from, "name", &t->name));
    ST_TRY(copy_text(r, from, "file", &file));
    ST_TRY(copy_text(r, from, "op", &t->op));
    ST_TRY(copy_text(r, from, "type", &t->type));
    ST_TRY(copy_text(r, from, "where", &t->where));
    size_t n = strlen(t->name);
    if (!is_plain(t->name))
        return refuse(r, "a tensor's name has other characters than letters, digits, '.', '-' and '_'");
    if (strncmp(file, t->name, n) || strcmp(file + n, ".npy"))
        return st_fail(r->err, SETUN_BAD_FILE, "%s: the file of %s is not %s.npy", r->path, t->name, t->name);
    if (!whole(json_object_get(from, "step"), INT32_MAX, &t->step))
        return st_fail(r->err, SETUN_BAD_FILE, "%s: the step of %s is no whole number", r->path, t->name);
    t->rank = (uint32_t)json_array_size(shape);
    if (!json_is_array(shape) || json_array_size(shape) > SETUN_MAX_RANK)
        return st_fail(r->err, SETUN_BAD_FILE, "%s: the shape of %s is no list of at most 4 numbers", r->path, t->name);
    for (uint32_t k = 0; k < t->rank; k++)
        if (!whole(json_array_get(shape, k), INT64_MAX, &t->dim[k]))
            return st_fail(r->err, SETUN_BAD_FILE, "%s: the shape of %s is no list of whole numbers", r->path, t->name);
    return SETUN_OK;
}

static setun_status read_tokens(const reader *r, const json_t *list)
{
    int64_t value, n = (int64_t)json_array_size(list);
    int32_t *token = st_arena_array(r->arena, n + 1, sizeof *token);
    if (!token)
        return st_fail(r->err, SETUN_NO_MEMORY, "no memory for %s", r->path);
    if (!json_is_array(list))
        return refuse(r, "there is no list of tokens");
    for (int64_t i = 0; i < n; i++) {
        if (!whole(json_array_get(list, (size_t)i), INT32_MAX, &value))
            return refuse(r, "a token is no whole number");
        token[i] = (int32_t)value;
    }
    r->x->token = token;
    r->x->n_token = n;
    return SETUN_OK;
}

static setun_status read_tensors(const reader *r, const json_t *list, st_table *names)
{
    st_trace_index *x = r->x;
    int64_t n = (int64_t)json_array_size(list), at;
    if (!json_is_array(list))
        return refuse(r, "there is no list of tensors");
    x->tensor = st_arena_array(r->arena, n + 1, sizeof *x->tensor);
    if (!x->tensor)
        return st_fail(r->err, SETUN_NO_MEMORY, "no memory for %s", r->path);
    for (x->n = 0; x->n < n; x->n++) {
        st_trace_tensor *t = &x->tensor[x->n];
        ST_TRY(read_tensor(r, json_array_get(list, (size_t)x->n), t));
        if (st_table_get(names, t->name, strlen(t->name), &at))
            return st_fail(r->err, SETUN_BAD_FILE, "%s: two tensors are called %s", r->path, t->name);
        if (st_table_put(names, t->name, strlen(t->name), x->n))
            return st_fail(r->err, SETUN_NO_MEMORY, "no memory for %s", r->path);
    }
    return SETUN_OK;
}

setun_status st_trace_index_open(st_trace_index *x, const char *path, st_arena *arena, setun_error *err)
{
    const reader r = {x, path, arena, err};
    json_t *root;
    memset(x, 0, sizeof *x);
    ST_TRY(st_json_load(path, ST_TRACE_INDEX_LIMIT, NULL, &root, err));
    const json_t *version = json_object_get(root, "setun_trace");
    setun_status st = SETUN_OK;
    if (!json_is_integer(version))
        st = refuse(&r, "not the index of a trace: there is no 'setun_trace' in it");
    else if (json_integer_value(version) != VERSION)
        st = st_fail(err, SETUN_UNKNOWN, "%s: version %" JSON_INTEGER_FORMAT " of traces; %d is known", path, json_integer_value(version), VERSION);
    st_table *names = st_table_new(64);
    if (st == SETUN_OK && !names)
        st = st_fail(err, SETUN_NO_MEMORY, "no memory for %s", path);
    if (st == SETUN_OK)
        st = copy_text(&r, root, "model", &x->model);
    if (st == SETUN_OK)
        st = read_tokens(&r, json_object_get(root, "tokens"));
    if (st == SETUN_OK)
        st = read_tensors(&r, json_object_get(root, "tensors"), names);
    st_table_free(names);
    json_decref(root);
    return st;
}
