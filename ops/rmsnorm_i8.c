/* ops/rmsnorm_i8.c -- rmsnorm, then quantize_i8, without the array between them.
 *
 * The result is that of the two operators in a row, bit for bit; both files say what it means.
 * The kernel sweeps a row three times while it is in L1: squares, largest magnitude of the
 * normalised elements, integers.  Normalised elements are computed twice rather than stored. */
#include "setun/op.h"

enum { X, W, Q, SCALE, SUM };

#define MAX_D (1 << 24) /* |sum| <= 127 * 2^24 < 2^31 */

static setun_status infer(setun_args *a, setun_error *err)
{
    const setun_view *x = &a->in[X];
    setun_status s = setun_want(a, X, SETUN_OF(SETUN_F32), 2, err);
    if (s == SETUN_OK)
        s = setun_want_range(a, X, 1, 1, MAX_D, err);
    if (s == SETUN_OK)
        s = setun_want(a, W, SETUN_OF(SETUN_F32), 1, err);
    if (s == SETUN_OK)
        s = setun_want_equal(a, W, 0, X, 1, err);
    if (s != SETUN_OK)
        return s;
    if (!(a->attr[0].f >= 0.0 && a->attr[0].f < 1e30))
        return setun_fail(err, SETUN_BAD_ARG, "eps is %g, wants a number from 0 to below 1e30", a->attr[0].f);
    (void)setun_infer_out(a, 0, SETUN_I8, 2, x->dim[0], setun_t2_padded(x->dim[1]), 1);
    (void)setun_infer_out(a, 1, SETUN_F32, 1, x->dim[0], 1, 1);
    return setun_infer_out(a, 2, SETUN_I32, 1, x->dim[0], 1, 1);
}

static setun_status eval(const setun_args *a, setun_error *err)
{
    const float *x = a->in[X].data, *w = a->in[W].data;
    int8_t *q = a->out[0].data;
    float *scale = a->out[1].data, eps = (float)a->attr[0].f;
    int32_t *sum = a->out[2].data;
    int64_t n = a->in[X].dim[0], d = a->in[X].dim[1], padded_d = a->out[0].dim[1];
    (void)err;
    for (int64_t t = 0; t < n; t++, x += d, q += padded_d) {
        float r = 1.0f / sqrtf(setun_sum32(x, x, d) / (float)d + eps), most = 1e-5f;
        for (int64_t i = 0; i < d; i++)
            most = setun_maxf(setun_absf((x[i] * r) * w[i]), most);
        scale[t] = 127.0f / most;
        sum[t] = 0;
        for (int64_t i = 0; i < padded_d; i++) {
            q[i] = i < d ? (int8_t)setun_rint_i32(((x[i] * r) * w[i]) * scale[t]) : 0;
            sum[t] += q[i];
        }
    }
    return SETUN_OK;
}

/* Up to 32 normalised elements from column i of a row on, zeros behind the row's end. */
static k_val normal(setun_kernel *k, k_val x, k_val row, k_val w, k_val i, int64_t left, k_val r32)
{
    return k_mul(k, k_mul(k, k_load_pad(k, x, k_add(k, row, i), left, 32, 0), r32),
                 k_load_pad(k, w, i, left, 32, 0));
}

static void widest(setun_kernel *k, k_val v, k_val most)
{
    k_set(k, most, k_max(k, k_abs(k, v), k_get(k, most)));
}

static void round_to(setun_kernel *k, k_val v, k_val s32, k_val q, k_val at, k_val total)
{
    k_val n = k_rint_i32(k, k_mul(k, v, s32));
    k_store(k, q, at, k_trunc(k, n, K_I8));
    k_set(k, total, k_add(k, k_get(k, total), n));
}

/* A padding element counts as 0 in the maximum.  x and w pad with 0, so it is (0 * r) * 0,
 * which is 0 or, when r is infinite or NaN, a NaN; a maximum of max(|v|, so far) ignores that, and
 * rounding turns it into 0. */
static setun_status lower(setun_kernel *k, const setun_args *a, setun_error *err)
{
    int64_t d = a->in[X].dim[1], padded_d = setun_t2_padded(d), whole = d / 32 * 32, rest = d - whole;
    k_val zero = k_i64(k, 0), end = k_i64(k, whole), i;
    (void)err;
    k_grid(k, X, 0, 1);
    k_val x = k_arg(k, X, K_F32), w = k_arg(k, W, K_F32);
    k_val q = k_arg(k, Q, K_I8), scale = k_arg(k, SCALE, K_F32), sum = k_arg(k, SUM, K_I32);
    k_val t = k_for(k, k_begin(k), k_end(k), 1);
    k_val row = k_muli(k, t, d), q_row = k_muli(k, t, padded_d);

    k_val mean = k_div(k, k_dot32(k, x, row, x, row, d), k_f32(k, (float)d));
    k_val r = k_div(k, k_f32(k, 1.0f), k_sqrt(k, k_add(k, mean, k_f32(k, (float)a->attr[0].f))));
    k_val r32 = k_splat(k, r, 32);

    k_val most = k_var(k, k_f32v(k, 1e-5f, 32));
    if (whole) {
        i = k_for(k, zero, end, 32);
        widest(k, normal(k, x, row, w, i, 32, r32), most);
        k_stop(k);
    }
    if (rest)
        widest(k, normal(k, x, row, w, end, rest, r32), most);
    k_val s = k_div(k, k_f32(k, 127.0f), k_rmax(k, k_get(k, most))), s32 = k_splat(k, s, 32);
    k_store(k, scale, t, s);

    k_val total = k_var(k, k_int(k, K_TYPE(K_I32, 32), 0));
    if (whole) {
        i = k_for(k, zero, end, 32);
        round_to(k, normal(k, x, row, w, i, 32, r32), s32, q, k_add(k, q_row, i), total);
        k_stop(k);
    }
    if (rest)
        round_to(k, normal(k, x, row, w, end, rest, r32), s32, q, k_addi(k, q_row, whole), total);
    for (int64_t j = rest ? whole + 32 : whole; j < padded_d; j += 32)
        k_store(k, q, k_addi(k, q_row, j), k_int(k, K_TYPE(K_I8, 32), 0));
    k_store(k, sum, t, k_rsum(k, k_get(k, total)));
    k_stop(k);
    return SETUN_OK;
}

static void cost(const setun_args *a, setun_cost *c)
{
    setun_cost_map(a, 9, c);
}

static const setun_port in[] = {
    {"x", "f32[n,d]: rows", 0, 0},
    {"w", "f32[d]: gain of each column", 0, 0},
};
static const setun_port out[] = {
    {"q", "i8[n,D]: integers from -127 to 127; D is d rounded up to 128, padded with 0", 0, 0},
    {"scale", "f32[n]: 127 / largest magnitude of the normalised row", 0, 0},
    {"sum", "i32[n]: sum of the row of q", 0, 0},
};
static const setun_attr attr[] = {
    {"eps", "added to the mean square; rounded to f32", SETUN_ATTR_FLOAT, 1, {0}},
};
static const char *const cases[] = {
    "x:f32[n3,256] w:f32[256] eps=1e-5",
    "x:f32[n2,1] w:f32[1] eps=1e-5",
    "x:f32[1,7] w:f32[7] eps=0.001",
    "x:f32[n5,129] w:f32[129] eps=1e-6",
    "x:f32[n3,31] w:f32[31] eps=0",
    "x:f32[1,2560] w:f32[2560] eps=1e-5",
    NULL,
};

SETUN_OP(rmsnorm_i8) = {
    .size = sizeof(setun_op), .version = 1, .name = "rmsnorm_i8",
    .doc = "quantize_i8(rmsnorm(x, w)) in one pass over memory, same bits",
    .in = in, .out = out, .attr = attr,
    .n_in = SETUN_LEN(in), .n_out = SETUN_LEN(out), .n_attr = SETUN_LEN(attr),
    .infer = infer, .eval = eval, .lower = lower, .cost = cost, .cases = cases,
};
