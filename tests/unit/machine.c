/* tests/unit/machine.c -- what a start needs to know of this machine and does not ask the compiler; kernels whose
 * compiling or execution does not work out.
 *
 * The compiler is a table, so here are compilers that take too long, and one whose code no processor executes. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cpu.h"
#include "base/file.h"
#include "base/guard.h"
#include "runtime/kernels.h"
#include "runtime/model.h"

#define OK(call)                       \
    do {                               \
        if ((call) != SETUN_OK)        \
            fail_msg("%s", err.text);  \
    } while (0)

/* ---------------------------------------------------------------- the processor, as text */

static void test_identity(void **state)
{
    st_str a = {0}, b = {0};
    (void)state;
    st_cpu_identity(&a);
    for (int i = 0; i < 50; i++) { /* whatever core it is asked on */
        st_cpu_identity(&b);
        assert_string_equal(a.text, b.text);
        st_str_free(&b);
        (void)usleep(100);
    }
    assert_true(a.len > 40 && !a.failed);
    st_str_free(&a);
}

/* ---------------------------------------------------------------- instructions that are not there */

static void illegal(void *arg)
{
    *(int *)arg += 1;
#if defined(__x86_64__)
    __asm__ volatile("ud2");
#else
    (void)raise(SIGILL);
#endif
    *(int *)arg += 10; /* never reached */
}

static void legal(void *arg) { *(int *)arg += 100; }

static void nested(void *arg)
{
    *(int *)arg += st_guard_illegal(illegal, arg) ? 1000 : 0;
    *(int *)arg += st_guard_illegal(legal, arg) ? 0 : 10000;
}

static volatile sig_atomic_t n_own;
static sigjmp_buf own_way;

static void own(int sig)
{
    (void)sig;
    n_own++;
    siglongjmp(own_way, 1);
}

static void test_guard(void **state)
{
    struct sigaction mine = {.sa_handler = own}, now;
    int n = 0;
    (void)state;
    assert_int_equal(sigaction(SIGILL, &mine, NULL), 0);
    assert_int_equal(st_guard_illegal(illegal, &n), 1);
    assert_int_equal(n, 1);
    assert_int_equal(st_guard_illegal(legal, &n), 0);
    assert_int_equal(n, 101);
    assert_int_equal(st_guard_illegal(nested, &n), 0);
    assert_int_equal(n, 101 + 1 + 1000 + 100 + 10000);
    for (int i = 0; i < 3; i++) /* the signal is not left blocked */
        assert_int_equal(st_guard_illegal(illegal, &n), 1);
    assert_int_equal(sigaction(SIGILL, NULL, &now), 0);
    assert_true(now.sa_handler == own);
    assert_int_equal(n_own, 0);
    if (sigsetjmp(own_way, 1) == 0)
        illegal(&n);
    assert_int_equal(n_own, 1);
    mine.sa_handler = SIG_DFL;
    assert_int_equal(sigaction(SIGILL, &mine, NULL), 0);
}

/* ---------------------------------------------------------------- an operator, and odd compilers */

static setun_status infer_same(setun_args *a, setun_error *err) { return setun_infer_same(a, err); }

static setun_status add_one(const setun_args *a, setun_error *err)
{
    (void)err;
    for (int64_t i = 0; i < setun_count(&a->in[0]); i++)
        ((float *)a->out[0].data)[i] = ((const float *)a->in[0].data)[i] + 1.0f;
    return SETUN_OK;
}

static k_val one_more(setun_kernel *k, const setun_args *a, const k_val *x)
{
    (void)a;
    return k_add(k, x[0], k_f32v(k, 1.0f, K_LANES(k_type_of(k, x[0]))));
}

static setun_status lower_one(setun_kernel *k, const setun_args *a, setun_error *err)
{
    (void)err;
    return k_lower_map(k, a, one_more);
}

static const setun_port port_in[] = {{"x", "", 0, 0}}, port_out[] = {{"y", "", 0, 0}};
static const char *const cases[] = {"x:f32[3]", NULL};
static const setun_op op = {.size = sizeof(setun_op), .version = 1, .name = "one_more", .doc = "-", .in = port_in,
                            .out = port_out, .n_in = 1, .n_out = 1, .infer = infer_same, .eval = add_one,
                            .lower = lower_one, .cases = cases};

typedef struct heard {
    int  n[3];
    char last[3][512];
} heard;

static void hear(void *user, int32_t level, const char *text)
{
    heard *h = user;
    h->n[level]++;
    (void)snprintf(h->last[level], sizeof h->last[level], "%s", text);
}

static char dir[256];

static st_engine *engine(heard *h, const char *features)
{
    setun_options o;
    setun_error err = {0};
    st_engine *e;
    memset(h, 0, sizeof *h);
    setun_options_init(&o);
    o.cache_dir = dir;
    o.log = hear;
    o.log_user = h;
    o.log_level = 1;
    o.cpu_features = features;
    OK(st_engine_open(&e, &o, &err));
    return e;
}

/* Ask for the operator with rows of n, build, run it on something; returns how it was made. */
static st_kernel run_op(st_engine *e, int n)
{
    st_arena *arena = st_arena_new();
    setun_error err = {0};
    st_kernels *k;
    st_kernel *one;
    st_case c, got;
    char text[32];
    OK(st_kernels_new(&k, e, arena, &err));
    (void)snprintf(text, sizeof text, "x:f32[%d]", n);
    OK(st_case_make(&op, text, 1, arena, &c, &err));
    OK(st_case_make(&op, text, 1, arena, &got, &err));
    OK(st_kernels_ask(k, &c.shape, NULL, &one, &err));
    OK(st_kernels_build(k, NULL, &err));
    OK(add_one(&c.run, &err));
    OK(st_kernel_launch(&one->code, &got.run, 3, &err));
    OK(st_outputs_equal(&c.run, &got.run, &err));
    st_kernel copy = *one;
    st_arena_free(arena);
    return copy;
}

static const st_codegen *real;
static int n_emitted, n_simple;

/* Too long for the usual way. */
static setun_status slow(const st_kir *k, const st_target *t, const char *symbol, const st_emit *how, char **bytes,
                         int64_t *n, setun_error *err)
{
    n_emitted++;
    n_simple += how->simple != 0;
    assert_true(how->limit_ns > 0);
    if (how->simple)
        return real->emit(k, t, symbol, how, bytes, n, err);
    *bytes = NULL;
    (void)snprintf(err->text, sizeof err->text, "kernel %s: too long", symbol);
    return err->code = SETUN_FULL;
}

/* Too long for any way. */
static setun_status endless(const st_kir *k, const st_target *t, const char *symbol, const st_emit *how, char **bytes,
                            int64_t *n, setun_error *err)
{
    st_emit usual = *how;
    usual.simple = 0;
    return slow(k, t, symbol, &usual, bytes, n, err);
}

#if defined(__x86_64__)
/* A real object in which the kernel's first instruction is UD2: 0f 0b. */
static setun_status alien(const st_kir *k, const st_target *t, const char *symbol, const st_emit *how, char **bytes,
                          int64_t *n, setun_error *err)
{
    static const uint8_t ud2[2] = {0x0f, 0x0b};
    setun_status s = real->emit(k, t, symbol, how, bytes, n, err);
    if (s == SETUN_OK)
        memcpy(*bytes + 64, ud2, 2); /* .text is behind the header of 64 bytes */
    return s;
}
#endif

static void expect(heard *h, int level, const char *part)
{
    if (!strstr(h->last[level], part))
        fail_msg("\"%s\" has no \"%s\"", h->last[level], part);
}

static void test_odd_compilers(void **state)
{
    heard h;
    setun_error err = {0};
    st_engine *e = engine(&h, NULL);
    (void)state;
    if (!e->codegen_file) {
        st_engine_close(e);
        skip();
    }
    OK(st_engine_compiler(e, &real, &err));
    st_codegen odd = *real;

    odd.emit = slow;
    e->codegen = &odd;
    st_kernel one = run_op(e, 1001);
    assert_true(one.compiled && !one.interpreted && n_emitted == 2 && n_simple == 1);
    expect(&h, 1, "too long; it is compiled in a simpler way");
    one = run_op(e, 1001); /* it is kept like any other */
    assert_true(!one.compiled && !one.interpreted && n_emitted == 2);

    odd.emit = endless;
    one = run_op(e, 1002);
    assert_true(one.interpreted && !one.compiled && one.code.fn == st_kir_run);
    expect(&h, 1, "too long; it is interpreted");
    n_emitted = 0;
    one = run_op(e, 1002); /* and this is not kept */
    assert_true(one.interpreted && n_emitted == 2);
    assert_int_equal(h.n[0], 0);
#if defined(__x86_64__)
    odd.emit = alien;
    for (int i = 1; i <= 2; i++) {
        one = run_op(e, 1003);
        assert_true(one.interpreted && !one.compiled && one.code.fn == st_kir_run);
        assert_int_equal(h.n[0], i);
        expect(&h, 0, "is interpreted: this machine does not know an instruction in it");
    }
#endif
    odd.emit = real->emit;
    one = run_op(e, 1003);
    assert_true(one.compiled && !one.interpreted);
    st_engine_close(e);
}

static void drop_files(const char *from)
{
    char **names, path[600];
    int64_t n;
    setun_error err;
    OK(st_dir_list(from, &names, &n, &err));
    for (int64_t i = 0; i < n; i++) {
        (void)snprintf(path, sizeof path, "%s/%s", from, names[i]);
        assert_int_equal(unlink(path), 0);
    }
    st_dir_free(names, n);
}

/* Kernels of a model for another machine: compiled in a simpler way, or left out, and either is said. */
static void test_compile_ahead(void **state)
{
    static const char *const said[2] = {"too long; it is compiled in a simpler way", "too long; it is interpreted"};
    heard h = {0};
    setun_options o;
    setun_error err = {0};
    setun_model *m;
    char out[600], path[700], line[32];
    (void)state;
    setun_options_init(&o);
    o.target = "s390x";
    o.n_threads = 1; /* slow() counts without a lock */
    o.log = hear;
    o.log_user = &h;
    o.log_level = 1;
    o.cache_dir = dir;
    st_engine *e = engine(&h, NULL);
    int compiles = e->codegen_file != NULL;
    st_engine_close(e);
    if (!compiles)
        skip();
    OK(setun_model_load(&m, SETUN_SOURCE_DIR "/tests/models/shakespeare", &o, &err));
    real = m->engine->codegen;
    assert_non_null(real);
    for (int i = 0; i < 2; i++) {
        st_codegen odd = *real;
        setun_compile_options c = {.size = sizeof c, .out = out};
        char **names, *record;
        int64_t n, size;
        (void)snprintf(out, sizeof out, "%s/ahead%d", dir, i);
        odd.emit = i ? endless : slow;
        m->engine->codegen = &odd;
        n_simple = 0;
        OK(setun_model_compile(m, &c, &err));
        m->engine->codegen = real;
        expect(&h, 1 - i, said[i]);
        OK(st_dir_list(out, &names, &n, &err));
        st_dir_free(names, n);
        assert_int_equal(n, i ? 1 : m->kernels->n + 1); /* with TARGET */
        assert_int_equal(n_simple, i ? 0 : m->kernels->n);
        (void)snprintf(path, sizeof path, "%s/TARGET", out);
        OK(st_file_read(path, 4096, &record, &size, &err));
        (void)snprintf(line, sizeof line, "kernels %d\n", i ? 0 : m->kernels->n);
        assert_non_null(strstr(record, line));
        free(record);
        drop_files(out);
        assert_int_equal(rmdir(out), 0);
    }
    setun_model_free(m);
}

/* ---------------------------------------------------------------- what is remembered */

/* Flip a byte in the middle of every file of the cache. */
static void damage(void)
{
    char **names, path[600], *bytes;
    int64_t n, size;
    setun_error err;
    OK(st_dir_list(dir, &names, &n, &err));
    for (int64_t i = 0; i < n; i++) {
        (void)snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        OK(st_file_read(path, 1 << 24, &bytes, &size, &err));
        bytes[size / 2] ^= 1;
        FILE *f = fopen(path, "wb");
        assert_non_null(f);
        assert_int_equal(fwrite(bytes, 1, (size_t)size, f), size);
        assert_int_equal(fclose(f), 0);
        free(bytes);
    }
    st_dir_free(names, n);
}

static void same_target(const st_target *a, const st_target *b)
{
    assert_string_equal(a->triple, b->triple);
    assert_string_equal(a->cpu, b->cpu);
    assert_string_equal(a->features, b->features);
    assert_string_equal(a->isa, b->isa);
    assert_memory_equal(&a->vector_bytes, &b->vector_bytes, sizeof *a - offsetof(st_target, vector_bytes));
}

static void test_memory(void **state)
{
    heard h;
    st_engine *e;
    st_target first;
    (void)state;
    drop_files(dir);
    e = engine(&h, NULL);
    if (!e->codegen_file) {
        st_engine_close(e);
        skip();
    }
    first = e->target;
    st_engine_close(e);
    static const char *const features[] = {NULL, "", NULL};
    for (int turn = 0; turn < 3; turn++) {
        e = engine(&h, features[turn]);
        same_target(&e->target, &first);
        assert_true(e->compiles && !e->codegen);
        assert_true(run_op(e, 77).compiled == (turn == 0));
        assert_true((e->codegen != NULL) == (turn == 0)); /* opened for the one kernel, and not again */
        st_engine_close(e);
    }
    damage();
    e = engine(&h, NULL);
    same_target(&e->target, &first);
    assert_true(run_op(e, 77).compiled);
    expect(&h, 1, "is ignored: ");
    /* A Setun without a compiler that shares the cache: what is there runs, what is not is interpreted. */
    st_engine_close(e);
    e = engine(&h, NULL);
    e->codegen_file = NULL;
    assert_true(!run_op(e, 77).interpreted);
    assert_true(run_op(e, 78).interpreted);
    expect(&h, 1, "is interpreted: it is not in the cache, and there is no compiler");
    st_engine_close(e);
}

/* One that is shared by processors with other features would be the worst of errors: each has its own record. */
static void test_features(void **state)
{
    heard h;
    (void)state;
    st_engine *e = engine(&h, NULL);
    int x86 = e->codegen_file && e->target.arch == ST_ARCH_X86 && strstr(e->target.features, "+avx2");
    st_target all = e->target;
    st_engine_close(e);
    if (!x86)
        skip();
    for (int i = 0; i < 4; i++) {
        e = engine(&h, i % 2 ? NULL : "-avx2");
        assert_int_equal(strstr(e->target.features, "+avx2") != NULL, i % 2);
        if (i % 2)
            same_target(&e->target, &all);
        assert_int_equal(run_op(e, 500).compiled, i < 2);
        st_engine_close(e);
    }
}

static int set_up(void **state)
{
    (void)state;
    (void)snprintf(dir, sizeof dir, "%s/machine_test.XXXXXX", SETUN_BINARY_DIR);
    return mkdtemp(dir) ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    drop_files(dir);
    return rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_identity), cmocka_unit_test(test_guard),    cmocka_unit_test(test_odd_compilers),
        cmocka_unit_test(test_memory),   cmocka_unit_test(test_features), cmocka_unit_test(test_compile_ahead),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
