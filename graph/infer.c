/* graph/infer.c -- types and sizes: check views, run op->infer, check what it claims.
 *
 * An operator may come from a plugin or a script, so its answer is not believed: every output must
 * be a well-formed view, may use only symbols that an input has, and one that shares memory must
 * have the type and the number of elements of the input it shares. */
#include "base/error.h"
#include "graph/graph.h"

/* 2^62 leaves room for alignment and slack to be added without a check. */
#define MAX_BYTES ((int64_t)1 << 62)

setun_status st_view_check(const setun_view *v, int symbols, setun_error *err)
{
    int64_t bytes = 1, last;
    if (!st_dtype_name(v->dtype))
        return st_fail(err, SETUN_BAD_SHAPE, "element type %u is unknown", v->dtype);
    if (v->rank > SETUN_MAX_RANK)
        return st_fail(err, SETUN_BAD_SHAPE, "rank %u is more than %d", v->rank, SETUN_MAX_RANK);
    if (setun_block(v->dtype) > 1 && v->rank == 0)
        return st_fail(err, SETUN_BAD_SHAPE, "a %s array needs at least one dimension", st_dtype_name(v->dtype));
    for (uint32_t i = 0; i < SETUN_MAX_RANK; i++) {
        int64_t d = v->dim[i];
        if (i >= v->rank && d != 1)
            return st_fail(err, SETUN_BAD_SHAPE, "unused dimension %u is %lld, wants 1", i, (long long)d);
        if (d >= 0)
            continue;
        if (d < -SETUN_N_SYMBOLS)
            return st_fail(err, SETUN_BAD_SHAPE, "dimension %u is %lld, neither a size nor a symbol", i,
                           (long long)d);
        if (i > 0)
            return st_fail(err, SETUN_BAD_SHAPE, "dimension %u is symbolic; only the first may be", i);
        if (!symbols)
            return st_fail(err, SETUN_BAD_SHAPE, "dimension 0 is symbolic; its size must be known");
    }
    /* A row is at most 8 bytes an element and 210 for a started block, a symbol counts as 1. */
    last = v->rank && v->dim[v->rank - 1] >= 0 ? v->dim[v->rank - 1] : 1;
    if (last > MAX_BYTES / 64)
        return st_fail(err, SETUN_BAD_SHAPE, "%lld elements in a row are too many", (long long)last);
    bytes = setun_row_bytes(v->dtype, last);
    for (uint32_t i = 0; i + 1 < v->rank; i++) {
        int64_t d = v->dim[i] < 0 ? 1 : v->dim[i];
        if (st_mul_i64(bytes, d, &bytes) || bytes > MAX_BYTES)
            return st_fail(err, SETUN_BAD_SHAPE, "the array is too large for this machine");
    }
    return SETUN_OK;
}

void st_view_bind(setun_view *v, const int64_t size[SETUN_N_SYMBOLS])
{
    int64_t d = v->dim[0];
    if (v->rank && d < 0 && d >= -SETUN_N_SYMBOLS && size[-d - 1] >= 0)
        v->dim[0] = size[-d - 1];
}

int st_view_same(const setun_view *a, const setun_view *b)
{
    if (a->dtype != b->dtype || a->rank != b->rank)
        return 0;
    for (uint32_t i = 0; i < a->rank; i++)
        if (a->dim[i] != b->dim[i])
            return 0;
    return 1;
}

/* Could the same bytes be seen as either?  A cache keeps its shape; a reshaped view keeps its number
 * of elements.  Rows of blocks have padding, so only the shape itself will do. */
static int fits_memory(const setun_view *a, const setun_view *b)
{
    int64_t x = 1, y = 1;
    if (st_view_same(a, b))
        return 1;
    if (a->dtype != b->dtype || setun_block(a->dtype) > 1 || (a->dim[0] < 0 || b->dim[0] < 0 ? a->dim[0] != b->dim[0] : 0))
        return 0;
    /* Both views have been checked, so these products fit. */
    for (uint32_t i = 0; i < SETUN_MAX_RANK; i++) {
        x *= a->dim[i] < 0 ? 1 : a->dim[i];
        y *= b->dim[i] < 0 ? 1 : b->dim[i];
    }
    return x == y;
}

static int has_symbol(const setun_args *a, int64_t symbol)
{
    for (uint32_t i = 0; i < a->n_in; i++)
        if (a->in[i].rank && a->in[i].dim[0] == symbol)
            return 1;
    return 0;
}

setun_status st_infer(setun_args *a, setun_error *err)
{
    const setun_op *op = a->op;
    static const setun_view empty = {NULL, 0, 0, {1, 1, 1, 1}};
    setun_status s;
    a->size = sizeof *a;
    for (uint32_t i = 0; i < a->n_out; i++)
        a->out[i] = empty;
    (void)st_fail(err, SETUN_BAD_SHAPE, "infer failed without a reason");
    s = op->infer(a, err);
    if (s > 0)
        return st_fail(err, SETUN_BAD_SHAPE, "infer declined");
    if (s != SETUN_OK) {
        if (err)
            err->code = s;
        return s;
    }
    for (uint32_t i = 0; i < a->n_out; i++) {
        const setun_view *v = &a->out[i];
        const char *name = op->out[i].name;
        uint32_t shares = op->out[i].shares;
        s = st_view_check(v, 1, err);
        if (s != SETUN_OK) {
            st_wrap(err, "infer gave a bad output %s", name);
            return s;
        }
        if (v->rank && v->dim[0] < 0 && !has_symbol(a, v->dim[0]))
            return st_fail(err, SETUN_BAD_SHAPE, "output %s has a symbolic size that no input has", name);
        if (shares && (shares > a->n_in || !fits_memory(v, &a->in[shares - 1])))
            return st_fail(err, SETUN_BAD_SHAPE, "output %s shares memory with input %s but has another size",
                           name, shares > a->n_in ? "(none)" : op->in[shares - 1].name);
    }
    if (err) {
        err->code = SETUN_OK;
        err->text[0] = 0;
    }
    return SETUN_OK;
}

setun_status st_node_args(const st_graph *g, st_node_id n, st_arena *arena, setun_args *a, setun_error *err)
{
    const st_node *node;
    setun_view *views;
    if (n >= g->n_node)
        return st_fail(err, SETUN_BAD_ARG, "there is no node %u", n);
    node = &g->node[n];
    views = st_arena_array(arena, (int64_t)node->op->n_in + node->op->n_out, (int64_t)sizeof *views);
    if (!views)
        return st_fail(err, SETUN_NO_MEMORY, "out of memory for the arguments of %s", node->op->name);
    a->size = sizeof *a;
    a->n_in = node->op->n_in;
    a->n_out = node->op->n_out;
    a->n_attr = node->op->n_attr;
    a->op = node->op;
    a->in = views;
    a->out = views + a->n_in;
    a->attr = node->attr;
    a->knob = NULL;
    for (uint32_t i = 0; i < a->n_in; i++)
        a->in[i] = g->value[node->in[i]].view;
    for (uint32_t i = 0; i < a->n_out; i++)
        a->out[i] = g->value[node->out[i]].view;
    return SETUN_OK;
}

void st_node_wrap(setun_error *err, const setun_op *op, const char *where, const char *scope)
{
    st_wrap(err, "%s%s%s%s%s", where, where[0] ? ": " : "", op->name, scope[0] ? " in " : "", scope);
}
