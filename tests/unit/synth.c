/* tests/unit/synth.c -- made-up models: readable, reproducible, complete or absent. */
#include "tests/unit/files.h"

#include <signal.h>
#include <sys/resource.h>

#include "model/synth.h"
#include "model/tokenizer.h"
#include "model/weights.h"
#include "setun/op.h"

static setun_status make(const char *dir, const char *name, const st_synth *how, setun_error *err)
{
    st_synth s = *how;
    char *out = join(dir, name);
    s.out = out;
    setun_status st = st_synth_write(&s, err);
    free(out);
    return st;
}

static st_weights *open_weights(const char *dir, const char *name)
{
    st_weights *w;
    setun_error err = { 0 };
    char *path = join(dir, name);
    if (st_weights_open(&w, path, NULL, &err) != SETUN_OK)
        fail_msg("%s", err.text);
    free(path);
    return w;
}

static int t2_at(const setun_view *v, int64_t r, int64_t c)
{
    const uint8_t *row = (const uint8_t *)v->data + r * setun_row_bytes(SETUN_T2, v->dim[1]);
    return (row[c / 128 * 32 + c % 32] >> 2 * (c % 128 / 32) & 3) - 1;
}

static const char *const linears[] = { "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
                                       "self_attn.o_proj", "mlp.gate_proj",    "mlp.up_proj",
                                       "mlp.down_proj" };

/* Consumes every tensor as a model script would; returns the hash of all codes and 16-bit data. */
static uint64_t walk(st_weights *w, double *zeros, const char **rule)
{
    setun_view v, s;
    int64_t n_zero = 0, n = 0;
    uint64_t sum = 0;
    for (int64_t layer = 0; layer < 2; layer++)
        for (size_t i = 0; i < 7; i++) {
            char name[128], full[160];
            (void)snprintf(name, sizeof name, "model.layers.%d.%s", (int)layer, linears[i]);
            setun_status st = ask_ternary(w, name, 0, &v, &s, NULL);
            if (st == SETUN_DECLINED) {
                (void)snprintf(full, sizeof full, "%s.weight", name);
                assert_int_equal(st_weights_tensor(w, full, 0, &v, NULL), SETUN_OK);
                continue;
            }
            assert_int_equal(st, SETUN_OK);
            assert_true(*(float *)s.data > 0.01f && *(float *)s.data < 10.0f);
            for (int64_t r = 0; r < v.dim[0]; r++)
                for (int64_t c = 0; c < v.dim[1]; c++) {
                    int q = t2_at(&v, r, c);
                    n_zero += q == 0;
                    sum = sum * 3 + (uint64_t)(q + 1) + (sum >> 40);
                    n++;
                }
        }
    for (int64_t i = 0; i < st_weights_count(w); i++) {
        const st_tensor *t = st_weights_at(w, i);
        if (strstr(t->name, "norm") || strstr(t->name, "embed") || strstr(t->name, "lm_head"))
            assert_int_equal(st_weights_tensor(w, t->name, strstr(t->name, "norm") ? SETUN_F32 : 0,
                                               &v, NULL),
                             SETUN_OK);
    }
    st_weights_stats stats;
    st_weights_get_stats(w, &stats);
    *rule = stats.scale_rule;
    *zeros = n ? (double)n_zero / (double)n : 0.0;
    return sum;
}

static void test_shapes(void **state)
{
    (void)state;
    static const struct {
        const char *like, *rule, *arch;
        int         master, shards;
        double      zeros;
    } cases[] = {
        { "tiny", "multiply (autobitlinear)", "BitNetForCausalLM", 0, 0, 0.42 },
        { "tiny", "absmean on load", "BitNetForCausalLM", 1, 0, 0.42 },
        { "tiny", "multiply (autobitlinear)", "BitNetForCausalLM", 0, 300000, 0.42 },
        { "tiny", "multiply (autobitlinear)", "BitNetForCausalLM", 0, 0, 0.25 },
        { "llama-tiny", "none", "LlamaForCausalLM", 0, 0, 0.42 },
        { "llama-tiny-158", "divide (bitlinear)", "LlamaForCausalLM", 0, 0, 0.42 },
    };
    char *dir = temp_dir();
    uint64_t hash[6];
    for (int i = 0; i < 6; i++) {
        char name[16];
        const char *rule;
        double zeros;
        setun_error err = { 0 };
        st_synth s = { .like = cases[i].like,
                       .seed = 7,
                       .zero_share = i == 3 ? 0.25 : -1.0,
                       .float_master = cases[i].master,
                       .shard_bytes = cases[i].shards };
        (void)snprintf(name, sizeof name, "m%d", i);
        if (make(dir, name, &s, &err) != SETUN_OK)
            fail_msg("%s: %s", cases[i].like, err.text);
        st_weights *w = open_weights(dir, name);
        hash[i] = walk(w, &zeros, &rule);
        assert_string_equal(rule, cases[i].rule);
        assert_string_equal(st_weights_architecture(w), cases[i].arch);
        if (i != 4)
            assert_true(zeros > cases[i].zeros - 0.003 && zeros < cases[i].zeros + 0.003);
        if (st_weights_all_used(w, &err) != SETUN_OK)
            fail_msg("%s", err.text);
        st_weights_close(w);
    }
    /* Float master, shards and the family do not change the codes; the share of zeros does. */
    assert_true(hash[0] == hash[1] && hash[0] == hash[2] && hash[0] == hash[5]);
    assert_true(hash[0] != hash[3]);
    drop_dir(dir);
}

/* --relu-density: of the gate's rows all but 2 D hold nothing but a -1 in column 0, the channel that is
 * positive always, since no matrix adds to it; in both forms the same codes. */
static void test_density(void **state)
{
    (void)state;
    char *dir = temp_dir();
    int64_t closed[2] = { 0, 0 };
    for (int master = 0; master < 2; master++) {
        st_synth s = { .like = "tiny", .seed = 5, .zero_share = -1.0, .relu_density = 0.1, .float_master = master };
        const char *name = master ? "master" : "packed";
        setun_view v, scale;
        setun_error err = { 0 };
        if (make(dir, name, &s, &err) != SETUN_OK)
            fail_msg("%s", err.text);
        st_weights *w = open_weights(dir, name);
        for (int layer = 0; layer < 2; layer++)
            for (size_t i = 0; i < 7; i++) {
                char full[128];
                (void)snprintf(full, sizeof full, "model.layers.%d.%s", layer, linears[i]);
                assert_int_equal(ask_ternary(w, full, 0, &v, &scale, NULL), SETUN_OK);
                int adds = strstr(full, "o_proj") || strstr(full, "down_proj"), is_gate = !!strstr(full, "gate_proj");
                for (int64_t r = 0; r < v.dim[0]; r++) {
                    int64_t others = 0;
                    for (int64_t c = 1; c < v.dim[1]; c++)
                        others += t2_at(&v, r, c) != 0;
                    assert_true(others == 0 ? is_gate || (adds && r == 0) : !(adds && r == 0));
                    if (others == 0)
                        assert_int_equal(t2_at(&v, r, 0), is_gate ? -1 : 0);
                    closed[master] += is_gate && others == 0;
                }
            }
        assert_int_equal(st_weights_tensor(w, "model.embed_tokens.weight", 0, &v, NULL), SETUN_OK);
        for (int64_t r = 0; r < v.dim[0]; r++)
            assert_true(setun_get_f32(&v, r * v.dim[1]) == 2.0f && setun_get_f32(&v, r * v.dim[1] + 1) != 2.0f);
        st_weights_close(w);
    }
    assert_true(closed[0] > 0.76 * 2 * 768 && closed[0] < 0.84 * 2 * 768 && closed[0] == closed[1]);
    /* --down-density: the gains of some channels before down become so small that they are 0. */
    st_synth s = { .like = "tiny", .zero_share = -1.0, .down_density = 0.1 };
    setun_view v;
    int64_t quiet = 0;
    assert_int_equal(make(dir, "quiet", &s, NULL), SETUN_OK);
    st_weights *w = open_weights(dir, "quiet");
    assert_int_equal(st_weights_tensor(w, "model.layers.1.mlp.ffn_sub_norm.weight", SETUN_F32, &v, NULL), SETUN_OK);
    for (int64_t i = 0; i < 768; i++)
        quiet += ((float *)v.data)[i] < ((float *)v.data)[0] / 100 || ((float *)v.data)[0] < ((float *)v.data)[i] / 100;
    quiet = quiet < 384 ? 768 - quiet : quiet; /* whichever kind channel 0 is of */
    assert_true(quiet > 0.63 * 768 && quiet < 0.78 * 768);
    st_weights_close(w);
    s.down_density = 0.4;
    assert_int_equal(make(dir, "x", &s, NULL), SETUN_BAD_ARG);
    s = (st_synth){ .like = "tiny", .zero_share = -1.0, .relu_density = 0.6 };
    assert_int_equal(make(dir, "x", &s, NULL), SETUN_BAD_ARG);
    s = (st_synth){ .like = "llama-tiny", .zero_share = -1.0, .relu_density = 0.2 };
    assert_int_equal(make(dir, "x", &s, NULL), SETUN_BAD_ARG);
    drop_dir(dir);
}

static void test_tokenizer(void **state)
{
    (void)state;
    static const char text[] = "To be, or not to be: that is the question 1958.\n";
    char *dir = temp_dir(), *path = join(dir, "m");
    st_synth s = { .like = "tiny", .seed = 1, .zero_share = -1.0 };
    assert_int_equal(make(dir, "m", &s, NULL), SETUN_OK);
    st_tokenizer *t;
    assert_int_equal(st_tokenizer_open(&t, path, NULL), SETUN_OK);
    assert_int_equal(st_tokenizer_size(t), 1024);
    assert_int_equal(st_tokenizer_bos(t), 1021);
    assert_int_equal(st_tokenizer_find(t, "<|end_of_text|>"), 1022);
    assert_int_equal(st_tokenizer_find(t, "<|eot_id|>"), 1023);
    int32_t *ids;
    int64_t n, at = 0;
    assert_int_equal(st_tokenizer_encode(t, text, sizeof text - 1, 0, &ids, &n, NULL), SETUN_OK);
    assert_true(n < 40); /* words are merged, if not into sense */
    for (int64_t i = 0; i < n; i++) {
        const char *bytes;
        int64_t len;
        int special;
        assert_int_equal(st_tokenizer_bytes(t, ids[i], &bytes, &len, &special, NULL), SETUN_OK);
        assert_memory_equal(bytes, text + at, (size_t)len);
        at += len;
    }
    assert_int_equal(at, sizeof text - 1);
    free(ids);
    st_tokenizer_close(t);
    free(path);
    drop_dir(dir);
}

/* Same seed, same bytes; another seed, others. */
static void test_reproducible(void **state)
{
    (void)state;
    static const char *const files[] = { "config.json", "generation_config.json", "tokenizer.json",
                                         "tokenizer_config.json", "model.safetensors" };
    char *dir = temp_dir(), *a = join(dir, "a"), *b = join(dir, "b"), *c = join(dir, "c");
    st_synth s = { .like = "tiny", .seed = 3, .zero_share = -1.0 };
    assert_int_equal(make(dir, "a", &s, NULL), SETUN_OK);
    assert_int_equal(make(dir, "b", &s, NULL), SETUN_OK);
    s.seed = 4;
    assert_int_equal(make(dir, "c", &s, NULL), SETUN_OK);
    for (int i = 0; i < 5; i++) {
        char *text[3], *path;
        int64_t n[3];
        const char *dirs[3] = { a, b, c };
        for (int k = 0; k < 3; k++) {
            path = join(dirs[k], files[i]);
            assert_int_equal(st_file_read(path, 1 << 24, &text[k], &n[k], NULL), SETUN_OK);
            free(path);
        }
        assert_int_equal(n[0], n[1]);
        assert_memory_equal(text[0], text[1], (size_t)n[0]);
        if (i == 4)
            assert_true(n[0] == n[2] && memcmp(text[0], text[2], (size_t)n[0]) != 0);
        for (int k = 0; k < 3; k++)
            free(text[k]);
    }
    free(a);
    free(b);
    free(c);
    drop_dir(dir);
}

static int stop_soon(void *user, int64_t done, int64_t total)
{
    assert_true(done > 0 && done <= total);
    return ++*(int *)user == 2;
}

static int64_t count_entries(const char *dir)
{
    char **names;
    int64_t n;
    assert_int_equal(st_dir_list(dir, &names, &n, NULL), SETUN_OK);
    st_dir_free(names, n);
    return n;
}

static void test_refused(void **state)
{
    (void)state;
    char *dir = temp_dir(), *config = join(dir, "given.json");
    setun_error err = { 0 };
    int calls = 0;
    st_synth s = { .like = "tiny", .zero_share = -1.0, .progress = stop_soon, .user = &calls };
    assert_int_equal(make(dir, "m", &s, &err), SETUN_CANCELLED);
    assert_int_equal(count_entries(dir), 0);
    s = (st_synth){ .like = "huge", .zero_share = -1.0 };
    assert_int_equal(make(dir, "m", &s, &err), SETUN_UNKNOWN);
    assert_non_null(strstr(err.text, "2b4t"));
    s = (st_synth){ .like = "tiny", .zero_share = 0.99 };
    assert_int_equal(make(dir, "m", &s, &err), SETUN_BAD_ARG);
    s = (st_synth){ .like = "tiny", .zero_share = -1.0 };
    put_text(dir, "m", "in the way");
    assert_int_equal(make(dir, "m", &s, &err), SETUN_BAD_ARG);
    assert_non_null(strstr(err.text, "exists"));

    static const struct {
        const char *config, *says;
    } cases[] = {
        { "[]", "not a configuration" },
        { "{}", "architecture" },
        { "{\"architectures\":[\"BertModel\"]}", "BertModel" },
        { "{\"architectures\":[\"LlamaForCausalLM\"]}", "hidden_size" },
        { "{\"architectures\":[\"LlamaForCausalLM\"],\"attention_bias\":true}", "attention_bias" },
        { "{\"architectures\":[\"LlamaForCausalLM\"],\"hidden_size\":128,\"intermediate_size\":256,\"num_hidden_layers\":1,"
          "\"num_attention_heads\":2,\"max_position_embeddings\":64,\"vocab_size\":300,\"odd_key\":1}",
          "odd_key" },
        { "{\"architectures\":[\"LlamaForCausalLM\"],\"hidden_size\":128,\"intermediate_size\":254,\"num_hidden_layers\":1,"
          "\"num_attention_heads\":2,\"max_position_embeddings\":64,\"vocab_size\":300,"
          "\"quantization_config\":{\"quant_method\":\"bitnet\"}}",
          "four planes" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put_text(dir, "given.json", cases[i].config);
        s = (st_synth){ .config = config, .zero_share = -1.0 };
        if (make(dir, "n", &s, &err) >= 0 || !strstr(err.text, cases[i].says))
            fail_msg("%s: says '%s'", cases[i].config, err.text);
        assert_int_equal(count_entries(dir), 2); /* given.json and m */
    }
    free(config);
    drop_dir(dir);
}

/* A full disk, at every file: one sentence, and nothing is left. */
static void test_no_room(void **state)
{
    (void)state;
    char *dir = temp_dir();
    struct rlimit old, small;
    setun_error err = { 0 };
    st_synth s = { .like = "tiny", .zero_share = -1.0 };
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    static const rlim_t room[] = { 0, 300, 5000, 30000, 400000 };
    for (size_t i = 0; i < sizeof room / sizeof *room; i++) {
        small = old;
        small.rlim_cur = room[i];
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
        setun_status st = make(dir, "m", &s, &err);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
        assert_int_equal(st, SETUN_IO);
        assert_non_null(strstr(err.text, "cannot write"));
        assert_int_equal(count_entries(dir), 0);
    }
    (void)signal(SIGXFSZ, handler);
    drop_dir(dir);
}

/* A shape of one's own, with sizes that no kernel likes. */
static void test_config(void **state)
{
    (void)state;
    char *dir = temp_dir(), *config = join(dir, "given.json");
    put_text(
        dir, "given.json",
        "{\"architectures\":[\"BitNetForCausalLM\"],\"hidden_size\":84,\"intermediate_size\":132,\"num_hidden_layers\":2,"
        "\"num_attention_heads\":3,\"num_key_value_heads\":1,\"max_position_embeddings\":64,\"vocab_size\":301,"
        "\"tie_word_embeddings\":false,\"head_dim\":20,\"bos_token_id\":1,"
        "\"quantization_config\":{\"quant_method\":\"bitnet\",\"linear_class\":\"autobitlinear\"}}");
    st_synth s = { .config = config, .seed = 1, .zero_share = 0.5 };
    setun_error err = { 0 };
    if (make(dir, "m", &s, &err) != SETUN_OK)
        fail_msg("%s", err.text);
    st_weights *w = open_weights(dir, "m");
    const char *rule;
    double zeros;
    (void)walk(w, &zeros, &rule);
    assert_true(zeros > 0.48 && zeros < 0.52);
    assert_int_equal(st_weights_all_used(w, NULL), SETUN_OK);
    assert_int_equal(st_weights_find(w, "model.layers.1.self_attn.o_proj.weight")->view.dim[1], 60);
    int64_t n;
    const st_hparam *hp = st_weights_config(w, &n);
    for (int64_t i = 0; i < n; i++)
        if (strcmp(hp[i].key, "bos_token_id") == 0)
            assert_int_equal(hp[i].i, 298);
    st_weights_close(w);
    free(config);
    drop_dir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shapes),       cmocka_unit_test(test_density), cmocka_unit_test(test_tokenizer),
        cmocka_unit_test(test_reproducible), cmocka_unit_test(test_refused),
        cmocka_unit_test(test_no_room),      cmocka_unit_test(test_config),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
