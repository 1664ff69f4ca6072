/* model/head.c -- see head.h.
 *
 * A row becomes codes c = 0..255 for half/4 (2 c - 255), a grid that is symmetrical about 0 and that
 * with its upper six bits alone, half (2 c6 - 63), is the same kind of grid, four times as coarse.  The
 * smallest step that reaches the largest value is not always the best: a few others, which cut off the
 * largest values, are tried, and that with the least six-bit error wins.
 *
 * Errors and norms are sums in double, so their own errors (2^17 columns: 2^-36) are far below the
 * factor that rounds the bounds up; the proof that uses them is in ops/head_kernels.h. */
#include "model/head.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/pool.h"
#include "model/convert.h"

#define BLOCK 256
#define LANES 8 /* partial sums: without them a sum is a chain that no compiler may cut */

typedef struct job {
    const setun_view *w;
    uint8_t          *code, *fine;
    float            *meta;
    float            *row; /* a row of floats for each worker */
    int32_t           n_threads;
} job;

int64_t st_head_blocks(int64_t columns)
{
    return (columns + BLOCK - 1) / BLOCK;
}

/* At least v >= 0, also for denormals. */
static float up(double v)
{
    return (float)(v * (1 + 0x1p-20) + 0x1p-126);
}

static double total(const double *part)
{
    double sum = 0;
    for (int i = 0; i < LANES; i++)
        sum += part[i];
    return sum;
}

/* The code of x: floor(x / (half / 2)) + 128, cut off at both ends. */
static int32_t code_of(float x, float inverse)
{
    float v = x * inverse + 128.0f;
    v = v > 0.0f ? v : 0.0f;
    return (int32_t)(v < 255.0f ? v : 255.0f);
}

/* About the squared six-bit error of a row, in floats: only to choose by. */
static float six_bit_error(const float *x, int64_t n, float half)
{
    float part[LANES] = { 0 }, inverse = 0.5f / half, sum = 0;
    for (int64_t i = 0; i < n; i += LANES)
        for (int j = 0; j < LANES; j++) {
            float v = x[i + j] * inverse + 32.0f;
            v = v > 0.0f ? v : 0.0f;
            float e = x[i + j] - ((float)(int32_t)(v < 63.0f ? v : 63.0f) * 2.0f - 63.0f) * half;
            part[j] += e * e;
        }
    for (int j = 0; j < LANES; j++)
        sum += part[j];
    return sum;
}

static float choose(const float *x, int64_t n, float most)
{
    static const float share[] = { 0.93f, 0.86f, 0.75f };
    float best = most / 64.0f, least = six_bit_error(x, n, best);
    for (size_t i = 0; i < sizeof share / sizeof share[0]; i++) {
        float half = most * share[i] / 64.0f, error = six_bit_error(x, n, half);
        if (!(error < least))
            break; /* cutting off more only makes it worse */
        least = error;
        best = half;
    }
    return best;
}

/* The codes of 256 columns from x on. */
static void pack(const float *x, float inverse, uint8_t *code, uint8_t *fine)
{
    for (int j = 0; j < 64; j++) {
        int32_t c[4];
        for (int f = 0; f < 4; f++)
            c[f] = code_of(x[64 * f + j], inverse);
        for (int f = 0; f < 3; f++)
            code[64 * f + j] = (uint8_t)(c[f] >> 2 | (c[3] >> (2 + 2 * f) & 3) << 6);
        fine[j] = (uint8_t)((c[0] & 3) | (c[1] & 3) << 2 | (c[2] & 3) << 4 | (c[3] & 3) << 6);
    }
}

/* x has zeros behind its columns, up to a whole block; what stands for them in the codes meets zeros. */
static void quantise(const float *x, int64_t columns, uint8_t *code, uint8_t *fine, float *meta)
{
    double ww[LANES] = { 0 }, qq[2][LANES] = { { 0 } }, ee[2][LANES] = { { 0 } };
    int64_t width = st_head_blocks(columns) * BLOCK;
    float most = 0;
    int finite = 1;
    for (int64_t i = 0; i < width; i++) {
        float a = fabsf(x[i]);
        most = a > most ? a : most;
        finite &= x[i] - x[i] == 0.0f;
    }
    memset(code, 0, (size_t)(width / BLOCK * ST_HEAD_CODE_BYTES));
    memset(fine, 0, (size_t)(width / BLOCK * ST_HEAD_FINE_BYTES));
    meta[0] = 0;
    meta[1] = meta[2] = meta[3] = finite ? 0x1p-126f : INFINITY;
    if (!finite || most == 0.0f)
        return;
    /* Where the reciprocal overflows the step stays 0 and the error is the row itself. */
    float half = most >= 0x1p-100f ? choose(x, width, most) : 0.0f, inverse = half > 0.0f ? 2.0f / half : 0.0f;
    for (int64_t i = 0; i < width; i += BLOCK)
        pack(x + i, inverse, code + i / BLOCK * ST_HEAD_CODE_BYTES, fine + i / BLOCK * ST_HEAD_FINE_BYTES);
    for (int64_t i = 0; i < width; i += LANES)
        for (int j = 0; j < LANES; j++) {
            double v = (double)x[i + j], there = i + j < columns ? 1 : 0;
            int32_t c = code_of(x[i + j], inverse);
            double six = (double)half * (2 * (c >> 2) - 63) * there, eight = (double)half * 0.25 * (2 * c - 255) * there;
            ww[j] += v * v;
            qq[0][j] += six * six;
            qq[1][j] += eight * eight;
            ee[0][j] += (v - six) * (v - six);
            ee[1][j] += (v - eight) * (v - eight);
        }
    double w = total(ww), q = total(qq[0]) > total(qq[1]) ? total(qq[0]) : total(qq[1]);
    meta[0] = half;
    meta[1] = up(sqrt(total(ee[0])));
    meta[2] = up(sqrt(total(ee[1])));
    meta[3] = up(sqrt(w > q ? w : q));
}

static void work(void *arg, int32_t worker)
{
    const job *j = arg;
    int64_t rows = j->w->dim[0], cols = j->w->dim[1], blocks = st_head_blocks(cols);
    int64_t bytes = setun_row_bytes(j->w->dtype, cols);
    float *x = j->row + worker * blocks * BLOCK;
    for (int64_t r = rows * worker / j->n_threads; r < rows * (worker + 1) / j->n_threads; r++) {
        (void)st_convert_f32(x, (const uint8_t *)j->w->data + r * bytes, j->w->dtype, cols);
        quantise(x, cols, j->code + r * blocks * ST_HEAD_CODE_BYTES, j->fine + r * blocks * ST_HEAD_FINE_BYTES, j->meta + 4 * r);
    }
}

setun_status st_head_quantise(const setun_view *w, uint8_t *code, uint8_t *fine, float *meta, int32_t n_threads,
                              setun_error *err)
{
    job j = { w, code, fine, meta, NULL, n_threads > 0 ? n_threads : 1 };
    st_pool *pool;
    ST_TRY(st_pool_new(&pool, j.n_threads, 0, err));
    j.row = calloc((size_t)(j.n_threads * st_head_blocks(w->dim[1]) * BLOCK), sizeof *j.row);
    if (j.row)
        st_pool_run(pool, work, &j);
    st_pool_free(pool);
    if (!j.row)
        return st_fail(err, SETUN_NO_MEMORY, "no memory to convert the head");
    free(j.row);
    return SETUN_OK;
}
