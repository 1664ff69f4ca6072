/* model/gguf_decode.c -- one row of each GGUF element type, as floats or as ternary codes.
 *
 * Scalar and straight from the layouts, which are drawn here; not fast, and not checked: sizes were
 * (gguf_types.c).  d is a binary16 unless a drawing says otherwise.  Every byte is read as a byte,
 * so alignment and the host's byte order play no part.  Codes are weight + 1; a 2-bit code 3 is
 * handed on as it is, and the caller decides what it means. */
#include "model/convert.h"
#include "model/gguf_types.h"

static float half(const uint8_t *p)
{
    float f = 0;
    (void)st_convert_f32(&f, p, SETUN_F16, 1);
    return f;
}

/* ---------------------------------------------------------------- floats */

void st_gguf_f32(const uint8_t *row, int64_t n, float *out) { (void)st_convert_f32(out, row, SETUN_F32, n); }

void st_gguf_f16(const uint8_t *row, int64_t n, float *out) { (void)st_convert_f32(out, row, SETUN_F16, n); }

void st_gguf_bf16(const uint8_t *row, int64_t n, float *out) { (void)st_convert_f32(out, row, SETUN_BF16, n); }

/* 32 values in 18 bytes: d, then byte j = value j + 16 above value j; value = (q - 8) d. */
void st_gguf_q4_0(const uint8_t *row, int64_t n, float *out)
{
    for (int64_t b = 0; b < n; b += 32, row += 18) {
        float d = half(row);
        for (int j = 0; j < 16; j++) {
            out[b + j] = (float)((row[2 + j] & 15) - 8) * d;
            out[b + j + 16] = (float)((row[2 + j] >> 4) - 8) * d;
        }
    }
}

/* 32 values in 34 bytes: d, then an i8 each; value = q d. */
void st_gguf_q8_0(const uint8_t *row, int64_t n, float *out)
{
    for (int64_t b = 0; b < n; b += 32, row += 34) {
        float d = half(row);
        for (int j = 0; j < 32; j++)
            out[b + j] = (float)(int8_t)row[2 + j] * d;
    }
}

/* 256 values in 144 bytes: d, dmin, S[12], Q[128].  Eight groups of 32 with a 6-bit scale and a
 * 6-bit minimum; value = (d scale) q - (dmin minimum).
 *
 *     S[j], j < 4     | high 2 bits of scale j + 4   | scale j            |
 *     S[j + 4]        | high 2 bits of minimum j + 4 | minimum j          |
 *     S[j + 8]        | low 4 bits of minimum j + 4  | low 4 of scale j + 4|
 *     Q[32 k + l]     | value 64 k + 32 + l          | value 64 k + l     | */
void st_gguf_q4_k(const uint8_t *row, int64_t n, float *out)
{
    for (int64_t b = 0; b < n; b += 256, row += 144) {
        float d = half(row), dmin = half(row + 2);
        const uint8_t *s = row + 4, *q = row + 16;
        for (int j = 0; j < 8; j++) {
            int scale = j < 4 ? s[j] & 63 : (s[j + 4] & 15) | s[j - 4] >> 6 << 4;
            int minimum = j < 4 ? s[j + 4] & 63 : s[j + 4] >> 4 | s[j] >> 6 << 4;
            float step = d * (float)scale, least = dmin * (float)minimum;
            for (int l = 0; l < 32; l++)
                out[b + 32 * j + l] = step * (float)(q[j / 2 * 32 + l] >> j % 2 * 4 & 15) - least;
        }
    }
}

/* 256 values in 210 bytes: low[128], high[64], scale[16] (i8), d.  Of each half h, value 32 g + l
 * (g < 4, l < 32) has its low 4 bits in low[64 h + 32 (g % 2) + l], the upper nibble for g > 1, its
 * high 2 bits in field g of high[32 h + l], and scale 8 h + 2 g + l / 16; value = d scale (q - 32). */
void st_gguf_q6_k(const uint8_t *row, int64_t n, float *out)
{
    for (int64_t b = 0; b < n; b += 256, row += 210) {
        float d = half(row + 208);
        for (int i = 0; i < 256; i++) {
            int h = i / 128, g = i / 32 % 4, l = i % 32;
            int low = row[64 * h + 32 * (g % 2) + l] >> g / 2 * 4 & 15;
            int high = row[128 + 32 * h + l] >> 2 * g & 3;
            int scale = (int8_t)row[192 + 8 * h + 2 * g + l / 16];
            out[b + i] = d * (float)scale * (float)((low | high << 4) - 32);
        }
    }
}

/* ---------------------------------------------------------------- base 3 */

/* Five digits t0..t4 make v = 81 t0 + 27 t1 + 9 t2 + 3 t3 + t4 < 243, stored as
 *     byte = ceil(256 v / 243) = 256 v / 243 + e,  0 <= e < 1.
 * v / 243 in base 3 is 0.t0t1t2t3t4, so byte * 3^n modulo 256 drops the digits before tn, and three
 * times it, divided by 256, is tn.tn+1... + 3^(n + 1) e / 256.  What follows tn is at most
 * 1 - 3^(n - 4), and e < 256 / 243 keeps the sum below 1. */
static uint8_t digit(uint8_t byte, int n)
{
    static const uint8_t power[5] = { 1, 3, 9, 27, 81 };
    return (uint8_t)((uint8_t)(byte * power[n]) * 3 >> 8);
}

/* `width` bytes of `digits` digits: digit n of byte m is code n * width + m. */
static uint8_t *trits(const uint8_t *in, int width, int digits, uint8_t *code)
{
    for (int n = 0; n < digits; n++)
        for (int m = 0; m < width; m++)
            *code++ = digit(in[m], n);
    return code;
}

/* 256 values in 54 bytes: 32 bytes with five digits, 16 with five, 4 with four, d. */
void st_gguf_tq1_0(const uint8_t *row, int64_t n, uint8_t *code, float *scale)
{
    for (int64_t b = 0; b < n; b += 256, row += 54) {
        code = trits(row, 32, 5, code);
        code = trits(row + 32, 16, 5, code);
        code = trits(row + 48, 4, 4, code);
        *scale++ = half(row + 52);
    }
}

/* The same for 128 values in 28 bytes: 16 bytes with five digits, 8 with five, 2 with four, d. */
void st_gguf_ptq1_0(const uint8_t *row, int64_t n, uint8_t *code, float *scale)
{
    for (int64_t b = 0; b < n; b += 128, row += 28) {
        code = trits(row, 16, 5, code);
        code = trits(row + 16, 8, 5, code);
        code = trits(row + 24, 2, 4, code);
        *scale++ = half(row + 26);
    }
}

/* A row: its scale (binary16), then 64 values in 13 bytes.  Of each 16 values s, bytes 3 s to 3 s + 2
 * hold five each, and byte 12 the last of each 16.  The first value is the *last* digit here. */
void st_gguf_iq1_bn(const uint8_t *row, int64_t n, uint8_t *code, float *scale)
{
    *scale = half(row);
    row += 2;
    for (int64_t b = 0; b < n; b += 64, row += 13)
        for (int i = 0; i < 64; i++) {
            int s = i / 16, k = i % 16 / 5, j = i % 16 % 5;
            code[b + i] = k < 3 ? digit(row[3 * s + k], 4 - j) : digit(row[12], 4 - s);
        }
}

/* ---------------------------------------------------------------- two bits */

/* 256 values in 66 bytes: 64 bytes, d.  Two halves of 128 values:
 *
 *     bit    7 6    5 4    3 2    1 0
 *   byte m |m + 96|m + 64|m + 32|  m   |     m < 32 */
void st_gguf_tq2_0(const uint8_t *row, int64_t n, uint8_t *code, float *scale)
{
    for (int64_t b = 0; b < n; b += 256, row += 66) {
        for (int i = 0; i < 256; i++)
            code[b + i] = row[i / 128 * 32 + i % 32] >> i % 128 / 32 * 2 & 3;
        *scale++ = half(row + 64);
    }
}

/* A row: its scale (binary32), then 64 values in 16 bytes:
 *
 *     bit    7 6    5 4    3 2    1 0
 *   byte j |j + 48|j + 32|j + 16|  j   |     j < 16 */
void st_gguf_iq2_bn(const uint8_t *row, int64_t n, uint8_t *code, float *scale)
{
    (void)st_convert_f32(scale, row, SETUN_F32, 1);
    row += 4;
    for (int64_t i = 0; i < n; i++)
        code[i] = row[i / 64 * 16 + i % 16] >> i % 64 / 16 * 2 & 3;
}

/* d, then four neighbours a byte, the first in bits 0 and 1. */
static void neighbours(const uint8_t *row, int64_t n, int group, uint8_t *code, float *scale)
{
    for (int64_t b = 0; b < n; b += group, row += 2 + group / 4) {
        *scale++ = half(row);
        for (int i = 0; i < group; i++)
            code[b + i] = row[2 + i / 4] >> i % 4 * 2 & 3;
    }
}

void st_gguf_q2_0_64(const uint8_t *row, int64_t n, uint8_t *code, float *scale) { neighbours(row, n, 64, code, scale); }

void st_gguf_q2_0_128(const uint8_t *row, int64_t n, uint8_t *code, float *scale) { neighbours(row, n, 128, code, scale); }

/* I2_S: all weights of the tensor in row-major order, then the scale (binary32), then 28 bytes that
 * its writer leaves as they are.
 *
 *     bit      7 6        5 4        3 2        1 0
 *   byte p |    p     |  p + 32  |  p + 64  |  p + 96  |  of each 128 weights, p < 32 (x86)
 *   byte p |    p     |  p + 16  |  p + 32  |  p + 48  |  of each 64 weights, p < 16 (ARM)
 *   [R][c] | row 4 R  |row 4 R+1 |row 4 R+2 |row 4 R+3 |  column c, n bytes for four rows (rows4) */
void st_gguf_i2s(const uint8_t *data, int layout, int64_t r, int64_t n, uint8_t *code)
{
    if (layout == ST_I2S_ROWS4) {
        for (int64_t c = 0; c < n; c++)
            code[c] = (uint8_t)(data[r / 4 * n + c] >> (3 - r % 4) * 2 & 3);
        return;
    }
    /* Blocks run on over the ends of rows; whole ones become vector code. */
    int64_t width = layout == ST_I2S_X86 ? 32 : 16, at = r * n, end = at + n;
    while (at < end) {
        const uint8_t *block = data + at / (4 * width) * width;
        int64_t in = at % (4 * width), whole = in == 0 && end - at >= 4 * width ? 4 * width : 1;
        if (whole == 1)
            *code = (uint8_t)(block[in % width] >> (3 - in / width) * 2 & 3);
        for (int f = 0; whole > 1 && f < 4; f++)
            for (int64_t p = 0; p < width; p++)
                code[f * width + p] = (uint8_t)(block[p] >> (6 - 2 * f) & 3);
        at += whole;
        code += whole;
    }
}
