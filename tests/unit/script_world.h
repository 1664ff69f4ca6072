/* tests/unit/script_world.h -- a Lua world for one test: registry, state, what it printed, a directory.
 *
 * Shared by script.c and script_models.c; everything is static. */
#ifndef SCRIPT_WORLD_H
#define SCRIPT_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/clock.h"
#include "base/file.h"
#include "codegen/kir.h"
#include "graph/registry.h"
#include "graph/rules.h"
#include "scripts/host.h"

#define LIB SETUN_SOURCE_DIR "/scripts"

static const st_script_limits small = { .memory_bytes = 32 << 20, .steps = 3000000 };

typedef struct world {
    st_arena    *arena;
    st_registry *r;
    st_script   *s;
    st_str       printed;
    char         dir[256];
} world;

static inline void on_print(void *user, const char *text)
{
    st_str_addf(user, "%s\n", text);
}

static inline world *world_new(const st_script_limits *limits)
{
    world *w = calloc(1, sizeof *w);
    setun_error err = { 0 };
    assert_non_null(w);
    w->arena = st_arena_new();
    assert_int_equal(st_registry_new(&w->r, &err), SETUN_OK);
    for (int i = 0; st_builtin_ops[i]; i++)
        if (st_registry_add(w->r, st_builtin_ops[i], "built-in", &err) != SETUN_OK)
            fail_msg("%s", err.text);
    if (st_script_open(&w->s, LIB, w->r, w->arena, limits, &err) != SETUN_OK)
        fail_msg("%s", err.text);
    st_script_on_print(w->s, on_print, &w->printed);
    (void)snprintf(w->dir, sizeof w->dir, "%s/script-XXXXXX", SETUN_BINARY_DIR);
    assert_non_null(mkdtemp(w->dir));
    return w;
}

static inline void world_free(world *w)
{
    char path[300];
    (void)snprintf(path, sizeof path, "%s/t.lua", w->dir);
    (void)unlink(path);
    (void)rmdir(w->dir);
    st_script_close(w->s);
    st_registry_free(w->r);
    st_arena_free(w->arena);
    st_str_free(&w->printed);
    free(w);
}

/* Write text as t.lua; returns its path. */
static inline const char *file_of(world *w, const void *text, size_t n)
{
    setun_error err = { 0 };
    st_out *o;
    char *path = st_arena_printf(w->arena, "%s/t.lua", w->dir);
    assert_non_null(path);
    assert_int_equal(st_out_open(&o, path, 0, &err), SETUN_OK);
    assert_int_equal(st_out_write(o, text, (int64_t)n, &err), SETUN_OK);
    assert_int_equal(st_out_commit(o, &err), SETUN_OK);
    return path;
}

static inline setun_status run_text(world *w, const char *text, setun_error *err)
{
    memset(err, 0, sizeof *err);
    return st_script_ops(w->s, file_of(w, text, strlen(text)), err);
}

/* text must fail with a sentence that begins with start and contains part. */
static inline void refuse(world *w, const char *text, const char *start, const char *part)
{
    setun_error err;
    if (run_text(w, text, &err) == SETUN_OK)
        fail_msg("ran, but should not: %s", text);
    if (err.code != SETUN_BAD_SCRIPT || strncmp(err.text, start, strlen(start)) != 0 || !strstr(err.text, part) ||
        strchr(err.text, '\n'))
        fail_msg("script: %.300s\n  gives: %s\n  wants: %s ... %s", text, err.text, start, part);
}

static inline void accept(world *w, const char *text)
{
    setun_error err;
    if (run_text(w, text, &err) != SETUN_OK)
        fail_msg("%s\n  gives: %s", text, err.text);
}

#endif
