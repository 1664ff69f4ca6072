/* ops/relu2.c -- the squared rectifier: y = r * r with r = x > 0 ? x : 0.  A NaN gives 0. */
#include "setun/op.h"

static setun_status eval(const setun_args *a, setun_error *err)
{
    const float *x = a->in[0].data;
    float *y = a->out[0].data;
    (void)err;
    for (int64_t i = 0, n = setun_count(&a->in[0]); i < n; i++) {
        float r = setun_maxf(x[i], 0.0f);
        y[i] = r * r;
    }
    return SETUN_OK;
}

static k_val map(setun_kernel *k, const setun_args *a, const k_val *x)
{
    k_val r = k_max(k, x[0], k_f32v(k, 0.0f, K_LANES(k_type_of(k, x[0]))));
    (void)a;
    return k_mul(k, r, r);
}

static setun_status lower(setun_kernel *k, const setun_args *a, setun_error *err)
{
    (void)err;
    return k_lower_map(k, a, map);
}

static void cost(const setun_args *a, setun_cost *c)
{
    setun_cost_map(a, 2, c);
}

static const setun_port in[] = {{"x", "f32 of any shape", 0, 0}};
static const setun_port out[] = {{"y", "f32 of the same shape", 0, 0}};
static const char *const cases[] = {
    "x:f32[n3,256]", "x:f32[n2,7]", "x:f32[1,1]", "x:f32[129]", "x:f32[1,6912]", "x:f32[n5]", NULL,
};

SETUN_OP(relu2) = {
    .size = sizeof(setun_op), .version = 1, .name = "relu2",
    .doc = "y = max(x, 0) squared",
    .in = in, .out = out, .n_in = SETUN_LEN(in), .n_out = SETUN_LEN(out),
    .infer = setun_infer_same, .eval = eval, .lower = lower, .cost = cost, .cases = cases,
};
