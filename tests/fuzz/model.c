/* tests/fuzz/model.c -- a whole small model through the public API, with one of its files replaced.
 *
 * The first line says which: "config", "generation", "tokenizer", "header" (of the safetensors file, whose
 * length is then said right) or "script" (the model's architecture script); the rest is that file.  A model
 * that loads is fed tokens, good and bad. */
#include "tests/fuzz/fuzz.h"

#include "setun/setun.h"

static const char shape[] =
    "{\"architectures\":[\"BitNetForCausalLM\"],\"model_type\":\"bitnet\",\"hidden_act\":\"relu2\",\"tie_word_embeddings\":true,"
    "\"hidden_size\":64,\"intermediate_size\":128,\"num_hidden_layers\":1,\"num_attention_heads\":2,\"num_key_value_heads\":1,"
    "\"vocab_size\":320,\"max_position_embeddings\":64,\"rms_norm_eps\":1e-5,\"rope_theta\":10000.0,\"bos_token_id\":1,"
    "\"eos_token_id\":2,\"torch_dtype\":\"bfloat16\",\"quantization_config\":{\"quant_method\":\"bitnet\","
    "\"linear_class\":\"autobitlinear\",\"quantization_mode\":\"offline\"}}";

enum { CONFIG, GENERATION, TOKENIZER, HEADER, SCRIPT, N_FILES };
static const char *const word[N_FILES] = {"config\n", "generation\n", "tokenizer\n", "header\n", "script\n"};
static const char *const file[N_FILES] = {"model/config.json", "model/generation_config.json", "model/tokenizer.json",
                                          "model/model.safetensors", "t.lua"};
static char   *good[N_FILES];
static int64_t bytes[N_FILES];

static void make(void)
{
    char config[1024], out[1024];
    setun_error err = {0, ""};
    (void)snprintf(config, sizeof config, "%s", fuzz_put("shape.json", shape, sizeof shape - 1));
    (void)snprintf(out, sizeof out, "%s", fuzz_path("model"));
    setun_synth_options o = {.size = sizeof o, .config = config, .out = out, .seed = 1, .zero_share = -1};
    fuzz_judge(setun_synth(&o, &err), &err, "never");
    for (int i = 0; i < SCRIPT; i++)
        fuzz_judge(st_file_read(fuzz_path(file[i]), 1 << 20, &good[i], &bytes[i], &err), &err, "never");
}

/* The new header, its length, and the data of the good file. */
static void put_header(const uint8_t *text, size_t n)
{
    uint64_t was = 0;
    st_str s = {0};
    for (int i = 7; i >= 0; i--)
        was = was << 8 | (uint8_t)good[HEADER][i];
    for (int i = 0; i < 8; i++)
        st_str_addn(&s, &(char){(char)((uint64_t)n >> 8 * i)}, 1);
    st_str_addn(&s, text, n);
    st_str_addn(&s, good[HEADER] + 8 + was, (size_t)bytes[HEADER] - 8 - (size_t)was);
    FUZZ_CHECK(!s.failed);
    (void)fuzz_put(file[HEADER], s.text, s.len);
    st_str_free(&s);
}

/* A session refuses tokens that the vocabulary does not have, and goes on as if nothing had been said. */
static void feed(setun_model *m)
{
    setun_session *s = NULL;
    const float *logits = NULL;
    const int32_t tokens[3] = {1, 5, 9}, bad[] = {-1, INT32_MIN, INT32_MAX, (int32_t)setun_model_n_vocab(m)};
    setun_error err = {0, ""};
    setun_status st = setun_session_new(&s, m, &err);
    if (st == SETUN_OK)
        st = setun_session_feed(s, tokens, 3, SETUN_LOGITS_LAST, &logits, &err);
    fuzz_judge(st, &err, "");
    for (size_t i = 0; st == SETUN_OK && i < sizeof bad / sizeof *bad; i++) {
        const int32_t some[3] = {1, bad[i], 2};
        FUZZ_CHECK(setun_session_feed(s, some, 3, SETUN_LOGITS_LAST, &logits, &err) == SETUN_BAD_ARG);
        fuzz_judge(SETUN_BAD_ARG, &err, "");
        FUZZ_CHECK(setun_session_position(s) == 3);
    }
    setun_session_free(s);
}

static void load(const char *script)
{
    setun_options o;
    setun_model *m = NULL;
    setun_error err = {0, ""};
    setun_options_init(&o);
    o.n_threads = 1;
    o.interpret = 1;
    o.n_batch = 4;
    o.n_ctx = 16;
    o.script = script;
    char dir[1024];
    (void)snprintf(dir, sizeof dir, "%s", fuzz_path("model"));
    setun_status s = setun_model_load(&m, dir, &o, &err);
    fuzz_judge(s, &err, "");
    FUZZ_CHECK((s == SETUN_OK) == (m != NULL));
    if (m)
        feed(m);
    setun_model_free(m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    char script[1024];
    int i = 0;
    if (!good[0])
        make();
    while (i < N_FILES && (n < strlen(word[i]) || memcmp(data, word[i], strlen(word[i])) != 0))
        i++;
    if (i == N_FILES)
        return 0;
    data += strlen(word[i]);
    n -= strlen(word[i]);
    if (i == HEADER)
        put_header(data, n);
    else
        (void)fuzz_put(file[i], data, n);
    (void)snprintf(script, sizeof script, "%s", fuzz_path("t.lua"));
    load(i == SCRIPT ? script : NULL);
    if (i < SCRIPT)
        (void)fuzz_put(file[i], good[i], (size_t)bytes[i]);
    return 0;
}
