/* tests/unit/cache.c -- the kernel cache: hits, misses, damage, concurrent writers, full disks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "codegen/cache.h"

/* A directory of its own for each test, in state; removed with what is in it. */
static int set_up(void **state)
{
    char *dir = strdup(SETUN_BINARY_DIR "/cache_test.XXXXXX");
    if (!dir || !mkdtemp(dir))
        return -1;
    *state = dir;
    return 0;
}

static int count_files(const char *dir, char *first, size_t room)
{
    char **names;
    int64_t n;
    setun_error err;
    if (st_dir_list(dir, &names, &n, &err) != SETUN_OK)
        return -1;
    if (n && first)
        (void)snprintf(first, room, "%s/%s", dir, names[0]);
    st_dir_free(names, n);
    return (int)n;
}

static int tear_down(void **state)
{
    char *dir = *state, path[4096];
    (void)chmod(dir, 0700);
    while (count_files(dir, path, sizeof path) > 0)
        if (unlink(path) && rmdir(path))
            return -1;
    int failed = rmdir(dir);
    free(dir);
    return failed;
}

static st_cache *open_cache(const char *dir)
{
    st_cache *c;
    setun_error err;
    if (st_cache_open(&c, dir, &err) != SETUN_OK)
        fail_msg("%s", err.text);
    return c;
}

static void put(st_cache *c, const char *key, const char *payload, int64_t n)
{
    setun_error err;
    if (st_cache_put(c, key, (int64_t)strlen(key), payload, n, &err) != SETUN_OK)
        fail_msg("%s", err.text);
}

static setun_status get(st_cache *c, const char *key, char **bytes, int64_t *n)
{
    setun_error err = { 0, "" };
    setun_status s = st_cache_get(c, key, (int64_t)strlen(key), bytes, n, &err);
    if (s != SETUN_OK) {
        assert_null(*bytes);
        assert_int_equal(*n, 0);
        assert_int_equal(err.code, s);
        assert_true(err.text[0] != 0);
    }
    return s;
}

static void expect_hit(st_cache *c, const char *key, const char *payload, int64_t n)
{
    char *bytes;
    int64_t got;
    assert_int_equal(get(c, key, &bytes, &got), SETUN_OK);
    assert_int_equal(got, n);
    assert_memory_equal(bytes, payload, (size_t)n);
    free(bytes);
}

static void expect_miss(st_cache *c, const char *key)
{
    char *bytes;
    int64_t n;
    assert_int_equal(get(c, key, &bytes, &n), SETUN_DECLINED);
}

/* A file is there, and of no use. */
static void expect_damage(st_cache *c, const char *key)
{
    char *bytes;
    int64_t n;
    assert_int_equal(get(c, key, &bytes, &n), SETUN_BAD_FILE);
}

static void test_hits_and_misses(void **state)
{
    st_cache *c = open_cache(*state);
    char zeros[100000];
    memset(zeros, 0, sizeof zeros);
    assert_string_equal(st_cache_dir(c), *state);
    expect_miss(c, "one");
    put(c, "one", "payload", 7);
    put(c, "two", "", 0);
    put(c, "", zeros, sizeof zeros);
    expect_hit(c, "one", "payload", 7);
    expect_hit(c, "two", "", 0);
    expect_hit(c, "", zeros, sizeof zeros);
    expect_miss(c, "on");
    expect_miss(c, "one ");
    put(c, "one", "other", 5); /* the last one counts */
    expect_hit(c, "one", "other", 5);
    assert_int_equal(count_files(*state, NULL, 0), 3); /* no temporary names are left */
    st_cache_close(c);

    c = open_cache(*state); /* it is on disk */
    expect_hit(c, "one", "other", 5);
    setun_error err;
    char *bytes;
    int64_t n;
    assert_int_equal(st_cache_put(c, "k", -1, "", 0, &err), SETUN_BAD_ARG);
    assert_int_equal(st_cache_put(c, "k", 1, "", -1, &err), SETUN_BAD_ARG);
    assert_int_equal(st_cache_put(c, "k", 1, "", INT64_MAX, &err), SETUN_BAD_ARG);
    assert_int_equal(st_cache_get(c, "k", -1, &bytes, &n, &err), SETUN_BAD_ARG);
    st_cache_close(c);
}

static void test_no_cache(void **state)
{
    (void)state;
    st_cache *c = open_cache(NULL);
    assert_null(st_cache_dir(c));
    put(c, "one", "payload", 7);
    expect_miss(c, "one");
    st_cache_close(c);
    st_cache_close(NULL);
}

/* Every byte flipped, every truncation, and a longer file. */
static void test_damage(void **state)
{
    st_cache *c = open_cache(*state);
    char path[4096], *whole;
    int64_t n;
    setun_error err;
    put(c, "key of it", "some code", 9);
    assert_int_equal(count_files(*state, path, sizeof path), 1);
    assert_int_equal(st_file_read(path, 4096, &whole, &n, &err), SETUN_OK);
    assert_int_equal(n, 32 + 9 + 9 + 8);
    char *work = malloc((size_t)n + 1);
    for (int64_t i = 0; i < 2 * n + 1; i++) {
        memcpy(work, whole, (size_t)n + 1);
        int64_t length = i < n ? n : i < 2 * n ? i - n : n + 1;
        if (i < n)
            work[i] = (char)(work[i] ^ (1 << (i % 8)));
        FILE *f = fopen(path, "wb");
        assert_non_null(f);
        assert_int_equal(fwrite(work, 1, (size_t)length, f), length);
        assert_int_equal(fclose(f), 0);
        expect_damage(c, "key of it");
    }
    /* And damage does not stay: writing again heals it. */
    put(c, "key of it", "some code", 9);
    expect_hit(c, "key of it", "some code", 9);

    /* A file of another key under this name, as a collision of hashes would leave it. */
    char other[4096];
    put(c, "key of us", "evil code", 9);
    for (int i = 0; i < 2; i++) {
        char **names;
        int64_t count;
        assert_int_equal(st_dir_list(*state, &names, &count, &err), SETUN_OK);
        assert_int_equal(count, 2);
        (void)snprintf(other, sizeof other, "%s/%s", (char *)*state, names[i]);
        st_dir_free(names, count);
        if (strcmp(other, path) != 0)
            break;
    }
    assert_int_equal(rename(other, path), 0);
    expect_damage(c, "key of it");

    /* Not even a file. */
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkdir(path, 0700), 0);
    expect_miss(c, "key of it");
    assert_int_equal(st_cache_put(c, "key of it", 9, "x", 1, &err), SETUN_IO);
    assert_int_equal(count_files(*state, NULL, 0), 1);
    free(work);
    free(whole);
    st_cache_close(c);
}

static void test_directory(void **state)
{
    st_cache *c;
    setun_error err;
    char path[4096];
    struct stat info;
    (void)snprintf(path, sizeof path, "%s/deep/er", (char *)*state);
    c = open_cache(path); /* made with its parents, closed to others */
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0700);
    put(c, "k", "v", 1);
    st_cache_close(c);

    assert_int_equal(chmod(path, 0750), 0);
    assert_int_equal(st_cache_open(&c, path, &err), SETUN_IO);
    assert_null(c);
    assert_non_null(strstr(err.text, "open to other users"));
    assert_int_equal(chmod(path, 0700), 0);

    char file[4200];
    assert_int_equal(count_files(path, file, sizeof file), 1);
    assert_int_equal(st_cache_open(&c, file, &err), SETUN_IO); /* a file is no directory */
    assert_int_equal(st_cache_open(&c, "", &err), SETUN_IO);
    assert_int_equal(unlink(file), 0);

    /* The directory goes away under an open cache, or cannot be written to (which root can
     * anyway). */
    c = open_cache(path);
    if (geteuid() != 0) {
        assert_int_equal(chmod(path, 0500), 0);
        assert_int_equal(st_cache_put(c, "k", 1, "v", 1, &err), SETUN_IO);
        assert_int_equal(chmod(path, 0700), 0);
    }
    assert_int_equal(rmdir(path), 0);
    assert_int_equal(st_cache_put(c, "k", 1, "v", 1, &err), SETUN_IO);
    assert_true(strstr(err.text, path) != NULL);
    expect_miss(c, "k");
    st_cache_close(c);
    (void)snprintf(path, sizeof path, "%s/deep", (char *)*state);
    assert_int_equal(rmdir(path), 0);
}

/* A child that may not write files beyond 4 KiB stands for a disk that fills up. */
static void test_full_disk(void **state)
{
    enum { BIG = 100000 };
    char *big = malloc(BIG);
    memset(big, 'x', BIG);
    st_cache *c = open_cache(*state);
    pid_t child = fork();
    if (child == 0) {
        struct rlimit limit = { 4096, 4096 };
        setun_error err = { 0, "" };
        (void)signal(SIGXFSZ, SIG_IGN);
        if (setrlimit(RLIMIT_FSIZE, &limit))
            _exit(1);
        if (st_cache_put(c, "small", 5, big, 1000, &err) != SETUN_OK)
            _exit(2);
        if (st_cache_put(c, "big", 3, big, BIG, &err) != SETUN_IO || !err.text[0])
            _exit(3);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    assert_int_equal(count_files(*state, NULL, 0), 1); /* nothing half-written remains */
    expect_hit(c, "small", big, 1000);
    expect_miss(c, "big");
    st_cache_close(c);
    free(big);
}

/* Processes write and read the same keys; a reader sees one whole entry or none. */
static void test_two_writers(void **state)
{
    enum { WRITERS = 4, ROUNDS = 60, BYTES = 20000 };
    pid_t child[WRITERS];
    for (int w = 0; w < WRITERS; w++) {
        child[w] = fork();
        if (child[w])
            continue;
        st_cache *c;
        setun_error err;
        char *mine = malloc(BYTES), *bytes;
        int64_t n;
        if (!mine || st_cache_open(&c, *state, &err) != SETUN_OK)
            _exit(1);
        memset(mine, 'a' + w, BYTES);
        for (int i = 0; i < ROUNDS; i++) {
            if (st_cache_put(c, "shared", 6, mine, BYTES - w, &err) != SETUN_OK)
                _exit(2);
            if (st_cache_get(c, "shared", 6, &bytes, &n, &err) != SETUN_OK)
                _exit(3); /* rename replaces: there is always one */
            if (n <= BYTES - WRITERS || n > BYTES)
                _exit(4);
            for (int64_t j = 0; j < n; j++)
                if (bytes[j] != 'a' + (int)(BYTES - n))
                    _exit(5);
            free(bytes);
        }
        free(mine);
        st_cache_close(c);
        _exit(0);
    }
    for (int w = 0; w < WRITERS; w++) {
        int status;
        assert_int_equal(waitpid(child[w], &status, 0), child[w]);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 0);
    }
    assert_int_equal(count_files(*state, NULL, 0), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_hits_and_misses, set_up, tear_down),
        cmocka_unit_test(test_no_cache),
        cmocka_unit_test_setup_teardown(test_damage, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_directory, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_full_disk, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_two_writers, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
