/* base/bytes.c -- numbers and strings as bytes. */
#include "base/bytes.h"

void st_put_u8(st_str *s, uint32_t x)
{
    const uint8_t byte = (uint8_t)x;
    st_str_addn(s, &byte, 1);
}

void st_put_u32(st_str *s, uint32_t x)
{
    const uint8_t le[4] = {(uint8_t)x, (uint8_t)(x >> 8), (uint8_t)(x >> 16), (uint8_t)(x >> 24)};
    st_str_addn(s, le, 4);
}

void st_put_i64(st_str *s, int64_t x)
{
    st_put_u32(s, (uint32_t)((uint64_t)x & UINT32_MAX));
    st_put_u32(s, (uint32_t)((uint64_t)x >> 32));
}

void st_put_text(st_str *s, const char *text, int64_t n)
{
    st_put_u32(s, (uint32_t)n);
    st_str_addn(s, text, (size_t)n);
}

const char *st_take_bytes(st_bytes *b, int64_t n)
{
    if (b->bad || n < 0 || n > b->end - b->at) {
        b->bad = 1;
        return NULL;
    }
    b->at += n;
    return (const char *)(b->at - n);
}

uint32_t st_take_u8(st_bytes *b)
{
    const uint8_t *p = (const uint8_t *)st_take_bytes(b, 1);
    return p ? p[0] : 0;
}

uint32_t st_take_u32(st_bytes *b)
{
    const uint8_t *p = (const uint8_t *)st_take_bytes(b, 4);
    return p ? p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24 : 0;
}

int64_t st_take_i64(st_bytes *b)
{
    uint64_t low = st_take_u32(b);
    return (int64_t)(low | (uint64_t)st_take_u32(b) << 32);
}

uint32_t st_take_up_to(st_bytes *b, uint32_t most)
{
    uint32_t x = st_take_u32(b);
    b->bad |= x > most;
    return b->bad ? 0 : x;
}

uint32_t st_take_count(st_bytes *b, uint32_t each)
{
    uint32_t n = st_take_u32(b);
    b->bad |= (int64_t)n * each > b->end - b->at;
    return b->bad ? 0 : n;
}

const char *st_take_text(st_bytes *b, int64_t *n)
{
    *n = st_take_u32(b);
    const char *text = st_take_bytes(b, *n);
    if (!text)
        *n = 0;
    return text;
}
