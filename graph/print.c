/* graph/print.c -- the text form of a graph, and a drawing for Graphviz.
 *
 *     graph setun/1
 *     input tokens i32[n]
 *     const blk.0.attn_norm f32[2560]
 *     %12 = rmsnorm %8 blk.0.attn_norm {eps=1e-05} @"bitnet_b158.lua:12" in "blk.0"
 *     output logits %12
 *
 * One line per value or node, in the order of ids, so that parsing gives the same ids back and
 * printing those gives the same bytes.  A temporary is %id.  Attributes that have their default are
 * left out.  Constants print without their data. */
#include <stdio.h>
#include <string.h>

#include "graph/graph.h"

/* Indexed by SETUN_F32 and so on; 0 is no type. */
static const char *const dtype_names[] = {NULL, "f32", "f16", "bf16", "i8", "i16", "i32", "i64", "u8", "t2", "q8",
                                          "q4_0", "q8_0", "q4_k", "q6_k"};

const char *st_dtype_name(uint32_t dtype)
{
    return dtype < SETUN_LEN(dtype_names) ? dtype_names[dtype] : NULL;
}

uint32_t st_dtype_find(const char *name, size_t n)
{
    for (uint32_t i = 1; i < SETUN_LEN(dtype_names); i++)
        if (strlen(dtype_names[i]) == n && memcmp(dtype_names[i], name, n) == 0)
            return i;
    return 0;
}

void st_view_print(const setun_view *v, st_str *out)
{
    const char *name = st_dtype_name(v->dtype);
    st_str_add(out, name ? name : "?");
    st_str_add(out, "[");
    for (uint32_t i = 0; i < v->rank && i < SETUN_MAX_RANK; i++) {
        st_str_add(out, i ? "," : "");
        if (v->dim[i] == SETUN_DIM_TOKENS)
            st_str_add(out, "n");
        else if (v->dim[i] == SETUN_DIM_OUTPUTS)
            st_str_add(out, "m");
        else
            st_str_addf(out, "%lld", (long long)v->dim[i]);
    }
    st_str_add(out, "]");
}

/* ---------------------------------------------------------------- names and attributes */

static int is_bare(const char *s)
{
    static const char first[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_";
    static const char more[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789./:-";
    /* A value named "in" would read as the word before a scope. */
    return *s && strchr(first, *s) && s[strspn(s, more)] == 0 && strcmp(s, "in") != 0;
}

static void print_escaped(const char *s, st_str *out)
{
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\')
            st_str_addf(out, "\\%c", c);
        else if (c < 32 || c == 127)
            st_str_addf(out, "\\x%02x", c);
        else
            st_str_addn(out, s, 1);
    }
}

static void print_quoted(const char *s, st_str *out)
{
    st_str_add(out, "\"");
    print_escaped(s, out);
    st_str_add(out, "\"");
}

static void print_name(const char *s, st_str *out)
{
    if (is_bare(s))
        st_str_add(out, s);
    else
        print_quoted(s, out);
}

void st_value_print(const st_graph *g, st_value_id v, st_str *out)
{
    if (v < g->n_value && g->value[v].kind != ST_TEMP)
        print_name(g->value[v].name, out);
    else
        st_str_addf(out, "%%%u", v);
}

static uint64_t f64_bits(double f)
{
    union { double f; uint64_t u; } b;
    b.f = f;
    return b.u;
}

int st_attr_same(const setun_attr *a, const setun_value *x, const setun_value *y)
{
    if (a->kind == SETUN_ATTR_STRING)
        return x->s && y->s ? strcmp(x->s, y->s) == 0 : x->s == y->s;
    return a->kind == SETUN_ATTR_FLOAT ? f64_bits(x->f) == f64_bits(y->f) : x->i == y->i;
}

/* The host program may have set a locale with another decimal point, of one byte or several. */
static void plain_point(char *text)
{
    char *to = text;
    for (const char *p = text; *p; p++) {
        if (strchr("0123456789+-e", *p))
            *to++ = *p;
        else if (to == text || to[-1] != '.')
            *to++ = '.';
    }
    *to = 0;
}

static void print_f64(double f, st_str *out)
{
    char text[40];
    double back;
    if (f != f || f - f != 0) { /* inf - inf is not zero */
        st_str_add(out, f != f ? "nan" : f < 0 ? "-inf" : "inf");
        return;
    }
    for (int digits = 1; digits <= 17; digits++) {
        (void)snprintf(text, sizeof text, "%.*g", digits, f);
        plain_point(text);
        if (st_parse_f64(text, &back) == 0 && f64_bits(back) == f64_bits(f))
            break;
    }
    st_str_add(out, text);
}

void st_attr_print(const setun_attr *a, const setun_value *v, st_str *out)
{
    st_str_add(out, a->name);
    st_str_add(out, "=");
    if (a->kind == SETUN_ATTR_STRING)
        print_quoted(v->s, out);
    else if (a->kind == SETUN_ATTR_FLOAT)
        print_f64(v->f, out);
    else
        st_str_addf(out, "%lld", (long long)v->i);
}

/* ---------------------------------------------------------------- graphs */

static void print_node(const st_graph *g, const st_node *n, st_str *out)
{
    const char *before = " {";
    for (uint32_t i = 0; i < n->op->n_out; i++)
        st_str_addf(out, "%%%u ", n->out[i]);
    st_str_addf(out, "= %s", n->op->name);
    for (uint32_t i = 0; i < n->op->n_in; i++) {
        st_str_add(out, " ");
        st_value_print(g, n->in[i], out);
    }
    for (uint32_t i = 0; i < n->op->n_attr; i++) {
        const setun_attr *a = &n->op->attr[i];
        if (!a->required && st_attr_same(a, &n->attr[i], &a->fallback))
            continue;
        st_str_add(out, before);
        st_attr_print(a, &n->attr[i], out);
        before = " ";
    }
    if (before[1] == 0)
        st_str_add(out, "}");
    if (n->where[0]) {
        st_str_add(out, " @");
        print_quoted(n->where, out);
    }
    if (n->scope[0]) {
        st_str_add(out, " in ");
        print_quoted(n->scope, out);
    }
    st_str_add(out, "\n");
}

void st_graph_print(const st_graph *g, st_str *out)
{
    static const char *const kinds[] = {"input", "const", "state"};
    st_str_add(out, "graph setun/1\n");
    for (st_value_id i = 0; i < g->n_value; i++) {
        const st_value *v = &g->value[i];
        if (v->kind == ST_TEMP) {
            if (v->port == 0)
                print_node(g, &g->node[v->node], out);
            continue;
        }
        st_str_addf(out, "%s ", kinds[v->kind]);
        print_name(v->name, out);
        st_str_add(out, " ");
        st_view_print(&v->view, out);
        st_str_add(out, "\n");
    }
    for (uint32_t i = 0; i < g->n_output; i++) {
        st_str_add(out, "output ");
        print_name(g->output[i].name, out);
        st_str_add(out, " ");
        st_value_print(g, g->output[i].value, out);
        st_str_add(out, "\n");
    }
}

/* Graphviz has the same quoting for what matters: a backslash before a quote or a backslash. */
static void dot_node(const char *id, uint32_t n, const char *shape, const char *label, const char *more, st_str *out)
{
    st_str_addf(out, "  %s%u [shape=%s, label=\"", id, n, shape);
    print_escaped(label, out);
    st_str_add(out, "\\n");
    print_escaped(more, out);
    st_str_add(out, "\"];\n");
}

static void dot_source(const st_graph *g, st_value_id v, st_str *out)
{
    if (g->value[v].kind == ST_TEMP)
        st_str_addf(out, "  n%u", g->value[v].node);
    else
        st_str_addf(out, "  v%u", v);
}

void st_graph_dot(const st_graph *g, st_str *out)
{
    static const char *const shapes[] = {"invhouse", "note", "cylinder"};
    st_str_add(out, "digraph setun {\n  rankdir=TB;\n  node [fontname=\"monospace\"];\n");
    for (st_value_id i = 0; i < g->n_value; i++) {
        st_str type = {0};
        st_view_print(&g->value[i].view, &type);
        if (g->value[i].kind != ST_TEMP)
            dot_node("v", i, shapes[g->value[i].kind], g->value[i].name, type.text ? type.text : "", out);
        out->failed |= type.failed;
        st_str_free(&type);
    }
    for (st_node_id i = 0; i < g->n_node; i++) {
        const st_node *n = &g->node[i];
        dot_node("n", i, "box", n->op->name, n->scope, out);
        for (uint32_t k = 0; k < n->op->n_in; k++) {
            dot_source(g, n->in[k], out);
            st_str_addf(out, " -> n%u [label=\"", i);
            st_view_print(&g->value[n->in[k]].view, out);
            st_str_add(out, "\"];\n");
        }
    }
    for (uint32_t i = 0; i < g->n_output; i++) {
        dot_node("o", i, "house", g->output[i].name, "output", out);
        dot_source(g, g->output[i].value, out);
        st_str_addf(out, " -> o%u;\n", i);
    }
    st_str_add(out, "}\n");
}
