/* model/chars.h -- sets of characters as lists of ranges, and walking over valid UTF-8. */
#ifndef ST_MODEL_CHARS_H
#define ST_MODEL_CHARS_H

#include <stdint.h>

#include "base/bytes.h"
#include "setun/types.h"

#define ST_CHAR_LAST 0x10ffffu

/* Ranges from first to last, both in the set, ascending, with at least one character between two of them. */
typedef struct st_chars {
    uint32_t *range; /* 2 * n numbers; malloc'ed */
    int64_t   n, cap;
    uint32_t  ascii[4]; /* a bit for each of the first 128 characters: most of what is asked about */
} st_chars;

setun_status st_chars_add(st_chars *s, uint32_t first, uint32_t last, setun_error *err); /* behind all others */
int          st_chars_has(const st_chars *s, uint32_t c);
int          st_chars_equal(const st_chars *a, const st_chars *b);
void         st_chars_free(st_chars *s);
void         st_chars_put(const st_chars *s, st_str *out);
setun_status st_chars_take(st_chars *s, st_bytes *in, setun_error *err); /* sets in->bad where it is no set */

/* The character at text[at], and how many bytes it has. */
static inline int64_t st_char_at(const char *text, int64_t at, uint32_t *c)
{
    const uint8_t *p = (const uint8_t *)text + at;
    if (p[0] < 0x80) {
        *c = p[0];
        return 1;
    }
    if (p[0] < 0xe0) {
        *c = (p[0] & 31u) << 6 | (p[1] & 63u);
        return 2;
    }
    if (p[0] < 0xf0) {
        *c = (p[0] & 15u) << 12 | (p[1] & 63u) << 6 | (p[2] & 63u);
        return 3;
    }
    *c = (p[0] & 7u) << 18 | (p[1] & 63u) << 12 | (p[2] & 63u) << 6 | (p[3] & 63u);
    return 4;
}

/* Where the character begins that ends before at; at > 0. */
static inline int64_t st_char_before(const char *text, int64_t at)
{
    do
        at--;
    while (at > 0 && ((uint8_t)text[at] & 0xc0) == 0x80);
    return at;
}

int64_t st_char_put(uint32_t c, char out[4]); /* as UTF-8; returns its bytes */

#endif
