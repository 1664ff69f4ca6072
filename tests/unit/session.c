/* tests/unit/session.c -- sessions: what a call promises, what it leaves alone when it fails, what
 * sessions of one model share (nothing that changes), and that feeding allocates nothing.
 *
 * Under a sanitizer its own hooks count allocations; otherwise the allocator's functions are
 * replaced here, which the backends' shared objects then use, too. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "setun/setun.h"

#define MODEL SETUN_SOURCE_DIR "/tests/models/shakespeare"
#define N_CTX 320 /* more than two blocks of attention's 128 keys */
#define N_BATCH 48
#define N_OUTPUTS 40
#define N 300

/* ---------------------------------------------------------------- counting allocations */

static atomic_int armed, n_allocated;

static void note(void)
{
    if (atomic_load_explicit(&armed, memory_order_relaxed))
        atomic_fetch_add_explicit(&n_allocated, 1, memory_order_relaxed);
}

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#if defined(SANITIZED) || defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)

extern int __sanitizer_install_malloc_and_free_hooks(void (*allocated)(const volatile void *, size_t),
                                                     void (*freed)(const volatile void *));

static void allocated(const volatile void *p, size_t n)
{
    (void)p;
    (void)n;
    note();
}

static void freed(const volatile void *p) { (void)p; }

static void start_counting(void) { assert_true(__sanitizer_install_malloc_and_free_hooks(allocated, freed) > 0); }

#else

#define DOOR __attribute__((visibility("default")))

extern void *__libc_malloc(size_t n);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *p, size_t n);
extern void *__libc_memalign(size_t alignment, size_t n);

DOOR void *malloc(size_t n)
{
    note();
    return __libc_malloc(n);
}

DOOR void *calloc(size_t n, size_t size)
{
    note();
    return __libc_calloc(n, size);
}

DOOR void *realloc(void *p, size_t n)
{
    note();
    return __libc_realloc(p, n);
}

DOOR void *aligned_alloc(size_t alignment, size_t n)
{
    note();
    return __libc_memalign(alignment, n);
}

DOOR int posix_memalign(void **p, size_t alignment, size_t n)
{
    note();
    *p = __libc_memalign(alignment, n);
    return *p ? 0 : ENOMEM;
}

static void start_counting(void) { }

#endif

/* ---------------------------------------------------------------- models and texts */

static setun_model *load(const char *backend, int32_t n_threads, int32_t interpret)
{
    setun_options o;
    setun_model *m = NULL;
    setun_error err = {0};
    setun_options_init(&o);
    o.backend = backend;
    o.n_threads = n_threads;
    o.interpret = interpret;
    o.n_ctx = N_CTX;
    o.n_batch = N_BATCH;
    o.n_outputs = N_OUTPUTS;
    if (setun_model_load(&m, MODEL, &o, &err) != SETUN_OK)
        fail_msg("%s", err.text);
    return m;
}

/* Positions to fill: all, or where operators run as scalar C, and slowly, the first few of them. */
static int64_t enough(const setun_model *m, int64_t n)
{
    setun_model_stats stats = {.size = sizeof stats};
    setun_model_get_stats(m, &stats);
    int64_t most = strcmp(stats.isa, "eval") != 0 ? N : SLOW ? 2 * N_BATCH / 3 : 3 * N_BATCH;
    return n < most ? n : most;
}

static setun_session *session(const setun_model *m)
{
    setun_session *s = NULL;
    setun_error err = {0};
    if (setun_session_new(&s, m, &err) != SETUN_OK)
        fail_msg("%s", err.text);
    return s;
}

static void text(int32_t *token, int64_t n, uint32_t seed)
{
    for (int64_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        token[i] = (int32_t)(seed >> 22); /* the vocabulary has 1024 */
    }
}

static uint64_t feed(setun_session *s, const int32_t *token, int64_t n, int32_t want, int64_t n_vocab)
{
    const float *logits = NULL;
    setun_error err = {0};
    if (setun_session_feed(s, token, n, want, &logits, &err) != SETUN_OK)
        fail_msg("%s", err.text);
    if (want == SETUN_LOGITS_NONE) {
        assert_null(logits);
        return 0;
    }
    assert_non_null(logits);
    return setun_hash(0, logits, want == SETUN_LOGITS_ALL ? n * n_vocab : n_vocab);
}

/* ---------------------------------------------------------------- what a call promises */

static void test_chunks(void **state)
{
    int32_t token[N];
    uint64_t row[N];
    const setun_model *m = *state;
    setun_session *s = session(m);
    int64_t v = setun_model_n_vocab(m), total = enough(m, N);
    text(token, N, 7);
    for (int64_t i = 0; i < total; i++) /* token by token: every row of logits on its own */
        row[i] = feed(s, token + i, 1, SETUN_LOGITS_LAST, v);
    uint32_t dice = 1;
    for (int round = 0; round < 4; round++) {
        assert_int_equal(setun_session_rewind(s, 0, NULL), SETUN_OK);
        for (int64_t at = 0; at < total;) {
            dice = dice * 1664525u + 1013904223u;
            int32_t want = (int32_t)(dice >> 16) % 3;
            int64_t n = 1 + (int64_t)(dice >> 20) % (want == SETUN_LOGITS_ALL ? N_OUTPUTS : 3 * N_BATCH / 2);
            n = n < total - at ? n : total - at;
            const float *logits = NULL;
            assert_int_equal(setun_session_feed(s, token + at, n, want, &logits, NULL), SETUN_OK);
            at += n;
            assert_int_equal(setun_session_position(s), at);
            assert_int_equal(logits == NULL, want == SETUN_LOGITS_NONE);
            int64_t rows = want == SETUN_LOGITS_ALL ? n : want;
            for (int64_t i = 0; i < rows; i++)
                assert_true(setun_hash(0, logits + i * v, v) == row[at - rows + i]);
        }
    }
    setun_session_free(s);
}

static void test_rewind(void **state)
{
    int32_t a[N], b[N];
    setun_error err = {0};
    const setun_model *m = *state;
    setun_session *s = session(m), *fresh = session(m);
    int64_t v = setun_model_n_vocab(m), total = enough(m, 200), kept = total * 2 / 3;
    text(a, N, 1);
    text(b, N, 2);
    (void)feed(s, a, total, SETUN_LOGITS_NONE, v);
    assert_int_equal(setun_session_rewind(s, total + 1, &err), SETUN_BAD_ARG);
    assert_int_equal(setun_session_rewind(s, -1, &err), SETUN_BAD_ARG);
    assert_int_equal(setun_session_position(s), total);
    assert_int_equal(setun_session_rewind(s, kept, &err), SETUN_OK);
    assert_int_equal(setun_session_position(s), kept);
    (void)feed(fresh, a, kept, SETUN_LOGITS_NONE, v);
    assert_true(feed(s, b, total - kept, SETUN_LOGITS_LAST, v) == feed(fresh, b, total - kept, SETUN_LOGITS_LAST, v));
    setun_session_free(fresh);
    setun_session_free(s);
}

typedef struct stop {
    int64_t at, total;
    int     calls;
} stop;

static int stop_at(void *user, int64_t done, int64_t total)
{
    stop *c = user;
    c->calls++;
    c->total = total;
    return done >= c->at;
}

/* After each of these nothing has changed: the same continuation gives the same logits. */
static void test_refusals(void **state)
{
    int32_t token[N_CTX + 1], bad[3] = {1, 1024, 2};
    const float *logits = NULL;
    setun_error err = {0};
    const setun_model *m = *state;
    setun_session *s = session(m), *calm = session(m);
    int64_t v = setun_model_n_vocab(m);
    text(token, N_CTX + 1, 3);
    (void)feed(s, token, 50, SETUN_LOGITS_NONE, v);
    (void)feed(calm, token, 50, SETUN_LOGITS_NONE, v);

    assert_int_equal(setun_session_feed(s, token, N_CTX - 49, SETUN_LOGITS_LAST, &logits, &err), SETUN_FULL);
    assert_non_null(strstr(err.text, "holds 320 positions and 50 are taken"));
    assert_int_equal(setun_session_feed(s, bad, 3, SETUN_LOGITS_LAST, &logits, &err), SETUN_BAD_ARG);
    assert_non_null(strstr(err.text, "1024"));
    bad[1] = -1;
    assert_int_equal(setun_session_feed(s, bad, 3, SETUN_LOGITS_LAST, &logits, &err), SETUN_BAD_ARG);
    assert_int_equal(setun_session_feed(s, token, 0, SETUN_LOGITS_LAST, &logits, &err), SETUN_BAD_ARG);
    assert_int_equal(setun_session_feed(s, token, 1, 4, &logits, &err), SETUN_BAD_ARG);
    assert_int_equal(setun_session_feed(s, token, N_OUTPUTS + 1, SETUN_LOGITS_ALL, &logits, &err), SETUN_BAD_ARG);
    assert_non_null(strstr(err.text, "40"));

    stop c = {2 * N_BATCH, 0, 0};
    setun_session_on_progress(s, stop_at, &c);
    assert_int_equal(setun_session_feed(s, token, 5 * N_BATCH, SETUN_LOGITS_LAST, &logits, &err), SETUN_CANCELLED);
    assert_int_equal(c.calls, 3);
    assert_int_equal(c.total, 5 * N_BATCH);
    setun_session_on_progress(s, NULL, NULL);

    assert_int_equal(setun_session_position(s), 50);
    assert_true(feed(s, token + 50, 60, SETUN_LOGITS_LAST, v) == feed(calm, token + 50, 60, SETUN_LOGITS_LAST, v));
    /* To the brim, and not one more. */
    if (enough(m, N) == N) {
        (void)feed(s, token + 110, N_CTX - 110, SETUN_LOGITS_LAST, v);
        assert_int_equal(setun_session_feed(s, token, 1, SETUN_LOGITS_LAST, NULL, &err), SETUN_FULL);
    }
    setun_session_free(calm);
    setun_session_free(s);
}

/* ---------------------------------------------------------------- threads */

#define TALKERS 2
#define SESSIONS 2
#define TURNS 3

typedef struct talker {
    const setun_model *m;
    int32_t            n; /* tokens of a turn */
    uint64_t           hash[SESSIONS][TURNS];
    int                failed;
} talker;

/* Two conversations in turns, each with its own text; asserting is left to the main thread. */
static void *talk(void *arg)
{
    talker *t = arg;
    setun_session *s[SESSIONS] = {NULL};
    int64_t v = setun_model_n_vocab(t->m);
    int32_t token[TURNS * N_OUTPUTS];
    for (int i = 0; i < SESSIONS; i++)
        t->failed |= setun_session_new(&s[i], t->m, NULL) != SETUN_OK;
    for (int turn = 0; turn < TURNS && !t->failed; turn++)
        for (int i = 0; i < SESSIONS; i++) {
            const float *logits = NULL;
            text(token, TURNS * t->n, (uint32_t)i + 11);
            t->failed |= setun_session_feed(s[i], token + turn * t->n, t->n, SETUN_LOGITS_LAST, &logits, NULL) != SETUN_OK;
            if (!t->failed)
                t->hash[i][turn] = setun_hash(0, logits, v);
        }
    for (int i = 0; i < SESSIONS; i++)
        setun_session_free(s[i]);
    return NULL;
}

static void together(const char *backend, int32_t n_threads, int32_t interpret, int32_t n)
{
    pthread_t thread[TALKERS];
    talker t[TALKERS], alone;
    setun_model *m = load(backend, n_threads, interpret);
    memset(t, 0, sizeof t);
    for (int i = 0; i < TALKERS; i++) {
        t[i].m = m;
        t[i].n = n;
        assert_int_equal(pthread_create(&thread[i], NULL, talk, &t[i]), 0);
    }
    for (int i = 0; i < TALKERS; i++)
        assert_int_equal(pthread_join(thread[i], NULL), 0);
    memset(&alone, 0, sizeof alone);
    alone.m = m;
    alone.n = n;
    (void)talk(&alone);
    assert_false(alone.failed);
    for (int i = 0; i < TALKERS; i++) {
        assert_false(t[i].failed);
        assert_memory_equal(t[i].hash, alone.hash, sizeof alone.hash);
    }
    assert_true(alone.hash[0][0] != alone.hash[1][0]);
    setun_model_free(m);
}

static void test_two_threads(void **state)
{
    (void)state;
    together("cpu", 3, 0, SLOW ? 3 : N_OUTPUTS);
    together("cpu", 2, 1, 2);
    together("reference", 1, 0, SLOW ? 2 : 3);
}

typedef struct loader {
    uint64_t hash;
    int      failed;
} loader;

static void *load_and_feed(void *arg)
{
    loader *l = arg;
    setun_model *m = NULL;
    setun_session *s = NULL;
    const float *logits = NULL;
    int32_t token[5];
    text(token, 5, 4);
    l->failed = setun_model_load(&m, MODEL, NULL, NULL) != SETUN_OK || setun_session_new(&s, m, NULL) != SETUN_OK ||
                setun_session_feed(s, token, 5, SETUN_LOGITS_LAST, &logits, NULL) != SETUN_OK;
    if (!l->failed)
        l->hash = setun_hash(0, logits, setun_model_n_vocab(m));
    setun_session_free(s);
    setun_model_free(m);
    return NULL;
}

/* The first thing this program does: loading must not need an earlier load to have finished. */
static void test_two_loads(void **state)
{
    (void)state;
    pthread_t thread[2];
    loader l[2];
    memset(l, 0, sizeof l);
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, load_and_feed, &l[i]), 0);
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_join(thread[i], NULL), 0);
    assert_false(l[0].failed || l[1].failed);
    assert_true(l[0].hash && l[0].hash == l[1].hash);
}

/* ---------------------------------------------------------------- allocation */

static void count_feeds(int32_t n_threads, int32_t interpret, int64_t n)
{
    int32_t token[N];
    const float *logits = NULL;
    setun_model *m = load("cpu", n_threads, interpret);
    setun_session *s = session(m);
    setun_status status = SETUN_OK;
    text(token, N, 5);
    atomic_store(&n_allocated, 0);
    atomic_store(&armed, 1);
    static const int32_t want[] = {SETUN_LOGITS_NONE, SETUN_LOGITS_LAST, SETUN_LOGITS_ALL, SETUN_LOGITS_LAST};
    const int64_t size[] = {n, 1, n < N_OUTPUTS ? n : N_OUTPUTS, 1};
    for (int i = 0; i < 4 && status == SETUN_OK; i++) /* the very first feed included */
        status = setun_session_feed(s, token, size[i], want[i], &logits, NULL);
    if (status == SETUN_OK)
        status = setun_session_rewind(s, 0, NULL);
    atomic_store(&armed, 0);
    assert_int_equal(status, SETUN_OK);
    assert_int_equal(atomic_load(&n_allocated), 0);
    setun_session_free(s);
    setun_model_free(m);
}

static void test_no_allocation(void **state)
{
    (void)state;
    start_counting();
    /* The counter itself works, in this program and in what it loads. */
    atomic_store(&n_allocated, 0);
    atomic_store(&armed, 1);
    void *volatile p = malloc(1);
    free(p);
    int here = atomic_load(&n_allocated);
    setun_model *m = load("cpu", 1, 1);
    int after_load = atomic_load(&n_allocated);
    setun_session *s = session(m); /* makes the backend's buffers */
    atomic_store(&armed, 0);
    assert_int_equal(here, 1);
    assert_true(after_load > here);
    assert_true(atomic_load(&n_allocated) > after_load);
    setun_session_free(s);
    setun_model_free(m);

    count_feeds(1, 0, 5);
    count_feeds(3, 0, SLOW ? 5 : 2 * N_BATCH + 1);
    count_feeds(2, 1, 3);
}

static int load_shared(void **state)
{
    *state = load("cpu", 3, 0);
    return 0;
}

static int free_shared(void **state)
{
    setun_model_free(*state);
    return 0;
}

int main(void)
{
    const struct CMUnitTest alone[] = {cmocka_unit_test(test_two_loads)};
    const struct CMUnitTest sharing[] = {cmocka_unit_test(test_chunks), cmocka_unit_test(test_rewind),
                                         cmocka_unit_test(test_refusals)};
    const struct CMUnitTest loading[] = {cmocka_unit_test(test_two_threads), cmocka_unit_test(test_no_allocation)};
    return cmocka_run_group_tests(alone, NULL, NULL) + cmocka_run_group_tests(sharing, load_shared, free_shared) +
           cmocka_run_group_tests(loading, NULL, NULL);
}
