/* tests/unit/gguf_blocks.h -- random weights in GGUF's blocks of floats, written byte by byte from the
 * definitions of the format by code that shares nothing with the readers. */
#ifndef ST_TESTS_GGUF_BLOCKS_H
#define ST_TESTS_GGUF_BLOCKS_H

#include <math.h>

#include "tests/unit/gguf_files.h"

static uint64_t dice_seed = 7;

static inline int dice(int n) { return (int)(next_random(&dice_seed) % (uint32_t)n); }

/* A binary16 with its value, by the definition of the format; below 2^(most_exponent - 15). */
static int most_exponent = 31;

static inline uint32_t random_half(float *value)
{
    int sign = dice(2), exponent = dice(most_exponent), fraction = dice(1024);
    double v = exponent ? ldexp(1.0 + fraction / 1024.0, exponent - 15) : ldexp(fraction / 1024.0, -14);
    *value = (float)(sign ? -v : v);
    return (uint32_t)(sign << 15 | exponent << 10 | fraction);
}

/* Each of these writes one block of a type, byte by byte, and says what values it has; codes of
 * ternary types go to c. */
typedef void block_writer(st_str *s, float *v, int *c);

static inline void write_q4_0(st_str *s, float *v, int *c)
{
    float d;
    put_le(s, random_half(&d), 2);
    for (int j = 0; j < 32; j++) {
        c[j] = dice(16);
        v[j] = (float)(c[j] - 8) * d;
    }
    for (int j = 0; j < 16; j++)
        put_le(s, (uint64_t)(c[j] | c[j + 16] << 4), 1);
}

static inline void write_q8_0(st_str *s, float *v, int *c)
{
    float d;
    put_le(s, random_half(&d), 2);
    for (int j = 0; j < 32; j++) {
        c[j] = dice(256) - 128;
        v[j] = (float)c[j] * d;
        put_le(s, (uint64_t)c[j], 1);
    }
}

static inline void write_q4_k(st_str *s, float *v, int *c)
{
    float d, dmin;
    int sc[8], mn[8];
    uint8_t packed[12] = { 0 };
    put_le(s, random_half(&d), 2);
    put_le(s, random_half(&dmin), 2);
    for (int j = 0; j < 8; j++) {
        sc[j] = dice(64);
        mn[j] = dice(64);
    }
    for (int j = 0; j < 4; j++) {
        packed[j] = (uint8_t)(sc[j] | sc[j + 4] >> 4 << 6);
        packed[j + 4] = (uint8_t)(mn[j] | mn[j + 4] >> 4 << 6);
        packed[j + 8] = (uint8_t)((sc[j + 4] & 15) | (mn[j + 4] & 15) << 4);
    }
    st_str_addn(s, packed, 12);
    for (int i = 0; i < 256; i++) {
        c[i] = dice(16);
        v[i] = (d * (float)sc[i / 32]) * (float)c[i] - dmin * (float)mn[i / 32];
    }
    for (int k = 0; k < 4; k++)
        for (int l = 0; l < 32; l++)
            put_le(s, (uint64_t)(c[64 * k + l] | c[64 * k + 32 + l] << 4), 1);
}

static inline void write_q6_k(st_str *s, float *v, int *c)
{
    float d;
    int scale[16];
    uint8_t ql[128], qh[64];
    uint32_t h = random_half(&d);
    for (int i = 0; i < 16; i++)
        scale[i] = dice(256) - 128;
    for (int i = 0; i < 256; i++)
        c[i] = dice(64);
    for (int i = 0; i < 256; i++)
        v[i] = d * (float)scale[i / 128 * 8 + i % 128 / 16] * (float)(c[i] - 32);
    for (int half = 0; half < 2; half++)
        for (int l = 0; l < 32; l++) {
            const int *q = c + 128 * half;
            ql[64 * half + l] = (uint8_t)((q[l] & 15) | (q[l + 64] & 15) << 4);
            ql[64 * half + 32 + l] = (uint8_t)((q[l + 32] & 15) | (q[l + 96] & 15) << 4);
            qh[32 * half + l] = (uint8_t)(q[l] >> 4 | q[l + 32] >> 4 << 2 | q[l + 64] >> 4 << 4 | q[l + 96] >> 4 << 6);
        }
    st_str_addn(s, ql, sizeof ql);
    st_str_addn(s, qh, sizeof qh);
    for (int i = 0; i < 16; i++)
        put_le(s, (uint64_t)scale[i], 1);
    put_le(s, h, 2);
}

#endif
