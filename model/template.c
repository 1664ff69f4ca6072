/* model/template.c -- what a chat template can write, read off its text without running it.
 *
 *     text -> pieces between tags, trimmed as the reference does -> tokens of each tag -> marks
 *
 * Not here: where the text comes from (template_file.c), and which format it is (scripts/templates).
 *
 * Conversations with tools are not Setun's, and templates are full of what they would write for them.  So
 * conditions are worked out as far as they can be without tools: yes, no, or perhaps.  A branch is left
 * out only when it certainly does not run; whatever is in doubt stays, and has to be known to the format. */
#include "model/template.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/str.h"

#define MAX_TOKENS 512
#define MAX_DEPTH 64

enum { NAME, STRING, OTHER };
enum { NO, PERHAPS, YES };

/* A token of a tag.  Strings are decoded; others point into the text. */
typedef struct token {
    int         kind;
    const char *s;
    size_t      n;
} token;

/* An open block.  dead: nothing in its present branch can run; settled: a branch before it always does. */
typedef struct frame {
    char is_if, dead, settled, outside; /* outside: the block as a whole cannot run */
} frame;

typedef struct reader {
    const char  *at, *end;
    st_template *t;
    st_arena    *arena;
    token        tok[MAX_TOKENS];
    int          n_tok, i; /* i: where a condition is being read */
    int          deep;
    frame        open[MAX_DEPTH];
    int          n_open;
    setun_error *err;
} reader;

static setun_status no_memory(const reader *r)
{
    return st_fail(r->err, SETUN_NO_MEMORY, "no memory for the %s", r->t->from);
}

static setun_status bad(const reader *r, const char *what)
{
    return st_fail(r->err, SETUN_BAD_FILE, "%s: %s at byte %lld", r->t->from, what, (long long)(r->at - r->t->text));
}

/* ---------------------------------------------------------------- marks */

static int is_dead(const reader *r) { return r->n_open && r->open[r->n_open - 1].dead; }

static setun_status add_mark(reader *r, const char *mark, size_t n)
{
    st_template *t = r->t;
    if (is_dead(r) || n == 0)
        return SETUN_OK;
    for (int64_t i = 0; i < t->n_mark; i++)
        if (strlen(t->mark[i]) == n && memcmp(t->mark[i], mark, n) == 0)
            return SETUN_OK;
    if (t->n_mark == ST_TEMPLATE_MARKS)
        return st_fail(r->err, SETUN_UNKNOWN, "%s: it can write more than %d different things", t->from, ST_TEMPLATE_MARKS);
    if (!(t->mark[t->n_mark] = st_arena_strndup(r->arena, mark, n)))
        return no_memory(r);
    t->n_mark++;
    return SETUN_OK;
}

static setun_status add_text(reader *r, const char *s, size_t n)
{
    st_str mark = {0};
    if (n && s[0] == '{')
        st_str_add(&mark, "{");
    st_str_addn(&mark, s, n);
    setun_status status = mark.failed ? no_memory(r) : add_mark(r, mark.text, mark.len);
    st_str_free(&mark);
    return status;
}

static setun_status add_use(reader *r, const char *before, const token *name, const char *after, const token *argument)
{
    st_str mark = {0};
    st_str_add(&mark, before);
    st_str_addn(&mark, name->s, name->n);
    if (argument) {
        st_str_add(&mark, "(\"");
        st_str_addn(&mark, argument->s, argument->n);
        st_str_add(&mark, "\")");
    }
    st_str_add(&mark, after);
    setun_status status = mark.failed ? no_memory(r) : add_mark(r, mark.text, mark.len);
    st_str_free(&mark);
    return status;
}

/* ---------------------------------------------------------------- tokens */

static int is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
static int is_digit(char c) { return c >= '0' && c <= '9'; }
static int is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

/* Escapes are those of the reference's language; the ones with numbers have not been met in templates. */
static setun_status read_string(reader *r, token *t)
{
    char quote = *r->at++, *out = st_arena_alloc(r->arena, r->end - r->at + 1), *q = out;
    static const char from[] = "ntrvfab", to[] = "\n\t\r\v\f\a\b";
    if (!out)
        return no_memory(r);
    while (r->at < r->end && *r->at != quote) {
        char c = *r->at++;
        if (c == '\\' && r->at < r->end) {
            char e = *r->at++;
            const char *p = e ? strchr(from, e) : NULL;
            if (p)
                c = to[p - from];
            else if (e == '\\' || e == '\'' || e == '"')
                c = e;
            else if (is_letter(e) || is_digit(e))
                return bad(r, "an escape that is not known");
            else if (e != '\n') { /* anything else keeps its backslash */
                *q++ = '\\';
                c = e;
            } else
                continue;
        }
        *q++ = c;
    }
    if (r->at == r->end)
        return bad(r, "a string without an end");
    r->at++;
    *t = (token){STRING, out, (size_t)(q - out)};
    return SETUN_OK;
}

/* The tokens of a tag up to its end, which is consumed; close is % or }. */
static setun_status read_tag(reader *r, char close, int *trim)
{
    *trim = 0;
    for (r->n_tok = 0;;) {
        while (r->at < r->end && is_space(*r->at))
            r->at++;
        if (r->end - r->at < 2)
            return bad(r, "a tag without an end");
        const char *s = r->at;
        if (s[0] == close && s[1] == '}') {
            r->at += 2;
            return SETUN_OK;
        }
        if (r->end - s > 2 && (s[0] == '-' || s[0] == '+') && s[1] == close && s[2] == '}') {
            *trim = s[0] == '-' ? 2 : 1;
            r->at += 3;
            return SETUN_OK;
        }
        if (r->n_tok == MAX_TOKENS)
            return bad(r, "a tag of too many words");
        token *t = &r->tok[r->n_tok++];
        if (*s == '\'' || *s == '"') {
            ST_TRY(read_string(r, t));
            continue;
        }
        size_t n = 1;
        if (is_letter(*s) || is_digit(*s))
            while (s + n < r->end && (is_letter(s[n]) || is_digit(s[n])))
                n++;
        else if (strchr("=!<>", *s) && s[1] == '=')
            n = 2;
        *t = (token){is_letter(*s) ? NAME : OTHER, s, n};
        r->at += n;
    }
}

static int is(const reader *r, int i, const char *what)
{
    return i >= 0 && i < r->n_tok && r->tok[i].kind != STRING && strlen(what) == r->tok[i].n &&
           memcmp(r->tok[i].s, what, r->tok[i].n) == 0;
}

static int is_kind(const reader *r, int i, int kind) { return i >= 0 && i < r->n_tok && r->tok[i].kind == kind; }

static int is_one_of(const token *t, const char *const *list)
{
    for (; *list; list++)
        if (strlen(*list) == t->n && memcmp(*list, t->s, t->n) == 0)
            return 1;
    return 0;
}

/* ---------------------------------------------------------------- conditions */

static const char *const tool_names[] = {"tools", "custom_tools", "builtin_tools", "tool_calls", "documents", NULL};
static const char *const roles[] = {"system", "user", "assistant", NULL};

/* One comparison, without and, or, not in front: tokens from .. to. */
static int judge(const reader *r, int from, int to)
{
    int n = to - from;
    /* 'tool_calls' in message */
    if (n >= 3 && is_kind(r, from, STRING) && is_one_of(&r->tok[from], tool_names))
        return is(r, from + 1, "in") ? NO : is(r, from + 1, "not") && is(r, from + 2, "in") ? YES : PERHAPS;
    /* The last name of a path: message.role, message['role'] */
    int i = from;
    const token *last = NULL;
    while (i < to && (is(r, i, ".") || is(r, i, "[") || is(r, i, "]") || is_kind(r, i, NAME) ||
                      (is_kind(r, i, STRING) && is(r, i - 1, "[") && is(r, i + 1, "]")) ||
                      (is_kind(r, i, OTHER) && is_digit(r->tok[i].s[0])))) {
        if (is(r, i, "is") || is(r, i, "in") || is(r, i, "not"))
            break;
        if (is_kind(r, i, NAME) || is_kind(r, i, STRING))
            last = &r->tok[i];
        i++;
    }
    if (!last)
        return PERHAPS;
    if (is_one_of(last, tool_names)) {
        if (i == to)
            return NO;
        int flip = is(r, i + 1, "not");
        if (is(r, i, "is") && i + 2 + flip == to && (is(r, i + 1 + flip, "defined") || is(r, i + 1 + flip, "none")))
            return is(r, i + 1 + flip, "defined") == flip ? YES : NO;
        return PERHAPS;
    }
    static const char *const role[] = {"role", NULL};
    if (is_one_of(last, role) && i + 2 == to && is_kind(r, i + 1, STRING) && !is_one_of(&r->tok[i + 1], roles))
        return is(r, i, "==") ? NO : is(r, i, "!=") ? YES : PERHAPS;
    return PERHAPS;
}

static int either(reader *r);

static int primary(reader *r)
{
    if (is(r, r->i, "not")) {
        r->i++;
        return YES - primary(r);
    }
    if (is(r, r->i, "(") && r->deep < MAX_DEPTH) {
        r->i++;
        r->deep++;
        int v = either(r);
        r->deep--;
        int whole = is(r, r->i, ")");
        r->i += whole;
        if (whole && (r->i == r->n_tok || is(r, r->i, ")") || is(r, r->i, "and") || is(r, r->i, "or")))
            return v;
    }
    int from = r->i, depth = 0;
    for (; r->i < r->n_tok; r->i++) {
        if (depth == 0 && (is(r, r->i, "and") || is(r, r->i, "or") || is(r, r->i, ")")))
            break;
        depth += is(r, r->i, "(") - is(r, r->i, ")");
    }
    /* What follows a parenthesis belongs to it: (a) == b is not judged. */
    return from > 0 && is(r, from - 1, ")") ? PERHAPS : judge(r, from, r->i);
}

static int both(reader *r)
{
    int v = primary(r);
    while (is(r, r->i, "and")) {
        r->i++;
        int w = primary(r);
        v = w < v ? w : v;
    }
    return v;
}

static int either(reader *r)
{
    int v = both(r);
    while (is(r, r->i, "or")) {
        r->i++;
        int w = both(r);
        v = w > v ? w : v;
    }
    return v;
}

static int condition(reader *r, int from)
{
    r->i = from;
    r->deep = 0;
    int v = either(r);
    return r->i == r->n_tok ? v : PERHAPS;
}

/* ---------------------------------------------------------------- tags */

/* A string that is only compared or names a member. */
static int is_silent(const reader *r, int i)
{
    int key = is(r, i - 1, "[") && is(r, i + 1, "]") && (is_kind(r, i - 2, NAME) || is(r, i - 2, "]") || is(r, i - 2, ")"));
    return key || is(r, i - 1, "==") || is(r, i - 1, "!=") || is(r, i - 1, "in") || is(r, i + 1, "==") || is(r, i + 1, "!=") ||
           is(r, i + 1, "in") || (is(r, i + 1, "not") && is(r, i + 2, "in"));
}

/* Behind the parenthesis at i that belongs to it. */
static int behind(const reader *r, int i)
{
    int depth = 0;
    do
        depth += is(r, i, "(") - is(r, i, ")");
    while (++i < r->n_tok && depth > 0);
    return i;
}

static setun_status expression(reader *r, int from)
{
    static const char *const tokens[] = {"bos_token", "eos_token", NULL};
    static const char *const quiet[] = {"namespace", "range", NULL};
    for (int i = from; i < r->n_tok; i++) {
        const token *t = &r->tok[i];
        if (t->kind == STRING && !is_silent(r, i)) {
            st_str joined = {0};
            st_str_addn(&joined, t->s, t->n);
            for (; (is(r, i + 1, "+") || is(r, i + 1, "~")) && is_kind(r, i + 2, STRING); i += 2)
                st_str_addn(&joined, r->tok[i + 2].s, r->tok[i + 2].n);
            setun_status status = joined.failed ? no_memory(r) : add_text(r, joined.text ? joined.text : "", joined.len);
            st_str_free(&joined);
            ST_TRY(status);
        }
        if (t->kind != NAME)
            continue;
        if (is(r, i - 1, "|")) {
            ST_TRY(add_use(r, "{|", t, "}", NULL));
        } else if (is(r, i - 1, ".") && is(r, i + 1, "(")) {
            int one = is_kind(r, i + 2, STRING) && is(r, i + 3, ")");
            ST_TRY(add_use(r, "{.", t, one ? "}" : "()}", one ? &r->tok[i + 2] : NULL));
            i += one ? 3 : 0;
        } else if (is(r, i, "raise_exception") && is(r, i + 1, "(")) {
            i = behind(r, i + 1) - 1; /* what it says ends the rendering and is not written */
        } else if (is(r, i + 1, "(") && !is_one_of(t, quiet)) {
            ST_TRY(add_use(r, "{", t, "()}", NULL));
        } else if (!is(r, i - 1, ".") && is_one_of(t, tokens)) {
            ST_TRY(add_use(r, "{", t, "}", NULL));
        }
    }
    return SETUN_OK;
}

static setun_status push(reader *r, int is_if, int can_run)
{
    if (r->n_open == MAX_DEPTH)
        return bad(r, "blocks nested too deeply");
    char outside = (char)is_dead(r);
    r->open[r->n_open++] = (frame){(char)is_if, (char)(outside || can_run == NO), can_run == YES, outside};
    return SETUN_OK;
}

static setun_status block(reader *r)
{
    frame *top = r->n_open ? &r->open[r->n_open - 1] : NULL;
    if (is(r, 0, "if"))
        return push(r, 1, condition(r, 1));
    if (is(r, 0, "for")) {
        int i = 1;
        while (i < r->n_tok && !is(r, i, "in"))
            i++;
        const token *last = r->n_tok ? &r->tok[r->n_tok - 1] : NULL;
        return push(r, 0, last && i < r->n_tok - 1 && is_one_of(last, tool_names) ? NO : PERHAPS);
    }
    if (is(r, 0, "elif") || is(r, 0, "else")) {
        if (!top || (!top->is_if && is(r, 0, "elif")))
            return bad(r, "a branch outside of an if");
        int v = is(r, 0, "elif") ? condition(r, 1) : PERHAPS;
        top->dead = top->outside || (top->is_if && top->settled) || v == NO;
        top->settled |= v == YES;
        return SETUN_OK;
    }
    if (is(r, 0, "endif") || is(r, 0, "endfor")) {
        if (!top || top->is_if != is(r, 0, "endif"))
            return bad(r, "a block that ends but was not begun");
        r->n_open--;
        return SETUN_OK;
    }
    if (is(r, 0, "set") || is(r, 0, "endset"))
        return expression(r, 1);
    if (is(r, 0, "generation") || is(r, 0, "endgeneration"))
        return SETUN_OK; /* marks what is trained on */
    return is_dead(r) ? SETUN_OK
                      : st_fail(r->err, SETUN_UNKNOWN, "%s: the tag '%.*s' is not known", r->t->from,
                                r->n_tok ? (int)(r->tok[0].n < 40 ? r->tok[0].n : 40) : 0, r->n_tok ? r->tok[0].s : "");
}

/* Text between two tags.  before: how the tag before it ends, 0 none, 1 {{ }}, 2 a block or comment, 3 with a
 * minus; after: the same of how the next one begins. */
static setun_status plain(reader *r, const char *s, const char *e, int before, int after)
{
    if (before == 2 && s < e && *s == '\n')
        s++;
    while (before == 3 && s < e && is_space(*s))
        s++;
    while (after == 3 && e > s && is_space(e[-1]))
        e--;
    if (after == 2) {
        const char *line = e;
        while (line > s && (line[-1] == ' ' || line[-1] == '\t'))
            line--;
        if (line == r->t->text || line[-1] == '\n') /* the line has nothing else in front of the block */
            e = line;
    }
    return add_text(r, s, (size_t)(e - s));
}

static setun_status walk(reader *r)
{
    for (int before = 0; r->at < r->end;) {
        const char *s = r->at, *p = s;
        while (r->end - p > 1 && !(p[0] == '{' && (p[1] == '{' || p[1] == '%' || p[1] == '#')))
            p++;
        if (r->end - p <= 1) {
            r->at = r->end;
            /* One newline at the very end is never written. */
            return plain(r, s, r->end > s && r->end[-1] == '\n' ? r->end - 1 : r->end, before, 0);
        }
        char kind = p[1], sign = r->end - p > 2 ? p[2] : ' ';
        ST_TRY(plain(r, s, p, before, sign == '-' ? 3 : sign == '+' || kind == '{' ? 1 : 2));
        r->at = p + 2 + (sign == '-' || sign == '+');
        int trim = 0;
        if (kind == '#') {
            while (r->end - r->at > 1 && !(r->at[0] == '#' && r->at[1] == '}'))
                r->at++;
            if (r->end - r->at <= 1)
                return bad(r, "a comment without an end");
            trim = r->at[-1] == '-' && r->at > p + 2 ? 2 : 0;
            r->at += 2;
        } else {
            ST_TRY(read_tag(r, kind == '{' ? '}' : '%', &trim));
            ST_TRY(kind == '{' ? expression(r, 0) : block(r));
        }
        before = trim == 2 ? 3 : trim == 1 || kind == '{' ? 1 : 2;
    }
    return SETUN_OK;
}

setun_status st_template_parse(const char *text, int64_t n, const char *from, st_arena *arena, st_template *t,
                               setun_error *err)
{
    if (n < 0 || n > ST_TEMPLATE_LIMIT)
        return st_fail(err, SETUN_BAD_FILE, "%s: %lld bytes; at most %d are read", from, (long long)n, ST_TEMPLATE_LIMIT);
    size_t valid = n ? st_utf8_valid(text, (size_t)n) : 0;
    if (valid != (size_t)n || (n && memchr(text, 0, (size_t)n)))
        return st_fail(err, SETUN_BAD_FILE, "%s: not valid UTF-8, or a zero byte", from);
    t->from = st_arena_strdup(arena, from);
    t->text = n ? st_arena_strndup(arena, text, (size_t)n) : "";
    t->n = n;
    t->n_mark = 0;
    t->mark = st_arena_array(arena, ST_TEMPLATE_MARKS, sizeof *t->mark);
    reader *r = malloc(sizeof *r);
    if (!t->from || !t->text || !t->mark || !r) {
        free(r);
        return st_fail(err, SETUN_NO_MEMORY, "no memory for a chat template");
    }
    r->at = t->text;
    r->end = t->text + n;
    r->t = t;
    r->arena = arena;
    r->n_open = 0;
    r->err = err;
    setun_status status = walk(r);
    if (status == SETUN_OK && r->n_open)
        status = bad(r, "a block without an end");
    free(r);
    return status;
}
