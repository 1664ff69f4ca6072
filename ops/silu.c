/* ops/silu.c -- the sigmoid-weighted unit: y = x / (1 + exp(-x)), with the exp of docs/numerics.md.
 *
 * exp stops growing at 88, so below -88 y is x / 1.65e38 instead of something still smaller: an
 * error below 1e-38 |x|.  A NaN stays one: its exp counts as 0, and NaN / 1 is NaN. */
#include "setun/op.h"

static setun_status eval(const setun_args *a, setun_error *err)
{
    const float *x = a->in[0].data;
    float *y = a->out[0].data;
    (void)err;
    for (int64_t i = 0, n = setun_count(&a->in[0]); i < n; i++)
        y[i] = x[i] / (1.0f + setun_expf(-x[i]));
    return SETUN_OK;
}

static k_val map(setun_kernel *k, const setun_args *a, const k_val *x)
{
    k_val one = k_f32v(k, 1.0f, K_LANES(k_type_of(k, x[0])));
    (void)a;
    return k_div(k, x[0], k_add(k, one, k_expf(k, k_neg(k, x[0]))));
}

static setun_status lower(setun_kernel *k, const setun_args *a, setun_error *err)
{
    (void)err;
    return k_lower_map(k, a, map);
}

static void cost(const setun_args *a, setun_cost *c)
{
    setun_cost_map(a, 25, c);
}

static const setun_port in[] = {{"x", "f32 of any shape", 0, 0}};
static const setun_port out[] = {{"y", "f32 of the same shape", 0, 0}};
static const char *const cases[] = {"x:f32[n3,256]", "x:f32[2,7]",  "x:f32[129]",
                                    "x:f32[1,6912]", "x:f32[n1,1]", NULL};

SETUN_OP(silu) = {
    .size = sizeof(setun_op), .version = 1, .name = "silu",
    .doc = "y = x / (1 + exp(-x))",
    .in = in, .out = out, .n_in = SETUN_LEN(in), .n_out = SETUN_LEN(out),
    .infer = setun_infer_same, .eval = eval, .lower = lower, .cost = cost, .cases = cases,
};
