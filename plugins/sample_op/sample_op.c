/* plugins/sample_op/sample_op.c -- a plugin with one operator, hard_tanh.  Copy this to write
 * yours.
 *
 * The operator has the same form as those in ops/: the schema, the meaning (eval), a claim about it
 * that becomes machine code (lower), and cases on which `setun check --plugin sample_op.so`
 * compares the two bit for bit.  Below it is all that turns a file into a plugin.
 *
 *     cc -std=c11 -shared -fPIC -ffp-contract=off -Iinclude sample_op.c -o sample_op.so */
#include <string.h>

#include "setun/op.h"
#include "setun/plugin.h"

/* ---------------------------------------------------------------- the operator */

static setun_status infer(setun_args *a, setun_error *err)
{
    double low = a->attr[0].f, high = a->attr[1].f;
    if (!(low <= high)) /* a NaN is refused, too */
        return setun_fail(err, SETUN_BAD_ARG, "hard_tanh: low is %g and high is %g", low, high);
    return setun_infer_same(a, err);
}

static setun_status eval(const setun_args *a, setun_error *err)
{
    const float *x = a->in[0].data;
    float *y = a->out[0].data, low = (float)a->attr[0].f, high = (float)a->attr[1].f;
    (void)err;
    for (int64_t i = 0, n = setun_count(&a->in[0]); i < n; i++)
        y[i] = setun_minf(setun_maxf(x[i], low), high);
    return SETUN_OK;
}

/* The same for a vector of elements; attributes become constants of the kernel. */
static k_val clamp(setun_kernel *k, const setun_args *a, const k_val *x)
{
    uint32_t lanes = K_LANES(k_type_of(k, x[0]));
    k_val low = k_f32v(k, (float)a->attr[0].f, lanes), high = k_f32v(k, (float)a->attr[1].f, lanes);
    return k_min(k, k_max(k, x[0], low), high);
}

static setun_status lower(setun_kernel *k, const setun_args *a, setun_error *err)
{
    (void)err;
    return k_lower_map(k, a, clamp);
}

static void cost(const setun_args *a, setun_cost *c)
{
    setun_cost_map(a, 2, c);
}

static const setun_port in[] = { { "x", "f32 of any shape", 0, 0 } };
static const setun_port out[] = { { "y", "f32 of the same shape", 0, 0 } };
static const setun_attr attr[] = {
    { "low", "results are not below this", SETUN_ATTR_FLOAT, 0, { .f = -1.0 } },
    { "high", "results are not above this", SETUN_ATTR_FLOAT, 0, { .f = 1.0 } },
};
/* Odd sizes find more mistakes than round ones. */
static const char *const cases[] = {
    "x:f32[n3,256]", "x:f32[1,1]", "x:f32[7] low=0", "x:f32[n2,129] low=-0.5 high=2", NULL,
};

static const setun_op hard_tanh = {
    .size = sizeof(setun_op), .version = 1,
    .name = "hard_tanh", .doc = "y = x, but not below low and not above high",
    .in = in, .out = out, .attr = attr,
    .n_in = SETUN_LEN(in), .n_out = SETUN_LEN(out), .n_attr = SETUN_LEN(attr),
    .infer = infer, .eval = eval, .lower = lower, .cost = cost, .cases = cases,
};

/* ---------------------------------------------------------------- the plugin */

static setun_status init(const setun_host *host, void **self, setun_error *err)
{
    (void)host;
    (void)err;
    *self = NULL; /* operators have no state */
    return SETUN_OK;
}

static void fini(void *self)
{
    (void)self;
}

static const void *extension(void *self, const char *id)
{
    static const setun_op *const list[] = { &hard_tanh };
    static const setun_ops_v1 ops = { sizeof ops, SETUN_LEN(list), list };
    (void)self;
    return strcmp(id, SETUN_EXT_OPS) ? NULL : &ops;
}

const setun_plugin *setun_plugin_entry(uint32_t host_abi)
{
    static const setun_plugin plugin = {
        sizeof plugin, SETUN_ABI, "org.setun.sample_op", "1", __VERSION__, init, fini, extension,
    };
    return host_abi == SETUN_ABI ? &plugin : NULL;
}
