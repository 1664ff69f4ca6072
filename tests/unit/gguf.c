/* tests/unit/gguf.c -- the GGUF container: a golden file, and files that lie. */
#include "setun/numerics.h"
#include "tests/unit/gguf_read.h"

#include <time.h>

/* ---------------------------------------------------------------- golden files */

static const char example[] =
    "4747554603000000020000000000000003000000000000001400000000000000"
    "67656e6572616c2e617263686974656374757265080000000500000000000000"
    "6c6c616d610300000000000000782e7504000000070000000500000000000000"
    "782e61727209000000050000000300000000000000ffffffff00000000010000"
    "0001000000000000006102000000040000000000000002000000000000000000"
    "0000000000000000000001000000000000006201000000030000000000000001"
    "0000002000000000000000000000000000000000000000000000000000000000"
    "000000000000803f0000004000004040000080400000a0400000c0400000e040"
    "003c003800c00000000000000000000000000000000000000000000000000000";

static void tiny(gguf_maker *m, st_str *out)
{
    st_str a = { 0 };
    for (int i = 0; i < 8; i++)
        put_le(&a, setun_f32_bits((float)i), 4);
    make(m, out, "llama", -1);
    kv_u32(m, "x.u", 7);
    kv_array(m, "x.arr", KV_I32, 3, "\xff\xff\xff\xff\0\0\0\0\1\0\0", 12);
    gguf_tensor(m, "a", 0, 2, (const int64_t[]){ 4, 2 }, a.text, a.len);
    gguf_tensor(m, "b", 1, 1, (const int64_t[]){ 3 }, "\x00\x3c\x00\x38\x00\xc0", 6);
    gguf_bytes(m, out);
    st_str_free(&a);
}

static void test_example(void **state)
{
    (void)state;
    static const float want[2][4] = { { 0, 1, 2, 3 }, { 4, 5, 6, 7 } }, want_b[3] = { 1, 0.5f, -2 };
    size_t n;
    uint8_t *bytes = from_hex(example, &n);
    gguf_maker m;
    st_str same;
    assert_int_equal(n, 288);
    tiny(&m, &same); /* the writer of these tests writes what the format's description has */
    assert_int_equal(same.len, n);
    assert_memory_equal(same.text, bytes, n);
    opened o;
    start(&o, bytes, n, ST_I2S_ASK);
    if (o.status != SETUN_OK)
        fail_msg("%s", o.err.text);
    assert_string_equal(o.g.architecture, "llama");
    assert_int_equal(o.g.n_tensors, 2);
    assert_int_equal(o.g.n_values, 3);
    assert_int_equal(o.g.file[0].data_at, 224);
    int64_t v;
    assert_int_equal(st_gguf_int(st_gguf_find(&o.g, "x.u"), 0, &v), 0);
    assert_int_equal(v, 7);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(st_gguf_int(st_gguf_find(&o.g, "x.arr"), i, &v), 0);
        assert_int_equal(v, i - 1);
    }
    assert_int_equal(st_gguf_int(st_gguf_find(&o.g, "x.arr"), 3, &v), -1);
    assert_null(st_gguf_find(&o.g, "x"));
    float row[4];
    for (int r = 0; r < 2; r++) {
        assert_int_equal(read_row(&o, 0, r, row, NULL, NULL, NULL), SETUN_OK);
        assert_memory_equal(row, want[r], sizeof row);
    }
    assert_int_equal(read_row(&o, 1, 0, row, NULL, NULL, NULL), SETUN_OK);
    assert_memory_equal(row, want_b, sizeof want_b);
    assert_int_equal(o.g.tensor[1].bytes, 6);
    assert_string_equal(o.g.tensor[1].type->name, "F16");
    finish(&o);
    free(bytes);
    st_str_free(&same);
}

/* ---------------------------------------------------------------- keys and values */

static void test_values(void **state)
{
    (void)state;
    static const struct {
        uint32_t    type;
        int         bytes;
        uint64_t    bits;
        int         is_int;
        int64_t     i;
        double      f;
    } cases[] = {
        { KV_U8, 1, 0xff, 1, 255, 0 },          { KV_I8, 1, 0x80, 1, -128, 0 },         { KV_U16, 2, 0xffff, 1, 65535, 0 },
        { KV_I16, 2, 0x8000, 1, -32768, 0 },    { KV_U32, 4, 0xffffffff, 1, 4294967295, 0 },
        { KV_I32, 4, 0x80000000, 1, INT32_MIN, 0 }, { KV_U64, 8, INT64_MAX, 1, INT64_MAX, 0 },
        { KV_U64, 8, (uint64_t)1 << 63, 0, INT64_MIN, 0 }, { KV_I64, 8, (uint64_t)1 << 63, 1, INT64_MIN, 0 }, { KV_I32, 4, 5, 1, 5, 0 },
        { KV_BOOL, 1, 1, 1, 1, 0 },             { KV_F32, 4, 0xc0200000, 0, 0, -2.5 },  { KV_F64, 8, 0x3ff8000000000000u, 0, 0, 1.5 },
    };
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++)
        for (int in_array = 0; in_array < 2; in_array++) {
            gguf_maker m;
            st_str file;
            opened o;
            st_str two = { 0 };
            put_le(&two, cases[k].bits, cases[k].bytes);
            put_le(&two, cases[k].bits, cases[k].bytes);
            make(&m, &file, "llama", -1);
            if (in_array)
                kv_array(&m, "k", cases[k].type, 2, two.text, two.len);
            else
                kv(&m, "k", cases[k].type, cases[k].bits, cases[k].bytes);
            gguf_bytes(&m, &file);
            start(&o, file.text, file.len, ST_I2S_ASK);
            assert_int_equal(o.status, SETUN_OK);
            const st_gguf_value *v = st_gguf_find(&o.g, "k");
            int64_t i = 0, n;
            assert_non_null(v);
            assert_int_equal(v->n, 1 + in_array);
            assert_int_equal(st_gguf_int(v, in_array, &i) == 0, cases[k].is_int);
            assert_int_equal(i, cases[k].i);
            assert_int_equal(st_gguf_int(v, 1 + in_array, &i), -1);
            assert_int_equal(st_gguf_int(v, -1, &i), -1);
            if (cases[k].f != 0)
                assert_true(st_gguf_float(v, in_array) == cases[k].f);
            assert_null(st_gguf_text(v, &n));
            finish(&o);
            st_str_free(&two);
            st_str_free(&file);
        }
    /* Strings are any bytes, also none and 0. */
    gguf_maker m;
    st_str file, list = { 0 };
    opened o;
    static const char *const words[3] = { "", "a\0b", "\xff\xfe" };
    static const int64_t lengths[3] = { 0, 3, 2 };
    for (int i = 0; i < 3; i++) {
        put_le(&list, (uint64_t)lengths[i], 8);
        st_str_addn(&list, words[i], (size_t)lengths[i]);
    }
    make(&m, &file, "llama", -1);
    kv_array(&m, "list", KV_STRING, 3, list.text, list.len);
    kv_array(&m, "empty", KV_STRING, 0, "", 0);
    gguf_bytes(&m, &file);
    start(&o, file.text, file.len, ST_I2S_ASK);
    assert_int_equal(o.status, SETUN_OK);
    const uint8_t *at = st_gguf_find(&o.g, "list")->data;
    for (int i = 0; i < 3; i++) {
        int64_t n;
        const char *text = st_gguf_next(&at, &n);
        assert_int_equal(n, lengths[i]);
        assert_memory_equal(text, words[i], (size_t)n);
    }
    assert_int_equal(st_gguf_find(&o.g, "empty")->n, 0);
    finish(&o);
    st_str_free(&list);
    st_str_free(&file);
}

/* What the format forbids, one thing at a time. */
static void test_refusals(void **state)
{
    (void)state;
    static const float f[16] = { 0 };
    static const char *const says[] = {
        "key general.architecture is missing", "key general.architecture is not a short text", "key twice: there twice",
        "is not plain UTF-8", "is not plain UTF-8", "the name of key 1 has 0 bytes", "the name of key 1 has 1025 bytes", "an array of arrays",
        "99 is no type of values", "77 is no type of values", "a bool is neither 0 nor 1", "a bool is neither 0 nor 1", "general.alignment",
        "general.alignment", "general.alignment", "general.file_type", "tensor t is there twice", "the name of tensor 0 has 64 bytes",
        "the name of tensor 0 has 0 bytes", "has 5 dimensions", "overflow 63 bits", "overflow 63 bits", "needs 28", "F32 needs 32",
        "begins at 32, not at 0", "which is not a multiple of 32", "F32 needs 32", "reaches to", "belong to no tensor", "key general.file_type",
        "is no place in a file", "F32 cannot have this shape", "I2_S cannot have this shape",
        "key general.architecture is not a short text", "key general.architecture is not a short text",
        "tensor u begins at 32, the one after it at 0",
    };
    for (size_t k = 0; k < sizeof says / sizeof *says; k++) {
        gguf_maker m;
        st_str file;
        setun_error err = { 0, "" };
        const int64_t eight[4] = { 8, 1, 1, 1 };
        char longest[1026];
        memset(longest, 'x', 1025);
        longest[1025] = 0;
        memset(&m, 0, sizeof m);
        memset(&file, 0, sizeof file);
        if (k == 1)
            kv_u32(&m, "general.architecture", 1);
        else if (k == 33 || k == 34)
            kv_text(&m, "general.architecture", k == 33 ? "\x1b[2J" : "\xc2\x9b");
        else if (k > 1)
            kv_text(&m, "general.architecture", "llama");
        switch (k) {
        case 2: kv_u32(&m, "twice", 1); kv_u32(&m, "twice", 1); break;
        case 3: kv_u32(&m, "a\xff", 1); break;
        case 4: kv_u32(&m, "a\xc2\x9b", 1); break;
        case 5: kv_u32(&m, "", 1); break;
        case 6: kv_u32(&m, longest, 1); break;
        case 7: kv_array(&m, "k", KV_ARRAY, 0, "", 0); break;
        case 8: kv(&m, "k", 99, 0, 4); break;
        case 9: kv_array(&m, "k", 77, 0, "", 0); break;
        case 10: kv(&m, "k", KV_BOOL, 2, 1); break;
        case 11: kv_array(&m, "k", KV_BOOL, 3, "\0\1\2", 3); break;
        case 12: kv(&m, "general.alignment", KV_U64, 32, 8); break;
        case 13: kv_u32(&m, "general.alignment", 0); break;
        case 14: kv_u32(&m, "general.alignment", 48); break;
        case 15: kv_text(&m, "general.file_type", "40"); break;
        case 16: gguf_tensor(&m, "t", 0, 1, eight, f, 32); gguf_tensor(&m, "t", 0, 1, eight, f, 32); break;
        case 17: longest[64] = 0; gguf_tensor(&m, longest, 0, 1, eight, f, 32); break;
        case 18: gguf_tensor(&m, "", 0, 1, eight, f, 32); break;
        case 19: gguf_tensor(&m, "t", 0, 5, (const int64_t[]){ 8, 1, 1, 1, 1 }, f, 32); break;
        case 20: gguf_tensor(&m, "t", 0, 2, (const int64_t[]){ (int64_t)1 << 32, (int64_t)1 << 31 }, f, 32); break;
        case 21: gguf_tensor(&m, "t", 0, 1, (const int64_t[]){ INT64_MIN }, f, 32); break;
        case 22: gguf_tensor(&m, "t", 0, 1, (const int64_t[]){ 7 }, f, 24); m.alignment = 1; break;
        case 23: gguf_tensor(&m, "t", 0, 1, eight, f, 64); break;               /* 32 bytes too many */
        case 26: gguf_tensor(&m, "t", 0, 1, eight, f, 64); gguf_tensor(&m, "u", 0, 1, eight, f, 32); break; /* a gap */
        case 28: st_str_add(&m.data, "12345678901234567890123456789012345678901234567890123456789012345"); break;
        case 31: gguf_tensor(&m, "t", 0, 3, (const int64_t[]){ 0, (int64_t)1 << 40, (int64_t)1 << 40 }, f, 32); break;
        case 32:
            kv_u32(&m, "general.file_type", 40);
            gguf_tensor(&m, "t", 36, 3, (const int64_t[]){ 0, (int64_t)1 << 40, (int64_t)1 << 40 }, f, 32);
            break;
        case 35:
            for (int i = 0; i < 3; i++)
                gguf_tensor(&m, i == 0 ? "t" : i == 1 ? "u" : "v", 0, 1, eight, f, 32);
            m.infos.text[91] = 0; /* of v */
            break;
        case 29: kv(&m, "general.file_type", KV_I32, 0xffffffff, 4); break;
        default: gguf_tensor(&m, "t", 0, 1, eight, f, 32); gguf_tensor(&m, "u", 0, 1, eight, f, 32); break;
        }
        /* The offset of t is at 25 (8 + 1 + 4 + 8 + 4), that of u 33 bytes later. */
        if (k == 24)
            m.infos.text[25] = 32;
        else if (k == 25)
            m.infos.text[58] = 31;
        else if (k == 27)
            m.infos.text[58] = 96;
        else if (k == 30)
            m.infos.text[65] = (char)0x80;
        if (k == 22)
            kv_u32(&m, "general.alignment", 8);
        gguf_bytes(&m, &file);
        assert_true(parse(file.text, file.len, &err) != SETUN_OK);
        if (!strstr(err.text, says[k]))
            fail_msg("case %zu: '%s' lacks '%s'", k, err.text, says[k]);
        st_str_free(&file);
    }
}

/* ---------------------------------------------------------------- damage */

/* A file with something of everything, small enough to be damaged byte by byte. */
static void everything(gguf_maker *m, st_str *out)
{
    static const uint8_t weights[560] = { 0x55, 0x55, 1, 0x3c };
    make(m, out, "bitnet-b1.58", 40);
    kv(m, "a", KV_BOOL, 1, 1);
    kv(m, "b", KV_F64, 0x3ff8000000000000u, 8);
    kv(m, "c", KV_I64, 3, 8);
    kv_array(m, "d", KV_STRING, 2, "\1\0\0\0\0\0\0\0x\0\0\0\0\0\0\0\0", 17);
    kv_array(m, "e", KV_BOOL, 3, "\0\1\1", 3);
    kv_array(m, "f", KV_F32, 2, "\0\0\0\0\0\0\x80\x3f", 8);
    kv_u32(m, "general.alignment", 32);
    gguf_tensor(m, "norm", 0, 1, (const int64_t[]){ 16 }, weights, 64);
    gguf_tensor(m, "scalar", 1, 0, NULL, weights, 2);
    gguf_tensor(m, "empty", 0, 2, (const int64_t[]){ 0, 5 }, weights, 0);
    gguf_tensor(m, "tq2", 35, 2, (const int64_t[]){ 256, 2 }, weights, 132);
    gguf_tensor(m, "q8", 8, 3, (const int64_t[]){ 32, 2, 2 }, weights, 136);
    gguf_tensor(m, "bn", 135, 2, (const int64_t[]){ 64, 3 }, weights, 60);
    uint8_t i2s[64 + 32] = { 0 };
    i2s[66] = 0x80;
    i2s[67] = 0x3f;
    gguf_tensor(m, "i2s", 36, 2, (const int64_t[]){ 128, 2 }, i2s, sizeof i2s);
    gguf_bytes(m, out);
}

static void test_truncated(void **state)
{
    (void)state;
    for (int which = 0; which < 2; which++) {
        gguf_maker m;
        st_str s;
        setun_error err;
        (which ? everything : tiny)(&m, &s);
        size_t whole = which ? s.len : 262; /* the padding behind the last tensor may be missing */
        for (size_t n = 0; n < s.len; n++)
            assert_int_equal(parse(s.text, n, &err) == SETUN_OK, n >= whole);
        if (parse(s.text, s.len, &err) != SETUN_OK)
            fail_msg("%s", err.text);
        st_str_addn(&s, "", 1);
        assert_true(parse(s.text, s.len, &err) < 0);
        st_str_free(&s);
    }
}

static double now(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Every byte at some values.  Whatever comes out, it is a sentence or a file whose every tensor lies in
 * it and can be read.  (Numbers of the header: fields.c; more damage: tests/fuzz/gguf.c.) */
static void test_bytes(void **state)
{
    (void)state;
    static const uint8_t nasty[] = { 0, 1, 2, 8, 9, 12, 0x7f, 0x80, 0xff };
    gguf_maker m;
    st_str s;
    setun_error err;
    int refused = 0;
    everything(&m, &s);
    for (size_t i = 0; i < s.len; i++) {
        char old = s.text[i];
        for (size_t k = 0; k < sizeof nasty; k++) {
            s.text[i] = (char)nasty[k];
            refused += parse(s.text, s.len, &err) != SETUN_OK;
        }
        s.text[i] = old;
    }
    assert_true(refused > 1000);
    st_str_free(&s);
}

/* Many keys and tensors, the last one a double: time in proportion to the file, also when it is made
 * to be slow. */
static void test_many(void **state)
{
    (void)state;
    for (int of_tensors = 0; of_tensors < 2; of_tensors++) {
        gguf_maker m;
        st_str file;
        setun_error err;
        const int n = of_tensors ? 100000 : 60000;
        make(&m, &file, "llama", -1);
        for (int i = 0; i <= n; i++) {
            char name[32];
            (void)sprintf(name, "%d", i % n);
            if (of_tensors)
                gguf_tensor(&m, name, 0, 1, (const int64_t[]){ 0 }, "", 0);
            else
                kv_u32(&m, name, 1);
        }
        gguf_bytes(&m, &file);
        double begin = now();
        assert_int_equal(parse(file.text, file.len, &err), SETUN_BAD_FILE);
        assert_non_null(strstr(err.text, of_tensors ? "tensor 0 is there twice" : "key 0: there twice"));
        assert_true(now() - begin < 2);
        st_str_free(&file);
    }
}

/* ---------------------------------------------------------------- files */

static setun_status open_file(const char *dir, const char *name, setun_error *err, int64_t *tensors)
{
    st_gguf g = { 0 };
    st_arena *a = st_arena_new();
    char *path = join(dir, name);
    setun_status s = st_gguf_open(&g, path, ST_I2S_ASK, a, err);
    *tensors = g.n_tensors;
    if (s == SETUN_OK)
        for (int64_t i = 0; i < g.n_tensors; i++) {
            float v[8];
            assert_int_equal(st_gguf_read_row(&g, &g.tensor[i], 0, v, NULL, NULL, err), SETUN_OK);
            assert_true(v[0] == (float)g.tensor[i].name[0]); /* as part() wrote them */
        }
    st_gguf_close(&g);
    st_arena_free(a);
    free(path);
    return s;
}

/* Part `no` of `count` with a tensor of this name; total: split.tensors.count, -1 for none. */
static void part(const char *dir, const char *file, int no, int count, int total, const char *tensor, const char *extra)
{
    gguf_maker m;
    st_str s;
    float v[8] = { (float)tensor[0] };
    if (no == 0) {
        make(&m, &s, "llama", -1);
    } else {
        memset(&m, 0, sizeof m);
        memset(&s, 0, sizeof s);
    }
    kv_u32(&m, "x", 1);
    kv(&m, "split.no", KV_U16, (uint64_t)no, 2);
    if (count)
        kv(&m, "split.count", KV_U16, (uint64_t)count, 2);
    if (total >= 0)
        kv(&m, "split.tensors.count", KV_I32, (uint64_t)total, 4);
    if (extra)
        kv_u32(&m, extra, 2);
    gguf_tensor(&m, tensor, 0, 1, (const int64_t[]){ 8 }, v, sizeof v);
    gguf_bytes(&m, &s);
    put_file(dir, file, s.text, s.len);
    st_str_free(&s);
}

static void test_split(void **state)
{
    (void)state;
    static const struct {
        int         no, count, total;
        const char *tensor, *extra, *says; /* of the third part */
    } cases[] = {
        { 2, 3, 3, "c", NULL, NULL },
        { 1, 3, 3, "c", NULL, "its keys say part 2 of 3, its name part 3 of 3" },
        { 2, 4, 3, "c", NULL, "key split.count is not as in" },
        { 2, 0, 3, "c", NULL, "key split.count is missing" },
        { 2, 3, 4, "c", NULL, "key split.tensors.count is not as in" },
        { 2, 3, -1, "c", NULL, NULL },
        { 2, 3, 3, "a", NULL, "tensor a is there twice" },
        { 2, 3, 3, "c", "y", "key y is not as in" },
    };
    static const int values[] = { 0, 1, 2, 3, 4, 1023, 1024, 65534, 65535 };
    char *dir = temp_dir();
    setun_error err = { 0, "" };
    int64_t n;
    /* Each number of either of two parts: 0, its maximum, off by one. */
    for (int k = 0; k < 6 * 9; k++) {
        int number[2][3] = { { 0, 2, 2 }, { 1, 2, 2 } }, *at = &number[k % 2][k / 2 % 3], was = *at;
        *at = values[k / 6];
        for (int i = 0; i < 2; i++)
            part(dir, i ? "p-00002-of-00002.gguf" : "p-00001-of-00002.gguf", number[i][0], number[i][1], number[i][2], i ? "b" : "a", NULL);
        setun_status s = open_file(dir, "p-00001-of-00002.gguf", &err, &n);
        if ((s == SETUN_OK) != (*at == was) || (s != SETUN_OK && (s != SETUN_BAD_FILE || !strstr(err.text, "-of-00002.gguf"))))
            fail_msg("part %d, number %d is %d: %s", k % 2 + 1, k / 2 % 3, *at, s == SETUN_OK ? "taken" : err.text);
    }
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        part(dir, "m-00001-of-00003-00001-of-00003.gguf", 0, 3, 3, "a", NULL);
        part(dir, "m-00001-of-00003-00002-of-00003.gguf", 1, 3, 3, "b", NULL);
        part(dir, "m-00001-of-00003-00003-of-00003.gguf", cases[k].no, cases[k].count, cases[k].total, cases[k].tensor, cases[k].extra);
        setun_status s = open_file(dir, "m-00001-of-00003-00001-of-00003.gguf", &err, &n);
        if ((s == SETUN_OK) != !cases[k].says || (cases[k].says && !strstr(err.text, cases[k].says)))
            fail_msg("case %zu: '%s' lacks '%s'", k, err.text, cases[k].says ? cases[k].says : "nothing");
        if (s == SETUN_OK)
            assert_int_equal(n, 3);
    }
    assert_true(open_file(dir, "m-00001-of-00003-00002-of-00003.gguf", &err, &n) != SETUN_OK);
    assert_non_null(strstr(err.text, "is part 2 of 3 of a model: name the first one"));
    char *third = join(dir, "m-00001-of-00003-00003-of-00003.gguf");
    assert_int_equal(unlink(third), 0);
    free(third);
    assert_true(open_file(dir, "m-00001-of-00003-00001-of-00003.gguf", &err, &n) != SETUN_OK);
    assert_non_null(strstr(err.text, "00003-of-00003.gguf"));
    part(dir, "other-name", 0, 2, 2, "a", NULL);
    assert_int_equal(open_file(dir, "other-name", &err, &n), SETUN_BAD_FILE);
    assert_non_null(strstr(err.text, "has no -00001-of-00002"));
    part(dir, "one", 0, 1, 1, "a", NULL);
    assert_int_equal(open_file(dir, "one", &err, &n), SETUN_OK);
    part(dir, "wrong", 0, 1, 2, "a", NULL);
    assert_int_equal(open_file(dir, "wrong", &err, &n), SETUN_BAD_FILE);
    assert_non_null(strstr(err.text, "split.tensors.count is 2, and by key split.count (1) the parts have 1"));
    part(dir, "none", 0, 0, 1, "a", NULL);
    assert_int_equal(open_file(dir, "none", &err, &n), SETUN_BAD_FILE);
    assert_non_null(strstr(err.text, "split.count is missing"));
    gguf_maker m;
    st_str s;
    static const float v[8] = { 'a' };
    make(&m, &s, "llama", -1);
    kv(&m, "split.no", KV_U16, 0, 2);
    kv(&m, "split.count", KV_U16, 0, 2); /* what a program that joins parts leaves */
    gguf_tensor(&m, "a", 0, 1, (const int64_t[]){ 8 }, v, sizeof v);
    gguf_bytes(&m, &s);
    put_file(dir, "joined", s.text, s.len);
    st_str_free(&s);
    assert_int_equal(open_file(dir, "joined", &err, &n), SETUN_OK);
    part(dir, "huge", 0, 65535, 1, "a", NULL);
    assert_int_equal(open_file(dir, "huge", &err, &n), SETUN_BAD_FILE);
    assert_non_null(strstr(err.text, "huge: key split.count is 65535, wants 0 to "));
    drop_dir(dir);
}

static void test_magic(void **state)
{
    (void)state;
    char *dir = temp_dir();
    static const struct { const char *name, *bytes; size_t n; int is; } cases[] = {
        { "a.gguf", "GGML", 4, 0 }, { "b.safetensors", "GGUF", 4, 1 }, { "c.gguf", "GGU", 3, 0 }, { "d.gguf", "", 0, 0 } };
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        put_file(dir, cases[k].name, cases[k].bytes, cases[k].n);
        char *path = join(dir, cases[k].name);
        assert_int_equal(st_gguf_is(path), cases[k].is);
        free(path);
    }
    assert_int_equal(st_gguf_is(dir), 0);
    drop_dir(dir);
    static const struct { const char *bytes, *says; } heads[] = {
        { "GGUF\0\0\0\3........", "big-endian" }, { "GGUF\1\0\0\0........", "version 1" }, { "GGUF\4\0\0\0........", "version 4" },
        { "GGUF\0\0\0\0........", "version 0" }, { "GGML\3\0\0\0........", "is not a GGUF file" } };
    for (size_t k = 0; k < sizeof heads / sizeof *heads; k++) {
        setun_error err;
        assert_true(parse(heads[k].bytes, 16, &err) != SETUN_OK);
        assert_non_null(strstr(err.text, heads[k].says));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_example),   cmocka_unit_test(test_values), cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_truncated), cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_many),      cmocka_unit_test(test_split),  cmocka_unit_test(test_magic),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
