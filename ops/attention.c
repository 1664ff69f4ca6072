/* ops/attention.c -- causal attention of grouped query heads over a cache of keys and values.
 *
 * Query head j uses kv head j / (H / h).  Row t sees keys 0 .. pos[t]:
 *
 *     s_j = (q . k_j in 32 stripes) * scale          m = largest s_j, NaN not counted
 *     e_j = exp(s_j - m)                             den = sum of e_j in stripes over j
 *     y   = (sum over blocks of 128 keys of (sum over the block of e_j v_j)) / den
 *
 * Everything counts keys from the start of the cache, so how a prompt was cut into calls, the
 * number of rows of a call and the number of threads never show in the bits.
 * A NaN among the scores counts as exp = 0; when no score is a number, y is 0 / 0.
 *
 * Kernel: a unit is one kv head and one row, or a tile of four rows when there may be many; the
 * query heads that share the kv head are done together.
 *   1. scores, 16 keys at a time.  The halving tree of 16 sums is done with 16 lanes full: after
 *      the first halving (32 to 16 lanes) two sums are joined and halved together, and so on, until
 *      one vector holds 16 scores.  Keys are widened and lined up once for all rows and heads.
 *   2. per row and head: maximum, exponentials, their sum.
 *   3. per block of 128 keys and few columns of v (widened once for a tile): sums of up to four
 *      heads in registers.
 * eval refuses a position outside the cache; a kernel's caller has checked. */
#include "setun/op.h"

enum { Q, K, V, POS, Y };

#define BATCH 16     /* keys whose scores are made together */
#define BLOCK 128    /* keys whose weighted values are summed before they join the total */
#define MAX_HEAD 512 /* the score kernel is unrolled over a head */
#define MAX_SHARE 4  /* heads whose sums are held in registers together */
#define TILE 4       /* rows of a unit when there may be many */
#define MAX_SCORES (1 << 23) /* floats of scratch for scores, per worker */

static const float minus_infinity = -(float)INFINITY;

static setun_status infer(setun_args *a, setun_error *err)
{
    const setun_view *q = &a->in[Q], *kv = &a->in[K];
    setun_text t, u;
    setun_status s = setun_want(a, Q, SETUN_OF(SETUN_F32), 3, err);
    if (s == SETUN_OK)
        s = setun_want(a, K, SETUN_FLOATS, 3, err);
    if (s == SETUN_OK)
        s = setun_want(a, V, SETUN_OF(kv->dtype), 3, err);
    if (s == SETUN_OK)
        s = setun_want(a, POS, SETUN_OF(SETUN_I32), 1, err);
    for (uint32_t d = 0; s == SETUN_OK && d < 3; d++)
        s = setun_want_equal(a, V, d, K, d, err);
    if (s == SETUN_OK)
        s = setun_want_equal(a, Q, 2, K, 2, err);
    if (s == SETUN_OK)
        s = setun_want_equal(a, POS, 0, Q, 0, err);
    if (s != SETUN_OK)
        return s;
    if (q->dim[1] % kv->dim[1])
        return setun_fail(err, SETUN_BAD_SHAPE,
                          "q is %s and k is %s; the heads of q must be a multiple of those of k",
                          setun_view_text(q, &t), setun_view_text(kv, &u));
    if (!(a->attr[0].f > -1e30 && a->attr[0].f < 1e30))
        return setun_fail(err, SETUN_BAD_ARG, "scale is %g, wants a finite number", a->attr[0].f);
    return setun_infer_out(a, 0, SETUN_F32, 3, q->dim[0], q->dim[1], q->dim[2]);
}

/* The score of key j for the query q. */
static float score(const float *q, const setun_view *k, int64_t at, int64_t hd, float scale)
{
    float p[32] = {0};
    for (int64_t i = 0; i < hd; i++)
        p[i % 32] += q[i] * setun_get_f32(k, at + i);
    return setun_tree32(p) * scale;
}

static setun_status eval(const setun_args *a, setun_error *err)
{
    const setun_view *k = &a->in[K], *v = &a->in[V];
    const float *q = a->in[Q].data;
    const int32_t *pos = a->in[POS].data;
    float *y = a->out[0].data, scale = (float)a->attr[0].f;
    int64_t n = a->in[Q].dim[0], heads = a->in[Q].dim[1], hd = a->in[Q].dim[2],
            stride = k->dim[1] * hd;
    setun_status s = setun_check_index(a, POS, k->dim[0], err);
    if (s != SETUN_OK)
        return s;
    for (int64_t t = 0; t < n; t++)
        for (int64_t h = 0; h < heads; h++, q += hd, y += hd) {
            int64_t col = h / (heads / k->dim[1]) * hd, keys = (int64_t)pos[t] + 1;
            float m = minus_infinity, den[32] = {0}, e[BLOCK];
            for (int64_t j = 0; j < keys; j++)
                m = setun_maxf(score(q, k, j * stride + col, hd, scale), m);
            for (int64_t i = 0; i < hd; i++)
                y[i] = 0.0f;
            for (int64_t b = 0; b < keys; b += BLOCK) {
                int64_t size = keys - b < BLOCK ? keys - b : BLOCK;
                for (int64_t j = 0; j < size; j++) {
                    e[j] = setun_expf(score(q, k, (b + j) * stride + col, hd, scale) - m);
                    den[(b + j) % 32] += e[j];
                }
                for (int64_t i = 0; i < hd; i++) {
                    float sum = 0.0f;
                    for (int64_t j = 0; j < size; j++)
                        sum += e[j] * setun_get_f32(v, (b + j) * stride + col + i);
                    y[i] += sum;
                }
            }
            float total = setun_tree32(den);
            for (int64_t i = 0; i < hd; i++)
                y[i] /= total;
        }
    return SETUN_OK;
}

/* ---------------------------------------------------------------- kernel */

typedef struct att {
    setun_kernel *k;
    uint32_t dtype, lanes;          /* lanes: columns of v at once */
    int64_t  hd, hd_pad, share, stride; /* hd_pad: up to 32; share: query heads per kv head */
    int64_t  s_row, o_row, q_all;   /* floats per head of scores and of sums; per row of q */
    int64_t  tile;                  /* most rows of a unit */
    float    scale;
    k_val    q, kp, vp, pos, y;     /* arguments */
    k_val    scores, sums, den;     /* scratch by query: exponentials, totals, denominators */
    k_val    keys_f32, values_f32;  /* scratch: widened keys, and values if not 0 */
    k_val    first, rows, keys;     /* of this unit: first row, rows, most keys of a row */
    k_val    col, q_row;            /* first column in k and v, first element of q */
} att;

/* A loop over the rows of the unit, which may be known to be one. */
static k_val each_row(const att *c)
{
    return c->tile > 1 ? k_for(c->k, k_i64(c->k, 0), c->rows, 1) : k_i64(c->k, 0);
}

static void end_row(const att *c)
{
    if (c->tile > 1)
        k_stop(c->k);
}

/* Keys that row r of the unit sees; c->keys when it is the only row. */
static k_val keys_of(const att *c, k_val r)
{
    setun_kernel *k = c->k;
    return c->tile > 1 ? k_addi(k, k_sext(k, k_load(k, c->pos, k_add(k, c->first, r), 1), K_I64), 1)
                       : c->keys;
}

/* Number of head h of row r among the queries of the unit. */
static k_val query(const att *c, k_val r, k_val h)
{
    return c->tile > 1 ? k_add(c->k, k_muli(c->k, r, c->share), h) : h;
}

/* First element of head h of row r in q and y. */
static k_val query_at(const att *c, k_val r, k_val h)
{
    k_val at = k_add(c->k, c->q_row, k_muli(c->k, h, c->hd));
    return c->tile > 1 ? k_add(c->k, at, k_muli(c->k, r, c->q_all)) : at;
}

/* Hint that n elements from p[at] on will be read. */
static void fetch(const att *c, k_val p, k_val at, int64_t n)
{
    int64_t bytes = setun_row_bytes(c->dtype, 1);
    for (int64_t i = 0; i < n * bytes; i += 64)
        k_prefetch(c->k, p, k_addi(c->k, k_muli(c->k, at, bytes), i), 3);
}

/* Sixteen keys from j0 on as f32 rows of hd_pad, zeros behind hd.  Past the last key it is
 * repeated: nothing past the rows in use is read, and those scores are masked later. */
static void widen_keys(const att *c, k_val j0)
{
    setun_kernel *k = c->k;
    k_val j = k_for(k, k_i64(k, 0), k_i64(k, BATCH), 1);
    k_val key = k_min(k, k_add(k, j0, j), k_addi(k, c->keys, -1));
    k_val at = k_add(k, k_muli(k, key, c->stride), c->col);
    fetch(c, c->kp, k_addi(k, at, BATCH * c->stride), c->hd);
    for (int64_t i = 0; i < c->hd_pad; i += 32) {
        k_val v = k_load_pad(k, c->kp, k_addi(k, at, i), c->hd - i, 32, 0);
        k_store(k, c->keys_f32, k_addi(k, k_muli(k, j, c->hd_pad), i), k_widen(k, v, c->dtype));
    }
    k_stop(k);
}

/* Products of q and one of the sixteen keys in 32 lanes, halved to 16.  The partial sums start with
 * the first product, not with +0 plus it: only the sign of a zero differs, and exp(-0) = exp(0). */
static k_val dot16(const att *c, const k_val *q, int64_t key)
{
    setun_kernel *k = c->k;
    k_val sum = 0;
    for (int64_t i = 0; i < c->hd_pad; i += 32) {
        k_val at = k_i64(k, key * c->hd_pad + i);
        k_val x = k_mul(k, q[i / 32], k_load(k, c->keys_f32, at, 32));
        sum = sum ? k_add(k, sum, x) : x;
    }
    return k_add(k, k_slice(k, sum, 0, 16), k_slice(k, sum, 16, 16));
}

/* One halving of two vectors that hold sums of 2w lanes, joined into one with sums of w lanes:
 *
 *     w = 8   x = A A A A          y = B B B B          ->  A A B B     (letters: 4 lanes)
 *     w = 4   x = A A B B          y = C C D D          ->  A B C D
 *     w = 2   x = aa bb cc dd      y = ee ff gg hh      ->  a e b f c g d h   (letters: 2 lanes)
 *     w = 1   the same inside 4 lanes, so that group b ends as the lanes (x even, x odd, y ...)
 *
 * Always lane i of the lower half plus lane i of the upper: the tree of the contract. */
static k_val join(setun_kernel *k, k_val x, k_val y, int w)
{
    static const int32_t low8[16] = {0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23};
    static const int32_t low4[16] = {0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27};
    static const int32_t low2[16] = {0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29};
    static const int32_t low1[16] = {0, 2, 16, 18, 4, 6, 20, 22, 8, 10, 24, 26, 12, 14, 28, 30};
    const int32_t *low = w == 8 ? low8 : w == 4 ? low4 : w == 2 ? low2 : low1;
    int32_t high[16];
    for (int i = 0; i < 16; i++)
        high[i] = low[i] + w;
    return k_add(k, k_shuffle(k, x, y, low, 16), k_shuffle(k, x, y, high, 16));
}

/* Scores of the sixteen keys for one query, lane j for key j.  join leaves sum b of quad w in lane
 * 4b + w, so quad w is fed with the keys w, w + 4, w + 8, w + 12. */
static k_val dots(const att *c, const k_val *q)
{
    setun_kernel *k = c->k;
    k_val quad[4];
    for (int w = 0; w < 4; w++) {
        k_val lo = join(k, dot16(c, q, w), dot16(c, q, w + 4), 8);
        k_val hi = join(k, dot16(c, q, w + 8), dot16(c, q, w + 12), 8);
        quad[w] = join(k, lo, hi, 4);
        if (w % 2)
            quad[w] = join(k, quad[w - 1], quad[w], 2);
    }
    return join(k, quad[1], quad[3], 1);
}

/* Scores of all queries of the unit. */
static void all_scores(const att *c)
{
    setun_kernel *k = c->k;
    k_val q[MAX_HEAD / 32], zero = k_i64(k, 0);
    k_val scale = k_f32v(k, c->scale, BATCH);
    k_val j0 = k_for(k, zero, c->keys, BATCH);
    widen_keys(c, j0);
    k_val r = each_row(c), h = k_for(k, zero, k_i64(k, c->share), 1), from = query_at(c, r, h);
    for (int64_t i = 0; i < c->hd_pad; i += 32)
        q[i / 32] = k_load_pad(k, c->q, k_addi(k, from, i), c->hd - i, 32, 0);
    k_val to = k_add(k, k_muli(k, query(c, r, h), c->s_row), j0);
    k_store(k, c->scores, to, k_mul(k, dots(c, q), scale));
    k_stop(k);
    end_row(c);
    k_stop(k);
}

/* Scores to exponentials, in place, with zeros up to a multiple of 32; and their sums. */
static void all_exps(const att *c)
{
    setun_kernel *k = c->k;
    k_val zero = k_i64(k, 0), none = k_f32v(k, 0.0f, 32), low = k_f32v(k, minus_infinity, 32);
    k_val r = each_row(c), keys = keys_of(c, r), h = k_for(k, zero, k_i64(k, c->share), 1);
    k_val row = k_muli(k, query(c, r, h), c->s_row),
          count = k_splat(k, k_trunc(k, keys, K_I32), 32);
    k_val most = k_var(k, low), den = k_var(k, none), m = 0;
    for (int pass = 0; pass < 2; pass++) {
        k_val j = k_for(k, zero, keys, 32), at = k_add(k, row, j), s = k_load(k, c->scores, at, 32);
        k_val number =
            k_add(k, k_splat(k, k_trunc(k, j, K_I32), 32), k_iota(k, K_TYPE(K_I32, 32), 0));
        k_val seen = k_lt(k, number, count);
        if (pass == 0) {
            k_set(k, most, k_max(k, k_select(k, seen, s, low), k_get(k, most)));
        } else {
            k_val e = k_select(k, seen, k_expf(k, k_sub(k, s, m)), none);
            k_store(k, c->scores, at, e);
            k_set(k, den, k_add(k, k_get(k, den), e));
        }
        k_stop(k);
        if (pass == 0)
            m = k_splat(k, k_rmax(k, k_get(k, most)), 32);
    }
    k_store(k, c->den, query(c, r, h), k_rsum(k, k_get(k, den)));
    k_stop(k);
    end_row(c);
}

/* Columns of v held at once by n heads: eight registers of sums hide the latency of the adds. */
static uint32_t columns(const att *c, int64_t n)
{
    int64_t most = 8 * k_info(c->k, K_VECTOR_BYTES) / 4 / n;
    uint32_t lanes = 1;
    while (2 * lanes <= most && 2 * lanes <= c->hd && lanes < BLOCK)
        lanes *= 2;
    return lanes;
}

/* Columns from i on (of which left exist) of the values of key j. */
static k_val widen_value(const att *c, k_val j, k_val i, int64_t left)
{
    setun_kernel *k = c->k;
    k_val at = k_add(k, k_muli(k, j, c->stride), k_add(k, c->col, i));
    fetch(c, c->vp, k_addi(k, at, BATCH * c->stride), left < c->lanes ? left : c->lanes);
    return k_widen(k, k_load_pad(k, c->vp, at, left, c->lanes, 0), c->dtype);
}

/* Sums over the keys [first, last) of n heads from head h of row r on, for the columns from i on
 * (of which left exist), added to the totals. */
static void block_sums(const att *c, k_val first, k_val last, k_val r, k_val h, int64_t n, k_val i,
                       int64_t left)
{
    setun_kernel *k = c->k;
    k_val acc[MAX_SHARE], row[MAX_SHARE], who = query(c, r, h), v;
    for (int64_t g = 0; g < n; g++) {
        row[g] = k_muli(k, k_addi(k, who, g), c->s_row);
        acc[g] = k_var(k, k_f32v(k, 0.0f, c->lanes));
    }
    k_val j = k_for(k, first, last, 1);
    if (c->values_f32)
        v = k_load(k, c->values_f32, k_muli(k, k_sub(k, j, first), c->lanes), c->lanes);
    else
        v = widen_value(c, j, i, left);
    for (int64_t g = 0; g < n; g++) {
        k_val e = k_splat(k, k_load(k, c->scores, k_add(k, row[g], j), 1), c->lanes);
        k_set(k, acc[g], k_add(k, k_get(k, acc[g]), k_mul(k, e, v)));
    }
    k_stop(k);
    for (int64_t g = 0; g < n; g++) {
        k_val at = k_add(k, k_muli(k, k_addi(k, who, g), c->o_row), i);
        k_store(k, c->sums, at, k_add(k, k_load(k, c->sums, at, c->lanes), k_get(k, acc[g])));
    }
}

/* The columns from i on of the block of keys from b on, for all queries of the unit. */
static void block_columns(const att *c, k_val b, k_val i, int64_t left)
{
    setun_kernel *k = c->k;
    int64_t fours = c->share / MAX_SHARE * MAX_SHARE;
    k_val zero = k_i64(k, 0), end = k_addi(k, b, BLOCK);
    if (c->values_f32) {
        k_val j = k_for(k, b, k_min(k, end, c->keys), 1);
        k_val v = widen_value(c, j, i, left);
        k_store(k, c->values_f32, k_muli(k, k_sub(k, j, b), c->lanes), v);
        k_stop(k);
    }
    k_val r = each_row(c), keys = keys_of(c, r), last = k_min(k, end, keys);
    k_if(k, k_lt(k, b, keys)); /* a row may end before the longest of its tile */
    if (fours) {
        k_val h = k_for(k, zero, k_i64(k, fours), MAX_SHARE);
        block_sums(c, b, last, r, h, MAX_SHARE, i, left);
        k_stop(k);
    }
    if (c->share > fours)
        block_sums(c, b, last, r, k_i64(k, fours), c->share - fours, i, left);
    k_stop(k);
    end_row(c);
}

static void all_values(const att *c)
{
    setun_kernel *k = c->k;
    int64_t whole = c->hd / c->lanes * c->lanes;
    k_val zero = k_i64(k, 0), at = k_for(k, zero, k_i64(k, c->tile * c->share * c->o_row), 32);
    k_store(k, c->sums, at, k_f32v(k, 0.0f, 32));
    k_stop(k);
    k_val b = k_for(k, zero, c->keys, BLOCK);
    if (whole) {
        k_val i = k_for(k, zero, k_i64(k, whole), c->lanes);
        block_columns(c, b, i, c->lanes);
        k_stop(k);
    }
    if (c->hd > whole)
        block_columns(c, b, k_i64(k, whole), c->hd - whole);
    k_stop(k);
    k_val r = each_row(c), h = k_for(k, zero, k_i64(k, c->share), 1), who = query(c, r, h),
          to = query_at(c, r, h);
    k_val den = k_splat(k, k_load(k, c->den, who, 1), 32);
    for (int64_t i = 0; i < c->hd; i += 32) {
        k_val sum = k_load(k, c->sums, k_addi(k, k_muli(k, who, c->o_row), i), 32);
        k_store_part(k, c->y, k_addi(k, to, i), k_div(k, sum, den), c->hd - i);
    }
    k_stop(k);
    end_row(c);
}

static int64_t round_up(int64_t n, int64_t to)
{
    return (n + to - 1) / to * to;
}

static setun_status lower(setun_kernel *k, const setun_args *a, setun_error *err)
{
    const setun_view *q = &a->in[Q], *kv = &a->in[K];
    /* Rows of scores are a little longer than needed: neighbours must not share a cache set. */
    att c = {.k = k, .dtype = kv->dtype, .hd = q->dim[2], .scale = (float)a->attr[0].f,
             .share = q->dim[1] / kv->dim[1], .tile = q->dim[0] == 1 ? 1 : TILE};
    c.hd_pad = round_up(c.hd, 32);
    c.stride = kv->dim[1] * c.hd;
    c.q_all = q->dim[1] * c.hd;
    c.s_row = round_up(kv->dim[0], 32) + 32;
    c.o_row = round_up(c.hd, BLOCK);
    (void)err;
    if (c.hd > MAX_HEAD || kv->dim[0] < 1 || c.share > 64 ||
        c.tile * c.share * c.s_row > MAX_SCORES)
        return SETUN_DECLINED;
    int64_t queries = c.tile * c.share;
    c.lanes = columns(&c, c.share < MAX_SHARE ? c.share : MAX_SHARE);
    k_grid2(k, Q, 0, c.tile, K, 1, 1);
    c.q = k_arg(k, Q, K_F32);
    c.kp = k_arg(k, K, k_elem_of(c.dtype));
    c.vp = k_arg(k, V, k_elem_of(c.dtype));
    c.pos = k_arg(k, POS, K_I32);
    c.y = k_arg(k, Y, K_F32);
    c.scores = k_scratch(k, K_F32, queries * c.s_row * 4);
    c.sums = k_scratch(k, K_F32, queries * c.o_row * 4);
    c.den = k_scratch(k, K_F32, queries * 4);
    c.keys_f32 = k_scratch(k, K_F32, BATCH * c.hd_pad * 4);
    if (c.tile > 1)
        c.values_f32 = k_scratch(k, K_F32, BLOCK * c.lanes * 4);

    k_val u = k_for(k, k_begin(k), k_end(k), 1), t, g;
    k_unit(k, u, k_i64(k, kv->dim[1]), &t, &g);
    c.first = k_muli(k, t, c.tile);
    c.col = k_muli(k, g, c.hd);
    c.q_row = k_add(k, k_muli(k, c.first, c.q_all), k_muli(k, g, c.share * c.hd));
    if (c.tile > 1) {
        c.rows = k_min(k, k_i64(k, c.tile), k_sub(k, k_dim(k, Q, 0), c.first));
        k_val most = k_var(k, k_i64(k, 0)), r = each_row(&c);
        k_set(k, most, k_max(k, keys_of(&c, r), k_get(k, most)));
        end_row(&c);
        c.keys = k_get(k, most);
    } else {
        c.keys = k_addi(k, k_sext(k, k_load(k, c.pos, c.first, 1), K_I64), 1);
    }
    all_scores(&c);
    all_exps(&c);
    all_values(&c);
    k_stop(k);
    return SETUN_OK;
}

/* Counted for a full cache. */
static void cost(const setun_args *a, setun_cost *c)
{
    setun_cost_map(a, 2.0 * (double)a->in[K].dim[0], c);
}

/* One row sees everything, in every other case; the others see a few blocks of a long cache, which take
 * the same ways through the kernel and a fraction of the scalar definition's time. */
static void fill(const setun_args *a, uint64_t seed)
{
    int64_t keys = a->in[K].dim[0], some = keys < 3 * BLOCK ? keys : 3 * BLOCK;
    setun_fill_index(&a->in[POS], some, seed);
    if (a->in[POS].dim[0] > 0 && keys > 0)
        ((int32_t *)a->in[POS].data)[0] = (int32_t)((seed % 2 ? keys : some) - 1);
}

static const setun_port in[] = {
    {"q", "f32[n,H,hd]: query heads", 0, 0},
    {"k", "f32, f16 or bf16 [C,h,hd]: keys; h divides H", 0, 0},
    {"v", "like k: values", 0, 0},
    {"pos", "i32[n]: the last key each row sees; from 0 to C - 1", 0, 0},
};
static const setun_port out[] = {{"y", "f32[n,H,hd]", 0, 0}};
static const setun_attr attr[] = {
    {"scale", "of the scores, usually 1 / sqrt(hd); rounded to f32", SETUN_ATTR_FLOAT, 1, {0}},
};
static const char *const cases[] = {
    "q:f32[n3,8,128] k:f16[40,2,128] v:f16[40,2,128] pos:i32[n3] scale=0.08838834764831845",
    "q:f32[n2,2,128] k:f32[300,2,128] v:f32[300,2,128] pos:i32[n2] scale=0.08838834764831845",
    "q:f32[1,6,96] k:bf16[129,1,96] v:bf16[129,1,96] pos:i32[1] scale=0.1",
    "q:f32[n3,5,7] k:f16[17,1,7] v:f16[17,1,7] pos:i32[n3] scale=0.37",
    "q:f32[n3,3,100] k:f32[31,3,100] v:f32[31,3,100] pos:i32[n3] scale=0.1",
    "q:f32[n9,10,64] k:f16[150,2,64] v:f16[150,2,64] pos:i32[n9] scale=0.125",
    "q:f32[n4,1,1] k:bf16[130,1,1] v:bf16[130,1,1] pos:i32[n4] scale=1",
    NULL,
};

SETUN_OP(attention) = {
    .size = sizeof(setun_op), .version = 1, .name = "attention",
    .doc = "y = softmax(q k^T * scale) v over keys 0 .. pos; groups of query heads share a kv head",
    .in = in, .out = out, .attr = attr, .n_in = SETUN_LEN(in), .n_out = SETUN_LEN(out),
    .n_attr = SETUN_LEN(attr),
    .infer = infer, .eval = eval, .lower = lower, .cost = cost, .fill = fill, .cases = cases,
};
