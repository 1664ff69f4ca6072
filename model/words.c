/* model/words.c -- word characters and white space next to a place in a text. */
#include "model/words.h"

#include <utf8proc.h>

/* Unicode Technical Standard 18, annex C: alphabetic, a mark, a decimal digit, connector punctuation, or a
 * join control.  Alphabetic symbols (circled and squared letters) have no category of their own. */
static int is_word(utf8proc_int32_t c)
{
    switch (utf8proc_category(c)) {
    case UTF8PROC_CATEGORY_LU: case UTF8PROC_CATEGORY_LL: case UTF8PROC_CATEGORY_LT: case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO: case UTF8PROC_CATEGORY_MN: case UTF8PROC_CATEGORY_MC: case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND: case UTF8PROC_CATEGORY_NL: case UTF8PROC_CATEGORY_PC:
        return 1;
    default:
        return c == 0x200c || c == 0x200d || (c >= 0x24b6 && c <= 0x24e9) || (c >= 0x1f130 && c <= 0x1f149) ||
               (c >= 0x1f150 && c <= 0x1f169) || (c >= 0x1f170 && c <= 0x1f189);
    }
}

/* White_Space. */
static int is_space(utf8proc_int32_t c)
{
    return (c >= 9 && c <= 13) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) ||
           c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

/* The character that begins at `at`, and its bytes. */
static int64_t next(const char *text, int64_t n, int64_t at, utf8proc_int32_t *c)
{
    return utf8proc_iterate((const utf8proc_uint8_t *)text + at, n - at, c);
}

static int64_t step_back(const char *text, int64_t at)
{
    do
        at--;
    while (at > 0 && ((uint8_t)text[at] & 0xc0) == 0x80);
    return at;
}

int st_word_before(const char *text, int64_t at)
{
    utf8proc_int32_t c;
    return at > 0 && next(text, at, step_back(text, at), &c) > 0 && is_word(c);
}

int st_word_after(const char *text, int64_t n, int64_t at)
{
    utf8proc_int32_t c;
    return at < n && next(text, n, at, &c) > 0 && is_word(c);
}

int64_t st_space_before(const char *text, int64_t from, int64_t at)
{
    utf8proc_int32_t c;
    for (int64_t begin; at > from; at = begin) {
        begin = step_back(text, at);
        if (next(text, at, begin, &c) <= 0 || !is_space(c))
            break;
    }
    return at;
}

int64_t st_space_after(const char *text, int64_t n, int64_t at)
{
    utf8proc_int32_t c;
    for (int64_t bytes; at < n && (bytes = next(text, n, at, &c)) > 0 && is_space(c); at += bytes)
        continue;
    return at;
}
