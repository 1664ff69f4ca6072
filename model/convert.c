/* model/convert.c -- see convert.h. */
#include "model/convert.h"

#include <string.h>

int64_t st_element_bytes(uint32_t dtype)
{
    return setun_block(dtype) > 1 ? 0 : setun_row_bytes(dtype, 1);
}

void st_convert_order(void *out, const void *in, int64_t element_bytes, int64_t n)
{
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    const uint8_t *p = in;
    uint8_t *q = out;
    for (int64_t i = 0; i < n; i++)
        for (int64_t k = 0; k < element_bytes; k++)
            q[i * element_bytes + k] = p[i * element_bytes + element_bytes - 1 - k];
#else
    memcpy(out, in, (size_t)(n * element_bytes));
#endif
}

static uint32_t u16_at(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8;
}

static float f32_of(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

static float f16_of(uint32_t h)
{
    uint32_t sign = (h & 0x8000) << 16, exponent = h >> 10 & 31, fraction = h & 0x3ff;
    if (exponent == 31)
        return f32_of(sign | 0x7f800000 | fraction << 13);
    if (exponent != 0)
        return f32_of(sign | (exponent + 112) << 23 | fraction << 13);
    /* Subnormal: fraction * 2^-24, exact in binary32. */
    float f = (float)fraction * 0x1p-24f;
    return sign ? -f : f;
}

int st_convert_f32(float *out, const void *in, uint32_t dtype, int64_t n)
{
    const uint8_t *p = in;
    if (dtype == SETUN_F32)
        st_convert_order(out, in, 4, n);
    else if (dtype == SETUN_BF16)
        for (int64_t i = 0; i < n; i++)
            out[i] = f32_of(u16_at(p + 2 * i) << 16);
    else if (dtype == SETUN_F16)
        for (int64_t i = 0; i < n; i++)
            out[i] = f16_of(u16_at(p + 2 * i));
    else
        return -1;
    return 0;
}

/* Thirty-two bytes at a time.  GNU vectors are cut by the compiler to what the target has; every
 * shift is masked so that no bit crosses a byte, which makes the lane width and order irrelevant.
 */
typedef uint64_t lanes __attribute__((vector_size(32)));

#define SPLAT(v) ((lanes){ v, v, v, v })

/* A 4 x 4 transpose of 2-bit fields.  in: 128 columns, byte c has plane i in bits 2i, 2i + 1.
 * Byte j of plane i's block has columns j, j + 32, j + 64, j + 96 in bits 0, 2, 4, 6:
 *
 *     in[j]       d3 d2 d1 d0         row[0][j]    a0 of j+96, j+64, j+32, j
 *     in[j + 32]  .. .. .. ..    ->   row[1][j]    a1 ...
 *
 * Marks in *bad what holds a code 3.  (Passed by pointer: wide vectors have no portable calling
 * convention.) */
static inline void planes_block(const uint8_t *in, uint8_t *const row[4], lanes *bad)
{
    const lanes low = SPLAT(0x0303030303030303u), odd = SPLAT(0x5555555555555555u);
    lanes a, b, c, d;
    memcpy(&a, in, 32);
    memcpy(&b, in + 32, 32);
    memcpy(&c, in + 64, 32);
    memcpy(&d, in + 96, 32);
    *bad |= ((a & a >> 1) | (b & b >> 1) | (c & c >> 1) | (d & d >> 1)) & odd;
    lanes r0 = (a & low) | (b & low) << 2 | (c & low) << 4 | (d & low) << 6;
    lanes r1 = (a >> 2 & low) | (b >> 2 & low) << 2 | (c >> 2 & low) << 4 | (d >> 2 & low) << 6;
    lanes r2 = (a >> 4 & low) | (b >> 4 & low) << 2 | (c >> 4 & low) << 4 | (d >> 4 & low) << 6;
    lanes r3 = (a >> 6 & low) | (b >> 6 & low) << 2 | (c >> 6 & low) << 4 | (d >> 6 & low) << 6;
    memcpy(row[0], &r0, 32);
    memcpy(row[1], &r1, 32);
    memcpy(row[2], &r2, 32);
    memcpy(row[3], &r3, 32);
}

int64_t st_t2_from_planes(uint8_t *t2, const uint8_t *packed, int64_t quarter, int64_t cols,
                          int64_t *col)
{
    int64_t row_bytes = setun_row_bytes(SETUN_T2, cols);
    for (int64_t r = 0; r < quarter; r++) {
        const uint8_t *in = packed + r * cols;
        uint8_t *row[4];
        for (int64_t i = 0; i < 4; i++)
            row[i] = t2 + (r + i * quarter) * row_bytes;
        lanes bad = SPLAT(0);
        int64_t c = 0;
        for (; c + SETUN_T2_BLOCK <= cols; c += SETUN_T2_BLOCK) {
            planes_block(in + c, row, &bad);
            for (int i = 0; i < 4; i++)
                row[i] += SETUN_T2_BLOCK_BYTES;
        }
        if (c < cols) { /* 0x55 is code 1 in all four planes: weight 0 past the end */
            uint8_t tail[SETUN_T2_BLOCK];
            memset(tail, 0x55, sizeof tail);
            memcpy(tail, in + c, (size_t)(cols - c));
            planes_block(tail, row, &bad);
        }
        if (bad[0] | bad[1] | bad[2] | bad[3])
            for (*col = 0; *col < cols; ++*col)
                for (int i = 0; i < 4; i++)
                    if ((in[*col] >> 2 * i & 3) == 3)
                        return r + i * quarter;
    }
    return -1;
}

void st_codes_from_floats(uint8_t *code, const float *x, int64_t n, float s)
{
    for (int64_t i = 0; i < n; i++) {
        float v = x[i] * s;
        code[i] = (uint8_t)(1 + (v > 0.5f) - (v < -0.5f));
    }
}

/* A block of 128 codes; bytes, so that the loop becomes vector code. */
static void pack_block(uint8_t *t2, const uint8_t code[SETUN_T2_BLOCK])
{
    for (int j = 0; j < SETUN_T2_BLOCK_BYTES; j++)
        t2[j] = (uint8_t)(code[j] | code[j + 32] << 2 | code[j + 64] << 4 | code[j + 96] << 6);
}

void st_t2_from_codes(uint8_t *t2, const uint8_t *code, int64_t cols)
{
    int64_t c = 0;
    for (; c + SETUN_T2_BLOCK <= cols; c += SETUN_T2_BLOCK, t2 += SETUN_T2_BLOCK_BYTES)
        pack_block(t2, code + c);
    if (c < cols) {
        uint8_t tail[SETUN_T2_BLOCK];
        memset(tail, 1, sizeof tail);
        memcpy(tail, code + c, (size_t)(cols - c));
        pack_block(t2, tail);
    }
}

void st_t2_from_floats(uint8_t *t2, const float *x, int64_t cols, float s)
{
    for (int64_t c = 0; c < cols; c += SETUN_T2_BLOCK, t2 += SETUN_T2_BLOCK_BYTES) {
        uint8_t code[SETUN_T2_BLOCK];
        int64_t n = cols - c < SETUN_T2_BLOCK ? cols - c : SETUN_T2_BLOCK;
        memset(code, 1, sizeof code);
        st_codes_from_floats(code, x + c, n, s);
        pack_block(t2, code);
    }
}

/* Byte j of block b of row r holds columns j + 32 f (f = 0..3) of the block.  So byte j of a block of 128
 * rows in a block of 128 columns' row, c + 32 g, is made of field g of byte c of rows j + 32 f: a 4 x 4
 * transpose of 2-bit fields, which runs along c. */
static void transpose_block(uint8_t out[128][32], const uint8_t *const row[128])
{
    for (int j = 0; j < 32; j++)
        for (int g = 0; g < 4; g++)
            for (int c = 0; c < 32; c++) {
                int byte = 0;
                for (int f = 0; f < 4; f++)
                    byte |= (row[j + 32 * f][c] >> 2 * g & 3) << 2 * f;
                out[c + 32 * g][j] = (uint8_t)byte;
            }
}

void st_t2_transpose(uint8_t *out, const uint8_t *in, int64_t rows, int64_t cols)
{
    int64_t in_bytes = setun_row_bytes(SETUN_T2, cols), out_bytes = setun_row_bytes(SETUN_T2, rows);
    uint8_t none[32], block[128][32];
    const uint8_t *row[128];
    memset(none, 0x55, sizeof none); /* code 1, weight 0 */
    for (int64_t r = 0; r < rows; r += SETUN_T2_BLOCK)
        for (int64_t c = 0; c < cols; c += SETUN_T2_BLOCK) {
            for (int i = 0; i < SETUN_T2_BLOCK; i++)
                row[i] = r + i < rows ? in + (r + i) * in_bytes + c / 4 : none;
            transpose_block(block, row);
            for (int64_t i = 0; i < SETUN_T2_BLOCK && c + i < cols; i++)
                memcpy(out + (c + i) * out_bytes + r / 4, block[i], sizeof *block);
        }
}

void st_absmean_add(st_absmean *m, const float *x, int64_t n)
{
    int64_t i = 0;
    for (; i < n && (m->n + i) % 8 != 0; i++)
        m->sum[(m->n + i) % 8] += (double)__builtin_fabsf(x[i]);
    for (; i + 8 <= n; i += 8)
        for (int j = 0; j < 8; j++)
            m->sum[j] += (double)__builtin_fabsf(x[i + j]);
    for (; i < n; i++)
        m->sum[(m->n + i) % 8] += (double)__builtin_fabsf(x[i]);
    m->n += n;
}

/* Sums are halved together and the mean is rounded to float once. */
float st_absmean_of(const st_absmean *m)
{
    double sum[8];
    memcpy(sum, m->sum, sizeof sum);
    for (int half = 4; half > 0; half /= 2)
        for (int j = 0; j < half; j++)
            sum[j] += sum[j + half];
    float mean = m->n ? (float)(sum[0] / (double)m->n) : 0.0f;
    return mean <= 1e-5f ? 1e-5f : mean;
}
