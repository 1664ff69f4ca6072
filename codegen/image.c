/* codegen/image.c -- the header of images: written, and checked before any of it is believed.
 *
 * Not here: making an image from an object (image_link.c) and executing one (loader.c). */
#include "codegen/image.h"

#include <string.h>

#include "base/error.h"
#include "base/hash.h"

#define MAGIC "SETUNIMG"

static void put32(uint8_t *p, uint32_t x)
{
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(x >> 8 * i);
}

static uint32_t get32(const uint8_t *p)
{
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* Of the code and of the header's own words: an entry moved by a flipped bit is damage, too. */
static uint64_t checksum(const uint8_t *header, const uint8_t *code, uint32_t bytes)
{
    return st_checksum(header, 32) * 31 + st_checksum(code, bytes);
}

void st_image_seal(const st_image *m, uint8_t header[ST_IMAGE_HEADER])
{
    memset(header, 0, ST_IMAGE_HEADER);
    memcpy(header, MAGIC, 8);
    put32(header + 8, ST_IMAGE_VERSION);
    put32(header + 12, m->machine | (m->big ? 2u : 1u) << 16);
    put32(header + 16, m->launch_abi);
    put32(header + 20, m->entry);
    put32(header + 24, m->align);
    put32(header + 28, m->bytes);
    uint64_t sum = checksum(header, m->code, m->bytes);
    put32(header + 32, (uint32_t)sum);
    put32(header + 36, (uint32_t)(sum >> 32));
}

setun_status st_image_open(st_image *out, const void *bytes, int64_t n, setun_error *err)
{
    const uint8_t *p = bytes;
    uint8_t header[ST_IMAGE_HEADER];
    memset(out, 0, sizeof *out);
    if (n < ST_IMAGE_HEADER || memcmp(p, MAGIC, 8))
        return st_fail(err, SETUN_BAD_FILE, "the image of a kernel does not start as one");
    if (get32(p + 8) != ST_IMAGE_VERSION)
        return st_fail(err, SETUN_BAD_FILE, "the image of a kernel has version %u; %u is known", get32(p + 8),
                       ST_IMAGE_VERSION);
    st_image m = { get32(p + 12) & 0xffff, p[14] == 2, get32(p + 16), get32(p + 20), get32(p + 24), get32(p + 28),
                   p + ST_IMAGE_HEADER };
    if (n != ST_IMAGE_HEADER + (int64_t)m.bytes || m.bytes > ST_IMAGE_MOST)
        return st_fail(err, SETUN_BAD_FILE, "the image of a kernel has %lld bytes, and by its header %u of code",
                       (long long)n, m.bytes);
    if (m.entry >= m.bytes || !m.align || m.align > ST_IMAGE_ALIGN || (m.align & (m.align - 1)))
        return st_fail(err, SETUN_BAD_FILE, "the image of a kernel starts at byte %u of %u, aligned to %u", m.entry,
                       m.bytes, m.align);
    /* What was not looked at so far (zeros, the order of bytes, the checksum) is compared as a whole. */
    st_image_seal(&m, header);
    if (memcmp(header, p, ST_IMAGE_HEADER))
        return st_fail(err, SETUN_BAD_FILE, "the checksum of a kernel's image does not fit");
    *out = m;
    return SETUN_OK;
}
