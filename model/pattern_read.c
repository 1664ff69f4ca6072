/* model/pattern_read.c -- from the text of a regular expression to its program.
 *
 *     text -> parts: alternatives, groups, repeated characters -> instructions
 *
 * The text has gone through model/pretok.c and through PCRE2 itself, so it is valid, and what engines read differently
 * is not in it.  What one character may be (a letter, a class, \p{L}, all of these in (?i: )) is never
 * interpreted here: PCRE2 is asked about every character there is.
 *
 * Instructions are written where they run, jumps are relative, and a part that is repeated is copied; so
 * nothing has to be kept of a part but where it begins.  Refused are captures that are used, looking back, and a
 * part that matches nothing and is repeated without end: engines do not agree what the last one means. */
#include "model/pattern_read.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

#define MOST_DEEP 24
#define SURROGATES 0xd800u
#define BEHIND_THEM 0xe000u

typedef struct reader {
    const char  *at, *regex, *path;
    st_pattern  *p;
    int64_t      cap_code;
    int          fold, deep; /* inside (?i: ); groups inside each other */
    char        *all;        /* every character in order, as a text */
    int64_t      n_all;
    setun_error *err;
} reader;

static setun_status refuse(const reader *r, const char *what)
{
    return st_fail(r->err, SETUN_UNKNOWN, "%s: the regex %.120s%s uses %s, which a bundle cannot", r->path, r->regex,
                   strlen(r->regex) > 120 ? "..." : "", what);
}

static setun_status no_memory(const reader *r)
{
    return st_fail(r->err, SETUN_NO_MEMORY, "no memory for the regex of %s", r->path);
}

/* ---------------------------------------------------------------- sets */

static setun_status make_all(reader *r)
{
    if (!(r->all = malloc(4 * (size_t)(ST_CHAR_LAST + 1))))
        return no_memory(r);
    for (uint32_t c = 0; c <= ST_CHAR_LAST; c++)
        if (c < SURROGATES || c >= BEHIND_THEM)
            r->n_all += st_char_put(c, r->all + r->n_all);
    return SETUN_OK;
}

/* One character or class, n bytes of the expression, as PCRE2 reads it. */
static setun_status ask(reader *r, const char *text, size_t n, st_chars *set)
{
    st_str s = {0};
    int code;
    PCRE2_SIZE offset;
    setun_status status = r->all ? SETUN_OK : make_all(r);
    st_str_add(&s, r->fold ? "(?i:" : "(?:");
    st_str_addn(&s, text, n);
    st_str_add(&s, ")++");
    pcre2_code *re = status != SETUN_OK || s.failed ? NULL
                     : pcre2_compile((PCRE2_SPTR)s.text, s.len, PCRE2_UTF | PCRE2_NO_UTF_CHECK | PCRE2_UCP, &code, &offset, NULL);
    pcre2_match_data *match = pcre2_match_data_create(1, NULL);
    if (status == SETUN_OK && (!re || !match))
        status = no_memory(r);
    if (re)
        (void)pcre2_jit_compile(re, PCRE2_JIT_COMPLETE);
    int rc = 0;
    for (PCRE2_SIZE at = 0; status == SETUN_OK; at = pcre2_get_ovector_pointer(match)[1]) {
        uint32_t first, last;
        rc = pcre2_match(re, (PCRE2_SPTR)r->all, (PCRE2_SIZE)r->n_all, at, PCRE2_NO_UTF_CHECK, match, NULL);
        if (rc < 0)
            break;
        const PCRE2_SIZE *span = pcre2_get_ovector_pointer(match);
        (void)st_char_at(r->all, (int64_t)span[0], &first);
        (void)st_char_at(r->all, st_char_before(r->all, (int64_t)span[1]), &last);
        status = st_chars_add(set, first, last, r->err);
    }
    if (status == SETUN_OK && rc != PCRE2_ERROR_NOMATCH)
        status = st_fail(r->err, SETUN_FAILED, "%s: PCRE2 could not say what %.*s is (error %d)", r->path, (int)n, text, rc);
    pcre2_match_data_free(match);
    pcre2_code_free(re);
    st_str_free(&s);
    return status;
}

/* The number of a set, which is taken over or freed. */
static setun_status number(reader *r, st_chars *set, int32_t *out)
{
    st_pattern *p = r->p;
    for (int64_t i = 0; i < p->n_set; i++)
        if (st_chars_equal(&p->set[i], set)) {
            *out = (int32_t)i;
            st_chars_free(set);
            return SETUN_OK;
        }
    if (p->n_set == ST_PATTERN_SETS) {
        st_chars_free(set);
        return refuse(r, "too many different characters and classes");
    }
    *out = (int32_t)p->n_set;
    p->set[p->n_set++] = *set;
    return SETUN_OK;
}

/* ---------------------------------------------------------------- instructions */

/* Room for n more. */
static setun_status room(reader *r, int64_t n)
{
    st_pattern *p = r->p;
    if (p->n_code + n > ST_PATTERN_CODE)
        return refuse(r, "too many parts and repetitions");
    if (p->n_code + n <= r->cap_code)
        return SETUN_OK;
    int64_t cap = 2 * (p->n_code + n);
    st_pinst *more = realloc(p->code, (size_t)cap * sizeof *more);
    if (!more)
        return no_memory(r);
    p->code = more;
    r->cap_code = cap;
    return SETUN_OK;
}

static setun_status add(reader *r, int32_t op, int64_t a, int64_t b, int64_t c)
{
    ST_TRY(room(r, 1));
    r->p->code[r->p->n_code++] = (st_pinst){op, (int32_t)a, (int32_t)b, (int32_t)c};
    return SETUN_OK;
}

/* Before what begins at `at`; jumps inside of that stay right. */
static setun_status insert(reader *r, int64_t at, int32_t op, int64_t a, int64_t b)
{
    ST_TRY(add(r, op, a, b, 0));
    st_pinst *code = r->p->code, last = code[r->p->n_code - 1];
    memmove(code + at + 1, code + at, (size_t)(r->p->n_code - 1 - at) * sizeof *code);
    code[at] = last;
    return SETUN_OK;
}

/* ---------------------------------------------------------------- repetitions */

enum { GREEDY, LAZY, POSSESSIVE };

typedef struct quantifier {
    int64_t min, max; /* max -1: any number */
    int     how;
} quantifier;

static int read_number(const char **p, int64_t *x)
{
    const char *s = *p;
    for (*x = 0; *s >= '0' && *s <= '9' && *x < 100000; s++)
        *x = 10 * *x + (*s - '0');
    int some = s > *p;
    *p = s;
    return some;
}

/* 1: there is one, and it is consumed. */
static setun_status read_quantifier(reader *r, quantifier *q, int *is)
{
    char c = *r->at;
    *is = c == '?' || c == '*' || c == '+' || c == '{';
    if (!*is)
        return SETUN_OK;
    *q = (quantifier){c == '+', c == '?' ? 1 : -1, GREEDY};
    if (c == '{') {
        const char *p = r->at + 1;
        int good = read_number(&p, &q->min);
        q->max = q->min;
        if (good && *p == ',') {
            p++;
            if (!read_number(&p, &q->max))
                q->max = -1;
        }
        if (!good || *p != '}' || q->min > 1000 || q->max > 1000)
            return refuse(r, "a { that repeats nothing, or more than 1000 times");
        r->at = p;
    }
    r->at++;
    if (*r->at == '?' || *r->at == '+')
        q->how = *r->at++ == '?' ? LAZY : POSSESSIVE;
    return SETUN_OK;
}

/* Of the part of n instructions at the end, q. */
static setun_status repeat(reader *r, int64_t at, const quantifier *q, int can_be_empty)
{
    int64_t n = r->p->n_code - at, from = at;
    st_pinst *first = n ? &r->p->code[at] : NULL;
    if (n == 1 && first->op == ST_P_CHAR && q->how != LAZY) {
        *first = (st_pinst){q->how == GREEDY ? ST_P_REPEAT : ST_P_HOLD, first->a, (int32_t)q->min, (int32_t)q->max};
        return SETUN_OK;
    }
    if (q->max < 0 && can_be_empty)
        return refuse(r, "a part that may be empty and is repeated without end");
    if (!n) /* (?:)? */
        return SETUN_OK;
    st_pinst *part = malloc((size_t)n * sizeof *part);
    if (!part)
        return no_memory(r);
    memcpy(part, first, (size_t)n * sizeof *part);
    r->p->n_code = at;
    setun_status s = SETUN_OK;
    int lazy = q->how == LAZY;
    int64_t optional = q->max < 0 ? 1 : q->max - q->min, body = 0;
    for (int64_t i = 0; s == SETUN_OK && i < q->min + optional; i++) {
        int maybe = i >= q->min;
        /* All that is optional is left at once when one is left out. */
        int64_t out = q->max < 0 ? n + 2 : (q->min + optional - i) * (n + 1);
        body = r->p->n_code;
        if (maybe)
            s = lazy ? add(r, ST_P_SPLIT, out, 1, 0) : add(r, ST_P_SPLIT, 1, out, 0);
        if (s == SETUN_OK)
            s = room(r, n);
        if (s == SETUN_OK) {
            memcpy(r->p->code + r->p->n_code, part, (size_t)n * sizeof *part);
            r->p->n_code += n;
        }
    }
    if (s == SETUN_OK && q->max < 0)
        s = add(r, ST_P_JUMP, body - r->p->n_code, 0, 0);
    free(part);
    if (s == SETUN_OK && q->how == POSSESSIVE) {
        s = add(r, ST_P_MATCH, 0, 0, 0);
        if (s == SETUN_OK)
            s = insert(r, from, ST_P_ATOM, r->p->n_code - from + 1, 0);
    }
    return s;
}

/* ---------------------------------------------------------------- parts */

static setun_status alternatives(reader *r, int *can_be_empty);

/* The bytes of the character, escape or class at r->at. */
static size_t atom_bytes(const char *p)
{
    if (*p == '\\') {
        size_t n = strchr("pPx", p[1]) && p[2] == '{' ? strcspn(p, "}") + 1 : 0;
        uint32_t c;
        return n ? n : 1 + (size_t)st_char_at(p, 1, &c);
    }
    if (*p == '[') {
        const char *q = p + 1;
        while (*q && *q != ']')
            q += *q == '\\' ? 2 : 1;
        return (size_t)(q - p) + 1;
    }
    uint32_t c;
    return (size_t)st_char_at(p, 0, &c);
}

static setun_status character(reader *r)
{
    st_chars set = {0};
    int32_t a;
    uint32_t c;
    size_t n = atom_bytes(r->at);
    int plain = !r->fold && !strchr("\\[.", *r->at); /* stands for itself: the one case that is plain without asking */
    (void)st_char_at(r->at, 0, &c);
    setun_status s = plain ? st_chars_add(&set, c, c, r->err) : ask(r, r->at, n, &set);
    if (s != SETUN_OK) {
        st_chars_free(&set);
        return s;
    }
    r->at += n;
    ST_TRY(number(r, &set, &a));
    return add(r, ST_P_CHAR, a, 0, 0);
}

/* What follows "(?" up to where the group's own text begins. */
static setun_status group_kind(reader *r, int *op, int *negative)
{
    const char *p = r->at;
    *op = -1;
    *negative = 0;
    if (*p == ':') {
        r->at++;
    } else if (p[0] == 'i' && p[1] == ':') {
        r->at += 2;
        r->fold = 1;
    } else if (*p == '=' || *p == '!') {
        r->at++;
        *op = ST_P_LOOK;
        *negative = *p == '!';
    } else if (*p == '>') {
        r->at++;
        *op = ST_P_ATOM;
    } else if (p[0] == '<' && p[1] != '=' && p[1] != '!') {
        r->at += strcspn(p, ">") + 1; /* a name, which nothing refers to: references are refused with \k */
    } else {
        return refuse(r, p[0] == '<' ? "a look behind, (?<= or (?<!" : "an option that is no (?i: )");
    }
    return SETUN_OK;
}

/* (...) in all its forms; r->at behind the parenthesis. */
static setun_status group(reader *r, int *can_be_empty, int *looks)
{
    int op = -1, negative = 0, fold = r->fold;
    int64_t from = r->p->n_code;
    if (r->at[0] == '*')
        return refuse(r, "(*");
    if (++r->deep > MOST_DEEP)
        return refuse(r, "groups nested too deeply");
    if (r->at[0] == '?') {
        r->at++;
        ST_TRY(group_kind(r, &op, &negative));
    }
    ST_TRY(alternatives(r, can_be_empty));
    if (*r->at != ')')
        return refuse(r, "a group without an end");
    r->at++;
    r->deep--;
    r->fold = fold;
    *looks = op == ST_P_LOOK;
    if (*looks)
        *can_be_empty = 1;
    if (op < 0)
        return SETUN_OK;
    ST_TRY(add(r, ST_P_MATCH, 0, 0, 0));
    return insert(r, from, op, r->p->n_code - from + 1, negative);
}

static setun_status sequence(reader *r, int *can_be_empty)
{
    *can_be_empty = 1;
    while (*r->at && *r->at != '|' && *r->at != ')') {
        int64_t from = r->p->n_code;
        int empty = 0, looks = 0, is;
        quantifier q;
        if (strchr("?*+{", *r->at))
            return refuse(r, "a repetition of nothing");
        if (*r->at == '(') {
            r->at++;
            ST_TRY(group(r, &empty, &looks));
        } else {
            ST_TRY(character(r));
        }
        ST_TRY(read_quantifier(r, &q, &is));
        if (is && looks)
            return refuse(r, "a repeated look ahead");
        if (is) {
            ST_TRY(repeat(r, from, &q, empty));
            empty |= q.min == 0;
        }
        *can_be_empty &= empty;
    }
    return SETUN_OK;
}

/* a|b|c is SPLIT a, (b|c); a JUMP behind each but the last. */
static setun_status alternatives(reader *r, int *can_be_empty)
{
    int64_t from = r->p->n_code, jump = -1;
    *can_be_empty = 0;
    for (;;) {
        int empty;
        ST_TRY(sequence(r, &empty));
        *can_be_empty |= empty;
        if (*r->at != '|')
            break;
        r->at++;
        ST_TRY(insert(r, from, ST_P_SPLIT, 1, r->p->n_code + 2 - from));
        /* Until the end is known, each of these jumps tells how far back the one before it is. */
        ST_TRY(add(r, ST_P_JUMP, jump, 0, 0));
        jump = r->p->n_code - 1;
        from = r->p->n_code;
    }
    while (jump >= 0) {
        st_pinst *i = &r->p->code[jump];
        int64_t before = i->a;
        i->a = (int32_t)(r->p->n_code - jump);
        jump = before;
    }
    return SETUN_OK;
}

setun_status st_pattern_read(st_pattern **out, const char *regex, int literal, const char *path, setun_error *err)
{
    reader r = {.at = regex, .regex = regex, .path = path, .err = err};
    int empty;
    *out = NULL;
    r.p = calloc(1, sizeof *r.p);
    if (!r.p || !(r.p->set = calloc(ST_PATTERN_SETS, sizeof *r.p->set))) {
        free(r.p);
        return no_memory(&r);
    }
    setun_status s = SETUN_OK;
    for (int64_t at = 0, n = (int64_t)strlen(regex); literal && s == SETUN_OK && at < n;) {
        st_chars set = {0};
        uint32_t c;
        int32_t a = 0;
        at += st_char_at(regex, at, &c);
        s = st_chars_add(&set, c, c, err);
        if (s == SETUN_OK)
            s = number(&r, &set, &a);
        if (s == SETUN_OK)
            s = add(&r, ST_P_CHAR, a, 0, 0);
    }
    if (!literal)
        s = alternatives(&r, &empty);
    if (s == SETUN_OK && !literal && *r.at)
        s = refuse(&r, "a ) without a group");
    if (s == SETUN_OK)
        s = add(&r, ST_P_MATCH, 0, 0, 0);
    free(r.all);
    if (s != SETUN_OK) {
        st_pattern_free(r.p);
        return s;
    }
    *out = r.p;
    return SETUN_OK;
}
