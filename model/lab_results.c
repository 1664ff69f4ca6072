/* model/lab_results.c -- see lab_results.h.  Numbers are written with 17 digits, so that what is read is what was measured. */
#include "model/lab_results.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "base/str.h"
#include "model/json.h"

#define VERSION 1
#define LIMIT ((int64_t)16 << 20) /* bytes of a file: 64 variants of any model have less */

int st_lab_result_get(const st_lab_result *r, const char *name, double *x)
{
    for (int32_t i = 0; r && i < r->n; i++)
        if (strcmp(r->value[i].name, name) == 0) {
            *x = r->value[i].x;
            return 1;
        }
    return 0;
}

/* ---------------------------------------------------------------- writing */

static void add_result(const st_lab_result *r, st_str *s)
{
    st_str_add(s, "  {\"variant\": ");
    st_str_add_json(s, r->variant, strlen(r->variant));
    st_str_addf(s, ", \"measure\": \"%s\", \"key\": \"%016" PRIx64 "\", \"%s\": {", r->measure, r->key, r->is_speed ? "speeds" : "values");
    for (int32_t i = 0; i < r->n; i++) {
        st_str_add(s, i ? ", " : "");
        st_str_add_json(s, r->value[i].name, strlen(r->value[i].name));
        st_str_addf(s, ": %.17g", r->value[i].x);
    }
    st_str_add(s, "}");
    for (int64_t i = 0; i < r->n_layer; i++)
        st_str_addf(s, "%s%.17g", i ? ", " : ", \"layers\": [", r->layer[i]);
    st_str_add(s, r->n_layer ? "]}" : "}");
}

setun_status st_lab_results_save(const st_lab_results *r, const char *path, setun_error *err)
{
    st_str s = {0};
    int shown = 0;
    st_str_addf(&s, "{\"setun_lab\": %d, \"version\": \"%s\", \"base\": ", VERSION, SETUN_VERSION);
    st_str_add_json(&s, r->base, strlen(r->base));
    if (r->logits)
        st_str_addf(&s, ", \"base_logits\": \"%016" PRIx64 "\"", r->logits);
    st_str_add(&s, ",\n \"results\": [");
    for (int64_t i = 0; i < r->n; i++)
        if (r->result[i].n) {
            st_str_add(&s, shown++ ? ",\n" : "\n");
            add_result(&r->result[i], &s);
        }
    st_str_add(&s, "\n ]}\n");
    setun_status st = s.failed ? st_fail(err, SETUN_NO_MEMORY, "no memory for %s", path)
                               : st_file_write(path, s.text, (int64_t)s.len, 0, err);
    st_str_free(&s);
    return st;
}

/* ---------------------------------------------------------------- reading */

typedef struct reader {
    const char  *path;
    st_arena    *arena;
    setun_error *err;
} reader;

static setun_status refuse(const reader *r, const char *what)
{
    return st_fail(r->err, SETUN_BAD_FILE, "%s: %s; remove it, or choose another directory with -o", r->path, what);
}

static setun_status copy_text(const reader *r, const json_t *from, const char *key, const char **to)
{
    const char *text = json_string_value(json_object_get(from, key));
    if (!text || !st_text_plain(text, strlen(text)) || strpbrk(text, "\t\r\n"))
        return refuse(r, "a name is missing or no plain text");
    *to = st_arena_strdup(r->arena, text);
    return *to ? SETUN_OK : st_fail(r->err, SETUN_NO_MEMORY, "no memory for %s", r->path);
}

/* Sixteen digits of a hash. */
static setun_status read_key(const reader *r, const json_t *from, const char *key, uint64_t *to)
{
    const char *text = json_string_value(json_object_get(from, key));
    if (!text || strlen(text) != 16 || strspn(text, "0123456789abcdef") != 16)
        return refuse(r, "a key is not a hash of 16 digits");
    *to = strtoull(text, NULL, 16);
    return SETUN_OK;
}

static setun_status read_values(const reader *r, json_t *from, st_lab_result *to)
{
    const char *name;
    json_t *x;
    if (!json_is_object(from) || json_object_size(from) > ST_LAB_VALUES || !json_object_size(from))
        return refuse(r, "a result has no values, or too many");
    json_object_foreach(from, name, x) {
        if (!json_is_number(x) || !st_text_plain(name, strlen(name)))
            return refuse(r, "a value is not a number");
        st_lab_value *v = &to->value[to->n++];
        *v = (st_lab_value){st_arena_strdup(r->arena, name), json_number_value(x)};
        if (!v->name)
            return st_fail(r->err, SETUN_NO_MEMORY, "no memory for %s", r->path);
    }
    return SETUN_OK;
}

static setun_status read_layers(const reader *r, const json_t *from, st_lab_result *to)
{
    if (!from)
        return SETUN_OK;
    to->n_layer = (int64_t)json_array_size(from);
    if (!(to->layer = st_arena_array(r->arena, to->n_layer + 1, sizeof *to->layer)))
        return st_fail(r->err, SETUN_NO_MEMORY, "no memory for %s", r->path);
    for (int64_t i = 0; i < to->n_layer; i++) {
        const json_t *x = json_array_get(from, (size_t)i);
        if (!json_is_number(x))
            return refuse(r, "layers are not a list of numbers");
        to->layer[i] = json_number_value(x);
    }
    return SETUN_OK;
}

static setun_status read_result(const reader *r, const json_t *from, st_lab_result *to)
{
    json_t *speeds = json_object_get(from, "speeds");
    ST_TRY(copy_text(r, from, "variant", &to->variant));
    ST_TRY(copy_text(r, from, "measure", &to->measure));
    ST_TRY(read_key(r, from, "key", &to->key));
    to->is_speed = speeds != NULL;
    ST_TRY(read_values(r, speeds ? speeds : json_object_get(from, "values"), to));
    return read_layers(r, json_object_get(from, "layers"), to);
}

static setun_status read_all(const reader *r, const json_t *root, st_lab_results *to)
{
    const json_t *list = json_object_get(root, "results");
    if (json_integer_value(json_object_get(root, "setun_lab")) != VERSION || !json_is_array(list))
        return refuse(r, "not the results of an experiment that this Setun can read");
    ST_TRY(copy_text(r, root, "base", &to->base));
    if (json_object_get(root, "base_logits"))
        ST_TRY(read_key(r, root, "base_logits", &to->logits));
    int64_t n = (int64_t)json_array_size(list);
    if (!(to->result = st_arena_array(r->arena, n + 1, sizeof *to->result)))
        return st_fail(r->err, SETUN_NO_MEMORY, "no memory for %s", r->path);
    for (; to->n < n; to->n++)
        ST_TRY(read_result(r, json_array_get(list, (size_t)to->n), &to->result[to->n]));
    return SETUN_OK;
}

setun_status st_lab_results_load(st_lab_results *to, const char *path, st_arena *arena, setun_error *err)
{
    const reader r = {path, arena, err};
    json_t *root;
    memset(to, 0, sizeof *to);
    if (st_is_absent(path))
        return SETUN_OK;
    ST_TRY(st_json_load(path, LIMIT, NULL, &root, err));
    setun_status st = read_all(&r, root, to);
    json_decref(root);
    return st;
}
