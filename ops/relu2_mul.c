/* ops/relu2_mul.c -- the gate of a feed-forward layer: y = relu2(a) * b, bits as of relu2, mul. */
#include "setun/op.h"

static setun_status eval(const setun_args *a, setun_error *err)
{
    const float *x = a->in[0].data, *z = a->in[1].data;
    float *y = a->out[0].data;
    (void)err;
    for (int64_t i = 0, n = setun_count(&a->in[0]); i < n; i++) {
        float r = setun_maxf(x[i], 0.0f);
        y[i] = (r * r) * z[i];
    }
    return SETUN_OK;
}

static k_val map(setun_kernel *k, const setun_args *a, const k_val *x)
{
    k_val r = k_max(k, x[0], k_f32v(k, 0.0f, K_LANES(k_type_of(k, x[0]))));
    (void)a;
    return k_mul(k, k_mul(k, r, r), x[1]);
}

static setun_status lower(setun_kernel *k, const setun_args *a, setun_error *err)
{
    (void)err;
    return k_lower_map(k, a, map);
}

static void cost(const setun_args *a, setun_cost *c)
{
    setun_cost_map(a, 3, c);
}

static const setun_port in[] = {{"a", "f32 of any shape: the gate", 0, 0},
                                {"b", "f32 of the same shape", 0, 0}};
static const setun_port out[] = {{"y", "f32 of the same shape", 0, 0}};
static const char *const cases[] = {
    "a:f32[n3,256] b:f32[n3,256]",
    "a:f32[n2,7] b:f32[n2,7]",
    "a:f32[1,6912] b:f32[1,6912]",
    "a:f32[129] b:f32[129]",
    "a:f32[n1,1] b:f32[n1,1]",
    NULL,
};

SETUN_OP(relu2_mul) = {
    .size = sizeof(setun_op), .version = 1, .name = "relu2_mul",
    .doc = "y = max(a, 0) squared, times b",
    .in = in, .out = out, .n_in = SETUN_LEN(in), .n_out = SETUN_LEN(out),
    .infer = setun_infer_same, .eval = eval, .lower = lower, .cost = cost, .cases = cases,
};
