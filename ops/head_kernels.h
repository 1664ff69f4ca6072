/* ops/head_kernels.h -- what the operators of the screened head share: layout, proof, noise.
 *
 * The screened head finds the largest l_i = w_i . x (plus noise, see below), bit for bit as matmul
 * makes them from the 16-bit rows w_i, while it reads few of these:
 *
 *     head_split    x~ = step * X, integers in two bytes     head_select   rows that can beat the seeds
 *     head_bounds   l_i <= up_i from 6-bit rows, all of them head_refine   up_i from 8 bits, of those
 *     head_seed     the rows with the largest up_i           head_keep     which of them still can
 *     head_rescore  l_i of the seeds, as matmul has it       head_rescore  l_i of what is left
 *
 * Row i is kept as 8-bit codes c = 4 c6 + c2 that stand for halves of a step, symmetrical about 0:
 *
 *     w~6 = half (2 c6 - 63)         w~8 = half/4 (2 c - 255) = w~6 + half/4 (2 c2 - 3)
 *
 * The upper six bits of 256 columns take 192 bytes in "code", the lower two take 64 in "fine":
 *
 *     code byte  j        0..63   | c6[j]          (6 bits) | c6[192 + j], bits 0 and 1 |
 *     code byte  j       64..127  | c6[64 + j-64]           | c6[192 + j-64], bits 2, 3 |
 *     code byte  j      128..191  | c6[128 + j-128]         | c6[192 + j-128], bits 4, 5 |
 *     fine byte  j        0..63   | c2[j] | c2[64 + j] | c2[128 + j] | c2[192 + j] |
 *
 * "meta" of a row: half, e6 >= |w - w~6|, e8 >= |w - w~8|, n >= |w|, |w~6|, |w~8| (Euclidean norms over
 * the columns that exist, computed in double when loading, rounded up).
 *
 * Proof that l <= up.  Let w~, e be those of 6 or of 8 bits, a what is computed below for w~ . x~, and
 * u = 2^-24.  l - a = (l - w.x) + (w - w~).x + w~.(x - x~) + (w~.x~ - a)
 *   1. A striped sum passes each product through at most r = ceil(k/32) + 6 roundings, so
 *      |l - w.x| <= ru/(1 - ru) * sum |w_j x_j| <= 1.01 r u |w| |x|          (Cauchy-Schwarz; ru < 0.009)
 *   2. |(w - w~).x| <= e |x|,   |w~.(x - x~)| <= n |x - x~|                  (Cauchy-Schwarz)
 *   3. With q the odd integers 2 c6 - 63 or 2 c - 255 and s the half step or a quarter of it, H = q.hi
 *      and L = q.lo are exact integers (X is 0 behind the last column).  With l2 = |lo|: s step |L| <=
 *      n step l2, and s step |128 H| <= n (|x~| + step l2).  fl(128 fl(H) + fl(L)) * fl(s step) has three
 *      roundings on each path and one more of the product: |w~.x~ - a| <= 5.1 u n (|x~| + 2 step l2),
 *      and up = a + b is rounded once more: together below 8 u n (|x~| + 2 step l2).
 * norm has A >= |x| and B >= |x - x~| + 1.01 r u |x| + 16 u (|x~| + step l2), so
 *      b = (e A + n B)(1 + 2^-16) + 2^-100
 * is enough: the factor covers the five roundings of b and that of a + b relative to b; 2^-100 covers
 * underflow: of at most 2^17 products and sums, 2^-149 each, and of s * step (off by 2^-150; the quarter
 * is taken of the product) times an integer below 2^39.
 * Overflow: if n A < 2^125 then every |w_j x_j| and partial sum is below 2^126, so all the above is
 * finite.  Otherwise, and if anything is NaN, the row is unsure: +inf.
 *
 * Headroom: c6 <= 63, |hi|, |lo| <= 64.  dot2: the four codes of a byte column together give
 * 4 * 2 * 63 * 64 = 32256 < 2^15.  32-bit sums: |H|, |L| <= 255 * 64 * K < 2^31 for K <= 131072.
 *
 * Noise.  A token can also be drawn as the arg max of z_i = l_i / temp + G_i, where the G_i are made
 * from a key and i (setun_gumbel).  Division by a positive number and addition are monotonic, rounded
 * or not, so up_i / temp + G_i computed in the same way is an upper bound of z_i.  "noise" of a token
 * has four words: two of the key, the bits of temp (0: no noise), and the bits of a float that is
 * added to the least value wanted (negative where everything near the best is wanted).
 *
 * This header is private to ops/ and makes no operator. */
#ifndef SETUN_OPS_HEAD_KERNELS_H
#define SETUN_OPS_HEAD_KERNELS_H

#include "setun/op.h"

#define HEAD_MAX_K 131072
#define HEAD_BLOCK 256      /* columns */
#define HEAD_CODE_BYTES 192 /* of a block */
#define HEAD_FINE_BYTES 64
#define HEAD_PEAK 16        /* rows whose largest bound is kept */
#define HEAD_WIDER (1.0f + 0x1p-16f)
#define HEAD_SLACK 0x1p-100f
#define HEAD_LIMIT 0x1p125f

/* The integer sums of the two halves of x, in units of half (quarter 1) or of half / 4 (0.25). */
static inline float head_upper(int32_t h, int32_t l, const float *meta, float e, float quarter, const float *norm)
{
    float v = ((float)h * 128.0f + (float)l) * (meta[0] * norm[0] * quarter);
    float b = (e * norm[1] + meta[3] * norm[2]) * HEAD_WIDER + HEAD_SLACK;
    return meta[3] * norm[1] < HEAD_LIMIT ? v + b : INFINITY;
}

static inline float head_noisy(float v, const int32_t *noise, int32_t i)
{
    float temp = setun_bits_f32((uint32_t)noise[2]);
    if (!(temp > 0.0f))
        return v;
    return v / temp + setun_gumbel((uint32_t)noise[0], (uint32_t)noise[1], (uint32_t)i);
}

/* Contents of "peak" for the checks of operators that read it. */
static inline void head_fill_peaks(const setun_view *up, const setun_view *peak)
{
    int64_t rows = up->dim[1], n = peak->dim[1];
    for (int64_t i = 0; i < setun_count(up); i++) {
        float *p = (float *)peak->data + i / rows * n + i % rows / HEAD_PEAK, v = ((const float *)up->data)[i];
        *p = i % rows % HEAD_PEAK ? setun_maxf(*p, v) : v;
    }
}

/* The twin of head_upper, of a row or of a row in every lane; norm: step and bounds of the token, as values. */
static inline k_val head_upper_k(setun_kernel *k, k_val h, k_val l, const k_val meta[3], float quarter, const k_val norm[3])
{
    uint32_t n = K_LANES(k_type_of(k, h));
    k_val s = k_add(k, k_mul(k, k_i2f(k, h), k_f32v(k, 128.0f, n)), k_i2f(k, l));
    k_val v = k_mul(k, s, k_mul(k, k_mul(k, meta[0], norm[0]), k_f32v(k, quarter, n)));
    k_val b = k_add(k, k_mul(k, meta[1], norm[1]), k_mul(k, meta[2], norm[2]));
    b = k_add(k, k_mul(k, b, k_f32v(k, HEAD_WIDER, n)), k_f32v(k, HEAD_SLACK, n));
    k_val sure = k_lt(k, k_mul(k, meta[2], norm[1]), k_f32v(k, HEAD_LIMIT, n));
    return k_select(k, sure, k_add(k, v, b), k_f32v(k, INFINITY, n));
}

/* Step and bounds of token t. */
static inline void head_norm_k(setun_kernel *k, k_val norm, k_val t, k_val out[3])
{
    for (int j = 0; j < 3; j++)
        out[j] = k_load(k, norm, k_addi(k, k_muli(k, t, 4), j), 1);
}

/* half, the bound of the error that is in column `error`, and that of the norm, of row r. */
static inline void head_meta_k(setun_kernel *k, k_val meta, k_val r, int64_t error, k_val out[3])
{
    k_val at = k_muli(k, r, 4);
    out[0] = k_load(k, meta, at, 1);
    out[1] = k_load(k, meta, k_addi(k, at, error), 1);
    out[2] = k_load(k, meta, k_addi(k, at, 3), 1);
}

/* up[base + i] becomes noisy for i from first to last; the numbers of the rows are id[base + i], or i
 * where id is 0. */
static inline void head_noise_k(setun_kernel *k, k_val up, k_val id, k_val noise, k_val t, k_val base, k_val first, k_val last)
{
    k_val key[3];
    for (int j = 0; j < 3; j++)
        key[j] = k_load(k, noise, k_addi(k, k_muli(k, t, 4), j), 1);
    k_val temp = k_cast(k, key[2], K_TYPE(K_F32, 1));
    k_val middle = k_add(k, first, k_and(k, k_sub(k, last, first), k_i64(k, -16)));
    k_if(k, k_lt(k, k_f32(k, 0.0f), temp));
    for (uint32_t n = 16; n; n = n == 16 ? 1 : 0) {
        k_val i = n == 16 ? k_for(k, first, middle, 16) : k_for(k, middle, last, 1);
        k_val at = k_add(k, base, i);
        k_val row = id ? k_load(k, id, at, n)
                       : k_add(k, k_splat(k, k_trunc(k, i, K_I32), n), k_iota(k, K_TYPE(K_I32, n), 0));
        k_val g = k_gumbel(k, k_splat(k, key[0], n), k_splat(k, key[1], n), row);
        k_store(k, up, at, k_add(k, k_div(k, k_load(k, up, at, n), k_splat(k, temp, n)), g));
        k_stop(k);
    }
    k_stop(k);
}

/* acc[p] += code . x, p = 0 the hi and p = 1 the lo bytes, for the four codes of a byte column.  dot2: the
 * four products fit one 16-bit sum. */
static inline void head_dot_k(setun_kernel *k, const k_val code[4], const k_val x[4], k_val acc)
{
    k_val sum = k_get(k, acc), part = 0;
    if (k_info(k, K_HAS_DOT4)) {
        for (int f = 0; f < 4; f++)
            sum = k_dot4(k, sum, code[f], x[f]);
    } else {
        for (int f = 0; f < 4; f++)
            part = part ? k_add(k, part, k_dot2(k, code[f], x[f])) : k_dot2(k, code[f], x[f]);
        sum = k_add(k, sum, k_sext(k, part, K_I32));
    }
    k_set(k, acc, sum);
}

/* Worker's part of n things, by units of `units`: from first to last. */
static inline void head_share_k(setun_kernel *k, k_val n, int64_t units, k_val cut[2])
{
    cut[0] = k_udiv(k, k_mul(k, n, k_begin(k)), k_i64(k, units));
    cut[1] = k_udiv(k, k_mul(k, n, k_end(k)), k_i64(k, units));
}

/* Bytes a step, and the sums it needs. */
static inline uint32_t head_lanes(setun_kernel *k)
{
    return k_info(k, K_HAS_DOT4) && k_info(k, K_VECTOR_BYTES) >= 64 ? 64 : 32;
}
static inline k_val head_acc_k(setun_kernel *k)
{
    uint32_t n = head_lanes(k);
    return k_var(k, k_int(k, K_TYPE(K_I32, k_info(k, K_HAS_DOT4) ? n / 4 : n / 2), 0));
}

/* Bytes shifted right; what crosses from the neighbour is masked off. */
static inline k_val head_bits_k(setun_kernel *k, k_val v, int64_t shift, int64_t mask)
{
    uint32_t n = K_LANES(k_type_of(k, v));
    if (shift)
        v = k_cast(k, k_shru(k, k_cast(k, v, K_TYPE(K_I16, n / 2)), shift), K_TYPE(K_I8, n));
    return k_and(k, v, k_int(k, K_TYPE(K_I8, n), mask));
}

#endif
