/* tests/unit/rt_text.c -- text in bundles: programs of expressions against PCRE2, tokenizers from bytes against those
 * they were made of.
 *
 * That both are right is for other tests, which have expected answers of their own (pretok, tokenizer,
 * templates); pretok runs every case of its own through programs as well. */
#include "tests/unit/tokens.h"

#include "model/normal.h"
#include "model/pretok.h"
#include "tests/unit/gguf_files.h"

#define MODEL SETUN_SOURCE_DIR "/tests/models/shakespeare"

/* ---------------------------------------------------------------- expressions */

typedef struct both {
    st_pretok *pcre2, *own;
    st_str     bytes;
} both;

/* 1: there are both; 0: PCRE2 or the reader of expressions refuses it; -1: a bundle does, with err. */
static int open_both(both *b, const char *regex, setun_error *err)
{
    json_t *json = json_pack("{s:s,s:{s:s},s:s,s:b}", "type", "Split", "pattern", "Regex", regex, "behavior", "Isolated", "invert", 0);
    assert_non_null(json);
    *b = (both){.own = NULL};
    int good = st_pretok_new(&b->pcre2, json, "test", err) == SETUN_OK;
    json_decref(json);
    if (!good)
        return 0;
    if (st_pretok_put(b->pcre2, "test", &b->bytes, err) != SETUN_OK)
        return -1;
    st_bytes in = {(const uint8_t *)b->bytes.text, (const uint8_t *)b->bytes.text + b->bytes.len, 0};
    assert_int_equal(st_pretok_take(&b->own, &in, err), SETUN_OK);
    assert_true(!in.bad && in.at == in.end);
    return 1;
}

static void close_both(both *b)
{
    st_pretok_free(b->pcre2);
    st_pretok_free(b->own);
    st_str_free(&b->bytes);
}

static setun_status add_piece(void *user, const char *piece, int64_t n, setun_error *err)
{
    (void)err;
    st_str_addn(user, piece, (size_t)n);
    st_str_addn(user, "\xff", 1);
    return SETUN_OK;
}

static void same_pieces(const both *b, const char *regex, const char *text, size_t n)
{
    st_str want = {0}, got = {0};
    setun_error err = {0}, own = {0};
    setun_status s = st_pretok_split(b->pcre2, text, (int64_t)n, 1, add_piece, &want, &err),
                 t = st_pretok_split(b->own, text, (int64_t)n, 1, add_piece, &got, &own);
    if (s != t || (s != SETUN_OK && strcmp(err.text, own.text)) ||
        (s == SETUN_OK && (want.len != got.len || (want.len && memcmp(want.text, got.text, want.len)))))
        fail_msg("%s on '%.*s': %d '%s' and not %d '%s' (%s, %s)", regex, (int)n, text, t, got.text ? got.text : "", s,
                 want.text ? want.text : "", own.text, err.text);
    st_str_free(&want);
    st_str_free(&got);
}

/* Those of published tokenizers: GPT-2, LLaMA-3, Qwen2, GPT-4o, DeepSeek, Falcon, StarCoder, SmolLM, and parts of others. */
static const char *const published[] = {
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
    "(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+",
    ("[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\\p{N}{1,3}|"
    " ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"),
    ("[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]\\^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|"
    "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"),
    "[0-9][0-9][0-9]", "\\p{N}", "\\p{N}{1,3}", "[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", "\\d{1,3}(?=(?:\\d{3})*\\D)", ".",
    "[\xe4\xb8\x80-\xe9\xbe\xa5\xe3\x81\x80-\xe3\x82\x9f]+", "(?:\\r?\\n)+", "[^(\\s|.,!?\xe3\x80\x82)]+", "(?<word>\\p{L}+)|(\\p{N})",
};
#define N_PUBLISHED (sizeof published / sizeof *published)

static void test_published(void **state)
{
    static const char *const texts[] = {
        "", "a", " ", "Hello  world's 123\n\n x", "don't DON'T we'Ll I'\xc5\xbf!!", "  a \n b \t\r\n  \r\n", "1234567 \xc2\xb2\xc2\xbd \xd9\xa3\xd9\xa4",
        "\xc2\xa0nbsp\xe1\xa0\x8ey\xe3\x80\x80", "\xe4\xb8\xad\xe6\x96\x87\xe3\x81\x82\xe3\x80\x82\xef\xbc\x81", "e\xcc\x81\xcc\x80 \xf0\x9f\x98\x80\xef\xb8\x8f",
        "\xc7\x85\xc7\x86\xc7\x84 \xce\x91\xce\xb1 \xd0\x96\xd0\xb6", "#include <stdio.h>\n\tint x = 0x1F;//", "\xe2\x80\xa8\xe2\x80\xa9\xc2\x85\x1c\x1f\x00x",
    };
    uint64_t r = 3;
    (void)state;
    for (size_t i = 0; i < N_PUBLISHED; i++) {
        both b;
        setun_error err = {0};
        if (open_both(&b, published[i], &err) != 1)
            fail_msg("%s: %s", published[i], err.text);
        for (size_t k = 0; k < sizeof texts / sizeof *texts; k++)
            same_pieces(&b, published[i], texts[k], strlen(texts[k]));
        for (int round = 0; round < 60; round++) {
            st_str text = {0};
            random_text(&text, &r, 60);
            same_pieces(&b, published[i], text.text, text.len);
            st_str_free(&text);
        }
        /* Every character alone, and beside a letter: what the sets hold. */
        st_str all = {0};
        for (uint32_t c = 1; c < 0x3100; c++) {
            put_char(&all, c);
            st_str_add(&all, c % 3 ? "" : "a");
        }
        same_pieces(&b, published[i], all.text, all.len);
        st_str_free(&all);
        close_both(&b);
    }
}

/* A random expression: little of everything that a program can say. */
static void random_part(st_str *s, uint64_t *r, int deep)
{
    static const char *const atoms[] = {"a", "b", "A", " ", "1", "\xc3\xa9", "[ab]", "[^a]", "\\s", "\\S", "\\p{L}", "\\p{N}", "[^\\s1]", ".", "\\n",
                                        "[\\p{Lu}b]", "\\d", "-", "k", "[a-z]"};
    static const char *const groups[] = {"(?:", "(?:", "(", "(?i:", "(?=", "(?!", "(?>", "(?<x>"};
    static const char *const repeats[] = {"", "", "", "?", "*", "+", "{1,3}", "{2}", "{0,2}", "??", "+?", "*?", "?+", "*+", "++", "{2,}", "{1,2}?"};
    int n = 1 + (int)(next_random(r) % 3), named = 0;
    for (int i = 0; i < n; i++) {
        if (i && next_random(r) % 3 == 0)
            st_str_add(s, "|");
        size_t g = next_random(r) % 8;
        if (deep > 0 && next_random(r) % 3 == 0 && (g < 7 || (deep == 2 && !named))) {
            named |= g == 7;
            st_str_add(s, groups[g]);
            random_part(s, r, g == 7 ? 0 : deep - 1);
            st_str_add(s, ")");
            if (g == 4 || g == 5)
                continue; /* what looks is not repeated */
        } else {
            st_str_add(s, atoms[next_random(r) % (sizeof atoms / sizeof *atoms)]);
        }
        st_str_add(s, repeats[next_random(r) % (sizeof repeats / sizeof *repeats)]);
    }
}

static void test_random(void **state)
{
    int tried = 0, refused = 0;
    uint64_t r = 77;
    (void)state;
    for (int round = 0; round < 80; round++) {
        st_str regex = {0};
        both b;
        setun_error err = {0};
        random_part(&regex, &r, 2);
        int got = open_both(&b, regex.text, &err);
        if (got < 0) {
            refused++;
            if (!strstr(err.text, "may be empty and is repeated"))
                fail_msg("%s: %s", regex.text, err.text);
        }
        tried += got > 0;
        for (int k = 0; got > 0 && k < 60; k++) {
            static const char *const chars[] = {"a", "b", "A", " ", "1", "\xc3\xa9", "\n", "-", "k", "\xe2\x84\xaa", "\xc3\x89", "B"};
            st_str text = {0};
            for (uint32_t n = 1 + next_random(&r) % 12; n > 0; n--)
                st_str_add(&text, chars[next_random(&r) % (k < 30 ? 5 : 12)]);
            same_pieces(&b, regex.text, text.text, text.len);
            st_str_free(&text);
        }
        close_both(&b);
        st_str_free(&regex);
    }
    assert_true(tried > 50 && refused < 20);
}

static void test_not_in_bundles(void **state)
{
    static const struct { const char *regex, *says; } cases[] = {
        {"(?<=a)b", "a look behind"}, {"(?<!\\S)b", "a look behind"}, {"(?i)a", "no (?i: )"}, {"(?:a?)*b", "may be empty and is repeated"},
        {"(?:a{0,3}|b)+", "may be empty and is repeated"}, {"a{1001}", "more than 1000"}, {"(?=a)?b", "a repeated look ahead"},

    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        both b;
        setun_error err = {0};
        if (open_both(&b, cases[i].regex, &err) != -1 || !strstr(err.text, cases[i].says))
            fail_msg("%s: %s", cases[i].regex, err.text);
        close_both(&b);
    }
}

/* Expressions and texts that would take for ever end with a sentence. */
static void test_too_much(void **state)
{
    static const char *const regex[] = {"(?:a|aa)+b", "(?:a+)+b"};
    size_t n = 3000;
    char *text = malloc(n);
    (void)state;
    assert_non_null(text);
    memset(text, 'a', n);
    for (size_t i = 0; i < sizeof regex / sizeof *regex; i++) {
        both b;
        st_str got = {0};
        setun_error err = {0};
        assert_int_equal(open_both(&b, regex[i], &err), 1);
        if (st_pretok_split(b.own, text, (int64_t)n, 1, add_piece, &got, &err) != SETUN_FULL)
            fail_msg("%s ends", regex[i]);
        assert_non_null(strstr(err.text, "too much backtracking"));
        st_str_free(&got);
        close_both(&b);
    }
    free(text);
}

/* ---------------------------------------------------------------- tokenizers */

static st_tokenizer *from_bytes(const st_tokenizer *t, st_str *bytes)
{
    st_tokenizer *back = NULL;
    st_str again = {0};
    setun_error err = {0};
    if (st_tokenizer_save(t, bytes, &err) != SETUN_OK || st_tokenizer_load(&back, bytes->text, (int64_t)bytes->len, "a bundle", &err) != SETUN_OK)
        fail_msg("%s", err.text);
    /* Nothing depends on the seeds of hashes. */
    assert_int_equal(st_tokenizer_save(t, &again, &err), SETUN_OK);
    assert_int_equal(again.len, bytes->len);
    assert_memory_equal(again.text, bytes->text, again.len);
    st_str_free(&again);
    return back;
}

static void same_ids(const st_tokenizer *t, const st_tokenizer *back, const char *text, size_t n, uint32_t flags)
{
    int32_t *a = NULL, *b = NULL;
    int64_t n_a = 0, n_b = 0;
    setun_error err = {0}, own = {0};
    setun_status s = st_tokenizer_encode(t, text, (int64_t)n, flags, &a, &n_a, &err),
                 u = st_tokenizer_encode(back, text, (int64_t)n, flags, &b, &n_b, &own);
    if (s != u || n_a != n_b || (n_a && memcmp(a, b, (size_t)n_a * sizeof *a)) || strcmp(err.text, own.text))
        fail_msg("'%.*s' has other tokens in a bundle (%s, %s)", (int)n, text, err.text, own.text);
    st_str want = {0}, got = {0};
    if (s == SETUN_OK) {
        decode(t, a, n_a, &want);
        decode(back, b, n_b, &got);
        assert_int_equal(want.len, got.len);
        assert_true(!want.len || memcmp(want.text, got.text, want.len) == 0);
    }
    st_str_free(&want);
    st_str_free(&got);
    free(a);
    free(b);
}

static void same_tokenizer(const st_tokenizer *t)
{
    static const char *const texts[] = {"", " ", "To be, or not to be", "<|begin_of_text|>x <|eot_id|>", "<s>a</s> <unk>", "\xe2\x96\x81 \xe2\x96\201a",
                                        "\xf0\x9f\x98\x80\xe4\xb8\xad", "a<mask> b", "aab qra qr q raab"};
    st_str bytes = {0};
    st_tokenizer *back = from_bytes(t, &bytes);
    uint64_t r = 9;
    assert_int_equal(st_tokenizer_size(t), st_tokenizer_size(back));
    assert_int_equal(st_tokenizer_bos(t), st_tokenizer_bos(back));
    const int32_t *ends, *own;
    int64_t n_ends = st_tokenizer_ends(t, &ends);
    assert_int_equal(st_tokenizer_ends(back, &own), n_ends);
    assert_true(!n_ends || memcmp(ends, own, (size_t)n_ends * sizeof *ends) == 0);
    for (int32_t id = 0; id < st_tokenizer_size(t); id++) {
        const char *a, *b;
        int64_t n_a, n_b;
        int sp_a, sp_b;
        setun_status s = st_tokenizer_bytes(t, id, &a, &n_a, &sp_a, NULL);
        assert_int_equal(st_tokenizer_bytes(back, id, &b, &n_b, &sp_b, NULL), s);
        if (s != SETUN_OK)
            continue;
        assert_true(n_a == n_b && sp_a == sp_b && memcmp(a, b, (size_t)n_a) == 0);
    }
    for (uint32_t flags = 0; flags < 8; flags++) {
        for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
            same_ids(t, back, texts[i], strlen(texts[i]), flags);
        for (int round = 0; round < 40; round++) {
            st_str text = {0};
            random_text(&text, &r, 80);
            same_ids(t, back, text.text, text.len, flags);
            st_str_free(&text);
        }
    }
    st_tokenizer_close(back);
    st_str_free(&bytes);
}

/* A small vocabulary of characters with all that such ones have: bytes, merges, a normalizer, added tokens of every kind. */
static st_tokenizer *small(const char *extra)
{
    st_str json = {0};
    char *dir = temp_dir();
    st_tokenizer *t;
    setun_error err = {0};
    st_str_add(&json, "{\"added_tokens\":[");
    static const char *const added[] = {"<s>", "</s>", "<mask>", "wor", "Norm"};
    for (int i = 0; i < 5; i++)
        st_str_addf(&json, "%s{\"id\":%d,\"content\":\"%s\",\"single_word\":%s,\"lstrip\":%s,\"rstrip\":%s,\"normalized\":%s,\"special\":%s}", i ? "," : "",
                    300 + i, added[i], i == 3 ? "true" : "false", i == 2 ? "true" : "false", i == 1 ? "true" : "false", i == 4 ? "true" : "false",
                    i < 3 ? "true" : "false");
    st_str_addf(&json, "],%s\"model\":{\"type\":\"BPE\",\"unk_token\":\"<0x00>\",\"byte_fallback\":true,\"vocab\":{", extra);
    for (int i = 0; i < 256; i++)
        st_str_addf(&json, "%s\"<0x%02X>\":%d", i ? "," : "", (unsigned)i, i);
    static const char *const more[] = {"\xe2\x96\x81", "a", "b", "o", "r", "T", "\xe2\x96\x81" "a", "\xe2\x96\x81" "b", "or", "ab", "\xe2\x96\x81\xe2\x96\x81", "aor"};
    for (int i = 0; i < 12; i++)
        st_str_addf(&json, ",\"%s\":%d", more[i], 256 + i);
    st_str_add(&json, "},\"merges\":[\"\xe2\x96\x81 a\",\"\xe2\x96\x81 b\",\"o r\",\"a b\",\"\xe2\x96\x81 \xe2\x96\x81\",\"a or\"]}}");
    put_file(dir, "tokenizer.json", json.text, json.len);
    if (st_tokenizer_open(&t, dir, &err) != SETUN_OK)
        fail_msg("%s", err.text);
    remove_tree(dir);
    free(dir);
    st_str_free(&json);
    return t;
}

/* A GGUF file whose merges are scores: q and r are no tokens, but parts of one. */
static st_tokenizer *by_scores(void)
{
    static const struct { const char *text; int type; float score; } more[] = {
        {"\xe2\x96\x81", 1, -1}, {"a", 1, -2}, {"b", 1, -3}, {"\xe2\x96\x81" "a", 1, -0.5f}, {"ab", 1, -0.25f}, {"qr", 1, -4}, {"qra", 1, -4},
        {"aa", 1, -0.5f}, {"<mask>", 4, 0}};
    st_str tokens = {0}, types = {0}, scores = {0}, bytes = {0};
    gguf_maker m = {0};
    uint64_t n = 0;
    for (int i = 0; i < 3 + 256 + 9; i++, n++) {
        char text[16];
        static const char *const first[] = {"<unk>", "<s>", "</s>"};
        const char *s = i < 3 ? first[i] : i < 259 ? text : more[i - 259].text;
        float score = i < 259 ? 0 : more[i - 259].score;
        uint32_t bits;
        (void)snprintf(text, sizeof text, "<0x%02X>", (unsigned)(i - 3) & 255);
        memcpy(&bits, &score, sizeof bits);
        put_le(&tokens, strlen(s), 8);
        st_str_add(&tokens, s);
        put_le(&types, i == 0 ? 2 : i < 3 ? 3 : i < 259 ? 6 : (uint64_t)more[i - 259].type, 4);
        put_le(&scores, bits, 4);
    }
    kv_text(&m, "general.architecture", "llama");
    kv_text(&m, "tokenizer.ggml.model", "llama");
    kv_array(&m, "tokenizer.ggml.tokens", KV_STRING, n, tokens.text, tokens.len);
    kv_array(&m, "tokenizer.ggml.token_type", KV_I32, n, types.text, types.len);
    kv_array(&m, "tokenizer.ggml.scores", KV_F32, n, scores.text, scores.len);
    kv_u32(&m, "tokenizer.ggml.bos_token_id", 1);
    kv_u32(&m, "tokenizer.ggml.eos_token_id", 2);
    gguf_bytes(&m, &bytes);
    char *dir = temp_dir(), *path = join(dir, "m.gguf");
    put_file(dir, "m.gguf", bytes.text, bytes.len);
    st_tokenizer *t = open_model(path);
    free(path);
    remove_tree(dir);
    free(dir);
    st_str_free(&tokens);
    st_str_free(&types);
    st_str_free(&scores);
    st_str_free(&bytes);
    return t;
}

#define LLAMA2 "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":\"\xe2\x96\x81\"}," \
    "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"\xe2\x96\x81\"}]},\"decoder\":{\"type\":\"Sequence\",\"decoders\":[" \
    "{\"type\":\"Replace\",\"pattern\":{\"String\":\"\xe2\x96\x81\"},\"content\":\" \"},{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"}," \
    "{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}]},"

static void test_tokenizers(void **state)
{
    st_tokenizer *t = open_model(MODEL);
    (void)state;
    same_tokenizer(t);
    st_tokenizer_close(t);
    t = small(LLAMA2);
    same_tokenizer(t);
    st_tokenizer_close(t);
    t = by_scores();
    same_tokenizer(t);
    st_tokenizer_close(t);
}

/* Bytes of strangers: cut short they are refused; with a byte changed they are refused or are a tokenizer. */
static void test_damaged(void **state)
{
    static const char text[] = "To be ab\xc3\xa9 wor <s>\n";
    st_tokenizer *t = small(LLAMA2), *back;
    st_str bytes = {0};
    setun_error err = {0};
    uint64_t r = 21;
    int fine = 0;
    (void)state;
    assert_int_equal(st_tokenizer_save(t, &bytes, &err), SETUN_OK);
    for (size_t n = 0; n < bytes.len; n += n < 100 ? 1 : 37) {
        char *cut = malloc(n + 1); /* its end is the end of memory */
        assert_non_null(cut);
        memcpy(cut, bytes.text, n);
        assert_int_equal(st_tokenizer_load(&back, cut, (int64_t)n, "a bundle", &err), SETUN_BAD_FILE);
        assert_null(back);
        assert_int_equal(strncmp(err.text, "a bundle: ", 10), 0);
        free(cut);
    }
    for (int round = 0; round < 3000; round++) {
        size_t at = next_random(&r) % bytes.len;
        char old = bytes.text[at];
        bytes.text[at] = (char)(round % 2 ? next_random(&r) : (uint32_t)old ^ 1u << next_random(&r) % 8);
        setun_status s = st_tokenizer_load(&back, bytes.text, (int64_t)bytes.len, "a bundle", &err);
        assert_true(s == SETUN_OK || s == SETUN_BAD_FILE || s == SETUN_UNKNOWN);
        if (s == SETUN_OK) {
            int32_t *ids;
            int64_t n;
            if (st_tokenizer_encode(back, text, sizeof text - 1, ST_TOK_BOS | ST_TOK_SPECIAL, &ids, &n, &err) == SETUN_OK) {
                st_str out = {0};
                fine++;
                for (int64_t i = 0; i < n; i++)
                    assert_true(ids[i] >= 0 && ids[i] < st_tokenizer_size(back));
                st_str_free(&out);
                free(ids);
            }
            st_tokenizer_close(back);
        }
        bytes.text[at] = old;
    }
    assert_true(fine > 100);
    st_str_free(&bytes);
    st_tokenizer_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_published), cmocka_unit_test(test_random), cmocka_unit_test(test_not_in_bundles), cmocka_unit_test(test_too_much),
        cmocka_unit_test(test_tokenizers), cmocka_unit_test(test_damaged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
