/* base/error.c -- fill and prefix errors.  See error.h.
 *
 * Text is made in a local buffer first, so that an error may be formatted from its own text. */
#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/str.h"

#define LONGEST 12288 /* two paths of the longest kind, and some words */

/* Does a UTF-8 character go on here? */
static int inside(char c) { return ((unsigned char)c & 0xc0u) == 0x80u; }

/* Names come from files and may hold anything: what would break the line, talk to the terminal
 * (U+0080 to U+009F do, as c2 80 to c2 9f) or is not UTF-8 is replaced, byte by byte. */
static void clean(char *text, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        size_t good = i + st_utf8_valid(text + i, n - i);
        for (; i < good; i++) {
            if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
                text[i] = strchr("\n\r\t", text[i]) ? ' ' : '?';
            else if ((unsigned char)text[i] == 0xc2 && (unsigned char)text[i + 1] < 0xa0)
                text[i] = text[i + 1] = '?';
        }
        if (i < n)
            text[i] = '?';
    }
}

/* Formats into text[0..cap).  A sentence that is too long loses its middle, which is where
 * a long name is, and keeps its end, which says what is wrong; no UTF-8 character is cut in two. */
SETUN_PRINTF(3, 0)
static void format(char *text, size_t cap, const char *fmt, va_list ap)
{
    char all[LONGEST];
    if (vsnprintf(all, sizeof all, fmt, ap) < 0)
        all[0] = 0;
    size_t n = strlen(all);
    clean(all, n);
    if (n < cap) {
        memcpy(text, all, n + 1);
        return;
    }
    size_t head = cap / 2, tail;
    for (int i = 0; i < 3 && inside(all[head]); i++)
        head--;
    tail = n - (cap - 1 - head - 3);
    for (int i = 0; i < 3 && inside(all[tail]); i++)
        tail++;
    memcpy(text, all, head);
    memcpy(text + head, "...", 3);
    memcpy(text + head + 3, all + tail, n - tail + 1);
}

setun_status st_fail(setun_error *err, setun_status code, const char *fmt, ...)
{
    if (err) {
        char text[sizeof err->text];
        va_list ap;
        va_start(ap, fmt);
        format(text, sizeof text, fmt, ap);
        va_end(ap);
        err->code = code;
        memcpy(err->text, text, strlen(text) + 1);
    }
    return code;
}

void st_wrap(setun_error *err, const char *fmt, ...)
{
    if (!err)
        return;
    char text[2 * sizeof err->text], *end;
    va_list ap;
    va_start(ap, fmt);
    format(text, sizeof err->text, fmt, ap);
    va_end(ap);
    end = text + strlen(text);
    err->text[sizeof err->text - 1] = 0; /* a plugin may have filled it to the brim */
    (void)snprintf(end, sizeof text - (size_t)(end - text), ": %s", err->text);
    (void)st_fail(err, err->code, "%s", text);
}

const char *st_status_name(setun_status s)
{
    switch (s) {
    case SETUN_OK: return "ok";
    case SETUN_DECLINED: return "declined";
    case SETUN_FAILED: return "failed";
    case SETUN_NO_MEMORY: return "no memory";
    case SETUN_BAD_ARG: return "bad argument";
    case SETUN_BAD_FILE: return "bad file";
    case SETUN_BAD_SHAPE: return "bad shape";
    case SETUN_UNKNOWN: return "unknown";
    case SETUN_FULL: return "full";
    case SETUN_BAD_SCRIPT: return "bad script";
    case SETUN_IO: return "input/output error";
    case SETUN_CANCELLED: return "cancelled";
    default: return "unnamed status";
    }
}
