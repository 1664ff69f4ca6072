/* base/error.c -- fill and prefix errors.  See error.h.
 *
 * Text is made in a local buffer first, so that an error may be formatted from its own text. */
#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/str.h"

/* Formats into text[0..cap).  A sentence that was cut must not end inside a UTF-8 sequence: drop
 * the last sequence if it is incomplete. */
SETUN_PRINTF(3, 0)
static void format(char *text, size_t cap, const char *fmt, va_list ap)
{
    int want = vsnprintf(text, cap, fmt, ap);
    if (want < 0)
        text[0] = 0;
    else if ((size_t)want >= cap) {
        size_t n = strlen(text), i = n;
        while (i > 0 && n - i < 3 && ((unsigned char)text[i - 1] & 0xc0u) == 0x80u)
            i--;
        if (i > 0 && (unsigned char)text[i - 1] >= 0xc0u &&
            st_utf8_valid(text + i - 1, n - i + 1) != n - i + 1)
            text[i - 1] = 0;
    }
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
