/* graph/parse.c -- the text form of a graph, read back.  print.c shows the grammar.
 *
 * Not here: any rule about graphs.  Lines become calls of the builder, which checks everything.
 *
 * The text may be hostile.  It is read once, left to right; what is allocated is bounded by its
 * length, and every message begins with "file:line:".  '#' starts a comment. */
#include <string.h>

#include "base/error.h"
#include "base/table.h"
#include "graph/graph.h"
#include "graph/registry.h"

typedef struct parser {
    const char        *p, *name;
    int                line;
    const st_registry *registry;
    st_graph          *g;
    st_table          *temps; /* "%12" as written -> value id; keys point into the text */
    setun_error       *err;
} parser;

static int is_word(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '.' ||
           c == '/' || c == ':' || c == '-';
}

static const char *skip_blanks(const char *p)
{
    return p + strspn(p, " \t\r");
}

/* The first bytes at p, safe to show on a terminal. */
static const char *show(const char *p, char text[32])
{
    size_t n = 0;
    while (n < 24 && p[n] && p[n] != '\n' && p[n] != ' ') {
        text[n] = p[n] > 32 && p[n] < 127 ? p[n] : '?';
        n++;
    }
    text[n] = 0;
    return n ? text : "the end of the line";
}

static setun_status locate(const parser *ps, setun_status s)
{
    if (s != SETUN_OK)
        st_wrap(ps->err, "%s:%d", ps->name, ps->line);
    return s;
}

static setun_status expected(const parser *ps, const char *what)
{
    char text[32];
    return locate(ps, st_fail(ps->err, SETUN_BAD_FILE, "expected %s, found %s", what, show(ps->p, text)));
}

static setun_status no_memory(const parser *ps)
{
    return locate(ps, st_fail(ps->err, SETUN_NO_MEMORY, "out of memory while reading the graph"));
}

/* ---------------------------------------------------------------- tokens */

static int hex(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* A quoted string at p into the arena; returns what follows it.  NULL: not one, or no memory. */
static const char *quoted(const char *p, st_arena *arena, char **out, setun_status *why)
{
    const char *end = p + 1;
    char *to;
    *why = SETUN_BAD_FILE;
    if (*p != '"')
        return NULL;
    while (*end != '"') {
        if (*end == '\\' && end[1])
            end++;
        if (*end == 0 || *end == '\n')
            return NULL;
        end++;
    }
    to = *out = st_arena_alloc(arena, end - p);
    if (!to) {
        *why = SETUN_NO_MEMORY;
        return NULL;
    }
    for (p++; p < end; p++) {
        if (*p != '\\') {
            *to++ = *p;
        } else if (p[1] == '"' || p[1] == '\\') {
            *to++ = *++p;
        } else if (p[1] == 'x' && hex(p[2]) >= 0 && hex(p[3]) >= 0 && (p[2] != '0' || p[3] != '0')) {
            *to++ = (char)(hex(p[2]) * 16 + hex(p[3]));
            p += 3;
        } else {
            return NULL;
        }
    }
    *to = 0;
    return end + 1;
}

static int at_end(parser *ps)
{
    ps->p = skip_blanks(ps->p);
    return *ps->p == 0 || *ps->p == '\n' || *ps->p == '#';
}

static size_t word_length(const char *p)
{
    size_t n = 0;
    while (is_word(p[n]))
        n++;
    return n;
}

/* The word w, and nothing longer, at the cursor; steps over it. */
static int take_word(parser *ps, const char *w)
{
    size_t n = word_length(ps->p);
    if (n != strlen(w) || memcmp(ps->p, w, n) != 0)
        return 0;
    ps->p = skip_blanks(ps->p + n);
    return 1;
}

static setun_status take_quoted(parser *ps, char **out, const char *what)
{
    setun_status why;
    const char *end = quoted(ps->p, ps->g->arena, out, &why);
    if (!end)
        return why == SETUN_NO_MEMORY ? no_memory(ps) : expected(ps, what);
    ps->p = end;
    return SETUN_OK;
}

/* A name, bare or quoted. */
static setun_status take_name(parser *ps, char **out, const char *what)
{
    size_t n = word_length(ps->p);
    if (*ps->p == '"')
        return take_quoted(ps, out, what);
    if (!n)
        return expected(ps, what);
    *out = st_arena_strndup(ps->g->arena, ps->p, n);
    if (!*out)
        return no_memory(ps);
    ps->p += n;
    return SETUN_OK;
}

static size_t temp_length(const char *p)
{
    size_t n = *p == '%' ? 1 + word_length(p + 1) : 0;
    return n > 1 ? n : 0;
}

/* %12 or a name. */
static setun_status take_value(parser *ps, st_value_id *v)
{
    char text[32], *name = NULL;
    const char *start = ps->p;
    size_t n = temp_length(ps->p);
    int64_t found = ST_NO_ID;
    if (n) {
        ps->p += n;
        (void)st_table_get(ps->temps, start, n, &found);
    } else {
        ST_TRY(take_name(ps, &name, "a value"));
        found = st_graph_find(ps->g, name);
    }
    *v = (st_value_id)found;
    if (*v == ST_NO_ID)
        return locate(ps, st_fail(ps->err, SETUN_BAD_FILE, "no value %s was made before", show(start, text)));
    return SETUN_OK;
}

/* ---------------------------------------------------------------- types and attributes */

const char *st_view_parse_sized(const char *text, setun_view *v, int64_t size[SETUN_N_SYMBOLS])
{
    const char *p = text + word_length(text);
    memset(v, 0, sizeof *v);
    v->dtype = st_dtype_find(text, (size_t)(p - text));
    for (int i = 0; i < SETUN_MAX_RANK; i++)
        v->dim[i] = 1;
    if (!v->dtype || *p != '[')
        return NULL;
    p++;
    while (*p != ']') {
        char digits[20];
        int64_t d = 0, symbol = *p == 'n' ? SETUN_DIM_TOKENS : *p == 'm' ? SETUN_DIM_OUTPUTS : 0;
        size_t n;
        p += symbol != 0;
        n = strspn(p, "0123456789");
        if (n >= sizeof digits || v->rank == SETUN_MAX_RANK)
            return NULL;
        memcpy(digits, p, n);
        digits[n] = 0;
        /* A symbol has a number behind it exactly where sizes are wanted. */
        if ((n == 0) != (symbol && !size) || (n && st_parse_i64(digits, 0, INT64_MAX, &d)))
            return NULL;
        if (symbol && size) {
            if (size[-symbol - 1] >= 0 && size[-symbol - 1] != d)
                return NULL;
            size[-symbol - 1] = d;
        }
        v->dim[v->rank++] = symbol ? symbol : d;
        p += n;
        if (*p == ',' && p[1] != ']')
            p++;
        else if (*p != ']')
            return NULL;
    }
    return st_view_check(v, 1, NULL) == SETUN_OK ? p + 1 : NULL;
}

const char *st_view_parse(const char *text, setun_view *v)
{
    return st_view_parse_sized(text, v, NULL);
}

static int parse_f64(const char *text, double *f)
{
    static const struct { const char *word; float value; } special[] = {
        {"inf", __builtin_inff()}, {"-inf", -__builtin_inff()}, {"nan", __builtin_nanf("")}};
    for (uint32_t i = 0; i < SETUN_LEN(special); i++) {
        if (strcmp(text, special[i].word) == 0) {
            *f = (double)special[i].value;
            return 0;
        }
    }
    return st_parse_f64(text, f);
}

const char *st_attr_parse(const setun_attr *a, const char *text, st_arena *arena, setun_value *v, setun_error *err)
{
    char number[64], shown[32];
    size_t n = strcspn(text, " \t\r\n}");
    int bad;
    if (a->kind == SETUN_ATTR_STRING) {
        setun_status why = SETUN_BAD_FILE;
        char *s;
        size_t bare = word_length(text);
        const char *end = bare ? text + bare : quoted(text, arena, &s, &why);
        if (bare && !(s = st_arena_strndup(arena, text, bare))) {
            why = SETUN_NO_MEMORY;
            end = NULL;
        }
        if (end)
            v->s = s;
        else if (why == SETUN_NO_MEMORY)
            (void)st_fail(err, why, "out of memory for attribute %s", a->name);
        else
            (void)st_fail(err, why, "attribute %s wants a word or a \"text\", found %s", a->name, show(text, shown));
        return end;
    }
    if (n < sizeof number) {
        memcpy(number, text, n);
        number[n] = 0;
    }
    bad = n >= sizeof number || n == 0 ||
          (a->kind == SETUN_ATTR_FLOAT ? parse_f64(number, &v->f) : st_parse_i64(number, INT64_MIN, INT64_MAX, &v->i));
    if (bad) {
        (void)st_fail(err, SETUN_BAD_FILE, "attribute %s wants %s, found %s", a->name,
                      a->kind == SETUN_ATTR_FLOAT ? "a number" : "an integer", show(text, shown));
        return NULL;
    }
    return text + n;
}

/* {name=value ...}, or nothing; attributes that are not given get their defaults. */
static setun_status take_attrs(parser *ps, const setun_op *op, setun_value *attr)
{
    char text[32];
    uint32_t given = 0; /* a bit an attribute; ST_MAX_ATTRS is 32 */
    int braces = *ps->p == '{';
    for (uint32_t i = 0; i < op->n_attr; i++)
        attr[i] = op->attr[i].fallback;
    ps->p = skip_blanks(ps->p + braces);
    while (braces && *ps->p != '}') {
        size_t n = strcspn(ps->p, "= \t\r\n}");
        uint32_t i = 0;
        setun_error inner = {0};
        const char *end;
        while (i < op->n_attr && (strlen(op->attr[i].name) != n || memcmp(op->attr[i].name, ps->p, n) != 0))
            i++;
        if (ps->p[n] != '=')
            return expected(ps, "name=value or '}'");
        if (i == op->n_attr)
            return locate(ps, st_fail(ps->err, SETUN_UNKNOWN, "%s has no attribute %s", op->name, show(ps->p, text)));
        if (given >> i & 1)
            return locate(ps, st_fail(ps->err, SETUN_BAD_FILE, "attribute %s is given twice", op->attr[i].name));
        given |= UINT32_C(1) << i;
        end = st_attr_parse(&op->attr[i], ps->p + n + 1, ps->g->arena, &attr[i], &inner);
        if (!end)
            return locate(ps, st_fail(ps->err, inner.code, "%s", inner.text));
        ps->p = skip_blanks(end);
    }
    ps->p = skip_blanks(ps->p + braces);
    for (uint32_t i = 0; i < op->n_attr; i++)
        if (op->attr[i].required && !(given >> i & 1))
            return locate(ps, st_fail(ps->err, SETUN_BAD_FILE, "%s needs attribute %s", op->name, op->attr[i].name));
    return SETUN_OK;
}

/* ---------------------------------------------------------------- lines */

static setun_status value_line(parser *ps, st_value_kind kind)
{
    char *name;
    setun_view view;
    const char *end;
    st_value_id id;
    ST_TRY(take_name(ps, &name, "a name"));
    ps->p = skip_blanks(ps->p);
    end = st_view_parse(ps->p, &view);
    if (!end)
        return expected(ps, "a type such as f32[n,2560]");
    ps->p = end;
    return locate(ps, st_graph_add_value(ps->g, name, kind, &view, &id, ps->err));
}

static setun_status output_line(parser *ps)
{
    char *name;
    st_value_id v;
    ST_TRY(take_name(ps, &name, "a name"));
    ps->p = skip_blanks(ps->p);
    ST_TRY(take_value(ps, &v));
    return locate(ps, st_graph_add_output(ps->g, name, v, ps->err));
}

/* %13 %14 = op value value {name=value} @"where" in "scope" */
static setun_status node_line(parser *ps)
{
    const char *made[ST_MAX_PORTS];
    size_t length[ST_MAX_PORTS];
    st_value_id in[ST_MAX_PORTS], out[ST_MAX_PORTS];
    setun_value attr[ST_MAX_ATTRS];
    uint32_t n_made = 0, n_in = 0;
    char op_name[64], text[32], *where = NULL, *scope = NULL;
    const setun_op *op;
    size_t n;
    for (; (n = temp_length(ps->p)) != 0; ps->p = skip_blanks(ps->p + n)) {
        int64_t seen;
        if (n_made == ST_MAX_PORTS)
            return expected(ps, "'='");
        if (st_table_get(ps->temps, ps->p, n, &seen))
            return locate(ps, st_fail(ps->err, SETUN_BAD_FILE, "%s is made twice", show(ps->p, text)));
        made[n_made] = ps->p;
        length[n_made++] = n;
    }
    if (n_made == 0 || *ps->p != '=')
        return expected(ps, "input, const, state, output, or %name ... = operator");
    ps->p = skip_blanks(ps->p + 1);
    n = word_length(ps->p);
    if (n == 0)
        return expected(ps, "an operator");
    if (n < sizeof op_name) {
        memcpy(op_name, ps->p, n);
        op_name[n] = 0;
    }
    op = n < sizeof op_name ? st_registry_find(ps->registry, op_name) : NULL;
    if (!op)
        return locate(ps, st_fail(ps->err, SETUN_UNKNOWN, "there is no operator %s", show(ps->p, text)));
    for (ps->p = skip_blanks(ps->p + n); !at_end(ps) && *ps->p != '{' && *ps->p != '@'; ps->p = skip_blanks(ps->p)) {
        if (word_length(ps->p) == 2 && memcmp(ps->p, "in", 2) == 0)
            break;
        if (n_in == ST_MAX_PORTS)
            return expected(ps, "fewer inputs");
        ST_TRY(take_value(ps, &in[n_in++]));
    }
    if (n_in != op->n_in || n_made != op->n_out)
        return locate(ps, st_fail(ps->err, SETUN_BAD_FILE,
                                  "%s has %u inputs and %u outputs, but %u and %u are written", op->name, op->n_in,
                                  op->n_out, n_in, n_made));
    ST_TRY(take_attrs(ps, op, attr));
    if (*ps->p == '@') {
        ps->p++;
        ST_TRY(take_quoted(ps, &where, "a quoted place after @"));
        ps->p = skip_blanks(ps->p);
    }
    if (take_word(ps, "in"))
        ST_TRY(take_quoted(ps, &scope, "a quoted scope"));
    ST_TRY(locate(ps, st_graph_add_node(ps->g, op, in, attr, where, scope, out, ps->err)));
    for (uint32_t i = 0; i < n_made; i++) {
        int64_t seen;
        if (st_table_get(ps->temps, made[i], length[i], &seen))
            return locate(ps, st_fail(ps->err, SETUN_BAD_FILE, "%s is made twice", show(made[i], text)));
        if (st_table_put(ps->temps, made[i], length[i], out[i]))
            return no_memory(ps);
    }
    return SETUN_OK;
}

static setun_status line(parser *ps)
{
    if (take_word(ps, "input"))
        return value_line(ps, ST_INPUT);
    if (take_word(ps, "const"))
        return value_line(ps, ST_CONST);
    if (take_word(ps, "state"))
        return value_line(ps, ST_STATE);
    if (take_word(ps, "output"))
        return output_line(ps);
    return node_line(ps);
}

static setun_status lines(parser *ps)
{
    int header = 0;
    for (;; ps->p++, ps->line++) {
        if (!at_end(ps)) {
            if (header)
                ST_TRY(line(ps));
            else if (!take_word(ps, "graph") || !take_word(ps, "setun/1"))
                return expected(ps, "the first line \"graph setun/1\"");
            header = 1;
            if (!at_end(ps))
                return expected(ps, "the end of the line");
        }
        ps->p += strcspn(ps->p, "\n");
        if (!*ps->p)
            break;
    }
    return header ? SETUN_OK : expected(ps, "the first line \"graph setun/1\"");
}

setun_status st_graph_parse(const char *text, const char *name, const st_registry *r, st_arena *arena,
                            st_graph **out, setun_error *err)
{
    parser ps = {text, name, 1, r, NULL, NULL, err};
    setun_status s;
    ST_TRY(st_graph_new(&ps.g, arena, err));
    ps.temps = st_table_new(64);
    if (!ps.temps)
        return no_memory(&ps);
    s = lines(&ps);
    st_table_free(ps.temps);
    if (s == SETUN_OK)
        *out = ps.g;
    return s;
}
