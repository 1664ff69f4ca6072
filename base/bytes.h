/* base/bytes.h -- numbers and strings as bytes, little-endian on every machine, at any address.
 *
 * A reader that meets the end, or a number that is too large, turns bad: from then on it yields zeros and NULL, so that a
 * whole record is read and checked once at its end. */
#ifndef ST_BYTES_H
#define ST_BYTES_H

#include <stdint.h>

#include "base/str.h"

void st_put_u8(st_str *s, uint32_t x);
void st_put_u32(st_str *s, uint32_t x);
void st_put_i64(st_str *s, int64_t x);
void st_put_text(st_str *s, const char *text, int64_t n); /* its length, then itself; n < 2^32 */

typedef struct st_bytes {
    const uint8_t *at, *end;
    int            bad;
} st_bytes;

uint32_t st_take_u8(st_bytes *b);
uint32_t st_take_u32(st_bytes *b);
int64_t  st_take_i64(st_bytes *b);
/* A number up to most, or bad. */
uint32_t st_take_up_to(st_bytes *b, uint32_t most);
/* A count of things of at least `each` bytes that follow, so that no more memory is asked for than the bytes can mean. */
uint32_t st_take_count(st_bytes *b, uint32_t each);
const char *st_take_bytes(st_bytes *b, int64_t n); /* points into what is read */
const char *st_take_text(st_bytes *b, int64_t *n);

#endif
