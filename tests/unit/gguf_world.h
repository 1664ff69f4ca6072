/* tests/unit/gguf_world.h -- a small model of an architecture, written as a GGUF file and as a Hugging Face directory.
 *
 * Both come from the same numbers, by code that shares nothing with the readers: names, the order of
 * rows and the packings are spelled out again.  Everything is static; for gguf_model.c. */
#ifndef ST_TESTS_GGUF_WORLD_H
#define ST_TESTS_GGUF_WORLD_H

#include <math.h>

#include "tests/unit/gguf_files.h"

#define V 301
#define D 256
#define FFN 256
#define LAYERS 2
#define MOST 64
#define SCALES_ROWS 1 /* else 0: one a tensor; more: so many weights of a row share one */

enum { RELU, SILU, GELU };
enum { T_F32 = 0, T_F16 = 1, T_Q8_0 = 8, T_BF16 = 30, T_TQ1_0 = 34, T_TQ2_0 = 35, T_I2S = 36, T_Q2_0 = 42, T_Q2_0_128 = 1042, T_IQ1_BN = 134,
       T_IQ2_BN = 135, T_PQ2_0 = 142, T_PTQ1_0 = 143 };

typedef struct arch {
    const char *name, *class_name;
    int         act;
    int64_t     heads, kv, hd;
    double      theta, eps;
    int         sub_norms; /* 1: names of 2B4T, 2: of 1bitLLM */
    int         interleaved, bias, head_norm, gemma, tied, bitnet;
    const char *extra; /* members of config.json */
} arch;

static const arch archs[] = {
    { "bitnet-b1.58", "BitNetForCausalLM", RELU, 4, 2, 64, 500000, 1e-5, 1, 0, 0, 0, 0, 1, 1, "" },
    { "bitnet-25", "BitNetForCausalLM", RELU, 2, 1, 128, 500000, 1e-5, 1, 0, 0, 0, 0, 1, 1, "" },
    { "bitnet", "BitnetForCausalLM", SILU, 4, 4, 64, 10000, 1e-5, 2, 0, 0, 0, 0, 1, 1, ",\"weight_bits\":1,\"input_bits\":8" },
    { "llama", "LlamaForCausalLM", SILU, 4, 2, 64, 1000042, 1e-6, 0, 1, 0, 0, 0, 0, 0, "" },
    { "qwen2", "Qwen2ForCausalLM", SILU, 8, 2, 32, 1000000, 1e-6, 0, 0, 1, 0, 0, 1, 0, "" },
    { "qwen3", "Qwen3ForCausalLM", SILU, 2, 1, 256, 1000000, 1e-6, 0, 0, 0, 1, 0, 0, 0, ",\"head_dim\":256" },
    { "gemma3", "Gemma3ForCausalLM", GELU, 4, 1, 128, 1000000, 1e-6, 0, 0, 0, 1, 1, 1, 0,
      ",\"head_dim\":128,\"query_pre_attn_scalar\":128,\"sliding_window\":4,\"rope_local_base_freq\":1e4,\"sliding_window_pattern\":6" },
};
#define N_ARCHS (sizeof archs / sizeof *archs)

static const arch *named(const char *name)
{
    const arch *a = archs;
    while (strcmp(a->name, name) != 0)
        a++;
    return a;
}

enum { LINEAR, MATRIX, NORM, VECTOR };

typedef struct tensor {
    char    gguf[64], hf[96];
    int     kind;
    int64_t rows, cols, heads; /* heads > 0: the file has their rows interleaved */
    int8_t *q;                 /* linear: -1, 0, 1 */
    float  *v;                 /* all others */
    float   scale;
} tensor;

/* What is changed in a file, so that it is another one. */
typedef struct change {
    const char *key;         /* of the metadata, or NULL */
    int         how;         /* MISSING ... */
    const char *drop, *add;  /* names of tensors */
    int         layout;      /* I2_S: 0 x86, 1 arm, 2 rows4 */
    int         scales;      /* how many there are */
    int         embedding;   /* embedding and head are ternary, too */
    int         ones;        /* scale 1 in the file, and the scale in "X.scale" */
    int         two_at;      /* > 0: a weight of +2 in the first linear layer */
    int         repeat;      /* output.weight is token_embd.weight again */
    const char *text_key, *text; /* one more key */
    const char *name;        /* general.name */
    const char *config;      /* more members of config.json, for the directory that is the same model */
    double      linear;      /* > 0: a linear scaling of angles */
    int         llama3;      /* rope_freqs.weight; 2: one of them is wrong */
    int         lists;       /* sizes as lists with a value for each layer */
    const char *layers;      /* gemma3: one character a layer, 'w' sees a window */
} change;
static const change nothing;
enum { AS_IT_IS, MISSING, ZERO, MAXIMUM, ONE_MORE, ONE_LESS, N_WAYS };

typedef struct world {
    const arch *a;
    tensor      t[MOST];
    int         n;
    uint64_t    seed;
} world;

/* ---------------------------------------------------------------- numbers */

static uint32_t bits_of(float f)
{
    uint32_t b;
    memcpy(&b, &f, 4);
    return b;
}

static float bf16(double x)
{
    float f = (float)x;
    uint32_t b = bits_of(f) & 0xffff0000u;
    memcpy(&f, &b, 4);
    return f;
}

/* Of a number that binary16 has, or that is below its normal ones: then 0. */
static uint32_t half_of(float f)
{
    uint32_t b = bits_of(f), e = b >> 23 & 255;
    return e < 113 ? b >> 16 & 0x8000 : (b >> 16 & 0x8000) | (e - 112) << 10 | (b >> 13 & 0x3ff);
}

static tensor *add(world *w, const char *gguf, const char *hf, int layer, int kind, int64_t rows, int64_t cols)
{
    tensor *t = &w->t[w->n++];
    assert_true(w->n <= MOST);
    memset(t, 0, sizeof *t);
    if (layer < 0) {
        (void)snprintf(t->gguf, sizeof t->gguf, "%s", gguf);
        (void)snprintf(t->hf, sizeof t->hf, "%s", hf);
    } else {
        (void)snprintf(t->gguf, sizeof t->gguf, "blk.%d.%s", layer, gguf);
        (void)snprintf(t->hf, sizeof t->hf, "model.layers.%d.%s", layer, hf);
    }
    int64_t n = rows * (cols ? cols : 1);
    t->kind = kind;
    t->rows = rows;
    t->cols = cols;
    t->q = calloc((size_t)n, 1);
    t->v = calloc((size_t)n, sizeof *t->v);
    assert_true(t->q && t->v);
    for (int64_t i = 0; i < n; i++) {
        double u = (double)next_random(&w->seed) / 4294967296.0 - 0.5;
        t->q[i] = (int8_t)(next_random(&w->seed) % 3) - 1;
        /* Eight bits above 2^-9: they are the same in bf16 and f16, and with 1 added. */
        t->v[i] = kind == NORM ? (float)(1 + rint(u * 100) / 128) : kind == MATRIX ? bf16(rint(u * 127) / 64) : bf16(rint(u * 100) / 128);
    }
    t->scale = (float)(8 + next_random(&w->seed) % 8) / 128;
    return t;
}

static world *make_world(const arch *a, uint64_t seed)
{
    static const char *const subs[2][2] = { { "self_attn.attn_sub_norm.weight", "mlp.ffn_sub_norm.weight" },
                                            { "self_attn.inner_attn_ln.weight", "mlp.ffn_layernorm.weight" } };
    world *w = calloc(1, sizeof *w);
    assert_non_null(w);
    w->a = a;
    w->seed = seed;
    int64_t q = a->heads * a->hd, kv = a->kv * a->hd;
    add(w, "token_embd.weight", "model.embed_tokens.weight", -1, MATRIX, V, D);
    if (!a->tied)
        add(w, "output.weight", "lm_head.weight", -1, MATRIX, V, D);
    add(w, "output_norm.weight", "model.norm.weight", -1, NORM, D, 0);
    for (int l = 0; l < LAYERS; l++) {
        add(w, "attn_norm.weight", "input_layernorm.weight", l, NORM, D, 0);
        add(w, "ffn_norm.weight", a->gemma ? "pre_feedforward_layernorm.weight" : "post_attention_layernorm.weight", l, NORM, D, 0);
        add(w, "attn_q.weight", "self_attn.q_proj.weight", l, LINEAR, q, D)->heads = a->interleaved ? a->heads : 0;
        add(w, "attn_k.weight", "self_attn.k_proj.weight", l, LINEAR, kv, D)->heads = a->interleaved ? a->kv : 0;
        add(w, "attn_v.weight", "self_attn.v_proj.weight", l, LINEAR, kv, D);
        add(w, "attn_output.weight", "self_attn.o_proj.weight", l, LINEAR, D, q);
        add(w, "ffn_gate.weight", "mlp.gate_proj.weight", l, LINEAR, FFN, D);
        add(w, "ffn_up.weight", "mlp.up_proj.weight", l, LINEAR, FFN, D);
        add(w, "ffn_down.weight", "mlp.down_proj.weight", l, LINEAR, D, FFN);
        if (a->sub_norms) {
            add(w, "attn_sub_norm.weight", subs[a->sub_norms - 1][0], l, NORM, q, 0);
            add(w, "ffn_sub_norm.weight", subs[a->sub_norms - 1][1], l, NORM, FFN, 0);
        }
        if (a->bias) {
            add(w, "attn_q.bias", "self_attn.q_proj.bias", l, VECTOR, q, 0);
            add(w, "attn_k.bias", "self_attn.k_proj.bias", l, VECTOR, kv, 0);
            add(w, "attn_v.bias", "self_attn.v_proj.bias", l, VECTOR, kv, 0);
        }
        if (a->head_norm) {
            add(w, "attn_q_norm.weight", "self_attn.q_norm.weight", l, NORM, a->hd, 0);
            add(w, "attn_k_norm.weight", "self_attn.k_norm.weight", l, NORM, a->hd, 0);
        }
        if (a->gemma) {
            add(w, "post_attention_norm.weight", "post_attention_layernorm.weight", l, NORM, D, 0);
            add(w, "post_ffw_norm.weight", "post_feedforward_layernorm.weight", l, NORM, D, 0);
        }
    }
    return w;
}

/* Embedding and head as the linear layers are. */
static inline world *all_ternary(world *w)
{
    for (int i = 0; i < w->n; i++)
        w->t[i].kind = w->t[i].kind == MATRIX ? LINEAR : w->t[i].kind;
    return w;
}

static void drop_world(world *w)
{
    for (int i = 0; i < w->n; i++) {
        free(w->t[i].q);
        free(w->t[i].v);
    }
    free(w);
}

/* ---------------------------------------------------------------- a directory */

static void put_bf16(st_str *s, const float *v, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        put_le(s, bits_of(v[i]) >> 16, 2);
}

static void write_tokenizer(const char *dir)
{
    st_str s = { 0 };
    st_str_add(&s, "{\"version\":\"1.0\",\"added_tokens\":[],\"normalizer\":null,\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":"
               "false,\"trim_offsets\":true,\"use_regex\":true},\"post_processor\":null,\"decoder\":{\"type\":\"ByteLevel\",\"add_prefix_space\":"
               "true,\"trim_offsets\":true,\"use_regex\":true},\"model\":{\"type\":\"BPE\",\"merges\":[],\"vocab\":{");
    for (uint32_t i = 0; i < 256; i++) {
        char text[4];
        st_str_addf(&s, "%s", i ? "," : "");
        size_t n = byte_token(i, text);
        st_str_add_json(&s, text, n);
        st_str_addf(&s, ":%u", i);
    }
    st_str_add(&s, "}}}");
    put_text(dir, "tokenizer.json", s.text);
    st_str_free(&s);
}

/* Powers and multiples that bf16 and f16 have, and their products with weights. */
static float scale_at(const tensor *t, const change *c, int64_t row, int64_t col)
{
    return c->scales == 0 ? t->scale : t->scale * (float)(1 + (row + (c->scales > 1 ? col / c->scales : 0)) % 3);
}

/* ternary 0: linear layers are the products of weight and scale, in bf16. */
static void write_dir(const world *w, const char *dir, int ternary, const change *how)
{
    static const char *const acts[] = { "\"hidden_act\":\"relu2\"", "\"hidden_act\":\"silu\"", "\"hidden_activation\":\"gelu_pytorch_tanh\"" };
    const arch *a = w->a;
    maker out = { { 0 }, { 0 } };
    char shape[64], name[128];
    for (int i = 0; i < w->n; i++) {
        const tensor *t = &w->t[i];
        st_str s = { 0 }, one = { 0 };
        int64_t count = t->rows * (t->cols ? t->cols : 1), quarter = t->rows / 4 * t->cols;
        if (t->kind == LINEAR && ternary) {
            for (int64_t k = 0; k < quarter; k++)
                put_le(&s, (uint64_t)((t->q[k] + 1) | (t->q[k + quarter] + 1) << 2 | (t->q[k + 2 * quarter] + 1) << 4 |
                                      (t->q[k + 3 * quarter] + 1) << 6), 1);
            (void)snprintf(shape, sizeof shape, "[%d,%d]", (int)t->rows / 4, (int)t->cols);
            make_tensor(&out, t->hf, "U8", shape, s.text, s.len);
            put_bf16(&one, &t->scale, 1);
            (void)snprintf(name, sizeof name, "%s_scale", t->hf);
            make_tensor(&out, name, "BF16", "[1]", one.text, one.len);
        } else {
            for (int64_t k = 0; k < count; k++) {
                float v = t->kind == LINEAR ? (float)t->q[k] * scale_at(t, how, k / t->cols, k % t->cols) : t->v[k] - (float)(t->kind == NORM && a->gemma);
                put_bf16(&s, &v, 1);
            }
            (void)snprintf(shape, sizeof shape, t->cols ? "[%d,%d]" : "[%d]", (int)t->rows, (int)t->cols);
            make_tensor(&out, t->hf, "BF16", shape, s.text, s.len);
        }
        st_str_free(&s);
        st_str_free(&one);
    }
    make_file(&out, dir, "model.safetensors");
    st_str c = { 0 };
    st_str_addf(&c, "{\"architectures\":[\"%s\"],%s,\"hidden_size\":%d,\"intermediate_size\":%d,\"num_hidden_layers\":%d,"
                "\"num_attention_heads\":%d,\"num_key_value_heads\":%d,\"rms_norm_eps\":%g,\"rope_theta\":%.1f,\"vocab_size\":%d,"
                "\"max_position_embeddings\":64,\"eos_token_id\":2,\"tie_word_embeddings\":%s%s", a->class_name, acts[a->act], D, FFN,
                LAYERS, (int)a->heads, (int)a->kv, a->eps, a->theta, V, a->tied ? "true" : "false", a->extra);
    st_str_addf(&c, "%s", how->config ? how->config : "");
    if (ternary)
        st_str_addf(&c, ",\"quantization_config\":{\"quant_method\":\"bitnet\",\"linear_class\":\"autobitlinear\"}");
    st_str_addf(&c, "}");
    put_text(dir, "config.json", c.text);
    st_str_free(&c);
    write_tokenizer(dir);
}

/* ---------------------------------------------------------------- packings */

static void put_half(st_str *s, float f) { put_le(s, half_of(f), 2); }

static void put_float(st_str *s, float f) { put_le(s, bits_of(f), 4); }

/* Five digits, the first one the most significant, as a fraction of 243 in 256 parts, rounded up. */
static uint64_t trits(const int8_t *q, int64_t step, int n, int backwards)
{
    int v = 0;
    for (int i = 0; i < 5; i++) {
        int at = backwards ? n - 1 - i : i;
        v = 3 * v + (at >= 0 && at < n ? q[at * step] + 1 : 0);
    }
    return (uint64_t)((256 * v + 242) / 243);
}

/* `width` bytes of `n` digits: byte m has weights m, m + width, ... */
static const int8_t *put_trits(st_str *s, const int8_t *q, int width, int n)
{
    for (int m = 0; m < width; m++)
        put_le(s, trits(q + m, width, n, 0), 1);
    return q + width * n;
}

static void pack_row(st_str *s, int type, const tensor *t, const change *c, const int8_t *q, int64_t row)
{
    const int8_t *first = q, *end = q + t->cols;
    float scale = c->ones ? 1 : scale_at(t, c, row, 0);
    if (type == T_IQ1_BN)
        put_half(s, scale);
    if (type == T_IQ2_BN)
        put_float(s, scale);
    int64_t block = type == T_TQ1_0 || type == T_TQ2_0 ? 256 : type == T_Q2_0 || type == T_IQ1_BN || type == T_IQ2_BN ? 64 : 128;
    for (; q < end; q += block) {
        const int8_t *p = q;
        scale = c->ones ? 1 : scale_at(t, c, row, q - first);
        if (type == T_Q2_0 || type == T_Q2_0_128 || type == T_PQ2_0) {
            put_half(s, scale);
            for (int i = 0; i < block; i += 4)
                put_le(s, (uint64_t)((p[i] + 1) | (p[i + 1] + 1) << 2 | (p[i + 2] + 1) << 4 | (p[i + 3] + 1) << 6), 1);
        } else if (type == T_TQ2_0) {
            for (int i = 0; i < 64; i++, p += i == 32 ? 96 : 0)
                put_le(s, (uint64_t)((p[i] + 1) | (p[i + 32] + 1) << 2 | (p[i + 64] + 1) << 4 | (p[i + 96] + 1) << 6), 1);
            put_half(s, scale);
        } else if (type == T_TQ1_0) {
            (void)put_trits(s, put_trits(s, put_trits(s, p, 32, 5), 16, 5), 4, 4);
            put_half(s, scale);
        } else if (type == T_PTQ1_0) {
            (void)put_trits(s, put_trits(s, put_trits(s, p, 16, 5), 8, 5), 2, 4);
            put_half(s, scale);
        } else if (type == T_IQ2_BN) {
            for (int i = 0; i < 16; i++)
                put_le(s, (uint64_t)((p[i] + 1) | (p[i + 16] + 1) << 2 | (p[i + 32] + 1) << 4 | (p[i + 48] + 1) << 6), 1);
        } else {
            assert_int_equal(type, T_IQ1_BN);
            for (int i = 0; i < 64; i += 16)
                for (int k = 0; k < 3; k++)
                    put_le(s, trits(p + i + 5 * k, 1, 5, 1), 1);
            int8_t last[5] = { p[15], p[31], p[47], p[63], -1 };
            put_le(s, trits(last, 1, 5, 1), 1);
        }
    }
}

/* All of a tensor: I2_S takes no notice of rows, or four of them. */
static void pack_i2s(st_str *s, int layout, const int8_t *q, int64_t rows, int64_t cols, float scale)
{
    int64_t n = rows * cols, step = layout == 0 ? 32 : layout == 1 ? 16 : cols;
    for (int64_t b = 0; b < n; b += 4 * step)
        for (int64_t p = b; p < b + step; p++)
            put_le(s, (uint64_t)((q[p] + 1) << 6 | (q[p + step] + 1) << 4 | (q[p + 2 * step] + 1) << 2 | (q[p + 3 * step] + 1)), 1);
    put_float(s, scale);
    st_str_addn(s, "what nobody wrote, 28 bytes", 28);
}

/* ---------------------------------------------------------------- a file */

/* Row r of the file: of each head the halves lie interleaved. */
static int64_t source_row(const tensor *t, int64_t r)
{
    if (!t->heads)
        return r;
    int64_t size = t->rows / t->heads, in = r % size;
    return r - in + (in % 2 ? in / 2 + size / 2 : in / 2);
}

static void put_linear(gguf_maker *m, const tensor *t, int type, const change *c, int is_first)
{
    st_str s = { 0 };
    int8_t *q = malloc((size_t)(t->rows * t->cols));
    assert_non_null(q);
    for (int64_t r = 0; r < t->rows; r++)
        memcpy(q + r * t->cols, t->q + source_row(t, r) * t->cols, (size_t)t->cols);
    if (is_first && c->two_at)
        q[c->two_at] = 2;
    if (type == T_I2S)
        pack_i2s(&s, c->layout, q, t->rows, t->cols, c->ones ? 1 : t->scale);
    for (int64_t r = 0; r < t->rows && type != T_I2S; r++) {
        int64_t row = source_row(t, r);
        if (type != T_F32 && type != T_F16 && type != T_BF16 && type != T_Q8_0)
            pack_row(&s, type, t, c, q + r * t->cols, row);
        for (int64_t i = r * t->cols; i < (r + 1) * t->cols; i++) {
            float scale = c->ones ? 1 : scale_at(t, c, row, i % t->cols);
            if (type == T_F32)
                put_float(&s, (float)q[i] * scale);
            if (type == T_F16)
                put_half(&s, (float)q[i] * scale);
            if (type == T_BF16)
                put_le(&s, bits_of((float)q[i] * scale) >> 16, 2);
            if (type == T_Q8_0 && i % 32 == 0)
                put_half(&s, scale);
            if (type == T_Q8_0)
                put_le(&s, (uint8_t)q[i], 1);
        }
    }
    gguf_tensor(m, t->gguf, (uint32_t)type % 1000, 2, (const int64_t[]){ t->cols, t->rows }, s.text, s.len);
    st_str_free(&s);
    free(q);
    if (c->ones) {
        char name[64];
        (void)snprintf(name, sizeof name, "%.*s.scale", (int)strlen(t->gguf) - 7, t->gguf);
        gguf_tensor(m, name, T_F32, 1, (const int64_t[]){ 1 }, &t->scale, 4);
    }
}

static void put_plain(gguf_maker *m, const tensor *t, int type)
{
    st_str s = { 0 };
    int64_t n = t->rows * (t->cols ? t->cols : 1);
    for (int64_t i = 0; i < n; i++) {
        if (type == T_F32)
            put_float(&s, t->v[i]);
        if (type == T_F16)
            put_half(&s, t->v[i]);
        if (type == T_BF16)
            put_le(&s, bits_of(t->v[i]) >> 16, 2);
        if (type == T_Q8_0 && i % 32 == 0) /* values are whole multiples of 1 / 64 below 1 */
            put_half(&s, 1.0f / 64);
        if (type == T_Q8_0)
            put_le(&s, (uint8_t)(int8_t)(t->v[i] * 64), 1);
    }
    gguf_tensor(m, t->gguf, (uint32_t)type, t->cols ? 2 : 1, (const int64_t[]){ t->cols ? t->cols : t->rows, t->rows }, s.text, s.len);
    st_str_free(&s);
}

/* A number of the metadata, as it is or changed. */
static void put_key(gguf_maker *m, const world *w, const change *c, const char *suffix, uint32_t type, double value)
{
    char key[128];
    int how = 0;
    (void)snprintf(key, sizeof key, "%s%s%s", *suffix == '.' ? w->a->name : "", "", suffix);
    if (c->key && strcmp(c->key, suffix) == 0)
        how = c->how;
    if (how == MISSING)
        return;
    value = how == ZERO ? 0 : how == ONE_MORE ? value + 1 : how == ONE_LESS ? value - 1 : value;
    float f = how == MAXIMUM ? INFINITY : (float)value;
    uint32_t list[LAYERS] = { (uint32_t)(int64_t)value, (uint32_t)(int64_t)value };
    if (c->lists && strstr(suffix, "head_count"))
        kv_array(m, key, KV_U32, LAYERS, list, sizeof list);
    else if (type == KV_F32)
        kv(m, key, KV_F32, bits_of(f), 4);
    else
        kv(m, key, KV_U32, how == MAXIMUM ? UINT32_MAX : (uint32_t)(int64_t)value, 4);
}

static void put_tokenizer(gguf_maker *m, const world *w, const change *c)
{
    kv_tokenizer(m);
    put_key(m, w, c, "tokenizer.ggml.eos_token_id", KV_U32, 257);
    put_key(m, w, c, "tokenizer.ggml.bos_token_id", KV_U32, 256);
}

static void put_keys(gguf_maker *m, const world *w, int type, const change *c)
{
    const arch *a = w->a;
    kv_text(m, "general.architecture", a->name);
    kv_text(m, "general.name", c->name ? c->name : "a test");
    if (type == T_I2S)
        kv_u32(m, "general.file_type", 40);
    put_key(m, w, c, ".context_length", KV_U32, 64);
    put_key(m, w, c, ".embedding_length", KV_U32, D);
    put_key(m, w, c, ".block_count", KV_U32, LAYERS);
    put_key(m, w, c, ".feed_forward_length", KV_U32, FFN);
    put_key(m, w, c, ".attention.head_count", KV_U32, (double)a->heads);
    put_key(m, w, c, ".attention.head_count_kv", KV_U32, (double)a->kv);
    put_key(m, w, c, ".attention.layer_norm_rms_epsilon", KV_F32, a->eps);
    put_key(m, w, c, ".rope.freq_base", KV_F32, a->theta);
    put_key(m, w, c, ".rope.dimension_count", KV_U32, (double)a->hd);
    put_key(m, w, c, ".vocab_size", KV_U32, V);
    if (a->head_norm) {
        put_key(m, w, c, ".attention.key_length", KV_U32, (double)a->hd);
        put_key(m, w, c, ".attention.value_length", KV_U32, (double)a->hd);
    }
    if (a->gemma)
        put_key(m, w, c, ".attention.sliding_window", KV_U32, 4);
    /* Keys that most files do without: there where a test changes them. */
    static const struct { const char *key; uint32_t type; double value; } rare[] = {
        { ".rope.freq_base_swa", KV_F32, 10000 }, { ".attention.sliding_window_pattern", KV_U32, 6 }, { ".expert_count", KV_U32, 0 },
        { ".pooling_type", KV_U32, 0 }, { "general.quantization_version", KV_U32, 2 } };
    for (size_t i = 0; i < sizeof rare / sizeof *rare; i++)
        if (c->key && strcmp(c->key, rare[i].key) == 0)
            put_key(m, w, c, rare[i].key, rare[i].type, rare[i].value);
    if (c->text_key)
        kv_text(m, c->text_key, c->text);
    if (c->linear > 0) {
        char key[64];
        (void)snprintf(key, sizeof key, "%s.rope.scaling.type", a->name);
        kv_text(m, key, "linear");
        put_key(m, w, c, ".rope.scaling.factor", KV_F32, c->linear);
    }
    if (c->layers) {
        uint8_t near[LAYERS];
        for (int i = 0; i < LAYERS; i++)
            near[i] = c->layers[i] == 'w';
        kv_array(m, "gemma3.attention.sliding_window_pattern", KV_BOOL, LAYERS, near, sizeof near);
    }
    put_tokenizer(m, w, c);
}

/* Llama 3's scaling: factor 8, low 1, high 4, 8192 positions before. */
static void put_divisors(gguf_maker *m, const arch *a, int is_wrong)
{
    st_str s = { 0 };
    for (int64_t i = 0; i < a->hd / 2; i++) {
        double wave = 2 * 3.14159265358979323846 * pow(a->theta, 2.0 * (double)i / (double)a->hd);
        double smooth = (8192 / wave - 1) / 3;
        put_float(&s, is_wrong && i == 3 ? 1.001f : (float)(wave < 8192.0 / 4 ? 1 : wave > 8192 ? 8 : 1 / ((1 - smooth) / 8 + smooth)));
    }
    gguf_tensor(m, "rope_freqs.weight", T_F32, 1, (const int64_t[]){ a->hd / 2 }, s.text, s.len);
    st_str_free(&s);
}

/* type: of linear layers; of the embedding and the head: plain. */
static void put_tensors(gguf_maker *m, const world *w, int type, int plain, const change *c)
{
    for (int i = w->n - 1; i >= 0; i--) { /* no reader may rely on the order */
        const tensor *t = &w->t[i];
        if (c->drop && strcmp(c->drop, t->gguf) == 0)
            continue;
        if (t->kind == LINEAR)
            put_linear(m, t, type, c, strcmp(t->gguf, "blk.0.attn_q.weight") == 0);
        else
            put_plain(m, t, t->kind == MATRIX ? plain : T_F32);
    }
    tensor more = w->t[0];
    if (c->repeat) {
        (void)snprintf(more.gguf, sizeof more.gguf, "output.weight");
        put_plain(m, &more, plain);
    }
    if (c->llama3)
        put_divisors(m, w->a, c->llama3 == 2);
    if (c->add)
        gguf_tensor(m, c->add, T_F32, 1, (const int64_t[]){ 1 }, &more.scale, 4);
}

static char *finish_gguf(gguf_maker *m, const char *dir)
{
    st_str file = { 0 };
    gguf_bytes(m, &file);
    put_file(dir, "model.gguf", file.text, file.len);
    st_str_free(&file);
    return join(dir, "model.gguf");
}

static char *write_gguf(const world *w, const char *dir, int type, int plain, const change *c)
{
    gguf_maker m = { .alignment = 32 };
    put_keys(&m, w, type, c);
    put_tensors(&m, w, type, plain, c);
    return finish_gguf(&m, dir);
}

#endif
