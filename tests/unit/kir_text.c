/* tests/unit/kir_text.c -- kernels as text: what the parser and the verifier refuse, golden
 * kernels in tests/golden.  (Hostile text: tests/fuzz/kir.c.)
 *
 * A golden file is a kernel in canonical form with comment lines that say how to run it: "# n 3"
 * the symbolic size, "# units 0 3" the tile, "# in 0: ..." and "# expect 1: ..." the elements of
 * each argument; or "# error: ..." for one that is refused, "# fault: ..." for one that fails
 * when run. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "codegen/kir.h"

/* Parse and verify; returns the status of the first that fails. */
static setun_status read_kernel(const char *text, const char *file, st_arena *arena, st_kir **k,
                                setun_error *err)
{
    ST_TRY(st_kir_parse(text, file, NULL, arena, k, err));
    return st_kir_verify(*k, err);
}

static void test_text_errors(void **state)
{
    (void)state;
    static const char head[] =
        "kernel t\n  in f32[4]\n  out f32[4]\n  grid 0.0/1\n  scratch 64\n{\n"
        "  %1 = const.i64 0\n  %2 = const.i1 1\n  %3 = const.f32 0x00000000\n";
    static const struct {
        const char *body, *error; /* body replaces the whole text when it begins with a kernel */
    } row[] = {
        { "else\n}", "t:10: else is not an instruction" },
        { "%9 = stop\n}", "t:10: stop is not an instruction" },
        { "if %2 {\n}\n", "t:12: the kernel has no closing brace" },
        { "}\n}", "t:11: } after the kernel's end" },
        { "} else {\n}", "t:10: else after the kernel's end" },
        { "if %2 {\n} else {\n} else {\n}\n}",
          "kernel t: instruction 6, else: there is no open if" },
        { "%4 = for %1 %1 step 1 {\n} else {\n}\n}",
          "kernel t: instruction 5, else: there is no open if" },
        { "if %2 {\n %4 = const.i64 1\n} else {\n %5 = add.i64 %4 %1\n}\n}",
          "kernel t: instruction 7, add.i64(i64, i64): operand a is %5, which was made in a block "
          "that has ended" },
        { "%4 = for %1 %1 step 1 {\n}\n%5 = add.i64 %4 %1\n}",
          "kernel t: instruction 6, add.i64(i64, i64): operand a is %4, which was made in a block "
          "that has ended" },
        { "%4 = bogus.i64 %1\n}", "t:10: bogus is not an instruction" },
        { "%4 = add %1 %1\n}", "t:10: add needs a type, such as add.i32x8" },
        { "%4 = add.f64 %1 %1\n}", "t:10: add needs a type, such as add.i32x8" },
        { "%4 = const.f32x257 0x00000000\n}", "t:10: const needs a type, such as const.i32x8" },
        { "%4 = begin.i64\n}", "t:10: begin has no type to write" },
        { "%4 = add.i64 %1\n}", "t:10: the end of the line where a value such as %1 is expected" },
        { "%4 = add.i64 %1 %1 %1\n}", "t:10: %1 where the end of the line is expected" },
        { "%4 = add.i64 %1 %9\n}", "t:10: %9 has not been defined" },
        { "%1 = add.i64 %1 %1\n}", "t:10: %1 is defined twice" },
        { "%0 = add.i64 %1 %1\n}", "t:10: %0 is not a value such as %1, up to %200000" },
        { "%200001 = add.i64 %1 %1\n}", "t:10: %200001 is not a value such as %1, up to %200000" },
        { "add.i64 %1 %1\n}", "t:10: add gives a value that needs a name" },
        { "%4 = if %2 {\n}\n}", "t:10: if gives no value" },
        { "%4 = const.f32 1.5\n}",
          "t:10: an f32 constant is its bits, 0x and 8 hexadecimal digits, not 1.5" },
        { "%4 = const.f32 0x0000000g\n}",
          "t:10: an f32 constant is its bits, 0x and 8 hexadecimal digits, not 0x0000000g" },
        { "%4 = const.i64 99999999999999999999\n}",
          "t:10: 99999999999999999999 is not a number from -9223372036854775808 to "
          "9223372036854775807" },
        { "%4 = const.i16 70000\n}",
          "t:10: kernel t: instruction 4, const: 70000 does not fit an element of 16 bits" },
        { "%4 = shuffle.f32x2 %3 %3 [0 2]\n}", "t:10: kernel t: instruction 4, shuffle.f32x2(f32, "
                                               "f32): mask entry 1 is 2; it picks one of 2 lanes" },
        { "%4 = shuffle.f32x2 %3 %3 [0]\n}", "t:10: ] is not a number from 0 to 511" },
        { "%4 = dim 0.1\n}", "t:10: kernel t: dim: dimension 1 of argument 0, which has rank 1" },
        { "%4 = dim 7.0\n}", "t:10: kernel t: dim: argument 7 of 2" },
        { "%4 = dim x\n}", "t:10: dim needs argument.dimension" },
        { "%4 = scratch.f32 2\n}",
          "t:10: kernel t: instruction 4, scratch.*f32: offset 2 is not aligned to the element" },
        { "%4 = scratch.f32 68\n}", "t:10: kernel t: instruction 4, scratch.*f32: offset 68 is "
                                    "outside the kernel's 64 bytes of scratch" },
        { "%4 = for %1 %1 step -1 {\n}\n}",
          "t:10: kernel t: instruction 4, for.i64(i64, i64): the step is -1; it must be above 0" },
        { "%4 = arg.f32 0\nprefetch %4 %1 4\n}",
          "t:11: kernel t: instruction 5, prefetch(*f32, i64): locality 4 is not 0 to 3" },
        { "%4 = arg.f32 0\n%5 = var.f32 %4\n}",
          "t:11: kernel t: instruction 5, var.f32(*f32): the result must be *f32" },
        { "%4 = arg.f32 0\n%5 = select.f32 %2 %4 %4\n}",
          "t:11: kernel t: instruction 5, select.f32(i1, *f32, *f32): operand b must be f32" },
        { "%4 = add.i1 %2 %2\n}",
          "t:10: kernel t: instruction 4, add.i1(i1, i1): operand a must be i8 to i64 or f32" },
        { "%4 = trunc.i64 %1\n}", "t:10: kernel t: instruction 4, trunc.i64(i64): the result must "
                                  "be a narrower integer with 1 lanes" },
        { "%4 = zext.i64 %1\n}", "t:10: kernel t: instruction 4, zext.i64(i64): the result must be "
                                 "a wider integer with 1 lanes" },
        { "%4 = eq.i1x2 %1 %1\n}",
          "t:10: kernel t: instruction 4, eq.i1x2(i64, i64): the result must be i1" },
        { "%4 = i2f.f32 %1\n}",
          "t:10: kernel t: instruction 4, i2f.f32(i64): operand a must be i32" },
        { "%4 = const.i8x257 1\n}", "t:10: const needs a type, such as const.i32x8" },
        { "\"\n}", "t:10: unexpected character 0x22" },
        { "kernel a b", "t:1: b where the end of the line is expected" },
        { "kernel t\n in q4[2]", "t:2: q4 is not an element type" },
        { "kernel t\n in f32[2,2,2,2,2]", "t:2: more than 4 dimensions" },
        { "kernel t\n in f32[-1]", "t:2: -1 is not a number from 0 to 9223372036854775807" },
        { "kernel t\n in f32[2,n]\n out f32[2]\n",
          "t:4: kernel t: dimension 1 of argument 0 is -1" },
        { "kernel t\n in f32[2]\n out\n grid none\n scratch 0\n{\n}", "kernel t: it has no grid" },
        { "kernel t\n in f32[2]\n out\n grid 1.0/1\n scratch 0\n{\n}",
          "kernel t: grid factor 0 is of argument 1 of 1" },
        { "kernel t\n in f32[2]\n out\n grid 0.1/1\n scratch 0\n{\n}",
          "kernel t: grid factor 0 is dimension 1 of argument 0, which has rank 1" },
        { "kernel t\n in f32[2]\n out\n grid 0.0/0\n scratch 0\n{\n}",
          "t:4: a grid factor is argument.dimension/granule" },
        { "kernel t\n in f32[2]\n out\n grid 0.0/1\n scratch -4\n{\n}",
          "t:5: -4 is not a number from 0 to 67108864" },
        { "kernel t\n in f32[2]\n out\n grid 0.0/1\n scratch 0\n{\n}\nkernel u\n",
          "t:8: kernel after the kernel's end" },
        { "kernel", "t:1: the end of the text where the end of the line is expected" },
        { "", "t:10: the kernel has no closing brace" },
    };
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        char text[1024];
        int whole = strncmp(row[i].body, "kernel", 6) == 0;
        (void)snprintf(text, sizeof text, "%s%s", whole ? "" : head, row[i].body);
        st_arena *arena = st_arena_new();
        st_kir *k;
        setun_error err = { 0, "" };
        setun_status s = read_kernel(text, "t", arena, &k, &err);
        if (s == SETUN_OK || strcmp(err.text, row[i].error) != 0)
            fail_msg("%s\nsays: %s\nshould say: %s", row[i].body,
                     s == SETUN_OK ? "(nothing)" : err.text, row[i].error);
        st_arena_free(arena);
    }
}

static void test_match(void **state)
{
    (void)state;
    static const char text[] =
        "kernel t\n in f32[4]\n out\n grid 0.0/1\n scratch 0\n{\n %1 = const.i64 0\n"
        " %2 = const.i1 1\n %3 = for %1 %1 step 1 {\n if %2 {\n } else {\n }\n if %2 {\n }\n }\n}";
    static const uint32_t match[] = { 0, 0, 0, 9, 5, 6, 0, 8, 0, 0 };
    st_arena *arena = st_arena_new();
    st_kir *k;
    setun_error err;
    assert_int_equal(read_kernel(text, "t", arena, &k, &err), SETUN_OK);
    assert_int_equal(k->n_inst, 10);
    for (uint32_t i = 1; i < k->n_inst; i++)
        assert_int_equal(k->inst[i].match, match[i]);
    st_arena_free(arena);
}

/* ---------------------------------------------------------------- golden kernels */

#define GOLDEN SETUN_SOURCE_DIR "/tests/golden"

/* The rest of the line "# word ..." of text, or NULL. */
static const char *note(const char *text, const char *word)
{
    char want[64];
    (void)snprintf(want, sizeof want, "\n# %s", word);
    const char *at = strstr(text, want);
    return at ? at + strlen(want) : NULL;
}

static void put_number(void *data, uint32_t dtype, int64_t i, const char *text)
{
    int64_t whole = strtoll(text, NULL, 10);
    float f = strtof(text, NULL);
    if (dtype == SETUN_F32)
        memcpy((char *)data + 4 * i, &f, 4);
    else {
        int64_t n = setun_align(dtype);
        int big_endian = __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__;
        memcpy((char *)data + n * i, (const char *)&whole + (big_endian ? (int64_t)sizeof whole - n : 0), (size_t)n);
    }
}

/* Bytes of argument a when symbolic sizes are n; -1 if that is not sensible. */
static int64_t arg_bytes(const st_kir *k, uint32_t a, int64_t n)
{
    int64_t rows = 1, last = 1;
    for (uint32_t d = 0; d < k->arg_rank[a]; d++) {
        if (d && st_mul_i64(rows, last, &rows))
            return -1;
        last = k->arg_dim[a][d] < 0 ? n : k->arg_dim[a][d];
    }
    if (last > 1 << 20 || st_mul_i64(rows, setun_row_bytes(k->arg_dtype[a], last), &rows) ||
        rows > 1 << 20)
        return -1;
    return rows;
}

typedef struct call {
    void   *arg[ST_MAX_ARGS];
    int64_t bytes[ST_MAX_ARGS], dim[ST_MAX_SLOTS];
    uint32_t n;
} call;

/* Arguments of exactly the right size, zeroed; 0 if they would be too large. */
static int call_open(call *c, const st_kir *k, int64_t n)
{
    memset(c, 0, sizeof *c);
    for (uint32_t s = 0; s < k->n_slot; s++) {
        int64_t d = k->arg_dim[k->slot[s].arg][k->slot[s].dim];
        c->dim[s] = d < 0 ? n : d;
    }
    for (; c->n < k->n_in + k->n_out; c->n++) {
        c->bytes[c->n] = arg_bytes(k, c->n, n);
        if (c->bytes[c->n] < 0)
            return 0;
        c->arg[c->n] = calloc(1, (size_t)c->bytes[c->n]);
    }
    return 1;
}

static void call_close(call *c)
{
    for (uint32_t i = 0; i < c->n; i++)
        free(c->arg[i]);
}

static void fill_from(const char *line, void *data, uint32_t dtype, int64_t bytes)
{
    int64_t size = setun_align(dtype), i = 0;
    while (*line && *line != '\n') {
        char word[64];
        int used = 0;
        if (sscanf(line, " %63[^ \n]%n", word, &used) != 1)
            break;
        assert_true(i < bytes / size);
        put_number(data, dtype, i++, word);
        line += used;
        while (*line == ' ')
            line++;
    }
    assert_int_equal(i, bytes / size);
}

/* The text without its comment lines. */
static char *without_notes(const char *text)
{
    char *out = calloc(1, strlen(text) + 1), *to = out;
    while (*text) {
        const char *end = strchr(text, '\n');
        size_t n = end ? (size_t)(end - text) + 1 : strlen(text);
        if (*text != '#') {
            memcpy(to, text, n);
            to += n;
        }
        text += n;
    }
    return out;
}

static void check_golden(const char *name, const char *text)
{
    st_arena *arena = st_arena_new();
    st_kir *k;
    setun_error err = { 0, "" };
    const char *want = note(text, "error: "), *n = note(text, "n "), *units = note(text, "units ");
    setun_status s = read_kernel(text, name, arena, &k, &err);
    if (want) {
        if (s == SETUN_OK || strncmp(want, err.text, strlen(err.text)) != 0 ||
            want[strlen(err.text)] != '\n')
            fail_msg("%s: says %s, not %s", name, s == SETUN_OK ? "nothing" : err.text, want);
        st_arena_free(arena);
        return;
    }
    if (s != SETUN_OK)
        fail_msg("%s: %s", name, err.text);
    char *bare = without_notes(text);
    st_str printed = { 0 };
    st_kir_print(k, &printed);
    assert_string_equal(printed.text, bare);
    free(bare);
    st_str_free(&printed);

    call c;
    assert_true(call_open(&c, k, n ? strtoll(n, NULL, 10) : 0));
    setun_tile t = { 0, 0, NULL };
    assert_non_null(units);
    assert_int_equal(sscanf(units, "%ld %ld", &t.begin, &t.end), 2);
    for (uint32_t i = 0; i < k->n_in; i++) {
        char word[32];
        (void)snprintf(word, sizeof word, "in %u: ", i);
        const char *line = note(text, word);
        assert_non_null(line);
        fill_from(line, c.arg[i], k->arg_dtype[i], c.bytes[i]);
    }
    setun_launch l = { c.arg, c.dim, k };
    const char *fault = note(text, "fault: ");
    s = st_kir_eval(k, &l, c.bytes, &t, &err);
    if (fault) {
        assert_int_equal(s, SETUN_FAILED);
        assert_true(strncmp(fault, err.text, strlen(err.text)) == 0);
    } else if (s != SETUN_OK) {
        fail_msg("%s: %s", name, err.text);
    }
    for (uint32_t i = k->n_in; !fault && i < c.n; i++) {
        char word[32];
        (void)snprintf(word, sizeof word, "expect %u: ", i);
        const char *line = note(text, word);
        assert_non_null(line);
        void *expected = calloc(1, (size_t)c.bytes[i]);
        fill_from(line, expected, k->arg_dtype[i], c.bytes[i]);
        assert_memory_equal(c.arg[i], expected, (size_t)c.bytes[i]);
        free(expected);
    }
    call_close(&c);
    st_arena_free(arena);
}

/* Call use on each golden file; returns how many there are. */
static int each_golden(void (*use)(const char *name, const char *text))
{
    char **names;
    int64_t n;
    int used = 0;
    setun_error err;
    if (st_dir_list(GOLDEN, &names, &n, &err) != SETUN_OK)
        fail_msg("%s", err.text);
    for (int64_t i = 0; i < n; i++) {
        size_t len = strlen(names[i]);
        char path[4096], *text;
        int64_t bytes;
        if (len < 4 || strcmp(names[i] + len - 4, ".kir") != 0)
            continue;
        (void)snprintf(path, sizeof path, "%s/%s", GOLDEN, names[i]);
        if (st_file_read(path, 1 << 20, &text, &bytes, &err) != SETUN_OK)
            fail_msg("%s", err.text);
        use(names[i], text);
        free(text);
        used++;
    }
    st_dir_free(names, n);
    return used;
}

static void test_golden(void **state)
{
    (void)state;
    assert_true(each_golden(check_golden) >= 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text_errors),
        cmocka_unit_test(test_match),
        cmocka_unit_test(test_golden),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
