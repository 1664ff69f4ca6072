/* codegen/cache.c -- images of kernels, and other small things that can be made again, on disk.
 *
 * One file per key, written whole and never changed:
 *
 *     bytes  0..7    "SETUNOBJ"
 *            8..11   version of this layout
 *           12..15   0
 *           16..23   length of the key
 *           24..31   length of the payload
 *           32..     key, payload
 *           last 8   checksum of all bytes before it
 *
 * Numbers are in the order of the machine that wrote the file: another one finds its version strange.  The checksum
 * finds damage, not forgery: what keeps others from planting code is that the directory is
 * closed to them. Nothing is kept in memory, so a cache may be used by many threads and
 * processes at once.  Files are never deleted here; a key that is no longer asked for costs disk
 * space and nothing else. */
#include "codegen/cache.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/str.h"

#define MAGIC "SETUNOBJ"
#define VERSION 1u
#define HEADER 32
#define TRAILER 8
#define MAX_FILE \
    ((int64_t)256 << 20) /* no kernel comes near; bounds what a strange file can make us read */

struct st_cache {
    char *dir; /* NULL: no cache */
};

setun_status st_cache_open(st_cache **out, const char *dir, setun_error *err)
{
    *out = NULL;
    if (dir)
        ST_TRY(st_make_dirs(dir, 1, err));
    st_cache *c = calloc(1, sizeof *c);
    if (c && dir)
        c->dir = strdup(dir);
    if (!c || (dir && !c->dir)) {
        free(c);
        return st_fail(err, SETUN_NO_MEMORY, "no memory for the kernel cache");
    }
    *out = c;
    return SETUN_OK;
}

void st_cache_close(st_cache *c)
{
    if (!c)
        return;
    free(c->dir);
    free(c);
}

const char *st_cache_dir(const st_cache *c) { return c->dir; }

/* Everything before the payload. */
static void fill_header(uint8_t header[HEADER], int64_t key_n, int64_t n)
{
    uint32_t version = VERSION;
    memset(header, 0, HEADER);
    memcpy(header, MAGIC, 8);
    memcpy(header + 8, &version, 4);
    memcpy(header + 16, &key_n, 8);
    memcpy(header + 24, &n, 8);
}

/* Length of the file for a key and payload of these lengths, or -1 if it is out of bounds. */
static int64_t file_bytes(int64_t key_n, int64_t n)
{
    int64_t sum;
    if (st_add_i64(key_n, n, &sum) || sum > MAX_FILE - HEADER - TRAILER)
        return -1;
    return HEADER + sum + TRAILER;
}

static setun_status file_path(const st_cache *c, const char *key, int64_t key_n, st_str *path,
                              setun_error *err)
{
    st_str_addf(path, "%s/%016llx.obj", c->dir,
                (unsigned long long)st_hash(ST_HASH_INIT, key, (size_t)key_n));
    return path->failed ? st_fail(err, SETUN_NO_MEMORY, "no memory for the kernel cache")
                        : SETUN_OK;
}

/* Why the file is a miss, or NULL with the length of its payload. */
static const char *examine(const uint8_t *file, int64_t bytes, const char *key, int64_t key_n,
                           int64_t *n)
{
    uint8_t header[HEADER];
    uint64_t sum;
    if (bytes < HEADER + TRAILER)
        return "it is too short";
    memcpy(n, file + 24, 8);
    fill_header(header, key_n, *n);
    if (memcmp(header, file, 16))
        return "it is not an object of this version";
    if (memcmp(header, file, HEADER) || file_bytes(key_n, *n) != bytes)
        return "its lengths do not fit";
    memcpy(&sum, file + bytes - TRAILER, TRAILER);
    if (sum != st_checksum(file, (size_t)(bytes - TRAILER)))
        return "its checksum does not fit";
    if (memcmp(file + HEADER, key, (size_t)key_n))
        return "it is of another kernel with the same hash";
    return NULL;
}

setun_status st_cache_get(st_cache *c, const char *key, int64_t key_n, char **out, int64_t *n,
                          setun_error *err)
{
    *out = NULL;
    *n = 0;
    if (!c->dir)
        return st_fail(err, SETUN_DECLINED, "there is no kernel cache");
    if (key_n < 0 || file_bytes(key_n, 0) < 0)
        return st_fail(err, SETUN_BAD_ARG, "a cache key of %lld bytes", (long long)key_n);
    st_str path = { 0 };
    char *file = NULL;
    int64_t bytes = 0, payload = 0;
    setun_status s = file_path(c, key, key_n, &path, err);
    if (s == SETUN_OK && !st_is_file(path.text))
        s = st_fail(err, SETUN_DECLINED, "%s does not exist", path.text);
    if (s == SETUN_OK) {
        s = st_file_read(path.text, MAX_FILE, &file, &bytes, err);
        if (s != SETUN_OK && s != SETUN_NO_MEMORY)
            s = SETUN_BAD_FILE; /* unreadable is a miss: the kernel can be made again */
    }
    if (s == SETUN_OK) {
        const char *why = examine((const uint8_t *)file, bytes, key, key_n, &payload);
        if (why)
            s = st_fail(err, SETUN_BAD_FILE, "%s is ignored: %s", path.text, why);
    }
    st_str_free(&path);
    if (s != SETUN_OK) {
        free(file);
        if (err)
            err->code = s;
        return s;
    }
    memmove(file, file + HEADER + key_n, (size_t)payload);
    *out = file;
    *n = payload;
    return SETUN_OK;
}

static setun_status write_file(const char *path, const uint8_t *file, int64_t bytes,
                               setun_error *err)
{
    st_out *o;
    ST_TRY(st_out_open(&o, path, 0, err));
    setun_status s = st_out_write(o, file, bytes, err);
    if (s != SETUN_OK) {
        st_out_abort(o);
        return s;
    }
    return st_out_commit(o, err);
}

setun_status st_cache_put(st_cache *c, const char *key, int64_t key_n, const void *payload,
                          int64_t n, setun_error *err)
{
    if (!c->dir)
        return SETUN_OK;
    int64_t bytes = key_n < 0 || n < 0 ? -1 : file_bytes(key_n, n);
    if (bytes < 0)
        return st_fail(err, SETUN_BAD_ARG,
                       "a cache entry with a key of %lld and an object of %lld bytes",
                       (long long)key_n, (long long)n);
    st_str path = { 0 };
    uint8_t *file = malloc((size_t)bytes);
    setun_status s =
        file ? file_path(c, key, key_n, &path, err)
             : st_fail(err, SETUN_NO_MEMORY, "no memory to write a cache entry of %lld bytes",
                       (long long)bytes);
    if (s == SETUN_OK) {
        fill_header(file, key_n, n);
        memcpy(file + HEADER, key, (size_t)key_n);
        if (n)
            memcpy(file + HEADER + key_n, payload, (size_t)n);
        uint64_t sum = st_checksum(file, (size_t)(bytes - TRAILER));
        memcpy(file + bytes - TRAILER, &sum, TRAILER);
        s = write_file(path.text, file, bytes, err);
    }
    free(file);
    st_str_free(&path);
    return s;
}
