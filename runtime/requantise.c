/* runtime/requantise.c -- see requantise.h.
 *
 *     values x of a matrix, row or unit  ->  scale s, by the rule;  s' = s as it is stored;  digits next to x / s'
 *
 * Values are the floats of the files where a matrix is kept as such (masters in training's precision); else what its
 * codes and scales mean.  With the rule absmean for -1, 0, 1 and a scale for a matrix this is what reading a master does
 * by itself (model/weights.c), bit for bit: the same mean, the same product with 1 / s, the same ties.
 * Sums of squares are kept by row and added in order, so that no figure depends on threads. */
#include "runtime/requantise.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "model/convert.h"
#include "model/gguf.h"

enum { VALUE = 1, SCALE };

/* Time for a script's function: as much as one call may take, and this for each value. */
#define CALL_NS  20000000000
#define VALUE_NS 5000

setun_status st_requantise_note(setun_model *m, const char *name, const void *codes, setun_error *err)
{
    const st_tensor *t = st_weights_find(m->weights, name);
    uint32_t d = t ? t->view.dtype : 0;
    if (st_gguf_is(st_weights_path(m->weights)) || (d != SETUN_F32 && d != SETUN_F16 && d != SETUN_BF16))
        return SETUN_OK; /* in a GGUF file rows may lie in another order */
    st_master *n = st_arena_alloc(m->arena, sizeof *n);
    if (!n)
        return st_fail(err, SETUN_NO_MEMORY, "no memory for %s", name);
    *n = (st_master){codes, t, m->masters};
    m->masters = n;
    return SETUN_OK;
}

double st_requantise_error(const st_packed *s)
{
    return s->square > 0 ? sqrt(s->error / s->square) : 0;
}

/* ---------------------------------------------------------------- values */

/* Row r; 0, or VALUE where one is not finite, which is noted. */
static int read_row(st_requantise *q, int64_t r, float *x)
{
    int64_t n = q->columns;
    const setun_view *w = q->w;
    if (q->master) {
        (void)st_convert_f32(x, (const uint8_t *)q->master->view.data + r * n * st_element_bytes(q->master->view.dtype),
                             q->master->view.dtype, n);
    } else if (!q->ws) {
        for (int64_t c = 0; c < n; c++)
            x[c] = setun_get_f32(w, r * n + c);
    } else {
        const float *s = q->ws->data;
        int64_t row_bytes = setun_row_bytes(SETUN_T2, w->dim[1]), per = q->group ? q->group : n;
        s += q->ws->rank == 1 && q->ws->dim[0] == 1 ? 0 : r * ((n + per - 1) / per);
        for (int64_t c = 0; c < n; c++) {
            int64_t at = q->across ? c : r;
            x[c] = s[c / per] * (float)setun_get_t2((const uint8_t *)w->data + at * row_bytes, q->across ? r : c);
        }
    }
    for (int64_t c = 0; c < n; c++)
        if (!__builtin_isfinite(x[c])) {
            q->row[r].wrong = VALUE;
            q->row[r].at = c;
            q->row[r].value = x[c];
            return VALUE;
        }
    return 0;
}

/* ---------------------------------------------------------------- the rules */

/* The smallest scale with which no value lies outside of the alphabet; x is looked at after what `s` has seen. */
static float absmax(const st_requantise *q, const float *x, int64_t n, float s)
{
    float low = 0.0f, high = 0.0f;
    for (int64_t i = 0; i < n; i++) {
        high = x[i] > high ? x[i] : high;
        low = x[i] < low ? x[i] : low;
    }
    low /= (float)q->level[0]; /* both are negative, or 0 and negative */
    high /= (float)q->level[q->n_level - 1];
    low = low > high ? low : high;
    return low > s ? low : s;
}

static uint32_t stored_type(const setun_packing *p) { return p->scale ? p->scale : p->row_scale; }

/* s as it is stored, or 0 after noting that it cannot be. */
static float keep(st_requantise *q, int64_t r, int64_t i, float s)
{
    float kept = setun_packing_keep_scale(stored_type(q->p), s);
    if (__builtin_isfinite(kept))
        return kept;
    q->row[r].wrong = SCALE;
    q->row[r].at = i;
    q->row[r].value = s;
    return 0.0f;
}

/* Digits next to x / s.  A product with 1 / s is what the definition of BitNet b1.58 does; where that is infinite, a
 * quotient. */
static void nearest(const st_requantise *q, const float *x, int64_t n, float s, int8_t *digit)
{
    float inverse = s > 0.0f ? 1.0f / s : 0.0f;
    int finite = __builtin_isfinite(inverse);
    for (int64_t c = 0; c < n; c++) {
        float v = finite ? x[c] * inverse : x[c] / s;
        int32_t i = 0;
        for (int32_t k = 0; k + 1 < q->n_level; k++)
            i += q->up[k] ? v >= q->middle[k] : v > q->middle[k];
        digit[c] = q->level[i];
    }
}

/* What the script's function makes of part g of row r. */
static float call_script(st_requantise *q, int64_t r, int64_t g, const float *x, int64_t n, int8_t *digit)
{
    char what[320];
    float s = 0.0f;
    if (q->status == SETUN_OK && st_now_ns() > q->deadline)
        q->status = st_fail(&q->err, SETUN_BAD_SCRIPT, "%s: quantise of packing %s takes more than %d ns for each value of %s: absmean and "
                            "absmax are fast", q->rule->where, q->rule->name, VALUE_NS, q->name);
    if (q->status != SETUN_OK)
        return s;
    (void)snprintf(what, sizeof what, "packing %s, %s, row %" PRId64 ", columns from %" PRId64, q->rule->name, q->name, r, g * q->each);
    q->status = st_script_quantise(q->script, q->rule, q->p, x, n, what, digit, &s, &q->err);
    return s;
}

void st_requantise_row(st_requantise *q, int64_t r, float *x, int8_t *digit)
{
    float *scale = q->scale.data;
    memset(digit, 0, (size_t)q->columns);
    if (read_row(q, r, x))
        return;
    if (q->rule->quantise.per == ST_PER_MATRIX) {
        nearest(q, x, q->columns, scale[0], digit);
        return;
    }
    for (int64_t g = 0, c = 0; g < q->n; g++, c += q->each) {
        int64_t n = q->columns - c < q->each ? q->columns - c : q->each;
        float *s = &scale[r * q->n + g];
        st_absmean mean = {.n = 0};
        if (q->rule->quantise.kind == ST_RULE_SCRIPT) {
            *s = call_script(q, r, g, x + c, n, digit + c);
            continue;
        }
        if (q->rule->quantise.kind == ST_RULE_ABSMEAN)
            st_absmean_add(&mean, x + c, n);
        *s = keep(q, r, g, q->rule->quantise.kind == ST_RULE_ABSMEAN ? st_absmean_of(&mean) : absmax(q, x + c, n, 0.0f));
        nearest(q, x + c, n, *s, digit + c);
    }
}

/* One scale for the whole matrix. */
static setun_status matrix_scale(st_requantise *q, setun_error *err)
{
    st_absmean mean = {.n = 0};
    float most = 0.0f, *x = malloc((size_t)q->columns * sizeof *x);
    if (!x)
        return st_fail(err, SETUN_NO_MEMORY, "no memory for a row of %s", q->name);
    for (int64_t r = 0; r < q->rows && !read_row(q, r, x); r++)
        if (q->rule->quantise.kind == ST_RULE_ABSMEAN)
            st_absmean_add(&mean, x, q->columns);
        else
            most = absmax(q, x, q->columns, most);
    free(x);
    *(float *)q->scale.data = keep(q, 0, 0, q->rule->quantise.kind == ST_RULE_ABSMEAN ? st_absmean_of(&mean) : most);
    return SETUN_OK;
}

/* ---------------------------------------------------------------- one matrix */

static void sort_levels(st_requantise *q)
{
    q->n_level = q->p->n_level;
    for (int32_t i = 0; i < q->n_level; i++) {
        int32_t at = i;
        for (; at > 0 && q->level[at - 1] > q->p->level[i]; at--)
            q->level[at] = q->level[at - 1];
        q->level[at] = (int8_t)q->p->level[i];
    }
    for (int32_t i = 0; i + 1 < q->n_level; i++) { /* of two that are equally near the even one, or else the larger */
        q->middle[i] = 0.5f * (float)(q->level[i] + q->level[i + 1]);
        q->up[i] = q->level[i] % 2 != 0 || q->level[i + 1] % 2 == 0;
    }
}

void st_requantise_shape(st_requantise *q)
{
    const st_master *n = q->ws ? q->m->masters : NULL;
    int32_t per = q->rule->quantise.per;
    q->rows = q->w->dim[q->across];
    q->columns = q->w->dim[!q->across];
    while (n && n->codes != q->w->data)
        n = n->next;
    q->master = n && n->floats->view.rank == 2 && n->floats->view.dim[0] == q->rows && n->floats->view.dim[1] == q->columns ? n->floats : NULL;
    q->each = per == ST_PER_UNIT ? q->p->digits : q->columns;
    q->n = (q->columns + q->each - 1) / q->each;
    q->scale = (setun_view){NULL, SETUN_F32, per == ST_PER_UNIT ? 2 : 1, {per == ST_PER_MATRIX ? 1 : q->rows, per == ST_PER_UNIT ? q->n : 1, 1, 1}};
}

setun_status st_requantise_open(st_requantise *q, setun_error *err)
{
    q->scale.data = st_arena_alloc(q->m->arena, setun_view_bytes(&q->scale));
    q->row = calloc((size_t)q->rows, sizeof *q->row);
    q->deadline = st_now_ns() + CALL_NS + q->rows * q->columns * VALUE_NS;
    if (!q->scale.data || !q->row)
        return st_fail(err, SETUN_NO_MEMORY, "no memory to quantise %s", q->name);
    sort_levels(q);
    return q->rule->quantise.per == ST_PER_MATRIX ? matrix_scale(q, err) : SETUN_OK;
}

void st_requantise_measure(st_requantise *q, int64_t r, const float *x, const int8_t *digit, const uint8_t *packed, int changed)
{
    const float *scale = (const float *)q->scale.data + (q->rule->quantise.per == ST_PER_MATRIX ? 0 : r * q->n);
    st_requantised *row = &q->row[r];
    for (int64_t c = 0; c < q->columns; c++) {
        int32_t back = changed ? setun_packing_get(q->p, packed, c) : digit[c];
        double lost = (double)x[c] - (double)back * (double)scale[c / q->each];
        row->error += lost * lost;
        row->square += (double)x[c] * (double)x[c];
    }
}

/* The first row that is wrong, in words. */
static setun_status complain(const st_requantise *q, int64_t r, setun_error *err)
{
    const st_requantised *row = &q->row[r];
    const char *file = q->master ? q->master->file : q->m->path;
    if (row->wrong == VALUE)
        return st_fail(err, SETUN_BAD_FILE, "%s: %s has the value %g at row %" PRId64 ", column %" PRId64 ", and cannot be quantised", file,
                       q->name, (double)row->value, r, row->at);
    return st_fail(err, SETUN_UNKNOWN, "%s: packing %s cannot hold the scale %g of %s, row %" PRId64 ", part %" PRId64 ": bf16 and f32 reach "
                   "further than f16", q->rule->where, q->rule->name, (double)row->value, q->name, r, row->at);
}

setun_status st_requantise_close(st_requantise *q, setun_error *err)
{
    setun_status s = q->status;
    if (s != SETUN_OK)
        s = st_fail(err, s, "%s", q->err.text);
    for (int64_t r = 0; q->row && r < q->rows && s == SETUN_OK; r++) {
        if (q->row[r].wrong)
            s = complain(q, r, err);
        q->error += q->row[r].error;
        q->square += q->row[r].square;
    }
    free(q->row);
    q->row = NULL;
    return s;
}

void st_requantise_count(const st_requantise *q)
{
    st_packed own = {.error = q->error, .square = q->square};
    q->m->packed.error += q->error;
    q->m->packed.square += q->square;
    st_logf(&q->m->engine->log, ST_LOG_INFO, "packing %s: %s from its %s, relative error %.6g", q->rule->name, q->name,
            q->master || !q->ws ? "floats" : "codes", st_requantise_error(&own));
}
