/* tests/unit/convert_world.c -- conversions of a small model of every architecture, there and back, and of tokenizers
 * over bytes.
 *
 * gguf_world.h writes a model as a directory and as a GGUF file, from the same numbers.  What Setun makes of one
 * must be the other: tensors byte for byte, keys, and the logits of the first, bit for bit.  tests/unit/convert.c
 * has the packings and what is refused. */
#include "model/gguf_types.h"
#include "model/safetensors.h"
#include "setun/setun.h"
#include "tests/unit/gguf_run.h"

/* ---------------------------------------------------------------- running it
 *
 * Through the public functions, as programs do: setun_convert compares before it renames, so a conversion that
 * loses something fails there.  That it compares at all is what the rest of this file does not believe. */

static int drop_text(void *user, const char *text, size_t n)
{
    (void)user, (void)text, (void)n;
    return 0;
}

/* Nothing may change: every number of these models is exact in every form that is asked for. */
static setun_status convert(const char *in, const char *out, const char *to, const asked *how, setun_error *err)
{
    setun_convert_options o = { .size = sizeof o, .in = in, .out = out, .to = to, .lossless = 1, .i2s_layout = how ? how->layout : NULL,
                                .activations = how ? how->activations : NULL };
    memset(err, 0, sizeof *err);
    return setun_convert(&o, drop_text, NULL, err);
}

static void must(const char *in, const char *out, const char *to, const asked *how)
{
    setun_error err;
    if (convert(in, out, to, how, &err) != SETUN_OK)
        fail_msg("%s to %s: %s", in, to, err.text);
}

static int keep_text(void *user, const char *text, size_t n)
{
    st_str_addn(user, text, n);
    return 0;
}

/* Does setun diff, with its runs of both, say that nothing differs? */
static void must_be_equal(const char *a, const char *b, const asked *how)
{
    setun_options run;
    setun_error err = { 0 };
    st_str text = { 0 };
    int32_t differs = 1;
    setun_options_init(&run);
    run.n_threads = 1;
    run.backend = "reference";
    run.interpret = 1;
    run.i2s_layout = how ? how->layout : NULL;
    run.activations = how ? how->activations : NULL;
    const setun_diff_options o = { .size = sizeof o, .a = a, .b = b, .tokens = fed, .n_tokens = N_TOKENS, .run = &run };
    if (setun_diff(&o, &differs, keep_text, &text, &err) != SETUN_OK)
        fail_msg("%s and %s: %s", a, b, err.text);
    if (differs || !strstr(text.text, "equal, bit for bit; largest"))
        fail_msg("%s and %s: %s", a, b, text.text);
    st_str_free(&text);
}

/* ---------------------------------------------------------------- what is expected */

/* Every tensor of a is one of b, byte for byte, b has no other, and every key of the architecture is in b, too. */
static void same_gguf(const char *a, const char *b, const char *prefix)
{
    st_arena *arena = st_arena_new();
    st_gguf x = { 0 }, y = { 0 };
    setun_error err = { 0 };
    int64_t at, keys = 0;
    /* Layouts do not matter here: bytes are compared. */
    if (st_gguf_open(&x, a, ST_I2S_ASK, arena, &err) != SETUN_OK || st_gguf_open(&y, b, ST_I2S_ASK, arena, &err) != SETUN_OK)
        fail_msg("%s", err.text);
    assert_int_equal(x.n_tensors, y.n_tensors);
    for (int64_t i = 0; i < x.n_tensors; i++) {
        const st_gguf_tensor *t = &x.tensor[i];
        if (!st_table_get(y.by_name, t->name, strlen(t->name), &at))
            fail_msg("%s has no %s", b, t->name);
        const st_gguf_tensor *u = &y.tensor[at];
        if (t->id != u->id || t->rank != u->rank || memcmp(t->dim, u->dim, sizeof t->dim) != 0 || t->bytes != u->bytes)
            fail_msg("%s: %s has another type or shape", b, t->name);
        int64_t slack = t->id == T_I2S ? 28 : 0; /* behind the scale of I2_S stands what nobody wrote */
        if (memcmp(t->data, u->data, (size_t)(t->bytes - slack)) != 0)
            fail_msg("%s: %s has other bytes", b, t->name);
    }
    for (int64_t i = 0; i < x.n_values; i++) {
        const st_gguf_value *v = &x.value[i], *w = st_gguf_find(&y, v->key);
        if (strncmp(v->key, prefix, strlen(prefix)) != 0 || v->key[strlen(prefix)] != '.')
            continue;
        if (!w || v->type != w->type || v->bytes != w->bytes || memcmp(v->data, w->data, (size_t)v->bytes) != 0)
            fail_msg("%s: the key %s is %s", b, v->key, w ? "another" : "missing");
        keys++;
    }
    assert_true(keys >= 10);
    st_gguf_close(&x);
    st_gguf_close(&y);
    st_arena_free(arena);
}

/* Value i, by the definitions of both types: bfloat16 is the upper half of a binary32. */
static float element(const st_tensor *t, int64_t i)
{
    const uint8_t *p = t->view.data;
    uint32_t bits = t->view.dtype == SETUN_F32
                        ? (uint32_t)p[4 * i] | (uint32_t)p[4 * i + 1] << 8 | (uint32_t)p[4 * i + 2] << 16 | (uint32_t)p[4 * i + 3] << 24
                        : ((uint32_t)p[2 * i] | (uint32_t)p[2 * i + 1] << 8) << 16;
    float f;
    assert_true(t->view.dtype == SETUN_F32 || t->view.dtype == SETUN_BF16);
    memcpy(&f, &bits, 4);
    return f;
}

/* The directory is the world: packed layers with their scales, values of all others, and nothing else. */
static void expect_directory(const world *w, const char *dir)
{
    st_arena *arena = st_arena_new();
    st_safetensors s = { 0 };
    setun_error err = { 0 };
    int64_t n = 0, at;
    if (st_safetensors_open(&s, dir, arena, &err) != SETUN_OK)
        fail_msg("%s", err.text);
    for (int i = 0; i < w->n; i++) {
        const tensor *t = &w->t[i];
        char scale[112];
        int64_t count = t->rows * (t->cols ? t->cols : 1);
        assert_true(st_table_get(s.by_name, t->hf, strlen(t->hf), &at));
        const st_tensor *x = &s.tensor[at];
        (void)snprintf(scale, sizeof scale, "%s_scale", t->hf);
        n += 1 + (t->kind == LINEAR);
        for (int64_t k = 0; k < count; k++) {
            int64_t r = t->cols ? k / t->cols : 0, quarter = t->rows / 4;
            int code = t->kind == LINEAR ? ((const uint8_t *)x->view.data)[r % quarter * t->cols + k % t->cols] >> 2 * (r / quarter) & 3 : 0;
            if (t->kind == LINEAR ? code != t->q[k] + 1 : element(x, k) != t->v[k] - (float)(t->kind == NORM && w->a->gemma))
                fail_msg("%s: %s, value %lld", dir, t->hf, (long long)k);
        }
        if (t->kind != LINEAR)
            continue;
        assert_true(st_table_get(s.by_name, scale, strlen(scale), &at));
        assert_true(element(&s.tensor[at], 0) == t->scale);
    }
    assert_int_equal(s.n_tensors, n);
    st_safetensors_close(&s);
    st_arena_free(arena);
}

/* ---------------------------------------------------------------- architectures */

/* With a scale for each row, for 256 weights, and for the tensor.  how: what must be said of the test's own file, which
 * does not tell it. */
static const struct { const char *to; int type; asked how; } forms[] = {
    { "iq2_bn", T_IQ2_BN, { NULL, NULL, NULL } },
    { "tq2_0", T_TQ2_0, { NULL, "int8", NULL } },
    { "i2_s", T_I2S, { "x86", NULL, NULL } },
};
#define N_FORMS (sizeof forms / sizeof *forms)

typedef struct places {
    char *dir, *made, *file, *back, *again; /* written by the test, in dir and made; by Setun, in made */
} places;

static places make_places(void)
{
    places p = { .dir = temp_dir(), .made = temp_dir() };
    p.file = join(p.made, "there.gguf");
    p.back = join(p.made, "back");
    p.again = join(p.made, "again.gguf");
    return p;
}

static void drop_places(places *p)
{
    free(p->file);
    free(p->back);
    free(p->again);
    drop_dir(p->dir);
    drop_dir(p->made);
}

/* Directory, file, directory: the first file is the one that the test writes. */
static void from_directory(const world *w, const char *to, int type, const asked *how, const change *c)
{
    places p = make_places();
    float *want = malloc(LOGITS), *got = malloc(LOGITS);
    const asked any = { NULL, how->activations, NULL }; /* a file of Setun's tells the layout, and activations, too */
    assert_true(want && got);
    write_dir(w, p.dir, 1, c);
    must_run(p.dir, NULL, want, w->a->name);
    must(p.dir, p.file, to, NULL);
    must_run(p.file, NULL, got, to);
    same(got, want, to);
    char *own = write_gguf(w, p.made, type, T_BF16, c);
    same_gguf(own, p.file, w->a->name);
    must(p.file, p.back, "hf", NULL);
    expect_directory(w, p.back);
    must_run(p.back, NULL, got, "back from a file");
    same(got, want, "back from a file");
    must_be_equal(p.file, p.back, &any);
    free(own);
    free(want);
    free(got);
    drop_places(&p);
}

/* File, directory, file: both files are one. */
static void from_file(const world *w, const char *to, int type, const asked *how, const change *c)
{
    places p = make_places();
    float *want = malloc(LOGITS), *got = malloc(LOGITS);
    assert_true(want && got);
    char *own = write_gguf(w, p.dir, type, T_BF16, c);
    must_run(own, how, want, to);
    must(own, p.back, "hf", how);
    expect_directory(w, p.back);
    must_run(p.back, NULL, got, "a directory");
    same(got, want, "a directory");
    must(p.back, p.again, to, NULL);
    same_gguf(own, p.again, w->a->name);
    must_run(p.again, NULL, got, "a file again");
    same(got, want, "a file again");
    must_be_equal(own, p.again, how);
    free(own);
    free(want);
    free(got);
    drop_places(&p);
}

static void both_ways(const world *w, size_t f, const change *c)
{
    from_directory(w, forms[f].to, forms[f].type, &forms[f].how, c);
    from_file(w, forms[f].to, forms[f].type, &forms[f].how, c);
}

/* Every form where an architecture has tensors that others have not: biases, norms of heads, Gemma's norms. */
static void test_architectures(void **state)
{
    (void)state;
    for (size_t a = 0; a < N_ARCHS; a++) {
        if (strcmp(archs[a].name, "bitnet-25") == 0)
            continue; /* an older name of the first, which directories do not know */
        world *w = make_world(&archs[a], 977 + a);
        for (size_t f = 0; f < N_FORMS; f++) {
            int is_own = archs[a].bias || archs[a].head_norm;
            if (archs[a].bias && forms[f].type == T_I2S)
                continue; /* nobody writes it, and the number 36 has another meaning there */
            if (is_own || f == a % N_FORMS)
                both_ways(w, f, &nothing);
        }
        drop_world(w);
    }
}

#define RECORDS ",\"attention_dropout\":0.0,\"bos_token_id\":1,\"initializer_range\":0.02,\"torch_dtype\":\"bfloat16\",\"use_cache\":true," \
                "\"transformers_version\":\"4.55.0\""
#define FULL "\"layer_types\":[\"full_attention\",\"full_attention\"],"

/* What is no tensor in one form or the other, or is said in several ways; and what published models say beside it, which
 * must not be in the way. */
static void test_configurations(void **state)
{
    static const struct { const char *name; change c; } cases[] = {
        { "llama", { .llama3 = 1, .config = ",\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8.0,\"low_freq_factor\":1.0,"
                     "\"high_freq_factor\":4.0,\"original_max_position_embeddings\":8192}" } },
        { "qwen2", { .linear = 4, .config = ",\"rope_scaling\":{\"type\":\"linear\",\"factor\":4.0}" } },
        { "qwen3", { .linear = 2.5, .config = ",\"rope_scaling\":{\"rope_type\":\"linear\",\"factor\":2.5}" } },
        { "gemma3", { .layers = "wf", .config = ",\"layer_types\":[\"sliding_attention\",\"full_attention\"]" } },
        { "qwen2", { .config = RECORDS ",\"max_window_layers\":21,\"model_type\":\"qwen2\",\"sliding_window\":32768,\"use_mrope\":false," FULL
                     "\"use_sliding_window\":false" } },
        { "qwen3", { .config = RECORDS ",\"attention_bias\":false,\"max_window_layers\":28,\"model_type\":\"qwen3\",\"rope_scaling\":null," FULL
                     "\"sliding_window\":null,\"use_sliding_window\":false" } },
        { "gemma3", { .config = RECORDS ",\"_sliding_window_pattern\":6,\"attention_bias\":false,\"attn_logit_softcapping\":null,"
                      "\"final_logit_softcapping\":null,\"layer_types\":[\"sliding_attention\",\"sliding_attention\"],\"model_type\":\"gemma3_text\","
                      "\"pad_token_id\":0,\"rope_scaling\":null,\"use_bidirectional_attention\":false" } },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        arch own = *named(cases[i].name);
        if (own.gemma) /* cases say themselves which layers have a window */
            own.extra = ",\"head_dim\":128,\"query_pre_attn_scalar\":128,\"sliding_window\":4,\"rope_local_base_freq\":1e4";
        world *w = make_world(&own, 1077 + i);
        both_ways(w, 0, &cases[i].c);
        drop_world(w);
    }
}

/* A list and a number that say different things of a layer: whichever the file had, it would say another thing. */
static void test_windows_that_differ(void **state)
{
    arch own = *named("gemma3");
    own.extra = ",\"head_dim\":128,\"query_pre_attn_scalar\":128,\"sliding_window\":4,\"rope_local_base_freq\":1e4";
    const change c = { .config = ",\"sliding_window_pattern\":6,\"layer_types\":[\"sliding_attention\",\"full_attention\"]" };
    world *w = make_world(&own, 31);
    places p = make_places();
    setun_error err;
    (void)state;
    write_dir(w, p.dir, 1, &c);
    assert_int_equal(convert(p.dir, p.file, "iq2_bn", NULL, &err), SETUN_UNKNOWN);
    if (!strstr(err.text, "layer_types.2: \"keys that do not agree\", \"sliding_attention\""))
        fail_msg("%s", err.text);
    assert_true(st_is_absent(p.file));
    drop_places(&p);
    drop_world(w);
}

/* ---------------------------------------------------------------- tokenizers over bytes */

#define LETTERS "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"
#define REST "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define LLAMA3 LETTERS "\\p{N}{1,3}" REST
#define QWEN2 LETTERS "\\p{N}" REST
#define GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define BYTES "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}"
#define FIRST 256 /* bytes are 0 to 255; the words and those of a case follow */
#define G "\xc4\xa0" /* how a space is spelled */

static const char *const words[] = { "th", "the", G "the" }, *const word_merges[] = { "t h", "th e", G " the" };
#define N_WORDS 3

/* A vocabulary, and what becomes of it: pre is the name in the file; or parts of the refusal. */
typedef struct vocabulary {
    const char *regex, *stages; /* stages: around the expression, or NULL for Split and ByteLevel */
    const char *flag;           /* of ignore_merges; NULL: absent */
    const char *more[4], *merges[4], *added;
    const char *pre, *refused[4];
} vocabulary;

/* With the pieces of "the the zq qqqq 12a b", as the expressions cut them. */
static const char llama3_pieces[] = "the| the| zq| qqqq| |12|a| b", qwen2_pieces[] = "the| the| zq| qqqq| |1|2|a| b",
                  gpt2_pieces[] = "the| the| zq| qqqq| 12|a| b";

static const vocabulary vocabularies[] = {
    { .regex = LLAMA3, .flag = "true", .more = { "zq" }, .pre = "llama-bpe" },
    { .regex = LLAMA3, .pre = "llama-bpe" },
    /* What no text has as a piece: two words, half a character, a special token. */
    { .regex = LLAMA3, .flag = "false", .more = { "a" G "b", "\xc3\xa6\xc4\xb9", ">>T<<" }, .added = ">>T<<", .pre = "llama-bpe" },
    { .regex = LLAMA3, .flag = "false", .more = { "qq", "qqq" }, .merges = { "q q", "qq q" }, .pre = "llama-bpe" },
    { .regex = LLAMA3, .flag = "false", .more = { "zq" }, .refused = { "ignore_merges is false", "llama-bpe", "token 259,", NULL } },
    /* q q q q, qq q q, qq qq: the merge of q and qqq comes too late. */
    { .regex = LLAMA3, .more = { "qq", "qqq", "qqqq" }, .merges = { "q q", "qq q", "q qqq" }, .refused = { "ignore_merges is false", "token 261,", NULL } },
    { .regex = QWEN2, .flag = "false", .more = { "zq" }, .pre = "qwen2" },
    { .regex = QWEN2, .flag = "true", .pre = "qwen2" },
    { .regex = QWEN2, .flag = "true", .more = { "12" }, .pre = "qwen2" }, /* two pieces here */
    { .regex = QWEN2, .flag = "true", .more = { "zq" }, .refused = { "ignore_merges is true", "qwen2", "token 259,", NULL } },
    { .regex = GPT2, .flag = "true", .more = { "qq" }, .merges = { "q q" }, .pre = "gpt-2" },
    { .regex = GPT2, .flag = "true", .more = { G "12" }, .refused = { "ignore_merges is true", "gpt-2", "token 259,", NULL } },
    { .regex = LLAMA3, .stages = "{\"type\":\"ByteLevel\",\"use_regex\":false}", .refused = { "no name", "(Split, ByteLevel with", NULL } },
    { .regex = LLAMA3, .stages = "{\"type\":\"Digits\",\"individual_digits\":true}," BYTES, .refused = { "no name", "(Split, Digits, ByteLevel with", NULL } },
};
#define N_VOCABULARIES (sizeof vocabularies / sizeof *vocabularies)

/* tokenizer.json: the words, then those of the case, whose ids the refusals name. */
static void put_vocabulary(const char *dir, const vocabulary *v)
{
    st_str s = { 0 };
    int id = FIRST;
    st_str_add(&s, "{\"version\":\"1.0\",\"added_tokens\":[");
    for (int i = 0; v->added && v->more[i]; i++)
        if (strcmp(v->more[i], v->added) == 0)
            st_str_addf(&s, "{\"id\":%d,\"content\":\"%s\",\"special\":true,\"normalized\":false}", FIRST + N_WORDS + i, v->added);
    st_str_add(&s, "],\"normalizer\":null,\"post_processor\":null,\"decoder\":{\"type\":\"ByteLevel\"},\"pre_tokenizer\":{\"type\":\"Sequence\","
               "\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":");
    st_str_add_json(&s, v->regex, strlen(v->regex));
    st_str_addf(&s, "},\"behavior\":\"Isolated\",\"invert\":false},%s]},\"model\":{\"type\":\"BPE\"", v->stages ? v->stages : BYTES);
    if (v->flag)
        st_str_addf(&s, ",\"ignore_merges\":%s", v->flag);
    for (uint32_t i = 0; i < 256; i++) {
        char text[4];
        st_str_add(&s, i ? "," : ",\"vocab\":{");
        size_t n = byte_token(i, text);
        st_str_add_json(&s, text, n);
        st_str_addf(&s, ":%u", i);
    }
    for (int i = 0; i < N_WORDS; i++)
        st_str_addf(&s, ",\"%s\":%d", words[i], id++);
    for (int i = 0; i < 4 && v->more[i]; i++)
        st_str_addf(&s, ",\"%s\":%d", v->more[i], id++);
    st_str_add(&s, "},\"merges\":[");
    for (int i = 0; i < N_WORDS; i++)
        st_str_addf(&s, "%s\"%s\"", i ? "," : "", word_merges[i]);
    for (int i = 0; i < 4 && v->merges[i]; i++)
        st_str_addf(&s, ",\"%s\"", v->merges[i]);
    st_str_add(&s, "]}}");
    put_text(dir, "tokenizer.json", s.text);
    st_str_free(&s);
}

/* The rank of a pair, and the id of a text, by looking through the lists; -1: none. */
static int rank_of(const vocabulary *v, const char *left, const char *right)
{
    char pair[64];
    (void)snprintf(pair, sizeof pair, "%s %s", left, right);
    for (int i = 0; i < N_WORDS + 4; i++) {
        const char *m = i < N_WORDS ? word_merges[i] : v->merges[i - N_WORDS];
        if (m && strcmp(m, pair) == 0)
            return i;
    }
    return -1;
}

static int id_of(const vocabulary *v, const char *text)
{
    for (int i = 0; i < N_WORDS + 4; i++) {
        const char *t = i < N_WORDS ? words[i] : v->more[i - N_WORDS];
        if (t && strcmp(t, text) == 0)
            return FIRST + i;
    }
    return strcmp(text, G) == 0 ? ' ' : strlen(text) == 1 ? text[0] : -1;
}

/* Byte-pair encoding by its definition: of all neighbours those of the lowest rank, the leftmost, until none has one. */
static int encode_piece(const vocabulary *v, const char *piece, int n, int32_t *ids)
{
    char symbol[16][32] = { "" }, whole[64] = "";
    int count = 0, ignore = v->flag && strcmp(v->flag, "true") == 0;
    for (int i = 0; i < n; i++, count++) {
        (void)snprintf(symbol[i], sizeof symbol[i], "%.*s", piece[i] == ' ' ? 2 : 1, piece[i] == ' ' ? G : &piece[i]);
        strcat(whole, symbol[i]);
    }
    if (ignore && id_of(v, whole) >= 0) {
        ids[0] = id_of(v, whole);
        return 1;
    }
    for (;;) {
        int best = -1, rank = 1000;
        for (int i = 0; i + 1 < count; i++) {
            int r = rank_of(v, symbol[i], symbol[i + 1]);
            if (r >= 0 && r < rank) {
                rank = r;
                best = i;
            }
        }
        if (best < 0)
            break;
        char both[64];
        (void)snprintf(both, sizeof both, "%s%s", symbol[best], symbol[best + 1]);
        memcpy(symbol[best], both, strlen(both) + 1);
        memmove(symbol[best + 1], symbol[best + 2], (size_t)(count - best - 2) * sizeof *symbol);
        count--;
    }
    for (int i = 0; i < count; i++)
        ids[i] = id_of(v, symbol[i]);
    return count;
}

/* The ids of the text, by the pieces written down above and the definition. */
static void expect_ids(const vocabulary *v, const char *path)
{
    static const char text[] = "the the zq qqqq 12a b";
    const char *p = v->regex[0] == '\'' ? gpt2_pieces : strstr(v->regex, "{1,3}") ? llama3_pieces : qwen2_pieces;
    int32_t want[64], *ids = NULL;
    int64_t n_want = 0, n = 0;
    setun_error err = { 0 };
    st_tokenizer *t;
    while (*p) {
        int length = (int)strcspn(p, "|");
        n_want += encode_piece(v, p, length, want + n_want);
        p += length + (p[length] == '|');
    }
    if (st_tokenizer_open(&t, path, &err) != SETUN_OK || st_tokenizer_encode(t, text, sizeof text - 1, ST_TOK_BOS, &ids, &n, &err) != SETUN_OK)
        fail_msg("%s", err.text);
    assert_int_equal(n, n_want);
    assert_memory_equal(ids, want, (size_t)n * sizeof *ids);
    free(ids);
    st_tokenizer_close(t);
}

/* A string among the keys; NULL: it is absent. */
static void expect_text(const char *path, const char *key, const char *want)
{
    st_arena *arena = st_arena_new();
    st_gguf g = { 0 };
    int64_t n = 0;
    assert_int_equal(st_gguf_open(&g, path, ST_I2S_ASK, arena, NULL), SETUN_OK);
    const st_gguf_value *v = st_gguf_find(&g, key);
    const char *text = v ? st_gguf_text(v, &n) : NULL;
    if (!text != !want || (want && ((size_t)n != strlen(want) || memcmp(text, want, strlen(want)) != 0)))
        fail_msg("%s: %s is %.*s, not %s", path, key, (int)n, text ? text : "", want ? want : "absent");
    st_gguf_close(&g);
    st_arena_free(arena);
}

/* There, back, and there again: the name in the file, and the same ids everywhere; or a refusal, and no file. */
static void test_vocabularies(void **state)
{
    world *w = make_world(named("llama"), 31);
    (void)state;
    for (size_t i = 0; i < N_VOCABULARIES; i++) {
        const vocabulary *v = &vocabularies[i];
        places p = make_places();
        setun_error err;
        write_dir(w, p.dir, 1, &nothing);
        put_vocabulary(p.dir, v);
        if (v->pre) {
            must(p.dir, p.file, "iq2_bn", NULL);
            expect_text(p.file, "tokenizer.ggml.pre", v->pre);
            must(p.file, p.back, "hf", NULL);
            must(p.back, p.again, "iq2_bn", NULL);
            expect_text(p.again, "tokenizer.ggml.pre", v->pre);
            expect_ids(v, p.dir);
            expect_ids(v, p.file);
            expect_ids(v, p.back);
            expect_ids(v, p.again);
        } else {
            assert_int_equal(convert(p.dir, p.file, "iq2_bn", NULL, &err), SETUN_UNKNOWN);
            for (int k = 0; v->refused[k]; k++)
                if (!strstr(err.text, v->refused[k]))
                    fail_msg("'%s' does not have '%s'", err.text, v->refused[k]);
            assert_true(st_is_absent(p.file));
        }
        drop_places(&p);
    }
    drop_world(w);
}

/* ---------------------------------------------------------------- chat templates */

/* Of three files the first that has a template counts, and of named ones each has its key. */
static void test_templates(void **state)
{
    static const struct { const char *jinja, *own, *config, *text, *tool; } cases[] = {
        { "first", "{\"chat_template\":\"second\"}", "{\"chat_template\":\"third\"}", "first", NULL },
        { NULL, "{\"chat_template\":\"second\"}", "{\"chat_template\":\"third\"}", "second", NULL },
        { NULL, NULL, "{\"chat_template\":\"third\"}", "third", NULL },
        { NULL, "{}", "{\"chat_template\":\"third\"}", "third", NULL },
        { NULL, "{\"chat_template\":null}", "{\"chat_template\":[{\"name\":\"tool\",\"template\":\"t\"},"
          "{\"name\":\"default\",\"template\":\"d\"}]}", "d", "t" },
        { NULL, NULL, "{}", NULL, NULL },
        { NULL, NULL, NULL, NULL, NULL },
    };
    world *w = make_world(named("llama"), 31);
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        places p = make_places();
        write_dir(w, p.dir, 1, &nothing);
        const char *const files[] = { "chat_template.jinja", "chat_template.json", "tokenizer_config.json" };
        const char *const texts[] = { cases[i].jinja, cases[i].own, cases[i].config };
        for (int k = 0; k < 3; k++)
            if (texts[k])
                put_text(p.dir, files[k], texts[k]);
        must(p.dir, p.file, "iq2_bn", NULL);
        expect_text(p.file, "tokenizer.chat_template", cases[i].text);
        expect_text(p.file, "tokenizer.chat_template.tool", cases[i].tool);
        drop_places(&p);
    }
    drop_world(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_architectures), cmocka_unit_test(test_configurations), cmocka_unit_test(test_windows_that_differ),
        cmocka_unit_test(test_vocabularies),
        cmocka_unit_test(test_templates),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
