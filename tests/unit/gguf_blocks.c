/* tests/unit/gguf_blocks.c -- weights in GGUF's blocks are computed with as they lie, and give the bits of
 * the floats that they stand for.
 *
 * Blocks and their values come from tests/unit/gguf_blocks.h, which shares nothing with the readers.
 * Operators on blocks are compared with the same operators on those floats, and with sums in double;
 * models in every type, with a model of the floats.  That kernels agree with eval is tests/unit/ops.c's. */
#include "tests/unit/gguf_blocks.h"

#include "base/arena.h"
#include "graph/registry.h"
#include "runtime/model.h"

static const struct {
    uint32_t      id, dtype;
    const char   *name;
    int           block, exponent; /* of scales, so that weights are of about one size */
    block_writer *write;
} types[] = {
    { 2, SETUN_Q4_0, "q4_0", 32, 11, write_q4_0 },
    { 8, SETUN_Q8_0, "q8_0", 32, 7, write_q8_0 },
    { 12, SETUN_Q4_K, "q4_k", 256, 5, write_q4_k },
    { 14, SETUN_Q6_K, "q6_k", 256, 2, write_q6_k },
};
#define N_TYPES 4

typedef struct matrix {
    st_str bytes;
    float *v;
} matrix;

static matrix make_matrix(int type, int64_t rows, int64_t cols, int exponent)
{
    matrix m = { { 0 }, calloc((size_t)(rows * cols), sizeof *m.v) };
    int code[256];
    assert_non_null(m.v);
    most_exponent = exponent;
    for (int64_t i = 0; i < rows * cols; i += types[type].block)
        types[type].write(&m.bytes, m.v + i, code);
    assert_int_equal(m.bytes.len, rows * setun_row_bytes(types[type].dtype, cols));
    return m;
}

static void drop_matrix(matrix *m)
{
    st_str_free(&m->bytes);
    free(m->v);
}

static uint32_t bits_of(float f)
{
    uint32_t b;
    memcpy(&b, &f, sizeof b);
    return b;
}

static void test_elements(void **state)
{
    (void)state;
    for (int t = 0; t < N_TYPES; t++)
        for (int64_t rows = 1; rows < 40; rows += 13) {
            int64_t cols = types[t].block * (rows % 3 + 1);
            matrix m = make_matrix(t, rows, cols, 31);
            setun_view v = { m.bytes.text, types[t].dtype, 2, { rows, cols, 1, 1 } };
            assert_int_equal(setun_block(v.dtype), types[t].block);
            for (int64_t i = 0; i < rows * cols; i++)
                if (bits_of(setun_get_f32(&v, i)) != bits_of(m.v[i]))
                    fail_msg("%s: element %d is %.9g, not %.9g", types[t].name, (int)i, (double)setun_get_f32(&v, i), (double)m.v[i]);
            drop_matrix(&m);
        }
}

/* ---------------------------------------------------------------- operators */

static const setun_op *find(const char *name)
{
    for (const setun_op *const *op = st_builtin_ops; *op; op++)
        if (!strcmp((*op)->name, name))
            return *op;
    fail_msg("there is no operator %s", name);
    return NULL;
}

/* op on input number `at` of this type, or as floats; the text has "%s" where its type is. */
static void evaluate(const char *op, const char *text, const char *dtype, uint32_t at, const void *data, st_arena *arena, st_case *c)
{
    char with[200];
    setun_error err = { 0 };
    (void)snprintf(with, sizeof with, text, dtype);
    if (st_case_make(find(op), with, 5, arena, c, &err) != SETUN_OK)
        fail_msg("%s: %s", with, err.text);
    memcpy(c->run.in[at].data, data, (size_t)setun_view_bytes(&c->run.in[at]));
    if (c->run.op->eval(&c->run, &err) != SETUN_OK)
        fail_msg("%s: %s", with, err.text);
}

static void test_products(void **state)
{
    static const struct { const char *op, *text; uint32_t at; int64_t rows; } cases[] = {
        { "matmul", "x:f32[n3,512] w:%s[35,512]", 1, 35 },
        { "embed", "table:%s[9,512] index:i32[n5]", 0, 9 },
        { "head_rescore", "x:f32[n2,512] w:%s[33,512] id:i32[n2,20] count:i32[n2]", 1, 33 },
    };
    (void)state;
    for (int t = 0; t < N_TYPES; t++)
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            st_arena *arena = st_arena_new();
            st_case blocks, floats;
            matrix m = make_matrix(t, cases[i].rows, 512, types[t].exponent);
            assert_non_null(arena);
            evaluate(cases[i].op, cases[i].text, types[t].name, cases[i].at, m.bytes.text, arena, &blocks);
            evaluate(cases[i].op, cases[i].text, "f32", cases[i].at, m.v, arena, &floats);
            const float *y = blocks.run.out[0].data, *want = floats.run.out[0].data, *x = floats.run.in[0].data;
            for (int64_t k = 0; k < setun_count(&blocks.run.out[0]); k++)
                if (bits_of(y[k]) != bits_of(want[k]))
                    fail_msg("%s, %s: element %d is %.9g, not %.9g", cases[i].op, types[t].name, (int)k, (double)y[k], (double)want[k]);
            for (int64_t k = 0; i == 0 && k < 3 * 35; k++) {
                double sum = 0, size = 0;
                for (int64_t c = 0; c < 512; c++) {
                    double p = (double)x[k / 35 * 512 + c] * (double)m.v[k % 35 * 512 + c];
                    sum += p;
                    size += fabs(p);
                }
                assert_true(fabs(sum - (double)y[k]) <= 1e-5 * size);
            }
            drop_matrix(&m);
            st_arena_free(arena);
        }
}

static void test_refusals(void **state)
{
    static const char *const cases[][2] = {
        { "x:f32[1,33] w:q8_0[5,33]", "w is q8_0[5,33]; dimension 1 must be a multiple of 32" },
        { "x:f32[1,16] w:q4_0[5,16]", "w is q4_0[5,16]; dimension 1 must be a multiple of 32" },
        { "x:f32[1,128] w:q6_k[5,128]", "w is q6_k[5,128]; dimension 1 must be a multiple of 256" },
        { "x:f32[1,257] w:q4_k[5,257]", "w is q4_k[5,257]; dimension 1 must be a multiple of 256" },
        { "x:f32[1,64] w:q8[5,64]", "w is q8[5,64], wants f32 or f16 or bf16 or q4_0 or q8_0 or q4_k or q6_k of rank 2" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        st_arena *arena = st_arena_new();
        setun_error err = { 0 };
        st_case c;
        assert_int_equal(st_case_make(find("matmul"), cases[i][0], 1, arena, &c, &err), SETUN_BAD_SHAPE);
        if (!strstr(err.text, cases[i][1]))
            fail_msg("says: %s\n  should say: %s", err.text, cases[i][1]);
        st_arena_free(arena);
    }
}

/* ---------------------------------------------------------------- models */

#define D 256
#define V 301
#define N_TOKENS 6

enum { OWN_HEAD = 1, SHIFTED = 2 }; /* a head besides the embedding; data at odd addresses */

static void put_matrix(gguf_maker *m, const char *name, int type, int as_floats, int64_t rows)
{
    matrix w = make_matrix(type, rows, D, types[type].exponent);
    gguf_tensor(m, name, as_floats ? 0 : types[type].id, 2, (const int64_t[]){ D, rows }, as_floats ? (void *)w.v : (void *)w.bytes.text,
                as_floats ? (size_t)(rows * D) * 4 : w.bytes.len);
    drop_matrix(&w);
}

static void put_norm(gguf_maker *m, const char *name)
{
    float gain[D];
    for (int i = 0; i < D; i++)
        gain[i] = 1.0f + (float)dice(64) / 256.0f;
    gguf_tensor(m, name, 0, 1, (const int64_t[]){ D }, gain, sizeof gain);
}

static void kv_f32(gguf_maker *m, const char *key, float f) { kv(m, key, KV_F32, bits_of(f), 4); }

/* The same llama in blocks and as the floats that they stand for: the numbers come in the same order. */
static char *write_model(const char *dir, int type, int as_floats, int how)
{
    static const char *const sizes[] = { "block_count", "context_length", "embedding_length", "feed_forward_length",
                                         "attention.head_count", "attention.head_count_kv", "rope.dimension_count", "vocab_size" };
    static const uint32_t value[] = { 1, 64, D, D, 4, 2, 64, V };
    gguf_maker m = { .alignment = how & SHIFTED ? 1 : 32 };
    st_str file = { 0 };
    char key[64];
    dice_seed = 1000 + (uint64_t)type;
    kv_text(&m, "general.architecture", "llama");
    for (size_t i = 0; i < sizeof value / sizeof *value; i++) {
        (void)snprintf(key, sizeof key, "llama.%s", sizes[i]);
        kv_u32(&m, key, value[i]);
    }
    kv_f32(&m, "llama.rope.freq_base", 10000);
    kv_f32(&m, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    kv_tokenizer(&m);
    kv_u32(&m, "tokenizer.ggml.eos_token_id", 257);
    kv_u32(&m, "tokenizer.ggml.bos_token_id", 256);
    if (how & SHIFTED)
        kv_u32(&m, "general.alignment", 1);
    put_matrix(&m, "token_embd.weight", type, as_floats, V);
    if (how & OWN_HEAD)
        put_matrix(&m, "output.weight", type, as_floats, V);
    put_norm(&m, "output_norm.weight");
    put_norm(&m, "blk.0.attn_norm.weight");
    put_norm(&m, "blk.0.ffn_norm.weight");
    put_matrix(&m, "blk.0.attn_q.weight", type, as_floats, D);
    put_matrix(&m, "blk.0.attn_k.weight", type, as_floats, D / 2);
    put_matrix(&m, "blk.0.attn_v.weight", type, as_floats, D / 2);
    put_matrix(&m, "blk.0.attn_output.weight", type, as_floats, D);
    put_matrix(&m, "blk.0.ffn_gate.weight", type, as_floats, D);
    put_matrix(&m, "blk.0.ffn_up.weight", type, as_floats, D);
    put_matrix(&m, "blk.0.ffn_down.weight", type, as_floats, D);
    size_t head = 24 + m.keys.len + m.infos.len;
    if (how & SHIFTED && head % 2 == 0) { /* the data begin right behind the header */
        kv_text(&m, "general.name", "odd");
        if ((24 + m.keys.len + m.infos.len) % 2 == 0)
            kv_text(&m, "general.author", "even");
    }
    gguf_bytes(&m, &file);
    put_file(dir, as_floats ? "floats.gguf" : "blocks.gguf", file.text, file.len);
    st_str_free(&file);
    return join(dir, as_floats ? "floats.gguf" : "blocks.gguf");
}

typedef struct answer {
    float   logits[N_TOKENS * V], top[8];
    int32_t id[8];
    int64_t survivors;
    st_weights_stats stats;
} answer;

static const int32_t fed[N_TOKENS] = { 3, 300, 77, 255, 112, 9 };

static void ask(const char *path, const char *cache, const char *says, answer *to)
{
    setun_options o;
    setun_model *m = NULL;
    setun_session *s = NULL;
    const float *got;
    setun_top top = { .size = sizeof top };
    setun_error err = { 0 };
    int64_t n, seen = 0;
    memset(to, 0, sizeof *to);
    setun_options_init(&o);
    o.kv = "f32";
    o.n_threads = 1;
    o.backend = "reference"; /* compiling takes time, and gives the same bits: tests/unit/ops.c */
    o.interpret = 1;
    o.n_outputs = N_TOKENS;
    o.cache_dir = cache;
    if (setun_model_load(&m, path, &o, &err) != SETUN_OK || setun_session_new(&s, m, &err) != SETUN_OK ||
        setun_session_feed(s, fed, N_TOKENS, SETUN_LOGITS_ALL, &got, &err) != SETUN_OK)
        fail_msg("%s: %s", path, err.text);
    memcpy(to->logits, got, sizeof to->logits);
    assert_int_equal(setun_session_rewind(s, 0, &err), SETUN_OK);
    assert_int_equal(setun_session_set_top(s, 8, &err), SETUN_OK);
    if (setun_session_feed(s, fed, N_TOKENS, SETUN_LOGITS_TOP, &got, &err) != SETUN_OK)
        fail_msg("%s: %s", path, err.text);
    setun_session_top(s, &top);
    assert_int_equal(top.n, 8);
    memcpy(to->top, top.logit, sizeof to->top);
    memcpy(to->id, top.id, sizeof to->id);
    to->survivors = top.survivors;
    st_weights_get_stats(m->weights, &to->stats);
    const char *const *line = st_weights_lines(m->weights, &n);
    for (int64_t i = 0; i < n; i++)
        seen |= says && strstr(line[i], says) != NULL;
    if (says && !seen)
        fail_msg("%s: no line says: %s", path, says);
    setun_session_free(s);
    setun_model_free(m);
}

static int64_t bytes_of(int type, int64_t rows) { return rows * setun_row_bytes(types[type].dtype, D); }

static void same(const answer *a, const answer *want, const char *what)
{
    for (int i = 0; i < N_TOKENS * V; i++)
        if (bits_of(a->logits[i]) != bits_of(want->logits[i]) || !isfinite(a->logits[i]))
            fail_msg("%s: logit %d is %.9g, not %.9g", what, i, (double)a->logits[i], (double)want->logits[i]);
    for (int i = 0; i < 8; i++)
        if (a->id[i] != want->id[i] || bits_of(a->top[i]) != bits_of(want->logits[(N_TOKENS - 1) * V + a->id[i]]))
            fail_msg("%s: place %d is token %d with %.9g, not %d", what, i, (int)a->id[i], (double)a->top[i], (int)want->id[i]);
}

static void test_models(void **state)
{
    static answer want, got;
    (void)state;
    for (int t = 0; t < N_TYPES; t++)
        for (int how = 0; how < 4; how++) {
            char *dir = temp_dir(), what[64];
            char *floats = write_model(dir, t, 1, how), *blocks = write_model(dir, t, 0, how);
            int64_t others = 4 * D + D / 2 + V * (1 + (how & OWN_HEAD)), ordered = D + D / 2;
            (void)snprintf(what, sizeof what, "%s, form %d", types[t].name, how);
            ask(floats, NULL, NULL, &want);
            for (int round = 0; round < 3; round++) { /* without a cache, into it, out of it */
                ask(blocks, round ? dir : NULL, how & SHIFTED ? NULL : "where they lie", &got);
                same(&got, &want, what);
                /* Nothing has become floats: queries and keys are put in order, all else stays. */
                if (__BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__) {
                    assert_int_equal(got.stats.mapped_bytes, 0); /* blocks are in the file's order */
                } else if (!(how & SHIFTED)) {
                    assert_int_equal(got.stats.copied_bytes, bytes_of(t, ordered));
                    assert_int_equal(got.stats.mapped_bytes, bytes_of(t, others) + 3 * 4 * D);
                } else { /* nothing can stay, and blocks still are what is kept */
                    assert_int_equal(got.stats.mapped_bytes, 0);
                    assert_int_equal(got.stats.copied_bytes, bytes_of(t, others + ordered) + 3 * 4 * D);
                }
                assert_true(got.survivors > 0 && got.survivors < V);
            }
            free(floats);
            free(blocks);
            drop_dir(dir);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_elements), cmocka_unit_test(test_products),
                                        cmocka_unit_test(test_refusals), cmocka_unit_test(test_models) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
