/* base/html.c -- see html.h. */
#include "base/html.h"

#include <string.h>

void st_html_text(st_str *out, const char *text, size_t most)
{
    size_t n = strlen(text), shown = 0;
    for (size_t i = 0; i < n; shown++) {
        size_t step = 1;
        unsigned char c = (unsigned char)text[i];
        if (shown == most) {
            st_str_add(out, "\xe2\x80\xa6");
            return;
        }
        while (step < 4 && i + step < n && ((unsigned char)text[i + step] & 0xc0) == 0x80 && c >= 0xc0)
            step++;
        int bad = !st_text_plain(text + i, step) || c < ' ' ||
                  (step == 3 && memcmp(text + i, "\xef\xbf\xbe", 2) == 0 && (unsigned char)text[i + 2] >= 0xbe); /* U+FFFE, U+FFFF */
        if (bad)
            st_str_add(out, "\xef\xbf\xbd");
        else if (strchr("<>&\"'", c))
            st_str_addf(out, "&#%d;", c);
        else
            st_str_addn(out, text + i, step);
        i += step;
    }
}
