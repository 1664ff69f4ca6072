/* model/head.c -- see head.h.
 *
 * Sums are in double, so their errors (2^17 columns: 2^-36) are far below the factor that rounds the
 * bounds up; the proof that uses them is in ops/head_bounds.c. */
#include "model/head.h"

#include <math.h>
#include <stdlib.h>

#include "base/error.h"
#include "base/pool.h"
#include "model/convert.h"

#define BLOCK 128
#define BIAS 128
#define LANES 8 /* partial sums: without them a sum of doubles is a chain that no compiler may cut */

typedef struct job {
    const setun_view *w;
    uint8_t          *code;
    float            *meta;
    float            *row; /* a row of floats for each worker */
    int32_t           n_threads;
} job;

int64_t st_head_width(int64_t columns)
{
    return (columns + BLOCK - 1) / BLOCK * BLOCK;
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

/* x has zeros behind its columns, up to width. */
static void quantise(const float *x, int64_t width, uint8_t *code, float *meta)
{
    double ww[LANES] = { 0 }, qq[LANES] = { 0 }, ee[LANES] = { 0 };
    float most = 0;
    int finite = 1;
    for (int64_t i = 0; i < width; i++) {
        float a = fabsf(x[i]);
        most = a > most ? a : most;
        finite &= x[i] - x[i] == 0.0f;
    }
    float scale = most / 127.0f, inverse = 127.0f / most;
    for (int64_t i = 0; i < width; i++)
        code[i] = BIAS;
    meta[0] = meta[3] = 0;
    meta[1] = meta[2] = finite ? 0x1p-126f : INFINITY;
    if (!finite || most == 0.0f)
        return;
    /* Where the reciprocal overflows the codes stay 0 and the error is the row itself. */
    if (!(inverse < INFINITY))
        scale = inverse = 0;
    for (int64_t i = 0; i < width; i += LANES)
        for (int j = 0; j < LANES; j++) {
            /* Adding and taking away 1.5 * 2^23 rounds to an integer; the product is at most 127.0001. */
            float q = (x[i + j] * inverse + 12582912.0f) - 12582912.0f;
            double near = (double)q * (double)scale, e = (double)x[i + j] - near;
            code[i + j] = (uint8_t)((int32_t)q + BIAS);
            ww[j] += (double)x[i + j] * (double)x[i + j];
            qq[j] += near * near;
            ee[j] += e * e;
        }
    double w = sqrt(total(ww)), q = sqrt(total(qq));
    meta[0] = scale;
    meta[1] = up(sqrt(total(ee)));
    meta[2] = up(w > q ? w : q);
}

static void work(void *arg, int32_t worker)
{
    const job *j = arg;
    int64_t rows = j->w->dim[0], cols = j->w->dim[1], width = st_head_width(cols);
    int64_t bytes = setun_row_bytes(j->w->dtype, cols);
    float *x = j->row + worker * width;
    for (int64_t r = rows * worker / j->n_threads; r < rows * (worker + 1) / j->n_threads; r++) {
        (void)st_convert_f32(x, (const uint8_t *)j->w->data + r * bytes, j->w->dtype, cols);
        quantise(x, width, j->code + r * width, j->meta + 4 * r);
    }
}

setun_status st_head_quantise(const setun_view *w, uint8_t *code, float *meta, int32_t n_threads, setun_error *err)
{
    job j = { w, code, meta, NULL, n_threads > 0 ? n_threads : 1 };
    st_pool *pool;
    ST_TRY(st_pool_new(&pool, j.n_threads, 0, err));
    j.row = calloc((size_t)(j.n_threads * st_head_width(w->dim[1])), sizeof *j.row);
    if (j.row)
        st_pool_run(pool, work, &j);
    st_pool_free(pool);
    if (!j.row)
        return st_fail(err, SETUN_NO_MEMORY, "no memory to convert the head");
    free(j.row);
    return SETUN_OK;
}
