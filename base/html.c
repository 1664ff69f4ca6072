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

void st_html_begin(st_str *out, const char *title, const char *style)
{
    st_str_add(out, "<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"/>\n"
                    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\"/>\n"
                    "<meta name=\"viewport\" content=\"width=device-width\"/>\n<title>");
    st_html_text(out, title, 200);
    st_str_addf(out, "</title>\n<style>\n"
                     "body{font:14px sans-serif;margin:2em;color:#222;background:#fff}h1{font-size:22px;overflow-wrap:anywhere}\n"
                     "h2{font-size:16px;margin:1.5em 0 .3em}svg{display:block;max-width:100%%;height:auto}svg text{font:12px monospace;fill:#222}\n"
                     "%s</style></head>\n<body>\n<h1>", style);
    st_html_text(out, title, 200);
    st_str_add(out, "</h1>\n");
}

void st_html_drawing(st_str *out, const char *title, int width, int height)
{
    st_str_addf(out, "<svg width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\" role=\"img\"><title>%s</title>\n",
                width, height, width, height, title);
}
