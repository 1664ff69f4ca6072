/* tests/unit/architectures.c -- every architecture against a scalar reference of its own.
 *
 * A small checkpoint with random weights is written here in the published layout, loaded as any other
 * directory is, and its logits are compared with the forward pass below.  Writer and forward pass
 * share no code with what they test: they are double precision loops over the published formulas.
 * Sizes are odd on purpose, or the published ones where those are what is hard (head sizes 96, 100
 * and 256, feed-forward widths 5460 and 8640).
 *
 * Tolerance: rounding alone.  An int8 activation whose exact value is within float precision of a tie
 * may go either way, which moves later logits by a hundredth of their size; that is no error, but
 * would hide one.  So the random numbers are ones with which it does not happen: in about half of all
 * series it does not, and bits are the same on every machine. */
#include <math.h>

#include "setun/setun.h"
#include "tests/unit/files.h"

#define TOKENS 9
#define SEED 6001
#define LIMIT 1e-5 /* relative, of all logits together */
#define MAX_TENSOR 64

/* Linears: float; float, quantised on load; packed with either rule; floats that are all -s, 0 or s, with
 * one s for three rows, or for 128 or 64 weights of a row, where embedding and head are so, too. */
enum { FLOATS, MASTERS, MULTIPLY, DIVIDE, BY_ROWS, BY_128, BY_64 };
enum { BF16, F16, F32 };
enum { UNTIED, TIED, REPEATED }; /* the head: a matrix of its own; the embedding; that, and in the file twice */
static const char *const dtype_names[] = {"BF16", "F16", "F32"};

typedef struct spec {
    const char *name, *architecture, *act;
    int64_t     d, heads, kv, hd, ffn, layers;
    int         linears, dtype, tied;
    double      theta, eps;
    const char *sub_attn, *sub_ffn; /* names of the norms before the output and down matrices, or NULL */
    int         bias, head_norm, llama3;
    int         gemma;              /* what only Gemma 3 has; every second layer sees 4 positions, scale 1 / sqrt(21) */
    const char *extra;              /* members of config.json that only this one has */
} spec;

#define V 1031 /* at least the tokenizer's 1024 */
#define QUANT(more) "\"quantization_config\":{\"quant_method\":\"bitnet\"" more "}"
#define BITS "\"weight_bits\":1,\"input_bits\":8,\"attention_bias\":false,\"pretraining_tp\":1,\"pad_token_id\":3,"
#define QWEN "\"attention_dropout\":0.0,\"max_window_layers\":21,\"use_sliding_window\":false,"
#define GEMMA "\"query_pre_attn_scalar\":21,\"sliding_window\":4,\"rope_local_base_freq\":1e4,\"rope_scaling\":null," \
              "\"attn_logit_softcapping\":null,\"final_logit_softcapping\":null,"
#define SUBS "self_attn.inner_attn_ln", "mlp.ffn_layernorm"

static const spec specs[] = {
    {"1bitLLM large", "BitnetForCausalLM", "silu", 192, 2, 2, 96, 250, 2, MASTERS, F32, 1, 1e4, 1e-5, SUBS, 0, 0, 0, 0,
     BITS "\"rope_scaling\":null"},
    {"1bitLLM xl", "BitnetForCausalLM", "silu", 128, 2, 2, 64, 5460, 1, MASTERS, F32, 1, 1e4, 1e-5, SUBS, 0, 0, 0, 0,
     BITS "\"rope_scaling\":{\"type\":\"linear\",\"factor\":1.0}"},
    {"1bitLLM 3B", "BitnetForCausalLM", "silu", 100, 1, 1, 100, 8640, 1, MASTERS, F16, 1, 1e4, 1e-5, SUBS, 0, 0, 0, 0,
     BITS "\"rope_scaling\":null"},
    {"2B4T", "BitNetForCausalLM", "relu2", 120, 3, 1, 40, 212, 2, MULTIPLY, BF16, 1, 5e5, 1e-5,
     "self_attn.attn_sub_norm", "mlp.ffn_sub_norm", 0, 0, 0, 0,
     QUANT(",\"linear_class\":\"autobitlinear\",\"quantization_mode\":\"offline\"")},
    {"2B4T masters", "BitNetForCausalLM", "relu2", 120, 3, 1, 40, 211, 2, MASTERS, BF16, 1, 5e5, 1e-5,
     "self_attn.attn_sub_norm", "mlp.ffn_sub_norm", 0, 0, 0, 0,
     QUANT(",\"linear_class\":\"autobitlinear\",\"quantization_mode\":\"online\"")},
    {"Llama3-8B-1.58", "LlamaForCausalLM", "silu", 128, 4, 1, 32, 132, 2, DIVIDE, BF16, 0, 5e5, 1e-5, NULL, NULL, 0, 0, 0, 0,
     "\"rope_scaling\":null,\"mlp_bias\":false," QUANT(",\"modules_to_not_convert\":null")},
    {"Falcon3-1.58", "LlamaForCausalLM", "silu", 512, 2, 1, 256, 300, 2, DIVIDE, BF16, 0, 1000042, 1e-6, NULL, NULL, 0, 0, 0, 0,
     "\"head_dim\":256,\"mlp_bias\":false," QUANT("")},
    {"Falcon-E", "LlamaForCausalLM", "silu", 136, 2, 1, 64, 172, 2, DIVIDE, BF16, 0, 1000042, 1e-6, NULL, NULL, 0, 0, 0, 0,
     "\"head_dim\":64,\"is_bitnet_config\":true," QUANT(",\"modules_to_not_convert\":[\"lm_head\"]")},
    {"Llama 3.2", "LlamaForCausalLM", "silu", 70, 5, 1, 14, 99, 2, FLOATS, BF16, 1, 5e5, 1e-5, NULL, NULL, 0, 0, 1, 0,
     "\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":32.0,\"low_freq_factor\":1.0,\"high_freq_factor\":4.0,"
     "\"original_max_position_embeddings\":64}"},
    {"Qwen2.5 bf16", "Qwen2ForCausalLM", "silu", 126, 7, 1, 18, 131, 2, FLOATS, BF16, 1, 1e6, 1e-6, NULL, NULL, 1, 0, 0, 0,
     QWEN "\"use_mrope\":false,\"sliding_window\":32768"},
    {"Qwen2.5 f16", "Qwen2ForCausalLM", "silu", 96, 6, 2, 16, 77, 2, FLOATS, F16, 0, 1e6, 1e-6, NULL, NULL, 1, 0, 0, 0,
     QWEN "\"sliding_window\":null,\"layer_types\":[\"full_attention\",\"full_attention\"]"},
    {"Qwen3 bf16", "Qwen3ForCausalLM", "silu", 90, 4, 2, 34, 101, 2, FLOATS, BF16, 1, 1e6, 1e-6, NULL, NULL, 0, 1, 0, 0,
     QWEN "\"head_dim\":34,\"attention_bias\":false,\"sliding_window\":null,\"rope_scaling\":null"},
    {"Qwen3, head twice", "Qwen3ForCausalLM", "silu", 90, 4, 2, 34, 101, 1, FLOATS, BF16, REPEATED, 1e6, 1e-6, NULL, NULL, 0, 1, 0, 0,
     QWEN "\"head_dim\":34"},
    {"Qwen3 f16", "Qwen3ForCausalLM", "silu", 66, 3, 3, 128, 65, 1, FLOATS, F16, 0, 1e6, 1e-6, NULL, NULL, 0, 1, 0, 0,
     QWEN "\"head_dim\":128,\"attention_bias\":false"},
    {"TriLM unpacked", "LlamaForCausalLM", "silu", 128, 4, 4, 32, 201, 2, BY_ROWS, F16, 0, 1e4, 1e-5, NULL, NULL, 0, 0, 0, 0,
     "\"rope_scaling\":null,\"mlp_bias\":false"},
    {"Ternary-Bonsai", "Qwen3ForCausalLM", "silu", 320, 3, 1, 128, 344, 2, BY_128, F16, 1, 1e6, 1e-6, NULL, NULL, 0, 1, 0, 0,
     QWEN "\"head_dim\":128,\"attention_bias\":false"},
    {"Bonsai, untied", "Qwen3ForCausalLM", "silu", 130, 2, 2, 46, 211, 1, BY_64, BF16, 0, 1e6, 1e-6, NULL, NULL, 0, 1, 0, 0,
     QWEN "\"head_dim\":46"},
    {"Gemma 3 bf16", "Gemma3ForCausalLM", "gelu_pytorch_tanh", 88, 4, 1, 26, 99, 2, FLOATS, BF16, 1, 1e6, 1e-6, NULL, NULL, 0, 1, 0, 1,
     GEMMA "\"_sliding_window_pattern\":2,\"layer_types\":[\"sliding_attention\",\"full_attention\"],\"use_bidirectional_attention\":false"},
    {"Gemma 3 f16", "Gemma3ForCausalLM", "gelu_pytorch_tanh", 72, 2, 2, 40, 65, 3, FLOATS, F16, 0, 1e6, 1e-6, NULL, NULL, 0, 1, 0, 1,
     GEMMA "\"sliding_window_pattern\":2,\"cache_implementation\":\"hybrid\""},
};

/* What a test changes in a checkpoint, so that it is no longer right. */
typedef struct wrong {
    const char *architecture, *key, *json; /* member of config.json; json NULL: left out */
    const char *drop, *add;                /* end of a tensor's name; name of one more */
    const char *says;
} wrong;

/* ---------------------------------------------------------------- writing */

typedef struct tensor {
    char    name[96];
    int64_t rows, cols;
    double *v, scale; /* scale > 0: v is ternary, and inputs become int8 */
    int     unpacked; /* values are ternary, though they are floats */
} tensor;

typedef struct model {
    const spec  *s;
    const wrong *w;
    tensor       t[MAX_TENSOR];
    int          n;
    uint64_t     seed;
    maker        out;
} model;

static int ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

static double uniform(model *m)
{
    return (double)next_random(&m->seed) / 2147483648.0 - 1.0;
}

static uint32_t bits_of(float x)
{
    uint32_t b;
    memcpy(&b, &x, sizeof b);
    return b;
}

/* x cut to an element of dtype, appended to s; gives the value that was written.  Halves below their
 * smallest normal number become 0. */
static double put_element(st_str *s, int dtype, double x)
{
    uint32_t b = bits_of((float)x), word, n = dtype == F32 ? 4 : 2;
    float back;
    if (dtype == F16) {
        int e = (int)(b >> 23 & 255) - 112;
        b = e < 1 ? 0 : b & 0xffffe000u;
        word = e < 1 ? 0 : (b >> 16 & 0x8000) | (uint32_t)e << 10 | (b >> 13 & 0x3ff);
    } else {
        b = dtype == BF16 ? b & 0xffff0000u : b;
        word = dtype == BF16 ? b >> 16 : b;
    }
    for (uint32_t i = 0; i < n; i++) {
        char byte = (char)(word >> 8 * i & 255);
        st_str_addn(s, &byte, 1);
    }
    memcpy(&back, &b, sizeof back);
    return (double)back;
}

static void emit(model *m, const char *name, const char *dtype, int64_t rows, int64_t cols, st_str *bytes)
{
    char shape[64];
    if (cols)
        (void)snprintf(shape, sizeof shape, "[%lld,%lld]", (long long)rows, (long long)cols);
    else
        (void)snprintf(shape, sizeof shape, "[%lld]", (long long)rows);
    assert_false(bytes->failed);
    if (!m->w || !m->w->drop || !ends_with(name, m->w->drop))
        make_tensor(&m->out, name, dtype, shape, bytes->text, bytes->len);
    st_str_free(bytes);
}

static tensor *new_tensor(model *m, int layer, const char *name, int64_t rows, int64_t cols)
{
    assert_true(m->n < MAX_TENSOR);
    tensor *t = &m->t[m->n++];
    if (layer < 0)
        (void)snprintf(t->name, sizeof t->name, "%s", name);
    else
        (void)snprintf(t->name, sizeof t->name, "model.layers.%d.%s", layer, name);
    t->rows = rows;
    t->cols = cols;
    t->scale = 0;
    t->unpacked = 0;
    t->v = calloc((size_t)(rows * (cols ? cols : 1)), sizeof *t->v);
    assert_non_null(t->v);
    return t;
}

/* Floats of about the given size around a middle. */
static tensor *floats(model *m, int layer, const char *name, int64_t rows, int64_t cols, double size, double middle)
{
    tensor *t = new_tensor(m, layer, name, rows, cols);
    st_str s = {0};
    for (int64_t i = 0; i < rows * (cols ? cols : 1); i++)
        t->v[i] = put_element(&s, m->s->dtype, middle + size * uniform(m));
    emit(m, t->name, dtype_names[m->s->dtype], rows, cols, &s);
    return t;
}

/* Floats of three values, -s, 0 and s.  Some groups are all 0. */
static void three_values(model *m, int layer, const char *name, int64_t rows, int64_t cols, double size)
{
    tensor *t = new_tensor(m, layer, name, rows, cols);
    int64_t group = m->s->linears == BY_128 ? 128 : m->s->linears == BY_64 ? 64 : 0;
    st_str s = {0}, dropped = {0};
    double scale = 0;
    t->unpacked = 1;
    for (int64_t i = 0; i < rows * cols; i++) {
        int64_t r = i / cols, c = i % cols;
        if (group ? c % group == 0 : c == 0 && r % 3 == 0)
            scale = next_random(&m->seed) % 9 ? put_element(&dropped, m->s->dtype, size * (1 + uniform(m) / 2)) : 0;
        t->v[i] = put_element(&s, m->s->dtype, scale * ((double)(next_random(&m->seed) % 3) - 1));
    }
    st_str_free(&dropped);
    emit(m, t->name, dtype_names[m->s->dtype], rows, cols, &s);
}

/* Four rows, a quarter of the matrix apart, in a byte: row r + i R is bits 2i and 2i + 1. */
static void packed(model *m, int layer, const char *name, int64_t rows, int64_t cols)
{
    tensor *t = new_tensor(m, layer, name, rows, cols);
    char other[128];
    st_str s = {0}, scale = {0};
    int64_t quarter = rows / 4;
    assert_int_equal(rows % 4, 0);
    for (int64_t i = 0; i < rows * cols; i++)
        t->v[i] = (double)(next_random(&m->seed) % 3) - 1;
    for (int64_t i = 0; i < quarter * cols; i++) {
        int byte = 0;
        for (int64_t k = 0; k < 4; k++)
            byte |= ((int)t->v[i + k * quarter * cols] + 1) << 2 * k;
        char c = (char)byte;
        st_str_addn(&s, &c, 1);
    }
    emit(m, t->name, "U8", quarter, cols, &s);
    (void)snprintf(other, sizeof other, "%s_scale", t->name);
    t->scale = sqrt(1.5 / (double)cols);
    t->scale = m->s->linears == MULTIPLY ? put_element(&scale, BF16, t->scale) : 1 / put_element(&scale, BF16, 1 / t->scale);
    emit(m, other, "BF16", 1, 0, &scale);
}

static void linear_layer(model *m, int layer, const char *name, int64_t rows, int64_t cols)
{
    if (m->s->linears == MULTIPLY || m->s->linears == DIVIDE) {
        packed(m, layer, name, rows, cols);
        return;
    }
    if (m->s->linears >= BY_ROWS) {
        three_values(m, layer, name, rows, cols, sqrt(1.5 / (double)cols));
        return;
    }
    tensor *t = floats(m, layer, name, rows, cols, sqrt(3.0 / (double)cols), 0);
    if (m->s->linears == FLOATS)
        return;
    double mean = 0;
    for (int64_t i = 0; i < rows * cols; i++)
        mean += fabs(t->v[i]) / (double)(rows * cols);
    t->scale = mean;
    for (int64_t i = 0; i < rows * cols; i++)
        t->v[i] = fmax(-1, fmin(1, rint(t->v[i] / mean)));
}

static void write_config(const model *m, const char *dir)
{
    const spec *s = m->s;
    const char *key = m->w && m->w->key ? m->w->key : "";
    st_str t = {0};
    st_str_addf(&t, "{\"architectures\":[\"%s\"],\"model_type\":\"any\",\"bos_token_id\":1,\"eos_token_id\":2", s->architecture);
#define MEMBER(name, form, value) \
    do { \
        if (strcmp(key, name) != 0) \
            st_str_addf(&t, ",\"" name "\":" form, value); \
    } while (0)
    if (!s->gemma)
        MEMBER("hidden_act", "\"%s\"", s->act);
    else
        MEMBER("hidden_activation", "\"%s\"", s->act);
    if (s->gemma)
        MEMBER("head_dim", "%d", (int)s->hd);
    MEMBER("hidden_size", "%d", (int)s->d);
    MEMBER("intermediate_size", "%d", (int)s->ffn);
    MEMBER("num_hidden_layers", "%d", (int)s->layers);
    MEMBER("num_attention_heads", "%d", (int)s->heads);
    MEMBER("num_key_value_heads", "%d", (int)s->kv);
    MEMBER("rms_norm_eps", "%g", s->eps);
    MEMBER("rope_theta", "%.1f", s->theta);
    MEMBER("tie_word_embeddings", "%s", s->tied ? "true" : "false");
    MEMBER("vocab_size", "%d", V);
    st_str_addf(&t, ",\"max_position_embeddings\":64,\"torch_dtype\":\"any\",\"use_cache\":true");
    char member[64];
    (void)snprintf(member, sizeof member, "\"%s\"", key);
    if (!m->w || !m->w->key || !strstr(s->extra, member))
        st_str_addf(&t, ",%s", s->extra);
    else /* what comes after the member: the first in its list, with a plain value */
        st_str_addf(&t, ",%s", strchr(strstr(s->extra, member), ',') + 1);
    if (m->w && m->w->json)
        st_str_addf(&t, ",\"%s\":%s", key, m->w->json);
    st_str_addf(&t, "}");
    put_text(dir, "config.json", t.text);
    st_str_free(&t);
}

static void write_model(model *m, const char *dir)
{
    const spec *s = m->s;
    char *text;
    int64_t n;
    int ternary_ends = s->linears > BY_ROWS; /* the embedding and the head, too */
    if (ternary_ends)
        three_values(m, -1, "model.embed_tokens.weight", V, s->d, s->tied ? 0.2 : 1);
    else
        floats(m, -1, "model.embed_tokens.weight", V, s->d, 1, 0);
    for (int l = 0; l < s->layers; l++) {
        static const char *const sides[] = {"q", "k", "v"};
        floats(m, l, "input_layernorm.weight", s->d, 0, 0.5, !s->gemma);
        for (int i = 0; i < 3; i++) {
            int64_t rows = (i ? s->kv : s->heads) * s->hd;
            char name[64];
            (void)snprintf(name, sizeof name, "self_attn.%s_proj.weight", sides[i]);
            linear_layer(m, l, name, rows, s->d);
            (void)snprintf(name, sizeof name, "self_attn.%s_proj.bias", sides[i]);
            if (s->bias)
                floats(m, l, name, rows, 0, 0.7, 0);
            (void)snprintf(name, sizeof name, "self_attn.%s_norm.weight", sides[i]);
            if (s->head_norm && i < 2)
                floats(m, l, name, s->hd, 0, 0.6, !s->gemma);
        }
        linear_layer(m, l, "self_attn.o_proj.weight", s->d, s->heads * s->hd);
        floats(m, l, "post_attention_layernorm.weight", s->d, 0, 0.5, !s->gemma);
        if (s->gemma) {
            floats(m, l, "pre_feedforward_layernorm.weight", s->d, 0, 0.5, 0);
            floats(m, l, "post_feedforward_layernorm.weight", s->d, 0, 0.5, 0);
        }
        linear_layer(m, l, "mlp.gate_proj.weight", s->ffn, s->d);
        linear_layer(m, l, "mlp.up_proj.weight", s->ffn, s->d);
        linear_layer(m, l, "mlp.down_proj.weight", s->d, s->ffn);
        for (int i = 0; i < 2 && s->sub_attn; i++) {
            char name[64];
            (void)snprintf(name, sizeof name, "%s.weight", i ? s->sub_ffn : s->sub_attn);
            floats(m, l, name, i ? s->ffn : s->heads * s->hd, 0, 0.5, 1);
        }
    }
    floats(m, -1, "model.norm.weight", s->d, 0, 0.5, !s->gemma);
    if (!s->tied && ternary_ends)
        three_values(m, -1, "lm_head.weight", V, s->d, 0.3);
    else if (!s->tied)
        floats(m, -1, "lm_head.weight", V, s->d, 0.3, 0);
    if (s->tied == REPEATED) {
        st_str copy = {0};
        st_str_addn(&copy, m->out.data.text, (size_t)(2 * V * s->d)); /* the embedding came first */
        emit(m, "lm_head.weight", "BF16", V, s->d, &copy);
    }
    if (m->w && m->w->add)
        floats(m, -1, m->w->add, strstr(m->w->add, "lm_head") ? V : s->d, strstr(m->w->add, "lm_head") ? s->d : 0, 1, 0);
    make_file(&m->out, dir, "model.safetensors");
    write_config(m, dir);
    assert_int_equal(st_file_read(SETUN_SOURCE_DIR "/tests/models/shakespeare/tokenizer.json", 1 << 20, &text, &n, NULL), SETUN_OK);
    put_file(dir, "tokenizer.json", text, (size_t)n);
    free(text);
}

static void drop_model(model *m)
{
    for (int i = 0; i < m->n; i++)
        free(m->t[i].v);
    free(m);
}

/* ---------------------------------------------------------------- the forward pass */

static const tensor *get(const model *m, int layer, const char *name)
{
    char full[96];
    if (layer < 0)
        (void)snprintf(full, sizeof full, "%s.weight", name);
    else
        (void)snprintf(full, sizeof full, "model.layers.%d.%s%s", layer, name, ends_with(name, ".bias") ? "" : ".weight");
    for (int i = 0; i < m->n; i++)
        if (strcmp(m->t[i].name, full) == 0)
            return &m->t[i];
    fail_msg("the test has no tensor %s", full);
    return NULL;
}

static void normalise(const model *m, const tensor *w, const double *x, double *y)
{
    double sum = 0;
    for (int64_t i = 0; i < w->rows; i++)
        sum += x[i] * x[i];
    for (int64_t i = 0; i < w->rows; i++)
        y[i] = x[i] / sqrt(sum / (double)w->rows + m->s->eps) * (w->v[i] + m->s->gemma);
}

static void product(const tensor *w, const double *x, double *y)
{
    double a = 1e-5, *q = calloc((size_t)w->cols, sizeof *q);
    assert_non_null(q);
    for (int64_t i = 0; i < w->cols; i++)
        a = fmax(a, fabs(x[i]));
    for (int64_t i = 0; i < w->cols; i++)
        q[i] = w->scale > 0 ? rint(x[i] * 127 / a) : x[i];
    for (int64_t r = 0; r < w->rows; r++) {
        double sum = 0;
        for (int64_t i = 0; i < w->cols; i++)
            sum += w->v[r * w->cols + i] * q[i];
        y[r] = w->scale > 0 ? sum * a / 127 * w->scale : sum;
    }
    free(q);
}

/* Element i of a head turns with element i + hd / 2. */
static void turn(const spec *s, double theta, double *head, int pos)
{
    for (int64_t i = 0, half = s->hd / 2; i < half; i++) {
        double f = pow(theta, -2.0 * (double)i / (double)s->hd), wave = 2 * 3.14159265358979323846 / f;
        if (s->llama3) { /* factor 32, low 1, high 4, 64 positions before */
            double smooth = (64 / wave - 1) / (4 - 1);
            f = wave < 64.0 / 4 ? f : wave > 64.0 ? f / 32 : (1 - smooth) * f / 32 + smooth * f;
        }
        double c = cos(f * pos), n = sin(f * pos), x = head[i], y = head[i + half];
        head[i] = x * c - y * n;
        head[i + half] = y * c + x * n;
    }
}

/* Does layer l see a window only? */
static int is_near(const spec *s, int l)
{
    return s->gemma && l % 2 == 0;
}

static void project(const model *m, int l, const char *side, const double *x, int pos, double *y)
{
    char name[64];
    const spec *s = m->s;
    (void)snprintf(name, sizeof name, "self_attn.%s_proj", side);
    const tensor *w = get(m, l, name);
    product(w, x, y);
    (void)snprintf(name, sizeof name, "self_attn.%s_proj.bias", side);
    for (int64_t i = 0; s->bias && i < w->rows; i++)
        y[i] += get(m, l, name)->v[i];
    (void)snprintf(name, sizeof name, "self_attn.%s_norm", side);
    for (int64_t h = 0; *side != 'v' && h < w->rows / s->hd; h++) {
        if (s->head_norm)
            normalise(m, get(m, l, name), y + h * s->hd, y + h * s->hd);
        turn(s, is_near(s, l) ? 1e4 : s->theta, y + h * s->hd, pos);
    }
}

static double activation(const spec *s, double x)
{
    if (strcmp(s->act, "relu2") == 0)
        return x > 0 ? x * x : 0;
    if (s->gemma)
        return x / 2 * (1 + tanh(sqrt(2 / 3.14159265358979323846) * (x + 0.044715 * x * x * x)));
    return x / (1 + exp(-x));
}

#define WIDE 16384
typedef struct run {
    double x[TOKENS][WIDE / 16], k[4][TOKENS][WIDE / 16], v[4][TOKENS][WIDE / 16];
    double h[WIDE], q[WIDE], o[WIDE], gate[WIDE], up[WIDE];
} run;

static void layer(const model *m, run *r, int l, int pos)
{
    const spec *s = m->s;
    double *x = r->x[pos], e[TOKENS], scale = 1 / sqrt(s->gemma ? 21.0 : (double)s->hd);
    int first = is_near(s, l) && pos > 3 ? pos - 3 : 0;
    normalise(m, get(m, l, "input_layernorm"), x, r->h);
    project(m, l, "q", r->h, pos, r->q);
    project(m, l, "k", r->h, pos, r->k[l][pos]);
    project(m, l, "v", r->h, pos, r->v[l][pos]);
    for (int64_t h = 0; h < s->heads; h++) {
        int64_t from = h / (s->heads / s->kv) * s->hd;
        double z = 0;
        for (int j = first; j <= pos; j++) {
            double dot = 0;
            for (int64_t i = 0; i < s->hd; i++)
                dot += r->q[h * s->hd + i] * r->k[l][j][from + i];
            z += e[j] = exp(dot * scale);
        }
        for (int64_t i = 0; i < s->hd; i++) {
            r->o[h * s->hd + i] = 0;
            for (int j = first; j <= pos; j++)
                r->o[h * s->hd + i] += e[j] / z * r->v[l][j][from + i];
        }
    }
    if (s->sub_attn)
        normalise(m, get(m, l, s->sub_attn), r->o, r->o);
    product(get(m, l, "self_attn.o_proj"), r->o, r->h);
    if (s->gemma)
        normalise(m, get(m, l, "post_attention_layernorm"), r->h, r->h);
    for (int64_t i = 0; i < s->d; i++)
        x[i] += r->h[i];
    normalise(m, get(m, l, s->gemma ? "pre_feedforward_layernorm" : "post_attention_layernorm"), x, r->h);
    product(get(m, l, "mlp.gate_proj"), r->h, r->gate);
    product(get(m, l, "mlp.up_proj"), r->h, r->up);
    for (int64_t i = 0; i < s->ffn; i++)
        r->gate[i] = activation(s, r->gate[i]) * r->up[i];
    if (s->sub_ffn)
        normalise(m, get(m, l, s->sub_ffn), r->gate, r->gate);
    product(get(m, l, "mlp.down_proj"), r->gate, r->h);
    if (s->gemma)
        normalise(m, get(m, l, "post_feedforward_layernorm"), r->h, r->h);
    for (int64_t i = 0; i < s->d; i++)
        x[i] += r->h[i];
}

static void forward(const model *m, const int32_t *tokens, double *logits)
{
    const tensor *table = get(m, -1, "model.embed_tokens");
    run *r = calloc(1, sizeof *r);
    assert_non_null(r);
    assert_true(m->s->d <= WIDE / 16 && m->s->heads * m->s->hd <= WIDE / 16 && m->s->ffn <= WIDE);
    for (int t = 0; t < TOKENS; t++) {
        memcpy(r->x[t], table->v + tokens[t] * m->s->d, (size_t)m->s->d * sizeof(double));
        for (int64_t i = 0; m->s->gemma && i < m->s->d; i++)
            r->x[t][i] *= sqrt((double)m->s->d);
        for (int l = 0; l < m->s->layers; l++)
            layer(m, r, l, t);
        normalise(m, get(m, -1, "model.norm"), r->x[t], r->h);
        product(m->s->tied ? table : get(m, -1, "lm_head"), r->h, logits + t * V);
    }
    free(r);
}

/* ---------------------------------------------------------------- tests */

/* Compiling is what takes the time, and tests/unit/ops.c and jit.c compare compiled kernels with
 * interpreted ones; here one model is enough. */
static setun_status load(setun_model **m, const char *dir, int compiled, setun_error *err)
{
    setun_options o;
    setun_options_init(&o);
    o.kv = "f32";
    o.n_threads = 1;
    o.interpret = !compiled;
    o.n_outputs = TOKENS;
    return setun_model_load(m, dir, &o, err);
}

static void compare(const spec *s, const char *how, const float *got, const double *want, int rows)
{
    double difference = 0, square = 0, worst = 0, kl = 0;
    for (int r = 0; r < rows; r++, got += V, want += V) {
        double zp = 0, zq = 0;
        for (int i = 0; i < V; i++) {
            double d = (double)got[i] - want[i];
            assert_true(isfinite(got[i]));
            difference += d * d;
            square += want[i] * want[i];
            worst = fmax(worst, fabs(d));
            zp += exp(want[i]);
            zq += exp((double)got[i]);
        }
        for (int i = 0; i < V; i++)
            kl += exp(want[i]) / zp * (want[i] - log(zp) - (double)got[i] + log(zq)) / rows;
    }
    double relative = sqrt(difference / square);
    print_message("  %-17s %-11s logits of %.1f differ by %.1e of their size, at most %.1e; KL %.1e\n", s->name, how,
                  sqrt(square / rows / V), relative, worst, kl);
    assert_true(relative <= LIMIT);
    assert_true(worst <= 1e-4);
    assert_true(kl <= 1e-9);
}

/* Every matrix that is ternary was found, and no other one. */
static void check_ternary(const model *m, const setun_model *loaded)
{
    setun_model_stats stats = {.size = sizeof stats};
    int64_t want = 0;
    for (int i = 0; i < m->n; i++)
        if (m->t[i].scale > 0 || m->t[i].unpacked)
            want += m->t[i].rows * m->t[i].cols;
    setun_model_get_stats(loaded, &stats);
    assert_int_equal(stats.ternary_weights, want);
}

static int keep(void *user, const char *text, size_t n)
{
    st_str_addn(user, text, n);
    return 0;
}

/* What was decided is told: line by line what the spec says. */
static void check_plan(const spec *s, const setun_model *loaded)
{
    static const char *const linears[] = {"ordinary matrices: ", "ternary, with activations of 8 bits: absmean", "ternary, with activations of 8 bits: multiply",
                                          "ternary, with activations of 8 bits: divide", "ternary, with activations in floats: ",
                                          "ternary, with activations in floats: ", "ternary, with activations in floats: "};
    char says[12][128];
    int n = 0;
    st_str text = {0};
    assert_int_equal(setun_model_info(loaded, 0, keep, &text, NULL), SETUN_OK);
    (void)snprintf(says[n++], sizeof *says, "the gate is %s: hidden_act%s of", s->gemma ? "gelu_tanh" : s->act, s->gemma ? "ivation" : "");
    (void)snprintf(says[n++], sizeof *says, "the head is %s", s->tied == UNTIED ? "lm_head.weight: the tensor" : s->tied == TIED
                   ? "the embedding: there is no" : "the embedding: lm_head.weight repeats it");
    (void)snprintf(says[n++], sizeof *says, "linear layers are %s", linears[s->linears]);
    (void)snprintf(says[n++], sizeof *says, "the base of angles is %.9g: rope_theta", s->theta);
    (void)snprintf(says[n++], sizeof *says, "angles are %s", s->llama3 ? "scaled as llama3 does it, by 32:" : strstr(s->extra, "\"linear\"")
                   ? "scaled as linear does it, by 1:" : "not scaled");
    if (s->sub_attn)
        (void)snprintf(says[n++], sizeof *says, "have a norm behind them: tensor model.layers.0.%s.weight", s->sub_attn);
    if (s->head_norm)
        (void)snprintf(says[n++], sizeof *says, "heads of queries and keys are normalised: ");
    if (s->bias)
        (void)snprintf(says[n++], sizeof *says, "queries, keys and values have a bias: ");
    if (s->gemma) {
        (void)snprintf(says[n++], sizeof *says, "%d of %d layers see 4 positions, with angles of base 10000: ", (int)(s->layers + 1) / 2, (int)s->layers);
        (void)snprintf(says[n++], sizeof *says, "rows of the embedding are multiplied by %.9g: ", sqrt((double)s->d));
        (void)snprintf(says[n++], sizeof *says, "too, before they join the residual: ");
    }
    int lines = 0;
    for (const char *at = text.text; (at = strstr(at, "\ndecision ")); at++)
        lines++;
    for (int i = 0; i < n; i++)
        if (!strstr(text.text, says[i]))
            fail_msg("%s: info does not say '%s': %s", s->name, says[i], text.text);
    assert_int_equal(lines, n);
    st_str_free(&text);
}

static void test_logits(void **state)
{
    static const int32_t tokens[TOKENS] = {1021, 870, 1030, 79, 44, 441, 0, 268, 1029};
    double *want = calloc(TOKENS * V, sizeof *want);
    (void)state;
    assert_non_null(want);
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++) {
        model *m = calloc(1, sizeof *m);
        char *dir = temp_dir();
        setun_model *loaded;
        setun_session *s;
        setun_error err = {0};
        const float *logits;
        assert_non_null(m);
        m->s = &specs[i];
        m->seed = SEED + i;
        write_model(m, dir);
        forward(m, tokens, want);
        if (load(&loaded, dir, i == 0, &err) != SETUN_OK || setun_session_new(&s, loaded, &err) != SETUN_OK)
            fail_msg("%s: %s", specs[i].name, err.text);
        assert_int_equal(setun_model_n_vocab(loaded), V);
        check_ternary(m, loaded);
        check_plan(&specs[i], loaded);
        assert_int_equal(setun_session_feed(s, tokens, TOKENS, SETUN_LOGITS_ALL, &logits, &err), SETUN_OK);
        compare(&specs[i], "at once", logits, want, TOKENS);
        assert_int_equal(setun_session_rewind(s, 0, &err), SETUN_OK);
        for (int t = 0; t < TOKENS; t++)
            assert_int_equal(setun_session_feed(s, tokens + t, 1, SETUN_LOGITS_LAST, &logits, &err), SETUN_OK);
        compare(&specs[i], "one by one", logits, want + (TOKENS - 1) * V, 1);
        setun_session_free(s);
        setun_model_free(loaded);
        drop_dir(dir);
        drop_model(m);
    }
    free(want);
}

#define ONEBIT "BitnetForCausalLM",
#define LLAMA "LlamaForCausalLM",
#define QWEN2 "Qwen2ForCausalLM",
#define QWEN3 "Qwen3ForCausalLM",
#define GEMMA3 "Gemma3ForCausalLM",
static const wrong wrongs[] = {
    {ONEBIT "hidden_act", "\"relu2\"", NULL, NULL, "hidden_act is 'relu2', but this script computes only silu"},
    {ONEBIT "weight_bits", NULL, NULL, NULL, "weight_bits is missing, but this script computes only 1"},
    {ONEBIT "hidden_activation", "\"silu\"", NULL, NULL, "key 'hidden_activation' = \"silu\" is not understood by bitnet_1bitllm.lua"},
    {ONEBIT "num_hidden_layers", "1", NULL, NULL, "does not use 11 tensors"},
    {ONEBIT "num_hidden_layers", "3", NULL, NULL, "tensor model.layers.2.input_layernorm.weight is missing"},
    {ONEBIT "tie_word_embeddings", "false", NULL, NULL, "tensor lm_head.weight is missing"},
    {ONEBIT NULL, NULL, "1.mlp.ffn_layernorm.weight", NULL, "tensor model.layers.1.mlp.ffn_layernorm.weight is missing"},
    {ONEBIT NULL, NULL, NULL, "model.layers.0.self_attn.o_proj.bias", "does not use 1 tensor: model.layers.0.self_attn.o_proj.bias"},
    {ONEBIT NULL, NULL, NULL, "lm_head.weight", "tie_word_embeddings is true, but the file has a head that is not the embedding"},
    {LLAMA NULL, NULL, NULL, "model.layers.0.self_attn.q_norm.weight", "does not use 1 tensor: model.layers.0.self_attn.q_norm.weight"},
    {LLAMA NULL, NULL, NULL, "model.layers.0.self_attn.attn_sub_norm.weight", "self_attn.attn_sub_norm.weight"},
    {LLAMA "partial_rotary_factor", "0.5", NULL, NULL, "key 'partial_rotary_factor' = 0.5 is not understood"},
    {QWEN2 "use_sliding_window", "true", NULL, NULL, "use_sliding_window is true, but this script computes only false"},
    {QWEN2 "use_mrope", "true", NULL, NULL, "use_mrope is true"},
    {QWEN2 "attention_bias", "false", NULL, NULL, "attention_bias is false, but this script computes only true"},
    {QWEN2 "rope_scaling", "{\"type\":\"yarn\",\"factor\":4.0,\"original_max_position_embeddings\":32768}", NULL, NULL, "rope_scaling of type 'yarn'"},
    {QWEN2 "layer_types", "[\"full_attention\",\"sliding_attention\"]", NULL, NULL, "layer_types.2 is 'sliding_attention'"},
    {QWEN2 "layer_types", "[\"full_attention\",\"full_attention\",\"full_attention\"]", NULL, NULL, "key 'layer_types.3'"},
    {QWEN2 NULL, NULL, "1.self_attn.k_proj.bias", NULL, "tensor model.layers.1.self_attn.k_proj.bias is missing"},
    {QWEN2 NULL, NULL, NULL, "model.layers.1.self_attn.o_proj.bias", "does not use 1 tensor: model.layers.1.self_attn.o_proj.bias"},
    {QWEN3 "hidden_act", "\"gelu\"", NULL, NULL, "qwen3.lua:12: config.json: hidden_act is 'gelu'"},
    {QWEN3 "head_dim", NULL, NULL, NULL, "head_dim must be a whole number from 1 on, it is missing"},
    {QWEN3 "num_key_value_heads", "1", NULL, NULL, "tensor blk.0.attn_k is bf16[68,90], but config.json makes it [34,90]"},
    {QWEN3 NULL, NULL, "0.self_attn.q_norm.weight", NULL, "tensor model.layers.0.self_attn.q_norm.weight is missing"},
    {QWEN3 NULL, NULL, NULL, "model.layers.0.self_attn.q_proj.bias", "does not use 1 tensor: model.layers.0.self_attn.q_proj.bias"},
    {GEMMA3 "hidden_activation", "\"gelu\"", NULL, NULL, "hidden_activation is 'gelu', but this script computes only gelu_pytorch_tanh"},
    {GEMMA3 "hidden_act", "\"silu\"", NULL, NULL, "hidden_act is 'silu'"},
    {GEMMA3 "query_pre_attn_scalar", NULL, NULL, NULL, "query_pre_attn_scalar must be a number above 0, it is missing"},
    {GEMMA3 "use_cache_of_layers", "1", NULL, NULL, "the key use_cache_of_layers is not known"},
    {GEMMA3 "sliding_window_pattern", "3", NULL, NULL, "_sliding_window_pattern is 2, but this script computes only 3"},
    {GEMMA3 "num_hidden_layers", "3", NULL, NULL, "layer_types.3 is missing, but this script computes only sliding_attention"},
    {GEMMA3 NULL, NULL, "1.post_feedforward_layernorm.weight", NULL, "post_feedforward_layernorm.weight is missing"},
    {GEMMA3 NULL, NULL, NULL, "model.layers.0.self_attn.q_proj.bias", "does not use 1 tensor"},
};

static void test_refusals(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof wrongs / sizeof *wrongs; i++) {
        model *m = calloc(1, sizeof *m);
        char *dir = temp_dir();
        setun_model *loaded = NULL;
        setun_error err = {0};
        assert_non_null(m);
        for (m->s = specs; strcmp(m->s->architecture, wrongs[i].architecture) != 0;)
            m->s++;
        m->w = &wrongs[i];
        write_model(m, dir);
        if (load(&loaded, dir, 0, &err) == SETUN_OK)
            fail_msg("loaded, but wants: %s", wrongs[i].says);
        if (!strstr(err.text, wrongs[i].says))
            fail_msg("gives: %s\n  wants: %s", err.text, wrongs[i].says);
        drop_dir(dir);
        drop_model(m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_logits), cmocka_unit_test(test_refusals)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
