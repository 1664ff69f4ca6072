/* model/weights.c -- what the tensors of a checkpoint mean.
 *
 * Joins the container (safetensors.c), the configuration (config.c) and the store of transcoded
 * matrices (pack.c); or, for a GGUF file, what gguf_model.c makes of it, which says everything about
 * its tensors itself.  For a directory it is decided here, per linear, how it is ternary:
 *
 *   in the file                          quantization_config             codes from       scale to multiply with
 *   U8 X.weight and X.weight_scale       linear_class autobitlinear      planes           weight_scale
 *   U8 X.weight and X.weight_scale       linear_class bitlinear or none  planes           1 / weight_scale
 *   float X.weight, no X.weight_scale    mode online, or weight_bits 1   absmean on load  mean |W|
 *   float X.weight and X.norm.weight     none                            absmean on load  mean |W|
 *   float X.weight                       none, all values ternary        values           as found (unpacked.c)
 *   float X.weight                       none, or module not converted   declined: an ordinary matrix
 *
 * The fourth row is BitNet's text embedding models, whose configuration does not mention the ternary
 * layers: a norm inside a linear is what tells them from their float originals.
 *
 * Anything else is refused.  The rule is never guessed from magnitudes: scales are near 1 both ways
 * round, and the wrong rule gives plausible text. */
#include "model/weights.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/hash.h"
#include "base/str.h"
#include "model/config.h"
#include "model/convert.h"
#include "model/gguf_pack.h"
#include "model/head.h"
#include "model/safetensors.h"
#include "model/unpacked.h"

enum { RULE_NONE, RULE_MULTIPLY, RULE_DIVIDE, RULE_ABSMEAN, RULE_STORED };

struct st_weights {
    const st_weights *of;     /* whose files and pack these are; NULL: its own */
    st_arena        *arena;
    st_log           log;
    const char      *path, *identity;
    uint64_t         paths_hash;
    st_config        config;
    st_safetensors   files;    /* of a directory; or: */
    st_gguf_model    gguf;
    int              is_gguf;
    const st_tensor *tensor;   /* of either */
    int64_t          n_tensors;
    const st_table  *by_name;
    st_pack         *pack;
    uint8_t         *used;     /* per tensor */
    setun_view      *made;     /* per tensor: a converted or aligned copy, data NULL until made */
    setun_view      *scale;    /* per tensor X.weight: its scale */
    int              reader;   /* of the file with the head, -1: none; and where the head begins there */
    int64_t          reader_at;
    int              rule, online, seen; /* seen: bits of the rules that were applied */
    int              forms;              /* bits of the unpacked forms that were found */
    st_weights_stats stats;
};

static const char *const rule_names[] = { "none", "multiply (autobitlinear)", "divide (bitlinear)",
                                          "absmean on load", "multiply (GGUF)" };
static const char *const form_names[ST_UNPACKED_N_FORM] = {
    "exact in the file's floats: one for each row, weights only", "exact in the file's floats: one for 256 weights, weights only",
    "exact in the file's floats: one for 128 weights, weights only", "exact in the file's floats: one for 64 weights, weights only"
};

/* ---------------------------------------------------------------- quantization_config */

static setun_status read_rule(st_weights *w, setun_error *err)
{
    const st_config *c = &w->config;
    const char *method, *linear, *mode;
    ST_TRY(st_config_string(c, "quantization_config.quant_method", NULL, &method, err));
    ST_TRY(st_config_string(c, "quantization_config.linear_class", "bitlinear", &linear, err));
    ST_TRY(st_config_string(c, "quantization_config.quantization_mode", "offline", &mode, err));
    const st_hparam *norm = st_config_find(c, "quantization_config.use_rms_norm");
    const st_hparam *bits = st_config_find(c, "weight_bits"),
                    *input = st_config_find(c, "input_bits");
    if (bits && (bits->kind != ST_HP_INT || (bits->i != 1 && bits->i != 16)))
        return st_fail(err, SETUN_UNKNOWN, "%s: weight_bits is neither 1 nor 16", c->path);
    if (input && (input->kind != ST_HP_INT || (input->i != 8 && bits && bits->i == 1)))
        return st_fail(err, SETUN_UNKNOWN, "%s: input_bits is not 8", c->path);
    if (!method) {
        for (int64_t i = 0; i < c->n; i++)
            if (strncmp(c->item[i].key, "quantization_config.", 20) == 0)
                return st_fail(err, SETUN_UNKNOWN, "%s: quantization_config has no quant_method",
                               c->path);
        w->online = bits && bits->i == 1;
        w->rule = w->online ? RULE_ABSMEAN : RULE_NONE;
        return SETUN_OK;
    }
    if (strcmp(method, "bitnet") != 0)
        return st_fail(err, SETUN_UNKNOWN, "%s: quantization_config.quant_method is %s, Setun knows bitnet", c->path, method);
    if (norm && (norm->kind != ST_HP_BOOL || norm->i))
        return st_fail(err, SETUN_UNKNOWN, "%s: quantization_config.use_rms_norm is on: norms inside linears are not supported",
                       c->path);
    if (strcmp(linear, "autobitlinear") == 0)
        w->rule = RULE_MULTIPLY;
    else if (strcmp(linear, "bitlinear") == 0)
        w->rule = RULE_DIVIDE;
    else
        return st_fail(err, SETUN_UNKNOWN, "%s: quantization_config.linear_class is %s, Setun knows bitlinear and autobitlinear",
                       c->path, linear);
    w->online = strcmp(mode, "online") == 0;
    if (!w->online && strcmp(mode, "offline") != 0)
        return st_fail(err, SETUN_UNKNOWN, "%s: quantization_config.quantization_mode is %s, Setun knows offline and online",
                       c->path, mode);
    return SETUN_OK;
}

/* Is name one of modules_to_not_convert?  A listed name means itself and all below it, by whole
 * dotted parts.  Some versions of the reference compare plain substrings; where that would differ
 * the answer is -1, and the caller refuses.  The output head and the embedding, which are no linears, are
 * never converted, listed or not. */
static int is_unconverted(const st_weights *w, const char *name)
{
    static const char list[] = "quantization_config.modules_to_not_convert";
    const char *last = strrchr(name, '.');
    int answer = strcmp(last ? last + 1 : name, "lm_head") == 0 || strcmp(last ? last + 1 : name, "embed_tokens") == 0;
    for (int64_t i = 0; i < w->config.n && answer != 1; i++) {
        const st_hparam *h = &w->config.item[i];
        if (strncmp(h->key, list, sizeof list - 1) != 0 || h->kind != ST_HP_STRING || !h->s[0])
            continue;
        size_t n = strlen(h->s);
        int part = 0, somewhere = 0;
        for (const char *at = strstr(name, h->s); at; at = strstr(at + 1, h->s)) {
            somewhere = 1;
            part |= (at == name || at[-1] == '.') && (at[n] == '\0' || at[n] == '.');
        }
        if (part)
            return 1;
        if (somewhere)
            answer = -1;
    }
    return answer;
}

/* ---------------------------------------------------------------- opening */

/* A few bytes here and there: a file that was replaced by one of the same size within the clock's
 * grain, or with its time copied, still has another identity, at the cost of 32 pages read. */
static uint64_t sample(const st_map *m)
{
    uint64_t h = ST_HASH_INIT;
    int64_t n = m->bytes < 64 ? m->bytes : 64;
    for (int64_t i = 0; i < 32; i++)
        h = st_hash(h, m->data + (m->bytes - n) / 31 * i, (size_t)n);
    return h;
}

static void read_norms_inside(st_weights *w)
{
    static const char end[] = "_proj.norm.weight";
    for (int64_t i = 0; i < w->files.n_tensors && w->rule == RULE_NONE; i++) {
        const char *name = w->files.tensor[i].name;
        size_t n = strlen(name), tail = sizeof end - 1;
        if (n > tail && strcmp(name + n - tail, end) == 0) {
            w->rule = RULE_ABSMEAN;
            w->online = 1;
            st_logf(&w->log, ST_LOG_INFO, "%s: linear layers are ternary: %s is a norm inside one", w->path, name);
        }
    }
}

static void add_identity(st_weights *w, st_str *s, const char *file, const st_map *map, int64_t mtime_ns, uint64_t header)
{
    /* The same file by another way of writing its path has the same identity. */
    char *real = realpath(file, NULL);
    const char *path = real ? real : file;
    w->paths_hash = st_hash(w->paths_hash, path, strlen(path) + 1);
    st_str_addf(s, "%s %lld bytes, mtime %lld ns, header %016" PRIx64 ", samples %016" PRIx64 "\n", path,
                (long long)map->bytes, (long long)mtime_ns, header, sample(map));
    free(real);
}

static setun_status build_identity(st_weights *w, setun_error *err)
{
    st_str s = { 0 };
    st_str_addf(&s, "setun t2 2\nconfig %016" PRIx64 "\n", w->config.hash);
    w->paths_hash = ST_HASH_INIT;
    for (int64_t i = 0; i < w->files.n_shards; i++) {
        const st_shard *f = &w->files.shard[i];
        add_identity(w, &s, f->path, &f->map, f->mtime_ns, f->header_hash);
    }
    if (w->is_gguf) /* codes depend on it */
        st_str_addf(&s, "I2_S layout %d\n", w->gguf.g.i2s);
    for (int64_t i = 0; w->is_gguf && i < w->gguf.g.n_files; i++) {
        const st_gguf_file *f = &w->gguf.g.file[i];
        int64_t bytes = 0, mtime = 0, head = f->data_at < f->map.bytes ? f->data_at : f->map.bytes;
        setun_status st = st_file_stat(f->path, &bytes, &mtime, err);
        if (st != SETUN_OK) {
            st_str_free(&s);
            return st;
        }
        add_identity(w, &s, f->path, &f->map, mtime, st_checksum(f->map.data, (size_t)head));
    }
    w->identity = s.failed ? NULL : st_arena_strdup(w->arena, s.text);
    st_str_free(&s);
    return w->identity ? SETUN_OK : st_fail(err, SETUN_NO_MEMORY, "no memory to open %s", w->path);
}

static setun_status open_gguf(st_weights *w, const char *path, const st_weights_choice *choice, setun_error *err)
{
    w->is_gguf = 1;
    w->rule = RULE_STORED;
    ST_TRY(st_gguf_model_open(&w->gguf, path, choice, w->arena, err));
    w->config = w->gguf.config;
    w->tensor = w->gguf.tensor;
    w->n_tensors = w->gguf.n_tensors;
    w->by_name = w->gguf.by_name;
    for (int64_t i = 0; i < w->gguf.n_lines; i++)
        st_logf(&w->log, ST_LOG_INFO, "%s: %s", path, w->gguf.line[i]);
    return SETUN_OK;
}

static setun_status open_dir(st_weights *w, const char *path, const st_weights_choice *choice, setun_error *err)
{
    if (!st_is_dir(path))
        return st_fail(err, SETUN_BAD_ARG, "%s is not a model directory or a GGUF file", *path ? path : "an empty name");
    if (choice->i2s || choice->activations)
        return st_fail(err, SETUN_BAD_ARG, "%s: %s is for GGUF files; a directory's config.json says all of it", path,
                       choice->i2s ? "--i2s-layout" : "--activations");
    ST_TRY(st_config_open(&w->config, path, w->arena, err));
    ST_TRY(read_rule(w, err));
    ST_TRY(st_safetensors_open(&w->files, path, w->arena, err));
    read_norms_inside(w);
    w->tensor = w->files.tensor;
    w->n_tensors = w->files.n_tensors;
    w->by_name = w->files.by_name;
    return SETUN_OK;
}

/* What is remembered of each tensor, and is each script's own. */
static setun_status make_notes(st_weights *w, setun_error *err)
{
    int64_t n = w->n_tensors + 1;
    w->used = st_arena_array(w->arena, n, 1);
    w->made = st_arena_array(w->arena, n, sizeof *w->made);
    w->scale = st_arena_array(w->arena, n, sizeof *w->scale);
    return w->used && w->made && w->scale ? SETUN_OK : st_fail(err, SETUN_NO_MEMORY, "no memory to open %s", w->path);
}

static setun_status open_all(st_weights *w, const char *path, const st_weights_choice *choice, setun_error *err)
{
    static const st_weights_choice none;
    if (!(w->arena = st_arena_new()) || !(w->path = st_arena_strdup(w->arena, path)))
        return st_fail(err, SETUN_NO_MEMORY, "no memory to open %s", path);
    ST_TRY((st_gguf_is(path) ? open_gguf : open_dir)(w, path, choice ? choice : &none, err));
    ST_TRY(make_notes(w, err));
    return build_identity(w, err);
}

setun_status st_weights_choose(st_weights_choice *c, const char *i2s_layout, const char *activations, setun_error *err)
{
    c->i2s = i2s_layout ? st_i2s_find(i2s_layout) : ST_I2S_ASK;
    c->activations = !activations                       ? ST_ACTIVATIONS_ASK
                     : strcmp(activations, "int8") == 0 ? ST_ACTIVATIONS_INT8
                     : strcmp(activations, "float") == 0 ? ST_ACTIVATIONS_FLOAT : -1;
    if (c->i2s < 0)
        return st_fail(err, SETUN_BAD_ARG, "there is no layout of I2_S named '%s'; there are x86, arm and rows4", i2s_layout);
    if (c->activations < 0)
        return st_fail(err, SETUN_BAD_ARG, "activations cannot be '%s'; int8 and float are possible", activations);
    return SETUN_OK;
}

setun_status st_weights_open(st_weights **out, const char *path, const st_log *log, setun_error *err)
{
    return st_weights_open_as(out, path, NULL, log, err);
}

setun_status st_weights_open_as(st_weights **out, const char *path, const st_weights_choice *choice, const st_log *log,
                                setun_error *err)
{
    st_weights *w = calloc(1, sizeof *w);
    *out = NULL;
    if (!w)
        return st_fail(err, SETUN_NO_MEMORY, "no memory to open %s", path);
    w->reader = -1;
    if (log)
        w->log = *log;
    setun_status s = open_all(w, path, choice, err);
    if (s != SETUN_OK) {
        st_weights_close(w);
        return s;
    }
    *out = w;
    return SETUN_OK;
}

/* Copies that were made for the first are used again; they are in its arena. */
setun_status st_weights_again(st_weights **out, const st_weights *of, setun_error *err)
{
    st_weights *w = malloc(sizeof *w);
    *out = NULL;
    if (!w)
        return st_fail(err, SETUN_NO_MEMORY, "no memory to open %s", of->path);
    *w = *of;
    w->of = of;
    w->reader = -1; /* another script may have another head */
    w->seen = w->forms = 0;
    memset(&w->stats, 0, sizeof w->stats);
    w->arena = st_arena_new();
    setun_status s = w->arena ? make_notes(w, err) : st_fail(err, SETUN_NO_MEMORY, "no memory to open %s", of->path);
    if (s != SETUN_OK) {
        st_weights_close(w);
        return s;
    }
    memcpy(w->made, of->made, (size_t)w->n_tensors * sizeof *w->made);
    *out = w;
    return SETUN_OK;
}

void st_weights_close(st_weights *w)
{
    if (!w)
        return;
    st_reader_close(w->reader);
    if (w->of) {
        st_arena_free(w->arena);
        free(w);
        return;
    }
    st_pack_close(w->pack);
    st_safetensors_close(&w->files);
    st_gguf_model_close(&w->gguf);
    st_arena_free(w->arena);
    free(w);
}

int64_t st_weights_count(const st_weights *w) { return w->n_tensors; }

const st_tensor *st_weights_at(const st_weights *w, int64_t i) { return &w->tensor[i]; }

static int64_t find(const st_weights *w, const char *name)
{
    int64_t i;
    return st_table_get(w->by_name, name, strlen(name), &i) ? i : -1;
}

const st_tensor *st_weights_find(const st_weights *w, const char *name)
{
    int64_t i = find(w, name);
    return i < 0 ? NULL : &w->tensor[i];
}

const char *st_weights_path(const st_weights *w) { return w->path; }

const char *const *st_weights_lines(const st_weights *w, int64_t *n)
{
    *n = w->gguf.n_lines;
    return w->gguf.line;
}

const st_hparam *st_weights_config(const st_weights *w, int64_t *n)
{
    *n = w->config.n;
    return w->config.item;
}

const char *st_weights_architecture(const st_weights *w) { return w->config.architecture; }

const char *st_weights_identity(const st_weights *w) { return w->identity; }

uint64_t st_weights_paths(const st_weights *w) { return w->paths_hash; }

int st_weights_has(st_weights *w, const char *name) { return find(w, name) >= 0; }

int st_weights_repeats(st_weights *w, const char *name, const char *of)
{
    int64_t i = find(w, name), j = find(w, of);
    if (i < 0 || j < 0)
        return 0;
    const st_tensor *a = &w->tensor[i], *b = &w->tensor[j];
    int same = strcmp(a->dtype, b->dtype) == 0 && a->bytes == b->bytes && a->view.rank == b->view.rank &&
               memcmp(a->view.dim, b->view.dim, sizeof a->view.dim) == 0 &&
               memcmp(a->view.data, b->view.data, (size_t)a->bytes) == 0;
    st_map_advise(a->view.data, a->bytes, 0); /* nobody reads it again */
    w->used[i] |= (uint8_t)same;
    return same;
}

/* ---------------------------------------------------------------- plain tensors */

/* A copy of tensor i as elements of type want, kept, so that asking twice makes one copy. */
static setun_status make_copy(st_weights *w, int64_t i, uint32_t want, setun_error *err)
{
    const st_tensor *t = &w->tensor[i];
    setun_view *v = &w->made[i];
    int64_t n = setun_count(&t->view), bytes;
    if (v->data && v->dtype == want)
        return SETUN_OK;
    if (st_mul_i64(n, st_element_bytes(want), &bytes))
        return st_fail(err, SETUN_BAD_SHAPE, "%s: tensor %s is too large", t->file, t->name);
    void *data = st_arena_alloc(w->arena, bytes ? bytes : 1);
    if (!data)
        return st_fail(err, SETUN_NO_MEMORY, "no memory for the %lld bytes of %s", (long long)bytes,
                       t->name);
    if (want == t->view.dtype)
        st_convert_order(data, t->view.data, st_element_bytes(want), n);
    else if (want != SETUN_F32 || st_convert_f32(data, t->view.data, t->view.dtype, n))
        return st_fail(err, SETUN_BAD_SHAPE, "%s: tensor %s is %s and cannot be converted", t->file,
                       t->name, t->dtype);
    *v = t->view;
    v->data = data;
    v->dtype = want;
    return SETUN_OK;
}

/* A tensor of a GGUF file that cannot be used in place, or is wanted as what it is not. */
static setun_status decode(st_weights *w, int64_t i, uint32_t want, setun_view *view, setun_error *err)
{
    if (!w->pack)
        ST_TRY(st_weights_pack_begin(w, NULL, "as asked", err));
    ST_TRY(st_gguf_pack_floats(&w->gguf, w->pack, w->arena, i, want, view, err));
    if (!w->used[i])
        w->stats.copied_bytes += setun_view_bytes(view);
    w->made[i] = *view;
    w->used[i] = 1;
    return SETUN_OK;
}

setun_status st_weights_tensor(st_weights *w, const char *name, uint32_t want, setun_view *view,
                               setun_error *err)
{
    int64_t i = find(w, name);
    if (i < 0)
        return st_fail(err, SETUN_BAD_FILE, "%s: tensor %s is missing", w->path, name);
    const st_tensor *t = &w->tensor[i];
    int64_t element = st_element_bytes(t->view.dtype), align = setun_align(t->view.dtype);
    if (element == 0 && !w->is_gguf)
        return st_fail(err, SETUN_UNKNOWN, "%s: tensor %s is %s, which Setun cannot compute with",
                       t->file, name, t->dtype);
    if (want == 0)
        want = t->view.dtype;
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    int in_place = element == 1;
#else
    int in_place = align && (uintptr_t)t->view.data % (uintptr_t)align == 0;
#endif
    if (element == 0 && (want != t->view.dtype || !in_place))
        return decode(w, i, want, view, err);
    if (want == t->view.dtype && in_place) {
        *view = t->view;
        if (!w->used[i])
            w->stats.mapped_bytes += t->bytes;
    } else {
        ST_TRY(make_copy(w, i, want, err));
        *view = w->made[i];
        if (!w->used[i])
            w->stats.copied_bytes += setun_view_bytes(view);
    }
    w->used[i] = 1;
    return SETUN_OK;
}

setun_status st_weights_all_used(const st_weights *w, setun_error *err)
{
    st_str names = { 0 };
    int64_t n = 0;
    for (int64_t i = 0; i < w->n_tensors; i++)
        if (!w->used[i] && n++ < 4)
            st_str_addf(&names, "%s%.100s", n == 1 ? "" : ", ", w->tensor[i].name);
    setun_status s = SETUN_OK;
    if (n)
        s = st_fail(err, SETUN_BAD_FILE, "%s: the model script does not use %lld tensor%s: %s%s",
                    w->path, (long long)n, n == 1 ? "" : "s", names.text ? names.text : "",
                    n > 4 ? ", ..." : "");
    st_str_free(&names);
    return s;
}

/* ---------------------------------------------------------------- ternary linears */

setun_status st_weights_pack_begin(st_weights *w, const char *dir, const char *choice, setun_error *err)
{
    if (w->of && w->pack)
        return SETUN_OK; /* it is complete, and by the same choice */
    const char *identity = st_arena_printf(w->arena, "%stransposed: %s\n", w->identity, choice);
    if (!identity)
        return st_fail(err, SETUN_NO_MEMORY, "no memory to open %s", w->path);
    if (w->pack)
        return st_fail(err, SETUN_BAD_ARG, "%s: st_weights_pack_begin was called twice", w->path);
    /* What could be asked for, from shapes alone; only address space is reserved by it. */
    int64_t capacity = 0;
    for (int64_t i = 0; i < w->n_tensors; i++) {
        const setun_view *v = &w->tensor[i].view;
        int packed = v->dtype == SETUN_U8,
            bytes_ok = v->rank == 2 && v->dim[1] > 0 && v->dim[1] <= INT32_MAX;
        int64_t bytes, turned;
        if (bytes_ok && (w->is_gguf || v->dtype == SETUN_BF16 || v->dtype == SETUN_F16 || v->dtype == SETUN_F32)) {
            /* It may be the head: codes in two parts, and four floats a row.  If it is ternary instead, its
             * codes and scales, of 64 weights or more, need less. */
            if (st_mul_i64(v->dim[0], st_head_blocks(v->dim[1]) * (ST_HEAD_CODE_BYTES + ST_HEAD_FINE_BYTES) + 16, &bytes) ||
                st_add_i64(capacity, bytes, &capacity) || st_add_i64(capacity, 192, &capacity))
                return st_fail(err, SETUN_BAD_SHAPE, "%s: tensor %s is too large", w->tensor[i].file, w->tensor[i].name);
        }
        if (w->is_gguf) {
            bytes = v->dim[0] > INT32_MAX || v->dim[1] > INT32_MAX ? -1 : st_gguf_pack_bytes(&w->gguf, i);
            if (bytes < 0 || st_add_i64(capacity, bytes, &capacity))
                return st_fail(err, SETUN_BAD_SHAPE, "%s: tensor %s is too large", w->tensor[i].file, w->tensor[i].name);
        }
        if (w->is_gguf || !bytes_ok || (!packed && !w->online))
            continue;
        /* In either form, or if a program asks for both, in both. */
        if (st_mul_i64(packed ? 4 : 1, v->dim[0], &turned) || turned > INT64_MAX / 4 ||
            st_mul_i64(turned, setun_row_bytes(SETUN_T2, v->dim[1]), &bytes) ||
            st_mul_i64(v->dim[1], setun_row_bytes(SETUN_T2, turned), &turned) ||
            st_add_i64(capacity, bytes, &capacity) || st_add_i64(capacity, turned, &capacity) ||
            st_add_i64(capacity, 128, &capacity))
            return st_fail(err, SETUN_BAD_SHAPE, "%s: tensor %s is too large", w->tensor[i].file, w->tensor[i].name);
    }
    setun_status s =
        st_pack_open(&w->pack, dir, st_hash(w->paths_hash, choice, strlen(choice)), identity, capacity, &w->log, err);
    if (s != SETUN_OK) {
        st_pack_close(w->pack);
        w->pack = NULL;
    }
    return s;
}

setun_status st_weights_pack_end(st_weights *w, setun_error *err)
{
    return w->pack ? st_pack_finish(w->pack, err) : SETUN_OK;
}

int st_weights_pack_hit(const st_weights *w) { return w->pack && st_pack_is_hit(w->pack); }

/* The stored weight_scale: one finite positive number. */
static setun_status read_scale(const st_weights *w, int64_t i, float *scale, setun_error *err)
{
    const st_tensor *t = &w->tensor[i];
    int one = t->view.rank == 0 || (t->view.rank == 1 && t->view.dim[0] == 1);
    if (!one || st_convert_f32(scale, t->view.data, one ? t->view.dtype : 0, 1))
        return st_fail(err, SETUN_BAD_SHAPE, "%s: %s is not one F32, F16 or BF16 number", t->file,
                       t->name);
    float used = w->rule == RULE_DIVIDE ? 1.0f / *scale : *scale;
    /* Denormals and overflow of the reciprocal are caught by the same test. */
    if (!(*scale > 0.0f) || !(*scale <= 3e38f) || !(used > 0.0f) || !(used <= 3e38f))
        return st_fail(err, SETUN_BAD_FILE, "%s: %s is %g, not a usable scale", t->file, t->name,
                       (double)*scale);
    *scale = used;
    return SETUN_OK;
}

static setun_status transcode(const st_tensor *t, uint8_t *t2, setun_error *err)
{
    int64_t col, row;
    st_map_advise(t->view.data, t->bytes, 1);
    row = st_t2_from_planes(t2, t->view.data, t->view.dim[0], t->view.dim[1], &col);
    st_map_advise(t->view.data, t->bytes, 0); /* both forms need not be in memory */
    if (row >= 0)
        return st_fail(err, SETUN_BAD_FILE,
                       "%s: %s has the code 3 at row %lld, column %lld: damaged or another packing",
                       t->file, t->name, (long long)row, (long long)col);
    return SETUN_OK;
}

#define CHUNK 4096

/* The reference sums floats in an order of its own. */
static setun_status absmean(const st_tensor *t, float *m, setun_error *err)
{
    int64_t n = setun_count(&t->view), element = st_element_bytes(t->view.dtype);
    const uint8_t *p = t->view.data;
    st_absmean sum = { .n = 0 };
    float x[CHUNK];
    for (int64_t i = 0; i < n; i += CHUNK) {
        int64_t some = n - i < CHUNK ? n - i : CHUNK;
        (void)st_convert_f32(x, p + i * element, t->view.dtype, some);
        st_absmean_add(&sum, x, some);
    }
    *m = st_absmean_of(&sum);
    if (!__builtin_isfinite(*m)) {
        for (int64_t i = 0; i < n; i++) {
            (void)st_convert_f32(x, p + i * element, t->view.dtype, 1);
            if (!__builtin_isfinite(x[0]))
                return st_fail(err, SETUN_BAD_FILE,
                               "%s: %s has the value %g at row %lld, column %lld", t->file, t->name,
                               (double)x[0], (long long)(i / t->view.dim[1]),
                               (long long)(i % t->view.dim[1]));
        }
    }
    return SETUN_OK;
}

static setun_status quantise(const st_tensor *t, uint8_t *t2, float *m, int64_t *near,
                             setun_error *err)
{
    int64_t rows = t->view.dim[0], cols = t->view.dim[1], element = st_element_bytes(t->view.dtype);
    int64_t row_bytes = setun_row_bytes(SETUN_T2, cols), bytes;
    if (st_mul_i64(cols, sizeof(float), &bytes))
        return st_fail(err, SETUN_BAD_SHAPE, "%s: %s is too wide", t->file, t->name);
    float *x = malloc((size_t)bytes + 1);
    if (!x)
        return st_fail(err, SETUN_NO_MEMORY, "no memory for a row of %s", t->name);
    st_map_advise(t->view.data, t->bytes, 1);
    setun_status s = absmean(t, m, err);
    float half = 0.5f * *m, margin = 1e-6f * half;
    *near = 0;
    for (int64_t r = 0; s == SETUN_OK && r < rows; r++) {
        (void)st_convert_f32(x, (const uint8_t *)t->view.data + r * cols * element, t->view.dtype,
                             cols);
        st_t2_from_floats(t2 + r * row_bytes, x, cols, 1.0f / *m);
        int32_t close = 0;
        for (int64_t c = 0; c < cols; c++)
            close += __builtin_fabsf(__builtin_fabsf(x[c]) - half) <= margin;
        *near += close;
    }
    st_map_advise(t->view.data, t->bytes, 0);
    free(x);
    return s;
}

/* Which of the four kinds is it?  SETUN_OK sets *rule and *rows. */
static setun_status classify(const st_weights *w, const char *name, int64_t at, int64_t scale_at,
                             int *rule, int64_t *rows, setun_error *err)
{
    const st_tensor *t = &w->tensor[at];
    uint32_t d = t->view.dtype;
    int is_float = d == SETUN_F32 || d == SETUN_F16 || d == SETUN_BF16;
    if (is_float && scale_at < 0) {
        int spared = is_unconverted(w, name);
        if (w->rule == RULE_NONE || spared == 1)
            return SETUN_DECLINED;
        if (spared)
            return st_fail(err, SETUN_UNKNOWN,
                           "%s: it is not clear whether modules_to_not_convert means %s",
                           w->config.path, name);
        if (!w->online)
            return st_fail(
                err, SETUN_BAD_FILE,
                "%s: %s is %s, but quantization_config says that weights are packed (offline)",
                t->file, t->name, t->dtype);
        *rule = RULE_ABSMEAN;
        *rows = t->view.dim[0];
    } else if (d == SETUN_U8 && scale_at >= 0) {
        if (w->rule != RULE_MULTIPLY && w->rule != RULE_DIVIDE)
            return st_fail(
                err, SETUN_UNKNOWN,
                "%s: %s is packed, but %s has no quantization_config to say how its scale is used",
                t->file, t->name, w->config.path);
        if (w->online || is_unconverted(w, name) == 1)
            return st_fail(err, SETUN_BAD_FILE, "%s: %s is packed, but by %s it holds floats: %s", t->file, t->name, w->config.path,
                           w->online ? "quantization_mode is online" : "it is a head, an embedding or one of modules_to_not_convert");
        *rule = w->rule;
        if (st_mul_i64(4, t->view.dim[0], rows))
            return st_fail(err, SETUN_BAD_SHAPE, "%s: %s is too large", t->file, t->name);
    } else if (is_float) {
        return st_fail(err, SETUN_BAD_FILE,
                       "%s: %s is %s and has a weight_scale: packed weights are U8", t->file,
                       t->name, t->dtype);
    } else {
        return st_fail(err, SETUN_BAD_FILE, "%s: %s is %s%s", t->file, t->name, t->dtype,
                       d == SETUN_U8 ? " without a weight_scale" : ", neither packed nor float");
    }
    if (t->view.rank != 2 || t->view.dim[1] < 1 || t->view.dim[0] < 1)
        return st_fail(err, SETUN_BAD_SHAPE, "%s: %s is not a matrix", t->file, t->name);
    return SETUN_OK;
}

/* Codes of tensor t as T2, to a buffer of its rows; *s is its scale, which absmean finds here. */
static setun_status convert(const st_tensor *t, int rule, uint8_t *t2, float *s, int64_t *near, setun_error *err)
{
    return rule == RULE_ABSMEAN ? quantise(t, t2, s, near, err) : transcode(t, t2, err);
}

static setun_status make_ternary(st_weights *w, const st_tensor *t, const char *slot_name, int rule, int64_t scale_at,
                                 int64_t rows, int across, const st_pack_slot **slot, setun_error *err)
{
    int64_t cols = t->view.dim[1], near = 0;
    uint8_t *buffer, *first = NULL;
    float s = 0.0f;
    if (rule != RULE_ABSMEAN)
        ST_TRY(read_scale(w, scale_at, &s, err));
    if (!across) {
        ST_TRY(st_pack_room(w->pack, slot_name, SETUN_T2, rows, cols, &buffer, err));
        ST_TRY(convert(t, rule, buffer, &s, &near, err));
        return st_pack_put(w->pack, s, near, slot, err);
    }
    ST_TRY(st_pack_room(w->pack, slot_name, SETUN_T2, cols, rows, &buffer, err));
    first = malloc((size_t)(rows * setun_row_bytes(SETUN_T2, cols))); /* pack_begin has checked the product */
    if (!first)
        return st_fail(err, SETUN_NO_MEMORY, "no memory to convert %s", t->name);
    setun_status st = convert(t, rule, first, &s, &near, err);
    if (st == SETUN_OK)
        st_t2_transpose(buffer, first, rows, cols);
    free(first);
    return st == SETUN_OK ? st_pack_put(w->pack, s, near, slot, err) : st;
}

/* The first answer for tensor `at`: its scales, as they will be given out again. */
static void count_first(st_weights *w, int64_t at, const setun_view *scale, int64_t weights, int64_t bytes)
{
    w->scale[at] = *scale;
    w->stats.ternary_weights += weights;
    w->stats.ternary_bytes += bytes;
}

/* Codes and scales of an unpacked matrix.  One matrix at a time can be filled, so scales wait in memory
 * of their own. */
static setun_status make_unpacked(st_weights *w, const st_unpacked *in, int32_t group, const char *scale_name,
                                  const st_pack_slot **codes, const st_pack_slot **scales, setun_error *err)
{
    const st_tensor *t = in->t;
    int64_t rows = t->view.dim[0], cols = t->view.dim[1], n_scale = st_unpacked_scales(group, cols), bytes;
    uint8_t *buffer;
    if (st_mul_i64(rows, n_scale * (int64_t)sizeof(float), &bytes))
        return st_fail(err, SETUN_BAD_SHAPE, "%s: %s is too large", t->file, t->name);
    float *room = malloc((size_t)bytes);
    if (!room)
        return st_fail(err, SETUN_NO_MEMORY, "no memory to convert %s", t->name);
    setun_status s = st_pack_room(w->pack, t->name, SETUN_T2, rows, cols, &buffer, err);
    if (s == SETUN_OK)
        s = st_unpacked_convert(in, group, buffer, room, err);
    if (s == SETUN_OK)
        s = st_pack_put(w->pack, 0.0f, 0, codes, err);
    if (s == SETUN_OK)
        s = st_pack_room(w->pack, scale_name, SETUN_F32, rows, n_scale, &buffer, err);
    if (s == SETUN_OK) {
        memcpy(buffer, room, (size_t)bytes);
        s = st_pack_put(w->pack, 0.0f, 0, scales, err);
    }
    free(room);
    return s;
}

/* A float matrix of a model that asks for no quantization: ternary if all its values are.  What the
 * cache has was found by the same values, and is not looked for again. */
static setun_status unpacked(st_weights *w, int64_t at, st_ternary *out, setun_error *err)
{
    static const int32_t groups[ST_UNPACKED_N_FORM] = ST_UNPACKED_FORMS;
    const st_tensor *t = &w->tensor[at];
    const st_unpacked in = { t, w->is_gguf && !st_element_bytes(t->view.dtype) ? &w->gguf : NULL, at };
    const char *name[ST_UNPACKED_N_FORM];
    const st_pack_slot *codes = NULL, *scales = NULL;
    int64_t rows = t->view.dim[0], cols = t->view.dim[1];
    int form = 0;
    if (!w->pack)
        ST_TRY(st_weights_pack_begin(w, NULL, "as asked", err));
    for (int f = 0; f < ST_UNPACKED_N_FORM; f++) {
        name[f] = st_arena_printf(w->arena, "%s (scales of %d)", t->name, (int)groups[f]);
        if (!name[f])
            return st_fail(err, SETUN_NO_MEMORY, "no memory for %s", t->name);
        const st_pack_slot *s = st_pack_find(w->pack, name[f], SETUN_F32, rows, st_unpacked_scales(groups[f], cols));
        form = s ? f : form;
        scales = s ? s : scales;
    }
    codes = st_pack_find(w->pack, t->name, SETUN_T2, rows, cols);
    if (!codes || !scales) {
        ST_TRY(st_unpacked_find(&in, &form, err));
        ST_TRY(make_unpacked(w, &in, groups[form], name[form], &codes, &scales, err));
    }
    setun_view scale = { scales->data, SETUN_F32, groups[form] ? 2 : 1, { rows, scales->cols, 1, 1 } };
    if (!w->scale[at].data) {
        count_first(w, at, &scale, rows * cols, codes->bytes + scales->bytes);
        w->stats.n_weight_only++;
        w->forms |= 1 << form;
    }
    *out = (st_ternary){ .scale = scale, .group = groups[form], .weight_only = 1 };
    out->codes = (setun_view){ codes->data, SETUN_T2, 2, { rows, cols, 1, 1 } };
    w->used[at] = 1;
    return SETUN_OK;
}

/* Of a GGUF file, whose types say it all; one without any ternary type may still be ternary. */
static setun_status gguf_ternary(st_weights *w, int64_t at, int across, st_ternary *out, setun_error *err)
{
    int64_t bytes;
    if (!st_gguf_source_is_ternary(&w->gguf, at))
        return w->gguf.activations == ST_ACTIVATIONS_INT8 ? SETUN_DECLINED : unpacked(w, at, out, err);
    if (!w->pack)
        ST_TRY(st_weights_pack_begin(w, NULL, "as asked", err));
    ST_TRY(st_gguf_pack_ternary(&w->gguf, w->pack, w->arena, at, across, out, &bytes, err));
    if (!w->used[at]) {
        w->stats.ternary_weights += setun_count(&w->tensor[at].view);
        w->stats.ternary_bytes += bytes;
        w->stats.n_across += out->across != 0;
        w->stats.n_weight_only += out->weight_only != 0;
        w->seen |= 1 << RULE_STORED;
    }
    w->used[at] = 1;
    return SETUN_OK;
}

setun_status st_weights_form(const st_weights *w, const char *name, int *packed, float *scale, setun_error *err)
{
    int64_t rows = 0, at, scale_at;
    int rule = RULE_NONE;
    char *full = NULL;
    if (asprintf(&full, "%s.weight_scale", name) < 0)
        return st_fail(err, SETUN_NO_MEMORY, "no memory for %s", name);
    scale_at = find(w, full);
    full[strlen(full) - strlen("_scale")] = 0;
    at = find(w, full);
    setun_status st = at < 0 ? st_fail(err, SETUN_BAD_FILE, "%s: tensor %s is missing", w->path, full)
                             : classify(w, name, at, scale_at, &rule, &rows, err);
    free(full);
    *packed = rule == RULE_MULTIPLY || rule == RULE_DIVIDE;
    return st == SETUN_OK && *packed ? read_scale(w, scale_at, scale, err) : st;
}

setun_status st_weights_ternary(st_weights *w, const char *name, int across, st_ternary *out, setun_error *err)
{
    const char *full = st_arena_printf(w->arena, "%s.weight", name);
    const char *full_scale = st_arena_printf(w->arena, "%s.weight_scale", name);
    const char *turned = st_arena_printf(w->arena, "%s.weight (transposed)", name);
    if (!full || !full_scale || !turned)
        return st_fail(err, SETUN_NO_MEMORY, "no memory for %s", name);
    int64_t at = find(w, full), scale_at = find(w, full_scale), rows = 0;
    int rule = RULE_NONE;
    if (at < 0)
        return st_fail(err, SETUN_BAD_FILE, "%s: tensor %s is missing", w->path, full);
    if (w->is_gguf)
        return gguf_ternary(w, at, across, out, err);
    setun_status kind = classify(w, name, at, scale_at, &rule, &rows, err);
    if (kind == SETUN_DECLINED && w->rule == RULE_NONE) {
        /* A training tool's mark: without quantization_config it stands for values that are ternary already. */
        const st_hparam *mark = st_config_find(&w->config, "is_bitnet_config");
        kind = unpacked(w, at, out, err);
        return kind == SETUN_DECLINED && mark && mark->i && !is_unconverted(w, name)
                   ? st_fail(err, SETUN_BAD_FILE, "%s: %s is neither packed nor ternary, but %s has is_bitnet_config and no quantization_config "
                             "to say how it is made so", w->tensor[at].file, w->tensor[at].name, w->config.path)
                   : kind;
    }
    ST_TRY(kind);
    const st_tensor *t = &w->tensor[at];
    const char *slot_name = across ? turned : t->name;
    int64_t dim[2] = { across ? t->view.dim[1] : rows, across ? rows : t->view.dim[1] };
    if (!w->pack)
        ST_TRY(st_weights_pack_begin(w, NULL, "as asked", err));
    const st_pack_slot *slot = st_pack_find(w->pack, slot_name, SETUN_T2, dim[0], dim[1]);
    int first = !w->scale[at].data;
    if (!slot)
        ST_TRY(make_ternary(w, t, slot_name, rule, scale_at, rows, across, &slot, err));
    if (first) {
        float *value = st_arena_alloc(w->arena, sizeof *value);
        if (!value)
            return st_fail(err, SETUN_NO_MEMORY, "no memory for %s", full_scale);
        *value = slot->scale;
        count_first(w, at, &(setun_view){ value, SETUN_F32, 1, { 1, 1, 1, 1 } }, rows * t->view.dim[1], slot->bytes);
        w->stats.near_threshold += slot->near;
        w->stats.n_across += across != 0;
        w->seen |= 1 << rule;
    }
    *out = (st_ternary){ .scale = w->scale[at], .across = across };
    out->codes = (setun_view){ slot->data, SETUN_T2, 2, { dim[0], dim[1], 1, 1 } };
    w->used[at] = 1;
    if (scale_at >= 0)
        w->used[scale_at] = 1;
    return SETUN_OK;
}

/* ---------------------------------------------------------------- the head */

enum { CODE, FINE, META, N_PART };

typedef struct head_part {
    const char *name;
    uint32_t    dtype;
    int64_t     cols;
} head_part;

#define PIECE 1024 /* rows: 10 MB of floats */

/* A head of blocks, or one that is decoded for it, because what the cache file has cannot be read yet. */
static setun_status quantise_pieces(const st_weights *w, int64_t i, uint8_t *const room[N_PART], const head_part part[N_PART],
                                    int32_t n_threads, setun_error *err)
{
    int64_t rows = w->tensor[i].view.dim[0], cols = w->tensor[i].view.dim[1];
    float *piece = malloc((size_t)(PIECE * cols) * sizeof *piece);
    setun_status s = piece ? SETUN_OK : st_fail(err, SETUN_NO_MEMORY, "no memory to convert %s", w->tensor[i].name);
    for (int64_t r = 0; r < rows && s == SETUN_OK; r += PIECE) {
        setun_view v = { piece, SETUN_F32, 2, { rows - r < PIECE ? rows - r : PIECE, cols, 1, 1 } };
        s = st_gguf_source_rows(&w->gguf, i, r, v.dim[0], 0, piece, err);
        if (s == SETUN_OK)
            s = st_head_quantise(&v, room[CODE] + r * part[CODE].cols, room[FINE] + r * part[FINE].cols,
                                 (float *)(void *)room[META] + 4 * r, n_threads, err);
    }
    free(piece);
    return s;
}

/* One matrix at a time can be filled, so all but the first wait in memory of their own. */
static setun_status make_head(st_weights *w, const st_tensor *t, const setun_view *head, const head_part part[N_PART],
                              int32_t n_threads, setun_error *err)
{
    int64_t rows = head->dim[0];
    const st_pack_slot *slot;
    uint8_t *room[N_PART] = { NULL, malloc((size_t)(rows * part[FINE].cols) + 1), malloc((size_t)(rows * 16) + 1) }, *to;
    setun_status s = SETUN_OK;
    if (!room[FINE] || !room[META])
        s = st_fail(err, SETUN_NO_MEMORY, "no memory to convert %s", t->name);
    if (s == SETUN_OK)
        s = st_pack_room(w->pack, part[CODE].name, part[CODE].dtype, rows, part[CODE].cols, &room[CODE], err);
    if (s == SETUN_OK) {
        st_map_advise(t->view.data, t->bytes, 1);
        s = w->is_gguf && st_element_bytes(t->view.dtype) == 0
                ? quantise_pieces(w, t - w->tensor, room, part, n_threads, err)
                : st_head_quantise(head, room[CODE], room[FINE], (float *)(void *)room[META], n_threads, err);
        st_map_advise(t->view.data, t->bytes, 0);
    }
    if (s == SETUN_OK)
        s = st_pack_put(w->pack, 0.0f, 0, &slot, err);
    for (int i = FINE; i < N_PART && s == SETUN_OK; i++) {
        s = st_pack_room(w->pack, part[i].name, part[i].dtype, rows, part[i].cols, &to, err);
        if (s != SETUN_OK)
            break;
        memcpy(to, room[i], (size_t)(rows * setun_row_bytes(part[i].dtype, part[i].cols)));
        s = st_pack_put(w->pack, 0.0f, 0, &slot, err);
    }
    free(room[FINE]);
    free(room[META]);
    return s;
}

/* Rows of t will be read here and there.  In a map that costs a fault each, and some systems map 1 MiB with it. */
static void open_rows(st_weights *w, const st_tensor *t)
{
    const uint8_t *data = t->view.data;
    st_map_scattered(data, t->bytes);
    int64_t n = w->is_gguf ? w->gguf.g.n_files : w->files.n_shards;
    for (int64_t i = 0; i < n && w->reader < 0; i++) {
        const st_map *map = w->is_gguf ? &w->gguf.g.file[i].map : &w->files.shard[i].map;
        if (data < map->data || data >= map->data + map->bytes)
            continue;
        w->reader = st_map_reader(map, w->is_gguf ? w->gguf.g.file[i].path : w->files.shard[i].path);
        w->reader_at = data - map->data;
    }
}

setun_status st_weights_head(st_weights *w, const setun_view *head, int32_t n_threads, st_head *out, setun_error *err)
{
    int64_t i = 0, rows = head->dim[0], blocks = st_head_blocks(head->dim[1]);
    setun_view *const to[N_PART] = { &out->code, &out->fine, &out->meta };
    while (i < w->n_tensors && w->tensor[i].view.data != head->data && w->made[i].data != head->data)
        i++;
    if (i == w->n_tensors || !w->pack)
        return SETUN_DECLINED;
    const st_tensor *t = &w->tensor[i];
    const head_part part[N_PART] = {
        { st_arena_printf(w->arena, "%s (6-bit rows)", t->name), SETUN_U8, blocks * ST_HEAD_CODE_BYTES },
        { st_arena_printf(w->arena, "%s (2 more bits)", t->name), SETUN_U8, blocks * ST_HEAD_FINE_BYTES },
        { st_arena_printf(w->arena, "%s (bounds)", t->name), SETUN_F32, 4 },
    };
    const st_pack_slot *slot[N_PART] = { NULL };
    w->stats.head_bytes = 0;
    for (int made = 0; made < 2; made++) {
        int missing = 0;
        for (int j = 0; j < N_PART; j++) {
            if (!part[j].name)
                return st_fail(err, SETUN_NO_MEMORY, "no memory for %s", t->name);
            slot[j] = st_pack_find(w->pack, part[j].name, part[j].dtype, rows, part[j].cols);
            missing |= !slot[j];
        }
        if (missing && !made)
            ST_TRY(make_head(w, t, head, part, n_threads, err));
    }
    for (int j = 0; j < N_PART; j++) {
        *to[j] = (setun_view){ slot[j]->data, part[j].dtype, 2, { rows, part[j].cols, 1, 1 } };
        w->stats.head_bytes += slot[j]->bytes;
    }
    if (t->view.data == head->data)
        open_rows(w, t);
    return SETUN_OK;
}

int st_weights_has_rows(const st_weights *w) { return w->reader >= 0; }

int st_weights_row(const st_weights *w, int64_t r, int64_t bytes, void *to)
{
    return w->reader < 0 || st_reader_read(w->reader, w->reader_at + r * bytes, to, bytes);
}

/* Never for a copy: what has no file behind it would be lost. */
void st_weights_let_go(const st_weights *w, const void *data)
{
    for (int64_t i = 0; i < w->n_tensors; i++)
        if (data && w->tensor[i].view.data == data)
            st_map_advise(data, w->tensor[i].bytes, 0);
}

void st_weights_get_stats(const st_weights *w, st_weights_stats *s)
{
    *s = w->stats;
    if (w->forms) {
        s->scale_rule = "exact in the file's floats: several forms, weights only";
        for (int f = 0; f < ST_UNPACKED_N_FORM; f++)
            if (w->forms == 1 << f)
                s->scale_rule = form_names[f];
        return;
    }
    /* One file has one rule; packed and master linears may still be mixed in it. */
    int rule = w->seen & 1 << RULE_ABSMEAN ? RULE_ABSMEAN : w->seen ? w->rule : RULE_NONE;
    s->scale_rule = w->seen == (1 << RULE_ABSMEAN | 1 << w->rule) && w->rule != RULE_ABSMEAN
                        ? "absmean on load, and packed" : rule_names[rule];
}
