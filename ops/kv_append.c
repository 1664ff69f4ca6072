/* ops/kv_append.c -- put new rows of keys or values into the cache, in place.
 *
 * The output is the cache's own memory (port.shares), so a later attention that reads the output
 * sees both old and new rows.  A head's keys are neighbours, because attention reads one head at a
 * time.  Rounding to 16 bits is to nearest, ties to even; to q8 as setun_put_q8 says.
 * Positions of one call must differ: rows of a kernel run in any order.  eval refuses a position
 * outside the cache; a kernel's caller has checked. */
#include "setun/op.h"

enum { X, CACHE, POS, OUT };

static setun_status infer(setun_args *a, setun_error *err)
{
    const setun_view *c = &a->in[CACHE];
    setun_status s = setun_want(a, X, SETUN_OF(SETUN_F32), 3, err);
    if (s == SETUN_OK)
        s = setun_want(a, CACHE, SETUN_FLOATS | SETUN_OF(SETUN_Q8), 3, err);
    if (s == SETUN_OK)
        s = setun_want(a, POS, SETUN_OF(SETUN_I32), 1, err);
    if (s == SETUN_OK)
        s = setun_want_equal(a, X, 1, CACHE, 0, err);
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
    int64_t n = a->in[X].dim[0], heads = a->in[X].dim[1], hd = a->in[X].dim[2],
            places = a->in[CACHE].dim[1];
    setun_status s = setun_check_index(a, POS, places, err);
    if (s != SETUN_OK)
        return s;
    for (int64_t t = 0; t < n; t++)
        for (int64_t h = 0; h < heads; h++)
            setun_put_row(&a->out[0], h * places + pos[t], x + (t * heads + h) * hd);
    return SETUN_OK;
}

typedef struct append {
    setun_kernel *k;
    uint32_t dtype;
    int64_t  hd;
    k_val    x, y, scales; /* arguments; scales: y as 16-bit words */
} append;

/* Elements i to i + 32, of which left exist, from x[from] on to row `row` of the cache. */
static void copy(const append *c, k_val from, k_val row, k_val i, int64_t left)
{
    setun_kernel *k = c->k;
    k_val v = k_load_pad(k, c->x, k_add(k, from, i), left, 32, 0), scale;
    if (c->dtype != SETUN_Q8) {
        k_val to = k_add(k, k_muli(k, row, c->hd), i);
        k_store_part(k, c->y, to, k_narrow(k, v, c->dtype), left);
        return;
    }
    k_val q = k_to_q8(k, v, &scale);
    k_val block = k_add(k, k_muli(k, row, (c->hd + 31) / 32), k_shru(k, i, 5));
    k_val to = k_muli(k, block, SETUN_Q8_BLOCK_BYTES);
    k_store(k, c->scales, k_shru(k, to, 1), scale);
    k_store(k, c->y, k_addi(k, to, 2), q);
}

static setun_status lower(setun_kernel *k, const setun_args *a, setun_error *err)
{
    append c = {.k = k, .dtype = a->in[CACHE].dtype, .hd = a->in[X].dim[2]};
    int64_t heads = a->in[X].dim[1], whole = c.hd / 32 * 32;
    (void)err;
    k_grid(k, X, 0, 1);
    c.x = k_arg(k, X, K_F32);
    c.y = k_arg(k, OUT, k_elem_of(c.dtype));
    c.scales = c.dtype == SETUN_Q8 ? k_arg(k, OUT, K_I16) : 0;
    k_val pos = k_arg(k, POS, K_I32), zero = k_i64(k, 0);
    k_val t = k_for(k, k_begin(k), k_end(k), 1), h = k_for(k, zero, k_i64(k, heads), 1);
    k_val from = k_muli(k, k_add(k, k_muli(k, t, heads), h), c.hd);
    k_val row = k_muli(k, h, a->in[CACHE].dim[1]);
    row = k_add(k, row, k_sext(k, k_load(k, pos, t, 1), K_I64));
    if (whole) {
        copy(&c, from, row, k_for(k, zero, k_i64(k, whole), 32), 32);
        k_stop(k);
    }
    if (c.hd > whole)
        copy(&c, from, row, k_i64(k, whole), c.hd - whole);
    k_stop(k);
    k_stop(k);
    return SETUN_OK;
}

/* Only the new rows are touched. */
static void cost(const setun_args *a, setun_cost *c)
{
    double n = setun_cost_count(&a->in[X]);
    c->int_ops = 0;
    c->float_ops = n;
    c->bytes = n * (4 + (double)setun_row_bytes(a->in[CACHE].dtype, 128) / 128);
}

/* Neighbouring positions, wrapped around: they differ unless there are more rows than places. */
static void fill(const setun_args *a, uint64_t seed)
{
    int32_t *pos = a->in[POS].data;
    uint64_t limit = (uint64_t)a->in[CACHE].dim[1],
             first = setun_mix(seed, 0) % (limit ? limit : 1);
    for (int64_t i = 0; i < a->in[POS].dim[0] && limit; i++)
        pos[i] = (int32_t)((first + (uint64_t)i) % limit);
}

static const setun_port in[] = {
    {"x", "f32[n,h,hd]: new rows", 0, 0},
    {"cache", "f32, f16, bf16 or q8 [h,C,hd]", 0, 0},
    {"pos", "i32[n]: where each row goes; from 0 to C - 1, all different", 0, 0},
};
static const setun_port out[] = {
    {"cache", "the same memory, with the rows in place", 1 + CACHE, 0}};
static const char *const cases[] = {
    "x:f32[n3,5,128] cache:f16[5,16,128] pos:i32[n3]",
    "x:f32[n2,1,7] cache:bf16[1,5,7] pos:i32[n2]",
    "x:f32[n4,3,43] cache:f32[3,4,43] pos:i32[n4]",
    "x:f32[1,1,1] cache:f16[1,129,1] pos:i32[1]",
    "x:f32[1,3,100] cache:bf16[3,7,100] pos:i32[1]",
    "x:f32[n3,5,128] cache:q8[5,16,128] pos:i32[n3]",
    "x:f32[n2,2,7] cache:q8[2,5,7] pos:i32[n2]",
    "x:f32[1,3,100] cache:q8[3,7,100] pos:i32[1]",
    NULL,
};

SETUN_OP(kv_append) = {
    .size = sizeof(setun_op), .version = 2, .name = "kv_append",
    .doc = "cache[h, pos[t]] = x[t, h], rounded to the cache's type",
    .in = in, .out = out, .n_in = SETUN_LEN(in), .n_out = SETUN_LEN(out),
    .infer = infer, .eval = eval, .lower = lower, .cost = cost, .fill = fill, .cases = cases,
};
