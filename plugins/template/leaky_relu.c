/* leaky_relu.c -- an operator in a plugin of its own: y = x where x > 0, else slope * x.
 *
 * Three accounts of one thing: infer (which shapes it takes), eval (what it means, in plain C) and lower (the kernel that
 * is compiled). `setun check --plugin` compares the last two on every case, bit for bit.  A script calls it as
 * g:leaky_relu(x, { slope = 0.1 }). */
#include <string.h>

#include "setun/op.h"
#include "setun/plugin.h"

static setun_status infer(setun_args *a, setun_error *err)
{
    double slope = a->attr[0].f;
    if (!(slope >= 0 && slope < 1)) /* a NaN is refused, too */
        return setun_fail(err, SETUN_BAD_ARG, "leaky_relu: slope is %g, and should be from 0 to below 1", slope);
    return setun_infer_same(a, err);
}

static setun_status eval(const setun_args *a, setun_error *err)
{
    const float *x = a->in[0].data;
    float *y = a->out[0].data, slope = (float)a->attr[0].f;
    (void)err;
    for (int64_t i = 0, n = setun_count(&a->in[0]); i < n; i++)
        y[i] = setun_maxf(x[i], x[i] * slope); /* the larger one, since slope < 1 */
    return SETUN_OK;
}

/* The same for as many elements as a vector of the machine has. */
static k_val leak(setun_kernel *k, const setun_args *a, const k_val *x)
{
    uint32_t lanes = K_LANES(k_type_of(k, x[0]));
    return k_max(k, x[0], k_mul(k, x[0], k_f32v(k, (float)a->attr[0].f, lanes)));
}

static setun_status lower(setun_kernel *k, const setun_args *a, setun_error *err)
{
    (void)err;
    return k_lower_map(k, a, leak);
}

static void cost(const setun_args *a, setun_cost *c)
{
    setun_cost_map(a, 2, c);
}

static const setun_port in[] = { { "x", "f32 of any shape", 0, 0 } };
static const setun_port out[] = { { "y", "f32 of the same shape", 0, 0 } };
static const setun_attr attr[] = { { "slope", "what negative numbers are multiplied with", SETUN_ATTR_FLOAT, 0, { .f = 0.01 } } };
/* Odd sizes find more mistakes than round ones. */
static const char *const cases[] = { "x:f32[n3,256]", "x:f32[1,1]", "x:f32[7] slope=0", "x:f32[n2,129] slope=0.5", NULL };

static const setun_op leaky_relu = {
    .size = sizeof(setun_op), .version = 1,
    .name = "leaky_relu", .doc = "y = x, or slope x where x is negative",
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
    static const setun_op *const list[] = { &leaky_relu };
    static const setun_ops_v1 ops = { sizeof ops, SETUN_LEN(list), list };
    (void)self;
    return strcmp(id, SETUN_EXT_OPS) ? NULL : &ops;
}

const setun_plugin *setun_plugin_entry(uint32_t host_abi)
{
    static const setun_plugin plugin = { sizeof plugin, SETUN_ABI, "org.example.leaky_relu", "1", __VERSION__, init, fini, extension };
    return host_abi == SETUN_ABI ? &plugin : NULL;
}
