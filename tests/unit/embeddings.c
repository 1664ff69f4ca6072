/* tests/unit/embeddings.c -- text embedding models, and matrices folded with a rotation, against a reference.
 *
 * As in architectures.c: a small checkpoint is written in the published layout, and what Setun makes of it
 * is compared with a forward pass in double precision that shares no code with it.  For the rotated
 * model the reference knows nothing of rotations: it computes with the matrices as they were before the
 * writer folded them, by the matrix of Hadamard written out, not by a fast transform. */
#include <math.h>
#include <sys/stat.h>

#include "runtime/texts.h"
#include "setun/setun.h"
#include "tests/unit/files.h"

#define V 1031 /* at least the tokenizer's 1024 */
#define TOKENS 9
#define MAX_D 96
#define MAX_FFN 160
#define LAYERS 2
#define LIMIT 1e-5

typedef struct spec {
    const char *name, *architecture, *extra;
    int         gemma, norm_in, bare; /* bare: names without "model." */
    int64_t     d, heads, kv, hd, ffn, block;
    int64_t     modules; /* index into modules below, or -1 */
} spec;

#define QWEN "\"hidden_act\":\"silu\",\"rope_theta\":1e6,\"max_window_layers\":2,\"use_sliding_window\":false"
#define GEMMA "\"hidden_activation\":\"gelu_pytorch_tanh\",\"query_pre_attn_scalar\":21,\"sliding_window\":4,\"rope_theta\":1e6," \
              "\"rope_local_base_freq\":1e4,\"sliding_window_pattern\":2"
#define SIGNED "\"prism\":{\"hadamard\":{\"version\":1,\"transform\":\"normalized-sylvester-walsh-hadamard\"," \
               "\"axis\":\"input-last-dimension\","

static const spec qwen = {"Qwen3 embedding", "Qwen3ForCausalLM", QWEN, 0, 1, 0, 72, 4, 2, 16, 100, 0, 0};
static const spec bare = {"Qwen3 embedding, bare", "Qwen3Model", QWEN, 0, 1, 1, 72, 4, 2, 22, 100, 0, -1};
static const spec gemma = {"Gemma 3 embedding", "Gemma3TextModel", GEMMA, 1, 1, 1, 60, 4, 1, 18, 99, 0, 1};
static const spec gemma_whole = {"Gemma 3 embedding", "Gemma3ForCausalLM", GEMMA, 1, 1, 0, 60, 4, 1, 18, 99, 0, -1};
static const spec rotated = {"rotated Qwen3", "Qwen3ForCausalLM", QWEN, 0, 0, 0, 64, 4, 2, 16, 96, 32, -1};
static const spec rotated_2 = {"rotated Qwen3, no signs", "Qwen3ForCausalLM", QWEN, 0, 0, 0, 48, 3, 1, 16, 80, 16, -1};

static const struct { const char *list, *pooling; } modules[] = {
    {"[{\"idx\":0,\"name\":\"0\",\"path\":\"\",\"type\":\"sentence_transformers.models.Transformer\"},"
     "{\"idx\":1,\"name\":\"1\",\"path\":\"1_Pooling\",\"type\":\"sentence_transformers.models.Pooling\"},"
     "{\"idx\":2,\"name\":\"2\",\"path\":\"2_Normalize\",\"type\":\"sentence_transformers.models.Normalize\"}]",
     "{\"word_embedding_dimension\":72,\"pooling_mode_cls_token\":false,\"pooling_mode_mean_tokens\":false,"
     "\"pooling_mode_max_tokens\":false,\"pooling_mode_lasttoken\":true,\"include_prompt\":true}"},
    {"[{\"idx\":0,\"name\":\"0\",\"path\":\"\",\"type\":\"x.Transformer\"},{\"idx\":1,\"name\":\"1\",\"path\":\"1_P\",\"type\":\"x.Pooling\"}]",
     "{\"embedding_dimension\":60,\"pooling_mode\":\"mean\"}"},
};

/* What a test changes, so that the model is no longer right. */
typedef struct wrong {
    const char *drop, *add, *from, *to; /* a tensor's end; a tensor; in config.json */
    const char *list, *pooling;         /* modules.json and its pooling */
    const char *says;
} wrong;

typedef struct tensor {
    char    name[96];
    int64_t rows, cols;
    double *v, scale; /* as the model computes with it; scale > 0: v is ternary, and inputs become int8 */
} tensor;

typedef struct model {
    const spec  *s;
    const wrong *w;
    tensor       t[48];
    int          n;
    uint64_t     seed;
    int          sign[MAX_FFN + MAX_D + MAX_D]; /* of width d, heads * hd, ffn, one behind the other */
    maker        out;
} model;

/* ---------------------------------------------------------------- writing */

static int ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

static const int *signs(const model *m, int64_t width)
{
    return m->sign + (width == m->s->d ? 0 : MAX_D);
}

/* H (sign * w) / sqrt(block) by the definition of H. */
static void fold(const model *m, const double *w, int64_t n, double *out)
{
    int64_t b = m->s->block;
    for (int64_t i = 0; i < n; i++) {
        out[i] = 0;
        for (int64_t j = i / b * b; j < (i / b + 1) * b; j++)
            out[i] += (__builtin_popcountll((unsigned long long)(i % b & j % b)) % 2 ? -1 : 1) * signs(m, n)[j] * w[j];
        out[i] /= sqrt((double)b);
    }
}

static tensor *add(model *m, int layer, const char *name, int64_t rows, int64_t cols, double size, double middle)
{
    tensor *t = &m->t[m->n++];
    st_str bytes = {0};
    char full[160], shape[64];
    double folded[MAX_FFN];
    assert_true(m->n <= 48);
    if (layer < 0)
        (void)snprintf(t->name, sizeof t->name, "%s.weight", name);
    else
        (void)snprintf(t->name, sizeof t->name, "layers.%d.%s.weight", layer, name);
    t->rows = rows;
    t->cols = cols;
    int64_t width = cols ? cols : 1;
    t->v = calloc((size_t)(rows * width), sizeof *t->v);
    assert_non_null(t->v);
    for (int64_t r = 0; r < rows; r++) {
        double *row = t->v + r * width;
        for (int64_t i = 0; i < width; i++)
            row[i] = (double)(float)(middle + size * ((double)next_random(&m->seed) / 2147483648.0 - 1));
        if (cols && m->s->block)
            fold(m, row, cols, folded);
        for (int64_t i = 0; i < width; i++) {
            float x = (float)(cols && m->s->block ? folded[i] : row[i]);
            st_str_addn(&bytes, &x, sizeof x); /* tests run on little-endian machines */
        }
    }
    (void)snprintf(full, sizeof full, "%s%s", m->s->bare ? "" : "model.", t->name);
    (void)snprintf(shape, sizeof shape, cols ? "[%d,%d]" : "[%d]", (int)rows, (int)cols);
    if (!m->w || !m->w->drop || !ends_with(full, m->w->drop))
        make_tensor(&m->out, full, "F32", shape, bytes.text, bytes.len);
    st_str_free(&bytes);
    return t;
}

static void linear(model *m, int layer, const char *name, int64_t rows, int64_t cols)
{
    char norm[64];
    tensor *t = add(m, layer, name, rows, cols, sqrt(3.0 / (double)cols), 0);
    if (!m->s->norm_in)
        return;
    for (int64_t i = 0; i < rows * cols; i++)
        t->scale += fabs(t->v[i]) / (double)(rows * cols);
    for (int64_t i = 0; i < rows * cols; i++)
        t->v[i] = fmax(-1, fmin(1, rint(t->v[i] / t->scale)));
    (void)snprintf(norm, sizeof norm, "%s.norm", name);
    (void)add(m, layer, norm, cols, 0, 0.4, 1);
}

static void write_signs(const model *m, st_str *t)
{
    const spec *s = m->s;
    const int64_t width[2] = {s->d, s->ffn};
    static const char *const names[] = {"attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"};
    assert_true(s->heads * s->hd == s->d);
    st_str_addf(t, "," SIGNED "\"block_size\":%d,", (int)s->block);
    if (s == &rotated_2) {
        st_str_addf(t, "\"sign_mode\":\"identity\"");
    } else {
        st_str_addf(t, "\"sign_mode\":\"explicit\",\"sign_widths\":[%d,%d],\"sign_values\":[", (int)width[0], (int)width[1]);
        for (int k = 0; k < 2; k++)
            for (int64_t i = 0; i < width[k]; i++)
                st_str_addf(t, "%s%d", k + i ? "," : "", signs(m, width[k])[i]);
        st_str_addf(t, "]");
    }
    st_str_addf(t, ",\"inverse_weight_names\":[\"token_embd.weight\"],\"weight_names\":[\"token_embd.weight\"");
    for (int l = 0; l < LAYERS; l++)
        for (int i = 0; i < 7; i++)
            st_str_addf(t, ",\"blk.%d.%s.weight\"", l, names[i]);
    st_str_addf(t, "]}}");
}

static void write_config(const model *m, const char *dir)
{
    const spec *s = m->s;
    st_str t = {0}, changed = {0};
    st_str_addf(&t, "{\"architectures\":[\"%s\"],\"hidden_size\":%d,\"intermediate_size\":%d,\"num_hidden_layers\":%d,"
                "\"num_attention_heads\":%d,\"num_key_value_heads\":%d,\"head_dim\":%d,\"rms_norm_eps\":1e-6,"
                "\"tie_word_embeddings\":true,\"vocab_size\":%d,\"max_position_embeddings\":64,%s",
                s->architecture, (int)s->d, (int)s->ffn, LAYERS, (int)s->heads, (int)s->kv, (int)s->hd, V, s->extra);
    if (s->block)
        write_signs(m, &t);
    st_str_addf(&t, "}");
    char *at = m->w && m->w->from ? strstr(t.text, m->w->from) : NULL;
    if (m->w && m->w->from)
        assert_non_null(at);
    if (at) {
        st_str_addn(&changed, t.text, (size_t)(at - t.text));
        st_str_addf(&changed, "%s%s", m->w->to, at + strlen(m->w->from));
    }
    put_text(dir, "config.json", at ? changed.text : t.text);
    st_str_free(&t);
    st_str_free(&changed);
}

static void write_modules(const char *dir, const char *list, const char *pooling)
{
    put_text(dir, "modules.json", list);
    for (int i = 0; i < 2 && pooling; i++) {
        char *sub = join(dir, i ? "1_P" : "1_Pooling");
        (void)mkdir(sub, 0700);
        put_text(sub, "config.json", pooling);
        free(sub);
    }
}

static model *write_model(const spec *s, const wrong *w, const char *dir)
{
    model *m = calloc(1, sizeof *m);
    char *text;
    int64_t n;
    assert_non_null(m);
    m->s = s;
    m->w = w;
    m->seed = 77;
    for (size_t i = 0; i < sizeof m->sign / sizeof *m->sign; i++)
        m->sign[i] = s == &rotated_2 || next_random(&m->seed) & 1024 ? 1 : -1;
    (void)add(m, -1, "embed_tokens", V, s->d, 1, 0);
    for (int l = 0; l < LAYERS; l++) {
        double one = s->gemma ? 0 : 1;
        (void)add(m, l, "input_layernorm", s->d, 0, 0.5, one);
        linear(m, l, "self_attn.q_proj", s->heads * s->hd, s->d);
        linear(m, l, "self_attn.k_proj", s->kv * s->hd, s->d);
        linear(m, l, "self_attn.v_proj", s->kv * s->hd, s->d);
        linear(m, l, "self_attn.o_proj", s->d, s->heads * s->hd);
        (void)add(m, l, "self_attn.q_norm", s->hd, 0, 0.6, one);
        (void)add(m, l, "self_attn.k_norm", s->hd, 0, 0.6, one);
        (void)add(m, l, "post_attention_layernorm", s->d, 0, 0.5, one);
        if (s->gemma) {
            (void)add(m, l, "pre_feedforward_layernorm", s->d, 0, 0.5, 0);
            (void)add(m, l, "post_feedforward_layernorm", s->d, 0, 0.5, 0);
        }
        linear(m, l, "mlp.gate_proj", s->ffn, s->d);
        linear(m, l, "mlp.up_proj", s->ffn, s->d);
        linear(m, l, "mlp.down_proj", s->d, s->ffn);
    }
    (void)add(m, -1, "norm", s->d, 0, 0.5, s->gemma ? 0 : 1);
    if (w && w->add)
        (void)add(m, -1, w->add, s->d, 0, 1, 1);
    make_file(&m->out, dir, "model.safetensors");
    write_config(m, dir);
    if (w && w->list)
        write_modules(dir, w->list, w->pooling);
    else if (s->modules >= 0)
        write_modules(dir, modules[s->modules].list, modules[s->modules].pooling);
    assert_int_equal(st_file_read(SETUN_SOURCE_DIR "/tests/models/shakespeare/tokenizer.json", 1 << 20, &text, &n, NULL), SETUN_OK);
    put_file(dir, "tokenizer.json", text, (size_t)n);
    free(text);
    return m;
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
    char full[120];
    if (layer < 0)
        (void)snprintf(full, sizeof full, "%s.weight", name);
    else
        (void)snprintf(full, sizeof full, "layers.%d.%s.weight", layer, name);
    for (int i = 0; i < m->n; i++)
        if (strcmp(m->t[i].name, full) == 0)
            return &m->t[i];
    fail_msg("the test has no tensor %s", full);
    return NULL;
}

/* plus: 1 where the gain is stored less 1. */
static void normalise(const tensor *w, double plus, const double *x, double *y)
{
    double sum = 0;
    for (int64_t i = 0; i < w->rows; i++)
        sum += x[i] * x[i];
    for (int64_t i = 0; i < w->rows; i++)
        y[i] = x[i] / sqrt(sum / (double)w->rows + 1e-6) * (w->v[i] + plus);
}

static void product(const model *m, int layer, const char *name, const double *x, double *y)
{
    const tensor *w = get(m, layer, name);
    double q[MAX_FFN], a = 1e-5;
    char norm[64];
    memcpy(q, x, (size_t)w->cols * sizeof *q);
    if (m->s->norm_in) {
        (void)snprintf(norm, sizeof norm, "%s.norm", name);
        normalise(get(m, layer, norm), 0, x, q);
        for (int64_t i = 0; i < w->cols; i++)
            a = fmax(a, fabs(q[i]));
        for (int64_t i = 0; i < w->cols; i++)
            q[i] = rint(q[i] * 127 / a);
    }
    for (int64_t r = 0; r < w->rows; r++) {
        y[r] = 0;
        for (int64_t i = 0; i < w->cols; i++)
            y[r] += w->v[r * w->cols + i] * q[i];
        y[r] *= m->s->norm_in ? a / 127 * w->scale : 1;
    }
}

/* Queries or keys: normalised head by head, then turned, element i with element i + hd / 2. */
static void turn(const model *m, int l, const char *norm, double theta, int64_t heads, int pos, double *y)
{
    int64_t hd = m->s->hd;
    for (int64_t h = 0; h < heads; h++, y += hd) {
        normalise(get(m, l, norm), m->s->gemma, y, y);
        for (int64_t i = 0; i < hd / 2; i++) {
            double f = pow(theta, -2.0 * (double)i / (double)hd) * pos, p = y[i], q = y[i + hd / 2];
            y[i] = p * cos(f) - q * sin(f);
            y[i + hd / 2] = q * cos(f) + p * sin(f);
        }
    }
}

typedef struct run {
    double x[TOKENS][MAX_D], k[LAYERS][TOKENS][MAX_D], v[LAYERS][TOKENS][MAX_D];
    double h[MAX_FFN], q[MAX_FFN], o[MAX_FFN], gate[MAX_FFN], up[MAX_FFN];
} run;

static void attend(const model *m, run *r, int l, int pos)
{
    const spec *s = m->s;
    double e[TOKENS];
    int first = s->gemma && l == 0 && pos > 3 ? pos - 3 : 0; /* a window of 4 */
    for (int64_t h = 0; h < s->heads; h++) {
        int64_t from = h / (s->heads / s->kv) * s->hd;
        double z = 0;
        for (int j = first; j <= pos; j++) {
            double dot = 0;
            for (int64_t i = 0; i < s->hd; i++)
                dot += r->q[h * s->hd + i] * r->k[l][j][from + i];
            z += e[j] = exp(dot / sqrt(s->gemma ? 21.0 : (double)s->hd));
        }
        for (int64_t i = 0; i < s->hd; i++) {
            r->o[h * s->hd + i] = 0;
            for (int j = first; j <= pos; j++)
                r->o[h * s->hd + i] += e[j] / z * r->v[l][j][from + i];
        }
    }
}

static void layer(const model *m, run *r, int l, int pos)
{
    const spec *s = m->s;
    double *x = r->x[pos], theta = s->gemma && l == 0 ? 1e4 : 1e6, plus = s->gemma;
    normalise(get(m, l, "input_layernorm"), plus, x, r->h);
    product(m, l, "self_attn.q_proj", r->h, r->q);
    product(m, l, "self_attn.k_proj", r->h, r->k[l][pos]);
    product(m, l, "self_attn.v_proj", r->h, r->v[l][pos]);
    turn(m, l, "self_attn.q_norm", theta, s->heads, pos, r->q);
    turn(m, l, "self_attn.k_norm", theta, s->kv, pos, r->k[l][pos]);
    attend(m, r, l, pos);
    product(m, l, "self_attn.o_proj", r->o, r->h);
    if (s->gemma)
        normalise(get(m, l, "post_attention_layernorm"), 1, r->h, r->h);
    for (int64_t i = 0; i < s->d; i++)
        x[i] += r->h[i];
    normalise(get(m, l, s->gemma ? "pre_feedforward_layernorm" : "post_attention_layernorm"), plus, x, r->h);
    product(m, l, "mlp.gate_proj", r->h, r->gate);
    product(m, l, "mlp.up_proj", r->h, r->up);
    for (int64_t i = 0; i < s->ffn; i++) {
        double g = r->gate[i];
        r->gate[i] = r->up[i] * (s->gemma ? g / 2 * (1 + tanh(sqrt(2 / 3.14159265358979323846) * (g + 0.044715 * g * g * g)))
                                          : g / (1 + exp(-g)));
    }
    product(m, l, "mlp.down_proj", r->gate, r->h);
    if (s->gemma)
        normalise(get(m, l, "post_feedforward_layernorm"), 1, r->h, r->h);
    for (int64_t i = 0; i < s->d; i++)
        x[i] += r->h[i];
}

/* The state of every token after the last norm. */
static void forward(const model *m, const int32_t *tokens, int n, double *states)
{
    const tensor *table = get(m, -1, "embed_tokens");
    run *r = calloc(1, sizeof *r);
    assert_non_null(r);
    for (int t = 0; t < n; t++) {
        for (int64_t i = 0; i < m->s->d; i++)
            r->x[t][i] = table->v[tokens[t] * m->s->d + i] * (m->s->gemma ? sqrt((double)m->s->d) : 1);
        for (int l = 0; l < LAYERS; l++)
            layer(m, r, l, t);
        normalise(get(m, -1, "norm"), m->s->gemma, r->x[t], states + t * m->s->d);
    }
    free(r);
}

/* ---------------------------------------------------------------- tests */

static setun_status load(setun_model **m, const char *dir, int64_t batch, int64_t outputs, setun_error *err)
{
    setun_options o;
    setun_options_init(&o);
    o.kv = "f32";
    o.n_threads = 1;
    o.interpret = 1; /* compiling is what takes the time */
    o.n_batch = batch;
    o.n_outputs = outputs;
    return setun_model_load(m, dir, &o, err);
}

static const int32_t tokens[TOKENS] = {1021, 870, 1030, 79, 44, 441, 0, 268, 1029};

static void pool(const spec *s, const double *states, int n, int how, int raw, int64_t dim, double *out)
{
    double length = 0;
    for (int64_t i = 0; i < dim; i++) {
        out[i] = states[(how == SETUN_POOL_CLS ? 0 : n - 1) * s->d + i];
        if (how != SETUN_POOL_MEAN)
            continue;
        out[i] = 0;
        for (int t = 0; t < n; t++)
            out[i] += states[t * s->d + i] / n;
    }
    for (int64_t i = 0; i < dim; i++)
        length += out[i] * out[i];
    for (int64_t i = 0; i < dim && !raw; i++)
        out[i] /= sqrt(length);
}

static double distance(const float *got, const double *want, int64_t n)
{
    double difference = 0, square = 0;
    for (int64_t i = 0; i < n; i++) {
        assert_true(isfinite(got[i]));
        difference += ((double)got[i] - want[i]) * ((double)got[i] - want[i]);
        square += want[i] * want[i];
    }
    return sqrt(difference / square);
}

/* Every way of pooling, of texts of several lengths, cut into chunks of several sizes; all texts at once have the
 * bits that each has alone. */
static void try_vectors(const spec *s, const char *dir, const model *m, int64_t batch, int64_t outputs)
{
    static const int64_t length[] = {TOKENS, 1, 4, 7};
    const int32_t *text[] = {tokens, tokens + 3, tokens + 5, tokens + 1};
    setun_model *loaded;
    setun_session *session = NULL;
    setun_error err = {0};
    double states[TOKENS * MAX_D], want[MAX_D], worst = 0;
    float all[4 * MAX_D], one[MAX_D];
    if (load(&loaded, dir, batch, outputs, &err) != SETUN_OK || setun_session_new(&session, loaded, &err) != SETUN_OK)
        fail_msg("%s: %s", s->name, err.text);
    assert_int_equal(setun_model_n_vocab(loaded), V);
    assert_int_equal(setun_model_n_embedding(loaded), s->d);
    assert_int_equal(setun_model_has_logits(loaded), 0);
    assert_int_equal(setun_model_pooling(loaded), s->modules == 1 ? SETUN_POOL_MEAN : SETUN_POOL_LAST);
    for (int how = SETUN_POOL_MODEL; how <= SETUN_POOL_CLS; how++)
        for (int norm = SETUN_NORM_MODEL; norm <= SETUN_NORM_RAW; norm++) {
            setun_embedding e = {sizeof e, how, norm, how == SETUN_POOL_CLS ? 17 : 0};
            int64_t dim = e.dim ? e.dim : s->d;
            int raw = norm == SETUN_NORM_RAW || (norm == SETUN_NORM_MODEL && s->modules == 1);
            assert_int_equal(setun_session_embed(session, text, length, 4, &e, all, &err), SETUN_OK);
            assert_int_equal(setun_session_position(session), 0);
            for (int i = 0; i < 4; i++) {
                forward(m, text[i], (int)length[i], states);
                pool(s, states, (int)length[i], how ? how : setun_model_pooling(loaded), raw, dim, want);
                worst = fmax(worst, distance(all + i * dim, want, dim));
                assert_int_equal(setun_session_embed(session, &text[i], &length[i], 1, &e, one, &err), SETUN_OK);
                assert_memory_equal(one, all + i * dim, (size_t)dim * sizeof(float));
            }
        }
    print_message("  %-22s chunks of %d: vectors differ by at most %.1e of their size\n", s->name, (int)batch, worst);
    assert_true(worst <= LIMIT);
    setun_session_free(session);
    setun_model_free(loaded);
}

static void test_vectors(void **state)
{
    static const spec *const all[] = {&qwen, &bare, &gemma, &gemma_whole};
    (void)state;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        char *dir = temp_dir();
        model *m = write_model(all[i], NULL, dir);
        try_vectors(all[i], dir, m, 64, 64);
        try_vectors(all[i], dir, m, 4, 1);
        drop_dir(dir);
        drop_model(m);
    }
}

static void test_rotated(void **state)
{
    static const spec *const all[] = {&rotated, &rotated_2};
    double states[TOKENS * MAX_D], *want = calloc(TOKENS * V, sizeof *want);
    (void)state;
    assert_non_null(want);
    for (size_t i = 0; i < 2; i++) {
        char *dir = temp_dir();
        model *m = write_model(all[i], NULL, dir);
        setun_model *loaded;
        setun_session *s = NULL;
        setun_error err = {0};
        const float *logits;
        forward(m, tokens, TOKENS, states);
        for (int t = 0; t < TOKENS; t++)
            product(m, -1, "embed_tokens", states + t * all[i]->d, want + t * V);
        if (load(&loaded, dir, 64, TOKENS, &err) != SETUN_OK || setun_session_new(&s, loaded, &err) != SETUN_OK)
            fail_msg("%s: %s", all[i]->name, err.text);
        assert_int_equal(setun_session_feed(s, tokens, TOKENS, SETUN_LOGITS_ALL, &logits, &err), SETUN_OK);
        double far = distance(logits, want, TOKENS * V);
        print_message("  %-22s logits differ by %.1e of their size\n", all[i]->name, far);
        assert_true(far <= LIMIT);
        setun_session_free(s);
        setun_model_free(loaded);
        drop_dir(dir);
        drop_model(m);
    }
    free(want);
}

#define MODULE(type, path) "{\"type\":\"x." type "\",\"path\":\"" path "\"}"
#define TWO "[" MODULE("Transformer", "") "," MODULE("Pooling", "1_P") "]"
static const struct { const spec *s; wrong w; } wrongs[] = {
    {&qwen, {"1.mlp.up_proj.norm.weight", 0, 0, 0, 0, 0, "tensor model.layers.1.mlp.up_proj.norm.weight is missing"}},
    {&qwen, {0, "lm_head", 0, 0, 0, 0, "does not use 1 tensor: model.lm_head.weight"}},
    {&bare, {"q_proj.norm.weight", 0, 0, 0, 0, 0, "; bitnet_embedding_qwen3.lua is for models with blk.0.attn_q_norm_in"}},
    {&qwen, {"0.self_attn.q_proj.norm.weight", 0, 0, 0, 0, 0, "does not use 13 tensors"}},
    {&gemma, {"post_feedforward_layernorm.weight", 0, 0, 0, 0, 0, "post_feedforward_layernorm.weight is missing"}},
    {&qwen, {0, 0, "\"silu\"", "\"relu2\"", 0, 0, "hidden_act is 'relu2', but this script computes only silu"}},
    {&rotated, {0, 0, "\"version\":1", "\"version\":2", 0, 0, "prism.hadamard.version is 2, but this script computes only 1"}},
    {&rotated, {0, 0, "input-last", "input-first", 0, 0, "prism.hadamard.axis is 'input-first-dimension'"}},
    {&rotated, {0, 0, "sylvester-walsh", "other", 0, 0, "prism.hadamard.transform is 'normalized-other-hadamard'"}},
    {&rotated, {0, 0, "\"block_size\":32", "\"block_size\":48", 0, 0, "block is 48, wants a power of two"}},
    {&rotated, {0, 0, "\"block_size\":32", "\"block_size\":64", 0, 0, "rows of 96 elements are not whole blocks of 64"}},
    {&rotated, {0, 0, "\"explicit\"", "\"random\"", 0, 0, "prism.hadamard.sign_mode is 'random'"}},
    {&rotated, {0, 0, "\"sign_values\":[", "\"sign_values\":[0,", 0, 0, "sign_values.1 is 0, not 1 or -1"}},
    {&rotated, {0, 0, "\"sign_values\":[", "\"sign_values\":[1,", 0, 0, "sign_values has more numbers than sign_widths (160 in all)"}},
    {&rotated, {0, 0, "\"sign_widths\":[64,96]", "\"sign_widths\":[64]", 0, 0, "sign_values has more numbers than sign_widths (64 in all)"}},
    {&rotated, {0, 0, "\"blk.1.ffn_up.weight\"", "\"blk.1.ssm_out.weight\"", 0, 0, "weight_names has blk.1.ssm_out.weight, which this model does not multiply with"}},
    {&rotated, {0, 0, "\"inverse_weight_names\":[", "\"inverse_weight_names\":[\"output.weight\",", 0, 0, "inverse_weight_names has output.weight"}},
    {&rotated, {0, 0, "\"version\":1", "\"version\":1,\"gdn_v_grouped\":1", 0, 0, "prism.hadamard.gdn_v_grouped is 1, but this script computes only 0"}},
    {&rotated, {0, 0, "\"version\":1", "\"version\":1,\"twist\":3", 0, 0, "key 'prism.hadamard.twist' = 3 is not understood by qwen3_hadamard.lua"}},
    {&qwen, {0, 0, 0, 0, "[" MODULE("Transformer", "") "," MODULE("Pooling", "1_P") "," MODULE("Dense", "2_Dense") "]",
             "{\"pooling_mode\":\"mean\"}", "module 2 is x.Dense; Setun knows a Transformer, then Pooling"}},
    {&qwen, {0, 0, 0, 0, TWO, "{\"pooling_mode_lasttoken\":true,\"pooling_mode_cls_token\":true}", "two ways of pooling together, last and cls"}},
    {&qwen, {0, 0, 0, 0, TWO, "{\"pooling_mode_max_tokens\":true}", "pooling_mode_max_tokens is not known to Setun"}},
    {&qwen, {0, 0, 0, 0, TWO, "{\"pooling_mode\":\"max\"}", "pooling_mode max is not known to Setun"}},
    {&qwen, {0, 0, 0, 0, TWO, "{\"pooling_mode\":\"mean\",\"include_prompt\":false}", "include_prompt is not true"}},
    {&qwen, {0, 0, 0, 0, TWO, "{\"pooling_mode_cls_token\":false}", "names no way of pooling"}},
    {&qwen, {0, 0, 0, 0, TWO, "[1]", "1_P/config.json: not a JSON object"}},
    {&qwen, {0, 0, 0, 0, "{}", 0, "not a list of a Transformer and a Pooling module"}},
    {&qwen, {0, 0, 0, 0, "[" MODULE("Transformer", "") "," MODULE("Pooling", "../1_P") "]", 0, "module 1 cannot be in '../1_P'"}},
    {&qwen, {0, 0, 0, 0, "[{\"type\":\"x.Transformer\"}]", 0, "a module without type or path"}},
    {&qwen, {0, 0, 0, 0, "[", 0, "modules.json: not valid JSON"}},
};

static void test_refusals(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof wrongs / sizeof *wrongs; i++) {
        char *dir = temp_dir();
        model *m = write_model(wrongs[i].s, &wrongs[i].w, dir);
        setun_model *loaded = NULL;
        setun_error err = {0};
        if (load(&loaded, dir, 64, 1, &err) == SETUN_OK)
            fail_msg("loaded, but wants: %s", wrongs[i].w.says);
        if (!strstr(err.text, wrongs[i].w.says))
            fail_msg("gives: %s\n  wants: %s", err.text, wrongs[i].w.says);
        drop_dir(dir);
        drop_model(m);
    }
}

/* What cannot be asked of a model that makes embeddings, and of one that does not. */
static void test_questions(void **state)
{
    char *dir = temp_dir();
    model *m = write_model(&qwen, NULL, dir);
    setun_model *loaded;
    setun_session *s;
    setun_error err = {0};
    float v[MAX_D];
    const float *logits;
    const int32_t *text = tokens, outside = V, *bad = &outside;
    int64_t n = 3, none = 0, one = 1, many = 65;
    (void)state;
    assert_int_equal(load(&loaded, dir, 64, 1, &err), SETUN_OK);
    assert_int_equal(setun_session_new(&s, loaded, &err), SETUN_OK);
    assert_int_equal(setun_session_feed(s, tokens, 3, SETUN_LOGITS_LAST, &logits, &err), SETUN_BAD_ARG);
    assert_non_null(strstr(err.text, "makes embeddings of texts (setun embed); it predicts no tokens"));
    assert_int_equal(setun_session_feed(s, tokens, 3, SETUN_LOGITS_TOP, &logits, &err), SETUN_BAD_ARG);
    assert_int_equal(setun_session_feed(s, tokens, 3, SETUN_LOGITS_NONE, NULL, &err), SETUN_OK);
    assert_int_equal(setun_session_embed(s, &text, &n, 1, NULL, v, &err), SETUN_OK);
    assert_int_equal(setun_session_embed(s, &text, &none, 1, NULL, v, &err), SETUN_BAD_ARG);
    assert_int_equal(setun_session_embed(s, &text, &many, 1, NULL, v, &err), SETUN_FULL);
    assert_int_equal(setun_session_embed(s, &bad, &one, 1, NULL, v, &err), SETUN_BAD_ARG);
    assert_int_equal(setun_session_embed(s, &text, &n, 1, &(setun_embedding){sizeof(setun_embedding), 4, 0, 0}, v, &err), SETUN_BAD_ARG);
    assert_int_equal(setun_session_embed(s, &text, &n, 1, &(setun_embedding){sizeof(setun_embedding), 0, 3, 0}, v, &err), SETUN_BAD_ARG);
    assert_int_equal(setun_session_embed(s, &text, &n, 1, &(setun_embedding){sizeof(setun_embedding), 0, 0, 73}, v, &err), SETUN_BAD_ARG);
    assert_non_null(strstr(err.text, "73 columns wanted of a vector of 72"));
    setun_batch *b;
    setun_session *other, *both[2] = {s, NULL};
    const int32_t two[2] = {1, 2};
    assert_int_equal(setun_session_new(&other, loaded, &err), SETUN_OK);
    both[1] = other;
    assert_int_equal(setun_batch_new(&b, loaded, both, 2, &err), SETUN_OK);
    assert_int_equal(setun_batch_step(b, two, SETUN_LOGITS_LAST, NULL, &err), SETUN_BAD_ARG);
    assert_int_equal(setun_batch_step(b, two, SETUN_LOGITS_NONE, NULL, &err), SETUN_OK);
    setun_batch_free(b);
    setun_session_free(other);
    setun_session_free(s);
    setun_model_free(loaded);
    drop_dir(dir);
    drop_model(m);
    assert_int_equal(load(&loaded, SETUN_SOURCE_DIR "/tests/models/shakespeare", 64, 1, &err), SETUN_OK);
    assert_int_equal(setun_session_new(&s, loaded, &err), SETUN_OK);
    assert_int_equal(setun_model_has_logits(loaded), 1);
    assert_int_equal(setun_session_embed(s, &text, &n, 1, NULL, v, &err), SETUN_BAD_ARG);
    assert_non_null(strstr(err.text, "makes no embeddings"));
    setun_session_free(s);
    setun_model_free(loaded);
}

/* Texts do go together where rows are whole lines of memory, and are fed one by one where they are not: the
 * vectors, which test_vectors compares, do not show it. */
static void test_together(void **state)
{
    static const spec *const all[] = {&qwen, &bare};
    (void)state;
    for (int i = 0; i < 2; i++) {
        char *dir = temp_dir();
        model *m = write_model(all[i], NULL, dir);
        setun_model *loaded;
        setun_session *s;
        setun_error err = {0};
        const st_text text[3] = {{tokens, 5, 0}, {tokens + 2, 1, 5}, {tokens + 4, 4, 6}};
        const float *rows;
        float one[3][MAX_D];
        const setun_embedding e = {sizeof e, SETUN_POOL_LAST, SETUN_NORM_RAW, 0};
        assert_int_equal(load(&loaded, dir, 16, 16, &err), SETUN_OK);
        assert_int_equal(setun_session_new(&s, loaded, &err), SETUN_OK);
        for (int t = 0; t < 3; t++)
            assert_int_equal(setun_session_embed(s, &text[t].token, &text[t].n, 1, &e, one[t], &err), SETUN_OK);
        s->outputs[0] = 4;
        s->outputs[1] = 5;
        s->outputs[2] = 9;
        assert_int_equal(st_texts_run(s, text, 3, 3, &rows, &err), i ? SETUN_DECLINED : SETUN_OK);
        for (int t = 0; t < 3 && i == 0; t++)
            assert_memory_equal(rows + t * all[i]->d, one[t], (size_t)all[i]->d * sizeof(float));
        assert_int_equal(setun_session_note(s, SETUN_NOTE_WORK, &err), SETUN_OK);
        assert_int_equal(st_texts_run(s, text, 3, 3, &rows, &err), SETUN_DECLINED);
        setun_session_free(s);
        setun_model_free(loaded);
        drop_dir(dir);
        drop_model(m);
    }
}

static void test_cosine(void **state)
{
    const float a[3] = {3, 0, 4}, b[3] = {6, 0, 8}, c[3] = {0, 5, 0}, d[3] = {-3, 0, -4}, e[3] = {0, 0, 5}, zero[3] = {0, 0, 0};
    (void)state;
    assert_true(setun_cosine(a, b, 3) == 1 && setun_cosine(a, c, 3) == 0 && setun_cosine(a, d, 3) == -1);
    assert_true(setun_cosine(a, e, 3) == 0.8 && setun_cosine(a, zero, 3) == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_vectors), cmocka_unit_test(test_rotated), cmocka_unit_test(test_refusals),
                                       cmocka_unit_test(test_questions), cmocka_unit_test(test_together), cmocka_unit_test(test_cosine)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
