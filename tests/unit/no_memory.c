/* tests/unit/no_memory.c -- memory that runs out, at every place, through the public API alone.
 *
 * The build makes the library's own calls of malloc and its relatives go through the functions below
 * (--wrap), which can refuse the n-th.  Whatever is refused, a call gives SETUN_OK or a sentence; what a
 * crash or a leak is, the sanitizers decide.  (Damaged files: tests/fuzz/.) */
#include "tests/unit/gguf_files.h"

#include <string.h>
#include <sys/stat.h>

#include "setun/setun.h"

/* ---------------------------------------------------------------- memory that runs out */

static long n_calls, fail_at = -1, fail_until; /* refuses calls fail_at .. fail_until - 1 */

static int refused(void)
{
    long n = n_calls++;
    return fail_at >= 0 && n >= fail_at && n < fail_until;
}

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void *__real_aligned_alloc(size_t alignment, size_t n);
char *__real_strdup(const char *s);
char *__real_strndup(const char *s, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);
void *__wrap_aligned_alloc(size_t alignment, size_t n);
char *__wrap_strdup(const char *s);
char *__wrap_strndup(const char *s, size_t n);

void *__wrap_malloc(size_t n) { return refused() ? NULL : __real_malloc(n); }
void *__wrap_calloc(size_t n, size_t size) { return refused() ? NULL : __real_calloc(n, size); }
void *__wrap_realloc(void *p, size_t n) { return refused() ? NULL : __real_realloc(p, n); }
void *__wrap_aligned_alloc(size_t a, size_t n) { return refused() ? NULL : __real_aligned_alloc(a, n); }
char *__wrap_strdup(const char *s) { return refused() ? NULL : __real_strdup(s); }
char *__wrap_strndup(const char *s, size_t n) { return refused() ? NULL : __real_strndup(s, n); }

/* ---------------------------------------------------------------- a tiny model */

static const char shape[] =
    "{\"architectures\":[\"BitNetForCausalLM\"],\"model_type\":\"bitnet\",\"hidden_act\":\"relu2\",\"tie_word_embeddings\":true,"
    "\"hidden_size\":64,\"intermediate_size\":128,\"num_hidden_layers\":1,\"num_attention_heads\":2,\"num_key_value_heads\":1,"
    "\"vocab_size\":320,\"max_position_embeddings\":64,\"rms_norm_eps\":1e-5,\"rope_theta\":10000.0,\"bos_token_id\":1,"
    "\"eos_token_id\":2,\"torch_dtype\":\"bfloat16\",\"quantization_config\":{\"quant_method\":\"bitnet\","
    "\"linear_class\":\"autobitlinear\",\"quantization_mode\":\"offline\"}}";

/* A tokenizer with one of everything that the other one has not; all its tokens are characters. */
static const char chars[] =
    "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,\"added_tokens\":["
    "{\"id\":0,\"content\":\"<unk>\",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,\"normalized\":false,\"special\":true},"
    "{\"id\":40,\"content\":\"<|eot_id|>\",\"normalized\":true,\"special\":true}],"
    "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"},{\"type\":\"Prepend\",\"prepend\":\"\xe2\x96\x81\"},"
    "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"\xe2\x96\x81\"}]},"
    "\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":["
    "{\"type\":\"Metaspace\",\"replacement\":\"\xe2\x96\x81\",\"prepend_scheme\":\"first\",\"split\":true},"
    "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\\\\p{L}+|\\\\s*[.,:]\"},\"behavior\":\"MergedWithPrevious\",\"invert\":true},"
    "{\"type\":\"Digits\",\"individual_digits\":true},{\"type\":\"Punctuation\",\"behavior\":\"Contiguous\"}]},"
    "\"post_processor\":null,\"decoder\":{\"type\":\"Sequence\",\"decoders\":["
    "{\"type\":\"Replace\",\"pattern\":{\"String\":\"\xe2\x96\x81\"},\"content\":\" \"},{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"},"
    "{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}]},"
    "\"model\":{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":\"<unk>\",\"fuse_unk\":true,\"byte_fallback\":false,\"ignore_merges\":true,"
    "\"vocab\":{\"<unk>\":0,\"<0x0A>\":1,\"\xe2\x96\x81\":2,\"t\":3,\"o\":4,\"b\":5,\"e\":6,\"\xe2\x96\x81t\":7,\"be\":8,\"to\":9,"
    "\"\xe2\x96\x81to\":10,\"3\":11,\".\":12,\"\xe2\x82\xac\":13,\"r\":14,\"or\":15},"
    "\"merges\":[\"\xe2\x96\x81 t\",[\"b\",\"e\"],[\"t\",\"o\"],\"\xe2\x96\x81t o\",\"o r\"]}}";

typedef struct world {
    char   *dir, *model, *chars;
} world;

static int make_world(void **state)
{
    world *w = calloc(1, sizeof *w);
    setun_error err = {0, ""};
    assert_non_null(w);
    w->dir = temp_dir();
    w->model = join(w->dir, "model");
    char *config = join(w->dir, "shape.json");
    put_text(w->dir, "shape.json", shape);
    setun_synth_options o = {.size = sizeof o, .config = config, .out = w->model, .seed = 1, .zero_share = -1};
    if (setun_synth(&o, &err) != SETUN_OK)
        fail_msg("%s", err.text);
    free(config);
    gguf_maker m = {.alignment = 32};
    st_str file = {0};
    const uint8_t codes[64 + 32] = {[66] = 0x80, [67] = 0x3f};
    kv_text(&m, "general.architecture", "bitnet");
    kv_array(&m, "words", KV_STRING, 1, "\3\0\0\0\0\0\0\0abc", 11);
    gguf_tensor(&m, "codes", 36, 2, (const int64_t[]){128, 2}, codes, sizeof codes);
    gguf_bytes(&m, &file);
    put_file(w->dir, "file", file.text, file.len);
    st_str_free(&file);
    w->chars = join(w->dir, "chars");
    assert_int_equal(mkdir(w->chars, 0777), 0);
    put_file(w->chars, "tokenizer.json", chars, sizeof chars - 1);
    *state = w;
    return 0;
}

static int drop_world(void **state)
{
    world *w = *state;
    free(w->model);
    free(w->chars);
    drop_dir(w->dir);
    free(w);
    return 0;
}

/* Load, feed good and bad tokens, read text back: everything a program does with a model. */
static setun_status use(const world *w, const char *cache, const char *packing, setun_error *err)
{
    setun_options o;
    setun_model *m = NULL;
    setun_session *s = NULL;
    const float *logits = NULL;
    const int32_t good[3] = {1, 5, 9};
    setun_options_init(&o);
    o.n_threads = 1;
    o.interpret = 1;
    o.n_batch = 8;
    o.cache_dir = cache;
    o.packing = packing;
    o.from_floats = packing != NULL;
    setun_status status = setun_model_load(&m, w->model, &o, err);
    if (status == SETUN_OK)
        status = setun_session_new(&s, m, err);
    if (status == SETUN_OK)
        status = setun_session_feed(s, good, 3, SETUN_LOGITS_LAST, &logits, err);
    if (status == SETUN_OK) {
        const int32_t bad[] = {-1, INT32_MIN, INT32_MAX, (int32_t)setun_model_n_vocab(m)};
        setun_error why = {0, ""};
        assert_non_null(logits);
        for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
            const int32_t some[3] = {1, bad[i], 2};
            assert_int_equal(setun_session_feed(s, some, 3, SETUN_LOGITS_LAST, &logits, &why), SETUN_BAD_ARG);
            assert_true(why.text[0] != 0 && setun_session_position(s) == 3);
        }
        assert_int_equal(setun_session_feed(s, good, 0, SETUN_LOGITS_NONE, NULL, &why), SETUN_BAD_ARG);
        assert_int_equal(setun_session_feed(s, good, 1, 7, NULL, &why), SETUN_BAD_ARG);
        assert_int_equal(setun_session_rewind(s, 4, &why), SETUN_BAD_ARG);
        assert_int_equal(setun_session_rewind(s, -1, &why), SETUN_BAD_ARG);
    }
    setun_session_free(s);
    setun_model_free(m);
    return status;
}

static setun_status use_tokenizer(const char *dir, setun_error *err)
{
    static const char text[] = "To be, or not to be: 3.14 \xe2\x82\xac\n\n  <|eot_id|>";
    setun_vocab *v = NULL;
    int32_t *ids = NULL;
    int64_t n = 0;
    setun_status s = setun_vocab_open(&v, dir, err);
    if (s == SETUN_OK)
        s = setun_vocab_encode(v, text, sizeof text - 1, SETUN_ENCODE_BOS | SETUN_ENCODE_SPECIAL, &ids, &n, err);
    for (int64_t i = 0; s == SETUN_OK && i < n; i++) {
        const char *bytes;
        size_t count;
        assert_in_range(ids[i], 0, setun_vocab_size(v) - 1);
        assert_int_equal(setun_vocab_piece(v, ids[i], 1, &bytes, &count, err), SETUN_OK);
    }
    if (s == SETUN_OK) {
        const char *bytes;
        size_t count;
        setun_error why = {0, ""};
        assert_int_not_equal(setun_vocab_piece(v, -1, 1, &bytes, &count, &why), SETUN_OK);
        assert_int_not_equal(setun_vocab_piece(v, INT32_MAX, 1, &bytes, &count, &why), SETUN_OK);
        int32_t *none = NULL;
        assert_int_not_equal(setun_vocab_encode(v, "a\xff", 2, 0, &none, &n, &why), SETUN_OK);
        assert_null(none);
    }
    setun_free(ids);
    setun_vocab_free(v);
    return s;
}

static setun_status use_vocab(const world *w, setun_error *err) { return use_tokenizer(w->model, err); }
static setun_status use_chars(const world *w, setun_error *err) { return use_tokenizer(w->chars, err); }

/* ---------------------------------------------------------------- refused memory */

static void run_out(const world *w, setun_status (*fn)(const world *, setun_error *), int tries)
{
    setun_error err = {0, ""};
    int refusals = 0, wrong = 0;
    n_calls = 0;
    fail_at = -1;
    if (fn(w, &err) != SETUN_OK)
        fail_msg("%s", err.text);
    long all = n_calls;
    assert_true(all > 10);
    tries = all < tries ? (int)all : tries;
    for (int i = 0; i < tries; i++) {
        for (int from_then_on = 0; from_then_on < 2; from_then_on++) {
            err.text[0] = 0;
            /* Every one of the first, then spread over the rest. */
            fail_at = i < tries / 3 ? i : tries / 3 + (all - tries / 3) * (i - tries / 3) / (tries - tries / 3);
            fail_until = from_then_on ? all * 16 : fail_at + 1;
            n_calls = 0;
            setun_status s = fn(w, &err);
            long at = fail_at;
            fail_at = -1;
            refusals += s == SETUN_NO_MEMORY;
            /* Memory that a script asks for is the script's; a refused cache is only slower. */
            if (s != SETUN_OK && ((s != SETUN_NO_MEMORY && s != SETUN_BAD_SCRIPT) || !err.text[0]))
                wrong += printf("allocation %ld of %ld refused: status %d with the text '%s'\n", at, all, s, err.text) != 0;
        }
    }
    assert_int_equal(wrong, 0);
    assert_true(refusals > tries / 4);
}

static setun_status without_cache(const world *w, setun_error *err) { return use(w, NULL, NULL, err); }

static int drop(void *user, const char *text, size_t n)
{
    (void)user;
    return text[n] != 0;
}

static setun_status use_file(const world *w, setun_error *err)
{
    char *path = __real_malloc(strlen(w->dir) + 16);
    setun_file_options o = {.size = sizeof o, .values = 1, .i2s_layout = "x86"};
    assert_non_null(path);
    (void)sprintf(path, "%s/file", w->dir);
    setun_status s = setun_file_info(path, &o, drop, NULL, err);
    free(path);
    return s;
}

static setun_status use_cache(const world *w, const char *packing, setun_error *err)
{
    char *cache = __real_malloc(strlen(w->dir) + 16);
    assert_non_null(cache);
    (void)sprintf(cache, "%s/cache", w->dir);
    setun_status s = use(w, cache, packing, err);
    if (s == SETUN_OK && packing)
        s = use(w, cache, packing, err); /* what the cache has by now */
    long was = fail_at;
    fail_at = -1;
    remove_tree(cache);
    fail_at = was;
    free(cache);
    return s;
}

static setun_status with_cache(const world *w, setun_error *err) { return use_cache(w, NULL, err); }
static setun_status with_packing(const world *w, setun_error *err)
{
    return use_cache(w, SETUN_SOURCE_DIR "/scripts/packings/int4.lua", err);
}

/* A trace, and the trace against itself by a map. */
static setun_status use_trace(const world *w, setun_error *err)
{
    static const int32_t tokens[3] = {1, 5, 9};
    setun_model *m = NULL;
    setun_options o;
    int32_t differs = 1;
    char *out = __real_malloc(strlen(w->dir) + 16), *map = __real_malloc(strlen(w->dir) + 16);
    assert_true(out && map);
    (void)sprintf(out, "%s/trace", w->dir);
    (void)sprintf(map, "%s/map", w->dir);
    FILE *f = fopen(map, "w");
    assert_non_null(f);
    fputs("blk.*.attn_q blk.*.attn_q.npy\nlogits logits\n", f);
    fclose(f);
    setun_options_init(&o);
    o.n_threads = 1;
    o.interpret = 1;
    o.n_batch = 8;
    setun_trace_options t = {.size = sizeof t, .force = 1, .out = out, .tokens = tokens, .n_tokens = 3};
    setun_tracediff_options d = {.size = sizeof d, .json = 1, .a = out, .b = out};
    setun_status s = setun_model_load(&m, w->model, &o, err);
    if (s == SETUN_OK)
        s = setun_trace(m, &t, drop, NULL, err);
    setun_model_free(m);
    if (s == SETUN_OK)
        s = setun_tracediff(&d, &differs, drop, NULL, err);
    d.map = map;
    if (s == SETUN_OK)
        s = setun_tracediff(&d, &differs, drop, NULL, err);
    assert_true(s != SETUN_OK || !differs);
    free(map);
    free(out);
    return s;
}

static void test_memory(void **state)
{
    run_out(*state, use_vocab, 60);
    run_out(*state, use_file, 30);
    run_out(*state, use_chars, 60);
    run_out(*state, without_cache, 60);
    run_out(*state, with_cache, 30);
    run_out(*state, with_packing, 30);
    run_out(*state, use_trace, 60);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_memory)};
    return cmocka_run_group_tests(tests, make_world, drop_world);
}
