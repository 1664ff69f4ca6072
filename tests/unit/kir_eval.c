/* tests/unit/kir_eval.c -- every kernel instruction against a scalar definition of its own.
 *
 * The definitions here do not share code with the interpreter: floats are computed in double and
 * rounded once more (harmless for + - * / and the root: 53 >= 2 * 24 + 2), integers in 64-bit
 * arithmetic cut to width, binary16 through ldexp. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>

#include "setun/numerics.h"
#include "tests/unit/kir_samples.h"

#define ROWS 23

static uint64_t get(const void *data, k_type t, int64_t i)
{
    switch (sample_elem_bytes(t)) {
    case 1: return ((const uint8_t *)data)[i] & (K_ELEM(t) == K_I1 ? 1 : 255);
    case 2: return ((const uint16_t *)data)[i];
    case 4: return ((const uint32_t *)data)[i];
    default: return ((const uint64_t *)data)[i];
    }
}

static void put(void *data, k_type t, int64_t i, uint64_t x)
{
    sample_put(data, sample_elem_bytes(t), i, K_ELEM(t) == K_I1 ? x & 1 : x);
}

static int64_t sign_extend(uint64_t x, uint32_t bits)
{
    if (bits < 64 && (x >> (bits - 1) & 1))
        return (int64_t)(x | ~(((uint64_t)1 << bits) - 1));
    return (int64_t)x;
}

static float as_float(uint64_t x) { return setun_bits_f32((uint32_t)x); }
static uint64_t float_bits(double x) { return setun_f32_bits((float)x); }

/* Value of a binary16, by its definition. */
static double half_value(uint32_t h)
{
    int e = (int)(h >> 10 & 31), m = (int)(h & 1023);
    double v = e == 31 ? (m ? (double)NAN : (double)INFINITY)
               : e     ? ldexp(1024 + m, e - 25)
                       : ldexp(m, -24);
    return h & 0x8000 ? -v : v;
}

/* The nearest binary16, found by search: halves without sign are ordered like their numbers. */
static uint32_t half_nearest(float f)
{
    uint32_t sign = setun_f32_bits(f) >> 16 & 0x8000u;
    double a = fabs((double)f);
    if (f != f)
        return sign | 0x7e00;
    uint32_t lo = 0,
             hi = 0x7c00; /* hi stands for 65536, one step above the largest, and means infinity */
    while (hi - lo > 1) {
        uint32_t mid = (lo + hi) / 2;
        if (half_value(mid) <= a)
            lo = mid;
        else
            hi = mid;
    }
    double below = half_value(lo), above = hi == 0x7c00 ? 65536.0 : half_value(hi);
    if (a - below > above - a || (a - below == above - a && (lo & 1)))
        lo = hi;
    return sign | lo;
}

static uint64_t float_binary(uint32_t op, uint64_t x, uint64_t y)
{
    float a = as_float(x), b = as_float(y);
    switch (op) {
    case K_add: return float_bits((double)a + (double)b);
    case K_sub: return float_bits((double)a - (double)b);
    case K_mul: return float_bits((double)a * (double)b);
    case K_div: return float_bits((double)a / (double)b);
    case K_min: case K_max:
        if (isnan(a) || isnan(b) || a == b)
            return y;
        return (a < b) == (op == K_min) ? x : y;
    case K_eq: return !isnan(a) && !isnan(b) && a == b;
    case K_lt: return !isnan(a) && !isnan(b) && a < b;
    default: return !isnan(a) && !isnan(b) && a <= b;
    }
}

static uint64_t int_binary(uint32_t op, uint64_t x, uint64_t y, uint32_t bits)
{
    int64_t a = sign_extend(x, bits), b = sign_extend(y, bits);
    switch (op) {
    case K_add: return x + y;
    case K_sub: return x - y;
    case K_mul: return x * y;
    case K_min: return a < b ? x : y;
    case K_max: return a > b ? x : y;
    case K_and: return x & y;
    case K_or: return x | y;
    case K_xor: return x ^ y;
    case K_udiv: return x / y;
    case K_urem: return x % y;
    case K_eq: return x == y;
    case K_lt: return a < b;
    default: return a <= b;
    }
}

static int64_t clamp(int64_t x, int64_t lo, int64_t hi) { return x < lo ? lo : x > hi ? hi : x; }

/* rsum and rmax, by recursion on halves that are built, not folded in place. */
static uint64_t tree(uint32_t op, k_type t, const uint64_t *x, uint32_t n)
{
    uint64_t half[K_MAX_LANES / 2];
    uint32_t bits = st_ktype_bits(K_ELEM(t)), word = op == K_rsum ? K_add : K_max;
    uint64_t all = bits == 64 ? UINT64_MAX : ((uint64_t)1 << bits) - 1;
    if (n == 1)
        return x[0];
    for (uint32_t i = 0; i < n / 2; i++)
        half[i] = K_ELEM(t) == K_F32 ? float_binary(word, x[i], x[i + n / 2])
                                     : int_binary(word, x[i], x[i + n / 2], bits) & all;
    return tree(op, t, half, n / 2);
}

static uint64_t convert(uint32_t op, uint64_t x, k_type from)
{
    float f = as_float(x);
    switch (op) {
    case K_sext: return (uint64_t)sign_extend(x, st_ktype_bits(from));
    case K_i2f: return float_bits((double)sign_extend(x, 32));
    case K_f2i:
        return isnan(f)
                   ? 0
                   : (uint64_t)(int64_t)fmin(fmax(trunc((double)f), -2147483648.0), 2147483647.0);
    case K_h2f:
        if ((x & 0x7fff) > 0x7c00)
            return 0x7fc00000 | (x & 0x8000) << 16;
        return float_bits(half_value((uint32_t)x));
    case K_f2h: return half_nearest(f);
    case K_sqrt: return float_bits(sqrt((double)f));
    case K_rint: return isnan(f) ? x : float_bits(copysign(nearbyint((double)f), (double)f));
    case K_abs: return x & 0x7fffffff;
    case K_neg: return x ^ 0x80000000;
    default: return x; /* zext, trunc: put cuts to width */
    }
}

static uint64_t shift(const sample *s, uint64_t x)
{
    uint32_t bits = st_ktype_bits(K_ELEM(s->out));
    if (s->op == K_shl)
        return x << s->imm;
    if (s->op == K_shru)
        return x >> s->imm;
    int64_t v = sign_extend(x, bits); /* floor division by a power of two */
    for (int64_t i = 0; i < s->imm; i++)
        v = (v - (v & 1)) / 2;
    return (uint64_t)v;
}

/* Lane j of row r of the sample's result. */
static uint64_t lane(const sample *s, void *const in[3], int64_t r, uint32_t j)
{
    k_type ta = s->in[0], tb = s->in[1];
    uint32_t na = K_LANES(ta), nb = K_LANES(tb), bits = st_ktype_bits(K_ELEM(ta));
    int64_t ra = r * na, rb = r * nb, sum = 0;
    uint64_t all[K_MAX_LANES];
    uint64_t a = s->n_in > 0 && j < na ? get(in[0], ta, s->op == K_gather ? 0 : ra + j) : 0;
    uint64_t b = s->n_in > 1 && j < nb ? get(in[1], tb, rb + j) : 0;
    int64_t sa = sign_extend(a, bits ? bits : 64);
    switch (s->op) {
    case K_const: return (uint64_t)s->imm;
    case K_iota: return (uint64_t)s->imm + j;
    case K_gather: return get(in[0], ta, (int64_t)b);
    case K_select: return a ? b : get(in[2], s->in[2], rb + j);
    case K_shl: case K_shru: case K_shrs: return shift(s, a);
    case K_splat: return get(in[0], ta, ra);
    case K_extract: case K_slice: return get(in[0], ta, ra + s->imm + j);
    case K_concat: return j < na ? a : get(in[1], tb, rb + j - na);
    case K_shuffle: {
        uint32_t m = (uint32_t)sample_mask(j, na);
        return m < na ? get(in[0], ta, ra + m) : get(in[1], tb, rb + m - na);
    }
    case K_rsum: case K_rmax:
        for (uint32_t i = 0; i < na; i++)
            all[i] = get(in[0], ta, ra + i);
        return tree(s->op, ta, all, na);
    case K_dot2:
        for (uint32_t i = 2 * j; i < 2 * j + 2; i++)
            sum += (int64_t)get(in[0], ta, ra + i) * sign_extend(get(in[1], tb, rb + i), 8);
        return (uint64_t)clamp(sum, -32768, 32767);
    case K_dot4:
        for (uint32_t i = 4 * j; i < 4 * j + 4; i++)
            sum += (int64_t)get(in[1], tb, rb + i) * sign_extend(get(in[2], tb, rb + i), 8);
        return a + (uint64_t)sum;
    case K_lut16: return get(in[0], ta, ra + (int64_t)(b % na));
    case K_sign: return b == 0 ? 0 : b >= 128 ? 256 - a : a;
    case K_local: case K_scratch: return get(in[0], ta, ra + na - 1 - j); /* stored backwards */
    case K_dim: return a + (uint64_t)sample_elements(s, 0, ROWS);
    case K_for: return a * 1 + a * 3 + a * 5;
    case K_if: return (uint64_t)(sa < 0 ? -sa : sa + 1 + (sa % 2 == 0));
    case K_begin: return j ? 1 : (uint64_t)r;
    case K_add: case K_sub: case K_mul: case K_min: case K_max: case K_eq: case K_lt:
    case K_le: case K_div:
    case K_and: case K_or: case K_xor: case K_udiv: case K_urem:
        return K_ELEM(ta) == K_F32 ? float_binary(s->op, a, b) : int_binary(s->op, a, b, bits);
    case K_cast: { /* through bytes, little end first */
        uint32_t n = sample_elem_bytes(s->out), m = sample_elem_bytes(ta);
        uint64_t x = 0;
        for (uint32_t i = 0, at = j * n; i < n; i++, at++)
            x |= (get(in[0], ta, ra + at / m) >> 8 * (at % m) & 255) << 8 * i;
        return x;
    }
    case K_sext: case K_zext: case K_trunc: case K_i2f: case K_f2i: case K_h2f: case K_f2h:
    case K_sqrt: case K_rint: case K_abs: case K_neg:
        return convert(s->op, a, ta);
    case K_opaque: case K_var: case K_prefetch:
        return a;
    default:
        fail_msg("no definition of %s in this test", st_kir_op_name(s->op));
        return 0;
    }
}

/* ---------------------------------------------------------------- the samples */

static void run_sample(const sample *s, uint64_t seed)
{
    st_arena *arena = st_arena_new();
    st_kir *k;
    setun_error err;
    void *arg[4] = { NULL, NULL, NULL, NULL }, *again;
    int64_t bytes[4] = { 0, 0, 0, 0 };
    if (sample_build(s, ROWS, NULL, arena, &k, &err) != SETUN_OK)
        fail_msg("%s", err.text);
    for (uint32_t o = 0; o <= s->n_in; o++) {
        bytes[o] = sample_bytes(s, o, ROWS);
        arg[o] = calloc(1, (size_t)bytes[o]);
        if (o < s->n_in)
            sample_data(s, o, ROWS, seed, arg[o]);
    }
    int64_t dim[1] = { sample_elements(s, 0, ROWS) };
    int64_t *scratch = aligned_alloc(64, (size_t)(st_kir_run_scratch(k) + 63) / 64 * 64);
    setun_launch l = { arg, dim, k };
    setun_tile t = { 0, ROWS, NULL };
    if (st_kir_eval(k, &l, bytes, &t, &err) != SETUN_OK)
        fail_msg("%s", err.text);

    void *want = calloc(1, (size_t)bytes[s->n_in]);
    void *const in[3] = { arg[0], arg[1], arg[2] };
    uint32_t n = K_LANES(s->out);
    for (int64_t r = 0; r < ROWS; r++)
        for (uint32_t j = 0; j < n; j++)
            put(want, s->out, r * n + j, lane(s, in, r, j));
    if (!sample_same(s, ROWS, arg[s->n_in], want)) {
        st_str text = { 0 };
        st_kir_print(k, &text);
        for (int64_t i = 0; i < ROWS * n; i++) {
            uint64_t x = get(arg[s->n_in], s->out, i), y = get(want, s->out, i);
            if (x != y)
                fail_msg("row %d lane %d is 0x%llx, should be 0x%llx\n%s", (int)(i / n),
                         (int)(i % n), (unsigned long long)x, (unsigned long long)y, text.text);
        }
    }

    /* The launch form, in two tiles with scratch that is given, makes the same bytes. */
    again = arg[s->n_in];
    arg[s->n_in] = calloc(1, (size_t)bytes[s->n_in]);
    setun_tile first = { 0, 9, scratch }, second = { 9, ROWS, scratch };
    st_kir_run(&l, &second);
    st_kir_run(&l, &first);
    assert_memory_equal(arg[s->n_in], again, (size_t)bytes[s->n_in]);
    free(again);
    free(want);
    free(scratch);
    for (uint32_t o = 0; o <= s->n_in; o++)
        free(arg[o]);
    st_arena_free(arena);
}

static void test_samples(void **state)
{
    (void)state;
    sample *list = calloc(SAMPLE_MAX, sizeof *list);
    int n = sample_list(list), seen[K_COUNT] = { 0 };
    assert_true(n > 900 && n < SAMPLE_MAX);
    for (int i = 0; i < n; i++) {
        seen[list[i].op] = 1;
        for (uint64_t seed = 1; seed <= 3; seed++)
            run_sample(&list[i], seed);
    }
    /* Whatever is not a sample of its own is part of every sample or of one of the small
     * programs. */
    static const uint32_t within[] = {
        K_arg, K_end, K_load, K_store, K_get, K_set, K_else, K_stop
    };
    for (size_t i = 0; i < sizeof within / sizeof within[0]; i++)
        seen[within[i]] = 1;
    for (uint32_t op = 1; op < K_tile_zero; op++) /* tiles have their own test, tiles.c */
        if (!seen[op])
            fail_msg("no sample of %s", st_kir_op_name(op));
    free(list);
}

/* Run a lanewise sample over an array: count elements, a multiple of the lanes. */
static void apply(uint32_t op, k_type in, k_type out, int64_t count, void *x, void *y)
{
    sample s = { op, 1, { in, 0, 0 }, out, 0 };
    int64_t rows = count / K_LANES(out);
    st_arena *arena = st_arena_new();
    st_kir *k;
    setun_error err;
    if (sample_build(&s, rows, NULL, arena, &k, &err) != SETUN_OK)
        fail_msg("%s", err.text);
    void *arg[2] = { x, y };
    int64_t bytes[2] = { sample_bytes(&s, 0, rows), sample_bytes(&s, 1, rows) };
    setun_launch l = { arg, NULL, k };
    setun_tile t = { 0, rows, NULL };
    if (st_kir_eval(k, &l, bytes, &t, &err) != SETUN_OK)
        fail_msg("%s", err.text);
    st_arena_free(arena);
}

static void test_all_halves(void **state)
{
    (void)state;
    static uint16_t h[65536], back[65536];
    static float f[65536], mid[65536 * 4];
    static uint16_t rounded[65536 * 4];
    for (uint32_t i = 0; i < 65536; i++)
        h[i] = (uint16_t)i;
    apply(K_h2f, K_TYPE(K_I16, 16), K_TYPE(K_F32, 16), 65536, h, f);
    apply(K_f2h, K_TYPE(K_F32, 32), K_TYPE(K_I16, 32), 65536, f, back);
    for (uint32_t i = 0; i < 65536; i++) {
        int nan = (i & 0x7fff) > 0x7c00;
        assert_int_equal(setun_f32_bits(f[i]), convert(K_h2f, i, K_TYPE(K_I16, 1)));
        assert_int_equal(back[i], nan ? (i & 0x8000) | 0x7e00 : i);
    }
    /* Between each half and the next: the middle, which is a binary32, and its neighbours. */
    for (uint32_t i = 0; i < 65536; i++) {
        double next =
            (i & 0x7fff) == 0x7bff ? (i & 0x8000 ? -65536.0 : 65536.0) : half_value(i + 1);
        float m = (i & 0x7fff) >= 0x7c00 ? f[i] : (float)((half_value(i) + next) / 2);
        mid[4 * i] = m;
        mid[4 * i + 1] = setun_bits_f32(setun_f32_bits(m) + 1);
        mid[4 * i + 2] = setun_bits_f32(setun_f32_bits(m) - 1);
        mid[4 * i + 3] = -m;
    }
    apply(K_f2h, K_TYPE(K_F32, 16), K_TYPE(K_I16, 16), 65536 * 4, mid, rounded);
    for (uint32_t i = 0; i < 65536 * 4; i++)
        if (rounded[i] != half_nearest(mid[i]))
            fail_msg("f2h of 0x%08x is 0x%04x, should be 0x%04x", setun_f32_bits(mid[i]),
                     rounded[i], half_nearest(mid[i]));
    assert_int_equal(rounded[4 * 0x7bff], 0x7c00); /* 65520 is a tie, and infinity is even */
    assert_int_equal(rounded[4 * 0x7bff + 2], 0x7bff);
}

/* ---------------------------------------------------------------- corners, spelled out */

/* One instruction on literal operands: text of the kernel's body, one i64 out per row of
 * results. */
static void run_text(const char *text, void *x, int64_t x_bytes, void *y, int64_t y_bytes,
                     const char *fault)
{
    st_arena *arena = st_arena_new();
    st_kir *k;
    setun_error err = { 0, "" };
    if (st_kir_parse(text, "test", NULL, arena, &k, &err) != SETUN_OK ||
        st_kir_verify(k, &err) != SETUN_OK)
        fail_msg("%s", err.text);
    k->max_steps = 100000;
    void *arg[2] = { x, y };
    int64_t bytes[2] = { x_bytes, y_bytes }, dim[1] = { 3 };
    setun_launch l = { arg, dim, k };
    setun_tile t = { 0, 1, NULL };
    setun_status s = st_kir_eval(k, &l, bytes, &t, &err);
    if (fault) {
        if (s != SETUN_FAILED)
            fail_msg("no fault: %s", fault);
        assert_string_equal(err.text, fault);
    } else if (s != SETUN_OK) {
        fail_msg("%s", err.text);
    }
    st_arena_free(arena);
}

#define HEAD "kernel t\n in i64[4]\n out i64[4]\n grid 0.0/4\n scratch 64\n{\n" \
             " %1 = arg.i64 0\n %2 = arg.i64 1\n" \
             " %3 = const.i64 0\n"

static void test_faults(void **state)
{
    (void)state;
    int64_t x[4] = { 4, 0, 1, 0x100000000 }, y[4] = { 0, 0, 0, 0 };
    run_text(
        HEAD "%4 = const.i64 1\n%5 = load.i64x4 %1 %4\n}", x, 32, y, 32,
        "kernel t: instruction 5, load: 4 elements from 1 on are outside argument 0, which has 4");
    run_text(
        HEAD "%4 = const.i64 -1\n%5 = load.i64 %1 %4\n}", x, 32, y, 32,
        "kernel t: instruction 5, load: 1 elements from -1 on are outside argument 0, which has 4");
    run_text(
        HEAD "%4 = const.i64x2 1\n%5 = load.i64 %1 %3\nstore %2 %5 %4\n}", x, 32, y, 32,
        "kernel t: instruction 6, store: 2 elements from 4 on are outside argument 1, which has 4");
    run_text(HEAD "%4 = const.i64 9223372036854775807\n%5 = load.i64x4 %1 %4\n}", x, 32, y, 32,
             "kernel t: instruction 5, load: 4 elements from 9223372036854775807 on are outside "
             "argument 0, which has 4");
    run_text(HEAD "%4 = const.i32x2 4\n%5 = gather.i64x2 %1 %4\n}", x, 32, y, 32,
             "kernel t: instruction 5, gather: 1 elements from 4 on are outside argument 0, which "
             "has 4");
    run_text(HEAD "%4 = const.i32x2 -1\n%5 = gather.i64x2 %1 %4\n}", x, 32, y, 32,
             "kernel t: instruction 5, gather: 1 elements from -1 on are outside argument 0, which "
             "has 4");
    run_text(HEAD "%4 = local.i16 5\n%5 = const.i64 5\n%6 = load.i16 %4 %5\n}", x, 32, y,
             32, /* not 32, the rounded size */
             "kernel t: instruction 6, load: 1 elements from 5 on are outside the local memory of "
             "%4, which has 5");
    run_text(HEAD "%4 = scratch.i32 32\n%5 = const.i64 7\n%6 = load.i32x2 %4 %5\n}", x, 32, y, 32,
             "kernel t: instruction 6, load: 2 elements from 7 on are outside the scratch memory "
             "of %4, which has 8");
    run_text(HEAD "%4 = udiv.i64 %3 %3\n}", x, 32, y, 32,
             "kernel t: instruction 4, udiv: division by zero");
    run_text(HEAD "%4 = urem.i64 %3 %3\n}", x, 32, y, 32,
             "kernel t: instruction 4, urem: division by zero");
    run_text(HEAD "%4 = const.i64 9223372036854775807\n%5 = for %3 %4 step 1 {\n}\n}", x, 32, y, 32,
             "kernel t: instruction 6, stop: stopped after 100000 steps; does the loop end?");
    run_text(HEAD "%4 = const.i64 9223372036854775800\n%6 = const.i64 9223372036854775807\n"
             "%5 = for %4 %6 step 100 {\n}\n}", x, 32, y, 32,
             "kernel t: instruction 7, stop: the loop's index overflows");
    run_text(HEAD "}", (char *)x + 1, 31, y, 32,
             "kernel t: instruction 1, arg: argument 0 is not aligned to its elements");
    run_text(HEAD "%4 = const.i64 123456789\nprefetch %1 %4 3\n}", x, 32, y, 32, NULL);
}

/* Memory that starts undefined is not zero, and a variable of a loop body starts anew each time. */
static void test_state(void **state)
{
    (void)state;
    int64_t x[4] = { 4, 0, 0, 0 }, y[4] = { 1, 1, 1, 1 };
    run_text(HEAD "%4 = local.i64 4\n%5 = load.i64 %4 %3\nstore %2 %3 %5\n"
                  "%6 = scratch.i64 0\n%7 = const.i64 1\n%8 = load.i64 %6 %7\nstore %2 %7 %8\n}",
             x, 32, y, 32, NULL);
    assert_int_equal(y[0], (int64_t)0xa5a5a5a5a5a5a5a5u);
    assert_int_equal(y[1], (int64_t)0xa5a5a5a5a5a5a5a5u);
    /* Sum over i < 4 of (i, doubled i times), with values from outside used in the innermost
     * block. */
    run_text(HEAD "%4 = load.i64 %1 %3\n%5 = const.i64 1\n%6 = var.i64 %3\n"
                  "%7 = for %3 %4 step 1 {\n"
                  "  %8 = var.i64 %7\n"
                  "  %9 = for %3 %7 step 1 {\n"
                  "    %10 = get.i64 %8\n %11 = add.i64 %10 %10\n set %8 %11\n"
                  "    %20 = eq.i1 %9 %5\n if %20 {\n %21 = get.i64 %8\n %22 = add.i64 %21 %5\n "
                  "set %8 %22\n }\n"
                  "  }\n"
                  "  %12 = get.i64 %8\n %13 = get.i64 %6\n %14 = add.i64 %12 %13\n set %6 %14\n"
                  "}\n"
                  "%15 = get.i64 %6\nstore %2 %3 %15\n"
                  "%16 = for %4 %3 step 1 {\n store %2 %5 %16\n }\n}",
             x, 32, y, 32, NULL);
    /* 0 + 1*2 + (2*2*2 + 1) + ((3*2*2 + 1) * 2) = 0 + 2 + 9 + 26 */
    assert_int_equal(y[0], 37);
    assert_int_equal(y[1], (int64_t)0xa5a5a5a5a5a5a5a5u); /* a loop from 4 to 0 does not run */

    /* 10 is used in the inner loop only, but by every turn of the outer one: what comes after the
     * inner loop may not take its place in the frame. */
    run_text(HEAD "%4 = load.i64 %1 %3\n%5 = const.i64 10\n%6 = var.i64 %3\n%7 = const.i64 2\n"
             "%8 = for %3 %4 step 1 {\n"
             "  %9 = for %3 %7 step 1 {\n"
             "    %10 = get.i64 %6\n %11 = add.i64 %10 %5\n set %6 %11\n"
             "  }\n"
             "  %12 = const.i64 91\n %13 = const.i64 92\n %14 = const.i64 93\n %15 = const.i64 94\n"
             "  %16 = const.i64 95\n %17 = const.i64 96\n %18 = add.i64 %12 %13\n"
             "  %19 = add.i64 %14 %15\n %20 = add.i64 %16 %17\n %21 = add.i64 %18 %19\n"
             "}\n"
             "%22 = get.i64 %6\nstore %2 %3 %22\n}", x, 32, y, 32, NULL);
    assert_int_equal(y[0], 4 * 2 * 10);
}

static void test_corners(void **state)
{
    (void)state;
    static const struct {
        const char *body;
        uint64_t    want;
    } row[] = {
        { "%4 = const.i8x2 -1\n%5 = const.i8x2 127\n%6 = dot2.i16 %4 %5\n%9 = sext.i64 %6", 32767 },
        { "%4 = const.i8x2 255\n%5 = const.i8x2 -128\n%6 = dot2.i16 %4 %5\n%9 = sext.i64 %6",
          (uint64_t)-32768 },
        { "%4 = const.i8 -128\n%5 = const.i8 -1\n%6 = sign.i8 %4 %5\n%9 = sext.i64 %6",
          (uint64_t)-128 },
        { "%4 = const.i32 2147483647\n%5 = const.i8x4 255\n%6 = const.i8x4 127\n%7 = dot4.i32 %4 "
          "%5 %6\n"
          "%9 = zext.i64 %7",
          0x7fffffffu + 4u * 255 * 127 },
        { "%4 = const.f32 0x4f000000\n%6 = f2i.i32 %4\n%9 = sext.i64 %6", 2147483647 },
        { "%4 = const.f32 0xff800000\n%6 = f2i.i32 %4\n%9 = sext.i64 %6", (uint64_t)-2147483648 },
        { "%4 = const.f32 0xffc00001\n%6 = f2i.i32 %4\n%9 = sext.i64 %6", 0 },
        { "%4 = const.f32 0x80000000\n%5 = const.f32 0x00000000\n%6 = min.f32 %4 %5\n%7 = cast.i32 "
          "%6\n"
          "%9 = zext.i64 %7",
          0 },
        { "%4 = const.f32 0x00000000\n%5 = const.f32 0x80000000\n%6 = max.f32 %4 %5\n%7 = cast.i32 "
          "%6\n"
          "%9 = zext.i64 %7",
          0x80000000u },
        { "%4 = const.f32 0x7f800001\n%5 = const.f32 0x3f800000\n%6 = max.f32 %5 %4\n%7 = cast.i32 "
          "%6\n"
          "%9 = zext.i64 %7",
          0x7f800001u }, /* a signalling NaN in b passes as it is */
        { "%4 = const.f32 0x00000001\n%5 = const.f32 0x3f000000\n%6 = mul.f32 %4 %5\n%7 = cast.i32 "
          "%6\n"
          "%9 = zext.i64 %7",
          0 }, /* half of the smallest denormal: a tie, to even */
        { "%4 = const.f32 0x00000003\n%5 = const.f32 0x3f000000\n%6 = mul.f32 %4 %5\n%7 = cast.i32 "
          "%6\n"
          "%9 = zext.i64 %7",
          2 },
        { "%4 = const.f32 0xbf000000\n%6 = rint.f32 %4\n%7 = cast.i32 %6\n%9 = zext.i64 %7",
          0x80000000u },
        { "%4 = const.i16x2 258\n%5 = cast.i8x4 %4\n%6 = extract.i8 %5 0\n%9 = zext.i64 %6", 2 },
        { "%4 = const.i64 -9223372036854775808\n%5 = shrs.i64 %4 63\n%9 = add.i64 %5 %3",
          UINT64_MAX },
        { "%4 = const.i8 -128\n%5 = const.i8 -1\n%6 = udiv.i8 %5 %4\n%9 = zext.i64 %6", 1 },
        { "%4 = const.i1 1\n%9 = sext.i64 %4", UINT64_MAX },
    };
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        char text[1024];
        int64_t x[4] = { 0, 0, 0, 0 }, y[4] = { 7, 7, 7, 7 };
        (void)snprintf(text, sizeof text, "%s%s\nstore %%2 %%3 %%9\n}", HEAD, row[i].body);
        run_text(text, x, 32, y, 32, NULL);
        if ((uint64_t)y[0] != row[i].want)
            fail_msg("%s\ngives 0x%llx, should be 0x%llx", row[i].body, (unsigned long long)y[0],
                     (unsigned long long)row[i].want);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_samples),
        cmocka_unit_test(test_all_halves),
        cmocka_unit_test(test_faults),
        cmocka_unit_test(test_state),
        cmocka_unit_test(test_corners),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
