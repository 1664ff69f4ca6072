/* model/source.c -- see source.h.
 *
 * A directory is read by st_weights, which decides what is ternary and by what rule, a GGUF file by
 * st_gguf_model, which names and orders.  Forms of a tensor:
 *
 *     PLAIN     floats of a checkpoint            PLANES    its packed codes: X.weight and X.weight_scale
 *     MASTER    floats, made ternary by absmean   EXACT     floats that are -a, 0, a (GROUPED: a of a row or of neighbours)
 *     ROWS      a GGUF tensor, read row by row */
#include "model/source.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/str.h"
#include "model/convert.h"
#include "model/unpacked.h"

enum { PLAIN, PLANES, MASTER, EXACT, GROUPED, ROWS };

static setun_status no_memory(const char *path, setun_error *err)
{
    return st_fail(err, SETUN_NO_MEMORY, "no memory to read %s", path);
}

/* ---------------------------------------------------------------- a directory */

static int ends_with(const char *name, const char *end)
{
    size_t n = strlen(name), m = strlen(end);
    return n >= m && strcmp(name + n - m, end) == 0;
}

/* The row of the table that names t; NULL: no row does, in this architecture. */
static const st_gguf_name *name_row(const char *architecture, const char *name)
{
    int64_t n_archs, n, layer;
    const st_gguf_arch *arch = st_gguf_archs(&n_archs);
    const st_gguf_name *row = st_gguf_names(&n);
    uint32_t in = 0;
    for (int64_t i = 0; i < n_archs; i++)
        in |= strcmp(arch[i].class_name, architecture) == 0 ? arch[i].in : 0;
    for (int64_t i = 0; i < n; i++)
        if ((row[i].in & in) && st_gguf_name_matches(row[i].hf, name, &layer))
            return &row[i];
    return NULL;
}

static int64_t config_int(const st_source *s, const char *key, int64_t fallback)
{
    const st_hparam *h = st_source_config(s, key);
    return h && h->kind == ST_HP_INT ? h->i : fallback;
}

/* What the configuration says of a size; 0: nothing. */
static int64_t config_size(const st_source *s, int size)
{
    int64_t hidden = config_int(s, "hidden_size", 0), heads = config_int(s, "num_attention_heads", 0), dim, all;
    dim = config_int(s, "head_dim", heads > 0 ? hidden / heads : 0);
    switch (size) {
    case ST_SIZE_HIDDEN: return hidden;
    case ST_SIZE_FFN: return config_int(s, "intermediate_size", 0);
    case ST_SIZE_QUERY: return st_mul_i64(heads, dim, &all) ? 0 : all;
    case ST_SIZE_KV: return st_mul_i64(config_int(s, "num_key_value_heads", heads), dim, &all) ? 0 : all;
    default: return 0;
    }
}

/* Four planes say how many rows there are to within three; the configuration says it exactly. */
static setun_status cut_rows(const st_source *s, st_source_tensor *t, const st_gguf_name *row, setun_error *err)
{
    int64_t want = row ? config_size(s, row->rows) : 0;
    if (!want)
        return SETUN_OK;
    if (want > t->rows || want <= t->rows - 4)
        return st_fail(err, SETUN_BAD_SHAPE, "%s: %s has %lld packed rows, and the configuration %lld rows", t->file, t->name,
                       (long long)(t->rows / 4), (long long)want);
    t->rows = t->dim[0] = want;
    return SETUN_OK;
}

/* Is tensor i, which is a matrix in a layer, ternary, and how? */
static setun_status find_form(st_source *s, st_source_tensor *t, int floats, int activations, setun_error *err)
{
    const st_gguf_name *row = name_row(s->architecture, t->name);
    int is_float = t->dtype != 0, packed = 0;
    /* A linear layer in a model that Setun does not know is told by its place, or by being packed. */
    t->linear = row ? row->kind == ST_NAME_LINEAR
                    : t->rank == 2 && ends_with(t->name, ".weight") && strncmp(t->name, "model.layers.", 13) == 0;
    if ((!t->linear && is_float) || t->rank != 2 || !ends_with(t->name, ".weight"))
        return SETUN_OK;
    const char *base = st_arena_strndup(s->arena, t->name, strlen(t->name) - strlen(".weight"));
    if (!base)
        return no_memory(s->path, err);
    setun_status st = st_weights_form(s->weights, base, &packed, &t->scale, err);
    if (st == SETUN_DECLINED) {
        t->form = floats == ST_FLOATS_ABSMEAN ? MASTER : floats == ST_FLOATS_EXACT ? EXACT : PLAIN;
        t->ternary = t->form != PLAIN;
        /* Floats that are ternary already are run as they are; masters are for int8. */
        t->weight_only = t->form == EXACT && activations != ST_ACTIVATIONS_INT8;
        return SETUN_OK;
    }
    ST_TRY(st);
    t->ternary = 1;
    t->form = packed ? PLANES : MASTER;
    t->is_ready = packed;
    if (!packed)
        return SETUN_OK;
    t->linear = 1;
    if (st_mul_i64(4, t->rows, &t->rows))
        return st_fail(err, SETUN_BAD_SHAPE, "%s: %s is too large", t->file, t->name);
    t->dim[0] = t->rows;
    return cut_rows(s, t, row, err);
}

/* Does st_weights_form answer with this tensor when it is asked for another one? */
static int is_scale(const st_source *s, const st_tensor *t)
{
    if (!ends_with(t->name, ".weight_scale"))
        return 0;
    const char *weight = st_arena_strndup(s->arena, t->name, strlen(t->name) - strlen("_scale"));
    const st_tensor *of = weight ? st_weights_find(s->weights, weight) : NULL;
    return of && of->view.dtype == SETUN_U8;
}

static void set_shape(st_source_tensor *t, uint32_t rank, const int64_t *dim)
{
    t->rank = rank;
    t->rows = 1;
    for (uint32_t i = 0; i < 4; i++)
        t->dim[i] = i < rank ? dim[i] : 1;
    for (uint32_t i = 0; i + 1 < rank; i++)
        t->rows *= t->dim[i]; /* no overflow: readers check all of a shape */
    t->cols = rank ? t->dim[rank - 1] : 1;
    t->n_scales = 1;
    t->per_scale = t->cols;
}

static setun_status list_directory(st_source *s, int floats, int activations, setun_error *err)
{
    int64_t n = st_weights_count(s->weights);
    s->tensor = st_arena_array(s->arena, n + 1, sizeof *s->tensor);
    if (!s->tensor)
        return no_memory(s->path, err);
    for (int64_t i = 0; i < n; i++) {
        const st_tensor *from = st_weights_at(s->weights, i);
        uint32_t d = from->view.dtype;
        if (is_scale(s, from))
            continue;
        st_source_tensor *t = &s->tensor[s->n_tensors++];
        t->name = t->stored = from->name;
        t->file = from->file;
        t->type = from->dtype;
        t->bytes = from->bytes;
        t->index = i;
        t->dtype = d == SETUN_F32 || d == SETUN_F16 || d == SETUN_BF16 ? d : 0;
        set_shape(t, from->view.rank, from->view.dim);
        ST_TRY(find_form(s, t, floats, activations, err));
    }
    return SETUN_OK;
}

/* ---------------------------------------------------------------- a GGUF file */

static uint32_t plain_dtype(const st_gguf_type *y)
{
    return y->floats == st_gguf_f32 ? SETUN_F32 : y->floats == st_gguf_f16 ? SETUN_F16 : y->floats == st_gguf_bf16 ? SETUN_BF16 : 0;
}

static setun_status list_gguf(st_source *s, int floats, setun_error *err)
{
    const st_gguf_model *m = s->model;
    s->tensor = st_arena_array(s->arena, m->n_tensors + 1, sizeof *s->tensor);
    if (!s->tensor)
        return no_memory(s->path, err);
    for (int64_t i = 0; i < m->n_tensors; i++) {
        const st_gguf_tensor *from = m->source[i].t;
        st_source_tensor *t = &s->tensor[s->n_tensors++];
        t->name = m->tensor[i].name;
        t->stored = from->name;
        t->file = from->file;
        t->type = from->type->name;
        t->bytes = from->bytes;
        t->index = i;
        t->dtype = plain_dtype(from->type);
        set_shape(t, m->tensor[i].view.rank, m->tensor[i].view.dim);
        t->linear = m->source[i].name->kind == ST_NAME_LINEAR;
        /* An embedding in a ternary type is floats to everybody else. */
        t->ternary = t->linear && st_gguf_source_is_ternary(m, i);
        t->weight_only = m->activations == ST_ACTIVATIONS_FLOAT;
        t->form = ROWS;
        if (t->ternary && st_gguf_scales(from)) {
            t->n_scales = st_gguf_scales(from);
            t->per_scale = t->cols / t->n_scales;
        } else if (t->ternary || (t->linear && floats != ST_FLOATS_STAY)) {
            t->form = floats == ST_FLOATS_ABSMEAN ? MASTER : EXACT;
            t->weight_only |= !t->ternary && t->form == EXACT && m->activations != ST_ACTIVATIONS_INT8;
            t->ternary = 1;
        }
    }
    return SETUN_OK;
}

/* ---------------------------------------------------------------- opening */

static setun_status open_directory(st_source *s, setun_error *err)
{
    ST_TRY(st_weights_open(&s->weights, s->path, NULL, err));
    s->config = st_weights_config(s->weights, &s->n_config);
    s->architecture = st_weights_architecture(s->weights);
    return SETUN_OK;
}

static setun_status open_gguf(st_source *s, const st_weights_choice *choice, setun_error *err)
{
    if (!(s->model = st_arena_alloc(s->arena, sizeof *s->model)))
        return no_memory(s->path, err);
    ST_TRY(st_gguf_model_open(s->model, s->path, choice, s->arena, err));
    s->config = s->model->config.item;
    s->n_config = s->model->config.n;
    s->architecture = s->model->arch->class_name;
    return SETUN_OK;
}

setun_status st_source_open(st_source *s, const char *path, const st_weights_choice *choice, int floats, setun_error *err)
{
    if (!(s->arena = st_arena_new()) || !(s->path = st_arena_strdup(s->arena, path)))
        return no_memory(path, err);
    int is_gguf = st_gguf_is(path);
    if (!is_gguf && choice->i2s != ST_I2S_ASK)
        return st_fail(err, SETUN_BAD_ARG, "%s: a layout of I2_S is said of GGUF files alone", path);
    if (!is_gguf && choice->activations != ST_ACTIVATIONS_ASK && floats != ST_FLOATS_EXACT)
        return st_fail(err, SETUN_BAD_ARG, "%s: a directory says itself how activations are used, unless --ternary exact is said", path);
    ST_TRY(is_gguf ? open_gguf(s, choice, err) : open_directory(s, err));
    ST_TRY(is_gguf ? list_gguf(s, floats, err) : list_directory(s, floats, choice->activations, err));
    if (!(s->by_name = st_table_new(s->n_tensors)))
        return no_memory(path, err);
    for (int64_t i = 0; i < s->n_tensors; i++)
        if (st_table_put(s->by_name, s->tensor[i].name, strlen(s->tensor[i].name), i))
            return no_memory(path, err);
    return SETUN_OK;
}

void st_source_close(st_source *s)
{
    st_table_free(s->by_name);
    if (s->model)
        st_gguf_model_close(s->model);
    st_weights_close(s->weights);
    st_arena_free(s->arena);
    memset(s, 0, sizeof *s);
}

st_source_tensor *st_source_find(const st_source *s, const char *name)
{
    int64_t i;
    return st_table_get(s->by_name, name, strlen(name), &i) ? &s->tensor[i] : NULL;
}

const st_hparam *st_source_config(const st_source *s, const char *key)
{
    for (int64_t i = 0; i < s->n_config; i++)
        if (strcmp(s->config[i].key, key) == 0)
            return s->config[i].kind == ST_HP_NULL ? NULL : &s->config[i];
    return NULL;
}

/* ---------------------------------------------------------------- rows */

static setun_status read_floats(const st_source *s, const st_source_tensor *t, int64_t r, float *value, setun_error *err)
{
    if (s->model) {
        /* Gemma's files have 1 added to what checkpoints have. */
        float less = s->model->arch->in == ST_GGUF_GEMMA3 && s->model->source[t->index].name->kind == ST_NAME_NORM ? 1.0f : 0.0f;
        ST_TRY(st_gguf_source_rows(s->model, t->index, r, 1, 0, value, err));
        for (int64_t c = 0; c < t->cols && less != 0.0f; c++)
            value[c] -= less;
        return SETUN_OK;
    }
    const st_tensor *from = st_weights_at(s->weights, t->index);
    if (!t->dtype)
        return st_fail(err, SETUN_UNKNOWN, "%s: tensor %s is %s, which Setun cannot compute with", t->file, t->name, t->type);
    (void)st_convert_f32(value, (const uint8_t *)from->view.data + r * t->cols * st_element_bytes(t->dtype), t->dtype, t->cols);
    return SETUN_OK;
}

/* The one magnitude that a matrix has beside 0; one of zeros alone has 1, as it may have any. */
static setun_status find_magnitude(const st_source *s, st_source_tensor *t, float *row, setun_error *err)
{
    t->scale = 0.0f;
    for (int64_t r = 0; r < t->rows; r++) {
        ST_TRY(read_floats(s, t, r, row, err));
        for (int64_t c = 0; c < t->cols; c++) {
            float a = fabsf(row[c]);
            if (a == 0.0f || a == t->scale)
                continue;
            if (t->scale > 0.0f || !isfinite(a))
                return st_fail(err, SETUN_BAD_FILE, "%s: %s is not ternary: %.9g at row %lld, column %lld beside %.9g", t->file,
                               t->stored, (double)row[c], (long long)r, (long long)c, (double)t->scale);
            t->scale = a;
        }
    }
    if (t->scale == 0.0f)
        t->scale = 1.0f;
    return SETUN_OK;
}

/* Floats that are ternary, whose rows or groups have magnitudes of their own; SETUN_DECLINED: they are not. */
static setun_status find_groups(const st_source *s, st_source_tensor *t, setun_error *err)
{
    static const int32_t group[] = ST_UNPACKED_FORMS;
    const st_tensor *at = s->model ? &s->model->tensor[t->index] : st_weights_at(s->weights, t->index);
    int form;
    ST_TRY(st_unpacked_find(&(st_unpacked){ at, s->model, t->index }, &form, err));
    t->form = GROUPED;
    t->scales_vary = 1;
    t->per_scale = group[form] ? group[form] : t->cols;
    t->n_scales = st_unpacked_scales(group[form], t->cols);
    return SETUN_OK;
}

static setun_status find_exact(const st_source *s, st_source_tensor *t, float *row, setun_error *err)
{
    setun_error why = { 0 };
    setun_status st = find_magnitude(s, t, row, &why), groups = st == SETUN_BAD_FILE ? find_groups(s, t, err) : SETUN_DECLINED;
    if (st == SETUN_OK || groups != SETUN_DECLINED)
        return st == SETUN_OK ? st : groups;
    return st_fail(err, st, "%s", why.text);
}

setun_status st_source_begin(const st_source *s, st_source_tensor *t, setun_error *err)
{
    if (t->is_ready || (t->form != MASTER && t->form != EXACT))
        return SETUN_OK;
    int64_t bytes;
    float *row = st_mul_i64(t->cols, sizeof *row, &bytes) ? NULL : malloc((size_t)bytes + 1);
    if (!row)
        return no_memory(s->path, err);
    setun_status st;
    if (t->form == EXACT) {
        st = find_exact(s, t, row, err);
    } else {
        st_absmean sum = { .n = 0 };
        st = SETUN_OK;
        for (int64_t r = 0; r < t->rows && st == SETUN_OK; r++) {
            st = read_floats(s, t, r, row, err);
            if (st == SETUN_OK)
                st_absmean_add(&sum, row, t->cols);
        }
        t->scale = st_absmean_of(&sum);
        if (st == SETUN_OK && !(t->scale > 0.0f && isfinite(t->scale)))
            st = st_fail(err, SETUN_BAD_FILE, "%s: %s has values that are not finite", t->file, t->stored);
    }
    free(row);
    t->is_ready = st == SETUN_OK;
    return st;
}

static setun_status read_planes(const st_source *s, const st_source_tensor *t, int64_t r, uint8_t *code, setun_error *err)
{
    const st_tensor *from = st_weights_at(s->weights, t->index);
    int64_t quarter = from->view.dim[0];
    const uint8_t *row = (const uint8_t *)from->view.data + r % quarter * t->cols;
    int shift = (int)(r / quarter) * 2, bad = 0;
    for (int64_t c = 0; c < t->cols; c++) {
        code[c] = row[c] >> shift & 3;
        bad |= code[c] == 3;
    }
    for (int64_t c = 0; c < t->cols && bad; c++)
        if (code[c] == 3)
            return st_fail(err, SETUN_BAD_FILE, "%s: %s has the code 3 at row %lld, column %lld: damaged or another packing",
                           t->file, t->name, (long long)r, (long long)c);
    return SETUN_OK;
}

static setun_status read_stored(const st_source *s, const st_source_tensor *t, int64_t r, uint8_t *code, float *scale,
                                setun_error *err)
{
    const st_gguf_source *from = &s->model->source[t->index];
    float factor = 1.0f;
    ST_TRY(st_gguf_read_codes(&s->model->g, from->t, st_gguf_source_at(s->model, t->index, r), code, scale, err));
    if (from->factor)
        (void)st_convert_f32(&factor, from->factor->data, SETUN_F32, 1);
    for (int64_t i = 0; from->factor && i < t->n_scales; i++)
        scale[i] *= factor;
    return SETUN_OK;
}

/* Values that find_groups has seen: their signs are the codes; a group of zeros may have any scale. */
static void split_groups(const st_source_tensor *t, const float *value, uint8_t *code, float *scale)
{
    for (int64_t g = 0; g < t->n_scales; g++)
        scale[g] = 1.0f;
    for (int64_t c = 0; c < t->cols; c++) {
        code[c] = (uint8_t)(1 + (value[c] > 0) - (value[c] < 0));
        if (code[c] != 1)
            scale[c / t->per_scale] = fabsf(value[c]);
    }
}

setun_status st_source_row(const st_source *s, const st_source_tensor *t, int64_t r, float *value, uint8_t *code,
                           float *scale, setun_error *err)
{
    if (!t->ternary)
        return read_floats(s, t, r, value, err);
    if (t->form == ROWS)
        return read_stored(s, t, r, code, scale, err);
    *scale = t->scale;
    if (t->form == PLANES)
        return read_planes(s, t, r, code, err);
    ST_TRY(read_floats(s, t, r, value, err));
    if (t->form == GROUPED) {
        split_groups(t, value, code, scale);
        return SETUN_OK;
    }
    st_codes_from_floats(code, value, t->cols, 1.0f / t->scale);
    return SETUN_OK;
}

void st_source_end(const st_source *s, const st_source_tensor *t)
{
    if (s->model)
        st_map_advise(s->model->source[t->index].t->data, t->bytes, 0);
    else
        st_map_advise(st_weights_at(s->weights, t->index)->view.data, t->bytes, 0);
}
