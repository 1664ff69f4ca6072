/* tests/unit/base.c -- the base layer, except the pool: errors, arenas, text, tables, files,
 * hashes. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/clock.h"
#include "base/cpu.h"
#include "base/error.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/str.h"
#include "base/table.h"

/* ---------------------------------------------------------------- error */

static setun_status outer(setun_status inner)
{
    ST_TRY(inner);
    return SETUN_OK;
}

static void test_error(void **state)
{
    setun_error e = { 0, "" };
    (void)state;
    assert_int_equal(st_fail(&e, SETUN_BAD_FILE, "%s has %d", "x", 3), SETUN_BAD_FILE);
    assert_int_equal(e.code, SETUN_BAD_FILE);
    assert_string_equal(e.text, "x has 3");
    st_wrap(&e, "loading %s", "m");
    assert_string_equal(e.text, "loading m: x has 3");
    assert_int_equal(e.code, SETUN_BAD_FILE);
    assert_int_equal(st_fail(&e, SETUN_IO, "%s!", e.text), SETUN_IO); /* its own text as argument */
    assert_string_equal(e.text, "loading m: x has 3!");
    assert_int_equal(st_fail(NULL, SETUN_FULL, "no"), SETUN_FULL);
    st_wrap(NULL, "nothing");
    assert_int_equal(outer(SETUN_IO), SETUN_IO);
    assert_int_equal(outer(SETUN_DECLINED), SETUN_DECLINED);
    assert_int_equal(outer(SETUN_OK), SETUN_OK);

    /* Cut text stays terminated and valid, wherever the cut falls in a three-byte character. */
    char big[700];
    for (size_t shift = 0; shift < 3; shift++) {
        memset(big, 'a', sizeof big);
        for (size_t i = shift; i + 3 < sizeof big; i += 3)
            memcpy(big + i, "\xe2\x82\xac", 3);
        big[sizeof big - 1 - (sizeof big - 1 - shift) % 3] = 0;
        (void)st_fail(&e, SETUN_IO, "%s", big);
        size_t n = strlen(e.text);
        assert_in_range(n, sizeof e.text - 4, sizeof e.text - 1);
        assert_int_equal(st_utf8_valid(e.text, n), n);
        st_wrap(&e, "%s", "b");
        assert_int_equal(strncmp(e.text, "b: ", 3), 0);
        assert_true(strlen(e.text) < sizeof e.text);
    }
    /* A long name in the middle keeps the end of the sentence; control characters stay off the terminal. */
    memset(big, 'p', sizeof big - 1);
    big[sizeof big - 1] = 0;
    (void)st_fail(&e, SETUN_IO, "cannot open %s: no such file", big);
    assert_int_equal(strncmp(e.text, "cannot open ppp", 15), 0);
    assert_non_null(strstr(e.text, "p...p"));
    assert_string_equal(e.text + strlen(e.text) - 14, ": no such file");
    (void)st_fail(&e, SETUN_IO, "%s", "a\nb\x1b[31m\x7f\tc");
    assert_string_equal(e.text, "a b?[31m? c");
    (void)st_fail(&e, SETUN_IO, "%s", "caf\xc3\xa9 \xc2\x9b" "2J \xff\xc3 \xe2\x82 \xc2\xa0.\xed\xa0\x80\xc2");
    assert_string_equal(e.text, "caf\xc3\xa9 ??2J ?? ?? \xc2\xa0.????");
    for (int32_t s = -20; s < 5; s++)
        assert_true(strlen(st_status_name(s)) > 1);
}

/* ---------------------------------------------------------------- arena */

static void test_arena(void **state)
{
    st_arena *a = st_arena_new();
    (void)state;
    assert_non_null(a);
    assert_int_equal(st_arena_bytes(a), 0);
    uint64_t r = 1;
    struct { unsigned char *p; size_t n; unsigned char v; } live[300];
    for (int round = 0; round < 20; round++) {
        st_mark m = st_arena_mark(a);
        int64_t before = st_arena_bytes(a);
        for (size_t i = 0; i < 300; i++) {
            r = r * 6364136223846793005u + 1442695040888963407u;
            size_t n = (size_t)(r >> 40) % (i % 50 == 0 ? 3000000 : 700);
            live[i].p = st_arena_alloc(a, (int64_t)n);
            live[i].n = n;
            live[i].v = (unsigned char)(r >> 20);
            assert_non_null(live[i].p);
            assert_int_equal((uintptr_t)live[i].p % (n >= 64 ? 64 : 16), 0);
            for (size_t k = 0; k < n; k++)
                if (live[i].p[k])
                    fail_msg("byte %zu of an object of %zu is not zero", k, n);
            memset(live[i].p, live[i].v, n);
        }
        for (size_t i = 0; i < 300; i++) /* nobody overlaps anybody */
            for (size_t k = 0; k < live[i].n; k++)
                if (live[i].p[k] != live[i].v)
                    fail_msg("object %zu was overwritten", i);
        st_arena_rewind(a, m);
        assert_int_equal(st_arena_bytes(a), before);
        assert_non_null(st_arena_alloc(a, 40 * round)); /* the next round starts elsewhere */
    }
    assert_null(st_arena_alloc(a, -1));
    assert_null(st_arena_alloc(a, INT64_MAX));
    assert_null(st_arena_array(a, INT64_MAX / 2, 3));
    assert_null(st_arena_array(a, -1, 3));
    assert_non_null(st_arena_array(a, 0, 8));
    assert_string_equal(st_arena_strdup(a, "abc"), "abc");
    assert_string_equal(st_arena_strndup(a, "abcdef", 3), "abc");
    assert_string_equal(st_arena_strndup(a, "", 0), "");
    assert_string_equal(st_arena_printf(a, "%d-%s", 7, "x"), "7-x");
    st_arena_fail_after(a, 2);
    assert_non_null(st_arena_alloc(a, 1));
    assert_non_null(st_arena_alloc(a, 1));
    assert_null(st_arena_alloc(a, 1));
    assert_null(st_arena_strdup(a, "x"));
    assert_null(st_arena_printf(a, "x"));
    st_arena_fail_after(a, -1);
    assert_non_null(st_arena_alloc(a, 1));
    st_arena_free(a);
    st_arena_free(NULL);
}

/* ---------------------------------------------------------------- str */

static void test_str(void **state)
{
    st_str s = { 0 };
    (void)state;
    st_str_add(&s, "");
    assert_string_equal(s.text, "");
    for (int i = 0; i < 1000; i++)
        st_str_addf(&s, "%d,", i);
    assert_int_equal(s.failed, 0);
    assert_int_equal(s.len, 10 * 2 + 90 * 3 + 900 * 4);
    assert_int_equal(strncmp(s.text, "0,1,2,", 6), 0);
    st_str_addn(&s, "a\0b", 3);
    assert_int_equal(s.text[s.len - 2], 0);
    st_str_addn(&s, "", SIZE_MAX / 2); /* an absurd size fails and changes nothing */
    assert_int_equal(s.failed, 1);
    size_t n = s.len;
    st_str_add(&s, "more");
    assert_int_equal(s.len, n);
    st_str_free(&s);
    assert_null(s.text);
}

static void test_json(void **state)
{
    (void)state;
    static const struct { const char *text; size_t n; const char *want; } cases[] = {
        { "", 0, "\"\"" },
        { "a\"b\\c", 5, "\"a\\\"b\\\\c\"" },
        { "\0\n\x1b\x7f", 4, "\"\\u0000\\u000a\\u001b\\u007f\"" },
        { "\xc3\xa9\xe2\x82\xac", 5, "\"\xc3\xa9\xe2\x82\xac\"" },
        { "\xc2\x9b\xc2\xa0", 4, "\"\\u009b\xc2\xa0\"" },
        { "a\xff\xc3", 3, "\"a\\ufffd\\ufffd\"" },
        { "\xc2", 1, "\"\\ufffd\"" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        st_str s = { 0 };
        st_str_add_json(&s, cases[i].text, cases[i].n);
        assert_string_equal(s.text, cases[i].want);
        st_str_free(&s);
    }
}

static void test_json_numbers(void **state)
{
    (void)state;
    static const struct { double x; const char *want; } cases[] = {
        { 0.25, ", \"a\": 0.25" }, { 1.0 / 0.0, ", \"a\": \"inf\"" }, { -1.0 / 0.0, ", \"a\": \"-inf\"" }, { 0.0 / 0.0, ", \"a\": \"nan\"" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        st_str s = { 0 };
        st_str_add_json_number(&s, "a", cases[i].x);
        assert_string_equal(s.text, cases[i].want);
        st_str_free(&s);
    }
}

static void test_plain(void **state)
{
    (void)state;
    assert_true(st_text_plain("", 0));
    assert_true(st_text_plain("a\tb\r\n\xc2\xa0\xe2\x82\xac", 10));
    assert_false(st_text_plain("a\x1b[2J", 5));
    assert_false(st_text_plain("\x7f", 1));
    assert_false(st_text_plain("\0", 1));
    assert_false(st_text_plain("\xc2\x9b", 2)); /* CSI in one character */
    assert_false(st_text_plain("\xc2", 1));
    assert_false(st_text_plain("\xff", 1));
}

static void test_utf8(void **state)
{
    (void)state;
    /* Against the definition: encode every scalar value, and decode-check every 3-byte start. */
    for (uint32_t c = 0; c <= 0x110000; c += c < 0x11000 ? 1 : 37) {
        char t[4];
        size_t n;
        if (c < 0x80) {
            t[0] = (char)c;
            n = 1;
        } else if (c < 0x800) {
            t[0] = (char)(0xc0 | c >> 6);
            t[1] = (char)(0x80 | (c & 63));
            n = 2;
        } else if (c < 0x10000) {
            t[0] = (char)(0xe0 | c >> 12);
            t[1] = (char)(0x80 | (c >> 6 & 63));
            t[2] = (char)(0x80 | (c & 63));
            n = 3;
        } else {
            t[0] = (char)(0xf0 | c >> 18);
            t[1] = (char)(0x80 | (c >> 12 & 63));
            t[2] = (char)(0x80 | (c >> 6 & 63));
            t[3] = (char)(0x80 | (c & 63));
            n = 4;
        }
        int good = !(c >= 0xd800 && c < 0xe000) && c < 0x110000;
        assert_int_equal(st_utf8_valid(t, n), good ? n : 0);
        if (n > 1)
            assert_int_equal(st_utf8_valid(t, n - 1), 0);
    }
    assert_int_equal(st_utf8_valid("ab\xc0\x80", 4), 2);         /* overlong */
    assert_int_equal(st_utf8_valid("ab\xe0\x80\x80", 5), 2);
    assert_int_equal(st_utf8_valid("a\xf5\x80\x80\x80", 5), 1);
    assert_int_equal(st_utf8_valid("a\x80", 2), 1);
    assert_int_equal(st_utf8_valid("", 0), 0);
}

static void test_numbers(void **state)
{
    int64_t i = -5;
    double f = -5;
    (void)state;
    assert_int_equal(st_mul_i64(INT64_MAX / 3, 3, &i), 0);
    assert_int_equal(i, INT64_MAX / 3 * 3);
    assert_int_equal(st_mul_i64(INT64_MAX / 3 + 1, 3, &i), -1);
    assert_int_equal(st_mul_i64(-1, 1, &i), -1);
    assert_int_equal(st_mul_i64(1, -1, &i), -1);
    assert_int_equal(st_add_i64(INT64_MAX, 1, &i), -1);
    assert_int_equal(st_add_i64(2, 3, &i), 0);
    assert_int_equal(i, 5);
    assert_int_equal(st_add_i64(-2, 3, &i), -1);

    assert_int_equal(st_parse_i64("-9223372036854775808", INT64_MIN, INT64_MAX, &i), 0);
    assert_true(i == INT64_MIN);
    assert_int_equal(st_parse_i64("9223372036854775807", 0, INT64_MAX, &i), 0);
    assert_true(i == INT64_MAX);
    const char *bad[] = {
        "", "-", "+", " 1", "1 ", "0x1", "1.0", "9223372036854775808", "99999999999999999999", "--1"
    };
    for (size_t k = 0; k < sizeof bad / sizeof *bad; k++)
        assert_int_equal(st_parse_i64(bad[k], INT64_MIN, INT64_MAX, &i), -1);
    assert_int_equal(st_parse_i64("7", 0, 6, &i), -1);
    assert_int_equal(st_parse_i64("-1", 0, 6, &i), -1);

    (void)setlocale(LC_ALL, "de_DE.UTF-8"); /* where there is one: commas must not matter */
    const struct { const char *t; double v;
    } good[] = {
        { "0", 0 },       { "-1.5", -1.5 }, { "+2.", 2 },    { ".25", .25 },
        { "1e-3", 1e-3 }, { "1E+2", 100 },  { "1e-999", 0 },
    };
    for (size_t k = 0; k < sizeof good / sizeof *good; k++) {
        assert_int_equal(st_parse_f64(good[k].t, &f), 0);
        assert_true(f == good[k].v);
    }
    const char *badf[] = { "",    ".",     "-",  "e1", "1e",  "1e+",   "inf",
                           "nan", "0x1p1", " 1", "1 ", "1,5", "1e999", "1f" };
    for (size_t k = 0; k < sizeof badf / sizeof *badf; k++)
        assert_int_equal(st_parse_f64(badf[k], &f), -1);
}

/* ---------------------------------------------------------------- table */

static void test_table(void **state)
{
    enum { N = 20000 };
    static char keys[N][12];
    (void)state;
    for (int64_t expected = 0; expected <= 40000; expected += 40000) {
        st_table *t = st_table_new(expected);
        int64_t v = -1;
        assert_non_null(t);
        assert_int_equal(st_table_get(t, "", 0, &v), 0);
        for (int i = 0; i < N; i++) {
            (void)snprintf(keys[i], sizeof keys[i], "k%d", i * 7919 % N);
            assert_int_equal(st_table_put(t, keys[i], strlen(keys[i]), i), 0);
        }
        assert_int_equal(st_table_put(t, "", 0, 77), 0); /* the empty key is a key */
        assert_int_equal(st_table_put(t, "k\0x", 3, 78), 0);
        assert_int_equal(st_table_count(t), N + 2);
        for (int i = 0; i < N; i++) {
            assert_int_equal(st_table_get(t, keys[i], strlen(keys[i]), &v), 1);
            assert_int_equal(v, i);
        }
        assert_int_equal(st_table_get(t, "k", 1, &v), 0);
        assert_int_equal(st_table_get(t, "k\0x", 3, &v), 1);
        assert_int_equal(v, 78);
        assert_int_equal(st_table_put(t, "k5", 2, 1234), 0); /* replaces, keeps its place */
        assert_int_equal(st_table_count(t), N + 2);
        for (int64_t i = 0; i < N; i++) {
            const void *key;
            size_t n;
            st_table_at(t, i, &key, &n, &v);
            assert_ptr_equal(key, keys[i]);
            assert_int_equal(v, strcmp(keys[i], "k5") ? i : 1234);
        }
        st_table_free(t);
    }
    st_table_free(NULL);
}

/* ---------------------------------------------------------------- files */

static char *tmp_dir(char *buffer, size_t n)
{
    (void)snprintf(buffer, n, "%s/base-XXXXXX", SETUN_BINARY_DIR);
    char *d = mkdtemp(buffer);
    assert_non_null(d);
    return d;
}

static void put(const char *path, const void *bytes, int64_t n)
{
    st_out *o = NULL;
    setun_error e;
    assert_int_equal(st_out_open(&o, path, 0, &e), SETUN_OK);
    assert_int_equal(st_out_write(o, bytes, n, &e), SETUN_OK);
    assert_int_equal(st_out_tell(o), n);
    assert_int_equal(st_out_commit(o, &e), SETUN_OK);
}

static void test_files(void **state)
{
    char dir[512], path[600], other[600];
    setun_error e = { 0, "" };
    st_map m;
    char *text = NULL, **names = NULL;
    int64_t n = 0, when = 0;
    (void)state;
    tmp_dir(dir, sizeof dir);
    (void)snprintf(path, sizeof path, "%s/file", dir);

    /* Write in odd pieces across the buffer, read back both ways. */
    size_t total = 900001;
    unsigned char *data = malloc(total);
    assert_non_null(data);
    for (size_t i = 0; i < total; i++)
        data[i] = (unsigned char)(i * 2654435761u >> 13);
    st_out *o = NULL;
    assert_int_equal(st_out_open(&o, path, 1, &e), SETUN_OK);
    for (size_t at = 0, k = 1; at < total; k = k * 3 % 400009) {
        size_t part = k < total - at ? k : total - at;
        assert_int_equal(st_out_write(o, data + at, (int64_t)part, &e), SETUN_OK);
        at += part;
        assert_int_equal(st_out_tell(o), at);
    }
    assert_int_equal(st_is_file(path), 0); /* nothing to see before commit */
    assert_int_equal(st_out_commit(o, &e), SETUN_OK);
    assert_int_equal(st_is_file(path), 1);
    assert_int_equal(st_map_open(&m, path, &e), SETUN_OK);
    assert_int_equal(m.bytes, total);
    assert_memory_equal(m.data, data, total);
    st_map_advise(m.data + 5, m.bytes - 9, 1);
    st_map_advise(m.data + 5, m.bytes - 9, 0);
    st_map_advise(m.data + 5, 3, 0);
    st_map_advise(NULL, 0, 1);
    assert_memory_equal(m.data, data, total);
    st_map_close(&m);
    st_map_close(&m);
    assert_int_equal(st_file_read(path, 1 << 20, &text, &n, &e), SETUN_OK);
    assert_int_equal(n, total);
    assert_int_equal(text[n], 0);
    assert_memory_equal(text, data, total);
    free(text);
    free(data);
    assert_int_equal(st_file_read(path, 900000, &text, &n, &e), SETUN_BAD_FILE);
    assert_null(text);
    assert_non_null(strstr(e.text, "900001"));
    assert_int_equal(st_file_stat(path, &n, &when, &e), SETUN_OK);
    assert_int_equal(n, total);
    assert_true(when > 0);

    /* An aborted write leaves the old file and no litter. */
    put(path, "old", 3);
    assert_int_equal(st_out_open(&o, path, 0, &e), SETUN_OK);
    assert_int_equal(st_out_write(o, "new", 3, &e), SETUN_OK);
    st_out_abort(o);
    st_out_abort(NULL);
    assert_int_equal(st_file_read(path, 10, &text, &n, &e), SETUN_OK);
    assert_string_equal(text, "old");
    free(text);
    (void)snprintf(other, sizeof other, "%s/empty", dir);
    put(other, "", 0);
    assert_int_equal(st_map_open(&m, other, &e), SETUN_OK);
    assert_null(m.data);
    assert_int_equal(m.bytes, 0);
    st_map_close(&m);
    assert_int_equal(st_dir_list(dir, &names, &n, &e), SETUN_OK);
    assert_int_equal(n, 2);
    assert_string_equal(names[0], "empty");
    assert_string_equal(names[1], "file");
    st_dir_free(names, n);

    /* Two writers at once use two temporary names. */
    st_out *o2 = NULL;
    assert_int_equal(st_out_open(&o, path, 0, &e), SETUN_OK);
    assert_int_equal(st_out_open(&o2, path, 0, &e), SETUN_OK);
    assert_int_equal(st_out_write(o, "one", 3, &e), SETUN_OK);
    assert_int_equal(st_out_write(o2, "twoo", 4, &e), SETUN_OK);
    assert_int_equal(st_out_commit(o, &e), SETUN_OK);
    assert_int_equal(st_out_commit(o2, &e), SETUN_OK);
    assert_int_equal(st_file_read(path, 10, &text, &n, &e), SETUN_OK);
    assert_string_equal(text, "twoo");
    free(text);

    /* Refusals name the path. */
    assert_int_equal(st_map_open(&m, dir, &e), SETUN_IO);
    assert_non_null(strstr(e.text, "a directory"));
    assert_int_equal(st_map_open(&m, "/dev/zero", &e), SETUN_IO);
    assert_non_null(strstr(e.text, "/dev/zero"));
    (void)snprintf(other, sizeof other, "%s/pipe", dir);
    assert_int_equal(mkfifo(other, 0600), 0);
    assert_int_equal(st_file_read(other, 10, &text, &n, &e), SETUN_IO); /* and does not wait */
    assert_int_equal(unlink(other), 0);
    (void)snprintf(other, sizeof other, "%s/missing/x", dir);
    assert_int_equal(st_map_open(&m, other, &e), SETUN_IO);
    assert_non_null(strstr(e.text, other));
    assert_int_equal(st_out_open(&o, other, 0, &e), SETUN_IO);
    assert_non_null(strstr(e.text, other));
    assert_null(o);
    assert_true(st_out_open(&o, "/proc/x", 0, &e) != SETUN_OK); /* takes no files, even from root */
    assert_non_null(strstr(e.text, "/proc/x"));
    assert_int_equal(st_dir_list(other, &names, &n, &e), SETUN_IO);
    assert_int_equal(st_file_stat(other, &n, &when, &e), SETUN_IO);
    assert_int_equal(st_is_dir(dir), 1);
    assert_int_equal(st_is_file(dir), 0);
    assert_int_equal(st_is_dir(other), 0);

    /* A write that the system cuts short is a sentence, and the old file survives. */
    struct rlimit old, small;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small = old;
    small.rlim_cur = 100000;
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    char *zeros = calloc(1, 300000);
    assert_non_null(zeros);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    assert_int_equal(st_out_open(&o, path, 0, &e), SETUN_OK);
    setun_status s = st_out_write(o, zeros, 300000, &e);
    setun_error e2 = { 0, "" };
    setun_status again = st_out_write(o, zeros, 1, &e2), commit = st_out_commit(o, &e2);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    free(zeros);
    (void)signal(SIGXFSZ, handler);
    assert_int_equal(s, SETUN_IO);
    assert_non_null(strstr(e.text, "larger than the system allows"));
    assert_int_equal(again, SETUN_IO);
    assert_int_equal(commit, SETUN_IO);
    assert_int_equal(st_file_read(path, 10, &text, &n, &e), SETUN_OK);
    assert_string_equal(text, "twoo");
    free(text);
    assert_int_equal(st_dir_list(dir, &names, &n, &e), SETUN_OK);
    assert_int_equal(n, 2);
    st_dir_free(names, n);

    (void)unlink(path);
    (void)snprintf(other, sizeof other, "%s/empty", dir);
    (void)unlink(other);
    assert_int_equal(rmdir(dir), 0);
}

static void test_dirs(void **state)
{
    char dir[512], path[600];
    setun_error e = { 0, "" };
    struct stat info;
    (void)state;
    tmp_dir(dir, sizeof dir);
    (void)snprintf(path, sizeof path, "%s/a/b//c/", dir);
    assert_int_equal(st_make_dirs(path, 1, &e), SETUN_OK);
    assert_int_equal(st_make_dirs(path, 1, &e), SETUN_OK); /* again is no error */
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0700);
    assert_int_equal(chmod(path, 0755), 0);
    assert_int_equal(st_make_dirs(path, 1, &e), SETUN_IO);
    assert_non_null(strstr(e.text, "chmod 700"));
    assert_int_equal(st_make_dirs(path, 0, &e), SETUN_OK);
    if (geteuid() == 0) { /* only root can give a directory away */
        assert_int_equal(chown(path, 12345, 12345), 0);
        assert_int_equal(st_make_dirs(path, 0, &e), SETUN_IO);
        assert_non_null(strstr(e.text, "another user"));
    }
    (void)snprintf(path, sizeof path, "%s/file", dir);
    put(path, "x", 1);
    assert_int_equal(st_make_dirs(path, 0, &e), SETUN_IO);
    assert_non_null(strstr(e.text, "not a directory"));
    (void)snprintf(path, sizeof path, "%s/file/sub", dir);
    assert_int_equal(st_make_dirs(path, 0, &e), SETUN_IO);
    assert_true(st_make_dirs("", 0, &e) != SETUN_OK);
    static const char *const junk[] = { "file", "a/b/c", "a/b", "a", "" };
    for (size_t i = 0; i < sizeof junk / sizeof *junk; i++) {
        (void)snprintf(path, sizeof path, "%s/%s", dir, junk[i]);
        assert_int_equal(remove(path), 0);
    }
}

/* ---------------------------------------------------------------- hash, cpu, log */

/* The definition, byte by byte. */
static uint64_t slow_checksum(const unsigned char *p, size_t n)
{
    uint64_t lane[4] = { 0x9e3779b97f4a7c15u, 0xd6e8feb86659fd93u, ~(uint64_t)0x9e3779b97f4a7c15u,
                         ~(uint64_t)0xd6e8feb86659fd93u };
    for (size_t w = 0; w * 8 < n; w++) {
        uint64_t word = 0, v;
        for (size_t i = 0; i < 8 && w * 8 + i < n; i++)
            word |= (uint64_t)p[w * 8 + i] << (8 * i);
        v = lane[w % 4] ^ word;
        lane[w % 4] = (v << 27 | v >> 37) * 0x9e3779b97f4a7c15u;
    }
    uint64_t h = (uint64_t)n * 0xd6e8feb86659fd93u;
    for (int k = 0; k < 4; k++) {
        h = (h ^ lane[k] ^ lane[k] >> 31) * 0x9e3779b97f4a7c15u;
        h ^= h >> 29;
    }
    h *= 0xd6e8feb86659fd93u;
    return h ^ h >> 32;
}

static void test_checksum(void **state)
{
    unsigned char data[300];
    (void)state;
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (unsigned char)(i * 167 + 13);
    for (size_t n = 0; n <= 260; n++)
        for (size_t at = 0; at < 9; at++) /* any alignment */
            assert_true(st_checksum(data + at, n) == slow_checksum(data + at, n));
    uint64_t whole = st_checksum(data, 200);
    for (size_t bit = 0; bit < 1600; bit++) { /* every byte counts */
        data[bit / 8] ^= (unsigned char)(1u << bit % 8);
        assert_true(st_checksum(data, 200) != whole);
        data[bit / 8] ^= (unsigned char)(1u << bit % 8);
    }
    memset(data, 0, sizeof data);
    for (size_t n = 0; n < 100; n++) /* so does the number of zeros */
        assert_true(st_checksum(data, n) != st_checksum(data, n + 1));
    assert_true(st_hash(ST_HASH_INIT, "", 0) == ST_HASH_INIT);
    assert_true(st_hash(ST_HASH_INIT, "foobar", 6) ==
                0x85944171f73967e8u); /* published FNV-1a vector */
}

static void collect(void *user, int level, const char *text)
{
    st_str *s = user;
    st_str_addf(s, "%d:%s;", level, text);
}

static void test_cpu_log(void **state)
{
    st_cpu c;
    st_str s = { 0 };
    st_log log = { collect, &s, ST_LOG_INFO };
    (void)state;
    st_cpu_detect(&c);
    assert_true(c.n_cores >= 1 && c.n_cores <= 256);
    assert_true(c.n_threads >= c.n_cores);
    for (int32_t i = 0; i < c.n_cores; i++)
        for (int32_t j = 0; j < i; j++)
            assert_true(c.core_pu[i] != c.core_pu[j]);
    assert_true(strlen(c.name) > 0);
    assert_true(st_memory_now() > 100000);
    assert_true(st_memory_peak() >= st_memory_now() / 2);
    int64_t t = st_now_ns();
    assert_true(t > 0 && st_now_ns() >= t);
    st_logf(&log, ST_LOG_WARN, "a%d", 1);
    st_logf(&log, ST_LOG_DEBUG, "b");
    st_logf(&log, ST_LOG_INFO, "c");
    st_logf(NULL, ST_LOG_WARN, "d");
    assert_string_equal(s.text, "0:a1;1:c;");
    st_str_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_error),    cmocka_unit_test(test_arena),
        cmocka_unit_test(test_str),      cmocka_unit_test(test_utf8), cmocka_unit_test(test_plain), cmocka_unit_test(test_json_numbers),
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_numbers),  cmocka_unit_test(test_table),
        cmocka_unit_test(test_files),    cmocka_unit_test(test_dirs),
        cmocka_unit_test(test_checksum), cmocka_unit_test(test_cpu_log),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
