/* ops/softmax.c -- exponentials of every row, scaled to sum 1.
 *
 *     m = largest x, NaN not counted     e = exp(x - m)     y = e / (sum of e in 32 stripes)
 *
 * The exp is that of docs/numerics.md.  A NaN counts as exp = 0; a row with no finite maximum has
 * sum 0 and gives 0 / 0. */
#include "setun/op.h"

enum { X, Y };

static setun_status infer(setun_args *a, setun_error *err)
{
    setun_status s = setun_want(a, X, SETUN_OF(SETUN_F32), 2, err);
    return s != SETUN_OK ? s
                         : setun_infer_out(a, 0, SETUN_F32, 2, a->in[X].dim[0], a->in[X].dim[1], 1);
}

static setun_status eval(const setun_args *a, setun_error *err)
{
    const float *x = a->in[X].data;
    float *y = a->out[0].data;
    int64_t n = a->in[X].dim[0], d = a->in[X].dim[1];
    (void)err;
    for (int64_t t = 0; t < n; t++, x += d, y += d) {
        float m = -(float)INFINITY;
        for (int64_t i = 0; i < d; i++)
            m = setun_maxf(x[i], m);
        for (int64_t i = 0; i < d; i++)
            y[i] = setun_expf(x[i] - m);
        float sum = setun_sum32(y, NULL, d);
        for (int64_t i = 0; i < d; i++)
            y[i] /= sum;
    }
    return SETUN_OK;
}

/* Elements behind the end of a row are loaded as minus infinity: they change no maximum, and their
 * exponential is 0. */
static setun_status lower(setun_kernel *k, const setun_args *a, setun_error *err)
{
    int64_t d = a->in[X].dim[1], whole = d / 32 * 32, rest = d - whole;
    int64_t low = (int64_t)setun_f32_bits(-(float)INFINITY);
    k_val zero = k_i64(k, 0), end = k_i64(k, whole), i;
    (void)err;
    k_grid(k, X, 0, 1);
    k_val x = k_arg(k, X, K_F32), y = k_arg(k, Y, K_F32);
    k_val t = k_for(k, k_begin(k), k_end(k), 1), row = k_muli(k, t, d),
          last = k_addi(k, row, whole);

    k_val most = k_var(k, k_f32v(k, -(float)INFINITY, 32));
    if (whole) {
        i = k_for(k, zero, end, 32);
        k_set(k, most, k_max(k, k_load(k, x, k_add(k, row, i), 32), k_get(k, most)));
        k_stop(k);
    }
    if (rest)
        k_set(k, most, k_max(k, k_load_pad(k, x, last, rest, 32, low), k_get(k, most)));
    k_val m = k_splat(k, k_rmax(k, k_get(k, most)), 32);

    k_val sum = k_var(k, k_f32v(k, 0.0f, 32));
    if (whole) {
        i = k_for(k, zero, end, 32);
        k_val at = k_add(k, row, i), e = k_expf(k, k_sub(k, k_load(k, x, at, 32), m));
        k_store(k, y, at, e);
        k_set(k, sum, k_add(k, k_get(k, sum), e));
        k_stop(k);
    }
    if (rest) {
        k_val e = k_expf(k, k_sub(k, k_load_pad(k, x, last, rest, 32, low), m));
        k_store_part(k, y, last, e, rest);
        k_set(k, sum, k_add(k, k_get(k, sum), e));
    }
    k_val s = k_splat(k, k_rsum(k, k_get(k, sum)), 32);
    if (whole) {
        i = k_for(k, zero, end, 32);
        k_val at = k_add(k, row, i);
        k_store(k, y, at, k_div(k, k_load(k, y, at, 32), s));
        k_stop(k);
    }
    if (rest)
        k_store_part(k, y, last, k_div(k, k_load_pad(k, y, last, rest, 32, 0), s), rest);
    k_stop(k);
    return SETUN_OK;
}

static void cost(const setun_args *a, setun_cost *c)
{
    setun_cost_map(a, 25, c);
}

static const setun_port in[] = {{"x", "f32[n,d]: rows", 0, 0}};
static const setun_port out[] = {{"y", "f32[n,d]: rows that sum to 1", 0, 0}};
static const char *const cases[] = {
    "x:f32[n3,256]", "x:f32[n5,129]", "x:f32[2,7]", "x:f32[n2,1]", "x:f32[1,1000]", NULL,
};

SETUN_OP(softmax) = {
    .size = sizeof(setun_op), .version = 1, .name = "softmax",
    .doc = "y = exp(x - max) / sum, row by row",
    .in = in, .out = out, .n_in = SETUN_LEN(in), .n_out = SETUN_LEN(out),
    .infer = infer, .eval = eval, .lower = lower, .cost = cost, .cases = cases,
};
