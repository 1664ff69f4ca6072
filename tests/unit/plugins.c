/* tests/unit/plugins.c -- the plugin host: what loads, and the sentence for each thing that does
 * not. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/str.h"
#include "codegen/kir.h"
#include "graph/registry.h"
#include "plugins/host.h"
#include "tests/abi/defects.h"

#define ABI_DIR SETUN_BINARY_DIR "/tests/abi/"

static void collect(void *user, int level, const char *text)
{
    st_str_addf(user, "%d %s\n", level, text);
}

/* Loading file alone fails with a sentence that names it and holds `part`. */
static void refused(const char *file, const char *part)
{
    st_plugins *p = NULL;
    setun_error e = { 0, "" };
    assert_int_equal(st_plugins_new(&p, NULL, &e), SETUN_OK);
    setun_status s = st_plugins_load(p, file, &e);
    if (s >= 0 || !strstr(e.text, part) || !strstr(e.text, file))
        fail_msg("%s gave %d \"%s\", wanted the file's name and \"%s\"", file, (int)s, e.text,
                 part);
    assert_int_equal(e.code, s);
    assert_int_equal(st_plugins_count(p), 0);
    st_plugins_free(p);
}

static void test_refusals(void **state)
{
    char junk[PATH_MAX];
    (void)state;
    refused(ABI_DIR "wrong_abi.so", "for plugin ABI 7, this Setun speaks ABI 1");
    refused(ABI_DIR "liar.so", "says it is 3735928559 bytes long");
    refused(ABI_DIR "no_entry.so", "exports no setun_plugin_entry");
    refused(ABI_DIR "null_entry.so", "does not serve hosts of ABI 1");
    refused(ABI_DIR "missing_callback.so", "has no supports");
    refused("/nowhere/at/all.so", "there is no file");
    refused(SETUN_BINARY_DIR, "is not a file that can be loaded"); /* a directory */
    (void)snprintf(junk, sizeof junk, "%s/plugins-XXXXXX", SETUN_BINARY_DIR);
    int fd = mkstemp(junk);
    assert_true(fd >= 0);
    refused(junk, "not a shared object"); /* empty */
    assert_int_equal(
        write(fd, "\177ELF and then some nonsense, long enough for a header of 64 bytes.......",
              72),
        72);
    (void)close(fd);
    refused(junk, "not a shared object");
    assert_int_equal(unlink(junk), 0);
}

static void test_defects(void **state)
{
    static const char *const part[] = {
#define X(name, text) text,
        DEFECTS(X)
#undef X
    };
    const char *file = ABI_DIR "defects.so";
    void (*choose)(int32_t);
    int32_t (*started)(void);
    void *a = NULL;
    st_plugins *p = NULL;
    setun_error e = { 0, "" };
    (void)state;
    assert_int_equal(st_module_symbol(file, "choose_defect", &a, &e), SETUN_OK);
    memcpy(&choose, &a, sizeof a);
    assert_int_equal(st_module_symbol(file, "count_started", &a, &e), SETUN_OK);
    memcpy(&started, &a, sizeof a);
    for (int32_t i = 1; i < N_DEFECTS; i++) {
        choose(i);
        refused(file, part[i]);
        assert_int_equal(started(), 0); /* a refused plugin that had been started was stopped */
    }
    choose(DEFECT_none);
    assert_int_equal(st_plugins_new(&p, NULL, &e), SETUN_OK);
    assert_int_equal(st_plugins_load(p, file, &e), SETUN_OK);
    assert_int_equal(started(), 1);
    /* Again the same one. */
    assert_true(st_plugins_load(p, file, &e) < 0);
    assert_non_null(strstr(e.text, "org.setun.test.defects is already taken by"));
    assert_int_equal(st_plugins_count(p), 1);
    st_plugins_free(p);
    assert_int_equal(started(), 0);
    st_plugins_free(NULL);

    /* Another plugin whose backend has the same name. */
    choose(N_DEFECTS);
    assert_int_equal(st_plugins_new(&p, NULL, &e), SETUN_OK);
    assert_int_equal(st_plugins_load(p, SETUN_BINARY_DIR "/plugins/sample_backend.so", &e),
                     SETUN_OK);
    assert_true(st_plugins_load(p, file, &e) < 0);
    assert_non_null(strstr(e.text, "its backend is called \"trace\", and so is that of"));
    assert_int_equal(started(), 0);
    st_plugins_free(p);
}

static void test_future(void **state)
{
    st_str s = { 0 };
    st_log log = { collect, &s, ST_LOG_INFO };
    st_plugins *p = NULL;
    setun_error e = { 0, "" };
    (void)state;
    assert_int_equal(st_plugins_new(&p, &log, &e), SETUN_OK);
    assert_int_equal(st_plugins_load(p, ABI_DIR "future.so", &e), SETUN_OK);
    const st_plugin_info *info = st_plugins_at(p, 0);
    assert_string_equal(info->id, "org.setun.test.future");
    assert_string_equal(info->version, "2099");
    assert_null(info->backend);
    assert_int_equal(info->ops->n, 1);
    assert_string_equal(info->ops->op[0]->name, "future_copy");
    st_plugins_free(p);
    assert_string_equal(s.text, "1 the future is over\n"); /* fini ran, and its log came through */
    st_str_free(&s);
}

/* A plugin built against the frozen headers of revision 1: every later host loads it. */
static void test_old(void **state)
{
    st_plugins *p = NULL;
    setun_error e = { 0, "" };
    (void)state;
    assert_int_equal(st_plugins_new(&p, NULL, &e), SETUN_OK);
    if (st_plugins_load(p, ABI_DIR "old_plugin.so", &e) != SETUN_OK)
        fail_msg("%s", e.text);
    const st_plugin_info *info = st_plugins_backend(p, "old");
    assert_non_null(info);
    assert_string_equal(info->id, "org.setun.test.old");
    assert_string_equal(info->backend_info.doc, "built from the headers of revision 1");
    assert_int_equal(info->ops->n, 1);

    /* And it can be used: its operator on its backend. */
    const setun_backend_v1 *b = info->backend;
    const setun_op *op = info->ops->op[0];
    assert_string_equal(op->name, "old_double");
    setun_context *c = NULL;
    setun_buffer *buffer = NULL;
    setun_program *program = NULL;
    float x[4] = { 1, -2, 3.5f, 0 }, y[4];
    assert_int_equal(b->context_new(info->self, 1, &c, &e), SETUN_OK);
    assert_int_equal(b->buffer_new(c, 128, &buffer, &e), SETUN_OK);
    assert_int_equal(b->buffer_write(buffer, 0, x, sizeof x, &e), SETUN_OK);
    setun_operand o[2] = { { buffer, 0, { NULL, SETUN_F32, 1, { -1, 1, 1, 1 } } },
                           { buffer, 64, { NULL, SETUN_F32, 1, { -1, 1, 1, 1 } } } };
    setun_step step = { sizeof step, 1, 1, 0, op, &o[0], &o[1], NULL, NULL, "old" };
    double seconds = 0;
    assert_int_equal(b->supports(info->self, &step, &seconds), SETUN_OK);
    assert_int_equal(b->program_new(c, &step, 1, &program, &e), SETUN_OK);
    assert_int_equal(b->program_run(program, (int64_t[]){ 4, 0 }, 2, &e), SETUN_OK);
    assert_int_equal(b->buffer_read(buffer, 64, y, sizeof y, &e), SETUN_OK);
    for (int i = 0; i < 4; i++)
        assert_true(y[i] == 2 * x[i]);
    b->program_free(program);
    b->buffer_free(buffer);
    b->context_free(c);
    st_plugins_free(p);
}

static void test_list(void **state)
{
    st_str s = { 0 };
    st_log log = { collect, &s, ST_LOG_DEBUG };
    st_plugins *p = NULL;
    setun_error e = { 0, "" };
    (void)state;
    assert_int_equal(st_plugins_new(&p, &log, &e), SETUN_OK);
    assert_int_equal(st_plugins_load_list(p, "", &e), SETUN_OK);
    assert_int_equal(st_plugins_load_list(p, ":::", &e), SETUN_OK);
    assert_int_equal(st_plugins_count(p), 0);
    assert_int_equal(st_plugins_load_list(p,
                                          ":" SETUN_BINARY_DIR
                                          "/plugins/sample_op.so::" SETUN_BINARY_DIR
                                          "/plugins/sample_backend.so:",
                                          &e),
                     SETUN_OK);
    assert_int_equal(st_plugins_count(p), 2);
    assert_non_null(strstr(s.text, "loaded org.setun.sample_op"));
    assert_int_equal(st_plugins_load_list(p, "/nowhere.so:" ABI_DIR "future.so", &e), SETUN_IO);
    assert_non_null(strstr(e.text, "/nowhere.so"));
    assert_int_equal(st_plugins_count(p), 2);
    assert_non_null(st_plugins_backend(p, "trace"));
    assert_null(st_plugins_backend(p, "cpu"));
    assert_int_equal(st_plugins_load(p, SETUN_BINARY_DIR "/lib/setun/backend_cpu.so", &e),
                     SETUN_OK);
    assert_int_equal(st_plugins_load(p, SETUN_BINARY_DIR "/lib/setun/backend_reference.so", &e),
                     SETUN_OK);
    assert_int_equal(st_plugins_backend(p, "cpu")->backend_info.wants_code, 1);
    assert_int_equal(st_plugins_backend(p, "reference")->backend_info.wants_code, 0);
    st_plugins_free(p);
    st_str_free(&s);

    /* init may be called again in one process. */
    for (int i = 0; i < 2; i++) {
        assert_int_equal(st_plugins_new(&p, NULL, &e), SETUN_OK);
        assert_int_equal(st_plugins_load(p, SETUN_BINARY_DIR "/lib/setun/backend_cpu.so", &e),
                         SETUN_OK);
        st_plugins_free(p);
    }
}

static void check_kernel(const setun_op *op, const char *text)
{
    st_arena *arena = st_arena_new();
    setun_error e = { 0, "" };
    st_case c;
    st_kir *kir = NULL;
    st_target t;
    int64_t dim[ST_MAX_SLOTS], bytes[2];
    st_target_generic(&t);
    if (st_case_make(op, text, 7, arena, &c, &e) || op->eval(&c.run, &e) ||
        st_kir_lower(&kir, &c.shape, &t, arena, &e))
        fail_msg("%s: %s", text, e.text);
    const setun_view *view[2] = { &c.run.in[0], &c.run.out[0] };
    bytes[0] = bytes[1] = setun_view_bytes(view[0]);
    char *got = st_arena_alloc(arena, bytes[1] + ST_CASE_SLACK);
    assert_non_null(got);
    memset(got, 0x5a, (size_t)bytes[1]);
    for (uint32_t i = 0; i < kir->n_slot; i++)
        dim[i] = view[kir->slot[i].arg]->dim[kir->slot[i].dim];
    setun_launch launch = { (void *[]){ c.run.in[0].data, got }, dim, kir };
    setun_tile tile = { 0, st_grid_units(&kir->grid, view), NULL };
    if (st_kir_eval(kir, &launch, bytes, &tile, &e))
        fail_msg("%s: %s", text, e.text);
    assert_memory_equal(got, c.run.out[0].data, (size_t)bytes[1]);
    st_arena_free(arena);
}

/* The sample operator's meaning, by hand. */
static void test_sample_op(void **state)
{
    st_plugins *p = NULL;
    setun_error e = { 0, "" };
    (void)state;
    assert_int_equal(st_plugins_new(&p, NULL, &e), SETUN_OK);
    assert_int_equal(st_plugins_load(p, SETUN_BINARY_DIR "/plugins/sample_op.so", &e), SETUN_OK);
    const setun_op *op = st_plugins_at(p, 0)->ops->op[0];
    assert_string_equal(op->name, "hard_tanh");
    float x[7] = { -3, -1, -0.25f, 0, 0.5f, 1, 8 }, y[7];
    const float want[7] = { -0.5f, -0.5f, -0.25f, 0, 0.5f, 1, 2 };
    setun_view in = { x, SETUN_F32, 1, { 7, 1, 1, 1 } }, out = { NULL, 0, 0, { 0 } };
    setun_value attr[2] = { { .f = -0.5 }, { .f = 2 } };
    setun_args a = { sizeof a, 1, 1, 2, op, &in, &out, attr, NULL };
    assert_int_equal(op->infer(&a, &e), SETUN_OK);
    assert_int_equal(out.dtype, SETUN_F32);
    assert_int_equal(out.rank, 1);
    assert_int_equal(out.dim[0], 7);
    out.data = y;
    assert_int_equal(op->eval(&a, &e), SETUN_OK);
    for (int i = 0; i < 7; i++)
        assert_true(y[i] == want[i]);
    attr[0].f = 3;
    assert_int_equal(op->infer(&a, &e), SETUN_BAD_ARG);
    assert_non_null(strstr(e.text, "low is 3 and high is 2"));

    /* It goes through the same door as a built-in one, and its kernel agrees with its meaning. */
    st_registry *r = NULL;
    assert_int_equal(st_registry_new(&r, &e), SETUN_OK);
    assert_int_equal(st_registry_add(r, op, "sample_op.so", &e), SETUN_OK);
    st_registry_free(r);
    for (int i = 0; op->cases[i]; i++)
        check_kernel(op, op->cases[i]);
    st_plugins_free(p);
}

static void test_places(void **state)
{
    char modules[PATH_MAX], scripts[PATH_MAX], file[PATH_MAX + 32], want[PATH_MAX];
    setun_error e = { 0, "" };
    void *a = NULL;
    (void)state;
    if (st_install_dirs(modules, scripts, sizeof modules, &e) != SETUN_OK)
        fail_msg("%s", e.text);
    assert_non_null(realpath(SETUN_BINARY_DIR "/lib/setun", want));
    assert_string_equal(modules, want);
    assert_non_null(realpath(SETUN_BINARY_DIR "/share/setun", want));
    assert_string_equal(scripts, want);
    (void)snprintf(file, sizeof file, "%s/backend_cpu.so", modules);
    assert_int_equal(st_module_symbol(file, "setun_plugin_entry", &a, &e), SETUN_OK);
    assert_non_null(a);
    assert_int_equal(st_module_symbol(file, "no_such_symbol", &a, &e), SETUN_BAD_FILE);
    assert_non_null(strstr(e.text, "no_such_symbol"));
    assert_null(a);
    assert_int_equal(st_install_dirs(modules, scripts, 4, &e),
                     SETUN_IO); /* no room for the answer */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refusals), cmocka_unit_test(test_defects),
        cmocka_unit_test(test_future),   cmocka_unit_test(test_old),
        cmocka_unit_test(test_list),     cmocka_unit_test(test_sample_op),
        cmocka_unit_test(test_places),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
