/* ops/embed.c -- rows of a table: token embeddings, or chosen rows of an activation.
 *
 * eval refuses an index outside the table.  The kernel does not look: whoever runs it has checked
 * (a session checks tokens, and makes the row numbers of wanted outputs itself). */
#include "setun/op.h"

enum { TABLE, INDEX, Y };

static setun_status infer(setun_args *a, setun_error *err)
{
    setun_status s = setun_want_weights(a, TABLE, err);
    if (s == SETUN_OK)
        s = setun_want(a, INDEX, SETUN_OF(SETUN_I32), 1, err);
    return s != SETUN_OK
               ? s
               : setun_infer_out(a, 0, SETUN_F32, 2, a->in[INDEX].dim[0], a->in[TABLE].dim[1], 1);
}

static setun_status eval(const setun_args *a, setun_error *err)
{
    const int32_t *index = a->in[INDEX].data;
    float *y = a->out[0].data;
    int64_t n = a->in[INDEX].dim[0], d = a->in[TABLE].dim[1];
    setun_status s = setun_check_index(a, INDEX, a->in[TABLE].dim[0], err);
    if (s != SETUN_OK)
        return s;
    for (int64_t t = 0; t < n; t++)
        for (int64_t i = 0; i < d; i++)
            y[t * d + i] = setun_get_f32(&a->in[TABLE], index[t] * d + i);
    return SETUN_OK;
}

static setun_status lower(setun_kernel *k, const setun_args *a, setun_error *err)
{
    int64_t d = a->in[TABLE].dim[1], whole = d / 32 * 32;
    (void)err;
    k_grid(k, INDEX, 0, 1);
    k_matrix table = k_matrix_arg(k, TABLE, &a->in[TABLE]);
    k_val index = k_arg(k, INDEX, K_I32), y = k_arg(k, Y, K_F32);
    k_val t = k_for(k, k_begin(k), k_end(k), 1);
    k_val from = k_matrix_row(&table, k_sext(k, k_load(k, index, t, 1), K_I64)), to = k_muli(k, t, d);
    if (whole) {
        k_val i = k_for(k, k_i64(k, 0), k_i64(k, whole), table.span);
        for (int64_t s = 0; s < table.span; s += 32)
            k_store(k, y, k_addi(k, k_add(k, to, i), s), k_matrix_load(&table, from, i, s, 32));
        k_stop(k);
    }
    if (d > whole) {
        k_val v = k_matrix_load(&table, from, k_i64(k, whole), 0, d - whole);
        k_store_part(k, y, k_addi(k, to, whole), v, d - whole);
    }
    k_stop(k);
    return SETUN_OK;
}

/* Only the rows that are wanted are touched. */
static void cost(const setun_args *a, setun_cost *c)
{
    setun_cost_map(a, 0, c);
    c->bytes += setun_cost_count(&a->out[0]) * (double)setun_row_bytes(a->in[TABLE].dtype, 256) / 256 -
                setun_cost_view(&a->in[TABLE]);
}

static void fill(const setun_args *a, uint64_t seed)
{
    setun_fill_index(&a->in[INDEX], a->in[TABLE].dim[0], seed);
}

static const setun_port in[] = {
    {"table", "f32, f16, bf16 or blocks (q4_0, q8_0, q4_k, q6_k) [rows,d]", 0, 0},
    {"index", "i32[n]: which row of table; from 0 to rows - 1", 0, 0},
};
static const setun_port out[] = {{"y", "f32[n,d]: the rows, widened exactly", 0, 0}};
static const char *const cases[] = {
    "table:f32[n5,256] index:i32[m3]",
    "table:bf16[9,129] index:i32[n3]",
    "table:f16[9,7] index:i32[n3]",
    "table:bf16[40,2560] index:i32[1]",
    "table:f32[1,1] index:i32[n2]",
    "table:q8_0[9,96] index:i32[n3]",
    "table:q4_0[5,32] index:i32[n3]",
    "table:q4_k[3,512] index:i32[2]",
    "table:q6_k[7,768] index:i32[n3]",
    NULL,
};

SETUN_OP(embed) = {
    .size = sizeof(setun_op), .version = 1, .name = "embed",
    .doc = "y[t] = row index[t] of table, as f32",
    .in = in, .out = out, .n_in = SETUN_LEN(in), .n_out = SETUN_LEN(out),
    .infer = infer, .eval = eval, .lower = lower, .cost = cost, .fill = fill, .cases = cases,
};
