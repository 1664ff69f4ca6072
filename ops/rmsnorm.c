/* ops/rmsnorm.c -- root mean square normalisation of every row.
 *
 *     y = (x * r) * w,     r = 1 / sqrt(sum of squares / d + eps)
 *
 * A head of x [n,h,d] is a row, too: the norm of queries and keys head by head.
 * The sum runs in 32 stripes (docs/numerics.md), the root and the divisions are correctly rounded,
 * eps is rounded to f32 once.  A row is one unit: d is a few thousand, so a row stays in L1. */
#include "setun/op.h"

enum { X, W, Y };

static setun_status infer(setun_args *a, setun_error *err)
{
    uint32_t rank = a->in[X].rank == 3 ? 3 : 2;
    setun_status s = setun_want(a, X, SETUN_OF(SETUN_F32), rank, err);
    if (s == SETUN_OK)
        s = setun_want(a, W, SETUN_OF(SETUN_F32), 1, err);
    if (s == SETUN_OK)
        s = setun_want_equal(a, W, 0, X, rank - 1, err);
    if (s != SETUN_OK)
        return s;
    if (!(a->attr[0].f >= 0.0 && a->attr[0].f < 1e30))
        return setun_fail(err, SETUN_BAD_ARG, "eps is %g, wants a number from 0 to below 1e30", a->attr[0].f);
    return setun_infer_out(a, 0, SETUN_F32, rank, a->in[X].dim[0], a->in[X].dim[1], a->in[X].dim[2]);
}

static setun_status eval(const setun_args *a, setun_error *err)
{
    const float *x = a->in[X].data, *w = a->in[W].data;
    float *y = a->out[0].data, eps = (float)a->attr[0].f;
    int64_t d = a->in[W].dim[0], n = setun_count(&a->in[X]) / d;
    (void)err;
    for (int64_t t = 0; t < n; t++, x += d, y += d) {
        float r = 1.0f / sqrtf(setun_sum32(x, x, d) / (float)d + eps);
        for (int64_t i = 0; i < d; i++)
            y[i] = (x[i] * r) * w[i];
    }
    return SETUN_OK;
}

static setun_status lower(setun_kernel *k, const setun_args *a, setun_error *err)
{
    int64_t d = a->in[W].dim[0], whole = d / 32 * 32, heads = a->in[X].rank == 3 ? a->in[X].dim[1] : 1;
    k_val one = k_f32(k, 1.0f), zero = k_i64(k, 0);
    (void)err;
    k_grid(k, X, 0, 1);
    k_val x = k_arg(k, X, K_F32), w = k_arg(k, W, K_F32), y = k_arg(k, Y, K_F32);
    k_val t = k_for(k, k_begin(k), k_end(k), 1);
    k_val row = k_muli(k, t, heads * d);
    if (heads > 1)
        row = k_add(k, row, k_muli(k, k_for(k, zero, k_i64(k, heads), 1), d));
    k_val mean = k_div(k, k_dot32(k, x, row, x, row, d), k_f32(k, (float)d));
    k_val r = k_div(k, one, k_sqrt(k, k_add(k, mean, k_f32(k, (float)a->attr[0].f))));
    k_val r32 = k_splat(k, r, 32);
    if (whole) {
        k_val i = k_for(k, zero, k_i64(k, whole), 32), at = k_add(k, row, i);
        k_store(k, y, at, k_mul(k, k_mul(k, k_load(k, x, at, 32), r32), k_load(k, w, i, 32)));
        k_stop(k);
    }
    if (d > whole) {
        k_val at = k_addi(k, row, whole);
        k_val v = k_mul(k, k_load_pad(k, x, at, d - whole, 32, 0), r32);
        v = k_mul(k, v, k_load_pad(k, w, k_i64(k, whole), d - whole, 32, 0));
        k_store_part(k, y, at, v, d - whole);
    }
    if (heads > 1)
        k_stop(k);
    k_stop(k);
    return SETUN_OK;
}

static void cost(const setun_args *a, setun_cost *c)
{
    setun_cost_map(a, 4, c);
}

static const setun_port in[] = {
    {"x", "f32[n,d]: rows; or f32[n,h,d]: rows of heads", 0, 0},
    {"w", "f32[d]: gain of each column", 0, 0},
};
static const setun_port out[] = {{"y", "f32 of the shape of x", 0, 0}};
static const setun_attr attr[] = {
    {"eps", "added to the mean square; rounded to f32", SETUN_ATTR_FLOAT, 1, {0}},
};
static const char *const cases[] = {
    "x:f32[n3,256] w:f32[256] eps=1e-5",
    "x:f32[n2,1] w:f32[1] eps=1e-5",
    "x:f32[1,7] w:f32[7] eps=0.001",
    "x:f32[n5,129] w:f32[129] eps=1e-6",
    "x:f32[n7,31] w:f32[31] eps=0",
    "x:f32[2,2560] w:f32[2560] eps=1e-5",
    "x:f32[n3,5,128] w:f32[128] eps=1e-6",
    "x:f32[2,1,7] w:f32[7] eps=1e-6",
    NULL,
};

SETUN_OP(rmsnorm) = {
    .size = sizeof(setun_op), .version = 1, .name = "rmsnorm",
    .doc = "y = (x * r) * w with r = 1 / sqrt(mean of squares of the row + eps)",
    .in = in, .out = out, .attr = attr,
    .n_in = SETUN_LEN(in), .n_out = SETUN_LEN(out), .n_attr = SETUN_LEN(attr),
    .infer = infer, .eval = eval, .lower = lower, .cost = cost, .cases = cases,
};
