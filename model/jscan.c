/* model/jscan.c -- see jscan.h. */
#include "model/jscan.h"

#include <string.h>

#include "model/chars.h"

static int fail(st_jscan *j)
{
    j->bad = 1;
    j->p = j->end;
    return 0;
}

char st_jscan_peek(st_jscan *j)
{
    while (j->p < j->end && (*j->p == ' ' || *j->p == '\n' || *j->p == '\r' || *j->p == '\t'))
        j->p++;
    return j->p < j->end ? *j->p : '\0';
}

int st_jscan_take(st_jscan *j, char c)
{
    if (st_jscan_peek(j) != c || j->p == j->end)
        return fail(j);
    j->p++;
    return 1;
}

/* Four hex digits after \u. */
static int hex4(st_jscan *j, uint32_t *v)
{
    *v = 0;
    if (j->end - j->p < 4)
        return 0;
    for (int i = 0; i < 4; i++) {
        char c = *j->p++;
        int d = c >= '0' && c <= '9'   ? c - '0'
                : c >= 'a' && c <= 'f' ? c - 'a' + 10
                : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                       : -1;
        if (d < 0)
            return 0;
        *v = *v << 4 | (uint32_t)d;
    }
    return 1;
}

/* One escape after the backslash; NULL when it is wrong.  Never longer than what it is written as. */
static char *escape(st_jscan *j, char *q)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    if (j->p == j->end)
        return NULL;
    char c = *j->p++;
    const char *at = c ? strchr(from, c) : NULL;
    if (at) {
        *q++ = to[at - from];
        return q;
    }
    uint32_t u, low;
    if (c != 'u' || !hex4(j, &u) || u == 0 || (u >= 0xdc00 && u < 0xe000))
        return NULL;
    if (u >= 0xd800 && u < 0xdc00) {
        if (j->end - j->p < 2 || j->p[0] != '\\' || j->p[1] != 'u')
            return NULL;
        j->p += 2;
        if (!hex4(j, &low) || low < 0xdc00 || low >= 0xe000)
            return NULL;
        u = 0x10000 + ((u - 0xd800) << 10) + (low - 0xdc00);
    }
    return q + st_char_put(u, q);
}

int st_jscan_string(st_jscan *j, const char **s, size_t *n)
{
    if (!st_jscan_take(j, '"'))
        return 0;
    const char *start = j->p;
    while (j->p < j->end && *j->p != '"' && *j->p != '\\' && (unsigned char)*j->p >= 0x20)
        j->p++;
    if (j->p < j->end && *j->p == '"') {
        *s = start;
        *n = (size_t)(j->p++ - start);
        return 1;
    }
    char *q = j->scratch;
    memcpy(q, start, (size_t)(j->p - start));
    q += j->p - start;
    while (j->p < j->end && *j->p != '"') {
        char c = *j->p++;
        if ((unsigned char)c < 0x20)
            return fail(j);
        if (c != '\\')
            *q++ = c;
        else if (!(q = escape(j, q)))
            return fail(j);
    }
    if (j->p == j->end)
        return fail(j);
    j->p++;
    *s = j->scratch;
    *n = (size_t)(q - j->scratch);
    return 1;
}

int st_jscan_whole(st_jscan *j, int64_t max, int64_t *v)
{
    char c = st_jscan_peek(j);
    int64_t n = 0;
    if (c < '0' || c > '9' || (c == '0' && j->end - j->p > 1 && j->p[1] >= '0' && j->p[1] <= '9'))
        return fail(j);
    for (; j->p < j->end && *j->p >= '0' && *j->p <= '9'; j->p++) {
        if (n > (max - (*j->p - '0')) / 10)
            return fail(j);
        n = 10 * n + (*j->p - '0');
    }
    /* 1.5 and 1e3 are numbers, but not whole ones as written. */
    if (j->p < j->end && (*j->p == '.' || *j->p == 'e' || *j->p == 'E'))
        return fail(j);
    *v = n;
    return 1;
}

int st_jscan_skip(st_jscan *j, int depth)
{
    const char *s;
    size_t n;
    char open = st_jscan_peek(j);
    if (depth < 0)
        return fail(j);
    if (open == '"')
        return st_jscan_string(j, &s, &n);
    if (open != '{' && open != '[') {
        const char *start = j->p;
        while (j->p < j->end && !strchr(",]} \n\r\t:\"{[", *j->p))
            j->p++;
        return j->p > start ? 1 : fail(j);
    }
    char close = open == '{' ? '}' : ']';
    j->p++;
    if (st_jscan_peek(j) == close)
        return st_jscan_take(j, close);
    for (;;) {
        if (open == '{' && (!st_jscan_string(j, &s, &n) || !st_jscan_take(j, ':')))
            return 0;
        if (!st_jscan_skip(j, depth - 1))
            return 0;
        if (st_jscan_peek(j) != ',')
            return st_jscan_take(j, close);
        j->p++;
    }
}
