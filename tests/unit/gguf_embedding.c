/* tests/unit/gguf_embedding.c -- BitNet's text embedding model, and a rotated Qwen3, as GGUF files.
 *
 * Each is written twice from the same numbers, as a Hugging Face directory (which embeddings.c compares with
 * a reference) and as a GGUF file, with names, packing and scales spelled out here; both must give the same
 * bits.  The float matrices of the embedding model are whole multiples of 1/64 in a number of weights that
 * is a power of two, so that their mean, which is the scale in the file, is exact in any order of addition. */
#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

#include "setun/setun.h"
#include "tests/unit/gguf_files.h"

#define V 1031 /* at least the tokenizer's 1024 */
#define D 128
#define FFN 256
#define HEADS 2
#define KV 1
#define HD 128
#define LAYERS 2
#define TOKENS 5
#define BLOCK 32

enum { MATRIX, LINEAR, NORM };

typedef struct tensor {
    char    gguf[64], hf[96];
    int     kind;
    int64_t rows, cols;
    float  *v;
} tensor;

typedef struct world {
    int      inner; /* norms inside linear layers, and linear layers as I2_S; else all is F32 and rotated */
    tensor   t[64];
    int      n;
    uint64_t seed;
} world;

/* How a file differs from the right one. */
typedef struct change {
    const char *drop;                /* a tensor */
    int         pooling;             /* 1 + the key's value; 0: there is none */
    int         no_rotation, grouped; /* grouped: 1 + gdn_v_grouped */
    const char *number, *text, *list; /* one more key each: a number, a text, a list of a number */
    const char *skip;                /* a key of prism.hadamard */
    int         sign;                /* the first one, if not 0 */
    const char *says;
} change;

/* ---------------------------------------------------------------- numbers */

static uint32_t bits_of(float f)
{
    uint32_t b;
    memcpy(&b, &f, 4);
    return b;
}

/* Of a number that binary16 has, 0 or above 2^-14. */
static uint32_t half_of(float f)
{
    uint32_t b = bits_of(f);
    return f == 0.0f ? 0 : (b >> 16 & 0x8000) | ((b >> 23 & 255) - 112) << 10 | (b >> 13 & 0x3ff);
}

static void add(world *w, int layer, const char *gguf, const char *hf, int kind, int64_t rows, int64_t cols)
{
    tensor *t = &w->t[w->n++];
    assert_true(w->n <= 64);
    if (layer < 0)
        (void)snprintf(t->gguf, sizeof t->gguf, "%s.weight", gguf);
    else
        (void)snprintf(t->gguf, sizeof t->gguf, "blk.%d.%s.weight", layer, gguf);
    if (layer < 0)
        (void)snprintf(t->hf, sizeof t->hf, "model.%s.weight", hf);
    else
        (void)snprintf(t->hf, sizeof t->hf, "model.layers.%d.%s.weight", layer, hf);
    t->kind = kind;
    t->rows = rows;
    t->cols = cols;
    int64_t n = rows * (cols ? cols : 1);
    t->v = calloc((size_t)n, sizeof *t->v);
    assert_non_null(t->v);
    for (int64_t i = 0; i < n; i++) {
        int k = (int)(next_random(&w->seed) >> 8) & 63, sign = next_random(&w->seed) & 1024 ? 1 : -1;
        /* Far from half of their mean, so that nobody can round them otherwise. */
        int big = 64 + k, small = k / 4;
        t->v[i] = kind == NORM ? 1 + (float)(sign * k) / 128 : (float)(sign * (next_random(&w->seed) % 3 ? big : small)) / 64;
    }
}

static void linear(world *w, int layer, const char *gguf, const char *hf, int64_t rows, int64_t cols)
{
    char inner_gguf[64], inner_hf[64];
    add(w, layer, gguf, hf, LINEAR, rows, cols);
    (void)snprintf(inner_gguf, sizeof inner_gguf, "%s_norm_in", gguf);
    (void)snprintf(inner_hf, sizeof inner_hf, "%s.norm", hf);
    if (w->inner)
        add(w, layer, inner_gguf, inner_hf, NORM, cols, 0);
}

static world *make_world(int inner)
{
    world *w = calloc(1, sizeof *w);
    assert_non_null(w);
    w->inner = inner;
    w->seed = 41;
    add(w, -1, "token_embd", "embed_tokens", MATRIX, V, D);
    add(w, -1, "output_norm", "norm", NORM, D, 0);
    for (int l = 0; l < LAYERS; l++) {
        add(w, l, "attn_norm", "input_layernorm", NORM, D, 0);
        add(w, l, "ffn_norm", "post_attention_layernorm", NORM, D, 0);
        linear(w, l, "attn_q", "self_attn.q_proj", HEADS * HD, D);
        linear(w, l, "attn_k", "self_attn.k_proj", KV * HD, D);
        linear(w, l, "attn_v", "self_attn.v_proj", KV * HD, D);
        linear(w, l, "attn_output", "self_attn.o_proj", D, HEADS * HD);
        add(w, l, "attn_q_norm", "self_attn.q_norm", NORM, HD, 0);
        add(w, l, "attn_k_norm", "self_attn.k_norm", NORM, HD, 0);
        linear(w, l, "ffn_gate", "mlp.gate_proj", FFN, D);
        linear(w, l, "ffn_up", "mlp.up_proj", FFN, D);
        linear(w, l, "ffn_down", "mlp.down_proj", D, FFN);
    }
    return w;
}

static void drop_world(world *w)
{
    for (int i = 0; i < w->n; i++)
        free(w->t[i].v);
    free(w);
}

static int sign_of(int64_t width, int64_t i) { return (i * 7 + width / 128) % 5 < 2 ? -1 : 1; }

/* ---------------------------------------------------------------- a directory */

static const int64_t widths[2] = { D, FFN };

static void write_rotation(st_str *c, const world *w)
{
    st_str_addf(c, ",\"prism\":{\"hadamard\":{\"version\":1,\"transform\":\"normalized-sylvester-walsh-hadamard\",\"axis\":"
                "\"input-last-dimension\",\"block_size\":%d,\"sign_mode\":\"explicit\",\"sign_widths\":[%d,%d],\"sign_values\":[", BLOCK, D, FFN);
    for (int k = 0; k < 2; k++)
        for (int64_t i = 0; i < widths[k]; i++)
            st_str_addf(c, "%s%d", k + i ? "," : "", sign_of(widths[k], i));
    st_str_addf(c, "],\"inverse_weight_names\":[\"token_embd.weight\"],\"weight_names\":[\"token_embd.weight\"");
    for (int i = 1; i < w->n; i++)
        if (w->t[i].kind == LINEAR)
            st_str_addf(c, ",\"%s\"", w->t[i].gguf);
    st_str_addf(c, "]}}");
}

static void write_dir(const world *w, const char *dir)
{
    maker out = { { 0 }, { 0 } };
    st_str c = { 0 };
    char shape[64], *text;
    int64_t n;
    for (int i = 0; i < w->n; i++) {
        const tensor *t = &w->t[i];
        (void)snprintf(shape, sizeof shape, t->cols ? "[%d,%d]" : "[%d]", (int)t->rows, (int)t->cols);
        make_tensor(&out, t->hf, "F32", shape, t->v, (size_t)(t->rows * (t->cols ? t->cols : 1)) * 4);
    }
    make_file(&out, dir, "model.safetensors");
    st_str_addf(&c, "{\"architectures\":[\"Qwen3ForCausalLM\"],\"hidden_act\":\"silu\",\"hidden_size\":%d,\"intermediate_size\":%d,"
                "\"num_hidden_layers\":%d,\"num_attention_heads\":%d,\"num_key_value_heads\":%d,\"head_dim\":%d,\"rms_norm_eps\":1e-6,"
                "\"rope_theta\":1e6,\"vocab_size\":%d,\"max_position_embeddings\":64,\"tie_word_embeddings\":true",
                D, FFN, LAYERS, HEADS, KV, HD, V);
    if (!w->inner)
        write_rotation(&c, w);
    st_str_addf(&c, "}");
    put_text(dir, "config.json", c.text);
    st_str_free(&c);
    assert_int_equal(st_file_read(SETUN_SOURCE_DIR "/tests/models/shakespeare/tokenizer.json", 1 << 20, &text, &n, NULL), SETUN_OK);
    put_file(dir, "tokenizer.json", text, (size_t)n);
    free(text);
}

/* ---------------------------------------------------------------- a file */

/* 256 bytes, each as the character that stands for it. */
static void put_tokenizer(gguf_maker *m)
{
    st_str tokens = { 0 }, types = { 0 };
    uint32_t next = 256;
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t ch = (i > 32 && i < 127) || (i > 160 && i != 173) ? i : next++;
        uint8_t text[2] = { (uint8_t)(ch < 128 ? ch : 0xc0 | ch >> 6), (uint8_t)(0x80 | (ch & 63)) };
        put_le(&tokens, ch < 128 ? 1 : 2, 8);
        st_str_addn(&tokens, text, ch < 128 ? 1 : 2);
        put_le(&types, 1, 4);
    }
    kv_text(m, "tokenizer.ggml.model", "gpt2");
    kv_text(m, "tokenizer.ggml.pre", "qwen2");
    kv_array(m, "tokenizer.ggml.tokens", KV_STRING, 256, tokens.text, tokens.len);
    kv_array(m, "tokenizer.ggml.token_type", KV_I32, 256, types.text, types.len);
    kv_array(m, "tokenizer.ggml.merges", KV_STRING, 0, "", 0);
    st_str_free(&tokens);
    st_str_free(&types);
}

static int is_skipped(const change *c, const char *key) { return c->skip && strcmp(c->skip, key) == 0; }

static void put_rotation(gguf_maker *m, const world *w, const change *c)
{
    st_str widths_of = { 0 }, signs = { 0 }, names = { 0 }, inverse = { 0 };
    uint64_t n = 0;
    for (int k = 0; k < 2; k++) {
        put_le(&widths_of, (uint64_t)widths[k], 8);
        for (int64_t i = 0; i < widths[k]; i++)
            put_le(&signs, (uint64_t)(k + i == 0 && c->sign ? c->sign : sign_of(widths[k], i)), 1);
    }
    for (int i = 0; i < w->n; i++)
        if (w->t[i].kind != NORM) {
            put_le(&names, strlen(w->t[i].gguf), 8);
            st_str_add(&names, w->t[i].gguf);
            n++;
        }
    put_le(&inverse, 17, 8);
    st_str_add(&inverse, "token_embd.weight");
    if (!is_skipped(c, "version"))
        kv(m, "prism.hadamard.version", KV_I64, 1, 8);
    kv_text(m, "prism.hadamard.transform", "normalized-sylvester-walsh-hadamard");
    kv_text(m, "prism.hadamard.axis", "input-last-dimension");
    kv_text(m, "prism.hadamard.sign_mode", "explicit");
    kv_u32(m, "prism.hadamard.block_size", BLOCK);
    if (!is_skipped(c, "sign_widths"))
        kv_array(m, "prism.hadamard.sign_widths", KV_I64, 2, widths_of.text, widths_of.len);
    kv_array(m, "prism.hadamard.sign_values", KV_I8, D + FFN, signs.text, signs.len);
    if (!is_skipped(c, "weight_names"))
        kv_array(m, "prism.hadamard.weight_names", KV_STRING, n, names.text, names.len);
    kv_array(m, "prism.hadamard.inverse_weight_names", KV_STRING, 1, inverse.text, inverse.len);
    if (c->grouped)
        kv(m, "prism.hadamard.gdn_v_grouped", KV_BOOL, (uint64_t)(c->grouped - 1), 1);
    st_str_free(&widths_of);
    st_str_free(&signs);
    st_str_free(&names);
    st_str_free(&inverse);
}

static void put_keys(gguf_maker *m, const world *w, const change *c)
{
    const int32_t one = 1;
    kv_text(m, "general.architecture", "qwen3");
    kv_text(m, "general.name", "bitnet-embeddings");
    if (w->inner)
        kv_u32(m, "general.file_type", 40);
    kv_u32(m, "qwen3.block_count", LAYERS);
    kv_u32(m, "qwen3.context_length", 64);
    kv_u32(m, "qwen3.embedding_length", D);
    kv_u32(m, "qwen3.feed_forward_length", FFN);
    kv_u32(m, "qwen3.attention.head_count", HEADS);
    kv_u32(m, "qwen3.attention.head_count_kv", KV);
    kv_u32(m, "qwen3.vocab_size", V);
    kv_u32(m, "qwen3.rope.dimension_count", HD);
    kv_u32(m, "qwen3.attention.key_length", HD);
    kv_u32(m, "qwen3.attention.value_length", HD);
    kv(m, "qwen3.rope.freq_base", KV_F32, bits_of(1e6f), 4);
    kv(m, "qwen3.attention.layer_norm_rms_epsilon", KV_F32, bits_of(1e-6f), 4);
    if (c->pooling)
        kv_u32(m, "qwen3.pooling_type", (uint32_t)(c->pooling - 1));
    if (!w->inner && !c->no_rotation)
        put_rotation(m, w, c);
    if (c->number)
        kv_u32(m, c->number, 1);
    if (c->text)
        kv_text(m, c->text, "1");
    if (c->list)
        kv_array(m, c->list, KV_I32, 1, &one, 4);
    put_tokenizer(m);
}

/* The mean of the absolute values is the scale; 128 weights lie in 32 bytes, 32 apart in one byte. */
static void pack_i2s(st_str *s, const tensor *t)
{
    int64_t n = t->rows * t->cols;
    double sum = 0;
    uint8_t byte;
    for (int64_t i = 0; i < n; i++)
        sum += fabs((double)t->v[i]);
    for (int64_t b = 0; b < n; b += 128)
        for (int64_t p = b; p < b + 32; p++) {
            byte = 0;
            for (int64_t i = p; i < p + 128; i += 32) {
                double q = (double)t->v[i] / (sum / (double)n);
                byte = (uint8_t)(byte << 2 | (q > 0.5 ? 2 : q < -0.5 ? 0 : 1));
            }
            st_str_addn(s, &byte, 1);
        }
    put_le(s, bits_of((float)(sum / (double)n)), 4);
    for (int i = 0; i < 28; i++)
        put_le(s, 0, 1);
}

static char *write_gguf(const world *w, const char *dir, const change *c)
{
    gguf_maker m = { .alignment = 32 };
    st_str file = { 0 };
    put_keys(&m, w, c);
    for (int i = 0; i < w->n; i++) {
        const tensor *t = &w->t[i];
        const int64_t dim[2] = { t->cols ? t->cols : t->rows, t->rows };
        st_str s = { 0 };
        int packed = w->inner && t->kind == LINEAR;
        if (c->drop && strcmp(c->drop, t->gguf) == 0)
            continue;
        if (packed)
            pack_i2s(&s, t);
        for (int64_t k = 0; k < t->rows * (t->cols ? t->cols : 1) && !packed; k++)
            put_le(&s, w->inner ? half_of(t->v[k]) : bits_of(t->v[k]), w->inner ? 2 : 4);
        gguf_tensor(&m, t->gguf, packed ? 36 : w->inner ? 1 : 0, t->cols ? 2 : 1, dim, s.text, s.len);
        st_str_free(&s);
    }
    gguf_bytes(&m, &file);
    put_file(dir, "model.gguf", file.text, file.len);
    st_str_free(&file);
    return join(dir, "model.gguf");
}

/* ---------------------------------------------------------------- running */

static const int32_t fed[TOKENS] = { 3, 1030, 77, 255, 112 };

static setun_status load(setun_model **m, const char *path, int inner, setun_error *err)
{
    setun_options o;
    setun_options_init(&o);
    o.kv = "f32";
    o.n_threads = 1;
    o.backend = "reference"; /* compiling takes time, and gives the same bits */
    o.interpret = 1;
    o.full_head = 1;
    o.n_outputs = TOKENS;
    o.i2s_layout = inner && strstr(path, ".gguf") ? "x86" : NULL;
    return setun_model_load(m, path, &o, err);
}

/* The vector as the model says it (pool 0), or as asked; its way of pooling is *said. */
static void embed(const char *path, int pool, float *out, int32_t *said)
{
    setun_error err = { 0 };
    setun_model *m = NULL;
    setun_session *s = NULL;
    setun_embedding e;
    const int32_t *text = fed;
    const int64_t n = TOKENS;
    setun_embedding_init(&e);
    e.pool = pool;
    if (load(&m, path, 1, &err) != SETUN_OK || setun_session_new(&s, m, &err) != SETUN_OK ||
        setun_session_embed(s, &text, &n, 1, &e, out, &err) != SETUN_OK)
        fail_msg("%s: %s", path, err.text);
    *said = setun_model_pooling(m);
    assert_int_equal(setun_model_n_embedding(m), D);
    setun_session_free(s);
    setun_model_free(m);
}

static void test_embedding(void **state)
{
    /* Values of the key, and what they mean; without the key the model's script says last. */
    static const int32_t kinds[][2] = { { 0, SETUN_POOL_LAST }, { 1, SETUN_POOL_LAST }, { 2, SETUN_POOL_MEAN },
                                        { 3, SETUN_POOL_CLS }, { 4, SETUN_POOL_LAST } };
    world *w = make_world(1);
    char *dir = temp_dir();
    float want[D], got[D], by_kind[4][D];
    int32_t said;
    (void)state;
    write_dir(w, dir);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        change c = { .pooling = kinds[i][0] };
        char *path = write_gguf(w, dir, &c);
        embed(dir, kinds[i][1], want, &said);
        embed(path, 0, got, &said);
        assert_int_equal(said, kinds[i][1]);
        assert_memory_equal(got, want, sizeof got);
        memcpy(by_kind[said], got, sizeof got);
        free(path);
    }
    double length = 0;
    for (int i = 0; i < D; i++)
        length += (double)want[i] * (double)want[i];
    assert_true(fabs(length - 1) < 1e-5);
    assert_memory_not_equal(by_kind[SETUN_POOL_MEAN], by_kind[SETUN_POOL_LAST], sizeof want);
    assert_memory_not_equal(by_kind[SETUN_POOL_CLS], by_kind[SETUN_POOL_LAST], sizeof want);
    drop_dir(dir);
    drop_world(w);
}

static void logits_of(const char *path, float *out)
{
    setun_error err = { 0 };
    setun_model *m = NULL;
    setun_session *s = NULL;
    const float *got;
    if (load(&m, path, 0, &err) != SETUN_OK || setun_session_new(&s, m, &err) != SETUN_OK ||
        setun_session_feed(s, fed, TOKENS, SETUN_LOGITS_ALL, &got, &err) != SETUN_OK)
        fail_msg("%s: %s", path, err.text);
    memcpy(out, got, sizeof *out * TOKENS * V);
    setun_session_free(s);
    setun_model_free(m);
}

static void test_rotation(void **state)
{
    static const change same[] = { { .drop = NULL }, { .grouped = 1 } }, without = { .no_rotation = 1 };
    static float want[TOKENS * V], got[TOKENS * V];
    world *w = make_world(0);
    char *dir = temp_dir(), *path;
    (void)state;
    write_dir(w, dir);
    logits_of(dir, want);
    for (size_t i = 0; i < 2; i++) {
        path = write_gguf(w, dir, &same[i]);
        logits_of(path, got);
        assert_memory_equal(got, want, sizeof got);
        free(path);
    }
    path = write_gguf(w, dir, &without);
    logits_of(path, got);
    assert_memory_not_equal(got, want, sizeof got);
    free(path);
    drop_dir(dir);
    drop_world(w);
}

static void says(const setun_error *err, const char *what)
{
    if (!strstr(err->text, what))
        fail_msg("says: %s\n  should say: %s", err->text, what);
}

static void refuse(int inner, const change *list, size_t n)
{
    world *w = make_world(inner);
    char *dir = temp_dir();
    for (size_t i = 0; i < n; i++) {
        setun_error err = { 0 };
        setun_model *m = NULL;
        char *path = write_gguf(w, dir, &list[i]);
        if (load(&m, path, inner, &err) == SETUN_OK)
            fail_msg("loads, but should say: %s", list[i].says);
        says(&err, list[i].says);
        free(path);
    }
    drop_dir(dir);
    drop_world(w);
}

static void test_refusals(void **state)
{
    static const change inner[] = {
        { .drop = "blk.1.ffn_down_norm_in.weight", .says = "model.gguf: tensor blk.1.ffn_down_norm_in.weight is missing" },
        { .drop = "blk.0.attn_q_norm_in.weight", .says = "model.gguf: tensor blk.0.attn_q_norm_in.weight is missing" },
        { .pooling = 5, .says = "model.gguf: key qwen3.pooling_type is not known to Setun; 0 (none), 1 (mean), 2 (cls) and 3 (last)" },
        { .text = "qwen3.pooling_type", .says = "key qwen3.pooling_type is not known to Setun; 0" },
        { .number = "prism.hadamard.version", .says = "prism.hadamard." },
    };
    static const change rotated[] = {
        { .pooling = 4, .no_rotation = 1, .says = "model.gguf: key qwen3.pooling_type is 3: embeddings are wanted" },
        { .number = "prism.hadamard.twist", .says = "model.gguf: the key prism.hadamard.twist is not known to Setun for the architecture qwen3" },
        { .no_rotation = 1, .text = "prism.hadamard.version", .says = "model.gguf: key prism.hadamard.version is not made of whole numbers" },
        { .no_rotation = 1, .number = "prism.hadamard.axis", .says = "key prism.hadamard.axis is not made of texts" },
        { .no_rotation = 1, .list = "prism.hadamard.block_size", .says = "key prism.hadamard.block_size is not one of the whole numbers" },
        { .no_rotation = 1, .number = "prism.hadamard.weight_names", .says = "key prism.hadamard.weight_names is not a list of texts" },
        { .no_rotation = 1, .list = "prism.hadamard.weight_names", .says = "key prism.hadamard.weight_names is not made of texts" },
        { .no_rotation = 1, .number = "prism.hadamard.version", .says = "prism.hadamard.transform" },
        { .skip = "version", .says = "prism.hadamard.version" },
        { .skip = "sign_widths", .says = "sign_widths and sign_values are missing" },
        { .skip = "weight_names", .no_rotation = 0, .sign = 3, .says = "sign_values.1 is 3, not 1 or -1" },
        { .grouped = 2, .says = "prism.hadamard.gdn_v_grouped is 1, but this script computes only 0" },
    };
    (void)state;
    refuse(1, inner, sizeof inner / sizeof *inner);
    refuse(0, rotated, sizeof rotated / sizeof *rotated);
}

static int ignore(void *user, const char *text, size_t n)
{
    (void)user;
    (void)text;
    (void)n;
    return 0;
}

static setun_status convert(const char *in, const char *out, const char *to, const char *ternary, setun_error *err)
{
    const char *layout = strstr(in, "inner.gguf") ? "x86" : NULL;
    const setun_convert_options o = { .size = sizeof o, .in = in, .out = out, .to = to, .ternary = ternary, .i2s_layout = layout };
    return setun_convert(&o, ignore, NULL, err);
}

static int keep(void *user, const char *text, size_t n)
{
    st_str_addn(user, text, n);
    return 0;
}

/* What both make of some tokens is compared, too: vectors, or logits. */
static void compare(const char *a, const char *b, int want, const char *said)
{
    const int32_t tokens[] = { 3, 77, 112 };
    setun_options run;
    setun_error err = { 0 };
    st_str text = { 0 };
    int32_t differs = -1;
    setun_options_init(&run);
    run.n_threads = 1;
    run.interpret = 1;
    const setun_diff_options o = { .size = sizeof o, .a = a, .b = b, .tokens = tokens, .n_tokens = 3, .run = &run };
    if (setun_diff(&o, &differs, keep, &text, &err) != SETUN_OK)
        fail_msg("%s", err.text);
    if (differs != want || !strstr(text.text, said))
        fail_msg("%s and %s: %s", a, b, text.text);
    st_str_free(&text);
}

/* Both from a directory and from a file nothing is lost on the way to GGUF; to a directory is refused. */
static void test_convert(void **state)
{
    (void)state;
    for (int inner = 0; inner < 2; inner++) {
        const char *ternary = inner ? NULL : "absmean";
        world *w = make_world(inner);
        char *dir = temp_dir(), *path = write_gguf(w, dir, &(change){ .pooling = inner ? 2 : 0 });
        char *in = join(dir, inner ? "inner.gguf" : "rotated.gguf"), *out = join(dir, "out"), *file = join(dir, "out.gguf");
        char *from_dir = join(dir, "from_dir.gguf");
        setun_error err = { 0 };
        write_dir(w, dir);
        assert_int_equal(rename(path, in), 0);
        assert_true(convert(in, out, "hf", ternary, &err) < 0);
        says(&err, inner ? "text embedding models are not written to a directory" : "folded with a rotation (prism.hadamard.");
        if (convert(in, file, inner ? "i2_s" : "q2_0", ternary, &err) != SETUN_OK)
            fail_msg("%s", err.text);
        if (convert(dir, from_dir, inner ? "i2_s" : "q2_0", ternary, &err) != SETUN_OK)
            fail_msg("%s", err.text);
        if (inner) {
            float want[D], got[D];
            int32_t said;
            embed(in, 0, want, &said);
            embed(file, 0, got, &said);
            assert_int_equal(said, SETUN_POOL_MEAN);
            assert_memory_equal(got, want, sizeof got);
            embed(dir, 0, want, &said);
            embed(from_dir, 0, got, &said);
            assert_int_equal(said, SETUN_POOL_LAST); /* the script's word: neither directory nor file says */
            assert_memory_equal(got, want, sizeof got);
            compare(dir, from_dir, 0, "embedding: all 128 equal, bit for bit");
            assert_true(convert(dir, out, "hf-float", NULL, &err) < 0); /* readers would take the mean once more */
            says(&err, "hf-float is no form of this model: readers that find model.layers.0.self_attn.q_proj.norm.weight");
        } else { /* what the file written by hand says, the one made of the directory says, too */
            static float want[TOKENS * V], got[TOKENS * V];
            logits_of(file, want);
            logits_of(from_dir, got);
            assert_memory_equal(got, want, sizeof got);
            compare(file, from_dir, 1, "logits: all 1031 equal, bit for bit"); /* their tokenizers differ */
        }
        free(path);
        free(in);
        free(out);
        free(file);
        free(from_dir);
        drop_dir(dir);
        drop_world(w);
    }
}

/* modules.json of sentence-transformers, and what becomes of it. */
static void test_pooling(void **state)
{
    static const struct { const char *flag; int32_t pool; int normalize; } cases[] = {
        { "pooling_mode_lasttoken", SETUN_POOL_LAST, 1 }, { "pooling_mode_mean_tokens", SETUN_POOL_MEAN, 1 },
        { "pooling_mode_cls_token", SETUN_POOL_CLS, 1 }, { "pooling_mode_lasttoken", SETUN_POOL_LAST, 0 },
    };
    (void)state;
    world *w = make_world(1);
    char *dir = temp_dir(), *sub = join(dir, "1_Pooling"), *file = join(dir, "out.gguf");
    write_dir(w, dir);
    assert_int_equal(mkdir(sub, 0700), 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        st_str modules = { 0 }, pooling = { 0 };
        setun_error err = { 0 };
        float want[D], got[D];
        int32_t said;
        st_str_addf(&modules, "[{\"type\":\"a.Transformer\",\"path\":\"\"},{\"type\":\"a.Pooling\",\"path\":\"1_Pooling\"}%s]",
                    cases[i].normalize ? ",{\"type\":\"a.Normalize\",\"path\":\"2\"}" : "");
        st_str_addf(&pooling, "{\"%s\":true}", cases[i].flag);
        put_text(dir, "modules.json", modules.text);
        put_text(sub, "config.json", pooling.text);
        setun_status st = convert(dir, file, "i2_s", NULL, &err);
        if ((st == SETUN_OK) != cases[i].normalize)
            fail_msg("%s: %s", cases[i].flag, st == SETUN_OK ? "converted" : err.text);
        if (st == SETUN_OK) {
            embed(dir, 0, want, &said);
            assert_int_equal(said, cases[i].pool);
            embed(file, 0, got, &said);
            assert_int_equal(said, cases[i].pool);
            assert_memory_equal(got, want, sizeof got);
            assert_int_equal(unlink(file), 0);
        } else {
            says(&err, "modules.json does not divide vectors by their length");
        }
        st_str_free(&modules);
        st_str_free(&pooling);
    }
    free(sub);
    free(file);
    drop_dir(dir);
    drop_world(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_embedding),
        cmocka_unit_test(test_rotation),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_convert),
        cmocka_unit_test(test_pooling),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
