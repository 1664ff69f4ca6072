/* model/chars.c -- sets of characters. */
#include "model/chars.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"

setun_status st_chars_add(st_chars *s, uint32_t first, uint32_t last, setun_error *err)
{
    if (s->n == s->cap) {
        int64_t cap = s->cap ? 2 * s->cap : 4;
        uint32_t *more = realloc(s->range, (size_t)cap * 2 * sizeof *more);
        if (!more)
            return st_fail(err, SETUN_NO_MEMORY, "no memory for a set of characters");
        s->range = more;
        s->cap = cap;
    }
    s->range[2 * s->n] = first;
    s->range[2 * s->n++ + 1] = last;
    for (uint32_t c = first; c <= last && c < 128; c++)
        s->ascii[c / 32] |= 1u << c % 32;
    return SETUN_OK;
}

int st_chars_has(const st_chars *s, uint32_t c)
{
    if (c < 128)
        return (int)(s->ascii[c / 32] >> c % 32 & 1);
    int64_t low = 0, high = s->n; /* the first range that does not end before c */
    while (low < high) {
        int64_t mid = (low + high) / 2;
        if (s->range[2 * mid + 1] < c)
            low = mid + 1;
        else
            high = mid;
    }
    return low < s->n && s->range[2 * low] <= c;
}

int st_chars_equal(const st_chars *a, const st_chars *b)
{
    return a->n == b->n && (a->n == 0 || memcmp(a->range, b->range, (size_t)a->n * 2 * sizeof *a->range) == 0);
}

void st_chars_free(st_chars *s)
{
    free(s->range);
    memset(s, 0, sizeof *s);
}

void st_chars_put(const st_chars *s, st_str *out)
{
    st_put_u32(out, (uint32_t)s->n);
    for (int64_t i = 0; i < 2 * s->n; i++)
        st_put_u32(out, s->range[i]);
}

setun_status st_chars_take(st_chars *s, st_bytes *in, setun_error *err)
{
    uint32_t n = st_take_count(in, 8);
    for (uint32_t i = 0; i < n && !in->bad; i++) {
        uint32_t first = st_take_u32(in), last = st_take_up_to(in, ST_CHAR_LAST);
        /* Touching ranges would be one: then equal sets are equal lists. */
        in->bad |= first > last || (i > 0 && first <= s->range[2 * i - 1] + 1);
        if (!in->bad)
            ST_TRY(st_chars_add(s, first, last, err));
    }
    return SETUN_OK;
}

int64_t st_char_put(uint32_t c, char out[4])
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    int64_t n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    static const uint8_t lead[] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (int64_t i = n - 1; i > 0; i--, c >>= 6)
        out[i] = (char)(0x80 | (c & 63));
    out[0] = (char)(lead[n] | c);
    return n;
}
