/* ops/few_bits.h -- floats as integers of 2 to 8 bits with one scale: what quantize_bits and round_groups share.
 *
 *     by "absmax"    scale = high / max(largest |x|, 1e-5)              high = 2^(bits - 1) - 1
 *     by "absmean"   scale = sqrt(high) / max(mean |x|, 1e-5)
 *     q = x * scale, clamped to -high - 1 .. high and rounded to the nearest integer, ties to even
 *
 * The first uses the whole range for the largest element; the second, of BitNet a4.8, cuts off what lies far out, so
 * that few levels are spent where most elements are.  The mean is a sum of 32 stripes (docs/numerics.md) over n.  Clamping
 * comes before rounding, which is the same because the bounds are integers, and keeps what is rounded small.
 *
 * A NaN does not count in maximum and mean and becomes 0.  An infinity makes scale 0 and all q 0: who divides by the
 * scale gets NaN, and so does everybody behind. */
#ifndef OPS_FEW_BITS_H
#define OPS_FEW_BITS_H

#include "setun/op.h"

#define MAX_ROW (1 << 24) /* 128 times that many still fit the sum of a row in 32 bits */

typedef struct few_bits {
    float low, high;
    int   mean;
} few_bits;

/* What the attributes bits and by say, checked already. */
static inline few_bits few_bits_of(const setun_value *bits, const setun_value *by)
{
    float high = (float)((1 << (bits->i - 1)) - 1);
    return (few_bits){-high - 1.0f, high, strcmp(by->s, "absmean") == 0};
}

static inline setun_status want_few_bits(const setun_value *bits, const setun_value *by, setun_error *err)
{
    const char *name = by->s ? by->s : "";
    if (bits->i < 2 || bits->i > 8)
        return setun_fail(err, SETUN_BAD_ARG, "bits is %lld, wants 2 to 8", (long long)bits->i);
    if (strcmp(name, "absmax") && strcmp(name, "absmean"))
        return setun_fail(err, SETUN_UNKNOWN, "by is \"%.40s\"; known are absmax and absmean", name);
    return SETUN_OK;
}

/* ---------------------------------------------------------------- scalar */

static inline float few_bits_scale(few_bits f, const float *x, int64_t n)
{
    float p[32] = {0}, most = 1e-5f;
    for (int64_t i = 0; i < n; i++) {
        most = setun_maxf(setun_absf(x[i]), most);
        p[i % 32] += setun_maxf(setun_absf(x[i]), 0.0f);
    }
    if (f.mean)
        return sqrtf(f.high) / setun_maxf(setun_tree32(p) / (float)n, 1e-5f);
    return f.high / most;
}

static inline int32_t few_bits_round(few_bits f, float x, float scale)
{
    float v = x * scale;
    v = v == v ? v : 0.0f;
    return setun_rint_i32(setun_minf(setun_maxf(v, f.low), f.high));
}

/* ---------------------------------------------------------------- kernels */

/* The twin of few_bits_scale for x[at .. at + n): maxima in any order, sums in stripes. */
static inline k_val k_few_bits_scale(setun_kernel *k, few_bits f, k_val x, k_val at, int64_t n)
{
    int64_t whole = n / 32 * 32;
    k_val acc = k_var(k, k_f32v(k, f.mean ? 0.0f : 1e-5f, 32));
    for (int tail = 0; tail < 2; tail++) {
        if (tail ? n == whole : whole == 0)
            continue;
        k_val i = tail ? k_i64(k, whole) : k_for(k, k_i64(k, 0), k_i64(k, whole), 32);
        k_val v = k_abs(k, k_load_pad(k, x, k_add(k, at, i), tail ? n - whole : 32, 32, 0)), so_far = k_get(k, acc);
        k_set(k, acc, f.mean ? k_add(k, so_far, k_max(k, v, k_f32v(k, 0.0f, 32))) : k_max(k, v, so_far));
        if (!tail)
            k_stop(k);
    }
    if (!f.mean)
        return k_div(k, k_f32(k, f.high), k_rmax(k, k_get(k, acc)));
    k_val mean = k_div(k, k_rsum(k, k_get(k, acc)), k_f32(k, (float)n));
    return k_div(k, k_f32(k, sqrtf(f.high)), k_max(k, mean, k_f32(k, 1e-5f)));
}

/* The twin of few_bits_round; scale has the lanes of x. */
static inline k_val k_few_bits_round(setun_kernel *k, few_bits f, k_val x, k_val scale)
{
    uint32_t lanes = K_LANES(k_type_of(k, x));
    k_val v = k_mul(k, x, scale);
    v = k_select(k, k_eq(k, v, v), v, k_f32v(k, 0.0f, lanes));
    return k_rint_i32(k, k_min(k, k_max(k, v, k_f32v(k, f.low, lanes)), k_f32v(k, f.high, lanes)));
}

#endif
