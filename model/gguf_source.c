/* model/gguf_source.c -- the rows of a GGUF file's matrices as Setun computes with them.
 *
 * Ternary types become codes in SETUN_T2 and scales; nothing is rounded on the way.  A file stores a
 * scale for each group of weights, row or tensor, but in most models all of them are one number, and
 * then one is what comes out: a group whose weights are all 0 may have any.  Other types stay as they are,
 * or become floats exactly as their layouts are defined.  Rows come in the order of a Hugging Face checkpoint:
 *
 *     one head, llama in GGUF    0   h   1   h+1  2   h+2 ...      h: half of its rows
 *     here                       0   1   2   ...  h   h+1 ...
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/str.h"
#include "model/convert.h"
#include "model/gguf_model.h"

int64_t st_gguf_source_at(const st_gguf_model *m, int64_t i, int64_t r)
{
    const st_gguf_source *s = &m->source[i];
    int64_t size = m->size[ST_SIZE_HEAD], in = r % size, half = size / 2;
    return s->heads ? r - in + (in < half ? 2 * in : 2 * (in - half) + 1) : r;
}

int st_gguf_source_is_ternary(const st_gguf_model *m, int64_t i)
{
    const st_gguf_source *s = &m->source[i];
    int stored = s->t->type->group != ST_GGUF_NOT_TERNARY;
    if (s->name->kind == ST_NAME_LINEAR)
        return stored || m->arch->in & ST_GGUF_BITNET;
    return stored && m->activations == ST_ACTIVATIONS_FLOAT;
}

int64_t st_gguf_source_scales(const st_gguf_model *m, int64_t i)
{
    int64_t n = st_gguf_scales(m->source[i].t);
    return n ? n : 1;
}

/* ---------------------------------------------------------------- codes */

/* What reads one row after another: buffers, and of float files the one size that weights have. */
typedef struct reader {
    const st_gguf_model *m;
    const st_gguf_tensor *t;
    uint8_t *code;
    float   *value; /* NULL where the type has codes */
    float    size, factor;
} reader;

/* BitNet's layers as floats: what quantisation left, -s, 0 and s.  Anything else was never ternary, or
 * is no longer (some types cannot hold three values exactly). */
static setun_status codes_of_floats(reader *rd, int64_t r, float *scale, setun_error *err)
{
    const st_gguf_tensor *t = rd->t;
    ST_TRY(st_gguf_read_row(&rd->m->g, t, r, rd->value, NULL, NULL, err));
    for (int64_t c = 0; c < t->dim[0]; c++) {
        float v = rd->value[c], a = fabsf(v);
        if (a > 0.0f && rd->size == 0.0f)
            rd->size = a;
        if (!(a == 0.0f || a == rd->size))
            return st_fail(err, SETUN_BAD_FILE, "%s: tensor %s (%s) is %g at row %lld, column %lld, and %g elsewhere: the layer is not "
                           "ternary, and with the architecture %s it has to be", t->file, t->name, t->type->name, (double)v,
                           (long long)r, (long long)c, (double)rd->size, rd->m->g.architecture);
        rd->code[c] = (uint8_t)(1 + (v > 0.0f) - (v < 0.0f));
    }
    *scale = rd->size;
    return SETUN_OK;
}

/* Row r of the file to rd->code; scales of groups that have a weight, 0 for the others. */
static setun_status read_codes(reader *rd, int64_t r, float *scale, setun_error *err)
{
    const st_gguf_tensor *t = rd->t;
    int64_t n = st_gguf_scales(t), cols = t->dim[0], group = n ? cols / n : cols;
    if (rd->value)
        ST_TRY(codes_of_floats(rd, r, scale, err));
    else
        ST_TRY(st_gguf_read_codes(&rd->m->g, t, r, rd->code, scale, err));
    for (int64_t g = 0; g < (n ? n : 1); g++) {
        const uint8_t *code = rd->code + g * group;
        uint8_t differs = 0, most = 0;
        for (int64_t c = 0; c < group; c++) {
            differs |= code[c] ^ 1;
            most = code[c] > most ? code[c] : most;
        }
        for (int64_t c = 0; most > 2 && c < group; c++)
            if (code[c] > 2)
                return st_fail(err, SETUN_BAD_FILE, "%s: tensor %s (%s) has the weight +2 at row %lld, column %lld: it is not ternary",
                               t->file, t->name, t->type->name, (long long)r, (long long)(g * group + c));
        scale[g] *= rd->factor;
        if (differs && (!(scale[g] > 0.0f) || !isfinite(scale[g])))
            return st_fail(err, SETUN_BAD_FILE, "%s: tensor %s: the scale of row %lld, column %lld on is %g, not a usable one", t->file,
                           t->name, (long long)r, (long long)(g * group), (double)scale[g]);
        if (!differs)
            scale[g] = 0.0f;
    }
    return SETUN_OK;
}

/* Are all scales of part[0..n) that count (not 0) one number?  *one is that, or 0 if none counts. */
static int is_one(const float *part, int64_t n, float *one)
{
    *one = 0.0f;
    for (int64_t i = 0; i < n; i++) {
        if (part[i] != 0.0f && *one != 0.0f && part[i] != *one)
            return 0;
        *one = part[i] != 0.0f ? part[i] : *one;
    }
    return 1;
}

/* Do runs of `wide` scales of a row agree?  If write != 0, one is left of each. */
static int runs_agree(float *scale, int64_t rows, int64_t per_row, int64_t wide, int write)
{
    float *to = scale, one;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t g = 0; g < per_row; g += wide) {
            if (!is_one(scale + r * per_row + g, per_row - g < wide ? per_row - g : wide, &one))
                return 0;
            if (write)
                *to++ = one;
        }
    return 1;
}

/* The coarsest of the groups that directories are searched for, too (unpacked.h): sums are added group by
 * group, so one model must have one, however it is stored. */
static int32_t reduce(float *scale, int64_t rows, int64_t per_row, int32_t stored)
{
    static const int32_t coarser[] = { 256, 128 };
    float one;
    if (is_one(scale, rows * per_row, &one)) {
        scale[0] = one != 0.0f ? one : 1.0f;
        return ST_GROUP_TENSOR;
    }
    if (runs_agree(scale, rows, per_row, per_row, 0)) {
        (void)runs_agree(scale, rows, per_row, per_row, 1);
        return 0;
    }
    for (size_t i = 0; i < 2; i++)
        if (coarser[i] > stored && runs_agree(scale, rows, per_row, coarser[i] / stored, 0)) {
            (void)runs_agree(scale, rows, per_row, coarser[i] / stored, 1);
            return coarser[i];
        }
    return stored;
}

setun_status st_gguf_source_ternary(const st_gguf_model *m, int64_t i, uint8_t *t2, float *scale, int32_t *group,
                                    setun_error *err)
{
    const st_gguf_source *s = &m->source[i];
    const st_gguf_tensor *t = s->t;
    int64_t rows = t->dim[1], cols = t->dim[0], per_row = st_gguf_source_scales(m, i), row_bytes = setun_row_bytes(SETUN_T2, cols);
    int has_codes = t->type->group != ST_GGUF_NOT_TERNARY;
    reader rd = { m, t, malloc((size_t)cols), has_codes ? NULL : malloc((size_t)cols * sizeof *rd.value), 0.0f, 1.0f };
    setun_status st = rd.code && (has_codes || rd.value) ? SETUN_OK : st_fail(err, SETUN_NO_MEMORY, "no memory for a row of %s", t->name);
    if (s->factor)
        (void)st_convert_f32(&rd.factor, s->factor->data, SETUN_F32, 1);
    st_map_advise(t->data, t->bytes, 1);
    for (int64_t r = 0; r < rows && st == SETUN_OK; r++) {
        st = read_codes(&rd, st_gguf_source_at(m, i, r), scale + r * per_row, err);
        if (st == SETUN_OK)
            st_t2_from_codes(t2 + r * row_bytes, rd.code, cols);
    }
    st_map_advise(t->data, t->bytes, 0); /* both forms need not be in memory */
    free(rd.code);
    free(rd.value);
    if (st == SETUN_OK)
        *group = reduce(scale, rows, per_row, t->type->group > 0 ? t->type->group : 1);
    return st;
}

/* ---------------------------------------------------------------- floats */

uint32_t st_gguf_dtype(const st_gguf_tensor *t)
{
    static const uint32_t dtypes[][2] = { { 0, SETUN_F32 },   { 1, SETUN_F16 },   { 30, SETUN_BF16 }, { 2, SETUN_Q4_0 },
                                          { 8, SETUN_Q8_0 }, { 12, SETUN_Q4_K }, { 14, SETUN_Q6_K } };
    uint32_t found = 0;
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++)
        found = dtypes[i][0] == t->id ? dtypes[i][1] : found;
    /* Numbers inside blocks have the host's order in Setun, and the file's here. */
    return __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__ && setun_block(found) > 1 ? 0 : found;
}

setun_status st_gguf_source_rows(const st_gguf_model *m, int64_t i, int64_t first, int64_t n, int raw, void *to, setun_error *err)
{
    const st_gguf_source *s = &m->source[i];
    const st_gguf_tensor *t = s->t;
    int64_t cols = t->dim[0], blocks = cols / t->type->block, element = t->type->block_bytes;
    uint8_t *code = malloc((size_t)cols), *out = to;
    float *scale = malloc((size_t)st_gguf_source_scales(m, i) * sizeof *scale);
    setun_status st = code && scale ? SETUN_OK : st_fail(err, SETUN_NO_MEMORY, "no memory for a row of %s", t->name);
    for (int64_t r = first; r < first + n && st == SETUN_OK; r++) {
        int64_t at = st_gguf_source_at(m, i, r);
        if (raw)
            st_convert_order(out + (r - first) * blocks * element, t->data + at * blocks * element, element, blocks);
        else
            st = st_gguf_read_row(&m->g, t, at, (float *)to + (r - first) * cols, code, scale, err);
    }
    free(code);
    free(scale);
    return st;
}
