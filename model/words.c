/* model/words.c -- word characters and white space next to a place in a text. */
#include "model/words.h"

/* White_Space. */
static int is_space(uint32_t c)
{
    return (c >= 9 && c <= 13) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) ||
           c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

int st_word_before(const st_chars *words, const char *text, int64_t at)
{
    uint32_t c;
    return at > 0 && st_char_at(text, st_char_before(text, at), &c) > 0 && st_chars_has(words, c);
}

int st_word_after(const st_chars *words, const char *text, int64_t n, int64_t at)
{
    uint32_t c;
    return at < n && st_char_at(text, at, &c) > 0 && st_chars_has(words, c);
}

int64_t st_space_before(const char *text, int64_t from, int64_t at)
{
    uint32_t c;
    for (int64_t begin; at > from; at = begin) {
        begin = st_char_before(text, at);
        (void)st_char_at(text, begin, &c);
        if (!is_space(c))
            break;
    }
    return at;
}

int64_t st_space_after(const char *text, int64_t n, int64_t at)
{
    uint32_t c;
    for (int64_t bytes; at < n; at += bytes) {
        bytes = st_char_at(text, at, &c);
        if (!is_space(c))
            break;
    }
    return at;
}
