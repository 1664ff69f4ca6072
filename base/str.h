/* base/str.h -- a growing text buffer, and checked 64-bit size arithmetic.  One thread at a time. */
#ifndef ST_STR_H
#define ST_STR_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

/* Zero-initialise; st_str_free when done.  After a failed allocation `failed` stays 1 and appends
 * do nothing, so a caller checks once at the end.  text is always NUL-terminated or NULL. */
typedef struct st_str {
    char  *text;
    size_t len, cap;
    int    failed;
} st_str;

void st_str_add(st_str *s, const char *text);
void st_str_addn(st_str *s, const void *bytes, size_t n);
void st_str_addf(st_str *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void st_str_vaddf(st_str *s, const char *fmt, va_list ap);
/* text[0..n) as a JSON string with its quotes.  What is not valid UTF-8 becomes U+FFFD, and control
 * characters are escaped, so that the result may go to a terminal. */
void st_str_add_json(st_str *s, const char *text, size_t n);
/* , "key": 1.5 -- numbers that JSON has none for become the strings "inf", "-inf" and "nan". */
void st_str_add_json_number(st_str *s, const char *key, double x);
void st_str_free(st_str *s);

/* Is text[0..n) valid UTF-8 (no overlong forms, no surrogates)?  Returns n, or the offset of the
 * first bad byte. */
size_t st_utf8_valid(const char *text, size_t n);
/* Valid UTF-8 without control characters but tabs and ends of lines: it may go to a terminal. */
int    st_text_plain(const char *text, size_t n);

/* *out = a * b or a + b; returns 0, or -1 on overflow or a negative operand. */
int st_mul_i64(int64_t a, int64_t b, int64_t *out);
int st_add_i64(int64_t a, int64_t b, int64_t *out);

/* Strict decimal: the whole text must be one number in range; returns 0 or -1. */
int st_parse_i64(const char *text, int64_t min, int64_t max, int64_t *out);
int st_parse_f64(const char *text, double *out);

#endif
