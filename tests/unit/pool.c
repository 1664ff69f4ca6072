/* tests/unit/pool.c -- the thread pool: everyone runs once, barriers hold, more threads than cores.
 *
 * The work is done on plain memory, so that a thread sanitizer build sees any missing ordering. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <sched.h>
#include <string.h>
#include <time.h>

#include "base/pool.h"

#define MOST 9

typedef struct job {
    st_pool *pool;
    int32_t  n;
    int      rounds;
    int64_t  cell[2][MOST];
    int64_t  ran[MOST];
    int      wrong;
} job;

static void count(void *arg, int32_t w)
{
    ((job *)arg)->ran[w]++;
}

/* Each round every worker adds up what all wrote in the round before: plain reads and writes that
 * only the barrier orders. */
static void ripple(void *arg, int32_t w)
{
    job *j = arg;
    for (int r = 0; r < j->rounds; r++) {
        int64_t sum = 1;
        for (int32_t i = 0; i < j->n; i++)
            sum += j->cell[r & 1][i];
        j->cell[~r & 1][w] = sum % 1000003;
        st_pool_barrier(j->pool, w);
    }
}

static void check_size(int32_t n, int pin, int rounds)
{
    static job j;
    memset(&j, 0, sizeof j);
    assert_int_equal(st_pool_new(&j.pool, n, pin, NULL), SETUN_OK);
    assert_int_equal(st_pool_size(j.pool), n);
    for (int i = 0; i < 50; i++)
        st_pool_run(j.pool, count, &j);
    for (int32_t i = 0; i < n; i++)
        assert_int_equal(j.ran[i], 50);
    j.n = n;
    j.rounds = rounds;
    st_pool_run(j.pool, ripple, &j);
    st_pool_run(j.pool, ripple, &j);
    int64_t v = 0;
    for (int r = 0; r < 2 * rounds; r++)
        v = (n * v + 1) % 1000003;
    for (int32_t i = 0; i < n; i++)
        assert_int_equal(j.cell[0][i], v);
    st_pool_free(j.pool);
}

static void test_sizes(void **state)
{
    (void)state;
    for (int32_t n = 1; n <= 4; n++)
        check_size(n, n & 1, n <= 2 ? 2000 : 200);
}

static void test_oversubscribed(void **state)
{
    (void)state;
    check_size(MOST, 1, 100);
}

/* Parked workers wake up: sleep longer than they spin between the calls. */
static void test_parking(void **state)
{
    static job j;
    struct timespec nap = { 0, 2000000 };
    (void)state;
    memset(&j, 0, sizeof j);
    assert_int_equal(st_pool_new(&j.pool, 3, 0, NULL), SETUN_OK);
    for (int i = 0; i < 30; i++) {
        st_pool_run(j.pool, count, &j);
        nap.tv_nsec = 20000 + i * 30000; /* across the moment of parking */
        (void)nanosleep(&nap, NULL);
    }
    for (int32_t i = 0; i < 3; i++)
        assert_int_equal(j.ran[i], 30);
    st_pool_free(j.pool);
}

static void test_limits(void **state)
{
    setun_error e;
    st_pool *p = NULL;
    cpu_set_t before, after;
    (void)state;
    assert_int_equal(st_pool_new(&p, 0, 0, &e), SETUN_BAD_ARG);
    assert_null(p);
    assert_non_null(strstr(e.text, "0 threads"));
    assert_int_equal(st_pool_new(&p, 100000, 0, &e), SETUN_BAD_ARG);
    st_pool_free(NULL);
    /* The caller's thread is left as it was. */
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    assert_int_equal(st_pool_new(&p, 2, 1, &e), SETUN_OK);
    assert_int_equal(sched_getaffinity(0, sizeof after, &after), 0);
    assert_true(CPU_EQUAL(&before, &after));
    st_pool_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_oversubscribed),
        cmocka_unit_test(test_parking),
        cmocka_unit_test(test_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
