/* model/config.c -- flatten config.json, and refuse what is not understood.
 *
 * A key that Setun does not know may change the function that the weights compute; a model that
 * runs while such a key is ignored is silently wrong.  So every key is in the table below, with a
 * reason: PASS hands it to the model script, which must honour or refuse it, DROP is safe to
 * ignore. generation_config.json does not change the function: there, unknown keys are ignored. */
#include "model/config.h"

#include <jansson.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "base/hash.h"
#include "model/json.h"

#define CONFIG_DEPTH 4
#define CONFIG_KEYS 20000
#define CONFIG_KEY_LENGTH 128

enum { DROP, PASS };

typedef struct key_row {
    const char *key; /* dotted; "x.*" is everything below x */
    int         use;
    const char *reason;
} key_row;

static const key_row keys[] = {
    { "architectures", DROP, "kept apart: selects the model script" },
    { "model_type", PASS, "names the family" },
    { "hidden_size", PASS, "shape" },
    { "intermediate_size", PASS, "shape" },
    { "num_hidden_layers", PASS, "shape" },
    { "num_attention_heads", PASS, "shape" },
    { "num_key_value_heads", PASS, "shape" },
    { "head_dim", PASS, "shape, where it is not hidden / heads" },
    { "vocab_size", PASS, "shape" },
    { "max_position_embeddings", PASS, "longest context" },
    { "hidden_act", PASS, "gate activation" },
    { "hidden_activation", PASS, "newer spelling of hidden_act" },
    { "rms_norm_eps", PASS, "norm" },
    { "rope_theta", PASS, "rotary base" },
    { "rope_scaling", PASS, "null, or as below" },
    { "rope_scaling.*", PASS, "changes rotary angles" },
    { "rope_parameters", PASS, "null, or as below" },
    { "rope_parameters.*", PASS, "newer place of rope_theta and rope_scaling" },
    { "partial_rotary_factor", PASS, "changes rotary positions" },
    { "tie_word_embeddings", PASS, "head" },
    { "attention_bias", PASS, "true adds tensors" },
    { "mlp_bias", PASS, "true adds tensors" },
    { "sliding_window", PASS, "changes attention when active" },
    { "use_sliding_window", PASS, "changes attention when true" },
    { "use_mrope", PASS, "changes rotary positions when true" },
    { "max_window_layers", PASS, "belongs to sliding windows" },
    { "layer_types", PASS, "may mark sliding layers" },
    { "sliding_window_pattern", PASS, "every how many layers one sees everything" },
    { "_sliding_window_pattern", PASS, "newer spelling of it" },
    { "rope_local_base_freq", PASS, "rotary base of sliding layers" },
    { "query_pre_attn_scalar", PASS, "scale of scores" },
    { "attn_logit_softcapping", PASS, "changes scores when there" },
    { "final_logit_softcapping", PASS, "changes logits when there" },
    { "use_bidirectional_attention", PASS, "changes attention when true" },
    { "cache_implementation", DROP, "how Python runs it" },
    { "bos_token_id", PASS, "token" },
    { "eos_token_id", PASS, "token or tokens" },
    { "pad_token_id", PASS, "token" },
    { "weight_bits", PASS, "1 marks float masters to be made ternary on load" },
    { "input_bits", PASS, "bits of activations" },
    { "quantization_config", PASS, "null, or as below" },
    { "quantization_config.quant_method", PASS, "checked in weights.c" },
    { "quantization_config.linear_class", PASS, "multiply or divide" },
    { "quantization_config.quantization_mode", PASS, "packed or float masters" },
    { "quantization_config.modules_to_not_convert", PASS, "stay float" },
    { "quantization_config.use_rms_norm", PASS, "true is refused in weights.c" },
    { "quantization_config.rms_norm_eps", PASS, "used only with use_rms_norm" },
    { "prism.hadamard.*", PASS, "which matrices want rotated inputs" },
    { "auto_map.*", DROP, "names Python files; Setun runs none" },
    { "is_bitnet_config", PASS, "mark of a training tool; weights.c: the tensors must say the same" },
    { "initializer_range", DROP, "training only" },
    { "attention_dropout", DROP, "training only" },
    { "hidden_dropout", DROP, "training only" },
    { "pretraining_tp", DROP, "slices a product without changing it" },
    { "torch_dtype", DROP, "every tensor says its own type" },
    { "dtype", DROP, "newer spelling of torch_dtype" },
    { "transformers_version", DROP, "record" },
    { "use_cache", DROP, "how Python runs it" },
    { "output_attentions", DROP, "how Python runs it" },
    { "output_hidden_states", DROP, "how Python runs it" },
    { "return_dict", DROP, "how Python runs it" },
    { "torchscript", DROP, "how Python runs it" },
    { "_attn_implementation_autoset", DROP, "how Python runs it" },
    { "_name_or_path", DROP, "record" },
    { "tokenizer_class", DROP, "tokenizer.json says it" },
};

static const char *const generation_keys[] = {
    "bos_token_id", "eos_token_id", "pad_token_id", "do_sample",          "temperature",
    "top_p",        "top_k",        "min_p",        "repetition_penalty",
};

/* Does a flattened key belong to a row?  "eos_token_id.2" belongs to "eos_token_id". */
static int matches(const char *row, const char *key)
{
    size_t n = strlen(row);
    if (n > 2 && row[n - 1] == '*')
        return strncmp(row, key, n - 1) == 0;
    if (strncmp(row, key, n) != 0)
        return 0;
    if (key[n] == '\0')
        return 1;
    return key[n] == '.' && key[n + 1] != '\0' &&
           strspn(key + n + 1, "0123456789") == strlen(key + n + 1);
}

static setun_status add(st_config *c, const char *key, json_t *v, st_arena *arena, setun_error *err)
{
    if (c->n == c->cap) {
        int64_t cap = c->cap ? 2 * c->cap : 64;
        st_hparam *more = st_arena_array(arena, cap, sizeof *more);
        if (!more)
            return st_fail(err, SETUN_NO_MEMORY, "no memory for %s", c->path);
        if (c->n)
            memcpy(more, c->item, (size_t)c->n * sizeof *more);
        c->item = more;
        c->cap = cap;
    }
    st_hparam *h = &c->item[c->n];
    memset(h, 0, sizeof *h);
    h->key = key;
    if (json_is_integer(v)) {
        h->kind = ST_HP_INT;
        h->i = json_integer_value(v);
        h->f = (double)h->i;
    } else if (json_is_real(v)) {
        h->kind = ST_HP_FLOAT;
        h->f = json_real_value(v);
    } else if (json_is_boolean(v)) {
        h->kind = ST_HP_BOOL;
        h->i = json_is_true(v);
    } else if (json_is_string(v)) {
        h->kind = ST_HP_STRING;
        h->s = st_arena_strdup(arena, json_string_value(v));
        if (!h->s)
            return st_fail(err, SETUN_NO_MEMORY, "no memory for %s", c->path);
    } else {
        h->kind = ST_HP_NULL;
    }
    c->n++;
    return SETUN_OK;
}

static setun_status unknown(const st_config *c, const char *key, setun_error *err)
{
    return st_fail(err, SETUN_UNKNOWN,
                   "%s: the key %s is not known to Setun and may change what the model computes",
                   c->path, key);
}

static setun_status leaf(st_config *c, const char *key, json_t *v, st_arena *arena,
                         setun_error *err)
{
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (matches(keys[i].key, key))
            return keys[i].use == PASS ? add(c, key, v, arena, err) : SETUN_OK;
    return unknown(c, key, err);
}

/* An empty list or object has no values that could be understood or refused one by one. */
static setun_status empty(const st_config *c, const char *key, int is_list, setun_error *err)
{
    static const struct { const char *key; int is_list; } allowed[] = {
        { "architectures", 1 },   { "auto_map", 0 },     { "eos_token_id", 1 }, { "layer_types", 1 }, { "quantization_config", 0 },
        { "quantization_config.modules_to_not_convert", 1 }, { "prism.hadamard.inverse_weight_names", 1 },
        { "rope_parameters", 0 }, { "rope_scaling", 0 },
    };
    for (size_t i = 0; i < sizeof allowed / sizeof *allowed; i++)
        if (allowed[i].is_list == is_list && strcmp(allowed[i].key, key) == 0)
            return SETUN_OK;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (matches(keys[i].key, key))
            return st_fail(err, SETUN_BAD_FILE, "%s: %s is an empty %s", c->path, key, is_list ? "list" : "object");
    return unknown(c, key, err);
}

static setun_status flatten(st_config *c, const char *prefix, json_t *v, int depth, st_arena *arena,
                            setun_error *err)
{
    if (depth > CONFIG_DEPTH)
        return st_fail(err, SETUN_BAD_FILE, "%s: %s is nested too deeply", c->path, prefix);
    if (depth > 0 && (json_is_object(v) || json_is_array(v)) && !json_object_size(v) &&
        !json_array_size(v))
        return empty(c, prefix, json_is_array(v), err);
    const char *dot = prefix[0] ? "." : "";
    if (json_is_object(v)) {
        const char *key;
        json_t *member;
        json_object_foreach(v, key, member) {
            if (strchr(key, '.') || key[0] == '\0' || strlen(key) > CONFIG_KEY_LENGTH)
                return st_fail(err, SETUN_UNKNOWN, "%s: a key named '%.*s' cannot be used", c->path,
                               CONFIG_KEY_LENGTH, key);
            const char *name = st_arena_printf(arena, "%s%s%s", prefix, dot, key);
            if (!name)
                return st_fail(err, SETUN_NO_MEMORY, "no memory for %s", c->path);
            ST_TRY(flatten(c, name, member, depth + 1, arena, err));
        }
        return SETUN_OK;
    }
    if (json_is_array(v)) {
        for (size_t i = 0; i < json_array_size(v); i++) {
            const char *name = st_arena_printf(arena, "%s%s%zu", prefix, dot, i + 1);
            if (!name)
                return st_fail(err, SETUN_NO_MEMORY, "no memory for %s", c->path);
            ST_TRY(flatten(c, name, json_array_get(v, i), depth + 1, arena, err));
        }
        return SETUN_OK;
    }
    if (++c->n_seen > CONFIG_KEYS)
        return st_fail(err, SETUN_BAD_FILE, "%s: more than %d values", c->path, CONFIG_KEYS);
    return leaf(c, prefix, v, arena, err);
}

static setun_status load(st_config *c, const char *path, json_t **root, setun_error *err)
{
    ST_TRY(st_json_load(path, ST_JSON_SMALL, &c->hash, root, err));
    if (!json_is_object(*root)) {
        json_decref(*root);
        return st_fail(err, SETUN_BAD_FILE, "%s: not a JSON object", path);
    }
    return SETUN_OK;
}

/* A list of ids in both spellings, 5 and [5, 6], comes out numbered from 1. */
static setun_status generation(st_config *c, json_t *root, st_arena *arena, setun_error *err)
{
    for (size_t i = 0; i < sizeof generation_keys / sizeof *generation_keys; i++) {
        json_t *v = json_object_get(root, generation_keys[i]);
        int is_list = json_is_array(v), is_eos = strcmp(generation_keys[i], "eos_token_id") == 0;
        size_t n = is_list ? json_array_size(v) : 1;
        if (!v || json_is_null(v) || (!is_eos && (is_list || json_is_object(v))))
            continue;
        for (size_t k = 0; k < n; k++) {
            json_t *item = is_list ? json_array_get(v, k) : v;
            if (json_is_array(item) || json_is_object(item) || (is_eos && !json_is_integer(item)))
                return st_fail(err, SETUN_BAD_FILE,
                               "generation_config.json beside %s: %s is not an id or a list of ids",
                               c->path, generation_keys[i]);
            const char *name =
                is_eos ? st_arena_printf(arena, "generation.%s.%zu", generation_keys[i], k + 1)
                       : st_arena_printf(arena, "generation.%s", generation_keys[i]);
            if (!name)
                return st_fail(err, SETUN_NO_MEMORY, "no memory for the configuration");
            ST_TRY(add(c, name, item, arena, err));
        }
    }
    return SETUN_OK;
}

setun_status st_config_open(st_config *c, const char *dir, st_arena *arena, setun_error *err)
{
    memset(c, 0, sizeof *c);
    c->hash = ST_HASH_INIT;
    const char *gen_path = st_arena_printf(arena, "%s/generation_config.json", dir);
    c->path = st_arena_printf(arena, "%s/config.json", dir);
    if (!c->path || !gen_path)
        return st_fail(err, SETUN_NO_MEMORY, "no memory to open %s", dir);
    if (st_is_absent(c->path))
        return st_fail(err, SETUN_BAD_FILE, "%s has no config.json", dir);
    json_t *root;
    ST_TRY(load(c, c->path, &root, err));
    setun_status st = flatten(c, "", root, 0, arena, err);
    json_t *archs = json_object_get(root, "architectures"), *arch = json_array_get(archs, 0);
    if (st == SETUN_OK && (!json_is_string(arch) || json_array_size(archs) > 1))
        st = st_fail(err, SETUN_BAD_FILE, "%s: architectures does not name one%s", c->path, json_is_string(arch) ? ", but several" : "");
    if (st == SETUN_OK && !(c->architecture = st_arena_strdup(arena, json_string_value(arch))))
        st = st_fail(err, SETUN_NO_MEMORY, "no memory to open %s", dir);
    json_decref(root);
    if (st != SETUN_OK || st_is_absent(gen_path))
        return st;
    ST_TRY(load(c, gen_path, &root, err));
    st = generation(c, root, arena, err);
    json_decref(root);
    return st;
}

const st_hparam *st_config_find(const st_config *c, const char *key)
{
    for (int64_t i = 0; i < c->n; i++)
        if (strcmp(c->item[i].key, key) == 0)
            return c->item[i].kind == ST_HP_NULL ? NULL : &c->item[i];
    return NULL;
}

setun_status st_config_string(const st_config *c, const char *key, const char *fallback,
                              const char **out, setun_error *err)
{
    const st_hparam *h = st_config_find(c, key);
    if (h && h->kind != ST_HP_STRING)
        return st_fail(err, SETUN_BAD_FILE, "%s: %s is not a string", c->path, key);
    *out = h ? h->s : fallback;
    return SETUN_OK;
}
