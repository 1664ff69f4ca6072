/* tests/unit/pretok.c -- pieces of pre-tokenizers, against written-down cases and the definition. */
#include "tests/unit/files.h"

#include "model/normal.h"
#include "model/pretok.h"

static setun_status add_piece(void *user, const char *piece, int64_t n, setun_error *err)
{
    (void)err;
    st_str *s = user;
    assert_true(n > 0);
    st_str_addn(s, piece, (size_t)n);
    st_str_add(s, "|");
    return SETUN_OK;
}

static setun_status open_json(st_pretok **p, const char *json, setun_error *err)
{
    json_t *root = json_loads(json, JSON_DECODE_ANY, NULL);
    if (!root)
        fail_msg("not JSON: %s", json);
    setun_status st = st_pretok_new(p, root, "test", err);
    json_decref(root);
    return st;
}

/* Pre-tokenizers as a bundle has them: programs instead of expressions.  Made once each, because PCRE2 is asked about
 * every character there is. */
static struct bundled {
    char      *json;
    st_str     bytes;
    st_pretok *p;
} bundled[256];
static size_t n_bundled;

static const st_pretok *in_bundle(const char *json, const st_pretok *p)
{
    struct bundled *b = bundled;
    setun_error err = { 0 };
    for (; b < bundled + n_bundled; b++)
        if (strcmp(b->json, json) == 0)
            return b->p;
    assert_true(n_bundled < sizeof bundled / sizeof *bundled);
    if (st_pretok_put(p, "test", &b->bytes, &err) != SETUN_OK)
        fail_msg("%s: %s", json, err.text);
    st_bytes in = { (const uint8_t *)b->bytes.text, (const uint8_t *)b->bytes.text + b->bytes.len, 0 };
    assert_int_equal(st_pretok_take(&b->p, &in, NULL), SETUN_OK);
    assert_true(!in.bad && in.at == in.end);
    assert_non_null(b->json = strdup(json));
    n_bundled++;
    return b->p;
}

static int free_bundled(void **state)
{
    (void)state;
    while (n_bundled > 0) {
        struct bundled *b = &bundled[--n_bundled];
        free(b->json);
        st_str_free(&b->bytes);
        st_pretok_free(b->p);
    }
    return 0;
}

/* The pieces of a text, each followed by '|'; those that a bundle makes have to be the same. */
static void pieces(const char *json, const char *text, size_t n, int first, st_str *out)
{
    st_pretok *p;
    st_str own = { 0 };
    setun_error err = { 0 };
    size_t had = out->len;
    if (open_json(&p, json, &err) != SETUN_OK ||
        st_pretok_split(p, text, (int64_t)n, first, add_piece, out, &err) != SETUN_OK ||
        st_pretok_split(in_bundle(json, p), text, (int64_t)n, first, add_piece, &own, &err) != SETUN_OK)
        fail_msg("%s: %s", json, err.text);
    if (own.len != out->len - had || (own.len && memcmp(own.text, out->text + had, own.len) != 0))
        fail_msg("%s: '%.*s' gives '%s' in a bundle and not '%s'", json, (int)n, text, own.text ? own.text : "", out->text + had);
    st_str_free(&own);
    st_pretok_free(p);
}

#define SPLIT(pattern, behavior, invert) \
    "{\"type\":\"Split\",\"pattern\":" pattern ",\"behavior\":\"" behavior "\",\"invert\":" invert "}"
#define SEQUENCE(list) "{\"type\":\"Sequence\",\"pretokenizers\":[" list "]}"
#define BYTES(space, regex) "{\"type\":\"ByteLevel\",\"add_prefix_space\":" space ",\"use_regex\":" regex "}"
#define META(scheme, split) \
    "{\"type\":\"Metaspace\",\"replacement\":\"\xe2\x96\x81\",\"prepend_scheme\":\"" scheme "\",\"split\":" split "}"
#define DASH "{\"String\":\"-\"}"
#define LLAMA3(digits) \
    SEQUENCE(SPLIT("{\"Regex\":\"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|" digits \
                   "| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+\"}", \
                   "Isolated", "false") "," BYTES("false", "false"))
#define FALCON \
    SEQUENCE("{\"type\":\"Punctuation\",\"behavior\":\"Contiguous\"}," \
             BYTES("false", "true") ",{\"type\":\"Digits\",\"individual_digits\":false}," \
             SPLIT("{\"Regex\":\"[0-9][0-9][0-9]\"}", "Isolated", "false"))
#define U2581 "\xe2\x96\x81"

static void test_cases(void **state)
{
    (void)state;
    static const struct {
        const char *json, *text, *want;
    } cases[] = {
        { "null", "a b", "a b|" },
        /* the examples that define the behaviors */
        { SPLIT(DASH, "Removed", "false"), "the-final--countdown", "the|final|countdown|" },
        { SPLIT(DASH, "Isolated", "false"), "the-final--countdown", "the|-|final|-|-|countdown|" },
        { SPLIT(DASH, "MergedWithPrevious", "false"), "the-final--countdown", "the-|final-|-|countdown|" },
        { SPLIT(DASH, "MergedWithNext", "false"), "the-final--countdown", "the|-final|-|-countdown|" },
        { SPLIT(DASH, "Contiguous", "false"), "the-final--countdown", "the|-|final|--|countdown|" },
        { SPLIT("{\"Regex\":\"[a-z]+\"}", "Removed", "true"), "the-final--countdown", "the|final|countdown|" },
        { SPLIT("{\"String\":\"a.\"}", "Isolated", "false"), "aba.b", "ab|a.|b|" },
        /* GPT-2 */
        { BYTES("false", "true"), "Hello  world's 123\n\n x", "Hello| | world|'s| 123|\n\n| x|" },
        { BYTES("false", "true"), "don't DON'T we'll!!", "don|'t| DON|'|T| we|'ll|!!|" },
        { BYTES("true", "true"), "Hi you", " Hi| you|" },
        { BYTES("true", "true"), " Hi you", " Hi| you|" },
        { BYTES("true", "true"), "\nHi", " |\n|Hi|" },
        { BYTES("true", "false"), "Hi you", " Hi you|" },
        { BYTES("false", "false"), "Hi you", "Hi you|" },
        { "{\"type\":\"ByteLevel\"}", "Hi", " Hi|" }, /* every flag is true when absent */
        { SEQUENCE(SPLIT(DASH, "Removed", "false") "," BYTES("true", "false")), "a- b", " a| b|" },
        /* LLaMA-3 and Qwen2 */
        { LLAMA3("\\\\p{N}{1,3}"), "abc 1234567", "abc| |123|456|7|" },
        { LLAMA3("\\\\p{N}"), "abc 1234567", "abc| |1|2|3|4|5|6|7|" },
        { LLAMA3("\\\\p{N}"), "don't DON'T (we'll)\r\n \tx", "don|'t| DON|'T| (|we|'ll|)\r\n| |\tx|" },
        { LLAMA3("\\\\p{N}{1,3}"), "  a \n b ", " | a| \n| b| |" },
        { LLAMA3("\\\\p{N}{1,3}"), "\xc2\xa0nbsp\xe1\xa0\x8ey", "\xc2\xa0nbsp|\xe1\xa0\x8ey|" },
        /* Falcon: punctuation goes first, and digits are cut in threes */
        { FALCON, "Ah, 12345!? a1b22", "Ah|,| |123|45|!?| a|1|b|22|" },
        /* After ByteLevel digits are looked for among the characters that stand for bytes: of
         * U+00E9, C3 A9, none is; of U+00B2, C2 B2, the second is U+00B2 itself, a number. */
        { FALCON, "\xc3\xa9\xc2\xb2", "\xc3\xa9|\xc2|\xb2|" },
        { "{\"type\":\"Digits\",\"individual_digits\":true}", "a12\xc2\xb2", "a|1|2|\xc2\xb2|" },
        { "{\"type\":\"Digits\",\"individual_digits\":false}", "a12\xc2\xb2 b", "a|12\xc2\xb2| b|" },
        { "{\"type\":\"Punctuation\"}", "Hey friend!     How are you?!?", "Hey friend|!|     How are you|?|!|?|" },
        { "{\"type\":\"Punctuation\"}", "1+1=$2^~<`|\xe2\x80\x94", "1|+|1|=|$|2|^|~|<|`|||\xe2\x80\x94|" },
        /* Metaspace */
        { META("always", "true"), "Hey  friend", U2581 "Hey|" U2581 "|" U2581 "friend|" },
        { META("always", "true"), " Hey " U2581 "a", U2581 "Hey|" U2581 "|" U2581 "a|" },
        { META("never", "true"), "Hey friend", "Hey|" U2581 "friend|" },
        { META("always", "false"), "Hey friend ", U2581 "Hey" U2581 "friend" U2581 "|" },
        { META("first", "false"), "Hey friend", U2581 "Hey" U2581 "friend|" },
        { SEQUENCE(SPLIT(DASH, "Removed", "false") "," META("always", "false")), "a-b", U2581 "a|" U2581 "b|" },
        /* Gemma's: its normalizer leaves no space for it */
        { SPLIT("{\"String\":\" \"}", "MergedWithPrevious", "false"), "a b  c", "a |b | |c|" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        st_str s = { 0 };
        pieces(cases[i].json, cases[i].text, strlen(cases[i].text), 1, &s);
        if (strcmp(s.text, cases[i].want) != 0)
            fail_msg("case %zu: %s: '%s' gives '%s' and not '%s'", i, cases[i].json, cases[i].text,
                     s.text, cases[i].want);
        st_str_free(&s);
    }
    st_str s = { 0 };
    pieces(META("first", "false"), "a b", 3, 0, &s); /* something stands before it */
    assert_string_equal(s.text, "a" U2581 "b|");
    st_str_free(&s);
}

/* The definition: a list of parts with marks, folded from the left or from the right. */
static void naive(const char *text, size_t n, const char *behavior, int invert, st_str *out)
{
    size_t begin[64], end[64], parts = 0, made = 0, from[64], to[64];
    int hit[64];
    for (size_t i = 0; i < n; i++) { /* a '-' is a match; what lies between is one gap */
        int is = text[i] == '-';
        if (!is && parts && !hit[parts - 1]) {
            end[parts - 1] = i + 1;
            continue;
        }
        begin[parts] = i;
        end[parts] = i + 1;
        hit[parts++] = is;
    }
    for (size_t i = 0; i < parts; i++)
        hit[i] ^= invert;
    int backward = strcmp(behavior, "MergedWithNext") == 0, before = 0;
    for (size_t k = 0; k < parts; k++) {
        size_t i = backward ? parts - 1 - k : k;
        int joins = strcmp(behavior, "Contiguous") == 0 ? hit[i] == before
                    : strncmp(behavior, "Merged", 6) == 0 ? hit[i] && !before
                                                          : 0;
        if (strcmp(behavior, "Removed") == 0 && hit[i])
            continue;
        if (joins && made > 0 && backward)
            from[made - 1] = begin[i];
        else if (joins && made > 0)
            to[made - 1] = end[i];
        else {
            from[made] = begin[i];
            to[made++] = end[i];
        }
        before = hit[i];
    }
    for (size_t k = 0; k < made; k++) {
        size_t i = backward ? made - 1 - k : k;
        st_str_addn(out, text + from[i], to[i] - from[i]);
        st_str_add(out, "|");
    }
}

static void test_behaviors(void **state)
{
    (void)state;
    static const char *const behaviors[] = { "Isolated", "Removed", "MergedWithPrevious",
                                             "MergedWithNext", "Contiguous" };
    uint64_t r = 5;
    for (int round = 0; round < 1000; round++) {
        char text[40], json[200];
        size_t n = 1 + next_random(&r) % 30;
        const char *behavior = behaviors[round % 5];
        int invert = round / 5 % 2;
        for (size_t i = 0; i < n; i++)
            text[i] = "-ab"[next_random(&r) % 3];
        (void)snprintf(json, sizeof json, SPLIT(DASH, "%s", "%s"), behavior, invert ? "true" : "false");
        st_str got = { 0 }, want = { 0 };
        st_str_add(&got, "");
        st_str_add(&want, "");
        pieces(json, text, n, 1, &got);
        naive(text, n, behavior, invert, &want);
        if (strcmp(got.text, want.text) != 0)
            fail_msg("%s: '%.*s' gives %s and not %s", json, (int)n, text, got.text, want.text);
        st_str_free(&got);
        st_str_free(&want);
    }
}

/* The well-known expressions, read by hand: what matches at the start of a run of characters, the
 * alternatives in their order.  Classes are those of the few characters the test uses. */
static int is_letter(int c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == 0xe9 || c == 0x65e5; }
static int is_number(int c) { return (c >= '0' && c <= '9') || c == 0xb2; }
static int is_white(int c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == 0xa0 || c == 0x3000; }
static int is_line(int c) { return c == '\n' || c == '\r'; }
static int is_other(int c) { return c > 0 && !is_letter(c) && !is_number(c) && !is_white(c); }

static size_t run_of(const int *c, int (*is)(int))
{
    size_t n = 0;
    while (is(c[n]))
        n++;
    return n;
}

/* c ends with a 0; digits: how many at most in a piece, 0 for GPT-2. */
static size_t by_hand(const int *c, int digits)
{
    static const char *const ends[] = { "s", "t", "re", "ve", "m", "ll", "d" };
    for (size_t i = 0; c[0] == '\'' && i < 7; i++) {
        size_t n = strlen(ends[i]), k = 0;
        while (k < n && (c[k + 1] == ends[i][k] || (digits && c[k + 1] == ends[i][k] - 32)))
            k++;
        if (k == n)
            return n + 1;
    }
    size_t skip = digits ? c[0] && !is_line(c[0]) && !is_letter(c[0]) && !is_number(c[0]) : c[0] == ' ', n;
    if ((n = run_of(c + skip, is_letter)) > 0)
        return skip + n;
    n = digits ? run_of(c, is_number) : run_of(c + skip, is_number);
    if (n > 0)
        return digits ? (n < (size_t)digits ? n : (size_t)digits) : skip + n;
    skip = c[0] == ' ';
    if ((n = run_of(c + skip, is_other)) > 0)
        return skip + n + (digits ? run_of(c + skip + n, is_line) : 0);
    n = run_of(c, is_white);
    for (size_t k = n; digits && k > 0; k--) /* up to the last end of a line */
        if (is_line(c[k - 1]))
            return k;
    return n > 1 && c[n] ? n - 1 : n;
}

static void test_by_hand(void **state)
{
    (void)state;
    static const struct {
        int         code;
        const char *text;
    } chars[] = { { 'a', "a" }, { 'S', "S" }, { 's', "s" }, { 'l', "l" }, { 't', "t" }, { '\'', "'" },
                  { '1', "1" }, { '2', "2" }, { ' ', " " }, { ' ', " " }, { ' ', " " }, { '\n', "\n" },
                  { '\r', "\r" }, { '\t', "\t" }, { '.', "." }, { '!', "!" }, { 0xe9, "\xc3\xa9" },
                  { 0xb2, "\xc2\xb2" }, { 0xa0, "\xc2\xa0" }, { 0x3000, "\xe3\x80\x80" },
                  { 0x65e5, "\xe6\x97\xa5" }, { 0x180e, "\xe1\xa0\x8e" }, { 0x301, "\xcc\x81" } };
    static const struct {
        const char *json;
        int         digits;
    } kinds[] = { { BYTES("false", "true"), 0 }, { LLAMA3("\\\\p{N}{1,3}"), 3 }, { LLAMA3("\\\\p{N}"), 1 } };
    uint64_t r = 41;
    for (int round = 0; round < 6000; round++) {
        int code[48] = { 0 }, kind = round % 3;
        size_t pick[48], n = 1 + next_random(&r) % 40;
        st_str text = { 0 }, want = { 0 }, got = { 0 };
        for (size_t i = 0; i < n; i++) {
            pick[i] = next_random(&r) % (sizeof chars / sizeof *chars);
            code[i] = chars[pick[i]].code;
            st_str_add(&text, chars[pick[i]].text);
        }
        for (size_t at = 0; at < n;) {
            size_t end = at + by_hand(code + at, kinds[kind].digits);
            assert_true(end > at && end <= n);
            for (; at < end; at++)
                st_str_add(&want, chars[pick[at]].text);
            st_str_add(&want, "|");
        }
        pieces(kinds[kind].json, text.text, text.len, 1, &got);
        if (strcmp(got.text, want.text) != 0)
            fail_msg("kind %d: '%s' gives '%s' and not '%s'", kind, text.text, got.text, want.text);
        st_str_free(&text);
        st_str_free(&want);
        st_str_free(&got);
    }
}

static void test_refused(void **state)
{
    (void)state;
    static const struct {
        const char *json, *says;
    } cases[] = {
        { "{\"type\":\"BertPreTokenizer\"}", "BertPreTokenizer" },
        { "{\"type\":\"Whitespace\"}", "Whitespace" },
        { "{}", "without type" },
        { SPLIT(DASH, "isolated", "false"), "behavior isolated" },
        { SPLIT("{\"Regex\":\"a\",\"String\":\"b\"}", "Isolated", "false"), "no pattern" },
        { SPLIT("{\"String\":\"\"}", "Isolated", "false"), "0 bytes" },
        { SPLIT(DASH, "Isolated", "1"), "invert" },
        { "{\"type\":\"Digits\",\"one_by_one\":true}", "one_by_one" },
        { "{\"type\":\"Punctuation\",\"behaviour\":\"Isolated\"}", "behaviour" },
        { SEQUENCE(BYTES("false", "true") "," BYTES("false", "false")), "twice" },
        { META("sometimes", "true"), "prepend_scheme" },
        { "{\"type\":\"Metaspace\",\"replacement\":\"ab\"}", "one character" },
        { "{\"type\":\"Metaspace\",\"replacement\":\"_\",\"add_prefix_space\":false}", "add_prefix_space" },
        { SEQUENCE("{\"type\":\"Punctuation\"}," META("first", "true")), "first after another" },
        { SEQUENCE(SEQUENCE(SEQUENCE(SEQUENCE(SEQUENCE(SEQUENCE("")))))), "nested" },
        { SEQUENCE("{\"type\":\"Punctuation\",\"a\":1}"), "member a" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        st_pretok *p;
        setun_error err = { 0 };
        setun_status st = open_json(&p, cases[i].json, &err);
        if (st >= 0 || !strstr(err.text, cases[i].says))
            fail_msg("%s: %d '%s'", cases[i].json, st, err.text);
        st_pretok_free(p);
    }
}

/* Deep and wide: many stages, each with its own buffer, and a text of a megabyte. */
static void test_long(void **state)
{
    (void)state;
    size_t n = 1000000;
    char *text = malloc(n);
    assert_non_null(text);
    for (size_t i = 0; i < n; i++)
        text[i] = "ab 1-"[i % 5];
    static const char *const kinds[] = { FALCON, META("always", "true"), SPLIT(DASH, "Contiguous", "true") };
    for (size_t k = 0; k < 3; k++) {
        st_str s = { 0 };
        pieces(kinds[k], text, n, 1, &s);
        assert_true(s.len > n);
        st_str_free(&s);
    }
    free(text);
}

static void test_normal(void **state)
{
    (void)state;
    static const struct {
        const char *json, *text, *want; /* want "=": unchanged */
    } cases[] = {
        { "null", "a b", "a b" },
        { "{\"type\":\"Prepend\",\"prepend\":\"_\"}", "a", "_a" },
        { "{\"type\":\"Prepend\",\"prepend\":\"_\"}", "", "" },
        { "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"" U2581 "\"}", " a  b ",
          U2581 "a" U2581 U2581 "b" U2581 },
        { "{\"type\":\"Replace\",\"pattern\":{\"String\":\"aa\"},\"content\":\"b\"}", "aaaba", "baba" },
        { "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":\"_\"},"
          "{\"type\":\"Replace\",\"pattern\":{\"String\":\"_\"},\"content\":\"--\"}]}", "a_", "--a--" },
        { "{\"type\":\"NFC\"}", "plain", "plain" },
        { "{\"type\":\"NFC\"}", "na\xc3\xafve \xe6\x97\xa5\xe6\x9c\xac \xed\x95\x9c \xf0\x9f\x99\x82", "=" },
        { "{\"type\":\"NFC\"}", "\xe0\xa4\xb9\xe0\xa4\xbf\xe0\xa4\x82\xe0\xa4\xa6\xe0\xa5\x80", "=" }, /* Hindi */
        { "{\"type\":\"NFC\"}", "i\xcc\x88", "\xc3\xaf" },             /* i and a diaeresis */
        { "{\"type\":\"NFC\"}", "\xe2\x84\xab", "\xc3\x85" },         /* the Angstrom sign is a letter */
        { "{\"type\":\"NFC\"}", "\xe1\x84\x92\xe1\x85\xa1", "\xed\x95\x98" }, /* two Jamo make a syllable */
        { "{\"type\":\"NFC\"}", "\xd9\x91\xd9\x8e", "\xd9\x8e\xd9\x91" }, /* two Arabic marks have an order */
        { "{\"type\":\"NFC\"}", "\xf0\x9d\x85\x9e", "\xf0\x9d\x85\x97\xf0\x9d\x85\xa5" }, /* a half note decomposes */
        { "{\"type\":\"NFC\"}", "\xcd\xb8", "=" },                   /* U+0378 is not assigned */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *root = json_loads(cases[i].json, JSON_DECODE_ANY, NULL);
        st_normal *m;
        st_str held = { 0 };
        const char *got, *want = cases[i].want;
        int64_t n;
        setun_error err = { 0 };
        assert_int_equal(st_normal_new(&m, root, "test", &err), SETUN_OK);
        setun_status st = st_normal_apply(m, cases[i].text, (int64_t)strlen(cases[i].text), &held, &got,
                                          &n, &err);
        if (want[0] == '=')
            want = cases[i].text;
        if (st != SETUN_OK || n != (int64_t)strlen(want) || memcmp(got, want, (size_t)n) != 0)
            fail_msg("case %zu: %d '%s'", i, st, err.text);
        st_str_free(&held);
        st_normal_free(m);
        json_decref(root);
    }
    static const char *const bad[] = {
        "{\"type\":\"Lowercase\"}", "{\"type\":\"NFX\"}", "{\"type\":\"Prepend\"}", "{\"type\":\"NFC\",\"x\":1}",
        "{\"type\":\"Replace\",\"pattern\":{\"Regex\":\" \"},\"content\":\"_\"}", "[]", "{}",
        "{\"type\":\"Replace\",\"pattern\":{\"String\":\"\"},\"content\":\"_\"}",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        json_t *root = json_loads(bad[i], 0, NULL);
        st_normal *m;
        setun_error err = { 0 };
        if (st_normal_new(&m, root, "test", &err) >= 0 || !err.text[0])
            fail_msg("%s is taken", bad[i]);
        st_normal_free(m);
        json_decref(root);
    }
    /* Rules that multiply end in a sentence, not in all of memory. */
    st_str s = { 0 };
    st_str_add(&s, "{\"type\":\"Sequence\",\"normalizers\":[");
    for (int i = 0; i < 10; i++)
        st_str_addf(&s, "%s{\"type\":\"Replace\",\"pattern\":{\"String\":\"a\"},\"content\":\"aaaaaaaaaaaaaaaa\"}",
                    i ? "," : "");
    st_str_add(&s, "]}");
    json_t *root = json_loads(s.text, 0, NULL);
    st_normal *m;
    st_str held = { 0 };
    const char *got;
    int64_t n;
    setun_error err = { 0 };
    assert_int_equal(st_normal_new(&m, root, "test", &err), SETUN_OK);
    assert_int_equal(st_normal_apply(m, "aaaaaaaa", 8, &held, &got, &n, &err), SETUN_FULL);
    st_str_free(&held);
    st_normal_free(m);
    json_decref(root);
    st_str_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cases), cmocka_unit_test(test_behaviors), cmocka_unit_test(test_by_hand), cmocka_unit_test(test_refused),
        cmocka_unit_test(test_long),  cmocka_unit_test(test_normal),
    };
    return cmocka_run_group_tests(tests, NULL, free_bundled);
}
