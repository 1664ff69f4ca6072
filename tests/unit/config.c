/* tests/unit/config.c -- config.json: flattened, and refused where it is not understood. */
#include "tests/unit/files.h"

#include "model/config.h"

#define ARCH "\"architectures\":[\"X\"]"

static setun_status open_text(const char *config, const char *generation, st_config *c, st_arena *a,
                              setun_error *err)
{
    char *dir = temp_dir();
    if (config)
        put_text(dir, "config.json", config);
    if (generation)
        put_text(dir, "generation_config.json", generation);
    setun_status st = st_config_open(c, dir, a, err);
    drop_dir(dir);
    return st;
}

static void test_shakespeare(void **state)
{
    (void)state;
    st_arena *a = st_arena_new();
    st_config c;
    assert_int_equal(st_config_open(&c, SETUN_SOURCE_DIR "/tests/models/shakespeare", a, NULL),
                     SETUN_OK);
    assert_string_equal(c.architecture, "BitNetForCausalLM");
    assert_int_equal(st_config_find(&c, "hidden_size")->i, 256);
    assert_int_equal(st_config_find(&c, "hidden_size")->kind, ST_HP_INT);
    assert_int_equal(st_config_find(&c, "rope_theta")->kind, ST_HP_FLOAT);
    assert_true(st_config_find(&c, "rope_theta")->f == 10000.0);
    assert_int_equal(st_config_find(&c, "tie_word_embeddings")->kind, ST_HP_BOOL);
    assert_string_equal(st_config_find(&c, "quantization_config.linear_class")->s, "autobitlinear");
    assert_int_equal(st_config_find(&c, "generation.eos_token_id.1")->i, 1022);
    assert_int_equal(st_config_find(&c, "generation.eos_token_id.2")->i, 1023);
    assert_null(st_config_find(&c, "torch_dtype"));
    st_arena_free(a);
}

static void test_flatten(void **state)
{
    (void)state;
    st_arena *a = st_arena_new();
    st_config c;
    assert_int_equal(
        open_text("{" ARCH
                  ",\"eos_token_id\":[3,4],\"rope_scaling\":{\"type\":\"linear\",\"factor\":2},"
                  "\"head_dim\":null,\"auto_map\":{\"AutoConfig\":\"x.Y\"},\"rms_norm_eps\":1e-6}",
                  "{\"eos_token_id\":7,\"unheard_of\":[1],\"top_p\":0.5}", &c, a, NULL),
        SETUN_OK);
    assert_int_equal(st_config_find(&c, "eos_token_id.2")->i, 4);
    assert_string_equal(st_config_find(&c, "rope_scaling.type")->s, "linear");
    assert_int_equal(st_config_find(&c, "rope_scaling.factor")->i, 2);
    assert_null(st_config_find(&c, "head_dim"));
    assert_int_equal(st_config_find(&c, "generation.eos_token_id.1")->i, 7);
    assert_true(st_config_find(&c, "generation.top_p")->f == 0.5);
    assert_true(st_config_find(&c, "rms_norm_eps")->f == 1e-6);
    st_arena_free(a);
}

static void test_refused(void **state)
{
    (void)state;
    static const struct {
        const char *config, *generation, *says;
    } cases[] = {
        { NULL, NULL, "no config.json" },
        { "", NULL, "JSON" },
        { "[]", NULL, "JSON object" },
        { "{}", NULL, "architectures" },
        { "{\"architectures\":[]}", NULL, "architectures" },
        { "{\"architectures\":[7]}", NULL, "architectures" },
        { "{\"architectures\":[\"X\",\"Y\"]}", NULL, "architectures does not name one, but several" },
        { "{" ARCH ",\"attention_logit_cap\":30}", NULL, "attention_logit_cap" },
        { "{" ARCH ",\"quantization_config\":{\"blocks\":1}}", NULL, "quantization_config.blocks" },
        { "{" ARCH ",\"hidden_size\":1,\"hidden_size\":2}", NULL, "duplicate" },
        { "{" ARCH ",\"rope_scaling\":{\"a\":{\"b\":{\"c\":{\"d\":1}}}}}", NULL, "deeply" },
        { "{" ARCH ",\"rope_scaling\":{\"a.b\":1}}", NULL, "a.b" },
        { "{" ARCH ",\"hidden_size\":1e999}", NULL, "JSON" },
        { "{" ARCH ",\"hidden_size\":99999999999999999999}", NULL, "JSON" },
        { "{" ARCH "}", "{\"eos_token_id\":\"x\"}", "eos_token_id" },
        { "{" ARCH "}", "[", "JSON" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        st_arena *a = st_arena_new();
        st_config c;
        setun_error err = { 0 };
        if (open_text(cases[i].config, cases[i].generation, &c, a, &err) >= 0 ||
            !strstr(err.text, cases[i].says))
            fail_msg("%s: says '%s'", cases[i].config, err.text);
        st_arena_free(a);
    }
}

/* Many values below a dropped key are still bounded. */
static void test_flood(void **state)
{
    (void)state;
    st_str s = { 0 };
    st_arena *a = st_arena_new();
    st_config c;
    setun_error err = { 0 };
    st_str_add(&s, "{" ARCH ",\"auto_map\":{\"x\":[1");
    for (int i = 0; i < 100000; i++)
        st_str_add(&s, ",1");
    st_str_add(&s, "]}}");
    assert_true(open_text(s.text, NULL, &c, a, &err) < 0);
    assert_non_null(strstr(err.text, "more than"));
    st_str_free(&s);
    st_arena_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shakespeare),
        cmocka_unit_test(test_flatten),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_flood),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
