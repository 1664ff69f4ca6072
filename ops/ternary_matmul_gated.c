/* ops/ternary_matmul_gated.c -- ternary_matmul, times a squared rectifier that is already known.
 *
 *     y[t][r] = relu2(gate[t][r]) * (S * (ws / scale[t])) + 0       S as in ops/ternary_kernels.h
 *
 * These are the bits of relu2_mul(gate, ternary_matmul(...)) but for one thing: a zero is always +0.
 * The sum with +0 turns -0 into +0 and leaves every other number, infinities and NaN as they are.
 *
 * That makes rows free.  Where gate > 0 does not hold (NaN too: relu2 of it is 0), the result is
 * 0 * (S * m) + 0 with m = ws / scale.  |S| < 2^24, so with |m| <= 2^103 the product S * m is finite and
 * the result +0 whatever the weights are: the row need not be read.  With a larger or non-finite m
 * every row is computed, because 0 times infinity must stay NaN.
 *
 * One token: open gates are counted first.  Few of them: they are listed, and the list is walked, the
 * rows some steps ahead prefetched, for hardware prefetchers do not see where the list goes next.
 * Many of them: every row in order, as in ternary_matmul.  More tokens: every row, for some token
 * wants it. */
#include "ops/ternary_matrix_few.h"

/* Largest share of open gates for which the list is walked, in per cent.  Rows of 640 bytes, read from
 * memory: the list and all rows in order take the same time at a share of about 0.42 on a Zen 3, whose
 * hardware prefetchers run past every listed row, and of about 0.8 on a Sapphire Rapids
 * (docs/performance.md).  The lower one is the default; measured with half of the gates open, as hosts
 * do, the higher one wins only where lists are still faster there. */
static const int64_t sparse_values[] = {40, 60};
static const setun_knob knobs[] = {
    TERNARY_KNOBS,
    {"sparse", "per cent of open gates up to which only their rows are read", sparse_values, SETUN_LEN(sparse_values), 0},
};

#define AHEAD_BYTES 4096 /* of listed rows, from what is read to what is prefetched; 2 to 16 KB measure alike */

static setun_status infer(setun_args *a, setun_error *err)
{
    setun_status s = infer_sums(a, err);
    if (s == SETUN_OK)
        s = setun_want(a, WS, SETUN_OF(SETUN_F32), 1, err);
    if (s == SETUN_OK)
        s = setun_want_range(a, WS, 0, 1, 1, err);
    if (s == SETUN_OK)
        s = setun_want(a, GATE, SETUN_OF(SETUN_F32), 2, err);
    if (s == SETUN_OK)
        s = setun_want_equal(a, GATE, 0, Q, 0, err);
    return s == SETUN_OK ? setun_want_equal(a, GATE, 1, W, 0, err) : s;
}

static setun_status eval(const setun_args *a, setun_error *err)
{
    const float *gate = a->in[GATE].data;
    float *y = a->out[0].data;
    (void)err;
    eval_product(a, y);
    for (int64_t i = 0, n = setun_count(&a->out[0]); i < n; i++) {
        float g = setun_maxf(gate[i], 0.0f);
        y[i] = (g * g) * y[i] + 0.0f;
    }
    return SETUN_OK;
}

/* Open gates of the tile's rows. */
static k_val count_open(const row_kernel *c, const sink *to, k_val whole)
{
    setun_kernel *k = c->k;
    k_val many = k_var(k, k_int(k, K_TYPE(K_I32, ROW_GRANULE), 0)), rest = k_var(k, k_int(k, K_TYPE(K_I32, 1), 0));
    k_val r = k_for(k, c->r0, whole, ROW_GRANULE);
    k_val open = k_lt(k, k_f32v(k, 0.0f, ROW_GRANULE), k_load(k, to->gate, r, ROW_GRANULE));
    k_set(k, many, k_add(k, k_get(k, many), k_zext(k, open, K_I32)));
    k_stop(k);
    r = k_for(k, whole, c->r1, 1);
    open = k_lt(k, k_f32(k, 0.0f), k_load(k, to->gate, r, 1));
    k_set(k, rest, k_add(k, k_get(k, rest), k_zext(k, open, K_I32)));
    k_stop(k);
    k_val count = k_rsum(k, k_get(k, many));
    return k_sext(k, k_add(k, count, k_get(k, rest)), K_I64);
}

/* list[0 .. count) = the rows with an open gate, in order; then `ahead` times the last one again (if
 * there is none, any row).  y is 0 in all of the tile. */
static void list_open(const row_kernel *c, const sink *to, k_val whole, k_val list, int64_t ahead)
{
    setun_kernel *k = c->k;
    k_val none = k_f32(k, 0.0f), zero = k_i64(k, 0), at = k_var(k, zero), last = k_var(k, c->r0);
    k_val r = k_for(k, c->r0, whole, ROW_GRANULE);
    k_store(k, to->y, r, k_f32v(k, 0.0f, ROW_GRANULE));
    k_stop(k);
    r = k_for(k, whole, c->r1, 1);
    k_store(k, to->y, r, none);
    k_stop(k);
    r = k_for(k, c->r0, c->r1, 1);
    /* Every row is written where the next open one goes, and stays there if it is open. */
    k_store(k, list, k_get(k, at), k_trunc(k, r, K_I32));
    k_val open = k_lt(k, none, k_load(k, to->gate, r, 1));
    k_set(k, at, k_add(k, k_get(k, at), k_zext(k, open, K_I64)));
    k_set(k, last, k_select(k, open, r, k_get(k, last)));
    k_stop(k);
    k_val i = k_for(k, zero, k_i64(k, ahead), 1);
    k_store(k, list, k_add(k, k_get(k, at), i), k_trunc(k, k_get(k, last), K_I32));
    k_stop(k);
}

/* Rows list[0 .. count) alone.  list[count .. count + ahead) must hold rows too. */
static void row_listed(row_kernel *c, const sink *to, k_val list, k_val count, int64_t ahead)
{
    setun_kernel *k = c->k;
    k_val s[2], row[2], roff[2], from = k_i64(k, 0);
    for (int n_row = c->pairs ? 2 : 1; n_row > 0; n_row--) {
        k_val end = n_row == 1 ? count : k_and(k, count, k_i64(k, -2));
        k_val i = k_for(k, from, end, n_row);
        for (int u = 0; u < n_row; u++) {
            k_val later = k_sext(k, k_load(k, list, k_addi(k, i, u + ahead), 1), K_I64);
            row[u] = k_sext(k, k_load(k, list, k_addi(k, i, u), 1), K_I64);
            roff[u] = k_muli(k, row[u], c->row_bytes);
            c->ahead[u] = k_muli(k, later, c->row_bytes);
        }
        row_sums(c, roff, n_row, s);
        for (int u = 0; u < n_row; u++)
            put(k, to, 0, row[u], row_value(c, s[u]));
        k_stop(k);
        c->ahead[0] = c->ahead[1] = 0;
        from = end;
    }
}

static void lower_row(setun_kernel *k, const setun_args *a)
{
    row_kernel c;
    row_start(k, a, &c);
    sink to = open_sink(k, a);
    int64_t ahead = AHEAD_BYTES / c.row_bytes;
    ahead = ahead < 4 ? 4 : ahead > 32 ? 32 : ahead;
    k_val list = k_scratch(k, K_I32, (a->in[W].dim[0] + ahead + 1) * 4), rows = k_sub(k, c.r1, c.r0);
    k_val whole = k_add(k, c.r0, k_and(k, rows, k_i64(k, -ROW_GRANULE)));
    k_val count = count_open(&c, &to, whole);
    k_val few = k_le(k, k_muli(k, count, 100), k_muli(k, rows, setun_knob_value(a, SPARSE)));
    k_val modest = k_le(k, k_abs(k, c.m), k_f32(k, 0x1p103f));
    k_if(k, k_and(k, few, modest));
    list_open(&c, &to, whole, list, ahead);
    row_listed(&c, &to, list, count, ahead);
    k_else(k);
    row_all(&c, &to);
    k_stop(k);
}

static setun_status lower(setun_kernel *k, const setun_args *a, setun_error *err)
{
    (void)err;
    if (a->in[Q].dim[0] == 1)
        lower_row(k, a);
    else
        lower_many(k, a);
    return SETUN_OK;
}

/* As if every gate were open: what they are is not known before the run. */
static void cost(const setun_args *a, setun_cost *c)
{
    double n = setun_cost_count(&a->in[SCALE]), kp = (double)a->in[Q].dim[1], rows = (double)a->in[W].dim[0];
    c->int_ops = n * rows * (double)a->in[W].dim[1];
    c->float_ops = 4 * n * rows;
    c->bytes = rows * kp / 4 + n * kp + 8 * n * rows;
}

/* One token reads the rows of the open gates, if they are few.  (Every worker decides for its own rows;
 * here all of them decide together.) */
static void counted(const setun_args *a, setun_counted *c)
{
    setun_cost whole;
    const float *gate = a->in[GATE].data;
    int64_t rows = a->in[W].dim[0], open = 0;
    cost(a, &whole);
    c->int_ops = whole.int_ops;
    c->float_ops = whole.float_ops;
    c->bytes = whole.bytes;
    for (int64_t i = 0; i < rows; i++)
        open += gate[i] > 0.0f;
    if (a->in[Q].dim[0] != 1 || open * 100 > rows * setun_knob_value(a, SPARSE))
        return;
    c->rows = (double)open;
    c->row_bytes = (double)a->in[Q].dim[1] / 4;
    c->int_ops = (double)open * (double)a->in[W].dim[1];
    c->bytes -= (double)(rows - open) * c->row_bytes;
}

/* Odd seeds open a smaller share of the gates than 40 or 60 % and even ones a larger share, evenly
 * spread, so that both ways through one token are checked; which share depends on the rows.  1 % of
 * 131 rows is one row. */
static void fill(const setun_args *a, uint64_t seed)
{
    static const int64_t percent[2][4] = {{100, 75, 41, 41}, {0, 25, 39, 1}};
    float *gate = a->in[GATE].data;
    int64_t n = setun_count(&a->in[GATE]), share = percent[seed % 2][a->in[W].dim[0] % 4];
    int64_t count = (n * share + (seed % 2 ? 0 : 99)) / 100;
    fill_product(a, seed);
    for (int64_t i = 0; i < n; i++) {
        float g = setun_absf(gate[i]);
        gate[i] = (i + 1) * count / n > i * count / n ? g : -g;
    }
}

static const setun_port in[] = {
    {"q", "i8[n,K]: quantised activations in -127..127, rows padded with 0 to K, a multiple of 128", 0, 0},
    {"scale", "f32[n]: what the activations were multiplied with", 0, 0},
    {"sum", "i32[n]: sum of each row of q", 0, 0},
    {"w", "t2[r,k]: ternary weights", 0, 0},
    {"ws", "f32[1]: weight scale, multiplied", 0, 0},
    {"gate", "f32[n,r]: rows whose gate is not above 0 are not read", 0, 0},
};
static const setun_port out[] = {{"y", "f32[n,r]; a zero is always +0", 0, 0}};

static const char *const cases[] = {
    "q:i8[1,128] scale:f32[1] sum:i32[1] w:t2[1,1] ws:f32[1] gate:f32[1,1]",
    "q:i8[1,256] scale:f32[1] sum:i32[1] w:t2[7,129] ws:f32[1] gate:f32[1,7]",
    "q:i8[1,384] scale:f32[1] sum:i32[1] w:t2[33,300] ws:f32[1] gate:f32[1,33]",
    "q:i8[1,128] scale:f32[1] sum:i32[1] w:t2[128,128] ws:f32[1] gate:f32[1,128]",
    "q:i8[1,256] scale:f32[1] sum:i32[1] w:t2[129,200] ws:f32[1] gate:f32[1,129]",
    "q:i8[1,128] scale:f32[1] sum:i32[1] w:t2[130,128] ws:f32[1] gate:f32[1,130]",
    "q:i8[1,256] scale:f32[1] sum:i32[1] w:t2[131,256] ws:f32[1] gate:f32[1,131]",
    "q:i8[1,2560] scale:f32[1] sum:i32[1] w:t2[20,2560] ws:f32[1] gate:f32[1,20]",
    "q:i8[1,6912] scale:f32[1] sum:i32[1] w:t2[5,6912] ws:f32[1] gate:f32[1,5]",
    "q:i8[n1,128] scale:f32[n1] sum:i32[n1] w:t2[5,128] ws:f32[1] gate:f32[n1,5]",
    "q:i8[n2,256] scale:f32[n2] sum:i32[n2] w:t2[7,129] ws:f32[1] gate:f32[n2,7]",
    "q:i8[n5,512] scale:f32[n5] sum:i32[n5] w:t2[6,512] ws:f32[1] gate:f32[n5,6]",
    "q:i8[n15,384] scale:f32[n15] sum:i32[n15] w:t2[5,300] ws:f32[1] gate:f32[n15,5]",
    "q:i8[n16,256] scale:f32[n16] sum:i32[n16] w:t2[9,256] ws:f32[1] gate:f32[n16,9]",
    "q:i8[n33,384] scale:f32[n33] sum:i32[n33] w:t2[34,300] ws:f32[1] gate:f32[n33,34]",
    "q:i8[n40,256] scale:f32[n40] sum:i32[n40] w:t2[70,256] ws:f32[1] gate:f32[n40,70]",
    "q:i8[n80,384] scale:f32[n80] sum:i32[n80] w:t2[97,300] ws:f32[1] gate:f32[n80,97]",
    "q:i8[n64,256] scale:f32[n64] sum:i32[n64] w:t2[64,256] ws:f32[1] gate:f32[n64,64]",
    "q:i8[n5,256] scale:f32[n5] sum:i32[n5] w:t2[70,256] ws:f32[1] gate:f32[n5,70]",
    "q:i8[n9,384] scale:f32[n9] sum:i32[n9] w:t2[33,300] ws:f32[1] gate:f32[n9,33]",
    "q:i8[n17,256] scale:f32[n17] sum:i32[n17] w:t2[97,129] ws:f32[1] gate:f32[n17,97]",
    "q:i8[n28,384] scale:f32[n28] sum:i32[n28] w:t2[35,384] ws:f32[1] gate:f32[n28,35]",
    "q:i8[n32,512] scale:f32[n32] sum:i32[n32] w:t2[64,500] ws:f32[1] gate:f32[n32,64]",
    "q:i8[n65,768] scale:f32[n65] sum:i32[n65] w:t2[6,700] ws:f32[1] gate:f32[n65,6]",
    "q:i8[3,256] scale:f32[3] sum:i32[3] w:t2[10,200] ws:f32[1] gate:f32[3,10]",
    NULL,
};

SETUN_OP(ternary_matmul_gated) = {
    .size = sizeof(setun_op), .version = 1,
    .name = "ternary_matmul_gated",
    .doc = "y = relu2(gate) * ternary_matmul(q, scale, sum, w, ws) + 0: closed rows cost nothing.",
    .in = in, .out = out, .n_in = SETUN_LEN(in), .n_out = SETUN_LEN(out),
    .infer = infer, .eval = eval, .lower = lower, .cost = cost, .counted = counted, .fill = fill, .cases = cases,
    .knob = knobs, .n_knob = SETUN_LEN(knobs),
};
