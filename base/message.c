/* base/message.c -- the rules of conversations. */
#include "base/message.h"

#include <string.h>

#include "base/error.h"

static const char *const roles[] = {"system", "user", "assistant"};

const char *st_message_role(const char *role)
{
    for (size_t i = 0; role && i < sizeof roles / sizeof roles[0]; i++)
        if (strcmp(role, roles[i]) == 0)
            return roles[i];
    return NULL;
}

setun_status st_message_check(const st_message *list, int64_t n, const char *who, setun_error *err)
{
    int64_t first = n && strcmp(list[0].role, "system") == 0;
    for (int64_t i = first; i < n; i++) {
        const char *want = (i - first) % 2 ? "assistant" : "user";
        if (strcmp(list[i].role, want))
            return st_fail(err, SETUN_BAD_ARG, "%s: message %lld is of '%s', but '%s' is next: a system message comes first, then user "
                           "and assistant take turns", who, (long long)i + 1, list[i].role, want);
    }
    return SETUN_OK;
}

/* Bytes of the white space that begins at p, at most n; 0: none does. */
static int64_t space(const char *p, int64_t n)
{
    static const char *const wide[] = {"\xc2\x85", "\xc2\xa0", "\xe1\x9a\x80", "\xe2\x80\xa8", "\xe2\x80\xa9",
                                       "\xe2\x80\xaf", "\xe2\x81\x9f", "\xe3\x80\x80"};
    uint8_t c = (uint8_t)p[0];
    if (c == ' ' || (c >= 9 && c <= 13) || (c >= 28 && c <= 31))
        return 1;
    for (size_t i = 0; i < sizeof wide / sizeof wide[0]; i++) {
        int64_t m = (int64_t)strlen(wide[i]);
        if (m <= n && memcmp(p, wide[i], (size_t)m) == 0)
            return m;
    }
    return n >= 3 && memcmp(p, "\xe2\x80", 2) == 0 && (uint8_t)p[2] >= 0x80 && (uint8_t)p[2] <= 0x8a ? 3 : 0; /* U+2000 to U+200A */
}

void st_message_trim(const char *text, int64_t *begin, int64_t *end, int left, int right)
{
    int64_t b = *begin, e = *end;
    for (int64_t m = 1; left && b < e && m; b += m)
        m = space(text + b, e - b);
    for (int64_t m = 1; right && b < e && m; e -= m) {
        m = 0;
        for (int64_t k = 1; !m && k <= 3 && k <= e - b; k++)
            m = space(text + e - k, k) == k ? k : 0;
    }
    *begin = b;
    *end = e;
}
