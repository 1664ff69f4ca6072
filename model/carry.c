/* model/carry.c -- see carry.h; the tables of names are gguf_tables.c.
 *
 * Between two files of one kind everything is copied that does not say how tensors are stored.  Between
 * kinds, keys go through the tables; the tokenizer is carry_vocab.c's and carry_files.c's. */
#include "model/carry.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "model/json.h"
#include "model/pooling.h"

#define FILE_LIMIT ((int64_t)256 << 20)

static setun_status no_memory(const char *path, setun_error *err)
{
    return st_fail(err, SETUN_NO_MEMORY, "no memory to convert %s", path);
}

const st_gguf_arch *st_carry_arch(const char *class_name)
{
    int64_t n;
    const st_gguf_arch *row = st_gguf_archs(&n);
    for (int64_t i = 0; i < n; i++)
        if (strcmp(row[i].class_name, class_name) == 0)
            return &row[i];
    return NULL;
}

/* ---------------------------------------------------------------- directory to GGUF: keys */

typedef struct keys {
    const st_source    *s;
    st_gguf_writer     *w;
    const st_gguf_arch *arch;
} keys;

static void key_name(const keys *k, const char *suffix, char name[160])
{
    (void)snprintf(name, 160, "%s.%s", k->arch->name, suffix);
}

static void put_u32(const keys *k, const char *suffix, int64_t v)
{
    char name[160];
    key_name(k, suffix, name);
    st_gguf_write_int(k->w, name, ST_GGUF_U32, v);
}

/* Newer configurations have the numbers of rope in an object of their own. */
static const st_hparam *config(const keys *k, const char *name)
{
    char inner[128];
    const st_hparam *h = st_source_config(k->s, name);
    if (h)
        return h;
    (void)snprintf(inner, sizeof inner, "rope_parameters.%s", name);
    return st_source_config(k->s, inner);
}

static setun_status put_row(const keys *k, const st_gguf_key *row, setun_error *err)
{
    char name[160];
    const st_hparam *h = config(k, row->config);
    if (!h)
        return row->needed & k->arch->in && row->kind != ST_KEY_OWN
                   ? st_fail(err, SETUN_BAD_FILE, "%s: config.json has no %s, and a GGUF file needs it", k->s->path, row->config)
                   : SETUN_OK;
    key_name(k, row->suffix, name);
    if (row->type == ST_GGUF_F32 && (h->kind == ST_HP_FLOAT || h->kind == ST_HP_INT))
        st_gguf_write_f32(k->w, name, (float)h->f);
    else if (row->type == ST_GGUF_U32 && h->kind == ST_HP_INT && h->i >= 0 && h->i <= UINT32_MAX)
        st_gguf_write_int(k->w, name, ST_GGUF_U32, h->i);
    else
        return st_fail(err, SETUN_BAD_FILE, "%s: %s in config.json is not a number that a GGUF file can have", k->s->path, row->config);
    return SETUN_OK;
}

/* Sizes that follow from others. */
static setun_status put_sizes(const keys *k, setun_error *err)
{
    const st_hparam *dim = config(k, "head_dim"), *hidden = config(k, "hidden_size"), *heads = config(k, "num_attention_heads");
    const st_source_tensor *embed = st_source_find(k->s, "model.embed_tokens.weight");
    if (!hidden || !heads || hidden->kind != ST_HP_INT || heads->kind != ST_HP_INT || heads->i < 1)
        return st_fail(err, SETUN_BAD_FILE, "%s: config.json has no hidden_size or num_attention_heads", k->s->path);
    if (!embed)
        return st_fail(err, SETUN_BAD_FILE, "%s: tensor model.embed_tokens.weight is missing", k->s->path);
    int64_t size = dim && dim->kind == ST_HP_INT ? dim->i : hidden->i / heads->i;
    put_u32(k, "vocab_size", embed->rows);
    put_u32(k, "rope.dimension_count", size);
    if (dim) /* key_length is a row of the table */
        put_u32(k, "attention.value_length", size);
    return SETUN_OK;
}

static double number(const st_hparam *h) { return h && (h->kind == ST_HP_INT || h->kind == ST_HP_FLOAT) ? h->f : 0; }

/* A member of rope_scaling, at its older or newer place. */
static const st_hparam *scaling(const st_source *s, const char *name)
{
    char key[128];
    (void)snprintf(key, sizeof key, "rope_scaling.%s", name);
    const st_hparam *h = st_source_config(s, key);
    (void)snprintf(key, sizeof key, "rope_parameters.%s", name);
    return h ? h : st_source_config(s, key);
}

static const char *scaling_type(const st_source *s)
{
    const st_hparam *h = scaling(s, "rope_type");
    h = h ? h : scaling(s, "type");
    return h && h->kind == ST_HP_STRING ? h->s : "default";
}

/* Linear scaling is keys; Llama 3's is a tensor, which one architecture has; others have no place. */
static setun_status put_scaling(const keys *k, setun_error *err)
{
    const char *type = scaling_type(k->s);
    double factor = number(scaling(k->s, "factor"));
    int64_t n;
    char name[160];
    if (strcmp(type, "default") == 0 || st_carry_divisors(k->s, NULL, &n))
        return SETUN_OK;
    if (strcmp(type, "linear") != 0 || !(factor > 0))
        return st_fail(err, SETUN_UNKNOWN, "%s: the rope_scaling %s is not written to GGUF; linear is, and llama3 with factors 1 and 4 of "
                       "LlamaForCausalLM", k->s->path, type);
    key_name(k, "rope.scaling.type", name);
    st_gguf_write_text(k->w, name, "linear", 6);
    key_name(k, "rope.scaling.factor", name);
    st_gguf_write_f32(k->w, name, (float)factor);
    return SETUN_OK;
}

int st_carry_divisors(const st_source *s, float *out, int64_t *n)
{
    const st_gguf_arch *arch = st_carry_arch(s->architecture);
    const st_hparam *theta = st_source_config(s, "rope_theta"), *dim = st_source_config(s, "head_dim");
    double factor = number(scaling(s, "factor")), context = number(scaling(s, "original_max_position_embeddings"));
    double heads = number(st_source_config(s, "num_attention_heads")), hidden = number(st_source_config(s, "hidden_size"));
    double half = (number(dim) > 0 ? number(dim) : heads > 0 ? hidden / heads : 0) / 2;
    theta = theta ? theta : st_source_config(s, "rope_parameters.rope_theta");
    if (s->model || !arch || arch->in != ST_GGUF_LLAMA || strcmp(scaling_type(s), "llama3") != 0 || !(factor >= 1) || !(context > 0) ||
        !(half >= 1 && half < 65536) || number(scaling(s, "low_freq_factor")) != ST_LLAMA3_LOW ||
        number(scaling(s, "high_freq_factor")) != ST_LLAMA3_HIGH)
        return 0;
    *n = (int64_t)half;
    for (int64_t i = 0; i < *n && out; i++)
        out[i] = (float)st_llama3_divisor(theta ? number(theta) : 10000, i, *n, factor, context);
    return 1;
}

/* Gemma 3: which layers have a window, by their pattern or one by one. */
static void put_windows(const keys *k)
{
    const st_hparam *every = config(k, "sliding_window_pattern"), *layers = config(k, "num_hidden_layers");
    st_str bytes = { 0 };
    char name[160];
    int64_t n = 0;
    if (k->arch->in != ST_GGUF_GEMMA3)
        return;
    every = every ? every : config(k, "_sliding_window_pattern");
    if (every && every->kind == ST_HP_INT)
        put_u32(k, "attention.sliding_window_pattern", every->i);
    for (; !every && layers && n < layers->i; n++) {
        char type[64];
        (void)snprintf(type, sizeof type, "layer_types.%lld", (long long)n + 1);
        const st_hparam *h = st_source_config(k->s, type);
        if (!h || h->kind != ST_HP_STRING)
            break;
        const uint8_t slides = strcmp(h->s, "sliding_attention") == 0;
        st_str_addn(&bytes, &slides, 1);
    }
    key_name(k, "attention.sliding_window_pattern", name);
    if (n > 0)
        st_gguf_write_array(k->w, name, ST_GGUF_BOOL, n, &bytes);
    st_str_free(&bytes);
}

static setun_status check_activation(const keys *k, setun_error *err)
{
    const st_hparam *act = config(k, "hidden_activation");
    act = act ? act : config(k, "hidden_act");
    if (act && act->kind == ST_HP_STRING && strcmp(act->s, k->arch->activation) != 0)
        return st_fail(err, SETUN_UNKNOWN, "%s: the gate is %s, and GGUF's architecture %s means %s", k->s->path, act->s, k->arch->name,
                       k->arch->activation);
    return SETUN_OK;
}

static int is_rotated(const st_source *s, const char **key)
{
    for (int64_t i = 0; i < s->n_config; i++)
        if (strncmp(s->config[i].key, ST_ROTATION_PREFIX, strlen(ST_ROTATION_PREFIX)) == 0) {
            *key = s->config[i].key;
            return 1;
        }
    return 0;
}

/* Rotated matrices with a configuration that does not say so would be another model; of one architecture
 * GGUF has keys for it. */
static setun_status put_rotation(const keys *k, setun_error *err)
{
    const char *key;
    if (!is_rotated(k->s, &key))
        return SETUN_OK;
    if (k->arch->in != ST_GGUF_QWEN3)
        return st_fail(err, SETUN_UNKNOWN, "%s: its matrices are folded with a rotation (%s), which GGUF's architecture %s does not have",
                       k->s->path, key, k->arch->name);
    st_gguf_rotation_put(k->w, k->s->config, k->s->n_config);
    return SETUN_OK;
}

/* How a text embedding model makes one vector of many: the key is for those alone. */
static setun_status put_pooling(const keys *k, setun_error *err)
{
    st_pooling p;
    if (k->arch->in != ST_GGUF_QWEN3 || !st_source_find(k->s, "model.layers.0.self_attn.q_proj.norm.weight"))
        return SETUN_OK;
    ST_TRY(st_pooling_read(&p, k->s->path, k->s->arena, err));
    if (p.raw)
        return st_fail(err, SETUN_UNKNOWN, "%s: modules.json does not divide vectors by their length, and a GGUF file cannot say so", k->s->path);
    for (int64_t type = 1; st_gguf_pooling(type); type++)
        if (strcmp(st_gguf_pooling(type), st_pooling_name(p.kind)) == 0)
            put_u32(k, "pooling_type", type);
    return SETUN_OK;
}

static setun_status keys_of_directory(const st_source *s, st_gguf_writer *w, int64_t file_type, st_str *notes, setun_error *err)
{
    int64_t n;
    const st_gguf_key *row = st_gguf_keys(&n);
    const keys k = { s, w, st_carry_arch(s->architecture) };
    if (!k.arch)
        return st_fail(err, SETUN_UNKNOWN, "%s: GGUF has no architecture for %s", s->path, s->architecture);
    const char *path = s->name ? s->name : s->path, *end = path + strlen(path);
    while (end > path + 1 && end[-1] == '/')
        end--;
    const char *name = end;
    while (name > path && name[-1] != '/')
        name--;
    st_gguf_write_text(w, "general.architecture", k.arch->name, strlen(k.arch->name));
    st_gguf_write_text(w, "general.name", name, (size_t)(end - name));
    if (file_type >= 0)
        st_gguf_write_int(w, "general.file_type", ST_GGUF_U32, file_type);
    st_gguf_write_int(w, "general.quantization_version", ST_GGUF_U32, 2);
    ST_TRY(check_activation(&k, err));
    for (int64_t i = 0; i < n; i++)
        if (row[i].config && row[i].in & k.arch->in)
            ST_TRY(put_row(&k, &row[i], err));
    ST_TRY(put_sizes(&k, err));
    ST_TRY(put_scaling(&k, err));
    put_windows(&k);
    ST_TRY(put_rotation(&k, err));
    ST_TRY(put_pooling(&k, err));
    return st_carry_vocab_keys(s, w, notes, err);
}

/* ---------------------------------------------------------------- GGUF to GGUF: keys */

/* Keys that say how this file is laid out and what its tensors mostly are. */
static int is_own(const char *key)
{
    return strcmp(key, "general.file_type") == 0 || strcmp(key, "general.alignment") == 0 || strcmp(key, ST_I2S_KEY) == 0 ||
           strcmp(key, ST_ACTIVATIONS_KEY) == 0 || strncmp(key, "split.", 6) == 0;
}

setun_status st_carry_keys(const st_source *s, st_gguf_writer *w, int64_t file_type, st_str *notes, setun_error *err)
{
    if (!s->model)
        return keys_of_directory(s, w, file_type, notes, err);
    const st_gguf *g = &s->model->g;
    for (int64_t i = 0; i < g->n_values; i++)
        if (!is_own(g->value[i].key))
            st_gguf_write_value(w, &g->value[i]);
    if (file_type >= 0)
        st_gguf_write_int(w, "general.file_type", ST_GGUF_U32, file_type);
    return SETUN_OK;
}

/* ---------------------------------------------------------------- directory to directory: files */

static int ends_with(const char *name, const char *end)
{
    size_t n = strlen(name), m = strlen(end);
    return n >= m && strcmp(name + n - m, end) == 0;
}

/* Weights in any container, and what is written anew. */
static int is_replaced(const char *name)
{
    return strcmp(name, "config.json") == 0 || ends_with(name, ".safetensors") || ends_with(name, ".safetensors.index.json") ||
           ends_with(name, ".bin") || ends_with(name, ".gguf") || ends_with(name, ".pth");
}

static setun_status copy_file(const st_source *s, st_newdir *d, const char *name, st_str *notes, setun_error *err)
{
    st_str path = { 0 };
    char *text = NULL;
    int64_t n = 0;
    st_str_addf(&path, "%s/%s", s->path, name);
    if (path.failed)
        return no_memory(s->path, err);
    int is_file = st_is_file(path.text);
    setun_status st = is_file ? st_file_read(path.text, FILE_LIMIT, &text, &n, err) : SETUN_OK;
    st_str_free(&path);
    if (is_file && st == SETUN_OK)
        st = st_newdir_text(d, name, text, (size_t)n, err);
    else if (!is_file)
        st_str_addf(notes, "not copied: %s, which is not a file\n", name);
    free(text);
    return st;
}

static setun_status copy_files(const st_source *s, st_newdir *d, st_str *notes, setun_error *err)
{
    char **names;
    int64_t n;
    ST_TRY(st_dir_list(s->path, &names, &n, err));
    setun_status st = SETUN_OK;
    for (int64_t i = 0; i < n && st == SETUN_OK; i++)
        if (!is_replaced(names[i]))
            st = copy_file(s, d, names[i], notes, err);
    st_dir_free(names, n);
    return st;
}

static setun_status read_config(const st_source *s, json_t **root, setun_error *err)
{
    st_str path = { 0 };
    st_str_addf(&path, "%s/config.json", s->path);
    setun_status st = path.failed ? no_memory(s->path, err) : st_json_load(path.text, ST_JSON_SMALL, NULL, root, err);
    st_str_free(&path);
    return st;
}

/* ---------------------------------------------------------------- GGUF to directory: config.json */

static json_t *value_of(const st_hparam *h)
{
    switch (h->kind) {
    case ST_HP_INT: return json_integer(h->i);
    case ST_HP_FLOAT: return json_real(h->f);
    case ST_HP_BOOL: return json_boolean(h->i);
    case ST_HP_STRING: return json_string(h->s);
    default: return json_null();
    }
}

/* "rope_scaling.factor" is a member of an object, "layer_types.1" the first of a list. */
static int put_config(json_t *root, const st_hparam *h)
{
    char name[128];
    const char *dot = strchr(h->key, '.');
    if (!dot)
        return json_object_set_new(root, h->key, value_of(h));
    (void)snprintf(name, sizeof name, "%.*s", (int)(dot - h->key), h->key);
    int is_list = strspn(dot + 1, "0123456789") == strlen(dot + 1);
    json_t *inner = json_object_get(root, name);
    if (!inner) {
        inner = is_list ? json_array() : json_object();
        if (json_object_set_new(root, name, inner))
            return -1;
    }
    return is_list ? json_array_append_new(inner, value_of(h)) : json_object_set_new(inner, dot + 1, value_of(h));
}

/* What is said by other files, or of this file alone. */
static int is_elsewhere(const char *key)
{
    return strncmp(key, "generation.", 11) == 0 || strncmp(key, "gguf.", 5) == 0;
}

static setun_status config_of_gguf(const st_source *s, json_t **root, setun_error *err)
{
    const st_source_tensor *embed = st_source_find(s, "model.embed_tokens.weight");
    const char *key;
    if (is_rotated(s, &key))
        return st_fail(err, SETUN_UNKNOWN, "%s: its matrices are folded with a rotation (%s), which is not carried over to a directory",
                       s->path, key);
    if (s->model->inner_norms)
        return st_fail(err, SETUN_UNKNOWN, "%s: text embedding models are not written to a directory: how they pool would be lost", s->path);
    *root = json_pack("{s[s]ss}", "architectures", s->architecture, "model_type", s->model->arch->model_type);
    int bad = !*root;
    for (int64_t i = 0; i < s->n_config && !bad; i++)
        if (!is_elsewhere(s->config[i].key))
            bad = put_config(*root, &s->config[i]);
    if (embed && !json_object_get(*root, "vocab_size"))
        bad |= json_object_set_new(*root, "vocab_size", json_integer(embed->rows));
    return bad ? no_memory(s->path, err) : SETUN_OK;
}

/* ---------------------------------------------------------------- any to directory */

/* The rule by which weights are read follows from how they were written.  Modules that stay floats
 * keep their list. */
static int set_rule(json_t *root, int packed, const char *dtype)
{
    json_t *old = json_object_get(root, "quantization_config"), *spared = json_object_get(old, "modules_to_not_convert");
    json_t *rule = json_pack("{ssssss}", "quant_method", "bitnet", "linear_class", "autobitlinear", "quantization_mode", "offline");
    int bad = !rule;
    if (json_array_size(spared))
        bad |= json_object_set(rule, "modules_to_not_convert", spared);
    (void)json_object_del(root, "dtype");
    bad |= json_object_set_new(root, "torch_dtype", json_string(dtype));
    if (packed)
        return bad | json_object_set_new(root, "quantization_config", rule);
    json_decref(rule);
    (void)json_object_del(root, "quantization_config");
    return bad;
}

setun_status st_carry_files(const st_source *s, st_newdir *d, int packed, const char *dtype, st_str *notes, setun_error *err)
{
    json_t *root = NULL;
    setun_status st = s->model ? config_of_gguf(s, &root, err) : read_config(s, &root, err);
    if (st == SETUN_OK && set_rule(root, packed, dtype))
        st = no_memory(s->path, err);
    char *text = st == SETUN_OK ? json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(15)) : NULL;
    if (st == SETUN_OK)
        st = st_newdir_text(d, "config.json", text, text ? strlen(text) : 0, err);
    free(text);
    json_decref(root);
    if (st == SETUN_OK)
        st = s->model ? st_carry_vocab_files(s, d, notes, err) : copy_files(s, d, notes, err);
    return st;
}
