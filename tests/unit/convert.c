/* tests/unit/convert.c -- models in other forms.  Models are made by this file's own packer, and what is
 * expected of a conversion is the codes, scales and values that it was given, never what Setun read. */
#include "tests/unit/files.h"

#include <math.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "model/convert.h"
#include "model/gguf_types.h"
#include "model/recode.h"
#include "model/safetensors.h"
#include "model/tokenizer.h"

/* ---------------------------------------------------------------- a model */

enum { PACKED, DIVIDED, MASTER, FLOAT, BY_ROW, BY_128 /* floats with scales of rows, or of 128 neighbours */ };

typedef struct linear {
    char   name[96]; /* without ".weight" */
    int    rows, cols;
    int8_t *w;
    float  scale;    /* to multiply with */
} linear;

typedef struct sizes {
    int hidden, ffn, heads, kv, dim, vocab, layers;
} sizes;

typedef struct model {
    sizes    s;
    int      llama, form;
    linear   linear[32];
    int      n_linear;
    uint64_t seed;
    maker    m;
    char    *dir;
} model;

static uint16_t bf16_of(float f)
{
    uint32_t u;
    memcpy(&u, &f, 4);
    return (uint16_t)(u >> 16); /* exact for the values of this file */
}

/* A float of eight significant bits, which every 16-bit type holds; it depends on name and place. */
static float value_of(const char *name, int64_t i)
{
    uint64_t h = 1469598103934665603u;
    for (; *name; name++)
        h = (h ^ (uint8_t)*name) * 1099511628211u;
    h = (h ^ (uint64_t)i) * 0x9e3779b97f4a7c15u;
    return (float)((int)(h >> 40 & 255) - 128) / 64.0f + 1.0f / 64.0f;
}

static void put_floats(model *m, const char *name, int rows, int cols)
{
    int64_t n = (int64_t)rows * cols;
    uint16_t *h = malloc((size_t)n * 2);
    char shape[64];
    assert_non_null(h);
    for (int64_t i = 0; i < n; i++)
        h[i] = bf16_of(value_of(name, i));
    (void)snprintf(shape, sizeof shape, rows == 1 ? "[%d]" : "[%d,%d]", rows == 1 ? cols : rows, cols);
    make_tensor(&m->m, name, "BF16", shape, h, (size_t)n * 2);
    free(h);
}

/* Four planes: rows r, r + R, r + 2 R, r + 3 R in bits 0, 2, 4, 6. */
static void put_planes(model *m, const linear *l, const char *name)
{
    int quarter = (l->rows + 3) / 4;
    char shape[64], scale[128];
    uint8_t *bytes = calloc((size_t)quarter * (size_t)l->cols, 1);
    float stored = m->form == DIVIDED ? 1.0f / l->scale : l->scale;
    assert_non_null(bytes);
    for (int r = 0; r < 4 * quarter; r++)
        for (int c = 0; c < l->cols; c++) {
            int code = r < l->rows ? l->w[r * l->cols + c] + 1 : 1;
            bytes[r % quarter * l->cols + c] = (uint8_t)(bytes[r % quarter * l->cols + c] | code << 2 * (r / quarter));
        }
    (void)snprintf(shape, sizeof shape, "[%d,%d]", quarter, l->cols);
    make_tensor(&m->m, name, "U8", shape, bytes, (size_t)quarter * (size_t)l->cols);
    (void)snprintf(scale, sizeof scale, "%s_scale", name);
    make_tensor(&m->m, scale, "F32", "[1]", &stored, 4);
    free(bytes);
}

/* The scale of a weight: no two neighbours share one where they have their own. */
static float weight_scale(const model *m, const linear *l, int64_t r, int64_t c)
{
    int64_t step = m->form == BY_ROW ? r % 3 : m->form == BY_128 ? (r + c / 128) % 3 : 0;
    return l->scale * (float)(1 << step);
}

/* Floats: three values, or masters, whose rounding by their mean gives the codes; sums are exact. */
static void put_master(model *m, linear *l, const char *name)
{
    int64_t n = (int64_t)l->rows * l->cols;
    float *x = malloc((size_t)n * sizeof *x);
    char shape[64];
    double sum = 0;
    assert_non_null(x);
    for (int64_t i = 0; i < n; i++) {
        uint32_t r = next_random(&m->seed) % 64;
        x[i] = m->form >= FLOAT ? (float)l->w[i] * weight_scale(m, l, i / l->cols, i % l->cols)
               : l->w[i]        ? (float)l->w[i] * (1.0f + (float)r / 128.0f) : ((float)r - 32.0f) / 512.0f;
        sum += fabs((double)x[i]);
    }
    if (m->form == MASTER)
        l->scale = (float)(sum / (double)n);
    (void)snprintf(shape, sizeof shape, "[%d,%d]", l->rows, l->cols);
    make_tensor(&m->m, name, "F32", shape, x, (size_t)n * sizeof *x);
    free(x);
}

static void put_linear(model *m, int layer, const char *what, int rows, int cols)
{
    linear *l = &m->linear[m->n_linear++];
    char name[128];
    (void)snprintf(l->name, sizeof l->name, "model.layers.%d.%s_proj", layer, what);
    (void)snprintf(name, sizeof name, "%s.weight", l->name);
    l->rows = rows;
    l->cols = cols;
    l->w = malloc((size_t)rows * (size_t)cols);
    assert_non_null(l->w);
    for (int i = 0; i < rows * cols; i++)
        l->w[i] = (int8_t)((int)(next_random(&m->seed) % 3) - 1);
    /* Eight significant bits again; where models divide, a power of two, whose reciprocal is exact. */
    l->scale = m->form == DIVIDED ? 0.25f : 0.75f + (float)(next_random(&m->seed) % 64) / 256.0f;
    if (m->form >= MASTER)
        put_master(m, l, name);
    else
        put_planes(m, l, name);
}

static void put_config(const model *m)
{
    static const char *const rule[] = {
        [PACKED] = ",\"quantization_config\":{\"quant_method\":\"bitnet\",\"linear_class\":\"autobitlinear\",\"quantization_mode\":\"offline\"}",
        [DIVIDED] = ",\"quantization_config\":{\"quant_method\":\"bitnet\"}",
        [MASTER] = ",\"quantization_config\":{\"quant_method\":\"bitnet\",\"linear_class\":\"autobitlinear\",\"quantization_mode\":\"online\"}",
        [FLOAT] = "", [BY_ROW] = "", [BY_128] = "",
    };
    st_str s = { 0 };
    st_str_addf(&s, "{\"architectures\":[\"%s\"],\"model_type\":\"x\",\"hidden_act\":\"%s\",\"tie_word_embeddings\":%s,\"hidden_size\":%d,"
                "\"intermediate_size\":%d,\"num_hidden_layers\":%d,\"num_attention_heads\":%d,\"num_key_value_heads\":%d,\"head_dim\":%d,"
                "\"vocab_size\":%d,\"max_position_embeddings\":128,\"rms_norm_eps\":1e-06,\"rope_theta\":12345.0%s}",
                m->llama ? "LlamaForCausalLM" : "BitNetForCausalLM", m->llama ? "silu" : "relu2", m->llama ? "false" : "true",
                m->s.hidden, m->s.ffn, m->s.layers, m->s.heads, m->s.kv, m->s.dim, m->s.vocab, rule[m->form]);
    put_text(m->dir, "config.json", s.text);
    st_str_free(&s);
}

static void make_model(model *m, const sizes *s, int llama, int form)
{
    memset(m, 0, sizeof *m);
    m->s = *s;
    m->llama = llama;
    m->form = form;
    m->seed = 5;
    m->dir = temp_dir();
    put_floats(m, "model.embed_tokens.weight", s->vocab, s->hidden);
    put_floats(m, "model.norm.weight", 1, s->hidden);
    if (llama)
        put_floats(m, "lm_head.weight", s->vocab, s->hidden);
    for (int i = 0; i < s->layers; i++) {
        char name[96];
        const struct { const char *name; int n; } norms[] = { { "input_layernorm", s->hidden }, { "post_attention_layernorm", s->hidden },
                                                              { "self_attn.attn_sub_norm", s->heads * s->dim }, { "mlp.ffn_sub_norm", s->ffn } };
        for (int k = 0; k < (llama ? 2 : 4); k++) {
            (void)snprintf(name, sizeof name, "model.layers.%d.%s.weight", i, norms[k].name);
            put_floats(m, name, 1, norms[k].n);
        }
        put_linear(m, i, "self_attn.q", s->heads * s->dim, s->hidden);
        put_linear(m, i, "self_attn.k", s->kv * s->dim, s->hidden);
        put_linear(m, i, "self_attn.v", s->kv * s->dim, s->hidden);
        put_linear(m, i, "self_attn.o", s->hidden, s->heads * s->dim);
        put_linear(m, i, "mlp.gate", s->ffn, s->hidden);
        put_linear(m, i, "mlp.up", s->ffn, s->hidden);
        put_linear(m, i, "mlp.down", s->hidden, s->ffn);
    }
    make_file(&m->m, m->dir, "model.safetensors");
    put_config(m);
}

static void drop_model(model *m)
{
    for (int i = 0; i < m->n_linear; i++)
        free(m->linear[i].w);
    drop_dir(m->dir);
}

/* ---------------------------------------------------------------- what is expected */

/* GGUF's name of a checkpoint's linear layer, by the format's own list. */
static void gguf_name(const char *name, char out[96])
{
    static const char *const pairs[][2] = {
        { "self_attn.q_proj", "attn_q" }, { "self_attn.k_proj", "attn_k" }, { "self_attn.v_proj", "attn_v" },
        { "self_attn.o_proj", "attn_output" }, { "mlp.gate_proj", "ffn_gate" }, { "mlp.up_proj", "ffn_up" }, { "mlp.down_proj", "ffn_down" },
    };
    int layer = atoi(name + strlen("model.layers."));
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        if (strstr(name, pairs[i][0]))
            (void)snprintf(out, 96, "blk.%d.%s.weight", layer, pairs[i][1]);
}

static const st_gguf_tensor *gguf_find(const st_gguf *g, const char *name)
{
    for (int64_t i = 0; i < g->n_tensors; i++)
        if (strcmp(g->tensor[i].name, name) == 0)
            return &g->tensor[i];
    fail_msg("no tensor %s", name);
    return NULL;
}

/* Row 2 i of a head is its row i, row 2 i + 1 its row i + half, where llama's queries and keys are. */
static int row_there(const model *m, const linear *l, int r)
{
    int in = r % m->s.dim, half = m->s.dim / 2;
    if (!m->llama || (!strstr(l->name, "q_proj") && !strstr(l->name, "k_proj")))
        return r;
    return r - in + (in < half ? 2 * in : 2 * (in - half) + 1);
}

static void expect_gguf(const model *m, const char *path, int i2s, const char *type)
{
    st_gguf g = { 0 };
    setun_error err = { 0 };
    st_arena *arena = st_arena_new();
    float *value = malloc(4096 * sizeof *value), scale[64];
    uint8_t code[4096];
    assert_non_null(value);
    if (st_gguf_open(&g, path, i2s, arena, &err) != SETUN_OK)
        fail_msg("%s", err.text);
    for (int i = 0; i < m->n_linear; i++) {
        const linear *l = &m->linear[i];
        char name[96];
        gguf_name(l->name, name);
        const st_gguf_tensor *t = gguf_find(&g, name);
        assert_string_equal(t->type->name, type);
        assert_true(t->dim[0] == l->cols && t->dim[1] == l->rows);
        for (int r = 0; r < l->rows; r++) {
            assert_int_equal(st_gguf_read_row(&g, t, row_there(m, l, r), value, code, scale, &err), SETUN_OK);
            for (int64_t k = 0; k < st_gguf_scales(t); k++)
                assert_true(scale[k] == weight_scale(m, l, r, k * l->cols / st_gguf_scales(t)));
            for (int c = 0; c < l->cols; c++)
                if (code[c] != l->w[r * l->cols + c] + 1)
                    fail_msg("%s, %s: row %d, column %d", path, name, r, c);
        }
    }
    const st_gguf_tensor *embed = gguf_find(&g, "token_embd.weight"), *norm = gguf_find(&g, "blk.0.ffn_norm.weight");
    for (int r = 0; r < m->s.vocab; r++) {
        assert_int_equal(st_gguf_read_row(&g, embed, r, value, code, scale, &err), SETUN_OK);
        for (int c = 0; c < m->s.hidden; c++)
            assert_true(value[c] == value_of("model.embed_tokens.weight", (int64_t)r * m->s.hidden + c));
    }
    assert_string_equal(norm->type->name, "F32");
    assert_int_equal(st_gguf_read_row(&g, norm, 0, value, code, scale, &err), SETUN_OK);
    for (int c = 0; c < m->s.hidden; c++)
        assert_true(value[c] == value_of("model.layers.0.post_attention_layernorm.weight", c));
    st_gguf_close(&g);
    st_arena_free(arena);
    free(value);
}

static double element(const st_tensor *t, int64_t i)
{
    float f = 0;
    assert_int_equal(st_convert_f32(&f, (const uint8_t *)t->view.data + i * (t->view.dtype == SETUN_F32 ? 4 : 2), t->view.dtype, 1), 0);
    return (double)f;
}

/* A directory, by the container alone. */
static void expect_hf(const model *m, const char *dir, int packed)
{
    st_safetensors s = { 0 };
    setun_error err = { 0 };
    st_arena *arena = st_arena_new();
    if (st_safetensors_open(&s, dir, arena, &err) != SETUN_OK)
        fail_msg("%s", err.text);
    for (int i = 0; i < m->n_linear; i++) {
        const linear *l = &m->linear[i];
        char name[128], scale[136];
        int64_t at, scale_at = -1, quarter = (l->rows + 3) / 4;
        (void)snprintf(name, sizeof name, "%s.weight", l->name);
        (void)snprintf(scale, sizeof scale, "%s_scale", name);
        assert_true(st_table_get(s.by_name, name, strlen(name), &at));
        assert_int_equal(st_table_get(s.by_name, scale, strlen(scale), &scale_at), packed);
        const st_tensor *t = &s.tensor[at];
        if (packed)
            assert_true(element(&s.tensor[scale_at], 0) == (double)l->scale);
        for (int r = 0; r < l->rows; r++)
            for (int c = 0; c < l->cols; c++) {
                int w = l->w[r * l->cols + c];
                if (packed)
                    assert_int_equal(((const uint8_t *)t->view.data)[r % quarter * l->cols + c] >> 2 * (r / quarter) & 3, w + 1);
                else
                    assert_true(element(t, (int64_t)r * l->cols + c) == (double)((float)w * weight_scale(m, l, r, c)));
            }
    }
    st_safetensors_close(&s);
    st_arena_free(arena);
}

/* ---------------------------------------------------------------- running it */

typedef struct run {
    st_str       report;
    setun_error  err;
    setun_status status;
} run;

static void convert(run *r, const char *in, const char *out, const char *to, int i2s, st_recode o)
{
    memset(r, 0, sizeof *r);
    o.in = in;
    o.out = out;
    o.to = to;
    o.i2s = i2s;
    const char *name = strrchr(in, '/');
    if (name && (strncmp(name, "/tq1_0", 6) == 0 || strncmp(name, "/tq2_0", 6) == 0))
        o.activations = ST_ACTIVATIONS_INT8;
    r->status = st_recode_write(&o, &r->report, &r->err);
}

static void end(run *r) { st_str_free(&r->report); }

static void must(const char *in, const char *out, const char *to, int i2s, st_recode o)
{
    run r;
    convert(&r, in, out, to, i2s, o);
    if (r.status != SETUN_OK)
        fail_msg("%s to %s: %s", in, to, r.err.text);
    end(&r);
}

/* Fails with a message that has all of what in it, and leaves nothing behind. */
static void must_not(const char *in, const char *out, const char *to, int i2s, st_recode o, const char *const *what)
{
    run r;
    convert(&r, in, out, to, i2s, o);
    assert_int_not_equal(r.status, SETUN_OK);
    for (; *what; what++)
        if (!strstr(r.err.text, *what))
            fail_msg("'%s' does not have '%s'", r.err.text, *what);
    assert_true(st_is_absent(out));
    end(&r);
}

static int64_t entries(const char *dir)
{
    char **names;
    int64_t n;
    assert_int_equal(st_dir_list(dir, &names, &n, NULL), SETUN_OK);
    st_dir_free(names, n);
    return n;
}

/* ---------------------------------------------------------------- tests */

static const struct { const char *to, *type; int i2s, block; } forms[] = {
    { "tq1_0", "TQ1_0", ST_I2S_ASK, 256 },   { "tq2_0", "TQ2_0", ST_I2S_ASK, 256 },
    { "i2_s", "I2_S", ST_I2S_X86, 1 },       { "i2_s-arm", "I2_S", ST_I2S_ARM, 1 },
    { "i2_s-rows4", "I2_S", ST_I2S_ROWS4, 1 }, { "iq1_bn", "IQ1_BN", ST_I2S_ASK, 64 },
    { "iq2_bn", "IQ2_BN", ST_I2S_ASK, 64 },  { "q2_0", "Q2_0", ST_I2S_ASK, 64 },
    { "q2_0-128", "Q2_0 (groups of 128)", ST_I2S_ASK, 128 }, { "pq2_0", "PQ2_0", ST_I2S_ASK, 128 },
    { "ptq1_0", "PTQ1_0", ST_I2S_ASK, 128 },
};
#define N_FORMS ((int)(sizeof forms / sizeof *forms))

/* Rows that are not whole blocks of 128; rows of odd numbers of blocks; and what all types take. */
static const sizes shapes[] = {
    { 48, 56, 4, 2, 12, 7, 2 }, { 192, 320, 3, 1, 64, 5, 1 }, { 256, 768, 2, 1, 128, 3, 1 }, { 1280, 256, 2, 1, 128, 3, 1 },
};

static int takes(const sizes *s, int block) { return s->hidden % block == 0 && s->ffn % block == 0 && s->heads * s->dim % block == 0; }

/* Can every reader tell the type by its size?  Q2_0 and PQ2_0 cannot be with few blocks in a row. */
static int is_clear(const sizes *s, const char *to) { return s->hidden >= 1280 || !strchr(to, 'q') || !strstr(to, "q2_0") || strstr(to, "tq2_0"); }

/* Directory to every type and back, and on to another type; every number is what was put in. */
static void test_round_trips(void **state)
{
    (void)state;
    for (size_t k = 0; k < 8; k++) {
        const sizes *s = &shapes[k / 2];
        model m;
        if (k == 3 || k == 5)
            continue;
        make_model(&m, s, k % 2, k % 4 == 1 ? DIVIDED : PACKED);
        char *tmp = temp_dir(), *back = join(tmp, "back"), *last = NULL;
        int last_i2s = ST_I2S_ASK;
        for (int f = 0; f < N_FORMS; f++) {
            char name[64];
            (void)snprintf(name, sizeof name, "%s.gguf", forms[f].to);
            /* Types that only programs with float activations write would change what llama computes. */
            int other_use = k % 2 && strstr(forms[f].to, "q2_0") && !strstr(forms[f].to, "tq2_0");
            other_use |= k % 2 && !strcmp(forms[f].to, "ptq1_0");
            if (!takes(s, forms[f].block) || !is_clear(s, forms[f].to))
                continue;
            char *file = join(tmp, name);
            must(m.dir, file, forms[f].to, ST_I2S_ASK, (st_recode){ .lossless = !other_use });
            expect_gguf(&m, file, forms[f].i2s, forms[f].type);
            must(file, back, "hf", forms[f].i2s, (st_recode){ .lossless = !other_use });
            expect_hf(&m, back, 1);
            if (last && k == 6) {
                char *again = join(tmp, "again.gguf");
                must(last, again, forms[f].to, last_i2s, (st_recode){ 0 });
                expect_gguf(&m, again, forms[f].i2s, forms[f].type);
                assert_int_equal(unlink(again), 0);
                free(again);
            }
            remove_tree(back);
            free(last);
            last = file;
            last_i2s = forms[f].i2s;
        }
        assert_non_null(last);
        free(last);
        free(back);
        drop_dir(tmp);
        drop_model(&m);
    }
}

static void test_floats(void **state)
{
    (void)state;
    for (int llama = 0; llama < 2; llama++) {
        model m;
        make_model(&m, &shapes[0], llama, PACKED);
        char *tmp = temp_dir(), *flat = join(tmp, "flat"), *packed = join(tmp, "packed"), *file = join(tmp, "x.gguf");
        must(m.dir, flat, "hf-float", ST_I2S_ASK, (st_recode){ 0 });
        expect_hf(&m, flat, 0);
        must_not(m.dir, packed, "hf-float", ST_I2S_ASK, (st_recode){ .lossless = 1 }, (const char *[]){ "14 matrices with other activations", NULL });
        must(flat, packed, "hf", ST_I2S_ASK, (st_recode){ .ternary = ST_FLOATS_EXACT, .activations = ST_ACTIVATIONS_INT8, .lossless = 1 });
        expect_hf(&m, packed, 1);
        /* Without that word the floats are weights alone, and a packed matrix asks for int8. */
        remove_tree(packed);
        must_not(flat, packed, "hf", ST_I2S_ASK, (st_recode){ .ternary = ST_FLOATS_EXACT, .lossless = 1 },
                 (const char *[]){ "14 matrices with other activations", NULL });
        must(flat, file, "i2_s", ST_I2S_ASK, (st_recode){ .ternary = ST_FLOATS_EXACT });
        expect_gguf(&m, file, ST_I2S_X86, "I2_S");
        assert_int_equal(unlink(file), 0);
        must_not(flat, file, "i2_s", ST_I2S_ASK, (st_recode){ 0 }, (const char *[]){ "says of no matrix that it is ternary", "--ternary absmean", NULL });
        free(flat);
        free(packed);
        free(file);
        drop_dir(tmp);
        drop_model(&m);
    }
}

/* Floats whose rows or groups have scales of their own: to what has a scale for as many, and back. */
static void test_groups(void **state)
{
    (void)state;
    static const struct { int form; const char *to, *type; int takes; } cases[] = {
        { BY_ROW, "iq2_bn", "IQ2_BN", 1 },   { BY_ROW, "q2_0-128", "Q2_0 (groups of 128)", 1 }, { BY_128, "tq2_0", "TQ2_0", 0 },
        { BY_128, "iq2_bn", "IQ2_BN", 0 },   { BY_128, "q2_0-128", "Q2_0 (groups of 128)", 1 }, { BY_128, "ptq1_0", "PTQ1_0", 1 },
        { BY_ROW, "i2_s", "I2_S", 0 },       { BY_ROW, "hf", NULL, 0 },                         { BY_128, "hf", NULL, 0 },
    };
    const st_recode exact = { .ternary = ST_FLOATS_EXACT };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        model m;
        make_model(&m, &(sizes){ 1280, 1280, 2, 1, 640, 3, 1 }, 0, cases[i].form);
        char *tmp = temp_dir(), *out = join(tmp, "x.gguf"), *back = join(tmp, "back");
        if (cases[i].takes) {
            must(m.dir, out, cases[i].to, ST_I2S_ASK, exact);
            expect_gguf(&m, out, ST_I2S_ASK, cases[i].type);
            must(out, back, "hf-float", ST_I2S_ASK, (st_recode){ 0 });
            expect_hf(&m, back, 0);
        } else {
            must_not(m.dir, out, cases[i].to, ST_I2S_ASK, exact, (const char *[]){ "model.layers.0", "has the scale", "has one for both", NULL });
        }
        free(out);
        free(back);
        drop_dir(tmp);
        drop_model(&m);
    }
}

static void test_masters(void **state)
{
    (void)state;
    model m;
    make_model(&m, &shapes[0], 0, MASTER);
    char *tmp = temp_dir(), *file = join(tmp, "x.gguf"), *back = join(tmp, "back");
    must(m.dir, file, "i2_s", ST_I2S_ASK, (st_recode){ .lossless = 1 });
    expect_gguf(&m, file, ST_I2S_X86, "I2_S");
    must(m.dir, back, "hf", ST_I2S_ASK, (st_recode){ .lossless = 1 });
    expect_hf(&m, back, 1);
    remove_tree(back);
    assert_int_equal(unlink(file), 0);
    /* Not three values: exact refuses, and says where. */
    m.form = FLOAT;
    put_config(&m);
    must_not(m.dir, file, "i2_s", ST_I2S_ASK, (st_recode){ .ternary = ST_FLOATS_EXACT },
             (const char *[]){ "is not ternary", "model.layers.0", "row 0, column", NULL });
    must(m.dir, file, "i2_s", ST_I2S_ASK, (st_recode){ .ternary = ST_FLOATS_ABSMEAN });
    expect_gguf(&m, file, ST_I2S_X86, "I2_S");
    free(file);
    free(back);
    drop_dir(tmp);
    drop_model(&m);
}

/* Bytes of a tensor's data in a GGUF file, or of a key's value, become others. */
static void patch(const char *path, const char *what, int64_t at, const void *bytes, size_t n)
{
    st_gguf g = { 0 };
    st_arena *arena = st_arena_new();
    assert_int_equal(st_gguf_open(&g, path, ST_I2S_ASK, arena, NULL), SETUN_OK);
    const st_gguf_value *key = st_gguf_find(&g, what);
    long place = (long)((key ? key->data : gguf_find(&g, what)->data) - g.file[0].map.data + at);
    st_gguf_close(&g);
    st_arena_free(arena);
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    assert_int_equal(fseek(f, place, SEEK_SET), 0);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static void test_refusals(void **state)
{
    (void)state;
    model m, odd;
    make_model(&m, &shapes[3], 0, PACKED);
    make_model(&odd, &(sizes){ 36, 44, 3, 1, 12, 3, 1 }, 0, PACKED);
    char *tmp = temp_dir(), *two = join(tmp, "two.gguf"), *tq = join(tmp, "tq.gguf"), *out = join(tmp, "out");
    /* Shapes. */
    must_not(odd.dir, out, "tq2_0", ST_I2S_ASK, (st_recode){ 0 }, (const char *[]){ "model.layers.0", "x 36", "TQ2_0", "multiples of 256", NULL });
    must_not(odd.dir, out, "iq1_bn", ST_I2S_ASK, (st_recode){ 0 }, (const char *[]){ "IQ1_BN", "multiples of 64", NULL });
    must_not(odd.dir, out, "i2_s", ST_I2S_ASK, (st_recode){ 0 }, (const char *[]){ "i2_s", "weights in multiples of 128", NULL });
    must_not(odd.dir, out, "q8_0", ST_I2S_ASK, (st_recode){ 0 }, (const char *[]){ "'q8_0' is not a form", NULL });
    must_not(odd.dir, out, "hf", ST_I2S_ASK, (st_recode){ .floats = "q8_0" }, (const char *[]){ "q8_0", NULL });
    must_not(m.dir, out, "iq2_bn", ST_I2S_X86, (st_recode){ 0 }, (const char *[]){ "I2_S", "GGUF files alone", NULL });
    /* A weight of +2, which two types have. */
    must(m.dir, two, "q2_0", ST_I2S_ASK, (st_recode){ 0 });
    patch(two, "blk.0.ffn_up.weight", 18 * 20 + 2, "\xff", 1); /* row 1 begins at block 20 */
    must_not(two, out, "hf", ST_I2S_ASK, (st_recode){ 0 }, (const char *[]){ "+2", "row 1, column 0", "ffn_up", NULL });
    must_not(two, out, "iq2_bn", ST_I2S_ASK, (st_recode){ 0 }, (const char *[]){ "+2", "row 1, column 0", "iq2_bn", NULL });
    must(two, out, "pq2_0", ST_I2S_ASK, (st_recode){ .lossless = 1 });
    assert_int_equal(unlink(out), 0);
    /* Two scales in a matrix: not for one scale a matrix, and where each group has its own. */
    must(m.dir, tq, "tq2_0", ST_I2S_ASK, (st_recode){ .lossless = 1 });
    patch(tq, "blk.0.ffn_up.weight", 66 * 7 + 64, "\x00\x40", 2); /* row 1, third of five groups: 2 */
    const char *const where[] = { "blk.0.ffn_up.weight", "the scale 2 at row 1, column 512", NULL };
    must_not(tq, out, "hf", ST_I2S_ASK, (st_recode){ 0 }, where);
    must_not(tq, out, "i2_s", ST_I2S_ASK, (st_recode){ 0 }, where);
    must_not(tq, out, "iq2_bn", ST_I2S_ASK, (st_recode){ 0 }, where);
    must(tq, out, "q2_0-128", ST_I2S_ASK, (st_recode){ .lossless = 1 });
    assert_int_equal(unlink(out), 0);
    must(tq, out, "hf-float", ST_I2S_ASK, (st_recode){ 0 });
    remove_tree(out);
    free(two);
    free(tq);
    free(out);
    drop_dir(tmp);
    drop_model(&m);
    drop_model(&odd);
}

/* A scale of 24 bits in a binary16: said, and refused where nothing may change. */
static void test_rounding(void **state)
{
    (void)state;
    model m;
    run r;
    make_model(&m, &shapes[2], 0, MASTER);
    char *tmp = temp_dir(), *out = join(tmp, "tq.gguf");
    must_not(m.dir, out, "tq2_0", ST_I2S_ASK, (st_recode){ .lossless = 1 }, (const char *[]){ "matrices with other scales", NULL });
    convert(&r, m.dir, out, "tq2_0", ST_I2S_ASK, (st_recode){ 0 });
    assert_int_equal(r.status, SETUN_OK);
    assert_non_null(strstr(r.report.text, "all equal"));
    assert_non_null(strstr(r.report.text, "scales: of 7 matrices, changed in"));
    const char *by = strstr(r.report.text, "by at most ");
    double most = by ? atof(by + strlen("by at most ")) : 1, want = 0;
    for (int i = 0; i < m.n_linear; i++) { /* the distance to the nearest of 11 bits, from its definition */
        int e;
        double f = frexp((double)m.linear[i].scale, &e), half = ldexp(rint(ldexp(f, 11)), e - 11);
        want = fmax(want, fabs(half - (double)m.linear[i].scale) / (double)m.linear[i].scale);
    }
    assert_true(want > 0 && fabs(most - want) < 0.01 * want);
    end(&r);
    free(out);
    drop_dir(tmp);
    drop_model(&m);
}

/* ---------------------------------------------------------------- nothing is left */

static int after(void *user, int64_t done, int64_t total)
{
    int64_t *left = user;
    assert_true(done >= 0 && done <= total);
    return (*left)-- <= 0;
}

static void test_cancelled(void **state)
{
    (void)state;
    static const char *const to[] = { "hf", "hf-float", "iq2_bn" };
    model m;
    make_model(&m, &shapes[2], 1, PACKED);
    char *tmp = temp_dir(), *out = join(tmp, "out");
    for (int k = 0; k < 3; k++) {
        int64_t calls = INT64_MAX, all = calls;
        run r;
        convert(&r, m.dir, out, to[k], ST_I2S_ASK, (st_recode){ .progress = after, .user = &calls });
        assert_int_equal(r.status, SETUN_OK);
        all -= calls;
        end(&r);
        if (st_is_dir(out))
            remove_tree(out);
        else
            assert_int_equal(unlink(out), 0);
        for (int64_t first = 0; first < all; first = 6 * first + 1 < all - 1 || first == all - 1 ? 6 * first + 1 : all - 1) {
            int64_t left = first; /* the last one is in the comparison */
            convert(&r, m.dir, out, to[k], ST_I2S_ASK, (st_recode){ .progress = after, .user = &left });
            assert_int_equal(r.status, SETUN_CANCELLED);
            assert_int_equal(entries(tmp), 0);
            end(&r);
        }
    }
    free(out);
    drop_dir(tmp);
    drop_model(&m);
}

static void test_replacing(void **state)
{
    (void)state;
    model m;
    make_model(&m, &shapes[2], 0, PACKED);
    char *tmp = temp_dir(), *out = join(tmp, "out"), *file = join(tmp, "x.gguf"), *here = join(tmp, "no/x");
    run r;
    int64_t left = 2;
    must(m.dir, out, "hf", ST_I2S_ASK, (st_recode){ 0 });
    convert(&r, m.dir, out, "hf", ST_I2S_ASK, (st_recode){ 0 });
    assert_true(r.status == SETUN_BAD_ARG && strstr(r.err.text, "exists"));
    end(&r);
    convert(&r, m.dir, out, "hf-float", ST_I2S_ASK, (st_recode){ .force = 1, .progress = after, .user = &left });
    assert_int_equal(r.status, SETUN_CANCELLED);
    end(&r);
    expect_hf(&m, out, 1); /* the old one is whole */
    must(m.dir, out, "hf-float", ST_I2S_ASK, (st_recode){ .force = 1 });
    expect_hf(&m, out, 0);
    must(out, out, "hf", ST_I2S_ASK, (st_recode){ .force = 1, .ternary = ST_FLOATS_EXACT }); /* in its own place */
    expect_hf(&m, out, 1);
    must(m.dir, file, "iq2_bn", ST_I2S_ASK, (st_recode){ 0 });
    must(file, file, "iq1_bn", ST_I2S_ASK, (st_recode){ .force = 1 });
    expect_gguf(&m, file, ST_I2S_ASK, "IQ1_BN");
    assert_int_equal(entries(tmp), 2);
    /* What is no model, or of the other kind, stays. */
    const struct { const char *out, *to, *says; } wrong[] = { { out, "iq1_bn", "is a directory" }, { file, "hf", "is a file" }, { tmp, "hf", "is not replaced" },
                                                             { here, "hf", "does not exist" }, { "", "hf", "empty name" } };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        convert(&r, m.dir, wrong[i].out, wrong[i].to, ST_I2S_ASK, (st_recode){ .force = 1 });
        if (r.status != SETUN_BAD_ARG || !strstr(r.err.text, wrong[i].says))
            fail_msg("%s", r.err.text);
        end(&r);
    }
    assert_int_equal(entries(tmp), 2);
    free(out);
    free(file);
    free(here);
    drop_dir(tmp);
    drop_model(&m);
}

/* A file system that takes no more: a child process with a limit on the size of files. */
static void test_no_room(void **state)
{
    (void)state;
    static const char *const to[] = { "hf", "iq2_bn" };
    model m;
    make_model(&m, &shapes[2], 0, PACKED);
    char *tmp = temp_dir(), *out = join(tmp, "out");
    for (int k = 0; k < 2; k++) {
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            const struct rlimit limit = { 65536, 65536 };
            run r;
            (void)signal(SIGXFSZ, SIG_IGN);
            (void)setrlimit(RLIMIT_FSIZE, &limit);
            convert(&r, m.dir, out, to[k], ST_I2S_ASK, (st_recode){ 0 });
            _exit(r.status == SETUN_IO && strstr(r.err.text, "larger than the system allows") ? 0 : 1);
        }
        int how = 0;
        assert_int_equal(waitpid(child, &how, 0), child);
        assert_int_equal(how, 0);
        assert_int_equal(entries(tmp), 0);
    }
    free(out);
    drop_dir(tmp);
    drop_model(&m);
}

/* ---------------------------------------------------------------- tokens */

#define SPACE "\xe2\x96\x81"

static const char *const pieces[] = { SPACE, "h", "e", "l", "o", "w", "r", "d", "he", "ll", "hell", "hello", SPACE "w", "or", SPACE "wor", "ld", SPACE "world" };
#define N_PIECES ((int)(sizeof pieces / sizeof *pieces))
#define FIRST_PIECE (3 + 256)

/* Tokens <unk>, <s>, </s>, the bytes, the pieces, and one more; no merge makes that one. */
static void put_tokenizer(const char *dir, const char *more)
{
    static const char *const merges[] = { "h e", "l l", "he ll", "hell o", SPACE " w", "o r", SPACE "w or", "l d", SPACE "wor ld" };
    st_str s = { 0 };
    st_str_add(&s, "{\"added_tokens\":[");
    for (int i = 0; i < 3; i++)
        st_str_addf(&s, "%s{\"id\":%d,\"content\":\"%s\",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,\"normalized\":false,"
                    "\"special\":true}", i ? "," : "", i, i == 0 ? "<unk>" : i == 1 ? "<s>" : "</s>");
    st_str_add(&s, "],\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":\"" SPACE "\"},"
               "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"" SPACE "\"}]},\"pre_tokenizer\":null,"
               "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<s>\",\"type_id\":0}},"
               "{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}],\"pair\":[],\"special_tokens\":{\"<s>\":{\"id\":\"<s>\",\"ids\":[1],"
               "\"tokens\":[\"<s>\"]}}},\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{\"String\":\""
               SPACE "\"},\"content\":\" \"},{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"},{\"type\":\"Strip\",\"content\":\" \","
               "\"start\":1,\"stop\":0}]},\"model\":{\"type\":\"BPE\",\"unk_token\":\"<unk>\",\"fuse_unk\":true,\"byte_fallback\":true,"
               "\"vocab\":{\"<unk>\":0,\"<s>\":1,\"</s>\":2");
    for (int i = 0; i < 256; i++)
        st_str_addf(&s, ",\"<0x%02X>\":%d", i, 3 + i);
    for (int i = 0; i < N_PIECES; i++)
        st_str_addf(&s, ",\"%s\":%d", pieces[i], FIRST_PIECE + i);
    if (more)
        st_str_addf(&s, ",\"%s\":%d", more, FIRST_PIECE + N_PIECES);
    st_str_add(&s, "},\"merges\":[");
    for (size_t i = 0; i < sizeof merges / sizeof *merges; i++)
        st_str_addf(&s, "%s\"%s\"", i ? "," : "", merges[i]);
    st_str_add(&s, "]}}");
    put_text(dir, "tokenizer.json", s.text);
    st_str_free(&s);
}

static void expect_tokens(const char *path)
{
    /* In bytes what has no token: 0x7A is z. */
    static const int32_t want[] = { 1, FIRST_PIECE, FIRST_PIECE + 11, FIRST_PIECE + 16, FIRST_PIECE, 3 + 0x7a };
    setun_error err = { 0 };
    st_tokenizer *t;
    int32_t *ids;
    int64_t n;
    if (st_tokenizer_open(&t, path, &err) != SETUN_OK)
        fail_msg("%s", err.text);
    assert_int_equal(st_tokenizer_encode(t, "hello world z", 13, ST_TOK_BOS, &ids, &n, &err), SETUN_OK);
    assert_int_equal(n, 6);
    assert_memory_equal(ids, want, sizeof want);
    free(ids);
    st_tokenizer_close(t);
}

/* A vocabulary over characters: merges become scores, and scores merges. */
static void test_characters(void **state)
{
    (void)state;
    model m;
    make_model(&m, &(sizes){ 64, 64, 1, 1, 64, FIRST_PIECE + N_PIECES + 2, 1 }, 1, PACKED);
    char *tmp = temp_dir(), *file = join(tmp, "x.gguf"), *back = join(tmp, "back");
    put_tokenizer(m.dir, "zz"); /* which is no two tokens: z has none */
    expect_tokens(m.dir);
    must(m.dir, file, "iq2_bn", ST_I2S_ASK, (st_recode){ .lossless = 1 });
    expect_tokens(file);
    must(file, back, "hf", ST_I2S_ASK, (st_recode){ .lossless = 1 });
    expect_tokens(back);
    remove_tree(back);
    /* "he" has score 0; as "ll" has it, too, a text settles which comes first. */
    patch(file, "tokenizer.ggml.scores", 4 * (FIRST_PIECE + 9), "\0\0\0\0", 4);
    must_not(file, back, "hf", ST_I2S_ASK, (st_recode){ 0 }, (const char *[]){ "tokens 267 and 268 have equal scores", NULL });
    assert_int_equal(unlink(file), 0);
    put_tokenizer(m.dir, "lo"); /* l and o: by scores they would be merged, by merges they are not */
    must_not(m.dir, file, "iq2_bn", ST_I2S_ASK, (st_recode){ 0 }, (const char *[]){ "token 276", "no merge lists", NULL });
    put_text(m.dir, "tokenizer.json", "{\"model\":{\"type\":\"Unigram\"}}");
    must_not(m.dir, file, "iq2_bn", ST_I2S_ASK, (st_recode){ 0 }, (const char *[]){ "the model is not BPE", NULL });
    free(file);
    free(back);
    drop_dir(tmp);
    drop_model(&m);
}

/* ---------------------------------------------------------------- memory */

/* 128 MB of floats, the largest tensor has 16 MB.  The system maps more of a file than is touched, as
 * much as it pleases, so that the limit is not close; all of the input would be beyond it. */
static void test_memory(void **state)
{
    (void)state;
#if !defined(SETUN_HARD)
    model m;
    make_model(&m, &(sizes){ 1024, 4096, 8, 8, 128, 8, 2 }, 1, FLOAT);
    char *tmp = temp_dir(), *out = join(tmp, "out");
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        run r;
        struct rusage before, now;
        (void)getrusage(RUSAGE_SELF, &before);
        convert(&r, m.dir, out, "hf", ST_I2S_ASK, (st_recode){ .ternary = ST_FLOATS_EXACT });
        (void)getrusage(RUSAGE_SELF, &now);
        _exit(r.status == SETUN_OK && now.ru_maxrss - before.ru_maxrss < 112 * 1024 ? 0 : 1);
    }
    int how = 0;
    assert_int_equal(waitpid(child, &how, 0), child);
    assert_int_equal(how, 0);
    expect_hf(&m, out, 1);
    free(out);
    drop_dir(tmp);
    drop_model(&m);
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memory),    cmocka_unit_test(test_round_trips), cmocka_unit_test(test_floats), cmocka_unit_test(test_masters),
        cmocka_unit_test(test_refusals),  cmocka_unit_test(test_rounding),    cmocka_unit_test(test_cancelled),
        cmocka_unit_test(test_replacing), cmocka_unit_test(test_no_room),     cmocka_unit_test(test_characters),
        cmocka_unit_test(test_groups),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
