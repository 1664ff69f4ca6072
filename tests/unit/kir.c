/* tests/unit/kir.c -- the kernel builder: its errors, limits, folding, and lowering through it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "codegen/kir.h"

/* ---------------------------------------------------------------- builder */

typedef struct bench {
    st_arena    *arena;
    st_kir      *kir;
    setun_kernel *k;
    setun_error  err;
} bench;

/* f32[n,8], i8[4,16] -> f32[4,8] */
static void bench_open(bench *b)
{
    setun_view in[2] = { { NULL, SETUN_F32, 2, { SETUN_DIM_TOKENS, 8, 1, 1 } },
                         { NULL, SETUN_I8, 2, { 4, 16, 1, 1 } } };
    setun_view out[1] = { { NULL, SETUN_F32, 2, { 4, 8, 1, 1 } } };
    setun_args shape = { sizeof shape, 2, 1, 0, NULL, in, out, NULL, NULL };
    memset(b, 0, sizeof *b);
    b->arena = st_arena_new();
    assert_int_equal(st_kir_new(&b->kir, "t", &shape, NULL, b->arena, &b->err), SETUN_OK);
    b->k = &b->kir->head;
}

static void bench_close(bench *b) { st_arena_free(b->arena); }

static void expect_fault(bench *b, const char *text)
{
    if (!b->kir->failed)
        fail_msg("no failure, should be: %s", text);
    assert_string_equal(b->kir->fault.text, text);
    assert_int_equal(st_kir_verify(b->kir, &b->err), b->kir->fault.code);
    assert_string_equal(b->err.text, text);
    bench_close(b);
    bench_open(b);
}

static void test_builder_errors(void **state)
{
    (void)state;
    bench b;
    bench_open(&b);
    k_val f8 = k_f32v(b.k, 1.0f, 8), i8 = k_int(b.k, K_TYPE(K_I32, 8), 1);
    assert_int_equal(k_add(b.k, f8, i8), 0);
    /* The first one sticks, and all that follows is nothing. */
    assert_int_equal(k_f32(b.k, 1.0f), 0);
    k_store(b.k, 0, 0, 0);
    expect_fault(&b, "kernel t: instruction 3, add.f32x8(f32x8, i32x8): operand b must be f32x8");

    k_add(b.k, 0, 0);
    expect_fault(&b, "kernel t: instruction 1, add(none, none): operand a is missing");
    k_emit(b.k, K_neg, K_TYPE(K_F32, 1), 7, 0, 0, 0);
    expect_fault(
        &b, "kernel t: instruction 1, neg.f32(none): operand a is %7, which does not exist yet");
    k_emit(b.k, 999, K_TYPE(K_F32, 1), 0, 0, 0, 0);
    expect_fault(&b, "kernel t: instruction 1 has unknown number 999");
    k_f32v(b.k, 1.0f, 257);
    expect_fault(&b, "kernel t: instruction 1, const.f32x257: the result needs a type of 1 to 256 "
                     "lanes (type number 0x10106)");
    k_int(b.k, K_TYPE(K_I8, 1), 300);
    expect_fault(&b, "kernel t: instruction 1, const: 300 does not fit an element of 8 bits");
    k_arg(b.k, 3, K_F32);
    expect_fault(&b, "kernel t: instruction 1, arg.*f32: argument 3 of 3");
    k_arg(b.k, 0, K_I1);
    expect_fault(&b, "kernel t: instruction 1, arg.*i1: the result needs a type of 1 to 256 lanes "
                     "(type number 0x109)");
    k_store(b.k, k_arg(b.k, 0, K_F32), k_i64(b.k, 0), k_int(b.k, K_TYPE(K_I32, 1), 0));
    expect_fault(&b, "kernel t: instruction 4, store(*f32, i64, i32): operand c must have the "
                     "pointer's element type");
    k_load(b.k, k_arg(b.k, 0, K_F32), k_int(b.k, K_TYPE(K_I32, 1), 0), 8);
    expect_fault(&b, "kernel t: instruction 3, load.f32x8(*f32, i32): operand b must be i64");
    k_neg(b.k, k_var(b.k, k_f32(b.k, 1.0f)));
    expect_fault(
        &b, "kernel t: instruction 3, neg.f32(f32): operand a is %2, a variable; get it first");
    k_get(b.k, k_f32(b.k, 1.0f));
    expect_fault(&b,
                 "kernel t: instruction 2, get.f32(f32): operand a is %1, which is not a variable");
    k_set(b.k, k_var(b.k, k_f32(b.k, 1.0f)), k_i64(b.k, 1));
    expect_fault(&b, "kernel t: instruction 4, set(f32, i64): operand b must be f32");
    k_udiv(b.k, k_int(b.k, K_TYPE(K_I32, 2), 4), k_int(b.k, K_TYPE(K_I32, 2), 2));
    expect_fault(
        &b,
        "kernel t: instruction 3, udiv.i32x2(i32x2, i32x2): operand a must be a scalar integer");
    k_shl(b.k, k_int(b.k, K_TYPE(K_I8, 4), 1), 8);
    expect_fault(&b, "kernel t: instruction 2, shl.i8x4(i8x4): a shift by 8 of 8 bits");
    k_rsum(b.k, k_f32v(b.k, 1.0f, 7));
    expect_fault(&b, "kernel t: instruction 2, rsum.f32(f32x7): 7 lanes are not a power of two");
    k_cast(b.k, k_f32v(b.k, 1.0f, 3), K_TYPE(K_I64, 2));
    expect_fault(&b, "kernel t: instruction 2, cast.i64x2(f32x3): 96 bits cannot become 128");
    k_slice(b.k, k_f32v(b.k, 1.0f, 8), 5, 4);
    expect_fault(&b, "kernel t: instruction 2, slice.f32x4(f32x8): 4 lanes from 5 on, of 8");
    k_extract(b.k, k_f32v(b.k, 1.0f, 8), 8);
    expect_fault(&b, "kernel t: instruction 2, extract.f32(f32x8): lane 8 of 8");
    k_dot4(b.k, k_int(b.k, K_TYPE(K_I32, 4), 0), k_int(b.k, K_TYPE(K_I8, 8), 0),
           k_int(b.k, K_TYPE(K_I8, 16), 0));
    expect_fault(
        &b, "kernel t: instruction 4, dot4.i32x4(i32x4, i8x8, i8x16): operand b must be i8x16");
    k_for(b.k, k_i64(b.k, 0), k_i64(b.k, 4), 0);
    expect_fault(&b,
                 "kernel t: instruction 3, for.i64(i64, i64): the step is 0; it must be above 0");
    k_if(b.k, k_i64(b.k, 1));
    expect_fault(&b, "kernel t: instruction 2, if(i64): operand a must be i1");
    k_emit(b.k, K_opaque, 0, k_arg(b.k, 0, K_F32), 0, 0, 0);
    expect_fault(&b,
                 "kernel t: instruction 2, opaque.*f32(*f32): operand a must be i8 to i64 or f32");

    int32_t mask[2] = { 0, 16 };
    k_val v = k_f32v(b.k, 1.0f, 8);
    k_shuffle(b.k, v, v, mask, 2);
    expect_fault(&b, "kernel t: instruction 2, shuffle.f32x2(f32x8, f32x8): mask entry 1 is 16; it "
                     "picks one of 16 lanes");
    k_shuffle(b.k, v, v, mask, 0);
    expect_fault(&b, "kernel t: shuffle: a mask has 1 to 256 lanes, not 0");

    k_dim(b.k, 3, 0);
    expect_fault(&b, "kernel t: dim: argument 3 of 3");
    k_dim_run(b.k, 0, 2);
    expect_fault(&b, "kernel t: dim: dimension 2 of argument 0, which has rank 2");
    k_grid(b.k, 0, 0, 1);
    k_grid(b.k, 0, 0, 1);
    expect_fault(&b, "kernel t: its grid is set twice");
    assert_int_equal(k_info(b.k, 99), 0);
    expect_fault(&b, "kernel t: info: this Setun does not know question 99");
    (b.k->b->fail)(b.k, "rows of 7"); /* cmocka has a macro fail() */
    expect_fault(&b, "kernel t: rows of 7");
    bench_close(&b);
}

static void test_limits(void **state)
{
    (void)state;
    bench b;
    bench_open(&b);
    k_scratch(b.k, K_F32, 60 << 20);
    k_scratch(b.k, K_F32, 5 << 20);
    expect_fault(&b,
                 "kernel t: 5242880 bytes of scratch after 62914560; a kernel may have 67108864");
    b.k->b->scratch(b.k, -1);
    expect_fault(&b, "kernel t: -1 bytes of scratch after 0; a kernel may have 67108864");
    k_local(b.k, K_I8, 1 << 20);
    k_local(b.k, K_I8, 1);
    expect_fault(&b, "kernel t: instruction 2, local: 1048640 bytes of local memory are more than "
                     "the 1048576 a kernel may have");
    k_local(b.k, K_I64, INT64_MAX);
    expect_fault(&b, "kernel t: instruction 1, local.*i64: 9223372036854775807 elements; a kernel "
                     "may have 1 to 1048576 bytes of local memory");
    for (uint32_t i = 1; i < ST_MAX_INSTS; i++)
        k_f32(b.k, 1.0f);
    assert_false(b.kir->failed);
    k_f32(b.k, 1.0f);
    expect_fault(&b, "kernel t has more than 200000 instructions");

    int32_t mask[256] = { 0 };
    k_val v = k_f32(b.k, 1.0f);
    for (int i = 0; i < ST_MAX_MASK / 256; i++)
        k_shuffle(b.k, v, v, mask, 256);
    assert_false(b.kir->failed);
    k_shuffle(b.k, v, v, mask, 1);
    expect_fault(&b, "kernel t: its shuffle masks have more than 1048576 entries");

    k_val cond = k_int(b.k, K_TYPE(K_I1, 1), 1);
    k_grid(b.k, 0, 0, 1);
    for (int i = 0; i <= ST_MAX_NESTING; i++)
        k_if(b.k, cond);
    for (int i = 0; i <= ST_MAX_NESTING; i++)
        k_stop(b.k);
    assert_int_equal(st_kir_verify(b.kir, &b.err), SETUN_BAD_ARG);
    assert_string_equal(b.err.text,
                        "kernel t: instruction 66, if(i1): more than 64 blocks inside each other");
    bench_close(&b);

    /* Values that are all alive at once do not fit the interpreter's frame: a sentence, not a
     * crash. */
    bench_open(&b);
    k_grid(b.k, 0, 0, 1);
    enum { MANY = 36000 };
    k_val p = k_arg(b.k, 1, K_I8), q = k_arg(b.k, 0, K_I64), zero = k_i64(b.k, 0);
    k_val *all = calloc(MANY, sizeof *all);
    for (int i = 0; i < MANY; i++)
        all[i] = k_zext(b.k, k_load(b.k, p, zero, 256), K_I64);
    for (int i = 0; i < MANY; i++)
        k_store(b.k, q, zero, all[i]);
    assert_false(b.kir->failed);
    assert_int_equal(st_kir_verify(b.kir, &b.err), SETUN_FULL);
    assert_non_null(strstr(b.err.text, "the interpreter has 67108864"));
    free(all);
    bench_close(&b);
}

static void test_folding_and_dims(void **state)
{
    (void)state;
    bench b;
    bench_open(&b);
    setun_kernel *k = b.k;
    k_val two = k_i64(k, 2), three = k_i64(k, 3), x = k_begin(k);
    const struct { k_val v; int64_t want;
    } row[] = {
        { k_add(k, two, three), 5 },  { k_sub(k, two, three), -1 },
        { k_mul(k, two, three), 6 },  { k_min(k, two, three), 2 },
        { k_max(k, two, three), 3 },  { k_udiv(k, three, two), 1 },
        { k_urem(k, three, two), 1 }, { k_mul(k, k_i64(k, INT64_MAX), two), -2 },
        { k_dim(k, 1, 1), 16 },
    };
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        assert_int_equal(b.kir->inst[row[i].v].op, K_const);
        assert_int_equal(b.kir->inst[row[i].v].imm, row[i].want);
    }
    assert_int_equal(k_add(k, x, k_i64(k, 0)), x);
    assert_int_equal(k_add(k, k_i64(k, 0), x), x);
    assert_int_equal(k_mul(k, k_i64(k, 1), x), x);
    assert_int_equal(k_udiv(k, x, k_i64(k, 1)), x);
    /* Division by zero is not folded away: it is a fault where it happens. */
    assert_int_equal(b.kir->inst[k_udiv(k, two, k_i64(k, 0))].op, K_udiv);

    k_val n = k_dim(k, 0, 0), again = k_dim(k, 0, 0), other = k_dim_run(k, 1, 1);
    assert_int_equal(b.kir->inst[n].op, K_dim);
    assert_int_equal(b.kir->inst[n].imm, 0);
    assert_int_equal(b.kir->inst[again].imm, 0);
    assert_int_equal(b.kir->inst[other].imm, 1);
    assert_int_equal(b.kir->n_slot, 2);
    assert_int_equal(b.kir->slot[1].arg, 1);
    assert_int_equal(b.kir->slot[1].dim, 1);

    /* One spelling per constant. */
    assert_int_equal(b.kir->inst[k_int(k, K_TYPE(K_I8, 4), 200)].imm, -56);
    assert_int_equal(b.kir->inst[k_f32(k, -0.0f)].imm, 0x80000000);
    assert_int_equal(k_info(k, K_VECTOR_BYTES), 16);
    assert_int_equal(k_info(k, K_HAS_DOT4), 0);
    assert_false(b.kir->failed);
    bench_close(&b);
}

static void test_grid_units(void **state)
{
    (void)state;
    setun_view a = { NULL, SETUN_F32, 2, { 7, 100, 1, 1 } },
               z = { NULL, SETUN_F32, 2, { 0, SETUN_DIM_TOKENS, 1, 1 } };
    setun_view huge = { NULL, SETUN_F32, 1, { INT64_MAX, 1, 1, 1 } };
    const setun_view *arg[3] = { &a, &z, &huge };
    setun_grid g = { { { 0, 0 }, { 0, 1 } }, { 1, 64 } };
    assert_int_equal(st_grid_units(&g, arg), 14);
    g.at[0].arg = -1;
    assert_int_equal(st_grid_units(&g, arg), 2);
    g.at[1].arg = -1;
    assert_int_equal(st_grid_units(&g, arg), 1);
    g.at[0].arg = 1;
    assert_int_equal(st_grid_units(&g, arg), 0);
    g.at[0].dim = 1;
    assert_int_equal(st_grid_units(&g, arg), -1);
    setun_grid big = { { { 2, 0 }, { 2, 0 } }, { 1, 1 } };
    assert_int_equal(st_grid_units(&big, arg), -1);
    big.granule[0] = big.granule[1] = INT64_MAX;
    assert_int_equal(st_grid_units(&big, arg), 1);
}

/* ---------------------------------------------------------------- lowering */

static setun_status lower_good(setun_kernel *k, const setun_args *a, setun_error *err)
{
    (void)a, (void)err;
    k_grid(k, 0, 0, 1);
    k_val i = k_for(k, k_begin(k), k_end(k), 1);
    k_store(k, k_arg(k, 1, K_F32), i, k_neg(k, k_load(k, k_arg(k, 0, K_F32), i, 1)));
    k_stop(k);
    return SETUN_OK;
}
static setun_status lower_sticky(setun_kernel *k, const setun_args *a, setun_error *err)
{
    k_neg(k, 0);
    return lower_good(k, a, err);
}
static setun_status lower_open(setun_kernel *k, const setun_args *a, setun_error *err)
{
    setun_status s = lower_good(k, a, err);
    k_if(k, k_int(k, K_TYPE(K_I1, 1), 1));
    return s;
}
static setun_status lower_declines(setun_kernel *k, const setun_args *a, setun_error *err)
{
    (void)k, (void)a;
    return setun_fail(err, SETUN_DECLINED, "not for odd shapes");
}
static setun_status lower_fails(setun_kernel *k, const setun_args *a, setun_error *err)
{
    (void)k, (void)a;
    return setun_fail(err, SETUN_BAD_SHAPE, "rows of 0");
}

static void test_lower(void **state)
{
    (void)state;
    static const struct {
        setun_status (*lower)(setun_kernel *, const setun_args *, setun_error *);
        setun_status want;
        const char  *text;
    } row[] = {
        { NULL, SETUN_DECLINED, "" },
        { lower_good, SETUN_OK, "" },
        { lower_declines, SETUN_DECLINED, "not for odd shapes" },
        { lower_fails, SETUN_BAD_SHAPE, "rows of 0" },
        { lower_sticky, SETUN_BAD_ARG,
          "kernel neg: instruction 1, neg(none): operand a is missing" },
        { lower_open, SETUN_BAD_ARG, "kernel neg: instruction 11, if(i1): it has no stop" },
    };
    setun_view in = { NULL, SETUN_F32, 1, { SETUN_DIM_TOKENS, 1, 1, 1 } }, out = in;
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        setun_op op = {
            .size = sizeof op, .name = "neg", .n_in = 1, .n_out = 1, .lower = row[i].lower
        };
        setun_args shape = { sizeof shape, 1, 1, 0, &op, &in, &out, NULL, NULL };
        st_arena *arena = st_arena_new();
        setun_error err = { 0, "" };
        st_kir *k;
        assert_int_equal(st_kir_lower(&k, &shape, NULL, arena, &err), row[i].want);
        assert_string_equal(err.text, row[i].text);
        assert_true((k != NULL) == (row[i].want == SETUN_OK));
        if (k) {
            /* The hash is the text's: the same again for the same kernel, another for another
             * name. */
            uint64_t h = st_kir_hash(k);
            st_kir *twin;
            assert_int_equal(st_kir_lower(&twin, &shape, NULL, arena, &err), SETUN_OK);
            assert_true(st_kir_hash(twin) == h);
            twin->name = "neg2";
            assert_true(st_kir_hash(twin) != h);
        }
        st_arena_free(arena);
    }
    /* An allocation that fails anywhere is SETUN_NO_MEMORY. */
    setun_op op = { .size = sizeof op, .name = "neg", .n_in = 1, .n_out = 1, .lower = lower_good };
    setun_args shape = { sizeof shape, 1, 1, 0, &op, &in, &out, NULL, NULL };
    for (int n = 0, done = 0; !done; n++) {
        st_arena *arena = st_arena_new();
        setun_error err = { 0, "" };
        st_kir *k;
        st_arena_fail_after(arena, n);
        setun_status s = st_kir_lower(&k, &shape, NULL, arena, &err);
        done = s == SETUN_OK;
        if (!done)
            assert_int_equal(s, SETUN_NO_MEMORY);
        assert_true(n < 20);
        st_arena_free(arena);
    }
}

static void test_new_errors(void **state)
{
    (void)state;
    st_arena *arena = st_arena_new();
    st_kir *k;
    setun_error err;
    setun_view v[17];
    for (int i = 0; i < 17; i++)
        v[i] = (setun_view){ NULL, SETUN_F32, 1, { 4, 1, 1, 1 } };
    setun_args shape = { sizeof shape, 1, 1, 0, NULL, v, v + 1, NULL, NULL };
    assert_int_equal(st_kir_new(&k, "two words", &shape, NULL, arena, &err), SETUN_BAD_ARG);
    assert_int_equal(st_kir_new(&k, "", &shape, NULL, arena, &err), SETUN_BAD_ARG);
    v[0].dtype = 77;
    assert_int_equal(st_kir_new(&k, "t", &shape, NULL, arena, &err), SETUN_UNKNOWN);
    assert_string_equal(err.text, "kernel t: argument 0 has unknown element type 77");
    v[0].dtype = SETUN_F32;
    v[0].dim[0] = -3;
    assert_int_equal(st_kir_new(&k, "t", &shape, NULL, arena, &err), SETUN_BAD_SHAPE);
    v[0].dim[0] = 1;
    v[1].rank = 5;
    assert_int_equal(st_kir_new(&k, "t", &shape, NULL, arena, &err), SETUN_BAD_SHAPE);
    v[1].rank = 1;
    shape.n_in = 16;
    assert_int_equal(st_kir_new(&k, "t", &shape, NULL, arena, &err), SETUN_FULL);
    assert_null(k);
    st_arena_free(arena);
}

/* ---------------------------------------------------------------- damage */

/* Kernels that no text can spell, made by hand: the verifier does not trust the arrays. */
static void test_damaged_arrays(void **state)
{
    (void)state;
    for (int damage = 0; damage < 9; damage++) {
        bench b;
        bench_open(&b);
        int32_t mask[2] = { 0, 1 };
        k_grid(b.k, 0, 0, 1);
        k_val v = k_f32(b.k, 1.0f), w = k_shuffle(b.k, v, v, mask, 2), d = k_dim_run(b.k, 0, 0);
        k_val l = k_local(b.k, K_F32, 4);
        assert_int_equal(st_kir_verify(b.kir, &b.err), SETUN_OK);
        assert_non_null(b.kir->code);
        st_inst *inst = b.kir->inst;
        switch (damage) {
        case 0: inst[w].a = w; break;           /* its own operand */
        case 1: inst[w].imm = 1; break;         /* mask past the side array */
        case 2: inst[w].imm = -1; break;
        case 3: inst[d].imm = 1; break;         /* no such run-time size */
        case 4: inst[l].imm = (int64_t)1 << 40; break;
        case 5: inst[v].op = K_COUNT; break;
        case 6: b.kir->mask[1] = 9; break;
        case 7: b.kir->slot[0].dim = 4; break;
        default: b.kir->scratch_bytes = -1; break;
        }
        assert_true(st_kir_verify(b.kir, &b.err) < 0);
        assert_null(b.kir->code);
        /* What is not verified is not run. */
        setun_launch launch = { NULL, NULL, b.kir };
        setun_tile tile = { 0, 1, NULL };
        assert_int_equal(st_kir_eval(b.kir, &launch, NULL, &tile, &b.err), SETUN_BAD_ARG);
        assert_string_equal(b.err.text, "kernel t: it has not been verified");
        bench_close(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_builder_errors),   cmocka_unit_test(test_limits),
        cmocka_unit_test(test_folding_and_dims), cmocka_unit_test(test_grid_units),
        cmocka_unit_test(test_lower),            cmocka_unit_test(test_new_errors),
        cmocka_unit_test(test_damaged_arrays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
