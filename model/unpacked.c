/* model/unpacked.c -- ternary matrices that a file holds as ordinary floats ("unpacked", "fake quantised").
 *
 * Some models that were trained with ternary weights are published as if they were not: every weight is
 * -s, 0 or +s in 16 bits, where s is that of its row (TriLM: of some rows together) or of 64, 128 or 256
 * neighbours (Ternary-Bonsai).  Nothing in their configuration says so, so the values are the evidence:
 * all or nothing per matrix, and exact, not near.  What is found this way has the same values as before, in
 * an eighth of the bytes; that activations are left alone is why nothing can be lost by it.
 *
 * Ordinary weights differ within the first piece of the first row, so refusing them costs one row. */
#include "model/unpacked.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "model/convert.h"

#define PIECE 64 /* the finest form; the others are multiples.  Narrower matrices are no evidence */

static const int32_t forms[ST_UNPACKED_N_FORM] = ST_UNPACKED_FORMS;

int64_t st_unpacked_scales(int32_t group, int64_t cols)
{
    return group ? (cols + group - 1) / group : 1;
}

/* The rows of t one after the other, as the bits of floats. */
typedef struct reader {
    const st_unpacked *in;
    int64_t            cols, row_bytes;
    float             *x;
} reader;

static setun_status open_reader(reader *r, const st_unpacked *in, setun_error *err)
{
    const setun_view *v = &in->t->view;
    *r = (reader){ .in = in, .cols = v->dim[1], .row_bytes = v->dim[1] * st_element_bytes(v->dtype) };
    r->x = malloc((size_t)r->cols * sizeof *r->x);
    if (!r->x)
        return st_fail(err, SETUN_NO_MEMORY, "no memory for a row of %s", in->t->name);
    return SETUN_OK;
}

static setun_status read_row(const reader *r, int64_t row, setun_error *err)
{
    const setun_view *v = &r->in->t->view;
    if (r->in->gguf)
        return st_gguf_source_rows(r->in->gguf, r->in->index, row, 1, 0, r->x, err);
    (void)st_convert_f32(r->x, (const uint8_t *)v->data + row * r->row_bytes, v->dtype, r->cols);
    return SETUN_OK;
}

static uint32_t magnitude(float x)
{
    uint32_t b;
    memcpy(&b, &x, sizeof b);
    return b & 0x7fffffff;
}

/* The one magnitude among n floats besides 0, as bits; 0: there is none; -1: there are several, or one is
 * not finite. */
static int64_t only_magnitude(const float *x, int64_t n)
{
    uint32_t most = 0, other = 0;
    for (int64_t i = 0; i < n; i++)
        most = magnitude(x[i]) > most ? magnitude(x[i]) : most;
    for (int64_t i = 0; i < n; i++)
        other |= magnitude(x[i]) != most && magnitude(x[i]) != 0;
    return other || most >= 0x7f800000 ? -1 : (int64_t)most;
}

/* Which forms (bits) does a row have, of those in `possible`?  *some: it has a weight that is not 0. */
static int forms_of_row(const float *x, int64_t cols, int possible, int *some)
{
    int64_t so_far[ST_UNPACKED_N_FORM] = { 0 };
    for (int64_t from = 0; from < cols && possible; from += PIECE) {
        int64_t s = only_magnitude(x + from, cols - from < PIECE ? cols - from : PIECE);
        *some |= s > 0;
        for (int f = 0; f < ST_UNPACKED_N_FORM; f++) {
            if (forms[f] && from % forms[f] == 0)
                so_far[f] = 0;
            if (s < 0 || (s && so_far[f] && s != so_far[f]))
                possible &= ~(1 << f);
            so_far[f] = s ? s : so_far[f];
        }
    }
    return possible;
}

setun_status st_unpacked_find(const st_unpacked *in, int *form, setun_error *err)
{
    const st_tensor *t = in->t;
    uint32_t d = in->gguf ? SETUN_F32 : t->view.dtype;
    setun_status s = SETUN_OK;
    int possible = (1 << ST_UNPACKED_N_FORM) - 1, some = 0;
    reader r;
    if (t->view.rank != 2 || t->view.dim[0] < 1 || t->view.dim[1] < PIECE || t->view.dim[1] > INT32_MAX ||
        (d != SETUN_F32 && d != SETUN_F16 && d != SETUN_BF16))
        return SETUN_DECLINED;
    ST_TRY(open_reader(&r, in, err));
    for (int64_t row = 0; row < t->view.dim[0] && possible && s == SETUN_OK; row++) {
        s = read_row(&r, row, err);
        if (s == SETUN_OK)
            possible = forms_of_row(r.x, r.cols, possible, &some);
    }
    free(r.x);
    if (s != SETUN_OK)
        return s;
    for (*form = 0; *form < ST_UNPACKED_N_FORM; ++*form)
        if (possible >> *form & 1 && some)
            return SETUN_OK;
    return SETUN_DECLINED;
}

setun_status st_unpacked_convert(const st_unpacked *in, int32_t group, uint8_t *t2, float *scale, setun_error *err)
{
    const st_tensor *t = in->t;
    setun_status st = SETUN_OK;
    int64_t cols = t->view.dim[1], width = group ? group : cols, n_scale = st_unpacked_scales(group, cols);
    reader r;
    ST_TRY(open_reader(&r, in, err));
    st_map_advise(t->view.data, t->bytes, 1);
    for (int64_t row = 0; row < t->view.dim[0] && st == SETUN_OK; row++) {
        st = read_row(&r, row, err);
        for (int64_t g = 0; g < n_scale && st == SETUN_OK; g++) {
            float s = 0;
            for (int64_t i = g * width; i < cols && i < (g + 1) * width; i++) {
                float x = r.x[i];
                s = x > 0 ? x : x < 0 ? -x : s;
                r.x[i] = x > 0 ? 1.0f : x < 0 ? -1.0f : 0.0f;
            }
            scale[row * n_scale + g] = s;
        }
        st_t2_from_floats(t2 + row * setun_row_bytes(SETUN_T2, cols), r.x, cols, 1.0f);
    }
    st_map_advise(t->view.data, t->bytes, 0); /* both forms need not be in memory */
    free(r.x);
    return st;
}
