/* ops/gelu_tanh.c -- the Gaussian error unit in its tanh form, "gelu_pytorch_tanh":
 *
 *     y = x / 2 * (1 + tanh(u)),  u = sqrt(2 / pi) * (x + 0.044715 x^3)
 *       = x / (1 + exp(-2 u))     because (1 + tanh(u)) / 2 = 1 / (1 + exp(-2 u))
 *
 * The exact unit, with erf, is another function: it differs by up to 5e-4.  For large |x| as in silu.c. */
#include "setun/op.h"

#define LINEAR 1.5957691216057308f  /* 2 sqrt(2 / pi) */
#define CUBIC  0.07135481627159f    /* 0.044715 times that */

static setun_status eval(const setun_args *a, setun_error *err)
{
    const float *x = a->in[0].data;
    float *y = a->out[0].data;
    (void)err;
    for (int64_t i = 0, n = setun_count(&a->in[0]); i < n; i++)
        y[i] = x[i] / (1.0f + setun_expf(-(x[i] * (LINEAR + CUBIC * (x[i] * x[i])))));
    return SETUN_OK;
}

static k_val map(setun_kernel *k, const setun_args *a, const k_val *x)
{
    uint32_t lanes = K_LANES(k_type_of(k, x[0]));
    k_val slope = k_mul(k, k_f32v(k, CUBIC, lanes), k_mul(k, x[0], x[0]));
    k_val u = k_mul(k, x[0], k_add(k, k_f32v(k, LINEAR, lanes), slope));
    (void)a;
    return k_div(k, x[0], k_add(k, k_f32v(k, 1.0f, lanes), k_expf(k, k_neg(k, u))));
}

static setun_status lower(setun_kernel *k, const setun_args *a, setun_error *err)
{
    (void)err;
    return k_lower_map(k, a, map);
}

static void cost(const setun_args *a, setun_cost *c)
{
    setun_cost_map(a, 29, c);
}

static const setun_port in[] = {{"x", "f32 of any shape", 0, 0}};
static const setun_port out[] = {{"y", "f32 of the same shape", 0, 0}};
static const char *const cases[] = {"x:f32[n3,256]", "x:f32[2,7]",  "x:f32[129]",
                                    "x:f32[1,6912]", "x:f32[n1,1]", NULL};

SETUN_OP(gelu_tanh) = {
    .size = sizeof(setun_op), .version = 1, .name = "gelu_tanh",
    .doc = "y = x / (1 + exp(-2 u)), u = sqrt(2 / pi) * (x + 0.044715 x^3)",
    .in = in, .out = out, .n_in = SETUN_LEN(in), .n_out = SETUN_LEN(out),
    .infer = setun_infer_same, .eval = eval, .lower = lower, .cost = cost, .cases = cases,
};
