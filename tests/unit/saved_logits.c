/* tests/unit/saved_logits.c -- files of logits: byte for byte, and every one that is not whole. */
#include "tests/unit/files.h"

#include "runtime/saved_logits.h"

#define TOKENS 3
#define VOCAB 5
#define BYTES (80 + TOKENS * (8 + 4 * VOCAB + 8))

static const st_saved_head head = { 1, 512, 512, 2, TOKENS, VOCAB, 0x1122334455667788u, 0x99aabbccddeeff00u };
static const int32_t token[TOKENS] = { 4, 0, 70000 };
static const float logits[TOKENS][VOCAB] = { { 1, -2, 0.5f, 3e38f, -0.0f }, { 0, 0, 0, 0, 1e-40f }, { -1, 2, -3, 4, -5 } };

static char *make(const char *dir)
{
    st_saved_out *o;
    setun_error err = { 0 };
    char *path = join(dir, "saved");
    assert_int_equal(st_saved_bytes(&head), BYTES);
    if (st_saved_create(&o, path, &head, &err) != SETUN_OK)
        fail_msg("%s", err.text);
    for (int i = 0; i < TOKENS; i++)
        assert_int_equal(st_saved_write(o, token[i], logits[i], &err), SETUN_OK);
    assert_true(st_is_absent(path)); /* until it is whole */
    assert_int_equal(st_saved_commit(o, &err), SETUN_OK);
    return path;
}

/* Opens and reads to the end. */
static setun_status read_all(const char *path, const st_saved_head *want, setun_error *err)
{
    st_saved_in in = { 0 };
    const float *row;
    setun_status s = st_saved_open(&in, path, want, err);
    for (int i = 0; i < TOKENS && s == SETUN_OK; i++) {
        s = st_saved_next(&in, token[i], &row, err);
        if (s == SETUN_OK)
            assert_memory_equal(row, logits[i], sizeof logits[i]);
    }
    if (s == SETUN_OK)
        assert_int_equal(st_saved_next(&in, 0, &row, err), SETUN_BAD_FILE); /* there are no more */
    st_saved_close(&in);
    return s;
}

static void test_bytes(void **state)
{
    (void)state;
    char *dir = temp_dir(), *path = make(dir), *text;
    int64_t n;
    assert_int_equal(st_file_read(path, 1 << 20, &text, &n, NULL), SETUN_OK);
    assert_int_equal(n, BYTES);
    static const uint8_t begin[] = { 'S', 'E', 'T', 'U', 'N', 'L', 'G', 'T', 1, 0, 0, 0, 1, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0 };
    static const uint8_t hash[] = { 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0x00, 0xff };
    static const uint8_t row[] = { 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0 };
    assert_memory_equal(text, begin, sizeof begin);
    assert_memory_equal(text + 56, hash, sizeof hash);
    assert_memory_equal(text + 80, row, sizeof row);
    setun_error err = { 0 };
    assert_int_equal(read_all(path, &head, &err), SETUN_OK);
    free(text);
    free(path);
    drop_dir(dir);
}

/* Each byte stands for something: cut anywhere, changed anywhere, the file is refused. */
static void test_hostile(void **state)
{
    (void)state;
    char *dir = temp_dir(), *path = make(dir), *text;
    int64_t n;
    setun_error err;
    assert_int_equal(st_file_read(path, 1 << 20, &text, &n, NULL), SETUN_OK);
    for (int64_t len = 0; len <= n + 1; len++) {
        if (len == n)
            continue;
        char *longer = calloc(1, (size_t)n + 1);
        memcpy(longer, text, (size_t)(len < n ? len : n));
        put_file(dir, "saved", longer, (size_t)len);
        assert_true(read_all(path, &head, &err) < 0 && strstr(err.text, path));
        free(longer);
    }
    for (int64_t i = 0; i < n; i++)
        for (int bit = 0; bit < 8; bit++) {
            text[i] = (char)(text[i] ^ 1 << bit);
            put_file(dir, "saved", text, (size_t)n);
            assert_true(read_all(path, &head, &err) < 0 && strstr(err.text, path));
            text[i] = (char)(text[i] ^ 1 << bit);
        }
    put_file(dir, "saved", text, (size_t)n);
    assert_int_equal(read_all(path, &head, &err), SETUN_OK);
    free(text);
    free(path);
    drop_dir(dir);
}

/* Of another run: what differs is told.  No size from a file is believed, so none needs a limit. */
static void test_other_runs(void **state)
{
    (void)state;
    static const char *const says[] = { "convention is 1, this run's is 2", "window is 512", "stride", "number of windows", "predicted tokens",
                                        "number of logits", "text is another", "another tokenizer" };
    char *dir = temp_dir(), *path = make(dir);
    for (int i = 0; i < 8; i++) {
        st_saved_head want = head;
        int64_t *const number[] = { &want.convention, &want.window, &want.stride, &want.windows, &want.tokens, &want.n_vocab };
        setun_error err = { 0 };
        if (i < 6)
            ++*number[i];
        else
            ++*(i == 6 ? &want.text : &want.vocab);
        assert_int_equal(read_all(path, &want, &err), SETUN_BAD_FILE);
        if (!strstr(err.text, says[i]))
            fail_msg("%s lacks %s", err.text, says[i]);
    }
    st_saved_head large = head;
    large.tokens = INT64_MAX / 16;
    assert_int_equal(st_saved_bytes(&large), -1);
    large.n_vocab = INT64_MAX;
    assert_int_equal(st_saved_bytes(&large), -1);
    free(path);
    drop_dir(dir);
}

/* Not finite, though written so: the checksums are right. */
static void test_not_finite(void **state)
{
    (void)state;
    char *dir = temp_dir(), *path = join(dir, "saved");
    for (int i = 0; i < 2; i++) {
        float row[VOCAB] = { 0 };
        const float *read;
        st_saved_head one = head;
        st_saved_out *o;
        st_saved_in in = { 0 };
        setun_error err = { 0 };
        uint32_t bits = i ? 0x7f800000u : 0x7fc00000u;
        one.tokens = 1;
        memcpy(&row[3], &bits, 4);
        assert_int_equal(st_saved_create(&o, path, &one, &err), SETUN_OK);
        assert_int_equal(st_saved_write(o, 1, row, &err), SETUN_OK);
        assert_int_equal(st_saved_commit(o, &err), SETUN_OK);
        assert_int_equal(st_saved_open(&in, path, &one, &err), SETUN_OK);
        assert_int_equal(st_saved_next(&in, 1, &read, &err), SETUN_BAD_FILE);
        assert_non_null(strstr(err.text, "logit 3 of token 0 is not finite"));
        st_saved_close(&in);
        assert_int_equal(st_saved_open(&in, path, &one, &err), SETUN_OK);
        assert_int_equal(st_saved_next(&in, 2, &read, &err), SETUN_BAD_FILE); /* of another token */
        st_saved_close(&in);
    }
    free(path);
    drop_dir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_other_runs),
        cmocka_unit_test(test_not_finite),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
