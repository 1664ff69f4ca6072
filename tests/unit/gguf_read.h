/* tests/unit/gguf_read.h -- reading GGUF files made in memory, for the tests of model/gguf*.c. */
#ifndef ST_TESTS_GGUF_READ_H
#define ST_TESTS_GGUF_READ_H

#include "tests/unit/gguf_files.h"

#include "model/gguf_types.h"

typedef struct opened {
    st_gguf      g;
    st_arena    *arena;
    uint8_t     *copy;
    setun_error  err;
    setun_status status;
} opened;

/* Parses a copy of exactly n bytes, so that a sanitizer sees reads past the end; on success every
 * tensor must lie in it and every row must be readable or refused with a sentence. */
static inline void start(opened *o, const void *bytes, size_t n, int i2s)
{
    memset(o, 0, sizeof *o);
    o->arena = st_arena_new();
    o->copy = malloc(n ? n : 1);
    assert_non_null(o->arena);
    assert_non_null(o->copy);
    if (n)
        memcpy(o->copy, bytes, n);
    o->status = st_gguf_parse(&o->g, "test.gguf", o->copy, (int64_t)n, i2s, o->arena, &o->err);
    if (o->status != SETUN_OK) {
        assert_true(o->status < 0 && o->err.text[0] && !strpbrk(o->err.text, "\n\r\x1b"));
        return;
    }
    for (int64_t i = 0; i < o->g.n_tensors; i++) {
        const st_gguf_tensor *t = &o->g.tensor[i];
        assert_non_null(t->type);
        assert_true(t->bytes >= 0 && t->data >= o->copy && t->data + t->bytes <= o->copy + n);
    }
}

static inline void finish(opened *o)
{
    st_gguf_close(&o->g);
    st_arena_free(o->arena);
    free(o->copy);
}

static inline setun_status read_row(const opened *o, int64_t tensor, int64_t r, float *value, uint8_t *code, float *scale, setun_error *err)
{
    return st_gguf_read_row(&o->g, &o->g.tensor[tensor], r, value, code, scale, err);
}

/* Reads every row of everything that is not too long. */
static inline void read_all(const opened *o)
{
    for (int64_t i = 0; o->status == SETUN_OK && i < o->g.n_tensors; i++) {
        const st_gguf_tensor *t = &o->g.tensor[i];
        if (t->values == 0)
            continue;
        float *value = malloc((size_t)t->dim[0] * sizeof *value), *scale = malloc((size_t)(st_gguf_scales(t) + 1) * sizeof *scale);
        uint8_t *code = malloc((size_t)t->dim[0]);
        assert_true(value && scale && code);
        for (int64_t r = 0; r < st_gguf_rows(t); r++) {
            setun_error err = { 0, "" };
            if (read_row(o, i, r, value, code, scale, &err) != SETUN_OK)
                assert_true(err.text[0] != 0);
        }
        free(value);
        free(scale);
        free(code);
    }
}

static inline setun_status parse(const void *bytes, size_t n, setun_error *err)
{
    opened o;
    start(&o, bytes, n, ST_I2S_X86);
    if (o.status != SETUN_OK && strstr(o.err.text, "layout of I2_S was given")) {
        finish(&o);
        start(&o, bytes, n, ST_I2S_ASK);
    }
    read_all(&o);
    *err = o.err;
    finish(&o);
    return o.status;
}

static inline void make(gguf_maker *m, st_str *out, const char *architecture, int file_type)
{
    memset(m, 0, sizeof *m);
    memset(out, 0, sizeof *out);
    kv_text(m, "general.architecture", architecture);
    if (file_type >= 0)
        kv_u32(m, "general.file_type", (uint32_t)file_type);
}

#endif
