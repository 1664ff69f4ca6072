/* tests/unit/tokenizer_parts.c -- texts in parts: special tokens in markers only, and texts that go on from others.
 *
 * The ids are worked out by hand from the vocabulary below. */
#include "tests/unit/tokens.h"

#define U2581 "\xe2\x96\x81"

/* <unk> <s> </s>  U+2581  a  b  <  >  s  /  c  U+2581 a  <c>, which is an added token, but not called special */
enum { UNK, BOS, EOS, SPACE, A, B, LESS, MORE, S, SLASH, C, SPACE_A, TAG };

static st_tokenizer *open_kind(const char *normalizer, const char *pre)
{
    char *dir = temp_dir();
    st_str json = {0};
    st_str_add(&json, "{\"version\": \"1.0\", \"truncation\": null, \"padding\": null, \"added_tokens\": [");
    static const struct { const char *text; int id, special; } added[] = {
        {"<unk>", UNK, 1}, {"<s>", BOS, 1}, {"</s>", EOS, 1}, {"<c>", TAG, 0}};
    for (int i = 0; i < 4; i++)
        st_str_addf(&json, "%s{\"id\": %d, \"content\": \"%s\", \"single_word\": false, \"lstrip\": false, \"rstrip\": false, "
                    "\"normalized\": false, \"special\": %s}", i ? ", " : "", added[i].id, added[i].text, added[i].special ? "true" : "false");
    st_str_addf(&json, "], \"normalizer\": %s, \"pre_tokenizer\": %s, \"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": "
                "[{\"SpecialToken\": {\"id\": \"<s>\", \"type_id\": 0}}, {\"Sequence\": {\"id\": \"A\", \"type_id\": 0}}, "
                "{\"SpecialToken\": {\"id\": \"</s>\", \"type_id\": 0}}], \"pair\": [], \"special_tokens\": {\"<s>\": {\"id\": \"<s>\", "
                "\"ids\": [1], \"tokens\": [\"<s>\"]}, \"</s>\": {\"id\": \"</s>\", \"ids\": [2], \"tokens\": [\"</s>\"]}}}, "
                "\"decoder\": {\"type\": \"Sequence\", \"decoders\": [{\"type\": \"Replace\", \"pattern\": {\"String\": \"" U2581 "\"}, "
                "\"content\": \" \"}, {\"type\": \"Fuse\"}]}, \"model\": {\"type\": \"BPE\", \"dropout\": null, \"unk_token\": \"<unk>\", "
                "\"continuing_subword_prefix\": null, \"end_of_word_suffix\": null, \"fuse_unk\": false, \"byte_fallback\": false, "
                "\"ignore_merges\": false, \"vocab\": {\"<unk>\": 0, \"<s>\": 1, \"</s>\": 2, \"" U2581 "\": 3, \"a\": 4, \"b\": 5, \"<\": 6, "
                "\">\": 7, \"s\": 8, \"/\": 9, \"c\": 10, \"" U2581 "a\": 11, \"<c>\": 12}, \"merges\": [\"" U2581 " a\"]}}", normalizer, pre);
    put_text(dir, "tokenizer.json", json.text);
    st_tokenizer *t = open_model(dir);
    st_str_free(&json);
    drop_dir(dir);
    return t;
}

/* parts: texts by turns, markers first; "" skips one.  want ends with -1. */
static void check(const st_tokenizer *t, uint32_t flags, int control, const char *const *parts, const int32_t *want)
{
    st_tok_part p[8];
    int64_t n_parts = 0, n, i = 0;
    int32_t *ids, tag = TAG;
    setun_error err;
    for (; parts[n_parts]; n_parts++)
        p[n_parts] = (st_tok_part){parts[n_parts], (int64_t)strlen(parts[n_parts]), n_parts % 2 == 0};
    if (st_tokenizer_encode_parts(t, p, n_parts, &tag, control, flags, &ids, &n, &err) != SETUN_OK)
        fail_msg("%s", err.text);
    for (; i < n && want[i] >= 0; i++)
        assert_int_equal(ids[i], want[i]);
    assert_true(i == n && want[i] == -1);
    free(ids);
}

#define PARTS(...) (const char *const[]){__VA_ARGS__, NULL}
#define IDS(...) (const int32_t[]){__VA_ARGS__, -1}

static void kinds(void **state)
{
    static const char *const kind[][2] = {
        {"{\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"Prepend\", \"prepend\": \"" U2581 "\"}, {\"type\": \"Replace\", "
         "\"pattern\": {\"String\": \" \"}, \"content\": \"" U2581 "\"}]}", "null"},
        {"null", "{\"type\": \"Metaspace\", \"replacement\": \"" U2581 "\", \"prepend_scheme\": \"always\", \"split\": false}"},
        {"null", "{\"type\": \"Metaspace\", \"replacement\": \"" U2581 "\", \"prepend_scheme\": \"first\", \"split\": false}"},
    };
    (void)state;
    for (int k = 0; k < 3; k++) {
        st_tokenizer *t = open_kind(kind[k][0], kind[k][1]);
        int after = k < 2 ? SPACE_A : A; /* is a space put behind tokens, too? */
        /* Markers and texts are one text, in which only markers have special tokens. */
        check(t, 0, 0, PARTS("a ", "a<s>"), IDS(SPACE_A, SPACE_A, LESS, S, MORE));
        check(t, 0, 0, PARTS("<s>a ", "a<s>b", "</s>"), IDS(BOS, after, SPACE_A, LESS, S, MORE, B, EOS));
        check(t, 0, 0, PARTS("", "</s>"), IDS(SPACE, LESS, SLASH, S, MORE));
        /* A token must lie in markers as a whole, which may be several in a row. */
        check(t, ST_TOK_MIDST, 0, PARTS("<s", ">"), IDS(LESS, S, MORE));
        check(t, ST_TOK_MIDST, 0, PARTS("", "<", "s>"), IDS(LESS, S, MORE));
        check(t, ST_TOK_MIDST, 0, PARTS("<s", "", ">"), IDS(BOS));
        /* Tokens that the vocabulary does not call special, unless they are listed. */
        check(t, ST_TOK_MIDST, 0, PARTS("<c>", "<c>"), IDS(TAG, TAG));
        check(t, ST_TOK_MIDST, 1, PARTS("", "<c>"), IDS(LESS, C, MORE));
        check(t, ST_TOK_MIDST, 1, PARTS("<c>", "<c>", "<c>"), k < 2 ? IDS(TAG, SPACE, LESS, C, MORE, TAG) : IDS(TAG, LESS, C, MORE, TAG));
        /* BOS is for the beginning; what stands behind a whole text is not for a part. */
        check(t, ST_TOK_BOS, 0, PARTS("a"), IDS(BOS, SPACE_A));
        check(t, 0, 0, PARTS("a"), IDS(SPACE_A));
        /* In the midst of a text no space is put before it; behind a token it is as anywhere. */
        check(t, ST_TOK_MIDST, 0, PARTS("a b"), IDS(A, SPACE, B));
        check(t, ST_TOK_MIDST, 0, PARTS(" a"), IDS(SPACE_A));
        check(t, ST_TOK_MIDST, 0, PARTS("a</s>a"), IDS(A, EOS, after));
        check(t, ST_TOK_MIDST, 0, PARTS("</s>a"), IDS(EOS, after));
        check(t, 0, 0, PARTS(""), IDS(-1));
        st_tokenizer_close(t);
    }
}

/* Cutting a text into markers and texts at places where no token is cut changes nothing. */
static void any_cut(void **state)
{
    st_tokenizer *t = open_model(SETUN_SOURCE_DIR "/tests/models/shakespeare");
    static const char text[] = "User: What say'st  thou?\n<|eot_id|>Assistant: na\xc3\xafve \xe6\x97\xa5 12<|eot_id|>";
    int64_t n_want, n, len = sizeof text - 1;
    uint64_t r = 5;
    int32_t *want = encode(t, text, len, ST_TOK_SPECIAL, &n_want), *ids;
    setun_error err;
    (void)state;
    for (int round = 0; round < 500; round++) {
        st_tok_part p[64];
        int64_t n_parts = 0;
        for (int64_t at = 0; at < len;) {
            int64_t to = at + 1 + next_random(&r) % 12;
            const char *token = strstr(text + at, "<|eot_id|>");
            if (token && to > token - text)
                to = token == text + at ? at + 10 : token - text;
            to = to > len ? len : to;
            int is_token = token == text + at;
            p[n_parts++] = (st_tok_part){text + at, to - at, is_token || next_random(&r) % 2};
            at = to;
        }
        if (st_tokenizer_encode_parts(t, p, n_parts, NULL, 0, 0, &ids, &n, &err) != SETUN_OK)
            fail_msg("%s", err.text);
        assert_int_equal(n, n_want);
        assert_memory_equal(ids, want, (size_t)n * sizeof *ids);
        free(ids);
    }
    free(want);
    const st_tok_part bad = {"a\xff", 2, 0};
    assert_int_equal(st_tokenizer_encode_parts(t, &bad, 1, NULL, 0, 0, &ids, &n, &err), SETUN_BAD_ARG);
    assert_null(ids);
    st_tokenizer_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(kinds), cmocka_unit_test(any_cut)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
