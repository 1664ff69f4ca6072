/* base/str.c -- growing text, UTF-8 validity, checked arithmetic, strict numbers.  See str.h. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* newlocale, strtod_l */
#endif
#include "base/str.h"

#include <errno.h>
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int reserve(st_str *s, size_t more)
{
    if (s->failed || more >= SIZE_MAX / 2 - s->len) {
        s->failed = 1;
        return 0;
    }
    if (s->len + more + 1 > s->cap) {
        size_t cap = s->cap ? s->cap : 64;
        while (cap < s->len + more + 1)
            cap *= 2;
        char *text = realloc(s->text, cap);
        if (!text) {
            s->failed = 1;
            return 0;
        }
        s->text = text;
        s->cap = cap;
    }
    return 1;
}

void st_str_addn(st_str *s, const void *bytes, size_t n)
{
    if (!reserve(s, n))
        return;
    if (n)
        memcpy(s->text + s->len, bytes, n);
    s->len += n;
    s->text[s->len] = 0;
}

void st_str_add(st_str *s, const char *text)
{
    st_str_addn(s, text, strlen(text));
}

void st_str_vaddf(st_str *s, const char *fmt, va_list ap)
{
    va_list again;
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, again);
    va_end(again);
    if (n < 0) {
        s->failed = 1;
        return;
    }
    if (!reserve(s, (size_t)n))
        return;
    (void)vsnprintf(s->text + s->len, (size_t)n + 1, fmt, ap);
    s->len += (size_t)n;
}

void st_str_addf(st_str *s, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    st_str_vaddf(s, fmt, ap);
    va_end(ap);
}

void st_str_add_json(st_str *s, const char *text, size_t n)
{
    st_str_add(s, "\"");
    for (size_t i = 0; i < n;) {
        size_t good = i + st_utf8_valid(text + i, n - i);
        for (; i < good; i++) {
            unsigned char c = (unsigned char)text[i], after = i + 1 < good ? (unsigned char)text[i + 1] : 0xff;
            if (c == '"' || c == '\\')
                st_str_addf(s, "\\%c", c);
            else if (c < 0x20 || c == 0x7f)
                st_str_addf(s, "\\u%04x", c);
            else if (c == 0xc2 && after < 0xa0) /* U+0080 to U+009F are control characters, too */
                st_str_addf(s, "\\u%04x", text[++i] & 0xff);
            else
                st_str_addn(s, &c, 1);
        }
        if (i < n) {
            st_str_add(s, "\\ufffd");
            i++;
        }
    }
    st_str_add(s, "\"");
}

void st_str_add_json_number(st_str *s, const char *key, double x)
{
    if (isfinite(x))
        st_str_addf(s, ", \"%s\": %.9g", key, x);
    else
        st_str_addf(s, ", \"%s\": \"%s\"", key, isnan(x) ? "nan" : x < 0 ? "-inf" : "inf");
}

void st_str_free(st_str *s)
{
    free(s->text);
    memset(s, 0, sizeof *s);
}

/* Well-formed sequences are those of Unicode table 3-7: the second byte's range depends on the
 * first (e0 and f0 would be overlong, ed a surrogate, f4 above 10ffff), later ones are 80..bf. */
size_t st_utf8_valid(const char *text, size_t n)
{
    const unsigned char *p = (const unsigned char *)text;
    size_t i = 0;
    while (i < n) {
        unsigned char c = p[i], low = 0x80, high = 0xbf;
        size_t more;
        if (c < 0x80) {
            i++;
            continue;
        }
        if (c >= 0xc2 && c <= 0xdf)
            more = 1;
        else if (c >= 0xe0 && c <= 0xef)
            more = 2;
        else if (c >= 0xf0 && c <= 0xf4)
            more = 3;
        else
            return i;
        if (c == 0xe0)
            low = 0xa0;
        else if (c == 0xed)
            high = 0x9f;
        else if (c == 0xf0)
            low = 0x90;
        else if (c == 0xf4)
            high = 0x8f;
        if (more >= n - i || p[i + 1] < low || p[i + 1] > high)
            return i;
        for (size_t j = 2; j <= more; j++)
            if ((p[i + j] & 0xc0) != 0x80)
                return i;
        i += more + 1;
    }
    return n;
}

int st_text_plain(const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)text[i];
        if ((c < 0x20 && c != '\t' && c != '\n' && c != '\r') || c == 0x7f)
            return 0;
        if (c == 0xc2 && i + 1 < n && (unsigned char)text[i + 1] < 0xa0) /* U+0080 to U+009F */
            return 0;
    }
    return st_utf8_valid(text, n) == n;
}

int st_mul_i64(int64_t a, int64_t b, int64_t *out)
{
    int64_t r;
    if (a < 0 || b < 0 || __builtin_mul_overflow(a, b, &r))
        return -1;
    *out = r;
    return 0;
}

int st_add_i64(int64_t a, int64_t b, int64_t *out)
{
    int64_t r;
    if (a < 0 || b < 0 || __builtin_add_overflow(a, b, &r))
        return -1;
    *out = r;
    return 0;
}

int st_parse_i64(const char *text, int64_t min, int64_t max, int64_t *out)
{
    const char *p = text;
    int minus = *p == '-';
    int64_t v = 0;
    if (*p == '-' || *p == '+')
        p++;
    if (!*p)
        return -1;
    for (; *p; p++) {
        if (*p < '0' || *p > '9')
            return -1;
        int digit = *p - '0';
        if (__builtin_mul_overflow(v, 10, &v) ||
            __builtin_add_overflow(v, minus ? -digit : digit, &v))
            return -1;
    }
    if (v < min || v > max)
        return -1;
    *out = v;
    return 0;
}

static const char *digits(const char *p)
{
    while (*p >= '0' && *p <= '9')
        p++;
    return p;
}

int st_parse_f64(const char *text, double *out)
{
    /* The grammar is checked here, because strtod also takes blanks, hexadecimal, inf and nan. */
    const char *p = text, *q;
    if (*p == '-' || *p == '+')
        p++;
    q = digits(p);
    int64_t mantissa = q - p;
    if (*q == '.') {
        p = q + 1;
        q = digits(p);
        mantissa += q - p;
    }
    if (!mantissa)
        return -1;
    if (*q == 'e' || *q == 'E') {
        p = q + 1;
        if (*p == '-' || *p == '+')
            p++;
        q = digits(p);
        if (q == p)
            return -1;
    }
    if (*q)
        return -1;
    /* The embedding program may have set a locale with a decimal comma. */
    locale_t c = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    if (!c)
        return -1;
    double v = strtod_l(text, NULL, c);
    freelocale(c);
    if (!isfinite(v))
        return -1;
    *out = v;
    return 0;
}
