/* ops/topk.c -- the k largest elements of every row, largest first.
 *
 * Of equals the lower index comes first; a NaN is less than every number.  There is no kernel: eval
 * is one pass that keeps a sorted list, and almost every element of a long row fails its first
 * comparison. */
#include "setun/op.h"

enum { X };

static setun_status infer(setun_args *a, setun_error *err)
{
    int64_t k = a->attr[0].i, n = a->in[X].dim[0];
    setun_status s = setun_want(a, X, SETUN_OF(SETUN_F32), 2, err);
    if (s == SETUN_OK)
        s = setun_want_range(a, X, 1, 1, INT32_MAX, err);
    if (s != SETUN_OK)
        return s;
    if (k < 1 || k > a->in[X].dim[1])
        return setun_fail(err, SETUN_BAD_ARG,
                          "k is %lld, wants a number from 1 to the %lld columns of x", (long long)k,
                          (long long)a->in[X].dim[1]);
    (void)setun_infer_out(a, 0, SETUN_F32, 2, n, k, 1);
    return setun_infer_out(a, 1, SETUN_I32, 2, n, k, 1);
}

/* a comes before an earlier b only if it is larger, or a number where b is none. */
static int before(float a, float b)
{
    return a > b || (a == a && b != b);
}

static setun_status eval(const setun_args *a, setun_error *err)
{
    const float *x = a->in[X].data;
    float *value = a->out[0].data;
    int32_t *index = a->out[1].data;
    int64_t n = a->in[X].dim[0], d = a->in[X].dim[1], k = a->attr[0].i;
    (void)err;
    for (int64_t t = 0; t < n; t++, x += d, value += k, index += k)
        for (int64_t i = 0; i < d; i++) {
            int64_t at = i < k ? i : k;
            while (at > 0 && before(x[i], value[at - 1])) {
                at--;
                if (at + 1 < k) {
                    value[at + 1] = value[at];
                    index[at + 1] = index[at];
                }
            }
            if (at < k) {
                value[at] = x[i];
                index[at] = (int32_t)i;
            }
        }
    return SETUN_OK;
}

static void cost(const setun_args *a, setun_cost *c)
{
    setun_cost_map(a, 2, c);
}

static const setun_port in[] = {{"x", "f32[n,d]: rows", 0, 0}};
static const setun_port out[] = {
    {"value", "f32[n,k]: largest first", 0, 0},
    {"index", "i32[n,k]: where they are; of equals the first comes first", 0, 0},
};
static const setun_attr attr[] = {
    {"k", "how many; at most the columns of x", SETUN_ATTR_INT, 1, {0}}};
static const char *const cases[] = {
    "x:f32[n3,256] k=5",  "x:f32[2,7] k=7",    "x:f32[n2,1] k=1",
    "x:f32[1,5000] k=40", "x:f32[n5,129] k=1", NULL,
};

SETUN_OP(topk) = {
    .size = sizeof(setun_op), .version = 1, .name = "topk",
    .doc = "the k largest elements of every row, in order",
    .in = in, .out = out, .attr = attr,
    .n_in = SETUN_LEN(in), .n_out = SETUN_LEN(out), .n_attr = SETUN_LEN(attr),
    .infer = infer, .eval = eval, .cost = cost, .cases = cases,
};
