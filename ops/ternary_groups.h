/* ops/ternary_groups.h -- ternary_matmul where `group` neighbouring weights of a row share a scale.
 *
 *     y[t][r] = (sum over g of (float)S_g * ws[r][g]) * (1 / scale[t])
 *
 * S_g, the sum of weight times q inside group g, is an exact integer, and kernels may find it in any
 * order.  The products with scales are floats, and are added in stripes (ops/ternary_scales.h).
 *
 * Two kernels:
 *   row   one token, or some: eight groups at a time, columns in the lanes
 *   tile  many tokens: dense dot4 with the tokens in the lanes, on every machine (one without a native
 *         dot4 makes it of two or three instructions)
 *
 * Codes are 0, 1, 2, so each S_g is corrected by the sum of q over its columns.  A group is 32 or 64
 * weights or whole blocks of 128: the fields of a block hold 32 neighbours, and no group cuts one. */
#ifndef SETUN_OPS_TERNARY_GROUPS_H
#define SETUN_OPS_TERNARY_GROUPS_H

#include "ops/ternary_kernels.h"
#include "ops/ternary_scales.h"

typedef struct group_kernel {
    setun_kernel *k;
    k_val    w, x, ws, bias; /* codes, activations of a token, scales, sums of q in each group */
    k_val    at, m;          /* where the token's activations begin; 1 / its scale */
    int64_t  group, n_group, n_block, prefetch;
} group_kernel;

static inline void eval_groups(const setun_args *a, float *y)
{
    const int8_t *q = a->in[Q].data;
    const float *scale = a->in[SCALE].data, *ws = a->in[WS].data;
    const uint8_t *w = a->in[W].data;
    int64_t n = a->in[Q].dim[0], kp = a->in[Q].dim[1], rows = a->in[W].dim[0], columns = a->in[W].dim[1];
    int64_t group = a->attr[0].i, n_group = a->in[WS].dim[1];
    for (int64_t t = 0; t < n; t++)
        for (int64_t r = 0; r < rows; r++) {
            float p[STRIPES] = {0};
            for (int64_t g = 0; g < n_group; g++) {
                int32_t s = 0;
                for (int64_t i = g * group; i < columns && i < (g + 1) * group; i++)
                    s += setun_get_t2(w + r * kp / 4, i) * q[t * kp + i];
                p[g % STRIPES] += (float)s * ws[r * n_group + g];
            }
            y[t * rows + r] = halve_stripes(p) * (1.0f / scale[t]);
        }
}

/* ---------------------------------------------------------------- one token
 *
 * Sums are in the lanes of a vector that sum_lanes adds up: of 8 with dot4, of 16 with dot2. */

/* A block's fields [f0, f1) times x, added to the sums of single and of fourfold codes (0: none yet). */
static void add_fields(const group_kernel *c, k_val row, k_val block, int f0, int f1, k_val sum[2])
{
    setun_kernel *k = c->k;
    k_val f[4], zero = k_int(k, K_TYPE(K_I32, 8), 0);
    fields(k, k_load(k, c->w, k_add(k, row, k_muli(k, block, 32)), 32), f);
    for (int i = f0; i < f1; i++) {
        k_val x = k_load(k, c->x, k_addi(k, k_add(k, c->at, k_muli(k, block, 128)), 32 * i), 32), *s = &sum[i % 2];
        if (k_info(k, K_HAS_DOT4)) {
            *s = k_dot4(k, *s ? *s : zero, f[i], x);
        } else { /* products of codes up to 8 and two more fields of the same parity fit 16 bits many times */
            k_val d = k_sext(k, k_dot2(k, f[i], x), K_I32);
            *s = *s ? k_add(k, *s, d) : d;
        }
    }
}

static k_val join_fields(const group_kernel *c, const k_val sum[2])
{
    setun_kernel *k = c->k;
    k_val four = sum[1] ? k_shrs(k, sum[1], 2) : 0;
    return sum[0] && four ? k_add(k, sum[0], four) : sum[0] ? sum[0] : four;
}

/* Group i of those that begin at `block`, as a vector to be added up.  From there on the row has `left` blocks. */
static k_val group_vector(const group_kernel *c, k_val row, k_val block, int64_t i, int64_t left)
{
    setun_kernel *k = c->k;
    k_val sum[2] = {0, 0}, acc[2];
    if (c->group < 128) {
        int parts = (int)(128 / c->group), n = 4 / parts, f0 = (int)(i % parts) * n;
        add_fields(c, row, k_addi(k, block, i / parts), f0, f0 + n, sum);
        return join_fields(c, sum);
    }
    int64_t n = c->group / 128, first = i * n, end = first + n < left ? first + n : left;
    if (n <= 2) {
        for (int64_t b = first; b < end; b++)
            add_fields(c, row, k_addi(k, block, b), 0, 4, sum);
        return join_fields(c, sum);
    }
    for (int j = 0; j < 2; j++)
        acc[j] = k_var(k, k_int(k, K_TYPE(K_I32, k_info(k, K_HAS_DOT4) ? 8 : 16), 0));
    k_val b = k_for(k, k_addi(k, block, first), k_addi(k, block, end), 1);
    for (int j = 0; j < 2; j++)
        sum[j] = k_get(k, acc[j]);
    add_fields(c, row, b, 0, 4, sum);
    for (int j = 0; j < 2; j++)
        k_set(k, acc[j], sum[j]);
    k_stop(k);
    for (int j = 0; j < 2; j++)
        sum[j] = k_get(k, acc[j]);
    return join_fields(c, sum);
}

/* Adds the groups g .. g + n - 1, n <= 8, of row r to the stripes. */
static void add_groups(const group_kernel *c, k_val r, k_val g, int64_t n, k_val stripes)
{
    setun_kernel *k = c->k;
    int64_t blocks = STRIPES * c->group / 128;
    k_val v[STRIPES], row = k_muli(k, r, c->n_block * 32), block = k_muli(k, k_shru(k, g, 3), blocks);
    int64_t left = n == STRIPES ? blocks : c->n_block - c->n_group / STRIPES * blocks;
    for (int64_t i = 0; i < n; i++)
        v[i] = group_vector(c, row, block, i, left);
    for (int64_t b = 0; b < left; b += 2)
        k_prefetch(k, c->w, k_addi(k, k_add(k, row, k_muli(k, block, 32)), 32 * b + c->prefetch), 3);
    for (int64_t i = n; i < STRIPES; i++)
        v[i] = k_int(k, k_type_of(k, v[0]), 0);
    k_val s = k_sub(k, sum_lanes(k, v, STRIPES), k_load(k, c->bias, g, STRIPES));
    k_val scale = k_load_pad(k, c->ws, k_add(k, k_muli(k, r, c->n_group), g), n, STRIPES, 0);
    k_set(k, stripes, k_add(k, k_get(k, stripes), k_mul(k, k_i2f(k, s), scale)));
}

static k_val group_row(const group_kernel *c, k_val r)
{
    setun_kernel *k = c->k;
    int64_t whole = c->n_group / STRIPES * STRIPES;
    k_val stripes = k_var(k, k_f32v(k, 0.0f, STRIPES));
    if (whole) {
        k_val g = k_for(k, k_i64(k, 0), k_i64(k, whole), STRIPES);
        add_groups(c, r, g, STRIPES, stripes);
        k_stop(k);
    }
    if (c->n_group > whole)
        add_groups(c, r, k_i64(k, whole), c->n_group - whole, stripes);
    return k_mul(k, k_rsum(k, k_get(k, stripes)), c->m);
}

/* Sums of q in each group of the token, 0 behind the last one. */
static void group_bias(const group_kernel *c)
{
    setun_kernel *k = c->k;
    int64_t kp = 128 * c->n_block;
    k_val tail = k_i64(k, c->n_group / STRIPES * STRIPES), zero = k_i64(k, 0);
    k_store(k, c->bias, tail, k_int(k, K_TYPE(K_I32, STRIPES), 0));
    k_val g = k_for(k, zero, k_i64(k, c->n_group), 1), from = k_muli(k, g, c->group);
    k_val acc = k_var(k, k_int(k, K_TYPE(K_I32, 32), 0));
    k_val i = k_for(k, from, k_min(k, k_addi(k, from, c->group), k_i64(k, kp)), 32);
    k_set(k, acc, k_add(k, k_get(k, acc), k_sext(k, k_load(k, c->x, k_add(k, c->at, i), 32), K_I32)));
    k_stop(k);
    k_store(k, c->bias, g, k_rsum(k, k_get(k, acc)));
    k_stop(k);
}

static group_kernel open_groups(setun_kernel *k, const setun_args *a)
{
    group_kernel c;
    memset(&c, 0, sizeof c);
    c.k = k;
    c.w = k_arg(k, W, K_I8);
    c.x = k_arg(k, Q, K_I8);
    c.ws = k_arg(k, WS, K_F32);
    c.group = a->attr[0].i;
    c.n_group = a->in[WS].dim[1];
    c.n_block = a->in[Q].dim[1] / 128;
    c.prefetch = setun_knob_value(a, PREFETCH);
    c.bias = k_scratch(k, K_I32, (c.n_group + STRIPES) * 4);
    return c;
}

/* Rows [begin, end) with n tokens, one after the other: the rows of a unit stay in the first-level cache. */
static void group_tokens(setun_kernel *k, const setun_args *a, k_val begin, k_val end, k_val rows, k_val n)
{
    group_kernel c = open_groups(k, a);
    k_val y = k_arg(k, (int32_t)a->n_in, K_F32), t = k_for(k, k_i64(k, 0), n, 1);
    c.at = k_muli(k, t, 128 * c.n_block);
    c.m = k_div(k, k_f32(k, 1.0f), k_load(k, k_arg(k, SCALE, K_F32), t, 1));
    group_bias(&c);
    k_val r = k_for(k, begin, end, 1), to = k_mul(k, t, rows);
    k_store(k, y, k_add(k, to, r), group_row(&c, r));
    k_stop(k);
    k_stop(k);
}

/* ---------------------------------------------------------------- many tokens */

typedef struct group_tile {
    setun_kernel *k;
    k_val   codes, x, ws, bias, part, sum, m; /* memory: see lower_group_tile */
    k_val   first;                            /* the row whose scales ws begins with; 0: it has those of all rows */
    int64_t kp, group, n_group;
} group_tile;

/* bias[g][token]: sums of q in each group of one tile of packed tokens. */
static void tile_bias(const group_tile *c, k_val x, k_val bias)
{
    setun_kernel *k = c->k;
    k_val ones = k_int(k, K_TYPE(K_I8, 4 * TOKENS), 1), g = k_for(k, k_i64(k, 0), k_i64(k, c->n_group), 1);
    k_val acc = k_var(k, k_int(k, K_TYPE(K_I32, TOKENS), 0)), from = k_muli(k, g, c->group / 4);
    k_val i = k_for(k, from, k_min(k, k_addi(k, from, c->group / 4), k_i64(k, c->kp / 4)), 1);
    k_val q = k_load(k, c->x, k_add(k, x, k_muli(k, i, TOKENS)), TOKENS);
    k_set(k, acc, k_dot4(k, k_get(k, acc), ones, k_cast(k, q, K_TYPE(K_I8, 4 * TOKENS))));
    k_stop(k);
    k_store(k, c->bias, k_add(k, bias, k_muli(k, g, TOKENS)), k_get(k, acc));
    k_stop(k);
}

/* part[stripe][row][token] += (float)S_g * ws[row][g] for n_row decoded rows from r0 on. */
static void tile_group(const group_tile *c, k_val g, k_val r0, int n_row, k_val x, k_val bias)
{
    setun_kernel *k = c->k;
    k_val from = k_muli(k, g, c->group / 4), end = k_min(k, k_addi(k, from, c->group / 4), k_i64(k, c->kp / 4));
    k_val start = k_load(k, c->bias, k_add(k, bias, k_muli(k, g, TOKENS)), TOKENS), acc[TILE_ROWS];
    for (int r = 0; r < n_row; r++)
        acc[r] = k_var(k, k_sub(k, k_int(k, K_TYPE(K_I32, TOKENS), 0), start));
    k_val i = k_for(k, from, end, 2);
    for (int u = 0; u < 2; u++) {
        k_val q = k_load(k, c->x, k_add(k, x, k_muli(k, k_addi(k, i, u), TOKENS)), TOKENS);
        q = k_cast(k, q, K_TYPE(K_I8, 4 * TOKENS));
        for (int r = 0; r < n_row; r++) {
            k_val w = k_splat(k, four_codes(k, c->codes, k_addi(k, i, u + r * (c->kp / 4))), TOKENS);
            k_set(k, acc[r], k_dot4(k, k_get(k, acc[r]), small_codes(k, k_cast(k, w, K_TYPE(K_I8, 4 * TOKENS))), q));
        }
    }
    k_stop(k);
    k_val stripe = k_muli(k, k_and(k, g, k_i64(k, STRIPES - 1)), TILE_ROWS * TOKENS);
    k_val row = c->first ? k_sub(k, r0, c->first) : r0;
    for (int r = 0; r < n_row; r++) {
        k_val scale = k_load(k, c->ws, k_add(k, k_muli(k, k_addi(k, row, r), c->n_group), g), 1);
        k_val v = k_mul(k, k_i2f(k, k_get(k, acc[r])), k_splat(k, scale, TOKENS)), at = k_addi(k, stripe, r * TOKENS);
        k_store(k, c->part, at, k_add(k, k_load(k, c->part, at, TOKENS), v));
    }
}

/* All of one tile of `valid` tokens from t0 on and n_row rows from r0 on. */
static void tile_block(const group_tile *c, k_val y, k_val rows, k_val r0, int n_row, k_val t0, k_val valid, k_val x,
                       k_val bias, k_val m)
{
    setun_kernel *k = c->k;
    k_val zero = k_i64(k, 0), none = k_f32v(k, 0.0f, TOKENS), p[STRIPES];
    for (int s = 0; s < STRIPES; s++)
        for (int r = 0; r < n_row; r++)
            k_store(k, c->part, k_i64(k, (s * TILE_ROWS + r) * TOKENS), none);
    k_val g = k_for(k, zero, k_i64(k, c->n_group), 1);
    tile_group(c, g, r0, n_row, x, bias);
    k_stop(k);
    k_val factor = k_load(k, c->m, m, TOKENS);
    for (int r = 0; r < n_row; r++) {
        for (int s = 0; s < STRIPES; s++)
            p[s] = k_load(k, c->part, k_i64(k, (s * TILE_ROWS + r) * TOKENS), TOKENS);
        for (int half = STRIPES / 2; half; half /= 2)
            for (int s = 0; s < half; s++)
                p[s] = k_add(k, p[s], p[s + half]);
        k_store(k, c->sum, k_i64(k, r * TOKENS), k_mul(k, p[0], factor));
    }
    k_val t = k_for(k, zero, valid, 1), to = k_add(k, k_mul(k, k_add(k, t0, t), rows), r0);
    for (int r = 0; r < n_row; r++)
        k_store(k, y, k_addi(k, to, r), k_load(k, c->sum, k_addi(k, t, r * TOKENS), 1));
    k_stop(k);
}

/* Rows at once, as registers allow: half of them hold sums of 32 tokens. */
static int tile_rows(setun_kernel *k)
{
    int64_t n = k_info(k, K_N_REGISTERS) * k_info(k, K_VECTOR_BYTES) / (2 * 4 * TOKENS);
    return n >= TILE_ROWS ? TILE_ROWS : n >= 4 ? 4 : n >= 2 ? 2 : 1;
}

static void lower_group_tile(setun_kernel *k, const setun_args *a, k_val begin, k_val end, k_val rows, k_val n)
{
    int64_t kp = a->in[Q].dim[1], n_tile = TILE_CACHE / (kp * TOKENS);
    n_tile = n_tile < 1 ? 1 : n_tile > 16 ? 16 : n_tile;
    group_tile c = {.k = k, .kp = kp, .group = a->attr[0].i, .n_group = a->in[WS].dim[1]};
    int at_once = tile_rows(k);
    k_val y = k_arg(k, (int32_t)a->n_in, K_F32), w = k_arg(k, W, K_I8);
    c.codes = k_scratch(k, K_I8, TILE_ROWS * kp);
    c.x = k_scratch(k, K_I32, n_tile * kp * TOKENS);
    c.bias = k_scratch(k, K_I32, n_tile * c.n_group * TOKENS * 4);
    c.ws = k_arg(k, WS, K_F32);
    c.part = k_local(k, K_F32, STRIPES * TILE_ROWS * TOKENS);
    c.sum = k_local(k, K_F32, TILE_ROWS * TOKENS);
    c.m = k_local(k, K_F32, n_tile * TOKENS);
    k_val whole = k_add(k, begin, k_and(k, k_sub(k, end, begin), k_i64(k, -at_once)));
    k_val block = k_for(k, k_i64(k, 0), n, n_tile * TOKENS);
    k_val block_end = k_min(k, k_addi(k, block, n_tile * TOKENS), n), t0 = k_for(k, block, block_end, TOKENS);
    k_val in_block = k_sub(k, t0, block), x = k_muli(k, in_block, kp / 4), bias = k_muli(k, in_block, c.n_group);
    pack_tokens(k, c.x, x, kp, t0, n);
    tile_bias(&c, x, bias);
    k_store(k, c.m, in_block, k_f32v(k, 0.0f, TOKENS));
    k_val valid = k_min(k, k_i64(k, TOKENS), k_sub(k, n, t0)), t = k_for(k, k_i64(k, 0), valid, 1);
    k_val scale = k_load(k, k_arg(k, SCALE, K_F32), k_add(k, t0, t), 1);
    k_store(k, c.m, k_add(k, in_block, t), k_div(k, k_f32(k, 1.0f), scale));
    k_stop(k);
    k_stop(k);
    for (int n_row = at_once; n_row > 0; n_row = n_row > 1 ? 1 : 0) { /* whole groups of rows, then what is left */
        k_val r0 = n_row > 1 ? k_for(k, begin, whole, n_row) : k_for(k, at_once > 1 ? whole : begin, end, 1);
        decode_rows(k, w, c.codes, kp, r0, n_row);
        t0 = k_for(k, block, block_end, TOKENS);
        in_block = k_sub(k, t0, block);
        valid = k_min(k, k_i64(k, TOKENS), k_sub(k, n, t0));
        tile_block(&c, y, rows, r0, n_row, t0, valid, k_muli(k, in_block, kp / 4), k_muli(k, in_block, c.n_group), in_block);
        k_stop(k);
        k_stop(k);
    }
    k_stop(k);
}

#define GROUP_FEW 8 /* fewer tokens go one by one */

static inline void lower_groups(setun_kernel *k, const setun_args *a)
{
    k_grid(k, W, 0, ROW_GRANULE);
    k_val rows = k_dim_run(k, W, 0), n = k_dim(k, Q, 0), begin = k_muli(k, k_begin(k), ROW_GRANULE);
    k_val end = k_min(k, k_muli(k, k_end(k), ROW_GRANULE), rows);
    if (a->in[Q].dim[0] == 1) {
        group_tokens(k, a, begin, end, rows, n);
        return;
    }
    k_if(k, k_lt(k, n, k_i64(k, GROUP_FEW)));
    /* Units one after the other, so that each is read from memory once. */
    k_val unit = k_for(k, begin, end, ROW_GRANULE);
    group_tokens(k, a, unit, k_min(k, k_addi(k, unit, ROW_GRANULE), end), rows, n);
    k_stop(k);
    k_else(k);
    lower_group_tile(k, a, begin, end, rows, n);
    k_stop(k);
}

#endif
