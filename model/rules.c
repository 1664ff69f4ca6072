/* model/rules.c -- change a text as a normalizer says, before it is cut into pieces. */
#include "model/rules.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"

#define MAX_GROWTH 16 /* times the text, and one content: hostile rules multiply; NFKC alone reaches 11 */

/* Bytes below belong to characters that a form never changes, not even beside others; NFC's are up to U+02FF. */
static const uint8_t low[ST_N_FORMS] = { 0xcc, 0x80, 0x80, 0x80 };

void st_normal_free(st_normal *m)
{
    free(m);
}

int st_normal_is_none(const st_normal *m) { return m->n_rules == 0; }

/* ---------------------------------------------------------------- applying */

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
static setun_status to_form(const st_normal *m, int form, const char *text, int64_t n, st_str *out, setun_error *err)
{
    for (int64_t at = 0; at < n;) {
        int64_t begin = at;
        while (begin < n && (uint8_t)text[begin] < low[form])
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
        ST_TRY(m->map(m, form, text + begin, end - begin, out, err));
        at = end;
    }
    return SETUN_OK;
}

/* Is there nothing to do?  Then the text needs no copy. */
static int is_plain(int form, const char *text, int64_t n)
{
    int64_t at = 0;
    while (at < n && (uint8_t)text[at] < low[form])
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
    int64_t limit = MAX_GROWTH * n + ST_RULE_BYTES;
    *result = text;
    *n_result = n;
    for (int i = 0; i < m->n_rules && n > 0; i++) {
        const st_rule *r = &m->rule[i];
        st_str made = { 0 };
        setun_status status = SETUN_OK;
        if (r->kind == ST_RULE_FORM && is_plain(r->form, *result, *n_result))
            continue;
        if (r->kind == ST_RULE_PREPEND && midst)
            continue;
        if (r->kind == ST_RULE_FORM) {
            status = to_form(m, r->form, *result, *n_result, &made, err);
        } else if (r->kind == ST_RULE_PREPEND) {
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

/* ---------------------------------------------------------------- as bytes */

/* A string with something in it, and no zero byte. */
static void take_content(char *out, int may_be_empty, st_bytes *in)
{
    int64_t n;
    const char *text = st_take_text(in, &n);
    in->bad |= !text || n > ST_RULE_BYTES || (n == 0 && !may_be_empty) || memchr(text, 0, (size_t)n) ||
               st_utf8_valid(text, (size_t)n) != (size_t)n;
    if (!in->bad)
        memcpy(out, text, (size_t)n);
}

setun_status st_normal_take(st_normal **out, st_bytes *in, setun_error *err)
{
    st_normal *m = calloc(1, sizeof *m);
    *out = m;
    if (!m)
        return st_fail(err, SETUN_NO_MEMORY, "no memory for the tokenizer");
    int n = (int)st_take_up_to(in, ST_RULES);
    for (int i = 0; i < n && !in->bad; i++) {
        st_rule *r = &m->rule[m->n_rules++];
        r->kind = (int)st_take_up_to(in, ST_RULE_REPLACE);
        take_content(r->from, r->kind != ST_RULE_REPLACE, in);
        take_content(r->to, 0, in);
    }
    return SETUN_OK;
}
