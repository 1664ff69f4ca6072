/* model/gguf_encode.c -- one row of each GGUF element type that Setun writes.
 *
 * The inverse of gguf_decode.c, which draws the layouts.  Scalar like it, and as unchecked: that
 * shapes fit and codes have a place was settled before (recode.c).  Bytes are written as bytes, so
 * alignment and the host's byte order play no part. */
#include "model/gguf_encode.h"

#include <math.h>
#include <string.h>

#include "setun/numerics.h"

static void put_u16(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

static void put_f32(uint8_t *p, float f)
{
    uint32_t u;
    memcpy(&u, &f, 4);
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(u >> 8 * i);
}

/* ---------------------------------------------------------------- floats */

static void pack_f32(const float *x, int64_t n, uint8_t *row)
{
    for (int64_t i = 0; i < n; i++)
        put_f32(row + 4 * i, x[i]);
}

static void pack_f16(const float *x, int64_t n, uint8_t *row)
{
    for (int64_t i = 0; i < n; i++)
        put_u16(row + 2 * i, setun_f32_f16(x[i]));
}

static void pack_bf16(const float *x, int64_t n, uint8_t *row)
{
    for (int64_t i = 0; i < n; i++)
        put_u16(row + 2 * i, setun_f32_bf16(x[i]));
}

/* As the format's own quantiser: the step is rounded to binary16 after values were divided by it,
 * which takes the binary32 reciprocal, and halves go away from zero. */
static void pack_q8_0(const float *x, int64_t n, uint8_t *row)
{
    for (int64_t b = 0; b < n; b += 32, row += 34) {
        float most = 0.0f;
        for (int j = 0; j < 32; j++)
            most = fabsf(x[b + j]) > most ? fabsf(x[b + j]) : most;
        float step = most / 127.0f;
        float per = step >= 0x1p-126f ? 1.0f / step : 0.0f; /* the reciprocal of less is infinite */
        put_u16(row, setun_f32_f16(step));
        for (int j = 0; j < 32; j++) {
            float q = roundf(x[b + j] * per);
            row[2 + j] = (uint8_t)(int8_t)(q > 127.0f ? 127.0f : q < -127.0f ? -127.0f : q); /* 1 / step may be rounded up */
        }
    }
}

/* ---------------------------------------------------------------- base 3 */

/* Digits t0 .. t4 as ceil(256 v / 243) (gguf_decode.c says why that can be read back); `step` is the
 * distance from one digit's code to the next, and digits that are not there are 0. */
static uint8_t trit_byte(const uint8_t *code, int digits, int64_t step)
{
    int v = 0;
    for (int i = 0; i < 5; i++)
        v = 3 * v + (i < digits ? code[i * step] : 0);
    return (uint8_t)((256 * v + 242) / 243);
}

/* `width` bytes of `digits` digits: digit n of byte m is code n * width + m. */
static const uint8_t *pack_trits(const uint8_t *code, int width, int digits, uint8_t *out)
{
    for (int m = 0; m < width; m++)
        out[m] = trit_byte(code + m, digits, width);
    return code + width * digits;
}

static void pack_tq1_0(const uint8_t *code, const float *scale, int64_t n, uint8_t *row)
{
    for (int64_t b = 0; b < n; b += 256, row += 54) {
        code = pack_trits(code, 32, 5, row);
        code = pack_trits(code, 16, 5, row + 32);
        code = pack_trits(code, 4, 4, row + 48);
        put_u16(row + 52, setun_f32_f16(*scale++));
    }
}

static void pack_ptq1_0(const uint8_t *code, const float *scale, int64_t n, uint8_t *row)
{
    for (int64_t b = 0; b < n; b += 128, row += 28) {
        code = pack_trits(code, 16, 5, row);
        code = pack_trits(code, 8, 5, row + 16);
        code = pack_trits(code, 2, 4, row + 24);
        put_u16(row + 26, setun_f32_f16(*scale++));
    }
}

/* The first value is the last digit: five neighbours, from the last one backwards. */
static void pack_iq1_bn(const uint8_t *code, const float *scale, int64_t n, uint8_t *row)
{
    put_u16(row, setun_f32_f16(*scale));
    row += 2;
    for (int64_t b = 0; b < n; b += 64, row += 13) {
        for (int s = 0; s < 4; s++)
            for (int k = 0; k < 3; k++)
                row[3 * s + k] = trit_byte(code + b + 16 * s + 5 * k + 4, 5, -1);
        /* Values 15, 31, 47, 63 and no fifth one, which would be the first digit. */
        const uint8_t last[5] = { 0, code[b + 63], code[b + 47], code[b + 31], code[b + 15] };
        row[12] = trit_byte(last, 5, 1);
    }
}

/* ---------------------------------------------------------------- two bits */

/* Four codes `step` apart in a byte, the first in bits 0 and 1. */
static uint8_t pair_byte(const uint8_t *code, int64_t step)
{
    return (uint8_t)(code[0] | code[step] << 2 | code[2 * step] << 4 | code[3 * step] << 6);
}

static void pack_tq2_0(const uint8_t *code, const float *scale, int64_t n, uint8_t *row)
{
    for (int64_t b = 0; b < n; b += 256, row += 66) {
        for (int m = 0; m < 64; m++)
            row[m] = pair_byte(code + b + m / 32 * 128 + m % 32, 32);
        put_u16(row + 64, setun_f32_f16(*scale++));
    }
}

static void pack_iq2_bn(const uint8_t *code, const float *scale, int64_t n, uint8_t *row)
{
    put_f32(row, *scale);
    row += 4;
    for (int64_t b = 0; b < n; b += 64, row += 16)
        for (int j = 0; j < 16; j++)
            row[j] = pair_byte(code + b + j, 16);
}

static void pack_neighbours(const uint8_t *code, const float *scale, int64_t n, int group, uint8_t *row)
{
    for (int64_t b = 0; b < n; b += group, row += 2 + group / 4) {
        put_u16(row, setun_f32_f16(*scale++));
        for (int m = 0; m < group / 4; m++)
            row[2 + m] = pair_byte(code + b + 4 * m, 1);
    }
}

static void pack_q2_0_64(const uint8_t *code, const float *scale, int64_t n, uint8_t *row)
{
    pack_neighbours(code, scale, n, 64, row);
}

static void pack_q2_0_128(const uint8_t *code, const float *scale, int64_t n, uint8_t *row)
{
    pack_neighbours(code, scale, n, 128, row);
}

void st_gguf_pack_i2s(const uint8_t *code, int layout, int64_t rows, int64_t n, uint8_t *out)
{
    /* The first code of a byte is in its upper bits, and its neighbours are `step` further on. */
    int64_t step = layout == ST_I2S_ROWS4 ? n : layout == ST_I2S_X86 ? 32 : 16;
    for (int64_t b = 0; b < rows * n; b += 4 * step)
        for (int64_t p = 0; p < step; p++)
            *out++ = pair_byte(code + b + p + 3 * step, -step);
}

/* ---------------------------------------------------------------- names */

static const st_gguf_packing packings[] = {
    { "tq1_0", "TQ1_0", 36, 1, 0, 0, NULL, pack_tq1_0 },
    { "tq2_0", "TQ2_0", 37, 1, 0, 0, NULL, pack_tq2_0 },
    { "i2_s", "I2_S", 40, 0, ST_I2S_X86, 0, NULL, NULL },
    { "i2_s-arm", "I2_S", 40, 0, ST_I2S_ARM, 0, NULL, NULL },
    { "i2_s-rows4", "I2_S", 40, 0, ST_I2S_ROWS4, 0, NULL, NULL },
    { "iq1_bn", "IQ1_BN", 136, 1, 0, 0, NULL, pack_iq1_bn },
    { "iq2_bn", "IQ2_BN", 137, 0, 0, 0, NULL, pack_iq2_bn },
    { "q2_0", "Q2_0", -1, 1, 0, 0, NULL, pack_q2_0_64 },
    { "q2_0-128", "Q2_0 (groups of 128)", -1, 1, 0, 0, NULL, pack_q2_0_128 },
    { "pq2_0", "PQ2_0", -1, 1, 0, 0, NULL, pack_q2_0_128 },
    { "ptq1_0", "PTQ1_0", -1, 1, 0, 0, NULL, pack_ptq1_0 },
    { "f32", "F32", 0, 0, 0, 0x1.fffffep127f, pack_f32, NULL },
    { "f16", "F16", 1, 0, 0, 65504.0f, pack_f16, NULL },
    { "bf16", "BF16", 32, 0, 0, 0x1.fep127f, pack_bf16, NULL },
    { "q8_0", "Q8_0", 7, 0, 0, 127 * 65504.0f, pack_q8_0, NULL },
};

const st_gguf_packing *st_gguf_packing_find(const char *name)
{
    for (size_t i = 0; i < sizeof packings / sizeof *packings; i++)
        if (strcmp(packings[i].name, name) == 0)
            return &packings[i];
    return NULL;
}

const char *st_gguf_packing_names(int ternary)
{
    return ternary ? "tq1_0, tq2_0, i2_s, iq1_bn, iq2_bn, q2_0, q2_0-128, pq2_0, ptq1_0" : "f32, f16, bf16, q8_0";
}
