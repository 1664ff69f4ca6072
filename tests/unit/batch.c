/* tests/unit/batch.c -- sequences that decode together get the bits that they get alone.
 *
 * Every sequence has its own text and starts at its own position; what it should give, step by step, is
 * first recorded from a session that is alone.  The tests differ in backend, threads, head, number of
 * sequences and in what is done between the steps. */
#include "tests/unit/files.h"

#include "setun/setun.h"

#define MODEL SETUN_SOURCE_DIR "/tests/models/shakespeare"
#define N_CTX 160
#define MOST 17   /* sequences; from 16 on, kernels for many tokens take another way */
#define STEPS 7
#define TEXT (N_CTX + 1)

static char *cache; /* of kernels, for all tests: most of them load the same model */

static setun_model *load_from(const char *path, const setun_options *with)
{
    setun_options o;
    setun_model *m = NULL;
    setun_error err = {0};
    setun_options_init(&o);
    o.backend = with->backend;
    o.plugins = with->plugins;
    o.n_threads = with->n_threads;
    o.interpret = with->interpret;
    o.full_head = with->full_head;
    o.cpu_features = with->cpu_features;
    o.kv = with->kv;
    o.n_ctx = N_CTX;
    o.n_batch = 48;
    o.cache_dir = cache;
    if (setun_model_load(&m, path, &o, &err) != SETUN_OK)
        fail_msg("%s", err.text);
    return m;
}

static setun_model *load(const setun_options *with) { return load_from(MODEL, with); }

static setun_session *session(const setun_model *m)
{
    setun_session *s = NULL;
    setun_error err = {0};
    if (setun_session_new(&s, m, &err) != SETUN_OK)
        fail_msg("%s", err.text);
    return s;
}

static setun_batch *batch(const setun_model *m, setun_session **s, int32_t n)
{
    setun_batch *b = NULL;
    setun_error err = {0};
    if (setun_batch_new(&b, m, s, n, &err) != SETUN_OK)
        fail_msg("%s", err.text);
    return b;
}

/* The vocabulary has 1024. */
static void text(int32_t *token, int64_t n, uint32_t seed)
{
    for (int64_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        token[i] = (int32_t)(seed >> 22);
    }
}

static int64_t prompt(int32_t i) { return 1 + i * 37 % 60; }
static int32_t wanted(int step) { return step % 3 == 0 ? SETUN_LOGITS_TOP : step % 3 == 1 ? SETUN_LOGITS_LAST : SETUN_LOGITS_NONE; }
static int32_t top_of(int32_t i) { return 1 + i * 13 % 40; }

static uint64_t hash_top(const setun_session *s)
{
    setun_top top = {.size = sizeof top};
    float id[SETUN_MAX_TOP];
    setun_session_top(s, &top);
    for (int32_t i = 0; i < top.n; i++)
        id[i] = (float)top.id[i];
    return setun_hash(setun_hash(0, top.logit, top.n), id, top.n);
}

/* What was asked for, as a number. */
static uint64_t hash(const setun_session *s, int32_t want, const float *row, int64_t n_vocab)
{
    return want == SETUN_LOGITS_TOP ? hash_top(s) : want == SETUN_LOGITS_LAST ? setun_hash(0, row, n_vocab) : 0;
}

static void feed(setun_session *s, const int32_t *token, int64_t n, int32_t want, const float **row)
{
    setun_error err = {0};
    if (setun_session_feed(s, token, n, want, row, &err) != SETUN_OK)
        fail_msg("%s", err.text);
}

typedef struct record {
    int32_t  token[TEXT];
    uint64_t step[STEPS];
} record;

/* Sequence i alone: a prompt, then a token at a time. */
static void alone(const setun_model *m, int32_t i, record *r, int steps)
{
    setun_session *s = session(m);
    if (!r->token[0])
        text(r->token, TEXT, (uint32_t)i + 1);
    assert_int_equal(setun_session_set_top(s, top_of(i), NULL), SETUN_OK);
    feed(s, r->token, prompt(i), SETUN_LOGITS_NONE, NULL);
    for (int j = 0; j < steps; j++) {
        const float *row = NULL;
        feed(s, r->token + prompt(i) + j, 1, wanted(j), &row);
        r->step[j] = hash(s, wanted(j), row, setun_model_n_vocab(m));
    }
    setun_session_free(s);
}

/* The same with n of them together.  mixed: now and then one goes on alone, or back and on again. */
static void together(const setun_model *m, const record *r, int32_t n, int steps, int mixed)
{
    setun_session *s[MOST];
    int32_t token[MOST];
    const float *row[MOST];
    setun_error err = {0};
    int64_t v = setun_model_n_vocab(m);
    for (int32_t i = 0; i < n; i++) {
        s[i] = session(m);
        assert_int_equal(setun_session_set_top(s[i], top_of(i), NULL), SETUN_OK);
        feed(s[i], r[i].token, prompt(i), SETUN_LOGITS_NONE, NULL);
    }
    setun_batch *b = batch(m, s, n);
    for (int j = 0; j < steps; j++) {
        int32_t want = wanted(j);
        for (int32_t i = 0; i < n; i++)
            token[i] = r[i].token[prompt(i) + j];
        if (mixed && j % 2) {
            int32_t i = j % n;
            feed(s[i], &token[i], 1, want, &row[i]);
            assert_true(hash(s[i], want, row[i], v) == r[i].step[j]);
            assert_int_equal(setun_session_rewind(s[i], prompt(i) + j, NULL), SETUN_OK);
        }
        if (setun_batch_step(b, token, want, row, &err) != SETUN_OK)
            fail_msg("%s", err.text);
        for (int32_t i = 0; i < n; i++) {
            assert_int_equal(setun_session_position(s[i]), prompt(i) + j + 1);
            assert_true(want != SETUN_LOGITS_NONE || !row[i]);
            if (hash(s[i], want, row[i], v) != r[i].step[j])
                fail_msg("sequence %d of %d, step %d", i, n, j);
        }
    }
    setun_batch_free(b);
    for (int32_t i = 0; i < n; i++) { /* the sessions live on */
        const float *last = NULL;
        assert_int_equal(setun_session_rewind(s[i], prompt(i) + steps - 1, NULL), SETUN_OK);
        feed(s[i], &token[i], 1, wanted(steps - 1), &last);
        assert_true(hash(s[i], wanted(steps - 1), last, v) == r[i].step[steps - 1]);
        setun_session_free(s[i]);
    }
}

/* Returns whether kernels are compiled or interpreted here. */
static int compare(const setun_options *o, const int32_t *sizes, int steps)
{
    static record r[MOST];
    setun_model *m = load(o);
    setun_model_stats stats = {.size = sizeof stats};
    setun_model_get_stats(m, &stats);
    int32_t most = 0;
    int slow = strcmp(stats.isa, "eval") == 0; /* operators run as scalar C: less of it */
    steps = slow && steps > 3 ? 3 : steps;
    for (const int32_t *n = sizes; *n; n++)
        most = *n > most && (!slow || *n < 4) ? *n : most;
    for (int32_t i = 0; i < most; i++)
        alone(m, i, &r[i], steps);
    assert_true(r[0].step[0] != r[1].step[0]);
    for (const int32_t *n = sizes; *n; n++)
        if (*n <= most)
            together(m, r, *n, steps, n != sizes);
    setun_model_free(m);
    return !slow;
}

static void test_as_alone(void **state)
{
    static const int32_t all[] = {8, 1, 2, 3, MOST, 0}, some[] = {2, 5, 0};
    (void)state;
    int kernels = compare(&(setun_options){.n_threads = 1}, some, STEPS);
    compare(&(setun_options){.n_threads = 2}, all, STEPS);
    compare(&(setun_options){.n_threads = 3, .kv = "q8"}, some, 3);
    compare(&(setun_options){.n_threads = 2, .full_head = 1, .kv = "f32"}, some, STEPS);
    if (kernels)
        compare(&(setun_options){.n_threads = 2, .cpu_features = "-avx2,-avxvnni"}, some, STEPS);
}

static void test_other_backends(void **state)
{
    static const int32_t two[] = {2, 0}, three[] = {3, 0};
    (void)state;
    if (SLOW) /* they share nothing between threads that unit.session does not share with them */
        skip();
    compare(&(setun_options){.backend = "reference"}, two, 3);
    compare(&(setun_options){.n_threads = 2, .interpret = 1}, two, 3);
    compare(&(setun_options){.backend = "trace", .plugins = SETUN_BINARY_DIR "/plugins/sample_backend.so"}, three, 3);
}

/* The bundled model, with a number that is none in the embedding of one token. */
static char *damaged_model(int32_t token)
{
    static const char *const names[] = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"};
    char *dir = temp_dir();
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char *from = join(MODEL, names[i]), *to = join(dir, names[i]);
        FILE *in = fopen(from, "rb"), *out = fopen(to, "wb");
        assert_true(in && out);
        static unsigned char bytes[1 << 22];
        size_t n = fread(bytes, 1, sizeof bytes, in);
        assert_true(n > 0 && n < sizeof bytes);
        if (i == 4) { /* the embedding, bf16[1024,256], comes first */
            uint64_t header;
            memcpy(&header, bytes, 8);
            bytes[8 + header + 512 * (size_t)token] = 0xc0;
            bytes[8 + header + 512 * (size_t)token + 1] = 0x7f;
        }
        assert_int_equal(fwrite(bytes, 1, n, out), n);
        assert_int_equal(fclose(out) | fclose(in), 0);
        free(from);
        free(to);
    }
    return dir;
}

/* Where a row of logits is not finite it is computed in full, and the other rows are not. */
static void test_rows_that_fail(void **state)
{
    static record r[3];
    char *dir = damaged_model(77);
    setun_model *m = load_from(dir, &(setun_options){.n_threads = 2});
    setun_session *s[3];
    (void)state;
    for (int32_t i = 0; i < 3; i++) {
        text(r[i].token, TEXT, 30 + (uint32_t)i);
        for (int j = 0; j < TEXT; j++) /* only where it is wanted */
            r[i].token[j] += r[i].token[j] == 77;
        r[i].token[prompt(1) + 1] = i == 1 ? 77 : 78;
        s[i] = session(m);
        feed(s[i], r[i].token, prompt(1), SETUN_LOGITS_NONE, NULL);
    }
    setun_batch *b = batch(m, s, 3);
    setun_session *judge = session(m);
    for (int j = 0; j < 3; j++) {
        int32_t token[3];
        const float *row[3], *want = NULL;
        setun_error err = {0};
        for (int32_t i = 0; i < 3; i++)
            token[i] = r[i].token[prompt(1) + j];
        if (setun_batch_step(b, token, SETUN_LOGITS_TOP, row, &err) != SETUN_OK)
            fail_msg("%s", err.text);
        for (int32_t i = 0; i < 3; i++) {
            setun_top top = {.size = sizeof top};
            setun_session_top(s[i], &top);
            assert_int_equal(row[i] != NULL, i == 1 && j == 1);
            assert_int_equal(top.survivors < 0, row[i] != NULL);
            assert_int_equal(setun_session_position(s[i]), prompt(1) + j + 1);
            assert_int_equal(setun_session_rewind(judge, 0, NULL), SETUN_OK);
            feed(judge, r[i].token, prompt(1) + j, SETUN_LOGITS_NONE, NULL);
            feed(judge, &token[i], 1, SETUN_LOGITS_TOP, &want);
            assert_int_equal(want != NULL, row[i] != NULL);
            assert_true(row[i] || hash_top(judge) == hash_top(s[i]));
            assert_true(!row[i] || row[i][5] != row[i][5]);
        }
    }
    setun_batch_free(b);
    setun_session_free(judge);
    for (int32_t i = 0; i < 3; i++)
        setun_session_free(s[i]);
    setun_model_free(m);
    drop_dir(dir);
}

/* ---------------------------------------------------------------- refusals */

/* After each of them nothing has changed. */
static void test_refusals(void **state)
{
    static record r[3];
    setun_model *m = load(&(setun_options){.n_threads = 2}), *other = load(&(setun_options){.n_threads = 1});
    setun_session *s[3] = {session(m), session(m), session(m)}, *foreign = session(other);
    setun_batch *b = NULL;
    setun_error err = {0};
    const float *row[3], *full = NULL;
    (void)state;
    setun_session *twice[3] = {s[0], s[1], s[0]}, *mixed[2] = {s[0], foreign};
    assert_int_equal(setun_batch_new(&b, m, twice, 3, &err), SETUN_BAD_ARG);
    assert_non_null(strstr(err.text, "sessions 0 and 2 are the same"));
    assert_int_equal(setun_batch_new(&b, m, mixed, 2, &err), SETUN_BAD_ARG);
    assert_non_null(strstr(err.text, "session 1 is of another model"));
    assert_int_equal(setun_batch_new(&b, m, s, 0, &err), SETUN_BAD_ARG);
    assert_int_equal(setun_batch_new(&b, m, s, SETUN_MAX_BATCH + 1, &err), SETUN_BAD_ARG);
    assert_null(b);
    setun_batch_free(NULL);

    b = batch(m, s, 3);
    for (int32_t i = 0; i < 3; i++) {
        alone(m, i, &r[i], STEPS);
        assert_int_equal(setun_session_set_top(s[i], top_of(i), NULL), SETUN_OK);
        feed(s[i], r[i].token, prompt(i), SETUN_LOGITS_NONE, NULL);
    }
    int32_t token[3], bad[3] = {1, 2, 1024}, low[3] = {1, -1, 2};
    for (int32_t i = 0; i < 3; i++)
        token[i] = r[i].token[prompt(i)];
    assert_int_equal(setun_batch_step(b, bad, SETUN_LOGITS_LAST, row, &err), SETUN_BAD_ARG);
    assert_non_null(strstr(err.text, "token 1024 of session 2"));
    assert_int_equal(setun_batch_step(b, low, SETUN_LOGITS_TOP, row, &err), SETUN_BAD_ARG);
    assert_int_equal(setun_batch_step(b, token, SETUN_LOGITS_ALL, row, &err), SETUN_BAD_ARG);
    assert_int_equal(setun_batch_step(b, token, 17, row, &err), SETUN_BAD_ARG);
    feed(s[1], r[1].token + prompt(1), N_CTX - prompt(1), SETUN_LOGITS_NONE, NULL); /* to the brim */
    assert_int_equal(setun_batch_step(b, token, SETUN_LOGITS_LAST, row, &err), SETUN_FULL);
    assert_non_null(strstr(err.text, "session 1"));
    assert_int_equal(setun_session_position(s[0]), prompt(0));
    assert_int_equal(setun_session_position(s[1]), N_CTX);
    assert_int_equal(setun_session_rewind(s[1], prompt(1), NULL), SETUN_OK);
    assert_int_equal(setun_batch_step(b, token, wanted(0), NULL, &err), SETUN_OK);
    for (int32_t i = 0; i < 3; i++)
        assert_true(hash(s[i], wanted(0), NULL, 0) == r[i].step[0]);
    setun_batch_free(b);

    /* Copies go on as the first one does; another model's session is no place to go on. */
    assert_int_equal(setun_session_copy(foreign, s[0], &err), SETUN_BAD_ARG);
    assert_int_equal(setun_session_copy(s[1], s[0], &err), SETUN_OK);
    assert_int_equal(setun_session_copy(s[0], s[0], &err), SETUN_OK);
    assert_int_equal(setun_session_position(s[1]), prompt(0) + 1);
    assert_true(hash_top(s[1]) == r[0].step[0]);
    feed(s[1], r[0].token + prompt(0) + 1, 1, wanted(1), &full);
    assert_true(setun_hash(0, full, setun_model_n_vocab(m)) == r[0].step[1]);
    setun_session_free(foreign);
    for (int32_t i = 0; i < 3; i++)
        setun_session_free(s[i]);
    setun_model_free(other);
    setun_model_free(m);
}

/* Sequences that begin as copies of one and then part. */
static void test_copies(void **state)
{
    static int32_t line[4][TEXT];
    setun_model *m = load(&(setun_options){.n_threads = 2});
    setun_session *s[4], *judge = session(m);
    int64_t v = setun_model_n_vocab(m);
    setun_error err = {0};
    (void)state;
    for (int32_t i = 0; i < 4; i++) {
        s[i] = session(m);
        text(line[i], TEXT, 50 + (uint32_t)i);
        memcpy(line[i], line[0], 30 * sizeof line[0][0]); /* one prompt */
        if (i == 0)
            feed(s[0], line[0], 30, SETUN_LOGITS_NONE, NULL);
        else
            assert_int_equal(setun_session_copy(s[i], s[0], &err), SETUN_OK);
    }
    setun_batch *b = batch(m, s, 4);
    for (int j = 30; j < 36; j++) {
        int32_t token[4] = {line[0][j], line[1][j], line[2][j], line[3][j]};
        const float *row[4], *want = NULL;
        if (setun_batch_step(b, token, SETUN_LOGITS_LAST, row, &err) != SETUN_OK)
            fail_msg("%s", err.text);
        for (int32_t i = 0; i < 4; i++) {
            assert_int_equal(setun_session_rewind(judge, 0, NULL), SETUN_OK);
            feed(judge, line[i], j + 1, SETUN_LOGITS_LAST, &want);
            assert_memory_equal(row[i], want, (size_t)v * sizeof *want);
        }
    }
    setun_batch_free(b);
    setun_session_free(judge);
    for (int32_t i = 0; i < 4; i++)
        setun_session_free(s[i]);
    setun_model_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_as_alone),
        cmocka_unit_test(test_other_backends),
        cmocka_unit_test(test_rows_that_fail),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_copies),
    };
    cache = temp_dir();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    drop_dir(cache);
    return failed;
}
