/* tests/unit/forms.c -- Unicode's normal forms as a normalizer of tokenizer.json applies them.
 *
 * Expected forms are the examples of Unicode Standard Annex 15 and lines of its conformance test, written as
 * code points; Hangul is computed here by the standard's formula.  Random texts have the properties that
 * the standard promises, and the whole text through the library at once gives what stretches give. */
#include <jansson.h>
#include <utf8proc.h>

#include "model/normal.h"
#include "tests/unit/tokens.h"

enum { NFC, NFD, NFKC, NFKD };
static const char *const names[] = {"NFC", "NFD", "NFKC", "NFKD"};

/* From code points: "0041 030A". */
static st_str text_of(const char *points)
{
    st_str s = {0};
    st_str_add(&s, "");
    for (char *end; *points; points = end) {
        put_char(&s, (uint32_t)strtoul(points, &end, 16));
        assert_true(end > points);
    }
    return s;
}

static st_normal *normal_of(const char *form)
{
    json_t *json = json_pack("{ss}", "type", form);
    st_normal *m;
    setun_error err = {0};
    assert_int_equal(st_normal_new(&m, json, "test", &err), SETUN_OK);
    json_decref(json);
    return m;
}

static st_str apply(const st_normal *m, const st_str *s)
{
    st_str held = {0}, out = {0};
    const char *got;
    int64_t n;
    setun_error err = {0};
    if (st_normal_apply(m, s->text, (int64_t)s->len, &held, &got, &n, &err) != SETUN_OK)
        fail_msg("%s", err.text);
    st_str_addn(&out, got, (size_t)n);
    st_str_free(&held);
    return out;
}

static void test_examples(void **state)
{
    static const char *const cases[][5] = { /* text, NFC, NFD, NFKC, NFKD; "" as the text */
        {"0041 007A 0020 0009", "", "", "", ""},
        {"212B", "00C5", "0041 030A", "00C5", "0041 030A"},
        {"2126", "03A9", "03A9", "03A9", "03A9"},
        {"00C5", "", "0041 030A", "", "0041 030A"},
        {"00F4", "", "006F 0302", "", "006F 0302"},
        {"1E69", "", "0073 0323 0307", "", "0073 0323 0307"},
        {"1E0B 0323", "1E0D 0307", "0064 0323 0307", "1E0D 0307", "0064 0323 0307"},
        {"0071 0307 0323", "0071 0323 0307", "0071 0323 0307", "0071 0323 0307", "0071 0323 0307"},
        {"FB01", "", "", "0066 0069", "0066 0069"},
        {"0032 2075", "", "", "0032 0035", "0032 0035"},
        {"1E9B 0323", "", "017F 0323 0307", "1E69", "0073 0323 0307"},
        {"0069 0308", "00EF", "", "00EF", ""},
        {"0061 0315 0300 05AE 0300 0062", "00E0 05AE 0300 0315 0062", "0061 05AE 0300 0300 0315 0062", "00E0 05AE 0300 0315 0062",
         "0061 05AE 0300 0300 0315 0062"},
        {"D4DB", "", "1111 1171 11B6", "", "1111 1171 11B6"},
        {"1100 1161 11A8", "AC01", "", "AC01", ""},
        {"AC00 11A7", "", "1100 1161 11A7", "", "1100 1161 11A7"}, /* no final consonant */
        {"0041 1100 1161 11A7 11A8 AC00 11A7 11A7", "0041 AC00 11A7 11A8 AC00 11A7 11A7", "0041 1100 1161 11A7 11A8 1100 1161 11A7 11A7",
         "0041 AC00 11A7 11A8 AC00 11A7 11A7", "0041 1100 1161 11A7 11A8 1100 1161 11A7 11A7"},
        {"0958", "0915 093C", "0915 093C", "0915 093C", "0915 093C"}, /* never composed again */
        {"0344", "0308 0301", "0308 0301", "0308 0301", "0308 0301"},
        {"1D15E", "1D157 1D165", "1D157 1D165", "1D157 1D165", "1D157 1D165"},
        {"110A5 110BA", "110AB", "", "110AB", ""},
        {"2F800", "4E3D", "4E3D", "4E3D", "4E3D"},
        {"FDFA", "", "", "0635 0644 0649 0020 0627 0644 0644 0647 0020 0639 0644 064A 0647 0020 0648 0633 0644 0645",
         "0635 0644 0649 0020 0627 0644 0644 0647 0020 0639 0644 064A 0647 0020 0648 0633 0644 0645"},
        {"00A0 00BD", "", "", "0020 0031 2044 0032", "0020 0031 2044 0032"},
        {"FF21 FF9E", "", "", "0041 3099", "0041 3099"},
        {"30AB 3099", "30AC", "", "30AC", ""},
        {"064E 0651 0628", "", "", "", ""}, /* in order as they are */
        {"0651 064E", "064E 0651", "064E 0651", "064E 0651", "064E 0651"},
        {"0378 FFFE 10FFFF E000", "", "", "", ""}, /* not characters, or private */
        {"0061 034F 0300", "", "", "", ""}, /* joined by what keeps them apart */
        {"1F642 1F44D 1F3FD", "", "", "", ""},
    };
    (void)state;
    for (int f = NFC; f <= NFKD; f++) {
        st_normal *m = normal_of(names[f]);
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            st_str s = text_of(cases[i][0]), want = text_of(*cases[i][f + 1] ? cases[i][f + 1] : cases[i][0]), got = apply(m, &s);
            if (got.len != want.len || memcmp(got.text, want.text, got.len) != 0)
                fail_msg("%s of %s is not %s", names[f], cases[i][0], cases[i][f + 1]);
            st_str_free(&s);
            st_str_free(&want);
            st_str_free(&got);
        }
        st_normal_free(m);
    }
}

static void test_hangul(void **state)
{
    st_normal *compose = normal_of("NFC"), *decompose = normal_of("NFD");
    (void)state;
    for (uint32_t i = 0; i < 11172; i++) {
        st_str syllable = {0}, jamo = {0};
        put_char(&syllable, 0xac00 + i);
        put_char(&jamo, 0x1100 + i / 588);
        put_char(&jamo, 0x1161 + i % 588 / 28);
        if (i % 28)
            put_char(&jamo, 0x11a7 + i % 28);
        st_str down = apply(decompose, &syllable), up = apply(compose, &jamo);
        assert_true(down.len == jamo.len && memcmp(down.text, jamo.text, jamo.len) == 0);
        assert_true(up.len == syllable.len && memcmp(up.text, syllable.text, up.len) == 0);
        st_str_free(&syllable);
        st_str_free(&jamo);
        st_str_free(&down);
        st_str_free(&up);
    }
    st_normal_free(compose);
    st_normal_free(decompose);
}

/* Letters, marks that join, marks that only have an order, Jamo, and what the forms of compatibility change. */
static uint32_t any(uint64_t *seed)
{
    static const uint32_t from[][2] = {{0x20, 0x7e}, {0xa0, 0x17f}, {0x2b0, 0x2ff}, {0x300, 0x345}, {0x5b0, 0x5bd}, {0x64b, 0x655},
                                       {0x915, 0x95f}, {0x9be, 0x9df}, {0x1100, 0x11ff}, {0x1e00, 0x1fff}, {0x2000, 0x21ff},
                                       {0x3041, 0x30ff}, {0xac00, 0xad00}, {0xf900, 0xfb06}, {0xff01, 0xff9f}, {0x1d15e, 0x1d1c0}};
    uint32_t row = next_random(seed) % 16;
    return from[row][0] + next_random(seed) % (from[row][1] - from[row][0] + 1);
}

static void same(const st_str *a, const st_str *b, const char *what, int form)
{
    if (a->len != b->len || memcmp(a->text, b->text, a->len) != 0)
        fail_msg("%s: %s", names[form], what);
}

static void test_properties(void **state)
{
    static const utf8proc_option_t options[] = {
        UTF8PROC_STABLE | UTF8PROC_COMPOSE, UTF8PROC_STABLE | UTF8PROC_DECOMPOSE,
        UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT, UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT};
    static const int other[] = {NFD, NFC, NFKD, NFKC};
    st_normal *m[4];
    uint64_t seed = 15;
    int changed = 0;
    (void)state;
    for (int f = NFC; f <= NFKD; f++)
        m[f] = normal_of(names[f]);
    for (int round = 0; round < 4000; round++) {
        st_str s = {0};
        for (uint32_t n = 1 + next_random(&seed) % 12; n > 0; n--)
            put_char(&s, any(&seed));
        for (int f = NFC; f <= NFKD; f++) {
            st_str once = apply(m[f], &s), twice = apply(m[f], &once), across = apply(m[other[f]], &s), back = apply(m[f], &across);
            st_str whole = {0};
            utf8proc_uint8_t *made;
            utf8proc_ssize_t n = utf8proc_map((const utf8proc_uint8_t *)s.text, (utf8proc_ssize_t)s.len, &made, options[f]);
            assert_true(n >= 0);
            st_str_addn(&whole, made, (size_t)n);
            free(made);
            same(&once, &twice, "again it changes", f);
            same(&once, &back, "it is another after the other direction", f);
            if (!strstr(s.text, "\xe1\x86\xa7")) /* see normal.c */
                same(&once, &whole, "stretches differ from the whole", f);
            changed += once.len != s.len || memcmp(once.text, s.text, s.len) != 0;
            st_str_free(&once);
            st_str_free(&twice);
            st_str_free(&across);
            st_str_free(&back);
            st_str_free(&whole);
        }
        st_str_free(&s);
    }
    assert_true(changed > 4000);
    for (int f = NFC; f <= NFKD; f++)
        st_normal_free(m[f]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_examples), cmocka_unit_test(test_hangul), cmocka_unit_test(test_properties)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
