/* model/recode_rows.c -- one tensor's rows as bytes of another form.
 *
 * Rows are read in the order in which the output has them, a few at a time, so that memory does not
 * depend on how many there are.  Before a row is packed it is known to fit: codes exist in the type,
 * scales agree where the type has fewer of them, and are numbers that its binary16 can hold. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "model/recode.h"
#include "setun/numerics.h"

typedef struct buffers {
    uint8_t *code, *bytes; /* ST_GGUF_I2S_ROWS rows of codes; one row of bytes, or as many of I2_S */
    float   *value, *scale, *group;
} buffers;

static void drop(buffers *b)
{
    free(b->code);
    free(b->bytes);
    free(b->value);
    free(b->scale);
    free(b->group);
}

/* A row never takes more bytes than its floats, and a scale for each of its blocks. */
static setun_status room(buffers *b, const st_source_tensor *t, setun_error *err)
{
    int64_t row, codes;
    if (t->cols > INT32_MAX || st_mul_i64(t->cols, 4, &row) || st_mul_i64(t->cols, ST_GGUF_I2S_ROWS, &codes))
        return st_fail(err, SETUN_BAD_SHAPE, "%s: %s has rows of %lld values", t->file, t->stored, (long long)t->cols);
    b->code = malloc((size_t)codes + 1);
    b->bytes = malloc((size_t)(codes / 4 > row ? codes / 4 : row) + 64);
    b->value = malloc((size_t)row + 4);
    b->scale = malloc((size_t)t->n_scales * sizeof *b->scale);
    b->group = malloc((size_t)row + 4);
    return b->code && b->bytes && b->value && b->scale && b->group
               ? SETUN_OK : st_fail(err, SETUN_NO_MEMORY, "no memory for a row of %s", t->stored);
}

/* ---------------------------------------------------------------- scales */

/* Joins columns [c, end) of row r, whose source groups have scales of their own: *one is the first that
 * some weight needs, NaN before. */
static setun_status join(const st_source_tensor *t, const uint8_t *code, const float *scale, int64_t r, int64_t c, int64_t end,
                         const char *form, float *one, setun_error *err)
{
    while (c < end) {
        int64_t next = (c / t->per_scale + 1) * t->per_scale;
        float s = scale[c / t->per_scale];
        int64_t stop = next < end ? next : end, i = c;
        while (i < stop && code[i] == 1)
            i++;
        if (i < stop && isnan(*one))
            *one = s;
        if (i < stop && *one != s)
            return st_fail(err, SETUN_BAD_SHAPE, "%s: %s (%s) has the scale %.9g at row %lld, column %lld, and %.9g before: %s has one "
                           "for both", t->file, t->stored, t->type, (double)s, (long long)r, (long long)c, (double)*one, form);
        c = next;
    }
    return SETUN_OK;
}

/* Is the scale of all rows known without reading them all? */
static int is_shared(const st_source *s, const st_source_tensor *t)
{
    return !t->scales_vary && (!s->model || !st_gguf_scales(s->model->source[t->index].t) ||
                               s->model->source[t->index].t->type->group == ST_GGUF_PER_TENSOR);
}

setun_status st_recode_one_scale(const st_source *s, st_source_tensor *t, const char *form, float *scale, setun_error *err)
{
    buffers b = { 0 };
    *scale = NAN;
    setun_status st = st_source_begin(s, t, err); /* which tells how many scales there are */
    if (st == SETUN_OK)
        st = room(&b, t, err);
    for (int64_t r = 0; r < t->rows && st == SETUN_OK; r++) {
        st = st_source_row(s, t, r, b.value, b.code, b.scale, err);
        if (st != SETUN_OK || is_shared(s, t)) {
            *scale = b.scale[0];
            break;
        }
        st = join(t, b.code, b.scale, r, 0, t->cols, form, scale, err);
    }
    drop(&b);
    st_source_end(s, t);
    *scale = isnan(*scale) ? 1.0f : *scale;
    if (st == SETUN_OK && !(*scale > 0.0f && isfinite(*scale)))
        st = st_fail(err, SETUN_BAD_FILE, "%s: the scale of %s is %g, which %s does not take", t->file, t->stored, (double)*scale, form);
    return st;
}

/* Scales of the item's groups, from those of the source's. */
static setun_status regroup(const st_recode_item *item, const buffers *b, const uint8_t *code, int64_t r, setun_error *err)
{
    const st_source_tensor *t = item->from;
    int64_t width = item->type->group > 0 ? item->type->group : t->cols;
    for (int64_t c = 0, g = 0; c < t->cols; c += width, g++) {
        float one = NAN;
        ST_TRY(join(t, code, b->scale, r, c, c + width, item->packing->name, &one, err));
        if (isnan(one)) { /* weights of 0 alone: what the file has, if that is a number for sure */
            one = b->scale[c / t->per_scale];
            one = isfinite(one) && fabsf(one) <= 65504.0f ? one : 0.0f;
        } else if (item->packing->half_scale) {
            float half = setun_f16_f32(setun_f32_f16(one));
            if (!isfinite(half) || half == 0.0f)
                return st_fail(err, SETUN_BAD_SHAPE, "%s: the scale %.9g of %s at row %lld, column %lld does not fit the binary16 of %s",
                               t->file, (double)one, t->stored, (long long)r, (long long)c, item->packing->name);
        }
        b->group[g] = one;
    }
    return SETUN_OK;
}

/* ---------------------------------------------------------------- codes */

static setun_status check_codes(const st_recode_item *item, const uint8_t *code, int64_t r, setun_error *err)
{
    const st_source_tensor *t = item->from;
    int has_two = item->type && item->type->has_two, most = 0;
    for (int64_t c = 0; c < t->cols; c++)
        most = code[c] > most ? code[c] : most;
    for (int64_t c = 0; c < t->cols && most > 2 && !has_two; c++)
        if (code[c] > 2)
            return st_fail(err, SETUN_BAD_SHAPE, "%s: %s (%s) has the weight +2 at row %lld, column %lld, which %s cannot hold", t->file,
                           t->stored, t->type, (long long)r, (long long)c, item->packing ? item->packing->name : "four planes");
    return SETUN_OK;
}

/* Row r of the output is this row of a checkpoint: GGUF's llama has a head's halves interleaved. */
static int64_t source_row(const st_recode_item *item, int64_t r)
{
    if (!item->heads)
        return r;
    int64_t size = item->from->rows / item->heads, in = r % size;
    return r - in + (in % 2 ? size / 2 + in / 2 : in / 2);
}

static setun_status read_codes(const st_source *s, const st_recode_item *item, int64_t r, const buffers *b, uint8_t *code,
                               setun_error *err)
{
    ST_TRY(st_source_row(s, item->from, r, b->value, code, b->scale, err));
    return check_codes(item, code, r, err);
}

static setun_status write_i2s(const st_source *s, const st_recode_item *item, const buffers *b, st_recode_sink *sink, void *user,
                              setun_error *err)
{
    int64_t n = item->from->cols, rows = item->from->rows;
    uint8_t tail[32] = { 0 };
    for (int64_t r = 0; r < rows; r += ST_GGUF_I2S_ROWS) {
        int64_t some = rows - r < ST_GGUF_I2S_ROWS ? rows - r : ST_GGUF_I2S_ROWS;
        for (int64_t i = 0; i < some; i++)
            ST_TRY(read_codes(s, item, source_row(item, r + i), b, b->code + i * n, err));
        st_gguf_pack_i2s(b->code, item->packing->i2s, some, n, b->bytes);
        ST_TRY(sink(user, b->bytes, some * n / 4, err));
    }
    st_gguf_packing_find("f32")->floats(&item->scale, 1, tail);
    return sink(user, tail, sizeof tail, err);
}

static setun_status write_codes(const st_source *s, const st_recode_item *item, const buffers *b, st_recode_sink *sink, void *user,
                                setun_error *err)
{
    if (item->packing->i2s)
        return write_i2s(s, item, b, sink, user, err);
    for (int64_t r = 0; r < item->from->rows; r++) {
        int64_t from = source_row(item, r);
        ST_TRY(read_codes(s, item, from, b, b->code, err));
        ST_TRY(regroup(item, b, b->code, from, err));
        item->packing->codes(b->code, b->group, item->from->cols, b->bytes);
        ST_TRY(sink(user, b->bytes, item->bytes / item->from->rows, err));
    }
    return SETUN_OK;
}

/* Rows r, r + R, r + 2 R, r + 3 R share bytes; rows past the end have code 1, weight 0. */
static setun_status write_planes(const st_source *s, const st_recode_item *item, const buffers *b, st_recode_sink *sink, void *user,
                                 setun_error *err)
{
    int64_t n = item->from->cols;
    for (int64_t r = 0; r < item->rows; r++) {
        memset(b->bytes, 0, (size_t)n);
        for (int i = 0; i < 4; i++) {
            int64_t from = r + i * item->rows;
            if (from < item->from->rows)
                ST_TRY(read_codes(s, item, from, b, b->code, err));
            else
                memset(b->code, 1, (size_t)n);
            for (int64_t c = 0; c < n; c++)
                b->bytes[c] = (uint8_t)(b->bytes[c] | b->code[c] << 2 * i);
        }
        ST_TRY(sink(user, b->bytes, n, err));
    }
    return SETUN_OK;
}

/* ---------------------------------------------------------------- floats */

/* A value that is a number stays one; NaN is none. */
static setun_status check_floats(const st_recode_item *item, const buffers *b, int64_t r, setun_error *err)
{
    const st_source_tensor *t = item->from;
    for (int64_t c = 0; c < t->cols; c++)
        if (!(fabsf(b->value[c]) <= item->packing->most))
            return st_fail(err, SETUN_BAD_FILE, "%s: %s is %.9g at row %lld, column %lld, which is not converted to %s", t->file,
                           t->stored, (double)b->value[c], (long long)r, (long long)c, item->packing->name);
    return SETUN_OK;
}

static setun_status write_floats(const st_source *s, const st_recode_item *item, const buffers *b, st_recode_sink *sink, void *user,
                                 setun_error *err)
{
    const st_source_tensor *t = item->from;
    for (int64_t r = 0; r < t->rows; r++) {
        int64_t from = source_row(item, r);
        ST_TRY(st_source_row(s, t, from, b->value, b->code, b->scale, err));
        for (int64_t c = 0; c < t->cols && t->ternary; c++)
            b->value[c] = (float)(b->code[c] - 1) * b->scale[c / t->per_scale];
        for (int64_t c = 0; c < t->cols && item->plus != 0.0f; c++)
            b->value[c] += item->plus;
        ST_TRY(check_floats(item, b, from, err));
        item->packing->floats(b->value, t->cols, b->bytes);
        ST_TRY(sink(user, b->bytes, item->bytes / t->rows, err));
    }
    return SETUN_OK;
}

/* The tensor as the GGUF file has it, in pieces. */
static setun_status write_raw(const st_source *s, const st_recode_item *item, st_recode_sink *sink, void *user, setun_error *err)
{
    const uint8_t *data = s->model->source[item->from->index].t->data;
    for (int64_t at = 0, n; at < item->bytes; at += n) {
        n = item->bytes - at < 1 << 20 ? item->bytes - at : 1 << 20;
        ST_TRY(sink(user, data + at, n, err));
    }
    return SETUN_OK;
}

static setun_status write_scale(const st_recode_item *item, st_recode_sink *sink, void *user, setun_error *err)
{
    uint8_t bytes[4];
    item->packing->floats(&item->scale, 1, bytes);
    return sink(user, bytes, item->bytes, err);
}

setun_status st_recode_rows(const st_source *s, const st_recode_item *item, st_recode_sink *sink, void *user, setun_error *err)
{
    buffers b = { 0 };
    if (item->how == ST_RECODE_RAW)
        return write_raw(s, item, sink, user, err);
    if (item->how == ST_RECODE_SCALE)
        return write_scale(item, sink, user, err);
    setun_status st = st_source_begin(s, item->from, err);
    if (st == SETUN_OK)
        st = room(&b, item->from, err);
    if (st == SETUN_OK)
        st = (item->how == ST_RECODE_CODES ? write_codes : item->how == ST_RECODE_PLANES ? write_planes : write_floats)(s, item, &b, sink,
                                                                                                                       user, err);
    drop(&b);
    st_source_end(s, item->from);
    return st;
}
