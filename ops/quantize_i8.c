/* ops/quantize_i8.c -- rows of floats to int8 with one scale a row, as the checkpoint was trained.
 *
 *     a = max(largest |x|, 1e-5)     scale = 127 / a     q = rint(x * scale)     sum = sum of q
 *
 * scale is what x was multiplied by; ternary_matmul divides by it.  sum pays for the codes 0 1 2
 * that stand for -1 0 +1 there.  q is padded with zeros to whole weight blocks of 128.
 *
 * q needs no clamp to +-127.  |x| <= a, and both 127 / a and the product are rounded to nearest, so
 * |x * scale| <= 127 (1 + 2^-24)^2, which is below 127.5 and rounds to at most 127.  What is not a
 * number gives 0: a NaN does not count in the maximum and rounds to 0; an infinity makes scale
 * 0, its own product NaN and every other product 0, so the whole row is 0.
 * |sum| <= 127 * 2^24 < 2^31 bounds d. */
#include "setun/op.h"

enum { X, Q, SCALE, SUM };

#define MAX_D (1 << 24)

static setun_status infer(setun_args *a, setun_error *err)
{
    const setun_view *x = &a->in[X];
    setun_status s = setun_want(a, X, SETUN_OF(SETUN_F32), 2, err);
    if (s == SETUN_OK)
        s = setun_want_range(a, X, 1, 1, MAX_D, err);
    if (s != SETUN_OK)
        return s;
    (void)setun_infer_out(a, 0, SETUN_I8, 2, x->dim[0], setun_t2_padded(x->dim[1]), 1);
    (void)setun_infer_out(a, 1, SETUN_F32, 1, x->dim[0], 1, 1);
    return setun_infer_out(a, 2, SETUN_I32, 1, x->dim[0], 1, 1);
}

static setun_status eval(const setun_args *a, setun_error *err)
{
    const float *x = a->in[X].data;
    int8_t *q = a->out[0].data;
    float *scale = a->out[1].data;
    int32_t *sum = a->out[2].data;
    int64_t n = a->in[X].dim[0], d = a->in[X].dim[1], padded_d = a->out[0].dim[1];
    (void)err;
    for (int64_t t = 0; t < n; t++, x += d, q += padded_d) {
        float most = 1e-5f;
        for (int64_t i = 0; i < d; i++)
            most = setun_maxf(setun_absf(x[i]), most);
        scale[t] = 127.0f / most;
        sum[t] = 0;
        for (int64_t i = 0; i < padded_d; i++) {
            q[i] = i < d ? (int8_t)setun_rint_i32(x[i] * scale[t]) : 0;
            sum[t] += q[i];
        }
    }
    return SETUN_OK;
}

/* max(|x|, so far) never takes a NaN, so the order of the maxima does not matter and they may run
 * in 32 lanes. */
static setun_status lower(setun_kernel *k, const setun_args *a, setun_error *err)
{
    int64_t d = a->in[X].dim[1], padded_d = setun_t2_padded(d), whole = d / 32 * 32, rest = d - whole;
    k_val zero = k_i64(k, 0), end = k_i64(k, whole);
    (void)err;
    k_grid(k, X, 0, 1);
    k_val x = k_arg(k, X, K_F32), q = k_arg(k, Q, K_I8), scale = k_arg(k, SCALE, K_F32),
          sum = k_arg(k, SUM, K_I32);
    k_val t = k_for(k, k_begin(k), k_end(k), 1);
    k_val row = k_muli(k, t, d), q_row = k_muli(k, t, padded_d), last = k_addi(k, row, whole);

    k_val most = k_var(k, k_f32v(k, 1e-5f, 32));
    if (whole) {
        k_val i = k_for(k, zero, end, 32);
        k_set(k, most, k_max(k, k_abs(k, k_load(k, x, k_add(k, row, i), 32)), k_get(k, most)));
        k_stop(k);
    }
    if (rest)
        k_set(k, most, k_max(k, k_abs(k, k_load_pad(k, x, last, rest, 32, 0)), k_get(k, most)));
    k_val s = k_div(k, k_f32(k, 127.0f), k_rmax(k, k_get(k, most))), s32 = k_splat(k, s, 32);
    k_store(k, scale, t, s);

    k_val total = k_var(k, k_int(k, K_TYPE(K_I32, 32), 0));
    if (whole) {
        k_val i = k_for(k, zero, end, 32);
        k_val v = k_rint_i32(k, k_mul(k, k_load(k, x, k_add(k, row, i), 32), s32));
        k_store(k, q, k_add(k, q_row, i), k_trunc(k, v, K_I8));
        k_set(k, total, k_add(k, k_get(k, total), v));
        k_stop(k);
    }
    if (rest) { /* the zeros behind the last elements are already part of the padding */
        k_val v = k_rint_i32(k, k_mul(k, k_load_pad(k, x, last, rest, 32, 0), s32));
        k_store(k, q, k_addi(k, q_row, whole), k_trunc(k, v, K_I8));
        k_set(k, total, k_add(k, k_get(k, total), v));
    }
    for (int64_t i = rest ? whole + 32 : whole; i < padded_d; i += 32)
        k_store(k, q, k_addi(k, q_row, i), k_int(k, K_TYPE(K_I8, 32), 0));
    k_store(k, sum, t, k_rsum(k, k_get(k, total)));
    k_stop(k);
    return SETUN_OK;
}

static void cost(const setun_args *a, setun_cost *c)
{
    setun_cost_map(a, 4, c);
}

static const setun_port in[] = {{"x", "f32[n,d]: activations", 0, 0}};
static const setun_port out[] = {
    {"q", "i8[n,D]: integers from -127 to 127; D is d rounded up to 128, padded with 0", 0, 0},
    {"scale", "f32[n]: 127 / largest magnitude of the row", 0, 0},
    {"sum", "i32[n]: sum of the row of q", 0, 0},
};
static const char *const cases[] = {
    "x:f32[n3,256]",
    "x:f32[n2,1]",
    "x:f32[1,7]",
    "x:f32[n5,129]",
    "x:f32[n1,2560]",
    "x:f32[2,127]",
    NULL,
};

SETUN_OP(quantize_i8) = {
    .size = sizeof(setun_op), .version = 1, .name = "quantize_i8",
    .doc = "q = rint(x * scale) with scale = 127 / max(largest |x| of the row, 1e-5), and the sum "
           "of each row of q",
    .in = in, .out = out, .n_in = SETUN_LEN(in), .n_out = SETUN_LEN(out),
    .infer = infer, .eval = eval, .lower = lower, .cost = cost, .cases = cases,
};
