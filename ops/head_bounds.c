/* ops/head_bounds.c -- no logit of a row of the head is above this, from 6 bits a weight.
 *
 * Second of the screened head's operators: head_kernels.h has the layout and the proof.  This one
 * reads all rows, so it is as fast as memory.  A row, while it is near, meets all tokens: blocks of
 * them share its decoded codes, and two rows share the activations where dot4 exists.  Several tokens on a
 * machine with matrix tiles cost little more than one.  The exact integer sums go out too, for head_refine
 * to add two bits to. */
#include "ops/head_kernels.h"

enum { PART, SUM, NORM, NOISE, CODE, META, UP, DOT, PEAK }; /* arguments, as kernels count them */

/* Bytes between what is read and what is brought in; when, not what. */
static const int64_t prefetch_values[] = {16384, 4096, 32768};
static const setun_knob knobs[] = {
    {"prefetch", "bytes of the rows brought in ahead: 4 KB, or pages side by side", prefetch_values, SETUN_LEN(prefetch_values), 0},
};
#define MOST_TOKENS 4

static setun_status infer(setun_args *a, setun_error *err)
{
    static const uint32_t type[6] = {SETUN_I8, SETUN_I32, SETUN_F32, SETUN_I32, SETUN_U8, SETUN_F32};
    setun_status s = SETUN_OK;
    for (uint32_t i = 0; i < 6 && s == SETUN_OK; i++)
        s = setun_want(a, i, SETUN_OF(type[i]), 2, err);
    for (uint32_t i = SUM; i <= NOISE && s == SETUN_OK; i++)
        s = setun_want_equal(a, i, 0, PART, 0, err);
    if (s == SETUN_OK)
        s = setun_want_equal(a, META, 0, CODE, 0, err);
    if (s == SETUN_OK)
        s = setun_want_range(a, PART, 1, 2 * HEAD_BLOCK, 2 * HEAD_MAX_K, err);
    if (s == SETUN_OK)
        s = setun_want_range(a, CODE, 0, 1, INT32_MAX, err);
    if (s != SETUN_OK)
        return s;
    int64_t width = a->in[PART].dim[1] / 2;
    if (a->in[PART].dim[1] % (2 * HEAD_BLOCK) || a->in[CODE].dim[1] != width / HEAD_BLOCK * HEAD_CODE_BYTES ||
        a->in[SUM].dim[1] != 2 || a->in[NORM].dim[1] != 4 || a->in[NOISE].dim[1] != 4 || a->in[META].dim[1] != 4)
        return setun_fail(err, SETUN_BAD_SHAPE, "wants part i8[n,2K], sum i32[n,2], norm f32[n,4], noise i32[n,4], "
                          "code u8[r,3K/4] and meta f32[r,4] with K a multiple of %d", HEAD_BLOCK);
    (void)setun_infer_out(a, 0, SETUN_F32, 2, a->in[PART].dim[0], a->in[CODE].dim[0], 1);
    (void)setun_infer_out(a, 1, SETUN_I32, 3, a->in[PART].dim[0], a->in[CODE].dim[0], 2);
    return setun_infer_out(a, 2, SETUN_F32, 2, a->in[PART].dim[0], (a->in[CODE].dim[0] + HEAD_PEAK - 1) / HEAD_PEAK, 1);
}

static void sums(const uint8_t *code, const int8_t *part, int64_t width, int32_t *h, int32_t *l)
{
    *h = *l = 0;
    for (int64_t i = 0; i < width; i++) {
        const uint8_t *b = code + i / HEAD_BLOCK * HEAD_CODE_BYTES;
        int64_t f = i % HEAD_BLOCK / 64, j = i % 64;
        int32_t c = f < 3 ? b[64 * f + j] & 63 : b[j] >> 6 | b[64 + j] >> 6 << 2 | b[128 + j] >> 6 << 4;
        *h += c * part[i];
        *l += c * part[width + i];
    }
}

static setun_status eval(const setun_args *a, setun_error *err)
{
    int64_t n = a->in[PART].dim[0], rows = a->in[CODE].dim[0], width = a->in[PART].dim[1] / 2, bytes = a->in[CODE].dim[1];
    int64_t peaks = a->out[2].dim[1];
    float *up = a->out[0].data, *peak = a->out[2].data;
    int32_t *dot = a->out[1].data;
    (void)err;
    for (int64_t t = 0; t < n; t++) {
        const int32_t *sum = (const int32_t *)a->in[SUM].data + 2 * t, *noise = (const int32_t *)a->in[NOISE].data + 4 * t;
        for (int64_t r = 0; r < rows; r++) {
            const float *meta = (const float *)a->in[META].data + 4 * r;
            int32_t h, l, *d = dot + 2 * (t * rows + r);
            sums((const uint8_t *)a->in[CODE].data + r * bytes, (const int8_t *)a->in[PART].data + 2 * t * width, width, &h, &l);
            d[0] = 2 * h - 63 * sum[0];
            d[1] = 2 * l - 63 * sum[1];
            float v = head_upper(d[0], d[1], meta, meta[1], 1.0f, (const float *)a->in[NORM].data + 4 * t);
            float z = up[t * rows + r] = head_noisy(v, noise, (int32_t)r), *p = peak + t * peaks + r / HEAD_PEAK;
            *p = r % HEAD_PEAK ? setun_maxf(*p, z) : z;
        }
    }
    return SETUN_OK;
}

typedef struct bounds {
    setun_kernel *k;
    k_val    code, part, sum, norm, meta, up, dot; /* pointers */
    int64_t  width, bytes, prefetch;               /* of part and of code; bytes ahead */
} bounds;

/* The four codes of the byte columns at `at`. */
static void decode(setun_kernel *k, k_val code, k_val at, uint32_t n, k_val c[4])
{
    k_val b[3];
    for (int f = 0; f < 3; f++) {
        b[f] = k_load(k, code, k_addi(k, at, 64 * f), n);
        c[f] = head_bits_k(k, b[f], 0, 63);
    }
    c[3] = k_or(k, head_bits_k(k, b[0], 6, 3), k_or(k, head_bits_k(k, b[1], 4, 12), head_bits_k(k, b[2], 2, 48)));
}

/* Rows r, r + 1, ... of n_row meet tokens t, t + 1, ... of n_tok. */
static void meet(const bounds *c, k_val r, int n_row, k_val t, int n_tok)
{
    setun_kernel *k = c->k;
    uint32_t n = head_lanes(k);
    k_val acc[2][MOST_TOKENS][2], code[2][4], x[4];
    for (int i = 0; i < n_row * n_tok * 2; i++)
        acc[i / (2 * n_tok)][i / 2 % n_tok][i % 2] = head_acc_k(k);
    k_val b = k_for(k, k_i64(k, 0), k_i64(k, c->width / HEAD_BLOCK), 1);
    for (int64_t j = 0; j < 64; j += n) {
        for (int u = 0; u < n_row; u++) {
            k_val at = k_add(k, k_muli(k, k_addi(k, r, u), c->bytes), k_muli(k, b, HEAD_CODE_BYTES));
            for (int f = 0; j == 0 && f < 3; f++)
                k_fetch_ahead(k, c->code, k_addi(k, at, 64 * f), c->prefetch);
            decode(k, c->code, k_addi(k, at, j), n, code[u]);
        }
        for (int i = 0; i < 2 * n_tok; i++) {
            k_val at = k_add(k, k_muli(k, k_addi(k, t, i / 2), 2 * c->width), k_muli(k, b, HEAD_BLOCK));
            for (int f = 0; f < 4; f++)
                x[f] = k_load(k, c->part, k_addi(k, at, i % 2 * c->width + 64 * f + j), n);
            for (int u = 0; u < n_row; u++)
                head_dot_k(k, code[u], x, acc[u][i / 2][i % 2]);
        }
    }
    k_stop(k);
    for (int u = 0; u < n_row; u++)
        for (int i = 0; i < n_tok; i++) {
            k_val token = k_addi(k, t, i), row = k_addi(k, r, u), d[2], norm[3], meta[3];
            k_val to = k_add(k, k_mul(k, token, k_dim_run(k, CODE, 0)), row);
            for (int p = 0; p < 2; p++) {
                k_val bias = k_muli(k, k_load(k, c->sum, k_addi(k, k_muli(k, token, 2), p), 1), 63);
                d[p] = k_sub(k, k_muli(k, k_rsum(k, k_get(k, acc[u][i][p])), 2), bias);
                k_store(k, c->dot, k_addi(k, k_muli(k, to, 2), p), d[p]);
            }
            head_norm_k(k, c->norm, token, norm);
            head_meta_k(k, c->meta, row, 1, meta);
            k_store(k, c->up, to, head_upper_k(k, d[0], d[1], meta, 1.0f, norm));
        }
}

/* ---------------------------------------------------------------- several tokens: matrix tiles
 *
 * The codes of 16 rows, 64 columns each, are a tile as they lie there, once they are decoded: they are below 64, so
 * they are signed bytes.  The other tile has the two bytes of up to 8 tokens side by side:
 *
 *     row i, four bytes each   | hi 0 [4i ..] | lo 0 [4i ..] | hi 1 [4i ..] | ... | lo 7 [4i ..] |
 *
 * RUN rows are decoded 256 columns at a time, in the first-level cache, and meet the tokens in four tiles of sums:
 * so the right tiles, which come from the second-level cache, are used four times. */

#define SIDE 16               /* rows and columns of a tile */
#define RUN (4 * SIDE)        /* rows at a time */
#define SOME 8                /* tokens at a time */
#define MANY (4 * SOME)       /* tokens for which memory is read once */

typedef struct tiles {
    bounds  b;
    int64_t n_step;        /* of 64 columns */
    k_val   x, codes, acc; /* memory: right tiles, a decoded block, sums[row][column] */
} tiles;

/* The right tiles of tokens [t0, t1), SOME after the other. */
static void pack_tokens(const tiles *c, k_val t0, k_val t1)
{
    setun_kernel *k = c->b.k;
    k_val row = k_for(k, k_shl(k, t0, 1), k_shl(k, t1, 1), 1), step = k_for(k, k_i64(k, 0), k_i64(k, c->n_step), 1);
    k_val v = k_load(k, c->b.part, k_add(k, k_muli(k, row, c->b.width), k_muli(k, step, 64)), 64);
    k_val at = k_sub(k, row, k_shl(k, t0, 1)), block = k_muli(k, k_shru(k, at, 4), c->n_step);
    at = k_add(k, k_muli(k, k_add(k, block, step), SIDE * SIDE), k_and(k, at, k_i64(k, SIDE - 1)));
    v = k_cast(k, v, K_TYPE(K_I32, SIDE));
    for (int32_t i = 0; i < SIDE; i++)
        k_store(k, c->x, k_addi(k, at, SIDE * i), k_extract(k, v, i));
    k_stop(k);
    k_stop(k);
}

/* Part i of PARTS of a block's share of the rows to come.  Hints in one burst would wait for each other, and memory for the
 * next burst: they are spread over all that is done.  They name PAGES pages side by side, and RUN rows are read from all of
 * theirs at once, so hints are for the group of pages behind the rows that follow.  `later` is where each run of 64
 * lines begins in that order, and a line of each page is next in it: such a run does not leave its group. */
#define PARTS (RUN / 2 + 2 * 16)
#define PAGES 16
#define RUN_LINES (RUN * HEAD_CODE_BYTES / K_LINE)
static void fetch_later(const tiles *c, const k_val later[RUN_LINES / 64], int64_t i)
{
    for (int64_t j = RUN_LINES * i / PARTS; j < RUN_LINES * (i + 1) / PARTS; j++)
        k_prefetch(c->b.k, c->b.code, k_addi(c->b.k, later[j / 64], j % PAGES * K_PAGE + j % 64 / PAGES * K_LINE), 2);
}

/* Block b of RUN rows from r on: a field after the other, 64 bytes of each row. */
static void decode_rows(const tiles *c, k_val r, k_val b, const k_val later[RUN_LINES / 64])
{
    setun_kernel *k = c->b.k;
    k_val f[4], from = k_add(k, k_muli(k, r, c->b.bytes), k_muli(k, b, HEAD_CODE_BYTES));
    for (int64_t i = 0; i < RUN; i++) {
        decode(k, c->b.code, k_addi(k, from, i * c->b.bytes), 64, f);
        for (int64_t j = 0; j < 4; j++)
            k_store(k, c->codes, k_i64(k, (j * RUN + i) * 64), f[j]);
        if (i % 2)
            fetch_later(c, later, i / 2);
    }
}

/* Results of SIDE rows from r on, whose sums begin at acc[at], for n tokens from t0 on. */
static void put_tile(const tiles *c, k_val r, int64_t at, k_val t0, k_val n)
{
    setun_kernel *k = c->b.k;
    k_val meta[3], norm[3], d[2], all[4];
    int32_t pairs[2 * SIDE];
    for (int j = 0; j < 2 * SIDE; j++)
        pairs[j] = j % 2 * SIDE + j / 2;
    for (int j = 0; j < 4; j++)
        all[j] = k_load(k, c->b.meta, k_addi(k, k_shl(k, r, 2), 16 * j), 16);
    for (int j = 0; j < 3; j++) { /* of the four floats of a row the third is not wanted */
        int32_t mask[8];
        for (int i = 0; i < 8; i++)
            mask[i] = 4 * i + (j == 2 ? 3 : j);
        meta[j] = k_concat(k, k_shuffle(k, all[0], all[1], mask, 8), k_shuffle(k, all[2], all[3], mask, 8));
    }
    k_val lane = k_addi(k, k_muli(k, k_iota(k, K_TYPE(K_I32, SIDE), 0), SIDE), at);
    k_val i = k_for(k, k_i64(k, 0), n, 1), t = k_add(k, t0, i), to = k_add(k, k_mul(k, t, k_dim_run(k, CODE, 0)), r);
    for (int p = 0; p < 2; p++) {
        k_val column = k_splat(k, k_trunc(k, k_addi(k, k_shl(k, i, 1), p), K_I32), SIDE);
        k_val bias = k_muli(k, k_load(k, c->b.sum, k_addi(k, k_shl(k, t, 1), p), 1), 63);
        d[p] = k_shl(k, k_gather(k, c->acc, k_add(k, lane, column)), 1);
        d[p] = k_sub(k, d[p], k_splat(k, bias, SIDE));
    }
    k_store(k, c->b.dot, k_shl(k, to, 1), k_shuffle(k, d[0], d[1], pairs, 2 * SIDE));
    head_norm_k(k, c->b.norm, t, norm);
    for (int j = 0; j < 3; j++)
        norm[j] = k_splat(k, norm[j], SIDE);
    k_store(k, c->b.up, to, head_upper_k(k, d[0], d[1], meta, 1.0f, norm));
    k_stop(k);
}

/* RUN rows from r on meet n <= SOME tokens from t0 on, whose right tiles begin at x[at]. */
static void tile_rows(const tiles *c, k_val r, k_val t0, k_val n, k_val at)
{
    setun_kernel *k = c->b.k;
    for (int64_t i = 0; i < 4; i++)
        k_tile_zero(k, i);
    k_val b = k_for(k, k_i64(k, 0), k_i64(k, c->n_step / 4), 1);
    k_val byte = k_add(k, k_muli(k, k_addi(k, r, RUN), c->b.bytes), k_muli(k, b, RUN * HEAD_CODE_BYTES)), later[RUN_LINES / 64];
    k_val line = k_and(k, k_udiv(k, k_addi(k, byte, PAGES * K_PAGE), k_i64(k, K_LINE)), k_i64(k, -64));
    for (int i = 0; i < RUN_LINES / 64; i++)
        later[i] = k_side_by_side(k, k_addi(k, line, 64 * i), PAGES);
    decode_rows(c, r, b, later);
    for (int64_t f = 0; f < 4; f++) {
        k_tile_load(k, 6 + f % 2, c->x, k_add(k, at, k_muli(k, k_addi(k, k_shl(k, b, 2), f), SIDE * SIDE)), SIDE);
        for (int64_t i = 0; i < 4; i++) {
            k_tile_load(k, 4 + i % 2, c->codes, k_i64(k, (f * RUN + i * SIDE) * 64), 64);
            k_tile_dot_s8(k, i, 4 + i % 2, 6 + f % 2);
            for (int64_t h = 0; h < 2; h++)
                fetch_later(c, later, RUN / 2 + 8 * f + 2 * i + h);
        }
    }
    k_stop(k);
    for (int64_t i = 0; i < 4; i++)
        k_tile_store(k, i, c->acc, k_i64(k, i * SIDE * SIDE), SIDE);
    for (int64_t i = 0; i < 4; i++)
        put_tile(c, k_addi(k, r, SIDE * i), i * SIDE * SIDE, t0, n);
}

/* As many rows of [r0, r1) as RUN divides, all tokens; gives where the others begin. */
static k_val all_tiles(const bounds *b, k_val r0, k_val r1, k_val n)
{
    setun_kernel *k = b->k;
    tiles c = {.b = *b, .n_step = b->width / 64};
    c.x = k_scratch(k, K_I32, MANY / SOME * c.n_step * SIDE * 64);
    c.codes = k_local(k, K_I8, 4 * 64 * RUN);
    c.acc = k_local(k, K_I32, RUN * SIDE);
    k_val end = k_add(k, r0, k_and(k, k_sub(k, r1, r0), k_i64(k, -RUN)));
    k_val t0 = k_for(k, k_i64(k, 0), n, MANY), t1 = k_min(k, n, k_addi(k, t0, MANY));
    pack_tokens(&c, t0, t1);
    k_val r = k_for(k, r0, end, RUN), t = k_for(k, t0, t1, SOME);
    tile_rows(&c, r, t, k_min(k, k_sub(k, t1, t), k_i64(k, SOME)), k_muli(k, k_sub(k, t, t0), c.n_step * SIDE * SIDE / SOME));
    k_stop(k);
    k_stop(k);
    k_stop(k);
    return end;
}

/* ---------------------------------------------------------------- all rows of a worker */

/* The largest of every HEAD_PEAK bounds of token t. */
static void peaks(const bounds *c, k_val peak, k_val t, k_val rows, k_val r0, k_val r1)
{
    setun_kernel *k = c->k;
    k_val n = k_udiv(k, k_addi(k, rows, HEAD_PEAK - 1), k_i64(k, HEAD_PEAK)), from = k_mul(k, t, rows);
    k_val r = k_for(k, r0, r1, HEAD_PEAK);
    k_val most = k_var(k, k_load(k, c->up, k_add(k, from, r), 1));
    k_if(k, k_le(k, k_addi(k, r, HEAD_PEAK), r1));
    k_set(k, most, k_rmax(k, k_load(k, c->up, k_add(k, from, r), HEAD_PEAK)));
    k_else(k);
    k_val i = k_for(k, k_addi(k, r, 1), r1, 1);
    k_set(k, most, k_max(k, k_get(k, most), k_load(k, c->up, k_add(k, from, i), 1)));
    k_stop(k);
    k_stop(k);
    k_store(k, peak, k_add(k, k_mul(k, t, n), k_udiv(k, r, k_i64(k, HEAD_PEAK))), k_get(k, most));
    k_stop(k);
}

static setun_status lower(setun_kernel *k, const setun_args *a, setun_error *err)
{
    bounds c = {k, k_arg(k, CODE, K_I8), k_arg(k, PART, K_I8), k_arg(k, SUM, K_I32), k_arg(k, NORM, K_F32),
                k_arg(k, META, K_F32), k_arg(k, UP, K_F32), k_arg(k, DOT, K_I32), a->in[PART].dim[1] / 2,
                a->in[CODE].dim[1], setun_knob_value(a, 0)};
    int pairs = k_info(k, K_HAS_DOT4) != 0, block = k_info(k, K_N_REGISTERS) >= 32 ? MOST_TOKENS : 2;
    (void)err;
    k_grid(k, CODE, 0, HEAD_PEAK);
    k_val zero = k_i64(k, 0), n = k_dim(k, PART, 0), whole = zero;
    k_val r0 = k_muli(k, k_begin(k), HEAD_PEAK), first = r0, from;
    k_val r1 = k_min(k, k_muli(k, k_end(k), HEAD_PEAK), k_dim_run(k, CODE, 0));
    if (a->in[PART].dim[0] != 1 && k_info(k, K_HAS_TILES))
        r0 = all_tiles(&c, r0, r1, n);
    from = r0;
    for (int n_row = pairs ? 2 : 1; n_row > 0; n_row--) {
        k_val to = n_row == 1 ? r1 : k_add(k, r0, k_and(k, k_sub(k, r1, r0), k_i64(k, -2)));
        k_val r = k_for(k, from, to, n_row), t;
        if (a->in[PART].dim[0] != 1) {
            whole = k_and(k, n, k_i64(k, -block));
            t = k_for(k, zero, whole, block);
            meet(&c, r, n_row, t, block);
            k_stop(k);
        }
        t = k_for(k, whole, n, 1);
        meet(&c, r, n_row, t, 1);
        k_stop(k);
        k_stop(k);
        from = to;
        whole = zero;
    }
    k_val t = k_for(k, zero, n, 1);
    head_noise_k(k, c.up, 0, k_arg(k, NOISE, K_I32), t, k_mul(k, t, k_dim_run(k, CODE, 0)), first, r1);
    peaks(&c, k_arg(k, PEAK, K_F32), t, k_dim_run(k, CODE, 0), first, r1);
    k_stop(k);
    return SETUN_OK;
}

static void cost(const setun_args *a, setun_cost *c)
{
    setun_cost_map(a, (double)a->in[CODE].dim[0], c);
    c->int_ops = c->float_ops;
    c->float_ops = 12 * setun_cost_count(&a->out[0]);
}

/* Halves as head_split makes them, any codes, norms of which some are not finite, noise for every second token. */
static void fill(const setun_args *a, uint64_t seed)
{
    int8_t *part = a->in[PART].data;
    uint8_t *code = a->in[CODE].data;
    float *norm = a->in[NORM].data, *meta = a->in[META].data;
    int32_t *sum = a->in[SUM].data, *noise = a->in[NOISE].data;
    int64_t width = a->in[PART].dim[1] / 2, bytes = a->in[CODE].dim[1];
    for (int64_t i = 0, n = setun_count(&a->in[PART]); i < n; i++)
        part[i] = (int8_t)(i / width % 5 == 1 ? 64 : (int64_t)(setun_mix(seed, (uint64_t)i) % 129) - 64);
    for (int64_t i = 0, n = setun_count(&a->in[CODE]); i < n; i++)
        code[i] = (uint8_t)(i / bytes % 7 == 0 ? 255 : setun_mix(seed ^ 1, (uint64_t)i) & 255);
    for (int64_t t = 0; t < a->in[PART].dim[0]; t++) {
        for (int p = 0; p < 2; p++) {
            sum[2 * t + p] = 0;
            for (int64_t i = 0; i < width; i++)
                sum[2 * t + p] += part[(2 * t + p) * width + i];
        }
        noise[4 * t] = (int32_t)(setun_mix(seed, 77) & 0x7fffffff);
        noise[4 * t + 1] = -5;
        noise[4 * t + 2] = (seed + (uint64_t)t) % 2 ? 0x3f4ccccd : 0; /* 0.8 */
        noise[4 * t + 3] = 0;
    }
    for (int64_t i = 0, n = setun_count(&a->in[NORM]); i < n; i++)
        norm[i] = i / 4 % 5 == 4 ? INFINITY : (float)(setun_mix(seed ^ 2, (uint64_t)i) & 255) * 0x1p-6f;
    for (int64_t i = 0, n = setun_count(&a->in[META]); i < n; i++)
        meta[i] = i / 4 % 9 == 4 && i % 4 ? INFINITY : (float)(setun_mix(seed ^ 3, (uint64_t)i) & 255) * 0x1p-9f;
}

static const setun_port in[] = {
    {"part", "i8[n,2K]: of head_split", 0, 0},
    {"sum", "i32[n,2]: of head_split", 0, 0},
    {"norm", "f32[n,4]: of head_split", 0, 0},
    {"noise", "i32[n,4]: key (2 words), bits of the temperature (0: no noise), bits of what is added to the least", 0, 0},
    {"code", "u8[r,3K/4]: upper six bits of the codes of the rows", 0, 0},
    {"meta", "f32[r,4]: half a step, bounds of the errors with 6 and 8 bits, bound of the norm", 0, 0},
};
static const setun_port out[] = {
    {"up", "f32[n,r]: no logit is above; with noise: no logit / temperature + noise", 0, 0},
    {"dot", "i32[n,r,2]: exact sums of the odd 7-bit integers times hi and times lo", 0, 0},
    {"peak", "f32[n,R]: the largest of every 16 of up; R is r / 16 rounded up", 0, 0},
};
#define CASE(n, r, k2, bytes) "part:i8[" n "," k2 "] sum:i32[" n ",2] norm:f32[" n ",4] noise:i32[" n ",4] code:u8[" r "," bytes \
                              "] meta:f32[" r ",4]"
static const char *const cases[] = {
    CASE("1", "70", "512", "192"), CASE("n7", "129", "512", "192"), CASE("1", "7", "5120", "1920"),
    CASE("m2", "1", "1024", "384"), CASE("8", "33", "512", "192"), CASE("n5", "18", "1536", "576"), CASE("n7", "64", "1536", "576"),
    CASE("n41", "149", "512", "192"), CASE("m8", "97", "1024", "384"), NULL,
};

SETUN_OP(head_bounds) = {
    .size = sizeof(setun_op), .version = 2, .name = "head_bounds",
    .doc = "numbers that the logits do not exceed, from 6-bit rows",
    .in = in, .out = out, .n_in = SETUN_LEN(in), .n_out = SETUN_LEN(out),
    .infer = infer, .eval = eval, .lower = lower, .cost = cost, .fill = fill, .cases = cases,
    .knob = knobs, .n_knob = SETUN_LEN(knobs),
};
