/* tests/unit/weights.c -- transcoding, scales, quantising masters, the cache file. */
#include "tests/unit/files.h"

#include <math.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "model/weights.h"

#define CONFIG(q) "{\"architectures\":[\"X\"]" q "}"
#define AUTO                                                                                       \
    ",\"quantization_config\":{\"quant_method\":\"bitnet\",\"linear_class\":\"autobitlinear\"}"
#define PLAIN ",\"quantization_config\":{\"quant_method\":\"bitnet\"}"
#define ONLINE                                                                                     \
    ",\"quantization_config\":{\"quant_method\":\"bitnet\",\"quantization_mode\":\"online\"}"

static char *model_dir(const char *config, maker *m)
{
    char *dir = temp_dir();
    put_text(dir, "config.json", config);
    make_file(m, dir, "model.safetensors");
    return dir;
}

/* The weight of row r, column c, by the drawing in setun/types.h. */
static int t2_at(const setun_view *v, int64_t r, int64_t c)
{
    const uint8_t *row = (const uint8_t *)v->data + r * setun_row_bytes(SETUN_T2, v->dim[1]);
    return (row[c / 128 * 32 + c % 32] >> 2 * (c % 128 / 32) & 3) - 1;
}

/* Every column, and zero weights past the end of a row. */
static void check_padding(const setun_view *v)
{
    for (int64_t r = 0; r < v->dim[0]; r++)
        for (int64_t c = v->dim[1]; c < (v->dim[1] + 127) / 128 * 128; c++)
            assert_int_equal(t2_at(v, r, c), 0);
}

static void bf16(uint8_t out[2], float f)
{
    uint32_t bits;
    memcpy(&bits, &f, 4);
    out[0] = (uint8_t)(bits >> 16);
    out[1] = (uint8_t)(bits >> 24);
}

/* A packed linear of random codes, sometimes after one byte that makes everything unaligned. */
static void add_packed(maker *m, const char *name, int64_t quarter, int64_t cols, uint64_t seed,
                       uint8_t **copy)
{
    size_t n = (size_t)(quarter * cols);
    uint8_t *p = malloc(n), s[2];
    char shape[64], full[128];
    for (size_t i = 0; i < n; i++) {
        p[i] = 0;
        for (int k = 0; k < 4; k++)
            p[i] = (uint8_t)((uint32_t)p[i] << 2 | next_random(&seed) % 3);
    }
    (void)snprintf(shape, sizeof shape, "[%lld,%lld]", (long long)quarter, (long long)cols);
    (void)snprintf(full, sizeof full, "%s.weight", name);
    make_tensor(m, full, "U8", shape, p, n);
    bf16(s, 1.75f);
    (void)snprintf(full, sizeof full, "%s.weight_scale", name);
    make_tensor(m, full, "BF16", "[1]", s, 2);
    if (copy)
        *copy = p;
    else
        free(p);
}

static float scale_of(const setun_view *v)
{
    assert_int_equal(v->dtype, SETUN_F32);
    assert_int_equal(setun_count(v), 1);
    return *(const float *)v->data;
}

static void test_packed(void **state)
{
    (void)state;
    static const int64_t sizes[][2] = { { 1, 1 },   { 1, 7 },   { 2, 127 }, { 3, 128 },
                                        { 5, 129 }, { 2, 257 }, { 7, 384 } };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        int64_t quarter = sizes[i][0], cols = sizes[i][1];
        maker m = { 0 };
        uint8_t *p;
        add_packed(&m, "l", quarter, cols, i, &p);
        char *dir = model_dir(CONFIG(AUTO), &m);
        st_weights *w;
        setun_view codes, scale;
        assert_int_equal(st_weights_open(&w, dir, NULL, NULL), SETUN_OK);
        assert_int_equal(st_weights_pack_begin(w, NULL, "auto", NULL), SETUN_OK);
        assert_int_equal(ask_ternary(w, "l", 0, &codes, &scale, NULL), SETUN_OK);
        assert_int_equal(st_weights_pack_end(w, NULL), SETUN_OK);
        assert_int_equal(codes.dtype, SETUN_T2);
        assert_int_equal(codes.dim[0], 4 * quarter);
        assert_int_equal(codes.dim[1], cols);
        assert_true(scale_of(&scale) == 1.75f);
        for (int64_t r = 0; r < quarter; r++)
            for (int64_t c = 0; c < cols; c++)
                for (int k = 0; k < 4; k++)
                    assert_int_equal(t2_at(&codes, r + k * quarter, c),
                                     (p[r * cols + c] >> 2 * k & 3) - 1);
        check_padding(&codes);
        assert_int_equal(st_weights_all_used(w, NULL), SETUN_OK);
        st_weights_close(w);
        drop_dir(dir);
        free(p);
    }
}

/* The worked example of docs/formats.md: one column of eight rows in two bytes. */
static void test_example(void **state)
{
    (void)state;
    static const int want[8] = { 1, 1, 0, 1, -1, 1, 0, 1 };
    maker m = { 0 };
    make_tensor(&m, "l.weight", "U8", "[2,1]", "\x46\xaa", 2);
    make_tensor(&m, "l.weight_scale", "F32", "[]", "\0\0\x80\x3f", 4);
    char *dir = model_dir(CONFIG(AUTO), &m);
    st_weights *w;
    setun_view codes, scale;
    assert_int_equal(st_weights_open(&w, dir, NULL, NULL), SETUN_OK);
    assert_int_equal(ask_ternary(w, "l", 0, &codes, &scale, NULL), SETUN_OK);
    for (int r = 0; r < 8; r++)
        assert_int_equal(t2_at(&codes, r, 0), want[r]);
    st_weights_close(w);
    drop_dir(dir);
}

/* Ask for "l" in a model of one linear; returns the status. */
static setun_status ask(const char *config, maker *m, float *scale, setun_error *err)
{
    char *dir = model_dir(config, m);
    st_weights *w = NULL;
    setun_view codes, s;
    setun_status st = st_weights_open(&w, dir, NULL, err);
    if (st == SETUN_OK)
        st = ask_ternary(w, "l", 0, &codes, &s, err);
    if (st == SETUN_OK)
        *scale = scale_of(&s);
    st_weights_close(w);
    drop_dir(dir);
    return st;
}

static void linear(maker *m, const char *dtype, const char *shape, const void *p, size_t n,
                   const char *scale_dtype, const char *scale_shape, const void *scale,
                   size_t n_scale)
{
    if (p)
        make_tensor(m, "l.weight", dtype, shape, p, n);
    if (scale)
        make_tensor(m, "l.weight_scale", scale_dtype, scale_shape, scale, n_scale);
}

static void test_rules(void **state)
{
    (void)state;
    maker m = { 0 };
    float s = 0;
    linear(&m, "U8", "[1,1]", "\x55", 1, "BF16", "[1]", "\x40\x40", 2); /* 3.0 */
    assert_int_equal(ask(CONFIG(AUTO), &m, &s, NULL), SETUN_OK);
    assert_true(s == 3.0f);
    m = (maker){ 0 };
    linear(&m, "U8", "[1,1]", "\x55", 1, "BF16", "[1]", "\x40\x40", 2);
    assert_int_equal(ask(CONFIG(PLAIN), &m, &s, NULL), SETUN_OK);
    assert_true(s == 1.0f / 3.0f);
    m = (maker){ 0 };
    linear(&m, "U8", "[1,1]", "\x55", 1, "F16", "[1]", "\x00\x42", 2);
    assert_int_equal(ask(CONFIG(AUTO), &m, &s, NULL), SETUN_OK);
    assert_true(s == 3.0f);
    m = (maker){ 0 };
    linear(&m, "F32", "[1,2]", "\0\0\x80\x3f\0\0\0\0", 8, NULL, NULL, NULL, 0);
    assert_int_equal(ask(CONFIG(""), &m, &s, NULL), SETUN_DECLINED);
}

static void test_refused(void **state)
{
    (void)state;
    static const struct {
        const char *config, *dtype, *shape, *bytes;
        size_t      n;
        const char *scale_dtype, *scale_shape, *scale;
        size_t      n_scale;
        const char *says;
    } cases[] = {
        { CONFIG(AUTO), "U8", "[1,2]", "\x55\xd5", 2, "F32", "[1]", "\0\0\x80\x3f", 4,
          "row 3, column 1" },
        { CONFIG(AUTO), "U8", "[2,1]", "\x55\x75", 2, "F32", "[1]", "\0\0\x80\x3f", 4,
          "row 5, column 0" },
        { CONFIG(AUTO), "U8", "[1,1]", "\x55", 1, "F32", "[1]", "\0\0\0\0", 4,
          "not a usable scale" },
        { CONFIG(AUTO), "U8", "[1,1]", "\x55", 1, "F32", "[1]", "\0\0\x80\xbf", 4, "is -1" },
        { CONFIG(AUTO), "U8", "[1,1]", "\x55", 1, "F32", "[1]", "\0\0\x80\x7f", 4, "is inf" },
        { CONFIG(AUTO), "U8", "[1,1]", "\x55", 1, "F32", "[1]", "\0\0\xc0\x7f", 4, "is nan" },
        { CONFIG(PLAIN), "U8", "[1,1]", "\x55", 1, "F32", "[1]", "\1\0\0\0", 4,
          "not a usable scale" },
        { CONFIG(AUTO), "U8", "[1,1]", "\x55", 1, "BF16", "[2]", "\0\0\0\0", 4, "not one F32" },
        { CONFIG(AUTO), "U8", "[1,1]", "\x55", 1, "I8", "[1]", "\1", 1, "not one F32" },
        { CONFIG(AUTO), "U8", "[1]", "\x55", 1, "F32", "[1]", "\0\0\x80\x3f", 4, "not a matrix" },
        { CONFIG(AUTO), "U8", "[1,0]", "", 0, "F32", "[1]", "\0\0\x80\x3f", 4, "not a matrix" },
        { CONFIG(AUTO), "I8", "[1,1]", "\1", 1, "F32", "[1]", "\0\0\x80\x3f", 4,
          "neither packed nor float" },
        { CONFIG(AUTO), "F32", "[1,1]", "\0\0\x80\x3f", 4, "F32", "[1]", "\0\0\x80\x3f", 4,
          "packed weights are U8" },
        { CONFIG(AUTO), "U8", "[1,1]", "\x55", 1, NULL, NULL, NULL, 0, "without a weight_scale" },
        { CONFIG(AUTO), "F32", "[1,1]", "\0\0\x80\x3f", 4, NULL, NULL, NULL, 0, "offline" },
        { CONFIG(ONLINE), "U8", "[1,1]", "\x55", 1, "F32", "[1]", "\0\0\x80\x3f", 4, "it holds floats: quantization_mode is online" },
        { CONFIG(",\"quantization_config\":{\"quant_method\":\"bitnet\",\"modules_to_not_convert\":[\"l\"]}"), "U8", "[1,1]", "\x55", 1,
          "F32", "[1]", "\0\0\x80\x3f", 4, "l.weight is packed, but by " },
        { CONFIG(",\"is_bitnet_config\":true"), "F32", "[1,2]", "\0\0\x80\x3f\0\0\x80\x3e", 8, NULL, NULL, NULL, 0,
          "l.weight is neither packed nor ternary" },
        { CONFIG(""), "U8", "[1,1]", "\x55", 1, "F32", "[1]", "\0\0\x80\x3f", 4,
          "no quantization_config" },
        { CONFIG(ONLINE), "F32", "[1,2]", "\0\0\x80\x3f\0\0\xc0\x7f", 8, NULL, NULL, NULL, 0,
          "column 1" },
        { CONFIG(AUTO), NULL, NULL, NULL, 0, "F32", "[1]", "\0\0\x80\x3f", 4,
          "l.weight is missing" },
        { CONFIG(",\"quantization_config\":{\"quant_method\":\"gptq\"}"), NULL, NULL, NULL, 0, NULL,
          NULL, NULL, 0, "gptq" },
        { CONFIG(",\"quantization_config\":{\"linear_class\":\"bitlinear\"}"), NULL, NULL, NULL, 0,
          NULL, NULL, NULL, 0, "no quant_method" },
        { CONFIG(",\"quantization_config\":{\"quant_method\":\"bitnet\",\"linear_class\":\"x\"}"),
          NULL, NULL, NULL, 0, NULL, NULL, NULL, 0, "linear_class is x" },
        { CONFIG(",\"quantization_config\":{\"quant_method\":\"bitnet\",\"use_rms_norm\":true}"),
          NULL, NULL, NULL, 0, NULL, NULL, NULL, 0, "use_rms_norm" },
        { CONFIG(
              ",\"quantization_config\":{\"quant_method\":\"bitnet\",\"quantization_mode\":\"x\"}"),
          NULL, NULL, NULL, 0, NULL, NULL, NULL, 0, "quantization_mode is x" },
        { CONFIG(",\"quantization_config\":{\"quant_method\":\"bitnet\",\"quantization_mode\":1}"),
          NULL, NULL, NULL, 0, NULL, NULL, NULL, 0, "not a string" },
        { CONFIG(",\"weight_bits\":4"), NULL, NULL, NULL, 0, NULL, NULL, NULL, 0, "weight_bits" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        maker m = { 0 };
        float s;
        setun_error err = { 0 };
        if (cases[i].bytes || cases[i].scale)
            linear(&m, cases[i].dtype, cases[i].shape, cases[i].bytes, cases[i].n,
                   cases[i].scale_dtype, cases[i].scale_shape, cases[i].scale, cases[i].n_scale);
        else
            make_tensor(&m, "x", "U8", "[1]", "", 1);
        setun_status st = ask(cases[i].config, &m, &s, &err);
        if (st >= 0 || !strstr(err.text, cases[i].says))
            fail_msg("case %zu: says '%s', not '%s'", i, err.text, cases[i].says);
    }
}

static void test_not_converted(void **state)
{
    (void)state;
#define LISTED(x)                                                                                  \
    CONFIG(                                                                                        \
        ",\"quantization_config\":{\"quant_method\":\"bitnet\",\"quantization_mode\":\"online\","  \
        "\"modules_to_not_convert\":" x "}")
    static const struct {
        const char  *config;
        setun_status want;
    } cases[] = {
        { LISTED("null"), SETUN_OK },
        { LISTED("[]"), SETUN_OK },
        { LISTED("[\"other\"]"), SETUN_OK },
        { LISTED("[\"l\"]"), SETUN_DECLINED },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        maker m = { 0 };
        float s;
        linear(&m, "F32", "[1,1]", "\0\0\x80\x3f", 4, NULL, NULL, NULL, 0);
        assert_int_equal(ask(cases[i].config, &m, &s, NULL), cases[i].want);
    }
    /* A substring that is no whole part means different things in different versions. */
    maker m = { 0 };
    make_tensor(&m, "a.gate_proj.weight", "F32", "[1,1]", "\0\0\x80\x3f", 4);
    make_tensor(&m, "lm_head.weight", "F32", "[1,1]", "\0\0\x80\x3f", 4);
    char *dir = model_dir(LISTED("[\"gate\"]"), &m);
    st_weights *w;
    setun_view c, s;
    setun_error err;
    assert_int_equal(st_weights_open(&w, dir, NULL, NULL), SETUN_OK);
    assert_int_equal(ask_ternary(w, "a.gate_proj", 0, &c, &s, &err), SETUN_UNKNOWN);
    assert_int_equal(ask_ternary(w, "lm_head", 0, &c, &s, &err), SETUN_DECLINED);
    st_weights_close(w);
    drop_dir(dir);
}

/* Masters against the formula, computed here in its own way. */
static void check_master(const char *dtype, const float *x, int64_t rows, int64_t cols)
{
    size_t n = (size_t)(rows * cols), size = strcmp(dtype, "BF16") == 0 ? 2 : 4;
    uint8_t *bytes = malloc(n * size);
    char shape[64];
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        if (size == 2)
            bf16(bytes + 2 * i, x[i]);
        else
            memcpy(bytes + 4 * i, &x[i], 4);
        sum += (double)fabsf(x[i]);
    }
    float m = (float)(sum / (double)n), s;
    if (m < 1e-5f)
        m = 1e-5f;
    s = 1.0f / m;
    maker mk = { 0 };
    (void)snprintf(shape, sizeof shape, "[%lld,%lld]", (long long)rows, (long long)cols);
    make_tensor(&mk, "l.weight", dtype, shape, bytes, n * size);
    char *dir = model_dir(CONFIG(ONLINE), &mk);
    st_weights *w;
    setun_view codes, scale;
    assert_int_equal(st_weights_open(&w, dir, NULL, NULL), SETUN_OK);
    assert_int_equal(ask_ternary(w, "l", 0, &codes, &scale, NULL), SETUN_OK);
    assert_true(scale_of(&scale) == m);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < cols; c++) {
            float q = rintf(x[r * cols + c] * s);
            assert_int_equal(t2_at(&codes, r, c), q < -1.0f ? -1 : q > 1.0f ? 1 : (int)q);
        }
    check_padding(&codes);
    st_weights_stats stats;
    st_weights_get_stats(w, &stats);
    assert_string_equal(stats.scale_rule, "absmean on load");
    assert_int_equal(stats.ternary_weights, rows * cols);
    st_weights_close(w);
    drop_dir(dir);
    free(bytes);
}

static void test_masters(void **state)
{
    (void)state;
    /* Mean 1, so that 0.5 is an exact tie and goes to zero. */
    static const float ties[8] = {
        0.5f, -0.5f, 1.5f, -1.5f, 0.50390625f, -0.49609375f, 2.0f, 1.0f
    };
    static const float zeros[3] = { 0.0f, -0.0f, 0.0f };
    static const float dead[4] = { 1e-30f, -1e-36f, 1.0f, -1e-6f };
    check_master("F32", ties, 1, 8);
    check_master("BF16", ties, 4, 2);
    check_master("F32", zeros, 3, 1);
    check_master("F32", dead, 2, 2);
    float x[5 * 131];
    uint64_t r = 5;
    for (int i = 0; i < 5 * 131; i++)
        x[i] = ((float)(next_random(&r) >> 24) - 127.5f) / 64.0f; /* exact in bf16 */
    check_master("BF16", x, 5, 131);
    check_master("F32", x, 131, 5);
    check_master("F32", x, 1, 5 * 131);
}

/* F16: every value, against a definition by the formula of the format. */
static void test_tensors(void **state)
{
    (void)state;
    maker m = { 0 };
    uint8_t *all = malloc(2 * 65536);
    for (size_t i = 0; i < 65536; i++) {
        all[2 * i] = (uint8_t)i;
        all[2 * i + 1] = (uint8_t)(i >> 8);
    }
    make_tensor(&m, "h", "F16", "[65536]", all, 2 * 65536);
    make_tensor(&m, "b", "BF16", "[256,256]", all, 2 * 65536);
    make_tensor(&m, "one", "U8", "[1]", "x", 1);
    make_tensor(&m, "odd", "BF16", "[3]", "\x80\x3f\x00\x40\x40\x40", 6);
    make_tensor(&m, "e8", "F8_E4M3", "[1]", "x", 1);
    make_tensor(&m, "empty", "F32", "[0,4]", "", 0);
    char *dir = model_dir(CONFIG(""), &m);
    free(all);
    st_weights *w;
    setun_view v, again;
    setun_error err;
    assert_int_equal(st_weights_open(&w, dir, NULL, NULL), SETUN_OK);
    assert_int_equal(st_weights_tensor(w, "h", SETUN_F32, &v, NULL), SETUN_OK);
    for (int i = 0; i < 65536; i++) {
        int e = i >> 10 & 31, f = i & 1023;
        double want = e == 0    ? ldexp(f, -24)
                      : e == 31 ? (f ? NAN : INFINITY)
                                : ldexp(1024 + f, e - 25);
        double got = (double)((float *)v.data)[i];
        if (i & 0x8000)
            want = -want;
        if (f != 0 && e == 31)
            assert_true(isnan(got));
        else
            assert_true(got == want && signbit(got) == signbit(want));
    }
    assert_int_equal(st_weights_tensor(w, "b", SETUN_F32, &v, NULL), SETUN_OK);
    assert_int_equal(v.rank, 2);
    for (uint32_t i = 0; i < 65536; i++)
        assert_int_equal(((uint32_t *)v.data)[i], i << 16);
    assert_int_equal(st_weights_tensor(w, "b", SETUN_F32, &again, NULL), SETUN_OK);
    assert_ptr_equal(v.data, again.data);
    /* In place or copied, the elements are aligned and the same. */
    assert_int_equal(st_weights_tensor(w, "odd", 0, &v, NULL), SETUN_OK);
    assert_int_equal(v.dtype, SETUN_BF16);
    assert_int_equal((uintptr_t)v.data % 2, 0);
    assert_int_equal(((uint16_t *)v.data)[2], 0x4040);
    assert_int_equal(st_weights_tensor(w, "odd", SETUN_F32, &v, NULL), SETUN_OK);
    assert_true(((float *)v.data)[1] == 2.0f);
    assert_int_equal(st_weights_tensor(w, "empty", 0, &v, NULL), SETUN_OK);
    assert_int_equal(st_weights_tensor(w, "empty", SETUN_F32, &v, NULL), SETUN_OK);
    assert_int_equal(st_weights_tensor(w, "e8", 0, &v, &err), SETUN_UNKNOWN);
    assert_non_null(strstr(err.text, "F8_E4M3"));
    assert_int_equal(st_weights_tensor(w, "one", SETUN_F32, &v, &err), SETUN_BAD_SHAPE);
    assert_int_equal(st_weights_tensor(w, "none", 0, &v, &err), SETUN_BAD_FILE);
    assert_true(st_weights_has(w, "h") && !st_weights_has(w, "none"));
    assert_int_equal(st_weights_all_used(w, &err), SETUN_BAD_FILE);
    assert_non_null(strstr(err.text, "one, e8"));
    assert_int_equal(st_weights_tensor(w, "one", 0, &v, NULL), SETUN_OK);
    st_weights_close(w);
    drop_dir(dir);
}

/* ---------------------------------------------------------------- the cache */

static void count_warning(void *user, int level, const char *text)
{
    (void)text;
    *(int *)user += level == ST_LOG_WARN;
}

/* Loads the linears "a" and, unless only is 1, "b"; appends their bytes and scales to out. */
static setun_status load(const char *dir, const char *cache, int only, int *hit, int *warnings,
                         st_str *out, setun_error *err)
{
    st_log log = { count_warning, warnings, ST_LOG_WARN };
    st_weights *w;
    setun_view codes[2], scale[2];
    *warnings = 0;
    assert_int_equal(st_weights_open(&w, dir, &log, err), SETUN_OK);
    setun_status st = st_weights_pack_begin(w, cache, "auto", err);
    int n = only ? 1 : 2;
    for (int i = 0; st == SETUN_OK && i < n; i++)
        st = ask_ternary(w, i ? "b" : "a", 0, &codes[i], &scale[i], err);
    if (st == SETUN_OK)
        st = st_weights_pack_end(w, err);
    *hit = st_weights_pack_hit(w);
    for (int i = 0; st == SETUN_OK && i < n; i++) {
        st_str_addn(out, codes[i].data, (size_t)setun_view_bytes(&codes[i]));
        st_str_addn(out, scale[i].data, 4);
    }
    st_weights_close(w);
    return st;
}

static char *two_linears(uint64_t seed)
{
    maker m = { 0 };
    add_packed(&m, "a", 5, 200, seed, NULL);
    add_packed(&m, "b", 33, 129, seed + 1, NULL);
    return model_dir(CONFIG(AUTO), &m);
}

static int same(const st_str *a, const st_str *b)
{
    return a->len == b->len && memcmp(a->text, b->text, a->len) == 0;
}

static char *only_file(const char *dir)
{
    char **names, *path;
    int64_t n;
    assert_int_equal(st_dir_list(dir, &names, &n, NULL), SETUN_OK);
    assert_int_equal(n, 1); /* in particular, no temporary file is left */
    path = join(dir, names[0]);
    st_dir_free(names, n);
    return path;
}

/* The transpose has the same weights, from packed and float tensors; and a file that was written for one
 * choice is not read for another. */
static void test_transposed(void **state)
{
    static const int64_t sizes[][2] = { { 1, 1 }, { 2, 7 }, { 33, 129 }, { 32, 128 }, { 65, 300 } };
    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        int64_t rows = 4 * sizes[i][0], cols = sizes[i][1];
        maker m = { 0 };
        add_packed(&m, "a", sizes[i][0], cols, i, NULL);
        char *dir = model_dir(CONFIG(AUTO), &m), *cache = temp_dir();
        for (int run = 0; run < 5; run++) { /* cold, warm, another choice, both forms, memory */
            st_weights *w;
            setun_view plain = { 0 }, turned, scale;
            assert_int_equal(st_weights_open(&w, dir, NULL, NULL), SETUN_OK);
            assert_int_equal(st_weights_pack_begin(w, run == 4 ? NULL : cache, run == 2 ? "row" : "auto", NULL), SETUN_OK);
            assert_int_equal(ask_ternary(w, "a", 1, &turned, &scale, NULL), SETUN_OK);
            if (run >= 3)
                assert_int_equal(ask_ternary(w, "a", 0, &plain, &scale, NULL), SETUN_OK);
            assert_int_equal(st_weights_pack_hit(w), run == 1);
            assert_int_equal(st_weights_pack_end(w, NULL), SETUN_OK);
            assert_true(turned.dim[0] == cols && turned.dim[1] == rows);
            check_padding(&turned);
            for (int64_t r = 0; run >= 3 && r < rows; r++)
                for (int64_t c = 0; c < cols; c++)
                    assert_int_equal(t2_at(&plain, r, c), t2_at(&turned, c, r));
            st_weights_stats stats;
            st_weights_get_stats(w, &stats);
            assert_true(stats.ternary_weights == rows * cols && stats.n_across == 1);
            st_weights_close(w);
        }
        drop_dir(cache);
        drop_dir(dir);
    }
}

static void test_cache(void **state)
{
    (void)state;
    char *dir = two_linears(3), *base = temp_dir(), *cache = join(base, "cache");
    st_str memory = { 0 }, miss = { 0 }, hit = { 0 };
    int was_hit, warnings;
    assert_int_equal(load(dir, NULL, 0, &was_hit, &warnings, &memory, NULL), SETUN_OK);
    assert_false(was_hit);
    assert_int_equal(load(dir, cache, 0, &was_hit, &warnings, &miss, NULL), SETUN_OK);
    assert_false(was_hit);
    assert_int_equal(load(dir, cache, 0, &was_hit, &warnings, &hit, NULL), SETUN_OK);
    assert_true(was_hit);
    assert_int_equal(warnings, 0);
    assert_true(same(&memory, &miss) && same(&memory, &hit));

    /* Damage every part of the file: rebuilt each time, and the answer never changes. */
    char *path = only_file(cache), *bytes;
    int64_t n;
    assert_int_equal(st_file_read(path, 1 << 20, &bytes, &n, NULL), SETUN_OK);
    for (int64_t i = 0; i < n + 20; i++) {
        int64_t at =
            i < 20 ? i * n / 20 : i - 20; /* cut at 20 places, then flip bits here and there */
        if (i >= 20 && i % 97 != 0 && at < n - 40 && at > 8)
            continue;
        FILE *f = fopen(path, "wb");
        assert_non_null(f);
        if (i < 20)
            assert_int_equal(fwrite(bytes, 1, (size_t)at, f), at);
        else {
            bytes[at] = (char)(bytes[at] ^ 4);
            assert_int_equal(fwrite(bytes, 1, (size_t)n, f), n);
            bytes[at] = (char)(bytes[at] ^ 4);
        }
        assert_int_equal(fclose(f), 0);
        st_str again = { 0 };
        assert_int_equal(load(dir, cache, 0, &was_hit, &warnings, &again, NULL), SETUN_OK);
        assert_true(same(&memory, &again));
        /* Padding between matrices and after the magic number is in no checksum, and in no use. */
        assert_true(was_hit ? warnings == 0 : warnings == 1);
        st_str_free(&again);
    }
    free(bytes);
    free(path);
    st_str_free(&memory);
    st_str_free(&miss);
    st_str_free(&hit);
    drop_dir(dir);
    drop_dir(base);
    free(cache);
}

static void test_stale(void **state)
{
    (void)state;
    char *dir = two_linears(3), *other = two_linears(9), *base = temp_dir(),
         *cache = join(base, "cache");
    st_str first = { 0 }, second = { 0 }, part = { 0 }, all = { 0 };
    int was_hit, warnings;
    assert_int_equal(load(dir, cache, 0, &was_hit, &warnings, &first, NULL), SETUN_OK);
    /* Other weights under the same name. */
    char *from = join(other, "model.safetensors"), *to = join(dir, "model.safetensors");
    assert_int_equal(rename(from, to), 0);
    assert_int_equal(load(dir, cache, 0, &was_hit, &warnings, &second, NULL), SETUN_OK);
    assert_false(was_hit);
    assert_int_equal(warnings, 0); /* a changed model is ordinary */
    assert_false(same(&first, &second));
    /* Another rule for the scale: config.json is part of the identity. */
    put_text(dir, "config.json", CONFIG(PLAIN));
    st_str_free(&first);
    assert_int_equal(load(dir, cache, 1, &was_hit, &warnings, &part, NULL), SETUN_OK);
    assert_false(was_hit);
    assert_int_equal(warnings, 0); /* a changed model is ordinary */
    float s;
    memcpy(&s, part.text + part.len - 4, 4);
    assert_true(s == 1.0f / 1.75f);
    /* A script that asks for more than the file has: completed, and a hit the next time. */
    assert_int_equal(load(dir, cache, 0, &was_hit, &warnings, &all, NULL), SETUN_OK);
    assert_false(was_hit);
    st_str_free(&second);
    assert_int_equal(load(dir, cache, 0, &was_hit, &warnings, &second, NULL), SETUN_OK);
    assert_true(was_hit);
    assert_true(same(&all, &second));
    free(only_file(cache));
    st_str_free(&second);
    st_str_free(&part);
    st_str_free(&all);
    free(from);
    free(to);
    drop_dir(dir);
    drop_dir(other);
    drop_dir(base);
    free(cache);
}

static void test_cache_refused(void **state)
{
    (void)state;
    char *dir = two_linears(3), *base = temp_dir(), *cache = join(base, "file");
    put_text(base, "file", "in the way");
    st_str out = { 0 };
    setun_error err = { 0 };
    int was_hit, warnings;
    assert_int_equal(load(dir, cache, 0, &was_hit, &warnings, &out, &err), SETUN_IO);
    assert_non_null(strstr(err.text, "--no-cache"));
    /* A damaged source leaves nothing behind. */
    free(cache);
    cache = join(base, "cache");
    maker m = { 0 };
    add_packed(&m, "a", 5, 200, 1, NULL);
    make_tensor(&m, "b.weight", "U8", "[1,1]", "\xff", 1);
    make_tensor(&m, "b.weight_scale", "F32", "[1]", "\0\0\x80\x3f", 4);
    make_file(&m, dir, "model.safetensors");
    assert_int_equal(load(dir, cache, 0, &was_hit, &warnings, &out, &err), SETUN_BAD_FILE);
    assert_non_null(strstr(err.text, "code 3"));
    char **names;
    int64_t n;
    assert_int_equal(st_dir_list(cache, &names, &n, NULL), SETUN_OK);
    assert_int_equal(n, 0);
    st_dir_free(names, n);
    free(cache);
    drop_dir(dir);
    drop_dir(base);
}

/* A file system that takes no more: one sentence, and nothing is left. */
static void test_no_room(void **state)
{
    (void)state;
    maker m = { 0 };
    add_packed(&m, "a", 64, 2048, 1, NULL);
    add_packed(&m, "b", 512, 2048, 2, NULL);
    char *dir = model_dir(CONFIG(AUTO), &m), *base = temp_dir(), *cache = join(base, "cache"),
         **names;
    struct rlimit old, small = { 200000, RLIM_INFINITY };
    st_str out = { 0 };
    setun_error err = { 0 };
    int was_hit, warnings;
    int64_t n;
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small.rlim_max = old.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    setun_status st = load(dir, cache, 0, &was_hit, &warnings, &out, &err);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    (void)signal(SIGXFSZ, handler);
    assert_int_equal(st, SETUN_IO);
    assert_non_null(strstr(err.text, "weights-"));
    assert_non_null(strstr(err.text, "--cache-dir"));
    assert_int_equal(st_dir_list(cache, &names, &n, NULL), SETUN_OK);
    assert_int_equal(n, 0);
    st_dir_free(names, n);
    st_str_free(&out);
    free(cache);
    drop_dir(dir);
    drop_dir(base);
}

/* Several processes fill the same cache at once; all of them get the right weights. */
static void test_processes(void **state)
{
    (void)state;
    char *dir = two_linears(3), *base = temp_dir(), *cache = join(base, "cache");
    st_str memory = { 0 };
    int was_hit, warnings;
    pid_t child[6];
    assert_int_equal(load(dir, NULL, 0, &was_hit, &warnings, &memory, NULL), SETUN_OK);
    for (int i = 0; i < 6; i++) {
        child[i] = fork();
        assert_true(child[i] >= 0);
        if (child[i] == 0) {
            st_str out = { 0 };
            int good = 1;
            for (int k = 0; k < 5 && good; k++) {
                out.len = 0;
                good = load(dir, cache, 0, &was_hit, &warnings, &out, NULL) == SETUN_OK &&
                       same(&out, &memory);
            }
            _exit(good ? 0 : 1);
        }
    }
    for (int i = 0; i < 6; i++) {
        int status;
        assert_int_equal(waitpid(child[i], &status, 0), child[i]);
        assert_int_equal(status, 0);
    }
    free(only_file(cache));
    st_str_free(&memory);
    free(cache);
    drop_dir(dir);
    drop_dir(base);
}

/* Every linear of the trained model: row sums of the transcoded codes against the packed bytes. */
static void test_shakespeare(void **state)
{
    (void)state;
    st_weights *w;
    int64_t linears = 0, n_hp;
    assert_int_equal(st_weights_open(&w, SETUN_SOURCE_DIR "/tests/models/shakespeare", NULL, NULL),
                     SETUN_OK);
    assert_string_equal(st_weights_architecture(w), "BitNetForCausalLM");
    assert_non_null(st_weights_config(w, &n_hp));
    assert_true(n_hp > 15);
    for (int64_t i = 0; i < st_weights_count(w); i++) {
        const st_tensor *t = st_weights_at(w, i);
        setun_view v, s;
        if (strcmp(t->dtype, "U8") != 0) {
            if (!strstr(t->name, "_scale"))
                assert_int_equal(st_weights_tensor(w, t->name,
                                                   strstr(t->name, "norm") ? SETUN_F32 : 0, &v,
                                                   NULL),
                                 SETUN_OK);
            continue;
        }
        char name[128];
        (void)snprintf(name, sizeof name, "%.*s", (int)strlen(t->name) - 7, t->name);
        assert_int_equal(ask_ternary(w, name, 0, &v, &s, NULL), SETUN_OK);
        const uint8_t *p = t->view.data;
        int64_t quarter = t->view.dim[0], cols = t->view.dim[1];
        for (int64_t r = 0; r < 4 * quarter; r += 7)
            for (int64_t c = 0; c < cols; c++)
                assert_int_equal(t2_at(&v, r, c),
                                 (p[r % quarter * cols + c] >> 2 * (r / quarter) & 3) - 1);
        linears++;
    }
    assert_int_equal(linears, 28);
    assert_int_equal(st_weights_pack_end(w, NULL), SETUN_OK);
    assert_int_equal(st_weights_all_used(w, NULL), SETUN_OK);
    st_weights_stats stats;
    st_weights_get_stats(w, &stats);
    assert_string_equal(stats.scale_rule, "multiply (autobitlinear)");
    assert_int_equal(stats.ternary_weights, 4 * (256 * 256 * 2 + 128 * 256 * 2 + 3 * 256 * 768));
    assert_int_equal(stats.ternary_bytes, stats.ternary_weights / 4);
    st_weights_close(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_packed),        cmocka_unit_test(test_example),
        cmocka_unit_test(test_rules),         cmocka_unit_test(test_refused),
        cmocka_unit_test(test_not_converted), cmocka_unit_test(test_masters),
        cmocka_unit_test(test_tensors),       cmocka_unit_test(test_transposed), cmocka_unit_test(test_cache),
        cmocka_unit_test(test_stale),         cmocka_unit_test(test_cache_refused),
        cmocka_unit_test(test_no_room),       cmocka_unit_test(test_processes),
        cmocka_unit_test(test_shakespeare),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
