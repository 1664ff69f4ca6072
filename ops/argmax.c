/* ops/argmax.c -- where the largest element of every row is: the first of equals.
 *
 * A NaN never wins; a row of nothing but NaN gives 0.  Zeros of either sign are equal. */
#include "setun/op.h"

enum { X, INDEX };

static setun_status infer(setun_args *a, setun_error *err)
{
    setun_status s = setun_want(a, X, SETUN_OF(SETUN_F32), 2, err);
    if (s == SETUN_OK)
        s = setun_want_range(a, X, 1, 1, INT32_MAX - 64, err);
    return s != SETUN_OK ? s : setun_infer_out(a, 0, SETUN_I32, 1, a->in[X].dim[0], 1, 1);
}

static setun_status eval(const setun_args *a, setun_error *err)
{
    const float *x = a->in[X].data;
    int32_t *index = a->out[0].data;
    int64_t n = a->in[X].dim[0], d = a->in[X].dim[1];
    (void)err;
    for (int64_t t = 0; t < n; t++, x += d) {
        int64_t best = -1;
        for (int64_t i = 0; i < d; i++)
            if (x[i] == x[i] && (best < 0 || x[i] > x[best]))
                best = i;
        index[t] = best < 0 ? 0 : (int32_t)best;
    }
    return SETUN_OK;
}

/* x takes the place of best: it is a number, and not at most best.  best starts as NaN, to which
 * nothing compares, so the first number of a lane always gets in. */
static void take(setun_kernel *k, k_val x, k_val number, k_val best, k_val where)
{
    uint32_t lanes = K_LANES(k_type_of(k, x));
    k_val more = k_xor(k, k_le(k, x, k_get(k, best)), k_int(k, K_TYPE(K_I1, lanes), 1));
    k_val in = k_and(k, k_eq(k, x, x), more);
    k_set(k, best, k_select(k, in, x, k_get(k, best)));
    k_set(k, where, k_select(k, in, number, k_get(k, where)));
}

/* 32 lanes look for the first of their elements that is largest; then one lane after another is
 * compared, and of equals the lower index wins. */
static setun_status lower(setun_kernel *k, const setun_args *a, setun_error *err)
{
    int64_t d = a->in[X].dim[1], whole = d / 32 * 32, nan = (int64_t)0x7fc00000;
    k_type ti = K_TYPE(K_I32, 32);
    (void)err;
    k_grid(k, X, 0, 1);
    k_val x = k_arg(k, X, K_F32), index = k_arg(k, INDEX, K_I32), zero = k_i64(k, 0);
    k_val values = k_local(k, K_F32, 32), places = k_local(k, K_I32, 32);
    k_val t = k_for(k, k_begin(k), k_end(k), 1), row = k_muli(k, t, d);
    k_val best = k_var(k, k_int(k, K_TYPE(K_F32, 32), nan)), where = k_var(k, k_int(k, ti, 0));
    k_val number = k_var(k, k_iota(k, ti, 0));
    if (whole) {
        k_val i = k_for(k, zero, k_i64(k, whole), 32);
        take(k, k_load(k, x, k_add(k, row, i), 32), k_get(k, number), best, where);
        k_set(k, number, k_add(k, k_get(k, number), k_int(k, ti, 32)));
        k_stop(k);
    }
    if (d > whole)
        take(k, k_load_pad(k, x, k_addi(k, row, whole), d - whole, 32, nan), k_get(k, number), best,
             where);
    k_store(k, values, zero, k_get(k, best));
    k_store(k, places, zero, k_get(k, where));

    k_val b = k_var(k, k_int(k, K_TYPE(K_F32, 1), nan)),
          w = k_var(k, k_int(k, K_TYPE(K_I32, 1), 0));
    k_val lane = k_for(k, zero, k_i64(k, 32), 1);
    k_val v = k_load(k, values, lane, 1), p = k_load(k, places, lane, 1);
    k_val earlier = k_and(k, k_eq(k, v, k_get(k, b)), k_lt(k, p, k_get(k, w)));
    k_set(k, w, k_select(k, earlier, p, k_get(k, w)));
    take(k, v, p, b, w);
    k_stop(k);
    k_store(k, index, t, k_get(k, w));
    k_stop(k);
    return SETUN_OK;
}

static void cost(const setun_args *a, setun_cost *c)
{
    setun_cost_map(a, 1, c);
}

static const setun_port in[] = {{"x", "f32[n,d]: rows", 0, 0}};
static const setun_port out[] = {
    {"index", "i32[n]: place of the largest element, the first of equals", 0, 0}};
static const char *const cases[] = {
    "x:f32[n3,256]", "x:f32[n5,129]", "x:f32[2,7]", "x:f32[n2,1]", "x:f32[1,5000]", NULL,
};

SETUN_OP(argmax) = {
    .size = sizeof(setun_op), .version = 1, .name = "argmax",
    .doc = "the index of the largest element of every row",
    .in = in, .out = out, .n_in = SETUN_LEN(in), .n_out = SETUN_LEN(out),
    .infer = infer, .eval = eval, .lower = lower, .cost = cost, .cases = cases,
};
