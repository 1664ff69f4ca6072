/* tests/unit/safetensors.c -- the container reader against files that lie. */
#include "tests/unit/files.h"

#include "model/safetensors.h"

/* Parse bytes; returns the status, and on success checks that every tensor lies in the buffer. */
static setun_status parse(const void *bytes, size_t n, setun_error *err)
{
    st_safetensors s = { 0 };
    st_arena *a = st_arena_new();
    assert_non_null(a);
    s.arena = a;
    uint8_t *copy = malloc(n ? n : 1); /* exact size, so that a sanitizer sees reads past the end */
    assert_non_null(copy);
    memcpy(copy, bytes, n);
    uint64_t hash = 0;
    setun_status st = st_safetensors_parse(&s, "test.safetensors", copy, (int64_t)n, &hash, err);
    if (st == SETUN_OK) {
        int64_t total = 0;
        for (int64_t i = 0; i < s.n_tensors; i++) {
            const uint8_t *p = s.tensor[i].view.data;
            assert_true(s.tensor[i].bytes >= 0 && p >= copy + 8 &&
                        p + s.tensor[i].bytes <= copy + n);
            if (s.tensor[i].view.dtype)
                assert_int_equal(setun_view_bytes(&s.tensor[i].view), s.tensor[i].bytes);
            total += s.tensor[i].bytes;
        }
        assert_true(total <= (int64_t)n);
    } else {
        assert_true(st < 0);
        assert_true(err->text[0] != '\0');
    }
    st_safetensors_close(&s);
    st_arena_free(a);
    free(copy);
    return st;
}

static setun_status parse_header(const char *json, size_t data_bytes, const char **text)
{
    static setun_error err;
    st_str s = { 0 };
    uint64_t n = strlen(json);
    for (int i = 0; i < 8; i++) {
        uint8_t byte = (uint8_t)(n >> 8 * i);
        st_str_addn(&s, &byte, 1);
    }
    st_str_add(&s, json);
    for (size_t i = 0; i < data_bytes; i++)
        st_str_addn(&s, "\1", 1);
    setun_status st = parse(s.text, s.len, &err);
    st_str_free(&s);
    *text = err.text;
    return st;
}

static void test_headers(void **state)
{
    (void)state;
    static const struct {
        const char *json;
        size_t      data;
        const char *says; /* NULL: fine */
    } cases[] = {
        { "{}", 0, NULL },
        { "{\"__metadata__\":{\"format\":\"pt\"}}   ", 0, NULL },
        { "{\"a\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]}}", 3, NULL },
        { "{\"a\":{\"dtype\":\"BF16\",\"shape\":[],\"data_offsets\":[3,5]},"
          "\"b\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]}}",
          5, NULL },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[0,7],\"data_offsets\":[0,0]}}", 0, NULL },
        { "{\"a\":{\"dtype\":\"F4\",\"shape\":[4],\"data_offsets\":[0,2]}}", 2, NULL },
        { "{\"a\":{\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,2]}}", 2, "need 12 bits" },
        { "[]", 0, "not a JSON object" },
        { " {}", 0, "not a JSON object" },
        { "{\"a\":1}", 0, "entry" },
        { "{\"__metadata__\":{\"n\":1}}", 0, "__metadata__" },
        { "{\"a\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]}}", 4, "belong to none" },
        { "{\"a\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]}}", 2, "has 2 bytes" },
        { "{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[1,3]}}", 3, "begins at 1" },
        { "{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
          "\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[1,3]}}",
          3, "begins at 1" },
        { "{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
          "\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[2,4]}}",
          4, "duplicate" },
        { "{\"a\":{\"dtype\":\"Q9\",\"shape\":[2],\"data_offsets\":[0,2]}}", 2,
          "unknown dtype Q9" },
        { "{\"a\":{\"dtype\":\"U8\",\"shape\":[-2],\"data_offsets\":[0,2]}}", 2, "dimension" },
        { "{\"a\":{\"dtype\":\"U8\",\"shape\":[2.0],\"data_offsets\":[0,2]}}", 2, "dimension" },
        { "{\"a\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,2],\"data_offsets\":[0,2]}}", 2,
          "5 dimensions" },
        { "{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[2,0]}}", 2, "in order" },
        { "{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[-2,0]}}", 2, "in order" },
        { "{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2],\"x\":1}}", 2, "entry" },
        { "{\"a\":{\"dtype\":\"U8\",\"shape\":[4611686018427387904,4],\"data_offsets\":[0,0]}}", 0,
          "overflows" },
        { "{\"a\":{\"dtype\":\"U8\",\"shape\":[99999999999999999999],\"data_offsets\":[0,0]}}", 0,
          "JSON" },
        { "{\"a\xff\":{}}", 0, "UTF-8" },
        { "{\"a\":{}} x", 0, "JSON" },
        { "{\"a\":", 0, "JSON" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *text = "";
        setun_status st = parse_header(cases[i].json, cases[i].data, &text);
        if (!cases[i].says)
            assert_int_equal(st, SETUN_OK);
        else {
            assert_true(st < 0);
            if (!strstr(text, cases[i].says))
                fail_msg("%s: says '%s', not '%s'", cases[i].json, text, cases[i].says);
        }
    }
}

static void tiny(st_str *out)
{
    maker m = { 0 };
    make_tensor(&m, "w", "U8", "[2,3]", "\0\1\2\3\4\5", 6);
    make_tensor(&m, "s", "BF16", "[1]", "\x80\x3f", 2);
    make_tensor(&m, "e", "F32", "[0]", "", 0);
    make_bytes(&m, out);
    st_str_free(&m.json);
    st_str_free(&m.data);
}

static void test_truncated(void **state)
{
    (void)state;
    st_str s = { 0 };
    setun_error err;
    tiny(&s);
    for (size_t n = 0; n < s.len; n++)
        assert_true(parse(s.text, n, &err) < 0);
    assert_int_equal(parse(s.text, s.len, &err), SETUN_OK);
    st_str_addn(&s, "", 1);
    assert_true(parse(s.text, s.len, &err) < 0);
    st_str_free(&s);
}

/* Every single byte set to many values: parse itself checks that success means validity; the sanitizers
 * check the rest.  (Numbers of the header: fields.c; more damage: tests/fuzz/safetensors.c.) */
static void test_mutations(void **state)
{
    (void)state;
    static const char nasty[] = "\0 \"{}[],:0-9.eE\\u\x7f\x80\xc3\xff";
    st_str s = { 0 };
    setun_error err;
    tiny(&s);
    int refused = 0;
    for (size_t i = 0; i < s.len; i++) {
        char old = s.text[i];
        for (size_t k = 0; k < sizeof nasty - 1; k++) {
            s.text[i] = nasty[k];
            refused += parse(s.text, s.len, &err) < 0;
        }
        for (int bit = 0; bit < 8; bit++) {
            s.text[i] = (char)(old ^ 1 << bit);
            refused += parse(s.text, s.len, &err) < 0;
        }
        s.text[i] = old;
    }
    assert_true(refused > 1000);
    st_str_free(&s);
}

static void test_long_header(void **state)
{
    (void)state;
    setun_error err;
    uint8_t bytes[16] = { 0, 0, 0, 0, 0, 0, 0, 0x80, '{' };
    assert_int_equal(parse(bytes, sizeof bytes, &err), SETUN_BAD_FILE);
    /* Depth is limited by the JSON reader. */
    st_str deep = { 0 };
    st_str_add(&deep, "{\"a\":");
    for (int i = 0; i < 100000; i++)
        st_str_add(&deep, "[");
    const char *text;
    assert_true(parse_header(deep.text, 0, &text) < 0);
    st_str_free(&deep);
}

static setun_status open_dir(const char *dir, setun_error *err)
{
    st_safetensors s = { 0 };
    st_arena *a = st_arena_new();
    setun_status st = st_safetensors_open(&s, dir, a, err);
    st_safetensors_close(&s);
    st_arena_free(a);
    return st;
}

static void shard(const char *dir, const char *file, const char *tensor)
{
    maker m = { 0 };
    make_tensor(&m, tensor, "U8", "[3]", "abc", 3);
    make_file(&m, dir, file);
}

static void test_shards(void **state)
{
    (void)state;
    static const struct {
        const char *index, *says;
    } cases[] = {
        { "{\"metadata\":{\"total_size\":6},\"weight_map\":{\"x\":\"a.safetensors\",\"y\":\"b.safetensors\"}}",
          NULL },
        { "{\"weight_map\":{\"x\":\"b.safetensors\",\"y\":\"a.safetensors\"}}",
          "as the index says" },
        { "{\"weight_map\":{\"x\":\"a.safetensors\"}}", NULL },
        { "{\"weight_map\":{\"x\":\"a.safetensors\",\"z\":\"a.safetensors\"}}",
          "as the index says" },
        { "{\"weight_map\":{\"z\":\"a.safetensors\"}}", "as the index says" },
        { "{\"weight_map\":{\"x\":\"a.safetensors\",\"y\":\"c.safetensors\"}}", "is missing" },
        { "{\"weight_map\":{\"x\":\"../a.safetensors\"}}", "plain file name" },
        { "{\"weight_map\":{\"x\":\"/etc/passwd\"}}", "plain file name" },
        { "{\"weight_map\":{\"x\":1}}", "plain file name" },
        { "{\"weight_map\":{\"x\":\"a.safetensors\",\"x\":\"b.safetensors\"}}", "duplicate" },
        { "{\"weight_map\":{\"x\":\"a.safetensors\",\"y\":\"twice.safetensors\"}}", "is also in" },
        { "{\"weight_map\":{}}", "weight_map" },
        { "[]", "weight_map" },
        { "{", "JSON" },
    };
    char *dir = temp_dir();
    setun_error err = { 0 };
    assert_true(open_dir(dir, &err) < 0);
    assert_non_null(strstr(err.text, "no model.safetensors"));
    shard(dir, "a.safetensors", "x");
    shard(dir, "b.safetensors", "y");
    shard(dir, "twice.safetensors", "x");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put_text(dir, "model.safetensors.index.json", cases[i].index);
        setun_status st = open_dir(dir, &err);
        if (!cases[i].says)
            assert_int_equal(st, SETUN_OK);
        else if (st >= 0 || !strstr(err.text, cases[i].says))
            fail_msg("%s: says '%s', not '%s'", cases[i].index, err.text, cases[i].says);
    }
    drop_dir(dir);
}

/* A shard may not hold more than the index names. */
static void test_unlisted(void **state)
{
    (void)state;
    char *dir = temp_dir();
    setun_error err = { 0 };
    maker m = { 0 };
    make_tensor(&m, "x", "U8", "[3]", "abc", 3);
    make_tensor(&m, "hidden", "U8", "[3]", "abc", 3);
    make_file(&m, dir, "a.safetensors");
    put_text(dir, "model.safetensors.index.json", "{\"weight_map\":{\"x\":\"a.safetensors\"}}");
    assert_int_equal(open_dir(dir, &err), SETUN_BAD_FILE);
    assert_non_null(strstr(err.text, "hidden"));
    drop_dir(dir);
}

static void test_real(void **state)
{
    (void)state;
    st_safetensors s = { 0 };
    st_arena *a = st_arena_new();
    assert_int_equal(st_safetensors_open(&s, SETUN_SOURCE_DIR "/tests/models/shakespeare", a, NULL),
                     SETUN_OK);
    assert_int_equal(s.n_tensors, 1 + 1 + 4 * (4 + 14));
    int64_t i;
    assert_true(st_table_get(s.by_name, "model.layers.3.mlp.down_proj.weight", 35, &i));
    assert_string_equal(s.tensor[i].dtype, "U8");
    assert_int_equal(s.tensor[i].view.dim[0], 64);
    assert_int_equal(s.tensor[i].view.dim[1], 768);
    st_safetensors_close(&s);
    st_arena_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_headers),   cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_mutations), cmocka_unit_test(test_long_header),
        cmocka_unit_test(test_shards),    cmocka_unit_test(test_unlisted),
        cmocka_unit_test(test_real),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
