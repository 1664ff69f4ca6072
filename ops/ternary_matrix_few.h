/* ops/ternary_matrix_few.h -- the ternary kernel for 2 to 32 tokens on machines with matrix tiles.
 *
 * So few do not pay for a panel of decoded weights in the second-level cache, written and read once: here 32
 * rows by 128 columns are decoded at a time, into one of two buffers, while the tiles in the other are used.
 *
 *     decode  | block 1 -> B | block 2 -> A | block 3 -> B |  ...  | next rows, block 0
 *     dot     | block 0 in A | block 1 in B | block 2 in A |
 *
 * Activations are packed as 64 columns of all n tokens, then the next 64 of all: a tile of 16
 * tokens that begins there has, behind the last token, sums that nobody reads. */
#ifndef SETUN_OPS_TERNARY_MATRIX_FEW_H
#define SETUN_OPS_TERNARY_MATRIX_FEW_H

#include "ops/ternary_matrix.h"

#define BLOCK_DWORDS (4 * TILE_DWORDS)
#define PAGES 4 /* asked for side by side: see k_side_by_side */

typedef struct few_matrix {
    matrix  c;
    int64_t n_block;
    k_val   w, x, buffer, n; /* codes, packed activations, two blocks of tiles; tokens */
} few_matrix;

static void few_pack(const few_matrix *f)
{
    setun_kernel *k = f->c.k;
    k_val q = k_arg(k, Q, K_I8), t = k_for(k, k_i64(k, 0), f->n, 1), step = k_for(k, k_i64(k, 0), k_i64(k, 2 * f->n_block), 1);
    k_val v = k_load(k, q, k_add(k, k_muli(k, t, f->c.kp), k_muli(k, step, 64)), 64);
    k_store(k, f->x, k_muli(k, k_add(k, k_mul(k, step, f->n), t), 64), v);
    k_stop(k);
    k_stop(k);
}

/* Of a block, which is as many bytes as 16 lines, lines [from, to) come to have been asked for: hints for what lies
 * farther on in the order of memory, PAGES pages side by side.  When work on the next rows begins, all of their
 * lines are wanted at once, hence so far ahead: all of a unit's, and a group of pages that is not yet complete.
 * Hints in one burst would wait for each other, and memory for the next burst.
 * Units but the last begin at a multiple of 32 rows, hence blocks at one of 16 lines: line i goes to page i % PAGES. */
static void few_fetch(const few_matrix *f, k_val row, k_val block, int from, int to)
{
    setun_kernel *k = f->c.k;
    int64_t stride = f->c.kp / 4, group = PAGES * K_PAGE, ahead = (MATRIX_ROWS * stride + group - 1) / group + 1;
    k_val at = k_add(k, k_muli(k, row, stride), k_muli(k, block, BLOCK_DWORDS));
    k_val line = k_and(k, k_udiv(k, k_addi(k, at, ahead * group), k_i64(k, K_LINE)), k_i64(k, -16));
    k_val later = k_side_by_side(k, line, PAGES);
    for (int i = from; i < to; i++)
        k_prefetch(k, f->w, k_addi(k, later, i % PAGES * K_PAGE + i / PAGES * K_LINE), 2);
}

/* Sums of half p of one block of weights, and of the 16 of its 32 rows that are in tiles j. */
static void few_dot(const few_matrix *f, k_val row, k_val block, k_val from, int n_a, int p, int j)
{
    setun_kernel *k = f->c.k;
    k_val x = k_muli(k, k_mul(k, k_addi(k, k_muli(k, block, 2), p), f->n), 64);
    for (int i = 0; i < n_a && j == 0; i++)
        k_tile_load(k, 4 + i, f->x, k_addi(k, x, i * SIDE * 64), 64);
    k_tile_load(k, 6 + j, f->buffer, k_addi(k, from, (2 * p + j) * TILE_DWORDS), SIDE);
    for (int i = 0; i < n_a; i++)
        k_tile_dot(k, 2 * i + j, 4 + i, 6 + j);
    few_fetch(f, row, block, 8 + 4 * p + 2 * j, 10 + 4 * p + 2 * j);
}

/* A block of the 32 rows from `row` on, all of which exist, to buffer[to ...]; meanwhile, if n_a is not 0, sums of the block
 * of rows `old` that is in the other buffer.  Quarters of the one between quarters of the other: a core that meets all of
 * the one first has no room to look as far as the other. */
static void few_block_step(const few_matrix *f, k_val row, k_val block, k_val to, k_val old, k_val old_block, k_val from, int n_a)
{
    setun_kernel *k = f->c.k;
    int64_t stride = f->c.kp / 16;
    k_val at = k_add(k, k_muli(k, row, stride), k_muli(k, block, 8)), v[8];
    for (int half = 0; half < 2; half++) {
        for (int i = 0; i < 8; i++)
            v[i] = k_concat(k, k_load(k, f->w, k_addi(k, at, (SIDE * half + i) * stride), 8),
                            k_load(k, f->w, k_addi(k, at, (SIDE * half + i + 8) * stride), 8));
        few_fetch(f, row, block, 4 * half, 4 * half + 4);
        spread_dwords(k, v);
        for (int d = 0; d < 8; d++) {
            store_fields(k, v[d], d, f->buffer, k_addi(k, to, half * TILE_DWORDS));
            if (n_a && d % 4 == 3)
                few_dot(f, old, old_block, from, n_a, half, d / 4);
        }
    }
}

/* Results of the unit that begins at row r0, from the sums of rows `row` on: of the last ones, which may reach
 * back into the unit before, only what is its own. */
static void few_store(const few_matrix *f, k_val r0, k_val row)
{
    setun_kernel *k = f->c.k;
    k_if(k, k_eq(k, r0, row));
    matrix_put(&f->c, r0, k_i64(k, 0), MATRIX_ROWS);
    k_else(k);
    k_val r = k_for(k, k_sub(k, r0, row), k_i64(k, MATRIX_ROWS), 1);
    matrix_put(&f->c, row, r, 1);
    k_stop(k);
    k_stop(k);
}

static void few_units(const few_matrix *f, k_val begin, k_val end, k_val full, int n_a)
{
    setun_kernel *k = f->c.k;
    k_val zero = k_i64(k, 0), now = k_var(k, zero);
    few_block_step(f, k_min(k, k_muli(k, begin, MATRIX_ROWS), full), zero, zero, zero, zero, zero, 0);
    k_val u = k_for(k, begin, end, 1), r0 = k_muli(k, u, MATRIX_ROWS), row = k_min(k, r0, full);
    k_val next = k_min(k, k_addi(k, r0, MATRIX_ROWS), full);
    for (int i = 0; i < 2 * n_a; i++)
        k_tile_zero(k, i);
    k_val b = k_for(k, zero, k_i64(k, f->n_block), 1), from = k_get(k, now);
    k_val to = k_sub(k, k_i64(k, BLOCK_DWORDS), from), last = k_eq(k, b, k_i64(k, f->n_block - 1));
    few_block_step(f, k_select(k, last, next, row), k_select(k, last, zero, k_addi(k, b, 1)), to, row, b, from, n_a);
    k_set(k, now, to);
    k_stop(k);
    for (int i = 0; i < n_a; i++)
        for (int j = 0; j < 2; j++)
            k_tile_store(k, 2 * i + j, f->c.acc, k_i64(k, SIDE * (i * MATRIX_ROWS + j)), MATRIX_ROWS);
    few_store(f, r0, row);
    k_stop(k);
}

/* All rows, which are at least 32, and at most 32 tokens. */
static void matrix_few(setun_kernel *k, const setun_args *a)
{
    int64_t kp = a->in[Q].dim[1];
    k_val zero = k_i64(k, 0), n = k_dim(k, Q, 0);
    few_matrix f = {.c = {.k = k, .kp = kp, .to = open_sink(k, a), .t0 = zero, .valid = n}, .n_block = kp / 128, .n = n};
    f.w = k_arg(k, W, K_I32);
    f.x = k_scratch(k, K_I8, MATRIX_TOKENS * (kp + 64));
    f.buffer = k_local(k, K_I32, 2 * BLOCK_DWORDS);
    f.c.rows = k_dim_run(k, W, 0);
    f.c.acc = k_local(k, K_I32, MATRIX_TOKENS * MATRIX_ROWS);
    f.c.m = k_local(k, K_F32, TOKENS);
    f.c.bias = k_local(k, K_I32, TOKENS);
    token_scales(k, a, zero, n, f.c.m, zero);
    k_val t = k_for(k, zero, n, 1);
    k_store(k, f.c.bias, t, k_load(k, k_arg(k, SUM, K_I32), t, 1));
    k_stop(k);
    few_pack(&f);
    k_val full = k_addi(k, f.c.rows, -MATRIX_ROWS);
    k_if(k, k_le(k, n, k_i64(k, SIDE)));
    few_units(&f, k_begin(k), k_end(k), full, 1);
    k_else(k);
    few_units(&f, k_begin(k), k_end(k), full, 2);
    k_stop(k);
}

/* Any number of tokens, or as many as come. */
static void lower_many(setun_kernel *k, const setun_args *a)
{
    int64_t least = setun_knob_value(a, MANY);
    if (least < 1 && k_info(k, K_HAS_TILES)) {
        k_val n = k_dim(k, Q, 0), rows = k_le(k, k_i64(k, MATRIX_ROWS), k_dim_run(k, W, 0));
        k_val few = k_and(k, k_lt(k, k_i64(k, 1), n), k_le(k, n, k_i64(k, MATRIX_TOKENS)));
        k_if(k, k_and(k, rows, few));
        matrix_few(k, a);
        k_else(k);
        lower_matrix(k, a);
        k_stop(k);
    } else if (least < 2 && k_info(k, K_HAS_DOT4) && k_info(k, K_VECTOR_BYTES) >= 64 && k_info(k, K_N_REGISTERS) >= 32) {
        lower_tile(k, a);
    } else {
        lower_lut(k, a);
    }
}

#endif
