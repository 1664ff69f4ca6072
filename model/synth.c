/* model/synth.c -- write a model of a given shape with random weights.
 *
 * Not a useful model: it has the cost of a real one, byte for byte, and none of its sense.  Every
 * number comes from a hash of (seed, tensor, position), so files are the same on every machine,
 * whatever the order of writing, and a packed file and its float master have the same ternary
 * codes.
 *
 * Gains are chosen so that activations stay near 1: a ternary linear of K columns with a share z of
 * zeros multiplies the size of its input by sqrt(K (1 - z)) * scale.  As in 2B4T, the norm in front
 * makes up for it and scales are near 1; where no norm is in front, the scale does. */
#include "model/synth.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/error.h"
#include "base/file.h"
#include "base/str.h"
#include "model/newdir.h"
#include "model/synth_tok.h"
#include "model/tokenizer.h"
#include "model/weights.h"
#include "model/write_safetensors.h"

#define CHUNK (1 << 20)
#define CONFIG_LIMIT (1 << 20)
#define MAX_SHARDS 1000

#define QUANT(linear, mode)                                                                        \
    "\"quantization_config\": {\"quant_method\": \"bitnet\", " linear                              \
    "\"quantization_mode\": \"" mode "\"}"
#define AUTO "\"linear_class\": \"autobitlinear\", "
#define TINY                                                                                                        \
    "\"hidden_size\": 256, \"intermediate_size\": 768, \"num_hidden_layers\": 2, \"num_attention_heads\": 4, "      \
    "\"num_key_value_heads\": 2, \"vocab_size\": 1024, \"max_position_embeddings\": 512, \"rms_norm_eps\": 1e-05, " \
    "\"rope_theta\": 10000.0, \"bos_token_id\": 1021, \"eos_token_id\": 1022, \"torch_dtype\": \"bfloat16\""
#define BITNET                                                                                             \
    "{\"architectures\": [\"BitNetForCausalLM\"], \"model_type\": \"bitnet\", \"hidden_act\": \"relu2\", " \
    "\"tie_word_embeddings\": true, "
#define LLAMA                                                                                           \
    "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", \"hidden_act\": \"silu\", " \
    "\"tie_word_embeddings\": false, "

static const struct {
    const char *name, *config;
} known[] = {
    { "2b4t", BITNET
      "\"hidden_size\": 2560, \"intermediate_size\": 6912, \"num_hidden_layers\": 30, "
      "\"num_attention_heads\": 20, \"num_key_value_heads\": 5, \"vocab_size\": 128256, "
      "\"max_position_embeddings\": 4096, \"rms_norm_eps\": 1e-05, \"rope_theta\": 500000.0, "
      "\"bos_token_id\": 128000, \"eos_token_id\": 128001, \"torch_dtype\": \"bfloat16\", " QUANT(
          AUTO, "offline") "}" },
    { "tiny", BITNET TINY ", " QUANT(AUTO, "offline") "}" },
    { "llama-tiny", LLAMA TINY "}" },
    { "llama-tiny-158", LLAMA TINY ", " QUANT("", "offline") "}" },
};

const char *st_synth_names(void)
{
    return "2b4t, tiny, llama-tiny, llama-tiny-158";
}

/* ---------------------------------------------------------------- numbers */

enum { NORMAL, NEAR, PACKED, MASTER };

typedef struct tensor {
    const char *name;
    int         kind;
    int64_t     rows, cols; /* as stored; a vector has rows 1 */
    int         rank;
    int64_t     bytes;
    double      size;       /* standard deviation of NORMAL, middle of NEAR */
    uint64_t    key;
    int64_t     shard, offset;
    int         part; /* in closing gates, see below */
} tensor;

enum { NO_PART, EMBEDDING, GATE, RESIDUAL, QUIET };

/* Counter-based: the word at a position needs no other word (the finaliser of splitmix64). */
static uint64_t word_at(uint64_t key, uint64_t i)
{
    uint64_t z = key + (i + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static uint16_t to_bf16(float f)
{
    uint32_t u;
    memcpy(&u, &f, 4);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >>
                      16); /* to nearest, ties to even; f is finite */
}

static void put_bf16(uint8_t *p, float f)
{
    uint16_t h = to_bf16(f);
    p[0] = (uint8_t)h;
    p[1] = (uint8_t)(h >> 8);
}

/* Four codes of a word, one for each 16 bits: 1 (weight 0) when the low 15 bits are below zero, else
 * 0 or 2 by the top bit.  All lanes at once: (r | 0x8000) - zero keeps its top bit iff r >= zero.
 */
static inline uint32_t codes_of(uint64_t word, uint32_t zero)
{
    const uint64_t top = 0x8000800080008000u, ones = 0x0001000100010001u;
    uint64_t at_least = ((word & ~top) | top) - zero * ones;
    uint64_t code = (~at_least & top) >> 15 | (word & at_least & top) >> 14;
    return (uint32_t)(code | code >> 14 | code >> 28 | code >> 42) &
           255; /* lanes together, two bits each */
}

static float unit_of(uint64_t word) /* from -1 up to 1 */
{
    return (float)(word >> 40) * 0x1p-23f - 1.0f;
}

static void fill_packed(const tensor *t, uint32_t zero, int64_t first, int64_t n, uint8_t *out)
{
    for (int64_t k = 0; k < n; k++)
        out[k] = (uint8_t)codes_of(word_at(t->key, (uint64_t)(first + k)), zero);
}

/* The sum of four bytes is nearly normal: mean 510, standard deviation 147.80.  Two to a word;
 * first is even. */
static void fill_normal(const tensor *t, int64_t first, int64_t n, uint8_t *out)
{
    float unit = (float)t->size * (1.0f / 147.8f);
    for (int64_t k = 0; k < n; k += 2) {
        uint64_t w = word_at(t->key, (uint64_t)(first + k) / 2);
        /* Pairs of bytes, then pairs of pairs, both halves at once; the largest sum is 1020. */
        w = (w & 0x00ff00ff00ff00ffu) + (w >> 8 & 0x00ff00ff00ff00ffu);
        w = (w & 0x0000ffff0000ffffu) + (w >> 16 & 0x0000ffff0000ffffu);
        put_bf16(out + 2 * k, (float)((int32_t)(w & 0xffff) - 510) * unit);
        if (k + 1 < n)
            put_bf16(out + 2 * k + 2, (float)((int32_t)(w >> 32) - 510) * unit);
    }
}

/* The codes of the packed form, spread so that absmean finds them again: zeros stay far below half
 * the mean, the others far above. */
static void fill_master(const tensor *t, uint32_t zero, int64_t first, int64_t n, uint8_t *out)
{
    int64_t quarter = t->rows / 4, row = first / t->cols, col = first % t->cols,
            base = row % quarter * t->cols;
    int field = (int)(row / quarter);
    for (int64_t k = 0; k < n; k++) {
        uint32_t code = codes_of(word_at(t->key, (uint64_t)(base + col)), zero) >> 2 * field & 3;
        float u = unit_of(word_at(~t->key, (uint64_t)(first + k)));
        put_bf16(out + 2 * k, code == 1 ? 0.1f * u : ((float)code - 1.0f) * (1.25f + 0.25f * u));
        if (++col == t->cols) {
            col = 0;
            row++;
            base = row % quarter * t->cols;
            field = (int)(row / quarter);
        }
    }
}

/* Elements [first, first + n) of a tensor; first is a multiple of the chunk. */
static void fill(const tensor *t, uint32_t zero, int64_t first, int64_t n, uint8_t *out)
{
    if (t->kind == PACKED)
        fill_packed(t, zero, first, n, out);
    else if (t->kind == NORMAL)
        fill_normal(t, first, n, out);
    else if (t->kind == MASTER)
        fill_master(t, zero, first, n, out);
    else
        for (int64_t k = 0; k < n; k++)
            put_bf16(out + 2 * k,
                     (float)t->size *
                         (1.0f + 0.1f * unit_of(word_at(t->key, (uint64_t)(first + k)))));
}

/* ---------------------------------------------------------------- closed gates
 *
 * A random gate is open for half of the tokens.  For a smaller share D, all but 2 D of the rows of every
 * gate matrix are closed for all tokens: their one weight is a -1 in column 0, and channel 0 of the
 * stream is positive always, because every token's embedding has CHANNEL there and the matrices that
 * add to the stream have no weights in row 0.  The other rows stay random.  Which rows are closed is
 * random too. */

#define CHANNEL 2.0f /* four times the size of the other channels */

static int is_closed(const tensor *t, uint32_t closed, int64_t row)
{
    return (word_at(t->key ^ 0x6a7e, (uint64_t)row) >> 32 & 0xffff) < closed;
}

static void close_packed(const tensor *t, uint32_t closed, int64_t row, int64_t col, uint8_t *byte)
{
    for (int f = 0; f < 4; f++) {
        int64_t r = row + f * t->rows;
        uint32_t code = t->part == GATE && col == 0 ? 0 : 1;
        if (t->part == GATE ? is_closed(t, closed, r) : r == 0)
            *byte = (uint8_t)((*byte & ~(3u << 2 * f)) | code << 2 * f);
    }
}

/* A master's zeros must stay below half the mean magnitude, which closed rows make smaller. */
static void close_master(const tensor *t, uint32_t closed, int64_t row, int64_t col, uint8_t *p)
{
    uint32_t bits = (uint32_t)p[0] << 16 | (uint32_t)p[1] << 24;
    float v;
    memcpy(&v, &bits, 4);
    if (t->part == GATE && is_closed(t, closed, row))
        put_bf16(p, col == 0 ? -1.25f : 0.0f);
    else if (t->part == GATE && v < 0.5f && v > -0.5f)
        put_bf16(p, v * (1.0f - (float)closed * 0x1p-16f));
    else if (t->part == RESIDUAL && row == 0)
        put_bf16(p, 0.0f);
}

/* Of the inputs of a down matrix, relu2(gate) * up of random rows, about 0.68 of those with an open gate do not
 * round to 0 (a simulation of gaussian gates and ups; 0.66 to 0.70 whatever the share of open gates).  A lower
 * share comes from channels whose gain in the norm before is so small that they are 0 always. */
#define DOWN_AS_IT_COMES 0.68
#define QUIET_GAIN 0x1p-10f /* 127 / 1024 rounds to 0 */

/* After fill(), the same elements.  closed: the share of closed rows in 1 / 65536. */
static void close_gates(const tensor *t, uint32_t closed, int64_t first, int64_t n, uint8_t *out)
{
    int64_t row = first / t->cols, col = first % t->cols;
    for (int64_t k = 0; k < n; k++) {
        if (t->part == QUIET && is_closed(t, closed, col))
            put_bf16(out + 2 * k, (float)t->size * QUIET_GAIN);
        else if (t->part == EMBEDDING && col == 0)
            put_bf16(out + 2 * k, CHANNEL);
        else if (t->part == EMBEDDING || t->part == QUIET)
            ;
        else if (t->kind == PACKED)
            close_packed(t, closed, row, col, out + k);
        else
            close_master(t, closed, row, col, out + 2 * k);
        if (++col == t->cols) {
            col = 0;
            row++;
        }
    }
}

/* ---------------------------------------------------------------- shape */

typedef struct shape {
    const st_synth *s;
    st_arena       *arena;
    json_t         *config;
    st_synth_ids    ids;
    int64_t         hidden, ffn, layers, heads, kv_heads, head_dim, context;
    int sub_norms, tied, form, divide; /* form: PACKED, MASTER, or NORMAL for a float model */
    uint32_t        zero;        /* share of zeros in 1 / 32768 */
    uint32_t        closed;      /* share of closed gates in 1 / 65536 */
    uint32_t        quiet;       /* share of quiet channels before down, likewise */
    double          gain_share; /* 1 - share of zeros, or 1 for float */
    tensor         *t;
    int64_t         n, cap, total, n_shards;
    st_newdir       dir; /* being built */
} shape;

static setun_status whole(const shape *p, const char *key, int64_t max, int64_t fallback,
                          int64_t *v, setun_error *err)
{
    json_t *j = json_object_get(p->config, key);
    *v = fallback;
    if ((!j || json_is_null(j)) && fallback > 0)
        return SETUN_OK;
    if (!json_is_integer(j) || json_integer_value(j) < 1 || json_integer_value(j) > max)
        return st_fail(err, SETUN_BAD_ARG,
                       "the configuration's %s is not a whole number from 1 to %lld", key,
                       (long long)max);
    *v = json_integer_value(j);
    return SETUN_OK;
}

static setun_status read_quantization(shape *p, setun_error *err)
{
    if (p->s->float_master) {
        json_t *q = json_pack("{s:s, s:s, s:s}", "quant_method", "bitnet", "linear_class",
                              "autobitlinear", "quantization_mode", "online");
        if (!q || json_object_set_new(p->config, "quantization_config", q))
            return st_fail(err, SETUN_NO_MEMORY, "no memory for the configuration");
    }
    json_t *q = json_object_get(p->config, "quantization_config");
    const char *linear = json_string_value(json_object_get(q, "linear_class"));
    const char *mode = json_string_value(json_object_get(q, "quantization_mode"));
    p->form = NORMAL;
    if (json_is_object(q))
        p->form = mode && strcmp(mode, "online") == 0 ? MASTER : PACKED;
    p->divide = !linear || strcmp(linear, "autobitlinear") != 0;
    double z = p->s->zero_share < 0.0 ? 0.42 : p->s->zero_share;
    if (!(z <= 0.9))
        return st_fail(err, SETUN_BAD_ARG, "a share of %g zeros is not from 0 to 0.9", z);
    p->zero = (uint32_t)(z * 32768.0);
    double d = p->s->relu_density > 0.0 ? p->s->relu_density : 0.5;
    if (!(d >= 0.01 && d <= 0.5))
        return st_fail(err, SETUN_BAD_ARG, "a share of %g open gates is not from 0.01 to 0.5", d);
    if (d < 0.5 && (!p->sub_norms || p->form == NORMAL))
        return st_fail(err, SETUN_BAD_ARG, "open gates are counted in ternary models of BitNetForCausalLM alone");
    p->closed = (uint32_t)((1.0 - 2.0 * d) * 65536.0);
    double most = DOWN_AS_IT_COMES * d, e = p->s->down_density > 0.0 ? p->s->down_density : most;
    if (!(e >= 0.001 && e <= most))
        return st_fail(err, SETUN_BAD_ARG, "a share of %g inputs of down that are not 0 is not from 0.001 to %g, which is what "
                       "comes with %g open gates", e, most, d);
    if (e < most && (!p->sub_norms || p->form == NORMAL))
        return st_fail(err, SETUN_BAD_ARG, "inputs of down are counted in ternary models of BitNetForCausalLM alone");
    p->quiet = (uint32_t)((1.0 - e / most) * 65536.0);
    p->gain_share = p->form == NORMAL ? 1.0 : 1.0 - z;
    return SETUN_OK;
}

static setun_status read_shape(shape *p, setun_error *err)
{
    int64_t vocab;
    const char *arch =
        json_string_value(json_array_get(json_object_get(p->config, "architectures"), 0));
    if (!arch || (strcmp(arch, "BitNetForCausalLM") != 0 && strcmp(arch, "LlamaForCausalLM") != 0))
        return st_fail(
            err, SETUN_UNKNOWN,
            "a model of architecture %s cannot be made up, only BitNetForCausalLM and LlamaForCausalLM",
            arch ? arch : "none");
    p->sub_norms = arch[0] == 'B';
    p->tied = json_is_true(json_object_get(p->config, "tie_word_embeddings"));
    static const char *const biases[] = { "attention_bias", "mlp_bias" };
    for (int i = 0; i < 2; i++)
        if (json_is_true(json_object_get(p->config, biases[i])))
            return st_fail(err, SETUN_UNKNOWN, "a model with %s cannot be made up", biases[i]);
    ST_TRY(whole(p, "hidden_size", 1 << 20, 0, &p->hidden, err));
    ST_TRY(whole(p, "intermediate_size", 1 << 20, 0, &p->ffn, err));
    ST_TRY(whole(p, "num_hidden_layers", 1024, 0, &p->layers, err));
    ST_TRY(whole(p, "num_attention_heads", 4096, 0, &p->heads, err));
    ST_TRY(whole(p, "num_key_value_heads", p->heads, p->heads, &p->kv_heads, err));
    ST_TRY(whole(p, "head_dim", 4096, p->hidden / p->heads ? p->hidden / p->heads : 1, &p->head_dim,
                 err));
    ST_TRY(whole(p, "max_position_embeddings", INT32_MAX, 0, &p->context, err));
    ST_TRY(whole(p, "vocab_size", INT32_MAX, 0, &vocab, err));
    if (p->heads % p->kv_heads != 0)
        return st_fail(err, SETUN_BAD_ARG, "%lld heads do not divide among %lld key heads",
                       (long long)p->heads, (long long)p->kv_heads);
    ST_TRY(read_quantization(p, err));
    ST_TRY(st_synth_ids_of(&p->ids, vocab,
                           json_integer_value(json_object_get(p->config, "bos_token_id")), err));
    /* The vocabulary is ours, so its ids are too. */
    if (json_object_set_new(p->config, "bos_token_id", json_integer(p->ids.bos)) ||
        json_object_set_new(p->config, "eos_token_id", json_integer(p->ids.eos)))
        return st_fail(err, SETUN_NO_MEMORY, "no memory for the configuration");
    return SETUN_OK;
}

static setun_status load_config(shape *p, setun_error *err)
{
    json_error_t je = { .text = "" };
    char *text = NULL;
    int64_t n = 0;
    if (p->s->config) {
        ST_TRY(st_file_read(p->s->config, CONFIG_LIMIT, &text, &n, err));
        p->config = json_loadb(text, (size_t)n, JSON_REJECT_DUPLICATES, &je);
        free(text);
    } else {
        for (size_t i = 0; i < sizeof known / sizeof *known; i++)
            if (p->s->like && strcmp(known[i].name, p->s->like) == 0)
                p->config = json_loads(known[i].config, 0, &je);
        if (!p->config)
            return st_fail(err, SETUN_UNKNOWN, "no shape is called %s: there are %s",
                           p->s->like ? p->s->like : "so", st_synth_names());
    }
    if (!json_is_object(p->config))
        return st_fail(err, SETUN_BAD_FILE, "%s is not a configuration: %s", p->s->config, je.text);
    return read_shape(p, err);
}

/* ---------------------------------------------------------------- the list of tensors */

static setun_status add(shape *p, int kind, int rank, int64_t rows, int64_t cols, double size,
                        const char *name, setun_error *err)
{
    if (p->n == p->cap) {
        int64_t cap = p->cap ? 2 * p->cap : 256;
        tensor *more = realloc(p->t, (size_t)cap * sizeof *more);
        if (!more)
            return st_fail(err, SETUN_NO_MEMORY, "no memory for %lld tensors", (long long)cap);
        p->t = more;
        p->cap = cap;
    }
    tensor *t = &p->t[p->n];
    memset(t, 0, sizeof *t);
    t->name = name;
    t->kind = kind;
    t->rank = rank;
    t->rows = rows;
    t->cols = cols;
    t->size = size;
    if (p->closed && (kind == PACKED || kind == MASTER) && name)
        t->part = strstr(name, "gate_proj") ? GATE
                : strstr(name, "o_proj") || strstr(name, "down_proj") ? RESIDUAL : NO_PART;
    else if (p->closed && name && strstr(name, "embed_tokens"))
        t->part = EMBEDDING;
    else if (p->quiet && name && strstr(name, "ffn_sub_norm"))
        t->part = QUIET;
    int64_t count;
    if (!name || st_mul_i64(rows, cols, &count) ||
        st_mul_i64(count, kind == PACKED ? 1 : 2, &t->bytes) ||
        st_add_i64(p->total, t->bytes, &p->total))
        return st_fail(err, SETUN_BAD_ARG, "the model would be too large");
    /* By name: the same tensor has the same numbers in every shape and form. */
    t->key = word_at(p->s->seed, 1958);
    for (const char *c = name; *c; c++)
        t->key = word_at(t->key, (uint8_t)*c);
    p->n++;
    return SETUN_OK;
}

/* 1 / sqrt(K (1 - z)), by Newton's steps: exact enough, and the same on every machine. */
static double gain(const shape *p, int64_t cols)
{
    double a = (double)cols * p->gain_share, x = a > 1.0 ? a : 1.0;
    for (int i = 0; i < 64; i++)
        x = 0.5 * (x + a / x);
    return 1.0 / x;
}

/* normed: a norm in front already has the gain. */
static setun_status linear(shape *p, const char *base, int64_t out, int64_t in, int normed,
                           setun_error *err)
{
    const char *name = st_arena_printf(p->arena, "%s.weight", base);
    const char *scale = st_arena_printf(p->arena, "%s.weight_scale", base);
    if (p->form == NORMAL)
        return add(p, NORMAL, 2, out, in, normed ? 1.0 : gain(p, in), name, err);
    if (out % 4 != 0)
        return st_fail(err, SETUN_BAD_ARG,
                       "%s would have %lld rows, which four planes do not divide", base,
                       (long long)out);
    if (p->form == MASTER)
        return add(p, MASTER, 2, out, in, 1.0, name, err);
    double middle = normed ? 1.2 : 1.2 * gain(p, in);
    ST_TRY(add(p, PACKED, 2, out / 4, in, 1.0, name, err));
    return add(p, NEAR, 1, 1, 1, p->divide ? 1.0 / middle : middle, scale, err);
}

static setun_status norm(shape *p, const char *name, int64_t n, double size, setun_error *err)
{
    return add(p, NEAR, 1, 1, n, size, name, err);
}

static setun_status layer(shape *p, int64_t i, setun_error *err)
{
    int64_t q = p->heads * p->head_dim, kv = p->kv_heads * p->head_dim;
#define NAME(x) st_arena_printf(p->arena, "model.layers.%lld." x, (long long)i)
    ST_TRY(norm(p, NAME("input_layernorm.weight"), p->hidden, gain(p, p->hidden), err));
    ST_TRY(linear(p, NAME("self_attn.q_proj"), q, p->hidden, 1, err));
    ST_TRY(linear(p, NAME("self_attn.k_proj"), kv, p->hidden, 1, err));
    ST_TRY(linear(p, NAME("self_attn.v_proj"), kv, p->hidden, 1, err));
    if (p->sub_norms)
        ST_TRY(norm(p, NAME("self_attn.attn_sub_norm.weight"), q, gain(p, q), err));
    ST_TRY(linear(p, NAME("self_attn.o_proj"), p->hidden, q, p->sub_norms, err));
    ST_TRY(norm(p, NAME("post_attention_layernorm.weight"), p->hidden, gain(p, p->hidden), err));
    ST_TRY(linear(p, NAME("mlp.gate_proj"), p->ffn, p->hidden, 1, err));
    ST_TRY(linear(p, NAME("mlp.up_proj"), p->ffn, p->hidden, 1, err));
    if (p->sub_norms)
        ST_TRY(norm(p, NAME("mlp.ffn_sub_norm.weight"), p->ffn, gain(p, p->ffn), err));
    return linear(p, NAME("mlp.down_proj"), p->hidden, p->ffn, p->sub_norms, err);
#undef NAME
}

/* 16-bit tensors come before bytes in every shard, so that all of them are aligned. */
static int compare_tensors(const void *a, const void *b)
{
    const tensor *x = a, *y = b;
    if (x->shard != y->shard)
        return x->shard < y->shard ? -1 : 1;
    if ((x->kind == PACKED) != (y->kind == PACKED))
        return x->kind == PACKED ? 1 : -1;
    return strcmp(x->name, y->name);
}

static setun_status list_tensors(shape *p, setun_error *err)
{
    int64_t vocab = p->ids.vocab, used = 0;
    ST_TRY(add(p, NORMAL, 2, vocab, p->hidden, 0.5, "model.embed_tokens.weight", err));
    for (int64_t i = 0; i < p->layers; i++)
        ST_TRY(layer(p, i, err));
    /* Logits of size 3: neither flat nor certain. */
    ST_TRY(norm(p, "model.norm.weight", p->hidden, 6.0 * gain(p, p->hidden), err));
    if (!p->tied)
        ST_TRY(add(p, NORMAL, 2, vocab, p->hidden, 0.5, "lm_head.weight", err));
    p->n_shards = 1;
    for (int64_t i = 0; i < p->n; i++) {
        if (p->s->shard_bytes > 0 && used > 0 && used + p->t[i].bytes > p->s->shard_bytes) {
            p->n_shards++;
            used = 0;
        }
        used += p->t[i].bytes;
        p->t[i].shard = p->n_shards - 1;
    }
    if (p->n_shards > MAX_SHARDS)
        return st_fail(err, SETUN_BAD_ARG, "%lld shards are too many", (long long)p->n_shards);
    qsort(p->t, (size_t)p->n, sizeof *p->t, compare_tensors);
    return SETUN_OK;
}

/* ---------------------------------------------------------------- writing */

static const char *shard_name(const shape *p, int64_t shard)
{
    if (p->s->shard_bytes <= 0)
        return "model.safetensors";
    return st_arena_printf(p->arena, "model-%05lld-of-%05lld.safetensors", (long long)shard + 1,
                           (long long)p->n_shards);
}

/* The rows are the tensors as the container sees them. */
static setun_status shard_header(const shape *p, int64_t first, int64_t end, st_str *out, setun_error *err)
{
    st_tensor *row = st_arena_array(p->arena, end - first, sizeof *row);
    if (!row)
        return st_fail(err, SETUN_NO_MEMORY, "no memory for a header");
    for (int64_t i = first; i < end; i++) {
        const tensor *t = &p->t[i];
        setun_view view = { NULL, t->kind == PACKED ? SETUN_U8 : SETUN_BF16, (uint32_t)t->rank, { t->cols, 1, 1, 1 } };
        if (t->rank == 2) {
            view.dim[0] = t->rows;
            view.dim[1] = t->cols;
        }
        row[i - first] = (st_tensor){ t->name, NULL, t->kind == PACKED ? "U8" : "BF16", view, t->bytes };
    }
    st_safetensors_header(row, end - first, out);
    return out->failed ? st_fail(err, SETUN_NO_MEMORY, "no memory for a header") : SETUN_OK;
}

static setun_status write_tensor(const shape *p, const tensor *t, uint8_t *buffer, int64_t *done,
                                 st_out *o, setun_error *err)
{
    int64_t size = t->kind == PACKED ? 1 : 2, step = CHUNK / size, count = t->bytes / size;
    for (int64_t i = 0; i < count; i += step) {
        int64_t n = count - i < step ? count - i : step;
        fill(t, p->zero, i, n, buffer);
        if (t->part)
            close_gates(t, t->part == QUIET ? p->quiet : p->closed, i, n, buffer);
        ST_TRY(st_out_write(o, buffer, n * size, err));
        *done += n * size;
        if (p->s->progress && p->s->progress(p->s->user, *done, p->total))
            return st_fail(err, SETUN_CANCELLED, "cancelled: nothing was written");
    }
    return SETUN_OK;
}

static setun_status write_shard(const shape *p, int64_t first, int64_t end, uint8_t *buffer,
                                int64_t *done, setun_error *err)
{
    st_out *o = NULL;
    st_str header = { 0 }, path = { 0 };
    const char *name = shard_name(p, p->t[first].shard);
    setun_status st = name ? shard_header(p, first, end, &header, err) : st_fail(err, SETUN_NO_MEMORY, "no memory to write the model");
    if (st == SETUN_OK)
        st = st_newdir_path(&p->dir, name, &path, err);
    if (st == SETUN_OK)
        st = st_out_open(&o, path.text, 1, err);
    if (st == SETUN_OK)
        st = st_out_write(o, header.text, (int64_t)header.len, err);
    st_str_free(&path);
    st_str_free(&header);
    for (int64_t i = first; st == SETUN_OK && i < end; i++)
        st = write_tensor(p, &p->t[i], buffer, done, o, err);
    if (st == SETUN_OK)
        return st_out_commit(o, err);
    st_out_abort(o);
    return st;
}

static setun_status write_index(const shape *p, setun_error *err)
{
    st_str s = { 0 };
    st_str_addf(&s, "{\n  \"metadata\": {\"total_size\": %lld},\n  \"weight_map\": {",
                (long long)p->total);
    for (int64_t i = 0; i < p->n; i++)
        st_str_addf(&s, "%s\n    \"%s\": \"%s\"", i ? "," : "", p->t[i].name,
                    shard_name(p, p->t[i].shard));
    st_str_add(&s, "\n  }\n}\n");
    setun_status st = s.failed ? st_fail(err, SETUN_NO_MEMORY, "no memory for the index")
                               : st_newdir_text(&p->dir, "model.safetensors.index.json", s.text, s.len, err);
    st_str_free(&s);
    return st;
}

static setun_status write_tensors(const shape *p, setun_error *err)
{
    uint8_t *buffer = malloc(CHUNK);
    int64_t done = 0;
    setun_status st =
        buffer ? SETUN_OK : st_fail(err, SETUN_NO_MEMORY, "no memory to write the model");
    for (int64_t i = 0, end; st == SETUN_OK && i < p->n; i = end) {
        for (end = i; end < p->n && p->t[end].shard == p->t[i].shard; end++)
            ;
        st = write_shard(p, i, end, buffer, &done, err);
    }
    free(buffer);
    if (st == SETUN_OK && p->s->shard_bytes > 0)
        st = write_index(p, err);
    return st;
}

static setun_status write_small_files(const shape *p, setun_error *err)
{
    st_str s = { 0 };
    char *config = json_dumps(p->config, JSON_INDENT(2));
    setun_status st = st_newdir_text(&p->dir, "config.json", config, config ? strlen(config) : 0, err);
    free(config);
    ST_TRY(st);
    st_str_addf(
        &s,
        "{\n  \"bos_token_id\": %lld,\n  \"eos_token_id\": [%lld, %lld],\n  \"do_sample\": true,\n"
        "  \"temperature\": 0.6,\n  \"top_p\": 0.9,\n  \"max_length\": %lld\n}\n",
        (long long)p->ids.bos, (long long)p->ids.eos, (long long)p->ids.eot, (long long)p->context);
    st = st_newdir_text(&p->dir, "generation_config.json", s.text, s.len, err);
    st_str_free(&s);
    ST_TRY(st);
    st_str_addf(
        &s,
        "{\n  \"bos_token\": \"<|begin_of_text|>\",\n  \"eos_token\": \"<|end_of_text|>\",\n"
        "  \"tokenizer_class\": \"PreTrainedTokenizerFast\",\n  \"model_max_length\": %lld,\n"
        "  \"chat_template\": \"{%% for message in messages %%}{{ message['role'] | capitalize + ': ' + "
        "message['content'] | trim + '<|eot_id|>' }}{%% endfor %%}{%% if add_generation_prompt %%}"
        "{{ 'Assistant: ' }}{%% endif %%}\"\n}\n",
        (long long)p->context);
    st = st_newdir_text(&p->dir, "tokenizer_config.json", s.text, s.len, err);
    st_str_free(&s);
    ST_TRY(st);
    st = st_synth_tokenizer(&p->ids, &s, err);
    if (st == SETUN_OK)
        st = st_newdir_text(&p->dir, "tokenizer.json", s.text, s.len, err);
    st_str_free(&s);
    return st;
}

/* What was written must be what Setun reads: a configuration with a key that it refuses is refused
 * here, not after the benchmark has been planned around it. */
static setun_status check_written(const shape *p, setun_error *err)
{
    st_weights *w;
    st_tokenizer *t;
    ST_TRY(st_weights_open(&w, p->dir.dir.text, NULL, err));
    st_weights_close(w);
    ST_TRY(st_tokenizer_open(&t, p->dir.dir.text, err));
    st_tokenizer_close(t);
    return SETUN_OK;
}

/* Parents are made as they are needed; the model's own place is new. */
static setun_status make_parents(const char *out, setun_error *err)
{
    size_t n = strlen(out);
    while (n > 1 && out[n - 1] == '/')
        n--;
    while (n > 0 && out[n - 1] != '/')
        n--;
    st_str parent = { 0 };
    st_str_addn(&parent, out, n);
    setun_status st = parent.failed ? st_fail(err, SETUN_NO_MEMORY, "no memory to write the model")
                    : n             ? st_make_dirs(parent.text, 0, err) : SETUN_OK;
    st_str_free(&parent);
    return st;
}

static setun_status build(shape *p, setun_error *err)
{
    ST_TRY(load_config(p, err));
    ST_TRY(list_tensors(p, err));
    if (st_is_absent(p->s->out))
        ST_TRY(make_parents(p->s->out, err));
    ST_TRY(st_newdir_begin(&p->dir, p->s->out, NULL, 0, err));
    ST_TRY(write_small_files(p, err));
    ST_TRY(write_tensors(p, err));
    ST_TRY(check_written(p, err));
    return st_newdir_commit(&p->dir, err);
}

setun_status st_synth_write(const st_synth *s, setun_error *err)
{
    shape p = { .s = s };
    if (!s->out || (!s->like && !s->config))
        return st_fail(err, SETUN_BAD_ARG, "a synthetic model needs a shape and a place");
    p.arena = st_arena_new();
    setun_status st =
        p.arena ? build(&p, err) : st_fail(err, SETUN_NO_MEMORY, "no memory to write the model");
    json_decref(p.config);
    free(p.t);
    st_newdir_end(&p.dir);
    st_arena_free(p.arena);
    return st;
}
