/* tests/unit/files.h -- small model files made on the spot, for the tests of model/. */
#ifndef ST_TESTS_FILES_H
#define ST_TESTS_FILES_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/str.h"
#include "model/weights.h"

/* A matrix with one scale and 8-bit activations, as two views. */
static inline setun_status ask_ternary(st_weights *w, const char *name, int across, setun_view *codes, setun_view *scale,
                                       setun_error *err)
{
    st_ternary t = { .group = 0 };
    setun_status s = st_weights_ternary(w, name, across, &t, err);
    assert_true(s != SETUN_OK || (!t.group && !t.weight_only && t.across == across));
    *codes = t.codes;
    *scale = t.scale;
    return s;
}

/* A new empty directory below the build directory. */
static inline char *temp_dir(void)
{
    char *dir = malloc(sizeof SETUN_BINARY_DIR + 32);
    assert_non_null(dir);
    (void)sprintf(dir, "%s/test-XXXXXX", SETUN_BINARY_DIR);
    assert_non_null(mkdtemp(dir));
    return dir;
}

/* "dir/name", malloc'ed. */
static inline char *join(const char *dir, const char *name)
{
    size_t n = strlen(dir) + strlen(name) + 2;
    char *path = malloc(n);
    assert_non_null(path);
    (void)snprintf(path, n, "%s/%s", dir, name);
    return path;
}

/* Removes a directory with everything in it, and frees the name. */
static inline void remove_tree(const char *dir)
{
    char **names;
    int64_t n;
    if (st_dir_list(dir, &names, &n, NULL) != SETUN_OK)
        return;
    for (int64_t i = 0; i < n; i++) {
        char *path = join(dir, names[i]);
        if (st_is_dir(path))
            remove_tree(path);
        else
            (void)unlink(path);
        free(path);
    }
    st_dir_free(names, n);
    (void)rmdir(dir);
}

static inline void drop_dir(char *dir)
{
    remove_tree(dir);
    free(dir);
}

static inline void put_file(const char *dir, const char *name, const void *bytes, size_t n)
{
    char *path = join(dir, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
    free(path);
}

static inline void put_text(const char *dir, const char *name, const char *text)
{
    put_file(dir, name, text, strlen(text));
}

/* A safetensors file in the making: header members and data. */
typedef struct maker {
    st_str json, data;
} maker;

static inline void make_tensor(maker *m, const char *name, const char *dtype, const char *shape,
                               const void *bytes, size_t n)
{
    st_str_addf(&m->json, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[%zu,%zu]}",
                m->json.len ? "," : "", name, dtype, shape, m->data.len, m->data.len + n);
    st_str_addn(&m->data, bytes, n);
}

/* The whole file: length, header, data. */
static inline void make_bytes(const maker *m, st_str *out)
{
    uint64_t n = m->json.len + 2;
    for (int i = 0; i < 8; i++) {
        uint8_t byte = (uint8_t)(n >> 8 * i);
        st_str_addn(out, &byte, 1);
    }
    st_str_addn(out, "{", 1);
    st_str_addn(out, m->json.text, m->json.len);
    st_str_addn(out, "}", 1);
    st_str_addn(out, m->data.text, m->data.len);
}

static inline void make_file(maker *m, const char *dir, const char *name)
{
    st_str s = { 0 };
    make_bytes(m, &s);
    put_file(dir, name, s.text, s.len);
    st_str_free(&s);
    st_str_free(&m->json);
    st_str_free(&m->data);
}

/* Reproducible numbers. */
static inline uint32_t next_random(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 32);
}

#endif
