/* ops/ternary_f32_rows.h -- ternary_matmul_f32 for one token or a few, where registers hold tables: rows of w in
 * the lanes, and no weight is ever multiplied.
 *
 * What a column (or two neighbours in a byte, 32 columns apart) adds to a row is one of 3 (or 9) numbers
 * that all rows share.  So once for each token all of them are computed, as tables of 4 or 16
 * entries that the weights' own codes index, and then a look-up of 32-bit lanes gives each row its own:
 *
 *     byte j of 16 rows, in 32-bit lanes    | c96 c64 | c32 c0 |     p(j) = T[j][0](low 4 bits) + T[j][1](next 4)
 *
 * vpermps reads 4 bits of an index and ignores the others, vpermilps 2, so a shift is all that brings the next
 * field.  Four bytes of a row are one lane; 4 x 4 transposes inside 16 bytes get them there.
 *
 * Vector instructions for 256 weights, 16 lanes: 7 shifts, 8 look-ups, 8 additions, 5 to transpose: 28, that is
 * 0.11 for a weight.  8 lanes and 4 entries, 128 weights: 15, 16, 16 and 3: 0.39.  With columns in the lanes and
 * multiplications it takes about 0.4 with 16 lanes and 0.7 with 8. */
#ifndef SETUN_OPS_TERNARY_F32_ROWS_H
#define SETUN_OPS_TERNARY_F32_ROWS_H

#include "ops/ternary_f32.h"

#define MAX_GROUPS 2 /* of rows that share what is read from the tables */

typedef struct table_kernel {
    f32_kernel *c;
    k_val    table, stripes, scales; /* memory: of all tokens; of a pass; of a pass, if rows have several */
    int64_t  entries, per_byte;      /* of a table; tables for a byte of codes */
    int64_t  token_size;             /* floats of all tables of a token */
    uint32_t lanes;
} table_kernel;

/* In each four lanes: the transposed four vectors. */
static void transpose_quads(setun_kernel *k, k_val v[4])
{
    int32_t lo[16], hi[16], low2[16], high2[16];
    int32_t n = (int32_t)K_LANES(k_type_of(k, v[0]));
    for (int32_t i = 0; i < n; i++) {
        int32_t base = i / 4 * 4, j = i % 4, other = j % 2 ? n : 0;
        lo[i] = base + j / 2 + other;                         /* a0 b0 a1 b1 */
        hi[i] = lo[i] + 2;                                    /* a2 b2 a3 b3 */
        low2[i] = base + j % 2 + (j < 2 ? 0 : n);             /* a0 a1 b0 b1 */
        high2[i] = low2[i] + 2;
    }
    k_val a = k_shuffle(k, v[0], v[1], lo, (uint32_t)n), b = k_shuffle(k, v[0], v[1], hi, (uint32_t)n);
    k_val c = k_shuffle(k, v[2], v[3], lo, (uint32_t)n), d = k_shuffle(k, v[2], v[3], hi, (uint32_t)n);
    v[0] = k_shuffle(k, a, c, low2, (uint32_t)n);
    v[1] = k_shuffle(k, a, c, high2, (uint32_t)n);
    v[2] = k_shuffle(k, b, d, low2, (uint32_t)n);
    v[3] = k_shuffle(k, b, d, high2, (uint32_t)n);
}

/* ---------------------------------------------------------------- tables */

/* The tree that halves p(0) .. p(31) has as leaf q the p of q's five bits in reverse: neighbours are 16 apart, and
 * then 8, 4, 2, 1.  Tables lie in the order of the leaves, in which they are read. */
static int byte_of_leaf(int q)
{
    return (q & 1) << 4 | (q & 2) << 2 | (q & 4) | (q & 8) >> 2 | q >> 4;
}

static k_val byte_at_leaf(setun_kernel *k, k_val q)
{
    k_val low = k_or(k, k_shl(k, k_and(k, q, k_i64(k, 1)), 4), k_shl(k, k_and(k, q, k_i64(k, 2)), 2));
    k_val high = k_or(k, k_shru(k, k_and(k, q, k_i64(k, 8)), 2), k_shru(k, q, 4));
    return k_or(k, k_or(k, low, k_and(k, q, k_i64(k, 4))), high);
}

/* Is a table made of one field of a byte, or of two? */
static int one_field(const table_kernel *t)
{
    return t->per_byte == 4;
}

/* The tables of the block whose activations begin at x[from]; the products keep what is no number in all
 * entries of a weight 0. */
static void block_tables(const table_kernel *t, k_val x, k_val from, k_val to)
{
    setun_kernel *k = t->c->k;
    uint32_t n = (uint32_t)t->entries;
    k_val one = k_int(k, K_TYPE(K_I32, n), 1), three = k_int(k, K_TYPE(K_I32, n), 3), code = k_iota(k, K_TYPE(K_I32, n), 0);
    k_val low = k_i2f(k, k_sub(k, k_and(k, code, three), one)), high = k_i2f(k, k_sub(k, k_shru(k, code, 2), one));
    k_val q = k_for(k, k_i64(k, 0), k_i64(k, 32), 1), at = k_add(k, to, k_muli(k, q, t->per_byte * t->entries));
    for (int64_t i = 0; i < t->per_byte; i++) {
        int64_t f = one_field(t) ? i : 2 * i;
        k_val column = k_add(k, from, k_addi(k, byte_at_leaf(k, q), 32 * f)), v;
        v = k_mul(k, k_splat(k, k_load(k, x, column, 1), n), one_field(t) && n > 4 && f % 2 ? high : low);
        if (!one_field(t))
            v = k_add(k, v, k_mul(k, k_splat(k, k_load(k, x, k_addi(k, column, 32), 1), n), high));
        k_store(k, t->table, k_addi(k, at, i * t->entries), v);
    }
    k_stop(k);
}

/* The tables of token number `token`; columns past the last are 0. */
static void token_tables(const table_kernel *t, k_val token, k_val to)
{
    setun_kernel *k = t->c->k;
    int64_t whole = t->c->columns / SETUN_T2_BLOCK, left = t->c->columns % SETUN_T2_BLOCK, size = 32 * t->per_byte * t->entries;
    k_val from = k_muli(k, token, t->c->columns), b = k_for(k, k_i64(k, 0), k_i64(k, whole), 1);
    block_tables(t, t->c->x, k_add(k, from, k_muli(k, b, SETUN_T2_BLOCK)), k_add(k, to, k_muli(k, b, size)));
    k_stop(k);
    if (left) {
        k_val last = k_local(k, K_F32, SETUN_T2_BLOCK);
        for (int64_t i = 0; i < SETUN_T2_BLOCK; i += 32)
            k_store(k, last, k_i64(k, i),
                    k_load_pad(k, t->c->x, k_addi(k, from, whole * SETUN_T2_BLOCK + i), left - i, 32, 0));
        block_tables(t, last, k_i64(k, 0), k_addi(k, to, whole * size));
    }
}

/* ---------------------------------------------------------------- rows */

/* Dwords 4 q .. 4 q + 3 of a block, of the rows whose first one has the block at byte `at`. */
static void quad_of_rows(const table_kernel *t, k_val at, int64_t q, k_val v[4])
{
    setun_kernel *k = t->c->k;
    for (int64_t i = 0; i < 4; i++) {
        k_val part[4];
        int64_t n = t->lanes / 4;
        for (int64_t p = 0; p < n; p++)
            part[p] = k_load(k, t->c->w, k_addi(k, at, (4 * p + i) * t->c->row_bytes + 16 * q), 16);
        k_val two = k_concat(k, part[0], part[1]);
        v[i] = k_cast(k, n == 4 ? k_concat(k, two, k_concat(k, part[2], part[3])) : two, K_TYPE(K_I32, t->lanes));
    }
    transpose_quads(k, v);
}

typedef struct pass {
    int   n_group;
    int   f0, n_field;             /* fields of a byte that make the piece */
    k_val table;                   /* where the block's tables begin */
    k_val dword[MAX_GROUPS][8];
    k_val ahead;                   /* byte of w */
} pass;

/* Table i of leaf q, looked up by each group. */
static void look_up(const table_kernel *t, const pass *p, int q, int i, k_val out[MAX_GROUPS])
{
    setun_kernel *k = t->c->k;
    uint32_t n = (uint32_t)t->entries;
    int j = byte_of_leaf(q);
    int field = one_field(t) ? i : 2 * i;
    int shift = 8 * (j % 4) + 2 * (n > 4 ? field & 2 : field);
    k_val table = k_load(k, t->table, k_addi(k, p->table, (q * t->per_byte + i) * t->entries), n);
    for (int g = 0; g < p->n_group; g++) {
        k_val index = p->dword[g][j / 4];
        out[g] = k_lut16(k, table, shift ? k_shru(k, index, shift) : index);
    }
}

/* The sum of leaves [q, q + n). */
static void tree_of(const table_kernel *t, const pass *p, int q, int n, k_val out[MAX_GROUPS])
{
    setun_kernel *k = t->c->k;
    k_val a[4][MAX_GROUPS] = {{0}};
    int parts = 2;
    if (n > 1) {
        tree_of(t, p, q, n / 2, a[0]);
        tree_of(t, p, q + n / 2, n / 2, a[1]);
    } else {
        /* All rows of a pass lie in one piece of memory, and while one is computed, the next is brought in in
         * order, a line at a time: requests in one burst would wait for each other. */
        int64_t size = p->n_group * (int64_t)t->lanes;
        for (int64_t at = q * size; p->f0 == 0 && at < (q + 1) * size; at++)
            if (at % 64 == 0)
                k_prefetch(k, t->c->w, k_addi(k, p->ahead, at), 2);
        int width = one_field(t) ? 1 : 2;
        parts = p->n_field / width;
        for (int i = 0; i < parts; i++)
            look_up(t, p, q, p->f0 / width + i, a[i]);
    }
    for (int g = 0; g < p->n_group; g++) {
        out[g] = parts == 1 ? a[0][g] : k_add(k, a[0][g], a[1][g]);
        if (parts == 4)
            out[g] = k_add(k, out[g], k_add(k, a[2][g], a[3][g]));
    }
}

/* Block b of n_group groups of rows from r on. */
static void block_of_rows(const table_kernel *t, k_val r, int n_group, k_val b, k_val table)
{
    setun_kernel *k = t->c->k;
    int64_t lanes = t->lanes, per_block = SETUN_T2_BLOCK / t->c->piece;
    pass p = {.n_group = n_group, .n_field = (int)(t->c->piece / 32)};
    p.table = k_add(k, table, k_muli(k, b, 32 * t->per_byte * t->entries));
    p.ahead = k_add(k, k_muli(k, k_addi(k, r, n_group * lanes), t->c->row_bytes), k_muli(k, b, n_group * lanes * 32));
    for (int g = 0; g < n_group; g++) {
        k_val at = k_add(k, k_muli(k, k_addi(k, r, g * lanes), t->c->row_bytes), k_muli(k, b, 32));
        quad_of_rows(t, at, 0, p.dword[g]);
        quad_of_rows(t, at, 1, p.dword[g] + 4);
    }
    for (int64_t i = 0; i < per_block; i++) {
        k_val sum[MAX_GROUPS], piece = k_addi(k, k_muli(k, b, per_block), i);
        p.f0 = (int)(i * p.n_field);
        tree_of(t, &p, 0, 32, sum);
        for (int64_t g = 0; g < n_group; g++) {
            k_val at = k_addi(k, k_muli(k, k_and(k, piece, k_i64(k, STRIPES - 1)), lanes), g * STRIPES * lanes);
            k_val s = t->c->has_groups ? k_udiv(k, piece, k_i64(k, t->c->per_scale)) : k_i64(k, 0);
            k_val scale = k_load(k, t->scales, k_add(k, k_muli(k, s, n_group * lanes), k_i64(k, g * lanes)), t->lanes);
            k_store(k, t->stripes, at, k_add(k, k_load(k, t->stripes, at, t->lanes), k_mul(k, sum[g], scale)));
        }
    }
}

/* Scales of a row that whole blocks would have. */
static int64_t padded_scales(const f32_kernel *c)
{
    return !c->has_groups ? 1 : (c->n_block * (SETUN_T2_BLOCK / c->piece) + c->per_scale - 1) / c->per_scale;
}

/* scales[s][row] of n_row rows from r on; pieces behind the last one, which are 0, have 0. */
static void scales_of_rows(const table_kernel *t, k_val r, int64_t n_row)
{
    setun_kernel *k = t->c->k;
    k_val zero = k_i64(k, 0);
    if (!t->c->has_groups) {
        for (int64_t i = 0; i < n_row; i += t->lanes) {
            k_val at = k_addi(k, r, i), s;
            s = t->c->stride ? k_load(k, t->c->ws, at, t->lanes) : k_splat(k, k_load(k, t->c->ws, zero, 1), t->lanes);
            k_store(k, t->scales, k_i64(k, i), s);
        }
        return;
    }
    k_val s = k_for(k, zero, k_i64(k, t->c->stride), 1), from = k_add(k, k_muli(k, r, t->c->stride), s);
    for (int64_t i = 0; i < n_row; i++)
        k_store(k, t->scales, k_addi(k, k_muli(k, s, n_row), i), k_load(k, t->c->ws, k_addi(k, from, i * t->c->stride), 1));
    k_stop(k);
    for (int64_t at = t->c->stride * n_row; at < padded_scales(t->c) * n_row; at += t->lanes)
        k_store(k, t->scales, k_i64(k, at), k_f32v(k, 0.0f, t->lanes));
}

/* Rows [r, r + n_group * lanes) with tokens [t0, n). */
static void pass_of_rows(const table_kernel *t, k_val r, int n_group, k_val t0, k_val n)
{
    setun_kernel *k = t->c->k;
    int64_t lanes = t->lanes;
    scales_of_rows(t, r, n_group * lanes);
    k_val token = k_for(k, t0, n, 1), to = k_add(k, k_mul(k, token, t->c->rows), r);
    for (int64_t i = 0; i < n_group * STRIPES; i++)
        k_store(k, t->stripes, k_i64(k, i * lanes), k_f32v(k, 0.0f, t->lanes));
    k_val b = k_for(k, k_i64(k, 0), k_i64(k, t->c->n_block), 1);
    block_of_rows(t, r, n_group, b, k_muli(k, k_sub(k, token, t0), t->token_size));
    k_stop(k);
    for (int64_t g = 0; g < n_group; g++) {
        k_val s[STRIPES];
        for (int64_t i = 0; i < STRIPES; i++)
            s[i] = k_load(k, t->stripes, k_i64(k, (g * STRIPES + i) * lanes), t->lanes);
        for (int half = STRIPES / 2; half; half /= 2)
            for (int i = 0; i < half; i++)
                s[i] = k_add(k, s[i], s[i + half]);
        k_store(k, t->c->y, k_addi(k, to, g * lanes), s[0]);
    }
    k_stop(k);
}

/* Rows [begin, end) and tokens [t0, n), at most `most`. */
static void table_rows(f32_kernel *c, k_val begin, k_val end, k_val t0, k_val n, int64_t most)
{
    setun_kernel *k = c->k;
    table_kernel t = {.c = c, .entries = k_info(k, K_HAS_LUT32), .lanes = (uint32_t)k_info(k, K_VECTOR_BYTES) / 4};
    int64_t lanes = t.lanes;
    t.per_byte = t.entries == 4 || c->piece == 32 ? 4 : 2;
    t.token_size = c->n_block * 32 * t.per_byte * t.entries;
    t.table = k_scratch(k, K_F32, most * t.token_size * 4);
    t.scales = k_scratch(k, K_F32, padded_scales(c) * MAX_GROUPS * lanes * 4);
    t.stripes = k_local(k, K_F32, MAX_GROUPS * STRIPES * lanes);
    k_val token = k_for(k, t0, n, 1);
    token_tables(&t, token, k_muli(k, k_sub(k, token, t0), t.token_size));
    k_stop(k);
    for (int n_group = MAX_GROUPS; n_group > 0; n_group--) {
        k_val whole = k_add(k, begin, k_and(k, k_sub(k, end, begin), k_i64(k, -n_group * lanes)));
        k_val r = k_for(k, begin, whole, n_group * lanes);
        pass_of_rows(&t, r, n_group, t0, n);
        k_stop(k);
        begin = whole;
    }
    column_rows(c, begin, end, t0, n, 1); /* less than a group */
}

#endif
