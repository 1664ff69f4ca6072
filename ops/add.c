/* ops/add.c -- the sum of two arrays of one shape: the residual connection. */
#include "setun/op.h"

static setun_status eval(const setun_args *a, setun_error *err)
{
    const float *x = a->in[0].data, *z = a->in[1].data;
    float *y = a->out[0].data;
    (void)err;
    for (int64_t i = 0, n = setun_count(&a->in[0]); i < n; i++)
        y[i] = x[i] + z[i];
    return SETUN_OK;
}

static k_val map(setun_kernel *k, const setun_args *a, const k_val *x)
{
    (void)a;
    return k_add(k, x[0], x[1]);
}

static setun_status lower(setun_kernel *k, const setun_args *a, setun_error *err)
{
    (void)err;
    return k_lower_map(k, a, map);
}

static void cost(const setun_args *a, setun_cost *c)
{
    setun_cost_map(a, 1, c);
}

static const setun_port in[] = {{"a", "f32 of any shape", 0, 0},
                                {"b", "f32 of the same shape", 0, 0}};
static const setun_port out[] = {{"y", "f32 of the same shape", 0, 0}};
static const char *const cases[] = {
    "a:f32[n3,256] b:f32[n3,256]",
    "a:f32[n5,7] b:f32[n5,7]",
    "a:f32[1,2560] b:f32[1,2560]",
    "a:f32[2,3000] b:f32[2,3000]",
    "a:f32[129] b:f32[129]",
    "a:f32[n1] b:f32[n1]",
    NULL,
};

SETUN_OP(add) = {
    .size = sizeof(setun_op), .version = 1, .name = "add",
    .doc = "y = a + b, element by element",
    .in = in, .out = out, .n_in = SETUN_LEN(in), .n_out = SETUN_LEN(out),
    .infer = setun_infer_same, .eval = eval, .lower = lower, .cost = cost, .cases = cases,
};
