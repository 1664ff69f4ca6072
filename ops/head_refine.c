/* ops/head_refine.c -- better bounds for listed rows of the head, from two more bits a weight.
 *
 * head_kernels.h has the layout and the proof.  The sums that head_bounds left are those of the upper
 * six bits, so only the 64 bytes a block of "fine" are read: four times the sum, plus that of two bits.
 * The rows lie anywhere: the first bytes of rows further down the list are prefetched. */
#include "ops/head_kernels.h"

enum { PART, SUM, NORM, NOISE, DOT, FINE, META, ID, COUNT, UP };

#define UNITS 64
#define AHEAD 4 /* rows */

static setun_status infer(setun_args *a, setun_error *err)
{
    static const uint32_t type[9] = {SETUN_I8, SETUN_I32, SETUN_F32, SETUN_I32, SETUN_I32, SETUN_U8, SETUN_F32, SETUN_I32, SETUN_I32};
    static const uint32_t rank[9] = {2, 2, 2, 2, 3, 2, 2, 2, 1};
    setun_status s = SETUN_OK;
    for (uint32_t i = 0; i < 9 && s == SETUN_OK; i++)
        s = setun_want(a, i, SETUN_OF(type[i]), rank[i], err);
    for (uint32_t i = SUM; i <= COUNT && s == SETUN_OK; i++)
        if (i != FINE && i != META)
            s = setun_want_equal(a, i, 0, PART, 0, err);
    if (s == SETUN_OK)
        s = setun_want_equal(a, META, 0, FINE, 0, err);
    if (s == SETUN_OK)
        s = setun_want_equal(a, DOT, 1, FINE, 0, err);
    if (s == SETUN_OK)
        s = setun_want_range(a, PART, 1, 2 * HEAD_BLOCK, 2 * HEAD_MAX_K, err);
    if (s == SETUN_OK)
        s = setun_want_range(a, FINE, 0, 1, INT32_MAX, err);
    if (s != SETUN_OK)
        return s;
    if (a->in[PART].dim[1] % (2 * HEAD_BLOCK) || a->in[FINE].dim[1] * 8 != a->in[PART].dim[1] || a->in[SUM].dim[1] != 2 ||
        a->in[NORM].dim[1] != 4 || a->in[NOISE].dim[1] != 4 || a->in[META].dim[1] != 4 || a->in[DOT].dim[2] != 2)
        return setun_fail(err, SETUN_BAD_SHAPE, "wants part i8[n,2K], sum i32[n,2], norm f32[n,4], noise i32[n,4], dot i32[n,r,2], "
                          "fine u8[r,K/4] and meta f32[r,4] with K a multiple of %d", HEAD_BLOCK);
    return setun_infer_out(a, 0, SETUN_F32, 2, a->in[ID].dim[0], a->in[ID].dim[1], 1);
}

static setun_status eval(const setun_args *a, setun_error *err)
{
    int64_t n = a->in[PART].dim[0], width = a->in[PART].dim[1] / 2, rows = a->in[FINE].dim[0], most = a->in[ID].dim[1];
    const int32_t *count = a->in[COUNT].data;
    float *up = a->out[0].data;
    setun_status s = setun_check_index(a, ID, rows, err);
    if (s != SETUN_OK)
        return s;
    memset(up, 0, (size_t)(n * most) * sizeof *up);
    for (int64_t t = 0; t < n; t++) {
        const int8_t *part = (const int8_t *)a->in[PART].data + 2 * t * width;
        const int32_t *sum = (const int32_t *)a->in[SUM].data + 2 * t;
        for (int64_t j = 0; j < count[t] && j < most; j++) {
            int32_t r = ((const int32_t *)a->in[ID].data)[t * most + j], h = 0, l = 0;
            const uint8_t *fine = (const uint8_t *)a->in[FINE].data + r * (width / 4);
            const float *meta = (const float *)a->in[META].data + 4 * r;
            const int32_t *dot = (const int32_t *)a->in[DOT].data + 2 * (t * rows + r);
            for (int64_t i = 0; i < width; i++) {
                int32_t c = fine[i / HEAD_BLOCK * HEAD_FINE_BYTES + i % 64] >> i % HEAD_BLOCK / 64 * 2 & 3;
                h += c * part[i];
                l += c * part[width + i];
            }
            float v = head_upper(4 * dot[0] + (2 * h - 3 * sum[0]), 4 * dot[1] + (2 * l - 3 * sum[1]), meta, meta[2], 0.25f,
                                 (const float *)a->in[NORM].data + 4 * t);
            up[t * most + j] = head_noisy(v, (const int32_t *)a->in[NOISE].data + 4 * t, r);
        }
    }
    return SETUN_OK;
}

/* The bound of row r for token t; row `ahead` comes later. */
static k_val refined(setun_kernel *k, const setun_args *a, k_val r, k_val t, k_val ahead)
{
    int64_t width = a->in[PART].dim[1] / 2;
    uint32_t n = head_lanes(k);
    k_val fine = k_arg(k, FINE, K_I8), part = k_arg(k, PART, K_I8), sum = k_arg(k, SUM, K_I32), dot = k_arg(k, DOT, K_I32);
    k_val acc[2], code[4], x[4], s[2], norm[3], meta[3];
    for (int p = 0; p < 2; p++)
        acc[p] = head_acc_k(k);
    k_val row0 = k_mul(k, t, k_dim_run(k, FINE, 0));
    k_prefetch(k, k_arg(k, META, K_F32), k_muli(k, ahead, 16), 3);
    k_prefetch(k, dot, k_muli(k, k_add(k, row0, ahead), 8), 3);
    k_val b = k_for(k, k_i64(k, 0), k_i64(k, width / HEAD_BLOCK), 1);
    k_prefetch(k, fine, k_add(k, k_muli(k, ahead, width / 4), k_muli(k, b, HEAD_FINE_BYTES)), 3);
    for (int64_t j = 0; j < 64; j += n) {
        k_val at = k_add(k, k_muli(k, r, width / 4), k_muli(k, b, HEAD_FINE_BYTES));
        k_val w = k_load(k, fine, k_addi(k, at, j), n);
        for (int f = 0; f < 4; f++)
            code[f] = head_bits_k(k, w, 2 * f, 3);
        at = k_add(k, k_muli(k, t, 2 * width), k_muli(k, b, HEAD_BLOCK));
        for (int p = 0; p < 2; p++) {
            for (int f = 0; f < 4; f++)
                x[f] = k_load(k, part, k_addi(k, at, p * width + 64 * f + j), n);
            head_dot_k(k, code, x, acc[p]);
        }
    }
    k_stop(k);
    k_val from = k_muli(k, k_add(k, row0, r), 2);
    for (int p = 0; p < 2; p++) {
        k_val bias = k_muli(k, k_load(k, sum, k_addi(k, k_muli(k, t, 2), p), 1), 3);
        s[p] = k_sub(k, k_muli(k, k_rsum(k, k_get(k, acc[p])), 2), bias);
        s[p] = k_add(k, k_muli(k, k_load(k, dot, k_addi(k, from, p), 1), 4), s[p]);
    }
    head_norm_k(k, k_arg(k, NORM, K_F32), t, norm);
    head_meta_k(k, k_arg(k, META, K_F32), r, 2, meta);
    return head_upper_k(k, s[0], s[1], meta, 0.25f, norm);
}

/* Unit u of `units` takes the u-th part of what is listed, and of what is not, which becomes 0. */
static setun_status lower(setun_kernel *k, const setun_args *a, setun_error *err)
{
    int64_t most = a->in[ID].dim[1], granule = (most + UNITS - 1) / UNITS, units = (most + granule - 1) / granule;
    k_val id = k_arg(k, ID, K_I32), count = k_arg(k, COUNT, K_I32), up = k_arg(k, UP, K_F32);
    (void)err;
    k_grid(k, ID, 1, granule);
    k_val t = k_for(k, k_i64(k, 0), k_dim(k, PART, 0), 1), list = k_muli(k, t, most), cut[2][2];
    k_val n = k_min(k, k_max(k, k_sext(k, k_load(k, count, t, 1), K_I64), k_i64(k, 0)), k_i64(k, most));
    head_share_k(k, n, units, cut[0]);
    head_share_k(k, k_sub(k, k_i64(k, most), n), units, cut[1]);
    for (int i = 0; i < 2; i++)
        cut[1][i] = k_add(k, cut[1][i], n);
    k_val j = k_for(k, cut[0][0], cut[0][1], 1);
    k_val r = k_sext(k, k_load(k, id, k_add(k, list, j), 1), K_I64);
    k_val next = k_min(k, k_addi(k, j, AHEAD), k_i64(k, most - 1));
    k_val ahead = k_sext(k, k_load(k, id, k_add(k, list, next), 1), K_I64);
    k_store(k, up, k_add(k, list, j), refined(k, a, r, t, ahead));
    k_stop(k);
    head_noise_k(k, up, id, k_arg(k, NOISE, K_I32), t, list, cut[0][0], cut[0][1]);
    k_val middle = k_add(k, cut[1][0], k_and(k, k_sub(k, cut[1][1], cut[1][0]), k_i64(k, -16)));
    for (uint32_t lanes = 16; lanes; lanes = lanes == 16 ? 1 : 0) {
        j = lanes == 16 ? k_for(k, cut[1][0], middle, 16) : k_for(k, middle, cut[1][1], 1);
        k_store(k, up, k_add(k, list, j), k_f32v(k, 0.0f, lanes));
        k_stop(k);
    }
    k_stop(k);
    return SETUN_OK;
}

/* How many rows are listed is not known before it runs: none are counted here. */
static void cost(const setun_args *a, setun_cost *c)
{
    (void)a;
    c->int_ops = c->float_ops = c->bytes = 0;
}

static void fill(const setun_args *a, uint64_t seed)
{
    int64_t n = a->in[PART].dim[0], width = a->in[PART].dim[1] / 2, most = a->in[ID].dim[1];
    int8_t *part = a->in[PART].data;
    uint8_t *fine = a->in[FINE].data;
    int32_t *sum = a->in[SUM].data, *dot = a->in[DOT].data, *noise = a->in[NOISE].data, *count = a->in[COUNT].data;
    float *norm = a->in[NORM].data, *meta = a->in[META].data;
    for (int64_t i = 0; i < n * 2 * width; i++)
        part[i] = (int8_t)(i / width % 5 == 1 ? 64 : (int64_t)(setun_mix(seed, (uint64_t)i) % 129) - 64);
    for (int64_t i = 0, m = setun_count(&a->in[FINE]); i < m; i++)
        fine[i] = (uint8_t)(i / (width / 4) % 7 == 0 ? 255 : setun_mix(seed ^ 1, (uint64_t)i) & 255);
    for (int64_t i = 0, m = setun_count(&a->in[DOT]); i < m; i++)
        dot[i] = (int32_t)(setun_mix(seed ^ 2, (uint64_t)i) % 2000001) - 1000000;
    for (int64_t i = 0; i < 4 * n; i++)
        norm[i] = (float)(setun_mix(seed ^ 3, (uint64_t)i) & 255) * 0x1p-6f;
    for (int64_t i = 0, m = setun_count(&a->in[META]); i < m; i++)
        meta[i] = i / 4 % 9 == 4 && i % 4 ? INFINITY : (float)(setun_mix(seed ^ 4, (uint64_t)i) & 255) * 0x1p-9f;
    setun_fill_index(&a->in[ID], a->in[FINE].dim[0], seed);
    int64_t some = most < 300 ? most : 300; /* a long list takes the same ways, and eval its time */
    for (int64_t t = 0; t < n; t++) {
        for (int p = 0; p < 2; p++) {
            sum[2 * t + p] = 0;
            for (int64_t i = 0; i < width; i++)
                sum[2 * t + p] += part[(2 * t + p) * width + i];
        }
        count[t] = (int32_t)(setun_mix(seed ^ 5, (uint64_t)t) % (uint64_t)(some + 2)) - 1;
        noise[4 * t] = 4321;
        noise[4 * t + 1] = -5;
        noise[4 * t + 2] = (seed + (uint64_t)t) % 2 ? 0x3f4ccccd : 0; /* 0.8 */
        noise[4 * t + 3] = 0;
    }
}

static const setun_port in[] = {
    {"part", "i8[n,2K]: of head_split", 0, 0},
    {"sum", "i32[n,2]: of head_split", 0, 0},
    {"norm", "f32[n,4]: of head_split", 0, 0},
    {"noise", "i32[n,4]: as for head_bounds", 0, 0},
    {"dot", "i32[n,r,2]: of head_bounds", 0, 0},
    {"fine", "u8[r,K/4]: lower two bits of the codes of the rows", 0, 0},
    {"meta", "f32[r,4]: half a step, bounds of the errors with 6 and 8 bits, bound of the norm", 0, 0},
    {"id", "i32[n,most]: rows, from 0 to r - 1", 0, 0},
    {"count", "i32[n]: how many of them count", 0, 0},
};
static const setun_port out[] = {{"up", "f32[n,most]: bounds as of head_bounds, but closer; 0 behind count", 0, 0}};
#define CASE(n, r, k2, fine, most) "part:i8[" n "," k2 "] sum:i32[" n ",2] norm:f32[" n ",4] noise:i32[" n ",4] dot:i32[" n "," r ",2] " \
                                   "fine:u8[" r "," fine "] meta:f32[" r ",4] id:i32[" n "," most "] count:i32[" n "]"
static const char *const cases[] = {
    CASE("1", "70", "512", "64", "100"), CASE("n3", "33", "512", "64", "129"), CASE("1", "7", "5120", "640", "7"),
    CASE("m2", "1", "1024", "128", "1"), NULL,
};

SETUN_OP(head_refine) = {
    .size = sizeof(setun_op), .version = 1, .name = "head_refine",
    .doc = "closer bounds of the logits of listed rows, from two more bits a weight",
    .in = in, .out = out, .n_in = SETUN_LEN(in), .n_out = SETUN_LEN(out),
    .infer = infer, .eval = eval, .lower = lower, .cost = cost, .fill = fill, .cases = cases,
};
