/* ops/head_rescore.c -- the logits of listed rows: y[i] = x . w[id[i]], as matmul makes them.
 *
 * The same 32 stripes and halving tree as ops/matmul.c, so the same bits.  The list is cut where
 * it runs, because its length is not known before.  While a row is read, the next one is prefetched:
 * the rows lie anywhere. */
#include "ops/head_kernels.h"

enum { X, W, ID, COUNT, Y };

#define UNITS 64

static setun_status infer(setun_args *a, setun_error *err)
{
    setun_status s = setun_want(a, X, SETUN_OF(SETUN_F32), 2, err);
    if (s == SETUN_OK)
        s = setun_want_weights(a, W, err);
    if (s == SETUN_OK)
        s = setun_want(a, ID, SETUN_OF(SETUN_I32), 2, err);
    if (s == SETUN_OK)
        s = setun_want(a, COUNT, SETUN_OF(SETUN_I32), 1, err);
    if (s == SETUN_OK)
        s = setun_want_equal(a, X, 1, W, 1, err);
    if (s == SETUN_OK)
        s = setun_want_equal(a, ID, 0, X, 0, err);
    if (s == SETUN_OK)
        s = setun_want_equal(a, COUNT, 0, X, 0, err);
    if (s == SETUN_OK)
        s = setun_want_range(a, W, 0, 1, INT32_MAX, err);
    return s != SETUN_OK ? s : setun_infer_out(a, 0, SETUN_F32, 2, a->in[X].dim[0], a->in[ID].dim[1], 1);
}

static setun_status eval(const setun_args *a, setun_error *err)
{
    const float *x = a->in[X].data;
    const int32_t *id = a->in[ID].data, *count = a->in[COUNT].data;
    float *y = a->out[0].data;
    int64_t n = a->in[X].dim[0], d = a->in[X].dim[1], most = a->in[ID].dim[1];
    setun_status s = setun_check_index(a, ID, a->in[W].dim[0], err);
    if (s != SETUN_OK)
        return s;
    for (int64_t t = 0; t < n; t++)
        for (int64_t j = 0; j < most; j++) {
            float p[32] = {0};
            for (int64_t i = 0; j < count[t] && i < d; i++)
                p[i % 32] += x[t * d + i] * setun_get_f32(&a->in[W], (int64_t)id[t * most + j] * d + i);
            y[t * most + j] = setun_tree32(p);
        }
    return SETUN_OK;
}

static setun_status lower(setun_kernel *k, const setun_args *a, setun_error *err)
{
    int64_t d = a->in[X].dim[1], whole = d / 32 * 32, most = a->in[ID].dim[1];
    int64_t granule = (most + UNITS - 1) / UNITS, units = (most + granule - 1) / granule;
    k_matrix w = k_matrix_arg(k, W, &a->in[W]);
    k_val x = k_arg(k, X, K_F32), id = k_arg(k, ID, K_I32), count = k_arg(k, COUNT, K_I32), y = k_arg(k, Y, K_F32);
    (void)err;
    k_grid(k, ID, 1, granule);
    k_val t = k_for(k, k_i64(k, 0), k_dim(k, X, 0), 1), list = k_muli(k, t, most), xi = k_muli(k, t, d), cut[2][2];
    k_val n = k_min(k, k_max(k, k_sext(k, k_load(k, count, t, 1), K_I64), k_i64(k, 0)), k_i64(k, most));
    head_share_k(k, n, units, cut[0]);
    head_share_k(k, k_sub(k, k_i64(k, most), n), units, cut[1]);
    k_val j = k_for(k, cut[0][0], cut[0][1], 1);
    k_val next = k_add(k, list, k_min(k, k_addi(k, j, 1), k_i64(k, most - 1)));
    k_val row = k_matrix_row(&w, k_sext(k, k_load(k, id, k_add(k, list, j), 1), K_I64));
    k_val ahead = k_matrix_row(&w, k_sext(k, k_load(k, id, next, 1), K_I64));
    k_val acc = k_var(k, k_f32v(k, 0.0f, 32));
    if (whole) {
        k_val i = k_for(k, k_i64(k, 0), k_i64(k, whole), w.span);
        for (int64_t s = 0; s < w.span; s += 32) {
            k_matrix_prefetch(&w, ahead, i, s, 0);
            k_val v = k_matrix_load(&w, row, i, s, 32), xs = k_load(k, x, k_addi(k, k_add(k, xi, i), s), 32);
            k_set(k, acc, k_add(k, k_get(k, acc), k_mul(k, xs, v)));
        }
        k_stop(k);
    }
    if (d > whole) { /* zeros behind the last columns change no partial sum */
        k_val v = k_matrix_load(&w, row, k_i64(k, whole), 0, d - whole);
        k_val xs = k_load_pad(k, x, k_addi(k, xi, whole), d - whole, 32, 0);
        k_set(k, acc, k_add(k, k_get(k, acc), k_mul(k, xs, v)));
    }
    k_store(k, y, k_add(k, list, j), k_rsum(k, k_get(k, acc)));
    k_stop(k);
    j = k_for(k, k_add(k, n, cut[1][0]), k_add(k, n, cut[1][1]), 1);
    k_store(k, y, k_add(k, list, j), k_f32(k, 0.0f));
    k_stop(k);
    k_stop(k);
    return SETUN_OK;
}

/* How many rows are listed is not known before it runs: none are counted here, `bench` adds them. */
static void cost(const setun_args *a, setun_cost *c)
{
    setun_cost_map(a, 0, c);
    c->bytes -= setun_cost_view(&a->in[W]);
}

/* count[t] rows for each token, of the many that there is room for; below 1 or above the room: as in eval. */
static void counted(const setun_args *a, setun_counted *c)
{
    const int32_t *count = a->in[COUNT].data;
    for (int64_t t = 0; t < a->in[X].dim[0]; t++)
        c->rows += count[t] > 0 ? (double)count[t] : 0;
    c->row_bytes = (double)setun_row_bytes(a->in[W].dtype, a->in[W].dim[1]);
    c->float_ops = c->rows * (double)a->in[X].dim[1];
    c->bytes = setun_cost_view(&a->in[X]) + c->rows * (c->row_bytes + 8);
}

static void fill(const setun_args *a, uint64_t seed)
{
    int32_t *count = a->in[COUNT].data;
    int64_t most = a->in[ID].dim[1];
    int64_t some = most < 300 ? most : 300; /* a long list takes the same ways, and eval its time */
    setun_fill_index(&a->in[ID], a->in[W].dim[0], seed);
    for (int64_t t = 0; t < a->in[X].dim[0]; t++)
        count[t] = (int32_t)(setun_mix(seed, (uint64_t)t) % (uint64_t)(some + 2)) - 1;
}

static const setun_port in[] = {
    {"x", "f32[n,k]: rows", 0, 0},
    {"w", "f32, f16, bf16 or blocks (q4_0, q8_0, q4_k, q6_k) [r,k]: rows of the head", 0, 0},
    {"id", "i32[n,most]: rows of w, from 0 to r - 1", 0, 0},
    {"count", "i32[n]: how many of them count", 0, 0},
};
static const setun_port out[] = {{"y", "f32[n,most]: x . w[id], 0 behind count", 0, 0}};
static const char *const cases[] = {
    "x:f32[1,256] w:bf16[70,256] id:i32[1,100] count:i32[1]",
    "x:f32[n3,129] w:f32[33,129] id:i32[n3,64] count:i32[n3]",
    "x:f32[m2,7] w:f16[5,7] id:i32[m2,7] count:i32[m2]",
    "x:f32[1,2560] w:bf16[9,2560] id:i32[1,200] count:i32[1]",
    "x:f32[2,1] w:f32[1,1] id:i32[2,1] count:i32[2]",
    "x:f32[n3,96] w:q8_0[33,96] id:i32[n3,64] count:i32[n3]",
    "x:f32[1,32] w:q4_0[5,32] id:i32[1,7] count:i32[1]",
    "x:f32[m2,256] w:q4_k[5,256] id:i32[m2,7] count:i32[m2]",
    "x:f32[1,2560] w:q6_k[9,2560] id:i32[1,200] count:i32[1]",
    NULL,
};

SETUN_OP(head_rescore) = {
    .size = sizeof(setun_op), .version = 1, .name = "head_rescore",
    .doc = "the logits of listed rows of the head, with matmul's bits",
    .in = in, .out = out, .n_in = SETUN_LEN(in), .n_out = SETUN_LEN(out),
    .infer = infer, .eval = eval, .lower = lower, .cost = cost, .counted = counted, .fill = fill, .cases = cases,
};
