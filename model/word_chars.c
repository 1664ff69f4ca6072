/* model/word_chars.c -- which characters are of words. */
#include <utf8proc.h>

#include "base/error.h"
#include "model/words.h"

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

setun_status st_word_chars(st_chars *words, setun_error *err)
{
    for (uint32_t c = 0, first; c <= ST_CHAR_LAST; c++) {
        if (!is_word((utf8proc_int32_t)c))
            continue;
        for (first = c; c < ST_CHAR_LAST && is_word((utf8proc_int32_t)c + 1); c++)
            continue;
        ST_TRY(st_chars_add(words, first, c, err));
    }
    return SETUN_OK;
}
