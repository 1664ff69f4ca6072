/* base/hash.h -- 64-bit FNV-1a (small keys, logits) and a fast checksum for large files. */
#ifndef ST_HASH_H
#define ST_HASH_H

#include <stddef.h>
#include <stdint.h>

#define ST_HASH_INIT 0xcbf29ce484222325u

static inline uint64_t st_hash(uint64_t h, const void *bytes, size_t n)
{
    const uint8_t *p = (const uint8_t *)bytes;
    for (size_t i = 0; i < n; i++)
        h = (h ^ p[i]) * 0x100000001b3u;
    return h;
}

/* The same of floats, as little-endian bytes, so that every host gives the same number for the same values; h 0: start. */
uint64_t st_hash_floats(uint64_t h, const float *values, int64_t n);

/* Checksum of large data at memory speed: four independent 64-bit lanes of multiply and rotate,
 * each byte counted, then mixed.  Detects damage; it is no defence against forgery. */
uint64_t st_checksum(const void *bytes, size_t n);

#endif
