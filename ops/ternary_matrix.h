/* ops/ternary_matrix.h -- the fifth ternary kernel: many tokens on machines with matrix tiles.
 *
 * Sums are those of ops/ternary_kernels.h.  One tile instruction multiplies 16 tokens with 16 rows
 * over 64 columns:
 *
 *     a, 16 tokens x 64 columns of q, as they lie in memory           c[token][row] += a . b
 *     b, 64 columns x 16 rows of codes, four columns of a row in a dword:
 *
 *          row of b     dword 0            dword 1            ...   dword 15
 *             i      | w0[4i .. 4i + 3] | w1[4i .. 4i + 3] |  ...  | w15[4i .. 4i + 3] |
 *
 * A block of 128 columns is 8 dwords of packed codes in every weight row, and dword d holds, at bits
 * 2f of its bytes, the columns 32 f + 4 d ... + 3.  So once the dwords d of 16 rows stand side by side
 * (an 8 x 8 transpose, twice), each shift by 2f and mask gives row 8 (f mod 2) + d of b, for the
 * columns from 64 (f / 2) on.  No activation moves at all.
 *
 * Codes are 0, 1, 2: sums are corrected by the sum of q, as elsewhere.  Rows of weights are decoded a
 * panel at a time, which stays in the second-level cache while all tokens pass. */
#ifndef SETUN_OPS_TERNARY_MATRIX_H
#define SETUN_OPS_TERNARY_MATRIX_H

#include "ops/ternary_kernels.h"

#define SIDE 16         /* tokens and rows of a tile */
#define MATRIX_ROWS 32  /* two tiles of rows meet */
#define MATRIX_TOKENS 32 /* two tiles of tokens, in four tiles of sums */
#define TILE_DWORDS 256

/* The dwords of 16 rows, dwords i of rows r and r + 8 in the halves of v[i]'s rows: v[d] becomes the dwords d of
 * all rows. */
static void spread_dwords(setun_kernel *k, k_val v[8])
{
    static const int32_t lo[16] = {0, 16, 1, 17, 2, 18, 3, 19, 8, 24, 9, 25, 10, 26, 11, 27};
    static const int32_t hi[16] = {4, 20, 5, 21, 6, 22, 7, 23, 12, 28, 13, 29, 14, 30, 15, 31};
    k_val t[8];
    for (int round = 0; round < 3; round++) { /* perfect shuffles inside both halves */
        for (int i = 0; i < 4; i++) {
            t[2 * i] = k_shuffle(k, v[i], v[i + 4], lo, 16);
            t[2 * i + 1] = k_shuffle(k, v[i], v[i + 4], hi, 16);
        }
        for (int i = 0; i < 8; i++)
            v[i] = t[i];
    }
}

/* The four fields of dwords d to rows of four tiles, of which those for other columns lie 2 TILE_DWORDS apart. */
static void store_fields(setun_kernel *k, k_val v, int64_t d, k_val panel, k_val to)
{
    k_val three = k_int(k, K_TYPE(K_I32, 16), 0x03030303);
    for (int f = 0; f < 4; f++) {
        int64_t at = f / 2 * 2 * TILE_DWORDS + (8 * (f % 2) + d) * SIDE;
        k_store(k, panel, k_addi(k, to, at), k_and(k, f ? k_shru(k, v, 2 * f) : v, three));
    }
}

/* Sixteen rows from r0 on (past `last` that one again), as tiles: panel[base + 512 c ...] for the
 * columns from 64 c on. */
static void decode_tiles(setun_kernel *k, k_val w, k_val panel, k_val base, int64_t kp, k_val r0, k_val last)
{
    k_val off[SIDE], v[8];
    for (int i = 0; i < SIDE; i++)
        off[i] = k_muli(k, k_min(k, k_addi(k, r0, i), last), kp / 16);
    k_val b = k_for(k, k_i64(k, 0), k_i64(k, kp / 16), 8);
    /* Sixteen rows are more streams than hardware prefetchers follow: fetch the next sixteen. */
    for (int i = 0; i < SIDE; i++)
        k_prefetch(k, w, k_addi(k, k_shl(k, k_add(k, off[i], b), 2), SIDE * kp / 4), 3);
    for (int i = 0; i < 8; i++)
        v[i] = k_concat(k, k_load(k, w, k_add(k, off[i], b), 8), k_load(k, w, k_add(k, off[i + 8], b), 8));
    spread_dwords(k, v);
    for (int d = 0; d < 8; d++) /* 8 dwords are two pairs of tiles */
        store_fields(k, v[d], d, panel, k_add(k, base, k_muli(k, b, 2 * 2 * TILE_DWORDS / 8)));
    k_stop(k);
}

typedef struct matrix {
    setun_kernel *k;
    sink    to;
    int64_t kp;
    k_val   panel, acc, m, bias; /* memory: decoded rows, sums, and per token ws / scale and sum of q */
    k_val   u0, u1;              /* units in the panel */
    k_val   rows, t0, valid;     /* of the weight; first token, and how many of 32 exist */
} matrix;

/* Results of `width` of the 32 rows, from row r of them on. */
static void matrix_put(const matrix *c, k_val r0, k_val r, uint32_t width)
{
    setun_kernel *k = c->k;
    k_val t = k_for(k, k_i64(k, 0), c->valid, 1), from = k_add(k, k_muli(k, t, MATRIX_ROWS), r);
    k_val m = k_splat(k, k_load(k, c->m, t, 1), width), bias = k_splat(k, k_load(k, c->bias, t, 1), width);
    k_val s = k_sub(k, k_load(k, c->acc, from, width), bias);
    put(k, &c->to, k_mul(k, k_add(k, c->t0, t), c->rows), k_add(k, r0, r), k_mul(k, k_i2f(k, s), m));
    k_stop(k);
}

/* Results of the 32 rows from r0 on, as far as they exist. */
static void matrix_store(const matrix *c, k_val r0)
{
    setun_kernel *k = c->k;
    k_if(k, k_le(k, k_addi(k, r0, MATRIX_ROWS), c->rows));
    matrix_put(c, r0, k_i64(k, 0), MATRIX_ROWS);
    k_else(k);
    k_val r = k_for(k, k_i64(k, 0), k_sub(k, c->rows, r0), 1);
    matrix_put(c, r0, r, 1);
    k_stop(k);
    k_stop(k);
}

/* All rows of the panel meet n_a tiles of tokens, whose activations begin at x[at]. */
static void matrix_block(const matrix *c, k_val x, k_val at, int n_a)
{
    setun_kernel *k = c->k;
    k_val u = k_for(k, c->u0, c->u1, 1);
    k_val panel = k_muli(k, k_sub(k, u, c->u0), MATRIX_ROWS * c->kp / 4);
    for (int i = 0; i < 2 * n_a; i++)
        k_tile_zero(k, i);
    k_val step = k_for(k, k_i64(k, 0), k_i64(k, c->kp / 64), 1);
    k_val from = k_add(k, panel, k_muli(k, step, 2 * TILE_DWORDS)), column = k_add(k, at, k_muli(k, step, 64));
    for (int i = 0; i < n_a; i++)
        k_tile_load(k, 4 + i, x, k_addi(k, column, i * SIDE * c->kp), c->kp);
    for (int j = 0; j < 2; j++) {
        k_tile_load(k, 6 + j, c->panel, k_addi(k, from, j * TILE_DWORDS), SIDE);
        for (int i = 0; i < n_a; i++)
            k_tile_dot(k, 2 * i + j, 4 + i, 6 + j);
    }
    k_stop(k);
    for (int i = 0; i < n_a; i++)
        for (int j = 0; j < 2; j++)
            k_tile_store(k, 2 * i + j, c->acc, k_i64(k, SIDE * (i * MATRIX_ROWS + j)), MATRIX_ROWS);
    matrix_store(c, k_muli(k, u, MATRIX_ROWS));
    k_stop(k);
}

/* The last tokens, fewer than 32: their rows are copied, and the last one repeated. */
static void matrix_rest(const matrix *c, k_val q, k_val pad)
{
    setun_kernel *k = c->k;
    k_val zero = k_i64(k, 0), t = k_for(k, zero, k_i64(k, MATRIX_TOKENS), 1);
    k_val from = k_muli(k, k_add(k, c->t0, k_min(k, t, k_addi(k, c->valid, -1))), c->kp);
    k_val i = k_for(k, zero, k_i64(k, c->kp), 128);
    k_store(k, pad, k_add(k, k_muli(k, t, c->kp), i), k_load(k, q, k_add(k, from, i), 128));
    k_stop(k);
    k_stop(k);
    k_if(k, k_le(k, c->valid, k_i64(k, SIDE)));
    matrix_block(c, pad, zero, 1);
    k_else(k);
    matrix_block(c, pad, zero, 2);
    k_stop(k);
}

static void lower_matrix(setun_kernel *k, const setun_args *a)
{
    int64_t kp = a->in[Q].dim[1], unit = MATRIX_ROWS * kp, most = k_info(k, K_L2_BYTES) / 3 / unit;
    int64_t units = (a->in[W].dim[0] + MATRIX_ROWS - 1) / MATRIX_ROWS;
    most = most > units ? units : most < 1 ? 1 : most;
    matrix c = {.k = k, .kp = kp};
    k_val zero = k_i64(k, 0), n = k_dim(k, Q, 0), q = k_arg(k, Q, K_I8), w = k_arg(k, W, K_I32);
    k_grid(k, W, 0, MATRIX_ROWS);
    c.rows = k_dim_run(k, W, 0);
    c.to = open_sink(k, a);
    c.panel = k_scratch(k, K_I32, most * unit);
    k_val pad = k_scratch(k, K_I8, MATRIX_TOKENS * kp), end = k_end(k), last = k_addi(k, c.rows, -1);
    c.acc = k_local(k, K_I32, MATRIX_TOKENS * MATRIX_ROWS);
    c.m = k_local(k, K_F32, TOKENS);
    c.bias = k_local(k, K_I32, TOKENS);

    k_if(k, k_lt(k, n, k_i64(k, FEW)));
    few_tokens(k, a, k_muli(k, k_begin(k), MATRIX_ROWS), k_min(k, k_muli(k, end, MATRIX_ROWS), c.rows), c.rows, n);
    k_else(k);
    c.u0 = k_for(k, k_begin(k), end, most);
    c.u1 = k_min(k, k_addi(k, c.u0, most), end);
    k_val u = k_for(k, c.u0, c.u1, 1), base = k_muli(k, k_sub(k, u, c.u0), unit / 4);
    for (int half = 0; half < 2; half++)
        decode_tiles(k, w, c.panel, k_addi(k, base, half * TILE_DWORDS), kp,
                     k_addi(k, k_muli(k, u, MATRIX_ROWS), half * SIDE), last);
    k_stop(k);
    c.t0 = k_for(k, zero, n, MATRIX_TOKENS);
    c.valid = k_min(k, k_i64(k, MATRIX_TOKENS), k_sub(k, n, c.t0));
    token_scales(k, a, c.t0, n, c.m, zero);
    k_val t = k_for(k, zero, c.valid, 1);
    k_store(k, c.bias, t, k_load(k, k_arg(k, SUM, K_I32), k_add(k, c.t0, t), 1));
    k_stop(k);
    k_if(k, k_eq(k, c.valid, k_i64(k, MATRIX_TOKENS)));
    matrix_block(&c, q, k_muli(k, c.t0, kp), 2);
    k_else(k);
    matrix_rest(&c, q, pad);
    k_stop(k);
    k_stop(k); /* t0 */
    k_stop(k); /* u0 */
    k_stop(k); /* if few */
}

#endif
