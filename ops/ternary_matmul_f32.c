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
 * One kernel: columns in the lanes, eight pieces at a time, whose sums are halved together.  Several tokens
 * share the weights once they are floats. */
#include "ops/ternary_scales.h"
#include "ops/ternary_sums.h"

enum { X, W, WS, Y };

#define UNIT 16 /* rows of w in a unit of work */
#define MAX_TOKENS 4
#define PREFETCH_BYTES 4096

/* Columns of a piece. */
static int64_t piece_of(const setun_args *a)
{
    int64_t group = a->attr[0].i;
    return group == 32 || group == 64 ? group : SETUN_T2_BLOCK;
}

/* Pieces of a row that share a scale, if the row has several. */
static int64_t pieces_of_scale(const setun_args *a)
{
    return a->attr[0].i > SETUN_T2_BLOCK ? a->attr[0].i / SETUN_T2_BLOCK : 1;
}

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

/* ---------------------------------------------------------------- kernel */

typedef struct f32_kernel {
    setun_kernel *k;
    k_val   x, w, ws, y, rows;
    int64_t columns, row_bytes, piece, n_piece, stride, per_scale;
    int     has_groups;
} f32_kernel;

/* The weights of field f of a block as f32 -1, 0, 1. */
static k_val weights_of(setun_kernel *k, k_val bytes, int f)
{
    k_val v = k_cast(k, bytes, K_TYPE(K_I16, 16));
    v = k_and(k, k_cast(k, f ? k_shru(k, v, 2 * f) : v, K_TYPE(K_I8, 32)), k_int(k, K_TYPE(K_I8, 32), 3));
    return k_i2f(k, k_sext(k, k_sub(k, v, k_int(k, K_TYPE(K_I8, 32), 1)), K_I32));
}

/* Sums of piece i of those that begin at `block`, for n tokens whose rows begin at x[at[t]]: 16 lanes, halved
 * once.  From the block on x has `left` columns. */
static void piece_sums(const f32_kernel *c, k_val row, k_val block, int64_t i, int64_t left, const k_val *at, int n, k_val *out)
{
    setun_kernel *k = c->k;
    int64_t per = SETUN_T2_BLOCK / c->piece, in_block = i % per * c->piece / 32, n_field = c->piece / 32;
    k_val b = k_addi(k, block, i / per), bytes = k_load(k, c->w, k_add(k, row, k_muli(k, b, 32)), 32), w[4];
    for (int f = 0; f < n_field; f++)
        w[f] = weights_of(k, bytes, (int)in_block + f);
    for (int t = 0; t < n; t++) {
        k_val v[4];
        for (int64_t f = 0; f < n_field; f++) {
            int64_t column = 128 * (i / per) + 32 * (in_block + f);
            k_val from = k_addi(k, k_add(k, at[t], k_muli(k, block, 128)), column);
            v[f] = k_mul(k, w[f], k_load_pad(k, c->x, from, left - column, 32, 0));
        }
        k_val p = n_field == 1 ? v[0] : k_add(k, v[0], v[1]);
        if (n_field == 4)
            p = k_add(k, p, k_add(k, v[2], v[3]));
        out[t] = k_add(k, k_slice(k, p, 0, 16), k_slice(k, p, 16, 16));
    }
}

/* The scales of n pieces from piece p on of row r, as STRIPES lanes, 0 behind them. */
static k_val piece_scales(const f32_kernel *c, k_val r, k_val p, int64_t n)
{
    setun_kernel *k = c->k;
    k_val at = k_muli(k, r, c->stride);
    if (!c->has_groups)
        return k_splat(k, k_load(k, c->ws, at, 1), STRIPES);
    if (c->per_scale == 1)
        return k_load_pad(k, c->ws, k_add(k, at, p), n, STRIPES, 0);
    k_val s = k_f32v(k, 0.0f, STRIPES), lane = k_iota(k, K_TYPE(K_I32, STRIPES), 0);
    for (int64_t i = 0; i < n; i++) {
        k_val one = k_load(k, c->ws, k_add(k, at, k_udiv(k, k_addi(k, p, i), k_i64(k, c->per_scale))), 1);
        s = k_select(k, k_eq(k, lane, k_int(k, K_TYPE(K_I32, STRIPES), i)), k_splat(k, one, STRIPES), s);
    }
    return s;
}

/* Adds n <= 8 pieces of row r from piece p on to the stripes of n_token tokens. */
static void add_pieces(const f32_kernel *c, k_val r, k_val p, int64_t n, int64_t left, const k_val *at, int n_token, k_val *stripes)
{
    setun_kernel *k = c->k;
    int64_t blocks = STRIPES * c->piece / SETUN_T2_BLOCK;
    k_val row = k_muli(k, r, c->row_bytes), block = k_muli(k, k_shru(k, p, 3), blocks), v[MAX_TOKENS][STRIPES], one[MAX_TOKENS];
    for (int64_t i = 0; i < n; i++) {
        piece_sums(c, row, block, i, left, at, n_token, one);
        for (int t = 0; t < n_token; t++)
            v[t][i] = one[t];
    }
    for (int64_t b = 0; b < blocks; b += 2)
        k_prefetch(k, c->w, k_addi(k, k_add(k, row, k_muli(k, block, 32)), 32 * b + PREFETCH_BYTES), 3);
    k_val scale = piece_scales(c, r, p, n);
    for (int t = 0; t < n_token; t++) {
        for (int64_t i = n; i < STRIPES; i++)
            v[t][i] = k_f32v(k, 0.0f, 16);
        k_val s = k_mul(k, sum_lanes(k, v[t], STRIPES), scale);
        k_set(k, stripes[t], k_add(k, k_get(k, stripes[t]), s));
    }
}

static void row_of(const f32_kernel *c, k_val r, k_val t0, int n_token)
{
    setun_kernel *k = c->k;
    int64_t whole = c->columns / (STRIPES * c->piece) * STRIPES, left = c->columns - whole * c->piece;
    k_val stripes[MAX_TOKENS], at[MAX_TOKENS];
    for (int t = 0; t < n_token; t++) {
        stripes[t] = k_var(k, k_f32v(k, 0.0f, STRIPES));
        at[t] = k_muli(k, k_addi(k, t0, t), c->columns);
    }
    if (whole) {
        k_val p = k_for(k, k_i64(k, 0), k_i64(k, whole), STRIPES);
        add_pieces(c, r, p, STRIPES, STRIPES * c->piece, at, n_token, stripes);
        k_stop(k);
    }
    if (left)
        add_pieces(c, r, k_i64(k, whole), c->n_piece - whole, left, at, n_token, stripes);
    for (int t = 0; t < n_token; t++)
        k_store(k, c->y, k_add(k, k_mul(k, k_addi(k, t0, t), c->rows), r), k_rsum(k, k_get(k, stripes[t])));
}

static setun_status lower(setun_kernel *k, const setun_args *a, setun_error *err)
{
    f32_kernel c = {.k = k, .columns = a->in[W].dim[1], .piece = piece_of(a), .stride = scale_stride(&a->in[WS]),
                    .per_scale = pieces_of_scale(a), .has_groups = a->attr[0].i > 0};
    int at_once = k_info(k, K_N_REGISTERS) * k_info(k, K_VECTOR_BYTES) >= 2048 ? MAX_TOKENS : 2;
    (void)err;
    k_grid(k, W, 0, UNIT);
    c.row_bytes = setun_row_bytes(SETUN_T2, c.columns);
    c.n_piece = (c.columns + c.piece - 1) / c.piece;
    c.x = k_arg(k, X, K_F32);
    c.w = k_arg(k, W, K_I8);
    c.ws = k_arg(k, WS, K_F32);
    c.y = k_arg(k, Y, K_F32);
    c.rows = k_dim_run(k, W, 0);
    k_val n = k_dim(k, X, 0), u = k_for(k, k_begin(k), k_end(k), 1), done = k_i64(k, 0);
    k_val first = k_muli(k, u, UNIT), last = k_min(k, k_addi(k, first, UNIT), c.rows);
    if (a->in[X].dim[0] != 1) { /* the rows of a unit stay in the first-level cache while all tokens pass */
        k_val whole = k_and(k, n, k_i64(k, -at_once)), t = k_for(k, done, whole, at_once), r = k_for(k, first, last, 1);
        row_of(&c, r, t, at_once);
        k_stop(k);
        k_stop(k);
        done = whole;
    }
    k_val t = k_for(k, done, n, 1), r = k_for(k, first, last, 1);
    row_of(&c, r, t, 1);
    k_stop(k);
    k_stop(k);
    k_stop(k);
    return SETUN_OK;
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
    NULL,
};

SETUN_OP(ternary_matmul_f32) = {
    .size = sizeof(setun_op), .version = 1,
    .name = "ternary_matmul_f32",
    .doc = "y = x . (w * ws)^T: float activations and ternary weights, in striped sums.",
    .in = in, .out = out, .attr = attr, .n_in = SETUN_LEN(in), .n_out = SETUN_LEN(out), .n_attr = SETUN_LEN(attr),
    .infer = infer, .eval = eval, .lower = lower, .cost = cost, .cases = cases,
};
