/* ops/rope_table.c -- cosines and sines of rotary positions, made once while loading.
 *
 * Row p holds cos then sin of dim/2 angles a_i = p * f_i, where f_i = theta^(-2i/dim), rescaled as
 * the model says.  As in the reference implementation the frequency is rounded to f32 and the angle
 * is an f32 product; cos and sin of that angle are then computed in double and rounded once.
 *
 * libm differs between systems, so exp, log, sin and cos are written out here: Taylor series on
 * reduced arguments, in double, with an error below 1e-15 relative (exp, log) and 1e-15 absolute
 * (sin, cos).  After rounding to f32 that is the correctly rounded value but for rare near-ties.
 * There is no kernel: the graph folds this operator when it is built. */
#include "setun/op.h"

enum { THETA, DIM, POSITIONS, SCALING, FACTOR, LOW, HIGH, ORIGINAL };

#define MAX_DIM 4096
#define MAX_POSITIONS (1 << 20) /* keeps the argument reduction of sincos exact, see there */

static double from_bits(uint64_t u)
{
    union { uint64_t u; double f; } b;
    b.u = u;
    return b.f;
}

static uint64_t to_bits(double f)
{
    union { uint64_t u; double f; } b;
    b.f = f;
    return b.u;
}

/* ln x for normal x > 0: x = m 2^e with m in [0.707, 1.415), ln m = 2 atanh((m - 1) / (m + 1)).
 * The argument of atanh is below 0.172; its series is cut at s^25, an error below 1e-20. */
static double own_log(double x)
{
    uint64_t u = to_bits(x);
    int64_t e = (int64_t)(u >> 52) - 1023;
    double m = from_bits((u & 0xfffffffffffffu) | 0x3ff0000000000000u), sum = 0.0;
    if (m > 1.4142135623730951) {
        m *= 0.5;
        e++;
    }
    double s = (m - 1.0) / (m + 1.0), s2 = s * s;
    for (int k = 25; k >= 1; k -= 2)
        sum = sum * s2 + 1.0 / k;
    return (double)e * 0.693147180559945309417 + 2.0 * s * sum;
}

/* e^x for |x| < 700: x = n ln2 + r, |r| < 0.347; the series is cut at r^15, error below 1e-20. */
static double own_exp(double x)
{
    double n = rint(x * 1.44269504088896340736), sum = 1.0;
    /* ln2 in two parts, the first short enough that n times it is exact */
    double r = (x - n * 0.693147180369123816490) - n * 1.90821492927058770002e-10;
    for (int k = 15; k >= 1; k--)
        sum = 1.0 + sum * r / k;
    return sum * from_bits((uint64_t)(1023 + (int64_t)n) << 52);
}

/* cos and sin of 0 <= a <= 2^20.  a = k pi/2 + r with |r| <= 0.786.  The first part of pi/2 has 33
 * bits and k at most 20, so k times it is exact, as is the subtraction of neighbours. */
static void sincos_of(double a, double *c, double *s)
{
    double k = rint(a * 0.63661977236758134308), sum_c = 0.0, sum_s = 0.0;
    double r = (a - k * 1.57079632673412561417) - k * 6.07710050650619224932e-11, r2 = r * r;
    for (int n = 20; n >= 2; n -= 2) { /* nested: 1 - r2/(1*2) (1 - r2/(3*4) (1 - ...)) */
        sum_c = r2 / ((n - 1) * n) * (1.0 - sum_c);
        sum_s = r2 / (n * (n + 1)) * (1.0 - sum_s);
    }
    double cos_r = 1.0 - sum_c, sin_r = r * (1.0 - sum_s);
    switch ((int64_t)k & 3) {
    case 0: *c = cos_r; *s = sin_r; break;
    case 1: *c = -sin_r; *s = cos_r; break;
    case 2: *c = -cos_r; *s = -sin_r; break;
    default: *c = sin_r; *s = -cos_r; break;
    }
}

/* The frequency of pair i, in double, rounded to f32 by the caller.  "llama3": wavelengths beyond
 * the original context are stretched by factor, short ones kept, those between blended. */
static double frequency(const setun_args *a, int64_t i)
{
    const setun_value *v = a->attr;
    double f = own_exp(-(2.0 * (double)i / (double)v[DIM].i) * own_log(v[THETA].f));
    if (!strcmp(v[SCALING].s, "linear"))
        return f / v[FACTOR].f;
    if (!strcmp(v[SCALING].s, "llama3")) {
        double length = 2.0 * 3.14159265358979323846 / f, original = (double)v[ORIGINAL].i;
        if (length > original / v[LOW].f)
            return f / v[FACTOR].f;
        if (length >= original / v[HIGH].f) {
            double smooth = (original / length - v[LOW].f) / (v[HIGH].f - v[LOW].f);
            return (1.0 - smooth) * f / v[FACTOR].f + smooth * f;
        }
    }
    return f;
}

static setun_status infer(setun_args *a, setun_error *err)
{
    const setun_value *v = a->attr;
    const char *scaling = v[SCALING].s ? v[SCALING].s : "";
    if (!(v[THETA].f >= 1.0 && v[THETA].f <= 1e15))
        return setun_fail(err, SETUN_BAD_ARG, "theta is %g, wants a number from 1 to 1e15",
                          v[THETA].f);
    if (v[DIM].i < 2 || v[DIM].i > MAX_DIM || v[DIM].i % 2)
        return setun_fail(err, SETUN_BAD_ARG, "dim is %lld, wants an even number from 2 to %d",
                          (long long)v[DIM].i, MAX_DIM);
    if (v[POSITIONS].i < 1 || v[POSITIONS].i > MAX_POSITIONS)
        return setun_fail(err, SETUN_BAD_ARG, "positions is %lld, wants a number from 1 to %d",
                          (long long)v[POSITIONS].i, MAX_POSITIONS);
    if (strcmp(scaling, "none") && strcmp(scaling, "linear") && strcmp(scaling, "llama3"))
        return setun_fail(err, SETUN_UNKNOWN,
                          "scaling is \"%.40s\"; known are none, linear and llama3", scaling);
    if (strcmp(scaling, "none") && !(v[FACTOR].f >= 1.0 && v[FACTOR].f <= 1e6))
        return setun_fail(err, SETUN_BAD_ARG, "factor is %g, wants a number from 1 to 1e6",
                          v[FACTOR].f);
    if (!strcmp(scaling, "llama3") &&
        !(v[LOW].f > 0.0 && v[HIGH].f > v[LOW].f && v[HIGH].f <= 1e6 && v[ORIGINAL].i >= 1))
        return setun_fail(err, SETUN_BAD_ARG,
                          "llama3 scaling has low_freq_factor %g, high_freq_factor %g and "
                          "original_positions %lld; wants 0 < low < high and at least 1 position",
                          v[LOW].f, v[HIGH].f, (long long)v[ORIGINAL].i);
    return setun_infer_out(a, 0, SETUN_F32, 2, v[POSITIONS].i, v[DIM].i, 1);
}

static setun_status eval(const setun_args *a, setun_error *err)
{
    float *y = a->out[0].data;
    int64_t dim = a->attr[DIM].i, positions = a->attr[POSITIONS].i;
    (void)err;
    for (int64_t i = 0; i < dim / 2; i++) {
        float f = (float)frequency(a, i);
        for (int64_t p = 0; p < positions; p++) {
            double c, s;
            float angle = (float)p * f;
            sincos_of((double)angle, &c, &s);
            y[p * dim + i] = (float)c;
            y[p * dim + dim / 2 + i] = (float)s;
        }
    }
    return SETUN_OK;
}

static void cost(const setun_args *a, setun_cost *c)
{
    c->int_ops = 0;
    c->float_ops = 60.0 * setun_cost_count(&a->out[0]);
    c->bytes = setun_cost_view(&a->out[0]);
}

static const setun_port out[] = {
    {"table", "f32[positions,dim]: dim/2 cosines, then dim/2 sines", 0, 0}};
static const setun_attr attr[] = {
    {"theta", "base of the frequencies", SETUN_ATTR_FLOAT, 1, {0}},
    {"dim", "elements of a head that are rotated", SETUN_ATTR_INT, 1, {0}},
    {"positions", "rows of the table", SETUN_ATTR_INT, 1, {0}},
    {"scaling", "\"none\", \"linear\" or \"llama3\"", SETUN_ATTR_STRING, 0, {.s = "none"}},
    {"factor", "linear, llama3: frequencies are divided by this", SETUN_ATTR_FLOAT, 0, {.f = 1.0}},
    {"low_freq_factor", "llama3: wavelengths above original_positions / this are stretched",
     SETUN_ATTR_FLOAT, 0, {.f = 1.0}},
    {"high_freq_factor", "llama3: wavelengths below original_positions / this are kept",
     SETUN_ATTR_FLOAT, 0, {.f = 4.0}},
    {"original_positions", "llama3: context the model was first trained with", SETUN_ATTR_INT, 0,
     {.i = 8192}},
};
static const char *const cases[] = {
    "theta=500000 dim=128 positions=40",
    "theta=10000 dim=2 positions=1",
    "theta=10000 dim=14 positions=129 scaling=linear factor=4",
    "theta=500000 dim=64 positions=100 scaling=llama3 factor=8 original_positions=64",
    NULL,
};

SETUN_OP(rope_table) = {
    .size = sizeof(setun_op), .version = 1, .name = "rope_table",
    .doc = "row p: cos, then sin, of p * theta^(-2i/dim) for i < dim/2",
    .out = out, .attr = attr, .n_out = SETUN_LEN(out), .n_attr = SETUN_LEN(attr),
    .infer = infer, .eval = eval, .cost = cost, .cases = cases,
};
