/* model/normal.c -- change a text as a normalizer says, before it is cut into pieces.
 *
 * A normalizer is a list of rules: Prepend, Replace of a fixed string, and Unicode's normal forms NFC, NFD,
 * NFKC and NFKD, which libutf8proc computes.  Most of a text is what no form changes: only stretches
 * around other characters go through the library (see to_form). */
#include "model/normal.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/error.h"

#define MAX_RULES 16
#define MAX_CONTENT 64 /* bytes; real ones have three */
#define MAX_GROWTH 16  /* times the text, and one content: hostile rules multiply; NFKC alone reaches 11 */

enum { PREPEND, REPLACE, FORM };

/* STABLE keeps the forms of characters what they were in earlier versions of Unicode, as the standard demands. */
static const struct {
    const char        *name;
    utf8proc_option_t options;
    uint8_t           low; /* bytes below belong to characters that it never changes, not even beside others */
} forms[] = {
    { "NFC", UTF8PROC_STABLE | UTF8PROC_COMPOSE, 0xcc }, /* up to U+02FF */
    { "NFD", UTF8PROC_STABLE | UTF8PROC_DECOMPOSE, 0x80 },
    { "NFKC", UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT, 0x80 },
    { "NFKD", UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT, 0x80 },
};
#define N_FORMS ((int)(sizeof forms / sizeof forms[0]))

typedef struct rule {
    int  kind, form;
    char from[MAX_CONTENT + 1], to[MAX_CONTENT + 1];
} rule;

struct st_normal {
    int  n_rules;
    rule rule[MAX_RULES];
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
    if (!text || !text[0] || strlen(text) > MAX_CONTENT)
        return st_fail(err, SETUN_UNKNOWN, "%s: the normalizer's %s is not a string of 1 to %d bytes",
                       path, what, MAX_CONTENT);
    memcpy(out, text, strlen(text) + 1);
    return SETUN_OK;
}

static setun_status add_rule(st_normal *m, json_t *json, int depth, const char *path,
                             setun_error *err)
{
    const char *type = json_string_value(json_object_get(json, "type"));
    if (!type || depth > 4 || m->n_rules == MAX_RULES)
        return st_fail(err, SETUN_BAD_FILE,
                       "%s: a normalizer without type, nested too deeply, or one of too many", path);
    if (strcmp(type, "Sequence") == 0) {
        json_t *list = json_object_get(json, "normalizers");
        ST_TRY(st_json_known(json, "normalizers ", "normalizer Sequence", path, err));
        for (size_t i = 0; i < json_array_size(list); i++)
            ST_TRY(add_rule(m, json_array_get(list, i), depth + 1, path, err));
        return SETUN_OK;
    }
    rule *r = &m->rule[m->n_rules++];
    if (strcmp(type, "Prepend") == 0) {
        r->kind = PREPEND;
        ST_TRY(st_json_known(json, "prepend ", "normalizer Prepend", path, err));
        return read_string(r->to, json_string_value(json_object_get(json, "prepend")), "prepend", path,
                           err);
    }
    if (strcmp(type, "Replace") == 0) {
        json_t *pattern = json_object_get(json, "pattern");
        r->kind = REPLACE;
        ST_TRY(st_json_known(json, "pattern content ", "normalizer Replace", path, err));
        ST_TRY(st_json_known(pattern, "String ", "normalizer Replace's pattern", path, err));
        ST_TRY(read_string(r->from, json_string_value(json_object_get(pattern, "String")), "pattern",
                           path, err));
        return read_string(r->to, json_string_value(json_object_get(json, "content")), "content", path,
                           err);
    }
    r->kind = FORM;
    while (r->form < N_FORMS && strcmp(type, forms[r->form].name) != 0)
        r->form++;
    if (r->form == N_FORMS)
        return st_fail(err, SETUN_UNKNOWN, "%s: normalizer %s is not supported", path, type);
    return st_json_known(json, "", forms[r->form].name, path, err);
}

setun_status st_normal_new(st_normal **out, json_t *json, const char *path, setun_error *err)
{
    *out = calloc(1, sizeof **out);
    if (!*out)
        return st_fail(err, SETUN_NO_MEMORY, "no memory for %s", path);
    return !json || json_is_null(json) ? SETUN_OK : add_rule(*out, json, 0, path, err);
}

void st_normal_free(st_normal *m)
{
    free(m);
}

int st_normal_is_none(const st_normal *m) { return m->n_rules == 0; }

/* ---------------------------------------------------------------- applying */

/* One stretch of the text through the library. */
static setun_status map_stretch(int form, const char *text, int64_t n, st_str *out, setun_error *err)
{
    utf8proc_uint8_t *made = NULL;
    utf8proc_ssize_t got = utf8proc_map((const utf8proc_uint8_t *)text, n, &made, forms[form].options);
    if (got >= 0)
        st_str_addn(out, made, (size_t)got);
    free(made);
    if (got == UTF8PROC_ERROR_NOMEM)
        return st_fail(err, SETUN_NO_MEMORY, "no memory to normalize the text");
    return got >= 0 ? SETUN_OK : st_fail(err, SETUN_FAILED, "the text has no %s: %s", forms[form].name, utf8proc_errmsg(got));
}

/* Where a stretch ends that begins at text: before the next ASCII character, which joins nothing before it.
 * Nor does U+11A7 in a Korean syllable, though the library joins it to one, and loses it, up to version 2.8. */
static int64_t stretch(const char *text, int64_t n)
{
    int64_t end = 1;
    while (end < n && (uint8_t)text[end] >= 0x80 && (n - end < 3 || memcmp(text + end, "\xe1\x86\xa7", 3) != 0))
        end++;
    return end;
}

/* A stretch begins with the character before the first one that may change, which may join what follows. */
static setun_status to_form(int form, const char *text, int64_t n, st_str *out, setun_error *err)
{
    for (int64_t at = 0; at < n;) {
        int64_t begin = at;
        while (begin < n && (uint8_t)text[begin] < forms[form].low)
            begin++;
        if (begin == n) {
            st_str_addn(out, text + at, (size_t)(n - at));
            break;
        }
        int64_t end = begin + stretch(text + begin, n - begin);
        if (begin > at)
            for (begin--; begin > at && ((uint8_t)text[begin] & 0xc0) == 0x80;)
                begin--;
        st_str_addn(out, text + at, (size_t)(begin - at));
        ST_TRY(map_stretch(form, text + begin, end - begin, out, err));
        at = end;
    }
    return SETUN_OK;
}

/* Is there nothing to do?  Then the text needs no copy. */
static int is_plain(int form, const char *text, int64_t n)
{
    int64_t at = 0;
    while (at < n && (uint8_t)text[at] < forms[form].low)
        at++;
    return at == n;
}

static void replace(const char *from, const char *to, const char *text, int64_t n, st_str *out)
{
    size_t n_from = strlen(from), n_to = strlen(to);
    const char *end = text + n, *start = text, *hit = text;
    while ((hit = memchr(hit, from[0], (size_t)(end - hit))) != NULL) {
        if ((size_t)(end - hit) < n_from || memcmp(hit, from, n_from) != 0) {
            hit++;
            continue;
        }
        st_str_addn(out, start, (size_t)(hit - start));
        st_str_addn(out, to, n_to);
        start = hit += n_from;
    }
    st_str_addn(out, start, (size_t)(end - start));
}

static setun_status apply(const st_normal *m, int midst, const char *text, int64_t n, st_str *held,
                          const char **result, int64_t *n_result, setun_error *err)
{
    int64_t limit = MAX_GROWTH * n + MAX_CONTENT;
    *result = text;
    *n_result = n;
    for (int i = 0; i < m->n_rules && n > 0; i++) {
        const rule *r = &m->rule[i];
        st_str made = { 0 };
        setun_status status = SETUN_OK;
        if (r->kind == FORM && is_plain(r->form, *result, *n_result))
            continue;
        if (r->kind == PREPEND && midst)
            continue;
        if (r->kind == FORM) {
            status = to_form(r->form, *result, *n_result, &made, err);
        } else if (r->kind == PREPEND) {
            st_str_add(&made, r->to);
            st_str_addn(&made, *result, (size_t)*n_result);
        } else {
            replace(r->from, r->to, *result, *n_result, &made);
        }
        st_str_free(held);
        *held = made;
        ST_TRY(status);
        if (made.failed)
            return st_fail(err, SETUN_NO_MEMORY, "no memory to normalize the text");
        *result = made.text;
        *n_result = (int64_t)made.len;
        if (*n_result > limit)
            return st_fail(err, SETUN_FULL, "the normalizer makes the text %d times longer", MAX_GROWTH);
    }
    return SETUN_OK;
}

setun_status st_normal_apply(const st_normal *m, const char *text, int64_t n, st_str *held,
                             const char **result, int64_t *n_result, setun_error *err)
{
    return apply(m, 0, text, n, held, result, n_result, err);
}

setun_status st_normal_continue(const st_normal *m, const char *text, int64_t n, st_str *held,
                                const char **result, int64_t *n_result, setun_error *err)
{
    return apply(m, 1, text, n, held, result, n_result, err);
}
