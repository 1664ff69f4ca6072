/* ops/ternary_f32.h -- what the kernels of ternary_matmul_f32 share, and the plainest of them: columns in
 * the lanes, eight pieces at a time, whose sums are halved together.  Weights are made floats, which several
 * tokens share.  It needs nothing of the machine, takes any number of rows, and is what is left where the
 * others do not fit. */
#ifndef SETUN_OPS_TERNARY_F32_H
#define SETUN_OPS_TERNARY_F32_H

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

typedef struct f32_kernel {
    setun_kernel *k;
    k_val   x, w, ws, y, rows;
    int64_t columns, row_bytes, n_block, piece, n_piece, stride, per_scale;
    int     has_groups;
} f32_kernel;

static f32_kernel open_f32(setun_kernel *k, const setun_args *a)
{
    f32_kernel c = {.k = k, .columns = a->in[W].dim[1], .piece = piece_of(a), .stride = scale_stride(&a->in[WS]),
                    .per_scale = pieces_of_scale(a), .has_groups = a->attr[0].i > 0};
    c.row_bytes = setun_row_bytes(SETUN_T2, c.columns);
    c.n_block = c.row_bytes / SETUN_T2_BLOCK_BYTES;
    c.n_piece = (c.columns + c.piece - 1) / c.piece;
    c.x = k_arg(k, X, K_F32);
    c.w = k_arg(k, W, K_I8);
    c.ws = k_arg(k, WS, K_F32);
    c.y = k_arg(k, Y, K_F32);
    c.rows = k_dim_run(k, W, 0);
    return c;
}

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

/* Rows [first, last) and tokens [t0, n): at_once of them share the weights, then one by one. */
static void column_rows(const f32_kernel *c, k_val first, k_val last, k_val t0, k_val n, int at_once)
{
    setun_kernel *k = c->k;
    k_val whole = at_once > 1 ? k_add(k, t0, k_and(k, k_sub(k, n, t0), k_i64(k, -at_once))) : t0;
    for (int n_token = at_once; n_token > 0; n_token = n_token > 1 ? 1 : 0) {
        k_val t = n_token > 1 ? k_for(k, t0, whole, n_token) : k_for(k, whole, n, 1), r = k_for(k, first, last, 1);
        row_of(c, r, t, n_token);
        k_stop(k);
        k_stop(k);
    }
}

#endif
