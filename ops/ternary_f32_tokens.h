/* ops/ternary_f32_tokens.h -- ternary_matmul_f32 for many tokens, on every machine: tokens in the lanes, and again
 * no weight is multiplied ("four Russians").
 *
 * Byte j of a block holds four weights of a row, so p(j) of a token is one of 81 numbers.  For 16 tokens at a time
 * a table of all of them is made for some bytes, and then all rows pass, whose bytes are the index:
 *
 *     tables of 8 bytes   [ i ][ slot: the byte, 171 of which 81 are used ][ 16 tokens ]     41 KB are touched
 *     rows                sum of 8 lines = a part of the tree that makes P_i from p(0) .. p(31)
 *
 * A load and an addition of 16 lanes do 64 multiply-adds; two scalar instructions make the byte an address.  The 8 bytes
 * are a subtree of the tree: leaves that are neighbours there.  What three of a row's four subtrees add up to waits in memory
 * for the last one.  Pieces of 32 or 64 columns take one or two fields of each byte, and their tables have 3 or 9 entries. */
#ifndef SETUN_OPS_TERNARY_F32_TOKENS_H
#define SETUN_OPS_TERNARY_F32_TOKENS_H

#include "ops/ternary_f32_rows.h"

#define LANES 16      /* tokens at a time */
#define SLOTS 171     /* of a table: the largest byte is 2 + 8 + 32 + 128 */
#define MAX_ROWS 1024 /* that pass at once: bounds the scratch memory, and what waits in it */

typedef struct token_kernel {
    f32_kernel *c;
    k_val   codes, xt, table, wait, stripes;
    int64_t cap, at_once, n_part; /* rows of a pass; bytes of a part of the tree; parts of a block */
    int     n_field;
} token_kernel;

/* codes[block][part][row]: the bytes of a part, in the order of the leaves, as an integer. */
static void repack_codes(const token_kernel *t, k_val r0, k_val count)
{
    setun_kernel *k = t->c->k;
    int32_t order[32];
    for (int q = 0; q < 32; q++)
        order[q] = byte_of_leaf(q);
    k_val r = k_for(k, k_i64(k, 0), count, 1), from = k_muli(k, k_add(k, r0, r), t->c->row_bytes);
    k_val b = k_for(k, k_i64(k, 0), k_i64(k, t->c->n_block), 1);
    k_val v = k_load(k, t->c->w, k_add(k, from, k_muli(k, b, 32)), 32);
    v = k_cast(k, k_shuffle(k, v, v, order, 32), K_TYPE(t->at_once == 8 ? K_I64 : K_I32, (uint32_t)t->n_part));
    for (int64_t i = 0; i < t->n_part; i++) {
        k_val at = k_muli(k, k_addi(k, k_muli(k, b, t->n_part), i), t->cap);
        k_store(k, t->codes, k_add(k, at, r), k_extract(k, v, i));
    }
    k_stop(k);
    k_stop(k);
}

/* xt[column][token] of 16 tokens from t0 on; tokens past the last repeat it, columns past the last are 0. */
static void transpose_tokens(const token_kernel *t, k_val t0, k_val n)
{
    setun_kernel *k = t->c->k;
    int64_t columns = t->c->columns, whole = columns / 4 * 4, padded = t->c->n_block * SETUN_T2_BLOCK;
    k_val off[LANES], v[4], last = k_addi(k, n, -1);
    for (int i = 0; i < LANES; i++)
        off[i] = k_muli(k, k_min(k, k_addi(k, t0, i), last), columns);
    k_val c = k_for(k, k_i64(k, 0), k_i64(k, whole), 4);
    for (int i = 0; i < 4; i++) {
        k_val part[4];
        for (int p = 0; p < 4; p++)
            part[p] = k_load(k, t->c->x, k_add(k, off[4 * p + i], c), 4);
        v[i] = k_concat(k, k_concat(k, part[0], part[1]), k_concat(k, part[2], part[3]));
    }
    transpose_quads(k, v);
    for (int i = 0; i < 4; i++)
        k_store(k, t->xt, k_muli(k, k_addi(k, c, i), LANES), v[i]);
    k_stop(k);
    for (int64_t i = whole; i < columns; i++)
        for (int p = 0; p < LANES; p++)
            k_store(k, t->xt, k_i64(k, i * LANES + p), k_load(k, t->c->x, k_addi(k, off[p], i), 1));
    c = k_for(k, k_i64(k, columns), k_i64(k, padded), 1);
    k_store(k, t->xt, k_muli(k, c, LANES), k_f32v(k, 0.0f, LANES));
    k_stop(k);
}

/* The sums of n fields of a byte, from field f0 on, whose first column is `column`.  Slot: their codes. */
static void sums_of_fields(const token_kernel *t, k_val column, int f0, int n, k_val *out)
{
    setun_kernel *k = t->c->k;
    if (n == 1) {
        k_val x = k_load(k, t->xt, k_muli(k, k_addi(k, column, 32 * f0), LANES), LANES);
        out[0] = k_neg(k, x);
        out[1] = k_mul(k, x, k_f32v(k, 0.0f, LANES)); /* what is no number stays none */
        out[2] = x;
        return;
    }
    k_val low[9], high[9];
    int half = n == 2 ? 3 : 9;
    sums_of_fields(t, column, f0, n / 2, low);
    sums_of_fields(t, column, f0 + n / 2, n / 2, high);
    for (int h = 0; h < half; h++)
        for (int l = 0; l < half; l++)
            out[h * half + l] = k_add(k, low[l], high[h]);
}

/* Tables of the bytes of a part of block b. */
static void part_tables(const token_kernel *t, k_val b, k_val part, int f0)
{
    setun_kernel *k = t->c->k;
    k_val sum[81], i = k_for(k, k_i64(k, 0), k_i64(k, t->at_once), 1), base = k_muli(k, i, SLOTS * LANES);
    k_val j = byte_at_leaf(k, k_add(k, k_muli(k, part, t->at_once), i));
    sums_of_fields(t, k_add(k, k_muli(k, b, SETUN_T2_BLOCK), j), f0, t->n_field, sum);
    int n = t->n_field == 4 ? 81 : t->n_field == 2 ? 9 : 3;
    for (int s = 0; s < n; s++) {
        int slot = s % 3 | s / 3 % 3 << 2 | s / 9 % 3 << 4 | s / 27 << 6;
        k_store(k, t->table, k_addi(k, base, slot * LANES), sum[s]);
    }
    k_stop(k);
}

/* The sum of leaves [q, q + n) of a part with these codes. */
static k_val look_up_codes(const token_kernel *t, k_val code, int f0, int q, int n)
{
    setun_kernel *k = t->c->k;
    if (n > 1)
        return k_add(k, look_up_codes(t, code, f0, q, n / 2), look_up_codes(t, code, f0, q + n / 2, n / 2));
    int shift = 8 * q + 2 * f0 - 4; /* to the slot times 16, that is LANES */
    k_val at = shift < 0 ? k_shl(k, code, -shift) : shift ? k_shru(k, code, shift) : code;
    at = k_and(k, at, k_i64(k, ((1 << 2 * t->n_field) - 1) * LANES));
    return k_load(k, t->table, k_addi(k, at, q * SLOTS * LANES), LANES);
}

/* The sum of parts [first, first + n) of row r, of which the last one is `own` and the others wait. */
static k_val join_parts(const token_kernel *t, k_val at, k_val own, int64_t first, int64_t n)
{
    setun_kernel *k = t->c->k;
    if (n > 1)
        return k_add(k, join_parts(t, at, own, first, n / 2), join_parts(t, at, own, first + n / 2, n / 2));
    return first + 1 == t->n_part ? own : k_load(k, t->wait, k_addi(k, at, first * t->cap * LANES), LANES);
}

/* One part of block b for all rows, which waits for the last one. */
static void pass_part(const token_kernel *t, k_val r0, k_val count, k_val b, k_val part, int f0, int last)
{
    setun_kernel *k = t->c->k;
    k_val r = k_for(k, k_i64(k, 0), count, 1), at = k_muli(k, r, LANES);
    k_val code = k_load(k, t->codes, k_add(k, k_muli(k, k_add(k, k_muli(k, b, t->n_part), part), t->cap), r), 1);
    k_val sum = look_up_codes(t, t->at_once == 8 ? code : k_zext(k, code, K_I64), f0, 0, (int)t->at_once);
    if (!last) {
        k_store(k, t->wait, k_add(k, at, k_muli(k, part, t->cap * LANES)), sum);
    } else {
        k_val piece = k_addi(k, k_muli(k, b, 4 / t->n_field), f0 / t->n_field);
        k_val s = t->c->has_groups ? k_udiv(k, piece, k_i64(k, t->c->per_scale)) : k_i64(k, 0);
        k_val scale = k_load(k, t->c->ws, k_add(k, k_muli(k, k_add(k, r0, r), t->c->stride), s), 1);
        k_val to = k_add(k, at, k_muli(k, k_and(k, piece, k_i64(k, STRIPES - 1)), t->cap * LANES));
        k_val term = k_mul(k, join_parts(t, at, sum, 0, t->n_part), k_splat(k, scale, LANES));
        k_store(k, t->stripes, to, k_add(k, k_load(k, t->stripes, to, LANES), term));
    }
    k_stop(k);
}

/* y of 16 tokens from t0 on and the rows that passed. */
static void store_rows(const token_kernel *t, k_val r0, k_val count, k_val t0, k_val n)
{
    setun_kernel *k = t->c->k;
    k_val zero = k_i64(k, 0), one = k_local(k, K_F32, LANES), s[STRIPES];
    k_val valid = k_min(k, k_i64(k, LANES), k_sub(k, n, t0)), r = k_for(k, zero, count, 1);
    for (int i = 0; i < STRIPES; i++)
        s[i] = k_load(k, t->stripes, k_addi(k, k_muli(k, r, LANES), i * t->cap * LANES), LANES);
    for (int half = STRIPES / 2; half; half /= 2)
        for (int i = 0; i < half; i++)
            s[i] = k_add(k, s[i], s[i + half]);
    k_store(k, one, zero, s[0]);
    k_val i = k_for(k, zero, valid, 1), to = k_add(k, k_mul(k, k_add(k, t0, i), t->c->rows), k_add(k, r0, r));
    k_store(k, t->c->y, to, k_load(k, one, i, 1));
    k_stop(k);
    k_stop(k);
}

/* Rows [begin, end), of max_rows that the matrix has, and tokens [0, n). */
static void token_rows(f32_kernel *c, k_val begin, k_val end, k_val n, int64_t max_rows)
{
    setun_kernel *k = c->k;
    token_kernel t = {.c = c, .cap = max_rows < MAX_ROWS ? max_rows : MAX_ROWS, .n_field = (int)(c->piece / 32)};
    /* Eight tables touch 8 * 81 * 64 = 41 KB; a smaller first-level cache takes four. */
    t.at_once = k_info(k, K_L1_BYTES) >= 48 * 1024 ? 8 : 4;
    t.n_part = 32 / t.at_once;
    t.codes = k_scratch(k, t.at_once == 8 ? K_I64 : K_I32, c->n_block * 32 * t.cap);
    t.xt = k_scratch(k, K_F32, c->n_block * SETUN_T2_BLOCK * LANES * 4);
    t.stripes = k_scratch(k, K_F32, STRIPES * t.cap * LANES * 4);
    t.wait = k_scratch(k, K_F32, (t.n_part - 1) * t.cap * LANES * 4);
    t.table = k_local(k, K_F32, t.at_once * SLOTS * LANES);
    k_val zero = k_i64(k, 0), r0 = k_for(k, begin, end, t.cap), count = k_sub(k, k_min(k, k_addi(k, r0, t.cap), end), r0);
    repack_codes(&t, r0, count);
    k_val t0 = k_for(k, zero, n, LANES);
    transpose_tokens(&t, t0, n);
    k_val i = k_for(k, zero, k_i64(k, STRIPES * t.cap), 1);
    k_store(k, t.stripes, k_muli(k, i, LANES), k_f32v(k, 0.0f, LANES));
    k_stop(k);
    k_val b = k_for(k, zero, k_i64(k, c->n_block), 1);
    for (int f0 = 0; f0 < 4; f0 += t.n_field) {
        k_if(k, k_lt(k, k_addi(k, k_muli(k, b, 4 / t.n_field), f0 / t.n_field), k_i64(k, c->n_piece)));
        k_val part = k_for(k, zero, k_i64(k, t.n_part), 1);
        part_tables(&t, b, part, f0);
        k_if(k, k_lt(k, part, k_i64(k, t.n_part - 1)));
        pass_part(&t, r0, count, b, part, f0, 0);
        k_else(k);
        pass_part(&t, r0, count, b, part, f0, 1);
        k_stop(k);
        k_stop(k);
        k_stop(k);
    }
    k_stop(k);
    store_rows(&t, r0, count, t0, n);
    k_stop(k);
    k_stop(k);
}

#endif
