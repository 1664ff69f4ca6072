/* ops/kv_append.c -- put new rows of keys or values into the cache, in place.
 *
 * The output is the cache's own memory (port.shares), so a later attention that reads the output
 * sees both old and new rows.  Rounding to 16 bits is to nearest, ties to even.
 * Positions of one call must differ: rows of a kernel run in any order.  eval refuses a position
 * outside the cache; a kernel's caller has checked. */
#include "setun/op.h"

enum { X, CACHE, POS, OUT };

static setun_status infer(setun_args *a, setun_error *err)
{
    const setun_view *c = &a->in[CACHE];
    setun_status s = setun_want(a, X, SETUN_OF(SETUN_F32), 3, err);
    if (s == SETUN_OK)
        s = setun_want(a, CACHE, SETUN_FLOATS, 3, err);
    if (s == SETUN_OK)
        s = setun_want(a, POS, SETUN_OF(SETUN_I32), 1, err);
    if (s == SETUN_OK)
        s = setun_want_equal(a, X, 1, CACHE, 1, err);
    if (s == SETUN_OK)
        s = setun_want_equal(a, X, 2, CACHE, 2, err);
    if (s == SETUN_OK)
        s = setun_want_equal(a, POS, 0, X, 0, err);
    return s != SETUN_OK ? s : setun_infer_out(a, 0, c->dtype, 3, c->dim[0], c->dim[1], c->dim[2]);
}

static setun_status eval(const setun_args *a, setun_error *err)
{
    const float *x = a->in[X].data;
    const int32_t *pos = a->in[POS].data;
    int64_t n = a->in[X].dim[0], d = a->in[X].dim[1] * a->in[X].dim[2];
    setun_status s = setun_check_index(a, POS, a->in[CACHE].dim[0], err);
    if (s != SETUN_OK)
        return s;
    for (int64_t t = 0; t < n; t++)
        for (int64_t i = 0; i < d; i++)
            setun_put_f32(&a->out[0], pos[t] * d + i, x[t * d + i]);
    return SETUN_OK;
}

static setun_status lower(setun_kernel *k, const setun_args *a, setun_error *err)
{
    uint32_t dtype = a->in[CACHE].dtype;
    int64_t d = a->in[X].dim[1] * a->in[X].dim[2], whole = d / 32 * 32;
    (void)err;
    k_grid(k, X, 0, 1);
    k_val x = k_arg(k, X, K_F32), pos = k_arg(k, POS, K_I32), y = k_arg(k, OUT, k_elem_of(dtype));
    k_val t = k_for(k, k_begin(k), k_end(k), 1);
    k_val from = k_muli(k, t, d), to = k_muli(k, k_sext(k, k_load(k, pos, t, 1), K_I64), d);
    if (whole) {
        k_val i = k_for(k, k_i64(k, 0), k_i64(k, whole), 32);
        k_store(k, y, k_add(k, to, i), k_narrow(k, k_load(k, x, k_add(k, from, i), 32), dtype));
        k_stop(k);
    }
    if (d > whole) {
        k_val v = k_load_pad(k, x, k_addi(k, from, whole), d - whole, 32, 0);
        k_store_part(k, y, k_addi(k, to, whole), k_narrow(k, v, dtype), d - whole);
    }
    k_stop(k);
    return SETUN_OK;
}

/* Only the new rows are touched. */
static void cost(const setun_args *a, setun_cost *c)
{
    double n = setun_cost_count(&a->in[X]);
    c->int_ops = 0;
    c->float_ops = n;
    c->bytes = n * (4 + (double)setun_row_bytes(a->in[CACHE].dtype, 1));
}

/* Neighbouring positions, wrapped around: they differ unless there are more rows than places. */
static void fill(const setun_args *a, uint64_t seed)
{
    int32_t *pos = a->in[POS].data;
    uint64_t limit = (uint64_t)a->in[CACHE].dim[0],
             first = setun_mix(seed, 0) % (limit ? limit : 1);
    for (int64_t i = 0; i < a->in[POS].dim[0] && limit; i++)
        pos[i] = (int32_t)((first + (uint64_t)i) % limit);
}

static const setun_port in[] = {
    {"x", "f32[n,h,hd]: new rows", 0, 0},
    {"cache", "f32, f16 or bf16 [C,h,hd]", 0, 0},
    {"pos", "i32[n]: where each row goes; from 0 to C - 1, all different", 0, 0},
};
static const setun_port out[] = {
    {"cache", "the same memory, with the rows in place", 1 + CACHE, 0}};
static const char *const cases[] = {
    "x:f32[n3,5,128] cache:f16[16,5,128] pos:i32[n3]",
    "x:f32[n2,1,7] cache:bf16[5,1,7] pos:i32[n2]",
    "x:f32[n4,3,43] cache:f32[4,3,43] pos:i32[n4]",
    "x:f32[1,1,1] cache:f16[129,1,1] pos:i32[1]",
    "x:f32[1,3,100] cache:bf16[7,3,100] pos:i32[1]",
    NULL,
};

SETUN_OP(kv_append) = {
    .size = sizeof(setun_op), .version = 1, .name = "kv_append",
    .doc = "cache[pos[t]] = x[t], rounded to the cache's type",
    .in = in, .out = out, .n_in = SETUN_LEN(in), .n_out = SETUN_LEN(out),
    .infer = infer, .eval = eval, .lower = lower, .cost = cost, .fill = fill, .cases = cases,
};
