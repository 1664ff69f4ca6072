/* runtime/inspect.c -- tensors by name: where they are, what their numbers are, and how two rows of logits differ.
 *
 * Not here: printing (print_tensor.c).  A constant is looked at where it lies, so that a matrix of a gigabyte costs no
 * memory; what a step computes is copied while setun_trace shows it.  Every number is read by the type's definition
 * in setun/types.h, one at a time: nothing here is fast, and nothing depends on kernels. */
#include "runtime/inspect.h"

#include <fnmatch.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "model/convert.h"
#include "runtime/divergence.h"
#include "runtime/model.h"
#include "setun/op_blocks.h"
#include "setun/op_help.h"

/* ---------------------------------------------------------------- numbers */

static double scale_of(const setun_tensor *t, int64_t r, int64_t c)
{
    const float *s = t->scale.data;
    if (!s)
        return 1.0;
    if (setun_count(&t->scale) == 1)
        return (double)s[0];
    return (double)(t->scale.rank == 1 ? s[r] : s[r * t->scale.dim[1] + (t->group ? c / t->group : 0)]);
}

double st_tensor_value(const setun_tensor *t, int64_t r, int64_t c)
{
    const setun_view *v = &t->view;
    int64_t columns = v->rank ? v->dim[v->rank - 1] : 1, i = r * columns + c;
    int64_t block = setun_block(v->dtype), bytes = setun_row_bytes(v->dtype, block);
    const uint8_t *row = (const uint8_t *)v->data + r * setun_row_bytes(v->dtype, columns);
    float f = 0;
    switch (v->dtype) {
    case SETUN_I8: return ((const int8_t *)v->data)[i];
    case SETUN_U8: return ((const uint8_t *)v->data)[i];
    case SETUN_I16: return ((const int16_t *)v->data)[i];
    case SETUN_I32: return ((const int32_t *)v->data)[i];
    case SETUN_I64: return (double)((const int64_t *)v->data)[i];
    case SETUN_T2: return (double)(float)(setun_get_t2(row, c) * scale_of(t, r, c)); /* exact: -s, 0 or s */
    case SETUN_F32: case SETUN_F16: case SETUN_BF16:
        (void)st_convert_f32(&f, row + c * bytes, v->dtype, 1);
        return (double)f;
    default: return (double)setun_get_block(v->dtype, row + c / block * bytes, c % block);
    }
}

/* ---------------------------------------------------------------- finding them */

/* The attribute `group` of the product that the matrix is for. */
static int64_t group_of(const st_graph *g, st_value_id matrix)
{
    for (st_node_id n = 0; n < g->n_node; n++) {
        const st_node *node = &g->node[n];
        for (uint32_t i = 0; i < node->op->n_in; i++)
            for (uint32_t a = 0; node->in[i] == matrix && a < node->op->n_attr; a++)
                if (strcmp(node->op->attr[a].name, "group") == 0)
                    return node->attr[a].i;
    }
    return 0;
}

static st_value_id find_named(const st_graph *g, const char *name, const char *suffix)
{
    char whole[ST_MAX_NAME + 8];
    if (strlen(name) > ST_MAX_NAME)
        return ST_NO_ID;
    (void)snprintf(whole, sizeof whole, "%s%s", name, suffix);
    st_value_id v = st_graph_find(g, whole);
    return v != ST_NO_ID && g->value[v].kind == ST_CONST && g->value[v].view.data ? v : ST_NO_ID;
}

static setun_status find_constant(setun_tensor *t, const setun_model *m, const char *name, setun_error *err)
{
    const st_graph *g = m->graph;
    st_value_id v = find_named(g, name, "");
    if (v == ST_NO_ID)
        v = find_named(g, name, ".t");
    if (v == ST_NO_ID && find_named(g, name, ST_PACKED_NAME) != ST_NO_ID)
        return st_fail(err, SETUN_UNKNOWN, "%s is in the packing %s, and cannot be looked at; load the model without it", name,
                       m->packed.name);
    if (v == ST_NO_ID)
        return st_fail(err, SETUN_UNKNOWN, "%s has no tensor named '%.200s'", m->path, name);
    t->view = g->value[v].view;
    if (t->view.dtype != SETUN_T2)
        return SETUN_OK;
    const char *matrix = g->value[v].name;
    size_t n = strlen(matrix);
    char plain[ST_MAX_NAME + 8];
    (void)snprintf(plain, sizeof plain, "%s", matrix);
    st_value_id s = find_named(g, plain, ".scale");
    if (s == ST_NO_ID && n > 2 && strcmp(plain + n - 2, ".t") == 0) {
        plain[n - 2] = 0;
        s = find_named(g, plain, ".scale");
    }
    if (s != ST_NO_ID && g->value[s].view.dtype == SETUN_F32) {
        t->scale = g->value[s].view;
        t->group = group_of(g, v);
    }
    return SETUN_OK;
}

typedef struct catcher {
    setun_tensor *t;
    const char   *name; /* NULL: only the names are wanted */
    const char   *pattern;
    st_str       *list;
    int           no_memory;
} catcher;

static void on_tensor(void *user, const char *name, const setun_view *v)
{
    catcher *c = user;
    int64_t bytes = setun_view_bytes(v);
    (void)name;
    c->t->copy = malloc((size_t)(bytes ? bytes : 1));
    c->no_memory = !c->t->copy;
    if (c->no_memory)
        return;
    memcpy(c->t->copy, v->data, (size_t)bytes);
    c->t->view = *v;
    c->t->view.data = c->t->copy;
}

static int drop_text(void *user, const char *text, size_t n)
{
    (void)user;
    (void)text;
    (void)n;
    return 0;
}

static setun_status find_computed(setun_tensor *t, const setun_model *m, const char *name, const int32_t *tokens, int64_t n_tokens,
                                  setun_error *err)
{
    catcher c = {.t = t};
    setun_trace_options o = {.size = sizeof o, .select = &name, .n_select = 1, .tokens = tokens, .n_tokens = n_tokens,
                             .see = on_tensor, .see_user = &c};
    if (!n_tokens)
        return st_fail(err, SETUN_BAD_ARG, "@%.200s is computed behind tokens, and there are none yet", name);
    /* The trace reads patterns; names have none of their characters. */
    if (strpbrk(name, "*?[\\"))
        return st_fail(err, SETUN_BAD_ARG, "'%.200s' is a pattern, not the name of one tensor", name);
    setun_status s = setun_trace(m, &o, drop_text, NULL, err);
    if (s == SETUN_BAD_ARG && !t->copy && n_tokens <= m->n_batch)
        return st_fail(err, SETUN_UNKNOWN, "no step computes a tensor named '%.200s'", name);
    return s == SETUN_OK && c.no_memory ? st_fail(err, SETUN_NO_MEMORY, "no memory for @%.200s", name) : s;
}

setun_status setun_tensor_get(setun_tensor **out, const setun_model *m, const char *name, const int32_t *tokens, int64_t n_tokens,
                              setun_error *err)
{
    setun_tensor *t = calloc(1, sizeof *t);
    *out = NULL;
    if (!t)
        return st_fail(err, SETUN_NO_MEMORY, "no memory for a tensor");
    setun_status s = name[0] == '@' ? find_computed(t, m, name + 1, tokens, n_tokens, err) : find_constant(t, m, name, err);
    if (s != SETUN_OK) {
        setun_tensor_free(t);
        return s;
    }
    *out = t;
    return SETUN_OK;
}

void setun_tensor_free(setun_tensor *t)
{
    if (t)
        free(t->copy);
    free(t);
}

/* ---------------------------------------------------------------- statistics */

static void count_scales(const setun_tensor *t, setun_tensor_info *i)
{
    const float *s = t->scale.data;
    i->n_scale = s ? setun_count(&t->scale) : 0;
    for (int64_t k = 0; k < i->n_scale; k++) {
        double x = (double)s[k];
        i->scale_min = k == 0 || x < i->scale_min ? x : i->scale_min;
        i->scale_max = k == 0 || x > i->scale_max ? x : i->scale_max;
    }
}

setun_status setun_tensor_about(const setun_tensor *t, setun_tensor_info *i, int (*stop)(void *user), void *user, setun_error *err)
{
    const setun_view *v = &t->view;
    int64_t columns = v->rank ? v->dim[v->rank - 1] : 1, rows = columns ? setun_count(v) / columns : 0;
    double sum = 0, squares = 0;
    memset(i, 0, sizeof *i);
    i->size = sizeof *i;
    i->rank = v->rank;
    memcpy(i->dim, v->dim, sizeof i->dim);
    (void)snprintf(i->type, sizeof i->type, "%s", st_dtype_name(v->dtype));
    i->count = rows * columns;
    for (int64_t r = 0; r < rows; r++) {
        if (stop && stop(user))
            return st_fail(err, SETUN_CANCELLED, "interrupted");
        for (int64_t c = 0; c < columns; c++) {
            double x = st_tensor_value(t, r, c);
            if (v->dtype == SETUN_T2)
                i->n_code[setun_get_t2((const uint8_t *)v->data + r * setun_row_bytes(SETUN_T2, columns), c) + 1]++;
            if (!isfinite(x))
                continue;
            i->min = i->n_finite == 0 || x < i->min ? x : i->min;
            i->max = i->n_finite == 0 || x > i->max ? x : i->max;
            i->n_finite++;
            sum += x;
            squares += x * x;
        }
    }
    if (i->n_finite) {
        i->mean = sum / (double)i->n_finite;
        i->rms = sqrt(squares / (double)i->n_finite);
    }
    count_scales(t, i);
    return SETUN_OK;
}

setun_status setun_tensor_at(const setun_tensor *t, const int64_t *index, int32_t n, double *value, setun_error *err)
{
    const setun_view *v = &t->view;
    int64_t row = 0;
    if (n < 0 || (uint32_t)n != v->rank)
        return st_fail(err, SETUN_BAD_ARG, "%d indices for a tensor of %u dimensions", n, v->rank);
    for (uint32_t d = 0; d < v->rank; d++) {
        if (index[d] < 0 || index[d] >= v->dim[d])
            return st_fail(err, SETUN_BAD_ARG, "index %" PRId64 " is outside dimension %u, which has %" PRId64, index[d], d, v->dim[d]);
        row = d + 1 < v->rank ? row * v->dim[d] + index[d] : row;
    }
    *value = st_tensor_value(t, row, v->rank ? index[v->rank - 1] : 0);
    return SETUN_OK;
}

/* ---------------------------------------------------------------- what there is */

static int add_computed(void *user, const char *text, size_t n)
{
    catcher *c = user;
    /* Lines of setun trace --list: a name, spaces, the rest; the last line is a sum. */
    for (const char *p = text, *end; p < text + n && (end = memchr(p, '\n', (size_t)(text + n - p))); p = end + 1) {
        char name[256];
        size_t k = strcspn(p, " ");
        if (end + 1 == text + n || k >= sizeof name - 1)
            continue;
        (void)snprintf(name, sizeof name, "@%.*s", (int)k, p);
        if (c->pattern && fnmatch(c->pattern, name, 0) && fnmatch(c->pattern, name + 1, 0))
            continue;
        st_str_add(c->list, "@");
        st_str_addn(c->list, p, (size_t)(end - p) + 1);
    }
    return 0;
}

setun_status setun_tensors_list(const setun_model *m, const char *pattern, const int32_t *tokens, int64_t n_tokens,
                                setun_write_fn *write, void *user, setun_error *err)
{
    const st_graph *g = m->graph;
    st_str s = {0};
    catcher c = {.pattern = pattern, .list = &s};
    setun_status st = SETUN_OK;
    for (st_value_id v = 0; v < g->n_value; v++) {
        if (g->value[v].kind != ST_CONST || (pattern && fnmatch(pattern, g->value[v].name, 0)))
            continue;
        st_str_addf(&s, "%-28s  ", g->value[v].name);
        st_view_print(&g->value[v].view, &s);
        st_str_add(&s, "\n");
    }
    if (n_tokens) {
        setun_trace_options o = {.size = sizeof o, .tokens = tokens, .n_tokens = n_tokens};
        st = setun_trace(m, &o, add_computed, &c, err);
    }
    if (st == SETUN_OK && s.failed)
        st = st_fail(err, SETUN_NO_MEMORY, "no memory for a list");
    if (st == SETUN_OK && !s.len)
        st = st_fail(err, SETUN_UNKNOWN, "no tensor has a name like '%.200s'", pattern ? pattern : "*");
    if (st == SETUN_OK && write(user, s.text, s.len))
        st = st_fail(err, SETUN_CANCELLED, "cancelled by the caller, who took no more text");
    st_str_free(&s);
    return st;
}

/* ---------------------------------------------------------------- logits */

void setun_logits_compare(const float *p, const float *q, int64_t n, setun_logits_diff *d)
{
    double squares = 0, log_p;
    int same_top;
    memset(d, 0, sizeof *d);
    d->size = sizeof *d;
    d->kl = st_divergence(p, q, n, &log_p, &same_top);
    d->same_top = same_top;
    for (int64_t i = 0; i < n; i++) {
        double x = fabs((double)p[i] - (double)q[i]);
        d->n_differ += setun_f32_bits(p[i]) != setun_f32_bits(q[i]);
        d->max = x > d->max || isnan(x) ? x : d->max;
        squares += x * x;
    }
    d->rms = sqrt(squares / (double)n);
}
