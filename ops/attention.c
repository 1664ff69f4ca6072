/* ops/attention.c -- causal attention of grouped query heads over a cache of keys and values.
 *
 * Query head j uses kv head j / (H / h).  Row t sees keys 0 .. pos[t], or with a window w > 0 the last
 * w of them; the others' scores count as NaN:
 *
 *     s_j = (q . k_j in 32 stripes) * scale          m = largest s_j, NaN not counted
 *     e_j = exp(s_j - m)                             den = sum of e_j in stripes over j
 *     y   = (sum over blocks of 128 keys of (sum over the block of e_j v_j)) / den
 *
 * Everything counts keys from the start of the cache, so how a prompt was cut into calls, the
 * number of rows of a call and the number of threads never show in the bits.
 * A NaN among the scores counts as exp = 0; when no score is a number, y is 0 / 0.
 *
 * Kernel: a unit is one query head of one row, or of a tile of rows when there may be many.  Of the
 * units that a worker gets, those that share a tile and a kv head are done together, so that a key or
 * value is read and widened once for all of them, however the heads divide among the workers.
 *   1. scores.  A tile: sixteen keys (or as many as a register has lanes) are transposed, so that a
 *      lane is a key, and the 32 stripes of a dot product and their halving tree are operations on
 *      whole registers.  One row: there is too little work to pay for a transposition; the stripes
 *      are the lanes, and the trees of 16 keys are joined so that the lanes stay full.
 *   2. per row and head: maximum, exponentials, their sum.
 *   3. per block of 128 keys and few columns of v (widened once for a tile): sums of up to four
 *      heads in registers.
 * The multiplication and the addition of every product are rounded separately, so two instructions
 * per register are the floor; a tile's scores and values run near it.
 * The keys and values of a long context come from memory.  One row asks for them in time, and in an
 * order that memory answers faster than its own: see k_side_by_side.
 * eval refuses a position outside the cache; a kernel's caller has checked. */
#include "setun/op.h"

enum { Q, K, V, POS, Y };

#define BATCH 16     /* keys whose scores are made together, or fewer: one per lane of a register */
#define BLOCK 128    /* keys whose weighted values are summed before they join the total */
#define MAX_HEAD 512 /* the score kernels are unrolled over a head */
#define MAX_GROUP 4  /* heads whose sums are held in registers together */
#define TILE 16      /* rows done together when there may be many */
#define MAX_SCORES (1 << 23) /* floats of scratch for scores, per worker */
#define MAX_PAGES 8  /* asked for side by side */

static const float minus_infinity = -(float)INFINITY;

static setun_status infer(setun_args *a, setun_error *err)
{
    const setun_view *q = &a->in[Q], *kv = &a->in[K];
    setun_text t, u;
    setun_status s = setun_want(a, Q, SETUN_OF(SETUN_F32), 3, err);
    if (s == SETUN_OK)
        s = setun_want(a, K, SETUN_FLOATS | SETUN_OF(SETUN_Q8), 3, err);
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
    if (q->dim[1] % kv->dim[0])
        return setun_fail(err, SETUN_BAD_SHAPE,
                          "q is %s and k is %s; the heads of q must be a multiple of those of k",
                          setun_view_text(q, &t), setun_view_text(kv, &u));
    if (!(a->attr[0].f > -1e30 && a->attr[0].f < 1e30))
        return setun_fail(err, SETUN_BAD_ARG, "scale is %g, wants a finite number", a->attr[0].f);
    if (a->attr[1].i < 0)
        return setun_fail(err, SETUN_BAD_ARG, "window is %lld, wants 0 for none or a number of keys", (long long)a->attr[1].i);
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
    int64_t n = a->in[Q].dim[0], heads = a->in[Q].dim[1], hd = a->in[Q].dim[2];
    setun_status s = setun_check_index(a, POS, k->dim[1], err);
    if (s != SETUN_OK)
        return s;
    for (int64_t t = 0; t < n; t++)
        for (int64_t h = 0; h < heads; h++, q += hd, y += hd) {
            int64_t from = h / (heads / k->dim[0]) * k->dim[1] * hd, keys = (int64_t)pos[t] + 1;
            int64_t window = a->attr[1].i, gone = window && keys > window ? keys - window : 0;
            float m = minus_infinity, den[32] = {0}, e[BLOCK];
            for (int64_t j = gone; j < keys; j++)
                m = setun_maxf(score(q, k, from + j * hd, hd, scale), m);
            for (int64_t i = 0; i < hd; i++)
                y[i] = 0.0f;
            for (int64_t b = 0; b < keys; b += BLOCK) {
                int64_t size = keys - b < BLOCK ? keys - b : BLOCK;
                for (int64_t j = 0; j < size; j++) {
                    e[j] = b + j < gone ? 0.0f : setun_expf(score(q, k, from + (b + j) * hd, hd, scale) - m);
                    den[(b + j) % 32] += e[j];
                }
                for (int64_t i = 0; i < hd; i++) {
                    float sum = 0.0f;
                    for (int64_t j = 0; j < size; j++)
                        sum += e[j] * setun_get_f32(v, from + (b + j) * hd + i);
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
    int64_t  hd, hd_pad;            /* hd_pad: up to a multiple of 32 */
    int64_t  share, places;         /* query heads per kv head; rows of the cache per kv head */
    int64_t  s_row, o_row, q_all;   /* floats per head of scores and of sums; per row of q */
    int64_t  tile;                  /* most rows done together */
    int64_t  batch;                 /* keys whose scores are made together */
    int64_t  window;                /* keys a row sees, 0: all */
    int64_t  group;                 /* most heads done together: a power of two */
    int64_t  row, pages;            /* bytes of a key; pages asked for side by side: a power of two */
    float    scale;
    k_val    q, kp, vp, pos, y;     /* arguments */
    k_val    k_scale, v_scale;      /* kp and vp as 16-bit words, for the scales of q8 */
    k_val    scores, sums, den;     /* scratch by query: exponentials, totals, denominators */
    k_val    keys_f32, values_f32;  /* scratch: widened keys, and values if not 0 */
    k_val    first, rows, keys;     /* of this tile: first row, rows, most keys of a row */
    k_val    head, heads;           /* of those that share the kv head: first and last + 1 */
    k_val    kv_row, q_row;         /* first row of the kv head; first element of q */
    k_val    most_behind;           /* bytes of the next head's keys that hints may name: 0 when there is none to do */
} att;

/* A loop over the rows of the tile, which may be known to be one. */
static k_val each_row(const att *c)
{
    return c->tile > 1 ? k_for(c->k, k_i64(c->k, 0), c->rows, 1) : k_i64(c->k, 0);
}

static void end_row(const att *c)
{
    if (c->tile > 1)
        k_stop(c->k);
}

static k_val each_head(const att *c)
{
    return k_for(c->k, c->head, c->heads, 1);
}

/* A loop over groups of n heads (a power of two), after the loop over groups of `before`; 0: n is
 * the first size. */
static k_val each_group(const att *c, int64_t n, int64_t before)
{
    setun_kernel *k = c->k;
    k_val count = k_sub(k, c->heads, c->head), done = k_i64(k, 0);
    if (before)
        done = k_and(k, count, k_i64(k, -before));
    k_val end = k_add(k, c->head, k_and(k, count, k_i64(k, -n)));
    return k_for(k, k_add(k, c->head, done), end, n);
}

/* Keys that row r of the tile sees; c->keys when it is the only row. */
static k_val keys_of(const att *c, k_val r)
{
    setun_kernel *k = c->k;
    return c->tile > 1 ? k_addi(k, k_sext(k, k_load(k, c->pos, k_add(k, c->first, r), 1), K_I64), 1)
                       : c->keys;
}

/* Number of head h of row r among the queries of the tile. */
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

/* Lines are asked for as k_side_by_side says.  Neighbours in that order of which each lies a page behind
 * the one before, among those that work on n bytes asks for; all of them when n is no multiple of a line, and then some are asked for again. */
static int64_t run_of(const att *c, int64_t n)
{
    int64_t run = c->pages;
    while (n % K_LINE == 0 && n % (run * K_LINE))
        run /= 2;
    return run;
}

/* Lines that work on n bytes asks for. */
static int64_t lines_of(const att *c, int64_t n)
{
    int64_t run = run_of(c, n);
    return (n + run * K_LINE - 1) / (run * K_LINE) * run;
}

/* Work on n bytes of the kv head's keys or values p, from byte x on, a multiple of n, asks for as many
 * that come a group of pages later: hints for lines [from, to) of them.  Behind the last key come the values of the
 * same head, and behind the last value the keys of the next: else what is read first of either would be asked for by nobody. */
static void fetch(const att *c, k_val p, k_val x, int64_t n, int64_t from, int64_t to)
{
    setun_kernel *k = c->k;
    int64_t run = run_of(c, n);
    int is_key = p == c->kp;
    k_val base = k_muli(k, c->kv_row, c->row), last = k_muli(k, c->keys, c->row), zero = k_i64(k, 0);
    k_val next = is_key ? base : k_addi(k, base, c->places * c->row);
    k_val first = k_udiv(k, k_addi(k, x, c->pages * K_PAGE), k_i64(k, K_LINE));
    first = k_and(k, first, k_i64(k, -run));
    for (int64_t i = from; i < to; i++) {
        k_val at = k_side_by_side(k, k_addi(k, first, i / run * run), c->pages), behind = k_max(k, k_sub(k, at, last), zero);
        behind = is_key ? behind : k_min(k, behind, c->most_behind);
        at = k_min(k, at, last); /* no more than a line behind */
        k_prefetch(k, p, k_addi(k, k_add(k, base, at), i % run * K_PAGE), 3);
        k_prefetch(k, is_key ? c->vp : c->kp, k_addi(k, k_add(k, next, behind), i % run * K_PAGE), 3);
    }
}

/* The byte where a key of the kv head begins. */
static k_val byte_of(const att *c, k_val key)
{
    return k_muli(c->k, k_add(c->k, c->kv_row, key), c->row);
}

/* Elements [i, i + lanes) of which left exist, of a key or value, as f32 with zeros behind.  For q8
 * i is a multiple of lanes, so that 32 and less lie in one block. */
static k_val load_kv(const att *c, k_val p, k_val key, k_val i, int64_t left, uint32_t lanes)
{
    setun_kernel *k = c->k;
    if (c->dtype != SETUN_Q8) {
        k_val at = k_add(k, k_muli(k, k_add(k, c->kv_row, key), c->hd), i);
        return k_widen(k, k_load_pad(k, p, at, left, lanes, 0), c->dtype);
    }
    if (left <= 0)
        return k_f32v(k, 0.0f, lanes);
    if (lanes > SETUN_Q8_BLOCK) {
        k_val low = load_kv(c, p, key, i, left, lanes / 2);
        i = k_addi(k, i, lanes / 2);
        return k_concat(k, low, load_kv(c, p, key, i, left - lanes / 2, lanes / 2));
    }
    k_val at = k_add(k, byte_of(c, key), k_muli(k, k_shru(k, i, 5), SETUN_Q8_BLOCK_BYTES));
    k_val scale = k_load(k, p == c->kp ? c->k_scale : c->v_scale, k_shru(k, at, 1), 1);
    at = k_add(k, k_addi(k, at, 2), k_and(k, i, k_i64(k, SETUN_Q8_BLOCK - 1)));
    return k_q8(k, k_load(k, p, at, lanes), scale);
}

/* ---------------------------------------------------------------- scores of a tile of rows */

/* Elements d to d + left of the batch's keys: registers of neighbours become registers of one
 * element each by exchanging halves, then quarters, and so on. */
static void transpose(const att *c, const k_val *key, k_val d, int64_t left)
{
    setun_kernel *k = c->k;
    uint32_t n = (uint32_t)c->batch;
    k_val v[BATCH];
    for (uint32_t i = 0; i < n; i++)
        v[i] = load_kv(c, c->kp, key[i], d, left, n);
    for (uint32_t w = n / 2; w; w /= 2) {
        int32_t low[BATCH], high[BATCH];
        for (uint32_t i = 0; i < n; i++) {
            low[i] = (int32_t)(i & w ? n + i - w : i);
            high[i] = (int32_t)(i & w ? n + i : i + w);
        }
        for (uint32_t i = 0; i < n; i++)
            if (!(i & w)) {
                k_val x = v[i], y = v[i + w];
                v[i] = k_shuffle(k, x, y, low, n);
                v[i + w] = k_shuffle(k, x, y, high, n);
            }
    }
    for (uint32_t i = 0; i < n && i < left; i++)
        k_store(k, c->keys_f32, k_muli(k, k_addi(k, d, i), n), v[i]);
}

/* keys_f32[d][i] = element d of key j0 + i.  Past the last key it is repeated: nothing past the
 * rows in use is read, and those scores are masked later. */
static void transpose_keys(const att *c, k_val j0)
{
    setun_kernel *k = c->k;
    int64_t whole = c->hd / c->batch * c->batch;
    k_val key[BATCH], last = k_addi(k, c->keys, -1);
    for (int64_t i = 0; i < c->batch; i++)
        key[i] = k_min(k, k_addi(k, j0, i), last);
    if (whole) {
        k_val d = k_for(k, k_i64(k, 0), k_i64(k, whole), c->batch);
        transpose(c, key, d, c->batch);
        k_stop(k);
    }
    if (c->hd > whole)
        transpose(c, key, k_i64(k, whole), c->hd - whole);
}

/* Lane i of p[g] becomes stripe j (elements j, j + 32, ...) of the product of query g and key i; 0 if
 * the head has no such element.  The sum starts with the first product, not with +0 plus it, and
 * empty stripes are left out: only the sign of a zero differs, and exp(-0) = exp(0). */
static void stripe(const att *c, const k_val *from, int64_t n, int64_t j, k_val *p)
{
    setun_kernel *k = c->k;
    uint32_t lanes = (uint32_t)c->batch;
    for (int64_t g = 0; g < n; g++)
        p[g] = 0;
    for (int64_t i = j; i < c->hd; i += 32) {
        k_val key = k_load(k, c->keys_f32, k_i64(k, i * lanes), lanes);
        for (int64_t g = 0; g < n; g++) {
            k_val q = k_splat(k, k_load(k, c->q, k_addi(k, from[g], i), 1), lanes);
            k_val x = k_mul(k, q, key);
            p[g] = p[g] ? k_add(k, p[g], x) : x;
        }
    }
}

/* Lane j of the contract's tree when it has been halved to `width` lanes.  Depth first, so that at
 * most six of the 32 stripes are alive at a time. */
static void halved(const att *c, const k_val *from, int64_t n, int64_t width, int64_t j, k_val *p)
{
    k_val high[MAX_GROUP];
    if (width == 32) {
        stripe(c, from, n, j, p);
        return;
    }
    halved(c, from, n, 2 * width, j, p);
    halved(c, from, n, 2 * width, j + width, high);
    for (int64_t g = 0; g < n; g++)
        if (high[g])
            p[g] = k_add(c->k, p[g], high[g]);
}

/* Scores of the batch for n heads from head h of row r on: a key per lane, so that the 32 stripes
 * and their tree are plain operations on registers. */
static void group_scores(const att *c, k_val j0, k_val r, k_val h, int64_t n)
{
    setun_kernel *k = c->k;
    k_val from[MAX_GROUP], s[MAX_GROUP], scale = k_f32v(k, c->scale, (uint32_t)c->batch);
    for (int64_t g = 0; g < n; g++)
        from[g] = k_addi(k, query_at(c, r, h), g * c->hd);
    halved(c, from, n, 1, 0, s);
    for (int64_t g = 0; g < n; g++) {
        k_val to = k_add(k, k_muli(k, k_addi(k, query(c, r, h), g), c->s_row), j0);
        k_store(k, c->scores, to, k_mul(k, s[g], scale));
    }
}

static void tile_scores(const att *c)
{
    setun_kernel *k = c->k;
    int64_t most = c->group;
    while (most > 1 && (most * c->hd > MAX_HEAD || (most > 2 && k_info(k, K_N_REGISTERS) < 32)))
        most /= 2;
    k_val j0 = k_for(k, k_i64(k, 0), c->keys, c->batch);
    transpose_keys(c, j0);
    k_val r = each_row(c);
    k_if(k, k_lt(k, j0, keys_of(c, r)));
    for (int64_t n = most; n; n = n > 1 ? 1 : 0) { /* the unrolled trees are long: two sizes do */
        k_val h = each_group(c, n, n < most ? most : 0);
        group_scores(c, j0, r, h, n);
        k_stop(k);
    }
    k_stop(k);
    end_row(c);
    k_stop(k);
}

/* ---------------------------------------------------------------- scores of one row */

/* The batch's keys as f32 rows of hd_pad, zeros behind hd; past the last key it is repeated. */
static void widen_keys(const att *c, k_val j0)
{
    setun_kernel *k = c->k;
    k_val j = k_for(k, k_i64(k, 0), k_i64(k, BATCH), 1);
    k_val key = k_min(k, k_add(k, j0, j), k_addi(k, c->keys, -1));
    for (int64_t i = 0; i < c->hd_pad; i += 32) {
        k_val v = load_kv(c, c->kp, key, k_i64(k, i), c->hd - i, 32);
        k_store(k, c->keys_f32, k_addi(k, k_muli(k, j, c->hd_pad), i), v);
    }
    k_stop(k);
}

/* Bytes of a batch of keys that one of the heads that share it gives hints for. */
static int64_t part_of_batch(const att *c)
{
    return (BATCH * c->row + c->share - 1) / c->share;
}

/* Products of q and one of the sixteen keys in 32 lanes, halved to 16; with its share of the hints for
 * the part at byte x: many at once would wait for each other. */
static k_val dot16(const att *c, const k_val *q, k_val x, int64_t key)
{
    setun_kernel *k = c->k;
    int64_t lines = lines_of(c, part_of_batch(c));
    k_val sum = 0;
    fetch(c, c->kp, x, part_of_batch(c), key * lines / BATCH, (key + 1) * lines / BATCH);
    for (int64_t i = 0; i < c->hd_pad; i += 32) {
        k_val at = k_i64(k, key * c->hd_pad + i);
        k_val y = k_mul(k, q[i / 32], k_load(k, c->keys_f32, at, 32));
        sum = sum ? k_add(k, sum, y) : y;
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
static k_val dots(const att *c, const k_val *q, k_val x)
{
    setun_kernel *k = c->k;
    k_val quad[4];
    for (int w = 0; w < 4; w++) {
        k_val dot[4];
        for (int i = 0; i < 4; i++)
            dot[i] = dot16(c, q, x, w + 4 * i);
        quad[w] = join(k, join(k, dot[0], dot[1], 8), join(k, dot[2], dot[3], 8), 4);
        if (w % 2)
            quad[w] = join(k, quad[w - 1], quad[w], 2);
    }
    return join(k, quad[1], quad[3], 1);
}

static void row_scores(const att *c)
{
    setun_kernel *k = c->k;
    int64_t part = part_of_batch(c);
    k_val q[MAX_HEAD / 32], zero = k_i64(k, 0);
    k_val scale = k_f32v(k, c->scale, BATCH);
    k_val j0 = k_for(k, zero, c->keys, BATCH);
    k_val x = k_muli(k, j0, c->row);
    widen_keys(c, j0);
    /* The parts of those heads that another worker has. */
    k_val other = k_for(k, k_sub(k, c->heads, c->head), k_i64(k, c->share), 1);
    fetch(c, c->kp, k_add(k, x, k_muli(k, other, part)), part, 0, lines_of(c, part));
    k_stop(k);
    k_val h = each_head(c), from = query_at(c, zero, h);
    x = k_add(k, x, k_muli(k, k_sub(k, h, c->head), part));
    for (int64_t i = 0; i < c->hd_pad; i += 32)
        q[i / 32] = k_load_pad(k, c->q, k_addi(k, from, i), c->hd - i, 32, 0);
    k_val to = k_add(k, k_muli(k, query(c, zero, h), c->s_row), j0);
    k_store(k, c->scores, to, k_mul(k, dots(c, q, x), scale));
    k_stop(k);
    k_stop(k);
}

/* ---------------------------------------------------------------- exponentials */

/* Keys [first, last) of a row in steps of `lanes`, 32 or a multiple: the most of their scores joins var
 * when m is 0, else scores become exponentials and join it as a sum.  Keys from count on (if not 0) are
 * masked. */
static void some_exps(const att *c, k_val row, k_val first, k_val last, uint32_t lanes, k_val count,
                      k_val m, k_val var)
{
    setun_kernel *k = c->k;
    k_val j = k_for(k, first, last, lanes), at = k_add(k, row, j), s = k_load(k, c->scores, at, lanes);
    k_val e = m ? k_expf(k, k_sub(k, s, k_splat(k, m, lanes))) : s;
    if (count) {
        k_val number =
            k_add(k, k_splat(k, k_trunc(k, j, K_I32), lanes), k_iota(k, K_TYPE(K_I32, lanes), 0));
        e = k_select(k, k_lt(k, number, k_splat(k, count, lanes)), e,
                     k_f32v(k, m ? 0.0f : minus_infinity, lanes));
    }
    if (m)
        k_store(k, c->scores, at, e);
    for (uint32_t i = 0; i < lanes; i += 32) {
        k_val x = lanes > 32 ? k_slice(k, e, i, 32) : e, sum = k_get(k, var);
        k_set(k, var, m ? k_add(k, sum, x) : k_max(k, x, sum));
    }
    k_stop(k);
}

/* Scores of the keys before the window of a row become NaN, whose exponential is 0.  They were computed, and
 * values are read for them, too: what a window saves in memory traffic is not saved here. */
static void hide(const att *c, k_val row, k_val keys)
{
    setun_kernel *k = c->k;
    k_val zero = k_i64(k, 0), gone = k_max(k, k_addi(k, keys, -c->window), zero), whole = k_and(k, gone, k_i64(k, -32));
    for (uint32_t lanes = 32; lanes; lanes = lanes > 1 ? 1 : 0) {
        k_val j = k_for(k, lanes > 1 ? zero : whole, lanes > 1 ? whole : gone, lanes);
        k_store(k, c->scores, k_add(k, row, j), k_f32v(k, (float)NAN, lanes));
        k_stop(k);
    }
}

/* Scores to exponentials, in place, with zeros up to a multiple of 32; and their sums.  An exponential is
 * a chain of some 25 instructions: four registers at once keep the machine busy while each waits. */
static void all_exps(const att *c)
{
    setun_kernel *k = c->k;
    uint32_t wide = k_info(k, K_VECTOR_BYTES) > 32 ? (uint32_t)k_info(k, K_VECTOR_BYTES) : 32;
    k_val zero = k_i64(k, 0), r = each_row(c), keys = keys_of(c, r), h = each_head(c);
    k_val row = k_muli(k, query(c, r, h), c->s_row), whole = k_and(k, keys, k_i64(k, -(int64_t)wide));
    k_val count = k_trunc(k, keys, K_I32), m = 0, sum = 0;
    if (c->window)
        hide(c, row, keys);
    for (int pass = 0; pass < 2; pass++) {
        k_val var = k_var(k, k_f32v(k, pass ? 0.0f : minus_infinity, 32));
        some_exps(c, row, zero, whole, wide, 0, m, var);
        some_exps(c, row, whole, keys, 32, count, m, var);
        sum = k_get(k, var);
        if (!pass)
            m = k_rmax(k, sum);
    }
    k_store(k, c->den, query(c, r, h), k_rsum(k, sum));
    k_stop(k);
    end_row(c);
}

/* ---------------------------------------------------------------- values */

/* Columns of v held at once by a group: enough sums to hide the latency of the adds; one row has
 * none to share widened values with, so that more registers then save widening. */
static uint32_t columns(const att *c)
{
    int64_t sums = c->tile == 1 && k_info(c->k, K_N_REGISTERS) >= 32 ? 16 : 8;
    int64_t most = sums * k_info(c->k, K_VECTOR_BYTES) / 4 / c->group;
    uint32_t lanes = 1;
    while (2 * lanes <= most && 2 * lanes <= c->hd && lanes < BLOCK)
        lanes *= 2;
    return lanes;
}

/* Columns from i on (of which left exist) of the values of key j.  The key's place among the keys and
 * panels of its block names the bytes that hints are counted by, so that they come evenly. */
static k_val widen_value(const att *c, k_val j, k_val i, int64_t left)
{
    setun_kernel *k = c->k;
    int64_t panels = (c->hd + c->lanes - 1) / c->lanes;
    int64_t part = (c->row + panels - 1) / panels;
    k_val panel = k_udiv(k, i, k_i64(k, c->lanes)), block = k_and(k, j, k_i64(k, -BLOCK));
    k_val at = k_add(k, k_muli(k, panel, BLOCK), k_and(k, j, k_i64(k, BLOCK - 1)));
    k_val x = k_add(k, k_muli(k, block, c->row), k_muli(k, at, part));
    fetch(c, c->vp, x, part, 0, lines_of(c, part));
    return load_kv(c, c->vp, j, i, left, c->lanes);
}

/* Sums over the keys [first, last) of n heads from head h of row r on, for the columns from i on
 * (of which left exist), added to the totals. */
static void block_sums(const att *c, k_val first, k_val last, k_val r, k_val h, int64_t n, k_val i,
                       int64_t left)
{
    setun_kernel *k = c->k;
    k_val acc[MAX_GROUP], row[MAX_GROUP], who = query(c, r, h), v;
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

/* The columns from i on of the block of keys from b on, for all queries of the tile. */
static void block_columns(const att *c, k_val b, k_val i, int64_t left)
{
    setun_kernel *k = c->k;
    k_val end = k_addi(k, b, BLOCK);
    if (c->values_f32) {
        k_val j = k_for(k, b, k_min(k, end, c->keys), 1);
        k_val v = widen_value(c, j, i, left);
        k_store(k, c->values_f32, k_muli(k, k_sub(k, j, b), c->lanes), v);
        k_stop(k);
    }
    k_val r = each_row(c), keys = keys_of(c, r), last = k_min(k, end, keys);
    k_if(k, k_lt(k, b, keys)); /* a row may end before the longest of its tile */
    for (int64_t n = c->group; n; n /= 2) {
        k_val h = each_group(c, n, n < c->group ? 2 * n : 0);
        block_sums(c, b, last, r, h, n, i, left);
        k_stop(k);
    }
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
    k_val r = each_row(c), h = each_head(c), who = query(c, r, h), to = query_at(c, r, h);
    k_val den = k_splat(k, k_load(k, c->den, who, 1), 32);
    for (int64_t i = 0; i < c->hd; i += 32) {
        k_val sum = k_load(k, c->sums, k_addi(k, k_muli(k, who, c->o_row), i), 32);
        k_store_part(k, c->y, k_addi(k, to, i), k_div(k, sum, den), c->hd - i);
    }
    k_stop(k);
    end_row(c);
}

/* ---------------------------------------------------------------- units */

static int64_t round_up(int64_t n, int64_t to)
{
    return (n + to - 1) / to * to;
}

/* Tile number t of the order first, last, second, last but one, ...: later rows see more keys, and a
 * worker's share of the units, which are neighbours, must hold as many of them as any other's. */
static k_val both_ends(const att *c, k_val t)
{
    setun_kernel *k = c->k;
    k_val all = k_udiv(k, k_addi(k, k_dim(k, Q, 0), c->tile - 1), k_i64(k, c->tile));
    k_val half = k_shru(k, t, 1), odd = k_eq(k, k_and(k, t, k_i64(k, 1)), k_i64(k, 1));
    return k_select(k, odd, k_sub(k, k_addi(k, all, -1), half), half);
}

/* What tile t and kv head g need, and the most keys that one of its rows sees. */
static void begin_tile(att *c, k_val t, k_val g)
{
    setun_kernel *k = c->k;
    c->first = c->tile > 1 ? k_muli(k, both_ends(c, t), c->tile) : t;
    c->kv_row = k_muli(k, g, c->places);
    c->q_row = k_add(k, k_muli(k, c->first, c->q_all), k_muli(k, g, c->share * c->hd));
    if (c->tile > 1) {
        c->rows = k_min(k, k_i64(k, c->tile), k_sub(k, k_dim(k, Q, 0), c->first));
        k_val most = k_var(k, k_i64(k, 0)), r = each_row(c);
        k_set(k, most, k_max(k, keys_of(c, r), k_get(k, most)));
        end_row(c);
        c->keys = k_get(k, most);
    } else {
        c->keys = k_addi(k, k_sext(k, k_load(k, c->pos, c->first, 1), K_I64), 1);
    }
}

static void arguments(att *c)
{
    setun_kernel *k = c->k;
    int64_t queries = c->tile * c->share;
    c->q = k_arg(k, Q, K_F32);
    c->kp = k_arg(k, K, k_elem_of(c->dtype));
    c->vp = k_arg(k, V, k_elem_of(c->dtype));
    if (c->dtype == SETUN_Q8) {
        c->k_scale = k_arg(k, K, K_I16);
        c->v_scale = k_arg(k, V, K_I16);
    }
    c->pos = k_arg(k, POS, K_I32);
    c->y = k_arg(k, Y, K_F32);
    c->scores = k_scratch(k, K_F32, queries * c->s_row * 4);
    c->sums = k_scratch(k, K_F32, queries * c->o_row * 4);
    c->den = k_scratch(k, K_F32, queries * 4);
    c->keys_f32 = k_scratch(k, K_F32, c->batch * c->hd_pad * 4);
    if (c->tile > 1)
        c->values_f32 = k_scratch(k, K_F32, BLOCK * c->lanes * 4);
}

static setun_status lower(setun_kernel *k, const setun_args *a, setun_error *err)
{
    const setun_view *q = &a->in[Q], *kv = &a->in[K];
    /* Rows of scores are a little longer than needed: neighbours must not share a cache set. */
    att c = {.k = k, .dtype = kv->dtype, .hd = q->dim[2], .scale = (float)a->attr[0].f,
             .window = a->attr[1].i, .places = kv->dim[1], .share = q->dim[1] / kv->dim[0],
             .tile = q->dim[0] == 1 ? 1 : TILE, .batch = BATCH, .group = 1, .pages = 1};
    (void)err;
    c.hd_pad = round_up(c.hd, 32);
    c.q_all = q->dim[1] * c.hd;
    c.row = setun_row_bytes(c.dtype, c.hd);
    while (c.pages < MAX_PAGES && 2 * c.pages * K_PAGE <= BLOCK * c.row)
        c.pages *= 2;
    c.s_row = round_up(c.places, 32) + 32;
    c.o_row = round_up(c.hd, BLOCK);
    while (c.tile > 1 && c.tile * c.share * c.s_row > MAX_SCORES)
        c.tile /= 2;
    if (c.hd > MAX_HEAD || c.places < 1 || c.share > 64 ||
        (c.tile == 1 && q->dim[0] != 1) || c.share * c.s_row > MAX_SCORES)
        return SETUN_DECLINED;
    while (2 * c.group <= c.share && c.group < MAX_GROUP)
        c.group *= 2;
    if (c.tile > 1 && k_info(k, K_VECTOR_BYTES) / 4 < c.batch)
        c.batch = k_info(k, K_VECTOR_BYTES) / 4;
    c.lanes = columns(&c);
    k_grid2(k, Q, 0, c.tile, Q, 1, 1);
    arguments(&c);

    /* A unit is one query head; those of this tile that share keys are done together. */
    k_val begin = k_begin(k), end = k_end(k), share = k_i64(k, c.share), t, g;
    k_val last = k_udiv(k, k_addi(k, end, c.share - 1), share);
    k_val u = k_for(k, k_udiv(k, begin, share), last, 1), from = k_muli(k, u, c.share);
    c.head = k_max(k, k_sub(k, begin, from), k_i64(k, 0));
    c.heads = k_min(k, k_sub(k, end, from), share);
    k_unit(k, u, k_i64(k, kv->dim[0]), &t, &g);
    c.most_behind = k_select(k, k_lt(k, k_addi(k, u, 1), last), k_i64(k, 2 * MAX_PAGES * K_PAGE), k_i64(k, 0));
    begin_tile(&c, t, g);
    if (c.tile > 1)
        tile_scores(&c);
    else
        row_scores(&c);
    all_exps(&c);
    all_values(&c);
    k_stop(k);
    return SETUN_OK;
}

/* Counted for a full cache. */
static void cost(const setun_args *a, setun_cost *c)
{
    setun_cost_map(a, 2.0 * (double)a->in[K].dim[1], c);
}

/* Row t sees pos[t] + 1 keys; what the farthest row sees is read. */
static void counted(const setun_args *a, setun_counted *c)
{
    const int32_t *pos = a->in[POS].data;
    double seen = 0, most = 0;
    for (int64_t t = 0, n = a->in[POS].dim[0]; t < n; t++) {
        double keys = (double)pos[t] + 1;
        seen += keys;
        most = keys > most ? keys : most;
    }
    c->float_ops = 2 * seen * (double)(a->in[Q].dim[1] * a->in[Q].dim[2]);
    c->bytes = setun_cost_view(&a->in[Q]) + setun_cost_view(&a->in[POS]) + setun_cost_view(&a->out[0]) +
               2 * most * (double)(a->in[K].dim[0] * setun_row_bytes(a->in[K].dtype, a->in[K].dim[2]));
}

/* One row sees everything, in every other case; the others see a few blocks of a long cache, which take
 * the same ways through the kernel and a fraction of the scalar definition's time. */
static void fill(const setun_args *a, uint64_t seed)
{
    int64_t keys = a->in[K].dim[1], some = keys < 3 * BLOCK ? keys : 3 * BLOCK;
    setun_fill_index(&a->in[POS], some, seed);
    if (a->in[POS].dim[0] > 0 && keys > 0)
        ((int32_t *)a->in[POS].data)[0] = (int32_t)((seed % 2 ? keys : some) - 1);
}

static const setun_port in[] = {
    {"q", "f32[n,H,hd]: query heads", 0, 0},
    {"k", "f32, f16, bf16 or q8 [h,C,hd]: keys; h divides H", 0, 0},
    {"v", "like k: values", 0, 0},
    {"pos", "i32[n]: the last key each row sees; from 0 to C - 1", 0, 0},
};
static const setun_port out[] = {{"y", "f32[n,H,hd]", 0, 0}};
static const setun_attr attr[] = {
    {"scale", "of the scores, usually 1 / sqrt(hd); rounded to f32", SETUN_ATTR_FLOAT, 1, {0}},
    {"window", "most keys a row sees, its own among them; 0: all", SETUN_ATTR_INT, 0, {0}},
};
static const char *const cases[] = {
    "q:f32[n3,8,128] k:f16[2,40,128] v:f16[2,40,128] pos:i32[n3] scale=0.08838834764831845",
    "q:f32[n2,2,128] k:f32[2,300,128] v:f32[2,300,128] pos:i32[n2] scale=0.08838834764831845",
    "q:f32[1,6,96] k:bf16[1,129,96] v:bf16[1,129,96] pos:i32[1] scale=0.1",
    "q:f32[n3,5,7] k:f16[1,17,7] v:f16[1,17,7] pos:i32[n3] scale=0.37",
    "q:f32[n3,3,100] k:f32[3,31,100] v:f32[3,31,100] pos:i32[n3] scale=0.1",
    "q:f32[n9,10,64] k:f16[2,150,64] v:f16[2,150,64] pos:i32[n9] scale=0.125",
    "q:f32[n4,1,1] k:bf16[1,130,1] v:bf16[1,130,1] pos:i32[n4] scale=1",
    "q:f32[n35,4,80] k:bf16[1,129,80] v:bf16[1,129,80] pos:i32[n35] scale=0.11",
    "q:f32[n17,7,256] k:f16[1,40,256] v:f16[1,40,256] pos:i32[n17] scale=0.0625",
    "q:f32[1,7,128] k:f16[1,300,128] v:f16[1,300,128] pos:i32[1] scale=0.088",
    "q:f32[n18,6,128] k:q8[2,140,128] v:q8[2,140,128] pos:i32[n18] scale=0.088",
    "q:f32[1,4,100] k:q8[1,131,100] v:q8[1,131,100] pos:i32[1] scale=0.1",
    "q:f32[n3,2,7] k:q8[2,9,7] v:q8[2,9,7] pos:i32[n3] scale=0.37",
    "q:f32[n18,3,40] k:f16[1,200,40] v:f16[1,200,40] pos:i32[n18] scale=0.2 window=37",
    "q:f32[1,4,33] k:bf16[2,300,33] v:bf16[2,300,33] pos:i32[1] scale=0.2 window=129",
    "q:f32[n3,1,7] k:f32[1,9,7] v:f32[1,9,7] pos:i32[n3] scale=0.37 window=1",
    NULL,
};

SETUN_OP(attention) = {
    .size = sizeof(setun_op), .version = 2, .name = "attention",
    .doc = "y = softmax(q k^T * scale) v over keys 0 .. pos or the last of them; groups of query heads share a kv head",
    .in = in, .out = out, .attr = attr, .n_in = SETUN_LEN(in), .n_out = SETUN_LEN(out),
    .n_attr = SETUN_LEN(attr),
    .infer = infer, .eval = eval, .lower = lower, .cost = cost, .counted = counted, .fill = fill, .cases = cases,
};
