/* ops/scale.c -- every element times one number: y = x * by.  The number is rounded to f32 once. */
#include "setun/op.h"

static setun_status infer(setun_args *a, setun_error *err)
{
    if (!(a->attr[0].f > -1e30 && a->attr[0].f < 1e30))
        return setun_fail(err, SETUN_BAD_ARG, "by is %g, wants a finite number", a->attr[0].f);
    return setun_infer_same(a, err);
}

static setun_status eval(const setun_args *a, setun_error *err)
{
    const float *x = a->in[0].data;
    float *y = a->out[0].data, by = (float)a->attr[0].f;
    (void)err;
    for (int64_t i = 0, n = setun_count(&a->in[0]); i < n; i++)
        y[i] = x[i] * by;
    return SETUN_OK;
}

static k_val map(setun_kernel *k, const setun_args *a, const k_val *x)
{
    return k_mul(k, x[0], k_f32v(k, (float)a->attr[0].f, K_LANES(k_type_of(k, x[0]))));
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

static const setun_port in[] = {{"x", "f32 of any shape", 0, 0}};
static const setun_port out[] = {{"y", "f32 of the same shape", 0, 0}};
static const setun_attr attr[] = {
    {"by", "the factor; rounded to f32", SETUN_ATTR_FLOAT, 1, {0}},
};
static const char *const cases[] = {
    "x:f32[n3,256] by=3.3", "x:f32[2,7] by=-0.1", "x:f32[129] by=25.3", "x:f32[n1,1] by=0", NULL,
};

SETUN_OP(scale) = {
    .size = sizeof(setun_op), .version = 1, .name = "scale",
    .doc = "y = x * by",
    .in = in, .out = out, .attr = attr,
    .n_in = SETUN_LEN(in), .n_out = SETUN_LEN(out), .n_attr = SETUN_LEN(attr),
    .infer = infer, .eval = eval, .lower = lower, .cost = cost, .cases = cases,
};
