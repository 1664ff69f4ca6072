/* ops/relu2_cap.c -- relu2 with a ceiling: y = min(max(x, 0) squared, cap).
 *
 * The worked example of docs/writing-an-operator.md, and the twin of scripts/ops/relu2_cap.lua,
 * which says the same in Lua.  cap is rounded to f32 once. */
#include "setun/op.h"

static setun_status infer(setun_args *a, setun_error *err)
{
    if (!(a->attr[0].f >= 0.0 && a->attr[0].f < 1e30))
        return setun_fail(err, SETUN_BAD_ARG, "cap is %g, wants a number from 0 on", a->attr[0].f);
    return setun_infer_same(a, err);
}

static setun_status eval(const setun_args *a, setun_error *err)
{
    const float *x = a->in[0].data;
    float *y = a->out[0].data, cap = (float)a->attr[0].f;
    (void)err;
    for (int64_t i = 0, n = setun_count(&a->in[0]); i < n; i++) {
        float r = setun_maxf(x[i], 0.0f);
        y[i] = setun_minf(r * r, cap);
    }
    return SETUN_OK;
}

/* The body of a kernel for one element of each input, or for a vector of them. */
static k_val map(setun_kernel *k, const setun_args *a, const k_val *x)
{
    uint32_t lanes = K_LANES(k_type_of(k, x[0]));
    k_val r = k_max(k, x[0], k_f32v(k, 0.0f, lanes));
    return k_min(k, k_mul(k, r, r), k_f32v(k, (float)a->attr[0].f, lanes));
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

static const setun_port in[] = {{"x", "f32 of any shape", 0, 0}};
static const setun_port out[] = {{"y", "f32 of the same shape", 0, 0}};
static const setun_attr attr[] = {{"cap", "largest result", SETUN_ATTR_FLOAT, 0, {.f = 6.0}}};
static const char *const cases[] = {"x:f32[n3,256]", "x:f32[2,7] cap=0.5", "x:f32[129] cap=0",
                                    "x:f32[n1,1]", NULL};

SETUN_OP(relu2_cap) = {
    .size = sizeof(setun_op), .version = 1, .name = "relu2_cap",
    .doc = "y = min(max(x, 0) squared, cap)",
    .in = in, .out = out, .attr = attr,
    .n_in = SETUN_LEN(in), .n_out = SETUN_LEN(out), .n_attr = SETUN_LEN(attr),
    .infer = infer, .eval = eval, .lower = lower, .cost = cost, .cases = cases,
};
