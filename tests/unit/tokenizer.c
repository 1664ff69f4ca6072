/* tests/unit/tokenizer.c -- ids against the reference, against a naive merger, and round trips. */
#include "tests/unit/tokens.h"

#include <jansson.h>

#define MODEL SETUN_SOURCE_DIR "/tests/models/shakespeare"

/* Prompts and greedy answers of the reference implementation. */
static void test_reference(void **state)
{
    (void)state;
    st_tokenizer *t = open_model(MODEL);
    json_t *root = json_load_file(MODEL "/reference.json", 0, NULL),
           *cases = json_object_get(root, "cases");
    assert_int_equal(json_array_size(cases), 4);
    for (size_t i = 0; i < json_array_size(cases); i++) {
        json_t *c = json_array_get(cases, i), *want = json_object_get(c, "tokens"),
               *greedy = json_object_get(c, "greedy");
        const char *prompt = json_string_value(json_object_get(c, "prompt"));
        int64_t n;
        int32_t *ids = encode(t, prompt, (int64_t)strlen(prompt), ST_TOK_BOS, &n);
        assert_int_equal(n, json_array_size(want));
        for (int64_t k = 0; k < n; k++)
            assert_int_equal(ids[k], json_integer_value(json_array_get(want, (size_t)k)));
        free(ids);
        /* The answers decode to the text that is given with them. */
        st_str text = { 0 };
        int32_t answer[256];
        size_t m = json_array_size(greedy);
        assert_true(m <= 256);
        for (size_t k = 0; k < m; k++)
            answer[k] = (int32_t)json_integer_value(json_array_get(greedy, k));
        decode(t, answer, (int64_t)m, &text);
        assert_string_equal(text.text, json_string_value(json_object_get(c, "text")));
        st_str_free(&text);
    }
    json_decref(root);
    assert_int_equal(st_tokenizer_size(t), 1024);
    assert_int_equal(st_tokenizer_bos(t), 1021);
    assert_int_equal(st_tokenizer_find(t, "<|eot_id|>"), 1023);
    assert_int_equal(st_tokenizer_find(t, "<|nothing|>"), -1);
    assert_int_equal(st_tokenizer_find(t, "\xc4\x80"), 0); /* U+0100 is the byte 0 */
    assert_int_equal(st_tokenizer_find(t, ""), -1);
    const char *bytes;
    int64_t n;
    int special;
    assert_int_equal(st_tokenizer_bytes(t, 1022, &bytes, &n, &special, NULL), SETUN_OK);
    assert_true(special && n == 15 && memcmp(bytes, "<|end_of_text|>", 15) == 0);
    assert_int_equal(st_tokenizer_bytes(t, 1024, &bytes, &n, &special, NULL), SETUN_BAD_ARG);
    assert_int_equal(st_tokenizer_bytes(t, -1, &bytes, &n, &special, NULL), SETUN_BAD_ARG);
    st_tokenizer_close(t);
}

static void test_special(void **state)
{
    (void)state;
    static const char text[] = "a<|eot_id|><|eot_id|b<|begin_of_text|>";
    st_tokenizer *t = open_model(MODEL);
    int64_t n;
    int32_t *ids = encode(t, text, sizeof text - 1, ST_TOK_SPECIAL, &n);
    assert_int_equal(ids[1], 1023);
    assert_int_equal(ids[n - 1], 1021);
    int found = 0;
    for (int64_t i = 0; i < n; i++)
        found += ids[i] > 1020;
    assert_int_equal(found, 2);
    free(ids);
    /* A user's text is only text. */
    ids = encode(t, text, sizeof text - 1, 0, &n);
    for (int64_t i = 0; i < n; i++)
        assert_true(ids[i] < 1021);
    free(ids);
    ids = encode(t, "", 0, ST_TOK_BOS, &n);
    assert_int_equal(n, 1);
    free(ids);
    ids = encode(t, "", 0, 0, &n);
    assert_int_equal(n, 0);
    assert_non_null(ids);
    free(ids);
    check_round(t, text, sizeof text - 1, 0);
    check_round(t, text, sizeof text - 1, ST_TOK_SPECIAL);
    st_tokenizer_close(t);
}

static void test_invalid(void **state)
{
    (void)state;
    static const char *const bad[] = { "\xff", "ab\xc3", "\xc0\x80", "\xed\xa0\x80", "a\x80" };
    st_tokenizer *t = open_model(MODEL);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        int32_t *ids;
        int64_t n;
        setun_error err;
        assert_int_equal(st_tokenizer_encode(t, bad[i], (int64_t)strlen(bad[i]), 0, &ids, &n, &err),
                         SETUN_BAD_ARG);
        assert_null(ids);
        assert_non_null(strstr(err.text, "byte"));
    }
    st_tokenizer_close(t);
}

static void test_round_trips(void **state)
{
    (void)state;
    st_tokenizer *t = open_model(MODEL);
    uint64_t r = 7;
    char *text;
    int64_t n;
    for (int i = 0; i < 400; i++) {
        st_str s = { 0 };
        random_text(&s, &r, i % 90);
        check_round(t, s.text ? s.text : "", (int64_t)s.len, (uint32_t)i % 4 & ~ST_TOK_BOS);
        st_str_free(&s);
    }
    for (uint32_t u = 0; u < 0x110000; u += u < 0x3000 ? 1 : 97) {
        st_str s = { 0 };
        put_char(&s, u >= 0xd800 && u < 0xe000 ? 0x20 : u);
        check_round(t, s.text, (int64_t)s.len, 0);
        st_str_free(&s);
    }
    assert_int_equal(st_file_read(MODEL "/heldout.txt", 1 << 20, &text, &n, NULL), SETUN_OK);
    check_round(t, text, n, 0);
    free(text);
    st_tokenizer_close(t);
}

/* ---------------------------------------------------------------- a naive merger */

/* Merges exactly as the format is defined, on strings of the file, looking at every pair each time. */
static size_t naive_merge(json_t *ranks, char part[][64], size_t n)
{
    for (;;) {
        json_int_t best = -1;
        size_t at = 0;
        for (size_t i = 0; i + 1 < n; i++) {
            char key[160];
            (void)snprintf(key, sizeof key, "%s %s", part[i], part[i + 1]);
            json_t *rank = json_object_get(ranks, key);
            if (rank && (best < 0 || json_integer_value(rank) < best)) {
                best = json_integer_value(rank);
                at = i;
            }
        }
        if (best < 0)
            return n;
        size_t left = strlen(part[at]), right = strlen(part[at + 1]);
        assert_true(left + right < sizeof *part);
        memcpy(part[at] + left, part[at + 1], right + 1);
        memmove(part + at + 1, part + at + 2, (n - at - 2) * sizeof *part);
        n--;
    }
}

/* Runs of letters around the length where the method changes; ignore_merges off in a copy. */
static void test_merging(void **state)
{
    (void)state;
    json_t *root = json_load_file(MODEL "/tokenizer.json", 0, NULL),
           *model = json_object_get(root, "model");
    json_t *merges = json_object_get(model, "merges"), *vocab = json_object_get(model, "vocab"),
           *ranks = json_object();
    for (size_t i = 0; i < json_array_size(merges); i++)
        json_object_set_new(ranks, json_string_value(json_array_get(merges, i)),
                            json_integer((json_int_t)i));
    json_object_set_new(model, "ignore_merges", json_false());
    char *dir = temp_dir(), *text = json_dumps(root, 0);
    put_text(dir, "tokenizer.json", text);
    st_tokenizer *t = open_model(dir);
    static const char letters[] = "etaoinshrdluthEO";
    static char part[200][64];
    uint64_t r = 11;
    for (int round = 0; round < 300; round++) {
        char word[201];
        size_t n = round < 150 ? 1 + next_random(&r) % 60 : 44 + next_random(&r) % 150;
        for (size_t i = 0; i < n; i++) {
            word[i] = letters[next_random(&r) % (sizeof letters - 1)];
            part[i][0] = word[i];
            part[i][1] = '\0';
        }
        size_t want = naive_merge(ranks, part, n);
        int64_t got;
        int32_t *ids = encode(t, word, (int64_t)n, 0, &got);
        assert_int_equal(got, want);
        for (int64_t i = 0; i < got; i++)
            assert_int_equal(ids[i], json_integer_value(json_object_get(vocab, part[i])));
        free(ids);
    }
    st_tokenizer_close(t);
    free(text);
    json_decref(ranks);
    json_decref(root);
    drop_dir(dir);
}

/* A megabyte of letters is one piece; of spaces, one match. */
static void test_long(void **state)
{
    (void)state;
    st_tokenizer *t = open_model(MODEL);
    int64_t n = 1000000;
    char *text = malloc((size_t)n);
    static const char *const kinds[] = { "a", " ", "\n", " \n", "the", "<|" };
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        for (int64_t i = 0; i < n; i++)
            text[i] = kinds[k][(size_t)i % strlen(kinds[k])];
        check_round(t, text, n, ST_TOK_SPECIAL);
    }
    free(text);
    st_tokenizer_close(t);
}

/* ---------------------------------------------------------------- other files */

/* The model's tokenizer.json with one text replaced by another; the status of opening it. */
static setun_status open_changed(const char *from, const char *to, setun_error *err)
{
    json_t *root = json_load_file(MODEL "/tokenizer.json", 0, NULL);
    char *text = json_dumps(root, 0), *dir = temp_dir(); /* on one line, members in order */
    json_decref(root);
    char *at = strstr(text, from);
    if (!at)
        fail_msg("%s is not in tokenizer.json", from);
    st_str s = { 0 };
    st_str_addn(&s, text, (size_t)(at - text));
    st_str_add(&s, to);
    st_str_add(&s, at + strlen(from));
    put_text(dir, "tokenizer.json", s.text);
    st_tokenizer *t;
    setun_status st = st_tokenizer_open(&t, dir, err);
    if (st == SETUN_OK)
        check_round(t, "To be, or not to be 42", 22, 3 & ~ST_TOK_BOS);
    st_tokenizer_close(t);
    st_str_free(&s);
    free(text);
    drop_dir(dir);
    return st;
}

static void test_refused(void **state)
{
    (void)state;
    static const struct {
        const char *from, *to, *says; /* says NULL: fine */
    } cases[] = {
        { "\"normalizer\": null", "\"normalizer\": {\"type\": \"Nmt\"}", "normalizer Nmt" },
        { "\"normalizer\": null", "\"normalizer\": {\"type\": \"NFKC\"}", NULL },
        { "\"type\": \"Split\"", "\"type\": \"Metaspace\"", "pre_tokenizer Metaspace" },
        { "\"Isolated\"", "\"Sideways\"", "behavior Sideways" },
        { "\"Isolated\"", "\"MergedWithNext\"", NULL },
        { "\"behavior\": \"Isolated\", ", "", "behavior missing" },
        { "\"invert\": false", "\"invert\": true", NULL },
        { "\"invert\": false", "\"invert\": 0", "invert" },
        { "\"invert\": false", "\"inverse\": false", "inverse" },
        { "\"trim_offsets\": true, \"use_regex\": false", "\"trim\": true", "member trim" },
        { "\"use_regex\": false", "\"use_regex\": true", NULL },
        { "\"type\": \"BPE\"", "\"type\": \"Unigram\"", "model Unigram" },
        { "\"type\": \"BPE\",", "", NULL },
        { "\"byte_fallback\": false", "\"byte_fallback\": true", NULL },
        { "\"byte_fallback\": false", "\"byte_fallback\": 1", "byte_fallback" },
        { "\"unk_token\": null", "\"unk_token\": \"x\"", NULL }, /* no byte is unknown */
        { "\"dropout\": null", "\"dropout\": 0.1", "dropout" },
        { "\"dropout\": null", "\"surprise\": null", "surprise" },
        { "\"single_word\": false", "\"single_word\": 1", "single_word is neither true nor false" },
        { "\"lstrip\": false", "\"lstrip\": null", "lstrip is neither true nor false" },
        { "\"id\": 1022", "\"id\": 1021", "id 1021" },
        { "\"id\": 1022", "\"id\": 5", "another token" },
        { "\"id\": 1022", "\"id\": 99999999", "99999999" },
        { "\"id\": 1022", "\"id\": -1", "-1" },
        { "\"content\": \"<|eot_id|>\"", "\"content\": \"the\"", "two ids" },
        { "\"ids\": [1021]", "\"ids\": [4000]", "no token has" },
        { "\"type\": \"TemplateProcessing\"", "\"type\": \"BertProcessing\"", "BertProcessing" },
        { "\"decoder\": {\"type\": \"ByteLevel\"", "\"decoder\": {\"type\": \"WordPiece\"",
          "WordPiece" },
        { "\"decoder\": {\"type\": \"ByteLevel\"", "\"decoder\": {\"type\": \"Fuse\"", "decoder Fuse" },
        { "\\\\p{N}{1,3}", "\\\\p{N}{1,3}+", "{ }+" },
        { "\\\\p{N}{1,3}", "\\\\w", "escape" },
        { "\\\\p{N}{1,3}", "(", "not valid" },
        { "\\\\p{N}{1,3}", "^x", "anchor" },
        { "\\\\p{N}{1,3}", "[a[b]]", "classes inside" },
        { "\\\\p{N}{1,3}", "[]a]", "]" },
        { "\\\\p{N}{1,3}", "[^\\\\S]", "\\S inside" },
        { "\\\\p{N}{1,3}", "[\\\\s\\\\p{N}]", NULL },
        { "\"Regex\"", "\"String\"", NULL },
        { "\"\xc4\x81\": 1,", "", "byte 0x01" },
        { "\"\xc4\x81\": 1,", "\"\xc4\x81\": 0,", "id 0" },
        { "\"\xc4\x81\": 1,", "\"\xc4\x80\": 1,", "same token" },
        { "\"\xc4\x81\": 1,", "\"\xc4\x81\": 1.0,", "whole number" },
        { "\"\xc4\x81\": 1,", "\"\\u0101\": 1,", NULL },
        { "\"\xc4\x81\": 1,", "\"\\u01\": 1,", "JSON" },
        { "\"\xc4\xa0 t\"", "[\"\xc4\xa0\", \"t\"]", NULL },
        { "\"\xc4\xa0 t\"", "[\"\xc4\xa0\", \"\\u0074\"]", NULL },
        { "\"\xc4\xa0 t\"", "[\"\xc4\xa0\"]", "pair" },
        { "\"\xc4\xa0 t\"", "\"\xc4\xa0t\"", "pair" },
        { "\"\xc4\xa0 t\"", "\"\xc4\xa0 t t\"", "pair" },
        { "\"\xc4\xa0 t\"", "\"\xc4\xa0 t\", \"\xc4\xa0 t\"", "twice" },
        { "\"\xc4\xa0 t\"", "\"q q\"", "not made of tokens" },
        { "\"merges\"", "\"merge\"", "model.merge" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        setun_error err = { 0 };
        setun_status st = open_changed(cases[i].from, cases[i].to, &err);
        if (!cases[i].says ? st != SETUN_OK : st >= 0 || !strstr(err.text, cases[i].says))
            fail_msg("case %zu: %s -> %s: %d '%s'", i, cases[i].from, cases[i].to, st, err.text);
    }
}

static void test_truncated(void **state)
{
    (void)state;
    char *text, *dir = temp_dir();
    int64_t n;
    st_tokenizer *t;
    setun_error err;
    assert_int_equal(st_file_read(MODEL "/tokenizer.json", 1 << 20, &text, &n, NULL), SETUN_OK);
    assert_int_equal(st_tokenizer_open(&t, dir, &err), SETUN_BAD_FILE);
    for (int64_t len = 0; len < n - 1; len += len < 3000 ? 61 : 499) {
        put_file(dir, "tokenizer.json", text, (size_t)len);
        assert_true(st_tokenizer_open(&t, dir, &err) < 0);
        assert_null(t);
    }
    free(text);
    drop_dir(dir);
}

/* An expression that backtracks without end gives an error, not a hang. */
static void test_hostile_regex(void **state)
{
    (void)state;
    static const char *const regexes[] = { "(a+)+b|a", "(?:a|aa)+c|a", "(a*)*c|a", "(?=a)|b" };
    for (size_t i = 0; i < sizeof regexes / sizeof *regexes; i++) {
        json_t *root = json_load_file(MODEL "/tokenizer.json", 0, NULL);
        json_t *split =
            json_array_get(json_object_get(json_object_get(root, "pre_tokenizer"), "pretokenizers"),
                           0);
        json_object_set_new(json_object_get(split, "pattern"), "Regex", json_string(regexes[i]));
        char *text = json_dumps(root, 0), *dir = temp_dir(), as[3000];
        memset(as, 'a', sizeof as);
        put_text(dir, "tokenizer.json", text);
        st_tokenizer *t = open_model(dir);
        int32_t *ids;
        int64_t n;
        setun_error err;
        assert_true(st_tokenizer_encode(t, as, sizeof as, 0, &ids, &n, &err) < 0);
        assert_non_null(strstr(err.text, "regex"));
        st_tokenizer_close(t);
        free(text);
        json_decref(root);
        drop_dir(dir);
    }
}

/* The definition of replacement: one U+FFFD for each longest invalid part. */
static void test_detok(void **state)
{
    (void)state;
    static const struct {
        const char *in, *out;
    } cases[] = {
        { "a\xc3\xa9", "a\xc3\xa9" },
        { "\xff", "\xef\xbf\xbd" },
        { "\xc3", "\xef\xbf\xbd" },
        { "\xc3(", "\xef\xbf\xbd(" },
        { "\xe2\x82", "\xef\xbf\xbd" },
        { "\xe2\x82\xe2\x82\xac", "\xef\xbf\xbd\xe2\x82\xac" },
        { "\xf0\x9f\x99\x82!", "\xf0\x9f\x99\x82!" },
        { "\xf0\x9f\x99x", "\xef\xbf\xbdx" },
        { "\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd" },
        { "\xc0\x80", "\xef\xbf\xbd\xef\xbf\xbd" },
        { "\xf4\x90\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd" },
        { "\xf8", "\xef\xbf\xbd" },
        { "\x80z", "\xef\xbf\xbdz" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (size_t step = 1; step < 6; step++) { /* cut in every way, the result is the same */
            st_detok d = { 0 };
            char out[256];
            int64_t n = 0;
            size_t len = strlen(cases[i].in);
            for (size_t at = 0; at < len; at += step)
                n += st_detok_push(&d, cases[i].in + at,
                                   (int64_t)(len - at < step ? len - at : step), out + n);
            n += st_detok_push(&d, NULL, 0, out + n);
            assert_int_equal(n, strlen(cases[i].out));
            assert_memory_equal(out, cases[i].out, (size_t)n);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reference),     cmocka_unit_test(test_special),
        cmocka_unit_test(test_invalid),       cmocka_unit_test(test_round_trips),
        cmocka_unit_test(test_merging),       cmocka_unit_test(test_long),
        cmocka_unit_test(test_refused),       cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_hostile_regex), cmocka_unit_test(test_detok),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
