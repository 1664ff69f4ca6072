/* tests/unit/graph_ops.h -- small operators, random graphs and an executor for tests of graph/.
 *
 * The operators have the schemas of those in ops/ but are written here in the plainest way, so that
 * tests of rewriting and planning depend on nothing but eval.  Fused ones call the parts. */
#ifndef ST_TEST_GRAPH_OPS_H
#define ST_TEST_GRAPH_OPS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/error.h"
#include "base/hash.h"
#include "graph/graph.h"
#include "graph/plan.h"
#include "graph/registry.h"
#include "graph/rules.h"

#define ASSERT_OK(call)                                           \
    do {                                                          \
        setun_status ok_ = (call);                                \
        if (ok_ != SETUN_OK)                                      \
            fail_msg("%s: %d: %s", #call, (int)ok_, err.text);    \
    } while (0)
#define ASSERT_FAILS(call, part)                                                            \
    do {                                                                                    \
        setun_status bad_ = (call);                                                         \
        if (bad_ >= 0 || bad_ != err.code || !strstr(err.text, part))                       \
            fail_msg("%s: %d, \"%s\" lacks \"%s\"", #call, (int)bad_, err.text, part);      \
    } while (0)

static inline uint64_t next_random(uint64_t *s)
{
    *s ^= *s << 13;
    *s ^= *s >> 7;
    *s ^= *s << 17;
    return *s;
}

/* ---------------------------------------------------------------- operators */

static setun_status like(setun_view *out, const setun_view *in, uint32_t dtype, uint32_t rank, int64_t cols)
{
    out->dtype = dtype;
    out->rank = rank;
    for (uint32_t i = 0; i < rank; i++)
        out->dim[i] = in->dim[i];
    if (rank > 1)
        out->dim[1] = cols;
    return SETUN_OK;
}

static setun_status want(const setun_args *a, uint32_t i, uint32_t dtype, uint32_t rank, setun_error *err)
{
    if (a->in[i].dtype != dtype || a->in[i].rank != rank)
        return setun_fail(err, SETUN_BAD_SHAPE, "%s has the wrong type", a->op->in[i].name);
    return SETUN_OK;
}

static setun_status infer_unary(setun_args *a, setun_error *err)
{
    if (a->in[0].dtype != SETUN_F32)
        return setun_fail(err, SETUN_BAD_SHAPE, "x is not f32");
    a->out[0] = a->in[0];
    return SETUN_OK;
}

static setun_status infer_binary(setun_args *a, setun_error *err)
{
    if (a->in[0].dtype != SETUN_F32 || !st_view_same(&a->in[0], &a->in[1]))
        return setun_fail(err, SETUN_BAD_SHAPE, "a and b differ");
    a->out[0] = a->in[0];
    return SETUN_OK;
}

static setun_status eval_relu2(const setun_args *a, setun_error *err)
{
    const float *x = a->in[0].data;
    float *y = a->out[0].data;
    (void)err;
    for (int64_t i = 0, n = setun_count(&a->in[0]); i < n; i++)
        y[i] = x[i] > 0 ? x[i] * x[i] : 0;
    return SETUN_OK;
}

static setun_status eval_add(const setun_args *a, setun_error *err)
{
    const float *x = a->in[0].data, *z = a->in[1].data;
    float *y = a->out[0].data;
    (void)err;
    for (int64_t i = 0, n = setun_count(&a->in[0]); i < n; i++)
        y[i] = x[i] + z[i];
    return SETUN_OK;
}

static setun_status eval_mul(const setun_args *a, setun_error *err)
{
    const float *x = a->in[0].data, *z = a->in[1].data;
    float *y = a->out[0].data;
    (void)err;
    for (int64_t i = 0, n = setun_count(&a->in[0]); i < n; i++)
        y[i] = x[i] * z[i];
    return SETUN_OK;
}

static setun_status eval_relu2_mul(const setun_args *a, setun_error *err)
{
    const float *x = a->in[0].data, *z = a->in[1].data;
    float *y = a->out[0].data;
    (void)err;
    for (int64_t i = 0, n = setun_count(&a->in[0]); i < n; i++)
        y[i] = (x[i] > 0 ? x[i] * x[i] : 0) * z[i];
    return SETUN_OK;
}

static setun_status infer_rmsnorm(setun_args *a, setun_error *err)
{
    ST_TRY(want(a, 0, SETUN_F32, 2, err));
    ST_TRY(want(a, 1, SETUN_F32, 1, err));
    if (a->in[0].dim[1] != a->in[1].dim[0])
        return setun_fail(err, SETUN_BAD_SHAPE, "x has %lld columns, weight wants %lld", (long long)a->in[0].dim[1],
                          (long long)a->in[1].dim[0]);
    a->out[0] = a->in[0];
    return SETUN_OK;
}

static void norm_row(const float *x, const float *w, float eps, int64_t d, float *y)
{
    float sum = eps;
    for (int64_t i = 0; i < d; i++)
        sum += setun_absf(x[i]); /* any definition will do here */
    for (int64_t i = 0; i < d; i++)
        y[i] = x[i] / (sum + 1.0f) * w[i];
}

static setun_status eval_rmsnorm(const setun_args *a, setun_error *err)
{
    int64_t d = a->in[0].dim[1];
    (void)err;
    for (int64_t r = 0; r < a->in[0].dim[0]; r++)
        norm_row((const float *)a->in[0].data + r * d, a->in[1].data, (float)a->attr[0].f, d,
                 (float *)a->out[0].data + r * d);
    return SETUN_OK;
}

static setun_status infer_quantize(setun_args *a, setun_error *err)
{
    ST_TRY(want(a, 0, SETUN_F32, 2, err));
    (void)like(&a->out[0], &a->in[0], SETUN_I8, 2, (a->in[0].dim[1] + 127) / 128 * 128);
    (void)like(&a->out[1], &a->in[0], SETUN_F32, 1, 0);
    (void)like(&a->out[2], &a->in[0], SETUN_I32, 1, 0);
    return SETUN_OK;
}

static void quantize_row(const float *x, int64_t d, int64_t padded, int8_t *q, float *scale, int32_t *sum)
{
    float top = 1e-5f;
    *sum = 0;
    for (int64_t i = 0; i < d; i++)
        top = setun_maxf(setun_absf(x[i]), top);
    *scale = 127.0f / top;
    for (int64_t i = 0; i < padded; i++) {
        q[i] = i < d ? (int8_t)(x[i] * *scale) : (int8_t)0;
        *sum += q[i];
    }
}

static setun_status eval_quantize(const setun_args *a, setun_error *err)
{
    int64_t d = a->in[0].dim[1], padded = a->out[0].dim[1];
    (void)err;
    for (int64_t r = 0; r < a->in[0].dim[0]; r++)
        quantize_row((const float *)a->in[0].data + r * d, d, padded, (int8_t *)a->out[0].data + r * padded,
                     (float *)a->out[1].data + r, (int32_t *)a->out[2].data + r);
    return SETUN_OK;
}

static setun_status infer_rmsnorm_i8(setun_args *a, setun_error *err)
{
    ST_TRY(want(a, 1, SETUN_F32, 1, err));
    if (a->in[0].dim[1] != a->in[1].dim[0])
        return setun_fail(err, SETUN_BAD_SHAPE, "x and w differ");
    return infer_quantize(a, err);
}

static setun_status eval_rmsnorm_i8(const setun_args *a, setun_error *err)
{
    int64_t d = a->in[0].dim[1], padded = a->out[0].dim[1];
    float *row = malloc((size_t)(d ? d : 1) * sizeof *row);
    if (!row)
        return setun_fail(err, SETUN_NO_MEMORY, "no memory");
    for (int64_t r = 0; r < a->in[0].dim[0]; r++) {
        norm_row((const float *)a->in[0].data + r * d, a->in[1].data, (float)a->attr[0].f, d, row);
        quantize_row(row, d, padded, (int8_t *)a->out[0].data + r * padded, (float *)a->out[1].data + r,
                     (int32_t *)a->out[2].data + r);
    }
    free(row);
    return SETUN_OK;
}

static setun_status infer_matmul(setun_args *a, setun_error *err)
{
    ST_TRY(want(a, 0, SETUN_I8, 2, err));
    ST_TRY(want(a, 3, SETUN_T2, 2, err));
    if (a->in[0].dim[1] != (a->in[3].dim[1] + 127) / 128 * 128)
        return setun_fail(err, SETUN_BAD_SHAPE, "x has %lld columns, weight wants %lld", (long long)a->in[0].dim[1],
                          (long long)a->in[3].dim[1]);
    (void)like(&a->out[0], &a->in[0], SETUN_F32, 2, a->in[3].dim[0]);
    return SETUN_OK;
}

static setun_status eval_matmul(const setun_args *a, setun_error *err)
{
    int64_t n = a->in[0].dim[0], padded = a->in[0].dim[1], rows = a->in[3].dim[0];
    const int8_t *q = a->in[0].data;
    const uint8_t *w = a->in[3].data;
    const float *scale = a->in[1].data, *ws = a->in[4].data;
    float *y = a->out[0].data;
    (void)err;
    for (int64_t t = 0; t < n; t++)
        for (int64_t r = 0; r < rows; r++) {
            int32_t s = 0;
            for (int64_t k = 0; k < padded; k++) {
                int64_t in_block = k % 128;
                uint32_t byte = w[r * padded / 4 + k / 128 * 32 + in_block % 32];
                s += ((int32_t)(byte >> 2 * (in_block / 32) & 3) - 1) * q[t * padded + k];
            }
            y[t * rows + r] = (float)s * (ws[0] / scale[t]);
        }
    return SETUN_OK;
}

static setun_status infer_gated(setun_args *a, setun_error *err)
{
    ST_TRY(infer_matmul(a, err));
    return st_view_same(&a->in[5], &a->out[0]) ? SETUN_OK : setun_fail(err, SETUN_BAD_SHAPE, "gate differs");
}

static setun_status eval_gated(const setun_args *a, setun_error *err)
{
    const float *gate = a->in[5].data;
    float *y = a->out[0].data;
    ST_TRY(eval_matmul(a, err));
    for (int64_t i = 0, n = setun_count(&a->out[0]); i < n; i++)
        y[i] = gate[i] > 0 ? gate[i] * gate[i] * y[i] : 0;
    return SETUN_OK;
}

static setun_status infer_table(setun_args *a, setun_error *err)
{
    if (a->attr[2].i < 1)
        return setun_fail(err, SETUN_BAD_SHAPE, "%lld positions", (long long)a->attr[2].i);
    a->out[0].dtype = SETUN_F32;
    a->out[0].rank = 2;
    a->out[0].dim[0] = a->attr[2].i;
    a->out[0].dim[1] = a->attr[1].i;
    return SETUN_OK;
}

static setun_status eval_table(const setun_args *a, setun_error *err)
{
    float *y = a->out[0].data;
    if (a->attr[0].f < 0)
        return setun_fail(err, SETUN_BAD_ARG, "theta is negative");
    for (int64_t i = 0; i < setun_count(&a->out[0]); i++)
        y[i] = (float)i / (float)a->attr[0].f;
    return SETUN_OK;
}

static setun_status infer_rope(setun_args *a, setun_error *err)
{
    if (strcmp(a->attr[0].s, "neox") != 0 && strcmp(a->attr[0].s, "norm") != 0)
        return setun_fail(err, SETUN_BAD_ARG, "pairing \"%s\" is unknown", a->attr[0].s);
    return infer_unary(a, err);
}

static setun_status eval_rope(const setun_args *a, setun_error *err)
{
    const float *x = a->in[0].data, *table = a->in[1].data;
    const int32_t *pos = a->in[2].data;
    int64_t n = a->in[0].dim[0], row = n ? setun_count(&a->in[0]) / n : 0, cols = a->in[1].dim[1];
    float *y = a->out[0].data;
    for (int64_t i = 0; i < n; i++)
        for (int64_t k = 0; k < row; k++) {
            if (pos[i] >= a->in[1].dim[0])
                return setun_fail(err, SETUN_BAD_ARG, "position %d", pos[i]);
            y[i * row + k] = x[i * row + k] * table[pos[i] * cols + k % cols];
        }
    return SETUN_OK;
}

/* cache[i] += x[0]: an update in place that reads what was there. */
static setun_status infer_bump(setun_args *a, setun_error *err)
{
    ST_TRY(a->in[0].dtype == SETUN_F32 && a->in[1].dtype == SETUN_F32
               ? SETUN_OK : setun_fail(err, SETUN_BAD_SHAPE, "x and cache are f32"));
    a->out[0] = a->in[1];
    return SETUN_OK;
}

static setun_status eval_bump(const setun_args *a, setun_error *err)
{
    const float *x = a->in[0].data;
    float *y = a->out[0].data, by = setun_count(&a->in[0]) ? x[0] : 1.0f;
    (void)err;
    for (int64_t i = 0; i < setun_count(&a->out[0]); i++)
        y[i] += by;
    return SETUN_OK;
}

/* Rows of x by number: the only operator here whose result has m rows. */
static setun_status infer_pick(setun_args *a, setun_error *err)
{
    ST_TRY(want(a, 0, SETUN_F32, 2, err));
    ST_TRY(want(a, 1, SETUN_I32, 1, err));
    a->out[0] = a->in[0];
    a->out[0].dim[0] = a->in[1].dim[0];
    return SETUN_OK;
}

static setun_status eval_pick(const setun_args *a, setun_error *err)
{
    const int32_t *index = a->in[1].data;
    int64_t d = a->in[0].dim[1], n = a->in[0].dim[0];
    (void)err;
    for (int64_t i = 0; i < a->out[0].dim[0]; i++)
        for (int64_t k = 0; k < d; k++)
            ((float *)a->out[0].data)[i * d + k] = n ? ((const float *)a->in[0].data)[index[i] % n * d + k] : 0;
    return SETUN_OK;
}

static const setun_port port_x[] = {{"x", "", 0, 0}}, port_y[] = {{"y", "", 0, 0}};
static const setun_port port_ab[] = {{"a", "", 0, 0}, {"b", "", 0, 0}};
static const setun_port port_xw[] = {{"x", "", 0, 0}, {"w", "", 0, 0}};
static const setun_port port_quant[] = {{"q", "", 0, 0}, {"scale", "", 0, 0}, {"sum", "", 0, 0}};
static const setun_port port_matmul[] = {{"q", "", 0, 0},  {"scale", "", 0, 0}, {"sum", "", 0, 0},
                                         {"w", "", 0, 0},  {"ws", "", 0, 0}};
static const setun_port port_gated[] = {{"q", "", 0, 0},  {"scale", "", 0, 0}, {"sum", "", 0, 0},
                                        {"w", "", 0, 0},  {"ws", "", 0, 0},    {"gate", "", 0, 0}};
static const setun_port port_table[] = {{"table", "", 0, 0}};
static const setun_port port_rope[] = {{"x", "", 0, 0}, {"table", "", 0, 0}, {"pos", "", 0, 0}};
static const setun_port port_bump[] = {{"x", "", 0, 0}, {"cache", "", 0, 0}};
static const setun_port port_bumped[] = {{"cache", "", 2, 0}};
static const setun_port port_pick[] = {{"x", "", 0, 0}, {"index", "", 0, 0}};
static const setun_attr attr_eps[] = {{"eps", "", SETUN_ATTR_FLOAT, 0, {.f = 1e-5}}};
static const setun_attr attr_table[] = {{"theta", "", SETUN_ATTR_FLOAT, 1, {0}},
                                        {"dim", "", SETUN_ATTR_INT, 1, {0}},
                                        {"positions", "", SETUN_ATTR_INT, 0, {.i = 8}}};
static const setun_attr attr_rope[] = {{"pairing", "", SETUN_ATTR_STRING, 0, {.s = "norm"}}};

#define COMMON(NAME, IN, OUT, INFER, EVAL)                                                                 \
    .size = sizeof(setun_op), .version = 1, .name = NAME, .doc = "test", .in = IN, .out = OUT, .infer = INFER, \
    .eval = EVAL, .n_in = SETUN_LEN(IN), .n_out = SETUN_LEN(OUT)
#define ATTRS(TABLE) .attr = TABLE, .n_attr = SETUN_LEN(TABLE)
#define CASES(text) .cases = (const char *const[]){text, NULL}

static const setun_op test_ops[] = {
    {COMMON("relu2", port_x, port_y, infer_unary, eval_relu2), CASES("x:f32[n3,7]")},
    {COMMON("add", port_ab, port_y, infer_binary, eval_add), CASES("a:f32[n3,7] b:f32[n3,7]")},
    {COMMON("mul", port_ab, port_y, infer_binary, eval_mul), CASES("a:f32[n3,7] b:f32[n3,7]")},
    {COMMON("relu2_mul", port_ab, port_y, infer_binary, eval_relu2_mul), CASES("a:f32[n3,7] b:f32[n3,7]")},
    {COMMON("rmsnorm", port_xw, port_y, infer_rmsnorm, eval_rmsnorm), ATTRS(attr_eps),
     CASES("x:f32[n3,7] w:f32[7] eps=0.5")},
    {COMMON("quantize_i8", port_x, port_quant, infer_quantize, eval_quantize), CASES("x:f32[n3,7]")},
    {COMMON("rmsnorm_i8", port_xw, port_quant, infer_rmsnorm_i8, eval_rmsnorm_i8), ATTRS(attr_eps),
     CASES("x:f32[n3,7] w:f32[7]")},
    {COMMON("ternary_matmul", port_matmul, port_y, infer_matmul, eval_matmul),
     CASES("q:i8[n3,128] scale:f32[n3] sum:i32[n3] w:t2[5,7] ws:f32[1]")},
    {.size = sizeof(setun_op), .version = 1, .name = "rope_table", .doc = "test", .out = port_table, .n_out = 1,
     .infer = infer_table, .eval = eval_table, ATTRS(attr_table), CASES("theta=10 dim=4 positions=3")},
    {COMMON("rope", port_rope, port_y, infer_rope, eval_rope), ATTRS(attr_rope),
     CASES("x:f32[n3,7] table:f32[8,2] pos:i32[n3] pairing=neox")},
    {COMMON("bump", port_bump, port_bumped, infer_bump, eval_bump), CASES("x:f32[n3] cache:f32[5,2]")},
    {COMMON("pick", port_pick, port_y, infer_pick, eval_pick), CASES("x:f32[n3,7] index:i32[m2]")},
    {COMMON("ternary_matmul_gated", port_gated, port_y, infer_gated, eval_gated),
     CASES("q:i8[n3,128] scale:f32[n3] sum:i32[n3] w:t2[5,7] ws:f32[1] gate:f32[n3,5]")},
};

/* All of them, but those whose name is `without`. */
static inline st_registry *test_registry(const char *without)
{
    st_registry *r;
    setun_error err = {0};
    ASSERT_OK(st_registry_new(&r, &err));
    for (uint32_t i = 0; i < SETUN_LEN(test_ops); i++)
        if (!without || strcmp(without, test_ops[i].name) != 0)
            ASSERT_OK(st_registry_add(r, &test_ops[i], "test", &err));
    return r;
}

/* ---------------------------------------------------------------- text */

static inline st_graph *parse_text(const char *text, const st_registry *r, st_arena *arena)
{
    st_graph *g;
    setun_error err = {0};
    ASSERT_OK(st_graph_parse(text, "test", r, arena, &g, &err));
    ASSERT_OK(st_graph_verify(g, &err));
    return g;
}

/* In the arena, so that a failed assertion leaks nothing. */
static inline const char *print_text(const st_graph *g, st_arena *arena)
{
    st_str s = {0};
    const char *copy;
    st_graph_print(g, &s);
    assert_false(s.failed);
    copy = st_arena_strdup(arena, s.text);
    st_str_free(&s);
    assert_non_null(copy);
    return copy;
}

/* ---------------------------------------------------------------- running */

/* Evaluate a graph with the given symbol sizes.  p NULL: every temporary has memory of its own.
 * Inputs, states and constants without data are filled by name, so two graphs that compute the same
 * from the same names can be compared.  Returns a hash of all outputs and of the states that were updated. */
static inline uint64_t run_graph(const st_graph *symbolic, const int64_t size[SETUN_N_SYMBOLS], const st_plan *p,
                                 st_arena *arena)
{
    setun_error err = {0};
    st_graph *g;
    uint64_t hash = ST_HASH_INIT;
    char *buffer = NULL;
    void **data;
    ASSERT_OK(st_graph_bind(symbolic, size, arena, &g, &err));
    data = st_arena_array(arena, (int64_t)g->n_value + 1, (int64_t)sizeof *data);
    assert_non_null(data);
    if (p) {
        buffer = st_arena_alloc(arena, p->bytes + 64);
        assert_non_null(buffer);
        memset(buffer, 0xff, (size_t)p->bytes);
    }
    for (st_value_id v = 0; v < g->n_value; v++) {
        st_value *x = &g->value[v];
        int64_t bytes = setun_view_bytes(&x->view);
        if (x->root != v) {
            data[v] = data[x->root];
        } else if (x->kind == ST_TEMP && p) {
            assert_true(p->place[v].bytes >= bytes && p->place[v].offset + bytes <= p->bytes);
            data[v] = buffer + p->place[v].offset;
        } else if (x->kind == ST_CONST && x->view.data) {
            data[v] = x->view.data;
        } else {
            data[v] = st_arena_alloc(arena, bytes + 64);
            assert_non_null(data[v]);
            x->view.data = data[v];
            /* Positions and row numbers: all different, and in range for what is built here. */
            for (int64_t i = 0; x->kind == ST_INPUT && x->view.dtype == SETUN_I32 && i < setun_count(&x->view); i++)
                ((int32_t *)data[v])[i] = (int32_t)(i % 8);
            if (x->kind != ST_TEMP && !(x->kind == ST_INPUT && x->view.dtype == SETUN_I32))
                st_case_fill(&x->view, st_hash(ST_HASH_INIT, x->name, strlen(x->name)));
        }
    }
    for (st_node_id n = 0; n < g->n_node; n++) {
        setun_args a;
        ASSERT_OK(st_node_args(g, n, arena, &a, &err));
        for (uint32_t i = 0; i < a.n_in; i++)
            a.in[i].data = data[g->node[n].in[i]];
        for (uint32_t o = 0; o < a.n_out; o++)
            a.out[o].data = data[g->node[n].out[o]];
        ASSERT_OK(g->node[n].op->eval(&a, &err));
    }
    for (uint32_t i = 0; i < g->n_output; i++)
        hash = st_hash(hash, data[g->output[i].value],
                       (size_t)setun_view_bytes(&g->value[g->output[i].value].view));
    for (st_value_id v = 0; v < g->n_value; v++)
        if (g->value[v].kind == ST_STATE && g->value[v].latest != v) /* others cannot have changed */
            hash = st_hash(hash, data[v], (size_t)setun_view_bytes(&g->value[v].view));
    return hash;
}

/* ---------------------------------------------------------------- random graphs */

static inline int is_fresh(const st_graph *g, st_value_id v)
{
    return g->value[g->value[v].root].latest == v;
}

/* A value that satisfies want_view, or any f32[?,d] when it is NULL; ST_NO_ID when there is none. */
static inline st_value_id choose_value(const st_graph *g, uint64_t *seed, const setun_view *wanted, int rank)
{
    uint32_t start = (uint32_t)(next_random(seed) % g->n_value);
    for (uint32_t k = 0; k < g->n_value; k++) {
        st_value_id v = (start + k) % g->n_value;
        const setun_view *x = &g->value[v].view;
        if (is_fresh(g, v) && (wanted ? st_view_same(x, wanted) : x->dtype == SETUN_F32 && x->rank == (uint32_t)rank))
            return v;
    }
    return ST_NO_ID;
}

static inline st_graph *random_graph(uint64_t seed, uint32_t n_nodes, const st_registry *r, st_arena *arena)
{
    static const char *const start =
        "graph setun/1\ninput x f32[n,33]\ninput z f32[n,129]\ninput wanted i32[m]\nconst w33 f32[33]\n"
        "const w129 f32[129]\nconst t33 t2[129,33]\nconst t129 t2[33,129]\nconst ws f32[1]\n"
        "state s f32[5,7]\nstate s33 f32[4,33]\n";
    setun_error err = {0};
    st_graph *g;
    ASSERT_OK(st_graph_parse(start, "random", r, arena, &g, &err));
    seed = seed * 2654435761u + 88172645463325252u;
    for (uint32_t i = 0; i < n_nodes; i++) {
        static const char *const names[] = {"relu2", "add", "mul", "rmsnorm", "quantize_i8", "ternary_matmul",
                                            "bump", "pick", "rope_table", "relu2", "mul", "quantize_i8"};
        const setun_op *op = st_registry_find(r, names[next_random(&seed) % SETUN_LEN(names)]);
        st_value_id in[ST_MAX_PORTS], out[ST_MAX_PORTS], x = choose_value(g, &seed, NULL, 2);
        const setun_view *v = &g->value[x].view;
        setun_value attr[4] = {{.f = 0.25}, {.i = 3}, {.i = 2}};
        in[0] = x;
        if (op->n_in == 2 && strcmp(op->in[1].name, "b") == 0)
            in[1] = choose_value(g, &seed, v, 0);
        else if (strcmp(op->name, "rmsnorm") == 0)
            in[1] = st_graph_find(g, v->dim[1] == 33 ? "w33" : "w129");
        else if (strcmp(op->name, "bump") == 0)
            in[1] = choose_value(g, &seed, NULL, 2);
        else if (strcmp(op->name, "pick") == 0)
            in[1] = st_graph_find(g, "wanted");
        else if (strcmp(op->name, "ternary_matmul") == 0) {
            uint32_t k = (uint32_t)(next_random(&seed) % g->n_value), tries = 0;
            while (g->value[k].view.dtype != SETUN_I8 && tries++ < g->n_value)
                k = (k + 1) % g->n_value;
            if (g->value[k].view.dtype != SETUN_I8)
                continue;
            const st_node *q = &g->node[g->value[k].node];
            memcpy(in, q->out, 3 * sizeof *in);
            in[3] = st_graph_find(g, g->value[k].view.dim[1] == 128 ? "t33" : "t129");
            in[4] = st_graph_find(g, "ws");
        }
        /* What does not fit is refused by the builder, and the walk goes on: [5,7] has no weight. */
        (void)st_graph_add_node(g, op, in, attr, "", i % 2 ? "blk.0" : "blk.1", out, &err);
    }
    /* Two in three of the values that nobody reads are given back; the rest is dead. */
    for (st_value_id v = 0; v < g->n_value; v++) {
        char name[16];
        int used = g->value[v].kind != ST_TEMP || !is_fresh(g, v) || next_random(&seed) % 3 == 0;
        for (st_node_id n = 0; n < g->n_node; n++)
            for (uint32_t i = 0; i < g->node[n].op->n_in; i++)
                used |= g->node[n].in[i] == v;
        (void)snprintf(name, sizeof name, "o%u", v);
        if (!used)
            ASSERT_OK(st_graph_add_output(g, name, v, &err));
    }
    ASSERT_OK(st_graph_verify(g, &err));
    return g;
}

#endif
