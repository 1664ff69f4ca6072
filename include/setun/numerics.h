/* setun/numerics.h -- the float contract in scalar C, shared by every eval.
 *
 * docs/numerics.md states the rules; this file is their executable form.  Compile with
 * -ffp-contract=off and without any fast-math flag.  Nothing here calls libm except sqrtf and
 * rintf, which IEEE 754 defines exactly.  Kernels restate the same steps with the builder. */
#ifndef SETUN_NUMERICS_H
#define SETUN_NUMERICS_H

#include <stdint.h>

#if defined(__FAST_MATH__)
#error "fast-math flags change results; docs/numerics.md says which"
#endif
#if defined(__FLT_EVAL_METHOD__) && __FLT_EVAL_METHOD__ != 0 && __FLT_EVAL_METHOD__ != 16
#error "float expressions must be rounded to float; use SSE2 or better"
#endif

static inline float setun_bits_f32(uint32_t u)
{
    union { uint32_t u; float f; } b;
    b.u = u;
    return b.f;
}
static inline uint32_t setun_f32_bits(float f)
{
    union { uint32_t u; float f; } b;
    b.f = f;
    return b.u;
}

/* min and max as x86 has them: the second operand when the comparison fails (NaN, equal zeros). */
static inline float setun_minf(float a, float b) { return a < b ? a : b; }
static inline float setun_maxf(float a, float b) { return a > b ? a : b; }
static inline float setun_absf(float a) { return setun_bits_f32(setun_f32_bits(a) & 0x7fffffffu); }

/* bf16 is the upper half of a binary32: widening is exact. */
static inline float setun_bf16_f32(uint16_t h) { return setun_bits_f32((uint32_t)h << 16); }

/* Round to nearest, ties to even; every NaN becomes the quiet 0x7fc0 with its sign. */
static inline uint16_t setun_f32_bf16(float f)
{
    uint32_t u = setun_f32_bits(f);
    if ((u & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)((u >> 16 & 0x8000u) | 0x7fc0u);
    return (uint16_t)((u + 0x7fffu + (u >> 16 & 1u)) >> 16);
}

/* binary16 to binary32, exact; every NaN becomes 0x7fc00000 with its sign. */
static inline float setun_f16_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, e = h >> 10 & 31u, m = h & 0x3ffu;
    if (e == 31)
        return setun_bits_f32(sign | (m ? 0x7fc00000u : 0x7f800000u));
    if (e == 0) { /* subnormal: m * 2^-24 is exact in binary32 */
        float f = (float)m * (1.0f / 16777216.0f);
        return setun_bits_f32(setun_f32_bits(f) | sign);
    }
    return setun_bits_f32(sign | (e + 112u) << 23 | m << 13);
}

/* binary32 to binary16, ties to even, overflow to infinity; NaN becomes 0x7e00 with its sign. */
static inline uint16_t setun_f32_f16(float f)
{
    uint32_t u = setun_f32_bits(f), sign = u >> 16 & 0x8000u, a = u & 0x7fffffffu;
    if (a > 0x7f800000u)
        return (uint16_t)(sign | 0x7e00u);
    if (a >= 0x477ff000u) /* 65520 and above round to infinity */
        return (uint16_t)(sign | 0x7c00u);
    if (a < 0x38800000u) { /* below 2^-14: adding 0.5 leaves m * 2^-24, rounded by the hardware */
        float r = setun_bits_f32(a) + 0.5f;
        return (uint16_t)(sign | (setun_f32_bits(r) - 0x3f000000u));
    }
    return (uint16_t)(sign | ((a - 0x38000000u + 0xfffu + (a >> 13 & 1u)) >> 13));
}

/* A float sum is 32 striped partials (element i goes to partial i mod 32, in order, starting from
 * +0) and then this halving tree: 16, 8, 4, 2, 1.  Destroys p. */
static inline float setun_tree32(float *p)
{
    for (int half = 16; half; half /= 2)
        for (int i = 0; i < half; i++)
            p[i] += p[i + half];
    return p[0];
}

/* exp(x): x = n ln2 + r with n = rint(x / ln2), |r| <= 0.347; a degree-6 Taylor-like polynomial in r
 * (minimax over the interval, relative error below 2e-7); times 2^n by adding n to the exponent.
 * Below -87 and for a NaN the result is 0; above 88 it is that of 88. */
static inline float setun_expf(float x)
{
    if (!(x >= -87.0f))
        return 0.0f;
    x = setun_minf(x, 88.0f);
    float t = x * 1.44269504f + 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer */
    float n = t - 12582912.0f;
    float r = x - n * 0.693359375f;          /* ln2 in two parts; n * hi is exact for |n| < 2^9 */
    r = r - n * -2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r;
    p = p + 1.0f;
    return setun_bits_f32(setun_f32_bits(p) + (uint32_t)((int32_t)n * (1 << 23)));
}

/* ln(x) for x that is normal and positive: x = 2^e (1 + f) with 1 + f in [sqrt(1/2), sqrt(2)); a
 * polynomial in f plus e ln2 in two parts.  Relative error below 1e-7 where |ln x| > 0.1, absolute below
 * 5e-9 nearer to 1. */
static inline float setun_logf(float x)
{
    uint32_t u = setun_f32_bits(x) + (0x3f800000u - 0x3f3504f3u);
    float e = (float)((int32_t)(u >> 23) - 127), f = setun_bits_f32((u & 0x7fffffu) + 0x3f3504f3u) - 1.0f;
    float z = f * f, p = 7.0376836292e-2f;
    p = p * f + -1.1514610310e-1f;
    p = p * f + 1.1676998740e-1f;
    p = p * f + -1.2420140846e-1f;
    p = p * f + 1.4249322787e-1f;
    p = p * f + -1.6668057665e-1f;
    p = p * f + 2.0000714765e-1f;
    p = p * f + -2.4999993993e-1f;
    p = p * f + 3.3333331174e-1f;
    p = p * f * z;
    p = p + e * -2.12194440e-4f;
    p = p + z * -0.5f;
    return (f + p) + e * 0.693359375f;
}

/* Noise of the standard Gumbel distribution, -ln(-ln(1 - t)), for number i under a key: arg max of
 * l_i / temp + noise_i is a draw from softmax(l / temp).  The uniform t has 31 bits: i and the first
 * word of the key go through a bijection of 32-bit words ("lowbias32"), the second word is mixed in, and
 * again.  t is small where the noise is large, and fine-grained there: t >= 2^-32, so the noise is below
 * 22.2.  ln(1 - t) is ln(u) t / (1 - u) with the rounded u = 1 - t, which makes up for its rounding. */
static inline float setun_gumbel(uint32_t key0, uint32_t key1, uint32_t i)
{
    uint32_t h = i * 0x9e3779b1u ^ key0;
    for (int round = 0; round < 2; round++) {
        h = (h ^ h >> 16) * 0x7feb352du;
        h = (h ^ h >> 15) * 0x846ca68bu;
        h = h ^ h >> 16 ^ (round ? 0u : key1);
    }
    float t = setun_minf(((float)(int32_t)(h >> 1) + 0.5f) * 0x1p-31f, 1.0f - 0x1p-24f);
    float u = 1.0f - t, d = 1.0f - u;
    float e = d > 0.0f ? -setun_logf(u) * (t / d) : t;
    return -setun_logf(e);
}

#endif
