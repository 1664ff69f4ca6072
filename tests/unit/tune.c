/* tests/unit/tune.c -- what the tuner keeps on disk, and what it does with what it finds there; kernels
 * that are built together, and which failure is told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/pool.h"
#include "base/str.h"
#include "runtime/choices.h"
#include "runtime/kernels.h"
#include "setun/op_help.h"
#include "tests/unit/files.h"

#define MODEL SETUN_SOURCE_DIR "/tests/models/shakespeare"
#define OK(call) do { if ((call) != SETUN_OK) fail_msg("%s", err.text); } while (0)

/* ---------------------------------------------------------------- the file */

static void open_choices(st_choices *c, const char *dir, const char *identity, st_arena *arena)
{
    setun_error err = {0};
    OK(st_choices_open(c, dir, identity, arena, NULL, &err));
}

static void test_round_trip(void **state)
{
    st_arena *arena = st_arena_new();
    char *dir = temp_dir();
    setun_error err = {0};
    st_choices a, b;
    (void)state;
    open_choices(&a, dir, "cpu one", arena);
    assert_int_equal(a.n, 0);
    OK(st_choices_put(&a, "op/1 i8[1,2]", "x=1 y=-2", 41, &err));
    OK(st_choices_put(&a, "op/1 i8[1,3]", "x=2", 0, &err));
    OK(st_choices_put(&a, "op/1 i8[1,2]", "x=3 y=-2", 42, &err)); /* replaces */
    OK(st_choices_save(&a, &err));
    open_choices(&b, dir, "cpu one", arena);
    assert_int_equal(b.n, 2);
    assert_string_equal(st_choices_find(&b, "op/1 i8[1,2]")->choice, "x=3 y=-2");
    assert_int_equal(st_choices_find(&b, "op/1 i8[1,2]")->gain, 42);
    assert_null(st_choices_find(&b, "op/1 i8[1,4]"));
    open_choices(&b, dir, "cpu two", arena); /* another machine sees nothing of it */
    assert_int_equal(b.n, 0);
    open_choices(&b, NULL, "cpu one", arena);
    OK(st_choices_put(&b, "q", "c", 1, &err));
    OK(st_choices_save(&b, &err)); /* nowhere */
    st_arena_free(arena);
    drop_dir(dir);
}

/* A file of this body, with the right checksum. */
static void forge(const char *path, const char *body, size_t n)
{
    st_str t = {0};
    st_str_addn(&t, body, n);
    st_str_addf(&t, "sum %016" PRIx64 "\n", st_checksum(body, n));
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(t.text, 1, t.len, f), t.len);
    assert_int_equal(fclose(f), 0);
    st_str_free(&t);
}

static void test_damage(void **state)
{
    static const struct { const char *body; size_t n; } bad[] = {
#define BODY(text) {text, sizeof text - 1}
        BODY(""), BODY("\n"), BODY("setun choices 2\nme\n"), BODY("setun choices 1\n"), BODY("setun choices 1\nme"),
        BODY("setun choices 1\nyou\n1\tq\tc\n"), BODY("setun choices 1\nme\n1\tq c\n"),
        BODY("setun choices 1\nme\nx\tq\tc\n"), BODY("setun choices 1\nme\n99999999999999999999\tq\tc\n"),
        BODY("setun choices 1\nme\n1\tq\tc\n\n"), BODY("setun choices 1\nme\n1\tq\0\tc\n"),
        BODY("setun choices 1\nme\n1\tq\tc\n1\tr\tc")};
    st_arena *arena = st_arena_new();
    char *dir = temp_dir(), *text;
    setun_error err = {0};
    st_choices a, b;
    int64_t bytes;
    (void)state;
    open_choices(&a, dir, "me", arena);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        forge(a.path, bad[i].body, bad[i].n);
        open_choices(&b, dir, "me", arena);
        if (b.n != 0)
            fail_msg("body %zu was accepted", i);
    }
    OK(st_choices_put(&a, "question", "c=1", 5, &err));
    OK(st_choices_save(&a, &err)); /* over the last bad one */
    OK(st_file_read(a.path, 1 << 20, &text, &bytes, &err));
    for (int64_t i = 0; i < bytes; i++)
        for (int flip = 0; flip < 2; flip++) {
            FILE *f = fopen(a.path, "wb");
            assert_non_null(f);
            text[i] = (char)(text[i] ^ (flip ? 0x20 : 0x81));
            (void)fwrite(text, 1, (size_t)bytes, f);
            (void)fclose(f);
            text[i] = (char)(text[i] ^ (flip ? 0x20 : 0x81));
            open_choices(&b, dir, "me", arena);
            if (b.n)
                fail_msg("a changed byte %d was accepted", (int)i);
        }
    for (int64_t n = 0; n < bytes; n++) { /* cut short */
        FILE *f = fopen(a.path, "wb");
        assert_non_null(f);
        (void)fwrite(text, 1, (size_t)n, f);
        (void)fclose(f);
        open_choices(&b, dir, "me", arena);
        assert_int_equal(b.n, 0);
    }
    free(text);
    st_arena_free(arena);
    drop_dir(dir);
}

/* Many save at once: what is left is whole, and who saves alone in the end loses nothing of it. */
static void save_one(void *arg, int32_t worker)
{
    st_arena *arena = st_arena_new();
    setun_error err = {0};
    char question[32];
    st_choices c;
    for (int i = 0; i < 20; i++) {
        (void)snprintf(question, sizeof question, "q %d %d", (int)worker, i);
        if (st_choices_open(&c, arg, "me", arena, NULL, &err) != SETUN_OK ||
            st_choices_put(&c, question, "c", worker, &err) != SETUN_OK || st_choices_save(&c, &err) != SETUN_OK)
            abort();
    }
    st_arena_free(arena);
}

static void test_writers(void **state)
{
    st_arena *arena = st_arena_new();
    char *dir = temp_dir();
    setun_error err = {0};
    st_pool *pool;
    st_choices c, d;
    (void)state;
    OK(st_pool_new(&pool, 4, 0, &err));
    st_pool_run(pool, save_one, dir);
    st_pool_free(pool);
    open_choices(&c, dir, "me", arena);
    assert_true(c.n > 0); /* whole; of two that save at the same moment one may lose what the other saved */
    OK(st_choices_put(&c, "mine", "c", 7, &err));
    open_choices(&d, dir, "me", arena); /* another process, meanwhile */
    OK(st_choices_put(&d, "theirs", "c", 8, &err));
    OK(st_choices_save(&d, &err));
    OK(st_choices_save(&c, &err));
    open_choices(&d, dir, "me", arena);
    assert_int_equal(d.n, c.n);
    assert_non_null(st_choices_find(&d, "mine"));
    assert_non_null(st_choices_find(&d, "theirs"));
    st_arena_free(arena);
    drop_dir(dir);
}

/* ---------------------------------------------------------------- models */

static uint64_t hash_with(const char *dir, int32_t tune, st_str *tuned)
{
    static const int32_t ids[20] = {1021, 870, 266, 79, 44, 441, 324, 268, 280, 111, 382, 115, 304, 268, 280, 101, 7, 350, 12, 600};
    setun_options o;
    setun_error err = {0};
    setun_model *m;
    setun_session *s;
    const float *logits;
    setun_options_init(&o);
    o.cache_dir = dir;
    o.tune = tune;
    o.n_threads = 2;
    o.n_ctx = 64;
    OK(setun_model_load(&m, MODEL, &o, &err));
    OK(setun_session_new(&s, m, &err));
    OK(setun_session_feed(s, ids, 19, SETUN_LOGITS_LAST, &logits, &err));
    uint64_t h = setun_hash(0, logits, setun_model_n_vocab(m));
    OK(setun_session_feed(s, ids + 19, 1, SETUN_LOGITS_LAST, &logits, &err));
    h = setun_hash(h, logits, setun_model_n_vocab(m));
    if (tuned) {
        setun_model_stats stats = {.size = sizeof stats};
        setun_model_get_stats(m, &stats);
        st_str_add(tuned, stats.isa);
    }
    setun_session_free(s);
    setun_model_free(m);
    return h;
}

/* The file of choices in a directory; NULL if there is none. */
static char *choices_file(const char *dir)
{
    char **names, *path = NULL;
    int64_t n;
    setun_error err = {0};
    OK(st_dir_list(dir, &names, &n, &err));
    for (int64_t i = 0; i < n; i++)
        if (strncmp(names[i], "choices-", 8) == 0)
            path = join(dir, names[i]);
    st_dir_free(names, n);
    return path;
}

static void test_same_bits(void **state)
{
    char *dir = temp_dir(), *path, *text, *at;
    setun_error err = {0};
    st_str isa = {0};
    int64_t bytes;
    (void)state;
    uint64_t want = hash_with(NULL, SETUN_TUNE_NEVER, &isa);
    for (int32_t i = 0; i < 3; i++)
        assert_true(hash_with(dir, SETUN_TUNE_FORCE + i, NULL) == want);
    assert_true(hash_with(dir, SETUN_TUNE_ONCE, NULL) == want);
    assert_null(choices_file(dir)); /* too small a model to be worth it, unless one insists */
    assert_true(hash_with(dir, SETUN_TUNE_AGAIN, NULL) == want);
    path = choices_file(dir);
    if (strcmp(isa.text, "eval") == 0) {
        assert_null(path);
    } else {
        assert_non_null(path);
        assert_true(hash_with(dir, SETUN_TUNE_ONCE, NULL) == want); /* remembered */
        /* A well-formed file whose choices are no candidates, and one with fewer knobs, choose nothing. */
        OK(st_file_read(path, 1 << 20, &text, &bytes, &err));
        for (at = text; (at = strstr(at, "prefetch=")); at++)
            at[9] = '7'; /* 7096, 7192: no candidates */
        forge(path, text, (size_t)bytes - 21);
        assert_true(hash_with(dir, SETUN_TUNE_ONCE, NULL) == want);
        while ((at = strstr(text, "rows=")))
            memcpy(at, "row5=", 5);
        forge(path, text, (size_t)bytes - 21);
        assert_true(hash_with(dir, SETUN_TUNE_ONCE, NULL) == want);
        free(text);
        assert_true(hash_with(NULL, SETUN_TUNE_AGAIN, NULL) == want); /* measured, and not kept */
    }
    free(path);
    st_str_free(&isa);
    drop_dir(dir);
}

/* ---------------------------------------------------------------- building together */

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
    return k_add(k, x[0], k_f32v(k, a->op->version == 2 ? 2.0f : 1.0f, K_LANES(k_type_of(k, x[0]))));
}

static setun_status lower_one(setun_kernel *k, const setun_args *a, setun_error *err)
{
    (void)err;
    return k_lower_map(k, a, one_more);
}

static const setun_port port_in[] = {{"x", "", 0, 0}}, port_out[] = {{"y", "", 0, 0}};
static const char *const cases[] = {"x:f32[3]", NULL};
#define OPERATOR(called, number)                                                                                       \
    {.size = sizeof(setun_op), .version = number, .name = called, .doc = "-", .in = port_in, .out = port_out,          \
     .n_in = 1, .n_out = 1, .infer = infer_same, .eval = add_one, .lower = lower_one, .cases = cases}
static const setun_op right = OPERATOR("right", 1), wrong = OPERATOR("wrong", 2), worse = OPERATOR("worse", 2);

static void test_first_failure(void **state)
{
    static const setun_op *const order[6] = {&right, &right, &wrong, &right, &worse, &right};
    setun_error err = {0};
    setun_options o;
    st_engine *e;
    st_pool *pool;
    (void)state;
    setun_options_init(&o);
    OK(st_engine_open(&e, &o, &err));
    OK(st_pool_new(&pool, 3, 0, &err));
    for (int turn = 0; turn < 8 && e->codegen_file; turn++) {
        st_arena *arena = st_arena_new();
        st_kernels *k;
        st_kernel *one[6];
        OK(st_kernels_new(&k, e, arena, &err));
        for (int i = 0; i < 6; i++) {
            st_case c;
            char text[32];
            (void)snprintf(text, sizeof text, "x:f32[%d]", 100 + 64 * i);
            OK(st_case_make(order[i], text, 1, arena, &c, &err));
            OK(st_kernels_ask(k, &c.shape, i == 2 ? "model.lua:7" : "elsewhere", &one[i], &err));
        }
        assert_int_equal(st_kernels_build(k, turn % 4 == 3 ? NULL : pool, &err), SETUN_FAILED);
        if (strncmp(err.text, "model.lua:7: the compiled kernel wrong-", 39) != 0)
            fail_msg("turn %d: %s", turn, err.text);
        assert_true(one[0]->code.fn && one[1]->code.fn);
        const st_kernel *again;
        assert_int_equal(st_kernels_get(k, &one[2]->shape, &again, &err), SETUN_FAILED);
        assert_non_null(strstr(err.text, "wrong-"));
        assert_null(again);
        assert_int_equal(st_kernels_get(k, &one[0]->shape, &again, &err), SETUN_OK);
        assert_ptr_equal(again, one[0]);
        st_arena_free(arena);
        st_engine_close(e); /* symbols of loaded kernels are taken: the next turn has a new engine */
        OK(st_engine_open(&e, &o, &err));
    }
    st_pool_free(pool);
    st_engine_close(e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),   cmocka_unit_test(test_damage),        cmocka_unit_test(test_writers),
        cmocka_unit_test(test_same_bits),    cmocka_unit_test(test_first_failure),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
