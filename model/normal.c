/* model/normal.c -- read a normalizer from JSON, and compute Unicode's normal forms with libutf8proc.
 *
 * Not here: when a text needs that (rules.c). */
#include "model/normal.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/error.h"

/* STABLE keeps the forms of characters what they were in earlier versions of Unicode, as the standard demands. */
static const struct {
    const char       *name;
    utf8proc_option_t options;
} forms[ST_N_FORMS] = {
    { "NFC", UTF8PROC_STABLE | UTF8PROC_COMPOSE },
    { "NFD", UTF8PROC_STABLE | UTF8PROC_DECOMPOSE },
    { "NFKC", UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT },
    { "NFKD", UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT },
};

/* ---------------------------------------------------------------- reading */

setun_status st_json_known(json_t *json, const char *known, const char *what, const char *path,
                           setun_error *err)
{
    const char *key;
    json_t *value;
    json_object_foreach(json, key, value) {
        size_t n = strlen(key);
        int fine = strcmp(key, "type") == 0;
        for (const char *p = known; *p && !fine; p += strcspn(p, " ") + 1)
            fine = strcspn(p, " ") == n && memcmp(p, key, n) == 0;
        if (!fine)
            return st_fail(err, SETUN_UNKNOWN, "%s: the member %s of %s is not known to Setun", path,
                           key, what);
    }
    return SETUN_OK;
}

setun_status st_json_flag(json_t *json, const char *key, int absent, int *value, const char *path,
                          setun_error *err)
{
    json_t *v = json_object_get(json, key);
    if (v && !json_is_boolean(v) && !json_is_null(v))
        return st_fail(err, SETUN_BAD_FILE, "%s: %s is neither true nor false", path, key);
    *value = json_is_boolean(v) ? json_is_true(v) : absent;
    return SETUN_OK;
}

static setun_status read_string(char *out, const char *text, const char *what, const char *path,
                                setun_error *err)
{
    if (!text || !text[0] || strlen(text) > ST_RULE_BYTES)
        return st_fail(err, SETUN_UNKNOWN, "%s: the normalizer's %s is not a string of 1 to %d bytes",
                       path, what, ST_RULE_BYTES);
    memcpy(out, text, strlen(text) + 1);
    return SETUN_OK;
}

static setun_status add_rule(st_normal *m, json_t *json, int depth, const char *path,
                             setun_error *err)
{
    const char *type = json_string_value(json_object_get(json, "type"));
    if (!type || depth > 4 || m->n_rules == ST_RULES)
        return st_fail(err, SETUN_BAD_FILE,
                       "%s: a normalizer without type, nested too deeply, or one of too many", path);
    if (strcmp(type, "Sequence") == 0) {
        json_t *list = json_object_get(json, "normalizers");
        ST_TRY(st_json_known(json, "normalizers ", "normalizer Sequence", path, err));
        for (size_t i = 0; i < json_array_size(list); i++)
            ST_TRY(add_rule(m, json_array_get(list, i), depth + 1, path, err));
        return SETUN_OK;
    }
    st_rule *r = &m->rule[m->n_rules++];
    if (strcmp(type, "Prepend") == 0) {
        r->kind = ST_RULE_PREPEND;
        ST_TRY(st_json_known(json, "prepend ", "normalizer Prepend", path, err));
        return read_string(r->to, json_string_value(json_object_get(json, "prepend")), "prepend", path,
                           err);
    }
    if (strcmp(type, "Replace") == 0) {
        json_t *pattern = json_object_get(json, "pattern");
        r->kind = ST_RULE_REPLACE;
        ST_TRY(st_json_known(json, "pattern content ", "normalizer Replace", path, err));
        ST_TRY(st_json_known(pattern, "String ", "normalizer Replace's pattern", path, err));
        ST_TRY(read_string(r->from, json_string_value(json_object_get(pattern, "String")), "pattern",
                           path, err));
        return read_string(r->to, json_string_value(json_object_get(json, "content")), "content", path,
                           err);
    }
    r->kind = ST_RULE_FORM;
    while (r->form < ST_N_FORMS && strcmp(type, forms[r->form].name) != 0)
        r->form++;
    if (r->form == ST_N_FORMS)
        return st_fail(err, SETUN_UNKNOWN, "%s: normalizer %s is not supported", path, type);
    return st_json_known(json, "", forms[r->form].name, path, err);
}

/* One stretch of the text through the library. */
static setun_status map_stretch(const st_normal *m, int form, const char *text, int64_t n, st_str *out, setun_error *err)
{
    (void)m;
    utf8proc_uint8_t *made = NULL;
    utf8proc_ssize_t got = utf8proc_map((const utf8proc_uint8_t *)text, n, &made, forms[form].options);
    if (got >= 0)
        st_str_addn(out, made, (size_t)got);
    free(made);
    if (got == UTF8PROC_ERROR_NOMEM)
        return st_fail(err, SETUN_NO_MEMORY, "no memory to normalize the text");
    return got >= 0 ? SETUN_OK : st_fail(err, SETUN_FAILED, "the text has no %s: %s", forms[form].name, utf8proc_errmsg(got));
}

setun_status st_normal_new(st_normal **out, json_t *json, const char *path, setun_error *err)
{
    *out = calloc(1, sizeof **out);
    if (!*out)
        return st_fail(err, SETUN_NO_MEMORY, "no memory for %s", path);
    (*out)->map = map_stretch;
    return !json || json_is_null(json) ? SETUN_OK : add_rule(*out, json, 0, path, err);
}

setun_status st_normal_put(const st_normal *m, const char *path, st_str *out, setun_error *err)
{
    st_put_u32(out, (uint32_t)m->n_rules);
    for (int i = 0; i < m->n_rules; i++) {
        const st_rule *r = &m->rule[i];
        if (r->kind == ST_RULE_FORM)
            return st_fail(err, SETUN_UNKNOWN, "%s: a bundle cannot have the normalizer %s", path, forms[r->form].name);
        st_put_u32(out, (uint32_t)r->kind);
        st_put_text(out, r->from, (int64_t)strlen(r->from));
        st_put_text(out, r->to, (int64_t)strlen(r->to));
    }
    return SETUN_OK;
}
