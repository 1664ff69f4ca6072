/* ops/quantize_bits.c -- rows of floats to integers of few bits with one scale a row, in the form of quantize_i8: any
 * product of int8 activations takes them, and its sums stay exact.
 *
 * Scales and rounding are those of ops/few_bits.h.  With bits=4 by=absmean this is the INT4 quantiser of BitNet a4.8
 * (arXiv 2411.04965) and v2 (arXiv 2504.18415).  q takes a byte each: what is saved here is precision, not memory. */
#include "ops/few_bits.h"

enum { X, Q, SCALE, SUM };

static setun_status infer(setun_args *a, setun_error *err)
{
    const setun_view *x = &a->in[X];
    setun_status s = want_few_bits(&a->attr[0], &a->attr[1], err);
    if (s == SETUN_OK)
        s = setun_want(a, X, SETUN_OF(SETUN_F32), 2, err);
    if (s == SETUN_OK)
        s = setun_want_range(a, X, 1, 1, MAX_ROW, err);
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
    few_bits f = few_bits_of(&a->attr[0], &a->attr[1]);
    int64_t n = a->in[X].dim[0], d = a->in[X].dim[1], padded_d = a->out[0].dim[1];
    (void)err;
    for (int64_t t = 0; t < n; t++, x += d, q += padded_d) {
        scale[t] = few_bits_scale(f, x, d);
        sum[t] = 0;
        for (int64_t i = 0; i < padded_d; i++) {
            q[i] = i < d ? (int8_t)few_bits_round(f, x[i], scale[t]) : 0;
            sum[t] += q[i];
        }
    }
    return SETUN_OK;
}

/* Zeros that fill up the last 32 columns round to zeros, which are part of the padding of q. */
static setun_status lower(setun_kernel *k, const setun_args *a, setun_error *err)
{
    int64_t d = a->in[X].dim[1], padded_d = setun_t2_padded(d), whole = d / 32 * 32;
    few_bits f = few_bits_of(&a->attr[0], &a->attr[1]);
    (void)err;
    k_grid(k, X, 0, 1);
    k_val x = k_arg(k, X, K_F32), q = k_arg(k, Q, K_I8), scale = k_arg(k, SCALE, K_F32), sum = k_arg(k, SUM, K_I32);
    k_val t = k_for(k, k_begin(k), k_end(k), 1);
    k_val row = k_muli(k, t, d), q_row = k_muli(k, t, padded_d);
    k_val s = k_few_bits_scale(k, f, x, row, d), s32 = k_splat(k, s, 32);
    k_store(k, scale, t, s);
    k_val total = k_var(k, k_int(k, K_TYPE(K_I32, 32), 0));
    for (int64_t from = 0; from < padded_d;) {
        int loops = from == 0 && whole > 0;
        k_val i = loops ? k_for(k, k_i64(k, 0), k_i64(k, whole), 32) : k_i64(k, from);
        k_val v = k_load_pad(k, x, k_add(k, row, i), loops ? 32 : d - from, 32, 0);
        v = k_few_bits_round(k, f, v, s32);
        k_store(k, q, k_add(k, q_row, i), k_trunc(k, v, K_I8));
        k_set(k, total, k_add(k, k_get(k, total), v));
        if (loops)
            k_stop(k);
        from += loops ? whole : 32;
    }
    k_store(k, sum, t, k_rsum(k, k_get(k, total)));
    k_stop(k);
    return SETUN_OK;
}

static void cost(const setun_args *a, setun_cost *c)
{
    setun_cost_map(a, 6, c);
}

static const setun_port in[] = {{"x", "f32[n,d]: activations", 0, 0}};
static const setun_port out[] = {
    {"q", "i8[n,D]: integers of that many bits; D is d rounded up to 128, padded with 0", 0, 0},
    {"scale", "f32[n]: what the row was multiplied with", 0, 0},
    {"sum", "i32[n]: sum of the row of q", 0, 0},
};
static const setun_attr attr[] = {
    {"bits", "2 to 8", SETUN_ATTR_INT, 0, {.i = 4}},
    {"by", "\"absmax\": the largest element becomes the largest integer; \"absmean\": the mean becomes its square root",
     SETUN_ATTR_STRING, 0, {.s = "absmean"}},
};
static const char *const cases[] = {
    "x:f32[n3,256]",
    "x:f32[n2,1]",
    "x:f32[1,7] by=absmax",
    "x:f32[n5,129] bits=2",
    "x:f32[n1,2560] bits=4",
    "x:f32[2,127] bits=3 by=absmax",
    "x:f32[n2,161] bits=8 by=absmax",
    "x:f32[n2,33] bits=8",
    NULL,
};

SETUN_OP(quantize_bits) = {
    .size = sizeof(setun_op), .version = 1, .name = "quantize_bits",
    .doc = "q = x * scale as integers of a few bits, scale by the largest or the mean magnitude of the row, and the sum of each row of q",
    .in = in, .out = out, .attr = attr,
    .n_in = SETUN_LEN(in), .n_out = SETUN_LEN(out), .n_attr = SETUN_LEN(attr),
    .infer = infer, .eval = eval, .lower = lower, .cost = cost, .cases = cases,
};
