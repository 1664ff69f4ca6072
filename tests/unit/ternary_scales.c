/* tests/unit/ternary_scales.c -- ternary products and embeddings with one scale, a scale for each row, and a
 * scale for every few weights of a row, against double precision loops.
 *
 * The loops know the formula alone, from docs/numerics.md: weights here are numbers, and only the writer at
 * the top knows how they are packed.  That kernels agree with eval, bit for bit, is what `setun check` and
 * tests/unit/ops.c say. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "setun/op.h"

extern const setun_op setun_op_ternary_matmul, setun_op_ternary_matmul_f32, setun_op_embed_ternary;

typedef struct weights {
    int64_t  rows, cols, group; /* group -1: one scale, 0: one for each row */
    int     *w;
    float   *scale;
    uint8_t *t2;
} weights;

static uint64_t mix(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return *seed >> 33;
}

static int64_t n_group(const weights *m)
{
    return m->group > 0 ? (m->cols + m->group - 1) / m->group : 1;
}

static double scale_at(const weights *m, int64_t r, int64_t c)
{
    return (double)m->scale[m->group < 0 ? 0 : r * n_group(m) + (m->group ? c / m->group : 0)];
}

/* Column c is in byte c mod 32 of block c / 128, at bits 2 (c / 32 mod 4). */
static void make(weights *m, uint64_t seed, int exact)
{
    int64_t bytes = (m->cols + 127) / 128 * 32, n = m->rows * n_group(m);
    m->w = calloc((size_t)(m->rows * m->cols), sizeof *m->w);
    m->scale = calloc((size_t)n, sizeof *m->scale);
    m->t2 = malloc((size_t)(m->rows * bytes));
    assert_true(m->w && m->scale && m->t2);
    memset(m->t2, 0x55, (size_t)(m->rows * bytes));
    for (int64_t i = 0; i < n; i++) /* exact: powers of two, with which nothing is ever rounded */
        m->scale[i] = exact ? (float)(1 << mix(&seed) % 3) : 0.01f + (float)(mix(&seed) % 1000) / 500;
    for (int64_t i = 0; i < m->rows * m->cols; i++) {
        int64_t c = i % m->cols;
        uint8_t *byte = &m->t2[i / m->cols * bytes + c / 128 * 32 + c % 32];
        m->w[i] = (int)(mix(&seed) % 3) - 1;
        *byte = (uint8_t)((*byte & ~(3 << 2 * (c / 32 % 4))) | (m->w[i] + 1) << 2 * (c / 32 % 4));
    }
}

static void drop(weights *m)
{
    free(m->w);
    free(m->scale);
    free(m->t2);
}

static setun_view view(void *data, uint32_t dtype, uint32_t rank, int64_t d0, int64_t d1)
{
    return (setun_view){data, dtype, rank, {d0, d1, 1, 1}};
}
static setun_view codes_of(const weights *m)
{
    return view(m->t2, SETUN_T2, 2, m->rows, m->cols);
}
static setun_view scales_of(const weights *m)
{
    return m->group > 0 ? view(m->scale, SETUN_F32, 2, m->rows, n_group(m))
                        : view(m->scale, SETUN_F32, 1, m->group < 0 ? 1 : m->rows, 1);
}

/* infer, then eval into y. */
static setun_status run(const setun_op *op, setun_view *in, int64_t group, float *y, setun_error *err)
{
    setun_view out = view(NULL, 0, 0, 1, 1);
    setun_value attr = {.i = group > 0 ? group : 0};
    setun_args a = {sizeof a, op->n_in, 1, 1, op, in, &out, &attr, NULL};
    setun_status s = op->infer(&a, err);
    out.data = y;
    return s == SETUN_OK ? op->eval(&a, err) : s;
}

static const int64_t groups[] = {-1, 0, 32, 64, 128, 256, 512};
static const int64_t shapes[][3] = {{1, 1, 1}, {2, 3, 7}, {1, 7, 129}, {3, 2, 128}, {2, 5, 300}, {1, 2, 1281}, {1, 1, 2560}};

/* With numbers that nothing rounds the answer is exact; with others it is near. */
static void compare(float got, double want, double size, int exact, const char *what, const int64_t *shape, int64_t group)
{
    if (exact ? (double)got != want : fabs((double)got - want) > 1e-6 * size + 1e-30)
        fail_msg("%s of %lld x %lld, group %lld: %.9g, wants %.9g", what, (long long)shape[1], (long long)shape[2],
                 (long long)group, (double)got, want);
}

/* y = (sum over groups of scale * sum of w q) / activation scale */
static void test_int8(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2 * 7 * 7; i++) {
        const int64_t *shape = shapes[i / 2 / 7], n = shape[0];
        int exact = i % 2 != 0;
        weights m = {shape[1], shape[2], groups[i / 2 % 7], NULL, NULL, NULL};
        int64_t kp = (m.cols + 127) / 128 * 128;
        uint64_t seed = i + 1;
        int8_t *q = calloc((size_t)(n * kp), 1);
        float scale[3], y[3 * 8];
        int32_t sum[3] = {0};
        make(&m, seed, exact);
        assert_non_null(q);
        for (int64_t t = 0; t < n; t++) {
            scale[t] = exact ? 0.25f : 3.7f + (float)t;
            for (int64_t c = 0; c < m.cols; c++) {
                q[t * kp + c] = (int8_t)((int)(mix(&seed) % 255) - 127);
                sum[t] += q[t * kp + c];
            }
        }
        setun_view in[5] = {view(q, SETUN_I8, 2, n, kp), view(scale, SETUN_F32, 1, n, 1), view(sum, SETUN_I32, 1, n, 1),
                            codes_of(&m), scales_of(&m)};
        assert_int_equal(run(&setun_op_ternary_matmul, in, m.group, y, NULL), SETUN_OK);
        for (int64_t t = 0; t < n; t++)
            for (int64_t r = 0; r < m.rows; r++) {
                double want = 0, size = 0;
                for (int64_t c = 0; c < m.cols; c++) {
                    double v = m.w[r * m.cols + c] * q[t * kp + c] * scale_at(&m, r, c) / (double)scale[t];
                    want += v;
                    size += fabs(v);
                }
                compare(y[t * m.rows + r], want, size, exact, "ternary_matmul", shape, m.group);
            }
        drop(&m);
        free(q);
    }
}

static void test_weight_only(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2 * 7 * 7; i++) {
        const int64_t *shape = shapes[i / 2 / 7], n = shape[0];
        int exact = i % 2 != 0;
        weights m = {shape[1], shape[2], groups[i / 2 % 7], NULL, NULL, NULL};
        uint64_t seed = i + 1;
        float *x = calloc((size_t)(n * m.cols), sizeof *x), y[3 * 8];
        make(&m, seed, exact);
        assert_non_null(x);
        for (int64_t c = 0; c < n * m.cols; c++) /* exact: small integers */
            x[c] = exact ? (float)(mix(&seed) % 201) - 100 : ((float)(mix(&seed) % 65536) - 32768) / 7000;
        setun_view in[3] = {view(x, SETUN_F32, 2, n, m.cols), codes_of(&m), scales_of(&m)};
        assert_int_equal(run(&setun_op_ternary_matmul_f32, in, m.group, y, NULL), SETUN_OK);
        for (int64_t t = 0; t < n; t++)
            for (int64_t r = 0; r < m.rows; r++) {
                double want = 0, size = 0;
                for (int64_t c = 0; c < m.cols; c++) {
                    double v = (double)x[t * m.cols + c] * m.w[r * m.cols + c] * scale_at(&m, r, c);
                    want += v;
                    size += fabs(v);
                }
                compare(y[t * m.rows + r], want, size, exact, "ternary_matmul_f32", shape, m.group);
            }
        drop(&m);
        free(x);
    }
}

/* What is no number is seen, in all rows, whatever their weights are. */
static void test_not_finite(void **state)
{
    weights m = {7, 300, 64, NULL, NULL, NULL};
    float x[300] = {0}, y[7];
    (void)state;
    make(&m, 9, 0);
    x[299] = INFINITY;
    setun_view in[3] = {view(x, SETUN_F32, 2, 1, 300), codes_of(&m), scales_of(&m)};
    assert_int_equal(run(&setun_op_ternary_matmul_f32, in, 64, y, NULL), SETUN_OK);
    for (int r = 0; r < 7; r++)
        assert_true(!isfinite(y[r]));
    drop(&m);
}

static void test_embedding(void **state)
{
    static const int32_t index[3] = {6, 0, 6};
    (void)state;
    for (size_t i = 0; i < 7 * 3; i++) {
        static const int64_t columns[] = {1, 129, 700};
        weights m = {7, columns[i / 7], groups[i % 7], NULL, NULL, NULL};
        float *y = calloc((size_t)(3 * m.cols), sizeof *y);
        int32_t at[3];
        make(&m, i + 1, 0);
        assert_non_null(y);
        memcpy(at, index, sizeof at);
        setun_view in[3] = {codes_of(&m), scales_of(&m), view(at, SETUN_I32, 1, 3, 1)};
        assert_int_equal(run(&setun_op_embed_ternary, in, m.group, y, NULL), SETUN_OK);
        for (int64_t t = 0; t < 3; t++)
            for (int64_t c = 0; c < m.cols; c++)
                assert_true((double)y[t * m.cols + c] == m.w[at[t] * m.cols + c] * scale_at(&m, at[t], c));
        at[1] = 7;
        setun_error err = {0};
        assert_int_equal(run(&setun_op_embed_ternary, in, m.group, y, &err), SETUN_BAD_ARG);
        assert_string_equal(err.text, "index[1] is 7, outside 0 to 6");
        drop(&m);
        free(y);
    }
}

/* Scales that do not fit are refused by all three, with the numbers. */
static void test_refused(void **state)
{
    static const struct {
        uint32_t    rank;
        int64_t     d0, d1, group;
        const char *says;
    } row[] = {
        {1, 4, 1, 0, "ws is f32[4] with group 0"}, {2, 5, 3, 0, "ws is f32[5,3] with group 0"},
        {1, 5, 1, 128, "ws is f32[5] with group 128"}, {2, 5, 2, 128, "ws is f32[5,2] with group 128"},
        {2, 4, 3, 128, "ws is f32[4,3] with group 128"}, {2, 5, 4, 96, "group is 96, wants 0, 32, 64 or a multiple of 128"},
        {2, 5, 300, 1, "group is 1,"}, {2, 5, 3, -128, "group is -128,"}, {2, 5, 1, INT64_C(1) << 40, "group is 1099511627776,"},
    };
    (void)state;
    for (size_t i = 0; i < SETUN_LEN(row); i++) {
        setun_view ws = view(NULL, SETUN_F32, row[i].rank, row[i].d0, row[i].d1), w = view(NULL, SETUN_T2, 2, 5, 300);
        setun_view in[3][5] = {{view(NULL, SETUN_I8, 2, 1, 384), view(NULL, SETUN_F32, 1, 1, 1), view(NULL, SETUN_I32, 1, 1, 1), w, ws},
                               {view(NULL, SETUN_F32, 2, 1, 300), w, ws}, {w, ws, view(NULL, SETUN_I32, 1, 1, 1)}};
        const setun_op *const op[3] = {&setun_op_ternary_matmul, &setun_op_ternary_matmul_f32, &setun_op_embed_ternary};
        for (int k = 0; k < 3; k++) {
            setun_view out = view(NULL, 0, 0, 1, 1);
            setun_value attr = {.i = row[i].group};
            setun_args a = {sizeof a, op[k]->n_in, 1, 1, op[k], in[k], &out, &attr, NULL};
            setun_error err = {0};
            assert_int_not_equal(op[k]->infer(&a, &err), SETUN_OK);
            if (!strstr(err.text, row[i].says))
                fail_msg("%s says: %s\n  wants: %s", op[k]->name, err.text, row[i].says);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_int8), cmocka_unit_test(test_weight_only), cmocka_unit_test(test_not_finite),
        cmocka_unit_test(test_embedding), cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
