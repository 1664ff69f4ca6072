/* runtime/lab.c -- setun lab: an experiment from its file, and what is still to be measured of it.
 *
 *     for each variant, the base first:
 *         which measures have no result with today's key?   none: it is not even loaded
 *         load, measure them one by one, and write results.json after each
 *     then speeds, which compare several loaded models (lab_speed.c)
 *
 * A result's key is a hash of everything that it depends on: version, options, contents of the Lua files they name,
 * name, size and time of the model's files, text, what is measured how, and for comparisons all of that of the
 * base, too.  So an experiment that was stopped, or whose file was changed, goes on with what is missing.
 * The base is loaded again where others need what only memory or base.logits can give them. */
#include "runtime/lab.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/cpu.h"
#include "base/error.h"
#include "base/file.h"
#include "base/hash.h"
#include "plugins/host.h"

#define TEXT_LIMIT ((int64_t)256 << 20)
#define SCRIPT_LIMIT ((int64_t)1 << 20)
#define ROWS_AT_ONCE 64 /* of logits */

static setun_status no_memory(setun_error *err) { return st_fail(err, SETUN_NO_MEMORY, "no memory for an experiment"); }

/* ---------------------------------------------------------------- the file */

/* A path in the file is seen from where the file lies. */
static const char *from_file(const setun_lab *l, const char *path)
{
    const char *slash = strrchr(l->file, '/');
    if (!path || *path == '/' || !slash)
        return path;
    return st_arena_printf(l->arena, "%.*s/%s", (int)(slash - l->file), l->file, path);
}

/* The end of the script's name in "base3.lua", "all.lua:base3" and "topk.lua=0.5", or NULL. */
static const char *behind_script(const char *value)
{
    for (const char *at = value; (at = strstr(at, ".lua")); at += 4)
        if (at > value && strchr(":=", at[4])) /* which finds the end, too */
            return at + 4;
    return NULL;
}

/* Scripts and whatever has a slash: options need not say which of them are paths. */
static int is_path(const char *value)
{
    return strchr(value, '/') || behind_script(value);
}

static setun_status resolve(setun_lab *l, const st_script_lab *said, setun_error *err)
{
    st_script_lab *x = st_arena_alloc(l->arena, sizeof *x);
    st_script_variant *v = st_arena_array(l->arena, said->n_variant, sizeof *v);
    if (!x || !v)
        return no_memory(err);
    *x = *said;
    x->model = from_file(l, said->model);
    x->text = from_file(l, said->text);
    for (int32_t i = 0; i < x->n_variant; i++) {
        st_script_option *o = st_arena_array(l->arena, said->variant[i].n_option + 1, sizeof *o);
        if (!o)
            return no_memory(err);
        v[i] = said->variant[i];
        v[i].model = v[i].model ? from_file(l, v[i].model) : x->model;
        v[i].option = o;
        for (int32_t k = 0; k < v[i].n_option; k++) {
            o[k] = said->variant[i].option[k];
            if (o[k].value && is_path(o[k].value) && !(o[k].value = from_file(l, o[k].value)))
                return no_memory(err);
        }
        if (!v[i].model)
            return no_memory(err);
    }
    x->variant = v;
    l->x = x;
    return x->model && (x->text || !said->text) ? SETUN_OK : no_memory(err);
}

static setun_status read_file(setun_lab *l, setun_error *err)
{
    char modules[4096], scripts[4096];
    st_registry *registry = NULL;
    st_script *script = NULL;
    const st_script_lab *said = NULL;
    ST_TRY(st_install_dirs(modules, scripts, sizeof scripts, err));
    setun_status st = st_registry_new(&registry, err);
    if (st == SETUN_OK)
        st = st_script_open(&script, scripts, registry, l->arena, NULL, err);
    if (st == SETUN_OK)
        st = st_script_lab_read(script, l->file, &said, err);
    st_script_close(script);
    st_registry_free(registry);
    return st == SETUN_OK ? resolve(l, said, err) : st;
}

setun_status setun_lab_open(setun_lab **out, const char *file, setun_error *err)
{
    setun_lab *l = calloc(1, sizeof *l);
    *out = NULL;
    if (!l || !(l->arena = st_arena_new()) || !(l->file = st_arena_strdup(l->arena, file))) {
        setun_lab_free(l);
        return no_memory(err);
    }
    setun_status st = read_file(l, err);
    if (st != SETUN_OK) {
        setun_lab_free(l);
        return st;
    }
    *out = l;
    return SETUN_OK;
}

void setun_lab_free(setun_lab *l)
{
    if (l)
        st_arena_free(l->arena);
    free(l);
}

int32_t setun_lab_count(const setun_lab *l) { return l->x->n_variant; }

const char *setun_lab_variant(const setun_lab *l, int32_t i)
{
    return i >= 0 && i < l->x->n_variant ? l->x->variant[i].name : NULL;
}

int32_t setun_lab_option(const setun_lab *l, int32_t i, int32_t k, const char **name, const char **value)
{
    if (i < 0 || i >= l->x->n_variant || k < 0 || k >= l->x->variant[i].n_option)
        return 0;
    *name = l->x->variant[i].option[k].name;
    *value = l->x->variant[i].option[k].value;
    return 1;
}

/* ---------------------------------------------------------------- keys */

static uint64_t hash_text(uint64_t h, const char *text)
{
    return st_hash(h, text ? text : "\1", text ? strlen(text) + 1 : 2); /* with its end, so that texts stay apart */
}

static uint64_t hash_number(uint64_t h, int64_t x)
{
    uint8_t bytes[8];
    for (int i = 0; i < 8; i++)
        bytes[i] = (uint8_t)((uint64_t)x >> 8 * i);
    return st_hash(h, bytes, sizeof bytes);
}

/* Name, size and time.  A file that cannot be looked at will be refused by whoever opens it. */
static uint64_t hash_stat(uint64_t h, const char *path)
{
    int64_t bytes, mtime;
    h = hash_text(h, path);
    return st_file_stat(path, &bytes, &mtime, NULL) == SETUN_OK ? hash_number(hash_number(h, bytes), mtime) : hash_text(h, NULL);
}

/* What is in a directory whose names begin so; NULL: everything. */
static uint64_t hash_dir(uint64_t h, const char *dir, const char *prefix)
{
    char **name = NULL;
    int64_t n = 0;
    if (st_dir_list(dir, &name, &n, NULL) != SETUN_OK)
        return hash_text(h, NULL);
    for (int64_t i = 0; i < n; i++) {
        st_str path = {0};
        st_str_addf(&path, "%s/%s", dir, name[i]);
        if (!path.failed && (!prefix || strncmp(name[i], prefix, strlen(prefix)) == 0) && !st_is_dir(path.text))
            h = hash_stat(h, path.text);
        st_str_free(&path);
    }
    st_dir_free(name, n);
    return h;
}

/* A model: the files of a directory, a file, or all parts "name-00001-of-00003.gguf" of one. */
static uint64_t hash_model(uint64_t h, const char *path)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path, *part = strstr(name, "-of-");
    st_str dir = {0}, stem = {0};
    if (st_is_dir(path))
        return hash_dir(h, path, NULL);
    if (!part || part - name < 6)
        return hash_stat(h, path);
    st_str_addf(&dir, "%.*s", slash ? (int)(slash - path) : 1, slash ? path : ".");
    st_str_addf(&stem, "%.*s", (int)(part - name - 5), name);
    if (!dir.failed && !stem.failed)
        h = hash_dir(h, dir.text, stem.text);
    st_str_free(&dir);
    st_str_free(&stem);
    return h;
}

/* What an option names: a script by its contents, anything else as a file or directory is told from another. */
static uint64_t hash_named(uint64_t h, const char *value)
{
    const char *end = behind_script(value);
    char *text = NULL;
    int64_t n;
    st_str path = {0};
    st_str_addf(&path, "%.*s", end ? (int)(end - value) : (int)strlen(value), value);
    h = hash_text(h, value);
    if (path.failed || st_is_absent(path.text))
        h = hash_text(h, NULL);
    else if (st_is_dir(path.text))
        h = hash_dir(h, path.text, NULL);
    else if (path.len > 4 && strcmp(path.text + path.len - 4, ".lua") == 0 && st_file_read(path.text, SCRIPT_LIMIT, &text, &n, NULL) == SETUN_OK)
        h = st_hash(h, text, (size_t)n);
    else
        h = hash_stat(h, path.text);
    free(text);
    st_str_free(&path);
    return h;
}

/* Options as they came to us: what the command line says for all variants shows only here. */
static uint64_t hash_options(uint64_t h, const setun_options *o)
{
    const char *const text[] = {o->backend, o->plugins, o->script, o->cpu_features, o->kv, o->down, o->i2s_layout, o->activations,
                                o->packing, o->quantizer, o->target, o->kernels};
    const int64_t number[] = {o->n_threads, o->interpret, o->full_head, o->n_ctx, o->n_batch, o->vlen, o->from_floats};
    for (size_t i = 0; i < sizeof text / sizeof text[0]; i++)
        h = text[i] && is_path(text[i]) ? hash_named(h, text[i]) : hash_text(h, text[i]);
    for (size_t i = 0; i < sizeof number / sizeof number[0]; i++)
        h = hash_number(h, number[i]);
    return h;
}

static uint64_t hash_variant(const st_lab_run *r, int32_t i)
{
    const st_script_variant *v = &r->l->x->variant[i];
    uint64_t h = hash_options(hash_text(ST_HASH_INIT, SETUN_VERSION), &r->o->variant[i]);
    for (int32_t k = 0; k < v->n_option; k++) {
        h = hash_text(h, v->option[k].name);
        h = v->option[k].value && is_path(v->option[k].value) ? hash_named(h, v->option[k].value) : hash_text(h, v->option[k].value);
    }
    return hash_model(h, v->model);
}

/* Never 0, which stands for no key. */
static uint64_t key_of(const st_lab_run *r, int32_t variant, int measure)
{
    const st_script_lab *x = r->l->x;
    uint64_t h = hash_number(r->input[variant], measure == ST_LAB_KL ? ST_LAB_PERPLEXITY : measure);
    if (measure != ST_LAB_SIZE)
        h = st_hash(h, r->text, (size_t)r->n_text);
    if (measure == ST_LAB_PERPLEXITY || measure == ST_LAB_KL)
        h = hash_text(hash_number(hash_number(hash_number(h, x->window), x->stride), x->windows), x->convention);
    if (measure == ST_LAB_LAYERS)
        h = hash_number(h, x->tokens);
    if (measure == ST_LAB_KL || measure == ST_LAB_LAYERS || measure == ST_LAB_SPEED) /* a speed has a ratio to the base's */
        h = hash_number(h, (int64_t)r->input[x->base]);
    if (measure == ST_LAB_SPEED) {
        st_cpu cpu;
        st_cpu_detect(&cpu);
        h = hash_text(hash_number(hash_number(hash_number(h, x->prefill), x->decode), x->runs), cpu.name);
        h = hash_number(h, cpu.n_cores);
    }
    return h ? h : 1;
}

/* ---------------------------------------------------------------- what is there */

int st_lab_wanted(const st_lab_run *r, int32_t variant, int measure)
{
    const st_script_lab *x = r->l->x;
    int compares = measure == ST_LAB_KL || measure == ST_LAB_LAYERS;
    return (x->measure >> measure & 1) && !(compares && variant == x->base);
}

int st_lab_missing(const st_lab_run *r, int32_t variant, int measure)
{
    return st_lab_wanted(r, variant, measure) && !st_lab_at(r, variant, measure)->n;
}

static int anyone_misses(const st_lab_run *r, int measure)
{
    for (int32_t i = 0; i < r->l->x->n_variant; i++)
        if (st_lab_missing(r, i, measure))
            return 1;
    return 0;
}

/* Rows for all that can be measured, and in them what was. */
static setun_status take_old(st_lab_run *r, setun_error *err)
{
    const st_script_lab *x = r->l->x;
    st_lab_results old = {0};
    st_lab_results *now = &r->results;
    int64_t n = (int64_t)x->n_variant * ST_LAB_MEASURES;
    if (!r->o->again)
        ST_TRY(st_lab_results_load(&old, r->json_path, r->arena, err));
    now->result = st_arena_array(r->arena, n, sizeof *now->result);
    r->input = st_arena_array(r->arena, x->n_variant, sizeof *r->input);
    if (!now->result || !r->input)
        return no_memory(err);
    now->n = n;
    now->base = x->variant[x->base].name;
    for (int32_t i = 0; i < x->n_variant; i++)
        r->input[i] = hash_variant(r, i);
    for (int64_t i = 0; i < n; i++) {
        st_lab_result *to = &now->result[i];
        int measure = (int)(i % ST_LAB_MEASURES);
        int32_t variant = (int32_t)(i / ST_LAB_MEASURES);
        *to = (st_lab_result){.variant = x->variant[variant].name, .measure = st_script_lab_measure(measure),
                              .key = key_of(r, variant, measure)};
        for (int64_t k = 0; k < old.n && st_lab_wanted(r, variant, measure); k++)
            if (old.result[k].key == to->key && strcmp(old.result[k].variant, to->variant) == 0 &&
                strcmp(old.result[k].measure, to->measure) == 0)
                *to = old.result[k];
    }
    uint64_t logits = key_of(r, x->base, ST_LAB_KL);
    now->logits = old.logits == logits && st_is_file(r->logits_path) ? logits : 0;
    return SETUN_OK;
}

/* ---------------------------------------------------------------- measuring */

static void drop(st_lab_run *r, int measure)
{
    st_lab_result *row = st_lab_at(r, r->variant, measure);
    row->n = 0;
    row->n_layer = 0;
}

static setun_status measure_one(st_lab_run *r, int measure, setun_error *err)
{
    int is_base = r->variant == r->l->x->base;
    const char *name = st_lab_at(r, r->variant, measure)->variant;
    setun_status st = SETUN_OK;
    if (r->o->begin)
        r->o->begin(r->o->user, name, st_script_lab_measure(measure));
    drop(r, measure);
    if (measure == ST_LAB_SIZE) {
        st_lab_size(r);
    } else if (measure == ST_LAB_LAYERS) {
        st = is_base ? st_lab_keep_base(r, err) : st_lab_layers_error(r, err);
    } else {
        st = st_lab_perplexity(r, is_base && anyone_misses(r, ST_LAB_KL), err);
        if (st == SETUN_OK && is_base && anyone_misses(r, ST_LAB_KL))
            r->results.logits = key_of(r, r->variant, ST_LAB_KL);
    }
    if (st != SETUN_OK || !st_lab_wanted(r, r->variant, measure)) /* it came with another one */
        drop(r, measure);
    if (st != SETUN_OK)
        return st;
    if (r->o->progress && r->o->progress(r->o->user, 1, 1)) /* this result is kept, the next is not begun */
        st = SETUN_CANCELLED;
    ST_TRY(st_lab_results_save(&r->results, r->json_path, err));
    return st == SETUN_OK ? st : st_fail(err, st, "cancelled");
}

/* What this variant must be loaded for: its own missing results, and if it is the base those of others.  Speeds come later. */
static int must(const st_lab_run *r, int32_t i, int measure)
{
    int is_base = i == r->l->x->base;
    if (measure == ST_LAB_PERPLEXITY && is_base && !r->results.logits && anyone_misses(r, ST_LAB_KL))
        return 1;
    if (measure == ST_LAB_PERPLEXITY && !is_base && st_lab_missing(r, i, ST_LAB_KL))
        return 1; /* one run gives both */
    if (measure == ST_LAB_LAYERS && is_base)
        return r->base.n == 0 && anyone_misses(r, ST_LAB_LAYERS);
    return measure != ST_LAB_KL && measure != ST_LAB_SPEED && st_lab_missing(r, i, measure);
}

setun_status st_lab_load(const st_lab_run *r, int32_t variant, setun_model **m, setun_error *err)
{
    setun_options o = r->o->variant[variant];
    o.n_outputs = ROWS_AT_ONCE;
    return setun_model_load(m, r->l->x->variant[variant].model, &o, err);
}

setun_status st_lab_tokens(const st_lab_run *r, const setun_model *m, int32_t **id, int64_t *n, setun_error *err)
{
    if (!m->has_logits)
        return st_fail(err, SETUN_BAD_ARG, "%s: the model makes embeddings, and nothing can be predicted with it", m->path);
    ST_TRY(setun_vocab_encode(&m->vocab, r->text, (size_t)r->n_text, SETUN_ENCODE_BOS, id, n, err));
    return *n >= 2 ? SETUN_OK : st_fail(err, SETUN_BAD_ARG, "%s: a text of two tokens and more is needed", r->l->x->text);
}

setun_status st_lab_wrap(const st_lab_run *r, int32_t variant, setun_status st, setun_error *err)
{
    if (st != SETUN_OK && st != SETUN_CANCELLED)
        st_wrap(err, "%s, variant '%s'", r->l->file, r->l->x->variant[variant].name);
    return st;
}

static setun_status measure_loaded(st_lab_run *r, setun_error *err)
{
    setun_status st = SETUN_OK;
    int reads = r->l->x->measure != 1u << ST_LAB_SIZE;
    r->id = NULL;
    if (reads)
        st = st_lab_tokens(r, r->m, &r->id, &r->n_id, err);
    for (int m = 0; m < ST_LAB_MEASURES && st == SETUN_OK; m++)
        if (must(r, r->variant, m))
            st = measure_one(r, m, err);
    setun_free(r->id);
    return st;
}

static setun_status measure_variant(st_lab_run *r, int32_t i, setun_error *err)
{
    setun_model *m = NULL;
    int any = 0;
    for (int k = 0; k < ST_LAB_MEASURES; k++)
        any |= must(r, i, k);
    if (!any)
        return SETUN_OK;
    if (r->o->begin)
        r->o->begin(r->o->user, r->l->x->variant[i].name, "loading");
    r->variant = i;
    setun_status st = st_lab_load(r, i, &m, err);
    r->m = m;
    if (st == SETUN_OK)
        st = measure_loaded(r, err);
    setun_model_free(m);
    return st_lab_wrap(r, i, st, err);
}

/* ---------------------------------------------------------------- the whole */

static setun_status open_out(st_lab_run *r, setun_error *err)
{
    const char *out = r->o->out;
    if (!out || !*out)
        return st_fail(err, SETUN_BAD_ARG, "an experiment needs a directory for its results");
    if (!(r->arena = st_arena_new()) || !(r->json_path = st_arena_printf(r->arena, "%s/results.json", out)) ||
        !(r->report_path = st_arena_printf(r->arena, "%s/report.html", out)) ||
        !(r->logits_path = st_arena_printf(r->arena, "%s/base.logits", out)))
        return no_memory(err);
    ST_TRY(st_make_dirs(out, 0, err));
    return r->l->x->text ? st_file_read(r->l->x->text, TEXT_LIMIT, &r->text, &r->n_text, err) : SETUN_OK;
}

static setun_status report(const st_lab_run *r, setun_write_fn *write, void *user, setun_error *err)
{
    st_str page = {0}, table = {0};
    char *json = NULL;
    int64_t n_json = 0;
    setun_status st = st_lab_results_save(&r->results, r->json_path, err); /* without what the file no longer asks for */
    st_lab_html(r, &page);
    st_lab_table(r, &table);
    if (st == SETUN_OK && (page.failed || table.failed))
        st = no_memory(err);
    if (st == SETUN_OK)
        st = st_file_write(r->report_path, page.text, (int64_t)page.len, 0, err);
    if (st == SETUN_OK && r->o->json)
        st = st_file_read(r->json_path, INT32_MAX, &json, &n_json, err);
    if (st == SETUN_OK && write(user, json ? json : table.text, json ? (size_t)n_json : table.len))
        st = st_fail(err, SETUN_CANCELLED, "cancelled by the caller, who took no more text");
    free(json);
    st_str_free(&page);
    st_str_free(&table);
    return st;
}

setun_status setun_lab_run(const setun_lab *l, const setun_lab_options *o, setun_write_fn *write, void *user, setun_error *err)
{
    st_lab_run r = {.l = l, .o = o};
    setun_status st = open_out(&r, err);
    if (st == SETUN_OK)
        st = take_old(&r, err);
    if (st == SETUN_OK)
        st = measure_variant(&r, l->x->base, err);
    for (int32_t i = 0; i < l->x->n_variant && st == SETUN_OK; i++)
        if (i != l->x->base)
            st = measure_variant(&r, i, err);
    st_lab_layers_free(&r.base);
    if (st == SETUN_OK)
        st = st_lab_speed(&r, err);
    if (st == SETUN_OK)
        st = report(&r, write, user, err);
    free(r.text);
    st_arena_free(r.arena);
    return st;
}
