/* runtime/convert.c -- models in other forms, and the differences between two: setun convert, setun diff.
 *
 * Not here: reading, writing and comparing tensors (model/recode.c, model/compare.c).  What is left is
 * options, what both models compute, and the text. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "model/import.h"
#include "model/recode.h"
#include "plugins/host.h"
#include "runtime/trace.h"
#include "setun/setun.h"

static setun_status choose_floats(const char *text, int *out, setun_error *err)
{
    *out = !text ? ST_FLOATS_STAY : strcmp(text, "absmean") == 0 ? ST_FLOATS_ABSMEAN : ST_FLOATS_EXACT;
    if (*out == ST_FLOATS_EXACT && strcmp(text, "exact") != 0)
        return st_fail(err, SETUN_BAD_ARG, "floats cannot become ternary by '%s'; absmean and exact are known", text);
    return SETUN_OK;
}

static setun_status hand_out(const st_str *s, setun_write_fn *out, void *user, setun_error *err)
{
    if (s->failed)
        return st_fail(err, SETUN_NO_MEMORY, "no memory for the text");
    if (s->len && out(user, s->text, s->len))
        return st_fail(err, SETUN_CANCELLED, "cancelled by the caller, who took no more text");
    return SETUN_OK;
}

/* ---------------------------------------------------------------- convert */

/* The plugin that says the file is of its format.  Two of them: neither is right without being named. */
static setun_status find_format(const st_plugins *p, st_import *in, setun_error *err)
{
    const st_plugin_info *by = NULL;
    for (int64_t i = 0; i < st_plugins_count(p); i++) {
        const st_plugin_info *one = st_plugins_at(p, i);
        if (!one->format || !one->format->is(one->self, in->bytes, (uint64_t)in->n))
            continue;
        if (by)
            return st_fail(err, SETUN_BAD_ARG, "%s: the formats %s of %s and %s of %s both claim it; load one of the plugins", in->path,
                           by->format->name, by->file, one->format->name, one->file);
        by = one;
    }
    in->format = by ? by->format : NULL;
    in->self = by ? by->self : NULL;
    return SETUN_OK;
}

/* What a plugin reads becomes a checkpoint beside the output first, and that is what is converted: it is read, checked and
 * compared as any other is.  It goes when the conversion ends, however it ends. */
static setun_status convert_import(const st_plugins *p, st_recode *r, st_str *report, setun_error *err)
{
    st_import in = { .path = r->in };
    st_newdir dir = { 0 };
    st_map map;
    st_str place = { 0 };
    st_watch watch = { .progress = r->progress, .user = r->user };
    if (!r->force && !st_is_absent(r->out)) /* as is said later, when much has been read for nothing */
        return st_fail(err, SETUN_BAD_ARG, "%s exists, and is not replaced unasked", r->out);
    ST_TRY(st_map_open(&map, r->in, err));
    in.bytes = map.data;
    in.n = map.bytes;
    setun_status st = find_format(p, &in, err);
    if (st == SETUN_OK && in.format) {
        size_t n = strlen(r->out);
        while (n > 1 && r->out[n - 1] == '/')
            n--;
        st_str_addn(&place, r->out, n);
        st_str_add(&place, ".import");
        st = place.failed ? st_fail(err, SETUN_NO_MEMORY, "no memory to read %s", r->in)
                          : st_newdir_begin(&dir, place.text, NULL, 0, err);
        if (st == SETUN_OK)
            st = st_import_write(&in, &dir, &watch, err);
        if (st == SETUN_OK) {
            st_str_addf(report, "%s: read as %s, by a plugin\n", r->in, in.format->name);
            r->name = r->in; /* that of the copy is another each time */
            r->in = dir.dir.text;
        }
    }
    st_map_close(&map);
    if (st == SETUN_OK) {
        const char *path = in.path;
        st = st_recode_write(r, report, err);
        if (st != SETUN_OK && in.format)
            st_wrap(err, "%s, read as %s", path, in.format->name);
    }
    st_newdir_end(&dir);
    st_str_free(&place);
    return st;
}

/* Directories and GGUF files are read by Setun itself, whatever plugins are loaded. */
static setun_status convert(const setun_convert_options *o, st_recode *r, st_str *report, setun_error *err)
{
    st_plugins *p = NULL;
    if (!o->plugins || !st_is_file(o->in) || st_gguf_is(o->in))
        return st_recode_write(r, report, err);
    setun_status st = st_plugins_new(&p, NULL, err);
    if (st == SETUN_OK)
        st = st_plugins_load_list(p, o->plugins, err);
    if (st == SETUN_OK)
        st = convert_import(p, r, report, err);
    st_plugins_free(p);
    return st;
}

setun_status setun_convert(const setun_convert_options *o, setun_write_fn *out, void *user, setun_error *err)
{
    st_weights_choice choice;
    st_recode r = { .in = o->in, .out = o->out, .to = o->to, .floats = o->floats, .force = o->force, .lossless = o->lossless,
                    .progress = o->progress, .user = o->user };
    st_str report = { 0 };
    if (!o->in || !o->out || !o->to)
        return st_fail(err, SETUN_BAD_ARG, "a conversion needs an input, an output and a form");
    ST_TRY(choose_floats(o->ternary, &r.ternary, err));
    ST_TRY(st_weights_choose(&choice, o->i2s_layout, o->activations, err));
    r.i2s = choice.i2s;
    r.activations = choice.activations;
    setun_status st = convert(o, &r, &report, err);
    if (st == SETUN_OK)
        st = hand_out(&report, out, user, err);
    st_str_free(&report);
    return st;
}

const char *setun_convert_forms(void) { return st_recode_forms(); }

/* ---------------------------------------------------------------- what both compute */

typedef struct outputs {
    const char *what;  /* "logits" of the last token; of a model that makes vectors of texts, its state: "embedding" */
    int64_t n, differ; /* how many numbers that is, and how many of them differ */
    double  by;        /* at most by so much */
    int32_t top_a, top_b;
    setun_status status;
    setun_error  why; /* a model that cannot be run */
    st_trace     trace_a, trace_b; /* of all steps before them */
    setun_status traced;
    setun_error  not_traced;
    st_trace_difference steps;
} outputs;

/* What a model makes of the tokens. */
static setun_status run_tokens(setun_session *s, const setun_model *m, const setun_diff_options *d, float *out, int64_t n, setun_error *err)
{
    const float *row = NULL;
    setun_embedding e;
    if (!setun_model_has_logits(m)) {
        setun_embedding_init(&e);
        e.pool = SETUN_POOL_LAST;
        e.norm = SETUN_NORM_RAW;
        return setun_session_embed(s, &d->tokens, &d->n_tokens, 1, &e, out, err);
    }
    ST_TRY(setun_session_feed(s, d->tokens, d->n_tokens, SETUN_LOGITS_LAST, &row, err));
    memcpy(out, row, (size_t)n * sizeof *out);
    return SETUN_OK;
}

/* That, malloc'ed, and the steps to it, if the backend shows them. */
static setun_status run_model(const char *path, const setun_diff_options *d, const setun_options *o, outputs *r, st_trace *t,
                              float **out, int64_t *n)
{
    setun_error *err = &r->why;
    setun_model *m = NULL;
    setun_session *s = NULL;
    setun_status st = setun_model_load(&m, path, o, err);
    if (st == SETUN_OK)
        st = setun_session_new(&s, m, err);
    if (st == SETUN_OK && r->traced == SETUN_OK)
        r->traced = st_trace_start(s, t, &r->not_traced);
    if (st == SETUN_OK) {
        r->what = setun_model_has_logits(m) ? "logits" : "embedding";
        *n = setun_model_has_logits(m) ? setun_model_n_vocab(m) : setun_model_n_embedding(m);
        *out = malloc((size_t)*n * sizeof **out);
        st = *out ? run_tokens(s, m, d, *out, *n, err) : st_fail(err, SETUN_NO_MEMORY, "no memory for the results of %s", path);
    }
    setun_session_free(s);
    setun_model_free(m);
    return st;
}

static int32_t largest(const float *x, int64_t n)
{
    int32_t at = 0;
    for (int32_t i = 1; i < n; i++)
        at = x[i] > x[at] ? i : at;
    return at;
}

/* What was said of GGUF files holds for those that do not say it themselves. */
static setun_options options_for(const setun_diff_options *o, const char *path)
{
    setun_options run = *o->run;
    st_arena *arena = st_arena_new();
    st_gguf g = { 0 };
    st_gguf_model m = { 0 };
    st_weights_choice choice;
    int has_i2s = 0, says = !st_gguf_is(path);
    if (!says && arena && st_weights_choose(&choice, run.i2s_layout, NULL, NULL) == SETUN_OK) {
        if (st_gguf_open(&g, path, ST_I2S_ASK, arena, NULL) == SETUN_OK)
            for (int64_t i = 0; i < g.n_tensors; i++)
                has_i2s |= g.tensor[i].type->group == ST_GGUF_PER_TENSOR;
        choice.i2s = has_i2s ? choice.i2s : ST_I2S_ASK;
        says = st_gguf_model_open(&m, path, &choice, arena, NULL) == SETUN_OK;
    }
    run.i2s_layout = has_i2s ? run.i2s_layout : NULL;
    run.activations = says ? NULL : run.activations;
    st_gguf_model_close(&m);
    st_gguf_close(&g);
    st_arena_free(arena);
    return run;
}

static void compare_outputs(const setun_diff_options *o, outputs *r)
{
    float *a = NULL, *b = NULL;
    int64_t n_a = 0, n_b = 0;
    const setun_options run_a = options_for(o, o->a), run_b = options_for(o, o->b);
    r->status = run_model(o->a, o, &run_a, r, &r->trace_a, &a, &n_a);
    const char *what = r->what;
    if (r->status == SETUN_OK)
        r->status = run_model(o->b, o, &run_b, r, &r->trace_b, &b, &n_b);
    if (r->status == SETUN_OK && (n_a != n_b || strcmp(what, r->what) != 0))
        r->status = st_fail(&r->why, SETUN_BAD_SHAPE, "%s of %" PRId64 " and %s of %" PRId64 " numbers", what, n_a, r->what, n_b);
    r->n = r->status == SETUN_OK ? n_a : 0;
    for (int64_t i = 0; i < r->n; i++) {
        double by = fabs((double)a[i] - (double)b[i]);
        r->differ += memcmp(&a[i], &b[i], sizeof *a) != 0;
        r->by = by > r->by ? by : r->by;
    }
    if (r->n) {
        r->top_a = largest(a, n_a);
        r->top_b = largest(b, n_b);
        if (r->traced == SETUN_OK)
            st_trace_compare(&r->trace_a, &r->trace_b, &r->steps);
    }
    free(a);
    free(b);
}

/* ---------------------------------------------------------------- text */

static void add_row(st_str *s, const st_difference *d)
{
    if (!d->type_a || !d->type_b)
        st_str_addf(s, "%s: only in the %s\n", d->name, d->type_a ? "first" : "second");
    else if (d->shape_differs)
        st_str_addf(s, "%s: another shape\n", d->name);
    if (d->codes)
        st_str_addf(s, "%s (%s, %s): %" PRId64 " of %" PRId64 " weights differ, first row %" PRId64 ", column %" PRId64 ": %d, %d\n", d->name,
                    d->type_a, d->type_b, d->codes, d->weights, d->row, d->col, d->code_a - 1, d->code_b - 1);
    if (d->scales)
        st_str_addf(s, "%s (%s, %s): scales differ by at most %.3g of their size\n", d->name, d->type_a, d->type_b, d->scale_rel);
    if (d->values)
        st_str_addf(s, "%s (%s, %s): %" PRId64 " of %" PRId64 " values differ, by at most %.3g (%.3g of their size)\n", d->name, d->type_a,
                    d->type_b, d->values, d->weights, d->value_abs, d->value_rel);
    if (d->use_differs)
        st_str_addf(s, "%s: int8 activations in one model, floats in the other\n", d->name);
}

static int row_differs(const st_difference *d)
{
    return !d->type_a || !d->type_b || d->shape_differs || d->codes || d->scales || d->values || d->use_differs;
}

static const st_trace_step *step_at(const st_trace *t, int64_t i) { return &t->step[i < t->n ? i : t->n - 1]; }

static void add_steps(st_str *s, const outputs *r)
{
    const st_trace_difference *d = &r->steps;
    if (r->traced != SETUN_OK) {
        st_str_addf(s, "activations: not compared: %s\n", r->not_traced.text);
        return;
    }
    if (d->first < 0) {
        st_str_addf(s, "activations: those of all %" PRId64 " steps equal, bit for bit\n", r->trace_a.n);
        return;
    }
    const st_trace_step *a = step_at(&r->trace_a, d->first), *b = step_at(&r->trace_b, d->first);
    const char *in = a->scope[0] ? " in " : "";
    if (d->apart)
        st_str_addf(s, "activations: equal until the models have other steps: %s%s%s, %s%s%s", a->op, in, a->scope, b->op,
                    b->scope[0] ? " in " : "", b->scope);
    else
        st_str_addf(s, "activations: the first that differ are made by %s%s%s, step %" PRId64 " of %" PRId64, a->op, in, a->scope,
                    d->first + 1, r->trace_a.n);
    if (d->layer >= 0)
        st_str_addf(s, "; what leaves layer %" PRId64 " %s", d->layer, d->layer_differs ? "differs" : "is equal");
    st_str_add(s, "\n");
}

static void add_json_steps(st_str *s, const outputs *r)
{
    const st_trace_difference *d = &r->steps;
    st_str_add(s, ",\n \"activations\": {\"compared\": ");
    if (r->status != SETUN_OK || r->traced != SETUN_OK) {
        st_str_add(s, "false}");
        return;
    }
    st_str_addf(s, "true, \"steps\": %" PRId64, r->trace_a.n);
    if (d->first >= 0) {
        const st_trace_step *a = step_at(&r->trace_a, d->first);
        st_str_addf(s, ", \"first\": %" PRId64 ", \"op\": ", d->first + 1);
        st_str_add_json(s, a->op, strlen(a->op));
        st_str_add(s, ", \"scope\": ");
        st_str_add_json(s, a->scope, strlen(a->scope));
        st_str_addf(s, ", \"other_steps\": %s", d->apart ? "true" : "false");
    }
    if (d->layer >= 0)
        st_str_addf(s, ", \"layer\": %" PRId64 ", \"layer_differs\": %s", d->layer, d->layer_differs ? "true" : "false");
    st_str_add(s, "}");
}

static void add_text(st_str *s, const st_comparison *c, const setun_error *tokens, const outputs *r)
{
    for (int64_t i = 0; i < c->n_keys; i++)
        st_str_addf(s, "config.json, first and second: %s\n", c->key[i]);
    for (int64_t i = 0; i < c->n_notes; i++)
        st_str_addf(s, "config.json, first and second, not counted: %s\n", c->note[i]);
    for (int64_t i = 0; i < c->n; i++)
        add_row(s, &c->row[i]);
    st_str_addf(s, "%" PRId64 " ternary matrices of %" PRId64 " weights: %" PRId64 " weights differ; scales differ in %" PRId64 "\n",
                c->matrices, c->weights, c->codes, c->scale_matrices);
    if (tokens->code != SETUN_OK)
        st_str_addf(s, "tokenizer: %s\n", tokens->text);
    st_str_addf(s, "%" PRId64 " float tensors: %" PRId64 " values differ in %" PRId64 "\n", c->floats, c->values, c->value_tensors);
    if (r && r->status == SETUN_OK)
        add_steps(s, r);
    if (r && r->status != SETUN_OK)
        st_str_addf(s, "%s: not compared: %s\n", r->what, r->why.text);
    else if (r && r->differ)
        st_str_addf(s, "%s: %" PRId64 " of %" PRId64 " differ, by at most %.3g; largest %d, %d\n", r->what, r->differ, r->n, r->by, r->top_a,
                    r->top_b);
    else if (r)
        st_str_addf(s, "%s: all %" PRId64 " equal, bit for bit; largest %d\n", r->what, r->n, r->top_a);
}

static void add_json_row(st_str *s, const st_difference *d)
{
    st_str_add(s, "{\"name\": ");
    st_str_add_json(s, d->name, strlen(d->name));
    st_str_addf(s, ", \"types\": [\"%s\", \"%s\"], \"shapes_differ\": %s, \"weights\": %" PRId64 ", \"codes\": %" PRId64
                ", \"scale_groups\": %" PRId64 ", \"values\": %" PRId64 ", \"activations_differ\": %s", d->type_a ? d->type_a : "",
                d->type_b ? d->type_b : "", d->shape_differs ? "true" : "false", d->weights, d->codes, d->scales, d->values,
                d->use_differs ? "true" : "false");
    st_str_add_json_number(s, "scale_relative", d->scale_rel);
    st_str_add_json_number(s, "value_largest", d->value_abs);
    st_str_add_json_number(s, "value_relative", d->value_rel);
    st_str_add(s, "}");
}

static void add_json(st_str *s, const st_comparison *c, const setun_error *tokens, const outputs *r, int equal)
{
    int64_t n = 0;
    st_str_addf(s, "{\"equal\": %s, \"matrices\": %" PRId64 ", \"weights\": %" PRId64 ", \"codes\": %" PRId64 ", \"scales\": %" PRId64
                ", \"floats\": %" PRId64 ", \"values\": %" PRId64 ",\n \"config\": [", equal ? "true" : "false", c->matrices, c->weights,
                c->codes, c->scale_matrices, c->floats, c->values);
    for (int64_t i = 0; i < c->n_keys; i++) {
        st_str_add(s, i ? ", " : "");
        st_str_add_json(s, c->key[i], strlen(c->key[i]));
    }
    st_str_add(s, "],\n \"config_notes\": [");
    for (int64_t i = 0; i < c->n_notes; i++) {
        st_str_add(s, i ? ", " : "");
        st_str_add_json(s, c->note[i], strlen(c->note[i]));
    }
    st_str_add(s, "],\n \"tokenizer\": ");
    if (tokens->code == SETUN_OK)
        st_str_add(s, "\"equal\"");
    else
        st_str_add_json(s, tokens->text, strlen(tokens->text));
    st_str_add(s, ",\n \"tensors\": [");
    for (int64_t i = 0; i < c->n; i++)
        if (row_differs(&c->row[i])) {
            st_str_add(s, n++ ? ",\n  " : "\n  ");
            add_json_row(s, &c->row[i]);
        }
    st_str_add(s, "]");
    if (r && r->status != SETUN_OK) {
        st_str_addf(s, ",\n \"%s\": {\"compared\": false, \"why\": ", r->what);
        st_str_add_json(s, r->why.text, strlen(r->why.text));
        st_str_add(s, "}");
    } else if (r) {
        st_str_addf(s, ",\n \"%s\": {\"compared\": true, \"n\": %" PRId64 ", \"differ\": %" PRId64, r->what, r->n, r->differ);
        st_str_add_json_number(s, "largest_difference", r->by);
        st_str_addf(s, ", \"top\": [%d, %d]}", r->top_a, r->top_b);
    }
    if (r)
        add_json_steps(s, r);
    st_str_add(s, "}\n");
}

/* ---------------------------------------------------------------- diff */

static setun_status open_side(st_source *s, const setun_diff_options *o, const char *path, setun_error *err)
{
    st_weights_choice choice;
    int floats;
    ST_TRY(choose_floats(o->ternary, &floats, err));
    const setun_options run = options_for(o, path);
    ST_TRY(st_weights_choose(&choice, run.i2s_layout, run.activations, err));
    return st_source_open(s, path, &choice, floats, err);
}

static setun_status compare(const setun_diff_options *o, st_source *a, st_source *b, int32_t *differs, st_str *text, setun_error *err)
{
    st_comparison c;
    st_watch watch = { .progress = o->progress, .user = o->user };
    outputs r = { .what = "logits", .status = SETUN_OK };
    setun_error tokens = { .code = SETUN_OK };
    ST_TRY(open_side(a, o, o->a, err));
    ST_TRY(open_side(b, o, o->b, err));
    for (int64_t i = 0; i < b->n_tensors; i++)
        watch.total += b->tensor[i].bytes;
    ST_TRY(st_compare(a, b, &c, &watch, err));
    setun_status st = st_compare_tokens(a, b, &c, &tokens);
    if (st == SETUN_NO_MEMORY || st == SETUN_CANCELLED)
        return st_fail(err, st, "%s", tokens.text);
    r.trace_a.arena = r.trace_b.arena = a->arena;
    if (o->n_tokens)
        compare_outputs(o, &r);
    *differs = !st_compare_equal(&c) || c.n_keys || st != SETUN_OK || r.differ || r.status != SETUN_OK;
    if (o->json)
        add_json(text, &c, &tokens, o->n_tokens ? &r : NULL, !*differs);
    else
        add_text(text, &c, &tokens, o->n_tokens ? &r : NULL);
    return SETUN_OK;
}

setun_status setun_diff(const setun_diff_options *o, int32_t *differs, setun_write_fn *out, void *user, setun_error *err)
{
    st_source a = { 0 }, b = { 0 };
    st_str text = { 0 };
    if (!o->a || !o->b || !o->run)
        return st_fail(err, SETUN_BAD_ARG, "two models and options to run them are needed");
    setun_status st = compare(o, &a, &b, differs, &text, err);
    if (st == SETUN_OK)
        st = hand_out(&text, out, user, err);
    st_str_free(&text);
    st_source_close(&a);
    st_source_close(&b);
    return st;
}
