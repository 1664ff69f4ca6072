/* model/detok.c -- tokens' bytes become whole characters, as they come. */
#include <string.h>

#include "model/tokenizer_inside.h"

/* How many bytes does a character that begins with c have, and what may its second byte be?
 * 0 when no character begins with c. */
static int sequence(uint8_t c, uint8_t *low, uint8_t *high)
{
    *low = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : 0x80;
    *high = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : 0xbf;
    return c < 0x80 ? 1 : c < 0xc2 ? 0 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : c < 0xf5 ? 4 : 0;
}

static char *replacement(char *out)
{
    memcpy(out, "\xef\xbf\xbd", 3);
    return out + 3;
}

void st_detok_start(st_detok *d, const st_tokenizer *t)
{
    *d = (st_detok){ .drop = (uint8_t)t->strip };
}

/* held is always a proper beginning of one valid character. */
static int64_t push(st_detok *d, const char *bytes, int64_t n, char *out)
{
    char *q = out;
    if (!bytes) {
        if (d->n_held)
            q = replacement(q);
        d->n_held = 0;
        return q - out;
    }
    for (int64_t i = 0; i < n; i++) {
        uint8_t c = (uint8_t)bytes[i], low, high;
        if (d->n_held) {
            int want = sequence((uint8_t)d->held[0], &low, &high);
            if (d->n_held > 1) {
                low = 0x80;
                high = 0xbf;
            }
            if (c >= low && c <= high) {
                d->held[d->n_held++] = (char)c;
                if (d->n_held == want) {
                    memcpy(q, d->held, (size_t)want);
                    q += want;
                    d->n_held = 0;
                }
                continue;
            }
            /* The longest invalid part ends before c. */
            q = replacement(q);
            d->n_held = 0;
        }
        int want = sequence(c, &low, &high);
        if (want == 0)
            q = replacement(q);
        else if (want == 1)
            *q++ = (char)c;
        else
            d->held[d->n_held++] = (char)c;
    }
    return q - out;
}

int64_t st_detok_push(st_detok *d, const char *bytes, int64_t n, char *out)
{
    int64_t made = push(d, bytes, n, out), gone = 0;
    while (gone < made && gone < d->drop && out[gone] == ' ')
        gone++;
    if (made > 0)
        d->drop = gone == made ? (uint8_t)(d->drop - gone) : 0;
    memmove(out, out + gone, (size_t)(made - gone));
    return made - gone;
}
