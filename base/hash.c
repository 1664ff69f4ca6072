/* base/hash.c -- the fast checksum.  See hash.h.
 *
 * Word w (8 bytes, little-endian) goes to lane w mod 4: lane = rotl(lane ^ word, 27) * odd.
 * Each step is a bijection of the lane for a given word and of the word for a given lane, so a
 * change within one word always changes its lane.  Four lanes hide the latency of the multiply. */
#include "base/hash.h"

#include <string.h>

#define ODD1 0x9e3779b97f4a7c15u /* 2^64 / golden ratio, odd */
#define ODD2 0xd6e8feb86659fd93u

static uint64_t load(const uint8_t *p)
{
    uint64_t w;
    memcpy(&w, p, 8);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    w = __builtin_bswap64(w);
#endif
    return w;
}

static uint64_t rotl(uint64_t v, unsigned n)
{
    return v << n | v >> (64 - n);
}

static uint64_t step(uint64_t lane, uint64_t word)
{
    return rotl(lane ^ word, 27) * ODD1;
}

uint64_t st_checksum(const void *bytes, size_t n)
{
    const uint8_t *p = (const uint8_t *)bytes;
    uint64_t a = ODD1, b = ODD2, c = ~ODD1, d = ~ODD2, lane[4];
    size_t i = 0;
    for (; n - i >= 32; i += 32) {
        a = step(a, load(p + i));
        b = step(b, load(p + i + 8));
        c = step(c, load(p + i + 16));
        d = step(d, load(p + i + 24));
    }
    lane[0] = a;
    lane[1] = b;
    lane[2] = c;
    lane[3] = d;
    for (int k = 0; i < n; k++, i += 8) { /* up to 31 bytes, the last word padded with zeros */
        uint8_t word[8] = { 0 };
        memcpy(word, p + i, n - i < 8 ? n - i : 8);
        lane[k] = step(lane[k], load(word));
        if (n - i < 8)
            break;
    }
    uint64_t h = (uint64_t)n * ODD2; /* tells the padding from zeros in the data */
    for (int k = 0; k < 4; k++) {
        h = (h ^ lane[k] ^ lane[k] >> 31) * ODD1;
        h ^= h >> 29;
    }
    h *= ODD2;
    return h ^ h >> 32;
}

uint64_t st_hash_floats(uint64_t h, const float *values, int64_t n)
{
    if (!h)
        h = ST_HASH_INIT;
    for (int64_t i = 0; i < n; i++) {
        uint32_t u;
        memcpy(&u, &values[i], sizeof u);
        const uint8_t b[4] = { (uint8_t)u, (uint8_t)(u >> 8), (uint8_t)(u >> 16), (uint8_t)(u >> 24) };
        h = st_hash(h, b, sizeof b);
    }
    return h;
}
