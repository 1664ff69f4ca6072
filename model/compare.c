/* model/compare.c -- see compare.h.
 *
 * Row by row through model/source.c, so that what two formats call the same row is one.  Where one
 * side is ternary and the other has floats, weights are compared by their values, and their signs as
 * codes. */
#include "model/compare.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "model/pooling.h"

setun_status st_watch_add(st_watch *w, int64_t bytes, setun_error *err)
{
    if (!w)
        return SETUN_OK;
    w->done += bytes;
    if (w->progress && w->progress(w->user, w->done < w->total ? w->done : w->total, w->total))
        return st_fail(err, SETUN_CANCELLED, "cancelled");
    return SETUN_OK;
}

/* ---------------------------------------------------------------- rows */

#define RELEASE_BYTES (64 << 20) /* of both files, after which their pages may leave memory */

typedef struct row {
    float   *value, *scale;
    uint8_t *code;
} row;

static void drop(row *r)
{
    free(r->value);
    free(r->scale);
    free(r->code);
}

static setun_status room(row *r, const st_source_tensor *t, setun_error *err)
{
    int64_t bytes, scales;
    if (st_mul_i64(t->cols, sizeof *r->value, &bytes) || st_mul_i64(t->n_scales, sizeof *r->scale, &scales))
        return st_fail(err, SETUN_BAD_SHAPE, "%s: %s is too wide", t->file, t->stored);
    r->value = malloc((size_t)bytes + 1);
    r->scale = malloc((size_t)scales + 1);
    r->code = malloc((size_t)t->cols + 1);
    return r->value && r->scale && r->code ? SETUN_OK
                                           : st_fail(err, SETUN_NO_MEMORY, "no memory for a row of %s", t->stored);
}

static void differ(double a, double b, double *abs, double *rel)
{
    double by = fabs(a - b), part = a != 0 ? by / fabs(a) : INFINITY;
    if (isnan(by))
        by = part = INFINITY;
    *abs = by > *abs ? by : *abs;
    *rel = part > *rel ? part : *rel;
}

static void compare_codes(st_difference *d, int64_t r, int64_t n, const uint8_t *a, const uint8_t *b)
{
    for (int64_t c = 0; c < n; c++) {
        if (a[c] == b[c])
            continue;
        if (d->codes++ == 0) {
            d->row = r;
            d->col = c;
            d->code_a = a[c];
            d->code_b = b[c];
        }
    }
}

/* Groups of both sides end together where the larger ones do. */
static void compare_scales(st_difference *d, const st_source_tensor *ta, const st_source_tensor *tb, const row *a, const row *b)
{
    int64_t next;
    for (int64_t c = 0; c < ta->cols; c = next) {
        int64_t end_a = (c / ta->per_scale + 1) * ta->per_scale, end_b = (c / tb->per_scale + 1) * tb->per_scale;
        next = end_a < end_b ? end_a : end_b;
        next = next < ta->cols ? next : ta->cols;
        float sa = a->scale[c / ta->per_scale], sb = b->scale[c / tb->per_scale];
        int weighs = 0;
        for (int64_t i = c; i < next && !weighs; i++)
            weighs = a->code[i] != 1;
        if (!weighs)
            d->idle++;
        else if (sa != sb) {
            double abs = 0;
            d->scales++;
            differ((double)sa, (double)sb, &abs, &d->scale_rel);
        }
    }
}

static void compare_values(st_difference *d, int64_t n, const float *a, const float *b)
{
    for (int64_t i = 0; i < n; i++) {
        if (a[i] == b[i] || (isnan(a[i]) && isnan(b[i])))
            continue;
        d->values++;
        differ((double)a[i], (double)b[i], &d->value_abs, &d->value_rel);
    }
}

/* Codes become values, or, where only the other side has codes, floats get their signs as codes. */
static void expand(const st_source_tensor *t, row *r)
{
    for (int64_t c = 0; c < t->cols; c++)
        if (t->ternary)
            r->value[c] = (float)(r->code[c] - 1) * r->scale[c / t->per_scale];
        else
            r->code[c] = (uint8_t)(1 + (r->value[c] > 0) - (r->value[c] < 0));
}

static setun_status compare_rows(st_source *a, st_source_tensor *ta, st_source *b, st_source_tensor *tb, row *ra, row *rb,
                                 st_difference *d, st_watch *w, setun_error *err)
{
    /* Two embeddings would otherwise be in memory at once, which is most of a model. */
    int64_t row_bytes = (ta->bytes + tb->bytes) / ta->rows, some = 1 + RELEASE_BYTES / (row_bytes + 1);
    for (int64_t r = 0; r < ta->rows; r++) {
        if (r % some == some - 1) {
            st_source_end(a, ta);
            st_source_end(b, tb);
        }
        ST_TRY(st_source_row(a, ta, r, ra->value, ra->code, ra->scale, err));
        ST_TRY(st_source_row(b, tb, r, rb->value, rb->code, rb->scale, err));
        if (ta->ternary != tb->ternary) {
            expand(ta, ra);
            expand(tb, rb);
        }
        if (ta->ternary || tb->ternary)
            compare_codes(d, r, ta->cols, ra->code, rb->code);
        if (ta->ternary && tb->ternary)
            compare_scales(d, ta, tb, ra, rb);
        else
            compare_values(d, ta->cols, ra->value, rb->value);
        ST_TRY(st_watch_add(w, tb->bytes / tb->rows, err));
    }
    return SETUN_OK;
}

static setun_status compare_tensors(st_source *a, st_source_tensor *ta, st_source *b, st_source_tensor *tb, st_difference *d,
                                    st_watch *w, setun_error *err)
{
    row ra = { 0 }, rb = { 0 };
    *d = (st_difference){ .name = ta->name, .type_a = ta->type, .type_b = tb->type, .ternary_a = ta->ternary, .ternary_b = tb->ternary,
                          .weights = ta->rows * ta->cols };
    d->shape_differs = ta->rank != tb->rank || memcmp(ta->dim, tb->dim, sizeof ta->dim) != 0;
    d->use_differs = ta->linear && (ta->ternary && !ta->weight_only) != (tb->ternary && !tb->weight_only);
    if (d->shape_differs)
        return SETUN_OK;
    ST_TRY(st_source_begin(a, ta, err)); /* which tells how many scales there are */
    ST_TRY(st_source_begin(b, tb, err));
    setun_status st = room(&ra, ta, err);
    if (st == SETUN_OK)
        st = room(&rb, tb, err);
    if (st == SETUN_OK)
        st = compare_rows(a, ta, b, tb, &ra, &rb, d, w, err);
    drop(&ra);
    drop(&rb);
    st_source_end(a, ta);
    st_source_end(b, tb);
    return st;
}

static void add(st_comparison *c, const st_difference *d)
{
    int ternary = d->ternary_a || d->ternary_b, scales = d->ternary_a && d->ternary_b;
    c->missing += !d->type_a || !d->type_b;
    c->shapes += d->shape_differs;
    c->uses += d->use_differs;
    if (!d->type_a || !d->type_b || d->shape_differs)
        return;
    c->matrices += ternary;
    c->weights += ternary ? d->weights : 0;
    c->codes += d->codes;
    c->code_matrices += d->codes > 0;
    c->scaled += scales;
    c->scale_matrices += d->scales > 0;
    c->scale_rel = fmax(c->scale_rel, d->scale_rel);
    c->floats += !scales;
    c->values += d->values;
    c->value_tensors += d->values > 0;
    c->value_abs = fmax(c->value_abs, d->value_abs);
    c->value_rel = fmax(c->value_rel, d->value_rel);
}

/* ---------------------------------------------------------------- the configuration */

static const char *say_value(st_arena *arena, const st_hparam *h)
{
    if (!h || h->kind == ST_HP_NULL)
        return h ? "null" : "absent";
    if (h->kind == ST_HP_BOOL)
        return h->i ? "true" : "false";
    if (h->kind == ST_HP_INT)
        return st_arena_printf(arena, "%" PRId64, h->i);
    return h->kind == ST_HP_FLOAT ? st_arena_printf(arena, "%.9g", h->f) : st_arena_printf(arena, "\"%.80s\"", h->s);
}

static int same_value(const st_hparam *a, const st_hparam *b)
{
    int numbers = (a->kind == ST_HP_INT || a->kind == ST_HP_FLOAT) && (b->kind == ST_HP_INT || b->kind == ST_HP_FLOAT);
    if (numbers)
        return a->f == b->f;
    if (a->kind != b->kind)
        return 0;
    return a->kind == ST_HP_STRING ? strcmp(a->s, b->s) == 0 : a->kind == ST_HP_NULL || a->i == b->i;
}

/* Keys that say how weights are stored; tensors tell, and they are compared. */
static int is_storage(const char *key)
{
    return strncmp(key, "quantization_config", 19) == 0 || strcmp(key, "weight_bits") == 0 || strcmp(key, "input_bits") == 0 ||
           strcmp(key, "is_bitnet_config") == 0;
}

/* One value, several keys: newer configurations call some of them otherwise. */
static const st_hparam *find_key(const st_source *s, const char *key)
{
    static const char *const same[][2] = {
        { "rope_theta", "rope_parameters.rope_theta" }, { "rope_scaling.rope_type", "rope_scaling.type" },
        { "rope_scaling.rope_type", "rope_parameters.rope_type" }, { "rope_scaling.type", "rope_parameters.rope_type" },
        { "rope_scaling.factor", "rope_parameters.factor" },
        { "rope_scaling.low_freq_factor", "rope_parameters.low_freq_factor" },
        { "rope_scaling.high_freq_factor", "rope_parameters.high_freq_factor" },
        { "rope_scaling.original_max_position_embeddings", "rope_parameters.original_max_position_embeddings" },
        { "hidden_act", "hidden_activation" },
    };
    const st_hparam *h = st_source_config(s, key);
    for (size_t i = 0; i < sizeof same / sizeof *same && !h; i++)
        for (int k = 0; k < 2 && !h; k++)
            h = strcmp(same[i][k], key) == 0 ? st_source_config(s, same[i][1 - k]) : NULL;
    return h;
}

/* Keys whose value is a record, a default for sampling, or something that tensors and tokenizers, which
 * are compared, say better. */
static int is_record(const char *key)
{
    static const char *const records[] = { "model_type", "pad_token_id", "bos_token_id", "max_window_layers", "vocab_size" };
    for (size_t i = 0; i < sizeof records / sizeof *records; i++)
        if (strcmp(records[i], key) == 0)
            return 1;
    return strncmp(key, "generation.", 11) == 0;
}

static int64_t count_of(const st_source *s, const char *key)
{
    const st_hparam *h = st_source_config(s, key);
    return h && h->kind == ST_HP_INT && h->i > 0 ? h->i : 1;
}

/* Of a directory modules.json says how vectors are made, of a GGUF file a key. */
static int is_pooling(const st_source *s, const char *name)
{
    st_pooling p;
    return s->weights && name && st_pooling_read(&p, s->path, s->arena, NULL) == SETUN_OK && strcmp(st_pooling_name(p.kind), name) == 0;
}

/* Does the absence of a key in s mean the value that another model gives it? */
static int is_default(const st_source *s, const st_hparam *h)
{
    static const char *const off[] = { "attention_bias", "mlp_bias", "use_sliding_window", "use_mrope", "use_bidirectional_attention" };
    for (size_t i = 0; i < sizeof off / sizeof *off; i++)
        if (strcmp(off[i], h->key) == 0)
            return h->kind == ST_HP_BOOL && !h->i;
    if (strcmp(h->key, "head_dim") == 0)
        return h->i == count_of(s, "hidden_size") / count_of(s, "num_attention_heads");
    if (strcmp(h->key, "num_key_value_heads") == 0)
        return h->i == count_of(s, "num_attention_heads");
    if (strcmp(h->key, "partial_rotary_factor") == 0)
        return h->f == 1;
    if (strcmp(h->key, "rope_parameters.rope_type") == 0)
        return h->kind == ST_HP_STRING && strcmp(h->s, "default") == 0;
    if (strcmp(h->key, "sliding_window") == 0) {
        const st_hparam *used = st_source_config(s, "use_sliding_window"); /* of the model that has the key */
        return used && used->kind == ST_HP_BOOL && !used->i;
    }
    if (strcmp(h->key, "gguf.pooling") == 0)
        return is_pooling(s, h->s);
    return strcmp(h->key, "tie_word_embeddings") == 0; /* there is a head, or there is none */
}

static setun_status add_key(const st_source *a, st_comparison *c, int harmless, const char *key, const st_hparam *va,
                            const st_hparam *vb, setun_error *err)
{
    const char *text_a = say_value(a->arena, va), *text_b = say_value(a->arena, vb);
    const char *text = text_a && text_b ? st_arena_printf(a->arena, "%s: %s, %s", key, text_a, text_b) : NULL;
    if (!text)
        return st_fail(err, SETUN_NO_MEMORY, "no memory to compare configurations");
    if (harmless)
        c->note[c->n_notes++] = text;
    else
        c->key[c->n_keys++] = text;
    return SETUN_OK;
}

static int is_end(const char *key)
{
    return strncmp(key, "eos_token_id", 12) == 0 || strncmp(key, "generation.eos_token_id", 23) == 0;
}

int st_compare_ends(const st_source *s, int64_t id)
{
    for (int64_t i = 0; i < s->n_config; i++)
        if (is_end(s->config[i].key) && s->config[i].kind == ST_HP_INT && s->config[i].i == id)
            return 1;
    return 0;
}

/* Which layers have a window is said by a list, by a number, by both or, where none has one, by neither. */
static int is_window(const char *key)
{
    return strncmp(key, "layer_types.", 12) == 0 || strcmp(key, "sliding_window_pattern") == 0 || strcmp(key, "_sliding_window_pattern") == 0;
}

/* What the layer, counted from 1, sees: the words of layer_types, whichever keys say it. */
static const char *sight_of(const st_source *s, int64_t layer)
{
    static const char full[] = "full_attention", slides[] = "sliding_attention";
    char key[64];
    (void)snprintf(key, sizeof key, "layer_types.%" PRId64, layer);
    const st_hparam *type = st_source_config(s, key), *every = st_source_config(s, "sliding_window_pattern");
    every = every ? every : st_source_config(s, "_sliding_window_pattern");
    const char *by_type = type && type->kind == ST_HP_STRING ? type->s : NULL;
    const char *by_pattern = !every ? NULL : every->kind == ST_HP_INT && every->i > 0 && layer % every->i == 0 ? full : slides;
    if (by_type && by_pattern && strcmp(by_type, by_pattern) != 0)
        return "keys that do not agree";
    return by_type ? by_type : by_pattern ? by_pattern : full;
}

/* The first layer that sees something else; a layer has tensors, whatever a configuration says of their number. */
static setun_status compare_windows(const st_source *a, const st_source *b, st_comparison *c, setun_error *err)
{
    for (int64_t layer = 1; layer <= count_of(a, "num_hidden_layers") && layer <= a->n_tensors; layer++) {
        const st_hparam in_a = { .kind = ST_HP_STRING, .s = sight_of(a, layer) }, in_b = { .kind = ST_HP_STRING, .s = sight_of(b, layer) };
        if (strcmp(in_a.s, in_b.s) == 0)
            continue;
        const char *key = st_arena_printf(a->arena, "layer_types.%" PRId64, layer);
        return key ? add_key(a, c, 0, key, &in_a, &in_b, err) : st_fail(err, SETUN_NO_MEMORY, "no memory to compare configurations");
    }
    return SETUN_OK;
}

/* Keys of x that y does not have and, if x is the first model, that it has with another value. */
static setun_status compare_side(const st_source *x, const st_source *y, int second, const st_source *arena_of, st_comparison *c,
                                 setun_error *err)
{
    for (int64_t i = 0; i < x->n_config; i++) {
        const st_hparam *h = &x->config[i], *other = find_key(y, h->key);
        /* What ends a text, the tokenizer knows, too: st_compare_tokens. */
        int skip = h->kind == ST_HP_NULL || is_storage(h->key) || is_end(h->key) || is_window(h->key) || strncmp(h->key, "gguf.", 5) == 0;
        if (skip || (other && (second || same_value(h, other))))
            continue;
        int harmless = is_record(h->key) || (!other && (is_default(y, h) || is_default(x, h)));
        ST_TRY(add_key(arena_of, c, harmless, h->key, second ? NULL : h, second ? h : other, err));
    }
    return SETUN_OK;
}

static setun_status compare_keys(const st_source *a, const st_source *b, st_comparison *c, setun_error *err)
{
    int64_t most = a->n_config + b->n_config + 2; /* and the architecture, and a layer */
    /* Ends of texts, which come later, are keys or few. */
    c->key = st_arena_array(a->arena, most, sizeof *c->key);
    c->note = st_arena_array(a->arena, most + ST_COMPARE_ENDS, sizeof *c->note);
    if (!c->key || !c->note)
        return st_fail(err, SETUN_NO_MEMORY, "no memory to compare configurations");
    if (strcmp(a->architecture, b->architecture) != 0) {
        const st_hparam va = { .kind = ST_HP_STRING, .s = a->architecture }, vb = { .kind = ST_HP_STRING, .s = b->architecture };
        ST_TRY(add_key(a, c, 0, "architectures.1", &va, &vb, err));
    }
    ST_TRY(compare_windows(a, b, c, err));
    ST_TRY(compare_side(a, b, 0, a, c, err));
    return compare_side(b, a, 1, a, c, err);
}

/* ---------------------------------------------------------------- both */

setun_status st_compare(st_source *a, st_source *b, st_comparison *c, st_watch *w, setun_error *err)
{
    memset(c, 0, sizeof *c);
    c->row = st_arena_array(a->arena, a->n_tensors + b->n_tensors + 1, sizeof *c->row);
    if (!c->row)
        return st_fail(err, SETUN_NO_MEMORY, "no memory to compare %s", a->path);
    ST_TRY(compare_keys(a, b, c, err));
    for (int64_t i = 0; i < a->n_tensors; i++) {
        st_source_tensor *ta = &a->tensor[i], *tb = st_source_find(b, ta->name);
        st_difference *d = &c->row[c->n++];
        if (tb)
            ST_TRY(compare_tensors(a, ta, b, tb, d, w, err));
        else
            *d = (st_difference){ .name = ta->name, .type_a = ta->type };
        add(c, d);
    }
    for (int64_t i = 0; i < b->n_tensors; i++)
        if (!st_source_find(a, b->tensor[i].name)) {
            c->row[c->n] = (st_difference){ .name = b->tensor[i].name, .type_b = b->tensor[i].type };
            add(c, &c->row[c->n++]);
        }
    return SETUN_OK;
}

int st_compare_equal(const st_comparison *c)
{
    return !c->missing && !c->shapes && !c->uses && !c->codes && !c->scale_matrices && !c->values;
}
