/* tests/unit/inspect.c -- numbers of tensors, and how they are printed.
 *
 * What is expected is NumPy's own output, str() of the same array, written down here, and sums by hand. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "runtime/inspect.h"

static int keep(void *user, const char *text, size_t n)
{
    char *to = user;
    assert_true(n < 4096);
    memcpy(to, text, n);
    to[n] = 0;
    return 0;
}

static void prints(uint32_t dtype, const void *data, uint32_t rank, const int64_t *dim, const char *slice, const char *want)
{
    setun_tensor t = {.view = {(void *)(uintptr_t)data, dtype, rank, {1, 1, 1, 1}}};
    char got[4096], line[4096];
    setun_error err = {0};
    for (uint32_t d = 0; d < rank; d++)
        t.view.dim[d] = dim[d];
    if (setun_tensor_print(&t, slice, keep, got, &err) != SETUN_OK)
        fail_msg("%s", err.text);
    (void)snprintf(line, sizeof line, "%s\n", want);
    assert_string_equal(got, line);
}

static void floats(const float *x, int64_t n, const char *want) { prints(SETUN_F32, x, 1, &n, NULL, want); }

static void numbers_are_printed_as_numpy_does(void **state)
{
    (void)state;
    floats((const float[]){0, 1, 2}, 3, "[0. 1. 2.]");
    floats((const float[]){1, 2.5f}, 2, "[1.  2.5]");
    floats((const float[]){1e-5f, 1}, 2, "[1.e-05 1.e+00]");
    floats((const float[]){-1.5e-5f, 1}, 2, "[-1.5e-05  1.0e+00]");
    floats((const float[]){0, 1.25e-7f}, 2, "[0.00e+00 1.25e-07]");
    floats((const float[]){1e-4f, 0.01f}, 2, "[0.0001 0.01  ]");
    floats((const float[]){1, 1000}, 2, "[   1. 1000.]");
    floats((const float[]){1, 1001}, 2, "[1.000e+00 1.001e+03]");
    floats((const float[]){1e8f}, 1, "[1.e+08]");
    floats((const float[]){33554432, 1e8f}, 2, "[3.3554432e+07 1.0000000e+08]");
    floats((const float[]){33554432}, 1, "[33554432.]");
    floats((const float[]){0.1f, 1.0f / 3}, 2, "[0.1        0.33333334]");
    floats((const float[]){123456.789f}, 1, "[123456.79]");
    floats((const float[]){NAN, 1, INFINITY}, 3, "[nan  1. inf]");
    floats((const float[]){-INFINITY, 1}, 2, "[-inf   1.]");
    floats((const float[]){NAN, 0.5f}, 2, "[nan 0.5]");
    floats((const float[]){NAN}, 1, "[nan]");
    floats((const float[]){-0.0f, 2}, 2, "[-0.  2.]");
}

static void shapes_are_printed_as_numpy_does(void **state)
{
    float x[1200];
    int8_t bytes[1001];
    int32_t ints[1001];
    (void)state;
    for (int i = 0; i < 1200; i++)
        x[i] = (float)i;
    for (int i = 0; i < 1001; i++) {
        bytes[i] = (int8_t)(i % 201 - 100);
        ints[i] = i;
    }
    floats(x, 20, "[ 0.  1.  2.  3.  4.  5.  6.  7.  8.  9. 10. 11. 12. 13. 14. 15. 16. 17.\n 18. 19.]");
    prints(SETUN_F32, x, 3, (const int64_t[]){2, 2, 2}, NULL, "[[[0. 1.]\n  [2. 3.]]\n\n [[4. 5.]\n  [6. 7.]]]");
    prints(SETUN_F32, x, 0, NULL, NULL, "0.");
    prints(SETUN_I32, ints, 1, (const int64_t[]){1001}, NULL, "[   0    1    2 ...  998  999 1000]");
    prints(SETUN_I8, bytes, 1, (const int64_t[]){3}, NULL, "[-100  -99  -98]");
    prints(SETUN_F32, x, 2, (const int64_t[]){150, 8}, NULL,
           "[[0.000e+00 1.000e+00 2.000e+00 ... 5.000e+00 6.000e+00 7.000e+00]\n"
           " [8.000e+00 9.000e+00 1.000e+01 ... 1.300e+01 1.400e+01 1.500e+01]\n"
           " [1.600e+01 1.700e+01 1.800e+01 ... 2.100e+01 2.200e+01 2.300e+01]\n"
           " ...\n"
           " [1.176e+03 1.177e+03 1.178e+03 ... 1.181e+03 1.182e+03 1.183e+03]\n"
           " [1.184e+03 1.185e+03 1.186e+03 ... 1.189e+03 1.190e+03 1.191e+03]\n"
           " [1.192e+03 1.193e+03 1.194e+03 ... 1.197e+03 1.198e+03 1.199e+03]]");
    prints(SETUN_I32, ints, 2, (const int64_t[]){7, 143}, "[-1, :4]", "[858 859 860 861]");
    prints(SETUN_I32, ints, 2, (const int64_t[]){7, 143}, "1:3, 5", "[148 291]");
    prints(SETUN_I32, ints, 2, (const int64_t[]){7, 143}, "[ 6 , -1 ]", "1000");
    prints(SETUN_I32, ints, 2, (const int64_t[]){7, 143}, "[-2:, 0:2]", "[[715 716]\n [858 859]]");
}

static void wrong_slices_are_refused(void **state)
{
    static const char *const wrong[] = {"[7]", "[-8]", "[3:3]", "[0:8]", "[0, 0, 0]", "x", "[0", "0]", "[0 1]", "[::2]", "[1.5]", "[0] y"};
    int32_t x[21] = {0};
    setun_tensor t = {.view = {x, SETUN_I32, 2, {7, 3, 1, 1}}};
    char got[4096];
    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        setun_error err = {0};
        if (setun_tensor_print(&t, wrong[i], keep, got, &err) == SETUN_OK)
            fail_msg("%s was taken", wrong[i]);
        assert_int_equal(err.code, SETUN_BAD_ARG);
    }
    t.view.dim[0] = 0;
    assert_int_equal(setun_tensor_print(&t, NULL, keep, got, NULL), SETUN_BAD_SHAPE);
}

/* Two rows of 130 ternary weights, a scale for each 64 of a row: written bit by bit by the picture in setun/types.h. */
static void ternary_matrices_have_codes_and_scales(void **state)
{
    uint8_t codes[2][64];
    float scale[2][3] = {{0.5f, 2, 4}, {1, 0.25f, 8}};
    double sum = 0, squares = 0, least = 0, most = 0;
    int64_t n[3] = {0};
    (void)state;
    memset(codes, 0x55, sizeof codes); /* all of them 0 */
    for (int r = 0; r < 2; r++)
        for (int c = 0; c < 130; c++) {
            int w = (c * c + r) % 3 - 1, at = c % 128, shift = 2 * (at / 32);
            uint8_t *byte = &codes[r][c / 128 * 32 + at % 32];
            *byte = (uint8_t)((*byte & ~(3 << shift)) | (w + 1) << shift);
            double x = w * (double)scale[r][c / 64];
            sum += x;
            least = x < least ? x : least;
            most = x > most ? x : most;
            squares += x * x;
            n[w + 1]++;
        }
    setun_tensor t = {.view = {codes, SETUN_T2, 2, {2, 130, 1, 1}}, .scale = {scale, SETUN_F32, 2, {2, 3, 1, 1}}, .group = 64};
    setun_tensor_info i;
    setun_error err;
    double x;
    assert_int_equal(setun_tensor_about(&t, &i, NULL, NULL, &err), SETUN_OK);
    assert_int_equal(i.count, 260);
    for (int k = 0; k < 3; k++)
        assert_int_equal(i.n_code[k], n[k]);
    assert_true(i.min == least && i.max == most && most == 8 && i.n_scale == 6 && i.scale_min == 0.25 && i.scale_max == 8);
    assert_true(fabs(i.mean - sum / 260) < 1e-12 && fabs(i.rms - sqrt(squares / 260)) < 1e-12);
    for (int64_t c = 0; c < 130; c++) {
        assert_int_equal(setun_tensor_at(&t, (const int64_t[]){1, c}, 2, &x, &err), SETUN_OK);
        assert_true(x == (double)(int)((c * c + 1) % 3 - 1) * (double)scale[1][c / 64]);
    }
    assert_int_equal(setun_tensor_at(&t, (const int64_t[]){1, 130}, 2, &x, &err), SETUN_BAD_ARG);
    assert_int_equal(setun_tensor_at(&t, (const int64_t[]){1}, 1, &x, &err), SETUN_BAD_ARG);
}

static void other_numbers_are_counted_apart(void **state)
{
    float x[5] = {NAN, 3, -INFINITY, -1, 1};
    setun_tensor t = {.view = {x, SETUN_F32, 1, {5, 1, 1, 1}}};
    setun_tensor_info i;
    (void)state;
    assert_int_equal(setun_tensor_about(&t, &i, NULL, NULL, NULL), SETUN_OK);
    assert_int_equal(i.n_finite, 3);
    assert_true(i.min == -1 && i.max == 3 && i.mean == 1 && i.n_code[0] == 0 && i.n_scale == 0);
}

/* p = (1/2, 1/4, 1/4), q = (1/4, 1/2, 1/4): KL is ln(2) / 4. */
static void logits_are_compared(void **state)
{
    const float p[3] = {logf(2), 0, 0}, q[3] = {0, logf(2), 0};
    setun_logits_diff d;
    (void)state;
    setun_logits_compare(p, q, 3, &d);
    assert_true(fabs(d.kl - log(2) / 4) < 1e-7 && d.n_differ == 2 && !d.same_top);
    assert_true(d.max == (double)p[0] && fabs(d.rms - (double)p[0] * sqrt(2.0 / 3)) < 1e-12);
    setun_logits_compare(p, p, 3, &d);
    assert_true(d.kl == 0 && d.n_differ == 0 && d.same_top && d.max == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_are_printed_as_numpy_does), cmocka_unit_test(shapes_are_printed_as_numpy_does),
        cmocka_unit_test(wrong_slices_are_refused),          cmocka_unit_test(ternary_matrices_have_codes_and_scales),
        cmocka_unit_test(other_numbers_are_counted_apart),   cmocka_unit_test(logits_are_compared),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
