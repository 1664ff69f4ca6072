/* tests/unit/unpacked.c -- ternary matrices in the form of ordinary floats: found where every value says
 * so, and nowhere else. */
#include "tests/unit/files.h"

#define NONE "{\"architectures\":[\"X\"]}"
#define ONLINE "{\"architectures\":[\"X\"],\"quantization_config\":{\"quant_method\":\"bitnet\",\"quantization_mode\":\"online\"}}"

enum { F32, F16, BF16 };
static const char *const dtype_names[] = { "F32", "F16", "BF16" };

/* Element i of a matrix: a sign, and the size of its group as a number of sixteenths. */
typedef struct matrix {
    int64_t rows, cols, group; /* group 0: a row */
    int     dtype;
    int8_t *sign;
    int    *size; /* of each group of each row */
} matrix;

static int64_t n_group(const matrix *m)
{
    return m->group ? (m->cols + m->group - 1) / m->group : 1;
}

static double value(const matrix *m, int64_t i)
{
    int64_t g = m->group ? i % m->cols / m->group : 0;
    return m->sign[i] * m->size[i / m->cols * n_group(m) + g] / 16.0;
}

/* Neighbouring groups never have the same size, so that no coarser form fits; some are all 0. */
static void fill(matrix *m, uint64_t seed)
{
    m->sign = malloc((size_t)(m->rows * m->cols));
    m->size = calloc((size_t)(m->rows * n_group(m)), sizeof *m->size);
    assert_true(m->sign && m->size);
    for (int64_t i = 0; i < m->rows * n_group(m); i++)
        m->size[i] = 3 + (int)(i % 5);
    for (int64_t i = 0; i < m->rows * m->cols; i++)
        m->sign[i] = (int8_t)((int)(next_random(&seed) % 3) - 1);
    for (int64_t i = 0; i < m->rows * n_group(m); i += 7) /* the last group of a row may be one element */
        for (int64_t c = i % n_group(m) * m->group, n = 0; n < (m->group ? m->group : m->cols) && c + n < m->cols; n++)
            m->sign[i / n_group(m) * m->cols + c + n] = 0;
}

/* x, which every type has exactly, as bytes of a type. */
static void put_value(st_str *s, int dtype, double x)
{
    float f = (float)x;
    uint32_t b;
    memcpy(&b, &f, sizeof b);
    if (dtype == F16)
        b = b << 1 ? (b >> 16 & 0x8000) | ((b >> 23 & 255) - 112) << 10 | (b >> 13 & 0x3ff) : b >> 16;
    else if (dtype == BF16)
        b >>= 16;
    for (int i = 0; i < (dtype == F32 ? 4 : 2); i++) {
        char c = (char)(b >> 8 * i & 255);
        st_str_addn(s, &c, 1);
    }
}

/* A model of the matrix "l"; element `changed`, if there is one, is other. */
static char *model_of(const matrix *m, const char *config, int64_t changed, double other)
{
    maker out = { 0 };
    st_str s = { 0 };
    char shape[64], *dir = temp_dir();
    for (int64_t i = 0; i < m->rows * m->cols; i++)
        put_value(&s, m->dtype, i == changed ? other : value(m, i));
    (void)snprintf(shape, sizeof shape, "[%lld,%lld]", (long long)m->rows, (long long)m->cols);
    make_tensor(&out, "l.weight", dtype_names[m->dtype], shape, s.text, s.len);
    st_str_free(&s);
    make_file(&out, dir, "model.safetensors");
    put_text(dir, "config.json", config);
    return dir;
}

static int code(const setun_view *v, int64_t r, int64_t c)
{
    const uint8_t *row = (const uint8_t *)v->data + r * ((v->dim[1] + 127) / 128 * 32);
    return (row[c / 128 * 32 + c % 32] >> 2 * (c % 128 / 32) & 3) - 1;
}

static void check(const matrix *m, const st_ternary *t)
{
    int64_t n = n_group(m);
    assert_int_equal(t->group, m->group);
    assert_true(t->weight_only && !t->across);
    assert_true(t->codes.dim[0] == m->rows && t->codes.dim[1] == m->cols && t->scale.dtype == SETUN_F32);
    assert_int_equal(t->scale.rank, m->group ? 2 : 1);
    assert_int_equal(setun_count(&t->scale), m->rows * n);
    for (int64_t i = 0; i < m->rows * m->cols; i++) {
        float s = ((const float *)t->scale.data)[i / m->cols * n + (m->group ? i % m->cols / m->group : 0)];
        assert_true((double)s * code(&t->codes, i / m->cols, i % m->cols) == value(m, i));
    }
    for (int64_t r = 0; r < m->rows; r++)
        for (int64_t c = m->cols; c < (m->cols + 127) / 128 * 128; c++)
            assert_int_equal(code(&t->codes, r, c), 0);
}

static void drop(matrix *m, char *dir)
{
    free(m->sign);
    free(m->size);
    if (dir)
        drop_dir(dir);
}

/* Every form and type, without a cache, when it is written, and from it. */
static void test_forms(void **state)
{
    static const int64_t groups[] = { 0, 64, 128, 256 }, shapes[][2] = { { 9, 64 }, { 7, 129 }, { 3, 640 }, { 5, 300 } };
    static const char *const says[] = { "one for each row", "one for 64 ", "one for 128 ", "one for 256 " };
    (void)state;
    for (int i = 0; i < 4 * 4 * 3; i++) {
        matrix m = { shapes[i / 4 % 4][0], shapes[i / 4 % 4][1], groups[i % 4], i / 16, NULL, NULL };
        if (m.group >= m.cols)
            continue; /* a group of the whole row is the first form */
        fill(&m, (uint64_t)i + 1);
        char *dir = model_of(&m, NONE, -1, 0), *cache = join(dir, "cache");
        for (int run = 0; run < 3; run++) {
            st_weights *w;
            st_ternary t, again;
            st_weights_stats stats;
            assert_int_equal(st_weights_open(&w, dir, NULL, NULL), SETUN_OK);
            assert_int_equal(st_weights_pack_begin(w, run ? cache : NULL, "auto", NULL), SETUN_OK);
            assert_int_equal(st_weights_ternary(w, "l", run == 2, &t, NULL), SETUN_OK);
            assert_int_equal(st_weights_ternary(w, "l", 0, &again, NULL), SETUN_OK);
            assert_true(again.codes.data == t.codes.data && again.scale.data == t.scale.data && again.group == t.group);
            assert_int_equal(st_weights_pack_hit(w), run == 2);
            assert_int_equal(st_weights_pack_end(w, NULL), SETUN_OK);
            assert_int_equal(st_weights_all_used(w, NULL), SETUN_OK);
            check(&m, &t);
            st_weights_get_stats(w, &stats);
            assert_int_equal(stats.ternary_weights, m.rows * m.cols);
            assert_int_equal(stats.ternary_bytes, m.rows * ((m.cols + 127) / 128 * 32 + 4 * n_group(&m)));
            assert_int_equal(stats.n_weight_only, 1);
            assert_non_null(strstr(stats.scale_rule, says[i % 4]));
            st_weights_close(w);
        }
        free(cache);
        drop(&m, dir);
    }
}

static setun_status ask(const matrix *m, const char *config, int64_t changed, double other, st_ternary *t)
{
    char *dir = model_of(m, config, changed, other);
    st_weights *w;
    assert_int_equal(st_weights_open(&w, dir, NULL, NULL), SETUN_OK);
    setun_status s = st_weights_ternary(w, "l", 0, t, NULL);
    st_weights_close(w);
    drop_dir(dir);
    return s;
}

/* One value that does not fit makes the whole matrix an ordinary one, wherever it is. */
static void test_not_ternary(void **state)
{
    static const int64_t groups[] = { 0, 64, 128, 256 }, at[] = { 0, 77, 3 * 300 - 1 };
    static const double others[] = { 100.0, 3.015625, 1e30, -100.0 };
    st_ternary t;
    (void)state;
    for (int i = 0; i < 4 * 3; i++)
        for (int k = 0; k < 4; k++) {
            matrix m = { 3, 300, groups[i % 4], F32, NULL, NULL };
            fill(&m, (uint64_t)i + 1);
            for (int64_t n = 0; n < m.rows * m.cols; n++) /* the value's own group must have another one */
                m.sign[n] = (int8_t)(m.sign[n] ? m.sign[n] : n % 4 == 1);
            assert_int_equal(ask(&m, NONE, at[i / 4], others[k], &t), SETUN_DECLINED);
            drop(&m, NULL);
        }
}

/* A form that one row lacks is not the matrix's: the next finer one may be. */
static void test_finer(void **state)
{
    st_ternary t;
    (void)state;
    for (int64_t group = 64; group < 256; group *= 2) {
        matrix m = { 4, 512, group, F16, NULL, NULL };
        fill(&m, 5);
        for (int64_t i = 0; i < 3 * n_group(&m); i++) /* all rows but the last are of one size */
            m.size[i] = 9;
        assert_int_equal(ask(&m, NONE, -1, 0, &t), SETUN_OK);
        assert_int_equal(t.group, group);
        drop(&m, NULL);
    }
}

/* What is no evidence: zeros alone, narrow matrices; and a model that says how it is quantised. */
static void test_no_evidence(void **state)
{
    matrix m = { 5, 128, 0, BF16, NULL, NULL };
    st_ternary t;
    (void)state;
    fill(&m, 3);
    assert_int_equal(ask(&m, NONE, -1, 0, &t), SETUN_OK);
    assert_int_equal(ask(&m, ONLINE, -1, 0, &t), SETUN_OK); /* by absmean, with one scale and 8-bit activations */
    assert_true(!t.weight_only && t.group == 0);
    memset(m.sign, 0, 5 * 128);
    assert_int_equal(ask(&m, NONE, -1, 0, &t), SETUN_DECLINED);
    drop(&m, NULL);
    m = (matrix){ 5, 63, 0, F16, NULL, NULL };
    fill(&m, 3);
    assert_int_equal(ask(&m, NONE, -1, 0, &t), SETUN_DECLINED);
    drop(&m, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_forms), cmocka_unit_test(test_not_ternary),
                                        cmocka_unit_test(test_finer), cmocka_unit_test(test_no_evidence) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
