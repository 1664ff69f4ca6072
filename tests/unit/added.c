/* tests/unit/added.c -- added tokens of tokenizer.json that look at what stands next to them.
 *
 * What is expected is written as the parts that the text falls into: added tokens by name, and stretches of
 * text, which a tokenizer without these tokens encodes. */
#include <jansson.h>

#include "model/words.h"
#include "tests/unit/tokens.h"

#define MODEL SETUN_SOURCE_DIR "/tests/models/shakespeare"
#define FIRST 1024

enum { ALONE = 1, LEFT = 2, RIGHT = 4, NORMALIZED = 8 };
static const struct { const char *text; int flags; } names[] = {
    {"<l>", LEFT}, {"<r>", RIGHT}, {"<b>", LEFT | RIGHT}, {"cat", ALONE}, {"<w>", ALONE | LEFT | RIGHT}, {"cats", 0},
    {"\t\t", 0}, {"dog", ALONE | NORMALIZED}, {"<n>", LEFT | RIGHT | NORMALIZED},
};

/* Parts are separated by '|'; "#3" is names[3]. */
static const struct { const char *text, *parts; } cases[] = {
    {"a <l> b", "a|#0| b"},
    {"a \n\xc2\xa0\xe3\x80\x80<l><l>b", "a|#0|#0|b"},
    {"<l>", "#0"},
    {"   <l>", "#0"},
    {"a\xe2\x80\x8b<l>", "a\xe2\x80\x8b|#0"}, /* a space of no width is none */
    {"a <r> \n b<r>", "a |#1|b|#1"},
    {"<r>  <l>", "#1|#0"}, /* the first has taken the space */
    {"<l>  <r>", "#0|  |#1"},
    {"x <b> y <b>  <b>z", "x|#2|y|#2|#2|z"},
    {"cat", "#3"},
    {"a cat, a catfish, cat_ tomcat 'cat'", "a |#3|, a catfish, cat_ tomcat '|#3|'"},
    {"cat\xc3\xa9 cat\xcc\x81 cat\xe2\x80\x8d cat\xd9\xa3 cat\xe2\x92\xb6", "cat\xc3\xa9 cat\xcc\x81 cat\xe2\x80\x8d cat\xd9\xa3 cat\xe2\x92\xb6"},
    {"\xc3\xa9""cat \xe6\x97\xa5""cat", "\xc3\xa9""cat \xe6\x97\xa5""cat"},
    {"cat\xe2\x82\xac cat\xc2\xb2 \xf0\x9f\x99\x82""cat", "#3|\xe2\x82\xac |#3|\xc2\xb2 \xf0\x9f\x99\x82|#3"}, /* symbols are no words */
    {"cats cat", "#5| |#3"}, /* the longest comes first, and it may stand anywhere */
    {"catcats", "cat|#5"}, /* a word stands behind the first; what comes after its bytes is searched on */
    {"a <w> b", "a|#4|b"},
    {"a<w> b", "a<w> b"},
    {"a <w>b", "a <w>b"},
    {"<w>", "#4"},
    {"a<r> \t\t b", "a|#1|#6| b"}, /* within space that was taken; what follows is text again */
    {"a\t\t<l>", "a|#6|#0"},
    {"dog a dog.", "#7| a |#7|."},
    {"hotdog", "hotdog"},
    {"a <n> b <n>", "a|#8|b|#8"},
    {"<r> dog", "#1|#7"},
    {"<l>dog", "#0|#7"}, /* normalized text is cut at the other tokens first: nothing stands before it */
};

static json_t *with_names(void)
{
    json_t *root = json_load_file(MODEL "/tokenizer.json", 0, NULL), *list = json_object_get(root, "added_tokens");
    assert_non_null(list);
    for (int i = 0; i < (int)(sizeof names / sizeof *names); i++) {
        int f = names[i].flags;
        json_t *t = json_pack("{si ss sb sb sb sb sb}", "id", FIRST + i, "content", names[i].text, "single_word", f & ALONE,
                              "lstrip", f & LEFT, "rstrip", f & RIGHT, "normalized", f & NORMALIZED, "special", 0);
        assert_int_equal(json_array_append_new(list, t), 0);
    }
    return root;
}

static st_tokenizer *open_root(json_t *root)
{
    char *text = json_dumps(root, 0), *dir = temp_dir();
    put_text(dir, "tokenizer.json", text);
    st_tokenizer *t = open_model(dir);
    drop_dir(dir);
    free(text);
    json_decref(root);
    return t;
}

/* The ids of the parts. */
static int64_t join_parts(const st_tokenizer *plain, const char *parts, int32_t *out)
{
    int64_t n = 0, m;
    for (const char *p = parts; *p;) {
        size_t bytes = strcspn(p, "|");
        if (*p == '#') {
            out[n++] = FIRST + (int32_t)strtol(p + 1, NULL, 10);
        } else {
            int32_t *ids = encode(plain, p, (int64_t)bytes, 0, &m);
            memcpy(out + n, ids, (size_t)m * sizeof *ids);
            n += m;
            free(ids);
        }
        p += bytes + (p[bytes] == '|');
    }
    return n;
}

static void check(const st_tokenizer *t, const st_tokenizer *plain, const char *text, const char *parts)
{
    int32_t want[256];
    int64_t n, m = join_parts(plain, parts, want);
    int32_t *ids = encode(t, text, (int64_t)strlen(text), 0, &n);
    if (n != m || memcmp(ids, want, (size_t)n * sizeof *ids) != 0)
        fail_msg("'%s' does not fall into %s", text, parts);
    free(ids);
}

static void test_cases(void **state)
{
    st_tokenizer *plain = open_model(MODEL), *t = open_root(with_names());
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check(t, plain, cases[i].text, cases[i].parts);
    st_tokenizer_close(plain);
    st_tokenizer_close(t);
}

/* A megabyte of space between tokens that take it, and of tokens that are space, is not quadratic. */
static void test_long(void **state)
{
    json_t *root = with_names(), *list = json_object_get(root, "added_tokens");
    (void)state;
    assert_int_equal(json_array_append_new(list, json_pack("{si ss sb sb}", "id", 1040, "content", " ", "lstrip", 1, "rstrip", 1)), 0);
    assert_int_equal(json_array_append_new(list, json_pack("{si ss}", "id", 1041, "content", "\n")), 0);
    st_tokenizer *t = open_root(root);
    int64_t n = 1000000, m;
    char *text = malloc((size_t)n);
    assert_non_null(text);
    for (int64_t i = 0; i < n; i++)
        text[i] = i % 2 ? '\n' : ' ';
    int32_t *ids = encode(t, text, n, 0, &m);
    assert_int_equal(m, n);
    free(ids);
    free(text);
    st_tokenizer_close(t);
}

static void test_words(void **state)
{
    static const struct { const char *text; int word, space; } chars[] = {
        {"a", 1, 0}, {"_", 1, 0}, {"7", 1, 0}, {" ", 0, 1}, {"\t", 0, 1}, {"\r", 0, 1}, {"-", 0, 0}, {"\xc2\x85", 0, 1}, {"\xc2\xa0", 0, 1},
        {"\xc3\x9f", 1, 0}, {"\xe2\x81\xbf", 1, 0}, {"\xe2\x85\xa3", 1, 0}, {"\xc2\xbd", 0, 0}, {"\xe2\x80\xbf", 1, 0}, {"\xe1\xa0\x8e", 0, 0},
        {"\xe2\x80\x8a", 0, 1}, {"\xe2\x80\x8b", 0, 0}, {"\xe2\x80\x8c", 1, 0}, {"\xe2\x80\xa8", 0, 1}, {"\xe2\x80\xaf", 0, 1},
        {"\xe2\x81\x9f", 0, 1}, {"\xe3\x80\x80", 0, 1}, {"\xe1\x9a\x80", 0, 1}, {"\xe0\xa4\xbf", 1, 0}, {"\xf0\x9f\x84\xb0", 1, 0},
        {"\xf0\x9f\x84\xaf", 0, 0}, {"\xf0\x9d\x9f\x8e", 1, 0}, {"\x1f", 0, 0}, {"\xef\xbb\xbf", 0, 0},
    };
    (void)state;
    st_chars words = {0};
    assert_int_equal(st_word_chars(&words, NULL), SETUN_OK);
    for (size_t i = 0; i < sizeof chars / sizeof *chars; i++) {
        int64_t n = (int64_t)strlen(chars[i].text);
        if (st_word_after(&words, chars[i].text, n, 0) != chars[i].word || st_word_before(&words, chars[i].text, n) != chars[i].word ||
            st_space_after(chars[i].text, n, 0) != (chars[i].space ? n : 0) ||
            st_space_before(chars[i].text, 0, n) != (chars[i].space ? 0 : n))
            fail_msg("character %zu", i);
    }
    assert_false(st_word_before(&words, "", 0) || st_word_after(&words, "", 0, 0));
    assert_true(st_space_before("  ", 1, 2) == 1 && st_space_after("  a", 3, 0) == 2);
    st_chars_free(&words);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_cases), cmocka_unit_test(test_long), cmocka_unit_test(test_words)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
