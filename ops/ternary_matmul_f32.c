/* ops/ternary_matmul_f32.c -- float activations times ternary weights, for models that were trained with
 * ternary weights alone: nothing is quantised here.
 *
 *     y[t][r] = sum over i of P_i * ws                 P_i = sum over the columns of piece i of w[r][k] * x[t][k]
 *
 * A piece is a block of 128 columns, or a group of 32 or 64 of them, so that every piece has one scale.
 * The order of all additions is fixed, and is the one that suits the layout of the weights:
 *
 *     columns of a piece, 32 to a line        p(j) = (x(j) + x(j + 32)) + (x(j + 64) + x(j + 96))
 *       | j      | j + 32 | j + 64 | j + 96 |        each times its weight, as far as the piece goes
 *     P_i     p(0) .. p(31), halved: p(j) += p(j + 16), then 8, 4, 2, 1
 *     y       P_i * ws to stripe i mod 8, in order, from +0; then halved (ops/ternary_scales.h)
 *
 * Products with -1, 0 and 1 round nothing, but keep what is no number: an infinity in x is seen in every
 * y.  Columns past the last count as x = +0 with weight 0, up to the end of their piece.
 *
 * Three kernels, all in that order:
 *   columns  ops/ternary_f32.h: columns in the lanes, weights as floats, multiplied; one or few tokens anywhere
 *   rows     ops/ternary_f32_rows.h: rows in the lanes, sums of columns from tables in registers; the same with AVX2, AVX-512
 *   tokens   ops/ternary_f32_tokens.h: tokens in the lanes, sums of columns from tables in memory; many tokens
 *
 * A zero's sign does not show: P_i * ws is added to stripes that began at +0. */
#include "ops/ternary_f32_tokens.h"

static setun_status infer(setun_args *a, setun_error *err)
{
    setun_status s = setun_want(a, X, SETUN_OF(SETUN_F32), 2, err);
    if (s == SETUN_OK)
        s = setun_want(a, W, SETUN_OF(SETUN_T2), 2, err);
    if (s == SETUN_OK)
        s = setun_want_equal(a, X, 1, W, 1, err);
    if (s == SETUN_OK)
        s = want_scales(a, W, WS, a->attr[0].i, err);
    return s == SETUN_OK ? setun_infer_out(a, 0, SETUN_F32, 2, a->in[X].dim[0], a->in[W].dim[0], 1) : s;
}

static float eval_piece(const float *x, const uint8_t *row, int64_t from, int64_t piece, int64_t columns)
{
    float p[32];
    for (int64_t j = 0; j < 32; j++) {
        float v[4] = {0};
        for (int64_t f = 0; f < piece / 32; f++) {
            int64_t i = from + 32 * f + j;
            v[f] = (float)setun_get_t2(row, i) * (i < columns ? x[i] : 0.0f);
        }
        p[j] = piece == 32 ? v[0] : piece == 64 ? v[0] + v[1] : (v[0] + v[1]) + (v[2] + v[3]);
    }
    return setun_tree32(p);
}

static setun_status eval(const setun_args *a, setun_error *err)
{
    const float *x = a->in[X].data, *ws = a->in[WS].data;
    const uint8_t *w = a->in[W].data;
    float *y = a->out[0].data;
    int64_t n = a->in[X].dim[0], k = a->in[W].dim[1], rows = a->in[W].dim[0], piece = piece_of(a);
    (void)err;
    for (int64_t t = 0; t < n; t++)
        for (int64_t r = 0; r < rows; r++) {
            float p[STRIPES] = {0};
            for (int64_t i = 0; i * piece < k; i++) {
                int64_t at = a->in[WS].rank == 2 ? i / pieces_of_scale(a) : 0;
                float sum = eval_piece(x + t * k, w + r * setun_row_bytes(SETUN_T2, k), i * piece, piece, k);
                p[i % STRIPES] += sum * ws[r * scale_stride(&a->in[WS]) + at];
            }
            y[t * rows + r] = halve_stripes(p);
        }
    return SETUN_OK;
}

/* From so many tokens on a tile of 16 costs less than one after the other, with look-ups of 16 entries,
 * of 4 or without. */
static int64_t few_end(setun_kernel *k)
{
    int64_t entries = k_info(k, K_HAS_LUT32);
    return entries == 16 ? 11 : entries ? 8 : 5;
}

/* Tokens [t0, n), at most `most`. */
static void few_tokens(f32_kernel *c, k_val begin, k_val end, k_val t0, k_val n, int64_t most)
{
    setun_kernel *k = c->k;
    int at_once = k_info(k, K_N_REGISTERS) * k_info(k, K_VECTOR_BYTES) >= 2048 ? MAX_TOKENS : 2;
    if (k_info(k, K_HAS_LUT32)) {
        table_rows(c, begin, end, t0, n, most);
        return;
    }
    /* A unit's rows stay in the first-level cache while all tokens pass. */
    k_val first = k_for(k, begin, end, UNIT), last = k_min(k, k_addi(k, first, UNIT), end);
    column_rows(c, first, last, t0, n, most == 1 ? 1 : at_once);
    k_stop(k);
}

static setun_status lower(setun_kernel *k, const setun_args *a, setun_error *err)
{
    f32_kernel c = open_f32(k, a);
    (void)err;
    k_grid(k, W, 0, UNIT);
    k_val n = k_dim(k, X, 0), begin = k_muli(k, k_begin(k), UNIT), end = k_min(k, k_muli(k, k_end(k), UNIT), c.rows);
    k_val zero = k_i64(k, 0), few = k_i64(k, few_end(k));
    if (a->in[X].dim[0] == 1) {
        few_tokens(&c, begin, end, zero, n, 1);
        return SETUN_OK;
    }
    /* Tiles of tokens, and what is left behind them if that is few. */
    k_val left = k_and(k, n, k_i64(k, LANES - 1)), whole = k_select(k, k_lt(k, left, few), k_sub(k, n, left), n);
    k_if(k, k_lt(k, zero, whole));
    token_rows(&c, begin, end, whole, a->in[W].dim[0]);
    k_stop(k);
    k_if(k, k_lt(k, whole, n));
    few_tokens(&c, begin, end, whole, n, few_end(k) - 1);
    k_stop(k);
    return SETUN_OK;
}

/* Every other time an infinity in the first token and in the last, and in that a NaN: a weight 0 must not hide them. */
static void fill(const setun_args *a, uint64_t seed)
{
    float *x = a->in[X].data;
    int64_t n = setun_count(&a->in[X]), k = a->in[X].dim[1];
    if (seed % 2 || n == 0)
        return;
    x[(int64_t)(setun_mix(seed, 0) % (uint64_t)k)] = INFINITY;
    x[n - k + (int64_t)(setun_mix(seed, 1) % (uint64_t)k)] = -INFINITY;
    if (n > k)
        x[n - 1] = NAN;
}

static void cost(const setun_args *a, setun_cost *c)
{
    double n = setun_cost_count(&a->out[0]);
    setun_cost_map(a, 0, c);
    c->float_ops = n * ((double)a->in[W].dim[1] + (double)((a->in[W].dim[1] + piece_of(a) - 1) / piece_of(a)));
}

static const setun_port in[] = {
    {"x", "f32[n,k]: rows", 0, 0},
    {"w", "t2[r,k]: ternary weights, one row for each column of y", 0, 0},
    {"ws", "f32[1], f32[r] or f32[r,k/group rounded up]: scales of the weights, multiplied", 0, 0},
};
static const setun_port out[] = {{"y", "f32[n,r]", 0, 0}};
static const setun_attr attr[] = {GROUP_ATTR};

static const char *const cases[] = {
    "x:f32[1,1] w:t2[1,1] ws:f32[1]",
    "x:f32[1,129] w:t2[7,129] ws:f32[1]",
    "x:f32[1,1152] w:t2[17,1152] ws:f32[17]",
    "x:f32[n5,300] w:t2[7,300] ws:f32[1]",
    "x:f32[n3,7] w:t2[5,7] ws:f32[5]",
    "x:f32[1,1153] w:t2[5,1153] ws:f32[5,10] group=128",
    "x:f32[1,2048] w:t2[33,2048] ws:f32[33,16] group=128",
    "x:f32[1,129] w:t2[7,129] ws:f32[7,3] group=64",
    "x:f32[1,1100] w:t2[3,1100] ws:f32[3,18] group=64",
    "x:f32[1,300] w:t2[3,300] ws:f32[3,10] group=32",
    "x:f32[1,2500] w:t2[3,2500] ws:f32[3,10] group=256",
    "x:f32[n4,1290] w:t2[18,1290] ws:f32[18,11] group=128",
    "x:f32[n9,1500] w:t2[5,1500] ws:f32[5,3] group=512",
    "x:f32[m6,520] w:t2[9,520] ws:f32[9,9] group=64",
    "x:f32[3,256] w:t2[10,256] ws:f32[10,8] group=32",
    "x:f32[n17,1290] w:t2[50,1290] ws:f32[1]",
    "x:f32[n29,515] w:t2[1030,515] ws:f32[1030,17] group=32",
    "x:f32[1,30] w:t2[50,30] ws:f32[50,1] group=64",
    "x:f32[1,1419] w:t2[60,1419] ws:f32[60,45] group=32",
    "x:f32[1,700] w:t2[48,700] ws:f32[48]",
    "x:f32[n7,130] w:t2[67,130] ws:f32[67]",
    NULL,
};

SETUN_OP(ternary_matmul_f32) = {
    .size = sizeof(setun_op), .version = 1,
    .name = "ternary_matmul_f32",
    .doc = "y = x . (w * ws)^T: float activations and ternary weights, in striped sums.",
    .in = in, .out = out, .attr = attr, .n_in = SETUN_LEN(in), .n_out = SETUN_LEN(out), .n_attr = SETUN_LEN(attr),
    .infer = infer, .eval = eval, .lower = lower, .cost = cost, .fill = fill, .cases = cases,
};
