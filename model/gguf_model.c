/* model/gguf_model.c -- which model a GGUF file holds: its keys as those of a config.json, its tensors
 * under the names of a Hugging Face checkpoint.  So one model script serves both.
 *
 * Nothing is guessed.  A key or tensor that is not in gguf_tables.c is refused, one that is missing,
 * too, and what the file says twice must agree: keys with each other, every shape with the keys.  What
 * no key says (the activation of the gate, the pairs of the rotation, whether the head is tied, whether
 * activations are quantised) follows from the architecture, the tensors or the caller, and each such
 * decision is a line for people to read. */
#include "model/gguf_model.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/hash.h"
#include "base/str.h"
#include "model/convert.h"

#define NO_ARCH "no architecture"

static setun_status no_memory(const st_gguf_model *m, setun_error *err)
{
    return st_fail(err, SETUN_NO_MEMORY, "no memory to open %s", m->g.path);
}

/* ---------------------------------------------------------------- lines and config keys */

static setun_status line(st_gguf_model *m, const char *text, setun_error *err)
{
    if (!text || m->n_lines == m->cap_lines)
        return no_memory(m, err);
    m->line[m->n_lines++] = text;
    return SETUN_OK;
}

#define SAY(...) ST_TRY(line(m, st_arena_printf(m->arena, __VA_ARGS__), err))

setun_status st_gguf_model_put(st_gguf_model *m, const char *key, st_hparam value, setun_error *err)
{
    if (!key || m->config.n == m->config.cap)
        return no_memory(m, err);
    value.key = key;
    m->config.item[m->config.n++] = value;
    return SETUN_OK;
}

static setun_status put_int(st_gguf_model *m, const char *key, int64_t i, setun_error *err)
{
    return st_gguf_model_put(m, key, (st_hparam){ .kind = ST_HP_INT, .i = i, .f = (double)i }, err);
}

static setun_status put_float(st_gguf_model *m, const char *key, double f, setun_error *err)
{
    return st_gguf_model_put(m, key, (st_hparam){ .kind = ST_HP_FLOAT, .f = f }, err);
}

static setun_status put_flag(st_gguf_model *m, const char *key, int on, setun_error *err)
{
    return st_gguf_model_put(m, key, (st_hparam){ .kind = ST_HP_BOOL, .i = on }, err);
}

static setun_status put_text(st_gguf_model *m, const char *key, const char *s, setun_error *err)
{
    return st_gguf_model_put(m, key, (st_hparam){ .kind = ST_HP_STRING, .s = s }, err);
}

/* ---------------------------------------------------------------- values of keys */

static const st_gguf_value *find(const st_gguf_model *m, const char *suffix)
{
    char key[160];
    (void)snprintf(key, sizeof key, "%s.%s", m->g.architecture, suffix);
    return st_gguf_find(&m->g, key);
}

static setun_status bad_key(const st_gguf_model *m, const char *suffix, const char *what, setun_error *err)
{
    return st_fail(err, SETUN_BAD_FILE, "%s: key %s.%s %s", m->g.path, m->g.architecture, suffix, what);
}

static int is_float(const st_gguf_value *v) { return v->element == ST_GGUF_F32 || v->element == ST_GGUF_F64; }

/* A whole number from 1 to 2^31 - 1; a list of them, one a layer, if all are equal. */
static setun_status take_count(const st_gguf_model *m, const st_gguf_value *v, const char *suffix, int64_t *out, setun_error *err)
{
    int64_t each;
    if (v->element == ST_GGUF_BOOL || v->n < 1)
        return bad_key(m, suffix, "is not a whole number", err);
    for (int64_t i = 0; i < v->n; i++) {
        if (st_gguf_int(v, i, &each) || each < 1 || each > INT32_MAX)
            return bad_key(m, suffix, "is not a whole number from 1 to 2147483647", err);
        if (i && each != *out)
            return bad_key(m, suffix, "differs between layers, which Setun cannot compute", err);
        *out = each;
    }
    return SETUN_OK;
}

/* What was 1e-05 before it was stored in 32 bits is 1e-05 again: the shortest decimal that gives the same
 * 32 bits is what the model's own config.json has. */
static double shortest(double f)
{
    double back = f;
    for (int digits = 6; digits < 9; digits++) {
        char text[40];
        (void)snprintf(text, sizeof text, "%.*g", digits, f);
        if (st_parse_f64(text, &back) == 0 && (float)back == (float)f)
            return back;
    }
    return f;
}

static setun_status take_positive(const st_gguf_model *m, const st_gguf_value *v, const char *suffix, double *out, setun_error *err)
{
    if (v->type == ST_GGUF_ARRAY || !is_float(v) || !((float)st_gguf_float(v, 0) > 0.0f) || !(st_gguf_float(v, 0) < 1e30))
        return bad_key(m, suffix, "is not a number above 0 and below 1e30", err);
    *out = v->type == ST_GGUF_F32 ? shortest(st_gguf_float(v, 0)) : st_gguf_float(v, 0);
    return SETUN_OK;
}

static setun_status take_text(const st_gguf_model *m, const st_gguf_value *v, const char *suffix, const char **out, setun_error *err)
{
    int64_t n = 0;
    const char *text = st_gguf_text(v, &n);
    if (!text || n > 64 || memchr(text, 0, (size_t)n))
        return bad_key(m, suffix, "is not a short text", err);
    *out = st_arena_strndup(m->arena, text, (size_t)n);
    return *out ? SETUN_OK : no_memory(m, err);
}

static setun_status check_only(const st_gguf_model *m, const st_gguf_value *v, const st_gguf_key *k, setun_error *err)
{
    int64_t i = 0;
    double f = NAN;
    if (v->type != ST_GGUF_ARRAY && is_float(v))
        f = st_gguf_float(v, 0);
    else if (v->type != ST_GGUF_ARRAY && st_gguf_int(v, 0, &i) == 0)
        f = (double)i;
    if (f == k->only)
        return SETUN_OK;
    return st_fail(err, SETUN_UNKNOWN, "%s: key %s.%s is not %g, and Setun computes nothing else (%s)", m->g.path,
                   m->g.architecture, k->suffix, k->only, k->reason);
}

/* ---------------------------------------------------------------- which keys there are */

static int starts(const char *text, const char *with) { return strncmp(text, with, strlen(with)) == 0; }

/* Names of programs and records, the tokenizer's keys (tokenizer.c reads and checks them), the container's. */
static int is_elsewhere(const char *key)
{
    static const char *const spaces[] = { "general.", "tokenizer.", "split.", "quantize.", "mradermacher.", NULL };
    for (int i = 0; spaces[i]; i++)
        if (starts(key, spaces[i]))
            return 1;
    return strcmp(key, ST_I2S_KEY) == 0 /* gguf_types.c */ || strcmp(key, ST_ACTIVATIONS_KEY) == 0;
}

static setun_status check_key(const st_gguf_model *m, const st_gguf_value *v, setun_error *err)
{
    size_t prefix = strlen(m->g.architecture);
    int64_t n;
    const st_gguf_key *keys = st_gguf_keys(&n);
    if (is_elsewhere(v->key))
        return SETUN_OK;
    if (m->arch->in == ST_GGUF_QWEN3 && st_gguf_rotation_knows(v->key))
        return SETUN_OK;
    if (starts(v->key, ST_ROTATION_PREFIX) && m->arch->in != ST_GGUF_QWEN3)
        return st_fail(err, SETUN_UNKNOWN, "%s: key %s: activations must go through a Hadamard transform before they meet these "
                       "weights, which Setun does not compute", m->g.path, v->key);
    for (int64_t i = 0; i < n && starts(v->key, m->g.architecture) && v->key[prefix] == '.'; i++)
        if (strcmp(keys[i].suffix, v->key + prefix + 1) == 0 && keys[i].in & m->arch->in)
            return keys[i].kind == ST_KEY_ONLY ? check_only(m, v, &keys[i], err) : SETUN_OK;
    return st_fail(err, SETUN_UNKNOWN, "%s: the key %s is not known to Setun for the architecture %s and may change what the model "
                   "computes", m->g.path, v->key, m->g.architecture);
}

static setun_status check_keys(const st_gguf_model *m, setun_error *err)
{
    int64_t n, bytes = 0;
    const st_gguf_key *keys = st_gguf_keys(&n);
    const st_gguf_value *type = st_gguf_find(&m->g, "general.type");
    const char *text = type ? st_gguf_text(type, &bytes) : NULL;
    if (type && (!text || bytes != 5 || memcmp(text, "model", 5) != 0))
        return st_fail(err, SETUN_UNKNOWN, "%s: key general.type is not \"model\": the file holds something else", m->g.path);
    const st_gguf_value *blocks = st_gguf_find(&m->g, "general.quantization_version");
    int64_t version = 0;
    if (blocks && (blocks->type == ST_GGUF_ARRAY || st_gguf_int(blocks, 0, &version) || version != 2))
        return st_fail(err, SETUN_UNKNOWN, "%s: key general.quantization_version is not 2: blocks of another version may lie otherwise", m->g.path);
    for (int64_t i = 0; i < m->g.n_values; i++)
        ST_TRY(check_key(m, &m->g.value[i], err));
    for (int64_t i = 0; i < n; i++)
        if (keys[i].needed & m->arch->in && !find(m, keys[i].suffix))
            return bad_key(m, keys[i].suffix, "is missing", err);
    return SETUN_OK;
}

/* Rows that have a key of config.json, as they are. */
static setun_status map_keys(st_gguf_model *m, setun_error *err)
{
    int64_t n;
    const st_gguf_key *keys = st_gguf_keys(&n);
    for (int64_t i = 0; i < n; i++) {
        const st_gguf_key *k = &keys[i];
        const st_gguf_value *v = k->in & m->arch->in ? find(m, k->suffix) : NULL;
        int64_t count = 0;
        double f = 0;
        if (!v)
            continue;
        if (k->kind == ST_KEY_COUNT) {
            ST_TRY(take_count(m, v, k->suffix, &count, err));
            ST_TRY(put_int(m, k->config, count, err));
        } else if (k->kind == ST_KEY_POSITIVE) {
            ST_TRY(take_positive(m, v, k->suffix, &f, err));
            ST_TRY(put_float(m, k->config, f, err));
        }
    }
    return SETUN_OK;
}

/* ---------------------------------------------------------------- sizes */

static int64_t count_of(const st_gguf_model *m, const char *config)
{
    const st_hparam *h = st_config_find(&m->config, config);
    return h ? h->i : 0;
}

static setun_status must_be(const st_gguf_model *m, const char *suffix, int64_t want, const char *because, setun_error *err)
{
    const st_gguf_value *v = find(m, suffix);
    int64_t is = 0;
    if (!v)
        return SETUN_OK;
    ST_TRY(take_count(m, v, suffix, &is, err));
    if (is != want)
        return st_fail(err, SETUN_BAD_FILE, "%s: key %s.%s is %lld, but %s makes it %lld", m->g.path, m->g.architecture, suffix,
                       (long long)is, because, (long long)want);
    return SETUN_OK;
}

static setun_status take_sizes(st_gguf_model *m, setun_error *err)
{
    const st_gguf_value *v = find(m, "attention.key_length");
    int64_t *size = m->size, at;
    m->layers = count_of(m, "num_hidden_layers");
    m->heads = count_of(m, "num_attention_heads");
    m->kv_heads = count_of(m, "num_key_value_heads");
    if (!m->kv_heads) {
        m->kv_heads = m->heads;
        ST_TRY(put_int(m, "num_key_value_heads", m->kv_heads, err));
    }
    size[ST_SIZE_HIDDEN] = count_of(m, "hidden_size");
    size[ST_SIZE_FFN] = count_of(m, "intermediate_size");
    if (m->heads % m->kv_heads)
        return bad_key(m, "attention.head_count_kv", "does not divide attention.head_count", err);
    if (v)
        ST_TRY(take_count(m, v, "attention.key_length", &size[ST_SIZE_HEAD], err));
    else if (size[ST_SIZE_HIDDEN] % m->heads)
        return bad_key(m, "embedding_length", "does not divide into attention.head_count heads, and attention.key_length is missing", err);
    else
        size[ST_SIZE_HEAD] = size[ST_SIZE_HIDDEN] / m->heads;
    const char *because = v ? "attention.key_length" : "embedding_length / attention.head_count";
    ST_TRY(must_be(m, "attention.value_length", size[ST_SIZE_HEAD], because, err));
    ST_TRY(must_be(m, "rope.dimension_count", size[ST_SIZE_HEAD], because, err));
    if (size[ST_SIZE_HEAD] % 2)
        return bad_key(m, "attention.head_count", "makes heads of an odd size, which cannot be turned", err);
    if (st_mul_i64(m->heads, size[ST_SIZE_HEAD], &size[ST_SIZE_QUERY]) || st_mul_i64(m->kv_heads, size[ST_SIZE_HEAD], &size[ST_SIZE_KV]))
        return bad_key(m, "attention.head_count", "makes too many rows", err);
    if (!st_table_get(m->g.by_name, "token_embd.weight", 17, &at))
        return st_fail(err, SETUN_BAD_FILE, "%s: tensor token_embd.weight is missing", m->g.path);
    size[ST_SIZE_VOCAB] = m->g.tensor[at].dim[1];
    ST_TRY(must_be(m, "vocab_size", size[ST_SIZE_VOCAB], "token_embd.weight", err));
    ST_TRY(put_int(m, "head_dim", size[ST_SIZE_HEAD], err));
    return put_int(m, "vocab_size", size[ST_SIZE_VOCAB], err);
}

/* ---------------------------------------------------------------- what no key says */

/* BitNet b1.58 2B4T, whatever the file calls itself. */
static int is_2b4t(const st_gguf_model *m)
{
    return m->size[ST_SIZE_HIDDEN] == 2560 && m->layers == 30 && m->heads == 20 && m->kv_heads == 5 &&
           m->size[ST_SIZE_FFN] == 6912 && m->size[ST_SIZE_VOCAB] == 128256;
}

static setun_status find_arch(st_gguf_model *m, setun_error *err)
{
    int64_t n;
    const st_gguf_arch *archs = st_gguf_archs(&n);
    st_str known = { 0 };
    for (int64_t i = 0; i < n && !m->arch; i++) {
        if (strcmp(archs[i].name, m->g.architecture) == 0)
            m->arch = &archs[i];
        st_str_addf(&known, "%s%s", i ? ", " : "", archs[i].name);
    }
    setun_status s = m->arch ? SETUN_OK
                             : st_fail(err, SETUN_UNKNOWN, "%s: the architecture %s is not known; there are %s", m->g.path,
                                       m->g.architecture, known.text ? known.text : NO_ARCH);
    st_str_free(&known);
    return s;
}

/* The architecture "bitnet" means SiLU and 1bitLLM's models, but converters write 2B4T under that name,
 * too: newer ones say which activation it is, for older ones the sizes do. */
static setun_status choose_activation(st_gguf_model *m, setun_error *err)
{
    static const char suffix[] = "hidden_activation";
    const st_gguf_value *v = find(m, suffix);
    const char *says = NULL;
    int64_t n;
    if (v)
        ST_TRY(take_text(m, v, suffix, &says, err));
    const char *want = says ? says : m->arch->in == ST_GGUF_1BITLLM && is_2b4t(m) ? "relu2" : m->arch->activation;
    if (m->arch->in == ST_GGUF_1BITLLM && strcmp(want, "relu2") == 0) {
        m->arch = st_gguf_archs(&n); /* the first row: 2B4T */
        if (!says)
            SAY("repaired: the architecture bitnet means SiLU, but the sizes are those of BitNet b1.58 2B4T: the gate is relu2");
    }
    if (strcmp(want, m->arch->activation) != 0)
        return st_fail(err, SETUN_UNKNOWN, "%s: key %s.%s is '%s'; with this architecture Setun computes %s", m->g.path,
                       m->g.architecture, suffix, want, m->arch->activation);
    SAY("the gate is %s: %s says so", want, says ? "the key hidden_activation" : "the architecture");
    return put_text(m, m->arch->in == ST_GGUF_GEMMA3 ? "hidden_activation" : "hidden_act", want, err);
}

/* Scalings of angles: none, or linear. */
static setun_status choose_scaling(st_gguf_model *m, setun_error *err)
{
    const st_gguf_value *v = find(m, "rope.scaling.type"), *f = find(m, "rope.scaling.factor");
    const char *type = NULL;
    double factor = 1;
    if (v)
        ST_TRY(take_text(m, v, "rope.scaling.type", &type, err));
    if (f)
        ST_TRY(take_positive(m, f, "rope.scaling.factor", &factor, err));
    if (type && strcmp(type, "none") != 0 && strcmp(type, "linear") != 0)
        return st_fail(err, SETUN_UNKNOWN, "%s: key %s.rope.scaling.type is '%s'; none and linear are known", m->g.path,
                       m->g.architecture, type);
    if (type && strcmp(type, "linear") == 0 && !f)
        return bad_key(m, "rope.scaling.factor", "is missing, and rope.scaling.type is linear", err);
    if ((!type || strcmp(type, "none") == 0) && factor != 1)
        return bad_key(m, "rope.scaling.factor", "is there, but rope.scaling.type does not say how it is used", err);
    if (factor == 1)
        return SETUN_OK;
    ST_TRY(put_text(m, "rope_scaling.rope_type", "linear", err));
    SAY("angles are divided by %g: rope.scaling.type is linear", factor);
    return put_float(m, "rope_scaling.factor", factor, err);
}

double st_llama3_divisor(double theta, int64_t i, int64_t n, double factor, double context)
{
    const double low = ST_LLAMA3_LOW, high = ST_LLAMA3_HIGH, turn = 6.283185307179586;
    double wave = turn * pow(theta, (double)i / (double)n), smooth = (context / wave - low) / (high - low);
    return smooth >= 1 ? 1 : smooth <= 0 ? factor : 1 / ((1 - smooth) / factor + smooth);
}

/* Llama 3's scaling comes as a divisor of each angle.  The formula with its parameters gives the same
 * bits as the model's own config.json, so the parameters are found again: the last divisor is the
 * factor, one between 1 and it tells the old context, and then all of them must come out. */
static setun_status fit_divisors(const float *d, int64_t n, double theta, double *factor, double *context)
{
    const double low = ST_LLAMA3_LOW, high = ST_LLAMA3_HIGH, turn = 6.283185307179586;
    *factor = (double)d[n - 1];
    *context = 8192;
    for (int64_t i = n - 1; i >= 0; i--)
        if (d[i] > 1.0f && (double)d[i] < *factor) {
            double smooth = (1 / (double)d[i] - 1 / *factor) / (1 - 1 / *factor);
            *context = rint((smooth * (high - low) + low) * turn * pow(theta, (double)i / (double)n));
            break;
        }
    for (int64_t i = 0; i < n; i++) {
        double want = st_llama3_divisor(theta, i, n, *factor, *context);
        if (!(fabs((double)d[i] - want) <= 1e-5 * want))
            return SETUN_DECLINED;
    }
    return SETUN_OK;
}

static setun_status choose_divisors(st_gguf_model *m, setun_error *err)
{
    int64_t at, n = m->size[ST_SIZE_HEAD] / 2;
    double factor, context;
    if (!st_table_get(m->g.by_name, ST_DIVISORS, sizeof ST_DIVISORS - 1, &at))
        return SETUN_OK;
    const st_gguf_tensor *t = &m->g.tensor[at];
    const st_hparam *theta = st_config_find(&m->config, "rope_theta");
    float *d = t->id == 0 && t->rank == 1 && t->dim[0] == n ? st_arena_array(m->arena, n, sizeof *d) : NULL;
    if (m->arch->in != ST_GGUF_LLAMA || t->id != 0 || t->rank != 1 || t->dim[0] != n)
        return st_fail(err, SETUN_UNKNOWN, "%s: tensor rope_freqs.weight is not F32 for half a head of an architecture that has one",
                       t->file);
    if (!d)
        return no_memory(m, err);
    (void)st_convert_f32(d, t->data, SETUN_F32, n);
    if (st_config_find(&m->config, "rope_scaling.rope_type") || !(d[n - 1] >= 1.0f) || !isfinite(d[n - 1]) ||
        fit_divisors(d, n, theta ? theta->f : 10000, &factor, &context) != SETUN_OK)
        return st_fail(err, SETUN_UNKNOWN, "%s: tensor rope_freqs.weight: its divisors are not those of Llama 3's scaling", t->file);
    if (factor == 1)
        return SETUN_OK;
    SAY("angles are scaled as in Llama 3, factor %g, context %g before: all of rope_freqs.weight is so", factor, context);
    ST_TRY(put_text(m, "rope_scaling.rope_type", "llama3", err));
    ST_TRY(put_float(m, "rope_scaling.factor", shortest(factor), err));
    ST_TRY(put_float(m, "rope_scaling.low_freq_factor", ST_LLAMA3_LOW, err));
    ST_TRY(put_float(m, "rope_scaling.high_freq_factor", ST_LLAMA3_HIGH, err));
    return put_int(m, "rope_scaling.original_max_position_embeddings", (int64_t)context, err);
}

static setun_status choose_rope(st_gguf_model *m, setun_error *err)
{
    if (!find(m, "rope.freq_base")) {
        ST_TRY(put_float(m, "rope_theta", 10000, err));
        SAY("rope.freq_base is missing: 10000, as the format has it");
    }
    ST_TRY(choose_scaling(m, err));
    ST_TRY(choose_divisors(m, err));
    if (m->arch->in == ST_GGUF_LLAMA)
        SAY("the architecture turns neighbours in pairs: rows of attn_q and attn_k are put back in order, halves turn together");
    else
        SAY("the halves of a head turn together: the architecture says so");
    return SETUN_OK;
}

/* Which layers of Gemma 3 see everything: every sixth one, unless a key says otherwise. */
static setun_status choose_windows(st_gguf_model *m, setun_error *err)
{
    static const char suffix[] = "attention.sliding_window_pattern";
    const st_gguf_value *v = find(m, suffix);
    int64_t every = 6;
    if (v && v->element == ST_GGUF_BOOL && v->type == ST_GGUF_ARRAY) {
        if (v->n != m->layers)
            return bad_key(m, suffix, "does not have a value for every layer", err);
        for (int64_t i = 0; i < m->layers; i++)
            ST_TRY(put_text(m, st_arena_printf(m->arena, "layer_types.%lld", (long long)i + 1),
                            v->data[i] ? "sliding_attention" : "full_attention", err));
        return SETUN_OK;
    }
    if (v)
        ST_TRY(take_count(m, v, suffix, &every, err));
    SAY("every layer %lld sees everything, the others a window: %s", (long long)every, v ? "a key says so" : "the architecture has it so");
    return put_int(m, "sliding_window_pattern", every, err);
}

/* The scale of scores is not in the file: 1 / sqrt(head size), but in the model of 62 layers 1 / sqrt(hidden / heads). */
static setun_status choose_gemma3(st_gguf_model *m, setun_error *err)
{
    int largest = m->layers == 62 && m->size[ST_SIZE_HIDDEN] % m->heads == 0;
    int64_t of = largest ? m->size[ST_SIZE_HIDDEN] / m->heads : m->size[ST_SIZE_HEAD];
    if (m->arch->in != ST_GGUF_GEMMA3)
        return SETUN_OK;
    ST_TRY(choose_windows(m, err));
    if (!find(m, "rope.freq_base_swa"))
        ST_TRY(put_float(m, "rope_local_base_freq", 10000, err));
    SAY("scores are divided by sqrt(%lld): %s", (long long)of, largest ? "62 layers are Gemma 3 27B" : "the size of a head");
    ST_TRY(put_int(m, "query_pre_attn_scalar", of, err));
    /* What a checkpoint stores less 1, a file has with the 1 added: the script must not add it again. */
    return put_flag(m, "gguf.norms_include_one", 1, err);
}

/* How the states of a text become one vector.  Only a model that is made for it, which its norms tell, may
 * ask for something: any other would give logits where vectors are wanted. */
static setun_status choose_pooling(st_gguf_model *m, setun_error *err)
{
    static const char suffix[] = "pooling_type";
    const st_gguf_value *v = m->arch->in == ST_GGUF_QWEN3 ? find(m, suffix) : NULL;
    int64_t kind = 0;
    for (int64_t i = 0; i < m->g.n_tensors && m->arch->in == ST_GGUF_QWEN3; i++)
        m->inner_norms |= strstr(m->g.tensor[i].name, "_norm_in.weight") != NULL;
    if (v && (v->type == ST_GGUF_ARRAY || v->element == ST_GGUF_BOOL || st_gguf_int(v, 0, &kind) || (kind && !st_gguf_pooling(kind))))
        return st_fail(err, SETUN_UNKNOWN, "%s: key %s.%s is not known to Setun; 0 (none), 1 (mean), 2 (cls) and 3 (last) are",
                       m->g.path, m->g.architecture, suffix);
    if (kind && !m->inner_norms)
        return st_fail(err, SETUN_UNKNOWN, "%s: key %s.%s is %lld: embeddings are wanted, and of this architecture Setun makes them "
                       "only with norms inside linear layers (blk.0.attn_q_norm_in.weight ...)", m->g.path, m->g.architecture,
                       suffix, (long long)kind);
    if (m->inner_norms)
        SAY("each linear layer normalises its input: the file has blk.N.attn_q_norm_in and the like");
    return kind ? put_text(m, "gguf.pooling", st_gguf_pooling(kind), err) : SETUN_OK;
}

static setun_status take_rotation(st_gguf_model *m, setun_error *err)
{
    static const char key[] = ST_ROTATION_PREFIX "weight_names";
    ST_TRY(st_gguf_rotation_take(m, err));
    for (int64_t i = 0; i < m->g.n_values; i++)
        if (strcmp(m->g.value[i].key, key) == 0)
            SAY("what %lld matrices read or give is rotated: key %s names them", (long long)m->g.value[i].n, key);
    return SETUN_OK;
}

/* ---------------------------------------------------------------- tokens that end a text */

static setun_status take_id(const st_gguf_model *m, const char *key, int64_t *id, setun_error *err)
{
    const st_gguf_value *v = st_gguf_find(&m->g, key);
    *id = -1;
    if (v && (v->type == ST_GGUF_ARRAY || v->element == ST_GGUF_BOOL || st_gguf_int(v, 0, id) || *id < 0 || *id >= m->size[ST_SIZE_VOCAB]))
        return st_fail(err, SETUN_BAD_FILE, "%s: key %s is not the id of one of %lld tokens", m->g.path, key,
                       (long long)m->size[ST_SIZE_VOCAB]);
    return SETUN_OK;
}

static int is_token(const st_gguf_model *m, int64_t id, const char *want)
{
    const st_gguf_value *v = st_gguf_find(&m->g, "tokenizer.ggml.tokens");
    const uint8_t *at = v ? v->data : NULL;
    const char *text = NULL;
    int64_t n = 0;
    if (!v || v->type != ST_GGUF_ARRAY || v->element != ST_GGUF_STRING || id >= v->n)
        return 0;
    for (int64_t i = 0; i <= id; i++)
        text = st_gguf_next(&at, &n);
    return n == (int64_t)strlen(want) && memcmp(text, want, (size_t)n) == 0;
}

static setun_status take_ends(st_gguf_model *m, setun_error *err)
{
    static const char *const keys[] = { "tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id" };
    static const char *const names[] = { "eos_token_id", "generation.eos_token_id.1", "generation.eos_token_id.2" };
    int64_t id, has_turn = 0;
    for (int i = 0; i < 3; i++) {
        ST_TRY(take_id(m, keys[i], &id, err));
        if (id >= 0)
            ST_TRY(put_int(m, names[i], id, err));
        has_turn |= i == 1 && id >= 0;
    }
    ST_TRY(take_id(m, "tokenizer.ggml.bos_token_id", &id, err));
    if (id >= 0)
        ST_TRY(put_int(m, "bos_token_id", id, err));
    if (m->arch->in != ST_GGUF_2B4T || has_turn || !is_token(m, 128009, "<|eot_id|>"))
        return SETUN_OK;
    SAY("repaired: token 128009, <|eot_id|>, ends a text, too: the file names no end of a turn");
    return put_int(m, "generation.eos_token_id.3", 128009, err);
}

/* ---------------------------------------------------------------- tensors */

static const st_gguf_name *find_name(const st_gguf_model *m, const char *name, int64_t *layer)
{
    int64_t n;
    const st_gguf_name *names = st_gguf_names(&n);
    for (int64_t i = 0; i < n; i++)
        if (names[i].in & m->arch->in && st_gguf_name_matches(names[i].gguf, name, layer))
            return &names[i];
    return NULL;
}

/* "X.scale" of a linear layer "X.weight", which some converters of BitNet write: one number that its
 * product is multiplied with. */
static setun_status add_factor(st_gguf_model *m, const st_gguf_tensor *t, int64_t *of, setun_error *err)
{
    size_t n = strlen(t->name);
    int64_t layer, at;
    float f = 0;
    *of = -1;
    if (!(m->arch->in & ST_GGUF_BITNET) || n < 7 || strcmp(t->name + n - 6, ".scale") != 0)
        return SETUN_OK;
    const char *weight = st_arena_printf(m->arena, "%.*s.weight", (int)n - 6, t->name);
    const st_gguf_name *name = weight ? find_name(m, weight, &layer) : NULL;
    if (!weight)
        return no_memory(m, err);
    if (!name || name->kind != ST_NAME_LINEAR || !st_table_get(m->g.by_name, weight, strlen(weight), &at))
        return SETUN_OK;
    if (t->id == 0 && t->values == 1)
        (void)st_convert_f32(&f, t->data, SETUN_F32, 1);
    if (!(f > 0.0f) || !isfinite(f))
        return st_fail(err, SETUN_BAD_FILE, "%s: tensor %s is not one F32 number above 0", t->file, t->name);
    *of = at;
    return SETUN_OK;
}

static setun_status check_shape(const st_gguf_model *m, const st_gguf_tensor *t, const st_gguf_name *name, setun_error *err)
{
    int64_t rows = m->size[name->rows], cols = m->size[name->cols]; /* of a vector, rows is its length and cols 0 */
    int is_vector = !name->cols, fits = is_vector ? t->dim[0] == rows && t->dim[1] == 1 : t->dim[0] == cols && t->dim[1] == rows;
    if (fits && t->dim[2] == 1 && t->dim[3] == 1)
        return SETUN_OK;
    return st_fail(err, SETUN_BAD_SHAPE, "%s: tensor %s is %lld x %lld x %lld x %lld, but the keys of %s make it %lld x %lld", t->file,
                   t->name, (long long)t->dim[0], (long long)t->dim[1], (long long)t->dim[2], (long long)t->dim[3],
                   m->g.architecture, (long long)(is_vector ? rows : cols), (long long)(is_vector ? 1 : rows));
}

static setun_status add_tensor(st_gguf_model *m, const st_gguf_tensor *t, setun_error *err)
{
    int64_t layer = -1, i = m->n_tensors;
    const st_gguf_name *name = find_name(m, t->name, &layer);
    st_tensor *out = &m->tensor[i];
    if (!name)
        return st_fail(err, SETUN_UNKNOWN, "%s: tensor %s is not one that Setun knows for the architecture %s", t->file, t->name,
                       m->g.architecture);
    if (layer >= m->layers)
        return st_fail(err, SETUN_BAD_FILE, "%s: tensor %s is there, but %s.block_count is %lld", t->file, t->name,
                       m->g.architecture, (long long)m->layers);
    ST_TRY(check_shape(m, t, name, err));
    uint32_t dtype = st_gguf_dtype(t);
    int plain = dtype && setun_block(dtype) == 1;
    if (!t->type->floats && t->type->group == ST_GGUF_NOT_TERNARY)
        return st_fail(err, SETUN_UNKNOWN, "%s: tensor %s is %s, which Setun cannot compute with", t->file, t->name, t->type->name);
    if (name->kind != ST_NAME_LINEAR && name->kind != ST_NAME_MATRIX && !plain)
        return st_fail(err, SETUN_UNKNOWN, "%s: tensor %s is %s; norms and biases are F32, F16 or BF16", t->file, t->name, t->type->name);
    st_gguf_source *s = &m->source[i];
    s->t = t;
    s->name = name;
    if (m->arch->in == ST_GGUF_LLAMA && name->kind == ST_NAME_LINEAR && (strstr(name->gguf, "attn_q") || strstr(name->gguf, "attn_k")))
        s->heads = m->size[name->rows] / m->size[ST_SIZE_HEAD];
    out->name = st_gguf_name_of(m->arena, name->hf, layer);
    out->file = t->file;
    out->dtype = t->type->name;
    out->bytes = t->bytes;
    out->view = (setun_view){ (void *)(uintptr_t)t->data, s->heads ? 0 : dtype, name->cols ? 2 : 1, { 1, 1, 1, 1 } };
    out->view.dim[0] = name->cols ? t->dim[1] : t->dim[0];
    out->view.dim[1] = name->cols ? t->dim[0] : 1;
    if (!out->name || st_table_put(m->by_name, out->name, strlen(out->name), i))
        return no_memory(m, err);
    m->n_tensors++;
    return SETUN_OK;
}

static setun_status check_complete(const st_gguf_model *m, setun_error *err)
{
    int64_t n, at;
    const st_gguf_name *names = st_gguf_names(&n);
    for (int64_t i = 0; i < n; i++) {
        int64_t many = strstr(names[i].gguf, "%d") ? m->layers : 1;
        int needed = names[i].optional == ST_NAME_NEEDED || (names[i].optional == ST_NAME_TOGETHER && m->inner_norms);
        for (int64_t l = 0; l < many && names[i].in & m->arch->in && needed; l++) {
            st_mark mark = st_arena_mark(m->arena);
            const char *name = st_gguf_name_of(m->arena, names[i].gguf, l);
            if (!name)
                return no_memory(m, err);
            if (!st_table_get(m->g.by_name, name, strlen(name), &at))
                return st_fail(err, SETUN_BAD_FILE, "%s: tensor %s is missing", m->g.path, name);
            st_arena_rewind(m->arena, mark);
        }
    }
    return SETUN_OK;
}

/* A head that is the embedding again, bit for bit, as in the first release of 2B4T, is no head of its own. */
static int is_repeated(const st_gguf *g, const st_gguf_tensor *t)
{
    int64_t at;
    if (strcmp(t->name, "output.weight") != 0 || !st_table_get(g->by_name, "token_embd.weight", 17, &at))
        return 0;
    const st_gguf_tensor *e = &g->tensor[at];
    int same = t->id == e->id && t->bytes == e->bytes && memcmp(t->dim, e->dim, sizeof t->dim) == 0 &&
               memcmp(t->data, e->data, (size_t)t->bytes) == 0;
    st_map_advise(t->data, t->bytes, 0);
    return same;
}

static setun_status add_tensors(st_gguf_model *m, setun_error *err)
{
    int64_t of;
    const st_gguf_tensor **factor = st_arena_array(m->arena, m->g.n_tensors + 1, sizeof *factor);
    int own_head = 0, repeated = 0;
    m->tensor = st_arena_array(m->arena, m->g.n_tensors + 1, sizeof *m->tensor);
    m->source = st_arena_array(m->arena, m->g.n_tensors + 1, sizeof *m->source);
    m->by_name = st_table_new(m->g.n_tensors + 1);
    if (!factor || !m->tensor || !m->source || !m->by_name)
        return no_memory(m, err);
    for (int64_t i = 0; i < m->g.n_tensors; i++) {
        const st_gguf_tensor *t = &m->g.tensor[i];
        ST_TRY(add_factor(m, t, &of, err));
        if (of >= 0) {
            factor[of] = t;
        } else if (is_repeated(&m->g, t)) {
            repeated = 1;
        } else if (strcmp(t->name, ST_DIVISORS) != 0) { /* choose_divisors has seen to it */
            ST_TRY(add_tensor(m, t, err));
            own_head |= strcmp(t->name, "output.weight") == 0;
        }
    }
    for (int64_t i = 0; i < m->n_tensors; i++)
        m->source[i].factor = factor[m->source[i].t - m->g.tensor];
    ST_TRY(check_complete(m, err));
    SAY(repeated ? "the head is the embedding: output.weight repeats token_embd.weight bit for bit"
        : own_head ? "the head is output.weight, which is not the embedding" : "the head is the embedding: there is no output.weight");
    return put_flag(m, "tie_word_embeddings", !own_head, err);
}

/* ---------------------------------------------------------------- ternary layers */

/* Types that only programs with quantised activations write, that only ones without do, and both. */
enum { BY_INT8, BY_FLOAT, BY_BOTH, BY_NEITHER };

static int written_by(const st_gguf_type *y)
{
    switch (y->id) {
    case 36: case 134: case 135: return BY_INT8;  /* I2_S, IQ1_BN, IQ2_BN */
    case 42: case 142: case 143: return BY_FLOAT; /* Q2_0, PQ2_0, PTQ1_0 */
    case 34: case 35: return BY_BOTH;             /* TQ1_0, TQ2_0 */
    default: return BY_NEITHER;
    }
}

static const char *const asks[] = { NULL, "int8", "float" };

/* What the file's own key says, or ST_ACTIVATIONS_ASK. */
static setun_status activations_said(const st_gguf_model *m, int *said, setun_error *err)
{
    const st_gguf_value *v = st_gguf_find(&m->g, ST_ACTIVATIONS_KEY);
    int64_t n = 0;
    const char *text = v ? st_gguf_text(v, &n) : NULL;
    *said = ST_ACTIVATIONS_ASK;
    for (int i = ST_ACTIVATIONS_INT8; text && i <= ST_ACTIVATIONS_FLOAT; i++)
        if (n == (int64_t)strlen(asks[i]) && memcmp(text, asks[i], (size_t)n) == 0)
            *said = i;
    return v && !*said ? st_fail(err, SETUN_UNKNOWN, "%s: key " ST_ACTIVATIONS_KEY " is neither int8 nor float", m->g.path) : SETUN_OK;
}

/* Whether the model was trained with activations of 8 bits changes its function, and few files say it.
 * BitNet's architectures were; so was whatever is in types of BitNet's own programs; what is in groups
 * of 64 or 128 weights was not, unless a key of Setun's own files says otherwise.  TQ1_0 and TQ2_0 hold both
 * (Falcon3 and TriLM are the same architecture), so there that key or the user must say it. */
static setun_status choose_quantised(st_gguf_model *m, int asked, setun_error *err)
{
    int64_t n[4] = { 0, 0, 0, 0 }, first[4] = { 0, 0, 0, 0 };
    for (int64_t i = m->n_tensors - 1; i >= 0; i--)
        if (m->source[i].name->kind == ST_NAME_LINEAR) {
            int by = written_by(m->source[i].t->type);
            n[by]++;
            first[by] = i;
        }
    int bitnet = (m->arch->in & ST_GGUF_BITNET) != 0, by = n[BY_INT8] ? BY_INT8 : n[BY_FLOAT] ? BY_FLOAT : BY_BOTH;
    const st_gguf_tensor *t = m->source[first[by]].t;
    if (!bitnet && n[BY_NEITHER] == n[0] + n[1] + n[2] + n[3])
        return asked ? st_fail(err, SETUN_BAD_ARG, "%s: --activations %s was given, but no linear layer is ternary", m->g.path, asks[asked])
                     : SETUN_OK;
    if (!bitnet && n[BY_INT8] && n[BY_FLOAT])
        return st_fail(err, SETUN_UNKNOWN, "%s: tensor %s is %s, with activations of 8 bits, and tensor %s is %s, without", m->g.path,
                       m->source[first[BY_INT8]].t->name, m->source[first[BY_INT8]].t->type->name,
                       m->source[first[BY_FLOAT]].t->name, m->source[first[BY_FLOAT]].t->type->name);
    int settled = bitnet || n[BY_INT8] ? ST_ACTIVATIONS_INT8 : n[BY_FLOAT] ? ST_ACTIVATIONS_FLOAT : ST_ACTIVATIONS_ASK;
    int said;
    ST_TRY(activations_said(m, &said, err));
    if (bitnet && said == ST_ACTIVATIONS_FLOAT)
        return st_fail(err, SETUN_BAD_FILE, "%s: key " ST_ACTIVATIONS_KEY " is float, but %s means int8", m->g.path, m->g.architecture);
    if (said && !bitnet)
        settled = said;
    if (!settled && !asked)
        return st_fail(err, SETUN_UNKNOWN, "%s: tensor %s is %s, and the file does not say whether its activations were quantised in "
                       "training: say --activations int8 (BitNet, Falcon3, Falcon-E) or --activations float (TriLM, BitCPM)",
                       m->g.path, t->name, t->type->name);
    if (settled && asked && settled != asked)
        return st_fail(err, SETUN_BAD_ARG, "%s: --activations %s was given, but %s means %s", m->g.path, asks[asked],
                       bitnet ? m->g.architecture : said ? "key " ST_ACTIVATIONS_KEY : t->type->name, asks[settled]);
    m->activations = settled ? settled : asked;
    SAY("activations of ternary layers are %s: %s%s", m->activations == ST_ACTIVATIONS_INT8 ? "8-bit integers" : "floats",
        !settled ? "it was asked for" : bitnet ? "the architecture was trained so" : said ? "the key " ST_ACTIVATIONS_KEY " says so" :
        "the type says so, ", settled && !bitnet && !said ? t->type->name : "");
    return SETUN_OK;
}

/* Official files of 2B4T were made when there was one layout.  They are recognised by what only they
 * have: sizes, name, and a vocabulary without the name of its pre-tokenizer. */
static setun_status choose_layout(st_gguf_model *m, setun_error *err)
{
    const st_gguf_value *v = st_gguf_find(&m->g, "general.name");
    int64_t n = 0;
    const char *name = v ? st_gguf_text(v, &n) : NULL;
    int official = name && ((n == 8 && memcmp(name, "bitnet2b", 8) == 0) || (n == 13 && memcmp(name, "bitnet2b_2501", 13) == 0));
    for (int64_t i = 0; i < m->n_tensors && m->g.i2s == ST_I2S_ASK; i++) {
        const st_gguf_tensor *t = m->source[i].t;
        if (t->type->group != ST_GGUF_PER_TENSOR)
            continue;
        if (!official || !is_2b4t(m) || m->arch->in != ST_GGUF_2B4T || st_gguf_find(&m->g, "tokenizer.ggml.pre"))
            return st_fail(err, SETUN_UNKNOWN, "%s: tensor %s is I2_S, which has three layouts of one size, and the file does not say "
                           "which: say --i2s-layout x86 (most files), arm or rows4", t->file, t->name);
        return st_gguf_set_i2s(&m->g, ST_I2S_X86, "sizes, general.name and the missing tokenizer.ggml.pre are those of the official "
                               "file of 2B4T, which has this one", err);
    }
    return SETUN_OK;
}

/* What becomes of weights that are not ternary: blocks stay where they lie; what cannot costs memory and
 * time at the first load. */
static setun_status say_copies(st_gguf_model *m, setun_error *err)
{
    enum { BLOCKS, ORDER, FLOATS, N_WAYS };
    static const char *const what[N_WAYS] = {
        "used as the blocks that they are, where they lie", "copied to the cache, rows in order",
        "kept in the cache as plain floats, which takes time at the first load" };
    int64_t n[N_WAYS] = { 0 };
    double bytes[N_WAYS] = { 0 };
    const st_gguf_tensor *first[N_WAYS] = { NULL };
    for (int64_t i = 0; i < m->n_tensors; i++) {
        const st_gguf_tensor *t = m->source[i].t;
        uint32_t own = st_gguf_dtype(t);
        int way = m->tensor[i].view.dtype ? BLOCKS : own ? ORDER : FLOATS;
        if ((way == BLOCKS && setun_block(own) == 1) || st_gguf_source_is_ternary(m, i))
            continue;
        n[way]++;
        first[way] = first[way] ? first[way] : t;
        bytes[way] += way == FLOATS ? 4 * (double)t->values : (double)t->bytes;
    }
    for (int way = 0; way < N_WAYS; way++)
        if (n[way])
            SAY("%lld %s (%s, %s%s), %.1f MB, %s %s", (long long)n[way], n[way] == 1 ? "matrix" : "matrices", first[way]->name,
                first[way]->type->name, n[way] == 1 ? "" : " ...", bytes[way] / 1e6, n[way] == 1 ? "is" : "are", what[way]);
    return SETUN_OK;
}

/* ---------------------------------------------------------------- life */

static setun_status begin(st_gguf_model *m, setun_error *err)
{
    m->cap_lines = 32;
    /* At most one a layer beyond the table's rows. */
    m->config.cap = 64 + m->g.n_tensors + st_gguf_rotation_count(&m->g);
    m->line = st_arena_array(m->arena, m->cap_lines, sizeof *m->line);
    m->config.item = st_arena_array(m->arena, m->config.cap, sizeof *m->config.item);
    m->config.path = m->g.path;
    return m->line && m->config.item ? SETUN_OK : no_memory(m, err);
}

static setun_status finish(st_gguf_model *m, setun_error *err)
{
    m->config.architecture = m->arch->class_name;
    if (m->arch->in == ST_GGUF_1BITLLM) { /* what its config.json says of the linear layers */
        ST_TRY(put_int(m, "weight_bits", 1, err));
        ST_TRY(put_int(m, "input_bits", 8, err));
    }
    ST_TRY(put_text(m, "model_type", m->arch->model_type, err));
    SAY("the architecture %s is computed as %s", m->g.architecture, m->arch->class_name);
    return SETUN_OK;
}

setun_status st_gguf_model_open(st_gguf_model *m, const char *path, const st_weights_choice *choice, st_arena *arena,
                                setun_error *err)
{
    m->arena = arena;
    ST_TRY(st_gguf_open(&m->g, path, choice->i2s, arena, err));
    ST_TRY(begin(m, err));
    ST_TRY(find_arch(m, err));
    ST_TRY(check_keys(m, err));
    ST_TRY(map_keys(m, err));
    ST_TRY(take_sizes(m, err));
    if (m->layers > m->g.n_tensors)
        return bad_key(m, "block_count", "is more than the file has tensors", err);
    ST_TRY(choose_activation(m, err));
    ST_TRY(choose_rope(m, err));
    ST_TRY(choose_gemma3(m, err));
    ST_TRY(choose_pooling(m, err));
    ST_TRY(take_rotation(m, err));
    ST_TRY(take_ends(m, err));
    ST_TRY(add_tensors(m, err));
    ST_TRY(choose_quantised(m, choice->activations, err));
    ST_TRY(choose_layout(m, err));
    ST_TRY(say_copies(m, err));
    return finish(m, err);
}

void st_gguf_model_close(st_gguf_model *m)
{
    st_table_free(m->by_name);
    st_gguf_close(&m->g);
    memset(m, 0, sizeof *m);
}
