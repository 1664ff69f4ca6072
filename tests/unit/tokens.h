/* tests/unit/tokens.h -- what the tests of tokenizers share: open, encode, decode, random text. */
#ifndef ST_TESTS_TOKENS_H
#define ST_TESTS_TOKENS_H

#include "tests/unit/files.h"

#include "model/tokenizer.h"

static inline st_tokenizer *open_model(const char *dir)
{
    st_tokenizer *t;
    setun_error err = { 0 };
    if (st_tokenizer_open(&t, dir, &err) != SETUN_OK)
        fail_msg("%s", err.text);
    return t;
}

static inline int32_t *encode(const st_tokenizer *t, const char *text, int64_t bytes, uint32_t flags,
                       int64_t *n)
{
    int32_t *ids;
    setun_error err = { 0 };
    if (st_tokenizer_encode(t, text, bytes, flags, &ids, n, &err) != SETUN_OK)
        fail_msg("%s", err.text);
    return ids;
}

/* Token by token through the streaming detokeniser, which must give whole characters each time. */
static inline void decode(const st_tokenizer *t, const int32_t *ids, int64_t n, st_str *out)
{
    st_detok d;
    char buffer[4096];
    st_detok_start(&d, t);
    for (int64_t i = 0; i <= n; i++) {
        const char *bytes = NULL;
        int64_t len = 0;
        int special;
        if (i < n)
            assert_int_equal(st_tokenizer_bytes(t, ids[i], &bytes, &len, &special, NULL), SETUN_OK);
        assert_true(4 * (len + 8) <= (int64_t)sizeof buffer);
        int64_t got = st_detok_push(&d, bytes, len, buffer);
        assert_int_equal(st_utf8_valid(buffer, (size_t)got), got);
        st_str_addn(out, buffer, (size_t)got);
    }
}

static inline void check_round(const st_tokenizer *t, const char *text, int64_t bytes, uint32_t flags)
{
    int64_t n;
    st_str back = { 0 };
    int32_t *ids = encode(t, text, bytes, flags, &n);
    decode(t, ids, n, &back);
    assert_int_equal(back.len, bytes);
    assert_true(bytes == 0 || memcmp(back.text, text, (size_t)bytes) == 0);
    st_str_free(&back);
    free(ids);
}

static inline void put_char(st_str *s, uint32_t u)
{
    char b[4];
    size_t n = 1;
    if (u < 0x80) {
        b[0] = (char)u;
    } else if (u < 0x800) {
        b[0] = (char)(0xc0 | u >> 6);
        b[1] = (char)(0x80 | (u & 63));
        n = 2;
    } else if (u < 0x10000) {
        b[0] = (char)(0xe0 | u >> 12);
        b[1] = (char)(0x80 | (u >> 6 & 63));
        b[2] = (char)(0x80 | (u & 63));
        n = 3;
    } else {
        b[0] = (char)(0xf0 | u >> 18);
        b[1] = (char)(0x80 | (u >> 12 & 63));
        b[2] = (char)(0x80 | (u >> 6 & 63));
        b[3] = (char)(0x80 | (u & 63));
        n = 4;
    }
    st_str_addn(s, b, n);
}

static inline void random_text(st_str *s, uint64_t *r, int chars)
{
    static const uint32_t base[] = { 0x20,    0x41,  0x61, 0x30, 0x0a,   0x20, 0x4e00,
                                     0x1f600, 0x300, 0xa0, 0x27, 0x180e, 0x3c };
    for (int i = 0; i < chars; i++) {
        uint32_t u = base[next_random(r) % (sizeof base / sizeof *base)] + next_random(r) % 26;
        if (next_random(r) % 8 == 0)
            u = next_random(r) % 0x110000;
        put_char(s, u >= 0xd800 && u < 0xe000 ? 0xfffd : u);
    }
}

#endif
