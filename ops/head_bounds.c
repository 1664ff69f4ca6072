/* ops/head_bounds.c -- between which two numbers every logit lies, from 8-bit rows.
 *
 * The screened head finds the k largest of l_i = w_i . x, bit for bit as matmul makes them from the
 * 16-bit rows w_i, without reading most of these:
 *
 *     head_split   x~ = step * X, integers in two bytes      head_select   which rows can be among the k
 *     head_bounds  lo_i <= l_i <= up_i                       head_rescore  l_i of those, as matmul has it
 *
 * Rows are kept as w~_i = scale_i * (code - 128), bytes, with e_i >= |w_i - w~_i| and
 * n_i >= |w_i|, |w~_i| (Euclidean norms, computed in double when loading, rounded up).
 *
 * Proof.  Let a be what is computed below for w~ . x~, and u = 2^-24.
 *   l - a = (l - w.x) + (w - w~).x + w~.(x - x~) + (w~.x~ - a)
 *   1. A striped sum passes each product through at most r = ceil(k/32) + 6 roundings, so
 *      |l - w.x| <= ru/(1 - ru) * sum |w_j x_j| <= 1.01 r u |w| |x|          (Cauchy-Schwarz; ru < 0.009)
 *   2. |(w - w~).x| <= e |x|,   |w~.(x - x~)| <= n |x - x~|                  (Cauchy-Schwarz)
 *   3. H = q.hi and L = q.lo are exact integers.  With l2 = |lo|: scale step |L| <= n step l2, and
 *      scale step |128 H| <= n (|x~| + step l2).  fl(128 fl(H) + fl(L)) * fl(scale step) has three
 *      roundings on each path and one more of the product: |w~.x~ - a| <= 5.1 u n (|x~| + 2 step l2),
 *      and lo = a - b, up = a + b are rounded once more: together below 8 u n (|x~| + 2 step l2).
 * norm has A >= |x| and B >= |x - x~| + 1.01 r u |x| + 16 u (|x~| + step l2), so
 *      b = (e A + n B)(1 + 2^-16) + 2^-100
 * is enough: the factor covers the five roundings of b and that of the sums a - b and a + b relative
 * to b; 2^-100 covers underflow: of at most 2^17 products and sums, 2^-149 each, and of scale * step
 * (off by 2^-150) times an integer below 2^38.
 * Overflow: if n A < 2^125 then every |w_j x_j| and partial sum is below 2^126, so all the above is
 * finite.  Otherwise, and if anything is NaN, the row is unsure: (-inf, +inf).
 *
 * Headroom: codes are at most 255, |hi|, |lo| <= 64.  dot2: 2 * 255 * 64 = 32640 < 2^15.  32-bit
 * sums: 255 * 64 * K < 2^31 for K <= 131072. */
#include "setun/op.h"

enum { PART, SUM, NORM, CODE, META, LO, UP }; /* arguments, as kernels count them */

#define MAX_K 131072
#define GRANULE 16
/* Bytes between what is read and what is brought in; when, not what. */
static const int64_t prefetch_values[] = {4096, 2048, 8192};
static const setun_knob knobs[] = {
    {"prefetch", "bytes of the rows brought in ahead", prefetch_values, SETUN_LEN(prefetch_values), 0},
};
#define BIAS 128
#define WIDER (1.0f + 0x1p-16f)
#define SLACK 0x1p-100f
#define LIMIT 0x1p125f

static setun_status infer(setun_args *a, setun_error *err)
{
    static const uint32_t type[5] = {SETUN_I8, SETUN_I32, SETUN_F32, SETUN_U8, SETUN_F32};
    setun_status s = SETUN_OK;
    for (uint32_t i = 0; i < 5 && s == SETUN_OK; i++)
        s = setun_want(a, i, SETUN_OF(type[i]), 2, err);
    if (s == SETUN_OK)
        s = setun_want_equal(a, SUM, 0, PART, 0, err);
    if (s == SETUN_OK)
        s = setun_want_equal(a, NORM, 0, PART, 0, err);
    if (s == SETUN_OK)
        s = setun_want_equal(a, META, 0, CODE, 0, err);
    if (s == SETUN_OK)
        s = setun_want_range(a, CODE, 1, 1, MAX_K, err);
    if (s != SETUN_OK)
        return s;
    if (a->in[PART].dim[1] != 2 * a->in[CODE].dim[1] || a->in[CODE].dim[1] % 128 || a->in[SUM].dim[1] != 2 ||
        a->in[NORM].dim[1] != 4 || a->in[META].dim[1] != 4)
        return setun_fail(err, SETUN_BAD_SHAPE, "wants part i8[n,2K], sum i32[n,2], norm f32[n,4], code u8[r,K] and "
                          "meta f32[r,4] with K a multiple of 128");
    (void)setun_infer_out(a, 0, SETUN_F32, 2, a->in[PART].dim[0], a->in[CODE].dim[0], 1);
    return setun_infer_out(a, 1, SETUN_F32, 2, a->in[PART].dim[0], a->in[CODE].dim[0], 1);
}

static setun_status eval(const setun_args *a, setun_error *err)
{
    int64_t n = a->in[PART].dim[0], rows = a->in[CODE].dim[0], width = a->in[CODE].dim[1];
    float *lo = a->out[0].data, *up = a->out[1].data;
    (void)err;
    for (int64_t t = 0; t < n; t++) {
        const int8_t *part = (const int8_t *)a->in[PART].data + 2 * t * width;
        const int32_t *sum = (const int32_t *)a->in[SUM].data + 2 * t;
        const float *norm = (const float *)a->in[NORM].data + 4 * t;
        for (int64_t r = 0; r < rows; r++) {
            const uint8_t *code = (const uint8_t *)a->in[CODE].data + r * width;
            const float *meta = (const float *)a->in[META].data + 4 * r;
            int32_t h = 0, l = 0;
            for (int64_t i = 0; i < width; i++) {
                h += code[i] * part[i];
                l += code[i] * part[width + i];
            }
            float s = (float)(h - BIAS * sum[0]) * 128.0f + (float)(l - BIAS * sum[1]);
            float v = s * (meta[0] * norm[0]);
            float b = (meta[1] * norm[1] + meta[2] * norm[2]) * WIDER + SLACK;
            int sure = meta[2] * norm[1] < LIMIT;
            lo[t * rows + r] = sure ? v - b : -INFINITY;
            up[t * rows + r] = sure ? v + b : INFINITY;
        }
    }
    return SETUN_OK;
}

typedef struct bounds {
    setun_kernel *k;
    k_val    code, hi, lo, meta, out_lo, out_up; /* pointers */
    k_val    bias_hi, bias_lo, norm[3];          /* of the current token */
    int64_t  width, prefetch;
    uint32_t lanes;                              /* bytes a step */
} bounds;

/* The sums of row r from part rows at xi (hi) and xi + width (lo). */
static void row_sums(const bounds *c, const k_val *row, int n_row, k_val xi, k_val sum[2][2])
{
    setun_kernel *k = c->k;
    int dot4 = k_info(k, K_HAS_DOT4) != 0;
    uint32_t n = c->lanes, wide = dot4 ? n / 4 : n / 2;
    k_val acc[2][2], zero = k_int(k, K_TYPE(K_I32, wide), 0);
    for (int u = 0; u < n_row; u++)
        for (int p = 0; p < 2; p++)
            acc[u][p] = k_var(k, zero);
    k_val i = k_for(k, k_i64(k, 0), k_i64(k, c->width), 128);
    for (int64_t j = 0; j < 128; j += n) {
        k_val x[2];
        k_val at = k_addi(k, i, j);
        x[0] = k_load(k, c->hi, k_add(k, xi, at), n);
        x[1] = k_load(k, c->lo, k_addi(k, k_add(k, xi, at), c->width), n);
        for (int u = 0; u < n_row; u++) {
            k_val from = k_add(k, row[u], at), w = k_load(k, c->code, from, n);
            if (j % 64 == 0)
                k_prefetch(k, c->code, k_addi(k, from, c->prefetch), 3);
            for (int p = 0; p < 2; p++)
                k_set(k, acc[u][p], dot4 ? k_dot4(k, k_get(k, acc[u][p]), w, x[p])
                                         : k_add(k, k_get(k, acc[u][p]), k_sext(k, k_dot2(k, w, x[p]), K_I32)));
        }
    }
    k_stop(k);
    for (int u = 0; u < n_row; u++)
        for (int p = 0; p < 2; p++)
            sum[u][p] = k_sub(k, k_rsum(k, k_get(k, acc[u][p])), p ? c->bias_lo : c->bias_hi);
}

static void rows_of(const bounds *c, k_val t, k_val r, int n_row)
{
    setun_kernel *k = c->k;
    k_val row[2], sum[2][2], inf = k_f32(k, INFINITY);
    for (int u = 0; u < n_row; u++)
        row[u] = k_muli(k, k_addi(k, r, u), c->width);
    row_sums(c, row, n_row, k_muli(k, t, 2 * c->width), sum);
    for (int u = 0; u < n_row; u++) {
        k_val at = k_muli(k, k_addi(k, r, u), 4), m[3];
        for (int j = 0; j < 3; j++)
            m[j] = k_load(k, c->meta, k_addi(k, at, j), 1);
        k_val s = k_add(k, k_mul(k, k_i2f(k, sum[u][0]), k_f32(k, 128.0f)), k_i2f(k, sum[u][1]));
        k_val v = k_mul(k, s, k_mul(k, m[0], c->norm[0]));
        k_val b = k_add(k, k_mul(k, m[1], c->norm[1]), k_mul(k, m[2], c->norm[2]));
        b = k_add(k, k_mul(k, b, k_f32(k, WIDER)), k_f32(k, SLACK));
        k_val sure = k_lt(k, k_mul(k, m[2], c->norm[1]), k_f32(k, LIMIT));
        k_val to = k_add(k, k_mul(k, t, k_dim_run(k, CODE, 0)), k_addi(k, r, u));
        k_store(k, c->out_lo, to, k_select(k, sure, k_sub(k, v, b), k_neg(k, inf)));
        k_store(k, c->out_up, to, k_select(k, sure, k_add(k, v, b), inf));
    }
}

static setun_status lower(setun_kernel *k, const setun_args *a, setun_error *err)
{
    bounds c = {k, k_arg(k, CODE, K_I8), k_arg(k, PART, K_I8), 0, k_arg(k, META, K_F32), k_arg(k, LO, K_F32),
                k_arg(k, UP, K_F32), 0, 0, {0, 0, 0}, a->in[CODE].dim[1], setun_knob_value(a, 0), 32};
    k_val sum = k_arg(k, SUM, K_I32), norm = k_arg(k, NORM, K_F32);
    (void)err;
    c.lo = c.hi;
    if (k_info(k, K_HAS_DOT4) && k_info(k, K_VECTOR_BYTES) >= 64)
        c.lanes = 64;
    k_grid(k, CODE, 0, GRANULE);
    k_val r0 = k_muli(k, k_begin(k), GRANULE);
    k_val r1 = k_min(k, k_muli(k, k_end(k), GRANULE), k_dim_run(k, CODE, 0));
    k_val t = k_for(k, k_i64(k, 0), k_dim(k, PART, 0), 1);
    c.bias_hi = k_muli(k, k_load(k, sum, k_muli(k, t, 2), 1), BIAS);
    c.bias_lo = k_muli(k, k_load(k, sum, k_addi(k, k_muli(k, t, 2), 1), 1), BIAS);
    for (int j = 0; j < 3; j++)
        c.norm[j] = k_load(k, norm, k_addi(k, k_muli(k, t, 4), j), 1);
    k_val from = r0;
    if (k_info(k, K_HAS_DOT4)) { /* two rows share the activations */
        from = k_add(k, r0, k_and(k, k_sub(k, r1, r0), k_i64(k, -2)));
        k_val r = k_for(k, r0, from, 2);
        rows_of(&c, t, r, 2);
        k_stop(k);
    }
    k_val r = k_for(k, from, r1, 1);
    rows_of(&c, t, r, 1);
    k_stop(k);
    k_stop(k);
    return SETUN_OK;
}

static void cost(const setun_args *a, setun_cost *c)
{
    setun_cost_map(a, (double)a->in[CODE].dim[0], c);
    c->int_ops = c->float_ops;
    c->float_ops = 12 * setun_cost_count(&a->out[0]);
}

/* Halves as head_split makes them, any codes, and norms of which some are not finite. */
static void fill(const setun_args *a, uint64_t seed)
{
    int8_t *part = a->in[PART].data;
    uint8_t *code = a->in[CODE].data;
    float *norm = a->in[NORM].data, *meta = a->in[META].data;
    int32_t *sum = a->in[SUM].data;
    int64_t width = a->in[CODE].dim[1];
    for (int64_t i = 0, n = setun_count(&a->in[PART]); i < n; i++)
        part[i] = (int8_t)((int64_t)(setun_mix(seed, (uint64_t)i) % 129) - 64);
    for (int64_t i = 0, n = setun_count(&a->in[CODE]); i < n; i++)
        code[i] = (uint8_t)(i / width % 7 == 0 ? 255 : setun_mix(seed ^ 1, (uint64_t)i) & 255);
    for (int64_t t = 0; t < a->in[PART].dim[0]; t++)
        for (int p = 0; p < 2; p++) {
            sum[2 * t + p] = 0;
            for (int64_t i = 0; i < width; i++)
                sum[2 * t + p] += part[(2 * t + p) * width + i];
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
    {"code", "u8[r,K]: rows of the head, biased by 128; 128 behind the last column", 0, 0},
    {"meta", "f32[r,4]: scale, bound of the error, bound of the norm, 0", 0, 0},
};
static const setun_port out[] = {
    {"lo", "f32[n,r]: no logit is below", 0, 0},
    {"up", "f32[n,r]: no logit is above", 0, 0},
};
static const char *const cases[] = {
    "part:i8[1,512] sum:i32[1,2] norm:f32[1,4] code:u8[70,256] meta:f32[70,4]",
    "part:i8[n7,256] sum:i32[n7,2] norm:f32[n7,4] code:u8[129,128] meta:f32[129,4]",
    "part:i8[1,5120] sum:i32[1,2] norm:f32[1,4] code:u8[7,2560] meta:f32[7,4]",
    "part:i8[m2,768] sum:i32[m2,2] norm:f32[m2,4] code:u8[1,384] meta:f32[1,4]",
    NULL,
};

SETUN_OP(head_bounds) = {
    .size = sizeof(setun_op), .version = 1, .name = "head_bounds",
    .doc = "numbers between which the logits lie, from 8-bit rows",
    .in = in, .out = out, .n_in = SETUN_LEN(in), .n_out = SETUN_LEN(out),
    .infer = infer, .eval = eval, .lower = lower, .cost = cost, .fill = fill, .cases = cases,
    .knob = knobs, .n_knob = SETUN_LEN(knobs),
};
