/* model/pretok.c -- read a pre-tokenizer's stages from JSON, and find their matches with PCRE2.
 *
 * Not here: cutting by the matches (pieces.c).
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
#include "model/normal.h"
#include "model/pattern_read.h"

#define MAX_PATTERN 8192
#define FIRST_LIMIT 1000u  /* steps; an ordinary piece takes some tens */
#define LAST_LIMIT 256000000u
#define ALLOWANCE 64000000 /* steps above FIRST_LIMIT, plus 64 for each byte of text */
#define DEADLINE_NS 20000000000 /* plus 20 us for each byte */
#define MATCHES_PER_LOOK 64     /* at the clock */

static const char *const behaviors[ST_N_BEHAVIORS] = { "Isolated", "Removed", "MergedWithPrevious",
                                                    "MergedWithNext", "Contiguous" };

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

/* A new stage; the first after ByteLevel has the bytes made visible. */
static setun_status add_stage(st_pretok *p, int kind, setun_error *err)
{
    if (p->n_stages + 2 > ST_STAGES)
        return st_fail(err, SETUN_UNKNOWN, "%s: more than %d pre-tokenizers", p->path,
                       ST_STAGES - 2);
    if (p->bytes && !p->mapped) {
        p->mapped = 1;
        p->stage[p->n_stages++].kind = ST_MAP;
    }
    p->stage[p->n_stages++].kind = kind;
    return SETUN_OK;
}

static setun_status add_cut(st_pretok *p, const char *regex, int literal, int behavior,
                            setun_error *err)
{
    st_str s = { 0 };
    int code;
    PCRE2_SIZE offset;
    ST_TRY(add_stage(p, ST_CUT, err));
    if (!regex[0] || strlen(regex) > MAX_PATTERN)
        return st_fail(err, SETUN_BAD_FILE, "%s: a pattern of %zu bytes", p->path, strlen(regex));
    if (!literal) {
        setun_status st = translate(regex, p->path, &s, err);
        if (st != SETUN_OK) {
            st_str_free(&s);
            return st;
        }
    }
    st_stage *made = &p->stage[p->n_stages - 1];
    made->behavior = behavior;
    made->literal = literal;
    if (!(made->source = strdup(literal ? regex : s.text))) {
        st_str_free(&s);
        return st_fail(err, SETUN_NO_MEMORY, "no memory for the regex of %s", p->path);
    }
    st_str_free(&s);
    pcre2_code *re =
        pcre2_compile((PCRE2_SPTR)made->source, PCRE2_ZERO_TERMINATED,
                      PCRE2_UTF | PCRE2_NO_UTF_CHECK | (literal ? PCRE2_LITERAL : PCRE2_UCP), &code,
                      &offset, NULL);
    if (!re) {
        PCRE2_UCHAR text[128];
        (void)pcre2_get_error_message(code, text, sizeof text);
        return st_fail(err, SETUN_BAD_FILE, "%s: the regex %.120s is not valid: %s", p->path, regex,
                       (const char *)text);
    }
    /* Refused where memory may not be made executable; the interpreter gives the same answers, and takes the
     * time of encoding times 2.4.  PCRE2 keeps this code in memory that stays writable; kernels never lie there. */
    (void)pcre2_jit_compile(re, PCRE2_JIT_COMPLETE);
    made->pattern = re;
    return SETUN_OK;
}

/* ---------------------------------------------------------------- matching */

typedef struct searching {
    const st_pretok     *p;
    pcre2_match_data    *match[ST_STAGES];
    pcre2_match_context *context;
    pcre2_jit_stack     *stack;
    int64_t              allowance, deadline, n_matches;
} searching;

static void end_search(void *state)
{
    searching *c = state;
    if (!c)
        return;
    for (int i = 0; i < ST_STAGES; i++)
        pcre2_match_data_free(c->match[i]);
    pcre2_jit_stack_free(c->stack);
    pcre2_match_context_free(c->context);
    free(c);
}

static setun_status begin_search(const st_pretok *p, int64_t n, void **state, setun_error *err)
{
    searching *c = calloc(1, sizeof *c);
    *state = c;
    if (!c)
        return st_fail(err, SETUN_NO_MEMORY, "no memory to split the text");
    c->p = p;
    c->allowance = ALLOWANCE + 64 * n;
    c->deadline = st_now_ns() + DEADLINE_NS + 20000 * n;
    c->context = pcre2_match_context_create(NULL);
    c->stack = pcre2_jit_stack_create(32 << 10, 8 << 20, NULL);
    int good = c->context && c->stack;
    for (int i = 0; i < p->n_stages; i++) {
        c->match[i] = pcre2_match_data_create(1, NULL);
        good &= c->match[i] != NULL;
    }
    if (!good)
        return st_fail(err, SETUN_NO_MEMORY, "no memory to split the text");
    (void)pcre2_set_heap_limit(c->context, 256 << 10); /* KiB: the interpreter's frames */
    pcre2_jit_stack_assign(c->context, NULL, c->stack);
    return SETUN_OK;
}

/* pcre2_match with limits that rise as long as the allowance lasts. */
static int match(searching *c, int at_stage, const char *text, int64_t n, int64_t from)
{
    if (c->n_matches++ % MATCHES_PER_LOOK == 0 && st_now_ns() > c->deadline)
        return PCRE2_ERROR_MATCHLIMIT;
    for (uint32_t limit = FIRST_LIMIT;; limit *= 16) {
        (void)pcre2_set_match_limit(c->context, limit);
        int rc = pcre2_match(c->p->stage[at_stage].pattern, (PCRE2_SPTR)text, (PCRE2_SIZE)n, (PCRE2_SIZE)from,
                             PCRE2_NO_UTF_CHECK, c->match[at_stage], c->context);
        if (rc != PCRE2_ERROR_MATCHLIMIT || limit > LAST_LIMIT / 16)
            return rc;
        c->allowance -= 16 * (int64_t)limit;
        if (c->allowance < 0 || st_now_ns() > c->deadline)
            return rc;
    }
}

static int search(void *state, int stage, const char *text, int64_t n, int64_t from, int64_t span[2], setun_error *err)
{
    searching *c = state;
    int rc = match(c, stage, text, n, from);
    if (rc == PCRE2_ERROR_NOMATCH)
        return 0;
    if (rc < 0)
        return st_fail(err, rc == PCRE2_ERROR_NOMEMORY ? SETUN_NO_MEMORY : SETUN_FULL,
                       "the pre-tokenizer's regex gave up on the text (error %d): too much backtracking", rc);
    const PCRE2_SIZE *found = pcre2_get_ovector_pointer(c->match[stage]);
    span[0] = (int64_t)found[0];
    span[1] = (int64_t)found[1];
    return 1;
}

static void free_code(void *pattern) { pcre2_code_free(pattern); }

static const st_matcher pcre2 = { begin_search, end_search, search, free_code };

/* ---------------------------------------------------------------- reading the JSON */

static setun_status read_behavior(const st_pretok *p, json_t *json, int absent, int *behavior,
                                  setun_error *err)
{
    json_t *v = json_object_get(json, "behavior");
    const char *name = json_string_value(v);
    for (*behavior = 0; name && *behavior < ST_N_BEHAVIORS; ++*behavior)
        if (strcmp(name, behaviors[*behavior]) == 0)
            return SETUN_OK;
    *behavior = absent;
    return !v && absent >= 0 ? SETUN_OK
                             : st_fail(err, SETUN_UNKNOWN,
                                       "%s: a pre_tokenizer with behavior %s is not supported",
                                       p->path, name ? name : "missing");
}

static setun_status add_split(st_pretok *p, json_t *json, setun_error *err)
{
    json_t *pattern = json_object_get(json, "pattern");
    const char *regex = json_string_value(json_object_get(pattern, "Regex"));
    const char *text = json_string_value(json_object_get(pattern, "String"));
    int behavior, invert;
    ST_TRY(st_json_known(json, "pattern behavior invert ", "pre_tokenizer Split", p->path, err));
    ST_TRY(read_behavior(p, json, -1, &behavior, err));
    ST_TRY(st_json_flag(json, "invert", 0, &invert, p->path, err));
    if ((!regex && !text) || json_object_size(pattern) != 1)
        return st_fail(err, SETUN_BAD_FILE, "%s: pre_tokenizer Split has no pattern", p->path);
    ST_TRY(add_cut(p, regex ? regex : text, !regex, behavior, err));
    p->stage[p->n_stages - 1].invert = invert;
    return SETUN_OK;
}

static setun_status add_bytes(st_pretok *p, json_t *json, setun_error *err)
{
    int space, regex, trim;
    ST_TRY(st_json_known(json, "add_prefix_space trim_offsets use_regex ", "pre_tokenizer ByteLevel",
                         p->path, err));
    ST_TRY(st_json_flag(json, "add_prefix_space", 1, &space, p->path, err));
    ST_TRY(st_json_flag(json, "use_regex", 1, &regex, p->path, err));
    ST_TRY(st_json_flag(json, "trim_offsets", 1, &trim, p->path, err)); /* moves offsets, not ids */
    if (p->bytes)
        return st_fail(err, SETUN_UNKNOWN, "%s: pre_tokenizer ByteLevel twice is not supported",
                       p->path);
    if (space)
        ST_TRY(add_stage(p, ST_PREFIX, err));
    if (regex)
        ST_TRY(add_cut(p, gpt2, 0, ST_ISOLATED, err));
    p->bytes = 1;
    return SETUN_OK;
}

static setun_status add_metaspace(st_pretok *p, json_t *json, setun_error *err)
{
    static const char *const names[] = { "never", "first", "always" };
    json_t *v = json_object_get(json, "prepend_scheme");
    const char *space = json_string_value(json_object_get(json, "replacement")),
               *scheme = v ? json_string_value(v) : "always";
    int prepend = 3, split, add;
    ST_TRY(st_json_known(json, "replacement prepend_scheme split add_prefix_space str_rep ",
                         "pre_tokenizer Metaspace", p->path, err));
    ST_TRY(st_json_flag(json, "split", 1, &split, p->path, err));
    ST_TRY(st_json_flag(json, "add_prefix_space", 1, &add, p->path, err));
    while (scheme && --prepend >= 0 && strcmp(scheme, names[prepend]) != 0) {
    }
    size_t chars = 0;
    for (const char *c = space; c && *c; c++)
        chars += ((uint8_t)*c & 0xc0) != 0x80;
    if (chars != 1 || prepend < 0 || prepend > ST_ALWAYS || (!add && prepend != ST_NEVER))
        return st_fail(err, SETUN_UNKNOWN,
                       "%s: pre_tokenizer Metaspace needs a replacement of one character and a "
                       "prepend_scheme of always, first or never that fits add_prefix_space",
                       p->path);
    /* What "first" means for pieces that others have cut or changed is not written down anywhere. */
    if (prepend == ST_FIRST && p->n_stages > 0)
        return st_fail(err, SETUN_UNKNOWN,
                       "%s: pre_tokenizer Metaspace with prepend_scheme first after another is not "
                       "supported",
                       p->path);
    ST_TRY(add_stage(p, ST_METASPACE, err));
    st_stage *s = &p->stage[p->n_stages - 1];
    s->prepend = prepend;
    memcpy(s->space, space, strlen(space) + 1);
    return split ? add_cut(p, s->space, 1, ST_MERGED_WITH_NEXT, err) : SETUN_OK;
}

static setun_status add_one(st_pretok *p, json_t *json, int depth, setun_error *err)
{
    const char *type = json_string_value(json_object_get(json, "type"));
    int behavior, single;
    if (!type || depth > 4)
        return st_fail(err, SETUN_BAD_FILE,
                       "%s: a pre_tokenizer without type, or nested too deeply", p->path);
    if (strcmp(type, "Sequence") == 0) {
        json_t *list = json_object_get(json, "pretokenizers");
        ST_TRY(st_json_known(json, "pretokenizers ", "pre_tokenizer Sequence", p->path, err));
        for (size_t i = 0; i < json_array_size(list); i++)
            ST_TRY(add_one(p, json_array_get(list, i), depth + 1, err));
        return SETUN_OK;
    }
    if (strcmp(type, "Split") == 0)
        return add_split(p, json, err);
    if (strcmp(type, "ByteLevel") == 0)
        return add_bytes(p, json, err);
    if (strcmp(type, "Metaspace") == 0)
        return add_metaspace(p, json, err);
    if (strcmp(type, "Digits") == 0) {
        ST_TRY(st_json_known(json, "individual_digits ", "pre_tokenizer Digits", p->path, err));
        ST_TRY(st_json_flag(json, "individual_digits", 0, &single, p->path, err));
        return add_cut(p, "\\p{N}", 0, single ? ST_ISOLATED : ST_CONTIGUOUS, err);
    }
    if (strcmp(type, "Punctuation") == 0) { /* of ASCII, all that is neither letter nor digit */
        ST_TRY(st_json_known(json, "behavior ", "pre_tokenizer Punctuation", p->path, err));
        ST_TRY(read_behavior(p, json, ST_ISOLATED, &behavior, err));
        return add_cut(p, "[\\p{P}$+<=>^`|~]", 0, behavior, err);
    }
    return st_fail(err, SETUN_UNKNOWN, "%s: pre_tokenizer %s is not supported", p->path, type);
}

setun_status st_pretok_new(st_pretok **out, json_t *json, const char *path, setun_error *err)
{
    st_pretok *p = calloc(1, sizeof *p);
    *out = p;
    if (!p)
        return st_fail(err, SETUN_NO_MEMORY, "no memory for %s", path);
    p->path = path;
    p->matcher = &pcre2;
    if (json && !json_is_null(json))
        ST_TRY(add_one(p, json, 0, err));
    p->path = NULL; /* borrowed only while reading */
    return SETUN_OK;
}

/* ---------------------------------------------------------------- as bytes */

setun_status st_pretok_put(const st_pretok *p, const char *path, st_str *out, setun_error *err)
{
    int mapped = 0;
    st_put_u32(out, (uint32_t)p->bytes);
    st_put_u32(out, (uint32_t)p->mapped);
    st_put_u32(out, (uint32_t)p->n_stages);
    for (int i = 0; i < p->n_stages; i++) {
        const st_stage *s = &p->stage[i];
        if (mapped && s->kind != ST_CUT)
            return st_fail(err, SETUN_UNKNOWN, "%s: a bundle cannot have a pre_tokenizer that changes text behind ByteLevel", path);
        mapped |= s->kind == ST_MAP;
        st_put_u32(out, (uint32_t)s->kind);
        st_put_u32(out, (uint32_t)s->behavior);
        st_put_u32(out, (uint32_t)s->invert);
        st_put_u32(out, (uint32_t)s->prepend);
        st_put_text(out, s->space, (int64_t)strlen(s->space));
        if (s->kind != ST_CUT)
            continue;
        st_pattern *program;
        if (!s->source) /* read from bytes itself */
            return st_fail(err, SETUN_UNKNOWN, "%s: a bundle's tokenizer cannot be put into another bundle", path);
        ST_TRY(st_pattern_read(&program, s->source, s->literal, path, err));
        st_pattern_put(program, out);
        st_pattern_free(program);
    }
    return SETUN_OK;
}
