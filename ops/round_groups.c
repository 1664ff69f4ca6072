/* ops/round_groups.c -- floats to the nearest numbers that integers of a few bits with a scale for each group of columns
 * can say: quantised and read back, for products in floats.
 *
 *     y = q / scale      q and scale of ops/few_bits.h, for every `group` columns of a row (0: all of them)
 *
 * The last group of a row may be shorter.  The division is rounded once. */
#include "ops/few_bits.h"

enum { X, Y };

static int64_t group_of(const setun_args *a)
{
    int64_t d = a->in[X].dim[1], group = a->attr[0].i;
    return group && group < d ? group : d;
}

static setun_status infer(setun_args *a, setun_error *err)
{
    setun_status s = want_few_bits(&a->attr[1], &a->attr[2], err);
    if (s == SETUN_OK)
        s = setun_want(a, X, SETUN_OF(SETUN_F32), 2, err);
    if (s == SETUN_OK)
        s = setun_want_range(a, X, 1, 1, MAX_ROW, err);
    if (s != SETUN_OK)
        return s;
    if (a->attr[0].i < 0)
        return setun_fail(err, SETUN_BAD_ARG, "group is %lld, wants a number of columns, or 0 for whole rows", (long long)a->attr[0].i);
    return setun_infer_out(a, 0, SETUN_F32, 2, a->in[X].dim[0], a->in[X].dim[1], 1);
}

static setun_status eval(const setun_args *a, setun_error *err)
{
    const float *x = a->in[X].data;
    float *y = a->out[0].data;
    few_bits f = few_bits_of(&a->attr[1], &a->attr[2]);
    int64_t n = a->in[X].dim[0], d = a->in[X].dim[1], group = group_of(a);
    (void)err;
    for (int64_t t = 0; t < n; t++, x += d, y += d)
        for (int64_t g = 0; g < d; g += group) {
            int64_t end = g + group < d ? g + group : d;
            float scale = few_bits_scale(f, x + g, end - g);
            for (int64_t i = g; i < end; i++)
                y[i] = (float)few_bits_round(f, x[i], scale) / scale;
        }
    return SETUN_OK;
}

/* x[at .. at + n), one group. */
static void lower_group(setun_kernel *k, few_bits f, k_val x, k_val y, k_val at, int64_t n)
{
    int64_t whole = n / 32 * 32;
    k_val scale = k_splat(k, k_few_bits_scale(k, f, x, at, n), 32);
    for (int tail = 0; tail < 2; tail++) {
        if (tail ? n == whole : whole == 0)
            continue;
        k_val i = k_add(k, at, tail ? k_i64(k, whole) : k_for(k, k_i64(k, 0), k_i64(k, whole), 32));
        int64_t count = tail ? n - whole : 32;
        k_val q = k_few_bits_round(k, f, k_load_pad(k, x, i, count, 32, 0), scale);
        k_store_part(k, y, i, k_div(k, k_i2f(k, q), scale), count);
        if (!tail)
            k_stop(k);
    }
}

static setun_status lower(setun_kernel *k, const setun_args *a, setun_error *err)
{
    int64_t d = a->in[X].dim[1], group = group_of(a), whole = d / group * group;
    few_bits f = few_bits_of(&a->attr[1], &a->attr[2]);
    (void)err;
    k_grid(k, X, 0, 1);
    k_val x = k_arg(k, X, K_F32), y = k_arg(k, Y, K_F32);
    k_val row = k_muli(k, k_for(k, k_begin(k), k_end(k), 1), d);
    k_val g = k_for(k, k_i64(k, 0), k_i64(k, whole), group);
    lower_group(k, f, x, y, k_add(k, row, g), group);
    k_stop(k);
    if (d > whole)
        lower_group(k, f, x, y, k_addi(k, row, whole), d - whole);
    k_stop(k);
    return SETUN_OK;
}

static void cost(const setun_args *a, setun_cost *c)
{
    setun_cost_map(a, 8, c);
}

static const setun_port in[] = {{"x", "f32[n,d]: activations", 0, 0}};
static const setun_port out[] = {{"y", "f32[n,d]: what is left of them", 0, 0}};
static const setun_attr attr[] = {
    {"group", "columns that share a scale; 0: all of a row", SETUN_ATTR_INT, 0, {.i = 0}},
    {"bits", "2 to 8", SETUN_ATTR_INT, 0, {.i = 8}},
    {"by", "\"absmax\" or \"absmean\", as in quantize_bits", SETUN_ATTR_STRING, 0, {.s = "absmax"}},
};
static const char *const cases[] = {
    "x:f32[n3,256] group=64",
    "x:f32[n2,1] group=1",
    "x:f32[1,7]",
    "x:f32[n5,129] group=7 bits=4",
    "x:f32[n3,129] group=128 by=absmean bits=4",
    "x:f32[n1,300] group=33 bits=2 by=absmean",
    "x:f32[n2,2560] group=128",
    "x:f32[2,65] group=100 bits=3",
    "x:f32[n2,260] bits=4 by=absmean",
    NULL,
};

SETUN_OP(round_groups) = {
    .size = sizeof(setun_op), .version = 1, .name = "round_groups",
    .doc = "y = x rounded to integers of a few bits with a scale for each group of columns, and divided by the scale again",
    .in = in, .out = out, .attr = attr,
    .n_in = SETUN_LEN(in), .n_out = SETUN_LEN(out), .n_attr = SETUN_LEN(attr),
    .infer = infer, .eval = eval, .lower = lower, .cost = cost, .cases = cases,
};
