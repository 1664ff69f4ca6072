/* tests/unit/roofline.c -- the rules of runtime/roofline.c on made-up counters: every sentence once, and the
 * numbers in it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "runtime/roofline.h"

/* 10 GB/s and 100 GMAC/s a thread, 20 and 200 with two, 400 with four; a barrier takes 200 ns. */
static const setun_limits limits = {
    .size = sizeof limits, .n_threads = 4, .read_gb_s = 20, .int8_gmac_s = 400, .float_gmac_s = 80, .barrier_ns = 200,
    .cache_bytes = 4 << 20, .all_cache_bytes = 20 << 20, .n_at = 3,
    .at = {{1, 0, 10, 100, 20, 5}, {2, 0, 20, 200, 40, 100}, {4, 0, 20, 400, 80, 200}},
};

/* A step of 100 us on 4 threads, cut into many units, that has a kernel. */
static st_roof_work some(void)
{
    return (st_roof_work){.n_thread = 4, .has_kernel = 1, .steps = 1, .ns = 1e5, .units = 4096};
}

static void expect(const st_roof_work *w, const setun_limits *l, const char *limit, double share, const char *why)
{
    st_roof r;
    st_roof_judge(w, l, &r);
    assert_string_equal(r.limit, limit);
    assert_string_equal(r.why, why);
    if (!(r.share > share - 1e-6 && r.share < share + 1e-6))
        fail_msg("share is %.6f, not %.6f: %s", r.share, share, r.why);
}

static void test_reached(void **state)
{
    (void)state;
    st_roof_work w = some();
    w.stored = 1.92e6; /* 96 us at 20 GB/s */
    expect(&w, &limits, "memory", 0.96, "at 96 % of the read limit");
    w = some();
    w.int_ops = 3.8e7; /* 95 us at 400 GMAC/s */
    w.stored = 1e6;
    expect(&w, &limits, "int8", 0.95, "at 95 % of the int8 limit");
    w = some();
    w.float_ops = 7.6e6;
    expect(&w, &limits, "float", 0.95, "at 95 % of the float limit");
}

static void test_above(void **state)
{
    (void)state;
    st_roof_work w = some();
    w.steps = 2;
    w.stored = 4e6; /* 200 us at 20 GB/s, done in 100 */
    w.run_stored = 2e7;
    expect(&w, &limits, "memory", 2.0, "40.0 GB/s, above the read limit: all that a run reads fits into caches");
    w.run_stored = 3e7;
    expect(&w, &limits, "memory", 2.0, "40.0 GB/s, above the read limit, which must have been lower when it was measured");
    w = some();
    w.int_ops = 6e7;
    expect(&w, &limits, "int8", 1.5, "150 % of the int8 limit, counted dense: fewer operations do the same");
}

static void test_threads(void **state)
{
    (void)state;
    st_roof_work w = some();
    w.has_kernel = 0;
    w.stored = 1e5; /* 10 us at one thread's 10 GB/s */
    expect(&w, &limits, "serial", 0.1, "runs on one thread through eval, because it has no kernel");
    w = some();
    w.units = 1;
    w.stored = 5e5; /* 50 us at one thread's 10 GB/s */
    expect(&w, &limits, "serial", 0.5, "too little work for 4 threads: it is one unit");
    w.units = 2; /* two threads' limit */
    expect(&w, &limits, "memory", 0.25, "too little work for 4 threads: it is 2 units");
    w.units = 5;
    w.n_thread = 2;
    expect(&w, &limits, "memory", 0.25, "too little work for 2 threads: 5 units on 2 threads, 3:2");
    w.units = 20; /* even enough */
    w.wait_ns = 0.3 * 2 * w.ns;
    expect(&w, &limits, "memory", 0.25, "threads wait for the last of them for 30 % of the time");
    w.wait_ns = -1; /* unknown */
    expect(&w, &limits, "memory", 0.25, "far from every limit (read 25 %, int8 0 %, float 0 %); the rest is not counted: other instructions, or other programs");
    w.n_thread = 1; /* one thread waits for nobody */
    w.units = 1;
    expect(&w, &limits, "memory", 0.5, "near its limit (read 50 %, int8 0 %, float 0 %); the rest is not counted: other instructions, or other programs");
}

static void test_barriers(void **state)
{
    (void)state;
    st_roof_work w = some();
    w.steps = 10;
    w.ns = 8000; /* 800 ns a step, of which a barrier is 200 */
    expect(&w, &limits, "barrier", 0.25, "waits at barriers: 200 ns of the 800 ns of a step");
}

static void test_rest(void **state)
{
    (void)state;
    st_roof_work w = some();
    w.rows = 468;
    w.row_bytes = 5120;
    w.stored = w.rows * w.row_bytes / 2.39616; /* 1 MB: 50 us */
    expect(&w, &limits, "memory", 0.5, "gathers 468 rows of 5.1 KB, at 50 % of the read limit");
    w = some();
    w.stored = 1.2e6;  /* 60 us */
    w.int_ops = 1.4e7; /* 35 us */
    expect(&w, &limits, "memory", 0.6, "its limits add up, so they do not overlap: read 60 %, int8 35 %, float 0 %");
    w.stored = 1.7e6; /* 85 us, and 10 of arithmetic explain nothing */
    w.int_ops = 4e6;
    expect(&w, &limits, "memory", 0.85, "near its limit (read 85 %, int8 10 %, float 0 %); the rest is not counted: other instructions, or other programs");
    w.stored = 4e5;
    expect(&w, &limits, "memory", 0.2, "far from every limit (read 20 %, int8 10 %, float 0 %); the rest is not counted: other instructions, or other programs");
}

/* Temporaries are bytes of memory only if a step's do not fit into the caches. */
static void test_temporaries(void **state)
{
    (void)state;
    st_roof r;
    st_roof_work w = some();
    w.steps = 2;
    w.temp = 2 * (double)limits.cache_bytes;
    w.ns = 1e6;
    st_roof_judge(&w, &limits, &r);
    assert_true(r.bytes == 0);
    w.temp *= 2;
    st_roof_judge(&w, &limits, &r);
    assert_true(r.bytes == w.temp);
    assert_string_equal(r.limit, "memory");
}

static void test_unknown(void **state)
{
    (void)state;
    st_roof_work w = some();
    expect(&w, NULL, "unknown", 0, "the machine's limits were not measured");
    w.units = 3;
    expect(&w, NULL, "unknown", 0, "too little work for 4 threads: it is 3 units");
    w.ns = 0;
    expect(&w, &limits, "unknown", 0, "its time was not taken");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reached), cmocka_unit_test(test_above), cmocka_unit_test(test_threads),
        cmocka_unit_test(test_barriers), cmocka_unit_test(test_rest), cmocka_unit_test(test_temporaries),
        cmocka_unit_test(test_unknown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
