/* ops/ternary_matmul_t.c -- ternary_matmul with the weights transposed: a row for each input channel.
 *
 *     y[t][o] = (float)S * (ws / scale[t]),     S = sum over i of (code[i][o] - 1) * q[t][i]
 *
 * The same integers as ternary_matmul's, hence the same bits.  Row i of w holds what channel i adds to
 * every output, so the row of a channel whose q is 0 is never read.  Behind a squared ReLU, a product
 * and a norm most channels are: 85 % in the bundled model.
 *
 * The kernel walks, for each token, the list of its channels that are not 0, four at a time.  Bytes of
 * four rows are interleaved, so that 32 bits hold the same byte of each, and dot4 adds the products with
 * the four q to the sums of 4 outputs a byte:
 *
 *     row a   a0 a1 a2 a3 ...  -+
 *     row b   b0 b1 b2 b3 ...   |   a0 b0 c0 d0 | a1 b1 c1 d1 | ...      & 0x03, 0x0c, 0x30, and
 *     row c   c0 c1 c2 c3 ...   +-> times                                of the bytes >> 2: & 0x30
 *     row d   d0 d1 d2 d3 ...  -+   qa qb qc qd | qa qb qc qd | ...
 *
 * A field left in its place makes sums that are 4 or 16 times too large, and one exact shift at the end
 * puts them right: |16 * 2 * 127 * K| < 2^30 for every K allowed.  S itself stays below 2^24, where
 * (float)S is exact, because K <= 132104; and sum over i of q is known, so codes need no - 1.
 *
 * Sums are in the order in which interleaving leaves them, and put in order once, when they are stored.
 * A worker owns a range of outputs, whose sums stay in its first-level cache (STRIP bytes of a row at a
 * time), and reads that range of every listed row.  Of several tokens a few hundred channels at a time
 * are done for all, so that weights come from memory once for TOKENS tokens.
 *
 * On machines with matrix tiles many tokens, or some with long lists, do without lists. */
#include "setun/op.h"

enum { Q, SCALE, SUM, W, WS, Y };

#define MAX_K 132104

static setun_status infer(setun_args *a, setun_error *err)
{
    static const uint32_t want[5] = {SETUN_I8, SETUN_F32, SETUN_I32, SETUN_T2, SETUN_F32}, rank[5] = {2, 1, 1, 2, 1};
    const setun_view *q = &a->in[Q], *w = &a->in[W];
    setun_status s = SETUN_OK;
    for (uint32_t i = 0; i < 5 && s == SETUN_OK; i++)
        s = setun_want(a, i, SETUN_OF(want[i]), rank[i], err);
    if (s == SETUN_OK)
        s = setun_want_range(a, W, 0, 1, MAX_K, err);
    if (s == SETUN_OK && q->dim[1] != setun_t2_padded(w->dim[0]))
        return setun_fail(err, SETUN_BAD_SHAPE, "q has %lld columns, weight wants %lld (%lld rounded up to 128)",
                          (long long)q->dim[1], (long long)setun_t2_padded(w->dim[0]), (long long)w->dim[0]);
    if (s == SETUN_OK)
        s = setun_want_equal(a, SCALE, 0, Q, 0, err);
    if (s == SETUN_OK)
        s = setun_want_equal(a, SUM, 0, Q, 0, err);
    if (s == SETUN_OK)
        s = setun_want_range(a, WS, 0, 1, 1, err);
    return s == SETUN_OK ? setun_infer_out(a, 0, SETUN_F32, 2, q->dim[0], w->dim[1], 1) : s;
}

static setun_status eval(const setun_args *a, setun_error *err)
{
    const int8_t *q = a->in[Q].data;
    const float *scale = a->in[SCALE].data, *ws = a->in[WS].data;
    const uint8_t *w = a->in[W].data;
    float *y = a->out[0].data;
    int64_t n = a->in[Q].dim[0], kp = a->in[Q].dim[1], k = a->in[W].dim[0], r = a->in[W].dim[1], bytes = setun_t2_padded(r) / 4;
    (void)err;
    for (int64_t t = 0; t < n; t++) {
        float m = ws[0] / scale[t];
        for (int64_t o = 0; o < r; o += SETUN_T2_BLOCK) {
            int32_t s[SETUN_T2_BLOCK] = {0};
            for (int64_t i = 0; i < k; i++)
                for (int f = 0; f < 4; f++)
                    for (int j = 0; j < 32; j++)
                        s[32 * f + j] += ((w[i * bytes + o / 4 + j] >> (2 * f) & 3) - 1) * q[t * kp + i];
            for (int64_t i = 0; i < SETUN_T2_BLOCK && o + i < r; i++)
                y[t * r + o + i] = (float)s[i] * m;
        }
    }
    return SETUN_OK;
}

/* ---------------------------------------------------------------- the list of channels */

#define QUAD 4       /* channels that are interleaved */
#define STRIP 1024   /* most bytes of a row at a time: sums of 4096 outputs, 16 KB */
#define AHEAD 16     /* listed channels from what is read to what is prefetched */
#define SLACK 32     /* entries behind a list: AHEAD, and what fills the last quad */

typedef struct walk {
    setun_kernel *k;
    k_val    w, q, list, value, table, acc;
    k_val    s0, s1;                       /* bytes of every row that are the strip's */
    int      near;                         /* hints are for the first-level cache, not the second */
    int64_t  row_bytes, cap;               /* cap: most bytes of a strip */
    uint32_t lanes;                        /* bytes of a row at a time */
} walk;

/* Entry m of the table holds the places of the bits of m, four bytes, the lowest first. */
static void make_table(const walk *c)
{
    setun_kernel *k = c->k;
    for (int64_t m = 0; m < 16; m++) {
        int64_t entry = 0;
        for (int64_t bit = 0, n = 0; bit < 4; bit++)
            if (m >> bit & 1)
                entry |= bit << 8 * n++;
        k_store(k, c->table, k_i64(k, 4 * m), k_cast(k, k_int(k, K_TYPE(K_I32, 1), entry), K_TYPE(K_I8, 4)));
    }
}

/* Eight channels from i on, four at a time: which are not 0 makes four bits, which choose an entry of the
 * table; all of it is written where the next active one goes, and what is too much written over. */
static void list_eight(const walk *c, k_val row, k_val i, k_val at)
{
    setun_kernel *k = c->k;
    k_val x = k_cast(k, k_load(k, c->q, k_add(k, row, i), 8), K_TYPE(K_I64, 1)), seven = k_i64(k, 0x7f7f7f7f7f7f7f7f);
    /* The top bit of a byte: its low bits carry into it, or it is set. */
    k_val some = k_or(k, k_add(k, k_and(k, x, seven), seven), x);
    some = k_and(k, k_shru(k, some, 7), k_i64(k, 0x0101010101010101));
    for (int h = 0; h < 2; h++) {
        k_val four = h ? k_shru(k, some, 32) : k_and(k, some, k_i64(k, 0xffffffff));
        /* Byte j is moved to bit 24 + j, and no two bits of the product meet; the second product's
         * top byte is the sum of the four. */
        k_val mask = k_and(k, k_shru(k, k_muli(k, four, 0x01020408), 24), k_i64(k, 15));
        k_val count = k_and(k, k_shru(k, k_muli(k, four, 0x01010101), 24), k_i64(k, 7));
        k_val place = k_zext(k, k_load(k, c->table, k_shl(k, mask, 2), 4), K_I32);
        k_val first = k_trunc(k, k_addi(k, i, 4 * h), K_I32);
        k_store(k, c->list, k_get(k, at), k_add(k, place, k_splat(k, first, 4)));
        k_set(k, at, k_add(k, k_get(k, at), count));
    }
}

/* The channels of [from, to) that are not 0 in q[row ...], and their q; gives how many.  Behind them is SLACK
 * times channel `from`, and QUAD times 0. */
static k_val list_channels(const walk *c, k_val row, k_val from, k_val to)
{
    setun_kernel *k = c->k;
    k_val zero = k_i64(k, 0), at = k_var(k, zero);
    k_val whole = k_add(k, from, k_and(k, k_sub(k, to, from), k_i64(k, -8)));
    k_val i = k_for(k, from, whole, 8);
    list_eight(c, row, i, at);
    k_stop(k);
    i = k_for(k, whole, to, 1);
    k_store(k, c->list, k_get(k, at), k_trunc(k, i, K_I32));
    k_val is_zero = k_eq(k, k_load(k, c->q, k_add(k, row, i), 1), k_int(k, K_TYPE(K_I8, 1), 0));
    k_set(k, at, k_sub(k, k_addi(k, k_get(k, at), 1), k_zext(k, is_zero, K_I64)));
    k_stop(k);
    k_store(k, c->list, k_get(k, at), k_splat(k, k_trunc(k, from, K_I32), SLACK));
    i = k_for(k, zero, k_get(k, at), QUAD);
    for (int u = 0; u < QUAD; u++) {
        k_val channel = k_sext(k, k_load(k, c->list, k_addi(k, i, u), 1), K_I64);
        k_store(k, c->value, k_addi(k, i, u), k_load(k, c->q, k_add(k, row, channel), 1));
    }
    k_stop(k);
    k_store(k, c->value, k_get(k, at), k_int(k, K_TYPE(K_I8, QUAD), 0));
    return k_get(k, at);
}

static k_val listed(const walk *c, k_val i)
{
    setun_kernel *k = c->k;
    return k_muli(k, k_sext(k, k_load(k, c->list, i, 1), K_I64), c->row_bytes);
}

/* ---------------------------------------------------------------- the walk */

/* Interleave units of `unit` bytes inside every 16: what every vector extension has as one instruction. */
static void interleave(setun_kernel *k, k_val a, k_val b, int unit, k_val out[2])
{
    int32_t mask[2][64], n = (int32_t)K_LANES(k_type_of(k, a));
    for (int32_t i = 0; i < n; i++) {
        int32_t lane = i / 16 * 16, at = i % 16, from = lane + at / (2 * unit) * unit + at % unit;
        from += at / unit % 2 ? n : 0;
        mask[0][i] = from;
        mask[1][i] = from + 8;
    }
    for (int h = 0; h < 2; h++)
        out[h] = k_shuffle(k, a, b, mask[h], (uint32_t)n);
}

/* Four rows to four vectors, whose 32-bit lanes hold a byte of each row: bytes 4 v ... 4 v + 3 of every 16 are
 * in vector v. */
static void interleave_rows(setun_kernel *k, const k_val row[QUAD], k_val out[4])
{
    k_val ab[2], cd[2];
    interleave(k, row[0], row[1], 1, ab);
    interleave(k, row[2], row[3], 1, cd);
    for (int h = 0; h < 2; h++)
        interleave(k, ab[h], cd[h], 2, out + 2 * h);
}

static const int field_shift[4] = {0, 2, 4, 4}; /* of sums, see the masks */

static void fields(setun_kernel *k, k_val v, k_val f[4])
{
    static const int64_t mask[4] = {0x03, 0x0c, 0x30, 0x30};
    uint32_t n = K_LANES(k_type_of(k, v));
    /* On 16-bit lanes, which every ISA can shift; bits that cross a byte are masked off. */
    k_val h = k_cast(k, k_shru(k, k_cast(k, v, K_TYPE(K_I16, n / 2)), 2), K_TYPE(K_I8, n));
    for (int i = 0; i < 4; i++)
        f[i] = k_and(k, i == 3 ? h : v, k_int(k, K_TYPE(K_I8, n), mask[i]));
}

/* Where the sums of field f of vector v of the chunk at byte b are, of the token whose sums begin at base. */
static k_val sums_at(const walk *c, k_val base, k_val b, int v, int f)
{
    setun_kernel *k = c->k;
    return k_addi(k, k_add(k, base, k_shl(k, k_sub(k, b, c->s0), 2)), (int64_t)(4 * v + f) * (c->lanes / 4));
}

/* Add what `count` listed channels give to the sums that begin at base.  Hints for four rows in turn go to pages side
 * by side as they are.  With several tokens the sums fill the first-level cache, and its own misses take what room it has
 * for lines that are asked for: there hints bring rows to the second level only, between the dot products. */
static void add_listed(const walk *c, k_val count, k_val base)
{
    setun_kernel *k = c->k;
    uint32_t n = c->lanes;
    k_val i = k_for(k, k_i64(k, 0), k_i64(k, AHEAD), 1), early = listed(c, i);
    k_val line = k_for(k, c->s0, c->s1, 64);
    k_prefetch(k, c->w, k_add(k, early, line), c->near ? 3 : 2);
    k_stop(k);
    k_stop(k);
    k_val g = k_for(k, k_i64(k, 0), count, QUAD), at[QUAD], later[QUAD], row[QUAD], v[4], f[4];
    for (int u = 0; u < QUAD; u++) {
        at[u] = listed(c, k_addi(k, g, u));
        later[u] = listed(c, k_addi(k, g, u + AHEAD));
    }
    k_val q4 = k_cast(k, k_load(k, c->value, g, QUAD), K_TYPE(K_I32, 1));
    q4 = k_cast(k, k_splat(k, q4, n / 4), K_TYPE(K_I8, n));
    k_val b = k_for(k, c->s0, c->s1, n);
    for (int u = 0; u < QUAD; u++) {
        row[u] = k_load(k, c->w, k_add(k, at[u], b), n);
        if (c->near)
            k_prefetch(k, c->w, k_add(k, later[u], b), 3);
    }
    interleave_rows(k, row, v);
    for (int j = 0; j < 4; j++) {
        if (!c->near)
            k_prefetch(k, c->w, k_add(k, later[j], b), 2);
        fields(k, v[j], f);
        for (int s = 0; s < 4; s++) {
            k_val to = sums_at(c, base, b, j, s);
            k_store(k, c->acc, to, k_dot4(k, k_load(k, c->acc, to, n / 4), f[s], q4));
        }
    }
    k_stop(k);
    k_stop(k);
}

/* y of token t in the strip. */
static void store_sums(const walk *c, const setun_args *a, k_val base, k_val t)
{
    setun_kernel *k = c->k;
    int64_t r = a->in[W].dim[1], n = c->lanes;
    int whole = r % 128 == 0; /* otherwise the last block is stored one by one */
    k_val y = k_arg(k, Y, K_F32), zero = k_i64(k, 0), to = whole ? y : k_local(k, K_F32, 4 * n);
    k_val m = k_div(k, k_load(k, k_arg(k, WS, K_F32), zero, 1), k_load(k, k_arg(k, SCALE, K_F32), t, 1));
    k_val bias = k_splat(k, k_load(k, k_arg(k, SUM, K_I32), t, 1), 16), m16 = k_splat(k, m, 16);
    k_val b = k_for(k, c->s0, c->s1, n), row = k_muli(k, t, r), first = k_add(k, row, k_shl(k, b, 2));
    for (int f = 0; f < 4; f++)
        for (int l = 0; l < n / 16; l++) { /* 16 bytes of a field: 16 outputs in a row */
            k_val part[4];
            for (int v = 0; v < 4; v++)
                part[v] = k_load(k, c->acc, k_addi(k, sums_at(c, base, b, v, f), 4 * l), 4);
            k_val s = k_concat(k, k_concat(k, part[0], part[1]), k_concat(k, part[2], part[3]));
            s = field_shift[f] ? k_shrs(k, s, field_shift[f]) : s;
            s = k_mul(k, k_i2f(k, k_sub(k, s, bias)), m16);
            k_store(k, to, k_addi(k, whole ? first : zero, 128 * (l / 2) + 32 * f + 16 * (l % 2)), s);
        }
    if (!whole) {
        k_val count = k_min(k, k_i64(k, 4 * n), k_sub(k, k_i64(k, r), k_shl(k, b, 2)));
        k_val i = k_for(k, zero, count, 1);
        k_store(k, y, k_add(k, first, i), k_load(k, to, i, 1));
        k_stop(k);
    }
    k_stop(k);
}

/* ---------------------------------------------------------------- many tokens: matrix tiles
 *
 * A tile instruction adds the products of 16 tokens with 16 outputs over 64 channels, and wants four
 * channels of an output in a dword: what interleaving four rows gives.  At some hundred multiply-adds a
 * cycle nothing is gained by skipping.  STAGE bytes of every row, read once, are interleaved to
 *
 *     stage[32 bytes of the row][half of them][quad of channels][16 outputs][channel of the quad]
 *
 * Two fields of a half of 32 bytes are two tiles of outputs; they are decoded 128 channels at a time, in the
 * first-level cache, while the ones before meet 32 tokens.  Decoding takes less time than the products, so it
 * is done again for the next 32 tokens: decoded for all channels, the codes would go through the
 * second-level cache, which took longer. */

#define SIDE 16       /* tokens and outputs of a tile */
#define TOKENS 32     /* two tiles of tokens meet two of outputs */
#define NEAR 64       /* tokens that all outputs of the stage meet in turn: they stay in cache, too */
#define STAGE 128     /* two lines, which memory gives together: more would not stay in cache */
#define MATRIX_LEAST 24 /* tokens for which decoding pays */

typedef struct matrix {
    setun_kernel *k;
    k_val   w, stage, pad, tiles, acc;
    int64_t kp, channels, row_bytes;
} matrix;

/* Bytes [s0, s1) of every row; channels past the end meet a q of 0, so they may have any weights. */
static void stage_rows(const matrix *c, k_val s0, k_val s1)
{
    setun_kernel *k = c->k;
    k_val i = k_for(k, k_i64(k, 0), k_i64(k, c->kp), QUAD), at[QUAD], row[QUAD], v[4];
    for (int u = 0; u < QUAD; u++) {
        at[u] = k_addi(k, i, u);
        at[u] = c->channels % 128 ? k_min(k, at[u], k_i64(k, c->channels - 1)) : at[u];
        at[u] = k_muli(k, at[u], c->row_bytes);
    }
    k_val b = k_for(k, s0, s1, 32);
    for (int u = 0; u < QUAD; u++) {
        row[u] = k_load(k, c->w, k_add(k, at[u], b), 32);
        k_prefetch(k, c->w, k_addi(k, k_add(k, at[u], b), 2 * AHEAD * c->row_bytes), 3);
    }
    interleave_rows(k, row, v);
    k_val to = k_add(k, k_muli(k, k_sub(k, b, s0), c->kp), k_muli(k, i, SIDE));
    for (int h = 0; h < 2; h++) {
        k_val part[4];
        for (int j = 0; j < 4; j++)
            part[j] = k_slice(k, v[j], 16 * h, 16);
        k_val x = k_concat(k, k_concat(k, part[0], part[1]), k_concat(k, part[2], part[3]));
        k_store(k, c->stage, k_addi(k, to, h * SIDE * c->kp), x);
    }
    k_stop(k);
    k_stop(k);
}

/* Fields 2 p and 2 p + 1 of 64 channels, 16 staged rows of 64 bytes from `at` on, to two tiles. */
static void decode_tiles(const matrix *c, k_val at, int p, int64_t to)
{
    setun_kernel *k = c->k;
    k_val three = k_int(k, K_TYPE(K_I8, 64), 3);
    for (int64_t i = 0; i < SIDE; i++) {
        k_val x = k_cast(k, k_load(k, c->stage, k_addi(k, at, 64 * i), 64), K_TYPE(K_I16, 32));
        for (int j = 0; j < 2; j++) {
            int shift = 2 * (2 * p + j);
            k_val y = k_cast(k, shift ? k_shru(k, x, shift) : x, K_TYPE(K_I8, 64));
            k_store(k, c->tiles, k_i64(k, to + 64 * (SIDE * j + i)), k_and(k, y, three));
        }
    }
}

/* y of `count` outputs from o on and 32 tokens, `valid` of them, whose sums are acc[token][at ...]. */
static void matrix_put(const matrix *c, const setun_args *a, k_val o, k_val at, uint32_t count, k_val t0, k_val valid)
{
    setun_kernel *k = c->k;
    k_val zero = k_i64(k, 0), t = k_for(k, zero, valid, 1), token = k_add(k, t0, t);
    k_val m = k_div(k, k_load(k, k_arg(k, WS, K_F32), zero, 1), k_load(k, k_arg(k, SCALE, K_F32), token, 1));
    k_val bias = k_splat(k, k_load(k, k_arg(k, SUM, K_I32), token, 1), count);
    k_val s = k_load(k, c->acc, k_add(k, k_muli(k, t, 2 * SIDE), at), count);
    s = k_mul(k, k_i2f(k, k_sub(k, s, bias)), k_splat(k, m, count));
    k_store(k, k_arg(k, Y, K_F32), k_add(k, k_muli(k, token, a->in[W].dim[1]), o), s);
    k_stop(k);
}

/* 16 outputs from o on and 16 from o + 32 on, fields of the staged bytes from base on, and 32 tokens, whose
 * activations begin at x[at] and of which `valid` exist. */
static void matrix_block(const matrix *c, const setun_args *a, k_val base, int p, k_val o, k_val x, k_val at, k_val t0, k_val valid)
{
    setun_kernel *k = c->k;
    k_val zero = k_i64(k, 0), outputs = k_i64(k, a->in[W].dim[1]);
    for (int i = 0; i < 4; i++)
        k_tile_zero(k, i);
    k_val two = k_for(k, zero, k_i64(k, c->kp), 128), staged = k_add(k, base, k_muli(k, two, SIDE));
    for (int g = 0; g < 2; g++)
        decode_tiles(c, k_addi(k, staged, g * 64 * SIDE), p, g * 2 * 64 * SIDE);
    for (int g = 0; g < 2; g++) {
        for (int i = 0; i < 2; i++)
            k_tile_load(k, 4 + i, x, k_addi(k, k_add(k, at, two), i * SIDE * c->kp + 64 * g), c->kp);
        for (int j = 0; j < 2; j++) {
            k_tile_load(k, 6 + j, c->tiles, k_i64(k, (2 * g + j) * 64 * SIDE), 64);
            for (int i = 0; i < 2; i++)
                k_tile_dot(k, 2 * i + j, 4 + i, 6 + j);
        }
    }
    k_stop(k);
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 2; j++)
            k_tile_store(k, 2 * i + j, c->acc, k_i64(k, SIDE * (i * 2 * SIDE + j)), 2 * SIDE);
    for (int64_t j = 0; j < 2; j++) {
        k_val first = k_addi(k, o, 32 * j);
        if (a->in[W].dim[1] % 128 == 0) {
            matrix_put(c, a, first, k_i64(k, SIDE * j), SIDE, t0, valid);
            continue;
        }
        k_val count = k_min(k, k_i64(k, SIDE), k_sub(k, outputs, first)), i = k_for(k, zero, count, 1);
        matrix_put(c, a, k_add(k, first, i), k_addi(k, i, SIDE * j), 1, t0, valid);
        k_stop(k);
    }
}

/* All outputs of the stage and tokens [from, to): whole tiles of them, or fewer than one, which x begins with. */
static void matrix_stage(const matrix *c, const setun_args *a, k_val s0, k_val s1, k_val x, k_val from, k_val to, int is_rest)
{
    setun_kernel *k = c->k;
    k_val half = k_for(k, s0, s1, 16); /* bytes 0 to 15, and 16 to 31, of a block of 128 outputs */
    k_val o = k_add(k, k_shl(k, k_and(k, half, k_i64(k, -32)), 2), k_and(k, half, k_i64(k, 16)));
    k_val base = k_muli(k, k_sub(k, half, s0), c->kp);
    for (int p = 0; p < 2; p++) {
        k_val first = k_addi(k, o, 64 * p), t0 = is_rest ? from : k_for(k, from, to, TOKENS);
        k_val at = is_rest ? k_i64(k, 0) : k_muli(k, t0, c->kp);
        matrix_block(c, a, base, p, first, x, at, t0, is_rest ? k_sub(k, to, from) : k_i64(k, TOKENS));
        if (!is_rest)
            k_stop(k);
    }
    k_stop(k);
}

/* Bytes [b0, b1) of the rows, all tokens. */
static void matrix_tokens(setun_kernel *k, const setun_args *a, k_val b0, k_val b1)
{
    matrix c = {.k = k, .kp = a->in[Q].dim[1], .channels = a->in[W].dim[0], .row_bytes = setun_t2_padded(a->in[W].dim[1]) / 4};
    k_val q = k_arg(k, Q, K_I8), zero = k_i64(k, 0), n = k_dim(k, Q, 0), last = k_addi(k, n, -1);
    k_val whole = k_and(k, n, k_i64(k, -TOKENS));
    c.w = k_arg(k, W, K_I8);
    c.stage = k_scratch(k, K_I8, STAGE * c.kp);
    c.pad = k_scratch(k, K_I8, TOKENS * c.kp);
    c.tiles = k_local(k, K_I8, 4 * 64 * SIDE);
    c.acc = k_local(k, K_I32, TOKENS * 2 * SIDE);
    /* The last tokens, fewer than 32, are copied, with the last one again behind them. */
    k_if(k, k_lt(k, whole, n));
    k_val t = k_for(k, zero, k_i64(k, TOKENS), 1), from = k_muli(k, k_min(k, k_add(k, whole, t), last), c.kp);
    k_val i = k_for(k, zero, k_i64(k, c.kp), 128);
    k_store(k, c.pad, k_add(k, k_muli(k, t, c.kp), i), k_load(k, q, k_add(k, from, i), 128));
    k_stop(k);
    k_stop(k);
    k_stop(k);
    k_val s0 = k_for(k, b0, b1, STAGE), s1 = k_min(k, k_addi(k, s0, STAGE), b1);
    stage_rows(&c, s0, s1);
    k_val near0 = k_for(k, zero, whole, NEAR), near1 = k_min(k, k_addi(k, near0, NEAR), whole);
    matrix_stage(&c, a, s0, s1, q, near0, near1, 0);
    k_stop(k);
    k_if(k, k_lt(k, whole, n));
    matrix_stage(&c, a, s0, s1, c.pad, whole, n, 1);
    k_stop(k);
    k_stop(k); /* s0 */
}

/* ---------------------------------------------------------------- some tokens: matrix tiles
 *
 * Each token adds what its own list names, so lists cost as many times more as there are tokens; up to 16 tokens in a
 * tile cost what one costs.  So where the lists together are long, all rows are read, in order, CHUNK of them at a time:
 *
 *     stage[v][quad of channels][16 outputs][channel of the quad]      64 bytes of each row, interleaved; v as above
 *     stage --fields--> four tiles of 64 channels by 16 outputs        in one of two buffers, while those in the other
 *                                                                      are multiplied, as in ternary_matrix_few.h
 * Sums are where the lists have them, a row of a tile for each token: they are loaded and stored once a chunk. */

#define FEW SIDE       /* tokens: one tile */
#define FEW_SHARE 250  /* lists together are long if they name so many per cent of the channels */
#define CHUNK 256      /* channels: their 64 bytes stay in the first-level cache */
#define STEP 64        /* channels of a tile */
#define TILE_BYTES (SIDE * STEP)

typedef struct few {
    walk    c;
    k_val   x, stage, tiles, n; /* activations as 64 channels of all tokens, then the next 64; tokens */
    int64_t kp, channels;
} few;

/* Are the lists of all tokens together long?  Of whole rows of q, so that every worker finds the same. */
static k_val has_many(setun_kernel *k, const setun_args *a)
{
    k_type bytes = K_TYPE(K_I8, 64);
    k_val all = k_muli(k, k_dim(k, Q, 0), a->in[Q].dim[1]), q = k_arg(k, Q, K_I8);
    k_val sums = k_var(k, k_int(k, K_TYPE(K_I32, 16), 0)), i = k_for(k, k_i64(k, 0), all, 64);
    k_val is_zero = k_zext(k, k_eq(k, k_load(k, q, i, 64), k_int(k, bytes, 0)), K_I8);
    k_set(k, sums, k_dot4(k, k_get(k, sums), is_zero, k_int(k, bytes, 1)));
    k_stop(k);
    k_val used = k_sub(k, all, k_sext(k, k_rsum(k, k_get(k, sums)), K_I64));
    return k_lt(k, k_i64(k, FEW_SHARE * a->in[W].dim[0]), k_muli(k, used, 100));
}

/* q in the order of tiles, zeros behind its last column. */
static void few_pack(const few *f)
{
    setun_kernel *k = f->c.k;
    int64_t steps = f->kp / STEP, padded = (f->kp + CHUNK - 1) / CHUNK * (CHUNK / STEP);
    k_val t = k_for(k, k_i64(k, 0), f->n, 1);
    for (int behind = 0; behind < 2; behind++) {
        k_val s = k_for(k, k_i64(k, behind ? steps : 0), k_i64(k, behind ? padded : steps), 1);
        k_val v = behind ? k_int(k, K_TYPE(K_I8, STEP), 0)
                         : k_load(k, f->c.q, k_add(k, k_muli(k, t, f->kp), k_muli(k, s, STEP)), STEP);
        k_store(k, f->x, k_muli(k, k_add(k, k_mul(k, s, f->n), t), STEP), v);
        k_stop(k);
    }
    k_stop(k);
}

/* Bytes b ... b + 63 of the rows of CHUNK channels from c0 on; past the last it is repeated, and meets a q of 0.
 * Meanwhile hints for lines of the next chunk: of four rows in turn that lie some pages apart, of each row one line
 * after the other.  at, row: of the next hint, the byte in its row and the row's first byte. */
static void few_stage(const few *f, k_val c0, k_val b, k_val at, k_val row)
{
    setun_kernel *k = f->c.k;
    k_val i = k_for(k, k_i64(k, 0), k_i64(k, CHUNK), QUAD), v[QUAD], out[4];
    for (int u = 0; u < QUAD; u++) {
        k_val channel = k_add(k, c0, k_addi(k, i, u));
        channel = f->channels % CHUNK ? k_min(k, channel, k_i64(k, f->channels - 1)) : channel;
        v[u] = k_load(k, f->c.w, k_add(k, k_muli(k, channel, f->c.row_bytes), b), 64);
        k_val later = k_muli(k, k_addi(k, c0, CHUNK + u * (CHUNK / QUAD)), f->c.row_bytes);
        k_prefetch(k, f->c.w, k_add(k, later, k_add(k, k_get(k, row), k_get(k, at))), 2);
    }
    interleave_rows(k, v, out);
    for (int j = 0; j < 4; j++)
        k_store(k, f->stage, k_addi(k, k_muli(k, i, SIDE), j * CHUNK * SIDE), out[j]);
    k_val next = k_addi(k, k_get(k, at), K_LINE), more = k_lt(k, next, f->c.s1);
    k_set(k, row, k_select(k, more, k_get(k, row), k_addi(k, k_get(k, row), f->c.row_bytes)));
    k_set(k, at, k_select(k, more, next, f->c.s0));
    k_stop(k);
}

/* What the staged bytes of vector v give to the sums of 64 outputs from acc[to] on. */
static void few_vector(const few *f, k_val c0, k_val v, k_val to)
{
    setun_kernel *k = f->c.k;
    k_val from = k_muli(k, v, CHUNK * SIDE), step = k_udiv(k, c0, k_i64(k, STEP)), part[4];
    for (int j = 0; j < 4; j++)
        k_tile_load(k, j, f->c.acc, k_addi(k, to, SIDE * j), 4 * f->c.cap);
    for (int64_t s = 0; s <= CHUNK / STEP; s++)
        for (int64_t i = 0; i < SIDE; i++) {
            if (s < CHUNK / STEP) {
                fields(k, k_load(k, f->stage, k_addi(k, from, (s * SIDE + i) * 64), 64), part);
                for (int64_t j = 0; j < 4; j++)
                    k_store(k, f->tiles, k_i64(k, (s % 2 * 4 + j) * TILE_BYTES + 64 * i), part[j]);
            }
            int64_t j = i / 4, old = s - 1;
            if (i % 4 != 3 || old < 0)
                continue;
            if (j == 0)
                k_tile_load(k, 4 + old % 2, f->x, k_muli(k, k_mul(k, k_addi(k, step, old), f->n), STEP), STEP);
            k_tile_load(k, 6 + j % 2, f->tiles, k_i64(k, (old % 2 * 4 + j) * TILE_BYTES), 64);
            k_tile_dot(k, j, 4 + old % 2, 6 + j % 2);
        }
    for (int j = 0; j < 4; j++)
        k_tile_store(k, j, f->c.acc, k_addi(k, to, SIDE * j), 4 * f->c.cap);
}

/* Bytes [b0, b1) of the rows, a multiple of 64, and at most FEW tokens. */
static void few_tokens(setun_kernel *k, const setun_args *a, k_val b0, k_val b1)
{
    k_val zero = k_i64(k, 0);
    few f = {.c = {.k = k, .row_bytes = setun_t2_padded(a->in[W].dim[1]) / 4, .lanes = 64}, .n = k_dim(k, Q, 0),
             .kp = a->in[Q].dim[1], .channels = a->in[W].dim[0]};
    f.c.cap = f.c.row_bytes < STRIP ? f.c.row_bytes : STRIP;
    f.c.w = k_arg(k, W, K_I8);
    f.c.q = k_arg(k, Q, K_I8);
    f.c.acc = k_scratch(k, K_I32, FEW * 4 * f.c.cap * 4);
    f.x = k_scratch(k, K_I8, FEW * (f.kp + CHUNK));
    f.stage = k_local(k, K_I8, 64 * CHUNK);
    f.tiles = k_local(k, K_I8, 8 * TILE_BYTES);
    few_pack(&f);
    f.c.s0 = k_for(k, b0, b1, f.c.cap);
    f.c.s1 = k_min(k, k_addi(k, f.c.s0, f.c.cap), b1);
    k_val i = k_for(k, zero, k_i64(k, FEW * 4 * f.c.cap), 16);
    k_store(k, f.c.acc, i, k_int(k, K_TYPE(K_I32, 16), 0));
    k_stop(k);
    k_val c0 = k_for(k, zero, k_i64(k, f.channels), CHUNK), at = k_var(k, f.c.s0), row = k_var(k, zero);
    k_val b = k_for(k, f.c.s0, f.c.s1, 64);
    few_stage(&f, c0, b, at, row);
    k_val v = k_for(k, zero, k_i64(k, 4), 1);
    few_vector(&f, c0, v, k_add(k, sums_at(&f.c, zero, b, 0, 0), k_muli(k, v, 4 * SIDE)));
    k_stop(k);
    k_stop(k);
    k_stop(k);
    k_val t = k_for(k, zero, f.n, 1);
    store_sums(&f.c, a, k_muli(k, t, 4 * f.c.cap), t);
    k_stop(k);
    k_stop(k); /* strip */
}

/* ---------------------------------------------------------------- choosing */

static int64_t between(int64_t least, int64_t n, int64_t most)
{
    return n < least ? least : n > most ? most : n;
}

/* The walk over the lists of all tokens, for bytes [b0, b1) of the rows, b1 - b0 a multiple of lanes. */
static void walk_tokens(setun_kernel *k, const setun_args *a, uint32_t lanes, k_val b0, k_val b1)
{
    int64_t kp = a->in[Q].dim[1], channels = a->in[W].dim[0], n_token = 1, block = channels;
    walk c = {.k = k, .row_bytes = setun_t2_padded(a->in[W].dim[1]) / 4, .lanes = lanes, .near = a->in[Q].dim[0] == 1};
    c.cap = c.row_bytes < STRIP ? c.row_bytes : STRIP;
    if (a->in[Q].dim[0] != 1) { /* the sums of all tokens, and the block of channels, stay in the second-level cache */
        n_token = between(16, k_info(k, K_L2_BYTES) / 3 / (16 * c.cap), 64);
        block = between(128, k_info(k, K_L2_BYTES) / 4 / c.cap, 4096) / 8 * 8;
        block = block < channels ? block : channels;
    }
    c.w = k_arg(k, W, K_I8);
    c.q = k_arg(k, Q, K_I8);
    c.list = k_scratch(k, K_I32, (block + SLACK) * 4);
    c.value = k_scratch(k, K_I8, block + SLACK);
    c.table = k_scratch(k, K_I8, 64);
    c.acc = k_scratch(k, K_I32, n_token * c.cap * 16);

    make_table(&c);
    k_val zero = k_i64(k, 0), n = k_dim(k, Q, 0), all = k_i64(k, channels);
    c.s0 = k_for(k, b0, b1, c.cap);
    c.s1 = k_min(k, k_addi(k, c.s0, c.cap), b1);
    k_val t0 = k_for(k, zero, n, n_token), t1 = k_min(k, k_addi(k, t0, n_token), n);
    k_val words = k_shl(k, k_sub(k, c.s1, c.s0), 2);

    k_val t = k_for(k, t0, t1, 1), base = k_muli(k, k_sub(k, t, t0), 4 * c.cap);
    k_val i = k_for(k, zero, words, c.lanes / 4);
    k_store(k, c.acc, k_add(k, base, i), k_int(k, K_TYPE(K_I32, c.lanes / 4), 0));
    k_stop(k);
    k_stop(k);
    k_val from = k_for(k, zero, all, block), to = k_min(k, k_addi(k, from, block), all);
    t = k_for(k, t0, t1, 1);
    k_val count = list_channels(&c, k_muli(k, t, kp), from, to);
    add_listed(&c, count, k_muli(k, k_sub(k, t, t0), 4 * c.cap));
    k_stop(k);
    k_stop(k);
    t = k_for(k, t0, t1, 1);
    store_sums(&c, a, k_muli(k, k_sub(k, t, t0), 4 * c.cap), t);
    k_stop(k);
    k_stop(k); /* t0 */
    k_stop(k); /* strip */
}

static setun_status lower(setun_kernel *k, const setun_args *a, setun_error *err)
{
    int64_t row_bytes = setun_t2_padded(a->in[W].dim[1]) / 4;
    uint32_t lanes = k_info(k, K_VECTOR_BYTES) >= 64 && row_bytes % 64 == 0 ? 64 : 32;
    int has_matrix = k_info(k, K_HAS_TILES) != 0 && a->in[Q].dim[0] != 1;
    (void)err;
    k_grid(k, W, 1, 4 * (int64_t)lanes);
    k_val b0 = k_muli(k, k_begin(k), lanes), b1 = k_muli(k, k_end(k), lanes);
    if (has_matrix) {
        k_if(k, k_le(k, k_i64(k, MATRIX_LEAST), k_dim(k, Q, 0)));
        matrix_tokens(k, a, b0, b1);
        k_else(k);
    }
    if (has_matrix && lanes == 64) {
        k_if(k, k_and(k, k_le(k, k_dim(k, Q, 0), k_i64(k, FEW)), has_many(k, a)));
        few_tokens(k, a, b0, b1);
        k_else(k);
    }
    walk_tokens(k, a, lanes, b0, b1);
    if (has_matrix && lanes == 64)
        k_stop(k);
    if (has_matrix)
        k_stop(k);
    return SETUN_OK;
}

/* As if no channel were 0: which are is not known before the run. */
static void cost(const setun_args *a, setun_cost *c)
{
    double n = setun_cost_count(&a->in[SCALE]), k = (double)a->in[W].dim[0], r = (double)a->in[W].dim[1];
    c->int_ops = n * k * r;
    c->float_ops = n * r;
    c->bytes = k * (double)setun_t2_padded(a->in[W].dim[1]) / 4 + n * (double)a->in[Q].dim[1] + 4 * n * r;
}

/* Few tokens read the rows of the channels that any of them uses, and each adds its own.  Of many tokens, and where the
 * lists are long, all rows are counted, for all of them: so it is with matrix tiles, and nearly so without. */
static void counted(const setun_args *a, setun_counted *c)
{
    const int8_t *q = a->in[Q].data;
    int64_t n = a->in[Q].dim[0], kp = a->in[Q].dim[1], k = a->in[W].dim[0], used = 0, read = 0;
    setun_cost whole;
    cost(a, &whole);
    c->int_ops = whole.int_ops;
    c->float_ops = whole.float_ops;
    c->bytes = whole.bytes;
    if (n >= MATRIX_LEAST)
        return;
    for (int64_t i = 0; i < k; i++) {
        int64_t before = used;
        for (int64_t t = 0; t < n; t++)
            used += q[t * kp + i] != 0;
        read += used > before;
    }
    if (n > 1 && n <= FEW && used * 100 > k * FEW_SHARE)
        return;
    c->rows = (double)read;
    c->row_bytes = (double)setun_t2_padded(a->in[W].dim[1]) / 4;
    c->int_ops = (double)used * (double)a->in[W].dim[1];
    c->bytes -= (double)(k - read) * c->row_bytes;
}

/* Rows of q by turns: all +-127, the worst case; one channel in seven; none; one; three in four.  Output 0 has
 * nothing but +1.  sum must be that of q, and scales must be positive. */
static void fill(const setun_args *a, uint64_t seed)
{
    int8_t *q = a->in[Q].data;
    float *scale = a->in[SCALE].data, *ws = a->in[WS].data;
    int32_t *sum = a->in[SUM].data;
    uint8_t *w = a->in[W].data;
    int64_t n = a->in[Q].dim[0], kp = a->in[Q].dim[1], k = a->in[W].dim[0], row_bytes = setun_t2_padded(a->in[W].dim[1]) / 4;
    ws[0] = 0.75f + (float)(seed % 7) * 0.125f;
    for (int64_t i = 0; i < k; i++)
        w[i * row_bytes] = (uint8_t)((w[i * row_bytes] & ~3) | 2);
    for (int64_t t = 0; t < n; t++, q += kp) {
        int64_t kind = (t + (int64_t)seed + k) % 5, only = k * 2 / 3;
        sum[t] = 0;
        for (int64_t i = 0; i < kp; i++) {
            int keep = kind == 1 ? i % 7 == t % 7 : kind == 2 ? 0 : kind == 3 ? i == only : kind == 4 ? i % 4 != 1 : 1;
            q[i] = (int8_t)(i >= k || !keep ? 0 : kind == 0 ? (t % 2 ? -127 : 127) : q[i] ? q[i] : 1);
            sum[t] += q[i];
        }
        scale[t] = 3.0f + (float)t * 0.37f;
    }
}

static const setun_port in[] = {
    {"q", "i8[n,K]: quantised activations in -127..127, rows padded with 0 to K, a multiple of 128", 0, 0},
    {"scale", "f32[n]: what the activations were multiplied with", 0, 0},
    {"sum", "i32[n]: sum of each row of q", 0, 0},
    {"w", "t2[k,r]: ternary weights; row i is what column i of q is multiplied with", 0, 0},
    {"ws", "f32[1]: weight scale, multiplied", 0, 0},
};
static const setun_port out[] = {{"y", "f32[n,r]", 0, 0}};

static const char *const cases[] = {
    "q:i8[1,128] scale:f32[1] sum:i32[1] w:t2[1,1] ws:f32[1]",
    "q:i8[1,128] scale:f32[1] sum:i32[1] w:t2[7,129] ws:f32[1]",
    "q:i8[1,256] scale:f32[1] sum:i32[1] w:t2[129,7] ws:f32[1]",
    "q:i8[1,128] scale:f32[1] sum:i32[1] w:t2[128,256] ws:f32[1]",
    "q:i8[1,256] scale:f32[1] sum:i32[1] w:t2[131,129] ws:f32[1]",
    "q:i8[1,384] scale:f32[1] sum:i32[1] w:t2[300,512] ws:f32[1]",
    "q:i8[1,256] scale:f32[1] sum:i32[1] w:t2[133,640] ws:f32[1]",
    "q:i8[1,128] scale:f32[1] sum:i32[1] w:t2[127,4480] ws:f32[1]",
    "q:i8[1,6912] scale:f32[1] sum:i32[1] w:t2[6912,128] ws:f32[1]",
    "q:i8[1,1024] scale:f32[1] sum:i32[1] w:t2[1021,256] ws:f32[1]",
    "q:i8[n1,256] scale:f32[n1] sum:i32[n1] w:t2[136,256] ws:f32[1]",
    "q:i8[n2,256] scale:f32[n2] sum:i32[n2] w:t2[129,129] ws:f32[1]",
    "q:i8[n7,512] scale:f32[n7] sum:i32[n7] w:t2[500,256] ws:f32[1]",
    "q:i8[n16,128] scale:f32[n16] sum:i32[n16] w:t2[7,1] ws:f32[1]",
    "q:i8[n65,256] scale:f32[n65] sum:i32[n65] w:t2[200,131] ws:f32[1]",
    "q:i8[n70,1152] scale:f32[n70] sum:i32[n70] w:t2[1101,128] ws:f32[1]",
    "q:i8[n33,128] scale:f32[n33] sum:i32[n33] w:t2[128,290] ws:f32[1]",
    "q:i8[n64,256] scale:f32[n64] sum:i32[n64] w:t2[193,512] ws:f32[1]",
    "q:i8[n35,128] scale:f32[n35] sum:i32[n35] w:t2[9,160] ws:f32[1]",
    "q:i8[3,256] scale:f32[3] sum:i32[3] w:t2[201,384] ws:f32[1]",
    "q:i8[n13,640] scale:f32[n13] sum:i32[n13] w:t2[521,1280] ws:f32[1]",
    "q:i8[n10,256] scale:f32[n10] sum:i32[n10] w:t2[133,4600] ws:f32[1]",
    "q:i8[n16,384] scale:f32[n16] sum:i32[n16] w:t2[384,500] ws:f32[1]",
    "q:i8[15,640] scale:f32[15] sum:i32[15] w:t2[513,256] ws:f32[1]",
    NULL,
};

SETUN_OP(ternary_matmul_t) = {
    .size = sizeof(setun_op), .version = 1,
    .name = "ternary_matmul_t",
    .doc = "ternary_matmul of transposed weights: a row for each column of q, not read where q is 0.",
    .in = in, .out = out, .n_in = SETUN_LEN(in), .n_out = SETUN_LEN(out),
    .infer = infer, .eval = eval, .lower = lower, .cost = cost, .counted = counted, .fill = fill, .cases = cases,
};
