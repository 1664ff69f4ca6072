/* runtime/gguf_info.c -- what a GGUF file holds and what was decided about it, without running it.
 *
 * Not here: reading it (model/gguf.c), deciding (model/gguf_types.c, gguf_model.c).  Everything comes from
 * the header alone, unless the values are asked for: then each tensor is decoded, row by row.  A file
 * that Setun does not run is shown all the same, as long as it is GGUF. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/str.h"
#include "model/gguf_model.h"
#include "setun/setun.h"

#define SHOWN 8               /* elements of an array: a vocabulary has 100,000 */
#define SHOWN_TEXT 120        /* bytes of a string, in lines for people; and for programs: */
#define SHOWN_JSON 65536
#define LONGEST_ROW (1 << 26) /* weights of a row: none that is published comes near, and a row needs memory */

typedef struct report {
    st_str         t;
    int            json;
    const st_gguf *g;
    const st_gguf_model *model; /* NULL: Setun does not run it, and why_not says why */
    const char    *why_not;
} report;

/* ---------------------------------------------------------------- metadata */

/* A string of the file in quotes; the end of a long one is left out, between two characters. */
static void add_text(report *r, const char *text, int64_t n, int64_t most)
{
    int64_t cut = n < most ? n : most;
    while (cut < n && cut > 0 && ((unsigned char)text[cut] & 0xc0u) == 0x80u)
        cut--;
    st_str_add_json(&r->t, text, (size_t)cut);
    if (cut < n && !r->json)
        st_str_addf(&r->t, "... (%" PRId64 " bytes)", n);
}

static void add_float(report *r, double f, int digits)
{
    if (isfinite(f))
        st_str_addf(&r->t, "%.*g", digits, f);
    else /* JSON has no number for it */
        st_str_addf(&r->t, r->json ? "\"%s\"" : "%s", isnan(f) ? "nan" : f < 0 ? "-inf" : "inf");
}

static void add_element(report *r, const st_gguf_value *v, int64_t i, const uint8_t **at)
{
    int64_t n = 0;
    if (v->element == ST_GGUF_STRING) {
        const char *text = st_gguf_next(at, &n);
        add_text(r, text, n, r->json ? SHOWN_JSON : SHOWN_TEXT);
    } else if (v->element == ST_GGUF_F32 || v->element == ST_GGUF_F64) {
        add_float(r, st_gguf_float(v, i), v->element == ST_GGUF_F32 ? 9 : 17);
    } else if (v->element == ST_GGUF_BOOL) {
        st_str_add(&r->t, v->data[i] ? "true" : "false");
    } else if (st_gguf_int(v, i, &n) == 0) {
        st_str_addf(&r->t, "%" PRId64, n);
    } else { /* a u64 above all of i64 */
        st_str_addf(&r->t, "%" PRIu64, (uint64_t)n);
    }
}

static void add_value(report *r, const st_gguf_value *v)
{
    const uint8_t *at = v->data;
    int is_array = v->type == ST_GGUF_ARRAY;
    if (is_array)
        st_str_add(&r->t, "[");
    for (int64_t i = 0; i < v->n && i < SHOWN; i++) {
        st_str_add(&r->t, i ? ", " : "");
        add_element(r, v, i, &at);
    }
    if (is_array && v->n > SHOWN && !r->json)
        st_str_addf(&r->t, ", ... %" PRId64 " more", v->n - SHOWN);
    if (is_array)
        st_str_add(&r->t, "]");
}

static void add_metadata(report *r)
{
    const st_gguf *g = r->g;
    st_str_add(&r->t, r->json ? ",\n  \"metadata\": {" : "\nmetadata\n");
    for (int64_t i = 0; i < g->n_values; i++) {
        const st_gguf_value *v = &g->value[i];
        const char *type = st_gguf_value_name(v->element);
        if (r->json) {
            st_str_add(&r->t, i ? ",\n    " : "\n    ");
            st_str_add_json(&r->t, v->key, strlen(v->key));
            st_str_addf(&r->t, ": {\"type\": \"%s\"", type);
            if (v->type == ST_GGUF_ARRAY)
                st_str_addf(&r->t, ", \"count\": %" PRId64, v->n);
            st_str_add(&r->t, v->type == ST_GGUF_ARRAY ? ", \"first\": " : ", \"value\": ");
        } else if (v->type == ST_GGUF_ARRAY) {
            st_str_addf(&r->t, "  %-40s %s[%" PRId64 "] ", v->key, type, v->n);
        } else {
            st_str_addf(&r->t, "  %-40s %s ", v->key, type);
        }
        add_value(r, v);
        st_str_add(&r->t, r->json ? "}" : "\n");
    }
    st_str_add(&r->t, r->json ? "\n  }" : "");
}

/* ---------------------------------------------------------------- values of a tensor */

typedef struct summary {
    double  least, most, least_scale, most_scale;
    int64_t zeros, odd, code[4];  /* odd: not finite */
} summary;

static void count_row(summary *s, const st_gguf_tensor *t, const float *value, const uint8_t *code, const float *scale)
{
    int64_t n = t->dim[0], n_scales = st_gguf_scales(t), zeros = 0, odd = 0;
    float least = INFINITY, most = -INFINITY;
    for (int64_t i = 0; i < n; i++) {
        odd += !isfinite(value[i]);
        zeros += value[i] == 0.0f;
        least = value[i] < least ? value[i] : least;
        most = value[i] > most ? value[i] : most;
    }
    for (int c = 0; n_scales && c < 4; c++) {
        int64_t same = 0;
        for (int64_t i = 0; i < n; i++)
            same += code[i] == c;
        s->code[c] += same;
    }
    s->odd += odd;
    s->zeros += zeros;
    s->least = (double)least < s->least ? (double)least : s->least;
    s->most = (double)most > s->most ? (double)most : s->most;
    for (int64_t i = 0; i < n_scales; i++) {
        double v = (double)scale[i];
        s->least_scale = v < s->least_scale ? v : s->least_scale;
        s->most_scale = v > s->most_scale ? v : s->most_scale;
    }
}

static setun_status summarise(const st_gguf *g, const st_gguf_tensor *t, summary *s, setun_error *err)
{
    *s = (summary){ .least = INFINITY, .most = -INFINITY, .least_scale = INFINITY, .most_scale = -INFINITY };
    if (t->values == 0)
        return SETUN_OK;
    if (t->dim[0] > LONGEST_ROW)
        return st_fail(err, SETUN_BAD_SHAPE, "%s: tensor %s has rows of %" PRId64 " weights; rows of up to %d are read", t->file,
                       t->name, t->dim[0], LONGEST_ROW);
    size_t n = (size_t)t->dim[0];
    float *value = malloc(n * sizeof *value + 1), *scale = malloc((n + 1) * sizeof *scale);
    uint8_t *code = malloc(n + 1);
    setun_status st = value && scale && code ? SETUN_OK : st_fail(err, SETUN_NO_MEMORY, "no memory for a row of %s", t->name);
    for (int64_t r = 0; r < st_gguf_rows(t) && st == SETUN_OK; r++) {
        st = st_gguf_read_row(g, t, r, value, code, scale, err);
        if (st == SETUN_OK)
            count_row(s, t, value, code, scale);
    }
    free(value);
    free(scale);
    free(code);
    st_map_advise(t->data, t->bytes, 0); /* a model's pages need not push out what others use */
    return st;
}

static void add_share(report *r, const char *key, int64_t part, int64_t of)
{
    st_str_addf(&r->t, r->json ? ", \"%s\": %.6f" : ", %s %.4f", key, (double)part / (double)of);
}

static setun_status add_summary(report *r, const st_gguf_tensor *t, setun_error *err)
{
    summary s;
    if (!t->type->floats && !t->type->group) {
        st_str_add(&r->t, r->json ? ", \"values\": null" : "      values not read: Setun cannot compute with this type\n");
        return SETUN_OK;
    }
    ST_TRY(summarise(r->g, t, &s, err));
    if (t->values == 0)
        return SETUN_OK;
    st_str_add(&r->t, r->json ? ", \"values\": {\"least\": " : "      ");
    add_float(r, s.least, 9);
    st_str_add(&r->t, r->json ? ", \"most\": " : " to ");
    add_float(r, s.most, 9);
    add_share(r, "zeros", s.zeros, t->values);
    if (s.odd || r->json)
        st_str_addf(&r->t, r->json ? ", \"not_finite\": %" PRId64 : ", %" PRId64 " not finite", s.odd);
    if (t->type->group) {
        add_share(r, "minus", s.code[0], t->values);
        add_share(r, "plus", s.code[2], t->values);
        if (s.code[3] || r->json)
            add_share(r, r->json ? "plus_two" : "plus two", s.code[3], t->values);
        st_str_add(&r->t, r->json ? ", \"least_scale\": " : ", scales ");
        add_float(r, s.least_scale, 9);
        st_str_add(&r->t, r->json ? ", \"most_scale\": " : " to ");
        add_float(r, s.most_scale, 9);
    }
    st_str_add(&r->t, r->json ? "}" : "\n");
    return SETUN_OK;
}

/* ---------------------------------------------------------------- tensors */

static setun_status add_tensors(report *r, int values, setun_error *err)
{
    const st_gguf *g = r->g;
    st_str_add(&r->t, r->json ? ",\n  \"tensors\": [" : "\ntensors, innermost dimension first\n");
    for (int64_t i = 0; i < g->n_tensors; i++) {
        const st_gguf_tensor *t = &g->tensor[i];
        if (r->json) {
            st_str_add(&r->t, i ? ",\n    {\"name\": " : "\n    {\"name\": ");
            st_str_add_json(&r->t, t->name, strlen(t->name));
            st_str_addf(&r->t, ", \"type\": \"%s\", \"type_id\": %u, \"dims\": [", t->type->name, t->id);
        } else {
            st_str_addf(&r->t, "  %-40s %-8s ", t->name, t->type->name);
        }
        for (uint32_t k = 0; k < t->rank; k++)
            st_str_addf(&r->t, "%s%" PRId64, k == 0 ? "" : r->json ? ", " : " x ", t->dim[k]);
        if (r->json)
            st_str_addf(&r->t, "], \"bytes\": %" PRId64 ", \"offset\": %" PRId64, t->bytes, t->offset);
        else
            st_str_addf(&r->t, "%s, %" PRId64 " bytes\n", t->rank ? "" : "a number", t->bytes);
        if (g->n_files > 1 && r->json) {
            st_str_add(&r->t, ", \"part\": ");
            st_str_add_json(&r->t, t->file, strlen(t->file));
        }
        if (values)
            ST_TRY(add_summary(r, t, err));
        st_str_add(&r->t, r->json ? "}" : "");
    }
    st_str_add(&r->t, r->json ? "\n  ]" : "");
    return SETUN_OK;
}

static void add_fact(report *r, const char *key, const char *text)
{
    if (r->json) {
        st_str_addf(&r->t, "%s\n  \"%s\": ", r->t.len > 1 ? "," : "", key);
        st_str_add_json(&r->t, text, strlen(text));
    } else {
        st_str_addf(&r->t, "%-22s %s\n", key, text);
    }
}

static void add_number(report *r, const char *key, int64_t n)
{
    st_str_addf(&r->t, r->json ? ",\n  \"%s\": %" PRId64 : "%-22s %" PRId64 "\n", key, n);
}

static void add_runs(report *r)
{
    char text[sizeof(setun_error) + 8];
    (void)snprintf(text, sizeof text, "%s%s", r->model ? "as " : "no: ", r->model ? r->model->arch->class_name : r->why_not);
    add_fact(r, "runs", text);
}

static void add_lines(report *r, const char *const *text, int64_t n, int64_t *before)
{
    for (int64_t i = 0; i < n; i++) {
        if (r->json) {
            st_str_add(&r->t, (*before)++ ? ",\n    " : "\n    ");
            st_str_add_json(&r->t, text[i], strlen(text[i]));
        } else {
            add_fact(r, "decision", text[i]);
        }
    }
}

static setun_status add_all(report *r, int values, setun_error *err)
{
    const st_gguf *g = r->g;
    int64_t bytes = 0;
    for (int64_t i = 0; i < g->n_tensors; i++)
        bytes += g->tensor[i].bytes;
    st_str_add(&r->t, r->json ? "{" : "");
    add_fact(r, "path", g->path);
    add_fact(r, "format", "GGUF");
    add_number(r, "version", g->file[0].version);
    if (g->n_files > 1) {
        st_str_add(&r->t, r->json ? ",\n  \"parts\": [" : "");
        for (int64_t i = 0; i < g->n_files; i++) {
            if (!r->json) {
                add_fact(r, "part", g->file[i].path);
                continue;
            }
            st_str_add(&r->t, i ? ", " : "");
            st_str_add_json(&r->t, g->file[i].path, strlen(g->file[i].path));
        }
        st_str_add(&r->t, r->json ? "]" : "");
    }
    add_fact(r, "architecture", g->architecture);
    add_number(r, "keys", g->n_values);
    add_number(r, "tensors_in_all", g->n_tensors);
    add_number(r, "tensor_bytes", bytes);
    add_runs(r);
    int64_t n = 0;
    st_str_add(&r->t, r->json ? ",\n  \"decisions\": [" : "");
    add_lines(r, g->decision, g->n_decisions, &n);
    if (r->model)
        add_lines(r, r->model->line, r->model->n_lines, &n);
    st_str_add(&r->t, r->json ? "]" : "");
    add_metadata(r);
    ST_TRY(add_tensors(r, values, err));
    st_str_add(&r->t, r->json ? "\n}\n" : "");
    return SETUN_OK;
}

/* As a model if it is one, else as far as the container goes. */
static setun_status report_file(report *r, const char *path, const setun_file_options *o, setun_error *err)
{
    st_gguf g = { 0 };
    st_gguf_model m = { 0 };
    st_weights_choice choice;
    setun_error why = { 0 };
    ST_TRY(st_weights_choose(&choice, o->i2s_layout, SETUN_HAS(setun_file_options, o, activations) ? o->activations : NULL, err));
    st_arena *arena = st_arena_new();
    if (!arena)
        return st_fail(err, SETUN_NO_MEMORY, "no memory to open %s", path);
    setun_status s = st_gguf_model_open(&m, path, &choice, arena, &why);
    if (s == SETUN_OK) {
        r->model = &m;
        r->g = &m.g;
    } else {
        st_gguf_model_close(&m);
        r->why_not = why.text;
        r->g = &g;
        s = st_gguf_open(&g, path, choice.i2s, arena, err);
    }
    if (s == SETUN_OK)
        s = add_all(r, o->values, err);
    st_gguf_model_close(&m);
    st_gguf_close(&g);
    st_arena_free(arena);
    return s;
}

setun_status setun_file_info(const char *path, const setun_file_options *o, setun_write_fn *out, void *user, setun_error *err)
{
    if (!st_gguf_is(path))
        return SETUN_DECLINED;
    report r = { .json = o->json };
    setun_status s = report_file(&r, path, o, err);
    if (s == SETUN_OK && r.t.failed)
        s = st_fail(err, SETUN_NO_MEMORY, "no memory for the text");
    if (s == SETUN_OK && out(user, r.t.text, r.t.len))
        s = st_fail(err, SETUN_CANCELLED, "cancelled by the caller, who took no more text");
    st_str_free(&r.t);
    return s;
}
