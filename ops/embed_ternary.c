/* ops/embed_ternary.c -- rows of a ternary table as floats: the embedding of models that are ternary all through.
 *
 *     y[t][i] = w[index[t]][i] * ws
 *
 * eval refuses an index outside the table.  The kernel does not look, as in ops/embed.c. */
#include "ops/ternary_scales.h"

enum { TABLE, WS, INDEX, Y };

static setun_status infer(setun_args *a, setun_error *err)
{
    setun_status s = setun_want(a, TABLE, SETUN_OF(SETUN_T2), 2, err);
    if (s == SETUN_OK)
        s = want_scales(a, TABLE, WS, a->attr[0].i, err);
    if (s == SETUN_OK)
        s = setun_want(a, INDEX, SETUN_OF(SETUN_I32), 1, err);
    return s == SETUN_OK ? setun_infer_out(a, 0, SETUN_F32, 2, a->in[INDEX].dim[0], a->in[TABLE].dim[1], 1) : s;
}

/* Columns that share a scale: column i of row r has ws[r * scale_stride + i / columns_of_scale]. */
static int64_t columns_of_scale(const setun_args *a)
{
    return a->attr[0].i ? a->attr[0].i : a->in[TABLE].dim[1];
}

static setun_status eval(const setun_args *a, setun_error *err)
{
    const int32_t *index = a->in[INDEX].data;
    const float *ws = a->in[WS].data;
    float *y = a->out[0].data;
    int64_t n = a->in[INDEX].dim[0], d = a->in[TABLE].dim[1], bytes = setun_row_bytes(SETUN_T2, d);
    setun_status s = setun_check_index(a, INDEX, a->in[TABLE].dim[0], err);
    if (s != SETUN_OK)
        return s;
    for (int64_t t = 0; t < n; t++)
        for (int64_t i = 0; i < d; i++)
            y[t * d + i] = (float)setun_get_t2((const uint8_t *)a->in[TABLE].data + index[t] * bytes, i) *
                           ws[index[t] * scale_stride(&a->in[WS]) + i / columns_of_scale(a)];
    return SETUN_OK;
}

/* The 32 columns of field f of block b, or the first n of them. */
static void put_field(setun_kernel *k, const setun_args *a, k_val row, k_val b, int f, k_val to, int64_t n)
{
    k_val table = k_arg(k, TABLE, K_I8), ws = k_arg(k, WS, K_F32), y = k_arg(k, Y, K_F32);
    int64_t bytes = setun_row_bytes(SETUN_T2, a->in[TABLE].dim[1]);
    k_val v = k_load(k, table, k_add(k, k_muli(k, row, bytes), k_muli(k, b, 32)), 32), column = k_addi(k, k_muli(k, b, 128), 32 * f);
    v = k_cast(k, k_shru(k, k_cast(k, v, K_TYPE(K_I16, 16)), 2 * f), K_TYPE(K_I8, 32));
    v = k_sub(k, k_and(k, v, k_int(k, K_TYPE(K_I8, 32), 3)), k_int(k, K_TYPE(K_I8, 32), 1));
    k_val at = k_add(k, k_muli(k, row, scale_stride(&a->in[WS])), k_udiv(k, column, k_i64(k, columns_of_scale(a))));
    v = k_mul(k, k_i2f(k, k_sext(k, v, K_I32)), k_splat(k, k_load(k, ws, at, 1), 32));
    k_store_part(k, y, k_add(k, to, column), v, n);
}

static setun_status lower(setun_kernel *k, const setun_args *a, setun_error *err)
{
    int64_t d = a->in[TABLE].dim[1], whole = d / 128;
    (void)err;
    k_grid(k, INDEX, 0, 1);
    k_val t = k_for(k, k_begin(k), k_end(k), 1), to = k_muli(k, t, d);
    k_val row = k_sext(k, k_load(k, k_arg(k, INDEX, K_I32), t, 1), K_I64);
    if (whole) {
        k_val b = k_for(k, k_i64(k, 0), k_i64(k, whole), 1);
        for (int f = 0; f < 4; f++)
            put_field(k, a, row, b, f, to, 32);
        k_stop(k);
    }
    for (int f = 0; 128 * whole + 32 * f < d; f++)
        put_field(k, a, row, k_i64(k, whole), f, to, d - 128 * whole - 32 * f);
    k_stop(k);
    return SETUN_OK;
}

/* Only the rows that are wanted are touched. */
static void cost(const setun_args *a, setun_cost *c)
{
    double n = setun_cost_count(&a->in[INDEX]), d = (double)a->in[TABLE].dim[1];
    c->int_ops = 0;
    c->float_ops = n * d;
    c->bytes = n * (d / 4 + 4 * d / (double)columns_of_scale(a) + 4 + 4 * d);
}

static void fill(const setun_args *a, uint64_t seed)
{
    setun_fill_index(&a->in[INDEX], a->in[TABLE].dim[0], seed);
}

static const setun_port in[] = {
    {"table", "t2[rows,d]: ternary weights", 0, 0},
    {"ws", "f32[1], f32[rows] or f32[rows,d/group rounded up]: scales of the weights, multiplied", 0, 0},
    {"index", "i32[n]: which row of table; from 0 to rows - 1", 0, 0},
};
static const setun_port out[] = {{"y", "f32[n,d]: the rows", 0, 0}};
static const setun_attr attr[] = {GROUP_ATTR};
static const char *const cases[] = {
    "table:t2[9,129] ws:f32[1] index:i32[n3]",
    "table:t2[5,7] ws:f32[5] index:i32[n4]",
    "table:t2[40,2560] ws:f32[40,20] index:i32[1] group=128",
    "table:t2[9,300] ws:f32[9,5] index:i32[n2] group=64",
    "table:t2[9,200] ws:f32[9,7] index:i32[n2] group=32",
    "table:t2[3,700] ws:f32[3,3] index:i32[n5] group=256",
    "table:t2[1,1] ws:f32[1,1] index:i32[2] group=128",
    NULL,
};

SETUN_OP(embed_ternary) = {
    .size = sizeof(setun_op), .version = 1, .name = "embed_ternary",
    .doc = "y[t] = row index[t] of a ternary table times its scales, as f32",
    .in = in, .out = out, .attr = attr, .n_in = SETUN_LEN(in), .n_out = SETUN_LEN(out), .n_attr = SETUN_LEN(attr),
    .infer = infer, .eval = eval, .lower = lower, .cost = cost, .fill = fill, .cases = cases,
};
