/* ops/add_row.c -- the same row added to every row: the bias of a linear layer.
 *
 *     y[t][i] = x[t][i] + b[i]
 *
 * A row is one unit, as in rmsnorm. */
#include "setun/op.h"

enum { X, B, Y };

static setun_status infer(setun_args *a, setun_error *err)
{
    setun_status s = setun_want(a, X, SETUN_OF(SETUN_F32), 2, err);
    if (s == SETUN_OK)
        s = setun_want(a, B, SETUN_OF(SETUN_F32), 1, err);
    if (s == SETUN_OK)
        s = setun_want_equal(a, B, 0, X, 1, err);
    return s != SETUN_OK ? s : setun_infer_out(a, 0, SETUN_F32, 2, a->in[X].dim[0], a->in[X].dim[1], 1);
}

static setun_status eval(const setun_args *a, setun_error *err)
{
    const float *x = a->in[X].data, *b = a->in[B].data;
    float *y = a->out[0].data;
    (void)err;
    for (int64_t t = 0, d = a->in[X].dim[1]; t < a->in[X].dim[0]; t++)
        for (int64_t i = 0; i < d; i++)
            y[t * d + i] = x[t * d + i] + b[i];
    return SETUN_OK;
}

static setun_status lower(setun_kernel *k, const setun_args *a, setun_error *err)
{
    int64_t d = a->in[X].dim[1], whole = d / 32 * 32;
    (void)err;
    k_grid(k, X, 0, 1);
    k_val x = k_arg(k, X, K_F32), b = k_arg(k, B, K_F32), y = k_arg(k, Y, K_F32);
    k_val row = k_muli(k, k_for(k, k_begin(k), k_end(k), 1), d);
    if (whole) {
        k_val i = k_for(k, k_i64(k, 0), k_i64(k, whole), 32), at = k_add(k, row, i);
        k_store(k, y, at, k_add(k, k_load(k, x, at, 32), k_load(k, b, i, 32)));
        k_stop(k);
    }
    if (d > whole) {
        k_val at = k_addi(k, row, whole), rest = k_load_pad(k, b, k_i64(k, whole), d - whole, 32, 0);
        k_store_part(k, y, at, k_add(k, k_load_pad(k, x, at, d - whole, 32, 0), rest), d - whole);
    }
    k_stop(k);
    return SETUN_OK;
}

static void cost(const setun_args *a, setun_cost *c)
{
    setun_cost_map(a, 1, c);
}

static const setun_port in[] = {
    {"x", "f32[n,d]: rows", 0, 0},
    {"b", "f32[d]: what is added to each of them", 0, 0},
};
static const setun_port out[] = {{"y", "f32[n,d]", 0, 0}};
static const char *const cases[] = {
    "x:f32[n3,256] b:f32[256]", "x:f32[n2,1] b:f32[1]",     "x:f32[1,7] b:f32[7]",
    "x:f32[n5,129] b:f32[129]", "x:f32[2,896] b:f32[896]", NULL,
};

SETUN_OP(add_row) = {
    .size = sizeof(setun_op), .version = 1, .name = "add_row",
    .doc = "y = x + b, the same b for every row",
    .in = in, .out = out, .n_in = SETUN_LEN(in), .n_out = SETUN_LEN(out),
    .infer = infer, .eval = eval, .lower = lower, .cost = cost, .cases = cases,
};
