/* codegen/kir_parse.c -- read the text that kir_print.c writes.
 *
 * Not here: deciding whether the whole is a kernel; st_kir_verify does that afterwards.  Each
 * line is checked alone as it is appended, so that a wrong type is reported with its line.  Text
 * may come from anyone: all counts have limits and every name is looked up.
 *
 * Labels (%12) may be any numbers up to the limit, each defined once; printing gives them the
 * number of their instruction, so print(parse(text)) is the canonical form of text.  '#' starts
 * a comment. */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "codegen/kir.h"

#define MAX_WORD 127

typedef struct parser {
    const char  *at, *file;
    int          line;
    char word[MAX_WORD + 1]; /* current token; "\n" at the end of a line, "" at the end of text */
    st_kir      *k;
    uint32_t    *label;              /* [number]: the value it names, or 0 */
    setun_error *err;
} parser;

static setun_status wrong(parser *p, const char *fmt, ...) SETUN_PRINTF(2, 3);
static setun_status wrong(parser *p, const char *fmt, ...)
{
    st_str s = { 0 };
    va_list ap;
    va_start(ap, fmt);
    st_str_vaddf(&s, fmt, ap);
    va_end(ap);
    setun_status status = st_fail(p->err, SETUN_BAD_FILE, "%s:%d: %s", p->file, p->line,
                                  s.text && !s.failed ? s.text : "not a kernel");
    st_str_free(&s);
    return status;
}

static int is_word(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '.' || c == '-' || c == '%' || c == '/';
}

/* Take the next token into p->word.  The line number moves on only when the "\n" has been
 * consumed. */
static setun_status next(parser *p)
{
    if (p->word[0] == '\n')
        p->line++;
    while (*p->at == ' ' || *p->at == '\t' || *p->at == '\r')
        p->at++;
    if (*p->at == '#')
        while (*p->at && *p->at != '\n')
            p->at++;
    size_t n = 0;
    while (is_word(p->at[n]))
        n++;
    if (n > MAX_WORD) {
        p->word[0] = 0;
        return wrong(p, "a word of %zu characters", n);
    }
    if (n == 0 && *p->at) {
        if (!strchr("\n[],={}", *p->at))
            return wrong(p, "unexpected character 0x%02x", (unsigned)(unsigned char)*p->at);
        n = 1;
    }
    memcpy(p->word, p->at, n);
    p->word[n] = 0;
    p->at += n;
    return SETUN_OK;
}

static const char *shown(const parser *p)
{
    return p->word[0] == 0      ? "the end of the text"
           : p->word[0] == '\n' ? "the end of the line"
                                : p->word;
}

static int is(const parser *p, const char *word) { return strcmp(p->word, word) == 0; }

static setun_status expect(parser *p, const char *word)
{
    if (!is(p, word))
        return wrong(p, "%s where %s is expected", shown(p),
                     word[0] == '\n' ? "the end of the line" : word);
    return next(p);
}

static setun_status skip_lines(parser *p)
{
    while (is(p, "\n"))
        ST_TRY(next(p));
    return SETUN_OK;
}

static setun_status end_of_line(parser *p)
{
    ST_TRY(expect(p, "\n"));
    return skip_lines(p);
}

static setun_status number(parser *p, int64_t min, int64_t max, int64_t *out)
{
    if (st_parse_i64(p->word, min, max, out))
        return wrong(p, "%s is not a number from %lld to %lld", shown(p), (long long)min,
                     (long long)max);
    return next(p);
}

/* Cut the word at c and return what follows, or NULL. */
static char *cut(char *word, char c)
{
    char *at = strchr(word, c);
    if (!at)
        return NULL;
    *at = 0;
    return at + 1;
}

/* "1.0": argument and dimension. */
static int slot(char *word, setun_slot *out)
{
    int64_t arg, dim;
    char *after = cut(word, '.');
    if (!after || st_parse_i64(word, 0, ST_MAX_ARGS, &arg) ||
        st_parse_i64(after, 0, SETUN_MAX_RANK, &dim))
        return -1;
    out->arg = (int32_t)arg;
    out->dim = (int32_t)dim;
    return 0;
}

/* ---------------------------------------------------------------- header */

static setun_status parse_view(parser *p, setun_view *v)
{
    static const char *const names[] = { "",    "f32", "f16", "bf16", "i8",
                                         "i16", "i32", "i64", "u8",   "t2" };
    memset(v, 0, sizeof *v);
    for (uint32_t t = 1; t < sizeof names / sizeof names[0]; t++)
        if (is(p, names[t]))
            v->dtype = t;
    if (!v->dtype)
        return wrong(p, "%s is not an element type", shown(p));
    ST_TRY(next(p));
    ST_TRY(expect(p, "["));
    while (!is(p, "]")) {
        if (v->rank == SETUN_MAX_RANK)
            return wrong(p, "more than %d dimensions", SETUN_MAX_RANK);
        if (v->rank)
            ST_TRY(expect(p, ","));
        int64_t *d = &v->dim[v->rank++];
        if (is(p, "n") || is(p, "m")) {
            *d = is(p, "n") ? SETUN_DIM_TOKENS : SETUN_DIM_OUTPUTS;
            ST_TRY(next(p));
        } else {
            ST_TRY(number(p, 0, INT64_MAX, d));
        }
    }
    return expect(p, "]");
}

static setun_status parse_views(parser *p, const char *word, setun_view *v, uint32_t *n)
{
    *n = 0;
    ST_TRY(expect(p, word));
    while (!is(p, "\n")) {
        if (*n == ST_MAX_ARGS)
            return wrong(p, "more than %d arguments", ST_MAX_ARGS);
        ST_TRY(parse_view(p, &v[(*n)++]));
    }
    return end_of_line(p);
}

static setun_status parse_grid(parser *p, setun_grid *g, int *has)
{
    ST_TRY(expect(p, "grid"));
    *has = !is(p, "none");
    for (int f = 0; f < 2; f++) {
        g->at[f].arg = -1;
        g->at[f].dim = 0;
        g->granule[f] = 1;
        if (is(p, "\n") && f == 1)
            break;
        if ((is(p, "-") && f == 0) || !*has) {
            ST_TRY(next(p));
            if (!*has)
                break;
            continue;
        }
        char *granule = cut(p->word, '/');
        if (!granule || slot(p->word, &g->at[f]) ||
            st_parse_i64(granule, 1, INT64_MAX, &g->granule[f]))
            return wrong(p, "a grid factor is argument.dimension/granule");
        ST_TRY(next(p));
    }
    return end_of_line(p);
}

/* ---------------------------------------------------------------- instructions */

/* "f32x32" */
static int type(char *word, k_type *t)
{
    static const char *const names[] = { "", "i1", "i8", "i16", "i32", "i64", "f32" };
    int64_t lanes = 1;
    char *after = cut(word, 'x');
    if (after && st_parse_i64(after, 1, K_MAX_LANES, &lanes))
        return -1;
    for (uint32_t e = 1; e < sizeof names / sizeof names[0]; e++)
        if (strcmp(word, names[e]) == 0) {
            *t = K_TYPE(e, (uint32_t)lanes);
            return 0;
        }
    return -1;
}

static setun_status parse_value(parser *p, k_val *v)
{
    int64_t n;
    if (p->word[0] != '%' || st_parse_i64(p->word + 1, 1, ST_MAX_INSTS, &n))
        return wrong(p, "%s where a value such as %%1 is expected", shown(p));
    if (!p->label[n])
        return wrong(p, "%s has not been defined", p->word);
    *v = p->label[n];
    return next(p);
}

static setun_status parse_mask(parser *p, uint32_t lanes, int64_t *at)
{
    int32_t mask[K_MAX_LANES];
    ST_TRY(expect(p, "["));
    for (uint32_t l = 0; l < lanes; l++) {
        int64_t m;
        ST_TRY(number(p, 0, 2 * K_MAX_LANES - 1, &m));
        mask[l] = (int32_t)m;
    }
    ST_TRY(expect(p, "]"));
    return st_kir_add_mask(p->k, mask, lanes, at, p->err);
}

static setun_status parse_imm(parser *p, st_inst *in)
{
    setun_slot s;
    switch (in->op) {
    case K_shuffle:
        return parse_mask(p, K_LANES(in->type), &in->imm);
    case K_dim:
        if (slot(p->word, &s))
            return wrong(p, "dim needs argument.dimension");
        ST_TRY(st_kir_add_slot(p->k, s.arg, s.dim, &in->imm, p->err));
        return next(p);
    case K_for:
        ST_TRY(expect(p, "step"));
        return number(p, INT64_MIN, INT64_MAX, &in->imm);
    case K_const:
        if (K_ELEM(in->type) == K_F32) {
            uint32_t bits = 0;
            size_t n = strlen(p->word);
            int good = n == 10 && p->word[0] == '0' && p->word[1] == 'x';
            for (size_t i = 2; good && i < n; i++) {
                const char *digits = "0123456789abcdef", *d = strchr(digits, p->word[i]);
                good = d != NULL;
                bits = bits << 4 | (uint32_t)(good ? d - digits : 0);
            }
            if (!good)
                return wrong(p, "an f32 constant is its bits, 0x and 8 hexadecimal digits, not %s",
                             shown(p));
            in->imm = bits;
            return next(p);
        }
        return number(p, INT64_MIN, INT64_MAX, &in->imm);
    default:
        return number(p, INT64_MIN, INT64_MAX, &in->imm);
    }
}

static setun_status parse_inst(parser *p)
{
    st_inst in = { 0 };
    int64_t label = 0;
    if (p->word[0] == '%') {
        if (st_parse_i64(p->word + 1, 1, ST_MAX_INSTS, &label))
            return wrong(p, "%s is not a value such as %%1, up to %%%u", shown(p), ST_MAX_INSTS);
        if (p->label[label])
            return wrong(p, "%s is defined twice", p->word);
        ST_TRY(next(p));
        ST_TRY(expect(p, "="));
    }
    if (is(p, "}")) { /* of a block: the caller has taken the kernel's own */
        ST_TRY(next(p));
        in.op = K_stop;
        if (is(p, "else")) {
            ST_TRY(next(p));
            ST_TRY(expect(p, "{"));
            in.op = K_else;
        }
    } else {
        char *suffix = cut(p->word, '.');
        for (uint32_t op = 1; op < K_COUNT; op++)
            if (is(p, st_kir_op_name(op)) && op != K_else && op != K_stop)
                in.op = op;
        if (!in.op)
            return wrong(p, "%s is not an instruction", shown(p));
        int typed = st_kir_op_result(in.op) != ST_RESULT_NONE;
        if (in.op == K_dim || in.op == K_begin || in.op == K_end || in.op == K_for) {
            in.type = K_TYPE(K_I64, 1);
            typed = 0;
        }
        if (typed && (!suffix || type(suffix, &in.type)))
            return wrong(p, "%s needs a type, such as %s.i32x8", p->word, p->word);
        if (!typed && suffix)
            return wrong(p, "%s has no type to write", p->word);
        if (in.op == K_arg || in.op == K_local || in.op == K_scratch)
            in.type |= K_PTR;
        ST_TRY(next(p));
        k_val *operand[3] = { &in.a, &in.b, &in.c };
        for (uint32_t o = 0; o < st_kir_op_operands(in.op); o++)
            ST_TRY(parse_value(p, operand[o]));
        if (st_kir_op_has_imm(in.op)) {
            setun_status s = parse_imm(p, &in);
            if (s != SETUN_OK && s != SETUN_BAD_FILE)
                st_wrap(p->err, "%s:%d", p->file, p->line);
            ST_TRY(s);
        }
        if (in.op == K_for || in.op == K_if)
            ST_TRY(expect(p, "{"));
    }
    if ((label != 0) != (in.type != 0))
        return wrong(p, "%s %s", st_kir_op_name(in.op),
                     label ? "gives no value" : "gives a value that needs a name");
    k_val v;
    setun_status s = st_kir_append(p->k, &in, &v, p->err);
    if (s != SETUN_OK) {
        st_wrap(p->err, "%s:%d", p->file, p->line);
        return s;
    }
    if (label)
        p->label[label] = v;
    return end_of_line(p);
}

static setun_status parse_kernel(parser *p, const st_target *target, st_arena *arena)
{
    ST_TRY(next(p));
    ST_TRY(skip_lines(p));
    ST_TRY(expect(p, "kernel"));
    char name[MAX_WORD + 1];
    memcpy(name, p->word, sizeof name);
    ST_TRY(next(p));
    ST_TRY(end_of_line(p));

    setun_view in[ST_MAX_ARGS], out[ST_MAX_ARGS];
    setun_args shape;
    memset(&shape, 0, sizeof shape);
    shape.size = sizeof shape;
    shape.in = in;
    shape.out = out;
    ST_TRY(parse_views(p, "in", in, &shape.n_in));
    ST_TRY(parse_views(p, "out", out, &shape.n_out));
    setun_status s = st_kir_new(&p->k, name, &shape, target, arena, p->err);
    if (s != SETUN_OK) {
        st_wrap(p->err, "%s:%d", p->file, p->line);
        return s;
    }
    ST_TRY(parse_grid(p, &p->k->grid, &p->k->has_grid));
    ST_TRY(expect(p, "scratch"));
    ST_TRY(number(p, 0, ST_MAX_SCRATCH, &p->k->scratch_bytes));
    ST_TRY(end_of_line(p));
    ST_TRY(expect(p, "{"));
    ST_TRY(end_of_line(p));

    /* Only nesting tells the kernel's own brace from a block's. */
    uint32_t depth = 0;
    while (depth || !is(p, "}")) {
        if (is(p, ""))
            return wrong(p, "the kernel has no closing brace");
        ST_TRY(parse_inst(p));
        uint32_t op = p->k->inst[p->k->n_inst - 1].op;
        if (op == K_for || op == K_if)
            depth++;
        else if (op == K_stop)
            depth--;
    }
    ST_TRY(next(p));
    ST_TRY(skip_lines(p));
    if (!is(p, ""))
        return wrong(p, "%s after the kernel's end", shown(p));
    return SETUN_OK;
}

setun_status st_kir_parse(const char *text, const char *file, const st_target *target,
                          st_arena *arena, st_kir **out, setun_error *err)
{
    *out = NULL;
    setun_error own; /* st_wrap needs one to prefix */
    parser p;
    memset(&p, 0, sizeof p);
    p.at = text;
    p.file = file;
    p.line = 1;
    p.err = err ? err : &own;
    p.label = calloc((size_t)ST_MAX_INSTS + 1, sizeof *p.label);
    if (!p.label)
        return st_fail(err, SETUN_NO_MEMORY, "%s: no memory to read a kernel", file);
    setun_status s = parse_kernel(&p, target, arena);
    free(p.label);
    if (s == SETUN_OK)
        *out = p.k;
    return s;
}
