/* tests/unit/npy.c -- NumPy files: what is written, byte for byte, and which files are read and refused.  The bytes
 * wanted here are put down from the format's description, not made by model/npy.c. */
#include "tests/unit/files.h"

#include <math.h>

#include "model/npy.h"

static char *dir;

static int setup(void **state)
{
    (void)state;
    dir = temp_dir();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    remove_tree(dir);
    return 0;
}

/* ---------------------------------------------------------------- writing */

/* The file: magic, 1.0, length 118, a literal filled up to byte 126, a newline, data. */
static void written(const setun_view *v, const char *literal, const void *data, size_t n)
{
    char want[128], *path = join(dir, "w.npy"), *got;
    int64_t bytes;
    setun_error err = {0};
    memset(want, ' ', sizeof want);
    memcpy(want, "\x93NUMPY\x01\x00\x76\x00", 10);
    memcpy(want + 10, literal, strlen(literal));
    want[127] = '\n';
    if (st_npy_save(path, v, 0, &err) != SETUN_OK)
        fail_msg("%s", err.text);
    assert_int_equal(st_file_read(path, 1 << 20, &got, &bytes, NULL), SETUN_OK);
    assert_int_equal(bytes, 128 + n);
    assert_int_equal(st_npy_bytes(v), bytes);
    assert_memory_equal(got, want, 128);
    assert_memory_equal(got + 128, data, n);
    free(got);
    free(path);
}

static void test_written(void **state)
{
    (void)state;
    float f[6] = {1, -2, 0.5f, 0, 3, -0.0f};
    written(&(setun_view){f, SETUN_F32, 2, {2, 3, 1, 1}}, "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }",
            "\0\0\x80\x3f\0\0\0\xc0\0\0\0\x3f\0\0\0\0\0\0\x40\x40\0\0\0\x80", 24);
    written(&(setun_view){f, SETUN_F32, 1, {2, 1, 1, 1}}, "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }", "\0\0\x80\x3f\0\0\0\xc0", 8);
    written(&(setun_view){f, SETUN_F32, 0, {1, 1, 1, 1}}, "{'descr': '<f4', 'fortran_order': False, 'shape': (), }", "\0\0\x80\x3f", 4);
    written(&(setun_view){f, SETUN_F32, 2, {0, 3, 1, 1}}, "{'descr': '<f4', 'fortran_order': False, 'shape': (0, 3), }", "", 0);
    uint16_t h[2] = {0x3c00, 0xc180}; /* 1 as binary16; -16 as bfloat16, which widens to binary32 */
    written(&(setun_view){h, SETUN_F16, 1, {2, 1, 1, 1}}, "{'descr': '<f2', 'fortran_order': False, 'shape': (2,), }", "\x00\x3c\x80\xc1", 4);
    written(&(setun_view){h + 1, SETUN_BF16, 1, {1, 1, 1, 1}}, "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }", "\0\0\x80\xc1", 4);
    int8_t i8[3] = {1, -1, -128};
    written(&(setun_view){i8, SETUN_I8, 3, {1, 3, 1, 1}}, "{'descr': '|i1', 'fortran_order': False, 'shape': (1, 3, 1), }", "\x01\xff\x80", 3);
    written(&(setun_view){i8, SETUN_U8, 1, {3, 1, 1, 1}}, "{'descr': '|u1', 'fortran_order': False, 'shape': (3,), }", "\x01\xff\x80", 3);
    int16_t i16 = -2;
    written(&(setun_view){&i16, SETUN_I16, 0, {1, 1, 1, 1}}, "{'descr': '<i2', 'fortran_order': False, 'shape': (), }", "\xfe\xff", 2);
    int32_t i32 = 0x01020304;
    written(&(setun_view){&i32, SETUN_I32, 0, {1, 1, 1, 1}}, "{'descr': '<i4', 'fortran_order': False, 'shape': (), }", "\x04\x03\x02\x01", 4);
    int64_t i64 = 0x0102030405060708;
    written(&(setun_view){&i64, SETUN_I64, 4, {1, 1, 1, 1}}, "{'descr': '<i8', 'fortran_order': False, 'shape': (1, 1, 1, 1), }",
            "\x08\x07\x06\x05\x04\x03\x02\x01", 8);
}

/* More than one part of the buffer; a literal that needs a header of 192 bytes; blocks. */
static void test_large(void **state)
{
    (void)state;
    enum { N = 10007 };
    int32_t *x = malloc(N * sizeof *x);
    char *path = join(dir, "large.npy");
    st_npy a;
    setun_error err = {0};
    for (int i = 0; i < N; i++)
        x[i] = i * 7919 - 40000000;
    assert_int_equal(st_npy_save(path, &(setun_view){x, SETUN_I32, 1, {N, 1, 1, 1}}, 1, &err), SETUN_OK);
    assert_int_equal(st_npy_open(&a, path, &err), SETUN_OK);
    assert_int_equal(a.count, N);
    for (int i = 0; i < N; i++)
        assert_true(st_npy_at(&a, i) == x[i]);
    st_npy_close(&a);
    const setun_view wide = {x, SETUN_I8, 4, {0, 1234567890123456789, 1234567890123456789, 1234567890123456789}};
    assert_int_equal(st_npy_bytes(&wide), 192);
    assert_int_equal(st_npy_save(path, &wide, 0, &err), SETUN_OK);
    assert_int_equal(st_npy_open(&a, path, &err), SETUN_OK);
    assert_int_equal(a.rank, 4);
    assert_int_equal(a.dim[3], 1234567890123456789);
    st_npy_close(&a);
    const setun_view blocks = {x, SETUN_T2, 2, {2, 128, 1, 1}};
    assert_int_equal(st_npy_bytes(&blocks), -1);
    assert_int_equal(st_npy_save(path, &blocks, 0, &err), SETUN_UNKNOWN);
    assert_non_null(strstr(err.text, "NumPy has no type for blocks"));
    free(path);
    free(x);
}

/* ---------------------------------------------------------------- reading */

static char *make(int version, const char *literal, const void *data, size_t n)
{
    char *path = join(dir, "r.npy");
    size_t length = strlen(literal);
    FILE *f = fopen(path, "wb");
    const unsigned char size[4] = {(unsigned char)length, (unsigned char)(length >> 8), 0, 0};
    assert_non_null(f);
    fwrite("\x93NUMPY", 1, 6, f);
    fputc(version, f);
    fputc(0, f);
    fwrite(size, 1, version > 1 ? 4 : 2, f);
    fwrite(literal, 1, length, f);
    fwrite(data, 1, n, f);
    assert_int_equal(fclose(f), 0);
    return path;
}

static void reads(int version, const char *literal, const void *data, size_t n, uint32_t rank, int64_t count, const double *values)
{
    char *path = make(version, literal, data, n);
    setun_error err = {0};
    st_npy a;
    if (st_npy_open(&a, path, &err) != SETUN_OK)
        fail_msg("%s: %s", literal, err.text);
    assert_int_equal(a.rank, rank);
    assert_int_equal(a.count, count);
    for (int64_t i = 0; i < count; i++)
        if (st_npy_at(&a, i) != values[i])
            fail_msg("%s: element %d is %g, not %g", literal, (int)i, st_npy_at(&a, i), values[i]);
    st_npy_close(&a);
    free(path);
}

static void test_reads(void **state)
{
    (void)state;
    const double two[] = {1, -2};
    reads(1, "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }\n", "\0\0\x80\x3f\0\0\0\xc0", 8, 1, 2, two);
    /* What literals of Python may look like, too. */
    reads(2, "{'shape':(1,2),\"fortran_order\":False,'descr':'>f4'}\n", "\x3f\x80\0\0\xc0\0\0\0", 8, 2, 2, two);
    reads(3, "  { 'shape' : ( 2 , 1 , ) ,\n'descr' : '<f2' , 'fortran_order' : True } \n", "\x00\x3c\x00\xc0", 4, 2, 2, two);
    reads(1, "{'descr': '>f2', 'fortran_order': False, 'shape': (2,)}\n", "\x3c\x00\xc0\x00", 4, 1, 2, two);
    reads(1, "{'descr': '<f8', 'fortran_order': False, 'shape': (2,)}\n", "\0\0\0\0\0\0\xf0\x3f\0\0\0\0\0\0\0\xc0", 16, 1, 2, two);
    reads(1, "{'descr': '|i1', 'fortran_order': False, 'shape': (2,)}\n", "\x01\xfe", 2, 1, 2, two);
    reads(1, "{'descr': '<i1', 'fortran_order': False, 'shape': (2,)}\n", "\x01\xfe", 2, 1, 2, two);
    reads(1, "{'descr': '>i2', 'fortran_order': False, 'shape': (2,)}\n", "\x00\x01\xff\xfe", 4, 1, 2, two);
    reads(1, "{'descr': '<i4', 'fortran_order': False, 'shape': (2,)}\n", "\x01\0\0\0\xfe\xff\xff\xff", 8, 1, 2, two);
    reads(1, "{'descr': '>i8', 'fortran_order': False, 'shape': (2,)}\n", "\0\0\0\0\0\0\0\x01\xff\xff\xff\xff\xff\xff\xff\xfe", 16, 1, 2, two);
    const double large[] = {254, 4294967295.0, 65280, 18446744073709551615.0, 1};
    reads(1, "{'descr': '|u1', 'fortran_order': False, 'shape': ()}\n", "\xfe", 1, 0, 1, large);
    reads(1, "{'descr': '<u4', 'fortran_order': False, 'shape': ()}\n", "\xff\xff\xff\xff", 4, 0, 1, large + 1);
    reads(1, "{'descr': '>u2', 'fortran_order': False, 'shape': ()}\n", "\xff\0", 2, 0, 1, large + 2);
    reads(1, "{'descr': '<u8', 'fortran_order': False, 'shape': ()}\n", "\xff\xff\xff\xff\xff\xff\xff\xff", 8, 0, 1, large + 3);
    reads(1, "{'descr': '|b1', 'fortran_order': False, 'shape': ()}\n", "\x01", 1, 0, 1, large + 4);
    reads(1, "{'descr': '<f4', 'fortran_order': False, 'shape': (5,0,3)}\n", "", 0, 3, 0, NULL);
}

static void refused(const char *literal, const char *data, const char *why)
{
    char *path = make(1, literal, data, strlen(data));
    setun_error err = {0};
    st_npy a;
    if (st_npy_open(&a, path, &err) == SETUN_OK || !strstr(err.text, why) || strncmp(err.text, path, strlen(path)))
        fail_msg("%s gave \"%s\", wanted the file's name and \"%s\"", literal, err.text, why);
    free(path);
}

static void test_refused(void **state)
{
    (void)state;
    refused("", "", "newline");
    refused("{'descr': '|u1', 'fortran_order': False, 'shape': (1,), }", "x", "newline");
    refused("\n", "", "begin with a brace");
    refused("{\n", "", "a key that is not a string");
    refused("{}\n", "", "lacks 'descr', 'fortran_order' or 'shape'");
    refused("{,}\n", "", "a key that is not a string");
    refused("{'descr': '|u1', 'fortran_order': False, }\n", "x", "lacks 'descr'");
    refused("{'descr': '|u1', 'descr': '|u1', 'fortran_order': False, 'shape': (1,)}\n", "x", "a key twice");
    refused("{'descr': '|u1', 'fortran_order': False, 'shape': (1,), 'more': 1}\n", "x", "other keys");
    refused("{'descr' '|u1', 'fortran_order': False, 'shape': (1,)}\n", "x", "colon");
    refused("{'descr': '|u1' 'fortran_order': False, 'shape': (1,)}\n", "x", "comma");
    refused("{'descr': '|u1', 'fortran_order': False, 'shape': (1,)} x\n", "x", "goes on behind");
    refused("{'descr': '|u1', 'fortran_order': 0, 'shape': (1,)}\n", "x", "neither True nor False");
    refused("{'descr': |u1, 'fortran_order': False, 'shape': (1,)}\n", "x", "as a string");
    refused("{'descr': '|u1, 'fortran_order': False, 'shape': (1,)}\n", "x", "type '|u1, '");
    refused("{'descr': '|u\\x31', 'fortran_order': False, 'shape': (1,)}\n", "x", "as a string");
    refused("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}\n", "xxxx", "fields");
    refused("{'descr': '<c8', 'fortran_order': False, 'shape': (1,)}\n", "xxxxxxxx", "type '<c8' is not known");
    refused("{'descr': '<V2', 'fortran_order': False, 'shape': (1,)}\n", "xx", "as float32");
    refused("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}\n", "x", "'|O'");
    refused("{'descr': '|f4', 'fortran_order': False, 'shape': (1,)}\n", "xxxx", "'|f4'");
    refused("{'descr': '=f4', 'fortran_order': False, 'shape': (1,)}\n", "xxxx", "'=f4'");
    refused("{'descr': '<f\x07', 'fortran_order': False, 'shape': (1,)}\n", "x", "type that is not known");
    refused("{'descr': '|u1', 'fortran_order': True, 'shape': (2,2)}\n", "xxxx", "ascontiguousarray");
    refused("{'descr': '|u1', 'fortran_order': False, 'shape': 1}\n", "x", "tuple");
    refused("{'descr': '|u1', 'fortran_order': False, 'shape': (1)}\n", "x", "comma");
    refused("{'descr': '|u1', 'fortran_order': False, 'shape': (,)}\n", "x", "whole numbers");
    refused("{'descr': '|u1', 'fortran_order': False, 'shape': (1,,1)}\n", "x", "whole numbers");
    refused("{'descr': '|u1', 'fortran_order': False, 'shape': (1 1)}\n", "x", "whole numbers");
    refused("{'descr': '|u1', 'fortran_order': False, 'shape': (01,)}\n", "x", "whole numbers");
    refused("{'descr': '|u1', 'fortran_order': False, 'shape': (-1,)}\n", "x", "whole numbers");
    refused("{'descr': '|u1', 'fortran_order': False, 'shape': (1.0,)}\n", "x", "whole numbers");
    refused("{'descr': '|u1', 'fortran_order': False, 'shape': (99999999999999999999,)}\n", "x", "whole numbers");
    refused("{'descr': '|u1', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,1)}\n", "x", "more than 8 dimensions");
    refused("{'descr': '|u1', 'fortran_order': False, 'shape': (4294967296,4294967296)}\n", "x", "more elements than a file");
    refused("{'descr': '<f8', 'fortran_order': False, 'shape': (2305843009213693952,)}\n", "x", "elements of 8 bytes");
    refused("{'descr': '|u1', 'fortran_order': False, 'shape': (2,)}\n", "x", "2 elements of 1 bytes, but 1 bytes");
    refused("{'descr': '|u1', 'fortran_order': False, 'shape': (2,)}\n", "xxx", "but 3 bytes");
}

/* Every file that ends too early, and one that does not end; formats of the future; what is no file. */
static void test_cut(void **state)
{
    (void)state;
    static const char literal[] = "{'descr': '<u2', 'fortran_order': False, 'shape': (2,), }\n";
    setun_error err = {0};
    st_npy a;
    for (int version = 1; version <= 5; version++) {
        char *path = make(version, literal, "abcd", 4), *all;
        int64_t n;
        assert_int_equal(st_file_read(path, 1 << 20, &all, &n, NULL), SETUN_OK);
        for (int64_t k = 0; k <= n + 1; k++) {
            FILE *f = fopen(path, "wb");
            assert_non_null(f);
            assert_int_equal(fwrite(all, 1, (size_t)(k > n ? n : k), f), k > n ? n : k);
            if (k > n)
                fputc('e', f);
            assert_int_equal(fclose(f), 0);
            setun_status s = st_npy_open(&a, path, &err);
            assert_true((s == SETUN_OK) == (k == n && version <= 3));
            if (s == SETUN_OK)
                st_npy_close(&a);
            else
                assert_non_null(strstr(err.text, path));
        }
        free(all);
        free(path);
    }
    assert_int_equal(st_npy_open(&a, dir, &err), SETUN_IO);
    assert_non_null(strstr(err.text, "is a directory"));
}

/* Numbers that are none come through. */
static void test_not_finite(void **state)
{
    (void)state;
    char *path = make(1, "{'descr': '<f2', 'fortran_order': False, 'shape': (3,)}\n", "\x00\x7c\x00\xfc\x01\x7e", 6);
    st_npy a;
    assert_int_equal(st_npy_open(&a, path, NULL), SETUN_OK);
    assert_true(isinf(st_npy_at(&a, 0)) && st_npy_at(&a, 0) > 0);
    assert_true(isinf(st_npy_at(&a, 1)) && st_npy_at(&a, 1) < 0);
    assert_true(isnan(st_npy_at(&a, 2)));
    st_npy_close(&a);
    free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_written), cmocka_unit_test(test_large), cmocka_unit_test(test_reads),
        cmocka_unit_test(test_refused), cmocka_unit_test(test_cut),   cmocka_unit_test(test_not_finite),
    };
    return cmocka_run_group_tests_name("npy", tests, setup, teardown);
}
