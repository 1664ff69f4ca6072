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
 * One token: rows with an open gate are listed first.  Few of them: the list is walked, the rows some
 * steps ahead prefetched, for hardware prefetchers do not see where the list goes next.  Many of them:
 * every row in order, as in ternary_matmul.  Many tokens: every row, since some token wants it. */
#include "ops/ternary_kernels.h"

/* Largest share of open gates for which the list is walked (docs/performance.md: the list wins below
 * about 65 % on one core, and reads less in any case; the rest is margin for narrower rows). */
#define SPARSE_PERCENT 40

#define AHEAD_BYTES 4096 /* of listed rows between what is read and what is prefetched */

static setun_status infer(setun_args *a, setun_error *err)
{
    setun_status s = infer_product(a, err);
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

/* The tile's rows with an open gate, in order; returns how many. */
static k_val list_open(const row_kernel *c, const sink *to, k_val list)
{
    setun_kernel *k = c->k;
    k_val none = k_f32(k, 0.0f), count = k_var(k, k_i64(k, 0));
    k_val r = k_for(k, c->r0, c->r1, 1);
    /* Every row is written where the next open one goes, and stays there if it is open. */
    k_store(k, list, k_get(k, count), k_trunc(k, r, K_I32));
    k_val open = k_lt(k, none, k_load(k, to->gate, r, 1));
    k_set(k, count, k_add(k, k_get(k, count), k_zext(k, open, K_I64)));
    k_stop(k);
    return k_get(k, count);
}

static void zero_rows(const row_kernel *c, const sink *to)
{
    setun_kernel *k = c->k;
    k_val whole = k_add(k, c->r0, k_and(k, k_sub(k, c->r1, c->r0), k_i64(k, -ROW_GRANULE)));
    k_val r = k_for(k, c->r0, whole, ROW_GRANULE);
    k_store(k, to->y, r, k_f32v(k, 0.0f, ROW_GRANULE));
    k_stop(k);
    r = k_for(k, whole, c->r1, 1);
    k_store(k, to->y, r, k_f32(k, 0.0f));
    k_stop(k);
}

/* Rows list[0 .. count) alone.  list[count .. count + ahead) must hold rows too. */
static void row_listed(row_kernel *c, const sink *to, k_val list, k_val count, int64_t ahead)
{
    setun_kernel *k = c->k;
    k_val s[2], row[2], roff[2], from = k_i64(k, 0);
    for (int n_row = row_pairs(c) ? 2 : 1; n_row > 0; n_row--) {
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
            put(k, to, row[u], row_value(c, s[u]));
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
    k_val list = k_scratch(k, K_I32, (a->in[W].dim[0] + ahead + 1) * 4);
    k_val count = list_open(&c, &to, list), rows = k_sub(k, c.r1, c.r0);
    k_val few = k_le(k, k_muli(k, count, 100), k_muli(k, rows, SPARSE_PERCENT));
    k_val modest = k_le(k, k_abs(k, c.m), k_f32(k, 0x1p103f));
    k_if(k, k_and(k, few, modest));
    {
        /* Past its end the list repeats its last row (or any, if it is empty). */
        k_val last = k_add(k, count, k_sext(k, k_lt(k, k_i64(k, 0), count), K_I64));
        k_val pad = k_load(k, list, last, 1);
        k_val i = k_for(k, k_i64(k, 0), k_i64(k, ahead), 1);
        k_store(k, list, k_add(k, count, i), pad);
        k_stop(k);
        zero_rows(&c, &to);
        row_listed(&c, &to, list, count, ahead);
    }
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

/* Seed 1 opens a quarter of the gates, 2 three quarters, 3 none, 4 all, 5 one: both ways through
 * one token. */
static void fill(const setun_args *a, uint64_t seed)
{
    static const uint64_t of_256[5] = {0, 64, 192, 0, 256};
    float *gate = a->in[GATE].data;
    fill_product(a, seed);
    for (int64_t i = 0, n = setun_count(&a->in[GATE]); i < n; i++) {
        float g = setun_absf(gate[i]);
        int open = (setun_mix(seed, (uint64_t)i) >> 8 & 255) < of_256[seed % 5] || (seed % 5 == 0 && i == n / 2);
        gate[i] = open ? g : -g;
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
    "q:i8[1,128] scale:f32[1] sum:i32[1] w:t2[129,128] ws:f32[1] gate:f32[1,129]",
    "q:i8[1,2560] scale:f32[1] sum:i32[1] w:t2[20,2560] ws:f32[1] gate:f32[1,20]",
    "q:i8[1,6912] scale:f32[1] sum:i32[1] w:t2[5,6912] ws:f32[1] gate:f32[1,5]",
    "q:i8[n1,128] scale:f32[n1] sum:i32[n1] w:t2[5,128] ws:f32[1] gate:f32[n1,5]",
    "q:i8[n2,256] scale:f32[n2] sum:i32[n2] w:t2[7,129] ws:f32[1] gate:f32[n2,7]",
    "q:i8[n33,384] scale:f32[n33] sum:i32[n33] w:t2[34,300] ws:f32[1] gate:f32[n33,34]",
    "q:i8[n65,768] scale:f32[n65] sum:i32[n65] w:t2[6,700] ws:f32[1] gate:f32[n65,6]",
    "q:i8[3,256] scale:f32[3] sum:i32[3] w:t2[10,200] ws:f32[1] gate:f32[3,10]",
    NULL,
};

SETUN_OP(ternary_matmul_gated) = {
    .size = sizeof(setun_op), .version = 1,
    .name = "ternary_matmul_gated",
    .doc = "y = relu2(gate) * ternary_matmul(q, scale, sum, w, ws) + 0: closed rows cost nothing.",
    .in = in, .out = out, .n_in = SETUN_LEN(in), .n_out = SETUN_LEN(out),
    .infer = infer, .eval = eval, .lower = lower, .cost = cost, .fill = fill, .cases = cases,
};
