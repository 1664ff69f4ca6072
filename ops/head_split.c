/* ops/head_split.c -- a row of activations as two bytes a column, and how far they are from it.
 *
 * First of the operators of the screened head (head_kernels.h has the proof, runtime/head.c the
 * graph).  x is nearly step * (128 hi + lo) with a power of two as step, so that both are exact:
 *
 *     X = rint(x / step),  |X| <= 8192;   hi = (X + 64) >> 7 in [-64, 64];   lo = X - 128 hi in [-64, 63]
 *
 * 14 bits rather than 16, because then a byte times a half fits the 16-bit sums of dot2.
 * There is no kernel: it is one short row a token. */
#include "ops/head_kernels.h"

enum { X };

#define U 0x1p-24 /* unit roundoff of f32 */

static setun_status infer(setun_args *a, setun_error *err)
{
    setun_status s = setun_want(a, X, SETUN_OF(SETUN_F32), 2, err);
    if (s == SETUN_OK)
        s = setun_want_range(a, X, 1, 1, HEAD_MAX_K, err);
    if (s != SETUN_OK)
        return s;
    int64_t n = a->in[X].dim[0], padded = (a->in[X].dim[1] + HEAD_BLOCK - 1) / HEAD_BLOCK * HEAD_BLOCK;
    (void)setun_infer_out(a, 0, SETUN_I8, 2, n, 2 * padded, 1);
    (void)setun_infer_out(a, 1, SETUN_I32, 2, n, 2, 1);
    return setun_infer_out(a, 2, SETUN_F32, 2, n, 4, 1);
}

/* At least v >= 0: the factor is sixteen units in the last place, more than the errors of a sum of 2^17
 * doubles and of the rounding to f32; the summand covers denormals. */
static float up(double v)
{
    return (float)(v * (1 + 0x1p-20) + 0x1p-126);
}

static void row(const float *x, int64_t d, int64_t padded, int8_t *part, int32_t *sum, float *norm)
{
    double xx = 0, hh = 0, ee = 0, ll = 0;
    float most = 0, step = 0x1p-100f;
    int finite = 1;
    memset(part, 0, (size_t)(2 * padded));
    sum[0] = sum[1] = 0;
    for (int64_t i = 0; i < d; i++) {
        most = fabsf(x[i]) > most ? fabsf(x[i]) : most;
        finite &= x[i] - x[i] == 0.0f;
    }
    norm[0] = norm[1] = norm[2] = norm[3] = INFINITY; /* nothing is known: every row survives */
    if (!finite)
        return;
    while (step * 8192.0f < most)
        step *= 2.0f;
    for (int64_t i = 0; i < d; i++) {
        int32_t v = setun_rint_i32(x[i] * (1.0f / step));
        int32_t hi = (v + 64 + 8192) / 128 - 64, lo = v - 128 * hi; /* a shift that rounds down */
        double near = (double)v * (double)step, e = (double)x[i] - near;
        part[i] = (int8_t)hi;
        part[padded + i] = (int8_t)lo;
        sum[0] += hi;
        sum[1] += lo;
        xx += (double)x[i] * (double)x[i];
        hh += near * near;
        ee += e * e;
        ll += (double)lo * (double)lo;
    }
    double roundings = (double)((d + 31) / 32 + 6);
    norm[0] = step;
    norm[1] = up(sqrt(xx));
    norm[2] = up(sqrt(ee) + 1.01 * roundings * U * sqrt(xx) + 16 * U * (sqrt(hh) + sqrt(ll) * (double)step));
    norm[3] = 0;
}

static setun_status eval(const setun_args *a, setun_error *err)
{
    int64_t n = a->in[X].dim[0], d = a->in[X].dim[1], width = a->out[0].dim[1];
    (void)err;
    for (int64_t t = 0; t < n; t++)
        row((const float *)a->in[X].data + t * d, d, width / 2, (int8_t *)a->out[0].data + t * width,
            (int32_t *)a->out[1].data + 2 * t, (float *)a->out[2].data + 4 * t);
    return SETUN_OK;
}

static void cost(const setun_args *a, setun_cost *c)
{
    setun_cost_map(a, 12, c);
}

static const setun_port in[] = {{"x", "f32[n,k]: rows", 0, 0}};
static const setun_port out[] = {
    {"part", "i8[n,2K]: hi, then lo; K is k rounded up to 256, zeros behind k", 0, 0},
    {"sum", "i32[n,2]: sums of hi and of lo", 0, 0},
    {"norm", "f32[n,4]: step, bound of |x|, bound of what is lost per unit of |w|, 0; inf if x is not finite", 0, 0},
};
static const char *const cases[] = {
    "x:f32[1,256]", "x:f32[n3,129]", "x:f32[m2,7]", "x:f32[1,1]", NULL,
};

SETUN_OP(head_split) = {
    .size = sizeof(setun_op), .version = 2, .name = "head_split",
    .doc = "activations as 14-bit integers in two bytes, for the screened head",
    .in = in, .out = out, .n_in = SETUN_LEN(in), .n_out = SETUN_LEN(out),
    .infer = infer, .eval = eval, .cost = cost, .cases = cases,
};
