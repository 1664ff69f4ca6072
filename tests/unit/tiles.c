/* tests/unit/tiles.c -- tile instructions: the interpreter against a scalar definition, and compiled
 * kernels, with native tiles where this machine has them and with memory in their place.
 *
 * The kernel multiplies a [16][COLUMNS] (s8) with b [COLUMNS / 4][16][4] (u8), 64 columns a step, adds
 * the products to c, and stores the sum twice: as it is, and by way of a second tile that starts at 0.
 * A third tile has the products with b taken as signed. */
#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/code.h"

#define COLUMNS 192
#define STRIDE (COLUMNS + 24) /* bytes between the rows of a: not a multiple of a cache line */
#define WIDE 21               /* words between the rows of the result */
#define RESULT (48 * WIDE)

enum { A, B, C, Y };

static setun_status lower(setun_kernel *k, const setun_args *args, setun_error *err)
{
    (void)args; (void)err;
    k_val a = k_arg(k, A, K_I8), b = k_arg(k, B, K_I8), c = k_arg(k, C, K_I32), y = k_arg(k, Y, K_I32);
    k_grid(k, A, 0, 16 * STRIDE);
    k_tile_load(k, 2, c, k_i64(k, 0), 16);
    k_tile_zero(k, 7);
    k_tile_zero(k, 3);
    k_val step = k_for(k, k_i64(k, 0), k_i64(k, COLUMNS / 64), 1);
    k_tile_load(k, 0, a, k_muli(k, step, 64), STRIDE);
    k_tile_load(k, 5, b, k_muli(k, step, 1024), 64);
    k_tile_dot(k, 2, 0, 5);
    k_tile_dot(k, 7, 0, 5);
    k_tile_dot_s8(k, 3, 0, 5);
    k_stop(k);
    k_tile_store(k, 2, y, k_i64(k, 0), WIDE);
    k_tile_store(k, 7, y, k_i64(k, 16 * WIDE), WIDE);
    k_tile_store(k, 3, y, k_i64(k, 32 * WIDE), WIDE);
    return SETUN_OK;
}

typedef struct data {
    int8_t  a[16 * STRIDE];
    uint8_t b[COLUMNS * 16];
    int32_t c[256], y[RESULT];
} data;

static const int64_t bytes[4] = {16 * STRIDE, COLUMNS * 16, 1024, RESULT * 4};

static void fill(data *d, uint32_t seed)
{
    uint8_t *p = (uint8_t *)d;
    for (size_t i = 0; i < sizeof *d; i++) {
        seed = seed * 1664525 + 1013904223;
        p[i] = (uint8_t)(seed >> 24);
    }
    /* A row and a column of extremes: 128 * 255 * 192 fits, and c may wrap. */
    memset(d->a + 3 * STRIDE, 0x80, COLUMNS);
    for (int i = 0; i < COLUMNS; i++)
        d->b[i / 4 * 64 + 4 * 5 + i % 4] = 255;
    memset(d->y, 0x11, sizeof d->y);
}

static void scalar(data *d)
{
    for (int m = 0; m < 16; m++)
        for (int n = 0; n < 16; n++) {
            int32_t s = 0, both = 0;
            for (int i = 0; i < COLUMNS; i++) {
                s += d->a[m * STRIDE + i] * d->b[i / 4 * 64 + 4 * n + i % 4];
                both += d->a[m * STRIDE + i] * (int8_t)d->b[i / 4 * 64 + 4 * n + i % 4];
            }
            d->y[m * WIDE + n] = (int32_t)((uint32_t)d->c[16 * m + n] + (uint32_t)s);
            d->y[(16 + m) * WIDE + n] = s;
            d->y[(32 + m) * WIDE + n] = both;
        }
}

static st_kir *make(const st_target *t, st_arena *arena)
{
    static setun_view in[3] = {{NULL, SETUN_I8, 1, {16 * STRIDE, 1, 1, 1}}, {NULL, SETUN_I8, 1, {COLUMNS * 16, 1, 1, 1}},
                               {NULL, SETUN_I32, 1, {256, 1, 1, 1}}};
    static setun_view out = {NULL, SETUN_I32, 1, {RESULT, 1, 1, 1}};
    setun_op op = {.size = sizeof op, .name = "tiles", .n_in = 3, .n_out = 1, .lower = lower};
    setun_args args = {.size = sizeof args, .n_in = 3, .n_out = 1, .op = &op, .in = in, .out = &out};
    st_kir *k = NULL;
    setun_error err = {0};
    if (st_kir_lower(&k, &args, t, arena, &err) != SETUN_OK)
        fail_msg("%s", err.text);
    return k;
}

static setun_launch launch_of(data *d, void *arg[4], const st_kir *k)
{
    arg[A] = d->a;
    arg[B] = d->b;
    arg[C] = d->c;
    arg[Y] = d->y;
    return (setun_launch){arg, NULL, k};
}

/* Text form: what is printed parses to the same kernel. */
static void test_text(void **state)
{
    st_arena *arena = st_arena_new();
    st_target t;
    st_str one = {0}, two = {0};
    st_kir *again;
    setun_error err = {0};
    (void)state;
    st_target_generic(&t);
    st_kir *k = make(&t, arena);
    st_kir_print(k, &one);
    if (st_kir_parse(one.text, "text", &t, arena, &again, &err) != SETUN_OK)
        fail_msg("%s", err.text);
    st_kir_print(again, &two);
    assert_string_equal(one.text, two.text);
    st_str_free(&one);
    st_str_free(&two);
    st_arena_free(arena);
}

static void test_interpreter(void **state)
{
    st_arena *arena = st_arena_new();
    st_target t;
    setun_error err = {0};
    setun_tile tile = {0, 1, NULL};
    void *arg[4];
    (void)state;
    st_target_generic(&t);
    const st_kir *k = make(&t, arena);
    for (uint32_t seed = 1; seed < 5; seed++) {
        data got, want;
        fill(&got, seed);
        want = got;
        scalar(&want);
        setun_launch l = launch_of(&got, arg, k);
        if (st_kir_eval(k, &l, bytes, &tile, &err) != SETUN_OK)
            fail_msg("%s", err.text);
        assert_memory_equal(got.y, want.y, sizeof got.y);
        /* A byte too few of each argument is a sentence that names it. */
        for (int i = 0; i < 4; i++) {
            int64_t less[4];
            memcpy(less, bytes, sizeof less);
            /* The last row of y ends five words before y does, that of a 24 bytes before. */
            less[i] -= i == Y ? 4 * (WIDE - 16) + 4 : i == A ? STRIDE - COLUMNS + 1 : i == C ? 4 : 1;
            assert_int_equal(st_kir_eval(k, &l, less, &tile, &err), SETUN_FAILED);
            assert_non_null(strstr(err.text, "tile_"));
            assert_non_null(strstr(err.text, "outside argument"));
        }
    }
    st_arena_free(arena);
}

/* Numbers that name no tile, tiles that are not different, pointers to floats. */
static void test_refused(void **state)
{
    static const struct { uint32_t op; int64_t imm; uint32_t elem; } bad[] = {
        {K_tile_zero, 8, K_I8}, {K_tile_zero, -1, K_I8}, {K_tile_dot, 0, K_I8}, {K_tile_dot, 1 << 3 | 1 << 6, K_I8},
        {K_tile_dot, 512, K_I8}, {K_tile_dot, 1024 | 1 << 3 | 2 << 6, K_I8}, {K_tile_load, -8, K_I8}, {K_tile_store, INT64_MAX, K_I8}, {K_tile_load, 0, K_F32},
    };
    st_arena *arena = st_arena_new();
    st_target t;
    (void)state;
    st_target_generic(&t);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        setun_error err = {0};
        st_kir *k = make(&t, arena);
        k_val p = k_arg(&k->head, A, bad[i].elem), at = k_i64(&k->head, 0);
        assert_int_equal(k->failed, 0);
        (void)k_emit(&k->head, bad[i].op, 0, p, at, 0, bad[i].imm);
        assert_int_equal(k->failed, 1);
        assert_non_null(strstr(k->fault.text, st_kir_op_name(bad[i].op)));
        (void)err;
    }
    st_arena_free(arena);
}

/* As the program loads the compiler; a build without one has nothing to test here. */
static void test_compiled(void **state)
{
    static const char *const features[] = {NULL, "-amx-int8", "-avx512f", "-avx2", "-ssse3"};
    (void)state;
    void *module = dlopen(SETUN_BINARY_DIR "/lib/setun/codegen_llvm.so", RTLD_NOW | RTLD_LOCAL);
    if (!module)
        skip();
    const st_codegen *(*entry)(uint32_t) = NULL;
    *(void **)&entry = dlsym(module, "st_codegen_entry");
    assert_non_null(entry);
    const st_codegen *cg = entry(ST_CODEGEN_ABI);
    for (size_t i = 0; i < sizeof features / sizeof features[0]; i++) {
        st_arena *arena = st_arena_new();
        st_target t;
        setun_error err = {0};
        st_loader *loader;
        char *object;
        int64_t n;
        setun_kernel_fn *fn;
        setun_tile tile = {0, 1, NULL};
        void *arg[4];
        if (cg->host(features[i], &t, &err) != SETUN_OK) { /* not an x86, or an old one */
            st_arena_free(arena);
            continue;
        }
        if (i > 0)
            assert_int_equal(t.tiles, 0);
        const st_kir *k = make(&t, arena);
        if (st_loader_new(&loader, &err) != SETUN_OK ||
            code_emit(cg, k, &t, "tiles", ST_EMIT_OBJECT, &object, &n, &err) != SETUN_OK ||
            code_load(loader, object, n, "tiles", &fn, &err) != SETUN_OK)
            fail_msg("%s", err.text);
        for (uint32_t seed = 10; seed < 14; seed++) {
            data got, want;
            fill(&got, seed);
            want = got;
            scalar(&want);
            setun_launch l = launch_of(&got, arg, k);
            fn(&l, &tile);
            assert_memory_equal(got.y, want.y, sizeof got.y);
        }
        free(object);
        st_loader_free(loader);
        st_arena_free(arena);
    }
    /* The compiler stays loaded: LLVM is not made to be unloaded. */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_interpreter),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_compiled),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
