/* codegen/cache.h -- images of kernels on disk, keyed by everything that matters.
 *
 * A key is text (kernel text, target, LLVM version, launch ABI, Setun version); the file name is its
 * hash, and the file repeats the whole key, so a collision or a damaged file is a miss, never wrong
 * code.  The directory is private to the user (0700, own files) because its contents are executed.
 * Written to a temporary name and renamed: two processes may write at once. */
#ifndef ST_CACHE_H
#define ST_CACHE_H

#include "setun/types.h"

typedef struct st_cache st_cache;

/* dir NULL: no cache (get misses, put does nothing).  A directory that cannot be made or is not
 * private fails with SETUN_IO; the caller decides whether to go on without. */
setun_status st_cache_open(st_cache **c, const char *dir, setun_error *err);
void         st_cache_close(st_cache *c);
/* bytes is malloc'ed.  A miss is SETUN_DECLINED when there is nothing, and SETUN_BAD_FILE when there is a file that
 * cannot be used (unreadable, damaged, of another key), which the sentence names. */
setun_status st_cache_get(st_cache *c, const char *key, int64_t key_n, char **bytes, int64_t *n, setun_error *err);
/* A full disk or another failure is SETUN_IO with a sentence; nothing half-written remains. */
setun_status st_cache_put(st_cache *c, const char *key, int64_t key_n, const void *bytes, int64_t n, setun_error *err);
const char  *st_cache_dir(const st_cache *c); /* NULL without cache */

#endif
