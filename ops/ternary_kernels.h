/* ops/ternary_kernels.h -- what ternary_matmul and ternary_matmul_gated share: checks, the scalar
 * meaning, and four kernels that add up int8 activations times ternary weights.
 *
 *     y[t][r] = (float)S * (ws / scale[t]),     S = sum over k of (code[r][k] - 1) * q[t][k]
 *     y[t][r] = ((float)S * (1 / scale[t])) * ws[r]              with a scale for each row
 *
 * S is an exact integer, so every kernel below gives the same bits: any order, any instruction set.
 * Bounds: |q| <= 127 gives |S| <= 127 K, and K <= 132104 keeps S below 2^24, where (float)S is exact.
 *
 * Four kernels (docs/performance.md has their measurements):
 *   row   one token: stream the 2-bit rows once, multiply-add with dot4 or dot2 (memory-bound)
 *   few   some tokens: the same, a decoded block meeting four tokens (and two rows)
 *   lut   many tokens: "four Russians": for 32 tokens at a time, a table of the sums of the four
 *         columns of a byte, then one load and one add per byte, row and 32 tokens.  Plain loads and
 *         adds: fast on every ISA, and the packed byte itself is the index
 *   tile  many tokens on machines with a 64-byte dot4: decode rows once per call, then dense dot4
 *         with the tokens in the lanes
 *
 * Weights stay in the SETUN_T2 layout of setun/types.h for all of them.  This header is private to
 * ops/ and makes no operator; each of its users is one.  An operator with a sixth input, the gate,
 * gets its results multiplied by the gate's squared rectifier where they are stored. */
#ifndef SETUN_OPS_TERNARY_KERNELS_H
#define SETUN_OPS_TERNARY_KERNELS_H

#include "ops/ternary_sums.h"

enum { Q, SCALE, SUM, W, WS, GATE }; /* arguments, as kernels count them; outputs follow the inputs */

#define MAX_K 132104

/* All but the shape of ws. */
static inline setun_status infer_sums(setun_args *a, setun_error *err)
{
    static const uint32_t want[5] = {SETUN_I8, SETUN_F32, SETUN_I32, SETUN_T2, SETUN_F32};
    const uint32_t rank[5] = {2, 1, 1, 2, a->in[WS].rank};
    const setun_view *q = &a->in[Q], *w = &a->in[W];
    for (uint32_t i = 0; i < 5; i++)
        if (a->in[i].dtype != want[i] || a->in[i].rank != rank[i])
            return setun_fail(err, SETUN_BAD_SHAPE, "input %u has the wrong type or rank (wants q i8[n,K], "
                              "scale f32[n], sum i32[n], w t2[r,k], ws f32[1])", i);
    if (q->dim[1] != setun_t2_padded(w->dim[1]))
        return setun_fail(err, SETUN_BAD_SHAPE, "q has %lld columns, weight wants %lld (%lld rounded up to 128)",
                          (long long)q->dim[1], (long long)setun_t2_padded(w->dim[1]), (long long)w->dim[1]);
    if (a->in[SCALE].dim[0] != q->dim[0] || a->in[SUM].dim[0] != q->dim[0])
        return setun_fail(err, SETUN_BAD_SHAPE, "scale and sum must have one element per row of q");
    if (w->dim[1] < 1 || w->dim[1] > MAX_K)
        return setun_fail(err, SETUN_BAD_SHAPE, "weight has %lld columns; 1 to %d keep the sum exact in f32",
                          (long long)w->dim[1], MAX_K);
    a->out[0].dtype = SETUN_F32;
    a->out[0].rank = 2;
    a->out[0].dim[0] = q->dim[0];
    a->out[0].dim[1] = w->dim[0];
    return SETUN_OK;
}

/* Does each row of weights have a scale of its own? */
static int has_row_scales(const setun_args *a)
{
    return a->in[WS].dim[0] != 1;
}

/* The product alone, for one output of its shape. */
static inline void eval_product(const setun_args *a, float *y)
{
    const int8_t *q = a->in[Q].data;
    const float *scale = a->in[SCALE].data, *ws = a->in[WS].data;
    const uint8_t *w = a->in[W].data;
    int64_t n = a->in[Q].dim[0], kp = a->in[Q].dim[1], rows = a->in[W].dim[0], row_bytes = kp / 4;
    for (int64_t t = 0; t < n; t++) {
        float m = (has_row_scales(a) ? 1.0f : ws[0]) / scale[t];
        for (int64_t r = 0; r < rows; r++) {
            const uint8_t *p = w + r * row_bytes;
            int32_t s = 0;
            for (int64_t b = 0; b < kp / 128; b++, p += 32)
                for (int f = 0; f < 4; f++)
                    for (int j = 0; j < 32; j++)
                        s += ((p[j] >> (2 * f) & 3) - 1) * q[t * kp + 128 * b + 32 * f + j];
            y[t * rows + r] = (float)s * m;
            if (has_row_scales(a))
                y[t * rows + r] *= ws[r];
        }
    }
}

/* ---------------------------------------------------------------- results */

typedef struct sink {
    k_val y, gate, scale; /* arguments; gate 0: none; scale: of each row, 0: none */
} sink;

static sink open_sink(setun_kernel *k, const setun_args *a)
{
    sink s = {0, 0, 0};
    s.y = k_arg(k, (int32_t)a->n_in, K_F32);
    if (a->n_in > GATE)
        s.gate = k_arg(k, GATE, K_F32);
    if (has_row_scales(a))
        s.scale = k_arg(k, WS, K_F32);
    return s;
}

/* What every sum of the token with this scale is multiplied with. */
static k_val token_factor(setun_kernel *k, const setun_args *a, k_val scale)
{
    k_val ws = has_row_scales(a) ? k_f32(k, 1.0f) : k_load(k, k_arg(k, WS, K_F32), k_i64(k, 0), 1);
    return k_div(k, ws, scale);
}

/* y[base + r ...] = v (base 0: none), or with a gate relu2(gate[...]) * v + 0, the sum making +0 of -0. */
static void put(setun_kernel *k, const sink *s, k_val base, k_val r, k_val v)
{
    k_val at = base ? k_add(k, base, r) : r;
    uint32_t n = K_LANES(k_type_of(k, v));
    if (s->scale)
        v = k_mul(k, v, k_load(k, s->scale, r, n));
    if (s->gate) {
        k_val none = k_f32v(k, 0.0f, n), g = k_max(k, k_load(k, s->gate, at, n), none);
        v = k_add(k, k_mul(k, k_mul(k, g, g), v), none);
    }
    k_store(k, s->y, at, v);
}

/* ---------------------------------------------------------------- one token */

typedef struct row_kernel {
    setun_kernel *k;
    k_val    w, x;        /* bytes */
    int64_t  row_bytes, n_block;
    uint32_t lanes;       /* bytes per step: 32, or 64 for two blocks at once */
    k_val    m, bias;     /* ws / scale and sum of the token; bias 0: row_sums takes care of it */
    k_val    start;       /* without dot4: see span_starts */
    k_val    r0, r1;      /* rows of the tile */
    k_val    ahead[2];    /* where rows to be read later begin; 0: the rows that follow in memory */
    int64_t  prefetch;    /* bytes between what is read and what is brought in */
    int      pairs;       /* two rows share the activations */
} row_kernel;

/* What the host may choose by measurement.  Each only says when bytes are brought in, in which order
 * exact integers are added, or which of two equal ways is taken.  On a Sapphire Rapids four pages side by
 * side are 40 % faster than 4 KB ahead in plain order, and eight about as fast; two rows at a time gain 2 to
 * 4 %; how far the loop is unrolled does not show, and is no knob. */
enum { PREFETCH, ROWS, MANY, SPARSE };
static const int64_t prefetch_values[] = {16384, 4096, 32768}, rows_values[] = {2, 1}, many_values[] = {0, 1, 2};
#define TERNARY_KNOBS                                                                                     \
    {"prefetch", "bytes of weights brought in ahead: 4 KB, or pages side by side", prefetch_values, SETUN_LEN(prefetch_values), 0},    \
    {"rows", "rows that share the activations, with dot4", rows_values, SETUN_LEN(rows_values), 0},       \
    {"many", "many tokens: 0 matrix tiles, else 1 wide dot4, else 2 lookup", many_values, SETUN_LEN(many_values), 0}

/* The four fields of w: masks 0x03 and 0x0c on w and on w >> 4.  A field under mask 0x0c holds four
 * times its code, so one exact shift of its sums replaces three shifts of the weights. */
static void fields(setun_kernel *k, k_val w, k_val f[4])
{
    uint32_t n = K_LANES(k_type_of(k, w));
    k_val m1 = k_int(k, K_TYPE(K_I8, n), 0x03), m4 = k_int(k, K_TYPE(K_I8, n), 0x0c);
    /* The shift runs on 16-bit lanes, which every ISA has; bits that cross a byte are masked off. */
    k_val h = k_cast(k, k_shru(k, k_cast(k, w, K_TYPE(K_I16, n / 2)), 4), K_TYPE(K_I8, n));
    f[0] = k_and(k, w, m1);
    f[1] = k_and(k, w, m4);
    f[2] = k_and(k, h, m1);
    f[3] = k_and(k, h, m4);
}

/* Byte `off` of a row that begins at roff is being read: have what is read later brought in. */
static void prefetch_ahead(const row_kernel *c, int u, k_val roff, k_val off)
{
    setun_kernel *k = c->k;
    if (c->ahead[u])
        k_prefetch(k, c->w, k_add(k, c->ahead[u], off), 3);
    else
        k_fetch_ahead(k, c->w, k_add(k, roff, off), c->prefetch);
}

/* Steps in one turn of a loop over n: a number from `most` down to 4 that leaves no rest, else 8. */
static int64_t steps_at_once(int64_t n, int64_t most)
{
    for (int64_t d = most; d >= 4; d--)
        if (n % d == 0)
            return d;
    return 8;
}

/* Without dot4 a row is added up in 16 bits, by dot2, for as long as they suffice: a span of 32 steps.
 *
 *     lane i of   one       the fields under mask 0x03, with weight 1
 *                 four[0]   columns 32 to 63, under mask 0x0c on w: four times their code
 *                 four[1]   columns 96 to 127, under mask 0x0c on w >> 4: the same
 *
 * With codes -1, 0, 1 a step adds two pairs of products to a lane of `one`, at most 4 * 127 = 508 in size, and a
 * pair, four-fold, to one of `four`: 4 * 2 * 127 = 1016.  So after 32 steps no lane is above 32512, nor is one of
 * one + four[0] / 4 + four[1] / 4: all fit in 16 bits.  Codes are stored as 0, 1, 2, which is a sum of x too
 * much, the same for every row: lanes start at minus that sum.  On the way to the end they may wrap, for
 * 16-bit additions are exact modulo 2^16; dot2 itself is far from saturating (2 * 8 * 127 = 2032). */
#define SPAN 32
enum { ONE, FOUR, N_SUM = FOUR + 2 };
#define START_LANES 128 /* of a span: N_SUM times at most 32 lanes, and as many not used */

/* Which sum field j of a byte goes to. */
static int sum_of_field(int j)
{
    return j % 2 ? FOUR + j / 2 : ONE;
}

/* What the sums of every span start with, for all rows of the tile. */
static k_val span_starts(const row_kernel *c)
{
    setun_kernel *k = c->k;
    uint32_t n = c->lanes;
    int64_t n_step = c->n_block * 32 / n;
    k_val start = k_local(k, K_I16, (n_step + SPAN - 1) / SPAN * START_LANES), s[N_SUM];
    k_val one = k_int(k, K_TYPE(K_I8, n), 1), none = k_int(k, K_TYPE(K_I16, n / 2), 0);
    k_val from = k_for(k, k_i64(k, 0), k_i64(k, n_step), SPAN);
    for (int t = 0; t < N_SUM; t++)
        s[t] = k_var(k, none);
    k_val i = k_for(k, from, k_min(k, k_addi(k, from, SPAN), k_i64(k, n_step)), 1);
    for (int j = 0; j < 4; j++) {
        k_val x = k_dot2(k, one, k_load(k, c->x, k_addi(k, k_muli(k, i, 4 * n), (int64_t)n * j), n)), to = s[sum_of_field(j)];
        k_set(k, to, k_sub(k, k_get(k, to), j % 2 ? k_shl(k, x, 2) : x));
    }
    k_stop(k);
    for (int t = 0; t < N_SUM; t++)
        k_store(k, start, k_addi(k, k_muli(k, from, START_LANES / SPAN), (int64_t)n / 2 * t), k_get(k, s[t]));
    k_stop(k);
    return start;
}

/* Steps [from, from + count) of row u, which begins at byte roff. */
static void add_steps(const row_kernel *c, int u, k_val roff, k_val from, int64_t count, const k_val to[N_SUM])
{
    setun_kernel *k = c->k;
    uint32_t n = c->lanes;
    k_val s[N_SUM] = {0};
    for (int64_t i = 0; i < count; i++) {
        k_val off = k_muli(k, k_addi(k, from, i), n), f[4];
        k_val w = k_load(k, c->w, k_add(k, roff, off), n);
        if (n == 64 || i % 2 == 0)
            prefetch_ahead(c, u, roff, off);
        fields(k, w, f);
        for (int j = 0; j < 4; j++) {
            k_val xi = k_addi(k, k_muli(k, from, 4 * n), (int64_t)n * (4 * i + j));
            k_val d = k_dot2(k, f[j], k_load(k, c->x, xi, n)), *sum = &s[sum_of_field(j)];
            *sum = *sum ? k_add(k, *sum, d) : d;
        }
    }
    for (int t = 0; t < N_SUM; t++)
        k_set(k, to[t], k_add(k, k_get(k, to[t]), s[t]));
}

/* The sums of the span that begins at step `from` and has `count` steps, as lanes of 32 bits. */
static k_val span_sums(const row_kernel *c, int u, k_val roff, k_val from, int64_t count)
{
    setun_kernel *k = c->k;
    int64_t turn = steps_at_once(count, 11), whole = count / turn * turn;
    k_val s[N_SUM];
    for (int t = 0; t < N_SUM; t++)
        s[t] = k_var(k, k_load(k, c->start, k_addi(k, k_muli(k, from, START_LANES / SPAN), (int64_t)c->lanes / 2 * t), c->lanes / 2));
    if (whole) {
        k_val i = k_for(k, from, k_addi(k, from, whole), turn);
        add_steps(c, u, roff, i, turn, s);
        k_stop(k);
    }
    if (count > whole)
        add_steps(c, u, roff, k_addi(k, from, whole), count - whole, s);
    /* Every lane of four[] is a multiple of 4: the shifts are exact. */
    k_val four = k_add(k, k_shrs(k, k_get(k, s[FOUR]), 2), k_shrs(k, k_get(k, s[FOUR + 1]), 2));
    return k_sext(k, k_add(k, k_get(k, s[ONE]), four), K_I32);
}

/* The sum of (code - 1) * x over a row, as an i32 scalar. */
static k_val row_dot2(const row_kernel *c, int u, k_val roff)
{
    setun_kernel *k = c->k;
    int64_t n_step = c->n_block * 32 / c->lanes, last = (n_step - 1) / SPAN * SPAN;
    if (!last)
        return k_rsum(k, span_sums(c, u, roff, k_i64(k, 0), n_step));
    k_val sum = k_var(k, k_int(k, K_TYPE(K_I32, c->lanes / 2), 0));
    k_val from = k_for(k, k_i64(k, 0), k_i64(k, last), SPAN);
    k_set(k, sum, k_add(k, k_get(k, sum), span_sums(c, u, roff, from, SPAN)));
    k_stop(k);
    return k_rsum(k, k_add(k, k_get(k, sum), span_sums(c, u, roff, k_i64(k, last), n_step - last)));
}

/* The sums over n_row rows, which begin at bytes roff[], as i32 scalars: with dot4 of code * x, else of
 * (code - 1) * x. */
static void row_sums(const row_kernel *c, const k_val roff[2], int n_row, k_val out[2])
{
    setun_kernel *k = c->k;
    if (!k_info(k, K_HAS_DOT4)) {
        for (int u = 0; u < n_row; u++)
            out[u] = row_dot2(c, u, roff[u]);
        return;
    }
    int64_t n_step = c->n_block * 32 / c->lanes, unroll = n_step % 2 == 0 ? 2 : n_step % 3 == 0 ? 3 : 1;
    uint32_t n = c->lanes;
    k_val zero = k_int(k, K_TYPE(K_I32, n / 4), 0), acc[2][4];
    for (int u = 0; u < n_row; u++)
        for (int f = 0; f < 4; f++)
            acc[u][f] = k_var(k, zero);
    k_val p = k_for(k, k_i64(k, 0), k_i64(k, n_step), unroll);
    for (int64_t i = 0; i < unroll; i++) {
        k_val f[2][4];
        for (int u = 0; u < n_row; u++) {
            k_val off = k_muli(k, k_addi(k, p, i), n);
            prefetch_ahead(c, u, roff[u], off);
            fields(k, k_load(k, c->w, k_add(k, roff[u], off), n), f[u]);
        }
        for (int j = 0; j < 4; j++) {
            k_val x = k_load(k, c->x, k_addi(k, k_muli(k, p, 4 * n), (int64_t)n * (4 * i + j)), n);
            for (int u = 0; u < n_row; u++)
                k_set(k, acc[u][j], k_dot4(k, k_get(k, acc[u][j]), f[u][j], x));
        }
    }
    k_stop(k);
    for (int u = 0; u < n_row; u++) {
        k_val one = k_add(k, k_get(k, acc[u][0]), k_get(k, acc[u][2]));
        k_val four = k_add(k, k_get(k, acc[u][1]), k_get(k, acc[u][3]));
        out[u] = k_rsum(k, k_add(k, one, k_shrs(k, four, 2)));
    }
}

/* For steps of two blocks: put the 32-byte pieces of x that meet the same field side by side.
 *     xs[256 p + 64 f + 32 h] = x[256 p + 128 h + 32 f] */
static void interleave_blocks(setun_kernel *k, k_val x, k_val xs, k_val base, int64_t kp)
{
    k_val p = k_for(k, k_i64(k, 0), k_i64(k, kp), 256), at = k_add(k, base, p);
    for (int f = 0; f < 4; f++)
        for (int h = 0; h < 2; h++)
            k_store(k, xs, k_addi(k, at, 64 * f + 32 * h), k_load(k, x, k_addi(k, at, 128 * h + 32 * f), 32));
    k_stop(k);
}

#define ROW_GRANULE 16

static row_kernel open_rows(setun_kernel *k, const setun_args *a)
{
    row_kernel c;
    memset(&c, 0, sizeof c);
    c.k = k;
    c.w = k_arg(k, W, K_I8);
    c.x = k_arg(k, Q, K_I8);
    c.row_bytes = a->in[Q].dim[1] / 4;
    c.n_block = a->in[Q].dim[1] / 128;
    c.lanes = 32;
    c.prefetch = prefetch_values[0];
    c.pairs = k_info(k, K_HAS_DOT4) != 0; /* where the registers allow it */
    return c;
}

/* The grid, the tile's rows, and the activations as the inner loop wants them. */
static inline void row_start(setun_kernel *k, const setun_args *a, row_kernel *c)
{
    int64_t kp = a->in[Q].dim[1];
    k_val zero = k_i64(k, 0), rows = k_dim_run(k, W, 0);
    *c = open_rows(k, a);
    c->prefetch = setun_knob_value(a, PREFETCH);
    c->pairs &= setun_knob_value(a, ROWS) == 2;
    k_grid(k, W, 0, ROW_GRANULE);
    c->m = token_factor(k, a, k_load(k, k_arg(k, SCALE, K_F32), zero, 1));
    c->r0 = k_muli(k, k_begin(k), ROW_GRANULE);
    c->r1 = k_min(k, k_muli(k, k_end(k), ROW_GRANULE), rows);
    if (k_info(k, K_VECTOR_BYTES) >= 64 && c->n_block % 2 == 0) {
        k_val xs = k_local(k, K_I8, kp);
        interleave_blocks(k, c->x, xs, zero, kp);
        c->x = xs;
        c->lanes = 64;
    }
    if (k_info(k, K_HAS_DOT4))
        c->bias = k_load(k, k_arg(k, SUM, K_I32), zero, 1);
    else
        c->start = span_starts(c);
}

static k_val row_value(const row_kernel *c, k_val sum)
{
    return k_mul(c->k, k_i2f(c->k, c->bias ? k_sub(c->k, sum, c->bias) : sum), c->m);
}

/* Every row of the tile; an odd last row goes alone. */
static inline void row_all(const row_kernel *c, const sink *to)
{
    setun_kernel *k = c->k;
    k_val s[2], roff[2], from = c->r0;
    for (int n_row = c->pairs ? 2 : 1; n_row > 0; n_row--) {
        k_val end = n_row == 1 ? c->r1 : k_add(k, c->r0, k_and(k, k_sub(k, c->r1, c->r0), k_i64(k, -2)));
        k_val r = k_for(k, from, end, n_row);
        for (int u = 0; u < n_row; u++)
            roff[u] = k_muli(k, k_addi(k, r, u), c->row_bytes);
        row_sums(c, roff, n_row, s);
        for (int u = 0; u < n_row; u++)
            put(k, to, 0, k_addi(k, r, u), row_value(c, s[u]));
        k_stop(k);
        from = end;
    }
}

/* ---------------------------------------------------------------- a few tokens
 *
 * Few tokens (a short prompt, several sequences decoding together) would waste most of a
 * 32-token tile.  As for one token the columns are in the lanes, but a decoded block of weights meets
 * FEW_TOKENS tokens, and their activations meet two rows where 32 registers hold the sums. */

#define FEW 28 /* with dot4 seven passes cost less than a tile of 32, without it four */
#define FEW_TOKENS 4
#define MOST_SUMS (2 * FEW_TOKENS)

/* Fewer tokens than this are few. */
static k_val few_end(setun_kernel *k)
{
    return k_i64(k, k_info(k, K_HAS_DOT4) ? FEW + 1 : 16);
}

/* out[t * n_row + u]: partial sums of code * x of row r + u and the token whose activations start at
 * tok[t]. */
static void few_sums(const row_kernel *c, k_val r, int n_row, const k_val tok[FEW_TOKENS], k_val out[MOST_SUMS])
{
    setun_kernel *k = c->k;
    int dot4 = k_info(k, K_HAS_DOT4) != 0, n_sum = n_row * FEW_TOKENS;
    uint32_t n = c->lanes;
    k_val roff[2], one[MOST_SUMS], four[MOST_SUMS], f[2][4], zero = k_int(k, K_TYPE(K_I32, dot4 ? n / 4 : 16), 0);
    for (int u = 0; u < n_row; u++)
        roff[u] = k_muli(k, k_addi(k, r, u), c->row_bytes);
    for (int s = 0; s < n_sum; s++) {
        one[s] = k_var(k, zero);
        four[s] = k_var(k, zero);
    }
    /* dot2: the 16-bit sums of the four-fold fields take two products of at most 4 * 2 * 2 * 127 = 2032 a block:
     * 8 blocks reach 32512, which fits. */
    int64_t steps = c->n_block * 32 / n, chunk = dot4 ? 1 : steps_at_once(c->n_block, 8), whole = steps / chunk * chunk;
    for (int part = 0; part < 2; part++) {
        int64_t from = part ? whole : 0, to = part ? steps : whole, count = part ? steps - whole : chunk;
        if (from == to)
            continue;
        k_val p = k_for(k, k_i64(k, from), k_i64(k, to), count), a[MOST_SUMS] = {0}, b[MOST_SUMS] = {0};
        for (int64_t i = 0; i < count; i++) {
            for (int u = 0; u < n_row; u++) {
                k_val at = k_add(k, roff[u], k_muli(k, k_addi(k, p, i), n));
                k_fetch_ahead(k, c->w, at, c->prefetch);
                fields(k, k_load(k, c->w, at, n), f[u]);
            }
            for (int t = 0; t < FEW_TOKENS; t++)
                for (int j = 0; j < 4; j++) {
                    k_val at = k_add(k, tok[t], k_addi(k, k_muli(k, k_addi(k, p, i), 4 * n), (int64_t)n * j));
                    k_val x = k_load(k, c->x, at, n);
                    for (int u = 0; u < n_row; u++) {
                        int s = t * n_row + u;
                        k_val acc = j % 2 ? four[s] : one[s], *acc16 = j % 2 ? b : a;
                        if (dot4) {
                            k_set(k, acc, k_dot4(k, k_get(k, acc), f[u][j], x));
                        } else {
                            k_val d = k_dot2(k, f[u][j], x);
                            acc16[s] = acc16[s] ? k_add(k, acc16[s], d) : d;
                        }
                    }
                }
        }
        for (int s = 0; s < n_sum && !dot4; s++) {
            k_set(k, one[s], k_add(k, k_get(k, one[s]), k_sext(k, a[s], K_I32)));
            k_set(k, four[s], k_add(k, k_get(k, four[s]), k_sext(k, b[s], K_I32)));
        }
        k_stop(k);
    }
    for (int s = 0; s < n_sum; s++)
        out[s] = k_add(k, k_get(k, one[s]), k_shrs(k, k_get(k, four[s]), 2));
}

typedef struct few_kernel {
    row_kernel c;
    sink  to;
    k_val m, bias;    /* per token, twice if rows come in pairs: ws / scale, sum of q */
    k_val rows, last; /* of the weight; the last token */
} few_kernel;

/* Rows r and, if n_row is 2, r + 1 meet the tokens from t0 on: as many at once as registers allow. */
static void few_block(const few_kernel *c, k_val r, int n_row, k_val t0)
{
    static const int32_t pairs[MOST_SUMS] = {0, 4, 1, 5, 2, 6, 3, 7};
    setun_kernel *k = c->c.k;
    int at_once = k_info(k, K_N_REGISTERS) >= 32 ? n_row : 1;
    uint32_t n = (uint32_t)n_row * FEW_TOKENS;
    k_val tok[FEW_TOKENS], at[FEW_TOKENS], v[MOST_SUMS], s = 0, from = k_muli(k, t0, n_row);
    for (int t = 0; t < FEW_TOKENS; t++) { /* tokens past the last repeat it, and write its value again */
        at[t] = k_min(k, k_addi(k, t0, t), c->last);
        tok[t] = k_muli(k, at[t], 128 * c->c.n_block);
    }
    for (int u = 0; u < n_row; u += at_once) {
        few_sums(&c->c, k_addi(k, r, u), at_once, tok, v);
        k_val sums = sum_lanes(k, v, at_once * FEW_TOKENS);
        s = u ? k_shuffle(k, s, sums, pairs, n) : sums;
    }
    s = k_sub(k, s, k_load(k, c->bias, from, n));
    s = k_mul(k, k_i2f(k, s), k_load(k, c->m, from, n));
    for (int t = 0; t < FEW_TOKENS; t++)
        put(k, &c->to, k_mul(k, at[t], c->rows), r, n_row > 1 ? k_slice(k, s, t * n_row, (uint32_t)n_row) : k_extract(k, s, t));
}

/* Rows [begin, end), any number of tokens n from 1 to FEW. */
static void few_tokens(setun_kernel *k, const setun_args *a, k_val begin, k_val end, k_val rows, k_val n)
{
    int64_t kp = a->in[Q].dim[1];
    few_kernel c = {.c = open_rows(k, a), .to = open_sink(k, a), .rows = rows, .last = k_addi(k, n, -1)};
    int pairs = c.c.pairs;
    k_val zero = k_i64(k, 0), whole = pairs ? k_add(k, begin, k_and(k, k_sub(k, end, begin), k_i64(k, -2))) : begin;
    if (k_info(k, K_HAS_DOT4) && k_info(k, K_VECTOR_BYTES) >= 64 && c.c.n_block % 2 == 0) {
        k_val xs = k_scratch(k, K_I8, FEW * kp), t = k_for(k, zero, n, 1), base = k_muli(k, t, kp);
        interleave_blocks(k, c.c.x, xs, base, kp);
        k_stop(k);
        c.c.x = xs;
        c.c.lanes = 64;
    }
    for (int n_row = pairs ? 2 : 1; n_row > 0; n_row--) { /* an odd last row goes alone */
        c.m = k_local(k, K_F32, FEW * n_row);
        c.bias = k_local(k, K_I32, FEW * n_row);
        k_val t = k_for(k, zero, k_i64(k, FEW), 1), at = k_min(k, t, c.last), to = k_muli(k, t, n_row);
        k_val m = token_factor(k, a, k_load(k, k_arg(k, SCALE, K_F32), at, 1));
        for (int u = 0; u < n_row; u++) {
            k_store(k, c.m, k_addi(k, to, u), m);
            k_store(k, c.bias, k_addi(k, to, u), k_load(k, k_arg(k, SUM, K_I32), at, 1));
        }
        k_stop(k);
        k_val r = n_row > 1 ? k_for(k, begin, whole, 2) : k_for(k, whole, end, 1);
        t = k_for(k, zero, n, FEW_TOKENS);
        few_block(&c, r, n_row, t);
        k_stop(k);
        k_stop(k);
    }
}

/* ---------------------------------------------------------------- many tokens: common parts */

#define TOKENS 32      /* of a token tile: lanes of the accumulators */
#define MANY_GRANULE 4 /* rows; a tile is one contiguous run of units, blocked below */

/* In-register transpose of n = 4 vectors of 4 lanes (or 16 of 16): log2(n) rounds of interleaving
 * the first half with the second: vector i meets vector i + n/2. */
static void transpose(setun_kernel *k, k_val *v, int n)
{
    int32_t lo[16], hi[16];
    k_val t[16];
    for (int i = 0; i < n; i++) {
        lo[i] = (i % 2 ? n : 0) + i / 2;
        hi[i] = lo[i] + n / 2;
    }
    for (int round = 1; round < n; round *= 2) {
        for (int i = 0; i < n / 2; i++) {
            t[2 * i] = k_shuffle(k, v[i], v[i + n / 2], lo, (uint32_t)n);
            t[2 * i + 1] = k_shuffle(k, v[i], v[i + n / 2], hi, (uint32_t)n);
        }
        for (int i = 0; i < n; i++)
            v[i] = t[i];
    }
}

/* Per token of the tile, to out[at ...]: its factor, 0 past the end. */
static void token_scales(setun_kernel *k, const setun_args *a, k_val t0, k_val n, k_val out, k_val at)
{
    k_val zero = k_i64(k, 0), scale = k_arg(k, SCALE, K_F32);
    k_store(k, out, at, k_f32v(k, 0.0f, TOKENS));
    k_val t = k_for(k, zero, k_min(k, k_i64(k, TOKENS), k_sub(k, n, t0)), 1);
    k_store(k, out, k_add(k, at, t), token_factor(k, a, k_load(k, scale, k_add(k, t0, t), 1)));
    k_stop(k);
}

/* y[t0 + t][r] is made of (float)acc[r - r0][t] * mult[t] for the tile's valid tokens and rows
 * [r0, r1). */
static void store_tile(setun_kernel *k, const setun_args *a, k_val acc, k_val mult, k_val r0, k_val r1, k_val rows,
                       k_val t0, k_val n)
{
    sink to = open_sink(k, a);
    k_val zero = k_i64(k, 0), quad = k_local(k, K_F32, TOKENS * 4);
    k_val valid = k_min(k, k_i64(k, TOKENS), k_sub(k, n, t0)), count = k_sub(k, r1, r0);
    k_val whole = k_and(k, count, k_i64(k, -4));
    k_val r = k_for(k, zero, whole, 4);
    k_val row[4];
    for (int i = 0; i < 4; i++)
        row[i] = k_mul(k, k_i2f(k, k_load(k, acc, k_muli(k, k_addi(k, r, i), TOKENS), TOKENS)), mult);
    for (int tq = 0; tq < TOKENS / 4; tq++) {
        k_val v[4];
        for (int i = 0; i < 4; i++)
            v[i] = k_slice(k, row[i], 4 * tq, 4);
        transpose(k, v, 4);
        for (int i = 0; i < 4; i++)
            k_store(k, quad, k_i64(k, 16 * tq + 4 * i), v[i]);
    }
    /* Only valid tokens have a row of y, hence the way through memory. */
    k_val t = k_for(k, zero, valid, 1);
    put(k, &to, k_mul(k, k_add(k, t0, t), rows), k_add(k, r0, r), k_load(k, quad, k_muli(k, t, 4), 4));
    k_stop(k);
    k_stop(k);
    r = k_for(k, whole, count, 1);
    k_store(k, quad, zero, k_mul(k, k_i2f(k, k_load(k, acc, k_muli(k, r, TOKENS), TOKENS)), mult));
    t = k_for(k, zero, valid, 1);
    put(k, &to, k_mul(k, k_add(k, t0, t), rows), k_add(k, r0, r), k_load(k, quad, t, 1));
    k_stop(k);
    k_stop(k);
}

/* ---------------------------------------------------------------- many tokens: lookup
 *
 * Byte j of block b meets the four columns 128 b + j + {0, 32, 64, 96}.  Its table has one entry of 32
 * 16-bit sums per byte value c0 | c1 << 2 | c2 << 4 | c3 << 6 (171 slots, 81 of them real), so the
 * packed byte is the index.  Entries are at most 4 * 127 = 508; 64 bytes (256 columns) between
 * flushes reach 32512, which fits 16 bits. */

#define SLOTS 171
#define STRIP_GROUPS 16 /* groups of 4 bytes between flushes: 64 bytes */
#define MAX_ROWS 2560   /* of a row block: bounds the scratch memory */

/* Entries of the table of one byte position from its four columns' 32 activations. */
static void build_table(setun_kernel *k, k_val xt, k_val column, k_val table, k_val base)
{
    k_val x[4], zero = k_int(k, K_TYPE(K_I16, TOKENS), 0), low[9], high[9];
    for (int f = 0; f < 4; f++)
        x[f] = k_sext(k, k_load(k, xt, k_muli(k, k_addi(k, column, 32 * f), TOKENS), TOKENS), K_I16);
    for (int half = 0; half < 2; half++) {
        k_val *s = half ? high : low, a = x[2 * half], b = x[2 * half + 1];
        k_val na = k_sub(k, zero, a), nb = k_sub(k, zero, b);
        s[0] = k_sub(k, na, b); s[1] = nb; s[2] = k_sub(k, a, b);
        s[3] = na;              s[4] = zero; s[5] = a;
        s[6] = k_sub(k, b, a);  s[7] = b;  s[8] = k_add(k, a, b);
    }
    for (int h = 0; h < 9; h++)
        for (int l = 0; l < 9; l++) {
            int slot = l % 3 | l / 3 << 2 | h % 3 << 4 | h / 3 << 6;
            k_store(k, table, k_addi(k, base, (int64_t)slot * TOKENS), k_add(k, high[h], low[l]));
        }
}

/* One pass over the rows for n_group groups: sum their table entries; first: nothing to add to,
 * last: widen into acc32. */
static void lut_rows(setun_kernel *k, k_val codes, k_val g, int64_t stride, int n_group, k_val tables,
                     k_val acc16, k_val acc32, k_val count, int first, int last)
{
    k_val r = k_for(k, k_i64(k, 0), count, 1), s = 0;
    for (int i = 0; i < n_group; i++) {
        k_val c = k_load(k, codes, k_add(k, k_muli(k, k_addi(k, g, i), stride), r), 1);
        for (int j = 0; j < 4; j++) {
            k_val byte = k_zext(k, k_trunc(k, j ? k_shru(k, c, 8 * j) : c, K_I8), K_I64);
            k_val at = k_addi(k, k_shl(k, byte, 5), (int64_t)(4 * i + j) * SLOTS * TOKENS);
            k_val e = k_load(k, tables, at, TOKENS);
            s = s ? k_add(k, s, e) : e;
        }
    }
    k_val at = k_shl(k, r, 5);
    if (!first)
        s = k_add(k, s, k_load(k, acc16, at, TOKENS));
    if (last)
        k_store(k, acc32, at, k_add(k, k_load(k, acc32, at, TOKENS), k_sext(k, s, K_I32)));
    else
        k_store(k, acc16, at, s);
    k_stop(k);
}

/* codes[group][row] from the rows' packed bytes, by 4 x 4 transposes: the row loop then reads
 * memory in order.  Rows past the block repeat the last one and are never stored. */
static void repack(setun_kernel *k, k_val w, k_val codes, int64_t n_group, int64_t stride, k_val r0, k_val count)
{
    k_val last = k_addi(k, count, -1);
    k_val r = k_for(k, k_i64(k, 0), count, 4), off[4];
    for (int i = 0; i < 4; i++)
        off[i] = k_muli(k, k_add(k, r0, k_min(k, k_addi(k, r, i), last)), n_group);
    k_val g = k_for(k, k_i64(k, 0), k_i64(k, n_group), 4), v[4];
    for (int i = 0; i < 4; i++)
        v[i] = k_load(k, w, k_add(k, off[i], g), 4);
    transpose(k, v, 4);
    for (int i = 0; i < 4; i++)
        k_store(k, codes, k_add(k, k_muli(k, k_addi(k, g, i), stride), r), v[i]);
    k_stop(k);
    k_stop(k);
}

/* xt[column][token] from the tile's rows of q; tokens past n repeat the last one. */
static void transpose_tokens(setun_kernel *k, k_val xt, int64_t kp, k_val t0, k_val n)
{
    k_val q = k_arg(k, Q, K_I8), last = k_addi(k, n, -1), off[16], v[16];
    k_val half = k_for(k, k_i64(k, 0), k_i64(k, TOKENS), 16);
    for (int i = 0; i < 16; i++)
        off[i] = k_muli(k, k_min(k, k_addi(k, k_add(k, t0, half), i), last), kp);
    k_val c = k_for(k, k_i64(k, 0), k_i64(k, kp), 16);
    for (int i = 0; i < 16; i++)
        v[i] = k_load(k, q, k_add(k, off[i], c), 16);
    transpose(k, v, 16);
    for (int i = 0; i < 16; i++)
        k_store(k, xt, k_add(k, k_muli(k, k_addi(k, c, i), TOKENS), half), v[i]);
    k_stop(k);
    k_stop(k);
}

static inline void lower_lut(setun_kernel *k, const setun_args *a)
{
    int64_t kp = a->in[Q].dim[1], n_group = kp / 16;
    int64_t cap = a->in[W].dim[0] < MAX_ROWS ? (a->in[W].dim[0] + 3) / 4 * 4 : MAX_ROWS;
    /* Eight tables touch 8 * 81 * 64 = 41 KB; a smaller first-level cache takes four. */
    int pass = k_info(k, K_L1_BYTES) >= 48 * 1024 ? 2 : 1;
    k_val zero = k_i64(k, 0), rows = k_dim_run(k, W, 0), n = k_dim(k, Q, 0);
    k_grid(k, W, 0, MANY_GRANULE);
    k_val codes = k_scratch(k, K_I32, n_group * cap * 4), xt = k_scratch(k, K_I8, kp * TOKENS);
    k_val acc16 = k_scratch(k, K_I16, cap * TOKENS * 2), acc32 = k_scratch(k, K_I32, cap * TOKENS * 4);
    k_val tables = k_local(k, K_I16, (int64_t)pass * 4 * SLOTS * TOKENS), m = k_local(k, K_F32, TOKENS);
    k_val w = k_arg(k, W, K_I32);
    k_val tile0 = k_muli(k, k_begin(k), MANY_GRANULE);
    k_val tile1 = k_min(k, k_muli(k, k_end(k), MANY_GRANULE), rows);

    k_if(k, k_lt(k, n, few_end(k)));
    few_tokens(k, a, tile0, tile1, rows, n);
    k_else(k);
    k_val r0 = k_for(k, tile0, tile1, cap);
    k_val r1 = k_min(k, k_addi(k, r0, cap), tile1), count = k_sub(k, r1, r0);
    repack(k, w, codes, n_group, cap, r0, count);
    k_val t0 = k_for(k, zero, n, TOKENS);
    transpose_tokens(k, xt, kp, t0, n);
    token_scales(k, a, t0, n, m, zero);
    k_val r = k_for(k, zero, count, 1);
    k_store(k, acc32, k_muli(k, r, TOKENS), k_int(k, K_TYPE(K_I32, TOKENS), 0));
    k_stop(k);
    k_val strip = k_for(k, zero, k_i64(k, n_group), STRIP_GROUPS);
    k_val strip_end = k_min(k, k_addi(k, strip, STRIP_GROUPS), k_i64(k, n_group));
    k_val g = k_for(k, strip, strip_end, pass);
    {
        /* Group g holds bytes 4 (g mod 8) ... of block g / 8. */
        k_val j = k_for(k, zero, k_i64(k, 4 * pass), 1);
        k_val byte = k_add(k, k_shl(k, g, 2), j); /* of the row */
        k_val column = k_add(k, k_shl(k, k_shru(k, byte, 5), 7), k_and(k, byte, k_i64(k, 31)));
        build_table(k, xt, column, tables, k_muli(k, j, SLOTS * TOKENS));
        k_stop(k);
    }
    k_if(k, k_eq(k, g, strip));
    lut_rows(k, codes, g, cap, pass, tables, acc16, acc32, count, 1, 0);
    k_else(k);
    k_if(k, k_lt(k, k_addi(k, g, pass), strip_end));
    lut_rows(k, codes, g, cap, pass, tables, acc16, acc32, count, 0, 0);
    k_else(k);
    lut_rows(k, codes, g, cap, pass, tables, acc16, acc32, count, 0, 1);
    k_stop(k);
    k_stop(k);
    k_stop(k); /* g */
    k_stop(k); /* strip */
    store_tile(k, a, acc32, k_load(k, m, zero, TOKENS), r0, r1, rows, t0, n);
    k_stop(k); /* t0 */
    k_stop(k); /* r0 */
    k_stop(k); /* if few */
}

/* ---------------------------------------------------------------- many tokens: dense tiles
 *
 * With 64-byte dot4 and 32 registers a plain multiply-add beats the tables: TILE_ROWS rows of codes
 * are decoded to bytes once per block of tokens, and every four columns of a row, broadcast, meet the
 * same four columns of 32 tokens.  Codes are 0, 1, 2, so the sums start at minus the sum of q. */

#define TILE_ROWS 8 /* 2 registers of sums each: 16, and 3 for operands, of 32 */
#define TILE_CACHE (1 << 20) /* bytes of activations kept close between rows */

/* xp[k / 4][token][4] for one tile of tokens; tokens past n repeat the last one. */
static void pack_tokens(setun_kernel *k, k_val xp, k_val base, int64_t kp, k_val t0, k_val n)
{
    k_val q = k_arg(k, Q, K_I32), last = k_addi(k, n, -1), off[4], v[4];
    k_val t = k_for(k, k_i64(k, 0), k_i64(k, TOKENS), 4);
    for (int i = 0; i < 4; i++)
        off[i] = k_muli(k, k_min(k, k_addi(k, k_add(k, t0, t), i), last), kp / 4);
    k_val c = k_for(k, k_i64(k, 0), k_i64(k, kp / 4), 4);
    for (int i = 0; i < 4; i++)
        v[i] = k_load(k, q, k_add(k, off[i], c), 4);
    transpose(k, v, 4);
    for (int i = 0; i < 4; i++)
        k_store(k, xp, k_add(k, base, k_add(k, k_muli(k, k_addi(k, c, i), TOKENS), t)), v[i]);
    k_stop(k);
    k_stop(k);
}

/* Codes of rows [r0, r0 + n_row) as bytes in column order. */
static void decode_rows(setun_kernel *k, k_val w, k_val codes, int64_t kp, k_val r0, int n_row)
{
    k_val three = k_int(k, K_TYPE(K_I8, 32), 3);
    for (int r = 0; r < n_row; r++) {
        k_val row = k_muli(k, k_addi(k, r0, r), kp / 4);
        k_val b = k_for(k, k_i64(k, 0), k_i64(k, kp / 4), 32);
        k_val v = k_cast(k, k_load(k, w, k_add(k, row, b), 32), K_TYPE(K_I16, 16));
        for (int f = 0; f < 4; f++) {
            k_val field = k_and(k, k_cast(k, f ? k_shru(k, v, 2 * f) : v, K_TYPE(K_I8, 32)), three);
            k_store(k, codes, k_addi(k, k_shl(k, b, 2), r * kp + 32 * f), field);
        }
        k_stop(k);
    }
}

/* Decoded codes for dot4.  None is above 127; machines that make dot4 of narrower products need to see that. */
static k_val small_codes(setun_kernel *k, k_val codes)
{
    uint32_t lanes = K_LANES(k_type_of(k, codes));
    return k_info(k, K_HAS_DOT4) ? codes : k_and(k, codes, k_int(k, K_TYPE(K_I8, lanes), 127));
}

/* Decoded codes 4 i ... 4 i + 3 as an i32, the first in its low byte. */
static k_val four_codes(setun_kernel *k, k_val codes, k_val i)
{
    return k_cast(k, k_load(k, codes, k_shl(k, i, 2), 4), K_TYPE(K_I32, 1));
}

/* acc[r][token] of n_row decoded rows and one tile of tokens, from start on. */
static void dot_rows(setun_kernel *k, k_val codes, k_val xp, k_val base, k_val start, k_val acc, int64_t kp, int n_row)
{
    k_val sum[TILE_ROWS], words = k_i64(k, kp / 4);
    for (int r = 0; r < n_row; r++)
        sum[r] = k_var(k, start);
    k_val c = k_for(k, k_i64(k, 0), words, 2);
    for (int u = 0; u < 2; u++) {
        k_val x = k_load(k, xp, k_add(k, base, k_muli(k, k_addi(k, c, u), TOKENS)), TOKENS);
        x = k_cast(k, x, K_TYPE(K_I8, 4 * TOKENS));
        for (int r = 0; r < n_row; r++) {
            k_val w = k_splat(k, four_codes(k, codes, k_addi(k, c, u + r * (kp / 4))), TOKENS);
            k_set(k, sum[r], k_dot4(k, k_get(k, sum[r]), small_codes(k, k_cast(k, w, K_TYPE(K_I8, 4 * TOKENS))), x));
        }
    }
    k_stop(k);
    for (int r = 0; r < n_row; r++)
        k_store(k, acc, k_i64(k, (int64_t)r * TOKENS), k_get(k, sum[r]));
}

/* -sum of q per token of a tile; 0 past the end. */
static void token_bias(setun_kernel *k, k_val t0, k_val n, k_val out, k_val at)
{
    k_val sum = k_arg(k, SUM, K_I32), zero = k_i64(k, 0), none = k_int(k, K_TYPE(K_I32, 1), 0);
    k_store(k, out, at, k_int(k, K_TYPE(K_I32, TOKENS), 0));
    k_val t = k_for(k, zero, k_min(k, k_i64(k, TOKENS), k_sub(k, n, t0)), 1);
    k_store(k, out, k_add(k, at, t), k_sub(k, none, k_load(k, sum, k_add(k, t0, t), 1)));
    k_stop(k);
}

static inline void lower_tile(setun_kernel *k, const setun_args *a)
{
    int64_t kp = a->in[Q].dim[1], n_tile = TILE_CACHE / (kp * TOKENS);
    n_tile = n_tile < 1 ? 1 : n_tile > 16 ? 16 : n_tile;
    k_val zero = k_i64(k, 0), rows = k_dim_run(k, W, 0), n = k_dim(k, Q, 0), w = k_arg(k, W, K_I8);
    k_grid(k, W, 0, TILE_ROWS);
    k_val xp = k_scratch(k, K_I32, n_tile * kp * TOKENS);
    k_val codes = k_scratch(k, K_I8, TILE_ROWS * kp);
    k_val m = k_local(k, K_F32, n_tile * TOKENS), bias = k_local(k, K_I32, n_tile * TOKENS);
    k_val acc = k_local(k, K_I32, TILE_ROWS * TOKENS);
    k_val begin = k_muli(k, k_begin(k), TILE_ROWS);
    k_val end = k_min(k, k_muli(k, k_end(k), TILE_ROWS), rows);
    k_val whole = k_add(k, begin, k_and(k, k_sub(k, end, begin), k_i64(k, -TILE_ROWS)));

    k_if(k, k_lt(k, n, few_end(k)));
    few_tokens(k, a, begin, end, rows, n);
    k_else(k);
    k_val block = k_for(k, zero, n, n_tile * TOKENS);
    k_val block_end = k_min(k, k_addi(k, block, n_tile * TOKENS), n);
    k_val t0 = k_for(k, block, block_end, TOKENS);
    k_val in_block = k_sub(k, t0, block);
    pack_tokens(k, xp, k_muli(k, in_block, kp / 4), kp, t0, n);
    token_scales(k, a, t0, n, m, in_block);
    token_bias(k, t0, n, bias, in_block);
    k_stop(k);
    for (int part = 0; part < 2; part++) { /* whole groups of rows, then what is left one by one */
        int n_row = part ? 1 : TILE_ROWS;
        k_val r0 = part ? k_for(k, whole, end, 1) : k_for(k, begin, whole, TILE_ROWS);
        decode_rows(k, w, codes, kp, r0, n_row);
        t0 = k_for(k, block, block_end, TOKENS);
        in_block = k_sub(k, t0, block);
        dot_rows(k, codes, xp, k_muli(k, in_block, kp / 4), k_load(k, bias, in_block, TOKENS), acc, kp, n_row);
        store_tile(k, a, acc, k_load(k, m, in_block, TOKENS), r0, k_addi(k, r0, n_row), rows, t0, n);
        k_stop(k);
        k_stop(k);
    }
    k_stop(k); /* block */
    k_stop(k); /* if few */
}

/* ---------------------------------------------------------------- checking */

/* sum must be that of q, and scales must be positive. */
static inline void fill_product(const setun_args *a, uint64_t seed)
{
    const int8_t *q = a->in[Q].data;
    float *scale = a->in[SCALE].data, *ws = a->in[WS].data;
    int32_t *sum = a->in[SUM].data;
    int8_t *edge = a->in[Q].data;
    int64_t n = a->in[Q].dim[0], kp = a->in[Q].dim[1], k = a->in[W].dim[1];
    for (int64_t i = 0, n_scale = setun_count(&a->in[WS]); i < n_scale; i++)
        ws[i] = 0.75f + (float)((seed + (uint64_t)i) % 7) * 0.125f;
    for (int64_t t = 0; t < n; t++) {
        /* Every third row is all +-127, the worst case for narrow sums. */
        if ((t + (int64_t)seed) % 3 == 0)
            for (int64_t i = 0; i < k; i++)
                edge[t * kp + i] = (int8_t)(t % 2 ? -127 : 127);
        for (int64_t i = k; i < kp; i++)
            edge[t * kp + i] = 0;
        sum[t] = 0;
        for (int64_t i = 0; i < kp; i++)
            sum[t] += q[t * kp + i];
        scale[t] = 3.0f + (float)t * 0.37f;
    }
    /* The first row of weights is all +1 and the second all -1: with an all-127 row of q the sums are as large
     * as they get. */
    uint8_t *w = a->in[W].data;
    for (int64_t r = 0; r < 2 && r < a->in[W].dim[0]; r++)
        for (int64_t i = 0; i < kp / 4; i++) {
            uint8_t byte = 0;
            for (int64_t f = 0; f < 4; f++)
                byte = (uint8_t)(byte | (i / 32 * 128 + i % 32 + 32 * f < k ? 2 - 2 * r : 1) << (2 * f));
            w[r * kp / 4 + i] = byte;
        }
}

#endif
