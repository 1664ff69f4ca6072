/* ops/reshape.c -- rows seen as heads, or heads seen as rows: the same bytes under other sizes.
 *
 *     heads = h > 0:   f32[n,a]    ->  f32[n,h,a/h]
 *     heads = 0:       f32[n,h,d]  ->  f32[n,h*d]
 *
 * Arrays are dense and row-major, so neither moves an element.  The output shares the input's memory
 * (port.shares), eval and the kernel have nothing to do, and the input's old name may no longer be
 * used, as after any update in place. */
#include "setun/op.h"

static setun_status infer(setun_args *a, setun_error *err)
{
    int64_t heads = a->attr[0].i;
    const setun_view *x = &a->in[0];
    setun_status s = setun_want(a, 0, SETUN_OF(SETUN_F32), heads ? 2 : 3, err);
    if (s != SETUN_OK)
        return s;
    if (heads < 0 || (heads && x->dim[1] % heads))
        return setun_fail(err, SETUN_BAD_SHAPE, "%lld columns do not split into %lld heads",
                          (long long)x->dim[1], (long long)heads);
    if (!heads && x->dim[1] > INT64_MAX / x->dim[2])
        return setun_fail(err, SETUN_BAD_SHAPE, "%lld heads of %lld do not fit one row", (long long)x->dim[1],
                          (long long)x->dim[2]);
    if (heads)
        return setun_infer_out(a, 0, SETUN_F32, 3, x->dim[0], heads, x->dim[1] / heads);
    return setun_infer_out(a, 0, SETUN_F32, 2, x->dim[0], x->dim[1] * x->dim[2], 1);
}

static setun_status eval(const setun_args *a, setun_error *err)
{
    (void)err;
    /* A caller that keeps views apart, against the schema, still gets the right answer. */
    if (a->out[0].data != a->in[0].data)
        memcpy(a->out[0].data, a->in[0].data, (size_t)setun_view_bytes(&a->in[0]));
    return SETUN_OK;
}

/* One unit that does nothing. */
static setun_status lower(setun_kernel *k, const setun_args *a, setun_error *err)
{
    (void)a;
    (void)err;
    k_grid(k, -1, 0, 1);
    return SETUN_OK;
}

static void cost(const setun_args *a, setun_cost *c)
{
    (void)a;
    c->int_ops = c->float_ops = c->bytes = 0;
}

static const setun_port in[] = {{"x", "f32[n,a], or f32[n,h,d] with heads = 0", 0, 0}};
static const setun_port out[] = {{"y", "the same memory as f32[n,heads,a/heads], or as f32[n,h*d]", 1, 0}};
static const setun_attr attr[] = {
    {"heads", "number of heads a row is split into; 0: join them", SETUN_ATTR_INT, 1, {0}},
};
static const char *const cases[] = {
    "x:f32[n3,256] heads=4", "x:f32[n1,7] heads=7", "x:f32[5,129] heads=1", "x:f32[n2,4,32] heads=0",
    "x:f32[3,1,7] heads=0", NULL,
};

SETUN_OP(reshape) = {
    .size = sizeof(setun_op), .version = 1, .name = "reshape",
    .doc = "y = x with rows split into heads, or heads joined to rows; nothing moves",
    .in = in, .out = out, .attr = attr,
    .n_in = SETUN_LEN(in), .n_out = SETUN_LEN(out), .n_attr = SETUN_LEN(attr),
    .infer = infer, .eval = eval, .lower = lower, .cost = cost, .cases = cases,
};
