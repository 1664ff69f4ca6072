/* model/normal.c -- change a text as a normalizer says, before it is cut into pieces.
 *
 * A normalizer is a list of rules: Prepend, Replace of a fixed string, and NFC.  Here NFC composes
 * nothing.  A text that is its own NFC passes, and any other is refused with the place: being
 * certain that nothing is to be done takes a few ranges, doing it right takes Unicode's tables.
 *
 * A text is its own NFC if no character of it may change (NFC_Quick_Check is Yes for all), and the
 * marks that follow a character are in canonical order (Unicode Standard Annex 15).  The ranges
 * below are those of Unicode 14; normalisation of an assigned character never changes.  Two things
 * are stricter than needed: two neighbours that both have a combining class are refused whatever
 * their order, and beyond U+FFFF only what certainly has no part in this is let through. */
#include "model/normal.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

#define MAX_RULES 16
#define MAX_CONTENT 64 /* bytes; real ones have three */
#define MAX_GROWTH 8   /* times the text, and one content: hostile rules multiply */

enum { PREPEND, REPLACE, NFC };

typedef struct rule {
    int  kind;
    char from[MAX_CONTENT + 1], to[MAX_CONTENT + 1];
} rule;

struct st_normal {
    int         n_rules;
    rule        rule[MAX_RULES];
    pcre2_code *changes; /* finds what NFC might change; NULL without NFC */
};

/* NFC_Quick_Check is No or Maybe. */
static const char may_change[] =
    "\\x{300}-\\x{304}\\x{306}-\\x{30c}\\x{30f}\\x{311}\\x{313}-\\x{314}\\x{31b}\\x{323}-\\x{328}"
    "\\x{32d}-\\x{32e}\\x{330}-\\x{331}\\x{338}\\x{340}-\\x{345}\\x{374}\\x{37e}\\x{387}"
    "\\x{653}-\\x{655}\\x{897}\\x{93c}\\x{958}-\\x{95f}\\x{9be}\\x{9d7}\\x{9dc}-\\x{9dd}\\x{9df}"
    "\\x{a33}\\x{a36}\\x{a59}-\\x{a5b}\\x{a5e}\\x{b3e}\\x{b56}-\\x{b57}\\x{b5c}-\\x{b5d}\\x{bbe}"
    "\\x{bd7}\\x{c56}\\x{cc2}\\x{cd5}-\\x{cd6}\\x{d3e}\\x{d57}\\x{dca}\\x{dcf}\\x{ddf}\\x{ece}"
    "\\x{f43}\\x{f4d}\\x{f52}\\x{f57}\\x{f5c}\\x{f69}\\x{f73}\\x{f75}-\\x{f76}\\x{f78}\\x{f81}"
    "\\x{f93}\\x{f9d}\\x{fa2}\\x{fa7}\\x{fac}\\x{fb9}\\x{102e}\\x{1161}-\\x{1175}"
    "\\x{11a8}-\\x{11c2}\\x{1acf}-\\x{1aff}\\x{1b35}\\x{1f71}\\x{1f73}\\x{1f75}\\x{1f77}\\x{1f79}"
    "\\x{1f7b}\\x{1f7d}\\x{1fbb}\\x{1fbe}\\x{1fc9}\\x{1fcb}\\x{1fd3}\\x{1fdb}\\x{1fe3}\\x{1feb}"
    "\\x{1fee}-\\x{1fef}\\x{1ff9}\\x{1ffb}\\x{1ffd}\\x{2000}-\\x{2001}\\x{2126}"
    "\\x{212a}-\\x{212b}\\x{2329}-\\x{232a}\\x{2adc}\\x{3099}-\\x{309a}\\x{f900}-\\x{fa0d}"
    "\\x{fa10}\\x{fa12}\\x{fa15}-\\x{fa1e}\\x{fa20}\\x{fa22}\\x{fa25}-\\x{fa26}"
    "\\x{fa2a}-\\x{fa6d}\\x{fa70}-\\x{fad9}\\x{fb1d}\\x{fb1f}\\x{fb2a}-\\x{fb36}"
    "\\x{fb38}-\\x{fb3c}\\x{fb3e}\\x{fb40}-\\x{fb41}\\x{fb43}-\\x{fb44}\\x{fb46}-\\x{fb4e}";

/* The combining class is not 0, and not in the list above. */
static const char marks[] =
    "\\x{305}\\x{30d}-\\x{30e}\\x{310}\\x{312}\\x{315}-\\x{31a}\\x{31c}-\\x{322}\\x{329}-\\x{32c}"
    "\\x{32f}\\x{332}-\\x{337}\\x{339}-\\x{33f}\\x{346}-\\x{34e}\\x{350}-\\x{36f}"
    "\\x{483}-\\x{487}\\x{591}-\\x{5bd}\\x{5bf}\\x{5c1}-\\x{5c2}\\x{5c4}-\\x{5c5}\\x{5c7}"
    "\\x{610}-\\x{61a}\\x{64b}-\\x{652}\\x{656}-\\x{65f}\\x{670}\\x{6d6}-\\x{6dc}"
    "\\x{6df}-\\x{6e4}\\x{6e7}-\\x{6e8}\\x{6ea}-\\x{6ed}\\x{711}\\x{730}-\\x{74a}"
    "\\x{7eb}-\\x{7f3}\\x{7fd}\\x{816}-\\x{819}\\x{81b}-\\x{823}\\x{825}-\\x{827}"
    "\\x{829}-\\x{82d}\\x{859}-\\x{85b}\\x{898}-\\x{89f}\\x{8ca}-\\x{8e1}\\x{8e3}-\\x{8ff}"
    "\\x{94d}\\x{951}-\\x{954}\\x{9bc}\\x{9cd}\\x{9fe}\\x{a3c}\\x{a4d}\\x{abc}\\x{acd}\\x{b3c}"
    "\\x{b4d}\\x{bcd}\\x{c3c}\\x{c4d}\\x{c55}\\x{cbc}\\x{ccd}\\x{d3b}-\\x{d3c}\\x{d4d}"
    "\\x{e38}-\\x{e3a}\\x{e48}-\\x{e4b}\\x{eb8}-\\x{eba}\\x{ec8}-\\x{ecb}\\x{f18}-\\x{f19}"
    "\\x{f35}\\x{f37}\\x{f39}\\x{f71}-\\x{f72}\\x{f74}\\x{f7a}-\\x{f7d}\\x{f80}\\x{f82}-\\x{f84}"
    "\\x{f86}-\\x{f87}\\x{fc6}\\x{1037}\\x{1039}-\\x{103a}\\x{108d}\\x{135d}-\\x{135f}"
    "\\x{1714}-\\x{1715}\\x{1734}\\x{17d2}\\x{17dd}\\x{18a9}\\x{1939}-\\x{193b}"
    "\\x{1a17}-\\x{1a18}\\x{1a60}\\x{1a75}-\\x{1a7c}\\x{1a7f}\\x{1ab0}-\\x{1abd}"
    "\\x{1abf}-\\x{1ace}\\x{1b34}\\x{1b44}\\x{1b6b}-\\x{1b73}\\x{1baa}-\\x{1bab}\\x{1be6}"
    "\\x{1bf2}-\\x{1bf3}\\x{1c37}\\x{1cd0}-\\x{1cd2}\\x{1cd4}-\\x{1ce0}\\x{1ce2}-\\x{1ce8}"
    "\\x{1ced}\\x{1cf4}\\x{1cf8}-\\x{1cf9}\\x{1dc0}-\\x{1dff}\\x{20d0}-\\x{20dc}\\x{20e1}"
    "\\x{20e5}-\\x{20f0}\\x{2cef}-\\x{2cf1}\\x{2d7f}\\x{2de0}-\\x{2dff}\\x{302a}-\\x{302f}"
    "\\x{a66f}\\x{a674}-\\x{a67d}\\x{a69e}-\\x{a69f}\\x{a6f0}-\\x{a6f1}\\x{a806}\\x{a82c}"
    "\\x{a8c4}\\x{a8e0}-\\x{a8f1}\\x{a92b}-\\x{a92d}\\x{a953}\\x{a9b3}\\x{a9c0}\\x{aab0}"
    "\\x{aab2}-\\x{aab4}\\x{aab7}-\\x{aab8}\\x{aabe}-\\x{aabf}\\x{aac1}\\x{aaf6}\\x{abed}"
    "\\x{fb1e}\\x{fe20}-\\x{fe2f}";

static const char beyond[] =
    "\\p{Cn}\\x{10000}-\\x{1d3ff}\\x{1d800}-\\x{1efff}\\x{1fb00}-\\x{1ffff}\\x{2f800}-\\x{2fa1f}"
    "\\x{40000}-\\x{e001f}\\x{e0080}-\\x{10ffff}";

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
    if (strcmp(type, "NFC") != 0)
        return st_fail(err, SETUN_UNKNOWN, "%s: normalizer %s is not supported", path, type);
    r->kind = NFC;
    ST_TRY(st_json_known(json, "", "normalizer NFC", path, err));
    int code;
    PCRE2_SIZE offset;
    st_str s = { 0 };
    st_str_addf(&s, "[%s%s]|[%s][%s]", may_change, beyond, marks, marks);
    if (!m->changes && !s.failed)
        m->changes = pcre2_compile((PCRE2_SPTR)s.text, PCRE2_ZERO_TERMINATED,
                                   PCRE2_UTF | PCRE2_NO_UTF_CHECK, &code, &offset, NULL);
    st_str_free(&s);
    if (!m->changes)
        return st_fail(err, SETUN_NO_MEMORY, "no memory for the normalizer of %s", path);
    (void)pcre2_jit_compile(m->changes, PCRE2_JIT_COMPLETE);
    return SETUN_OK;
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
    if (m)
        pcre2_code_free(m->changes);
    free(m);
}

int st_normal_is_none(const st_normal *m) { return m->n_rules == 0; }

/* ---------------------------------------------------------------- applying */

static setun_status check_nfc(const st_normal *m, const char *text, int64_t n, setun_error *err)
{
    int64_t at = 0;
    while (at < n && (uint8_t)text[at] < 0xcc) /* below U+0300 nothing changes */
        at++;
    if (at == n)
        return SETUN_OK;
    pcre2_match_data *match = pcre2_match_data_create(1, NULL);
    if (!match)
        return st_fail(err, SETUN_NO_MEMORY, "no memory to normalize the text");
    int rc = pcre2_match(m->changes, (PCRE2_SPTR)text, (PCRE2_SIZE)n, (PCRE2_SIZE)at,
                         PCRE2_NO_UTF_CHECK, match, NULL);
    long long where = rc >= 0 ? (long long)pcre2_get_ovector_pointer(match)[0] : 0;
    pcre2_match_data_free(match);
    if (rc == PCRE2_ERROR_NOMATCH)
        return SETUN_OK;
    if (rc < 0)
        return st_fail(err, SETUN_FULL, "checking the text for normalizer NFC failed (error %d)", rc);
    return st_fail(err, SETUN_UNKNOWN,
                   "the text may change under normalizer NFC at byte %lld, which is not supported: "
                   "give it composed",
                   where);
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
        if (r->kind == NFC) {
            ST_TRY(check_nfc(m, *result, *n_result, err));
            continue;
        }
        if (r->kind == PREPEND && midst)
            continue;
        if (r->kind == PREPEND) {
            st_str_add(&made, r->to);
            st_str_addn(&made, *result, (size_t)*n_result);
        } else {
            replace(r->from, r->to, *result, *n_result, &made);
        }
        st_str_free(held);
        *held = made;
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
