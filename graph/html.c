/* graph/html.c -- a graph as one page of HTML: no scripts, nothing from elsewhere, and well-formed XML besides.
 *
 * Layers fold: a run of nodes whose scopes begin with the same number ("blk.0", "blk.0.attn_q") is one <details>,
 * in it a drawing with a row for each node in order.  Arcs on the left go from a result to who reads it; a stub
 * without an arc comes from another layer:
 *
 *      .--- rmsnorm_i8       i8[n,256] f32[n] i32[n] 264 B     attn_norm f32[256] 1.0 KB      ==   3.1 us
 *      |`-- ternary_matmul   f32[n,256] 1.0 KB                 attn_q t2[256,256] 16.4 KB     ==== 6.2 us
 *
 * Names come from scripts and files, so all text is escaped, and what XML does not allow is replaced. */
#include <string.h>

#include "base/html.h"
#include "graph/graph.h"

#define ROW 24
#define X_BOX 110  /* left edge of the boxes; arcs lie between it and 10 */
#define X_TYPE 330
#define X_READS 600
#define X_TIME 1110
#define WIDTH 1280
#define BAR 80     /* width of the longest bar of time */

typedef struct page {
    const st_graph *g;
    const double   *ns; /* per node; NULL: not measured */
    double          longest, all;
    st_str         *out;
} page;

static void add_view(st_str *out, const setun_view *v)
{
    st_str s = {0};
    st_view_print(v, &s);
    st_html_text(out, s.text ? s.text : "", 60);
    out->failed |= s.failed;
    st_str_free(&s);
}

static void add_size(st_str *out, double bytes)
{
    if (bytes >= 1e6)
        st_str_addf(out, "%.1f MB", 1e-6 * bytes);
    else if (bytes >= 1e3)
        st_str_addf(out, "%.1f KB", 1e-3 * bytes);
    else
        st_str_addf(out, "%.0f B", bytes);
}

/* Bytes at one token and one row of results. */
static double bytes_of(const st_value *v)
{
    static const int64_t one[SETUN_N_SYMBOLS] = {1, 1};
    setun_view view = v->view;
    st_view_bind(&view, one);
    return (double)setun_view_bytes(&view);
}

/* Length of "blk.0" in "blk.0.attn_q"; 0: the scope is of no layer. */
static size_t layer_of(const char *scope)
{
    for (const char *p = scope; *p; p += *p == '.') {
        size_t n = strcspn(p, "."), digits = strspn(p, "0123456789");
        if (n && n == digits)
            return (size_t)(p - scope) + n;
        p += n;
    }
    return 0;
}

static int same_layer(const st_graph *g, st_node_id a, st_node_id b)
{
    size_t n = layer_of(g->node[a].scope);
    return n == layer_of(g->node[b].scope) && memcmp(g->node[a].scope, g->node[b].scope, n) == 0;
}

/* Does a node from `first` on read the value before input i of node n does? */
static int read_before(const st_graph *g, st_node_id first, st_node_id n, uint32_t i)
{
    for (st_node_id k = first; k <= n; k++)
        for (uint32_t j = 0; j < (k == n ? i : g->node[k].op->n_in); j++)
            if (g->node[k].in[j] == g->node[n].in[i])
                return 1;
    return 0;
}

/* Weights or caches that nodes first .. last - 1 read. */
static double stored_bytes(const st_graph *g, st_node_id first, st_node_id last, st_value_kind kind)
{
    double sum = 0;
    for (st_node_id n = first; n < last; n++)
        for (uint32_t i = 0; i < g->node[n].op->n_in; i++) {
            const st_value *v = &g->value[g->node[n].in[i]];
            sum += v->kind == kind && !read_before(g, first, n, i) ? bytes_of(v) : 0;
        }
    return sum;
}

/* ---------------------------------------------------------------- one node */

static void draw_inputs(const page *p, st_node_id first, st_node_id n)
{
    const st_node *node = &p->g->node[n];
    int y = (int)(n - first) * ROW + ROW / 2;
    for (uint32_t i = 0; i < node->op->n_in; i++) {
        const st_value *v = &p->g->value[node->in[i]];
        int again = 0; /* one arc for all results of a node */
        for (uint32_t k = 0; k < i; k++)
            again |= p->g->value[node->in[k]].kind == ST_TEMP && p->g->value[node->in[k]].node == v->node;
        if (v->kind != ST_TEMP || again)
            continue;
        if (v->node < first) {
            st_str_addf(p->out, "<path class=\"far\" d=\"M%d %dH%d\"><title>from %s, node %u</title></path>\n", X_BOX - 22, y, X_BOX,
                        p->g->node[v->node].op->name, v->node);
            continue;
        }
        int from = (int)(v->node - first) * ROW + ROW / 2, far = (y - from) / ROW * 7 + 8;
        int x = X_BOX - (far > 96 ? 96 : far);
        st_str_addf(p->out, "<path d=\"M%d %dC%d %d %d %d %d %d\"/>\n", X_BOX, from, x, from, x, y, X_BOX, y);
    }
}

/* "attn_q t2[256,256] 16.4 KB": what it reads that no node makes. */
static void draw_stored(const page *p, st_node_id n, int y)
{
    const st_node *node = &p->g->node[n];
    size_t scope = layer_of(node->scope);
    int shown = 0;
    st_str_addf(p->out, "<text x=\"%d\" y=\"%d\">", X_READS, y);
    for (uint32_t i = 0; i < node->op->n_in; i++) {
        const st_value *v = &p->g->value[p->g->value[node->in[i]].root];
        if (v->kind == ST_TEMP || (v->kind != ST_INPUT && bytes_of(v) < 64)) /* a scale is no news */
            continue;
        int inside = scope && strncmp(v->name, node->scope, scope) == 0 && v->name[scope] == '.';
        st_str_add(p->out, shown++ ? ", " : "");
        st_html_text(p->out, v->name + (inside ? scope + 1 : 0), 30);
        if (v->kind != ST_INPUT) {
            st_str_add(p->out, " ");
            add_view(p->out, &v->view);
            st_str_add(p->out, " ");
            add_size(p->out, bytes_of(v));
        }
    }
    st_str_add(p->out, "</text>\n");
}

static void draw_node(const page *p, st_node_id first, st_node_id n)
{
    const st_node *node = &p->g->node[n];
    int top = (int)(n - first) * ROW, y = top + 16;
    double bytes = 0;
    for (uint32_t i = 0; i < node->op->n_out; i++)
        bytes += node->op->out[i].shares ? 0 : bytes_of(&p->g->value[node->out[i]]);
    st_str_addf(p->out, "<g id=\"n%u\"><title>", n);
    st_html_text(p->out, node->op->name, 200);
    st_str_add(p->out, node->scope[0] ? " in " : "");
    st_html_text(p->out, node->scope, 200);
    st_str_addf(p->out, ", node %u", n);
    st_str_add(p->out, node->where[0] ? ", " : "");
    st_html_text(p->out, node->where, 200);
    st_str_addf(p->out, "</title><rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" rx=\"4\"/>", X_BOX, top + 2, X_TYPE - X_BOX - 12, ROW - 4);
    st_str_addf(p->out, "<text class=\"op\" x=\"%d\" y=\"%d\">", X_BOX + 8, y);
    st_html_text(p->out, node->op->name, 26);
    st_str_addf(p->out, "</text><text x=\"%d\" y=\"%d\">", X_TYPE, y);
    for (uint32_t i = 0; i < node->op->n_out; i++) {
        st_str_add(p->out, i ? " " : "");
        add_view(p->out, &p->g->value[node->out[i]].view);
    }
    if (bytes > 0) {
        st_str_add(p->out, " ");
        add_size(p->out, bytes);
    }
    st_str_add(p->out, "</text>\n");
    draw_stored(p, n, y);
    if (p->ns)
        st_str_addf(p->out, "<rect class=\"bar\" x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"10\"/><text x=\"%d\" y=\"%d\">%.1f us</text>\n", X_TIME,
                    top + 7, p->longest > 0 ? BAR * p->ns[n] / p->longest : 0, X_TIME + BAR + 8, y, 1e-3 * p->ns[n]);
    st_str_add(p->out, "</g>\n");
}

/* ---------------------------------------------------------------- one layer */

static void draw_layer(const page *p, st_node_id first, st_node_id last, int open)
{
    const st_graph *g = p->g;
    size_t n = layer_of(g->node[first].scope);
    double ns = 0;
    st_str name = {0};
    st_str_addn(&name, n ? g->node[first].scope : "", n);
    for (st_node_id i = first; i < last && p->ns; i++)
        ns += p->ns[i];
    st_str_addf(p->out, "<details%s><summary><b>", open ? " open=\"open\"" : "");
    st_html_text(p->out, n && name.text ? name.text : "outside layers", 80);
    st_str_addf(p->out, "</b> %u node%s, weights ", last - first, last - first == 1 ? "" : "s");
    add_size(p->out, stored_bytes(g, first, last, ST_CONST));
    double state = stored_bytes(g, first, last, ST_STATE);
    if (state > 0) {
        st_str_add(p->out, ", caches ");
        add_size(p->out, state);
    }
    if (p->ns)
        st_str_addf(p->out, ", %.1f us (%.1f %%)", 1e-3 * ns, p->all > 0 ? 100 * ns / p->all : 0);
    st_str_add(p->out, "</summary>\n");
    st_html_drawing(p->out, "operators in their order", WIDTH, (int)(last - first) * ROW + 4);
    for (st_node_id i = first; i < last; i++)
        draw_inputs(p, first, i);
    for (st_node_id i = first; i < last; i++)
        draw_node(p, first, i);
    st_str_add(p->out, "</svg></details>\n");
    p->out->failed |= name.failed;
    st_str_free(&name);
}

static void add_values(const page *p, st_value_kind kind, const char *title)
{
    int n = 0;
    for (st_value_id v = 0; v < p->g->n_value; v++)
        if (p->g->value[v].kind == kind) {
            st_str_addf(p->out, "%s", n++ ? ", " : title);
            st_html_text(p->out, p->g->value[v].name, 80);
            st_str_add(p->out, " ");
            add_view(p->out, &p->g->value[v].view);
        }
}

static void add_head(const page *p, const char *title)
{
    static const char style[] =
        "summary{cursor:pointer;padding:4px}details{border:1px solid #ccc;border-radius:6px;margin:6px 0;padding:4px 8px;overflow-x:auto}\n"
        "svg{min-width:900px}svg .op{font-weight:bold}\n"
        "svg rect{fill:#eef3fa;stroke:#7a94b8}svg .bar{fill:#d9822b;stroke:none}\n"
        "svg path{fill:none;stroke:#7a94b8}svg .far{stroke-dasharray:3 2}\n";
    st_html_begin(p->out, title, style);
    double weights = 0;
    for (st_value_id v = 0; v < p->g->n_value; v++)
        weights += p->g->value[v].kind == ST_CONST ? bytes_of(&p->g->value[v]) : 0;
    st_str_addf(p->out, "<p>%u nodes; weights ", p->g->n_node);
    add_size(p->out, weights);
    if (p->ns)
        st_str_addf(p->out, "; one token takes %.1f us, with a barrier behind every node", 1e-3 * p->all);
    st_str_add(p->out, ".<br/>");
    add_values(p, ST_INPUT, "Inputs: ");
    for (uint32_t i = 0; i < p->g->n_output; i++) {
        st_str_add(p->out, i ? ", " : ". Outputs: ");
        st_html_text(p->out, p->g->output[i].name, 80);
        st_str_add(p->out, " ");
        add_view(p->out, &p->g->value[p->g->output[i].value].view);
    }
    st_str_add(p->out, ".<br/>A row is a node: operator, results and their bytes for one token, what it reads that no node makes (n tokens, m rows "
               "of results). "
               "An arc goes from a result to its reader; a dashed stub comes from another layer. Point at a box for its place in the script.</p>\n");
}

void st_graph_html(const st_graph *g, const char *title, const double *ns, st_str *out)
{
    page p = {g, ns, 0, 0, out};
    for (st_node_id n = 0; ns && n < g->n_node; n++) {
        p.all += ns[n];
        p.longest = ns[n] > p.longest ? ns[n] : p.longest;
    }
    add_head(&p, title);
    int layers = 0;
    for (st_node_id n = 0, last; n < g->n_node; n = last) {
        for (last = n + 1; last < g->n_node && same_layer(g, n, last); last++)
            ;
        int is_layer = layer_of(g->node[n].scope) > 0;
        draw_layer(&p, n, last, !is_layer || layers == 0); /* one layer is open: the others are like it */
        layers += is_layer;
    }
    st_str_add(out, "</body></html>\n");
}
