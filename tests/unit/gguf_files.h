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

/* The character that stands for byte i: itself if it can be seen, else the next one from U+0100 on. */
static inline size_t byte_token(uint32_t i, char text[4])
{
    uint32_t ch = 256;
    for (uint32_t b = 0; b <= i; b++) {
        int is_own = (b > 32 && b < 127) || (b > 160 && b < 256 && b != 173);
        if (b == i && is_own)
            ch = i;
        else if (b < i && !is_own)
            ch++;
    }
    text[0] = (char)(ch < 128 ? ch : 0xc0 | ch >> 6);
    text[1] = (char)(0x80 | (ch & 63));
    return ch < 128 ? 1 : 2;
}

#define N_VOCAB 258 /* 256 bytes, and two that begin and end */

/* The vocabulary of them, without merges. */
static inline void kv_tokenizer(gguf_maker *m)
{
    static const char *const ends[] = { "<begin>", "<end>" };
    st_str tokens = { 0 }, types = { 0 };
    for (uint32_t i = 0; i < N_VOCAB; i++) {
        char text[4];
        size_t n = i < 256 ? byte_token(i, text) : strlen(ends[i - 256]);
        put_le(&tokens, n, 8);
        st_str_addn(&tokens, i < 256 ? text : ends[i - 256], n);
        put_le(&types, i < 256 ? 1 : 3, 4);
    }
    kv_text(m, "tokenizer.ggml.model", "gpt2");
    kv_text(m, "tokenizer.ggml.pre", "llama-bpe");
    kv_array(m, "tokenizer.ggml.tokens", KV_STRING, N_VOCAB, tokens.text, tokens.len);
    kv_array(m, "tokenizer.ggml.token_type", KV_I32, N_VOCAB, types.text, types.len);
    kv_array(m, "tokenizer.ggml.merges", KV_STRING, 0, "", 0);
    st_str_free(&tokens);
    st_str_free(&types);
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
