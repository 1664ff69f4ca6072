/* tests/unit/gguf_files.h -- GGUF files made on the spot, by code that shares nothing with the reader. */
#ifndef ST_TESTS_GGUF_FILES_H
#define ST_TESTS_GGUF_FILES_H

#include "tests/unit/files.h"

enum { KV_U8, KV_I8, KV_U16, KV_I16, KV_U32, KV_I32, KV_F32, KV_BOOL, KV_STRING, KV_ARRAY, KV_U64, KV_I64, KV_F64 };

/* A field of the header that a test may change: where, how wide, and what it is. */
typedef struct field {
    size_t      at;
    int         bytes, in_info;
    const char *what;
} field;

typedef struct gguf_maker {
    st_str   keys, infos, data;
    uint64_t n_keys, n_tensors;
    size_t   alignment; /* 0: 32 */
    field    field[256];
    int      n_fields;
} gguf_maker;

static inline void put_le(st_str *s, uint64_t v, int bytes)
{
    for (int i = 0; i < bytes; i++) {
        uint8_t byte = (uint8_t)(v >> 8 * i);
        st_str_addn(s, &byte, 1);
    }
}

static inline void put_field(gguf_maker *m, int in_info, uint64_t v, int bytes, const char *what)
{
    st_str *s = in_info ? &m->infos : &m->keys;
    if (m->n_fields < 256)
        m->field[m->n_fields++] = (field){ s->len, bytes, in_info, what };
    put_le(s, v, bytes);
}

static inline void put_name(gguf_maker *m, int in_info, const char *name)
{
    put_field(m, in_info, strlen(name), 8, in_info ? "length of a tensor's name" : "length of a key");
    st_str_add(in_info ? &m->infos : &m->keys, name);
}

static inline void kv(gguf_maker *m, const char *key, uint32_t type, uint64_t bits, int bytes)
{
    m->n_keys++;
    put_name(m, 0, key);
    put_field(m, 0, type, 4, "type of a value");
    put_le(&m->keys, bits, bytes);
}

static inline void kv_u32(gguf_maker *m, const char *key, uint32_t v) { kv(m, key, KV_U32, v, 4); }

static inline void kv_text(gguf_maker *m, const char *key, const char *text)
{
    m->n_keys++;
    put_name(m, 0, key);
    put_field(m, 0, KV_STRING, 4, "type of a value");
    put_field(m, 0, strlen(text), 8, "length of a string");
    st_str_add(&m->keys, text);
}

/* n elements, given as they stand in the file. */
static inline void kv_array(gguf_maker *m, const char *key, uint32_t element, uint64_t n, const void *bytes, size_t n_bytes)
{
    m->n_keys++;
    put_name(m, 0, key);
    put_field(m, 0, KV_ARRAY, 4, "type of a value");
    put_field(m, 0, element, 4, "type of an array");
    put_field(m, 0, n, 8, "count of an array");
    st_str_addn(&m->keys, bytes, n_bytes);
}

static inline void pad_to(st_str *s, size_t alignment)
{
    while (s->len % alignment)
        st_str_addn(s, "", 1);
}

static inline void gguf_tensor(gguf_maker *m, const char *name, uint32_t id, int rank, const int64_t *dim, const void *bytes, size_t n)
{
    m->n_tensors++;
    pad_to(&m->data, m->alignment ? m->alignment : 32);
    put_name(m, 1, name);
    put_field(m, 1, (uint64_t)rank, 4, "rank");
    for (int i = 0; i < rank; i++)
        put_field(m, 1, (uint64_t)dim[i], 8, "dimension");
    put_field(m, 1, id, 4, "type of a tensor");
    put_field(m, 1, m->data.len, 8, "offset");
    st_str_addn(&m->data, bytes, n);
}

/* The whole file; the fields' places become places in it. */
static inline void gguf_bytes(gguf_maker *m, st_str *out)
{
    st_str_add(out, "GGUF");
    put_le(out, 3, 4);
    put_le(out, m->n_tensors, 8);
    put_le(out, m->n_keys, 8);
    for (int i = 0; i < m->n_fields; i++)
        m->field[i].at += 24 + (m->field[i].in_info ? m->keys.len : 0);
    st_str_addn(out, m->keys.text, m->keys.len);
    st_str_addn(out, m->infos.text, m->infos.len);
    size_t alignment = m->alignment ? m->alignment : 32;
    if (m->n_tensors) {
        pad_to(out, alignment);
        pad_to(&m->data, alignment);
    }
    st_str_addn(out, m->data.text, m->data.len);
    st_str_free(&m->keys);
    st_str_free(&m->infos);
    st_str_free(&m->data);
}

/* From hexadecimal; malloc'ed. */
static inline uint8_t *from_hex(const char *hex, size_t *n)
{
    *n = strlen(hex) / 2;
    uint8_t *bytes = malloc(*n);
    assert_non_null(bytes);
    for (size_t i = 0; i < *n; i++) {
        const char pair[3] = { hex[2 * i], hex[2 * i + 1], 0 };
        bytes[i] = (uint8_t)strtoul(pair, NULL, 16);
    }
    return bytes;
}

#endif
