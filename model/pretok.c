/* model/pretok.c -- cut text into pieces with the tokenizer's own regular expressions.
 *
 * A pre-tokenizer is a list of stages.  Each stage cuts every piece of the one before into matches
 * and the gaps between them, and keeps both ("Isolated").
 *
 * The expressions were written for another engine (Oniguruma).  Where PCRE2 reads the same text
 * differently it would cut differently without a word, so translate() lets through only what both
 * read alike, rewrites \s (PCRE2 adds U+180E, which lost White_Space in Unicode 6.3), and refuses
 * the rest, naming it.  Letters and digits are those of the Unicode version of the PCRE2 library.
 *
 * Expressions and texts come from strangers.  Every match has a limit on its steps; a match that
 * needs more is tried again with a higher limit, which is taken from an allowance for the whole
 * call.  Steps do not count characters (a*b on a long run of a has one step for each start and
 * looks at all the rest), so there is a deadline as well, some hundred times what any sane
 * expression needs.  Neither limit ever changes an answer; both give an error. */
#include "model/pretok.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/str.h"

#define MAX_STAGES 16
#define MAX_PATTERN 8192
#define FIRST_LIMIT 1000u  /* steps; an ordinary piece takes some tens */
#define LAST_LIMIT 256000000u
#define ALLOWANCE 64000000 /* steps above FIRST_LIMIT, plus 64 for each byte of text */
#define DEADLINE_NS 20000000000 /* plus 20 us for each byte */
#define MATCHES_PER_LOOK 64     /* at the clock */

struct st_pretok {
    int         n_stages;
    pcre2_code *stage[MAX_STAGES];
    const char *path;
};

/* Unicode White_Space, as the inside of a class. */
static const char white[] =
    "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}"
    "\\x{205f}\\x{3000}";

/* GPT-2's expression, which ByteLevel applies when use_regex is true. */
static const char gpt2[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/* ---------------------------------------------------------------- reading the expression */

static setun_status refuse(setun_error *err, const char *path, const char *regex, const char *what)
{
    return st_fail(err, SETUN_UNKNOWN, "%s: the regex %.120s%s uses %s, which is not supported",
                   path, regex, strlen(regex) > 120 ? "..." : "", what);
}

/* Copies one escape, p at the character after the backslash; returns what is wrong with it, or NULL. */
static const char *copy_escape(const char **p, int in_class, st_str *out)
{
    char c = *(*p)++;
    if (c == 's' || (c == 'S' && !in_class)) {
        st_str_addf(out, in_class ? "%s%s%s" : "[%s%s%s", c == 'S' ? "^" : "", white,
                    in_class ? "" : "]");
        return NULL;
    }
    if (c == 'S')
        return "\\S inside [ ]";
    int word = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (c == '\0')
        return "a lone \\";
    if (word && !strchr("rntfpPdDx", c))
        return "an escape that other engines read differently";
    if (c == 'x' && **p != '{')
        return "\\x without { }";
    st_str_addf(out, "\\%c", c);
    if ((c == 'p' || c == 'P' || c == 'x') && **p == '{') { /* its braces are no quantifier */
        size_t n = strcspn(*p, "}");
        st_str_addn(out, *p, n);
        *p += n;
        if (**p == '}')
            st_str_addn(out, (*p)++, 1);
    }
    return NULL;
}

static setun_status translate(const char *regex, const char *path, st_str *out, setun_error *err)
{
    int in_class = 0, class_start = 0;
    if (strncmp(regex, "(*", 2) == 0)
        return refuse(err, path, regex, "(*");
    for (const char *p = regex; *p;) {
        const char *what = NULL;
        int start = class_start;
        class_start = 0;
        if (*p == '\\') {
            p++;
            what = copy_escape(&p, in_class, out);
        } else if (in_class && (*p == '[' || (p[0] == '&' && p[1] == '&'))) {
            what = "classes inside classes";
        } else {
            /* What follows a quantifier in braces: "+" is possessive here and a repetition there. */
            if (!in_class && *p == '}' && p[1] == '+')
                what = "{ }+";
            if (!in_class && (*p == '^' || *p == '$'))
                what = "a line anchor";
            if (!in_class && p[0] == '(' && p[1] == '?' && !strchr(":!=<i>", p[2]))
                what = "an extension after (?";
            if (!in_class && *p == '[')
                in_class = class_start = 1;
            else if (in_class && *p == '^' && start)
                class_start = 1; /* a ']' may follow as an ordinary character */
            else if (in_class && *p == ']' && start)
                what = "] as a member of a class without \\";
            else if (in_class && *p == ']')
                in_class = 0;
            st_str_addn(out, p++, 1);
        }
        if (what)
            return refuse(err, path, regex, what);
    }
    return out->failed ? st_fail(err, SETUN_NO_MEMORY, "no memory for the regex of %s", path)
                       : SETUN_OK;
}

static setun_status add_stage(st_pretok *p, const char *regex, int literal, setun_error *err)
{
    st_str s = { 0 };
    int code;
    PCRE2_SIZE offset;
    if (p->n_stages == MAX_STAGES)
        return st_fail(err, SETUN_UNKNOWN, "%s: more than %d pre-tokenizers", p->path, MAX_STAGES);
    if (!regex[0] || strlen(regex) > MAX_PATTERN)
        return st_fail(err, SETUN_BAD_FILE, "%s: a pattern of %zu bytes", p->path, strlen(regex));
    if (!literal) {
        setun_status st = translate(regex, p->path, &s, err);
        if (st != SETUN_OK) {
            st_str_free(&s);
            return st;
        }
    }
    pcre2_code *re =
        pcre2_compile((PCRE2_SPTR)(literal ? regex : s.text), PCRE2_ZERO_TERMINATED,
                      PCRE2_UTF | PCRE2_NO_UTF_CHECK | (literal ? PCRE2_LITERAL : PCRE2_UCP), &code,
                      &offset, NULL);
    st_str_free(&s);
    if (!re) {
        PCRE2_UCHAR text[128];
        (void)pcre2_get_error_message(code, text, sizeof text);
        return st_fail(err, SETUN_BAD_FILE, "%s: the regex %.120s is not valid: %s", p->path, regex,
                       (const char *)text);
    }
    /* Refused where memory may not be made executable; the interpreter gives the same answers. */
    (void)pcre2_jit_compile(re, PCRE2_JIT_COMPLETE);
    p->stage[p->n_stages++] = re;
    return SETUN_OK;
}

/* ---------------------------------------------------------------- reading the JSON */

static int flag(json_t *json, const char *key, int absent)
{
    json_t *v = json_object_get(json, key);
    return v && json_is_boolean(v) ? json_is_true(v) : absent;
}

static setun_status add_split(st_pretok *p, json_t *json, setun_error *err)
{
    json_t *pattern = json_object_get(json, "pattern");
    const char *regex = json_string_value(json_object_get(pattern, "Regex"));
    const char *text = json_string_value(json_object_get(pattern, "String"));
    const char *behavior = json_string_value(json_object_get(json, "behavior"));
    if (!behavior || strcmp(behavior, "Isolated") != 0)
        return st_fail(err, SETUN_UNKNOWN,
                       "%s: pre_tokenizer Split with behavior %s is not supported", p->path,
                       behavior ? behavior : "missing");
    if (flag(json, "invert", 0))
        return st_fail(err, SETUN_UNKNOWN, "%s: pre_tokenizer Split with invert is not supported",
                       p->path);
    if ((!regex && !text) || json_object_size(pattern) != 1)
        return st_fail(err, SETUN_BAD_FILE, "%s: pre_tokenizer Split has no pattern", p->path);
    return add_stage(p, regex ? regex : text, !regex, err);
}

/* One pre-tokenizer; *done is set when it was ByteLevel, which must be the last. */
static setun_status add_one(st_pretok *p, json_t *json, int depth, int *done, setun_error *err)
{
    const char *type = json_string_value(json_object_get(json, "type"));
    if (!type || depth > 4)
        return st_fail(err, SETUN_BAD_FILE,
                       "%s: a pre_tokenizer without type, or nested too deeply", p->path);
    if (*done)
        return st_fail(err, SETUN_UNKNOWN, "%s: pre_tokenizer %s after ByteLevel is not supported",
                       p->path, type);
    if (strcmp(type, "Sequence") == 0) {
        json_t *list = json_object_get(json, "pretokenizers");
        for (size_t i = 0; i < json_array_size(list); i++)
            ST_TRY(add_one(p, json_array_get(list, i), depth + 1, done, err));
        return SETUN_OK;
    }
    if (strcmp(type, "Split") == 0)
        return add_split(p, json, err);
    if (strcmp(type, "Digits") == 0)
        return add_stage(p, flag(json, "individual_digits", 0) ? "\\p{N}" : "\\p{N}+", 0, err);
    if (strcmp(type, "ByteLevel") != 0)
        return st_fail(err, SETUN_UNKNOWN, "%s: pre_tokenizer %s is not supported", p->path, type);
    *done = 1;
    if (flag(json, "add_prefix_space", 1))
        return st_fail(err, SETUN_UNKNOWN,
                       "%s: pre_tokenizer ByteLevel with add_prefix_space is not supported",
                       p->path);
    return flag(json, "use_regex", 1) ? add_stage(p, gpt2, 0, err) : SETUN_OK;
}

setun_status st_pretok_new(st_pretok **out, json_t *json, const char *path, setun_error *err)
{
    st_pretok *p = calloc(1, sizeof *p);
    int done = 0;
    *out = p;
    if (!p)
        return st_fail(err, SETUN_NO_MEMORY, "no memory for %s", path);
    p->path = path;
    ST_TRY(add_one(p, json, 0, &done, err));
    p->path = NULL; /* borrowed only while reading */
    return done ? SETUN_OK
                : st_fail(err, SETUN_UNKNOWN,
                          "%s: pre_tokenizer without ByteLevel is not supported", path);
}

void st_pretok_free(st_pretok *p)
{
    for (int i = 0; p && i < p->n_stages; i++)
        pcre2_code_free(p->stage[i]);
    free(p);
}

/* ---------------------------------------------------------------- cutting */

typedef struct cutter {
    const st_pretok     *p;
    pcre2_match_data    *match[MAX_STAGES];
    pcre2_match_context *context;
    pcre2_jit_stack     *stack;
    int64_t              allowance, deadline, n_matches;
    st_piece_fn          piece;
    void                *user;
    setun_error         *err;
} cutter;

/* pcre2_match with limits that rise as long as the allowance lasts. */
static int match(cutter *c, int stage, const char *text, int64_t n, int64_t from)
{
    if (c->n_matches++ % MATCHES_PER_LOOK == 0 && st_now_ns() > c->deadline)
        return PCRE2_ERROR_MATCHLIMIT;
    for (uint32_t limit = FIRST_LIMIT;; limit *= 16) {
        (void)pcre2_set_match_limit(c->context, limit);
        int rc = pcre2_match(c->p->stage[stage], (PCRE2_SPTR)text, (PCRE2_SIZE)n, (PCRE2_SIZE)from,
                             PCRE2_NO_UTF_CHECK, c->match[stage], c->context);
        if (rc != PCRE2_ERROR_MATCHLIMIT || limit > LAST_LIMIT / 16)
            return rc;
        c->allowance -= 16 * (int64_t)limit;
        if (c->allowance < 0 || st_now_ns() > c->deadline)
            return rc;
    }
}

static setun_status cut(cutter *c, int stage, const char *text, int64_t n)
{
    if (n == 0)
        return SETUN_OK;
    if (stage == c->p->n_stages)
        return c->piece(c->user, text, n, c->err);
    for (int64_t at = 0; at < n;) {
        int rc = match(c, stage, text, n, at);
        if (rc == PCRE2_ERROR_NOMATCH)
            return cut(c, stage + 1, text + at, n - at);
        if (rc < 0)
            return st_fail(
                c->err, rc == PCRE2_ERROR_NOMEMORY ? SETUN_NO_MEMORY : SETUN_FULL,
                "the pre-tokenizer's regex gave up on the text (error %d): too much backtracking",
                rc);
        const PCRE2_SIZE *span = pcre2_get_ovector_pointer(c->match[stage]);
        int64_t begin = (int64_t)span[0], end = (int64_t)span[1];
        if (begin < at || end <= begin || end > n)
            return st_fail(c->err, SETUN_UNKNOWN,
                           "the pre-tokenizer's regex matches the empty text");
        ST_TRY(cut(c, stage + 1, text + at, begin - at));
        ST_TRY(cut(c, stage + 1, text + begin, end - begin));
        at = end;
    }
    return SETUN_OK;
}

setun_status st_pretok_split(const st_pretok *p, const char *text, int64_t n, st_piece_fn piece,
                             void *user, setun_error *err)
{
    cutter c = { .p = p, .piece = piece, .user = user, .err = err };
    c.allowance = ALLOWANCE + 64 * n;
    c.deadline = st_now_ns() + DEADLINE_NS + 20000 * n;
    c.context = pcre2_match_context_create(NULL);
    c.stack = pcre2_jit_stack_create(32 << 10, 8 << 20, NULL);
    int good = c.context && c.stack;
    for (int i = 0; i < p->n_stages; i++) {
        c.match[i] = pcre2_match_data_create(1, NULL);
        good &= c.match[i] != NULL;
    }
    setun_status st = SETUN_OK;
    if (good) {
        (void)pcre2_set_heap_limit(c.context, 256 << 10); /* KiB: the interpreter's frames */
        pcre2_jit_stack_assign(c.context, NULL, c.stack);
        st = cut(&c, 0, text, n);
    } else {
        st = st_fail(err, SETUN_NO_MEMORY, "no memory to split the text");
    }
    for (int i = 0; i < p->n_stages; i++)
        pcre2_match_data_free(c.match[i]);
    pcre2_jit_stack_free(c.stack);
    pcre2_match_context_free(c.context);
    return st;
}
